"""A migration to a retrained encoder, rehearsed while readers look vectors up: none may be of another space.

``python -m benchmarks.rehearsal``: two readers ask for 1,000 users a second together, while a new space is
trained, published, pinned, filled and refreshed beside the old one; the readers move one by one, the old one is
retired. On LMDB, and on a real Redis server.
"""

import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acclimate import learners, pipeline, publishing
from acclimate.artifacts import VECTORS, Events, Space, Store
from acclimate.events.streams import append_events, open_stream
from acclimate.learners.carried import Carried
from acclimate.project import Project, load_project
from acclimate.publish.reading import VectorReader
from acclimate.publish.spaces import Spaces
from acclimate.publish.stores import open_store
from acclimate.streaming.making import make_worker
from acclimate.streaming.metrics import Metrics
from benchmarks.exactly_once import server

USERS, DAYS, RATE, BATCH = 200, 24, 1_000.0, 40
FIRST, SECOND = "2024-01-05", "2024-01-07"
KINDS = {
    "user-encoder": "entity: user, item: item, items: {alike: {size: 3}}, size: 4, windows: [1d, 4d]",
    "meta-ranker": "features: [hour], blocks: {user: {entity: user, size: 3}, item: {entity: item, size: 2}}, "
    "embedding: 2, hidden: [4]",
}
_ROUNDING = 1e-6

Seen = tuple[Space, Any, np.ndarray]
"""A vector that a reader of a space was given for a user."""


def main() -> None:
    sys.setswitchinterval(
        5e-4
    )  # readers do not wait for long until the worker, a thread as they are, lets them in
    for kind in ("lmdb", "redis"):
        with tempfile.TemporaryDirectory() as name, server(Path(name) / kind, kind) as place:
            world = World.made(Path(name), place.url, users=USERS, days=DAYS)
            print(f"{kind}: {rehearsed(world, rate=RATE)}", flush=True)


@dataclass(frozen=True)
class World:
    """A project with a learner of a kind, and where its spaces, its stream and its store are."""

    folder: Path
    store: str
    kind: str

    @staticmethod
    def made(folder: Path, store: str, *, users: int, days: int, kind: str = "user-encoder") -> "World":
        pipeline.make_world(folder / "world", users=users, days=days, seed=0)
        return World(folder, store, kind)

    def project(self, seed: int = 0) -> Project:
        taste = f"{{kind: {self.kind}, {KINDS[self.kind]}, training: {{epochs: 1, seed: {seed}}}}}"
        publish = f"publish={{spaces: '{self.folder / 'spaces'}', store: '{self.store}'}}"
        stream = f"stream={{source: 'log://{self.folder / 'events'}', batch: {BATCH}}}"
        return load_project(
            self.folder / "world" / "acclimate.yaml", [f"learners={{taste: {taste}}}", publish, stream]
        )

    @property
    def spaces(self) -> Spaces:
        return Spaces(self.folder / "spaces")

    def published(self, seed: int, until: str) -> Space:
        """A new space of an encoder that is trained with this seed, on events before then."""
        project, path = self.project(seed), self.folder / f"taste{seed}"
        pipeline.fit(project, path, until=until, allow_unconverged=True)
        return publishing.publish(project, path)

    def log(self) -> Events:
        """The events of the stream: those that the first space was not trained on."""
        return pipeline.open_events(self.project()).after(FIRST).cached()


class Reader:
    """Reads vectors of the space that it has pinned, until it is told to stop; gives what it has seen."""

    def __init__(self, store: Store, spaces: Spaces, owner: str, users: Sequence[Any], rate: float | None) -> None:
        self.store, self.spaces, self.owner, self.users, self.rate = store, spaces, owner, users, rate
        self.over, self.moved = threading.Event(), threading.Event()

    def __call__(self) -> list[Seen]:
        reader, seen, began = self.reader(), list[Seen](), time.monotonic()
        for count, user in enumerate(itertools.cycle(self.users)):
            if self.over.wait(max(0.0, began + count / self.rate - time.monotonic()) if self.rate else 0.0):
                return seen
            if self.moved.is_set():
                self.moved.clear()
                reader = self.reader()
            found = reader.vectors([user])
            seen.append((reader.space, user, found.vectors[0] if found.known[0] else np.zeros(0, np.float32)))
        return seen

    def reader(self) -> VectorReader:
        return VectorReader(self.store, self.spaces.pinned(self.owner, "taste"), "user")


