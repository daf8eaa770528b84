"""What a GLMix says: at the mean, over the posterior, by a draw; and what it tells of itself."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, assert_same_states, events_of
from scipy import integrate
from scipy.special import expit, logit
from scipy.stats import kstest, norm

import acclimate as ac
from acclimate.errors import ColumnError, ConfigError, NotFittedError
from acclimate.models.scoring import draws

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "video": "video_id"}, labels="click")
FORMS = ("full", "diagonal", "marginal")


def log(*, rows: int = 120, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user, x = rng.integers(0, 8, rows), rng.normal(1.0, 1.0, rows)
    return {
        "user_id": user,
        "video_id": rng.integers(0, 5, rows),
        "x": x,
        "click": (rng.random(rows) < expit(np.sin(user) + x * np.cos(user))).astype(int),
    }


def model_of(precision: str = "full", **kwargs: Any) -> ac.GLMix:
    kept = {"precision": precision}
    model = ac.GLMix(
        fixed=ac.FixedEffect("x", **kept),
        random=[ac.RandomEffect("user", "x", **kept), ac.RandomEffect("video", **kept)],
        learn_population=False,
        **kwargs,
    )
    return model.fit(events_of(SCHEMA, log()))


@pytest.fixture(scope="module", params=FORMS)
def model(request) -> ac.GLMix:
    return model_of(request.param)


@pytest.fixture(scope="module", params=FORMS)
def around_means(request) -> ac.GLMix:
    """What is integrated over lies where it is told."""
    return model_of(request.param, approximation="variational")


@pytest.fixture(scope="module")
def asked() -> ac.Events:
    """Rows of users and videos seen and unseen."""
    data = log(rows=200, seed=1)
    return events_of(SCHEMA, {**data, "user_id": data["user_id"] * 2, "video_id": data["video_id"] + 2})


def moments(model: ac.GLMix, events: ac.Events) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row's margin, one row at a time from what the model tells of its posteriors."""
    fixed = model.state.fixed_posterior
    mean, variance = [], []
    for row in events.table().to_pylist():
        x = np.array([1.0, row["x"]])
        of_user = model.entity_posterior("user", row["user_id"])[1]
        of_video = model.entity_posterior("video", row["video_id"])[1]
        parts = [(x, ac.Posterior(fixed.mean[0], fixed.precision[0])), (x, of_user), (x[:1], of_video)]
        mean.append(sum(v @ p.mean for v, p in parts))
        covariances = [p.covariance() if p.is_full else np.diag(p.covariance()) for _, p in parts]
        variance.append(sum(v @ S @ v for (v, _), S in zip(parts, covariances, strict=True)))
    return np.array(mean), np.array(variance)


# --- point and integrated -----------------------------------------------------------------------------------


def test_a_point_prediction_is_at_the_means(model, asked):
    mean, _ = moments(model, asked)
    assert_allclose(model.predict(asked), expit(mean), rtol=1e-12)
    assert_array_equal(model.predict(asked), model.predict(asked, mode="point"))


def test_rows_without_a_label_are_predicted_too(model):
    data = log(rows=40, seed=3)
    p = model.predict(events_of(SCHEMA, data))
    assert_array_equal(model.predict(events_of(SCHEMA, {**data, "click": [None, 1] * 20})), p)


def expectation(mean: float, sd: float) -> float:
    def density(z: float) -> float:
        return expit(z) * norm.pdf(z, mean, sd)

    return integrate.quad(density, mean - 12.0 * sd, mean + 12.0 * sd, epsabs=1e-12)[0]


def test_an_integrated_prediction_is_the_expectation(around_means, asked):
    mean, variance = moments(around_means, asked)
    expected = [expectation(mean[i], np.sqrt(variance[i])) for i in range(40)]
    assert_allclose(around_means.predict(asked, mode="integrated")[:40], expected, rtol=0, atol=1e-6)


