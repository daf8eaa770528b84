"""The gate that compares vectors in a store with those made anew of the states beside them."""

import contextlib

import numpy as np
import pytest
from benchmarks import rehearsal
from small_project import content

from acclimate import publishing
from acclimate.artifacts import VECTORS, Commit
from acclimate.errors import GateError
from acclimate.events.streams import append_events, open_stream
from acclimate.learners.carried import Carried
from acclimate.project import parse_project
from acclimate.publish.stores import open_store
from acclimate.publish.stores.codec import times_of
from acclimate.publish.stores.parity import compared
from acclimate.publish.stores.units import ROWS, Unit
from acclimate.streaming import stream


@pytest.fixture
def refreshed(tmp_path):
    """A project with an encoder, whose one space is pinned and has learned all of a stream, and that space."""
    world = rehearsal.World.made(tmp_path, f"lmdb://{tmp_path / 'state'}", users=12, days=6)
    project, space = world.project(), world.published(0, rehearsal.FIRST)
    world.spaces.pin("rehearsal", space)
    log = world.log()
    with contextlib.closing(open_stream(project.stream.source)) as source:
        append_events(source, log.table(), log.schema)
    stream(project, until_drained=True)
    return project, space


def rewritten(store, unit, table, change):
    """Write the first value of a table as ``change`` makes it, whoever has the right to."""
    key, value = min(store.scan(unit.name, table))
    lease, position = store.acquire(unit.name, "mistake", 60.0, take_over=True), store.position(unit.name)
    store.commit(lease, Commit({table: [(key, change(key, value))]}, position, position))


def test_a_vector_that_is_not_that_of_its_states_is_named(refreshed):
    project, space = refreshed
    with contextlib.closing(open_store(project.publish.store)) as store:
        unit, name = Unit(store, space, 0), VECTORS + "user"
        users = unit.rows(name).ids()
        whole = compared(store, space, Carried.made, 1_000)
        assert (len(whole.whose), whole.units) == (len(users), 1)
        assert 0.0 <= whole.apart.max() <= whole.rounding < 1e-3
        assert len(compared(store, space, Carried.made, 5).whose) == 5

        def changed(key, value):
            ((_, columns),) = unit.rows(name).decoded([key], [value])
            columns = {"vector": columns["vector"] + np.float32([[0.0, 0.0, 0.5, 0.0]])}
            ((_, items),) = unit._writes([(name, np.sort(users)[:1], columns)], int(times_of([value])[0])).items()
            return items[0][1]

        rewritten(store, unit, ROWS + name, changed)
    what = rf"1 of 3 gates: stored parity: 1 of {len(users)} vectors differ by up to 0\.5 .*: user {min(users)} "
    with pytest.raises(GateError, match=what):
        publishing.promote(project, str(space))
    verdicts = publishing.promote(project, str(space), force=True, reason="it is mended by the next event")
    assert [verdict.gate for verdict in verdicts] == ["finite", "parity", "stored parity"]
    *_, last = publishing.spaces_of(project).entries()
    assert last.reason == "forced past stored parity: it is mended by the next event"


class Moving:
    """A store where a writer replaces a vector after they were read for the first time."""

    def __init__(self, store):
        self._store, self.looks = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read(self, unit, table, keys):
        found = self._store.read(unit, table, keys)
        if table == ROWS + VECTORS + "user":
            self.looks += 1
            return [b"replaced" if self.looks == 2 else found[0], *found[1:]]
        return found


def test_what_a_writer_replaces_meanwhile_is_left_out(refreshed):
    project, space = refreshed
    with contextlib.closing(open_store(project.publish.store)) as store:
        users = np.sort(Unit(store, space, 0).rows(VECTORS + "user").ids())
        found = compared(Moving(store), space, Carried.made, 1_000)
    assert found.whose == [f"user {user}" for user in users.tolist()[1:]]
    assert found.apart.max() <= found.rounding


def test_without_vectors_rows_are_proved_and_without_a_unit_nothing_is_asked(small):
    project, space = small.project(), small.publish()
    assert [one.gate for one in publishing.judged(project, small.spaces, space, None)] == ["finite", "parity"]
    small.spaces.pin("rehearsal", space)
    small.drain()
    *_, told = publishing.judged(project, small.spaces, space, None)
    what = "stored parity: no vectors are made of these states; 30 rows in 1 units are what was written"
    assert (told.passed, str(told)) == (True, what)
    with contextlib.closing(open_store(project.publish.store)) as store:
        unit = Unit(store, space, 0)
        table = next(table for table in store.size(unit.name) if table.startswith(ROWS))
        rewritten(store, unit, table, lambda _, value: value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(
        GateError, match=r"stored parity: the store cannot be compared: 1 values in 'rows/.* are not"
    ):
        publishing.promote(project, str(space))


def test_a_store_that_cannot_be_reached_is_no_pass_and_can_be_forced(small, dead_port):
    space = small.publish()
    there = {"spaces": "spaces", "store": f"redis://127.0.0.1:{dead_port}"}
    project = parse_project({**content(), "publish": there}, small.folder)
    with pytest.raises(
        GateError, match=r"stored parity: the store cannot be compared: the Redis server .* cannot be"
    ):
        publishing.promote(project, str(space))
    publishing.promote(project, str(space), force=True, reason="its server is being moved")
    assert small.spaces.live("ranker") == space
