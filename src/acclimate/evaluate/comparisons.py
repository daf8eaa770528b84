"""How sure a difference between two arms is, where users and items both vary.

To first order a metric is a sum over rows of their influence, the derivative by the logarithm of their weight
(the infinitesimal jackknife). So is the difference ``d`` of two arms, in which what both share cancels. Rows of
one user vary together, and so do rows of one item (Cameron, Gelbach and Miller 2011, J. Business and Economic
Statistics 29(2), 238-249, eq. 2.5)::

    V = sum_u D_u^2 + sum_i (D_i^2 - sum_{cells of i} D_ui^2)        D: sums of d over a user, an item, both

The second part is the products of rows that share an item and not the user. Where it comes out negative it is left
out. Each sum is divided by one less its entity's share of the rows: the jackknife that leaves whole entities out
(CR3 of MacKinnon and White 1985), since an entity with many rows pulls the mean to itself. Quantiles are those of
Student's t with degrees of freedom after Satterthwaite: ``k`` entities of unequal shares ``s`` count as
``(sum s^2)^2 / sum s^4`` equal ones (Kish's formula, of the parts ``s^2`` of the variance).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Comparison
from acclimate.config import LabelKind
from acclimate.evaluate import regression
from acclimate.evaluate.metrics import bernoulli_entropy, calibration_cuts, row_log_loss, row_regret, ties

_ALONE = 1e-9
"""Share of the rows that other entities have, below which one entity has them all."""


class Rows(NamedTuple):
    """What all arms are asked: ``y``, ``weight``, ``truth`` (NaN where unknown), ``group``, all ``(n,)``."""

    y: FloatArray
    weight: FloatArray
    truth: FloatArray
    group: IntArray


class Influence(NamedTuple):
    """A metric of one arm, and how much each row moves it.

    ``mass (n,)``: how much each row counts. ``rows (n,)``: the derivative by the logarithm of the row's weight.
    ``shared (n,)``: how much the metric would move with what the row brings itself, its item say. The two differ
    where a few rows of one user are measured against each other.
    """

    value: float
    mass: FloatArray
    rows: FloatArray
    shared: FloatArray


Measure: TypeAlias = Callable[[Rows, FloatArray], Influence | None]
"""A metric of predictions ``(n,)``; ``None`` where it is not defined."""


class _Sums(NamedTuple):
    """An arm's influence, added up over users ``(u,)``, items ``(i,)`` and what one user did with one item."""

    value: float
    users: FloatArray
    items: FloatArray
    cells: FloatArray


class _Entities(NamedTuple):
    """Users and items of rows ``(n,)``, numbered from 0, and pairs of both; items of each pair ``(c,)``."""

    user: IntArray
    item: IntArray
    cell: IntArray
    item_of_cell: IntArray

    def sums(self, found: Influence) -> _Sums:
        cells = _added(self.cell, found.shared)
        return _Sums(found.value, _added(self.user, found.rows), _added(self.item_of_cell, cells), cells)


def compare(
    arms: Sequence[str],
    y: FloatArray,
    p: FloatArray,
    entity: IntArray,
    *,
    window: IntArray,
    crossed: IntArray | None = None,
    weight: FloatArray | None = None,
    truth: FloatArray | None = None,
    kind: LabelKind = "binary",
) -> list[Comparison]:
    """The difference of every two arms, in the order given, in each of ``METRICS`` of the kind that is defined.

    With fewer than two entities there is nothing to tell an interval from, and no comparison.

    Args:
        arms: names, ``a`` of them.
        y: labels, ``(n,)``.
        p: predictions, ``(n, a)``.
        entity: ``(n,)``, rows of one vary together.
        window: ``(n,)``; GAUC takes the rows of one entity and window together.
        crossed: other entities, ``(n,)``, whose rows vary together too.
        weight: row weights, ``(n,)``.
        truth: true probabilities or expected labels, ``(n,)``, NaN where unknown; adds regret.
        kind: of the labels.
    """
    if not len(y) or len(arms) < 2:
        return []
    entities = _entities(entity, np.arange(len(y)) if crossed is None else crossed)
    rows = Rows(
        y,
        np.ones(len(y)) if weight is None else weight,
        np.full(len(y), np.nan) if truth is None else truth,
        np.unique(entities.user * (int(window.max()) + 1) + window, return_inverse=True)[1],
    )
    found: dict[tuple[int, int, str], Comparison] = {}
    for metric, measure in METRICS[kind].items():
        influences = [measure(rows, column) for column in p.T]
        if any(one is None for one in influences):
            continue
        known = [one for one in influences if one is not None]
        interval = _Intervals.of(entities, known[0].mass)
        sums = [entities.sums(one) for one in known]
        for i, j in combinations(range(len(arms)), 2):
            difference, half = sums[i].value - sums[j].value, interval.half(sums[i], sums[j])
            if np.isfinite(half):
                found[i, j, metric] = Comparison(
                    arms[i], arms[j], metric, difference, difference - half, difference + half
                )
    return [found[key] for key in sorted(found, key=lambda key: key[:2])]


