"""Precisions and the posteriors that hold them: ``acclimate.arrays``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.arrays import Diagonal, EntityStates, Full, Posterior, Precision
from acclimate.errors import ConfigError

SHAPES = {"one block": (), "one of many": (1,), "many": (4,), "many of many": (2, 3)}
WIDTHS = [1, 2, 5]


def matrices(shape: tuple[int, ...], d: int, seed: int = 0) -> np.ndarray:
    """Positive definite, all different, ``(*shape, d, d)``."""
    count = int(np.prod(shape))
    return np.array([random_precision(seed + e, d, 1.0 + e) for e in range(count)]).reshape(*shape, d, d)


def vectors(shape: tuple[int, ...], d: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, d))


def each(f, array: np.ndarray, *, axes: int) -> np.ndarray:
    """``f`` of every block, whose own axes are the last, in a plain loop."""
    shape = array.shape[: array.ndim - axes]
    parts = [np.asarray(f(array[block])) for block in np.ndindex(*shape)]
    return np.array(parts).reshape(*shape, *parts[0].shape)


def each_with_vector(f, H: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``f(H, v)`` of every block, in a plain loop."""
    return np.array([f(H[block], v[block]) for block in np.ndindex(*v.shape[:-1])]).reshape(v.shape)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request) -> tuple[int, ...]:
    return request.param


@pytest.fixture(params=WIDTHS, ids="d={}".format)
def d(request) -> int:
    return request.param


# --- matrices --------------------------------------------------------------------------------------------


def test_a_matrix_times_and_solved_with_a_vector(shape, d):
    H, v = matrices(shape, d), vectors(shape, d)
    assert_allclose(Full(H).times(v), each_with_vector(np.matmul, H, v), rtol=1e-14)
    assert_allclose(Full(H).solve(v), each_with_vector(np.linalg.solve, H, v), rtol=1e-12)
    assert Full(H).solve(v).shape == v.shape


def test_one_matrix_for_many_vectors_and_many_for_one(d):
    H, v = matrices((4,), d), vectors((4,), d)
    for one in (H[:1], H[0]):
        assert_allclose(Full(one).times(v), v @ H[0].T, rtol=1e-13)
        assert_allclose(Full(one).solve(v), np.linalg.solve(H[0], v.T).T, rtol=1e-12)
    assert_allclose(Full(H).times(v[0]), H @ v[0], rtol=1e-13)
    assert_allclose(Full(H).solve(v[0]), [np.linalg.solve(h, v[0]) for h in H], rtol=1e-12)


def test_an_inverse_is_the_covariance(shape, d):
    H = matrices(shape, d)
    inverse = Full(H).inverse()
    assert isinstance(inverse, Full)
    assert inverse.array.shape == H.shape
    assert_allclose(inverse.array, each(np.linalg.inv, H, axes=2), rtol=1e-12, atol=1e-14)
    assert_allclose(inverse.array @ H, np.broadcast_to(np.eye(d), H.shape), rtol=0, atol=1e-12)


def test_what_is_read_off_a_matrix(shape, d):
    H = matrices(shape, d)
    assert_array_equal(Full(H).diagonal(), each(np.diag, H, axes=2))
    expected = each(lambda h: 1.0 / np.diag(np.linalg.inv(h)), H, axes=2)
    assert_allclose(Full(H).marginal(), expected, rtol=1e-12)
    assert Full(H).full().array is H


def test_what_a_posterior_keeps_of_a_matrix(shape, d):
    H = Full(matrices(shape, d))
    assert H.kept("full") is H
    diagonal, marginal = H.kept("diagonal"), H.kept("marginal")
    assert isinstance(diagonal, Diagonal)
    assert isinstance(marginal, Diagonal)
    assert_array_equal(diagonal.array, each(np.diag, H.array, axes=2))
    assert_allclose(marginal.array, each(lambda h: 1 / np.diag(np.linalg.inv(h)), H.array, axes=2), rtol=1e-12)
    # The variances of the marginals are those of the whole; a diagonal's are those given all else.
    assert_allclose(marginal.inverse().array, H.inverse().diagonal(), rtol=1e-14)
    assert np.all(marginal.array <= diagonal.array * (1.0 + 1e-12))


def test_a_kept_diagonal_is_no_view_of_the_matrix():
    H = matrices((2,), 3)
    diagonal = Full(H).kept("diagonal").array
    assert not np.shares_memory(diagonal, H)
    diagonal[:] = 0.0
    assert np.all(Full(H).diagonal() > 0.0)


def test_of_one_coefficient_all_is_exact(shape):
    """``[[h]]`` is a number, and nothing goes through LAPACK."""
    h, v = matrices(shape, 1), vectors(shape, 1)
    assert_array_equal(Full(h).solve(v), v / h[..., 0])
    assert_array_equal(Full(h).inverse().array, 1.0 / h)
    assert_array_equal(Full(h).solve(v), Diagonal(h[..., 0]).solve(v))


