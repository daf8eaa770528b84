"""What meta embeddings cost: adapting entities, the training step, a million refreshed, and requests served.

python -m benchmarks.speed.adaptation [--learn2learn PATH] [--device cuda] [--entities 1000000]

One core, in single precision, seconds of the process. Every way has to give the same numbers before it is timed.
Ratios are of runs in turns, with their range. PATH is learn2learn unpacked, as
``pip download learn2learn==0.2.0 --no-deps --no-binary :all:`` brings it; without, ratios are left out.
With ``--device cuda`` rows of the torch path on that device come beside, in seconds of the wall clock.
"""

import argparse
import importlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

import acclimate as ac
from acclimate.config import MetaRankerParameters
from acclimate.features import FieldRows, Layout
from acclimate.learners.carried import Carried
from acclimate.learners.encoder.histories import Log
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.meta.buffer import Supports
from acclimate.learners.meta.fused import fused_gradient
from acclimate.learners.meta.learning import check_parity
from acclimate.learners.meta.network import TABLE, network_of
from acclimate.learners.meta.state import Embeddings, MetaState
from acclimate.learners.network.rows import NetworkRows
from acclimate.learners.network.scoring import Scoring
from acclimate.models.meta_network import MetaNetwork, Support
from acclimate.models.rankers import Inputs
from benchmarks.speed import _children

ROWS, READ, HIDDEN, SIZE, NUMBERS, TOP = 20, 64, 32, 16, 32, 64
RUNS, LOOPED, RATE = 9, 64, 1.0
BATCHES = {"cpu": (8, 256), "cuda": (4, 16_384)}
"""How many batches of how many entities: what stays in a core's cache, or keeps a device busy."""
SCHEMA = ac.Schema(time="time", entities={"user": "user"}, labels="label")


def parameters(steps: int = 1, device: Any = "cpu") -> MetaRankerParameters:
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
        training=ac.Training(device=device),
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
        """Numbers of chance."""
        chance = torch.Generator().manual_seed(seed)
        u = torch.randn(entities, READ, generator=chance)
        x = torch.randn(2, entities, ROWS, NUMBERS, generator=chance)
        return World(u, x, torch.randint(0, 2, x.shape[:3], generator=chance).float())

    def few(self, entities: int) -> "World":
        """The first ones."""
        return World(self.u[:entities], self.x[:, :entities], self.y[:, :entities])

    def to(self, device: str) -> "World":
        """The same on a device."""
        return World(self.u.to(device), self.x.to(device), self.y.to(device))

    def rows(self, which: int) -> Inputs:
        """Support or query rows as a network reads them; the features of the entity are in each."""
        flat = torch.cat([self.x[which], self.u[:, None].expand(-1, ROWS, -1)], 2).reshape(-1, NUMBERS + READ)
        return Inputs(flat, flat.new_zeros(len(flat), 0), flat.new_zeros(len(flat), 0, 16))

    def support(self) -> Support:
        """The support rows, entity by entity."""
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
        """Of each entity after its inner steps."""
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


