import ast
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import random_precision, sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, sparse, stats

from acclimate import arrays, models
from acclimate.arrays import Posterior
from acclimate.errors import ConfigError
from acclimate.models import hashing, held_scoring, likelihood, scoring, skewness, support
from acclimate.models.hashing import hashed
from acclimate.models.scoring import Term, draws, expected_probability, margins, score, variances


def terms(seed: int, n: int = 40) -> list[Term]:
    """A fixed effect with a full precision, five users with full ones, two effects with diagonals."""
    rng = np.random.default_rng(seed)
    made = []
    for d, count, full in ((4, 1, True), (3, 5, True), (6, 3, False), (2, 1, False)):
        X = sparse.csr_array(rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.6))
        precision = np.array([random_precision(e, d) for e in range(count)])
        kept = precision if full else 1.0 / np.diagonal(np.linalg.inv(precision), axis1=1, axis2=2)
        ids = np.arange(100, 100 + count)
        made.append(Term(X, rng.integers(0, count, n), ids, rng.normal(size=(count, d)), kept))
    return made


def covariance(term: Term, e: int) -> np.ndarray:
    P = term.precision[e]
    return np.linalg.inv(P if P.ndim == 2 else np.diag(P))


def alone(term: Term, rows) -> Term:
    return Term(term.X[rows], term.entity[rows], term.ids, term.mean, term.precision)


def test_margins_are_those_of_a_plain_loop():
    made, offset = terms(0), np.linspace(-2, 2, 40)
    expected = offset.copy()
    for term, i in itertools.product(made, range(40)):
        expected[i] += sum(x * w for x, w in zip(term.X.toarray()[i], term.mean[term.entity[i]], strict=True))
    assert_allclose(margins(made, offset), expected, rtol=0, atol=1e-12)
    assert_array_equal(margins([], offset), offset)


def test_variances_are_those_of_a_plain_loop():
    made, expected = terms(1), np.zeros(40)
    for term, i in itertools.product(made, range(40)):
        x = term.X.toarray()[i]
        expected[i] += x @ covariance(term, term.entity[i]) @ x
    assert_allclose(variances(made), expected, rtol=1e-12)
    assert np.all(expected > 0)


def test_rows_are_scored_strip_by_strip_alike(monkeypatch):
    made = terms(2)
    whole = variances(made)
    monkeypatch.setattr("acclimate.models.scoring._STRIP_CELLS", 40)
    assert_allclose(variances(made), whole, rtol=1e-13)


def test_a_row_is_scored_alike_alone_and_among_others():
    made, offset = terms(3), np.linspace(-2, 2, 40)
    z, v = margins(made, offset), variances(made)
    for i in range(40):
        one = [alone(t, [i]) for t in made]
        assert_allclose(margins(one, offset[[i]]), z[[i]], rtol=0, atol=1e-13)
        assert_allclose(variances(one), v[[i]], rtol=1e-12)


def test_no_rows_have_no_scores():
    none = [alone(t, slice(0, 0)) for t in terms(4)]
    assert margins(none, np.empty(0)).shape == variances(none).shape == (0,)
    for mode in ("point", "integrated", "thompson"):
        assert score(none, np.empty(0), mode).shape == (0,)
    assert expected_probability(np.empty(0), np.empty(0)).shape == (0,)


@pytest.mark.parametrize("mode", ["integrated", "thompson"])
def test_a_term_without_precision_has_means_alone(mode):
    made = terms(5)
    made[1] = Term(made[1].X, made[1].entity, made[1].ids, made[1].mean)
    offset = np.zeros(40)
    assert_array_equal(score(made, offset), score(terms(5), offset))
    with pytest.raises(ConfigError, match="without precisions has means alone") as error:
        score(made, offset, mode)
    assert "'point'" in error.value.hint
    with pytest.raises(ConfigError, match="without precisions"):
        variances(made)


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
    p = expected_probability(margin, np.full(len(margin), variance))
    assert_allclose(p, [adaptive(m, variance) for m in margin], rtol=0, atol=within)


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


# --- probabilities ---------------------------------------------------------------------------------------


