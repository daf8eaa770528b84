"""How sure a difference between two arms is: a paired bootstrap over entities.

Rows of one entity are not independent, so whole entities are drawn, with replacement, as many as there are
(multinomial counts rather than Poisson ones: the textbook bootstrap, no dearer here, and the number of entities
stays what it is). Where users and items both vary, both are drawn, each by itself, and a row counts as often as
the product says: the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2), 386-411). Drawing users
alone takes the items for fixed, and its intervals are too narrow for other items. The pigeonhole bootstrap errs to
the safe side: in a sparse table its variance is near ``nu_u s_u^2 + nu_i s_i^2 + 3 s_e^2`` (over the number of
rows; ``nu`` is how many rows share an entity with a row, on average) where the truth has one ``s_e^2``. So the
less users and items matter beside the noise of single rows, the wider its intervals are, by 1.7 at most.

All arms see the same draws, so what they share cancels. Arms go one after another, so memory follows the rows and
not the arms, and nothing is sorted twice: a draw is running sums over rows in the order of their scores.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Comparison
from acclimate.config import LabelKind
from acclimate.evaluate.metrics import bernoulli_entropy, row_log_loss, row_regret
from acclimate.evaluate.regression import METRICS as REGRESSION_METRICS
from acclimate.evaluate.regression import Errors

METRICS = ("auc", "gauc", "log_loss", "normalized_entropy", "regret")


class _Ranks(NamedTuple):
    """One arm's rows by group and class, ascending by score within them; groups of one class are left out.

    ``negative (m,)`` and ``positive (k,)`` are numbers of rows, ``losing (m,)`` and ``winning (k,)`` their groups,
    of which there are ``groups``. For each positive row, among the negatives: where its group begins (``first``),
    where those begin that score as much (``below``), and where they end (``upto``).
    """

    negative: IntArray
    positive: IntArray
    losing: IntArray
    winning: IntArray
    groups: int
    first: IntArray
    below: IntArray
    upto: IntArray


def compare(
    arms: Sequence[str],
    y: FloatArray,
    p: FloatArray,
    entity: IntArray,
    *,
    window: IntArray,
    crossed: Sequence[IntArray] = (),
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
    kind: LabelKind = "binary",
    resamples: int = 200,
    seed: int = 0,
) -> list[Comparison]:
    """The difference of every two arms, in the order given, in each metric of the kind of label that is defined.

    Args:
        arms: names, ``a`` of them.
        y: labels, ``(n,)``.
        p: predictions, ``(n, a)``.
        entity: ``(n,)``, what is drawn.
        window: ``(n,)``; GAUC takes the rows of one entity and window together.
        crossed: other entities ``(n,)`` that are drawn too, each by itself.
        weight: row weights, ``(n,)``.
        truth: true probabilities or expected labels, ``(n,)``, NaN where unknown; adds regret.
        kind: of the labels: ``METRICS`` are those of 0 and 1, others are in :mod:`acclimate.evaluate.regression`.
        resamples: number of draws; the interval runs from their 2.5th to their 97.5th percentile.
        seed: of the draws.
    """
    if not len(y) or resamples < 1 or len(arms) < 2:
        return []
    weight = np.ones(len(y)) if weight is None else weight
    truth = np.full(len(y), np.nan) if truth is None else truth
    drawn = [np.unique(ids, return_inverse=True)[1] for ids in (entity, *crossed)]
    group = np.unique(drawn[0] * (int(window.max()) + 1) + window, return_inverse=True)[1]

    def figures_of(column: FloatArray) -> FloatArray:
        weights = (weight * counts for counts in draws(drawn, resamples, seed))
        if kind == "binary":
            return _figures(y, column, group, truth, weights)
        errors = Errors(y, column, truth, kind)
        return np.array([list(errors.figures(w).values()) for w in weights], np.float64)  # None is NaN

    figures = np.stack([figures_of(column) for column in p.T], axis=-1)
    return [
        Comparison(arms[i], arms[j], metric, *interval)
        for i, j in combinations(range(len(arms)), 2)
        for m, metric in enumerate(METRICS if kind == "binary" else REGRESSION_METRICS[kind])
        if (interval := _interval(figures[:, m, i] - figures[:, m, j])) is not None
    ]


def draws(entities: Sequence[IntArray], resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each row is there, ``(n,)``: first once, then ``resamples`` times as its entities are drawn.

    ``entities`` are numbered from 0, ``(n,)`` each; a row counts as often as the product of theirs.
    """
    rng = np.random.default_rng(seed)
    sizes = [int(codes.max()) + 1 for codes in entities]
    yield np.ones(len(entities[0]))
    for _ in range(resamples):
        counts = np.ones(len(entities[0]))
        for codes, size in zip(entities, sizes, strict=True):
            counts *= np.bincount(rng.integers(size, size=size), minlength=size)[codes]
        yield counts


