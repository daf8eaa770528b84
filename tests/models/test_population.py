import itertools

import numpy as np
import pytest
from model_oracles import random_precision
from numpy.testing import assert_allclose
from scipy import optimize, sparse

from acclimate.artifacts import Posterior
from acclimate.models.joint import Block, solve_joint
from acclimate.models.population import learn_population

PSEUDO = 2.0
"""Entities that the ridge counts as: each at its mean, and as uncertain as it."""


def evidence(seed: int, count: int, covariance: np.ndarray, mean: np.ndarray, information: float):
    """What Gaussian likelihoods say of entities of a population: ``A`` (e, d, d), ``A w + noise`` (e, d)."""
    rng = np.random.default_rng(seed)
    d = len(mean)
    truth = rng.multivariate_normal(mean, covariance, count)
    G = rng.normal(size=(count, 2 * d, d)) * np.sqrt(information * rng.uniform(0.2, 2.0, (count, 1, 1)) / (2 * d))
    A = np.swapaxes(G, 1, 2) @ G
    noise = np.vecmat(rng.normal(size=(count, 2 * d)), G)
    return A, np.matvec(A, truth) + noise


def learned(A, linear, prior: Posterior, ridge: Posterior, free_mean, **options) -> tuple[Posterior, float]:
    """The population and its gain, from evidence in the form that ``prior`` has."""
    information = A if prior.is_full else np.diagonal(A, axis1=1, axis2=2)
    return learn_population(linear, information, prior, ridge, free_mean=np.array(free_mean), **options)


def log_likelihood(mean, C, A, linear, ridge: Posterior) -> float:
    """``sum_e log N(data_e) + PSEUDO E[log N(w; mean, C)]`` with ``w`` of the ridge, up to a constant."""
    P, R = np.linalg.inv(C), np.linalg.inv(ridge.precision if ridge.is_full else np.diag(ridge.precision))
    H, pulled = A + P, linear + P @ mean
    gain = np.vecdot(pulled, np.linalg.solve(H, pulled[..., None])[..., 0]).sum() - len(A) * mean @ P @ mean
    pseudo = np.trace(P @ R) + (ridge.mean - mean) @ P @ (ridge.mean - mean)
    halves = (len(A) + PSEUDO) * np.linalg.slogdet(C)[1] + np.linalg.slogdet(H)[1].sum()
    return 0.5 * (gain - halves - PSEUDO * pseudo)


