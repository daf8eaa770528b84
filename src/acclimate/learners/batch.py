"""Events as arrays: what a GLMix reads of a batch.

Encoded piece by piece, so that the raw rows never all stand in memory.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from acclimate.artifacts import ArrowArray, Events, FloatArray, IntArray
from acclimate.config import Schema
from acclimate.features import FeatureIndex, encode
from acclimate.learners.draws import hashed

FIXED = "fixed"
"""Name of the fixed effect, and id of its one entity."""

_PIECE_ROWS = 1 << 18


@dataclass(frozen=True)
class Layout:
    """What one effect reads: the column of its entity (``None``: all rows are one entity's) and its features."""

    entity: str | None
    features: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Rows of one batch: per effect the design ``(n, d)`` and the entity ids ``(n,)``; the rest ``(n,)``."""

    designs: "list[sparse.csr_array[Any]]"
    ids: list[ArrowArray]
    label: FloatArray
    weight: FloatArray
    offset: FloatArray
    time: IntArray

    def __len__(self) -> int:
        return len(self.time)

    def taken(self, rows: IntArray, weight: FloatArray) -> "Batch":
        """Only these rows, with new weights ``(len(rows),)``."""
        return Batch(
            [X[rows] for X in self.designs],
            [ids.take(pa.array(rows)) for ids in self.ids],
            self.label[rows],
            weight,
            self.offset[rows],
            self.time[rows],
        )


def read_batch(
    events: Events,
    layouts: Sequence[Layout],
    indexes: Sequence[FeatureIndex],
    *,
    label: str | None,
    grow: Sequence[bool],
) -> tuple[Batch, list[FeatureIndex]]:
    """Read and encode events; with a ``label``, only the rows on which it is known.

    ``grow`` says per effect whether names unseen before get new columns. Returns the indexes as they are then.
    """
    schema = events.schema
    indexes = list(indexes)
    pieces: list[Batch] = []
    for table in _pieces(events, _columns(schema, layouts, label)):
        if label is not None:
            table = table.filter(pc.is_valid(table[label]))
        designs: list[Any] = []
        for i, layout in enumerate(layouts):
            X, indexes[i] = encode(layout.features, table, schema, indexes[i], grow=grow[i])
            designs.append(X)
        pieces.append(
            Batch(
                designs,
                [_ids(table, layout) for layout in layouts],
                _floats(table, label),
                _floats(table, schema.weight, default=1.0),
                _floats(table, schema.offset),
                table[schema.time.column].cast(pa.int64()).to_numpy(),
            )
        )
    return _joined(pieces, [len(index) for index in indexes]), indexes


def sample_rows(
    batch: Batch, names: Sequence[Sequence[str]], entity: IntArray, most: int
) -> tuple[IntArray, FloatArray]:
    """At most ``most`` rows of each entity, re-weighted to stand for all of its rows: which, and their weights.

    ``names`` are those of each design's columns; ``entity`` is ``(n,)``, and rows of -1 are all kept. A row's lot
    is a hash of all that is in it, so the choice depends neither on the order of rows nor on a seed.
    """
    order = np.lexsort((_lots(batch, names), entity))
    sizes = np.bincount(entity + 1)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.sort(order[(rank < most) | (entity[order] < 0)])
    factor = np.where(entity[kept] < 0, 1.0, np.maximum(sizes[entity[kept] + 1] / most, 1.0))
    return kept, batch.weight[kept] * factor


def _lots(batch: Batch, names: Sequence[Sequence[str]]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row.

    Its cells are added up by name, in integers: neither their order nor the numbering of columns shows.
    """
    lots = np.zeros(len(batch), np.uint64)
    for column in (batch.time, batch.label, batch.weight, batch.offset):
        lots = hashed(lots ^ column.view(np.uint64))
    for X, columns in zip(batch.designs, names, strict=True):
        of_name = np.array([zlib.crc32(name.encode()) for name in columns], np.uint64)
        cells = hashed(hashed(of_name)[X.indices] ^ X.data.view(np.uint64))
        lots = hashed(lots ^ np.add.reduceat(cells, X.indptr[:-1]))  # an intercept is in every row
    # Rows alike in all are interchangeable, but with one lot they would be drawn all together or not at all.
    return hashed(lots ^ hashed(_alike_before(lots)))


def _alike_before(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many equal ones come before each."""
    order = np.argsort(values, kind="stable")
    before = np.empty(len(values), np.uint64)
    before[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order])
    return before


def _columns(schema: Schema, layouts: Sequence[Layout], label: str | None) -> list[str]:
    named = [schema.time.column, label, schema.weight, schema.offset, *(layout.entity for layout in layouts)]
    features = [
        column for layout in layouts for name in layout.features for column in schema.feature_columns(name)
    ]
    return list(dict.fromkeys(c for c in (*named, *features) if c is not None))


def _pieces(events: Events, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of about ``_PIECE_ROWS`` rows, at least one."""
    reader = events.reader(columns)
    held: list[pa.RecordBatch] = []
    for batch in reader:
        held.append(batch)
        if sum(b.num_rows for b in held) >= _PIECE_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    yield pa.Table.from_batches(held, reader.schema)


def _joined(pieces: list[Batch], widths: list[int]) -> Batch:
    """The pieces on top of each other; earlier designs are widened to the columns that came later."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    return Batch(
        [_stacked([piece.designs[i] for piece in pieces], width) for i, width in enumerate(widths)],
        [pa.concat_arrays([piece.ids[i] for piece in pieces]) for i in range(len(widths))],
        *(np.concatenate([getattr(p, name) for p in pieces]) for name in ("label", "weight", "offset", "time")),
    )


def _stacked(parts: "list[sparse.csr_array[Any]]", width: int) -> "sparse.csr_array[Any]":
    wide = [sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], width)) for X in parts]
    return sparse.csr_array(sparse.vstack(wide, format="csr"))


def _ids(table: pa.Table, layout: Layout) -> Any:
    if layout.entity is None:
        return pa.repeat(FIXED, table.num_rows)
    column: Any = table[layout.entity].combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _floats(table: pa.Table, column: str | None, default: float = 0.0) -> FloatArray:
    if column is None:
        return np.full(table.num_rows, default)
    return table[column].cast(pa.float64()).to_numpy()
