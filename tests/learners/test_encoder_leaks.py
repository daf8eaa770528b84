"""Nothing at a row or after it changes a vector that the row gets: by itself, in a stack, in a replay."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, HOUR, START, encoder, events, log, rows_of
from test_stack import Witness, WitnessParameters

import acclimate as ac
from acclimate import pipeline
from acclimate.config import LEARNERS, RateParameters
from acclimate.learners.user_encoder import UserEncoder

FIRST = log(120, seed=1, days=4)
FITTED = {decay: encoder(decay=decay).fit(events(FIRST)) for decay in ("exact", "exponential")}
DECAYS = pytest.mark.parametrize("decay", list(FITTED))


@pytest.fixture(autouse=True)
def witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a learner on top notes of what it is given."""
    monkeypatch.setitem(LEARNERS, WitnessParameters, "test_stack:Witness")
    monkeypatch.setattr(Witness, "given", [])


def altered(columns: dict[str, Any], moment: int, *, labels_alone: bool = False) -> dict[str, Any]:
    """The log with other labels at this moment and later, and with more events there, by others too."""
    later = [row for row, time in enumerate(columns["time"]) if time >= moment]
    changed = {name: list(values) for name, values in columns.items()}
    for row in later:
        changed["click"][row], changed["like"][row] = 1 - (columns["click"][row] or 0), 1 - columns["like"][row]
    if labels_alone:
        return changed
    for values in changed.values():
        values += [values[row] for row in later]
    users = changed["user_id"]
    users[len(columns["time"]) :] = [(user * 7 + 1) % 13 for user in users[len(columns["time"]) :]]
    return changed


def until(columns: dict[str, Any], moment: int) -> list[int]:
    """How many rows lie before a moment, and how many no later than it."""
    times = np.sort(columns["time"])
    return [int(np.searchsorted(times, moment, side)) for side in ("left", "right")]


@DECAYS
@settings(max_examples=30)
@given(seed=st.integers(0, 999), hour=st.integers(0, 24 * 12))
def test_of_rows_along_a_log(decay: str, seed: int, hour: int) -> None:
    """Those at the moment itself keep their vectors where labels change, and those before it in any case."""
    new, moment = log(30, seed=seed, users=13, videos=15), START + HOUR * hour
    along = FITTED[decay].vectors_along(events(new))
    earlier, at_most = until(new, moment)
    relabelled = FITTED[decay].vectors_along(events(altered(new, moment, labels_alone=True)))
    assert_allclose(relabelled[:at_most], along[:at_most], rtol=0, atol=1e-6)
    more = FITTED[decay].vectors_along(events(altered(new, moment)))
    assert_allclose(more[:earlier], along[:earlier], rtol=0, atol=1e-6)
    if at_most:
        fewer = rows_of(new, np.flatnonzero(np.array(new["time"]) <= moment))
        assert_allclose(FITTED[decay].vectors_along(events(fewer)), along[:at_most], rtol=0, atol=1e-6)


@DECAYS
@settings(max_examples=20)
@given(seed=st.integers(0, 999), hour=st.integers(0, 24 * 12))
def test_of_rows_that_are_asked_about_after_later_ones_were_learned(decay: str, seed: int, hour: int) -> None:
    """What came after a row may be known already: it gets what was there before it all the same."""
    new, moment = log(30, seed=seed, videos=12), START + HOUR * hour
    late = np.array(new["time"]) >= moment
    before = copy.deepcopy(FITTED[decay])
    if not late.all():
        before.update(events(rows_of(new, np.flatnonzero(~late))))
    after = copy.deepcopy(before)
    if late.any():
        after.update(events(rows_of(new, np.flatnonzero(late))))
    asked = events({**log(20, seed=seed + 1), "time": [moment - HOUR * (i % 3) for i in range(20)]})
    assert_allclose(after.vectors(asked), before.vectors(asked), rtol=0, atol=1e-6)


def test_what_is_altered_shows_in_rows_that_come_after_it() -> None:
    new, moment = log(40, seed=3), START + 5 * DAY
    along = FITTED["exact"].vectors_along(events(new))
    relabelled = FITTED["exact"].vectors_along(events(altered(new, moment, labels_alone=True)))
    _, at_most = until(new, moment)
    assert np.abs(relabelled[at_most:] - along[at_most:]).max() > 1e-3


# --- in a stack ---------------------------------------------------------------------------------------------


def seen_by_top(verb: str, name: str = "taste") -> tuple[np.ndarray, np.ndarray]:
    """Times and vectors of the rows that the learner on top was last given."""
    columns = next(columns for said, columns in reversed(Witness.given) if said == verb)
    return np.array([round(time.timestamp() * 1e6) for time in columns["time"]]), np.array(columns[name])


