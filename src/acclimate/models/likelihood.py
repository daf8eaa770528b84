"""Losses of one row at margin ``z``, and the step length that makes Newton's method safe on them.

``logistic``: ``log(1 + exp(-(2y-1) z))``, the negative log-likelihood of ``y`` in {0, 1}.
``squared``: ``(z - y)^2 / 2``, a Gaussian of unit variance, of any other by row weights; its updates are exact.
``poisson``: ``exp(z) - y z``, but for a constant the negative log-likelihood of a count ``y`` of mean ``exp(z)``.
Beyond a margin of 100, where no count is, it goes on as its quadratic there: convex and finite.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from acclimate.arrays import FloatArray

Loss: TypeAlias = Literal["logistic", "squared", "poisson"]

_CAP = 100.0
"""Margin from which a Poisson loss is a quadratic; ``exp(100)`` is 1e43."""

_HALVINGS = 60
"""Of a step at most; one that does not descend even then is not taken."""

# The trapezoidal rule, as for a score; population variances need fewer digits than probabilities.
_NODES = np.arange(-6, 7) * 0.75
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_STRIP = 4096
"""Rows at a time, few enough that all nodes of theirs stay in the cache."""

_MANY = 1 << 16
"""Rows that no longer stay in the cache together."""

CUT_SHORT = 0.1
"""Length below which a Newton step says that the loss is far from its quadratic."""


def loss_values(loss: Loss, y: FloatArray, z: FloatArray) -> FloatArray:
    """The loss of each row, shaped as ``z``; finite at any finite margin."""
    if loss == "squared":
        return 0.5 * (z - y) ** 2
    if loss == "poisson":
        return _capped(z) - y * z
    return np.logaddexp(0.0, z) - y * z


def loss_derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of each row's loss in ``z``, shaped as ``z``."""
    if z.ndim == 1 and len(z) > _MANY:
        slope, curvature = np.empty_like(z), np.empty_like(z)
        for first in range(0, len(z), _STRIP):
            rows = slice(first, first + _STRIP)
            slope[rows], curvature[rows] = loss_derivatives(loss, y[rows], z[rows])
        return slope, curvature
    if loss == "squared":
        return z - y, np.ones_like(z)
    if loss == "poisson":
        e, beyond = _exponential(z)
        return e * (1.0 + beyond) - y, e
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


def without_variance(loss: Loss, offset: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """The offset at which the plain loss has the derivatives of the expected one, and the variance that is left.

    Of a squared loss the variance adds a constant, and ``E[exp(z)] = exp(z + v/2)``; of others it stays.
    """
    if loss == "logistic":
        return offset, variance
    return (offset + 0.5 * variance if loss == "poisson" else offset), None


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


def has_bound(loss: Loss) -> bool:
    """Whether there is a quadratic that lies above the loss; none is above an exponential."""
    return loss != "poisson"


def evident_curvature(loss: Loss, y: FloatArray, z: FloatArray) -> FloatArray:
    """That of a quadratic which ends where the label is met, ``(n,)``, for rows whose own curvature says nothing.

    That of the bound, and of a Poisson loss the chord of its slope from ``z`` to the margin of the count.
    """
    if loss != "poisson":
        return bounding_curvature(loss, z)
    there = np.log(np.maximum(y, 0.5))
    away, e = there - z, _exponential(z)[0]
    return np.divide(np.exp(there) - e, away, out=e.copy(), where=np.abs(away) > 1e-6)


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
        if self.loss == "poisson":
            near = (change <= 1.0) & (np.maximum(z, z + change) <= _CAP)
            little = self._size * np.expm1(np.where(near, change, 0.0))
            return np.where(near, little, _capped(z + change) - self._size) - self.y * change
        # log(1 + exp(z)) is max(z, 0) + tail(z), and the change of the first says nothing of how large z is.
        straight = np.where(z > 0.0, np.maximum(change, -z), np.maximum(z + change, 0.0))
        return (straight - self.y * change) + (_tail(z + change) - self._size)

    @cached_property
    def _size(self) -> FloatArray:
        """The curved part of each row's loss where the step begins."""
        return _capped(self.margin) if self.loss == "poisson" else _tail(self.margin)

    def backtrack(self, decrement: FloatArray) -> FloatArray:
        """Step lengths ``(n,)``, halved from 1 until each objective falls enough (Armijo's rule); 0 if never.

        ``decrement`` (n,) are the Newton decrements: the objectives' slopes are ``-decrement**2``. Lengths of 1
        are doubled with Poisson losses while that is better: down an exponential Newton's step is 1, however far.
        """
        length = np.ones_like(decrement)
        changes = self._changes(length)
        # Differences below the rounding of the objective say nothing: there the full step is taken. A Poisson loss
        # is not measured at the end of that step: it may be beyond all others there.
        measured = self.y if self.loss == "poisson" else np.abs(changes)
        rounding = 1e-13 * (np.vecdot(self.weight, measured + self._size) + np.abs(self.slope))
        rise = np.vecdot(self.weight, changes) + self._prior(length)
        for halvings in range(_HALVINGS):
            too_long = ~(rise <= rounding - 1e-4 * length * decrement**2)  # what is not a number is too long
            if not too_long.any():
                break
            length[too_long] *= 0.5 if halvings < _HALVINGS - 1 else 0.0
            rise = self.rise(length)
        return self._lengthened(length, rise, rounding) if self.loss == "poisson" else length

    def _lengthened(self, length: FloatArray, rise: FloatArray, rounding: FloatArray) -> FloatArray:
        for _ in range(_HALVINGS):
            further = self.rise(2.0 * length)
            better = (length >= 1.0) & (further < rise - rounding)
            if not better.any():
                break
            length, rise = np.where(better, 2.0 * length, length), np.where(better, further, rise)
        return length


def _tail(z: FloatArray) -> FloatArray:
    """``log(1 + exp(z)) - max(z, 0)``."""
    return np.log1p(np.exp(-np.abs(z)))


def _exponential(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``exp(z)`` up to the cap, and how far beyond it a margin is."""
    below = np.minimum(z, _CAP)
    return np.exp(below), z - below


def _capped(z: FloatArray) -> FloatArray:
    """``exp(z)``, beyond the cap its quadratic there."""
    e, beyond = _exponential(z)
    return e * (1.0 + beyond + 0.5 * beyond**2)
