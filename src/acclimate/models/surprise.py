"""How surprised a Gaussian belief is by new rows: their loss against what the belief itself expects of it.

Effects ``k`` are believed to have coefficients ``N(m_k, S_k)``, entity by entity and independent of one another.
With ``f_k = x_k'm_k``, what an effect is believed to add to a row's margin ``z = offset + sum_k f_k``, and the
loss ``A(z) - y z`` of a row (all three losses are of that form), each statistic here is linear in the residuals
``r = y - E[y]``, whose expectation is over the labels and the coefficients (the prior predictive: Box 1980, JRSS A
143, 383-430)::

    loss of the model            A(t) - y t, t the margin of E[y]    exceeds expectation by  - sum s t r
    loss that effect k changes   A(z) - A(z - f_k) - y f_k                                   - sum s f_k r
    labels                       y                                                             sum s r

For row coefficients ``a`` the variance of ``sum a r`` is that of the labels given the coefficients, plus that of
the coefficients, which all rows of an entity share::

    Var(sum_i a_i r_i) = sum_i a_i^2 / s_i (Var(y_i) - w_i^2 v_i) + sum_k sum_e u_ke'S_ke u_ke
    u_ke = sum of a_i w_i x_ki over the rows of entity e        v_i = sum_k x_ki'S_k x_ki        w_i = dE[y_i]/dz_i

Exact for a squared loss, and else to first order in the covariance of two rows' margins. A row of weight ``s`` is
``s`` rows of the mean label ``y``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from acclimate.arrays import BoolArray, FloatArray, Posterior
from acclimate.models.blocks import Design, inverted, loops
from acclimate.models.likelihood import Loss, expected_derivatives, loss_values
from acclimate.models.scoring import LINKS, Scored, Term, predictive
from acclimate.models.skewness import factors


@dataclass(frozen=True)
class Belief:
    """What is believed of an effect of ``e`` entities, in the coordinates of its rows.

    ``population``: as in :class:`acclimate.models.scoring.Term`.
    """

    design: Design
    posterior: Posterior
    population: Posterior | None = None

    @property
    def compiled(self) -> bool:
        """Whether it is of many entities with matrices, which compiled loops go over."""
        return self.posterior.is_full and self.design.width > 1 and not self.design.lone

    def scored(self) -> Scored:
        """As :meth:`term`, by compiled loops where they can."""
        return _Believed(self) if self.compiled else self.term()

    @cached_property
    def covariance(self) -> FloatArray:
        """``S_e`` of each entity, ``(e, d, d)``."""
        return inverted(self.posterior.precision.copy())

    def explained(self, u: FloatArray) -> float:
        """The sum of ``u_e'S_e u_e`` over all entities, of vectors ``(e, d)``."""
        if not self.compiled:
            return float(np.vecdot(u, self.posterior.P.solve(u)).sum())
        moved = np.empty_like(u)
        loops().times(self.covariance, np.arange(len(u)), u, moved)
        return float(np.vecdot(u, moved).sum())

    def term(self) -> Term:
        """The effect's part of a score; rows without one of its entities have cells of 0."""
        absent, rows = self.design.entity < 0, self.design.standardised
        if absent.any():
            rows = sparse.csr_array(sparse.diags_array((~absent).astype(np.float64)) @ rows)
        entity, ids = np.maximum(self.design.entity, 0), np.arange(self.design.count)
        return Term(rows, entity, ids, self.posterior.mean, self.posterior.precision, self.population)


@dataclass(frozen=True)
class _Believed:
    """What :class:`acclimate.models.scoring.Term` says of rows, of many entities with matrices."""

    belief: Belief

    def margin(self) -> FloatArray:
        """At the means, ``(n,)``."""
        return self.belief.design.margin(self.belief.posterior.mean)

    def variance(self) -> FloatArray:
        """Of the margin, ``(n,)``."""
        design, values = self.belief.design, np.zeros(len(self.belief.design.entity))
        design.write_forms(self.belief.covariance, np.arange(design.count), values)
        return values

    def beyond_mode(self, margin: FloatArray, own: FloatArray) -> FloatArray:
        """How far the mean margin of all effects lies beyond its mode by this one, of the variance ``own``."""
        from acclimate.kernels.states import skewed

        design, posterior, population = self.belief.design, self.belief.posterior, self.belief.population
        moved = np.zeros_like(margin)
        if population is None:
            return moved
        base = population.P.full().array
        arrays = (posterior.precision, self.belief.covariance, base.reshape(-1, *base.shape[-2:]), posterior.mean)
        ahead, variance, parts = skewed(*map(loops().writable, arrays))
        entity = np.maximum(design.entity, 0)
        weights = factors(margin - self.margin() + ahead[entity], variance[entity])
        for weight, part in zip(weights, parts, strict=True):
            moved += weight * design.margin(part)
        most = np.sqrt(np.maximum(own, 0.0))
        return np.clip(moved, -most, most)

    def drawn(self, seed: Sequence[int]) -> FloatArray:
        """At one draw of every coefficient, ``(n,)``."""
        return self.belief.term().drawn(seed)


