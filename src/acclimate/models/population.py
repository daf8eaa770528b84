"""The population that random effects come from, learned from all entities by empirical Bayes."""

import numpy as np
from numpy.typing import NDArray

from acclimate.artifacts import FloatArray, Posterior
from acclimate.models.gaussian import embedded, inverse

_PSEUDO_ENTITIES = 2.0
"""How many entities the ridge prior counts as: it keeps the covariance proper where there are few."""


def learn_population(
    effects: Posterior,
    prior: Posterior,
    ridge: Posterior,
    *,
    free_mean: NDArray[np.bool_],
    tolerance: float = 1e-3,
    max_rounds: int = 100,
) -> Posterior:
    """Maximise the marginal likelihood of the entities' evidence over the population's mean and precision.

    With every entity's likelihood replaced by its Gaussian approximation (information ``A = H - B``, linear term
    ``Hm - Bb``), alternate between the entities' posteriors and the population's moments (EM: Dempster, Laird and
    Rubin 1977; Laplace's approximation makes it that of a generalised linear mixed model).

    Args:
        effects: the entities' posteriors under ``prior``: mean ``(e, d)``, precision ``(e, d, d)`` or ``(e, d)``.
        prior: the population that they were fitted with, mean ``(d,)``.
        ridge: where the population starts before any data; it counts as two entities.
        free_mean: ``(d,)``; where false the mean stays at ``ridge.mean``, since another effect carries it.
        tolerance: relative change of the variances at which to stop.
        max_rounds: rounds at most.

    Returns:
        The population, in the form of ``prior``.
    """
    linear, information = _evidence(effects, prior)
    population = prior
    for _ in range(max_rounds):
        before = _variances(population)
        population = _refined(linear, information, population, ridge, free_mean)
        if np.all(np.abs(_variances(population) - before) <= tolerance * before):
            break
    return population


def _evidence(effects: Posterior, prior: Posterior) -> tuple[FloatArray, FloatArray]:
    """Linear terms ``(e, d)`` and information, as the precision is kept, of the likelihoods alone."""
    if effects.is_full:
        B = embedded(prior)
        return np.matvec(effects.precision, effects.mean) - B @ prior.mean, effects.precision - B
    pulled = effects.precision * effects.mean - prior.precision * prior.mean
    return pulled, effects.precision - prior.precision


def _refined(
    linear: FloatArray,
    information: FloatArray,
    population: Posterior,
    ridge: Posterior,
    free_mean: NDArray[np.bool_],
) -> Posterior:
    """One round: the entities' posteriors under the population, then the population's moments from them."""
    full = population.is_full
    count = len(linear)
    covariance = inverse(information + population.precision) if full else 1 / (information + population.precision)
    pulled = linear + (population.precision @ population.mean if full else population.precision * population.mean)
    mean = np.matvec(covariance, pulled) if full else covariance * pulled
    total = _PSEUDO_ENTITIES + count
    centre = (mean.sum(axis=0) + _PSEUDO_ENTITIES * ridge.mean) / total
    held = ~free_mean
    if full and held.any():
        # Means held back take with them the free ones that are correlated with them.
        spread = inverse(population.precision)
        centre -= spread[:, held] @ np.linalg.solve(spread[np.ix_(held, held)], (centre - ridge.mean)[held])
    centre = np.where(free_mean, centre, ridge.mean)
    away, apart = mean - centre, ridge.mean - centre
    if not full:
        spread = (covariance + away**2).sum(axis=0) + _PSEUDO_ENTITIES * (1.0 / ridge.precision + apart**2)
        return Posterior(centre, total / spread)
    pseudo = inverse(ridge.precision) + np.outer(apart, apart)
    spread = covariance.sum(axis=0) + away.T @ away + _PSEUDO_ENTITIES * pseudo
    return Posterior(centre, inverse(spread / total))


def _variances(population: Posterior) -> FloatArray:
    covariance = population.covariance()
    return np.diagonal(covariance) if population.is_full else covariance
