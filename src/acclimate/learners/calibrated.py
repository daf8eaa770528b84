"""A learner whose probabilities are calibrated by what came of them: Platt's line, learned as events come.

:mod:`acclimate.models.calibration` has the mathematics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from acclimate.arrays import FloatArray, IntArray, Posterior
from acclimate.artifacts import Events, SharedPart, modes_of, update_options
from acclimate.config import CalibratedParameters
from acclimate.errors import ConfigError
from acclimate.learners import make
from acclimate.learners.around import Around
from acclimate.learners.base import Packed, declared_by
from acclimate.learners.batch import columns_of
from acclimate.learners.gate import check_size
from acclimate.learners.members import refusal_of
from acclimate.models.calibration import calibrated, identity, learned, rising
from acclimate.models.gaussian import decay
from acclimate.models.scoring import Mode
from acclimate.storage import Stored
from acclimate.times import duration_us


@dataclass(frozen=True)
class CalibratedState:
    """The label, the content of the schema, the last event learned, and the line: a posterior of ``(2,)``.

    ``line_cut``: the last event that the line was learned up to, earlier where what is shared was kept since.
    """

    label: str
    contract: dict[str, Any]
    cut: int
    line: Posterior
    line_cut: int


@dataclass(frozen=True)
class CalibratedInfo:
    """How the last fit or update went.

    The ``rows`` learned, and the line's ``intercept`` and ``slope``.
    """

    rows: int
    intercept: float
    slope: float


class _Rows(NamedTuple):
    """Rows that came true: times (microseconds UTC), probabilities, labels and weights, ``(n,)`` each."""

    time: IntArray
    p: FloatArray
    y: FloatArray
    weight: FloatArray


class Calibrated(Around[CalibratedState]):
    """A learner whose probabilities a line in the logit puts right: ``logit p' = a + b logit p``.

    The line is learned from what the learner said of new events before it learned them: ``update`` asks it first,
    compares with the labels, and then lets it learn. So the line knows errors of days to come, as no fit does: a
    fit begins at the line that changes nothing. The order of rows never changes.

    Where the learner undoes an update nothing is learned, nor is the line.

    Its arguments are the fields of :class:`acclimate.config.CalibratedParameters`. ``learner`` is the one that is
    calibrated, up to date; ``info`` is of the last fit or update.

    Raises:
        ConfigError: the learner has no such mode.
    """

    kind: ClassVar[str] = "calibrated"

    @declared_by(CalibratedParameters)
    def __init__(self, parameters: CalibratedParameters) -> None:
        self.parameters: CalibratedParameters = parameters
        self.state: CalibratedState | None = None
        self.info: CalibratedInfo | None = None
        self.learner: Any = make(parameters.learner)
        if parameters.mode != "point" and parameters.mode not in modes_of(self.learner):
            raise ConfigError(
                f"predictions of a {type(self.learner).__name__} have no mode '{parameters.mode}'",
                hint="leave the calibration's mode out",
            )

    def fit(self, events: Events, **options: Any) -> Self:
        """Let the learner learn from these events alone, and begin at the line that changes nothing.

        ``options`` are for the learner.
        """
        self.learner.fit(events, **options)
        contract, label = events.schema.content(), events.schema.label(self.parameters.label)
        return self._now(CalibratedState(label, contract, self.learner.cut, self._base, self.learner.cut))

    def update(self, events: Events, *, shared: SharedPart = "learn", **options: Any) -> Self:
        """Learn the line from what the learner says of new events, and then let it learn them too.

        Args:
            events: the new rows.
            shared: ``keep`` leaves the line, and all that entities of the learner share, as it is.
            options: for the learner.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
            ConfigError: what is shared is to be kept, and the learner cannot.
        """
        before, options = self._fitted(events.schema), {**update_options(self.learner, shared), **options}
        rows = None if shared == "keep" else _read(events, before.label, self._said(events))
        self.learner.update(events, **options)
        if refusal_of(self.learner):
            return self._now(before)
        after = replace(before, cut=max(before.cut, self.learner.cut))
        if rows is not None:
            after = replace(after, line=self._line(rows, before, after.cut), line_cut=after.cut)
        return self._now(after)

    def predict(self, events: Events, *, mode: Mode | None = None, **options: Any) -> FloatArray:
        """Probabilities of the label, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        Args:
            events: the rows.
            mode: as the learner has it; without, the calibration's. A ``thompson`` draw passes by the line too.
            options: for the learner, such as ``seed``.

        Raises:
            ConfigError: the line was learned from predictions of another mode.
        """
        state = self._fitted(events.schema)
        return calibrated(state.line, self._said(events, mode or self.parameters.mode, **options))

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of the learner that can be asked for: the one that is calibrated, and draws."""
        return tuple(mode for mode in modes_of(self.learner) if mode in (self.parameters.mode, "thompson"))

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would, and count the columns, where the learner can.

        Raises:
            ConfigError: a label, an entity or a feature is not in the schema.
        """
        return self.learner.columns(events) if hasattr(self.learner, "columns") else {}

    def line(self) -> tuple[float, float]:
        """Intercept ``a`` and slope ``b`` of ``logit p' = a + b logit p``, 0 and 1 before the first update.

        Raises:
            NotFittedError: there was no fit.
        """
        return rising(self._fitted().line)

    @property
    def nbytes(self) -> int:
        """Bytes of the learner's state and of the line."""
        line = self._fitted().line
        return super().nbytes + line.mean.nbytes + line.precision.nbytes

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        info = self.info
        line = [f"calibrated: logit p' = {info.intercept:.4f} + {info.slope:.4f} logit p"] if info else []
        return [*self.learner.summary(), *line]

    def shortfall(self) -> str:
        """How far from its optimum the learner stopped."""
        return self.learner.shortfall()

    def refusal(self) -> str:
        """Why the learner has undone the last update; empty where it has not."""
        return refusal_of(self.learner)

    @property
    def _learners(self) -> Sequence[Any]:
        return [self.learner]

    @property
    def _base(self) -> Posterior:
        return identity(self.parameters.ridge)

    def _now(self, state: CalibratedState) -> Self:
        self.state, self.info = state, CalibratedInfo(self.learner.info.rows, *rising(state.line))
        return self

    def _said(self, events: Events, mode: Mode | None = None, **options: Any) -> FloatArray:
        """What the learner itself says of rows, ``(n,)``."""
        learned_in = self.parameters.mode
        mode = mode or learned_in
        if mode not in (learned_in, "thompson"):
            raise ConfigError(
                f"the calibration is learned from predictions in mode '{learned_in}', and '{mode}' is asked for",
                hint=f"set calibrate: {{mode: {mode}}}",
            )
        return self.learner.predict(events, **options, **({} if mode == "point" else {"mode": mode}))

    def _line(self, rows: _Rows, before: CalibratedState, cut: int) -> Posterior:
        """What is known of the line at the time ``cut``, by these rows too."""
        weight, kept = rows.weight, 1.0
        if self.parameters.half_life is not None:
            half_life = float(duration_us(self.parameters.half_life))
            weight = weight * decay((cut - rows.time).astype(np.float64), half_life)
            kept = float(decay(np.array(cut - before.line_cut, np.float64), half_life))
        return learned(before.line, rows.p, rows.y, weight=weight, kept=kept, base=self._base)

    def _with_own(self, state: CalibratedState, packed: Packed) -> Packed:
        arrays = {"line.mean": state.line.mean, "line.precision": state.line.precision}
        manifest = {**packed.manifest, "line_cut": state.line_cut}
        return replace(packed, manifest=manifest, arrays={**packed.arrays, **arrays})

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self._unpack_learners(stored)
        line = Posterior(stored.arrays["line.mean"], stored.arrays["line.precision"])
        self.state = CalibratedState(**known, line=line, line_cut=stored.manifest.get("line_cut", known["cut"]))


def _read(events: Events, label: str, p: FloatArray) -> _Rows:
    """The rows whose label is known.

    Raises:
        RowError: a weight is beyond what can be computed with.
    """
    schema = events.schema
    table = events.table([name for name in (schema.time.column, label, schema.weight) if name is not None])
    y, weight, _, time = columns_of(table, replace(schema, offset=None), label)
    check_size("weight", weight, time)
    known = np.isfinite(y)
    return _Rows(time[known], p[known], y[known], weight[known])
