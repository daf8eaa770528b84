import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from acclimate.evaluate import metrics


def draw(seed: int, rows: int = 400, levels: int = 30, groups: int = 25):
    """Labels that follow scores with many ties, groups of uneven size, integer weights."""
    rng = np.random.default_rng(seed)
    p = rng.integers(1, levels, rows) / levels
    y = (rng.random(rows) < p).astype(np.float64)
    group = rng.integers(0, groups, rows) * rng.integers(1, 3, rows)
    return y, p, group, rng.integers(1, 4, rows).astype(np.float64)


def test_auc_is_that_of_scikit_learn():
    y, p, _, weight = draw(0)
    assert metrics.auc(y, p) == pytest.approx(sk.roc_auc_score(y, p), abs=1e-14)
    assert metrics.auc(y, p, weight) == pytest.approx(sk.roc_auc_score(y, p, sample_weight=weight), abs=1e-14)


def test_auc_by_hand():
    y = np.array([0.0, 1.0, 0.0, 1.0])
    assert metrics.auc(y, np.array([0.1, 0.4, 0.35, 0.8])) == 1.0
    assert metrics.auc(y, np.array([0.9, 0.4, 0.35, 0.8])) == 0.5
    assert metrics.auc(y, np.array([0.4, 0.4, 0.2, 0.3])) == 0.625
    assert metrics.auc(y, np.full(4, 0.3)) == 0.5


def test_gauc_is_the_weighted_mean_over_groups():
    y, p, group, weight = draw(1)
    for w in (None, weight):
        areas, masses = [], []
        for g in np.unique(group):
            rows = group == g
            if 0 < y[rows].sum() < rows.sum():
                sample = None if w is None else w[rows]
                areas.append(sk.roc_auc_score(y[rows], p[rows], sample_weight=sample))
                masses.append(rows.sum() if w is None else w[rows].sum())
        assert metrics.gauc(y, p, group, w) == pytest.approx(np.average(areas, weights=masses), abs=1e-13)


def test_gauc_leaves_out_groups_of_one_class():
    y = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    p = np.array([0.2, 0.1, 0.3, 0.9, 0.5])
    assert metrics.gauc(y, p, np.array([5, 5, 2, 2, 9])) == 0.0
    assert metrics.gauc(y, p, np.array([5, 2, 2, 2, 9])) is None


def test_auc_by_group_names_its_groups():
    y, p = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.6, 0.1])
    group, area, mass = metrics.auc_by_group(y, p, np.array([7, 7, -3]), np.array([1.0, 2.0, 5.0]))
    assert group.tolist() == [-3, 7]
    assert_allclose(area, [np.nan, 1.0])
    assert mass.tolist() == [5.0, 3.0]


def test_log_loss_is_that_of_scikit_learn():
    y, p, _, weight = draw(2)
    assert metrics.log_loss(y, p) == pytest.approx(sk.log_loss(y, p), abs=1e-14)
    assert metrics.log_loss(y, p, weight) == pytest.approx(sk.log_loss(y, p, sample_weight=weight), abs=1e-14)


def test_log_loss_of_certainty_is_finite():
    y = np.array([0.0, 1.0])
    assert metrics.log_loss(y, y) == pytest.approx(0.0, abs=1e-15)
    assert metrics.log_loss(y, 1 - y) == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_normalized_entropy_of_the_base_rate_is_one():
    y, p, _, weight = draw(3)
    rate = np.full_like(y, np.average(y, weights=weight))
    assert metrics.normalized_entropy(y, rate, weight) == pytest.approx(1.0, abs=1e-14)
    entropy = sk.log_loss(y, np.full_like(y, y.mean()))
    assert metrics.normalized_entropy(y, p) == pytest.approx(sk.log_loss(y, p) / entropy, abs=1e-14)


def test_calibration_by_hand():
    p = np.array([0.1, 0.1, 0.2, 0.2, 0.6, 0.8])
    y = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    found = metrics.calibration_bins(y, p, bins=3)
    assert found.rows.tolist() == [2, 2, 2]
    assert_allclose(found.predicted, [0.1, 0.2, 0.7])
    assert_allclose(found.observed, [0.5, 0.0, 1.0])
    assert metrics.calibration_error(y, p, bins=3) == pytest.approx((0.4 + 0.2 + 0.3) / 3)


def test_calibration_bins_are_of_equal_mass_and_hold_all_rows():
    rng = np.random.default_rng(4)
    p = rng.beta(0.5, 8, 10_000)
    found = metrics.calibration_bins((rng.random(10_000) < p).astype(np.float64), p, bins=20)
    assert found.rows.tolist() == [500] * 20
    assert (np.diff(found.predicted) > 0).all()


@pytest.mark.parametrize(("sizes", "rows"), [((1, 3, 2), [4, 2]), ((1, 4, 1), [1, 5])])
def test_equal_predictions_share_the_bin_of_their_middle(sizes, rows):
    p = np.repeat([0.1, 0.2, 0.9], sizes)
    assert metrics.calibration_bins(np.zeros(6), p, bins=2).rows.tolist() == rows


