"""What a GLMix keeps of effects and entities: half the bytes, one effect alone, effects too wide, failures."""

import copy
import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, assert_same_states, events_of
from scipy.special import expit

import acclimate as ac
from acclimate.errors import ConfigError, ModelError
from acclimate.learners import effects, mixed
from acclimate.models.joint import Solution
from acclimate.models.separate import SeparateSolution
from acclimate.storage import InSegments

SCHEMA = ac.Schema(
    time="time", entities={"user": "user_id", "video": "video_id"}, labels="click", weight="w", offset="o"
)
PLAIN = dataclasses.replace(SCHEMA, weight=None, offset=None)
FORMS = ("full", "diagonal", "marginal")


def log(*, rows: int = 300, seed: int = 0, users: int = 9, videos: int = 5, day: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user, video = (users * rng.random(rows) ** 2).astype(int), rng.integers(0, videos, rows)
    x = rng.normal(5.0, 2.0, rows)
    z = -0.5 + np.sin(user) + 0.4 * (x - 5.0) * np.cos(user) + 0.5 * np.cos(2.0 * video)
    return {
        "time": START + HOUR * (24 * day + np.arange(rows)),
        "user_id": user,
        "video_id": video,
        "x": x,
        "genre": np.array(["drama", "news", "sport"])[rng.integers(0, 3, rows)],
        "click": (rng.random(rows) < expit(z)).astype(int),
        "w": rng.uniform(0.5, 2.0, rows),
        "o": rng.normal(0.0, 0.5, rows),
    }


FIRST, SECOND, THIRD = (events_of(SCHEMA, log(seed=seed, users=9 + seed, day=20 * seed)) for seed in range(3))


def states(model: ac.GLMix) -> list[ac.EntityStates]:
    assert model.state is not None
    return [model.state.fixed_states, *(model.states(effect.name) for effect in model.state.random)]


def assert_same_model(actual: ac.GLMix, expected: ac.GLMix) -> None:
    for one, other in zip(states(actual), states(expected), strict=True):
        assert_same_states(one, other)
    assert_array_equal(actual.predict(THIRD, mode="integrated"), expected.predict(THIRD, mode="integrated"))


# --- in half the bytes --------------------------------------------------------------------------------------


def mixture(kept: Any = "float64", precision: Any = "full") -> ac.GLMix:
    return ac.GLMix(
        fixed=["x", "genre"],
        random={"user": {"features": ["x"], "precision": precision, "half_life": "30d"}, "video": ["genre"]},
        states=kept,
    )


@pytest.mark.parametrize("precision", FORMS)
def test_seven_digits_are_plenty(precision):
    single, double = (mixture(kept, precision).fit(FIRST) for kept in ("float32", "float64"))
    for events in (SECOND, THIRD):
        single.update(events)
        double.update(events)
        for mode in ("point", "integrated", "thompson"):
            p, q = single.predict(events, mode=mode), double.predict(events, mode=mode)
            assert_allclose(p, q, rtol=0, atol=1e-5)
            assert np.any(p != q)
    count = sum(len(one) for one in states(double)[1:])
    assert single.entities.nbytes - 24 * count == (double.entities.nbytes - 24 * count) / 2
    assert double.nbytes - single.nbytes == double.entities.nbytes - single.entities.nbytes


def test_what_is_kept_in_half_the_bytes_is_saved_in_half_the_bytes(tmp_path):
    model = mixture("float32").fit(FIRST)
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model")
    assert loaded.parameters == model.parameters
    assert loaded.entities.dtype == "float32"
    assert loaded.nbytes == model.nbytes
    for name in ("user", "video"):
        below = loaded.entities.below(name)
        assert isinstance(below, InSegments)
        (segment,) = below.segments
        assert not len(loaded.entities.changed_ids(name))
        assert [kind for key, (kind, _) in segment.layout.items() if "." in key] == ["<f4"]
    assert_same_model(loaded, model)
    assert_same_model(loaded.update(SECOND), model.update(SECOND))
    ((_, changed),) = loaded.entities.changed("user")
    assert [column.dtype.str for key, column in changed.items() if "." in key] == ["<f4"]


# --- one effect alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["fit", "update"])
@pytest.mark.parametrize("precision", FORMS)
def test_one_free_effect_is_solved_entity_by_entity_to_the_joint_answer(monkeypatch, precision, verb):
    """Of entities of many rows, of few, of fewer than ``min_rows``, known and new."""
    solved: list[int] = []
    separately = mixed.solve_separately

    def spy(block: Any, *values: Any, **named: Any) -> SeparateSolution:
        solved.append(block.design.count)
        return separately(block, *values, **named)

    monkeypatch.setattr(mixed, "solve_separately", spy)

    def learned() -> ac.GLMix:
        user = ac.RandomEffect("user", ["x", "genre"], precision=precision, forgetting=0.8, min_rows=20)
        model = ac.GLMix(fixed=["x"], random=[user], learn_population=False, tolerance=1e-10).fit(FIRST)
        return getattr(model, verb)(SECOND, locked=["fixed"])

    alone = learned()
    rows = np.bincount(log(seed=1, users=10)["user_id"])
    before = np.bincount(log()["user_id"], minlength=10) if verb == "update" else np.zeros(10, int)
    enough, waits = rows + before >= 20, (rows + before < 20) & (rows > 0)
    together = [count for count in (np.sum(enough & (rows > 0)), np.sum(waits)) if count > 1]
    assert solved[-len(together) :] == together
    assert 0 < np.sum(waits) < len(rows)
    assert sorted(alone.states("user").ids.tolist()) == np.flatnonzero(enough).tolist()
    count = len(solved)
    monkeypatch.setattr(mixed, "is_separate", lambda _: False)
    jointly = learned()
    assert len(solved) == count
    assert alone.info.converged
    assert jointly.info.converged
    assert alone.info.products < jointly.info.products
    for one, other in zip(states(alone), states(jointly), strict=True):
        assert_array_equal(one.ids, other.ids)
        assert_array_equal(one.touched, other.touched)
        assert_array_equal(one.rows, other.rows)
        assert_allclose(one.posterior.mean, other.posterior.mean, rtol=0, atol=1e-8)
        scale = np.abs(other.posterior.precision).max()
        assert_allclose(one.posterior.precision, other.posterior.precision, rtol=1e-8, atol=1e-8 * scale)
    assert_allclose(alone.predict(THIRD), jointly.predict(THIRD), rtol=0, atol=1e-8)


def test_each_entity_solved_alone_says_whether_it_converged():
    model = ac.GLMix(random=["user"], learn_population=False, max_steps=1, tolerance=1e-9).fit(FIRST)
    model.update(SECOND, locked=["fixed"])
    assert not model.info.converged
    assert model.info.steps == 1
    assert model.info.decrement > 1e-9
    assert set(model.info.unsettled) == {"user"}
    assert set(model.info.unsettled["user"].tolist()) <= set(log(seed=1, users=10)["user_id"].tolist())
    assert len(model.info.unsettled["user"]) > 3
    free = ac.GLMix(random=["user"], learn_population=False).fit(FIRST).update(SECOND, locked=["fixed"])
    assert free.info.converged
    assert len(free.info.unsettled["user"]) == 0


# --- effects that are wide ----------------------------------------------------------------------------------


def worded(levels: int, *, rows: int, seed: int = 0) -> dict[str, Any]:
    """Each level at least once where there are rows enough."""
    rng = np.random.default_rng(seed)
    word = np.concatenate([np.arange(levels), rng.integers(0, levels, rows)])[:rows]
    label = (rng.random(rows) < np.where(word % 3 == 0, 0.8, 0.3)).astype(int)
    return {"user_id": np.zeros(rows, int), "video_id": np.zeros(rows, int), "word": word, "click": label}


def test_a_fixed_effect_of_very_many_levels():
    """At the optimum the slope of the log-posterior is nothing in each of the 20,001 directions."""
    levels, data = 20_000, worded(20_000, rows=30_000)
    events = events_of(PLAIN, data)
    model = ac.GLMix(fixed=["word"], tolerance=1e-6).fit(events)
    assert model.info.converged
    assert model.state.fixed.form == "diagonal"
    assert model.state.fixed_states.posterior.precision.shape == (1, levels + 1)
    weights = {name: mean for name, mean, _ in model.weights()}
    w = np.array([weights[f"word={level}"] for level in range(levels)])
    left = data["click"] - model.predict(events)
    assert_allclose(np.bincount(data["word"], left), w, rtol=0, atol=1e-5)
    prior = model.state.fixed.ridge
    assert_allclose(left.sum(), prior.precision[0] * (weights["(intercept)"] - prior.mean[0]), rtol=0, atol=1e-4)

    # An update with a new level, and without most of the others.
    more = worded(levels, rows=50, seed=1) | {"word": np.resize([0, 1, levels], 50), "click": np.ones(50, int)}
    before = model.predict(events)
    model.update(events_of(PLAIN, more))
    assert model.state.fixed_states.posterior.precision.shape == (1, levels + 2)
    after = model.predict(events)
    assert np.all(after[np.isin(data["word"], [0, 1])] > before[np.isin(data["word"], [0, 1])])
    for mode in ("integrated", "thompson"):
        p = model.predict(events, mode=mode)
        assert np.all((p > 0.0) & (p < 1.0))


@pytest.mark.parametrize("precision", ["full", "marginal"])
@pytest.mark.parametrize("name", ["fixed", "user"])
def test_a_matrix_too_large_is_refused_before_it_is_there(monkeypatch, name, precision):
    monkeypatch.setattr(effects, "MATRIX_AT_MOST", 21)
    wide = {"features": ["word"], "precision": precision}
    model = ac.GLMix(fixed=wide) if name == "fixed" else ac.GLMix(random={name: wide})
    message = rf"effect '{name}' has 22 coefficients: .* precision '{precision}' .*declare precision: diagonal"
    with pytest.raises(ConfigError, match=message):
        model.fit(events_of(PLAIN, worded(21, rows=200)))
    assert model.state is None

    # One level less is as wide as may be; a level more refuses the update, and nothing has changed.
    events = events_of(PLAIN, worded(20, rows=200))
    model.fit(events)
    assert model.state.effects[0 if name == "fixed" else 1].form == precision
    state, before = model.state, copy.deepcopy(model)
    with pytest.raises(ConfigError, match=message):
        model.update(events_of(PLAIN, worded(21, rows=200)))
    assert model.state is state
    for one, other in zip(states(model), states(before), strict=True):
        assert_same_states(one, other)
    assert_array_equal(model.predict(events), before.predict(events))


@pytest.mark.parametrize("precision", ["auto", "diagonal"])
def test_a_diagonal_may_be_of_any_width(monkeypatch, precision):
    monkeypatch.setattr(effects, "MATRIX_AT_MOST", 21)
    monkeypatch.setattr(effects, "_FULL_AT_MOST", {True: 20, False: 20})
    wide = {"features": ["word"], "precision": precision}
    model = ac.GLMix(fixed=wide, random={"user": wide}).fit(events_of(PLAIN, worded(40, rows=200)))
    assert [effect.form for effect in model.state.effects] == ["diagonal", "diagonal"]


def test_a_matrix_that_is_refused_says_how_large_it_would_be(monkeypatch):
    monkeypatch.setattr(effects, "MATRIX_AT_MOST", 1000)
    with pytest.raises(ConfigError, match=r"'fixed' has 15,001 coefficients: .* takes 2 GB"):
        ac.GLMix(fixed={"features": ["word"], "precision": "full"}).fit(
            events_of(PLAIN, worded(15_000, rows=15_000))
        )


def test_learning_and_predicting_cost_what_is_touched():
    """200,000 entities are stored; an array of a number of each would take more than is allowed."""
    model = ac.GLMix(random={"user": ["x"]}, learn_population=False).fit(FIRST)
    ids = np.arange(1000, 201_000)
    one = model.states("user")
    posterior = ac.Posterior(np.zeros((200_000, 2)), np.tile(np.eye(2), (200_000, 1, 1)))
    model.entities.commit({"user": [ac.EntityStates(ids, posterior, ids, ids)]})
    few = {**log(rows=12, day=50), "user_id": np.resize([0, 1500, 150_000, 999_999], 12)}
    events = events_of(SCHEMA, few).cached()
    model.update(events)  # may make room for twice as many
    for ask in (model.update, model.predict, lambda events: model.predict(events, mode="thompson")):
        tracemalloc.start()
        try:
            ask(events)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
    assert len(model.entities.ids("user")) == len(one) + 200_001


# --- failures half way --------------------------------------------------------------------------------------


def fail_at(monkeypatch: Any, solution: type[Any], block: int) -> None:
    """No memory for the posteriors of one effect."""
    posterior = solution.posterior

    def failing(self: Any, number: int, members: Any = None) -> ac.Posterior:
        if number == block:
            raise MemoryError("no room for so many")
        return posterior(self, number, members)

    monkeypatch.setattr(solution, "posterior", failing)


@pytest.mark.parametrize(
    ("solution", "block", "how"),
    [
        (Solution, 0, {}),
        (Solution, 1, {}),
        (Solution, 2, {}),
        (Solution, 1, {"locked": ["fixed"]}),
        (SeparateSolution, 0, {"locked": ["fixed", "video"]}),
    ],
    ids=["fixed", "user", "video", "video of two", "user alone"],
)
@pytest.mark.parametrize("verb", ["update", "fit"])
def test_what_fails_half_way_leaves_all_as_it_was(monkeypatch, solution, block, how, verb):
    model = mixture().fit(FIRST)
    if verb == "fit":  # after rounds of learning the population the last solution is joint
        solution = Solution
    elif solution is SeparateSolution:
        model.parameters = dataclasses.replace(model.parameters, learn_population=False)
    before, state, entities, info = copy.deepcopy(model), model.state, model.entities, model.info
    with monkeypatch.context() as patch:
        fail_at(patch, solution, block)
        with pytest.raises(MemoryError):
            getattr(model, verb)(SECOND, **how)
    assert model.state is state
    assert model.entities is entities
    assert model.info is info
    assert_same_model(model, before)
    # And it can be done again.
    assert_same_model(getattr(model, verb)(SECOND, **how), getattr(before, verb)(SECOND, **how))


def test_events_that_cannot_be_read_leave_all_as_it_was():
    model = mixture().fit(FIRST)
    before, state = copy.deepcopy(model), model.state
    with pytest.raises(ac.AcclimateError):
        model.update(events_of(SCHEMA, {**log(seed=1), "genre": np.arange(300) + 0.5}))
    assert model.state is state
    assert_same_model(model, before)


# --- digits that do not suffice -----------------------------------------------------------------------------


def test_precisions_that_float32_cannot_hold_are_refused():
    """A mean of many thousand spreads leaves none of seven digits for what the rows say of the spread."""
    far = {**log(), "x": 1e5 + 3.0 * np.random.default_rng(1).standard_normal(300)}
    model = ac.GLMix(random={"user": ["x"]}, learn_population=False, states="float32")
    with pytest.raises(ModelError, match=r"precisions of \d+ of \d+ entities of 'user' .* states: float64"):
        model.fit(events_of(SCHEMA, far))
    assert model.state is None
