"""Algebra of Gaussian blocks: forgetting, and the diagonal forms of a precision.

Stabilised forgetting after Kulhavy and Zarrop (1993), as used for sequential logistic regression by
Ouyang et al. (arXiv 2108.13299) in the form ``H1 = d H0 + X'DX + (1 - d) lambda I``.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np

from acclimate.artifacts import FloatArray, Posterior
from acclimate.errors import ConfigError, nearest

Diagonal: TypeAlias = Literal["diagonal", "marginal"]


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
    d = d[..., None]
    if not posterior.is_full:
        past, fill = d * posterior.precision, (1.0 - d) * base.precision
        precision = past + fill
        return Posterior(posterior.mean + fill / precision * (base.mean - posterior.mean), precision)
    past, fill = d[..., None] * posterior.precision, (1.0 - d[..., None]) * embedded(base)
    precision = past + fill
    # As a step away from m: the terms of d H m cancel where a feature's mean dwarfs its spread.
    pull = np.matvec(fill, base.mean - posterior.mean)
    return Posterior(posterior.mean + np.linalg.solve(precision, pull[..., None])[..., 0], precision)


def decay(elapsed: FloatArray, half_life: float) -> FloatArray:
    """``d = 2^(-dt / half_life)``; late events (``elapsed < 0``) forget nothing. Same unit for both."""
    return np.exp2(-np.maximum(elapsed, 0.0) / half_life)


def embedded(posterior: Posterior) -> FloatArray:
    """The precision as matrices ``(..., d, d)``, whichever form it is kept in."""
    if posterior.is_full:
        return posterior.precision
    return posterior.precision[..., None] * np.eye(posterior.mean.shape[-1])


def inverse(precision: FloatArray) -> FloatArray:
    """The inverses of matrices ``(..., d, d)``; one by one is far quicker for the common ``d = 1``."""
    return 1.0 / precision if precision.shape[-1] == 1 else np.linalg.inv(precision)


def in_form(precision: FloatArray, *, full: bool) -> FloatArray:
    """Precisions of many blocks, ``(e, d, d)`` or ``(e, d)``, as a full or a diagonal prior needs them."""
    return np.diagonal(precision, axis1=1, axis2=2) if precision.ndim == 3 and not full else precision


def reduced(precision: FloatArray, diagonal: Diagonal) -> FloatArray:
    """What a diagonal posterior keeps of precisions ``(..., d, d)``: ``diag(H)`` or ``1/diag(H^-1)``.

    Photon-ML calls the variances that follow SIMPLE and FULL.
    """
    if diagonal not in get_args(Diagonal):
        raise ConfigError(f"no diagonal '{diagonal}'", hint=nearest(diagonal, get_args(Diagonal)))
    if diagonal == "marginal":
        return 1.0 / np.diagonal(inverse(precision), axis1=-2, axis2=-1)
    return np.diagonal(precision, axis1=-2, axis2=-1).copy()
