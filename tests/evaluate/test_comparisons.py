from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from acclimate.artifacts import Comparison
from acclimate.evaluate import metrics, regression
from acclimate.evaluate.comparisons import METRICS as METRICS_OF_KINDS
from acclimate.evaluate.comparisons import Rows, compare

METRICS = METRICS_OF_KINDS["binary"]


def draw(seed: int, rows: int = 300, entities: int = 40, windows: int = 3, arms: int = 3):
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 3, rows)
    # Coarse predictions, so that scores tie within an arm.
    p = np.clip(np.round(truth[:, None] + 0.1 * rng.standard_normal((rows, arms)), 1), 0.05, 0.95)
    y = (rng.random(rows) < truth).astype(np.float64)
    return y, p, rng.integers(0, entities, rows) * 7, rng.integers(0, windows, rows), truth


def rows_of(seed: int) -> tuple[Rows, np.ndarray]:
    y, p, entity, window, truth = draw(seed)
    truth[::3] = np.nan
    return Rows(y, np.random.default_rng(1).random(len(y)), truth, entity * 10 + window), p[:, 0]


def figure(metric: str, rows: Rows, p: np.ndarray, weight: np.ndarray) -> float:
    found: Callable[..., float | None] = {
        "auc": lambda: metrics.auc(rows.y, p, weight),
        "gauc": lambda: metrics.gauc(rows.y, p, rows.group, weight),
        "log_loss": lambda: metrics.log_loss(rows.y, p, weight),
        "normalized_entropy": lambda: metrics.normalized_entropy(rows.y, p, weight),
        "calibration_error": lambda: metrics.calibration_error(rows.y, p, weight),
        "regret": lambda: metrics.regret(rows.truth, p, weight),
    }[metric]
    value = found()
    assert value is not None
    return value


@pytest.mark.parametrize("metric", METRICS)
def test_influence_is_the_derivative_by_the_logarithm_of_a_weight(metric):
    rows, p = rows_of(0)
    found, step = METRICS[metric](rows, p), 1e-6
    assert found is not None
    assert found.value == pytest.approx(figure(metric, rows, p, rows.weight), abs=1e-12)
    # Single rows, and all of a user's at once; bins of the calibration error stay where they are at this step.
    sets = [np.arange(len(p)) == i for i in range(0, len(p), 7)] + [rows.group == g for g in rows.group[:9]]
    for chosen in sets:
        above, below = (
            figure(metric, rows, p, rows.weight * np.where(chosen, np.exp(s), 1.0)) for s in (step, -step)
        )
        assert found.rows[chosen].sum() == pytest.approx((above - below) / (2 * step), abs=2e-8)
    assert abs(found.rows.sum()) < 1e-12


@pytest.mark.parametrize(("kind", "metric"), [(k, m) for k in ("number", "count") for m in METRICS_OF_KINDS[k]])
def test_so_it_is_of_numbers_and_counts(kind, metric):
    rng = np.random.default_rng(5)
    truth = np.exp(rng.normal(size=60))
    y, p = rng.poisson(truth).astype(float), truth * np.exp(0.3 * rng.normal(size=60))
    truth[::3] = np.nan
    rows = Rows(y, rng.random(60), truth, np.zeros(60, np.int64))
    found, step = METRICS_OF_KINDS[kind][metric](rows, p), 1e-6
    assert found is not None

    def measured(weight: np.ndarray) -> float:
        return getattr(regression.quality(y, p, kind, weight=weight, truth=truth), metric)

    assert found.value == pytest.approx(measured(rows.weight), abs=1e-12)
    for i in range(60):
        above, below = (
            measured(rows.weight * np.where(np.arange(60) == i, np.exp(s), 1.0)) for s in (step, -step)
        )
        assert found.rows[i] == pytest.approx((above - below) / (2 * step), abs=2e-8)
    assert abs(found.rows.sum()) < 1e-12


def test_what_a_row_brings_to_gauc_is_the_mean_over_its_pairs():
    rows, p = rows_of(3)
    found = METRICS["gauc"](rows, p)
    assert found is not None
    expected, groups = np.zeros(len(p)), 0.0
    for g in np.unique(rows.group):
        here = np.flatnonzero(rows.group == g)
        w, pos = rows.weight[here], rows.y[here] > 0
        if pos.all() or not pos.any():
            continue
        groups += w.sum()
        pairs = w[pos].sum() * w[~pos].sum()
        for i in here:
            for j in here:
                if rows.y[i] != rows.y[j]:
                    won = 0.5 + 0.5 * np.sign((p[i] - p[j]) * (rows.y[i] - rows.y[j]))
                    expected[i] += w.sum() * rows.weight[i] * rows.weight[j] * (won - found.value) / pairs
    np.testing.assert_allclose(found.shared, expected / groups, atol=1e-12)


