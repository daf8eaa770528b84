"""One arm under way: it predicts, learns and shows what it knows; its time and the rows it reads are counted."""

import copy
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from acclimate.arrays import FloatArray, Posterior
from acclimate.artifacts import Cost, Drift, Events, Replayable, Source, SourceAround, TracePoint, Weight, modes_of
from acclimate.config import AskedMode, LabelKind, Regime, checked
from acclimate.errors import ConfigError, ModelError, nearest
from acclimate.times import duration_us

T = TypeVar("T")
Belief: TypeAlias = tuple[Sequence[str], Posterior, int]
"""Names of the coefficients, their posterior ``(d,)``, and the rows it was learned from."""


@runtime_checkable
class FineTunes(Protocol):
    """A learner that can be trained on new events from where it stands."""

    def fine_tune(self, events: Events) -> Any:
        """Learn from these events, held by nothing."""
        ...


@runtime_checkable
class Refuses(Protocol):
    """A learner that undoes an update that would do harm."""

    def refusal(self) -> str:
        """Why it has undone the last one; empty where it has not."""
        ...


@dataclass(frozen=True)
class Arm:
    """A learner and how it is kept up to date.

    ``incremental``: updated with each window's events. ``fine-tune``: trained on them from where it stands, with
    nothing that holds it there, by a learner that has ``fine_tune``. ``stale``: never after its first fit.
    ``retrain``: fitted anew after each window on everything up to then, or on the last ``window`` of it
    (``"14d"``). ``mode``: how it is asked, ``point`` or ``integrated``; without, as the learner has it.

    Raises:
        ConfigError: ``window`` is no duration, the regime has no use for it, the learner cannot be fine-tuned, or
            its predictions have no such mode.
    """

    name: str
    learner: Replayable
    regime: Regime = "incremental"
    window: str | None = None
    mode: AskedMode | None = None

    def __post_init__(self) -> None:
        if self.regime == "fine-tune" and not isinstance(self.learner, FineTunes):
            raise ConfigError(
                f"arm '{self.name}': a {type(self.learner).__name__} cannot be fine-tuned",
                hint="networks can, also those below a stack by themselves; others are incremental",
            )
        checked("mode", AskedMode | None, self.mode)
        modes = modes_of(self.learner)
        if self.mode is not None and self.mode not in modes:
            raise ConfigError(
                f"arm '{self.name}': predictions of a {type(self.learner).__name__} have no mode '{self.mode}'",
                hint=nearest(self.mode, modes) if modes else "leave the mode out",
            )
        if self.window is None:
            return
        duration_us(self.window)
        if self.regime != "retrain":
            raise ConfigError(f"arm '{self.name}' is {self.regime}: a window is for 'retrain'")


@runtime_checkable
class HasWeights(Protocol):
    """A learner whose shared coefficients can be shown."""

    def weights(self) -> list[tuple[str, float, float]]:
        """Name, mean and standard deviation of each."""
        ...


@runtime_checkable
class HasEntityPosterior(Protocol):
    """A learner whose belief about one entity can be shown."""

    def entity_posterior(self, entity: str, id: Any) -> Belief:
        """What is believed of the entity of that id; ``entity`` is a role or a column of the schema.

        Raises:
            ConfigError: it keeps nothing for such entities.
        """
        ...


@runtime_checkable
class HasDrift(Protocol):
    """A learner that can tell how new events surprised it."""

    def drift(self) -> Sequence[Drift]:
        """What the last update's events said of it before it learned them."""
        ...


@dataclass
class Run:
    """An arm with a fitted learner of its own.

    ``costs``, ``refusals``, ``drift`` and ``predictions`` have one a window.
    """

    arm: Arm
    learner: Replayable
    fit_seconds: float
    costs: list[Cost] = field(default_factory=list[Cost])
    refusals: list[str] = field(default_factory=list[str])
    drift: list[Sequence[Drift]] = field(default_factory=list[Sequence[Drift]])
    predictions: list[FloatArray] = field(default_factory=list[FloatArray])
    trace: list[TracePoint] = field(default_factory=list[TracePoint])

    def predict(self, asked: Events, place: str, kind: LabelKind) -> float:
        """Note the arm's predictions; returns the seconds. Nobody is asked about an empty window.

        Raises:
            ModelError: they are not one probability, number or expected count per row, as the kind of label is.
        """
        rows = count_rows(asked)
        if not rows:
            self.predictions.append(np.zeros(0))
            return 0.0
        options = {} if self.arm.mode is None else {"mode": self.arm.mode}
        p, seconds, _ = spent(partial(self.learner.predict, **options), asked)
        self.predictions.append(_checked(p, rows, f"arm '{self.arm.name}', {place}", kind))
        return seconds

    def learn(self, fresh: Events, past: Events, *, predict_seconds: float, read_seconds: float) -> None:
        """Learn as the regime says, from the fresh events or from all the past, and note what the window cost.

        The fresh events are in memory already. ``read_seconds`` is what reading them took, and an incremental arm
        is charged with it: alone it would have read them itself, as a retrained one does within its fit.
        """
        fit_seconds, update_seconds, rows, refused = 0.0, 0.0, 0, ""
        drift: Sequence[Drift] = ()
        if self.arm.regime == "retrain":
            self.learner = _copied(self.arm, self.arm.learner)
            _, fit_seconds, rows = spent(self.learner.fit, past)
        elif self.arm.regime != "stale":
            update_seconds = read_seconds
            if count_rows(fresh):
                _, seconds, rows = spent(self._learns_more, fresh)
                update_seconds += seconds
                refused = self.learner.refusal() if isinstance(self.learner, Refuses) else ""
                drift = self.learner.drift() if isinstance(self.learner, HasDrift) else ()
        self.refusals.append(refused)
        self.drift.append(drift)
        state_bytes = getattr(self.learner, "nbytes", None)
        self.costs.append(
            Cost(
                fit_seconds,
                update_seconds,
                predict_seconds,
                rows,
                state_bytes=state_bytes,
                peak_bytes=_peak_bytes(),
            )
        )

    def _learns_more(self, fresh: Events) -> None:
        learner: Any = self.learner
        learner.fine_tune(fresh) if self.arm.regime == "fine-tune" else learner.update(fresh)

    def watch(self, role: str, column: str, id: Any, time: str) -> None:
        """Note what the learner believes of one entity, if it can tell."""
        learner = self.learner
        belief = _belief(learner, (role, column), id) if isinstance(learner, HasEntityPosterior) else None
        if belief is None:
            return
        names, posterior, rows = belief
        self.trace += [
            TracePoint(self.arm.name, role, str(id), time, name, float(mean), float(deviation), rows)
            for name, mean, deviation in zip(names, posterior.mean, posterior.standard_deviation(), strict=True)
        ]

    def weights(self) -> list[Weight]:
        """The shared coefficients of an incremental arm, if its learner can tell them."""
        if self.arm.regime != "incremental" or not isinstance(self.learner, HasWeights):
            return []
        return [Weight(self.arm.name, *weight) for weight in self.learner.weights()]


