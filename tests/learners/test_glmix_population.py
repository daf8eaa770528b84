"""The populations of a GLMix: what a fit learns of them, and how updates follow."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import DAY, START, assert_same_states, events_of
from scipy import optimize
from scipy.special import expit

import acclimate as ac
from acclimate.learners import populations
from acclimate.learners.mixed import learn
from acclimate.learners.shared import begun, read, unknown
from acclimate.learners.task import prepared

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "item": "item_id"}, labels="click")


def rows_of(
    users: np.ndarray,
    rows: int,
    *,
    seed: int,
    day: int = 0,
    mean: float = 0.0,
    sd: float = 1.0,
    slope: float = 0.0,
) -> dict[str, Any]:
    """Users of level ``N(mean, sd^2)`` with a taste for ``x``, and items of level ``N(0, .5)``."""
    rng = np.random.default_rng(seed)
    level, user = mean + sd * rng.standard_normal(len(users)), np.repeat(np.arange(len(users)), rows)
    item, x = rng.integers(0, 100, len(user)), rng.standard_normal(len(user))
    quality = 0.5**0.5 * np.random.default_rng(99).standard_normal(100)
    p = expit(-0.5 + level[user] + quality[item] + slope * x)
    return {
        "time": START + day * DAY + np.arange(len(user)),
        "user_id": users[user],
        "item_id": item,
        "x": x,
        "click": (rng.random(len(p)) < p).astype(int),
    }


def events(columns: dict[str, Any]) -> ac.Events:
    return events_of(SCHEMA, columns)


def population(model: ac.GLMix, effect: int = 1) -> ac.Posterior:
    assert model.state is not None
    return model.state.effects[effect].population


def test_variances_of_crossed_effects_are_recovered_at_four_rows_a_user():
    """Within three of the standard errors that the benchmark shows over seeds."""
    model = ac.GLMix(random=["user", "item"]).fit(events(rows_of(np.arange(1500), 4, seed=0)))
    assert_allclose(population(model, 1).covariance(), [[1.0]], rtol=0.25)
    assert_allclose(population(model, 2).covariance(), [[0.5]], rtol=0.5)


@pytest.mark.parametrize("ridge", [0.01, 100.0])
def test_what_is_learned_does_not_depend_on_the_ridge_of_the_effect(ridge):
    log = events(rows_of(np.arange(60), 4, seed=1))
    models = [ac.GLMix(random=[ac.RandomEffect("user", "x", ridge=r)]).fit(log) for r in (1.0, ridge)]
    one, other = (population(model) for model in models)
    assert_allclose(other.mean, one.mean, rtol=1e-9, atol=1e-15)  # one of them is held at 0
    assert_allclose(other.precision, one.precision, rtol=1e-9)


def test_few_entities_of_many_features_are_not_sure_of_anything():
    rng = np.random.default_rng(2)
    user, X = np.repeat(np.arange(3), 50), rng.standard_normal((150, 20))
    names = [f"x{j}" for j in range(20)]
    columns = {
        "time": START + np.arange(150),
        "user_id": user,
        "item_id": user,
        **dict(zip(names, X.T, strict=True)),
    }
    log = events(columns | {"click": rng.integers(0, 2, 150)})
    model = ac.GLMix(fixed=names, random=[ac.RandomEffect("user", names)]).fit(log)
    p = model.predict(
        events(columns | {f"x{j}": rng.standard_normal(150) for j in range(20)} | {"click": user * 0})
    )
    assert 0.02 < p.min() < p.max() < 0.98


def test_an_update_follows_newcomers_of_another_kind():
    old, new = rows_of(np.arange(200), 10, seed=3, sd=0.4), np.arange(1000, 1150)
    model = ac.GLMix(random=["user"]).fit(events(old))
    before = population(model)
    for day in range(1, 4):
        users = new[50 * (day - 1) : 50 * day]
        model.update(events(rows_of(users, 10, seed=10 + day, day=day, mean=1.5, sd=1.0)))
    after = population(model)
    assert after.mean[0] > before.mean[0] + 0.3
    assert after.covariance()[0, 0] > 1.8 * before.covariance()[0, 0]
    stranger = events(rows_of(np.array([9_999]), 1, seed=0, day=5))
    names, posterior, rows = model.entity_posterior("user", 9_999)
    assert (names, rows) == (("(intercept)",), 0)
    assert_array_equal(posterior.mean, after.mean)
    assert_array_equal(posterior.precision, after.precision)
    fixed = model.weights()[0][1]
    assert_allclose(model.predict(stranger), expit(fixed + after.mean), rtol=1e-12)


def test_updates_of_the_same_kind_keep_the_population_near_that_of_one_fit():
    parts = [rows_of(np.arange(40 * day, 40 * day + 40), 8, seed=20 + day, day=day) for day in range(12)]
    model = ac.GLMix(random=["user"]).fit(events(parts[0]))
    for part in parts[1:]:
        model.update(events(part))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    anew = ac.GLMix(random=["user"]).fit(events(whole))
    assert_allclose(population(model).standard_deviation(), population(anew).standard_deviation(), rtol=0.12)
    assert model.state is not None
    assert_allclose(model.state.effects[1].past.count, 480)


def test_what_one_entity_alone_has_said_before_counts_when_it_comes_again():
    """Nothing new of it, nothing new of the population."""
    rows = rows_of(np.arange(30), 20, seed=30, mean=0.5)
    model = ac.GLMix(random=["user"]).fit(events(rows))
    before, one = population(model), rows["user_id"] == 4
    again = {name: column[one][:1] for name, column in rows.items()} | {"time": np.array([START + DAY])}
    model.update(events(again))
    assert_allclose(population(model).standard_deviation(), before.standard_deviation(), rtol=0.05)
    assert model.state is not None
    assert model.state.effects[1].past.count == 30


def test_an_entity_that_rests_is_left_on_its_place_and_seen_from_the_population_of_now():
    """What its rows say stays: its precision and linear term differ from those before by the populations alone."""
    model = ac.GLMix(random=[ac.RandomEffect("user", "x")]).fit(
        events(rows_of(np.arange(50), 10, seed=4, slope=1.0))
    )
    stored = model.entities.take("user", np.arange(50), population(model))
    _, m, _ = model.entity_posterior("user", 7)
    was = population(model)
    model.update(events(rows_of(np.arange(100, 160), 10, seed=5, day=1, mean=1.0, sd=2.0)))
    now = population(model)
    assert not np.allclose(now.precision, was.precision, rtol=0.05)
    assert_same_states(model.entities.take("user", np.arange(50), was), stored)
    _, moved, _ = model.entity_posterior("user", 7)
    assert_allclose(moved.precision - now.precision, m.precision - was.precision, rtol=1e-9, atol=1e-9)
    said = m.precision @ m.mean - was.precision @ was.mean
    assert_allclose(moved.precision @ moved.mean - now.precision @ now.mean, said, rtol=1e-9, atol=1e-9)


def test_a_model_whose_population_has_moved_is_saved_with_it(tmp_path):
    model = ac.GLMix(random=[ac.RandomEffect("user", "x", half_life="5d"), ac.RandomEffect("item")])
    model.fit(events(rows_of(np.arange(50), 10, seed=6))).update(
        events(rows_of(np.arange(30, 90), 5, seed=7, day=1))
    )
    model.save(tmp_path / "model")
    loaded, more = ac.GLMix.load(tmp_path / "model"), events(rows_of(np.arange(60, 120), 5, seed=8, day=2, sd=2.0))
    assert_array_equal(loaded.predict(more), model.predict(more))
    assert_array_equal(loaded.update(more).predict(more), model.update(more).predict(more))
    assert_array_equal(population(loaded).precision, population(model).precision)


def test_neither_locked_nor_unlearned_populations_move():
    first, second = (
        events(rows_of(np.arange(50), 10, seed=6)),
        events(rows_of(np.arange(90), 5, seed=7, day=1, sd=3.0)),
    )
    kept = ac.GLMix(random=["user", "item"], learn_population=False).fit(first).update(second)
    assert_array_equal(population(kept).precision, [[1.0]])
    model = ac.GLMix(random=["user", "item"]).fit(first)
    user, item = population(model, 1), population(model, 2)
    model.update(second, locked=["user"])
    assert_array_equal(population(model, 1).precision, user.precision)
    assert not np.array_equal(population(model, 2).precision, item.precision)


def test_a_warm_start_begins_at_the_population_that_was(monkeypatch):
    log, begun = events(rows_of(np.arange(200), 5, seed=9)), list[ac.Posterior]()
    learn = populations.learn_population

    def noting(linear: Any, information: Any, prior: ac.Posterior, *rest: Any, **named: Any) -> Any:
        begun.append(prior)
        return learn(linear, information, prior, *rest, **named)

    monkeypatch.setattr(populations, "learn_population", noting)
    model = ac.GLMix(random=[ac.RandomEffect("user", ridge=7.0)]).fit(log)
    cold, found = len(begun), population(model)
    assert_array_equal(begun[0].precision, [[1.0]])
    model.fit(log, warm_start=True)
    assert_array_equal(begun[cold].precision, found.precision)
    assert_allclose(population(model).precision, found.precision, rtol=0.1)


def test_updates_of_few_rows_of_the_same_users_do_not_narrow_the_population():
    """Each one learns from posteriors at their modes, which lie nearer the population than their means."""
    columns = rows_of(np.arange(300), 10, seed=7, sd=2.0)
    day = np.tile(np.maximum(np.arange(10) - 4, 0), 300)  # five rows in the fit, then one a day
    columns["time"] = START + day * DAY + np.arange(len(day))
    parts = [{name: column[day == d] for name, column in columns.items()} for d in range(6)]
    model = ac.GLMix(fixed=[], random=["user"]).fit(events(parts[0]))
    fitted = population(model).covariance().item()
    for part in parts[1:]:
        model.update(events(part))
    once = ac.GLMix(fixed=[], random=["user"]).fit(events(columns))
    assert population(model).covariance().item() > 0.9 * fitted
    assert_allclose(population(model).covariance().item(), population(once).covariance().item(), rtol=0.12)


# --- effects that lie within one another ----------------------------------------------------------------------


def nested_rows(seed: int, rows: int, *, users: int = 60, items: int = 78, first: int = 0, sd: float = 1.0):
    """Items that are of one user each, mostly the only one of theirs: both of levels of variance ``sd^2``."""
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(users), rng.integers(0, users, items - users)])
    levels = sd * rng.standard_normal(users), sd * rng.standard_normal(items)
    item = rng.permutation(np.repeat(np.arange(items), rows))
    z = levels[0][owner[item]] + levels[1][item]
    click = (rng.random(len(item)) < expit(z - 0.5)).astype(int)
    return {"user_id": first + owner[item], "item_id": first + item, "x": z, "click": click}


def exact(columns: dict[str, Any], y: np.ndarray, variances: np.ndarray) -> float:
    """The log-density of labels of unit noise, and of two variances as a population's prior has it, each at 0."""
    Z = [(columns[name][:, None] == np.unique(columns[name])).astype(float) for name in ("user_id", "item_id")]
    V = np.eye(len(y)) + sum(v * z @ z.T for v, z in zip(variances, Z, strict=True))
    t = np.exp(np.linspace(-12, 6, 4001))[:, None]
    prior = -(np.log(variances / t) + t / variances) + 0.5 * np.log(t) - np.log1p(t)  # of 2 entities at variance t
    return float(-0.5 * (np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y)) + prior.max(axis=0).sum())


@pytest.mark.parametrize(("users", "items"), [(60, 78), (60, 60), (20, 100)])
def test_with_a_quadratic_loss_they_are_at_the_most_likely_populations(users, items):
    """Written out densely: the marginal likelihood of a Gaussian, over both variances."""
    columns = nested_rows(40, 4, users=users, items=items)
    parameters = ac.GLMix(random=["user", "item"]).parameters
    batch = next(read(parameters, events(columns | {"time": START + np.arange(len(columns["x"]))}), None))
    shared, batch = begun(parameters, SCHEMA, batch, None, locked=())
    at_zero = replace(shared.fixed_states, posterior=ac.Posterior(np.zeros((1, 1)), np.ones((1, 1, 1))))
    shared = replace(shared, fixed_states=at_zero)
    taken = {seen.effect.name: unknown(seen.effect, seen.ids) for seen in batch.seen[1:]}
    task = prepared(batch, taken, shared, locked=["fixed"])
    ids = {name: task.parts[k].states.ids[task.parts[k].codes] for k, name in ((1, "user_id"), (2, "item_id"))}
    levels = dict(zip(columns["item_id"].tolist(), columns["x"].tolist(), strict=True))
    noise = np.random.default_rng(41).standard_normal(len(batch))
    y = np.array([levels[item] for item in ids["item_id"].tolist()]) + noise
    of_numbers = replace(parameters, loss="squared", noise=1.0)
    shared, _, info = learn(of_numbers, shared, replace(task, label=y), population="learn")
    found = np.array([effect.population.covariance()[0, 0] for effect in shared.random])

    def cost(logs: np.ndarray) -> float:
        return -exact(ids, y, np.exp(logs))

    best = optimize.minimize(cost, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6})
    assert info.rounds < 15
    assert cost(np.log(found)) - best.fun < 0.05
    assert_allclose(found.sum(), np.exp(best.x).sum(), rtol=0.02)
    assert cost(np.log(0.5 * found)) - best.fun > 1.0  # a half of both is far off


def test_two_effects_of_one_entity_are_learned_as_one():
    columns = rows_of(np.arange(300), 3, seed=42)
    one = ac.GLMix(random=["user"]).fit(events(columns))
    two = ac.GLMix(random=["user", ac.RandomEffect("user", name="again")]).fit(events(columns))
    variances = [population(two, k).covariance()[0, 0] for k in (1, 2)]
    assert_allclose(variances[0], variances[1], rtol=1e-6)
    assert_allclose(sum(variances), population(one).covariance()[0, 0], rtol=0.1)
    asked = events(rows_of(np.arange(310), 2, seed=42))
    assert_allclose(two.predict(asked), one.predict(asked), rtol=0, atol=0.02)


@pytest.mark.parametrize(("rows", "within"), [(3, 0.3), (20, 0.15)])
def test_variances_of_effects_that_nearly_coincide_add_up_to_the_truth(rows, within):
    """Within two of the standard errors that the benchmark shows over seeds."""
    columns = nested_rows(43, rows, users=800, items=960, sd=0.5**0.5)
    model = ac.GLMix(random=["user", "item"]).fit(events(columns | {"time": START + np.arange(960 * rows)}))
    variances = [float(population(model, k).covariance()[0, 0]) for k in (1, 2)]
    assert_allclose(sum(variances), 1.0, rtol=within)
    assert min(variances) > 0.1  # neither takes all


def test_neither_the_order_of_rows_nor_that_of_effects_shows_in_what_is_learned_together():
    columns = nested_rows(44, 5) | {"time": START + np.arange(390)}
    order = np.random.default_rng(44).permutation(390)
    turned = {name: column[order] for name, column in columns.items()}
    one = ac.GLMix(random=["user", "item"]).fit(events(columns))
    other = ac.GLMix(random=["item", "user"]).fit(events(turned))
    for k in (1, 2):
        assert_allclose(population(other, 3 - k).precision, population(one, k).precision, rtol=1e-3)


def test_updates_of_effects_that_lie_within_one_another_keep_near_one_fit():
    """Though of each entity no more is stored than what its rows say with all others known."""
    columns, model = nested_rows(45, 22, users=200, items=240), ac.GLMix(random=["user", "item"])
    parts = [{name: column[d::11] for name, column in columns.items()} for d in range(11)]
    for day, part in enumerate(parts):
        log = events(part | {"time": START + day * DAY + np.arange(480)})
        model = model.update(log) if day else model.fit(log)
    anew = ac.GLMix(random=["user", "item"]).fit(events(columns | {"time": START + np.arange(5280)}))
    followed, whole = (sum(population(m, k).covariance()[0, 0] for k in (1, 2)) for m in (model, anew))
    assert_allclose(followed, whole, rtol=0.2)
    assert min(population(model, k).covariance()[0, 0] for k in (1, 2)) > 0.3
    assert model.state is not None
    assert [effect.past.count for effect in model.state.random] == [200, 240]


