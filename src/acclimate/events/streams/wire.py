"""Events as records: one JSON object each, under the names of the columns."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.artifacts import Events, Stream
from acclimate.config import Schema
from acclimate.errors import ColumnError, RowError, nearest
from acclimate.events import checks
from acclimate.events.streams.partitions import partition_of
from acclimate.features.codes import flat


def encode(table: Any, schema: Schema) -> list[bytes]:
    """The rows of a frame as records, ``(n,)``: what is missing is left out, and so is NaN.

    Timestamps of the time column are numbers where the schema has a unit, and ISO 8601 text where it has none;
    other timestamps are text. Numbers, which may be times already, and texts stay as they are.

    Raises:
        RowError: a number is infinite, for which JSON has no word.
    """
    frame: Any = pa.table(table)
    names = frame.column_names
    columns = [_cells(name, flat(frame[name]), schema) for name in names]
    write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    rows = (zip(names, row, strict=True) for row in zip(*columns, strict=True))
    return [write({name: cell for name, cell in row if cell is not None}).encode() for row in rows]


def append_events(stream: Stream, events: Any, schema: Schema, by: str | None = None) -> int:
    """Append events, or the rows of a frame, each to the partition of its entity; returns how many.

    Args:
        stream: to append to.
        events: in the order in which they happened.
        schema: what their columns mean.
        by: the entity whose events have to stay together, by role or column; by default the schema's first.

    Raises:
        ColumnError: the column of that entity is not there.
        RowError: an event has no such entity, or an infinite number. Nothing was appended.
    """
    table = events.table() if isinstance(events, Events) else pa.table(events)
    column = schema.entity_column(by) if by else next(iter(schema.entities.values()))
    if column not in table.column_names:
        raise ColumnError(f"no column '{column}' to share the events by", hint=nearest(column, table.column_names))
    if missing := table[column].null_count:
        raise RowError(f"column '{column}' is empty in {missing:,} of {table.num_rows:,} events")
    partitions = partition_of(table[column], stream.partitions)
    records = encode(table, schema)
    for partition in np.unique(partitions):
        stream.append(int(partition), [records[row] for row in np.flatnonzero(partitions == partition)])
    return len(records)


def _cells(name: str, column: Any, schema: Schema) -> list[Any]:
    kind: Any = column.type
    if pa.types.is_timestamp(kind):
        unit = schema.time.unit if name == schema.time.column else None
        return _numbers(column, unit, schema) if unit else [_text(time) for time in _micros(column).to_pylist()]
    if pa.types.is_date(kind):
        return [_text(day) for day in column.to_pylist()]
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode().to_pylist()
    cells = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [_finite(cell, name) for cell in cells]
    if isinstance(kind, (pa.ListType, pa.LargeListType, pa.FixedSizeListType)) and pa.types.is_floating(
        kind.value_type
    ):
        return [None if cell is None else [_finite(item, name) for item in cell] for cell in cells]
    return cells


def _micros(column: Any) -> Any:
    return column.cast(pa.timestamp("us", column.type.tz), safe=False)


def _numbers(column: Any, unit: str, schema: Schema) -> list[Any]:
    local = _micros(column)
    zoned = local if local.type.tz else pc.assume_timezone(local, schema.time.zone)
    up, down, _ = checks.UNITS[unit]
    micros = zoned.cast(pa.int64()).to_pylist()
    return [None if us is None else us * down // up if us * down % up == 0 else us * down / up for us in micros]


def _text(time: Any) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _finite(number: float | None, name: str) -> float | None:
    if number is None or number != number:
        return None
    if number in (np.inf, -np.inf):
        raise RowError(f"column '{name}' holds an infinite number", hint="correct these rows or take them out")
    return number
