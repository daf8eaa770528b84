"""What meta embeddings cost on one core: adapting entities and the training step, beside learn2learn's loop.

python -m benchmarks.speed.adaptation [--learn2learn PATH]

All support rows are in hand as tensors, and every way has to give the same numbers before it is timed. PATH is
learn2learn as it was unpacked: ``pip download learn2learn==0.2.0 --no-deps --no-binary :all:``, then ``tar``.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional

import acclimate as ac
from acclimate.config import MetaRankerParameters
from acclimate.features import Layout
from acclimate.learners.meta.network import network_of
from acclimate.models.meta_network import MetaNetwork, Support
from acclimate.models.rankers import Inputs

ROWS, READ, HIDDEN, SIZE, NUMBERS, TOP = 20, 64, 32, 16, 32, 64
RUNS, ENTITIES, LOOPED, RATE = 7, 2048, 64, 1.0
SCHEMA = ac.Schema(time="time", entities={"user": "user"}, labels="label")


def parameters(steps: int) -> MetaRankerParameters:
    """A meta block 64-32-16 below a global block 32+16-64-1."""
    block = ac.MetaBlock(entity="user", features=["u"], hidden=[HIDDEN], size=SIZE, steps=steps)
    return MetaRankerParameters(
        features=["x"],
        blocks={"user": block},
        ranker="mlp",
        hidden=[TOP],
        rates="fixed",
        rate=RATE,
        prior_rows=0.0,
    )


def layout() -> Layout:
    """Two vectors; a column more of each tells where it is missing."""
    sizes = {"x": NUMBERS - 1, "u": READ - 1}
    table = {name: pa.array([[0.5] * n], pa.list_(pa.float32(), n)) for name, n in sizes.items()}
    return Layout.first(list(sizes), pa.table(table), SCHEMA)


# --- the ways ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Entities with features ``u`` ``(T, 64)`` and rows ``x`` ``(2, T, 20, 32)``, labels ``y``: support, query."""

    u: Tensor
    x: Tensor
    y: Tensor

    @staticmethod
    def drawn(entities: int, seed: int = 0) -> "World":
        chance = torch.Generator().manual_seed(seed)
        u = torch.randn(entities, READ, generator=chance)
        x = torch.randn(2, entities, ROWS, NUMBERS, generator=chance)
        return World(u, x, torch.randint(0, 2, x.shape[:3], generator=chance).float())

    def few(self, entities: int) -> "World":
        return World(self.u[:entities], self.x[:, :entities], self.y[:, :entities])

    def to(self, device: torch.device) -> "World":
        return World(self.u.to(device), self.x.to(device), self.y.to(device))

    def rows(self, which: int) -> Inputs:
        """Support or query rows as a network reads them; the features of the entity are in each."""
        flat = torch.cat([self.x[which], self.u[:, None].expand(-1, ROWS, -1)], 2).reshape(-1, NUMBERS + READ)
        return Inputs(flat, flat.new_zeros(len(flat), 0), flat.new_zeros(len(flat), 0, 16))

    def support(self) -> Support:
        task = torch.arange(len(self.u), device=self.u.device).repeat_interleave(ROWS)
        label = self.y[0].reshape(-1)
        return Support(self.rows(0), [label], task, label, torch.ones_like(label), torch.zeros_like(label))


class Peer:
    """learn2learn's loop over entities, on the same weights."""

    def __init__(self, home: Path, ours: MetaNetwork, steps: int) -> None:
        block: Any = ours.blocks[0]
        ranker: Any = ours.ranker
        # What is shared with our network are the very parameters, so that gradients can be compared.
        self.block = nn.Sequential(block.layers[0], nn.ReLU(), block.layers[1])
        self.head = nn.Sequential(ranker.layers[0], nn.ReLU(), ranker.head)
        self.block.requires_grad_()
        self.maml = _maml(home).MAML(self.block, lr=RATE)
        self.steps = steps

    def _learner(self, world: World, t: int, *, first_order: bool) -> Any:
        learner = self.maml.clone(first_order=first_order)
        for _ in range(self.steps):
            learner.adapt(self._loss(learner, world, t, 0))
        return learner

    def _loss(self, learner: Any, world: World, t: int, which: int) -> Tensor:
        e = learner(world.u[t : t + 1])
        logits = self.head(torch.cat([world.x[which, t], e.expand(ROWS, -1)], 1)).squeeze(1)
        return functional.binary_cross_entropy_with_logits(logits, world.y[which, t])

    def embeddings(self, world: World) -> np.ndarray[Any, Any]:
        out = np.empty((len(world.u), SIZE), np.float32)
        for t in range(len(out)):
            learner = self._learner(world, t, first_order=True)
            with torch.no_grad():
                out[t] = learner(world.u[t : t + 1])[0]
        return out

    def train(self, world: World, *, second_order: bool) -> None:
        """Gradients of the mean loss of the query rows, into ``grad``."""
        losses = list[Tensor]()
        for t in range(len(world.u)):
            learner = self._learner(world, t, first_order=not second_order)
            losses.append(self._loss(learner, world, t, 1))
        torch.stack(losses).mean().backward()


def _maml(home: Path) -> ModuleType:
    """learn2learn's module alone: its package imports what is compiled and what is long gone."""
    for name in ("learn2learn", "learn2learn.algorithms"):
        package = ModuleType(name)
        package.__path__ = [str(home.joinpath(*name.split(".")))]
        sys.modules.setdefault(name, package)
    return importlib.import_module("learn2learn.algorithms.maml")


