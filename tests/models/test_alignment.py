"""The rotation between two spaces, and how alike they are: known answers and what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.errors import ConfigError
from acclimate.models.alignment import neighbourhood_overlap, procrustes


def rotation(chance, size):
    Q, R = np.linalg.qr(chance.standard_normal((size, size)))
    return Q * np.sign(np.diag(R))


def overlap_twin(first, second, k):
    shares = []
    for row in range(len(first)):
        sets = []
        for vectors in (first, second):
            lengths = np.linalg.norm(vectors, axis=1)
            cosine = vectors @ vectors[row] / lengths / lengths[row]
            cosine[row] = -np.inf
            sets.append(set(np.argsort(-cosine, kind="stable")[:k].tolist()))
        shares.append(len(sets[0] & sets[1]) / k)
    return float(np.mean(shares))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12))
def test_a_rotation_is_found_again(seed, size):
    chance = np.random.default_rng(seed)
    source, turned = chance.standard_normal((3 * size, size)), rotation(chance, size)
    np.testing.assert_allclose(procrustes(source, source @ turned), turned, atol=1e-9)
    np.testing.assert_allclose(procrustes(source, 7.0 * source @ turned), turned, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_other_rotation_is_closer(seed):
    chance = np.random.default_rng(seed)
    source, target = chance.standard_normal((20, 4)), chance.standard_normal((20, 4))
    best = procrustes(source, target)
    np.testing.assert_allclose(best.T @ best, np.eye(4), atol=1e-12)
    at_best = np.linalg.norm(source @ best - target)
    for _ in range(20):
        assert np.linalg.norm(source @ rotation(chance, 4) - target) >= at_best - 1e-12


def test_a_quarter_turn():
    np.testing.assert_allclose(procrustes(np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]])), [[0, 1], [-1, 0]])


def test_overlap_is_that_of_the_twin():
    chance = np.random.default_rng(1)
    first = chance.standard_normal((60, 5))
    second = first + 0.5 * chance.standard_normal((60, 5))
    overlap = neighbourhood_overlap(first, second, 7)
    assert overlap == pytest.approx(overlap_twin(first, second, 7), abs=1e-12)
    assert 0.2 < overlap < 0.9
    parts = [neighbourhood_overlap(first, second, 7, rows=rows) for rows in np.split(np.arange(60), 3)]
    assert overlap == pytest.approx(np.mean(parts))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_rotation_nor_lengths_nor_order_matter(seed):
    chance = np.random.default_rng(seed)
    first, second = chance.standard_normal((2, 30, 6))
    turned = first @ rotation(chance, 6) * chance.uniform(0.5, 2.0, (30, 1))
    assert neighbourhood_overlap(first, turned, 5) == pytest.approx(1.0, abs=0.02)  # float32 may swap a near tie
    order = chance.permutation(30)
    overlap = neighbourhood_overlap(first, second, 5)
    assert neighbourhood_overlap(second, first, 5) == overlap
    assert neighbourhood_overlap(first[order], second[order], 5) == pytest.approx(overlap, abs=0.02)


def test_spaces_that_have_nothing_in_common():
    first, second = np.random.default_rng(2).standard_normal((2, 500, 8))
    assert neighbourhood_overlap(first, second, 10) == pytest.approx(10 / 499, abs=0.01)


def test_what_does_not_fit_is_told():
    with pytest.raises(ConfigError, match=r"\(3, 2\) cannot be mapped to \(4, 2\)"):
        procrustes(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(ConfigError, match="no 3 neighbours"):
        neighbourhood_overlap(np.ones((3, 2)), np.ones((3, 2)), 3)
    with pytest.raises(ConfigError, match="among 3 and 4"):
        neighbourhood_overlap(np.ones((3, 2)), np.ones((4, 2)), 1)
    for rows in ([], [3], [-1]):
        with pytest.raises(ConfigError, match=f"{len(rows)} rows of 3 vectors"):
            neighbourhood_overlap(np.ones((3, 2)), np.ones((3, 2)), 1, rows=np.array(rows, np.int64))
