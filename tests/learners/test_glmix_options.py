"""``max_rows``, ``min_rows`` and ``half_life``: each limits what its own effect learns, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import DAY, START, events_of
from scipy.special import expit

import acclimate as ac
from acclimate.learners.mixed import learn
from acclimate.learners.shared import begun, grown, read, unknown
from acclimate.learners.task import prepared

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "item": "item_id"}, labels="click")

# --- max_rows -----------------------------------------------------------------------------------------------


def zipf_world(seed: int = 0, *, rows: int = 30_000) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A few users of very many rows: the log, the items' true levels and each row's true probability."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, 201) ** 1.1
    user, item = rng.choice(200, rows, p=share / share.sum()), rng.integers(0, 300, rows)
    level, taste = rng.normal(0.0, 1.0, 300), rng.normal(0.0, 0.8, 200)
    p = expit(-0.5 + level[item] + taste[user])
    data = {"time": START + np.arange(rows), "user_id": user, "item_id": item}
    return data | {"click": (rng.random(rows) < p).astype(int)}, level, p


def items_of(model: ac.GLMix) -> tuple[np.ndarray, np.ndarray]:
    """Level and standard deviation of each item, around their common one."""
    states = model.states("item")
    order = np.argsort(states.ids)
    mean, sd = states.posterior.mean[order, 0], states.posterior.standard_deviation()[order, 0]
    return mean - mean.mean(), sd


def test_a_cap_on_users_leaves_the_items_alone():
    data, level, p = zipf_world()
    events, level = events_of(SCHEMA, data), level - level.mean()
    error, regret = {}, {}
    for most in (None, 50):
        model = ac.GLMix(random=[ac.RandomEffect("user", max_rows=most), ac.RandomEffect("item")]).fit(events)
        assert model.info.converged
        mean, sd = items_of(model)
        error[most] = np.sqrt(np.mean((mean - level) ** 2))
        q = model.predict(events)
        regret[most] = np.mean(p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))
        assert np.mean(np.abs(mean - level) < 1.96 * sd) >= 0.92
    assert error[50] < 1.2 * error[None]
    assert regret[50] < 3.0 * regret[None]


def few_items_world(seed: int = 0) -> tuple[ac.Events, np.ndarray]:
    """Many users of few rows and one of many see items of very many: the log, and the users' true levels."""
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.concatenate([np.repeat(np.arange(500), 10), np.full(200, 500)]))
    item, rows = rng.integers(0, 10, len(user)), len(user)
    taste, level = rng.normal(0.0, 1.0, 501), rng.normal(0.0, 0.7, 10)
    data = {"time": START + np.arange(rows), "user_id": user, "item_id": item}
    return events_of(
        SCHEMA, data | {"click": (rng.random(rows) < expit(taste[user] + level[item])).astype(int)}
    ), taste


def test_of_two_caps_each_samples_the_rows_of_its_own_effect():
    events, taste = few_items_world()
    predictions = []
    for caps in ({"user": None, "item": None}, {"user": 50, "item": 50}, {"item": 50, "user": 50}):
        model = ac.GLMix(random=[ac.RandomEffect(name, max_rows=most) for name, most in caps.items()]).fit(events)
        assert model.info.converged
        states = model.states("user")
        away = states.posterior.mean[:, 0] - taste[states.ids]
        away -= away.mean()
        assert np.sqrt(np.mean(away**2)) < 0.65
        assert np.mean(np.abs(away) < 1.96 * states.posterior.standard_deviation()[:, 0]) > 0.9
        predictions.append(model.predict(events))
    assert_allclose(predictions[1], predictions[2], atol=1e-6)


def test_rows_that_a_cap_leaves_out_still_carry_what_was_learned_of_the_entity():
    """In the fixed effect's equation every row stands once, at the very margin that is predicted."""
    data, _, _ = zipf_world(rows=3000)
    events = events_of(SCHEMA, data)
    model = ac.GLMix(random=[ac.RandomEffect("user", max_rows=20)], tolerance=1e-9).fit(events)
    prior, (_, intercept, _) = model.state.fixed.population, model.weights()[0]
    slope = np.sum(data["click"] - model.predict(events)) - prior.precision[0, 0] * (intercept - prior.mean[0])
    assert_allclose(slope, 0.0, atol=1e-6)


# --- min_rows -----------------------------------------------------------------------------------------------


