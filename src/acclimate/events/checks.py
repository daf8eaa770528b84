"""What a column becomes when it is read, and what must not be in it, by the part it plays."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from acclimate.config import Feature, LabelKind, TimeColumn
from acclimate.errors import AcclimateError, ColumnError, ConfigError, RowError, SourceError
from acclimate.events.files import FILE, ROW, Database, Rows, literal, quoted, reason

UNITS = {
    "s": (1_000_000, 1, "seconds"),
    "ms": (1_000, 1, "milliseconds"),
    "us": (1, 1, "microseconds"),
    "ns": (1, 1_000, "nanoseconds"),
}
"""Microseconds are number · first // second."""

_DAY = 86_400_000_000
FIRST, LAST = 7_305 * _DAY, 47_847 * _DAY  # 1990-01-01 and 2101-01-01, microseconds UTC
ISO_8601 = (
    r"\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
    r"(Z| UTC|[+-](0\d|1[0-5])(:?[0-5]\d)?)?)?"
)
"""A date, or a date and a time, which may say its zone: what DuckDB would make of anything else is its guess."""
_WITH_ZONE = r":.*(Z|UTC|[+-]\d\d(:?\d\d)?)$"
# Of white space alone, as str.isspace has it, and characters of no width.
BLANK = r"[\s\x00-\x20\x{1c}-\x{1f}\x{85}\x{200b}-\x{200d}\x{2060}\x{feff}\pZ]*"
_SHOWN = 3
_OTHER_LABEL = "correct these rows or take them out; if they are numbers or counts, say so in label_kinds"


@dataclass(frozen=True)
class Check:
    """``bad`` is SQL that holds for a row that is not allowed; ``what`` completes "column 'x' ...".

    ``hint`` is given the first such value.
    """

    column: str
    bad: str
    what: str
    hint: Callable[[str], str] = lambda _: "correct these rows or take them out"


@dataclass(frozen=True)
class Column:
    """A column as it is handed out: SQL over the raw ones, and what is checked on the way."""

    sql: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Clock:
    """A column of times: ``micros`` is SQL for microseconds UTC, ``raw`` an instant in the column's own terms.

    The two may differ by up to ``slack`` microseconds; text has no ``raw``. ``form`` checks what is there,
    ``presence`` that every row has a time, of a likely year.
    """

    column: str
    micros: str
    presence: tuple[Check, ...]
    form: tuple[Check, ...] = ()
    raw: Callable[[int], str] | None = None
    slack: int = 0

    @property
    def required(self) -> Column:
        """The times as ``timestamp[us, UTC]``, none missing."""
        return Column(self.optional.sql, (*self.form, *self.presence))

    @property
    def optional(self) -> Column:
        """The times as ``timestamp[us, UTC]``; null where missing."""
        return Column(f"make_timestamptz({self.micros})", self.form)

    def within(self, start: int | None, end: int | None) -> str:
        """SQL of ``[start, end)``, microseconds UTC; on the raw column too, so that row groups are skipped."""
        terms = [f"{self.micros} >= {start}"] if start is not None else []
        terms += [f"{self.micros} < {end}"] if end is not None else []
        if self.raw:
            terms += [f"{self.column} >= {self.raw(start - self.slack)}"] if start is not None else []
            terms += [f"{self.column} < {self.raw(end + self.slack)}"] if end is not None else []
        return " AND ".join(terms) or "true"


@dataclass(frozen=True)
class Scan:
    """Rows that a query reads, and what it checks of them."""

    rows: Rows
    checks: tuple[Check, ...]
    within: str = "true"

    def where(self) -> str:
        """SQL of the rows wanted; stops the query at one that is not allowed."""
        bad = " OR ".join(f"({check.bad})" for check in self.checks) or "false"
        return f"{self.within} AND CASE WHEN {self.within} AND ({bad}) THEN error('not allowed') ELSE true END"

    def finding(self) -> AcclimateError | None:
        """What is wrong with these rows: their values, or else the files."""
        import duckdb

        try:
            return self._first_failure()
        except duckdb.Error:
            return self.rows.unreadable()

    def _first_failure(self) -> RowError | None:
        counts = ", ".join(f"count(*) FILTER ({check.bad})" for check in self.checks)
        files = self.rows.database.query(
            f"SELECT {FILE} AS file, count(*), {counts} FROM {self.rows.sql} "
            f"WHERE {self.within} GROUP BY file ORDER BY file"
        ).fetchall()
        for number, check in enumerate(self.checks, 2):
            if failed := [(file[0], file[1], file[number]) for file in files if file[number]]:
                return self._row_error(check, failed)
        return None

    def _row_error(self, check: Check, failed: list[tuple[int, int, int]]) -> RowError:
        file, rows, bad = failed[0]
        first = self.rows.database.query(
            f"SELECT {ROW} + 1 AS row, CAST({quoted(check.column)} AS VARCHAR) FROM {self.rows.sql} "
            f"WHERE {self.within} AND ({check.bad}) AND {FILE} = {file} ORDER BY row LIMIT {_SHOWN}"
        ).fetchall()
        values = ", ".join(
            f"{row} ({value[:40]})" if value and value.strip() else str(row) for row, value in first
        )
        where = f"first in rows {values}" if bad > 1 else f"row {values}"
        more = len(failed) - 1
        others = f", and in {more} more file{'s' if more > 1 else ''}" if more else ""
        return RowError(
            f"{self.rows.files[file]}: column '{check.column}' {check.what} "
            f"in {bad:,} of {rows:,} rows, {where}{others}",
            hint=check.hint(first[0][1] or ""),
        )


