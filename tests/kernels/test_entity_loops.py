"""Loops over the sparse rows of many entities, against the same in NumPy, entity by entity."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.arrays import Full
from acclimate.kernels import entities as kernel
from acclimate.kernels.entities import Rows
from acclimate.models.blocks import Design
from acclimate.models.scaling import Scaling

CASES = {
    "sizes": st.lists(st.integers(0, 40), min_size=1, max_size=9),
    "d": st.integers(1, 12),
    "density": st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    "seed": st.integers(0, 2**32 - 1),
}


def world(rng, sizes, d, density, *, strangers=4, index=np.int32):
    """Rows in any order, some of them of no entity, and the same as a matrix."""
    entity = rng.permutation(np.repeat(np.arange(-1, len(sizes)), [strangers, *sizes]))
    X = rng.normal(size=(len(entity), d)) * (rng.random((len(entity), d)) < density)
    cells = sparse.csr_array(X)
    order = np.argsort(entity, kind="stable")[strangers:]
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    rows = Rows(cells.data, cells.indices.astype(index), cells.indptr.astype(index), entity, order, bounds)
    return rows, X


def positive(rng, count, d):
    """Matrices that are well conditioned."""
    A = rng.normal(size=(count, d, 2 * d))
    return A @ np.swapaxes(A, 1, 2) / d + np.eye(d)


def grams(rows, X, curvature):
    """The twin: of each entity."""
    count = len(rows.bounds) - 1
    own = [np.flatnonzero(rows.entity == e) for e in range(count)]
    return np.array([X[i].T @ (curvature[i, None] * X[i]) for i in own])


@given(**CASES, squared=st.booleans())
def test_margins_and_their_transpose_are_those_of_numpy(sizes, d, density, seed, squared):
    rng = np.random.default_rng(seed)
    rows, X = world(rng, sizes, d, density)
    w, r = rng.normal(size=(len(sizes), d)), rng.normal(size=len(X))
    there, Z = rows.entity >= 0, X**2 if squared else X
    z = np.where(there, np.vecdot(Z, w[rows.entity]), 0.0)
    assert_allclose(kernel.margin(rows, w, squared=squared), z, atol=1e-12)
    gathered = np.zeros_like(w)
    np.add.at(gathered, rows.entity[there], (r[:, None] * Z)[there])
    assert_allclose(kernel.pullback(rows, r, len(sizes), d, squared=squared), gathered, atol=1e-12)


@pytest.mark.parametrize("density", [0.05, 1.0])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 17, 33])
def test_gram_matrices_are_those_of_numpy(d, density):
    """Pairs of cells and written strips, of no rows to more than a strip."""
    rng = np.random.default_rng(d)
    sizes = [0, 1, 2, d, 15, 16, 17, kernel._STRIP, kernel._STRIP + 1, 3 * kernel._STRIP - 5]
    rows, X = world(rng, sizes, d, density)
    curvature, members = rng.random(len(X)), rng.permutation(len(sizes))[:7]
    before = positive(rng, 7, d)
    H = before.copy()
    kernel.add_grams(rows, members, curvature, H)
    assert_allclose(H, before + grams(rows, X, curvature)[members], rtol=1e-12, atol=1e-12)
    assert_array_equal(H, np.swapaxes(H, 1, 2))


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 9, 16, 17, 40])
def test_inverses_are_those_of_numpy_whatever_the_units(d):
    rng = np.random.default_rng(d)
    unit = 10.0 ** rng.uniform(-6, 6, (5, d))
    H = positive(rng, 5, d) * unit[:, :, None] * unit[:, None, :]
    inverse = H.copy()
    assert len(kernel.invert(inverse)) == 0
    inside = inverse * unit[:, :, None] * unit[:, None, :]
    assert_allclose(inside, np.linalg.inv(H / unit[:, :, None] / unit[:, None, :]), rtol=1e-11, atol=1e-12)
    assert_array_equal(inverse, np.swapaxes(inverse, 1, 2))


@pytest.mark.parametrize("digits", [4, 8, 11])
def test_inverses_keep_the_digits_that_there_are(digits):
    """Of matrices nearly singular, as close to the truth as LAPACK's."""
    rng = np.random.default_rng(digits)
    Q = np.linalg.qr(rng.normal(size=(30, 9, 9)))[0]
    eigenvalues = np.concatenate([np.ones(8), [10.0**-digits]])
    H = (Q * eigenvalues) @ np.swapaxes(Q, 1, 2)
    H = 0.5 * (H + np.swapaxes(H, 1, 2))
    inverse = H.copy()
    assert len(kernel.invert(inverse)) == 0
    truth = (Q / eigenvalues) @ np.swapaxes(Q, 1, 2)
    lapack = np.abs(np.linalg.inv(H) - truth).max()
    assert np.abs(inverse - truth).max() < 10.0 * lapack


