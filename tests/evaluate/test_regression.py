"""Metrics of numbers and counts against scikit-learn's, and replays of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as theirs

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import Report
from acclimate.errors import ConfigError, ModelError
from acclimate.evaluate import regression
from acclimate.evaluate.comparisons import METRICS, compare
from acclimate.evaluate.page import facts, findings
from acclimate.evaluate.report import read_report
from acclimate.evaluate.summary import columns, lead
from acclimate.project import load_project

DAY = 86_400_000_000
START = 1_704_067_200_000_000


def drawn(kind: str, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions, weights, the truth."""
    rng = np.random.default_rng(0)
    truth = np.exp(rng.normal(size=n))
    y = rng.poisson(truth).astype(float) if kind == "count" else truth + rng.normal(size=n)
    return y, truth * np.exp(0.3 * rng.normal(size=n)), rng.uniform(0.1, 3.0, n), truth


@pytest.mark.parametrize("kind", ["number", "count"])
def test_metrics_are_scikit_learns(kind):
    y, p, weight, truth = drawn(kind)
    found = regression.quality(y, p, kind, weight=weight, truth=truth)
    assert_allclose(found.rmse, theirs.root_mean_squared_error(y, p, sample_weight=weight), rtol=1e-12)
    assert_allclose(found.mae, theirs.mean_absolute_error(y, p, sample_weight=weight), rtol=1e-12)
    assert_allclose(found.r2, theirs.r2_score(y, p, sample_weight=weight), rtol=1e-12)
    assert (found.rows, found.auc, found.log_loss, found.ndcg) == (400, None, None, None)
    if kind == "count":
        assert_allclose(found.deviance, theirs.mean_poisson_deviance(y, p, sample_weight=weight), rtol=1e-12)
        assert_allclose(found.ratio, (weight @ p) / (weight @ y), rtol=1e-12)
        kl = truth * np.log(truth / p) - truth + p
        assert_allclose(found.regret, np.average(kl, weights=weight), rtol=1e-12)
    else:
        assert (found.deviance, found.ratio) == (None, None)
        assert_allclose(found.regret, np.average((p - truth) ** 2, weights=weight), rtol=1e-12)


def test_regret_is_over_the_rows_whose_truth_is_known():
    y, p, _, truth = drawn("number")
    some = np.where(np.arange(400) % 3 == 0, np.nan, truth)
    known = np.isfinite(some)
    found = regression.quality(y, p, "number", truth=some)
    assert_allclose(found.regret, np.mean((p - truth)[known] ** 2), rtol=1e-12)
    assert regression.quality(y, p, "number").regret is None


def test_what_is_not_defined_is_none():
    none = regression.quality(np.zeros(0), np.zeros(0), "count")
    assert (none.rows, none.rmse, none.r2, none.deviance, none.ratio) == (0, None, None, None, None)
    one = regression.quality(np.zeros(3), np.zeros(3), "count")
    assert (one.rmse, one.r2, one.deviance, one.ratio) == (0.0, None, pytest.approx(0.0, abs=1e-300), None)


def test_a_count_that_was_ruled_out_costs_much_and_is_finite():
    assert 1000.0 < regression.row_deviance(np.ones(1), np.zeros(1))[0] < 2000.0


@pytest.mark.parametrize("kind", ["number", "count"])
def test_comparisons_are_differences_of_the_metrics_with_intervals_around_them(kind):
    y, p, weight, truth = drawn(kind)
    other = np.full_like(y, y.mean())
    entity = np.arange(400) % 60
    found = compare(
        ["a", "b"],
        y,
        np.column_stack([p, other]),
        entity,
        window=entity * 0,
        weight=weight,
        truth=truth,
        kind=kind,
    )
    a, b = (regression.quality(y, one, kind, weight=weight, truth=truth) for one in (p, other))
    assert {c.metric for c in found} == set(METRICS[kind])
    for c in found:
        assert_allclose(c.difference, getattr(a, c.metric) - getattr(b, c.metric), rtol=1e-9, atol=1e-12)
        assert c.low < c.difference < c.high


# --- replays


