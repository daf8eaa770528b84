"""Entities adapted by the compiled kernel, where the ranker is made of dense layers; the torch path does any."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.arrays import IntArray
from acclimate.kernels.adaptation import Above, Block, Rows, adapt
from acclimate.models.meta_network import MetaNetwork, Support
from acclimate.models.rankers import MLP, WideAndDeep, side_by_side

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fused:
    """A meta block of a network, and the ranker above it, as the kernel reads them."""

    network: MetaNetwork
    number: int
    block: Block
    above: Above

    @staticmethod
    def of_network(network: MetaNetwork, number: int) -> "Fused | None":
        """Nothing where the ranker is of another kind, or the block takes no steps."""
        ranker: Any = network.ranker
        blocks: Any = network.blocks
        if type(ranker) not in {MLP, WideAndDeep} or network.places[number].adaptation != "gradient":
            return None
        first, *rest = _linear(ranker.layers) or [None]
        if first is None:
            return None
        layers = _linear(blocks[number].layers)
        rates = [blocks[number].rates(layer) for layer in range(len(layers))]
        sizes = [_linear(block.layers)[-1].out_features for block in blocks]
        # What the ranker reads ends with the embeddings, so that those of a block have a place from the end.
        begin, end = -sum(sizes[number:]), -sum(sizes[number + 1 :]) or None
        straight = np.zeros(sizes[number], np.float32)
        if isinstance(ranker, WideAndDeep):
            straight = _flat([ranker.wide.weight[:, begin:end]])
        return Fused(
            network,
            number,
            Block(
                *_dense(layers),
                _flat([rate for rate, _ in rates]),
                _flat([rate for _, rate in rates]),
                blocks[number].has_many_rates,
                _widths(layers),
            ),
            Above(
                first.weight[:, begin:end].contiguous().numpy(),
                straight,
                *_dense(rest),
                np.array([layer.out_features for layer in (first, *rest)]),
                _flat([ranker.head.weight]),
            ),
        )

    def adapted(self, u: Tensor, support: Support) -> Floats:
        """The meta embeddings ``(T, s)`` of tasks, as :meth:`MetaNetwork.adapted` has them."""
        network, ranker, tasks = self.network, self._ranker, len(u)
        vectors = [*support.vectors]
        vectors[self.number] = torch.zeros(len(support.task), len(self.above.straight))
        with torch.no_grad():
            inputs = network.read_by_ranker(support.inputs, vectors)
            first = ranker.layers[0](side_by_side(inputs))
            base = ranker.shallow(inputs) + ranker.head.bias + support.offset
        share = support.weight / network.rows_of(support, tasks)[support.task]
        starts = np.searchsorted(support.task.numpy(), np.arange(tasks + 1))
        rows = Rows(starts, *(part.numpy() for part in (first, base, support.label, share)))
        out = np.empty((tasks, len(self.above.straight)), np.float32)
        steps = network.places[self.number].steps
        adapt(np.ascontiguousarray(u.numpy()), steps, self.block, rows, self.above, out)
        return out

    @property
    def _ranker(self) -> Any:
        return self.network.ranker


def _linear(layers: Any) -> list[Any]:
    return [layer for layer in layers or () if isinstance(layer, nn.Linear)]


def _widths(layers: list[Any]) -> IntArray:
    return np.array([layers[0].in_features, *(layer.out_features for layer in layers)])


def _dense(layers: list[Any]) -> tuple[Floats, Floats]:
    """Weights and biases, flat."""
    return _flat([layer.weight for layer in layers]), _flat([layer.bias for layer in layers])


def _flat(weights: list[Any]) -> Floats:
    parts = [weight.detach().reshape(-1).numpy() for weight in weights]
    return np.concatenate([np.zeros(0, np.float32), *parts])
