"""What a unit learns of the records that it reads: new events, in time, and each once."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.artifacts import Records
from acclimate.streaming.intake import Decoded, chosen
from acclimate.streaming.progress import Progress
from acclimate.streaming.recent import RecentIds, hashes_of

_DAY = 1_000_000


def decoded(times, ids=None, *, refused=(), first=0, arrived=None):
    """Events that came in this order; ``refused`` are the records that are none."""
    count = len(times) + len(refused)
    came = np.array([number for number in range(count) if number not in refused], np.int64)
    order = np.lexsort((came, times))
    time = np.array(times, np.int64)[order]
    named = None if ids is None else np.array(ids, np.int64)[order]
    records = Records(
        [b"{}"] * count,
        [str(first + number) for number in range(count)],
        np.arange(count) if arrived is None else np.full(count, arrived),
    )
    rows = pa.table({"place": came[order]})
    return Decoded(records, None, rows, came[order], time, named, [(number, "bad") for number in refused])


def learned(batch, progress, recent, lateness=10 * _DAY):
    """The records that are learned, and the progress then."""
    picked = chosen(batch, progress, recent, lateness)
    return sorted(batch.index[picked.rows].tolist()), picked


def test_what_the_fit_has_learned_is_known_and_not_learned_again():
    which, picked = learned(decoded([5, 9, 10, 11]), Progress.begun("log", 10), RecentIds(_DAY))
    assert which == [3]
    assert picked.progress == Progress("log", cut=10, newest=11, learned=1, known=3)


def test_an_event_older_than_the_watermark_is_late_and_told_by_its_record():
    progress = dataclasses.replace(Progress.begun("log", 0), newest=100)
    which, picked = learned(decoded([89, 90, 101, 95]), progress, RecentIds(_DAY), lateness=10)
    assert which == [1, 2, 3]
    assert picked.late.tolist() == [0]
    assert (picked.progress.late, picked.progress.newest) == (1, 101)


def test_lateness_counts_from_earlier_batches_so_that_a_batch_does_not_refuse_its_own():
    which, _ = learned(decoded([1, 1_000]), Progress.begun("log", 0), RecentIds(_DAY), lateness=10)
    assert which == [0, 1]


def test_of_two_events_with_one_id_the_first_that_arrived_is_learned():
    batch = decoded([30, 20, 10], ids=[7, 8, 7])
    which, picked = learned(batch, Progress.begun("log", 0), RecentIds(_DAY))
    assert which == [0, 1]
    assert picked.progress.duplicates == 1


def test_an_id_that_came_in_an_earlier_batch_is_not_learned_until_the_window_has_passed():
    recent = RecentIds(_DAY)
    first = decoded([1, 2], ids=[7, 8], arrived=0)
    recent.add(0, learned(first, Progress.begun("log", 0), recent)[1].hashes)
    assert learned(decoded([3, 4], ids=[8, 9]), Progress.begun("log", 0), recent)[0] == [1]
    recent.add(2 * _DAY, hashes_of(np.array([9])))
    assert learned(decoded([3, 4], ids=[8, 9]), Progress.begun("log", 0), recent)[0] == [0]


def test_an_event_from_the_future_is_refused_and_does_not_make_others_late():
    day = 86_400_000_000
    batch = decoded([3 * day, 5, 6], arrived=day)
    which, picked = learned(batch, Progress.begun("log", 0), RecentIds(_DAY))
    assert which == [1, 2]
    assert picked.early.tolist() == [0]
    assert (picked.progress.refused, picked.progress.newest) == (1, 6)


def test_an_update_that_was_undone_leaves_no_trace():
    before = Progress.begun("log", 0)
    _, picked = learned(decoded([5, 6], ids=[1, 2]), before, RecentIds(_DAY))
    undone = picked.refused(before)
    assert len(undone.rows) == len(undone.hashes) == 0
    assert undone.progress == dataclasses.replace(before, refused=2)


def test_refused_records_are_counted_and_keep_their_numbers():
    which, picked = learned(decoded([5, 6], refused=(0, 2)), Progress.begun("log", 0), RecentIds(_DAY))
    assert which == [1, 3]
    assert picked.progress.refused == 2
    assert picked.progress.read == 4


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), min_size=2, max_size=30),
    st.sets(st.integers(0, 5), max_size=3),
)
def test_halves_hold_every_record_once_and_go_on_from_each_other(events, refused):
    bad = sorted(number for number in refused if number < len(events))
    batch = decoded([t for t, _ in events], [i for _, i in events], refused=bad)
    one, two = batch.halves()
    assert [*one.records.positions, *two.records.positions] == list(batch.records.positions)
    assert two.after == one.position
    back = sorted([*one.index.tolist(), *(two.index + len(one)).tolist()])
    assert back == sorted(batch.index.tolist())
    told = [*one.refused, *((number + len(one), why) for number, why in two.refused)]
    assert told == list(batch.refused)
    for half, first in ((one, 0), (two, len(one))):
        assert half.rows["place"].to_pylist() == (half.index + first).tolist()
        assert np.all(np.diff(half.time) >= 0)


@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=8), st.integers(1, 5))
def test_recent_ids_are_those_of_the_window_and_survive_a_restart(batches, window):
    recent, stored, plain = RecentIds(window), dict[bytes, bytes](), list[tuple[int, int]]()
    for arrived, ids in enumerate(batches):
        hashes = hashes_of(np.array(ids, np.int64))
        before = {one for when, one in plain}
        expected, seen = [], set()
        for one in hashes.tolist():
            expected.append(one not in before and one not in seen)
            seen.add(one)
        fresh = recent.fresh(hashes)
        assert fresh.tolist() == expected
        for key, value in recent.writes(arrived, hashes[fresh]):
            if value is None:
                del stored[key]
            else:
                stored[key] = value
        recent.add(arrived, hashes[fresh])
        # A block goes when a later one comes: what is kept is at least the window.
        plain = [(when, one) for when, one in plain if when >= arrived - window]
        plain += [(arrived, one) for one in hashes[fresh].tolist()]
        recent = RecentIds(window)
        recent.load(stored.items())
        assert len(recent) == len(plain)


@pytest.mark.parametrize("ids", [np.array([1, 2, -5]), np.array(["a", "b", "ü"], np.dtypes.StringDType())])
def test_hashes_tell_ids_from_each_other_and_are_always_the_same(ids):
    assert len(set(hashes_of(ids).tolist())) == 3
    assert hashes_of(ids[::-1]).tolist() == hashes_of(ids).tolist()[::-1]


def test_progress_survives_the_store():
    progress = Progress.begun("log", 3).counted(newest=9, learned=4, late=1)
    assert Progress.read_from(progress.written()) == progress
    assert (progress.read, progress.newest) == (5, 9)
