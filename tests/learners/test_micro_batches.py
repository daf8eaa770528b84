"""Updates that keep what entities share: what learns, what stays, and how surprise is measured there."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, events_of
from scipy.special import expit

import acclimate as ac
from acclimate.artifacts import keeps_shared, update_options
from acclimate.errors import ConfigError
from acclimate.learners.drift import _one_of
from acclimate.learners.meta_ranker import MetaRanker
from acclimate.learners.rates import Rate
from acclimate.learners.user_encoder import UserEncoder

KINDS: dict[str, dict[str, str]] = {"logistic": {}, "squared": {"y": "number"}, "poisson": {"y": "count"}}


def schema(loss: str) -> ac.Schema:
    entities = {"user": "user_id", "video": "video_id"}
    return ac.Schema(time="time", entities=entities, labels="y", label_kinds=KINDS[loss], weight="w", offset="o")


def log(
    loss: str, *, rows: int = 400, seed: int = 0, genres: tuple[str, ...] = ("drama", "news")
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user, x = rng.integers(0, 30, rows), rng.normal(3.0, 1.5, rows)
    z = 0.4 + np.sin(user) + 0.5 * (x - 3.0) * np.cos(user)
    labels = {
        "logistic": lambda: (rng.random(rows) < expit(z)).astype(int),
        "squared": lambda: z + rng.normal(size=rows),
        "poisson": lambda: rng.poisson(np.exp(0.5 * z)).astype(float),
    }
    return {
        "time": START + HOUR * (seed * rows + np.arange(rows)),
        "user_id": user,
        "video_id": rng.integers(0, 9, rows),
        "x": x,
        "genre": np.array(genres)[rng.integers(0, len(genres), rows)],
        "y": labels[loss](),
        "w": rng.uniform(0.5, 2.0, rows),
        "o": rng.normal(0.0, 0.5, rows),
    }


def model(loss: str = "logistic", *, videos: bool = False, **options: Any) -> ac.GLMix:
    effect = {name: options.pop(name) for name in ("support", "half_life", "precision") if name in options}
    random = [ac.RandomEffect("user", ["x", "genre"], **effect)]
    random += [ac.RandomEffect("video")] if videos else []
    return ac.GLMix(fixed=ac.FixedEffect(["x", "genre"]), random=random, loss=loss, tolerance=1e-10, **options)


def shared_of(learner: ac.GLMix) -> Any:
    """All that entities share, but for the time of the last event."""
    assert learner.state is not None
    return dataclasses.replace(learner.state, cut=0)


def sorted_states(learner: ac.GLMix, entity: str) -> ac.EntityStates:
    states = learner.states(entity)
    return states.at(np.argsort(states.ids))


@pytest.mark.parametrize("loss", list(KINDS))
@pytest.mark.parametrize("videos", [False, True])
def test_entities_learn_and_nothing_that_they_share_moves(loss: str, videos: bool) -> None:
    learner = model(loss, videos=videos).fit(events_of(schema(loss), log(loss)))
    before, users = pickle.dumps(shared_of(learner)), sorted_states(learner, "user")
    learner.update(events_of(schema(loss), log(loss, seed=1)), shared="keep")
    assert pickle.dumps(shared_of(learner)) == before
    after = sorted_states(learner, "user")
    assert after.rows.sum() == users.rows.sum() + 400
    assert not np.allclose(after.posterior.mean, users.posterior.mean)
    learner.check_converged()


@given(
    loss=st.sampled_from(list(KINDS)),
    videos=st.booleans(),
    support=st.sampled_from(["all", "observed"]),
    precision=st.sampled_from(["full", "diagonal", "marginal"]),
    half_life=st.sampled_from([None, "3d"]),
    seed=st.integers(1, 1000),
)
@settings(max_examples=25, deadline=None)
def test_it_is_the_update_with_all_that_is_shared_held_by_hand(
    loss: str, videos: bool, support: str, precision: str, half_life: str | None, seed: int
) -> None:
    options = {"support": support, "precision": precision, "half_life": half_life}
    learner = model(loss, videos=videos, **options).fit(events_of(schema(loss), log(loss)))
    by_hand = copy.deepcopy(learner)
    noise = {} if loss == "logistic" else {"noise": learner.noise}
    by_hand.parameters = dataclasses.replace(learner.parameters, learn_population=False, **noise)
    new = events_of(schema(loss), log(loss, seed=seed, rows=120))
    learner.update(new, shared="keep")
    by_hand.update(new, locked=["fixed"])
    for entity in ("user", "video") if videos else ("user",):
        one, other = sorted_states(learner, entity), sorted_states(by_hand, entity)
        assert_allclose(one.posterior.mean, other.posterior.mean, rtol=1e-9, atol=1e-9)
        assert_allclose(one.posterior.precision, other.posterior.precision, rtol=1e-9, atol=1e-9)
        assert_array_equal(one.touched, other.touched)


def test_each_entity_learns_as_one_posterior_given_the_others() -> None:
    """The known answer: the score of what is shared is an offset."""
    learner = model().fit(events_of(schema("logistic"), log("logistic")))
    data = log("logistic", seed=1, rows=60)
    names, before, _ = learner.entity_posterior("user", 3)
    fixed = {name: mean for name, mean, _ in learner.weights()}
    learner.update(events_of(schema("logistic"), data), shared="keep")
    rows = data["user_id"] == 3
    cells = {"(intercept)": np.ones(60), "x": data["x"]}
    cells |= {f"genre={genre}": (data["genre"] == genre).astype(float) for genre in ("drama", "news")}
    X = np.stack([cells[name] for name in names], axis=1)[rows]
    offset = data["o"][rows] + sum(fixed[name] * cells[name][rows] for name in fixed)
    expected, _ = ac.update_posterior(before, X, data["y"][rows], offset=offset, weight=data["w"][rows])
    found = learner.entity_posterior("user", 3)[1]
    assert_allclose(found.mean, expected.mean, rtol=1e-8, atol=1e-9)
    assert_allclose(found.precision, expected.precision, rtol=1e-8)


def test_new_levels_grow_in_the_effects_that_learn() -> None:
    learner = model().fit(events_of(schema("logistic"), log("logistic")))
    assert learner.state is not None
    fixed = learner.state.fixed
    new = log("logistic", seed=1, genres=("drama", "thriller"))
    learner.update(events_of(schema("logistic"), new), shared="keep")
    assert learner.state.fixed.index.names == fixed.index.names
    assert "genre=thriller" not in fixed.index.names
    assert "genre=thriller" in learner.entity_posterior("user", 3)[0]


def test_rows_in_pieces_keep_it_too() -> None:
    learner = model("squared").fit(events_of(schema("squared"), log("squared")))
    pieces, before = copy.deepcopy(learner), pickle.dumps(shared_of(learner))
    new = events_of(schema("squared"), log("squared", seed=1, rows=3_000))
    learner.update(new, shared="keep")
    pieces.update(dataclasses.replace(new, memory_limit=150_000), shared="keep")
    assert pieces.info is not None
    assert pieces.info.pieces > 1
    assert pickle.dumps(shared_of(pieces)) == before
    assert_allclose(
        sorted_states(pieces, "user").posterior.mean, sorted_states(learner, "user").posterior.mean, atol=1e-8
    )


def test_of_a_fixed_effect_alone_nothing_is_left_to_learn() -> None:
    learner = ac.GLMix(fixed=["x"]).fit(events_of(schema("logistic"), log("logistic")))
    with pytest.raises(ConfigError, match="every effect is locked"):
        learner.update(events_of(schema("logistic"), log("logistic", seed=1)), shared="keep")


# --- surprise on a sample -----------------------------------------------------------------------------------


@given(step=st.integers(2, 8), count=st.integers(1, 500))
def test_a_sample_has_one_row_of_each_step(step: int, count: int) -> None:
    rows = _one_of(step, count)
    assert_array_equal(rows // step, np.arange(len(rows)))
    assert len(rows) in (count // step, -(-count // step))
    assert rows[-1] < count if len(rows) else count < step


def test_small_batches_are_looked_at_whole() -> None:
    learner = model(learn_population=False).fit(events_of(schema("logistic"), log("logistic")))
    whole = copy.deepcopy(learner)
    new = events_of(schema("logistic"), log("logistic", seed=1, rows=500))
    assert learner.update(new, shared="keep").drift() == whole.update(new, locked=["fixed"]).drift()


def test_of_large_batches_a_sample_says_the_same_less_surely() -> None:
    learner = model(learn_population=False).fit(events_of(schema("logistic"), log("logistic")))
    whole, data = copy.deepcopy(learner), log("logistic", seed=1, rows=8_000)
    new = events_of(schema("logistic"), data)
    sampled, all_of_it = learner.update(new, shared="keep").drift(), whole.update(new, locked=["fixed"]).drift()
    for one, other in zip(sampled, all_of_it, strict=True):
        assert (one.statistic, one.effect) == (other.statistic, other.effect)
        assert_allclose(one.rows, data["w"].sum() / 8, rtol=0.05)
        assert one.standard_deviation > other.standard_deviation
        assert abs(one.observed - other.observed) < 4 * one.standard_deviation
        assert abs(one.expected - other.expected) < 4 * one.standard_deviation


def test_a_jump_shows_in_the_sample() -> None:
    learner = model().fit(events_of(schema("logistic"), log("logistic", rows=3_000)))
    new = log("logistic", seed=1, rows=4_000)
    new["y"] = 1 - new["y"]
    learner.update(events_of(schema("logistic"), new), shared="keep")
    loss, _, user = learner.drift()
    assert loss.z is not None
    assert loss.z > 4
    assert user.z is not None
    assert user.z > 4


# --- learners that are made of others -----------------------------------------------------------------------


def test_a_calibration_keeps_its_line_and_forgets_it_by_time_later() -> None:
    def calibrated() -> ac.Calibrated:
        return ac.Calibrated(learner=model().parameters, half_life="5d")

    learner = calibrated().fit(events_of(schema("logistic"), log("logistic")))
    learner.update(events_of(schema("logistic"), log("logistic", seed=1)))
    line, cut = learner.line(), learner.cut
    learner.update(events_of(schema("logistic"), log("logistic", seed=2)), shared="keep")
    assert learner.line() == line
    assert learner.cut > cut
    assert learner.state is not None
    assert learner.state.line_cut == cut
    assert keeps_shared(learner)


def test_a_stack_keeps_what_all_share() -> None:
    def stack(member: Any) -> ac.Stack:
        top = ac.GLMix(fixed=["x", "below"], random=[ac.RandomEffect("user")])
        return ac.Stack(learner=top.parameters, members={"below": member.parameters})

    learner = stack(model()).fit(events_of(schema("logistic"), log("logistic", rows=800)))
    before = [pickle.dumps(shared_of(one)) for one in (learner.top, learner.members["below"])]
    learner.update(events_of(schema("logistic"), log("logistic", seed=2)), shared="keep")
    assert [pickle.dumps(shared_of(one)) for one in (learner.top, learner.members["below"])] == before
    assert keeps_shared(learner)

    counts = stack(Rate("user")).fit(events_of(schema("logistic"), log("logistic", rows=800)))
    assert not keeps_shared(counts)
    with pytest.raises(ConfigError, match="Rate changes what its entities share"):
        counts.update(events_of(schema("logistic"), log("logistic", seed=2)), shared="keep")


def test_learners_say_whether_they_can() -> None:
    assert keeps_shared(UserEncoder)  # whose shared model no update changes
    assert keeps_shared(MetaRanker)
    assert update_options(model(), "keep") == {"shared": "keep"}
    assert update_options(model(), "learn") == {}
    assert update_options(Rate("user"), "learn") == {}
    with pytest.raises(ConfigError, match="Rate"):
        update_options(Rate("user"), "keep")
