"""``update_posterior``: one block."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import (
    Rows,
    distance,
    draw,
    gradient,
    information,
    minimiser,
    objective,
    random_precision,
    relative_difference,
    sigmoid,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, sparse

import acclimate as ac
from acclimate.arrays import Posterior
from acclimate.errors import ConfigError, RowError
from acclimate.models.posterior import _csr, update_posterior

FORMS = {"dense": np.asarray, "csr": sparse.csr_array, "csc": sparse.csc_array, "coo": sparse.coo_matrix}


def updated(posterior: Posterior, rows: Rows, **options) -> Posterior:
    after, info = update_posterior(posterior, rows.X, rows.y, **rows.columns, **options)
    assert info.converged
    assert info.decrement <= 1e-9
    assert after.mean.shape == posterior.mean.shape
    assert after.precision.shape == posterior.precision.shape
    return after


# --- squared loss: exact --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60), max_size=4), d=st.integers(1, 8))
def test_squared_loss_batch_by_batch_equals_the_closed_form_on_all_data(seed, cuts, d):
    rows = draw(seed, 60, d)
    rows = dataclasses.replace(rows, y=np.random.default_rng(seed).normal(size=60))
    m, P = np.linspace(-1, 1, d), random_precision(seed, d)
    posterior = Posterior(m, P)
    for first, last in itertools.pairwise([0, *sorted(cuts), 60]):
        posterior = updated(posterior, rows.taken(slice(first, last)), loss="squared")
    weighted = rows.weight[:, None] * rows.X
    H = P + weighted.T @ rows.X
    mean = np.linalg.solve(H, P @ m + weighted.T @ (rows.y - rows.offset))
    assert_allclose(posterior.mean, mean, rtol=0, atol=1e-9)
    assert relative_difference(posterior.precision, H) < 1e-9


# --- logistic loss against SciPy -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n", "d", "size"), [(300, 5, 1.0), (40, 12, 0.01), (2000, 30, 10.0), (5, 9, 1.0)])
def test_the_mean_is_scipys_minimiser_and_the_precision_its_hessian(form, n, d, size):
    rows = draw(n + d, n, d)
    m, P = np.linspace(-1, 1, d), random_precision(d, d, size)
    after, info = update_posterior(Posterior(m, P), FORMS[form](rows.X), rows.y, **rows.columns)
    w = minimiser(m, P, rows)
    H = P + information(w, rows)
    assert info.converged
    assert distance(after.mean, w, H) < 1e-8
    assert relative_difference(after.precision, H) < 1e-8


def test_rows_that_are_mostly_zero():
    rows = draw(3, 400, 20)
    rng = np.random.default_rng(4)
    X = np.where(rng.random(rows.X.shape) < 0.15, rows.X, 0.0)
    X[:, 0] = 1.0
    rows = dataclasses.replace(rows, X=X)
    m, P = np.zeros(20), np.eye(20)
    after, info = update_posterior(Posterior(m, P), sparse.csr_array(X), rows.y, **rows.columns)
    w = minimiser(m, P, rows)
    assert info.converged
    assert distance(after.mean, w, P + information(w, rows)) < 1e-8


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_features_of_very_different_units(shift):
    """The posterior in units 10^-6 to 10^6 is that in units of 1, expressed in them."""
    rows = draw(5, 500, 6)
    unit = 10.0 ** np.array([0, -6, -3, 1, 3, 6])
    m, P = np.linspace(-0.5, 0.5, 6), random_precision(6, 6)
    rows.X[:, 1:] += shift
    w = minimiser(m, P, rows)
    inside = Rows(rows.X * unit, rows.y, rows.offset, rows.weight)
    after = updated(Posterior(m / unit, P * np.outer(unit, unit)), inside)
    H = P + information(w, rows)
    assert distance(after.mean * unit, w, H) < 1e-8
    assert relative_difference(after.precision / np.outer(unit, unit), H) < 1e-8


@pytest.mark.parametrize(
    ("centre", "spread", "mean_to", "precision_to"),
    [
        pytest.param(2022.0, 0.5, 1e-8, 1e-8, id="a year, within one"),
        pytest.param(1.65e12, 1e10, 1e-8, 1e-8, id="milliseconds, within months"),
        pytest.param(1.65e12, 8.64e7, 1e-7, 1e-6, id="milliseconds, within a day"),
        pytest.param(1.65e12, 3.6e6, 1e-5, 1e-3, id="milliseconds, within an hour"),
    ],
)
def test_shifted_features_are_as_exact_as_a_raw_precision_can_hold(centre, spread, mean_to, precision_to):
    """A raw precision in float64 holds what is known of a slope to ``eps (centre / spread)^2`` and no better.

    That is 2e-9 of a year within one, 4e-8 of milliseconds within a day and 2e-5 within an hour.
    """
    rng = np.random.default_rng(8)
    t = centre + np.round(spread * rng.uniform(-1, 1, 500), 3)
    standardised = np.array([[1.0, centre, 0.0], [0.0, spread, 0.0], [0.0, 0.0, 1.0]])  # coefficients of raw ones
    inside = draw(9, 500, 3)
    inside = dataclasses.replace(inside, X=np.column_stack([np.ones(500), (t - centre) / spread, inside.X[:, 2]]))
    raw = dataclasses.replace(inside, X=np.column_stack([np.ones(500), t, inside.X[:, 2]]))
    P = 0.1 * np.eye(3)
    posterior = Posterior(np.zeros(3), standardised.T @ P @ standardised)
    w = minimiser(np.zeros(3), P, inside)
    H = P + information(w, inside)
    back = np.array([[1.0, -centre / spread, 0.0], [0.0, 1.0 / spread, 0.0], [0.0, 0.0, 1.0]])
    after = updated(posterior, raw)
    assert distance(exactly(standardised, after.mean), w, H) < mean_to
    assert relative_difference(exactly(back.T, after.precision, back), H) < precision_to


def exactly(first: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """A product in extended precision, so that mapping back does not add an error of its own."""
    product = first.astype(np.longdouble)
    for other in others:
        product = product @ other.astype(np.longdouble)
    return product.astype(np.float64)


# --- the objective of the design -------------------------------------------------------------------------


@pytest.mark.parametrize("forgetting", [0.8, 0.95, 1.0])
@pytest.mark.parametrize("kind", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize("d", [5, 20, 50])
def test_an_update_minimises_the_stabilised_forgetting_objective(d, kind, forgetting):
    """``P0 = d H + (1-d) lambda I``, ``m0 = P0^-1 d H m``, ``H' = P0 + sum s p (1-p) x x'`` at the minimiser."""
    ridge, rows = 0.7, draw(d, 4 * d, d)
    m, H = np.linspace(-1, 1, d), random_precision(d, d, 2.0)
    before = Posterior(m, H if kind == "full" else np.diag(H))
    past = H if kind == "full" else np.diag(np.diag(H))
    P0 = forgetting * past + (1 - forgetting) * ridge * np.eye(d)
    m0 = np.linalg.inv(P0) @ (forgetting * past @ m)

    base = Posterior(np.zeros(d), np.full(d, ridge))
    diagonal = "marginal" if kind == "marginal" else "diagonal"
    after = updated(before, rows, forgetting=forgetting, base=base, diagonal=diagonal)

    w = minimiser(m0, P0, rows)
    new = P0 + information(w, rows)
    assert distance(after.mean, w, new) < 1e-8
    left = gradient(after.mean, m0, P0, rows)
    assert np.sqrt(left @ np.linalg.solve(new, left)) < 1e-8
    rng = np.random.default_rng(d)
    lowest = objective(after.mean, m0, P0, rows)
    assert all(objective(after.mean + 0.01 * rng.normal(size=d), m0, P0, rows) > lowest for _ in range(20))
    kept = {"full": new, "diagonal": np.diag(new), "marginal": 1.0 / np.diag(np.linalg.inv(new))}[kind]
    assert_allclose(after.precision, kept, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("delta", [0.8, 0.95, 1.0])
def test_the_precision_has_lambda_learners_form(delta):
    """``H1 = delta H0 + X'DX + (1-delta) lambda I`` (Lambda Learner), with the row weights that its code omits."""
    rows, H0, ridge = draw(1, 200, 7), random_precision(1, 7), 0.3
    base = Posterior(np.zeros(7), ridge * np.eye(7))
    after = updated(Posterior(np.ones(7), H0), rows, forgetting=delta, base=base)
    p = sigmoid(rows.X @ after.mean + rows.offset)
    D = np.diag(rows.weight * p * (1 - p))
    H1 = delta * H0 + rows.X.T @ D @ rows.X + (1 - delta) * ridge * np.eye(7)
    assert_allclose(after.precision, H1, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("full", [True, False])
def test_photons_prior_fixture(full):
    """Photon-ML: coefficients 1, prior mean 2, prior variance 4, incremental weight 10, 4 features.

    Its weight multiplies the prior precision: 10/4 = 2.5 is ``P0`` here. Then at 1 the gradient of the prior is
    -2.5 a coefficient, and its Hessian's diagonal 2.5. Four rows ``x_i = e_i`` of squared loss with
    ``y = 1 - 2.5`` have gradient +2.5 at 1, so 1 is the optimum exactly if the prior's is -2.5.
    """
    precision = np.full(4, 10 / 4)
    prior = Posterior(np.full(4, 2.0), np.diag(precision) if full else precision)
    after, _ = update_posterior(prior, np.eye(4), np.full(4, 1 - 2.5), loss="squared")
    assert_allclose(after.mean, np.ones(4), rtol=0, atol=1e-14)
    hessian = after.precision - (np.eye(4) if full else 1.0)
    assert_allclose(hessian, np.diag([2.5] * 4) if full else [2.5] * 4, rtol=0, atol=1e-14)


def test_a_row_of_weight_0_leaves_the_forgotten_prior():
    before = Posterior(np.array([1.0, -1.0]), random_precision(2, 2))
    base = Posterior(np.array([0.5, 0.5]), np.eye(2))
    after, _ = update_posterior(before, [[3.0, 4.0]], [1.0], weight=[0.0], forgetting=0.8, base=base)
    P0 = 0.8 * before.precision + 0.2 * np.eye(2)
    m0 = np.linalg.solve(P0, 0.8 * before.precision @ before.mean + 0.2 * base.mean)
    assert_allclose(after.precision, P0, rtol=1e-14)
    assert_allclose(after.mean, m0, rtol=1e-14)


def test_no_rows_leave_the_posterior_as_it_was():
    before = Posterior(np.ones(3), np.eye(3))
    after, info = update_posterior(before, np.empty((0, 3)), [], forgetting=0.5)
    assert after is before
    assert info.converged


# --- invariances -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diagonal", "marginal"])
def test_weights_count_rows_and_their_order_does_not_matter(kind):
    rows, d = draw(12, 80, 4), 4
    P = random_precision(12, d)
    before = Posterior(np.zeros(d), P if kind == "full" else np.diag(P))
    diagonal = "marginal" if kind == "marginal" else "diagonal"
    times = np.arange(80) % 4
    after = updated(before, dataclasses.replace(rows, weight=times.astype(float)), diagonal=diagonal)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(80), times))
    again = updated(before, dataclasses.replace(rows, weight=np.ones(80)).taken(order), diagonal=diagonal)
    H = after.precision if kind == "full" else np.diag(after.precision)
    assert distance(after.mean, again.mean, H) < 1e-8
    assert_allclose(after.precision, again.precision, rtol=1e-8)


