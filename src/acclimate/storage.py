"""Results on disk: written aside and renamed, so that a final name never holds half a result.

An artefact is a folder of a JSON manifest, arrays (safetensors) and tables (Parquet). Never pickle.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.errors import ConfigError, FormatError, MismatchError, OutputError, OutputExistsError

FORMAT = 2
"""Version of the layout below; raised when an older reader could misread a newer artefact."""

_ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "the quota is used up; free some space or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is read-only; write elsewhere",
}
_CLEAN = "nothing was left behind"
_OURS = ("manifest.json", "metrics.json", "acclimate.yaml")
"""One of these is in every folder that acclimate writes: an artefact, a report, a project."""


@dataclass(frozen=True)
class Stored:
    """What :func:`read_artifact` found."""

    manifest: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    tables: dict[str, pa.Table]


@contextmanager
def replacing_folder(path: str | Path, *, overwrite: bool = False) -> Generator[Path]:
    """Yield an empty folder beside ``path`` that takes its name when the block ends well, and goes if it does not.

    Raises:
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for, or it is not ours to replace.
        OutputError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        check_free(path, overwrite=overwrite)
        with _telling(path):
            final = path.resolve()
            final.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
            yield aside
            aside.chmod(0o755)
            _check_taken(path, overwrite=overwrite)  # much may have happened since
            _swap(aside, final)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_free(path: str | Path, *, overwrite: bool = False) -> None:
    """Fail early if a result cannot be put at ``path``; an empty folder is a free place.

    Only what acclimate wrote can be overwritten: a folder with one of its files in it.

    Raises:
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for, or it is not ours to replace.
        OutputError: there can be no folder, or none can be written.
    """
    path = Path(path)
    with _telling(path):
        _check_taken(path, overwrite=overwrite)
        place = next((parent for parent in path.resolve().parents if parent.exists()), path)
        if not place.is_dir():
            raise OutputError(f"{path} cannot be written: {place} is a file", hint="choose another place")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path} cannot be written: nothing can be written in {place}", hint=_ADVICE[errno.EACCES]
            )


def _check_taken(path: Path, *, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already", hint="choose another place, or ask to overwrite it")
    if not any((path / name).is_file() for name in _OURS):
        raise OutputExistsError(
            f"{path} holds something else than a model, a report or a project of acclimate; nothing was touched",
            hint="choose another place, or remove it yourself",
        )
    if Path.cwd().is_relative_to(path.resolve()):
        raise OutputExistsError(
            f"{path} is the current folder or holds it, and is not replaced", hint="start from another folder"
        )


@contextmanager
def _telling(path: Path) -> Generator[None]:
    """What the operating system refuses in the block is an error of the tree."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            hint=next((advice for number, advice in _ADVICE.items() if os.strerror(number) in str(error)), _CLEAN),
        ) from error


def _swap(new: Path, path: Path) -> None:
    """Give ``new`` the name ``path``; what was there is moved away first and deleted last."""
    if path == Path.cwd():
        _fill(path, new)
        return
    if not path.exists():
        new.rename(path)
        return
    shelf = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    old = shelf / path.name
    try:
        path.rename(old)
        new.rename(path)
    finally:
        if not path.exists():
            old.rename(path)
        shutil.rmtree(shelf, ignore_errors=True)


def _fill(path: Path, new: Path) -> None:
    """Move what is in ``new`` into the empty current folder, which another one must not replace under our feet."""
    names = sorted(part.name for part in new.iterdir())
    try:
        for name in names:
            (new / name).rename(path / name)
    except OSError:
        for name in names:
            if (path / name).exists():
                (path / name).rename(new / name)
        raise


def write_artifact(
    path: str | Path,
    *,
    kind: str,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    tables: Mapping[str, pa.Table],
    overwrite: bool = False,
) -> None:
    """Write one artefact; see :class:`Stored` for its parts and :func:`replacing_folder` for the errors."""
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    content = {"format": FORMAT, "kind": kind, "tables": sorted(tables), **manifest}
    with replacing_folder(path, overwrite=overwrite) as folder:
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "arrays.safetensors")
        except SafetensorError as error:  # what the disk refuses is told in the text alone
            raise OSError(str(error)) from error
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet")
        (folder / "manifest.json").write_text(json.dumps(content, indent=2, allow_nan=False))


def read_artifact(path: str | Path, *, kind: str) -> Stored:
    """Read an artefact of the given kind.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
        MismatchError: it is of another kind.
    """
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    with _reading(path):
        manifest = _manifest(path)
        if manifest["kind"] != kind:
            raise MismatchError(f"{path} holds a '{manifest['kind']}', not a '{kind}'")
        try:
            arrays = load_file(path / "arrays.safetensors")
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        tables = {name: pq.read_table(path / f"{name}.parquet") for name in manifest["tables"]}
    return Stored(manifest, arrays, tables)


def read_kind(path: str | Path) -> str:
    """The kind of an artefact.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
    """
    path = Path(path)
    with _reading(path):
        return str(_manifest(path)["kind"])


def _manifest(path: Path) -> dict[str, Any]:
    manifest = json.loads((path / "manifest.json").read_text())
    if not isinstance(manifest, dict):
        raise ValueError("the manifest is no table of names")
    if manifest.get("format") != FORMAT:
        raise FormatError(
            f"{path} has format {manifest.get('format')}; this version of acclimate reads format {FORMAT}",
            hint="save it again with the version that wrote it, or fit anew",
        )
    return manifest


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """What is not there or not right in the block is an error of the tree."""
    try:
        yield
    except FileNotFoundError as error:
        raise FormatError(
            f"{path} is absent or incomplete: {error.filename or error}", hint="give the folder that a save made"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


@contextmanager
def unpacking(path: str | Path) -> Generator[None]:
    """Take an artefact apart in the block; what it lacks there is damage.

    Raises:
        FormatError: a part is absent, or not what it should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str | Path, error: Exception) -> FormatError:
    what = f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return FormatError(f"{path} is damaged: {what}", hint="restore it from a copy, or fit anew")