def test_an_integrated_prediction_does_not_depend_on_who_else_is_asked_about(model, asked):
    rows = asked.table()
    whole = model.predict(asked, mode="integrated")
    for first in (0, 3, 120):
        part = events_of(SCHEMA, rows.slice(first, 7).to_pydict())
        assert_allclose(model.predict(part, mode="integrated"), whole[first : first + 7], rtol=1e-12)


def test_an_integrated_prediction_is_the_less_sure_one(around_means, asked):
    point, integrated = around_means.predict(asked), around_means.predict(asked, mode="integrated")
    assert np.all(np.abs(integrated - 0.5) < np.abs(point - 0.5))
    assert np.all((integrated > 0.5) == (point > 0.5))
    # Strangers are where little is known.
    known = np.isin(asked.table()["user_id"].to_numpy(), np.arange(8))
    shrunk = np.abs(logit(integrated)) / np.abs(logit(point))
    assert 0 < np.sum(known) < 200
    assert shrunk[known].mean() > shrunk[~known].mean() + 0.02


# --- Thompson draws -----------------------------------------------------------------------------------------


def test_a_draw_goes_by_its_seed(model, asked):
    first = model.predict(asked, mode="thompson", seed=1)
    assert_array_equal(model.predict(asked, mode="thompson", seed=1), first)
    assert np.all(model.predict(asked, mode="thompson", seed=2) != first)
    assert_array_equal(model.predict(asked, mode="thompson"), model.predict(asked, mode="thompson", seed=0))


def test_rows_of_one_entity_share_a_draw(model):
    """Their margins lie on one line in x."""
    users = np.repeat([1, 3, 77], 4)
    x = np.tile([0.0, 1.0, 2.0, 5.0], 3)
    data = {"user_id": users, "video_id": np.zeros(12, int), "x": x, "click": np.zeros(12, int)}
    z = logit(model.predict(events_of(SCHEMA, data), mode="thompson", seed=4)).reshape(3, 4)
    slope = z[:, 1] - z[:, 0]
    assert_allclose(z, z[:, :1] + slope[:, None] * [0.0, 1.0, 2.0, 5.0], atol=1e-9)
    assert len(set(np.round(slope, 6))) == 3


def test_a_draw_does_not_depend_on_the_order_of_rows(model):
    data = {**log(rows=90, seed=2), "time": START + HOUR * np.arange(90)}
    order = np.random.default_rng(0).permutation(90)
    moved = {name: values[order] for name, values in data.items()} | {"time": data["time"]}
    p = model.predict(events_of(SCHEMA, data), mode="thompson", seed=9)
    q = model.predict(events_of(SCHEMA, moved), mode="thompson", seed=9)
    assert_allclose(q, p[order], rtol=1e-12)


def test_a_draw_does_not_depend_on_who_else_is_asked_about(model):
    data = {**log(rows=90, seed=2), "time": START + HOUR * np.arange(90)}
    alone = {name: values[data["user_id"] == 5] for name, values in data.items()}
    p = model.predict(events_of(SCHEMA, data), mode="thompson", seed=9)
    q = model.predict(events_of(SCHEMA, alone), mode="thompson", seed=9)
    assert 0 < len(q) < 90
    assert_allclose(q, p[data["user_id"] == 5], rtol=1e-12)


def test_entities_of_one_id_in_two_effects_are_drawn_apart():
    ids = np.arange(4000)
    standard = ac.Posterior(np.zeros((4000, 3)), np.ones((4000, 3)))
    noise = np.hstack([draws(standard, ids, [seed, i]) for seed in (0, 1) for i in (1, 2)])
    assert_allclose(np.corrcoef(noise.T), np.eye(12), atol=5.0 / np.sqrt(4000))
    assert kstest(noise.ravel(), norm.cdf).pvalue > 1e-3


