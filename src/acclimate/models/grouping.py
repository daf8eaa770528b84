"""Entities of similar size side by side, so that small dense problems can be solved many at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acclimate.arrays import BoolArray, FloatArray, IntArray

_CHUNK_CELLS = 1_000_000
"""Cells of the padded rows, or of the matrices, of one group: 8 MB, small enough to stay near the cache."""


@dataclass(frozen=True)
class Group:
    """Some entities, each filled up to the rows of the longest.

    ``members``: ``(m,)``; ``rows``: ``(m, r)``, numbers of their rows; ``real``: ``(m, r)``, false where a row
    only fills up: whatever is summed over rows has to weigh it with nothing.
    """

    members: IntArray
    rows: IntArray
    real: BoolArray

    def gathered(self, of_row: FloatArray) -> FloatArray:
        """A number of each row ``(n,)`` as ``(m, r)``, zero where there is none."""
        return of_row[self.rows] if self._even else np.where(self.real, of_row[self.rows], 0.0)

    def scatter(self, values: FloatArray, of_row: FloatArray) -> None:
        """The reverse: write ``(m, r)`` to the rows they are of."""
        if self._even:
            of_row[self.rows] = values
        else:
            of_row[self.rows[self.real]] = values[self.real]

    @cached_property
    def _even(self) -> bool:
        """Whether all have the same number of rows."""
        return bool(self.real.all())


@dataclass(frozen=True)
class Grouping:
    """Which rows each entity has: entity ``e`` those of ``order[indptr[e]:indptr[e+1]]``; both are integers."""

    order: IntArray
    indptr: IntArray

    @staticmethod
    def of(entity: IntArray, count: int) -> "Grouping":
        """By the entity of each row ``(n,)``, from 0, or -1 for none."""
        sizes = np.bincount(entity + 1, minlength=count + 1)
        order = np.argsort(entity, kind="stable")[sizes[0] :]
        return Grouping(order, np.concatenate([[0], np.cumsum(sizes[1:])]))

    @property
    def sizes(self) -> IntArray:
        """Rows of each entity."""
        return np.diff(self.indptr)

    def groups(self, d: int, members: IntArray | None = None) -> Iterator[Group]:
        """Entities that have rows, smallest first; the padded rows of a group are at most twice the real ones.

        ``d`` is the width of a row. ``members`` are asked for alone.
        """
        members = np.arange(len(self.sizes)) if members is None else members
        sizes = self.sizes[members]
        order = np.argsort(sizes, kind="stable")
        order = order[np.searchsorted(sizes[order], 1) :]
        ordered = sizes[order]
        first = 0
        while first < len(order):
            widest = 2 * int(ordered[first])
            fit = max(1, _CHUNK_CELLS // (max(widest, d) * d))
            last = min(first + fit, int(np.searchsorted(ordered, widest, side="right")))
            yield self._group(members[order[first:last]])
            first = last

    def _group(self, members: IntArray) -> Group:
        starts, sizes = self.indptr[members], self.sizes[members]
        position = np.arange(sizes.max())
        real = position < sizes[:, None]
        return Group(members, self.order[starts[:, None] + np.where(real, position, 0)], real)
