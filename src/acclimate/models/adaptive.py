"""How much of the past still holds, told by new rows: weights of it by the marginal likelihood.

Stabilised forgetting makes ``P0 = d H + (1-d) B`` the prior of a batch (:mod:`acclimate.models.gaussian`). Which
``d`` makes the batch most likely is asked of all entities of an effect together: those of a share ``p_j`` have the
weight ``d_j`` of a grid, and these shares are the most likely ones (Robbins 1956, Kiefer and Wolfowitz 1956:
empirical Bayes), so that where none has moved all keep everything. Then each entity has the weight that its own
rows speak for, ``log d = sum_j p(d_j | rows) log d_j``.

With ``l`` the log-likelihood of an entity's rows and ``w`` its mode, its evidence is by Laplace's method::

    log p(rows | d) = l(w) - 1/2 (w-m0)'P0(w-m0) + 1/2 log det P0 - 1/2 log det (P0 + X'WX)
"""

import numpy as np

from acclimate.arrays import Diagonal, FloatArray, Precision
from acclimate.models.blocks import Block
from acclimate.models.likelihood import Loss, loss_derivatives, loss_values

WEIGHTS = np.array([1.0, 0.85, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.06, 0.03, 0.015])
"""What the past of an entity may weigh; the first one is all of it."""

CONVINCING = 6.0
"""By how many nats a batch has to be more likely with something forgotten: less is chance."""

_ROUNDS = 50
"""Of expectation and maximisation; shares have settled to a few percent after half of them."""


def evidence(
    block: Block, mean: FloatArray, y: FloatArray, offset: FloatArray, weight: FloatArray, *, loss: Loss
) -> FloatArray:
    """The log-evidence ``(e,)`` of each entity's rows, but for what does not depend on the prior.

    Args:
        block: the rows and the prior.
        mean: where the posterior is largest, in scaled coordinates ``(e, d)``.
        y: labels ``(n,)``.
        offset: the rest of the margins, ``(n,)``.
        weight: of the rows over the variance of the noise, ``(n,)``.
        loss: ``logistic``, ``squared`` or ``poisson``.
    """
    design, prior, weight = block.design, block.scaled, block.counted(weight)
    z = offset + design.margin(mean)
    there = design.entity >= 0
    lost = np.bincount(design.entity[there], (weight * loss_values(loss, y, z))[there], design.count)
    _, curvature = loss_derivatives(loss, y, z)
    hessian = prior.P.plus(design.information(weight * curvature, full=block.full))
    away = mean - prior.mean
    return 0.5 * (_log_det(prior.P) - _log_det(hessian) - np.vecdot(away, prior.P.times(away))) - lost


def _log_det(precision: Precision) -> FloatArray:
    if isinstance(precision, Diagonal):
        return np.log(precision.array).sum(axis=-1)
    return np.linalg.slogdet(precision.array)[1]


def weights_of_the_past(gain: FloatArray) -> FloatArray:
    """The weight of each entity's past, ``(e,)``, by how much each of :data:`WEIGHTS` gains over 1, ``(e, g)``.

    All 1 where that is not convincing.
    """
    likelihood = np.exp(gain - gain.max(axis=1, keepdims=True))
    shares = np.full(len(WEIGHTS), 1.0 / len(WEIGHTS))
    for _ in range(_ROUNDS):
        own = likelihood * shares
        own /= own.sum(axis=1, keepdims=True)
        shares = own.mean(axis=0)
    own = likelihood * shares
    total = float((np.log(own.sum(axis=1)) + gain.max(axis=1)).sum())
    if not total > CONVINCING:
        return np.ones(len(gain))
    own /= own.sum(axis=1, keepdims=True)
    return np.exp(own @ np.log(WEIGHTS))
