"""Probabilities of a network's posterior, and the vectors of its last layer; nothing is changed."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from acclimate.arrays import FloatArray
from acclimate.artifacts import Events
from acclimate.config import SequentialLaplaceParameters
from acclimate.errors import ConfigError, nearest
from acclimate.learners.network.laplace import (
    HEAD,
    SCORED_AT_A_TIME,
    Batch,
    Network,
    Tensors,
    bags,
    flat_head,
    read_by_head,
)
from acclimate.learners.network.rows import rows_by_piece
from acclimate.learners.network.state import NetworkState, module_of
from acclimate.models.curvature import row_gradients, rows_at_a_time
from acclimate.models.rankers import Inputs, with_last_layer
from acclimate.models.scoring import Mode, expected_probability, noise, sigmoid


class Scoring:
    """A state that is asked about rows."""

    def __init__(self, parameters: SequentialLaplaceParameters, state: NetworkState) -> None:
        self.parameters, self.state = parameters, state
        module = module_of(parameters, state.layout).eval()
        module.load_state_dict(state.belief.mean, strict=False)
        for weight in module.parameters():
            weight.requires_grad_(False)
        centre, spread = (torch.from_numpy(part.copy()) for part in (state.centre, state.spread))
        self.network = Network(module, centre, spread, len(state.layout.fields))
        self._root: Tensor | None = None

    def probabilities(self, events: Events, mode: Mode, seed: int) -> FloatArray:
        """See :meth:`acclimate.SequentialLaplace.predict`."""
        modes = {"point": self._point, "integrated": self._integrated, "thompson": self._thompson}
        if mode not in modes:
            raise ConfigError(f"no mode '{mode}' of prediction", hint=nearest(mode, modes))
        size = rows_at_a_time(self.network.module) if mode != "point" else SCORED_AT_A_TIME
        parts = [modes[mode](batch, seed) for batch in self._batches(events, size)]
        return np.concatenate([np.zeros(0), *parts])

    def vectors(self, events: Events) -> FloatArray:
        """See :meth:`acclimate.SequentialLaplace.vectors`."""
        module = with_last_layer(self.network.module)
        parts = [
            module.hidden(self._inputs(batch)).double().numpy()
            for batch in self._batches(events, SCORED_AT_A_TIME)
        ]
        return np.concatenate([np.zeros((0, self.state.belief.mean[HEAD[0]].shape[1])), *parts])

    # --- the modes ------------------------------------------------------------------------------------------

    def _point(self, batch: Batch, _: int) -> FloatArray:
        return sigmoid(batch.rows.offset + self._logits(batch) / self.state.temperature)

    def _integrated(self, batch: Batch, _: int) -> FloatArray:
        t, variance = self.state.temperature, self._variance(batch).double().numpy()
        return expected_probability(batch.rows.offset + self._logits(batch) / t, variance / t**2)

    def _thompson(self, batch: Batch, seed: int) -> FloatArray:
        away = self._change(batch, seed).double().numpy()
        return sigmoid(batch.rows.offset + (self._logits(batch) + away) / self.state.temperature)

    def _logits(self, batch: Batch) -> FloatArray:
        """Without offsets, ``(n,)``."""
        with torch.no_grad():
            return self.network.module(self._inputs(batch)).double().numpy()

    # --- what is uncertain ----------------------------------------------------------------------------------

    def _variance(self, batch: Batch) -> Tensor:
        """The variance of each logit, ``(n,)``."""
        inputs = self._inputs(batch)
        if self.parameters.variance == "last-layer":
            return self._head_variance(inputs)
        gradients = row_gradients(self.network.module, inputs)
        variance = {name: 1.0 / p for name, p in self.state.belief.precision.items()}
        total = torch.zeros_like(gradients.logit)
        if self.state.belief.head is not None:
            total += self._head_variance(inputs)
            variance |= {name: torch.zeros_like(variance[name]) for name in HEAD}
        back = gradients.inputs.names
        precision = torch.from_numpy(self.state.table.precision[batch.touched])
        read = batch.rows.read
        names = bags(read, self._cells(batch), torch.from_numpy(read.value).square(), 1.0 / precision)
        return total + gradients.quadratics(variance) + (back.square() * names.reshape(back.shape)).sum((1, 2))

    def _head_variance(self, inputs: Inputs) -> Tensor:
        read = read_by_head(self.network.module, inputs).double()
        head = self.state.belief.head
        if head is None:
            return (read.square() / flat_head(self.state.belief.precision)).sum(1).float()
        half = torch.linalg.solve_triangular(self._head_root(head), read.T, upper=False)
        return half.square().sum(0).float()

    def _head_root(self, head: Tensor) -> Tensor:
        """The Cholesky factor of the last layer's precision, taken once for all batches."""
        root = torch.linalg.cholesky(head) if self._root is None else self._root
        self._root = root
        return root

    def _change(self, batch: Batch, seed: int) -> Tensor:
        """What one draw of the weights adds to each logit, ``(n,)``, to first order."""
        inputs, belief = self._inputs(batch), self.state.belief
        chance = torch.Generator().manual_seed(seed)
        head = belief.head
        if head is None:
            precision = flat_head(belief.precision) if HEAD[0] in belief.precision else torch.zeros(0).double()
            drawn = torch.randn(len(precision), generator=chance, dtype=torch.float64) / precision.sqrt()
        else:
            white = torch.randn(len(head), 1, generator=chance, dtype=torch.float64)
            drawn = torch.linalg.solve_triangular(self._head_root(head).T, white, upper=True)[:, 0]
        if self.parameters.variance == "last-layer":
            return (read_by_head(self.network.module, inputs).double() @ drawn).float()
        away = {
            name: torch.randn(p.shape, generator=chance) / p.sqrt()
            for name, p in belief.precision.items()
            if name not in HEAD
        }
        if len(drawn):
            away |= {HEAD[0]: drawn[None, :-1].float(), HEAD[1]: drawn[-1:].float()}
        return self._slope(inputs, away, self._drawn_names(batch, seed))

    def _drawn_names(self, batch: Batch, seed: int) -> Inputs:
        """What the draw of the table adds to what is read: a name has the same one in any batch."""
        every = self.state.layout.index.names
        names = np.array([every[row] for row in batch.touched.tolist()], np.dtypes.StringDType())
        precision = self.state.table.precision[batch.touched]
        table = torch.from_numpy(noise(names, [seed], precision.shape[1]) / np.sqrt(precision)).float()
        inputs = self.network.inputs(batch, batch.rows, table)
        return Inputs(torch.zeros_like(inputs.dense), inputs.wide, inputs.embedded)

    def _slope(self, inputs: Inputs, weights: Tensors, reads: Inputs) -> Tensor:
        """What changes of weights and of what is read add to each logit, to first order."""
        gradients = row_gradients(self.network.module, inputs)
        return gradients.products(weights) + (gradients.inputs.names * reads.names).sum((1, 2))

    # --- rows -----------------------------------------------------------------------------------------------

    def _batches(self, events: Events, size: int) -> Iterator[Batch]:
        for rows in rows_by_piece(events, self.state.layout):
            for first in range(0, len(rows), size):
                yield Batch.touching(
                    rows.at(np.arange(first, min(first + size, len(rows)))), self.state.table.rows
                )

    def _inputs(self, batch: Batch) -> Inputs:
        table = torch.from_numpy(self.state.table.mean[batch.touched])
        return self.network.inputs(batch, batch.rows, table)

    def _cells(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch.place[batch.rows.read.cell])
