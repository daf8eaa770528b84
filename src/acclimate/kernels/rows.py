"""Passes over sparse rows: margins, gradients, products with a Hessian, and sums by column.

The cells of a row are in the cache between the two halves of a product ``X'(c * (X v))``. Sums over rows are taken
piece by piece, and pieces depend on the cells alone, so that bits are the same however many threads there are.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray, SparseRows
from acclimate.kernels.threads import side_by_side

_REORDERED = {"reassoc", "contract", "nsz"}
"""What sums may be, so that they are of vectors."""

_PIECE = 1_000_000
"""Cells of a piece at least: a millisecond."""

_SHARE = 16
"""Cells of a piece at least for each column, since it has sums of its own of all columns."""

_PIECES = 16
"""At most."""

_LARGE = 50_000
"""What a piece counts as in :mod:`acclimate.kernels.threads`: worth a thread."""

_U = np.uint64
"""Of places in arrays: those that may be negative are looked at each time."""

HELD, COUNT, TOTAL, POWER = range(4)
"""Sums by column: cells with a weight, and their weighted moments of order 0, 1 and 2."""


class Cells(NamedTuple):
    """Rows in CSR form: ``data`` and ``indices`` of all cells, ``indptr`` (n + 1,)."""

    data: FloatArray
    indices: NDArray[np.integer]
    indptr: NDArray[np.integer]

    @staticmethod
    def of(X: SparseRows) -> "Cells":
        """As arrays that may be written to: those that may not are of another type to a compiler."""
        data = np.require(X.data, np.float64, ["C", "W"])
        return Cells(data, *(np.require(part, requirements=["C", "W"]) for part in (X.indices, X.indptr)))


def margins(cells: Cells, vector: FloatArray) -> FloatArray:
    """``X v``, ``(n,)``, of ``vector`` (d,)."""
    out, vector = np.empty(len(cells.indptr) - 1), np.require(vector, np.float64, ["C", "W"])
    bounds = _bounds(cells)
    _for_pieces(bounds, lambda k: fill_margins(cells, vector, int(bounds[k]), int(bounds[k + 1]), out))
    return out


def gathered(cells: Cells, numbers: FloatArray, width: int) -> FloatArray:
    """``X'u``, ``(d,)``, of ``numbers`` (n,)."""
    numbers = np.require(numbers, np.float64, ["C", "W"])
    return _summed(cells, (width,), lambda first, last, out: add_rows(cells, numbers, first, last, out))


def gathered_squares(cells: Cells, numbers: FloatArray, unit: FloatArray) -> FloatArray:
    """``sum_i u_i (x_ij t_j)^2``, ``(d,)``, of ``numbers`` (n,) and ``unit`` (d,)."""
    numbers = np.require(numbers, np.float64, ["C", "W"])
    return _summed(
        cells, (len(unit),), lambda first, last, out: add_squares(cells, numbers, unit, first, last, out)
    )


def curved(cells: Cells, curvature: FloatArray, vector: FloatArray) -> FloatArray:
    """``X'(c * (X v))``, ``(d,)``, of ``curvature`` (n,) and ``vector`` (d,)."""
    curvature, vector = (np.require(array, np.float64, ["C", "W"]) for array in (curvature, vector))
    return _summed(
        cells, (len(vector),), lambda first, last, out: add_products(cells, curvature, vector, first, last, out)
    )


def moments(cells: Cells, weight: FloatArray, width: int) -> FloatArray:
    """:data:`HELD`, :data:`COUNT`, :data:`TOTAL` and :data:`POWER` by column, ``(d, 4)``; ``weight`` (n,)."""
    weight = np.require(weight, np.float64, ["C", "W"])
    return _summed(cells, (width, 4), lambda first, last, out: add_moments(cells, weight, first, last, out))


def spreads(cells: Cells, weight: FloatArray, mean: FloatArray) -> FloatArray:
    """``sum_i s_i (x_ij - mean_j)^2`` over cells, ``(d,)``, of ``weight`` (n,) and ``mean`` (d,)."""
    weight = np.require(weight, np.float64, ["C", "W"])
    return _summed(
        cells, (len(mean),), lambda first, last, out: add_spreads(cells, weight, mean, first, last, out)
    )


