"""Newton's method on many small regressions, one entity after another, each within the cache.

Notation: an entity has rows ``X`` (n, d) of weight ``s``, a prior of mean ``m`` and precision ``P``, and minimises
``sum_i s_i l(z_i) + (w - m)'P(w - m)/2`` with ``z = X w + o``. Its Hessian is ``H = P + X'WX`` with
``W = diag(s l'')``.

- Entities of many rows are solved in the space of their coefficients: a step is a Gram matrix and a Cholesky root.
- Entities of few rows are solved in the space of their rows. Every iterate is ``w = m + P^-1 X'a``, so that with
  ``G = X P^-1 X'``, ``z = X m + o + G a``, what is left ``r = s l'(z) + a`` and ``K = I + W^(1/2) G W^(1/2)``::

      da = -r + W^(1/2) K^-1 W^(1/2) G r        dz = G da        decrement^2 = -r'dz

  by the identity of Woodbury; one root of ``P`` does for all steps.
- For a single row all of these are numbers.

**Damping.** With ``c = max |dz|``, which bounds how fast a curvature changes along a step (``|l'''| <= l''``, Sun
and Tran-Dinh, 2019), the objective ``f(t)`` along it has ``f''(t) >= f''(0) e^(-ct)``, so that::

    f(1) <= f(0) + f'(1) - decrement^2 (1 - (1 + c) e^-c) / c^2

A whole step descends if the slope ``f'(1)`` is less than what follows, and always for ``c <= 1/2``. Any other is
halved until ``f'`` is not above 0: up to there a convex ``f`` falls. No loss is ever computed. Where less than a
tenth is left, the next step is that of a bound on the loss, if there is one, which descends whole
(:func:`acclimate.models.likelihood.bounding_curvature`).

After a whole step the gradient is ``int_0^1 (H(t) - H(0)) dw dt``, so that the decrement that is left is at most
``decrement ((e^c - 1)/c - 1) e^(c/2)``: the last root, which would show it, is not taken.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, Form, IntArray, Posterior
from acclimate.kernels.threads import side_by_side

_REORDERED = {"reassoc", "contract", "nsz"}
"""What sums may be, so that they are of vectors."""

_STRIP = 256
"""Rows that are worked on at a time: 16 coefficients of them are 32 KB."""

_LANES = 16
"""Rows are filled up to a multiple of this by rows of nothing, so that loops over them leave no rest."""

_AHEAD = 32
"""Entities whose states are looked at together before they are learned, for the cache to have them."""

_SAFE_CHANGE = 0.5
"""Change of a margin up to which Newton's whole step descends."""

_CUT_SHORT = 0.1
"""As :data:`acclimate.models.likelihood.CUT_SHORT`."""

_CAP = 100.0
"""Margin from which a Poisson loss is a quadratic, as in :mod:`acclimate.models.likelihood`."""

_LARGEST_RATE = float(np.exp(_CAP))

_SHORTEST = 2.0**-60
"""Length of a step below which it is not halved."""

_SINGULAR = 1e-13
"""Part of a diagonal that is left of it in a Cholesky root, below which its digits are of rounding."""

_MOST_INFORMATION = 1e8
"""Of a row, in units of the prior's, beyond which the differences of the rows' space have too few digits."""

_LOSSES: dict[str, int] = {"logistic": 0, "squared": 1, "poisson": 2}
_SQUARED, _POISSON = 1, 2
_FORMS: dict[str, int] = {"full": 0, "diagonal": 1, "marginal": 2}
_MARGINAL = 2

# Room is in few arrays, and those are looked up once an entity: numba counts the references to an array each time.
_W, _BEFORE, _STEP, _AWAY, _GRADIENT = range(5)
_Y, _OFFSET, _WEIGHT, _MARGIN, _SLOPE, _CURVATURE, _EXPONENTIAL, _POWER = range(8)
_DUAL, _REST, _DUAL_STEP, _CHANGE, _ROOT_CURVATURE = range(5)


class Rows(NamedTuple):
    """The rows of entities: those of the ``e``-th are ``order[indptr[e]:indptr[e + 1]]``.

    ``X`` (rows, d) in the order of C; ``y``, ``offset``, ``weight`` (rows,); all of 64 bits.
    """

    X: FloatArray
    y: FloatArray
    offset: FloatArray
    weight: FloatArray
    order: IntArray
    indptr: IntArray


class Room(NamedTuple):
    """Of one entity: vectors of its coefficients (5, d), ``P``, ``H`` and its root, (d, d).

    Then its rows, a strip at a time, filled up to whole lanes: numbers of each (8, n); transposed (d, n); a pair
    of columns times the curvatures (2, n). Margins of all rows, and their changes, (n,). Last, in the space of few
    rows: ``X P^-(1/2)`` (n, d), vectors (5, n), ``G``, ``K`` and its root (n, n).
    """

    vectors: FloatArray
    prior: FloatArray
    H: FloatArray
    L: FloatArray
    lines: FloatArray
    XT: FloatArray
    pair: FloatArray
    z: FloatArray
    change: FloatArray
    B: FloatArray
    duals: FloatArray
    G: FloatArray
    K: FloatArray
    KL: FloatArray