def first_fits(arms: Sequence[Arm], past: Callable[[Arm], Events], tell: Callable[[Arm], None]) -> list[Run]:
    """Fit a copy of each arm's learner; the same learner on the same events is fitted once and copied."""
    fitted: dict[tuple[int, str | None], tuple[Replayable, float]] = {}
    for arm in arms:
        if (id(arm.learner), arm.window) not in fitted:
            tell(arm)
            learner = _copied(arm, arm.learner)
            _, seconds, _ = spent(learner.fit, past(arm))
            fitted[id(arm.learner), arm.window] = learner, seconds
    runs: list[Run] = []
    for arm in arms:
        learner, seconds = fitted[id(arm.learner), arm.window]
        runs.append(Run(arm, _copied(arm, learner), seconds))
    return runs


def _copied(arm: Arm, learner: Replayable) -> Replayable:
    try:
        return copy.deepcopy(learner)
    except (TypeError, copy.Error) as error:
        raise ModelError(
            f"arm '{arm.name}' cannot be copied: {error}",
            hint="keep locks, connections and open files out of its attributes, or give it a __deepcopy__",
        ) from error


def _belief(learner: HasEntityPosterior, entity: tuple[str, str], id: Any) -> Belief | None:
    """By role or column, as the learner calls such entities; ``None`` where it keeps nothing of them."""
    for name in entity:
        with suppress(ConfigError):
            return learner.entity_posterior(name, id)
    return None


def count_rows(events: Events) -> int:
    """The rows of events in memory."""
    return events.table([events.schema.time.column]).num_rows


@dataclass
class _CountedSource(SourceAround):
    """A source that counts the rows it hands out."""

    source: Source
    rows: int = 0

    def scan(self, columns: Sequence[str], start: int | None, end: int | None) -> pa.RecordBatchReader:
        reader = self.source.scan(columns, start, end)
        return pa.RecordBatchReader.from_batches(reader.schema, self._counted(reader))

    def _counted(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch


def spent(verb: Callable[[Events], T], events: Events) -> tuple[T, float, int]:
    """What the verb returns, the seconds it took and the rows it read."""
    counted = _CountedSource(events.source)
    began = time.perf_counter()
    result = verb(replace(events, source=counted))
    return result, time.perf_counter() - began, counted.rows


_ALLOWED: dict[LabelKind, tuple[float, float, str]] = {
    "binary": (0.0, 1.0, "within [0, 1]"),
    "number": (-sys.float_info.max, sys.float_info.max, "finite"),
    "count": (0.0, sys.float_info.max, "expected counts, finite and not negative"),
}

_WAYS_OUT: dict[LabelKind, str] = {
    "binary": "of squared loss, declare the label a number: label_kinds",
    "number": "look for extreme features",
    "count": "learn them by Poisson loss, or declare the label a number: label_kinds",
}


def _checked(predictions: Any, rows: int, place: str, kind: LabelKind) -> FloatArray:
    """The predictions as ``(rows,)`` probabilities, or what else goes with the kind of label."""
    try:
        p = np.asarray(predictions, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient raises the last one
        raise ModelError(f"{place}: predictions are no array of numbers: {error}") from error
    if p.shape != (rows,):
        raise ModelError(
            f"{place}: predictions have shape {p.shape}, not ({rows},)",
            hint="predict returns the probability of label 1, one per row",
        )
    least, most, allowed = _ALLOWED[kind]
    wrong = np.flatnonzero(~((p >= least) & (p <= most)))
    if len(wrong):
        first = ", ".join(f"{p[i]:g} in row {i}" for i in wrong[:3])
        raise ModelError(
            f"{place}: {len(wrong)} of {rows} predictions are not {allowed}: {first}", hint=_WAYS_OUT[kind]
        )
    return p


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB
