"""A diagonal population, learned from entities that hold some of its coefficients only.

The same as :func:`acclimate.models.population.learn_population` of a diagonal one, where an entity that does not
hold a coefficient has nothing to say of it: evidence is a list of those that do, and all else is in closed form.
Notation and equations are those of that module, for coefficients one by one.
"""

from dataclasses import dataclass, replace

import numpy as np

from acclimate.arrays import BoolArray, FloatArray, IntArray, Posterior
from acclimate.models.population import MEAN_ENTITIES, Past, usual_variance


@dataclass(frozen=True)
class HeldEvidence:
    """What rows say of coefficients: ``exp(linear w - information w^2 / 2)`` of each that an entity holds.

    ``linear``, ``information`` and ``column``, which of the ``d`` it is: ``(k,)``. ``entities``: how many.
    """

    linear: FloatArray
    information: FloatArray
    column: IntArray
    entities: int

    def summed(self, values: FloatArray, width: int) -> FloatArray:
        """Numbers of what is held ``(k,)``, added up by column ``(d,)``."""
        return np.bincount(self.column, values, width).astype(np.float64)

    def without(self, width: int) -> IntArray:
        """How many entities do not hold each coefficient, ``(d,)``."""
        return self.entities - np.bincount(self.column, minlength=width)

    def remembered(self, past: Past, count: float, population: Posterior) -> Past:
        """As :meth:`acclimate.models.population.Past.with_entities`, of ``count`` entities like these."""
        if not count:
            return replace(past, population=population, share=1.0)
        B, width = population.precision, len(population.mean)
        here = self.summed(1.0 / (self.information + B[self.column]), width) + self.without(width) / B
        total = past.count + count
        S = (past.count / (past.information + B) + count * here / self.entities) / total
        return Past(total, np.maximum(1.0 / S - B, 0.0), population)


def learn_diagonal_population(
    evidence: HeldEvidence,
    prior: Posterior,
    unit: Posterior,
    *,
    free_mean: BoolArray,
    past: Past,
    tolerance: float = 1e-2,
    max_rounds: int = 100,
) -> tuple[Posterior, float]:
    """Maximise the marginal likelihood of the evidence over the population's means and precisions.

    Arguments and what is returned are those of :func:`acclimate.models.population.learn_population`; ``prior``,
    ``unit`` and ``past`` are diagonal.
    """
    found, total = prior, 0.0
    for _ in range(max_rounds):
        found, gain = _refined(evidence, found, unit, free_mean, past)
        total += gain
        if not gain > tolerance:
            break
    return found, total


def _refined(
    evidence: HeldEvidence, at: Posterior, unit: Posterior, free: BoolArray, past: Past
) -> tuple[Posterior, float]:
    """One round, and the log-likelihood that it gains; its steps are numbered as those of full populations."""
    b, B, r, U, j, d = at.mean, at.precision, unit.mean, 1.0 / unit.precision, evidence.column, len(at.mean)
    b0, C0 = past.population.mean, 1.0 / past.population.precision
    h, k, f, count = MEAN_ENTITIES, 2.0, past.share, past.count
    usual = (1.0 - f) * r + f * b0

    # 1. Posteriors of what is held, of one that is past, and the usual variance.
    S = 1.0 / (evidence.information + B[j])
    m = S * (evidence.linear + B[j] * b[j])
    S_past = 1.0 / (past.information + B)
    K = S_past * past.information
    t = usual_variance(k * d, k * float(np.sum(B * U)))

    # 2. B - B S B = B A S: nothing of what is not held.
    G = B * (evidence.summed(evidence.information * S, d) + count * K)

    # 3. A Newton step of the means that are free.
    drawn = evidence.summed(m - b[j], d) + count * K * (b0 - b)
    slope = B * (drawn + h * (usual - b))
    centre = np.where(free, b + slope / (G + h * B), r)

    # 4. The spread around them, once posteriors have followed the means: m = S (l + B centre), so that who does
    #    not hold a coefficient is at its mean, and does not count as far away as that has moved.
    away = m - b[j] - evidence.information * S * (centre - b)[j]
    spread = evidence.summed(away**2, d) + count * (K * K * (C0 + (b0 - centre) ** 2) + K * S_past)
    expected = (1.0 - f) * (k * t * U + h * (r - centre) ** 2) + f * (k * C0 + h * (b0 - centre) ** 2)
    Q, W = spread + expected, G + k * B

    # 5. C_mm W C_mm = Q, and twice its step.
    squared = Q / W
    gain = np.sum(slope * (centre - b)) + 0.5 * np.sum((B * B * Q - W) * (squared * B - 1.0 / B))
    return Posterior(centre, 1.0 / (B * squared)), float(gain)
