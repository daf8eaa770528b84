import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import sigmoid
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.models.likelihood import Line, loss_derivatives, loss_values

Z = np.array([-30.0, -6.0, -1.3, -0.2, 0.0, 0.4, 2.0, 7.0, 25.0])


def test_losses_are_what_they_are_called():
    for y in (0.0, 1.0):
        values = loss_values("logistic", np.full_like(Z, y), Z)
        assert_allclose(values, -np.log(sigmoid((2 * y - 1) * Z)), rtol=1e-12, atol=1e-14)
    assert_allclose(loss_values("squared", Z**2, Z), (Z - Z**2) ** 2 / 2)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_derivatives_match_finite_differences(loss, y):
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


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_a_line_is_the_objective_along_a_step(loss):
    made, at, _ = line(loss, 0, 1.0)
    for t in (np.zeros(3), np.array([0.3, 1.0, 2.0])):
        assert_allclose(made.at(t), at(t), rtol=1e-13)


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
