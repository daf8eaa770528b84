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
        RowError: a number is infinite, for which JSON has no word, or an id is no whole number.
        ColumnError: a column is of a type for which JSON has no word, or that no id can be of.
    """
    frame: Any = pa.table(table)
    names = frame.column_names
    entities = set(schema.entities.values())
    columns = [
        _ids(name, flat(frame[name])).to_pylist() if name in entities else _cells(name, flat(frame[name]), schema)
        for name in names
    ]
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
        ColumnError: the column of that entity is not there, or a column is of a type for which JSON has no word.
        RowError: an event has no such entity, or an infinite number. Nothing was appended.
    """
    table = events.table() if isinstance(events, Events) else pa.table(events)
    column = schema.entity_column(by) if by else next(iter(schema.entities.values()))
    if column not in table.column_names:
        raise ColumnError(f"no column '{column}' to share the events by", hint=nearest(column, table.column_names))
    ids = _ids(column, flat(table[column]))
    if missing := ids.null_count:
        raise RowError(f"column '{column}' is empty in {missing:,} of {table.num_rows:,} events")
    partitions = partition_of(ids, stream.partitions)
    records = encode(table, schema)
    for partition in np.unique(partitions):
        stream.append(int(partition), [records[row] for row in np.flatnonzero(partitions == partition)])
    return len(records)


def _ids(name: str, column: Any) -> Any:
    """Ids as ``int64`` or ``string``, null where missing; whole numbers may come as floats, as in a file."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        return column.cast(pa.string())
    if pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        broken = ~np.isnan(numbers) & ((numbers != np.trunc(numbers)) | (np.abs(numbers) > 2**53))
        if broken.any():
            raise RowError(f"column '{name}' is no whole number in {broken.sum():,} of {len(column):,} events")
        return pa.array(np.where(np.isnan(numbers), 0, numbers).astype(np.int64), mask=np.isnan(numbers))
    if not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise ColumnError(
            f"column '{name}' is {column.type}, but ids are whole numbers or text", hint="convert it"
        )
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise RowError(f"column '{name}' is beyond 2^63 - 1", hint="keep such ids as text") from error


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _cells(name: str, column: Any, schema: Schema) -> list[Any]:
    kind: Any = column.type
    if pa.types.is_dictionary(kind):
        return _cells(name, column.dictionary_decode(), schema)
    if pa.types.is_timestamp(kind):
        unit = schema.time.unit if name == schema.time.column else None
        return _numbers(column, unit, schema) if unit else [_text(time) for time in _micros(column).to_pylist()]
    if pa.types.is_date(kind):
        return [_text(day) for day in column.to_pylist()]
    is_list = isinstance(kind, (pa.ListType, pa.LargeListType, pa.FixedSizeListType))
    item = kind.value_type if is_list else kind
    item = item.value_type if pa.types.is_dictionary(item) else item
    cells = column.to_pylist()
    if pa.types.is_floating(item) or pa.types.is_decimal(item):
        if is_list:
            return [None if cell is None else [_finite(number, name) for number in cell] for cell in cells]
        return [_finite(cell, name) for cell in cells]
    if not (pa.types.is_integer(item) or pa.types.is_boolean(item) or pa.types.is_null(item) or _is_text(item)):
        raise ColumnError(
            f"column '{name}' is {kind}, for which JSON has no word",
            hint="make it numbers or text, or leave it out",
        )
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


def _finite(number: Any, name: str) -> float | None:
    if number is None or number != number:
        return None
    if number in (np.inf, -np.inf):
        raise RowError(f"column '{name}' holds an infinite number", hint="correct these rows or take them out")
    return float(number)
