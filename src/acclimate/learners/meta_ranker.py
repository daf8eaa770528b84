"""A deep ranker that is personal by meta embeddings: small networks, adapted on the newest events of each entity.

LiMAML (Wang et al., arXiv 2403.00803); :mod:`acclimate.models.meta_network` has the mathematics.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IdArray
from acclimate.artifacts import Events, Exported
from acclimate.config import MetaRankerParameters
from acclimate.errors import ConfigError, nearest
from acclimate.features import combined
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.batch import ids_in
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.meta.learning import Embedded, check_parity, embedded_along, fitted, refresher_of
from acclimate.learners.meta.rows import MetaReader
from acclimate.learners.meta.state import MetaState
from acclimate.learners.meta.storing import packed, rows_of, unpacked
from acclimate.models.scoring import sigmoid
from acclimate.storage import Stored

_LARGEST = 36.0
"""A logit is at most this far from 0: beyond, no double would tell its probability from 0 or 1."""


@dataclass(frozen=True)
class MetaInfo:
    """How the last fit or update went.

    ``rows`` learned, entities ``adapted`` by block, ``steps`` taken, and of a fit the mean ``losses`` of the
    newest rows after each epoch.
    """

    rows: int
    adapted: dict[str, int]
    steps: int = 0
    losses: tuple[float, ...] = ()


class MetaRanker(Fitted[MetaState]):
    """A deep ranker with meta blocks, adapted to each entity by gradient steps on its newest events.

    A fit trains the global block and where the meta blocks start; an update adds events to the supports of their
    entities, adapts these anew and keeps their meta embeddings. A prediction looks them up: no gradient is needed.

    Its arguments are the fields of :class:`acclimate.config.MetaRankerParameters`.
    """

    kind: ClassVar[str] = "meta-ranker"
    keeps_shared: ClassVar[bool] = True
    """No update changes what is shared: see :func:`acclimate.artifacts.keeps_shared`."""
    facts: ClassVar[tuple[str, ...]] = ("label", "contract", "cut", "space")

    @declared_by(MetaRankerParameters)
    def __init__(self, parameters: MetaRankerParameters) -> None:
        self.parameters: MetaRankerParameters = parameters
        self.state: MetaState | None = None
        self.info: MetaInfo | None = None

    # --- learning -----------------------------------------------------------------------------------------------

    def fit(self, events: Events, *, checkpoint: str | Path | None = None) -> Self:
        """Learn from these events alone: train what is shared, then adapt every entity.

        Args:
            events: the rows; those whose label is not known are left out.
            checkpoint: a file that the training is kept in while it lasts: after a kill the same call goes on.

        Raises:
            DataError: no row has a label, or rows are not allowed.
            ModelError: the training ran away; what was known stays.
            ConfigError: there is no such ranker, entity or device.
            MissingExtraError: torch is not installed.
        """
        state, done, rows = fitted(self.parameters, events, None if checkpoint is None else Path(checkpoint))
        adapted = self._adapt(state, [np.arange(len(ids)) for ids in state.ids])
        self.state, self.info = state, MetaInfo(rows, adapted, done.steps, done.judgements)
        return self

    def update(self, events: Events) -> Self:
        """Learn new events, late ones too: adapt the entities in them anew; what is shared stays.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        state = self._fitted(events.schema)
        reader = self._reader(events)
        pieces = list(reader.pieces(events, state.layout, state.label))  # all are read before one is learned
        changed = [[np.zeros(0, np.int64)] for _ in state.ids]
        for piece, _ in pieces:
            learned = state.supports.learn(piece.rows, reader.admitted(piece))
            for ids, keys, parts, entities in zip(state.ids, piece.keys, changed, learned, strict=True):
                places = ids.index.numbers(keys.ids)
                differ = np.isin(places, entities)
                ids.touch(keys.ids[differ], places[differ])
                parts.append(entities)
            state = replace(state, cut=max(state.cut, int(piece.rows.time.max(initial=0))))
        adapted = self._adapt(state, [np.unique(np.concatenate(parts)) for parts in changed])
        self.state, self.info = state, MetaInfo(sum(len(piece.rows) for piece, _ in pieces), adapted)
        return self

    def _adapt(self, state: MetaState, changed: list[NDArray[Any]]) -> dict[str, int]:
        """Adapt entities by block, and keep their meta embeddings; how many there were."""
        refresher = refresher_of(self.parameters, state)
        for number, entities in enumerate(changed):
            tasks = state.supports.tasks(number, entities)
            embeddings = refresher.embeddings(number, tasks, state.supports.rows_at)
            state.embeddings[number].put(entities, embeddings)
        return {name: len(entities) for name, entities in zip(self.parameters.blocks, changed, strict=True)}

    # --- what it says of rows -----------------------------------------------------------------------------------

    def predict(self, events: Events) -> FloatArray:
        """Probabilities of the label, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        state = self._fitted(events.schema)
        return _probabilities(refresher_of(self.parameters, state), self._embedded(events, state))

    def predict_along(self, events: Events) -> FloatArray:
        """The same ``(n,)`` for a service that learns each event as it comes: rows see all that is earlier.

        What is at the same instant is not earlier, and rows of unknown label, which get a probability too, are
        learned by none. A row before the last event learned sees of what is kept that which is earlier than it.
        Nothing is changed.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        state = self._fitted(events.schema)
        refresher = refresher_of(self.parameters, state)
        return _probabilities(refresher, embedded_along(refresher, state, self._reader(events), events))

    def vectors(self, events: Events) -> FloatArray:
        """The meta embeddings of each row's entities, side by side, as known before these events ``(n, size)``."""
        parts = [np.hstack(one.vectors) for one in self._embedded(events, self._fitted(events.schema))]
        return np.concatenate([np.zeros((0, self.size)), *parts])

    def vectors_of(self, block: str, ids: IdArray | list[Any]) -> FloatArray:
        """The meta embeddings of entities of a block ``(len(ids), s)``; ids that are unknown have none: NaN.

        An id of a block of several entities is a tuple, one id of each, in their order.

        Raises:
            ConfigError: there is no such block.
            MismatchError: ids are missing, or of another type than those so far.
        """
        state = self._fitted()
        if block not in self.parameters.blocks:
            raise ConfigError(f"no meta block '{block}'", hint=nearest(block, self.parameters.blocks))
        number = list(self.parameters.blocks).index(block)
        places = state.ids[number].numbers(combined(block, self.parameters.blocks[block].entity, ids))
        return np.where((places >= 0)[:, None], state.embeddings[number].values[places], np.nan)

    @property
    def size(self) -> int:
        """Length of all meta embeddings of a row, side by side."""
        return sum(block.size for block in self.parameters.blocks.values())

    @property
    def space(self) -> str:
        """The identity of the shared weights: meta embeddings of two spaces are never mixed.

        Raises:
            NotFittedError: there is none yet.
        """
        return self._fitted().space

    @property
    def nbytes(self) -> int:
        """Bytes of the shared weights, meta embeddings and supports."""
        state = self._fitted()
        shared = sum(array.nbytes for array in state.weights.values())
        return shared + sum(one.nbytes for one in state.embeddings) + state.supports.nbytes

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would: how many dense columns, and names with embeddings.

        Raises:
            DataError: rows are not allowed.
            ConfigError: the label, an entity or a feature is not in the schema.
        """
        layout, label = None, events.schema.label(self.parameters.label)
        for _, layout in self._reader(events).pieces(events, None, label, grow=True):  # noqa: B007 - the last one
            pass
        return {} if layout is None else {"numbers": len(layout.dense), "names": len(layout.index)}

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        lines, info = super().summary(), self.info
        if info is None:
            return lines
        adapted = ", ".join(f"{count:,} of '{name}'" for name, count in info.adapted.items())
        losses = (
            f"; log-loss of the newest rows {' -> '.join(f'{x:.5f}' for x in info.losses)}" if info.losses else ""
        )
        return [f"{lines[0]}; adapted {adapted}{losses}", *lines[1:]]

    # --- how it works -------------------------------------------------------------------------------------------

    def _reader(self, events: Events) -> MetaReader:
        blocks = self.parameters.blocks
        known = self.state.ids if self.state else [Numbered(name) for name in blocks]
        return MetaReader.declared(self.parameters.feature_names(), blocks, events.schema, known)

    def _embedded(self, events: Events, state: MetaState) -> Iterator[Embedded]:
        """Rows piece by piece with the meta embeddings that their entities have."""
        refresher, reader = refresher_of(self.parameters, state), self._reader(events)
        for piece, _ in reader.pieces(events, state.layout, None):
            vectors = list[NDArray[np.float32]]()
            for block, (stored, numbers) in enumerate(zip(state.embeddings, reader.numbers(piece), strict=True)):
                vectors.append(stored.at(numbers))
                unknown = np.flatnonzero(numbers < 0)
                if len(unknown):  # rare in a service, where no more than a look-up is left
                    vectors[-1][unknown] = refresher.plain(piece.rows.at(unknown), block)
            yield Embedded(piece.rows, vectors)

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:
        """See :meth:`acclimate.learners.base.Fitted.known`."""
        state, found = self._fitted(), dict[str, tuple[IdArray, BoolArray]]()
        for ids_known, (name, block) in zip(state.ids, self.parameters.blocks.items(), strict=True):
            columns = [events.schema.entity_column(one) for one in block.entity]
            ids = ids_in(events, columns, ids_known.kind, f"'{name}'")
            found[name] = ids, ids_known.index.numbers(ids) >= 0
        return found

    def exported(self) -> dict[str, Exported]:
        """See :meth:`acclimate.learners.base.Fitted.exported`."""
        state = self._fitted()
        entities, blocks = state.contract["entities"], self.parameters.blocks.items()

        def one(number: int, columns: tuple[str, ...]) -> Exported:
            index, values = state.ids[number].index, state.embeddings[number]
            return Exported(columns, index.ids, lambda ids, _: values.at(index.numbers(ids)))  # at any time

        columns = [tuple(entities.get(role, role) for role in block.entity) for _, block in blocks]
        return {name: one(number, columns[number]) for number, (name, _) in enumerate(blocks)}

    def shared(self) -> Packed:
        """The weights, and the space that they define; see :meth:`acclimate.learners.base.Fitted.shared`."""
        state = self._fitted()
        return Packed({"space": state.space}, dict(state.weights))

    def check_kept(self) -> None:
        """See :meth:`acclimate.learners.base.Fitted.check_kept`: a sample of the meta embeddings is made again."""
        check_parity(self.parameters, self._fitted())

    def _packed(self, state: MetaState) -> Packed:
        def become(state: MetaState) -> None:
            self.state = state

        return replace(packed(state), rows=rows_of(self.parameters, self._fitted, become))

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self.state = unpacked(stored, self.parameters, known)


def _probabilities(refresher: Any, embedded: Iterable[Embedded]) -> FloatArray:
    """Of all rows, ``(n,)``."""
    logits = (refresher.logits(one.rows, one.vectors) for one in embedded)
    parts = [sigmoid(np.clip(z, -_LARGEST, _LARGEST)) for z in logits]
    return np.concatenate([np.zeros(0), *parts])
