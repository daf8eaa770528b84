"""The replay of this folder with several seeds of the networks: every arm's figures, their means and intervals.

KUAIRAND_DIR=... python examples/kuairand_deep/seeds.py OUT [SEED ...]

Each seed's report lies in OUT/seed-N; one that is there already is not made again.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from acclimate import pipeline
from acclimate.project import load_project

PROJECT = Path(__file__).parent / "acclimate.yaml"
NETWORKS = ("wide", "cross")
FIGURES = {"auc": ".4f", "gauc": ".4f", "log_loss": ".5f", "calibration_error": ".4f"}
PAIRS = (
    ("incremental", "retrain"),
    ("incremental", "fine-tune"),
    ("incremental", "stale"),
    ("stacked", "incremental"),
    ("stacked", "glmix"),
    ("cross-incremental", "cross-retrain"),
    ("cross-incremental", "cross-fine-tune"),
)


def metrics(out: Path, seed: int) -> dict:
    """The figures of one seed, from its report or from a replay."""
    place = out / f"seed-{seed}"
    if not place.exists():
        project = load_project(PROJECT, [f"learners.{name}.training.seed={seed}" for name in NETWORKS])
        pipeline.replay_project(project, place)
    return json.loads((place / "metrics.json").read_text())


def interval(values: np.ndarray, form: str) -> str:
    """Mean and 95 % interval over seeds, by Student's t."""
    if len(values) < 2:
        return f"{values.mean():{form}}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():{form}} ± {half:{form.removeprefix('+')}}"


def seconds(report: dict, arm: str) -> float:
    """What an arm's learning takes in a window."""
    windows = [window for window in report["windows"] if window["arm"] == arm]
    return float(np.mean([window["fit_seconds"] + window["update_seconds"] for window in windows]))


def main() -> None:
    """Print two tables."""
    out, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or list(range(5))
    reports = [metrics(out, seed) for seed in seeds]
    names = list(reports[0]["arms"])
    print(f"{len(seeds)} seeds")
    print("| arm |", " | ".join(FIGURES), "| s per window |\n" + "| --- " * (len(FIGURES) + 2) + "|")
    for name in names:
        arms = [report["arms"][name] for report in reports]
        cells = [interval(np.array([arm[figure] for arm in arms]), form) for figure, form in FIGURES.items()]
        print(f"| {name} | {' | '.join(cells)} | {np.mean([seconds(report, name) for report in reports]):.3g} |")
    print("\n| minus |", " | ".join(FIGURES), "|\n" + "| --- " * (len(FIGURES) + 1) + "|")
    for one, other in PAIRS:
        differences = {
            figure: np.array([r["arms"][one][figure] - r["arms"][other][figure] for r in reports])
            for figure in FIGURES
        }
        cells = [interval(values, "+.5f") for values in differences.values()]
        print(f"| {one} - {other} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
