"""A meta ranker on disk or in a store: its shared part, and of each block a row for each entity.

::

    block-0   number, embedding (s,), length, row (room,), time, label, weight, offset (room,), dense (room, k),
              bags (room, F), cell, value (cells,)

``row`` are the numbers of support rows: those of one number, which entities of several blocks have, are one row
again when they are read. ``bags`` are how many cells each of their fields has. Rooms are 8, 16, 32, ... as
supports need them, but for no more rows than a support may have; rows of one room, with the same room for cells,
are of one layout.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IdArray, IntArray
from acclimate.config import MetaRankerParameters
from acclimate.extras import import_module
from acclimate.features import FieldRows, Layout
from acclimate.learners.base import Layered, Packed
from acclimate.learners.encoder.histories import padded, rooms_of, unpadded
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.held import HeldRows, check_columns, joined
from acclimate.learners.meta.buffer import Kept, Supports
from acclimate.learners.meta.state import Embeddings, MetaState
from acclimate.learners.network.rows import OF_ROWS, NetworkRows, RowStore
from acclimate.storage import Below, Columns, InSegments, Stored

T = TypeVar("T")


def packed(state: MetaState) -> Packed:
    """A state as it goes to disk, but for its rows."""
    told, names = state.layout.described()
    weights = {f"weights.{name}": array for name, array in state.weights.items()}
    manifest = {"layout": told, "kinds": [ids.kind for ids in state.ids]}
    return Packed(manifest, {"scale": state.scale, **weights}, {"names": names})


def rows_of(
    parameters: MetaRankerParameters, now: Callable[[], MetaState], become: Callable[[MetaState], None]
) -> dict[str, Layered]:
    """The rows of a learner, by the number of a block; its state is ``now`` one and may ``become`` another."""
    state = now()
    entities = state.contract["entities"]

    def replaced(number: int, below: Below) -> Numbered:
        become(with_block(now(), number, below))
        return now().ids[number]

    return {
        f"block-{number}": HeldRows(
            f"'{name}'",
            tuple(entities.get(role, role) for role in block.entity),
            state.ids[number],
            partial(_rows, state, number),
            partial(replaced, number),
        )
        for number, (name, block) in enumerate(parameters.blocks.items())
    }


def _rows(state: MetaState, block: int, places: IntArray) -> Iterator[tuple[IntArray, Columns]]:
    if not len(places):
        return
    kept = state.supports.kept(block, places)
    rows, length = kept.rows, kept.length
    bags = np.diff(rows.read.starts).reshape(len(rows), len(state.layout.fields)).astype(np.int32)
    cells = _cells_of(bags, length)
    of_rows = {"row": kept.number, "dense": rows.read.dense, "bags": bags}
    of_rows |= {name: getattr(rows, name) for name in OF_ROWS}
    of_cells = {"cell": rows.read.cell, "value": rows.read.value}
    most = state.supports.histories[block].most
    rooms = np.stack([np.minimum(rooms_of(length), most), rooms_of(cells)], axis=1)
    for room in np.unique(rooms, axis=0):
        some = (rooms == room).all(axis=1)
        columns: dict[str, NDArray[Any]] = {
            "number": state.ids[block].kept_as(places[some]),
            "embedding": state.embeddings[block].values[places[some]],
            "length": length[some].astype(np.int32),
        }
        for parts, sizes, size in ((of_rows, length, room[0]), (of_cells, cells, room[1])):
            theirs = np.repeat(some, sizes)
            columns |= {name: padded(part[theirs], sizes[some], size) for name, part in parts.items()}
        yield places[some], columns


def with_block(state: MetaState, block: int, below: Below) -> MetaState:
    """The state with all entities of a block that lie there, in place of its own.

    Raises:
        ValueError: they are not of this ranker.
    """
    known, store, size = state.ids[block], RowStore(None), state.embeddings[block].size
    read, values = list[tuple[IdArray, IntArray]](), list[NDArray[np.float32]]([np.zeros((0, size), np.float32)])
    lengths, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    store.add(_none_of(state.layout))
    for ids, columns in below.pieces():
        kept = _kept(state, block, columns)
        store.add(kept.rows)
        lengths.append(kept.length)
        numbers.append(kept.number)
        values.append(columns["embedding"])
        read.append((ids, columns["number"]))
    ids, places = Numbered.restored(known.what, known.kind, *joined(read))
    embeddings = Embeddings(size)
    embeddings.put(places, np.concatenate(values))
    kept = Kept(np.concatenate(lengths), np.concatenate(numbers), store.rows())
    return replace(
        state,
        ids=_with(state.ids, block, ids),
        embeddings=_with(state.embeddings, block, embeddings),
        supports=state.supports.replaced(block, places, kept),
    )


def _with(parts: tuple[T, ...], block: int, part: T) -> tuple[T, ...]:
    return (*parts[:block], part, *parts[block + 1 :])


def _kept(state: MetaState, block: int, columns: Columns) -> Kept:
    """What some entities have; raises ValueError where it is not of this ranker."""
    layout, name, most = state.layout, state.ids[block].what, state.supports.histories[block].most
    room, cells = columns["row"].shape[-1], columns["cell"].shape[-1]
    of_rows: dict[str, tuple[tuple[int, ...], str]] = {
        "row": ((room,), "i8"),
        "dense": ((room, len(layout.dense)), "f4"),
        "bags": ((room, len(layout.fields)), "i4"),
        **{column: ((room,), "i8" if column == "time" else "f8") for column in OF_ROWS},
    }
    of_cells = {"cell": ((cells,), "i4"), "value": ((cells,), "f4")}
    of_entities = {
        "number": ((), "i8"),
        "embedding": ((state.embeddings[block].size,), "f4"),
        "length": ((), "i4"),
    }
    check_columns(f"'{name}'", columns, {**of_entities, **of_rows, **of_cells})
    length = columns["length"].astype(np.int64)
    if np.any((length < 0) | (length > min(room, most))):
        raise ValueError(f"supports of '{name}' are of other lengths than 0 to {most}")
    rows = {column: unpadded(columns[column], length) for column in of_rows}
    sizes = _cells_of(rows["bags"], length)
    if np.any(rows["bags"] < 0) or np.any(sizes > cells):
        raise ValueError(f"supports of '{name}' have other cells than 0 to {cells}")
    cell, value = (unpadded(columns[column], sizes) for column in of_cells)
    if np.any((cell < 0) | (cell >= len(layout.index))):
        raise ValueError(f"supports of '{name}' have names beyond the {len(layout.index):,} there are")
    starts = np.concatenate([[0], np.cumsum(rows["bags"].ravel(), dtype=np.int64)])
    told = NetworkRows(FieldRows(rows["dense"], cell, value, starts), *(rows[column] for column in OF_ROWS))
    return Kept(length, rows["row"], told)


def _cells_of(bags: NDArray[np.int32], length: IntArray) -> IntArray:
    """How many cells each entity has ``(e,)``, whose rows have ``bags`` ``(n, F)`` of so many."""
    ends = np.concatenate([[0], np.cumsum(bags.sum(axis=1, dtype=np.int64))])
    return np.diff(ends[np.concatenate([[0], np.cumsum(length)])])


def _none_of(layout: Layout) -> NetworkRows:
    """No rows of a layout."""
    floats = np.zeros(0)
    read = FieldRows(
        np.zeros((0, len(layout.dense)), np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros(1, np.int64),
    )
    return NetworkRows(read, floats, floats, floats, np.zeros(0, np.int64))


def unpacked(stored: Stored, parameters: MetaRankerParameters, known: dict[str, Any]) -> MetaState:
    """The state.

    Raises:
        ValueError: parts do not belong together.
    """
    arrays, blocks = stored.arrays, parameters.blocks
    layout = Layout.restored(stored.manifest["layout"], stored.tables["names"])
    shapes = import_module("acclimate.learners.meta.network").shapes_of(parameters, layout)
    # What is read is of the file, and not to be written to.
    weights = {name: _of_shape(arrays[f"weights.{name}"], shape).copy() for name, shape in shapes.items()}
    state = MetaState(
        **known,
        layout=layout,
        scale=_of_shape(arrays["scale"], (2, len(layout.dense))),
        weights=weights,
        ids=tuple(Numbered(name, kind) for name, kind in zip(blocks, stored.manifest["kinds"], strict=True)),
        embeddings=tuple(Embeddings(block.size) for block in blocks.values()),
        supports=Supports(len(layout.fields), [block.support for block in blocks.values()]),
    )
    for number in range(len(blocks)):
        state = with_block(state, number, InSegments(stored.segments[f"block-{number}"]))
    return state


def _of_shape(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape:
        raise ValueError(f"an array is of shape {array.shape}, not {shape}")
    return array
