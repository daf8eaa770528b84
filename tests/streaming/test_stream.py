"""A stream learns what batches would: every event once, whatever fails on the way."""

import dataclasses
import json

import numpy as np
import pytest
from small_project import EVENTS, HISTORY, rows

from acclimate.errors import ConfigError, OutputError, SpaceError
from acclimate.events.streams import DeadLetters


def equal(one, other):
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def batches(size=50, first=HISTORY, count=EVENTS):
    return [rows(start, min(size, first + count - start)) for start in range(first, first + count, size)]


@pytest.fixture
def space(small):
    return small.spaces.live("ranker")


def test_states_equal_those_of_batch_updates_bit_for_bit(small, space):
    small.drain()
    learned, progress = small.unit(space)
    equal(learned, small.updated(space, batches()))
    assert (progress.learned, progress.read) == (EVENTS, EVENTS)


def test_entities_alone_learn_where_that_is_asked(small, space):
    small.drain(learns="entities")
    learned, _ = small.unit(space)
    before = small.updated(space, [])
    np.testing.assert_array_equal(learned["fixed"], before["fixed"])
    assert learned["rows"].sum() == before["rows"].sum() + EVENTS


def test_a_worker_goes_on_where_another_one_ended(small, space):
    for _ in range(3):
        with small.worker() as worker:
            worker.step()
    assert small.unit(space)[1].learned == 3 * 50
    small.drain()
    equal(small.unit(space)[0], small.updated(space, batches()))


def test_records_that_are_no_events_are_kept_with_the_reason_and_the_others_learned(small, space):
    good = small.records(rows(HISTORY + EVENTS, 2))
    late = json.loads(good[1]) | {"user": None}
    small.append_raw([b"{", good[0], json.dumps(late).encode(), b"[1]"])
    small.drain()
    _, progress = small.unit(space)
    assert (progress.learned, progress.refused) == (EVENTS + 1, 3)
    letters = list(DeadLetters(small.folder / "refused").letters())
    assert [letter.value for letter in letters] == [b"{", json.dumps(late).encode(), b"[1]"]
    assert all(letter.reason for letter in letters)


def test_an_event_whose_id_came_before_is_learned_once(small, space):
    small.append(rows(HISTORY, 100))  # the first 100 again
    small.drain(event_id="number")
    learned, progress = small.unit(space)
    assert (progress.learned, progress.duplicates) == (EVENTS, 100)
    equal(learned, small.updated(space, batches()))


def test_ids_are_remembered_over_restarts(small, space):
    small.drain(event_id="number")
    small.append(rows(HISTORY, 100))
    small.drain(event_id="number")
    assert small.unit(space)[1].duplicates == 100


def test_a_worker_that_runs_again_goes_on_at_once(small, space):
    with small.worker() as worker:
        worker.run(until_drained=True)
        small.append(rows(HISTORY + EVENTS, 10))
        assert worker.step() == 10
    assert small.unit(space)[1].learned == EVENTS + 10


def test_what_the_fit_has_learned_is_not_learned_again(small, space):
    small.append(rows(0, 50))
    small.drain()
    assert small.unit(space)[1].known == 50


def test_an_event_that_comes_later_than_the_stream_allows_is_kept_aside(small, space):
    small.append(rows(HISTORY + 10, 1))
    small.drain(lateness="10m")
    _, progress = small.unit(space)
    assert (progress.learned, progress.late) == (EVENTS, 1)
    (letter,) = DeadLetters(small.folder / "refused").letters()
    assert "later" in letter.reason


class Failing:
    """A store whose commits fail as is asked: before they are written, or after, the answer being lost."""

    def __init__(self, store, failures):
        self.store, self.failures = store, list(failures)

    def __getattr__(self, name):
        return getattr(self.store, name)

    def commit(self, lease, commit):
        failure = self.failures.pop(0) if commit.position is not None and self.failures else None
        if failure == "before":
            raise OutputError("the disk is full")
        self.store.commit(lease, commit)
        if failure == "after":
            raise OutputError("no answer")


@pytest.mark.parametrize("failures", [["before"], ["after"], ["before", "before", "after", "before"]])
def test_a_commit_that_fails_is_made_again_and_nothing_is_learned_twice(small, space, failures):
    worker = small.drain(store=lambda opened: Failing(opened, failures))
    equal(small.unit(space)[0], small.updated(space, batches()))
    assert worker.metrics.failures.labels("store")._value.get() == len(failures)
    assert worker.metrics.stalled.labels("store")._value.get() == 0


