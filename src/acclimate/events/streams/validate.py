"""Records to rows that learners can take, one by one: whoever is refused does not keep the others waiting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import IntArray
from acclimate.artifacts import Events, TableSource
from acclimate.config import EntityTable, Schema
from acclimate.errors import ConfigError
from acclimate.events.database import Database
from acclimate.events.files import POSITION, open_rows
from acclimate.events.sources import read_events
from acclimate.events.streams.parse import Refused, parsed
from acclimate.events.streams.values import Part, accepted, usual_type
from acclimate.features.codes import flat

_INDEX = "acclimate.index"


@dataclass(frozen=True)
class Validated:
    """What came of some records.

    ``events`` are the good ones, as :func:`acclimate.read_events` gives them; ``index`` ``(n,)`` says which of
    the records each of their rows was, ``event_ids`` ``(n,)`` what it is known by, where a column of such ids is
    named.
    """

    events: Events
    index: IntArray
    refused: tuple[Refused, ...]
    event_ids: Any = None

    @property
    def rows(self) -> pa.Table:
        """The rows of the events."""
        return self.events.table()


class Validator:
    """Reads records of JSON objects as events of a schema; refuses those that it cannot.

    The type of a column never depends on what happens to be in a batch: it follows from the part that the schema
    gives to the column or, where that leaves it open, from ``types`` or from the first values that came. Of a
    column that held numbers, a text is refused, as in a file.

    Args:
        schema: what the columns mean. Its tables are loaded here, once.
        features: those that learners use besides the ones that the schema declares; other columns are ignored.
        types: columns as they were before, such as ``events.source.columns()`` of those that a model was fitted
            on, or :attr:`types` of an earlier validator.
        event_id: a column of ids that tell events apart.

    Raises:
        DataError: a table cannot be read.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        features: Iterable[str] = (),
        types: pa.Schema | None = None,
        event_id: str | None = None,
    ) -> None:
        self._schema, self._event_id = schema, event_id
        self._tables = {name: _loaded(table, name) for name, table in schema.tables.items()}
        self._parts = _parts(schema, features, event_id)
        known: dict[str, Any] = {
            schema.entities.get(name, table.key): table.source.schema.field(table.key).type
            for name, table in self._tables.items()
        }
        known |= {field.name: field.type for field in types or ()}
        self._types = {
            part.column: usual_type(part, known.get(part.column), schema.time.unit) for part in self._parts
        }

    @property
    def types(self) -> pa.Schema:
        """The columns as they have been settled so far; null where no value has come yet."""
        return pa.schema(list(self._types.items()))

    def __call__(self, records: Sequence[bytes]) -> Validated:
        """The events of some records, in the order of time, then entities, then place.

        Raises:
            ColumnError: the key of a table is of another type than that of the events.
        """
        table, index, refused = parsed(records, self._parts, self._types, self._schema.time.unit)
        table, good, reasons = accepted(table, self._parts, self._schema, self._types)
        refused += [Refused(int(index[row]), reason) for row, reason in reasons]
        index = index[good]
        order = _order(table, list(dict.fromkeys([self._schema.time.column, *self._schema.entities.values()])))
        if order is not None:
            table, index = table.take(order), index[order]
        if self._schema.duplicates == "drop":
            table, index = _distinct(table, index)
        if self._tables and len(index):
            table, index = self._joined(table, index)
        ids = None if self._event_id is None else flat(table[self._event_id])
        events = Events(self._schema, TableSource(self._schema, table))
        return Validated(events, index, tuple(sorted(refused, key=lambda r: r.index)), ids)

    def _joined(self, table: pa.Table, index: IntArray) -> tuple[pa.Table, IntArray]:
        """With the columns of the tables."""
        time = replace(self._schema.time, unit=None)
        schema = replace(self._schema, time=time, tables=self._tables, duplicates="keep")
        joined = read_events(table.append_column(_INDEX, pa.array(index)), schema).table()
        return joined.drop(_INDEX), joined[_INDEX].to_numpy()


def _loaded(table: EntityTable, name: str) -> EntityTable:
    """The table with its rows in memory."""
    database = Database("1GB")
    rows = open_rows(database, table.source, f"table '{name}'", ids=[table.key])
    frame = database.query(f"SELECT * EXCLUDE ({POSITION}) FROM {rows.sql} ORDER BY {POSITION}").to_arrow_table()
    return replace(table, source=frame)


def _parts(schema: Schema, features: Iterable[str], event_id: str | None) -> list[Part]:
    """The columns that are read, each with the part it plays; in the order in which their values are judged."""
    parts = {schema.time.column: Part(schema.time.column, "time")}
    parts |= {column: Part(column, "id") for column in schema.entities.values()}
    if event_id is not None:
        if event_id in parts:
            raise ConfigError(f"column '{event_id}' cannot tell events apart: it is the time or an entity")
        parts[event_id] = Part(event_id, "id")
    parts |= {name: Part(name, "label", schema.label_kind(name)) for name in schema.labels}
    for role in ("weight", "offset", "truth"):
        if column := getattr(schema, role):
            parts[column] = Part(column, role, "number" if schema.label_kinds else "binary")
    for name, table in schema.tables.items():
        column = schema.entities.get(name, table.key)
        parts.setdefault(column, Part(column, "key"))
    declared = [name for name, feature in schema.features.items() if not feature.of]
    for name in dict.fromkeys([*declared, *_simple(schema, features)]):
        (column,) = schema.feature_columns(name)
        if column.partition(".")[0] not in schema.tables:
            parts.setdefault(column, Part(column, "feature", feature=schema.feature(name)))
    return list(parts.values())


def _simple(schema: Schema, features: Iterable[str]) -> list[str]:
    """The features that these are made of, crosses resolved."""
    return [
        part
        for name in features
        for part in (_simple(schema, schema.feature(name).of) if schema.feature(name).of else [name])
    ]


def _order(table: pa.Table, keys: list[str]) -> IntArray | None:
    """Rows by these keys, then as they are; ``None`` where they are so already."""
    times = table[keys[0]].cast(pa.int64()).to_numpy()
    if np.all(times[1:] > times[:-1]):
        return None
    order = np.argsort(times, kind="stable")
    sorted_times = times[order]
    if np.all(sorted_times[1:] > sorted_times[:-1]):
        return order
    return pc.sort_indices(table.select(keys), [(key, "ascending") for key in keys]).to_numpy().astype(np.int64)


def _distinct(table: pa.Table, index: IntArray) -> tuple[pa.Table, IntArray]:
    """Of equal rows the one whose record was first."""
    place: dict[str, int] = {}
    for row, values in enumerate(table.to_pylist()):
        place.setdefault(repr(values), row)
    kept = np.array(list(place.values()), np.int64)
    return table.take(kept), index[kept]
