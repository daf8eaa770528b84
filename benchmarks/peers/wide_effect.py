"""A fixed effect of hundreds of thousands of features: a first fit, and updates whose cost follows their rows."""

import resource
import sys
import time
from typing import Any

import numba
import numpy as np
from scipy import sparse

from acclimate import update_posterior
from acclimate.arrays import FloatArray, Posterior
from benchmarks.peers.table import Table
from benchmarks.speed import _children

WIDTH, CELLS, CLOSE = 300_000, 20, 0.1
UPDATES = (1_000, 10_000, 100_000)


def rows(count: int, seed: int) -> "tuple[sparse.csr_array[Any], FloatArray]":
    """One level of each of 20 fields, the ``k``-th ``1/k`` as often as the first; normal coefficients."""
    rng, levels = np.random.default_rng(seed), WIDTH // CELLS
    often = 1.0 / np.arange(1, levels + 1)
    columns = rng.choice(levels, (count, CELLS), p=often / often.sum()) + levels * np.arange(CELLS)
    X = sparse.csr_array(
        (np.ones(count * CELLS), columns.astype(np.int32).ravel(), CELLS * np.arange(count + 1, dtype=np.int32)),
        (count, WIDTH),
    )
    z = X @ (0.5 * np.random.default_rng(1).normal(size=WIDTH))
    return X, (rng.random(count) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)


def measure(count: int, *, rounds: int) -> Table:
    """Seconds and peak memory, in a process of its own."""
    said = _children.run(__name__, count, rounds).said
    table = Table(
        "Wide fixed effect",
        f"{WIDTH:,} features, diagonal precision, {CELLS} cells a row, to {CLOSE} posterior standard deviations, "
        f"one thread, CPU seconds: one fit, and medians of {rounds} updates. `peak GB` is the resident memory of "
        f"the whole process, of which the rows are {said['rows'] / 1e9:.2f} GB.",
        {"work": "", "rows": ",", "seconds": ".4f", "steps": "", "peak GB": ".2f"},
    )
    for line in said["lines"]:
        table.add(**line)
    return table


def _tell(count: int, rounds: int) -> None:
    numba.set_num_threads(1)
    X, y = rows(count, 0)
    prior = Posterior(np.zeros(WIDTH), np.ones(WIDTH))
    update_posterior(prior, *rows(100, 9), tolerance=CLOSE)  # compiled, or read from the cache
    begun = time.process_time()
    posterior, info = update_posterior(prior, X, y, tolerance=CLOSE)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lines = [{"work": "fit", "rows": count, "seconds": seconds, "steps": int(info.steps), "peak GB": peak / 1e9}]
    for size in UPDATES:
        taken: list[float] = []
        for seed in range(rounds):
            batch = rows(size, 100 + seed)
            begun = time.process_time()
            _, info = update_posterior(posterior, *batch, tolerance=CLOSE)
            taken.append(time.process_time() - begun)
        lines.append(
            {"work": "update", "rows": size, "seconds": float(np.median(taken)), "steps": int(info.steps)}
        )
    _children.tell(lines=lines, rows=X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)


if __name__ == "__main__":
    _tell(int(sys.argv[1]), int(sys.argv[2]))