def _entities(user: IntArray, item: IntArray) -> _Entities:
    user, item = (np.unique(ids, return_inverse=True)[1] for ids in (user, item))
    items = int(item.max()) + 1
    pairs, cell = np.unique(user * items + item, return_inverse=True)
    return _Entities(user, item, cell, pairs % items)


def _added(codes: IntArray, values: FloatArray) -> FloatArray:
    return np.bincount(codes, values).astype(np.float64)


class _Intervals(NamedTuple):
    """Of each user ``(u,)`` and item ``(i,)``: one over the share of the others, 0 where these have no rows.

    ``users`` and ``items``: how many equal ones they count as.
    """

    user: FloatArray
    item: FloatArray
    users: float
    items: float
    item_of_cell: IntArray

    @staticmethod
    def of(entities: _Entities, mass: FloatArray) -> "_Intervals":
        shares = [_added(codes, mass) / mass.sum() for codes in (entities.user, entities.item)]
        rest = [1.0 - share for share in shares]
        (user, item) = (np.divide(r > _ALONE, r, out=np.zeros_like(r), where=r > _ALONE) for r in rest)
        users, items = (float((share**2).sum() ** 2 / (share**4).sum()) for share in shares)
        return _Intervals(user, item, users, items, entities.item_of_cell)

    def half(self, one: _Sums, other: _Sums) -> float:
        """Half the width of the 95 % interval of a difference; NaN where one user has all the rows."""
        from scipy.special import stdtrit

        if not self.user.all():
            return np.nan
        by_user = float(((self.user * (one.users - other.users)) ** 2).sum())
        alone = _added(self.item_of_cell, (one.cells - other.cells) ** 2)
        by_item = float((self.item**2 * ((one.items - other.items) ** 2 - alone)).sum())
        by_item = max(by_item, 0.0)
        variance = by_user + by_item
        if variance == 0.0:
            return 0.0
        freedom = variance**2 / (by_user**2 / self.users + by_item**2 / self.items)
        return float(stdtrit(freedom, 0.975)) * variance**0.5


# --- the metrics ----------------------------------------------------------------------------------------------


def _mean(values: FloatArray, mass: FloatArray) -> Influence | None:
    total = float(mass.sum())
    if not total > 0:
        return None
    value = float(mass @ values) / total
    moved = mass * (values - value) / total
    return Influence(value, mass, moved, moved)


def log_loss(rows: Rows, p: FloatArray) -> Influence | None:
    """Mean of ``-log P(y)``."""
    return _mean(row_log_loss(rows.y, p), rows.weight)


def regret(rows: Rows, p: FloatArray) -> Influence | None:
    """Expected log-loss above that of the truth, where it is known."""
    true = np.isfinite(rows.truth)
    return _mean(np.where(true, row_regret(np.where(true, rows.truth, 0.5), p), 0.0), rows.weight * true)


def normalized_entropy(rows: Rows, p: FloatArray) -> Influence | None:
    """Log-loss over the entropy ``H(r)`` of the base rate; ``H'(r) = log((1-r)/r)``."""
    loss, rate = log_loss(rows, p), _mean(rows.y, rows.weight)
    if loss is None or rate is None or not 0 < rate.value < 1:
        return None
    entropy, slope = float(bernoulli_entropy(rate.value)), np.log1p(-rate.value) - np.log(rate.value)
    value = loss.value / entropy
    moved = (loss.rows - value * slope * rate.rows) / entropy
    return Influence(value, loss.mass, moved, moved)


def calibration_error(rows: Rows, p: FloatArray) -> Influence | None:
    """Mean distance of predicted to observed rate over bins; their bounds are taken as given.

    Where a bin's distance is mostly chance its absolute value varies less than it does: intervals are too wide.
    """
    if not rows.weight.sum() > 0:
        return None
    order, start = calibration_cuts(p, rows.weight)
    distance = rows.weight * (p - rows.y)
    sign = np.sign(np.add.reduceat(distance[order], start))
    signs = np.empty(len(p))
    signs[order] = np.repeat(sign, np.diff(start, append=len(p)))
    return _mean(signs * (p - rows.y), rows.weight)


def auc(rows: Rows, p: FloatArray) -> Influence | None:
    """How often a positive row scores above a negative one; equal scores count half."""
    return gauc(rows._replace(group=np.zeros(len(p), np.int64)), p)


