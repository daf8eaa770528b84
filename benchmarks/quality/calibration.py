"""What a calibration gains and costs: log-loss, calibration error and AUC with it and without.

python -m benchmarks.quality.calibration

Simulated worlds, seed by seed: one whose tastes drift, one that jumps besides, one in which a part of the logit
that is taken as known is too sure of itself. Then KuaiRand, where ``KUAIRAND_DIR`` names its folder: the half-life
is chosen on days before 28 April, and told on the days after.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats
from scipy.special import expit

import acclimate as ac
from acclimate import learners, pipeline
from acclimate.evaluate import metrics
from acclimate.evaluate.comparisons import compare
from acclimate.project import load_project

SEEDS = 20
HALF_LIVES = (None, "14d", "7d", "3d", "1d", "12h")
DAY, START = 86_400_000_000, 1_704_067_200_000_000
PROJECT = Path(__file__).parents[2] / "examples/kuairand/acclimate.yaml"
CHOSEN_ON, TOLD_ON = ("2022-04-20", "2022-04-28"), ("2022-04-28", "2022-05-09")
MEASURES: Mapping[str, Callable[..., float | None]] = {
    "log-loss": metrics.log_loss,
    "calibration error": metrics.calibration_error,
    "AUC": metrics.auc,
}


class Said(NamedTuple):
    """What came true of the rows of all windows ``(n,)``, their entities, and what each learner said."""

    y: np.ndarray
    entities: list[np.ndarray]
    p: dict[str, np.ndarray]


def played(arms: Mapping[str, Any], events: ac.Events, start: str, end: str | None = None) -> Said:
    """Every arm predicts a day, and then learns it."""
    for learner in arms.values():
        learner.fit(events.before(start))
    label = events.schema.label(next(iter(arms.values())).parameters.label)
    columns = [label, *events.schema.entities.values()]
    rows: list[pa.Table] = []
    said: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    for window in events.windows("1d", start, end):
        day = window.cached()
        rows.append(day.table(columns))
        for name, learner in arms.items():
            said[name].append(learner.predict(day))
            learner.update(day)
    table = pa.concat_tables(rows)
    y, *entities = (table[name].to_numpy() for name in columns)
    return Said(y.astype(float), entities, {name: np.concatenate(parts) for name, parts in said.items()})


# --- simulated worlds -------------------------------------------------------------------------------------------


def drifting(seed: int, jump_day: int | None = None) -> tuple[ac.Events, dict[str, Any]]:
    """Tastes that move a little every day, and all at once on the day of the jump."""
    events = ac.simulate(users=400, items=100, days=24, events_per_day=2000, jump_day=jump_day, seed=seed)
    return events, {"fixed": ["surface", "position"], "random": {"user": ["topics"], "item": []}}


def jumping(seed: int) -> tuple[ac.Events, dict[str, Any]]:
    """The same with a jump half way."""
    return drifting(seed, jump_day=17)


def too_sure(seed: int) -> tuple[ac.Events, dict[str, Any]]:
    """Users of different levels, and an offset of twice the size that it should have."""
    rng, days, each = np.random.default_rng(seed), 24, 2000
    n = days * each
    user, known = rng.integers(0, 400, n), rng.normal(0.0, 2.0, n)
    level = rng.normal(-1.0, 0.7, 400)
    columns = {
        "time": pa.array(START + DAY // each * np.arange(n), pa.timestamp("us", "UTC")),
        "user_id": user,
        "known": known,
        "click": (rng.random(n) < expit(level[user] + 0.5 * known)).astype(int),
    }
    schema = ac.Schema(time="time", entities={"user": "user_id"}, labels="click", offset="known")
    return ac.read_events(pa.table(columns), schema), {"random": {"user": []}}


def measured(world: Callable[[int], tuple[ac.Events, dict[str, Any]]]) -> np.ndarray:
    """Each measure without calibration, and by each of two half-lives: ``(seeds, 3, measures)``."""
    found: list[list[list[float | None]]] = []
    for seed in range(SEEDS):
        events, declared = world(seed)
        arms = {"plain": ac.GLMix(**declared)} | {
            str(half_life): ac.Calibrated(ac.GLMix(**declared), half_life=half_life) for half_life in (None, "3d")
        }
        said = played(arms, events, "2024-01-11")
        found.append([[measure(said.y, p) for measure in MEASURES.values()] for p in said.p.values()])
    return np.array(found, float)


def told(differing: np.ndarray) -> str:
    """Mean and 95 % interval (Student's t over seeds)."""
    mean, half = differing.mean(), stats.t.ppf(0.975, len(differing) - 1) * stats.sem(differing)
    return f"{mean:+.5f} [{mean - half:+.5f}, {mean + half:+.5f}]"


def simulated() -> None:
    """One line for each world and half-life."""
    for world in (drifting, jumping, too_sure):
        plain, *others = measured(world).swapaxes(0, 1)
        for half_life, platt in zip(("none", "3d"), others, strict=True):
            parts = [
                f"{name} {plain[:, m].mean():.5f} {told(platt[:, m] - plain[:, m])}"
                for m, name in enumerate(MEASURES)
            ]
            print(f"{world.__name__:9} half-life {half_life:4}  " + ", ".join(parts), flush=True)


# --- KuaiRand ---------------------------------------------------------------------------------------------------


def ranker(half_life: str | None, *, calibrate: bool = True) -> Any:
    """The learner of the example, calibrated or not."""
    plain = load_project(PROJECT).learner("ranker")
    return ac.Calibrated(plain, half_life=half_life) if calibrate else learners.make(plain)


def intervals(said: Said, arm: str, against: str) -> Iterator[str]:
    """Each measure of both, and their difference with a 95 % interval over users and videos."""
    names = {name.replace(" ", "_").replace("-", "_").lower(): name for name in MEASURES}
    user, video = said.entities
    p = np.column_stack([said.p[arm], said.p[against]])
    for found in compare((arm, against), said.y, p, user, window=np.zeros(len(user), np.int64), crossed=video):
        if name := names.get(found.metric):
            one, other = (MEASURES[name](said.y, said.p[a]) for a in (arm, against))
            change = f"{found.difference:+.5f} [{found.low:+.5f}, {found.high:+.5f}]"
            yield f"{name} {other:.5f} -> {one:.5f}: {change}"


def kuairand() -> None:
    """The half-life that is best before 28 April, and what it does after."""
    if not os.environ.get("KUAIRAND_DIR"):
        print("KuaiRand: skipped; set KUAIRAND_DIR to the folder of `acclimate data kuairand-pure`")
        return
    events = pipeline.open_events(load_project(PROJECT))
    said = played({str(h): ranker(h) for h in HALF_LIVES}, events, *CHOSEN_ON)
    losses = {name: metrics.log_loss(said.y, p) or np.inf for name, p in said.p.items()}
    print(f"KuaiRand, log-loss from {CHOSEN_ON[0]} to {CHOSEN_ON[1]} by half-life:", losses, flush=True)
    best = min(HALF_LIVES, key=lambda half_life: losses[str(half_life)])
    arms = {"plain": ranker(None, calibrate=False), "platt": ranker(best)}
    said = played(arms, events, *TOLD_ON)
    print(f"KuaiRand from {TOLD_ON[0]} on, half-life {best}, line {arms['platt'].line()}:")
    for line in intervals(said, "platt", "plain"):
        print("  " + line, flush=True)


def main() -> None:
    """Print one line a setting."""
    simulated()
    kuairand()


if __name__ == "__main__":
    main()
