"""Prequential replay: in each window every arm predicts first and learns afterwards.

All arms go through the events in one pass and are asked the same questions. Labels and the truth are hidden from
``predict``; what was said and what came true is kept aside, and measured once at the end.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from acclimate.arrays import FloatArray
from acclimate.artifacts import ArmResult, Cost, Events, Instant, Report, TableSource, WindowDrift, WindowResult
from acclimate.config import LABEL_KINDS, LabelKind, NdcgAt, checked
from acclimate.errors import ConfigError, DataError, nearest
from acclimate.evaluate.arms import Arm, HasEntityPosterior, Run, first_fits, spent
from acclimate.evaluate.metrics import row_log_loss
from acclimate.evaluate.outcome import Outcome, columns_kept, outcome
from acclimate.evaluate.regression import row_deviance
from acclimate.times import check_span, duration_us, instant, utc

_MOST_WINDOWS = 20_000
Phase = Literal["fit", "predict", "learn", "compare"]


@dataclass(frozen=True)
class Progress:
    """What begins. ``window`` counts from 1 to ``windows``, and is 0 in the first fits; comparing is of no arm."""

    arm: str
    window: int
    windows: int
    phase: Phase


class Losses(NamedTuple):
    """What a window has shown: of each arm the loss summed over the labelled rows, and their ``weight``.

    It is the log-loss; of numbers the squared error, of counts the deviance.
    """

    window: int
    sums: dict[str, float]
    weight: float


def replay(
    arms: Sequence[Arm],
    events: Events,
    *,
    start: Instant,
    every: str = "1d",
    end: Instant | None = None,
    label: str | None = None,
    label_delay: str | None = None,
    ndcg_at: int = 10,
    within: Sequence[str] = (),
    follow: str | int | None = None,
    name: str = "replay",
    on_progress: Callable[[Progress], None] | None = None,
    on_window: Callable[[Losses], None] | None = None,
) -> Report:
    """Predict, then learn, window by window, and measure every arm.

    Learners are copied, never changed. Arms that hold the same learner object share one first fit, on the events
    before ``start``. Rows whose label is null are passed to the learners and left out of every metric. Metrics are
    those of the kind of label: of 0 and 1, of numbers, of counts. Row weights
    count in all metrics but nDCG. A window's events are read once for all arms; what reading those to learn from
    took is part of ``update_seconds`` of each incremental arm, as a retrained one reads its own.

    Args:
        arms: what is compared; names are distinct.
        events: from the first event to learn from to the last one to predict.
        start: where the first window begins.
        every: length of a window.
        end: where the last window ends; by default the window of the last event is the last.
        label: what is predicted; by default the first one of the schema.
        label_delay: how long labels take to arrive: what happened less than this before a window's end is not
            learned at its end but later.
        ndcg_at: nDCG looks at this many rows of an entity and window.
        within: columns; the AUC within each of their values is reported too.
        follow: the entity whose posterior is traced, of the schema's first kind; by default the one that is there
            in most windows.
        name: of the report.
        on_progress: called as each step begins.
        on_window: called after each window; what it raises ends the replay.

    Raises:
        ConfigError: an argument does not fit the schema or the others.
        DataError: there is nothing to fit on, or nothing to predict.
        ModelError: an arm's predictions are not one probability (or finite number) per row.
    """
    _check_arms(arms)
    _check_columns(events, within)
    ndcg_at = checked("ndcg_at", NdcgAt, ndcg_at)
    label = events.schema.label(label, kinds=LABEL_KINDS)
    if within and events.schema.label_kind(label) != "binary":
        raise ConfigError(
            f"label '{label}' is a {events.schema.label_kind(label)}, and has no AUC within {', '.join(within)}",
            hint="leave 'within' out",
        )
    plan = _Plan(
        events=events,
        windows=_windows(events, every, start, end),
        label=label,
        delay=duration_us(label_delay) if label_delay else 0,
        columns=columns_kept(events.schema, label, within),
        on_progress=on_progress,
        on_window=on_window,
    )
    _check_events(plan)
    runs = first_fits(arms, lambda arm: plan.known(plan.start, arm.window), lambda arm: plan.tell("fit", arm.name))
    windows = _play(runs, plan, _followed(arms, plan, follow))
    plan.tell("compare", "", len(windows))
    predictions = {run.arm.name: run.predictions for run in runs}
    measured = outcome(
        events.before(plan.start), windows, predictions, label=plan.label, within=within, ndcg_at=ndcg_at
    )
    return Report(
        name=name,
        settings=plan.settings()
        | {"every": every, "label_delay": label_delay, "ndcg_at": ndcg_at}
        | {"baseline_rate": measured.base_rate()},
        arms={run.arm.name: _arm_result(run, measured, a) for a, run in enumerate(runs)},
        windows=_window_results(runs, plan, measured),
        cohorts=measured.cohorts(),
        calibration=measured.calibration(),
        comparisons=measured.comparisons(),
        weights=[weight for run in runs for weight in run.weights()],
        trace=[point for run in runs for point in run.trace],
        drift=[
            WindowDrift(**vars(told), arm=run.arm.name, start=plan.iso(start))
            for run in runs
            for (start, _), window in zip(plan.windows, run.drift, strict=True)
            for told in window
        ],
    )


@dataclass(frozen=True)
class _Plan:
    """What all arms go through; windows (start, end) and ``delay`` in microseconds."""

    events: Events
    windows: list[tuple[int, int]]
    label: str
    delay: int
    columns: list[str]
    on_progress: Callable[[Progress], None] | None
    on_window: Callable[[Losses], None] | None

    @property
    def start(self) -> int:
        return self.windows[0][0]

    @property
    def end(self) -> int:
        return self.windows[-1][1]

    @property
    def entity(self) -> str:
        """The schema's first entity, by role."""
        return next(iter(self.events.schema.entities))

    @property
    def entity_column(self) -> str:
        return self.events.schema.entities[self.entity]

    def known(self, time: int, length: str | None = None) -> Events:
        """The events whose labels are there at ``time``, or the last ``length`` of them."""
        past = self.events.before(time - self.delay)
        return past if length is None else past.after(time - self.delay - duration_us(length))

    @property
    def kind(self) -> LabelKind:
        """Of the label."""
        return self.events.schema.label_kind(self.label)

    def tell(self, phase: Phase, arm: str, window: int = 0) -> None:
        if self.on_progress:
            self.on_progress(Progress(arm, window, len(self.windows), phase))

    def iso(self, time: int) -> str:
        """ISO 8601 in the schema's zone."""
        return utc(time).astimezone(ZoneInfo(self.events.schema.time.zone)).isoformat()

    def settings(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "start": self.iso(self.start),
            "end": self.iso(self.end),
            "zone": self.events.schema.time.zone,
            "entity": self.entity,
            **({} if self.kind == "binary" else {"label_kind": self.kind}),
        }