def gauc(rows: Rows, p: FloatArray) -> Influence | None:
    """AUC ``A_g`` within each group, averaged by their mass ``M_g``; groups of one class are left out.

    A row of weight ``w`` that wins the share ``a`` of its pairs, among ``C`` of its class, adds
    ``w (A_g - A + M_g (a - A_g) / C) / M`` as its weight grows. That compares it with its own group; what it would
    have brought to any group is ``w M_g (a - A) / (C M)``, by the pairs that it is in. With one group both are the
    same.
    """
    group, won, area, positives, negatives = _wins(rows, p)
    kept = positives * negatives > 0
    mass = np.where(kept, positives + negatives, 0.0)
    total = float(mass.sum())
    if not total > 0:
        return None
    area = np.where(kept, area, 0.0)
    value = float(mass @ area) / total
    peers = np.where(rows.y > 0, positives[group], negatives[group])
    weight = np.divide(rows.weight, total, out=np.zeros(len(p)), where=kept[group])
    each = np.divide(mass[group] * weight, peers, out=np.zeros(len(p)), where=weight > 0)
    away = area[group] - value
    return Influence(
        value,
        np.where(kept[group], rows.weight, 0.0),
        weight * away + each * (won - area[group]),
        each * (won - value),
    )


def _wins(rows: Rows, p: FloatArray) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Each row's group and the share of its pairs that are in order, ``(n,)``; AUC, positives, negatives ``(g,)``.

    Shares and AUC are 0 where there are no pairs.
    """
    order, first, lead = ties(p, rows.group)
    positive = np.add.reduceat((rows.weight * rows.y)[order], first)
    negative = np.add.reduceat((rows.weight * (1.0 - rows.y))[order], first)
    runs = np.diff(lead, append=len(first))
    group = np.repeat(np.arange(len(lead)), runs)
    positives, negatives = np.add.reduceat(positive, lead), np.add.reduceat(negative, lead)

    def below(mass: FloatArray) -> FloatArray:
        sums = np.cumsum(mass) - mass
        return sums - sums[lead][group] + mass / 2.0

    beaten, beating = below(negative), positives[group] - below(positive)
    run = np.empty_like(order)
    run[order] = np.repeat(np.arange(len(first)), np.diff(first, append=len(p)))
    won = np.where(rows.y > 0, _over(beaten, negatives[group])[run], _over(beating, positives[group])[run])
    area = _over(np.add.reduceat(positive * beaten, lead), positives * negatives)
    return group[run], won, area, positives, negatives


def _over(parts: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(parts, whole, out=np.zeros_like(parts), where=whole > 0)


# --- metrics of numbers and counts ----------------------------------------------------------------------------


def rmse(rows: Rows, p: FloatArray) -> Influence | None:
    """The root of the mean squared error ``S``: ``dS / (2 sqrt S)``."""
    squared = _mean((rows.y - p) ** 2, rows.weight)
    if squared is None:
        return None
    value = squared.value**0.5
    moved = squared.rows / (2.0 * value) if value > 0.0 else np.zeros_like(p)
    return Influence(value, squared.mass, moved, moved)


def mae(rows: Rows, p: FloatArray) -> Influence | None:
    """Mean distance of a prediction from its label."""
    return _mean(np.abs(rows.y - p), rows.weight)


def r2(rows: Rows, p: FloatArray) -> Influence | None:
    """``1 - S / T`` with ``T`` the variance of the labels, which to first order does not move by their mean."""
    squared, label = _mean((rows.y - p) ** 2, rows.weight), _mean(rows.y, rows.weight)
    spread = None if label is None else _mean((rows.y - label.value) ** 2, rows.weight)
    if squared is None or spread is None or not spread.value > 0.0:
        return None
    moved = (squared.value / spread.value * spread.rows - squared.rows) / spread.value
    return Influence(1.0 - squared.value / spread.value, squared.mass, moved, moved)


def deviance(rows: Rows, p: FloatArray) -> Influence | None:
    """Mean deviance of counts."""
    return _mean(regression.row_deviance(rows.y, p), rows.weight)


def ratio(rows: Rows, p: FloatArray) -> Influence | None:
    """What is predicted of all counts over what they come to."""
    total = float(rows.weight @ rows.y)
    if not total > 0.0:
        return None
    value = float(rows.weight @ p) / total
    moved = rows.weight * (p - value * rows.y) / total
    return Influence(value, rows.weight, moved, moved)


def _regret_of(kind: regression.Kind) -> Measure:
    def measure(rows: Rows, p: FloatArray) -> Influence | None:
        true = np.isfinite(rows.truth)
        lost = regression.row_regret(np.where(true, rows.truth, 1.0), p, kind)
        return _mean(np.where(true, lost, 0.0), rows.weight * true)

    return measure


_OF_NUMBERS: Mapping[str, Measure] = {"rmse": rmse, "mae": mae, "r2": r2}

METRICS: Mapping[LabelKind, Mapping[str, Measure]] = {
    "binary": {
        "auc": auc,
        "gauc": gauc,
        "log_loss": log_loss,
        "normalized_entropy": normalized_entropy,
        "calibration_error": calibration_error,
        "regret": regret,
    },
    "number": {**_OF_NUMBERS, "regret": _regret_of("number")},
    "count": {"deviance": deviance, **_OF_NUMBERS, "ratio": ratio, "regret": _regret_of("count")},
}
