"""A fit of a meta ranker, and the meta embeddings of rows that see all that is earlier."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.artifacts import Events
from acclimate.config import MetaRankerParameters
from acclimate.errors import ModelError
from acclimate.extras import import_module
from acclimate.features import shown
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.meta.buffer import Supports
from acclimate.learners.meta.rows import MetaReader
from acclimate.learners.meta.state import Embeddings, MetaState, space_of
from acclimate.learners.meta.tasks import Timeline, newest
from acclimate.learners.network.rows import NetworkRows, RowStore

_SAMPLED = 64
"""Entities of a block whose meta embeddings are made again before a save."""

_PARITY = 1e-4
"""What they may be away, and of their largest number: single precision, summed in another order."""


@dataclass(frozen=True)
class Embedded:
    """Rows, and the meta embeddings of their entities ``(n, s)``, a block each."""

    rows: NetworkRows
    vectors: list[NDArray[np.float32]]


def fitted(
    parameters: MetaRankerParameters, events: Events, checkpoint: Path | None
) -> tuple[MetaState, Any, int]:
    """A meta ranker of these events alone, its entities not adapted yet; how the training went, and the rows.

    Raises:
        DataError: no row has a label.
        ConfigError: the schema lacks what is declared, or there is no such ranker.
        ModelError: the training ran away.
        MissingExtraError: torch is not installed.
    """
    network = import_module("acclimate.learners.meta.network")
    label, blocks = events.schema.label(parameters.label), parameters.blocks
    ids = tuple(Numbered(name) for name in blocks)
    reader = MetaReader.declared(parameters.feature_names(), blocks, events.schema, ids)
    rows, codes, layout = reader.everything(events, label)
    # Tasks draw their chance in the order of ids: that in which rows of one instant come says nothing.
    by_id = [np.argsort(np.argsort(known.index.ids()))[code] for known, code in zip(ids, codes, strict=True)]
    scale = np.stack(rows.scale())
    kept = None
    if checkpoint is not None:
        kept = network.Checkpoint(checkpoint, _key(parameters, events, rows, codes))
    weights, done = network.trained(parameters, layout, rows, by_id, scale=scale, checkpoint=kept)
    if kept is not None:
        kept.clear()
    supports = Supports(len(layout.fields), [block.support for block in blocks.values()])
    masks = [newest(code, block.support) for code, block in zip(codes, blocks.values(), strict=True)]
    needed = np.flatnonzero(np.any(masks, axis=0))
    supports.learn(rows.at(needed), [code[needed] for code in codes])
    state = MetaState(
        label=label,
        contract=events.schema.content(),
        cut=int(rows.time[-1]),
        space=space_of(parameters, events.schema, weights),
        layout=layout,
        scale=scale,
        weights=weights,
        ids=ids,
        embeddings=tuple(Embeddings(block.size) for block in blocks.values()),
        supports=supports,
    )
    return state, done, len(rows)


def refresher_of(parameters: MetaRankerParameters, state: MetaState) -> Any:
    """What adapts entities and scores rows by these weights; it is made once for them."""
    made = state.made.refresher
    if made is None or made[0] is not parameters or made[1] is not state.weights:
        network = import_module("acclimate.learners.meta.network")
        refresher = network.Refresher(parameters, state.layout, state.scale, state.weights)
        state.made.refresher = made = (parameters, state.weights, refresher)
    return made[2]


def check_parity(parameters: MetaRankerParameters, state: MetaState) -> None:
    """Ask that stored meta embeddings are what the training's own path makes of the entities' supports.

    Raises:
        ModelError: of a sample of the entities of a block some are not.
    """
    refresher = refresher_of(parameters, state)
    for number, (name, stored) in enumerate(zip(parameters.blocks, state.embeddings, strict=True)):
        sample = np.unique(np.linspace(0, stored.entities - 1, min(_SAMPLED, stored.entities)).astype(np.int64))
        tasks = state.supports.tasks(number, sample)
        anew = refresher.embeddings(number, tasks, state.supports.rows_at, by_torch=True)
        away = np.abs(anew - stored.values[sample]).max(axis=1)
        differ = np.flatnonzero(away > _PARITY * (1.0 + np.abs(anew).max(axis=1)))
        if len(differ):
            worst = sample[differ[np.argmax(away[differ])]]
            raise ModelError(
                f"meta embeddings of '{name}' are not those of their supports: {len(differ)} of {len(sample)} "
                f"looked at, {shown(state.ids[number].index.ids()[worst])} by {away.max():.2g}",
                hint="adapt them anew with these weights: fit, or load what was saved before",
            )


def embedded_along(refresher: Any, state: MetaState, reader: MetaReader, events: Events) -> Iterator[Embedded]:
    """All rows, each with meta embeddings that are adapted on all that is strictly earlier, of a known label."""
    pieces = [piece for piece, _ in reader.pieces(events, state.layout, state.label, unknown=True)]
    store, supports = RowStore(events.memory_limit), state.supports
    for one in (supports.buffer.rows(), *(piece.rows for piece in pieces)):
        store.add(one)
    rows = store.rows()
    kept, new = supports.buffer.count, np.arange(supports.buffer.count, len(rows))
    vectors = list[NDArray[np.float32]]()
    for number, before in enumerate(supports.histories):
        code = _codes(reader, number, pieces)
        log = before.log(np.arange(before.entities))
        numbers = np.concatenate([log.item.astype(np.int64), new])
        known = ~np.isnan(rows.label[numbers])
        timeline = Timeline(np.concatenate([log.entity, code]), rows.time[numbers], known)
        asked = np.flatnonzero(numbers >= kept)
        tasks = timeline.each(asked, before.most).renumbered(numbers)
        vectors.append(refresher.embeddings(number, tasks, rows.at))
    ends = np.cumsum([0, *(len(piece.rows) for piece in pieces)])
    for piece, (begin, end) in zip(pieces, pairwise(ends.tolist()), strict=True):
        yield Embedded(piece.rows, [part[begin:end] for part in vectors])


def _codes(reader: MetaReader, block: int, pieces: list[Any]) -> IntArray:
    """Whose each row is; those that are not known get numbers beyond."""
    known = reader.known[block].copied()
    return np.concatenate([known.admit(piece.keys[block].ids)[piece.keys[block].code] for piece in pieces])


def _key(parameters: MetaRankerParameters, events: Events, rows: NetworkRows, codes: list[IntArray]) -> str:
    """What a checkpoint belongs to: these parameters, these rows."""
    digest = hashlib.sha256(repr((parameters, events.schema.content())).encode())
    for column in (*rows.columns, *codes):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
