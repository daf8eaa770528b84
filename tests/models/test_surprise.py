"""Surprise by new rows: known answers, what cannot matter, and that its deviations are those of worlds drawn."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.special import expit, xlogy

from acclimate.arrays import Posterior
from acclimate.models.blocks import Design
from acclimate.models.likelihood import Loss
from acclimate.models.surprise import Belief, Surprise, Surprises, surprises

LOSSES: tuple[Loss, ...] = ("logistic", "squared", "poisson")


def belief(X: np.ndarray, entity: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> Belief:
    design = Design.of(sparse.csr_array(X), entity, len(mean), weight=np.ones(len(X)), centre=False)
    return Belief(design, design.scaling.prior_in(Posterior(mean, np.linalg.inv(covariance))))


class World:
    """Rows of a fixed effect, of users and of items, and a draw of what is believed of these."""

    def __init__(self, seed: int, loss: Loss, *, rows: int = 800, size: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        fixed, user = (np.c_[np.ones(rows), rng.standard_normal((rows, 2))] for _ in range(2))
        entities = [np.zeros(rows, int), (40 * rng.random(rows) ** 2).astype(int), rng.integers(0, 20, rows)]
        self.beliefs, z = [], np.zeros(rows)
        shapes = [(fixed, 1, 0.3), (user, 40, 0.8), (np.ones((rows, 1)), 20, 0.5)]
        for (X, count, sd), entity in zip(shapes, entities, strict=True):
            d, sd = X.shape[1], sd * size
            root = sd * (0.5 * np.eye(d) + 0.3 * rng.standard_normal((count, d, d)))
            mean = 0.6 * sd * rng.standard_normal((count, d))
            drawn = mean + np.matvec(root, rng.standard_normal((count, d)))
            z += np.vecdot(X, drawn[entity])
            self.beliefs.append(belief(X, entity, mean, root @ root.swapaxes(1, 2) + 1e-9 * np.eye(d)))
        self.y = {
            "logistic": lambda: (rng.random(rows) < expit(z)).astype(float),
            "squared": lambda: z + rng.standard_normal(rows),
            "poisson": lambda: rng.poisson(np.exp(z)).astype(float),
        }[loss]()
        self.loss: Loss = loss

    def surprises(self, rows: np.ndarray | slice = slice(None), weight: np.ndarray | None = None) -> Surprises:
        y = self.y[rows]
        weight = np.ones(len(y)) if weight is None else weight
        beliefs = [replace(one, design=one.design.at(rows)) for one in self.beliefs]
        return surprises(beliefs, y, np.zeros(len(y)), weight, loss=self.loss, noise=1.0)


def each(found: Surprises) -> list[Surprise]:
    return [found.loss, found.labels, *found.effects]


def assert_same(one: Surprises, other: Surprises) -> None:
    for here, there in zip(each(one), each(other), strict=True):
        assert_allclose(list(vars(here).values()), list(vars(there).values()), rtol=1e-9, atol=1e-12)


def test_without_uncertainty_the_loss_is_log_loss_and_its_expectation_the_entropy():
    p, y = np.array([0.2, 0.5, 0.9]), np.array([1.0, 0.0, 1.0])
    z = np.log(p / (1.0 - p))
    certain = belief(np.ones((3, 1)), np.zeros(3, int), np.zeros((1, 1)), np.full((1, 1, 1), 1e-18))
    found = surprises([certain], y, z, np.ones(3), loss="logistic", noise=1.0).loss
    assert_allclose(found.observed, -np.mean(np.log([0.2, 0.5, 0.9])))
    assert_allclose(found.expected, -np.mean(xlogy(p, p) + xlogy(1 - p, 1 - p)))
    assert_allclose(found.standard_deviation, np.sqrt(np.sum(p * (1 - p) * z**2)) / 3, rtol=1e-6)


def test_rows_of_one_entity_share_what_is_not_known_of_it():
    """Numbers: with all rows of one entity its variance counts n^2 times, with each of another one n times."""
    n, v = 5, 0.7
    for entity, expected in ((np.zeros(n, int), n + n**2 * v), (np.arange(n), n + n * v)):
        count = entity.max() + 1
        one = belief(np.ones((n, 1)), entity, np.zeros((count, 1)), np.full((count, 1, 1), v))
        found = surprises([one], np.ones(n), np.zeros(n), np.ones(n), loss="squared", noise=1.0)
        assert_allclose(found.labels.standard_deviation, np.sqrt(expected) / n)


def test_an_effect_is_expected_to_help_by_what_is_believed_of_it():
    """Of numbers an effect ``f`` known exactly changes the loss by ``(f^2 / 2 - f^2)`` in expectation."""
    f = np.array([0.5, -1.0, 2.0])
    one = belief(f[:, None], np.zeros(3, int), np.ones((1, 1)), np.full((1, 1, 1), 1e-18))
    (found,) = surprises([one], f, np.zeros(3), np.ones(3), loss="squared", noise=2.0).effects
    assert_allclose([found.observed, found.expected], [-np.mean(f**2) / 4] * 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_deviations_are_those_of_worlds_drawn_from_what_is_believed(loss: Loss):
    size = 0.5 if loss == "poisson" else 1.0  # of counts to first order in the covariance of margins
    found = [each(World(seed, loss, size=size).surprises()) for seed in range(200)]
    z = np.array([[one.excess / one.standard_deviation for one in world] for world in found])
    # Of 200 worlds means are known to .07 and deviations to .05.
    assert np.abs(z.mean(axis=0)).max() < 0.25
    assert_allclose(z.std(axis=0), np.ones(z.shape[1]), rtol=0, atol=0.17)


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(loss: Loss, seed: int):
    world = World(3, loss, rows=60)
    assert_same(world.surprises(), world.surprises(np.random.default_rng(seed).permutation(60)))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_of_weight_three_is_three_rows(loss: Loss):
    world, weight = World(5, loss, rows=50), np.random.default_rng(0).integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), weight)
    assert_same(world.surprises(weight=weight.astype(float)), world.surprises(repeated))


def test_a_diagonal_precision_is_the_same_as_its_matrix():
    world = World(1, "logistic", rows=80)
    d = [Posterior(b.posterior.mean, b.posterior.P.kept("diagonal").array) for b in world.beliefs]
    same = []
    for full in (False, True):
        some = [Posterior(p.mean, p.P.full().array) if full else p for p in d]
        beliefs = [replace(b, posterior=p) for b, p in zip(world.beliefs, some, strict=True)]
        same.append(surprises(beliefs, world.y, np.zeros(80), np.ones(80), loss="logistic", noise=1.0))
    assert_same(*same)


def test_rows_without_an_entity_are_of_no_effect():
    world = World(2, "logistic", rows=60)
    fixed, users = world.beliefs[:2]
    entity = np.where(np.arange(60) < 20, -1, users.design.entity)
    users = replace(users, design=replace(users.design, entity=entity))
    found = surprises([fixed, users], world.y, np.zeros(60), np.ones(60), loss="logistic", noise=1.0)
    assert found.effects[1].rows == 40
    alone = surprises(
        [replace(fixed, design=fixed.design.at(np.arange(20)))],
        world.y[:20],
        np.zeros(20),
        np.ones(20),
        loss="logistic",
        noise=1.0,
    )
    some = [replace(b, design=b.design.at(slice(20, None))) for b in (fixed, users)]
    rest = surprises(some, world.y[20:], np.zeros(40), np.ones(40), loss="logistic", noise=1.0)
    assert_allclose(60 * found.loss.observed, 20 * alone.loss.observed + 40 * rest.loss.observed)
    assert_allclose(found.effects[1].observed, rest.effects[1].observed)
