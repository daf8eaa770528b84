"""Losses of one row at margin ``z``, and the step length that makes Newton's method safe on them.

``logistic``: ``log(1 + exp(-(2y-1) z))``, the negative log-likelihood of ``y`` in {0, 1}.
``squared``: ``(z - y)^2 / 2``, a Gaussian of unit variance; its updates are exact, which the tests use.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import expit

from acclimate.arrays import FloatArray

Loss: TypeAlias = Literal["logistic", "squared"]


def loss_values(loss: Loss, y: FloatArray, z: FloatArray) -> FloatArray:
    """The loss of each row, shaped as ``z``; finite at any finite margin."""
    if loss == "squared":
        return 0.5 * (z - y) ** 2
    return np.logaddexp(0.0, z) - y * z


def loss_derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of each row's loss in ``z``, shaped as ``z``."""
    if loss == "squared":
        return z - y, np.ones_like(z)
    p: FloatArray = expit(z)
    return p - y, p * (1.0 - p)


@dataclass(frozen=True)
class Line:
    """The objectives of ``n`` independent problems along one Newton step each, up to a constant.

    At lengths ``t`` (n,): ``sum_i s_i loss(y_i, z_i + t change_i) + t slope + t^2 curvature / 2``, with ``slope``
    and ``curvature`` (n,) those of the prior's quadratic; ``y``, ``weight``, ``margin``, ``change`` are (n, rows).
    """

    loss: Loss
    y: FloatArray
    weight: FloatArray
    margin: FloatArray
    change: FloatArray
    slope: FloatArray
    curvature: FloatArray

    def at(self, length: FloatArray) -> FloatArray:
        """The objectives ``(n,)``."""
        losses = loss_values(self.loss, self.y, self.margin + length[:, None] * self.change)
        return np.vecdot(self.weight, losses) + length * (self.slope + 0.5 * length * self.curvature)

    def backtrack(self, decrement: FloatArray) -> FloatArray:
        """Step lengths ``(n,)``, halved from 1 until each objective falls enough (Armijo's rule).

        ``decrement`` (n,) are the Newton decrements: the objectives' slopes are ``-decrement**2``.
        """
        start = self.at(np.zeros_like(decrement))
        # Differences below the rounding of the objective say nothing: there the full step is taken.
        rounding = 1e-13 * (1.0 + np.abs(start))
        length = np.ones_like(decrement)
        for _ in range(60):
            too_long = self.at(length) > start - 1e-4 * length * decrement**2 + rounding
            if not too_long.any():
                break
            length[too_long] *= 0.5
        return length
