"""The nouns of the flow: what one step hands to the next.

``Events`` go in, ``Posterior`` and ``EntityStates`` are what is learned, ``Report`` is what is found out.
"""

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from acclimate.config import Schema, duration_us
from acclimate.errors import ColumnError, ConfigError, nearest

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int64]
ArrowArray: TypeAlias = Any
"""An Arrow array of whatever type a column has."""

Instant: TypeAlias = str | dt.date | dt.datetime | int
"""A point in time: ISO text, a date or a datetime (without a zone: in the schema's), or microseconds UTC."""


@dataclass(frozen=True)
class Summary:
    """What :meth:`Events.describe` tells. Times in UTC; rates leave unknown labels out."""

    rows: int
    first: dt.datetime | None
    last: dt.datetime | None
    entities: dict[str, int]
    rates: dict[str, float | None]


class Source(Protocol):
    """Where events come from. ``start`` (inclusive) and ``end`` (exclusive) are microseconds UTC.

    ``scan`` checks every column that it hands out and converts it: time to ``timestamp[us, UTC]``, labels to
    ``int8`` with nulls, weight, offset and truth to ``float64``; columns of an entity table are named
    ``<table>.<column>``. Rows come in the order of time, then entities.
    """

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``."""
        ...

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        ...


@dataclass(frozen=True)
class Events:
    """Events of one schema within ``[start, end)``; nothing is read before it is asked for."""

    schema: Schema
    source: Source
    start: int | None = None
    end: int | None = None

    def before(self, time: Instant) -> "Events":
        """The events before ``time``, exclusive."""
        return self._narrowed(None, self._instant(time))

    def after(self, time: Instant) -> "Events":
        """The events at or after ``time``."""
        return self._narrowed(self._instant(time), None)

    def between(self, start: Instant, end: Instant) -> "Events":
        """The events in ``[start, end)``."""
        return self._narrowed(self._instant(start), self._instant(end))

    def windows(self, every: str, start: Instant | None = None, end: Instant | None = None) -> Iterator["Events"]:
        """Consecutive windows of length ``every`` (``"1d"``, ``"6h"``, ...), empty ones included.

        They begin at ``start`` (by default at midnight of the first event's day, in the schema's zone) and go on
        until the last event or ``end``. Windows of whole days follow the zone's calendar, so that a day on which
        clocks change is one window.
        """
        step = duration_us(every)
        begin, stop = self._span(start, end)
        for number in itertools.count():
            edge, following = self._edge(begin, step, number), self._edge(begin, step, number + 1)
            if edge >= stop:
                return
            yield self.between(edge, following if end is None else min(following, stop))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as one Arrow table, in the order of time; see :class:`Source` for the types.

        Raises:
            DataError: a file cannot be read, or a column or value is not allowed.
        """
        return self.reader(columns).read_all()

    def reader(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The same rows batch by batch, never all in memory."""
        return self.source.scan(self.source.columns().names if columns is None else columns, self.start, self.end)

    def head(self, rows: int = 5) -> pa.Table:
        """The first rows in the order of time."""
        time = self.schema.time.column
        with self.reader([time]) as reader:
            instants = (t for batch in reader for t in batch[time].cast(pa.int64()).to_numpy())
            first = list(itertools.islice(instants, rows))
        return self.before(int(first[-1]) + 1 if first else 0).table().slice(0, rows)

    def describe(self) -> Summary:
        """Rows, first and last time, distinct entities, label rates."""
        return self.source.describe(self.start, self.end)

    def cached(self) -> "Events":
        """The same events, read once and held in memory."""
        return Events(self.schema, TableSource(self.schema, self.table()))

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.schema.time.zone)

    def _instant(self, time: Instant) -> int:
        if isinstance(time, int):
            return time
        if isinstance(time, str):
            try:
                time = dt.datetime.fromisoformat(time)
            except ValueError as error:
                raise ConfigError(f"'{time}' is no time", hint="write 2022-04-25 or 2022-04-25T18:00") from error
        if not isinstance(time, dt.datetime):
            time = dt.datetime.combine(time, dt.time())
        return _microseconds(time if time.tzinfo else time.replace(tzinfo=self._zone))

    def _span(self, start: Instant | None, end: Instant | None) -> tuple[int, int]:
        """What windows cover, from the events where it is not said."""
        if start is not None and end is not None:
            return self._instant(start), self._instant(end)
        summary = self.describe()
        if summary.first is None or summary.last is None:
            return 0, 0
        first = summary.first.astimezone(self._zone).date() if start is None else start
        return self._instant(first), _microseconds(summary.last) + 1 if end is None else self._instant(end)

    def _edge(self, begin: int, step: int, number: int) -> int:
        """Where the window of that number begins.

        Counted from the first one: a midnight that a change of clocks leaves out must not move those after it.
        """
        days, rest = divmod(step, duration_us("1d"))
        if rest or not number:
            return begin + number * step
        local = (_EPOCH + dt.timedelta(microseconds=begin)).astimezone(self._zone).replace(tzinfo=None)
        return _microseconds((local + dt.timedelta(days=days * number)).replace(tzinfo=self._zone))

    def _narrowed(self, start: int | None, end: int | None) -> "Events":
        starts = [t for t in (self.start, start) if t is not None]
        ends = [t for t in (self.end, end) if t is not None]
        return replace(self, start=max(starts, default=None), end=min(ends, default=None))


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _microseconds(time: dt.datetime) -> int:
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


@dataclass(frozen=True)
class TableSource:
    """Events in memory: a table as :meth:`Events.table` gives it, checked and in the order of time."""

    schema: Schema
    rows: pa.Table

    def columns(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.rows.schema

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        """The rows in ``[start, end)``; no copy is made.

        Raises:
            ColumnError: there is no such column.
        """
        if unknown := [name for name in columns if name not in self.rows.column_names]:
            raise ColumnError(f"no column '{unknown[0]}'", hint=nearest(unknown[0], self.rows.column_names))
        return self._between(start, end).select(list(columns)).to_reader()

    def describe(self, start: int | None, end: int | None) -> Summary:
        """See :meth:`Events.describe`."""
        rows = self._between(start, end)
        times = pc.min_max(rows[self.schema.time.column])
        return Summary(
            rows=rows.num_rows,
            first=times["min"].as_py(),
            last=times["max"].as_py(),
            entities={c: pc.count_distinct(rows[c]).as_py() for c in self.schema.entities.values()},
            rates={c: pc.mean(rows[c]).as_py() for c in self.schema.labels},
        )

    def _between(self, start: int | None, end: int | None) -> pa.Table:
        times = self.rows[self.schema.time.column].cast(pa.int64()).to_numpy()
        first = 0 if start is None else int(np.searchsorted(times, start))
        last = len(times) if end is None else int(np.searchsorted(times, end))
        return self.rows.slice(first, max(last - first, 0))


class Learner(Protocol):
    """The contract of everything that can be replayed.

    ``fit`` learns from scratch and forgets what was; ``update`` learns from new events alone; ``predict`` changes
    nothing and returns one probability per row, ``(n,)``, in the order of ``events.table()``.
    """

    def fit(self, events: Events) -> Any:
        """Learn from these events alone."""
        ...

    def update(self, events: Events) -> Any:
        """Learn from these events what is new in them."""
        ...

    def predict(self, events: Events) -> FloatArray:
        """Probabilities of the label, ``(n,)``."""
        ...


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the coefficients of one block, or of many entities' blocks of one shape.

    ``mean`` is ``(d,)`` with ``precision`` ``(d, d)`` (full) or ``(d,)`` (diagonal); for ``n`` entities
    ``(n, d)`` with ``(n, d, d)`` or ``(n, d)``. Precision is the inverse of the covariance, in raw feature units.
    """

    mean: FloatArray
    precision: FloatArray

    def __post_init__(self) -> None:
        mean, precision = np.asarray(self.mean, np.float64), np.asarray(self.precision, np.float64)
        if mean.ndim not in (1, 2) or precision.shape not in (mean.shape, (*mean.shape, mean.shape[-1])):
            raise ConfigError(
                f"a posterior of mean {mean.shape} cannot have a precision of shape {precision.shape}",
                hint="mean (d,) goes with precision (d, d) or (d,); mean (n, d) with (n, d, d) or (n, d)",
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)

    @property
    def is_full(self) -> bool:
        """Whether the precision is a matrix per block rather than its diagonal."""
        return self.precision.ndim > self.mean.ndim

    def covariance(self) -> FloatArray:
        """The covariance: ``(..., d, d)``, or the variances ``(..., d)`` of a diagonal posterior."""
        return np.linalg.inv(self.precision) if self.is_full else 1.0 / self.precision

    def standard_deviation(self) -> FloatArray:
        """Marginal standard deviations of the coefficients, shaped as ``mean``."""
        covariance = self.covariance()
        return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1) if self.is_full else covariance)


