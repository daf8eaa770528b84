"""What adaptive effects gain where tastes jump, and cost where they do not, beside fixed weights of the past.

``python -m benchmarks.quality.drift [--seeds 8]``: worlds whose tastes stand still but for a jump, on the fifth
day of fourteen that are predicted before they are learned; the jump is of half of the users, or of none.
Users' effects keep all of the past, a fixed part of it, what a half-life leaves, or are adaptive. Regret is the
expected log-loss above that of the true probabilities, in 1e-4 nats a row, with 95 % intervals over seeds.

With ``--kuairand`` instead, and the folder of the data in ``KUAIRAND_DIR``: how KuaiRand-Pure surprises the
example's learners from 20 to 27 April, and what they lose with adaptive effects and without.
"""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import acclimate as ac
from acclimate import learners, pipeline, project
from acclimate.config import GLMixParameters
from benchmarks.quality.effects_world import interval

EXAMPLE = Path(__file__).parents[2] / "examples" / "kuairand" / "acclimate.yaml"
FEATURES = ["surface", "hour", "position", "topics", "duration"]
START, JUMP = "2024-01-11", 14
"""The first day that is predicted, and the day of the jump counted from 0, which is the fifth of these."""

FIXED: dict[str, dict[str, Any]] = {
    "all of the past": {},
    **{f"forgetting {d}": {"forgetting": d} for d in (0.98, 0.95, 0.9, 0.8, 0.65, 0.5)},
    **{f"half-life {h}": {"half_life": h} for h in ("7d", "14d", "30d")},
}
"""Options of the users' effect that weigh the past the same every day."""

ADAPTIVE: dict[str, dict[str, Any]] = {"adaptive": {"adaptive": True}}


def regrets(
    options: Mapping[str, Mapping[str, Any]], *, seed: int, share: float, users: int = 200, rows: int = 2_000
) -> dict[str, np.ndarray]:
    """Regret of each day (14,), by what the users' effect is told of the past, in a world of one seed."""
    events = ac.simulate(
        users=users,
        items=200,
        days=24,
        events_per_day=rows,
        seed=seed,
        jump_day=JUMP,
        jump_share=share,
        half_life="36500d",
    )
    arms = [
        ac.Arm(name, ac.GLMix(fixed=FEATURES, random=[ac.RandomEffect("user", ["topics"], **told), "item"]))
        for name, told in options.items()
    ]
    windows = ac.replay(arms, events, start=START).windows
    return {name: 1e4 * np.array([w.regret for w in windows if w.arm == name], float) for name in options}


def simulated(seeds: Sequence[int]) -> None:
    """Print the regret of all ways to weigh the past, and what the adaptive one has less."""
    few = {name: FIXED[name] for name in list(FIXED)[:3]}
    for told, share, fixed in (("half of the users jump", 0.5, FIXED), ("nothing jumps", 0.0, few)):
        options = ADAPTIVE | fixed
        found = [regrets(options, seed=seed, share=share) for seed in seeds]
        print(f"\n{told}\n\n| past | before | after | adaptive less this, all days |\n| --- | --- | --- | --- |")
        for name in options:
            days = np.array([one[name] for one in found])
            lead = np.array([one["adaptive"] - one[name] for one in found]).mean(axis=1)
            cells = [interval(days[:, :5].mean(axis=1), 0), interval(days[:, 5:].mean(axis=1), 0)]
            print(f"| {name} | {' | '.join(cells)} | {interval(lead, 1) if lead.any() else '0'} |", flush=True)


def adaptive(declared: Any, *, fixed: bool) -> Any:
    """The same learner with adaptive random effects, and fixed one."""
    if not isinstance(declared, GLMixParameters):
        return replace(declared, learner=adaptive(declared.learner, fixed=fixed))
    random = tuple(replace(effect, adaptive=True) for effect in declared.random)
    return replace(declared, random=random, fixed=replace(declared.fixed, adaptive=fixed))


def kuairand() -> None:
    """Print how the days surprise the example's learners, and what adaptive effects change, with intervals."""
    given = project.load_project(EXAMPLE)
    events = pipeline.open_events(given)
    for name in ("ranker", "whole"):
        declared = given.learner(name)
        kinds = {
            "as declared": declared,
            "random effects adaptive": adaptive(declared, fixed=False),
            "all adaptive": adaptive(declared, fixed=True),
        }
        arms = [ac.Arm(kind, learners.make(one)) for kind, one in kinds.items()]
        report = ac.replay(arms, events, start="2022-04-20", end="2022-04-28")
        told = [one for one in report.drift if one.arm == "as declared"]
        days = list(dict.fromkeys(one.start[:10] for one in told))
        print(f"\n{name}: z by day\n\n| | {' | '.join(days)} |\n|{' --- |' * (len(days) + 1)}")
        for what in dict.fromkeys((one.statistic, one.effect) for one in told):
            z = [one.z for one in told if (one.statistic, one.effect) == what]
            print(f"| {' '.join(what).strip()} | {' | '.join('' if v is None else f'{v:.1f}' for v in z)} |")
        print(f"\n| {name} | log-loss | AUC | seconds a window |\n| --- | --- | --- | --- |")
        for kind, arm in report.arms.items():
            print(f"| {kind} | {arm.log_loss:.5f} | {arm.auc:.5f} | {arm.seconds / 8:.1f} |")
        for one in report.comparisons:
            if one.metric == "log_loss" and one.arm == "as declared":
                print(f"{one.against} less as declared: {-one.difference:.5f} ({-one.high:.5f} to {-one.low:.5f})")
        for kind in kinds:
            losses = [f"{w.log_loss:.5f}" for w in report.windows if w.arm == kind]
            print(f"{kind} by day: {' '.join(losses)}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kuairand", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    kuairand() if asked.kuairand else simulated(range(asked.seeds))


if __name__ == "__main__":
    main()
