"""What a search among settings found: the best beside the declared ones, and whether that is more than noise.

Written as ``tuning.json`` for programs and ``tuning.html`` for people.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scipy.special import ndtri

from acclimate.artifacts import JUDGES, Comparison, Finalist, Report, Trial, Tuning
from acclimate.evaluate.tune_page import render_tuning
from acclimate.storage import replacing_folder

FORMAT = 1
"""Raised when an older reader could misread a newer file."""
DECLARED = "declared"
"""The arm of the declared settings."""


def best_trials(trials: Sequence[Trial], most: int) -> list[Trial]:
    """The complete trials of least loss, those of equal values once."""
    distinct: dict[str, Trial] = {}
    for trial in trials[1:]:
        if trial.state == "complete":
            distinct.setdefault(json.dumps(trial.values, default=str), trial)
    return sorted(distinct.values(), key=lambda t: (t.loss, t.number))[:most]


def finalists(
    report: Report,
    chosen: Sequence[Trial],
    *,
    looks: int,
    changes: Callable[[Trial], dict[str, tuple[Any, Any]]],
    options: Callable[[Trial], str],
) -> list[Finalist]:
    """What the replay of the declared settings and some trials says of the latter.

    Of ``looks`` trials the best look better than they are. So an interval is as wide as it must be for all of them
    to hold at once with 95 % confidence (Bonferroni): by ``z(1 - .025 / looks) / z(1 - .025)``, where a normal
    deviate has ``z``.
    """
    key = JUDGES[report.settings.get("label_kind", "binary")].key
    wider = float(ndtri(1 - 0.025 / max(looks, 1)) / ndtri(1 - 0.025))
    found: list[Finalist] = []
    for trial in chosen:
        arm = report.arms[f"trial {trial.number}"]
        loss = getattr(arm, key)
        compared = (c for c in report.comparisons if c.metric == key)
        known = next((c for c in compared if {c.arm, c.against} == {f"trial {trial.number}", DECLARED}), None)
        low, difference, high = _seen_from(known, wider) if known else (None, None, None)
        found.append(Finalist(trial.number, changes(trial), loss, arm.auc, difference, low, high, options(trial)))
    return found


def _seen_from(known: Comparison, wider: float) -> tuple[float, float, float]:
    """The trial minus the declared settings, whichever way round it was compared, in a wider interval."""
    d, low, high = known.difference, known.low, known.high
    if known.arm == DECLARED:
        d, low, high = -d, -high, -low
    return d - wider * (d - low), d, d + wider * (high - d)


def write_tuning(tuning: Tuning, out: Path, *, patched: str | None) -> None:
    """Write the folder ``out`` of ``tuning.json`` and ``tuning.html``, and the project file if it was patched.

    Raises:
        OutputExistsError: ``out`` holds something else.
        OutputError: the disk is full, or the place cannot be written.
    """
    content = {"format": FORMAT, **asdict(tuning), "verdict": tuning.verdict}
    content["chosen"] = tuning.chosen.number if tuning.chosen else None
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False, default=str)
    page = render_tuning(tuning)
    with replacing_folder(out, "tuning", overwrite=True) as folder:
        (folder / "tuning.json").write_text(text, encoding="utf-8")
        (folder / "tuning.html").write_text(page, encoding="utf-8")
        if patched is not None:
            (folder / "acclimate.yaml").write_text(patched, encoding="utf-8")
