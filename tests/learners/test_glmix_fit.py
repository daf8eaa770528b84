"""Fitting a GLMix: the joint optimum, the population, locks, warm starts, bounds on rows."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, assert_same_states, events_of, in_pieces
from scipy import optimize
from scipy.special import expit, logit

import acclimate as ac
from acclimate.errors import ConfigError, DataError, NotFittedError
from acclimate.features import Settled
from acclimate.learners import batch as batches
from acclimate.learners import mixed, populations
from acclimate.learners.batch import Batch, read_batches, sampled
from acclimate.learners.effects import new_effects

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "video": "video_id"},
    labels=["click", "like"],
    weight="w",
    offset="o",
)
PLAIN = dataclasses.replace(SCHEMA, weight=None, offset=None)


def log(*, rows: int = 300, seed: int = 0, users: int = 9, videos: int = 6) -> dict[str, Any]:
    """Events in which users differ in level and in their taste for ``x``; all columns are known."""
    rng = np.random.default_rng(seed)
    user, video = rng.integers(0, users, rows), rng.integers(0, videos, rows)
    x = rng.normal(5.0, 2.0, rows)
    z = -0.5 + np.sin(user) + 0.4 * (x - 5.0) * np.cos(user) + 0.5 * np.cos(2.0 * video)
    return {
        "user_id": user,
        "video_id": video,
        "x": x,
        "genre": np.array(["drama", "news", "sport"])[rng.integers(0, 3, rows)],
        "click": (rng.random(rows) < expit(z)).astype(int),
        "like": rng.integers(0, 2, rows),
        "w": rng.uniform(0.5, 2.0, rows),
        "o": rng.normal(0.0, 0.5, rows),
    }


def fitted(events: ac.Events, *, tolerance: float = 1e-9, **kwargs: Any) -> ac.GLMix:
    model = ac.GLMix(
        fixed=ac.FixedEffect(["x", "genre"], ridge=2.0),
        random=[ac.RandomEffect("user", ["x"], ridge=1.5), ac.RandomEffect("video", ["genre"])],
        learn_population=kwargs.pop("learn_population", False),
        tolerance=tolerance,
    )
    return model.fit(events, **kwargs)


def population(model: ac.GLMix, effect: int = 1) -> ac.Posterior:
    assert model.state is not None
    return model.state.effects[effect].population


# --- the joint optimum --------------------------------------------------------------------------------------


def minimum(objective: Any, size: int) -> np.ndarray:
    """Where a smooth convex function ``w -> (value, gradient, hessian)`` has its minimum."""
    w = np.zeros(size)
    optimum = optimize.minimize(
        lambda v: objective(v)[0],
        w,
        jac=lambda v: objective(v)[1],
        hess=lambda v: objective(v)[2],
        method="trust-exact",
        options={"gtol": 1e-11},
    )
    assert np.abs(objective(optimum.x)[1]).max() < 1e-7
    return optimum.x


def test_fit_finds_the_joint_optimum():
    """The reference is one dense problem: standardised columns, a ridge on each coefficient, solved by scipy."""
    data = log()
    n, w, y = len(data["x"]), data["w"], data["click"]
    centre = np.average(data["x"], weights=w)
    scale = np.sqrt(np.average((data["x"] - centre) ** 2, weights=w))
    x = (data["x"] - centre) / scale
    one = np.ones((n, 1))
    genre = (data["genre"][:, None] == np.unique(data["genre"])).astype(float)
    user, video = (data[c][:, None] == np.arange(data[c].max() + 1) for c in ("user_id", "video_id"))
    fixed = np.hstack([one, x[:, None], genre])
    of_user = np.hstack([user, user * x[:, None]])
    of_video = np.hstack([video * column[:, None] for column in np.hstack([one, genre]).T])
    X = np.hstack([fixed, of_user, of_video])
    ridge = np.repeat([2.0, 1.5, 1.0], [fixed.shape[1], of_user.shape[1], of_video.shape[1]])
    rate = (w @ y + 0.5) / (w.sum() + 1.0)
    centre_of_prior = np.zeros(X.shape[1])
    centre_of_prior[0] = logit(rate)

    def objective(v):
        z, away = X @ v + data["o"], v - centre_of_prior
        p = expit(z)
        value = w @ (np.logaddexp(0.0, z) - y * z) + 0.5 * ridge @ away**2
        return value, X.T @ (w * (p - y)) + ridge * away, (X.T * (w * p * (1.0 - p))) @ X + np.diag(ridge)

    v = minimum(objective, X.shape[1])
    events = events_of(SCHEMA, data)
    model = fitted(events)
    assert model.info.converged
    assert_allclose(model.predict(events), expit(X @ v + data["o"]), rtol=0, atol=1e-8)

    # The precision that an update begins with is that of the block alone; all are told in raw units, w = B v.
    p = expit(X @ v + data["o"])
    B = np.eye(5)
    B[1, 1] = 1.0 / scale
    B[0, 1] = -centre / scale
    covariance = B @ np.linalg.inv((fixed.T * (w * p * (1 - p))) @ fixed + 2.0 * np.eye(5)) @ B.T
    weights = {name: (mean, sd) for name, mean, sd in model.weights()}
    names = ("(intercept)", "x", "genre=drama", "genre=news", "genre=sport")
    assert_allclose([weights[name][0] for name in names], B @ v[:5], rtol=0, atol=1e-7)
    order = [model.state.fixed.index.names.index(name) for name in names]
    alone = model.state.fixed_states.posterior.standard_deviation()[0, order]
    assert_allclose(alone, np.sqrt(np.diag(covariance)), rtol=1e-7)

    # What is told counts the random effects: of the joint posterior, to a few hundredths where they are crossed.
    S = np.linalg.inv((X.T * (w * p * (1 - p))) @ X + np.diag(ridge))[:5, :5]
    assert_allclose([weights[name][1] for name in names], np.sqrt(np.diag(B @ S @ B.T)), rtol=0.05)


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
def test_the_unit_of_a_column_does_not_matter(precision):
    def model(scale: float, shift: float) -> np.ndarray:
        data = log()
        events = events_of(PLAIN, {**data, "x": data["x"] * scale + shift})
        kept = {"precision": precision}
        learner = ac.GLMix(
            fixed=ac.FixedEffect("x", **kept), random=[ac.RandomEffect("user", "x", **kept)], tolerance=1e-9
        )
        return learner.fit(events).update(events).predict(events)

    assert_allclose(model(1000.0, 0.0), model(1.0, 0.0), rtol=0, atol=1e-8)
    if precision == "full":  # a diagonal cannot carry the covariance with the intercept that a shift brings
        assert_allclose(model(1000.0, -300.0), model(1.0, 0.0), rtol=0, atol=1e-7)


def test_the_ridge_shrinks():
    events = events_of(PLAIN, log())

    def spread(ridge: float) -> float:
        effect = ac.RandomEffect("user", ridge=ridge)
        model = ac.GLMix(random=[effect], learn_population=False, tolerance=1e-9).fit(events)
        return float(np.ptp([model.entity_posterior("user", u)[1].mean[0] for u in range(9)]))

    assert spread(0.1) > 1.5 * spread(10.0) > 3.0 * spread(1000.0) > 0.0


def test_the_prior_of_the_intercept_is_the_base_rate():
    """A heavy ridge pulls to the log-odds of the label, not to one half."""
    data = {**log(), "click": [1] * 30 + [0] * 270}
    events = events_of(PLAIN, data)
    model = ac.GLMix(fixed=ac.FixedEffect("x", ridge=1e6)).fit(events)
    assert_allclose(model.predict(events), 30.5 / 301, rtol=1e-3)


def test_each_label_has_its_own_model():
    events = events_of(PLAIN, log())
    first, second = ac.GLMix().fit(events), ac.GLMix(label="like").fit(events)
    table = events.table()
    for model, label in ((first, "click"), (second, "like")):
        rate = table[label].to_numpy().mean()
        assert_allclose(model.predict(events), rate, atol=1e-3)
    assert abs(first.predict(events)[0] - second.predict(events)[0]) > 0.01


def test_an_offset_is_part_of_the_margin():
    """One offset of all rows moves the intercept alone, and the margin of rows that have another."""
    data, schema = log(), dataclasses.replace(PLAIN, offset="o")
    free = ac.GLMix(fixed=ac.FixedEffect(["x", "genre"], ridge=1e-9), tolerance=1e-10)
    expected = free.fit(events_of(PLAIN, data)).predict(events_of(PLAIN, data))
    moved = free.fit(events_of(schema, {**data, "o": np.full(300, 0.7)}))
    for offset in (0.7, 3.0):
        p = moved.predict(events_of(schema, {**data, "o": np.full(300, offset)}))
        assert_allclose(logit(p), logit(expected) + offset - 0.7, rtol=0, atol=1e-5)


def test_margins_of_any_size_stay_finite():
    schema = dataclasses.replace(PLAIN, offset="o")
    events = events_of(schema, {**log(), "o": np.resize([1e4, -1e4, 0.0], 300)})
    model = fitted(events)
    p = model.predict(events, mode="integrated")
    assert np.all((p >= 0.0) & (p <= 1.0))
    assert np.all(np.isfinite([mean for _, mean, _ in model.weights()]))


def test_entities_of_one_class_shrink_to_the_population():
    data = log(users=3)
    data["click"] = np.where(data["user_id"] == 0, 1, np.where(data["user_id"] == 1, 0, data["click"]))
    events = events_of(PLAIN, data)
    model = fitted(events)
    assert model.info.converged
    assert all(len(ids) == 0 for ids in model.info.unsettled.values())
    always, never = (model.entity_posterior("user", user)[1] for user in (0, 1))
    p = {user: model.predict(events)[events.table()["user_id"].to_numpy() == user].mean() for user in (0, 1)}
    assert 0.8 < p[0] < 1.0
    assert 0.0 < p[1] < 0.2
    for posterior in (always, never):
        assert np.all(np.isfinite(posterior.mean))
        assert np.abs(posterior.mean).max() < 10.0
        assert np.linalg.eigvalsh(posterior.precision).min() > 0.0


def test_each_entity_says_whether_it_converged():
    events = events_of(PLAIN, log())
    model = ac.GLMix(random=[ac.RandomEffect("user")], learn_population=False, max_steps=0).fit(events)
    assert not model.info.converged
    assert model.info.decrement > 1.0
    assert set(model.info.unsettled["user"].tolist()) <= set(range(9))
    assert len(model.info.unsettled["user"]) > 4
    assert all(len(ids) == 0 for ids in fitted(events).info.unsettled.values())


# --- pieces, warm starts, locks -----------------------------------------------------------------------------


def test_reading_piece_by_piece_changes_nothing(monkeypatch):
    events = events_of(SCHEMA, log()).cached()
    whole = fitted(events)
    monkeypatch.setattr(batches, "_PIECE_ROWS", 7)
    cut = in_pieces(events, rows=3)
    pieces = fitted(cut)
    assert set(pieces.state.effects[0].index.names) == set(whole.state.effects[0].index.names)
    assert_allclose(pieces.predict(cut), whole.predict(events), rtol=0, atol=1e-9)
    assert pieces.info.rows == whole.info.rows == 300


def test_a_warm_start_reaches_the_same_optimum_sooner():
    events, more = events_of(SCHEMA, log(rows=250)), events_of(SCHEMA, log(rows=300))
    cold = fitted(more)
    model = fitted(events)
    model.fit(more, warm_start=True)
    assert_allclose(model.predict(more), cold.predict(more), rtol=0, atol=1e-8)
    assert_allclose([w[1:] for w in sorted(model.weights())], [w[1:] for w in sorted(cold.weights())], rtol=1e-6)
    model.fit(more, warm_start=True)
    assert model.info.steps == 0 < cold.info.steps


def test_a_warm_start_learns_about_the_same_population():
    events = events_of(PLAIN, log(rows=2000, users=80))
    cold = fitted(events, learn_population=True)
    variances = population(cold).covariance().diagonal()
    cold.fit(events, warm_start=True)
    assert_allclose(population(cold).covariance().diagonal(), variances, rtol=0.1)


def test_locked_effects_stay_as_they_are_and_act_as_offsets_in_a_fit():
    first, second = log(seed=1), log(seed=2)
    model = fitted(events_of(SCHEMA, first))
    users, states = model.state.effects[1], model.states("user")
    model.fit(events_of(SCHEMA, second), locked=["user"])
    after = model.state.effects[1]
    assert all(getattr(after, f.name) is getattr(users, f.name) for f in dataclasses.fields(users))
    assert_same_states(model.states("user"), states)

    # The same with the locked effect's margin written into the offset.
    data = dict(second)
    rows = [model.entity_posterior("user", u)[1].mean for u in second["user_id"].tolist()]
    assert users.index.names == ("(intercept)", "x")
    data["o"] = second["o"] + [m[0] + m[1] * x for m, x in zip(rows, second["x"], strict=True)]
    other = ac.GLMix(
        fixed=ac.FixedEffect(["x", "genre"], ridge=2.0),
        random=[ac.RandomEffect("video", ["genre"])],
        learn_population=False,
        tolerance=1e-9,
    ).fit(events_of(SCHEMA, data))
    assert {name for name, *_ in model.weights()} == {name for name, *_ in other.weights()}
    assert_allclose(
        [w[1:] for w in sorted(model.weights())], [w[1:] for w in sorted(other.weights())], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("locked", ["fixed", "video"])
def test_a_locked_effect_gets_no_new_features_in_a_fit(locked):
    """``genre`` is a feature of both."""
    model = fitted(events_of(SCHEMA, log(seed=1)))
    place = {"fixed": 0, "video": 2}[locked]
    before = model.state.effects
    model.fit(events_of(SCHEMA, {**log(seed=2), "genre": np.resize(["opera", "news"], 300)}), locked=[locked])
    after = model.state.effects
    assert after[place].index is before[place].index
    assert after[2 - place].index.names == (*before[2 - place].index.names, "genre=opera")
    assert model.states("video").posterior.mean.shape[1] == len(after[2].index)
    assert model.state.fixed_states.posterior.mean.shape[1] == len(after[0].index)


def test_a_locked_fixed_effect_is_not_learned():
    model = fitted(events_of(SCHEMA, log(seed=1)))
    fixed = model.weights()
    model.fit(events_of(SCHEMA, log(seed=2)), locked=["fixed"])
    assert model.weights() == fixed


def test_a_lock_or_a_warm_start_needs_a_fit_before():
    events = events_of(PLAIN, log(rows=20))
    for wish in ({"warm_start": True}, {"locked": ["user"]}):
        with pytest.raises(NotFittedError):
            fitted(events, **wish)


def test_nothing_changes_where_nothing_is_left_to_learn():
    """The fixed effect is locked, and no user has rows enough: what they say waits."""
    model = ac.GLMix(fixed=ac.FixedEffect("x"), random=[ac.RandomEffect("user", min_rows=50)])
    events = events_of(PLAIN, log(users=2))
    model.fit(events)
    data = log(rows=20, users=20)
    p, few = model.predict(events), events_of(PLAIN, data | {"user_id": data["user_id"] + 100})
    population = model.predict(few)
    model.update(few, locked=["fixed"])
    assert_array_equal(model.predict(events), p)
    assert_array_equal(model.predict(few), population)
    assert model.info.converged
    assert model.info.rows == 20


# --- the population -----------------------------------------------------------------------------------------


def simulated(sd: float, slope: float, slope_sd: float, *, users: int = 500, rows: int = 40) -> ac.Events:
    """Each user's own level ``N(0, sd^2)`` and taste for ``x`` ``N(slope, slope_sd^2)``."""
    rng = np.random.default_rng(4)
    level, taste = sd * rng.standard_normal(users), slope + slope_sd * rng.standard_normal(users)
    user, x = np.repeat(np.arange(users), rows), rng.normal(2.0, 1.0, users * rows)
    label = (rng.random(users * rows) < expit(0.3 + level[user] + taste[user] * (x - 2.0))).astype(int)
    data = {"time": START + HOUR + np.arange(users * rows), "user_id": user, "x": x - 2.0, "click": label}
    return events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize(("sd", "slope", "slope_sd"), [(0.8, 1.0, 0.5), (0.4, -0.5, 1.0)])
