"""The columns of scikit-learn's ``X``: numbers and ids, and both as events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from acclimate.arrays import BoolArray, FloatArray
from acclimate.artifacts import Events
from acclimate.artifacts.events import TableSource
from acclimate.config import Feature, Schema, TimeColumn
from acclimate.errors import ColumnError, ConfigError, nearest
from acclimate.features import INTERCEPT, flat, id_type
from acclimate.features.codes import kept_as

Column: TypeAlias = str | int
"""By name, or by position from 0."""

Entities: TypeAlias = Sequence[Column] | Mapping[Column, Sequence[Column]]
"""Columns that hold ids; or these, and which columns have coefficients for each id."""

_TIME, _LABEL, _WEIGHT, _ROW = (f"acclimate.{part}" for part in ("time", "label", "weight", "row"))
"""Columns beside those of ``X``; the last is the one entity that a schema has to have, and is never read."""


@dataclass(frozen=True)
class Columns:
    """What the columns of ``X`` are.

    ``numbers``: the names of those that are features; ``random``: by name of one that holds ids, the features that
    have coefficients for each id.
    """

    names: tuple[str, ...]
    numbers: tuple[str, ...]
    random: dict[str, tuple[str, ...]]

    @staticmethod
    def declared(names: Sequence[str], entities: Entities) -> "Columns":
        """The columns of these names, some of which are entities.

        Raises:
            ConfigError: one is not there, or an entity is to have coefficients.
        """
        if isinstance(entities, str | int):
            raise ConfigError(f"entities={entities!r} is no list of columns", hint=f"write [{entities!r}]")
        slopes = entities if isinstance(entities, Mapping) else dict.fromkeys(entities, ())
        random = {
            _named(names, entity): tuple(_named(names, one) for one in features)
            for entity, features in slopes.items()
        }
        for entity, features in random.items():
            if ids := [one for one in features if one in random]:
                raise ConfigError(
                    f"'{ids[0]}' is to have coefficients for each '{entity}', and holds ids", hint="encode it"
                )
        numbers = tuple(name for name in names if name not in random)
        if INTERCEPT in numbers:
            raise ConfigError(f"column '{INTERCEPT}' of X has the name of the intercept", hint="rename it")
        return Columns(tuple(names), numbers, random)

    def split(self, X: Any) -> tuple[Any, dict[str, Any]]:
        """The numbers ``(n, numbers)`` as they are, and the ids by name, each ``(n,)``.

        Raises:
            ColumnError: a column has values of several types.
            MismatchError: ids are neither whole numbers nor texts.
            ValueError: there are no rows and columns.
        """
        if hasattr(X, "__arrow_c_stream__"):
            # An index of pandas comes along, behind the columns.
            table = _as_arrow(pa.table, X, "X").select(range(len(self.names))).rename_columns(list(self.names))
            ids = {name: _ids(table[name], name) for name in self.random}
            return table.select(self.numbers) if self.numbers else np.empty((table.num_rows, 0)), ids
        cells = X if isinstance(X, np.ndarray) else np.asarray(X, object)
        if cells.ndim != 2:
            raise ValueError(f"X is a {type(X).__name__}, and has no rows and columns: give an array or a frame")
        columns = {name: cells[:, self.names.index(name)] for name in self.random}
        of_pandas = partial(pa.array, from_pandas=True)  # NaN is missing
        ids = {name: _ids(_as_arrow(of_pandas, column, name), name) for name, column in columns.items()}
        return cells[:, [self.names.index(name) for name in self.numbers]], ids

    def events(
        self,
        numbers: FloatArray,
        ids: Mapping[str, Any],
        label: BoolArray | None = None,
        weight: FloatArray | None = None,
    ) -> Events:
        """Numbers ``(n, numbers)`` and ids as events, all of one moment; labels are not known without one."""
        n = len(numbers)
        columns: dict[str, Any] = {
            _TIME: pa.array(np.zeros(n, np.int64), pa.timestamp("us", "UTC")),
            _LABEL: pa.nulls(n, pa.int8()) if label is None else pa.array(label.astype(np.int8)),
            _WEIGHT: np.ones(n) if weight is None else weight,
        }
        table = pa.table({**columns, **dict(zip(self.numbers, numbers.T, strict=True)), **ids})
        # Declared one by one: a column may be called hour, and all of its values be whole numbers.
        features = {name: Feature(name, "numeric") for name in self.numbers}
        entities = {name: name for name in self.random} or {_ROW: _ROW}
        schema = Schema(TimeColumn(_TIME), entities, [_LABEL], weight=_WEIGHT, features=features)
        return Events(schema, TableSource(schema, table))


def _named(names: Sequence[str], column: Column) -> str:
    if isinstance(column, str) and column in names:
        return column
    if isinstance(column, int | np.integer) and -len(names) <= column < len(names):
        return names[column]
    hint = nearest(column, names) if isinstance(column, str) else f"there are {len(names)}, from 0"
    raise ConfigError(f"X has no column {column!r}", hint=hint)


def _as_arrow(convert: Callable[[Any], Any], values: Any, name: str) -> Any:
    """What Arrow makes of values."""
    try:
        return convert(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ColumnError(
            f"column '{name}' has values of several types: {error}", hint="bring them to one"
        ) from error


def _ids(column: Any, name: str) -> Any:
    """Ids as events have them: whole numbers or texts, null where missing."""
    values: Any = flat(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return kept_as(values, id_type(values.type), f"'{name}'")
