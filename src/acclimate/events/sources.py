"""Events from files and frames, read anew by DuckDB whenever they are asked for."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from acclimate.artifacts import Events, Fingerprint, Summary
from acclimate.artifacts.events import SAMPLE, SEPARATOR, identity_columns
from acclimate.config import Schema
from acclimate.errors import ColumnError, ConfigError, RowError, nearest
from acclimate.events import checks
from acclimate.events.checks import Check, Clock, Column, Scan, bounded, explained
from acclimate.events.files import POSITION, Database, Rows, literal, open_rows, quoted
from acclimate.times import utc

_BATCH = 122_880  # rows, as in a row group of DuckDB
_KEY, _SINCE = "acclimate.key", "acclimate.since"  # columns that only joins see


def read_events(source: Any, schema: Schema, *, memory_limit: str = "1GB") -> Events:
    """Events from Parquet and CSV files, or from any frame that speaks Arrow.

    Files are read when rows are asked for, and of them only the columns and the time range wanted. Whatever their
    order in the files, rows come by time, then entities, then place in the source.

    Args:
        source: a path, a folder (with its subfolders), a glob, a pandas, polars, pyarrow or DuckDB frame, or a
            list of these. Columns are matched by name; one that a file lacks is null there.
        schema: what the columns mean.
        memory_limit: of sorting and joining, and of the rows that are held at once: what exceeds it goes to disk,
            or is learned in pieces.

    Raises:
        SourceError: a file is absent, empty or damaged.
        ColumnError: a column that the schema names is absent or of the wrong type.
        RowError: a time is missing or far off, or a table has several rows for one key. Other values are checked
            when they are read.
        ConfigError: ``source``, ``memory_limit`` or a time zone is not understood.
    """
    database = Database(memory_limit)
    with bounded(database):
        keys = {schema.entities.get(name, table.key) for name, table in schema.tables.items()}
        ids = {*schema.entities.values(), *keys}
        log = open_rows(database, source, "frame", ids=ids, words=_words(schema, ""))
        tables = {name: _open_table(log, schema, name) for name in schema.tables}
        time = checks.clock(log, schema.time, "the time")
        _verify(Scan(log, time.required.checks))
        catalog = _catalog(schema, log, tables, time)
    return Events(schema, _LogSource(schema, log, tables, time, catalog), memory_limit=database.bytes)


def _words(schema: Schema, table: str) -> set[str]:
    """The columns of a table, or (``table`` empty) of the log, that are declared to be words."""
    declared = [name for name, feature in schema.features.items() if feature.kind == "categorical"]
    columns = (column.rpartition(".") for name in declared for column in schema.feature_columns(name))
    return {name for home, _, name in columns if home == table}


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


def _open_table(log: Rows, schema: Schema, name: str) -> _Table:
    """An entity table with one row per key, or per key and time.

    Raises:
        DataError: it cannot be read, has no such key, or several rows for one.
    """
    table = schema.tables[name]
    role, of_events = f"the key of table '{name}'", schema.entities.get(name, table.key)
    event_kind = log.type_of(of_events, role)
    rows = open_rows(
        log.database,
        table.source,
        f"table '{name}'",
        ids=[table.key],
        words=_words(schema, name),
        text=[table.key] if checks.is_text(event_kind) else [],
    )
    kind = rows.type_of(table.key, role)
    key, event_key = checks.ids(rows, table.key, role), checks.ids(log, of_events, role)
    if checks.is_text(kind) != checks.is_text(event_kind):
        raise ColumnError(
            f"{rows.name}: {role}, '{table.key}', is {kind}, but '{of_events}' of the events is {event_kind}",
            hint="convert one of them; ids of CSV are numbers if all are written as 7 is, not as 7.0 or 007",
        )
    since = checks.clock(rows, table.time, f"the time of table '{name}'").required if table.time else None
    # An event may be without such an entity, unless the entity is one of the schema's own.
    opened = _Table(rows, key, Column(event_key.sql, event_key.checks[1:]), since)
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
        values = ", ".join(f"{value} ({rows} rows)" for value, rows, _ in repeated)
        raise RowError(
            f"{table.rows.name}: key '{key}' is not unique{' at one time' if table.since else ''} "
            f"for {repeated[0][2]:,} values: {values}",
            hint="keep one row each" if table.since else "keep one row each, or name the time each row is from",
        )


@dataclass(frozen=True)
class _Home:
    """Where a column lives: under which name in which rows, those of a table or (``table`` empty) of the log."""

    table: str
    rows: Rows
    name: str
    column: Column


def _catalog(schema: Schema, log: Rows, tables: dict[str, _Table], time: Clock) -> dict[str, _Home]:
    """All columns there are, read according to the part they play.

    Raises:
        DataError: one that the schema names is absent or cannot play its part.
    """
    catalog = {name: _Home("", log, name, checks.plain(log, name)) for name in log.columns.names}
    for table, opened in tables.items():
        for name in opened.rows.columns.names:
            if f"{table}.{name}" in catalog:
                raise ColumnError(f"{log.name}: column '{table}.{name}' has the name of one of table '{table}'")
            catalog[f"{table}.{name}"] = _Home(table, opened.rows, name, checks.plain(opened.rows, name))
    for name, declared in schema.features.items():
        for column in schema.feature_columns(name):
            home = _home(catalog, column, log, f" for feature '{name}'")
            if column != schema.time.column:
                read = checks.feature(home.rows, home.name, declared, f"feature '{name}'", zone=schema.time.zone)
                catalog[column] = replace(home, column=read)
    return catalog | {name: _Home("", log, name, column) for name, column in _parts(schema, log, time).items()}


def _parts(schema: Schema, log: Rows, time: Clock) -> dict[str, Column]:
    """The columns that play a part of their own in the schema."""
    parts = {name: checks.label(log, name, schema.label_kind(name)) for name in schema.labels}
    if schema.weight:
        parts[schema.weight] = checks.weight(log, schema.weight)
    if schema.offset:
        parts[schema.offset] = checks.offset(log, schema.offset)
    if schema.truth:
        parts[schema.truth] = checks.truth(log, schema.truth, probability=not schema.label_kinds)
    ids = {name: checks.ids(log, name, f"entity '{role}'") for role, name in schema.entities.items()}
    return parts | ids | {schema.time.column: time.required}


def _home(catalog: dict[str, _Home], column: str, log: Rows, role: str = "") -> _Home:
    if column not in catalog:
        raise ColumnError(f"{log.name}: no column '{column}'{role}", hint=nearest(column, catalog))
    return catalog[column]


@dataclass(frozen=True, eq=False, repr=False)
class _LogSource:
    """A log and its entity tables; see :class:`acclimate.artifacts.Source`."""

    schema: Schema
    log: Rows
    tables: dict[str, _Table]
    time: Clock
    catalog: dict[str, _Home]

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._types

    @cached_property
    def _types(self) -> pa.Schema:
        sql, scans = self._select(list(self.catalog), None, None)
        with _explaining(scans):
            return self.log.database.query(f"{sql} LIMIT 0").to_arrow_table().schema

    @property
    def _keys(self) -> tuple[str, ...]:
        """The columns to sort by."""
        return tuple(dict.fromkeys([self.schema.time.column, *self.schema.entities.values()]))

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``; all of them are checked before the first is handed out."""
        sql, scans = self._select(columns, start, end)
        order = ", ".join(f"log.{column}" for column in (*map(quoted, self._keys), POSITION))
        with _explaining(scans):
            reader = self.log.database.query(f"{sql} ORDER BY {order}").to_arrow_reader(_BATCH)
        return pa.RecordBatchReader.from_batches(reader.schema, _batches(reader, scans))

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        (time, *entities), labels = self._keys, self.schema.labels
        sql, scans = self._select([*self._keys, *labels], start, end)
        wanted = [
            "count(*)",
            *(f"epoch_us({side}({quoted(time)}))" for side in ("min", "max")),
            *(f"count(DISTINCT {quoted(name)})" for name in entities),
            *(f"avg({quoted(name)})" for name in labels),
        ]
        with _explaining(scans):
            row = self.log.database.query(f"SELECT {', '.join(wanted)} FROM ({sql})").fetchall()[0]
        first, last = (None if us is None else utc(us) for us in row[1:3])
        counts, rates = row[3 : 3 + len(entities)], row[3 + len(entities) :]
        return Summary(
            row[0], first, last, dict(zip(entities, counts, strict=True)), dict(zip(labels, rates, strict=True))
        )

    def count(self, start: int | None, end: int | None, known: str | None) -> int:
        """See :meth:`Events.count`."""
        label = None if known is None else _home(self.catalog, known, self.log).column
        scan = Scan(self.log, label.checks if label else (), self.time.within(start, end))
        sql = f"SELECT count({label.sql if label else '*'}) FROM {self._distinct()} WHERE {scan.where()}"
        with _explaining([scan]):
            return self.log.database.query(sql).fetchall()[0][0]

    def fingerprint(self, start: int | None, end: int | None, known: str | None) -> Fingerprint:
        """See :meth:`Events.fingerprint`."""
        columns = identity_columns(self.schema)
        time, *others = map(quoted, columns)
        texts = [
            f"CAST(epoch_us({time}) AS VARCHAR)",
            *(f"coalesce(CAST({name} AS VARCHAR), '')" for name in others),
        ]
        row = f"md5_number_lower(concat_ws({literal(SEPARATOR)}, {', '.join(texts)}))"
        sql, scans = self._select(columns, start, end)
        wanted = f"count(*), coalesce(sum(CAST(hash AS HUGEINT)), 0) % {1 << 64}, min(hash, {SAMPLE})"
        with _explaining(scans):
            hashes = f"SELECT {row} AS hash FROM ({sql})" + (
                f" WHERE {quoted(known)} IS NOT NULL" if known else ""
            )
            rows, total, smallest = self.log.database.query(f"SELECT {wanted} FROM ({hashes})").fetchall()[0]
        return Fingerprint.of_hashes(rows, total, smallest or ())

    def _select(self, columns: Sequence[str], start: int | None, end: int | None) -> tuple[str, list[Scan]]:
        """SQL of the columns, in no order, and what it reads."""
        if not columns:
            raise ConfigError("no columns were asked for")
        wanted = {name: self.catalog[name].column for name in self._keys}
        joined: dict[str, dict[str, Column]] = {}
        for name in columns:
            home = _home(self.catalog, name, self.log)
            (joined.setdefault(home.table, {}) if home.table else wanted)[name] = home.column
        keys = {_KEY + name: self.tables[name].event_key for name in joined}
        scan = Scan(self.log, _checks(wanted | keys), self.time.within(start, end))
        log = f"SELECT {_listed(wanted | keys)}, {POSITION} FROM {self._distinct()} WHERE {scan.where()}"
        time = quoted(self.schema.time.column)
        joins = [self.tables[name].join(name, table, time) for name, table in joined.items()]
        tables = " ".join(sql for sql, _ in joins)
        sql = f"SELECT {', '.join(map(quoted, columns))} FROM ({log}) AS log {tables}"
        return sql, [scan, *(scan for _, scan in joins)]

    def _distinct(self) -> str:
        """SQL of the log, without duplicates if so asked: of equal rows the first."""
        if self.schema.duplicates == "keep":
            return self.log.sql
        names = ", ".join(map(quoted, self.log.columns.names))
        return f"(SELECT {names}, min({POSITION}) AS {POSITION} FROM {self.log.sql} GROUP BY {names})"


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