def test_the_population_of_entities_is_recovered(precision, sd, slope, slope_sd):
    model = ac.GLMix(random=[ac.RandomEffect("user", "x", precision=precision)])
    model.fit(simulated(sd, slope, slope_sd))
    base = population(model)
    assert base.is_full == (precision == "full")
    # Laplace's approximation shrinks variances a little at 40 rows an entity.
    assert_allclose(base.standard_deviation(), [sd, slope_sd], rtol=0.12)
    assert abs(base.mean[0]) < 1e-15  # the fixed effect has an intercept too, and carries the mean of both
    assert_allclose(base.mean[1], slope, atol=0.1)
    assert_allclose(model.weights()[0][1], 0.3, atol=0.15)
    assert 1 < model.info.rounds <= 8


def test_the_mean_is_learned_only_where_the_fixed_effect_has_none():
    events = simulated(0.8, 1.0, 0.5, users=200)
    shared = ac.GLMix(fixed=ac.FixedEffect("x"), random=[ac.RandomEffect("user", "x")]).fit(events)
    assert_array_equal(population(shared).mean, [0.0, 0.0])
    assert_allclose({name: mean for name, mean, _ in shared.weights()}["x"], 1.0, atol=0.15)


def test_a_new_entity_starts_at_the_population():
    events = simulated(0.8, 1.0, 0.5, users=200)
    model = ac.GLMix(random=[ac.RandomEffect("user", "x")]).fit(events)
    names, posterior, rows = model.entity_posterior("user", 10_000)
    assert names == ("(intercept)", "x")
    assert rows == 0
    assert_array_equal(posterior.mean, population(model).mean)
    assert_array_equal(posterior.precision, population(model).precision)
    stranger = {"user_id": [10_000, 10_000], "x": [0.0, 1.0], "click": [0, 0]}
    p = model.predict(events_of(events.schema, stranger))
    assert_allclose(logit(p), model.weights()[0][1] + posterior.mean @ [[1, 1], [0, 1]], rtol=1e-12)


