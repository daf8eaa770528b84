"""The report as one page that opens offline: ``page.html`` filled with numbers, style and scripts.

Whatever a user named (report, arms, features, ids) is escaped here on its way into HTML and JSON, and set as text
by the script.
"""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from acclimate.artifacts import SURPRISED, Comparison, Report, TracePoint, Weight, WindowResult
from acclimate.evaluate.summary import (
    COST,
    Column,
    Measure,
    columns,
    label_kind,
    lead,
    quality,
    significant,
    windows_of,
)

MARKS = "●■◆▲✚✕★▼"
"""One per arm beside its colour, in the order of the symbols in ``page.js``: colour alone is not for every eye."""

WEIGHTS_KEPT = 5_000
COEFFICIENTS_KEPT = 8
_TINY = 1e-300

_SETTINGS = {
    "label": "Label",
    "start": "Start",
    "every": "Window",
    "end": "End",
    "zone": "Time zone",
    "label_delay": "Label delay",
    "ndcg_at": "nDCG cut at",
    "entity": "Entity",
    "baseline_rate": "Base rate",
    "label_kind": "Kind of label",
}
_LEADS = {"auc": "an AUC", "rmse": "an RMSE", "deviance": "a deviance"}


def render_page(report: Report) -> str:
    """The whole page as text, about 5 MB of which are Plotly."""
    from plotly.offline import get_plotlyjs

    return Template(resource("page.html")).substitute(
        title=escape(report.name),
        style=resource("page.css"),
        facts=escape(" · ".join(facts(report))),
        findings="\n  ".join(f'<p class="finding">{escape(text)}</p>' for text in findings(report)),
        table=_table(report),
        glossary=definitions((c.measure.label, c.measure.help) for c in columns(report)),
        settings=definitions((_SETTINGS.get(k, k), _plain(v)) for k, v in report.settings.items()),
        data=script_json(_data(report)),
        plotly=get_plotlyjs(),
        page=resource("page.js"),
        figures=resource("figures.js"),
    )


def resource(name: str) -> str:
    """A file beside this module."""
    return files("acclimate.evaluate").joinpath(name).read_text(encoding="utf-8")


# --- in words


def facts(report: Report) -> list[str]:
    """Label, period and size of the replay, each in a few words."""
    count = max(windows_of(report).values(), default=0)
    rows = max((arm.rows for arm in report.arms.values()), default=0)
    label, every, rate = (report.settings.get(key) for key in ("label", "every", "baseline_rate"))
    return [
        *([f"label {label}"] if label else []),
        *_period(report),
        f"{count:,} window{'s' * (count != 1)}{f' of {every}' if every else ''}",
        f"{rows:,} rows",
        *([_level(report, rate)] if rate is not None else []),
    ]


def _level(report: Report, rate: float) -> str:
    return f"base rate {100 * rate:.1f} %" if label_kind(report) == "binary" else f"mean label {rate:.4g}"


def _period(report: Report) -> list[str]:
    """First and last day, both inclusive."""
    if not report.windows:
        return []
    first = min(dt.datetime.fromisoformat(w.start) for w in report.windows)
    last = max(dt.datetime.fromisoformat(w.end) for w in report.windows) - dt.timedelta(microseconds=1)
    return [f"{first.date()}" if first.date() == last.date() else f"{first.date()} to {last.date()}"]


def findings(report: Report) -> list[str]:
    """What was shown, in sentences: incremental against stale and retrain, else the best arm; what was undone."""
    return [*_shown(report), *_refusals(report)]


def _shown(report: Report) -> list[str]:
    measure, told = lead(report), _LEADS[lead(report).key]
    known = {name: getattr(arm, measure.key) for name, arm in report.arms.items()}
    scored = {name: value for name, value in known.items() if value is not None}
    others = [name for name in ("stale", "retrain") if name in scored]
    if "incremental" in scored and others:
        parts = [_versus(report, "incremental", other) for other in others]
        first = f"incremental reaches {told} of {scored['incremental']:.4f}: {' and '.join(parts)}."
        return [first, *_interval_note(report, "incremental", others), *_regrets(report, ["incremental", *others])]
    if not scored:
        return [f"No arm has {told}: it needs rows{' of both labels' if measure.key == 'auc' else ''}."]
    sign = -1.0 if measure.better == "higher" else 1.0
    best, *rest = sorted(scored, key=lambda name: sign * scored[name])
    ahead = f", {_versus(report, best, rest[0])}" if rest else ""
    return [f"{best} reaches {told} of {scored[best]:.4f}{ahead}.", *_regrets(report, [best, *rest[:1]])]


def _refusals(report: Report) -> list[str]:
    """Which arms have undone updates, how many, and why the first one, in a sentence of each."""
    undone: dict[str, list[WindowResult]] = {}
    for window in report.windows:
        if window.refused:
            undone.setdefault(window.arm, []).append(window)
    return [
        f"{arm} did not learn {len(lost)} of {windows_of(report)[arm]} windows, first that of "
        f"{lost[0].start}: {lost[0].refused}."
        for arm, lost in undone.items()
    ]


def _versus(report: Report, arm: str, other: str) -> str:
    """Such as ``0.0123 above stale [+0.0101, +0.0146]``, for retrain with what it cost beside it."""
    known = _comparison(report, arm, other)
    key = lead(report).key
    here, there = (getattr(report.arms[name], key) or 0.0 for name in (arm, other))
    difference = known.difference if known else here - there
    interval = f" [{_signed(known.low)}, {_signed(known.high)}]" if known else ""
    side = "above" if difference > 0 else "below"
    distance = "level with" if f"{abs(difference):.4f}" == "0.0000" else f"{abs(difference):.4f} {side}"
    return f"{distance} {other}{interval}{_share(report, arm, other) if other == 'retrain' else ''}"


