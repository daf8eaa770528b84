"""A stream whose processes are killed ends in the states of one that was not; so does a Redis that is killed."""

import os
import shutil

import pytest
from benchmarks import exactly_once


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_states_after_kills_are_those_of_an_uninterrupted_run(kind, tmp_path):
    if kind == "redis" and shutil.which("redis-server") is None and not os.environ.get("CI"):
        pytest.skip("there is no redis-server: apt-get install redis-server")
    world = exactly_once.World.made(tmp_path, users=60, days=16, events=500, batch=50)
    with exactly_once.server(tmp_path / kind, kind) as place:
        outcome = exactly_once.killed(world, place, kills=4)
    assert outcome.is_equal
    assert outcome.learned == 500
    assert outcome.kills >= 4
