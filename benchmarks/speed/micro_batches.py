"""Updates of a GLMix by micro-batches: what an event costs, and what a batch does however small it is.

Users with 16 coefficients and full precisions, who come uniformly or by Zipf's law. ``learn`` refreshes the
populations with the batch, ``locked`` holds them and the fixed effect, ``keep`` is an update with
``shared="keep"``.
CPU time of one thread, the least of several batches, in turns, so that modes share what else the machine does.
"""

import copy
import os
import time

import numpy as np
import pyarrow as pa

import acclimate as ac

SIZES, COEFFICIENTS, USERS, ROUNDS = (200, 1_000, 5_000, 20_000), 16, 3_000, 7
FEATURES = [f"x{number}" for number in range(COEFFICIENTS - 1)]
SCHEMA = ac.Schema(
    time="time", entities=["user"], labels="click", features={name: {"kind": "numeric"} for name in FEATURES}
)
START = 1_700_000_000_000_000


class World:
    """Users who click by coefficients of their own."""

    def __init__(self, *, zipf: bool) -> None:
        self.rng = np.random.default_rng(0)
        self.coefficients = 0.3 * self.rng.normal(size=(USERS, COEFFICIENTS))
        share = 1.0 / np.arange(1, USERS + 1) if zipf else np.ones(USERS)
        self.share, self.now = share / share.sum(), START

    def events(self, rows: int) -> ac.Events:
        """The next rows, a hundred microseconds apart, in memory."""
        rng = self.rng
        user, X = rng.choice(USERS, rows, p=self.share), rng.normal(size=(rows, COEFFICIENTS - 1))
        z = self.coefficients[user, 0] + np.vecdot(X, self.coefficients[user, 1:])
        columns = {
            "time": pa.array(self.now + 100 * np.arange(rows), pa.timestamp("us", "UTC")),
            "user": user,
            "click": (rng.random(rows) < 1.0 / (1.0 + np.exp(-z))).astype(np.int8),
            **dict(zip(FEATURES, X.T, strict=True)),
        }
        self.now += 100 * rows
        return ac.read_events(pa.table(columns), SCHEMA).cached()


def modes(events: ac.Events) -> dict[str, tuple[ac.GLMix, dict[str, object]]]:
    """A model of each, and the options of its updates."""
    random, fixed = [ac.RandomEffect("user", FEATURES)], ac.FixedEffect(FEATURES)
    learned = ac.GLMix(fixed=fixed, random=random).fit(events)
    held = ac.GLMix(fixed=fixed, random=random, learn_population=False).fit(events)
    return {
        "learn": (learned, {}),
        "locked": (held, {"locked": ["fixed"]}),
        "keep": (copy.deepcopy(learned), {"shared": "keep"}),
    }


def main() -> None:
    if os.environ.get("NUMBA_NUM_THREADS") != "1":
        print("set OMP_NUM_THREADS, OPENBLAS_NUM_THREADS and NUMBA_NUM_THREADS to 1 for the figures of one core")
    heads = [(f"{size:,}", 10) for size in SIZES]
    print(f"{'CPU us an event, batches of':<32}", *(f"{head:>{width}}" for head, width in heads), "   ms of 200")
    for users, zipf in (("uniform", False), ("Zipf", True)):
        world = World(zipf=zipf)
        models = modes(world.events(100_000))
        cost = {name: [measured[name] for measured in _by_size(world, models)] for name in models}
        for name, seconds in cost.items():
            each = (1e6 * one / size for one, size in zip(seconds, SIZES, strict=True))
            print(f"{users + ', ' + name:<32}", *(f"{one:>10.1f}" for one in each), f"{1e3 * seconds[0]:>12.2f}")


def _by_size(world: World, models: dict[str, tuple[ac.GLMix, dict[str, object]]]) -> list[dict[str, float]]:
    """CPU seconds of a batch of each size, by mode."""
    found: list[dict[str, float]] = []
    for size in SIZES:
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(ROUNDS):
            batch = world.events(size)
            for name, (model, options) in models.items():
                begun = time.process_time()
                model.update(batch, **options)
                seconds[name].append(time.process_time() - begun)
        found.append({name: min(times) for name, times in seconds.items()})
    return found


if __name__ == "__main__":
    main()
