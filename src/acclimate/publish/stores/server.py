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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

_TOGETHER = 100_000
"""Values that one command writes at most: Redis 6.2 takes about a million arguments."""

_SWEPT = 20_000
"""Values whose time is up that a commit removes at most."""

_KEPT = 3600
"""Seconds after which the copies of a backup or restore go, should it be cut off; each piece begins them anew."""

_LARGEST = 512 << 20
"""Bytes of a value that a server takes unless it was told otherwise."""


class ServerStore:
    """See :class:`acclimate.artifacts.Store`.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` with TLS; behind a ``?`` options of redis-py,
            such as ``ssl_ca_certs`` and ``socket_timeout`` (seconds).
        clock: seconds since 1970; without, the server's.

    Raises:
        ConfigError: the URL is none, the server refuses user or password, or it removes values when it is full.
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
        self._check_keeps()
        self._largest = int(self._setting("proto-max-bulk-len") or _LARGEST)

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
        last = uuid4().hex

        def taken(record: Record, now: float) -> Record | None:
            new = record.taken(owner, now + seconds, now, take_over=take_over)
            return None if new is None else replace(new, last=last)

        self._named(unit)
        record = self._change(unit, taken, last=last)
        if record is None:
            return None
        self._named(unit)  # again: it may have been forgotten in between
        return Lease(unit, owner, record.token)

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
        now, all_of_them = self._now(), list[Held | None]()
        for unit, record in self._records():
            if record.is_over(now):
                self._drop_over(unit)
            else:
                all_of_them.append(record.held(unit, now))
        return [held for held in all_of_them if held is not None]

    def commit(self, lease: Lease, commit: Commit) -> None:
        """See :meth:`acclimate.artifacts.Store.commit`."""
        writes, last = items_of(commit), uuid4().hex
        for name, items in writes.items():
            self._check_sizes(lease.unit, name, items)

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
        return [unit for unit, record in self._records() if record.position is not None or self.size(unit)]

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
        check: Callable[[Pipe], None] | None = None,
    ) -> Record | None:
        """Change a unit at once: its record, and what is written with it; nothing where there is no new record.

        ``last`` names the change: where its answer is lost, it is not made twice. ``check`` raises where it cannot
        be made.
        """
        tries = iter(_WAITS)
        for _ in range(_TURNS):
            try:
                with self._client.pipeline() as pipe:
                    return self._changed(pipe, unit, changed, write, last=last, check=check)
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
        *,
        last: str | None,
        check: Callable[[Pipe], None] | None,
    ) -> Record | None:
        pipe.watch(_record(unit))
        before, now = Record.read(pipe.get(_record(unit))), self._now(pipe)
        if last is not None and before.last == last:
            return before  # by a try whose answer was lost
        record = changed(before, now)
        if record is None:
            return None
        if check is not None:
            check(pipe)
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
        for first in range(0, len(there), 2 * _TOGETHER):
            pipe.execute_command("HSET", _table(unit, name), *there[first : first + 2 * _TOGETHER])
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
                    pipe.hlen(_table(unit, name, run))
                pipe.get(_record(unit))

            answers = self._together(work)
            record = Record.read(answers[-1])
            if list(record.tables) == names:
                counts = dict(zip(names, answers[2::3], strict=True))
                return Dump(unit, record, partial(self._copied, unit, counts, run))

    def _copied(self, unit: str, counts: Mapping[str, int], run: str) -> Iterator[tuple[str, Pairs]]:
        keys = {name: _table(unit, name, run) for name in counts}
        for name, key in keys.items():
            yield name, self._copied_pairs(unit, counts[name], key, list(keys.values()))
            self._tried(lambda key=key: self._client.unlink(key))

    def _copied_pairs(self, unit: str, count: int, key: str, kept: Sequence[str]) -> Pairs:
        """What is in one copy, and all of it, while all of them are kept."""
        for pairs in self._pairs(key):
            self._together(lambda pipe: self._keep(pipe, kept))
            count -= len(pairs)
            yield from pairs
        if count:
            raise OutputError(
                f"{count:,} values of '{unit}' were gone from {self.place} before the backup had read them",
                hint="see that the server does not remove keys (maxmemory-policy), and make the backup anew",
            )

    def _keep(self, pipe: Pipe, keys: Iterable[str]) -> None:
        for key in keys:
            pipe.expire(key, _KEPT)

    def _restore(self, dump: Dump) -> None:
        unit, run, last = dump.unit, uuid4().hex, uuid4().hex
        there = dict[str, int]()
        self._named(unit)
        due: list[tuple[bytes, float]] = []
        for name, pairs in dump.values():
            items, number = list(pairs), _NUMBER.pack(dump.record.tables[name].number)
            there[name] = there.get(name, 0) + len(items)
            self._check_sizes(unit, name, items)
            keys = [_table(unit, one, run) for one in there]
            for first in range(0, len(items), _AT_ONCE):
                parts = [part for pair in items[first : first + _AT_ONCE] for part in pair]
                self._tried(lambda parts=parts, keys=keys: self._filled(keys, parts))
            if dump.record.tables[name].is_mortal:
                due += [(number + key, until_of(value)) for key, value in items if until_of(value) < inf]
        old = list[str]()

        def replaced(record: Record, _: float) -> Record:
            old[:] = record.tables
            return replace(record.replaced(dump.record), last=last)

        def check(pipe: Pipe) -> None:
            self._keep(pipe, [_table(unit, name, run) for name in there])
            if lost := [name for name, count in there.items() if pipe.hlen(_table(unit, name, run)) != count]:
                raise OutputError(
                    f"values of '{lost[0]}' of '{unit}' were gone from {self.place} before all were there; "
                    "the unit is as it was",
                    hint="see that the server does not remove keys (maxmemory-policy), and restore it anew",
                )

        def write(pipe: Pipe, _: Record, __: float) -> None:
            pipe.unlink(_due(unit), *(_table(unit, name) for name in old))
            for name in there:
                pipe.rename(_table(unit, name, run), _table(unit, name))
                pipe.persist(_table(unit, name))
            if due:
                pipe.zadd(_due(unit), dict(due))

        self._change(unit, replaced, write, last=last, check=check)

    def _filled(self, keys: Sequence[str], parts: Sequence[bytes]) -> None:
        """Write values to the last of these keys, and keep all of them."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.execute_command("HSET", keys[-1], *parts)
            self._keep(pipe, keys)
            pipe.execute()

    # --- questions -------------------------------------------------------------------------------------------

    def _known(self, unit: str) -> Record:
        return Record.read(self._tried(lambda: self._client.get(_record(unit))))

    def _records(self) -> list[tuple[str, Record]]:
        """What is known of all units, in the order of their names."""
        names = sorted(name.decode() for name in self._tried(lambda: self._client.smembers(_UNITS)))
        records = list[bytes | None]()
        for first in range(0, len(names), _AT_ONCE):
            some = [_record(name) for name in names[first : first + _AT_ONCE]]
            records += self._tried(lambda some=some: self._client.mget(some))
        return [(name, Record.read(record)) for name, record in zip(names, records, strict=True)]

    def _named(self, unit: str) -> None:
        self._tried(lambda: self._client.sadd(_UNITS, unit))

    def _drop_over(self, unit: str) -> None:
        """Let go of a unit that holds nothing, unless somebody has taken it meanwhile."""
        with self._client.pipeline() as pipe:
            try:
                pipe.watch(_record(unit))
                if Record.read(pipe.get(_record(unit))).is_over(self._now(pipe)):
                    pipe.multi()
                    pipe.srem(_UNITS, unit)
                    pipe.delete(_record(unit))
                    pipe.execute()
            except redis.RedisError:
                return  # the next one who asks for leases tries again

    def _setting(self, name: str) -> str | None:
        """A setting of the server, where its user may ask."""
        try:
            return self._client.config_get(name).get(name)
        except redis.RedisError:
            return None

    def _check_keeps(self) -> None:
        """Raises ConfigError where the server removes what it was given."""
        policy = self._setting("maxmemory-policy") or ""
        if policy.startswith("allkeys"):
            raise ConfigError(
                f"the Redis server {self.place} removes keys when its memory is full: it has the "
                f"maxmemory-policy {policy}",
                hint="a key is a whole table of states: CONFIG SET maxmemory-policy noeviction",
            )

    def _check_sizes(self, unit: str, table: str, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Raises ConfigError where the server would close the connection, however often it was tried.

        It is no ModelError, as those tell who learns from a stream that events are at fault.
        """
        size = max((len(value) for _, value in items if value is not None), default=0)
        if size + 8 > self._largest:  # eight for when it ends, should it do so
            raise ConfigError(
                f"a value of {size:,} bytes in '{table}' of '{unit}' is more than the {self._largest:,} that the "
                f"Redis server {self.place} takes; nothing was written",
                hint="raise its proto-max-bulk-len, or use a store of the kind lmdb://",
            )

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