def two_rows_a_day(days: int = 20, users: int = 150, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    taste, logs = rng.normal(0.0, 1.5, users), list[dict[str, Any]]()
    for day in range(days):
        user = np.repeat(np.arange(users), 2)
        click = (rng.random(2 * users) < expit(taste[user])).astype(int)
        item = rng.integers(0, 20, 2 * users)
        time = START + DAY * day + np.arange(2 * users)
        logs.append({"time": time, "user_id": user, "item_id": item, "click": click})
    return logs


def test_two_rows_a_day_become_enough():
    days = two_rows_a_day()
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=3)], learn_population=False)
    model.fit(events_of(SCHEMA, days[0]))
    assert len(model.states("user")) == 0
    assert model.entity_posterior("user", 0)[2] == 0
    asked = events_of(SCHEMA, days[-1])
    assert len(set(model.predict(asked).tolist())) == 1
    for day in days[1:-1]:
        model.update(events_of(SCHEMA, day))
    assert sorted(model.states("user").ids.tolist()) == list(range(150))
    y, p = days[-1]["click"], model.predict(asked)
    average = np.mean([day["click"].mean() for day in days[:-1]])

    def loss(p: Any) -> float:
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    assert loss(p) < loss(average) - 0.05


@pytest.mark.parametrize("mode", ["point", "integrated", "thompson"])
def test_what_waits_is_seen_by_nobody(mode):
    """Others learn as if the entities that wait were at the population, and predictions show it."""
    first, second = two_rows_a_day(2)
    options: dict[str, Any] = {"learn_population": False, "tolerance": 1e-10}
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=9), ac.RandomEffect("item")], **options)
    without = ac.GLMix(random=[ac.RandomEffect("item")], **options)
    for one in (model, without):
        one.fit(events_of(SCHEMA, first)).update(events_of(SCHEMA, second))
    for name in ("mean", "precision"):
        mine, other = (getattr(one.states("item").posterior, name) for one in (model, without))
        assert_allclose(mine, other, rtol=1e-6, atol=1e-7)
    if mode == "point":
        asked = events_of(SCHEMA, second)
        assert_allclose(model.predict(asked), without.predict(asked), atol=1e-7)
    unknown_users = events_of(SCHEMA, second | {"user_id": second["user_id"] + 1000})
    if mode != "thompson":  # where each entity has a draw of its own
        assert_array_equal(
            model.predict(events_of(SCHEMA, second), mode=mode), model.predict(unknown_users, mode=mode)
        )


def test_what_waits_is_saved_and_goes_on(tmp_path):
    first, second = two_rows_a_day(2)
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=3)]).fit(events_of(SCHEMA, first))
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model").update(events_of(SCHEMA, second))
    model.update(events_of(SCHEMA, second))
    assert_array_equal(loaded.states("user").posterior.mean, model.states("user").posterior.mean)
    assert loaded.states("user").rows.tolist() == [4] * 150


# --- half_life ----------------------------------------------------------------------------------------------


def chain(parts: list[dict[str, Any]], declared: dict[str, Any], *, entity: bool) -> Any:
    """States after a fit on the first part and an update with each other, of squared loss and one effect."""
    effects: dict[str, Any] = {"random": [ac.RandomEffect("user", **declared)]} if entity else {}
    if not entity:
        effects["fixed"] = ac.FixedEffect(**declared)
    parameters = ac.GLMix(**effects, tolerance=1e-13).parameters
    locked = ["fixed"] if entity else []
    shared, known = None, {}
    for part in parts:
        events = events_of(SCHEMA, part)
        batch = read(parameters, events, shared)
        if shared is None:
            shared, batch = begun(parameters, SCHEMA, batch, None, locked=())
            if not entity:  # the prior of a first fit depends on its labels
                shared, batch = at_zero(shared, batch)
            else:
                shared = shared.__class__(**{**vars(shared), "fixed_states": zero(shared.fixed_states)})
        else:
            shared, batch = grown(shared, batch)
        taken = {}
        for seen in batch.seen[1:]:
            fresh = unknown(seen.effect, seen.ids)
            rows = [known.get(id) for id in seen.ids.tolist()]
            mean, precision = fresh.posterior.mean.copy(), fresh.posterior.precision.copy()
            touched, count = fresh.touched.copy(), fresh.rows.copy()
            for i, state in enumerate(rows):
                if state is not None:
                    mean[i], precision[i] = state.posterior.mean[0], state.posterior.precision[0]
                    touched[i], count[i] = state.touched[0], state.rows[0]
            taken["user"] = ac.EntityStates(seen.ids, ac.Posterior(mean, precision), touched, count)
        task = prepared(batch, taken, shared, locked=locked)
        shared, changed, _ = learn(replace(parameters, loss="squared", noise=1.0), shared, task)
        for states in (piece for pieces in changed.values() for piece in pieces):
            for i, id in enumerate(states.ids.tolist()):
                known[id] = states.at(np.array([i]))
    return known if entity else {"fixed": shared.fixed_states}


