"""What a replay finds out: each record is one table of ``metrics.json``."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Statistic: TypeAlias = Literal["loss", "labels", "effect"]
"""What of a batch is compared with expectation."""

SURPRISED = 4.0
"""Standard deviations beyond which a surprise is told: by chance one batch in 30,000 has one."""


@dataclass(frozen=True)
class Quality:
    """How well predictions match labels. ``None``: not defined on these rows (one class only, say).

    ``auc`` over all rows; ``gauc`` the mean AUC within each entity and window, weighted by rows; ``log_loss``
    in nats a row; ``normalized_entropy`` log-loss over that of the base rate; ``calibration_error`` the mean
    distance of predicted to observed rate over bins of equal size; ``ndcg`` of each entity's rows of a window,
    cut at the replay's ``k``; ``regret`` the expected excess log-loss over the true probabilities, in nats a
    row, where the events carry them.

    Of numbers and counts: ``rmse`` and ``mae``, the root mean squared and the mean absolute error; ``r2``, the
    share of the labels' variance that is explained; of counts ``deviance``, the mean Poisson deviance in nats a
    row, and ``ratio``, the sum of predictions over that of labels. ``regret`` is the mean squared distance to the
    true expected number there, or half the deviance from the true expected count.
    """

    rows: int
    auc: float | None
    gauc: float | None
    log_loss: float | None
    normalized_entropy: float | None
    calibration_error: float | None
    ndcg: float | None
    regret: float | None
    rmse: float | None = field(default=None, kw_only=True)
    mae: float | None = field(default=None, kw_only=True)
    r2: float | None = field(default=None, kw_only=True)
    deviance: float | None = field(default=None, kw_only=True)
    ratio: float | None = field(default=None, kw_only=True)


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
    """One arm in one window ``[start, end)`` (ISO 8601, schema's zone): predict first, then learn.

    ``refused`` says why its learner has undone the update, and is empty where it has not.
    """

    arm: str
    start: str
    end: str
    seconds: float
    refused: str = ""


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
    """``arm`` minus ``against`` in ``metric``, with a 95 % interval over entities.

    They are the schema's first two, users and items say, or its only one.
    """

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
class Drift:
    """How a batch surprises a model before it is learned: what was observed, beside what the model expected of it.

    ``statistic``: the ``loss`` of the model in nats a row (of numbers and counts without what is of the labels
    alone), the mean of the ``labels``, or how much an ``effect``, by its name, changes the loss: less than 0 where
    it helps. ``rows`` it is a mean over, weights added up; ``standard_deviation`` that ``observed`` has by
    expectation, of labels and coefficients; ``z``: what observed exceeds ``expected`` by, in units of it, ``None``
    where nothing was believed.
    """

    statistic: Statistic
    effect: str
    rows: float
    observed: float
    expected: float
    standard_deviation: float
    z: float | None


@dataclass(frozen=True)
class WindowDrift(Drift):
    """How a window that begins at ``start`` has surprised an arm."""

    arm: str
    start: str


@dataclass(frozen=True)
class Report:
    """All that a replay found out; ``evaluate.report`` writes it as ``metrics.json`` and ``report.html``.

    ``settings``: label, start, every, end, zone, label_delay, ndcg_at, entity, baseline_rate (the mean
    label), and label_kind where labels are numbers or counts.
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
    drift: list[WindowDrift] = field(default_factory=list[WindowDrift])