def test_many_draws_have_the_moments_of_the_posterior(model):
    """Of a seen user and a stranger: mean and covariance of the margin at two values of x, over 600 seeds."""
    data = {"user_id": [1, 1, 77, 77], "video_id": [0] * 4, "x": [0.0, 2.0] * 2, "click": [0] * 4}
    events = events_of(SCHEMA, data).cached()
    mean, variance = moments(model, events)
    draws = logit([model.predict(events, mode="thompson", seed=seed) for seed in range(600)])
    sd = np.sqrt(variance)
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 4.0 / np.sqrt(600)
    assert_allclose(draws.var(axis=0) / variance, 1.0, atol=4.0 * np.sqrt(2.0 / 600))
    # Two rows of one user are correlated by all three effects.
    fixed = model.state.fixed_posterior
    x = np.array([[1.0, 0.0], [1.0, 2.0]])
    for columns, user in (([0, 1], 1), ([2, 3], 77)):
        user_part = model.entity_posterior("user", user)[1]
        parts = [user_part, ac.Posterior(fixed.mean[0], fixed.precision[0])]
        S = sum(p.covariance() if p.is_full else np.diag(p.covariance()) for p in parts)
        video = model.entity_posterior("video", 0)[1].covariance().item()
        expected = (x @ S @ x.T + video)[0, 1] / np.prod(sd[columns])
        assert_allclose(np.corrcoef(draws[:, columns].T)[0, 1], expected, atol=4.0 / np.sqrt(600))


def test_strangers_are_drawn_from_the_population():
    """4000 of them in one call: the spread of their margins is that of the population."""
    model = model_of()
    base = model.state.effects[1].population
    users = np.repeat(np.arange(1000, 5000), 2)
    data = {"user_id": users, "video_id": np.zeros(8000, int), "x": np.tile([0.0, 1.5], 4000)}
    events = events_of(SCHEMA, {**data, "click": np.zeros(8000, int), "time": np.full(8000, START)})
    z = logit(model.predict(events, mode="thompson", seed=3)).reshape(4000, 2)
    x = np.array([[1.0, 0.0], [1.0, 1.5]])
    assert events.table()["x"].to_numpy()[:2].tolist() == [0.0, 1.5]
    expected = x @ base.covariance() @ x.T
    assert_allclose(np.cov(z.T), expected, atol=5.0 * np.diag(expected).max() * np.sqrt(2.0 / 4000))


# --- what it tells of itself --------------------------------------------------------------------------------


def test_weights_are_those_of_the_fixed_effect():
    model = model_of()
    posterior = model.state.fixed_posterior
    names, mean, sd = zip(*model.weights(), strict=True)
    assert names == ("(intercept)", "x")
    assert_array_equal(mean, posterior.mean[0])
    assert_allclose(sd, np.sqrt(np.diag(np.linalg.inv(posterior.precision[0]))), rtol=1e-12)


def test_an_entity_is_found_by_role_and_by_column():
    model = model_of()
    names, posterior, rows = model.entity_posterior("user", 3)
    assert names == ("(intercept)", "x")
    assert rows == np.sum(log()["user_id"] == 3)
    states = model.states("user")
    place = states.ids.tolist().index(3)
    assert_array_equal(posterior.mean, states.posterior.mean[place])
    assert_array_equal(posterior.precision, states.posterior.precision[place])
    assert_array_equal(model.entity_posterior("user_id", 3)[1].mean, posterior.mean)
    with pytest.raises(ConfigError, match="no random effect of 'genre'"):
        model.entity_posterior("genre", 3)


def test_columns_are_counted_without_learning():
    model = ac.GLMix(fixed=ac.FixedEffect(["x", "video_id"]), random=[ac.RandomEffect("user", "x")])
    assert model.columns(events_of(SCHEMA, log())) == {"fixed": 7, "user": 2}
    assert model.state is None


def test_the_state_is_as_large_as_its_arrays():
    model = model_of()
    fixed, *random = (
        model.state.fixed_states.posterior,
        *(model.states(e).posterior for e in ("user", "video")),
    )
    arrays = [fixed.mean, fixed.precision, model.state.marginal]
    for posterior in random:  # of a symmetric matrix one triangle is kept
        d = posterior.mean.shape[1]
        arrays += [posterior.mean, posterior.precision[:, *np.tril_indices(d)]]
    assert model.nbytes == sum(array.nbytes for array in arrays) + 24 * (8 + 5)
    before = model.nbytes
    model.update(events_of(SCHEMA, {**log(rows=10), "user_id": np.arange(100, 110)}))
    assert model.nbytes == before + 10 * 8 * (2 + 3 + 1 + 2)  # mean, precision, id, time and rows


