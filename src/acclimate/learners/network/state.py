"""What a network knows: a posterior over its own weights, and one row of a table for each name; on disk too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.arrays import IntArray
from acclimate.config import Schema, SequentialLaplaceParameters
from acclimate.features import Layout
from acclimate.learners.base import Packed
from acclimate.learners.entities import with_room
from acclimate.learners.network.laplace import HEAD, TABLE, Belief
from acclimate.learners.network.rows import NetworkRows
from acclimate.models.rankers import Sizes, make_ranker, with_last_layer
from acclimate.storage import Stored


class Table:
    """The embeddings of names, ``(V, 1 + d)``: ``mean`` and ``precision``; changed in place, row by row."""

    def __init__(self, mean: NDArray[np.float32], precision: NDArray[np.float32]) -> None:
        self._mean, self._precision, self.rows = mean, precision, len(mean)

    @property
    def mean(self) -> NDArray[np.float32]:  # noqa: D102
        return self._mean[: self.rows]

    @property
    def precision(self) -> NDArray[np.float32]:  # noqa: D102
        return self._precision[: self.rows]

    def with_names(self, home: IntArray) -> "Table":
        """With rows for new names, at the population of their field; the rows so far are the same memory."""
        grown = Table(self._mean, self._precision)
        grown.rows = len(home)
        grown._mean, grown._precision = (with_room(a, len(home)) for a in (self._mean, self._precision))
        for array in (grown._mean, grown._precision):
            array[self.rows : len(home)] = array[home[self.rows :]]
        return grown

    def put(self, rows: IntArray, mean: Tensor, precision: Tensor) -> None:
        """Change some rows."""
        self._mean[rows], self._precision[rows] = mean.cpu().numpy(), precision.cpu().numpy()


@dataclass(frozen=True)
class NetworkState:
    """What a network knows.

    ``belief`` is over its own weights, ``table`` over those of names; ``first`` is both as the fit left them,
    where the cold weight asks for it; ``log_odds`` those of the rows of the fit. ``centre`` and ``spread``
    ``(k,)`` standardise the dense columns. An update changes rows of the table in place: the state before it is
    none any more.
    """

    label: str
    contract: dict[str, Any]
    cut: int
    layout: Layout
    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    belief: Belief
    table: Table
    log_odds: float
    first: tuple[Belief, Table] | None = None
    temperature: float = 1.0
    updates: int = 0


# --- a state before anything is learned -----------------------------------------------------------------------


def module_of(parameters: SequentialLaplaceParameters, layout: Layout) -> nn.Module:
    """The network, its weights at the start of a fit.

    Raises:
        ConfigError: there is no such ranker, or none with a last layer where that is asked for.
    """
    p = parameters
    sizes = Sizes(len(layout.dense), len(layout.fields), p.embedding, p.hidden, p.crosses, p.dropout)
    module = make_ranker(p.ranker, sizes, p.training.seed)
    return with_last_layer(module) if p.last_layer == "full" else module


def unlearned(
    parameters: SequentialLaplaceParameters, schema: Schema, rows: NetworkRows, layout: Layout
) -> NetworkState:
    """At the prior: the ridge around 0, and the bias around the log-odds of the rows."""
    centre, spread = rows.scale()
    positive, negative = (rows.weight @ share + 0.5 for share in (rows.label, 1.0 - rows.label))
    log_odds = float(np.log(positive) - np.log(negative))
    width = 1 + parameters.embedding
    precision = np.full((len(layout.index), width), parameters.embedding_ridge, np.float32)
    precision[:, 0] = parameters.ridge
    return NetworkState(
        label=schema.label(parameters.label),
        contract=schema.content(),
        cut=int(rows.time.max()),
        layout=layout,
        centre=centre,
        spread=spread,
        log_odds=log_odds,
        belief=prior(parameters, layout, log_odds),
        table=Table(np.zeros_like(precision), precision),
    )


def prior(parameters: SequentialLaplaceParameters, layout: Layout, log_odds: float) -> Belief:
    """The network's own weights before any data."""
    weights = dict(module_of(parameters, layout).named_parameters())
    mean = {name: torch.zeros_like(weight.detach()) for name, weight in weights.items()}
    precision = {name: torch.full_like(weight.detach(), parameters.ridge) for name, weight in weights.items()}
    if HEAD[1] in mean:
        mean[HEAD[1]].fill_(log_odds)
    if parameters.last_layer == "diagonal":
        return Belief(mean, precision)
    size = mean[HEAD[0]].numel() + 1
    return Belief(mean, precision, parameters.ridge * torch.eye(size, dtype=torch.float64))


