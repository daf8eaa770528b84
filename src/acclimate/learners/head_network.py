"""The small network of a task head, trained by the one loop."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from acclimate.arrays import FloatArray
from acclimate.config import TaskHeadParameters
from acclimate.learners.network.training import device_of, train


class _Classes:
    """Cross-entropy of classes; the last of the shuffled rows judge."""

    def __init__(self, module: nn.Module, rows: tuple[Tensor, Tensor, Tensor], held: int) -> None:
        self.module, (self.x, self.y, self.w) = module, rows
        self.rows, self.held = len(self.x) - held, held

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return dict(self.module.named_parameters())

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        return self._total(rows) / batch

    def judged(self) -> float | None:
        if not self.held:
            return None
        with torch.no_grad():
            return float(self._total(torch.arange(self.rows, self.rows + self.held))) / self.held

    def _total(self, rows: Tensor) -> Tensor:
        rows = rows.to(self.x.device)
        crossed = functional.cross_entropy(self.module(self.x[rows]), self.y[rows], reduction="none")
        return (crossed * self.w[rows]).sum()


def trained(
    parameters: TaskHeadParameters, x: FloatArray, y: FloatArray, w: FloatArray
) -> dict[str, NDArray[np.float64]]:
    """Weights of layers by number, ``(in, out)``, from standardised ``x (n, s)`` and shares ``y (n, classes)``.

    Raises:
        ModelError: the training ran away.
    """
    settings = parameters.training
    device = device_of(settings)
    order = np.random.default_rng(settings.seed).permutation(len(x))
    rows: Any = tuple(torch.from_numpy(np.float32(part[order])).to(device) for part in (x, y, w))
    widths = [x.shape[1], *parameters.hidden, y.shape[1]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        layers = [nn.Linear(one, other) for one, other in itertools.pairwise(widths)]
    parts = [part for layer in layers for part in (layer, nn.ReLU())][:-1]
    module = nn.Sequential(*parts).to(device)
    problem = _Classes(module, rows, int(settings.holdout * len(x)))
    train(problem, settings, epochs=settings.epochs, rate=settings.rate, seed=settings.seed)
    return {
        f"{number}.{name}": weight.detach().cpu().numpy().T.astype(np.float64)
        for number, layer in enumerate(layers)
        for name, weight in layer.named_parameters()
    }