def by_vmap(network: MetaNetwork, steps: int, world: World) -> Tensor:
    """The field's other way: weights of each task side by side, and the gradient of one task mapped over all."""
    block: Any = network.blocks[0]
    ranker: Any = network.ranker
    layers = nn.Sequential(block.layers[0], nn.ReLU(), block.layers[1])
    head = nn.Sequential(ranker.layers[0], nn.ReLU(), ranker.head)
    start = {name: w.detach() for name, w in layers.named_parameters()}

    def loss(weights: dict[str, Tensor], u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        e = functional_call(layers, weights, (u,))
        logits = head(torch.cat([x, e.expand(ROWS, -1)], 1)).squeeze(1)
        return functional.binary_cross_entropy_with_logits(logits, y)

    def adapted(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        weights = start
        for _ in range(steps):
            slopes = grad(loss)(weights, u, x, y)
            weights = {name: w - RATE * slopes[name] for name, w in weights.items()}
        return functional_call(layers, weights, (u,))

    with torch.no_grad():
        return vmap(adapted)(world.u, world.x[0], world.y[0])


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
    logits = network(query, [e.index_select(0, support.task)])
    functional.binary_cross_entropy_with_logits(logits, world.y[1].reshape(-1)).backward()


# --- measuring --------------------------------------------------------------------------------------------------


def interleaved(ways: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, np.ndarray[Any, Any]]:
    """Seconds of each way in each run; in turns: whatever else the machine does, it does to all.

    Of the process, so that others on the machine count less; of the wall clock where a device does the work.
    """
    seconds = {name: np.empty(runs) for name in ways}
    for run in range(-1, runs):  # the first one does not count
        for name, way in ways.items():
            clock = time.perf_counter if name == "cuda" else time.process_time
            began = clock()
            way()
            if name == "cuda":
                torch.cuda.synchronize()
            seconds[name][run] = clock() - began
    return seconds


def spread(values: Any) -> str:
    """Median and range."""
    return f"{np.median(values):,.3g} ({min(values):,.3g} to {max(values):,.3g})"


def product_rate() -> float:
    """Floating point operations a second of one core, of a product of matrices that stay in cache."""
    a, b = (torch.randn(512, 512) for _ in range(2))
    return 2 * 512**3 / float(np.median(interleaved({"": lambda: torch.mm(a, b)}, 50)[""]))


FORWARD = 2 * (READ * HIDDEN + HIDDEN * SIZE)
ROWS_IN, E_IN = 2 * ROWS * NUMBERS * TOP, 2 * SIZE * TOP


def operations(steps: int) -> int:
    """Of adapting one entity: multiplications and additions that cannot be left out.

    Once: what the ranker's first layer makes of the rows' own numbers, ``2 n 32 64``, and the block forward. In
    each step: ``e`` into the first layer and the gradient back to it, ``2 (2 16 64)``; of each row the sum, the
    units above 0, the logit and what goes back, ``6 64``; the block back, ``2 32 16``, and forward again.
    """
    return ROWS_IN + FORWARD + steps * (2 * E_IN + ROWS * 6 * TOP + 2 * HIDDEN * SIZE + FORWARD)


def training_operations(second_order: bool) -> int:
    """Of the gradients of a task of one step and 20 query rows.

    Adapting; the query forward, ``2 n 32 64 + 4 n 64``, and the same again for weights; the block back to weights
    and inputs. In the second order the support rows give to the weights too, and the block goes back twice.
    """
    first = operations(1) + 2 * (ROWS_IN + ROWS * 4 * TOP + 2 * E_IN) + 2 * FORWARD
    return first + second_order * (ROWS_IN + ROWS * 4 * TOP + 2 * E_IN + 2 * FORWARD)


def tell(title: str, each: dict[str, np.ndarray[Any, Any]], count: int) -> None:
    """Print rates, shares of the floor of so many operations, and ratios in the same runs."""
    floor = count / product_rate()
    print(f"{title}: {count:,} operations, floor {1 / floor:,.0f} /s")
    for name, s in each.items():
        ratio = f", x{spread(each['learn2learn'] / s)}" if "learn2learn" in each and name != "learn2learn" else ""
        share = "" if name == "cuda" else f", {floor / np.median(s):.1%} of the floor"
        print(f"  {name:12} {1 / np.median(s):>12,.0f} /s{share}{ratio}")


# --- adapting, and the training step ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Batches:
    """A network, and entities some at a time, on a device."""

    network: MetaNetwork
    parts: list[tuple[World, Support, Inputs]]

    @staticmethod
    def drawn(steps: int, device: str) -> "Batches":
        """Weights of one seed, and so many entities as :data:`BATCHES` says."""
        count, size = BATCHES[device]
        torch.manual_seed(0)
        worlds = [World.drawn(size, seed).to(device) for seed in range(count)]
        network = network_of(parameters(steps), layout()).to(device)
        return Batches(network, [(world, world.support(), world.rows(1)) for world in worlds])

    @property
    def entities(self) -> int:
        """In all."""
        return sum(len(world.u) for world, *_ in self.parts)

    def adapted(self, below: Any = None) -> np.ndarray[Any, Any]:
        """Embeddings of all entities."""
        with torch.no_grad():
            parts = [
                self.network.adapted(0, world.u, support, second_order=False, below=below).cpu().numpy()
                for world, support, _ in self.parts
            ]
        return np.concatenate(parts)

    def train(self, *, second_order: bool) -> None:
        """Gradients of the mean loss of the query rows of each part, one after another."""
        for part in self.parts:
            self.network.zero_grad(set_to_none=True)
            train(self.network, *part, second_order=second_order)


def gradients(network: MetaNetwork) -> dict[str, Tensor]:
    """Gradients so far, taken off."""
    taken = {name: w.grad for name, w in network.named_parameters() if w.grad is not None}
    network.zero_grad(set_to_none=True)
    return taken


def adapting(chosen: argparse.Namespace, steps: int) -> None:
    """Print entities a second."""
    on_core = Batches.drawn(steps, "cpu")
    few, network = on_core.parts[0][0].few(LOOPED), on_core.network
    expected = on_core.adapted()
    with torch.no_grad():
        moved = np.abs(expected[:LOOPED] - network.blocks[0](few.u)[-1].numpy()).max(1)
    assert moved.min() > 1e-3  # so that equal means something
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "torch": (on_core.adapted, on_core.entities),
        "kernel": (lambda: on_core.adapted(fused_gradient), on_core.entities),
        "torch vmap": (
            lambda: np.concatenate([by_vmap(network, steps, world).numpy() for world, *_ in on_core.parts]),
            on_core.entities,
        ),
    }
    if chosen.device == "cuda":
        away = Batches.drawn(steps, "cuda")
        same = Batches(away.network, [(w.to("cuda"), w.to("cuda").support(), None) for w, *_ in on_core.parts])
        assert_allclose(same.adapted(), expected, rtol=1e-5, atol=1e-5)
        ways["cuda"] = away.adapted, away.entities
    if chosen.learn2learn is not None:
        loop = Peer(chosen.learn2learn, network, steps)
        assert_allclose(loop.embeddings(few), expected[:LOOPED], rtol=1e-5, atol=1e-5)
        ways["learn2learn"] = lambda: loop.embeddings(few), LOOPED
    for name in ("kernel", "torch vmap"):
        assert_allclose(ways[name][0](), expected, rtol=1e-5, atol=1e-5)
    seconds = interleaved({name: way for name, (way, _) in ways.items()})
    each = {name: s / ways[name][1] for name, s in seconds.items()}
    tell(f"adapting by {steps} steps, entities", each, operations(steps))


def training(chosen: argparse.Namespace, *, second_order: bool) -> None:
    """Print tasks a second of the gradients of a batch."""
    on_core = Batches.drawn(1, "cpu")
    network, few = on_core.network, on_core.parts[0][0].few(LOOPED)
    ways: dict[str, tuple[Callable[[], Any], int]] = {}
    everything = {"ours": on_core} | ({"cuda": Batches.drawn(1, "cuda")} if chosen.device == "cuda" else {})
    for name, batches in everything.items():
        ways[name] = partial(batches.train, second_order=second_order), batches.entities
    train(network, few, few.support(), few.rows(1), second_order=second_order)
    mine, kept = gradients(network), list[dict[str, Tensor]]()
    if chosen.device == "cuda":
        there, model = few.to("cuda"), everything["cuda"].network
        train(model, there, there.support(), there.rows(1), second_order=second_order)
        kept.append(gradients(model))
    if chosen.learn2learn is not None:
        loop = Peer(chosen.learn2learn, network, 1)
        loop.train(few, second_order=second_order)
        kept.append(gradients(network))
        ways["learn2learn"] = lambda: loop.train(few, second_order=second_order), LOOPED
    for theirs in kept:
        assert mine.keys() == theirs.keys()
        for name, gradient in theirs.items():
            assert_allclose(mine[name], gradient.cpu(), rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    seconds = interleaved({name: way for name, (way, _) in ways.items()})
    each = {name: s / ways[name][1] for name, s in seconds.items()}
    order = "second" if second_order else "first"
    tell(f"training step, {order} order, tasks", each, training_operations(second_order))


# --- many entities refreshed ------------------------------------------------------------------------------------


def crowd(entities: int, device: str) -> ac.MetaRanker:
    """A ranker that has 20 rows of each of so many entities, one of each in turn, and none adapted yet."""
    p, rng = parameters(device=device), np.random.default_rng(0)
    model = ac.MetaRanker(**{name: getattr(p, name) for name in p.__dataclass_fields__ if name != "kind"})
    supports, width = Supports(0, [ROWS]), NUMBERS + READ
    numbers = np.empty((entities, ROWS), np.int32)
    drawn = rng.standard_normal((65_536, width), np.float32)
    for turn in range(ROWS):
        who = rng.permutation(entities)
        numbers[who, turn] = supports.buffer.count + np.arange(entities)
        for part in np.array_split(who, max(1, entities // 50_000)):
            n = len(part)
            dense = drawn[(part + turn * 7919) % len(drawn)]
            dense[:, NUMBERS:] = drawn[part % len(drawn), NUMBERS:]
            read = FieldRows(dense, np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(1, np.int64))
            label = (rng.random(n) < 0.5).astype(float)
            supports.buffer.add(NetworkRows(read, label, np.ones(n), np.zeros(n), np.full(n, turn)))
    supports.histories[0].grow(entities)
    flat = numbers.reshape(-1)
    starts = ROWS * np.arange(entities + 1)
    times = np.tile(np.arange(ROWS), entities)
    supports.histories[0].put(np.arange(entities), Log(times, flat, np.zeros(len(flat), np.uint8), starts))
    network = network_of(p, layout())
    weights = {name: w.detach().numpy() for name, w in network.named_parameters()}
    model.state = MetaState(
        label="label",
        contract=SCHEMA.content(),
        cut=ROWS,
        space="0" * 16,
        layout=layout(),
        scale=np.stack([np.zeros(width), np.ones(width)]).astype(np.float32),
        weights=weights | {TABLE: np.zeros((0, 1 + p.embedding), np.float32)},
        ids=(Numbered.restored("user", "int64", np.arange(entities), np.arange(entities))[0],),
        embeddings=(Embeddings(SIZE),),
        supports=supports,
    )
    return model


def refresh(entities: int, device: str) -> None:
    """Adapt all of a crowd, as an update does those that it touches, and say what it took."""
    model = crowd(entities, device)
    state = model.state
    assert state is not None
    model._adapt(state, [np.arange(min(entities, 10_000))])  # compiled, and the network made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    model._adapt(state, [np.arange(entities)])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_parity(model.parameters, state)
    written = sum(part.nbytes for _, _, columns in Carried(model).everything() for part in columns.values())
    _children.tell(
        seconds=seconds,
        cpu=cpu,
        before=before,
        peak=peak,
        kept=model.nbytes,
        embedding=state.embeddings[0].nbytes,
        written=written,
    )


def refreshing(entities: int, device: str) -> None:
    """Print what a refresh of so many took, in a process of its own."""
    said = _children.run(
        "benchmarks.speed.adaptation", "--refresh", "--entities", entities, "--device", device
    ).said
    print(f"{entities:,} entities of {ROWS} rows refreshed on {device}, from buffer to embedding:")
    print(
        f"  {said['seconds']:.1f} s ({said['cpu']:.1f} s of the process), peak {said['peak'] / 1e6:.2f} GB, "
        f"{said['before'] / 1e6:.2f} GB before"
    )
    print(
        f"  {said['kept'] / entities:,.0f} bytes kept of each, {said['embedding'] / entities:.0f} of these its "
        f"embedding; a save writes {said['written'] / 1e9:.2f} GB"
    )


# --- requests ---------------------------------------------------------------------------------------------------


def serving() -> None:
    """Print what a request costs, one user and some items, with meta embeddings and by the same ranker without.

    That one reads the same features, or the two ids as names too; its network is made once like the other's.
    """
    world = ac.simulate(users=5_000, items=2_000, events_per_day=20_000, days=6, seed=0).cached()
    past = world.before("2024-01-06").cached()
    asked = past.after("2024-01-05").table()  # of known users and items: embeddings are looked up
    shared, training = ["surface", "position", "topics", "duration"], ac.Training(epochs=1, device="cpu")
    with_blocks = ac.MetaRanker(
        features=shared,
        blocks={"user": ac.MetaBlock(entity="user"), "item": ac.MetaBlock(entity="item", features=["topics"])},
        training=training,
    ).fit(past)
    others = {
        name: ac.SequentialLaplace(features=features, training=training).fit(past)
        for name, features in {"without": shared, "ids as names": [*shared, "user_id", "item_id"]}.items()
    }
    scoring = {name: Scoring(model.parameters, model._fitted()) for name, model in others.items()}

    def plainly(name: str, request: ac.Events) -> object:
        others[name]._fitted(request.schema)  # that the schema is the model's is checked in both
        return scoring[name].probabilities(request, "point", 0)

    for candidates in (1, 100, 1000):
        rows = asked.slice(0, candidates)
        user = pa.array([rows["user_id"][0].as_py()] * candidates, rows["user_id"].type)
        rows = rows.set_column(rows.column_names.index("user_id"), "user_id", user)
        request = ac.read_events(rows, world.schema).cached()
        ways: dict[str, Callable[[], object]] = {"meta embeddings": partial(with_blocks.predict, request)}
        ways |= {name: partial(plainly, name, request) for name in scoring}
        seconds = interleaved(ways, 201)
        print(f"a request of {candidates:,} items: {np.median(seconds['meta embeddings']) * 1e3:.2f} ms")
        for name in scoring:
            low, middle, high = np.quantile(seconds["meta embeddings"] / seconds[name], [0.25, 0.5, 0.75])
            took = np.median(seconds[name]) * 1e3
            print(f"  {name:12} {took:.2f} ms, x{middle:.2f} with meta embeddings ({low:.2f} to {high:.2f}, half)")


def main(arguments: Sequence[str] = ()) -> None:
    """Print rates and ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--learn2learn", type=Path)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--entities", type=int, default=1_000_000)
    options.add_argument("--refresh", action="store_true", help="that part alone, as JSON")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    # A process that has let a large array go keeps its pages: else each temporary of a few MB is mapped anew.
    np.ones(30 << 17).sum()
    if chosen.refresh:
        refresh(chosen.entities, chosen.device)
        return
    if chosen.learn2learn is None:
        print("learn2learn is left out: name it by --learn2learn PATH")
    for steps in (1, 5):
        adapting(chosen, steps)
    for second_order in (False, True):
        training(chosen, second_order=second_order)
    for device in dict.fromkeys(["cpu", chosen.device]):
        refreshing(chosen.entities, device)
    serving()


if __name__ == "__main__":
    main(sys.argv[1:])