def test_an_alarm_is_raised_until_the_store_can_be_reached(small, space):
    with small.worker(store=lambda opened: Failing(opened, ["before", "before"])) as worker:
        stalled = worker.metrics.stalled.labels("store")._value
        worker.step()
        assert stalled.get() == 1
        worker.run(until_drained=True)
        assert stalled.get() == 0
    assert small.unit(space)[1].learned == EVENTS


def test_a_worker_that_was_replaced_writes_nothing_and_the_new_one_goes_on(small, space):
    with small.worker("one") as one, small.worker("two") as two:
        one.step()
        one.step()
        for unit in (one.ownership.held[0].unit, "ranker/1/0"):  # as if its leases had run out
            two.ownership.store.acquire(unit, "two", 60.0, take_over=True)
        before = small.everything()
        one.step()
        assert small.everything() == before
        assert one.metrics.fenced.labels("ranker/1", 0)._value.get() == 1
        one.step()
        assert not one.ownership.held
        two.run(until_drained=True)
    equal(small.unit(space)[0], small.updated(space, batches()))


def test_an_event_that_a_learner_cannot_take_is_refused_alone(small, space, monkeypatch):
    from acclimate.errors import RowError
    from acclimate.learners.glmix import GLMix

    update = GLMix.update

    def picky(self, events, **options):
        if HISTORY + 77 in events.table(["number"])["number"].to_pylist():
            raise RowError("77 is not to be learned")
        return update(self, events, **options)

    monkeypatch.setattr(GLMix, "update", picky)
    small.drain()
    _, progress = small.unit(space)
    assert (progress.learned, progress.refused) == (EVENTS - 1, 1)
    (letter,) = DeadLetters(small.folder / "refused").letters()
    assert json.loads(letter.value)["number"] == HISTORY + 77


def test_all_spaces_that_someone_reads_are_refreshed_and_a_new_one_catches_up(small, space):
    with small.worker() as worker:
        for _ in range(4):
            worker.step()
    second = small.publish(until=HISTORY - 100)
    small.spaces.pin("search", second)
    small.drain()
    for one in (space, second):
        _, progress = small.unit(one)
        assert progress.read == EVENTS
    equal(small.unit(space)[0], small.updated(space, batches()))
    equal(small.unit(second)[0], small.updated(second, batches()))


def test_without_a_space_that_someone_reads_there_is_nothing_to_do(small):
    with small.worker() as worker:
        worker.step()
    empty = dataclasses.replace(small, folder=small.folder / "other")
    (small.folder / "other").mkdir()
    (small.folder / "other" / "history.parquet").write_bytes((small.folder / "history.parquet").read_bytes())
    with pytest.raises(SpaceError, match="no space of ranker is live"), empty.worker():
        pass


def test_several_partitions_are_learned_by_several_workers_each_entity_in_one(small, tmp_path):
    other = dataclasses.replace(small, folder=tmp_path / "parts")
    other.folder.mkdir()
    (other.folder / "history.parquet").write_bytes((small.folder / "history.parquet").read_bytes())
    other.spaces.promote(other.publish(), instead_of=None)
    other.append(rows(HISTORY, EVENTS), partitions=4)
    options = {"partitions": 4, "by": "user", "learns": "entities"}
    with other.worker("a", **options) as a, other.worker("b", **options) as b:
        a.ownership.settle()
        b.ownership.settle()
        a.ownership.settle()
        while a.step() + b.step():
            pass
    live = other.spaces.live("ranker")
    parts = [other.unit(live, partition=number) for number in range(4)]
    assert sum(progress.learned for _, progress in parts) == EVENTS
    ids = np.concatenate([learned["ids"] for learned, _ in parts])
    assert len(set(ids.tolist())) == len(ids)
    everything = other.updated(live, [])
    assert sum(int(learned["rows"].sum()) for learned, _ in parts) == everything["rows"].sum() + EVENTS


def test_by_names_an_entity(small):
    with pytest.raises(ConfigError, match="'item' is no entity"), small.worker(by="item"):
        pass
