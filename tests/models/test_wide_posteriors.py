"""Diagonal posteriors too wide for matrices: by conjugate gradients, and never through a ``(d, d)`` array."""

import dataclasses

import numpy as np
import pytest
from model_oracles import Rows, distance, draw, information, minimiser, sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.arrays import Diagonal, Posterior
from acclimate.errors import ConfigError
from acclimate.models.joint import solve_joint
from acclimate.models.posterior import DENSE_WIDTH, update_posterior, update_posteriors

BEYOND_MEMORY = 200_000
"""Coefficients of which a matrix would be 320 GB."""

FORMS = {"dense": lambda X: X.toarray(), "csr": sparse.csr_array, "csc": sparse.csc_array}


@pytest.fixture(autouse=True)
def no_wide_matrix(monkeypatch):
    """Fails at once where a machine of much memory would only take its time."""
    written_out = Diagonal.full

    def full(self):
        assert self.array.shape[-1] < 1000, "a wide diagonal was written out"
        return written_out(self)

    monkeypatch.setattr(Diagonal, "full", full)


def touched_columns(d: int, count: int = 12) -> np.ndarray:
    """The intercept, the last, and some between."""
    return np.unique([0, d - 1, *np.random.default_rng(d).integers(1, d, count - 2)])


def spread_out(rows: Rows, columns: np.ndarray, d: int) -> "sparse.csr_array":
    """The few columns of the rows at their places among ``d``."""
    n, few = rows.X.shape
    indptr = few * np.arange(n + 1)
    return sparse.csr_array((rows.X.ravel(), np.tile(columns, n), indptr), shape=(n, d))


def wide_prior(d: int, count: int | None = None) -> Posterior:
    rng = np.random.default_rng([d, 1])
    shape = (d,) if count is None else (count, d)
    return Posterior(0.5 * rng.normal(size=shape), rng.uniform(0.3, 3.0, shape))


def assert_is_the_narrow_one(wide: Posterior, prior: Posterior, columns: np.ndarray, rows: Rows) -> None:
    """Where columns are touched, SciPy's optimum of these alone; elsewhere the prior."""
    m, P = prior.mean[columns], np.diag(prior.precision[columns])
    w = minimiser(m, P, rows)
    H = P + information(w, rows)
    assert distance(wide.mean[columns], w, H) < 1e-8
    assert_allclose(wide.precision[columns], np.diag(H), rtol=1e-8)
    untouched = np.ones(len(prior.mean), bool)
    untouched[columns] = False
    assert_allclose(wide.mean[untouched], prior.mean[untouched], rtol=1e-14)
    assert_allclose(wide.precision[untouched], prior.precision[untouched], rtol=1e-14)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 6, 40])
def test_one_wide_block_is_the_narrow_one_of_the_columns_that_are_touched(n, form):
    d, prior = 20_000, wide_prior(20_000)
    columns = touched_columns(d)
    rows = draw(1, n, len(columns))
    after, info = update_posterior(prior, FORMS[form](spread_out(rows, columns, d)), rows.y, **rows.columns)
    assert info.converged
    assert after.precision.shape == (d,)
    assert_is_the_narrow_one(after, prior, columns, rows)


def test_one_block_so_wide_that_no_machine_holds_its_matrix():
    d, prior = BEYOND_MEMORY, wide_prior(BEYOND_MEMORY)
    columns = touched_columns(d)
    rows = draw(2, 15, len(columns))
    after, info = update_posterior(prior, spread_out(rows, columns, d), rows.y, **rows.columns)
    assert info.converged
    assert_is_the_narrow_one(after, prior, columns, rows)


def test_one_wide_block_forgets_coordinate_by_coordinate():
    d, prior = 20_000, wide_prior(20_000)
    columns, base = touched_columns(d), Posterior(np.zeros(d), np.full(d, 0.7))
    rows = draw(3, 10, len(columns))
    X = spread_out(rows, columns, d)
    after, _ = update_posterior(prior, X, rows.y, **rows.columns, forgetting=0.8, base=base)
    P0 = 0.8 * prior.precision + 0.2 * 0.7
    forgotten = Posterior(0.8 * prior.precision * prior.mean / P0, P0)
    assert_is_the_narrow_one(after, forgotten, columns, rows)


