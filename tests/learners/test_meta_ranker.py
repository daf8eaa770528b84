"""Whatever way events come, a meta embedding is a function of shared weights and of an entity's newest rows."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import in_pieces
from sample_meta import (
    DAY,
    LARGE,
    START,
    distinct_times,
    embeddings_of,
    emptied,
    events,
    log,
    ranker,
    rows_of,
)

import acclimate as ac
from acclimate.learners import batch

FIRST = log(150, seed=1)
FITTED = {"capped": ranker().fit(events(FIRST)), "all": ranker(blocks=LARGE).fit(events(FIRST))}
CASES = pytest.mark.parametrize("case", list(FITTED))


def times(asked: ac.Events) -> Any:
    return asked.table(["time"])["time"].cast("int64").to_numpy()


def shifted(columns: dict[str, Any], by: int) -> dict[str, Any]:
    return {**columns, "time": [time + by for time in columns["time"]]}


def in_parts_of(rows: int, method: Any, asked: ac.Events) -> Any:
    """What a method says of events that are read so many rows at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_PIECE_ROWS", rows)
        return method(in_pieces(asked, rows))


def assert_same(actual: ac.MetaRanker, expected: ac.MetaRanker, *, atol: float = 1e-5) -> None:
    one, other = embeddings_of(actual), embeddings_of(expected)
    assert one.keys() == other.keys()
    for name, vectors in one.items():
        assert vectors.keys() == other[name].keys()
        for id, vector in vectors.items():
            assert_allclose(vector, other[name][id], rtol=0, atol=atol, err_msg=f"{name} {id}")


# --- along events: what is strictly earlier, and nothing else ---------------------------------------------------


@CASES
@settings(max_examples=4)
@given(seed=st.integers(0, 999), pieces=st.integers(1, 30))
def test_along_events_each_row_gets_what_an_update_with_all_earlier_ones_would_give(
    case: str, seed: int, pieces: int
) -> None:
    """Users, items and countries that nobody knew are among them, and rows of unknown label."""
    asked = events(shifted(log(30, seed=seed, users=8, items=7, days=1), 4 * DAY))
    time, along = times(asked), in_parts_of(pieces, FITTED[case].predict_along, asked)
    assert along.shape == time.shape
    for moment in np.unique(time).tolist():
        learned = copy.deepcopy(FITTED[case]).update(asked.before(moment))
        now = asked.between(moment, moment + 1)
        assert_allclose(along[time == moment], learned.predict(now), rtol=0, atol=1e-5)


@settings(max_examples=4)
@given(seed=st.integers(0, 999))
def test_along_late_events_each_row_gets_what_those_before_it_say(seed: int) -> None:
    """What is known of later is left out, other than by an update and ``predict``."""
    new, model = log(25, seed=seed, users=8, items=7), FITTED["all"]
    asked, everything = events(new), events({name: [*FIRST[name], *new[name]] for name in new})
    time, along = times(asked), model.predict_along(asked)
    for moment in np.unique(time).tolist():
        learned = emptied(model).update(everything.before(moment))
        now = asked.between(moment, moment + 1)
        assert_allclose(along[time == moment], learned.predict(now), rtol=0, atol=1e-5)


@CASES
def test_nothing_at_a_row_or_after_it_changes_what_it_gets(case: str) -> None:
    new, model = log(40, seed=3), FITTED[case]
    asked = events(new)
    time, along = times(asked), model.predict_along(asked)
    for moment in time[[0, 13, 39]].tolist():
        later = [i for i, t in enumerate(new["time"]) if t >= moment]
        other = {name: list(values) for name, values in new.items()}
        for i in later:
            other["click"][i], other["weight"][i] = 1 - (new["click"][i] or 0), 7.0
        same = np.searchsorted(time, moment, side="right")
        assert_allclose(model.predict_along(events(other))[:same], along[:same], rtol=0, atol=1e-6)
        more = {name: [*values, *(values[i] for i in later)] for name, values in other.items()}
        before = np.searchsorted(time, moment)
        assert_allclose(model.predict_along(events(more))[:before], along[:before], rtol=0, atol=1e-6)
    blind = events({**new, "click": [None] * 40})
    assert_array_equal(model.predict(blind), model.predict(asked))


