"""What a meta ranker knows: shared weights, of each entity its newest rows and meta embedding; on disk too."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.config import MetaRankerParameters, Schema
from acclimate.features import FieldRows, Layout, ids_as
from acclimate.learners.base import Packed
from acclimate.learners.encoder.histories import Log
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.entities import with_room
from acclimate.learners.meta.buffer import Supports
from acclimate.learners.network.rows import OF_ROWS, NetworkRows
from acclimate.storage import Stored


class Embeddings:
    """Meta embeddings ``(entities, s)`` by number; changed in place."""

    def __init__(self, size: int) -> None:
        self._values, self.entities = np.zeros((0, size), np.float32), 0

    @property
    def values(self) -> NDArray[np.float32]:
        """All of them."""
        return self._values[: self.entities]

    @property
    def nbytes(self) -> int:
        """Bytes, spare room left out."""
        return self.values.nbytes

    def put(self, entities: IntArray, values: NDArray[np.float32]) -> None:
        """Those of some entities ``(e, s)``."""
        self.entities = max(self.entities, int(entities.max(initial=-1)) + 1)
        self._values = with_room(self._values, self.entities)
        self._values[entities] = values


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


def space_of(parameters: MetaRankerParameters, schema: Schema, weights: dict[str, NDArray[np.float32]]) -> str:
    """The identity of shared weights: of what they are, and of what they are made of."""
    digest = hashlib.sha256(repr((parameters, schema.fingerprint())).encode())
    for name, array in weights.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


# --- on disk ------------------------------------------------------------------------------------------------


def packed(state: MetaState) -> Packed:
    """A state as it goes to disk."""
    told, names = state.layout.described()
    arrays: dict[str, NDArray[Any]] = {"scale": state.scale}
    arrays |= {f"weights.{name}": array for name, array in state.weights.items()}
    arrays |= {f"rows.{name}": array for name, array in state.supports.buffer.arrays().items()}
    for number, (one, histories) in enumerate(zip(state.embeddings, state.supports.histories, strict=True)):
        log = histories.log(np.arange(histories.entities))
        arrays |= {f"support.{number}.{name}": getattr(log, name) for name in _OF_SUPPORT}
        arrays[f"embeddings.{number}"] = one.values
    tables = {"names": names, **{f"ids-{number}": ids.arrow() for number, ids in enumerate(state.ids)}}
    return Packed({"layout": told, "kinds": [ids.kind for ids in state.ids]}, arrays, tables)


_OF_SUPPORT = ("time", "item", "starts")


def unpacked(stored: Stored, parameters: MetaRankerParameters, known: dict[str, Any]) -> MetaState:
    """The state.

    Raises:
        ValueError: parts do not belong together.
    """
    arrays, blocks = stored.arrays, parameters.blocks
    layout = Layout.restored(stored.manifest["layout"], stored.tables["names"])
    supports = Supports(len(layout.fields), [block.support for block in blocks.values()])
    read = FieldRows(*(arrays[f"rows.{name}"] for name in ("dense", "cell", "value", "starts")))
    rows = NetworkRows(read, *(arrays[f"rows.{name}"] for name in OF_ROWS))
    supports.buffer.add(rows)
    ids, embeddings = list[Numbered](), list[Embeddings]()
    for number, ((name, block), kind) in enumerate(zip(blocks.items(), stored.manifest["kinds"], strict=True)):
        column = stored.tables[f"ids-{number}"]["id"]
        ids.append(Numbered(name, ids_as(column, kind or "int64", f"'{name}'"), kind))
        entities = np.arange(len(ids[-1]))
        embeddings.append(Embeddings(block.size))
        embeddings[-1].put(entities, _of_shape(arrays[f"embeddings.{number}"], (len(entities), block.size)))
        time, item, starts = (arrays[f"support.{number}.{part}"] for part in _OF_SUPPORT)
        if len(starts) != len(entities) + 1 or (len(item) and item.max() >= len(rows)):
            raise ValueError(f"the supports of '{name}' are none of its {len(entities):,} entities")
        supports.histories[number].grow(len(entities))
        supports.histories[number].put(entities, Log(time, item, np.zeros(len(item), np.uint8), starts))
    weights = {
        name.removeprefix("weights."): array for name, array in arrays.items() if name.startswith("weights.")
    }
    scale = _of_shape(arrays["scale"], (2, len(layout.dense)))
    return MetaState(
        **known,
        layout=layout,
        scale=scale,
        weights=weights,
        ids=tuple(ids),
        embeddings=tuple(embeddings),
        supports=supports,
    )


def _of_shape(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape:
        raise ValueError(f"an array is of shape {array.shape}, not {shape}")
    return array
