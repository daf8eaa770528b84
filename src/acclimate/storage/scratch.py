"""Scratch files: without a name, for what exceeds the memory; they go with the last who holds them."""

import errno
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from acclimate.errors import ConfigError


def scratch_file() -> Any:
    """A new one, to be written and read."""
    return tempfile.TemporaryFile()


@contextmanager
def told_if_full() -> Generator[None]:
    """Says what would do where the disk of scratch files does not suffice.

    Raises:
        ConfigError: it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ConfigError(
            f"the disk at {tempfile.gettempdir()} is full: rows that exceed the memory_limit go there",
            hint="make room there, name another by TMPDIR, or raise memory_limit",
        ) from error
