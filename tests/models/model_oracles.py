"""What the tests of the mathematics compare with: everything written out in NumPy, solved by SciPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """``X`` (n, d), the rest (n,)."""

    X: Array
    y: Array
    offset: Array
    weight: Array

    def taken(self, rows) -> "Rows":
        return Rows(self.X[rows], self.y[rows], self.offset[rows], self.weight[rows])

    @property
    def columns(self) -> dict[str, Array]:
        return {"offset": self.offset, "weight": self.weight}


def draw(seed: int, n: int, d: int, *, intercept: bool = True) -> Rows:
    """Rows of a logistic model, with offsets and weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    if intercept:
        X[:, 0] = 1.0
    offset, weight = rng.normal(size=n), rng.uniform(0.2, 3.0, n)
    y = (rng.random(n) < sigmoid(X @ rng.normal(size=d) / np.sqrt(d) + offset)).astype(np.float64)
    return Rows(X, y, offset, weight)


def random_precision(seed: int, d: int, size: float = 1.0) -> Array:
    A = np.random.default_rng([seed, 7]).normal(size=(d, 2 * d))
    return size * (A @ A.T / d + np.eye(d))


def sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))


def objective(w: Array, m: Array, P: Array, rows: Rows) -> float:
    """``sum_i s_i log(1 + exp(-(2y_i-1) z_i)) + (w-m)'P(w-m)/2``."""
    z = rows.X @ w + rows.offset
    losses = np.logaddexp(0.0, -(2.0 * rows.y - 1.0) * z)
    return float(rows.weight @ losses + 0.5 * (w - m) @ P @ (w - m))


def gradient(w: Array, m: Array, P: Array, rows: Rows) -> Array:
    p = sigmoid(rows.X @ w + rows.offset)
    return rows.X.T @ (rows.weight * (p - rows.y)) + P @ (w - m)


def information(w: Array, rows: Rows) -> Array:
    """``sum_i s_i p_i (1 - p_i) x_i x_i'``."""
    p = sigmoid(rows.X @ w + rows.offset)
    return rows.X.T @ ((rows.weight * p * (1.0 - p))[:, None] * rows.X)


def minimiser(m: Array, P: Array, rows: Rows) -> Array:
    """SciPy's: a trust region to get near, then the root of the gradient."""
    near = optimize.minimize(
        objective, m, (m, P, rows), jac=gradient, hess=lambda w, *_: P + information(w, rows), method="trust-exact"
    )
    root = optimize.root(
        gradient, near.x, (m, P, rows), jac=lambda w, *_: P + information(w, rows), options={"xtol": 1e-15}
    )
    left = gradient(root.x, m, P, rows)
    assert np.sqrt(left @ np.linalg.solve(P + information(root.x, rows), left)) < 1e-10
    return root.x


def distance(a: Array, b: Array, H: Array) -> float:
    """How far apart two means are, in posterior standard deviations, in the direction where it is most."""
    return float(np.sqrt((a - b) @ H @ (a - b)))


def relative_difference(A: Array, B: Array) -> float:
    """The largest relative difference of two precisions, over all directions."""
    root = np.linalg.inv(np.linalg.cholesky(B))
    return float(np.abs(np.linalg.eigvalsh(root @ (A - B) @ root.T)).max())


def differences(f, x: Array, step: float = 1e-5) -> Array:
    """Central differences of ``f`` in each coordinate of ``x`` (d,), ``(d, ...)``."""
    return np.array([(f(x + e) - f(x - e)) / (2.0 * step) for e in step * np.eye(len(x))])
