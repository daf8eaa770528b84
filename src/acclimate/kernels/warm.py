"""Compile all loops, or read them from the cache, before the first that is in a hurry.

A compilation takes some ten seconds once on a machine; what comes from its cache half a second in each process.
That lies beside the package, or where ``NUMBA_CACHE_DIR`` says.
"""

import numpy as np

from acclimate.arrays import Form, Posterior


def warm_up() -> None:
    """Run each loop on next to nothing: an image of a service can be built with all that it will need."""
    _solve("full")
    _solve("diagonal")
    _add_pairs()
    _solve_jointly()
    _go_over_states()
    _pass_over_rows()
    _average_windows()
    _sum_errors()


def _solve(kept: Form) -> None:
    from acclimate.kernels.newton import Rows, derivatives, solve_entities

    one = np.ones(1)
    rows = Rows(np.ones((1, 1)), one, np.zeros(1), one, np.zeros(1, np.int64), np.array([0, 1]))
    prior = Posterior(np.zeros((1, 1)), np.ones((1, 1, 1) if kept == "full" else (1, 1)))
    solve_entities(rows, prior, loss="logistic", kept=kept, tolerance=1e-9, max_steps=9)
    derivatives("logistic", one, one)


def _add_pairs() -> None:
    from acclimate.kernels.gram import add_pairs

    one = np.ones(1)
    add_pairs(one, np.zeros(1, np.int32), np.array([0, 1], np.int32), one, np.zeros((1, 1)))


def _solve_jointly() -> None:
    from acclimate.kernels import entities

    zero, one, vector = np.zeros(1, np.int64), np.ones(1), np.ones((1, 1))
    rows = entities.Rows(one, np.zeros(1, np.int32), np.array([0, 1], np.int32), zero, zero, np.array([0, 1]))
    matrix = np.ones((1, 1, 1))
    entities.margin(rows, vector)
    entities.pullback(rows, one, 1, 1)
    entities.add_grams(rows, zero, one, matrix)
    entities.invert(matrix)
    entities.times(matrix, zero, vector, vector.copy())
    entities.posteriors(matrix, vector, matrix[0])
    entities.forms(rows, zero, matrix, one.copy())
    for prior in (matrix, vector):
        entities.variances(rows, prior, one, 1, one.copy())
        inner, places, _ = entities.inner_inverses(rows, zero, prior[0], one)
        entities.solve_inner(rows, zero, prior[0], one, (inner, places), vector, vector.copy())


def _go_over_states() -> None:
    from acclimate.kernels import states

    zero, vector, matrix = np.zeros(1, np.int64), np.ones((1, 1)), np.ones((1, 1, 1))
    for values in (np.ones((1, 2)), np.ones((1, 2), np.float32)):
        states.unpack(values, zero, zero, vector, matrix)
        states.pack(vector, matrix, zero, values)
    states.transformed(matrix, np.ones(1), np.zeros(1))
    states.positive(matrix)
    states.skewed(matrix, matrix, matrix, vector)


def _pass_over_rows() -> None:
    from acclimate.kernels.rows import (
        Cells,
        curved,
        gathered,
        gathered_squares,
        margins,
        moments,
        spreads,
        standardised,
    )

    one = np.ones(1)
    cells = Cells(one, np.zeros(1, np.int32), np.array([0, 1], np.int32))
    margins(cells, one)
    gathered(cells, one, 1)
    gathered_squares(cells, one, one)
    curved(cells, one, one)
    moments(cells, one, 1)
    spreads(cells, one, one)
    standardised(cells, one, one)


def _average_windows() -> None:
    from acclimate.kernels.windows import window_inputs

    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    window_inputs(
        zero,
        np.zeros(1, np.int32),
        np.ones(1, np.uint8),
        zero,
        one,
        one,
        1,
        one,
        False,
        np.ones((1, 1), np.float32),
        np.ones((1, 1), np.bool_),
        np.array([0, 1]),
        np.zeros((1, 1), np.int64),
        np.zeros((1, 2), np.float32),
        np.zeros((1, 1, 1)),
        np.zeros(1, np.int64),
    )


def _sum_errors() -> None:
    from acclimate.kernels.adaptation import Rows, sum_errors

    one = np.ones(1, np.float32)
    cell = np.ones((1, 1), np.float32)
    sum_errors(
        Rows(np.array([0, 1]), cell, one, one, one), cell, one, one, np.zeros_like(one), np.zeros_like(cell)
    )
