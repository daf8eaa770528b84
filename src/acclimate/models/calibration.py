"""Platt's line, learned as events come: the logit that a learner gives, moved and stretched.

``logit p' = a + b logit p`` (Platt 1999, "Probabilistic outputs for support vector machines"). ``a`` and ``b`` are
a Gaussian block of two coefficients, so learning them is the sequential step of every other block
(:mod:`acclimate.models.posterior`): the past enters by its quadratic approximation, and is forgotten towards
``N((0, 1), I / ridge)``.
"""

import numpy as np

from acclimate.arrays import FloatArray, Posterior
from acclimate.models.posterior import update_posterior
from acclimate.models.scoring import logit, sigmoid

LEAST_SLOPE = 0.01
"""A slope is at least this: a line that falls, or is level, would change or lose the order of rows."""
_TINY = 1e-300


def identity(ridge: float) -> Posterior:
    """The line that changes nothing, and how sure that is before any row: the precision of both coefficients."""
    return Posterior(np.array([0.0, 1.0]), ridge * np.eye(2))


def learned(
    line: Posterior, p: FloatArray, y: FloatArray, *, weight: FloatArray, kept: float, base: Posterior
) -> Posterior:
    """What is known of the line once rows have come true that were predicted without it.

    Args:
        line: what was known: mean ``(2,)`` of ``a`` and ``b``, precision ``(2, 2)``.
        p: the learner's probabilities before it learned these rows ``(n,)``; a logit is taken within 36.74.
        y: labels 0 or 1, ``(n,)``.
        weight: of the rows ``(n,)``.
        kept: how much of the past counts still, in [0, 1].
        base: what takes the place of the rest.
    """
    z = logit(p)
    X = np.column_stack([np.ones_like(z), z])
    return update_posterior(line, X, y, weight=weight, forgetting=kept, base=base)[0]


def rising(line: Posterior) -> tuple[float, float]:
    """The most likely ``a`` and ``b`` among lines that rise by ``LEAST_SLOPE`` or more.

    Where the mean's slope is less, the minimum of ``(w - m)'H(w - m)`` with ``b >= LEAST_SLOPE`` lies on this
    bound: ``a = m_a - (H_ab / H_aa)(b - m_b)``.
    """
    (a, b), H = line.mean.tolist(), line.precision
    if b >= LEAST_SLOPE:
        return a, b
    return a - float(H[0, 1] / H[0, 0]) * (LEAST_SLOPE - b), LEAST_SLOPE


def calibrated(line: Posterior, p: FloatArray) -> FloatArray:
    """Probabilities ``(n,)`` by the line, never in another order; as they are where the line changes nothing."""
    a, b = rising(line)
    return p if (a, b) == (0.0, 1.0) else sigmoid(a + b * logit(p, _TINY))
