"""The newest rows of each entity, as a network reads them: what meta embeddings are adapted on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.features import FieldRows
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.entities import with_room
from acclimate.learners.meta.tasks import Tasks
from acclimate.learners.network.rows import OF_ROWS, NetworkRows

_SPARE = 65_536
"""Rows that come before those are cleared that nobody needs any more, and as many again as are needed."""


class RowBuffer:
    """Rows of ``fields`` fields that are added at the end."""

    def __init__(self, fields: int) -> None:
        self.fields, self.count, self.cells = fields, 0, 0
        self._arrays: dict[str, NDArray[Any]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, spare room left out."""
        return sum(array.nbytes for array in self.arrays().values())

    def add(self, rows: NetworkRows) -> IntArray:
        """Their numbers ``(n,)``."""
        read = rows.read
        parts = {"dense": read.dense, **{name: getattr(rows, name) for name in OF_ROWS}}
        first, cell = self.count, self.cells
        for name, part in parts.items():
            self._put(name, first, part)
        self._put("starts", first * self.fields, read.starts + cell)  # the end of those before is the first start
        self._put("cell", cell, read.cell)
        self._put("value", cell, read.value)
        self.count, self.cells = first + len(rows), cell + len(read.cell)
        return np.arange(first, self.count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All columns by name."""
        ends = {"starts": self.count * self.fields + 1, "cell": self.cells, "value": self.cells}
        return {name: array[: ends.get(name, self.count)] for name, array in self._arrays.items()}

    def rows(self) -> NetworkRows:
        """All of them."""
        arrays = self.arrays()
        read = FieldRows(arrays["dense"], arrays["cell"], arrays["value"], arrays["starts"])
        return NetworkRows(read, *(arrays[name] for name in OF_ROWS))

    def _put(self, name: str, first: int, part: NDArray[Any]) -> None:
        array = self._arrays.get(name)
        array = np.empty((0, *part.shape[1:]), part.dtype) if array is None else array
        self._arrays[name] = array = with_room(array, first + len(part))
        array[first : first + len(part)] = part


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
        numbers = self.buffer.add(rows)
        changed = list[IntArray]()
        for histories, code in zip(self.histories, codes, strict=True):
            entities, place = np.unique(code, return_inverse=True)
            histories.grow(int(code.max(initial=-1)) + 1)
            new = Log.ordered(len(entities), place, rows.time, numbers, np.zeros(len(rows), np.uint8))
            changed.append(entities[histories.learn(entities, new.newest(histories.most))])
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

    def _logs(self) -> list[Log]:
        return [one.log(np.arange(one.entities)) for one in self.histories]

    def _clear(self) -> None:
        """Keep the rows alone that some entity needs; it pays off once as many again have come."""
        logs = self._logs()
        needed = np.unique(np.concatenate([log.item for log in logs]))
        rows = self.rows_at(needed.astype(np.int64))
        self.buffer = RowBuffer(self.buffer.fields)
        self.buffer.add(rows)
        for histories, log in zip(self.histories, logs, strict=True):
            renumbered = Log(log.time, np.searchsorted(needed, log.item).astype(np.int32), log.flags, log.starts)
            histories.put(np.arange(histories.entities), renumbered)
        self._room = 2 * self.buffer.count + _SPARE
