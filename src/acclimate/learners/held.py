"""Rows by id that a learner holds in memory, all of them, and writes through: those that were touched, or all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from acclimate.arrays import IdArray, IntArray
from acclimate.learners.encoder.rows import Numbered
from acclimate.storage import Below, Columns, Rows, Segment, Unwritten, unpacking, write_segment

_AT_ONCE = 1 << 14
"""Rows that are made at a time."""


@dataclass(frozen=True)
class HeldRows:
    """The seam :class:`acclimate.learners.base.Layered` over what is in memory.

    ``name``: for messages; ``columns``: of the events, that have the ids; ``read``: of ids by place ``(m,)`` those
    of one layout at a time, their places and columns; ``replace``: go on with all rows that lie there
    instead, and these ids; ``is_described``: as :class:`acclimate.learners.base.Layered` has it.
    """

    name: str
    columns: tuple[str, ...]
    numbered: Numbered
    read: Callable[[IntArray], Iterator[tuple[IntArray, Columns]]]
    replace: Callable[[Below], Numbered]
    is_described: bool = False

    def layers(self) -> list[Segment | Unwritten]:
        """All rows, anew: one segment of each layout."""
        ids = self.numbered.index.ids()
        parts = [Rows.of(ids[places], columns) for places, columns in self.read(np.arange(len(ids)))]
        return [partial(write_segment, parts=[(rows, np.arange(len(rows)))], like=_as_they_are) for rows in parts]

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

    def _pieces(self, ids: IdArray, places: IntArray) -> Iterator[tuple[IdArray, Columns]]:
        """The rows of these ids ``(n,)``, whose places ascend."""
        for first in range(0, len(ids), _AT_ONCE):
            strip = slice(first, first + _AT_ONCE)
            for some, columns in self.read(places[strip]):
                yield ids[strip][np.searchsorted(places[strip], some)], columns


def _as_they_are(rows: Rows) -> Rows:
    return rows
