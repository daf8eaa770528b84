"""Counts: the Poisson posterior against SciPy's optimum, from any start, and in every form of the solver."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_blocks import KINDS, World, joined, kept_precisions, world
from scipy import optimize

from acclimate.arrays import Posterior
from acclimate.errors import ConfigError, RowError
from acclimate.models.posterior import update_posterior, update_posteriors


def counts_of(made: World, seed: int = 0) -> World:
    """The same effects with labels that count."""
    y = np.random.default_rng(seed).poisson(np.exp(1.0 + made.rows.offset + 2.0 * made.rows.y)).astype(float)
    return dataclasses.replace(made, rows=dataclasses.replace(made.rows, y=y))


def optimum(m: np.ndarray, P: np.ndarray, rows) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's minimiser of ``sum_i s_i (exp(z_i) - y_i z_i) + (w - m)'P(w - m)/2``, and the Hessian there."""

    def gradient(w):
        return rows.X.T @ (rows.weight * (np.exp(rows.X @ w + rows.offset) - rows.y)) + P @ (w - m)

    def hessian(w):
        return P + rows.X.T @ ((rows.weight * np.exp(rows.X @ w + rows.offset))[:, None] * rows.X)

    def objective(w):
        z = rows.X @ w + rows.offset
        return rows.weight @ (np.exp(z) - rows.y * z) + 0.5 * (w - m) @ P @ (w - m)

    near = optimize.minimize(objective, m, jac=gradient, hess=hessian, method="trust-exact").x
    root = optimize.root(gradient, near, jac=hessian, options={"xtol": 1e-15}).x
    left = gradient(root)
    assert np.sqrt(left @ np.linalg.solve(hessian(root), left)) < 1e-9
    return root, hessian(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weak", [1.0, 0.01])
def test_the_joint_solution_of_counts_is_scipys(kind, weak):
    made = counts_of(world(1, kind=kind, weak=weak))
    w, H = optimum(*made.stacked())
    solution = made.solved(loss="poisson", tolerance=1e-9)
    assert solution.converged
    assert_allclose(joined(solution), w, rtol=0, atol=1e-8)
    first = 0
    for k, effect in enumerate(made.effects):
        expected = kept_precisions(H, effect, first, kind)
        assert_allclose(solution.posterior(k).precision, expected, rtol=1e-7, atol=1e-9)
        first += effect.prior.mean.size


def test_the_expected_loss_of_counts_is_that_at_margins_with_half_their_variance():
    made = counts_of(world(2))
    variance = np.linspace(0.0, 3.0, 300)
    m, P, rows = made.stacked()
    w, H = optimum(m, P, dataclasses.replace(rows, offset=rows.offset + 0.5 * variance))
    solution = made.solved(loss="poisson", variance=variance, tolerance=1e-9)
    assert_allclose(joined(solution), w, rtol=0, atol=1e-8)
    assert_allclose(solution.posterior(0).precision[0], H[:4, :4], rtol=1e-7)


@settings(deadline=None)
@given(
    start=st.sampled_from([-700.0, -30.0, -3.0, 0.0, 5.0, 40.0, 700.0]),
    precision=st.sampled_from([1e-6, 1e-2, 1.0]),
    top=st.sampled_from([0, 1, 30, 10**7]),
    seed=st.integers(0, 100),
)
def test_newton_arrives_from_any_start(start, precision, top, seed):
    """Far below the optimum its step is far too long, and far above too short, by as much as there is room."""
    rng = np.random.default_rng(seed)
    X, y = np.column_stack([np.ones(20), rng.normal(size=20)]), rng.integers(0, top + 1, 20).astype(float)
    prior = Posterior(np.array([start, 0.0]), precision * np.eye(2))
    posterior, info = update_posterior(prior, X, y, loss="poisson", tolerance=1e-6, max_steps=200)
    assert info.converged
    assert info.steps < 60
    left = X.T @ (np.exp(X @ posterior.mean) - y) + precision * (posterior.mean - prior.mean)
    assert np.sqrt(left @ np.linalg.solve(posterior.precision, left)) < 1e-4


@pytest.mark.parametrize("d", [2, 80], ids=["side by side", "joint"])
@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_entities_side_by_side_are_each_as_if_alone(d, form):
    if form == "full" and d > 2:
        pytest.skip("wide entities are kept as diagonals")
    rng = np.random.default_rng(4)
    X, indptr = rng.normal(size=(60, d)) / np.sqrt(d), np.array([0, 25, 25, 60])
    y = rng.poisson(np.exp(2.0 * X[:, 0] + np.repeat([0.0, 4.0], [25, 35]))).astype(float)
    P = np.eye(d) if form == "full" else np.ones(d)
    together = Posterior(np.zeros((3, d)), np.array([P] * 3))
    after, info = update_posteriors(together, X, y, indptr, loss="poisson", tolerance=1e-10)
    assert info.converged.all()
    assert_array_equal(after.mean[1], 0.0)
    for e, rows in ((0, slice(0, 25)), (2, slice(25, 60))):
        alone, _ = update_posterior(Posterior(np.zeros(d), P), X[rows], y[rows], loss="poisson", tolerance=1e-10)
        assert_allclose(after.mean[e], alone.mean, atol=1e-8)
        assert_allclose(after.precision[e], alone.precision, rtol=1e-7, atol=1e-9)


def test_one_level_of_counts_with_exposures_is_the_gamma_posteriors_mode():
    """Of a flat prior the level is ``log(sum y / sum exposure)``, its precision the count."""
    exposure, y = np.array([0.5, 2.0, 10.0]), np.array([1.0, 0.0, 25.0])
    prior = Posterior(np.zeros(1), np.full((1, 1), 1e-12))
    after, _ = update_posterior(prior, np.ones((3, 1)), y, offset=np.log(exposure), loss="poisson")
    assert_allclose(after.mean, np.log(26 / 12.5), rtol=1e-9)
    assert_allclose(after.precision, 26.0, rtol=1e-9)


@pytest.mark.parametrize("y", [-1.0, 0.5, np.nan, np.inf, 1e17])
def test_what_is_no_count_is_refused(y):
    with pytest.raises(RowError, match=r"no count .* in 1 of 2 rows, first in rows \[1\]"):
        update_posterior(Posterior(np.zeros(1), np.eye(1)), np.ones((2, 1)), [3.0, y], loss="poisson")


def test_a_loss_that_is_none_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="no loss 'poison'") as told:
        update_posterior(Posterior(np.zeros(1), np.eye(1)), np.ones((1, 1)), [1.0], loss="poison")  # type: ignore[arg-type]
    assert "poisson" in str(told.value.hint)
