"""Reports as a replay would write them, made from a seed: no learner ran, the figures are only plausible."""

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np

from acclimate.artifacts import (
    ArmResult,
    CalibrationBin,
    CohortResult,
    Comparison,
    Report,
    Statistic,
    TracePoint,
    Weight,
    WindowDrift,
    WindowResult,
)

# name, AUC, log-loss, seconds a window, rows read a window, bytes of state
_ARMS = (
    ("stale", 0.7188, 0.5512, 0.021, 0, 41_000_000),
    ("incremental", 0.7311, 0.5443, 1.93, 16_300, 43_500_000),
    ("retrain", 0.7315, 0.5440, 61.4, 1_130_000, 43_900_000),
    ("fixed", 0.7042, 0.5603, 0.37, 16_300, 91_000),
    ("global-rate", 0.5000, 0.6201, 0.0004, 16_300, 16),
    ("item-rate", 0.6471, 0.5897, 0.012, 16_300, 121_000),
    ("user-rate", 0.6522, 0.5921, 0.013, 16_300, 430_000),
    ("lightgbm", 0.7296, 0.5451, 22.8, 1_130_000, None),
)
_COHORTS = {"0": 0.04, "1-4": 0.16, "5-19": 0.35, "20+": 0.45}
_GROUPS = ("tab", "hour", "tag", "user.user_active_degree")


def sample_report(*, arms: int = 8, windows: int = 11, truth: bool = True, seed: int = 0) -> Report:
    """All sections filled; names hold a dash, an equals sign and text that is not ASCII."""
    random = np.random.default_rng(seed)
    chosen = _ARMS[:arms]
    names = [name for name, *_ in chosen]
    return Report(
        name="Short video, long view",
        settings=_settings(windows),
        arms={row[0]: _arm(row, windows, truth=truth) for row in chosen},
        windows=[w for row in chosen for w in _windows(row, windows, truth=truth, random=random)],
        cohorts=[c for row in chosen for c in _cohorts(row, truth=truth, random=random)],
        calibration=[b for name in names for b in _calibration(name, random)],
        comparisons=[c for i, a in enumerate(chosen) for b in chosen[:i] for c in _compared(a, b)],
        weights=[w for name in names if name in ("incremental", "fixed") for w in _weights(name, random)],
        trace=[p for name in names if name in ("incremental", "retrain") for p in _trace(name, windows, random)],
        drift=[d for name in names if name in ("incremental", "fixed") for d in _drift(name, windows, random)],
    )


def without_measures(report: Report) -> Report:
    """The same replay where only one class of labels was seen: nothing is defined but the losses."""
    gone: dict[str, Any] = {"auc": None, "gauc": None, "ndcg": None, "normalized_entropy": None, "regret": None}
    return replace(
        report,
        arms={name: replace(arm, **gone, within={"tab": None}) for name, arm in report.arms.items()},
        windows=[replace(w, **gone) for w in report.windows],
        cohorts=[replace(c, **gone) for c in report.cohorts],
        comparisons=[],
        weights=[],
        trace=[],
        drift=[],
    )


def hostile_report(text: str) -> Report:
    """A report in which everything a user can name is ``text``, made distinct by a number where it must be."""
    plain = sample_report(windows=2)
    name = {arm: f"{text} {i}" for i, arm in enumerate(plain.arms)}
    return Report(
        name=text,
        settings={**plain.settings, "label": text, text: text},
        arms={name[a]: replace(r, within={text: 0.7}) for a, r in plain.arms.items()},
        windows=[replace(w, arm=name[w.arm]) for w in plain.windows],
        cohorts=[replace(c, arm=name[c.arm], cohort=f"{text}{c.cohort}") for c in plain.cohorts],
        calibration=[replace(b, arm=name[b.arm]) for b in plain.calibration],
        comparisons=[replace(c, arm=name[c.arm], against=name[c.against]) for c in plain.comparisons],
        weights=[replace(w, arm=name[w.arm], name=f"{text}={w.name}") for w in plain.weights],
        trace=[replace(p, arm=name[p.arm], entity=text, id=text, name=f"{text}{p.name}") for p in plain.trace],
        drift=[replace(d, arm=name[d.arm], effect=f"{text}{d.effect}") for d in plain.drift],
    )


def _settings(windows: int) -> dict[str, Any]:
    return {
        "label": "long_view",
        "start": _time(0),
        "every": "1d",
        "end": _time(windows),
        "zone": "Asia/Shanghai",
        "label_delay": None,
        "ndcg_at": 10,
        "entity": "user",
        "baseline_rate": 0.3112,
    }


def _time(day: int) -> str:
    zone = dt.timezone(dt.timedelta(hours=8))
    return (dt.datetime(2022, 4, 28, tzinfo=zone) + dt.timedelta(days=day)).isoformat()


def _quality(row: tuple[Any, ...], shift: float, rows: int, *, truth: bool) -> dict[str, Any]:
    _, auc, loss, *_ = row
    return {
        "rows": rows,
        "auc": auc + shift,
        "gauc": 0.5 + (auc - 0.5) * 0.7 + shift,
        "log_loss": loss - shift,
        "normalized_entropy": (loss - shift) / 0.6201,
        "calibration_error": 0.004 + abs(shift) + (0.62 - loss) * 0.03,
        "ndcg": 0.55 + (auc - 0.5) * 0.5 + shift,
        "regret": max(loss - 0.5431 - shift / 20, 0.0002) if truth else None,
    }


