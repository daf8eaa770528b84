"""A stream whose processes are killed at random moments, and what is left of it: the states of one that was not.

``python -m benchmarks.exactly_once``: 200 times SIGKILL over 100,000 events, on LMDB and on Redis, whose server is
killed too. With ``--outage 60`` the worker lives, and its Redis server is stopped for so many seconds, is gone for
so many, and is slow for so many. Every process is real, and so are the files.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from acclimate import pipeline, publishing
from acclimate.events.streams import append_events, open_stream
from acclimate.project import Project, load_project
from acclimate.publish.stores import open_store
from acclimate.publishing import spaces_of
from acclimate.streaming import stream
from acclimate.streaming.making import make_worker
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.progress import PROGRESS, Progress

KILLS, EVENTS, BATCH, SEED = 200, 100_000, 250, 0
FIT_UNTIL = "2024-01-11"
SLOW, BETWEEN = 2.0, 0.2
"""Seconds for which a slow server takes no writes, and between two such times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outage", type=float, metavar="SECONDS", help="let the server fail, and not workers")
    seconds = parser.parse_args().outage
    with tempfile.TemporaryDirectory() as name:
        world = World.made(Path(name), users=2_000, days=36, events=EVENTS, batch=BATCH)
        if seconds is not None:
            with server(Path(name) / "redis", "redis") as place:
                outages(world, place, seconds)
            return
        for kind in ("lmdb", "redis"):
            with server(Path(name) / kind, kind) as place:
                print(killed(world, place, kills=KILLS), flush=True)


@dataclass(frozen=True)
class World:
    """A project whose model is fitted, published and live, and a stream of events that it has not learned."""

    folder: Path
    events: int
    batch: int

    @staticmethod
    def made(folder: Path, *, users: int, days: int, events: int, batch: int) -> "World":
        world = World(folder, events, batch)
        pipeline.make_world(folder / "world", users=users, days=days, seed=SEED)
        project = world.project("memory://")
        pipeline.fit(project, folder / "model", until=FIT_UNTIL, allow_unconverged=True)
        publishing.promote(project, str(publishing.publish(project, folder / "model")))
        log = pipeline.open_events(project).after(FIT_UNTIL)
        with contextlib.closing(open_stream(world.source)) as source:
            append_events(source, log.table().slice(0, events), log.schema)
        return world

    @property
    def source(self) -> str:
        return f"log://{self.folder / 'events'}"

    def project(self, store: str) -> Project:
        return load_project(
            self.folder / "world" / "acclimate.yaml",
            [
                f"publish={{spaces: '{self.folder / 'spaces'}', store: '{store}'}}",
                f"stream={{source: '{self.source}', batch: {self.batch}, learns: all, lease: 2s}}",
            ],
        )


@dataclass
class Place:
    """A store, and its server where it has one, with the number of times it was killed."""

    url: str
    start: list[str] = field(default_factory=list[str])
    server: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def kill(self) -> None:
        """Kill the server without a warning, and start it again over what it has left."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.kills += 1
            self.begin()

    def begin(self) -> None:
        """Start the server."""
        self.server = subprocess.Popen(self.start, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    store: str
    kills: int
    server_kills: int
    learned: int
    is_equal: bool
    seconds: float

    def __str__(self) -> str:
        servers = f", its server {self.server_kills}" if self.server_kills else ""
        equal = "equal those of an uninterrupted run bit for bit" if self.is_equal else "DIFFER"
        return (
            f"{self.store}: workers killed {self.kills} times{servers}; {self.learned:,} events learned, states "
            f"{equal} ({self.seconds:.0f} s)"
        )


def killed(world: World, place: Place, *, kills: int) -> Outcome:
    """Learn the stream twice: in peace in a store of its own, and with workers that are killed so often."""
    peace = f"lmdb://{world.folder / 'peace'}-{place.url.partition(':')[0]}"
    stream(world.project(peace), until_drained=True)
    began, rng = time.perf_counter(), np.random.default_rng(SEED)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["acclimate.streaming", "acclimate.learners.glmix"])
    count = 0
    while True:
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=run, args=(world, place.url, there))
        worker.start()
        there.close()
        if count < kills:
            if rng.random() < 0.9:  # else it may not even have begun
                here.poll(60)
            worker.join(float(rng.exponential(0.12)))
            if place.server is not None and rng.random() < 0.1:
                place.kill()
            worker.kill()
        worker.join()
        count += worker.exitcode == -signal.SIGKILL
        if worker.exitcode == 0:
            break
        if worker.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"a worker ended with {worker.exitcode}")
    learned, digest = told(place.url)
    _, expected = told(peace)
    return Outcome(place.url, count, place.kills, learned, digest == expected, time.perf_counter() - began)


class Watch(threading.Thread):
    """Notes from when to when the metric ``stalled`` is 1, by the monotonic clock, until it is ``over``."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(daemon=True)
        self.metrics, self.over, self.stalled = metrics, threading.Event(), list[list[float]]()

    def run(self) -> None:
        is_stalled = False
        while not self.over.wait(0.01):
            was, now = is_stalled, time.monotonic()
            is_stalled = any(self.sampled("stalled", where=where) for where in ("store", "stream"))
            if is_stalled and not was:
                self.stalled.append([now, now])
            elif is_stalled:
                self.stalled[-1][1] = now

    def sampled(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"acclimate_stream_{name}", labels) or 0.0


