"""A store in a Redis server: for processes of many machines.

All keys of a unit have the hash tag ``{unit}``, so that a cluster keeps them together::

    acclimate:units                     the names of all units
    acclimate:{ranker/2/0}:record       what is known of the unit, JSON
    acclimate:{ranker/2/0}:in:<table>   a hash of values by key
    acclimate:{ranker/2/0}:due          values that end, by the time that they do

Whoever changes a unit watches its record (WATCH), looks at it, and sends all that changes with the next record in
one MULTI ... EXEC, which is also one piece of the append-only file. A record names the commit that it is of: where
an answer was lost, the next try finds what became of it.
"""

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from acclimate.artifacts import Commit, Held, Lease
from acclimate.errors import ConfigError, OutputError
from acclimate.publish.stores.dumps import Dump, Pairs, read_dump, write_dump
from acclimate.publish.stores.records import Items, Record, ending, items_of, living, until_of

R = TypeVar("R")
Pipe: TypeAlias = Any
"""A pipeline of redis-py, whose types say little."""

_UNITS = "acclimate:units"
_NUMBER = struct.Struct(">H")

_ANSWER, _CONNECT = 5.0, 2.0
"""Seconds to wait for an answer, and for a connection."""

_WAITS = (0.0, 0.05, 0.2, 1.0)
"""Seconds before each try to reach the server."""

_TURNS = 100
"""How often a change begins anew because another one came before it."""

_AT_ONCE = 4096
"""Values that are scanned or restored by one command."""

_SWEPT = 20_000
"""Values whose time is up that a commit removes at most."""

_KEPT = 3600
"""Seconds after which the copies that a backup reads go, should it be cut off."""