def test_matrices_without_a_root_are_named_and_stay():
    H = np.array(
        [np.eye(3), np.diag([1.0, 0.0, 1.0]), np.ones((3, 3)), np.diag([1.0, -1.0, 1.0]), 4.0 * np.eye(3)]
    )
    H = np.concatenate([H, [np.full((3, 3), np.nan), np.diag([1.0, np.inf, 1.0])]])
    inverse = H.copy()
    assert_array_equal(kernel.invert(inverse), [1, 2, 3, 5, 6])
    assert_array_equal(inverse[[1, 2, 3, 5, 6]], H[[1, 2, 3, 5, 6]])
    assert_array_equal(inverse[[0, 4]], [np.eye(3), 0.25 * np.eye(3)])


@pytest.mark.parametrize("n", [1, 5, 3000])
@pytest.mark.parametrize("d", [1, 2, 7, 16])
def test_posteriors_are_those_of_numpy(n, d):
    rng = np.random.default_rng(n)
    A, P, linear = positive(rng, n, d), positive(rng, 1, d)[0], rng.normal(size=(n, d))
    means, total, failed = kernel.posteriors(A, linear, P)
    S = np.linalg.inv(A + P)
    assert len(failed) == 0
    assert_allclose(means, np.matvec(S, linear), rtol=1e-10, atol=1e-13)
    assert_allclose(total, S.sum(axis=0), rtol=1e-11, atol=1e-11)


def test_posteriors_without_a_root_are_named_and_left_out():
    A = np.array([np.eye(2), -np.eye(2), 3.0 * np.eye(2)])
    means, total, failed = kernel.posteriors(A, np.ones((3, 2)), np.eye(2))
    assert_array_equal(failed, [1])
    assert_allclose(means, [[0.5, 0.5], [0.0, 0.0], [0.25, 0.25]])
    assert_allclose(total, 0.75 * np.eye(2))


@given(**CASES)
def test_products_and_forms_are_those_of_numpy(sizes, d, density, seed):
    rng = np.random.default_rng(seed)
    rows, X = world(rng, sizes, d, density)
    members = rng.permutation(len(sizes))[: rng.integers(len(sizes) + 1)]
    S, v = positive(rng, len(members), d), rng.normal(size=(len(sizes), d))
    products, values = v.copy(), np.full(len(X), 7.0)
    kernel.times(S, members, v, products)
    kernel.forms(rows, members, S, values)
    expected, forms = v.copy(), np.full(len(X), 7.0)
    expected[members] = np.matvec(S, v[members])
    for m, e in enumerate(members):
        x = X[rows.entity == e]
        forms[rows.entity == e] = np.vecdot(x @ S[m], x)
    assert_allclose(products, expected, atol=1e-11)
    assert_allclose(values, forms, atol=1e-11)


@given(**CASES, shared=st.booleans(), full=st.booleans())
def test_variances_are_those_of_numpy(sizes, d, density, seed, shared, full):
    rng = np.random.default_rng(seed)
    rows, X = world(rng, sizes, d, density)
    curvature, P = rng.random(len(X)), positive(rng, 1 if shared else len(sizes), d)
    P = P if full else P * np.eye(d)
    prior = P if full else np.diagonal(P, axis1=1, axis2=2).copy()
    values = np.zeros(len(X))
    assert len(kernel.variances(rows, prior, curvature, d, values)) == 0
    S = np.linalg.inv(P + grams(rows, X, curvature))
    expected = np.where(rows.entity >= 0, np.vecdot(np.matvec(S[rows.entity], X), X), 0.0)
    assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_variances_of_entities_without_a_root_are_left_out():
    rng = np.random.default_rng(0)
    rows, _ = world(rng, [2, 2, 2], 3, 1.0)
    prior = np.stack([np.eye(3), np.zeros((3, 3)), np.eye(3)])
    values = np.full(len(rows.entity), 7.0)
    assert_array_equal(kernel.variances(rows, prior, np.ones(len(values)), 3, values), [1])
    assert (values[rows.entity == 1] == 7.0).all()
    assert (values[rows.entity == -1] == 7.0).all()
    assert (values[np.isin(rows.entity, [0, 2])] < 2.0).all()