@dataclass(frozen=True)
class Surprise:
    """One statistic: means over the ``rows`` (their weights added up), and the deviation of the observed one."""

    rows: float
    observed: float
    expected: float
    standard_deviation: float

    @property
    def excess(self) -> float:
        """By how much the observed exceeds what was expected."""
        return self.observed - self.expected


@dataclass(frozen=True)
class Surprises:
    """Of the loss of the model, in nats a row, of the labels, and of the loss that each effect changes."""

    loss: Surprise
    labels: Surprise
    effects: list[Surprise]


def surprises(
    beliefs: Sequence[Belief],
    y: FloatArray,
    offset: FloatArray,
    weight: FloatArray,
    *,
    loss: Loss,
    noise: float,
    effects: Sequence[Sequence[int]] | None = None,
) -> Surprises:
    """What rows say of beliefs that have not seen them.

    Args:
        beliefs: of each effect, or of some of its entities.
        y: labels ``(n,)``.
        offset: known part of the margin, ``(n,)``.
        weight: of the rows, ``(n,)``; those of 0 are left out.
        loss: ``logistic``, ``squared`` or ``poisson``.
        noise: variance of numbers, or of counts over their mean; 1 of labels 0 and 1.
        effects: the places of the beliefs that are of one effect, where it has several.

    The loss of numbers is that beyond what predicting their expected mean would lose.
    """
    known = _Known.of(beliefs, y, offset, weight, loss=loss, noise=noise)
    s, z, t = known.weight / noise, known.margin, known.link
    every = np.ones(len(y), np.bool_)
    lost = loss_values(loss, y, t)
    if loss == "squared":
        level = float(np.average(t, weights=weight)) if weight.any() else 0.0
        lost = lost - loss_values(loss, y, np.full_like(y, level))
        t = t - level
    changed: list[Surprise] = []
    for places in [[k] for k in range(len(beliefs))] if effects is None else effects:
        f = np.sum([known.parts[k] for k in places], axis=0)
        change = loss_values(loss, y, z) - loss_values(loss, y, z - f)
        rows = np.any([beliefs[k].design.entity >= 0 for k in places], axis=0)
        changed.append(known.surprise(s * change, -s * f, rows))
    return Surprises(known.surprise(s * lost, -s * t, every), known.surprise(weight * y, weight, every), changed)


@dataclass(frozen=True)
class _Known:
    """Of each row: margin, effects' parts of it, residual, its variance given the coefficients, and the slope."""

    beliefs: Sequence[Belief]
    weight: FloatArray
    margin: FloatArray
    parts: list[FloatArray]
    link: FloatArray
    residual: FloatArray
    own: FloatArray
    slope: FloatArray

    @staticmethod
    def of(
        beliefs: Sequence[Belief],
        y: FloatArray,
        offset: FloatArray,
        weight: FloatArray,
        *,
        loss: Loss,
        noise: float,
    ) -> "_Known":
        terms = [belief.scored() for belief in beliefs]
        parts = [belief.design.margin(belief.posterior.mean) for belief in beliefs]
        mean, z, v = predictive(terms, offset, LINKS[loss])
        if loss == "logistic":
            _, slope = expected_derivatives(loss, y, z, v)
            own = mean * (1.0 - mean) - slope**2 * v
        elif loss == "squared":
            slope, own = np.ones_like(z), np.full_like(z, noise)
        else:
            slope = mean
            own = noise * mean + mean**2 * (np.expm1(v) - v)
        return _Known(beliefs, weight, z, parts, LINKS[loss].margin(mean), y - mean, np.maximum(own, 0.0), slope)

    def surprise(self, observed: FloatArray, a: FloatArray, rows: BoolArray) -> Surprise:
        """The statistic whose rows are ``observed``, and exceed expectation by ``a r``; over some ``rows``."""
        a, s = a * rows, self.weight * rows
        count = float(s.sum())
        if count == 0.0:
            return Surprise(0.0, 0.0, 0.0, 0.0)
        given = np.divide(a**2, s, out=np.zeros_like(a), where=s > 0.0)
        variance = float(given @ self.own)
        for belief in self.beliefs:
            variance += belief.explained(belief.design.pullback(a * self.slope))
        total = float((observed * rows).sum())
        excess = float(a @ self.residual)
        return Surprise(count, total / count, (total - excess) / count, variance**0.5 / count)
