"""An encoder whose entities and items are rows of a store: what is written, resumed and forgotten."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_encoders import encoder, events, log, rows_of
from sample_events import DAY
from stored_units import SPACE, as_rows, filled, resumed

import acclimate as ac
from acclimate.errors import FormatError
from acclimate.learners.carried import Carried
from acclimate.learners.user_encoder import UserEncoder
from acclimate.publish.stores.forgetting import forget
from acclimate.publish.stores.memory import MemoryStore
from acclimate.publish.stores.units import ROWS, SHARED, Unit
from acclimate.storage import InSegments

FITTED = encoder(most_events=20).fit(events(log(200)))


def later(columns: dict[str, Any], days: int) -> dict[str, Any]:
    return {**columns, "time": [time + days * DAY for time in columns["time"]]}


def test_a_batch_writes_what_it_touches_and_what_is_shared_does_not_grow() -> None:
    store, lease, carried = filled(FITTED)
    shared = dict(store.scan("learner/1/0", SHARED))
    assert list(carried.changed()) == []
    new = later(rows_of(log(40, seed=3, users=30, videos=20), range(5)), 30)
    carried.learn(events(new))
    changed = {name: set[int]() for name in carried.columns()}
    for name, ids, _ in carried.changed():
        changed[name] |= set(ids.tolist())
    assert changed["users"] == set(new["user_id"]) == changed["vectors/user"]
    assert set(new["video_id"]) - set(range(12)) <= changed["items"] <= set(new["video_id"])
    unit = Unit(store, SPACE, 0)
    unit.commit(lease, carried, position="1", after="0")
    assert list(carried.changed()) == []
    after = dict(store.scan("learner/1/0", SHARED))
    assert {key for key in after if after[key] != shared.get(key)} == {b"learner manifest"}
    assert abs(len(after[b"learner manifest"]) - len(shared[b"learner manifest"])) < 8  # the digits of a time
    assert carried.columns() == {"items": ("video_id",), "users": ("user_id",), "vectors/user": ("user_id",)}
    assert carried.learned_columns() == {("user_id",)}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=4))
def test_resumed_at_each_batch_it_is_as_if_it_had_never_stopped(batches: list[tuple[int, int]]) -> None:
    store, lease, _ = filled(FITTED)
    in_memory = copy.deepcopy(FITTED)
    for number, (seed, rows) in enumerate(batches):
        new = events(later(log(rows, seed=seed, users=14, videos=16), 5 * seed - 20))  # late ones too
        unit, carried = resumed(store)
        carried.learn(new)
        in_memory.update(new)
        unit.commit(lease, carried, position=str(number + 1), after=str(number))
    _, carried = resumed(store)
    assert carried.learner.ids.tolist() == in_memory.ids.tolist()
    assert (carried.learner.vectors_of(in_memory.ids) == in_memory.vectors_of(in_memory.ids)).all()
    assert as_rows(carried) == as_rows(Carried(in_memory))
    assert carried.learner.nbytes == in_memory.nbytes


def test_events_learned_one_by_one_are_written_too() -> None:
    store, lease, carried = filled(FITTED)
    at = FITTED.cut + 1
    for number, (user, video) in enumerate([(3, 5), (77, 5), (3, 99)]):
        carried.learner.observe(user, video, at + number)
    Unit(store, SPACE, 0).commit(lease, carried, position="1", after="0")
    again = resumed(store)[1].learner
    assert (again.vectors_of([3, 77]) == carried.learner.vectors_of([3, 77])).all()
    assert again.ids.tolist() == carried.learner.ids.tolist()


def test_an_entity_that_is_forgotten_is_gone_and_the_others_go_on() -> None:
    store, _, _ = filled(FITTED)
    others = [id for id in FITTED.ids.tolist() if id != 4]
    gone = forget(store, "user_id", [4])
    assert (gone.values, gone.units, gone.others) == (2, ("learner/1/0",), ())  # its row and its vector
    unit, carried = resumed(store)
    assert carried.learner.ids.tolist() == others
    assert (carried.learner.vectors_of(others) == FITTED.vectors_of(others)).all()
    assert (carried.learner.vectors_of([4]) == FITTED.vectors_of([1_000])).all()  # as of a stranger
    lease = store.acquire("learner/1/0", "test", 600.0, take_over=True)
    assert lease is not None
    for number, user in enumerate([50, 4]):  # new ones come after those that are there
        carried.learner.observe(user, 1, FITTED.cut + 1 + number)
    unit.commit(lease, carried, position="1", after="0")
    again = resumed(store)[1].learner
    assert again.ids.tolist() == [*others, 50, 4]
    assert (again.vectors_of(again.ids) == carried.learner.vectors_of(again.ids)).all()


def test_of_an_item_that_is_forgotten_no_history_tells() -> None:
    store, _, _ = filled(FITTED)
    last = FITTED.item_vectors("content")[0].tolist()[-1]
    forget(store, "video_id", [last])
    unit, carried = resumed(store)
    assert last not in carried.learner.item_vectors("content")[0].tolist()
    before, after = FITTED.state.histories, carried.learner.state.histories
    everyone = np.arange(len(FITTED.ids))
    told = before.log(everyone)
    number = FITTED.state.items.index.numbers(np.array([last]))[0]
    assert len(after.log(everyone)) == np.sum(told.item != number) < len(told)
    lease = store.acquire("learner/1/0", "test", 600.0, take_over=True)
    assert lease is not None
    carried.learner.observe(0, 500, FITTED.cut + 1)  # a new item is not taken for the one that was forgotten
    unit.commit(lease, carried, position="1", after="0")
    again = resumed(store)[1].learner
    assert len(again.state.histories.log(everyone)) == len(carried.learner.state.histories.log(everyone))
    assert (again.vectors_of(again.ids) == carried.learner.vectors_of(again.ids)).all()


def test_a_partition_has_its_entities_and_all_items() -> None:
    store, carried = MemoryStore(), Carried(copy.deepcopy(FITTED))
    lease = store.acquire("learner/1/0", "test", 600.0)
    assert lease is not None
    unit = Unit(store, SPACE, 0)
    unit.fill(lease, carried, keep=lambda _, columns, ids: (columns != ("user_id",)) | (ids % 2 == 0))
    even = [id for id in FITTED.ids.tolist() if id % 2 == 0]
    assert carried.learner.ids.tolist() == even
    assert (carried.learner.vectors_of(even) == FITTED.vectors_of(even)).all()
    assert store.size("learner/1/0")[ROWS + "items"] == len(FITTED.state.items)


def test_a_saved_one_has_a_row_of_each_and_goes_on(tmp_path: Path) -> None:
    FITTED.save(tmp_path / "m")
    loaded = UserEncoder.load(tmp_path / "m")
    assert loaded.ids.tolist() == FITTED.ids.tolist()
    new = events(later(log(60, seed=5, users=20, videos=20), 20))
    assert (loaded.update(new).vectors(new) == copy.deepcopy(FITTED).update(new).vectors(new)).all()


def test_rows_of_another_encoder_are_refused() -> None:
    other, carried = encoder(most_events=3, columns={}).fit(events(log(200))), Carried(copy.deepcopy(FITTED))
    other_items = {"content": ac.ItemVectors(["tags"], size=3)}
    for learner in (other, encoder(items=other_items).fit(events(log(200)))):
        store, _, _ = filled(learner)
        with pytest.raises(FormatError, match=r"what is stored of (users|items) is damaged"):
            carried.rest_on(Unit(store, SPACE, 0).rows)
    with pytest.raises(FormatError, match="there twice"):
        Carried(copy.deepcopy(FITTED)).rest_on(lambda name: Twice() if name == "items" else InSegments())


class Twice(InSegments):
    """Two items of one number."""

    def pieces(self) -> Any:
        columns = {"vectors": np.zeros((2, 5), np.float32), "known": np.ones((2, 2), np.int32)}
        yield np.array([1, 2]), {"number": np.zeros(2, np.int64), **columns}
