"""Newton's method on batches of entities in NumPy, as one would write it who knows how.

Sorted by size, cut into batches of so many cells, each filled up to the rows of its longest, whose margins stay in
the cache; what is done with a batch is products of stacked matrices and one call of LAPACK.
"""

import numpy as np

from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import RIDGE, Entities, Fitted

CELLS = 80_000
"""Of a batch: 640 KB, the best of a row of sizes."""

FILLED = 1.25
"""Rows of the longest of a batch at most, for each of the shortest."""


def fit(data: Entities, *, tolerance: float = 1e-6, cells: int = CELLS) -> Fitted:
    """Means and precisions."""
    d, sizes = data.width, np.diff(data.indptr)
    mean, precision = np.zeros((data.count, d)), np.empty((data.count, d, d))
    order = np.argsort(sizes, kind="stable")
    ordered, first = sizes[order], 0
    while first < len(order):
        longest = max(FILLED * ordered[first], ordered[first] + 1)
        last = min(np.searchsorted(ordered, longest, "right"), first + max(1, int(cells / (max(longest, d) * d))))
        members = order[first:last]
        position = np.arange(sizes[members].max())
        real = (position < sizes[members, None]).astype(np.float64)
        rows = data.indptr[members, None] + np.minimum(position, sizes[members, None] - 1)
        A, y, w = data.X[rows], data.y[rows], np.zeros((len(members), d))
        AT, P = np.swapaxes(A, 1, 2), RIDGE * np.eye(d)
        while True:
            p = 1.0 / (1.0 + np.exp(-np.matmul(A, w[..., None])[..., 0]))
            gradient = np.matmul(AT, ((p - y) * real)[..., None])[..., 0] + RIDGE * w
            H = np.matmul(AT, A * (p * (1.0 - p) * real)[..., None]) + P
            step = np.linalg.solve(H, gradient[..., None])[..., 0]
            w -= step
            if np.vecdot(gradient, step).max() < tolerance**2:
                break
        mean[members], precision[members] = w, H
        first = last
    return Fitted(mean, precision)


class NumpyNewton(Peer):
    """The bar: as fast as NumPy gets."""

    name, at_most, error = "NumPy, batched Newton", 20_000, 1e-6

    def fit(self, prepared: Entities) -> Fitted:
        return fit(prepared)


PEERS = [NumpyNewton()]