@dataclass(frozen=True)
class EntityStates:
    """The small states: one posterior per entity, with what forgetting by time needs.

    ``ids``: Arrow array ``(n,)``; ``posterior``: of ``n`` entities; ``touched``: ``(n,)``, microseconds UTC of
    the last event learned; ``rows``: ``(n,)``, the events learned so far.
    """

    ids: ArrowArray
    posterior: Posterior
    touched: IntArray
    rows: IntArray

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.posterior.mean, self.posterior.precision, self.touched, self.rows)
        return int(self.ids.nbytes) + sum(a.nbytes for a in arrays)


# --- what a replay finds out: each record is one table of metrics.json -------------------------------------


@dataclass(frozen=True)
class Quality:
    """How well probabilities match labels. ``None``: not defined on these rows (one class only, say).

    ``auc`` over all rows; ``gauc`` the mean AUC within each entity and window, weighted by rows; ``log_loss``
    in nats a row; ``normalized_entropy`` log-loss over that of the base rate; ``calibration_error`` the mean
    distance of predicted to observed rate over bins of equal size; ``ndcg`` of each entity's rows of a window,
    cut at the replay's ``k``; ``regret`` the expected excess log-loss over the true probabilities, in nats a
    row, where the events carry them.
    """

    rows: int
    auc: float | None
    gauc: float | None
    log_loss: float | None
    normalized_entropy: float | None
    calibration_error: float | None
    ndcg: float | None
    regret: float | None


