"""Entity tables beside a stream: read and checked once, then looked up for each batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import IntArray
from acclimate.config import Schema, TimeColumn
from acclimate.events import checks
from acclimate.events.database import Database
from acclimate.events.files import POSITION, open_rows, quoted
from acclimate.events.sources import read_events
from acclimate.features.codes import flat

_EVENT, _LABEL = "acclimate.time", "acclimate.label"


@dataclass(frozen=True, eq=False)
class Join:
    """An entity table of ``n`` rows in the order of their keys and then times.

    ``by`` is the column of the events that has the key, ``columns`` are those of the table, named
    ``<table>.<column>``, and ``keys`` the distinct keys, ``(k,)``. ``places`` ``(n,)`` rise with the rows: the
    number of the key, and then that, from 1, of the time since when the row is in force, which is one of the
    ``instants`` ``(t,)``; 0 without such a time.
    """

    by: str
    columns: pa.Table
    keys: Any
    places: IntArray
    instants: IntArray
    numbers: dict[str, int]

    @property
    def key_type(self) -> Any:
        """``int64`` or ``string``."""
        return self.keys.type

    def joined(self, events: pa.Table, time: str) -> pa.Table:
        """The events with the columns of the table: of each the row in force then, nulls where there is none."""
        width = len(self.instants) + 1
        code = self._codes(flat(events[self.by]))
        now = np.searchsorted(self.instants, events[time].cast(pa.int64()).to_numpy(), side="right")
        row = np.searchsorted(self.places, code * width + now, side="right") - 1
        known = (code >= 0) & (row >= 0)
        known[known] = self.places[row[known]] // width == code[known]
        taken: Any = pa.array(row, mask=~known)
        rows = self.columns.take(taken)
        for name in rows.column_names:
            events = events.append_column(name, rows[name])
        return events

    def _codes(self, ids: Any) -> IntArray:
        """The number of each key, -1 for those that the table does not know."""
        if pa.types.is_string(self.key_type):
            return np.array([self.numbers.get(key, -1) for key in ids.to_pylist()], np.int64)
        values = ids.fill_null(0).to_numpy(zero_copy_only=False)
        known: Any = self.keys.to_numpy()
        code = np.searchsorted(known, values)
        inside = code < len(known)
        same = (
            inside & (known[np.where(inside, code, 0)] == values) & ids.is_valid().to_numpy(zero_copy_only=False)
        )
        return np.where(same, code, -1)


def load_join(schema: Schema, name: str) -> Join:
    """The table of that name, checked as :func:`acclimate.read_events` does.

    It is read as the table of events of which there is one for each of its rows.

    Raises:
        DataError: it cannot be read, has no such key, or several rows for one.
    """
    table = schema.tables[name]
    database = Database("1GB")
    rows = open_rows(database, table.source, f"table '{name}'", ids=[table.key])
    role = f"the key of table '{name}'"
    parts = {table.key: checks.ids(rows, table.key, role).sql}
    since = checks.clock(rows, table.time, role).optional.sql if table.time else None
    parts[_EVENT] = since or f"make_timestamptz({checks.FIRST})"
    listed = ", ".join(f"{sql} AS {quoted(column)}" for column, sql in parts.items())
    events = database.query(f"SELECT {listed}, NULL AS {quoted(_LABEL)} FROM {rows.sql} ORDER BY {POSITION}")
    columns = {n: f for n, f in schema.features.items() if not f.of and (f.column or n).startswith(f"{name}.")}
    alone = Schema(TimeColumn(_EVENT), {name: table.key}, _LABEL, features=columns, tables={name: table})
    read = read_events(events.to_arrow_table(), alone)
    own = [column for column in read.source.columns().names if column.startswith(f"{name}.")]
    found = read.table([table.key, _EVENT, *own])
    found = found.take(pc.sort_indices(found, [(table.key, "ascending"), (_EVENT, "ascending")]))
    keys = flat(pc.unique(found[table.key]))
    instants = np.unique(found[_EVENT].cast(pa.int64()).to_numpy()) if table.time else np.zeros(0, np.int64)
    numbers = {key: number for number, key in enumerate(keys.to_pylist())} if pa.types.is_string(keys.type) else {}
    code = pc.index_in(found[table.key], value_set=keys).to_numpy().astype(np.int64)
    place = np.searchsorted(instants, found[_EVENT].cast(pa.int64()).to_numpy(), side="right")
    by = schema.entities.get(name, table.key)
    return Join(by, found.select(own), keys, code * (len(instants) + 1) + place, instants, numbers)