@pytest.mark.parametrize("d", [DENSE_WIDTH + 1, 20_000])
def test_many_wide_blocks_are_the_narrow_ones_of_the_columns_that_are_touched(d):
    sizes = np.array([7, 0, 1, 30, 0])
    indptr, prior = np.concatenate([[0], np.cumsum(sizes)]), wide_prior(d, 5)
    columns = touched_columns(d)
    rows = draw(4, 38, len(columns))
    X = spread_out(rows, columns, d).toarray()
    after, info = update_posteriors(prior, X, rows.y, indptr, **rows.columns)
    assert info.converged.all()
    assert info.decrement.max() <= 1e-9
    assert info.steps.shape == info.decrement.shape == (5,)
    for e in np.flatnonzero(sizes):
        few = rows.taken(slice(indptr[e], indptr[e + 1]))
        assert_is_the_narrow_one(after.at(int(e)), prior.at(int(e)), columns, few)
    idle = sizes == 0
    assert_array_equal(after.mean[idle], prior.mean[idle])
    assert_array_equal(after.precision[idle], prior.precision[idle])
    assert_array_equal(info.steps[idle], 0)
    assert np.all(info.steps[~idle] > 0)


def test_many_blocks_so_wide_that_no_machine_holds_a_matrix():
    d, prior = BEYOND_MEMORY, wide_prior(BEYOND_MEMORY, 3)
    columns = touched_columns(d)
    rows = draw(5, 6, len(columns))
    X = spread_out(rows, columns, d).toarray()
    after, info = update_posteriors(prior, X, rows.y, [0, 4, 4, 6], **rows.columns)
    assert info.converged.all()
    assert_is_the_narrow_one(after.at(0), prior.at(0), columns, rows.taken(slice(0, 4)))
    assert_is_the_narrow_one(after.at(2), prior.at(2), columns, rows.taken(slice(4, 6)))


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_rows_that_touch_all_columns_reach_the_optimum(loss):
    """Where the gradient is nothing: ``g'H^-1 g`` is at most ``g'P^-1 g``, which needs no matrix."""
    d, n = 5_000, 8
    prior, rng = wide_prior(d, 2), np.random.default_rng(6)
    X, y, s = rng.normal(size=(n, d)) / np.sqrt(d), (np.arange(n) % 2).astype(float), rng.uniform(0.5, 2.0, n)
    together, info = update_posteriors(prior, X, y, [0, 5, n], weight=s, loss=loss)
    assert info.converged.all()
    for e, part in enumerate((slice(0, 5), slice(5, n))):
        alone, alone_info = update_posterior(prior.at(e), X[part], y[part], weight=s[part], loss=loss)
        assert alone_info.converged
        for after in (together.at(e), alone):
            z = X[part] @ after.mean
            slope, bend = (
                (sigmoid(z) - y[part], sigmoid(z) * sigmoid(-z)) if loss == "logistic" else (z - y[part], 1)
            )
            g = X[part].T @ (s[part] * slope) + prior.precision[e] * (after.mean - prior.mean[e])
            assert np.sqrt(g @ (g / prior.precision[e])) < 1e-8
            H = prior.precision[e] + (X[part] ** 2).T @ (s[part] * bend)
            assert_allclose(after.precision, H, rtol=1e-12)


# --- by matrices and without them ------------------------------------------------------------------------


def wide_entities(seed: int, sizes: np.ndarray, d: int) -> tuple[Posterior, Rows, np.ndarray]:
    return wide_prior(d, len(sizes)), draw(seed, int(sizes.sum()), d), np.concatenate([[0], np.cumsum(sizes)])


def both_ways(monkeypatch, posteriors: Posterior, rows: Rows, indptr: np.ndarray, **options):
    """The same update through whole Hessians and through conjugate gradients."""
    results = []
    for most in (10**6, 0):
        monkeypatch.setattr("acclimate.models.posterior.DENSE_WIDTH", most)
        results.append(update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns, **options))
        assert results[-1][1].converged.all()
    return [after for after, _ in results]


