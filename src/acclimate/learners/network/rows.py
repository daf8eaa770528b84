"""Events as a network reads them, in memory or, where they do not fit, in files without a name."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Events
from acclimate.features import FieldRows, Layout
from acclimate.learners.batch import columns_of, read_tables
from acclimate.learners.gate import check_numbers, check_size


@dataclass(frozen=True)
class NetworkRows:
    """``n`` rows: what is read of each, and label, weight, offset and time; the latter ``(n,)``."""

    read: FieldRows
    label: FloatArray
    weight: FloatArray
    offset: FloatArray
    time: IntArray

    def __len__(self) -> int:
        return len(self.time)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """All arrays: what a training on these rows is known by."""
        read = self.read
        return (*(read.dense, read.cell, read.value, read.starts), *(getattr(self, name) for name in OF_ROWS))

    def scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and spread of each dense column ``(k,)``, by weight; a constant one has the spread 1."""
        share = self.weight / max(self.weight.sum(), 1e-300)
        centre = share @ self.read.dense
        spread = np.sqrt(share @ (self.read.dense - centre) ** 2)
        spread[~(spread > 1e-6 * np.abs(centre))] = 1.0
        return centre.astype(np.float32), spread.astype(np.float32)

    def at(self, rows: IntArray) -> "NetworkRows":
        """Only these rows, in this order."""
        columns = (self.label[rows], self.weight[rows], self.offset[rows], self.time[rows])
        return NetworkRows(self.read.at(rows), *columns)


def read_rows(
    events: Events, layout: Layout | None, features: tuple[str, ...], label: str
) -> tuple[NetworkRows, Layout | None]:
    """All rows whose label is known, and the layout with the names that they bring.

    Raises:
        ColumnError: a column's type does not go with a feature's kind.
        RowError: a weight, an offset or a feature is beyond what can be computed with.
    """
    store = RowStore(events.memory_limit)
    for piece, grown in _pieces(events, layout, features, label):
        store.add(piece)
        layout = grown
    return store.rows(), layout


def read_layout(events: Events, features: tuple[str, ...], label: str) -> Layout | None:
    """The layout alone; all rows are read and checked, and none is kept. Raises as :func:`read_rows`."""
    layout = None
    for _, layout in _pieces(events, None, features, label):  # noqa: B007 - the last one knows all names
        pass
    return layout


def _pieces(
    events: Events, layout: Layout | None, features: tuple[str, ...], label: str
) -> Iterator[tuple[NetworkRows, Layout]]:
    """The rows whose label is known piece by piece, and the layout with the names up to then."""
    for table in read_tables(events, columns_read(events, features, label), label):
        layout = layout or Layout.first(features, table, events.schema)
        read, layout = layout.read(table, events.schema, grow=True)
        piece = NetworkRows(read, *columns_of(table, events.schema, label))
        check_rows(piece, layout)
        yield piece, layout


def rows_by_piece(events: Events, layout: Layout) -> Iterator[NetworkRows]:
    """The rows piece by piece, their labels unread; names that are not known stay so."""
    for table in read_tables(events, columns_read(events, layout.features, None), None):
        read, _ = layout.read(table, events.schema, grow=False)
        rows = NetworkRows(read, *columns_of(table, events.schema, None))
        check_rows(rows, layout)
        yield rows


def columns_read(events: Events, features: tuple[str, ...], label: str | None) -> list[str]:
    """The columns of the events that a network reads."""
    schema = events.schema
    named = [schema.time.column, label, schema.weight, schema.offset]
    wanted = [*named, *(column for name in features for column in schema.feature_columns(name))]
    return list(dict.fromkeys(column for column in wanted if column is not None))


def check_rows(rows: NetworkRows, layout: Layout) -> None:
    """Ask that nothing in rows is beyond what can be computed with.

    Raises:
        RowError: a weight, an offset or a feature is.
    """
    check_size("weight", rows.weight, rows.time)
    check_size("offset", rows.offset, rows.time)
    check_numbers(layout.dense, rows.read.dense, rows.time)


# --- where rows lie -----------------------------------------------------------------------------------------


@dataclass
class _Column:
    """An array that grows at its end, in memory until it is told to go to a file."""

    parts: list[NDArray[Any]] = field(default_factory=list[NDArray[Any]])
    file: Any = None
    shape: tuple[int, ...] = ()
    dtype: Any = None

    def add(self, part: NDArray[Any]) -> None:
        self.shape = (self.shape[0] + len(part) if self.shape else len(part), *part.shape[1:])
        self.dtype = part.dtype
        if self.file is None:
            self.parts.append(part)
        else:
            part.tofile(self.file)

    def spill(self) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - it has no name: it goes with the last who holds it
            for part in self.parts:
                part.tofile(self.file)
            self.parts = []

    def array(self) -> NDArray[Any]:
        if self.file is None:
            parts, self.parts = self.parts, []  # they go, column by column
            return np.concatenate(parts)
        with self.file:  # the map holds it open
            self.file.flush()
            if not math.prod(self.shape):
                return np.empty(self.shape, self.dtype)
            return np.memmap(self.file, self.dtype, "r", shape=self.shape)


class RowStore:
    """Rows that are read piece by piece; beyond half of the limit, in bytes, they go to files."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.bytes, self.cells = limit, 0, 0
        self.columns = {name: _Column() for name in ("dense", "cell", "value", "starts", *OF_ROWS)}

    def add(self, piece: NetworkRows) -> None:
        """Rows that come after those so far."""
        read = piece.read
        starts = read.starts[:-1] + self.cells
        self.cells += len(read.cell)
        parts = {"dense": read.dense, "cell": read.cell, "value": read.value, "starts": starts}
        for name, part in {**parts, **{name: getattr(piece, name) for name in OF_ROWS}}.items():
            self.columns[name].add(part)
            self.bytes += part.nbytes
        if self.limit is not None and self.bytes > self.limit // 2:
            for column in self.columns.values():
                column.spill()

    def rows(self) -> NetworkRows:
        """All of them; nothing is added any more."""
        self.columns["starts"].add(np.array([self.cells]))
        arrays = {name: column.array() for name, column in self.columns.items()}
        read = FieldRows(*(arrays[name] for name in ("dense", "cell", "value", "starts")))
        return NetworkRows(read, *(arrays[name] for name in OF_ROWS))


OF_ROWS = ("label", "weight", "offset", "time")
