"""A migration, rehearsed: two readers move to a new space, and none ever sees a vector of another one."""

import contextlib

import numpy as np
import pytest
from benchmarks import rehearsal

from acclimate.artifacts import VECTORS, Space
from acclimate.errors import SpaceError
from acclimate.publish.stores import open_store
from acclimate.publish.stores.units import Unit


@pytest.mark.parametrize("kind", rehearsal.KINDS)
def test_readers_move_one_by_one_and_never_see_a_vector_of_another_space(tmp_path, kind):
    world = rehearsal.World.made(tmp_path, f"lmdb://{tmp_path / 'state'}", users=40, days=12, kind=kind)
    outcome = rehearsal.rehearsed(world, rate=None)
    old, new = (one.space for one in world.spaces.state().known)
    assert outcome.moves == [[str(old), str(new)]] * 2
    assert (outcome.vectors > 0, outcome.mixed) == (True, 0)
    refreshed = outcome.events // 3 // rehearsal.BATCH * rehearsal.BATCH * 2
    assert outcome.positions == {str(old): str(refreshed), str(new): str(outcome.events)}
    with contextlib.closing(open_store(world.store)) as store:
        rows = Unit(store, new, 0).rows(VECTORS + "user")
        users = rows.ids()
        with pytest.raises(SpaceError, match="not of taste/1"):
            list(Unit(Renamed(store, f"{new}/0"), old, 0).rows(VECTORS + "user").read(users))


def test_a_vector_that_its_user_never_had_in_the_space_that_was_read_is_mixed():
    one, other = Space("taste", 1, "", "", 0), Space("taste", 2, "", "", 0)
    valid = {one: {"ann": np.array([[0.0, 1.0], [2.0, 3.0]])}, other: {"ann": np.array([[4.0, 5.0]])}}
    seen = [(one, "ann", np.array([2.0, 3.0])), (one, "ann", np.array([4.0, 5.0])), (one, "bob", np.zeros(0))]
    assert rehearsal.mixed(seen, valid) == 1


class Renamed:
    """A store in which a unit lies under another one's name, as a mistaken restore would have it."""

    def __init__(self, store, unit):
        self.store, self.unit = store, unit

    def read(self, _, table, keys):
        return self.store.read(self.unit, table, keys)

    def scan(self, _, table):
        return self.store.scan(self.unit, table)
