"""Events as arrays: what a GLMix reads of a batch.

Encoded piece by piece, so that the raw rows never all stand in memory.
"""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from acclimate.arrays import ArrowArray, FloatArray, IdArray, IntArray
from acclimate.artifacts import Events
from acclimate.config import Schema
from acclimate.errors import ConfigError
from acclimate.features import (
    FeatureIndex,
    Settled,
    codes_of,
    design,
    encode,
    flat,
    id_type,
    ids_as,
    key_column,
    names_of,
)
from acclimate.learners.effects import FIXED, Effect, start_ridge
from acclimate.learners.gate import check_cells, check_size
from acclimate.models.hashing import hashed

_PIECE_ROWS = 1 << 16


@dataclass(frozen=True)
class Seen:
    """A batch as one effect sees it.

    ``effect``: as it is before the batch and, once it was begun or grown, with the batch's columns; ``index``: its
    columns with those that the batch brings. ``X``: the
    design ``(n, d)``; ``ids``: the distinct entities ``(t,)``, one of which may stand for rows that have none;
    ``codes``: which of these each row is of, ``(n,)``. ``ridge``: the prior precision of each standardised
    coefficient ``(d,)``, of the columns that the batch has; ``groups``: the columns of each feature whose ridge is
    learned.
    """

    effect: Effect
    index: FeatureIndex
    X: "sparse.csr_array[Any]"
    codes: IntArray
    ids: IdArray
    ridge: FloatArray
    groups: dict[str, IntArray]

    def at(self, rows: IntArray) -> "Seen":
        """Only these rows; entities stay."""
        return replace(self, X=self.X[rows], codes=self.codes[rows])


@dataclass(frozen=True)
class Batch:
    """Rows of one batch: as each effect sees them, and the columns that are all effects'; the latter ``(n,)``."""

    seen: list[Seen]
    settled: Settled
    label: FloatArray
    weight: FloatArray
    offset: FloatArray
    time: IntArray

    def __len__(self) -> int:
        return len(self.time)

    def at(self, rows: IntArray) -> "Batch":
        """Only these rows, in this order."""
        return Batch(
            [seen.at(rows) for seen in self.seen],
            self.settled,
            self.label[rows],
            self.weight[rows],
            self.offset[rows],
            self.time[rows],
        )