def solve_entities(
    rows: Rows, prior: Posterior, *, loss: str, kept: Form, tolerance: float, max_steps: int
) -> tuple[IntArray, FloatArray]:
    """Priors of entities, which are arrays of their own, become posteriors, in place.

    Args:
        rows: those of each entity; in all at least one.
        prior: mean ``(n, d)``, precision ``(n, d, d)`` or ``(n, d)``, in the order of C.
        loss: ``logistic``, ``squared`` or ``poisson``.
        kept: what is kept of a Hessian; ``full`` with matrices.
        tolerance: Newton decrement at which to stop, in posterior standard deviations.
        max_steps: Newton steps at most.

    Returns:
        Newton steps and the decrement that is left at most, ``(n,)``. It is not a number of an entity that stays
        as it was, since a matrix of its was not positive definite in the digits there are.
    """
    n, d = prior.mean.shape
    steps, decrement, place = np.zeros(n, np.int64), np.empty(n), np.arange(n)

    def piece(first: int, last: int) -> None:
        most = int(np.diff(rows.indptr[first : last + 1]).max())
        state = prior.mean, prior.precision, place, first, last
        solve(rows, *state, _LOSSES[loss], _FORMS[kept], tolerance, max_steps, steps, decrement, room_for(d, most))

    side_by_side(piece, rows.indptr + d * np.arange(n + 1))
    return steps, decrement


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def solve(  # noqa: PLR0917 - a compiled loop takes arrays
    rows: Rows,
    mean: FloatArray,
    precision: FloatArray,
    place: IntArray,
    first: int,
    last: int,
    loss: int,
    kept: int,
    tolerance: float,
    max_steps: int,
    steps: IntArray,
    decrement: FloatArray,
    room: Room,
) -> None:
    """Priors become posteriors, in place and in order, for the entities ``first:last`` of ``rows``.

    Args:
        rows: what entities learn from.
        mean: ``(n, d)``.
        precision: ``(n, d, d)``, or diagonals ``(n, d)``.
        place: where the state of each entity of ``rows`` is among the ``n``. One that comes again learns again.
        first: the first of them.
        last: the one behind the last.
        loss: 0 logistic, 1 squared, 2 Poisson.
        kept: of the Hessian all (0), its diagonal (1), or ``1/diag(H^-1)`` (2); the first goes with matrices.
        tolerance: decrement to stop at.
        max_steps: steps at most.
        steps: Newton steps taken, by entity; filled in.
        decrement: the Newton decrement that is left at most, by entity; filled in. Not a number of an entity that
            is left as it was, since it had a matrix that is not positive definite in the digits there are.
        room: to work in, by :func:`room_for` for the largest of the entities.
    """
    d, vectors = mean.shape[1], room.vectors
    for e in range(first, last):
        if precision.ndim == 2 and (e - first) % _AHEAD == 0:
            vectors[_STEP, 0] = _look_ahead(mean, precision, place[e : min(e + _AHEAD, last)])
        members, state = rows.order[rows.indptr[e] : rows.indptr[e + 1]], place[e]
        m, P = mean[state], precision[state]
        if len(members) == 1:
            steps[e], decrement[e] = _learn_row(rows, members[0], m, P, room, loss, kept, tolerance, max_steps)
            continue
        few = 2 * len(members) <= d and _enter_rows_space(rows, members, P, room)
        if few:
            steps[e], decrement[e] = _solve_in_rows(rows, members, m, P, room, loss, tolerance, max_steps)
            few = decrement[e] < np.inf
        if not few:
            steps[e], decrement[e] = _solve_in_coefficients(rows, members, m, P, room, loss, tolerance, max_steps)
        if decrement[e] < np.inf and _keep_hessian(rows, members, P, room, few, kept):
            for j in range(d):
                m[j] = vectors[_W, j]
        else:
            decrement[e] = np.nan


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _look_ahead(mean: FloatArray, precision: FloatArray, states: IntArray) -> float:
    """A sum over diagonal states, which brings them into the cache: the waits for memory are side by side."""
    seen = 0.0
    for state in states:
        for j in range(mean.shape[1]):
            seen += mean[state, j] + precision[state, j]
    return seen


