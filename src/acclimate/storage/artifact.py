"""Models on disk: immutable generations of arrays (safetensors) and tables (Parquet) behind one manifest.

::

    model/
        manifest.json       what it is, and each file with its size and SHA-256; replaced at once by the next one
        generation-7/       arrays.safetensors and <table>.parquet, never changed
        rows/               segments of rows by key, never changed: most go on from generation to generation

A reader that began with one manifest finds the files of that one or none at all, and then begins anew.
"""

import json
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.errors import ConfigError, MismatchError, OutputExistsError
from acclimate.storage.locks import locked, sync
from acclimate.storage.manifest import (
    MANIFEST,
    PARTIAL,
    Differs,
    Manifest,
    Part,
    check_artifact,
    damaged,
    part_of,
    proved_bytes,
    read_manifest,
    reading,
    write_manifest,
)
from acclimate.storage.places import ARRAYS, ROWS, check_free, check_taken, generation, named, telling, workshop
from acclimate.storage.segments import Segment, head_of, open_segment

_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U64": "<u8", "U8": "u1", "BOOL": "?"}
"""Those that learners keep, by the names that safetensors gives them."""


@dataclass(frozen=True)
class Stored:
    """What :func:`read_artifact` found."""

    manifest: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    tables: dict[str, pa.Table]
    segments: dict[str, list[Segment]] = field(default_factory=dict[str, list[Segment]])


Unwritten: TypeAlias = Callable[[Path], None]
"""Writes a segment where nothing is."""


@dataclass(frozen=True)
class _Model:
    """What is to be written: ``content`` is what the manifest says beside the files."""

    content: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    tables: Mapping[str, pa.Table]
    segments: Mapping[str, Sequence[Segment | Unwritten]]


def write_artifact(
    path: str | Path,
    *,
    kind: str,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    tables: Mapping[str, pa.Table],
    segments: Mapping[str, Sequence[Segment | Unwritten]] | None = None,
    overwrite: bool = False,
    expected: str | None = None,
) -> str:
    """Write one model; see :class:`Stored` for its parts. Whoever reads meanwhile reads the old one or the new.

    Args:
        path: a folder; an existing model in it is replaced if ``overwrite`` is asked for.
        kind: of the learner.
        manifest: what JSON can hold.
        arrays: by name.
        tables: by name.
        segments: by name, those that are there already, which are not written again, and those to be written.
        overwrite: replace a model that is there.
        expected: the seal of the model that is to be replaced, where it must be that very one.

    Returns:
        The seal of what was written.

    Raises:
        ConfigError: ``path`` is empty.
        OutputExistsError: the place is taken, or no longer holds what was expected.
        OutputError: the disk is full, or the place cannot be written.
    """
    path = named(path)
    model = _Model({"kind": kind, "tables": sorted(tables), **manifest}, arrays, tables, segments or {})
    while True:
        check_free(path, "model", overwrite=overwrite)
        with telling(path):
            seal = _replaced(path, model, overwrite, expected) if path.exists() else _begun(path.resolve(), model)
        if seal is not None:
            return seal


def read_artifact(path: str | Path, *, kind: str) -> Stored:
    """Read a model of the given kind; every byte is checked, those of segments when they are read.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
        MismatchError: it is of another kind, or no model.
    """
    path = Path(path)
    while True:
        manifest = _model_manifest(path)
        if manifest.content["kind"] != kind:
            raise MismatchError(f"{path} holds a '{manifest.content['kind']}', not a '{kind}'")
        with reading(path):
            try:
                return _read(path, manifest)
            except (FileNotFoundError, Differs):
                if read_manifest(path).seal == manifest.seal:
                    raise  # nobody replaced it meanwhile