def test_one_constant_prediction_is_one_bin():
    y = np.array([0.0, 1.0, 1.0, 0.0])
    found = metrics.calibration_bins(y, np.full(4, 0.3))
    assert (found.rows.tolist(), found.observed.tolist()) == ([4], [0.5])


@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_ndcg_is_that_of_scikit_learn(k):
    y, p, group, _ = draw(5, levels=6)
    gains = [
        sk.ndcg_score(y[None, group == g], p[None, group == g], k=k)
        for g in np.unique(group)
        if y[group == g].any() and (group == g).sum() > 1
    ]
    alone = [1.0 for g in np.unique(group) if y[group == g].any() and (group == g).sum() == 1]
    assert metrics.ndcg(y, p, group, k) == pytest.approx(np.mean(gains + alone), abs=1e-13)


def test_ndcg_of_a_constant_is_the_mean_over_all_orders():
    y, group = np.array([1.0, 0.0, 0.0]), np.zeros(3, np.int64)
    discounts = 1 / np.log2([2, 3, 4])
    assert metrics.ndcg(y, np.full(3, 0.5), group) == pytest.approx(discounts.mean())
    assert metrics.ndcg(y, np.full(3, 0.5), group, k=2) == pytest.approx(discounts[:2].sum() / 3)


def test_ndcg_leaves_out_groups_without_a_positive():
    y, p = np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.5])
    assert metrics.ndcg(y, p, np.array([0, 0, 1])) == 1.0
    assert metrics.ndcg(np.zeros(3), p, np.array([0, 0, 1])) is None


def test_regret_is_the_excess_of_expected_log_loss():
    truth, p = np.array([0.3, 0.0, 1.0]), np.array([0.5, 0.2, 0.9])
    expected = [0.3 * np.log(0.3 / 0.5) + 0.7 * np.log(0.7 / 0.5), -np.log(0.8), -np.log(0.9)]
    assert metrics.regret(truth, p) == pytest.approx(np.mean(expected), abs=1e-15)
    assert metrics.regret(truth, p, np.array([1.0, 0.0, 3.0])) == pytest.approx(
        (expected[0] + 3 * expected[2]) / 4
    )
    assert metrics.regret(np.array([np.nan, 0.0, 1.0]), p) == pytest.approx((expected[1] + expected[2]) / 2)
    assert metrics.regret(np.full(3, np.nan), p) is None
    assert metrics.regret(truth, truth) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("y", [np.zeros(0), np.zeros(3), np.ones(3)])
def test_what_one_class_or_no_rows_leave_undefined(y):
    group = np.arange(len(y))
    found = metrics.quality(y, np.full(len(y), 0.4), group, truth=np.full(len(y), 0.4))
    assert (found.rows, found.auc, found.gauc, found.normalized_entropy) == (len(y), None, None, None)
    assert (found.log_loss is None) == (found.regret is None) == (found.calibration_error is None) == (len(y) == 0)


def test_quality_is_its_parts():
    y, p, group, weight = draw(6)
    found = metrics.quality(y, p, group, weight=weight, truth=p, k=3)
    assert found.rows == 400
    assert found.auc == metrics.auc(y, p, weight)
    assert found.gauc == metrics.gauc(y, p, group, weight)
    assert found.log_loss == metrics.log_loss(y, p, weight)
    assert found.normalized_entropy == metrics.normalized_entropy(y, p, weight)
    assert found.calibration_error == metrics.calibration_error(y, p, weight)
    assert found.ndcg == metrics.ndcg(y, p, group, 3)
    assert found.regret == pytest.approx(0.0, abs=1e-15)
    assert metrics.quality(y, p, group).regret is None


def figures(y, p, group, weight, *, without=()):
    found = vars(metrics.quality(y, p, group, weight=weight, truth=y / 2))
    return {name: value for name, value in found.items() if name not in without}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60))
def test_the_order_of_rows_does_not_matter(seed, rows):
    y, p, group, weight = draw(seed, rows, levels=8, groups=6)
    shuffled = np.random.default_rng(seed).permutation(rows)
    found = figures(y[shuffled], p[shuffled], group[shuffled], weight[shuffled])
    assert found == pytest.approx(figures(y, p, group, weight), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60))
def test_a_row_of_weight_w_is_the_row_w_times(seed, rows):
    y, p, group, weight = draw(seed, rows, levels=8, groups=6)
    repeated = np.repeat(np.arange(rows), weight.astype(int))
    without = ("rows", "ndcg")
    found = figures(y[repeated], p[repeated], group[repeated], None, without=without)
    assert found == pytest.approx(figures(y, p, group, weight, without=without), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ranking_metrics_see_only_the_order_of_scores(seed):
    y, p, group, weight = draw(seed, 80)
    without = ("log_loss", "normalized_entropy", "calibration_error", "regret")
    found = figures(y, p**3 / 7, group, weight, without=without)
    assert found == figures(y, p, group, weight, without=without)
