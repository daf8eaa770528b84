import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import random_precision, relative_difference
from numpy.testing import assert_allclose
from sample_blocks import KINDS, World, world
from scipy import sparse

from acclimate.arrays import Posterior
from acclimate.models import marginal
from acclimate.models.blocks import Block, Design
from acclimate.models.marginal import Other, marginal_precision

UNSHARED = np.array([-1, -1, -1])


def others(made: World) -> list[Other]:
    """All but the first effect, none of whose coefficients the first has; at the prior of their first."""
    blocks = made.blocks[1:]
    return [Other(block, block.prior.at(0), UNSHARED[: block.design.width]) for block in blocks]


def raw_precision(made: World, effects: list[Other], curvature: np.ndarray) -> np.ndarray:
    fixed = made.blocks[0]
    found = marginal_precision(fixed, curvature, [[one] for one in effects])
    return fixed.design.scaling.precision_out(found).array[0]


def schur(made: World, curvature: np.ndarray) -> np.ndarray:
    """The inverse of the fixed effect's part of the covariance of all coefficients."""
    _, P, rows = made.stacked()
    H = P + (rows.X * curvature[:, None]).T @ rows.X
    d = made.effects[0].X.shape[1]
    return np.linalg.inv(np.linalg.inv(H)[:d, :d])


@pytest.mark.parametrize("effect", [1, 2])
@pytest.mark.parametrize("weak", [1.0, 0.01])
def test_one_effect_is_integrated_out_exactly(effect, weak):
    made = world(1, weak=weak).with_shared_priors()
    made = World([made.effects[0], made.effects[effect]], made.rows)
    curvature = np.random.default_rng(0).uniform(0.0, 0.3, len(made.rows.y))
    found = raw_precision(made, others(made), curvature)
    assert relative_difference(found, schur(made, curvature)) < 1e-8


def test_two_effects_that_meet_evenly_are_integrated_out_exactly():
    # 6 users meet 5 items 4 times each: what the two take are orthogonal directions but for the level of all.
    user, item = (code.ravel() for code in np.indices((6, 5)))
    user, item = np.tile(user, 4), np.tile(item, 4)
    g = np.repeat([-1.0, 1.0, -1.0, 1.0], 30)
    X, ones = sparse.csr_array(np.column_stack([np.ones_like(g), g])), sparse.csr_array(np.ones((len(g), 1)))
    weight = np.ones(len(g))
    priors = [Posterior(np.zeros((1, d)), p * np.eye(d)[None]) for d, p in ((2, 0.1), (1, 2.0), (1, 0.5))]
    parts = [(X, None, 1), (ones, user, 6), (ones, item, 5)]
    fixed, *random = (
        Block(Design.of(Z, code, count, weight=weight, centre=True), prior, "full")
        for (Z, code, count), prior in zip(parts, priors, strict=True)
    )
    found = marginal_precision(fixed, 0.2 * weight, [[Other(b, b.prior.at(0), np.array([0]))] for b in random])
    # Of the level: 120 rows of variance 5, 6 users of .5 and 5 items of 2; of g the rows alone.
    level = 1.0 / (5.0 / 120.0 + 0.5 / 6.0 + 2.0 / 5.0)
    scale = fixed.design.scaling
    assert_allclose(
        scale.precision_out(found).array[0], np.diag([0.1 + level, 0.1 + 0.2 * 120.0]), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("cuts", [[0, 240], [0, 1, 2, 3, 240], [0, 100, 130, 240], list(range(0, 241, 10))])
def test_rows_of_known_entities_say_what_they_would_have_said_at_first(cuts):
    """Where the entities have every coefficient of the shared effect, batch by batch is all at once."""
    rng = np.random.default_rng(3)
    X, user = np.column_stack([np.ones(240), rng.normal(3.0, 2.0, size=(240, 2))]), rng.integers(0, 9, 240)
    curvature, B = rng.uniform(0.05, 0.25, 240), random_precision(5, 3)
    turn, P = np.array([0, 2, 1]), np.eye(3)  # the entities have their columns in another order
    entities = np.repeat(B[None], 9, axis=0)

    def learned(P, entities, rows):
        fixed_design, design = (
            Design.of(sparse.csr_array(X[rows][:, order]), codes, count, weight=np.ones(len(rows)), centre=True)
            for order, codes, count in ((np.arange(3), None, 1), (turn, user[rows], 9))
        )
        fixed = Block(fixed_design, Posterior(np.zeros((1, 3)), P[None]), "full")
        block = Block(design, Posterior(np.zeros((9, 3)), entities[:, turn][:, :, turn]), "full")
        other = Other(block, Posterior(np.zeros(3), B[turn][:, turn]), turn)
        found = marginal_precision(fixed, curvature[rows], [[other]])
        more = np.zeros_like(entities)
        np.add.at(more, user[rows], curvature[rows, None, None] * X[rows][:, :, None] * X[rows][:, None, :])
        return fixed_design.scaling.precision_out(found).array[0], entities + more

    for first, last in itertools.pairwise(cuts):
        P, entities = learned(P, entities, np.arange(first, last))
    S = np.linalg.inv(entities)
    assert relative_difference(P, np.eye(3) + np.sum(B - B @ S @ B, axis=0)) < 1e-7


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    other=st.sampled_from(KINDS),
    weak=st.sampled_from([1.0, 1e-3, 1e-8]),
    strength=st.sampled_from([1e-6, 1.0, 1e6]),
    shared=st.booleans(),
    alone=st.booleans(),
    rank_one=st.booleans(),
)
def test_the_precision_is_between_the_priors_and_the_own_hessian(
    seed, kind, other, weak, strength, shared, alone, rank_one
):
    made = world(seed, n=60, kind=kind, others=other, weak=weak)
    if rank_one:  # columns that are all the same, in every effect
        made = World([effect.mapped(np.ones_like) for effect in made.effects], made.rows)
    curvature = strength * np.random.default_rng(seed).uniform(0.0, 1.0, 60) ** 8
    effects = others(made)[: 1 if alone else 2]
    if shared:
        places = np.array([0, 1, 2])
        effects = [dataclasses.replace(o, shared=places[: o.block.design.width]) for o in effects]
    fixed = made.blocks[0]
    found = marginal_precision(fixed, curvature, [[one] for one in effects])
    assert found.positive().all()
    P = fixed.scaled.P.full().array[0]
    H = fixed.scaled.P.plus(fixed.design.information(curvature, full=fixed.full)).full().array[0]
    unit, pairs = np.linalg.inv(np.linalg.cholesky(H)), [(found.full().array[0], P)]
    if len(effects) > 1 or not shared:
        pairs.append((H, found.full().array[0]))
    for more, less in pairs:
        assert np.linalg.eigvalsh(unit @ (more - less) @ unit.T)[0] > -1e-7 - 1e-15 * np.linalg.cond(H)


