import itertools

import numpy as np
import pytest
from model_oracles import random_precision
from numpy.testing import assert_allclose
from scipy import linalg, optimize, sparse

from acclimate.arrays import Diagonal, Full, Posterior
from acclimate.models.blocks import Design
from acclimate.models.held_population import HeldEvidence, learn_diagonal_population
from acclimate.models.joint import Block, solve_joint
from acclimate.models.population import Past, learn_population
from acclimate.models.scaling import Scaling

MEAN_ENTITIES = 2.0
"""Entities that the usual mean counts as."""


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
    information = Full(A) if prior.is_full else Full(A).kept("diagonal")
    return learn_population(linear, information, prior, ridge, free_mean=np.array(free_mean), **options)


def log_density(mean, C, log_t, A, linear, unit: Posterior) -> float:
    """``sum_e log N(data_e)`` and the prior as the module writes it out, up to a constant."""
    d, t, P = len(mean), np.exp(log_t), np.linalg.inv(C)
    U = np.linalg.inv(unit.precision if unit.is_full else np.diag(unit.precision))
    H, pulled = A + P, linear + P @ mean
    gain = np.vecdot(pulled, np.linalg.solve(H, pulled[..., None])[..., 0]).sum() - len(A) * mean @ P @ mean
    evidence = 0.5 * (gain - len(A) * np.linalg.slogdet(C)[1] - np.linalg.slogdet(H)[1].sum())
    k, away = (d if unit.is_full else 1) + 1, unit.mean - mean
    wishart = -0.5 * k * (np.linalg.slogdet(C)[1] - d * log_t - np.linalg.slogdet(U)[1] + t * np.trace(P @ U))
    half_cauchy = 0.5 * log_t - np.log1p(t)
    return evidence + wishart + half_cauchy - 0.5 * MEAN_ENTITIES * away @ P @ away


def log_likelihood(mean, C, A, linear, unit: Posterior) -> float:
    """The same at its highest ``t``."""

    def cost(log_t):
        return -log_density(mean, C, log_t, A, linear, unit)

    return -optimize.minimize_scalar(cost, bounds=(-20, 20), method="bounded", options={"xatol": 1e-9}).fun


