"""A network that keeps learning from new events alone, anchored by the curvature of all that it has seen.

Ouyang et al., arXiv 2108.13299, the deep extension; :mod:`acclimate.learners.network.laplace` has the mathematics.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from acclimate.arrays import FloatArray
from acclimate.artifacts import Events
from acclimate.config import SequentialLaplaceParameters
from acclimate.errors import DataError
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.learners.network.laplace import HEAD
from acclimate.learners.network.learning import Learning, NetworkInfo
from acclimate.learners.network.rows import NetworkRows, read_layout, read_rows
from acclimate.learners.network.scoring import Scoring
from acclimate.learners.network.state import NetworkState, belief_arrays, packed, unlearned, unpacked
from acclimate.models.rankers import has_last_layer
from acclimate.models.scoring import Mode
from acclimate.storage import Stored

_UNJUDGED = (
    "nothing was held out to judge this by (training.holdout is 0, or all rows are of one instant): no epoch was "
    "chosen, and no update is refused"
)


class SequentialLaplace(Fitted[NetworkState]):
    """A network with a Gaussian posterior over its weights, updated from new rows alone.

    Its arguments are the fields of :class:`acclimate.config.SequentialLaplaceParameters`.
    """

    kind: ClassVar[str] = "sequential-laplace"

    @declared_by(SequentialLaplaceParameters)
    def __init__(self, parameters: SequentialLaplaceParameters) -> None:
        self.parameters: SequentialLaplaceParameters = parameters
        self.state: NetworkState | None = None
        self.info: NetworkInfo | None = None

    def fit(self, events: Events, *, checkpoint: str | Path | None = None) -> Self:
        """Learn from these events alone.

        The newest rows are held out: they say which epoch was best and how warm the logits are, and are then
        learned by an update.

        Args:
            events: the rows; those whose label is not known are left out.
            checkpoint: a file that the training is kept in while it lasts: after a kill the same call goes on.

        Raises:
            DataError: no row has a label, or rows are not allowed.
            ModelError: the training ran away; what was known stays.
            ConfigError: there is no such ranker, or no such device.
        """
        label = events.schema.label(self.parameters.label)
        rows, layout = read_rows(events, None, tuple(self.parameters.features), label)
        if layout is None or not len(rows):
            raise DataError(f"no event has a known label '{label}'", hint="look at events.describe()")
        state = unlearned(self.parameters, events.schema, rows, layout)
        kept = (
            None
            if checkpoint is None
            else Checkpoint(Path(checkpoint), self._key(rows, state.contract, layout.index.names))
        )
        self.state, self.info = Learning(self.parameters, state, rows).fit(kept)
        if kept is not None:
            kept.clear()
        return self

    def update(self, events: Events) -> Self:
        """Learn from new events; the past enters through the posterior alone.

        An update that makes its newest rows, which are learned last, less likely than ``refuse_above`` allows, or
        whose training runs away, is undone: nothing is learned, and ``info.refused`` says why.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
        """
        return self._learn_more(events, "update")

    def fine_tune(self, events: Events) -> Self:
        """Train on new events without an anchor, as :meth:`update` is not: what was known counts as a start alone.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
            ModelError: the training ran away; what was known stays.
        """
        return self._learn_more(events, "fine_tune")

    def _learn_more(self, events: Events, verb: str) -> Self:
        before = self._fitted(events.schema)
        rows, layout = read_rows(events, before.layout, before.layout.features, before.label)
        if layout is None or not len(rows):
            self.info = NetworkInfo(0)
            return self
        state = replace(before, layout=layout, table=before.table.with_names(layout.home))
        learned, self.info = getattr(Learning(self.parameters, state, rows), verb)()
        self.state = learned or before
        return self

    def predict(self, events: Events, *, mode: Mode = "point", seed: int = 0) -> FloatArray:
        """Probabilities of the label, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        Args:
            events: the rows; names never seen are at the population of their field.
            mode: ``point`` at the weights' means, ``integrated`` over the posterior of the last layer (or of all
                weights, to first order: the parameter ``variance``), ``thompson`` at one draw of these weights,
                the same for all rows.
            seed: of the draw.

        Raises:
            ConfigError: there is no such mode.
        """
        return Scoring(self.parameters, self._fitted(events.schema)).probabilities(events, mode, seed)

    def vectors(self, events: Events) -> FloatArray:
        """What the last layer reads of each row, ``(n, size)``: the network's own features.

        Raises:
            ConfigError: the network is none of those whose last layer is known.
        """
        return Scoring(self.parameters, self._fitted(events.schema)).vectors(events)

    @property
    def has_vectors(self) -> bool:
        """Whether the last layer is known, so that there is something that it reads.

        Raises:
            ConfigError: there is no such ranker.
        """
        return has_last_layer(self.parameters.ranker)

    @property
    def size(self) -> int:
        """Length of a row's vector."""
        return self._fitted().belief.mean[HEAD[0]].shape[1]

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would: how many dense columns, and names with embeddings.

        Raises:
            DataError: rows are not allowed.
            ConfigError: the label or a feature is not in the schema.
        """
        features, label = tuple(self.parameters.features), events.schema.label(self.parameters.label)
        layout = read_layout(events, features, label)
        return {} if layout is None else {"numbers": len(layout.dense), "names": len(layout.index)}

    @property
    def nbytes(self) -> int:
        """Bytes of the posterior."""
        state = self._fitted()
        arrays = belief_arrays("", state.belief, state.table)
        return sum(array.nbytes for array in arrays.values())

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        lines, info = super().summary(), self.info
        if info is None or not info.steps:
            return lines
        losses = " -> ".join(f"{loss:.5f}" for loss in info.losses)
        told = f"; log-loss of the newest rows {losses}" if losses else ""
        unjudged = [] if info.judged else [_UNJUDGED]
        return [f"{lines[0]} in {info.steps} steps{told}", *lines[1:], *unjudged]

    def refusal(self) -> str:
        """Why the last update was undone; empty where it was not."""
        return self.info.refused if self.info else ""

    def shortfall(self) -> str:
        """Why the last update was refused."""
        return self.refusal()

    def _key(self, rows: NetworkRows, contract: Any, names: tuple[str, ...]) -> str:
        """What a checkpoint belongs to: these parameters, these rows."""
        digest = hashlib.sha256(repr((self.parameters, contract, names)).encode())
        for column in rows.columns:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def _packed(self, state: NetworkState) -> Packed:
        return packed(state)

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self.state = unpacked(stored, self.parameters, known)