def half_width(parts: np.ndarray, users: np.ndarray, items: np.ndarray | None) -> float:
    """The interval of a sum of parts, entity by entity and pair by pair."""

    def parted(codes: np.ndarray, *, cross: bool) -> tuple[float, float]:
        total, shares = 0.0, []
        for code in np.unique(codes):
            here = np.flatnonzero(codes == code)
            share = len(here) / len(codes)
            # Rows of one item count together unless they are of one user, whom the first part has.
            kept = users[here][:, None] != users[here] if cross else np.ones((len(here), len(here)))
            total += float((np.outer(parts[here], parts[here]) * kept).sum()) / (1 - share) ** 2
            shares.append(share)
        share = np.array(shares)
        return max(total, 0.0), (share**2).sum() ** 2 / (share**4).sum()

    V, k = parted(users, cross=False)
    W, m = (0.0, 1.0) if items is None else parted(items, cross=True)
    freedom = (V + W) ** 2 / (V**2 / k + W**2 / m)
    return stats.t.ppf(0.975, freedom) * np.sqrt(V + W)


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_of_a_mean_is_that_of_the_formula(crossed, spread):
    rng = np.random.default_rng(int(10 * spread))
    users, items = rng.integers(0, 12, 80), rng.integers(0, 5, 80)
    loss = 2.0 + 0.1 * rng.standard_normal((80, 2)) + spread * 0.3 * rng.standard_normal((5, 2))[items]
    d = loss[:, 0] - loss[:, 1]
    (found,) = compare(
        ["a", "b"],
        np.ones(80),
        np.exp(-loss),
        users,
        window=np.zeros(80, np.int64),
        crossed=items * 3 if crossed else None,
    )[:1]
    half = half_width((d - d.mean()) / 80, users, items if crossed else None)
    assert found.metric == "log_loss"
    assert [found.difference, found.low, found.high] == pytest.approx([d.mean(), d.mean() - half, d.mean() + half])


def test_all_pairs_of_arms_in_order_with_the_differences_of_the_metrics():
    y, p, entity, window, truth = draw(2)
    rows = Rows(y, np.ones(len(y)), truth, entity * 10 + window)
    found = compare(["a", "b", "c"], y, p, entity, window=window, crossed=window * 5 + entity % 5, truth=truth)
    assert [(c.arm, c.against, c.metric) for c in found] == [
        (*two, m) for two in ("ab", "ac", "bc") for m in METRICS
    ]
    for c in found:
        one, other = (figure(c.metric, rows, p[:, "abc".index(arm)], rows.weight) for arm in (c.arm, c.against))
        assert c.difference == pytest.approx(one - other, abs=1e-12)
        assert c.low < c.difference < c.high
        assert c.high - c.difference == pytest.approx(c.difference - c.low)


@pytest.mark.parametrize("crossed", [False, True])
def test_neither_order_nor_names_nor_repeats_of_rows_matter(crossed):
    y, p, entity, window, truth = draw(4)
    item = np.random.default_rng(8).integers(0, 15, len(y)) * 3
    weight = np.random.default_rng(1).integers(0, 4, len(y))
    truth[::3] = np.nan

    def found(chosen: np.ndarray, weight: np.ndarray, *, rename: int = 1) -> list[tuple[float, float, float]]:
        compared = compare(
            ["a", "b", "c"],
            y[chosen],
            p[chosen],
            entity[chosen] * rename,
            window=window[chosen],
            crossed=(item[chosen] + 3) % 45 if crossed else None,
            weight=weight.astype(np.float64),
            truth=truth[chosen],
        )
        assert len(compared) == 3 * len(METRICS)
        return [(c.difference, c.low, c.high) for c in compared]

    once = found(np.arange(len(y)), weight)
    shuffled = np.random.default_rng(3).permutation(len(y))
    np.testing.assert_allclose(found(shuffled, weight[shuffled], rename=2), once, atol=1e-12)
    repeated = np.repeat(np.arange(len(y)), weight)
    # A row of weight 2 is the row twice wherever the two have the user and the item in common.
    np.testing.assert_allclose(found(repeated, np.ones(len(repeated))), once, atol=1e-12)


