from fractions import Fraction

import numpy as np
import pytest
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.artifacts import Posterior
from acclimate.errors import ConfigError
from acclimate.models.gaussian import decay, embedded, forget, inverse, reduced

FULL = Posterior(np.array([1.0, -2.0, 0.5]), random_precision(1, 3))
DIAGONAL = Posterior(np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.1, 30.0]))
BASE = Posterior(np.array([0.2, 0.0, -0.3]), np.array([1.0, 4.0, 0.5]))


def mixed(posterior: Posterior, base: Posterior, d: float) -> tuple[np.ndarray, np.ndarray]:
    """The design's formulas for one full block."""
    H, B = embedded(posterior), embedded(base)
    P0 = d * H + (1 - d) * B
    return np.linalg.inv(P0) @ (d * H @ posterior.mean + (1 - d) * B @ base.mean), P0


@pytest.mark.parametrize("keep", [0.05, 0.8, 0.95])
@pytest.mark.parametrize("base", [BASE, Posterior(BASE.mean, random_precision(2, 3))], ids=["diagonal", "full"])
def test_a_full_posterior_returns_to_the_base_as_the_formula_says(keep, base):
    prior = forget(FULL, base, keep)
    m0, P0 = mixed(FULL, base, keep)
    assert_allclose(prior.mean, m0, rtol=1e-12)
    assert_allclose(prior.precision, P0, rtol=1e-14)


@pytest.mark.parametrize("keep", [0.05, 0.8, 0.95])
def test_a_diagonal_posterior_does_so_coordinate_by_coordinate(keep):
    prior = forget(DIAGONAL, BASE, keep)
    m0, P0 = mixed(DIAGONAL, BASE, keep)
    assert prior.precision.shape == (3,)
    assert_allclose(prior.mean, m0, rtol=1e-12)
    assert_allclose(prior.precision, np.diag(P0), rtol=1e-14)


@pytest.mark.parametrize("one", [FULL, DIAGONAL], ids=["full", "diagonal"])
@pytest.mark.parametrize("shared", [True, False], ids=["one base", "a base each"])
def test_entities_forget_each_at_their_own_pace(one, shared):
    keep = np.array([0.3, 1.0, 0.9, 0.0])
    size = np.array([1.0, 2.0, 3.0, 4.0])
    many = Posterior(np.outer(size, one.mean), np.multiply.outer(size, one.precision))
    bases = Posterior(np.outer(size, BASE.mean), np.tile(BASE.precision, (4, 1)))
    prior = forget(many, BASE if shared else bases, keep)
    for e in range(4):
        own = Posterior(many.mean[e], many.precision[e])
        expected = forget(own, BASE if shared else Posterior(bases.mean[e], bases.precision[e]), keep[e])
        assert_allclose(prior.mean[e], expected.mean, rtol=1e-12)
        assert_allclose(prior.precision[e], expected.precision, rtol=1e-14)
    assert_array_equal(prior.mean[1], many.mean[1])


@pytest.mark.parametrize("one", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_keeping_all_changes_nothing_and_keeping_none_gives_the_base(one):
    assert forget(one, None, 1.0) is one
    assert forget(one, BASE, np.ones(())) is one
    nothing = forget(one, BASE, 0.0)
    assert_allclose(nothing.mean, BASE.mean, rtol=0, atol=1e-14)
    assert_array_equal(embedded(nothing), embedded(BASE))


def test_a_prior_stays_exact_where_a_features_mean_dwarfs_its_spread():
    """A year as a feature: the terms of ``H m`` nearly cancel, and what is left of them decides."""
    root = np.array([[1.0, 2022.0], [0.0, 0.5]])  # standardised coefficients of raw ones
    H, B = 1e6 * root.T @ root, root.T @ root
    m, d = np.array([-4044.5, 2.0]), 0.75
    found = forget(Posterior(m, H), Posterior(np.zeros(2), B), d)

    exact = np.vectorize(Fraction)
    P0 = Fraction(d) * exact(H) + Fraction(1 - d) * exact(B)
    (a, b), (c, e) = P0
    u, v = Fraction(d) * exact(H) @ exact(m)
    m0 = np.array([e * u - b * v, a * v - c * u]) / (a * e - b * c)
    off = exact(found.mean) - m0
    assert float(off @ P0 @ off) ** 0.5 < 1e-8  # posterior standard deviations


@pytest.mark.parametrize("keep", [-0.1, 1.1, np.nan, np.array([0.5, 2.0])])
def test_a_weight_of_the_past_outside_0_and_1_is_an_error(keep):
    with pytest.raises(ConfigError, match=r"outside \[0, 1\]"):
        forget(FULL, BASE, keep)


def test_forgetting_needs_a_base_of_a_fitting_form():
    with pytest.raises(ConfigError, match="needs a base"):
        forget(FULL, None, 0.9)
    with pytest.raises(ConfigError, match="cannot return to a full base"):
        forget(DIAGONAL, FULL, 0.9)


def test_the_past_counts_half_after_a_half_life_and_late_events_forget_nothing():
    assert_allclose(decay(np.array([0.0, 7.0, 14.0, 3.5]), 7.0), [1.0, 0.5, 0.25, 2**-0.5], rtol=1e-15)
    assert_array_equal(decay(np.array([-1.0, -1e18]), 7.0), [1.0, 1.0])
    assert_array_equal(decay(np.array([1e30]), 7.0), [0.0])
    assert_allclose(decay(np.array([3.0]), 7.0) * decay(np.array([5.0]), 7.0), decay(np.array([8.0]), 7.0))


def test_forms_of_a_precision():
    H = np.array([random_precision(seed, 4) for seed in range(3)])
    assert_array_equal(embedded(Posterior(np.zeros((3, 4)), H)), H)
    assert_array_equal(embedded(BASE), np.diag(BASE.precision))
    assert_array_equal(reduced(H, "diagonal"), [np.diag(h) for h in H])
    assert_allclose(reduced(H, "marginal"), [1.0 / np.diag(np.linalg.inv(h)) for h in H], rtol=1e-14)
    assert_allclose(inverse(H) @ H, np.tile(np.eye(4), (3, 1, 1)), atol=1e-12)
    assert_array_equal(inverse(H[:, :1, :1]), 1.0 / H[:, :1, :1])
