"""Rows by id as keys and values: all rows of one layout at once, and each value knows what it is of.

::

    0   format      uint16      of the value: 1
    2   layout      uint16      which columns follow, by a number that the unit keeps a table of
    4   -           uint32      0
    8   space       uint64      the tag of the space
    16  time        int64       the last event that the learner had seen when it was written, microseconds UTC
    24  check       uint64      a_0 + a_1 id + sum_i a_i word_i (mod 2^64) over all the other words of 32 bits
    32  columns                 in the order of their names, filled up to a multiple of 8 bytes

with odd ``a_i``, so that no change of a word goes unseen. A key is ``i`` and eight bytes in the order of the
integers, or ``t`` and the text of an id.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IdArray, IntArray
from acclimate.artifacts import Space
from acclimate.errors import FormatError, ModelError, SpaceError
from acclimate.models.hashing import hashed
from acclimate.storage import Columns

FORMAT = 1

Payload: TypeAlias = Literal["float64", "float32", "float16"]

_HEAD = [
    ("format", "<u2"),
    ("layout", "<u2"),
    ("zero", "<u4"),
    ("space", "<u8"),
    ("time", "<i8"),
    ("check", "<u8"),
]
_CHECKED = slice(6, 8)
"""The words of 32 bits where the check itself is."""

_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True)
class Layout:
    """The columns of a value: names, types in memory, types in the value, and shapes of a row."""

    columns: tuple[tuple[str, str, str, tuple[int, ...]], ...]

    @staticmethod
    def of(columns: Columns, payload: Payload | None = None) -> "Layout":
        """That of these columns, whose floats are kept in ``payload``, or as they are."""
        return Layout(
            tuple(
                (name, column.dtype.str, _kept(column.dtype, payload), column.shape[1:])
                for name, column in sorted(columns.items())
            )
        )

    @cached_property
    def row(self) -> np.dtype[Any]:
        """A value as NumPy has it."""
        fields = [*_HEAD, *((f"column {name}", kept, shape) for name, _, kept, shape in self.columns)]
        size = np.dtype(fields).itemsize
        return np.dtype([*fields, ("fill", "u1", (-size % 8,))])

    def written(self) -> bytes:
        """As JSON."""
        return json.dumps(self.columns).encode()

    @staticmethod
    def read(text: bytes) -> "Layout":
        """The reverse."""
        return Layout(tuple((name, kind, kept, tuple(shape)) for name, kind, kept, shape in json.loads(text)))


@dataclass(frozen=True)
class Place:
    """Where rows are, for messages: the unit, its space, and the table."""

    unit: str
    space: Space
    table: str


def encoded_ids(ids: IdArray) -> list[bytes]:
    """The key of each id ``(n,)``."""
    if ids.dtype == np.int64:
        return _integers(ids)
    return [b"t" + id.encode() for id in ids.tolist()]


def decoded_ids(keys: Sequence[bytes]) -> IdArray:
    """The reverse.

    Raises:
        ValueError: these are no keys of one type of ids.
    """
    if all(key[:1] == b"t" for key in keys) and keys:
        return np.array([key[1:].decode() for key in keys], np.dtypes.StringDType())
    if any(key[:1] != b"i" or len(key) != 9 for key in keys):
        raise ValueError("keys that are no ids")
    flat = np.frombuffer(b"".join(keys), np.dtype([("i", "u1"), ("id", ">u8")]))
    return (flat["id"].astype(np.uint64) ^ _SIGN).view(np.int64)


def encoded(
    place: Place, keys: Sequence[bytes], columns: Columns, *, layout: Layout, number: int, time: int
) -> list[bytes]:
    """The values of rows ``(n,)`` with these keys and columns.

    Raises:
        ModelError: a number is beyond what the payload can hold.
    """
    rows = np.zeros(len(keys), layout.row)
    rows["format"], rows["layout"], rows["space"], rows["time"] = FORMAT, number, place.space.tag, time
    for name, kind, kept, _ in layout.columns:
        with np.errstate(over="ignore"):
            rows[f"column {name}"] = columns[name]
        if kept != kind:
            _check_held(place, keys, rows[f"column {name}"], kept)
    rows["check"] = _proofs(rows, keys)
    data, size = rows.tobytes(), layout.row.itemsize
    return [data[first : first + size] for first in range(0, len(data), size)]


def decoded(
    place: Place, keys: Sequence[bytes], values: Sequence[bytes], layouts: Mapping[int, Layout]
) -> Iterator[tuple[IntArray, Columns]]:
    """Of values ``(n,)`` with these keys those of one layout at a time: their places ``(m,)`` and columns.

    Raises:
        SpaceError: a value is of another space.
        FormatError: a value is not what was written.
    """
    if not values:
        return
    number, joined = _layout_of(values[0]), b"".join(values)
    layout = layouts.get(number)
    if layout is not None and len(joined) == len(values) * layout.row.itemsize:
        rows = np.frombuffer(joined, layout.row)
        if np.all(rows["format"] == FORMAT) and np.all(rows["layout"] == number):
            yield np.arange(len(values)), _columns(place, keys, rows, layout)
            return
    # The long way: values of several layouts, or damaged ones.
    groups: dict[int, list[int]] = {}
    for i, value in enumerate(values):
        groups.setdefault(_layout_of(value), []).append(i)
    for number, places in groups.items():
        some, their_keys = [values[i] for i in places], [keys[i] for i in places]
        layout = layouts.get(number)
        wrong = [k for k, v in zip(their_keys, some, strict=True) if layout is None or not _fits(v, layout)]
        if layout is None or wrong:
            raise _damaged(place, wrong)
        yield np.array(places), _columns(place, their_keys, np.frombuffer(b"".join(some), layout.row), layout)


def tag_of(value: bytes) -> int:
    """The tag of the space that a value is of."""
    return int.from_bytes(value[8:16], "little")


def times_of(values: Sequence[bytes]) -> IntArray:
    """The last event that the learner had seen when each value was written, microseconds UTC, ``(n,)``."""
    return np.array([int.from_bytes(value[16:24], "little", signed=True) for value in values], np.int64)


def shown(key: bytes) -> str:
    """The id of a key, for messages."""
    try:
        return repr(decoded_ids([key]).tolist()[0])
    except ValueError:
        return repr(key)


def _integers(ids: IntArray) -> list[bytes]:
    rows = np.empty(len(ids), np.dtype([("i", "u1"), ("id", ">u8")]))
    rows["i"], rows["id"] = ord("i"), ids.view(np.uint64) ^ _SIGN
    data = rows.tobytes()
    return [data[first : first + 9] for first in range(0, len(data), 9)]


def _kept(kind: np.dtype[Any], payload: Payload | None) -> str:
    return kind.str if payload is None or kind.kind != "f" else np.dtype(payload).newbyteorder("<").str


def _layout_of(value: bytes) -> int:
    return int.from_bytes(value[2:4], "little") if len(value) >= 32 else -1


def _fits(value: bytes, layout: Layout) -> bool:
    return len(value) == layout.row.itemsize and int.from_bytes(value[:2], "little") == FORMAT


def _columns(place: Place, keys: Sequence[bytes], rows: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
    """The columns of proved rows."""
    wrong = np.flatnonzero(_proofs(rows, keys) != rows["check"])
    if len(wrong):
        raise _damaged(place, [keys[i] for i in wrong.tolist()])
    others = np.flatnonzero(rows["space"] != np.uint64(place.space.tag))
    if len(others):
        raise SpaceError(
            f"{len(others):,} values in '{place.table}' of '{place.unit}', such as that of "
            f"{shown(keys[int(others[0])])}, are of the space with the tag {int(rows['space'][others[0]]):016x} "
            f"and not of {place.space}, whose tag is {place.space.tag:016x}",
            hint="values of two spaces are never mixed: read each with the model of its space",
        )
    return {name: rows[f"column {name}"].astype(kind) for name, kind, _, _ in layout.columns}


def _proofs(rows: NDArray[Any], keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """What proves each row ``(n,)``, with the id that it is of."""
    words = rows.view(np.uint32).reshape(len(rows), -1)
    factors = hashed(np.arange(2 + words.shape[1], dtype=np.uint64)) | np.uint64(1)
    factors[2:][_CHECKED] = 0
    ids = np.fromiter(map(zlib.crc32, keys), np.uint64, len(keys))
    return factors[0] + factors[1] * ids + np.einsum("ij,j->i", words, factors[2:])


def _check_held(place: Place, keys: Sequence[bytes], column: NDArray[Any], kept: str) -> None:
    """Raises ModelError where a number has become infinite."""
    beyond = np.flatnonzero(~np.isfinite(column).reshape(len(column), -1).all(axis=1))
    if len(beyond):
        raise ModelError(
            f"{len(beyond):,} rows of '{place.table}' have numbers that {np.dtype(kept).name} cannot hold, such "
            f"as that of {shown(keys[int(beyond[0])])}",
            hint="keep them as float32",
        )


def _damaged(place: Place, keys: Sequence[bytes]) -> FormatError:
    return FormatError(
        f"{len(keys):,} values in '{place.table}' of '{place.unit}' are not what was written, such as that of "
        f"{shown(keys[0])}",
        hint="restore a backup, or fill the unit anew from a snapshot",
    )
