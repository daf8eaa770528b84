import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from acclimate.models.grouping import Grouping

ENTITIES = st.integers(1, 8).flatmap(
    lambda count: st.tuples(st.just(count), st.lists(st.integers(-1, count - 1), max_size=60))
)


def rows_by_entity(entity: np.ndarray, count: int) -> list[list[int]]:
    return [np.flatnonzero(entity == e).tolist() for e in range(count)]


def test_rows_are_in_the_order_of_their_entities():
    grouping = Grouping.of(np.array([1, -1, 0, 1, 3, 1, -1]), 5)
    assert_array_equal(grouping.order, [2, 0, 3, 5, 4])
    assert_array_equal(grouping.indptr, [0, 1, 4, 4, 5, 5])
    assert_array_equal(grouping.sizes, [1, 3, 0, 1, 0])


def test_entities_of_similar_size_are_filled_up_side_by_side():
    entity = np.repeat([0, 1, 2, 3], [2, 5, 1, 0])
    small, large = Grouping.of(entity, 4).groups(3)
    assert_array_equal(small.members, [2, 0])
    assert_array_equal(small.rows, [[7, 7], [0, 1]])
    assert_array_equal(small.real, [[True, False], [True, True]])
    assert_array_equal(large.members, [1])
    assert_array_equal(large.rows, [[2, 3, 4, 5, 6]])


@pytest.mark.parametrize("sizes", [[1] * 30 + [3], [5] * 30 + [11], [2] * 9 + [4, 5], list(range(1, 60))], ids=str)
def test_those_who_fill_up_are_at_most_as_many_as_the_real(sizes):
    for group in Grouping.of(np.repeat(np.arange(len(sizes)), sizes), len(sizes)).groups(2):
        assert group.rows.size <= 2 * group.real.sum()


def test_without_rows_there_are_no_groups():
    assert list(Grouping.of(np.full(4, -1), 3).groups(2)) == []
    assert list(Grouping.of(np.empty(0, np.int64), 3).groups(2)) == []
    assert list(Grouping.of(np.zeros(4, np.int64), 3).groups(2, np.array([1, 2]))) == []


@given(case=ENTITIES, d=st.integers(1, 20), cells=st.sampled_from([1, 60, 500, 10**6]), choice=st.randoms())
def test_every_row_is_in_one_group_once(case, d, cells, choice):
    count, entity = case[0], np.array(case[1], np.int64)
    expected, grouping = rows_by_entity(entity, count), Grouping.of(entity, count)
    some = np.array(choice.sample(range(count), choice.randint(0, count)), np.int64)
    for members in (None, some):
        asked = list(range(count)) if members is None else members.tolist()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("acclimate.models.grouping._CHUNK_CELLS", cells)
            groups = list(grouping.groups(d, members))
        seen = {}
        for group in groups:
            m, r = group.rows.shape
            assert group.members.shape == (m,)
            assert group.real.shape == (m, r)
            assert m * r <= 2 * group.real.sum()
            assert m == 1 or m * max(r, d) * d <= cells
            for e, rows, real in zip(group.members.tolist(), group.rows, group.real, strict=True):
                assert e not in seen
                seen[e] = rows[real].tolist()
                assert set(rows.tolist()) == set(seen[e])  # what fills up is of the entity too
        assert seen == {e: expected[e] for e in asked if expected[e]}
        sizes = [len(seen[e]) for group in groups for e in group.members]
        assert sizes == sorted(sizes)
        assert [group.rows.shape[1] for group in groups] == [sizes_of(group).max() for group in groups]


def sizes_of(group) -> np.ndarray:
    return group.real.sum(axis=1)


@given(case=ENTITIES)
def test_numbers_of_the_rows_are_gathered_and_scattered(case):
    count, entity = case[0], np.array(case[1], np.int64)
    values = 1.0 + np.arange(len(entity))
    back = np.full(len(entity), -7.0)
    for group in Grouping.of(entity, count).groups(3):
        gathered = group.gathered(values)
        assert_array_equal(gathered, np.where(group.real, values[group.rows], 0.0))
        group.scatter(np.where(group.real, gathered, np.nan), back)
    assert_array_equal(back, np.where(entity >= 0, values, -7.0))
