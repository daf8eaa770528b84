"""A ranker whose vectors of entities come from small networks, each adapted by gradient steps (LiMAML).

Wang et al., arXiv 2403.00803. A **meta block** reads the features ``u`` of an entity and gives its meta embedding
``e``; the **global block** reads the meta embeddings and everything else of a row. The inner loop moves the meta
block alone, on the entity's own rows; the outer loop moves both.

No entity ever gets weights of its own. A block reads one vector of an entity, so the gradient of a layer
``z = W a + b`` is of rank one, ``delta a'``, and the layer after ``K`` steps of rates ``R`` (of each weight) is ::

    (W - sum_k R * delta_k a_k') a = W a - sum_k delta_k * (R (a_k * a))
    (W - sum_k R * delta_k a_k')' d = W'd - sum_k a_k * (R' (delta_k * d))

with ``*`` by element: products with matrices that all entities share. So a thousand tasks cost a few matrix
products, and memory is that of their activations.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.models.rankers import Inputs
from acclimate.models.support_loss import DenseLayers, SupportLoss

_STEEPEST = 4.0
"""Scores of attention lie within so much of 0."""

Gradient = Callable[[Tensor], Tensor]
"""From the meta embeddings ``(T, s)`` of tasks to the gradients of their support losses."""

GradientBelow = Callable[[SupportLoss, int], Gradient]
"""What makes it of support losses and the number of tasks."""


@dataclass(frozen=True)
class Step:
    """An inner step of ``T`` tasks: of each layer the gradient ``(T, out)``, and what it read ``(T, in)``."""

    deltas: Sequence[Tensor]
    read: Sequence[Tensor]


@dataclass(frozen=True)
class Support:
    """Support rows of tasks: ``inputs`` of ``n`` rows, the vectors of the other blocks, whose ``task`` each is.

    ``label``, ``weight`` and ``offset`` are ``(n,)``. ``vectors`` has one ``(n, s)`` for each block; that of the
    block which is adapted is not read.
    """

    inputs: Inputs
    vectors: Sequence[Tensor]
    task: Tensor
    label: Tensor
    weight: Tensor
    offset: Tensor


class MetaBlock(nn.Module):
    """Layers from the features of an entity to its meta embedding, and how fast each moves in an inner step."""

    def __init__(self, read: int, hidden: Sequence[int], size: int, rate: float, rates: str) -> None:
        super().__init__()
        widths = [read, *hidden, size]
        pairs = list(pairwise(widths))
        self.size = size
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        shapes = [
            ((after, before), (after,)) if rates == "per-parameter" else ((1, 1), (1,)) for before, after in pairs
        ]
        self.has_many_rates = rates == "per-parameter"
        start = math.log(rate)  # a rate is e to the power of what is learned: a step is never uphill
        self.log_rates = nn.ParameterList(torch.full(shape, start) for both in shapes for shape in both)
        self.log_rates.requires_grad_(rates != "fixed")

    def forward(self, u: Tensor, steps: Sequence[Step] = ()) -> list[Tensor]:
        """What each layer reads of features ``(T, read)`` after some steps, then the embeddings ``(T, s)``."""
        read = [u]
        for number, layer in enumerate(self.layers):
            rate, bias_rate = self.rates(number)
            z = layer(read[-1])
            for step in steps:
                z = z - step.deltas[number] * (_products(rate, step.read[number] * read[-1]) + bias_rate)
            read.append(z if number == len(self.layers) - 1 else torch.relu(z))
        return read

    def backward(self, gradient: Tensor, read: Sequence[Tensor], steps: Sequence[Step]) -> Step:
        """The next step: gradients of the layers as they are after ``steps``, from that of the embeddings."""
        deltas = [gradient]
        for number in range(len(self.layers) - 1, 0, -1):
            rate, _ = self.rates(number)
            back = deltas[-1] @ self._weight(number)
            for step in steps:
                back = back - step.read[number] * _back(rate, step.deltas[number] * deltas[-1])
            deltas.append(back * (read[number] > 0))
        return Step(deltas[::-1], list(read[:-1]))

    def rates(self, number: int) -> tuple[Tensor, Tensor]:
        """The inner rates of a layer's weights and biases: one, or one each."""
        rates: Any = self.log_rates
        return rates[2 * number].exp(), rates[2 * number + 1].exp()

    def _weight(self, number: int) -> Tensor:
        layer: Any = self.layers[number]
        return layer.weight

    def adapted(self, u: Tensor, gradient: Gradient, steps: int, *, second_order: bool) -> Tensor:
        """The meta embeddings ``(T, s)`` after inner steps down the ``gradient``.

        In the first order the steps are constants: the outer gradient passes them by.
        """
        taken = list[Step]()
        with torch.set_grad_enabled(second_order and torch.is_grad_enabled()):
            for _ in range(steps):
                read = self(u, taken)
                taken.append(self.backward(gradient(read[-1]), read, taken))
        return self(u, taken)[-1]


def _products(rate: Tensor, x: Tensor) -> Tensor:
    """``x R'`` ``(T, out)``, of a rate that all weights share ``(T, 1)``."""
    return rate * x.sum(1, keepdim=True) if rate.numel() == 1 else x @ rate.T


