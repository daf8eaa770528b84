"""One block alone, entity by entity, against the same block solved jointly."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import Rows, distance, information, random_precision, sigmoid
from numpy.testing import assert_allclose, assert_array_equal
from sample_blocks import KINDS, Effect, World, kept_precisions, optimum
from scipy import sparse

from acclimate.arrays import Posterior
from acclimate.models.posterior import DENSE_WIDTH
from acclimate.models.separate import SeparateSolution, is_separate, solve_separately

SIZES = [5, 0, 1, 40, 3, 2, 0, 12]


def lone(seed: int, kind: str, *, d: int = 3, sizes: list[int] = SIZES, shared: bool = False) -> World:
    """One effect whose rows are in any order, some of them of none of its entities."""
    rng = np.random.default_rng(seed)
    entity = rng.permutation(np.repeat(np.arange(-1, len(sizes)), [6, *sizes]))
    n = len(entity)
    X = rng.normal(size=(n, d)) * [1.0, *np.geomspace(0.01, 100.0, d - 1)] + [0.0, *np.full(d - 1, 0.3)]
    X[:, 0] = 1.0
    scale = np.std(X, axis=0) + (np.arange(d) == 0)
    count = 1 if shared else len(sizes)
    precision = np.array([random_precision(seed + e, d, 0.5) * np.outer(scale, scale) for e in range(count)])
    kept = precision if kind == "full" else np.diagonal(precision, axis1=1, axis2=2).copy()
    prior = Posterior(rng.normal(size=(count, d)) / scale, kept)
    z = X @ (rng.normal(size=d) / scale) + rng.normal(size=len(sizes) + 1)[entity]
    y = (rng.random(n) < sigmoid(z)).astype(np.float64)
    effect = Effect(sparse.csr_array(X), entity, prior, kind, len(sizes))
    return World([effect], Rows(np.empty((n, 0)), y, 0.5 * rng.normal(size=n), rng.uniform(0.2, 2.0, n)))


def separately(made: World, tolerance: float = 1e-9, max_steps: int = 50) -> SeparateSolution:
    rows = made.rows
    return solve_separately(
        made.blocks[0], rows.y, rows.offset, rows.weight, tolerance=tolerance, max_steps=max_steps
    )


def assert_same(one: Posterior, other: Posterior, H: np.ndarray, within: float = 1e-8) -> None:
    """Means in posterior standard deviations of ``H``, that of all entities; precisions relatively."""
    assert one.mean.shape == other.mean.shape
    assert one.precision.shape == other.precision.shape
    assert distance(one.mean.ravel(), other.mean.ravel(), H) < within
    root = np.sqrt(one.P.diagonal())
    scale = root[..., :, None] * root[..., None, :] if one.is_full else root**2
    assert_allclose(one.precision / scale, other.precision / scale, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shared", [False, True], ids=["a prior each", "one prior"])
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_as_jointly(kind, d, shared):
    made = lone(1, kind, d=d, shared=shared)
    alone, jointly = separately(made), made.solved(tolerance=1e-9)
    w, H = optimum(made)
    assert alone.converged
    assert jointly.converged
    members = np.arange(len(SIZES))
    one, other = alone.posterior(0, members), jointly.posterior(0)
    assert one.is_full == (kind == "full")
    assert_same(one, other, H)
    assert distance(one.mean.ravel(), w, H) < 1e-8
    scale = np.sqrt(np.diag(H)).reshape(one.mean.shape)
    scale = scale[:, :, None] * scale[:, None, :] if one.is_full else scale**2
    expected = kept_precisions(H, made.effects[0], 0, kind)
    assert_allclose(one.precision / scale, expected / scale, rtol=0, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(0, 15), min_size=2, max_size=8),
    kind=st.sampled_from(KINDS),
    shared=st.booleans(),
)
def test_alone_is_as_jointly_whatever_the_sizes(seed, sizes, kind, shared):
    made = lone(seed, kind, sizes=sizes, shared=shared)
    alone, jointly = separately(made), made.solved(tolerance=1e-9)
    _, P, rows = made.stacked()
    w = alone.posterior(0, np.arange(len(sizes))).mean.ravel()
    assert_same(alone.posterior(0, np.arange(len(sizes))), jointly.posterior(0), P + information(w, rows))


@pytest.mark.parametrize("shared", [False, True], ids=["a prior each", "one prior"])
@pytest.mark.parametrize("kind", KINDS)
def test_entities_without_rows_stay_at_their_prior(kind, shared):
    made = lone(2, kind, shared=shared)
    alone, prior = separately(made), made.effects[0].prior
    for e in (1, 6):
        after = alone.posterior(0, np.array([e]))
        before = prior.at(slice(0, 1) if shared else slice(e, e + 1))
        assert_allclose(after.mean, before.mean, rtol=1e-11)
        assert_allclose(after.precision, before.precision, rtol=1e-11)
        assert alone.decrements[0][e] == 0.0


def test_rows_of_nobody_say_nothing():
    made = lone(3, "full")
    stranger = made.effects[0].entity < 0
    changed = dataclasses.replace(made.rows, y=np.where(stranger, 1.0 - made.rows.y, made.rows.y))
    members = np.arange(len(SIZES))
    one = separately(made).posterior(0, members)
    other = separately(World(made.effects, changed)).posterior(0, members)
    assert_array_equal(other.mean, one.mean)
    assert_array_equal(other.precision, one.precision)


def test_it_tells_of_itself_as_a_joint_solution_does():
    made = lone(4, "full")
    alone, jointly = separately(made), made.solved(tolerance=1e-9)
    assert [p.tolist() for p in alone.pieces(0)] == [list(range(8))]
    assert [d.shape for d in alone.decrements] == [d.shape for d in jointly.decrements] == [(8,)]
    assert alone.decrement <= 1e-9
    assert_allclose(alone.decrement, np.sqrt(np.sum(alone.decrements[0] ** 2)), rtol=1e-14)
    assert alone.products == 0
    assert alone.steps == alone.info.steps.max() > 0
    whole = alone.posterior(0, np.arange(8))
    some = alone.posterior(0, np.array([7, 2]))
    assert_array_equal(some.mean, whole.mean[[7, 2]])
    assert_array_equal(some.precision, whole.precision[[7, 2]])


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tolerance_is_that_of_all_entities_together(kind, tolerance):
    made = lone(5, kind, sizes=[30] * 7)
    alone = separately(made, tolerance)
    w, H = optimum(made)
    left = distance(alone.posterior(0, np.arange(7)).mean.ravel(), w, H)
    assert alone.converged
    assert alone.decrement <= tolerance
    assert left < 1.2 * alone.decrement


def test_steps_that_do_not_suffice_are_reported_and_not_raised():
    made = lone(6, "full")
    none, one, enough = (separately(made, 1e-6, steps) for steps in (0, 1, 50))
    assert [s.converged for s in (none, one, enough)] == [False, False, True]
    assert [none.steps, one.steps] == [0, 1]
    assert none.decrement > one.decrement > 1e-6 >= enough.decrement


def test_when_a_block_is_separate():
    narrow, wide = 3, DENSE_WIDTH + 1

    def blocks(kind: str, d: int, sizes: list[int], times: int = 1):
        prior = Posterior(np.zeros((1, d)), np.eye(d)[None] if kind == "full" else np.ones((1, d)))
        entity = np.repeat(np.arange(len(sizes)), sizes)
        X = sparse.csr_array(np.ones((len(entity), d)))
        return [Effect(X, entity, prior, kind, len(sizes)).block(np.ones(len(entity)))] * times

    for kind in KINDS:
        assert is_separate(blocks(kind, narrow, [2, 1]))
        assert is_separate(blocks(kind, DENSE_WIDTH, [2, 1]))
        assert not is_separate(blocks(kind, narrow, [3]))
        assert not is_separate(blocks(kind, narrow, [2, 1], times=2))
        assert not is_separate(blocks(kind, wide, [2, 1]))
