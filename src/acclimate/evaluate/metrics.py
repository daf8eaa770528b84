"""How well probabilities match labels: pure functions of arrays, no loop over rows or groups.

Everywhere ``n`` rows: ``y (n,)`` labels 0 or 1, ``p (n,)`` probabilities, ``weight (n,)`` row weights (1 when left
out; a row of weight 2 is the row twice), ``group (n,)`` integers. ``None`` means: not defined on these rows.
Rows of equal ``p`` are never told apart by their order.
"""

from typing import NamedTuple

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Quality

_EPS = float(np.finfo(np.float64).eps)
"""A probability of 0 or 1 costs as much as this one off it, as in scikit-learn: finite, but dear."""

BINS = 15
"""Calibration bins; 15 as in Guo et al. 2017, of equal mass because those are the less biased (Roelofs 2022)."""


class Ties(NamedTuple):
    """Rows sorted by group, then score: runs of equal score within a group.

    ``order (n,)`` sorts the rows; ``first (t,)`` is where each run begins in them; ``lead (g,)`` is where each
    group begins among the runs.
    """

    order: IntArray
    first: IntArray
    lead: IntArray


def ties(score: FloatArray, group: IntArray) -> Ties:
    """Sort rows by ``group``, then ``score``, and find the runs of equals."""
    order = np.lexsort((score, group))
    score, group = score[order], group[order]
    new_group = np.diff(group, prepend=group[:1] - 1) != 0
    first = np.flatnonzero(new_group | (np.diff(score, prepend=0.0) != 0))
    return Ties(order, first, np.flatnonzero(new_group[first]))


def auc(y: FloatArray, p: FloatArray, weight: FloatArray | None = None) -> float | None:
    """Probability that a positive row scores above a negative one; equal scores count half."""
    _, area, _ = auc_by_group(y, p, np.zeros(len(y), np.int64), weight)
    return _defined(area)


def gauc(y: FloatArray, p: FloatArray, group: IntArray, weight: FloatArray | None = None) -> float | None:
    """AUC within each group, averaged by the groups' rows; groups of one class are left out."""
    _, area, mass = auc_by_group(y, p, group, weight)
    known = np.isfinite(area)
    return mean(area[known], mass[known])