@dataclass(frozen=True)
class _Piece:
    """Some rows: one design and one column of ids per effect, and the columns that are all effects'."""

    designs: "list[sparse.csr_array[Any]]"
    ids: list[ArrowArray]
    columns: list[NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        designs = sum(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes for X in self.designs)
        return designs + sum(ids.nbytes for ids in self.ids) + sum(column.nbytes for column in self.columns)


def read_batch(
    events: Events,
    effects: Sequence[Effect],
    settled: Settled,
    *,
    label: str | None,
    locked: Collection[str] = (),
) -> Batch:
    """Read and encode events; with a ``label``, only the rows on which it is known.

    Names unseen before get new columns in every effect that is not ``locked``.

    Raises:
        ColumnError: a column's type does not go with a feature's kind.
        MismatchError: ids cannot be of the type of those learned before.
        RowError: a weight, an offset or a feature is beyond what can be computed with.
        ConfigError: the rows take more memory than the events are allowed.
    """
    schema, pieces, features = events.schema, list[_Piece](), dict[str, set[str]]()
    indexes = [effect.index for effect in effects]
    for table in read_tables(events, _columns(schema, effects, label), label):
        encoded, settled = encode(_features(effects), table, schema, settled)
        for name in {name for effect in effects for name in _features_told(effect)}:
            features.setdefault(name, set()).update(encoded[name].names)
        designs: list[sparse.csr_array[Any]] = []
        for number, effect in enumerate(effects):
            X, indexes[number] = design(
                effect.declared.features,
                encoded,
                table.num_rows,
                indexes[number],
                grow=effect.name not in locked,
            )
            designs.append(X)
        pieces.append(
            _Piece(designs, [_ids(table, effect) for effect in effects], columns_of(table, schema, label))
        )
        _check_memory(pieces, events, label)
    seen: list[Seen] = []  # the designs of pieces go as they are joined, so that rows are there once, not twice
    for number, (effect, index) in enumerate(zip(effects, indexes, strict=True)):
        stacked = _stacked([piece.designs.pop(0) for piece in pieces], len(index))
        ids = pa.chunked_array([piece.ids[number] for piece in pieces])
        groups = {name: index.numbers(sorted(features[name])) for name in _features_told(effect)}
        groups = {name: numbers[numbers >= 0] for name, numbers in groups.items()}
        seen.append(_seen(effect, index, stacked, ids, groups))
    pa.default_memory_pool().release_unused()  # what the raw rows took is a good part of what learning takes
    columns = [np.concatenate(parts) for parts in zip(*(piece.columns for piece in pieces), strict=True)]
    batch = Batch(seen, settled, *columns)
    check_size("weight", batch.weight, batch.time)
    check_size("offset", batch.offset, batch.time)
    for one in seen:
        check_cells(one.effect.name, one.index.names, one.X, batch.time)
    return batch


def _check_memory(pieces: Sequence[_Piece], events: Events, label: str | None) -> None:
    """Raises ConfigError where the rows take more than they may, or all would, going by the first two pieces."""
    limit, held = events.memory_limit, sum(piece.nbytes for piece in pieces)
    if limit is None or (held <= limit and len(pieces) != 2):
        return
    read = sum(len(piece) for piece in pieces)
    count = max(events.count(known=label), read)
    if (whole := held * count / read) > limit:
        raise ConfigError(
            f"the rows do not fit into a memory_limit of {_megabytes(limit)}: the first {read:,} of {count:,} "
            f"take {_megabytes(held)}, all of them about {_megabytes(whole)}",
            hint=f"raise it to {_megabytes(1.1 * whole)}, or learn from fewer rows",
        )


def _megabytes(size: float) -> str:
    return f"{np.ceil(size / 1e6):.0f}MB"


def count_columns(events: Events, effects: Sequence[Effect], settled: Settled, label: str) -> list[FeatureIndex]:
    """The columns that each effect has on these events; all of them are read and checked, none is kept."""
    indexes = [effect.index for effect in effects]
    for table in read_tables(events, _columns(events.schema, effects, label), label):
        encoded, settled = encode(_features(effects), table, events.schema, settled)
        for number, effect in enumerate(effects):
            names = names_of(encoded[name] for name in effect.declared.features)
            indexes[number] = indexes[number].grown(names)
    return indexes


def sampled(batch: Batch, entity: IntArray, most: int) -> FloatArray:
    """What each row counts ``(n,)`` where at most ``most`` of each entity count, and stand for all of its rows.

    ``entity`` is ``(n,)``, from 0. A row's lot is a hash of all that is in it, so the choice depends neither on
    the order of rows nor on a seed.
    """
    order = np.lexsort((_lots(batch), entity))
    sizes = np.bincount(entity)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.where(rank < most, np.maximum(sizes[entity] / most, 1.0), 0.0)


def _lots(batch: Batch) -> NDArray[np.uint64]:
    """A 64-bit hash of each row.

    Its cells are added up by name, in integers: neither their order nor the numbering of columns shows.
    """
    lots = np.zeros(len(batch), np.uint64)
    for column in (batch.time, batch.label, batch.weight, batch.offset):
        lots = hashed(lots ^ column.view(np.uint64))
    for seen in batch.seen:
        name_hash = np.array([zlib.crc32(name.encode()) for name in seen.index.names], np.uint64)
        cells = hashed(hashed(name_hash)[seen.X.indices] ^ seen.X.data.view(np.uint64))
        lots = hashed(lots ^ np.add.reduceat(cells, seen.X.indptr[:-1]))  # an intercept is in every row
    # Rows alike in all are interchangeable, but with one lot they would be drawn all together or not at all.
    return hashed(lots ^ hashed(_alike_before(lots)))


def _alike_before(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many equal ones come before each."""
    order = np.argsort(values, kind="stable")
    before = np.empty(len(values), np.uint64)
    before[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order])
    return before


def _features(effects: Sequence[Effect]) -> list[str]:
    """Each feature once."""
    return list(dict.fromkeys(name for effect in effects for name in effect.declared.features))


def _columns(schema: Schema, effects: Sequence[Effect], label: str | None) -> list[str]:
    named = [schema.time.column, label, schema.weight, schema.offset, *_id_columns(effects)]
    features = [column for name in _features(effects) for column in schema.feature_columns(name)]
    return list(dict.fromkeys(column for column in (*named, *features) if column is not None))


def _id_columns(effects: Sequence[Effect]) -> list[str]:
    return [column for effect in effects for column in effect.columns]


def read_tables(events: Events, columns: list[str], label: str | None) -> Iterator[pa.Table]:
    """Tables of about ``_PIECE_ROWS`` rows, at least one; with a label only rows on which it is known."""
    reader = events.reader(columns)
    held: list[pa.RecordBatch] = []
    for batch in reader:
        held.append(batch)
        if sum(b.num_rows for b in held) >= _PIECE_ROWS:
            yield _known(pa.Table.from_batches(held), label)
            held = []
    yield _known(pa.Table.from_batches(held, reader.schema), label)


def _known(table: pa.Table, label: str | None) -> pa.Table:
    return table if label is None else table.filter(pc.is_valid(table[label]))


def columns_of(table: pa.Table, schema: Schema, label: str | None) -> list[NDArray[Any]]:
    """Label, weight, offset and time of each row, ``(n,)``; without a label its place is taken by zeros."""
    time = table[schema.time.column].cast(pa.int64()).to_numpy()
    return [_floats(table, label), _floats(table, schema.weight, default=1.0), _floats(table, schema.offset), time]


def _floats(table: pa.Table, column: str | None, default: float = 0.0) -> FloatArray:
    if column is None:
        return np.full(table.num_rows, default)
    return table[column].cast(pa.float64()).to_numpy()


def _ids(table: pa.Table, effect: Effect) -> ArrowArray:
    return flat(key_column(table, effect.columns)) if effect.columns else pa.nulls(table.num_rows)


def _features_told(effect: Effect) -> Collection[str]:
    """The features whose columns have to be told apart: those of a ridge of their own."""
    declared = effect.declared
    return declared.features if declared.ridge == "learned" else declared.ridges


def _ridge(effect: Effect, index: FeatureIndex, groups: Mapping[str, IntArray]) -> FloatArray:
    """The ridge of each column; ``groups`` are those of features."""
    ridge = np.full(len(index), start_ridge(effect.declared))
    for feature, strength in effect.declared.ridges.items():
        ridge[groups[feature]] = strength
    return ridge


def _seen(
    effect: Effect,
    index: FeatureIndex,
    X: "sparse.csr_array[Any]",
    ids: ArrowArray,
    groups: dict[str, IntArray],
) -> Seen:
    """With the ids as numbers of distinct ones, in the type of those learned before."""
    ridge = _ridge(effect, index, groups)
    if not effect.columns:
        one = np.array([FIXED], np.dtypes.StringDType())
        return Seen(effect, index, X, np.zeros(X.shape[0], np.int64), one, ridge, groups)
    codes, distinct = codes_of(ids)
    kind = effect.ids or id_type(distinct.type)
    known = ids_as(distinct, kind, f"'{effect.name}'", missing=True)
    return Seen(replace(effect, ids=kind), index, X, codes, known, ridge, groups)


def _stacked(parts: "list[sparse.csr_array[Any]]", width: int) -> "sparse.csr_array[Any]":
    """The pieces on top of each other; earlier ones are widened to the columns that came later."""
    wide = [sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], width)) for X in parts]
    return wide[0] if len(wide) == 1 else sparse.csr_array(sparse.vstack(wide, format="csr"))
