"""The nearest vectors, against a twin that sorts everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.errors import ConfigError, RowError
from acclimate.models import nearest
from acclimate.models.nearest import Seen, top, unit


def twin(queries, vectors, k, metric="cosine", seen=None):
    """Every score, sorted by score and then by position, one query at a time."""
    positions, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf)
    for q, query in enumerate(queries):
        hidden = set() if seen is None else set(seen.positions[seen.indptr[q] : seen.indptr[q + 1]].tolist())
        ranked = []
        for position, vector in enumerate(vectors):
            score = float(query @ vector)
            if metric == "cosine":
                lengths = float(np.linalg.norm(query) * np.linalg.norm(vector))
                score = score / lengths if lengths else 0.0
            if position not in hidden:
                ranked.append((-score, position))
        for place, (score, position) in enumerate(sorted(ranked)[:k]):
            positions[q, place], scores[q, place] = position, -score
    return positions, scores


def seen_by(chance, queries, vectors, most):
    counts = chance.integers(0, most + 1, queries)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Seen(indptr, chance.integers(0, vectors, indptr[-1]))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(nearest, "_QUERIES", 3)
    monkeypatch.setattr(nearest, "_VECTORS", 7)


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.usefixtures("small_blocks")
def test_the_nearest_are_those_of_the_twin(metric, hidden):
    chance = np.random.default_rng(0)
    queries, vectors = chance.standard_normal((11, 5)), chance.standard_normal((40, 5))
    seen = seen_by(chance, 11, 40, hidden) if hidden else None
    found = top(queries, vectors, 6, metric=metric, seen=seen)
    positions, scores = twin(queries, vectors, 6, metric, seen)
    np.testing.assert_array_equal(found.positions, positions)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 9),
    vectors=st.integers(0, 40),
    k=st.integers(1, 12),
    hidden=st.integers(0, 20),
)
def test_ties_go_by_position(seed, queries, vectors, k, hidden):
    """Of small whole numbers all scores are exact, and many are equal."""
    chance = np.random.default_rng(seed)
    left, right = chance.integers(-1, 2, (queries, 3)), chance.integers(-1, 2, (vectors, 3))
    seen = seen_by(chance, queries, max(vectors, 1), hidden) if vectors else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_QUERIES", 4)
        patch.setattr(nearest, "_VECTORS", 9)
        patch.setattr(nearest, "_MANY", 1)
        found = top(left.astype(float), right.astype(float), k, metric="dot", seen=seen)
    positions, scores = twin(left, right, k, "dot", seen)
    np.testing.assert_array_equal(found.positions, positions)
    np.testing.assert_array_equal(found.scores, scores)


def test_ascending_scores_and_more_than_a_block():
    """The worst order: each block is better than all before."""
    vectors = np.arange(40_000.0)[:, None]
    found = top(np.array([[1.0], [-1.0]]), vectors, 3, metric="dot")
    assert found.positions.tolist() == [[39_999, 39_998, 39_997], [0, 1, 2]]


def test_where_fewer_are_left_the_rest_is_marked():
    found = top(np.ones((2, 2)), np.eye(2), 3, metric="dot", seen=Seen(np.array([0, 1, 3]), np.array([0, 1, 0])))
    assert found.positions.tolist() == [[1, -1, -1], [-1, -1, -1]]
    assert found.scores.tolist() == [[1.0, -np.inf, -np.inf], [-np.inf] * 3]


def test_lengths_outside_of_the_range_of_squares():
    rows = np.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("queries", "vectors", "k", "metric", "said"),
    [
        (np.ones((1, 2)), np.ones((1, 3)), 1, "dot", r"queries \(1, 2\) do not go with vectors \(1, 3\)"),
        (np.ones(2), np.ones((1, 2)), 1, "dot", r"queries \(2,\)"),
        (np.ones((1, 2)), np.ones((1, 2)), 0, "dot", "0 nearest"),
        (np.ones((1, 2)), np.ones((1, 2)), 1, "cosin", "did you mean 'cosine'"),
    ],
)
def test_what_does_not_fit_is_told(queries, vectors, k, metric, said):
    with pytest.raises(ConfigError, match=said):
        top(queries, vectors, k, metric=metric)


def test_what_is_not_finite_is_told():
    with pytest.raises(RowError, match=r"vectors are not finite in 1 of 2 rows, first in rows \[1\]"):
        top(np.ones((1, 1)), np.array([[1.0], [np.nan]]), 1)
