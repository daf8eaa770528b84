"""Events as arrays: what a GLMix reads of a batch.

Encoded piece by piece, so that the raw rows never all stand in memory.
"""

import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    has_id,
    id_type,
    ids_as,
    key_column,
    names_of,
)
from acclimate.learners.effects import FIXED, Effect, start_ridge
from acclimate.learners.gate import check_cells, check_size
from acclimate.learners.scratch import scattered
from acclimate.models.hashing import hashed

_PIECE_ROWS = 1 << 16

_FILLED = 0.8
"""How full of rows the memory is to be on average where they come in pieces: entities differ in their rows."""


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
    """Rows of one batch: as each effect sees them, and the columns that are all effects'; the latter ``(n,)``.

    ``partial``: whether it is one of several, since all rows do not fit into the memory.
    """

    seen: list[Seen]
    settled: Settled
    label: FloatArray
    weight: FloatArray
    offset: FloatArray
    time: IntArray
    partial: bool = False

    def __len__(self) -> int:
        return len(self.time)

    def at(self, rows: IntArray) -> "Batch":
        """Only these rows, in this order; this batch is used up effect by effect, lest it is there twice."""
        return Batch(
            [self.seen.pop(0).at(rows) for _ in range(len(self.seen))],
            self.settled,
            self.label[rows],
            self.weight[rows],
            self.offset[rows],
            self.time[rows],
            self.partial,
        )


