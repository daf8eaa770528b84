import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import (
    Rows,
    apart,
    differences,
    distance,
    gradient,
    information,
    minimiser,
    objective,
    random_precision,
    sigmoid,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.artifacts import Posterior
from acclimate.models.joint import Block, _Problem, solve_joint
from acclimate.models.likelihood import Line

KINDS = ["full", "diagonal", "marginal"]


@dataclasses.dataclass(frozen=True)
class World:
    """Blocks over the same rows; ``rows.X`` stays empty."""

    blocks: list[Block]
    rows: Rows

    def solved(self, **options):
        return solve_joint(self.blocks, self.rows.y, self.rows.offset, self.rows.weight, **options)

    def stacked(self) -> tuple[np.ndarray, np.ndarray, Rows]:
        """The same problem as one dense block: prior mean ``(D,)``, precision ``(D, D)``, rows."""
        mean = np.concatenate([b.prior.mean.ravel() for b in self.blocks])
        precision = np.zeros((len(mean), len(mean)))
        columns, first = [], 0
        for b in self.blocks:
            count, d = b.prior.mean.shape
            X = np.zeros((len(b.entity), count, d))
            for i, e in enumerate(b.entity):
                if e >= 0:
                    X[i, e] = b.X.toarray()[i]
            columns.append(X.reshape(len(X), -1))
            for P in b.prior.precision:
                precision[first : first + d, first : first + d] = P if b.prior.is_full else np.diag(P)
                first += d
        return mean, precision, dataclasses.replace(self.rows, X=np.hstack(columns))


def world(seed: int, *, n: int = 300, kind: str = "full", others: str | None = None, weak: float = 1.0) -> World:
    """A fixed effect of 4 coefficients, 12 users of 3 and 7 videos of 2; some rows have no video."""
    rng = np.random.default_rng(seed)
    user, video = rng.integers(0, 12, n), rng.integers(-1, 7, n)
    designs = [rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.7) for d in (4, 3, 2)]
    for X in designs:
        X[:, 0] = 1.0
    entities, kinds = (np.zeros(n, np.int64), user, video), (kind, others or kind, others or kind)
    blocks = []
    for X, entity, count, form in zip(designs, entities, (1, 12, 7), kinds, strict=True):
        d = X.shape[1]
        precision = np.array([random_precision(seed + e, d, weak) for e in range(count)])
        kept = precision if form == "full" else np.diagonal(precision, axis1=1, axis2=2).copy()
        prior = Posterior(0.3 * rng.normal(size=(count, d)), kept)
        blocks.append(Block(sparse.csr_array(X), entity, prior, "marginal" if form == "marginal" else "diagonal"))
    z = designs[0] @ rng.normal(size=4) + rng.normal(size=12)[user] + rng.normal(size=8)[video]
    y = (rng.random(n) < sigmoid(z)).astype(np.float64)
    return World(blocks, Rows(np.empty((n, 0)), y, 0.5 * rng.normal(size=n), rng.uniform(0.2, 2.0, n)))


def joined(solution) -> np.ndarray:
    return np.concatenate([p.mean.ravel() for p in solution.posteriors])


def own_precisions(H: np.ndarray, block: Block, first: int, kind: str) -> np.ndarray:
    """What a block keeps of the Hessian of all: each entity's own part, in the block's form."""
    count, d = block.prior.mean.shape
    parts = [H[i : i + d, i : i + d] for i in range(first, first + count * d, d)]
    keep = {"full": lambda h: h, "diagonal": np.diag, "marginal": lambda h: 1.0 / np.diag(np.linalg.inv(h))}
    return np.array([keep[kind](h) for h in parts])


def assert_optimal(world: World, solution, within: float = 1e-8) -> np.ndarray:
    """The means are SciPy's for the stacked problem; returns its Hessian there."""
    m, P, rows = world.stacked()
    w = minimiser(m, P, rows)
    H = P + information(w, rows)
    assert solution.converged
    assert distance(joined(solution), w, H) < within
    return H


