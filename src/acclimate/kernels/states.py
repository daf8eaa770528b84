"""What is done to the states of many entities one by one, each within the cache.

States are taken from where they are kept and put back: there they are a mean and the lower triangle of a
precision, row by row, here a mean ``(d,)`` and a matrix ``(d, d)``. Precisions change their coordinates, ``T'PT``
with ``T = diag(a) - e0 b'`` of :class:`acclimate.models.scaling.Scaling`, and are looked at.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IntArray
from acclimate.kernels.threads import side_by_side

_REORDERED = {"reassoc", "contract", "nsz"}
"""What sums may be, so that they are of vectors."""

_LEAST = 400_000
"""Operations of a piece of work at least; a thread starts in .1 ms."""

_TINY = 1e-9
"""As in :mod:`acclimate.models.skewness`."""


def unpack(
    values: NDArray[Any], rows: IntArray, places: IntArray, mean: FloatArray, precision: FloatArray
) -> None:
    """States ``values[rows]`` (n, d + d (d + 1) / 2) as means and matrices, at some places of ``(m, d)``."""

    def piece(first: int, last: int) -> None:
        unpack_each(values, rows, places, first, last, mean, precision)

    side_by_side(piece, precision[0].size * np.arange(len(rows) + 1), least=_LEAST)


def pack(mean: FloatArray, precision: FloatArray, rows: IntArray, values: NDArray[Any]) -> None:
    """The reverse: means ``(n, d)`` and matrices, of which no more than the lower half is read, to their rows."""

    def piece(first: int, last: int) -> None:
        pack_each(mean, precision, rows, first, last, values)

    side_by_side(piece, precision[0].size * np.arange(len(rows) + 1), least=_LEAST)


def transformed(matrices: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """``T'PT`` of matrices ``(n, d, d)``, with ``T = diag(a) - e0 b'`` of ``a`` and ``b`` (d,)."""
    out = np.empty(matrices.shape)

    def piece(first: int, last: int) -> None:
        transform_each(matrices, a, b, first, last, out)

    side_by_side(piece, a.size**2 * np.arange(len(matrices) + 1), least=_LEAST)
    return out


def positive(matrices: FloatArray) -> BoolArray:
    """Which of symmetric matrices ``(n, d, d)`` have a Cholesky root of finite numbers, ``(n,)``."""
    n, d = matrices.shape[:2]
    found = np.zeros(n, np.bool_)

    def piece(first: int, last: int) -> None:
        root_each(matrices, first, last, np.empty((d, d)), found)

    side_by_side(piece, d**3 * np.arange(n + 1), least=_LEAST)
    return found


def skewed(
    precision: FloatArray, covariance: FloatArray, population: FloatArray, mean: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What :func:`acclimate.models.skewness.skewness` finds: ``margin``, ``variance``, and ``S`` times the parts.

    Args:
        precision: ``P``, ``(e, d, d)``.
        covariance: ``S``, their inverses.
        population: the precision of what each comes from, ``(e, d, d)``, or ``(1, d, d)`` of all.
        mean: ``(e, d)``.
    """
    n, d = mean.shape
    margin, variance, parts = np.zeros(n), np.zeros(n), np.zeros((3, n, d))

    def piece(first: int, last: int) -> None:
        skew_each(precision, covariance, population, mean, first, last, margin, variance, parts, np.empty((4, d)))

    side_by_side(piece, 12 * d**2 * np.arange(n + 1), least=_LEAST)
    return margin, variance, parts


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def unpack_each(  # noqa: PLR0917 - a compiled loop takes arrays
    values: NDArray[Any],
    rows: IntArray,
    places: IntArray,
    first: int,
    last: int,
    mean: FloatArray,
    precision: FloatArray,
) -> None:
    """For the states ``first:last``."""
    d = mean.shape[1]
    for i in range(first, last):
        state, place, k = values[rows[i]], places[i], d
        P = precision[place]
        for j in range(d):
            mean[place, j] = state[j]
        for j in range(d):
            for m in range(j + 1):
                P[j, m] = state[k + m]
                P[m, j] = state[k + m]
            k += j + 1


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def pack_each(  # noqa: PLR0917
    mean: FloatArray, precision: FloatArray, rows: IntArray, first: int, last: int, values: NDArray[Any]
) -> None:
    """For the states ``first:last``."""
    d = mean.shape[1]
    for i in range(first, last):
        state, P, k = values[rows[i]], precision[i], d
        for j in range(d):
            state[j] = mean[i, j]
        for j in range(d):
            for m in range(j + 1):
                state[k + m] = P[j, m]
            k += j + 1


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def transform_each(  # noqa: PLR0917
    matrices: FloatArray, a: FloatArray, b: FloatArray, first: int, last: int, out: FloatArray
) -> None:
    """For the matrices ``first:last``: ``PT`` row by row, the first of which is that of ``T'PT`` but for ``a``."""
    d = len(a)
    for e in range(first, last):
        P, M = matrices[e], out[e]
        for k in range(d):
            M[0, k] = P[0, k] * a[k] - P[0, 0] * b[k]
        for j in range(1, d):
            x = P[j, 0]
            for k in range(d):
                M[j, k] = (P[j, k] * a[k] - x * b[k]) * a[j] - b[j] * M[0, k]
        for k in range(d):
            M[0, k] *= a[0] - b[0]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def root_each(matrices: FloatArray, first: int, last: int, L: FloatArray, found: BoolArray) -> None:
    """For the matrices ``first:last``; ``L`` (d, d) is to work in."""
    d = len(L)
    for e in range(first, last):
        H, sound = matrices[e], True
        for k in range(d):
            pivot = H[k, k]
            for i in range(k):
                pivot -= L[k, i] * L[k, i]
            if not 0.0 < pivot < np.inf:
                sound = False
                break
            inverse, j = 1.0 / np.sqrt(pivot), k + 1
            while j + 3 < d:  # four rows share what is loaded of row k
                p, q, r, s = 0.0, 0.0, 0.0, 0.0
                for i in range(k):
                    y = L[k, i]
                    p += L[j, i] * y
                    q += L[j + 1, i] * y
                    r += L[j + 2, i] * y
                    s += L[j + 3, i] * y
                L[j, k] = (H[j, k] - p) * inverse
                L[j + 1, k] = (H[j + 1, k] - q) * inverse
                L[j + 2, k] = (H[j + 2, k] - r) * inverse
                L[j + 3, k] = (H[j + 3, k] - s) * inverse
                j += 4
            while j < d:
                p = 0.0
                for i in range(k):
                    p += L[j, i] * L[k, i]
                L[j, k] = (H[j, k] - p) * inverse
                j += 1
        found[e] = sound


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def skew_each(  # noqa: PLR0917
    precision: FloatArray,
    covariance: FloatArray,
    population: FloatArray,
    mean: FloatArray,
    first: int,
    last: int,
    margin: FloatArray,
    variance: FloatArray,
    parts: FloatArray,
    lines: FloatArray,
) -> None:
    """For the entities ``first:last``; ``lines`` (4, d) are to work in.

    With ``A`` what the rows have said, ``n`` their number and ``n c`` its first column, ``n V x`` is
    ``A x - n c (c'x)``.
    """
    d, C, SC, V, W = mean.shape[1], 0, 1, 2, 3
    for e in range(first, last):
        P, S, B, w = precision[e], covariance[e], population[e if len(population) > 1 else 0], mean[e]
        n = P[0, 0] - B[0, 0]
        if not n > _TINY * P[0, 0]:
            continue
        ahead = 0.0
        for j in range(d):
            lines[C, j] = (P[j, 0] - B[j, 0]) / n
            ahead += lines[C, j] * w[j]
        trace, inner = 0.0, 0.0
        for j in range(d):
            total = 0.0
            for k in range(d):
                total += S[j, k] * lines[C, k]
                trace += S[j, k] * (P[j, k] - B[j, k])
            lines[SC, j] = total
            inner += total * lines[C, j]
        for j in range(d):
            one, two = 0.0, 0.0
            for k in range(d):
                one += (P[j, k] - B[j, k]) * w[k]
                two += (P[j, k] - B[j, k]) * lines[SC, k]
            lines[V, j] = 0.25 * (one - n * lines[C, j] * ahead)
            lines[W, j] = two - n * lines[C, j] * inner
        for j in range(d):
            one, two = 0.0, 0.0
            for k in range(d):
                one += S[j, k] * lines[V, k]
                two += S[j, k] * lines[W, k]
            parts[0, e, j], parts[1, e, j], parts[2, e, j] = 0.5 * n * lines[SC, j], one, two
        margin[e], variance[e] = ahead, max(trace / n, 0.0)
