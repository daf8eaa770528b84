"""Entities one after another in compiled loops, against the same in NumPy, all at a time."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate.arrays import Posterior
from acclimate.kernels import newton as kernel
from acclimate.kernels.newton import Rows, solve_entities
from acclimate.kernels.threads import side_by_side
from acclimate.models.likelihood import loss_derivatives
from acclimate.models.posterior import _newton, _Rows, _Search, update_posteriors

TOLERANCE = 1e-9


def world(rng, sizes, d, *, full=True, loss="logistic", scale=1.0):
    """Rows of entities in an order that is none, and priors that are all different."""
    sizes = np.asarray(sizes)
    n, entities = int(sizes.sum()), len(sizes)
    X = scale * rng.normal(size=(n, d))
    y = {
        "logistic": lambda: (rng.random(n) < 0.4).astype(np.float64),
        "squared": lambda: rng.normal(size=n),
        "poisson": lambda: rng.poisson(1.5, n).astype(np.float64),
    }[loss]()
    rows = Rows(
        X, y, 0.3 * rng.normal(size=n), rng.uniform(0.0, 2.0, n), rng.permutation(n), np.r_[0, np.cumsum(sizes)]
    )
    A = rng.normal(size=(entities, d, d))
    P = A @ np.swapaxes(A, 1, 2) + np.eye(d) if full else rng.uniform(0.5, 3.0, (entities, d))
    return rows, Posterior(0.3 * rng.normal(size=(entities, d)), P)


def copied(prior):
    return Posterior(prior.mean.copy(), prior.precision.copy())


def solved(rows, prior, *, loss="logistic", kept="full", tolerance=TOLERANCE, max_steps=100):
    after = copied(prior)
    steps, decrement = solve_entities(rows, after, loss=loss, kept=kept, tolerance=tolerance, max_steps=max_steps)
    return after, steps, decrement


def twin(rows, prior, *, loss, kept):
    """The same by NumPy, one entity at a time."""
    mean, precision = prior.mean.copy(), prior.precision.copy()
    for e in range(len(mean)):
        one, take = np.array([e]), rows.order[rows.indptr[e] : rows.indptr[e + 1]][None]
        some = _Rows(rows.X[take], rows.y[take], rows.offset[take], rows.weight[take])
        w, hessian, _ = _newton(prior.at(one), some, _Search(loss, kept, TOLERANCE, 100))
        mean[one], precision[one] = w, hessian.kept(kept).array
    return Posterior(mean, precision)


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson"])
@pytest.mark.parametrize("kept", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 13, 17, 33])
def test_all_is_as_numpy_has_it(d, kept, loss):
    """Sizes meet all ways to a solution: one row, few, more than coefficients, and more than a strip."""
    rng = np.random.default_rng(d)
    sizes = [
        1,
        1,
        2,
        max(1, d // 2),
        d,
        d + 1,
        2 * d + 3,
        70,
        kernel._STRIP,
        kernel._STRIP + 1,
        3 * kernel._STRIP - 5,
    ]
    rows, prior = world(rng, sizes, d, full=kept == "full", loss=loss, scale=0.5)
    after, _, decrement = solved(rows, prior, loss=loss, kept=kept)
    expected = twin(rows, prior, loss=loss, kept=kept)
    assert (decrement <= TOLERANCE).all()
    np.testing.assert_allclose(after.mean, expected.mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(after.precision, expected.precision, rtol=1e-7, atol=1e-8)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    d=st.integers(1, 12),
    kept=st.sampled_from(["full", "diagonal", "marginal"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_neither_the_order_of_rows_nor_the_other_entities_matter(sizes, d, kept, seed):
    rng = np.random.default_rng(seed)
    rows, prior = world(rng, sizes, d, full=kept == "full")
    after, _, _ = solved(rows, prior, kept=kept)
    e = int(rng.integers(len(sizes)))
    mine = rng.permutation(rows.order[rows.indptr[e] : rows.indptr[e + 1]])
    alone, _, _ = solved(
        rows._replace(order=mine, indptr=np.array([0, len(mine)])), prior.at(np.array([e])), kept=kept
    )
    np.testing.assert_allclose(alone.mean[0], after.mean[e], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(alone.precision[0], after.precision[e], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kept", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_few_rows_come_to_the_same_in_the_space_of_coefficients(size, kept):
    """Rows of weight 0 say nothing, but make an entity one of many rows."""
    rng = np.random.default_rng(size)
    d = 8
    rows, prior = world(rng, [size] * 20, d, full=kept == "full")
    filled = np.repeat(rows.order.reshape(20, size), 5, axis=1).reshape(20, size, 5)
    weight = np.zeros((20, size, 5))
    weight[:, :, 0] = rows.weight[rows.order].reshape(20, size)
    many = Rows(
        rows.X[filled.ravel()],
        rows.y[filled.ravel()],
        rows.offset[filled.ravel()],
        weight.ravel(),
        np.arange(filled.size),
        5 * rows.indptr,
    )
    few, _, _ = solved(rows, prior, kept=kept)
    all_of_them, _, _ = solved(many, prior, kept=kept)
    np.testing.assert_allclose(few.mean, all_of_them.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(few.precision, all_of_them.precision, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 30, 300])
@pytest.mark.parametrize("loss", ["logistic", "poisson"])
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("ridge", [1e-6, 1.0, 1e4])
def test_the_gradient_is_nothing_wherever_the_search_begins(size, loss, scale, ridge):
    """Far from where a quadratic holds: margins of thousands, priors of next to nothing."""
    rng = np.random.default_rng(size)
    d = 6
    rows, prior = world(rng, [size] * 8, d, loss=loss, scale=scale)
    if loss == "poisson":  # exp(20) is as many as can be
        rows = rows._replace(X=rows.X / scale, offset=np.minimum(scale, 20.0) * np.sign(rows.offset))
        ridge = max(ridge, 0.1)
    prior = Posterior(prior.mean, ridge * prior.precision)
    after, steps, decrement = solved(rows, prior, loss=loss, max_steps=2_000)
    assert (decrement <= TOLERANCE).all(), (steps, decrement)
    for e in range(8):
        mine = rows.order[rows.indptr[e] : rows.indptr[e + 1]]
        X, z = rows.X[mine], rows.X[mine] @ after.mean[e] + rows.offset[mine]
        terms = X * (rows.weight[mine] * loss_derivatives(loss, rows.y[mine], z)[0])[:, None]
        gradient = terms.sum(axis=0) + prior.precision[e] @ (after.mean[e] - prior.mean[e])
        left = np.sqrt(gradient @ np.linalg.solve(after.precision[e], gradient))
        rounding = 1e-13 * np.sqrt(np.trace(np.linalg.solve(after.precision[e], np.diag((terms**2).sum(axis=0)))))
        assert left <= 1e-6 + 1e3 * rounding


def test_the_decrement_that_is_left_is_not_understated():
    rng = np.random.default_rng(0)
    rows, prior = world(rng, rng.integers(1, 60, 300), 7)
    exact, _, _ = solved(rows, prior, tolerance=1e-13)
    for tolerance in (1.0, 1e-1, 1e-2, 1e-4):
        after, _, decrement = solved(rows, prior, tolerance=tolerance)
        away = after.mean - exact.mean
        distance = np.sqrt(np.vecdot(away, np.matvec(exact.precision, away)))
        assert (decrement <= tolerance).all()
        assert (distance <= 1.5 * decrement + 1e-12).all()


def test_an_event_after_another_is_learned_by_the_state_as_it_is():
    """The kernel goes in order and in place: an entity that comes again goes on from what it has learned."""
    rng = np.random.default_rng(1)
    n, d = 40, 5
    rows, prior = world(rng, np.ones(n, int), d)
    place = rng.integers(0, 3, n)
    streamed = copied(prior.at(np.arange(3)))
    steps, decrement = np.zeros(n, np.int64), np.zeros(n)
    kernel.solve(
        rows,
        streamed.mean,
        streamed.precision,
        place,
        0,
        n,
        0,
        0,
        TOLERANCE,
        50,
        steps,
        decrement,
        kernel.room_for(d, 1),
    )
    one_by_one = copied(prior.at(np.arange(3)))
    for i in range(n):
        state = one_by_one.at(place[i : i + 1])
        alone, _, _ = solved(rows._replace(order=rows.order[i : i + 1], indptr=np.array([0, 1])), state)
        one_by_one.mean[place[i]], one_by_one.precision[place[i]] = alone.mean[0], alone.precision[0]
    np.testing.assert_array_equal(streamed.mean, one_by_one.mean)
    np.testing.assert_array_equal(streamed.precision, one_by_one.precision)


@pytest.mark.parametrize("size", [1, 2, 30])
@pytest.mark.parametrize(
    ("full", "bad"), [(True, np.nan), (True, np.inf), (True, -1.0), (False, np.nan), (False, -1.0)]
)
def test_an_entity_whose_matrix_has_no_root_is_left_and_told(size, full, bad):
    rng = np.random.default_rng(2)
    rows, prior = world(rng, [size] * 3, 6, full=full)
    rows.weight[:] = 1e-3
    prior.precision[(1, 2, 2) if full else (1, 2)] = bad
    after, _, decrement = solved(rows, prior, kept="full" if full else "diagonal")
    assert np.isnan(decrement).tolist() == [False, True, False]
    np.testing.assert_array_equal(after.mean[1], prior.mean[1])
    np.testing.assert_array_equal(after.precision[1], prior.precision[1])
    fine = np.array([0, 2])
    expected = twin(
        rows._replace(order=np.r_[rows.order[:size], rows.order[2 * size :]], indptr=size * np.arange(3)),
        prior.at(fine),
        loss="logistic",
        kept="full" if full else "diagonal",
    )
    np.testing.assert_allclose(after.mean[fine], expected.mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kept", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize("x", [1e2, 1e5, 1e7])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_a_row_of_large_features_loses_no_digits(loss, x, kept):
    """The second coefficient is never seen, so that what is right of the first is a formula."""
    rows = Rows(np.array([[x, 0.0, 0.0]]), np.ones(1), np.zeros(1), np.ones(1), np.arange(1), np.array([0, 1]))
    prior = Posterior(np.zeros((1, 3)), np.eye(3)[None] if kept == "full" else np.ones((1, 3)))
    after, _, decrement = solved(rows, prior, loss=loss, kept=kept)
    assert decrement[0] <= TOLERANCE
    z = after.mean[0, 0] * x
    slope, curvature = loss_derivatives(loss, np.ones(1), np.array([z]))
    precision = after.precision[0, 0, 0] if kept == "full" else after.precision[0, 0]
    assert_allclose(precision, 1.0 + curvature[0] * x * x, rtol=1e-8)
    assert abs(x * slope[0] + after.mean[0, 0]) <= 1e-8 * precision**0.5


def test_marginal_precisions_of_a_row_are_sums():
    """As in a plain step, where ``1 - x^2/(P (1 + v))`` has no digits left."""
    X = np.array([[1e9, 1.0]])
    rows = Rows(X, np.ones(1), np.zeros(1), np.ones(1), np.arange(1), np.array([0, 1]))
    after, _, _ = solved(rows, Posterior(np.zeros((1, 2)), np.ones((1, 2))), loss="squared", kept="marginal")
    # diag(H^-1) of I + x x' is 1 - x_j^2/(1 + x'x).
    assert_allclose(after.precision[0], [(2.0 + 1e18) / 2.0, (2.0 + 1e18) / (1.0 + 1e18)], rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 20])
def test_matrices_stay_symmetric(size):
    rows, prior = world(np.random.default_rng(7), [size] * 10, 6)
    after, _, _ = solved(rows, Posterior(prior.mean, 0.5 * (prior.precision + np.swapaxes(prior.precision, 1, 2))))
    np.testing.assert_array_equal(after.precision, np.swapaxes(after.precision, 1, 2))


def test_the_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(3)
    rows, prior = world(rng, rng.integers(1, 400, 600), 6)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(solved(rows, prior)[0])
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0].mean, results[1].mean)
    np.testing.assert_array_equal(results[0].precision, results[1].precision)


@given(costs=st.lists(st.integers(0, 60_000), min_size=1, max_size=60))
def test_pieces_of_work_are_each_item_once_and_in_order(costs):
    pieces = []
    side_by_side(lambda first, last: pieces.append((first, last)), np.r_[0, np.cumsum(costs)])
    assert [i for first, last in sorted(pieces) for i in range(first, last)] == list(range(len(costs)))


def test_a_piece_that_fails_is_heard_of():
    def work(first: int, last: int) -> None:
        raise ValueError(f"{first} {last}")

    with pytest.raises(ValueError, match=r"\d+ \d+"):
        side_by_side(work, np.arange(0, 1_000_001, 10_000))


def test_exponentials_are_exact_to_two_units_in_the_last_place():
    rng = np.random.default_rng(4)
    z = np.r_[0.0, -0.0, rng.exponential(3.0, 5_000), rng.uniform(-708.0, 708.0, 5_000), 1e-300, 708.0, -708.0]
    lines = np.zeros((8, len(z)))
    lines[kernel._MARGIN] = z
    kernel._exponentiate(lines, lines.view(np.int64), len(z))
    np.testing.assert_allclose(lines[kernel._EXPONENTIAL], np.exp(-np.abs(z)), rtol=5e-16)
    lines[kernel._MARGIN, :2] = 1e300, -1e300
    kernel._exponentiate(lines, lines.view(np.int64), 2)
    np.testing.assert_allclose(lines[kernel._EXPONENTIAL, :2], np.exp(-708.0))


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson"])
def test_derivatives_of_rows_are_those_of_numpy(loss):
    rng = np.random.default_rng(0)
    n = 40_000
    z = rng.normal(0.0, 3.0, n)
    z[:12] = [0.0, -0.0, 1e-300, -1e-300, 36.0, -36.0, 700.0, -700.0, 99.0, 101.0, 1e6, -1e6]
    y = rng.integers(0, 2, n).astype(np.float64)
    slope, curvature = loss_derivatives(loss, y, z)
    many = kernel.derivatives(loss, y, z)
    assert_allclose(many[0], slope, rtol=1e-14, atol=1e-307 if loss == "logistic" else 1e-15)  # a difference of y
    assert_allclose(many[1], curvature, rtol=1e-14, atol=1e-307)


def test_one_compilation_does_for_all_matrices_and_one_for_all_diagonals():
    rng = np.random.default_rng(5)
    for d in (1, 4, 20):
        for loss in ("logistic", "squared", "poisson"):
            for kept in ("full", "diagonal", "marginal"):
                rows, prior = world(rng, [1, 3, 50], d, full=kept == "full", loss=loss)
                solved(rows, prior, loss=loss, kept=kept)
    assert len(kernel.solve.signatures) == 2


def test_rows_that_cannot_be_written_to_are_not_compiled_for():
    rng = np.random.default_rng(6)
    rows, prior = world(rng, [3, 50], 4)
    columns = [rows.X[rows.order], rows.y[rows.order], rows.indptr]
    expected, _ = update_posteriors(prior, *columns)
    for column in columns:
        column.setflags(write=False)
    after, _ = update_posteriors(prior, *columns)
    np.testing.assert_array_equal(after.mean, expected.mean)
    assert len(kernel.solve.signatures) <= 2
