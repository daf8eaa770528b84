"""Event tables to design matrices: one encoding for learners, server and replay."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from acclimate.arrays import FloatArray, IntArray
from acclimate.config import Schema
from acclimate.features.cells import Cells, encode_feature
from acclimate.features.index import INTERCEPT, FeatureIndex, Settled


def encode(
    features: Iterable[str], table: pa.Table, schema: Schema, settled: Settled
) -> tuple[dict[str, Cells], Settled]:
    """The cells of each feature, encoded once however many effects use it, and what is settled by now.

    Raises:
        ColumnError: a column's type does not go with the feature's kind, declared or settled.
    """
    settled, encoded = settled.copied(), dict[str, Cells]()
    for name in features:
        encode_feature(name, table, schema, settled, encoded)
    return encoded, settled


def design(
    features: Sequence[str], encoded: dict[str, Cells], rows: int, index: FeatureIndex, *, grow: bool
) -> "tuple[sparse.csr_array[Any], FeatureIndex]":
    """The design matrix ``(rows, len(index))`` of these features, an intercept in front.

    With ``grow`` names unseen before get new columns at the end; without, their cells are left out: they would
    meet coefficients at the prior mean, which is zero.
    """
    parts = [encoded[name] for name in features]
    if grow:
        index = index.grown(names_of(parts))
    numbered = [index.numbers(part.names) for part in parts]
    if (X := _one_cell_each(parts, numbered, rows, len(index))) is not None:
        return X, index
    row, column = [np.arange(rows)], [index.numbers([INTERCEPT]).repeat(rows)]
    value: list[FloatArray] = [np.ones(rows)]
    for part, numbers in zip(parts, numbered, strict=True):
        numbers = numbers[part.level]
        known = numbers >= 0
        row.append(part.row[known])
        column.append(numbers[known])
        value.append(part.value[known])
    places = (np.concatenate(parts).astype(np.int32) for parts in (row, column))  # half the memory of an int64
    cells = sparse.coo_array((np.concatenate(value), tuple(places)), shape=(rows, len(index)))
    return sparse.csr_array(cells), index


def _one_cell_each(
    parts: Sequence[Cells], numbered: Sequence[IntArray], rows: int, width: int
) -> "sparse.csr_array[Any] | None":
    """The same where each feature has one cell in every row, of a column of its own that lies behind the last.

    As numbers have that are all known, whose cells need not be sorted. ``None`` elsewhere.
    """
    last = 0
    for part, numbers in zip(parts, numbered, strict=True):
        if not part.is_column or numbers[0] <= last:
            return None
        last = int(numbers[0])
    value, size = np.ones((rows, len(parts) + 1)), len(parts) + 1
    for place, part in enumerate(parts, 1):
        value[:, place] = part.value
    columns = np.tile(np.array([0, *(numbers[0] for numbers in numbered)], np.int32), rows)
    X: Any = sparse.csr_array(
        (value.ravel(), columns, np.arange(0, rows * size + 1, size, dtype=np.int32)), (rows, width)
    )
    X.has_canonical_format = True
    return X


def names_of(parts: Iterable[Cells]) -> list[str]:
    """The names of the columns that have a cell."""
    return [part.names[level] for part in parts for level in part.levels]