def _check_arms(arms: Sequence[Arm]) -> None:
    if not arms:
        raise ConfigError("there is no arm to replay")
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several arms are called '{twice[0]}'", hint="give each arm a name of its own")


def _check_columns(events: Events, within: Sequence[str]) -> None:
    columns = events.source.columns()
    for name in within:
        if name not in columns.names:
            raise ConfigError(f"no column '{name}' to report within", hint=nearest(name, columns.names))
        if pa.types.is_nested(columns.field(name).type):
            raise ConfigError(f"column '{name}' has several values a row: no AUC within each of them")


def _windows(events: Events, every: str, start: Instant, end: Instant | None) -> list[tuple[int, int]]:
    """The windows, (start, end) in microseconds.

    Raises:
        ConfigError: the end is not after the start, or there are too many of them.
    """
    zone = events.schema.time.zone
    check_span(start, end, zone)
    first = itertools.islice(events.windows(every, start, end), _MOST_WINDOWS + 1)
    windows = [(cast("int", w.start), cast("int", w.end)) for w in first]
    if len(windows) > _MOST_WINDOWS:
        last = events.describe().last
        stop = instant(last or start if end is None else end, zone)
        raise _too_many(every, stop - instant(start, zone))
    return windows


def _too_many(every: str, span: int) -> ConfigError:
    enough = [
        text for text in ("1s", "1m", "10m", "1h", "6h", "1d", "1w") if span <= _MOST_WINDOWS * duration_us(text)
    ]
    return ConfigError(
        f"a replay every {every} has {span // duration_us(every):,} windows, more than {_MOST_WINDOWS:,}",
        hint=f"every {enough[0]} would do, or a shorter replay"
        if enough
        else "let it start later, or end earlier",
    )


def _check_events(plan: _Plan) -> None:
    if not plan.windows or not plan.events.between(plan.start, plan.end).describe().rows:
        raise DataError("there are no events to replay", hint="let the replay start before the last event")
    if not plan.known(plan.start).describe().rows:
        hint = "start later, or wait less for labels" if plan.delay else "start later"
        raise DataError(f"there are no events before {plan.iso(plan.start - plan.delay)} to fit on", hint=hint)


