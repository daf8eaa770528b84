"""Events from files and frames, read anew by DuckDB whenever they are asked for."""

import datetime as dt
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import pyarrow as pa

from acclimate.artifacts import Events, Summary
from acclimate.config import Schema, TimeColumn
from acclimate.errors import ColumnError, ConfigError, RowError, nearest
from acclimate.events import checks
from acclimate.events.checks import Check, Column, Scan, explained
from acclimate.events.files import POSITION, Database, Rows, open_rows, quoted

_BATCH = 122_880  # rows, as in a row group of DuckDB
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_events(source: Any, schema: Schema, *, memory_limit: str = "1GB") -> Events:
    """Events from Parquet and CSV files, or from any frame that speaks Arrow.

    Files are read when rows are asked for, and of them only the columns and the time range wanted. Whatever their
    order in the files, rows come by time, then entities, then place in the source.

    Args:
        source: a path, a folder (with its subfolders), a glob, a pandas, polars, pyarrow or DuckDB frame, or a
            list of these. Columns are matched by name; one that a file lacks is null there.
        schema: what the columns mean.
        memory_limit: of sorting and joining; what exceeds it goes to disk.

    Raises:
        SourceError: a file is absent, empty or damaged.
        ColumnError: a column that the schema names is absent or of the wrong type.
        RowError: a time is missing or far off, or a table has several rows for one key. Other values are checked
            when they are read.
        ConfigError: ``source``, ``memory_limit`` or a time zone is not understood.
    """
    for time in (schema.time, *(table.time for table in schema.tables.values() if table.time)):
        _check_zone(time)
    database = Database(memory_limit)
    log = open_rows(database, source, "frame")
    tables = {name: _open_table(log, schema, name) for name in schema.tables}
    return Events(schema, _LogSource(schema, log, tables))


def _check_zone(time: TimeColumn) -> None:
    try:
        ZoneInfo(time.zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"no time zone '{time.zone}'", hint=nearest(time.zone, available_timezones())) from error


@dataclass(frozen=True)
class _Table:
    """An entity table: its rows, their key and that of the events, and since when each row is in force."""

    rows: Rows
    key: Column
    event_key: Column
    since: Column | None

    def join(self, name: str, columns: dict[str, Column], time: str) -> tuple[str, Scan]:
        """SQL that joins these columns to ``log``, and what it reads."""
        parts = {_KEY: self.key, **columns} | ({_SINCE: self.since} if self.since else {})
        scan = Scan(self.rows, _checks(parts))
        table = quoted(name)
        rows = f"(SELECT {_listed(parts)} FROM {self.rows.sql} WHERE {scan.where()}) AS {table}"
        match = f"log.{quoted(_KEY + name)} = {table}.{quoted(_KEY)}"
        if self.since:
            return f"ASOF LEFT JOIN {rows} ON {match} AND log.{time} >= {table}.{quoted(_SINCE)}", scan
        return f"LEFT JOIN {rows} ON {match}", scan


_KEY, _SINCE = "acclimate.key", "acclimate.since"


def _open_table(log: Rows, schema: Schema, name: str) -> _Table:
    """An entity table with one row per key, or per key and time.

    Raises:
        DataError: it cannot be read, has no such key, or several rows for one.
    """
    table = schema.tables[name]
    rows = open_rows(log.database, table.source, f"table '{name}'")
    role = f"the key of table '{name}'"
    event_key = schema.entities.get(name, table.key)
    key, of_events = checks.ids(rows, table.key, role), checks.ids(log, event_key, role)
    if checks.is_text(rows.type(table.key, role)) != checks.is_text(log.type(event_key, role)):
        raise ColumnError(
            f"{rows.name}: {role}, '{table.key}', is {rows.type(table.key, role)}, "
            f"but '{event_key}' of the events is {log.type(event_key, role)}",
            hint="convert one of them",
        )
    since = checks.clock(rows, table.time, f"the time of table '{name}'").required if table.time else None
    # An event may be without such an entity, unless the entity is one of the schema's own.
    opened = _Table(rows, key, Column(of_events.sql, of_events.checks[1:]), since)
    _verify(Scan(rows, (*key.checks, *(since.checks if since else ()))))
    _check_unique(opened, table.key)
    return opened


def _check_unique(table: _Table, key: str) -> None:
    by = ", ".join([table.key.sql, *([table.since.sql] if table.since else [])])
    repeated = table.rows.database.query(
        f"SELECT CAST({table.key.sql} AS VARCHAR), count(*), count(*) OVER () FROM {table.rows.sql} "
        f"GROUP BY {by} HAVING count(*) > 1 ORDER BY min({POSITION}) LIMIT 3"
    ).fetchall()
    if repeated:
        shown = ", ".join(f"{value} ({rows} rows)" for value, rows, _ in repeated)
        raise RowError(
            f"{table.rows.name}: key '{key}' is not unique{' at one time' if table.since else ''} "
            f"for {repeated[0][2]:,} values: {shown}",
            hint="keep one row each" if table.since else "keep one row each, or name the time each row is from",
        )


