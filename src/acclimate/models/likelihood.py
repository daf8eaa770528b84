"""Losses of one row at margin ``z``, and the step length that makes Newton's method safe on them.

``logistic``: ``log(1 + exp(-(2y-1) z))``, the negative log-likelihood of ``y`` in {0, 1}.
``squared``: ``(z - y)^2 / 2``, a Gaussian of unit variance; its updates are exact, which the tests use.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from acclimate.arrays import FloatArray

Loss: TypeAlias = Literal["logistic", "squared"]

_HALVINGS = 60
"""Of a step at most; one that does not descend even then is not taken."""

# The trapezoidal rule, as for a score; population variances need fewer digits than probabilities.
_NODES = np.arange(-6, 7) * 0.75
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_STRIP = 4096
"""Rows at a time, few enough that all nodes of theirs stay in the cache."""

CUT_SHORT = 0.1
"""Length below which a Newton step says that the loss is far from its quadratic."""


def loss_values(loss: Loss, y: FloatArray, z: FloatArray) -> FloatArray:
    """The loss of each row, shaped as ``z``; finite at any finite margin."""
    if loss == "squared":
        return 0.5 * (z - y) ** 2
    return np.logaddexp(0.0, z) - y * z


def loss_derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of each row's loss in ``z``, shaped as ``z``."""
    if loss == "squared":
        return z - y, np.ones_like(z)
    # With e = exp(-|z|), the smaller of p and 1 - p is e / (1 + e): at no margin is it a difference from 1.
    e = np.exp(-np.abs(z))
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    return np.where(z >= 0.0, (1.0 - y) - smaller, smaller - y), smaller * larger


def expected_derivatives(
    loss: Loss, y: FloatArray, z: FloatArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Expected first and second derivative of each row's loss at a margin of ``N(z, variance)``, all ``(n,)``.

    They are derivatives in ``z`` of the expected loss. To 1e-4 at variances up to 4, and 1e-2 up to 25.
    """
    slope, curvature = np.empty_like(z), np.empty_like(z)
    spread = np.sqrt(variance)
    for first in range(0, len(z), _STRIP):
        rows = slice(first, first + _STRIP)
        nodes = loss_derivatives(loss, y[rows], z[rows] + _NODES[:, None] * spread[rows])
        slope[rows], curvature[rows] = (_WEIGHTS @ node for node in nodes)
    return slope, curvature


def left_open(curvature: FloatArray, weight: FloatArray, others: FloatArray) -> FloatArray:
    """What rows of weight ``s`` and curvature ``s w`` say of one effect, given the others' variances ``v``.

    ``s w / (1 + w v)``, all ``(n,)``: exactly so where the others' entities have no other row in common.
    """
    w = np.divide(curvature, weight, out=np.zeros_like(curvature), where=weight > 0.0)
    return curvature / (1.0 + w * others)


def bounding_curvature(loss: Loss, z: FloatArray) -> FloatArray:
    """That of the least curved quadratic that touches each row's loss at ``z`` and lies above it, shaped as ``z``.

    ``tanh(|z|/2) / (2 |z|)`` of the logistic loss (Jaakkola and Jordan, 2000). Where margins are large Newton's
    curvature is next to nothing, and its step as much too long; the step of a bound descends at any margin.
    """
    if loss == "squared":
        return np.ones_like(z)
    size = np.maximum(np.abs(z), 1e-6)  # as a limit it is 1/4 at 0
    return np.tanh(0.5 * size) / (2.0 * size)


@dataclass(frozen=True)
class Line:
    """The objectives of ``n`` independent problems along one Newton step each, from where it begins.

    At lengths ``t`` (n,) they change by ``sum_i s_i (loss(y_i, z_i + t change_i) - loss(y_i, z_i))`` and by
    ``t slope + t^2 curvature / 2``, with ``slope`` and ``curvature`` (n,) those of the prior's quadratic; ``y``,
    ``weight``, ``margin``, ``change`` are (n, rows). Differences are taken row by row, so that a row of great loss
    drowns no other's.
    """

    loss: Loss
    y: FloatArray
    weight: FloatArray
    margin: FloatArray
    change: FloatArray
    slope: FloatArray
    curvature: FloatArray

    def rise(self, length: FloatArray) -> FloatArray:
        """By how much the objectives change, ``(n,)``."""
        return np.vecdot(self.weight, self._changes(length)) + self._prior(length)

    def _prior(self, length: FloatArray) -> FloatArray:
        return length * (self.slope + 0.5 * length * self.curvature)

    def _changes(self, length: FloatArray) -> FloatArray:
        """By how much each row's loss changes."""
        z, change = self.margin, length[:, None] * self.change
        if self.loss == "squared":
            return change * (z - self.y + 0.5 * change)
        # log(1 + exp(z)) is max(z, 0) + tail(z), and the change of the first says nothing of how large z is.
        straight = np.where(z > 0.0, np.maximum(change, -z), np.maximum(z + change, 0.0))
        return (straight - self.y * change) + (_tail(z + change) - self._tail)

    @cached_property
    def _tail(self) -> FloatArray:
        return _tail(self.margin)

    def backtrack(self, decrement: FloatArray) -> FloatArray:
        """Step lengths ``(n,)``, halved from 1 until each objective falls enough (Armijo's rule); 0 if never.

        ``decrement`` (n,) are the Newton decrements: the objectives' slopes are ``-decrement**2``.
        """
        length = np.ones_like(decrement)
        changes = self._changes(length)
        # Differences below the rounding of the objective say nothing: there the full step is taken.
        rounding = 1e-13 * (np.vecdot(self.weight, np.abs(changes) + self._tail) + np.abs(self.slope))
        rise = np.vecdot(self.weight, changes) + self._prior(length)
        for halvings in range(_HALVINGS):
            too_long = ~(rise <= rounding - 1e-4 * length * decrement**2)  # what is not a number is too long
            if not too_long.any():
                break
            length[too_long] *= 0.5 if halvings < _HALVINGS - 1 else 0.0
            rise = self.rise(length)
        return length


def _tail(z: FloatArray) -> FloatArray:
    """``log(1 + exp(z)) - max(z, 0)``."""
    return np.log1p(np.exp(-np.abs(z)))
