"""Features with a ridge of their own: all of their columns have it, and no others."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import events_of
from scipy.optimize import minimize
from scipy.special import expit

import acclimate as ac
from acclimate.errors import ConfigError

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id"},
    labels="click",
    features={
        "both": ac.Feature(kind="cross", of=("genre", "tab")),
        "topics": ac.Feature(kind="multi", separator=","),
    },
)


def log(rows: int = 400, seed: int = 0, *, genres: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(3.0, 2.0, rows), rng.normal(-1.0, 0.5, rows)
    genre, tab = rng.integers(0, genres, rows), rng.integers(0, 2, rows)
    p = expit(0.4 * (x - 3.0) + y + 1.0 + 0.8 * (genre - 1) - tab)
    return {
        "user_id": rng.integers(0, 6, rows),
        "x": x,
        "y": y,
        "genre": [f"genre {k}" for k in genre],
        "tab": [f"tab {k}" for k in tab],
        "topics": [f"a{k},b{t}" for k, t in zip(genre, tab, strict=True)],
        "click": (rng.random(rows) < p).astype(int),
    }


def test_the_optimum_of_two_ridges():
    """In standardised coordinates half of 2 w_x^2 + 50 w_y^2, and of 2 w_0^2 around the log-odds."""
    rows = log()
    model = ac.GLMix(fixed=ac.FixedEffect(["x", "y"], ridge=2.0, ridges={"y": 50.0}), tolerance=1e-10)
    model.fit(events_of(SCHEMA, rows))
    X = np.column_stack([rows["x"], rows["y"]])
    Z, y = (X - X.mean(0)) / X.std(0), rows["click"]
    centre = np.log(y.sum() + 0.5) - np.log((1 - y).sum() + 0.5)
    # The prior mean is of the raw intercept, with slopes of 0, which is that of the centred one too.
    strength = np.array([2.0, 2.0, 50.0])

    def loss(w: np.ndarray) -> float:
        z = w[0] + Z @ w[1:]
        return float(np.sum(np.log1p(np.exp(-(2 * y - 1) * z))) + strength @ (w - [centre, 0.0, 0.0]) ** 2 / 2)

    w = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    slopes = np.array([mean for _, mean, _ in model.weights()[1:]])
    assert_allclose(slopes * X.std(0), w[1:], rtol=1e-5)
    assert_allclose(model.weights()[0][1] + X.mean(0) @ slopes, w[0], rtol=1e-5)


@pytest.mark.parametrize("precision", ["full", "diagonal"])
def test_the_ridge_of_all_said_of_each_changes_nothing(precision):
    def fitted(ridges: dict[str, float]) -> ac.GLMix:
        options = {"ridge": 3.0, "precision": precision}
        fixed = ac.FixedEffect(["x", "genre"], ridges=ridges, **options)
        of_users = {name: ridge for name, ridge in ridges.items() if name == "x"}
        model = ac.GLMix(fixed=fixed, random=[ac.RandomEffect("user", "x", ridges=of_users, **options)])
        return model.fit(events_of(SCHEMA, log())).update(events_of(SCHEMA, log(seed=1, genres=5)))

    expected, model = fitted({}), fitted({"x": 3.0, "genre": 3.0})
    assert model.weights() == expected.weights()
    assert_array_equal(model.states("user").posterior.mean, expected.states("user").posterior.mean)


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize(
    ("feature", "is_its"),
    [
        ("x", lambda name: name == "x"),
        ("genre", lambda name: name.startswith("genre=") and "tab" not in name),
        ("topics", lambda name: name.startswith("topics=")),
        ("both", lambda name: "genre" in name and "tab" in name),
    ],
)
def test_a_ridge_is_that_of_all_columns_of_its_feature(feature, is_its, precision, tmp_path):
    """Also of those that an update brings."""
    effect = ac.FixedEffect(["x", "genre", "topics", "both"], ridges={feature: 1e8}, precision=precision)
    model = ac.GLMix(fixed=effect).fit(events_of(SCHEMA, log()))
    model.save(tmp_path / "model")
    model = ac.GLMix.load(tmp_path / "model")
    for _ in range(2):
        its = [abs(mean) for name, mean, _ in model.weights() if is_its(name)]
        others = [abs(mean) for name, mean, _ in model.weights()[1:] if not is_its(name)]
        assert max(its) < 1e-4
        assert np.median(others) > 0.01
        model.update(events_of(SCHEMA, log(seed=1, genres=5)))


def test_a_ridge_of_a_feature_of_entities():
    """Where the population stays at the ridge; a learned one has the ratio as its prior alone."""
    events = events_of(SCHEMA, log())
    declared = ac.RandomEffect("user", ["x", "y"], ridges={"y": 1e8})
    model = ac.GLMix(random=[declared], learn_population=False).fit(events)
    names, mean = model.entity_posterior("user", 3)[0], np.abs(model.states("user").posterior.mean)
    assert mean[:, names.index("y")].max() < 1e-4
    assert mean[:, names.index("x")].min() > 0.01
    learned = ac.GLMix(random=[ac.RandomEffect("user", ["x", "y"], ridges={"y": 100.0})]).fit(events)
    plain = ac.GLMix(random=[ac.RandomEffect("user", ["x", "y"])]).fit(events)
    variances = [np.diag(m.state.random[0].population.covariance())[2] for m in (learned, plain)]
    assert variances[0] < 0.5 * variances[1]


def test_ridges_of_no_feature():
    with pytest.raises(ConfigError, match=r"FixedEffect: 'ridges' has 'tag', which is none of its features"):
        ac.FixedEffect("tags", ridges={"tag": 2.0})
    with pytest.raises(ConfigError, match=r"RandomEffect: ridges.x: should be greater than 0"):
        ac.RandomEffect("user", "x", ridges={"x": 0.0})