def test_a_sigmoid_is_exact_at_both_ends():
    """To full relative precision: at -700 it is ``exp(-700)`` and not 0, at 700 it is 1."""
    z = np.array([-745.0, -700.0, -50.0, -1.0, 0.0, 1.0, 50.0, 700.0, 1e300])
    p = scoring.sigmoid(z)
    assert_allclose(p[:3], np.exp(z[:3]), rtol=1e-15)
    assert p[1] > 0.0
    assert_array_equal(p[4:], 1.0 / (1.0 + np.exp(-z[4:])))
    assert_allclose(p[3], np.exp(-1.0) / (1.0 + np.exp(-1.0)), rtol=1e-15)
    assert_array_equal(scoring.sigmoid(np.array([-np.inf, np.inf])), [0.0, 1.0])
    assert_array_equal(scoring.sigmoid(np.array([-1e4, -1e300])), [0.0, 0.0])


@given(z=st.floats(-700, 700))
def test_a_sigmoid_and_its_mirror_add_up_to_one(z):
    low, high = scoring.sigmoid(np.array([-abs(z), abs(z)]))
    assert_allclose(low + high, 1.0, rtol=0, atol=2.0**-52)  # what lies between 1 and its neighbour
    assert_allclose(np.log(low / high), -abs(z), rtol=0, atol=1e-13)


def test_a_score_at_the_means_is_written_out():
    made, offset = terms(6), np.linspace(-3, 3, 40)
    z = offset + sum(np.vecdot(t.X.toarray(), t.mean[t.entity]) for t in made)
    assert_allclose(score(made, offset), 1.0 / (1.0 + np.exp(-z)), rtol=1e-13)
    assert_array_equal(score(made, offset, "point", seed=7), score(made, offset))


def test_an_integrated_score_is_the_integral_over_all_coefficients():
    made, offset = terms(7, n=6), np.linspace(-3, 3, 6)
    x = [t.X.toarray() for t in made]
    z = offset + sum(np.vecdot(X, t.mean[t.entity]) for X, t in zip(x, made, strict=True))
    v = sum(
        np.array([X[i] @ covariance(t, t.entity[i]) @ X[i] for i in range(6)])
        for X, t in zip(x, made, strict=True)
    )
    assert v.max() < 9.0
    expected = [adaptive(m, s) for m, s in zip(z, v, strict=True)]
    assert_allclose(score(made, offset, "integrated"), expected, rtol=0, atol=1e-7)


def test_a_thompson_score_is_that_at_one_draw_of_every_coefficient():
    made, offset = terms(8), np.linspace(-3, 3, 40)
    w = [draws(Posterior(t.mean, t.precision), t.ids, [5, place]) for place, t in enumerate(made)]
    z = offset + sum(np.vecdot(t.X.toarray(), drawn[t.entity]) for t, drawn in zip(made, w, strict=True))
    assert_allclose(score(made, offset, "thompson", seed=5), 1.0 / (1.0 + np.exp(-z)), rtol=1e-12)
    assert np.all(score(made, offset, "thompson", seed=6) != score(made, offset, "thompson", seed=5))
    assert_array_equal(score(made, offset, "thompson"), score(made, offset, "thompson", seed=0))


@pytest.mark.parametrize("mode", ["point", "integrated", "thompson"])
def test_an_offset_of_whole_numbers_is_a_number_and_stays_as_it_is(mode):
    made, offset = terms(9), np.arange(40) - 20
    copy = offset.copy()
    assert_array_equal(score(made, offset, mode), score(made, offset.astype(np.float64), mode))
    assert_array_equal(offset, copy)


def test_without_effects_the_offset_is_all():
    offset = np.array([-2.0, 0.0, 3.0])
    for mode in ("point", "integrated", "thompson"):
        assert_allclose(score([], offset, mode), sigmoid(offset), rtol=1e-15)


def test_a_misspelt_mode_is_an_error():
    with pytest.raises(ConfigError, match="no mode 'integrate' of prediction") as error:
        score(terms(0), np.zeros(40), "integrate")
    assert error.value.hint == "did you mean 'integrated'?"
    with pytest.raises(ConfigError, match="there are: integrated, point, thompson"):
        score(terms(0), np.zeros(40), "mean")


