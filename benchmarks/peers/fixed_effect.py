"""One effect of many rows: to the same distance above the least loss, and its whole precision there."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from acclimate import update_posterior
from acclimate.arrays import FloatArray, Posterior
from acclimate.models.blocks import Design
from benchmarks.peers.table import Table
from benchmarks.peers.turns import in_turns

WIDTH, CELLS, RIDGE, CLOSE = 1_000, 20, 1.0, 1e-6
GRAMS = 3
"""Rounds of precisions at most: SciPy's takes many seconds."""


def numbers(rows: int) -> "sparse.csr_array[Any]":
    """Cells anywhere, standard normal: as well conditioned as can be."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, WIDTH, (rows, CELLS))
    X = sparse.csr_array(
        (rng.normal(size=rows * CELLS), columns.ravel(), CELLS * np.arange(rows + 1)), (rows, WIDTH)
    )
    X.sum_duplicates()
    return X


def levels(rows: int) -> "sparse.csr_array[Any]":
    """One level of each of so many fields, the ``k``-th most frequent level ``1/k`` as often as the first."""
    rng, count = np.random.default_rng(0), WIDTH // CELLS
    often = 1.0 / np.arange(1, count + 1)
    columns = rng.choice(count, (rows, CELLS), p=often / often.sum()) + count * np.arange(CELLS)
    return sparse.csr_array((np.ones(rows * CELLS), columns.ravel(), CELLS * np.arange(rows + 1)), (rows, WIDTH))


DESIGNS = {"normal numbers": numbers, "levels of fields": levels}


def labels(X: "sparse.csr_array[Any]") -> FloatArray:
    """Of coefficients that are normal."""
    rng = np.random.default_rng(1)
    z = X @ (0.5 * rng.normal(size=WIDTH))
    return (rng.random(len(z)) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)


def objective(X: "sparse.csr_array[Any]", y: FloatArray, w: FloatArray) -> float:
    """What all minimise."""
    z = X @ w
    return float(np.logaddexp(0.0, z).sum() - y @ z + RIDGE * (w @ w) / 2)


def compare(rows: int, *, rounds: int) -> Table:
    """Our diagonal and whole precision, scikit-learn's means, and the precision alone."""
    table = Table(
        "Fixed effect",
        f"{rows:,} rows of {CELLS} cells over {WIDTH:,} features, one thread, CPU seconds, medians of {rounds} "
        "rounds in turns. `above` is how far the loss lies above its least, relative to it: all have to be within "
        f"{CLOSE:.0e}, each by the loosest of its tolerances that does. The cells are normal numbers anywhere, or "
        "one level of each of 20 fields.",
        {"cells": "", "method": "", "seconds": ".2f", "above": ".0e"},
    )
    with threadpool_limits(1):
        for name, design in DESIGNS.items():
            X = design(rows)
            _compare(table, name, X, labels(X), rounds=rounds)
    return table


def _compare(table: Table, name: str, X: "sparse.csr_array[Any]", y: FloatArray, *, rounds: int) -> None:
    zero = np.zeros(WIDTH)
    diagonal, full = Posterior(zero, np.full(WIDTH, RIDGE)), Posterior(zero, RIDGE * np.eye(WIDTH))
    best = update_posterior(diagonal, X, y, tolerance=1e-9)[0].mean
    least = objective(X, y, best)

    def above(w: FloatArray) -> float:
        return objective(X, y, w) / least - 1.0

    def loosest(fit: Callable[[float], FloatArray], tolerances: FloatArray) -> Callable[[], FloatArray]:
        enough = next(t for t in tolerances if above(fit(t)) <= CLOSE)
        return lambda: fit(enough)

    def scikit(tolerance: float) -> FloatArray:
        model = LogisticRegression(C=1.0 / RIDGE, fit_intercept=False, tol=tolerance, max_iter=10_000)
        return model.fit(X, y).coef_[0]

    # What a loss lies above its least is decrement^2/2 of a quadratic.
    decrements, gradients = (
        np.sqrt(2.0 * CLOSE * least) * 2.0 ** -np.arange(9.0),
        10.0 ** -np.arange(1.0, 9.0, 0.5),
    )
    works: dict[str, Callable[[], FloatArray]] = {
        "acclimate, diagonal precision": loosest(
            lambda t: update_posterior(diagonal, X, y, tolerance=t)[0].mean, decrements
        ),
        "acclimate, full precision": loosest(
            lambda t: update_posterior(full, X, y, tolerance=t)[0].mean, decrements
        ),
        "scikit-learn, lbfgs": loosest(scikit, gradients),
    }
    for method, seconds in in_turns(works, rounds).items():
        table.add(cells=name, method=method, seconds=float(np.median(seconds)), above=above(works[method]()))

    p = 1.0 / (1.0 + np.exp(-(X @ best)))
    curvature, design = p * (1.0 - p), Design.of(X, None, 1, weight=np.ones(len(y)), centre=False)
    grams: dict[str, Callable[[], object]] = {
        "precision alone, acclimate": lambda: design.information(curvature, full=True),
        "precision alone, SciPy": lambda: (X.T @ X.multiply(curvature[:, None]).tocsr()).toarray(),
    }
    for method, seconds in in_turns(grams, min(rounds, GRAMS)).items():
        table.add(cells=name, method=method, seconds=float(np.median(seconds)))