def most_likely(A, linear, unit: Posterior, free: np.ndarray, *, full: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mean and covariance of highest density, by SciPy."""
    d = len(free)
    lower = np.tril_indices(d) if full else np.diag_indices(d)

    def parts(theta):
        mean, L = unit.mean.copy(), np.zeros((d, d))
        mean[free] = theta[1 : 1 + free.sum()]
        L[lower] = theta[1 + free.sum() :]
        L[np.diag_indices(d)] = np.exp(np.diag(L))
        return mean, L @ L.T

    def cost(theta):
        return -log_density(*parts(theta), theta[0], A, linear, unit)

    near = optimize.minimize(cost, np.zeros(1 + free.sum() + len(lower[0])), method="BFGS", options={"gtol": 1e-5})
    tight = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    return parts(optimize.minimize(cost, near.x, method="Nelder-Mead", options=tight).x)


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
    population, _ = learned(A, linear, ridge, ridge, free_mean, tolerance=1e-11, max_rounds=100_000)
    mean, C = most_likely(A, linear, ridge, free, full=full)
    assert_allclose(population.mean, mean, rtol=1e-4)
    assert_allclose(population.covariance(), C if full else np.diag(C), rtol=1e-4)
    assert_allclose(population.mean[~free], 0.1, rtol=0, atol=0)


@pytest.mark.parametrize("information", [5.0, 500.0])
def test_known_variances_and_means_are_recovered(information):
    """Within four standard errors: the moments of noisy observations of 4000 entities."""
    covariance, mean = np.array([[0.8, -0.3, 0.0], [-0.3, 0.5, 0.1], [0.0, 0.1, 0.2]]), np.array([1.0, -0.5, 0.0])
    A, linear = evidence(1, 4000, covariance, mean, information)
    ridge = Posterior(np.zeros(3), np.eye(3))
    population, _ = learned(A, linear, ridge, ridge, [True] * 3, tolerance=1e-7, max_rounds=20_000)
    observed = covariance + np.linalg.inv(A).mean(axis=0)
    variance = np.diag(observed)
    error = np.sqrt((np.outer(variance, variance) + observed**2) / 4000)
    assert np.all(np.abs(population.covariance() - covariance) < 4 * error)
    assert np.all(np.abs(population.mean - mean) < 4 * np.sqrt(variance / 4000))


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
    population, _ = learned(A, linear, ridge, ridge, [False, True, True], max_rounds=10_000, tolerance=1e-9)
    variances = np.linalg.eigvalsh(population.covariance()) if full else population.covariance()
    assert np.all(variances > 2 / (2 + count) - 1e-9)
    assert np.all(variances < 100)
    if count == 0:
        assert_allclose(population.mean, ridge.mean, rtol=0, atol=0)
        assert_allclose(population.precision, ridge.precision, rtol=1e-12)


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
    population, _ = learned(A, linear, ridge, ridge, [False])
    mean = np.zeros(1)
    highest = log_likelihood(mean, C, A, linear, ridge)
    left = highest - log_likelihood(mean, population.covariance(), A, linear, ridge)
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


def test_a_direction_without_information_gets_no_variance_however_loosely_the_fit_was_solved() -> None:
    """An intercept beside indicators that add up to it: only their sums are known."""
    rng = np.random.default_rng(5)
    count, size = 400, 20
    level = rng.integers(0, 3, count * size)
    X = sparse.csr_array(np.column_stack([np.ones(count * size), level[:, None] == np.arange(3)]).astype(float))
    entity = np.repeat(np.arange(count), size)
    y = (rng.random(count * size) < 1 / (1 + np.exp(-rng.normal(0, 1, count)[entity]))).astype(float)
    prior = Posterior(np.zeros((count, 4)), np.broadcast_to(np.eye(4), (count, 4, 4)))
    zero, one = np.zeros(len(y)), np.ones(len(y))
    design = Design.of(X, entity, count, weight=one, centre=True)
    unit = Posterior(np.zeros(4), np.eye(4))
    unknown, found = np.array([1.0, -1.0, -1.0, -1.0]) / 2.0, []
    for tolerance in (2.0, 1e-9):
        solution = solve_joint([Block(design, prior, "full")], y, zero, one, tolerance=tolerance)
        held, options = np.zeros(4, bool), {"tolerance": 1e-9, "max_rounds": 2000}
        population, _ = learn_population(*solution.evidence(0), unit, unit, free_mean=held, **options)
        found.append(unknown @ population.covariance() @ unknown)
        assert (solution.decrement > 1e-3) == (tolerance == 2.0)  # it was loose indeed
    assert_allclose(found[0], found[1], rtol=0.05)
    assert found[1] < 0.5


@pytest.mark.parametrize("d", [1, 3])
def test_one_round_is_as_written_out(d):
    """A Newton step of the free means, and of the covariance twice the step to ``C W C = Q``."""
    A, linear = evidence(11, 12, np.eye(d), np.ones(d), 2.0)
    U, b, B = np.linalg.inv(random_precision(11, d)), np.linspace(-1, 1, d), random_precision(12, d, 0.5)
    unit, free = Posterior(np.full(d, 0.3), np.linalg.inv(U)), np.arange(d) != 1
    S = np.linalg.inv(A + B)
    m = np.matvec(S, linear + B @ b)
    G = sum(B - B @ s @ B for s in S)
    k, trace = d + 1, np.trace(B @ U)
    t = optimize.brentq(lambda t: k * d - k * trace * t + 1 - 2 * t / (1 + t), 1e-9, 1e9, xtol=1e-14, rtol=1e-14)
    slope = B @ (sum(m - b) + MEAN_ENTITIES * (unit.mean - b))
    mean = np.where(free, b, unit.mean)
    mean[free] += np.linalg.solve((G + MEAN_ENTITIES * B)[np.ix_(free, free)], slope[free])
    away = unit.mean - mean
    m = m if d > 1 else np.matvec(S, linear + B @ mean)  # of a single one they follow the mean
    Q = sum(np.outer(x, x) for x in m - mean) + k * t * U + MEAN_ENTITIES * np.outer(away, away)
    W = G + k * B
    root = linalg.sqrtm(W)
    step = np.linalg.inv(root) @ linalg.sqrtm(root @ Q @ root) @ np.linalg.inv(root)
    assert_allclose(step @ W @ step, Q, rtol=1e-9)
    population, gain = learned(A, linear, Posterior(b, B), unit, free, max_rounds=1)
    covariance = step @ B @ step
    assert_allclose(population.mean, mean, rtol=1e-9)
    assert_allclose(population.covariance(), covariance, rtol=1e-9)
    moved = 0.5 * np.sum((B @ Q @ B - W) * (covariance - np.linalg.inv(B)))
    assert_allclose(gain, slope @ (mean - b) + moved, rtol=1e-8)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_a_diagonal_of_information_is_the_matrix_that_it_is(full):
    """As of entities that have an intercept alone, whose evidence is kept as a diagonal."""
    for d in (1, 3):
        A, linear = evidence(8, 30, np.eye(d), np.zeros(d), 4.0)
        A = A * np.eye(d)
        ridge = Posterior(np.zeros(d), np.eye(d) if full else np.ones(d))
        options = {"free_mean": np.ones(d, bool), "tolerance": 1e-9, "max_rounds": 1000}
        matrix, gain = learn_population(linear, Full(A), ridge, ridge, **options)
        diagonal, same_gain = learn_population(linear, Diagonal(Full(A).diagonal()), ridge, ridge, **options)
        assert matrix.is_full == diagonal.is_full == full
        assert_allclose(diagonal.mean, matrix.mean, rtol=1e-12)
        assert_allclose(diagonal.precision, matrix.precision, rtol=1e-12, atol=1e-14)
        assert_allclose(same_gain, gain, rtol=1e-9)


@pytest.mark.parametrize("count", [3, 30, 3000])
def test_a_covariance_is_shrunk_to_one_variance_by_how_few_entities_there_are(count):
    """Known exactly, entities have the covariance of their sample next to ``k = 3`` of one variance."""
    A, linear = evidence(9, count, np.diag([2.0, 0.2]), np.zeros(2), 1e8)
    unit = Posterior(np.zeros(2), np.eye(2))
    population, _ = learned(A, linear, unit, unit, [False, False], tolerance=1e-12, max_rounds=10_000)
    w = np.linalg.solve(A, linear[..., None])[..., 0]
    C = population.covariance()
    one = ((count + 3) * C - w.T @ w) / 3
    assert_allclose(one, one[0, 0] * np.eye(2), rtol=0, atol=1e-3 * one[0, 0])
    assert np.linalg.eigvalsh(C)[0] < one[0, 0] < np.linalg.eigvalsh(C)[1]


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_the_order_of_entities_and_their_units_do_not_matter(full):
    A, linear = evidence(10, 50, np.array([[1.0, 0.4], [0.4, 0.7]]), np.array([0.5, -1.0]), 3.0)
    A = A if full else A * np.eye(2)
    ridge = Posterior(np.zeros(2), np.eye(2) if full else np.ones(2))
    options = {"tolerance": 1e-10, "max_rounds": 1000}
    before, gain = learned(A, linear, ridge, ridge, [True, False], **options)
    order, unit = np.random.default_rng(10).permutation(50), np.array([10.0, 0.01])
    square = np.outer(unit, unit)
    moved = Posterior(ridge.mean / unit, ridge.precision * (square if full else unit**2))
    after, same_gain = learned(A[order] * square, linear[order] * unit, moved, moved, [True, False], **options)
    assert_allclose(after.mean * unit, before.mean, rtol=1e-7, atol=1e-9)
    assert_allclose(after.precision / (square if full else unit**2), before.precision, rtol=1e-7, atol=1e-9)
    assert_allclose(same_gain, gain, rtol=1e-9)


# --- what is past ---------------------------------------------------------------------------------------------

RAW = Scaling(np.zeros(2), np.ones(2))
TIGHT = {"tolerance": 1e-11, "max_rounds": 20_000}


def remembered(A, linear, *, full: bool) -> tuple[Posterior, Past]:
    """A population with a free mean and what it was learned from."""
    unit = Posterior(np.zeros(2), np.eye(2) if full else np.ones(2))
    population, _ = learned(A, linear, unit, unit, [True, True], **TIGHT)
    information = Full(A) if full else Full(A).kept("diagonal")
    return population, Past.nothing(unit).with_entities(information, len(A), population, RAW)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_a_population_does_not_fade_on_its_own(full):
    """With nobody new it stays where it is, however often it is asked and whatever was expected before."""
    A, linear = evidence(20, 12, np.diag([1.0, 0.2]), np.array([2.0, -1.0]), 3.0)
    A = A if full else A * np.eye(2)
    population, past = remembered(A, linear, full=full)
    unit = Posterior(np.zeros(2), np.eye(2) if full else np.ones(2))
    for _ in range(20):
        again, gain = learned(A[:0], linear[:0], population, unit, [True, True], past=past, **TIGHT)
        assert_allclose(again.mean, population.mean, rtol=1e-6)
        assert_allclose(again.precision, population.precision, rtol=1e-4, atol=1e-8)
        assert abs(gain) < 1e-6
        past = Past(past.count, past.information, again)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_learning_of_half_and_then_of_the_other_is_about_learning_of_all(full):
    covariance, mean = np.array([[1.0, 0.3], [0.3, 0.4]]), np.array([1.0, -0.5])
    A, linear = evidence(21, 600, covariance, mean, 3.0)
    linear[300:] += np.matvec(A[300:], [1.0, 0.0])  # the second half lies elsewhere
    A = A if full else A * np.eye(2)
    unit = Posterior(np.zeros(2), np.eye(2) if full else np.ones(2))
    together, _ = learned(A, linear, unit, unit, [True, True], **TIGHT)
    first, past = remembered(A[:300], linear[:300], full=full)
    assert past.count == 300
    then, _ = learned(A[300:], linear[300:], first, unit, [True, True], past=past, **TIGHT)
    moved = np.abs(together.mean - first.mean).max()
    assert moved > 0.3
    assert np.abs(then.mean - together.mean).max() < 0.1 * moved
    assert_allclose(then.standard_deviation(), together.standard_deviation(), rtol=0.05)


def test_those_that_are_past_hold_as_much_as_there_are_of_them():
    A, linear = evidence(22, 50, np.eye(2), np.zeros(2), 5.0)
    population, past = remembered(A, linear, full=True)
    unit, far = Posterior(np.zeros(2), np.eye(2)), linear + np.matvec(A, [2.0, 0.0])
    away = []
    for count in (0.0, 50.0, 500.0, 50_000.0):
        held = Past(count, past.information, population, 1.0)
        moved, _ = learned(A, far, population, unit, [True, True], past=held, **TIGHT)
        away.append(moved.mean[0] - population.mean[0])
    assert away[0] > 1.7
    assert_allclose(away[1], 1.0, atol=0.25)
    assert_allclose(away[2], 2.0 / 11.0, atol=0.08)
    assert abs(away[3]) < 0.01


def test_a_coefficient_that_nobody_had_is_free_to_be_learned():
    """As of a new level: of it those that are past say nothing."""
    A, linear = evidence(23, 400, np.diag([1.0, 0.05]), np.array([0.0, 0.5]), 200.0)
    known = A * np.array([[1.0, 0.0], [0.0, 0.0]])
    population, past = remembered(known, linear * [1.0, 0.0], full=True)
    assert_allclose(past.information[1], 0.0, rtol=0, atol=1e-9)
    unit = Posterior(np.zeros(2), np.eye(2))
    then, _ = learned(A, linear, population, unit, [True, True], past=past, **TIGHT)
    assert_allclose(then.mean[1], 0.5, atol=0.05)
    assert_allclose(then.standard_deviation()[1], 0.05**0.5, rtol=0.15)


@pytest.mark.parametrize("remembered", [False, True])
def test_where_most_say_nothing_of_a_coefficient_it_is_as_learned_from_those_who_do(remembered):
    """Round by round the same as from lists of what is held, where all is in closed form."""
    rng, n, d = np.random.default_rng(5), 4_000, 3
    information = np.where(rng.random((n, d)) < [1.0, 0.02, 0.005], rng.uniform(0.5, 3.0, (n, d)), 0.0)
    truth = np.array([0.0, 4.0, -8.0]) + rng.normal(size=(n, d))
    linear = information * truth + np.sqrt(information) * rng.normal(size=(n, d))
    prior = unit = Posterior(np.zeros(d), np.ones(d))
    free, past = np.ones(d, np.bool_), Past.nothing(prior)
    if remembered:
        past = Past(
            50.0, np.array([1.0, 0.1, 0.01]), Posterior(np.array([0.1, 3.0, -6.0]), np.array([1.0, 2.0, 3.0]))
        )
    entity, column = np.nonzero(information)
    held = HeldEvidence(linear[entity, column], information[entity, column], column, n)
    for rounds in (1, 2, 3, 100):
        options = {"free_mean": free, "past": past, "max_rounds": rounds}
        dense, gained = learn_population(linear, Diagonal(information), prior, unit, **options)
        listed, expected = learn_diagonal_population(held, prior, unit, **options)
        assert_allclose(dense.mean, listed.mean, rtol=1e-9)
        assert_allclose(dense.precision, listed.precision, rtol=1e-9)
        assert_allclose(gained, expected, rtol=1e-9)
