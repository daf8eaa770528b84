"""What each entity has touched: its newest events, in an order that does not depend on how they came."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, IntArray
from acclimate.learners.entities import with_room

_SMALLEST, _GROWTH = 8, 2

Flat: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]


@dataclass(frozen=True)
class Log:
    """Events of ``e`` entities side by side: those of the ``j``-th are ``starts[j]:starts[j + 1]``.

    ``time`` in microseconds, ``item`` a number, ``flags`` a bit for each behaviour; all ``(N,)``. Of an entity
    they are in the order of time, then item, then flags.
    """

    time: NDArray[np.int64]
    item: NDArray[np.int32]
    flags: NDArray[np.uint8]
    starts: IntArray

    def __len__(self) -> int:
        return len(self.time)

    @staticmethod
    def ordered(entities: int, entity: IntArray, time: IntArray, item: Any, flags: Any) -> "Log":
        """From events ``(N,)`` in any order, each of one of so many entities by number."""
        order = np.lexsort((flags, item, time, entity))
        starts = np.concatenate([[0], np.cumsum(np.bincount(entity, minlength=entities))])
        return Log(
            np.asarray(time[order], np.int64),
            np.asarray(item[order], np.int32),
            np.asarray(flags[order], np.uint8),
            starts,
        )

    @property
    def entity(self) -> IntArray:
        """Whose each event is, ``(N,)``."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def joined(self, other: "Log") -> "Log":
        """The events of both, of the same entities."""
        columns = ("entity", "time", "item", "flags")
        parts = [np.concatenate([getattr(log, name) for log in (self, other)]) for name in columns]
        return Log.ordered(len(self.starts) - 1, *parts)

    def only(self, events: BoolArray) -> "Log":
        """Some of the events ``(N,)``."""
        kept = np.concatenate([[0], np.cumsum(events)])
        return Log(self.time[events], self.item[events], self.flags[events], kept[self.starts])

    def padded(self, entities: int) -> "Log":
        """With more entities, which have no events."""
        more = np.full(entities + 1 - len(self.starts), self.starts[-1])
        return Log(self.time, self.item, self.flags, np.concatenate([self.starts, more]))

    def padded_to(self, room: int) -> dict[str, NDArray[Any]]:
        """The columns ``(e, room)``, filled up by zeros, and how many events each entity has, ``length``."""
        lengths = np.diff(self.starts)
        columns = {name: padded(getattr(self, name), lengths, room) for name in ("time", "item", "flags")}
        return {"length": lengths.astype(np.int32), **columns}

    @staticmethod
    def unpadded(columns: Mapping[str, NDArray[Any]]) -> "Log":
        """The reverse."""
        lengths = columns["length"]
        time, item, flags = (unpadded(columns[name], lengths) for name in ("time", "item", "flags"))
        return Log(time, item, flags, np.concatenate([[0], np.cumsum(lengths)]))

    def newest(self, most: int) -> "Log":
        """Of each entity the last events, at most so many."""
        sizes = np.diff(self.starts)
        keep = np.arange(len(self)) >= np.repeat(self.starts[1:] - np.minimum(sizes, most), sizes)
        starts = np.concatenate([[0], np.cumsum(np.minimum(sizes, most))])
        return Log(self.time[keep], self.item[keep], self.flags[keep], starts)


class _Shelf:
    """Histories of up to ``room`` events, one row each."""

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self.time = np.empty((0, room), np.int64)
        self.item = np.empty((0, room), np.int32)
        self.flags = np.empty((0, room), np.uint8)
        self.free: list[int] = []

    def flat(self) -> "Flat":
        """Times, items and flags of all rows, one after another."""
        return self.time.reshape(-1), self.item.reshape(-1), self.flags.reshape(-1)

    def rows(self, count: int) -> IntArray:
        """Places for so many histories: those that others left, then new ones."""
        again = [self.free.pop() for _ in range(min(count, len(self.free)))]
        new = np.arange(self.used, self.used + count - len(again))
        self.used += len(new)
        self.time, self.item, self.flags = (with_room(a, self.used) for a in (self.time, self.item, self.flags))
        return np.concatenate([np.array(again, np.int64), new])


@dataclass(frozen=True)
class Stretch:
    """Where the histories of some entities lie, to be read in place.

    ``which`` ``(e,)`` of those that were asked for; theirs are ``first:last`` in ``flat`` times, items and flags.
    """

    which: IntArray
    flat: Flat
    first: IntArray
    last: IntArray