def _cost(row: tuple[Any, ...], factor: float) -> dict[str, Any]:
    name, _, _, seconds, rows, state = row
    learning = seconds * factor * 0.9
    return {
        "fit_seconds": learning if rows > 1e6 else 0.0,
        "update_seconds": 0.0 if rows > 1e6 or name == "stale" else learning,
        "predict_seconds": seconds * factor * 0.1,
        "rows_read": round(rows * factor),
        "state_bytes": state,
        "peak_bytes": 1_300_000_000,
        "seconds": seconds * factor,
    }


def _arm(row: tuple[Any, ...], windows: int, *, truth: bool) -> ArmResult:
    rows, within = 16_309 * windows, {"tab": row[1] - 0.021}
    return ArmResult(**_quality(row, 0.0, rows, truth=truth), **_cost(row, windows), within=within)


def _windows(
    row: tuple[Any, ...], windows: int, *, truth: bool, random: np.random.Generator
) -> list[WindowResult]:
    staleness = -0.0022 if row[0] in ("stale", "fixed") else 0.0
    day = np.random.default_rng(1).normal(0, 0.004, windows)  # days are hard or easy for all arms alike
    shifts = day + staleness * (np.arange(windows) - windows / 2) + random.normal(0, 0.0008, windows)
    if row[0] == "global-rate":
        shifts = np.zeros(windows)
    return [
        WindowResult(
            **_quality(row, float(shift), 13_000 + 700 * (i % 9), truth=truth),
            **_cost(row, float(random.uniform(0.9, 1.1))),
            arm=row[0],
            start=_time(i),
            end=_time(i + 1),
        )
        for i, shift in enumerate(shifts)
    ]


def _cohorts(row: tuple[Any, ...], *, truth: bool, random: np.random.Generator) -> list[CohortResult]:
    gain = {"0": -0.03, "1-4": -0.015, "5-19": 0.0, "20+": 0.012}
    personal = 1.0 if row[0] not in ("fixed", "global-rate", "item-rate") else 0.1
    return [
        CohortResult(
            **_quality(
                row, gain[name] * personal + float(random.normal(0, 0.001)), round(179_399 * share), truth=truth
            ),
            arm=row[0],
            cohort=name,
        )
        for name, share in _COHORTS.items()
    ]


def _calibration(arm: str, random: np.random.Generator) -> list[CalibrationBin]:
    predicted = np.sort(random.beta(2, 4, 15)) if arm != "global-rate" else np.array([0.31])
    observed = np.clip(
        predicted * (0.86 if arm == "stale" else 0.98) + random.normal(0, 0.006, len(predicted)), 0, 1
    )
    rows = 179_399 // len(predicted)
    return [CalibrationBin(arm, rows, float(p), float(o)) for p, o in zip(predicted, observed, strict=True)]


def _compared(a: tuple[Any, ...], b: tuple[Any, ...]) -> list[Comparison]:
    pairs = (
        ("auc", a[1] - b[1], 0.0011),
        ("gauc", (a[1] - b[1]) * 0.7, 0.0019),
        ("log_loss", a[2] - b[2], 0.0006),
    )
    return [Comparison(a[0], b[0], m, d, d - half - abs(d) / 9, d + half + abs(d) / 9) for m, d, half in pairs]


def _weights(arm: str, random: np.random.Generator) -> list[Weight]:
    names = ["intercept", "duration", *(f"{_GROUPS[i % 4]}={i // 4} élan" for i in range(78))]
    means, deviations = random.normal(0, 0.3, 80), random.uniform(0.01, 0.15, 80)
    return [Weight(arm, n, float(m), float(s)) for n, m, s in zip(names, means, deviations, strict=True)]


def _drift(arm: str, windows: int, random: np.random.Generator) -> list[WindowDrift]:
    kinds: list[tuple[Statistic, str]] = [("loss", ""), ("labels", ""), ("effect", "fixed"), ("effect", "user")]
    kinds += [("effect", "video")] if arm == "incremental" else []
    levels = {"loss": 0.545, "labels": 0.31, "effect": -0.04}
    return [
        WindowDrift(kind, effect, 16_309.0, levels[kind] + 0.002 * z, levels[kind], 0.002, z, arm, _time(i))
        for kind, effect in kinds
        for i, z in enumerate(random.normal(5.0 * (effect == "user"), 1.2, windows).tolist())
    ]


def _trace(arm: str, windows: int, random: np.random.Generator) -> list[TracePoint]:
    steps = random.normal(0, 0.12, (windows, 4)).cumsum(axis=0)
    return [
        TracePoint(
            arm, "user", "17283", _time(i + 1), name, float(steps[i, j]), 0.6 / float(np.sqrt(2 + i)), 3 * i + 4
        )
        for i in range(windows)
        for j, name in enumerate(("intercept", "tag=12", "tag=39", "duration"))
    ]
