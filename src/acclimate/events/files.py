"""Files and frames as one SQL relation, whose rows know where they came from."""

import csv
import glob
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from acclimate.errors import ColumnError, ConfigError, SourceError, nearest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

POSITION = '"acclimate.position"'
"""Column of :attr:`Rows.sql`: number of the file · 2^40 + row in the file, both from 0."""

_SPAN = 1 << 40
FILE, ROW = f"{POSITION} // {_SPAN}", f"{POSITION} % {_SPAN}"

_PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_CSV = re.compile(r"\.[ct]sv(\.gz)?$", re.IGNORECASE)
_NAMES = "names end in .parquet, .csv or .csv.gz"
_DIALECT = "quote = '\"', escape = '\"', comment = '', hive_partitioning = false"
# Types are guessed from all rows, lest a late value not fit. Dates stay text: their formats are not guessed.
_GUESS = "sample_size = -1, ignore_errors = true, auto_type_candidates = ['BIGINT', 'DOUBLE', 'VARCHAR']"
_EVERY_VALUE = "bit_xor(hash(COLUMNS(*)))"  # a count would not look at them
_BY_NAME = "union_by_name = true, hive_partitioning = false"
_VIRTUAL = {"file_index", "file_row_number"}  # what DuckDB calls a Parquet row's place; real columns would hide it


