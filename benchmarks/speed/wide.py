"""A fixed effect of 100,000 levels, and a check of 6 million rows: seconds and peak memory."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import acclimate as ac
from benchmarks.speed import _children

LEVELS, ROWS, CHECKED = 100_000, 1_000_000, 6_000_000
SCHEMA = ac.Schema(time="time", entities=["user"], labels="click")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "wide.parquet", ROWS, levels=LEVELS, seed=0)
        write(folder / "day.parquet", 10_000, levels=LEVELS + 100, seed=1)
        cost = _children.run(__name__, "learn", folder)
        print(
            f"{LEVELS:,} levels, {ROWS:,} rows: fit {cost.said['fit']:.1f} CPU s, update of 10,000 rows "
            f"{cost.said['update']:.2f} s, predict {cost.said['predict']:.2f} s, "
            f"peak {cost.peak_bytes / 1e9:.2f} GB ({cost.said['coefficients']:,} coefficients)"
        )
        for part in range(6):
            write(folder / f"log-{part}.parquet", CHECKED // 6, levels=1000, seed=2 + part)
        cost = _children.run(__name__, "check", folder)
        print(
            f"check of {CHECKED:,} rows: {cost.said['check']:.1f} CPU s, peak {cost.peak_bytes / 1e9:.2f} GB "
            f"({cost.said['widths']})"
        )


def write(path: Path, rows: int, *, levels: int, seed: int) -> None:
    """Rows of one categorical feature, each level there at least once, and four numeric ones."""
    rng = np.random.default_rng(seed)
    level = np.concatenate([np.arange(levels), rng.integers(0, levels, max(rows - levels, 0))])[-rows:]
    begin = 1_700_000_000_000_000 + seed * 10**10
    columns = {
        "time": pa.array(begin + 1000 * np.arange(rows), pa.timestamp("us", "UTC")),
        "user": rng.integers(0, 20_000, rows),
        "level": level,
        "x": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=4 * rows)), 4),
        "click": (rng.random(rows) < 1.0 / (1.0 + np.exp(-np.sin(level)))).astype(np.int8),
    }
    pq.write_table(pa.table(columns), path)


def spent(work: object) -> float:
    """CPU seconds of a call without arguments."""
    begun = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - begun


def learn(folder: Path) -> None:
    """Fit, update and predict."""
    model = ac.GLMix(fixed=ac.FixedEffect(["level"]))
    events, day = (ac.read_events(folder / f"{name}.parquet", SCHEMA) for name in ("wide", "day"))
    fit, update, predict = (
        spent(lambda: model.fit(events)),
        spent(lambda: model.update(day)),
        spent(lambda: model.predict(day)),
    )
    _children.tell(fit=fit, update=update, predict=predict, coefficients=len(model.weights()))


def check(folder: Path) -> None:
    """As ``acclimate check`` does it."""
    from acclimate import pipeline
    from acclimate.project import parse_project

    described = {
        "name": "wide",
        "events": {"path": "log-*.parquet", "time": "time", "entities": ["user"], "labels": ["click"]},
        "learners": {"ranker": {"kind": "glmix", "fixed": ["level", "x"], "random": {"user": ["level", "x"]}}},
    }
    found: dict[str, int] = {}
    seconds = spent(lambda: found.update(pipeline.check(parse_project(described, folder))[1]))
    _children.tell(check=seconds, widths=found)


if __name__ == "__main__":
    {"learn": learn, "check": check}[sys.argv[1]](Path(sys.argv[2]))
