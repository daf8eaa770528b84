import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import random_precision
from numpy.testing import assert_allclose, assert_array_equal
from sample_blocks import Effect
from scipy import sparse

from acclimate.arrays import Form, Posterior
from acclimate.models import nested
from acclimate.models.blocks import Block
from acclimate.models.nested import Cells, Prior, Said, chains

TAGS, VIDEOS, AUTHORS = 14, 9, 4


def blocks_of(seed: int, n: int = 120, *, absent: bool = True, active: bool = False) -> list[Block]:
    """Of 2 coefficients a tag, 3 a video and 1 an author: tags lie within videos, and these within authors."""
    rng = np.random.default_rng(seed)
    tag = rng.integers(0, TAGS, n)
    video = (tag * VIDEOS) // TAGS
    author = (video * AUTHORS) // VIDEOS
    if absent:  # one video without an author, one author's rows without a video, rows without a tag
        author = np.where(video == 0, -1, author)
        video = np.where(author == AUTHORS - 1, -1, video)
        tag = np.where(rng.random(n) < 0.1, -1, tag)
    effects = []
    for entity, count, d in ((tag, TAGS, 2), (video, VIDEOS, 3), (author, AUTHORS, 1)):
        X = rng.normal(size=(n, d))
        X[:, 0] = 1.0
        P = np.array([random_precision(seed + e, d, 0.5) for e in range(count)])
        effects.append(Effect(sparse.csr_array(X), entity, Posterior(rng.normal(size=(count, d)), P), "full"))
    weights = [rng.random(n) if active else None for _ in effects]
    return [Block(e.unscaled().design, e.prior, e.form, a) for e, a in zip(effects, weights, strict=True)]


def wide(blocks: list[Block]) -> np.ndarray:
    """All coefficients of all entities side by side, each row as much as it counts."""
    return np.hstack(
        [b.design.wide.toarray() * np.sqrt(b.counted(np.ones(len(b.design.entity))))[:, None] for b in blocks]
    )


def priors_of(blocks: list[Block]) -> list[Prior]:
    return [(b.scaled.P.times(b.scaled.mean), b.scaled.P) for b in blocks]