@pytest.mark.parametrize("weak", [1.0, 0.01])
@pytest.mark.parametrize("others", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_is_scipys_minimiser_of_the_stacked_problem(kind, others, weak):
    made = world(1, kind=kind, others=others, weak=weak)
    solution = made.solved(tolerance=1e-9)
    H = assert_optimal(made, solution)
    first = 0
    for block, posterior, form in zip(made.blocks, solution.posteriors, (kind, others, others), strict=True):
        assert_allclose(posterior.precision, own_precisions(H, block, first, form), rtol=1e-7, atol=1e-9)
        first += block.prior.mean.size
    assert [s.shape for s in solution.settled] == [(1,), (12,), (7,)]
    assert all(s.all() for s in solution.settled)


def test_squared_loss_equals_the_closed_form():
    made = world(2)
    made = dataclasses.replace(made, rows=dataclasses.replace(made.rows, y=np.linspace(-3, 5, 300)))
    m, P, rows = made.stacked()
    weighted = rows.weight[:, None] * rows.X
    H = P + weighted.T @ rows.X
    mean = np.linalg.solve(H, P @ m + weighted.T @ (rows.y - rows.offset))
    solution = made.solved(loss="squared", tolerance=1e-10)
    assert_allclose(joined(solution), mean, rtol=0, atol=1e-9)
    assert apart(solution.posteriors[0].precision[0], H[:4, :4]) < 1e-9


def test_information_is_the_likelihoods_part_of_the_precision():
    made = world(3)
    solution = made.solved(tolerance=1e-9)
    for block, posterior, found in zip(made.blocks, solution.posteriors, solution.information, strict=True):
        assert_allclose(found, posterior.precision - block.prior.precision, rtol=1e-9, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(3)), kind=st.sampled_from(KINDS))
def test_the_order_of_blocks_and_of_rows_does_not_matter(seed, order, kind):
    made = world(seed, n=120, kind=kind)
    rows = np.random.default_rng(seed).permutation(120)
    shuffled = [dataclasses.replace(b, X=b.X[rows], entity=b.entity[rows]) for b in made.blocks]
    moved = World([shuffled[k] for k in order], made.rows.taken(rows))
    one, other = made.solved(tolerance=1e-9), moved.solved(tolerance=1e-9)
    back = [other.posteriors[order.index(k)] for k in range(3)]
    _, P, stacked = made.stacked()
    means = np.concatenate([p.mean.ravel() for p in back])
    assert distance(joined(one), means, P + information(joined(one), stacked)) < 1e-8
    for here, there in zip(one.posteriors, back, strict=True):
        assert_allclose(there.precision, here.precision, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("kind", "seed"), [("full", 9), ("diagonal", 6), ("marginal", 8)])