def auc_by_group(
    y: FloatArray, p: FloatArray, group: IntArray, weight: FloatArray | None = None
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Groups in ascending order, the AUC of each (NaN where one class only) and its weight, all ``(g,)``."""
    order, first, lead = ties(p, group)
    weight = _weights(y, weight)
    positive = np.add.reduceat((weight * y)[order], first)
    negative = np.add.reduceat((weight * (1 - y))[order], first)
    below = np.cumsum(negative) - negative
    below -= np.repeat(below[lead], np.diff(lead, append=len(first)))
    won = np.add.reduceat(positive * (below + negative / 2), lead)
    positives, negatives = np.add.reduceat(positive, lead), np.add.reduceat(negative, lead)
    pairs = positives * negatives
    area = np.divide(won, pairs, out=np.full(len(lead), np.nan), where=pairs > 0)
    return group[order[first[lead]]], area, positives + negatives


def mean(values: FloatArray, weight: FloatArray | None = None) -> float | None:
    """The weighted mean of ``values (n,)``."""
    weight = _weights(values, weight)
    mass = weight.sum()
    return float(weight @ values / mass) if mass > 0 else None


def log_loss(y: FloatArray, p: FloatArray, weight: FloatArray | None = None) -> float | None:
    """Mean of ``-log P(y)``, in nats a row."""
    return mean(row_log_loss(y, p), weight)


def row_log_loss(y: FloatArray, p: FloatArray) -> FloatArray:
    """``-log P(y)`` of each row; ``y`` and ``p`` may broadcast."""
    p = np.clip(p, _EPS, 1 - _EPS)
    return -np.log(np.where(y > 0, p, 1 - p))


def normalized_entropy(y: FloatArray, p: FloatArray, weight: FloatArray | None = None) -> float | None:
    """Log-loss over that of the rows' own base rate: 1 is no better than the rate (He et al. 2014)."""
    rate, loss = mean(y, weight), log_loss(y, p, weight)
    if rate is None or loss is None or not 0 < rate < 1:
        return None
    return float(loss / bernoulli_entropy(rate))


def bernoulli_entropy(rate: FloatArray | float) -> FloatArray:
    """``-r log r - (1-r) log(1-r)`` in nats, shaped as ``rate``; 0 at the ends."""
    from scipy.special import entr

    return np.asarray(entr(rate) + entr(1 - np.asarray(rate)))


class Bins(NamedTuple):
    """Calibration bins, each ``(b,)``: rows, their weight, mean prediction, observed rate."""

    rows: IntArray
    weight: FloatArray
    predicted: FloatArray
    observed: FloatArray


def calibration_bins(y: FloatArray, p: FloatArray, weight: FloatArray | None = None, *, bins: int = BINS) -> Bins:
    """Rows in ascending order of ``p``, cut into at most ``bins`` bins of equal weight.

    Equal predictions share a bin, that of the middle of their run, so a bin may grow or be absent.
    """
    weight = _weights(y, weight)
    order, start = calibration_cuts(p, weight, bins=bins)
    y, p, weight = y[order], p[order], weight[order]
    rows = np.diff(start, append=len(y))
    mass, predicted, observed = (np.add.reduceat(v, start) for v in (weight, weight * p, weight * y))
    kept = mass > 0
    return Bins(rows[kept], mass[kept], predicted[kept] / mass[kept], observed[kept] / mass[kept])


def calibration_cuts(p: FloatArray, weight: FloatArray, *, bins: int = BINS) -> tuple[IntArray, IntArray]:
    """Rows in ascending order of ``p`` ``(n,)``, and where each bin of :func:`calibration_bins` begins in them."""
    order, first, _ = ties(p, np.zeros(len(p), np.int64))
    run = np.add.reduceat(weight[order], first)
    middle = np.cumsum(run) - run / 2
    of_run = np.minimum(bins * middle // max(run.sum(), _EPS), bins - 1)
    return order, first[np.diff(of_run, prepend=-1) != 0]


def calibration_error(
    y: FloatArray, p: FloatArray, weight: FloatArray | None = None, *, bins: int = BINS
) -> float | None:
    """Mean distance of predicted to observed rate over :func:`calibration_bins`, by weight."""
    binned = calibration_bins(y, p, weight, bins=bins)
    return mean(np.abs(binned.predicted - binned.observed), binned.weight)


def ndcg(y: FloatArray, p: FloatArray, group: IntArray, k: int = 10) -> float | None:
    """Discounted gain of each group's first ``k`` rows by ``p`` over the best there is; mean over groups.

    Rows of equal ``p`` share the gain that they would have on average over all their orders (McSherry and Najork
    2008). Groups without a positive row are left out.
    """
    order, first, lead = ties(-p, group)
    size = np.diff(first, append=len(y))
    rank = first - np.repeat(first[lead], np.diff(lead, append=len(first)))
    gain = np.add.reduceat(y[order], first)
    # discount[r]: what the first r ranks are worth together; nothing is added after k.
    discount = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    share = (discount[np.minimum(rank + size, k)] - discount[np.minimum(rank, k)]) / size
    positives = np.add.reduceat(gain, lead)
    ideal = discount[np.minimum(positives, k).astype(np.int64)]
    gained = np.add.reduceat(gain * share, lead)[positives > 0] / ideal[positives > 0]
    return mean(gained)


def regret(truth: FloatArray, p: FloatArray, weight: FloatArray | None = None) -> float | None:
    """Expected log-loss of ``p`` beyond that of the true probabilities, in nats a row; NaN is a truth unknown."""
    known = np.isfinite(truth)
    return mean(row_regret(truth[known], p[known]), None if weight is None else weight[known])


def row_regret(truth: FloatArray, p: FloatArray) -> FloatArray:
    """``KL(Bernoulli(truth) || Bernoulli(p))`` of each row; the two may broadcast."""
    from scipy.special import rel_entr

    p = np.clip(p, _EPS, 1 - _EPS)
    return rel_entr(truth, p) + rel_entr(1 - truth, 1 - p)


def quality(
    y: FloatArray,
    p: FloatArray,
    group: IntArray,
    *,
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
    k: int = 10,
) -> Quality:
    """All metrics at once; ``group`` is the entity and window of each row."""
    return Quality(
        rows=len(y),
        auc=auc(y, p, weight),
        gauc=gauc(y, p, group, weight),
        log_loss=log_loss(y, p, weight),
        normalized_entropy=normalized_entropy(y, p, weight),
        calibration_error=calibration_error(y, p, weight),
        ndcg=ndcg(y, p, group, k),
        regret=None if truth is None else regret(truth, p, weight),
    )


def _weights(rows: FloatArray, weight: FloatArray | None) -> FloatArray:
    return np.ones(len(rows)) if weight is None else weight


def _defined(area: FloatArray) -> float | None:
    return float(area[0]) if len(area) and np.isfinite(area[0]) else None
