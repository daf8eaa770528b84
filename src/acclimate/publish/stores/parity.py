"""Whether vectors in a store are those that their learner makes, anew, of the states beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acclimate.arrays import FloatArray, IdArray, IntArray
from acclimate.artifacts import VECTORS, Space, Store
from acclimate.publish.stores.codec import encoded_ids, times_of
from acclimate.publish.stores.units import ROWS, Unit, units_of

_ROUNDING = 1e-5
"""Of float32, as a part of the largest number: the order of sums depends on who is computed together."""


@dataclass
class Compared:
    """How far stored vectors are from those made anew.

    ``whose``: the kind of entity and the id of each, ``n`` of them; ``apart`` ``(n,)``: the largest difference of
    its numbers; ``rounding``: what they may differ by for being float32. So many ``units`` are filled, and so many
    other ``rows`` of them were proved.
    """

    whose: list[str] = field(default_factory=list[str])
    apart: FloatArray = field(default_factory=lambda: np.zeros(0))
    rounding: float = 0.0
    units: int = 0
    rows: int = 0


def compared(store: Store, space: Space, make: Callable[[Mapping[str, bytes]], Any], sample: int) -> Compared:
    """Look at all units of a space that are filled, while writers go on.

    Args:
        store: where.
        space: whose units.
        make: gives a :class:`acclimate.learners.carried.Carried` of its shared part.
        sample: how many vectors of each kind in each unit.

    Raises:
        SpaceError: a value, or a learner, is of another space.
        FormatError: a value is not what was written.
        ModelError: what is kept of entities is not what learning makes of it.
        OutputError: the store cannot be reached.
    """
    found = Compared()
    for unit in units_of(store, space):
        tables = [table.removeprefix(ROWS) for table in store.size(unit.name) if table.startswith(ROWS)]
        stored = {name: _Stored.sampled(unit, name, sample) for name in tables if name.startswith(VECTORS)}
        carried = unit.resumed(make)
        if carried is None:
            continue
        carried.learner.check_kept()
        found.units += 1
        found.rows += sum(_proved(unit, name, sample) for name in tables if name not in stored)
        for kind, exported in carried.learner.exported().items():
            known = exported.ids()  # the others have ended
            for ids, vectors, times in stored[VECTORS + kind].unchanged() if VECTORS + kind in stored else ():
                there = np.isin(ids, known)
                ids, vectors, times = ids[there], vectors[there], times[there]
                again = exported.vectors(ids, times)
                found.whose += [f"{kind} {id}" for id in ids.tolist()]
                found.apart = np.concatenate([found.apart, np.abs(vectors - again).max(axis=1)])
                found.rounding = max(found.rounding, _ROUNDING * float(np.abs(again).max(initial=0.0)))
    return found


@dataclass(frozen=True)
class _Stored:
    """Values of one table as they were before the states were read."""

    unit: Unit
    name: str
    ids: IdArray
    values: Sequence[bytes | None]

    @staticmethod
    def sampled(unit: Unit, name: str, sample: int) -> "_Stored":
        """Those of ids that lie evenly among all of them."""
        ids = np.sort(unit.rows(name).ids())
        ids = ids[np.unique(np.linspace(0, len(ids) - 1, min(sample, len(ids))).astype(np.int64))]
        return _Stored(unit, name, ids, _read(unit, name, ids))

    def unchanged(self) -> Iterator[tuple[IdArray, FloatArray, IntArray]]:
        """Ids, vectors ``(m, s)`` and times ``(m,)`` of those that are still there.

        A writer who has replaced one meanwhile has replaced the states that it was made of.
        """
        pairs = enumerate(zip(self.values, _read(self.unit, self.name, self.ids), strict=True))
        kept = [(i, now) for i, (before, now) in pairs if now is not None and now == before]
        ids, values = self.ids[[i for i, _ in kept]], [value for _, value in kept]
        for places, columns in self.unit.rows(self.name).decoded(encoded_ids(ids), values):
            yield ids[places], columns["vector"], times_of(values)[places]


def _read(unit: Unit, name: str, ids: IdArray) -> list[bytes | None]:
    return unit.store.read(unit.name, ROWS + name, encoded_ids(ids))


def _proved(unit: Unit, name: str, least: int) -> int:
    """How many rows of a table, its first ones, were proved by being read: so many, if there are."""
    count = 0
    for ids, _ in unit.rows(name).pieces():
        count += len(ids)
        if count >= least:
            break
    return count
