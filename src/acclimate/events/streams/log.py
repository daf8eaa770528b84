"""The embedded log: partitions of records in one SQLite file, for one machine."""

import os
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from acclimate.artifacts import Records
from acclimate.errors import ConfigError, OutputError, SourceError

_FILE = "records.sqlite"
_BUSY = 60.0  # seconds that one who appends waits for another
_SOONEST, _LATEST = 0.001, 0.02  # seconds between two looks for what is new


class Log:
    """A log in a folder, which any number of processes of one machine append to and read.

    An append is one transaction of SQLite's write-ahead log, on the disk when it returns: whoever is killed
    meanwhile leaves all of it or nothing. Offsets count from 1 without gaps, and a position is one as text.

    Args:
        folder: made if it is not there.
        partitions: how many there are, of a new one (1 by default); checked of one that is there.

    Raises:
        ConfigError: it has another number of partitions.
        SourceError: what is there is no log.
        OutputError: it cannot be made.
    """

    def __init__(self, folder: str | Path, partitions: int | None = None) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: the log cannot be made: {error.strerror}", hint="choose another place"
            ) from error
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._reader = self._connected()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._writer = self._connected()
            self.partitions = self._laid_out(partitions)
            on_failure.pop_all()

    def append(self, partition: int, values: Sequence[bytes]) -> None:
        """See :class:`acclimate.artifacts.Stream`.

        Raises:
            OutputError: the disk is full, or does not take it; nothing was appended.
        """
        self._check(partition)
        with self._transaction() as writer:
            lost, last, arrived = self._end(writer, partition)
            # clocks may go back, and a search by time relies on the order
            now = max(time.time_ns() // 1000, arrived, self._trimmed(writer, partition))
            rows = ((offset, now, value) for offset, value in enumerate(values, max(lost, last) + 1))
            writer.executemany(f"INSERT INTO partition_{partition} VALUES (?, ?, ?)", rows)

    def read(self, partition: int, after: str | None, most: int, wait: float = 0.0) -> Records:
        """See :class:`acclimate.artifacts.Stream`."""
        self._check(partition)
        start = None if after is None else _offset(after)
        sql = f"SELECT offset, arrived, value FROM partition_{partition} WHERE offset > ? ORDER BY offset LIMIT ?"
        until, pause = time.monotonic() + wait, _SOONEST
        while True:
            with self._consistent() as reader:
                rows = reader.execute(sql, (start or 0, most)).fetchall()
                if start is not None and (not rows or rows[0][0] != start + 1):
                    self._check_position(reader, partition, start)
            left = until - time.monotonic()
            if rows or left <= 0:
                offsets, arrived, values = zip(*rows, strict=True) if rows else ((), (), ())
                return Records(values, [str(offset) for offset in offsets], np.array(arrived, np.int64))
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LATEST)

    def seek(self, partition: int, time: int) -> str | None:
        """See :class:`acclimate.artifacts.Stream`.

        Raises:
            SourceError: records that were appended at or after that time were trimmed.
        """
        self._check(partition)
        with self._consistent() as reader:
            lost, _, _ = self._end(reader, partition)
            if lost and self._trimmed(reader, partition) >= time:
                raise SourceError(
                    f"{self._folder}: partition {partition} no longer holds up to {lost:,} records "
                    f"that were appended since {_shown(time)}",
                    hint="they were trimmed; fit anew on what happened since, or trim less",
                )
            return self._before(reader, partition, time)

    def _before(self, reader: sqlite3.Connection, partition: int, time: int) -> str | None:
        """The last position that is earlier than a time, or was trimmed."""
        lost, last, _ = self._end(reader, partition)
        first, end = lost, max(lost, last)  # all up to first are earlier, all beyond end are not
        sql = f"SELECT arrived FROM partition_{partition} WHERE offset = ?"
        while first < end:
            middle = (first + end + 1) // 2
            earlier = reader.execute(sql, (middle,)).fetchone()[0] < time
            first, end = (middle, end) if earlier else (first, middle - 1)
        return str(first) if first else None

    def lag(self, partition: int, after: str | None) -> int:
        """See :class:`acclimate.artifacts.Stream`."""
        self._check(partition)
        with self._consistent() as reader:
            lost, last, _ = self._end(reader, partition)
        return max(last - max(lost, 0 if after is None else _offset(after)), 0)

    def trim(self, partition: int, *, through: str | None = None, before: int | None = None) -> int:
        """Forget records up to a position, inclusive, or those appended before a time, microseconds UTC.

        Returns how many went. The file keeps its size, and takes new records in the room of those.
        """
        self._check(partition)
        with self._transaction() as writer:
            upto = through
            if through is None and before is not None:
                upto = self._before(writer, partition, before)
            lost, last, _ = self._end(writer, partition)
            end = min(0 if upto is None else _offset(upto), max(last, lost))
            if end <= lost:
                return 0
            sql = f"SELECT arrived FROM partition_{partition} WHERE offset = ?"
            (arrived,) = writer.execute(sql, (end,)).fetchone()
            writer.execute(f"DELETE FROM partition_{partition} WHERE offset <= ?", (end,))
            writer.execute(
                "UPDATE partitions SET lost = ?, arrived = ? WHERE number = ?", (end, arrived, partition)
            )
        return end - lost

    def assigned(self) -> None:
        """Readers share the partitions among themselves."""

    def noted(self, partition: int, position: str) -> None:
        """Nobody watches it but through :meth:`lag`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        for connection in (self._reader, getattr(self, "_writer", None)):
            if connection:
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        path = self._folder / _FILE
        try:
            connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise SourceError(f"{self._folder}: the log cannot be opened: {error}") from error
        return connection

    def _laid_out(self, wanted: int | None) -> int:
        if wanted is not None and wanted < 1:
            raise ConfigError(f"a log has 1 partition or more, not {wanted}")
        with self._transaction() as writer:
            writer.execute(
                "CREATE TABLE IF NOT EXISTS partitions (number INTEGER PRIMARY KEY, lost INTEGER, arrived INTEGER)"
            )
            there = writer.execute("SELECT count(*) FROM partitions").fetchone()[0]
            if there and wanted not in (None, there):
                raise ConfigError(
                    f"{self._folder}: the log has {there} partitions, not {wanted}",
                    hint="an entity would change its partition: append to a new log of that many",
                )
            for number in range(0 if there else wanted or 1):
                writer.execute("INSERT INTO partitions VALUES (?, 0, 0)", (number,))
                writer.execute(
                    f"CREATE TABLE partition_{number} "
                    "(offset INTEGER PRIMARY KEY, arrived INTEGER NOT NULL, value BLOB NOT NULL)"
                )
        return there or wanted or 1

    def _check(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise ConfigError(
                f"{self._folder}: no partition {partition}", hint=f"there are {self.partitions}, from 0"
            )

    def _end(self, connection: sqlite3.Connection, partition: int) -> tuple[int, int, int]:
        """The last offset that was trimmed, the last one there is, and when that came; 0 for none."""
        lost = connection.execute("SELECT lost FROM partitions WHERE number = ?", (partition,)).fetchone()[0]
        sql = f"SELECT offset, arrived FROM partition_{partition} ORDER BY offset DESC LIMIT 1"
        last, arrived = connection.execute(sql).fetchone() or (0, 0)
        return lost, last, arrived

    def _trimmed(self, connection: sqlite3.Connection, partition: int) -> int:
        """When the last record that was trimmed had come; 0 for none."""
        return connection.execute("SELECT arrived FROM partitions WHERE number = ?", (partition,)).fetchone()[0]

    def _check_position(self, reader: sqlite3.Connection, partition: int, start: int) -> None:
        lost, last, _ = self._end(reader, partition)
        if start < lost:
            raise SourceError(
                f"{self._folder}: partition {partition} no longer holds {lost - start:,} records "
                f"after position {start}",
                hint=f"they were trimmed; go on after position {lost} if they may be missed",
            )
        if start > max(last, lost):
            raise SourceError(
                f"{self._folder}: partition {partition} ends at {max(last, lost)}, before position {start}",
                hint="the position is of another log, or this one was made anew",
            )

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        """All or nothing, on the disk at the end."""
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                finally:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise OutputError(
                    f"{self._folder}: the log does not take records: {error}",
                    hint=f"nothing was appended; see to {os.fspath(self._folder / _FILE)} and its disk",
                ) from error

    @contextmanager
    def _consistent(self) -> Generator[sqlite3.Connection]:
        """The log as it was at one moment."""
        with self._reading:
            try:
                self._reader.execute("BEGIN")
                try:
                    yield self._reader
                finally:
                    if self._reader.in_transaction:
                        self._reader.execute("COMMIT")
            except sqlite3.Error as error:
                raise SourceError(f"{self._folder}: the log cannot be read: {error}") from error


def _shown(micros: int) -> str:
    return str(np.datetime64(micros, "us")) + "Z"


def _offset(position: str) -> int:
    try:
        return int(position)
    except ValueError as error:
        raise ConfigError(
            f"'{position}' is no position of an embedded log", hint="positions are offsets"
        ) from error