def test_no_such_form_is_an_error():
    with pytest.raises(ConfigError, match="no form 'marginl' of a precision") as error:
        Full(np.eye(2)).kept("marginl")
    assert error.value.hint == "did you mean 'marginal'?"
    with pytest.raises(ConfigError, match="there are: diagonal, full, marginal"):
        Full(np.eye(2)).kept("")


# --- diagonals -------------------------------------------------------------------------------------------


def test_a_diagonal_does_what_its_matrix_does(shape, d):
    p, v = np.abs(vectors(shape, d, 2)) + 0.1, vectors(shape, d)
    H, matrix = Diagonal(p), Full(each(np.diag, p, axes=1))
    assert_array_equal(H.times(v), p * v)
    assert_array_equal(H.solve(v), v / p)
    assert_allclose(H.times(v), matrix.times(v), rtol=1e-14)
    assert_allclose(H.solve(v), matrix.solve(v), rtol=1e-14)
    assert isinstance(H.inverse(), Diagonal)
    assert_array_equal(H.inverse().array, 1.0 / p)
    assert_allclose(H.inverse().full().array, matrix.inverse().array, rtol=1e-14)
    assert isinstance(H.full(), Full)
    assert_array_equal(H.full().array, matrix.array)
    assert_array_equal(H.diagonal(), matrix.diagonal())
    assert_allclose(H.marginal(), matrix.marginal(), rtol=1e-14)


@pytest.mark.parametrize("form", ["full", "diagonal", "marginal"])
def test_a_diagonal_is_all_there_is_to_keep(form, shape):
    H = Diagonal(np.abs(vectors(shape, 3)) + 0.1)
    assert H.kept(form) is H


def test_a_wide_diagonal_is_never_written_out():
    """A matrix of it would be 320 GB."""
    H, v = Diagonal(np.full(200_000, 2.0)), np.ones(200_000)
    results = [H.times(v), H.solve(v), H.inverse().array, H.plus(H).array, H.scaled(np.array(0.5)).array]
    results += [H.kept("marginal").array, H.marginal(), H.spread(v)]
    assert [r[-1] for r in results] == [2.0, 0.5, 0.5, 4.0, 1.0, 2.0, 2.0, 1.0 / np.sqrt(2.0)]
    assert all(r.shape == (200_000,) for r in results)


# --- both ------------------------------------------------------------------------------------------------


def sample(form: str, shape: tuple[int, ...], d: int, seed: int) -> Precision:
    H = Full(matrices(shape, d, seed))
    return H if form == "full" else H.kept("diagonal")


FORMS = ["full", "diagonal"]


@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("one", FORMS)
def test_sums_are_those_of_the_matrices(one, other, shape, d):
    A, B = sample(one, shape, d, 0), sample(other, shape, d, 10)
    total = A.plus(B)
    assert isinstance(total, Diagonal if one == other == "diagonal" else Full)
    assert_array_equal(total.full().array, A.full().array + B.full().array)
    assert_array_equal(B.plus(A).full().array, total.full().array)


@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("one", FORMS)
def test_one_block_is_added_to_each_of_many(one, other, d):
    A, B = sample(one, (1,), d, 0), sample(other, (4,), d, 10)
    expected = A.full().array + B.full().array
    assert_array_equal(A.plus(B).full().array, expected)
    assert_array_equal(B.plus(A).full().array, expected)
    assert expected.shape == (4, d, d)


@pytest.mark.parametrize("form", FORMS)
def test_each_block_is_scaled_by_a_number_of_its_own(form, shape, d):
    H, factor = sample(form, shape, d, 0), np.abs(vectors(shape, 1))[..., 0]
    scaled = H.scaled(factor)
    assert type(scaled) is type(H)
    assert_array_equal(scaled.full().array, H.full().array * factor[..., None, None])
    assert_array_equal(H.scaled(np.array(2.0)).array, 2.0 * H.array)


@pytest.mark.parametrize("form", FORMS)
def test_one_block_scaled_by_many_numbers_is_many(form, d):
    H = sample(form, (), d, 0)
    scaled = H.scaled(np.array([0.0, 1.0, 3.0]))
    assert_array_equal(scaled.full().array, [0.0 * H.full().array, H.full().array, 3.0 * H.full().array])


