"""The manifest of a folder: what it is, and every file in it with its size and SHA-256, under a seal."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import FormatError, MismatchError
from acclimate.storage.locks import sync

Artifact: TypeAlias = Literal["model", "report", "project", "vectors", "photon", "tuning", "backup"]
"""What a folder is: it is replaced by one that is the same alone."""

FORMAT = 6
"""Version of manifest and layout; raised when an older reader could misread a newer folder."""

MANIFEST = "manifest.json"
PARTIAL = ".manifest.json.partial"
"""The next manifest, until it takes the place of the last one."""

_LARGEST = 256 << 20  # bytes of a manifest; what is larger is none of ours


@dataclass(frozen=True)
class Part:
    """A file as it was written."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read: ``files`` by their paths from the folder, and all its ``content``."""

    artifact: str
    files: dict[str, Part]
    content: dict[str, Any]

    @property
    def seal(self) -> str:
        """Hash of all the rest: the identity of this very state of the folder."""
        return self.content["seal"]


class Differs(ValueError):  # noqa: N818 - what is read is not what was written: damage, or a newer generation
    """A file is not the one that the manifest lists."""


def write_manifest(folder: Path, content: Mapping[str, Any], artifact: Artifact, files: Mapping[str, Part]) -> str:
    """Make this the manifest of a folder, at once and to stay; returns its seal.

    Raises:
        ValueError: JSON cannot hold the content.
    """
    parts = {name: asdict(part) for name, part in sorted(files.items())}
    whole = {"format": FORMAT, "artifact": artifact, **content, "files": parts}
    # Through JSON first: there are no tuples or numbers as keys when it is read.
    seal = _hash_of(json.loads(json.dumps(whole, allow_nan=False)))
    partial = folder / PARTIAL
    partial.write_text(json.dumps({"seal": seal, **whole}, indent=2), encoding="utf-8")
    sync(partial)
    partial.replace(folder / MANIFEST)
    sync(folder)
    return seal


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
    """
    with reading(folder):
        path = folder / MANIFEST
        check_regular(path, "manifest", _LARGEST)
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise Differs("the manifest is no table of names")
        if content.get("format") != FORMAT:
            raise FormatError(
                f"{folder} has format {str(content.get('format'))[:20]}; this version of acclimate reads format "
                f"{FORMAT}",
                hint="use the version that wrote it, or make it anew",
            )
        unsealed = {key: value for key, value in content.items() if key != "seal"}
        if content.get("seal") != _hash_of(unsealed):
            raise Differs("the manifest was changed after it was written")
        files = {_inside(name): Part(**part) for name, part in content["files"].items()}
        return Manifest(str(content["artifact"]), files, content)


def check_artifact(manifest: Manifest, folder: Path, wanted: Artifact) -> None:
    """Raises MismatchError if the folder is something else."""
    if manifest.artifact != wanted:
        raise MismatchError(f"{folder} holds a {manifest.artifact}, not a {wanted}")


def part_of(path: Path) -> Part:
    """What a manifest says of a file."""
    with path.open("rb") as file:
        return Part(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def parts_of(folder: Path) -> dict[str, Part]:
    """All files of a folder but its manifest, by their paths from it."""
    return {name: part_of(folder / name) for name in files_in(folder)}


def files_in(folder: Path) -> list[str]:
    """The paths of all that is no folder in a folder, from it, but for its manifest."""
    found = (
        Path(place, name).relative_to(folder).as_posix()
        for place, folders, names in os.walk(folder)
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(place, one))))
    )
    return sorted(name for name in found if name not in (MANIFEST, PARTIAL))


def check_parts(folder: Path, files: Iterable[tuple[str, Part]]) -> None:
    """Compare files with what is said of them.

    Raises:
        Differs: one is not what it was.
        FileNotFoundError: one is not there.
    """
    for name, part in files:
        check_regular(folder / name, name, part.size)
        if part_of(folder / name) != part:
            raise Differs(f"{name} is not what was written")


def proved_bytes(folder: Path, name: str, part: Part) -> NDArray[np.uint8]:
    """What is in a file, read once and compared with what is said of it before anything is made of it.

    Raises:
        Differs: it is not what it was.
        FileNotFoundError: it is not there.
    """
    check_regular(folder / name, name, part.size)
    data = np.fromfile(folder / name, np.uint8)
    if Part(len(data), hashlib.sha256(data.data).hexdigest()) != part:
        raise Differs(f"{name} is not what was written")
    return data


def verify_file(folder: Path, name: str) -> None:
    """Check one file of a report or a project.

    Raises:
        FormatError: it is not what was written, or there is no manifest.
    """
    manifest = read_manifest(folder)
    with reading(folder):
        check_parts(folder, [(name, manifest.files[name])])


@contextmanager
def reading(path: Path) -> Generator[None]:
    """What is not there or not right in the block is an error of the tree."""
    try:
        yield
    except FileNotFoundError as error:
        raise FormatError(
            f"{path} is absent or incomplete: {error.filename or error}", hint="give the folder that was written"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    except RecursionError as error:  # thousands of brackets
        raise damaged(path, ValueError("the manifest is nested too deeply")) from error


def damaged(path: str | Path, error: Exception) -> FormatError:
    """An artefact that is not what was written."""
    what = f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return FormatError(f"{path} is damaged: {what}", hint="restore it from a copy, or make it anew")


def _hash_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_regular(path: Path, name: str, most: int) -> None:
    """Before it is opened: nothing that could block or never end.

    Raises:
        Differs: it is no regular file, or has more bytes than belong there.
        FileNotFoundError: it is not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Differs(f"{name} is no regular file")
    if status.st_size > most:
        raise Differs(f"{name} has {status.st_size:,} bytes, {most:,} at most belong there")


def _inside(name: str) -> str:
    """A path of the manifest, which must not lead out of its folder."""
    parts = PurePosixPath(name).parts
    if not parts or name != "/".join(parts) or ".." in parts or re.search(r"^/|\\|:|\x00", name):
        raise Differs(f"the manifest names '{name!r}', which is no path inside")
    return name
