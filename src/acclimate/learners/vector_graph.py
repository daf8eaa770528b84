"""A graph of vectors that is walked to the nearest (HNSW), by usearch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from acclimate.arrays import FloatArray, IntArray
from acclimate.models.nearest import Metric, Nearest, top, unit

_LINKS, _EFFORT = 16, 128
"""Edges of a vector, and candidates that a walk holds."""


class Graph:
    """Vectors ``(n, s)`` by position.

    The graph is one of products (Morozov and Babenko, NeurIPS 2018). To make products distances by one more column
    loses most of the best where lengths differ: of ten it found 2 to 4, this one 9.9.

    Equal vectors, as of all users of whom nothing is known, are one node: as many nodes they have edges to each
    other alone, and cut the graph. With a fifth of 20,000 equal, one to three of the ten nearest were lost.
    """

    def __init__(self, vectors: NDArray[np.float32], metric: Metric) -> None:
        self._metric: Metric = metric
        self._nodes, node = np.unique(self._scaled(vectors), axis=0, return_inverse=True)
        self._counts = np.bincount(node)
        self._members, self._starts = np.argsort(node, kind="stable"), np.cumsum(self._counts) - self._counts
        self._index = Index(
            ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=_LINKS, expansion_add=_EFFORT
        )
        self._index.add(np.arange(len(self)), self._nodes, threads=1)  # one thread: always the same graph

    def __len__(self) -> int:
        """How many vectors are not equal."""
        return len(self._nodes)

    def nearest(self, queries: FloatArray, k: int) -> Nearest:
        """The ``k`` best that a walk finds, far fewer than all nodes, with their scores, best first."""
        asked = self._scaled(np.asarray(queries, np.float32))
        self._index.expansion_search = max(_EFFORT, 2 * k)
        found: Any = self._index.search(asked, k, threads=1)
        counts = getattr(found, "counts", len(found.keys))  # of one query there are as many keys as were found
        if np.any(counts < k):
            best = top(asked, self._nodes, k, metric="dot")
        else:
            nodes: IntArray = np.asarray(found.keys, np.int64).reshape(len(asked), k)  # of one query it is a row
            scores = np.matvec(self._nodes[nodes], asked)
            order = np.lexsort((nodes, -scores))
            best = Nearest(np.take_along_axis(nodes, order, 1), np.take_along_axis(scores, order, 1))
        return self._spread(best)

    def _spread(self, best: Nearest) -> Nearest:
        """Positions of vectors ``(q, k)`` in place of nodes: the first ``k`` of all that are at them."""
        nodes, k = best.positions, best.positions.shape[1]
        count = self._counts[nodes]
        before = np.cumsum(count, axis=1) - count
        count = np.clip(k - before, 0, count).ravel()
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        positions = self._members[np.repeat(self._starts[nodes.ravel()], count) + within]
        return Nearest(positions.reshape(nodes.shape), np.repeat(best.scores.ravel(), count).reshape(nodes.shape))

    def _scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit(vectors) if self._metric == "cosine" else vectors
