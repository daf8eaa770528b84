"""A start from a part of the rows: the same optimum, from nearer."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from model_oracles import Rows, distance, draw, information, minimiser, random_precision
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from acclimate.arrays import Posterior
from acclimate.models import joint
from acclimate.models.blocks import Block, Design
from acclimate.models.joint import Solution, solve_joint
from acclimate.models.part import Part
from acclimate.models.posterior import update_posterior


@pytest.fixture
def small(monkeypatch) -> None:
    """Parts of few rows too."""
    monkeypatch.setattr("acclimate.models.part._ROWS", 64)


def lone(X, weight, *, full: bool = False, active=None) -> Block:
    design, d = Design.of(sparse.csr_array(X), None, 1, weight=weight, centre=full), X.shape[1]
    prior = Posterior(np.zeros((1, d)), np.eye(d)[None] if full else np.ones((1, d)))
    return Block(design, prior, "full" if full else "diagonal", active)


def part_of(n: int, d: int, **options) -> Part | None:
    rows = draw(0, n, d)
    return Part.of([lone(rows.X, rows.weight, **options)], rows.y, rows.offset, rows.weight)


@pytest.mark.usefixtures("small")
def test_it_is_one_row_of_each_sixteen_which_counts_as_all_of_them():
    rows = draw(0, 192, 3)
    block = lone(rows.X, rows.weight, active=np.arange(192.0))
    part = Part.of([block], np.arange(192.0), rows.offset, rows.weight)
    assert part is not None
    which = part.y.astype(int)
    assert_array_equal(which // 16, np.arange(12))
    assert len(np.unique(which % 16)) > 3
    assert_array_equal(part.weight, 16.0 * rows.weight[which])
    assert_array_equal(part.offset, rows.offset[which])
    assert_array_equal(part.block.active, block.active[which])
    assert_allclose(part.block.design.wide.toarray(), block.design.wide.toarray()[which])
    assert part.block.prior is block.prior


@pytest.mark.usefixtures("small")
def test_there_is_none_of_few_rows_or_of_many_coefficients_or_entities():
    assert part_of(128, 2) is not None
    assert part_of(127, 2) is None
    assert part_of(128, 3) is None
    assert part_of(64, 1) is not None
    assert part_of(63, 1) is None
    rows = draw(0, 128, 2)
    block = lone(rows.X, rows.weight)
    assert Part.of([block, block], rows.y, rows.offset, rows.weight) is None
    two = Design.of(block.design.X, np.arange(128) % 2, 2, weight=rows.weight, centre=False)
    assert Part.of([dataclasses.replace(block, design=two)], rows.y, rows.offset, rows.weight) is None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("full", [True, False])
def test_a_matrix_that_takes_longer_than_the_rows_is_not_used(monkeypatch, full):
    monkeypatch.setattr("acclimate.models.part._ROOT", 0)
    part = part_of(128, 2, full=full)
    assert (part is None) == full
    if part is not None:
        found = solve_joint([part.block], part.y, part.offset, part.weight)
        assert part.hessians(found.curvature, found.hessians) == (None, False)


def hidden(rows: Rows) -> Rows:
    """One column is there in no row of the part."""
    shown = part_rows(len(rows.y))
    rows.X[shown, -1] = 0.0
    return rows


def part_rows(n: int) -> np.ndarray:
    X = sparse.csr_array(np.ones((n, 1)))
    design = Design.of(X, None, 1, weight=np.ones(n), centre=False)
    block = Block(design, Posterior(np.zeros((1, 1)), np.ones((1, 1))), "diagonal")
    part = Part.of([block], np.arange(float(n)), np.zeros(n), np.ones(n))
    assert part is not None
    return part.y.astype(int)


def weightless(rows: Rows) -> Rows:
    """The part's rows count for nothing."""
    rows.weight[part_rows(len(rows.y))] = 0.0
    return rows


def misled(rows: Rows) -> Rows:
    """The part's labels are the opposite of what all others say."""
    rows.y[:] = rows.X[:, 0] > 0.0
    shown = part_rows(len(rows.y))
    rows.y[shown] = 1.0 - rows.y[shown]
    rows.X[shown] *= 30.0
    return rows