def test_without_learning_the_population_stays_at_the_ridge():
    model = ac.GLMix(random=[ac.RandomEffect("user", ridge=3.0)], learn_population=False)
    model.fit(simulated(0.8, 1.0, 0.5, users=50))
    assert_array_equal(population(model).precision, [[3.0]])
    assert model.info.rounds == 0


def test_a_population_is_learned_from_representatives_where_entities_are_many(monkeypatch):
    """200 of 500, chosen by lot; the sampling error of a deviation of theirs is about a twentieth."""
    events, learned = simulated(0.8, 1.0, 0.5), []
    model = ac.GLMix(random=[ac.RandomEffect("user", "x")]).fit(events)
    everyone, p = population(model), model.predict(events)
    monkeypatch.setattr(populations, "_POPULATION_CELLS", 800)
    monkeypatch.setattr(populations, "_REPRESENTATIVES", 10)
    monkeypatch.setattr(populations, "learn_population", recorded(populations.learn_population, learned))
    some = population(model.fit(events))
    assert {linear.shape for (linear, *_), *_ in learned} == {(200, 2)}
    assert len(model.states("user")) == 500
    assert_allclose(some.standard_deviation(), everyone.standard_deviation(), rtol=0.15)
    assert_allclose(some.mean, everyone.mean, atol=0.1)
    assert 0.0 < np.abs(model.predict(events) - p).max() < 0.06


