"""What a meta ranker knows: shared weights, of each entity its newest rows and meta embedding."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.config import MetaRankerParameters, Schema
from acclimate.features import Layout
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.entities import with_room
from acclimate.learners.meta.buffer import Supports


class Embeddings:
    """Meta embeddings ``(entities, s)`` by number; changed in place."""

    def __init__(self, size: int) -> None:
        self.size, self.entities = size, 0
        self._values = np.zeros((0, size), np.float32)

    @property
    def values(self) -> NDArray[np.float32]:
        """All of them."""
        return self._values[: self.entities]

    @property
    def nbytes(self) -> int:
        """Bytes, spare room left out."""
        return self.values.nbytes

    def at(self, numbers: IntArray) -> NDArray[np.float32]:
        """Those of entities by number ``(n, s)``; where it is -1, zeros."""
        if not self.entities:
            return np.zeros((len(numbers), self.size), np.float32)
        values = self.values.take(np.maximum(numbers, 0), axis=0)
        values[numbers < 0] = 0.0
        return values

    def put(self, entities: IntArray, values: NDArray[np.float32]) -> None:
        """Those of some entities ``(e, s)``."""
        self.entities = max(self.entities, int(entities.max(initial=-1)) + 1)
        self._values = with_room(self._values, self.entities)
        self._values[entities] = values


class Made:
    """What is made of parameters and weights once, and holds for states of these; a copied one starts without."""

    def __init__(self) -> None:
        self.refresher: tuple[MetaRankerParameters, Any, Any] | None = None

    def __deepcopy__(self, _: Any) -> "Made":
        return Made()


@dataclass(frozen=True)
class MetaState:
    """What a meta ranker knows.

    ``space`` is the identity of the shared ``weights``, with ``scale`` ``(2, k)``, mean and spread of the dense
    columns. ``ids``, ``embeddings`` and ``supports`` are of each block's entities, and change in place.
    """

    label: str
    contract: dict[str, Any]
    cut: int
    space: str
    layout: Layout
    scale: NDArray[np.float32]
    weights: dict[str, NDArray[np.float32]]
    ids: tuple[Numbered, ...]
    embeddings: tuple[Embeddings, ...]
    supports: Supports
    made: Made = field(default_factory=Made, repr=False, compare=False)


def space_of(parameters: MetaRankerParameters, schema: Schema, weights: dict[str, NDArray[np.float32]]) -> str:
    """The identity of shared weights: of what they are, and of what they are made of."""
    digest = hashlib.sha256(repr((parameters, schema.fingerprint())).encode())
    for name, array in weights.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
