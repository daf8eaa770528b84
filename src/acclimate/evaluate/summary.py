"""The arms of a report side by side: what each measure means, how it is written, which value is best."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from acclimate.artifacts import Report

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "–"

Form = Literal["4", "5", "seconds", "rows", "bytes"]


@dataclass(frozen=True)
class Measure:
    """One figure of an arm: ``key`` is the field of the records, ``form`` its decimals or its unit.

    ``better`` is empty for costs: an arm that learns nothing is the cheapest, and no winner for it.
    """

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower", ""]
    form: Form
    help: str

    def text(self, value: float | None) -> str:
        """The value as a reader wants it; bytes carry their unit."""
        return ABSENT if value is None else _FORMATS[self.form](value)


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _bytes(value: float) -> str:
    power = min(int(math.log10(max(value, 1))) // 3, 4)
    return f"{significant(value / 1000**power)} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


_FORMATS: dict[Form, Callable[[float], str]] = {
    "4": "{:.4f}".format,
    "5": "{:.5f}".format,
    "seconds": significant,
    "rows": "{:,.0f}".format,
    "bytes": _bytes,
}

AUC = Measure(
    "auc", "AUC", "", "higher", "4", "how often a positive row scores above a negative one; 0.5 is chance"
)
QUALITY = (
    AUC,
    Measure("gauc", "GAUC", "", "higher", "4", "AUC among one entity's rows of one window, averaged by rows"),
    Measure("log_loss", "Log-loss", "nats per row", "lower", "5", "how surprising the labels were, on average"),
    Measure(
        "normalized_entropy", "NE", "", "lower", "4", "normalised entropy: log-loss over that of the base rate"
    ),
    Measure(
        "calibration_error", "Calibration error", "", "lower", "4", "mean distance of predicted to observed rate"
    ),
    Measure("ndcg", "nDCG", "", "higher", "4", "how near the top of each entity's list its positive rows are"),
    Measure(
        "deviance", "Deviance", "nats per row", "lower", "5", "mean Poisson deviance: twice the excess log-loss"
    ),
    Measure("rmse", "RMSE", "", "lower", "4", "root mean squared distance of predictions to labels"),
    Measure("mae", "MAE", "", "lower", "4", "mean absolute distance of predictions to labels"),
    Measure("r2", "R²", "", "higher", "4", "share of the labels' variance that is explained"),
    Measure("ratio", "Ratio", "", "", "4", "sum of predictions over that of labels"),
    Measure(
        "regret", "Regret", "nats per row", "lower", "5", "expected log-loss above that of the true probabilities"
    ),
)
COST = (
    Measure("seconds", "Seconds", "per window", "", "seconds", "wall time per window, after the first fit"),
    Measure("rows_read", "Rows read", "per window", "", "rows", "events read to learn, per window"),
    Measure("state_bytes", "State", "", "", "bytes", "what the arm keeps between windows"),
)


@dataclass(frozen=True)
class Column:
    """One measure of every arm."""

    measure: Measure
    values: dict[str, float | None]

    def best(self) -> set[str]:
        """The arms whose value reads as the best one; none where there is nothing to tell apart."""
        known = {arm: value for arm, value in self.values.items() if value is not None}
        if not self.measure.better or len({self.measure.text(v) for v in known.values()}) < 2:
            return set()
        top = (max if self.measure.better == "higher" else min)(known.values())
        return {arm for arm, value in known.items() if self.measure.text(value) == self.measure.text(top)}


def columns(report: Report) -> list[Column]:
    """What to compare the arms by: quality over all windows, cost per window; measures no arm has are left out."""
    within = dict.fromkeys(c for arm in report.arms.values() for c in arm.within)
    aucs_within = [Column(within_measure(c), {a: r.within.get(c) for a, r in report.arms.items()}) for c in within]
    fields = [Column(m, _values(report, m.key)) for m in (*quality(report), *COST)]
    return [c for c in (*fields[:1], *aucs_within, *fields[1:]) if any(v is not None for v in c.values.values())]


def quality(report: Report) -> list[Measure]:
    """The measures of quality, with the cut of this report's nDCG."""
    cut, kind = report.settings.get("ndcg_at"), label_kind(report)
    measures = [replace(m, label=f"nDCG@{cut}") if m.key == "ndcg" and cut else m for m in QUALITY]
    return [
        replace(m, unit="", help=_REGRETS[kind]) if m.key == "regret" and kind in _REGRETS else m for m in measures
    ]


def label_kind(report: Report) -> str:
    """What its labels are: ``binary``, ``number`` or ``count``."""
    return str(report.settings.get("label_kind", "binary"))


def lead(report: Report) -> Measure:
    """The measure that arms are compared by first."""
    key = {"number": "rmse", "count": "deviance"}.get(label_kind(report), "auc")
    return next(m for m in QUALITY if m.key == key)


_REGRETS = {
    "number": "mean squared distance to the true expected labels",
    "count": "half the mean deviance from the true expected counts",
}


def within_measure(column: str) -> Measure:
    """AUC within each value of ``column``."""
    help = f"AUC among the rows of one value of {column}, averaged by rows"
    return replace(AUC, key=f"within {column}", label=f"AUC within {column}", help=help)


def windows_of(report: Report) -> Counter[str]:
    """How many windows each arm went through."""
    return Counter(window.arm for window in report.windows)


def _values(report: Report, key: str) -> dict[str, float | None]:
    count = windows_of(report)
    share = {arm: count[arm] if key in ("seconds", "rows_read") else 1 for arm in report.arms}
    totals = {arm: getattr(result, key) for arm, result in report.arms.items()}
    return {arm: total / share[arm] if total is not None and share[arm] else None for arm, total in totals.items()}


def summary_table(report: Report) -> "Table":
    """The table that a command ends with: one row per arm, the best of each column bold, within 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Two spaces between columns, so that a report fits 80 of them.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.caption, table.caption_justify = _caption(report), "left"
    table.add_column("Arm", overflow="fold", min_width=min(max(map(len, report.arms), default=0), 16))
    shown = _terminal_columns(report)
    for column in shown:
        title = Text(_TITLES.get(column.measure.key, column.measure.label.replace("AUC within ", "AUC in\n")))
        widest = max(len(column.measure.text(value)) for value in column.values.values())
        table.add_column(title, justify="right", vertical="bottom", min_width=widest)
    for arm in report.arms:
        cells = (Text(c.measure.text(c.values[arm]), "bold" if arm in c.best() else "") for c in shown)
        table.add_row(Text(arm), *cells)
    return table


_TITLES = {"calibration_error": "Calib.", "seconds": "s per\nwindow", "rows_read": "Rows per\nwindow"}


def _caption(report: Report) -> str:
    rows = max((arm.rows for arm in report.arms.values()), default=0)
    windows = max(windows_of(report).values(), default=0)
    undone = Counter(window.arm for window in report.windows if window.refused)
    told = "".join(f"; {arm} refused {count:,}" for arm, count in undone.items())
    return f"{rows:,} rows in {windows:,} windows{told}; bold is best"


def _terminal_columns(report: Report) -> list[Column]:
    """What fits a terminal: two of the AUCs within a column, and not what log-loss, GAUC or the report say too."""
    every = [c for c in columns(report) if c.measure.key not in ("ndcg", "state_bytes", "normalized_entropy")]
    within = [c for c in every if c.measure.key.startswith("within ")]
    return [c for c in every if c not in within[2:]]