@given(**CASES, full=st.booleans())
def test_few_rows_solve_as_the_whole_hessian_does(sizes, d, density, seed, full):
    rng = np.random.default_rng(seed)
    rows, X = world(rng, sizes, d, density)
    curvature, P = rng.random(len(X)), positive(rng, 1, d)[0]
    P = P if full else np.diag(np.diag(P))
    C = np.linalg.inv(P) if full else 1.0 / np.diag(P)
    members = rng.permutation(len(sizes))[: rng.integers(1, len(sizes) + 1)]
    v, root = rng.normal(size=(len(sizes), d)), np.sqrt(curvature)
    inner, places, failed = kernel.inner_inverses(rows, members, C, root)
    assert len(failed) == 0
    assert len(inner) == (np.diff(rows.bounds)[members] ** 2).sum()
    solved = v.copy()
    kernel.solve_inner(rows, members, C, root, (inner, places), v, solved)
    expected = v.copy()
    expected[members] = np.linalg.solve((P + grams(rows, X, curvature))[members], v[members][..., None])[..., 0]
    assert_allclose(solved, expected, atol=1e-10)


def test_rows_that_say_too_much_are_named():
    """Beyond all numbers: there is no inverse, and what was to be inverted is handed back."""
    rng = np.random.default_rng(0)
    rows, _ = world(rng, [2, 3], 4, 1.0, strangers=0)
    root = np.where(rows.entity == 1, 1e200, 1.0)
    with np.errstate(over="ignore"):
        inner, places, failed = kernel.inner_inverses(rows, np.arange(2), np.ones(4), root)
    assert_array_equal(failed, [1])
    assert np.isfinite(inner[: places[1]]).all()
    assert not np.isfinite(inner[places[1] :]).all()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_indices_may_be_of_either_width(index):
    rng = np.random.default_rng(3)
    rows, X = world(rng, [4, 9], 3, 0.6, index=index)
    w, curvature, H = rng.normal(size=(2, 3)), rng.random(len(X)), np.zeros((2, 3, 3))
    assert_allclose(kernel.margin(rows, w), np.where(rows.entity >= 0, np.vecdot(X, w[rows.entity]), 0.0))
    kernel.add_grams(rows, np.arange(2), curvature, H)
    assert_allclose(H, grams(rows, X, curvature))


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    monkeypatch.setattr(kernel, "_LEAST", 1)
    monkeypatch.setattr(kernel, "_TOGETHER", 30)
    rng = np.random.default_rng(4)
    rows, X = world(rng, rng.integers(0, 30, 200), 5, 0.8)
    w, curvature, everyone = rng.normal(size=(200, 5)), rng.random(len(X)), np.arange(200)
    prior = positive(rng, 200, 5)

    def results():
        H, values, formed, products, solved = prior.copy(), np.zeros(len(X)), np.zeros(len(X)), w.copy(), w.copy()
        kernel.add_grams(rows, everyone, curvature, H)
        gram = H.copy()
        assert len(kernel.invert(H)) == 0
        kernel.times(H, everyone, w, products)
        kernel.forms(rows, everyone, H, formed)
        kernel.variances(rows, prior, curvature, 5, values)
        inner, places, _ = kernel.inner_inverses(rows, everyone, np.ones(5), curvature)
        kernel.solve_inner(rows, everyone, np.ones(5), curvature, (inner, places), w, solved)
        z, r = kernel.margin(rows, w), kernel.pullback(rows, curvature, 200, 5)
        means, total, _ = kernel.posteriors(gram, w, np.eye(5))
        return [means, total, gram, H, values, formed, products, inner, solved, z, r]

    monkeypatch.setattr(numba, "get_num_threads", lambda: 1)
    alone = results()
    monkeypatch.setattr(numba, "get_num_threads", lambda: threads)
    for together, one in zip(results(), alone, strict=True):
        assert_array_equal(together, one)


def test_arrays_that_cannot_be_written_to_compile_nothing_anew():
    rng = np.random.default_rng(5)
    rows, X = world(rng, [3, 8], 3, 0.6)
    loops = [kernel.multiply, kernel.vary, kernel.add_gram]
    P = np.broadcast_to(np.eye(3), (2, 3, 3))

    def results(cells, prior):
        design = Design(cells, rows.entity, 2, Scaling(np.zeros(3), np.ones(3)))
        curvature = np.ones(len(X))
        z, variances = design.margin(np.ones((2, 3))), design.variances(Full(prior), curvature, full=True)
        return z, variances, design.information(curvature, full=True).array

    own = results(sparse.csr_array(X), P.copy())
    before = [len(loop.signatures) for loop in loops]
    locked = sparse.csr_array(X)
    for part in (locked.data, locked.indices, locked.indptr):
        part.flags.writeable = False
    for here, there in zip(results(locked, P), own, strict=True):
        assert_array_equal(here, there)
    assert [len(loop.signatures) for loop in loops] == before
