"""The training of an encoder: entities at moments of their past, made out from what is left of their inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.arrays import IntArray
from acclimate.config import UserEncoderParameters
from acclimate.learners.encoder.inputs import Plan
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.learners.network.training import Trained, device_of, train
from acclimate.models.autoencoder import Autoencoder, Columns, Corruption
from acclimate.models.encoding import EncoderWeights

Inputs = Callable[[IntArray], NDArray[np.float32]]
"""Raw inputs ``(n, D)`` of some moments."""

_JUDGED_AT_A_TIME = 4096

_FLAT = 1e-6
"""A spread that is so small is rounding, or of counts that have faded: in such a unit a fresh one is huge."""


@dataclass(frozen=True)
class Scale:
    """``(x - centre) / spread`` are the standardised columns, both ``(D,)``; names and flags are as they are."""

    centre: NDArray[np.float32]
    spread: NDArray[np.float32]

    @staticmethod
    def fitted(plan: Plan, x: NDArray[np.float32]) -> "Scale":
        """From inputs ``(n, D)``, of what is present."""
        centre, spread = np.zeros(plan.width), np.ones(plan.width)
        for group in plan.groups:
            for block in group.blocks:
                there = x[x[:, block.presence] == 1.0, block.begin : block.end].astype(np.float64)
                if not block.names and len(there):
                    centre[block.begin : block.end] = there.mean(axis=0)
                    deviation = there.std(axis=0)
                    spread[block.begin : block.end] = np.where(deviation > _FLAT, deviation, 1.0)
        return Scale(centre.astype(np.float32), spread.astype(np.float32))


@dataclass(frozen=True)
class Moments:
    """What is trained on: ``inputs`` by number, oldest first, of so many ``rows``, and what scales them."""

    inputs: Inputs
    rows: int
    scale: Scale


class _Reconstruction:
    """The problem that the loop solves; the ``held`` moments, the newest, judge it."""

    def __init__(self, module: Autoencoder, moments: Moments, how: Corruption, held: int) -> None:
        self.module, self.inputs, self.how = module, moments.inputs, how
        self.rows, self.held = moments.rows - held, held
        self.device = module.weight.device
        scale = moments.scale
        self.centre, self.spread = (torch.from_numpy(a).to(self.device) for a in (scale.centre, scale.spread))

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return dict(self.module.named_parameters())

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        z = self._standardised(rows.numpy())
        return self.module.loss(z, self.module.corrupted(z, self.how)).sum() / batch

    def judged(self) -> float | None:
        """The mean loss of the newest moments, nothing hidden."""
        if not self.held:
            return None
        total = 0.0
        with torch.no_grad():
            for rows in np.array_split(
                np.arange(self.rows, self.rows + self.held), 1 + self.held // _JUDGED_AT_A_TIME
            ):
                z = self._standardised(rows)
                total += float(self.module.loss(z, z).sum())
        return total / self.held

    def _standardised(self, rows: IntArray) -> Tensor:
        return (torch.from_numpy(self.inputs(rows)).to(self.device) - self.centre) / self.spread


def trained(
    parameters: UserEncoderParameters, plan: Plan, moments: Moments, checkpoint: Path | None, key: str
) -> tuple[EncoderWeights, Trained]:
    """The weights of an encoder, and how its training went, which is kept in a file as that of the ``key``.

    Raises:
        ModelError: the training ran away.
    """
    settings = parameters.training
    edges = tuple((group.begin, group.end) for group in plan.groups)
    blocks = [Columns(b.begin, b.end, b.presence, b.names) for group in plan.groups for b in group.blocks]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = Autoencoder(
            edges, blocks, parameters.code, parameters.hidden, parameters.size, normalised=parameters.normalised
        ).to(device_of(settings))
    how = Corruption(parameters.noise, parameters.masked, parameters.group_dropout)
    held = min(int(settings.holdout * moments.rows), moments.rows - 1)
    problem = _Reconstruction(module, moments, how, held)
    kept = None if checkpoint is None else Checkpoint(checkpoint, key)
    done = train(
        problem, settings, epochs=settings.epochs, rate=settings.rate, seed=settings.seed, checkpoint=kept
    )
    if kept is not None:
        kept.clear()
    return _folded(module, moments.scale), done


def _folded(module: Autoencoder, scale: Scale) -> EncoderWeights:
    """The weights that read raw inputs: ``((x - m) / s) W + b = x (W / s) + (b - (m / s) W)``."""
    weights = {name: weight.detach().cpu().numpy().T for name, weight in module.named_parameters()}
    codes, biases = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for g, (first, last) in enumerate(module.edges):
        code: Any = weights[f"codes.{g}.weight"] / scale.spread[first:last, None]
        codes.append(np.ascontiguousarray(code))
        biases.append(weights[f"codes.{g}.bias"] - scale.centre[first:last] @ code)
    named = ("fusion.weight", "fusion.bias", "vector.weight", "vector.bias")
    others: Any = (np.ascontiguousarray(weights[name]) for name in named)
    return EncoderWeights(
        tuple(module.edges),
        codes,
        np.concatenate(biases).astype(np.float32),
        *others,
        normalised=module.normalised,
    )