def explained(error: Exception, scans: Sequence[Scan]) -> AcclimateError:
    """What DuckDB stumbled over, in the words of the tree."""
    if excess := _excess(error, scans[0].rows.database):
        return excess
    findings = (scan.finding() for scan in scans)
    fallback = SourceError(f"{scans[0].rows.name}: cannot be read: {reason(error)}")
    return next((finding for finding in findings if finding), fallback)


@contextmanager
def bounded(database: Database) -> Generator[None]:
    """Says what would do where memory or disk do not suffice."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise _excess(error, database) or SourceError(f"the events cannot be read: {reason(error)}") from error


def _excess(error: Exception, database: Database) -> ConfigError | None:
    """What is too much for the memory or for the disk that it spills to."""
    import duckdb

    text = str(error)
    if "max_temp_directory_size" in text or "No space left" in text:
        return ConfigError(
            f"the events do not fit into a memory_limit of {database.memory_limit}, "
            "and the disk for what exceeds it is full",
            hint="make room there, name another by TMPDIR, or raise memory_limit",
        )
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in text:
        return ConfigError(
            f"the events do not fit into a memory_limit of {database.memory_limit}",
            hint="raise memory_limit, or read fewer columns or a shorter span at once",
        )
    return None


# --- columns by the part they play ---------------------------------------------------------------------------


def ids(rows: Rows, name: str, role: str) -> Column:
    """Ids as ``int64`` or ``string``; the first check is that none of them is empty.

    Whole numbers may come as floats: that is what many tools make of integers among which one is missing.
    """
    column, kind = quoted(name), rows.type_of(name, role)
    if is_text(kind):
        text = f"CAST({column} AS VARCHAR)"
        return Column(text, (_id_check(name, f"{column} IS NULL OR regexp_full_match({text}, {literal(BLANK)})"),))
    if pa.types.is_floating(kind):
        number = _known(_number(column, kind))
        broken = Check(name, f"{number} <> trunc({number}) OR abs({number}) > {2**53}", "is no whole number")
        return Column(f"CAST({number} AS BIGINT)", (_id_check(name, f"{number} IS NULL"), broken))
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise _wrong_type(rows, name, f"{role} must be a whole number or text")
    large = Check(name, f"{column} > {2**63 - 1}", "is beyond 2^63 - 1", lambda _: "keep such ids as text")
    empty = _id_check(name, f"{column} IS NULL")
    return Column(f"CAST({column} AS BIGINT)", (empty, large) if pa.types.is_uint64(kind) else (empty,))


def _id_check(name: str, empty: str) -> Check:
    return Check(name, empty, "is empty", lambda _: "drop these rows or give them an id")


def label(rows: Rows, name: str, kind: LabelKind) -> Column:
    """A label as ``int8``, a number as ``double``, a count as ``int64``; null, or NaN, where it is not known."""
    value = _known(_double(rows, name, f"label '{name}'"))
    if kind == "number":
        return Column(value, (Check(name, f"NOT isfinite({value})", "is not finite"),))
    if kind == "count":
        broken = f"{value} < 0 OR {value} <> trunc({value}) OR {value} > {2**53}"
        return Column(f"CAST({value} AS BIGINT)", (Check(name, broken, "is no count (0, 1, 2, ... to 2^53)"),))
    check = Check(name, f"{value} NOT IN (0, 1)", "is neither 0 nor 1", lambda _: _OTHER_LABEL)
    return Column(f"CAST({value} AS TINYINT)", (check,))


def weight(rows: Rows, name: str) -> Column:
    """A row's weight: finite, not negative, not missing."""
    value = _double(rows, name, "the weight")
    bad = f"NOT coalesce(isfinite({value}) AND {value} >= 0, false)"
    return Column(value, (Check(name, bad, "is negative, missing or not finite"),))


