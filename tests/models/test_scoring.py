import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import random_precision, sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, sparse

from acclimate.models.scoring import Term, expected_probability, margins, variances


def terms(seed: int, n: int = 40) -> list[Term]:
    """A fixed effect with a full covariance, five users with full ones, three videos with diagonals."""
    rng = np.random.default_rng(seed)
    made = []
    for d, count, full in ((4, 1, True), (3, 5, True), (6, 3, False), (2, 1, False)):
        X = sparse.csr_array(rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.6))
        covariance = np.array([np.linalg.inv(random_precision(e, d)) for e in range(count)])
        kept = covariance if full else np.diagonal(covariance, axis1=1, axis2=2)
        made.append(Term(X, rng.integers(0, count, n), rng.normal(size=(count, d)), kept))
    return made


def test_margins_are_those_of_a_plain_loop():
    made, offset = terms(0), np.linspace(-2, 2, 40)
    expected = offset.copy()
    for term, i in itertools.product(made, range(40)):
        expected[i] += sum(
            x * w for x, w in zip(term.X.toarray()[i], term.coefficients[term.entity[i]], strict=True)
        )
    assert_allclose(margins(made, offset), expected, rtol=0, atol=1e-12)
    assert_array_equal(margins([], offset), offset)


def test_variances_are_those_of_a_plain_loop():
    made, expected = terms(1), np.zeros(40)
    for term, i in itertools.product(made, range(40)):
        S, x = term.covariance[term.entity[i]], term.X.toarray()[i]
        expected[i] += x @ (S if S.ndim == 2 else np.diag(S)) @ x
    assert_allclose(variances(made), expected, rtol=1e-12)
    assert np.all(expected > 0)


def test_rows_are_scored_strip_by_strip_alike(monkeypatch):
    made = terms(2)
    whole = variances(made)
    monkeypatch.setattr("acclimate.models.scoring._STRIP", 7)
    assert_allclose(variances(made), whole, rtol=1e-13)


def test_a_row_is_scored_alike_alone_and_among_others():
    made, offset = terms(3), np.linspace(-2, 2, 40)
    z, v = margins(made, offset), variances(made)
    for i in range(40):
        alone = [Term(t.X[[i]], t.entity[[i]], t.coefficients, t.covariance) for t in made]
        assert_allclose(margins(alone, offset[[i]]), z[[i]], rtol=0, atol=1e-13)
        assert_allclose(variances(alone), v[[i]], rtol=1e-12)


def test_no_rows_have_no_scores():
    none = [Term(t.X[:0], t.entity[:0], t.coefficients, t.covariance) for t in terms(4)]
    assert margins(none, np.empty(0)).shape == variances(none).shape == (0,)
    assert expected_probability(np.empty(0), np.empty(0)).shape == (0,)


def test_a_term_without_covariance_has_no_variance():
    term = terms(5)[0]
    with pytest.raises(ValueError, match="without covariance"):
        variances([Term(term.X, term.entity, term.coefficients)])


def adaptive(margin: float, variance: float) -> float:
    """``E[sigmoid(z)]``, ``z ~ N(margin, variance)``, by adaptive quadrature."""
    spread = np.sqrt(variance)
    middle = np.clip(-margin / spread, -11.0, 11.0)
    value, error = integrate.quad(
        lambda x: np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi) * sigmoid(np.asarray(margin + spread * x)),
        -12.0,
        12.0,
        points=[middle],
        epsabs=1e-12,
        epsrel=1e-12,
        limit=200,
    )
    assert error < 1e-10
    return value


@pytest.mark.parametrize(
    ("variance", "within"), [(0.01, 1e-7), (0.5, 1e-7), (2.0, 1e-7), (9.0, 1e-7), (16.0, 2e-6), (25.0, 2e-5)]
)
def test_an_expected_probability_is_the_integral(variance, within):
    margin = np.array([-30.0, -12.0, -7.0, -4.1, -2.0, -0.9, -0.2, 0.0, 0.55, 1.3, 2.7, 5.0, 9.0, 20.0])
    found = expected_probability(margin, np.full(len(margin), variance))
    assert_allclose(found, [adaptive(m, variance) for m in margin], rtol=0, atol=within)


@given(margin=st.floats(-40, 40), variance=st.floats(0, 25))
def test_an_expected_probability_is_one_and_symmetric(margin, variance):
    z, v = np.array([margin, -margin, margin + 0.1]), np.full(3, variance)
    p, mirrored, higher = expected_probability(z, v)
    assert 0.0 <= p <= 1.0
    assert p <= higher
    assert_allclose(p + mirrored, 1.0, rtol=0, atol=1e-14)


def test_without_variance_it_is_the_sigmoid_and_with_it_closer_to_a_half():
    margin = np.array([-1e4, -8.0, -0.3, 0.0, 2.0, 1e4])
    assert_allclose(expected_probability(margin, np.zeros(6)), sigmoid(margin), rtol=1e-14)
    doubts = [expected_probability(np.array([2.0]), np.array([v]))[0] for v in (0.0, 1.0, 5.0, 25.0)]
    assert all(a > b > 0.5 for a, b in itertools.pairwise(doubts))
