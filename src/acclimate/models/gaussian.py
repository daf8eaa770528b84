"""Algebra of Gaussian blocks: forgetting, and what joins a posterior whose features have grown.

Stabilised forgetting after Kulhavy and Zarrop (1993), as used for sequential logistic regression by
Ouyang et al. (arXiv 2108.13299) in the form ``H1 = d H0 + X'DX + (1 - d) lambda I``.
"""

import numpy as np

from acclimate.arrays import Diagonal, FloatArray, Posterior
from acclimate.errors import ConfigError

MATRIX_AT_MOST = 16_384
"""Coefficients of which a matrix is built at most, and only if asked for: 2 GB."""


def forget(posterior: Posterior, base: Posterior | None, keep: float | FloatArray) -> Posterior:
    """The prior of an update: ``P0 = d H + (1-d) B`` and ``m0 = P0^-1 (d H m + (1-d) B b)``.

    Args:
        posterior: of one block or of ``n`` entities.
        base: of one block or of ``n`` entities; diagonal where ``posterior`` is.
        keep: the weight ``d`` of the past in [0, 1]; a number, or ``(n,)`` for ``n`` entities.

    Raises:
        ConfigError: something is to be forgotten, and there is no base of a fitting form to take its place.
    """
    d = np.asarray(keep, np.float64)
    if not np.all((d >= 0.0) & (d <= 1.0)):
        raise ConfigError("forgetting lies outside [0, 1]", hint="1 keeps all of the past, 0 none")
    if np.all(d == 1.0):
        return posterior
    if base is None:
        raise ConfigError("forgetting below 1 needs a base", hint="what is forgotten returns to it")
    if base.is_full and not posterior.is_full:
        raise ConfigError("a diagonal posterior cannot return to a full base", hint="give the base's diagonal")
    fill = base.P.scaled(1.0 - d)
    P0 = posterior.P.scaled(d).plus(fill)
    # As a step away from m: the terms of d H m cancel where a feature's mean dwarfs its spread.
    step = P0.solve(fill.times(base.mean - posterior.mean))
    return Posterior(posterior.mean + step, P0.array)


def decay(elapsed: FloatArray, half_life: float) -> FloatArray:
    """``d = 2^(-dt / half_life)``; late events (``elapsed < 0``) forget nothing. Same unit for both."""
    return np.exp2(-np.maximum(elapsed, 0.0) / half_life)


def rebased(posterior: Posterior, old: Posterior, new: Posterior) -> Posterior:
    """The posteriors of entities had their population been ``new`` all along and not ``old``.

    These are of one block, or of one for each entity, and diagonal or of the form of the posteriors.

    What their rows say stays: ``H' = H - B + B'`` and ``H'm' = Hm - Bb + B'b'``. As a step away from ``m``:
    ``m' = m + H'^-1 (B'(b' - m) - B(b - m))``.
    """
    change = new.precision - old.precision
    if posterior.is_full and not new.is_full:
        change = Diagonal(change).full().array
    H = type(posterior.P)(posterior.precision + change)
    slope = new.P.times(new.mean - posterior.mean) - old.P.times(old.mean - posterior.mean)
    return Posterior(posterior.mean + H.solve(slope), H.array)


def widened(posterior: Posterior, population: Posterior) -> Posterior:
    """The same knowledge in the width and form of ``population`` (one block, or as many as ``posterior``).

    Coefficients that were not there are at the population, independent of the others; a full precision becomes
    its diagonal where the population is diagonal, before it is widened, so that a wide matrix is never there.
    """
    if posterior.is_full and not population.is_full:
        posterior = Posterior(posterior.mean, posterior.P.kept("diagonal").array)
    elif population.is_full and not posterior.is_full:
        posterior = Posterior(posterior.mean, posterior.P.full().array)
    old, d, blocks = posterior.mean.shape[-1], population.mean.shape[-1], posterior.mean.shape[:-1]
    if old == d:
        return posterior
    mean = np.empty((*blocks, d))
    mean[..., :old], mean[..., old:] = posterior.mean, population.mean[..., old:]
    precision = np.zeros((*blocks, *population.precision.shape[population.mean.ndim - 1 :]))
    if population.is_full:
        precision[..., :old, :old] = posterior.precision
        precision[..., old:, old:] = population.precision[..., old:, old:]
    else:
        precision[..., :old], precision[..., old:] = posterior.precision, population.precision[..., old:]
    return Posterior(mean, precision)
