"""Effects that weigh the rows differently: each one's own equation, given the others."""

import dataclasses

import numpy as np
import pytest
from model_oracles import sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from sample_blocks import World, joined, world

from acclimate.models.joint import Solution, solve_joint
from acclimate.models.separate import solve_separately


def own_weights(seed: int, n: int, kind: str) -> list[np.ndarray | None]:
    """Of a fixed effect, of users and of videos."""
    rng = np.random.default_rng([seed, 3])
    sampled = np.where(rng.random(n) < 0.3, 1.0 / 0.3, 0.0)
    faded = 2.0 ** -rng.exponential(2.0, n)
    return {
        "sampled": [None, sampled, None],
        "faded": [None, faded, 2.0 ** -rng.exponential(1.0, n)],
        "both": [faded, sampled * faded, None],
    }[kind]


def solved(made: World, weights: list[np.ndarray | None], **options) -> Solution:
    blocks = [dataclasses.replace(block, active=a) for block, a in zip(made.blocks, weights, strict=True)]
    return solve_joint(blocks, made.rows.y, made.rows.offset, made.rows.weight, **options)


def dense_root(made: World, weights: list[np.ndarray | None], loss: str) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients by Newton's method on the whole nonsymmetric matrix, and that matrix there."""
    m, P, rows = made.stacked()
    sizes = [effect.entities * effect.X.shape[1] for effect in made.effects]
    active = np.repeat([np.ones(len(rows.y)) if a is None else a for a in weights], sizes, axis=0).T
    w = m.copy()

    def equations(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = rows.X @ w + rows.offset
        p = sigmoid(z)
        slope, curvature = (z - rows.y, np.ones_like(z)) if loss == "squared" else (p - rows.y, p * (1.0 - p))
        F = (active * rows.X).T @ (rows.weight * slope) + P @ (w - m)
        return F, (active * rows.X).T @ ((rows.weight * curvature)[:, None] * rows.X) + P

    for _ in range(100):
        F, H = equations(w)
        step, length = -np.linalg.solve(H, F), 1.0
        while length > 1e-9 and np.linalg.norm(equations(w + length * step)[0]) > np.linalg.norm(F):
            length /= 2.0
        w = w + length * step
    assert np.linalg.norm(np.linalg.solve(H, equations(w)[0])) < 1e-10
    return w, equations(w)[1]


def own_precisions(made: World, H: np.ndarray) -> list[np.ndarray]:
    """Each entity's part of the matrix of all."""
    parts, first = [], 0
    for effect in made.effects:
        d, last = effect.X.shape[1], first + effect.entities * effect.X.shape[1]
        parts.append(np.array([H[i : i + d, i : i + d] for i in range(first, last, d)]))
        first = last
    return parts


@pytest.mark.parametrize("weights", ["sampled", "faded", "both"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("weak", [1.0, 0.05])
def test_every_effect_meets_its_own_equation(weights, loss, weak):
    made = world(1, weak=weak)
    chosen = own_weights(1, len(made.rows.y), weights)
    w, H = dense_root(made, chosen, loss)
    solution = solved(made, chosen, loss=loss, tolerance=1e-10)
    assert solution.converged
    assert_allclose(joined(solution), w, atol=1e-9)
    for k, expected in enumerate(own_precisions(made, H)):
        assert_allclose(solution.posterior(k).precision, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weights", ["sampled", "faded", "both"])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_the_tolerance_is_in_posterior_standard_deviations(weights, tolerance):
    made = world(2, n=600, weak=1e-2)
    chosen = own_weights(2, 600, weights)
    w, H = dense_root(made, chosen, "logistic")
    solution = solved(made, chosen, tolerance=tolerance)
    assert solution.converged
    away, first, squares = joined(solution) - w, 0, 0.0
    for precisions in own_precisions(made, H):
        for P in precisions:
            part = away[first : first + len(P)]
            squares, first = squares + part @ P @ part, first + len(P)
    assert np.sqrt(squares) < 1.5 * tolerance


def test_margins_of_thousands_do_not_lose_the_way():
    made = world(3)
    rows = dataclasses.replace(made.rows, offset=2000.0 * made.rows.offset)
    made = World(made.effects, rows)
    solution = solved(made, own_weights(3, len(rows.y), "sampled"), tolerance=1e-3)
    assert np.isfinite(joined(solution)).all()
    assert solution.converged


def test_weights_that_all_effects_share_are_weights_of_the_rows():
    made = world(4)
    a = 2.0 ** -np.random.default_rng(4).exponential(1.0, len(made.rows.y))
    weighted = World(made.effects, dataclasses.replace(made.rows, weight=made.rows.weight * a))
    expected = solve_joint(made.blocks, weighted.rows.y, weighted.rows.offset, weighted.rows.weight)
    actual = solved(made, [a, a, a.copy()])
    assert_array_equal(joined(actual), joined(expected))
    for k in range(3):
        assert_array_equal(actual.posterior(k).precision, expected.posterior(k).precision)
        assert_array_equal(actual.evidence(k)[0], expected.evidence(k)[0])


def test_what_the_rows_say_of_an_effect_is_said_with_its_own_weights():
    made = world(5)
    chosen = own_weights(5, len(made.rows.y), "both")
    solution = solved(made, chosen, tolerance=1e-10)
    for k in range(3):
        posterior, prior = solution.posterior(k), made.blocks[k].prior
        linear, information = solution.evidence(k)
        # Prior and evidence together are the posterior: P m + l and P + A.
        assert_allclose(prior.P.plus(information).array, posterior.precision, rtol=1e-8, atol=1e-8)
        together = prior.P.times(prior.mean) + linear
        assert_allclose(posterior.P.times(posterior.mean), together, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", ["sampled", "faded"])
def test_one_block_alone_counts_its_own_weights_too(weights):
    made = world(6)
    block, a = made.blocks[1], own_weights(6, len(made.rows.y), weights)[1]
    columns = (made.rows.y, made.rows.offset)
    expected = solve_joint([block], *columns, made.rows.weight * a, tolerance=1e-10)
    separate = solve_separately(
        dataclasses.replace(block, active=a), *columns, made.rows.weight, tolerance=1e-10, max_steps=50
    )
    assert_allclose(separate.posterior(0).mean, expected.means(0), atol=1e-9)
    assert_allclose(separate.posterior(0).precision, expected.posterior(0).precision, rtol=1e-8, atol=1e-8)
    assert_allclose(separate.margin, expected.margin, atol=1e-8)
