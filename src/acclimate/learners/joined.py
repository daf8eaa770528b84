"""Events with more columns than their source has: arrays that stand beside its rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from acclimate.arrays import ArrowArray, FloatArray, IntArray
from acclimate.artifacts import Events, Source, SourceAround
from acclimate.errors import DataError


def times_of(events: Events) -> IntArray:
    """The time of each row ``(n,)``, microseconds UTC."""
    column = events.schema.time.column
    return events.table([column])[column].cast(pa.int64()).to_numpy()


def as_column(values: FloatArray) -> ArrowArray:
    """Numbers ``(n,)`` or vectors ``(n, s)`` as an Arrow array of ``n``."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


@dataclass(frozen=True, eq=False)
class JoinedSource(SourceAround):
    """A source with columns ``(n,)`` added by name, in the order of its rows, whose ``times`` are ``(n,)``.

    Rows are read when they are asked for, and only within the span of these times; ``time`` is their column.
    """

    source: Source
    time: str
    times: IntArray
    added: Mapping[str, ArrowArray]

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        types = self.source.columns()
        return pa.schema([*types, *(pa.field(name, array.type) for name, array in self.added.items())])

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``.

        Raises:
            DataError: they are not those that the added columns were made for.
        """
        reader = self.source.scan([n for n in columns if n not in self.added] or [self.time], start, end)
        types = pa.schema(
            [
                pa.field(name, self.added[name].type) if name in self.added else reader.schema.field(name)
                for name in columns
            ]
        )
        first = 0 if start is None else int(np.searchsorted(self.times, start))
        last = len(self.times) if end is None else int(np.searchsorted(self.times, end))
        return pa.RecordBatchReader.from_batches(types, self._batches(reader, types, first, max(last, first)))

    def _batches(
        self, reader: pa.RecordBatchReader, types: pa.Schema, first: int, last: int
    ) -> Iterator[pa.RecordBatch]:
        expected = last - first
        for batch in reader:
            added = {name: array.slice(first, batch.num_rows) for name, array in self.added.items()}
            first += batch.num_rows
            if first <= last:
                yield pa.RecordBatch.from_arrays(
                    [added[name] if name in added else batch[name] for name in types.names], schema=types
                )
        if first != last:
            raise DataError(
                f"the log has changed while it was read: {expected + first - last:,} rows where {expected:,} were",
                hint="read a copy that nobody writes to",
            )