@dataclass(frozen=True)
class Cost:
    """What an arm spent: wall seconds by verb, rows it read to learn, bytes it keeps, the process's peak.

    ``peak_bytes`` is the high-water mark of the whole process up to then, so it is shared by the arms.
    """

    fit_seconds: float
    update_seconds: float
    predict_seconds: float
    rows_read: int
    state_bytes: int | None
    peak_bytes: int


@dataclass(frozen=True)
class ArmResult(Quality, Cost):
    """One arm over all windows.

    ``fit_seconds`` is the first fit; ``seconds`` and ``rows_read`` are what all windows took after it.
    ``within`` holds, per column asked for, the AUC within each of its values, weighted by rows.
    """

    seconds: float
    within: dict[str, float | None]


@dataclass(frozen=True)
class WindowResult(Quality, Cost):
    """One arm in one window ``[start, end)`` (ISO 8601, schema's zone): predict first, then learn."""

    arm: str
    start: str
    end: str
    seconds: float


@dataclass(frozen=True)
class CohortResult(Quality):
    """One arm on the rows of entities with a given number of events before the window."""

    arm: str
    cohort: str


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of one arm with neighbouring predictions: mean predicted and observed rate."""

    arm: str
    rows: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Comparison:
    """``arm`` minus ``against`` in ``metric``, with a 95 % interval from a paired bootstrap over entities."""

    arm: str
    against: str
    metric: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Weight:
    """One coefficient of the fixed effect at the end: mean and standard deviation, raw feature units."""

    arm: str
    name: str
    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class TracePoint:
    """One coefficient of the followed entity after one window was learned."""

    arm: str
    entity: str
    id: str
    time: str
    name: str
    mean: float
    standard_deviation: float
    rows: int


@dataclass(frozen=True)
class Report:
    """All that a replay found out; ``evaluate.report`` writes it as ``metrics.json`` and ``report.html``.

    ``settings``: label, start, every, end, zone, label_delay, ndcg_at, resamples, seed, entity, baseline_rate.
    """

    name: str
    settings: dict[str, Any]
    arms: dict[str, ArmResult]
    windows: list[WindowResult]
    cohorts: list[CohortResult]
    calibration: list[CalibrationBin]
    comparisons: list[Comparison]
    weights: list[Weight]
    trace: list[TracePoint]
