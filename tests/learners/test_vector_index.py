"""The nearest by their ids: exact and by a graph, in one space alone, on disk and back."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import acclimate as ac
from acclimate.errors import (
    ConfigError,
    FormatError,
    MismatchError,
    MissingExtraError,
    OutputExistsError,
    RowError,
)
from acclimate.learners import vector_index
from sealing import sealed_anew


def clusters(rows, size=8, seed=0):
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, size))
    vectors = centres[chance.integers(0, 20, rows)] + 0.6 * chance.standard_normal((rows, size))
    return vectors * np.exp(0.5 * chance.standard_normal((rows, 1)))


def test_the_nearest_of_a_few():
    index = ac.VectorIndex(["up", "right", "left"], [[0, 2], [3, 0], [-1, 0]], space="a")
    ids, scores = index.nearest([[1.0, 0.5]], 2, space="a")
    assert ids.tolist() == [["right", "up"]]
    np.testing.assert_allclose(scores, [np.array([1.0, 0.5]) / np.sqrt(1.25)], rtol=1e-6)
    by_product = ac.VectorIndex([10, 20, 30], [[0, 2], [3, 0], [-1, 0]], space="a", metric="dot")
    ids, scores = by_product.nearest([[1.0, 2.0]], 3, space="a")
    assert ids.tolist() == [[10, 20, 30]]
    assert scores.tolist() == [[4.0, 3.0, -1.0]]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_a_graph_finds_nearly_all(metric):
    """However much lengths differ."""
    pytest.importorskip("usearch")
    vectors, queries = clusters(3000), clusters(200, seed=1)
    ids = np.arange(3000) * 7
    exact, graph = (
        ac.VectorIndex(ids, vectors, space="a", metric=metric, method=method) for method in ("exact", "hnsw")
    )
    ids, scores = exact.nearest(queries, 10, space="a")
    found, said = graph.nearest(queries, 10, space="a")
    common = [len(set(one) & set(other)) for one, other in zip(ids.tolist(), found.tolist(), strict=True)]
    assert np.mean(common) > 9.8
    assert (np.diff(said, axis=1) <= 0).all()
    same = ids == found
    np.testing.assert_allclose(said[same], scores[same], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize(("unequal", "copies"), [(5, 400), (1_200, 2), (1_500, 1)])
def test_a_graph_of_vectors_many_of_which_are_equal(unequal, copies, k):
    """As those of users of whom nothing is known: all of them are met, and each once."""
    pytest.importorskip("usearch")
    vectors = np.concatenate([clusters(1_000), np.repeat(clusters(unequal, seed=2), copies, axis=0)])
    order = np.random.default_rng(3).permutation(len(vectors))
    exact, graph = (
        ac.VectorIndex(order, vectors[order], space="a", method=method) for method in ("exact", "hnsw")
    )
    queries = np.concatenate([vectors[::301], clusters(20, seed=4)])
    for asked in (queries, queries[:1]):
        best, near = (index.nearest(asked, k, space="a") for index in (exact, graph))
        assert all(len(set(ids)) == k for ids in near[0].tolist())
        assert np.mean(np.abs(near[1] - best[1]) < 1e-5) > 0.98


def test_a_walk_that_ends_early_is_done_without_the_graph(monkeypatch):
    pytest.importorskip("usearch")
    vectors = clusters(300)
    exact, graph = (
        ac.VectorIndex(np.arange(300), vectors, space="a", method=method) for method in ("exact", "hnsw")
    )
    few = SimpleNamespace(counts=np.array([10, 9]), keys=np.zeros((2, 10)))
    monkeypatch.setattr(graph._graph, "_index", SimpleNamespace(search=lambda *_, **__: few))
    for one, other in zip(*(index.nearest(vectors[:2], 10, space="a") for index in (exact, graph)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_auto_is_exact_up_to_a_number_of_vectors(monkeypatch):
    pytest.importorskip("usearch")
    monkeypatch.setattr(vector_index, "_MOST_EXACT", 50)
    vectors = clusters(51)
    assert ac.VectorIndex(np.arange(50), vectors[:50], space="a")._graph is None
    assert ac.VectorIndex(np.arange(51), vectors, space="a")._graph is not None
    assert ac.VectorIndex(np.arange(51), vectors, space="a", method="exact")._graph is None


def test_a_graph_without_its_library_names_the_extra(monkeypatch, tmp_path):
    for name in ("usearch", "usearch.index"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "acclimate.learners.vector_graph", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[ann\]'"):
        ac.VectorIndex([1], [[1.0]], space="a", method="hnsw")
    ac.VectorIndex([1], [[1.0]], space="a").save(tmp_path / "index")
    assert len(ac.VectorIndex.load(tmp_path / "index")) == 1
    sealed_anew(tmp_path / "index", method="hnsw")
    with pytest.raises(MissingExtraError, match="usearch is not installed"):
        ac.VectorIndex.load(tmp_path / "index")


@pytest.mark.parametrize("method", ["exact", "hnsw"])
@pytest.mark.parametrize("ids", [np.arange(300), [f"user {n}" for n in range(300)]], ids=["int", "text"])
def test_on_disk_and_back(tmp_path, method, ids):
    if method == "hnsw":
        pytest.importorskip("usearch")
    index = ac.VectorIndex(ids, clusters(300), space="a", metric="dot", method=method)
    index.save(tmp_path / "index")
    loaded = ac.VectorIndex.load(tmp_path / "index")
    assert (loaded.space, loaded.metric, loaded.method, len(loaded)) == ("a", "dot", method, 300)
    for one, other in zip(
        *(each.nearest(clusters(9, seed=3), 5, space="a") for each in (index, loaded)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(OutputExistsError):
        index.save(tmp_path / "index", overwrite=False)
    loaded.save(tmp_path / "index", overwrite=True)
    with pytest.raises(OutputExistsError, match="by another"):
        index.save(tmp_path / "index", overwrite=True)
    with pytest.raises(MismatchError, match="holds a 'vector-index', not a 'item-map'"):
        ac.ItemMap.load(tmp_path / "index")


def test_another_space_or_size_is_an_error():
    index = ac.VectorIndex([1, 2], np.eye(2), space="a")
    with pytest.raises(MismatchError, match="space 'b' for this VectorIndex of space 'a'"):
        index.nearest(np.eye(2), 1, space="b")
    with pytest.raises(MismatchError, match=r"vectors \(1, 3\) for this VectorIndex of vectors of 2"):
        index.nearest(np.ones((1, 3)), 1, space="a")
    for k in (0, 3):
        with pytest.raises(ConfigError, match=f"the {k} nearest of 2"):
            index.nearest(np.eye(2), k, space="a")


@pytest.mark.parametrize(
    ("ids", "vectors", "options", "error", "said"),
    [
        ([1, 1, 2], np.eye(3), {}, ConfigError, "1 ids are there twice"),
        ([1, 2], np.eye(3), {}, ConfigError, "2 ids do not go with vectors"),
        ([1, "a"], np.eye(2), {}, MismatchError, "several types"),
        ([1, None], np.eye(2), {}, MismatchError, "missing"),
        ([1, 2**64], np.eye(2), {}, MismatchError, "neither whole numbers of 64 bits nor text"),
        ([1.0, 2.0], np.eye(2), {}, MismatchError, "ids of a VectorIndex are double"),
        ([True, False], np.eye(2), {}, MismatchError, "ids of a VectorIndex are bool"),
        ([1], [1.0], {}, ConfigError, r"shape \(1,\)"),
        ([1], [["one"]], {}, ConfigError, "a table .n, s. of numbers"),
        ([1], [[np.inf]], {}, RowError, r"1 of 1 rows, first in rows \[0\]"),
        ([1], [[1e20]], {}, RowError, "beyond"),
        ([1], [[1.0]], {"metric": "cosin"}, ConfigError, "did you mean 'cosine'"),
        ([1], [[1.0]], {"method": "hsnw"}, ConfigError, "did you mean 'hnsw'"),
    ],
)
def test_what_cannot_be_is_told(ids, vectors, options, error, said):
    with pytest.raises(error, match=said):
        ac.VectorIndex(ids, vectors, space="a", **options)


@pytest.mark.parametrize("damage", [{"metric": "angle"}, {"method": "guess"}, {"tables": []}])
def test_damage_is_told(tmp_path, damage):
    ac.VectorIndex([1, 1 + 2**40], np.eye(2), space="a").save(tmp_path / "index")
    sealed_anew(tmp_path / "index", **damage)
    with pytest.raises(FormatError):
        ac.VectorIndex.load(tmp_path / "index")
