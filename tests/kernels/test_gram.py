"""The Gram matrix of sparse rows, compiled, against its one line of NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from acclimate.kernels.gram import weighted_gram
from acclimate.models.blocks import Design


def gram(X, weight):
    """The twin."""
    return (X.T * weight) @ X


def sparse_rows(rng, n, d, density):
    return sparse.csr_array(np.where(rng.random((n, d)) < density, rng.normal(size=(n, d)), 0.0))


@given(st.integers(0, 30), st.integers(1, 150), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0, 9))
def test_it_is_that_of_numpy(n, d, density, seed):
    rng = np.random.default_rng(seed)
    X, weight = sparse_rows(rng, n, d, density), rng.random(n)
    compiled = weighted_gram(X, weight)
    assert_allclose(compiled, gram(X.toarray(), weight), atol=1e-12)
    assert (compiled == compiled.T).all()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_it_takes_indices_of_either_width(index):
    rng = np.random.default_rng(0)
    X, weight = sparse_rows(rng, 40, 9, 0.3), rng.random(40)
    wide = sparse.csr_array((X.data, X.indices.astype(index), X.indptr.astype(index)), X.shape)
    assert_allclose(weighted_gram(wide, weight), gram(X.toarray(), weight), atol=1e-12)


@pytest.mark.parametrize("density", [0.02, 0.9])
def test_an_effect_counts_cells_that_come_twice_or_in_any_order(density):
    """Both ways: pairs of few cells, and dense strips."""
    rng = np.random.default_rng(1)
    n, d = 60, 50
    X = sparse_rows(rng, n, d, density)
    rows = np.repeat(np.arange(n), np.diff(X.indptr))
    order = np.lexsort((rng.random(2 * len(rows)), np.concatenate([rows, rows])))
    halves = np.concatenate([0.25 * X.data, 0.75 * X.data])[order]
    columns = np.concatenate([X.indices, X.indices])[order]
    twice = sparse.csr_array((halves, columns, 2 * X.indptr), X.shape)
    weight = rng.random(n)
    design = Design.of(X, None, 1, weight=np.ones(n), centre=False)
    scale = design.wide.toarray().sum(axis=0) / np.where(X.toarray().sum(axis=0) == 0, 1, X.toarray().sum(axis=0))
    shuffled = Design(sparse.csr_array(twice @ sparse.diags_array(scale)), design.entity, 1, design.scaling)
    expected = design.information(weight, full=True).array
    assert_allclose(shuffled.information(weight, full=True).array, expected, atol=1e-12)
    assert_allclose(expected[0], gram(design.wide.toarray(), weight), atol=1e-12)