def _back(rate: Tensor, x: Tensor) -> Tensor:
    """``x R`` ``(T, in)``, of a rate that all weights share ``(T, 1)``."""
    return rate * x.sum(1, keepdim=True) if rate.numel() == 1 else x @ rate


class Amortised(nn.Module):
    """A block that reads its support rows by a network in place of inner steps (as TaNP, Lin et al. 2021).

    What rows say, ``v`` ``(n, w)``, is read with the features by its sum over them, divided by their weight and
    ``prior_rows`` more: ``sum_i c_i v_i / (sum_i c_i + prior_rows)``, where ``c_i`` is the weight of a row.
    """

    def __init__(self, read: int, of_row: int, hidden: Sequence[int], size: int, *, heads: int = 1) -> None:
        super().__init__()
        width = hidden[0] if hidden else size
        self.of_row = nn.Sequential(nn.Linear(of_row + 1, width), nn.ReLU(), nn.Linear(width, width))
        widths = [read + width + heads, *hidden, size]
        layers = list[nn.Module]()
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.width, self.heads = width, heads

    def forward(self, u: Tensor) -> list[Tensor]:
        """The embeddings of tasks without support rows."""
        return [self.layers(torch.cat([u, u.new_zeros(len(u), self.width + self.heads)], 1))]

    def adapted(self, u: Tensor, rows: Tensor, support: Support, prior_rows: float) -> Tensor:
        """The meta embeddings ``(T, s)``, by what support rows are ``(n, of_row)``."""
        read = torch.cat([rows, support.label[:, None] - 0.5], 1)
        counts = self.counts(read, support)
        weight = counts.new_zeros(len(u), self.heads).index_add(0, support.task, counts)
        share = 1.0 / (weight + prior_rows).clamp_min(1e-9)
        total = u.new_zeros(len(u), self.width).index_add(0, support.task, self.of_row(read) * counts) * share
        known = weight * share  # 0 without rows, 1 with many
        return self.layers(torch.cat([u, total, known], 1))

    def counts(self, read: Tensor, support: Support) -> Tensor:  # noqa: ARG002 - what a row says is for attention
        """What rows count in the sum ``(n, heads)``."""
        return support.weight[:, None]


class Attentive(Amortised):
    """The same by attention over the rows, a head for each number that they say.

    A row counts ``w_i exp(a_i)``, with ``a_i`` read from what it is, its label and how many newer ones there are:
    a layer of attention with one query that all tasks share (as Lee et al. 2019 pool a set), beside ``prior_rows``
    rows of score 0 that say nothing.
    """

    def __init__(self, read: int, of_row: int, hidden: Sequence[int], size: int) -> None:
        width = hidden[0] if hidden else size
        super().__init__(read, of_row, hidden, size, heads=width)
        self.score = nn.Linear(of_row + 2, width)

    def counts(self, read: Tensor, support: Support) -> Tensor:
        """What rows count in the sum ``(n, width)``; a score is held to where its exponential is tame."""
        sizes = torch.bincount(support.task)
        newer = sizes.cumsum(0)[support.task] - 1 - torch.arange(len(support.task), device=read.device)
        score = self.score(torch.cat([read, newer.to(read.dtype).log1p()[:, None]], 1))
        return support.weight[:, None] * (_STEEPEST * torch.tanh(score / _STEEPEST)).exp()


AMORTISED: dict[str, type[Amortised]] = {"amortised": Amortised, "attention": Attentive}
"""The blocks that read their support in place of steps, by the name of the adaptation."""


@dataclass(frozen=True)
class Places:
    """Which columns of numbers and which fields a block reads, and how its entities adapt, in how many steps."""

    dense: Tensor
    fields: Tensor
    adaptation: str = "none"
    steps: int = 0


