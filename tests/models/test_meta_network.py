"""Inner steps without weights of anybody's own against a plain loop over tasks with a copy of all weights each."""

from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from acclimate.models.meta_network import AMORTISED, MetaBlock, MetaNetwork, Places, Support
from acclimate.models.rankers import Inputs, Sizes, make_ranker

DENSE, FIELDS, EMBEDDING, SIZES = 5, 3, 2, (4, 3)
TASKS = 6
SUPPORT_SIZES = (3, 1, 0, 7, 2, 0)
PRIOR_ROWS = 2.0


def random_inputs(rows: int, seed: int) -> Inputs:
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    return Inputs(draw(rows, DENSE), draw(rows, FIELDS), draw(rows, FIELDS, EMBEDDING))


def places(dense: list[int], fields: list[int], **how: Any) -> Places:
    return Places(torch.tensor(dense).long(), torch.tensor(fields).long(), **how)


def network(
    *, ranker: str = "deepfm", steps: int = 2, rates: str = "learned", adaptation: str = "gradient"
) -> Any:
    reads = places([0, 1, 2], [0, 1])
    sizes = Sizes(3 + sum(SIZES), 2, EMBEDDING, (6, 4))
    torch.manual_seed(3)
    other = MetaBlock(1 + EMBEDDING, (3,), SIZES[1], 0.2, rates)
    if adaptation in AMORTISED:
        first: Any = AMORTISED[adaptation](2 + EMBEDDING, 3 + 2 * EMBEDDING + SIZES[1], (5,), SIZES[0])
    else:
        first = MetaBlock(2 + EMBEDDING, (5, 4), SIZES[0], 0.3, rates)
    how = (
        places([3, 4], [2], adaptation=adaptation, steps=steps),
        places([0], [0], adaptation="gradient", steps=1),
    )
    made = MetaNetwork(make_ranker(ranker, sizes, 5), reads, [first, other], how, PRIOR_ROWS).double()
    with torch.no_grad():  # layers that start at nothing would hide what goes through them
        for weight in made.ranker.parameters():
            weight += 0.1 * torch.randn(weight.shape, dtype=torch.float64)
        for rate in first.log_rates if adaptation == "gradient" else ():
            rate += torch.rand(rate.shape, dtype=torch.float64)
    return made


def tasks(seed: int = 1) -> tuple[Inputs, Inputs, Tensor, dict[str, Tensor]]:
    """Of each task a row of features; its support rows, whose task each is, and their columns."""
    rows = sum(SUPPORT_SIZES)
    task = torch.repeat_interleave(torch.arange(TASKS), torch.tensor(SUPPORT_SIZES))
    chance = torch.Generator().manual_seed(seed)
    columns = {
        "label": torch.randint(0, 2, (rows,), generator=chance).double(),
        "weight": torch.rand(rows, generator=chance, dtype=torch.float64) + 0.5,
        "offset": torch.randn(rows, generator=chance, dtype=torch.float64),
    }
    return random_inputs(TASKS, seed), random_inputs(rows, seed + 1), task, columns


def at(inputs: Inputs, rows: Tensor) -> Inputs:
    return Inputs(*(part[rows] for part in inputs))


def batched(made: Any, *, second_order: bool) -> Tensor:
    features, rows, task, columns = tasks()
    support = Support(rows, made.plain(rows), task, **columns)
    return made.adapted(0, made.features(0, features), support, second_order=second_order)


def one_by_one(made: Any, *, steps: int, second_order: bool) -> Tensor:
    """The field's own loop: copies of the block's weights, moved by what autograd says of each task's rows."""
    block, (features, rows, task, columns) = made.blocks[0], tasks()
    u = made.features(0, features)
    layers = {name: w for name, w in block.named_parameters() if not name.startswith("log_rates")}
    rates = {}
    for number in range(len(block.layers)):
        rates[f"layers.{number}.weight"], rates[f"layers.{number}.bias"] = block.rates(number)
    embeddings = []
    for t in range(TASKS):
        own = torch.nonzero(task == t)[:, 0]
        weights = dict(layers)
        count = columns["weight"][own].sum() + PRIOR_ROWS
        for _ in range(steps if len(own) else 0):
            e = functional_call(block, weights, (u[t : t + 1],))[-1]
            others = made.plain(at(rows, own))[1]
            if not second_order:
                others = others.detach()
            logits = made(at(rows, own), [e.expand(len(own), -1), others]) + columns["offset"][own]
            losses = functional.binary_cross_entropy_with_logits(logits, columns["label"][own], reduction="none")
            loss = (losses * columns["weight"][own]).sum() / count
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=second_order)
            if not second_order:
                gradients = [g.detach() for g in gradients]
            weights = {name: w - rates[name] * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        embeddings.append(functional_call(block, weights, (u[t : t + 1],))[-1])
    return torch.cat(embeddings)


def outer(made: Any, embeddings: Tensor) -> Tensor:
    """A loss of query rows, one a task."""
    rows = random_inputs(TASKS, 9)
    logits = made(rows, [embeddings, made.plain(rows)[1]])
    return functional.binary_cross_entropy_with_logits(logits, (torch.arange(TASKS) % 2).double())


def gradients_of(made: Any, loss: Tensor) -> dict[str, Tensor]:
    named = {name: w for name, w in made.named_parameters() if w.requires_grad}
    parts = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(w) if g is None else g for (name, w), g in zip(named.items(), parts, strict=True)
    }


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("rates", ["fixed", "learned", "per-parameter"])
@pytest.mark.parametrize(("ranker", "steps"), [("wide-and-deep", 1), ("deepfm", 3), ("dcn-v2", 2)])
def test_embeddings_and_outer_gradients_are_those_of_a_loop(
    ranker: str, steps: int, rates: str, second_order: bool
) -> None:
    made = network(ranker=ranker, steps=steps, rates=rates)
    fast = batched(made, second_order=second_order)
    slow = one_by_one(made, steps=steps, second_order=second_order)
    assert_allclose(fast.detach(), slow.detach(), atol=1e-12)
    expected = gradients_of(made, outer(made, slow))
    actual = gradients_of(made, outer(made, fast))
    assert any(name.startswith("blocks.0.log_rates") for name in actual) == (rates != "fixed")
    for name, gradient in expected.items():
        assert_allclose(actual[name], gradient, atol=1e-12, err_msg=name)
    assert float(actual["blocks.0.layers.0.weight"].abs().max()) > 1e-6