def offset(rows: Rows, name: str) -> Column:
    """A known part of the logit: finite, not missing."""
    value = _double(rows, name, "the offset")
    return Column(value, (Check(name, f"NOT coalesce(isfinite({value}), false)", "is missing or not finite"),))


def truth(rows: Rows, name: str, *, probability: bool) -> Column:
    """A true probability, or expected label; null where it is not known."""
    value = _double(rows, name, "the true probability")
    if not probability:
        return Column(value, (Check(name, f"isinf({value})", "is infinite"),))
    return Column(value, (Check(name, f"{value} NOT BETWEEN 0 AND 1", "is no probability"),))


def plain(rows: Rows, name: str) -> Column:
    """A feature in its own type, but decimals and small floats as ``float64`` and dictionaries as their values."""
    column, kind = quoted(name), rows.type_of(name, "a feature")
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Column(
            f"CAST({column} AS DOUBLE)", (Check(name, f"isinf({_number(column, kind)})", "is infinite"),)
        )
    if pa.types.is_dictionary(kind):
        return Column(f"CAST({column} AS VARCHAR)")
    if not _is_list(kind):
        return Column(column)
    if pa.types.is_dictionary(kind.value_type):
        return Column(f"CAST({column} AS VARCHAR[])")
    if not pa.types.is_floating(kind.value_type):
        return Column(column)
    element = "FLOAT" if pa.types.is_float32(kind.value_type) else "DOUBLE"
    infinite = (f"list_contains({column}, CAST('{sign}inf' AS {element}))" for sign in ("", "-"))
    return Column(column, (Check(name, " OR ".join(infinite), "holds an infinite number"),))


def feature(rows: Rows, name: str, declared: Feature, role: str, *, zone: str) -> Column:
    """A column that a feature is made of.

    Raises:
        ColumnError: the column is absent, or its type cannot be of that kind.
    """
    column_type: Any = rows.type_of(name, role)
    kind = declared.kind or ("numeric" if declared.transform else None)
    if kind in ("hour", "weekday"):
        return clock(rows, TimeColumn(name, zone=zone), role).optional
    if kind == "numeric" and not _counts(column_type):
        raise _wrong_type(rows, name, f"{role} must be a number")
    if kind == "embedding" and not (_is_list(column_type) and _is_number(column_type.value_type)):
        raise _wrong_type(rows, name, f"{role} must be a list of numbers")
    return plain(rows, name)


def clock(rows: Rows, time: TimeColumn, role: str) -> Clock:
    """The times of a column of numbers, timestamps, dates or ISO 8601 text, none of them empty.

    Raises:
        ColumnError: the column holds something else, or numbers of no known unit.
    """
    kind = rows.type_of(time.column, role)
    if _is_number(kind):
        return _number_clock(rows, time, kind)
    if pa.types.is_timestamp(kind) and kind.tz:
        return _zoned_clock(time)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _local_clock(time, f"TIMESTAMP_{kind.unit}" if pa.types.is_timestamp(kind) else "DATE")
    if is_text(kind):
        return _text_clock(time)
    what = "a number with a unit, a timestamp, a date or ISO 8601 text"
    raise _wrong_type(rows, time.column, f"{role} must be {what}")


def _zoned_clock(time: TimeColumn) -> Clock:
    column = quoted(time.column)
    micros = f"epoch_us(CAST({column} AS TIMESTAMPTZ))"
    # The cast rounds nanoseconds, hence the slack.
    return Clock(column, micros, _presence(time.column, micros), raw=lambda us: f"make_timestamptz({us})", slack=1)


def _local_clock(time: TimeColumn, kind: str) -> Clock:
    column = quoted(time.column)
    micros = _local_micros(f"CAST({column} AS TIMESTAMP)", time.zone)
    presence = _presence(time.column, micros)
    return Clock(column, micros, presence, raw=lambda us: f"CAST(make_timestamp({us}) AS {kind})", slack=2 * _DAY)


def _text_clock(time: TimeColumn) -> Clock:
    """Text that names a zone is read in it, other text in the schema's; what else is written makes it no time."""
    column = quoted(time.column)
    local = _local_micros(f"TRY_CAST({column} AS TIMESTAMP)", time.zone)
    zoned = f"epoch_us(TRY_CAST({column} AS TIMESTAMPTZ))"
    micros = f"CASE WHEN regexp_matches({column}, {literal(_WITH_ZONE)}) THEN {zoned} ELSE {local} END"
    unread = f"NOT regexp_full_match({column}, {literal(ISO_8601)}) OR ({column} IS NOT NULL AND {micros} IS NULL)"
    form = Check(time.column, unread, "is no time", lambda _: "write 2022-04-25T18:00:00+08:00")
    return Clock(column, micros, _presence(time.column, micros), (form,))


