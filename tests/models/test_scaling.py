import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import distance, draw, random_precision, relative_difference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.arrays import Diagonal, Full, Posterior
from acclimate.models.posterior import update_posterior
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
    assert_allclose(scaling.precision_out(scaling.precision_in(Full(P))).array, P, rtol=1e-6, atol=1e-8)
    for there, back in zip(scaling.precision_in(scaling.precision_out(Full(P))).array, P, strict=True):
        assert relative_difference(there, back) < 1e-7


def test_diagonals_are_scaled_and_not_centred():
    scaling = Scaling.of(sparse.csr_array(design(5)), centre=False)
    diagonal = np.random.default_rng(5).uniform(0.1, 2.0, (3, 7))
    inside = scaling.precision_in(Diagonal(diagonal))
    assert_allclose(inside.array, scaling.precision_in(Diagonal(diagonal).full()).diagonal(), rtol=1e-14)
    assert_allclose(scaling.precision_out(inside).array, diagonal, rtol=1e-14)


def test_indicators_alone_are_left_as_they_are():
    X = sparse.csr_array(np.column_stack([np.ones(4), [0.0, 1, 0, 1], [1.0, 0, 0, 1]]))
    scaling = Scaling.of(X, centre=True)
    mean, P = np.ones((1, 3)), Full(np.eye(3)[None])
    assert scaling.trivial
    assert scaling.rows(X) is X
    assert scaling.mean_in(mean) is scaling.mean_out(mean) is scaling.slope_out(mean) is mean
    assert scaling.precision_in(P) is scaling.precision_out(P) is P
    prior = Posterior(mean, P.array)
    assert scaling.prior_in(prior) is prior


# --- the closed forms against T written out -------------------------------------------------------------


def written_out(scaling: Scaling) -> np.ndarray:
    """``T = diag(1/s) - e0 (c/s)'``."""
    T = np.diag(1.0 / scaling.scale)
    T[0] -= scaling.centre / scaling.scale
    return T


def mild(seed: int, *, centre: bool = True) -> tuple["sparse.csr_array", Scaling]:
    """Columns of every kind, of units that cost no digits, and their scaling."""
    X = design(seed)
    X[:, 1] -= 2020.0
    rows = sparse.csr_array(X)
    return rows, Scaling.of(rows, centre=centre)


