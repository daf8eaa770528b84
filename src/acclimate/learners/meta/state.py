"""What a meta ranker knows: shared weights, of each entity its newest rows and meta embedding; on disk too."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IntArray
from acclimate.config import MetaRankerParameters, Schema
from acclimate.extras import import_module
from acclimate.features import FieldRows, Layout, ids_as
from acclimate.learners.base import Packed
from acclimate.learners.encoder.histories import Log
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.entities import with_room
from acclimate.learners.meta.buffer import Supports
from acclimate.learners.network.rows import OF_ROWS, NetworkRows
from acclimate.learners.on_vectors import table_of
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

    def at(self, numbers: IntArray) -> NDArray[np.float32]:
        """Those of entities by number ``(n, s)``; where it is -1, zeros."""
        if not self.entities:
            return np.zeros((len(numbers), self._values.shape[1]), np.float32)
        values = self.values.take(np.maximum(numbers, 0), axis=0)
        values[numbers < 0] = 0.0
        return values

    def put(self, entities: IntArray, values: NDArray[np.float32]) -> None:
        """Those of some entities ``(e, s)``."""
        self.entities = max(self.entities, int(entities.max(initial=-1)) + 1)
        self._values = with_room(self._values, self.entities)
        self._values[entities] = values


class Made:
    """What is made of a state once and is its alone: another state, a changed or a copied one, starts without."""

    def __init__(self) -> None:
        self.refresher: tuple[MetaRankerParameters, Any] | None = None

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
    made: Made = field(default_factory=Made, init=False, repr=False, compare=False)


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
    tables = {
        "names": names,
        **{
            f"ids-{number}": table_of(ids.index.ids(), ids.kind or "int64") for number, ids in enumerate(state.ids)
        },
    }
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
    rows = _rows(arrays, layout)
    supports.buffer.add(rows)
    ids, embeddings = list[Numbered](), list[Embeddings]()
    for number, ((name, block), kind) in enumerate(zip(blocks.items(), stored.manifest["kinds"], strict=True)):
        column = stored.tables[f"ids-{number}"]["id"]
        known_ids = ids_as(column, kind or "int64", f"'{name}'")
        ids.append(Numbered.restored(name, kind, known_ids, np.arange(len(known_ids)))[0])
        entities = np.arange(len(ids[-1]))
        embeddings.append(Embeddings(block.size))
        embeddings[-1].put(entities, _of_shape(arrays[f"embeddings.{number}"], (len(entities), block.size)))
        time, item, starts = (arrays[f"support.{number}.{part}"] for part in _OF_SUPPORT)
        _check_cuts(starts, len(entities), len(item))
        _of_shape(time, item.shape)
        if len(item) and item.max() >= len(rows):
            raise ValueError(f"supports of '{name}' are of rows beyond {len(rows):,}")
        supports.histories[number].grow(len(entities))
        supports.histories[number].put(entities, Log(time, item, np.zeros(len(item), np.uint8), starts))
    shapes = import_module("acclimate.learners.meta.network").shapes_of(parameters, layout)
    # What is read is of the file, and not to be written to.
    weights = {name: _of_shape(arrays[f"weights.{name}"], shape).copy() for name, shape in shapes.items()}
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


def _rows(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> NetworkRows:
    """The rows of the buffer; starts say how many."""
    dense, cell, value, starts = (arrays[f"rows.{name}"] for name in ("dense", "cell", "value", "starts"))
    count = len(arrays["rows.time"])
    _of_shape(dense, (count, len(layout.dense)))
    _check_cuts(starts, count * len(layout.fields), len(cell))
    _of_shape(value, cell.shape)
    if len(cell) and cell.max() >= len(layout.index):
        raise ValueError(f"rows have names beyond the {len(layout.index):,} there are")
    columns = (_of_shape(arrays[f"rows.{name}"], (count,)) for name in OF_ROWS)
    return NetworkRows(FieldRows(dense, cell, value, starts), *columns)


def _check_cuts(starts: NDArray[Any], parts: int, total: int) -> None:
    """Ask that so many parts begin where the ones before end, the first at 0 and the last ending at the total."""
    _of_shape(starts, (parts + 1,))
    if starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError(f"{parts:,} parts are none of {total:,}")


def _of_shape(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape:
        raise ValueError(f"an array is of shape {array.shape}, not {shape}")
    return array
