"""The joint fit of a fixed effect and two random ones, to three tolerances."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from acclimate.arrays import FloatArray, IntArray, Posterior
from acclimate.models.blocks import Design
from acclimate.models.joint import Block, solve_joint


def main(n: int = 200_000) -> None:
    """Over ``n`` rows of indicators."""
    rng = np.random.default_rng(0)
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
