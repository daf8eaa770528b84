"""What a joint solver does with sparse rows of many entities, each of which has coefficients of its own.

Notation: entity ``e`` has rows ``X_e`` (n_e, d) of curvatures ``W_e``, a prior precision ``P_e`` and the Hessian
``H_e = P_e + X_e'W_e X_e``. Coefficients of all are ``(e, d)``. Rows are in any order, in CSR form; nothing is
filled up, and no matrix is there but those that are asked for.

- Margins and their transpose go by rows. An entity's rows are added up one by one in their order.
- A Gram matrix is summed over pairs of a row's cells where these are few, or else over strips of rows written out.
- With fewer rows than coefficients, and one prior of covariance ``C`` that all have, by the identity of Woodbury::

      H^-1 v = C (v - A'K^-1 A C v)      A = W^(1/2) X      K = I + A C A'

  so that ``K^-1`` (n_e, n_e) is all that is kept.

A matrix that has no Cholesky root in the digits there are is not inverted but named.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IntArray
from acclimate.kernels.threads import side_by_side

_REORDERED = {"reassoc", "contract", "nsz"}
"""What sums may be, so that they are of vectors."""

_STRIP = 128
"""Rows that are written out at a time."""

_LANES = 16
"""They are filled up to a multiple of this by rows of nothing, so that loops over them leave no rest."""

_SWEPT = 8
"""Coefficients that are swept at a time."""

_PAIR = 7.0
"""What the product of a pair of cells costs, in products of rows written out; 4 a column are for the writing."""

_TOGETHER = 1024
"""Entities that are summed over one after another, however many threads there are."""

_SINGULAR = 1e-13
"""Part of a diagonal that is left of it in a Cholesky root, below which its digits are of rounding."""

U = np.uint64
"""Of what counts cells: an index that may be negative takes a look, and that half of a margin's time."""

_LEAST = 400_000
"""Operations of a piece of work at least; a thread starts in .1 ms."""


class Rows(NamedTuple):
    """Cells of rows in CSR form, their columns rising, and whose they are.

    ``cells``, ``columns`` (cells,), ``indptr`` (n + 1,); ``entity`` (n,), -1 for none. Entity ``e`` has the rows
    ``order[bounds[e]:bounds[e + 1]]``.
    """

    cells: FloatArray
    columns: NDArray[np.integer]
    indptr: NDArray[np.integer]
    entity: IntArray
    order: IntArray
    bounds: IntArray


def writable(array: NDArray[Any]) -> NDArray[Any]:
    """The same in the order of C; what cannot be written to is of another type to a compiler, and so is copied."""
    return np.require(array, requirements=["C", "W"])


class Room(NamedTuple):
    """To work on one entity in: ``H``, a strip of its rows transposed, and lines of that or of ``H``."""

    H: FloatArray
    XT: FloatArray
    lines: FloatArray


