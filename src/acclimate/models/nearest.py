"""The nearest of many vectors, exactly: blocks of one matrix product, of which only the best are kept."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.errors import ConfigError, RowError
from acclimate.errors import nearest as meant

Metric: TypeAlias = Literal["dot", "cosine"]

_QUERIES = 256
_VECTORS = 16_384
"""Scores that are in memory at once: so many queries by so many vectors, 16 MB."""

_MANY = 8
"""Candidates, times what is wanted, from which on partitioning costs less than sorting them."""


class Nearest(NamedTuple):
    """Of each of ``q`` queries the ``k`` best: ``positions`` ``(q, k)`` and ``scores`` ``(q, k)``, best first.

    Where there are fewer than ``k``, the rest is -1 with a score of minus infinity.
    """

    positions: IntArray
    scores: NDArray[np.float32]


class Seen(NamedTuple):
    """What is left out of each query's answer: ``positions[indptr[i]:indptr[i+1]]``, in any order."""

    indptr: IntArray
    positions: IntArray


def top(
    queries: FloatArray, vectors: FloatArray, k: int, *, metric: Metric = "cosine", seen: Seen | None = None
) -> Nearest:
    """The ``k`` best of ``vectors`` ``(n, s)`` for each of ``queries`` ``(q, s)``; ties go by position.

    Args:
        queries: computed with as float32, as all is.
        vectors: what is searched.
        k: how many, 1 or more.
        metric: ``dot``, or ``cosine``, which is 0 where a vector is.
        seen: positions that are no answer.

    Raises:
        ConfigError: shapes do not fit, or there is no such metric.
        RowError: a number is not finite.
    """
    _check(queries, vectors, k, metric)
    left, right = (np.ascontiguousarray(x, np.float32) for x in (queries, vectors))
    for name, rows in (("queries", left), ("vectors", right)):
        _check_finite(name, rows)
    if metric == "cosine":
        left, right = unit(left), unit(right)
    best = Nearest(np.full((len(left), k), -1), np.full((len(left), k), -np.inf, np.float32))
    for begin in range(0, len(left), _QUERIES):
        rows = slice(begin, begin + _QUERIES)
        part = None if seen is None else _pairs(seen, begin, min(begin + _QUERIES, len(left)))
        best.positions[rows], best.scores[rows] = _top_of_rows(left[rows], right, k, part)
    return best


def _top_of_rows(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, seen: tuple[IntArray, IntArray] | None
) -> Nearest:
    best = Nearest(np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32))
    for begin in range(0, len(vectors), _VECTORS):
        scores = queries @ vectors[begin : begin + _VECTORS].T
        if seen is not None:
            inside = (seen[1] >= begin) & (seen[1] < begin + scores.shape[1])
            scores[seen[0][inside], seen[1][inside] - begin] = -np.inf
        best = _merged(best, scores, begin)
    return best


def _merged(best: Nearest, scores: NDArray[np.float32], begin: int) -> Nearest:
    """The best with those of a block ``(q, b)`` whose first vector is ``begin``: an equal one comes too late."""
    count, k = best.scores.shape
    better = scores > best.scores[:, -1:]
    if scores.shape[1] > k and np.count_nonzero(better) > _MANY * better.shape[0] * k:
        kept = scores.shape[1] - k
        better &= scores >= np.partition(scores, kept, axis=1)[:, kept, None]
    # Many times faster than nonzero by two axes.
    row, column = np.divmod(np.flatnonzero(better), scores.shape[1])
    rows = np.concatenate([np.repeat(np.arange(count), k), row])
    positions = np.concatenate([best.positions.ravel(), column + begin])
    values = np.concatenate([best.scores.ravel(), scores[row, column]])
    order = np.lexsort((positions, -values, rows))
    starts = np.searchsorted(rows[order], np.arange(count))
    taken = order[starts[:, None] + np.arange(k)]
    return Nearest(positions[taken], values[taken])


def _pairs(seen: Seen, begin: int, end: int) -> tuple[IntArray, IntArray]:
    """Rows of a block of queries and positions that they leave out."""
    bounds = seen.indptr[begin : end + 1]
    return np.repeat(np.arange(end - begin), np.diff(bounds)), seen.positions[bounds[0] : bounds[-1]]


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors ``(n, s)`` divided by their lengths; one of zeros stays."""
    # By the largest component first: the square of a small or a large one has left the range of float32.
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    scaled = vectors / np.where(largest > 0.0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(length > 0.0, length, 1.0)


def _check(queries: FloatArray, vectors: FloatArray, k: int, metric: Metric) -> None:
    """Whether a search can be done.

    Raises:
        ConfigError: shapes do not fit, or there is no such metric.
    """
    if metric not in get_args(Metric):
        raise ConfigError(f"no metric '{metric}'", hint=meant(metric, get_args(Metric)))
    if queries.ndim != 2 or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ConfigError(
            f"queries {queries.shape} do not go with vectors {vectors.shape}", hint="give (q, s), (n, s)"
        )
    if k < 1:
        raise ConfigError(f"{k} nearest are asked for", hint="ask for one or more")


def _check_finite(name: str, rows: FloatArray) -> None:
    """Whether all numbers of ``rows`` ``(n, s)`` are.

    Raises:
        RowError: one is not.
    """
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        first = np.flatnonzero(bad)[:5].tolist()
        raise RowError(f"{name} are not finite in {int(bad.sum()):,} of {len(rows):,} rows, first in rows {first}")
