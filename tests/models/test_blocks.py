"""The rows of one effect, and the Hessians of its entities."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.arrays import Diagonal, Full, Precision
from acclimate.models.blocks import Design, Hessians
from acclimate.models.scaling import Scaling

KINDS = ["full", "diagonal", "marginal"]
SIZES = {
    "fewer rows than coefficients": [1, 3, 2, 3],
    "more": [9, 40, 12],
    "none": [0, 0, 0],
    "fewer, or none": [0, 2, 1, 0],
    "more, or none": [0, 17, 0, 9],
    "all at once": [2, 0, 30, 1, 7, 3, 0, 4, 12],
    "as many": [4, 4],
    "one entity": [20],
    "one entity, few rows": [2],
    "one entity, no rows": [0],
}


def cells(seed: int, n: int, d: int, *, dense: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * (1.0 if dense else rng.random((n, d)) < 0.5)


def design(seed: int, sizes: list[int], d: int, *, dense: bool, strangers: int = 5) -> Design:
    """Rows of entities of these sizes in any order, and some that are of none; in their raw units."""
    entity = np.repeat(np.arange(-1, len(sizes)), [strangers, *sizes])
    entity = np.random.default_rng([seed, 1]).permutation(entity)
    X = sparse.csr_array(cells(seed, len(entity), d, dense=dense))
    return Design(X, entity, len(sizes), Scaling(np.zeros(d), np.ones(d)))


def priors(seed: int, count: int, d: int, kind: str, *, shared: bool) -> Precision:
    H = Full(np.array([random_precision(seed + e, d, 1.0 + e) for e in range(1 if shared else count)]))
    return H if kind == "full" else H.kept("diagonal")


def written_out(made: Design, prior: Precision, curvature: np.ndarray, kind: str) -> np.ndarray:
    """``P + X'WX`` of each entity in a plain loop, ``(e, d, d)``; of a diagonal form, its diagonal."""
    X, P = made.X.toarray(), np.broadcast_to(prior.full().array, (made.count, made.width, made.width))
    hessians = []
    for e in range(made.count):
        x, c = X[made.entity == e], curvature[made.entity == e]
        H = P[e] + x.T @ (c[:, None] * x)
        hessians.append(np.diag(np.diag(H)) if kind == "diagonal" else H)
    return np.array(hessians)


# --- rows ------------------------------------------------------------------------------------------------


