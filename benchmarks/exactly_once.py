"""A stream whose processes are killed at random moments, and what is left of it: the states of one that was not.

``python -m benchmarks.exactly_once``: 200 times SIGKILL over 100,000 events, on LMDB and on Redis, whose server is
killed too. Every process is real, and so are the files.
"""

import contextlib
import hashlib
import multiprocessing
import shutil
import signal
import subprocess
import tempfile
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
from acclimate.streaming import stream
from acclimate.streaming.progress import PROGRESS, Progress

KILLS, EVENTS, BATCH, SEED = 200, 100_000, 250, 0
FIT_UNTIL = "2024-01-11"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        world = World.made(Path(name), users=2_000, days=36, events=EVENTS, batch=BATCH)
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
