"""The states of entities in memory: an index of ids that persists, and room that grows by doubling."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import (
    BoolArray,
    EntityStates,
    FloatArray,
    IdArray,
    IntArray,
    Posterior,
    SparseStates,
    Support,
)
from acclimate.models.gaussian import widened
from acclimate.models.support import resized, shelf_widths, sizes_of
from acclimate.models.triangles import matrices, strips, triangles

Float: TypeAlias = Literal["float64", "float32"]

_MANY = 64
"""States from which compiled loops are worth loading: whoever scores a few does without."""


def loops():
    """The compiled loops over states, loaded when they are first needed."""
    from acclimate.kernels import states

    return states


class IdIndex:
    """A number for each id, from 0 in the order in which they came; what it costs to ask follows what is asked."""

    def __init__(self, ids: IdArray | None = None) -> None:
        self._numbers: dict[Any, int] = {}
        if ids is not None:
            self._numbers = dict(zip(ids.tolist(), range(len(ids)), strict=True))

    def __len__(self) -> int:
        return len(self._numbers)

    def __deepcopy__(self, _: dict[int, Any]) -> "IdIndex":
        copied = IdIndex()
        copied._numbers = self._numbers.copy()  # ids and numbers never change: no need to copy each
        return copied

    def numbers(self, ids: IdArray) -> IntArray:
        """The number of each id, -1 for unknown ones."""
        return np.fromiter(map(self._numbers.get, ids.tolist(), repeat(-1)), np.int64, len(ids))

    def admit(self, ids: IdArray) -> IntArray:
        """The number of each id; unknown ones get the next ones."""
        numbers, known = self.numbers(ids), self._numbers
        new = np.flatnonzero(numbers < 0)
        numbers[new] = [known.setdefault(id, len(known)) for id in ids[new].tolist()]
        return numbers

    def admit_one(self, id: Any) -> int:
        """The number of one id, the next one if it is unknown."""
        return self._numbers.setdefault(id, len(self._numbers))

    def ids(self) -> IdArray:
        """All ids in the order of their numbers."""
        text = any(isinstance(id, str) for id in self._numbers)
        return np.array(list(self._numbers), np.dtypes.StringDType() if text else np.int64)


def _count_distinct(ids: IdArray) -> int:
    return len(np.unique(ids)) if ids.dtype.kind == "i" else len(set(ids.tolist()))


def with_room(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """The array, or one of at least twice its rows where it has fewer than asked for; new rows hold anything."""
    if rows <= len(array):
        return array
    larger = np.empty((max(rows, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


class _Shelf:
    """States of one width ``d`` and form, one row each: the mean, then the precision, of a full one the triangle.

    ``owner``: the number of the entity that a row is of, -1 where it has moved to another shelf. ``support``: the
    columns of its coefficients, where entities hold some only.
    """

    def __init__(
        self, width: int, *, full: bool, values: NDArray[Any], owner: IntArray, support: Support | None = None
    ) -> None:
        self.width, self.full, self.values, self.owner, self.support = width, full, values, owner, support
        self.used, self.holes = len(owner), 0

    @staticmethod
    def empty(width: int, *, full: bool, sparse: bool, dtype: Float, room: int) -> "_Shelf":
        values = np.empty((room, _row_size(width, full=full)), dtype)
        support = np.empty((room, width), np.int32) if sparse else None
        shelf = _Shelf(width, full=full, values=values, owner=np.empty(room, np.int64), support=support)
        shelf.used = 0
        return shelf

    @property
    def kind(self) -> tuple[int, bool, bool]:
        """Width, whether full, whether of some coefficients only."""
        return self.width, self.full, self.support is not None

    @property
    def row_bytes(self) -> int:
        """Of one state."""
        support = 0 if self.support is None else self.width * self.support.itemsize
        return self.values.shape[1] * self.values.itemsize + support

    def means(self, rows: IntArray) -> NDArray[Any]:
        return self.values[rows, : self.width]

    def posterior(self, rows: IntArray) -> Posterior:
        d, count = self.width, len(rows)
        posterior = Posterior(np.empty((count, d)), np.empty((count, d, d) if self.full else (count, d)))
        self.read(rows, np.arange(count), posterior)
        return posterior

    def read(self, rows: IntArray, places: IntArray, posterior: Posterior) -> None:
        """Write the states of some rows at places of a posterior of the same width and form."""
        d = self.width
        if self.full and len(rows) >= _MANY:
            loops().unpack(self.values, rows, places, posterior.mean, posterior.precision)
            return
        for strip in strips(len(rows)):
            values, place = self.values[rows[strip]], places[strip]
            posterior.mean[place] = values[:, :d]
            posterior.precision[place] = matrices(values[:, d:], d) if self.full else values[:, d:]

    def write(self, rows: IntArray, states: EntityStates) -> None:
        d, posterior = self.width, states.posterior
        if self.full and len(rows) >= _MANY:
            mean, precision = (
                np.require(one, np.float64, ["C", "W"]) for one in (posterior.mean, posterior.precision)
            )
            loops().pack(mean, precision, rows, self.values)
        else:
            for strip in strips(len(rows)):
                precision = posterior.precision[strip]
                self.values[rows[strip], :d] = posterior.mean[strip]
                self.values[rows[strip], d:] = triangles(precision) if self.full else precision
        if self.support is not None and states.support is not None:
            self.support[rows] = states.support

    def add(self, numbers: IntArray) -> IntArray:
        """New rows for these entities."""
        rows = np.arange(self.used, self.used + len(numbers))
        self.used += len(numbers)
        self.values, self.owner = with_room(self.values, self.used), with_room(self.owner, self.used)
        if self.support is not None:
            self.support = with_room(self.support, self.used)
        self.owner[rows] = numbers
        return rows

    def leave(self, rows: IntArray) -> None:
        self.owner[rows] = -1
        self.holes += len(rows)

    def packed(self) -> "_Shelf":
        """In the order of the entities' numbers, without holes or spare room."""
        rows: Any = np.flatnonzero(self.owner[: self.used] >= 0)
        rows = rows[np.argsort(self.owner[rows], kind="stable")]
        in_place = len(rows) == self.used and bool(np.all(rows[1:] > rows[:-1]))
        kept = slice(self.used) if in_place else rows
        support = None if self.support is None else self.support[kept]
        return _Shelf(
            self.width, full=self.full, values=self.values[kept], owner=self.owner[rows], support=support
        )