def recorded(function: Any, calls: list[Any]) -> Any:
    """The same function, whose arguments and results are kept."""

    def recording(*values: Any, **named: Any) -> Any:
        result = function(*values, **named)
        calls.append((values, named, result))
        return result

    return recording


def test_representatives_are_of_all_entities(monkeypatch):
    """Those that come first are all alike, and those that come later are not."""
    rng = np.random.default_rng(7)
    users, rows = 400, 30
    level = np.where(np.arange(users) < users // 2, 0.1, 1.5) * rng.standard_normal(users)
    user = np.repeat(np.arange(users), rows)
    label = (rng.random(users * rows) < expit(level[user])).astype(int)
    data = {"time": START + HOUR + np.arange(users * rows), "user_id": user, "click": label}
    events = events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)
    model = ac.GLMix(random=["user"])
    everyone = population(model.fit(events)).standard_deviation()
    monkeypatch.setattr(populations, "_POPULATION_CELLS", 80)
    monkeypatch.setattr(populations, "_REPRESENTATIVES", 80)
    assert_allclose(population(model.fit(events)).standard_deviation(), everyone, rtol=0.2)


@pytest.mark.parametrize(
    ("count", "width", "precision", "most"),
    [
        (101, 2, "full", 10),  # 40 cells of matrices
        (101, 2, "diagonal", 20),  # 40 cells of diagonals
        (101, 20, "full", 6),  # never fewer
        (11, 2, "full", 10),
        (10, 2, "full", None),
        (6, 20, "full", None),
    ],
)
def test_how_many_entities_represent_all(monkeypatch, count, width, precision, most):
    monkeypatch.setattr(populations, "_POPULATION_CELLS", 40)
    monkeypatch.setattr(populations, "_REPRESENTATIVES", 6)
    parts: list[Any] = []
    monkeypatch.setattr(populations, "_representatives", recorded(populations._representatives, parts))
    rows = 4 * count
    data = {**log(rows=rows), "user_id": np.arange(rows) % count, "word": np.arange(rows) % (width - 1)}
    ac.GLMix(random=[ac.RandomEffect("user", ["word"], precision=precision)]).fit(events_of(PLAIN, data))
    places = parts[0][-1]
    assert places is None if most is None else (len(places), len(set(places.tolist()))) == (most, most)


