"""Files and frames as one SQL relation, whose rows know where they came from."""

import glob
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from acclimate.errors import ColumnError, ConfigError, SourceError, nearest
from acclimate.events.csv_files import EVERY_VALUE, CsvFile, damaged, malformed, open_csv, refuse_twins
from acclimate.events.database import Database, literal, quoted, reason
from acclimate.events.locate import CSV, NAMES, PARQUET, located, once

POSITION = '"acclimate.position"'
"""Column of :attr:`Rows.sql`: number of the file · 2^40 + row in the file, both from 0."""

_SPAN = 1 << 40
FILE, ROW = f"{POSITION} // {_SPAN}", f"{POSITION} % {_SPAN}"

_BY_NAME = "union_by_name = true, hive_partitioning = false"
_TAKEN = {"file_index", "file_row_number", POSITION.strip('"')}
"""What DuckDB calls a Parquet row's place, and we a row's: real columns would hide them."""

_ALIKE = "write it alike in all files"
_NUMBERS = "an id of a CSV file is a number if all are written as 7 is, not as 7.0, 007 or 1e1"

Kinds: TypeAlias = dict[str, Any]
"""Names and Arrow types of the columns of one file or frame."""


@dataclass(frozen=True)
class Rows:
    """Rows of files and frames, united by column name: a column that a file lacks is null there.

    ``files`` are their names, as messages show them, ``scans`` the SQL that reads each alone, ``sql`` that of all
    with :data:`POSITION`; ``columns`` are the types of all together.
    """

    database: Database
    files: tuple[str, ...]
    scans: tuple[str, ...]
    sql: str
    columns: pa.Schema

    @property
    def name(self) -> str:
        """What to call all of them in a message."""
        more = len(self.files) - 1
        return self.files[0] + (f" and {more} more" if more else "")

    @property
    def is_csv(self) -> bool:
        """Whether types were guessed from text."""
        return any(CSV.search(file) for file in self.files)

    def type_of(self, column: str, role: str) -> Any:
        """The Arrow type of a column that is needed for ``role``.

        Raises:
            ColumnError: there is no such column.
        """
        if column not in self.columns.names:
            raise ColumnError(
                f"{self.name}: no column '{column}' for {role}",
                hint=nearest(column, self.columns.names),
            )
        return self.columns.field(column).type

    def unreadable(self) -> SourceError | None:
        """What is wrong with the first file that cannot be read to its end."""
        import duckdb

        for file, scan in zip(self.files, self.scans, strict=True):
            try:
                self.database.query(f"SELECT {EVERY_VALUE} FROM {scan}").fetchall()
            except duckdb.Error as error:
                return malformed(self.database, file, scan) or damaged(file, error)
        return None


def open_rows(
    database: Database,
    source: Any,
    name: str,
    *,
    ids: Collection[str] = (),
    words: Collection[str] = (),
    text: Collection[str] = (),
) -> Rows:
    """The rows of paths, folders, globs and frames, or of a list of them; ``name`` is what frames are called.

    Args:
        database: reads them.
        source: where they are.
        name: what frames are called.
        ids: columns of ids; those of CSV files are numbers only where every one is written as one is.
        words: columns of CSV files that stay as they are written where those of any file are text.
        text: columns of CSV files that stay as they are written.

    Raises:
        SourceError: a file is absent, empty, or cannot be read.
        ColumnError: a column is there twice, of another type in another file, or cannot be expressed.
        ConfigError: the source is neither path nor frame.
    """
    import duckdb

    parts = [_opened(database, item, ids) for item in _distinct(_items(source, name))]
    if not parts:
        raise SourceError(f"{name}: the list of sources is empty")
    parts = _as_written(parts, {*ids, *words}, text)
    _refuse_mixtures(parts, ids)
    selects: list[str] = []
    scans: list[str] = []
    for kind, run in groupby(parts, type):
        select, scan = _SQL[kind](database, list(run), len(scans))
        selects += select
        scans += scan
    sql = f"({' UNION ALL BY NAME '.join(selects)})"
    try:
        columns = database.query(f"SELECT * EXCLUDE ({POSITION}) FROM {sql} LIMIT 0").to_arrow_table().schema
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise ColumnError(f"{parts[0].name}: columns cannot be read: {reason(error)}") from error
    return Rows(database, tuple(part.name for part in parts), tuple(scans), sql, columns)


# --- what there is to read -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    name: str
    table: pa.Table

    @property
    def kinds(self) -> Kinds:
        return {field.name: field.type for field in self.table.schema}


@dataclass(frozen=True)
class _Parquet:
    path: str
    kinds: Kinds

    @property
    def name(self) -> str:
        return self.path


_Part: TypeAlias = CsvFile | _Parquet | _Frame
_Item: TypeAlias = str | _Frame


def _items(source: Any, name: str) -> list[_Item]:
    """Paths of files, and frames."""
    if isinstance(source, (list, tuple)):
        many = len(source) > 1
        return [x for i, part in enumerate(source, 1) for x in _items(part, f"{name} {i}" if many else name)]
    if isinstance(source, (str, os.PathLike)):
        return [*located(os.fsdecode(source))]
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return [_Frame(name, _as_table(source, name))]
    raise ConfigError(
        f"events cannot be read from a {type(source).__name__}",
        hint="give a path, a folder, a glob, a pandas, polars, pyarrow or DuckDB frame, or a list of these",
    )


def _distinct(items: list[_Item]) -> list[_Item]:
    """The items without the files that are there by another path already."""
    left = once([item for item in items if isinstance(item, str)])
    return [item for item in dict.fromkeys(items) if not isinstance(item, str) or item in left]


