"""A learner in a unit of a store: its shared part in a few values, its rows by id as one value each.

::

    ranker/2/0              a unit: space 2 of 'ranker', partition 0
        shared              'learner <part>': all that is not rows; 'space': whose it is, and its tag; 'rows': by
                            name, the columns of events that have ids
        layouts             the columns of values, by number
        rows/<name>         a value for each id

All of it, the position and whatever else a worker keeps change in one transaction.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from acclimate.arrays import BoolArray, IdArray, IntArray
from acclimate.artifacts import Commit, Lease, Space, Store, Writes
from acclimate.errors import FencedError, FormatError, SpaceError
from acclimate.publish.stores.codec import (
    Layout,
    Payload,
    Place,
    decoded,
    decoded_ids,
    encoded,
    encoded_ids,
    tag_of,
)
from acclimate.storage import Below, Columns

SHARED, LAYOUTS, ROWS = "shared", "layouts", "rows/"
_LEARNER, COLUMNS, _SPACE = b"learner ", b"rows", b"space"

_AT_ONCE = 1 << 24
"""Bytes of rows that a fill writes in one transaction, about."""

_SCANNED = 1 << 14
"""Rows that are brought together from a scan."""

Keep = Callable[[str, tuple[str, ...], IdArray], BoolArray]
"""Which rows are of a partition ``(n,)``, by their name, the columns of events that have the ids, and the ids."""


class Carried(Protocol):
    """A learner as a store carries it: a shared part in bytes by name, and rows by name and id."""

    @property
    def cut(self) -> int:
        """The last event learned, microseconds UTC."""
        ...

    def packed(self) -> Any:
        """All of it as it is now, which the methods below take, so that it is made once."""
        ...

    def shared(self, packed: Any = None) -> Mapping[str, bytes]:
        """All but the rows, in parts by name; of what has not changed the same bytes."""
        ...

    def columns(self, packed: Any = None) -> Mapping[str, tuple[str, ...]]:
        """By the name of rows the columns of the events that have their ids."""
        ...

    def described(self, packed: Any = None) -> Collection[str]:
        """The names of those rows that tell of the id itself, and not of all events that have it."""
        ...

    def changed(self, packed: Any = None) -> Iterator[tuple[str, IdArray, Columns]]:
        """The rows that have changed since the learner was settled: name, ids and columns of one layout."""
        ...

    def everything(self) -> Iterator[tuple[str, IdArray, Columns]]:
        """All rows."""
        ...

    def rest_on(self, below: Callable[[str], Below]) -> None:
        """Read rows from there by name, and let go of what has changed in memory."""
        ...

    def settle(self, packed: Any = None) -> None:
        """Let go of what has changed: it is where rows are read from."""
        ...


C = TypeVar("C", bound=Carried)


class Unit:
    """What a store holds of one space and partition.

    Args:
        store: where.
        space: whose values these are; others are refused.
        partition: from 0.
        payload: what floats of rows are kept in; as the learner keeps them without. Less than that, and what is
            learned differs from what would be in memory.
        life: seconds after which rows go that were not written again, but for those that describe their id.
        by: the column of the entity whose rows alone have that life, as in this partition no others learn; all
            have it without.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        partition: int,
        *,
        payload: Payload | None = None,
        life: float | None = None,
        by: str | None = None,
    ) -> None:
        self.store, self.space, self.life, self.by = store, space, life, by
        self.payload: Payload | None = payload
        self.name = f"{space}/{partition}"
        self._layouts: dict[int, Layout] = {}
        self._shared: dict[bytes, bytes] = {}

    @property
    def position(self) -> str | None:
        """How far into its stream the unit goes; nothing while it is not filled, or was filled without one."""
        return self.store.position(self.name)

    @property
    def _told_space(self) -> bytes:
        """What the shared part says of its space."""
        return json.dumps({"space": str(self.space), "tag": f"{self.space.tag:016x}"}).encode()

    def resumed(self, make: Callable[[Mapping[str, bytes]], C]) -> C | None:
        """The learner as it was last committed, which reads its rows from here; nothing where none was filled in.

        Args:
            make: a learner of its shared part.

        Raises:
            SpaceError: it is of another space of that name and number.
            FormatError: the shared part is not what was written.
        """
        shared = dict(self.store.scan(self.name, SHARED))
        if not shared:
            return None
        told = shared.get(_SPACE)
        if told != self._told_space:
            raise SpaceError(
                f"'{self.name}' holds a learner of {_shown_space(told)}, "
                f"and not of {_shown_space(self._told_space)}",
                hint=f"drop the unit, and it is filled anew: store.drop('{self.name}')",
            )
        parts = {key.removeprefix(_LEARNER).decode(): v for key, v in shared.items() if key.startswith(_LEARNER)}
        carried = make(parts)
        carried.rest_on(self.rows)
        self._shared = shared
        return carried

    def fill(
        self,
        lease: Lease,
        carried: Carried,
        *,
        position: str | None = None,
        keep: Keep | None = None,
        more: Writes | None = None,
    ) -> None:
        """Write all of a learner into a unit, in several transactions of which the last one makes it complete.

        Where it is cut off, the unit counts as not filled: it has no position, and a new fill begins anew. The
        learner reads its rows from here then.

        Args:
            lease: the right to do so.
            carried: the learner.
            position: where the stream is to go on: what the first commit comes ``after``.
            keep: which rows belong to this partition; all without.
            more: further values by table, written with the last transaction.

        Raises:
            FencedError: another has the right to write, or the unit is filled already.
            OutputError: the store is full or cannot be reached.
        """
        if self.store.read(self.name, SHARED, [_SPACE]) != [None]:
            raise FencedError(f"'{self.name}' is filled already", hint="go on from there, or drop it before")
        for table in self.store.size(self.name):
            self._clear(lease, table)
        self._layouts, self._shared = {}, {}  # known from before that, they are not there any more
        packed = carried.packed()
        lives, columns_of = self._lives(carried, packed), carried.columns(packed)
        for name, ids, columns in carried.everything():
            kept = np.arange(len(ids)) if keep is None else np.flatnonzero(keep(name, columns_of[name], ids))
            layout = Layout.of(columns, self.payload)
            some = max(1, _AT_ONCE // layout.row.itemsize)
            for first in range(0, len(kept), some):
                rows = kept[first : first + some]
                piece = ids[rows], {key: column[rows] for key, column in columns.items()}
                self._commit(lease, self._writes([(name, *piece)], carried.cut), lives)
        self._finish(lease, carried, packed, more or {}, position=position)

    def commit(
        self,
        lease: Lease,
        carried: Carried,
        *,
        position: str | None,
        after: str | None,
        more: Writes | None = None,
    ) -> None:
        """Write what a learner has changed, and how far into the stream it goes by that, in one transaction.

        Where it fails nothing was written, and the same call may be repeated.

        Args:
            lease: the right to do so.
            carried: the learner, which lets go of what was written.
            position: of the stream.
            after: the position before.
            more: further values by table, which are written with it.

        Raises:
            FencedError: another has the right to write, or the unit is no longer at that position.
            OutputError: the store is full or cannot be reached.
        """
        packed = carried.packed()
        writes = {**self._writes(carried.changed(packed), carried.cut), **(more or {})}
        self._finish(lease, carried, packed, writes, position=position, after=after)

    def rows(self, name: str) -> "UnitRows":
        """The rows of one name."""
        return UnitRows(self, name)

    def place(self, name: str) -> Place:
        """Where the rows of one name are."""
        return Place(self.name, self.space, ROWS + name)

    def layouts(self, *, anew: bool = False) -> Mapping[int, Layout]:
        """The columns of values by number, as this process knows them, or as the store does now."""
        if anew or not self._layouts:
            self._layouts = {
                int.from_bytes(key, "little"): Layout.read(text)
                for key, text in self.store.scan(self.name, LAYOUTS)
            }
        return self._layouts

    def _finish(
        self,
        lease: Lease,
        carried: Carried,
        packed: Any,
        writes: Writes,
        *,
        position: str | None,
        after: str | None = None,
    ) -> None:
        shared = {_LEARNER + name.encode(): part for name, part in carried.shared(packed).items()}
        shared |= {COLUMNS: json.dumps(carried.columns(packed), sort_keys=True).encode(), _SPACE: self._told_space}
        if changed := [(key, value) for key, value in shared.items() if self._shared.get(key) != value]:
            writes = {**writes, SHARED: changed}
        self._commit(lease, writes, self._lives(carried, packed), position, after)
        if self._shared:
            carried.settle(packed)
        else:
            carried.rest_on(self.rows)
        self._shared = shared

    def _lives(self, carried: Carried, packed: Any) -> dict[str, float]:
        """How long rows live, by table."""
        if self.life is None:
            return {}
        described = carried.described(packed)
        return {
            ROWS + name: self.life
            for name, columns in carried.columns(packed).items()
            if name not in described and (self.by is None or self.by in columns)
        }

    def _commit(
        self,
        lease: Lease,
        writes: Writes,
        lives: Mapping[str, float],
        position: str | None = None,
        after: str | None = None,
    ) -> None:
        layouts, self._layouts = self._layouts, {}  # where this fails one of them may not be there
        self.store.commit(lease, Commit(writes, position, after, lives))
        self._layouts = layouts

    def _writes(
        self, rows: Iterable[tuple[str, IdArray, Columns]], time: int
    ) -> dict[str, list[tuple[bytes, bytes | None]]]:
        """What is to be written of rows, by table, with the layouts that were not known yet."""
        known = {layout: number for number, layout in self.layouts().items()}
        writes: dict[str, list[tuple[bytes, bytes | None]]] = {}
        for name, ids, columns in rows:
            if not len(ids):
                continue
            layout, keys = Layout.of(columns, self.payload), encoded_ids(ids)
            if layout not in known:
                known[layout] = len(known)
                writes.setdefault(LAYOUTS, []).append((known[layout].to_bytes(2, "little"), layout.written()))
            values = encoded(self.place(name), keys, columns, layout=layout, number=known[layout], time=time)
            writes.setdefault(ROWS + name, []).extend(zip(keys, values, strict=True))
        self._layouts = {number: layout for layout, number in known.items()}
        return writes

    def _clear(self, lease: Lease, table: str) -> None:
        """Remove what an earlier fill that was cut off has left in a table."""
        gone: list[tuple[bytes, bytes | None]] = []
        for key, _ in self.store.scan(self.name, table):
            gone.append((key, None))
            if len(gone) == _SCANNED:
                self._commit(lease, {table: gone}, {})
                gone = []
        self._commit(lease, {table: gone}, {})


def units_of(store: Store, space: Space) -> list[Unit]:
    """The units that a store has of a space, filled or not."""
    parts = [name.rpartition("/") for name in store.units()]
    numbers = sorted(int(number) for name, _, number in parts if name == str(space) and number.isdecimal())
    return [Unit(store, space, number) for number in numbers]


def tag_in(store: Store, unit: str) -> int | None:
    """The tag of the space of what a unit holds, filled or not; none where it does not tell."""
    (told,) = store.read(unit, SHARED, [_SPACE])
    if told is not None:
        return int(json.loads(told)["tag"], 16)
    tables = [table for table in store.size(unit) if table.startswith(ROWS)]
    values = (value for table in tables for _, value in store.scan(unit, table))
    return next(map(tag_of, values), None)


class UnitRows:
    """The seam :class:`acclimate.storage.Below`: the rows of one name in a unit."""

    def __init__(self, unit: Unit, name: str) -> None:
        self.unit, self.name = unit, name

    def __deepcopy__(self, _: dict[int, object]) -> "UnitRows":
        return self  # rows are where they are, whoever reads them

    def read(self, ids: IdArray) -> Iterator[tuple[IntArray, Columns]]:
        """See :meth:`acclimate.storage.Below.read`.

        Raises:
            SpaceError: a value is of another space.
            FormatError: a value is not what was written.
        """
        keys = encoded_ids(ids)
        values = self.unit.store.read(self.unit.name, ROWS + self.name, keys)
        there = [i for i, value in enumerate(values) if value is not None]
        if not there:
            return
        if len(there) < len(keys):
            keys = [keys[i] for i in there]
        places = np.array(there)
        for some, columns in self.decoded(keys, [value for value in values if value is not None]):
            yield places[some], columns

    def ids(self) -> IdArray:
        """See :meth:`acclimate.storage.Below.ids`."""
        return decoded_ids([key for key, _ in self.unit.store.scan(self.unit.name, ROWS + self.name)])

    def pieces(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`acclimate.storage.Below.pieces`."""
        keys, values = list[bytes](), list[bytes]()
        for key, value in self.unit.store.scan(self.unit.name, ROWS + self.name):
            keys.append(key)
            values.append(value)
            if len(keys) == _SCANNED:
                yield from self._pieces(keys, values)
                keys, values = [], []
        yield from self._pieces(keys, values)

    @property
    def nbytes(self) -> int:
        """See :attr:`acclimate.storage.Below.nbytes`: as many as there are, of the widest layout."""
        count = self.unit.store.size(self.unit.name).get(ROWS + self.name, 0)
        widest = max((layout.row.itemsize for layout in self.unit.layouts().values()), default=0)
        return count * widest

    def decoded(self, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[IntArray, Columns]]:
        """See :func:`acclimate.publish.stores.codec.decoded`; layouts that are new are looked up."""
        place, layouts = self.unit.place(self.name), self.unit.layouts()
        try:
            found = list(decoded(place, keys, values, layouts))
        except FormatError:
            known = dict(layouts)
            if known == (there := self.unit.layouts(anew=True)):
                raise
            found = list(decoded(place, keys, values, there))  # another process has written a new one meanwhile
        yield from found

    def _pieces(self, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[IdArray, Columns]]:
        for places, columns in self.decoded(keys, values):
            yield decoded_ids([keys[i] for i in places.tolist()]), columns


def _shown_space(told: bytes | None) -> str:
    if told is None:
        return "a space that it does not name"
    space: dict[str, str] = json.loads(told)
    return f"{space['space']} with the tag {space['tag']}"