def crossed_rows(users: np.ndarray, day: int, rows: int) -> dict[str, Any]:
    """Users with levels of variance 1, those from 60 on 1.5 higher, and items with levels of variance .25."""
    levels = np.random.default_rng(47).standard_normal(120) + 1.5 * (np.arange(120) >= 60)
    quality, rng = 0.5 * np.random.default_rng(48).standard_normal(30), np.random.default_rng([49, day])
    user = np.repeat(users, rows)
    item = rng.integers(0, 30, len(user))
    click = (rng.random(len(user)) < expit(levels[user] + quality[item])).astype(int)
    time = START + day * DAY + np.arange(len(user))
    return {"user_id": user, "item_id": item, "x": np.zeros(len(user)), "click": click, "time": time}


def test_effects_that_cross_at_the_fit_do_not_lie_within_one_another_in_an_update():
    """The items of one user always lie within that user."""
    model = ac.GLMix(random=["user", "item"]).fit(events(crossed_rows(np.arange(60), 0, 20)))
    assert model.state is not None
    assert model.state.nested == ((1,), (2,)) or model.state.nested == ((2,), (1,))
    fitted = population(model).covariance().item()
    for day in range(1, 31):
        model.update(events(crossed_rows(np.array([day % 60]), day, 10)))
    assert_allclose(population(model).covariance().item(), fitted, rtol=0.15)


def test_one_users_rows_leave_the_mean_that_newcomers_have_moved():
    model = ac.GLMix(random=["user", "item"]).fit(events(crossed_rows(np.arange(60), 0, 15)))
    model.update(events(crossed_rows(np.arange(60, 120), 1, 15)))
    moved = population(model).mean[0]
    assert moved > 0.3
    model.update(events(crossed_rows(np.array([3]), 2, 10)))
    assert_allclose(population(model).mean[0], moved, atol=0.05)


def test_two_effects_of_one_entity_follow_as_one_does():
    """Where mean and variance move, and the second effect has a part of the first one's columns."""
    first, effects = events(rows_of(np.arange(200), 10, seed=46, sd=0.5)), [ac.RandomEffect("user", "x")]
    models = [ac.GLMix(random=random) for random in (effects, [*effects, ac.RandomEffect("user", name="again")])]
    for model in models:
        model.fit(first)
    for day in range(1, 4):
        users = np.arange(1000 + 50 * day, 1100 + 50 * day)  # half of them have been there the day before
        for model in models:
            model.update(events(rows_of(users, 10, seed=46 + day, day=day, mean=1.0, sd=1.5, slope=1.0)))
    levels = [[population(model, k) for k in range(1, len(model.parameters.random) + 1)] for model in models]
    means = [sum(effect.mean[0] for effect in effects) for effects in levels]
    variances = [sum(effect.covariance()[0, 0] for effect in effects) for effects in levels]
    assert means[0] > 0.5
    assert_allclose(means[1], means[0], atol=0.1)
    assert_allclose(variances[1], variances[0], rtol=0.25)
    slopes = [population(model, 1) for model in models]
    assert_allclose(slopes[1].mean[1], slopes[0].mean[1], atol=0.05)
    assert_allclose(slopes[1].covariance()[1, 1], slopes[0].covariance()[1, 1], rtol=0.1)
