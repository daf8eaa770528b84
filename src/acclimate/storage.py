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

from acclimate.errors import FormatError, MismatchError, OutputError, OutputExistsError

FORMAT = 1
"""Version of the layout below; raised when an older reader could misread a newer artefact."""

_ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "the quota is used up; free some space or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is read-only; write elsewhere",
}
_CLEAN = "nothing was left behind"


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
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for.
        OutputError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        check_free(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        yield aside
        aside.chmod(0o755)
        _swap(aside, path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            hint=next((advice for number, advice in _ADVICE.items() if os.strerror(number) in str(error)), _CLEAN),
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_free(path: str | Path, *, overwrite: bool = False) -> None:
    """Fail early if a result cannot be put at ``path`` because something is there.

    Raises:
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for.
    """
    path = Path(path)
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise OutputExistsError(f"{path} exists already", hint="choose another place, or ask to overwrite it")


def _swap(new: Path, path: Path) -> None:
    """Give ``new`` the name ``path``; what was there is moved away first and deleted last."""
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent)) / path.name
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


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
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if not isinstance(manifest, dict):
            raise ValueError("the manifest is no table of names")
        if manifest.get("format") != FORMAT:
            raise FormatError(
                f"{path} has format {manifest.get('format')}; this version of acclimate reads format {FORMAT}",
                hint="save it again with the version that wrote it, or fit anew",
            )
        if manifest.get("kind") != kind:
            raise MismatchError(f"{path} holds a '{manifest.get('kind')}', not a '{kind}'")
        arrays = load_file(path / "arrays.safetensors")
        tables = {name: pq.read_table(path / f"{name}.parquet") for name in manifest["tables"]}
    except FileNotFoundError as error:
        raise FormatError(
            f"{path} is absent or incomplete: {error.filename or error}", hint="give the folder that a save made"
        ) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return Stored(manifest, arrays, tables)


@contextmanager
def unpacking(path: str | Path) -> Generator[None]:
    """Take an artefact apart in the block; what it lacks there is damage.

    Raises:
        FormatError: a part is absent, or not what it should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str | Path, error: Exception) -> FormatError:
    what = f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return FormatError(f"{path} is damaged: {what}", hint="restore it from a copy, or fit anew")
