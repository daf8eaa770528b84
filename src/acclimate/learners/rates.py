"""Plain baselines: the rate of positive rows, or the mean of another label, over all or of each entity."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import ArrowArray, BoolArray, FloatArray, IdArray
from acclimate.artifacts import Events
from acclimate.config import LABEL_KINDS, GlobalRateParameters, RateParameters, Schema
from acclimate.features import codes_of, has_id, id_type, ids_as, ids_as_arrow
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.batch import ids_in
from acclimate.learners.entities import IdIndex, with_room
from acclimate.learners.gate import check_size
from acclimate.storage import Stored


@dataclass(frozen=True)
class RateState:
    """What all entities share: all rows and positives by weight, and the type in which ids are kept, once seen."""

    label: str
    contract: dict[str, Any]
    cut: int
    rows: float = 0.0
    positives: float = 0.0
    ids: str | None = None

    @property
    def rate(self) -> float:
        """The rate over all rows, with half a row of each label added (Jeffreys): 1/2 without any.

        Of numbers and counts their mean, 0 without any.
        """
        if self.contract.get("label_kinds", {}).get(self.label, "binary") == "binary":
            return (self.positives + 0.5) / (self.rows + 1.0)
        return self.positives / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class RateInfo:
    """How many ``rows`` the last fit or update counted."""

    rows: int


class Counts:
    """Rows and positives by weight of each entity; the cost of an update follows what it touches."""

    def __init__(self, ids: IdArray | None = None, rows: FloatArray | None = None, positives: Any = None) -> None:
        self.index = IdIndex(ids)
        self._rows = np.zeros(0) if rows is None else rows
        self._positives = np.zeros(0) if positives is None else positives

    @property
    def rows(self) -> FloatArray:
        """Of each entity, ``(n,)``."""
        return self._rows[: len(self.index)]

    @property
    def positives(self) -> FloatArray:
        """Of each entity, ``(n,)``."""
        return self._positives[: len(self.index)]

    def add(self, ids: IdArray, rows: FloatArray, positives: FloatArray) -> None:
        """Count more of these ids, all ``(t,)``."""
        known, numbers = len(self.index), self.index.admit(ids)
        self._rows, self._positives = (with_room(a, len(self.index)) for a in (self._rows, self._positives))
        self.rows[known:], self.positives[known:] = 0.0, 0.0
        self._rows[numbers] += rows
        self._positives[numbers] += positives

    def take(self, ids: IdArray) -> tuple[FloatArray, FloatArray]:
        """Rows and positives of these ids, 0 of unknown ones."""
        numbers = self.index.numbers(ids)
        known, rows, positives = numbers >= 0, np.zeros(len(ids)), np.zeros(len(ids))
        rows[known], positives[known] = self._rows[numbers[known]], self._positives[numbers[known]]
        return rows, positives


def count(events: Events, before: RateState, column: str | None) -> tuple[RateState, Counts, RateInfo]:
    """Count events: what all share then, the rows of each entity (of none without its ``column``), and how many.

    Raises:
        MismatchError: ids cannot be of the type of those counted before.
        RowError: a weight is beyond what can be computed with.
    """
    schema, state, counts, total = events.schema, before, Counts(), 0
    wanted = (schema.time.column, state.label, column, schema.weight)
    for batch in events.reader(list(dict.fromkeys(name for name in wanted if name is not None))):
        known = batch.filter(pc.is_valid(batch[state.label]))
        if not known.num_rows:
            continue
        y = known[state.label].cast(pa.float64()).to_numpy()
        weight = np.ones(len(y)) if schema.weight is None else known[schema.weight].to_numpy()
        time = known[schema.time.column].cast(pa.int64()).to_numpy()
        check_size("weight", weight, time)
        total += len(y)
        state = replace(
            state,
            cut=max(state.cut, int(time.max())),
            rows=state.rows + float(weight.sum()),
            positives=state.positives + float(weight @ y),
        )
        if column is not None:
            codes, distinct = codes_of(known[column])
            state = replace(state, ids=state.ids or id_type(distinct.type))
            rows, positives = np.bincount(codes, weight), np.bincount(codes, weight * y)
            ids = _ids(distinct, state, column)
            counted = has_id(ids)
            counts.add(ids[counted], rows[counted].astype(np.float64), positives[counted].astype(np.float64))
    return state, counts, RateInfo(total)


def _ids(ids: ArrowArray, state: RateState, column: str) -> IdArray:
    return ids_as(ids, state.ids or id_type(ids.type), f"column '{column}'", missing=True)


class _Counting(Fitted[RateState]):
    """What the two have in common: ``counts`` holds what is of each entity."""

    def __init__(self) -> None:
        self.state: RateState | None = None
        self.info: RateInfo | None = None
        self.counts = Counts()

    @abstractmethod
    def _column(self, events: Events) -> str | None:
        """The column of the entities that are counted."""

    def fit(self, events: Events) -> Self:
        """Count these events alone.

        Raises:
            ConfigError: the schema has no such label or entity.
        """
        schema = events.schema
        nothing = self._nothing(schema)
        self.state, self.counts, self.info = count(events, nothing, self._column(events))
        return self

    def update(self, events: Events) -> Self:
        """Count these events too.

        Raises:
            NotFittedError: ``fit`` comes first.
            MismatchError: the events are of another schema than those it was fitted on.
        """
        self.state, new, self.info = count(events, self._fitted(events.schema), self._column(events))
        self.counts.add(new.index.ids(), new.rows, new.positives)
        return self

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would; there are no coefficients to count.

        Raises:
            ConfigError: the schema has no such label or entity.
        """
        count(events, self._nothing(events.schema), self._column(events))
        return {}

    def _nothing(self, schema: Schema) -> RateState:
        return RateState(schema.label(self.parameters.label, kinds=LABEL_KINDS), schema.content(), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the counts; of each entity its id, rows and positives."""
        self._fitted()
        return 16 + 24 * len(self.counts.index)

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:
        """See :meth:`acclimate.learners.base.Fitted.known`."""
        state, column = self._fitted(), self._column(events)
        if column is None:
            return {}
        ids = ids_in(events, [column], state.ids, f"column '{column}'")
        return {column: (ids, self.counts.index.numbers(ids) >= 0)}

    def shared(self) -> Packed:
        """The rate of all; see :meth:`acclimate.learners.base.Fitted.shared`."""
        state = self._fitted()
        return Packed({"rows": state.rows, "positives": state.positives})

    def _packed(self, state: RateState) -> Packed:
        shared = {"rows": state.rows, "positives": state.positives, "ids": state.ids}
        if state.ids is None:  # no entity was seen, or none is counted
            return Packed(shared)
        return Packed(
            shared,
            {"rows": self.counts.rows, "positives": self.counts.positives},
            {"ids": pa.table({"id": ids_as_arrow(self.counts.index.ids(), state.ids)})},
        )

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self.state = RateState(**known, **{name: stored.manifest[name] for name in ("rows", "positives", "ids")})
        if self.state.ids is None:
            return
        ids: Any = stored.tables["ids"]["id"].combine_chunks()
        rows, positives = stored.arrays["rows"], stored.arrays["positives"]
        if not rows.shape == positives.shape == (len(ids),):
            raise ValueError(f"{len(ids)} ids, rows {rows.shape} and positives {positives.shape}")
        self.counts = Counts(ids_as(ids, self.state.ids, "the table of ids"), rows, positives)
        if len(self.counts.index) != len(ids):
            raise ValueError(f"{len(ids) - len(self.counts.index)} ids are there twice")


class GlobalRate(_Counting):
    """The rate of positive rows, or the mean of numbers and counts, said of every row.

    Its arguments are the fields of :class:`acclimate.config.GlobalRateParameters`.
    """

    kind: ClassVar[str] = "global-rate"

    @declared_by(GlobalRateParameters)
    def __init__(self, parameters: GlobalRateParameters) -> None:
        super().__init__()
        self.parameters: GlobalRateParameters = parameters

    def predict(self, events: Events) -> FloatArray:
        """The rate, once per row ``(n,)``; raises as :meth:`update`."""
        rate = self._fitted(events.schema).rate
        return np.full(sum(batch.num_rows for batch in events.reader([events.schema.time.column])), rate)

    def _column(self, events: Events) -> str | None:  # noqa: ARG002
        return None


class Rate(_Counting):
    """The rate of positive rows, or mean label, of each entity, smoothed towards that of all.

    ``(positives + prior_rows * rate) / (rows + prior_rows)``; an entity never seen has the rate of all. Its
    arguments are the fields of :class:`acclimate.config.RateParameters`.
    """

    kind: ClassVar[str] = "rate"

    @declared_by(RateParameters)
    def __init__(self, parameters: RateParameters) -> None:
        super().__init__()
        self.parameters: RateParameters = parameters

    def predict(self, events: Events) -> FloatArray:
        """The rate of each row's entity ``(n,)``; raises as :meth:`update`."""
        state, prior_rows = self._fitted(events.schema), self.parameters.prior_rows
        column = events.schema.entity_column(self.parameters.entity)
        parts = [np.zeros(0)]
        for batch in events.reader([column]):
            codes, distinct = codes_of(batch[column])
            rows, positives = self.counts.take(_ids(distinct, state, column))
            parts.append(((positives + prior_rows * state.rate) / (rows + prior_rows))[codes])
        return np.concatenate(parts)

    def _column(self, events: Events) -> str | None:
        return events.schema.entity_column(self.parameters.entity)
