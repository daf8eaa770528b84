"""The noise of numbers: how many rows coefficients use up, and what is left for the variance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from acclimate.arrays import Full, Posterior
from acclimate.models.blocks import Design
from acclimate.models.joint import Block, solve_joint
from acclimate.models.noise import Noise, gain, learned_noise, used_rows


@given(seed=st.integers(0, 1000), noise=st.sampled_from([0.1, 1.0, 7.0]))
def test_of_one_effect_they_are_the_trace_of_the_hat_matrix(seed, noise):
    rng = np.random.default_rng(seed)
    X, weight = rng.normal(size=(30, 3)), rng.integers(1, 4, 30).astype(float)
    S = np.linalg.inv(np.eye(3) + X.T @ ((weight / noise)[:, None] * X))
    variances = np.vecdot(X @ S, X)
    expected = np.trace(S @ X.T @ ((weight / noise)[:, None] * X))
    assert_allclose(used_rows(weight / noise, weight, [variances, 0.0 * variances]), expected, rtol=1e-9)
    assert used_rows(weight / noise, weight, []) == 0.0


def test_of_crossed_effects_that_meet_once_they_are_those_of_the_joint_posterior():
    """One row of a user and an item of variances 2 and 1, noise .5: all that is known is a sum of three."""
    a, b, v = 2.0, 1.0, 0.5
    joint = (a + b) * v / (a + b + v)
    parts = [np.array([a - a**2 / (a + b + v)]), np.array([b - b**2 / (a + b + v)])]
    assert parts[0] + parts[1] > joint  # they do not add up
    # Each effect's own variance by what the row leaves open for it, until neither moves.
    for _ in range(200):
        parts = [1.0 / (1.0 / own + 1.0 / (v + other)) for own, other in ((a, parts[1]), (b, parts[0]))]
    assert_allclose(used_rows(np.array([1 / v]), np.ones(1), parts), joint / v, rtol=1e-9)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 39))
def test_what_was_known_before_counts_as_its_rows(seed, cut):
    rng = np.random.default_rng(seed)
    residual, weight = rng.normal(size=40), rng.uniform(0.5, 2.0, 40)
    squares = weight * residual**2
    whole = learned_noise(Noise(9.0), squares, weight, used=0.0, usual=1.0)
    first = learned_noise(Noise(9.0), squares[:cut], weight[:cut], used=0.0, usual=1.0)
    both = learned_noise(first, squares[cut:], weight[cut:], used=0.0, usual=1.0)
    assert_allclose([both.variance, both.rows], [whole.variance, whole.rows], rtol=1e-12)
    assert_allclose(whole.variance, np.average(residual**2, weights=weight), rtol=1e-12)
    assert whole.faded(0.25) == Noise(whole.variance, 0.25 * whole.rows)


def test_rows_that_are_used_up_say_nothing_and_no_noise_is_none():
    past = Noise(2.0, 5.0)
    assert learned_noise(past, np.ones(10), np.ones(10), used=10.0, usual=1.0) == past
    assert learned_noise(past, np.ones(0), np.ones(0), used=0.0, usual=1.0) == past
    assert learned_noise(Noise(), np.zeros(10), np.ones(10), used=0.0, usual=4.0).variance == 4e-8


@given(before=st.floats(0.1, 10), rows=st.floats(1, 1000), variance=st.floats(0.1, 10))
def test_the_gain_is_that_of_the_likelihood_and_never_negative(before, rows, variance):
    def loss(v: float) -> float:
        return 0.5 * rows * (np.log(v) + variance / v)

    found = gain(before, Noise(variance, rows))
    assert found >= -1e-9 * rows
    assert_allclose(found, loss(before) - loss(variance), rtol=1e-6, atol=1e-9 * rows)


@pytest.mark.parametrize("noise", [0.2, 5.0])
def test_a_noise_is_a_division_of_the_weights_but_for_what_rows_count(noise):
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(50, 2)), rng.normal(size=50), rng.uniform(0.5, 2.0, 50)
    design = Design.of(sparse.csr_array(X), None, 1, weight=weight, centre=True)
    block = Block(design, Posterior(np.zeros((1, 2)), np.eye(2)[None]), "full")
    one = solve_joint([block], y, 0 * y, weight, loss="squared", noise=noise, tolerance=1e-10)
    other = solve_joint([block], y, 0 * y, weight / noise, loss="squared", tolerance=1e-10)
    assert_allclose(one.means(0), other.means(0), rtol=1e-12)
    assert_allclose(one.problem.count, weight, rtol=1e-12)
    assert_allclose(other.problem.count, weight / noise, rtol=1e-12)


def test_the_variance_of_rows_of_a_single_entity_is_that_of_its_covariance(monkeypatch):
    rng = np.random.default_rng(0)
    X, curvature = rng.normal(size=(40, 3)), rng.uniform(0.1, 1.0, 40)
    entity = np.where(np.arange(40) % 4 == 0, -1, 0)
    design = Design.of(sparse.csr_array(X), entity, 1, weight=np.ones(40), centre=False)
    x, part_of = design.wide.toarray(), entity == 0
    S = np.linalg.inv(2.0 * np.eye(3) + x[part_of].T @ (curvature[part_of, None] * x[part_of]))
    expected = np.where(part_of, np.vecdot(x @ S, x), 0.0)
    monkeypatch.setattr("acclimate.models.blocks._STRIP_CELLS", 30)
    assert_allclose(design.variances(Full(2.0 * np.eye(3)[None]), curvature, full=True), expected, rtol=1e-9)