@pytest.mark.parametrize("full", [True, False])
def test_swapping_the_labels_turns_the_coefficients_around(full):
    rows = draw(13, 60, 3)
    before = Posterior(np.zeros(3), np.eye(3) if full else np.ones(3))
    after = updated(before, rows)
    other = updated(before, dataclasses.replace(rows, y=1.0 - rows.y, offset=-rows.offset))
    assert_allclose(other.mean, -after.mean, rtol=0, atol=1e-9)
    assert_allclose(other.precision, after.precision, rtol=1e-9)


def test_the_callers_arrays_are_left_alone():
    cells, columns, ends = np.array([1.0, 3, 4, 1, 2]), np.array([0, 1, 1, 1, 0]), np.array([0, 3, 5])
    X = sparse.csr_array((cells, columns, ends), shape=(2, 2))
    before = Posterior(np.zeros(2), np.eye(2))
    copies = X.data.copy(), X.indices.copy()
    update_posterior(before, X, [0, 1])
    assert_array_equal(X.data, copies[0])
    assert_array_equal(X.indices, copies[1])
    assert_array_equal(before.mean, np.zeros(2))
    assert_array_equal(before.precision, np.eye(2))


def test_a_sparse_cell_in_several_parts_is_their_sum():
    """Row 0 holds column 1 twice and row 1 lacks it: as many cells as rows, but no column to be centred."""
    column, cells, ends = [0, 1, 1, 0, 0, 1, 0, 1], [1.0, 3, 4, 1, 1, 5, 1, 6], [0, 3, 4, 6, 8]
    X = sparse.csr_array((np.array(cells), np.array(column), np.array(ends)), shape=(4, 2))
    before, y = Posterior(np.zeros(2), np.eye(2)), [0, 1, 0, 1]
    after, _ = update_posterior(before, X, y)
    expected, _ = update_posterior(before, X.toarray(), y)
    assert_allclose(after.mean, expected.mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [np.int8, np.bool_, np.float32, np.uint16])
