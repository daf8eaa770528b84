"""How well predictions of numbers and of counts match labels: pure functions of arrays.

Everywhere ``n`` rows: ``y (n,)`` labels, ``p (n,)`` predictions, ``weight (n,)`` row weights. ``None`` means: not
defined on these rows.
"""

from typing import Literal

import numpy as np

from acclimate.arrays import FloatArray
from acclimate.artifacts import Quality
from acclimate.evaluate.metrics import calibration_error, mean

Kind = Literal["number", "count"]

METRICS: dict[str, tuple[str, ...]] = {
    "number": ("rmse", "mae", "r2", "regret"),
    "count": ("deviance", "rmse", "mae", "r2", "ratio", "regret"),
}
"""What is reported of each kind of label, beside the calibration error."""

_LEAST = float(np.finfo(np.float64).tiny)
"""A count that is expected to be 0 costs as much as this one where it is not: finite, but dear."""


def row_deviance(y: FloatArray, p: FloatArray) -> FloatArray:
    """``2 (y log(y / p) - y + p)`` of each row, in nats: twice what ``p`` costs beyond ``y`` itself."""
    from scipy.special import xlogy

    p = np.maximum(p, _LEAST)
    return 2.0 * (xlogy(y, y) - y * np.log(p) - y + p)


def row_regret(truth: FloatArray, p: FloatArray, kind: Kind) -> FloatArray:
    """What each row costs beyond the truth, expected: a squared distance, or half a deviance; NaN is unknown."""
    return (p - truth) ** 2 if kind == "number" else 0.5 * row_deviance(truth, p)


class Errors:
    """Predictions beside labels, of which figures are computed under many weights."""

    def __init__(self, y: FloatArray, p: FloatArray, truth: FloatArray | None, kind: Kind) -> None:
        self.y, self.p, self.kind = y, p, kind
        self.squares, self.distances = (y - p) ** 2, np.abs(y - p)
        self.deviance = row_deviance(y, p) if kind == "count" else None
        self.known = np.zeros(len(y)) if truth is None else np.isfinite(truth).astype(np.float64)
        self.regret = np.zeros(len(y))
        if truth is not None:
            true = self.known > 0.0
            self.regret[true] = row_regret(truth[true], p[true], kind)

    def figures(self, weight: FloatArray) -> dict[str, float | None]:
        """Each of :data:`METRICS`."""
        squared, label = mean(self.squares, weight), mean(self.y, weight)
        found = {"rmse": None if squared is None else float(np.sqrt(squared)), "mae": mean(self.distances, weight)}
        if squared is not None and label is not None:
            spread = mean((self.y - label) ** 2, weight)
            found["r2"] = 1.0 - squared / spread if spread else None
        if self.deviance is not None:
            total = float(weight @ self.y)
            found["deviance"] = mean(self.deviance, weight)
            found["ratio"] = float(weight @ self.p) / total if total > 0.0 else None
        found["regret"] = mean(self.regret, weight * self.known)
        return {name: found.get(name) for name in METRICS[self.kind]}


def quality(
    y: FloatArray,
    p: FloatArray,
    kind: Kind,
    *,
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
) -> Quality:
    """All that is reported of numbers, or of counts."""
    figures = Errors(y, p, truth, kind).figures(np.ones(len(y)) if weight is None else weight)
    error = calibration_error(y, p, weight)
    return Quality(len(y), None, None, None, None, error, None, **{"regret": None, **figures})
