"""DuckDB with a bound on its memory, and a private folder for what exceeds it."""

import fcntl
import os
import re
import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from acclimate.config import size_bytes
from acclimate.errors import ConfigError
from acclimate.storage.locks import locked_if_free

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_PER_THREAD = 64 * 2**20  # a sort holds some 50 MB in each
_MOST_IDLE = 2
_PREFIX = "acclimate-spill-"


def quoted(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def reason(error: Exception) -> str:
    """The first line of a message, without the class that DuckDB puts in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^[\w ]+ Error: ", "", lines[0])


def size_in_bytes(memory_limit: str) -> int:
    """The bytes of a ``memory_limit``.

    Raises:
        ConfigError: it is no size, or one that reading cannot do with.
    """
    try:
        return size_bytes(str(memory_limit).strip())
    except ConfigError as error:
        raise ConfigError(f"memory_limit {error.message}", hint=error.hint) from error


class _Engine:
    """An in-memory DuckDB. One takes 30 ms to open, so that the next log has that of one that is gone."""

    def __init__(self, size: int) -> None:
        import duckdb

        self.spill = _spill_folder(self)
        self.root = duckdb.connect(config={"memory_limit": f"{size}B", "temp_directory": self.spill})
        self.root.execute("SET GLOBAL TimeZone = 'UTC'")
        threads = self.root.execute("SELECT current_setting('threads')").fetchall()[0][0]
        self.root.execute(f"SET GLOBAL threads = {max(1, min(int(threads), size // _PER_THREAD))}")


_Kind: TypeAlias = tuple[int, str]
"""What an engine was made for: memory limit and folder for temporary files."""

_idle: list[tuple[_Kind, _Engine]] = []
"""The last that are free. None goes into a fork, where the threads that it has are not."""

os.register_at_fork(before=_idle.clear)


def _engine_for(owner: "Database") -> _Engine:
    """One that nobody else has as long as its owner lives."""
    kind = owner.bytes, tempfile.gettempdir()
    free = (_taken(one) for one in list(_idle) if one[0] == kind)
    engine = next(filter(None, free), None) or _Engine(owner.bytes)
    weakref.finalize(owner, _lay_by, kind, engine).atexit = False
    return engine


def _taken(one: tuple[_Kind, _Engine]) -> _Engine | None:
    """The engine, unless another thread has just taken it, or it has failed for good and answers nothing."""
    import duckdb

    try:
        _idle.remove(one)
        one[1].root.execute("SELECT 1")
    except (ValueError, duckdb.Error):
        return None
    return one[1]


def _lay_by(kind: _Kind, engine: _Engine) -> None:
    """Keep one that has not spilled; what has goes with its folder."""
    if os.path.isdir(engine.spill) and not os.listdir(engine.spill):
        _idle.append((kind, engine))
        del _idle[:-_MOST_IDLE]


class Database:
    """An in-memory DuckDB that spills to disk beyond ``memory_limit``.

    Every query has a connection of its own, so that results can be read side by side and from any thread.
    """

    def __init__(self, memory_limit: str) -> None:
        self.memory_limit = memory_limit
        self.bytes = size_in_bytes(memory_limit)
        self._frames: dict[str, pa.Table] = {}
        self._root = _engine_for(self).root

    def connection(self) -> "DuckDBPyConnection":
        """A new connection that sees all frames."""
        connection = self._root.cursor()
        for name, frame in self._frames.items():
            connection.register(name, frame)
        return connection

    def query(self, sql: str) -> "DuckDBPyRelation":
        """The result of a SELECT, not yet computed."""
        return self.connection().sql(sql)

    def add(self, frame: pa.Table) -> str:
        """The name under which queries find the frame."""
        name = f"frame_{len(self._frames)}"
        self._frames[name] = frame
        return name


# --- the folder for what exceeds the memory: of mode 700, locked while its process lives ---------------------


def _spill_folder(owner: _Engine) -> str:
    """A new folder that goes with its owner; if the process is killed, with the next one that reads events."""
    _clear_leftovers()
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    weakref.finalize(owner, _clear, folder, descriptor, os.getpid())
    return folder


def _clear(folder: str, descriptor: int, process: int) -> None:
    if os.getpid() == process:  # a fork leaves what is its parent's
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@cache
def _clear_leftovers() -> None:
    """Remove what dead processes of this user left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with locked_if_free(folder) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process was faster
            continue
