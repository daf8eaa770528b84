"""One stream of events, learned in every way that there is: the vectors are the same to the last digits.

Times lie on each other, on the edges of windows and a microsecond beside them; some come long after others.
"""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, HOUR, START, encoder, events, log, rows_of

import acclimate as ac
from acclimate.learners.user_encoder import UserEncoder

WINDOWS = (DAY, 3 * DAY, 9 * DAY)  # of the encoders below
FIRST = log(120, seed=1, days=4)
BEGIN = START + 4 * DAY
USERS, VIDEOS = 12, 15  # the first log has 9 and 12

# What single events lack, features of items and of rows, is not part of these: nothing else may differ.
FITTED = {
    (decay, most): encoder(
        items={"together": ac.ItemVectors(size=3), "liked": ac.ItemVectors(behaviour="like", size=2)},
        columns={},
        decay=decay,
        most_events=most,
    ).fit(events(FIRST))
    for decay in ("exact", "exponential")
    for most in (5, 200)
}
CASES = pytest.mark.parametrize("case", list(FITTED), ids=lambda case: f"{case[0]}-{case[1]}")

instants = st.builds(
    lambda begin, window, beside: BEGIN + begin * 6 * HOUR - window + beside,
    st.integers(0, 20),
    st.sampled_from((0, *WINDOWS)),
    st.sampled_from((-1, 0, 0, 0, 1)),
)


@st.composite
def streams(draw: st.DrawFn, late: bool = True) -> dict[str, Any]:
    """Events in the order in which they come."""
    rows = draw(
        st.lists(
            st.tuples(
                instants,
                st.integers(0, USERS - 1),
                st.integers(0, VIDEOS - 1),
                st.sampled_from((None, 0, 1)),
                st.sampled_from((0, 1)),
            ),
            min_size=1,
            max_size=25,
        )
    )
    time, user, video, click, like = (list(column) for column in zip(*rows, strict=True))
    if not late:
        time = [t + 9 * DAY for t in time]
    return {
        **{name: values * len(rows) for name, values in rows_of(FIRST, [0]).items()},
        "time": time,
        "user_id": user,
        "video_id": video,
        "click": click,
        "like": like,
    }


def shown(columns: dict[str, Any], row: int) -> list[str]:
    return [name for name in ("click", "like") if columns[name][row] == 1]


def observed(model: UserEncoder, columns: dict[str, Any], rows: Any) -> UserEncoder:
    """The model, which has learned these rows one by one."""
    for row in rows:
        model.observe(columns["user_id"][row], columns["video_id"][row], columns["time"][row], shown(columns, row))
    return model


def edges(columns: dict[str, Any]) -> list[int]:
    """Moments at which an event is just in a window, just out of it, or there at all."""
    return sorted(
        {t + window + beside for t in columns["time"][:6] for window in (0, *WINDOWS) for beside in (0, 1)}
    )


@CASES
@settings(max_examples=20)
@given(new=streams(), data=st.data())
def test_one_by_one_in_chunks_in_one_batch_and_made_anew(case: Any, new: dict[str, Any], data: Any) -> None:
    rows = len(new["time"])
    order = data.draw(st.permutations(range(rows)))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    at_once = copy.deepcopy(FITTED[case]).update(events(new))
    in_chunks, anew = copy.deepcopy(FITTED[case]), FITTED[case].emptied()
    for chunk in np.split(np.array(order), cuts):
        if len(chunk):
            in_chunks.update(events(rows_of(new, chunk)))
    single = observed(copy.deepcopy(FITTED[case]), new, order)
    everything = {name: [*FIRST[name], *new[name]] for name in FIRST}
    anew.update(events(everything))
    ids = list(range(USERS + 1))  # one is a stranger to all
    for at in edges(new):
        expected = anew.vectors_of(ids, at)
        for model in (at_once, in_chunks, single):
            assert_allclose(model.vectors_of(ids, at), expected, rtol=0, atol=1e-5)
    for model in (at_once, in_chunks, single, anew):
        assert model.cut == max(everything["time"])
        differences = model.reconciled(events(everything))
        assert differences.shape == (len(model.ids),)
        assert differences.max() <= 1e-5


@CASES
@settings(max_examples=15)
@given(new=streams(late=False), data=st.data())
def test_along_a_log_each_row_gets_what_was_learned_before_it(case: Any, new: dict[str, Any], data: Any) -> None:
    asked = events(new)
    table = asked.table(["time", "user_id"])
    times, users = table["time"].cast("int64").to_numpy(), table["user_id"].to_numpy()
    along, model = FITTED[case].vectors_along(asked), copy.deepcopy(FITTED[case])
    assert along.shape == (len(users), model.size)
    for moment in np.unique(times).tolist():
        here = np.flatnonzero(times == moment)
        now = asked.between(moment, moment + 1)
        assert_allclose(model.vectors(now), along[here], rtol=0, atol=1e-5)
        assert_allclose(model.vectors_of(users[here], moment), along[here], rtol=0, atol=1e-5)
        rows = [row for row, time in enumerate(new["time"]) if time == moment]
        observed(model, new, data.draw(st.permutations(rows)))


@CASES
@settings(max_examples=15)
@given(new=streams())
def test_along_a_log_of_late_rows_too(case: Any, new: dict[str, Any]) -> None:
    """What is older than all that is kept of someone is dropped when it comes."""
    asked = events(new)
    times = asked.table(["time"])["time"].cast("int64").to_numpy()
    along = FITTED[case].vectors_along(asked)
    for moment in np.unique(times).tolist():
        model = copy.deepcopy(FITTED[case]).update(asked.before(moment))
        now = asked.between(moment, moment + 1)
        assert_allclose(model.vectors(now), along[times == moment], rtol=0, atol=1e-5)
