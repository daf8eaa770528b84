"""What a fit in pieces loses against one on all rows at once, by how the rows are cut.

``python -m benchmarks.quality.pieces [--seeds 4] [--pieces 2 4 8] [--cuts users ...]``; with ``KUAIRAND_DIR`` its
log too. A fit on the first piece, and updates over the others: cut by time, by users or by items (all rows of one
are in one piece) or at random. Then the next days are predicted, day by day, by the model as it is, and as it is
brought up to date after each.

In worlds the truth is known: told is regret, the expected log-loss above the oracle's in 1e-4 nats a row, less
that of the fit on all rows, with 95 % intervals over seeds. Of KuaiRand (fitted on 8 to 25 April, asked about 26
and 27 April) it is AUC and log-loss less those of the fit on all rows, with intervals for other users and videos.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import TableSource
from acclimate.evaluate.comparisons import compare
from acclimate.models.hashing import hashed
from acclimate.project import load_project
from benchmarks.quality.effects_world import interval, regret

KUAIRAND = Path(__file__).parents[2] / "examples/kuairand/acclimate.yaml"


def by_time(rows: pa.Table, _: ac.Schema, pieces: int) -> np.ndarray:
    """As many rows in each."""
    return np.arange(rows.num_rows) * pieces // rows.num_rows


def by_user(rows: pa.Table, schema: ac.Schema, pieces: int, place: int = 0) -> np.ndarray:
    """By a hash of the entity at this place."""
    ids = rows[list(schema.entities.values())[place]].to_numpy().astype(np.uint64)
    return (hashed(ids) % np.uint64(pieces)).astype(np.int64)


def at_random(rows: pa.Table, _: ac.Schema, pieces: int) -> np.ndarray:
    """By a hash of the row's number."""
    return (hashed(np.arange(rows.num_rows, dtype=np.uint64)) % np.uint64(pieces)).astype(np.int64)


CUTS: dict[str, Callable[[pa.Table, ac.Schema, int], np.ndarray]] = {
    "time": by_time,
    "users": by_user,
    "items": partial(by_user, place=1),
    "random": at_random,
}


def fitted(model: ac.GLMix, events: ac.Events, cut: str, pieces: int) -> ac.GLMix:
    """Fitted on the first piece and brought up to date by the others."""
    rows, schema = events.table(), events.schema
    piece = CUTS[cut](rows, schema, pieces)
    for number in range(pieces):
        part = ac.Events(schema, TableSource(schema, rows.filter(pa.array(piece == number))))
        model = model.update(part) if number else model.fit(part)
    return model


def arms(cuts: Sequence[str], pieces: Sequence[int]) -> dict[str, tuple[str, int]]:
    """Cut and pieces of each arm, the fit on all rows first."""
    return {"all rows": ("time", 1)} | {f"{cut}, {k} pieces": (cut, k) for cut in cuts for k in pieces}


def played(model: ac.GLMix, days: Sequence[ac.Events]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of all rows, by the model as it is and as it is brought up to date."""
    still = np.concatenate([model.predict(day) for day in days])
    moving = []
    for day in days:
        moving.append(model.predict(day))
        model.update(day)
    return still, np.concatenate(moving)


# --- worlds -----------------------------------------------------------------------------------------------------


def drifting(seed: int) -> tuple[ac.Events, dict[str, Any]]:
    """Tastes of users over topics and qualities of items that move a little every day; new ones of both."""
    events = ac.simulate(users=1000, items=200, days=23, events_per_day=3000, jump_day=None, seed=seed)
    return events, {"fixed": ["surface", "position", "duration"], "random": {"user": ["topics"], "item": []}}


def still(seed: int) -> tuple[ac.Events, dict[str, Any]]:
    """The same, where next to nothing moves."""
    events, declared = drifting(seed)
    events = ac.simulate(
        users=1000, items=200, days=23, events_per_day=3000, jump_day=None, half_life="10000d", seed=seed
    )
    return events, declared


def simulated(arms: dict[str, tuple[str, int]], seeds: int) -> None:
    print("| world | cut | regret, as it is | kept up to date | CPU s |\n| --- | --- | --- | --- | --- |")
    for world in (still, drifting):
        found: dict[str, list[list[float]]] = {name: [] for name in arms}
        for seed in range(seeds):
            events, declared = world(seed)
            past, days = events.before("2024-01-21"), list(events.after("2024-01-21").windows("1d"))
            truth = pa.concat_tables(day.table(["click_probability"]) for day in days)[0].to_numpy()
            for name, (cut, k) in arms.items():
                begun = time.process_time()
                model = fitted(ac.GLMix(label="click", **declared), past, cut, k)
                seconds = time.process_time() - begun
                found[name].append([*(regret(p, truth) for p in played(model, days)), seconds])
        whole = np.array(found["all rows"])
        for name, values in found.items():
            column = np.array(values)
            told = column if name == "all rows" else column - whole
            cells = " | ".join(interval(told[:, j]) for j in range(2))
            print(f"| {world.__name__} | {name} | {cells} | {column[:, 2].mean():.2f} |", flush=True)


# --- KuaiRand ---------------------------------------------------------------------------------------------------


def kuairand(arms: dict[str, tuple[str, int]]) -> None:
    project = load_project(KUAIRAND, [])
    parameters = project.learners["ranker"]
    events = pipeline.open_events(project).before("2022-04-28").cached()
    past, days = events.before("2022-04-26"), list(events.after("2022-04-26").windows("1d"))
    said: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for name, (cut, k) in arms.items():
        begun = time.process_time()
        model = fitted(ac.GLMix(**vars(parameters)), past, cut, k)
        seconds[name] = time.process_time() - begun
        said[name] = played(model, days)
    rows = pa.concat_tables(day.table(["long_view", "user_id", "video_id", "time_ms"]) for day in days)
    window = np.repeat(np.arange(len(days)), [day.count() for day in days])
    print("| cut | AUC, as it is | log-loss | AUC, kept up to date | log-loss | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    cells: dict[str, list[str]] = {name: [] for name in said}
    for which in range(2):
        p = np.column_stack([told[which] for told in said.values()])
        y, user, video = (rows[name].to_numpy() for name in ("long_view", "user_id", "video_id"))
        compared = compare(list(said), y.astype(float), p, user, window=window, crossed=video)
        for one in compared:
            if one.arm == "all rows" and one.metric in ("auc", "log_loss"):
                cells[one.against].append(f"{-one.difference:+.5f} [{-one.high:+.5f}, {-one.low:+.5f}]")
    for name, told in list(cells.items())[1:]:
        print(f"| {name} | {' | '.join(told)} | {seconds[name]:.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--pieces", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--cuts", nargs="+", choices=list(CUTS), default=list(CUTS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = arms(asked.cuts, asked.pieces)
    simulated(wanted, asked.seeds)
    if "KUAIRAND_DIR" in os.environ:
        kuairand(wanted)


if __name__ == "__main__":
    main()