def most_likely(A, linear, ridge: Posterior, free: np.ndarray, *, full: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mean and covariance of highest likelihood, by SciPy."""
    d = len(free)
    lower = np.tril_indices(d) if full else np.diag_indices(d)

    def parts(theta):
        mean, L = ridge.mean.copy(), np.zeros((d, d))
        mean[free] = theta[: free.sum()]
        L[lower] = theta[free.sum() :]
        L[np.diag_indices(d)] = np.exp(np.diag(L))
        return mean, L @ L.T

    def cost(theta):
        return -log_likelihood(*parts(theta), A, linear, ridge)

    found = optimize.minimize(cost, np.zeros(free.sum() + len(lower[0])), method="BFGS", options={"gtol": 1e-5})
    tight = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    return parts(optimize.minimize(cost, found.x, method="Nelder-Mead", options=tight).x)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
@pytest.mark.parametrize(
    "free_mean", [[False], [True], [False, False], [True, True], [False, True], [True, False]], ids=str
)
def test_the_population_is_the_most_likely_one(free_mean, full):
    d, free = len(free_mean), np.array(free_mean)
    covariance = np.array([[1.0, 0.5], [0.5, 0.6]])[:d, :d]
    A, linear = evidence(d, 25, covariance, np.where(free, 2.0, 0.3), 3.0)
    A = A if full else A * np.eye(d)
    R = np.array([[0.7, 0.1], [0.1, 1.3]])[:d, :d] * (1.0 if full else np.eye(d))
    ridge = Posterior(np.full(d, 0.1), R if full else np.diag(R))
    found, _ = learned(A, linear, ridge, ridge, free_mean, tolerance=1e-11, max_rounds=100_000)
    mean, C = most_likely(A, linear, ridge, free, full=full)
    assert_allclose(found.mean, mean, rtol=1e-4)
    assert_allclose(found.covariance(), C if full else np.diag(C), rtol=1e-4)
    assert_allclose(found.mean[~free], 0.1, rtol=0, atol=0)


@pytest.mark.parametrize("information", [5.0, 500.0])
def test_known_variances_and_means_are_recovered(information):
    """Within four standard errors: the moments of noisy observations of 4000 entities."""
    covariance, mean = np.array([[0.8, -0.3, 0.0], [-0.3, 0.5, 0.1], [0.0, 0.1, 0.2]]), np.array([1.0, -0.5, 0.0])
    A, linear = evidence(1, 4000, covariance, mean, information)
    ridge = Posterior(np.zeros(3), np.eye(3))
    found, _ = learned(A, linear, ridge, ridge, [True] * 3, tolerance=1e-7, max_rounds=20_000)
    observed = covariance + np.linalg.inv(A).mean(axis=0)
    variance = np.diag(observed)
    error = np.sqrt((np.outer(variance, variance) + observed**2) / 4000)
    assert np.all(np.abs(found.covariance() - covariance) < 4 * error)
    assert np.all(np.abs(found.mean - mean) < 4 * np.sqrt(variance / 4000))


def test_the_prior_of_the_fit_does_not_matter_for_gaussian_evidence():
    """What the entities' posteriors owe to it is taken out again."""
    A, linear = evidence(2, 40, np.eye(2), np.zeros(2), 4.0)
    ridge = Posterior(np.zeros(2), np.eye(2))
    other = Posterior(np.array([3.0, -2.0]), random_precision(2, 2, 5.0))
    options = {"tolerance": 1e-11, "max_rounds": 100_000}
    one, _ = learned(A, linear, ridge, ridge, [True, False], **options)
    two, _ = learned(A, linear, other, ridge, [True, False], **options)
    assert_allclose(two.mean, one.mean, rtol=0, atol=1e-6)
    assert_allclose(two.precision, one.precision, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_entities_give_a_proper_population(count, full):
    A, linear = evidence(4, count, np.eye(3), np.ones(3), 5.0)
    A = A if full else A * np.eye(3)
    ridge = Posterior(np.zeros(3), np.eye(3) if full else np.ones(3))
    found, _ = learned(A, linear, ridge, ridge, [False, True, True], max_rounds=10_000, tolerance=1e-9)
    variances = np.linalg.eigvalsh(found.covariance()) if full else found.covariance()
    assert np.all(variances > 2 / (2 + count) - 1e-9)  # no less than the ridge's share
    assert np.all(variances < 100)
    if count == 0:
        assert_allclose(found.mean, ridge.mean, rtol=0, atol=0)
        assert_allclose(found.precision, ridge.precision, rtol=1e-12)


def test_rounds_are_bounded_and_more_of_them_come_closer():
    A, linear = evidence(5, 200, 0.01 * np.eye(1), np.zeros(1), 1.0)
    ridge = Posterior(np.zeros(1), np.eye(1))
    _, C = most_likely(A, linear, ridge, np.array([False]), full=True)
    left = [
        abs(learned(A, linear, ridge, ridge, [False], max_rounds=rounds)[0].covariance()[0, 0] - C[0, 0])
        for rounds in (0, 1, 3, 100)
    ]
    assert_allclose(left[0], 1.0 - C[0, 0])
    assert all(a > b for a, b in itertools.pairwise(left))


@pytest.mark.parametrize("information", [0.05, 1.0, 20.0])
def test_it_does_not_stop_before_it_is_there(information):
    """By default, also where entities say little: a tenth of a nat from the top, far less than chance decides."""
    A, linear = evidence(6, 1000, 0.3 * np.eye(1), np.zeros(1), information)
    ridge = Posterior(np.zeros(1), np.eye(1))
    _, C = most_likely(A, linear, ridge, np.array([False]), full=True)
    found, _ = learned(A, linear, ridge, ridge, [False])
    mean = np.zeros(1)
    left = log_likelihood(mean, C, A, linear, ridge) - log_likelihood(mean, found.covariance(), A, linear, ridge)
    assert 0 <= left < 0.1


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_the_gain_is_that_of_the_likelihood_to_first_order(full):
    """A step all the way to the top of a parabola gains half of what its first slope promises."""
    A, linear = evidence(7, 300, np.array([[1.0, 0.3], [0.3, 0.6]]), np.array([0.5, -0.5]), 3.0)
    A = A if full else A * np.eye(2)
    ridge = Posterior(np.zeros(2), np.eye(2) if full else np.ones(2))
    best, _ = learned(A, linear, ridge, ridge, [True, True], tolerance=1e-9, max_rounds=10_000)
    best_covariance = best.covariance() if full else np.diag(best.covariance())
    _, nothing = learned(A, linear, best, ridge, [True, True])
    assert abs(nothing) < 1e-6
    for factor in (0.8, 1.2):
        near = Posterior(best.mean + 0.05, best.precision / factor)
        _, gain = learned(A, linear, near, ridge, [True, True], tolerance=1e-6, max_rounds=1000)
        highest = log_likelihood(best.mean, best_covariance, A, linear, ridge)
        actual = highest - log_likelihood(near.mean, factor * best_covariance, A, linear, ridge)
        assert actual > 1
        assert actual < gain < 2.5 * actual


def test_a_direction_without_information_stays_at_the_ridge_however_loosely_the_fit_was_solved() -> None:
    """An intercept beside indicators that add up to it: only their sums are known."""
    rng = np.random.default_rng(5)
    count, size = 400, 20
    level = rng.integers(0, 3, count * size)
    X = sparse.csr_array(np.column_stack([np.ones(count * size), level[:, None] == np.arange(3)]).astype(float))
    entity = np.repeat(np.arange(count), size)
    y = (rng.random(count * size) < 1 / (1 + np.exp(-rng.normal(0, 1, count)[entity]))).astype(float)
    prior = Posterior(np.zeros((count, 4)), np.broadcast_to(np.eye(4), (count, 4, 4)))
    zero, one = np.zeros(len(y)), np.ones(len(y))
    solution = solve_joint([Block(X, entity, prior)], y, zero, one, tolerance=2.0)
    assert solution.decrement > 1e-3  # it was loose indeed
    ridge = Posterior(np.zeros(4), np.eye(4))
    held = np.zeros(4, bool)
    population, _ = learn_population(
        solution.evidence[0],
        solution.information[0],
        ridge,
        ridge,
        free_mean=held,
        tolerance=1e-9,
        max_rounds=2000,
    )
    unknown = np.array([1.0, -1.0, -1.0, -1.0]) / 2.0
    assert_allclose(unknown @ population.precision @ unknown, 1.0, rtol=0.05)