class _LogSource:
    """A log and its entity tables; see :class:`acclimate.artifacts.Source`."""

    def __init__(self, schema: Schema, log: Rows, tables: dict[str, _Table]) -> None:
        self._schema = schema
        self._log = log
        self._tables = tables
        self._clock = checks.clock(log, schema.time, "the time")
        self._keys = tuple(dict.fromkeys([schema.time.column, *schema.entities.values()]))
        self._homes = self._found_homes()
        self._columns = {name: checks.plain(self._rows(home), own) for name, (home, own) in self._homes.items()}
        self._columns |= self._features() | self._parts()
        _verify(Scan(log, self._clock.required.checks))
        sql, scans = self._select(list(self._homes), None, None)
        with _explaining(scans):
            self._types = log.database.query(f"{sql} LIMIT 0").to_arrow_table().schema

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._types

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``; all of them are checked before the first is handed out."""
        sql, scans = self._select(columns, start, end)
        order = ", ".join(f"log.{column}" for column in (*map(quoted, self._keys), POSITION))
        with _explaining(scans):
            reader = self._log.database.query(f"{sql} ORDER BY {order}").to_arrow_reader(_BATCH)
        return pa.RecordBatchReader.from_batches(reader.schema, _batches(reader, scans))

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        (time, *entities), labels = self._keys, self._schema.labels
        sql, scans = self._select([*self._keys, *labels], start, end)
        wanted = [
            "count(*)",
            *(f"epoch_us({side}({quoted(time)}))" for side in ("min", "max")),
            *(f"count(DISTINCT {quoted(name)})" for name in entities),
            *(f"avg({quoted(name)})" for name in labels),
        ]
        with _explaining(scans):
            row = self._log.database.query(f"SELECT {', '.join(wanted)} FROM ({sql})").fetchall()[0]
        first, last = (None if us is None else _EPOCH + dt.timedelta(microseconds=us) for us in row[1:3])
        counts, rates = row[3 : 3 + len(entities)], row[3 + len(entities) :]
        return Summary(
            row[0], first, last, dict(zip(entities, counts, strict=True)), dict(zip(labels, rates, strict=True))
        )

    def _found_homes(self) -> dict[str, tuple[str, str]]:
        """Of each column its table (none for the log) and its name there."""
        homes = {name: ("", name) for name in self._log.columns.names}
        for table, opened in self._tables.items():
            joined = {f"{table}.{name}": (table, name) for name in opened.rows.columns.names}
            if taken := sorted(set(homes) & set(joined)):
                raise ColumnError(f"{self._log.name}: column '{taken[0]}' has the name of one of table '{table}'")
            homes |= joined
        return homes

    def _rows(self, home: str) -> Rows:
        return self._tables[home].rows if home else self._log

    def _parts(self) -> dict[str, Column]:
        """The columns that play a part of their own in the schema."""
        schema, log = self._schema, self._log
        found = {name: checks.label(log, name) for name in schema.labels}
        for name, part in (
            (schema.weight, checks.weight),
            (schema.offset, checks.offset),
            (schema.truth, checks.truth),
        ):
            found |= {name: part(log, name)} if name else {}
        found |= {name: checks.ids(log, name, f"entity '{role}'") for role, name in schema.entities.items()}
        return found | {schema.time.column: self._clock.required}

    def _features(self) -> dict[str, Column]:
        """The columns of declared features, by the kind they are declared to be."""
        found: dict[str, Column] = {}
        for name, feature in self._schema.features.items():
            for column in self._schema.feature_columns(name):
                role = f"feature '{name}'"
                home, own = self._home(column, role)
                if column != self._schema.time.column:
                    found[column] = checks.feature(
                        self._rows(home), own, feature, role, zone=self._schema.time.zone
                    )
        return found

    def _home(self, column: str, role: str = "") -> tuple[str, str]:
        if column not in self._homes:
            wanted = f" for {role}" if role else ""
            raise ColumnError(f"{self._log.name}: no column '{column}'{wanted}", hint=nearest(column, self._homes))
        return self._homes[column]

    def _select(self, columns: Sequence[str], start: int | None, end: int | None) -> tuple[str, list[Scan]]:
        """SQL of the columns, in no order, and what it reads."""
        if not columns:
            raise ConfigError("no columns were asked for")
        wanted = {name: self._columns[name] for name in self._keys}
        joined: dict[str, dict[str, Column]] = {}
        for name in columns:
            home, _ = self._home(name)
            (joined.setdefault(home, {}) if home else wanted)[name] = self._columns[name]
        keys = {_KEY + name: self._tables[name].event_key for name in joined}
        scan = Scan(self._log, _checks(wanted | keys), self._clock.within(start, end))
        log = f"SELECT {_listed(wanted | keys)}, {POSITION} FROM {self._distinct()} WHERE {scan.where()}"
        time = quoted(self._schema.time.column)
        joins = [self._tables[name].join(name, table, time) for name, table in joined.items()]
        tables = " ".join(sql for sql, _ in joins)
        sql = f"SELECT {', '.join(map(quoted, columns))} FROM ({log}) AS log {tables}"
        return sql, [scan, *(scan for _, scan in joins)]

    def _distinct(self) -> str:
        """SQL of the log, without duplicates if so asked: of equal rows the first."""
        if self._schema.duplicates == "keep":
            return self._log.sql
        names = ", ".join(map(quoted, self._log.columns.names))
        return f"(SELECT {names}, min({POSITION}) AS {POSITION} FROM {self._log.sql} GROUP BY {names})"


def _listed(columns: dict[str, Column]) -> str:
    return ", ".join(f"{column.sql} AS {quoted(name)}" for name, column in columns.items())


def _checks(columns: dict[str, Column]) -> tuple[Check, ...]:
    return tuple(check for column in columns.values() for check in column.checks)


def _verify(scan: Scan) -> None:
    with _explaining([scan]):
        scan.rows.database.query(f"SELECT count(*) FROM {scan.rows.sql} WHERE {scan.where()}").fetchall()


def _batches(reader: pa.RecordBatchReader, scans: Sequence[Scan]) -> Generator[pa.RecordBatch]:
    with _explaining(scans):
        yield from reader


@contextmanager
def _explaining(scans: Sequence[Scan]) -> Generator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:  # an OSError: DuckDB's, by way of an Arrow stream
        raise explained(error, scans) from error