def outages(world: World, place: Place, seconds: float) -> None:
    """Let a worker learn while its server stops, dies and is slow, each once a quarter more is learned."""
    peace = f"lmdb://{world.folder / 'peace'}-redis"
    stream(world.project(peace), until_drained=True)
    project, metrics = world.project(place.url), Metrics()
    (space,) = spaces_of(project).refreshed("ranker")
    labels = {"space": str(space), "partition": "0", "outcome": "learned"}
    with (
        contextlib.closing(open_stream(world.source)) as source,
        contextlib.closing(open_store(place.url)) as store,
    ):
        places = {"stream": source, "store": store, "spaces": spaces_of(project)}
        worker = make_worker("one", project, project.stream, **places, metrics=metrics)
        learning = threading.Thread(target=worker.run, kwargs={"until_drained": True})
        watch = Watch(metrics)
        watch.start()
        learning.start()
        for quarter, trouble in enumerate((stopped, gone, slow), start=1):
            while watch.sampled("events_total", **labels) < quarter * world.events / 4:
                time.sleep(0.01)
            first, began = len(watch.stalled), time.monotonic()
            trouble(place, seconds)
            ended, learned = time.monotonic(), watch.sampled("events_total", **labels)
            while watch.sampled("events_total", **labels) == learned and learning.is_alive():
                time.sleep(0.01)
            after, alarms = time.monotonic() - ended, watch.stalled[first:]
            said = ", ".join(f"from {a - began:.1f} s to {b - began:.1f} s" for a, b in alarms) or "never"
            print(f"{trouble.__name__} for {ended - began:.0f} s: stalled {said}; learned on after {after:.1f} s")
        learning.join()
        watch.over.set()
        watch.join()
    learned, digest = told(place.url)
    equal = "equal those of an uninterrupted run bit for bit" if digest == told(peace)[1] else "DIFFER"
    print(f"{learned:,} of {world.events:,} events learned, states {equal}")


def stopped(place: Place, seconds: float) -> None:
    """The server takes connections and answers nothing."""
    place.server.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    place.server.send_signal(signal.SIGCONT)


def gone(place: Place, seconds: float) -> None:
    """The server is killed, and started again over what it has left."""
    place.server.kill()
    place.server.wait()
    time.sleep(seconds)
    place.begin()


def slow(place: Place, seconds: float) -> None:
    """The server takes no writes for most of the time."""
    from redis import Redis

    end = time.monotonic() + seconds
    with Redis.from_url(place.url) as client:
        while time.monotonic() < end:
            client.client_pause(int(1e3 * SLOW), all=False)
            time.sleep(SLOW + BETWEEN)


def run(world: World, store: str, begun: Connection) -> None:
    """One life of a worker."""
    project = world.project(store)
    begun.send("begun")
    stream(project, until_drained=True, worker="one")


def told(url: str) -> tuple[int, str]:
    """How many events were learned, and a digest of all values of all units."""
    digest, learned = hashlib.sha256(), 0
    with contextlib.closing(open_store(url)) as store:
        for unit in sorted(store.units()):
            for table in sorted(store.size(unit)):
                for key, value in sorted(store.scan(unit, table)):
                    digest.update(f"{unit}\n{table}\n{len(key)} {len(value)}\n".encode() + key + value)
                    if table == PROGRESS and key == PROGRESS.encode():
                        learned += Progress.read_from(value).learned
            digest.update(str(store.position(unit)).encode())
    return learned, digest.hexdigest()


@contextlib.contextmanager
def server(folder: Path, kind: str) -> Generator[Place]:
    """A store in a folder: LMDB, or a Redis server of its own with its append-only file."""
    folder.mkdir()
    if kind == "lmdb":
        yield Place(f"lmdb://{folder / 'state'}")
        return
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("there is no redis-server: apt-get install redis-server")
    port = 20_000 + int(hashlib.sha256(str(folder).encode()).hexdigest(), 16) % 20_000
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--save",
        "",
    ]
    start = [program, *options]
    place = Place(f"redis://127.0.0.1:{port}/0", start, subprocess.Popen(start, stdout=subprocess.DEVNULL))
    try:
        yield place
    finally:
        if place.server is not None:
            place.server.kill()
            place.server.wait()


if __name__ == "__main__":
    main()
