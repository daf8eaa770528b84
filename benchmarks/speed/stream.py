"""A stream from the log to committed states: events a second of one core, and how fresh states are.

A GLMix with a fixed effect of 16 coefficients and 16 of each user, full precisions; users by Zipf's law or
uniform. What is counted is all of it: reading the log, JSON, checks, states taken, learned and written, the
position with them. Redis runs in a process of its own, whose CPU seconds are not counted here. Freshness is the
time from an append to states that know it, while another process appends 10,000 events a second.
"""

import contextlib
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Generator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from acclimate import pipeline, publishing
from acclimate.events.streams import encode, open_stream
from acclimate.project import Project, parse_project
from acclimate.publish.spaces import Spaces
from acclimate.publish.stores import open_store
from acclimate.streaming.making import make_worker
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.worker import Worker
from benchmarks.exactly_once import server

USERS, FEATURES, HISTORY, EVENTS, BATCH, SEED = 100_000, 15, 100_000, 400_000, 10_000, 0
RATE, SECONDS, AT_A_TIME = 10_000, 30, 100
START = 1_700_000_000_000_000
NAMES = [f"x{i}" for i in range(FEATURES)]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = made(folder)
        print(f"{'':>16} {'events':>9} {'CPU s':>7} {'events/CPU s':>13} {'clock s':>8}")
        for users in ("zipf", "uniform"):
            append(folder / users, EVENTS, users)
            for kind in ("lmdb", "redis"):
                with (
                    server(folder / f"{users}-{kind}", kind) as place,
                    worker(project, folder / users, place.url) as one,
                ):
                    count = EVENTS - one.step()  # the first batch compiles, and fills the store
                    cpu, clock = time.process_time(), time.perf_counter()
                    one.run(until_drained=True)
                    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
                    rate = f"{count:>9,} {cpu:>7.1f} {count / cpu:>13,.0f} {clock:>8.1f}"
                    print(f"{f'{kind}, {users}':>16} {rate}", flush=True)
        for kind in ("lmdb", "redis"):
            with server(folder / f"fresh-{kind}", kind) as place:
                ages = freshness(project, folder / f"fresh-{kind}", place.url)
                p50, p99 = 1e3 * np.quantile(ages, [0.5, 0.99])
                print(
                    f"{kind}: {len(ages):,} events at {RATE:,}/s: p50 {p50:.0f} ms, p99 {p99:.0f} ms", flush=True
                )


def rows(first: int, count: int, users: str) -> pa.Table:
    rng = np.random.default_rng([SEED, first])
    who = np.minimum(rng.zipf(1.2, count) - 1, USERS - 1) if users == "zipf" else rng.integers(0, USERS, count)
    x = rng.normal(size=(count, FEATURES)).round(4)
    z = 0.3 * (x * np.sin(np.outer(who + 1, np.arange(1, FEATURES + 1)))).sum(axis=1)
    return pa.table(
        {
            "time": pa.array(START + (first + np.arange(count)) * 1_000, pa.timestamp("us", "UTC")),
            "user": who,
            "click": (rng.random(count) < 1 / (1 + np.exp(-z))).astype(np.int8),
            **{name: x[:, i] for i, name in enumerate(NAMES)},
        }
    )


def made(folder: Path) -> Project:
    """The project, whose model is live."""
    pq.write_table(rows(0, HISTORY, "uniform"), folder / "history.parquet")
    project = project_at(folder, "log://none", "memory://none")
    pipeline.fit(project, folder / "model", allow_unconverged=True)
    Spaces(folder / "spaces").promote(publishing.publish(project, folder / "model"), instead_of=None)
    return project


def project_at(folder: Path, source: str, store: str) -> Project:
    return parse_project(
        {
            "name": "stream",
            "events": {
                "path": "history.parquet",
                "time": {"column": "time"},
                "entities": {"user": "user"},
                "labels": ["click"],
            },
            "features": {name: {"kind": "numeric"} for name in NAMES},
            "learners": {"ranker": {"kind": "glmix", "fixed": NAMES, "random": {"user": {"features": NAMES}}}},
            "publish": {"spaces": "spaces", "store": store},
            "stream": {"source": source, "batch": BATCH},
        },
        folder,
    )


def append(log: Path, count: int, users: str) -> None:
    with contextlib.closing(open_stream(f"log://{log}/events")) as source:
        for first in range(HISTORY, HISTORY + count, 20_000):
            some = rows(first, min(20_000, HISTORY + count - first), users)
            source.append(0, encoded(some))


def encoded(table: pa.Table) -> list[bytes]:
    project = project_at(Path(), "log://none", "memory://none")
    return encode(table, project.events.schema)


@contextlib.contextmanager
def worker(project: Project, log: Path, store: str) -> Generator[Worker]:
    there = project_at(project.folder, f"log://{log}/events", store)
    assert there.stream is not None
    with (
        contextlib.closing(open_stream(there.stream.source)) as source,
        contextlib.closing(open_store(store)) as opened,
    ):
        spaces = Spaces(project.folder / "spaces")
        places = {"stream": source, "store": opened, "spaces": spaces}
        yield make_worker("one", there, there.stream, **places, metrics=Metrics())


class Ages:
    """Takes note of every time, where a histogram would count them."""

    def __init__(self) -> None:
        self.parts = list[NDArray[np.float64]]()

    def observe(self, _: str, since: str, seconds: Any) -> None:
        if since == "arrival":
            self.parts.append(np.asarray(seconds))


def freshness(project: Project, folder: Path, store: str) -> NDArray[np.float64]:
    """Seconds from the append of each event to its commit, once the worker runs warm."""
    append(folder, BATCH, "zipf")
    begin, end = multiprocessing.get_context("spawn").Event(), multiprocessing.get_context("spawn").Event()
    producer = multiprocessing.get_context("spawn").Process(target=produce, args=(folder, begin, end))
    producer.start()
    with worker(project, folder, store) as one:
        for size in (1, 200):  # what is compiled for small batches too
            append(folder, size, "zipf")
            one.run(until_drained=True)
        ages = one.metrics.freshness = Ages()  # type: ignore[assignment]
        end.wait()
        begin.set()
        threading.Timer(SECONDS, one.stop.set).start()
        one.run()
    producer.join()
    parts = np.concatenate(ages.parts)
    return parts[len(parts) // 10 :]


def produce(folder: Path, begin: Event, ready: Event) -> None:
    """Append so many events a second."""
    some = encoded(rows(HISTORY + EVENTS, RATE, "zipf"))
    ready.set()
    begin.wait()
    started = time.perf_counter()
    with contextlib.closing(open_stream(f"log://{folder}/events")) as source:
        for turn in range(RATE * SECONDS // AT_A_TIME):
            left = started + turn * AT_A_TIME / RATE - time.perf_counter()
            if left > 0:
                time.sleep(left)
            first = turn * AT_A_TIME % RATE
            source.append(0, some[first : first + AT_A_TIME])


if __name__ == "__main__":
    main()