def test_margins_and_their_transpose_known_by_hand():
    X = sparse.csr_array(np.array([[1.0, 2.0], [0.0, 3.0], [4.0, 0.0], [5.0, 6.0]]))
    made = Design(X, np.array([1, 0, -1, 1]), 3, Scaling(np.zeros(2), np.ones(2)))
    w = np.array([[10.0, 20.0], [1.0, -1.0], [7.0, 7.0]])
    assert_array_equal(made.margin(w), [-1.0, 60.0, 0.0, -1.0])
    assert_array_equal(made.pullback(np.array([1.0, 2.0, 9.0, 3.0])), [[0.0, 6.0], [16.0, 20.0], [0.0, 0.0]])
    assert_array_equal(made.sizes, [1, 2, 0])
    full, diagonal = (made.information(np.array([4.0, 9.0, 7.0, 1.0]), full=full) for full in (True, False))
    assert isinstance(full, Full)
    assert isinstance(diagonal, Diagonal)
    assert_array_equal(full.array, [[[0, 0], [0, 81]], [[29, 38], [38, 52]], [[0, 0], [0, 0]]])
    assert_array_equal(diagonal.array, [[0, 81], [29, 52], [0, 0]])


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_margins_and_their_transpose_are_those_of_a_plain_loop(dense, sizes):
    made = design(2, sizes, 3, dense=dense)
    rng, X = np.random.default_rng(2), made.X.toarray()
    w, r = rng.normal(size=(len(sizes), 3)), rng.normal(size=len(made.entity))
    z, pulled = np.zeros(len(r)), np.zeros_like(w)
    for i, e in enumerate(made.entity):
        if e >= 0:
            z[i] = X[i] @ w[e]
            pulled[e] += r[i] * X[i]
    assert_allclose(made.margin(w), z, rtol=0, atol=1e-13)
    assert_allclose(made.pullback(r), pulled, rtol=0, atol=1e-13)


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_information_of_some_entities_or_all(dense, sizes, full):
    made = design(3, sizes, 4, dense=dense)
    curvature = np.random.default_rng(3).uniform(0.0, 2.0, len(made.entity))
    nothing, kind = Diagonal(np.zeros((1, 4))), "full" if full else "diagonal"
    expected = written_out(made, nothing, curvature, kind)
    whole = made.information(curvature, full=full)
    assert isinstance(whole, Full if full else Diagonal)
    assert_allclose(whole.full().array, expected, rtol=1e-12, atol=1e-12)
    for members in (np.arange(len(sizes))[::-1], np.arange(0, len(sizes), 2)):
        some = made.information(curvature, full=full, members=members)
        assert_allclose(some.full().array, expected[members], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_cells_in_any_order_are_the_same_rows(dense):
    made = design(5, [3, 4], 3, dense=dense)
    columns, values, indptr = made.X.indices.copy(), made.X.data.copy(), made.X.indptr
    for first, last in pairwise(indptr):
        columns[first:last], values[first:last] = columns[first:last][::-1].copy(), values[first:last][::-1].copy()
    other = Design(sparse.csr_array((values, columns, indptr), made.X.shape), made.entity, 2, made.scaling)
    assert not other.X.has_canonical_format
    curvature, prior = np.random.default_rng(5).uniform(0.05, 2.0, len(made.entity)), Diagonal(np.ones((1, 3)))
    for full in (True, False):
        here, there = (one.information(curvature, full=full).array for one in (made, other))
        assert_allclose(there, here, rtol=1e-14)
        here, there = (one.variances(prior, curvature, full=full) for one in (made, other))
        assert_allclose(there, here, rtol=1e-13)


def test_there_may_be_more_coefficients_than_a_small_integer_counts():
    """2.5e9: the columns of all entities side by side, of which none but those with rows are there."""
    d = count = 50_000
    X = sparse.csr_array((np.array([3.0, 4.0]), np.array([1, d - 1]), np.array([0, 1, 2])), shape=(2, d))
    side_by_side = Design(X, np.array([0, count - 1]), count, Scaling(np.zeros(d), np.ones(d))).wide
    assert side_by_side.shape == (2, count * d)
    assert side_by_side.indices.tolist() == [1, count * d - 1]


def test_without_entities_all_rows_are_the_one_entitys():
    shifted = cells(6, 20, 3, dense=True) + np.array([0.0, 5.0, 0.0])
    shifted[:, 0] = 1.0
    X = sparse.csr_array(shifted)
    weight = np.random.default_rng(6).uniform(0.5, 2.0, 20)
    for centre in (True, False):
        made = Design.of(X, None, 1, weight=weight, centre=centre)
        scaling = Scaling.of(X, centre=centre, weight=weight)
        assert_array_equal(made.entity, np.zeros(20))
        assert_array_equal(made.scaling.centre, scaling.centre)
        assert made.scaling.centre.any() == centre
        assert_array_equal(made.wide.toarray(), scaling.rows(X).toarray())
        assert made.width == 3


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_pieces_are_all_entities_once_and_bounded(full, monkeypatch):
    made = design(7, [1] * 25, 3, dense=True)
    monkeypatch.setattr("acclimate.models.blocks._STRIP_CELLS", 40)
    pieces = list(made.pieces(full=full))
    assert_array_equal(np.concatenate(pieces), np.arange(25))
    assert max(map(len, pieces)) == (4 if full else 25)  # diagonals are no larger than the means
    monkeypatch.setattr("acclimate.models.blocks._STRIP_CELLS", 1)
    assert len(list(made.pieces(full=full))) == (25 if full else 1)


# --- Hessians --------------------------------------------------------------------------------------------


def assert_solves(
    made: Design, prior: Precision, curvature: np.ndarray, kind: str, within: float = 1e-10
) -> Hessians:
    """In the length of ``H``: what is left over is small against ``v' H^-1 v``."""
    hessians = Hessians.of(made, prior, curvature, full=kind != "diagonal")
    H = written_out(made, prior, curvature, kind)
    v = np.random.default_rng(0).normal(size=(made.count, made.width))
    copy = v.copy()
    solved, expected = hessians.solve(v), np.linalg.solve(H, v[..., None])[..., 0]
    off = solved - expected
    assert solved.shape == v.shape
    assert_array_equal(v, copy)
    assert np.all(np.vecdot(off, np.matvec(H, off)) <= within**2 * np.vecdot(v, expected))
    return hessians


@pytest.mark.parametrize("shared", [True, False], ids=["one prior", "a prior each"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_hessians_are_solved_with_as_if_written_out(sizes, dense, kind, shared):
    made = design(8, sizes, 4, dense=dense)
    curvature = np.random.default_rng(8).uniform(0.05, 2.0, len(made.entity))
    hessians = assert_solves(made, priors(8, len(sizes), 4, kind, shared=shared), curvature, kind)
    in_the_rows_space = (shared or len(sizes) == 1) and kind != "diagonal" and any(r < 4 for r in sizes)
    assert (hessians.few_rows is not None) == in_the_rows_space


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False], ids=["one prior", "a prior each"])
def test_hessians_of_lone_coefficients(kind, shared):
    made = design(9, [3, 0, 1, 8], 1, dense=True)
    curvature = np.random.default_rng(9).uniform(0.05, 2.0, len(made.entity))
    assert_solves(made, priors(9, 4, 1, kind, shared=shared), curvature, kind)


@pytest.mark.parametrize("shared", [True, False], ids=["one prior", "a prior each"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_curvature_leave_the_prior(kind, shared):
    made = design(10, SIZES["all at once"], 4, dense=True)
    prior = priors(10, made.count, 4, kind, shared=shared)
    v = np.random.default_rng(10).normal(size=(made.count, 4))
    hessians = Hessians.of(made, prior, np.zeros(len(made.entity)), full=kind != "diagonal")
    assert_allclose(hessians.solve(v), prior.solve(v), rtol=1e-12)


@pytest.mark.parametrize(("curved", "weak"), [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e-6), (1.0, 1e6)])
def test_few_rows_of_much_curvature_and_priors_that_say_little(curved, weak):
    """Woodbury's identity takes a difference, which loses digits where the rows say far more than the prior."""
    made = design(11, SIZES["all at once"], 4, dense=True)
    curvature = curved * np.random.default_rng(11).uniform(0.5, 2.0, len(made.entity))
    prior = Full(weak * random_precision(11, 4)[None])
    assert_solves(made, prior, curvature, "full", within=1e-6)


@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9),
    d=st.integers(1, 6),
    dense=st.booleans(),
    shared=st.booleans(),
    kind=st.sampled_from(KINDS),
)
def test_hessians_are_solved_with_whatever_the_sizes(seed, sizes, d, dense, shared, kind):
    made = design(seed, sizes, d, dense=dense, strangers=seed % 3)
    curvature = np.random.default_rng(seed).uniform(0.05, 2.0, len(made.entity))
    assert_solves(made, priors(seed, len(sizes), d, kind, shared=shared), curvature, kind)


