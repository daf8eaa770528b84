"""Who refreshes which partition: each one worker, shared fairly, and taken over from those who are gone."""

import pytest

from acclimate.errors import FencedError
from acclimate.publish.stores.memory import MemoryStore
from acclimate.streaming.ownership import Ownership


class Clock:
    """Seconds, as the test says."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock=clock)


def worker(store, name, partitions=4, stream="clicks"):
    return Ownership(store, name, stream, partitions, seconds=10.0)


def test_one_worker_has_all_partitions(store):
    one = worker(store, "a")
    one.settle()
    assert sorted(one.held) == [0, 1, 2, 3]


def test_a_second_worker_gets_its_share_and_no_partition_has_two(store):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle()
    two.settle()
    assert not two.held  # nothing is free yet
    one.settle()
    two.settle()
    assert sorted([*one.held, *two.held]) == [0, 1, 2, 3]
    assert len(one.held) == len(two.held) == 2


def test_partitions_of_a_worker_that_is_not_heard_of_are_taken_over(store, clock):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle()
    clock.now += 11.0
    two.settle()
    assert sorted(two.held) == [0, 1, 2, 3]
    with pytest.raises(FencedError):
        store.renew(one.held[0], 10.0)
    one.settle()
    assert not one.held


def test_a_worker_that_is_heard_of_keeps_its_partitions(store, clock):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle()
    for _ in range(5):
        clock.now += 6.0
        one.settle()
    two.settle()
    assert len(one.held) == 4
    assert not two.held


def test_who_closes_gives_all_back(store):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle()
    one.close()
    two.settle()
    assert sorted(two.held) == [0, 1, 2, 3]


def test_what_the_broker_assigns_is_taken_from_whoever_has_it(store):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle({0, 1, 2, 3})
    two.settle({2, 3})
    assert sorted(two.held) == [2, 3]
    one.settle({0, 1})
    assert sorted(one.held) == [0, 1]


def test_a_worker_that_is_started_again_goes_on_at_once(store):
    one = worker(store, "a")
    one.settle()
    again = worker(store, "a")
    again.settle()
    assert sorted(again.held) == [0, 1, 2, 3]
    one.settle()
    assert sorted(one.held) == [0, 1, 2, 3]  # two of one name take from each other: names are to differ


def test_streams_that_share_a_store_do_not_take_each_others_partitions(store):
    one, two = worker(store, "a"), worker(store, "b", stream="orders")
    one.settle()
    two.settle()
    assert len(one.held) == len(two.held) == 4


def test_a_partition_that_was_taken_is_told_when_it_is_asked_for(store):
    one, two = worker(store, "a"), worker(store, "b")
    one.settle()
    assert one.is_ours(0)
    two.settle({0})
    assert not one.is_ours(0)
    assert sorted(one.held) == [1, 2, 3]
