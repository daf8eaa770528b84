"""Event tables to what a network reads: numbers as they are, and names as rows of one table of embeddings.

Each feature of names (categorical, multi, hour, weekday, cross) is a field. Row ``f`` of the table stands for the
names of field ``f`` that it does not have; names get the rows behind these in the order in which they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.config import Schema
from acclimate.features.cells import Cells, columns_of_numbers
from acclimate.features.encode import encode, names_of
from acclimate.features.index import FeatureIndex, Settled

_NUMBERS = ("numeric", "embedding")
_TOLD = ("features", "numbers", "dense", "fields")


@dataclass(frozen=True)
class Layout:
    """How tables become :class:`FieldRows`; it grows with the names that come, and nothing is ever renumbered.

    ``dense`` are the names of the ``k`` columns of numbers, ``fields`` the ``F`` features of names, ``index`` the
    ``V`` rows of the table of embeddings, ``home`` ``(V,)`` the field of each.
    """

    features: tuple[str, ...]
    numbers: tuple[str, ...]
    dense: tuple[str, ...]
    fields: tuple[str, ...]
    index: FeatureIndex
    home: IntArray
    settled: Settled

    @staticmethod
    def first(features: Sequence[str], table: pa.Table, schema: Schema) -> "Layout":
        """The layout of these features, as the first rows show what they are."""
        encoded, settled = encode(features, table, schema, Settled())
        kinds = {name: schema.feature(name).kind or settled.kinds.get(name) for name in features}
        numbers = tuple(name for name in features if kinds[name] in _NUMBERS)
        names = tuple(name for name in features if name not in numbers)
        return Layout(
            tuple(features),
            numbers,
            tuple(name for number in numbers for name in encoded[number].names),
            names,
            FeatureIndex(tuple(f"{name} is unknown" for name in names)),
            np.arange(len(names)),
            settled,
        )

    def read(
        self, table: pa.Table, schema: Schema, *, grow: bool, dtype: type[np.floating[Any]] = np.float32
    ) -> "tuple[FieldRows, Layout]":
        """Some rows, and the layout with the names that they bring; without ``grow`` these are unknown.

        ``dtype`` is that of numbers, for who has to subtract something from large ones first.
        """
        encoded, settled = encode(self.features, table, schema, self.settled)
        layout = replace(self, settled=settled)
        parts = [encoded[name] for name in self.fields]
        if grow:
            layout = layout._grown(parts)
        dense = [_dense(encoded[name], table.num_rows, dtype) for name in self.numbers]
        rows = FieldRows(
            np.hstack([np.zeros((table.num_rows, 0), dtype), *dense]),
            *_bags([_numbered(part, layout.index, f) for f, part in enumerate(parts)], table.num_rows),
        )
        return rows, layout

    def places(self, features: Sequence[str]) -> tuple[IntArray, IntArray]:
        """Where some of the features are: which of the ``k`` columns of numbers, which of the ``F`` fields."""
        names = [name for name in features if name in self.numbers]
        columns = [column for name in names for column in columns_of_numbers(name, self.settled.sizes.get(name))]
        dense = [self.dense.index(column) for column in columns]
        fields = [self.fields.index(name) for name in features if name in self.fields]
        return np.array(dense, np.int64), np.array(fields, np.int64)

    def described(self) -> tuple[dict[str, Any], pa.Table]:
        """What JSON can hold of it, and its names as a table; :meth:`restored` takes them back."""
        told = {part: getattr(self, part) for part in _TOLD} | {"settled": asdict(self.settled)}
        return told, pa.table({"name": pa.array(self.index.names, pa.string()), "field": pa.array(self.home)})

    @staticmethod
    def restored(told: Mapping[str, Any], names: pa.Table) -> "Layout":
        """The layout of which :meth:`described` has told."""
        index = FeatureIndex(tuple(map(str, names["name"].to_pylist())))
        settled = Settled(*(told["settled"][part] for part in ("fill", "kinds", "sizes")))
        features, numbers, dense, fields = (tuple(told[part]) for part in _TOLD)
        return Layout(features, numbers, dense, fields, index, names["field"].to_numpy(), settled)

    def _grown(self, parts: Sequence[Cells]) -> "Layout":
        index, home = self.index, [self.home]
        for f, part in enumerate(parts):
            known = len(index)
            index = index.grown(names_of([part]))
            home.append(np.full(len(index) - known, f))
        return replace(self, index=index, home=np.concatenate(home))


@dataclass(frozen=True)
class FieldRows:
    """What a network reads of ``n`` rows.

    ``dense``: ``(n, k)``. The embedding of field ``f`` in row ``i`` is the sum over the cells of bag
    ``b = i F + f``, ``starts[b]:starts[b + 1]``, of ``value`` times the table's row ``cell``; both ``(cells,)``,
    ``starts`` of ``n F + 1``. The cells of a list share a weight of 1.
    """

    dense: FloatArray
    cell: NDArray[np.int32]
    value: NDArray[np.float32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dense)

    def at(self, rows: IntArray) -> "FieldRows":
        """Only these rows, in this order."""
        width = (len(self.starts) - 1) // max(len(self.dense), 1)
        bags = (rows[:, None] * width + np.arange(width)).ravel()
        sizes = self.starts[bags + 1] - self.starts[bags]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        cells = np.repeat(self.starts[bags] - starts[:-1], sizes) + np.arange(starts[-1])
        return FieldRows(self.dense[rows], self.cell[cells], self.value[cells], starts)


def _dense(cells: Cells, rows: int, dtype: type[np.floating[Any]]) -> FloatArray:
    """A feature of numbers, ``(rows, its columns)``."""
    dense = np.zeros((rows, len(cells.names)), dtype)
    with np.errstate(over="ignore"):  # infinite then, and named by who reads them
        dense[cells.row, cells.level] = cells.value
    return dense


def _numbered(cells: Cells, index: FeatureIndex, field: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, row of the table and weight of each cell of a field, by rows."""
    numbers = index.numbers(cells.names)[cells.level]
    share = 1.0 / np.maximum(np.bincount(cells.row, minlength=1), 1)
    order = np.argsort(cells.row, kind="stable")
    row = cells.row[order]
    return row, np.where(numbers < 0, field, numbers)[order], (cells.value * share[cells.row])[order]


def _bags(parts: Sequence[tuple[IntArray, IntArray, FloatArray]], rows: int) -> tuple[Any, Any, Any]:
    """The cells of all fields by row and field, and where each bag starts."""
    width = len(parts)
    bag = np.concatenate([np.zeros(0, np.int64), *(row * width + f for f, (row, _, _) in enumerate(parts))])
    order = np.argsort(bag, kind="stable")
    cell = np.concatenate([np.zeros(0, np.int64), *(numbers for _, numbers, _ in parts)])[order]
    value = np.concatenate([np.zeros(0), *(weights for _, _, weights in parts)])[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(bag, minlength=rows * width))])
    return cell.astype(np.int32), value.astype(np.float32), starts