def test_representatives_go_by_neither_names_nor_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(populations, "_POPULATION_CELLS", 200)
    monkeypatch.setattr(populations, "_REPRESENTATIVES", 10)
    rng = np.random.default_rng(3)
    data = {**log(rows=900, users=120), "time": START + HOUR * np.arange(900)}
    name, order = rng.permutation(120), rng.permutation(900)
    renamed = {**data, "user_id": name[data["user_id"]]}
    shuffled = {column: values[order] for column, values in data.items()}
    one, other, another = (
        population(ac.GLMix(random=[ac.RandomEffect("user", "x")], tolerance=1e-9).fit(events_of(PLAIN, log_)))
        for log_ in (data, renamed, shuffled)
    )
    assert_allclose(other.precision, one.precision, rtol=1e-6)
    assert_allclose(another.precision, one.precision, rtol=1e-6)


def test_wide_populations_are_learned_from_all_of_some_thousand_entities(monkeypatch):
    """A diagonal of 60 coefficients of 300 entities is far from the bound: the lot is not drawn."""
    places: list[Any] = []
    monkeypatch.setattr(populations, "_representatives", recorded(populations._representatives, places))
    data = {**log(rows=3000, users=300), "word": np.arange(3000) % 59}
    ac.GLMix(random=[ac.RandomEffect("user", ["word"])]).fit(events_of(PLAIN, data))
    assert {result for *_, result in places} == {None}


