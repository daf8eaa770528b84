"""``update_posteriors``: many entities."""

import dataclasses
import tracemalloc

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
    random_precision,
    relative_difference,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import acclimate as ac
from acclimate.arrays import Posterior
from acclimate.errors import ConfigError, RowError
from acclimate.models import posterior
from acclimate.models.posterior import update_posterior, update_posteriors

SIZES = np.array([5, 0, 1, 3000, 17, 2, 1, 0, 240, 33, 64, 9])


def entities(seed: int, sizes: np.ndarray, d: int, *, full: bool) -> tuple[Posterior, Rows, np.ndarray]:
    """Posteriors that all differ, their rows and ``indptr``."""
    mean = np.random.default_rng(seed).normal(size=(len(sizes), d))
    precision = np.array([random_precision(seed + e, d, 1.0 + e) for e in range(len(sizes))])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    kept = precision if full else np.diagonal(precision, axis1=1, axis2=2).copy()
    return Posterior(mean, kept), draw(seed, int(indptr[-1]), d), indptr


def updated(posteriors: Posterior, rows: Rows, indptr: np.ndarray, **options) -> Posterior:
    after, info = update_posteriors(posteriors, rows.X, rows.y, indptr, **rows.columns, **options)
    assert info.converged.all()
    assert info.decrement.max() <= 1e-9
    assert info.steps.shape == info.decrement.shape == (len(indptr) - 1,)
    return after


def assert_same(a: Posterior, b: Posterior, within: float = 1e-8) -> None:
    """In posterior standard deviations, entity by entity."""
    assert a.mean.shape == b.mean.shape
    assert a.precision.shape == b.precision.shape
    for m, n, P, Q in zip(a.mean, b.mean, a.precision, b.precision, strict=True):
        P, Q = (P, Q) if a.is_full else (np.diag(P), np.diag(Q))
        assert distance(m, n, P) < within
        assert relative_difference(P, Q) < within


def test_the_public_name_is_this_function():
    assert ac.update_posteriors is update_posteriors


