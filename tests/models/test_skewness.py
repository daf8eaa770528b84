"""The mean of a logistic posterior by its mode and what is stored of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from scipy import sparse
from scipy.special import expit

from acclimate.arrays import Posterior
from acclimate.models.scoring import Term, expected_probability, margins, score, variances
from acclimate.models.skewness import is_told, pull, skewness


def mode(X: np.ndarray, y: np.ndarray, population: Posterior, offset: float = 0.0) -> Posterior:
    """The posterior of one entity at its mode."""
    w, B = population.mean.copy(), population.precision
    for _ in range(50):
        p = expit(X @ w + offset)
        H = B + (X * (p * (1 - p))[:, None]).T @ X
        w = w - np.linalg.solve(H, X.T @ (p - y) + B @ (w - population.mean))
    return Posterior(w[None], H[None])


def exact_mean(
    X: np.ndarray, y: np.ndarray, population: Posterior, offset: float = 0.0, nodes: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the posterior, and the rows' expected probabilities, by quadrature over the population."""
    x, weight = hermegauss(nodes)
    d = len(population.mean)
    grid = np.stack(np.meshgrid(*[x] * d), -1).reshape(-1, d)
    mass = np.prod(np.stack(np.meshgrid(*[weight] * d), -1).reshape(-1, d), axis=1)
    w = population.mean + grid @ np.linalg.cholesky(np.linalg.inv(population.precision)).T
    z = w @ X.T + offset
    mass = mass * np.exp(-np.logaddexp(0.0, -z * (2 * y - 1)).sum(axis=1))
    mass = mass / mass.sum()
    return mass @ w, mass @ expit(z)


@pytest.mark.parametrize("positives", [0, 1])
@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_of_a_lone_intercept_nearly_all_of_the_way_to_the_mean(positives, offset):
    X, y = np.ones((5, 1)), np.arange(5) < positives
    population = Posterior(np.zeros(1), np.array([[2.0]]))
    found = mode(X, y, population, offset)
    q = pull(found, population, np.array([offset]))
    lacking = exact_mean(X, y, population, offset)[0] - found.mean[0]
    moved = found.P.solve(q)[0]
    assert abs(lacking[0]) > 0.01
    assert abs(lacking - moved)[0] < 0.3 * abs(lacking)[0]
    diagonal = Posterior(found.mean, found.precision[..., 0])
    assert is_told(diagonal)
    np.testing.assert_allclose(pull(diagonal, population, np.array([offset])), q, rtol=1e-12)


def test_of_several_coefficients_the_means_come_nearer_on_the_whole():
    rng = np.random.default_rng(0)
    population = Posterior(np.zeros(2), np.diag([1.0, 2.0]))
    before, after = 0.0, 0.0
    for _ in range(40):
        X = np.column_stack([np.ones(8), rng.standard_normal(8)])
        w = rng.standard_normal(2) / np.sqrt([1.0, 2.0])
        y = (rng.random(8) < expit(X @ w)).astype(float)
        found = mode(X, y, population)
        exact = exact_mean(X, y, population, nodes=40)[0]
        moved = found.mean[0] + found.P.solve(pull(found, population, np.zeros(1)))[0]
        before += float(np.sum((exact - found.mean[0]) ** 2))
        after += float(np.sum((exact - moved) ** 2))
    assert after < 0.3 * before


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_integrated_scores_come_nearer_to_exact_probabilities(offset):
    rng = np.random.default_rng(1)
    population = Posterior(np.zeros(2), np.diag([0.7, 1.5]))
    before, after = 0.0, 0.0
    for _ in range(40):
        X = np.column_stack([np.ones(8), rng.standard_normal(8)])
        y = (rng.random(8) < expit(X @ (rng.standard_normal(2) / np.sqrt([0.7, 1.5])) + offset)).astype(float)
        found = mode(X, y, population, offset)
        exact = exact_mean(X, y, population, offset, nodes=40)[1]
        rows = sparse.csr_array(X), np.zeros(8, np.int64), np.array(["u"])
        for at in (None, population):
            term = Term(*rows, found.mean, found.precision, at)
            error = float(np.sum((score([term], np.full(8, offset), "integrated") - exact) ** 2))
            before, after = (before + error, after) if at is None else (before, after + error)
    assert after < 0.2 * before


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_a_linear_change_of_features_does_not_matter(seed, d):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(6), rng.standard_normal((6, d - 1))])
    population = Posterior(0.3 * rng.standard_normal(d), np.diag(rng.uniform(0.5, 2.0, d)))
    found, margin = mode(X, (rng.random(6) < 0.3).astype(float), population), rng.standard_normal(1)
    # Features x -> T x with the intercept kept: coefficients T^-T w, precisions T P T'.
    T = np.eye(d) + np.tril(0.3 * rng.standard_normal((d, d)))
    T[0] = np.eye(d)[0]

    def changed(one: Posterior) -> Posterior:
        return Posterior(one.mean @ np.linalg.inv(T), T @ one.precision @ T.T)

    moved = pull(changed(found), changed(population), margin)
    np.testing.assert_allclose(moved, pull(found, population, margin) @ T.T, rtol=1e-6, atol=1e-9)


def test_what_knows_nothing_more_than_its_population_is_not_moved():
    population = Posterior(np.array([0.4, -1.0]), np.array([[2.0, 0.3], [0.3, 1.0]]))
    unknown = population.repeated(3)
    assert not np.any(pull(unknown, population, np.full(3, 2.0)))
    assert not np.any(skewness(unknown, population).parts)
    term = Term(sparse.csr_array(np.ones((3, 2))), np.arange(3), np.arange(3), unknown.mean, unknown.precision)
    known = Term(term.X, term.entity, term.ids, term.mean, term.precision, population)
    np.testing.assert_array_equal(
        score([known], np.zeros(3), "integrated"), score([term], np.zeros(3), "integrated")
    )


def test_it_moves_by_a_standard_deviation_at_most():
    """Of a wide population of which little is known the first order would go anywhere."""
    population = Posterior(np.zeros(1), np.array([[1e-4]]))
    found = mode(np.ones((2, 1)), np.ones(2), population)
    moved = found.P.solve(pull(found, population, np.zeros(1)))[0, 0]
    sd = found.standard_deviation()[0, 0]
    assert moved == pytest.approx(sd)
    term = Term(
        sparse.csr_array(np.ones((1, 1))),
        np.zeros(1, np.int64),
        np.array([0]),
        found.mean,
        found.precision,
        population,
    )
    offset = np.zeros(1)
    expected = expected_probability(margins([term], offset) + sd, variances([term]))
    np.testing.assert_allclose(score([term], offset, "integrated"), expected)


def test_diagonals_of_several_coefficients_and_scores_at_the_means_stay():
    population = Posterior(np.zeros(2), np.ones(2))
    X, rows = sparse.csr_array(np.ones((1, 2))), (np.zeros(1, np.int64), np.array([0]))
    mean, precision = np.array([[0.5, -1.0]]), np.array([[3.0, 2.0]])
    plain, known = Term(X, *rows, mean, precision), Term(X, *rows, mean, precision, population)
    assert not is_told(known.posterior)
    np.testing.assert_array_equal(
        score([known], np.zeros(1), "integrated"), score([plain], np.zeros(1), "integrated")
    )
    full = Term(X, *rows, mean, np.diag([3.0, 2.0])[None], Posterior(np.zeros(2), np.eye(2)))
    np.testing.assert_array_equal(score([full], np.zeros(1)), score([plain], np.zeros(1)))
    assert score([full], np.zeros(1), "integrated") != score([plain], np.zeros(1), "integrated")
