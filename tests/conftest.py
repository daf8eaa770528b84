"""What tests of several steps share: the same random examples in every run, and a disk that is full."""

import resource
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@contextmanager
def _no_file_beyond(size: int) -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def no_file_beyond() -> Callable[[int], AbstractContextManager[None]]:
    """Within ``no_file_beyond(bytes)`` the system refuses to write more to a file, as it does on a full disk.

    Unlike permissions, the limit holds for root too.
    """
    return _no_file_beyond