def read_segments(path: str | Path, seal: str, known: Sequence[Segment] = ()) -> dict[str, list[Segment]] | None:
    """The segments of a model that was just written; none if another has taken its place.

    Those that are ``known`` are not opened anew.

    Raises:
        FormatError: it is damaged.
    """
    path = Path(path)
    with reading(path):
        manifest = read_manifest(path)
        if manifest.seal != seal:
            return None
        try:
            return _segments_in(path, manifest, known)
        except FileNotFoundError:
            if read_manifest(path).seal == seal:
                raise
            return None


def read_kind(path: str | Path) -> str:
    """The kind of a model.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
        MismatchError: it is no model.
    """
    return str(_model_manifest(Path(path)).content["kind"])


@contextmanager
def unpacking(path: str | Path) -> Generator[None]:
    """Take an artefact apart in the block; what it lacks there is damage.

    Raises:
        FormatError: a part is absent, or not what it should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise damaged(path, error) from error


@contextmanager
def only_writer(path: str | Path, on_wait: Callable[[], None] | None = None) -> Generator[None]:
    """Be the only one who writes this model, from before it is loaded to after it is saved.

    ``on_wait`` is called if another one is at it, before the wait.

    Raises:
        FormatError: there is no such folder.
    """
    with ExitStack() as stack:
        with reading(Path(path)):
            stack.enter_context(locked(Path(path), on_wait))
        yield


# --- writing -------------------------------------------------------------------------------------------------


def _begun(final: Path, model: _Model) -> str | None:
    """A new folder with its first generation; none if the name was taken meanwhile."""
    with workshop(final) as room:
        new = room / "new"
        new.mkdir()
        seal = _write_generation(new, 1, model)
        try:
            new.rename(final)
        except OSError:
            if final.exists():
                return None
            raise
        sync(final.parent)
    return seal


def _replaced(path: Path, model: _Model, overwrite: bool, expected: str | None) -> str | None:
    """The next generation in a folder that is there; none if it is gone."""
    try:
        with locked(path):
            check_taken(path, "model", overwrite=overwrite)
            current = _current(path)
            if expected is not None and (current is None or current.seal != expected):
                raise OutputExistsError(
                    f"{path} was saved by another since this model was loaded from it; nothing was touched",
                    hint="load it again and repeat what was done, or save elsewhere",
                )
            _clear_up(path)
            try:
                return _write_generation(path, _number(current) + 1, model)
            finally:
                _clear_up(path)
    except FileNotFoundError:
        if path.exists():
            raise
        return None


def _current(path: Path) -> Manifest | None:
    return read_manifest(path) if (path / MANIFEST).exists() else None


def _number(manifest: Manifest | None) -> int:
    return int(manifest.content["generation"]) if manifest else 0


def _clear_up(path: Path) -> None:
    """Remove what is beside the generation that the manifest names: of the last save, or of one that was cut off.

    The manifest decides, and not how far a save has come: it may be cut off just after the manifest was replaced.
    """
    current = _current(path)
    number, listed = _number(current), current.files if current else {}
    (path / PARTIAL).unlink(missing_ok=True)
    for other in (number - 1, number + 1):
        if (path / generation(other)).is_dir():
            shutil.rmtree(path / generation(other))
    for file in (path / ROWS).glob("*"):
        if f"{ROWS}/{file.name}" not in listed and file.is_file():
            file.unlink()


def _write_generation(folder: Path, number: int, model: _Model) -> str:
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    place = folder / generation(number)
    place.mkdir()
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in model.arrays.items()}, place / ARRAYS)
    except SafetensorError as error:  # what the disk refuses is told in the text alone
        raise OSError(str(error)) from error
    for name, table in model.tables.items():
        pq.write_table(table, place / f"{name}.parquet")
    files = _settled(place, sorted(place.iterdir()))
    told, parts = _placed(folder, number, model.segments)
    content = {"generation": number, **model.content, "segments": told}
    return write_manifest(folder, content, "model", files | parts)


def _placed(
    folder: Path, number: int, segments: Mapping[str, Sequence[Segment | Unwritten]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Part]]:
    """What the manifest says of segments, by name, and of their files, once all are in the folder."""
    if not segments:
        return {}, {}
    place = folder.resolve() / ROWS
    place.mkdir(exist_ok=True)
    told: dict[str, list[dict[str, Any]]] = {}
    files, written = dict[str, Part](), list[Path]()
    for name, items in segments.items():
        told[name] = []
        for i, item in enumerate(items):
            path = place / f"{name}-{number}-{i}.safetensors"
            if isinstance(item, Segment):
                if item.path.parent == place and item.is_at(item.path):
                    path = item.path
                else:
                    _linked(item, path)
                files[f"{ROWS}/{path.name}"] = item.part
                head = item.head
            else:
                item(path)
                written.append(path)
                head = head_of(path)
            told[name].append({"file": path.name, "head": head})
    return told, files | _settled(place, written)


def _linked(segment: Segment, path: Path) -> None:
    """One more name for a file that never changes, or a copy of what is mapped.

    The latter where there can be no other name, the old one is gone or of another file by now, or where others may
    not read it that may read this folder's.
    """
    try:
        path.hardlink_to(segment.path)
        same = segment.is_at(path) and (path.stat().st_mode ^ path.parent.stat().st_mode) & 0o666 == 0
    except OSError:
        same = False
    if not same:
        path.unlink(missing_ok=True)
        path.write_bytes(segment.mapped)
    sync(path)


def _settled(place: Path, paths: Sequence[Path]) -> dict[str, Part]:
    """Files as they are to stay: with the modes that the umask allows, on the disk, and known by their hashes."""
    mode = place.stat().st_mode & 0o666  # the folder was made by it; safetensors keeps files to the owner
    for path in paths:
        path.chmod(mode)
    with ThreadPoolExecutor(1) as pool:  # a disk is slow: meanwhile the hashes are computed
        syncing = [pool.submit(sync, path) for path in (*paths, place)]
        files = {f"{place.name}/{path.name}": part_of(path) for path in paths}
        for waiting in syncing:
            waiting.result()
    return files


# --- reading -------------------------------------------------------------------------------------------------


def _model_manifest(path: Path) -> Manifest:
    manifest = read_manifest(path)
    check_artifact(manifest, path, "model")
    return manifest


def _read(path: Path, manifest: Manifest) -> Stored:
    import pyarrow.parquet as pq

    files = {name.rpartition("/")[2]: (name, part) for name, part in manifest.files.items()}

    def proved(name: str) -> NDArray[np.uint8]:
        full_name, part = files[name]
        return proved_bytes(path, full_name, part)

    arrays = arrays_in(proved(ARRAYS))
    tables = {
        name: pq.read_table(pa.BufferReader(proved(f"{name}.parquet").data)) for name in manifest.content["tables"]
    }
    return Stored(manifest.content, arrays, tables, _segments_in(path, manifest))


def _segments_in(path: Path, manifest: Manifest, known: Sequence[Segment] = ()) -> dict[str, list[Segment]]:
    place, open_ones = path.resolve() / ROWS, {segment.path: segment for segment in known}

    def opened(told: dict[str, Any]) -> Segment:
        part, one = manifest.files[f"{ROWS}/{told['file']}"], open_ones.get(place / told["file"])
        if one is not None and one.part == part and one.is_at(one.path):
            return one
        return open_segment(place / told["file"], part, (int(told["head"][0]), str(told["head"][1])))

    return {name: [opened(told) for told in segments] for name, segments in manifest.content["segments"].items()}


def arrays_in(data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as views of its bytes: the very ones that were proved, and no second copy.

    The format: the length of a header (8 bytes), the header (JSON: type, shape and place of each), the values.
    """
    length = int(data[:8].view("<u8")[0])
    header: dict[str, Any] = json.loads(data[8 : 8 + length].tobytes())
    values = data[8 + length :]
    return {
        name: values[slice(*array["data_offsets"])].view(_TYPES[array["dtype"]]).reshape(array["shape"])
        for name, array in header.items()
    }
