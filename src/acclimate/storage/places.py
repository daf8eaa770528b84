"""Where a result may go, and how it gets there: aside first, under its name when it is whole.

What is made aside stands in a workshop: a hidden folder beside the final name, locked by its maker. One that
nobody holds was left by a process that was killed: the next one puts back what it had moved away, and clears it.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from acclimate.errors import ConfigError, FormatError, OutputError, OutputExistsError
from acclimate.storage.locks import locked, locked_if_free, sync
from acclimate.storage.manifest import (
    MANIFEST,
    Artifact,
    Differs,
    Manifest,
    check_parts,
    files_in,
    parts_of,
    read_manifest,
    write_manifest,
)

_ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "the quota is used up; free some space or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is read-only; write elsewhere",
}
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
ARRAYS = "arrays.safetensors"
ROWS = "rows"
"""The folder of a model's segments."""
_SHOWN = 3


def check_free(path: str | Path, artifact: Artifact, *, overwrite: bool = False) -> None:
    """Fail early if a result cannot be put at ``path``; an empty folder is a free place.

    Only what acclimate wrote can be overwritten, by the same kind of result, and only if nothing was added to it
    and nothing in it was changed by hand.

    Raises:
        ConfigError: ``path`` is empty.
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for, or it is not ours to replace.
        OutputError: there can be no folder, or none can be written.
    """
    path = named(path)
    with telling(path):
        settle(path.resolve())
        check_taken(path, artifact, overwrite=overwrite)
        place = next((parent for parent in path.resolve().parents if parent.exists()), path)
        if not place.is_dir():
            raise OutputError(f"{path} cannot be written: {place} is a file", hint="choose another place")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path} cannot be written: nothing can be written in {place}", hint=_ADVICE[errno.EACCES]
            )


@contextmanager
def replacing_folder(path: str | Path, artifact: Artifact, *, overwrite: bool = False) -> Generator[Path]:
    """Yield an empty folder that takes the name ``path`` when the block ends well, and goes if it does not.

    A manifest of all that is in it by then is added.

    Raises:
        ConfigError: ``path`` is empty.
        OutputExistsError: ``path`` is taken and ``overwrite`` was not asked for, or it is not ours to replace.
        OutputError: the disk is full, or the place cannot be written.
    """
    path = named(path)
    check_free(path, artifact, overwrite=overwrite)
    with telling(path), workshop(path.resolve()) as room:
        new = room / "new"
        new.mkdir()
        yield new
        parts = parts_of(new)
        sync_tree(new)
        write_manifest(new, {}, artifact, parts)
        while not _swapped(path, room, artifact, overwrite=overwrite):
            pass  # it was free, and is not any more: look again


def generation(number: int) -> str:
    """The folder of a generation of a model."""
    return f"generation-{number}"


def named(path: str | Path) -> Path:
    """The path, which says something.

    Raises:
        ConfigError: it is empty, which Python takes for the current folder.
    """
    if not os.fspath(path):
        raise ConfigError("the place for the result is empty", hint="name a folder; the current one is .")
    try:
        if b"\0" in os.fspath(path).encode():
            raise ConfigError("the place for the result has a NUL in its name", hint="name another folder")
        Path(path).resolve()
    except UnicodeEncodeError as error:
        raise ConfigError("the place for the result has a name that is no UTF-8", hint="name another") from error
    except (OSError, RuntimeError) as error:  # a loop of links
        raise OutputError(f"{path} cannot be written: {error}", hint="choose another place") from error
    return Path(path)


@contextmanager
def telling(path: Path) -> Generator[None]:
    """What the operating system refuses in the block is an error of the tree."""
    try:
        yield
    except OSError as error:
        advice = (advice for number, advice in _ADVICE.items() if os.strerror(number) in str(error))
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}", hint=next(advice, "nothing was left behind")
        ) from error


@contextmanager
def workshop(final: Path) -> Generator[Path]:
    """A folder of our own beside ``final``; whatever is in it goes at the end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        room = None
        while room is None:
            room = _locked_room(final, stack)
        try:
            yield room
        finally:
            _clear(room, final)


def settle(final: Path) -> None:
    """Undo what a process that was killed had begun: what it had moved away comes back."""
    for room in _rooms(final):
        try:
            with locked_if_free(room) as free:
                if free:
                    _clear(room, final)
        except FileNotFoundError:
            continue  # its maker was alive, and is done


def check_taken(path: Path, artifact: Artifact, *, overwrite: bool) -> None:
    """Raises OutputExistsError if something is at ``path`` that may not be replaced."""
    if not path.exists() or (path.is_dir() and not _has_content(path, artifact)):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already", hint="choose another place, or ask to overwrite it")
    if artifact != "model" and Path.cwd().is_relative_to(path.resolve()):
        raise OutputExistsError(
            f"{path} is the current folder or holds it, and is not replaced", hint="start from another folder"
        )
    _check_same_kind(path, artifact)


def sync_tree(folder: Path) -> None:
    """Wait until all that is in a folder is on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