def test_a_weight_counts_a_row_so_often_wherever_the_search_stops(kind, seed):
    """Not only at the optimum: a row of weight 3 and three rows are searched along one path."""
    made, times = world(seed, kind=kind), np.arange(300) % 4
    skewed = [dataclasses.replace(b, X=sparse.csr_array(b.X.toarray() ** 3)) for b in made.blocks]
    heavy = World(skewed, dataclasses.replace(made.rows, weight=times.astype(float)))
    rows = np.repeat(np.arange(300), times)
    many = World(
        [dataclasses.replace(b, X=b.X[rows], entity=b.entity[rows]) for b in skewed],
        dataclasses.replace(made.rows, weight=np.ones(300)).taken(rows),
    )
    one, other = heavy.solved(tolerance=0.5), many.solved(tolerance=0.5)
    assert one.decrement > 1e-3
    assert_allclose(joined(one), joined(other), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_where_to_start_and_what_to_precondition_with_do_not_change_the_optimum(kind):
    made = world(4, kind=kind, weak=0.1)
    solution = made.solved(tolerance=1e-10)
    rng = np.random.default_rng(0)
    away = [10.0 * rng.normal(size=p.mean.shape) for p in solution.posteriors]
    wrong = [1e4 * i for i in solution.information]
    for options in ({"start": away}, {"information": wrong}, {"start": away, "information": wrong}):
        assert_optimal(made, made.solved(tolerance=1e-9, **options))
    again = made.solved(
        tolerance=1e-9, start=[p.mean for p in solution.posteriors], information=solution.information
    )
    assert again.steps == 0


def test_entities_and_blocks_without_rows_stay_at_their_prior():
    made = world(5)
    user, video = made.blocks[1], made.blocks[2]
    idle = user.entity == 3
    blocks = [
        made.blocks[0],
        Block(user.X, np.where(idle, -1, user.entity), user.prior),
        Block(video.X, np.full(300, -1), video.prior),
    ]
    changed = World(blocks, made.rows)
    solution = changed.solved(tolerance=1e-9)
    assert_optimal(changed, solution)
    assert_allclose(solution.posteriors[1].mean[3], user.prior.mean[3], rtol=1e-12)
    assert_allclose(solution.posteriors[1].precision[3], user.prior.precision[3], rtol=1e-12)
    assert_allclose(solution.posteriors[2].mean, video.prior.mean, rtol=1e-12)
    assert_allclose(solution.posteriors[2].precision, video.prior.precision, rtol=1e-12)


def test_a_block_of_one_entity_may_leave_rows_out():
    made = world(6)
    part = Block(made.blocks[0].X, np.where(np.arange(300) < 200, 0, -1), made.blocks[0].prior)
    changed = World([part, made.blocks[1]], made.rows)
    assert_optimal(changed, changed.solved(tolerance=1e-9))


@pytest.mark.parametrize("hard", ["offset", "feature", "all 0", "all 1", "wrong"])
@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_margins_of_1e4_and_single_classes_converge(kind, hard):
    made = world(7, kind=kind, weak=0.05)
    rows = made.rows
    changed = {
        "offset": dataclasses.replace(rows, offset=2e4 * rows.offset),
        "all 0": dataclasses.replace(rows, y=np.zeros(300)),
        "all 1": dataclasses.replace(rows, y=np.ones(300)),
        "wrong": dataclasses.replace(rows, offset=1e4 * (1 - 2 * rows.y)),
    }.get(hard, rows)
    blocks = made.blocks
    if hard == "feature":
        scale = np.where(np.arange(300) % 10 == 0, 1e4, 1.0)[:, None]
        blocks = [dataclasses.replace(b, X=sparse.csr_array(b.X.toarray() * scale)) for b in blocks]
    made = World(blocks, changed)
    # Some rows of features of 1e4 make the loss a hinge: 42 steps even of Newton's method proper.
    solution = made.solved(tolerance=1e-8, max_steps=100)
    m, P, stacked = made.stacked()
    left = gradient(joined(solution), m, P, stacked)
    H = P + information(joined(solution), stacked)
    assert solution.converged
    assert np.sqrt(left @ np.linalg.solve(H, left)) < 3e-8


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_a_preconditioner_that_has_grown_stale_is_renewed(kind):
    """Features of 100 leave the priors so weak that the curvature at the end is nothing like that at the start."""
    made = world(7, kind=kind, weak=0.05)
    made = World([dataclasses.replace(b, X=sparse.csr_array(100.0 * b.X)) for b in made.blocks], made.rows)
    solution = made.solved(tolerance=1e-8)
    assert_optimal(made, solution, within=3e-8)
    assert solution.products < 800


def test_a_gram_matrix_is_summed_over_strips(monkeypatch):
    made = world(11)
    whole = made.solved(tolerance=1e-9)
    monkeypatch.setattr("acclimate.models.joint._GRAM_CELLS", 4 * 37)
    strips = made.solved(tolerance=1e-9)
    assert_allclose(strips.posteriors[0].precision, whole.posteriors[0].precision, rtol=1e-9)


def overlapping(weak: float) -> World:
    """Five users of 1000 rows and a fixed effect of the same coefficients: only their sums are well known."""
    rng = np.random.default_rng(8)
    user, X = np.repeat(np.arange(5), 1000), np.column_stack([np.ones(5000), rng.normal(size=5000)])
    y = (rng.random(5000) < sigmoid(1 + rng.normal(size=5)[user])).astype(np.float64)
    fixed = Posterior(np.zeros((1, 2)), 0.01 * weak * np.eye(2)[None])
    users = Posterior(np.zeros((5, 2)), np.tile(weak * np.eye(2), (5, 1, 1)))
    design = sparse.csr_array(X)
    blocks = [Block(design, np.zeros(5000, np.int64), fixed), Block(design, user, users)]
    return World(blocks, Rows(X[:, :0], y, np.zeros(5000), np.ones(5000)))


@pytest.mark.parametrize("weak", [1.0, 0.1])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_a_reported_decrement_is_the_distance_left(tolerance, weak):
    made = overlapping(weak)
    solution = made.solved(tolerance=tolerance)
    m, P, rows = made.stacked()
    w = minimiser(m, P, rows)
    left = distance(joined(solution), w, P + information(w, rows))
    assert solution.converged
    assert solution.decrement <= tolerance
    assert left < 1.2 * solution.decrement


def test_steps_that_do_not_suffice_are_reported_and_not_raised():
    made = world(9, weak=0.01)
    none, one, enough = (made.solved(max_steps=steps, tolerance=1e-6) for steps in (0, 1, 50))
    assert [s.converged for s in (none, one, enough)] == [False, False, True]
    assert [none.steps, one.steps] == [0, 1]
    assert none.decrement > one.decrement > 1e-6 >= enough.decrement
    assert not all(s.all() for s in one.settled)
    assert_allclose(joined(none), np.concatenate([b.prior.mean.ravel() for b in made.blocks]), rtol=1e-15)


def test_a_shifted_feature_of_users_and_fixed_effect_is_worked_on_in_standardised_coordinates():
    """Years as a feature of both, priors given around 2022: the optimum is that of years since then."""
    made = overlapping(1.0)
    shift = np.array([[1.0, 2022.0], [0.0, 0.5]])  # standardised coefficients of raw ones
    raw = made.blocks[0].X.toarray() * [1.0, 0.5] + [0.0, 2022.0]
    blocks = [
        Block(sparse.csr_array(raw), b.entity, Posterior(b.prior.mean, shift.T @ b.prior.precision @ shift))
        for b in made.blocks
    ]
    solution = World(blocks, made.rows).solved(tolerance=1e-9)
    m, P, rows = made.stacked()
    w = minimiser(m, P, rows)
    inside = np.concatenate([p.mean @ shift.T for p in solution.posteriors]).ravel()
    assert solution.converged
    assert distance(inside, w, P + information(w, rows)) < 1e-7


# --- the problem itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_gradient_and_hessian_match_finite_differences(kind):
    made = world(10, n=60, kind=kind)
    problem = _Problem(made.blocks, made.rows.y, made.rows.weight, "logistic")
    m, P, stacked = made.stacked()
    w = m + 0.5 * np.random.default_rng(1).normal(size=len(m))

    def slope(v):
        return problem.derivatives(v, problem.margin(v) + made.rows.offset)[0]

    first, curvature = problem.derivatives(w, problem.margin(w) + made.rows.offset)
    assert_allclose(first, differences(lambda v: objective(v, m, P, stacked), w), rtol=0, atol=1e-6)
    bend = differences(slope, w)
    hessian = np.array([problem.pullback(curvature * problem.margin(e)) + problem.pull(e) for e in np.eye(len(w))])
    assert_allclose(hessian, bend, rtol=0, atol=1e-7)
    first_column = 0
    for block, H in zip(made.blocks, problem.own(problem.information(curvature)).hessians, strict=True):
        assert_allclose(H, own_precisions(bend, block, first_column, kind), rtol=0, atol=1e-7)
        first_column += block.prior.mean.size


def test_photons_prior_fixture():
    """Photon-ML: coefficients 1, prior mean 2, prior variance 4, incremental weight 10, 4 features.

    There the weight multiplies the prior precision. Its test expects a penalty of 5, a gradient of -2.5 and a
    Hessian of 2.5 a coefficient.
    """
    prior = Posterior(np.full((1, 4), 2.0), np.full((1, 4), 10 / 4))
    none = Block(sparse.csr_array((1, 4)), np.zeros(1, np.int64), prior)
    problem = _Problem([none], np.zeros(1), np.zeros(1), "logistic")
    gradient_at_1, curvature = problem.derivatives(np.ones(4), np.zeros(1))
    assert_array_equal(gradient_at_1, np.full(4, -2.5))
    assert_array_equal(problem.own(problem.information(curvature)).hessians[0], np.full((1, 4), 2.5))
    step = -np.ones(4)  # from the prior mean, where there is no penalty, to 1
    pull = problem.pull(step)
    start = problem.away(np.full(4, 2.0))
    rows = np.zeros((1, 1))
    line = Line("logistic", rows, rows, rows, rows, np.array([pull @ start]), np.array([pull @ step]))
    assert_array_equal(line.at(np.ones(1)), [5.0])