@pytest.mark.parametrize("hidden", [(6,), (6, 4), (5, 4, 3)])
@pytest.mark.parametrize("ranker", ["mlp", "wide-and-deep"])
@pytest.mark.parametrize("block", [0, 1])
def test_the_gradient_in_closed_form_is_that_of_autograd(ranker: str, hidden: tuple[int, ...], block: int) -> None:
    made, (_, rows, task, columns) = network(ranker=ranker), tasks()
    made.ranker = make_ranker(ranker, Sizes(3 + sum(SIZES), 2, EMBEDDING, hidden), 5).double()
    with torch.no_grad():
        for weight in made.ranker.parameters():
            weight += 0.2 * torch.randn(weight.shape, dtype=torch.float64)
    support = Support(rows, made.plain(rows), task, **columns)
    e = torch.randn(TASKS, SIZES[block], dtype=torch.float64)
    loss = made.support_loss(block, support, TASKS)
    expected = made._by_autograd(block, support, e, create_graph=False)
    assert_allclose(loss.gradient(e).detach(), expected, atol=1e-14)
    assert float(expected.abs().max()) > 1e-3


def test_units_that_a_training_leaves_out_are_left_out_of_inner_steps_too() -> None:
    made, (_, rows, task, columns) = network(ranker="mlp"), tasks()
    made.ranker = make_ranker("mlp", Sizes(3 + sum(SIZES), 2, EMBEDDING, (6, 4), dropout=0.5), 5).double()
    support = Support(rows, made.plain(rows), task, **columns)
    assert made.support_loss(0, support, TASKS) is None
    assert made.eval().support_loss(0, support, TASKS) is not None
    assert network(ranker="deepfm").support_loss(0, support, TASKS) is None