def rows_of(seed: int, blocks: list[Block]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Means of each level, and a slope and a curvature of each row."""
    rng = np.random.default_rng([seed, 1])
    n = len(blocks[0].design.entity)
    means = [rng.normal(size=(b.design.count, b.design.width)) for b in blocks]
    return means, rng.normal(size=n), rng.uniform(0.05, 0.5, n)


def everything(cells: Cells, means, slope, curvature, priors):
    """Evidence and covariances, asked for piece by piece: linear terms, information, variances of the rows."""
    counts = [(b.design.count, b.design.width) for b in cells.blocks]
    linear, information = [np.zeros((c, d)) for c, d in counts], [np.zeros((c, d, d)) for c, d in counts]
    variances, gradient = np.zeros(len(slope)), cells.gathered(slope)
    for piece in cells.pieces():
        said = cells.said(means, gradient, curvature, piece)
        found, covariance = said.evidence(priors)
        cells.variances(covariance, piece, variances)
        for k, (part, A) in enumerate(found):
            linear[k][said.members[k]] += part
            information[k][said.members[k]] += A.array
    return linear, information, variances


def dense(blocks: list[Block], means, slope, curvature, priors):
    """The same from the joint Gaussian of all coefficients."""
    X = wide(blocks)
    N = X.T @ (curvature[:, None] * X)
    w = np.concatenate([m.ravel() for m in means])
    gradient = np.concatenate([b.design.pullback(b.counted(slope)).ravel() for b in blocks])
    P, pull, first = np.zeros_like(N), np.concatenate([q.ravel() for q, _ in priors]), 0
    places = []
    for _, precision in priors:
        for one in precision.full().array:
            places.append(slice(first, first + len(one)))
            P[places[-1], places[-1]] = one
            first += len(one)
    S = np.linalg.inv(P + N)
    mean = S @ (N @ w - gradient + pull)
    linear, information = [], []
    for at in places:
        A = np.linalg.inv(S[at, at]) - P[at, at]
        information.append(A)
        linear.append((A + P[at, at]) @ mean[at] - pull[at])
    raw = np.hstack([b.design.wide.toarray() for b in blocks])
    return linear, information, np.vecdot(raw @ S, raw)


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("at_once", [2_000_000, 1])
def test_all_other_entities_are_integrated_out_exactly(absent, active, at_once, monkeypatch):
    monkeypatch.setattr(nested, "_PIECE_CELLS", at_once)
    blocks = blocks_of(1, absent=absent, active=active)
    asked = (*rows_of(1, blocks), priors_of(blocks))
    cells = Cells.of(blocks)
    assert (len(list(cells.pieces())) == 1) == (at_once > 1)
    linear, information, variances = everything(cells, *asked)
    expected = dense(blocks, *asked)
    assert_allclose(np.concatenate([part.ravel() for part in linear]), np.concatenate(expected[0]), atol=1e-10)
    for found, one in zip([A for level in information for A in level], expected[1], strict=True):
        assert_allclose(found, one, rtol=1e-9, atol=1e-10)
    assert_allclose(variances, expected[2], rtol=1e-9, atol=1e-12)


def test_one_prior_that_all_have_is_as_good_as_the_same_prior_for_each():
    blocks = blocks_of(2)
    asked = rows_of(2, blocks)
    shared = [(pull[:1], type(P)(P.array[:1])) for pull, P in priors_of(blocks)]
    each = [
        (np.repeat(pull, b.design.count, axis=0), type(P)(np.repeat(P.array, b.design.count, axis=0)))
        for b, (pull, P) in zip(blocks, shared, strict=True)
    ]
    one, other = (everything(Cells.of(blocks), *asked, priors) for priors in (shared, each))
    for a, b in zip(one, other, strict=True):
        assert_allclose(
            np.concatenate([np.ravel(x) for x in a]), np.concatenate([np.ravel(x) for x in b]), rtol=1e-13
        )


def test_what_says_little_is_not_lost_beside_a_strong_prior():
    """Information a million million times smaller than the prior's precision, to 6 digits."""
    blocks = blocks_of(3)
    means, slope, curvature = rows_of(3, blocks)
    weak = [(q, type(P)(1e6 * P.array)) for q, P in priors_of(blocks)]
    _, information, _ = everything(Cells.of(blocks), means, slope, 1e-6 * curvature, weak)
    for block, found in zip(blocks, information, strict=True):
        alone = block.design.information(block.counted(1e-6 * curvature), full=True).full().array
        assert_allclose(found, alone, rtol=1e-6, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(seed, turn):
    blocks = blocks_of(seed)
    means, slope, curvature = rows_of(seed, blocks)
    order = np.random.default_rng(turn).permutation(len(slope))
    turned = [
        Block(
            Effect(b.design.X[order], b.design.entity[order], b.prior, b.form).unscaled().design, b.prior, b.form
        )
        for b in blocks
    ]
    before = everything(Cells.of(blocks), means, slope, curvature, priors_of(blocks))
    after = everything(Cells.of(turned), means, slope[order], curvature[order], priors_of(blocks))
    for one, other in zip(before[0] + before[1], after[0] + after[1], strict=True):
        assert_allclose(other, one, rtol=1e-9, atol=1e-11)
    assert_allclose(after[2], before[2][order], rtol=1e-10)


def test_what_rows_before_have_said_of_the_finest_level_counts_as_they_would():
    """Of coefficients that the coarser level has too: of both rows say but the sum."""
    rng = np.random.default_rng(5)
    video = rng.integers(0, 8, 100)
    X = np.column_stack([np.ones(100), rng.normal(size=100)])

    def blocks(rows: slice) -> list[Block]:
        parts = ((X, video, 8), (X[:, :1], np.where(video == 7, -1, video // 2), 4))
        return [
            Effect(
                sparse.csr_array(Z[rows]),
                code[rows],
                Posterior(np.zeros((1, Z.shape[1])), np.eye(Z.shape[1])[None]),
                "full",
                count,
            ).unscaled()
            for Z, code, count in parts
        ]

    whole, before, now = (blocks(rows) for rows in (slice(0, 100), slice(0, 60), slice(60, 100)))
    means = [rng.normal(size=(8, 2)), rng.normal(size=(4, 1))]
    slope, curvature = rng.normal(size=100), rng.uniform(0.05, 0.5, 100)

    def said(of: list[Block], rows: slice):
        cells = Cells.of(of)
        every = np.arange(cells.entity.shape[1])
        return cells.said(means, cells.gathered(slope[rows]), curvature[rows], every)

    R = before[0].design.information(curvature[:60], full=True).full().array
    shared = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    gradient = before[0].design.pullback(slope[:60])
    found, _ = said(now, slice(60, 100)).with_known(means, gradient, R, shared).evidence(priors_of(now))
    expected, _ = said(whole, slice(0, 100)).evidence(priors_of(whole))
    for (linear, A), (other, B) in zip(found, expected, strict=True):
        assert_allclose(linear, other, rtol=1e-9, atol=1e-10)
        assert_allclose(A.array, B.array, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("last", [3.0, 3000.0])
def test_a_cell_without_a_finest_entity_knows_nothing_of_one(last):
    entity = np.array([[0, 1, -1], [0, 0, 0]])
    said = Said(np.zeros((3, 2)), np.zeros((3, 2, 2)), entity, [1, 1])
    means, known = [np.zeros((2, 1)), np.zeros((1, 1))], np.array([[[5.0]], [[last]]])
    found = said.with_known(means, np.ones((2, 1)), known, np.array([[1.0, 1.0]]))
    assert_allclose(found.information[2], 0.0)
    assert_allclose(found.linear[2], 0.0)
    assert_allclose(found.information[:2].sum(axis=0), 5.0 + last)


@pytest.mark.parametrize("entity", [[[0], [0]], [[0, 0], [0, 1]], [[0, 0], [0, -1]]])
def test_what_is_known_of_an_entity_counts_once_in_however_many_cells_it_is(entity):
    cells = np.array(entity)
    said = Said(np.zeros((cells.shape[1], 2)), np.zeros((cells.shape[1], 2, 2)), cells, [1, 1])
    means, known = [np.zeros((1, 1)), np.zeros((2, 1))], np.array([[[5.0]]])
    found = said.with_known(means, np.zeros((1, 1)), known, np.array([[1.0, 0.0]]))
    assert_allclose(found.information.sum(axis=0)[0, 0], 5.0)


def test_what_few_entities_show_says_nothing_of_the_others():
    fine, coarse = np.repeat(np.arange(10), 3), np.full(30, -1)
    coarse[:12] = fine[:12] // 2  # of 4 of the 10
    assert chains([block(fine, 10), block(coarse, 5)]) == [[0], [1]]
    coarse[:18] = fine[:18] // 2  # of 6
    assert chains([block(fine, 10), block(coarse, 5)]) == [[0, 1]]


# --- which effects lie within one another ---------------------------------------------------------------------


def block(entity: np.ndarray, count: int, d: int = 1, form: Form = "full") -> Block:
    precision = np.eye(d)[None] if form == "full" else np.ones((1, d))
    X = sparse.csr_array(np.ones((len(entity), d)))
    return Block(
        Effect(X, entity, Posterior(np.zeros((1, d)), precision), form, count).unscaled().design,
        Posterior(np.zeros((1, d)), precision),
        form,
    )


def test_effects_lie_within_one_another_from_the_finest_on():
    video, rng = np.repeat(np.arange(60), 5), np.random.default_rng(4)
    author, place, user = video // 3, video // 30, rng.integers(0, 40, 300)
    tab = 3 * user + rng.integers(0, 3, 300)
    effects = [
        block(user, 40),
        block(place, 2),
        block(video, 60),
        block(tab, 120),
        block(author, 20),
        block(video, 60),
    ]
    assert chains(effects) == [[3, 0], [2, 5, 4, 1]]
    assert chains([]) == []


@pytest.mark.parametrize(("elsewhere", "within"), [(0, True), (3, True), (8, False)])
def test_few_exceptions_do_not_part_effects(elsewhere, within):
    """Of 20 devices of ten users some are used by two."""
    device = np.repeat(np.arange(20), 4)
    user = device // 2
    user[::4][:elsewhere] = (user[::4][:elsewhere] + 1) % 10
    assert (chains([block(device, 20), block(user, 10)]) == [[0, 1]]) == within


def test_effects_that_never_meet_or_keep_wide_diagonals_or_are_known_anyway_stay_apart():
    code = np.repeat(np.arange(20), 4)
    never = block(np.where(code < 10, code, -1), 20), block(np.where(code < 10, -1, code), 20)
    assert chains(never) == [[0], [1]]
    assert chains([block(code, 20), block(code, 20, 2, "diagonal")]) == [[1], [0]]
    assert chains([block(code, 20), block(code, 20, 1, "diagonal")]) == [[0, 1]]
    many = np.arange(200)
    assert chains([block(many, 200), block(many // 100, 2)]) == [[0], [1]]
    assert chains([block(many, 200), block(many // 50, 4)]) == [[0, 1]]


def test_what_an_entity_in_two_others_says_is_the_sum_of_its_cells():
    entity = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    other = np.array([0, 0, 1, 1, 1, 2, 2, 3])
    blocks = [block(entity, 5), block(other, 4)]
    curvature, zero = np.full(8, 0.25), np.zeros(8)
    said = Cells.of(blocks)
    assert_array_equal(said.entity, [[0, 0, 1, 2, 3, 4], [0, 1, 1, 2, 2, 3]])
    means = [np.zeros((5, 1)), np.zeros((4, 1))]
    _, (fine, coarse), _ = everything(said, means, zero, curvature, priors_of(blocks))

    def left(rows: float, *others: float) -> float:
        """Of rows of one cell, where the other is known as it is by its prior and by cells of so many rows."""
        w = 0.25 * rows
        return w / (1.0 + w / (1.0 + sum(0.25 * r / (1.0 + 0.25 * r) for r in others)))

    assert_allclose(fine[0], [[left(2) + left(1, 2)]], rtol=1e-12)
    assert_allclose(fine[1], [[left(2, 1)]], rtol=1e-12)
    assert_allclose(coarse[0], [[0.5 / 1.5]], rtol=1e-12)
    assert_allclose(coarse[1], [[0.25 / 1.25 + 0.5 / 1.5]], rtol=1e-12)
