"""Entities with tastes of their own, and their exact posteriors."""

from dataclasses import dataclass

import numpy as np

from acclimate.arrays import FloatArray, IntArray, Posterior

RIDGE = 1.0
"""The prior's precision: that of every peer."""


@dataclass(frozen=True)
class Entities:
    """Rows of entities: the ``e``-th has those of ``X[indptr[e]:indptr[e + 1]]``; priors are ``N(0, 1/RIDGE)``."""

    X: FloatArray
    y: FloatArray
    indptr: IntArray

    @property
    def count(self) -> int:
        """How many entities."""
        return len(self.indptr) - 1

    @property
    def width(self) -> int:
        """Features of a row."""
        return self.X.shape[1]

    def rows(self, entity: int) -> tuple[FloatArray, FloatArray]:
        """``X`` and ``y`` of one of them."""
        rows = slice(self.indptr[entity], self.indptr[entity + 1])
        return self.X[rows], self.y[rows]

    def first(self, count: int) -> "Entities":
        """Some of them; they are drawn alike, so that the first are as good as any."""
        count = min(count, self.count)
        rows = self.indptr[count]
        return Entities(self.X[:rows], self.y[:rows], self.indptr[: count + 1])

    def prior(self) -> Posterior:
        """Of each entity, ``(n, d)`` and ``(n, d, d)``."""
        shape = self.count, self.width
        return Posterior(np.zeros(shape), np.tile(RIDGE * np.eye(self.width), (self.count, 1, 1)))


@dataclass(frozen=True)
class Fitted:
    """What a peer makes of entities: means ``(n, d)``, and precisions ``(n, d, d)`` if it has any."""

    mean: FloatArray
    precision: FloatArray | None = None

    def first(self, count: int) -> "Fitted":
        """Those of some entities."""
        return Fitted(self.mean[:count], None if self.precision is None else self.precision[:count])


def world(sizes: IntArray, width: int, *, seed: int) -> Entities:
    """Entities with so many rows each; features are standard normal, and so are the margins."""
    rng = np.random.default_rng(seed)
    entity = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.normal(size=(len(entity), width))
    z = np.vecdot(X, rng.normal(size=(len(sizes), width))[entity]) / np.sqrt(width)
    y = (rng.random(len(z)) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)
    return Entities(X, y, np.concatenate([[0], np.cumsum(sizes)]))


def zipf(count: int, *, seed: int) -> IntArray:
    """From one row to 3,000, most of them with few."""
    return np.minimum(np.random.default_rng(seed).zipf(1.5, count), 3_000).astype(np.int64)


def exact(data: Entities) -> Fitted:
    """By Newton's method, one entity after another, to a decrement of 1e-12."""
    mean, precision = np.zeros((data.count, data.width)), np.empty((data.count, data.width, data.width))
    for e in range(data.count):
        X, y = data.rows(e)
        decrement = np.inf
        while decrement > 1e-12:
            p = 1.0 / (1.0 + np.exp(-(X @ mean[e])))
            gradient = X.T @ (p - y) + RIDGE * mean[e]
            precision[e] = (X.T * (p * (1.0 - p))) @ X + RIDGE * np.eye(data.width)
            step = np.linalg.solve(precision[e], gradient)
            mean[e] -= step
            decrement = np.sqrt(gradient @ step)
    return Fitted(mean, precision)


def distance(fitted: Fitted, truth: Fitted) -> float:
    """How far the worst of all means is off, in posterior standard deviations: ``max_e |H^(1/2) (w - w*)|``."""
    assert truth.precision is not None
    off = fitted.mean - truth.mean
    return float(np.sqrt(np.vecdot(off, np.matvec(truth.precision, off)).max()))


def discrepancy(fitted: Fitted, truth: Fitted) -> float | None:
    """The largest difference of precisions, relative to the largest number of the true one; of none without."""
    if fitted.precision is None or truth.precision is None:
        return None
    off = np.abs(fitted.precision - truth.precision).max(axis=(-2, -1))
    return float((off / np.abs(truth.precision).max(axis=(-2, -1))).max())
