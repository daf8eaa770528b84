"""Precisions at the end of their digits: algebra that LAPACK refuses goes on, and what is no precision is told."""

import numpy as np
import pytest
from model_oracles import draw
from numpy.testing import assert_allclose, assert_array_equal

from acclimate.arrays import Diagonal, Full, Posterior
from acclimate.models.blocks import Design
from acclimate.models.joint import Block, solve_joint
from acclimate.models.posterior import _csr, update_posterior

UNITS = [np.ones(2), np.array([1.0, 1e150]), np.array([1e-140, 1e100])]
LOST = np.array([[1.0, 1.0], [1.0, 1.0]])
"""Of a row of great weight: what was known of the other direction is below the last digit."""


@pytest.mark.parametrize("units", UNITS, ids=str)
def test_a_singular_precision_is_taken_for_one_that_rounding_made_so(units):
    H = Full(LOST[None] * units[:, None] * units)
    root = H.root()
    assert_allclose(root @ np.swapaxes(root, -1, -2), H.array, rtol=1e-14)
    along = np.array([[1.0, 1.0]]) * units
    assert np.all(np.vecdot(along, H.descent(along)) < 0.0)
    assert np.isfinite(H.inverse().array).all()
    assert np.isfinite(H.spread(np.ones((1, 2)))).all()


def test_in_the_direction_that_is_known_a_singular_precision_is_inverted():
    assert_allclose(Full(LOST[None]).solve(np.ones((1, 2))), [[0.5, 0.5]], rtol=1e-2)


def test_one_singular_precision_does_not_change_the_others():
    good = np.array([[2.0, 0.3], [0.3, 1.0]])
    both = Full(np.array([good, LOST]))
    assert_allclose(both.inverse().array[0], np.linalg.inv(good), rtol=1e-13)
    assert_allclose(both.solve(np.ones((2, 2)))[0], np.linalg.solve(good, np.ones(2)), rtol=1e-13)


NONE = {
    "indefinite": np.array([[1.0, 2.0], [2.0, 1.0]]),
    "negative": np.array([[-1.0, 0.0], [0.0, 1.0]]),
    "nothing": np.array([[0.0, 0.0], [0.0, 1.0]]),
    "infinite": np.array([[np.inf, 0.0], [0.0, 1.0]]),
    "not a number": np.array([[np.nan, 0.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize("bad", NONE.values(), ids=NONE)
def test_what_is_no_precision_is_told_from_what_is(bad):
    assert_array_equal(Full(np.array([np.eye(2), bad, 1e-300 * np.eye(2)])).positive(), [True, False, True])


def test_a_diagonal_is_positive_where_all_of_it_is():
    bad = [[1.0, 2.0], [0.0, 1.0], [1.0, -1.0], [np.inf, 1.0], [np.nan, 1.0], [1.0, 1e-320]]
    assert_array_equal(Diagonal(np.array(bad)).positive(), [True, *[False] * 5])


@pytest.mark.parametrize("what", ["mean", "precision"])
def test_what_is_no_number_stops_at_once_and_is_not_converged(what):
    rows = draw(3, 20, 2)
    mean, precision = np.zeros((1, 2)), np.eye(2)[None].copy()
    (mean if what == "mean" else precision)[0, 0] = np.nan
    design = Design.of(_csr(rows.X), None, 1, weight=rows.weight, centre=True)
    with np.errstate(all="ignore"):
        solution = solve_joint(
            [Block(design, Posterior(mean, precision), "full")], rows.y, rows.offset, rows.weight, max_steps=50
        )
    assert not solution.converged
    assert solution.steps <= 1


@pytest.mark.parametrize("factor", [1e-50, 1e-10, 1e10, 1e15])
def test_only_the_ratio_of_weights_and_prior_matters(factor):
    rows = draw(4, 30, 3)
    plain, _ = update_posterior(Posterior(np.ones(3), np.eye(3)), rows.X, rows.y, **rows.columns)
    columns = {"offset": rows.offset, "weight": factor * rows.weight}
    # The tolerance is in posterior standard deviations, which go with the root.
    tolerance = 1e-9 * np.sqrt(factor)
    prior = Posterior(np.ones(3), factor * np.eye(3))
    scaled, info = update_posterior(prior, rows.X, rows.y, **columns, tolerance=tolerance)
    assert info.converged
    assert_allclose(scaled.mean, plain.mean, rtol=1e-8)
    assert_allclose(scaled.precision, factor * plain.precision, rtol=1e-8)
