"""``X'diag(s)X`` of sparse rows: each pair of a row's cells is one product, added where it belongs."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, SparseRows


def weighted_gram(X: SparseRows, weight: FloatArray) -> FloatArray:
    """``X'diag(weight)X``, ``(d, d)``; ``X`` (n, d) in canonical order, ``weight`` (n,)."""
    d = X.shape[1]
    gram = np.zeros((d, d))
    add_pairs(X.data, X.indices, X.indptr, weight, gram)
    # What is below the diagonal goes above it too, a strip at a time, so that no second matrix is there.
    for first in range(0, d, 64):
        gram[first : first + 64, first + 64 :] = gram[first + 64 :, first : first + 64].T
        corner = gram[first : first + 64, first : first + 64]
        corner += np.tril(corner, -1).T
    return gram


@njit(cache=True, nogil=True)  # type: ignore[misc]
def add_pairs(
    cells: FloatArray,
    columns: NDArray[np.integer],
    indptr: NDArray[np.integer],
    weight: FloatArray,
    gram: FloatArray,
) -> None:
    """Add to the lower triangle of ``gram``; the columns of a row rise."""
    for row in range(len(weight)):
        begin, end = indptr[row], indptr[row + 1]
        for i in range(begin, end):
            x, line = weight[row] * cells[i], gram[columns[i]]
            for k in range(begin, i + 1):
                line[columns[k]] += x * cells[k]
