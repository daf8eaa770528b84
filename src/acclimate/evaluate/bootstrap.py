"""How sure a difference between two arms is: a paired bootstrap over entities.

Rows of one entity are not independent, so whole entities are drawn, with replacement, as many as there are
(multinomial counts rather than Poisson ones: the textbook bootstrap, no dearer here, and the number of entities
stays what it is). All arms see the same draws, so what they share cancels. Nothing is sorted twice: log-loss, GAUC
and regret are sums over entities, and the pooled AUC takes one sort per arm and running sums per draw.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Comparison
from acclimate.evaluate.metrics import auc_by_group, bernoulli_entropy, row_log_loss, row_regret

METRICS = ("auc", "gauc", "log_loss", "normalized_entropy", "regret")


class _Ranks(NamedTuple):
    """One arm's rows by class: entities and weights, negatives by ascending score.

    ``below`` and ``upto`` count, for each positive row, the negatives that score less, and at most as much.
    """

    negative: IntArray
    negative_weight: FloatArray
    positive: IntArray
    positive_weight: FloatArray
    below: IntArray
    upto: IntArray


class _Sums(NamedTuple):
    """What one entity adds to each mean, ``(E,)``, or ``(arms, E)`` where arms differ.

    ``weight`` and ``positive`` (its share with label 1); ``ranked``, the weight of the groups that have an AUC,
    and ``won``, the same times that AUC; ``loss``; ``true``, the weight of the rows whose truth is known, and
    ``regret`` on them.
    """

    weight: FloatArray
    positive: FloatArray
    ranked: FloatArray
    loss: FloatArray
    won: FloatArray
    true: FloatArray
    regret: FloatArray


def compare(
    arms: Sequence[str],
    y: FloatArray,
    p: FloatArray,
    entity: IntArray,
    *,
    window: IntArray,
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> list[Comparison]:
    """The difference of every two arms, in the order given, in each of ``METRICS`` that is defined.

    Args:
        arms: names, ``a`` of them.
        y: labels 0 or 1, ``(n,)``.
        p: probabilities, ``(n, a)``.
        entity: ``(n,)``, what is drawn.
        window: ``(n,)``; GAUC takes the rows of one entity and window together.
        weight: row weights, ``(n,)``.
        truth: true probabilities, ``(n,)``, NaN where unknown; adds regret.
        resamples: number of draws; the interval runs from their 2.5th to their 97.5th percentile.
        seed: of the draws.
    """
    if not len(y) or resamples < 1:
        return []
    weight = np.ones(len(y)) if weight is None else weight
    truth = np.full(len(y), np.nan) if truth is None else truth
    ids, entity = np.unique(entity, return_inverse=True)
    ranks = [_ranks(y, p[:, a], entity, weight) for a in range(len(arms))]
    sums = _entity_sums(y, p, entity, window=window, weight=weight, truth=truth)
    figures = np.stack([_figures(c, ranks, sums) for c in _counts(len(ids), resamples, seed)])
    return [
        Comparison(arms[i], arms[j], metric, *interval)
        for i, j in combinations(range(len(arms)), 2)
        for m, metric in enumerate(METRICS)
        if (interval := _interval(figures[:, m, i] - figures[:, m, j])) is not None
    ]


def _counts(entities: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each entity is drawn, ``(E,)``: first once each, then at random."""
    rng = np.random.default_rng(seed)
    yield np.ones(entities)
    for _ in range(resamples):
        yield np.bincount(rng.integers(entities, size=entities), minlength=entities).astype(np.float64)


def _ranks(y: FloatArray, p: FloatArray, entity: IntArray, weight: FloatArray) -> _Ranks:
    order = np.argsort(p)
    negative, positive = order[y[order] == 0], order[y[order] > 0]
    return _Ranks(
        entity[negative],
        weight[negative],
        entity[positive],
        weight[positive],
        np.searchsorted(p[negative], p[positive], side="left"),
        np.searchsorted(p[negative], p[positive], side="right"),
    )


def _entity_sums(
    y: FloatArray,
    p: FloatArray,
    entity: IntArray,
    *,
    window: IntArray,
    weight: FloatArray,
    truth: FloatArray,
) -> _Sums:
    def added(values: FloatArray, by: IntArray = entity) -> FloatArray:
        return np.bincount(by, values, minlength=int(entity.max()) + 1).astype(np.float64)

    def areas(column: FloatArray) -> tuple[FloatArray, FloatArray]:
        windows = int(window.max()) + 1
        group, area, mass = auc_by_group(y, column, entity * windows + window, weight)
        mass = np.where(np.isfinite(area), mass, 0.0)
        return added(mass, group // windows), added(mass * np.nan_to_num(area), group // windows)

    true = weight * np.isfinite(truth)
    losses = weight[:, None] * row_log_loss(y[:, None], p)
    regrets = true[:, None] * row_regret(np.nan_to_num(truth)[:, None], p)
    ranked, won = zip(*(areas(column) for column in p.T), strict=True)
    return _Sums(
        weight=added(weight),
        positive=added(weight * y),
        ranked=ranked[0],
        loss=np.stack([added(column) for column in losses.T]),
        won=np.stack(won),
        true=added(true),
        regret=np.stack([added(column) for column in regrets.T]),
    )


def _figures(counts: FloatArray, ranks: Sequence[_Ranks], sums: _Sums) -> FloatArray:
    """Each metric of each arm when entity ``e`` is there ``counts[e]`` times: ``(metrics, arms)``."""
    # Sums along rows rather than a matrix product: equal rows must give equal sums, to the last bit.
    weight, positive, ranked, loss, won, true, regret = ((s * counts).sum(axis=-1) for s in sums)
    log_loss = _over(loss, weight)
    entropy = bernoulli_entropy(_over(positive, weight))
    areas = np.array([_auc(counts, r) for r in ranks])
    return np.stack([areas, _over(won, ranked), log_loss, _over(log_loss, entropy), _over(regret, true)])


def _over(sums: FloatArray, mass: FloatArray) -> FloatArray:
    return sums / mass if mass > 0 else np.full_like(sums, np.nan)


def _auc(counts: FloatArray, rows: _Ranks) -> float:
    beaten = np.concatenate([[0.0], np.cumsum(counts[rows.negative] * rows.negative_weight)])
    positive = counts[rows.positive] * rows.positive_weight
    pairs = positive.sum() * beaten[-1]
    won = (positive * (beaten[rows.below] + beaten[rows.upto])).sum() / 2
    return float(won / pairs) if pairs > 0 else np.nan


def _interval(difference: FloatArray) -> tuple[float, float, float] | None:
    """The difference itself, and the percentiles of the draws in which it is defined."""
    drawn = difference[1:][np.isfinite(difference[1:])]
    if not np.isfinite(difference[0]) or not len(drawn):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(difference[0]), float(low), float(high)
