"""Symmetric matrices as their lower triangles, row by row: ``d (d + 1) / 2`` numbers each instead of ``d^2``."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from acclimate.arrays import FloatArray, IntArray

_STRIP = 1024
"""Matrices that are written out at a time, so that they are still in the cache when they are used."""


def triangles(matrices: FloatArray) -> FloatArray:
    """The lower triangles ``(n, d (d + 1) / 2)`` of matrices ``(n, d, d)``; what is above them is not read."""
    d = matrices.shape[-1]
    return np.take(matrices.reshape(-1, d * d), _places(d)[0], axis=1)


def matrices(triangles: FloatArray, d: int) -> FloatArray:
    """The matrices ``(n, d, d)`` of lower triangles ``(n, d (d + 1) / 2)``."""
    return np.take(triangles, _places(d)[1], axis=1).reshape(-1, d, d)


def strips(count: int) -> Iterator[slice]:
    """Pieces of so many matrices."""
    for first in range(0, count, _STRIP):
        yield slice(first, first + _STRIP)


@cache
def _places(d: int) -> tuple[IntArray, IntArray]:
    """Where in a matrix each number of its triangle is, and where in the triangle each of the matrix."""
    row, column = np.tril_indices(d)
    of_cell = np.empty((d, d), np.int64)
    of_cell[row, column] = of_cell[column, row] = np.arange(len(row))
    return row * d + column, of_cell.ravel()