def _figures(
    y: FloatArray, p: FloatArray, group: IntArray, truth: FloatArray, weights: Iterator[FloatArray]
) -> FloatArray:
    """Each metric of one arm at each of the row weights ``(n,)``: ``(draws, metrics)``."""
    true = np.isfinite(truth)
    loss, regret = row_log_loss(y, p), np.where(true, row_regret(np.nan_to_num(truth), p), 0.0)
    pooled, grouped = _ranks(y, p, np.zeros_like(group)), _ranks(y, p, group)
    rows: list[tuple[float, ...]] = []
    for w in weights:
        total = float(w.sum())
        log_loss = _over(float((w * loss).sum()), total)
        entropy = float(bernoulli_entropy(_over(float((w * y).sum()), total)))
        lost = _over(float((w * regret).sum()), float((w * true).sum()))
        rows.append((_auc(w, pooled), _auc(w, grouped), log_loss, _over(log_loss, entropy), lost))
    return np.array(rows)


def _ranks(y: FloatArray, p: FloatArray, group: IntArray) -> _Ranks:
    rows, wins = np.bincount(group), np.bincount(group, y > 0)
    order = np.lexsort((p, group))
    order = order[((wins > 0) & (wins < rows))[group[order]]]
    group = np.unique(group[order], return_inverse=True)[1]
    positive = y[order] > 0
    # A row's place among all scores of all groups: rows of equal group and score share one.
    new = (np.diff(group, prepend=-1) != 0) | (np.diff(p[order], prepend=np.nan) != 0)
    place = np.cumsum(new)
    return _Ranks(
        order[~positive],
        order[positive],
        group[~positive],
        group[positive],
        int(group.max(initial=-1)) + 1,
        np.searchsorted(group[~positive], group[positive], side="left"),
        np.searchsorted(place[~positive], place[positive], side="left"),
        np.searchsorted(place[~positive], place[positive], side="right"),
    )


def _auc(weight: FloatArray, rows: _Ranks) -> float:
    """The groups' AUC, averaged by their weight; a group in which the weight leaves one class is left out."""
    negative, positive = weight[rows.negative], weight[rows.positive]
    upto = np.concatenate([[0.0], np.cumsum(negative)])
    beaten = positive * (upto[rows.below] + upto[rows.upto] - 2.0 * upto[rows.first])

    def added(values: FloatArray, groups: IntArray) -> FloatArray:
        if rows.groups == 1:  # many times faster than counting into one bin
            return values.sum(keepdims=True)
        return np.bincount(groups, values, rows.groups).astype(np.float64)

    positives, negatives = added(positive, rows.winning), added(negative, rows.losing)
    pairs = positives * negatives
    known = pairs > 0
    area = added(beaten, rows.winning)[known] / (2.0 * pairs[known])
    mass = (positives + negatives)[known]
    return _over(float((mass * area).sum()), float(mass.sum()))


def _over(sums: float, mass: float) -> float:
    return sums / mass if mass > 0 else np.nan


def _interval(difference: FloatArray) -> tuple[float, float, float] | None:
    """The difference itself, and the percentiles of the draws in which it is defined."""
    drawn = difference[1:][np.isfinite(difference[1:])]
    if not np.isfinite(difference[0]) or not len(drawn):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(difference[0]), float(low), float(high)
