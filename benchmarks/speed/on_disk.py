"""Bring a model on disk up to date, with a million and with ten million users stored: seconds, memory, bytes.

``python -m benchmarks.speed.on_disk [USERS ...]``: users with 16 coefficients, full precisions, in 32 bits; an
update of 1,000,000 events of 300,000 of them within a ``memory_limit`` of 250 MB, as ``acclimate update`` runs it
(load, learn, save) in a process of its own. It needs 20 GB of disk, under the current folder.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import acclimate as ac
from benchmarks.speed import _children

SIZES = (1_000_000, 10_000_000)
COEFFICIENTS, EVENTS, TOUCHED, ROUNDS, LIMIT = 16, 1_000_000, 300_000, 3, "250MB"
SCHEMA = ac.Schema(time="time", entities=["user"], labels="click")
_PIECE = 1_000_000
_MODULE = "benchmarks.speed.on_disk"


def main() -> None:
    print(
        "| users stored | on disk | load | learn | save | CPU s | peak memory | at the start | written |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for users in [int(size) for size in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            _children.run(_MODULE, "store", users, folder)
            costs = [_children.run(_MODULE, "update", users, folder, number) for number in range(ROUNDS)]
            stored = sum(file.stat().st_size for file in Path(folder, "model").rglob("*"))
        said = {name: float(np.median([cost.said[name] for cost in costs])) for name in costs[0].said}
        cpu, peak = (float(np.median([getattr(c, name) for c in costs])) for name in ("cpu_seconds", "peak_bytes"))
        print(
            f"| {users:,} | {stored / 1e9:.1f} GB | {said['load']:.2f} s | {said['learn']:.1f} s "
            f"| {said['save']:.2f} s | {cpu:.1f} | {peak / 1e9:.2f} GB | {said['start'] / 1e9:.2f} GB "
            f"| {said['written'] / 1e6:.0f} MB |",
            flush=True,
        )


def store(users: int, folder: Path) -> None:
    """Save a model that knows all users, and the events to come: each of users drawn from all that are stored."""
    ac.GLMix(fixed=ac.FixedEffect(["x"]), random=[ac.RandomEffect("user", ["x"])], states="float32").fit(
        ac.read_events(rows(0, np.arange(1_000)), SCHEMA)
    ).save(folder / "model")
    rng, d = np.random.default_rng(1), COEFFICIENTS
    for first in range(0, users, _PIECE):
        model = ac.GLMix.load(folder / "model")
        population = model.state.random[0].base
        for begin in range(first, min(first + _PIECE, users), 50_000):
            ids = np.arange(begin, min(begin + 50_000, users)) * 7919 % users  # in no order
            root = rng.normal(size=(len(ids), d, d))
            precision = population.precision + root @ np.swapaxes(root, 1, 2)  # as rows of theirs would leave it
            mean = population.mean + np.linalg.solve(precision, root @ rng.normal(size=(len(ids), d, 1)))[..., 0]
            posterior = ac.Posterior(mean, precision)
            states = ac.EntityStates(ids, posterior, np.full(len(ids), model.cut), np.full(len(ids), 20))
            model.entities.commit({"user": (states,)})
        model.save(folder / "model", overwrite=True)
    for number in range(ROUNDS):
        touched = np.random.default_rng(number).choice(users, TOUCHED, replace=False)
        pq.write_table(rows(number + 1, touched), folder / f"events-{number}.parquet")
    _children.tell()


def rows(seed: int, users: NDArray[np.int64]) -> pa.Table:
    """Events of these users alone, every one of them among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(EVENTS, COEFFICIENTS - 1))
    return pa.table(
        {
            "time": pa.array(1_700_000_000_000_000 + seed * 10**12 + np.arange(EVENTS), pa.timestamp("us", "UTC")),
            "user": np.concatenate([users, rng.choice(users, EVENTS - len(users))]),
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), COEFFICIENTS - 1),
            "click": (rng.random(EVENTS) < 1.0 / (1.0 + np.exp(-0.5 * x[:, 0]))).astype(np.int8),
        }
    )


def update(_: int, folder: Path, number: int) -> None:
    """Load the model, learn from some events, and save it: wall-clock seconds of each, and bytes of new files."""
    start = _resident()
    begun = time.perf_counter()
    model = ac.GLMix.load(folder / "model")
    loaded = time.perf_counter()
    model.update(ac.read_events(folder / f"events-{number}.parquet", SCHEMA, memory_limit=LIMIT))
    learned, before = time.perf_counter(), set((folder / "model").rglob("*"))
    model.save(folder / "model", overwrite=True)
    saved = time.perf_counter()
    new = set((folder / "model").rglob("*")) - before | {folder / "model" / "manifest.json"}
    _children.tell(
        load=loaded - begun,
        learn=learned - loaded,
        save=saved - learned,
        start=start,
        written=sum(file.stat().st_size for file in new if file.is_file()),
    )


def _resident() -> int:
    """Bytes of memory that this process has now."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    if sys.argv[1:2] == ["store"]:
        store(int(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["update"]:
        update(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
