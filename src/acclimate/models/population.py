"""The population that random effects come from, learned from all entities by empirical Bayes."""

import numpy as np
from numpy.typing import NDArray

from acclimate.artifacts import FloatArray, Posterior
from acclimate.models.gaussian import inverse

_PSEUDO_ENTITIES = 2.0
"""How many entities the ridge prior counts as: it keeps the covariance proper where there are few."""


def learn_population(
    linear: FloatArray,
    information: FloatArray,
    prior: Posterior,
    ridge: Posterior,
    *,
    free_mean: NDArray[np.bool_],
    tolerance: float = 1e-2,
    max_rounds: int = 100,
) -> tuple[Posterior, float]:
    """Maximise the marginal likelihood of the entities' evidence over the population's mean and precision.

    Every entity's likelihood is replaced by its Gaussian approximation ``exp(linear'w - w'information w/2)``, as
    Laplace's approximation of a generalised linear mixed model does. What is said of a direction of no information
    has to be nothing, so both come from the rows themselves rather than from a posterior solved to a tolerance.

    Args:
        linear: ``(e, d)``.
        information: ``(e, d, d)``, or its diagonal ``(e, d)`` where ``prior`` is diagonal.
        prior: the population to begin at, mean ``(d,)``.
        ridge: where the population starts before any data; it counts as two entities.
        free_mean: ``(d,)``; where false the mean stays at ``ridge.mean``, since another effect carries it.
        tolerance: log-likelihood gained by a round at which to stop, in nats.
        max_rounds: rounds at most.

    Returns:
        The population, in the form of ``prior``, and the log-likelihood gained over ``prior`` (to first order). A
        gain below one nat is less than what chance decides.
    """
    population, total = prior, 0.0
    for _ in range(max_rounds):
        population, gain = _refined(linear, information, population, ridge, free_mean)
        total += gain
        if gain <= tolerance:
            break
    return population, total


def _refined(
    linear: FloatArray,
    information: FloatArray,
    population: Posterior,
    ridge: Posterior,
    free_mean: NDArray[np.bool_],
) -> tuple[Posterior, float]:
    """One round: a Newton step of the mean, then the covariance that fits the entities' means as they are.

    With ``S`` the entities' posterior covariances and ``G = sum(B - B S B)`` the precision that they lend, the
    optimum has ``C G C = sum (m-b)(m-b)'`` for the population's covariance ``C = B^-1``; solving that for C with
    ``G`` and ``m`` held is the MM algorithm of Zhou, Hu, Qiao and Lange (2019), and ``C_mm B C_mm`` twice its
    step, which takes half as many rounds: the step's own error shrinks by a factor between 1/2 and 1 each time.
    Unlike EM it does not stall where entities say little about a coefficient.
    """
    B = population.precision
    full, count = population.is_full, len(linear)
    covariance = inverse(information + B) if full else 1.0 / (information + B)
    pulled = linear + (B @ population.mean if full else B * population.mean)
    mean = np.matvec(covariance, pulled) if full else covariance * pulled
    lent = count * B - (B @ covariance.sum(axis=0) @ B if full else B**2 * covariance.sum(axis=0))
    weight = lent + _PSEUDO_ENTITIES * B
    pull = (mean - population.mean).sum(axis=0) + _PSEUDO_ENTITIES * (ridge.mean - population.mean)
    centre = np.where(free_mean, population.mean, ridge.mean)
    if full:
        centre[free_mean] += np.linalg.solve(weight[np.ix_(free_mean, free_mean)], (B @ pull)[free_mean])
    else:
        centre[free_mean] += (B * pull / weight)[free_mean]
    away, apart = mean - centre, ridge.mean - centre
    if full:
        spread = away.T @ away + _PSEUDO_ENTITIES * (inverse(ridge.precision) + np.outer(apart, apart))
        slope = B @ spread @ B - weight
        step = inverse(_balanced(weight, spread))
        found = Posterior(centre, step @ inverse(B) @ step)
    else:
        spread = (away**2).sum(axis=0) + _PSEUDO_ENTITIES * (1.0 / ridge.precision + apart**2)
        slope = B**2 * spread - weight
        found = Posterior(centre, weight / spread / B)
    moved = (B @ pull if full else B * pull) @ (centre - population.mean)
    return found, float(moved + 0.5 * np.sum(slope * (found.covariance() - population.covariance())))


def _balanced(weight: FloatArray, spread: FloatArray) -> FloatArray:
    """The covariance ``C`` with ``C weight C = spread``, all ``(d, d)`` and positive definite."""
    lower = np.linalg.cholesky(weight)
    values, vectors = np.linalg.eigh(lower.T @ spread @ lower)
    half = np.linalg.solve(lower.T, vectors) * np.maximum(values, 0.0) ** 0.25
    return half @ half.T