@dataclass(frozen=True)
class Outcome:
    """What readers saw: each the spaces one after another, how many ``reads``, ``vectors``, and ``mixed`` ones.

    ``positions``: how far each space was refreshed; ``events``: how many the stream has.
    """

    moves: list[list[str]]
    seconds: float
    reads: int
    vectors: int
    mixed: int
    positions: Mapping[str, str | None]
    events: int

    def __str__(self) -> str:
        return (
            f"{self.reads:,} reads in {self.seconds:.0f} s, {self.reads / self.seconds:,.0f} a second, beside a "
            f"stream of {self.events:,} events; {self.vectors:,} vectors, of which {self.mixed} of another space"
        )


def rehearsed(world: World, *, rate: float | None) -> Outcome:
    """Move two readers from a space to a retrained one, while events come; all together read at a ``rate``."""
    spaces, log, project = world.spaces, world.log(), world.project()
    old = world.published(0, FIRST)
    spaces.promote(old, instead_of=None)
    users = pipeline.open_events(project).table(["user_id"])["user_id"].unique().to_pylist()
    table, third = log.table(), log.table().num_rows // 3 // BATCH * BATCH
    with (
        contextlib.closing(open_stream(project.stream.source)) as source,
        contextlib.closing(open_store(world.store)) as store,
        ThreadPoolExecutor(2) as pool,
    ):
        places = {"stream": source, "store": store, "spaces": spaces}
        worker = make_worker("one", project, project.stream, **places, metrics=Metrics())

        def learn(first: int, last: int) -> None:
            append_events(source, table.slice(first, last - first), log.schema)
            worker._settled = -np.inf  # look at the spaces now
            while worker.step():
                pass

        learn(0, third)
        readers = [Reader(store, spaces, owner, users, rate and rate / 2) for owner in ("feed", "search")]
        for reader in readers:
            spaces.pin(reader.owner, old)
        began, reading = time.monotonic(), [pool.submit(reader) for reader in readers]
        try:
            new = world.published(1, SECOND)
            spaces.pin("rehearsal", new)  # filled and refreshed, and nobody reads it yet
            learn(third, 2 * third)
            for reader in readers:
                spaces.pin(reader.owner, new)
                reader.moved.set()
                learn(2 * third, 2 * third)
            spaces.promote(new, instead_of=old)
            spaces.retire(old)
            learn(2 * third, table.num_rows)
        finally:
            for reader in readers:
                reader.over.set()
        seen = [future.result() for future in reading]
        seconds = time.monotonic() - began
        positions = {str(space): store.position(f"{space}/0") for space in (old, new)}
    both = [one for by_one in seen for one in by_one]
    valid = {space: all_vectors(world, space) for space in (old, new)}
    return Outcome(
        [list(dict.fromkeys(str(space) for space, *_ in by_one)) for by_one in seen],
        seconds,
        len(both),
        sum(len(vector) > 0 for *_, vector in both),
        mixed(both, valid),
        positions,
        table.num_rows,
    )


def mixed(seen: Sequence[Seen], valid: Mapping[Space, Mapping[Any, np.ndarray]]) -> int:
    """How many vectors are none that their user ever had in the space that was read."""
    known = (one for one in seen if len(one[2]))
    return sum(np.abs(valid[space][user] - vector).max(axis=1).min() > _ROUNDING for space, user, vector in known)


def all_vectors(world: World, space: Space) -> dict[Any, np.ndarray]:
    """Every vector ``(k, s)`` that each user ever has in a space, as batches are learned one after another."""
    model, log = learners.load(world.spaces.open(space)), world.log()

    def now() -> Iterator[tuple[Any, np.ndarray]]:
        for name, ids, columns in Carried(model).everything():
            if name == VECTORS + "user":
                yield from zip(ids.tolist(), columns["vector"], strict=True)

    seen: dict[Any, list[np.ndarray]] = {one: [vector] for one, vector in now()}
    table = log.table()
    first = int((table["time"].cast("int64").to_numpy() <= space.cut).sum())
    edges = [first, *range((first // BATCH + 1) * BATCH, table.num_rows, BATCH), table.num_rows]
    for begin, end in itertools.pairwise(edges):
        some = table.slice(begin, end - begin)
        model.update(pipeline.read_events(some, log.schema))
        learned = set(some["user_id"].to_pylist())
        for one, vector in now():
            if one in learned:
                seen.setdefault(one, []).append(vector)
    return {one: np.array(vectors, np.float32) for one, vectors in seen.items()}


if __name__ == "__main__":
    main()