def same_before(moment: int, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether the rows before a moment, which are the same ones, are given the same."""
    count = int(np.searchsorted(one[0], moment))
    assert count > 10
    assert (one[0][:count] == other[0][:count]).all()
    return bool((one[1][:count] == other[1][:count]).all())


def test_a_fit_on_top_of_a_rate_and_an_encoder_gets_nothing_from_its_own_window() -> None:
    columns, moment = log(200, seed=5, days=8), START + 6 * DAY
    columns["time"][0], columns["time"][1] = START, START + 9 * DAY  # the warm-up ends where it did
    stack = ac.Stack(
        WitnessParameters(("taste", "popular")),
        {"taste": encoder().parameters, "popular": RateParameters("video")},
        warm_up=0.3,
        every="12h",
    )
    stack.fit(events(columns))
    plain = [seen_by_top("fit", name) for name in ("taste", "popular")]
    for labels_alone in (False, True):
        stack.fit(events(altered(columns, moment, labels_alone=labels_alone)))
        for name, before in zip(("taste", "popular"), plain, strict=True):
            assert same_before(moment, before, seen_by_top("fit", name))
    assert not same_before(moment + 2 * DAY, plain[0], seen_by_top("fit"))


def test_a_fit_on_top_of_an_encoder_fills_its_histories_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared model is of the whole log; with one that stays, no row gets anything of its own window."""
    fixed = FITTED["exact"]

    def as_fitted(self: UserEncoder, _: ac.Events) -> UserEncoder:
        self.state, self.info = copy.deepcopy(fixed.state), fixed.info
        return self

    monkeypatch.setattr(UserEncoder, "fit", as_fitted)
    columns, moment = log(200, seed=5, days=8), START + 6 * DAY
    stack = ac.Stack(WitnessParameters(("taste",)), {"taste": encoder().parameters}, every="12h")
    inside: Any = stack.fit(events(columns)).members["taste"]
    plain = seen_by_top("fit")
    assert inside.reconciled(events(columns)).max() <= 1e-5
    first = int(np.searchsorted(plain[0], START + 12 * HOUR))  # nobody is known in the first window
    assert first > 3
    blank = fixed.emptied().vectors(events(columns))[:first]
    assert_allclose(plain[1][:first], blank, rtol=0, atol=1e-6)
    for labels_alone in (False, True):
        stack.fit(events(altered(columns, moment, labels_alone=labels_alone)))
        assert same_before(moment, plain, seen_by_top("fit"))
    assert not same_before(moment + 2 * DAY, plain, seen_by_top("fit"))


def test_an_update_and_a_prediction_give_what_was_known_before_all_of_their_rows() -> None:
    new = log(60, seed=6, days=2)
    new["time"] = [time + 4 * DAY for time in new["time"]]
    stack = ac.Stack(WitnessParameters(("taste",)), {"taste": encoder().parameters}, every="1d").fit(events(FIRST))
    before: Any = copy.deepcopy(stack.members["taste"])
    expected = before.vectors(events(new))
    for changed in (new, altered(new, 0, labels_alone=True)):
        stack.predict(events(changed))
        assert_allclose(seen_by_top("predict")[1], expected, rtol=0, atol=0)
        updated = copy.deepcopy(stack).update(events(changed))
        assert_allclose(seen_by_top("update")[1], expected, rtol=0, atol=0)
    inside: Any = updated.members["taste"]
    asked = events({**new, "time": [time + 2 * DAY for time in new["time"]]})
    assert np.abs(inside.vectors(asked) - before.vectors(asked)).max() > 1e-3  # it has learned them since


# --- in a replay --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, "18h"])
def test_predictions_of_a_replay_know_nothing_later(delay: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows until a moment, and the delay of labels after it, show nothing of what is altered from then on."""
    noted, predict = list[tuple[int, np.ndarray]](), ac.Stack.predict

    def noting(self: ac.Stack, asked: ac.Events) -> np.ndarray:
        p = predict(self, asked)
        if len(p):
            noted.append((asked.table(["time"])["time"].cast("int64")[0].as_py(), p))
        return p

    monkeypatch.setattr(ac.Stack, "predict", noting)
    columns = log(400, seed=7, days=8)
    columns["time"][0], columns["time"][1] = START, START + 9 * DAY - HOUR
    edge, waits = START + 6 * DAY, 18 * HOUR if delay else 0
    stack = ac.Stack(ac.GLMix(fixed=["country", "taste"]), {"taste": encoder().parameters}, every="12h")

    def replayed(columns: dict[str, Any]) -> list[tuple[int, np.ndarray]]:
        noted.clear()
        pipeline.replay(
            [ac.Arm("incremental", stack)],
            events(columns),
            start="2022-04-29", every="12h", label_delay=delay,
        )  # fmt: skip
        return list(noted)

    plain, relabelled = (replayed(one) for one in (columns, altered(columns, edge - waits, labels_alone=True)))
    early = [pair for pair in zip(plain, relabelled, strict=True) if pair[0][0] < edge + 12 * HOUR]
    assert 5 <= len(early) < len(plain)
    assert all((p == q).all() for (_, p), (_, q) in early)
    assert any((p != q).any() for (_, p), (_, q) in zip(plain, relabelled, strict=True))
    more = replayed(altered(columns, edge))
    early = [pair for pair in zip(plain, more, strict=True) if pair[0][0] < edge]
    assert len(early) >= 4
    assert all((p == q).all() for (_, p), (_, q) in early)
    assert [len(p) for _, p in more] != [len(p) for _, p in plain]