def test_representatives_are_the_same_in_any_order_of_rows(monkeypatch):
    monkeypatch.setattr(populations, "_POPULATION_CELLS", 12)
    data = {**log(rows=400, users=30), "time": np.full(400, START)}
    order = np.random.default_rng(0).permutation(400)
    models = [
        ac.GLMix(random=["user", "video"], tolerance=1e-9).fit(events_of(SCHEMA, rows))
        for rows in (data, {name: values[order] for name, values in data.items()})
    ]
    for effect in (1, 2):
        one, other = (population(model, effect) for model in models)
        assert_allclose(one.precision, other.precision, rtol=1e-9)
    assert models[0].info.rounds == models[1].info.rounds > 1
    events = events_of(SCHEMA, data)
    assert_allclose(models[0].predict(events), models[1].predict(events), rtol=0, atol=1e-9)


# --- how it went --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("random", [["user"], ["user", "video"]], ids=len)
def test_steps_and_products_are_those_of_all_rounds(monkeypatch, random):
    solved: list[Any] = []
    monkeypatch.setattr(mixed, "solve_joint", recorded(mixed.solve_joint, solved))
    events = events_of(SCHEMA, log(rows=600, users=30))
    info = ac.GLMix(fixed=["x"], random=random, tolerance=1e-9).fit(events).info
    solutions = [solution for *_, solution in solved]
    assert info.rounds == len(solutions) - 1 > 1
    assert all(solution.steps > 0 and solution.products > 0 for solution in (solutions[0], solutions[-1]))
    assert info.steps == sum(solution.steps for solution in solutions)
    assert info.products == sum(solution.products for solution in solutions)
    assert info.decrement == solutions[-1].decrement
    # Each round begins where the one before it ended.
    assert [named["start"] is not None for _, named, _ in solved] == [False, *[True] * info.rounds]
    assert solved[1][1]["curvature"] is solutions[0].curvature
    assert info.rows == 600


def test_steps_of_a_solution_entity_by_entity_count_too(monkeypatch):
    """With the fixed effect locked and no population to learn, each user is a problem of its own."""
    model = ac.GLMix(random=["user"], tolerance=1e-9, learn_population=False)
    model.fit(events_of(SCHEMA, log(rows=600, users=30)))
    jointly: list[Any] = []
    separately: list[Any] = []
    monkeypatch.setattr(mixed, "solve_joint", recorded(mixed.solve_joint, jointly))
    monkeypatch.setattr(mixed, "solve_separately", recorded(mixed.solve_separately, separately))
    info = model.fit(events_of(SCHEMA, log(rows=600, users=30, seed=1)), locked=["fixed"]).info
    ((*_, last),) = separately
    assert jointly == []
    assert info.steps == last.steps > 0
    assert info.products == 0


def test_a_warm_start_of_one_block_begins_where_it_was():
    events = events_of(SCHEMA, log(rows=600, users=30))
    model = ac.GLMix(random=["user"], tolerance=1e-9, learn_population=False).fit(events)
    cold = model.fit(events, locked=["fixed"]).info.steps
    assert model.fit(events, locked=["fixed"], warm_start=True).info.steps == 0 < cold


# --- bounds on the rows of an entity ------------------------------------------------------------------------


def test_entities_of_few_rows_are_left_to_the_population():
    data = {**log(rows=60), "user_id": [0] * 50 + [1] * 10}
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=11)]).fit(events_of(PLAIN, data))
    assert model.entity_posterior("user", 0)[2] == 50
    assert model.entity_posterior("user", 1)[2] == 0
    # What waits takes the memory of any state.
    assert model.nbytes == ac.GLMix(random=[ac.RandomEffect("user")]).fit(events_of(PLAIN, data)).nbytes
    # They still take part in the fixed effect.
    assert model.info.rows == 60
    # Their rows are counted over time: with one more they are enough.
    model.update(events_of(PLAIN, {**log(rows=1), "user_id": [1]}))
    assert model.entity_posterior("user", 1)[2] == 11
    assert model.entity_posterior("user", 1)[1].precision > model.entity_posterior("user", 2)[1].precision


@pytest.mark.parametrize(("rows", "learned"), [(9, 0), (10, 10), (11, 11)])
def test_min_rows_are_enough(rows, learned):
    data = {**log(rows=40), "user_id": np.repeat([0, 1], [40 - rows, rows])}
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=10)], learn_population=False)
    model.fit(events_of(PLAIN, data))
    _, posterior, count = model.entity_posterior("user", 1)
    assert count == learned
    assert (posterior.precision[0, 0] > population(model).precision[0, 0]) == (learned > 0)
    assert model.states("user").ids.tolist() == ([0, 1] if learned else [0])
    assert set(model.info.unsettled) == {"fixed", "user"}


