"""Events as an encoder reads them: who, what, when, how, and the features that groups are made of."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IdArray, IntArray
from acclimate.artifacts import Events
from acclimate.config import Schema
from acclimate.errors import MismatchError
from acclimate.features import FieldRows, Layout, codes_of, id_type, ids_as
from acclimate.learners.batch import read_tables
from acclimate.learners.encoder.inputs import flags_of
from acclimate.learners.entities import IdIndex
from acclimate.learners.gate import check_numbers

_DTYPES: dict[str, Any] = {"int64": np.dtype(np.int64), "string": np.dtypes.StringDType()}
"""What ids of each kind are in memory."""


class Numbered:
    """Ids in the order in which they came; ``kind`` is what they are kept as, once one was seen.

    ``touched``: by place the ids whose rows have changed since they were written, or nothing where none ever was.
    Written down an id has a number of its own for ever: that is its place, unless ids before it were forgotten.
    """

    def __init__(self, what: str, kind: str | None = None) -> None:
        self.what, self.index, self.kind = what, IdIndex(), kind
        self.touched: dict[int, Any] | None = None
        self._read, self._next = np.zeros(0, np.int64), 0

    @staticmethod
    def restored(what: str, kind: str | None, ids: IdArray, number: IntArray) -> "tuple[Numbered, IntArray]":
        """Ids ``(n,)`` that were written down with these numbers, and their places.

        Raises:
            ValueError: they are of another kind, or there twice.
        """
        if len(ids) and ids.dtype != _DTYPES.get(kind or ""):
            raise ValueError(f"ids of {what} are {ids.dtype}, and not {kind}")
        order = np.argsort(number)
        numbered = Numbered(what, kind)
        numbered.index, numbered._read = IdIndex(ids[order]), number[order]
        if len(numbered) != len(ids) or np.any(np.diff(numbered._read) <= 0) or np.any(number < 0):
            raise ValueError(f"ids of {what}, or their numbers, are there twice")
        numbered.keep_from(int(number.max(initial=-1)) + 1)
        places = np.empty(len(ids), np.int64)
        places[order] = np.arange(len(ids))
        return numbered, places

    def __len__(self) -> int:
        return len(self.index)

    def keep_from(self, number: int) -> None:
        """Give new ids numbers from this one on, or from a larger one."""
        self._next = max(self._next, number)

    def kept_as(self, places: IntArray) -> IntArray:
        """The numbers that ids at these places are written down with ``(n,)``."""
        number = places + (self._next - len(self._read))
        was_read = places < len(self._read)
        number[was_read] = self._read[places[was_read]]
        return number

    def places(self, number: IntArray) -> IntArray:
        """The reverse for ids that were read ``(n,)``, -1 where there is none."""
        if not len(self._read):
            return np.full(len(number), -1)
        place = np.minimum(np.searchsorted(self._read, number), len(self._read) - 1)
        return np.where(self._read[place] == number, place, -1)

    def touch(self, ids: IdArray, places: IntArray) -> None:
        """Note that the rows of these ids change."""
        if self.touched is not None:
            self.touched.update(zip(places.tolist(), ids.tolist(), strict=True))

    def touch_one(self, id: int | str, place: int) -> None:
        """The same of one id."""
        if self.touched is not None:
            self.touched[place] = id

    def ids_of(self, touched: Mapping[int, Any]) -> tuple[IdArray, IntArray]:
        """The ids that are touched, in the order of their places, and these."""
        places = np.array(sorted(touched), np.int64)
        return np.array([touched[place] for place in places.tolist()], _DTYPES[self.kind or "int64"]), places

    def distinct(self, column: Any) -> tuple[IntArray, IdArray]:
        """Which of the distinct ids each row of a column has, ``(n,)``, and these.

        Raises:
            MismatchError: they are of another type than those so far, or missing.
        """
        codes, ids = codes_of(column)
        return codes, ids_as(ids, self.kind or id_type(ids.type), f"'{self.what}'")

    def admit(self, ids: IdArray) -> IntArray:
        """The places of ids; unknown ones get the next, and are touched."""
        if self.kind is None and len(ids):
            self.kind = "int64" if ids.dtype.kind == "i" else "string"
        known = len(self.index)
        places = self.index.admit(ids)
        new = places >= known
        self.touch(ids[new], places[new])
        return places

    def kept(self, id: Any) -> int | str:
        """One id as it is kept.

        Raises:
            MismatchError: it is no id, or of another type than those so far.
        """
        whole = isinstance(id, int | np.integer) and not isinstance(id, bool) and -(2**63) <= id < 2**63
        if not whole and not isinstance(id, str):
            raise MismatchError(f"{id!r} is no id of '{self.what}'", hint="give a whole number or text")
        kind = "int64" if whole else "string"
        if kind != (self.kind or kind):
            raise MismatchError(f"the id {id!r} of '{self.what}' is {kind}, those learned before are {self.kind}")
        return int(id) if whole else str(id)

    def numbers(self, ids: IdArray | Sequence[Any]) -> IntArray:
        """The places of ids, -1 of unknown ones.

        Raises:
            MismatchError: they are no ids, or of another type than those so far.
        """
        column: Any = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        try:
            column = pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise MismatchError(f"the ids of '{self.what}' are not of one type") from error
        kind = id_type(column.type)
        if len(column) and (kind != (self.kind or kind) or pa.types.is_floating(column.type)):
            raise MismatchError(f"ids of '{self.what}' are {column.type}, those learned before are {self.kind}")
        return self.index.numbers(ids_as(column, kind, f"'{self.what}'"))

    def admit_one(self, id: int | str) -> int:
        """The place of one id as it is kept; an unknown one is touched."""
        self.kind = "int64" if isinstance(id, int) else "string"
        known = len(self.index)
        place = self.index.admit_one(id)
        if place >= known:
            self.touch_one(id, place)
        return place

    def copied(self) -> "Numbered":
        """The same, to grow by itself."""
        return copy.deepcopy(self)


@dataclass(frozen=True)
class Piece:
    """Some events of the log, ``n`` of them.

    ``users`` and ``items`` are distinct ids, ``user`` and ``item`` ``(n,)`` which of them each event is about.
    ``last`` ``(m,)``: the last event of each of the users, or all that lie on its instant. ``columns``: by group
    what these say; ``contents``: by kind of item vectors the features of each of the items.
    """

    users: IdArray
    user: IntArray
    items: IdArray
    item: IntArray
    time: IntArray
    flags: NDArray[np.uint8]
    last: IntArray
    columns: Mapping[str, FieldRows]
    contents: Mapping[str, FieldRows]


@dataclass
class Reader:
    """Reads events; ``layouts`` of groups of columns and of kinds of item vectors grow where ``grow`` is set.

    Numbers stay float64: of large ones that lie close together float32 would keep few digits.
    """

    schema: Schema
    users: Numbered
    items: Numbered
    entity: str
    item: str
    behaviours: Mapping[str, str | None]
    columns: Mapping[str, Sequence[str]]
    contents: Mapping[str, Sequence[str]]
    layouts: dict[str, Layout] = field(default_factory=dict[str, Layout])
    content_layouts: dict[str, Layout] = field(default_factory=dict[str, Layout])
    grow: bool = False

    def pieces(self, events: Events) -> Iterator[Piece]:
        """The events piece by piece.

        Raises:
            MismatchError: ids are of another type than those so far.
            ColumnError: a column's type does not go with a feature's kind.
            RowError: a feature is beyond what can be computed with.
        """
        labels = [label for label in self.behaviours.values() if label is not None]
        for table in read_tables(events, self._wanted(labels, self.columns, self.contents), None):
            if table.num_rows:
                yield self._piece(table)

    def asked(self, events: Events) -> Iterator[tuple[IntArray, IntArray, dict[str, FieldRows]]]:
        """Entities by number, -1 for unknown ones, times, and columns of rows ``(n,)``, piece by piece."""
        for table in read_tables(events, self._wanted([], self.columns, {}, items=False), None):
            codes, ids = self.users.distinct(table[self.entity])
            yield (
                self.users.index.numbers(ids)[codes],
                self._time(table),
                self._read(table, self.columns, self.layouts),
            )

    def _piece(self, table: pa.Table) -> Piece:
        user, users = self.users.distinct(table[self.entity])
        item, items = self.items.distinct(table[self.item])
        time, rows = self._time(table), np.arange(table.num_rows)
        latest, first = np.empty(len(users), np.int64), np.empty(len(items), np.int64)
        latest[user], first[item[::-1]] = time, rows[::-1]  # in the order of time: the last one stays
        last = np.flatnonzero(time == latest[user])
        return Piece(
            users,
            user,
            items,
            item,
            time,
            flags_of(
                [None if label is None else _floats(table[label]) for label in self.behaviours.values()], len(rows)
            ),
            last,
            self._read(table.take(_indices(last)), self.columns, self.layouts),
            self._read(table.take(_indices(first)), self.contents, self.content_layouts),
        )

    def _read(
        self, table: pa.Table, groups: Mapping[str, Sequence[str]], layouts: dict[str, Layout]
    ) -> dict[str, FieldRows]:
        read = dict[str, FieldRows]()
        for name, features in groups.items():
            if name not in layouts:
                layouts[name] = Layout.first(features, table, self.schema)
            read[name], layout = layouts[name].read(table, self.schema, grow=self.grow, dtype=np.float64)
            check_numbers(layout.dense, read[name].dense, self._time(table))
            if self.grow:
                layouts[name] = layout
        return read

    def _wanted(
        self,
        labels: Sequence[str],
        columns: Mapping[str, Sequence[str]],
        contents: Mapping[str, Sequence[str]],
        *,
        items: bool = True,
    ) -> list[str]:
        features = [name for groups in (columns, contents) for names in groups.values() for name in names]
        made = [column for name in features for column in self.schema.feature_columns(name)]
        named = [self.schema.time.column, self.entity, *([self.item] if items else []), *labels, *made]
        return list(dict.fromkeys(named))

    def _time(self, table: pa.Table) -> IntArray:
        return table[self.schema.time.column].cast(pa.int64()).to_numpy()


def _indices(rows: IntArray) -> Any:
    return pa.array(rows)


def _floats(column: Any) -> FloatArray:
    """Numbers, NaN where missing."""
    return column.cast(pa.float64()).to_numpy()


def stacked_rows(parts: Sequence[FieldRows]) -> FieldRows:
    """Rows of one layout on top of each other."""
    ends = np.cumsum([0, *(len(part.cell) for part in parts)])
    starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    return FieldRows(
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.cell for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([*starts, ends[-1:]]),
    )
