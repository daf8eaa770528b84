"""How new events surprise a GLMix: what it tells of them, and what it leaves out."""

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from test_glmix_update import WEIGHTED, events_of, log, mixed, taken

import acclimate as ac
from acclimate.artifacts import Drift
from acclimate.learners.drift import together

FEATURES = ["surface", "hour", "position", "topics", "duration"]


def told(seed: int, *, jump: bool, rows: int = 1_500) -> np.ndarray:
    """The ``z`` of five days; the third is another world to half of the users where there is a jump."""
    events = ac.simulate(
        users=200,
        items=150,
        days=14,
        events_per_day=rows,
        half_life="36500d",
        jump_day=11 if jump else None,
        seed=seed,
    )
    model = ac.GLMix(fixed=FEATURES, random=[ac.RandomEffect("user", ["topics"]), ac.RandomEffect("item")])
    model.fit(events.before("2024-01-10"))
    assert model.drift() == ()
    days = [model.update(day).drift() for day in events.windows("1d", start="2024-01-10")]
    assert [one.statistic for one in days[0]] == ["loss", "labels", "effect", "effect", "effect"]
    assert [one.effect for one in days[0]] == ["", "", "fixed", "user", "item"]
    return np.array([[one.z for one in day] for day in days], float)


def test_a_world_that_stays_as_it_is_surprises_as_chance_does():
    z = np.concatenate([told(seed, jump=False) for seed in range(8)])
    # Of 40 days a mean is known to .16 and a standard deviation to .11, were it not for the populations, which are
    # learned and not known.
    assert np.abs(z.mean(axis=0)).max() < 0.5, z.mean(axis=0)
    assert_allclose(z.std(axis=0), np.ones(5), rtol=0, atol=0.3)


def test_a_jump_of_users_surprises_their_effect_most():
    loss, _, fixed, users, items = told(0, jump=True, rows=4_000)[2]
    assert users > 4
    assert users > max(loss, fixed, items)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int):
    model, data = mixed().fit(events_of(WEIGHTED, log())), log(seed=1, rows=60)
    data["time"] = np.full(60, data["time"][0])
    order = np.random.default_rng(seed).permutation(60)
    one, other = (drift(model, taken(data, rows)) for rows in (np.arange(60), order))
    for here, there in zip(one, other, strict=True):
        assert dataclasses.astuple(here)[:2] == dataclasses.astuple(there)[:2]
        assert_allclose(dataclasses.astuple(here)[2:], dataclasses.astuple(there)[2:], rtol=1e-8)


def drift(model: ac.GLMix, data: dict[str, np.ndarray], **options: list[str]) -> tuple[Drift, ...]:
    return copy.deepcopy(model).update(events_of(WEIGHTED, data), **options).drift()


def test_locked_effects_count_as_known():
    model, data = mixed().fit(events_of(WEIGHTED, log())), log(seed=1, rows=60)
    free, locked = drift(model, data), drift(model, data, locked=["user"])
    assert [one.effect for one in locked] == ["", "", "fixed"]
    assert locked[1].standard_deviation < free[1].standard_deviation


def test_rows_of_entities_that_wait_are_left_out():
    model, data = mixed(min_rows=30).fit(events_of(WEIGHTED, log())), log(seed=1, rows=60)
    data["user_id"] = np.where(np.arange(60) < 20, 99, data["user_id"])
    assert_allclose(drift(model, data)[0].rows, data["w"][20:].sum())


def test_what_is_to_be_forgotten_is_less_certain():
    data = log(seed=1, rows=60)
    sure, less = (drift(mixed(forgetting=d).fit(events_of(WEIGHTED, log())), data) for d in (1.0, 0.3))
    assert less[1].standard_deviation > sure[1].standard_deviation


def test_labels_that_are_turned_round_are_told_in_the_summary():
    model, data = mixed().fit(events_of(WEIGHTED, log(rows=600))), log(seed=1, rows=300)
    assert not any("expected" in line for line in copy.deepcopy(model).update(events_of(WEIGHTED, data)).summary())
    data["click"] = 1 - data["click"]
    lines = "\n".join(model.update(events_of(WEIGHTED, data)).summary())
    assert "surprised: a loss of" in lines
    assert "user: surprised, changes the loss by +" in lines


def test_an_update_without_rows_says_nothing():
    model = mixed().fit(events_of(WEIGHTED, log()))
    model.update(events_of(WEIGHTED, log(seed=1, rows=60)))
    assert model.drift()
    model.update(events_of(WEIGHTED, log()).before("2000-01-01"))
    assert model.drift() == ()


def test_surprises_of_several_pieces_are_put_together():
    """Means weigh by rows, variances add up, and what is of one piece alone stays."""
    one = (Drift("loss", "", 30.0, 0.5, 0.4, 0.1, 1.0), Drift("effect", "user", 0.0, 0.0, 0.0, 0.0, None))
    other = (
        Drift("loss", "", 10.0, 0.9, 0.4, 0.2, 2.5),
        Drift("effect", "user", 0.0, 0.0, 0.0, 0.0, None),
        Drift("effect", "video", 5.0, 0.1, 0.0, 0.1, 1.0),
    )
    loss, user, video = together(one, other)
    deviation = np.hypot(3.0, 2.0) / 40.0
    assert (loss.rows, loss.observed, loss.expected) == (40.0, pytest.approx(0.6), pytest.approx(0.4))
    assert (loss.standard_deviation, loss.z) == (pytest.approx(deviation), pytest.approx(0.2 / deviation))
    assert user.rows == 0.0
    assert video == other[2]
    assert together((), other) == other