def log(kind: str) -> ac.Events:
    """Eight days of 40 users with a level each, of numbers or counts around a known expectation."""
    rng, n = np.random.default_rng(1), 1600
    user, item = rng.integers(0, 40, n), rng.integers(0, 25, n)
    z = 0.8 + rng.normal(0.0, 0.7, 40)[user] + rng.normal(0.0, 0.4, 25)[item]
    truth = np.exp(z) if kind == "count" else z
    y = rng.poisson(truth) if kind == "count" else z + 0.5 * rng.normal(size=n)
    time = START + np.arange(n) * (8 * DAY // n)
    columns = {"user_id": user, "item_id": item, "y": y, "truth": truth}
    schema = ac.Schema(
        time="time",
        entities={"user": "user_id", "item": "item_id"},
        labels="y",
        label_kinds={"y": kind},  # type: ignore[dict-item]
        truth="truth",
    )
    return ac.read_events(pa.table({"time": pa.array(time, pa.timestamp("us", "UTC")), **columns}), schema)


LOSSES: dict[str, Any] = {"number": "squared", "count": "poisson"}


def replayed(kind: str, **more: Any) -> Report:
    model = ac.GLMix(random=["user", "item"], loss=LOSSES[kind])
    arms = [ac.Arm("incremental", model), ac.Arm("stale", model, "stale"), ac.Arm("mean", ac.GlobalRate())]
    return ac.replay(arms, log(kind), start="2024-01-05", **more)


@pytest.mark.parametrize("kind", ["number", "count"])
def test_a_replay_measures_what_goes_with_the_labels(kind, tmp_path):
    report = replayed(kind, out=tmp_path / "report")
    arms, key = report.arms, lead(report).key
    assert getattr(arms["incremental"], key) < getattr(arms["stale"], key) < getattr(arms["mean"], key)
    assert arms["incremental"].auc is None
    assert arms["incremental"].regret < 0.5 * arms["mean"].regret
    assert abs(arms["mean"].r2) < 0.05
    assert 0.2 < arms["incremental"].r2 < 1.0
    labels = {column.measure.label for column in columns(report)}
    assert {"RMSE", "MAE", "R²", "Regret", "Calibration error"} <= labels
    assert ("Deviance" in labels) == (kind == "count")
    assert not {"AUC", "GAUC", "Log-loss", "NE"} & labels
    assert {c.metric for c in report.comparisons} == set(METRICS[kind])
    said = " ".join(findings(report))
    assert f"incremental reaches {'an RMSE' if kind == 'number' else 'a deviance'} of" in said
    assert "below stale" in said
    assert any("mean label" in fact for fact in facts(report))
    assert read_report(tmp_path / "report") == report


def test_a_log_of_numbers_goes_through_the_command(tmp_path):
    table = log("number").table(["time", "user_id", "item_id", "y"])
    parquet.write_table(table, tmp_path / "log.parquet")
    project = """
name: numbers
events:
  {path: log.parquet, time: time, entities: {user: user_id, item: item_id}, labels: [y], label_kinds: {y: number}}
learners: {it: {kind: glmix, loss: squared, random: [user, item]}}
replay: {start: 2024-01-05}
"""
    (tmp_path / "acclimate.yaml").write_text(project)
    loaded = load_project(tmp_path / "acclimate.yaml")
    report = pipeline.replay_project(loaded, tmp_path / "report")
    assert list(report.arms) == [
        *("stale", "incremental", "retrain", "fixed", "global-rate", "item-rate", "user-rate")
    ]
    arms = report.arms
    assert arms["incremental"].rmse < min(arms["fixed"].rmse, arms["user-rate"].rmse, arms["item-rate"].rmse)
    model = pipeline.fit(loaded, tmp_path / "model", until="2024-01-05")
    assert any("noise: standard deviation 0." in line for line in model.summary())
    again = pipeline.update(loaded, tmp_path / "model")
    assert again.noise != model.noise


def test_what_does_not_go_with_the_labels_is_refused():
    events = log("number")
    with pytest.raises(ConfigError, match="label 'y' is a number, and has no AUC within item_id"):
        ac.replay([ac.GlobalRate()], events, start="2024-01-05", within=["item_id"])
    with pytest.raises(ConfigError, match=r"label 'y' is a number, .* takes 0 and 1"):
        ac.Calibrated(ac.GLMix()).fit(events)

    class Wild:
        def fit(self, events: ac.Events) -> None: ...
        def update(self, events: ac.Events) -> None: ...
        def predict(self, events: ac.Events) -> np.ndarray:
            return np.full(events.table().num_rows, self.said)

        said = np.inf

    with pytest.raises(ModelError, match="predictions are not finite: inf in row 0"):
        ac.replay([Wild()], events, start="2024-01-05")
    Wild.said = -1.0
    with pytest.raises(ModelError, match="not expected counts, finite and not negative: -1 in row 0"):
        ac.replay([Wild()], log("count"), start="2024-01-05")
