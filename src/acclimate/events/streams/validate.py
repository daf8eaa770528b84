"""Records to rows that learners can take, one by one: whoever is refused does not keep the others waiting."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import IntArray
from acclimate.artifacts import Events, TableSource
from acclimate.config import Schema
from acclimate.errors import ColumnError, ConfigError
from acclimate.events.streams.joins import load_join
from acclimate.events.streams.parse import Refused, layouts, parsed, values_in
from acclimate.events.streams.values import Part, accepted, first_type, usual_type
from acclimate.features.codes import flat

_WHITE = b" \t\r\n"
_Types: TypeAlias = dict[str, pa.DataType]


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
    gives to the column or, where that leaves it open, from ``types`` or from the first record that was let in with
    a value there. Of a column that held numbers, a text is refused, as in a file. So records may be cut into
    batches anywhere, and another validator that begins with the :attr:`types` of this one goes on as it would.

    Args:
        schema: what the columns mean. Its tables are loaded here, once.
        features: those that learners use besides the ones that the schema declares; other columns are ignored.
        types: columns as they were before, such as ``events.source.columns()`` of those that a model was fitted
            on, or :attr:`types` of an earlier validator; see :func:`restored`.
        event_id: a column of ids that tell events apart.

    Raises:
        DataError: a table cannot be read, its key is of another type than that of the events, or a column of times
            became categories.
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
        table, index, refused = self._read_all([record.strip(_WHITE) for record in records])
        order = _order(table, list(dict.fromkeys([self._schema.time.column, *self._schema.entities.values()])))
        if order is not None:
            table, index = table.take(order), index[order]
        if self._schema.duplicates == "drop":
            table, index = _distinct(table, index)
        for join in self._joins:
            table = join.joined(table, self._schema.time.column)
        ids = None if self._event_id is None else flat(table[self._event_id])
        events = Events(self._schema, TableSource(self._schema, table))
        return Validated(events, index, tuple(refused), ids)

    def _read_all(self, records: Sequence[bytes]) -> tuple[pa.Table, IntArray, list[Refused]]:
        """The records up to the first that settles a type, then those up to the next such one, and so on."""
        sections: list[tuple[pa.Table, IntArray]] = []
        refused: list[Refused] = []
        reasons: dict[int, str] = {}
        start = 0
        for end, types in [*self._settled(records, reasons), (len(records), None)]:
            table, index, bad = self._read(records[start:end], self._types)
            sections.append((table, start + index))
            refused += [Refused(start + r.index, reasons.get(start + r.index, r.reason)) for r in bad]
            start, self._types = end, types or self._types
        table = pa.concat_tables([table for table, _ in sections], promote_options="default")
        return table, np.concatenate([index for _, index in sections]), refused

    def _settled(self, records: Sequence[bytes], reasons: dict[int, str]) -> Iterator[tuple[int, _Types]]:
        """Each record that settles types, and these from it on; ``reasons`` says why others could not."""
        types = self._types
        unknown = [part for part in self._parts if pa.types.is_null(types[part.column])]
        for place, record in enumerate(records):
            if not unknown:
                return
            values = values_in(record, [part.column for part in unknown])
            seen = {
                part.column: first_type(part, values[part.column]) for part in unknown if part.column in values
            }
            if all(map(pa.types.is_null, seen.values())):
                continue
            if bad := self._read([record], types | seen)[2]:
                reasons[place] = bad[0].reason
                continue
            types = types | seen
            unknown = [part for part in unknown if pa.types.is_null(types[part.column])]
            yield place, types

    def _read(self, records: Sequence[bytes], types: _Types) -> tuple[pa.Table, IntArray, list[Refused]]:
        """The records that are events by these types, in their order."""
        time = self._schema.time.column
        pieces, refused = parsed(records, layouts(types, time), time)
        tables: list[pa.Table] = []
        indices: list[IntArray] = []
        for table, index in pieces:
            rows, good, reasons = accepted(table, self._parts, self._schema, types)
            refused += [Refused(int(index[row]), reason) for row, reason in reasons]
            tables.append(rows)
            indices.append(index[good])
        table, index = pa.concat_tables(tables), np.concatenate(indices)
        refused.sort(key=lambda r: r.index)
        if np.any(index[1:] < index[:-1]):
            order = np.argsort(index)
            return table.take(order), index[order], refused
        return table, index, refused


def restored(kept: bytes | None, fitted: pa.Schema) -> pa.Schema:
    """The types to begin a validator with where one before it had others settled than the fit knew.

    Args:
        kept: ``validator.types.serialize().to_pybytes()`` of the earlier one, or ``None`` if there was none.
        fitted: the columns that a model was fitted on; they hold where the earlier one had seen no value.
    """
    if kept is None:
        return fitted
    settled = [field for field in pa.ipc.read_schema(pa.py_buffer(kept)) if not pa.types.is_null(field.type)]
    types = {field.name: field.type for field in fitted} | {field.name: field.type for field in settled}
    return pa.schema(list(types.items()))


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
