"""What the columns of records become, by the part that they play, and which values are not allowed.

The words are those of :mod:`acclimate.events.checks`, and so are the rules; here they are said of arrays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import BoolArray, FloatArray, IntArray
from acclimate.config import Feature, LabelKind, Schema, TimeColumn
from acclimate.errors import ColumnError
from acclimate.events import checks
from acclimate.events.database import Database
from acclimate.events.files import POSITION, open_rows
from acclimate.features.codes import flat

Role: TypeAlias = Literal["time", "id", "key", "label", "weight", "offset", "truth", "feature"]
_Faults: TypeAlias = list[tuple[BoolArray, str]]
"""Which rows are not allowed, and what completes "column 'x' ..." for them."""

_DAY = (
    r"(\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
    r"|((19|20)(0[48]|[2468][048]|[13579][26])|2000)-02-29)"
)
_CLOCK = r"[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?"
_ZONED = rf"^{_DAY}{_CLOCK}(Z|[+-](0\d|1[0-4]):[0-5]\d)$"
_LOCAL = rf"^{_DAY}{_CLOCK}$"
"""What Arrow and DuckDB read alike; other times are left to DuckDB."""
_FINER = r"(:\d\d\.\d{6})\d{1,3}(\D|$)"  # than microseconds: DuckDB leaves the rest off, Arrow refuses it


@dataclass(frozen=True)
class Part:
    """A column that is read, and the part it plays: an ``id`` is never missing, the ``key`` of a table may be."""

    column: str
    role: Role
    label_kind: LabelKind = "binary"
    feature: Feature = field(default_factory=Feature)

    @property
    def kind(self) -> str | None:
        """What feature it is made to, where that is said."""
        if self.role == "feature":
            return self.feature.kind or ("numeric" if self.feature.transform else None)
        return None

    @property
    def is_moment(self) -> bool:
        """Whether it is a time beside that of the event."""
        return self.kind in ("hour", "weekday")


def usual_type(part: Part, known: Any, unit: str | None) -> pa.DataType:
    """The type of a column that is known to have been of some type (or ``None``); null where it has to show.

    Raises:
        ColumnError: it was of times that became categories.
    """
    if part.role == "time":
        # Numbers of nanoseconds would lose some as doubles.
        return pa.string() if unit is None else pa.int64() if unit == "ns" else pa.float64()
    if part.role not in ("id", "key", "feature") or part.kind == "numeric":
        return pa.float64()
    if part.is_moment or part.feature.separator is not None:
        return pa.string()
    if part.role == "feature" and known is not None and _has_times(known):
        raise ColumnError(
            f"column '{part.column}' was of {known}, and records would name its categories otherwise",
            hint="declare it as hour or weekday, or make it text where it comes from",
        )
    known = None if known is None else _plain(known)
    if part.role != "feature":
        return known if known in (pa.int64(), pa.string()) else pa.null()
    if part.kind == "embedding":
        return known if known is not None and pa.types.is_fixed_size_list(known) else pa.null()
    return known or pa.null()


def first_type(part: Part, value: Any) -> pa.DataType:
    """The type of a column by its first value; null where it cannot be, or tells nothing."""
    if value != value:
        return pa.null()
    is_list = isinstance(value, list)
    kinds = {_KINDS.get(type(item)) for item in (value if is_list else [value]) if item is not None}
    kind = pa.float64() if kinds == {pa.int64(), pa.float64()} else kinds.pop() if len(kinds) == 1 else None
    is_number = kind in (pa.int64(), pa.float64())
    if part.role in ("id", "key"):
        kind = pa.int64() if is_number else kind
        return kind if kind in (pa.int64(), pa.string()) and not is_list else pa.null()
    if part.kind == "embedding":
        return pa.list_(pa.float64(), len(value)) if is_list and is_number else pa.null()
    if kind is None or (part.kind in ("categorical", "multi") and is_list != (part.kind == "multi")):
        return pa.null()
    return pa.list_(kind) if is_list else kind


_KINDS: dict[type, Any] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _has_times(kind: Any) -> bool:
    is_made_of_others = pa.types.is_dictionary(kind) or _is_list(kind)
    return _has_times(kind.value_type) if is_made_of_others else pa.types.is_temporal(kind)


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _plain(kind: Any) -> Any:
    """The type that stands for an Arrow type: of wide integers, doubles, text and lists of these."""
    if pa.types.is_fixed_size_list(kind):
        is_small = pa.types.is_float32(kind.value_type) or pa.types.is_float16(kind.value_type)
        return pa.list_(pa.float32() if is_small else pa.float64(), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    return kind if pa.types.is_boolean(kind) or pa.types.is_null(kind) else pa.string()


# --- columns as they are handed out --------------------------------------------------------------------------


def accepted(
    table: pa.Table, parts: list[Part], schema: Schema, types: Mapping[str, pa.DataType]
) -> tuple[pa.Table, BoolArray, list[tuple[int, str]]]:
    """The rows that are allowed, in their final types; which they are, ``(n,)``, and what is wrong with others."""
    arrays: dict[str, Any] = {}
    fault = np.full(table.num_rows, -1)
    reasons: list[str] = []
    for part in parts:
        arrays[part.column], faults = _converted(part, flat(table[part.column]), schema.time, types)
        for bad, what in faults:
            if bad.any():
                fault[(fault < 0) & bad] = len(reasons)
                reasons.append(f"column '{part.column}' {what}")
    good = fault < 0
    rows = pa.table(arrays)
    if not reasons:
        return rows, good, []
    return rows.filter(pa.array(good)), good, [(int(row), reasons[fault[row]]) for row in np.flatnonzero(~good)]


def _converted(part: Part, column: Any, time: TimeColumn, types: Mapping[str, pa.DataType]) -> tuple[Any, _Faults]:
    if part.role == "time":
        return _time(column, time)
    if part.is_moment:
        return _moment(column, TimeColumn(part.column, zone=time.zone))
    if part.role == "id":
        return column, [(_blank(column), "is empty")]
    if part.role == "feature" and pa.types.is_list(column.type):
        return _lists(column, types[part.column])
    if pa.types.is_floating(column.type):
        return _NUMBERS[part.role](part, column, column.to_numpy(zero_copy_only=False))
    return column, []


def _blank(ids: Any) -> BoolArray:
    if not pa.types.is_string(ids.type):
        return _mask(ids.is_null())
    return _mask(pc.match_substring_regex(ids, f"^{checks.BLANK}$").fill_null(True))


def _label(part: Part, _: Any, values: FloatArray) -> tuple[Any, _Faults]:
    unknown = np.isnan(values)
    if part.label_kind == "number":
        return pa.array(values, mask=unknown), [(np.isinf(values), "is not finite")]
    if part.label_kind == "count":
        bad = (values < 0) | (values > 2**53) | (~unknown & (values != np.trunc(values)))
        return _whole(values, unknown | bad, np.int64), [(bad, "is no count (0, 1, 2, ... to 2^53)")]
    bad = ~unknown & (values != 0) & (values != 1)
    return _whole(values, unknown | bad, np.int8), [(bad, "is neither 0 nor 1")]


def _whole(values: FloatArray, missing: BoolArray, dtype: Any) -> Any:
    return pa.array(np.where(missing, 0, values).astype(dtype), mask=missing if missing.any() else None)


def _weight(_: Part, column: Any, values: FloatArray) -> tuple[Any, _Faults]:
    return column, [(~(np.isfinite(values) & (values >= 0)), "is negative, missing or not finite")]


def _offset(_: Part, column: Any, values: FloatArray) -> tuple[Any, _Faults]:
    return column, [(~np.isfinite(values), "is missing or not finite")]


def _truth(part: Part, column: Any, values: FloatArray) -> tuple[Any, _Faults]:
    if part.label_kind != "binary":
        return column, [(np.isinf(values), "is infinite")]
    return column, [((values < 0) | (values > 1), "is no probability")]


def _number(part: Part, column: Any, values: FloatArray) -> tuple[Any, _Faults]:
    faults = [(np.isinf(values), "is infinite")]
    if part.feature.transform == "log1p":
        faults.append((values <= -1, "is -1 or less, which has no log1p"))
    return column, faults


_NUMBERS: dict[str, Callable[[Part, Any, FloatArray], tuple[Any, _Faults]]] = {
    "label": _label,
    "weight": _weight,
    "offset": _offset,
    "truth": _truth,
    "feature": _number,
}


def _lists(column: Any, kind: Any) -> tuple[Any, _Faults]:
    faults: _Faults = []
    if pa.types.is_floating(column.type.value_type):
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        numbers = column.flatten().to_numpy(zero_copy_only=False)
        faults.append((_any_of(parents, np.isinf(numbers), len(column)), "holds an infinite number"))
        if pa.types.is_fixed_size_list(kind):
            faults.append((_any_of(parents, np.isnan(numbers), len(column)), "lacks a number inside its vector"))
            return _vectors(column, kind, faults)
    return column, faults


def _vectors(column: Any, kind: Any, faults: _Faults) -> tuple[Any, _Faults]:
    """Lists as vectors of one length."""
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    size = kind.list_size
    fits = lengths == size
    rows = column.filter(pa.array(fits))
    numbers = rows.flatten().to_numpy(zero_copy_only=False)
    vectors = np.zeros((len(column), size))
    vectors[fits] = numbers.reshape(-1, size)
    values = pa.array(vectors.ravel()).cast(kind.value_type)
    missing = pa.array(~fits) if not fits.all() else None
    faults.append(((lengths >= 0) & ~fits, f"is no vector of {size} numbers, as others are"))
    return pa.FixedSizeListArray.from_arrays(values, size, mask=missing), faults


def _any_of(parents: IntArray, bad: BoolArray, rows: int) -> BoolArray:
    return np.bincount(parents[bad], minlength=rows).astype(bool) if bad.any() else np.zeros(rows, bool)


# --- times ---------------------------------------------------------------------------------------------------


def _time(column: Any, time: TimeColumn) -> tuple[Any, _Faults]:
    if pa.types.is_string(column.type):
        micros, unread = _read_text(column, time)
    else:
        micros, unread = _read_numbers(column, time), np.zeros(len(column), bool)
    empty = np.isnan(micros) if micros.dtype.kind == "f" else np.zeros(len(column), bool)
    outside = ~empty & ((micros < checks.FIRST) | (micros > checks.LAST - 1))
    times = np.where(empty | outside, checks.FIRST, micros).astype(np.int64)
    missing = _mask(column.is_null()) | (empty & ~unread)
    faults = [(unread, "is no time"), (missing, "is empty")]
    return _stamps(times), [*faults, (outside, "is outside the years 1990 to 2100")]


def _moment(column: Any, time: TimeColumn) -> tuple[Any, _Faults]:
    """A time that may be missing."""
    micros, unread = _read_text(column, time)
    missing = _mask(column.is_null()) | unread
    return _stamps(micros, missing if missing.any() else None), [(unread, "is no time")]


def _stamps(micros: IntArray, missing: BoolArray | None = None) -> Any:
    return pa.array(micros, mask=missing).cast(pa.timestamp("us", "UTC"))


def _read_numbers(column: Any, time: TimeColumn) -> Any:
    """Microseconds; NaN where there are none, far off where the year is."""
    up, down, _ = checks.UNITS[time.unit or "us"]
    if pa.types.is_integer(column.type):
        return column.fill_null(0).to_numpy(zero_copy_only=False) * up // down
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) * up / down
    return np.trunc(values + np.copysign(0.5, values))


def _read_text(column: Any, time: TimeColumn) -> tuple[IntArray, BoolArray]:
    """Microseconds, and which texts are no time; both 0 where there is no text."""
    micros, unread = np.zeros(len(column), np.int64), np.zeros(len(column), bool)
    if _matches(column, _FINER).any():
        column = pc.replace_substring_regex(column, _FINER, r"\1\2")
    zoned, local = _matches(column, _ZONED), _matches(column, _LOCAL)
    micros[zoned] = _micros(column.filter(pa.array(zoned)).cast(pa.timestamp("us", "UTC")))
    if local.any():
        times = column.filter(pa.array(local)).cast(pa.timestamp("us"))
        one, other = (
            _micros(pc.assume_timezone(times, time.zone, ambiguous=which, nonexistent=which))
            for which in ("earliest", "latest")
        )
        micros[local] = one
        local[local] = one == other  # hours that clocks leave out, or have twice, are DuckDB's
    rest = _mask(column.is_valid()) & ~zoned & ~local
    likely = rest & _matches(column, rf"^({checks.ISO_8601})$") if rest.any() else rest
    unread |= rest & ~likely
    if likely.any():
        micros[likely], unread[likely] = _read_by_database(column.filter(pa.array(likely)), time)
    return micros, unread


def _matches(texts: Any, pattern: str) -> BoolArray:
    return _mask(pc.match_substring_regex(texts, pattern).fill_null(False))


def _micros(times: Any) -> IntArray:
    return times.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _read_by_database(column: Any, time: TimeColumn) -> tuple[IntArray, BoolArray]:
    database = Database("1GB")
    rows = open_rows(database, pa.table({time.column: column}), "records")
    clock = checks.clock(rows, time, "the time")
    sql = f"SELECT coalesce({clock.form[0].bad}, false) AS bad, {clock.micros} AS micros FROM {rows.sql}"
    read = database.query(f"{sql} ORDER BY {POSITION}").to_arrow_table()
    unread = _mask(flat(read["bad"]))
    return np.where(unread, 0, flat(read["micros"]).fill_null(0).to_numpy(zero_copy_only=False)), unread


def _mask(column: Any) -> BoolArray:
    return column.to_numpy(zero_copy_only=False).astype(bool)
