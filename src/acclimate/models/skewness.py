"""How far the mean of a logistic posterior lies from its mode, told from what is stored of it.

The loss of a row falls off faster on the side of probability 1/2, so that the mean lies beyond the mode, away from
there. To first order in the third derivatives ``l_i'''`` of the losses (Lindley 1980, Trabajos de Estadistica 31,
223-237), with ``S`` the covariance at the mode ``w`` and ``v_i`` the variance of a row's margin::

    E[w] = w + S q        q = -1/2 sum_i l_i''' v_i x_i = 1/2 sum_i s_i v_i tanh(z_i / 2) x_i        s_i = l_i''

The rows are gone, but the first coefficient is the intercept, so that what an entity knows beyond its population,
``A = P - B = sum_i s_i x_i x_i'``, holds their number ``n = A_00``, their mean ``c = A e_0 / n`` and their spread
``V = A / n - c c'``, each weighted by ``s``, and the mean of ``x_i' S x_i``, which is ``tr(S A) / n``. To first
order about the mean row, with ``t = tanh(z / 2)`` at its margin ``z`` and ``v`` the mean variance::

    q = n/2 (v t c + 1/2 v (1 - t^2) V w + 2 t V S c)
"""

from typing import NamedTuple

import numpy as np

from acclimate.arrays import FloatArray, Full, Posterior

_TINY = 1e-9
"""Information on the intercept, in units of all that is known of it, that is as good as none."""

_PIECE = 1 << 18
"""Numbers of precisions that are worked on at a time: 2 MB."""


class Skewness(NamedTuple):
    """Of ``e`` entities: margin and its variance at the mean row ``(e,)``, by their own coefficients alone.

    ``parts`` (3, e, d): ``q`` is their sum, each times one of the :func:`factors` of that variance and of the
    margin with all effects in it.
    """

    margin: FloatArray
    variance: FloatArray
    parts: FloatArray


def skewness(posterior: Posterior, population: Posterior) -> Skewness:
    """That of posteriors at their modes: means ``(e, d)``, full precisions or those of a lone intercept.

    ``population`` is of one block, or of as many. Some entities at a time: what stands in between is as large as
    six times their precisions.
    """
    count, d = posterior.mean.shape
    step = max(1, _PIECE // d**2)
    if count <= step:
        return _skewness(posterior, population)
    found: list[Skewness] = []
    for first in range(0, count, step):
        some = slice(first, first + step)
        found.append(
            _skewness(posterior.at(some), population if population.mean.ndim == 1 else population.at(some))
        )
    margin, variance, parts = zip(*found, strict=True)
    return Skewness(np.concatenate(margin), np.concatenate(variance), np.concatenate(parts, axis=1))


def _skewness(posterior: Posterior, population: Posterior) -> Skewness:
    P, S = posterior.P.full().array, posterior.P.full().inverse().array
    A = P - population.P.full().array
    n = np.where(A[:, 0, 0] > _TINY * P[:, 0, 0], A[:, 0, 0], 0.0)
    moments = np.divide(A, n[:, None, None], out=np.zeros_like(A), where=n[:, None, None] > 0.0)
    w, c = posterior.mean, moments[:, :, 0]
    V = moments - c[:, :, None] * c[:, None, :]
    parts = (0.5 * c, 0.25 * np.matvec(V, w), np.matvec(V, np.matvec(S, c)))
    return Skewness(
        np.vecdot(c, w), np.maximum(np.sum(S * moments, axis=(1, 2)), 0.0), n[:, None] * np.stack(parts)
    )


def factors(margin: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``v t``, ``v (1 - t^2)`` and ``t``, shaped as ``margin``."""
    t = np.tanh(0.5 * margin)
    return variance * t, variance * (1.0 - t * t), t


def pull(posterior: Posterior, population: Posterior, margin: FloatArray) -> FloatArray:
    """``q`` of entities ``(e, d)``, other effects giving their rows ``margin`` ``(e,)``.

    A mean is moved by one standard deviation at most: the first order says nothing of more.
    """
    found = skewness(posterior, population)
    q = np.einsum("ke,ked->ed", np.stack(factors(margin + found.margin, found.variance)), found.parts)
    far = np.sqrt(np.maximum(np.vecdot(q, Full(posterior.P.full().array).solve(q)), 1.0))
    return q / far[:, None]


def is_told(posterior: Posterior) -> bool:
    """Whether posteriors hold what is needed: full precisions, or a lone intercept."""
    return posterior.is_full or posterior.mean.shape[-1] == 1