def _room(size: int, width: int = 0) -> Room:
    """For matrices of some size, and rows of some width that are written out."""
    tiled, wide = -(-size // 4) * 4, -(-size // _LANES) * _LANES
    XT = np.zeros((-(-width // 4) * 4, _STRIP))
    return Room(np.zeros((tiled, wide)), XT, np.zeros((3, max(_STRIP, wide))))


# --- margins ------------------------------------------------------------------------------------------------


def margin(rows: Rows, coefficients: FloatArray, *, squared: bool = False) -> FloatArray:
    """``x . w[entity]`` of each row (n,), or of its squared cells; 0 of rows of none."""
    z, flat = np.empty(len(rows.entity)), writable(coefficients).ravel()

    def piece(first: int, last: int) -> None:
        multiply(rows, flat, coefficients.shape[1], squared, first, last, z)

    side_by_side(piece, rows.indptr, least=_LEAST)
    return z


def pullback(rows: Rows, values: FloatArray, count: int, width: int, *, squared: bool = False) -> FloatArray:
    """The transpose: numbers of the rows (n,) gathered in coefficients ``(count, width)``."""
    gathered = np.zeros(count * width)
    gather(rows, values, width, squared, gathered)
    return gathered.reshape(count, width)


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def multiply(rows: Rows, w: FloatArray, d: int, squared: bool, first: int, last: int, z: FloatArray) -> None:  # noqa: PLR0917
    """Margins of the rows ``first:last``, of coefficients one entity's behind another's."""
    cells, columns, indptr, entity = rows.cells, rows.columns, rows.indptr, rows.entity
    k = U(indptr[first])
    for i in range(U(first), U(last)):
        e, end, total = entity[i], U(indptr[i + U(1)]), 0.0
        if e >= 0:
            begin = U(e) * U(d)
            while k < end:
                x = cells[k]
                total += (x * x if squared else x) * w[begin + U(columns[k])]
                k += U(1)
        k = end
        z[i] = total


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def gather(rows: Rows, values: FloatArray, d: int, squared: bool, gathered: FloatArray) -> None:
    """Their transpose, added to what is there."""
    cells, columns, indptr, entity = rows.cells, rows.columns, rows.indptr, rows.entity
    k = U(0)
    for i in range(U(len(entity))):
        e, end, value = entity[i], U(indptr[i + U(1)]), values[i]
        if e >= 0:
            begin = U(e) * U(d)
            while k < end:
                x = cells[k]
                gathered[begin + U(columns[k])] += (x * x if squared else x) * value
                k += U(1)
        k = end


# --- Hessians -----------------------------------------------------------------------------------------------


def add_grams(rows: Rows, members: IntArray, curvature: FloatArray, H: FloatArray) -> None:
    """Add ``X'diag(curvature)X`` of some entities (m,) to symmetric matrices ``(m, d, d)``."""
    width = H.shape[-1]

    def piece(first: int, last: int) -> None:
        add_gram(rows, members, curvature, first, last, H, _room(width, width))

    side_by_side(piece, _cost(rows, members, width), least=_LEAST)


def invert(H: FloatArray) -> IntArray:
    """Symmetric matrices ``(m, d, d)`` become their inverses; those that are named stay."""
    failed = np.zeros(len(H), np.bool_)

    def piece(first: int, last: int) -> None:
        invert_each(H, first, last, failed, _room(H.shape[-1]))

    side_by_side(piece, H.shape[-1] ** 3 * np.arange(len(H) + 1), least=_LEAST)
    return np.flatnonzero(failed)


def posteriors(
    information: FloatArray, linear: FloatArray, prior: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """``S_e l_e`` of ``S_e = (A_e + P)^-1``, and the sum of these matrices, none of which is kept.

    Args:
        information: ``A_e``, ``(n, d, d)``.
        linear: ``l_e``, ``(n, d)``.
        prior: ``P``, ``(d, d)``.

    Returns:
        Means ``(n, d)``, the sum ``(d, d)``, and which entities are in neither, since they have no inverse.
    """
    n, d = linear.shape
    bounds = np.append(np.arange(0, n, _TOGETHER), n)
    means, sums, failed = np.zeros((n, d)), np.zeros((len(bounds) - 1, d, d)), np.zeros(n, np.bool_)

    def several(first: int, last: int) -> None:
        room = _room(d)
        for p in range(first, last):
            sum_each(information, linear, prior, int(bounds[p]), int(bounds[p + 1]), means, sums[p], failed, room)

    side_by_side(several, d**3 * bounds, least=_LEAST)
    total = sums.sum(axis=0)
    return means, total + np.tril(total, -1).T, np.flatnonzero(failed)


def times(matrices: FloatArray, members: IntArray, vectors: FloatArray, products: FloatArray) -> None:
    """Matrices ``(m, d, d)`` times the vectors of some entities (m,) among all ``(e, d)``, written to theirs."""

    def piece(first: int, last: int) -> None:
        multiply_each(matrices, members, vectors, first, last, products)

    side_by_side(piece, matrices.shape[-1] ** 2 * np.arange(len(members) + 1), least=_LEAST)


def forms(rows: Rows, members: IntArray, matrices: FloatArray, values: FloatArray) -> None:
    """``x'S x`` of the rows of some entities (m,) of matrices ``(m, d, d)``, written to those of all rows (n,)."""

    def piece(first: int, last: int) -> None:
        for_each_form(rows, members, matrices, first, last, values)

    side_by_side(piece, _cost(rows, members, matrices.shape[-1]), least=_LEAST)


def variances(rows: Rows, prior: FloatArray, curvature: FloatArray, width: int, values: FloatArray) -> IntArray:
    """``x'H^-1 x`` of each row (n,), in place; entities that are named are left out.

    ``prior``: ``(e, d, d)`` or ``(e, d)``, or of one entity if all have the same.
    """
    count = len(rows.bounds) - 1
    failed, prior = np.zeros(count, np.bool_), writable(prior[:1] if prior.strides[0] == 0 else prior)

    def piece(first: int, last: int) -> None:
        vary(rows, prior, curvature, first, last, values, failed, _room(width, width))

    side_by_side(piece, _cost(rows, np.arange(count), width), least=_LEAST)
    return np.flatnonzero(failed)


def _cost(rows: Rows, members: IntArray, width: int) -> IntArray:
    """Operations of each entity, summed up from 0 on."""
    each = width**2 * (width + rows.bounds[members + 1] - rows.bounds[members])
    return np.concatenate([[0], np.cumsum(each)])


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def add_gram(  # noqa: PLR0917 - a compiled loop takes arrays
    rows: Rows, members: IntArray, curvature: FloatArray, first: int, last: int, H: FloatArray, room: Room
) -> None:
    """For the members ``first:last``."""
    d, G = H.shape[1], room.H
    for m in range(first, last):
        for j in range(d):
            for k in range(j + 1):
                G[j, k] = H[m, j, k]
        _sum_gram(rows, members[m], curvature, d, room)
        for j in range(d):
            for k in range(j + 1):
                H[m, j, k] = G[j, k]
                H[m, k, j] = G[j, k]


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def invert_each(H: FloatArray, first: int, last: int, failed: BoolArray, room: Room) -> None:
    """For the matrices ``first:last``."""
    d = H.shape[1]
    for m in range(first, last):
        for j in range(d):
            for k in range(j + 1):
                room.H[j, k] = H[m, j, k]
        if not _invert(room, d):
            failed[m] = True
            continue
        for j in range(d):
            for k in range(j + 1):
                H[m, j, k] = -room.H[j, k]
                H[m, k, j] = -room.H[j, k]


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def sum_each(  # noqa: PLR0917
    information: FloatArray,
    linear: FloatArray,
    prior: FloatArray,
    first: int,
    last: int,
    means: FloatArray,
    total: FloatArray,
    failed: BoolArray,
    room: Room,
) -> None:
    """For the entities ``first:last``; ``total`` is of lower triangles."""
    d, H = len(prior), room.H
    for e in range(first, last):
        for j in range(d):
            for k in range(j + 1):
                H[j, k] = information[e, j, k] + prior[j, k]
        if not _invert(room, d):
            failed[e] = True
            continue
        for j in range(d):
            for k in range(j):
                means[e, j] -= H[j, k] * linear[e, k]
                means[e, k] -= H[j, k] * linear[e, j]
                total[j, k] -= H[j, k]
            means[e, j] -= H[j, j] * linear[e, j]
            total[j, j] -= H[j, j]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def multiply_each(  # noqa: PLR0917
    S: FloatArray, members: IntArray, vectors: FloatArray, first: int, last: int, products: FloatArray
) -> None:
    """For the members ``first:last``."""
    d = S.shape[1]
    for m in range(first, last):
        e = members[m]
        for j in range(d):
            total = 0.0
            for k in range(d):
                total += S[m, j, k] * vectors[e, k]
            products[e, j] = total


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def for_each_form(  # noqa: PLR0917
    rows: Rows, members: IntArray, S: FloatArray, first: int, last: int, values: FloatArray
) -> None:
    """For the members ``first:last``."""
    for m in range(first, last):
        for at in range(rows.bounds[members[m]], rows.bounds[members[m] + 1]):
            i = rows.order[at]
            values[i] = _form(rows, i, S[m])


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def vary(  # noqa: PLR0917
    rows: Rows,
    prior: FloatArray,
    curvature: FloatArray,
    first: int,
    last: int,
    values: FloatArray,
    failed: BoolArray,
    room: Room,
) -> None:
    """For the entities ``first:last``."""
    d, H = prior.shape[1], room.H
    for e in range(first, last):
        if rows.bounds[e] == rows.bounds[e + 1]:
            continue
        _load(prior[e if len(prior) > 1 else 0], H, d)
        _sum_gram(rows, e, curvature, d, room)
        if not _invert(room, d):
            failed[e] = True
            continue
        for at in range(rows.bounds[e], rows.bounds[e + 1]):
            i = rows.order[at]
            values[i] = -_form(rows, i, H)


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _load(P: FloatArray, H: FloatArray, d: int) -> None:
    """A precision ``(d, d)``, or its diagonal, as a lower triangle."""
    for j in range(d):
        for k in range(j + 1):
            H[j, k] = P[j, k] if P.ndim == 2 else 0.0
        if P.ndim == 1:
            H[j, j] = P[j]


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _sum_gram(rows: Rows, e: int, curvature: FloatArray, d: int, room: Room) -> None:
    """Add the Gram matrix of one entity's rows to the lower triangle of ``room.H``."""
    cells, columns, indptr, order, H = rows.cells, rows.columns, rows.indptr, rows.order, room.H
    begin, end = rows.bounds[e], rows.bounds[e + 1]
    pairs = 0.0
    for at in range(begin, end):
        size = indptr[order[at] + 1] - indptr[order[at]]
        pairs += 0.5 * size * (size + 1)
    lanes = -(-(end - begin) // _LANES)
    if _PAIR * pairs <= lanes * _LANES * d * (0.5 * d + 4.0):
        for at in range(begin, end):
            i = order[at]
            begin_row, end_row = U(indptr[i]), U(indptr[i + 1])
            for a in range(begin_row, end_row):
                x, line = curvature[i] * cells[a], H[U(columns[a])]
                for b in range(begin_row, a + U(1)):
                    line[U(columns[b])] += x * cells[b]
        return
    XT, lines = room.XT, room.lines
    for strip in range(begin, end, _STRIP):
        n = min(_STRIP, end - strip)
        lanes = -(-n // _LANES)
        for j in range(d):
            for r in range(lanes * _LANES):
                XT[j, r] = 0.0
        for r in range(n):
            i = order[strip + r]
            lines[0, r] = curvature[i]
            for a in range(U(indptr[i]), U(indptr[i + 1])):
                XT[U(columns[a]), U(r)] = cells[a]
        for r in range(n, lanes * _LANES):
            lines[0, r] = 0.0
        _add_strip(XT, lines, H, d, lanes)


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _add_strip(XT: FloatArray, lines: FloatArray, H: FloatArray, d: int, lanes: int) -> None:
    """Add ``X'diag(c)X`` to the lower triangle of ``H``: two columns by four, which share what is loaded."""
    for j in range(0, d, 2):
        for r in range(lanes * _LANES):
            lines[1, r] = lines[0, r] * XT[j, r]
            lines[2, r] = lines[0, r] * XT[j + 1, r]
        for k in range(0, j + 2, 4):
            a, b, c, e, f, g, h, i = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for r in range(lanes * _LANES):
                x, y = lines[1, r], lines[2, r]
                a += x * XT[k, r]
                b += x * XT[k + 1, r]
                c += x * XT[k + 2, r]
                e += x * XT[k + 3, r]
                f += y * XT[k, r]
                g += y * XT[k + 1, r]
                h += y * XT[k + 2, r]
                i += y * XT[k + 3, r]
            H[j, k] += a
            H[j, k + 1] += b
            H[j, k + 2] += c
            H[j, k + 3] += e
            H[j + 1, k] += f
            H[j + 1, k + 1] += g
            H[j + 1, k + 2] += h
            H[j + 1, k + 3] += i


# --- few rows -----------------------------------------------------------------------------------------------


def inner_inverses(
    rows: Rows, members: IntArray, covariance: FloatArray, root: FloatArray
) -> tuple[FloatArray, IntArray, IntArray]:
    """``K^-1`` of some entities, one behind another; where there is none, ``K`` itself.

    Args:
        rows: of all entities.
        members: ``(m,)``.
        covariance: that of the one prior, ``(d, d)``, or its diagonal ``(d,)``.
        root: of the curvature of each row, ``(n,)``.

    Returns:
        The matrices, where each begins, ``(m + 1,)``, and which of the members have none.
    """
    sizes = rows.bounds[members + 1] - rows.bounds[members]
    places = np.concatenate([[0], np.cumsum(sizes**2)])
    K, failed, d = np.empty(int(places[-1])), np.zeros(len(members), np.bool_), len(covariance)

    def piece(first: int, last: int) -> None:
        largest = int(sizes[first:last].max(initial=0))
        invert_inner(rows, members, covariance, root, first, last, places, K, failed, np.empty(d), _room(largest))

    side_by_side(piece, np.concatenate([[0], np.cumsum(sizes * (sizes**2 + d))]), least=_LEAST)
    return K, places, np.flatnonzero(failed)


def solve_inner(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    covariance: FloatArray,
    root: FloatArray,
    inner: tuple[FloatArray, IntArray],
    vectors: FloatArray,
    solved: FloatArray,
) -> None:
    """``H^-1 v`` of some entities (m,), by what :func:`inner_inverses` returns, written to ``(e, d)``."""
    d, longest = len(covariance), int((rows.bounds[members + 1] - rows.bounds[members]).max(initial=0))

    def piece(first: int, last: int) -> None:
        lines = np.empty((2, max(d, longest)))
        solve_each(rows, members, covariance, root, *inner, vectors, first, last, solved, lines)

    side_by_side(piece, (covariance.size * np.arange(len(members) + 1)) + inner[1], least=_LEAST)


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def invert_inner(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    covariance: FloatArray,
    root: FloatArray,
    first: int,
    last: int,
    places: IntArray,
    inner: FloatArray,
    failed: BoolArray,
    moved: FloatArray,
    room: Room,
) -> None:
    """For the members ``first:last``; ``moved`` (d,) is for ``C x`` of a row."""
    cells, columns, indptr, order, K = rows.cells, rows.columns, rows.indptr, rows.order, room.H
    for m in range(first, last):
        begin, end = int(rows.bounds[members[m]]), int(rows.bounds[members[m] + 1])
        n = end - begin
        for a in range(n):
            i = order[begin + a]
            _move(rows, i, covariance, moved)
            for b in range(a + 1):
                k, total = order[begin + b], 0.0
                for at in range(indptr[k], indptr[k + 1]):
                    total += cells[at] * moved[columns[at]]
                K[a, b] = root[i] * root[k] * total
            K[a, a] += 1.0
        _mirror(K, n, 1.0, inner, places[m])
        if _invert(room, n):
            _mirror(K, n, -1.0, inner, places[m])
        else:
            failed[m] = True


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _mirror(K: FloatArray, n: int, sign: float, inner: FloatArray, place: int) -> None:
    """A matrix from its lower triangle, times 1 or -1, from some place on."""
    for a in range(n):
        for b in range(a + 1):
            inner[place + a * n + b] = sign * K[a, b]
            inner[place + b * n + a] = sign * K[a, b]


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def solve_each(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    covariance: FloatArray,
    root: FloatArray,
    inner: FloatArray,
    places: IntArray,
    vectors: FloatArray,
    first: int,
    last: int,
    solved: FloatArray,
    lines: FloatArray,
) -> None:
    """For the members ``first:last``; ``lines`` (2, d or the most rows) are to work in."""
    cells, columns, indptr, order, d = rows.cells, rows.columns, rows.indptr, rows.order, len(covariance)
    for m in range(first, last):
        e, begin = members[m], rows.bounds[members[m]]
        n = rows.bounds[e + 1] - begin
        if n > 0:  # lines[1] = A C v, for which lines[0] is C v
            _multiply_covariance(covariance, vectors[e], lines[0])
            for a in range(n):
                i, total = order[begin + a], 0.0
                for at in range(indptr[i], indptr[i + 1]):
                    total += cells[at] * lines[0, columns[at]]
                lines[1, a] = root[i] * total
        for j in range(d):
            lines[0, j] = vectors[e, j]
        for a in range(n):  # v - A'K^-1 A C v
            i, total = order[begin + a], 0.0
            for b in range(n):
                total += inner[places[m] + a * n + b] * lines[1, b]
            for at in range(indptr[i], indptr[i + 1]):
                lines[0, columns[at]] -= root[i] * total * cells[at]
        _multiply_covariance(covariance, lines[0], solved[e])


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _move(rows: Rows, i: int, C: FloatArray, moved: FloatArray) -> None:
    """``C x`` of a row, where ``C`` may be a diagonal."""
    cells, columns, d = rows.cells, rows.columns, len(C)
    for j in range(d):
        moved[j] = 0.0
    for k in range(rows.indptr[i], rows.indptr[i + 1]):
        column = columns[k]
        if C.ndim == 1:
            moved[column] += C[column] * cells[k]
        else:
            for j in range(d):
                moved[j] += C[column, j] * cells[k]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _multiply_covariance(C: FloatArray, v: FloatArray, product: FloatArray) -> None:
    """``C v``, where ``C`` may be a diagonal."""
    d = len(C)
    for j in range(d):
        if C.ndim == 1:
            product[j] = C[j] * v[j]
        else:
            total = 0.0
            for k in range(d):
                total += C[j, k] * v[k]
            product[j] = total


# --- one row, one matrix ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _form(rows: Rows, i: int, S: FloatArray) -> float:
    """``x'S x`` of a row, by the lower triangle of ``S``."""
    cells, columns, begin, total = rows.cells, rows.columns, U(rows.indptr[i]), 0.0
    for a in range(begin, U(rows.indptr[i + 1])):
        j, others = U(columns[a]), 0.0
        for b in range(begin, a):
            others += cells[b] * S[j, U(columns[b])]
        total += cells[a] * (2.0 * others + cells[a] * S[j, j])
    return total


@njit(cache=True, nogil=True, _nrt=False, fastmath={"contract"})  # type: ignore[misc]
def _invert(room: Room, d: int) -> bool:
    """The lower triangle of ``room.H`` becomes that of ``-H^-1``; whether all pivots were positive.

    A coefficient after another is swept (Goodnight, 1979, "A tutorial on the SWEEP operator"): with the pivot
    ``p = H[k, k]``, which is that of a Cholesky root, ``H - h h'/p`` is left of all others for its column ``h``,
    ``h/p`` of that and ``-1/p`` of itself. No column is shorter than a vector, and nothing is divided but pivots.
    """
    H, line, size = room.H, room.lines[0], room.lines[1]
    for k in range(d):
        size[k] = H[k, k]
    for k in range(d):
        pivot = H[k, k]
        if not _SINGULAR * size[k] < pivot < np.inf:
            return False
        for j in range(k):
            line[j] = H[k, j]
        for j in range(k, d):
            line[j] = H[j, k]
        inverse = 1.0 / pivot
        for i in range(d):
            x = line[i] * inverse
            for j in range((i + _SWEPT) // _SWEPT * _SWEPT):  # what lies above the diagonal is never read
                H[i, j] -= x * line[j]
            if i > k:
                H[i, k] = x
        for j in range(k):
            H[k, j] = line[j] * inverse
        H[k, k] = -inverse
    return True