@dataclass(frozen=True)
class _Piece:
    """Some rows: one design and one column of ids per effect, and the columns that are all effects'.

    ``names``: of each feature whose columns have to be told apart those that are there. ``indexes`` and
    ``settled``: the columns of each effect, and what is settled of features, up to these rows.
    """

    designs: "list[sparse.csr_array[Any]]"
    ids: list[ArrowArray]
    columns: list[NDArray[Any]]
    names: Mapping[str, Sequence[str]]
    indexes: list[FeatureIndex]
    settled: Settled

    def __len__(self) -> int:
        return len(self.columns[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        designs = sum(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes for X in self.designs)
        return designs + sum(ids.nbytes for ids in self.ids) + sum(column.nbytes for column in self.columns)


class _Encoder:
    """Encodes tables one after another: columns and what is settled go on from each to the next.

    Names unseen before get new columns in every effect that is not ``locked``.
    """

    def __init__(
        self,
        events: Events,
        effects: Sequence[Effect],
        settled: Settled,
        label: str | None,
        locked: Collection[str],
    ) -> None:
        self.schema, self.effects, self.settled, self.label = events.schema, list(effects), settled, label
        self.indexes, self.locked = [effect.index for effect in effects], locked

    def piece(self, table: pa.Table) -> _Piece:
        encoded, self.settled = encode(_features(self.effects), table, self.schema, self.settled)
        designs: list[sparse.csr_array[Any]] = []
        for number, effect in enumerate(self.effects):
            X, self.indexes[number] = design(
                effect.declared.features,
                encoded,
                table.num_rows,
                self.indexes[number],
                grow=effect.name not in self.locked,
            )
            designs.append(X)
        told = {name: encoded[name].names for effect in self.effects for name in _features_told(effect)}
        ids, columns = [_ids(table, effect) for effect in self.effects], columns_of(table, self.schema, self.label)
        return _Piece(designs, ids, columns, told, self.indexes.copy(), self.settled)

    def batch(self, pieces: list[_Piece], *, partial: bool = False) -> Batch:
        """All of these rows; they go as they are joined, so that they are there once, not twice."""
        last, seen, effects = pieces[-1], list[Seen](), self.effects
        for number, (effect, index) in enumerate(zip(effects, last.indexes, strict=True)):
            stacked = _stacked([piece.designs.pop(0) for piece in pieces], len(index))
            ids = pa.chunked_array([piece.ids[number] for piece in pieces])
            names = {
                name: {one for piece in pieces for one in piece.names[name]} for name in _features_told(effect)
            }
            groups = {name: index.numbers(sorted(there)) for name, there in names.items()}
            groups = {name: numbers[numbers >= 0] for name, numbers in groups.items()}
            seen.append(_seen(effect, index, stacked, ids, groups))
        self.effects = [replace(effect, ids=one.effect.ids) for effect, one in zip(effects, seen, strict=True)]
        columns = [np.concatenate(parts) for parts in zip(*(piece.columns for piece in pieces), strict=True)]
        pieces.clear()
        pa.default_memory_pool().release_unused()  # what the raw rows took is a good part of what learning takes
        batch = Batch(seen, last.settled, *columns, partial=partial)
        check_size("weight", batch.weight, batch.time)
        check_size("offset", batch.offset, batch.time)
        for one in seen:
            check_cells(one.effect.name, one.index.names, one.X, batch.time)
        return batch

    def batches(self, tables: Iterable[pa.Table], limit: int | None) -> Iterator[Batch]:
        """As many rows at a time as fit into the limit, in bytes; at least one batch.

        Raises:
            ConfigError: not even the rows that are encoded at once do.
        """
        pieces, held, some = list[_Piece](), 0, False
        for table in tables:
            piece = self.piece(table)
            if limit is not None and piece.nbytes > limit:
                raise ConfigError(
                    f"not even {len(piece):,} rows, which take {_megabytes(piece.nbytes)}, fit into a "
                    f"memory_limit of {_megabytes(limit)}",
                    hint=f"raise it to {_megabytes(10 * piece.nbytes)}, or learn from fewer features",
                )
            if limit is not None and held + piece.nbytes > limit:
                yield self.batch(pieces, partial=True)
                held, some = 0, True
            if len(piece) or not (pieces or some):
                pieces.append(piece)
                held += piece.nbytes
        if pieces:
            yield self.batch(pieces, partial=True)


def read_batches(
    events: Events,
    effects: Sequence[Effect],
    settled: Settled,
    *,
    label: str | None,
    locked: Collection[str] = (),
) -> Iterator[Batch]:
    """Read and encode events, those whose ``label`` is known, in one batch where they fit into the memory.

    Others come in several batches of rows that do, all rows of an entity in the same one (:mod:`.scratch`), in the
    order of time within each. There is one at least, and but for a lone one none is empty. ``effects`` are those
    before the first batch; the later ones go on with its columns.

    Raises:
        ColumnError: a column's type does not go with a feature's kind.
        MismatchError: ids cannot be of the type of those learned before.
        RowError: a weight, an offset or a feature is beyond what can be computed with.
        ConfigError: hardly any rows fit into the memory that the events are allowed, or the disk for the others is
            full.
    """
    columns, limit = _columns(events.schema, effects, label), events.memory_limit
    encoder, pieces = _Encoder(events, effects, settled, label, locked), list[_Piece]()
    whole = 0.0
    for table in read_tables(events, columns, label):
        pieces.append(encoder.piece(table))
        if limit is not None and (whole := _whole(pieces, events, label)) > limit:
            break
    if limit is None or whole <= limit:
        yield encoder.batch(pieces)
        return
    del pieces
    encoder = _Encoder(events, effects, settled, label, locked)
    together = _together(effects, events)
    tables = read_tables(events, list(dict.fromkeys([*columns, together])), label)
    with scattered(tables, together, math.ceil(whole / (_FILLED * limit))) as groups:
        for group in groups:
            yield from encoder.batches(_tables(group, group.schema), limit)


def read_in_order(events: Events, effects: Sequence[Effect], settled: Settled) -> Iterator[Batch]:
    """Read and encode events in the order of time, as many at a time as fit into the memory; labels are unread.

    Names unseen before have no columns. Raises as :func:`read_batches`.
    """
    encoder = _Encoder(events, effects, settled, None, {effect.name for effect in effects})
    tables = read_tables(events, _columns(events.schema, effects, None), None)
    yield from encoder.batches(tables, events.memory_limit)


def _whole(pieces: Sequence[_Piece], events: Events, label: str | None) -> float:
    """The bytes that all rows would take, going by the first two pieces, or by those that take more than allowed.

    Between them it is what there is so far.
    """
    held = sum(piece.nbytes for piece in pieces)
    if held <= (events.memory_limit or 0) and len(pieces) != 2:
        return float(held)
    read = sum(len(piece) for piece in pieces)
    return held * max(events.count(known=label), read) / max(read, 1)


def _together(effects: Sequence[Effect], events: Events) -> str:
    """The column whose entities are kept together: of those that have effects the one with the most entities."""
    known = events.describe().entities
    columns = [name for effect in effects for name in effect.columns]
    candidates = [name for name in columns if name in known] or columns or list(known)
    return max(candidates, key=lambda name: known.get(name, 0))


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
    """Tables of ``_PIECE_ROWS`` rows, at least one, the last of fewer; with a label only rows that have it.

    Where a table ends does not depend on the batches in which a source hands its rows out.
    """
    reader = events.reader(columns)
    for table in _tables(reader, reader.schema):
        yield _known(table, label)


def _tables(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held, room = list[pa.RecordBatch](), _PIECE_ROWS
    for batch in batches:
        rest = batch
        while rest.num_rows >= room:
            yield pa.Table.from_batches([*held, rest.slice(0, room)], schema)
            rest, held, room = rest.slice(room), [], _PIECE_ROWS
        if rest.num_rows:
            held.append(rest)
            room -= rest.num_rows
    yield pa.Table.from_batches(held, schema)


def _known(table: pa.Table, label: str | None) -> pa.Table:
    return table if label is None else table.filter(pc.is_valid(table[label]))


def ids_in(events: Events, columns: Sequence[str], kind: str | None, of: str) -> IdArray:
    """The distinct ids ``(t,)`` of an entity, or of a combination of them, in events; missing ones are left out.

    Raises:
        MismatchError: they cannot be of the type that they are kept as.
    """
    found, dtype = dict[Any, None](), None
    for table in read_tables(events, list(dict.fromkeys(columns)), None):
        _, distinct = codes_of(key_column(table, columns))
        ids = ids_as(distinct, kind or id_type(distinct.type), of, missing=True)
        found |= dict.fromkeys(ids[has_id(ids)].tolist())
        dtype = ids.dtype
    return np.array(list(found), dtype)


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
