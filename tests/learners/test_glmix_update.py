"""Updating a GLMix: the sequential step, forgetting by batch and by time, what grows and what is left alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import DAY, HOUR, START, assert_same_states, events_of
from scipy import optimize
from scipy.special import expit, logit

import acclimate as ac
from acclimate.errors import ConfigError, MismatchError, NotFittedError

SCHEMA = ac.Schema(time="time", entities={"user": "user_id"}, labels="click")
WEIGHTED = dataclasses.replace(SCHEMA, weight="w", offset="o")


def log(*, rows: int = 200, seed: int = 0, users: int = 6, start: int = START) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user, x = rng.integers(0, users, rows), rng.normal(3.0, 1.5, rows)
    z = 0.4 + np.sin(user) + 0.5 * (x - 3.0) * np.cos(user)
    return {
        "time": start + HOUR * np.arange(rows),
        "user_id": user,
        "x": x,
        "genre": np.array(["drama", "news"])[rng.integers(0, 2, rows)],
        "click": (rng.random(rows) < expit(z)).astype(int),
        "w": rng.uniform(0.5, 2.0, rows),
        "o": rng.normal(0.0, 0.5, rows),
    }


def taken(data: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: np.asarray(values)[rows] for name, values in data.items()}


def mixed(**user: Any) -> ac.GLMix:
    effect = ac.RandomEffect("user", ["x", "genre"], **user)
    return ac.GLMix(fixed=ac.FixedEffect(["x", "genre"]), random=[effect], learn_population=False, tolerance=1e-9)


def of_user(model: ac.GLMix, user: int) -> ac.Posterior:
    return model.entity_posterior("user", user)[1]


def fixed(model: ac.GLMix) -> ac.Posterior:
    assert model.state is not None
    return model.state.fixed_states.posterior.at(0)


def base(model: ac.GLMix, effect: int) -> ac.Posterior:
    assert model.state is not None
    return model.state.effects[effect].population


# --- the step -----------------------------------------------------------------------------------------------


def step(
    posterior: ac.Posterior, base: ac.Posterior, d: float, X: np.ndarray, y: np.ndarray, o: Any = 0.0, s: Any = 1.0
) -> ac.Posterior:
    """The sequential update of design.md, written out: full precision, scipy for the minimum."""
    H, B = posterior.precision, base.precision
    P0 = d * H + (1.0 - d) * B
    m0 = np.linalg.solve(P0, d * H @ posterior.mean + (1.0 - d) * B @ base.mean)
    s = np.broadcast_to(s, y.shape)

    def gradient(w: np.ndarray) -> np.ndarray:
        return X.T @ (s * (expit(X @ w + o) - y)) + P0 @ (w - m0)

    def hessian(w: np.ndarray) -> np.ndarray:
        p = expit(X @ w + o)
        return P0 + (X.T * (s * p * (1.0 - p))) @ X

    w = optimize.root(gradient, m0, jac=hessian, tol=1e-13).x
    assert np.abs(gradient(w)).max() < 1e-8
    return ac.Posterior(w, hessian(w))


def assert_same(actual: ac.Posterior, expected: ac.Posterior) -> None:
    """Means to 1e-8 posterior standard deviations."""
    sd = expected.standard_deviation()
    assert_allclose((actual.mean - expected.mean) / sd, np.zeros_like(sd), rtol=0, atol=1e-8)
    assert_allclose(actual.precision, expected.precision, rtol=1e-8, atol=1e-8 * np.abs(expected.precision).max())


def design(data: dict[str, Any], names: tuple[str, ...]) -> np.ndarray:
    columns = {"(intercept)": np.ones(len(data["x"])), "x": data["x"]}
    columns |= {f"genre={g}": (np.asarray(data["genre"]) == g).astype(float) for g in ("drama", "news")}
    return np.column_stack([columns[name] for name in names])


@pytest.mark.parametrize("forgetting", [1.0, 0.9, 0.5])
def test_a_fixed_effect_alone_follows_the_formula(forgetting):
    effect = ac.FixedEffect(["x", "genre"], forgetting=forgetting)
    model = ac.GLMix(fixed=effect, tolerance=1e-10).fit(events_of(WEIGHTED, log()))
    names = model.state.effects[0].index.names
    for seed in (1, 2):
        data = log(seed=seed, rows=50)
        X = design(data, names)
        expected = step(fixed(model), base(model, 0), forgetting, X, data["click"], data["o"], data["w"])
        model.update(events_of(WEIGHTED, data))
        assert_same(fixed(model), expected)


@pytest.mark.parametrize("forgetting", [1.0, 0.9, 0.5])
def test_random_effects_alone_follow_the_formula(forgetting):
    """With the fixed effect locked, entities are problems of their own."""
    model = mixed(forgetting=forgetting).fit(events_of(WEIGHTED, log()))
    names, before = model.state.effects[1].index.names, fixed(model)
    data = log(seed=1, rows=90)
    z = data["o"] + design(data, model.state.effects[0].index.names) @ before.mean
    expected = {}
    for user in range(6):
        rows = data["user_id"] == user
        X, y, s = design(data, names)[rows], data["click"][rows], data["w"][rows]
        expected[user] = step(of_user(model, user), base(model, 1), forgetting, X, y, z[rows], s)
    model.update(events_of(WEIGHTED, data), locked=["fixed"])
    for user in range(6):
        assert_same(of_user(model, user), expected[user])
    assert_array_equal(fixed(model).mean, before.mean)
    assert_array_equal(fixed(model).precision, before.precision)


def test_a_locked_random_effect_stays_bit_for_bit_and_is_an_offset():
    model = mixed().fit(events_of(WEIGHTED, log()))
    users, states, data = model.state.effects[1], model.states("user"), log(seed=1, rows=60)
    rows = design(data, users.index.names)
    means = np.array([of_user(model, u).mean for u in data["user_id"].tolist()])
    X, o = design(data, model.state.effects[0].index.names), data["o"] + np.vecdot(rows, means)
    expected = step(fixed(model), base(model, 0), 1.0, X, data["click"], o, data["w"])
    model.update(events_of(WEIGHTED, data), locked=["user"])
    assert_same(fixed(model), expected)
    assert model.state.effects[1].index == users.index
    assert_same_states(model.states("user"), states)


def test_a_locked_effect_gets_no_new_features_or_entities():
    model = mixed().fit(events_of(SCHEMA, log()))
    users, ids = model.state.effects[1], model.states("user").ids
    data = {**log(seed=1, rows=60), "genre": ["opera"] * 60, "user_id": np.arange(60) // 20 * 50}
    model.update(events_of(SCHEMA, data), locked=["user"])
    assert model.state.effects[1].index == users.index
    assert_array_equal(model.states("user").ids, ids)
    assert model.state.effects[0].index.names[-1] == "genre=opera"


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_and_entities_in_a_batch_does_not_matter(seed):
    """All rows are of one instant and, for half of the entities, renamed: they come in another order."""
    rng = np.random.default_rng(seed)
    data = {**log(rows=80), "time": np.full(80, START)}
    first, second = taken(data, slice(0, 50)), taken(data, slice(50, 80))
    name = rng.permutation(100)
    plain, other = mixed(), mixed()
    for verb, batch in (("fit", first), ("update", second)):
        order = rng.permutation(len(batch["x"]))
        getattr(plain, verb)(events_of(SCHEMA, batch))
        getattr(other, verb)(events_of(SCHEMA, taken({**batch, "user_id": name[batch["user_id"]]}, order)))
    assert {n: m for n, m, _ in plain.weights()} == pytest.approx({n: m for n, m, _ in other.weights()}, abs=1e-8)
    for user in range(6):
        names, expected, rows = plain.entity_posterior("user", user)
        renamed, posterior, as_many = other.entity_posterior("user", int(name[user]))
        order = [renamed.index(n) for n in names]
        assert rows == as_many
        assert_allclose(posterior.mean[order], expected.mean, rtol=0, atol=1e-8)
        assert_allclose(posterior.precision[np.ix_(order, order)], expected.precision, rtol=0, atol=1e-7)


def test_a_batch_of_independent_entities_equals_one_entity_at_a_time():
    one, other = (mixed().fit(events_of(SCHEMA, log())) for _ in range(2))
    data = log(seed=1, rows=60)
    one.update(events_of(SCHEMA, data), locked=["fixed"])
    for user in range(6):
        other.update(events_of(SCHEMA, taken(data, data["user_id"] == user)), locked=["fixed"])
    for user in range(6):
        assert_same(other.entity_posterior("user", user)[1], of_user(one, user))


# --- forgetting ---------------------------------------------------------------------------------------------


def test_what_is_forgotten_returns_to_the_population():
    """Rows of no weight teach nothing; what is left is the forgetting, batch by batch."""
    model = mixed(forgetting=0.5).fit(events_of(WEIGHTED, log()))
    before, population = of_user(model, 0), base(model, 1)
    silent = events_of(WEIGHTED, {**log(rows=20), "user_id": np.zeros(20, int), "w": np.zeros(20)})
    expected = before.precision
    for _ in range(3):
        model.update(silent)
        expected = 0.5 * expected + 0.5 * population.precision
    assert_allclose(of_user(model, 0).precision, expected, rtol=1e-9)
    for _ in range(40):
        model.update(silent)
    assert_allclose(of_user(model, 0).precision, population.precision, rtol=1e-6, atol=1e-6)
    assert_allclose(of_user(model, 0).mean, population.mean, atol=1e-6)


def test_what_is_forgotten_returns_to_the_population_as_it_was_learned():
    model = ac.GLMix(random=[ac.RandomEffect("user", "x", forgetting=0.25)], tolerance=1e-9)
    model.fit(events_of(WEIGHTED, log(rows=600)))
    began = model.state.effects[1].ridge
    assert np.abs(base(model, 1).precision / began.precision - 1.0).max() > 0.2
    assert np.any(base(model, 1).mean != began.mean)
    model.parameters = dataclasses.replace(model.parameters, learn_population=False)
    before, data = of_user(model, 0), at(0, [100.0, 101.0])
    rows = design(data, ("(intercept)", "x"))
    o = data["o"] + fixed(model).mean[0]
    expected = step(before, base(model, 1), 0.25, rows, data["click"], o, data["w"])
    assert_same(of_user(model.update(events_of(WEIGHTED, data), locked=["fixed"]), 0), expected)


def test_nothing_is_forgotten_without_asking():
    model = mixed().fit(events_of(WEIGHTED, log()))
    before = of_user(model, 0)
    model.update(events_of(WEIGHTED, {**log(rows=20), "user_id": np.zeros(20, int), "w": np.zeros(20)}))
    assert_same(of_user(model, 0), before)


def at(user: int, days: list[float], **columns: Any) -> dict[str, Any]:
    rows = len(days)
    data = taken(log(rows=rows, seed=5), slice(None))
    return (
        data | {"time": START + (DAY * np.array(days)).astype(np.int64), "user_id": np.full(rows, user)} | columns
    )


@pytest.mark.parametrize(("days", "kept"), [([20.0], 2 ** -(10 / 7)), ([11.0, 24.0], 0.25), ([10.0], 1.0)])
def test_the_past_halves_in_a_half_life(days, kept):
    """Elapsed time is to the last event of the batch, per entity: from the last one learned, and from each row."""
    model = mixed(half_life="7d").fit(events_of(WEIGHTED, at(0, [0, 1, 2, 3, 5, 10])))
    data = at(0, days)
    rows = design(data, model.state.effects[1].index.names)
    o = data["o"] + design(data, model.state.effects[0].index.names) @ fixed(model).mean
    s = data["w"] * 2.0 ** -((max(days) - np.array(days)) / 7.0)
    expected = step(of_user(model, 0), base(model, 1), kept, rows, data["click"], o, s)
    model.update(events_of(WEIGHTED, data), locked=["fixed"])
    assert_same(of_user(model, 0), expected)
    assert model.states("user").touched.tolist() == [START + round(max(days)) * DAY]


def test_each_entity_forgets_for_as_long_as_it_was_away():
    """One of too few rows comes first, so that places among all entities and among those that learn differ."""
    model = mixed(half_life="7d", min_rows=2).fit(events_of(WEIGHTED, at(1, [0, 1, 2]) | {"user_id": [1, 1, 1]}))
    model.update(events_of(WEIGHTED, at(2, [3, 4, 5])))
    data = at(0, [8.0, 9.0, 10.0, 15.0, 16.0, 19.0]) | {"user_id": np.array([0, 1, 2, 3, 1, 2])}
    expected = {}
    for user, kept in ((1, 0.25), (2, 0.25)):
        rows = data["user_id"] == user
        X = design(data, model.state.effects[1].index.names)[rows]
        z = (data["o"] + design(data, model.state.effects[0].index.names) @ fixed(model).mean)[rows]
        s = data["w"][rows] * 2.0 ** -((data["time"][rows].max() - data["time"][rows]) / (7.0 * DAY))
        expected[user] = step(of_user(model, user), base(model, 1), kept, X, data["click"][rows], z, s)
    model.update(events_of(WEIGHTED, data), locked=["fixed"])
    for user, posterior in expected.items():
        assert_same(of_user(model, user), posterior)
    assert model.states("user").ids.tolist() == [1, 2]
    assert model.states("user").touched.tolist() == [START + 16 * DAY, START + 19 * DAY]


def test_late_events_make_nothing_be_forgotten_and_do_not_turn_back_the_clock():
    model = mixed(half_life="7d").fit(events_of(WEIGHTED, at(0, [8, 9, 10])))
    data = at(0, [2.0, 4.0])
    rows = design(data, model.state.effects[1].index.names)
    o = data["o"] + design(data, model.state.effects[0].index.names) @ fixed(model).mean
    s = data["w"] * 2.0 ** (-np.array([8.0, 6.0]) / 7.0)  # as old as they are
    expected = step(of_user(model, 0), base(model, 1), 1.0, rows, data["click"], o, s)
    model.update(events_of(WEIGHTED, data), locked=["fixed"])
    assert_same(of_user(model, 0), expected)
    assert model.states("user").touched.tolist() == [START + 10 * DAY]
    assert model.cut == START + 10 * DAY
    # One late event and one new one: the time is that of the new one.
    model.update(events_of(WEIGHTED, at(0, [1.0, 17.0])))
    assert model.states("user").touched.tolist() == [START + 17 * DAY]


def test_a_fixed_effect_forgets_by_time_too():
    effect = ac.FixedEffect("x", half_life="2d")
    model = ac.GLMix(fixed=effect, tolerance=1e-10).fit(events_of(WEIGHTED, at(0, [0, 1, 2, 3])))
    data = at(1, [4.0, 7.0])
    X, s = design(data, ("(intercept)", "x")), data["w"] * 2.0 ** (-np.array([3.0, 0.0]) / 2.0)
    expected = step(fixed(model), base(model, 0), 0.25, X, data["click"], data["o"], s)
    assert_same(fixed(model.update(events_of(WEIGHTED, data))), expected)


def test_a_new_entity_has_nothing_to_forget():
    model = mixed(half_life="1h").fit(events_of(WEIGHTED, at(0, [0, 1])))
    model.update(events_of(WEIGHTED, {**at(7, [300.0, 400.0]), "w": np.zeros(2)}))
    assert_array_equal(of_user(model, 7).mean, base(model, 1).mean)
    assert_allclose(of_user(model, 7).precision, base(model, 1).precision, rtol=1e-12, atol=1e-12)


def test_an_entity_without_rows_is_untouched_bit_for_bit():
    model = mixed(half_life="1d").fit(events_of(SCHEMA, log()))
    old = model.states("user")
    data = log(seed=1, rows=50, start=START + 60 * DAY)
    data["user_id"] = np.where(data["user_id"] < 3, 1, 9)  # users 0, 2, 3, 4 and 5 stay away; 9 is new
    model.update(events_of(SCHEMA, data))
    new = model.states("user")
    ids = old.ids.tolist()
    away = [ids.index(user) for user in (0, 2, 3, 4, 5)]
    assert new.ids.tolist() == [*ids, 9]
    for name in ("touched", "rows"):
        assert_array_equal(getattr(new, name)[away], getattr(old, name)[away])
    assert_array_equal(new.posterior.mean[away], old.posterior.mean[away])
    assert_array_equal(new.posterior.precision[away], old.posterior.precision[away])
    assert np.any(new.posterior.mean[ids.index(1)] != old.posterior.mean[ids.index(1)])


def test_rows_and_times_are_counted():
    model = mixed().fit(events_of(SCHEMA, {**log(rows=10), "user_id": [0] * 4 + [1] * 6}))
    assert model.cut == START + 9 * HOUR
    data = {**log(rows=5, start=START + DAY), "user_id": [1, 1, 2, 1, 2], "click": [0, None, 1, 1, None]}
    model.update(events_of(SCHEMA, data))
    assert [model.entity_posterior("user", user)[2] for user in (0, 1, 2)] == [4, 8, 1]
    assert model.cut == START + DAY + 3 * HOUR
    assert model.info.rows == 3


@pytest.mark.parametrize(
    ("user", "rows", "learned"), [(50, 9, 0), (50, 10, 10), (50, 11, 11), (0, 1, 1), (0, 9, 9)]
)
def test_min_rows_are_enough_in_an_update(user, rows, learned):
    """They are counted over time: user 0 is known, 50 is new."""
    model = mixed(min_rows=10).fit(events_of(SCHEMA, {**log(rows=60), "user_id": np.repeat([0, 1], 30)}))
    before, counted = of_user(model, user), model.entity_posterior("user", user)[2]
    ids = model.states("user").ids.tolist()
    data = {**log(rows=40, seed=1, start=START + 60 * DAY), "user_id": np.repeat([1, user], [40 - rows, rows])}
    model.update(events_of(SCHEMA, data))
    assert model.entity_posterior("user", user)[2] == counted + learned
    after = of_user(model, user)
    assert np.any(after.mean != before.mean) == np.any(after.precision != before.precision) == (learned > 0)
    assert model.states("user").ids.tolist() == [*ids, *([50] if user == 50 and learned else [])]
    assert model.entity_posterior("user", 1)[2] == 30 + 40 - rows
    assert model.info.rows == 40


# --- features and entities come and go ----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
def test_a_new_feature_joins_at_the_prior_and_leaves_the_old_ones_alone(precision):
    model = mixed(precision=precision).fit(events_of(SCHEMA, log()))
    old, names = of_user(model, 0), model.state.effects[1].index.names
    data = {**log(rows=30, seed=1), "genre": ["opera"] * 30, "user_id": np.ones(30, int)}
    model.update(events_of(SCHEMA, data))
    grown, posterior, _ = model.entity_posterior("user", 0)  # has no rows in the batch
    assert grown == (*names, "genre=opera")
    assert_array_equal(posterior.mean, [*old.mean, 0.0])
    d = len(names)
    if precision == "full":
        assert_array_equal(posterior.precision[:d, :d], old.precision)
        assert_array_equal(posterior.precision[d], [0.0] * d + [1.0])
        assert_array_equal(posterior.precision[:, d], [0.0] * d + [1.0])
    else:
        assert_array_equal(posterior.precision, [*old.precision, 1.0])
    assert base(model, 1).mean[d] == 0.0
    assert of_user(model, 1).mean[d] != 0.0  # has, and learned
    assert_array_equal(of_user(model, 99).mean, base(model, 1).mean)


def test_a_new_number_joins_at_a_ridge_in_its_own_unit():
    """The prior of a new coefficient is 1 where the column is divided by its standard deviation."""
    model = ac.GLMix(fixed=ac.FixedEffect("tags", precision="diagonal"))
    schema = dataclasses.replace(SCHEMA, features={"tags": ac.Feature(kind="cross", of=["genre", "x"])})
    data = log(rows=200)
    model.fit(events_of(schema, data))
    model.update(events_of(schema, {**data, "genre": ["opera"] * 200, "click": [0, 1] * 100}))
    names = model.state.effects[0].index.names
    assert names[-1] == "genre=opera x x"
    assert_allclose(base(model, 0).precision[-1], np.var(data["x"]), rtol=1e-9)


def test_a_new_level_of_a_feature_that_one_effect_has():
    """The other effect keeps its columns, and the entity learns by the formula from where it was, widened."""
    user = ac.RandomEffect("user", "genre")
    model = ac.GLMix(fixed=ac.FixedEffect("x"), random=[user], learn_population=False, tolerance=1e-10)
    model.fit(events_of(WEIGHTED, log()))
    shared, known, old = model.state.fixed, model.state.fixed_states, model.state.effects[1]
    before, away = of_user(model, 0), of_user(model, 1)
    data = {**log(rows=30, seed=1), "genre": np.repeat(["opera", "news"], 15), "user_id": np.zeros(30, int)}
    model.update(events_of(WEIGHTED, data), locked=["fixed"])
    assert model.state.fixed.index is shared.index
    assert_array_equal(model.state.fixed_states.posterior.mean, known.posterior.mean)
    names = model.state.effects[1].index.names
    assert names == (*old.index.names, "genre=opera")
    widened = ac.Posterior(
        np.append(before.mean, 0.0),
        np.block([[before.precision, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]),
    )
    X = np.column_stack([design(data, old.index.names), data["genre"] == "opera"])
    z = data["o"] + design(data, shared.index.names) @ fixed(model).mean
    assert_same(of_user(model, 0), step(widened, widened, 1.0, X, data["click"], z, data["w"]))
    assert_array_equal(of_user(model, 1).mean, [*away.mean, 0.0])
    # With the fixed effect free it is the same columns that grow.
    data = {**log(rows=30, seed=2), "genre": ["jazz"] * 30}
    model.update(events_of(WEIGHTED, data))
    assert model.state.fixed.index is shared.index
    assert model.state.fixed_states.posterior.mean.shape == (1, 2)
    assert model.state.effects[1].index.names == (*names, "genre=jazz")


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
def test_a_population_that_was_learned_keeps_what_it_knows_as_features_come(precision):
    model = ac.GLMix(random=[ac.RandomEffect("user", ["x", "genre"], precision=precision)])
    model.fit(events_of(SCHEMA, log(rows=600)))
    old = model.state.effects[1]
    assert np.abs(old.population.precision - old.ridge.precision).max() > 0.1
    model.parameters = dataclasses.replace(model.parameters, learn_population=False)
    data = {**log(rows=30, seed=1), "genre": ["opera", "jazz"] * 15, "x": 100.0 * log(rows=30)["x"]}
    grown = model.update(events_of(SCHEMA, data)).state.effects[1]
    d = len(old.index)
    assert len(grown.index) == d + 2
    genres = np.array([name.startswith("genre=") for name in old.index.names])
    siblings = old.population.standard_deviation()[genres] ** 2, old.population.mean[genres]
    assert np.count_nonzero(genres) == 2
    assert np.abs(siblings[1]).max() > 0.01
    for before, after, variance, mean in (
        (old.population, grown.population, siblings[0].mean(), siblings[1].mean()),
        (old.ridge, grown.ridge, 1.0, 0.0),
    ):
        assert_allclose(after.mean, [*before.mean, mean, mean], rtol=1e-12)
        assert_array_equal(after.precision[:d, :d] if after.is_full else after.precision[:d], before.precision)
        new = after.precision[d:, d:].diagonal() if after.is_full else after.precision[d:]
        assert_allclose(new, [1.0 / variance] * 2, rtol=1e-12)


def test_entities_are_as_wide_as_they_were_when_they_last_learned():
    model = mixed().fit(events_of(SCHEMA, log()))
    for number, genre in enumerate(("opera", "jazz", "folk")):
        data = {**log(rows=20, seed=number), "genre": [genre] * 20, "user_id": np.full(20, number)}
        model.update(events_of(SCHEMA, data))
    changed = [(len(ids), columns) for ids, columns in model.entities.changed("user")]
    widths = {name: count for count, columns in changed for name in columns if "." in name}
    assert widths == {"4.full": 3, "5.full": 1, "6.full": 1, "7.full": 1}
    assert model.states("user").posterior.precision.shape == (6, 7, 7)
    assert model.entities.nbytes == 8 * (3 * (4 + 10) + (5 + 15) + (6 + 21) + (7 + 28)) + 6 * 24
    data = {**log(rows=60, seed=9), "user_id": np.arange(60) % 6}
    model.update(events_of(SCHEMA, data))
    ((_, columns),) = model.entities.changed("user")
    assert [name for name in columns if "." in name] == ["7.full"]


def test_a_feature_that_vanishes_is_kept():
    model = ac.GLMix(fixed=ac.FixedEffect("genre", precision="diagonal")).fit(events_of(SCHEMA, log()))
    before = {name: (mean, sd) for name, mean, sd in model.weights()}
    data = {**log(seed=1), "genre": ["news"] * 200}
    model.update(events_of(SCHEMA, data))
    after = {name: (mean, sd) for name, mean, sd in model.weights()}
    assert after.keys() == before.keys()
    assert after["genre=drama"] == before["genre=drama"]
    assert after["genre=news"][1] < before["genre=news"][1]


def test_a_new_entity_learns_from_its_first_batch():
    model = mixed().fit(events_of(SCHEMA, log()))
    data = {**log(rows=20, seed=1), "user_id": np.full(20, 50), "click": np.ones(20, int)}
    before = model.predict(events_of(SCHEMA, data))
    assert model.entity_posterior("user", 50)[2] == 0
    after = model.update(events_of(SCHEMA, data)).predict(events_of(SCHEMA, data))
    assert np.all(after > before)
    assert model.entity_posterior("user", 50)[2] == 20


def test_ids_of_another_type_are_refused_if_they_cannot_be_the_same_ids():
    model = mixed().fit(events_of(SCHEMA, log()))
    before = of_user(model, 1)
    text = {**log(rows=20), "user_id": ["anna"] * 20}
    for verb in (model.update, model.predict, lambda events: model.fit(events, warm_start=True)):
        with pytest.raises(MismatchError, match="ids of 'user' are string, those learned before are int64"):
            verb(events_of(SCHEMA, text))
    with pytest.raises(MismatchError, match="ids of 'user' are string"):
        model.entity_posterior("user", "anna")
    assert_array_equal(of_user(model, 1).mean, before.mean)
    numbers = events_of(SCHEMA, log(seed=3))
    digits = events_of(SCHEMA, {**log(seed=3), "user_id": log(seed=3)["user_id"].astype(str)})
    assert_array_equal(model.predict(digits), model.predict(numbers))
    # Learned anew, they may be of any type.
    model.fit(events_of(SCHEMA, text))
    assert model.entity_posterior("user", "anna")[2] == 20


def test_an_update_without_a_known_label_learns_nothing():
    model = mixed().fit(events_of(SCHEMA, log()))
    state, before, cut = model.state, model.states("user"), model.cut
    unlabelled = events_of(SCHEMA, {**log(seed=1, start=START + 90 * DAY), "click": [None] * 200})
    for nothing in (unlabelled, unlabelled.before(START)):
        model.update(nothing)
        assert model.info.rows == model.info.steps == model.info.products == 0
        assert model.info.converged
        assert model.state is state
        assert model.cut == cut
        assert_same_states(model.states("user"), before)


def test_an_update_needs_a_fit():
    with pytest.raises(NotFittedError):
        mixed().update(events_of(SCHEMA, log()))


# --- against a fit on everything ----------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "bound"), [("full", 0.05), ("marginal", 0.08), ("diagonal", 0.08)])
def test_day_by_day_stays_near_the_fit_on_all_days(precision, bound):
    """Logistic loss is no quadratic, so the two differ; how much is measured here, not assumed to be nothing."""
    rng = np.random.default_rng(11)
    rows, users, d = 3000, 20, 6
    truth = rng.normal(0.0, 0.7, d)
    X = rng.normal(size=(rows, d)) + 0.7 * rng.normal(size=(rows, 1))  # correlated
    user = rng.integers(0, users, rows)
    label = (rng.random(rows) < expit(X @ truth + 0.7 * rng.standard_normal(users)[user])).astype(int)
    data = {"time": START + HOUR * np.arange(rows), "user_id": user, "click": label}
    events = events_of(SCHEMA, data | {f"x{i}": X[:, i] for i in range(d)})
    kept = {"precision": precision}
    names = [f"x{i}" for i in range(d)]

    def model() -> ac.GLMix:
        return ac.GLMix(
            fixed=ac.FixedEffect(names, **kept), random=[ac.RandomEffect("user", **kept)], learn_population=False
        )

    pooled = model().fit(events)
    days = list(events.windows(f"{rows // 10}h"))
    sequential = model().fit(days[0])
    for day in days[1:]:
        sequential.update(day)
    w, v = (np.array([mean for _, mean, _ in m.weights()]) for m in (pooled, sequential))
    distance = float(np.linalg.norm(v - w) / np.linalg.norm(w))
    assert len(days) == 10
    assert 1e-6 < distance < bound, f"relative distance of the coefficients: {distance:.4f}"
    p, q = pooled.predict(events), sequential.predict(events)
    gap = float(np.abs(logit(p) - logit(q)).mean())
    assert gap < bound, f"mean distance of the margins: {gap:.4f}"


# --- outgrowing full precisions -----------------------------------------------------------------------------


def levels(count: int, *, rows: int = 600) -> ac.Events:
    return events_of(SCHEMA, {**log(rows=rows), "word": np.arange(rows) % count})


def states_of(model: ac.GLMix, *, random: bool) -> ac.EntityStates:
    assert model.state is not None
    return model.states("user") if random else model.state.fixed_states


@pytest.mark.parametrize("random", [True, False], ids=["random", "fixed"])
def test_an_effect_that_outgrows_full_precisions_turns_diagonal(random):
    """At 33 coefficients of an entity, at 513 of the fixed effect; asked for by name, full stays."""

    def of(precision: ac.config.PrecisionKind) -> ac.GLMix:
        words = {"features": ["word"], "precision": precision}
        effects = [ac.RandomEffect("user", **words)] if random else []
        fixed = ac.FixedEffect() if random else ac.FixedEffect(**words)
        return ac.GLMix(fixed=fixed, random=effects, learn_population=False, tolerance=1e-6)

    i, most = (1, 32) if random else (0, 512)
    auto, full = of("auto").fit(levels(most - 1)), of("full").fit(levels(most - 1))
    assert auto.state.effects[i].form == "full"
    assert len(auto.state.effects[i].index) == most
    fitted, entities = auto.state.effects[i], len(states_of(auto, random=random))
    auto.update(levels(most, rows=1))
    assert auto.state.effects[i].form == "full"
    auto.update(levels(most))
    full.update(levels(most))
    assert full.state.effects[i].form == "full"
    grown = auto.state.effects[i]
    assert grown.form == "diagonal"
    for posterior in (grown.ridge, grown.population):
        assert posterior.precision.shape == (most + 1,)
    assert states_of(auto, random=random).posterior.precision.shape == (entities, most + 1)
    assert_array_equal(grown.population.precision[:most], np.diag(fitted.population.precision))
    p = auto.predict(levels(most))
    assert np.all((p > 0) & (p < 1))
    auto.update(levels(most + 1))
    assert auto.state.effects[i].form == "diagonal"


# --- ids and locks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"warm_start": True}, {"locked": ["fixed"]}, {"locked": ["user"]}], ids=str)
def test_a_fit_that_goes_on_takes_ids_of_the_type_of_before(how):
    data = log()
    model = ac.GLMix(random=[ac.RandomEffect("user")]).fit(events_of(SCHEMA, data))
    small = {**data, "user_id": data["user_id"].astype(np.int16)}
    model.fit(events_of(SCHEMA, small), **how)
    assert model.state.effects[1].ids == "int64"
    assert model.states("user").ids.dtype == np.int64
    named = {**data, "user_id": [f"u{id}" for id in data["user_id"]]}
    with pytest.raises(MismatchError, match="ids of 'user' are string, those learned before are int64"):
        model.fit(events_of(SCHEMA, named), **how)


@pytest.mark.parametrize("named", ["user", "user_id"])
@pytest.mark.parametrize("locked", ["user", "user_id"])
def test_an_effect_is_locked_by_role_or_by_column(named, locked):
    model = ac.GLMix(random=[ac.RandomEffect(named)]).fit(events_of(SCHEMA, log()))
    before, weights = model.states("user"), model.weights()
    model.update(events_of(SCHEMA, log(seed=1)), locked=[locked])
    assert_same_states(model.states("user"), before)
    assert model.weights() != weights
    with pytest.raises(ConfigError, match="every effect is locked"):
        model.update(events_of(SCHEMA, log(seed=1)), locked=["fixed", locked])
    with pytest.raises(ConfigError, match="no effect 'usr' to lock"):
        model.update(events_of(SCHEMA, log(seed=1)), locked=["usr"])