def test_entities_of_few_rows_are_at_the_population_that_is_learned_while_others_learn():
    """At the optimum the slope in the fixed intercept is nothing, for the very probabilities of predictions."""
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(300), np.repeat([3, 40], [100, 200]))
    x = rng.normal(2.0, 1.0, len(user))
    taste = 1.0 + 0.5 * rng.standard_normal(300)
    label = (rng.random(len(user)) < expit(-1.0 + taste[user] * x)).astype(int)
    data = {"time": START + np.arange(len(user)), "user_id": user, "x": x, "click": label}
    events = events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)
    model = ac.GLMix(random=[ac.RandomEffect("user", "x", min_rows=10)], tolerance=1e-9).fit(events)
    assert len(model.states("user")) == 200
    assert population(model).mean[1] > 0.5
    ridge, (_, intercept, _) = population(model, 0), model.weights()[0]
    slope = (label - model.predict(events)).sum() - ridge.precision[0, 0] * (intercept - ridge.mean[0])
    assert_allclose(slope, 0.0, atol=1e-6)


def test_only_entities_that_learn_are_told_as_not_converged():
    """The one of few rows comes first."""
    data = {**log(rows=60), "user_id": np.repeat([0, 1, 2], [3, 30, 27])}
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=5)], learn_population=False, max_steps=0)
    model.fit(events_of(PLAIN, data))
    assert set(model.info.unsettled["user"].tolist()) <= {1, 2}
    assert len(model.info.unsettled["user"]) > 0
    model.update(events_of(PLAIN, data), locked=["fixed"])
    assert set(model.info.unsettled["user"].tolist()) <= {1, 2}
    assert len(model.info.unsettled["user"]) > 0


def test_a_fit_forgets_the_entities_of_before():
    model = fitted(events_of(PLAIN, log()))
    model.fit(events_of(PLAIN, {**log(rows=50), "user_id": np.arange(50) // 10 + 100}), locked=["video"])
    assert model.states("user").ids.tolist() == [100, 101, 102, 103, 104]
    assert len(model.states("video")) == 6


def read(data: dict[str, Any]) -> Batch:
    parameters = ac.GLMix(fixed=["x", "genre"], random={"user": ["x"]}).parameters
    return next(read_batches(events_of(SCHEMA, data), new_effects(parameters, SCHEMA), Settled(), label="click"))


def test_a_sample_of_rows_stands_for_all_of_an_entitys():
    data = {**log(rows=300, users=5), "w": np.full(300, 1.0)}
    batch = read(data)
    user = batch.seen[1].codes
    active = sampled(batch, user, 20)
    for one in range(5):
        have, kept = np.sum(user == one), np.sum(active[user == one] > 0)
        assert kept == min(have, 20)
        assert_allclose(active[user == one].sum(), have, rtol=1e-12)
    assert_allclose(data["click"].mean(), np.average(batch.label, weights=active), atol=0.1)


def test_rows_of_a_sample_count_alike():
    batch = read({**log(rows=300, users=5), "o": np.zeros(300)})
    user = batch.seen[1].codes
    active, have = sampled(batch, user, 20), np.bincount(user)
    assert have.min() > 20
    assert_allclose(active[active > 0], (have[user] / 20)[active > 0], rtol=1e-12)


def test_a_sample_of_rows_is_the_same_in_any_order():
    """Many rows at one instant, so that reading them puts them in the order in which they come."""
    data = {**log(), "time": np.full(300, START), "user_id": np.zeros(300, int), "video_id": np.zeros(300, int)}
    shuffled = np.random.default_rng(3).permutation(300)
    chosen = []
    for order in (np.arange(300), shuffled):
        batch = read({name: np.asarray(values)[order] for name, values in data.items()})
        rows = np.flatnonzero(sampled(batch, np.zeros(300, np.int64), 40))
        chosen.append(sorted(order[rows].tolist()))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 40


def test_rows_that_differ_in_the_label_alone_are_sampled_without_favour():
    """As where times are dates: neither the first ones nor those of one label are preferred, in whatever order."""
    same = {name: np.full(400, values[0]) for name, values in log().items()} | {"time": np.full(400, START)}
    drawn = set()
    for label in (np.repeat([0, 1], 200), np.repeat([1, 0], 200), np.resize([0, 1], 400)):
        batch = read({**same, "click": label})
        drawn.add(int(batch.label[sampled(batch, np.zeros(400, np.int64), 100) > 0].sum()))
    (positive,) = drawn
    assert 35 <= positive <= 65


def test_an_entity_of_very_many_rows_learns_from_a_sample():
    data = {**log(rows=600), "user_id": [0] * 500 + [1] * 100}
    events = events_of(PLAIN, data)
    capped = ac.GLMix(random=[ac.RandomEffect("user", "x", max_rows=150)], learn_population=False).fit(events)
    whole = ac.GLMix(random=[ac.RandomEffect("user", "x")], learn_population=False).fit(events)
    assert capped.info.rows == 600  # the fixed effect learns from all of them
    assert capped.fit(events, locked=["fixed"]).info.rows == 250  # the others are nobody's
    assert capped.entity_posterior("user", 0)[2] == 500  # all of them are counted
    assert 0.0 < np.abs(capped.predict(events) - whole.predict(events)).mean() < 0.05
    ratio = capped.entity_posterior("user", 0)[1].precision / whole.entity_posterior("user", 0)[1].precision
    assert_allclose(ratio, 1.0, atol=0.15)  # as sure as of all its rows


# --- precisions ---------------------------------------------------------------------------------------------


def crossed(rho: float) -> ac.Events:
    """Two columns of mean 0 and a label that neither explains, so that every row's curvature is 1/4."""
    ones = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]).repeat([9, 1, 1, 9] if rho else 5, axis=0)
    X = np.tile(ones, (2, 1)).astype(float)
    data = {"user_id": np.zeros(40, int), "a": X[:, 0], "b": X[:, 1], "click": np.repeat([0, 1], 20)}
    return events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)