@pytest.mark.parametrize("alone", [True, False])
def test_the_bound_never_says_less_than_the_matrices(monkeypatch, alone):
    made = world(4, kind="full", others="marginal").with_shared_priors()
    made = World(made.effects[:2], made.rows) if alone else made
    curvature = np.random.default_rng(0).uniform(0.0, 0.3, len(made.rows.y))
    exact = raw_precision(made, others(made), curvature)
    monkeypatch.setattr(marginal, "_WIDEST", 3)
    bound = raw_precision(made, others(made), curvature)
    assert np.linalg.eigvalsh(bound - exact)[0] > (-1e-9 if alone else -np.inf)
    assert np.linalg.norm(bound - exact) > 0.01 * np.linalg.norm(exact)


@pytest.mark.parametrize("others_form", ["diagonal", "marginal"])
def test_a_diagonal_shared_effect_keeps_the_diagonal(others_form):
    made = world(6, kind="diagonal", others=others_form).with_shared_priors()
    made = World([made.effects[0], made.effects[2]], made.rows)
    curvature = np.random.default_rng(0).uniform(0.0, 0.3, len(made.rows.y))
    found = raw_precision(made, others(made), curvature)
    X = made.effects[0].X.toarray()
    own = made.effects[0].prior.precision[0] + curvature @ X**2
    assert (found <= own * (1 + 1e-12)).all()
    assert (found >= made.effects[0].prior.precision[0]).all()
    assert found[0] < 0.9 * own[0]


def test_pieces_do_not_matter(monkeypatch):
    made = world(5)
    curvature = np.random.default_rng(1).uniform(0.0, 0.3, len(made.rows.y))
    whole = raw_precision(made, others(made), curvature)
    monkeypatch.setattr(marginal, "_PIECE_CELLS", 1)
    assert_allclose(raw_precision(made, others(made), curvature), whole, rtol=1e-12)