class Histories:
    """The newest ``most`` events of each entity; an update costs what the entities in it have.

    A history lies on a shelf with room for 8, 16, 32, ... events, and moves to the next when it is full.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        rooms = [_SMALLEST]
        while rooms[-1] < most:
            rooms.append(rooms[-1] * _GROWTH)
        self._rooms = np.array(rooms)
        self._shelves = [_Shelf(room) for room in rooms]
        self._shelf, self._row = np.zeros(0, np.int8), np.zeros(0, np.int32)
        self._length = np.zeros(0, np.int32)
        self.entities = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the events and of where they lie, spare room left out."""
        return 13 * int(self._length[: self.entities].sum()) + 9 * self.entities

    def grow(self, entities: int) -> None:
        """Know so many entities; new ones have no events."""
        known, self.entities = self.entities, max(entities, self.entities)
        self._shelf, self._row, self._length = (
            with_room(a, self.entities) for a in (self._shelf, self._row, self._length)
        )
        for array, value in ((self._shelf, -1), (self._row, 0), (self._length, 0)):
            array[known : self.entities] = value

    def lengths(self, entities: IntArray) -> IntArray:
        """How many events of each entity are kept, ``(e,)``."""
        return self._length[entities].astype(np.int64)

    def rooms(self, entities: IntArray) -> IntArray:
        """The room that as many events as each entity has take at least, ``(e,)``."""
        return rooms_of(self.lengths(entities))

    def stretches(self, entities: IntArray) -> list[Stretch]:
        """The histories of some entities, ``(e,)``, where they lie; those without events are left out."""
        shelf = self._shelf[entities]
        parts = []
        for number in np.unique(shelf[shelf >= 0]):
            which, place = np.flatnonzero(shelf == number), self._shelves[number]
            first = self._row[entities[which]].astype(np.int64) * place.room
            last = first + self._length[entities[which]]
            parts.append(Stretch(which, place.flat(), first, last))
        return parts

    def place(self, entity: int) -> tuple[Flat, int, int]:
        """Where the history of one entity lies: flat times, items and flags, and where its events are in them."""
        shelf = self._shelves[max(int(self._shelf[entity]), 0)]
        first = int(self._row[entity]) * shelf.room
        return shelf.flat(), first, first + int(self._length[entity])

    def log(self, entities: IntArray) -> Log:
        """The histories of some entities, each there once, copied."""
        lengths = self.lengths(entities)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        log = Log(
            np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint8), starts
        )
        for part in self.stretches(entities):
            here, there = (ranges(begin, lengths[part.which]) for begin in (starts[part.which], part.first))
            for into, flat in zip((log.time, log.item, log.flags), part.flat, strict=True):
                into[here] = flat[there]
        return log

    def learn(self, entities: IntArray, new: Log) -> BoolArray:
        """Add the events of some entities, each there once; older ones beyond ``most`` are dropped.

        Returns which of the entities have changed, ``(e,)``: one older than all that are kept changes nothing.
        """
        before = self.log(entities)
        after = before.joined(new).newest(self.most)
        self.put(entities, after)
        return _differ(before, after)

    def put(self, entities: IntArray, log: Log) -> None:
        """Replace the histories of some entities, each there once."""
        lengths = np.diff(log.starts)
        shelf = np.searchsorted(self._rooms, lengths).astype(np.int8)
        shelf[lengths == 0] = -1
        shelf = np.maximum(shelf, self._shelf[entities])  # no history moves back to a smaller one
        for number in np.unique(shelf[shelf != self._shelf[entities]]):
            moved = np.flatnonzero((shelf == number) & (shelf != self._shelf[entities]))
            self._leave(entities[moved])
            self._row[entities[moved]] = self._shelves[number].rows(len(moved))
        self._shelf[entities], self._length[entities] = shelf, lengths
        for part in self.stretches(entities):
            here, there = (ranges(b, lengths[part.which]) for b in (log.starts[part.which], part.first))
            for flat, new in zip(part.flat, (log.time, log.item, log.flags), strict=True):
                flat[there] = new[here]

    def append(self, entity: int, time: int, item: int, flags: int) -> None:
        """Add one event of one entity."""
        number, length = int(self._shelf[entity]), int(self._length[entity])
        if number >= 0 and (length < self._shelves[number].room or length == self.most):
            shelf, row = self._shelves[number], self._row[entity]
            if time > shelf.time[row, length - 1]:  # the ordinary case: it is the newest, and there is a place
                if length == self.most:
                    length -= 1
                    for array in (shelf.time, shelf.item, shelf.flags):
                        array[row, :length] = array[row, 1 : length + 1]
                shelf.time[row, length], shelf.item[row, length], shelf.flags[row, length] = time, item, flags
                self._length[entity] = length + 1
                return
        one = Log.ordered(1, np.zeros(1, np.int64), *(np.array([value]) for value in (time, item, flags)))
        self.learn(np.array([entity]), one)

    def _leave(self, entities: IntArray) -> None:
        for number in np.unique(self._shelf[entities]):
            if number >= 0:
                gone = entities[self._shelf[entities] == number]
                self._shelves[number].free.extend(self._row[gone].tolist())


def rooms_of(lengths: IntArray) -> IntArray:
    """The rooms that so many take at least, ``(e,)``: 8, 16, 32, ..."""
    doublings = np.ceil(np.log2(np.maximum(lengths, _SMALLEST) / _SMALLEST))
    return _SMALLEST * _GROWTH ** doublings.astype(np.int64)


def padded(values: NDArray[Any], lengths: IntArray, room: int) -> NDArray[Any]:
    """Values ``(N, ...)``, so many of each of ``e`` entities, as ``(e, room, ...)``, filled up by zeros."""
    rows = np.zeros((len(lengths), room, *values.shape[1:]), values.dtype)
    rows[np.arange(room) < lengths[:, None]] = values
    return rows


def unpadded(rows: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """The reverse."""
    return rows[np.arange(rows.shape[1]) < lengths[:, None]]


def ranges(begin: IntArray, lengths: IntArray) -> IntArray:
    """The numbers ``begin[j], ..., begin[j] + lengths[j] - 1`` of each ``j``, one after another."""
    ends = np.cumsum(lengths)
    return np.repeat(begin - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def _differ(one: Log, other: Log) -> Any:
    """Which entities have other events in one log than in the other, ``(e,)``."""
    sizes = np.diff(one.starts)
    differ = sizes != np.diff(other.starts)
    same = np.flatnonzero(~differ)
    here, there = (ranges(log.starts[same], sizes[same]) for log in (one, other))
    unlike = (
        (one.time[here] != other.time[there])
        | (one.item[here] != other.item[there])
        | (one.flags[here] != other.flags[there])
    )
    which = np.repeat(same, sizes[same])
    differ[which[unlike]] = True
    return differ