def test_all_forms_of_precision_agree_on_orthogonal_columns():
    sd = [
        [s for *_, s in ac.GLMix(fixed=ac.FixedEffect(["a", "b"], precision=form)).fit(crossed(0.0)).weights()]
        for form in ("full", "diagonal", "marginal")
    ]
    assert_allclose(sd, np.full((3, 3), 1.0 / np.sqrt(40 / 4 + 1.0)), rtol=1e-9)


def test_diagonal_and_marginal_differ_on_correlated_columns():
    H = np.array([[10.0, 8.0], [8.0, 10.0]]) + np.eye(2)  # correlation .8, curvature 1/4 of 40 rows, ridge 1
    sd = {
        form: [
            s for *_, s in ac.GLMix(fixed=ac.FixedEffect(["a", "b"], precision=form)).fit(crossed(0.8)).weights()
        ]
        for form in ("full", "diagonal", "marginal")
    }
    assert_allclose(sd["full"][1:], np.sqrt(np.diag(np.linalg.inv(H))), rtol=1e-9)
    assert_allclose(sd["marginal"], sd["full"], rtol=1e-9)
    assert_allclose(sd["diagonal"][1:], 1.0 / np.sqrt(np.diag(H)), rtol=1e-9)


@pytest.mark.parametrize("form", ["diagonal", "marginal"])
def test_a_diagonal_prior_keeps_the_marginal_variances_of_the_full_one(form):
    """The raw intercept varies with every centred column."""

    def prior(precision: str) -> ac.Posterior:
        effect = ac.FixedEffect(["x", "genre"], ridge=2.0, precision=precision)
        return population(ac.GLMix(fixed=effect).fit(events_of(PLAIN, log())), 0)

    assert not prior(form).is_full
    assert_allclose(prior(form).standard_deviation(), prior("full").standard_deviation(), rtol=1e-9)


@pytest.mark.parametrize(
    ("precision", "columns", "full"),
    [("full", 40, True), ("auto", 31, True), ("auto", 32, False), ("diagonal", 5, False), ("marginal", 5, False)],
)
def test_the_form_of_an_entitys_precision(precision, columns, full):
    data = {**log(), "genre": [f"g{i % columns}" for i in range(300)]}
    model = ac.GLMix(random=[ac.RandomEffect("user", "genre", precision=precision)], learn_population=False)
    model.fit(events_of(PLAIN, data))
    d = columns + 1
    posterior = model.entity_posterior("user", 3)[1]
    assert posterior.mean.shape == (d,)
    assert posterior.precision.shape == ((d, d) if full else (d,))
    floats = d + (d * (d + 1) // 2 if full else d)
    assert model.entities.nbytes == 9 * 8 * (floats + 3)  # 9 users, each with id, time and rows
    assert model.nbytes == model.entities.nbytes + 3 * 8  # and the fixed intercept: mean, two precisions


# --- what is not allowed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ac.GLMix(label="clik"), "did you mean 'click'"),
        (lambda: ac.GLMix(random=[ac.RandomEffect("usr")]), "did you mean 'user'"),
    ],
)
def test_names_that_the_schema_lacks(make, message):
    with pytest.raises(ConfigError, match=message):
        make().fit(events_of(PLAIN, log(rows=20)))


def test_two_effects_of_one_entity_are_one():
    with pytest.raises(ConfigError, match="put their features together"):
        ac.GLMix(random=[ac.RandomEffect("user"), ac.RandomEffect("user", "x")])


def test_locks_of_no_effect_or_of_all():
    model = fitted(events_of(PLAIN, log()))
    with pytest.raises(ConfigError, match="did you mean 'video'"):
        model.update(events_of(PLAIN, log()), locked=["vidio"])
    with pytest.raises(ConfigError, match="every effect is locked"):
        model.update(events_of(PLAIN, log()), locked=["fixed", "user", "video"])


def test_events_without_a_known_label():
    with pytest.raises(DataError, match="no event has a known label 'click'"):
        ac.GLMix().fit(events_of(PLAIN, {**log(rows=5), "click": [None] * 5}))