@CASES
def test_along_events_changes_nothing(case: str) -> None:
    model = copy.deepcopy(FITTED[case])
    model.predict_along(events(log(40, seed=3, users=9)))
    assert_same(model, FITTED[case], atol=0)
    assert model.state.supports.buffer.count == FITTED[case].state.supports.buffer.count
    assert model.predict_along(events(FIRST).before(START - DAY)).shape == (0,)


# --- updates ----------------------------------------------------------------------------------------------------


@CASES
@settings(max_examples=15)
@given(data=st.data())
def test_in_pieces_late_or_all_at_once(case: str, data: st.DataObject) -> None:
    new = distinct_times(log(data.draw(st.integers(1, 40)), seed=data.draw(st.integers(0, 999)), users=9, items=8))
    at_once, in_parts = copy.deepcopy(FITTED[case]), copy.deepcopy(FITTED[case])
    in_parts_of(data.draw(st.integers(1, 40)), at_once.update, events(new))
    order = np.random.default_rng(data.draw(st.integers(0, 999))).permutation(len(new["time"]))
    for part in np.array_split(order, data.draw(st.integers(1, 5))):
        if len(part):
            in_parts.update(events(rows_of(new, part)))
    assert_same(in_parts, at_once)
    assert in_parts.cut == at_once.cut


def test_a_fit_keeps_what_updates_with_the_same_events_would() -> None:
    model = FITTED["capped"]
    assert_same(emptied(model).update(events(FIRST)), model)
    asked = events(log(40, seed=3, users=9))
    for rows in (1, 7, 39):
        assert_allclose(in_parts_of(rows, model.predict, asked), model.predict(asked), rtol=0, atol=1e-6)
    in_parts = in_parts_of(7, ranker().fit, events(FIRST))  # sums are rounded otherwise
    assert_same(in_parts, model, atol=1e-5)
    assert_allclose(in_parts.predict(asked), model.predict(asked), rtol=0, atol=1e-5)


def test_entities_with_new_events_alone_change() -> None:
    new = {name: values[:1] for name, values in shifted(log(1, seed=5), 9 * DAY).items()} | {"click": [1]}
    model = copy.deepcopy(FITTED["capped"]).update(events(new))
    assert model.info.adapted == {"user": 1, "item": 1, "both": 1}
    touched = {"user": new["user_id"], "item": new["item_id"]}
    before = embeddings_of(FITTED["capped"])
    for name, vectors in embeddings_of(model).items():
        for id, vector in vectors.items():
            if id in touched.get(name, vectors):
                continue
            assert_array_equal(vector, before[name][id])
    for name, (id,) in touched.items():
        assert not np.array_equal(model.vectors_of(name, [id]), FITTED["capped"].vectors_of(name, [id]))


def test_an_event_older_than_all_that_are_kept_changes_nothing() -> None:
    model = copy.deepcopy(FITTED["capped"]).update(events({**shifted(log(1, seed=5), -DAY), "click": [1]}))
    assert model.info.adapted["user"] == model.info.adapted["item"] == 0
    assert model.cut == FITTED["capped"].cut


def test_rows_of_unknown_label_are_no_support() -> None:
    new = log(30, seed=2, users=9)
    known = [i for i, y in enumerate(new["click"]) if y is not None]
    one, other = copy.deepcopy(FITTED["capped"]), copy.deepcopy(FITTED["capped"])
    assert_same(one.update(events(new)), other.update(events(rows_of(new, known))), atol=0)
    assert one.info.rows == len(known) < 30


def test_who_has_no_events_gets_the_output_of_the_block_on_its_features() -> None:
    model = FITTED["capped"]
    strangers = {**log(5, seed=4), "user_id": [77] * 5, "item_id": [88] * 5}
    vectors = model.vectors(events(strangers))
    assert_allclose(vectors, emptied(model).vectors(events(strangers)), rtol=0, atol=1e-6)
    other = {**strangers, "user_id": [99] * 5, "time": [START] * 5, "click": [0] * 5}
    assert_allclose(np.sort(model.vectors(events(other)), axis=0), np.sort(vectors, axis=0), rtol=0, atol=1e-6)
    assert np.isnan(model.vectors_of("user", [77])).all()
    assert (vectors[:, :3].std(axis=0) > 0).any()  # of another age is another vector
