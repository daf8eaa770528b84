import numpy as np
import pytest

from acclimate.artifacts import Comparison
from acclimate.evaluate import metrics
from acclimate.evaluate.bootstrap import METRICS, compare, draws


def draw(seed: int, rows: int = 300, entities: int = 40, windows: int = 3, arms: int = 3):
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 3, rows)
    # Coarse predictions, so that scores tie within an arm.
    p = np.clip(np.round(truth[:, None] + 0.1 * rng.standard_normal((rows, arms)), 1), 0.05, 0.95)
    y = (rng.random(rows) < truth).astype(np.float64)
    return y, p, rng.integers(0, entities, rows) * 7, rng.integers(0, windows, rows), truth


def figures(y, p, group, weight, truth):
    found = metrics.quality(y, p, group, weight=weight, truth=truth)
    return np.array([getattr(found, metric) for metric in METRICS])


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_repeating_the_rows_of_drawn_entities_gives(weighted):
    y, p, entity, window, truth = draw(0)
    truth[::3] = np.nan
    weight = np.random.default_rng(1).random(len(y)) if weighted else np.ones(len(y))
    group, ids = entity * 10 + window, np.unique(entity)
    plain = [figures(y, q, group, weight, truth) for q in p.T]
    rng, draws = np.random.default_rng(5), []
    for _ in range(20):
        rows = np.concatenate([np.flatnonzero(entity == ids[i]) for i in rng.integers(len(ids), size=len(ids))])
        draws.append([figures(y[rows], q[rows], group[rows], weight[rows], truth[rows]) for q in p.T])
    difference = np.array(draws)[:, 0] - np.array(draws)[:, 2]

    found = compare(["a", "b", "c"], y, p, entity, window=window, weight=weight, truth=truth, resamples=20, seed=5)

    assert [(c.arm, c.against) for c in found] == [(a, b) for a, b in ("ab", "ac", "bc") for _ in METRICS]
    against_c = [c for c in found if (c.arm, c.against) == ("a", "c")]
    assert [c.metric for c in against_c] == list(METRICS)
    low, high = np.percentile(difference, [2.5, 97.5], axis=0)
    np.testing.assert_allclose([c.difference for c in against_c], plain[0] - plain[2], atol=1e-12)
    np.testing.assert_allclose([c.low for c in against_c], low, atol=1e-12)
    np.testing.assert_allclose([c.high for c in against_c], high, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_crossed_entities_are_drawn_each_by_itself(weighted):
    """A row counts as often as the product of its entities says."""
    y, p, entity, window, truth = draw(7)
    item = np.random.default_rng(8).integers(0, 15, len(y)) * 3
    weight = np.random.default_rng(1).random(len(y)) if weighted else np.ones(len(y))
    rng, found = np.random.default_rng(5), []
    for _ in range(20):
        often = np.ones(len(y), np.int64)
        for ids in (entity, item):
            distinct, codes = np.unique(ids, return_inverse=True)
            chosen = rng.integers(len(distinct), size=len(distinct))
            often *= np.array([(chosen == c).sum() for c in range(len(distinct))])[codes]
        rows = np.repeat(np.arange(len(y)), often)
        group = entity * 10 + window
        found.append([figures(y[rows], q[rows], group[rows], weight[rows], truth[rows]) for q in p.T])
    low, high = np.percentile(np.array(found)[:, 0] - np.array(found)[:, 2], [2.5, 97.5], axis=0)

    compared = compare(
        ["a", "b", "c"],
        y,
        p,
        entity,
        window=window,
        crossed=[item],
        weight=weight,
        truth=truth,
        resamples=20,
        seed=5,
    )

    against_c = [c for c in compared if (c.arm, c.against) == ("a", "c")]
    assert [c.metric for c in against_c] == list(METRICS)
    np.testing.assert_allclose([c.low for c in against_c], low, atol=1e-12)
    np.testing.assert_allclose([c.high for c in against_c], high, atol=1e-12)


def test_an_entity_that_all_rows_share_is_always_there():
    for counts in draws([np.zeros(5, np.int64)], 3, 0):
        assert counts.tolist() == [1.0] * 5


def test_equal_arms_differ_by_exactly_nothing():
    y, p, entity, window, truth = draw(2, rows=1000)
    weight = np.random.default_rng(2).random(1000)
    same = np.stack([p[:, 0]] * 3, axis=1)
    found = compare(["a", "b", "c"], y, same, entity, window=window, weight=weight, truth=truth, resamples=30)
    assert {(c.difference, c.low, c.high) for c in found} == {(0.0, 0.0, 0.0)}
    assert len(found) == 3 * len(METRICS)


def test_a_seed_fixes_the_draws():
    y, p, entity, window, _ = draw(3)
    first, again, other = (
        compare(["a", "b", "c"], y, p, entity, window=window, resamples=30, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_intervals_cover_a_known_difference_at_their_rate():
    rng, entities, repetitions, covered = np.random.default_rng(11), 60, 300, 0
    y, window = np.ones(entities), np.zeros(entities, np.int64)
    for seed in range(repetitions):
        # With all labels 1 the log-loss of p is -log p: two normal samples whose means differ by 0.05.
        loss = np.stack([1.05 + 0.1 * rng.standard_normal(entities), 1 + 0.1 * rng.standard_normal(entities)], 1)
        (found,) = compare(
            ["a", "b"], y, np.exp(-loss), np.arange(entities), window=window, resamples=60, seed=seed
        )
        assert found.metric == "log_loss"
        covered += found.low <= 0.05 <= found.high
    # 95 % less the few per cent that percentiles of 60 draws over 60 entities are known to lose.
    assert 0.88 <= covered / repetitions <= 0.97


def test_rows_of_one_entity_are_drawn_together():
    y, p, entity, window, truth = draw(4)
    once = compare(["a", "b", "c"], y, p, entity, window=window, truth=truth, resamples=40)
    twice = (np.concatenate([a, a]) for a in (y, p, entity))
    again = compare(
        ["a", "b", "c"],
        *twice,
        window=np.concatenate([window, window]),
        truth=np.concatenate([truth, truth]),
        resamples=40,
    )
    assert [(c.difference, c.low, c.high) for c in again] == [
        pytest.approx((c.difference, c.low, c.high), abs=1e-12) for c in once
    ]


def test_what_is_not_defined_is_left_out():
    y, p, entity, window, _ = draw(5)
    found = compare(["a", "b"], np.ones(len(y)), p[:, :2], entity, window=window, resamples=5)
    assert [c.metric for c in found] == ["log_loss"]
    found = compare(["a", "b"], y, p[:, :2], entity, window=window, resamples=5)
    assert [c.metric for c in found] == ["auc", "gauc", "log_loss", "normalized_entropy"]


def test_draws_in_which_a_metric_is_not_defined_do_not_count():
    # One entity holds the only positive: draws without it have no AUC, all others the same.
    y, p = np.array([1.0, 0.0, 0.0]), np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    found = compare(["a", "b"], y, p, np.arange(3), window=np.zeros(3, np.int64), resamples=50)
    assert found[0] == Comparison("a", "b", "auc", 1.0, 1.0, 1.0)


@pytest.mark.parametrize(("rows", "arms", "resamples"), [(0, 2, 10), (20, 1, 10), (20, 2, 0)])
def test_nothing_to_compare(rows, arms, resamples):
    y, p, entity, window, _ = draw(6, rows=rows, arms=arms)
    assert compare(list("ab")[:arms], y, p, entity, window=window, resamples=resamples) == []