# --- draws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_a_draw_goes_by_seed_and_id_alone(full):
    ids = np.array([3, 14, 15, 92, 65])
    precision = np.array([random_precision(e, 3) for e in range(5)])
    kept = precision if full else np.diagonal(precision, axis1=1, axis2=2)
    posterior = Posterior(np.arange(15.0).reshape(5, 3), kept)
    w = draws(posterior, ids, [1, 2])
    assert_array_equal(draws(posterior, ids, [1, 2]), w)
    order = np.array([4, 0, 2])
    assert_allclose(draws(posterior.at(order), ids[order], [1, 2]), w[order], rtol=1e-14)
    assert np.all(draws(posterior, ids, [1, 3]) != w)
    assert np.all(draws(posterior, ids, [12]) != w)
    assert np.all(draws(posterior, ids + 1, [1, 2]) != w)


def test_an_id_is_drawn_for_whatever_its_type():
    standard = Posterior(np.zeros((3, 2)), np.ones((3, 2)))
    numbers, text = np.array([7, -1, 30]), np.array(["7", "-1", "30"], dtype=np.dtypes.StringDType())
    assert_array_equal(draws(standard, numbers, [0]), draws(standard, text, [0]))


def test_draws_are_standard_normal_and_uncorrelated_among_coefficients_seeds_and_effects():
    """Within five standard errors, of 20,000 entities."""
    standard = Posterior(np.zeros((20_000, 3)), np.ones((20_000, 3)))
    noise = np.hstack([draws(standard, np.arange(20_000), [s, place]) for s in (0, 1) for place in (0, 1)])
    assert_allclose(noise.mean(axis=0), np.zeros(12), rtol=0, atol=5 / np.sqrt(20_000))
    assert_allclose(np.cov(noise.T), np.eye(12), rtol=0, atol=5 * np.sqrt(2 / 20_000))
    assert stats.kstest(noise.ravel(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_draws_have_the_posteriors_mean_and_covariance(full):
    P = random_precision(4, 3) if full else np.array([0.5, 2.0, 9.0])
    one = Posterior(np.array([1.0, -2.0, 0.5]), P)
    w = draws(one.repeated(20_000), np.arange(20_000), [3])
    S = one.covariance() if full else np.diag(one.covariance())
    sd = np.sqrt(np.diag(S))
    assert_allclose(w.mean(axis=0), one.mean, rtol=0, atol=5 * sd.max() / np.sqrt(20_000))
    assert np.all(np.abs(np.cov(w.T) - S) < 5 * np.sqrt(2 / 20_000) * np.outer(sd, sd))


def test_hashes_are_splitmix64s():
    """The published first numbers of the generator that is begun at 1234567."""
    state = np.uint64(1234567) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 6, dtype=np.uint64)
    copy = state.copy()
    assert hashed(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert_array_equal(state, copy)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        (models, set()),
        (arrays, {"numpy", "numpy.typing", "acclimate.errors"}),
        (hashing, {"numpy", "numpy.typing"}),
        (likelihood, {"numpy", "acclimate.arrays"}),
        (skewness, {"numpy", "acclimate.arrays"}),
        (
            scoring,
            {
                *("numpy", "numpy.typing"),
                *("acclimate.arrays", "acclimate.errors"),
                *(f"acclimate.models.{name}" for name in ("hashing", "likelihood", "skewness")),
            },
        ),
        (support, {"numpy", "acclimate.arrays"}),
        (
            held_scoring,
            {"numpy", "numpy.typing", "acclimate.arrays", "acclimate.models.scoring", "acclimate.models.support"},
        ),
    ],
    ids=["models", "arrays", "hashing", "likelihood", "skewness", "scoring", "support", "held_scoring"],
)
def test_who_scores_loads_numpy_alone(module, allowed):
    """Neither a solver, nor Arrow, nor a learner; this module's imports, and those of all that it imports."""
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names} == allowed


def test_a_coefficient_keeps_its_draw_when_others_join():
    ids = np.arange(50)
    narrow, wide = (Posterior(np.zeros((50, d)), np.ones((50, d))) for d in (3, 7))
    assert_array_equal(draws(wide, ids, [4, 1])[:, :3], draws(narrow, ids, [4, 1]))


def test_without_terms_there_is_the_offset():
    for mode in ("point", "integrated", "thompson"):
        assert_allclose(score([], np.array([0, 2]), mode), sigmoid(np.array([0.0, 2.0])), rtol=1e-7)
