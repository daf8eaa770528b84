"""Records of JSON to columns: all at once where all are well-formed, else fewer and fewer at once."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from acclimate.arrays import IntArray
from acclimate.events.streams.values import Part, settled_type

_BRANCHES, _FEW = 8, 16
_INF = re.compile(
    r"(?<=[:,\[ \t-])Inf\b"
)  # a number to Arrow's parser, as NaN and Infinity are, but not to Python's


@dataclass(frozen=True)
class Refused:
    """A record that is no event: which of the records it is, and why; all that have one ailment are told alike."""

    index: int
    reason: str


def parsed(
    records: Sequence[bytes], parts: Sequence[Part], types: dict[str, pa.DataType], unit: str | None
) -> tuple[pa.Table, IntArray, list[Refused]]:
    """The records that have a value of the right type in each column, which they are, and those that do not.

    Columns of no type yet get one in ``types`` as soon as a value comes.
    """
    refused: list[Refused] = []
    columns = _columns(types)
    whole = _at_once(records, columns)
    if whole is None and any(pa.types.is_null(kind) for kind in types.values()):
        _settle(records, parts, types, unit)
        columns = _columns(types)
        whole = _at_once(records, columns)
    if whole is not None:
        return whole, np.arange(len(records)), refused
    pieces: list[tuple[pa.Table, IntArray]] = []
    _divide(records, 0, columns, pieces, refused)
    tables, places = zip(*pieces, strict=True) if pieces else ((columns.empty_table(),), (np.arange(0),))
    return pa.concat_tables(tables), np.concatenate(places), refused


def _columns(types: dict[str, pa.DataType]) -> pa.Schema:
    """The types as JSON has them."""
    return pa.schema(
        [
            (name, pa.list_(pa.float64()) if pa.types.is_fixed_size_list(kind) else kind)
            for name, kind in types.items()
        ]
    )


def _at_once(records: Sequence[bytes], columns: pa.Schema) -> pa.Table | None:
    """The records as a table; ``None`` where one of them needs a closer look."""
    text = b"\n".join(records)
    if not _is_framed(text, len(records)):
        return None
    source: Any = pa.BufferReader(text)
    try:
        if not text.isascii():
            text.decode()
        table = pj.read_json(
            source,
            read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pj.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    return table if table.num_rows == len(records) else None


def _is_framed(text: bytes, records: int) -> bool:
    """Whether newlines part so many records that begin as objects do and end as these do.

    In valid JSON a closing brace, white space and an opening one meet between two objects only, and texts hold no
    newline. So each of these records is one object or more, and by their number exactly one.
    """
    codes = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(codes == ord("\n"))
    if len(breaks) != records - 1 or text[:1] != b"{" or text[-1:] != b"}":
        return False
    return bool(np.all(codes[breaks - 1] == ord("}")) and np.all(codes[breaks + 1] == ord("{")))


def _divide(
    records: Sequence[bytes],
    first: int,
    columns: pa.Schema,
    pieces: list[tuple[pa.Table, IntArray]],
    refused: list[Refused],
) -> None:
    """Read records, some of which need a closer look, in parts; few of them one by one."""
    if len(records) <= _FEW:
        table, places = _one_by_one(records, first, columns, refused)
        if len(places):
            pieces.append((table, places))
        return
    size = -(-len(records) // _BRANCHES)
    for start in range(0, len(records), size):
        part = records[start : start + size]
        table = _at_once(part, columns)
        if table is None:
            _divide(part, first + start, columns, pieces, refused)
        else:
            pieces.append((table, np.arange(first + start, first + start + len(part))))


def _one_by_one(
    records: Sequence[bytes], first: int, columns: pa.Schema, refused: list[Refused]
) -> tuple[pa.Table, IntArray]:
    converters = [(field.name, _converter(field.type)) for field in columns]
    rows: list[list[Any]] = []
    places: list[int] = []
    for place, record in enumerate(records, first):
        try:
            event = _object(record)
            rows.append([_cell(event.get(name), name, convert) for name, convert in converters])
            places.append(place)
        except _UnfitError as error:
            refused.append(Refused(place, str(error)))
    cells = zip(*rows, strict=True) if rows else ([] for _ in columns)
    arrays = [pa.array(list(column), field.type) for column, field in zip(cells, columns, strict=True)]
    return pa.table(arrays, schema=columns), np.array(places, np.int64)


class _UnfitError(Exception):
    """A record or a value that is not what it must be."""


def _object(record: bytes) -> dict[str, Any]:
    try:
        text = record.decode()
        try:
            event = json.loads(text)
        except ValueError:
            event = json.loads(_INF.sub("Infinity", text))
    except UnicodeDecodeError as error:
        raise _UnfitError("the record is no UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _UnfitError("the record is no JSON") from error
    if not isinstance(event, dict):
        raise _UnfitError("the record is no JSON object")
    return event


def _cell(value: Any, name: str, convert: Callable[[Any], Any]) -> Any:
    if value is None or value != value:
        return None
    try:
        return convert(value)
    except _UnfitError as error:
        raise _UnfitError(f"column '{name}' {error}") from error


# --- one value -----------------------------------------------------------------------------------------------


def _converter(kind: Any) -> Callable[[Any], Any]:
    if not pa.types.is_list(kind):
        return _CONVERTERS[kind]
    each = _CONVERTERS[kind.value_type]

    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            raise _UnfitError(f"is {_sort(value)}, and must be a list")
        return [None if item is None or item != item else each(item) for item in value]

    return convert


def _float(value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise _UnfitError("is no number")
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _UnfitError(f"is {_sort(value)}, but a number before")
    if value != np.trunc(value) or (isinstance(value, float) and abs(value) > 2**53):
        raise _UnfitError("is no whole number")
    if not -(2**63) <= value < 2**63:
        raise _UnfitError("is beyond 2^63 - 1")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _UnfitError(f"is {_sort(value)}, but text before")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _UnfitError("is no text of whole characters") from error
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError(f"is {_sort(value)}, but true or false before")
    return value


def _nothing(value: Any) -> None:
    raise _UnfitError(f"is {_sort(value)}, which it cannot be")


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    pa.float64(): _float,
    pa.int64(): _int,
    pa.string(): _text,
    pa.bool_(): _bool,
    pa.null(): _nothing,
}


def _sort(value: Any) -> str:
    """What a value is, for a message."""
    sorts = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return sorts.get(type(value), "a number")


# --- the types of columns ------------------------------------------------------------------------------------


def _settle(
    records: Sequence[bytes], parts: Sequence[Part], types: dict[str, pa.DataType], unit: str | None
) -> None:
    """Give the columns that have no type yet the one that most of their values have."""
    seen = {part.column: Counter[str]() for part in parts if pa.types.is_null(types[part.column])}
    for record in records:
        try:
            event = _object(record)
        except _UnfitError:
            continue
        for column, counts in seen.items():
            if (value := event.get(column)) is not None and value == value:
                counts.update(_sorts(value))
    for part in parts:
        if part.column in seen:
            types[part.column] = settled_type(part, seen[part.column], unit)


def _sorts(value: Any) -> list[str]:
    if isinstance(value, bool):
        return ["boolean"]
    if isinstance(value, (int, float)):
        return ["number", "float"] if isinstance(value, float) else ["number"]
    if isinstance(value, list):
        items = [sort for item in value if item is not None for sort in _sorts(item)]
        return [f"list of {sort}" for sort in dict.fromkeys(items)] or ["list of nothing"]
    return ["text"] if isinstance(value, str) else ["object"]
