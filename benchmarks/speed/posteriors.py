"""Entities updated a second, against a plain NumPy loop, and the joint fit.

The loop is Newton's method as one would write it for one entity. Both stop at the same decrement.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from acclimate.arrays import FloatArray, IntArray, Posterior
from acclimate.models.blocks import Design
from acclimate.models.joint import Block, solve_joint
from acclimate.models.posterior import update_posteriors

LOOPED = 300
"""Entities that the loop is timed on."""


@dataclass(frozen=True)
class Entities:
    """Rows of entities, ``indptr`` (entities+1,), and their common prior."""

    X: FloatArray
    y: FloatArray
    indptr: IntArray
    prior: Posterior


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'entities':>16} {'a CPU second':>13} {'loop':>7} {'ratio':>6} {'wall s':>7} {'apart':>8}")
    for name, sizes, d in (
        ("50 rows x 10", np.full(10_000, 50), 10),
        ("50 rows x 32", np.full(2_000, 50), 32),
        ("zipf rows x 10", np.minimum(rng.zipf(1.5, 10_000), 3_000), 10),
    ):
        compare(name, entities(rng, sizes, d))
    print()
    joint(rng)


def entities(rng: np.random.Generator, sizes: IntArray, d: int) -> Entities:
    """Entities with tastes of their own."""
    entity = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.normal(size=(len(entity), d))
    z = np.vecdot(X, rng.normal(size=(len(sizes), d))[entity]) / np.sqrt(d)
    y = (rng.random(len(z)) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)
    prior = Posterior(np.zeros((len(sizes), d)), np.tile(np.eye(d), (len(sizes), 1, 1)))
    return Entities(X, y, np.concatenate([[0], np.cumsum(sizes)]), prior)


def compare(name: str, data: Entities) -> None:
    """One line: entities a CPU second of both, and how far apart their means are."""
    count = len(data.prior.mean)
    together, cpu, wall = timed(lambda: update_posteriors(data.prior, data.X, data.y, data.indptr)[0])
    some = np.random.default_rng(1).choice(count, LOOPED, replace=False)
    alone, looped, _ = timed(lambda: [newton(data, e) for e in some])
    apart = np.abs(together.mean[some] - alone).max()
    rate, plain = count / cpu, LOOPED / looped
    print(f"{name:>16} {rate:>13,.0f} {plain:>7,.0f} {rate / plain:>6.1f} {wall:>7.2f} {apart:>8.0e}")


def newton(data: Entities, entity: int) -> FloatArray:
    """The mean of one entity's posterior."""
    rows = slice(data.indptr[entity], data.indptr[entity + 1])
    X, y, m, P = data.X[rows], data.y[rows], data.prior.mean[entity], data.prior.precision[entity]
    w = m.copy()
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(X @ w)))
        gradient = X.T @ (p - y) + P @ (w - m)
        step = np.linalg.solve(P + (X.T * (p * (1.0 - p))) @ X, gradient)
        w = w - step
        if gradient @ step < 1e-18:
            break
    return w


def joint(rng: np.random.Generator, n: int = 200_000) -> None:
    """A fixed effect and two random ones over ``n`` rows of indicators."""
    users, items = 4_000, 1_500
    user = np.minimum((10 * rng.pareto(0.8, n)).astype(np.int64), users - 1)
    item = rng.integers(0, items, n)
    made = [
        effect(rng, np.zeros(n, np.int64), count=1, d=60, levels=4),
        effect(rng, user, count=users, d=8, levels=2),
        effect(rng, item, count=items, d=6, levels=1),
    ]
    z = np.sum([of for _, of in made], axis=0)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)
    blocks = [block for block, _ in made]
    print(f"{'joint fit':>16} {'CPU s':>13} {'wall s':>7} {'steps':>6} {'products':>9} {'decrement':>10}")
    for tolerance in (1e-1, 1e-3, 1e-8):
        s, cpu, wall = timed(lambda t=tolerance: solve_joint(blocks, y, np.zeros(n), np.ones(n), tolerance=t))
        title = f"to {tolerance:.0e}"
        print(f"{title:>16} {cpu:>13.2f} {wall:>7.2f} {s.steps:>6} {s.products:>9} {s.decrement:>10.0e}")


def effect(
    rng: np.random.Generator, entity: IntArray, *, count: int, d: int, levels: int
) -> tuple[Block, FloatArray]:
    """An intercept and ``levels`` indicators a row, and the margin of coefficients of the effect's own."""
    n = len(entity)
    columns = np.column_stack([np.zeros(n, np.int64), rng.integers(1, d, (n, levels))])
    cells = np.ones(columns.size), (np.repeat(np.arange(n), levels + 1), columns.ravel())
    X = sparse.csr_array(sparse.coo_array(cells, shape=(n, d)))
    prior = Posterior(np.zeros((count, d)), np.tile(4.0 * np.eye(d), (count, 1, 1)))
    design = Design.of(X, entity, count, weight=np.ones(n), centre=True)
    return Block(design, prior, "full"), design.margin(0.5 * rng.normal(size=(count, d)))


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the work returns, its CPU seconds and its wall seconds: the best of two runs."""
    best, result = (np.inf, np.inf), None
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return result, *best


if __name__ == "__main__":
    main()
