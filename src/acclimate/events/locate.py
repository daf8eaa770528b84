"""Which files a path, a folder or a glob means: each file once, however many ways lead to it."""

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from acclimate.errors import SourceError, nearest

PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
CSV = re.compile(r"\.[ct]sv(\.gz)?$", re.IGNORECASE)
NAMES = "names end in .parquet, .csv or .csv.gz"

_Identity = tuple[int, int]  # device and inode


def located(path: str) -> list[str]:
    """The files meant by a path, a folder (with its subfolders) or a glob, in the order of their names.

    Links are followed. Hidden files and folders, and those whose names begin with ``_``, are passed over unless
    the path names them.

    Raises:
        SourceError: there is nothing, or something of it cannot be read.
    """
    if "://" in path:  # of which no part is shown: a password may be in it
        raise SourceError("an address is no path: events are read from files", hint="download them first")
    if os.path.isdir(path):
        return _some(sorted(_inside(path)), path)
    if os.path.lexists(path):
        return [_regular(path)]
    if "\0" not in path and "**" in path.split(os.sep):
        return _some(sorted(_matching(path)), path)
    if "\0" not in path and glob.has_magic(path):
        matches = [m for m in sorted(glob.glob(path, recursive=True)) if _is_asked(m, path)]
        return [file for match in _some(matches, path) for file in located(match)]
    _refuse_absent(path)


def once(paths: list[str]) -> list[str]:
    """The paths without those that lead to a file that another one led to before."""
    first: dict[_Identity, str] = {}
    for path in paths:
        first.setdefault(_identity(path), path)
    return list(first.values())


def _inside(top: str) -> Iterator[str]:
    """The files of a folder and its subfolders. Each folder is entered once, so that a loop of links ends."""
    real = Path(os.path.realpath(top))
    entered = {_identity(str(folder)) for folder in (real, *real.parents)}  # no link leads out by way of these
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse_folder):
        kept: list[str] = []
        for name in filter(_is_visible, sorted(folders)):
            identity = _identity(os.path.join(folder, name))
            if identity not in entered:
                entered.add(identity)
                kept.append(name)
        folders[:] = kept
        for name in filter(_is_visible, names):
            path = os.path.join(folder, name)
            if _is_data(name) or not os.path.exists(path):
                yield _regular(path)


def _matching(pattern: str) -> Iterator[str]:
    """The files of a glob with ``**``, which glob.glob would follow through loops of links."""
    parts = pattern.split(os.sep)
    deep = parts.index("**")
    top = os.sep.join(parts[:deep]) or (os.sep if deep else os.curdir)
    rest = re.compile("".join(map(_expression, parts[deep:-1])) + (_expression(parts[-1]).removesuffix("/")))
    for folder in filter(os.path.isdir, glob.glob(top) if glob.has_magic(top) else [top]):
        for path in _inside(folder):
            if parts[-1] == "**" or rest.fullmatch(os.path.relpath(path, folder)):
                yield path if deep else os.path.relpath(path)


def _expression(part: str) -> str:
    """A part of a glob as a regular expression."""
    if part == "**":
        return "(?:[^/]+/)*"
    return fnmatch.translate(part).replace(".*", "[^/]*").removesuffix(r"\Z") + "/"


def _is_asked(match: str, pattern: str) -> bool:
    """Whether a match of a glob is data, or a folder, that the glob means."""
    parts = pattern.split(os.sep)
    hidden = (name for name in match.split(os.sep) if not _is_visible(name))
    named = all(any(p[:1] == name[0] and fnmatch.fnmatch(name, p) for p in parts) for name in hidden)
    return named and (_is_data(match) or os.path.isdir(match))


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "_"))


def _is_data(path: str) -> bool:
    return bool(PARQUET.search(path) or CSV.search(path))


def _identity(path: str) -> _Identity:
    try:
        status = os.stat(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _regular(path: str) -> str:
    """The path, if it leads to a file that has an end and a name that can be written.

    Raises:
        SourceError: it does not.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        what = "a link that leads nowhere" if os.path.islink(path) else "cannot be read"
        raise SourceError(f"{path}: {what}: {error.strerror}", hint="mend the link or take it out") from error
    if not stat.S_ISREG(mode):
        raise SourceError(
            f"{path}: no regular file, but a pipe, a socket or a device", hint="write the events to a file"
        )
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{path}: the name is not UTF-8", hint="rename it") from error
    return path


def _some(files: list[str], path: str) -> list[str]:
    if not files:
        raise SourceError(f"{path}: no Parquet or CSV file there", hint=NAMES)
    return files


def _refuse_folder(error: OSError) -> NoReturn:
    raise SourceError(f"{error.filename!s}: the folder cannot be read: {error.strerror}") from error


def _refuse_absent(path: str) -> NoReturn:
    folder, name = os.path.split(path)
    readable = "\0" not in path and os.path.isdir(folder or ".") and os.access(folder or ".", os.R_OK)
    siblings = os.listdir(folder or ".") if readable else []
    raise SourceError(f"{path}: no such file or folder", hint=nearest(name, siblings))
