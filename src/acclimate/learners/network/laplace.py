"""A network's posterior: Gaussian around its weights, with the curvature of all rows it has learned as precision.

The sequential update of Ouyang et al. (arXiv 2108.13299), extended to deep models: the loss of the new rows alone,
anchored to what was known. ``w`` are the weights, ``H`` their precisions, diagonal but for the head's if asked::

    P  = d [a H_0 + (1-a) H] + (1-d) B            what was known, with forgetting d and cold weight a
    m  = P^-1 (d [a H_0 w_0 + (1-a) H w] + (1-d) B b)
    w' = argmin sum_i s_i l(y_i, z_i(w)) + 1/2 (w-m)'P(w-m)
    H' = P + sum_i s_i p_i (1-p_i) g_i g_i'       or the empirical Fisher, (p_i - y_i)^2 in place of p_i (1-p_i)

``B, b`` is where a weight starts: the ridge around 0, of a row of the table the population of its field.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from acclimate.arrays import FloatArray
from acclimate.features import FieldRows
from acclimate.learners.network.rows import NetworkRows
from acclimate.models.curvature import row_gradients, rows_at_a_time
from acclimate.models.rankers import Inputs, with_last_layer

Tensors: TypeAlias = dict[str, Tensor]

TABLE, HEAD = "table", ("head.weight", "head.bias")


@dataclass(frozen=True)
class Belief:
    """A Gaussian over weights: ``mean`` and diagonal ``precision`` by name, each of the weight's shape.

    ``table`` is ``(t, 1 + d)``, a row for each name that is touched. ``head`` ``(h + 1, h + 1)``, if it is kept,
    is the precision of the last layer's weights and bias together, in place of their diagonals.
    """

    mean: Tensors
    precision: Tensors
    head: Tensor | None = None

    def to(self, device: torch.device) -> "Belief":
        """The same on a device."""
        mean, precision = ({k: v.to(device) for k, v in part.items()} for part in (self.mean, self.precision))
        return Belief(mean, precision, None if self.head is None else self.head.to(device))

    def penalty(self, weights: Mapping[str, Tensor]) -> Tensor:
        """``1/2 (w-m)'P(w-m)``."""
        diagonal = [name for name in self.mean if self.head is None or name not in HEAD]
        total = sum(_quadratic(weights[name], self.mean[name], self.precision[name]) for name in diagonal)
        if self.head is not None:
            away = flat_head(weights) - flat_head(self.mean)
            total = total + 0.5 * away @ (self.head @ away)
        return torch.as_tensor(total)

    def learned(self, weights: Mapping[str, Tensor], more: "Curvature") -> "Belief":
        """The posterior at these weights, with the curvature of the rows that were learned."""
        mean = {name: weights[name].detach().clone() for name in self.mean}
        precision = {name: p + more.diagonal[name] for name, p in self.precision.items()}
        head = None if self.head is None or more.head is None else self.head + more.head
        return Belief(mean, precision, head)


class _Quadratic(torch.autograd.Function):
    """``1/2 P (w-m)^2``, whose gradient is at hand once it is computed: half the passes over a table."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        away = weight - mean
        pull = precision * away
        ctx.save_for_backward(pull)
        return 0.5 * torch.dot(pull.flatten(), away.flatten())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (pull,) = ctx.saved_tensors
        return grads[0] * pull, None, None


def _quadratic(weight: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    total: Any = _Quadratic.apply(weight, mean, precision)
    return total


def flat_head(weights: Mapping[str, Tensor]) -> Tensor:
    """The last layer's weights and its bias, ``(h + 1,)``."""
    return torch.cat([weights[name].flatten().double() for name in HEAD])


def combined(parts: Sequence[tuple[float, Belief]]) -> Belief:
    """The product of Gaussians, each to a power: ``P = sum_k c_k P_k``, ``m = P^-1 sum_k c_k P_k m_k``."""
    parts = [(c, belief) for c, belief in parts if c > 0.0]
    if len(parts) == 1 and parts[0][0] == 1.0:
        return parts[0][1]
    names = parts[0][1].mean
    precision = {name: _total(c * b.precision[name] for c, b in parts) for name in names}
    mean = {
        name: _total(c * b.precision[name] * b.mean[name] for c, b in parts) / precision[name] for name in names
    }
    if parts[0][1].head is None:
        return Belief(mean, precision)
    heads = [(c * b.head, flat_head(b.mean)) for c, b in parts if b.head is not None]
    head = _total(P for P, _ in heads)
    at = torch.linalg.solve(head, _total(P @ m for P, m in heads))
    mean |= {HEAD[0]: at[:-1].float().reshape(mean[HEAD[0]].shape), HEAD[1]: at[-1:].float()}
    return Belief(mean, precision, head)


