"""One writer at a time, in all processes; and what is written, on the disk before anything points to it."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_Identity = tuple[int, int]
_HELD: ContextVar[frozenset[_Identity]] = ContextVar("_HELD", default=frozenset())
"""Device and inode of the folders that this thread has locked: it may lock them again, within."""


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None] | None = None) -> Generator[None]:
    """Hold a folder against all others who would write in it; they wait, or we do.

    The lock is on the folder itself and goes with the process, so that none is left behind.

    Args:
        folder: is there.
        on_wait: called if another holds it, before the wait.

    Raises:
        FileNotFoundError: there is no such folder, or there is none any more.
    """
    descriptor = None
    while descriptor is None:
        descriptor = _opened(folder, on_wait)
    identity = _identity(os.fstat(descriptor))
    token = _HELD.set(_HELD.get() | {identity})
    try:
        yield
    finally:
        _HELD.reset(token)
        os.close(descriptor)


@contextmanager
def locked_if_free(folder: Path) -> Generator[bool]:
    """Hold a folder if nobody does; yields whether that is so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(folder: Path, on_wait: Callable[[], None] | None) -> int | None:
    """A locked descriptor of the folder; none if it is another folder by the time that it is locked."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        identity = _identity(os.fstat(descriptor))
        if identity not in _HELD.get() and not _try_lock(descriptor):
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _identity(os.stat(folder)) == identity:
            kept, descriptor = descriptor, -1
            return kept
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
