"""The gradient of the loss of support rows below a ranker of dense layers, in closed form.

Embeddings enter such a ranker linearly: its first layer reads ``x`` and ``e`` side by side,
``z = W x + b + V e``. What it makes of ``x`` is computed once for all inner steps, and ``V e`` once for all rows
of a task. With ``m_l`` the units of layer ``l`` that are above 0 and ``q = s (sigmoid(logit) - y)`` the error of a
row that counts ``s``, the gradient at the embedding of a task is ::

    sum over its rows of  V' (m_1 * W_2' (m_2 * ... W_L' (m_L * h q))) + c q

with ``h`` the weights of the logit, and ``c`` those of ``e`` that pass all layers by. These are a few passes over
the rows, and autograd sees through them for the second order.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.models.rankers import MLP, Inputs, WideAndDeep, side_by_side


@dataclass(frozen=True)
class DenseLayers:
    """A ranker of dense layers, as the embeddings ``(s,)`` of one block enter it.

    ``entering`` ``(h, s)`` are ``V``, ``passing`` ``(s,)`` are ``c``, ``between`` the layers after the first one,
    ``head`` ``(h_L,)`` the weights of the logit. Of what else is read are ``other``, ``bias``, ``other_passing``.
    """

    entering: Tensor
    passing: Tensor
    between: list[nn.Linear]
    head: Tensor
    other: Tensor
    bias: Tensor
    other_passing: Tensor | None
    head_bias: Tensor

    @staticmethod
    def of_ranker(ranker: Any, size: int, behind: int) -> "DenseLayers | None":
        """For embeddings of a size with so many numbers ``behind`` them, the last that the ranker reads.

        Nothing where the ranker is of another kind, or leaves units out.
        """
        if type(ranker) not in {MLP, WideAndDeep} or ranker.layers is None:
            return None
        if ranker.training and any(isinstance(layer, nn.Dropout) for layer in ranker.layers):
            return None
        layers = [layer for layer in ranker.layers if isinstance(layer, nn.Linear)]
        if not layers:
            return None
        first, *between = layers
        other, entering = _without(first.weight, size, behind)
        other_passing, passing = None, entering.new_zeros(size)
        if isinstance(ranker, WideAndDeep):
            other_passing, wide = _without(ranker.wide.weight, size, behind)
            passing = wide[0]
        head: Any = ranker.head
        return DenseLayers(entering, passing, between, head.weight[0], other, first.bias, other_passing, head.bias)

    def first(self, inputs: Inputs) -> Tensor:
        """What the first layer makes of rows ``(n, h)``; ``inputs`` lack the embeddings."""
        return functional.linear(side_by_side(inputs), self.other, self.bias)

    def base(self, inputs: Inputs, offset: Tensor) -> Tensor:
        """What is added to the logits of rows ``(n,)`` whatever the layers say."""
        base = self.head_bias + offset
        if self.other_passing is None:
            return base
        return base + inputs.wide.sum(1) + functional.linear(inputs.dense, self.other_passing)[:, 0]


@dataclass(frozen=True)
class SupportLoss:
    """The loss of support rows ``(n,)``: what :class:`DenseLayers` makes of them, whose ``task`` each is.

    ``share`` is what a row counts in the loss of its task.
    """

    layers: DenseLayers
    first: Tensor
    base: Tensor
    task: Tensor
    label: Tensor
    share: Tensor

    def gradient(self, e: Tensor) -> Tensor:
        """At the embeddings of the tasks ``(T, s)``."""
        layers, task = self.layers, self.task
        h = torch.relu(self.first + (e @ layers.entering.T).index_select(0, task))
        above = [h]
        for layer in layers.between:
            above.append(torch.relu(layer(above[-1])))
        logit = self.base + (e @ layers.passing).index_select(0, task) + above[-1] @ layers.head
        error = self.share * (torch.sigmoid(logit) - self.label)
        # ``h q`` is a product with the last matrix, so that nothing but the mask is as wide as the rows.
        matrices = [layers.entering, *(layer.weight for layer in layers.between)]
        matrices[-1] = layers.head[:, None] * matrices[-1]
        back = _above_zero(above[-1]) * error[:, None]
        for matrix, h in zip(matrices[:0:-1], above[-2::-1], strict=True):
            back = _above_zero(h) * (back @ matrix)
        summed = back.new_zeros(len(e), back.shape[1]).index_add(0, task, back)
        errors = error.new_zeros(len(e)).index_add(0, task, error)
        return summed @ matrices[0] + errors[:, None] * layers.passing


def _above_zero(h: Tensor) -> Tensor:
    """1 where a unit is, else 0."""
    return h.detach().sign()  # as numbers: a product with booleans takes ten times as long


def _without(weight: Tensor, size: int, behind: int) -> tuple[Tensor, Tensor]:
    """The columns of a matrix other than some near its end, and these."""
    end = weight.shape[1] - behind
    return torch.cat([weight[:, : end - size], weight[:, end:]], 1), weight[:, end - size : end]
