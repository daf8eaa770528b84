"""A search among settings as one page that opens offline, in the style of the report."""

import json
from html import escape
from string import Template
from typing import Any

from acclimate.artifacts import Candidates, Finalist, Trial, Tuning
from acclimate.evaluate.page import definitions, resource, script_json
from acclimate.times import duration_us


def render_tuning(tuning: Tuning) -> str:
    """The whole page as text, about 5 MB of which are Plotly."""
    from plotly.offline import get_plotlyjs

    names = short_names([candidates.name for candidates in tuning.candidates])
    chosen = tuning.chosen
    return Template(resource("tune.html")).substitute(
        title=escape(f"{tuning.name}: settings of {tuning.settings.get('learner', 'a learner')}"),
        style=resource("page.css"),
        facts=escape(" · ".join(_facts(tuning))),
        judge=escape(tuning.judge.label),
        Judge=escape(_capital(tuning.judge.label)),
        verdict=escape(tuning.verdict),
        command=f"<pre>{escape(chosen.options)}</pre>" if chosen else "",
        table=_table(tuning, names),
        options=_options(tuning.finalists),
        candidates=definitions(
            (names[c.name], f"declared {shown(c.declared)}; tried {_tried(c)}") for c in tuning.candidates
        ),
        settings=definitions((key, shown(value)) for key, value in tuning.settings.items()),
        data=script_json(_data(tuning, names)),
        plotly=get_plotlyjs(),
        page=resource("page.js"),
        figures=resource("tune.js"),
    )


def short_names(names: list[str]) -> dict[str, str]:
    """Paths without the section and the learner that they all begin with."""
    heads = {tuple(name.split(".")[:2]) for name in names}
    cut = len(".".join(next(iter(heads)))) + 1 if len(heads) == 1 else 0
    return {name: name[cut:] or name for name in names}


def shown(value: Any) -> str:
    """A value as a project file has it, but for quotes around a text."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def changes_text(finalist: Finalist, names: dict[str, str]) -> str:
    """Such as ``fixed.ridge 12.1 (was 1.0), fixed.features without hour``."""
    changed = (f"{names[name]} {_change(old, new)}" for name, (old, new) in finalist.changes.items())
    return ", ".join(changed) or "nothing else than declared"


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):
        lost, won = [v for v in old if v not in new], [v for v in new if v not in old]
        parts = [f"without {', '.join(map(shown, lost))}"] if lost else []
        return " and ".join([*parts, *([f"with {', '.join(map(shown, won))}"] if won else [])]) or shown(new)
    return f"{shown(new)} (was {shown(old)})"


def _facts(tuning: Tuning) -> list[str]:
    states = [trial.state for trial in tuning.trials[1:]]
    counts = [f"{states.count(state)} {state}" for state in ("complete", "stopped", "failed") if state in states]
    span = [str(tuning.settings[key])[:10] for key in ("start", "end") if key in tuning.settings]
    return [" to ".join(span), f"{len(states)} trials: {', '.join(counts)}"]


def _tried(candidates: Candidates) -> str:
    if candidates.values is not None:
        return ", ".join(_label(candidates, value) for value in candidates.values)
    return f"{shown(candidates.low)} to {shown(candidates.high)}{', logarithmic' if candidates.log else ''}"


def _table(tuning: Tuning, names: dict[str, str]) -> str:
    label = tuning.judge.label
    heads = ("Settings", _capital(label), "AUC", f"Difference in {label}")
    head = (
        "".join(f'<th scope="col">{text}</th>' for text in heads) + '<th scope="col" class="changes">Changes</th>'
    )
    declared = ("declared", _figure(tuning.declared_loss, 5), _figure(tuning.declared_auc, 4), "", "")
    rows = [declared, *(_row(finalist, names) for finalist in tuning.finalists)]
    best = tuning.chosen.name if tuning.chosen else ""
    body = "".join(
        f'<tr><th scope="row">{_marked(name, name == best)}</th>'
        f'{"".join(f"<td>{escape(text)}</td>" for text in cells)}<td class="changes">{escape(changes)}</td></tr>'
        for name, *cells, changes in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of the best trials">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(finalist: Finalist, names: dict[str, str]) -> tuple[str, ...]:
    figures = (_figure(finalist.loss, 5), _figure(finalist.auc, 4), finalist.difference_text)
    return (finalist.name, *figures, changes_text(finalist, names))


def _marked(text: str, is_best: bool) -> str:
    return f'<strong class="best">{escape(text)}</strong>' if is_best else escape(text)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _options(finalists: list[Finalist]) -> str:
    """What declares each, folded away."""
    lines = "".join(f"<p>{escape(f.name)}</p><pre>{escape(f.options)}</pre>" for f in finalists if f.options)
    return f"<details><summary>As options of a command line</summary>{lines}</details>" if lines else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _data(tuning: Tuning, names: dict[str, str]) -> dict[str, Any]:
    return {
        "arms": [],
        "judge": [_capital(tuning.judge.label), tuning.judge.unit],
        "best": [finalist.number for finalist in tuning.finalists],
        "trials": [
            {"number": t.number, "state": t.state, "values": t.values, "difference": _last(t)}
            for t in tuning.trials
        ],
        "candidates": [_panel(c, names[c.name], tuning.trials) for c in tuning.candidates],
    }


def _last(trial: Trial) -> float | None:
    return next((value for value in reversed(trial.differences) if value is not None), None)


def _panel(candidates: Candidates, name: str, trials: list[Trial]) -> dict[str, Any]:
    """A setting's figure: where each trial is, and what was declared."""
    values = {trial.number: trial.values[candidates.name] for trial in trials if candidates.name in trial.values}
    return {
        "name": candidates.name,
        "short": name,
        "log": candidates.log,
        "labels": None if candidates.values is None else [_label(candidates, v) for v in candidates.values],
        "declared": _position(candidates, candidates.declared),
        "at": {number: _position(candidates, value) for number, value in values.items()},
    }


def _position(candidates: Candidates, value: Any) -> float | None:
    """Numbers and durations, in days, as they are; others by their place among the choices."""
    if candidates.values is not None:
        return candidates.values.index(value) if value in candidates.values else None
    return duration_us(value) / duration_us("1d") if isinstance(value, str) else value


def _label(candidates: Candidates, value: Any) -> str:
    """Of lists what they have not in common with the declared one."""
    declared = candidates.declared
    if not isinstance(value, list) or not isinstance(declared, list):
        return shown(value)
    return "all" if value == declared else _change(declared, value)
