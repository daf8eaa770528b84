from fractions import Fraction

import numpy as np
import pytest
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.arrays import Posterior
from acclimate.errors import ConfigError
from acclimate.models.gaussian import decay, forget, rebased, widened

FULL = Posterior(np.array([1.0, -2.0, 0.5]), random_precision(1, 3))
DIAGONAL = Posterior(np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.1, 30.0]))
BASE = Posterior(np.array([0.2, 0.0, -0.3]), np.array([1.0, 4.0, 0.5]))


def mixed(posterior: Posterior, base: Posterior, d: float) -> tuple[np.ndarray, np.ndarray]:
    """The design's formulas for one full block."""
    H, B = posterior.P.full().array, base.P.full().array
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
        alone = Posterior(many.mean[e], many.precision[e])
        expected = forget(alone, BASE if shared else Posterior(bases.mean[e], bases.precision[e]), keep[e])
        assert_allclose(prior.mean[e], expected.mean, rtol=1e-12)
        assert_allclose(prior.precision[e], expected.precision, rtol=1e-14)
    assert_array_equal(prior.mean[1], many.mean[1])


@pytest.mark.parametrize("one", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_keeping_all_changes_nothing_and_keeping_none_gives_the_base(one):
    assert forget(one, None, 1.0) is one
    assert forget(one, BASE, np.ones(())) is one
    nothing = forget(one, BASE, 0.0)
    assert_allclose(nothing.mean, BASE.mean, rtol=0, atol=1e-14)
    assert_array_equal(nothing.P.full().array, BASE.P.full().array)


def test_a_prior_stays_exact_where_a_features_mean_dwarfs_its_spread():
    """A year as a feature: the terms of ``H m`` nearly cancel, and what is left of them decides."""
    root = np.array([[1.0, 2022.0], [0.0, 0.5]])  # standardised coefficients of raw ones
    H, B = 1e6 * root.T @ root, root.T @ root
    m, d = np.array([-4044.5, 2.0]), 0.75
    prior = forget(Posterior(m, H), Posterior(np.zeros(2), B), d)

    exact = np.vectorize(Fraction)
    P0 = Fraction(d) * exact(H) + Fraction(1 - d) * exact(B)
    (a, b), (c, e) = P0
    u, v = Fraction(d) * exact(H) @ exact(m)
    m0 = np.array([e * u - b * v, a * v - c * u]) / (a * e - b * c)
    off = exact(prior.mean) - m0
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


# --- growing ---------------------------------------------------------------------------------------------

MANY = {
    "full": Posterior(np.arange(6.0).reshape(3, 2), np.array([random_precision(e, 2) for e in range(3)])),
    "diagonal": Posterior(np.arange(6.0).reshape(3, 2), np.arange(1.0, 7.0).reshape(3, 2)),
}


def population(count: int | None, d: int, *, full: bool) -> Posterior:
    """One, or ``count`` that all differ."""
    rng = np.random.default_rng(d)
    size = np.asarray(1.0) if count is None else 1.0 + np.arange(count)
    precision = np.multiply.outer(size, random_precision(9, d))
    kept = precision if full else np.diagonal(precision, axis1=-2, axis2=-1).copy()
    return Posterior(rng.normal(size=(*size.shape, d)), kept)


def block_of(posterior: Posterior, e: int) -> Posterior:
    """Entity ``e`` of many, or the one there is for all."""
    return posterior if posterior.mean.ndim == 1 else posterior.at(e)


@pytest.mark.parametrize("count", [None, 3], ids=["one population", "a population each"])
@pytest.mark.parametrize(("known", "to"), [("full", "full"), ("full", "diagonal"), ("diagonal", "diagonal")])
def test_what_is_new_is_at_the_population_and_independent_of_what_was_there(known, to, count):
    wide = widened(MANY[known], population(count, 5, full=to == "full"))
    assert wide.mean.shape == (3, 5)
    assert wide.precision.shape == ((3, 5, 5) if to == "full" else (3, 5))
    for e in range(3):
        before, base = MANY[known].at(e), block_of(population(count, 5, full=to == "full"), e)
        assert_array_equal(wide.mean[e], [*before.mean, *base.mean[2:]])
        P, B = before.P.full().array, base.P.full().array
        expected = np.block([[P, np.zeros((2, 3))], [np.zeros((3, 2)), B[2:, 2:]]])
        assert_array_equal(wide.precision[e], expected if to == "full" else np.diag(expected))


@pytest.mark.parametrize("to", ["full", "diagonal"])
def test_one_block_is_widened_as_one_of_many_is(to):
    base = population(None, 4, full=to == "full")
    wide = widened(FULL, base)
    beside = widened(FULL.at(None), base)
    assert wide.mean.shape == (4,)
    assert_array_equal(wide.mean, beside.mean[0])
    assert_array_equal(wide.precision, beside.precision[0])


def test_the_covariance_of_what_was_there_stays_and_the_new_has_the_populations():
    base = Posterior(np.zeros(5), np.diag([1.0, 1.0, 1.0, 4.0, 0.25]))
    covariance = widened(FULL, base).covariance()
    assert_allclose(covariance[:3, :3], FULL.covariance(), rtol=1e-12)
    assert_array_equal(covariance[3:, 3:], np.diag([0.25, 4.0]))
    assert_array_equal(covariance[:3, 3:], np.zeros((3, 2)))


def test_of_the_same_width_only_the_form_changes():
    assert widened(FULL, Posterior(np.zeros(3), np.eye(3))) is FULL
    assert widened(DIAGONAL, BASE) is DIAGONAL
    flat = widened(FULL, BASE)
    assert_array_equal(flat.mean, FULL.mean)
    assert_array_equal(flat.precision, np.diag(FULL.precision))


def test_widening_in_two_steps_is_widening_in_one():
    last = population(None, 6, full=True)
    last.precision[2:4, 4:] = last.precision[4:, 2:4] = 0.0
    middle = Posterior(last.mean[:4], last.precision[:4, :4])
    twice, once = widened(widened(MANY["full"], middle), last), widened(MANY["full"], last)
    assert_array_equal(twice.mean, once.mean)
    assert_array_equal(twice.precision, once.precision)


def test_nothing_that_is_widened_is_written_to():
    known, base = MANY["diagonal"], population(None, 5, full=False)
    copies = [array.copy() for array in (known.mean, known.precision, base.mean, base.precision)]
    wide = widened(known, base)
    wide.mean[:], wide.precision[:] = 7.0, 7.0
    for array, copy in zip((known.mean, known.precision, base.mean, base.precision), copies, strict=True):
        assert_array_equal(array, copy)


def test_a_wide_diagonal_is_never_a_matrix():
    """Which would be 320 GB."""
    base = Posterior(np.zeros(200_000), np.full(200_000, 2.0))
    wide = widened(FULL.at(None), base)
    assert_array_equal(wide.precision[0, :3], np.diag(FULL.precision))
    assert_array_equal(wide.precision[0, 3:], base.precision[3:])


def test_a_diagonal_becomes_full_where_the_population_is():
    narrow, wide = Posterior(np.zeros(2), np.array([2.0, 3.0])), Posterior(np.ones(3), random_precision(5, 3))
    grown = widened(narrow, wide)
    assert_array_equal(grown.mean, [0.0, 0.0, 1.0])
    assert_array_equal(grown.precision, np.diag([2.0, 3.0, wide.precision[2, 2]]))
    assert_array_equal(widened(narrow, wide.at(None).at(0)).precision, grown.precision)
    assert widened(narrow, Posterior(np.zeros(2), np.eye(2))).is_full


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_what_rows_say_stays_at_another_population(full):
    """A Gaussian likelihood times one population, then times the other."""
    rng, d = np.random.default_rng(0), 3
    old, new, A = (random_precision(seed, d) for seed in (1, 2, 3))
    old, new, A = (P if full else np.diag(P) * np.eye(d) for P in (old, new, A))
    b, c, linear = rng.normal(size=(3, d))

    def posterior(B: np.ndarray, mean: np.ndarray) -> Posterior:
        H = A + B
        return Posterior(np.linalg.solve(H, linear + B @ mean), H if full else np.diag(H))

    def population(B: np.ndarray, mean: np.ndarray) -> Posterior:
        return Posterior(mean, B if full else np.diag(B))

    one, two = population(old, b), population(new, c)
    many = posterior(old, b).at(None)
    moved = rebased(many, one, two)
    assert_allclose(moved.mean, posterior(new, c).at(None).mean, rtol=1e-10)
    assert_allclose(moved.precision, posterior(new, c).at(None).precision, rtol=1e-12)
    back = rebased(moved, two, one)
    assert_allclose(back.mean, many.mean, rtol=1e-10)
    assert_allclose(back.precision, many.precision, rtol=1e-12)