def test_small_numbers_of_any_type_are_taken_as_numbers(kind):
    X = np.array([[1, 12], [1, 120], [1, 12], [0, 7]], kind)
    before, y = Posterior(np.zeros(2), np.eye(2)), [0, 1, 0, 1]
    expected, _ = update_posterior(before, X.astype(np.float64), y)
    for form in (np.asarray, sparse.csr_array):
        after, _ = update_posterior(before, form(X), y)
        assert_allclose(after.mean, expected.mean, rtol=1e-9)


def test_the_public_name_is_this_function():
    assert ac.update_posterior is update_posterior


# --- hard rows -------------------------------------------------------------------------------------------


def hard(name: str) -> Rows:
    rows = draw(20, 60, 3)
    n = len(rows.y)
    sign = np.where(rows.X[:, 1] > 0, 1.0, 0.0)
    return {
        "all 0": dataclasses.replace(rows, y=np.zeros(n)),
        "all 1": dataclasses.replace(rows, y=np.ones(n)),
        "separable": dataclasses.replace(rows, y=sign),
        "offsets of 1e4": dataclasses.replace(rows, offset=1e4 * rows.offset),
        "offsets of 1e4, all wrong": dataclasses.replace(rows, offset=1e4 * (1 - 2 * rows.y)),
        "offsets of 1e4, all right": dataclasses.replace(rows, offset=1e4 * (2 * rows.y - 1)),
        "features of 1e4": dataclasses.replace(rows, X=1e4 * rows.X),
        "features of 1e4, separable": dataclasses.replace(rows, X=1e4 * rows.X, y=sign),
        "one row": rows.taken([0]),
        "weights of 1e6": dataclasses.replace(rows, weight=1e6 * rows.weight),
    }[name]


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
@pytest.mark.parametrize(
    "name",
    [
        "all 0",
        "all 1",
        "separable",
        "offsets of 1e4",
        "offsets of 1e4, all wrong",
        "offsets of 1e4, all right",
        "features of 1e4",
        "features of 1e4, separable",
        "one row",
        "weights of 1e6",
    ],
)
def test_hard_rows_converge_to_the_optimum(name, full):
    rows, P = hard(name), np.diag([0.5, 1.0, 2.0])
    after = updated(Posterior(np.zeros(3), P if full else np.diag(P)), rows)
    H = P + information(after.mean, rows)
    assert np.all(np.isfinite(after.mean))
    left = gradient(after.mean, np.zeros(3), P, rows)
    assert np.sqrt(left @ np.linalg.solve(H, left)) < 1e-8
    if full:
        assert relative_difference(after.precision, H) < 1e-7
    else:
        assert_allclose(after.precision, np.diag(H), rtol=1e-7)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_shrinks_to_the_prior(label):
    """``n`` rows of an intercept and one class: the mean solves ``ridge (w - m) = n (y - sigmoid(w))``."""
    n, m, sign = 30, 0.4, 2 * label - 1
    means = []
    for ridge in (1e-3, 1.0, 1e3, 1e9):
        prior = Posterior(np.array([m]), np.array([[ridge]]))
        after, info = update_posterior(prior, np.ones((n, 1)), np.full(n, label))
        root = optimize.brentq(lambda w, r=ridge: r * (w - m) - n * (label - sigmoid(w)), -50, 50, xtol=1e-14)
        assert info.converged
        assert_allclose(after.mean, [root], rtol=0, atol=1e-8 / np.sqrt(after.precision[0, 0]) + 1e-13)
        means.append(sign * (after.mean[0] - m))
    assert all(a > b > 0 for a, b in itertools.pairwise(means))
    assert means[-1] < 1e-7


