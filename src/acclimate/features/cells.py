"""One feature of many rows as sparse cells: which row, which of the feature's columns, what value."""

import functools
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import ArrowArray, FloatArray, IntArray
from acclimate.config import Feature, Kind, Schema
from acclimate.errors import ColumnError
from acclimate.features.codes import codes_of, flat
from acclimate.features.index import Settled

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_UNKNOWN = {"numeric": pa.float64(), "embedding": pa.list_(pa.float64()), "multi": pa.list_(pa.string())}
"""What a column of nothing but nulls, which has no type of its own, is taken for."""

_HINTS = {
    "multi": "it takes lists, or text with a separator",
    "hour": "name the event's time column or a column of timestamps",
    "weekday": "name the event's time column or a column of timestamps",
}


@dataclass(frozen=True)
class Cells:
    """``row``, ``level`` and ``value`` are ``(cells,)``; ``names`` are those of the levels, each a column.

    ``is_column``: whether every row has one cell, in the order of rows, of the first level.
    """

    row: IntArray
    level: IntArray
    value: FloatArray
    names: list[str]
    is_column: bool = False

    @property
    def levels(self) -> IntArray:
        """Those that have a cell, in their order."""
        if self.is_column:
            return np.zeros(min(len(self.row), 1), np.int64)
        return np.flatnonzero(np.bincount(self.level))


def encode_feature(
    name: str, table: pa.Table, schema: Schema, settled: Settled, encoded: dict[str, Cells]
) -> Cells:
    """The cells of a feature, entered in ``encoded``, which is asked first.

    What is not yet ``settled`` about the feature is entered there once it has a known value.

    Raises:
        ColumnError: a column's type does not go with the feature's kind, declared or settled.
    """
    if name not in encoded:
        parts = [encode_feature(part, table, schema, settled, encoded) for part in schema.feature(name).of]
        encoded[name] = (
            functools.reduce(lambda left, right: _crossed(left, right, table.num_rows), parts)
            if parts
            else _encode_column(name, table, schema, settled)
        )
    return encoded[name]


def _encode_column(name: str, table: pa.Table, schema: Schema, settled: Settled) -> Cells:
    feature = schema.feature(name)
    column_name = schema.feature_columns(name)[0]
    kind, column = _typed(name, flat(table[column_name]), feature, settled)
    if not _suits(kind, column.type, feature):
        was = "was" if name in settled.kinds else "is"
        raise ColumnError(
            f"feature '{name}' {was} {kind}, but column '{column_name}' holds {column.type}",
            hint=_HINTS.get(kind, "declare another kind, or convert the column"),
        )
    if kind == "numeric":
        return _numeric(name, _floats(column), feature, settled.fill)
    if kind == "embedding":
        return _embedding(name, column, column_name, settled.sizes)
    if kind == "multi":
        return _multi(name, column, feature)
    if kind in ("hour", "weekday"):
        column = _clock(column, kind, schema.time.zone)
    return _categorical(name, column, feature)


def _typed(name: str, column: ArrowArray, feature: Feature, settled: Settled) -> tuple[Kind, ArrowArray]:
    """The kind of a feature, as declared, as settled or as its column suggests, and the column as that kind."""
    if (settled.kinds.get(name) or feature.kind) == "numeric" and pa.types.is_float64(column.type):
        return "numeric", column  # whether all are missing or not
    nothing = bool(pc.all(column.is_null(nan_is_null=True)).as_py())
    kind = settled.kinds.get(name)
    if kind is None:
        kind = _kind_of(feature, column.type)
        if not pa.types.is_null(column.type):
            # Frames turn what they cannot fill into floats: a column of no values does not say what it is.
            if not (feature.kind or nothing) and _suits(kind, column.type, feature):
                settled.kinds[name] = kind
            return kind, column
    if nothing:
        return kind, pa.nulls(len(column), _UNKNOWN.get(kind, pa.string()))
    if kind == "categorical" and not feature.buckets and _is_quantity(column.type):
        column = _whole(name, column)
    return kind, column


