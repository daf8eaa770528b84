"""Event tables to design matrices: one encoding for learners, server and replay."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from acclimate.arrays import FloatArray
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
    row, column = [np.arange(rows)], [index.numbers([INTERCEPT]).repeat(rows)]
    value: list[FloatArray] = [np.ones(rows)]
    for part in parts:
        numbers = index.numbers(part.names)[part.level]
        known = numbers >= 0
        row.append(part.row[known])
        column.append(numbers[known])
        value.append(part.value[known])
    places = (np.concatenate(parts).astype(np.int32) for parts in (row, column))  # half the memory of an int64
    cells = sparse.coo_array((np.concatenate(value), tuple(places)), shape=(rows, len(index)))
    return sparse.csr_array(cells), index


def names_of(parts: Iterable[Cells]) -> list[str]:
    """The names of the columns that have a cell."""
    return [part.names[level] for part in parts for level in np.unique(part.level)]
