"""Learners in a unit of a store, for tests of what is written there and resumed."""

import copy
from typing import Any

from acclimate.artifacts import Lease, Space
from acclimate.learners.carried import Carried
from acclimate.publish.stores.memory import MemoryStore
from acclimate.publish.stores.units import Unit

SPACE = Space("learner", 1, "weights", "contract", 0)


def filled(learner: Any) -> tuple[MemoryStore, Lease, Carried]:
    store, carried = MemoryStore(), Carried(copy.deepcopy(learner))
    lease = store.acquire(f"{SPACE}/0", "test", 600.0)
    assert lease is not None
    Unit(store, SPACE, 0).fill(lease, carried, position="0")
    return store, lease, carried


def resumed(store: MemoryStore) -> tuple[Unit, Carried]:
    unit = Unit(store, SPACE, 0)
    carried = unit.resumed(Carried.made)
    assert carried is not None
    return unit, carried


def as_rows(carried: Carried) -> dict[tuple[str, Any], Any]:
    return {
        (name, id): {column: values[i].tolist() for column, values in columns.items()}
        for name, ids, columns in carried.everything()
        for i, id in enumerate(ids.tolist())
    }