def _whole(name: str, column: ArrowArray) -> ArrowArray:
    """Categories that came as floats, as a frame with gaps turns integers, under the names that integers have."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ColumnError(
            f"feature '{name}' was categorical, but its column now holds {column.type} that are not whole numbers",
            hint="declare the feature's kind, or convert the column",
        ) from error


def _kind_of(feature: Feature, column_type: pa.DataType) -> Kind:
    """The kind as declared, or as the feature's other settings and then the column's type suggest."""
    if feature.kind:
        return feature.kind
    if feature.transform:
        return "numeric"
    if pa.types.is_fixed_size_list(column_type) and not feature.buckets:
        return "embedding"
    if feature.separator is not None or _is_list(column_type):
        return "multi"
    return "numeric" if _is_quantity(column_type) and not feature.buckets else "categorical"


def _suits(kind: Kind, column_type: Any, feature: Feature) -> bool:
    if kind == "numeric":
        return _is_number(column_type)
    if kind == "embedding":
        return _is_list(column_type) and _is_number(column_type.value_type)
    if kind in ("hour", "weekday"):
        return pa.types.is_timestamp(column_type)
    if kind == "multi" and _is_list(column_type):
        return not pa.types.is_nested(column_type.value_type)
    return not pa.types.is_nested(column_type) and (kind != "multi" or feature.separator is not None)


def _is_quantity(column_type: pa.DataType) -> bool:
    return pa.types.is_floating(column_type) or pa.types.is_decimal(column_type)


def _is_number(column_type: pa.DataType) -> bool:
    return _is_quantity(column_type) or pa.types.is_integer(column_type) or pa.types.is_boolean(column_type)


def _is_list(column_type: pa.DataType) -> bool:
    return (
        pa.types.is_list(column_type)
        or pa.types.is_large_list(column_type)
        or pa.types.is_fixed_size_list(column_type)
    )


def _floats(column: ArrowArray) -> FloatArray:
    """Values with NaN where missing; integers beyond 2^53 are rounded."""
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _numeric(name: str, values: FloatArray, feature: Feature, fill: dict[str, float]) -> Cells:
    if feature.transform == "log1p":
        if np.any(values <= -1.0):
            count = int(np.sum(values <= -1.0))
            raise ColumnError(
                f"feature '{name}' cannot take log1p of {count} values at or below -1, such as {np.nanmin(values)}"
            )
        values = np.log1p(values)
    missing = np.isnan(values)
    known = values[~missing]
    if name not in fill and len(known):
        # An exact sum: the order of rows must not show. A part of each, lest it overflow on the way.
        fill[name] = math.fsum(np.ldexp(known, -64)) / len(known) * 2.0**64
    gaps, rows = np.flatnonzero(missing), np.arange(len(values))
    if not len(gaps):
        return Cells(rows, np.zeros(len(values), np.int64), values, columns_of_numbers(name, None), is_column=True)
    return Cells(
        np.concatenate([rows, gaps]),
        np.concatenate([np.zeros(len(values), np.int64), np.ones(len(gaps), np.int64)]),
        np.concatenate([np.where(missing, fill.get(name, 0.0), values), np.ones(len(gaps))]),
        columns_of_numbers(name, None),
    )


def _embedding(name: str, column: ArrowArray, column_name: str, settled: dict[str, int]) -> Cells:
    """One column per position; a missing vector is zero, and says so."""
    sizes = np.unique(pc.list_value_length(column.drop_null()).to_numpy(zero_copy_only=False))
    if len(sizes) > 1:
        raise ColumnError(f"embedding '{column_name}' has vectors of {len(sizes)} lengths: {sizes[:5].tolist()}")
    size = int(sizes[0]) if len(sizes) else settled.get(name, 0)
    if len(sizes) and settled.setdefault(name, size) != size:
        raise ColumnError(
            f"embedding '{column_name}' had vectors of length {settled[name]}, and now has them of length {size}",
            hint="give the new vectors a feature of their own, or fit anew",
        )
    present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    gaps = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    values = _floats(column.drop_null().flatten())
    if np.isnan(values).any():
        raise ColumnError(
            f"embedding '{column_name}' has {int(np.isnan(values).sum())} missing values inside vectors"
        )
    return Cells(
        np.concatenate([np.repeat(present, size), gaps]),
        np.concatenate([np.tile(np.arange(size), len(present)), np.full(len(gaps), size)]),
        np.concatenate([values, np.ones(len(gaps))]),
        columns_of_numbers(name, size),
    )


def columns_of_numbers(name: str, size: int | None) -> list[str]:
    """What the columns of a numeric feature are called, or of an embedding of a size."""
    return [*([name] if size is None else columns_of_vector(name, size)), _missing(name)]


def columns_of_vector(name: str, size: int) -> list[str]:
    """What the columns of an embedding are called, by position."""
    return [f"{name}[{position}]" for position in range(size)]


def _categorical(name: str, column: ArrowArray, feature: Feature) -> Cells:
    codes, levels = _dictionary(column)
    names, level = _merged([_level(name, value, feature) for value in levels], codes)
    return Cells(np.arange(len(codes)), level, np.ones(len(codes)), names)


def _multi(name: str, column: ArrowArray, feature: Feature) -> Cells:
    """One column per distinct level of a row; none for an empty list."""
    if _is_list(column.type):
        lists = column.drop_null()  # what a missing list may hide has a parent, but is not flattened
        present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        gaps = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        codes, levels = _dictionary(lists.flatten())
        rows = np.concatenate([present[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)], gaps])
        codes = np.concatenate([codes, np.full(len(gaps), len(levels))])
        names, level = _merged([*(_level(name, v, feature) for v in levels), _missing(name)], codes)
    else:
        texts, values = _dictionary(column)
        rows, names, level = _split(name, texts, values, feature)
    pairs = np.unique(rows * max(len(names), 1) + level)
    return Cells(pairs // max(len(names), 1), pairs % max(len(names), 1), np.ones(len(pairs)), names)


def _split(
    name: str, texts: IntArray, values: list[Any], feature: Feature
) -> tuple[IntArray, list[str], IntArray]:
    """Rows and levels of delimited texts; each distinct text is cut once."""
    parts = [
        [_missing(name)]
        if text is None
        else [_level(name, part.strip(), feature) for part in str(text).split(feature.separator) if part.strip()]
        for text in values
    ]
    names = list(dict.fromkeys(part for levels in parts for part in levels))
    number = {part: i for i, part in enumerate(names)}
    flat = np.array([number[part] for levels in parts for part in levels], np.int64)
    sizes = np.array([len(levels) for levels in parts], np.int64)
    starts = np.cumsum(sizes) - sizes
    counts = sizes[texts]
    rows = np.repeat(np.arange(len(texts)), counts)
    return rows, names, flat[_ranges(starts[texts], counts)]


def _clock(column: ArrowArray, kind: str, zone: str) -> ArrowArray:
    """Hours 0 to 23, or weekday names, in the schema's zone."""
    local: ArrowArray = column.cast(pa.timestamp("us", zone) if column.type.tz else pa.timestamp("us"))
    if kind == "hour":
        return pc.hour(local)
    return pc.take(pa.array(_WEEKDAYS), pc.day_of_week(local))


