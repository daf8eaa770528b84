"""The torch half of a meta ranker: its network, how it is trained on tasks, and how entities are adapted."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from acclimate.arrays import FloatArray, IntArray
from acclimate.config import MetaRankerParameters
from acclimate.features import Layout
from acclimate.learners.meta.fused import fused_gradient
from acclimate.learners.meta.tasks import Tasks, Timeline, chunks, thinned
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.learners.network.laplace import Reading, floats
from acclimate.learners.network.learning import first_held_out
from acclimate.learners.network.rows import NetworkRows
from acclimate.learners.network.training import Trained, device_of, train
from acclimate.models.meta_network import AMORTISED, MetaBlock, MetaNetwork, Places, Support
from acclimate.models.rankers import Inputs, Sizes, make_ranker
from acclimate.models.scoring import noise
from acclimate.together import processes

TABLE = "table"
_SPREAD = 0.05
"""Of the numbers of a vector at the start: small beside what they become, enough to tell names apart."""

_AT_A_TIME = {"cpu": 8192, "cuda": 1 << 18}
"""Support rows that entities are adapted on at a time: what stays in a core's cache, or keeps a device busy."""

Weights = Mapping[str, NDArray[np.float32]]


def network_of(parameters: MetaRankerParameters, layout: Layout) -> MetaNetwork:
    """The network, its weights at the start of a fit.

    Raises:
        ConfigError: there is no such ranker.
    """
    p = parameters
    reads = [_places(layout, p.features)]
    reads += [
        replace(_places(layout, block.features), adaptation=block.adaptation, steps=block.steps)
        for block in p.blocks.values()
    ]
    sizes = [block.size for block in p.blocks.values()]
    ranker = make_ranker(
        p.ranker,
        Sizes(len(reads[0].dense) + sum(sizes), len(reads[0].fields), p.embedding, p.hidden, p.crosses, p.dropout),
        p.training.seed,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of an entity without features
        torch.default_generator.manual_seed(p.training.seed)
        blocks = list[torch.nn.Module]()
        for block, place in zip(p.blocks.values(), reads[1:], strict=True):
            read = len(place.dense) + len(place.fields) * p.embedding
            if made_by := AMORTISED.get(block.adaptation):
                row = len(reads[0].dense) + len(reads[0].fields) * p.embedding + sum(sizes) - block.size
                blocks.append(made_by(read, row, block.hidden, block.size))
            else:
                blocks.append(MetaBlock(read, block.hidden, block.size, p.rate, p.rates))
    return MetaNetwork(ranker, reads[0], blocks, reads[1:], p.prior_rows)


def _places(layout: Layout, features: Sequence[str]) -> Places:
    dense, fields = (torch.from_numpy(part) for part in layout.places(features))
    return Places(dense, fields)


class Adapting:
    """A network that adapts entities and scores rows; ``rows`` says what rows of some numbers are."""

    def __init__(self, network: MetaNetwork, reading: Reading, rows: Callable[[IntArray], NetworkRows]) -> None:
        self.network, self.reading, self.rows = network, reading, rows

    def adapted(self, block: int, tasks: Tasks, table: Tensor, *, second_order: bool) -> Tensor:
        """The meta embeddings of tasks ``(T, s)``."""
        u, support = self.read(block, tasks, table, second_order=second_order)
        return self.network.adapted(block, u, support, second_order=second_order)

    def read(self, block: int, tasks: Tasks, table: Tensor, *, second_order: bool) -> tuple[Tensor, Support]:
        """The features of the tasks' entities ``(T, read)``, and their support; in the first order a constant."""
        rows = self.rows(tasks.rows)
        u = self.network.features(block, _inputs(self.reading, self.rows(tasks.features), table))
        with torch.set_grad_enabled(second_order and torch.is_grad_enabled()):
            inputs = _inputs(self.reading, rows, table)
            vectors = self.network.plain(inputs, but=block)
        columns = (floats(column, table) for column in (rows.label, rows.weight, rows.offset))
        return u, Support(inputs, vectors, torch.from_numpy(tasks.task).to(table.device), *columns)


class _Outer:
    """The outer problem over ``learn`` chunks of rows, of ``count`` rows in all, judged by those held out.

    A chunk is a set of tasks of each block: of the entities in its rows, at the moment of its first row.
    """

    def __init__(
        self,
        parameters: MetaRankerParameters,
        adapting: Adapting,
        timelines: Sequence[Timeline],
        table: Tensor,
        *,
        learn: Sequence[range],
        judge: Sequence[range],
        count: int,
    ) -> None:
        self.parameters, self.adapting, self.timelines = parameters, adapting, timelines
        self.learn, self.judge, self.count = learn, judge, count
        self.rows = len(learn)
        self.weights: dict[str, Tensor] = {
            name: w for name, w in adapting.network.named_parameters() if w.requires_grad
        } | {TABLE: table}

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        """See :class:`acclimate.learners.network.training.Problem`."""
        total = self.weights[TABLE].new_zeros(())
        for chunk in rows.tolist():
            losses, weight = self._losses(self.learn[chunk], self.parameters.thinned)
            total = total + (losses * weight).sum() / weight.sum().clamp_min(1e-9)
        return total / batch + self._penalty() * (len(rows) / batch / self.count)

    def judged(self) -> float | None:
        """The mean loss of the rows that judge, by weight."""
        if not self.judge:
            return None
        loss = total = 0.0
        self.adapting.network.eval()
        with torch.no_grad():
            for chunk in self.judge:
                losses, weight = self._losses(chunk, 0.0)
                loss, total = loss + float((losses * weight).sum()), total + float(weight.sum())
        self.adapting.network.train()
        return loss / max(total, 1e-300)

    def _losses(self, chunk: range, share: float) -> tuple[Tensor, Tensor]:
        """Of each row of a chunk, and what it counts ``(n,)``."""
        table, adapting = self.weights[TABLE], self.adapting
        rows = adapting.rows(np.arange(chunk.start, chunk.stop))
        second = self.parameters.order == "second" and torch.is_grad_enabled()
        vectors, weight = list[Tensor](), floats(rows.weight, table)
        for number, (block, timeline) in enumerate(
            zip(self.parameters.blocks.values(), self.timelines, strict=True)
        ):
            ends, sizes, first, task = timeline.at_once(chunk, block.support if block.adaptation != "none" else 0)
            if share > 0.0:
                sizes = thinned(sizes, share, torch.rand(2, len(sizes)).double().numpy())
            tasks = Tasks.of_ends(timeline.order, ends, sizes, first)
            place = torch.from_numpy(task).to(table.device)
            adapted = adapting.adapted(number, tasks, table, second_order=second)
            vectors.append(adapted.index_select(0, place))
            if number == 0 and self.parameters.weighting == "entities":
                weight = weight / weight.new_zeros(len(tasks)).index_add(0, place, weight)[place].clamp_min(1e-9)
        logits = adapting.network(_inputs(adapting.reading, rows, table), vectors) + floats(rows.offset, table)
        losses = functional.binary_cross_entropy_with_logits(logits, floats(rows.label, table), reduction="none")
        return losses, weight

    def _penalty(self) -> Tensor:
        """``1/2 w'P w`` of all weights; inner rates are held to where they started, by their logarithm."""
        p, start = self.parameters, math.log(self.parameters.rate)
        total = p.embedding_ridge * self.weights[TABLE][:, 1:].square().sum()
        for name, weight in self.weights.items():
            free = weight[:, 0] if name == TABLE else weight - start if "log_rates" in name else weight
            total = total + p.ridge * free.square().sum()
        return 0.5 * total


def trained(
    parameters: MetaRankerParameters,
    layout: Layout,
    rows: NetworkRows,
    codes: Sequence[IntArray],
    *,
    scale: NDArray[np.float32],
    checkpoint: Checkpoint | None,
) -> tuple[dict[str, NDArray[np.float32]], Trained]:
    """The weights of a fit; the newest rows are held out, say which epoch was best, and are then learned too.

    ``scale`` ``(2, k)`` has mean and spread of the dense columns.

    Raises:
        ModelError: the training ran away.
    """
    settings, device = parameters.training, device_of(parameters.training)
    held_out = first_held_out(rows, settings.holdout)
    network = network_of(parameters, layout).to(device)
    table = _first_table(parameters, layout).to(device).requires_grad_()
    adapting = Adapting(network, _reading(scale, layout, device), rows.at)
    timelines = [Timeline(code, rows.time) for code in codes]
    older = chunks(rows.time, 0, held_out, settings.batch)
    newest = chunks(rows.time, held_out, len(rows), settings.batch)
    each = replace(settings, batch=processes()[1])  # a step is of one chunk in each process
    problem = _Outer(parameters, adapting, timelines, table, learn=older, judge=newest, count=len(rows))
    done = train(
        problem, each, epochs=settings.epochs, rate=settings.rate, seed=settings.seed, checkpoint=checkpoint
    )
    if newest:
        last = _Outer(parameters, adapting, timelines, table, learn=newest, judge=(), count=len(rows))
        train(last, each, epochs=1, rate=settings.update_rate, seed=settings.seed + 1)
    weights = {name: w.detach().cpu().numpy() for name, w in network.named_parameters()}
    return weights | {TABLE: table.detach().cpu().numpy()}, done


def _first_table(parameters: MetaRankerParameters, layout: Layout) -> Tensor:
    """Weights of names at nothing, and vectors at noise that is each name's own."""
    names = np.array(layout.index.names, np.dtypes.StringDType())
    vectors = _SPREAD * noise(names, [parameters.training.seed], parameters.embedding)
    return torch.from_numpy(np.hstack([np.zeros((len(names), 1)), vectors])).float()


def shapes_of(parameters: MetaRankerParameters, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights by name."""
    shapes = {name: tuple(weight.shape) for name, weight in network_of(parameters, layout).named_parameters()}
    return shapes | {TABLE: (len(layout.index), 1 + parameters.embedding)}


def _reading(scale: NDArray[np.float32], layout: Layout, device: torch.device) -> Reading:
    centre, spread = (torch.from_numpy(part.copy()).to(device) for part in scale)
    return Reading(centre, spread, len(layout.fields))


class Refresher:
    """Weights that are learned: they adapt entities, and score rows, without changing anything.

    Entities adapt on a CUDA device where the parameters allow one and there is one. Rank-one steps have no weights
    of a task to stack: supports of all sizes lie side by side in one batch, summed by task, with no padding. Rows
    are scored on the CPU: a request is small.
    """

    def __init__(
        self, parameters: MetaRankerParameters, layout: Layout, scale: NDArray[np.float32], weights: Weights
    ) -> None:
        self.network = network_of(parameters, layout).eval()
        own = {name: torch.from_numpy(w) for name, w in weights.items() if name != TABLE}
        self.network.load_state_dict(own, assign=True)  # the very arrays: nothing is copied
        self.network.requires_grad_(False)
        self.table = torch.from_numpy(weights[TABLE])
        self.reading = _reading(scale, layout, torch.device("cpu"))
        self.sizes = [block.size for block in parameters.blocks.values()]
        allowed = parameters.training.device != "cpu" and torch.cuda.is_available()
        self.device = device_of(parameters.training) if allowed else torch.device("cpu")
        self.adapts = self.network if self.device.type == "cpu" else copy.deepcopy(self.network).to(self.device)
        self.adapts_by = self.table.to(self.device), _reading(scale, layout, self.device)

    def embeddings(
        self, block: int, tasks: Tasks, rows: Callable[[IntArray], NetworkRows], *, by_torch: bool = False
    ) -> NDArray[np.float32]:
        """The meta embeddings of tasks ``(T, s)``, some at a time: by the compiled kernel where there is one."""
        table, reading = self.adapts_by
        adapting = Adapting(self.adapts, reading, rows)
        below = None if by_torch else fused_gradient
        embeddings = np.empty((len(tasks), self.sizes[block]), np.float32)
        done = 0
        for part in _parts(tasks, _AT_A_TIME[self.device.type]):
            with torch.no_grad():
                u, support = adapting.read(block, part, table, second_order=False)
                adapted = self.adapts.adapted(block, u, support, second_order=False, below=below)
            embeddings[done : done + len(part)] = adapted.cpu().numpy()
            done += len(part)
        return embeddings

    def plain(self, rows: NetworkRows, block: int) -> NDArray[np.float32]:
        """The meta embeddings of each row's entity as they are before any step ``(n, s)``."""
        with torch.no_grad():
            return self.network.before_steps(block, _inputs(self.reading, rows, self.table)).numpy()

    def logits(self, rows: NetworkRows, vectors: Sequence[NDArray[np.float32]]) -> FloatArray:
        """Of rows with meta embeddings ``(n, s)``, a block each; with offsets, ``(n,)``."""
        with torch.no_grad():
            inputs = _inputs(self.reading, rows, self.table)
            return self.network(inputs, list(map(torch.from_numpy, vectors))).double().numpy() + rows.offset


def _inputs(reading: Reading, rows: NetworkRows, table: Tensor) -> Inputs:
    """What the blocks read of some rows; ``table`` ``(V, 1 + d)`` has the weights of all names."""
    return reading.inputs(rows.read, rows.read.cell, table)


def _parts(tasks: Tasks, most: int) -> Iterator[Tasks]:
    """Tasks some at a time, of about so many rows."""
    ends = np.searchsorted(tasks.task, np.arange(len(tasks) + 1))
    first = 0
    while first < len(tasks):
        beyond = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        last = min(max(beyond, first + 1), first + most, len(tasks))
        rows = slice(ends[first], ends[last])
        yield Tasks(tasks.rows[rows], tasks.task[rows] - first, tasks.features[first:last])
        first = last
