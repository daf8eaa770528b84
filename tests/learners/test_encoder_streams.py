"""Whatever way events come, what is known of an entity is the same: one by one, in batches, late, or at once."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, HOUR, START, encoder, events, log, rows_of

FIRST = log(120, seed=1, days=4)
FITTED = {
    (decay, most): encoder(decay=decay, most_events=most).fit(events(FIRST))
    for decay in ("exact", "exponential")
    for most in (6, 200)
}
CASES = pytest.mark.parametrize("case", list(FITTED))


def shown(columns: dict[str, Any], row: int) -> list[str]:
    return [name for name in ("click", "like") if columns[name][row] == 1]


def with_all(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: [*FIRST[name], *columns[name]] for name in FIRST}


@CASES
@settings(max_examples=25)
@given(data=st.data())
def test_one_by_one_is_in_batches_is_all_at_once(case: Any, data: st.DataObject) -> None:
    """Events come in any order, some of them long after others, and of users and videos that nobody knew."""
    new = log(data.draw(st.integers(1, 40)), seed=data.draw(st.integers(0, 999)), users=13, videos=15)
    rows = len(new["time"])
    at_once, in_parts, single = (copy.deepcopy(FITTED[case]) for _ in range(3))
    at_once.update(events(new))
    order = np.random.default_rng(data.draw(st.integers(0, 999))).permutation(rows)
    for part in np.array_split(order, data.draw(st.integers(1, 5))):
        if len(part):
            in_parts.update(events(rows_of(new, part)))
    at = max(at_once.cut, max(new["time"])) + data.draw(st.sampled_from([1, HOUR, DAY, 5 * DAY]))
    ids = list(range(14))
    expected = at_once.vectors_of(ids, at)
    assert_allclose(in_parts.vectors_of(ids, at), expected, rtol=0, atol=1e-5)
    for learned in (at_once, in_parts):
        differences = learned.reconciled(events(with_all(new)))
        assert len(differences) == len(learned.ids)
        assert differences.max() <= 1e-5
    # What the service sees of single events has no columns: those are the only difference there may be.
    in_parts.state.last_seen.time[:] = at_once.state.last_seen.time[:] = np.iinfo(np.int64).min
    single.state.last_seen.time[:] = np.iinfo(np.int64).min
    for row in order.tolist():
        single.observe(new["user_id"][row], new["video_id"][row], new["time"][row], shown(new, row))
    known = [int(i) for i in single.ids if i in set(at_once.ids.tolist())]
    videos = set(FIRST["video_id"])
    touched = [
        u
        for u in known
        if all(v in videos for v, w in zip(new["video_id"], new["user_id"], strict=True) if w == u)
    ]
    assert_allclose(single.vectors_of(touched, at), at_once.vectors_of(touched, at), rtol=0, atol=1e-5)


@CASES
@settings(max_examples=15)
@given(seed=st.integers(0, 999))
def test_along_events_each_row_sees_what_is_strictly_earlier(case: Any, seed: int) -> None:
    new = log(30, seed=seed, users=11, videos=14)
    asked = events(new)
    table = asked.table(["time", "user_id"])
    times, users = table["time"].cast("int64").to_numpy(), table["user_id"].to_numpy()
    along = FITTED[case].vectors_along(asked)
    for moment in np.unique(times):
        learned = copy.deepcopy(FITTED[case]).update(asked.before(int(moment)))
        here = np.flatnonzero(times == moment)
        now = asked.between(int(moment), int(moment) + 1)
        assert_allclose(along[here], learned.vectors(now), rtol=0, atol=1e-5)
    assert len(along) == len(users)


def test_a_vector_right_after_an_event_is_that_of_the_table() -> None:
    model = copy.deepcopy(FITTED["exact", 200])
    vector = model.observe(3, 5, START + 20 * DAY, ["click"])
    assert_allclose(vector, model.vectors_of([3])[0], rtol=0, atol=1e-6)
    assert model.cut == START + 20 * DAY
    assert model.observe(99, 777, START + 20 * DAY).shape == (4,)
    assert model.ids[-1] == 99


def test_an_update_touches_the_entities_in_it_alone() -> None:
    model = copy.deepcopy(FITTED["exact", 200])
    at = START + 30 * DAY
    before = model.vectors_of(model.ids, at)
    model.update(events({name: [values[0]] for name, values in log(1, seed=5).items()}))
    changed = np.abs(model.vectors_of(model.ids, at) - before).max(axis=1) > 0
    assert model.info.changed == 1
    assert changed.sum() <= 1


# --- nothing that comes later, or at the same time --------------------------------------------------------------


@CASES
def test_what_comes_at_the_row_or_later_changes_no_vector_that_it_gets(case: Any) -> None:
    new = log(40, seed=3)
    asked = events(new)
    times = asked.table(["time"])["time"].cast("int64").to_numpy()
    model = FITTED[case]
    for row in (0, 13, 39):
        moment = int(times[row])
        later = [i for i, t in enumerate(new["time"]) if t >= moment]
        other = {name: list(values) for name, values in new.items()}
        for i in later:
            other["click"][i], other["like"][i] = 1 - (new["click"][i] or 0), 1
        more = {name: [*values, *[values[i] for i in later]] for name, values in other.items()}
        for changed in (other, more):
            altered = events(changed)
            now = altered.table(["time"])["time"].cast("int64").to_numpy()
            same = np.searchsorted(now, moment)
            assert same == np.searchsorted(times, moment)
            assert_allclose(
                model.vectors_along(altered)[:same], model.vectors_along(asked)[:same], rtol=0, atol=1e-6
            )
            assert_allclose(model.vectors(altered)[:same], model.vectors(asked)[:same], rtol=0, atol=1e-6)
    blind = events({**new, "click": [None] * 40, "like": [0] * 40})
    assert_allclose(model.vectors(blind), model.vectors(asked), rtol=0, atol=0)
