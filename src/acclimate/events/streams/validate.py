"""Records to rows that learners can take, one by one: whoever is refused does not keep the others waiting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import IntArray
from acclimate.artifacts import Events, TableSource
from acclimate.config import Schema
from acclimate.errors import ColumnError, ConfigError
from acclimate.events.streams.joins import load_join
from acclimate.events.streams.parse import Refused, parsed
from acclimate.events.streams.values import Part, accepted, usual_type
from acclimate.features.codes import flat


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
        DataError: a table cannot be read, or its key is of another type than that of the events.
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
        self._joins = [load_join(schema, name) for name in schema.tables]
        self._parts = _parts(schema, features, event_id)
        known: dict[str, Any] = {join.by: join.key_type for join in self._joins}
        known |= {field.name: field.type for field in types or ()}
        self._types = {
            part.column: usual_type(part, known.get(part.column), schema.time.unit) for part in self._parts
        }
        for join in self._joins:
            if (kind := self._types[join.by]) != join.key_type:
                raise ColumnError(
                    f"the key of a table is {join.key_type}, but '{join.by}' of the events is {kind}",
                    hint="convert one of them",
                )

    @property
    def types(self) -> pa.Schema:
        """The columns as they have been settled so far; null where no value has come yet."""
        return pa.schema(list(self._types.items()))

    def __call__(self, records: Sequence[bytes]) -> Validated:
        """The events of some records, in the order of time, then entities, then place."""
        table, index, refused = parsed(records, self._parts, self._types, self._schema.time.unit)
        table, good, reasons = accepted(table, self._parts, self._schema, self._types)
        refused += [Refused(int(index[row]), reason) for row, reason in reasons]
        index = index[good]
        order = _order(table, list(dict.fromkeys([self._schema.time.column, *self._schema.entities.values()])))
        if order is not None:
            table, index = table.take(order), index[order]
        if self._schema.duplicates == "drop":
            table, index = _distinct(table, index)
        for join in self._joins:
            table = join.joined(table, self._schema.time.column)
        ids = None if self._event_id is None else flat(table[self._event_id])
        events = Events(self._schema, TableSource(self._schema, table))
        return Validated(events, index, tuple(sorted(refused, key=lambda r: r.index)), ids)


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