def plain(rows: Rows) -> Rows:
    return rows


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", [plain, hidden, weightless, misled])
@pytest.mark.parametrize("full", [True, False])
def test_the_optimum_is_that_of_all_rows(full, change: Callable[[Rows], Rows]):
    rows = change(draw(3, 500, 4))
    P = random_precision(3, 4) if full else np.diag([0.5, 1.0, 2.0, 1.0])
    m = np.array([0.2, -0.4, 0.1, 0.3])
    after, info = update_posterior(Posterior(m, P if full else np.diag(P)), rows.X, rows.y, **rows.columns)
    assert info.converged
    w = minimiser(m, P, rows)
    H = P + information(w, rows)
    assert distance(after.mean, w, H) < 1e-7
    assert_allclose(after.precision, H if full else np.diag(H), rtol=1e-7)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("loss", ["squared", "poisson"])
def test_of_other_losses_too(monkeypatch, loss):
    rows = draw(4, 500, 3)
    rows = dataclasses.replace(rows, y=np.random.default_rng(4).poisson(2.0, 500).astype(float))
    prior = Posterior(np.zeros(3), np.ones(3))
    after, info = update_posterior(prior, rows.X, rows.y, **rows.columns, loss=loss)
    monkeypatch.setattr("acclimate.models.part._ROWS", 10**9)
    other, _ = update_posterior(prior, rows.X, rows.y, **rows.columns, loss=loss)
    assert info.converged
    assert_allclose(after.mean, other.mean, rtol=0, atol=1e-9)
    assert_allclose(after.precision, other.precision, rtol=1e-8)


@pytest.mark.usefixtures("small")
def test_a_matrix_is_used_where_the_diagonal_would_not_do():
    X = fields(16_000, 3, 5)
    rng = np.random.default_rng(7)
    one, y = np.ones(16_000), (rng.random(16_000) < 0.5).astype(float)
    noise = sparse.csr_array(rng.normal(size=(16_000, 15)))
    for rows, diagonal_does in ((X, False), (noise, True)):
        part = Part.of([lone(rows, one)], y, 0.0 * one, one)
        assert part is not None
        found = solve_joint([part.block], part.y, part.offset, part.weight)
        hessians, trusted = part.hessians(found.curvature, found.hessians)
        assert trusted
        assert (hessians is None) == diagonal_does
        if hessians is not None:
            H = np.eye(15) + part.block.design.information(found.curvature, full=True).array[0]
            assert_allclose(hessians[0].solve(np.ones((1, 15)))[0], np.linalg.solve(H, np.ones(15)))


# --- nearer, and known better ----------------------------------------------------------------------------


def fields(n: int, count: int, levels: int) -> "sparse.csr_array":
    """One level of each of so many fields, whose columns sum to 1: the ridge alone tells fields apart."""
    rng = np.random.default_rng(5)
    columns = rng.integers(levels, size=(n, count)) + levels * np.arange(count)
    return sparse.csr_array((np.ones(n * count), columns.ravel(), count * np.arange(n + 1)), (n, count * levels))


def both(monkeypatch, tolerance: float) -> tuple["sparse.csr_array", np.ndarray, list[Solution]]:
    """Rows, labels, and the solution with a part and without."""
    X = fields(40_000, 8, 5)
    rng = np.random.default_rng(6)
    y = (rng.random(len(X.indptr) - 1) < 1 / (1 + np.exp(-(X @ rng.normal(size=40))))).astype(float)
    one, found = np.ones(len(y)), []
    for rows in (1 << 15, 10**9):
        monkeypatch.setattr("acclimate.models.part._ROWS", rows)
        found.append(solve_joint([lone(X, one)], y, 0.0 * one, one, tolerance=tolerance))
    return X, y, found


def test_fewer_steps_and_products_are_left_for_all_rows(monkeypatch):
    _, _, (started, plain_one) = both(monkeypatch, 1e-3)
    assert started.converged
    assert started.steps < plain_one.steps
    assert 2 * started.products < plain_one.products


@pytest.mark.parametrize("tolerance", [3.0, 0.5, 1e-3])
def test_a_decrement_is_the_distance_where_fields_overlap(monkeypatch, tolerance):
    lefts, left_of = list[float](), joint._left
    monkeypatch.setattr(joint, "_left", lambda *step: lefts.append(left_of(*step)) or lefts[-1])
    X, y, (started, _) = both(monkeypatch, tolerance)
    assert (min(lefts) <= tolerance) == (started.decrement in lefts)  # one that is enough ends it
    rows = Rows(X.toarray(), y, np.zeros(len(y)), np.ones(len(y)))
    w = minimiser(np.zeros(40), np.eye(40), rows)
    left = distance(started.means(0)[0], w, np.eye(40) + information(w, rows))
    assert started.converged
    assert left <= 1.2 * started.decrement + 1e-6
    assert started.decrement <= tolerance