class _Effect:
    """The states of one effect.

    An entity keeps the width that the features had when it was last committed, so an index of features that grows
    touches nobody: a state is widened when it is taken, and moves to a shelf of its new width when committed.
    ``shelf`` and ``row`` say where each entity is; ``touched`` and ``rows`` are those of
    :class:`acclimate.EntityStates`; ``made`` counts the shelves, and ``room`` is how many entities the next one
    makes room for.
    """

    def __init__(self, index: IdIndex, shelves: list[_Shelf], touched: IntArray, rows: IntArray) -> None:
        self.index, self.touched, self.rows = index, touched, rows
        self.shelves = dict(enumerate(shelves))
        self.made = len(shelves)
        self.shelf, self.row = np.full(len(index), -1, np.int64), np.zeros(len(index), np.int64)
        self.room = 0
        for number in self.shelves:
            self._place(number)

    def take(self, ids: IdArray, population: Posterior) -> EntityStates:
        numbers = self.index.numbers(ids)
        mean, precision = (np.empty((len(ids), *one.shape)) for one in (population.mean, population.precision))
        mean[numbers < 0], precision[numbers < 0] = population.mean, population.precision
        taken = Posterior(mean, precision)
        for asked, shelf in self._by_shelf(numbers):
            if shelf.width == len(population.mean) and shelf.full == population.is_full:
                shelf.read(self.row[numbers[asked]], asked, taken)
                continue
            for strip in strips(len(asked)):
                some = asked[strip]
                posterior = widened(shelf.posterior(self.row[numbers[some]]), population)
                mean[some], precision[some] = posterior.mean, posterior.precision
        return EntityStates(ids, taken, *self._times(numbers))

    def take_sparse(self, ids: IdArray) -> SparseStates:
        numbers = self.index.numbers(ids)
        touched, rows = self._times(numbers)
        pieces: list[tuple[IntArray, EntityStates]] = []
        for asked, shelf in self._by_shelf(numbers):
            row = self.row[numbers[asked]]
            support = None if shelf.support is None else shelf.support[row]
            posterior = shelf.posterior(row)
            pieces.append((asked, EntityStates(ids[asked], posterior, touched[asked], rows[asked], support)))
        return SparseStates(ids, touched, rows, pieces)

    def sparse_means(self, ids: IdArray) -> Iterator[tuple[IntArray, Support, FloatArray]]:
        numbers = self.index.numbers(ids)
        for asked, shelf in self._by_shelf(numbers):
            row = self.row[numbers[asked]]
            if shelf.support is not None:
                yield asked, shelf.support[row], shelf.means(row).astype(np.float64)

    def means(self, ids: IdArray, population: Posterior) -> FloatArray:
        numbers = self.index.numbers(ids)
        mean = _tiled(population.mean, len(ids))
        for asked, shelf in self._by_shelf(numbers):
            mean[asked, : shelf.width] = shelf.means(self.row[numbers[asked]])
        return mean

    def commit(self, states: EntityStates, dtype: Float) -> None:
        if not len(states):
            return
        if twice := len(states) - _count_distinct(states.ids):
            raise ValueError(f"{twice} ids are committed twice at once")
        numbers = self.index.admit(states.ids)
        count, known = len(self.index), len(self.shelf)
        self.shelf = with_room(self.shelf, count)
        self.shelf[known:] = -1
        self.row, self.touched, self.rows = (with_room(a, count) for a in (self.row, self.touched, self.rows))
        for places, piece in _of_one_width(states):
            self._write(numbers[places], piece, dtype)
        self.touched[numbers], self.rows[numbers] = states.touched, states.rows

    def _write(self, numbers: IntArray, states: EntityStates, dtype: Float) -> None:
        """Put the states of entities where those of their width and form are."""
        width, full, sparse = states.posterior.mean.shape[1], states.posterior.is_full, states.support is not None
        fitting = (number for number, shelf in self.shelves.items() if shelf.kind == (width, full, sparse))
        number = next(fitting, self.made)
        if number == self.made:
            room = 0 if sparse else self.room  # how many are of which width is not known before
            self.shelves[number] = _Shelf.empty(width, full=full, sparse=sparse, dtype=dtype, room=room)
            self.made, self.room = self.made + 1, 0
        moving = numbers[self.shelf[numbers] != number]
        self._leave(moving)
        self.shelf[moving], self.row[moving] = number, self.shelves[number].add(moving)
        self.shelves[number].write(self.row[numbers], states)

    def packed(self) -> "_Effect":
        """The same in a canonical order: whatever way led here, equal states are equal arrays."""
        shelves = sorted((s.packed() for s in self.shelves.values() if s.used > s.holes), key=lambda s: s.kind)
        count = len(self.index)
        return _Effect(self.index, shelves, self.touched[:count], self.rows[:count])

    @property
    def nbytes(self) -> int:
        """Bytes of what is known: values, and of each entity its id, the time of its last event and its rows."""
        values = sum((shelf.used - shelf.holes) * shelf.row_bytes for shelf in self.shelves.values())
        return values + 24 * len(self.index)

    def _times(self, numbers: IntArray) -> tuple[IntArray, IntArray]:
        """The last event and the rows of entities, 0 of unknown ones."""
        known, touched, rows = numbers >= 0, np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
        touched[known], rows[known] = self.touched[numbers[known]], self.rows[numbers[known]]
        return touched, rows

    def _by_shelf(self, numbers: IntArray) -> Iterator[tuple[IntArray, _Shelf]]:
        """Which of these entities, but for unknown ones, are on which shelf."""
        known = np.flatnonzero(numbers >= 0)
        shelves = self.shelf[numbers[known]]
        for number in np.unique(shelves[shelves >= 0]).tolist():
            yield known[shelves == number], self.shelves[number]

    def _leave(self, numbers: IntArray) -> None:
        """Take entities from where they are; a shelf that is half empty is packed, an empty one goes."""
        for asked, shelf in self._by_shelf(numbers):
            number = int(self.shelf[numbers[asked[0]]])
            shelf.leave(self.row[numbers[asked]])
            if shelf.holes == shelf.used:
                del self.shelves[number]
            elif 2 * shelf.holes > shelf.used:
                self.shelves[number] = shelf.packed()
                self._place(number)

    def _place(self, number: int) -> None:
        shelf = self.shelves[number]
        self.shelf[shelf.owner], self.row[shelf.owner] = number, np.arange(shelf.used)


