"""What an update in several batches has changed so far: the store learns of it with the last one, all at once."""

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from acclimate.arrays import BoolArray, EntityStates, IdArray, Posterior, SparseStates
from acclimate.artifacts import Entities
from acclimate.learners.entities import IdIndex, MemoryEntities
from acclimate.learners.shared import Shared

_AT_ONCE = 1 << 14
"""Entities that are brought to the store at a time."""


class Pending:
    """Entities of a store ``below``, as they are while an update lasts.

    What is taken is copied here, and learns here. ``populations`` are those that states are stored at, by effect,
    as they were last taken with; ``forgetting`` is what the update keeps of each effect's past, by what was
    ``known`` before it; ``locked`` effects are taken from the store, and do not change.
    """

    def __init__(self, below: Entities, known: Shared, locked: Collection[str] = ()) -> None:
        self.below, self.locked = below, locked
        self.forgetting = {effect.name: effect.declared.forgetting for effect in known.effects}
        self.changed = MemoryEntities()
        self.met: dict[str, IdIndex] = {}
        self.populations: dict[str, Posterior] = {}

    def unmet(self, effect: str, ids: IdArray) -> BoolArray:
        """Which of these entities were not taken yet, ``(len(ids),)``."""
        known = self.met.setdefault(effect, IdIndex())
        return known.numbers(ids) < 0

    def take(self, effect: str, ids: IdArray, population: Posterior) -> EntityStates:
        """See :meth:`acclimate.artifacts.Entities.take`."""
        if effect in self.locked:
            return self.below.take(effect, ids, population)
        new = ids[self.unmet(effect, ids)]
        self.met[effect].admit(new)
        self.changed.fill(effect, [self.below.take(effect, new, population)])
        self.populations[effect] = population
        return self.changed.take(effect, ids, population)

    def take_sparse(self, effect: str, ids: IdArray) -> SparseStates:
        """See :meth:`acclimate.artifacts.Entities.take_sparse`."""
        if effect in self.locked:
            return self.below.take_sparse(effect, ids)
        new = ids[self.unmet(effect, ids)]
        self.met[effect].admit(new)
        self.changed.fill(effect, [states for _, states in self.below.take_sparse(effect, new).pieces])
        return self.changed.take_sparse(effect, ids)

    def commit(self, changed: Mapping[str, Iterable[EntityStates]]) -> None:
        """See :meth:`acclimate.artifacts.Entities.commit`; the store does not see it yet."""
        self.changed.commit(changed)

    def settle(self) -> None:
        """Store all that has changed."""
        self.below.commit({effect: self._pieces(effect) for effect in self.met})

    def _pieces(self, effect: str) -> Iterator[EntityStates]:
        ids, population = self.changed.ids(effect), self.populations.get(effect)
        for first in range(0, len(ids), _AT_ONCE):
            some = ids[first : first + _AT_ONCE]
            if population is None:  # of entities that hold some coefficients only
                taken = [states for _, states in self.changed.take_sparse(effect, some).pieces]
            else:
                taken = [self.changed.take(effect, some, population)]
            for states in taken:  # rows without an entity have a state that never learns
                yield states.at(np.flatnonzero(states.rows > 0))
