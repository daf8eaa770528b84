"""Tasks and their supports against a loop over rows."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from acclimate.learners.meta.tasks import Tasks, Timeline, chunks, newest, thinned

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.booleans()), min_size=1, max_size=40)
MOST = st.integers(0, 5)


def columns(rows: list[tuple[int, int, bool]], *, in_order: bool) -> tuple[Any, Any, Any]:
    """Whose each row is, when, and whether its label is known."""
    code, time, known = (np.array(part) for part in zip(*rows, strict=True))
    order = np.argsort(time, kind="stable") if in_order else np.arange(len(time))
    return code[order], time[order], known[order]


def support_of(code: Any, time: Any, known: Any, row: int, most: int) -> list[int]:
    """The newest known rows of the row's entity that are strictly older."""
    older = [i for i in range(len(code)) if code[i] == code[row] and time[i] < time[row] and known[i]]
    return sorted(older, key=lambda i: time[i])[max(len(older) - most, 0) :]


def as_lists(tasks: Tasks) -> list[tuple[list[int], int]]:
    return [(tasks.rows[tasks.task == t].tolist(), int(row)) for t, row in enumerate(tasks.features)]


@given(rows=ROWS, most=MOST, every=st.booleans())
def test_each_row_has_the_newest_rows_that_are_strictly_older(rows: Any, most: int, every: bool) -> None:
    code, time, known = columns(rows, in_order=False)
    known = known | every
    timeline = Timeline(code, time) if every else Timeline(code, time, known)
    asked = np.arange(len(code))[::-2]
    expected = []
    for row in asked.tolist():
        support = support_of(code, time, known, row, most)
        expected.append((support, support[-1] if support else row))
    tasks = timeline.each(asked, most)
    assert as_lists(tasks) == expected
    assert len(tasks) == len(asked)
    numbers = np.arange(len(code)) * 3 + 1
    renumbered = [([3 * i + 1 for i in support], 3 * row + 1) for support, row in expected]
    assert as_lists(tasks.renumbered(numbers)) == renumbered


@given(rows=ROWS, most=MOST, size=st.integers(1, 12))
def test_a_batch_has_a_task_for_each_entity_at_the_moment_of_its_first_row(
    rows: Any, most: int, size: int
) -> None:
    code, time, _ = columns(rows, in_order=True)
    known, timeline = np.ones(len(code), bool), Timeline(code, time)
    for batch in chunks(time, 0, len(time), size):
        ends, sizes, first, task = timeline.at_once(batch, most)
        tasks = as_lists(Tasks.of_ends(timeline.order, ends, sizes, first))
        for row in batch:
            begin = next(i for i in batch if code[i] == code[row])
            support = support_of(code, time, known, begin, most)
            assert tasks[task[row - batch.start]] == (support, support[-1] if support else begin)
            assert all(time[i] < time[batch.start] for i in support)
        assert len(tasks) == len(set(code[batch.start : batch.stop].tolist()))


@given(times=st.lists(st.integers(0, 12), max_size=40), size=st.integers(1, 12), data=st.data())
def test_batches_are_consecutive_rows_and_cut_no_instant(times: list[int], size: int, data: st.DataObject) -> None:
    time = np.sort(np.array(times, np.int64))
    edges = [0, *(i for i in range(1, len(time)) if time[i] > time[i - 1]), len(time)]
    first = data.draw(st.sampled_from(edges))
    last = data.draw(st.sampled_from([edge for edge in edges if edge >= first]))
    batches = chunks(time, first, last, size)
    assert [row for batch in batches for row in batch] == list(range(first, last))
    assert all(batch and {batch.start, batch.stop} <= set(edges) for batch in batches)
    most = int(np.bincount(time).max(initial=0))  # of one instant
    assert all(len(batch) < size + most for batch in batches)
    assert [len(batch) for batch in chunks(np.arange(20), 3, 20, 5)] == [5, 5, 5, 2]


@given(rows=ROWS, most=st.integers(1, 5))
def test_the_newest_rows_of_each_entity(rows: Any, most: int) -> None:
    code, _, _ = columns(rows, in_order=True)
    expected = [int((code[row + 1 :] == code[row]).sum()) < most for row in range(len(code))]
    assert newest(code, most).tolist() == expected


@given(
    sizes=st.lists(st.integers(0, 100), min_size=1, max_size=20), share=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_thinned_supports_are_no_larger_and_a_share_of_them(sizes: list[int], share: float, seed: int) -> None:
    chance = np.random.default_rng(seed).random((2, len(sizes)))
    fewer = thinned(np.array(sizes), share, chance)
    for size, few, (turn, luck) in zip(sizes, fewer.tolist(), chance.T, strict=True):
        if turn >= share:
            assert few == size
        else:  # the logarithm of one more is uniform, from that of 1 to that of all
            assert few + 1 <= (size + 1) ** luck * (1 + 1e-12)
            assert few == size or few + 2 > (size + 1) ** luck


def test_of_thinned_supports_some_are_of_no_rows() -> None:
    chance = np.vstack([np.zeros(1000), (np.arange(1000) + 0.5) / 1000])
    drawn = np.bincount(thinned(np.full(1000, 15), 1.0, chance), minlength=16)
    assert_array_equal(drawn[[0, 1, 3, 7]], [250, 146, 80, 42])  # log(k + 2) / log 16 - log(k + 1) / log 16
