"""Events: rows of one schema within a span of time, read when they are asked for."""

import datetime as dt
import hashlib
import heapq
import itertools
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.config import Schema
from acclimate.errors import ColumnError, nearest
from acclimate.storage.scratch import scratch_file, told_if_full
from acclimate.times import duration_us, instant, instant_us, utc

Instant: TypeAlias = str | dt.date | dt.datetime | int
"""A point in time: ISO text, a date or a datetime (without a zone: in the schema's), or microseconds UTC."""


@dataclass(frozen=True)
class Summary:
    """What :meth:`Events.describe` tells. Times in UTC; rates leave unknown labels out."""

    rows: int
    first: dt.datetime | None
    last: dt.datetime | None
    entities: dict[str, int]
    rates: dict[str, float | None]


@dataclass(frozen=True)
class Fingerprint:
    """What rows are known by, from a hash of each: the last 8 bytes, lowest first, of the MD5 of its values.

    Its values are time (microseconds), entities and labels, as text with :data:`SEPARATOR` between them. ``total``
    is the sum of the hashes modulo 2^64, so that equal rows count each; ``sample`` are the :data:`SAMPLE` smallest
    ones, which tell whether two sets of rows overlap. Both in hexadecimal, the sample with spaces between.
    """

    rows: int
    total: str
    sample: str

    @staticmethod
    def of_hashes(rows: int, total: int, smallest: Iterable[int]) -> "Fingerprint":
        """From numbers."""
        return Fingerprint(rows, f"{total % 2**64:016x}", " ".join(f"{number:016x}" for number in smallest))

    def joined(self, other: "Fingerprint") -> "Fingerprint":
        """That of both sets of rows together."""
        smallest = sorted(int(number, 16) for number in (self.sample.split() + other.sample.split()))[:SAMPLE]
        return self.of_hashes(self.rows + other.rows, int(self.total, 16) + int(other.total, 16), smallest)

    def overlaps(self, sample: str) -> bool:
        """Whether some rows are in that sample too: sure if all are, near certain if a fifth of them is."""
        return not set(self.sample.split()).isdisjoint(sample.split())


SEPARATOR, SAMPLE = "\x1f", 32


def identity_columns(schema: Schema) -> tuple[str, ...]:
    """The columns that a fingerprint looks at: time, entities and labels, each once."""
    return tuple(dict.fromkeys((schema.time.column, *schema.entities.values(), *schema.labels)))