def test_a_model_comes_back_with_its_parameters(tmp_path):
    model = ac.GLMix(
        fixed=ac.FixedEffect(["x"], half_life="7d", ridge=0.5),
        random=[ac.RandomEffect("user", ["x"], min_rows=2, max_rows=30, forgetting=0.9, precision="marginal")],
        label="click",
        tolerance=1e-4,
        max_steps=20,
    ).fit(events_of(SCHEMA, log()))
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model")
    assert loaded.parameters == model.parameters
    assert loaded.info is None
    assert loaded.cut == model.cut == START + 119 * HOUR
    assert loaded.weights() == model.weights()
    assert loaded.state.effects[1].index == model.state.effects[1].index
    assert loaded.state.effects[1].ids == "int64"
    assert loaded.states("user").ids.dtype == np.int64
    assert_same_states(loaded.states("user"), model.states("user"))


def test_there_is_no_other_mode(asked):
    with pytest.raises(ConfigError, match="did you mean 'thompson'"):
        model_of().predict(asked, mode="tompson")


def test_nothing_is_told_before_a_fit(tmp_path):
    model = ac.GLMix()
    for ask in (model.weights, lambda: model.cut, lambda: model.nbytes, lambda: model.save(tmp_path / "model")):
        with pytest.raises(NotFittedError, match="fit it, or load a saved one"):
            ask()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": -0.1}, "GLMix: tolerance: should be greater than or equal to 0"),
        ({"tolerance": float("nan")}, "GLMix: tolerance: should be a finite number"),
        ({"tolerance": float("inf")}, "GLMix: tolerance: should be a finite number"),
        ({"max_steps": -1}, "GLMix: max_steps: should be greater than or equal to 0"),
    ],
    ids=str,
)
def test_a_search_that_cannot_end_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        ac.GLMix(**given)
    ac.GLMix(tolerance=0.0, max_steps=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lable": "click"}, "GLMix: no argument 'lable' .*did you mean 'label'"),
        ({"states": "float16"}, "GLMix: states: should be 'float64' or 'float32'"),
        (
            {"random": {"user": {"min_rows": 0}}},
            r"GLMix: random\.0\.min_rows: should be greater than or equal to 1",
        ),
        ({"fixed": {"ridge": 0.0}}, r"GLMix: fixed\.ridge: should be greater than 0"),
    ],
    ids=str,
)
def test_what_is_declared_is_checked_when_it_is_declared(given, message):
    with pytest.raises(ConfigError, match=message):
        ac.GLMix(**given)


def test_short_forms_declare_the_same():
    declared = ac.GLMix(
        fixed=ac.FixedEffect(("x",)),
        random=[ac.RandomEffect("user", ("x",)), ac.RandomEffect("video", min_rows=3)],
    ).parameters
    assert ac.GLMix(fixed="x", random={"user": "x", "video": {"min_rows": 3}}).parameters == declared
    assert ac.GLMix(fixed=["x"], random=["user"]).parameters.random == (ac.RandomEffect("user"),)
    assert declared.shared_part() == ac.GLMix(fixed=["x"]).parameters


def test_a_loaded_model_reads_a_category_that_comes_as_floats(tmp_path):
    model = ac.GLMix(fixed=ac.FixedEffect(["tab"]), random=[ac.RandomEffect("user", ["tab"])])
    data = {**log(), "tab": log()["video_id"]}
    model.fit(events_of(SCHEMA, data)).save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model")
    floats = events_of(SCHEMA, {**data, "tab": data["tab"].astype(float)})
    assert_array_equal(loaded.predict(floats), model.predict(events_of(SCHEMA, data)))
    assert len(np.unique(model.predict(floats))) > 8
    with pytest.raises(ColumnError, match="'tab' was categorical"):
        loaded.predict(events_of(SCHEMA, {**data, "tab": data["tab"] + 0.5}))