def standardised(cells: Cells, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """``(x_ij - c_j) / s_j`` of all cells, in their order; ``centre`` and ``scale`` (d,)."""
    out = np.empty(len(cells.data))
    bounds = _bounds(cells)
    _for_pieces(bounds, lambda k: fill_standardised(cells, centre, scale, int(bounds[k]), int(bounds[k + 1]), out))
    return out


def _summed(cells: Cells, shape: tuple[int, ...], add: Callable[[int, int, FloatArray], None]) -> FloatArray:
    """The sum of what ``add(first, last, out)`` adds up for pieces of the rows."""
    bounds = _bounds(cells, shape[0])
    sums = np.zeros((len(bounds) - 1, *shape))
    _for_pieces(bounds, lambda piece: add(int(bounds[piece]), int(bounds[piece + 1]), sums[piece]))
    return sums[0] if len(sums) == 1 else sums.sum(axis=0)


def _bounds(cells: Cells, width: int = 1) -> IntArray:
    """Where pieces of about as many cells begin among the rows, and where the last one ends."""
    total = int(cells.indptr[-1])
    pieces = max(1, min(_PIECES, total // max(_PIECE, _SHARE * width)))
    bounds = np.searchsorted(cells.indptr, total * np.arange(pieces + 1) // pieces)
    bounds[0], bounds[-1] = 0, len(cells.indptr) - 1
    return bounds


def _for_pieces(bounds: IntArray, work: Callable[[int], None]) -> None:
    """Call ``work`` on each of the pieces, some on each thread."""

    def several(first: int, last: int) -> None:
        for piece in range(first, last):
            work(piece)

    side_by_side(several, _LARGE * np.arange(len(bounds)), least=_LARGE)


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def fill_margins(cells: Cells, vector: FloatArray, first: int, last: int, out: FloatArray) -> None:
    """``out[i] = sum_j x_ij v_j`` of the rows ``first:last``."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        total = 0.0
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            total += data[k] * vector[_U(columns[k])]
        out[i] = total


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def add_rows(cells: Cells, numbers: FloatArray, first: int, last: int, out: FloatArray) -> None:
    """``out[j] += sum_i x_ij u_i`` over the rows ``first:last``."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        number = numbers[i]
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            out[_U(columns[k])] += data[k] * number


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def add_squares(  # noqa: PLR0917 - a compiled loop takes arrays
    cells: Cells, numbers: FloatArray, unit: FloatArray, first: int, last: int, out: FloatArray
) -> None:
    """``out[j] += sum_i u_i (x_ij t_j)^2`` over the rows ``first:last``."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        number = numbers[i]
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            x = data[k] * unit[_U(columns[k])]
            out[_U(columns[k])] += x * x * number


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def add_products(  # noqa: PLR0917
    cells: Cells, curvature: FloatArray, vector: FloatArray, first: int, last: int, out: FloatArray
) -> None:
    """``out[j] += sum_i x_ij c_i sum_k x_ik v_k`` over the rows ``first:last``."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        total = 0.0
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            total += data[k] * vector[_U(columns[k])]
        total *= curvature[i]
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            out[_U(columns[k])] += data[k] * total


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def add_moments(cells: Cells, weight: FloatArray, first: int, last: int, out: FloatArray) -> None:
    """Add the cells of the rows ``first:last`` to ``out`` (d, 4)."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        if weight[i] > 0.0:
            for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
                sums, weighted = out[_U(columns[k])], weight[i] * data[k]
                sums[HELD] += 1.0
                sums[COUNT] += weight[i]
                sums[TOTAL] += weighted
                sums[POWER] += weighted * data[k]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def add_spreads(  # noqa: PLR0917
    cells: Cells, weight: FloatArray, mean: FloatArray, first: int, last: int, out: FloatArray
) -> None:
    """``out[j] += sum_i s_i (x_ij - mean_j)^2`` over the cells of the rows ``first:last``."""
    data, columns, indptr = cells
    for i in range(_U(first), _U(last)):
        for k in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
            away = data[k] - mean[_U(columns[k])]
            out[_U(columns[k])] += weight[i] * away * away


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def fill_standardised(  # noqa: PLR0917
    cells: Cells, centre: FloatArray, scale: FloatArray, first: int, last: int, out: FloatArray
) -> None:
    """``out[k] = (x - c_j) / s_j`` of the cells of the rows ``first:last``."""
    data, columns, indptr = cells
    for k in range(_U(indptr[first]), _U(indptr[last])):
        out[k] = (data[k] - centre[_U(columns[k])]) / scale[_U(columns[k])]