def quoted(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def reason(error: Exception) -> str:
    """The first line of a message, without the class that DuckDB puts in front."""
    return re.sub(r"^[\w ]+ Error: ", "", str(error).strip().split("\n", 1)[0])


class Database:
    """An in-memory DuckDB that spills to disk beyond ``memory_limit``.

    Every query has a connection of its own, so that results can be read side by side and from any thread.
    """

    def __init__(self, memory_limit: str) -> None:
        import duckdb

        self.memory_limit = memory_limit
        self._frames: dict[str, pa.Table] = {}
        # DuckDB makes this folder when it first spills and removes it at the end.
        spill = os.path.join(tempfile.gettempdir(), f"acclimate-{os.getpid()}-{id(self)}")
        try:
            self._root = duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": spill})
        except duckdb.Error as error:
            raise ConfigError(f"memory_limit '{memory_limit}' is no size", hint="write 512MB or 4GB") from error
        self._root.execute("SET GLOBAL TimeZone = 'UTC'")
        self._root.execute(f"SET GLOBAL threads = {self._threads()}")

    def _threads(self) -> int:
        """As many as there are, but no more than the memory feeds: a sort holds some 50 MB in each."""
        settings = "SELECT current_setting('threads'), current_setting('memory_limit')"
        threads, limit = self._root.execute(settings).fetchall()[0]
        size, unit = limit.split()  # such as 953.6 MiB
        megabytes = float(size) * 1024.0 ** ("KMGT".find(unit[0]) - 1)
        return max(1, min(int(threads), int(megabytes / 64)))

    def connection(self) -> "DuckDBPyConnection":
        """A new connection that sees all frames."""
        connection = self._root.cursor()
        for name, frame in self._frames.items():
            connection.register(name, frame)
        return connection

    def query(self, sql: str) -> "DuckDBPyRelation":
        """The result of a SELECT, not yet computed."""
        return self.connection().sql(sql)

    def add(self, frame: pa.Table) -> str:
        """The name under which queries find the frame."""
        name = f"frame_{len(self._frames)}"
        self._frames[name] = frame
        return name


@dataclass(frozen=True)
class Rows:
    """Rows of files and frames, united by column name: a column that a file lacks is null there.

    ``files`` are their names, ``scans`` the SQL that reads each alone, ``sql`` that of all with :data:`POSITION`;
    ``columns`` are the types as found.
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
        return any(_CSV.search(file) for file in self.files)

    def type_of(self, column: str, role: str) -> Any:
        """The Arrow type of a column that is needed for ``role``.

        Raises:
            ColumnError: there is no such column.
        """
        if column not in self.columns.names:
            raise ColumnError(
                f"{self.name}: no column '{column}' for {role}", hint=nearest(column, self.columns.names)
            )
        return self.columns.field(column).type

    def unreadable(self) -> SourceError | None:
        """What is wrong with the first file that cannot be read to its end."""
        import duckdb

        for file, scan in zip(self.files, self.scans, strict=True):
            try:
                self.database.query(f"SELECT {_EVERY_VALUE} FROM {scan}").fetchall()
            except duckdb.Error as error:
                return _malformed(self.database, file, scan) or _damaged(file, error)
        return None


def open_rows(database: Database, source: Any, name: str) -> Rows:
    """The rows of paths, folders, globs and frames, or of a list of them; ``name`` is what frames are called.

    Raises:
        SourceError: a file is absent, empty, or cannot be read.
        ColumnError: a frame has a column that Arrow or DuckDB cannot express.
        ConfigError: the source is neither path nor frame.
    """
    import duckdb

    items = list(dict.fromkeys(_items(source, name)))  # a file that several globs match is read once
    if not items:
        raise SourceError(f"{name}: the list of sources is empty")
    parts: list[str] = []
    scans: list[str] = []
    for opener, run in groupby(items, _opener):
        part, scan = opener(database, list(run), len(scans))
        parts += part
        scans += scan
    sql = f"({' UNION ALL BY NAME '.join(parts)})"
    files = tuple(item if isinstance(item, str) else item.name for item in items)
    try:
        columns = database.query(f"SELECT * EXCLUDE ({POSITION}) FROM {sql} LIMIT 0").to_arrow_table().schema
    except duckdb.Error as error:
        raise ColumnError(f"{files[0]}: columns cannot be read: {reason(error)}") from error
    return Rows(database, files, tuple(scans), sql, columns)


# --- what there is to read -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    name: str
    table: pa.Table


_Item: TypeAlias = str | _Frame


def _items(source: Any, name: str) -> list[_Item]:
    """Paths of files, and frames."""
    if isinstance(source, (list, tuple)):
        many = len(source) > 1
        return [x for i, part in enumerate(source, 1) for x in _items(part, f"{name} {i}" if many else name)]
    if isinstance(source, (str, os.PathLike)):
        return [*_located(os.fspath(source))]
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return [_Frame(name, _as_table(source, name))]
    raise ConfigError(
        f"events cannot be read from a {type(source).__name__}",
        hint="give a path, a folder, a glob, a pandas, polars, pyarrow or DuckDB frame, or a list of these",
    )


def _located(path: str) -> list[str]:
    """The files meant by a path, a folder (with its subfolders) or a glob, in the order of their names."""
    if os.path.isdir(path):
        inside = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        return _some([file for file in sorted(inside) if _is_data(file)], path)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        matches = [m for m in sorted(glob.glob(path, recursive=True)) if os.path.isdir(m) or _is_data(m)]
        return [file for match in _some(matches, path) for file in _located(match)]
    folder, name = os.path.split(path)
    siblings = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    raise SourceError(f"{path}: no such file or folder", hint=nearest(name, siblings))


def _some(files: list[str], path: str) -> list[str]:
    if not files:
        raise SourceError(f"{path}: no Parquet or CSV file there", hint=_NAMES)
    return files


def _is_data(path: str) -> bool:
    hidden = os.path.basename(path).startswith((".", "_"))
    return not hidden and bool(_PARQUET.search(path) or _CSV.search(path))


def _as_table(frame: Any, name: str) -> pa.Table:
    """The frame without a nameless pandas index, in types that DuckDB reads."""
    try:
        table = pa.table(frame)
        table = table.select([c for c in table.column_names if not re.fullmatch(r"__index_level_\d+__", c)])
        return table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema]))
    except (pa.ArrowException, TypeError, KeyError) as error:
        raise ColumnError(f"{name}: does not fit into Arrow: {': '.join(map(str, error.args))}") from error


def _plain(kind: Any) -> Any:
    """Half floats, which DuckDB does not take from Arrow, as floats."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.float32() if pa.types.is_float16(kind) else kind


# --- how it is read: SELECTs to unite, and the SQL that scans each item alone --------------------------------

_Opened: TypeAlias = tuple[list[str], list[str]]


def _opener(item: _Item) -> Callable[[Database, list[Any], int], _Opened]:
    if isinstance(item, _Frame):
        return _open_frames
    if _PARQUET.search(item):
        return _open_parquet
    if _CSV.search(item):
        return _open_csv
    raise SourceError(f"{item}: neither Parquet nor CSV", hint=_NAMES)


def _open_frames(database: Database, frames: list[_Frame], first: int) -> _Opened:
    names: list[str] = []
    for number, frame in enumerate(frames, first):
        rows = frame.table.num_rows
        if not rows:
            raise SourceError(f"{frame.name}: no rows")
        positions = pa.array(np.arange(number * _SPAN, number * _SPAN + rows))
        names.append(database.add(frame.table.append_column(POSITION.strip('"'), positions)))
    return [f"SELECT * FROM {name}" for name in names], names


def _open_parquet(_: Database, paths: list[str], first: int) -> _Opened:
    vectors = _vectors([_parquet_types(path) for path in paths])
    casts = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in vectors.items())
    names = [literal(glob.escape(path)) for path in paths]
    part = (
        f"SELECT CAST((file_index + {first}) * {_SPAN} + file_row_number AS BIGINT) AS {POSITION}, *"
        f"{f' REPLACE ({casts})' if casts else ''} FROM read_parquet([{', '.join(names)}], {_BY_NAME})"
    )
    return [part], [f"read_parquet({name})" for name in names]