@pytest.mark.parametrize("forgetting", [1.0, 0.9, np.linspace(0.0, 1.0, len(SIZES))], ids=["1", ".9", "each"])
@pytest.mark.parametrize("kind", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize("d", [1, 4])
def test_together_is_one_by_one(d, kind, forgetting):
    posteriors, rows, indptr = entities(1, SIZES, d, full=kind == "full")
    options = {
        "base": Posterior(np.linspace(-0.5, 0.5, d), np.linspace(0.5, 2.0, d)),
        "diagonal": "marginal" if kind == "marginal" else "diagonal",
    }
    after = updated(posteriors, rows, indptr, forgetting=forgetting, **options)
    keep = np.broadcast_to(forgetting, len(SIZES))
    one_by_one = []
    for e in range(len(SIZES)):
        part = rows.taken(slice(indptr[e], indptr[e + 1]))
        before = Posterior(posteriors.mean[e], posteriors.precision[e])
        past = {"forgetting": float(keep[e]), **options}
        alone, info = update_posterior(before, part.X, part.y, **part.columns, **past)
        assert info.converged
        one_by_one.append(alone)
    expected = Posterior(np.array([p.mean for p in one_by_one]), np.array([p.precision for p in one_by_one]))
    assert_same(after, expected)


def test_each_mean_is_scipys_minimiser():
    sizes = np.array([1, 200, 30])
    posteriors, rows, indptr = entities(2, sizes, 3, full=True)
    after = updated(posteriors, rows, indptr)
    for e in range(3):
        part = rows.taken(slice(indptr[e], indptr[e + 1]))
        w = minimiser(posteriors.mean[e], posteriors.precision[e], part)
        H = posteriors.precision[e] + information(w, part)
        assert distance(after.mean[e], w, H) < 1e-8
        assert relative_difference(after.precision[e], H) < 1e-8


def test_squared_loss_batch_by_batch_equals_the_closed_form_on_all_data():
    first, second = np.array([4, 0, 30, 1]), np.array([7, 5, 0, 2])
    posteriors, early, cuts = entities(3, first, 3, full=True)
    late, later_cuts = draw(4, 14, 3), np.concatenate([[0], np.cumsum(second)])
    after = updated(updated(posteriors, early, cuts, loss="squared"), late, later_cuts, loss="squared")
    for e in range(4):
        parts = early.taken(slice(cuts[e], cuts[e + 1])), late.taken(slice(later_cuts[e], later_cuts[e + 1]))
        X, y = np.concatenate([p.X for p in parts]), np.concatenate([p.y - p.offset for p in parts])
        weighted = np.concatenate([p.weight for p in parts])[:, None] * X
        H = posteriors.precision[e] + weighted.T @ X
        mean = np.linalg.solve(H, posteriors.precision[e] @ posteriors.mean[e] + weighted.T @ y)
        assert_allclose(after.mean[e], mean, rtol=0, atol=1e-9)
        assert relative_difference(after.precision[e], H) < 1e-9


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_entities_without_rows_stay_bit_for_bit(full):
    posteriors, rows, indptr = entities(5, SIZES, 3, full=full)
    base = Posterior(np.zeros(3), np.ones(3))
    after, info = update_posteriors(posteriors, rows.X, rows.y, indptr, forgetting=0.5, base=base)
    idle = SIZES == 0
    assert_array_equal(after.mean[idle], posteriors.mean[idle])
    assert_array_equal(after.precision[idle], posteriors.precision[idle])
    assert_array_equal(info.steps[idle], 0)
    assert info.converged[idle].all()
    assert np.all(after.mean[~idle] != posteriors.mean[~idle])
    nobody, _ = update_posteriors(posteriors, np.empty((0, 3)), [], np.zeros(len(SIZES) + 1))
    assert_array_equal(nobody.mean, posteriors.mean)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(7)), full=st.booleans())
def test_the_order_of_entities_and_of_rows_does_not_matter(seed, order, full):
    sizes = np.array([3, 0, 12, 1, 40, 7, 1])
    posteriors, rows, indptr = entities(seed, sizes, 3, full=full)
    after = updated(posteriors, rows, indptr)
    rng = np.random.default_rng(seed)
    taken = np.concatenate([rng.permutation(np.arange(indptr[e], indptr[e + 1])) for e in order])
    moved = updated(
        Posterior(posteriors.mean[order], posteriors.precision[order]),
        rows.taken(taken),
        np.concatenate([[0], np.cumsum(sizes[order])]),
    )
    assert_same(moved, Posterior(after.mean[order], after.precision[order]))


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_who_else_learns_does_not_matter(sizes):
    posteriors, rows, indptr = entities(6, np.array(sizes), 2, full=True)
    after = updated(posteriors, rows, indptr)
    for e in range(len(sizes)):
        part = slice(indptr[e], indptr[e + 1])
        one = Posterior(posteriors.mean[e : e + 1], posteriors.precision[e : e + 1])
        alone = updated(one, rows.taken(part), np.array([0, sizes[e]]))
        assert_same(Posterior(after.mean[e : e + 1], after.precision[e : e + 1]), alone)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_weights_count_rows_and_weight_0_is_none(full):
    sizes = np.array([6, 30, 4])
    posteriors, rows, indptr = entities(7, sizes, 3, full=full)
    times = np.random.default_rng(7).integers(0, 4, 40)
    after = updated(posteriors, dataclasses.replace(rows, weight=times.astype(float)), indptr)
    repeated = dataclasses.replace(rows, weight=np.ones(40)).taken(np.repeat(np.arange(40), times))
    assert_same(updated(posteriors, repeated, np.concatenate([[0], np.cumsum(times)])[indptr]), after)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_hard_entities_converge_beside_easy_ones(full, scale):
    """One class only, separable, margins of 1e4 by offsets and features, one row; priors weak and strong."""
    sizes = np.array([20, 20, 20, 20, 20, 1, 20])
    posteriors, rows, indptr = entities(8, sizes, 2, full=full)
    entity = np.repeat(np.arange(7), sizes)
    y, offset = rows.y.copy(), rows.offset.copy()
    y[entity == 0], y[entity == 1] = 0.0, 1.0
    y[entity == 2] = rows.X[entity == 2, 1] > 0
    offset[entity == 3] *= 1e4
    offset[entity == 4] = 1e4 * (1 - 2 * y[entity == 4])
    X = np.where(np.isin(entity, [2, 6])[:, None], scale, 1.0) * rows.X
    rows = Rows(X, y, offset, rows.weight)
    posteriors = Posterior(posteriors.mean, 1e-2 * posteriors.precision)
    after = updated(posteriors, rows, indptr)
    for e in range(7):
        part = rows.taken(entity == e)
        P = posteriors.precision[e] if full else np.diag(posteriors.precision[e])
        H = P + information(after.mean[e], part)
        left = gradient(after.mean[e], posteriors.mean[e], P, part)
        assert np.sqrt(left @ np.linalg.solve(H, left)) < 1e-8
        assert_allclose(after.precision[e], H if full else np.diag(H), rtol=1e-7, atol=1e-9)


