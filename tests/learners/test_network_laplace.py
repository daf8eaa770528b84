"""The posterior of a network: its algebra, its curvature, and what a window leaves untouched."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import START
from sample_networks import DAY_ROWS, SCHEMA, day, net

import acclimate as ac
from acclimate.config import SequentialLaplaceParameters
from acclimate.learners.network.laplace import TABLE, Belief, Curvature, Objective, combined
from acclimate.learners.network.learning import Learning, first_held_out, fitted_temperature
from acclimate.learners.network.rows import read_rows
from acclimate.learners.network.state import Table, unlearned


def belief(seed: int, *, head: bool) -> Belief:
    chance = torch.Generator().manual_seed(seed)
    shapes = {"head.weight": (1, 3), "head.bias": (1,), "table": (4, 2)}
    mean = {name: torch.randn(shape, generator=chance) for name, shape in shapes.items()}
    precision = {name: 0.5 + torch.rand(shape, generator=chance) for name, shape in shapes.items()}
    A = torch.randn(4, 4, generator=chance, dtype=torch.float64)
    return Belief(mean, precision, A @ A.T + torch.eye(4) if head else None)


@pytest.mark.parametrize("head", [False, True])
@settings(deadline=None, max_examples=30)
@given(powers=st.lists(st.floats(0.01, 2.0), min_size=2, max_size=3))
def test_a_product_of_gaussians_has_the_penalty_of_all_but_for_a_constant(head: bool, powers: list[float]) -> None:
    parts = [(c, belief(i, head=head)) for i, c in enumerate(powers)]
    product = combined(parts)
    points = [belief(seed, head=False).mean for seed in (7, 8, 9)]
    apart = [float(product.penalty(w) - sum(c * b.penalty(w) for c, b in parts)) for w in points]
    assert_allclose(apart, apart[0], atol=1e-4)


def test_a_power_of_nothing_is_no_part() -> None:
    one, other = belief(0, head=True), belief(1, head=True)
    assert combined([(1.0, one), (0.0, other)]) is one


def learning(**parameters: object) -> Learning:
    declared = net(**parameters).parameters
    rows, layout = read_rows(day(0), None, tuple(declared.features), "click")
    assert layout is not None
    return Learning(declared, unlearned(declared, SCHEMA, rows, layout), rows)


def objective(task: Learning) -> Objective:
    start = task._initial()
    start[TABLE] = start[TABLE] + 0.3 * torch.randn(start[TABLE].shape, generator=torch.Generator().manual_seed(0))
    return task._objective(range(len(task.batch.rows)), range(0), start, None)


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
@pytest.mark.parametrize("ranker", ["wide-and-deep", "dcn-v2"])
def test_the_curvature_of_all_weights_names_included_is_that_of_a_loop(ranker: str, kind: str) -> None:
    task = learning(ranker=ranker)
    at = objective(task)
    found = at.curvature(at.learn, kind, head=True)
    expected = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in at.weights.items()}
    for i in at.learn:
        row = at.batch.rows.at(np.array([i]))
        z = at.network.logits(at.batch, row, at.weights[TABLE])
        p, y, s = torch.sigmoid(z.detach()), float(row.label[0]), float(row.weight[0])
        c = s * (p * (1 - p) if kind == "ggn" else (p - y) ** 2)
        for name, g in zip(at.weights, torch.autograd.grad(z, list(at.weights.values())), strict=True):
            expected[name] += c.double() * g.double() ** 2
    for name, square in expected.items():
        assert square.sum() > 0
        torch.testing.assert_close(
            found.diagonal[name].double(), square, rtol=1e-4, atol=1e-6 * float(square.max())
        )
    assert found.head is not None
    diagonal = torch.cat([expected["head.weight"].flatten(), expected["head.bias"]])
    torch.testing.assert_close(found.head.diagonal(), diagonal, rtol=1e-4, atol=1e-6)
    assert torch.linalg.eigvalsh(found.head).min() > -1e-6


def test_the_loss_of_all_parts_of_a_batch_is_the_loss_of_the_batch() -> None:
    """What several processes add up."""
    task = learning()
    at = objective(task)
    anchored = Objective(at.network, at.batch, at.learn, at.judge, at.weights, belief_at(at))
    rows = torch.arange(len(at.learn))
    whole = anchored.loss(rows, len(rows))
    parts = sum(anchored.loss(rows[k::3], len(rows)) for k in range(3))
    torch.testing.assert_close(whole, torch.as_tensor(parts))
    assert float(anchored.loss(rows[:0], len(rows)).detach()) == 0.0
    mean = anchored.mean_loss(at.learn)
    penalty = float(belief_at(at).penalty(at.weights).detach()) / len(rows)
    assert_allclose(float(whole.detach()), mean * float(at.batch.rows.weight.mean()) + penalty, rtol=1e-5)


def belief_at(at: Objective) -> Belief:
    return Belief(
        {name: torch.zeros_like(w) for name, w in at.weights.items()},
        {name: torch.full_like(w, 2.0) for name, w in at.weights.items()},
    )


def test_the_posterior_adds_what_was_learned() -> None:
    prior = belief(0, head=True)
    more = Curvature({name: torch.ones_like(p) for name, p in prior.precision.items()}, torch.eye(4).double())
    weights = belief(1, head=False).mean
    posterior = prior.learned(weights, more)
    assert prior.head is not None
    assert posterior.head is not None
    torch.testing.assert_close(posterior.head, prior.head + torch.eye(4))
    for name, weight in weights.items():
        torch.testing.assert_close(posterior.mean[name], weight)
        torch.testing.assert_close(posterior.precision[name], prior.precision[name] + 1.0)
        assert posterior.mean[name].data_ptr() != weight.data_ptr()  # an anchor that would follow holds nothing


# --- a table of names ----------------------------------------------------------------------------------------


def test_new_names_start_at_the_population_of_their_field() -> None:
    mean = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    table = Table(mean, 10.0 + mean)
    grown = table.with_names(np.array([0, 1, 0, 1, 0]))
    assert_array_equal(grown.mean, [[1, 2], [3, 4], [5, 6], [3, 4], [1, 2]])
    assert_array_equal(grown.precision, 10 + grown.mean)
    assert table.rows == 3
    grown.put(np.array([3]), torch.zeros(1, 2), torch.ones(1, 2))
    assert_array_equal(grown.mean[3], [0, 0])


def test_names_that_a_window_does_not_have_stay_as_they_are() -> None:
    model = net().fit(day(0))
    state = model.state
    assert state is not None
    before, names = (state.table.mean.copy(), state.table.precision.copy()), state.layout.index.names
    few = day(1, users=(3, 4), rows=60)
    model.update(few)
    assert model.state is not None
    seen = {f"user={user}" for user in few.table(["user_id"])["user_id"].to_pylist()}
    for row, name in enumerate(names):
        same = all(
            np.array_equal(was[row], now[row])
            for was, now in zip(before, (model.state.table.mean, model.state.table.precision), strict=True)
        )
        if name.startswith("user="):
            assert same == (name not in seen)
        if name.endswith(" is unknown"):
            assert same


def test_the_population_of_a_field_is_that_of_its_names() -> None:
    model = net(embedding_ridge=4.0).fit(day(0))
    state = model.state
    assert state is not None
    users = np.flatnonzero([name.startswith("user=") for name in state.layout.index.names])
    mean, precision = state.table.mean[users].astype(float), state.table.precision[users].astype(float)
    row = state.layout.fields.index("user")
    centre = mean.sum(axis=0) / (len(users) + 2)
    assert_allclose(state.table.mean[row], centre, rtol=1e-5, atol=1e-7)
    ridge = np.r_[1.0, np.full(mean.shape[1] - 1, 4.0)]
    variance = (((mean - centre) ** 2 + 1 / precision).sum(axis=0) + 2 / ridge) / (len(users) + 2)
    assert_allclose(state.table.precision[row], 1 / variance, rtol=1e-5)


# --- what is held out, and how warm it is ----------------------------------------------------------------------


def rows_at(times: list[int], weights: list[float] | None = None) -> ac.Events:
    count = len(times)
    data = {
        "time": [START + t for t in times],
        "user_id": [0] * count,
        "item_id": [0] * count,
        "x": [0.0] * count,
        "click": [0, 1] * count,
    }
    return day(
        0, data={name: values[:count] for name, values in data.items()} | {"weight": weights or [1.0] * count}
    )


@pytest.mark.parametrize(
    ("times", "weights", "share", "first"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], None, 0.2, 8),
        ([1, 2, 3, 4, 5, 6, 7, 8, 8, 8], None, 0.2, 10),  # one instant stays together
        ([1, 1, 1, 2, 2, 2], None, 0.5, 3),
        ([1, 2, 3, 4], [1.0, 1.0, 1.0, 3.0], 0.5, 3),
        ([1, 2, 3], None, 0.0, 3),
        ([1], None, 0.5, 1),
    ],
)
def test_the_newest_rows_are_held_out(
    times: list[int], weights: list[float] | None, share: float, first: int
) -> None:
    rows, _ = read_rows(rows_at(times, weights), None, ("x",), "click")
    assert first_held_out(rows, share) == first


def test_the_temperature_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 40_000)
    y = (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float)
    for true in (0.7, 1.0, 1.6):
        assert_allclose(fitted_temperature(true * z, y, np.ones(len(z)), 1.0), true, rtol=0.03)
    assert fitted_temperature(5 * z[:1], y[:1], np.ones(1), 1.3) == pytest.approx(1.3, rel=0.05)
    assert fitted_temperature(np.zeros(9), np.ones(9), np.ones(9), 1.3) == pytest.approx(1.3, rel=1e-3)


def test_parameters_are_checked() -> None:
    for wrong in ({"features": []}, {"features": ["x", "x"]}, {"features": ["x"], "hidden": [0]}, {}):
        with pytest.raises(ac.AcclimateError):
            SequentialLaplaceParameters(**wrong)  # type: ignore[arg-type]
    assert DAY_ROWS > 100