def _total(parts: Any) -> Tensor:
    return torch.stack(list(parts)).sum(0)


# --- rows on their way through a network -----------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows that are learned or scored, and the rows of the whole table that they touch, ``(t,)``.

    ``place`` is where each of these stands among what is touched; of the others nothing is written in it.
    """

    rows: NetworkRows
    touched: NDArray[Any]
    place: NDArray[Any]

    @staticmethod
    def touching(rows: NetworkRows, table_rows: int) -> "Batch":
        """The batch of all these rows."""
        touched, place = np.unique(rows.read.cell), np.empty(table_rows, np.int64)
        place[touched] = np.arange(len(touched))
        return Batch(rows, touched, place)


@dataclass(frozen=True)
class Reading:
    """How rows become tensors: ``centre`` and ``spread`` ``(k,)`` of dense columns, how many fields there are."""

    centre: Tensor
    spread: Tensor
    fields: int

    def inputs(self, read: FieldRows, cells: NDArray[Any], table: Tensor) -> Inputs:
        """What a network reads of some rows; ``cells`` are rows of the ``table`` ``(t, 1 + d)``."""
        device = table.device
        dense = (torch.from_numpy(np.ascontiguousarray(read.dense)).to(device) - self.centre) / self.spread
        value = torch.from_numpy(np.ascontiguousarray(read.value)).to(device)
        vectors = bags(read, torch.from_numpy(cells.astype(np.int64)).to(device), value, table)
        vectors = vectors.reshape(len(read), self.fields, table.shape[1])
        return Inputs(dense, vectors[..., 0], vectors[..., 1:])


@dataclass(frozen=True)
class Network:
    """A module and how it reads rows: ``centre`` and ``spread`` ``(k,)`` of dense columns, how many fields."""

    module: nn.Module
    centre: Tensor
    spread: Tensor
    fields: int

    def inputs(self, batch: Batch, rows: NetworkRows, table: Tensor) -> Inputs:
        """What it reads of some of the batch's rows; ``table`` ``(t, 1 + d)`` is what they touch."""
        reading = Reading(self.centre, self.spread, self.fields)
        return reading.inputs(rows.read, batch.place[rows.read.cell], table)

    def logits(self, batch: Batch, rows: NetworkRows, table: Tensor) -> Tensor:
        """With their offsets, ``(n,)``."""
        return self.module(self.inputs(batch, rows, table)).float() + floats(rows.offset, table)

    def chunks(self, batch: Batch, learn: range, size: int) -> Iterator[NetworkRows]:
        """The rows of a range, some at a time."""
        for first in range(learn.start, learn.stop, size):
            yield batch.rows.at(np.arange(first, min(first + size, learn.stop)))