# --- on disk ------------------------------------------------------------------------------------------------


def packed(state: NetworkState) -> Packed:
    """A state as it goes to disk."""
    layout, names = state.layout.described()
    arrays = {"scale": np.stack([state.centre, state.spread]), **belief_arrays("", state.belief, state.table)}
    if state.first is not None:
        arrays |= belief_arrays("first.", *state.first)
    manifest = {**layout, **{name: getattr(state, name) for name in _FACTS}}
    return Packed(manifest, arrays, {"names": names})


_FACTS = ("log_odds", "temperature", "updates")


def unpacked(stored: Stored, parameters: SequentialLaplaceParameters, known: dict[str, Any]) -> NetworkState:
    """The state.

    Raises:
        ValueError: parts do not belong together.
    """
    told, names = stored.manifest, stored.tables["names"]
    layout = Layout.restored(told, names)
    shapes = {name: tuple(w.shape) for name, w in module_of(parameters, layout).named_parameters()}
    width, arrays = 1 + parameters.embedding, stored.arrays
    belief, table = _unpacked_belief("", arrays, shapes | {TABLE: (len(names), width)}, parameters)
    first = None
    if "first.mean/table" in arrays:
        rows = len(arrays["first.mean/table"])
        first = _unpacked_belief("first.", arrays, shapes | {TABLE: (min(rows, len(names)), width)}, parameters)
    _check_shape("scale", arrays["scale"], (2, len(layout.dense)))
    centre, spread = arrays["scale"]
    facts = {name: told[name] for name in _FACTS}
    return NetworkState(
        **known, layout=layout, centre=centre, spread=spread, belief=belief, table=table, first=first, **facts
    )


def belief_arrays(prefix: str, belief: Belief, table: Table) -> dict[str, NDArray[Any]]:
    """All arrays of a posterior, by name."""
    parts = {"mean": belief.mean, "precision": belief.precision}
    arrays = {
        f"{prefix}{part}/{name}": w.numpy() for part, by_name in parts.items() for name, w in by_name.items()
    }
    arrays |= {f"{prefix}mean/{TABLE}": table.mean, f"{prefix}precision/{TABLE}": table.precision}
    return arrays if belief.head is None else {**arrays, f"{prefix}head": belief.head.numpy()}


def _unpacked_belief(
    prefix: str,
    arrays: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: SequentialLaplaceParameters,
) -> tuple[Belief, Table]:
    parts: dict[str, dict[str, NDArray[Any]]] = {"mean": {}, "precision": {}}
    for part, by_name in parts.items():
        for name, shape in shapes.items():
            array = arrays[f"{prefix}{part}/{name}"]
            _check_shape(f"{prefix}{part}/{name}", array, shape)
            by_name[name] = array.copy()  # what is read is of the file, and not to be written to
    table = Table(*(by_name.pop(TABLE) for by_name in parts.values()))
    mean, precision = ({name: torch.from_numpy(a) for name, a in p.items()} for p in parts.values())
    if parameters.last_layer == "diagonal":
        return Belief(mean, precision), table
    size = mean[HEAD[0]].numel() + 1
    _check_shape(f"{prefix}head", arrays[f"{prefix}head"], (size, size))
    return Belief(mean, precision, torch.from_numpy(arrays[f"{prefix}head"].copy())), table


def _check_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} is of shape {array.shape}, not {shape}")
