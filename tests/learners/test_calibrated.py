"""A calibrated learner: what it learns from, in which order, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import DAY, START, events_of
from scipy.special import expit

import acclimate as ac
from acclimate import learners
from acclimate.arrays import FloatArray
from acclimate.artifacts import modes_of
from acclimate.errors import ConfigError
from acclimate.evaluate import metrics
from acclimate.models.calibration import calibrated, identity, learned

SCHEMA = ac.Schema(time="time", entities={"user": "user_id"}, labels="click", weight="weight", offset="known")


def day_of(day: int, rows: int = 400, seed: int = 0) -> dict[str, Any]:
    """A day of a world in which what is ``known`` of the logit, the offset, is twice too sure of itself."""
    rng = np.random.default_rng([seed, day])
    user, known, x = rng.integers(0, 15, rows), rng.normal(0.0, 3.0, rows), rng.normal(0.0, 1.0, rows)
    click = rng.random(rows) < expit(0.5 * known - 0.5 + 0.3 * x + 0.5 * np.sin(user))
    return {
        "time": (START + day * DAY + np.sort(rng.integers(0, DAY, rows))).tolist(),
        "user_id": user.tolist(),
        "x": x.tolist(),
        "known": known.tolist(),
        "weight": rng.integers(1, 3, rows).astype(float).tolist(),
        "click": [None if r < 0.1 else int(c) for r, c in zip(rng.random(rows), click, strict=True)],
    }


def events(columns: dict[str, Any]) -> ac.Events:
    return events_of(SCHEMA, columns)


def base() -> ac.GLMix:
    return ac.GLMix(fixed=["x"], random=["user"])


DAYS = [events(day_of(d)) for d in range(5)]


def labels(log: ac.Events) -> FloatArray:
    return log.table(["click"])["click"].cast(pa.float64()).to_numpy()


@pytest.mark.parametrize("mode", ["point", "integrated"])
def test_it_is_a_line_learned_before_the_learner_learns(mode: Any) -> None:
    """Its own loop by hand, to the last bit; until the first update it is the learner itself."""
    model, alone, line = ac.Calibrated(base(), mode=mode).fit(DAYS[0]), base().fit(DAYS[0]), identity(10.0)
    assert_array_equal(model.predict(DAYS[1]), alone.predict(DAYS[1], mode=mode))
    for window in DAYS[1:]:
        said, y = alone.predict(window, mode=mode), labels(window)
        assert_array_equal(model.predict(window), calibrated(line, said))
        known, weight = np.isfinite(y), window.table(["weight"])["weight"].to_numpy()
        line = learned(line, said[known], y[known], weight=weight[known], kept=1.0, base=identity(10.0))
        model.update(window)
        alone.update(window)
        assert_allclose(model.line(), line.mean, rtol=1e-12)
    assert model.info is not None
    assert model.info.rows == np.isfinite(labels(DAYS[4])).sum()


def test_replayed_it_is_the_same_loop() -> None:
    log = events({k: [v for d in range(5) for v in day_of(d)[k]] for k in day_of(0)})
    model = ac.Calibrated(base(), half_life="2d")
    start = "2022-04-26"
    report = ac.replay({"calibrated": model, "plain": base()}, log, start=start)
    model = ac.Calibrated(base(), half_life="2d").fit(log.before(start))
    p, y = [], []
    for window in log.windows("1d", start=start):
        p.append(model.predict(window))
        y.append(labels(window))
        model.update(window)
    known = np.isfinite(np.concatenate(y))
    weight = log.after(start).table(["weight"])["weight"].to_numpy()
    loss = metrics.log_loss(np.concatenate(y)[known], np.concatenate(p)[known], weight[known])
    assert report.arms["calibrated"].log_loss == pytest.approx(loss, abs=1e-14)
    assert loss is not None
    assert loss < (report.arms["plain"].log_loss or 0.0)
    for a, b in zip(report.windows[::2], report.windows[1::2], strict=True):
        assert (a.arm, b.arm) == ("calibrated", "plain")
        assert a.auc == pytest.approx(b.auc, abs=1e-12)


def test_a_half_life_forgets_by_time() -> None:
    """Rows of one window by their age too: hours of a day one by one are nearly that day at once."""
    rates = np.repeat([0.2, 0.8], 200)  # of mornings and evenings
    moving = events({**day_of(1), "click": (np.random.default_rng(0).random(400) < rates).astype(int).tolist()})
    at_once, hourly, all_day = (
        ac.Calibrated(ac.GlobalRate(), half_life=half_life).fit(DAYS[0]) for half_life in ("4h", "4h", None)
    )
    at_once.update(moving)
    all_day.update(moving)
    for hour in moving.windows("1h", start="2022-04-26"):
        hourly.learner = ac.GlobalRate().fit(DAYS[0])  # it says what it said, so that the line alone learns
        hourly.update(hour)
    said = [float(model.line()[0]) for model in (at_once, hourly, all_day)]
    assert said[1] == pytest.approx(said[0], abs=0.1)
    assert said[0] > said[2] + 0.5


def test_what_is_calibrated_is_saved_with_it(tmp_path: Path) -> None:
    model = ac.Calibrated(ac.Stack(ac.GLMix(fixed=["x", "rate"]), {"rate": ac.Rate("user")}), half_life="2d")
    model.fit(DAYS[0])
    model.update(DAYS[1])
    model.save(tmp_path / "model")
    loaded: Any = learners.load(tmp_path / "model")
    assert loaded.line() == model.line() != (0.0, 1.0)
    for window in DAYS[2:4]:
        assert_array_equal(loaded.update(window).predict(DAYS[4]), model.update(window).predict(DAYS[4]))
    assert loaded.summary()[-1].startswith("calibrated: logit p' = ")


def test_it_shows_what_its_learner_shows() -> None:
    model, alone = ac.Calibrated(base()).fit(DAYS[0]), base().fit(DAYS[0])
    assert model.weights() == alone.weights()
    assert model.columns(DAYS[0]) == alone.columns(DAYS[0])
    assert_array_equal(model.entity_posterior("user", 3)[1].mean, alone.entity_posterior("user", 3)[1].mean)
    assert model.nbytes == alone.nbytes + 6 * 8
    assert ac.Calibrated(ac.GlobalRate()).fit(DAYS[0]).weights() == []
    with pytest.raises(ConfigError, match="a GlobalRate keeps no posterior of 'user'"):
        ac.Calibrated(ac.GlobalRate()).fit(DAYS[0]).entity_posterior("user", 3)


def test_draws_pass_by_the_line_and_keep_their_order() -> None:
    model = ac.Calibrated(base()).fit(DAYS[0]).update(DAYS[1])
    draw = model.predict(DAYS[2], mode="thompson", seed=3)
    alone = model.learner.predict(DAYS[2], mode="thompson", seed=3)
    assert_array_equal(np.argsort(draw, kind="stable"), np.argsort(alone, kind="stable"))
    assert model.state is not None
    assert_array_equal(draw, calibrated(model.state.line, alone))


def test_where_the_learner_undoes_an_update_the_line_stays() -> None:
    pytest.importorskip("torch")
    wild = ac.SequentialLaplace(
        features=["x"],
        hidden=[4],
        embedding=2,
        refuse_above=0.0,
        training=ac.Training(epochs=2, batch=32, update_rate=3.0),
    )
    model = ac.Calibrated(wild).fit(DAYS[0])
    before = model.predict(DAYS[2])
    model.update(DAYS[1])
    assert model.refusal() == model.shortfall() != ""
    assert model.line() == (0.0, 1.0)
    assert_array_equal(model.predict(DAYS[2]), before)


def test_what_cannot_be_calibrated() -> None:
    encoder = ac.UserEncoder(entity="user", item="video", items={"content": ac.ItemVectors(["x"])})
    with pytest.raises(ConfigError, match="an encoder gives no probabilities that could be calibrated"):
        ac.Calibrated(encoder)
    with pytest.raises(ConfigError, match="the learner is calibrated already"):
        ac.Calibrated(ac.Calibrated(base()))
    with pytest.raises(ConfigError, match="calibrate the stack, and not the learner on top of it"):
        ac.Stack(ac.Calibrated(ac.GLMix(fixed=["x", "rate"])), {"rate": ac.Rate("user")})
    with pytest.raises(ConfigError, match="predictions of a Rate have no mode 'integrated'"):
        ac.Calibrated(ac.Rate("user"), mode="integrated")
    model = ac.Calibrated(base()).fit(DAYS[0])
    with pytest.raises(ConfigError, match="in mode 'point', and 'integrated' is asked") as caught:
        model.predict(DAYS[1], mode="integrated")
    assert caught.value.hint == "set calibrate: {mode: integrated}"


def test_a_replay_asks_for_the_mode_that_is_calibrated() -> None:
    """Told before a fit begins; of what has no modes none can be asked for."""
    stack = ac.Stack(ac.GLMix(fixed=["x", "rate"]), {"rate": ac.Rate("user")})
    assert modes_of(ac.GLMix()) == modes_of(stack) == ("point", "integrated", "thompson")
    assert modes_of(ac.Calibrated(stack, mode="integrated")) == ("integrated", "thompson")
    assert modes_of(ac.Calibrated(ac.Rate("user"))) == modes_of(ac.Rate("user")) == ()
    assert ac.Arm("a", ac.Calibrated(stack, mode="integrated"), mode="integrated").mode == "integrated"
    with pytest.raises(ConfigError, match="predictions of a Calibrated have no mode 'integrated'"):
        ac.Arm("a", ac.Calibrated(stack), mode="integrated")
