"""What services look up: the vectors of one space, and never one of another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, IdArray, IntArray
from acclimate.artifacts import VECTORS, Space, Store
from acclimate.publish.stores.units import Unit


@dataclass(frozen=True)
class Vectors:
    """``vectors`` ``(n, s)`` of some ids; which are ``known`` ``(n,)``, the others being zeros."""

    vectors: NDArray[np.float32]
    known: BoolArray


class VectorReader:
    """Reads the vectors of a space, such as those of users, as a stream refreshes them.

    Args:
        store: where they are.
        space: the one that was pinned, or is live: a value of another one is refused.
        entity: whose vectors they are, as the learner calls it.
        partition: tells the partition of each id, of a stream of several.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        entity: str,
        *,
        partition: Callable[[IdArray], IntArray] = lambda ids: np.zeros(len(ids), np.int64),
    ) -> None:
        self.store, self.space, self.entity = store, space, entity
        self._partition = partition
        self._units = dict[int, Unit]()

    def vectors(self, ids: IdArray | Sequence[Any]) -> Vectors:
        """The vectors of these ids, whole numbers or texts.

        Raises:
            SpaceError: a value is of another space.
            FormatError: a value is not what was written.
        """
        asked = ids if isinstance(ids, np.ndarray) else _ids(ids)
        known, found = np.zeros(len(asked), np.bool_), np.zeros((len(asked), 0), np.float32)
        number = self._partition(asked)
        for partition in np.unique(number).tolist():
            here = np.flatnonzero(number == partition)
            for places, columns in self._unit(partition).rows(VECTORS + self.entity).read(asked[here]):
                vector = columns["vector"]
                if not found.shape[1]:
                    found = np.zeros((len(asked), vector.shape[1]), np.float32)
                found[here[places]], known[here[places]] = vector, True
        return Vectors(found, known)

    def _unit(self, partition: int) -> Unit:
        return self._units.setdefault(partition, Unit(self.store, self.space, partition))


def _ids(ids: Sequence[Any]) -> IdArray:
    text = bool(len(ids)) and isinstance(ids[0], str)
    return np.array(ids, np.dtypes.StringDType() if text else np.int64)
