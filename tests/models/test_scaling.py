import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import apart, distance, draw, random_precision
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.artifacts import Posterior
from acclimate.models import update_posterior
from acclimate.models.scaling import Scaling


def design(seed: int, n: int = 50) -> np.ndarray:
    """An intercept; a shifted column; a small one; an indicator; a sparse column; a constant; an empty one."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 7)) * [1, 0.5, 1e-3, 1, 20, 1, 1] + [0, 2022, 0, 0, 0, 0, 0]
    X[:, 0], X[:, 5], X[:, 6] = 1.0, 3.3, 0.0
    X[:, 3] = rng.random(n) < 0.3
    X[:, 4] *= rng.random(n) < 0.3
    return X


@pytest.mark.parametrize("centre", [True, False])
def test_what_scaled_columns_look_like(centre):
    X = design(0)
    scaling = Scaling.of(sparse.csr_array(X), centre=centre)
    inside = scaling.rows(sparse.csr_array(X)).toarray()
    held = np.count_nonzero(X[:, 4])
    assert_array_equal(inside[:, [0, 3, 6]], X[:, [0, 3, 6]])
    assert_allclose((inside[:, [1, 2]] - inside[:, [1, 2]].mean(axis=0)).std(axis=0), [1.0, 1.0], rtol=1e-9)
    assert_allclose(np.sum(inside[:, 4] ** 2) / held, 1.0)
    assert_array_equal(inside[:, 4] == 0.0, X[:, 4] == 0.0)
    assert_allclose(inside[:, 5], np.ones(50))
    if centre:
        assert_allclose(inside[:, [1, 2]].mean(axis=0), [0.0, 0.0], atol=1e-9)
        assert_array_equal(scaling.centre[[0, 3, 4, 5, 6]], np.zeros(5))
    else:
        assert_array_equal(scaling.centre, np.zeros(7))


def test_without_an_intercept_nothing_is_centred():
    X = design(1)[:, 1:3]
    assert_array_equal(Scaling.of(sparse.csr_array(X), centre=True).centre, np.zeros(2))
    one = Scaling.of(sparse.csr_array(design(1, n=1)), centre=True)
    assert_array_equal(one.centre, np.zeros(7))
    none = Scaling.of(sparse.csr_array((0, 3)), centre=True)
    assert none.trivial


@pytest.mark.parametrize("value", [0.1, 3.3, 2022.3, 1e12 + 1.0, -1e-7])
@pytest.mark.parametrize("n", [2, 5, 10, 1000, 100_000])
def test_a_constant_column_is_not_taken_for_a_varying_one(n, value):
    """Its mean is rounded, so that its distance from it is not 0."""
    scaling = Scaling.of(sparse.csr_array(np.column_stack([np.ones(n), np.full(n, value)])), centre=True)
    assert_array_equal(scaling.centre, [0.0, 0.0])
    assert_allclose(scaling.scale, [1.0, abs(value)], rtol=1e-12)


@pytest.mark.parametrize("spread", [1e10, 1e7, 1e5, 1e4])
def test_a_spread_is_found_where_the_mean_dwarfs_it(spread):
    t = np.round(1.65e12 + spread * np.random.default_rng(2).normal(size=1000))
    scaling = Scaling.of(sparse.csr_array(np.column_stack([np.ones(1000), t])), centre=True)
    assert_allclose(scaling.scale[1], np.std(t - 1.65e12), rtol=1e-7)


@given(seed=st.integers(0, 10_000), times=st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any))
def test_a_weight_counts_the_row_so_often(seed, times):
    X = design(seed, n=12)
    weighted = Scaling.of(sparse.csr_array(X), centre=True, weight=np.array(times, np.float64))
    repeated = Scaling.of(sparse.csr_array(np.repeat(X, times, axis=0)), centre=True)
    held = np.count_nonzero(np.repeat(X, times, axis=0), axis=0) > 0
    assert_allclose(weighted.centre[held], repeated.centre[held], rtol=1e-9)
    assert_allclose(weighted.scale[held], repeated.scale[held], rtol=1e-6)


@pytest.mark.parametrize("centre", [True, False])
def test_margins_and_quadratics_are_the_same_inside_and_out(centre):
    rng = np.random.default_rng(3)
    X = sparse.csr_array(design(3))
    scaling = Scaling.of(X, centre=centre)
    mean, P = rng.normal(size=(4, 7)), np.array([random_precision(e, 7) for e in range(4)])
    inside = scaling.prior_in(Posterior(mean, P))
    assert_allclose(scaling.rows(X) @ inside.mean.T, X @ mean.T, rtol=1e-9)
    lengths = np.vecdot(mean, np.matvec(P, mean))
    assert_allclose(np.vecdot(inside.mean, np.matvec(inside.precision, inside.mean)), lengths, rtol=1e-8)


@pytest.mark.parametrize("centre", [True, False])
def test_in_and_out_again_is_the_identity(centre):
    rng = np.random.default_rng(4)
    scaling = Scaling.of(sparse.csr_array(design(4)), centre=centre)
    mean, P = rng.normal(size=(4, 7)), np.array([random_precision(e, 7) for e in range(4)])
    assert_allclose(scaling.mean_out(scaling.mean_in(mean)), mean, rtol=1e-9)
    assert_allclose(scaling.mean_in(scaling.mean_out(mean)), mean, rtol=1e-9)
    # Outside, what is known of the shifted slope is the last eighth of the digits: see test_posterior.
    assert_allclose(scaling.precision_out(scaling.precision_in(P)), P, rtol=1e-6, atol=1e-8)
    for there, back in zip(scaling.precision_in(scaling.precision_out(P)), P, strict=True):
        assert apart(there, back) < 1e-7


def test_diagonals_are_scaled_and_not_centred():
    scaling = Scaling.of(sparse.csr_array(design(5)), centre=False)
    diagonal = np.random.default_rng(5).uniform(0.1, 2.0, (3, 7))
    expected = np.array([np.diag(p) for p in scaling.precision_in(np.array([np.diag(p) for p in diagonal]))])
    assert_allclose(scaling.precision_in(diagonal), expected, rtol=1e-14)
    assert_allclose(scaling.precision_out(scaling.precision_in(diagonal)), diagonal, rtol=1e-14)


def test_indicators_alone_are_left_as_they_are():
    X = sparse.csr_array(np.column_stack([np.ones(4), [0.0, 1, 0, 1], [1.0, 0, 0, 1]]))
    scaling = Scaling.of(X, centre=True)
    mean, P = np.ones((1, 3)), np.eye(3)[None]
    assert scaling.trivial
    assert scaling.rows(X) is X
    assert scaling.mean_in(mean) is scaling.mean_out(mean) is mean
    assert scaling.precision_in(P) is scaling.precision_out(P) is P


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 0.3, 1e5]), shift=st.sampled_from([0.0, -3.0, 1e3]))
def test_scaling_and_shifting_a_column_leaves_the_fit_unchanged(seed, scale, shift):
    """``x' = scale (x + shift)`` with the prior mapped accordingly: the same margins and uncertainties."""
    rows = draw(seed, 80, 3)
    # Coefficients of x from those of x'.
    to = np.array([[1.0, shift * scale, 0.0], [0.0, scale, 0.0], [0.0, 0.0, 1.0]])
    back = np.array([[1.0, -shift, 0.0], [0.0, 1.0 / scale, 0.0], [0.0, 0.0, 1.0]])
    moved = dataclasses.replace(rows, X=rows.X @ to)
    m, P = np.array([0.2, -0.4, 0.1]), random_precision(seed, 3)
    before, _ = update_posterior(Posterior(m, P), rows.X, rows.y, **rows.columns)
    after, info = update_posterior(Posterior(back @ m, to.T @ P @ to), moved.X, rows.y, **rows.columns)
    assert info.converged
    assert distance(to @ after.mean, before.mean, before.precision) < 1e-8
    assert apart(back.T @ after.precision @ back, before.precision) < 1e-8
    assert_allclose(moved.X @ after.mean, rows.X @ before.mean, rtol=0, atol=1e-7)