def test_each_entity_reports_its_own_convergence():
    """With one step allowed, the entity that has nothing to learn arrives and the other does not."""
    posteriors = Posterior(np.zeros((2, 1)), np.full((2, 1), 0.01))
    X, y = np.ones((9, 1)), np.array([0, 1, 1, 1, 1, 1, 1, 1, 1])
    _, info = update_posteriors(posteriors, X, y, [0, 2, 9], max_steps=1)
    assert_array_equal(info.converged, [True, False])
    assert_array_equal(info.steps, [0, 1])
    assert info.decrement[0] <= 1e-9 < info.decrement[1]


def test_a_precision_that_is_none_does_not_pass_for_converged():
    bad = np.array([np.eye(2), [[1.0, 50.0], [50.0, 1.0]]])
    rows = draw(9, 20, 2)
    _, info = update_posteriors(Posterior(np.ones((2, 2)), bad), rows.X, rows.y, [0, 10, 20])
    assert_array_equal(info.converged, [True, False])


def test_those_without_a_root_are_solved_as_if_each_were_alone(monkeypatch):
    """The second coefficient is the first again, and the prior says next to nothing."""
    monkeypatch.setattr("acclimate.models.grouping._CHUNK_CELLS", 30)
    sizes = np.array([3, 7, 3, 3, 7, 4, 3])
    _, rows, indptr = entities(12, sizes, 2, full=True)
    X, y = rows.X[:, [1, 1]], (np.arange(30) % 2).astype(float)
    prior = Posterior(np.zeros((7, 2)), np.tile(1e-15 * np.eye(2), (7, 1, 1)))
    side_by_side: list[int] = []
    solver = posterior._newton
    monkeypatch.setattr(posterior, "_newton", lambda p, r, s: side_by_side.append(len(r.y)) or solver(p, r, s))
    after, _ = update_posteriors(prior, X, y, indptr)
    assert side_by_side == [3, 1, 1, 2] or sum(side_by_side) == 7
    for e in range(7):
        part = slice(indptr[e], indptr[e + 1])
        alone, _ = update_posteriors(prior.at(slice(e, e + 1)), X[part], y[part], [0, sizes[e]])
        assert_allclose(after.precision[e], alone.precision[0], rtol=1e-9)
        assert_allclose(X[part] @ after.mean[e], X[part] @ alone.mean[0], rtol=1e-6)