def test_entities_of_few_rows_have_no_matrices_of_their_own():
    """2,000 Hessians of 300 coefficients would be 1.4 GB."""
    count, d = 2_000, 300
    X = sparse.random_array((count, d), density=0.05, rng=np.random.default_rng(12), format="csr")
    made = Design(X, np.arange(count), count, Scaling(np.zeros(d), np.ones(d)))
    hessians = Hessians.of(made, Diagonal(np.full((1, d), 2.0)), np.full(count, 0.25), full=True)
    assert hessians.inverse.array.size == 0
    v = np.random.default_rng(13).normal(size=(count, d))
    x = X[[7]].toarray()[0]
    expected = np.linalg.solve(2.0 * np.eye(d) + 0.25 * np.outer(x, x), v[7])
    assert_allclose(hessians.solve(v)[7], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["full", "diagonal"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_variances_of_rows_are_those_of_hessians_written_out(sizes, kind, shared):
    made = design(13, sizes, 3, dense=False)
    prior, curvature = (
        priors(13, len(sizes), 3, kind, shared=shared),
        np.random.default_rng(13).random(len(made.entity)),
    )
    H, X = written_out(made, prior, curvature, kind), made.X.toarray()
    expected = [x @ np.linalg.solve(H[e], x) if e >= 0 else 0.0 for x, e in zip(X, made.entity, strict=True)]
    assert_allclose(made.variances(prior, curvature, full=kind == "full"), expected, rtol=1e-9, atol=1e-12)
