"""The columns that an entity's last event had: whichever way events come, and whatever lies on one instant."""

import copy
from typing import Any

import numpy as np
import pytest
from conformance import both
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, HOUR, START, encoder, events, log, rows_of
from sample_events import in_pieces

import acclimate as ac
from acclimate.learners import batch
from acclimate.learners.encoder import learning
from acclimate.learners.encoder.state import LastSeen

FIRST = log(100, seed=4, days=3)
FITTED = encoder(columns={"context": ["country", "age"], "length": ["length"]}).fit(events(FIRST))


@st.composite
def visits(draw: st.DrawFn) -> dict[str, Any]:
    """Events at few instants whose columns vary from one to the next; items are those of the first log."""
    rows = draw(st.lists(st.tuples(*(st.integers(0, 3) for _ in range(4))), min_size=1, max_size=20))
    time, user, place, age = (list(column) for column in zip(*rows, strict=True))
    return {
        **{name: values * len(rows) for name, values in rows_of(FIRST, [0]).items()},
        "time": [START + 3 * DAY + HOUR * t for t in time],
        "user_id": [100 + u for u in user],
        "country": [("de", "fr", "it", "nowhere")[p] for p in place],
        "age": [20.0 + a for a in age],
    }


@settings(max_examples=60)
@given(new=visits(), data=st.data())
def test_they_do_not_depend_on_how_events_come(new: dict[str, Any], data: Any) -> None:
    at_once, in_chunks = copy.deepcopy(FITTED).update(events(new)), copy.deepcopy(FITTED)
    order = data.draw(st.permutations(range(len(new["time"]))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    for chunk in np.split(np.array(order), cuts):
        if len(chunk):
            in_chunks.update(events(rows_of(new, chunk)))
    ids = sorted({*new["user_id"], 0, 1})
    assert_allclose(in_chunks.vectors_of(ids), at_once.vectors_of(ids), rtol=0, atol=1e-5)
    for id in set(new["user_id"]):
        rows = [row for row, user in enumerate(new["user_id"]) if user == id]
        latest = max(new["time"][row] for row in rows)
        ages = {new["age"][row] for row in rows if new["time"][row] == latest}
        state: Any = at_once.state
        (age,) = at_once.inputs_of([id])[:, state.plan.columns["context"]]
        assert age in {np.float32((age - state.centre[0]) * state.scale[0]) for age in ages}


def test_of_what_lies_on_one_instant_the_largest_counts() -> None:
    seen = LastSeen(2)
    seen.grow(3)
    values = np.array([[1, 5], [2, 0], [1, 9], [7, 7], [3, 3]], np.float32)
    seen.learn(np.array([0, 0, 0, 2, 2]), np.array([4, 4, 4, 5, 6]), values)
    assert seen.values.tolist() == [[2, 0], [0, 0], [3, 3]]
    seen.learn(np.array([0, 2, 1]), np.array([4, 5, 1]), np.array([[1, 9], [8, 8], [0, 1]], np.float32))
    assert seen.values.tolist() == [[2, 0], [0, 1], [3, 3]]
    seen.learn(np.array([0]), np.array([4]), np.array([[2, 1]], np.float32))
    assert seen.values[0].tolist() == [2, 1]
    assert seen.time.tolist()[:3] == [4, 1, 6]


def test_a_log_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit, where no columns are named in another order; an update; vectors of rows, and those along them."""
    new = log(90, seed=6, users=14, days=9)
    new["time"] = [t + 3 * DAY for t in new["time"]]
    fitted, bare = copy.deepcopy(FITTED), encoder(columns={}).fit(events(FIRST))
    along, whole = FITTED.vectors_along(events(new)), copy.deepcopy(FITTED).update(events(new))
    vectors = whole.vectors(events(new))
    monkeypatch.setattr(batch, "_PIECE_ROWS", 7)
    first, second = (in_pieces(events(columns), 7) for columns in (FIRST, new))
    assert encoder(columns={}).fit(first).space == bare.space
    assert_allclose(fitted.vectors_along(second), along, rtol=0, atol=1e-5)
    assert_allclose(fitted.update(second).vectors(second), vectors, rtol=0, atol=1e-5)
    assert fitted.info.rows == whole.info.rows == 90
    assert (fitted.ids == whole.ids).all()
    assert_allclose(fitted.vectors_of(fitted.ids), whole.vectors_of(whole.ids), rtol=0, atol=1e-5)
    assert fitted.reconciled(second).max() > 1e-3  # those are not all that it knows
    assert fitted.reconciled(in_pieces(events(both(FIRST, new)), 7)).max() <= 1e-5


@pytest.mark.parametrize(("unit", "zero"), [(1.0, 1.7e9), (1e-9, 0.0), (1e-3, 1e6), (1e15, -1e18)])
def test_units_and_zeros_of_numbers_make_no_difference(unit: float, zero: float) -> None:
    """Such as the seconds since 1970 of what happened on one day; of a column of a row, and of one of an item."""
    new = log(20, seed=9, users=14, videos=30, days=9)
    model = encoder().fit(events(FIRST))
    changed = [
        {**columns, **{name: [zero + unit * x for x in columns[name]] for name in ("age", "length")}}
        for columns in (FIRST, new)
    ]
    other = encoder().fit(events(changed[0]))
    assert_allclose(other.vectors_of(model.ids), model.vectors_of(model.ids), rtol=0, atol=1e-5)
    assert_allclose(other.vectors(events(changed[1])), model.vectors(events(new)), rtol=0, atol=1e-5)
    both_ = model.update(events(new)), other.update(events(changed[1]))
    asked, found = (one.vectors_of(model.ids) for one in both_)
    assert_allclose(found, asked, rtol=0, atol=1e-5)
    assert_allclose(*(one.item_vectors("content")[1] for one in both_), rtol=0, atol=1e-5)


def test_numbers_as_far_as_they_may_be_leave_vectors_finite() -> None:
    """Where the fit has seen them within billionths of each other."""
    near = {**FIRST, **{name: [1e-9 * x for x in FIRST[name]] for name in ("age", "length")}}
    model = encoder().fit(events(near))
    one = {name: [values[0], values[0]] for name, values in FIRST.items()} | {"video_id": [900, 901]}
    far = events({**one, "age": [3e38, -3e38], "length": [3e38, -3e38]})
    assert np.isfinite(model.vectors(far)).all()
    assert np.isfinite(model.update(far).item_vectors("content")[1]).all()
    assert np.isfinite(model.vectors_of(model.ids)).all()


def test_a_fit_holds_little_more_than_the_last_rows_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the log is, and whatever lies on one instant."""
    held = list[int]()
    joined = learning.stacked_rows

    def counted(parts: Any) -> Any:
        held.append(sum(map(len, parts)))
        return joined(parts)

    many = log(600, seed=6, users=5, days=30)
    whole = encoder(columns={"profile": ["age", "length"]}).fit(events(many))
    monkeypatch.setattr(batch, "_PIECE_ROWS", 10)
    monkeypatch.setattr(learning, "stacked_rows", counted)
    asked = encoder(columns={"profile": ["age", "length"]}, items={"alike": ac.ItemVectors(size=2)})
    in_parts = asked.fit(in_pieces(events(many), 10))
    assert len(held) > 10
    assert max(held) < 30
    seen, other = (model.state.last_seen for model in (whole, in_parts))
    ids = whole.ids.tolist()
    there = [in_parts.ids.tolist().index(id) for id in ids]
    assert_allclose(other.values[there], seen.values[: len(ids)], rtol=0, atol=1e-5)
    assert (other.time[there] == seen.time[: len(ids)]).all()
