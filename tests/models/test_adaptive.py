"""The weight of the past by evidence: known answers, and what cannot matter."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.stats import multivariate_normal

from acclimate.arrays import Posterior
from acclimate.models.adaptive import CONVINCING, WEIGHTS, evidence, weights_of_the_past
from acclimate.models.blocks import Block, Design
from acclimate.models.joint import solve_joint


def test_evidence_of_numbers_is_their_marginal_likelihood() -> None:
    rng, n = np.random.default_rng(0), 12
    X, entity, y = rng.standard_normal((n, 2)), np.repeat([0, 1, 2], 4), rng.standard_normal(n)
    offset = rng.standard_normal(n)
    design = Design.of(sparse.csr_array(X), entity, 3, weight=np.ones(n), centre=False)
    found = []
    for d in (1.0, 0.2):
        S = np.array([[0.5, 0.2], [0.2, 0.9]]) / d
        m = np.array([0.3, -0.4])
        block = Block(design, Posterior(np.tile(m, (3, 1)), np.tile(np.linalg.inv(S), (3, 1, 1))), "full")
        solved = solve_joint([block], y, offset, np.ones(n), loss="squared", tolerance=1e-12, max_steps=20)
        ours = evidence(block, solved.scaled_means[0], y, offset, np.ones(n), loss="squared")
        exact = [
            multivariate_normal(X[rows] @ m + offset[rows], X[rows] @ S @ X[rows].T + np.eye(4)).logpdf(y[rows])
            for rows in (entity == e for e in range(3))
        ]
        found.append(ours - exact)
    assert_allclose(found[0], found[1], atol=1e-9)  # all but what does not depend on the prior


def test_nothing_is_forgotten_unless_it_is_convincing() -> None:
    none = -np.arange(len(WEIGHTS)) * np.ones((20, 1))
    assert_allclose(weights_of_the_past(none), np.ones(20))
    some = np.zeros((1, len(WEIGHTS)))
    some[0, 5] = CONVINCING - 0.1
    assert weights_of_the_past(some) == 1.0
    some[0, 5] = CONVINCING + 0.1
    assert_allclose(weights_of_the_past(some), WEIGHTS[5], rtol=0.05)


def test_only_entities_that_have_changed_forget_whatever_their_order() -> None:
    gain = np.zeros((40, len(WEIGHTS)))
    gain[:30] -= 3.0 * np.arange(len(WEIGHTS))
    gain[30:, -1] = 5.0
    kept = weights_of_the_past(gain)
    assert kept[:30].min() > 0.95
    assert kept[30:].max() < 0.1
    order = np.random.default_rng(0).permutation(40)
    assert_allclose(weights_of_the_past(gain[order]), kept[order])