class ServerStore:
    """See :class:`acclimate.artifacts.Store`.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` with TLS; behind a ``?`` options of redis-py,
            such as ``ssl_ca_certs`` and ``socket_timeout`` (seconds).
        clock: seconds since 1970; without, the server's.

    Raises:
        ConfigError: the URL is none, or the server refuses user or password.
        OutputError: the server cannot be reached.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        parts = urlsplit(url)
        self.place, self._clock = f"{parts.hostname}:{parts.port or 6379}{parts.path}", clock
        never: Any = Retry(NoBackoff(), 0)  # a change is repeated by _change alone, which knows what became of it
        timeouts = {"socket_timeout": _ANSWER, "socket_connect_timeout": _CONNECT}
        try:
            self._client: Any = redis.Redis.from_url(url, retry=never, protocol=2, **timeouts)
            self._tried(lambda: self._client.ping())
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the URL of the Redis server {self.place} is wrong: {error}",
                hint="such as redis://user:password@host:6379/0",
            ) from error

    def __deepcopy__(self, _: dict[int, object]) -> "ServerStore":
        return self  # it is one server, however many speak of it

    def read(self, unit: str, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`acclimate.artifacts.Store.read`."""
        if not keys:
            return []

        def work(pipe: Pipe) -> None:
            pipe.get(_record(unit))
            pipe.hmget(_table(unit, table), keys)

        record, values = self._together(work)
        return self._living(Record.read(record), table, values)

    def scan(self, unit: str, table: str) -> Iterator[tuple[bytes, bytes]]:
        """See :meth:`acclimate.artifacts.Store.scan`; what changes meanwhile may be there or not."""
        record = self._known(unit)
        for pairs in self._pairs(_table(unit, table)):
            values = self._living(record, table, [value for _, value in pairs])
            yield from ((key, v) for (key, _), v in zip(pairs, values, strict=True) if v is not None)

    def position(self, unit: str) -> str | None:
        """See :meth:`acclimate.artifacts.Store.position`."""
        return self._known(unit).position

    def acquire(self, unit: str, owner: str, seconds: float, *, take_over: bool = False) -> Lease | None:
        """See :meth:`acclimate.artifacts.Store.acquire`."""
        _check_name(unit)
        self._tried(lambda: self._client.sadd(_UNITS, unit))
        last = uuid4().hex

        def taken(record: Record, now: float) -> Record | None:
            new = record.taken(owner, now + seconds, now, take_over=take_over)
            return None if new is None else replace(new, last=last)

        record = self._change(unit, taken, last=last)
        return None if record is None else Lease(unit, owner, record.token)

    def renew(self, lease: Lease, seconds: float) -> None:
        """See :meth:`acclimate.artifacts.Store.renew`."""

        def renewed(record: Record, now: float) -> Record:
            record.check(lease)
            return replace(record, until=now + seconds)

        self._change(lease.unit, renewed)

    def release(self, lease: Lease) -> None:
        """See :meth:`acclimate.artifacts.Store.release`."""
        self._change(lease.unit, lambda record, _: record.released(lease))

    def leases(self) -> list[Held]:
        """See :meth:`acclimate.artifacts.Store.leases`."""
        now = self._now()
        all_of_them = (self._known(unit).held(unit, now) for unit in self._names())
        return [held for held in all_of_them if held is not None]

    def commit(self, lease: Lease, commit: Commit) -> None:
        """See :meth:`acclimate.artifacts.Store.commit`."""
        writes, last = items_of(commit), uuid4().hex

        def changed(record: Record, _: float) -> Record:
            record = record.after(lease, commit).with_tables(commit, writes)
            return replace(record, last=last)

        def write(pipe: Pipe, record: Record, now: float) -> None:
            for name, items in writes.items():
                if record.tables[name].is_mortal:
                    items = ending(items, now + commit.lives.get(name, inf))
                    self._note_ends(pipe, lease.unit, record.tables[name].number, items)
                self._write(pipe, lease.unit, name, items)

        self._change(lease.unit, changed, write, last=last)

    def units(self) -> list[str]:
        """See :meth:`acclimate.artifacts.Store.units`."""
        return [unit for unit in self._names() if self.position(unit) is not None or self.size(unit)]

    def drop(self, unit: str) -> None:
        """See :meth:`acclimate.artifacts.Store.drop`."""
        tables = list(self._known(unit).tables)

        def gone(pipe: Pipe, _: Record, __: float) -> None:
            pipe.unlink(_due(unit), *(_table(unit, name) for name in tables))

        def emptied(record: Record, _: float) -> Record:
            tables[:] = record.tables
            return record.emptied()

        self._change(unit, emptied, gone)

    def size(self, unit: str) -> dict[str, int]:
        """See :meth:`acclimate.artifacts.Store.size`; what has ended counts until a commit comes after it."""
        names = list(self._known(unit).tables)

        def work(pipe: Pipe) -> None:
            for name in names:
                pipe.hlen(_table(unit, name))

        counts = self._together(work) if names else []
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    def backup(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.backup`; the server copies each unit at once."""
        write_dump(path, (self._dump(unit) for unit in self.units()))

    def restore(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.restore`; a unit is replaced at once."""
        for dump in read_dump(path):
            self._restore(dump)

    def close(self) -> None:
        """See :meth:`acclimate.artifacts.Store.close`."""
        self._client.close()

    # --- changes ---------------------------------------------------------------------------------------------

    def _change(
        self,
        unit: str,
        changed: Callable[[Record, float], Record | None],
        write: Callable[[Pipe, Record, float], None] | None = None,
        *,
        last: str | None = None,
    ) -> Record | None:
        """Change a unit at once: its record, and what is written with it; nothing where there is no new record.

        ``last`` names the change: where its answer is lost, it is not made twice.
        """
        tries = iter(_WAITS)
        for _ in range(_TURNS):
            try:
                with self._client.pipeline() as pipe:
                    return self._changed(pipe, unit, changed, write, last)
            except redis.WatchError as error:  # another has changed the unit, or the connection is gone
                if isinstance(error.__cause__ or error.__context__, redis.ConnectionError | redis.TimeoutError):
                    self._wait(tries, error)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self._wait(tries, error)
            except redis.RedisError as error:
                raise self._refused(error) from error
        raise OutputError(f"'{unit}' in {self.place} is changed by others all the time", hint="try again later")

    def _changed(
        self,
        pipe: Pipe,
        unit: str,
        changed: Callable[[Record, float], Record | None],
        write: Callable[[Pipe, Record, float], None] | None,
        last: str | None,
    ) -> Record | None:
        pipe.watch(_record(unit))
        before, now = Record.read(pipe.get(_record(unit))), self._now(pipe)
        if last is not None and before.last == last:
            return before  # by a try whose answer was lost
        record = changed(before, now)
        if record is None:
            return None
        is_mortal = write is not None and any(table.is_mortal for table in record.tables.values())
        ended = pipe.zrange(_due(unit), 0, now, byscore=True, offset=0, num=_SWEPT) if is_mortal else []
        pipe.multi()
        if ended:
            self._sweep(pipe, unit, record, ended)
        if write is not None:
            write(pipe, record, now)
        pipe.set(_record(unit), record.written())
        pipe.execute()
        return record

    def _note_ends(self, pipe: Pipe, unit: str, number: int, items: Items) -> None:
        members = [(_NUMBER.pack(number) + key, value) for key, value in items]
        ends = {member: until_of(value) for member, value in members if value is not None}
        ends = {member: until for member, until in ends.items() if until < inf}
        if ends:
            pipe.zadd(_due(unit), ends)
        if stays := [member for member, _ in members if member not in ends]:
            pipe.zrem(_due(unit), *stays)

    def _write(self, pipe: Pipe, unit: str, name: str, items: Items) -> None:
        there = [part for key, value in items if value is not None for part in (key, value)]
        gone = [key for key, value in items if value is None]
        if there:
            pipe.execute_command("HSET", _table(unit, name), *there)
        if gone:
            pipe.hdel(_table(unit, name), *gone)

    def _sweep(self, pipe: Pipe, unit: str, record: Record, ended: Sequence[bytes]) -> None:
        """Remove values whose time is up."""
        names = {_NUMBER.pack(table.number): name for name, table in record.tables.items()}
        by_table: dict[str, list[bytes]] = {}
        for member in ended:
            by_table.setdefault(names[member[: _NUMBER.size]], []).append(member[_NUMBER.size :])
        for name, keys in by_table.items():
            pipe.hdel(_table(unit, name), *keys)
        pipe.zrem(_due(unit), *ended)

    # --- backups ---------------------------------------------------------------------------------------------

    def _dump(self, unit: str) -> Dump:
        """A unit as of now, of which copies are read."""
        run = uuid4().hex
        while True:
            names = list(self._known(unit).tables)

            def work(pipe: Pipe, names: list[str] = names) -> None:
                for name in names:
                    pipe.copy(_table(unit, name), _table(unit, name, run), replace=True)
                    pipe.expire(_table(unit, name, run), _KEPT)
                pipe.get(_record(unit))

            record = Record.read(self._together(work)[-1])
            if list(record.tables) == names:
                return Dump(unit, record, partial(self._copied, unit, names, run))

    def _copied(self, unit: str, names: Sequence[str], run: str) -> Iterator[tuple[str, Pairs]]:
        for name in names:
            yield name, (pair for pairs in self._pairs(_table(unit, name, run)) for pair in pairs)
            self._tried(lambda name=name: self._client.unlink(_table(unit, name, run)))

    def _restore(self, dump: Dump) -> None:
        unit, run, there = dump.unit, uuid4().hex, set[str]()
        self._tried(lambda: self._client.sadd(_UNITS, unit))
        due: list[tuple[bytes, float]] = []
        for name, pairs in dump.values():
            there.add(name)
            items, number = list(pairs), _NUMBER.pack(dump.record.tables[name].number)
            for first in range(0, len(items), _AT_ONCE):
                parts = [part for pair in items[first : first + _AT_ONCE] for part in pair]
                self._tried(lambda parts=parts, name=name: self._filled(_table(unit, name, run), parts))
            if dump.record.tables[name].is_mortal:
                due += [(number + key, until_of(value)) for key, value in items if until_of(value) < inf]
        old = list[str]()

        def replaced(record: Record, _: float) -> Record:
            old[:] = record.tables
            return record.replaced(dump.record)

        def write(pipe: Pipe, _: Record, __: float) -> None:
            pipe.unlink(_due(unit), *(_table(unit, name) for name in old))
            for name in there:
                pipe.rename(_table(unit, name, run), _table(unit, name))
                pipe.persist(_table(unit, name))
            if due:
                pipe.zadd(_due(unit), dict(due))

        self._change(unit, replaced, write)

    def _filled(self, key: str, parts: Sequence[bytes]) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.execute_command("HSET", key, *parts)
            pipe.expire(key, _KEPT)
            pipe.execute()

    # --- questions -------------------------------------------------------------------------------------------

    def _known(self, unit: str) -> Record:
        return Record.read(self._tried(lambda: self._client.get(_record(unit))))

    def _names(self) -> list[str]:
        return sorted(name.decode() for name in self._tried(lambda: self._client.smembers(_UNITS)))

    def _now(self, pipe: Pipe | None = None) -> float:
        if self._clock is not None:
            return self._clock()
        seconds, micro = pipe.time() if pipe is not None else self._tried(lambda: self._client.time())
        return seconds + 1e-6 * micro

    def _living(self, record: Record, table: str, values: list[bytes | None]) -> list[bytes | None]:
        is_mortal = table in record.tables and record.tables[table].is_mortal
        return living(values, self._now()) if is_mortal else values

    def _pairs(self, key: str) -> Iterator[list[tuple[bytes, bytes]]]:
        """What is in a hash, some at a time and each once, though Redis may tell of one twice."""
        cursor, told = 0, set[bytes]()
        while True:
            cursor, found = self._tried(lambda at=cursor: self._client.hscan(key, at, count=_AT_ONCE))
            yield [(field, value) for field, value in found.items() if field not in told]
            if not cursor:
                return
            told.update(found)

    def _together(self, work: Callable[[Pipe], None]) -> list[Any]:
        """The answers to commands that are carried out at once."""

        def run() -> list[Any]:
            with self._client.pipeline(transaction=True) as pipe:
                work(pipe)
                return pipe.execute()

        return self._tried(run)

    def _tried(self, work: Callable[[], R]) -> R:
        """What work gives that may be done more than once.

        Raises:
            OutputError: the server cannot be reached, or refuses.
        """
        tries = iter(_WAITS)
        while True:
            try:
                return work()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self._wait(tries, error)
            except redis.RedisError as error:
                raise self._refused(error) from error

    def _wait(self, tries: Iterator[float], error: redis.RedisError) -> None:
        """Wait before the next try, if there is one."""
        if isinstance(error, redis.AuthenticationError):
            raise self._refused(error) from error
        if (seconds := next(tries, None)) is None:
            raise OutputError(
                f"the Redis server {self.place} cannot be reached: {error}",
                hint="start it, or look at its load; what was asked for may be repeated",
            ) from error
        time.sleep(seconds)

    def _refused(self, error: redis.RedisError) -> OutputError | ConfigError:
        if isinstance(error, redis.AuthenticationError | NoPermissionError):
            return ConfigError(
                f"the Redis server {self.place} refuses this user: {error}",
                hint="give user and password in the URL, and let the user use the keys acclimate:*",
            )
        return OutputError(
            f"the Redis server {self.place} refuses: {error}; nothing was written",
            hint="see to its memory and its disk, and try again",
        )


def _record(unit: str) -> str:
    return f"acclimate:{{{unit}}}:record"


def _due(unit: str) -> str:
    return f"acclimate:{{{unit}}}:due"


def _table(unit: str, name: str, run: str = "") -> str:
    """The key of a table, or of its copy in one run of a backup or restore."""
    return f"acclimate:{{{unit}}}:{'of-' + run if run else 'in'}:{name}"


def _check_name(unit: str) -> None:
    if "}" in unit or not unit:
        raise ConfigError(f"'{unit}' is no name of a unit", hint="leave out the character }")
