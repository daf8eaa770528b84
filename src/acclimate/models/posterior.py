"""The sequential Bayesian step for one Gaussian block, and for many entities at once.

Ouyang et al., arXiv 2108.13299: the loss of the past is replaced by its quadratic approximation, so that an
update needs the last posterior and the new rows alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from acclimate.artifacts import FloatArray, IntArray, Posterior
from acclimate.errors import ConfigError, RowError, nearest
from acclimate.models.gaussian import Diagonal, embedded, forget, reduced
from acclimate.models.joint import Block, solve_joint
from acclimate.models.likelihood import Line, Loss, loss_derivatives

_CHUNK_CELLS = 1_000_000
"""Cells of the padded design, or of the Hessians, worked on at once: 8 MB, small enough to stay near the cache."""


@dataclass(frozen=True)
class UpdateInfo:
    """How an update went; scalars for one block, ``(n,)`` for ``n`` entities.

    ``steps``: Newton steps taken; ``decrement``: the last Newton decrement, in posterior standard deviations
    left to go; ``converged``: whether that is within the tolerance.
    """

    steps: NDArray[np.int64]
    decrement: FloatArray
    converged: NDArray[np.bool_]


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
    diagonal: Diagonal = "diagonal",
    tolerance: float = 1e-9,
    max_steps: int = 50,
) -> tuple[Posterior, UpdateInfo]:
    """Learn new rows of one block; the past enters through ``posterior`` alone.

    Minimises ``sum_i s_i loss(y_i, x_i'w + o_i) + (w - m0)'P0(w - m0)/2`` with the prior ``P0, m0`` of
    :func:`acclimate.models.gaussian.forget`, then adds the rows' curvature at ``w`` to ``P0``.

    Args:
        posterior: mean ``(d,)``, precision ``(d, d)`` or ``(d,)``; the result has the same form.
        X: rows ``(n, d)``, dense or sparse; with no rows at all the posterior is returned as it was.
        y: labels ``(n,)``, 0 or 1 (any number with squared loss).
        offset: known part of the margin, ``(n,)``.
        weight: row weights ``(n,)``; a row of weight 2 counts as the row twice.
        forgetting: weight of the past in [0, 1].
        base: what takes the place of what is forgotten; needed where ``forgetting < 1``.
        loss: ``logistic`` or ``squared``.
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
    one = Posterior(prior.mean[None], prior.precision[None])
    block = Block(_csr(rows.X), np.zeros(len(rows.y), np.int64), one, diagonal)
    found = solve_joint(
        [block], rows.y, rows.offset, rows.weight, loss=loss, tolerance=tolerance, max_steps=max_steps
    )
    after = found.posteriors[0]
    info = UpdateInfo(np.array(found.steps), np.array(found.decrement), np.array(found.converged))
    return Posterior(after.mean[0], after.precision[0]), info


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
    diagonal: Diagonal = "diagonal",
    tolerance: float = 1e-9,
    max_steps: int = 50,
) -> tuple[Posterior, UpdateInfo]:
    """Learn new rows of many independent entities, as :func:`update_posterior` would one by one.

    Entities of similar size are padded to the same number of rows and solved side by side.

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
    mean, precision = posteriors.mean.copy(), posteriors.precision.copy()
    steps, decrement = np.zeros(count, np.int64), np.zeros(count)
    for members in _buckets(np.diff(bounds), d):
        prior = forget(Posterior(mean[members], precision[members]), base, keep[members])
        after, info = _newton(prior, rows.padded(bounds, members), loss, tolerance, max_steps)
        mean[members] = after.mean
        precision[members] = after.precision if posteriors.is_full else reduced(after.precision, diagonal)
        steps[members], decrement[members] = info.steps, info.decrement
    return Posterior(mean, precision), UpdateInfo(steps, decrement, decrement <= tolerance)


@dataclass(frozen=True)
class _Rows:
    """``X`` (n, d), the rest (n,); after :meth:`padded`, a leading axis of entities in front."""

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
        finite = np.isfinite(design @ np.ones(d) if isinstance(design, sparse.csr_array) else design)
        _require(finite, "feature is not finite")
        _require(np.isfinite(known), "offset is not finite")
        _require(np.isfinite(times) & (times >= 0.0), "weight is negative or not finite")
        allowed = np.isin(labels, (0.0, 1.0)) if loss == "logistic" else np.isfinite(labels)
        _require(allowed, "label is outside {0, 1}" if loss == "logistic" else "label is not finite")
        return _Rows(design, labels, known, times)

    def padded(self, bounds: IntArray, members: IntArray) -> "_Rows":
        """The rows of some entities ``(m, r, ...)``, each filled up to the longest with rows of weight 0."""
        starts, sizes = bounds[members], bounds[members + 1] - bounds[members]
        position = np.arange(sizes.max())
        real = position < sizes[:, None]
        take = starts[:, None] + np.where(real, position, 0)
        return _Rows(self.X[take], self.y[take], self.offset[take], np.where(real, self.weight[take], 0.0))


def _csr(X: Any) -> "sparse.csr_array[Any]":
    """The rows with one cell a place, which the scaling counts on; the caller's stay as they are."""
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


def _checked_bounds(indptr: ArrayLike, count: int, rows: int) -> IntArray:
    bounds = np.asarray(indptr, np.int64)
    if bounds.shape != (count + 1,) or bounds[0] != 0 or bounds[-1] != rows or np.any(np.diff(bounds) < 0):
        raise ConfigError(f"indptr must rise from 0 to {rows} in {count + 1} steps, one per entity and one more")
    return bounds


def _buckets(sizes: IntArray, d: int) -> Iterator[IntArray]:
    """Entities with rows, smallest first, in groups whose padded rows are at most twice the real ones."""
    order = np.argsort(sizes, kind="stable")
    order = order[np.searchsorted(sizes[order], 1) :]
    ordered = sizes[order]
    first = 0
    while first < len(order):
        widest = 2 * int(ordered[first])
        fit = max(1, _CHUNK_CELLS // (max(widest, d) * d))
        last = min(first + fit, int(np.searchsorted(ordered, widest, side="right")))
        yield order[first:last]
        first = last


def _newton(
    prior: Posterior, rows: _Rows, loss: Loss, tolerance: float, max_steps: int
) -> tuple[Posterior, UpdateInfo]:
    """Newton's method for ``m`` entities side by side: prior (m, d), rows (m, r); full precisions come out."""
    P0 = embedded(prior)
    w, z = prior.mean, np.matvec(rows.X, prior.mean) + rows.offset
    steps = np.zeros(len(w), np.int64)
    while True:
        slope, curvature = loss_derivatives(loss, rows.y, z)
        gradient = np.vecmat(rows.weight * slope, rows.X) + np.matvec(P0, w - prior.mean)
        H = P0 + np.swapaxes(rows.X * (rows.weight * curvature)[..., None], -1, -2) @ rows.X
        direction = np.linalg.solve(H, -gradient[..., None])[..., 0]
        decrement = np.sqrt(np.abs(np.vecdot(gradient, direction)))
        moving = (decrement > tolerance) & (steps < max_steps)
        if not moving.any():
            return Posterior(w, H), UpdateInfo(steps, decrement, decrement <= tolerance)
        step = np.where(moving[:, None], direction, 0.0)
        change = np.matvec(rows.X, step)
        pull = np.matvec(P0, step)
        line = Line(loss, rows.y, rows.weight, z, change, np.vecdot(pull, w - prior.mean), np.vecdot(pull, step))
        length = line.backtrack(decrement)[:, None]
        w, z = w + length * step, z + length * change
        steps += moving
