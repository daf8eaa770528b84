"""Event tables to design matrices: one encoding for learners, server and replay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from acclimate.artifacts import ArrowArray, FloatArray, IntArray
from acclimate.config import Schema
from acclimate.features.cells import encode_feature
from acclimate.features.index import INTERCEPT, FeatureIndex


def encode(
    features: Sequence[str], table: pa.Table, schema: Schema, index: FeatureIndex, *, grow: bool
) -> "tuple[sparse.csr_array[Any], FeatureIndex]":
    """The design matrix ``(n, len(index))`` of these features, an intercept in front.

    With ``grow`` names unseen before get new columns at the end; without, their cells are left out: they would
    meet coefficients at the prior mean, which is zero.

    Raises:
        ColumnError: a column's type does not go with the feature's kind, declared or settled.
    """
    rows = table.num_rows
    settled = index.settled.copied()
    parts = [encode_feature(name, table, schema, settled) for name in features]
    used = [[part.names[i] for i in np.unique(part.level)] for part in parts]
    if grow:
        index = index.grown([name for names in used for name in names], settled)
    row, column = [np.arange(rows)], [index.numbers([INTERCEPT]).repeat(rows)]
    value: list[FloatArray] = [np.ones(rows)]
    for part in parts:
        numbers = index.numbers(part.names)[part.level]
        known = numbers >= 0
        row.append(part.row[known])
        column.append(numbers[known])
        value.append(part.value[known])
    cells = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
    return sparse.csr_array(sparse.coo_array(cells, shape=(rows, len(index)))), index


def positions(ids: ArrowArray, known: ArrowArray) -> IntArray:
    """Where each id stands among the known ones, -1 for unknown."""
    found: Any = pc.index_in(ids, value_set=known)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