def bags(read: FieldRows, cells: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """The sum of each bag's rows of the table, times their values, ``(n F, 1 + d)``."""
    starts = torch.from_numpy(read.starts[:-1]).to(table.device)
    if not len(starts):  # without fields the table is empty too, which not every device's kernel takes
        return table.new_zeros(0, table.shape[1]) + table.sum(0)
    return functional.embedding_bag(cells, table, starts, mode="sum", per_sample_weights=values)


def floats(column: FloatArray, like: Tensor) -> Tensor:
    """A column of rows as a tensor of the kind of another."""
    return torch.from_numpy(column).to(like)


@dataclass(frozen=True)
class Objective:
    """The loss of rows and an anchor: a :class:`acclimate.learners.network.training.Problem`.

    ``learn`` and ``judge`` are ranges of the batch's rows; ``weights`` the leaves, ``table`` ``(t, 1 + d)`` too.
    """

    network: Network
    batch: Batch
    learn: range
    judge: range
    weights: Tensors
    anchor: Belief | None

    @property
    def rows(self) -> int:
        """How many are learned."""
        return len(self.learn)

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        """See :class:`acclimate.learners.network.training.Problem`."""
        part = self.batch.rows.at(rows.numpy() + self.learn.start)
        loss = self._losses(part).sum() / batch
        if self.anchor is None:
            return loss
        return loss + self.anchor.penalty(self.weights) * (len(rows) / batch / self.rows)

    def judged(self) -> float | None:
        """The mean loss of the rows that judge."""
        return self.mean_loss(self.judge) if len(self.judge) else None

    def mean_loss(self, rows: range) -> float:
        """The mean loss of some rows, by weight."""
        self.network.module.eval()
        with torch.no_grad():
            parts = [(self._losses(part).sum(), part.weight.sum()) for part in self.chunks(rows)]
        self.network.module.train()
        loss, weight = (float(sum(column)) for column in zip(*parts, strict=True))
        return loss / max(weight, 1e-300)

    def chunks(self, rows: range) -> Iterator[NetworkRows]:
        """Some rows, as many at a time as are scored well."""
        return self.network.chunks(self.batch, rows, SCORED_AT_A_TIME)

    def margins(self, rows: range) -> FloatArray:
        """The logits of some rows without their offsets, ``(n,)``."""
        self.network.module.eval()
        with torch.no_grad():
            table = self.weights[TABLE]
            parts = [
                self.network.module(self.network.inputs(self.batch, part, table)) for part in self.chunks(rows)
            ]
        self.network.module.train()
        return torch.cat([table.new_zeros(0), *parts]).double().cpu().numpy()

    def _losses(self, rows: NetworkRows) -> Tensor:
        """The loss of each row, times its weight."""
        table = self.weights[TABLE]
        logits = self.network.logits(self.batch, rows, table)
        losses = functional.binary_cross_entropy_with_logits(logits, floats(rows.label, table), reduction="none")
        return losses * floats(rows.weight, table)

    def curvature(self, rows: range, kind: str, *, head: bool) -> "Curvature":
        """That of some rows at the weights of now: of kind ``ggn``, or ``fisher``."""
        module, table = self.network.module.eval(), self.weights[TABLE].detach()
        total = {name: torch.zeros_like(weight.detach()) for name, weight in self.weights.items()}
        matrix = None
        for part in self.network.chunks(self.batch, rows, rows_at_a_time(module)):
            inputs = self.network.inputs(self.batch, part, table)
            gradients = row_gradients(module, inputs)
            p = torch.sigmoid(gradients.logit + floats(part.offset, table))
            error = p * (1.0 - p) if kind == "ggn" else (p - floats(part.label, table)).square()
            scale = error * floats(part.weight, table)
            for name, squares in gradients.squares(scale).items():
                total[name] += squares
            self._add_cells(total[TABLE], part, scale[:, None, None] * gradients.inputs.names.square())
            if head:
                matrix = _head_matrix(module, inputs, scale, matrix)
        module.train()
        return Curvature(total, matrix)

    def _add_cells(self, total: Tensor, rows: NetworkRows, squares: Tensor) -> None:
        """Add the squares ``(n, F, 1 + d)`` of bags to the rows of the table that these are made from."""
        sizes = torch.from_numpy(np.diff(rows.read.starts)).to(total.device)
        bag = torch.repeat_interleave(torch.arange(len(sizes), device=total.device), sizes)
        values = torch.from_numpy(rows.read.value).to(total.device)
        cells = torch.from_numpy(self.batch.place[rows.read.cell]).to(total.device)
        total.index_add_(0, cells, squares.flatten(0, 1)[bag] * values.square()[:, None])


@dataclass(frozen=True)
class Curvature:
    """Of some rows: the sum of squared gradients by weight, and of the head the whole matrix, if it is kept."""

    diagonal: Tensors
    head: Tensor | None


SCORED_AT_A_TIME = 16_384
"""Rows that are scored at a time."""


def read_by_head(module: nn.Module, inputs: Inputs) -> Tensor:
    """What the last layer reads and a one for its bias, ``(n, h + 1)``."""
    hidden = with_last_layer(module).hidden(inputs)
    return torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1)


def _head_matrix(module: nn.Module, inputs: Inputs, scale: Tensor, before: Tensor | None) -> Tensor:
    with torch.no_grad():
        read = read_by_head(module, inputs).double()
    matrix = read.T @ (scale[:, None] * read)
    return matrix if before is None else before + matrix