def zero(states: Any) -> Any:
    return ac.EntityStates(
        states.ids,
        ac.Posterior(0.0 * states.posterior.mean, states.posterior.precision),
        states.touched,
        states.rows,
    )


def at_zero(shared: Any, batch: Any) -> Any:
    prior = ac.Posterior(0.0 * shared.fixed.ridge.mean, shared.fixed.ridge.precision)
    fixed = replace(shared.fixed, ridge=prior, population=prior)
    seen = replace(batch.seen[0], effect=fixed)
    shared = replace(shared, fixed=fixed, fixed_states=unknown(fixed, seen.ids))
    return shared, replace(batch, seen=[seen, *batch.seen[1:]])


@pytest.mark.parametrize("declared", [{"half_life": "3d"}, {"half_life": "3d", "min_rows": 4}, {"min_rows": 4}])
@settings(max_examples=25, deadline=None)
@given(cut=st.lists(st.integers(0, 3), min_size=40, max_size=40), seed=st.integers(0, 100))
def test_one_fit_is_any_chain_of_updates(declared, cut, seed):
    """For rows in any order, late ones too: what was learned, and each row, is as old as it is."""
    rng = np.random.default_rng(seed)
    data = {
        "time": START + rng.integers(0, 20 * DAY, 40),
        "user_id": rng.integers(0, 5, 40),
        "item_id": np.zeros(40, int),
        "click": rng.integers(0, 2, 40),
    }
    cut_at = np.array(cut)
    parts = [{k: v[cut_at == c] for k, v in data.items()} for c in np.unique(cut_at)]
    entity = [True] if "min_rows" in declared else [True, False]
    for one in entity:
        whole, pieces = chain([data], declared, entity=one), chain(parts, declared, entity=one)
        assert whole.keys() == pieces.keys()
        for id, state in whole.items():
            assert state.rows == pieces[id].rows
            assert state.touched == pieces[id].touched
            assert_allclose(pieces[id].posterior.mean, state.posterior.mean, atol=1e-9)
            assert_allclose(pieces[id].posterior.precision, state.posterior.precision, rtol=1e-9)


def drifting(days: int = 40, users: int = 60, seed: int = 2) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each user's level walks; the log and the true probabilities of each day."""
    rng = np.random.default_rng(seed)
    level, logs = rng.normal(0.0, 1.0, users), []
    for day in range(days):
        user = np.repeat(np.arange(users), 10)
        p = expit(level[user])
        time = START + DAY * day + np.arange(len(user))
        click = (rng.random(len(user)) < p).astype(int)
        logs.append(({"time": time, "user_id": user, "item_id": np.zeros(len(user), int), "click": click}, p))
        level = level + 0.4 * rng.normal(size=users)
    return logs


def test_retraining_forgets_as_updates_do():
    """Where tastes drift, a fit on all of the past is then as near to the truth as the updates are."""
    world = drifting()

    def regret(model: ac.GLMix) -> float:
        data, p = world[-1]
        q = model.predict(events_of(SCHEMA, data))
        return np.mean(p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))

    def model(half_life: str | None) -> ac.GLMix:
        return ac.GLMix(random=[ac.RandomEffect("user", half_life=half_life)], learn_population=False)

    past = {k: np.concatenate([data[k] for data, _ in world[:-1]]) for k in world[0][0]}
    incremental = model("3d").fit(events_of(SCHEMA, world[0][0]))
    for data, _ in world[1:-1]:
        incremental.update(events_of(SCHEMA, data))
    retrained = regret(model("3d").fit(events_of(SCHEMA, past)))
    assert 0.8 < retrained / regret(incremental) < 1.25
    assert retrained < 0.6 * regret(model(None).fit(events_of(SCHEMA, past)))