@pytest.mark.parametrize("name", ["blocks.0.layers.0.weight", "blocks.0.log_rates.0", "ranker.head.weight"])
def test_second_order_gradients_are_finite_differences(name: str) -> None:
    made = network(ranker="mlp", steps=2)
    gradient = gradients_of(made, outer(made, batched(made, second_order=True)))[name]
    weight, step = dict(made.named_parameters())[name], 1e-6
    flat = weight.detach().view(-1)
    for place in range(min(4, flat.numel())):
        sides = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                flat[place] += sign * step
            sides.append(float(outer(made, batched(made, second_order=True)).detach()))
            with torch.no_grad():
                flat[place] -= sign * step
        assert_allclose(float(gradient.view(-1)[place]), (sides[0] - sides[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_the_first_order_is_another_gradient_at_the_same_embeddings() -> None:
    made = network(steps=2)
    first, second = batched(made, second_order=False), batched(made, second_order=True)
    assert_allclose(first.detach(), second.detach(), atol=1e-13)
    name = "blocks.0.layers.0.weight"
    parts = [gradients_of(made, outer(made, e))[name] for e in (first, second)]
    assert float((parts[0] - parts[1]).abs().max()) > 1e-5


@pytest.mark.parametrize("adaptation", ["gradient", "amortised", "attention"])
def test_a_task_alone_is_the_task_among_others(adaptation: str) -> None:
    made = network(adaptation=adaptation).float()
    features, rows, task, columns = tasks()
    features, rows = (Inputs(*(part.float() for part in x)) for x in (features, rows))
    columns = {name: column.float() for name, column in columns.items()}
    u, vectors = made.features(0, features), made.plain(rows)
    with torch.no_grad():
        together = made.adapted(0, u, Support(rows, vectors, task, **columns), second_order=False)
        for t in range(TASKS):
            own = torch.nonzero(task == t)[:, 0]
            support = Support(
                at(rows, own),
                [v[own] for v in vectors],
                torch.zeros(len(own), dtype=torch.int64),
                **{name: column[own] for name, column in columns.items()},
            )
            alone = made.adapted(0, u[t : t + 1], support, second_order=False)
            assert_allclose(alone, together[t : t + 1], atol=1e-6)


def test_without_steps_or_rows_a_block_is_as_it_was() -> None:
    features, *_ = tasks()
    for made in (network(steps=0), network(steps=3)):
        plain = made.blocks[0](made.features(0, features))[-1]
        adapted = batched(made, second_order=False)
        still = torch.tensor([made.places[0].steps == 0 or size == 0 for size in SUPPORT_SIZES])
        assert_allclose(adapted[still].detach(), plain[still].detach(), atol=0)
        assert bool(((adapted - plain).abs().max(1).values[~still] > 1e-4).all())
    still = torch.tensor([size == 0 for size in SUPPORT_SIZES])
    for adaptation in AMORTISED:
        made = network(adaptation=adaptation)
        plain = made.blocks[0](made.features(0, features))[-1]
        assert_allclose(batched(made, second_order=False)[still].detach(), plain[still].detach(), atol=1e-15)


def test_attention_is_a_weighed_mean_beside_rows_that_say_nothing() -> None:
    """By hand, a task at a time: what it reads of one is ``sum_i c_i v_i / (sum_i c_i + prior_rows)``."""
    made = network(adaptation="attention")
    features, rows, task, columns = tasks()
    block: Any = made.blocks[0]
    support = Support(rows, made.plain(rows), task, **columns)
    u = made.features(0, features)
    said = torch.cat([rows.dense[:, :3], rows.embedded[:, :2].flatten(1), support.vectors[1]], 1)
    expected = list[Tensor]()
    for t in range(TASKS):
        own = torch.nonzero(task == t)[:, 0]
        counts, total = torch.zeros(5).double(), torch.zeros(5).double()
        for newer, row in enumerate(own.tolist()[::-1]):
            read = torch.cat([said[row], columns["label"][row : row + 1] - 0.5])
            place = torch.tensor([newer + 1.0]).double().log()
            score = 4.0 * torch.tanh(block.score(torch.cat([read, place])) / 4.0)
            counts += columns["weight"][row] * score.exp()
            total += columns["weight"][row] * score.exp() * block.of_row(read)
        share = 1.0 / (counts + PRIOR_ROWS)
        expected.append(block.layers(torch.cat([u[t], total * share, counts * share])))
    assert_allclose(
        made.adapted(0, u, support, second_order=False).detach(), torch.stack(expected).detach(), atol=1e-12
    )


@pytest.mark.parametrize("second_order", [False, True])
def test_adaptation_learns_what_single_tasks_are(second_order: bool) -> None:
    """Each task has a direction of its own: ``y = 1`` where ``x . w_t > 0``. Nobody shared can tell, support can.

    Without adaptation the loss cannot fall below ``log 2``; with five and more rows half of that is asked.
    """
    chance = torch.Generator().manual_seed(2)
    reads, constant = places([0, 1], []), places([2], [], adaptation="gradient", steps=1)
    torch.manual_seed(0)
    ranker = make_ranker("mlp", Sizes(2 + 2, 0, 1, (32,)), 0)
    made = MetaNetwork(ranker, reads, [MetaBlock(1, (8,), 2, 1.0, "learned")], [constant], 1.0)
    adam = torch.optim.Adam([w for w in made.parameters() if w.requires_grad], lr=1e-2)

    def loss_of(seed: Any, *, adapt: bool) -> Tensor:
        count, rows = 64, 20
        angle = 2.0 * torch.pi * torch.rand(count, generator=seed)
        direction = torch.stack([angle.cos(), angle.sin()], 1)
        x = torch.randn(2, count, rows, 3, generator=seed)
        x[..., 2] = 1.0
        y = ((x[..., :2] * direction[None, :, None]).sum(-1) > 0).float()
        task = torch.arange(count).repeat_interleave(rows)
        blank = [torch.zeros(count * rows, n) for n in (0, 0)]
        inputs = [Inputs(part.reshape(-1, 3), blank[0], blank[1][..., None]) for part in x]
        ones = torch.ones(count * rows)
        support = Support(inputs[0], [torch.zeros(count * rows, 2)], task, y[0].ravel(), ones, 0.0 * ones)
        u = torch.ones(count, 1)
        e = made.adapted(0, u, support, second_order=second_order) if adapt else made.blocks[0](u)[-1]
        return functional.binary_cross_entropy_with_logits(made(inputs[1], [e[task]]), y[1].ravel())

    for _ in range(600):
        adam.zero_grad()
        loss_of(chance, adapt=True).backward()
        adam.step()
    fresh = torch.Generator().manual_seed(99)
    state = fresh.get_state()
    with torch.no_grad():
        adapted = float(loss_of(fresh, adapt=True))
        fresh.set_state(state)
        assert float(loss_of(fresh, adapt=False)) > 0.69
    assert adapted < 0.35
