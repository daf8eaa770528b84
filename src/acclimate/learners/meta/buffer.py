"""The newest rows of each entity, as a network reads them: what meta embeddings are adapted on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.features import FieldRows
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.entities import with_room
from acclimate.learners.meta.tasks import Tasks
from acclimate.learners.network.rows import OF_ROWS, NetworkRows, RowStore

_OF_READ = ("dense", "cell", "value", "starts")

_SPARE = 65_536
"""Rows that come before those are cleared that nobody needs any more, and as many again as are needed."""


class RowBuffer:
    """Rows of ``fields`` fields that are added at the end, of numbers that ascend and never change."""

    def __init__(self, fields: int) -> None:
        self.fields, self.count, self.cells = fields, 0, 0
        self._arrays: dict[str, NDArray[Any]] = {}

    @staticmethod
    def taking(rows: NetworkRows, number: IntArray, fields: int) -> "RowBuffer":
        """These rows, which nobody else has: they are not copied."""
        buffer, read = RowBuffer(fields), rows.read
        buffer._arrays = {"number": number, **{name: getattr(read, name) for name in _OF_READ}}
        buffer._arrays |= {name: getattr(rows, name) for name in OF_ROWS}
        buffer.count, buffer.cells = len(rows), len(read.cell)
        return buffer

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, spare room left out."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def number(self) -> IntArray:
        """The number of each row ``(n,)``."""
        return self._arrays["number"][: self.count] if self.count else np.zeros(0, np.int64)

    def add(self, rows: NetworkRows, number: IntArray | None = None) -> IntArray:
        """Where they are ``(n,)``; without numbers of their own ``(n,)`` they get the next ones."""
        read, first, cell = rows.read, self.count, self.cells
        after = np.arange(len(rows)) + (self.number[-1] + 1 if first else 0)
        parts = {
            "number": after if number is None else number,
            "dense": read.dense,
            **{name: getattr(rows, name) for name in OF_ROWS},
        }
        for name, part in parts.items():
            self._put(name, first, part)
        self._put("starts", first * self.fields, read.starts + cell)  # the end of those before is the first start
        self._put("cell", cell, read.cell)
        self._put("value", cell, read.value)
        self.count, self.cells = first + len(rows), cell + len(read.cell)
        return np.arange(first, self.count)

    def cut(self, count: int) -> None:
        """Take off the rows at the end, but for so many."""
        if count < self.count:
            self.count, self.cells = count, int(self._arrays["starts"][count * self.fields])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All columns by name."""
        ends = {"starts": self.count * self.fields + 1, "cell": self.cells, "value": self.cells}
        return {name: array[: ends.get(name, self.count)] for name, array in self._arrays.items()}

    def rows(self) -> NetworkRows:
        """All of them."""
        arrays = self.arrays()
        read = FieldRows(*(arrays[name] for name in _OF_READ))
        return NetworkRows(read, *(arrays[name] for name in OF_ROWS))

    def _put(self, name: str, first: int, part: NDArray[Any]) -> None:
        array = self._arrays.get(name)
        array = np.empty((0, *part.shape[1:]), part.dtype) if array is None else array
        self._arrays[name] = array = with_room(array, first + len(part))
        array[first : first + len(part)] = part


def _room_of(needed: NetworkRows) -> int:
    """How many rows there may be before all but those that are needed are cleared."""
    return 2 * len(needed) + _SPARE


@dataclass(frozen=True)
class Kept:
    """What ``e`` entities have: of each so many rows, ``length`` ``(e,)``, with these numbers ``(n,)``.

    Rows of one number are the same row, whichever blocks have it.
    """

    length: IntArray
    number: IntArray
    rows: NetworkRows