class _Columns(nn.Module):
    """The columns and fields of some places, on the device of the network."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.register_buffer("dense", places.dense, persistent=False)
        self.register_buffer("fields", places.fields, persistent=False)
        self.stretches = [_stretch(places.dense), _stretch(places.fields)]

    def forward(self, inputs: Inputs) -> Inputs:
        """These of rows."""
        dense: Any = self.dense
        fields: Any = self.fields
        of_dense, of_fields = self.stretches
        return Inputs(
            _chosen(inputs.dense, dense, of_dense),
            _chosen(inputs.wide, fields, of_fields),
            _chosen(inputs.embedded, fields, of_fields),
        )


def _stretch(places: Tensor) -> slice | None:
    """Consecutive places, of which nothing has to be copied."""
    first = int(places[0]) if len(places) else 0
    stretch = slice(first, first + len(places))
    return stretch if torch.equal(places, torch.arange(stretch.start, stretch.stop)) else None


def _chosen(values: Tensor, places: Tensor, stretch: slice | None) -> Tensor:
    return values.index_select(1, places) if stretch is None else values[:, stretch]


class MetaNetwork(nn.Module):
    """Meta blocks and a global block, a ranker that reads meta embeddings as more numbers."""

    def __init__(
        self,
        ranker: nn.Module,
        reads: Places,
        blocks: Sequence[nn.Module],
        places: Sequence[Places],
        prior_rows: float,
    ) -> None:
        super().__init__()
        self.ranker, self.blocks = ranker, nn.ModuleList(blocks)
        self.reads, self.read = _Columns(reads), nn.ModuleList(map(_Columns, places))
        self.places, self.prior_rows = places, prior_rows

    def features(self, block: int, inputs: Inputs) -> Tensor:
        """What a block reads of rows ``(n, read)``."""
        return _flat(self.read[block](inputs))

    def plain(self, inputs: Inputs, *, but: int | None = None) -> list[Tensor]:
        """The meta embeddings of each row's entities ``(n, s)``, a block each, as they are before any step.

        Those of the block ``but`` are not needed: there are none ``(n, 0)``.
        """
        none = inputs.dense.new_zeros(len(inputs.dense), 0)
        return [none if block == but else self.before_steps(block, inputs) for block in range(len(self.blocks))]

    def before_steps(self, block: int, inputs: Inputs) -> Tensor:
        """Those of one block ``(n, s)``."""
        return self.blocks[block](self.features(block, inputs))[-1]

    def forward(self, inputs: Inputs, vectors: Sequence[Tensor]) -> Tensor:
        """Logits ``(n,)`` of rows with meta embeddings ``(n, s)``, a block each."""
        return self.ranker(self.read_by_ranker(inputs, vectors))

    def read_by_ranker(self, inputs: Inputs, vectors: Sequence[Tensor]) -> Inputs:
        """What the global block reads of rows: meta embeddings are its last numbers."""
        dense, wide, embedded = self.reads(inputs)
        return Inputs(torch.cat([dense, *vectors], 1) if vectors else dense, wide, embedded)

    def rows_of(self, support: Support, tasks: int) -> Tensor:
        """What the sum over a task's rows is divided by ``(T,)``: their weight, and the prior's rows."""
        return (_per_task(support.weight, support.task, tasks) + self.prior_rows).clamp_min(1e-9)

    def adapted(
        self, block: int, u: Tensor, support: Support, *, second_order: bool, below: GradientBelow | None = None
    ) -> Tensor:
        """The meta embeddings of a block ``(T, s)``, for tasks of features ``u``, adapted on their support.

        ``below`` gives the gradient below a ranker of dense layers, in place of :meth:`SupportLoss.gradient`.
        """
        how, module = self.places[block], self._block(block)
        if how.adaptation == "none" or not len(support.task):
            return module(u)[-1]
        if how.adaptation in AMORTISED:
            others = [v for number, v in enumerate(support.vectors) if number != block]
            rows = torch.cat([_flat(self.reads(support.inputs)), *others], 1)
            return module.adapted(u, rows, support, self.prior_rows)

        with torch.set_grad_enabled(second_order and torch.is_grad_enabled()):
            loss = self.support_loss(block, support, len(u))
        if loss is not None:
            gradient = loss.gradient if below is None else below(loss, len(u))
        else:
            gradient = partial(self._by_autograd, block, support, create_graph=second_order)
        return module.adapted(u, gradient, how.steps, second_order=second_order)

    def _block(self, block: int) -> Any:
        return self.blocks[block]

    def support_loss(self, block: int, support: Support, tasks: int) -> SupportLoss | None:
        """The support losses below a ranker of dense layers; nothing where there is none."""
        behind = sum(v.shape[1] for v in support.vectors[block + 1 :])
        layers = DenseLayers.of_ranker(self.ranker, self._block(block).size, behind)
        if layers is None:
            return None
        inputs = self.read_by_ranker(support.inputs, [v for n, v in enumerate(support.vectors) if n != block])
        return SupportLoss(
            layers,
            layers.first(inputs),
            layers.base(inputs, support.offset),
            support.task,
            support.label,
            support.weight / self.rows_of(support, tasks).index_select(0, support.task),
        )

    def _by_autograd(self, block: int, support: Support, e: Tensor, *, create_graph: bool) -> Tensor:
        """The gradient ``(T, s)`` of the support losses at the embeddings of tasks, whatever the ranker."""
        with torch.enable_grad():
            at = e if create_graph and e.requires_grad else e.detach().requires_grad_()
            vectors = [*support.vectors]
            vectors[block] = at.index_select(0, support.task)
            logits = self(support.inputs, vectors) + support.offset
            losses = functional.binary_cross_entropy_with_logits(logits, support.label, reduction="none")
            share = support.weight / self.rows_of(support, len(e)).index_select(0, support.task)
            return torch.autograd.grad((losses * share).sum(), at, create_graph=create_graph)[0]


def _flat(inputs: Inputs) -> Tensor:
    embedded = inputs.embedded
    return torch.cat([inputs.dense, embedded.flatten(1)], 1) if embedded.shape[1] else inputs.dense


def _per_task(values: Tensor, task: Tensor, tasks: int) -> Tensor:
    """The sum of values of rows ``(n,)`` by their tasks, ``(T,)``."""
    return values.new_zeros(tasks).index_add(0, task, values)