def _parquet_types(path: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    if not os.path.getsize(path):
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    try:
        with pq.ParquetFile(path) as file:
            rows, types = file.metadata.num_rows, {field.name: field.type for field in file.schema_arrow}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if not rows:
        raise SourceError(f"{path}: no rows")
    if _VIRTUAL & set(types):
        raise ColumnError(f"{path}: the column names {sorted(_VIRTUAL)} are taken", hint="rename the column")
    return types


def _vectors(files: list[dict[str, Any]]) -> dict[str, str]:
    """DuckDB's types of fixed-size lists of floats, which Parquet itself knows as lists of any size."""
    vectors = {name: kind for types in files for name, kind in types.items() if pa.types.is_fixed_size_list(kind)}
    return {
        name: f"{'DOUBLE' if pa.types.is_float64(kind.value_type) else 'FLOAT'}[{kind.list_size}]"
        for name, kind in vectors.items()
        if pa.types.is_floating(kind.value_type) and all(types.get(name, kind) == kind for types in files)
    }


def _open_csv(database: Database, paths: list[str], first: int) -> _Opened:
    opened = [_csv_scan(database, path) for path in paths]
    parts = [
        f"SELECT {number * _SPAN - 1} + row_number() OVER () AS {POSITION}, *{replace} FROM {scan}"
        for number, (scan, replace) in enumerate(opened, first)
    ]
    return parts, [scan for scan, _ in opened]


def _csv_scan(database: Database, path: str) -> tuple[str, str]:
    """SQL that scans a file with its types fixed, and what is to be replaced in it."""
    import duckdb

    delimiter, names = _header(path)
    options = f"{literal(glob.escape(path))}, header = true, delim = {literal(delimiter)}, {_DIALECT}"
    scan = _typed(options, dict.fromkeys(names, "VARCHAR"))
    try:
        guess = database.query(f"DESCRIBE FROM read_csv({options}, {_GUESS})").fetchall()
        scan = _typed(options, {name: kind for name, kind, *_ in guess})
        void = _void(database, path, scan, [name for name, *_ in guess])
    except duckdb.Error as error:
        raise _malformed(database, path, scan) or _damaged(path, error) from error
    nulls = ", ".join(f"NULL AS {quoted(name)}" for name in void)
    return scan, f" REPLACE ({nulls})" if nulls else ""


def _typed(options: str, types: dict[str, str]) -> str:
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    return f"read_csv({options}, auto_detect = false, columns = {{{columns}}})"


def _void(database: Database, path: str, scan: str, columns: list[str]) -> list[str]:
    """The columns without a value: they must not turn the same column of another file into text."""
    counts = ", ".join(f"count({quoted(name)})" for name in columns)
    rows, *filled = database.query(f"SELECT count(*), {counts} FROM {scan}").fetchall()[0]
    if not rows:
        raise SourceError(f"{path}: no rows")
    return [name for name, count in zip(columns, filled, strict=True) if not count]


def _header(path: str) -> tuple[str, list[str]]:
    """The separator that the first line has most of, and the names it separates."""
    try:
        with (gzip.open if path.lower().endswith(".gz") else open)(path, "rb") as file:
            line = file.readline(1 << 20).decode(errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    if not line.strip():
        raise SourceError(f"{path}: the file is empty ({os.path.getsize(path)} bytes)")
    delimiter = max(",;\t|", key=line.count)
    return delimiter, next(csv.reader([line], delimiter=delimiter))


def _malformed(database: Database, path: str, scan: str) -> SourceError | None:
    """The first line of a CSV file that does not fit its header."""
    import duckdb

    if not scan.startswith("read_csv"):
        return None
    connection = database.connection()
    try:
        connection.execute(f"SELECT {_EVERY_VALUE} FROM {scan[:-1]}, store_rejects = true)").fetchall()
        bad = connection.execute(
            "SELECT line, first(error_message) FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
    except duckdb.Error:
        return None
    if not bad:
        return None
    line, message = bad[0]
    if ragged := re.fullmatch(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        message = f"{ragged[2]} columns where the header has {ragged[1]}"
    more = f", and {len(bad) - 1:,} more such lines" if len(bad) > 1 else ""
    return SourceError(f"{path}: line {line}: {message}{more}", hint="correct the lines or take them out")


def _damaged(path: str, error: Exception) -> SourceError:
    return SourceError(f"{path}: the file is damaged or not what its name says: {reason(error)}")