class Source(Protocol):
    """Where events come from. ``start`` (inclusive) and ``end`` (exclusive) are microseconds UTC.

    ``scan`` checks every column that it hands out and converts it: time to ``timestamp[us, UTC]``, labels to
    ``int8`` with nulls, weight, offset and truth to ``float64``; columns of an entity table are named
    ``<table>.<column>``. Rows come in the order of time, then entities.
    """

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``."""
        ...

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        ...

    def count(self, start: int | None, end: int | None, known: str | None) -> int:
        """See :meth:`Events.count`; nothing but the times and that label is read."""
        ...

    def fingerprint(self, start: int | None, end: int | None, known: str | None) -> "Fingerprint":
        """See :meth:`Events.fingerprint`."""
        ...


class SourceAround:
    """What a source that stands around another one leaves to it."""

    source: Source

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.source.columns()

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        return self.source.describe(start, end)

    def count(self, start: int | None, end: int | None, known: str | None) -> int:
        """See :meth:`Events.count`."""
        return self.source.count(start, end, known)

    def fingerprint(self, start: int | None, end: int | None, known: str | None) -> Fingerprint:
        """See :meth:`Events.fingerprint`."""
        return self.source.fingerprint(start, end, known)


@dataclass(frozen=True)
class Events:
    """Events of one schema within ``[start, end)``; nothing is read before it is asked for.

    ``memory_limit`` is what rows may take that are held at once, in bytes: more of them go to disk, or are learned
    in pieces. ``None`` where nothing bounds it.
    """

    schema: Schema
    source: Source
    start: int | None = None
    end: int | None = None
    memory_limit: int | None = None

    def before(self, time: Instant) -> "Events":
        """The events before ``time``, exclusive."""
        return self._narrowed(None, self._instant(time))

    def after(self, time: Instant) -> "Events":
        """The events at or after ``time``."""
        return self._narrowed(self._instant(time), None)

    def between(self, start: Instant, end: Instant) -> "Events":
        """The events in ``[start, end)``."""
        return self._narrowed(self._instant(start), self._instant(end))

    def windows(self, every: str, start: Instant | None = None, end: Instant | None = None) -> Iterator["Events"]:
        """Consecutive windows of length ``every`` (``"1d"``, ``"6h"``, ...), empty ones included.

        They begin at ``start`` (by default at midnight of the first event's day, in the schema's zone) and go on
        until the last event or ``end``. Windows of whole days follow the zone's calendar, so that a day on which
        clocks change is one window.
        """
        step = min(duration_us(every), duration_us("365000d"))  # longer ones would end after the last datetime
        begin, stop = self._span(start, end)
        for number in itertools.count():
            edge, following = self._edge(begin, step, number), self._edge(begin, step, number + 1)
            if edge >= stop:
                return
            yield self.between(edge, following if end is None else min(following, stop))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as one Arrow table, in the order of time; see :class:`Source` for the types.

        Raises:
            DataError: a file cannot be read, or a column or value is not allowed.
        """
        return self.reader(columns).read_all()

    def reader(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The same rows batch by batch, never all in memory."""
        return self.source.scan(self.source.columns().names if columns is None else columns, self.start, self.end)

    def head(self, rows: int = 5) -> pa.Table:
        """The first rows in the order of time."""
        time = self.schema.time.column
        with self.reader([time]) as reader:
            instants = (t for batch in reader for t in batch[time].cast(pa.int64()).to_numpy())
            first = list(itertools.islice(instants, rows))
        return self.before(int(first[-1]) + 1 if first else 0).table().slice(0, rows)

    def describe(self) -> Summary:
        """Rows, first and last time, distinct entities, label rates."""
        return self.source.describe(self.start, self.end)

    def count(self, *, known: str | None = None) -> int:
        """How many rows there are; with the name of a label, of those on which it is known."""
        return self.source.count(self.start, self.end, known)

    def fingerprint(self, *, known: str | None = None) -> "Fingerprint":
        """What the rows are known by, wherever they lie and in whatever order; all of them are read.

        With the name of a label, it is that of the rows on which this is known.
        """
        return self.source.fingerprint(self.start, self.end, known)

    def cached(self) -> "Events":
        """The same events, read once and held: in memory, or beyond the limit of it in a scratch file."""
        rows = _held(self.reader(), self.memory_limit)
        return Events(self.schema, TableSource(self.schema, rows), memory_limit=self.memory_limit)

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.schema.time.zone)

    def _instant(self, time: Instant) -> int:
        return instant(time, self.schema.time.zone)

    def _span(self, start: Instant | None, end: Instant | None) -> tuple[int, int]:
        """What windows cover, from the events where it is not said."""
        if start is not None and end is not None:
            return self._instant(start), self._instant(end)
        summary = self.describe()
        if summary.first is None or summary.last is None:
            return 0, 0
        first = summary.first.astimezone(self._zone).date() if start is None else start
        return self._instant(first), instant_us(summary.last) + 1 if end is None else self._instant(end)

    def _edge(self, begin: int, step: int, number: int) -> int:
        """Where the window of that number begins.

        Counted from the first one: a midnight that a change of clocks leaves out must not move those after it.
        """
        days, rest = divmod(step, duration_us("1d"))
        if rest or not number:
            return begin + number * step
        local = utc(begin).astimezone(self._zone).replace(tzinfo=None)
        return instant_us((local + dt.timedelta(days=days * number)).replace(tzinfo=self._zone))

    def _narrowed(self, start: int | None, end: int | None) -> "Events":
        starts = [t for t in (self.start, start) if t is not None]
        ends = [t for t in (self.end, end) if t is not None]
        return replace(self, start=max(starts, default=None), end=min(ends, default=None))


def _held(reader: pa.RecordBatchReader, limit: int | None) -> pa.Table:
    """All rows; where they take more bytes than the limit they lie in a file without a name, mapped into memory.

    It goes with the last who holds some of them.
    """
    held, size = list[pa.RecordBatch](), 0
    for batch in reader:
        held.append(batch)
        size += batch.nbytes
        if limit is not None and size > limit:
            return _mapped(itertools.chain(held, reader), reader.schema)
    return pa.Table.from_batches(held, reader.schema)


def _mapped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    with scratch_file() as file:
        with told_if_full():
            with pa.ipc.new_file(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


@dataclass(frozen=True)
class TableSource:
    """Events in memory: a table as :meth:`Events.table` gives it, checked and in the order of time."""

    schema: Schema
    rows: pa.Table

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.rows.schema

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``; no copy is made.

        Raises:
            ColumnError: there is no such column.
        """
        if unknown := [name for name in columns if name not in self.rows.column_names]:
            raise ColumnError(f"no column '{unknown[0]}'", hint=nearest(unknown[0], self.rows.column_names))
        return self._between(start, end).select(list(columns)).to_reader()

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        rows = self._between(start, end)
        times = pc.min_max(rows[self.schema.time.column])
        return Summary(
            rows=rows.num_rows,
            first=times["min"].as_py(),
            last=times["max"].as_py(),
            entities={c: pc.count_distinct(rows[c]).as_py() for c in self.schema.entities.values()},
            rates={c: pc.mean(rows[c]).as_py() for c in self.schema.labels},
        )

    def count(self, start: int | None, end: int | None, known: str | None) -> int:
        """See :meth:`Events.count`."""
        rows = self._between(start, end)
        return rows.num_rows - (rows[known].null_count if known else 0)

    def fingerprint(self, start: int | None, end: int | None, known: str | None) -> "Fingerprint":
        """See :meth:`Events.fingerprint`."""
        rows = self._between(start, end)
        rows = rows.filter(pc.is_valid(rows[known])) if known else rows
        time, *others = identity_columns(self.schema)
        columns = [rows[time].cast(pa.int64()), *(rows[name] for name in others)]
        texts = [column.cast(pa.string()).to_pylist() for column in columns]
        lines = (SEPARATOR.join(value or "" for value in row).encode() for row in zip(*texts, strict=True))
        hashes = [int.from_bytes(hashlib.md5(line).digest()[8:], "little") for line in lines]
        return Fingerprint.of_hashes(rows.num_rows, sum(hashes), heapq.nsmallest(SAMPLE, hashes))

    def _between(self, start: int | None, end: int | None) -> pa.Table:
        times = self.rows[self.schema.time.column].cast(pa.int64()).to_numpy()
        first = 0 if start is None else int(np.searchsorted(times, start))
        last = len(times) if end is None else int(np.searchsorted(times, end))
        return self.rows.slice(first, max(last - first, 0))
