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


def quality(
    y: FloatArray,
    p: FloatArray,
    kind: Kind,
    *,
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
) -> Quality:
    """All that is reported of numbers, or of counts."""
    weight = np.ones(len(y)) if weight is None else weight
    squared, label = mean((y - p) ** 2, weight), mean(y, weight)
    spread = None if label is None else mean((y - label) ** 2, weight)
    figures: dict[str, float | None] = {
        "rmse": None if squared is None else float(np.sqrt(squared)),
        "mae": mean(np.abs(y - p), weight),
        "r2": 1.0 - squared / spread if squared is not None and spread else None,
        "regret": None,
    }
    if truth is not None:
        true = np.isfinite(truth)
        figures["regret"] = mean(row_regret(truth[true], p[true], kind), weight[true])
    if kind == "count":
        total = float(weight @ y)
        figures["deviance"] = mean(row_deviance(y, p), weight)
        figures["ratio"] = float(weight @ p) / total if total > 0.0 else None
    return Quality(len(y), None, None, None, None, calibration_error(y, p, weight), None, **figures)
