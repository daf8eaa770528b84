"""Draws from posteriors by seed, effect and entity alone: who else is asked about does not matter."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from acclimate.artifacts import ArrowArray, FloatArray, Posterior

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def draws(posterior: Posterior, ids: ArrowArray, seed: Sequence[int]) -> FloatArray:
    """One draw ``(u, d)`` of ``N(m, H^-1)`` for each of these entities: ``m + L^-T e`` for ``H = L L'``."""
    noise = _noise(ids, seed, posterior.mean.shape[-1])
    if not posterior.is_full:
        return posterior.mean + noise / np.sqrt(posterior.precision)
    upper = np.swapaxes(np.linalg.cholesky(posterior.precision), -1, -2)
    return posterior.mean + np.linalg.solve(upper, noise[..., None])[..., 0]


def hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _noise(ids: ArrowArray, seed: Sequence[int], width: int) -> FloatArray:
    """White noise ``(u, width)``: a stream of splitmix64 per entity, begun at a hash of seed and id."""
    begun = hashlib.blake2b("/".join(map(str, [*seed, ""])).encode(), digest_size=8)
    digests: list[bytes] = []
    for entity in ids.to_pylist():
        one = begun.copy()
        one.update(str(entity).encode())
        digests.append(one.digest())
    start = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    bits = hashed(start[:, None] + _GAMMA * np.arange(1, width + 1, dtype=np.uint64))
    # 52 bits and a half: neither 0 nor 1, which have no quantile.
    return ndtri(((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)
