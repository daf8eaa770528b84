"""Platt's line: known answers, the order of rows, and numbers of any size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import expit, logit

from acclimate.arrays import Posterior
from acclimate.evaluate.metrics import auc
from acclimate.models.calibration import LEAST_SLOPE, calibrated, identity, learned, rising

TRUE = (-0.7, 0.6)


def world(rows, seed=0, line=TRUE):
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-0.5, 1.5, rows))
    y = (rng.random(rows) < expit(line[0] + line[1] * logit(p))).astype(float)
    return p, y, rng.integers(1, 4, rows).astype(float)


def line_of(p, y, weight=None, *, line=None, kept=1.0, ridge=10.0):
    weight = np.ones(len(p)) if weight is None else weight
    base = identity(ridge)
    return learned(base if line is None else line, p, y, weight=weight, kept=kept, base=base)


def objective(p, y, weight, ridge):
    z = logit(p)
    return lambda w: (
        weight @ np.logaddexp(0.0, -(2 * y - 1) * (w[0] + w[1] * z)) + ridge * (w[0] ** 2 + (w[1] - 1) ** 2) / 2
    )


@pytest.mark.parametrize("ridge", [1e-6, 10.0, 1000.0])
def test_one_window_is_the_penalised_maximum_likelihood(ridge):
    p, y, weight = world(3000)
    found = line_of(p, y, weight, ridge=ridge)
    expected = minimize(objective(p, y, weight, ridge), [0.0, 1.0], method="BFGS", options={"gtol": 1e-7}).x
    assert_allclose(found.mean, expected, atol=2e-6)
    x = np.stack([np.ones(len(p)), logit(p)], 1)
    q = expit(x @ found.mean)
    assert_allclose(found.precision, ridge * np.eye(2) + x.T @ (x * (weight * q * (1 - q))[:, None]), rtol=1e-6)


def test_the_true_line_is_recovered_within_its_uncertainty():
    away = []
    for seed in range(200):
        found = line_of(*world(2000, seed)[:2], ridge=1e-3)
        away.append((found.mean - TRUE) / np.sqrt(np.diag(np.linalg.inv(found.precision))))
    assert_allclose(np.std(away, axis=0), 1.0, atol=0.15)
    assert_allclose(np.mean(away, axis=0), 0.0, atol=0.25)


def test_the_order_of_rows_does_not_matter_and_a_weight_is_so_many_rows():
    p, y, weight = world(500)
    found, order = line_of(p, y, weight), np.random.default_rng(1).permutation(500)
    repeated = np.repeat(np.arange(500), weight.astype(int))
    for other in (line_of(p[order], y[order], weight[order]), line_of(p[repeated], y[repeated])):
        assert_allclose(other.mean, found.mean, atol=1e-9)
        assert_allclose(other.precision, found.precision, rtol=1e-9)


@pytest.mark.parametrize("pieces", [2, 30])
def test_many_windows_are_nearly_one(pieces):
    """The past enters by its quadratic approximation: within a tenth of its standard deviation here."""
    p, y, _ = world(6000)
    whole, line = line_of(p, y), identity(10.0)
    for part in np.array_split(np.arange(6000), pieces):
        line = line_of(p[part], y[part], line=line)
    sd = np.sqrt(np.diag(np.linalg.inv(whole.precision)))
    assert np.all(np.abs(line.mean - whole.mean) < 0.1 * sd)
    assert_allclose(line.precision * np.outer(sd, sd), whole.precision * np.outer(sd, sd), atol=0.05)


def test_what_is_forgotten_returns_to_the_line_that_changes_nothing():
    p, y, _ = world(2000)
    line = line_of(p, y)
    nothing = np.zeros(1)
    for kept in (0.5, 0.0):
        after = line_of(p[:1], y[:1], nothing, line=line, kept=kept)
        H = kept * line.precision + (1 - kept) * 10.0 * np.eye(2)
        assert_allclose(after.precision, H, rtol=1e-9)
        expected = np.linalg.solve(H, kept * line.precision @ line.mean + (1 - kept) * np.array([0.0, 10.0]))
        assert_allclose(after.mean, expected, atol=1e-9)


def test_a_line_that_would_fall_is_nearly_level_at_its_best():
    p, y, _ = world(3000, line=(-1.0, -0.8))
    line = line_of(p, y)
    assert line.mean[1] < -0.5
    a, b = rising(line)
    assert b == LEAST_SLOPE
    away = np.array([a, b]) - line.mean
    beside = [np.array([a + step, b]) - line.mean for step in (-1e-3, 1e-3)]
    assert all(w @ line.precision @ w > away @ line.precision @ away for w in beside)
    assert_allclose(calibrated(line, p).mean(), y.mean(), atol=0.05)


def test_a_line_that_changes_nothing_changes_no_bit():
    p = np.random.default_rng(0).random(1000)
    assert calibrated(identity(10.0), p) is p


@pytest.mark.parametrize("line", [TRUE, (2.0, 3.0), (0.0, -1.0)])
def test_auc_is_what_it_was(line):
    p, y, _ = world(4000, 3)
    after = calibrated(line_of(*world(4000, 4, line)[:2]), p)
    assert auc(y, after) == pytest.approx(auc(y, p), abs=1e-12)


PROBABILITIES = st.floats(0.0, 1.0) | st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 1.0 - 2.0**-53, 1.0])


@given(
    data=st.data(),
    rows=st.integers(0, 30),
    scale=st.sampled_from([0.0, 1e-12, 1.0, 1e6, 1e12]),
    kept=st.floats(0.0, 1.0),
    ridge=st.sampled_from([1e-6, 10.0, 1e6]),
)
def test_lines_are_finite_and_never_turn_rows_round(data, rows, scale, kept, ridge):
    """Of one class or none, certain and wrong, of weight 0 or beyond all: the prior holds the line."""
    p = data.draw(hnp.arrays(np.float64, rows, elements=PROBABILITIES))
    y = data.draw(hnp.arrays(np.float64, rows, elements=st.sampled_from([0.0, 1.0])))
    line = identity(ridge)
    for _ in range(2):
        line = line_of(p, y, np.full(rows, scale), line=line, kept=kept, ridge=ridge)
    assert np.isfinite(line.mean).all()
    assert np.isfinite(line.precision).all()
    assert rising(line)[1] >= LEAST_SLOPE
    after = calibrated(line, p)
    assert ((after >= 0) & (after <= 1)).all()
    assert (np.diff(after[np.argsort(p, kind="stable")]) >= 0).all()


def test_a_window_of_one_class_moves_the_line_a_little():
    p = np.full(20, 0.3)
    line = line_of(p, np.zeros(20))
    after = calibrated(line, p)
    assert ((after > 0.1) & (after < 0.25)).all()
    assert isinstance(line, Posterior)
