"""Small logs for the tests of learners, and what their states are compared by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.testing import assert_array_equal

import acclimate as ac

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_650_844_800_000_000  # 2022-04-25, microseconds UTC


def events_of(schema: ac.Schema, columns: Mapping[str, Any]) -> ac.Events:
    """Events of these columns; one an hour from ``START`` on unless they have a ``time``, in microseconds UTC."""
    rows = len(next(iter(columns.values())))
    time = pa.array(columns.get("time", START + HOUR * np.arange(rows)), pa.timestamp("us", "UTC"))
    return ac.read_events(pa.table({**columns, "time": time}), schema)


@dataclass(frozen=True)
class _Pieces:
    """A source that hands its rows out a few at a time."""

    source: Any
    rows: int

    def columns(self) -> pa.Schema:
        return self.source.columns()

    def scan(self, columns: Any, start: int | None, end: int | None) -> pa.RecordBatchReader:
        table = self.source.scan(columns, start, end).read_all()
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=self.rows))

    def describe(self, start: int | None, end: int | None) -> Any:
        return self.source.describe(start, end)


def in_pieces(events: ac.Events, rows: int) -> ac.Events:
    """The same events, which come so many rows at a time."""
    return ac.Events(events.schema, _Pieces(events.cached().source, rows))


def assert_same_states(actual: ac.EntityStates, expected: ac.EntityStates) -> None:
    """Bit for bit, in the same order."""
    assert actual.ids.tolist() == expected.ids.tolist()
    for name in ("touched", "rows"):
        assert_array_equal(getattr(actual, name), getattr(expected, name))
    assert_array_equal(actual.posterior.mean, expected.posterior.mean)
    assert_array_equal(actual.posterior.precision, expected.posterior.precision)
