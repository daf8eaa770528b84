"""Records of JSON to columns: all at once where all are well-formed, else fewer and fewer at once."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from acclimate.arrays import IntArray

Pieces: TypeAlias = list[tuple[pa.Table, IntArray]]
"""Tables, and which of the records their rows are."""

_BRANCHES, _FEW = 8, 16
_INF = re.compile(
    r"(?<=[:,\[ \t-])Inf\b"
)  # a number to Arrow's parser, as NaN and Infinity are, but not to Python's


@dataclass(frozen=True)
class Refused:
    """A record that is no event: which of the records it is, and why; all that have one ailment are told alike."""

    index: int
    reason: str


def layouts(types: Mapping[str, pa.DataType], time: str) -> tuple[pa.Schema, ...]:
    """The types as JSON has them; times that may be numbers may be text too, in the second layout."""
    columns = {
        name: pa.list_(pa.float64()) if pa.types.is_fixed_size_list(kind) else kind for name, kind in types.items()
    }
    both = [types[time]] if pa.types.is_string(types[time]) else [types[time], pa.string()]
    return tuple(pa.schema(list((columns | {time: kind}).items())) for kind in both)


def parsed(records: Sequence[bytes], wanted: Sequence[pa.Schema], time: str) -> tuple[Pieces, list[Refused]]:
    """The records that have a value of the right type in each column, by layout, and those that do not.

    There is no white space around any of them.
    """
    whole = _at_once(records, wanted)
    if whole is not None:
        return [(whole, np.arange(len(records)))], []
    pieces: Pieces = []
    refused: list[Refused] = []
    _divide(records, 0, (wanted, time), pieces, refused)
    groups = [[piece for piece in pieces if piece[0].schema.equals(layout)] for layout in wanted]
    joined = [
        (pa.concat_tables([table for table, _ in group]), np.concatenate([places for _, places in group]))
        for group in groups
        if group
    ]
    return joined or [(wanted[0].empty_table(), np.arange(0))], refused


def _at_once(records: Sequence[bytes], wanted: Sequence[pa.Schema]) -> pa.Table | None:
    """The records as a table of one of the layouts; ``None`` where one of them needs a closer look."""
    text = b"\n".join(records)
    if not _is_framed(text, len(records)):
        return None
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError:
        return None
    source: Any
    for columns in wanted:
        source = pa.BufferReader(text)
        try:
            table = pj.read_json(
                source,
                read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
                parse_options=pj.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowInvalid:
            continue
        if table.num_rows == len(records):
            return table
    return None


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
    wanted: tuple[Sequence[pa.Schema], str],
    pieces: Pieces,
    refused: list[Refused],
) -> None:
    """Read records, some of which need a closer look, in parts; few of them one by one."""
    if len(records) <= _FEW:
        _one_by_one(records, first, wanted, pieces, refused)
        return
    size = -(-len(records) // _BRANCHES)
    for start in range(0, len(records), size):
        part = records[start : start + size]
        table = _at_once(part, wanted[0])
        if table is None:
            _divide(part, first + start, wanted, pieces, refused)
        else:
            pieces.append((table, np.arange(first + start, first + start + len(part))))


def _one_by_one(
    records: Sequence[bytes],
    first: int,
    wanted: tuple[Sequence[pa.Schema], str],
    pieces: Pieces,
    refused: list[Refused],
) -> None:
    schemas, time = wanted
    converters = [[(field.name, _converter(field.type)) for field in columns] for columns in schemas]
    rows: list[list[list[Any]]] = [[] for _ in schemas]
    places: list[list[int]] = [[] for _ in schemas]
    for place, record in enumerate(records, first):
        try:
            event = event_in(record)
            layout = -1 if isinstance(event.get(time), str) else 0
            rows[layout].append([_cell(event.get(name), name, convert) for name, convert in converters[layout]])
            places[layout].append(place)
        except _UnfitError as error:
            # Arrow's parser takes what Python's does not: numbers of 5,000 digits, lists 5,000 deep.
            table = _at_once([record], schemas) if isinstance(error, _UnreadError) else None
            if table is None:
                refused.append(Refused(place, str(error)))
            else:
                pieces.append((table, np.array([place])))
    for columns, some, where in zip(schemas, rows, places, strict=True):
        if some:
            cells = zip(*some, strict=True)
            arrays = [pa.array(list(column), field.type) for column, field in zip(cells, columns, strict=True)]
            pieces.append((pa.table(arrays, schema=columns), np.array(where, np.int64)))


class _UnfitError(Exception):
    """A record or a value that is not what it must be."""


class _UnreadError(_UnfitError):
    """A record that is no JSON to Python."""


def event_in(record: bytes) -> dict[str, Any]:
    """A record as an object of Python."""
    try:
        text = record.decode()
        try:
            event = json.loads(text)
        except ValueError:
            event = json.loads(_INF.sub("Infinity", text))
    except UnicodeDecodeError as error:
        raise _UnreadError("the record is no UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _UnreadError("the record is no JSON") from error
    if not isinstance(event, dict):
        raise _UnfitError("the record is no JSON object")
    return event


def values_in(record: bytes, columns: Sequence[str]) -> dict[str, Any]:
    """The values that a record has in these columns; none where it is no event."""
    if b"\\" not in record and not any(f'"{name}"'.encode() in record for name in columns):
        return {}
    try:
        event = event_in(record)
    except _UnfitError:
        return {}
    return {name: event[name] for name in columns if event.get(name) is not None}


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
    if not isinstance(value, list) or any(item is not None for item in value):
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