def assert_same(one: Posterior, other: Posterior, prior: Posterior, rows: Rows, indptr: np.ndarray) -> None:
    """In posterior standard deviations, entity by entity."""
    for e in range(len(indptr) - 1):
        few = rows.taken(slice(indptr[e], indptr[e + 1]))
        H = np.diag(prior.precision[e]) + information(one.mean[e], few)
        assert distance(one.mean[e], other.mean[e], H) < 1e-8
    assert_allclose(other.precision, one.precision, rtol=1e-8)


SIZES = np.array([5, 0, 1, 90, 17, 2, 0, 33])


@pytest.mark.parametrize("forgetting", [1.0, 0.9, np.linspace(0.0, 1.0, len(SIZES))], ids=["1", ".9", "each"])
@pytest.mark.parametrize("d", [1, 3, 20])
def test_both_ways_give_the_same(monkeypatch, d, forgetting):
    posteriors, rows, indptr = wide_entities(7, SIZES, d)
    base = Posterior(np.linspace(-0.5, 0.5, d), np.linspace(0.5, 2.0, d))
    one, other = both_ways(monkeypatch, posteriors, rows, indptr, forgetting=forgetting, base=base)
    keep = np.broadcast_to(forgetting, len(SIZES))[:, None]
    P0 = keep * posteriors.precision + (1 - keep) * base.precision
    assert_same(one, other, Posterior(one.mean, P0), rows, indptr)


def test_both_ways_give_the_same_with_squared_loss(monkeypatch):
    posteriors, rows, indptr = wide_entities(8, SIZES, 5)
    rows = dataclasses.replace(rows, y=np.random.default_rng(8).normal(size=len(rows.y)))
    one, other = both_ways(monkeypatch, posteriors, rows, indptr, loss="squared")
    assert_allclose(other.mean, one.mean, rtol=0, atol=1e-9)
    assert_allclose(other.precision, one.precision, rtol=1e-12)


def test_a_marginal_is_by_matrices_however_wide(monkeypatch):
    posteriors, rows, indptr = wide_entities(9, np.array([40, 3]), 4)
    one, other = both_ways(monkeypatch, posteriors, rows, indptr, diagonal="marginal")
    assert_array_equal(other.mean, one.mean)
    assert_array_equal(other.precision, one.precision)


def test_the_width_that_decides(monkeypatch):
    widths = []

    def solve(blocks, *columns, **options):
        widths.append(blocks[0].design.width)
        return solve_joint(blocks, *columns, **options)

    monkeypatch.setattr("acclimate.models.posterior.solve_joint", solve)
    for d in (DENSE_WIDTH - 1, DENSE_WIDTH, DENSE_WIDTH + 1):
        posteriors, rows, indptr = wide_entities(14, np.array([3, 2]), d)
        update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns)
    assert widths == [DENSE_WIDTH + 1]


def test_wide_is_one_by_one():
    d = DENSE_WIDTH + 1
    posteriors, rows, indptr = wide_entities(10, SIZES, d)
    after, info = update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns)
    assert info.converged.all()
    one_by_one = []
    for e in range(len(SIZES)):
        few = rows.taken(slice(indptr[e], indptr[e + 1]))
        one, _ = update_posterior(posteriors.at(e), few.X, few.y, **few.columns)
        one_by_one.append(one)
    expected = Posterior(np.array([p.mean for p in one_by_one]), np.array([p.precision for p in one_by_one]))
    assert_same(expected, after, posteriors, rows, indptr)


def test_weights_count_rows_and_weight_0_is_none():
    d, sizes = DENSE_WIDTH + 1, np.array([6, 30, 4])
    posteriors, rows, indptr = wide_entities(11, sizes, d)
    times = np.random.default_rng(11).integers(0, 4, 40)
    heavy = dataclasses.replace(rows, weight=times.astype(float))
    after, _ = update_posteriors(posteriors, heavy.X, heavy.y, indptr, **heavy.columns)
    many = dataclasses.replace(rows, weight=np.ones(40)).taken(np.repeat(np.arange(40), times))
    again, _ = update_posteriors(
        posteriors, many.X, many.y, np.concatenate([[0], np.cumsum(times)])[indptr], **many.columns
    )
    assert_same(after, again, posteriors, heavy, indptr)


