"""Update and predict 1,000 rows with many users stored: cost has to follow the rows, not the users.

Each size is a saved model of users with 9 coefficients and full precisions, loaded in a process of its own.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import acclimate as ac
from benchmarks.speed import _children

SIZES = (10_000, 1_000_000)
COEFFICIENTS, ROWS, ROUNDS = 9, 1_000, 60
SCHEMA = ac.Schema(time="time", entities=["user"], labels="click")


def main() -> None:
    heads = ("CPU ms a round", 15), ("ratio", 6), ("peak GB", 8), ("states GB", 10), ("peak/states", 12)
    print(f"{'users stored':>16}", *(f"{head:>{width}}" for head, width in heads))
    first = None
    for users in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            _children.run(__name__, "store", users, folder)
            cost = _children.run(__name__, "load", users, folder)
        cpu, states = cost.said["cpu_seconds"], cost.said["states_bytes"]
        first = first or cpu
        print(
            f"{users:>16,} {1e3 * cpu:>15.2f} {cpu / first:>6.2f} {cost.peak_bytes / 1e9:>8.2f} "
            f"{states / 1e9:>10.2f} {cost.peak_bytes / states:>12.2f}"
        )


def rows(seed: int, users: int) -> ac.Events:
    """Rows of users drawn from all that are stored."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, COEFFICIENTS - 1))
    columns = {
        "time": pa.array(1_700_000_000_000_000 + seed * 10**9 + np.arange(ROWS), pa.timestamp("us", "UTC")),
        "user": rng.integers(0, users, ROWS),
        "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), COEFFICIENTS - 1),
        "click": rng.integers(0, 2, ROWS).astype(np.int8),
    }
    return ac.read_events(pa.table(columns), SCHEMA).cached()


def store(users: int, folder: Path) -> None:
    """Save a model that knows all users."""
    model_of(users).save(folder / "model")
    _children.tell()


def model_of(users: int) -> ac.GLMix:
    """A model that knows so many users: fitted on some, the others put beside them."""
    model = ac.GLMix(fixed=ac.FixedEffect(["x"]), random=[ac.RandomEffect("user", ["x"])])
    model.fit(rows(0, users))
    rng, d = np.random.default_rng(1), COEFFICIENTS
    for first in range(0, users, 50_000):
        ids = np.arange(first, min(first + 50_000, users))
        root = rng.normal(size=(len(ids), d, d))
        posterior = ac.Posterior(rng.normal(size=(len(ids), d)), root @ np.swapaxes(root, 1, 2) + d * np.eye(d))
        states = ac.EntityStates(ids, posterior, np.full(len(ids), model.cut), np.full(len(ids), 20))
        model.entities.commit({"user": (states,)})
    return model


def load(users: int, folder: Path) -> None:
    """Load it, then learn and predict: CPU seconds of the median round."""
    model = ac.GLMix.load(folder / "model")
    batches = [rows(seed, users) for seed in range(2, 2 + ROUNDS)]
    seconds: list[float] = []
    for batch in batches:
        begun = time.process_time()
        model.update(batch)
        model.predict(batch)
        seconds.append(time.process_time() - begun)
    _children.tell(cpu_seconds=float(np.median(seconds)), states_bytes=model.nbytes)


if __name__ == "__main__":
    {"store": store, "load": load}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