def posterior_in(name: str, values: NDArray[Any]) -> Posterior:
    """The posteriors of states whose ``values`` are under this ``name``, ``<width>.<form>``."""
    width, _, form = name.partition(".")
    d = int(width)
    return Posterior(values[:, :d], matrices(values[:, d:], d) if form == "full" else values[:, d:])


def named_values(posterior: Posterior, dtype: Float) -> tuple[str, NDArray[Any]]:
    """The reverse: the name of values, and these."""
    precision = triangles(posterior.precision) if posterior.is_full else posterior.precision
    values = np.concatenate([posterior.mean, precision], axis=1, dtype=dtype)
    return _name(posterior.mean.shape[1], full=posterior.is_full), values


def _name(width: int, *, full: bool) -> str:
    return f"{width}.{'full' if full else 'diagonal'}"


def _of_one_width(states: EntityStates) -> Iterator[tuple[IntArray, EntityStates]]:
    """States by the width that they are stored in, and their places."""
    if states.support is None:
        yield np.arange(len(states)), states
        return
    widths = shelf_widths(sizes_of(states.support))
    for width in np.unique(widths).tolist():
        places = np.flatnonzero(widths == width)
        yield places, resized(states.at(places) if len(places) < len(states) else states, width)


def _row_size(width: int, *, full: bool) -> int:
    """Numbers of a mean and a precision."""
    return width + (width * (width + 1) // 2 if full else width)


def _tiled(one: FloatArray, count: int) -> FloatArray:
    return np.broadcast_to(one, (count, *one.shape)).copy()


class MemoryEntities:
    """The seam :class:`acclimate.artifacts.Entities` in memory.

    ``dtype`` is what values are kept in; they are taken and committed as ``float64``.
    """

    def __init__(self, dtype: Float = "float64") -> None:
        self.dtype: Float = dtype
        self.position: str | None = None
        self._effects: dict[str, _Effect] = {}

    def take(self, effect: str, ids: IdArray, population: Posterior) -> EntityStates:
        """See :meth:`acclimate.artifacts.Entities.take`; the states are copies."""
        return self._effect(effect).take(ids, population)

    def means(self, effect: str, ids: IdArray, population: Posterior) -> FloatArray:
        """See :meth:`acclimate.artifacts.Entities.means`."""
        return self._effect(effect).means(ids, population)

    def take_sparse(self, effect: str, ids: IdArray) -> SparseStates:
        """See :meth:`acclimate.artifacts.Entities.take_sparse`; the states are copies."""
        return self._effect(effect).take_sparse(ids)

    def sparse_means(self, effect: str, ids: IdArray) -> Iterator[tuple[IntArray, Support, FloatArray]]:
        """See :meth:`acclimate.artifacts.Entities.sparse_means`."""
        return self._effect(effect).sparse_means(ids)

    def commit(self, changed: Mapping[str, Iterable[EntityStates]], position: str | None = None) -> None:
        """See :meth:`acclimate.artifacts.Entities.commit`; all is computed before any of it is stored."""
        for effect, pieces in {effect: tuple(pieces) for effect, pieces in changed.items()}.items():
            self.fill(effect, pieces)
        self.position = self.position if position is None else position

    def fill(self, effect: str, pieces: Iterable[EntityStates], *, room: int = 0) -> None:
        """Put states in piece by piece, as they are computed, with room made at once for so many.

        For a store that nobody uses yet: should a piece fail, those before it are in.
        """
        held = self._effects.setdefault(effect, _no_entities())
        held.room = room
        for states in pieces:
            held.commit(states, self.dtype)

    def knows(self, effect: str, ids: IdArray) -> BoolArray:
        """Which of these ids are known, ``(n,)``."""
        return self._effect(effect).index.numbers(ids) >= 0

    def tables(self, effect: str) -> Iterator[tuple[IdArray, dict[str, NDArray[Any]]]]:
        """All states by width and form: ids, and of each ``touched``, ``rows`` and values, ``<width>.<form>``.

        And ``support``, of entities that hold some coefficients only.
        """
        held = self._effect(effect)
        ids = held.index.ids()
        for shelf in held.packed().shelves.values():
            about = {"touched": held.touched[shelf.owner], "rows": held.rows[shelf.owner]}
            about |= {} if shelf.support is None else {"support": shelf.support}
            yield ids[shelf.owner], {**about, _name(shelf.width, full=shelf.full): shelf.values}

    def forget(self, effect: str) -> None:
        """Let go of an effect's states."""
        self._effects.pop(effect, None)

    def ids(self, effect: str) -> IdArray:
        """All ids of an effect that are known, in the order in which they came."""
        return self._effect(effect).index.ids()

    def only(self, effects: Iterable[str]) -> "MemoryEntities":
        """These effects alone, not copied."""
        kept = MemoryEntities(self.dtype)
        kept._effects = {name: self._effects[name] for name in effects if name in self._effects}
        return kept

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        return sum(effect.nbytes for effect in self._effects.values())

    def _effect(self, name: str) -> _Effect:
        return self._effects[name] if name in self._effects else _no_entities()


def _no_entities() -> _Effect:
    return _Effect(IdIndex(), [], np.zeros(0, np.int64), np.zeros(0, np.int64))
