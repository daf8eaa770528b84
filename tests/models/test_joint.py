import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import (
    Rows,
    differences,
    distance,
    gradient,
    information,
    objective,
    relative_difference,
    sigmoid,
)
from numpy.testing import assert_allclose, assert_array_equal
from sample_blocks import KINDS, Effect, World, joined, kept_precisions, optimum, posteriors, world
from scipy import optimize, sparse

from acclimate.arrays import Diagonal, Full, Posterior
from acclimate.models import joint
from acclimate.models.blocks import Block, Design
from acclimate.models.joint import Problem, Solution, solve_joint
from acclimate.models.likelihood import Line, expected_derivatives, loss_values


def assert_optimal(made: World, solution: Solution, within: float = 1e-8) -> np.ndarray:
    """The means are SciPy's; returns the Hessian there."""
    w, H = optimum(made)
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
    for k, effect in enumerate(made.effects):
        posterior, form = solution.posterior(k), (kind, others, others)[k]
        assert_array_equal(posterior.mean, solution.means(k))
        assert_allclose(posterior.precision, kept_precisions(H, effect, first, form), rtol=1e-7, atol=1e-9)
        first += effect.prior.mean.size
    assert [d.shape for d in solution.decrements] == [(1,), (12,), (7,)]
    assert all((d <= 1e-9).all() for d in solution.decrements)


def test_squared_loss_equals_the_closed_form():
    made = world(2)
    made = dataclasses.replace(made, rows=dataclasses.replace(made.rows, y=np.linspace(-3, 5, 300)))
    m, P, rows = made.stacked()
    weighted = rows.weight[:, None] * rows.X
    H = P + weighted.T @ rows.X
    mean = np.linalg.solve(H, P @ m + weighted.T @ (rows.y - rows.offset))
    solution = made.solved(loss="squared", tolerance=1e-10)
    assert_allclose(joined(solution), mean, rtol=0, atol=1e-9)
    assert relative_difference(solution.posterior(0).precision[0], H[:4, :4]) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_the_likelihoods_quadratic_whether_or_not_the_optimum_was_reached(kind):
    """Of an entity's rows ``A = sum s p (1-p) x x'``, and the linear term ``A w - sum s (p - y) x``.

    Of a diagonal form, kept or marginal, it is the diagonal in both: a population is learned coefficient by
    coefficient.
    """
    made = world(3, kind=kind)
    for tolerance in (1e-9, 2.0):
        solution = made.solved(tolerance=tolerance)
        p = sigmoid(made.stacked()[2].X @ joined(solution) + made.rows.offset)
        for k, effect in enumerate(made.effects):
            linear, rows_precision = solution.evidence(k)
            assert linear.shape == effect.prior.mean.shape
            assert isinstance(rows_precision, Full if kind == "full" else Diagonal)
            for e, w in enumerate(solution.means(k)):
                rows = effect.entity == e
                x, s, q = effect.X.toarray()[rows], made.rows.weight[rows], p[rows]
                A = x.T @ ((s * q * (1 - q))[:, None] * x)
                A = A if kind == "full" else np.diag(np.diag(A))
                assert_allclose(rows_precision.full().array[e], A, rtol=1e-9, atol=1e-9)
                assert_allclose(linear[e], A @ w - x.T @ (s * (q - made.rows.y[rows])), rtol=1e-8, atol=1e-8)
    assert solution.decrement > 1e-2  # it was loose indeed


