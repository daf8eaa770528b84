"""Which rows each entity has."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from acclimate.arrays import IntArray

_CHUNK_CELLS = 1_000_000
"""Cells of rows, or of matrices, that are worked on side by side: 8 MB, small enough to stay near the cache."""


@dataclass(frozen=True)
class Grouping:
    """Entity ``e`` has the rows ``order[indptr[e]:indptr[e+1]]``; both are integers."""

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

    def of_same_size(self, members: IntArray, d: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Some entities, those with as many rows together, ``(m,)``, and their rows of ``d`` cells, ``(m, r)``."""
        sizes = self.sizes[members]
        for size in np.unique(sizes):
            alike = members[sizes == size]
            step = max(1, _CHUNK_CELLS // (max(int(size), d) * d))
            for first in range(0, len(alike), step):
                some = alike[first : first + step]
                yield some, self.order[self.indptr[some][:, None] + np.arange(size)]
