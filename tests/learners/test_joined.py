"""Columns beside the rows of a source: whatever span is asked for, and in whatever pieces it comes."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_events import HOUR, START, events_of, in_pieces

import acclimate as ac
from acclimate.artifacts import TableSource
from acclimate.errors import ColumnError, DataError
from acclimate.learners.joined import JoinedSource, as_column, times_of

SCHEMA = ac.Schema(time="time", entities={"user": "user_id"}, labels="y")
HOURS = [0, 0, 1, 3, 3, 3, 4, 8]
EVENTS = events_of(
    SCHEMA,
    {
        "time": [START + HOUR * hour for hour in HOURS],
        "user_id": list(range(8)),
        "y": [0, 1, None, 0, 1, 1, 0, 1],
        "price": [float(i) for i in range(8)],
    },
)
NUMBER, VECTOR = 10.0 * np.arange(8), np.arange(16.0).reshape(8, 2)


def joined(events: ac.Events = EVENTS) -> ac.Events:
    added = {"number": as_column(NUMBER), "vector": as_column(VECTOR)}
    return replace(events, source=JoinedSource(events.source, "time", times_of(events), added))


hours = st.none() | st.integers(-1, 9)


@given(hours, hours, st.lists(st.sampled_from(["vector", "price", "number", "time"]), min_size=1, unique=True))
@settings(max_examples=100, deadline=None)
def test_any_span_and_any_columns_in_any_pieces(start, end, columns):
    bounds = [None if hour is None else START + HOUR * hour for hour in (start, end)]
    rows = [i for i, hour in enumerate(HOURS) if (start is None or hour >= start) and (end is None or hour < end)]
    expected = {
        "price": [float(i) for i in rows],
        "number": NUMBER[rows].tolist(),
        "vector": VECTOR[rows].tolist(),
    }
    for pieces in (1, 3, 8):
        table = joined(in_pieces(EVENTS, pieces)).source.scan(columns, *bounds).read_all()
        assert table.column_names == columns
        for name in columns:
            assert name == "time" or table[name].to_pylist() == expected[name]


def test_it_has_all_columns_and_their_types():
    types = joined().source.columns()
    assert types.names == ["time", "user_id", "y", "price", "number", "vector"]
    assert types.field("vector").type == pa.list_(pa.float64(), 2)
    assert joined().table().schema == types


def test_what_is_asked_of_the_rows_is_asked_of_the_source():
    events = joined()
    assert events.describe() == EVENTS.describe()
    assert events.count(known="y") == 7
    assert events.fingerprint() == EVENTS.fingerprint()
    assert [w.count() for w in events.windows("4h")] == [w.count() for w in EVENTS.windows("4h")]
    assert events.cached().table().equals(events.table())


def test_a_column_that_is_not_there():
    with pytest.raises(ColumnError, match=r"no column 'pric'.*did you mean 'price'"):
        joined().table(["pric", "number"])


@pytest.mark.parametrize("rows", [EVENTS.table().slice(0, 5), pa.concat_tables([EVENTS.table()] * 2)])
def test_a_log_that_has_changed_since_is_told(rows):
    """Columns beside other rows than theirs would be wrong and not be seen."""
    source = replace(joined().source, source=TableSource(SCHEMA, rows.sort_by("time")))
    with pytest.raises(DataError, match=f"changed while it was read: {len(rows)} rows where 8 were"):
        source.scan(["price", "number"], None, None).read_all()