# --- what is ours to replace ---------------------------------------------------------------------------------


def _has_content(folder: Path, artifact: Artifact) -> bool:
    """Whether there is more than what the killed save of a model left in an empty folder, for the next one."""
    if artifact != "model" or (folder / MANIFEST).exists():
        return any(folder.iterdir())
    return any(not _is_left_over(name, 0) for name in files_in(folder))


def _check_same_kind(path: Path, artifact: Artifact) -> None:
    if not (path / MANIFEST).is_file():
        raise _not_ours(path, f"holds something else than a {artifact} of acclimate")
    try:
        manifest = read_manifest(path)
    except FormatError as error:
        raise _not_ours(path, f"may be no {artifact} of acclimate: {error.message}") from error
    if manifest.artifact != artifact:
        raise _not_ours(path, f"holds a {manifest.artifact}, which a {artifact} does not replace")
    if foreign := [name for name in files_in(path) if not _is_listed(name, manifest)]:
        shown = ", ".join(foreign[:_SHOWN]) + (", ..." if len(foreign) > _SHOWN else "")
        raise _not_ours(
            path, f"has {len(foreign):,} file{'s' * (len(foreign) > 1)} that acclimate did not write: {shown}"
        )
    if artifact != "model":  # whose files nobody edits, and which are large
        present = ((name, part) for name, part in manifest.files.items() if (path / name).exists())
        try:
            check_parts(path, present)
        except Differs as error:
            raise _not_ours(path, f"was changed since: {error}") from error


def _is_listed(name: str, manifest: Manifest) -> bool:
    if name in manifest.files:
        return True
    return manifest.artifact == "model" and _is_left_over(name, int(manifest.content["generation"]))


def _is_left_over(name: str, number: int) -> bool:
    """Whether it is of the generation before or after: of a save that was killed before it had cleared up."""
    folder, _, file = name.rpartition("/")
    if folder == ROWS:
        return bool(re.fullmatch(r"[\w.-]+-\d+-\d+\.safetensors", file))
    beside = (generation(number - 1), generation(number + 1))
    return folder in beside and (file == ARRAYS or file.endswith(".parquet"))


def _not_ours(path: Path, what: str) -> OutputExistsError:
    return OutputExistsError(
        f"{path} {what}; nothing was touched", hint="choose another place, or remove it yourself"
    )


# --- the workshop --------------------------------------------------------------------------------------------


def _locked_room(final: Path, stack: ExitStack) -> Path | None:
    """A new room, locked; none if another process took it for a leftover before it was."""
    settle(final)
    room = final.parent / f".{final.name}.{secrets.token_hex(4)}.partial"
    room.mkdir()
    try:
        stack.enter_context(locked(room))
    except FileNotFoundError:
        return None
    return room


def _rooms(final: Path) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}\.partial")
    names = os.listdir(final.parent) if final.parent.is_dir() else []
    return (final.parent / name for name in sorted(names) if pattern.fullmatch(name))


def _clear(room: Path, final: Path) -> None:
    """Empty a room; what had been moved away for a new one that never came takes its name again."""
    old, new = room / "old", room / "new"
    if old.exists() and not final.exists():
        old.rename(final)
    if not (old.exists() and new.exists()):  # else something else has that name now, and what was there stays here
        shutil.rmtree(room, ignore_errors=True)


def _swapped(path: Path, room: Path, artifact: Artifact, *, overwrite: bool) -> bool:
    """Give what is new in the room the name ``path``; false if something took that name in between."""
    check_taken(path, artifact, overwrite=overwrite)
    final, new = path.resolve(), room / "new"
    try:
        if final == Path.cwd():
            _fill(final, new)
        elif final.exists() and any(final.iterdir()):
            with locked(final):
                final.rename(room / "old")
                new.rename(final)
        else:
            new.rename(final)  # an empty folder gives way
    except OSError as error:
        if error.errno in _TAKEN or isinstance(error, FileNotFoundError):
            return False
        raise
    sync(final.parent)
    return True


def _fill(final: Path, new: Path) -> None:
    """Move what is in ``new`` into the empty current folder, which another one must not replace under our feet.

    The manifest goes first: whatever happens then, it is known whose the files are.
    """
    names = sorted((part.name for part in new.iterdir()), key=lambda name: (name != MANIFEST, name))
    try:
        for name in names:
            (new / name).rename(final / name)
    except OSError:
        for name in names:
            if (final / name).exists():
                (final / name).rename(new / name)
        raise
