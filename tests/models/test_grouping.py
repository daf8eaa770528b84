import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from acclimate.models.grouping import Grouping

ENTITIES = st.integers(1, 8).flatmap(
    lambda count: st.tuples(st.just(count), st.lists(st.integers(-1, count - 1), max_size=60))
)


def test_rows_are_in_the_order_of_their_entities():
    grouping = Grouping.of(np.array([1, -1, 0, 1, 3, 1, -1]), 5)
    assert_array_equal(grouping.order, [2, 0, 3, 5, 4])
    assert_array_equal(grouping.indptr, [0, 1, 4, 4, 5, 5])
    assert_array_equal(grouping.sizes, [1, 3, 0, 1, 0])


def test_entities_with_as_many_rows_are_side_by_side():
    small, large = Grouping.of(np.repeat([0, 1, 2, 3], [2, 5, 0, 2]), 4).of_same_size(np.array([1, 3, 0]), 3)
    assert_array_equal(small[0], [3, 0])
    assert_array_equal(small[1], [[7, 8], [0, 1]])
    assert_array_equal(large[0], [1])
    assert_array_equal(large[1], [[2, 3, 4, 5, 6]])


@given(case=ENTITIES, d=st.integers(1, 20), cells=st.sampled_from([1, 60, 500, 10**6]), choice=st.randoms())
def test_every_row_of_those_asked_for_comes_once(case, d, cells, choice):
    count, entity = case[0], np.array(case[1], np.int64)
    members = np.array(choice.sample(range(count), choice.randint(0, count)), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("acclimate.models.grouping._CHUNK_CELLS", cells)
        groups = list(Grouping.of(entity, count).of_same_size(members, d))
    seen = {}
    for some, rows in groups:
        m, r = rows.shape
        assert some.shape == (m,)
        assert m == 1 or m * max(r, d) * d <= cells
        seen |= dict(zip(some.tolist(), rows.tolist(), strict=True))
    assert sum(len(some) for some, _ in groups) == len(members)
    assert seen == {e: np.flatnonzero(entity == e).tolist() for e in members.tolist()}