def _play(runs: Sequence[Run], plan: _Plan, followed: Any) -> list[pa.Table]:
    """Take all arms through all windows; returns what measuring needs of each window's rows."""
    kept: list[pa.Table] = []
    _watch(runs, plan, followed, plan.start)
    for number, (start, end) in enumerate(plan.windows, 1):
        rows, reading, _ = spent(Events.cached, plan.events.between(start, end))
        fresh = rows
        if plan.delay:
            fresh, reading, _ = spent(Events.cached, plan.events.between(start - plan.delay, end - plan.delay))
        asked = _without_answers(rows)
        for run in runs:
            plan.tell("predict", run.arm.name, number)
            seconds = run.predict(asked, f"window {number} ({plan.iso(start)})", plan.kind)
            plan.tell("learn", run.arm.name, number)
            past = plan.known(end, run.arm.window)
            run.learn(fresh, past, predict_seconds=seconds, read_seconds=reading)
        _watch(runs, plan, followed, end)
        kept.append(_copied(rows.table(plan.columns)))
        if plan.on_window:
            plan.on_window(_losses(runs, plan, kept[-1], number))
    return kept


def _copied(rows: pa.Table) -> pa.Table:
    """The same rows, which hold nothing else: not the file in which a large window lies."""
    return rows.take(np.arange(rows.num_rows))


def _losses(runs: Sequence[Run], plan: _Plan, rows: pa.Table, window: int) -> Losses:
    y = rows[plan.label].cast(pa.float64()).to_numpy()
    column = plan.events.schema.weight
    weight = rows[column].to_numpy() if column else np.ones(len(y))
    known = np.isfinite(y)
    loss = ROW_LOSSES[plan.kind]
    y, weight = y[known], weight[known]
    sums = {run.arm.name: float(weight @ loss(y, run.predictions[-1][known])) for run in runs}
    return Losses(window, sums, float(weight.sum()))


ROW_LOSSES: dict[LabelKind, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "binary": row_log_loss,
    "number": lambda y, p: (y - p) ** 2,
    "count": row_deviance,
}


def _watch(runs: Sequence[Run], plan: _Plan, followed: Any, time: int) -> None:
    if followed is not None:
        for run in runs:
            run.watch(plan.entity, plan.entity_column, followed, plan.iso(time))


def _without_answers(events: Events) -> Events:
    """The same rows with every label and the truth unknown: what is to be predicted cannot be looked up."""
    rows, schema = events.table(), events.schema
    for name in (*schema.labels, *([schema.truth] if schema.truth else ())):
        column = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), column, pa.nulls(rows.num_rows, column.type))
    return replace(events, source=TableSource(schema, rows))


def _followed(arms: Sequence[Arm], plan: _Plan, follow: str | int | None) -> Any:
    """The id to follow, typed as the events have it; ``None`` if no arm could show anything of it."""
    if not any(isinstance(arm.learner, HasEntityPosterior) for arm in arms):
        return None
    column = plan.entity_column
    if follow is None:
        return _most_present(plan, column)
    kind = plan.events.source.columns().field(column).type
    try:
        return pa.scalar(follow).cast(kind).as_py()
    except (pa.ArrowInvalid, OverflowError) as error:
        raise ConfigError(f"no '{follow}' to follow: '{column}' holds {kind}") from error


def _most_present(plan: _Plan, column: str) -> Any:
    """The id that is there in most windows; of several the one with most rows, then the smallest."""
    windows = [
        plan.events.between(start, end).table([column]).group_by(column).aggregate([([], "count_all")])
        for start, end in plan.windows
    ]
    presence = pa.concat_tables(windows).group_by(column).aggregate([("count_all", "count"), ("count_all", "sum")])
    ranked = presence.sort_by(
        [("count_all_count", "descending"), ("count_all_sum", "descending"), (column, "ascending")]
    )
    return ranked[column][0].as_py()


def _arm_result(run: Run, measured: Outcome, arm: int) -> ArmResult:
    return ArmResult(
        **vars(measured.quality(arm)),
        fit_seconds=run.fit_seconds,
        update_seconds=sum(cost.update_seconds for cost in run.costs),
        predict_seconds=sum(cost.predict_seconds for cost in run.costs),
        rows_read=sum(cost.rows_read for cost in run.costs),
        state_bytes=run.costs[-1].state_bytes,
        peak_bytes=run.costs[-1].peak_bytes,
        seconds=sum(_seconds(cost) for cost in run.costs),
        within=measured.auc_within(arm),
    )


def _window_results(runs: Sequence[Run], plan: _Plan, measured: Outcome) -> list[WindowResult]:
    qualities = measured.windows(len(plan.windows))
    return [
        WindowResult(
            **vars(qualities[w][a]),
            **vars(run.costs[w]),
            arm=run.arm.name,
            start=plan.iso(start),
            end=plan.iso(end),
            seconds=_seconds(run.costs[w]),
            refused=run.refusals[w],
        )
        for w, (start, end) in enumerate(plan.windows)
        for a, run in enumerate(runs)
    ]


def _seconds(cost: Cost) -> float:
    return cost.fit_seconds + cost.update_seconds + cost.predict_seconds