def test_rows_that_share_an_item_widen_an_interval_and_rows_that_share_nothing_do_not():
    rng = np.random.default_rng(5)
    user, item = np.repeat(np.arange(100), 10), rng.integers(0, 20, 1000)
    loss = np.stack(
        [1.0 + 0.3 * rng.standard_normal(20)[item] + 0.1 * rng.standard_normal(1000), np.ones(1000)], 1
    )

    def width(crossed: np.ndarray | None) -> float:
        found = compare(
            ["a", "b"], np.ones(1000), np.exp(-loss), user, window=np.zeros(1000, np.int64), crossed=crossed
        )[0]
        return found.high - found.low

    assert width(item) > 3.0 * width(None)
    assert width(np.arange(1000)) == pytest.approx(width(None), rel=1e-12)
    assert width(user) == pytest.approx(width(None), rel=1e-12)
    assert width(np.zeros(1000, np.int64)) == pytest.approx(width(None), rel=1e-12)


def test_equal_arms_differ_by_exactly_nothing():
    y, p, entity, window, truth = draw(2, rows=1000)
    weight = np.random.default_rng(2).random(1000)
    same = np.stack([p[:, 0]] * 3, axis=1)
    found = compare(
        ["a", "b", "c"], y, same, entity, window=window, crossed=entity % 5, weight=weight, truth=truth
    )
    assert {(c.difference, c.low, c.high) for c in found} == {(0.0, 0.0, 0.0)}
    assert len(found) == 3 * len(METRICS)


@pytest.mark.parametrize(("of_users", "of_items"), [(0.3, 0.0), (0.0, 0.3), (0.2, 0.2), (0.0, 0.0)])
def test_intervals_cover_a_known_difference_at_their_rate(of_users, of_items):
    rng, users, items, repetitions, covered = np.random.default_rng(11), 60, 40, 400, 0
    y, window = np.ones(900), np.zeros(900, np.int64)
    for _ in range(repetitions):
        user, item = rng.integers(0, users, 900), rng.integers(0, items, 900)
        # With all labels 1 the log-loss of p is -log p: means that differ by 0.05.
        away = of_users * rng.standard_normal(users)[user] + of_items * rng.standard_normal(items)[item]
        loss = np.stack([2.05 + away + 0.3 * rng.standard_normal(900), np.full(900, 2.0)], 1)
        found = compare(["a", "b"], y, np.exp(-loss), user, window=window, crossed=item)[0]
        assert found.metric == "log_loss"
        covered += found.low <= 0.05 <= found.high
    # .95 within three standard deviations of 400 simulations, and a little more where nothing varies.
    assert 0.917 <= covered / repetitions <= 0.985


def test_what_is_not_defined_is_left_out():
    y, p, entity, window, _ = draw(5)
    found = compare(["a", "b"], np.ones(len(y)), p[:, :2], entity, window=window)
    assert [c.metric for c in found] == ["log_loss", "calibration_error"]
    found = compare(["a", "b"], y, p[:, :2], entity, window=window)
    assert [c.metric for c in found] == [m for m in METRICS if m != "regret"]
    assert compare(["a", "b"], y, p[:, :2], entity, window=window, weight=np.zeros(len(y))) == []


def test_one_user_alone_says_nothing_of_others():
    y, p, entity, window, truth = draw(6)
    assert compare(["a", "b"], y, p[:, :2], 0 * entity, window=window, crossed=entity, truth=truth) == []
    # GAUC knows of one user here, who has rows of both classes in a window; log-loss of two.
    y, p = np.array([1.0, 0.0, 1.0]), np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.6]])
    found = compare(["a", "b"], y, p, np.array([0, 0, 1]), window=np.zeros(3, np.int64))
    assert "gauc" not in [c.metric for c in found]
    assert next(c for c in found if c.metric == "log_loss").low < 0.0


@pytest.mark.parametrize(("rows", "arms"), [(0, 2), (20, 1)])
def test_nothing_to_compare(rows, arms):
    y, p, entity, window, _ = draw(6, rows=rows, arms=arms)
    assert compare(list("ab")[:arms], y, p, entity, window=window) == []


def test_a_comparison_says_which_arms_and_what():
    loss = np.array([[1.0, 2.0], [2.0, 2.0]])
    found = compare(["a", "b"], np.ones(2), np.exp(-loss), np.arange(2), window=np.zeros(2, np.int64))[0]
    # Two users of one row each: sums of influence -1/4 and 1/4, each over a share of 1/2 that others have.
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 * 0.5**2)
    assert found == Comparison("a", "b", "log_loss", -0.5, pytest.approx(-0.5 - half), pytest.approx(-0.5 + half))
