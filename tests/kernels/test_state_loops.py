"""Loops over the states of many entities, against the same in NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.arrays import Full, Posterior
from acclimate.kernels import states as kernel
from acclimate.models.skewness import skewness
from acclimate.models.triangles import matrices, triangles

CASES = {"count": st.integers(1, 9), "d": st.integers(1, 19), "seed": st.integers(0, 2**32 - 1)}


def positive(rng, count, d):
    A = rng.normal(size=(count, d, 2 * d))
    return A @ np.swapaxes(A, 1, 2) / d + 0.5 * np.eye(d)


@given(**CASES, kind=st.sampled_from([np.float64, np.float32]))
def test_states_are_taken_and_put_back_as_numpy_does(count, d, seed, kind):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3 * count, d + d * (d + 1) // 2)).astype(kind)
    rows, places = rng.permutation(3 * count)[:count], rng.permutation(2 * count)[:count]
    mean, precision = np.full((2 * count, d), 7.0), np.full((2 * count, d, d), 7.0)
    kernel.unpack(values, rows, places, mean, precision)
    assert_array_equal(mean[places], values[rows, :d])
    assert_array_equal(precision[places], matrices(values[rows, d:], d))
    rest = np.setdiff1d(np.arange(2 * count), places)
    assert (mean[rest] == 7.0).all()
    assert (precision[rest] == 7.0).all()

    back = np.full_like(values, 7.0)
    kernel.pack(mean[places], precision[places], rows, back)
    assert_array_equal(back[rows], values[rows])
    assert_array_equal(back[rows, d:], triangles(precision[places]).astype(kind))
    assert (np.delete(back, rows, axis=0) == 7.0).all()


@given(**CASES)
def test_precisions_change_coordinates_as_by_a_matrix(count, d, seed):
    rng = np.random.default_rng(seed)
    P, a, b = positive(rng, count, d), rng.uniform(0.5, 2.0, d), rng.normal(size=d)
    T = np.diag(a)
    T[0] -= b
    assert_allclose(kernel.transformed(P, a, b), T.T @ P @ T, rtol=1e-11, atol=1e-11)


@given(**CASES)
def test_which_have_a_root_is_what_numpy_says(count, d, seed):
    rng = np.random.default_rng(seed)
    H = positive(rng, count, d)
    H[rng.random(count) < 0.5] -= 1.5 * np.eye(d)
    assert_array_equal(kernel.positive(H), [bool(one.positive()) for one in map(Full, H)])


def test_a_matrix_that_is_not_finite_has_no_root():
    bad = [np.diag([1.0, np.nan, 1.0]), np.diag([1.0, np.inf, 1.0]), np.eye(3), np.eye(3), np.zeros((3, 3))]
    bad[2][2, 1], bad[3][2, 0] = np.nan, np.inf
    assert_array_equal(kernel.positive(np.array([*bad, np.eye(3)])), [False] * 5 + [True])


@given(**CASES, each=st.booleans())
def test_skewness_is_that_of_numpy(count, d, seed, each):
    rng = np.random.default_rng(seed)
    B = positive(rng, count if each else 1, d)
    A = positive(rng, count, d)
    A[rng.random(count) < 0.2] = 0.0  # of entities that know nothing beyond their population
    posterior = Posterior(rng.normal(size=(count, d)), A + B)
    S = np.linalg.inv(posterior.precision)
    margin, variance, parts = kernel.skewed(posterior.precision, S, B, posterior.mean)
    told = skewness(posterior, Posterior(np.zeros((len(B), d)), B) if each else Posterior(np.zeros(d), B[0]))
    assert_allclose(margin, told.margin, rtol=1e-9, atol=1e-10)
    assert_allclose(variance, told.variance, rtol=1e-9, atol=1e-10)
    assert_allclose(parts, np.matvec(S, told.parts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads):
    numba = pytest.importorskip("numba")
    if threads > numba.config.NUMBA_NUM_THREADS:
        threads = 1
    rng = np.random.default_rng(0)
    P, a, b = positive(rng, 9_000, 16), rng.uniform(0.5, 2.0, 16), rng.normal(size=16)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        found = kernel.transformed(P, a, b)
        roots = kernel.positive(P)
    finally:
        numba.set_num_threads(before)
    assert_array_equal(found[[0, -1]], np.concatenate([kernel.transformed(P[[k]], a, b) for k in (0, -1)]))
    assert roots.all()