@pytest.mark.parametrize("centre", [True, False])
def test_the_inverse_is_what_it_is_said_to_be(centre):
    _, scaling = mild(6, centre=centre)
    said = np.diag(scaling.scale)
    said[0] += scaling.centre
    assert scaling.centre.any() == centre
    assert scaling.centre[0] == 0.0
    assert scaling.scale[0] == 1.0
    assert_allclose(said @ written_out(scaling), np.eye(7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=["one block", "one entity", "many"])
@pytest.mark.parametrize("centre", [True, False])
def test_no_product_with_the_basis_needs_it_written_out(centre, shape):
    rng = np.random.default_rng(7)
    X, scaling = mild(7, centre=centre)
    T, mean = written_out(scaling), rng.normal(size=(*shape, 7))
    back = np.linalg.inv(T)
    P = np.broadcast_to(random_precision(7, 7), (*shape, 7, 7)) * (1.0 + rng.random((*shape, 1, 1)))
    assert_allclose(scaling.rows(X).toarray(), X.toarray() @ T, rtol=0, atol=1e-12)
    assert_allclose(scaling.mean_in(mean), np.matvec(back, mean), rtol=1e-12, atol=1e-14)
    assert_allclose(scaling.mean_out(mean), np.matvec(T, mean), rtol=1e-12, atol=1e-14)
    assert_allclose(scaling.slope_out(mean), np.matvec(back.T, mean), rtol=1e-12, atol=1e-14)
    for inside in (scaling.precision_in(Full(P)).array, scaling.prior_in(Posterior(mean, P)).precision):
        assert_allclose(inside, T.T @ P @ T, rtol=1e-11, atol=1e-11)
    assert_allclose(scaling.precision_out(Full(P)).array, back.T @ P @ back, rtol=1e-11, atol=1e-11)
    assert_allclose(scaling.prior_in(Posterior(mean, P)).mean, np.matvec(back, mean), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=["one block", "one entity", "many"])
def test_a_diagonal_is_scaled_as_its_matrix_is(shape):
    _, scaling = mild(8, centre=False)
    T, P = written_out(scaling), np.random.default_rng(8).uniform(0.1, 2.0, (*shape, 7))
    inside, outside = scaling.precision_in(Diagonal(P)), scaling.precision_out(Diagonal(P))
    assert isinstance(inside, Diagonal)
    assert isinstance(outside, Diagonal)
    back = np.linalg.inv(T)
    assert_allclose(inside.full().array, T.T @ Diagonal(P).full().array @ T, rtol=1e-13)
    assert_allclose(outside.full().array, back.T @ Diagonal(P).full().array @ back, rtol=1e-13)
    assert_allclose(scaling.prior_in(Posterior(np.zeros((*shape, 7)), P)).precision, inside.array, rtol=1e-14)


@given(seed=st.integers(0, 10_000), centre=st.booleans())
def test_there_and_back_is_the_identity(seed, centre):
    rng = np.random.default_rng(seed)
    _, scaling = mild(seed, centre=centre)
    mean, P = rng.normal(size=(3, 7)), Full(np.array([random_precision(seed + e, 7) for e in range(3)]))
    assert_allclose(scaling.mean_out(scaling.mean_in(mean)), mean, rtol=1e-10, atol=1e-12)
    assert_allclose(scaling.mean_in(scaling.mean_out(mean)), mean, rtol=1e-10, atol=1e-12)
    for back in (
        scaling.precision_out(scaling.precision_in(P)),
        scaling.precision_in(scaling.precision_out(P)),
    ):
        for there, here in zip(back.array, P.array, strict=True):
            assert relative_difference(there, here) < 1e-9


def test_margins_slopes_and_quadratics_go_together():
    """``g'w`` and ``w'Hw`` are numbers that no coordinates change."""
    rng = np.random.default_rng(9)
    _, scaling = mild(9)
    inside, slope, H = rng.normal(size=(2, 7)), rng.normal(size=(2, 7)), Full(random_precision(9, 7))
    raw = scaling.mean_out(inside)
    assert_allclose(np.vecdot(scaling.slope_out(slope), raw), np.vecdot(slope, inside), rtol=1e-11)
    outside = scaling.precision_out(H)
    assert_allclose(np.vecdot(raw, outside.times(raw)), np.vecdot(inside, H.times(inside)), rtol=1e-11)


def test_nothing_that_is_mapped_is_written_to():
    X, scaling = mild(10)
    mean, P = np.ones((2, 7)), np.tile(np.eye(7), (2, 1, 1))
    copies = X.data.copy(), mean.copy(), P.copy()
    scaling.rows(X)
    for change in (scaling.mean_in, scaling.mean_out, scaling.slope_out):
        change(mean)
    for change in (scaling.precision_in, scaling.precision_out):
        change(Full(P))
    for array, copy in zip((X.data, mean, P), copies, strict=True):
        assert_array_equal(array, copy)


def test_statistics_are_summed_over_pieces_of_rows(monkeypatch):
    X, weight = sparse.csr_array(design(11, n=103)), np.random.default_rng(11).uniform(0.5, 2.0, 103)
    whole = Scaling.of(X, centre=True, weight=weight)
    monkeypatch.setattr("acclimate.kernels.rows._PIECE", 200)
    pieces = Scaling.of(X, centre=True, weight=weight)
    assert_allclose(pieces.centre, whole.centre, rtol=1e-13)
    assert_allclose(pieces.scale, whole.scale, rtol=1e-9)


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_of_no_weight_say_nothing(rows):
    """Not even that a column has zeros."""
    X, weight = design(12), np.ones(50)
    weight[:rows] = 0.0
    X[:rows] = np.where(np.arange(7) % 2 == 0, 0.0, 1e9)
    scaling = Scaling.of(sparse.csr_array(X), centre=True, weight=weight)
    without = Scaling.of(sparse.csr_array(X[rows:]), centre=True)
    assert_allclose(scaling.centre, without.centre, rtol=1e-13)
    assert_allclose(scaling.scale, without.scale, rtol=1e-9)


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
    assert relative_difference(back.T @ after.precision @ back, before.precision) < 1e-8
    assert_allclose(moved.X @ after.mean, rows.X @ before.mean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("unit", [-450, -300, 300, 505])
@pytest.mark.parametrize("centre", [True, False])
def test_columns_of_any_size_are_scaled_as_those_of_size_one(centre, unit):
    """Their squares, which overflow or vanish, are never taken; a power of two changes no digit."""
    X = design(13)
    moved = X * np.where(np.arange(7) == 0, 1.0, 2.0**unit)
    scaling, plain = (Scaling.of(sparse.csr_array(rows), centre=centre) for rows in (moved, X))
    held = X.any(axis=0) & (np.arange(7) > 0)
    assert_allclose(scaling.scale[held], np.ldexp(plain.scale[held], unit), rtol=1e-12)
    assert_allclose(scaling.centre[held], np.ldexp(plain.centre[held], unit), rtol=1e-12)
    assert scaling.scale[0] == 1.0


@pytest.mark.parametrize("weight", [5e-324, 1e-300, 1e-160, 1e160, 1e300, 1.7e308])
def test_the_unit_of_the_weights_does_not_matter(weight):
    X = sparse.csr_array(design(14))
    scaling, plain = (Scaling.of(X, centre=True, weight=np.full(50, w)) for w in (weight, 1.0))
    assert_allclose(scaling.scale, plain.scale, rtol=1e-12)
    assert_allclose(scaling.centre, plain.centre, rtol=1e-12)


def test_a_column_of_denormals_is_left_as_it_is():
    X = np.column_stack([np.ones(4), [5e-324, 1e-300, 1e-310, 0.0]])
    assert Scaling.of(sparse.csr_array(X), centre=True).trivial
