"""What updates know of users that are new, or of another kind than those of the fit: regret, cold and warm.

``python -m benchmarks.quality.moving_population [--seeds 10] [--arms incremental retrain] [--mode point]``. A fit
on ten days of users of one kind; then users of another kind arrive every day, and every day is predicted before it
is learned. Regret is the expected log-loss above the oracle's in 1e-4 nats a row: of users on their first day, and
of all others that came after the fit, over all days but the first two.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

import acclimate as ac
from acclimate.models.scoring import Mode
from benchmarks.quality.effects_world import events_of, interval, regret

FIRST, DAYS, OLD, NEW, EACH = 10, 20, 300, 40, 3
"""Days of the fit and in all; users of the fit, new ones a day; rows of a user a day."""


@dataclass(frozen=True)
class World:
    """``mean`` and ``sd`` of level and slope: of users of the fit, and of those that come after it.

    ``shared``: whether the fixed effect has the slope's feature too. ``levels``: of a feature that users have
    tastes for, of variance .25; the last of them is first seen after the fit.
    """

    mean: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.5), (0.0, 0.5))
    sd: tuple[tuple[float, float], tuple[float, float]] = ((0.5, 0.5), (0.5, 0.5))
    shared: bool = False
    levels: int = 0

    def model(self) -> ac.GLMix:
        """Not fitted yet."""
        taste = ["genre"] if self.levels else ["x"]
        return ac.GLMix(fixed=["x"] if self.shared else [], random=[ac.RandomEffect("user", taste)])

    def days(self, seed: int) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Columns of each day, and the true probabilities of its rows."""
        rng = np.random.default_rng(seed)
        count = OLD + NEW * (DAYS - FIRST)
        born = np.concatenate([np.full(OLD, -1), np.repeat(np.arange(FIRST, DAYS), NEW)])
        late = (born >= 0).astype(int)
        w = np.array(self.mean)[late] + np.array(self.sd)[late] * rng.standard_normal((count, 2))
        taste = 0.5 * rng.standard_normal((count, max(self.levels, 1)))
        days = []
        for day in range(DAYS):
            user = np.repeat(np.flatnonzero(born <= day), EACH)
            if day < FIRST:
                user = user[rng.random(len(user)) < 0.5]
            x = rng.standard_normal(len(user))
            z = -0.5 + w[user, 0]
            columns = {"day": np.full(len(user), day), "user": user, "x": x, "born": born[user]}
            if self.levels:
                level = rng.integers(0, self.levels - (day < FIRST), len(user))
                z = z + taste[user, level]
                columns |= {"genre": np.array([f"level {k}" for k in level]), "new": level == self.levels - 1}
            else:
                z = z + w[user, 1] * x
            p = expit(z)
            days.append((columns | {"click": (rng.random(len(p)) < p).astype(int)}, p))
        return days


WORLDS = {
    "nothing moves": World(),
    "mean slope .5 to 1.5": World(mean=((0.0, 0.5), (0.0, 1.5))),
    "mean slope .5 to 1.5, shared with the fixed effect": World(mean=((0.0, 0.5), (0.0, 1.5)), shared=True),
    "mean level 0 to 1": World(mean=((0.0, 0.5), (1.0, 0.5))),
    "sd of level and slope .3 to 1.5": World(sd=((0.3, 0.3), (1.5, 1.5))),
    "a level of 6 first seen in updates": World(levels=6),
}


def read(days: Sequence[tuple[dict[str, np.ndarray], np.ndarray]]) -> ac.Events:
    names = [name for name in days[0][0] if name not in ("born", "new")]
    return events_of({name: np.concatenate([columns[name] for columns, _ in days]) for name in names})


def run(world: World, arm: str, seed: int, mode: Mode) -> list[float]:
    """Regret of cold and warm users, and CPU seconds of an update.

    Of a new level: of its rows by users of the fit, and by those that came later.
    """
    days = world.days(seed)
    model = world.model().fit(read(days[:FIRST]))
    cold, warm, seconds = list[tuple[np.ndarray, np.ndarray]](), list[tuple[np.ndarray, np.ndarray]](), 0.0
    for day in range(FIRST, DAYS):
        columns, truth = days[day]
        today = read([days[day]])
        p = model.predict(today, mode=mode)
        first = columns["born"] == day
        later = (columns["born"] >= FIRST) & ~first
        if world.levels:  # what is known of the new level by those who have met it and by those who have not
            first, later = columns["new"] & (columns["born"] < FIRST), columns["new"] & later
        if day >= FIRST + (1 if world.levels else 2):
            cold.append((p[first], truth[first]))
            warm.append((p[later], truth[later]))
        start = time.process_time()
        model = world.model().fit(read(days[: day + 1])) if arm == "retrain" else model.update(today)
        seconds += time.process_time() - start
    joined = [np.concatenate(parts) for group in (cold, warm) for parts in zip(*group, strict=True)]
    return [regret(*joined[:2]), regret(*joined[2:]), seconds / (DAYS - FIRST)]


def main() -> None:
    """Print a line a world and arm: means over seeds with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arms", nargs="+", default=["incremental", "retrain"])
    parser.add_argument("--mode", choices=["point", "integrated"], default="point")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| world | arm | cold | warm | s |\n| --- | --- | --- | --- | --- |")
    for name, world in WORLDS.items():
        for arm in asked.arms:
            found = np.array([run(world, arm, seed, asked.mode) for seed in range(asked.seeds)])
            cells = " | ".join(interval(column, 0) for column in found[:, :2].T)
            print(f"| {name} | {arm} | {cells} | {found[:, 2].mean():.3f} |", flush=True)


if __name__ == "__main__":
    main()
