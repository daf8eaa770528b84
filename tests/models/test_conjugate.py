"""Conjugate gradients: solutions, lengths in the norm of the matrix, and when they stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.models.conjugate import conjugate_gradients


def solved(H, M, b, *, forcing=1e-12, close=0.0):
    """The solution, and how many products it took."""
    taken = []

    def product(v):
        taken.append(v)
        return H @ v

    x, _ = conjugate_gradients(product, lambda r: np.linalg.solve(M, r), b, forcing=forcing, close=close)
    return x, len(taken)


@given(st.integers(0, 99), st.integers(1, 12))
def test_it_is_the_solution(seed, d):
    rng = np.random.default_rng(seed)
    H, M, b = random_precision(seed, d), random_precision(seed + 1, d), rng.normal(size=d)
    x, _ = solved(H, M, b)
    assert_allclose(x, np.linalg.solve(H, b), rtol=0, atol=1e-8 * np.abs(np.linalg.solve(H, b)).max())


@pytest.mark.parametrize("forcing", [0.5, 0.05, 1e-3])
def test_it_leaves_over_what_it_may(forcing):
    H, b = random_precision(1, 30), np.random.default_rng(1).normal(size=30)
    x, products = solved(H, np.eye(30), b, forcing=forcing)
    assert np.linalg.norm(H @ x - b) <= forcing * np.linalg.norm(b)
    assert 0 < products < solved(H, np.eye(30), b)[1]


@pytest.mark.parametrize("close", [3.0, 0.3, 0.03])
def test_it_misses_no_more_than_what_is_close(close):
    """Told by a preconditioner that is within a tenth of the matrix."""
    d, rng = 40, np.random.default_rng(2)
    H, b = random_precision(2, d), 10.0 * rng.normal(size=d)
    root = np.linalg.cholesky(H)
    noise = 0.05 * rng.normal(size=(d, d))
    M = root @ (np.eye(d) + (noise + noise.T) / np.sqrt(d)) @ root.T
    x, products = solved(H, M, b, close=close)
    missed = x - np.linalg.solve(H, b)
    told = conjugate_gradients(lambda v: H @ v, lambda r: np.linalg.solve(M, r), b, forcing=1e-12, close=close)[1]
    assert 0.5 * told <= 1.3 * np.sqrt(missed @ H @ missed) <= 1.3 * told
    assert np.sqrt(missed @ H @ missed) <= 1.3 * close
    assert np.sqrt(x @ H @ x) > close
    assert products < solved(H, M, b)[1]


def test_what_is_short_is_sought_in_full():
    """A step within what is close says that the optimum is near: that must not be a guess."""
    H, b = random_precision(3, 20), 1e-3 * np.random.default_rng(3).normal(size=20)
    x, _ = solved(H, np.eye(20), b, close=1.0)
    assert_allclose(H @ x, b, rtol=0, atol=1e-12)


def test_the_matrix_as_its_own_preconditioner_takes_one_product():
    H, b = random_precision(4, 20), np.random.default_rng(4).normal(size=20)
    assert solved(H, H, b, forcing=1e-9)[1] == 1


def test_nothing_is_solved_by_nothing():
    x, products = solved(np.eye(3), np.eye(3), np.zeros(3))
    assert_array_equal(x, np.zeros(3))
    assert products == 0


def test_without_lengths_it_is_the_preconditioned_vector():
    b = np.ones(3)
    for H, M in (
        (-np.eye(3), 2.0 * np.eye(3)),
        (np.full((3, 3), np.nan), 2.0 * np.eye(3)),
        (np.eye(3), -np.eye(3)),
    ):
        assert_array_equal(solved(H, M, b)[0], np.linalg.solve(M, b))
