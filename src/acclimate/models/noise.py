"""The noise of numbers, whose loss is squared, and of counts: its size, learned with the coefficients.

``Var(y) = v V(z) / s`` for rows of weight ``s``, with ``V = 1`` of numbers and the mean ``V = exp(z)`` of counts.
So a row counts ``s / v``. At the most likely ``v`` (Patterson and Thompson, 1971: restricted maximum likelihood;
MacKay, 1992; of counts quasi-likelihood, McCullagh and Nelder, 1989)::

    v = sum_i s_i (y_i - E[y_i])^2 / V_i / (sum_i s_i - used)        used = sum_i (s_i V_i / v) Var(z_i)

The coefficients use up rows: as many as there are where nothing holds them, fewer where a prior does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.arrays import FloatArray
from acclimate.models.likelihood import left_open

_LEAST = 1e-8
"""Part of the usual size that is noise at least: residuals of less say that there is no more to learn."""

_FEWEST_LEFT = 1e-3
"""Part of the rows that has to be left over for them to say something of the noise."""


@dataclass(frozen=True)
class Noise:
    """``variance``, and from how many ``rows`` it was learned, but for those that coefficients have used up."""

    variance: float = 1.0
    rows: float = 0.0

    def faded(self, kept: float) -> "Noise":
        """The same known from a part of the rows."""
        return Noise(self.variance, kept * self.rows)


def learned_noise(past: Noise, squares: FloatArray, weight: FloatArray, *, used: float, usual: float) -> Noise:
    """The noise by rows that were learned from, and those before.

    Args:
        past: what was known of it without them.
        squares: of the residuals over their usual variances, times the weights, ``(n,)``.
        weight: of the rows, ``(n,)``.
        used: how many of them the coefficients have used up.
        usual: a size that is usual for labels.

    Returns:
        The noise; as it was where nearly all rows are used up.
    """
    left = float(weight.sum()) - used
    if not left > _FEWEST_LEFT * weight.sum():
        return past
    rows = past.rows + left
    variance = (past.rows * past.variance + float(squares.sum())) / rows
    return Noise(max(variance, _LEAST * usual), rows)


def gain(before: float, now: Noise) -> float:
    """The log-likelihood, in nats, by which a noise is more likely than a variance ``before``, margins the same.

    ``rows/2 (r - 1 - log r)`` for ``r = now / before``, at its maximum.
    """
    r = now.variance / before
    return 0.5 * now.rows * (r - 1.0 - float(np.log(r)))


def used_rows(curvature: FloatArray, count: FloatArray, variances: Sequence[FloatArray]) -> float:
    """How many rows the coefficients of effects have used up: ``sum_i w_i Var(z_i)``.

    Args:
        curvature: of each row, ``w = s V / v``, ``(n,)``.
        count: ``s``, ``(n,)``.
        variances: of each row's margin by effect, from all rows, ``(n,)`` each.

    The variances do not add up, since of a row effects know their sum. What they are without the row does: that is
    ``c = sum_k v_k / (1 - w_k v_k)``, where ``w_k`` is what the row says of effect ``k``, and with the row
    ``Var(z) = c / (1 + w c)``. Exact for one effect, and where effects meet in no other row.
    """
    before, total = np.zeros_like(curvature), np.sum([np.zeros_like(curvature), *variances], axis=0)
    for own in variances:
        told = left_open(curvature, count, total - own) * own
        before += own / (1.0 - np.minimum(told, 1.0 - 1e-9))
    return float(np.sum(curvature * before / (1.0 + curvature * before)))
