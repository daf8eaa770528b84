"""Rows by id that a learner holds in memory, all of them, and writes through: those that were touched, or all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.arrays import IdArray, IntArray
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.gate import check_arrays
from acclimate.storage import (
    Below,
    Columns,
    Rows,
    Segment,
    Unwritten,
    keys_of,
    texts_of,
    unpacking,
    write_segment,
)

_AT_ONCE = 1 << 14
"""Rows that are made at a time."""


@dataclass(frozen=True)
class HeldRows:
    """The seam :class:`acclimate.learners.base.Layered` over what is in memory.

    ``name``: for messages; ``columns``: of the events, that have the ids; ``read``: of ids by place ``(m,)`` those
    of one layout at a time, their places, in the order given, and columns; ``replace``: go on with all rows
    that lie there instead, and these ids; ``is_described``: as :class:`acclimate.learners.base.Layered` has it.
    """

    name: str
    columns: tuple[str, ...]
    numbered: Numbered
    read: Callable[[IntArray], Iterator[tuple[IntArray, Columns]]]
    replace: Callable[[Below], Numbered]
    is_described: bool = False

    def layers(self) -> list[Segment | Unwritten]:
        """All rows, anew: one segment of each layout; all are looked at before one is written."""
        ids, found = self.numbered.index.ids(), dict[str, tuple[Columns, list[IntArray]]]()
        for first in range(0, len(ids), _AT_ONCE):
            for places, columns in self._read(np.arange(first, min(first + _AT_ONCE, len(ids)))):
                none = {name: column[:0].copy() for name, column in columns.items()}
                found.setdefault(str(Rows(places, none).layout), (none, []))[1].append(places)
        layers = [_Made.of_places(ids, np.concatenate(found[k][1]), found[k][0], self.read) for k in sorted(found)]
        return [partial(write_segment, parts=[(rows, np.arange(len(rows)))], like=_as_they_are) for rows in layers]

    def written(self, segments: Sequence[Segment]) -> None:
        """Nothing: they stay in memory."""

    def changed(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`acclimate.learners.base.Layered.changed`; all, as long as they lie nowhere else."""
        if (touched := self.numbered.touched) is None:
            yield from self._pieces(self.numbered.index.ids(), np.arange(len(self.numbered)))
        elif touched:
            yield from self._pieces(*self.numbered.ids_of(touched))

    def unchanged(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`acclimate.learners.base.Layered.unchanged`."""
        if (touched := self.numbered.touched) is not None:
            ids, others = self.numbered.index.ids(), np.ones(len(self.numbered), np.bool_)
            others[list(touched)] = False
            yield from self._pieces(ids[others], np.flatnonzero(others))

    def rest_on(self, below: Below) -> None:
        """See :meth:`acclimate.learners.base.Layered.rest_on`: all are read.

        Raises:
            FormatError: they do not belong to this learner.
        """
        with unpacking(f"what is stored of {self.name}"):
            self.replace(below).touched = {}

    def settle(self) -> None:
        """See :meth:`acclimate.learners.base.Layered.settle`."""
        self.numbered.touched = {}

    def _read(self, places: IntArray) -> Iterator[tuple[IntArray, Columns]]:
        """Raises ModelError where a number is not finite: it is not written."""
        for some, columns in self.read(places):
            check_arrays(f"row of {self.name}", columns)
            yield some, columns

    def _pieces(self, ids: IdArray, places: IntArray) -> Iterator[tuple[IdArray, Columns]]:
        """The rows of these ids ``(n,)``, whose places ascend."""
        for first in range(0, len(ids), _AT_ONCE):
            strip = slice(first, first + _AT_ONCE)
            for some, columns in self._read(places[strip]):
                yield ids[strip][np.searchsorted(places[strip], some)], columns


@dataclass(frozen=True)
class _Made(Rows):
    """Rows of one layout that are made when they are asked for: those at ``places`` ``(n,)``."""

    places: IntArray = field(kw_only=True)
    read: Callable[[IntArray], Iterator[tuple[IntArray, Columns]]] = field(kw_only=True)

    @staticmethod
    def of_places(ids: IdArray, places: IntArray, none: Columns, read: Any) -> "_Made":
        """Those of these places among all ``ids``; ``none`` are their columns without a row."""
        key = keys_of(ids[places])
        order = np.argsort(key, kind="stable")
        places = places[order]
        return _Made(key[order], none, texts_of(ids[places]), places=places, read=read)

    def at(self, rows: IntArray) -> Rows:
        """Copies of these rows."""
        columns = dict(next(self.read(self.places[rows]))[1]) if len(rows) else self.columns
        return Rows(self.key[rows], columns, None if self.text is None else self.text.take(pa.array(rows)))


def joined(parts: Sequence[tuple[IdArray, IntArray]]) -> tuple[IdArray, IntArray]:
    """The ids of all parts, and their numbers."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ids, number = zip(*parts, strict=True)
    return np.concatenate(ids), np.concatenate(number)


def check_columns(name: str, columns: Columns, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Ask that columns of rows have these shapes and types.

    Raises:
        ValueError: they have others.
    """
    found = {column: (values.shape[1:], values.dtype) for column, values in columns.items()}
    wanted = {column: (shape, np.dtype(kind)) for column, (shape, kind) in expected.items()}
    if found != wanted:
        raise ValueError(f"rows of {name} have {found}, not {wanted}")


def _as_they_are(rows: Rows) -> Rows:
    return rows