def room_for(d: int, most: int) -> Room:
    """For ``d`` coefficients, and ``most`` rows of one entity."""
    tiled, wide, few = -(-d // 4) * 4, -(-d // _LANES) * _LANES, max(d // 2, 1)
    strip = -(-min(most, _STRIP) // _LANES) * _LANES
    return Room(
        vectors=np.zeros((5, wide)),
        prior=np.zeros((tiled, wide)),
        H=np.zeros((tiled, wide)),
        L=np.zeros((tiled, wide)),
        lines=np.zeros((8, max(strip, few))),
        XT=np.zeros((tiled, strip)),
        pair=np.zeros((2, strip)),
        z=np.zeros(-(-most // _LANES) * _LANES),
        change=np.zeros(-(-most // _LANES) * _LANES),
        B=np.zeros((few, wide)),
        duals=np.zeros((5, few)),
        G=np.zeros((few, few)),
        K=np.zeros((few, few)),
        KL=np.zeros((few, few)),
    )


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _lanes(n: int) -> int:
    return (n + _LANES - 1) // _LANES


# --- in the space of the coefficients -----------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _solve_in_coefficients(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    m: FloatArray,
    P: FloatArray,
    room: Room,
    loss: int,
    tolerance: float,
    max_steps: int,
) -> tuple[int, float]:
    """Steps and the last decrement, which is infinite where a matrix has no root; ``room`` has ``w`` and ``H``."""
    d, vectors, H, L, bounded, taken = len(m), room.vectors, room.H, room.L, False, 0
    prior, lines, XT, pair, z = room.prior, room.lines, room.XT, room.pair, room.z
    _copy_prior(P, prior, d)
    for j in range(d):
        vectors[_W, j] = m[j]
    if len(members) <= _STRIP:
        _load(rows, members, lines, XT, d)
    _differentiate(rows, members, m, prior, vectors, H, lines, XT, pair, z, room.change, loss, bounded)
    while True:
        for j in range(d):
            vectors[_STEP, j] = -vectors[_GRADIENT, j]
        if not _root(H, L, vectors, _STEP, d):
            return taken, np.inf
        decrement = np.sqrt(_dot(vectors, _STEP, _STEP, d))
        if taken == max_steps or not (decrement > tolerance or bounded):
            return taken, decrement
        _backward(L, vectors, _STEP, d)
        for j in range(d):
            vectors[_BEFORE, j] = vectors[_W, j]
            vectors[_W, j] += vectors[_STEP, j]
        taken, was_bounded, bounded = taken + 1, bounded, False
        change = _differentiate(
            rows, members, m, prior, vectors, H, lines, XT, pair, z, room.change, loss, bounded
        )
        if was_bounded:
            continue
        slope = _dot(vectors, _GRADIENT, _STEP, d)
        if loss == _SQUARED or change <= _SAFE_CHANGE or _descends(slope, decrement, change):
            left = 0.0 if loss == _SQUARED else _left(decrement, change)
            if left <= tolerance:
                return taken, left
        else:
            length = _shortened(rows, members, m, prior, vectors, z, room.change, loss)
            for j in range(d):
                vectors[_W, j] = vectors[_BEFORE, j] + length * vectors[_STEP, j]
            bounded = length < _CUT_SHORT and loss != _POISSON and taken < max_steps
            _differentiate(rows, members, m, prior, vectors, H, lines, XT, pair, z, room.change, loss, bounded)


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _descends(slope: float, decrement: float, change: float) -> bool:
    """Whether a whole step does, by its slope at the end; see above."""
    return slope <= 0.9 * decrement**2 * (1.0 - (1.0 + change) * np.exp(-change)) / change**2


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _left(decrement: float, change: float) -> float:
    """What the decrement is at most after a whole step; see above."""
    grown = 0.5 * change if change < 1e-4 else np.expm1(change) / change - 1.0
    return decrement * grown * np.exp(0.5 * change)


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _load(rows: Rows, members: IntArray, lines: FloatArray, XT: FloatArray, d: int) -> None:
    """A strip of rows; those that fill it up weigh nothing."""
    n, X, y, offset, weight = len(members), rows.X, rows.y, rows.offset, rows.weight
    for i in range(n):
        row = members[i]
        lines[_Y, i], lines[_OFFSET, i], lines[_WEIGHT, i] = y[row], offset[row], weight[row]
        for j in range(d):
            XT[j, i] = X[row, j]
    for i in range(n, _lanes(n) * _LANES):
        lines[_Y, i], lines[_OFFSET, i], lines[_WEIGHT, i] = 0.0, 0.0, 0.0
        for j in range(d):
            XT[j, i] = 0.0


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _differentiate(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    m: FloatArray,
    prior: FloatArray,
    vectors: FloatArray,
    H: FloatArray,
    lines: FloatArray,
    XT: FloatArray,
    pair: FloatArray,
    z: FloatArray,
    change: FloatArray,
    loss: int,
    bounded: bool,
) -> float:
    """Gradient and Hessian at ``w``, and the largest change of a margin from where this was last done.

    With ``bounded``, the curvature is that of a bound on the loss.
    """
    d, n, largest = len(m), len(members), 0.0
    _start(prior, m, vectors, H, d)
    for first in range(0, n, _STRIP):
        if n > _STRIP:
            _load(rows, members[first : first + _STRIP], lines, XT, d)
        lanes = _lanes(min(n - first, _STRIP))
        _predict(XT, vectors, lines, d, lanes)
        largest = max(largest, _replace(lines, z, change, first, lanes))
        _derive(lines, lanes * _LANES, loss, bounded)
        _add_rows(XT, lines, pair, vectors, H, d, lanes)
    return largest


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _copy_prior(P: FloatArray, prior: FloatArray, d: int) -> None:
    """A precision as a matrix, whose rows are filled up to whole lanes by zeros."""
    for j in range(d):
        for k in range(d):
            prior[j, k] = 0.0 if P.ndim == 1 else P[j, k]
        if P.ndim == 1:
            prior[j, j] = P[j]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _start(prior: FloatArray, m: FloatArray, vectors: FloatArray, H: FloatArray, d: int) -> None:
    """``P (w - m)`` and ``P``, to begin with."""
    lanes = _lanes(d)
    for j in range(d):
        vectors[_AWAY, j] = vectors[_W, j] - m[j]
    for j in range(d):
        total = 0.0
        for k in range(lanes * _LANES):
            total += prior[j, k] * vectors[_AWAY, k]
        vectors[_GRADIENT, j] = total
        for k in range(lanes * _LANES):
            H[j, k] = prior[j, k]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _predict(XT: FloatArray, vectors: FloatArray, lines: FloatArray, d: int, lanes: int) -> None:
    """``X w + o``; two coefficients at a time share what is stored."""
    for i in range(lanes * _LANES):
        lines[_MARGIN, i] = lines[_OFFSET, i]
    for j in range(0, d - d % 2, 2):
        one, two = vectors[_W, j], vectors[_W, j + 1]
        for i in range(lanes * _LANES):
            lines[_MARGIN, i] += one * XT[j, i] + two * XT[j + 1, i]
    if d % 2:
        one = vectors[_W, d - 1]
        for i in range(lanes * _LANES):
            lines[_MARGIN, i] += one * XT[d - 1, i]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _replace(lines: FloatArray, z: FloatArray, change: FloatArray, first: int, lanes: int) -> float:
    """Margins take the place of those before, and by how much they differ; and by how much at most."""
    largest = 0.0
    for i in range(lanes * _LANES):
        change[first + i] = lines[_MARGIN, i] - z[first + i]
    for i in range(lanes * _LANES):
        largest = max(largest, abs(change[first + i]))
        z[first + i] = lines[_MARGIN, i]
    return largest


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _shortened(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    m: FloatArray,
    prior: FloatArray,
    vectors: FloatArray,
    z: FloatArray,
    change: FloatArray,
    loss: int,
) -> float:
    """The longest of 1, 1/2, ... of a step up to where the objective falls; ``z`` are the margins at its end."""
    d, length, at_start, rise = len(m), 1.0, 0.0, 0.0
    for j in range(d):
        pull = 0.0
        for k in range(d):
            pull += prior[j, k] * vectors[_STEP, k]
        at_start += pull * (vectors[_BEFORE, j] - m[j])
        rise += pull * vectors[_STEP, j]
    while length > _SHORTEST:
        slope = at_start + length * rise
        for i in range(len(members)):
            row = members[i]
            y, margin = float(rows.y[row]), z[i] + (length - 1.0) * change[i]
            slope += rows.weight[row] * _derivatives(loss, False, y, margin)[0] * change[i]
        if not slope > 0.0:
            break
        length *= 0.5
    return length


# --- in the space of the rows -------------------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _enter_rows_space(rows: Rows, members: IntArray, P: FloatArray, room: Room) -> bool:
    """``room.B`` is ``X P^-(1/2)`` and ``room.G`` is ``X P^-1 X'``; whether there is that root."""
    d, n, X, L, B, G = rows.X.shape[1], len(members), rows.X, room.L, room.B, room.G
    if P.ndim == 1:
        for j in range(d):
            if not P[j] > 0.0:
                return False
            L[0, j] = 1.0 / np.sqrt(P[j])
    elif not _root(P, L, room.vectors, _STEP, d):
        return False
    for i in range(n):
        row = members[i]
        if P.ndim == 1:
            for j in range(d):
                B[i, j] = X[row, j] * L[0, j]
        else:
            for j in range(d):
                B[i, j] = X[row, j]
            _forward(L, B, i, d)
    for i in range(n):
        for k in range(i + 1):
            G[i, k] = _dot(B, i, k, d)
            G[k, i] = G[i, k]
    return True


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _solve_in_rows(  # noqa: PLR0917
    rows: Rows,
    members: IntArray,
    m: FloatArray,
    P: FloatArray,
    room: Room,
    loss: int,
    tolerance: float,
    max_steps: int,
) -> tuple[int, float]:
    """As in the space of the coefficients; ``room`` has ``w``, and the curvatures of the rows.

    The decrement is infinite too where rows say so much that too few digits are left of what the prior says.
    """
    d, n, X, bounded, taken = len(m), len(members), rows.X, False, 0
    lines, duals, G, K, KL = room.lines, room.duals, room.G, room.K, room.KL
    for i in range(n):
        row, z = members[i], 0.0
        for j in range(d):
            z += X[row, j] * m[j]
        duals[_DUAL, i] = 0.0
        lines[_MARGIN, i] = z + rows.offset[row]
        lines[_Y, i], lines[_WEIGHT, i] = rows.y[row], rows.weight[row]
    _derive(lines, n, loss, bounded)
    while True:
        # 1. The step, and how far it goes.
        for i in range(n):
            duals[_REST, i] = lines[_SLOPE, i] + duals[_DUAL, i]
            duals[_ROOT_CURVATURE, i] = np.sqrt(lines[_CURVATURE, i])
        if not _identity_plus(G, duals, K, n) < _MOST_INFORMATION:
            return taken, np.inf
        for i in range(n):
            total = 0.0
            for k in range(n):
                total += G[i, k] * duals[_REST, k]
            duals[_DUAL_STEP, i] = duals[_ROOT_CURVATURE, i] * total
        if not _root(K, KL, duals, _DUAL_STEP, n):
            return taken, np.inf
        _backward(KL, duals, _DUAL_STEP, n)
        for i in range(n):
            duals[_DUAL_STEP, i] = duals[_ROOT_CURVATURE, i] * duals[_DUAL_STEP, i] - duals[_REST, i]
        change = 0.0
        for i in range(n):
            total = 0.0
            for k in range(n):
                total += G[i, k] * duals[_DUAL_STEP, k]
            duals[_CHANGE, i] = total
            change = max(change, abs(total))
        decrement = np.sqrt(max(-_dot(duals, _REST, _CHANGE, n), 0.0))
        if taken == max_steps or not (decrement > tolerance or bounded):
            break

        # 2. Take it, and look whether it descended.
        _move(duals, lines, 1.0, n)
        taken, was_bounded, bounded = taken + 1, bounded, False
        _derive(lines, n, loss, bounded)
        if was_bounded:
            continue
        slope = _dot(duals, _DUAL, _CHANGE, n)
        for i in range(n):
            slope += lines[_SLOPE, i] * duals[_CHANGE, i]
        if loss == _SQUARED or change <= _SAFE_CHANGE or _descends(slope, decrement, change):
            left = 0.0 if loss == _SQUARED else _left(decrement, change)
            if left <= tolerance:
                decrement = left
                break
        else:
            length = 1.0
            while slope > 0.0 and length > _SHORTEST:
                _move(duals, lines, -0.5 * length, n)
                length *= 0.5
                slope = _dot(duals, _DUAL, _CHANGE, n)
                for i in range(n):
                    moved = _derivatives(loss, False, lines[_Y, i], lines[_MARGIN, i])[0]
                    slope += lines[_WEIGHT, i] * moved * duals[_CHANGE, i]
            bounded = length < _CUT_SHORT and loss != _POISSON and taken < max_steps
            _derive(lines, n, loss, bounded)
    _leave_rows_space(m, P, room, n)
    return taken, decrement


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _identity_plus(G: FloatArray, duals: FloatArray, K: FloatArray, n: int) -> float:
    """``K = I + W^(1/2) G W^(1/2)``, the lower triangle; the largest of it."""
    largest = 0.0
    for i in range(n):
        for k in range(i + 1):
            K[i, k] = duals[_ROOT_CURVATURE, i] * G[i, k] * duals[_ROOT_CURVATURE, k]
        K[i, i] += 1.0
        largest = max(largest, K[i, i])
    return largest


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _move(duals: FloatArray, lines: FloatArray, length: float, n: int) -> None:
    for i in range(n):
        duals[_DUAL, i] += length * duals[_DUAL_STEP, i]
        lines[_MARGIN, i] += length * duals[_CHANGE, i]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _leave_rows_space(m: FloatArray, P: FloatArray, room: Room, n: int) -> None:
    """``w = m + P^-1 X'a``."""
    d, vectors, duals, B, L = len(m), room.vectors, room.duals, room.B, room.L
    for j in range(d):
        vectors[_STEP, j] = 0.0
    for i in range(n):
        for j in range(d):
            vectors[_STEP, j] += B[i, j] * duals[_DUAL, i]
    if P.ndim == 1:
        for j in range(d):
            vectors[_STEP, j] *= L[0, j]
    else:
        _backward(L, vectors, _STEP, d)
    for j in range(d):
        vectors[_W, j] = m[j] + vectors[_STEP, j]


# --- one row ------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _learn_row(  # noqa: PLR0917
    rows: Rows,
    row: int,
    m: FloatArray,
    P: FloatArray,
    room: Room,
    loss: int,
    kept: int,
    tolerance: float,
    max_steps: int,
) -> tuple[int, float]:
    """A row of few, of which all is numbers: ``G = v``, ``da = -r/(1 + W v)``. ``m`` and ``P`` are moved in place.

    Returns steps and the last decrement, not a number where nothing was done.
    """
    d, X, vectors, taken, bounded = len(m), rows.X, room.vectors, 0, False
    y, weight = rows.y[row], rows.weight[row]

    # 1. v = x'P^-1 x by P^-1 x of a diagonal, or by P^-(1/2) x, and the margin at the prior's mean.
    v, start, moved = 0.0, rows.offset[row], 0.0
    for j in range(d):
        if P.ndim == 1 and not P[j] > 0.0:
            return taken, np.nan
        vectors[_STEP, j] = X[row, j] / P[j] if P.ndim == 1 else X[row, j]
    if P.ndim == 2 and not _root(P, room.L, vectors, _STEP, d):
        return taken, np.nan
    for j in range(d):
        v += vectors[_STEP, j] * (X[row, j] if P.ndim == 1 else vectors[_STEP, j])
        start += X[row, j] * m[j]
    if not v < np.inf:
        return taken, np.nan

    # 2. Newton's method on z - z0 = v a: a itself, of what is left of sums near 1/2, would lose its digits to v.
    z, per_change = start, 1.0 / v if v > 1e-290 else 0.0
    slope, curvature = _derivatives(loss, bounded, y, z)
    while True:
        rest, curvature = weight * slope + moved * per_change, weight * curvature
        change = -v * rest / (1.0 + curvature * v)
        decrement = np.sqrt(max(-rest * change, 0.0))
        if taken == max_steps or not (decrement > tolerance or bounded):
            break
        moved, taken, was_bounded, bounded = moved + change, taken + 1, bounded, False
        z = start + moved
        slope, curvature = _derivatives(loss, bounded, y, z)
        if was_bounded or loss == _SQUARED or abs(change) <= _SAFE_CHANGE:
            continue
        length, rise = 1.0, (weight * slope + moved * per_change) * change
        if _descends(rise, decrement, abs(change)):
            continue
        while rise > 0.0 and length > _SHORTEST:
            length *= 0.5
            moved -= length * change
            z = start + moved
            rise = (weight * _derivatives(loss, False, y, z)[0] + moved * per_change) * change
        bounded = length < _CUT_SHORT and loss != _POISSON and taken < max_steps
        slope, curvature = _derivatives(loss, bounded, y, z)
    if not decrement < np.inf:
        return taken, np.nan

    # 3. w = m + a P^-1 x, and what is kept of P + W x x'.
    if P.ndim == 2:
        _backward(room.L, vectors, _STEP, d)
    for j in range(d):
        m[j] += moved * per_change * vectors[_STEP, j]
    if kept == _MARGINAL and P.ndim == 1:
        _keep_marginal_of_row(P, X[row], vectors, curvature, v)
        return taken, decrement
    for j in range(d):
        curved = curvature * X[row, j]
        if P.ndim == 2:
            for k in range(j + 1):
                P[j, k] += curved * X[row, k]
                P[k, j] = P[j, k]
        else:
            P[j] += curved * X[row, j]
    return taken, decrement


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _keep_marginal_of_row(P: FloatArray, x: FloatArray, vectors: FloatArray, curvature: float, v: float) -> None:
    """``P_j (1 + W v)/(1 + W (v - x_j^2/P_j))``, where what is left of ``v`` is summed, never a difference."""
    behind, before = 0.0, 0.0
    for j in range(len(P) - 1, -1, -1):
        vectors[_BEFORE, j] = behind
        behind += x[j] * vectors[_STEP, j]
    for j in range(len(P)):
        others = before + vectors[_BEFORE, j]
        before += x[j] * vectors[_STEP, j]
        P[j] *= (1.0 + curvature * v) / (1.0 + curvature * others)


# --- what is kept -------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _keep_hessian(rows: Rows, members: IntArray, P: FloatArray, room: Room, few: bool, kept: int) -> bool:  # noqa: PLR0917
    """A prior's precision becomes that of the posterior; whether all went well."""
    d, n, X, H, lines = P.shape[0], len(members), rows.X, room.H, room.lines
    if kept == _MARGINAL:
        return _keep_marginal_of_rows(P, room, n) if few else _keep_marginal(P, room)
    if not few:
        for j in range(d):
            if P.ndim == 1:
                P[j] = H[j, j]
            else:
                for k in range(j + 1):
                    P[j, k] = H[j, k]
                    P[k, j] = H[j, k]
        return True
    for i in range(n):
        row = members[i]
        for j in range(d):
            curved = lines[_CURVATURE, i] * X[row, j]
            if P.ndim == 1:
                P[j] += curved * X[row, j]
            else:
                for k in range(j + 1):
                    P[j, k] += curved * X[row, k]
                    P[k, j] = P[j, k]
    return True


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _keep_marginal(P: FloatArray, room: Room) -> bool:
    """``1/diag(H^-1)`` of ``H = L L'``: the squared columns of ``L^-1``, which are solved for one by one."""
    d, L, vectors = P.shape[0], room.L, room.vectors
    if not _root(room.H, L, vectors, _STEP, d):
        return False
    for j in range(d):
        total = 0.0
        for k in range(j, d):
            x = 1.0 if k == j else 0.0
            for i in range(j, k):
                x -= L[k, i] * vectors[_STEP, i]
            vectors[_STEP, k] = x * L[k, k]
            total += vectors[_STEP, k] ** 2
        if P.ndim == 1:
            P[j] = 1.0 / total
    return True


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _keep_marginal_of_rows(P: FloatArray, room: Room, n: int) -> bool:
    """The same of few rows: ``diag(H^-1) = (1 - diag(C'K^-1 C))/P`` with ``C = W^(1/2) X P^-(1/2)``."""
    d, B, duals, K, KL = P.shape[0], room.B, room.duals, room.K, room.KL
    for i in range(n):
        duals[_ROOT_CURVATURE, i] = np.sqrt(room.lines[_CURVATURE, i])
    _identity_plus(room.G, duals, K, n)
    if not _root(K, KL, duals, _DUAL_STEP, n):
        return False
    for i in range(n):  # the rows of K^-(1/2) C, one after another
        for j in range(d):
            B[i, j] *= duals[_ROOT_CURVATURE, i]
        for k in range(i):
            for j in range(d):
                B[i, j] -= KL[i, k] * B[k, j]
        for j in range(d):
            B[i, j] *= KL[i, i]
    for j in range(d):
        left = 1.0
        for i in range(n):
            left -= B[i, j] * B[i, j]
        if not left > _SINGULAR:
            return False
        if P.ndim == 1:
            P[j] /= left
    return True


# --- losses -------------------------------------------------------------------------------------------------


def derivatives(loss: str, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of each row's loss at its margin ``z``, all ``(n,)``."""
    y, z = (np.require(array, np.float64, ["C", "W"]) for array in (y, z))
    slope, curvature = np.empty_like(z), np.empty_like(z)

    def piece(first: int, last: int) -> None:
        derive_rows(y, z, _LOSSES[loss], (first, last), (slope, curvature), np.ones((8, _STRIP)))

    side_by_side(piece, np.arange(len(z) + 1))
    return slope, curvature


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def derive_rows(  # noqa: PLR0917
    y: FloatArray,
    z: FloatArray,
    loss: int,
    some: tuple[int, int],
    out: tuple[FloatArray, FloatArray],
    lines: FloatArray,
) -> None:
    """Slope and curvature of ``some`` rows, first to last; ``lines`` (8, strip) is room with weights of 1."""
    slope, curvature = out
    for start in range(some[0], some[1], lines.shape[1]):
        n = min(lines.shape[1], some[1] - start)
        for i in range(n):
            lines[_Y, i] = y[start + i]
            lines[_MARGIN, i] = z[start + i]
        _derive(lines, n, loss, False)
        for i in range(n):
            slope[start + i] = lines[_SLOPE, i]
            curvature[start + i] = lines[_CURVATURE, i]


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _derivatives(loss: int, bounded: bool, y: float, z: float) -> tuple[float, float]:
    """Slope and curvature of one row, but for its weight."""
    if loss == _SQUARED:
        return z - y, 1.0
    if loss == _POISSON:
        rate = np.exp(min(z, _CAP))
        return rate * (1.0 + max(z - _CAP, 0.0)) - y, rate
    e = np.exp(-abs(z))
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    curvature = np.tanh(0.5 * max(abs(z), 1e-6)) / (2.0 * max(abs(z), 1e-6)) if bounded else smaller * larger
    return ((1.0 - y) - smaller if z >= 0.0 else smaller - y), curvature


@njit(cache=True, nogil=True, _nrt=False)  # type: ignore[misc]
def _derive(lines: FloatArray, n: int, loss: int, bounded: bool) -> None:
    """Weighted slope and curvature of ``n`` rows at their margins."""
    if loss == _SQUARED:
        for i in range(n):
            lines[_SLOPE, i] = lines[_WEIGHT, i] * (lines[_MARGIN, i] - lines[_Y, i])
            lines[_CURVATURE, i] = lines[_WEIGHT, i]
        return
    _exponentiate(lines, lines.view(np.int64), n)
    if loss == _POISSON:
        for i in range(n):
            beyond = max(lines[_MARGIN, i] - _CAP, 0.0)
            rate = 1.0 / lines[_EXPONENTIAL, i] if lines[_MARGIN, i] > 0.0 else lines[_EXPONENTIAL, i]
            rate = _LARGEST_RATE if beyond > 0.0 else rate
            lines[_SLOPE, i] = lines[_WEIGHT, i] * (rate * (1.0 + beyond) - lines[_Y, i])
            lines[_CURVATURE, i] = lines[_WEIGHT, i] * rate
        return
    _derive_logistic(lines, n)
    if bounded:
        for i in range(n):
            size = max(abs(lines[_MARGIN, i]), 1e-6)
            lines[_CURVATURE, i] = lines[_WEIGHT, i] * np.tanh(0.5 * size) / (2.0 * size)


@njit(cache=True, nogil=True, _nrt=False, fastmath={"contract"})  # type: ignore[misc]
def _derive_logistic(lines: FloatArray, n: int) -> None:
    """By ``e = exp(-|z|)``: the smaller of ``p`` and ``1 - p`` is ``e / (1 + e)``, never a difference from 1."""
    for i in range(n):
        larger = 1.0 / (1.0 + lines[_EXPONENTIAL, i])
        smaller = lines[_EXPONENTIAL, i] * larger
        slope = (1.0 - lines[_Y, i]) - smaller if lines[_MARGIN, i] >= 0.0 else smaller - lines[_Y, i]
        lines[_SLOPE, i] = lines[_WEIGHT, i] * slope
        lines[_CURVATURE, i] = lines[_WEIGHT, i] * (smaller * larger)


@njit(cache=True, nogil=True, _nrt=False, fastmath={"contract"})  # type: ignore[misc]
def _exponentiate(lines: FloatArray, bits: NDArray[np.int64], n: int) -> None:
    """``e^-|z|`` to two units in the last place, for ``|z|`` up to 708, and as there beyond.

    ``e^v = 2^k e^r`` with ``|r| <= log(2)/2`` and Taylor's series. Adding 1.5 2^52 rounds to the integer ``k`` and
    leaves it in the lowest bits of a number, from where it is moved to those of an exponent: nothing branches, so
    that the loops are of vectors. Here sums must not be reordered.
    """
    for i in range(n):
        v = max(-abs(lines[_MARGIN, i]), -708.0)
        shifted = v * 1.4426950408889634 + 6755399441055744.0
        k = shifted - 6755399441055744.0
        r = (v - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
        s = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0)
        s = s * r + 1.0 / 39916800.0
        s = s * r + 1.0 / 3628800.0
        s = s * r + 1.0 / 362880.0
        s = s * r + 1.0 / 40320.0
        s = s * r + 1.0 / 5040.0
        s = s * r + 1.0 / 720.0
        s = s * r + 1.0 / 120.0
        s = s * r + 1.0 / 24.0
        s = s * r + 1.0 / 6.0
        s = s * r + 0.5
        s = s * r + 1.0
        lines[_EXPONENTIAL, i] = s * r + 1.0
        lines[_POWER, i] = shifted
    for i in range(n):
        bits[_POWER, i] = (bits[_POWER, i] << 52) + (1023 << 52)
    for i in range(n):
        lines[_EXPONENTIAL, i] *= lines[_POWER, i]


# --- linear algebra -----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _dot(A: FloatArray, i: int, k: int, n: int) -> float:
    """Of two rows of a matrix."""
    total = 0.0
    for j in range(n):
        total += A[i, j] * A[k, j]
    return total


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _add_rows(  # noqa: PLR0917
    XT: FloatArray, lines: FloatArray, pair: FloatArray, vectors: FloatArray, H: FloatArray, d: int, lanes: int
) -> None:
    """Add ``X'slope`` to the gradient and ``X'diag(curvature)X`` to the lower triangle of ``H``.

    Two columns by four, which share what is loaded.
    """
    for j in range(0, d, 2):
        one, two = 0.0, 0.0
        for r in range(lanes * _LANES):
            one += lines[_SLOPE, r] * XT[j, r]
            two += lines[_SLOPE, r] * XT[j + 1, r]
        vectors[_GRADIENT, j] += one
        vectors[_GRADIENT, j + 1] += two
        for r in range(lanes * _LANES):
            pair[0, r] = lines[_CURVATURE, r] * XT[j, r]
            pair[1, r] = lines[_CURVATURE, r] * XT[j + 1, r]
        for k in range(0, j + 2, 4):
            a, b, c, e, f, g, h, i = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for r in range(lanes * _LANES):
                x, y = pair[0, r], pair[1, r]
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


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _root(H: FloatArray, L: FloatArray, x: FloatArray, row: int, d: int) -> bool:
    """``L`` with ``L L' = H``, of lower triangles, its diagonal inverted; whether there is one.

    A row of ``x`` becomes ``L^-1 x`` along the way.
    """
    for k in range(d):
        pivot, rest = H[k, k], x[row, k]
        for i in range(k):
            pivot -= L[k, i] * L[k, i]
            rest -= L[k, i] * x[row, i]
        if not _SINGULAR * H[k, k] < pivot < np.inf:
            return False
        inverse = 1.0 / np.sqrt(pivot)
        L[k, k], x[row, k] = inverse, rest * inverse
        j = k + 1
        while j + 3 < d:  # four rows share what is loaded of row k
            a, b, c, e = 0.0, 0.0, 0.0, 0.0
            for i in range(k):
                y = L[k, i]
                a += L[j, i] * y
                b += L[j + 1, i] * y
                c += L[j + 2, i] * y
                e += L[j + 3, i] * y
            L[j, k] = (H[j, k] - a) * inverse
            L[j + 1, k] = (H[j + 1, k] - b) * inverse
            L[j + 2, k] = (H[j + 2, k] - c) * inverse
            L[j + 3, k] = (H[j + 3, k] - e) * inverse
            j += 4
        while j < d:
            a = 0.0
            for i in range(k):
                a += L[j, i] * L[k, i]
            L[j, k] = (H[j, k] - a) * inverse
            j += 1
    return True


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _forward(L: FloatArray, x: FloatArray, row: int, d: int) -> None:
    """``L^-1`` times a row of ``x``, in place."""
    for j in range(d):
        total = x[row, j]
        for i in range(j):
            total -= L[j, i] * x[row, i]
        x[row, j] = total * L[j, j]


@njit(cache=True, nogil=True, _nrt=False, fastmath=_REORDERED)  # type: ignore[misc]
def _backward(L: FloatArray, x: FloatArray, row: int, d: int) -> None:
    """``L'^-1`` times a row of ``x``, in place."""
    for j in range(d - 1, -1, -1):
        x[row, j] *= L[j, j]
        for i in range(j):
            x[row, i] -= L[j, i] * x[row, j]