def _number_clock(rows: Rows, time: TimeColumn, kind: Any) -> Clock:
    column = quoted(time.column)
    if time.unit is None:
        highest = rows.database.query(f"SELECT CAST(max({column}) AS DOUBLE) FROM {rows.sql}").fetchall()[0][0]
        raise ColumnError(
            f"{rows.name}: column '{time.column}' holds numbers, and the schema names no unit",
            hint=f"say what unit they are in{_unit_hint(str(highest))}",
        )
    up, down, _ = UNITS[time.unit]

    def raw(us: int) -> str:
        return str(-(-us * down // up))

    # Years are checked on the numbers themselves: of the wrong unit, their conversion might overflow.
    if pa.types.is_integer(kind):
        presence = _presence(time.column, column, raw)
        return Clock(column, f"CAST({column} AS BIGINT) * {up} // {down}", presence, raw=raw)
    number = _known(_number(column, kind))
    micros = f"CAST(round({number} * {up} / {down}) AS BIGINT)"
    return Clock(column, micros, _presence(time.column, number, raw), raw=raw, slack=1_000_000)


def _local_micros(timestamp: str, zone: str) -> str:
    return f"epoch_us({timestamp if zone == 'UTC' else f'timezone({literal(zone)}, {timestamp})'})"


def _presence(name: str, value: str, raw: Callable[[int], str] = str) -> tuple[Check, ...]:
    return (
        Check(name, f"{value} IS NULL", "is empty", lambda _: "every event needs a time"),
        Check(
            name,
            f"{value} NOT BETWEEN {raw(FIRST)} AND {raw(LAST - 1)}",
            "is outside the years 1990 to 2100",
            lambda value: f"the unit looks wrong{_unit_hint(value)}",
        ),
    )


def _unit_hint(value: str) -> str:
    """``value`` is what a column of times holds, as text."""
    try:
        number = float(value)
    except ValueError:
        return ""
    likely = (u for u, (up, down, _) in UNITS.items() if FIRST <= number * up / down < LAST)
    return next((f": the values look like {UNITS[unit][2]}, unit: {unit}" for unit in likely), "")


def _double(rows: Rows, name: str, role: str) -> str:
    """SQL of a number. In a CSV file one stray word makes a column text: then the words are told.

    Raises:
        ColumnError: the column holds something else.
        RowError: some values of a CSV file are no numbers.
    """
    column, kind = quoted(name), rows.type_of(name, role)
    if _counts(kind):
        return _number(column, kind)
    if not (rows.is_csv and is_text(kind)):
        raise _wrong_type(rows, name, f"{role} must be a number")
    value = f"coalesce(TRY_CAST({column} AS DOUBLE), CAST(TRY_CAST({column} AS BOOLEAN) AS DOUBLE))"
    texts, numbers = rows.database.query(f"SELECT count({column}), count({value}) FROM {rows.sql}").fetchall()[0]
    if texts and not numbers:
        raise _wrong_type(rows, name, f"{role} must be a number")
    words = Scan(rows, (Check(name, f"{column} IS NOT NULL AND {value} IS NULL", "is no number"),))
    if texts > numbers and (finding := words.finding()):
        raise finding
    return value


def _number(column: str, kind: Any) -> str:
    """SQL of a double.

    DuckDB trusts a Parquet file's minimum and maximum, which leave NaN out, and would drop a check that these
    bounds answer (github.com/duckdb/duckdb/issues/25521). It does not look through ``TRY``.
    """
    return f"TRY(CAST({column} AS DOUBLE))" if pa.types.is_floating(kind) else f"CAST({column} AS DOUBLE)"


def _known(number: str) -> str:
    """SQL of a double, null where it is NaN."""
    return f"nullif({number}, CAST('NaN' AS DOUBLE))"


def _wrong_type(rows: Rows, name: str, wanted: str) -> ColumnError:
    kind = rows.columns.field(name).type
    holds = "text" if is_text(kind) else str(kind)
    return ColumnError(f"{rows.name}: column '{name}' is {holds}, but {wanted}", hint="convert the column")


def is_text(kind: Any) -> bool:
    """Whether DuckDB hands a column out as text."""
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _is_number(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _counts(kind: Any) -> bool:
    """Whether a cast to a number loses nothing."""
    return _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