class Supports:
    """The newest rows of the entities of each block, at most so many of each, all in one buffer."""

    def __init__(self, fields: int, most: Sequence[int]) -> None:
        self.buffer = RowBuffer(fields)
        self.histories = [Histories(one) for one in most]
        self._room = _SPARE

    @property
    def nbytes(self) -> int:
        """Bytes of rows and of who needs them."""
        return self.buffer.nbytes + sum(one.nbytes for one in self.histories)

    def learn(self, rows: NetworkRows, codes: Sequence[IntArray]) -> list[IntArray]:
        """Add rows, by block ``codes`` ``(n,)`` of their entities; returns which entities of each have changed."""
        first, changed, last = self.buffer.count, list[IntArray](), -1
        places = self.buffer.add(rows)
        for histories, code in zip(self.histories, codes, strict=True):
            entities, place = np.unique(code, return_inverse=True)
            histories.grow(int(code.max(initial=-1)) + 1)
            new = Log.ordered(len(entities), place, rows.time, places, np.zeros(len(rows), np.uint8))
            changed.append(entities[histories.learn(entities, new.newest(histories.most))])
            last = max(last, int(histories.log(changed[-1]).item.max(initial=-1)))
        # What comes next gets numbers after those that are kept, as it would if only these were read again.
        self.buffer.cut(max(first, last + 1))
        if self.buffer.count > self._room:
            self._clear()
        return changed

    def tasks(self, block: int, entities: IntArray) -> Tasks:
        """Entities that have rows ``(e,)``, each with all of its support."""
        log = self.histories[block].log(entities)
        return Tasks.of_ends(
            log.item.astype(np.int64), log.starts[1:], np.diff(log.starts), np.zeros_like(entities)
        )

    def rows_at(self, rows: IntArray) -> NetworkRows:
        """Some of the rows."""
        return self.buffer.rows().at(rows)

    def kept(self, block: int, entities: IntArray) -> "Kept":
        """What some entities ``(e,)`` have."""
        log = self.histories[block].log(entities)
        rows = log.item.astype(np.int64)
        return Kept(np.diff(log.starts), self.buffer.number[rows], self.rows_at(rows))

    def replaced(self, block: int, places: IntArray, kept: "Kept") -> "Supports":
        """The same with this of all entities of a block, at ``places`` ``(e,)`` from 0 on, instead of its own.

        Raises:
            ValueError: two of them have the same row.
        """
        if len(np.unique(kept.number)) < len(kept.number):
            raise ValueError("a row is there twice")
        where = [np.arange(one.entities) for one in self.histories]
        logs = [one.log(entities) for one, entities in zip(self.histories, where, strict=True)]
        numbers = [self.buffer.number[log.item] for log in logs]
        starts = np.concatenate([[0], np.cumsum(kept.length)])
        nothing = np.zeros(len(kept.number), np.int32), np.zeros(len(kept.number), np.uint8)
        where[block], numbers[block], logs[block] = places, kept.number, Log(kept.rows.time, *nothing, starts)
        needed, rows = np.unique(np.concatenate(numbers)), kept.rows
        there, first = np.unique(np.concatenate([kept.number, self.buffer.number]), return_index=True)
        if self.buffer.count:
            store = RowStore(None)
            for some in (rows, self.buffer.rows()):
                store.add(some)
            rows = store.rows()
        supports = Supports(self.buffer.fields, [one.most for one in self.histories])
        rows = rows.at(first[np.searchsorted(there, needed)])
        supports.buffer, supports._room = RowBuffer.taking(rows, needed, self.buffer.fields), _room_of(rows)
        for histories, entities, log, number in zip(supports.histories, where, logs, numbers, strict=True):
            histories.grow(len(entities))
            histories.put(entities, replace(log, item=np.searchsorted(needed, number).astype(np.int32)))
        return supports

    def _clear(self) -> None:
        """Keep the rows alone that some entity needs; it pays off once as many again have come."""
        logs = [one.log(np.arange(one.entities)) for one in self.histories]
        needed = np.unique(np.concatenate([log.item for log in logs])).astype(np.int64)
        rows, number = self.rows_at(needed), self.buffer.number[needed]
        self.buffer = RowBuffer.taking(rows, number, self.buffer.fields)
        for histories, log in zip(self.histories, logs, strict=True):
            item = np.searchsorted(needed, log.item).astype(np.int32)
            histories.put(np.arange(histories.entities), replace(log, item=item))
        self._room = _room_of(rows)
