"""Fit 200,000 entities of 16 coefficients with 5 rows each, populations learned: CPU seconds and peak memory."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import acclimate as ac
from benchmarks.speed import _children

ENTITIES, ROWS_EACH, FEATURES = 200_000, 5, 15
SCHEMA = ac.Schema(time="time", entities=["user"], labels="click")


def main() -> None:
    heads = ("CPU s", 7), ("rounds", 7), ("steps", 6), ("peak GB", 8), ("states GB", 10), ("peak/states", 12)
    print(f"{'fixed effect':>16}", *(f"{head:>{width}}" for head, width in heads))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "log.parquet")
        for name in ("intercept", "all"):
            cost = _children.run(__name__, name, Path(folder) / "log.parquet")
            fit, states = cost.said, cost.said["states_bytes"]
            print(
                f"{name:>16} {fit['cpu_seconds']:>7.1f} {fit['rounds']:>7} {fit['steps']:>6} "
                f"{cost.peak_bytes / 1e9:>8.2f} {states / 1e9:>10.2f} {cost.peak_bytes / states:>12.2f}"
            )


def write(path: Path) -> None:
    """A log in which every user has a level and tastes of their own; rows come in no order of users."""
    rng = np.random.default_rng(0)
    user = rng.permutation(np.repeat(np.arange(ENTITIES), ROWS_EACH))
    x, taste = rng.normal(size=(len(user), FEATURES)), 0.3 * rng.normal(size=(ENTITIES, FEATURES + 1))
    z = taste[user, 0] + np.vecdot(x, taste[user, 1:]) + 0.5 * x[:, 0]
    columns = {
        "time": pa.array(1_700_000_000_000_000 + 1000 * np.arange(len(user)), pa.timestamp("us", "UTC")),
        "user": user,
        "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), FEATURES),
        "click": (rng.random(len(user)) < 1.0 / (1.0 + np.exp(-z))).astype(np.int8),
    }
    pq.write_table(pa.table(columns), path)


def fit(fixed: list[str], path: Path) -> None:
    """CPU seconds of the fit alone, reading its rows included."""
    model = ac.GLMix(fixed=ac.FixedEffect(fixed), random=[ac.RandomEffect("user", ["x"])])
    events = ac.read_events(path, SCHEMA)
    begun = time.process_time()
    info = model.fit(events).info
    _children.tell(
        cpu_seconds=time.process_time() - begun,
        rounds=info.rounds,
        steps=info.steps,
        states_bytes=model.nbytes,
        converged=info.converged,
    )


if __name__ == "__main__":
    fit({"intercept": [], "all": ["x"]}[sys.argv[1]], Path(sys.argv[2]))