def _crossed(left: Cells, right: Cells, rows: int) -> Cells:
    """All products of a row's cells of one feature with those of the other."""
    order_left, order_right = np.argsort(left.row, kind="stable"), np.argsort(right.row, kind="stable")
    sizes = np.bincount(right.row, minlength=rows)
    starts = np.cumsum(sizes) - sizes
    of_left = left.row[order_left]
    first = np.repeat(order_left, sizes[of_left])
    second = order_right[_ranges(starts[of_left], sizes[of_left])]
    pairs, level = np.unique(left.level[first] * len(right.names) + right.level[second], return_inverse=True)
    names = [f"{left.names[p // len(right.names)]} x {right.names[p % len(right.names)]}" for p in pairs]
    return Cells(left.row[first], level, left.value[first] * right.value[second], names)


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """``start, start + 1, ...`` for each pair, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def _dictionary(column: ArrowArray) -> tuple[IntArray, list[Any]]:
    """Codes ``(n,)`` into the distinct values; a missing value is one of them, ``None``."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    codes, values = codes_of(column)
    return codes, values.to_pylist()


def _merged(names: list[str], codes: IntArray) -> tuple[list[str], IntArray]:
    """Distinct names, and the codes into them (buckets, or 1 and 1.0, may share a name)."""
    distinct = list(dict.fromkeys(names))
    number = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([number[name] for name in names], np.int64)[codes]


def _level(name: str, value: Any, feature: Feature) -> str:
    if value is None:
        return _missing(name)
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    if feature.buckets:
        return f"{name}#{zlib.crc32(text.encode()) % feature.buckets}"
    return f"{name}={text}"


def _missing(name: str) -> str:
    return f"{name} is missing"