def train(network: MetaNetwork, world: World, support: Support, query: Inputs, *, second_order: bool) -> None:
    """Our training step: the same gradients."""
    e = network.adapted(0, world.u, support, second_order=second_order)
    logits = network(query, [e[support.task]])
    functional.binary_cross_entropy_with_logits(logits, world.y[1].reshape(-1)).backward()


# --- measuring --------------------------------------------------------------------------------------------------


def interleaved(ways: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, np.ndarray[Any, Any]]:
    """Seconds of each way in each run; in turns: whatever else the machine does, it does to all."""
    seconds = {name: np.empty(runs) for name in ways}
    for run in range(runs):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name][run] = time.perf_counter() - began
    return seconds


def spread(values: Any) -> str:
    """Median and range."""
    return f"{np.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def product_rate() -> float:
    """Floating point operations a second of one core, of a product of matrices that stay in cache."""
    a, b = (torch.randn(512, 512) for _ in range(2))
    best = min(interleaved({"": lambda: torch.mm(a, b)}, 50)[""])
    return 2 * 512**3 / best


def operations(steps: int) -> int:
    """Of adapting one entity: multiplications and additions of what cannot be left out.

    Once: what the ranker's first layer makes of the rows' own numbers, ``2 n 32 64``, and the block forward.
    In each step: ``e`` into the first layer, ``2 16 64``; of each row addition, relu, head, error, and back
    to the first layer, ``6 64``; to ``e`` ``2 16 64``; the block back, ``2 32 16``, and forward again.
    """
    forward = 2 * (READ * HIDDEN + HIDDEN * SIZE)
    step = 2 * (2 * SIZE * TOP) + ROWS * 6 * TOP + 2 * HIDDEN * SIZE + forward
    return 2 * ROWS * NUMBERS * TOP + forward + steps * step


def gradients(network: MetaNetwork) -> dict[str, Tensor]:
    """Gradients so far, taken off."""
    taken = {name: w.grad for name, w in network.named_parameters() if w.requires_grad and w.grad is not None}
    network.zero_grad(set_to_none=True)
    return taken


def adapting(peer: Path | None, steps: int) -> None:
    """Print entities a second."""
    torch.manual_seed(0)
    network, world = network_of(parameters(steps), layout()), World.drawn(ENTITIES)
    support = world.support()
    network.requires_grad_(False)
    fused = Fused.of_network(network, 0)
    assert fused is not None

    def by_torch() -> Any:
        with torch.no_grad():
            return network.adapted(0, world.u, support, second_order=False).numpy()

    few = world.few(LOOPED)
    ways: dict[str, Callable[[], Any]] = {
        "torch": by_torch,
        "kernel": lambda: fused.adapted(world.u, support),
    }
    moved = np.abs(by_torch() - network.blocks[0](world.u)[-1].numpy()).max(1)
    assert moved.min() > 1e-3  # so that equal means something
    assert_allclose(ways["kernel"](), by_torch(), rtol=1e-5, atol=1e-5)
    if peer is not None:
        loop = Peer(peer, network, steps)
        assert_allclose(loop.embeddings(few), by_torch()[:LOOPED], rtol=1e-5, atol=1e-5)
        ways = {"learn2learn": lambda: loop.embeddings(few)} | ways
    seconds = interleaved(ways)
    each = {name: s / (LOOPED if name == "learn2learn" else ENTITIES) for name, s in seconds.items()}
    floor = operations(steps) / product_rate()
    print(f"adapting, {steps} steps: {operations(steps):,} operations, floor {1 / floor:,.0f} entities/s")
    tell(each, floor)


def tell(each: dict[str, np.ndarray[Any, Any]], floor: float) -> None:
    """Print rates, and ratios in the same runs."""
    for name, s in each.items():
        ratio = f", x{spread(each['learn2learn'] / s)}" if "learn2learn" in each and name != "learn2learn" else ""
        print(f"  {name:12} {1 / np.median(s):>9,.0f} /s, {floor / np.median(s):.1%} of the floor{ratio}")


def training(peer: Path | None, *, second_order: bool) -> None:
    """Print tasks a second of the gradients of a batch."""
    network, world = network_of(parameters(1), layout()), World.drawn(ENTITIES)
    few = world.few(LOOPED)
    parts = [(w, w.support(), w.rows(1)) for w in (few, world.few(256), world)]

    def ours(number: int) -> Callable[[], None]:
        def run() -> None:
            network.zero_grad(set_to_none=True)
            train(network, *parts[number], second_order=second_order)

        return run

    ways: dict[str, Callable[[], Any]] = {"ours, 256": ours(1), f"ours, {ENTITIES}": ours(2)}
    if peer is not None:
        loop = Peer(peer, network, 1)
        gradients(network)
        ours(0)()
        mine = gradients(network)
        loop.train(few, second_order=second_order)
        theirs = gradients(network)
        assert mine.keys() == theirs.keys()
        for name, gradient in theirs.items():
            assert_allclose(mine[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
        ways = {"learn2learn": lambda: loop.train(few, second_order=second_order)} | ways
    seconds = interleaved(ways)
    tasks = dict(zip(ways, [LOOPED] * ("learn2learn" in ways) + [256, ENTITIES], strict=True))
    print(f"training step, {'second' if second_order else 'first'} order, tasks")
    tell({name: s / tasks[name] for name, s in seconds.items()}, np.nan)


def main(arguments: Sequence[str] = ()) -> None:
    """Print rates and ratios, on one core."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--learn2learn", type=Path)
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.learn2learn is None:
        print("learn2learn is left out: name it by --learn2learn PATH")
    for steps in (1, 5):
        adapting(chosen.learn2learn, steps)
    for second_order in (False, True):
        training(chosen.learn2learn, second_order=second_order)


if __name__ == "__main__":
    main(sys.argv[1:])
