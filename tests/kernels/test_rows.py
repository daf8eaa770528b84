"""Passes over sparse rows, compiled, against their one line of NumPy."""

from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.kernels import rows
from acclimate.kernels.rows import Cells


class Drawn(NamedTuple):
    """Rows, dense and sparse; weights of rows ``(n,)``, some 0; a vector ``(d,)``."""

    X: np.ndarray
    cells: Cells
    weight: np.ndarray
    vector: np.ndarray


def drawn(seed: int, n: int, d: int, density: float) -> Drawn:
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, d)) < density, rng.normal(size=(n, d)), 0.0)
    weight = np.where(rng.random(n) < 0.8, rng.random(n), 0.0)
    return Drawn(X, Cells.of(sparse.csr_array(X)), weight, rng.normal(size=d))


def moments(X, weight):
    cells = (X != 0.0).astype(float)
    return np.stack([cells.T @ (weight > 0.0).astype(float), cells.T @ weight, X.T @ weight, X.T**2 @ weight], 1)


TWINS = {
    "margins": (lambda t: t.X @ t.vector, lambda t: rows.margins(t.cells, t.vector)),
    "gathered": (lambda t: t.X.T @ t.weight, lambda t: rows.gathered(t.cells, t.weight, len(t.vector))),
    "squares": (
        lambda t: (t.X * t.vector).T ** 2 @ t.weight,
        lambda t: rows.gathered_squares(t.cells, t.weight, t.vector),
    ),
    "curved": (
        lambda t: t.X.T @ (t.weight * (t.X @ t.vector)),
        lambda t: rows.curved(t.cells, t.weight, t.vector),
    ),
    "moments": (lambda t: moments(t.X, t.weight), lambda t: rows.moments(t.cells, t.weight, len(t.vector))),
    "spreads": (
        lambda t: np.where(t.X != 0.0, t.X - t.vector, 0.0).T ** 2 @ t.weight,
        lambda t: rows.spreads(t.cells, t.weight, t.vector),
    ),
}
"""Each pass: its twin of dense rows, and itself."""


@pytest.mark.parametrize("twin", TWINS)
@given(st.integers(0, 30), st.integers(1, 60), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0, 99))
def test_they_are_those_of_numpy(twin, n, d, density, seed):
    given_rows, (plain, compiled) = drawn(seed, n, d, density), TWINS[twin]
    assert_allclose(compiled(given_rows), plain(given_rows), atol=1e-13)


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 99))
def test_standardised_cells_are_those_of_numpy_to_the_last_bit(n, d, seed):
    X, cells, _, centre = drawn(seed, n, d, 0.5)
    scale = np.random.default_rng(seed).uniform(0.1, 3.0, d)
    assert_array_equal(rows.standardised(cells, centre, scale), ((X - centre) / scale)[X != 0.0])


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("twin", TWINS)
def test_they_take_indices_of_either_width(twin, index):
    given_rows, (plain, compiled) = drawn(0, 40, 9, 0.3), TWINS[twin]
    data, indices, indptr = given_rows.cells
    cells = Cells(data, indices.astype(index), indptr.astype(index))
    assert_allclose(compiled(given_rows._replace(cells=cells)), plain(given_rows), atol=1e-13)


@pytest.mark.parametrize("twin", TWINS)
def test_arrays_that_cannot_be_written_to_will_do(twin):
    given_rows, (plain, compiled) = drawn(0, 40, 9, 0.3), TWINS[twin]
    X = sparse.csr_array(given_rows.X)
    for array in (X.data, X.indices, X.indptr, given_rows.weight, given_rows.vector):
        array.setflags(write=False)
    assert_allclose(compiled(given_rows._replace(cells=Cells.of(X))), plain(given_rows), atol=1e-13)


@pytest.mark.parametrize("twin", TWINS)
def test_bits_are_the_same_however_many_threads(monkeypatch, twin):
    """With pieces small enough for there to be many."""
    monkeypatch.setattr("acclimate.kernels.rows._PIECE", 500)
    monkeypatch.setattr("acclimate.kernels.threads._LEAST", 1)
    given_rows, (plain, compiled) = drawn(1, 900, 20, 0.4), TWINS[twin]
    before, found = numba.get_num_threads(), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        found.append(compiled(given_rows))
    numba.set_num_threads(before)
    assert_array_equal(found[0], found[1])
    assert_allclose(found[0], plain(given_rows), atol=1e-11)


def test_few_rows_start_no_threads(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("acclimate.kernels.threads.ThreadPoolExecutor", refuse)
    X = sparse.csr_array(np.random.default_rng(0).normal(size=(200, 3)))
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    try:
        assert_allclose(rows.margins(Cells.of(X), np.ones(3)), X @ np.ones(3))
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