def _as_table(frame: Any, name: str) -> pa.Table:
    """The frame without a nameless pandas index, in types that DuckDB reads."""
    try:
        table = pa.table(frame)
        refuse_twins(name, table.column_names)
        table = table.select([c for c in table.column_names if not re.fullmatch(r"__index_level_\d+__", c)])
        return table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema]))
    except (pa.ArrowException, TypeError, KeyError, ValueError) as error:
        message = ": ".join(map(str, error.args)).strip().partition("\n")[0]
        raise ColumnError(f"{name}: does not fit into Arrow: {message}") from error


def _plain(kind: Any) -> Any:
    """Half floats, which DuckDB does not take from Arrow, as floats."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.float32() if pa.types.is_float16(kind) else kind


def _opened(database: Database, item: _Item, ids: Collection[str]) -> _Part:
    """The item with the types of its columns."""
    if isinstance(item, _Frame):
        part = item
        if not item.table.num_rows:
            raise SourceError(f"{item.name}: no rows")
    elif PARQUET.search(item):
        part = _open_parquet(item)
    elif CSV.search(item):
        part = open_csv(database, item, ids)
    else:
        raise SourceError(f"{item}: neither Parquet nor CSV", hint=NAMES)
    refuse_twins(part.name, part.kinds)
    if taken := sorted(_TAKEN & {name.lower() for name in part.kinds}):
        raise ColumnError(f"{part.name}: the column names {taken} are taken", hint="rename the column")
    if "" in part.kinds:
        raise ColumnError(f"{part.name}: a column has no name", hint="name it or take it out")
    return part


def _open_parquet(path: str) -> _Parquet:
    import pyarrow.parquet as pq

    if not os.path.getsize(path):
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    if not rows:
        raise SourceError(f"{path}: no rows")
    refuse_twins(path, schema.names)
    return _Parquet(path, {field.name: field.type for field in schema})


# --- one type for a column of many files ---------------------------------------------------------------------


def _as_written(parts: list[_Part], ids: Collection[str], text: Collection[str]) -> list[_Part]:
    """The parts with those columns of CSV files as they are written that are text, or text elsewhere."""
    elsewhere = {n for part in parts for n, kind in part.kinds.items() if n in ids and family(kind) == "text"}
    return [part.verbatim({*elsewhere, *text}) if isinstance(part, CsvFile) else part for part in parts]


def _refuse_mixtures(parts: list[_Part], ids: Collection[str]) -> None:
    """Refuse a column that is, say, a number in one file and text in another: united, one would become the other.

    Raises:
        ColumnError: there is one.
    """
    first: dict[str, tuple[str, str]] = {}
    for part in parts:
        for column, kind in part.kinds.items():
            if pa.types.is_null(kind):
                continue
            name, before = first.setdefault(column.lower(), (part.name, family(kind)))
            if before != family(kind):
                raise ColumnError(
                    f"{part.name}: column '{column}' is {family(kind)}, but {before} in {name}",
                    hint=_ALIKE + (f"; {_NUMBERS}" if column in ids and isinstance(part, CsvFile) else ""),
                )


def family(kind: Any) -> str:
    """What a type is, as far as values of it can be of one column without changing what they mean."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "a number"
    if pa.types.is_timestamp(kind):
        return f"a timestamp with{'' if kind.tz else 'out'} a zone"
    if pa.types.is_date(kind):
        return "a timestamp without a zone"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "a list" if pa.types.is_null(kind.value_type) else f"a list, each of it {family(kind.value_type)}"
    return "a number" if pa.types.is_boolean(kind) else str(kind)


# --- how it is read: SELECTs to unite, and the SQL that scans each part alone --------------------------------


def _frames(database: Database, frames: list[_Frame], first: int) -> tuple[list[str], list[str]]:
    names: list[str] = []
    for number, frame in enumerate(frames, first):
        positions = pa.array(np.arange(number * _SPAN, number * _SPAN + frame.table.num_rows))
        names.append(database.add(frame.table.append_column(POSITION.strip('"'), positions)))
    return [f"SELECT * FROM {name}" for name in names], names


def _parquets(_: Database, files: list[_Parquet], first: int) -> tuple[list[str], list[str]]:
    vectors = _vectors([file.kinds for file in files])
    casts = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in vectors.items())
    names = [literal(glob.escape(file.path)) for file in files]
    select = (
        f"SELECT CAST((file_index + {first}) * {_SPAN} + file_row_number AS BIGINT) AS {POSITION}, *"
        f"{f' REPLACE ({casts})' if casts else ''} FROM read_parquet([{', '.join(names)}], {_BY_NAME})"
    )
    return [select], [f"read_parquet({name})" for name in names]


def _csvs(_: Database, files: list[CsvFile], first: int) -> tuple[list[str], list[str]]:
    selects = [
        file.select(f"{number * _SPAN - 1} + row_number() OVER () AS {POSITION}")
        for number, file in enumerate(files, first)
    ]
    return selects, [file.scan for file in files]


_SQL: dict[type, Callable[[Database, list[Any], int], tuple[list[str], list[str]]]] = {
    _Frame: _frames,
    _Parquet: _parquets,
    CsvFile: _csvs,
}


def _vectors(files: list[dict[str, Any]]) -> dict[str, str]:
    """DuckDB's types of fixed-size lists of floats, which Parquet itself knows as lists of any size."""
    vectors = {name: kind for types in files for name, kind in types.items() if pa.types.is_fixed_size_list(kind)}
    return {
        name: f"{'DOUBLE' if pa.types.is_float64(kind.value_type) else 'FLOAT'}[{kind.list_size}]"
        for name, kind in vectors.items()
        if pa.types.is_floating(kind.value_type) and all(types.get(name, kind) == kind for types in files)
    }
