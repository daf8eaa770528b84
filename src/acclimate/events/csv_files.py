"""CSV files as SQL: what their names promise is checked first, and ids stay as they are written."""

import csv
import glob
import gzip
import os
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from acclimate.errors import ColumnError, SourceError
from acclimate.events.database import Database, literal, quoted, reason

_DIALECT = "quote = '\"', escape = '\"', comment = '', hive_partitioning = false"
# Types are guessed from all rows, lest a late value not fit. Dates stay text: their formats are not guessed.
_GUESS = "sample_size = -1, ignore_errors = true, auto_type_candidates = ['BIGINT', 'DOUBLE', 'VARCHAR']"
EVERY_VALUE = "bit_xor(hash(COLUMNS(*)))"  # a count would not look at them
_ARROW = {"BIGINT": pa.int64(), "DOUBLE": pa.float64()}

_HEAD = 1 << 20  # bytes; a header is no longer
_MOST_COLUMNS = 10_000
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: how to read it, and what DuckDB is to take each column for; ``void`` have no value."""

    path: str
    options: str
    types: dict[str, str]
    void: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.path

    @property
    def scan(self) -> str:
        """SQL that scans the file with its types fixed."""
        columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in self.types.items())
        return f"read_csv({self.options}, auto_detect = false, columns = {{{columns}}})"

    @property
    def kinds(self) -> dict[str, Any]:
        """The Arrow types. A column without a value has none, lest it turn that of another file into text."""
        return {
            name: pa.null() if name in self.void else _ARROW.get(kind, pa.string())
            for name, kind in self.types.items()
        }

    def select(self, position: str) -> str:
        """SQL of all rows, with their position."""
        nulls = ", ".join(f"NULL AS {quoted(name)}" for name in self.types if name in self.void)
        return f"SELECT {position}, *{f' REPLACE ({nulls})' if nulls else ''} FROM {self.scan}"

    def verbatim(self, columns: Collection[str]) -> "CsvFile":
        """The same file with these columns as they are written."""
        words = {name: "VARCHAR" for name in self.types if name in columns and name not in self.void}
        return replace(self, types=self.types | words)


def open_csv(database: Database, path: str, ids: Collection[str]) -> CsvFile:
    """What is in the file. Ids are numbers if every one is written as a 64-bit integer is, and text otherwise.

    Raises:
        SourceError: it is empty, damaged or no CSV file.
        ColumnError: two columns have one name.
    """
    import duckdb

    delimiter, names = _header(path)
    options = f"{literal(glob.escape(path))}, header = true, delim = {literal(delimiter)}, {_DIALECT}"
    file = CsvFile(path, options, dict.fromkeys(names, "VARCHAR"))
    try:
        guess = database.query(f"DESCRIBE FROM read_csv({options}, {_GUESS})").fetchall()
        if len(guess) == len(names):
            file = replace(file, types=dict(zip(names, (kind for _, kind, *_ in guess), strict=True)))
        return _examined(database, file, ids)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise malformed(database, path, file.scan) or damaged(path, error) from error


def _examined(database: Database, file: CsvFile, ids: Collection[str]) -> CsvFile:
    """The file, with its void columns and the types of its ids."""
    text = file.verbatim(ids)
    counts = [f"count({quoted(name)})" for name in file.types]
    its_ids = [name for name in file.types if name in ids]
    odd = [f"count(*) FILTER (NOT {_is_integer(quoted(name))})" for name in its_ids]
    select = f"SELECT count(*), {', '.join(counts + odd)} FROM {text.scan}"
    rows, *found = database.query(select).fetchall()[0]
    if not rows:
        raise SourceError(f"{file.path}: no rows")
    filled, written = found[: len(counts)], found[len(counts) :]
    void = frozenset(name for name, count in zip(file.types, filled, strict=True) if not count)
    integers = {name: "BIGINT" for name, count in zip(its_ids, written, strict=True) if not count}
    return replace(text, types=text.types | integers, void=void)


def _is_integer(column: str) -> str:
    """SQL of whether a text is what the number that it stands for is written as: not 007, 1e1, -0 or 1.0."""
    return f"({column} IS NULL OR coalesce(CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR) = {column}, false))"


def malformed(database: Database, path: str, scan: str) -> SourceError | None:
    """The first line of a CSV file that does not fit its header."""
    import duckdb

    if not scan.startswith("read_csv"):
        return None
    connection = database.connection()
    try:
        connection.execute(f"SELECT {EVERY_VALUE} FROM {scan[:-1]}, store_rejects = true)").fetchall()
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


def damaged(path: str, error: Exception) -> SourceError:
    """What to say of a file that its reader gives up."""
    return SourceError(f"{path}: the file is damaged or not what its name says: {reason(error)}")


# --- the first line ------------------------------------------------------------------------------------------


def _header(path: str) -> tuple[str, list[str]]:
    """The separator that the first line has most of, and the names it separates.

    Raises:
        SourceError: there is no such line, or this is no CSV file.
        ColumnError: two columns have one name.
    """
    head = _head(path)
    if problem := _no_csv(head):
        what, hint = problem
        raise SourceError(f"{path}: {what}", hint=hint)
    line = _first_line(path, head)
    delimiter = max(",;\t|", key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SourceError(f"{path}: line 1 is no header: {error}", hint="give each column a name") from error
    if len(names) > _MOST_COLUMNS:
        raise SourceError(
            f"{path}: {len(names):,} columns, and a CSV file may have {_MOST_COLUMNS:,}",
            hint="write Parquet, with what belongs together as a list",
        )
    names = [name if name.strip() else f"column{place}" for place, name in enumerate(names)]
    refuse_twins(path, names)
    return delimiter, names


def _head(path: str) -> bytes:
    try:
        with (gzip.open if path.lower().endswith(".gz") else open)(path, "rb") as file:
            return file.read(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error


def _no_csv(head: bytes) -> tuple[str, str] | None:
    """What a file is that is no CSV file, by its first bytes, and a hint."""
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            return f"this is {what}, not CSV", "unpack it, or give it the name of what it is"
    if head.startswith(_UTF16) or head[1:2] == b"\0" or head[:1] == b"\0":
        return "the text is UTF-16 or binary, not UTF-8", "convert it: iconv -f UTF-16 -t UTF-8"
    if b"\0" in head:
        return "it holds bytes of value 0: this is no text", "write the events as CSV in UTF-8"
    if b"\r" in head and b"\n" not in head:
        return "lines end in \\r alone, as on old Macs", "convert it: tr '\\r' '\\n'"
    return None


def _first_line(path: str, head: bytes) -> str:
    line, end, _ = head.partition(b"\n")
    if not end and len(head) == _HEAD:
        raise SourceError(f"{path}: line 1 has more than {_HEAD:,} bytes", hint="a header names the columns")
    try:
        text = line.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: the header is not UTF-8: byte {error.object[error.start]:#04x} at {error.start + 1}",
            hint="convert the file: iconv -f LATIN1 -t UTF-8",
        ) from error
    if text.strip():
        return text
    if not head.strip():
        raise SourceError(f"{path}: the file is empty ({os.path.getsize(path)} bytes)")
    raise SourceError(f"{path}: line 1 is blank", hint="the first line names the columns")


def refuse_twins(place: str, names: Collection[str]) -> None:
    """Refuse names that differ by nothing, or by case alone.

    Raises:
        ColumnError: there are such names.
    """
    first: dict[str, str] = {}
    for name in names:
        if twin := first.get(name.lower()):
            alike = f"'{twin}'" if twin == name else f"'{twin}' and '{name}'"
            raise ColumnError(f"{place}: two columns are named {alike}", hint="rename one of them")
        first[name.lower()] = name