def test_a_reported_decrement_is_the_distance_left():
    """Also where the kept precision is diagonal and the features are not."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 20)) + 10 * rng.normal(size=(400, 1))
    rows = dataclasses.replace(draw(3, 400, 20), X=X)
    P = 0.01 * np.eye(20)
    w = minimiser(np.zeros(20), P, rows)
    H = P + information(w, rows)
    for tolerance in (1e-2, 1e-4, 1e-6):
        after, info = update_posterior(
            Posterior(np.zeros(20), np.diag(P)), rows.X, rows.y, **rows.columns, tolerance=tolerance
        )
        assert info.converged
        assert distance(after.mean, w, H) < 1.5 * tolerance


def test_steps_that_do_not_suffice_are_reported_and_not_raised():
    rows = draw(14, 60, 3)
    prior = Posterior(np.zeros(3), 0.01 * np.eye(3))
    _, info = update_posterior(prior, rows.X, rows.y, **rows.columns, max_steps=1)
    assert info.steps == 1
    assert not info.converged
    assert info.decrement > 1e-9
    _, info = update_posterior(prior, rows.X, rows.y, **rows.columns)
    assert info.converged


def test_a_precision_that_is_none_does_not_pass_for_converged():
    rows = draw(15, 10, 2)
    _, info = update_posterior(Posterior(np.ones(2), np.array([[1.0, 50.0], [50.0, 1.0]])), rows.X, rows.y)
    assert not info.converged


# --- bad input -------------------------------------------------------------------------------------------

GOOD = {"X": np.ones((6, 2)), "y": np.array([0, 1, 0, 1, 1, 0.0])}
BLOCK = Posterior(np.zeros(2), np.eye(2))


def cell(row: int, value: float, shape: tuple[int, ...] = (6,)) -> np.ndarray:
    array = np.ones(shape)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"X": np.ones((6, 3))}, ConfigError, r"X \(6, 3\) and y \(6,\) do not go with 2 coefficients"),
        ({"X": np.ones((5, 2))}, ConfigError, r"X \(5, 2\) and y \(6,\)"),
        ({"X": np.ones(6)}, ConfigError, r"X \(6,\)"),
        ({"y": np.ones((6, 1))}, ConfigError, r"y \(6, 1\)"),
        ({"offset": np.ones(5)}, ConfigError, r"offset \(5,\) does not go with y \(6,\)"),
        ({"weight": 2.0}, ConfigError, r"weight \(\) does not go with y \(6,\)"),
        ({"y": cell(4, 2.0)}, RowError, r"label is outside \{0, 1\} in 1 of 6 rows, first in rows \[4\]"),
        ({"y": np.full(6, np.nan)}, RowError, r"in 6 of 6 rows, first in rows \[0, 1, 2, 3, 4\]"),
        ({"y": cell(3, np.inf), "loss": "squared"}, RowError, "label is not finite in 1 of 6 rows"),
        ({"X": cell(5, np.nan, (6, 2))}, RowError, r"feature is not finite in 1 of 6 rows, first in rows \[5\]"),
        ({"X": sparse.csr_array(cell(5, np.inf, (6, 2)))}, RowError, r"feature .* in 1 of 6 rows, .* \[5\]"),
        ({"offset": cell(1, -np.inf)}, RowError, r"offset is not finite in 1 of 6 rows, first in rows \[1\]"),
        ({"weight": cell(2, -1.0)}, RowError, r"weight is negative or not finite in 1 of 6 rows, .* \[2\]"),
        ({"weight": cell(2, np.nan)}, RowError, "weight is negative or not finite in 1 of 6 rows"),
        ({"forgetting": 0.9}, ConfigError, "forgetting below 1 needs a base"),
        ({"forgetting": 1.5, "base": BLOCK}, ConfigError, r"forgetting lies outside \[0, 1\]"),
        ({"base": Posterior(np.zeros(3), np.eye(3))}, ConfigError, r"base of mean \(3,\) does not go with 2"),
        ({"base": Posterior(np.zeros(1), np.eye(1))}, ConfigError, r"base of mean \(1,\) does not go with 2"),
        ({"posterior": Posterior(np.zeros((1, 2)), np.ones((1, 2)))}, ConfigError, "use update_posteriors"),
        (
            {"posterior": Posterior(np.zeros(2), np.ones(2)), "base": BLOCK, "forgetting": 0.9},
            ConfigError,
            "cannot return to a full base",
        ),
    ],
)
def test_bad_input_says_what_is_wrong_and_where(changed, error, message):
    with pytest.raises(error, match=message):
        update_posterior(**{"posterior": BLOCK, **GOOD, **changed})


def test_a_misspelt_loss_or_diagonal_is_an_error() -> None:
    one = ac.Posterior(np.zeros((1, 1)), np.ones((1, 1)))
    with pytest.raises(ConfigError, match="did you mean 'logistic'"):
        ac.update_posteriors(one, [[1.0]], [1.0], [0, 1], loss="logistc")
    with pytest.raises(ConfigError, match="did you mean 'marginal'"):
        ac.update_posteriors(one, [[1.0]], [1.0], [0, 1], diagonal="margnal")


@pytest.mark.parametrize("shape", [(7, 3), (1, 1), (3, 0), (0, 3)])
@pytest.mark.parametrize("zeros", [True, False])
def test_dense_rows_become_what_scipy_makes_of_them(shape, zeros):
    X = np.random.default_rng(0).normal(size=shape)
    X[: len(X) // 2 if zeros else 0] = 0.0
    for order in (X, np.asfortranarray(X)):
        made, expected = _csr(order), sparse.csr_array(X)
        assert made.has_canonical_format
        for part in ("data", "indices", "indptr"):
            assert_array_equal(getattr(made, part), getattr(expected, part))
            assert getattr(made, part).dtype == getattr(expected, part).dtype
