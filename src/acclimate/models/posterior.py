"""The sequential Bayesian step for one Gaussian block, and for many entities at once.

Ouyang et al., arXiv 2108.13299: the loss of the past is replaced by its quadratic approximation, so that an
update needs the last posterior and the new rows alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from acclimate.arrays import FloatArray, Form, Full, IntArray, Posterior, unwarned
from acclimate.errors import ConfigError, RowError, nearest
from acclimate.models.blocks import Design
from acclimate.models.gaussian import MATRIX_AT_MOST, forget
from acclimate.models.grouping import Grouping
from acclimate.models.joint import Block, Solution, solve_joint
from acclimate.models.likelihood import CUT_SHORT, Line, Loss, bounding_curvature, has_bound, loss_derivatives
from acclimate.models.limits import LARGEST, LARGEST_COUNT, LARGEST_FEATURE

Kept: TypeAlias = Literal["diagonal", "marginal"]

DENSE_WIDTH = 64
"""Coefficients up to which diagonal posteriors of many entities are solved by whole Hessians."""


_CELLS = 8
"""Cells for each column from which most columns are expected to have one."""


@dataclass(frozen=True)
class UpdateInfo:
    """How an update went; scalars for one block, ``(n,)`` for ``n`` entities.

    ``steps``: Newton steps taken; ``decrement``: the last Newton decrement, in posterior standard deviations
    left to go; ``converged``: whether that is within the tolerance.
    """

    steps: NDArray[np.int64]
    decrement: FloatArray
    converged: NDArray[np.bool_]


@unwarned
def update_posterior(
    posterior: Posterior,
    X: "ArrayLike | sparse.csr_array[Any]",
    y: ArrayLike,
    *,
    offset: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    forgetting: float = 1.0,
    base: Posterior | None = None,
    loss: Loss = "logistic",
    diagonal: Kept = "diagonal",
    tolerance: float = 1e-9,
    max_steps: int = 50,
) -> tuple[Posterior, UpdateInfo]:
    """Learn new rows of one block; the past enters through ``posterior`` alone.

    Minimises ``sum_i s_i loss(y_i, x_i'w + o_i) + (w - m0)'P0(w - m0)/2`` with the prior ``P0, m0`` of
    :func:`acclimate.models.gaussian.forget`, then adds the rows' curvature at ``w`` to ``P0``.

    Args:
        posterior: mean ``(d,)``, precision ``(d, d)`` or ``(d,)``; the result has the same form.
        X: rows ``(n, d)``, dense or sparse; with no rows at all the posterior is returned as it was.
        y: labels ``(n,)``, 0 or 1 (any number with squared loss, whole ones from 0 on with Poisson loss).
        offset: known part of the margin, ``(n,)``.
        weight: row weights ``(n,)``; a row of weight 2 counts as the row twice.
        forgetting: weight of the past in [0, 1].
        base: what takes the place of what is forgotten; needed where ``forgetting < 1``.
        loss: ``logistic``, ``poisson``, or ``squared`` of noise of variance 1 (else divide the weights by it).
        diagonal: of a diagonal posterior, keep ``diag(H)`` (``diagonal``: SIMPLE variance ``1/diag(H)``) or
            ``1/diag(H^-1)`` (``marginal``: FULL variance).
        tolerance: Newton decrement at which to stop, in posterior standard deviations.
        max_steps: Newton steps at most.

    Returns:
        The new posterior and how it went. Not converging is a result, not an error.

    Raises:
        ConfigError: shapes do not fit, or ``base`` is missing.
        RowError: a label, offset, weight or feature is not finite, or a weight is negative.
    """
    if posterior.mean.ndim != 1:
        raise ConfigError(f"one block has a mean (d,), not {posterior.mean.shape}", hint="use update_posteriors")
    _check_base(base, len(posterior.mean))
    rows = _Rows.checked(X, y, offset, weight, d=len(posterior.mean), loss=loss)
    if len(rows.y) == 0:
        return posterior, UpdateInfo(np.array(0), np.array(0.0), np.array(True))
    prior = forget(posterior, base, forgetting)
    cells = rows.X if isinstance(rows.X, sparse.csr_array) else _csr(rows.X)
    search = _Search(loss, _form(posterior, diagonal), tolerance, max_steps)
    columns = None if posterior.is_full else _touched(cells)
    if columns is None:
        after, solution = _solved(prior, replace(rows, X=cells), search)
    else:
        # Coefficients of a diagonal prior that no row touches stay as they are, and take no part in the others'.
        touched = Posterior(prior.mean[columns], prior.precision[columns])
        few, solution = _solved(touched, replace(rows, X=_narrowed(cells, columns)), search)
        mean, precision = prior.mean.copy(), prior.precision.copy()
        mean[columns], precision[columns] = few.mean, few.precision
        after = Posterior(mean, precision)
    # Of a prior that is none, what was found may be a saddle.
    converged = np.array(solution.converged) & after.P.positive()
    return after, UpdateInfo(np.array(solution.steps), np.array(solution.decrement), converged)


def _solved(prior: Posterior, rows: "_Rows", search: "_Search") -> tuple[Posterior, Solution]:
    """One block by Newton's method; ``rows.X`` is sparse."""
    design = Design.of(rows.X, None, 1, weight=rows.weight, centre=prior.is_full)
    solution = solve_joint(
        [Block(design, prior.at(None), search.form)],
        rows.y,
        rows.offset,
        rows.weight,
        loss=search.loss,
        tolerance=search.tolerance,
        max_steps=search.max_steps,
    )
    return solution.posterior(0).at(0), solution


def _touched(X: "sparse.csr_array[Any]") -> IntArray | None:
    """Which columns have a cell, if those are few; ``None`` otherwise."""
    width = X.shape[1]
    if X.nnz > _CELLS * width:
        return None
    columns = np.flatnonzero(np.bincount(X.indices, minlength=width))
    return columns if 2 * len(columns) <= width else None


def _narrowed(X: "sparse.csr_array[Any]", columns: IntArray) -> "sparse.csr_array[Any]":
    """The rows over these columns, which are all that have a cell."""
    place = np.empty(X.shape[1], X.indices.dtype)
    place[columns] = np.arange(len(columns))
    return sparse.csr_array((X.data, place[X.indices], X.indptr), shape=(X.shape[0], len(columns)))


@unwarned
def update_posteriors(
    posteriors: Posterior,
    X: ArrayLike,
    y: ArrayLike,
    indptr: ArrayLike,
    *,
    offset: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    forgetting: float | FloatArray = 1.0,
    base: Posterior | None = None,
    loss: Loss = "logistic",
    diagonal: Kept = "diagonal",
    tolerance: float = 1e-9,
    max_steps: int = 50,
) -> tuple[Posterior, UpdateInfo]:
    """Learn new rows of many independent entities, as :func:`update_posterior` would one by one.

    Each is solved within the cache, by :mod:`acclimate.kernels.newton`.

    Args:
        posteriors: mean ``(n, d)``, precision ``(n, d, d)`` or ``(n, d)``.
        X: dense rows of all entities, ``(rows, d)``; entity ``e`` owns ``X[indptr[e]:indptr[e+1]]``.
        y: labels ``(rows,)``.
        indptr: ``(n+1,)``, from 0 to the number of rows; an entity without rows stays exactly as it was.
        offset: ``(rows,)``.
        weight: ``(rows,)``.
        forgetting: weight of the past, a number or ``(n,)``.
        base: shared by all entities, mean ``(d,)``.
        loss: as for one block.
        diagonal: as for one block.
        tolerance: as for one block.
        max_steps: as for one block.

    Returns:
        The new posteriors and how each entity went.

    Raises:
        ConfigError: shapes do not fit, or ``base`` is missing.
        RowError: a label, offset, weight or feature is not finite, or a weight is negative.
    """
    if posteriors.mean.ndim != 2:
        raise ConfigError(f"entities have a mean (n, d), not {posteriors.mean.shape}", hint="use update_posterior")
    count, d = posteriors.mean.shape
    _check_base(base, d)
    if sparse.issparse(X):
        raise ConfigError("the rows of many entities are dense", hint="give X.toarray()")
    rows = _Rows.checked(X, y, offset, weight, d=d, loss=loss)
    bounds = _checked_bounds(indptr, count, len(rows.y))
    keep = np.asarray(forgetting, np.float64)
    if keep.shape not in ((), (count,)):
        raise ConfigError(f"forgetting {keep.shape} does not go with {count} entities")
    keep = np.broadcast_to(keep, (count,))
    form = _form(posteriors, diagonal)
    solver = _solved_dense if form != "diagonal" or d <= DENSE_WIDTH else _solved_diagonal
    grouping = Grouping(np.arange(len(rows.y)), bounds)
    search = _Search(loss, form, tolerance, max_steps)

    def prior(members: IntArray) -> Posterior:
        return forget(posteriors.at(members), base, keep[members])

    return solver(posteriors, prior, rows, grouping, search)


@dataclass(frozen=True)
class _Search:
    """What is minimised, what is kept of the Hessian, and when to stop."""

    loss: Loss
    form: Form
    tolerance: float
    max_steps: int


_PriorOf: TypeAlias = Callable[[IntArray], Posterior]


def _solved_dense(
    posteriors: Posterior, prior: _PriorOf, rows: "_Rows", grouping: Grouping, search: _Search
) -> tuple[Posterior, UpdateInfo]:
    """Each entity by its whole Hessian, in compiled loops; where that has no root, by what NumPy can do."""
    from acclimate.kernels.newton import Rows, solve_entities

    count, d = posteriors.mean.shape
    touched = np.flatnonzero(grouping.sizes)
    steps, decrement = np.zeros(count, np.int64), np.zeros(count)
    if not len(touched):
        return posteriors, UpdateInfo(steps, decrement, decrement <= search.tolerance)
    after = prior(touched)
    after = Posterior(np.ascontiguousarray(after.mean), np.ascontiguousarray(after.precision))
    indptr = np.concatenate([[0], np.cumsum(grouping.sizes[touched])])
    # Arrays that cannot be written to are of another type to a compiler, which would start anew.
    columns = (
        np.require(column, requirements=["C", "W"]) for column in (rows.X, rows.y, rows.offset, rows.weight)
    )
    compiled = Rows(*columns, order=grouping.order, indptr=indptr)
    steps[touched], decrement[touched] = solve_entities(
        compiled,
        after,
        loss=search.loss,
        kept=search.form,
        tolerance=search.tolerance,
        max_steps=search.max_steps,
    )
    if len(touched) == count:
        mean, precision = after.mean, after.precision
    else:
        mean, precision = posteriors.mean.copy(), posteriors.precision.copy()
        mean[touched], precision[touched] = after.mean, after.precision
    for members, taken in grouping.of_same_size(np.flatnonzero(np.isnan(decrement)), d):
        w, hessian, info = _newton(prior(members), rows.at(taken), search)
        mean[members], precision[members] = w, hessian.kept(search.form).array
        steps[members], decrement[members] = info.steps, info.decrement
    return Posterior(mean, precision), UpdateInfo(steps, decrement, decrement <= search.tolerance)


def _solved_diagonal(
    posteriors: Posterior, prior: _PriorOf, rows: "_Rows", grouping: Grouping, search: _Search
) -> tuple[Posterior, UpdateInfo]:
    """Entities too wide for whole Hessians, as the blocks of one joint problem solved by conjugate gradients."""
    touched = np.flatnonzero(grouping.sizes)
    mean, precision = posteriors.mean.copy(), posteriors.precision.copy()
    steps, decrement = np.zeros(len(mean), np.int64), np.zeros(len(mean))
    if len(touched):
        entity = np.repeat(np.arange(len(touched)), grouping.sizes[touched])
        design = Design.of(_csr(rows.X), entity, len(touched), weight=rows.weight, centre=False)
        solution = solve_joint(
            [Block(design, prior(touched), search.form)],
            rows.y,
            rows.offset,
            rows.weight,
            loss=search.loss,
            tolerance=search.tolerance,
            max_steps=search.max_steps,
        )
        after = solution.posterior(0)
        mean[touched], precision[touched] = after.mean, after.precision
        steps[touched], decrement[touched] = solution.steps, solution.decrements[0]
    return Posterior(mean, precision), UpdateInfo(steps, decrement, decrement <= search.tolerance)


def _form(posterior: Posterior, diagonal: Kept) -> Form:
    """What the result keeps: the form of the posterior that is updated.

    Raises:
        ConfigError: there is no such ``diagonal``, or it would take a matrix too large.
    """
    if diagonal not in get_args(Kept):
        raise ConfigError(f"no diagonal '{diagonal}'", hint=nearest(diagonal, get_args(Kept)))
    width = posterior.mean.shape[-1]
    if diagonal == "marginal" and not posterior.is_full and width > MATRIX_AT_MOST:
        raise ConfigError(
            f"marginal precisions of {width:,} coefficients need a matrix of {8e-9 * width**2:,.0f} GB",
            hint="keep the diagonal",
        )
    return "full" if posterior.is_full else diagonal


@dataclass(frozen=True)
class _Rows:
    """``X`` (n, d), the rest (n,); after :meth:`at`, a leading axis of entities in front."""

    X: Any
    y: FloatArray
    offset: FloatArray
    weight: FloatArray

    @staticmethod
    def checked(
        X: Any, y: ArrayLike, offset: ArrayLike | None, weight: ArrayLike | None, *, d: int, loss: Loss
    ) -> "_Rows":
        if loss not in get_args(Loss):
            raise ConfigError(f"no loss '{loss}'", hint=nearest(loss, get_args(Loss)))
        labels = np.asarray(y, np.float64)
        design = _csr(X) if sparse.issparse(X) else np.asarray(X, np.float64)
        if labels.ndim != 1 or design.shape != (len(labels), d):
            raise ConfigError(f"X {design.shape} and y {labels.shape} do not go with {d} coefficients")
        known = np.zeros(len(labels)) if offset is None else np.asarray(offset, np.float64)
        times = np.ones(len(labels)) if weight is None else np.asarray(weight, np.float64)
        for name, column in (("offset", known), ("weight", times)):
            if column.shape != labels.shape:
                raise ConfigError(f"{name} {column.shape} does not go with y {labels.shape}")
        _require((times >= 0.0) & np.isfinite(times), "weight is negative or not finite")
        cells = design.data if isinstance(design, sparse.csr_array) else design
        # Extremes are quick and need no room; which rows are at fault is asked only if there are any.
        if not max(cells.max(initial=0.0), -cells.min(initial=0.0)) <= LARGEST_FEATURE:
            size = abs(design).max(axis=1).toarray() if isinstance(design, sparse.csr_array) else np.abs(design)
            _require_size("feature", size, LARGEST_FEATURE)
        _require_size("offset", np.abs(known), LARGEST)
        _require_size("weight", times, LARGEST)
        _require(*_allowed(labels, loss))
        return _Rows(design, labels, known, times)

    def at(self, rows: IntArray) -> "_Rows":
        """Some rows of each of some entities, ``(m, r)``."""
        return _Rows(self.X[rows], self.y[rows], self.offset[rows], self.weight[rows])


def _allowed(y: FloatArray, loss: Loss) -> tuple[NDArray[np.bool_], str]:
    """Which labels a loss allows, and what the others are."""
    if loss == "squared":
        return np.isfinite(y), "label is not finite"
    if loss == "poisson":
        return (y >= 0.0) & (y <= LARGEST_COUNT) & (y == np.floor(y)), "label is no count (0, 1, 2, ... to 2^53)"
    return (y == 0.0) | (y == 1.0), "label is outside {0, 1}"


def _csr(X: Any) -> "sparse.csr_array[Any]":
    """The rows with one cell a place, which the scaling counts on; the caller's stay as they are."""
    if isinstance(X, np.ndarray) and 0 < np.count_nonzero(X) == X.size:  # what SciPy would find, place by place
        dense: FloatArray = X
        n, d = dense.shape
        index = np.int32 if dense.size <= np.iinfo(np.int32).max else np.int64
        places = np.tile(np.arange(d, dtype=index), n), np.arange(0, dense.size + 1, d, dtype=index)
        return sparse.csr_array((dense.ravel(), *places), shape=(n, d))
    rows: Any = sparse.csr_array(X, dtype=np.float64)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def _check_base(base: Posterior | None, d: int) -> None:
    if base is not None and base.mean.shape != (d,):
        raise ConfigError(f"a base of mean {base.mean.shape} does not go with {d} coefficients")


def _require(allowed: NDArray[np.bool_], what: str) -> None:
    if not allowed.all():
        rows = np.unique(np.argwhere(~allowed)[:, 0])
        raise RowError(f"{what} in {len(rows)} of {len(allowed)} rows, first in rows {rows[:5].tolist()}")


def _require_size(column: str, size: FloatArray, largest: float) -> None:
    within = size <= largest
    if not within.all():
        _require(np.isfinite(size), f"{column} is not finite")
        _require(within, f"{column} is beyond {largest:g}")


def _checked_bounds(indptr: ArrayLike, count: int, rows: int) -> IntArray:
    bounds = np.asarray(indptr, np.int64)
    if bounds.shape != (count + 1,) or bounds[0] != 0 or bounds[-1] != rows or np.any(np.diff(bounds) < 0):
        raise ConfigError(f"indptr must rise from 0 to {rows} in {count + 1} steps, one per entity and one more")
    return bounds


def _newton(prior: Posterior, rows: _Rows, search: _Search) -> tuple[FloatArray, Full, UpdateInfo]:
    """Newton's method for ``m`` entities side by side: prior (m, d), rows (m, r).

    Returns the means ``(m, d)`` and the Hessians there.
    """
    P0 = prior.P.full()
    w, z = prior.mean, np.matvec(rows.X, prior.mean) + rows.offset
    steps, length = np.zeros(len(w), np.int64), np.ones(len(w))
    while True:
        slope, curvature = loss_derivatives(search.loss, rows.y, z)
        bounded = (
            (length < CUT_SHORT) & (steps < search.max_steps) & has_bound(search.loss)
        )  # as in joint solutions
        if bounded.any():
            curvature[bounded] = bounding_curvature(search.loss, z[bounded])
        gradient = np.vecmat(rows.weight * slope, rows.X) + P0.times(w - prior.mean)
        weighted = rows.X * (rows.weight * curvature)[..., None]
        H = Full(P0.array + np.swapaxes(weighted, -1, -2) @ rows.X)
        direction = H.descent(gradient)
        decrement = np.sqrt(np.abs(np.vecdot(gradient, direction)))
        moving = ((decrement > search.tolerance) | bounded) & (steps < search.max_steps)
        if not moving.any():
            return w, H, UpdateInfo(steps, decrement, decrement <= search.tolerance)
        step = np.where(moving[:, None], direction, 0.0)
        change = np.matvec(rows.X, step)
        pull = P0.times(step)
        line = Line(
            search.loss, rows.y, rows.weight, z, change, np.vecdot(pull, w - prior.mean), np.vecdot(pull, step)
        )
        length = np.where(bounded, 1.0, line.backtrack(decrement))
        w, z = w + length[:, None] * step, z + length[:, None] * change
        steps += moving