@pytest.mark.parametrize("count", [0, 3])
def test_nobody_learns_from_no_rows(count):
    d = DENSE_WIDTH + 1
    posteriors = wide_prior(d, count)
    after, info = update_posteriors(posteriors, np.empty((0, d)), [], np.zeros(count + 1))
    assert_array_equal(after.mean, posteriors.mean)
    assert_array_equal(after.precision, posteriors.precision)
    assert info.converged.all()


def test_the_callers_arrays_are_left_alone():
    d = DENSE_WIDTH + 1
    posteriors, rows, indptr = wide_entities(12, np.array([3, 0, 4]), d)
    arrays = (posteriors.mean, posteriors.precision, rows.X, rows.y, rows.offset, rows.weight, indptr)
    copies = [array.copy() for array in arrays]
    update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns)
    for array, copy in zip(arrays, copies, strict=True):
        assert_array_equal(array, copy)


def test_steps_that_do_not_suffice_are_reported():
    d = DENSE_WIDTH + 1
    posteriors, rows, indptr = wide_entities(13, np.array([20, 0, 30]), d)
    _, info = update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns, max_steps=1)
    assert_array_equal(info.steps, [1, 0, 1])
    assert_array_equal(info.converged, [False, True, False])
    assert info.decrement[[0, 2]].min() > 1e-9


def test_bad_input_is_an_error_as_of_narrow_ones():
    d = DENSE_WIDTH + 1
    posteriors = wide_prior(d, 2)
    with pytest.raises(ConfigError, match="indptr must rise"):
        update_posteriors(posteriors, np.ones((3, d)), np.ones(3), [0, 2])
    with pytest.raises(ConfigError, match="needs a base"):
        update_posteriors(posteriors, np.ones((3, d)), np.ones(3), [0, 2, 3], forgetting=0.5)


@pytest.mark.parametrize(("tolerance", "max_steps"), [(0.1, 8), (0.01, 10), (1e-9, 50)])
def test_what_is_left_of_a_wide_entity_is_what_is_left_of_it_alone(tolerance, max_steps):
    """Its own diagonal Hessian sees a tenth of the distance: all columns move together."""
    rng, d = np.random.default_rng(0), 65
    X = 0.1 * rng.normal(size=(200, d)) + rng.normal(size=(200, 1))
    y = (rng.random(200) < 1.0 / (1.0 + np.exp(-X.sum(axis=1) / 20.0))).astype(np.float64)
    prior = Posterior(np.zeros((1, d)), np.full((1, d), 1e-2))
    limits = {"tolerance": tolerance, "max_steps": max_steps}
    _, many = update_posteriors(prior, X, y, [0, 200], **limits)
    _, alone = update_posterior(prior.at(0), X, y, **limits)
    assert_allclose(many.decrement, alone.decrement, rtol=1e-6, atol=1e-12)
    assert many.converged == alone.converged


# --- an update costs what it touches --------------------------------------------------------------------------


def test_columns_that_no_row_touches_are_no_part_of_the_problem(monkeypatch):
    widths = []

    def solve(blocks, *columns, **options):
        widths.append(blocks[0].design.width)
        return solve_joint(blocks, *columns, **options)

    monkeypatch.setattr("acclimate.models.posterior.solve_joint", solve)
    d, prior = 20_000, wide_prior(20_000)
    columns = touched_columns(d)
    rows = draw(15, 30, len(columns))
    X = spread_out(rows, columns, d)
    kept = prior.mean.copy(), prior.precision.copy()
    after, info = update_posterior(prior, X, rows.y, **rows.columns)
    assert widths == [len(columns)]
    assert info.converged
    assert_is_the_narrow_one(after, prior, columns, rows)
    assert_array_equal(prior.mean, kept[0])
    assert_array_equal(prior.precision, kept[1])
    assert X.shape == (30, d)


def test_a_prior_that_is_none_is_told_where_no_row_touches_it():
    d, prior = 100, wide_prior(100)
    prior.precision[50] = -1.0
    rows = draw(16, 30, 3)
    _, info = update_posterior(prior, spread_out(rows, np.arange(3), d), rows.y, **rows.columns)
    assert not info.converged