def _share(report: Report, arm: str, other: str) -> str:
    spent, base = report.arms[arm].seconds, report.arms[other].seconds
    return f", at {significant(100 * spent / base, 2)} % of its seconds per window" if base > 0 else ""


def _interval_note(report: Report, arm: str, others: list[str]) -> list[str]:
    known = [c for c in (_comparison(report, arm, other) for other in others) if c]
    unclear = [c.against for c in known if c.low <= 0 <= c.high]
    if not known:
        return []
    verdict = f"; no clear difference from {' and '.join(unclear)}, whose bracket holds 0" if unclear else ""
    return [f"Brackets are 95 % intervals{verdict}."]


def _regrets(report: Report, arms: list[str]) -> list[str]:
    known = [(name, report.arms[name].regret) for name in arms]
    texts = [f"{name} {value:.5f}" for name, value in known if value is not None]
    against = {"number": "expected labels, squared", "count": "expected counts, in nats per row"}
    truth = against.get(label_kind(report), "probabilities, in nats per row")
    return [f"Regret against the true {truth}: {', '.join(texts)}."] if texts else []


def _comparison(report: Report, arm: str, other: str) -> Comparison | None:
    """The difference in what arms are compared by first, with its interval, whichever way round it was made."""
    key = lead(report).key
    for c in report.comparisons:
        if c.metric == key and (c.arm, c.against) == (arm, other):
            return c
        if c.metric == key and (c.arm, c.against) == (other, arm):
            return Comparison(arm, other, key, -c.difference, -c.high, -c.low)
    return None


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# --- in HTML


def _table(report: Report) -> str:
    shown = columns(report)
    head = _heading("Arm", "", "ascending") + "".join(_measure_heading(c.measure) for c in shown)
    rows = "".join(_row(i, arm, shown) for i, arm in enumerate(report.arms))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of the arms">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _measure_heading(measure: Measure) -> str:
    arrow = {"higher": "↑", "lower": "↓", "": ""}[measure.better]
    small = f"<small>{escape(f'{arrow} {measure.unit}'.strip()) or '&nbsp;'}</small>"
    return _heading(
        measure.label, small, "descending" if measure.better == "higher" else "ascending", measure.help
    )


def _heading(label: str, small: str, first: str, help: str = "") -> str:
    return (
        f'<th scope="col" data-first="{first}"><button type="button" title="{escape(help)}">'
        f"{escape(label)}{small}</button></th>"
    )


def _row(position: int, arm: str, shown: Iterable[Column]) -> str:
    mark = f'<span class="mark" style="color: var(--arm-{position % 8})">{MARKS[position % len(MARKS)]}</span>'
    cells = "".join(_cell(column, arm) for column in shown)
    name = escape(arm)
    return f'<tr><th scope="row" title="{name}" data-value="{position}">{mark}{name}</th>{cells}</tr>'


def _cell(column: Column, arm: str) -> str:
    value = column.values[arm]
    text = escape(column.measure.text(value))
    marked = f'<strong class="best">{text}</strong>' if arm in column.best() else text
    return f'<td data-value="{"" if value is None else value}">{marked}</td>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what they mean, in HTML."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in pairs)}</dl>"


# --- for the script


def _data(report: Report) -> dict[str, Any]:
    kept = _clearest(report.weights)
    return {
        "arms": list(report.arms),
        "kind": label_kind(report),
        "marks": MARKS,
        "measures": {m.key: asdict(m) for m in (*quality(report), *COST)},
        "columns": [{**asdict(c.measure), "values": c.values} for c in columns(report)],
        "windows": [asdict(w) for w in report.windows],
        "cohorts": [asdict(c) for c in report.cohorts],
        "calibration": [asdict(b) for b in report.calibration],
        "comparisons": [asdict(c) for c in report.comparisons],
        "weights": [asdict(w) for w in kept],
        "weightsLeftOut": Counter(w.arm for w in report.weights) - Counter(w.arm for w in kept),
        "drift": [asdict(d) for d in report.drift],
        "surprised": SURPRISED,
        "trace": [asdict(p) for p in _moved_most(report.trace)],
    }


def script_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")


def _clearest(weights: list[Weight]) -> list[Weight]:
    """Of each arm, the weights furthest from 0 in standard deviations: as many as a page can well hold."""
    arms: dict[str, list[Weight]] = {}
    for weight in sorted(weights, key=lambda w: -abs(w.mean) / max(w.standard_deviation, _TINY)):
        arms.setdefault(weight.arm, []).append(weight)
    return [weight for kept in arms.values() for weight in kept[:WEIGHTS_KEPT]]


def _moved_most(trace: list[TracePoint]) -> list[TracePoint]:
    """Per arm and entity, the coefficients that moved most for what is known of them, in that order."""
    lines: dict[tuple[str, str, str, str], list[TracePoint]] = {}
    for point in trace:
        lines.setdefault((point.arm, point.entity, point.id, point.name), []).append(point)
    stories: dict[tuple[str, ...], list[list[TracePoint]]] = {}
    for (*story, _), line in sorted(lines.items(), key=lambda item: -_movement(item[1])):
        stories.setdefault(tuple(story), []).append(line)
    return [p for kept in stories.values() for line in kept[:COEFFICIENTS_KEPT] for p in line]


def _movement(line: list[TracePoint]) -> float:
    means = [p.mean for p in line]
    return (max(means) - min(means)) / max(line[-1].standard_deviation, _TINY)
