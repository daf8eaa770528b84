"""From grouped inputs to one vector: the forward pass of an encoder in NumPy, for one entity or a million."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray

_CHUNK = 1024
"""Rows at a time: what lies between two products stays in cache."""


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder of ``G`` groups that reads raw inputs: their standardisation is in the first layer's weights.

    ``edges`` ``(G, 2)``: columns of each group. ``codes``: of each group ``(its width, c)``, ``code_bias``
    ``(G c,)``; ``fusion`` ``(G c, h)`` and its bias; ``vector`` ``(h, s)`` and its bias. All float32.
    """

    edges: tuple[tuple[int, int], ...]
    codes: Sequence[NDArray[np.float32]]
    code_bias: NDArray[np.float32]
    fusion: NDArray[np.float32]
    fusion_bias: NDArray[np.float32]
    vector: NDArray[np.float32]
    vector_bias: NDArray[np.float32]
    normalised: bool = False

    @property
    def size(self) -> int:
        """Length of a vector ``s``."""
        return self.vector.shape[1]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All weights by name."""
        named = ("code_bias", "fusion", "fusion_bias", "vector", "vector_bias")
        return {f"codes.{g}": W for g, W in enumerate(self.codes)} | {name: getattr(self, name) for name in named}


def encode(weights: EncoderWeights, x: NDArray[np.float32]) -> FloatArray:
    """The vectors ``(n, s)`` of raw inputs ``(n, D)``.

    Group by group, then together::

        c_g = relu(x_g W_g + b_g),   v = relu([c_1 .. c_G] F + f) V + w

    and divided by its length where asked for.
    """
    vectors = np.empty((len(x), weights.size), np.float32)
    width = weights.codes[0].shape[1]
    most = min(_CHUNK, len(x))
    codes = np.empty((most, len(weights.code_bias)), np.float32)
    hidden = np.empty((most, len(weights.fusion_bias)), np.float32)
    for begin in range(0, len(x), _CHUNK):
        rows = x[begin : begin + _CHUNK]
        c, h, v = codes[: len(rows)], hidden[: len(rows)], vectors[begin : begin + len(rows)]
        for g, ((first, last), W) in enumerate(zip(weights.edges, weights.codes, strict=True)):
            np.matmul(rows[:, first:last], W, out=c[:, g * width : (g + 1) * width])
        c += weights.code_bias
        np.maximum(c, 0.0, out=c)
        np.matmul(c, weights.fusion, out=h)
        h += weights.fusion_bias
        np.maximum(h, 0.0, out=h)
        np.matmul(h, weights.vector, out=v)
        v += weights.vector_bias
        if weights.normalised:
            v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    return vectors
