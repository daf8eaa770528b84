from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, special, stats

from acclimate.models.likelihood import (
    Line,
    bounding_curvature,
    evident_curvature,
    expected_derivatives,
    left_open,
    loss_derivatives,
    loss_values,
    without_variance,
)

Z = np.array([-30.0, -6.0, -1.3, -0.2, 0.0, 0.4, 2.0, 7.0, 25.0])


def test_losses_are_what_they_are_called():
    for y in (0.0, 1.0):
        values = loss_values("logistic", np.full_like(Z, y), Z)
        assert_allclose(values, -np.log(sigmoid((2 * y - 1) * Z)), rtol=1e-12, atol=1e-14)
    assert_allclose(loss_values("squared", Z**2, Z), (Z - Z**2) ** 2 / 2)
    values = loss_values("poisson", np.full_like(Z, 7.0), Z)
    assert_allclose(values - special.gammaln(8.0) * -1.0, -stats.poisson.logpmf(7, np.exp(Z)), rtol=1e-12)


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_derivatives_match_finite_differences(loss, y):
    Z = np.array([-30.0, -6.0, -1.3, -0.2, 0.0, 0.4, 2.0])
    label, step = np.full_like(Z, y), 1e-5
    first, second = loss_derivatives(loss, label, Z)
    rise = loss_values(loss, label, Z + step) - loss_values(loss, label, Z - step)
    bend = loss_derivatives(loss, label, Z + step)[0] - loss_derivatives(loss, label, Z - step)[0]
    assert_allclose(first, rise / (2 * step), atol=1e-8)
    assert_allclose(second, bend / (2 * step), atol=1e-9)


def test_margins_of_any_size_are_finite_and_exact():
    z = np.array([-1e4, 1e4, -1e300, 1e300])
    values = loss_values("logistic", np.array([1.0, 0.0, 1.0, 0.0]), z)
    assert_array_equal(values, np.abs(z))
    assert_array_equal(loss_values("logistic", np.array([0.0, 1.0, 0.0, 1.0]), z), np.zeros(4))
    slope, curvature = loss_derivatives("logistic", np.array([1.0, 0.0, 1.0, 0.0]), z)
    assert_array_equal(slope, [-1.0, 1.0, -1.0, 1.0])
    assert_array_equal(curvature, np.zeros(4))


def line(loss, seed: int, reach: float):
    """Steps of three problems of two coefficients: the line, its objective written out, and its slope at 0."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(3, 8, 2)), rng.integers(0, 2, (3, 8)).astype(float)
    weight, w, step = rng.uniform(0, 2, (3, 8)), rng.normal(size=(3, 2)), reach * rng.normal(size=(3, 2))
    P, z, change = np.array([2.0, 0.5]), np.matvec(X, w), np.matvec(X, step)
    slope, _ = loss_derivatives(loss, y, z)
    start = (weight * slope * change).sum(1) + (step * P * w).sum(1)
    downhill = -np.sign(start)[:, None]
    step, change, start = downhill * step, downhill * change, -np.abs(start)

    def at(t):
        losses = loss_values(loss, y, np.matvec(X, w + t[:, None] * step))
        return (weight * losses).sum(1) + 0.5 * ((w + t[:, None] * step) ** 2 - w**2) @ P

    return Line(loss, y, weight, z, change, (step * P * w).sum(1), (step * P * step).sum(1)), at, start


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson"])
def test_a_line_is_the_objective_along_a_step(loss):
    made, at, _ = line(loss, 0, 1.0)
    for t in (np.zeros(3), np.array([0.3, 1.0, 2.0])):
        assert_allclose(made.rise(t), at(t) - at(np.zeros(3)), rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 10_000), reach=st.sampled_from([0.01, 1.0, 100.0, 1e4]))
def test_backtracking_takes_the_first_halving_that_descends_enough(seed, reach):
    made, at, slope = line("logistic", seed, reach)
    length = made.backtrack(np.sqrt(-slope))
    start = at(np.zeros(3))

    def excess(t):
        """Over Armijo's line; rounding may go either way."""
        return at(t) - (start + 1e-4 * t * slope)

    rounding = 1e-9 * (1.0 + np.abs(start))
    assert np.all(np.log2(length) == np.round(np.log2(length)))
    assert np.all(excess(length) <= rounding)
    assert np.all((length == 1.0) | (excess(2.0 * length) > -rounding))


