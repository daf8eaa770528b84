"""A migration, rehearsed: two readers move to a new space, and none ever sees a vector of another one."""

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from acclimate import learners, pipeline, publishing
from acclimate.artifacts import VECTORS
from acclimate.errors import SpaceError
from acclimate.events.streams import append_events, open_stream
from acclimate.learners.carried import Carried
from acclimate.project import load_project
from acclimate.publish.reading import VectorReader
from acclimate.publish.spaces import Spaces
from acclimate.publish.stores import open_store
from acclimate.publish.stores.units import Unit
from acclimate.streaming.making import make_worker
from acclimate.streaming.metrics import Metrics

FIRST, SECOND = "2024-01-05", "2024-01-07"
KINDS = {
    "user-encoder": "entity: user, item: item, items: {alike: {size: 3}}, size: 4, windows: [1d, 4d]",
    "meta-ranker": "features: [hour], blocks: {user: {entity: user, size: 3}, item: {entity: item, size: 2}}, "
    "embedding: 2, hidden: [4]",
}
BATCH = 40


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def project(tmp_path, kind):
    pipeline.make_world(tmp_path / "world", users=40, days=12, seed=0)
    return project_of(tmp_path, kind)


def project_of(folder, kind, seed=0):
    publish = f"publish={{spaces: '{folder / 'spaces'}', store: 'lmdb://{folder / 'state'}'}}"
    stream = f"stream={{source: 'log://{folder / 'events'}', batch: {BATCH}}}"
    taste = f"learners={{taste: {{kind: {kind}, {KINDS[kind]}, training: {{epochs: 1, seed: {seed}}}}}}}"
    return load_project(folder / "world" / "acclimate.yaml", [taste, publish, stream])


def published(folder, kind, seed, until):
    project, path = project_of(folder, kind, seed), folder / f"taste{seed}"
    pipeline.fit(project, path, until=until, allow_unconverged=True)
    return publishing.publish(project, path)


def all_vectors(folder, space, log):
    """Every vector that each user ever has in a space, as batches are learned one after another."""
    model = learners.load(Spaces(folder / "spaces").open(space))

    def now():
        for name, ids, columns in Carried(model).everything():
            if name == VECTORS + "user":
                yield from zip(ids.tolist(), columns["vector"], strict=True)

    seen = {one: [vector] for one, vector in now()}
    table = log.table()
    late = table.filter(table["time"].cast("int64").to_numpy() > space.cut)
    first = table.num_rows - late.num_rows
    edges = [first, *range((first // BATCH + 1) * BATCH, table.num_rows, BATCH), table.num_rows]
    for begin, end in itertools.pairwise(edges):
        some = table.slice(begin, end - begin)
        model.update(pipeline.read_events(some, log.schema))
        learned = set(some["user_id"].to_pylist())
        for one, vector in now():
            if one in learned:
                seen.setdefault(one, []).append(vector)
    return {one: np.array(vectors, np.float32) for one, vectors in seen.items()}


class Reader:
    """Reads vectors of its space, as fast as it can, until it is told to stop; returns what it has seen."""

    def __init__(self, store, spaces, owner, users):
        self.store, self.spaces, self.owner, self.users = store, spaces, owner, users
        self.over, self.moved = threading.Event(), threading.Event()

    def __call__(self):
        reader, seen = self.reader(), []
        while not self.over.is_set():
            if self.moved.is_set():
                self.moved.clear()
                reader = self.reader()
            seen.append((reader.space, reader.vectors(self.users)))
        return seen

    def reader(self):
        return VectorReader(self.store, self.spaces.pinned(self.owner, "taste"), "user")


def test_readers_move_one_by_one_and_never_see_a_vector_of_another_space(project, kind, tmp_path):
    spaces, log = Spaces(tmp_path / "spaces"), pipeline.open_events(project).after(FIRST).cached()
    old = published(tmp_path, kind, 0, FIRST)
    spaces.promote(old, instead_of=None)
    for owner in ("feed", "search"):
        spaces.pin(owner, old)
    users = pipeline.open_events(project).table(["user_id"])["user_id"].unique().to_pylist()
    table = log.table()
    third = table.num_rows // 3 // BATCH * BATCH
    with (
        contextlib.closing(open_stream(project.stream.source)) as source,
        contextlib.closing(open_store(project.publish.store)) as store,
        ThreadPoolExecutor(2) as pool,
    ):
        places = {"stream": source, "store": store, "spaces": spaces}
        worker = make_worker("one", project, project.stream, **places, metrics=Metrics())

        def learn(first, last):
            append_events(source, table.slice(first, last - first), log.schema)
            worker._settled = -np.inf  # look at the spaces now
            while worker.step():
                pass

        learn(0, third)
        readers = [Reader(store, spaces, owner, users) for owner in ("feed", "search")]
        reading = [pool.submit(reader) for reader in readers]
        try:
            new = published(tmp_path, kind, 1, SECOND)
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
        position = {str(space): store.position(f"{space}/0") for space in (old, new)}
        with pytest.raises(SpaceError, match="not of taste/1"):
            list(Unit(Renamed(store, f"{new}/0"), old, 0).rows(VECTORS + "user").read(np.array(users)))
    assert position == {str(old): str(2 * third), str(new): str(table.num_rows)}
    valid = {space: all_vectors(tmp_path, space, log) for space in (old, new)}
    for by_one in seen:
        assert {space for space, _ in by_one} == {old, new}
        for space, found in by_one:
            for user, vector, known in zip(users, found.vectors, found.known, strict=True):
                assert not known or np.abs(valid[space][user] - vector).max(axis=1).min() < 1e-6


class Renamed:
    """A store in which a unit lies under another one's name, as a mistaken restore would have it."""

    def __init__(self, store, unit):
        self.store, self.unit = store, unit

    def read(self, _, table, keys):
        return self.store.read(self.unit, table, keys)

    def scan(self, _, table):
        return self.store.scan(self.unit, table)
