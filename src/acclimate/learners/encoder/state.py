"""What a user encoder knows: a shared model, and the recent past of every entity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IntArray
from acclimate.features import FieldRows, Layout
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.inputs import Plan, Queries, fill, in_histories
from acclimate.learners.encoder.items import Content, ItemTable, dense_rows, standardised
from acclimate.learners.encoder.rows import Numbered, Piece
from acclimate.learners.entities import with_room
from acclimate.models.encoding import EncoderWeights

_NEVER = np.iinfo(np.int64).min


class LastSeen:
    """The columns that each entity's last event had, ``(room, P)``, and its time ``(room,)``."""

    def __init__(self, width: int) -> None:
        self.values, self.time = np.zeros((0, width), np.float32), np.zeros(0, np.int64)
        self.entities = 0

    def grow(self, entities: int) -> None:
        """Know so many entities; of new ones nothing was seen."""
        known, self.entities = self.entities, max(entities, self.entities)
        self.values, self.time = with_room(self.values, self.entities), with_room(self.time, self.entities)
        self.values[known : self.entities], self.time[known : self.entities] = 0.0, _NEVER

    def emptied(self) -> "LastSeen":
        """One of as many columns, of nobody."""
        return LastSeen(self.values.shape[1])

    def learn(self, entities: IntArray, time: IntArray, values: NDArray[np.float32]) -> None:
        """What events ``(m,)`` of some entities had: that of the latest counts, and on one instant the largest.

        So it does not depend on how the events came.
        """
        newer = time >= self.time[entities]
        entities, time, values = entities[newer], time[newer], values[newer]
        again = np.unique(entities[time == self.time[entities]])
        entities, time = np.concatenate([again, entities]), np.concatenate([self.time[again], time])
        values = np.concatenate([self.values[again], values])
        order = np.lexsort((*values.T[::-1], time, entities))
        last = order[np.append(np.diff(entities[order]) > 0, True)[: len(order)]]
        self.values[entities[last]], self.time[entities[last]] = values[last], time[last]


@dataclass(frozen=True)
class EncoderState:
    """All that is known.

    Shared by all: ``behaviours`` by name, each with its label; ``layouts`` of the groups of columns,
    ``contents`` from which items get vectors, ``plan`` of the inputs, ``blank`` ``(D,)`` what stands in them for
    the absent, ``centre`` and ``scale`` ``(P,)`` what standardises the columns of rows, and ``weights``; ``space``
    is their identity.
    Of single ones: ``histories`` and ``last_seen`` of entities, the vectors of ``items``; changed in place.
    ``maps``: by an earlier space ``(s, s')``, what turns vectors into that space's.
    """

    contract: dict[str, Any]
    cut: int
    behaviours: Mapping[str, str | None]
    users: Numbered
    items: Numbered
    table: ItemTable
    contents: dict[str, Content]
    layouts: dict[str, Layout]
    plan: Plan
    blank: NDArray[np.float32]
    centre: FloatArray
    scale: FloatArray
    weights: EncoderWeights
    space: str
    histories: Histories
    last_seen: LastSeen
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])

    def inputs(
        self, entities: IntArray, at: IntArray, columns: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Raw inputs ``(q, D)`` of entities by number, -1 for unknown ones, at times in microseconds.

        ``columns`` ``(q, P)`` are those of the rows; without, what each entity's last event had.
        """
        x = np.tile(self.blank, (len(entities), 1))
        if columns is not None:
            x[:, self.plan.from_rows :] = columns
        elif self.plan.from_rows < self.plan.width:
            known = np.flatnonzero(entities >= 0)
            known = known[self.last_seen.time[entities[known]] > _NEVER]
            x[known, self.plan.from_rows :] = self.last_seen.values[entities[known]]
        for which, queries in in_histories(self.histories, entities, at):
            if len(which) == len(x):
                fill(self.plan, self.table, queries, x)
            else:
                part = x[which]
                fill(self.plan, self.table, queries, part)
                x[which] = part
        return x

    def inputs_of_one(self, entity: int, at: int) -> NDArray[np.float32]:
        """The same ``(1, D)`` of one entity that is known, with as little around it as can be."""
        x = self.blank[None].copy()
        if self.plan.from_rows < self.plan.width and self.last_seen.time[entity] > _NEVER:
            x[0, self.plan.from_rows :] = self.last_seen.values[entity]
        flat, first, last = self.histories.place(entity)
        queries = Queries(flat, np.array([first]), np.array([last]), np.array([at]))
        fill(self.plan, self.table, queries, x)
        return x

    def columns(self, read: Mapping[str, FieldRows], rows: int) -> NDArray[np.float32]:
        """The columns of rows ``(n, P)``, standardised, each group with its flag of presence."""
        dense = dense_columns(self.plan, self.layouts, read, rows)
        return standardised(dense, self.centre, self.scale).astype(np.float32)


def dense_columns(
    plan: Plan, layouts: Mapping[str, Layout], read: Mapping[str, FieldRows], rows: int
) -> FloatArray:
    """The groups of columns of rows side by side ``(n, P)`` as they are, each with its flag of presence."""
    parts = [
        part
        for name in plan.columns
        for part in (dense_rows(read[name], layouts[name], plan.orders[name]), np.ones((rows, 1)))
    ]
    return np.concatenate([np.zeros((rows, 0)), *parts], axis=1)


def learn_histories(histories: Histories, piece: Piece, users: IntArray, items: IntArray) -> int:
    """Add the events of a piece, whose ids have these numbers; returns how many entities have changed."""
    histories.grow(int(users.max(initial=-1)) + 1)
    log = Log.ordered(len(users), piece.user, piece.time, items[piece.item], piece.flags)
    return int(histories.learn(users, log).sum())


def learn_items(table: ItemTable, contents: Mapping[str, Content], piece: Piece, items: IntArray) -> BoolArray:
    """Give vectors to the items of a piece that have none yet, where their kind comes from features.

    Returns which of the items ``(m,)`` had none.
    """
    table.grow(int(items.max(initial=-1)) + 1)
    changed = np.zeros(len(items), np.bool_)
    for kind, content in contents.items():
        lacking = np.flatnonzero(~table.known[items, table.kinds.index(kind)])
        if len(lacking):
            table.put(kind, items[lacking], content.vectors(piece.contents[kind].at(lacking)))
            changed[lacking] = True
    return changed