@pytest.mark.parametrize("form", FORMS)
def test_spread_noise_has_the_inverse_as_its_covariance(form, shape, d):
    """Exactly: what becomes of the unit vectors are the columns of a root ``S`` of ``H^-1 = S S'``."""
    H = sample(form, shape, d, 3)
    columns = [H.spread(np.broadcast_to(e, (*shape, d))) for e in np.eye(d)]
    S = np.stack(columns, axis=-1)
    assert_allclose(S @ np.swapaxes(S, -1, -2), H.inverse().full().array, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_noise_is_spread_linearly_and_through_the_transposed_root(form):
    """``L^-T e`` for ``H = L L'``, so that ``L' spread(e) = e``."""
    H, noise = sample(form, (4,), 3, 3), vectors((4,), 3)
    w = H.spread(noise)
    assert_allclose(np.matvec(np.swapaxes(np.linalg.cholesky(H.full().array), 1, 2), w), noise, rtol=1e-12)
    assert_allclose(H.spread(-2.0 * noise), -2.0 * w, rtol=1e-12)
    assert_allclose(np.vecdot(w, H.times(w)), np.vecdot(noise, noise), rtol=1e-12)


@given(seed=st.integers(0, 10_000), d=st.integers(1, 6), form=st.sampled_from(FORMS))
def test_a_precision_and_its_inverse_undo_each_other(seed, d, form):
    H, v = sample(form, (3,), d, seed), vectors((3,), d, seed)
    assert_allclose(H.solve(H.times(v)), v, rtol=0, atol=1e-9)
    assert_allclose(H.inverse().times(H.times(v)), v, rtol=0, atol=1e-9)
    assert_allclose(H.inverse().inverse().full().array, H.full().array, rtol=1e-8, atol=1e-8)
    assert_allclose(H.marginal(), 1.0 / H.inverse().diagonal(), rtol=1e-12)


# --- posteriors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "precision", "full"),
    [((3,), (3, 3), True), ((3,), (3,), False), ((4, 3), (4, 3, 3), True), ((3, 3), (3, 3), False)],
)
def test_a_posterior_knows_its_form_by_its_shape(mean, precision, full):
    posterior = Posterior(np.zeros(mean, np.float32), np.ones(precision, np.int64))
    assert posterior.is_full == full
    assert isinstance(posterior.P, Full if full else Diagonal)
    assert posterior.P.array is posterior.precision
    assert posterior.mean.dtype == posterior.precision.dtype == np.float64


@pytest.mark.parametrize(
    ("mean", "precision"),
    [((), ()), ((3,), (2,)), ((3,), (3, 2)), ((3,), (1, 3, 3)), ((2, 3), (3, 3)), ((2, 3), (2, 3, 2))],
)
def test_shapes_that_do_not_go_together_are_an_error(mean, precision):
    with pytest.raises(ConfigError, match="cannot have a precision of shape") as error:
        Posterior(np.zeros(mean), np.ones(precision))
    assert "(n, d)" in error.value.hint


def test_some_of_many_blocks_and_one_put_in_front():
    many = Posterior(vectors((4,), 2), matrices((4,), 2))
    for blocks in (np.array([2, 0]), np.array([True, False, True, False]), slice(1, 3)):
        some = many.at(blocks)
        assert_array_equal(some.mean, many.mean[blocks])
        assert_array_equal(some.precision, many.precision[blocks])
    one = many.at(3)
    assert (one.mean.shape, one.precision.shape) == ((2,), (2, 2))
    assert (one.at(None).mean.shape, one.at(None).precision.shape) == ((1, 2), (1, 2, 2))
    flat = Posterior(np.zeros(2), np.ones(2)).at(None)
    assert (flat.mean.shape, flat.precision.shape, flat.is_full) == ((1, 2), (1, 2), False)


def test_repeated_blocks_are_equal_and_share_their_memory():
    one = Posterior(vectors((), 3), matrices((), 3))
    many = one.repeated(5)
    assert_array_equal(many.mean, np.tile(one.mean, (5, 1)))
    assert_array_equal(many.precision, np.tile(one.precision, (5, 1, 1)))
    assert np.shares_memory(many.precision, one.precision)


@pytest.mark.parametrize("form", FORMS)
def test_covariances_and_standard_deviations(form, d):
    for shape in ((), (4,)):
        H = sample(form, shape, d, 0)
        posterior = Posterior(np.zeros((*shape, d)), H.array)
        covariance = each(np.linalg.inv, H.full().array, axes=2)
        deviations = np.sqrt(each(np.diag, covariance, axes=2))
        assert_allclose(posterior.standard_deviation(), deviations, rtol=1e-12)
        expected = covariance if form == "full" else deviations**2
        assert_allclose(posterior.covariance(), expected, rtol=1e-12, atol=1e-14)


def test_states_are_as_many_as_their_ids():
    none = np.zeros(3, np.int64)
    states = EntityStates(np.arange(3), Posterior(np.zeros((3, 1)), np.ones((3, 1))), none, none)
    assert len(states) == 3
