"""Redis Streams: a key per partition, so that the nodes of a cluster can share them."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from acclimate.artifacts import Records
from acclimate.errors import ConfigError, OutputError, SourceError

FIELD = b"event"
"""The field of an entry that holds the record."""

_LONGEST = 5.0  # seconds that the server is asked to wait at once
_TIMEOUT = 30.0  # seconds that an answer may take
_PAGE = 10_000

_APPEND = """
for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'event', ARGV[i]) end
"""
_INFO = """
local function info(name)
  local all = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #all, 2 do if all[i] == name then return all[i + 1] end end
end
"""
_TRIM = f"""{_INFO}
local gone = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
if gone > 0 then
  redis.call('HSET', KEYS[2], 'through', ARGV[1], 'removed', info('entries-added') - redis.call('XLEN', KEYS[1]))
end
return gone
"""
_COUNT = f"""{_INFO}
local part = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', {_PAGE})
if #part == 0 then return {{0, ARGV[1], info('entries-added')}} end
return {{#part, part[#part][1], info('entries-added')}}
"""


class RedisStreams:
    """A log in Redis 7 or later: ``{name:0}``, ``{name:1}``, ... are its partitions, positions the ids of entries.

    Anyone may append by ``XADD {name:0} * event '{"..."}'``. What is appended stays as surely as the server keeps
    what it is told: ask it for ``appendonly yes`` and ``appendfsync always``. Where a connection breaks during an
    append, it may have been appended or not; ids of events tell what came twice.

    Args:
        url: of the server, ``redis://`` or ``rediss://``, with user, password and database where need be.
        name: of the log.
        partitions: how many there are, of a new one (1 by default); checked of one that is there.
        group: the consumer group that shows how far a reader is to those who watch the server.

    Raises:
        ConfigError: the log has another number of partitions.
        SourceError: the server cannot be reached.
    """

    def __init__(self, url: str, name: str, *, partitions: int | None = None, group: str = "acclimate") -> None:
        try:
            # No second try of its own: an append that came through would be there twice.
            self._client: Any = redis.Redis.from_url(url, socket_timeout=_TIMEOUT, retry=Retry(NoBackoff(), 0))
        except ValueError as error:
            raise ConfigError(f"the URL of redis is not understood: {error}") from error
        options = self._client.get_connection_kwargs()
        self._name, self._group = f"stream '{name}' at {options.get('host')}:{options.get('port')}", group
        self._key = name
        self._read_so_far: dict[int, tuple[str, int]] = {}  # the last position counted, and how many were up to it
        self._append, self._trim, self._count = map(self._client.register_script, (_APPEND, _TRIM, _COUNT))
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            try:
                self.partitions = self._laid_out(partitions)
            except TypeError as error:  # options are told to the first connection
                raise ConfigError(f"the URL of redis is not understood: {error}") from error
            on_failure.pop_all()

    def append(self, partition: int, values: Sequence[bytes]) -> None:
        """See :class:`acclimate.artifacts.Stream`.

        Raises:
            OutputError: the server does not take it, or is gone; then all of it may be there, or nothing.
        """
        key = self._key_of(partition)
        try:
            if values:
                self._append(keys=[key], args=values)
        except redis.RedisError as error:
            raise OutputError(f"{self._name} does not take records: {error}") from error

    def read(self, partition: int, after: str | None, most: int, wait: float = 0.0) -> Records:
        """See :class:`acclimate.artifacts.Stream`."""
        key, first = self._key_of(partition), "-" if after is None else _checked(after)
        with self._telling():
            entries = self._client.xrange(key, first, "+", count=most + 1)
            if after is None:
                entries = entries[:most]
            elif entries and entries[0][0] == after.encode():
                entries = entries[1:]
            else:
                self._check_position(partition, after)
                entries = entries[:most]
            until = time.monotonic() + wait
            while not entries and (left := until - time.monotonic()) > 0:
                block = max(1, int(1000 * min(left, _LONGEST)))
                answer = self._client.xread({key: after or "0-0"}, count=most, block=block)
                entries = answer[0][1] if answer else []
        positions = [entry.decode() for entry, _ in entries]
        if positions and after is not None and self._read_so_far.get(partition, ("",))[0] == after:
            self._read_so_far[partition] = positions[-1], self._read_so_far[partition][1] + len(positions)
        arrived = np.array([1000 * _numbers(position)[0] for position in positions], np.int64)
        return Records([fields.get(FIELD, b"") for _, fields in entries], positions, arrived)

    def seek(self, partition: int, time: int) -> str | None:
        """See :class:`acclimate.artifacts.Stream`.

        When records came that others than :meth:`trim` removed is not known: where no record from before that
        time is left, they count as missing.

        Raises:
            SourceError: records that were appended at or after that time were removed, or may have been.
        """
        before = self._before(partition, time)
        if before is None:
            self._check_time(partition, -(-time // 1000))
        return before

    def _before(self, partition: int, time: int) -> str | None:
        """The last position that is earlier than a time."""
        milliseconds = -(-time // 1000)
        key = self._key_of(partition)
        if milliseconds <= 0:
            return None
        with self._telling():
            before = self._client.xrevrange(key, str(milliseconds - 1), "-", count=1)
        return before[0][0].decode() if before else None

    def lag(self, partition: int, after: str | None) -> int:
        """See :class:`acclimate.artifacts.Stream`."""
        key = self._key_of(partition)
        with self._telling():
            if after is None:
                return self._client.xlen(key)
            if not self._client.exists(key):
                return 0
            position, number = self._read_so_far.get(partition, ("", 0))
            if position == after:
                return self._client.xinfo_stream(key)["entries-added"] - number
            count, part, place, added = 0, _PAGE, _checked(after), 0
            while part == _PAGE:
                part, place, added = self._count(keys=[key], args=[place])
                count += part
        self._read_so_far[partition] = after, added - count
        return count

    def trim(self, partition: int, *, through: str | None = None, before: int | None = None) -> int:
        """Forget records up to a position, inclusive, or those appended before a time, microseconds UTC.

        Returns how many went.
        """
        upto = self._before(partition, before) if through is None and before is not None else through
        if upto is None:
            return 0
        milliseconds, number = _numbers(_checked(upto))
        key = self._key_of(partition)
        with self._telling():
            if not self._client.exists(key):
                return 0
            return self._trim(keys=[key, f"{key}:trimmed"], args=[upto, f"{milliseconds}-{number + 1}"])

    def assigned(self) -> None:
        """Readers share the partitions among themselves."""

    def noted(self, partition: int, position: str) -> None:
        """See :class:`acclimate.artifacts.Stream`."""
        key, (counted, number) = self._key_of(partition), self._read_so_far.get(partition, ("", 0))
        read = number if counted == position else None
        with self._telling():
            try:
                self._client.xgroup_setid(key, self._group, position, entries_read=read)
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error) and "no such key" not in str(error).lower():
                    raise
                self._client.xgroup_create(key, self._group, position, mkstream=True, entries_read=read)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _key_of(self, partition: int) -> str:
        if not 0 <= partition < self.partitions:
            raise ConfigError(
                f"{self._name}: no partition {partition}", hint=f"there are {self.partitions}, from 0"
            )
        return f"{{{self._key}:{partition}}}"

    def _laid_out(self, wanted: int | None) -> int:
        if wanted is not None and wanted < 1:
            raise ConfigError(f"a stream has 1 partition or more, not {wanted}")
        key = f"{{{self._key}}}:partitions"
        with self._telling():
            self._client.set(key, wanted or 1, nx=True)
            there = int(self._client.get(key))
        if wanted not in (None, there):
            raise ConfigError(
                f"{self._name} has {there} partitions, not {wanted}",
                hint="an entity would change its partition: append to a new stream of that many",
            )
        return there

    def _check_position(self, partition: int, after: str) -> None:
        """Whether it is known that nothing is missing behind a position that is not in the stream."""
        key = self._key_of(partition)
        try:
            info = self._client.xinfo_stream(key)
        except redis.ResponseError as error:
            raise SourceError(
                f"{self._name}: partition {partition} is empty, and has no position {after}",
                hint="the position is of another stream, or the server has lost this one",
            ) from error
        last = info["last-generated-id"].decode()
        if _numbers(after) > _numbers(last):
            raise SourceError(
                f"{self._name}: partition {partition} ends at {last}, before position {after}",
                hint="the position is of another stream, or the server has lost the end of this one",
            )
        first = info["first-entry"]
        if first and _numbers(after) > _numbers(first[0].decode()):
            return  # it was deleted, and it alone
        through, known = self._client.hmget(f"{key}:trimmed", "through", "removed")
        gone = info["entries-added"] - info["length"]
        is_trimmed_to = through is not None and _numbers(after) >= _numbers(through.decode())
        missing = gone - int(known) if is_trimmed_to else gone
        if missing and _numbers(after) < _numbers(last):
            raise SourceError(
                f"{self._name}: partition {partition} no longer holds up to {missing:,} records "
                f"after position {after}",
                hint="they were trimmed; go on from the first that there is if they may be missed",
            )

    def _check_time(self, partition: int, milliseconds: int) -> None:
        """Whether nothing that came since a time was removed, where nothing from before it is left."""
        key = self._key_of(partition)
        with self._telling():
            if not self._client.exists(key):
                return
            info = self._client.xinfo_stream(key)
            through, known = self._client.hmget(f"{key}:trimmed", "through", "removed")
        gone = info["entries-added"] - info["length"]
        was_earlier = through is not None and _numbers(through.decode())[0] < milliseconds
        missing = gone - int(known) if was_earlier else gone
        if missing > 0 and _numbers(info["last-generated-id"].decode())[0] >= milliseconds:
            raise SourceError(
                f"{self._name}: partition {partition} no longer holds up to {missing:,} records "
                f"that were appended since {np.datetime64(milliseconds, 'ms')}Z",
                hint="they were trimmed; fit anew on what happened since, or trim less",
            )

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise SourceError(f"{self._name} cannot be read: {error}", hint="is the server there?") from error


def _checked(position: str) -> str:
    _numbers(position)
    return position


def _numbers(position: str) -> tuple[int, int]:
    """Milliseconds, and the number within."""
    milliseconds, _, number = position.partition("-")
    try:
        return int(milliseconds), int(number)
    except ValueError as error:
        raise ConfigError(
            f"'{position}' is no position of a stream in Redis", hint="write 1650816000000-0"
        ) from error
