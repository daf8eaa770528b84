"""Symmetric matrices as triangles and back, to the last bit."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from acclimate.models.triangles import matrices, strips, triangles


@pytest.mark.parametrize("d", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_symmetric_matrix_comes_back_to_the_last_bit(d, count):
    half = np.random.default_rng(d).normal(size=(count, d, d))
    whole = half + half.swapaxes(1, 2)
    packed = triangles(whole)
    assert packed.shape == (count, d * (d + 1) // 2)
    assert_array_equal(matrices(packed, d), whole)
    for row, line in zip(whole, packed, strict=True):
        assert_array_equal(line, row[np.tril_indices(d)])


def test_what_is_above_the_diagonal_is_not_read():
    whole = np.array([[[1.0, np.nan], [2.0, 3.0]]])
    assert_array_equal(matrices(triangles(whole), 2), [[[1.0, 2.0], [2.0, 3.0]]])


@pytest.mark.parametrize("count", [0, 1, 2048, 2049, 10_000])
def test_strips_are_all_of_them_once(count):
    assert [i for strip in strips(count) for i in range(count)[strip]] == list(range(count))