def test_memory_stays_bounded_where_entities_have_a_row_each():
    """Their Hessians, not their rows, are what is large: 82 MB if all were held at once."""
    posteriors = Posterior(np.zeros((10_000, 32)), np.ones((10_000, 32)))
    rows = draw(10, 10_000, 32)
    tracemalloc.start()
    update_posteriors(posteriors, rows.X, rows.y, np.arange(10_001), tolerance=1e-2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 82e6


def test_shifted_features_are_as_exact_as_a_raw_precision_can_hold():
    """A year as a feature: the raw precision holds what is known of its slope to 2e-9."""
    rng = np.random.default_rng(11)
    year = 2022 + rng.uniform(-0.5, 0.5, 300)
    standardised = np.array([[1.0, 2022.0], [0.0, 0.5]])
    inside = draw(11, 300, 2)
    inside = dataclasses.replace(inside, X=np.column_stack([np.ones(300), (year - 2022) / 0.5]))
    raw = dataclasses.replace(inside, X=np.column_stack([np.ones(300), year]))
    prior = Posterior(np.zeros((1, 2)), 0.1 * (standardised.T @ standardised)[None])
    after = updated(prior, raw, np.array([0, 300]))
    w = minimiser(np.zeros(2), 0.1 * np.eye(2), inside)
    H = 0.1 * np.eye(2) + information(w, inside)
    back = np.linalg.inv(standardised)
    assert distance(standardised @ after.mean[0], w, H) < 1e-8
    assert relative_difference(back.T @ after.precision[0] @ back, H) < 1e-7


# --- bad input -------------------------------------------------------------------------------------------

GOOD = {
    "posteriors": Posterior(np.zeros((3, 2)), np.ones((3, 2))),
    "X": np.ones((6, 2)),
    "y": np.array([0, 1, 0, 1, 1, 0]),
    "indptr": np.array([0, 2, 2, 6]),
}
BASE, EACH = Posterior(np.zeros(2), np.ones(2)), Posterior(np.zeros((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"indptr": [0, 2, 6]}, ConfigError, "indptr must rise from 0 to 6 in 4 steps"),
        ({"indptr": [0, 2, 2, 5]}, ConfigError, "indptr must rise from 0 to 6"),
        ({"indptr": [1, 2, 2, 6]}, ConfigError, "indptr must rise from 0 to 6"),
        ({"indptr": [0, 4, 2, 6]}, ConfigError, "indptr must rise from 0 to 6"),
        ({"X": np.ones((6, 3))}, ConfigError, r"X \(6, 3\) and y \(6,\) do not go with 2 coefficients"),
        ({"X": sparse.csr_array(np.ones((6, 2)))}, ConfigError, "dense"),
        ({"offset": np.ones(3)}, ConfigError, r"offset \(3,\) does not go with y \(6,\)"),
        ({"y": [0, 1, 3, 1, 1, -1]}, RowError, r"label is outside \{0, 1\} in 2 of 6 rows, .* \[2, 5\]"),
        ({"weight": [1, 1, -1, 1, 1, np.inf]}, RowError, r"weight .* in 2 of 6 rows, first in rows \[2, 5\]"),
        ({"forgetting": 0.9}, ConfigError, "forgetting below 1 needs a base"),
        ({"forgetting": np.array([1.0, 1.0, 0.9])}, ConfigError, "forgetting below 1 needs a base"),
        (
            {"forgetting": np.full(2, 0.9), "base": BASE},
            ConfigError,
            r"forgetting \(2,\) does not go with 3 entities",
        ),
        ({"forgetting": -1.0, "base": BASE}, ConfigError, "outside"),
        ({"forgetting": 0.9, "base": EACH}, ConfigError, r"base of mean \(3, 2\) does not go with 2 coefficients"),
        ({"forgetting": 0.9, "base": Posterior(np.zeros(1), np.ones(1))}, ConfigError, r"base of mean \(1,\)"),
        ({"posteriors": Posterior(np.zeros(2), np.ones(2))}, ConfigError, "use update_posterior"),
    ],
)
def test_bad_input_says_what_is_wrong_and_where(changed, error, message):
    with pytest.raises(error, match=message):
        update_posteriors(**{**GOOD, **changed})