@pytest.mark.parametrize("z", [0.0, 3.0, 36.0, 40.0, 300.0, 700.0, 740.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_derivatives_keep_their_digits_at_any_margin(y, sign, z):
    """Also where the probability rounds to 1: what is left of the slope is what a large weight multiplies."""
    e = np.exp(np.longdouble(-z))
    smaller = e / (1 + e)
    p, q = (1 - smaller, smaller) if sign > 0 else (smaller, 1 - smaller)
    slope, curvature = loss_derivatives("logistic", np.array([y]), np.array([sign * z]))
    assert_allclose(slope, float(p if y == 0.0 else -q), rtol=1e-14)
    assert_allclose(curvature, float(p * q), rtol=1e-14)


@pytest.mark.parametrize("margin", [0.5, 40.0, 1e5, 1e15, 1e100, -1e100])
@pytest.mark.parametrize("change", [1e-9, 1.0, -3.0])
def test_a_row_of_great_loss_drowns_no_other(margin, change):
    """Beside a row far out, by how much one near 0 gains is known to its last digits."""

    def rise(z: list[float]) -> float:
        rows = np.array([z])
        ones = np.ones_like(rows)
        return Line("logistic", 0 * ones, ones, rows, change * ones, np.zeros(1), np.zeros(1)).rise(np.ones(1))[0]

    alone = np.log1p(np.exp(np.longdouble(0.3 + change))) - np.log1p(np.exp(np.longdouble(0.3)))
    assert_allclose(rise([0.3]), float(alone), rtol=1e-6, atol=1e-15)
    assert_allclose(rise([0.3, margin]) - rise([margin]), float(alone), rtol=1e-5, atol=1e-15)


def test_a_step_that_never_descends_or_is_no_number_is_not_taken():
    one = np.ones((3, 1))
    slope = np.array([1.0, -1.0, np.nan])  # up, down, neither
    line = Line("logistic", one, 0 * one, one, one, slope, np.zeros(3))
    assert_allclose(line.backtrack(np.ones(3)), [0.0, 1.0, 0.0], atol=1e-12)  # the first but for rounding


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_bounding_quadratic_touches_the_loss_and_lies_above_it(loss, y):
    z, label = Z[:, None], np.full((len(Z), 1), y)
    curvature = bounding_curvature(loss, z)
    away = np.linspace(-80.0, 80.0, 641)
    bound = loss_values(loss, label, z) + loss_derivatives(loss, label, z)[0] * away + 0.5 * curvature * away**2
    assert np.all(bound - loss_values(loss, label, z + away) >= -1e-9)
    if loss == "logistic":  # the least curved one: it touches again, at -z
        again = loss_values(loss, label, z) - 2 * z * loss_derivatives(loss, label, z)[0] + 2 * curvature * z**2
        assert_allclose(again, loss_values(loss, label, -z), atol=1e-9)


@pytest.mark.parametrize(("variance", "within"), [(0.0, 1e-12), (0.3, 1e-5), (4.0, 1e-4), (25.0, 1e-2)])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_expected_derivatives_are_those_of_an_integral(y, variance, within):
    slope, curvature = expected_derivatives("logistic", np.full_like(Z, y), Z, np.full_like(Z, variance))
    sd = np.sqrt(variance)
    for k, z in enumerate(Z):
        if not variance:
            expected = loss_derivatives("logistic", np.array([y]), np.array([z]))
        else:
            expected = [
                integrate.quad(
                    lambda e, order=order, z=z: (
                        stats.norm.pdf(e)
                        * loss_derivatives("logistic", np.array([y]), np.array([z + sd * e]))[order][0]
                    ),
                    -9,
                    9,
                    limit=200,
                )[0]
                for order in range(2)
            ]
        assert_allclose([slope[k], curvature[k]], np.ravel(expected), rtol=0, atol=within)


def test_the_expected_squared_loss_has_the_same_derivatives_in_strips_of_any_length():
    rng = np.random.default_rng(0)
    y, z = rng.normal(size=(2, 10_000))
    slope, curvature = expected_derivatives("squared", y, z, rng.uniform(0, 3, 10_000))
    assert_allclose(slope, z - y, rtol=0, atol=1e-12)
    assert_allclose(curvature, 1.0, rtol=1e-12)


def test_what_a_row_of_a_weight_leaves_open_is_that_of_as_many_rows():
    w, v = np.array([0.2, 0.1, 0.2]), np.array([1.5, 3.0, 0.0])
    assert_allclose(left_open(w, np.ones(3), v), 1.0 / (1.0 / w + v), rtol=1e-15)
    assert_allclose(left_open(3.0 * w, np.full(3, 3.0), v), 3.0 * left_open(w, np.ones(3), v), rtol=1e-15)
    assert_array_equal(left_open(np.zeros(1), np.zeros(1), np.ones(1)), [0.0])


def test_an_exponential_beyond_all_counts_is_its_quadratic_and_finite():
    z = np.array([99.9, 100.0, 103.0, 1e100])
    values, (slope, curvature) = loss_values("poisson", 0 * z, z), loss_derivatives("poisson", 0 * z, z)
    beyond = np.array([-0.1, 0.0, 3.0, 1e100])
    assert_allclose(values[1:] / np.exp(100.0), (1 + beyond + beyond**2 / 2)[1:], rtol=1e-12)
    assert_allclose(slope[1:] / np.exp(100.0), (1 + beyond)[1:], rtol=1e-12)
    assert_allclose([values[0], slope[0], curvature[0]], np.exp(99.9))
    assert_allclose(curvature[1:], np.exp(100.0))


@pytest.mark.parametrize("change", [1e-12, -1e-9, 0.5, 1.0, 1.1, 30.0, -30.0, 900.0, -1e6])
@pytest.mark.parametrize("margin", [-800.0, -20.0, 0.0, 30.0, 99.5, 150.0])
def test_by_how_much_a_count_changes_its_loss_is_known_to_its_last_digits(margin, change):
    def value(z):
        above = max(z - 100, Decimal(0))
        return (z - above).exp() * (1 + above + above**2 / 2) - 3 * z

    with localcontext() as context:
        context.prec = 60
        z, c = Decimal(margin), Decimal(change)
        expected = float(value(z + c) - value(z))
    one = np.ones((1, 1))
    made = Line("poisson", 3 * one, one, margin * one, change * one, np.zeros(1), np.zeros(1))
    size = 0.0 if margin < 100 else float(loss_values("poisson", one, margin * one)[0, 0])
    assert_allclose(made.rise(np.ones(1))[0], expected, rtol=1e-12, atol=1e-15 * size)


@given(z=st.floats(-60, 90), y=st.integers(0, 10**6), upward=st.floats(0, 1e6), seed=st.integers(0, 1000))
def test_newtons_step_on_counts_descends_at_the_safe_length(z, y, upward, seed):
    """``log(1 + c) / c`` of it for the largest rise ``c`` of a margin: the third derivative is the second."""
    rng = np.random.default_rng(seed)
    x = np.array([1.0, -rng.random(), rng.random()])
    margins, label = z * x, np.array([float(y), 0.0, upward // 1])
    slope, curvature = loss_derivatives("poisson", label, margins)
    step = -(slope @ x) / (curvature @ x**2 + 1e-3)
    change = step * x
    largest = max(change.max(), 0.0)
    length = np.log1p(largest) / largest if largest > 0 else 1.0
    made = Line("poisson", label[None], np.ones((1, 3)), margins[None], change[None], np.zeros(1), np.zeros(1))
    size = float(np.abs(slope).sum() * np.abs(length * change).max())
    assert made.rise(np.array([length]))[0] <= 1e-9 * size


def test_where_a_count_is_far_beyond_its_margin_the_evident_quadratic_ends_at_the_count():
    y, z = np.array([5.0, 100.0, 0.0, 7.0]), np.array([-40.0, -300.0, 3.0, np.log(7.0)])
    curvature = evident_curvature("poisson", y, z)
    slope = loss_derivatives("poisson", y, z)[0]
    assert_allclose((z - slope / curvature)[:2], np.log(y[:2]), rtol=1e-9)
    assert np.all(curvature > 0)
    assert_allclose(curvature[3], 7.0)
    assert_array_equal(evident_curvature("logistic", y, z), bounding_curvature("logistic", z))


def test_the_plain_loss_at_another_offset_is_the_expected_one():
    rng = np.random.default_rng(0)
    z, v, y = rng.normal(size=6), rng.uniform(0, 2, 6), np.arange(6.0)
    moved, left = without_variance("poisson", z, v)
    assert left is None
    draws = z + np.sqrt(v) * np.polynomial.hermite_e.hermegauss(60)[0][:, None]
    w = np.polynomial.hermite_e.hermegauss(60)[1] / np.sqrt(2 * np.pi)
    assert_allclose(loss_derivatives("poisson", y, moved)[0], w @ np.exp(draws) - y, rtol=1e-9)
    assert without_variance("squared", z, v) == (z, None)
    assert without_variance("logistic", z, v) == (z, v)
