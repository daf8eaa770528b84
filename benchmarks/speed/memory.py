"""Peak memory of a fit from Parquet, by rows, entities and memory limit; each in a process of its own.

``python -m benchmarks.speed.memory [--millions 1 4 16] [--entities 100000 1000000] [--limits 250MB 1GB]``. Users
have 10 coefficients and full precisions, a thousand items one; the fixed effect has 10. ``peak`` is that of the
process; what it takes before the fit is ``base``. ``over states`` is ``(peak - base) / states``, and ``beside
them`` ``(peak - base - states) / limit``.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import acclimate as ac
from acclimate.learners import mixed
from benchmarks.speed import _children

FEATURES, ITEMS, GROUP = 9, 1000, 1 << 18
SCHEMA = ac.Schema(time="time", entities=["user", "item"], labels="click")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--entities", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--limits", nargs="+", default=["250MB", "1GB"])
    asked = parser.parse_args([] if sys.argv[0].endswith("__main__.py") else None)
    print("| rows | users | limit | pieces | states GB | base GB | peak GB | over states | beside them |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for millions in asked.millions:
        for entities in asked.entities:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "log.parquet"
                _children.run(__spec__.name, "write", path, millions * 1_000_000, entities)
                for limit in asked.limits:
                    print(
                        told(_children.run(__spec__.name, "fit", path, limit), millions, entities, limit),
                        flush=True,
                    )


def told(cost: _children.Measured, millions: int, entities: int, limit: str) -> str:
    """A line of the table."""
    said = cost.said
    states, base, peak = said["states_bytes"], said["base_bytes"], cost.peak_bytes
    over, beside = (peak - base) / states, (peak - base - states) / said["limit_bytes"]
    return (
        f"| {millions},000,000 | {entities:,} | {limit} | {said['pieces']} "
        f"| {states / 1e9:.2f} | {base / 1e9:.2f} | {peak / 1e9:.2f} | {over:.1f} | {beside:.1f} |"
    )


def write(path: Path, rows: int, entities: int) -> None:
    """A log in which every user has a level and tastes; rows come in no order of users."""
    rng = np.random.default_rng(0)
    taste, quality = 0.3 * rng.normal(size=(entities, FEATURES + 1)), 0.3 * rng.normal(size=ITEMS)
    writer = None
    for first in range(0, rows, GROUP):
        n = min(GROUP, rows - first)
        user, item, x = rng.integers(0, entities, n), rng.integers(0, ITEMS, n), rng.normal(size=(n, FEATURES))
        z = taste[user, 0] + np.vecdot(x, taste[user, 1:]) + 0.5 * x[:, 0] + quality[item]
        columns = {
            "time": pa.array(
                1_700_000_000_000_000 + 1000 * np.arange(first, first + n), pa.timestamp("us", "UTC")
            ),
            "user": user,
            "item": item,
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), FEATURES),
            "click": (rng.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(np.int8),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    _children.tell()


def fit(path: Path, limit: str) -> None:
    """The memory before the fit, and of what it found.

    Populations are learned in two rounds: more take more seconds, and no more memory.
    """
    from acclimate.kernels.warm import warm_up

    warm_up()
    mixed._ROUNDS = 2
    model = ac.GLMix(fixed=["x"], random=[ac.RandomEffect("user", ["x"]), ac.RandomEffect("item")])
    events = ac.read_events(path, SCHEMA, memory_limit=limit)
    base = _children.peak_bytes()
    info = model.fit(events).info
    _children.tell(
        pieces=info.pieces,
        base_bytes=base,
        states_bytes=model.nbytes,
        limit_bytes=events.memory_limit,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["fit"]:
        fit(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
