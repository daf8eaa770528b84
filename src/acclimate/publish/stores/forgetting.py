"""The right to be forgotten: all that stores hold of one entity goes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.artifacts import VECTORS, Commit, Store
from acclimate.errors import FencedError, OutputError
from acclimate.features.keys import BETWEEN
from acclimate.publish.stores.codec import decoded_ids, encoded_ids
from acclimate.publish.stores.units import COLUMNS, ROWS, SHARED

_SECONDS = 60.0
"""For which the right to write is taken: it is given back before."""

_TURNS = 10
"""How often a unit is taken over, where others take it back before anything is removed."""


@dataclass(frozen=True)
class Forgotten:
    """How many ``values`` have gone, from which ``units``.

    ``others`` are units in which something may be left: of learners that have no rows by that column, or none but
    vectors that they make of what they know (which, if anything, is in their shared part, and a new fit without
    its events replaces that), and units that are being filled from a snapshot, or were when that was cut off.
    """

    values: int
    units: tuple[str, ...]
    others: tuple[str, ...]


def forget(store: Store, column: str, ids: Sequence[int | str]) -> Forgotten:
    """Remove all rows of some entities, in all units of all spaces, combinations with others included.

    The right to write is taken over for it, so that a worker who has them in memory is fenced, and goes on from
    what is stored then.

    Args:
        store: where.
        column: of the events, which has the ids.
        ids: of the entities.

    Raises:
        OutputError: the store cannot be reached, or others take over all the time.
    """
    count, touched, others = 0, list[str](), list[str]()
    for unit in store.units():
        (told,) = store.read(unit, SHARED, [COLUMNS])
        by_name: dict[str, list[str]] = {} if told is None else json.loads(told)
        tables = {
            ROWS + name: (columns.index(column), len(columns))
            for name, columns in by_name.items()
            if column in columns
        }
        has_rows = any(table.startswith(ROWS) for table in store.size(unit))
        is_filling = told is None and has_rows and store.position(unit) is None
        if is_filling or (told is not None and all(table.startswith(ROWS + VECTORS) for table in tables)):
            others.append(unit)
        if tables and (gone := _forgotten(store, unit, tables, ids)):
            count += gone
            touched.append(unit)
    return Forgotten(count, tuple(touched), tuple(others))


def _forgotten(store: Store, unit: str, tables: dict[str, tuple[int, int]], ids: Sequence[int | str]) -> int:
    """How many values have gone from a unit."""
    for _ in range(_TURNS):
        lease = store.acquire(unit, "forget", _SECONDS, take_over=True)
        if lease is None:
            continue
        keys = {table: _keys(store, unit, table, place, ids) for table, place in tables.items()}
        position = store.position(unit)
        writes = {table: [(key, None) for key in some] for table, some in keys.items()}
        try:
            store.commit(lease, Commit(writes, position, position))
        except FencedError:  # its worker has it again
            continue
        store.release(lease)
        return sum(map(len, keys.values()))
    raise OutputError(
        f"others take over '{unit}' all the time; nothing was removed there, but from units before it",
        hint="try again, or stop its worker first",
    )


def _keys(store: Store, unit: str, table: str, place: tuple[int, int], ids: Sequence[int | str]) -> list[bytes]:
    """The keys of rows of one of these entities, whose place is one of so many in a combination."""
    texts = {str(id) for id in ids}
    number, parts = place
    if parts == 1:
        keys = [*_of_integers(texts), *encoded_ids(np.array(sorted(texts), np.dtypes.StringDType()))]
        return [k for k, value in zip(keys, store.read(unit, table, keys), strict=True) if value is not None]
    return [key for key, _ in store.scan(unit, table) if _part(key, number) in texts]


def _of_integers(texts: Iterable[str]) -> list[bytes]:
    numbers = [int(text) for text in texts if text.removeprefix("-").isdecimal()]
    return encoded_ids(np.array([n for n in numbers if -(2**63) <= n < 2**63], np.int64))


def _part(key: bytes, place: int) -> str:
    """One of the ids that a combined one is made of."""
    (id,) = decoded_ids([key]).tolist()
    return str(id).split(BETWEEN)[place]