def test_information_is_the_likelihoods_part_of_the_precision():
    made = world(3)
    solution = made.solved(tolerance=1e-9)
    for k, effect in enumerate(made.effects):
        _, rows_precision = solution.evidence(k)
        difference = solution.posterior(k).precision - effect.prior.precision
        assert_allclose(rows_precision.array, difference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [False, True], ids=["a prior each", "one prior"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_of_some_entities_is_that_of_all(kind, shared):
    made = world(12, kind=kind)
    solution = (made.with_shared_priors() if shared else made).solved(tolerance=1e-9)
    for k, members in ((1, np.array([7, 0, 3])), (2, np.array([5])), (1, np.empty(0, np.int64))):
        whole, some = solution.posterior(k), solution.posterior(k, members)
        assert_array_equal(some.mean, whole.mean[members])
        assert_allclose(some.precision, whole.precision[members], rtol=1e-13)
        linear, rows_precision = solution.evidence(k)
        some_linear, some_information = solution.evidence(k, members)
        assert type(some_information) is type(rows_precision)
        assert_allclose(some_linear, linear[members], rtol=1e-12, atol=1e-12)
        assert_allclose(some_information.array, rows_precision.array[members], rtol=1e-13)


def test_pieces_are_all_entities_in_their_order_and_small(monkeypatch):
    solution = world(12, others="diagonal").solved()
    monkeypatch.setattr("acclimate.models.blocks._STRIP_CELLS", 20)
    assert [p.tolist() for p in solution.pieces(0)] == [[0]]
    assert [p.tolist() for p in solution.pieces(1)] == [list(range(12))]
    assert [p.tolist() for p in world(12).solved().pieces(1)] == [[2 * i, 2 * i + 1] for i in range(6)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_prior_for_all_entities_is_that_prior_for_each(kind):
    made = world(13, kind=kind).with_shared_priors()
    solution = made.solved(tolerance=1e-9)
    H = assert_optimal(made, solution)
    first = 0
    for k, effect in enumerate(made.effects):
        expected = kept_precisions(H, effect, first, kind)
        assert_allclose(solution.posterior(k).precision, expected, rtol=1e-7, atol=1e-9)
        first += effect.entities * effect.X.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_intercept_is_kept_in_the_form_of_its_block(kind):
    made = world(14, kind=kind)
    effects = []
    for effect in made.effects:
        first = effect.prior.precision[:, :1, :1] if kind == "full" else effect.prior.precision[:, :1]
        prior = Posterior(effect.prior.mean[:, :1], first)
        effects.append(dataclasses.replace(effect, X=effect.X[:, [0]], prior=prior))
    lone = World(effects, made.rows)
    solution = lone.solved(tolerance=1e-9)
    H = assert_optimal(lone, solution)
    parts = np.split(np.diag(H), [1, 13])
    for k, precision in enumerate(parts):
        posterior, (_, rows_precision) = solution.posterior(k), solution.evidence(k)
        assert posterior.is_full == (kind == "full")
        assert posterior.precision.shape == ((len(precision), 1, 1) if kind == "full" else (len(precision), 1))
        assert_allclose(posterior.precision.ravel(), precision, rtol=1e-8)
        added = precision - effects[k].prior.precision.ravel()
        assert_allclose(rows_precision.full().array.ravel(), added, rtol=1e-7, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(3)), kind=st.sampled_from(KINDS))
def test_the_order_of_blocks_and_of_rows_does_not_matter(seed, order, kind):
    made = world(seed, n=120, kind=kind)
    rows = np.random.default_rng(seed).permutation(120)
    shuffled = [effect.taken(rows) for effect in made.effects]
    moved = World([shuffled[k] for k in order], made.rows.taken(rows))
    one, other = made.solved(tolerance=1e-9), moved.solved(tolerance=1e-9)
    back = [other.posterior(order.index(k)) for k in range(3)]
    _, P, stacked = made.stacked()
    means = np.concatenate([p.mean.ravel() for p in back])
    assert distance(joined(one), means, P + information(joined(one), stacked)) < 1e-8
    for here, there in zip(posteriors(one), back, strict=True):
        assert_allclose(there.precision, here.precision, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("kind", "seed"), [("full", 9), ("diagonal", 6), ("marginal", 8)])
def test_a_weight_counts_a_row_so_often_wherever_the_search_stops(kind, seed):
    """Not only at the optimum: a row of weight 3 and three rows are searched along one path."""
    made, times = world(seed, kind=kind), np.arange(300) % 4
    skewed = [effect.mapped(lambda X: X**3) for effect in made.effects]
    heavy = World(skewed, dataclasses.replace(made.rows, weight=times.astype(float)))
    rows = np.repeat(np.arange(300), times)
    many = World(
        [effect.taken(rows) for effect in skewed],
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
    away = [10.0 * rng.normal(size=effect.prior.mean.shape) for effect in made.effects]
    wrong = 1e4 * solution.curvature
    w, H = optimum(made)
    for options in ({"start": away}, {"curvature": wrong}, {"start": away, "curvature": wrong}):
        other = made.solved(tolerance=1e-9, **options)
        assert other.converged
        assert distance(joined(other), w, H) < 1e-8
    # It is used: a first direction takes more products with a wrong one.
    lengths = [made.solved(max_steps=0, curvature=c).products for c in (None, solution.curvature, wrong)]
    assert lengths[2] > max(lengths[:2])
    means = [solution.means(k) for k in range(3)]
    again = made.solved(tolerance=1e-9, start=means, curvature=solution.curvature)
    assert again.steps == 0


def test_entities_and_blocks_without_rows_stay_at_their_prior():
    made = world(5)
    user, video = made.effects[1], made.effects[2]
    idle = user.entity == 3
    effects = [
        made.effects[0],
        dataclasses.replace(user, entity=np.where(idle, -1, user.entity)),
        dataclasses.replace(video, entity=np.full(300, -1)),
    ]
    changed = World(effects, made.rows)
    solution = changed.solved(tolerance=1e-9)
    assert_optimal(changed, solution)
    users, videos = solution.posterior(1), solution.posterior(2)
    assert_allclose(users.mean[3], user.prior.mean[3], rtol=1e-12)
    assert_allclose(users.precision[3], user.prior.precision[3], rtol=1e-12)
    assert_allclose(videos.mean, video.prior.mean, rtol=1e-12)
    assert_allclose(videos.precision, video.prior.precision, rtol=1e-12)


def test_a_block_of_one_entity_may_leave_rows_out():
    made = world(6)
    some = dataclasses.replace(made.effects[0], entity=np.where(np.arange(300) < 200, 0, -1))
    changed = World([some, made.effects[1]], made.rows)
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
    effects = made.effects
    if hard == "feature":
        scale = np.where(np.arange(300) % 10 == 0, 1e4, 1.0)[:, None]
        effects = [effect.mapped(lambda X: X * scale) for effect in effects]
    made = World(effects, changed)
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
    made = World([effect.mapped(lambda X: 100.0 * X) for effect in made.effects], made.rows)
    solution = made.solved(tolerance=1e-8)
    assert_optimal(made, solution, within=3e-8)
    assert solution.products < 800


def test_a_gram_matrix_is_summed_over_strips(monkeypatch):
    made = world(11)
    whole_precision = made.solved(tolerance=1e-9).posterior(0).precision
    monkeypatch.setattr("acclimate.models.blocks._STRIP_CELLS", 4 * 37)
    strips = made.solved(tolerance=1e-9)
    assert_allclose(strips.posterior(0).precision, whole_precision, rtol=1e-9)


def overlapping(weak: float) -> World:
    """Five users of 1000 rows and a fixed effect of the same coefficients: only their sums are well known."""
    rng = np.random.default_rng(8)
    user, X = np.repeat(np.arange(5), 1000), np.column_stack([np.ones(5000), rng.normal(size=5000)])
    y = (rng.random(5000) < sigmoid(1 + rng.normal(size=5)[user])).astype(np.float64)
    fixed = Posterior(np.zeros((1, 2)), 0.01 * weak * np.eye(2)[None])
    users = Posterior(np.zeros((5, 2)), np.tile(weak * np.eye(2), (5, 1, 1)))
    design = sparse.csr_array(X)
    effects = [Effect(design, np.zeros(5000, np.int64), fixed, "full"), Effect(design, user, users, "full")]
    return World(effects, Rows(X[:, :0], y, np.zeros(5000), np.ones(5000)))


@pytest.mark.parametrize("weak", [1.0, 0.1])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_a_reported_decrement_is_the_distance_left(tolerance, weak):
    made = overlapping(weak)
    solution = made.solved(tolerance=tolerance)
    left = distance(joined(solution), *optimum(made))
    assert solution.converged
    assert solution.decrement <= tolerance
    assert left < 1.2 * solution.decrement


@pytest.mark.parametrize("kind", KINDS)
def test_a_stale_curvature_does_not_pass_for_having_arrived(kind):
    """The direction that it leads to all but ignores an entity, whose gradient is a fiftieth of another's.

    One entity has two rows of weight 2e8 and lies a two-hundredth of a standard deviation off, the other four rows
    of weight 1, and lies a whole one off: conjugate gradients stop at the former.
    """
    entity, weight = np.repeat([0, 1], [2, 4]), np.array([2e8 + 50.0, 2e8 - 50.0, 1.0, 1.0, 1.0, 1.0])
    rows = Rows(np.empty((6, 0)), np.array([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]), np.zeros(6), weight)
    P = np.full((2, 1), 0.1)
    prior = Posterior(np.zeros((2, 1)), P[..., None] if kind == "full" else P)
    made = World([Effect(sparse.csr_array(np.ones((6, 1))), entity, prior, kind)], rows)
    stale, tolerance = np.full(6, 1e8), 1e-2

    problem = Problem(made.blocks, rows.y, rows.weight, "logistic")
    gradient_there, curvature = problem.derivatives(np.zeros(2), np.zeros(6))
    direction, *_ = problem.newton_direction(gradient_there, curvature, problem.hessians(stale))
    assert np.sqrt(-gradient_there @ direction) < tolerance  # what the direction alone would say

    unmoved = made.solved(tolerance=tolerance, curvature=stale, max_steps=0)
    assert not unmoved.converged
    assert unmoved.decrements[0][1] > 0.5
    solution = made.solved(tolerance=tolerance, curvature=stale)
    assert solution.converged
    assert solution.steps > 0
    assert distance(joined(solution), *optimum(made)) < 1.2 * solution.decrement <= 1.2 * tolerance
    assert solution.decrements[0].max() <= tolerance


def test_steps_that_do_not_suffice_are_reported_and_not_raised():
    made = world(9, weak=0.01)
    none, one, enough = (made.solved(max_steps=steps, tolerance=1e-6) for steps in (0, 1, 50))
    assert [s.converged for s in (none, one, enough)] == [False, False, True]
    assert [none.steps, one.steps] == [0, 1]
    assert none.decrement > one.decrement > 1e-6 >= enough.decrement
    assert not all((d <= 1e-6).all() for d in one.decrements)
    assert_allclose(joined(none), np.concatenate([e.prior.mean.ravel() for e in made.effects]), rtol=1e-15)


@pytest.mark.parametrize("shared", [False, True], ids=["a prior each", "one prior"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_entitys_decrement_is_how_far_it_would_move_alone(kind, shared):
    """``sqrt(g' H^-1 g)`` of its part of the gradient and of the Hessian; of a diagonal form, of its diagonal."""
    made = world(15, kind=kind)
    made = made.with_shared_priors() if shared else made
    solution = made.solved(tolerance=1e-6, max_steps=2)
    m, P, rows = made.stacked()
    w = joined(solution)
    g, H = gradient(w, m, P, rows), P + information(w, rows)
    first = 0
    for effect, decrements in zip(made.effects, solution.decrements, strict=True):
        count, d = effect.entities, effect.X.shape[1]
        for e in range(count):
            part = slice(first + e * d, first + (e + 1) * d)
            alone = H[part, part] if kind != "diagonal" else np.diag(np.diag(H[part, part]))
            assert_allclose(decrements[e], np.sqrt(g[part] @ np.linalg.solve(alone, g[part])), rtol=1e-6)
        first += count * d
    assert solution.decrement > 1e-4  # there was some way to go


def test_a_shifted_feature_of_users_and_fixed_effect_is_worked_on_in_standardised_coordinates():
    """Years as a feature of both, priors given around 2022: the optimum is that of years since then."""
    made = overlapping(1.0)
    shift = np.array([[1.0, 2022.0], [0.0, 0.5]])  # standardised coefficients of raw ones
    raw = sparse.csr_array(made.effects[0].X.toarray() * [1.0, 0.5] + [0.0, 2022.0])
    priors = [Posterior(e.prior.mean, shift.T @ e.prior.precision @ shift) for e in made.effects]
    effects = [dataclasses.replace(e, X=raw, prior=p) for e, p in zip(made.effects, priors, strict=True)]
    solution = World(effects, made.rows).solved(tolerance=1e-9)
    w, H = optimum(made)
    inside = np.concatenate([solution.means(k) @ shift.T for k in range(2)]).ravel()
    assert solution.converged
    assert distance(inside, w, H) < 1e-7


# --- the problem itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_gradient_and_hessian_match_finite_differences(kind):
    made = world(10, n=60, kind=kind)
    blocks = [effect.unscaled() for effect in made.effects]
    problem = Problem(blocks, made.rows.y, made.rows.weight, "logistic")
    m, P, stacked = made.stacked()
    w = m + 0.5 * np.random.default_rng(1).normal(size=len(m))

    def slope(v):
        return problem.derivatives(v, problem.margin(v) + made.rows.offset)[0]

    first, curvature = problem.derivatives(w, problem.margin(w) + made.rows.offset)
    assert_allclose(first, differences(lambda v: objective(v, m, P, stacked), w), rtol=0, atol=1e-6)
    bend = differences(slope, w)
    hessian = np.array([problem.gathered(curvature * problem.margin(e), e) for e in np.eye(len(w))])
    assert_allclose(hessian, bend, rtol=0, atol=1e-7)
    pulls = np.array([problem.pull(e) for e in np.eye(len(w))])
    assert_allclose(pulls, P, rtol=0, atol=1e-14)
    first_column = 0
    for effect, hessians in zip(made.effects, problem.hessians(curvature), strict=True):
        expected = Posterior(effect.prior.mean, kept_precisions(bend, effect, first_column, kind)).P.full()
        count, d = effect.prior.mean.shape
        inverses = np.stack([hessians.solve(np.tile(e, (count, 1))) for e in np.eye(d)], axis=-1)
        assert_allclose(np.linalg.inv(inverses), expected.array, rtol=0, atol=1e-7)
        first_column += effect.prior.mean.size


def test_photons_prior_fixture():
    """Photon-ML: coefficients 1, prior mean 2, prior variance 4, incremental weight 10, 4 features.

    There the weight multiplies the prior precision. Its test expects a penalty of 5, a gradient of -2.5 and a
    Hessian of 2.5 a coefficient.
    """
    prior = Posterior(np.full((1, 4), 2.0), np.full((1, 4), 10 / 4))
    none = Effect(sparse.csr_array((1, 4)), np.zeros(1, np.int64), prior, "diagonal").unscaled()
    problem = Problem([none], np.zeros(1), np.zeros(1), "logistic")
    gradient_at_1, curvature = problem.derivatives(np.ones(4), np.zeros(1))
    assert_array_equal(gradient_at_1, np.full(4, -2.5))
    assert_array_equal(problem.hessians(curvature)[0].solve(np.ones((1, 4))), np.full((1, 4), 1 / 2.5))
    step = -np.ones(4)  # from the prior mean, where there is no penalty, to 1
    pull = problem.pull(step)
    start = problem.away(np.full(4, 2.0))
    rows = np.zeros((1, 1))
    line = Line("logistic", rows, rows, rows, rows, np.array([pull @ start]), np.array([pull @ step]))
    assert_array_equal(line.rise(np.ones(1)), [5.0])


def test_products_are_those_of_all_steps(monkeypatch):
    taken: list[int] = []
    direction = Problem.newton_direction

    def counting(*values):
        found = direction(*values)
        taken.append(found[1])
        return found

    monkeypatch.setattr(Problem, "newton_direction", counting)
    solution = world(1).solved(tolerance=1e-9)
    assert len(taken) == solution.steps + 1 > 2
    assert solution.products == sum(taken) > max(taken)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.one_of(st.floats(0.0, 0.5), st.floats(0.1, 8.0)),
    st.sampled_from(["logistic", "poisson"]),
)
def test_what_is_certain_of_a_whole_step_holds(seed, reach, loss):
    """A step that descends for certain does, and leaves no more than is said."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(200, 4)), rng.integers(0, 2, 200).astype(np.float64)
    prior = Posterior(np.zeros((1, 4)), 0.1 * np.ones((1, 4)))
    ones = np.ones(200)
    design = Design.of(sparse.csr_array(X), None, 1, weight=ones, centre=False)
    problem = Problem([Block(design, prior, "diagonal")], y, ones, loss)
    optimum = solve_joint(problem.blocks, y, np.zeros(200), ones, loss=loss, tolerance=1e-6)
    w = problem.start([optimum.means(0)]) + reach * rng.normal(size=4) / 4.0
    z = problem.margin(w)
    g, curvature = problem.derivatives(w, z)
    H = design.information(curvature, full=True).array[0] + 0.1 * np.eye(4)
    newton = -np.linalg.solve(H, g)
    direction = newton + 0.1 * np.linalg.norm(newton) * rng.normal(size=4)
    direction *= -(g @ direction) / (direction @ H @ direction)  # as of conjugate gradients that stop early
    missed = direction - newton
    change = problem.margin(direction)
    decrement = float(np.sqrt(-g @ direction))

    def value(w):
        z = problem.margin(w)
        return loss_values(loss, y, z).sum() + 0.05 * (w @ w)

    if problem.descends(direction, change, curvature, decrement):
        assert value(w + direction) <= value(w) + 1e-9 * abs(value(w))
    after, curvature_after = problem.derivatives(w + direction, z + change)
    H_after = design.information(curvature_after, full=True).array[0] + 0.1 * np.eye(4)
    left = np.sqrt(after @ np.linalg.solve(H_after, after))
    assert left <= 1.0001 * joint._left(curvature, change, np.sqrt(missed @ H @ missed)) + 1e-9


def test_a_whole_step_is_certain_though_a_few_margins_move_far():
    X = np.vstack([np.eye(1), *[[[0.01]]] * 50_000])
    y = (np.arange(50_001) % 2).astype(np.float64)
    design = Design.of(sparse.csr_array(X), None, 1, weight=np.ones(len(y)), centre=False)
    problem = Problem(
        [Block(design, Posterior(np.zeros((1, 1)), np.ones((1, 1))), "diagonal")], y, np.ones(len(y)), "logistic"
    )
    curvature, direction = np.full(len(y), 0.25), np.ones(1)
    direction *= 3.0 / problem.margin(direction).max()
    change = problem.margin(direction)
    square = float(direction @ problem.curved(curvature, direction))
    assert (change > 1.5).sum() == 1
    assert problem.descends(direction, change, curvature, square**0.5)
    for times in (2, 4):  # 6 and 12
        assert not problem.descends(times * direction, times * change, curvature, times * square**0.5)


@pytest.mark.parametrize("weak", [1.0, 0.01])
def test_with_variances_it_is_where_the_gradient_of_the_expected_loss_vanishes(weak):
    made = world(5, weak=weak)
    variance = np.random.default_rng(5).uniform(0.0, 4.0, len(made.rows.y))
    solution = made.solved(variance=variance, tolerance=1e-10)
    assert solution.converged
    plain = made.solved(tolerance=1e-10)
    assert np.abs(joined(solution) - joined(plain)).max() > 0.01
    mean, precision, rows = made.stacked()

    def gradient_at(w):
        slope, _ = expected_derivatives("logistic", rows.y, rows.X @ w + rows.offset, variance)
        return rows.X.T @ (rows.weight * slope) + precision @ (w - mean)

    assert np.abs(gradient_at(joined(solution))).max() < 1e-7
    assert optimize.root(gradient_at, joined(solution), method="hybr").success
    assert_allclose(
        solution.slope,
        rows.weight
        * expected_derivatives("logistic", rows.y, rows.X @ joined(solution) + rows.offset, variance)[0],
        atol=1e-12,
    )


def test_a_row_of_great_loss_drowns_no_other():
    rng = np.random.default_rng(0)
    X, entity = rng.normal(size=(400, 2)), np.repeat(np.arange(20), 20)
    y = X.sum(axis=1) + rng.normal(size=400)
    y[0] = 1e12
    design = Design.of(sparse.csr_array(X), entity, 20, weight=np.ones(400), centre=False)
    prior = Posterior(np.zeros((1, 2)), np.eye(2)[None])
    solution = solve_joint([Block(design, prior, "full")], y, np.zeros(400), np.ones(400), loss="squared")
    assert solution.decrements[0][1:].max() < 1e-3
