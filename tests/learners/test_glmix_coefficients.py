"""Coefficients as a table: the numbers of the posteriors, names and ids beside them, piece by piece."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import acclimate as ac
from acclimate.errors import ConfigError, MismatchError, NotFittedError
from acclimate.learners import coefficients
from learners.sample_events import events_of

SCHEMA = ac.Schema("time", ["user", "tab"], "click")
COLUMNS = ["effect", "id", "feature", "mean", "sd", "lower", "upper", "rows"]


def log(rows=400):
    rng = np.random.default_rng(3)
    columns = {"user": rng.integers(0, 23, rows), "tab": [f"t{i}" for i in rng.integers(0, 3, rows)]}
    return events_of(SCHEMA, {**columns, "x": rng.normal(size=rows), "click": rng.integers(0, 2, rows)})


@pytest.fixture(scope="module")
def model():
    random = [
        ac.RandomEffect("user", ["x"], min_rows=16),
        ac.RandomEffect("tab"),
        ac.RandomEffect(["user", "tab"]),
    ]
    return ac.GLMix(fixed=["x"], random=random).fit(log())


def test_the_fixed_effect_is_as_its_weights_say(model):
    table = model.coefficients("fixed", level=0.9).read_all()
    assert table.column_names == COLUMNS
    names, mean, sd = zip(*model.weights(), strict=True)
    assert table["feature"].to_pylist() == list(names) == ["(intercept)", "x"]
    assert_array_equal(table["mean"], mean)
    assert_array_equal(table["sd"], sd)
    assert_allclose(table["lower"], norm.ppf(0.05, mean, sd), rtol=1e-12)
    assert_allclose(table["upper"], norm.ppf(0.95, mean, sd), rtol=1e-12)
    assert set(table["rows"].to_pylist()) == {400}
    assert table["id"].null_count == 2


@pytest.mark.parametrize("cells", [1, 20, 1 << 20])
def test_every_entity_is_as_its_posterior_says(model, monkeypatch, cells):
    monkeypatch.setattr(coefficients, "_CELLS", cells)
    reader = model.coefficients("user")
    table = reader.read_all()
    states = model.states("user")  # without those that wait
    assert 0 < len(states) < 23
    assert table.column("mean").num_chunks == {1: 23, 20: 8, 1 << 20: 1}[cells]
    assert table["id"].type == pa.int64()
    assert table["id"].to_pylist() == np.repeat(states.ids, 2).tolist()
    assert table["feature"].to_pylist() == ["(intercept)", "x"] * len(states)
    assert_array_equal(table["mean"], states.posterior.mean.ravel())
    assert_allclose(table["sd"], states.posterior.standard_deviation().ravel(), rtol=1e-12)
    assert_array_equal(table["rows"], np.repeat(states.rows, 2))


def test_some_entities_and_the_population_for_one_never_seen(model):
    waiting = next(u for u in range(23) if u not in model.states("user").ids.tolist())
    some = int(model.states("user").ids[0])
    table = model.coefficients("user", [999, some, waiting]).read_all()
    assert table["id"].to_pylist() == [999, 999, some, some, waiting, waiting]
    population = model.state.random[0].population
    for rows in (slice(0, 2), slice(4, 6)):
        assert_allclose(table["mean"].to_numpy()[rows], population.mean, atol=1e-12)
        assert_allclose(table["sd"].to_numpy()[rows], population.standard_deviation(), rtol=1e-9)
        assert table["rows"].to_pylist()[rows] == [0, 0]
    assert_array_equal(table["mean"].to_numpy()[2:4], model.entity_posterior("user", some)[1].mean)
    both = model.coefficients(["user", "tab"], [(3, "t1")]).read_all()
    assert both["id"].to_pylist() == ["3\x1ft1"]
    assert_array_equal(both["mean"], model.entity_posterior(("user", "tab"), (3, "t1"))[1].mean)


def test_all_effects_go_to_any_frame(model):
    table = model.coefficients().read_all()
    assert table["id"].type == pa.string()
    per_effect = [model.coefficients(name).read_all() for name in ("fixed", "user", "tab", "user x tab")]
    assert table.num_rows == sum(part.num_rows for part in per_effect)
    assert_array_equal(table["mean"], np.concatenate([part["mean"].to_numpy() for part in per_effect]))
    assert list(dict.fromkeys(table["effect"].to_pylist())) == ["fixed", "user", "tab", "user x tab"]
    frames = [pd.DataFrame.from_arrow(model.coefficients()), pl.DataFrame(model.coefficients()).to_pandas()]
    for frame in frames:
        assert list(frame.columns) == COLUMNS
        assert_array_equal(frame["upper"], table["upper"])
    lower = pl.DataFrame(model.coefficients("user")).filter(pl.col("lower") > -1e9)
    assert lower.height == per_effect[1].num_rows


def test_a_diagonal_posterior_too():
    random = [ac.RandomEffect("user", ["x"], precision="diagonal")]
    model = ac.GLMix(fixed=ac.FixedEffect(["x"], precision="diagonal"), random=random).fit(log())
    table = model.coefficients("user").read_all()
    assert_allclose(table["sd"], model.states("user").posterior.precision.ravel() ** -0.5, rtol=1e-12)


def test_what_cannot_be_asked(model):
    with pytest.raises(ConfigError, match=r"the level 95 of an interval \(it lies between 0 and 1"):
        model.coefficients(level=95)
    with pytest.raises(ConfigError, match="ids of no random effect"):
        model.coefficients(ids=[3])
    with pytest.raises(ConfigError, match="ids of no random effect"):
        model.coefficients("fixed", [3])
    with pytest.raises(ConfigError, match="no random effect of 'usr'"):
        model.coefficients("usr")
    with pytest.raises(MismatchError, match="ids of 'user' are string"):
        model.coefficients("user", ["a"])
    with pytest.raises(MismatchError, match="is no id of 'user'"):
        model.coefficients("user", [2**70])
    with pytest.raises(NotFittedError):
        ac.GLMix().coefficients()
