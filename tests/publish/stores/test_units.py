"""A learner in a unit of a store learns as it does in memory, bit for bit, and nothing is half there."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clocks import Clock
from numpy.testing import assert_allclose, assert_array_equal

import acclimate as ac
from acclimate.artifacts import Commit, Space
from acclimate.config import CalibratedParameters
from acclimate.errors import ConfigError, FencedError, FormatError, OutputError, SpaceError
from acclimate.learners import make
from acclimate.learners.carried import Carried
from acclimate.publish.stores.codec import encoded_ids
from acclimate.publish.stores.forgetting import forget
from acclimate.publish.stores.memory import MemoryStore
from acclimate.publish.stores.units import Unit

SPACE = Space("ranker", 2, "weights", "contract", 1_650_844_800_000_000)
SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "item": "item_id"},
    labels="click",
    features={"x": ac.Feature(), "tag": ac.Feature()},
)
DAY = 86_400_000_000


def log(day: int, *, text: bool = False, rows: int = 60) -> ac.Events:
    """A day: users come anew each day, and tags too, so that features grow."""
    rng = np.random.default_rng(day)
    user, item = rng.integers(-3, 12 + 4 * day, rows), rng.integers(0, 9, rows)
    columns = {
        "time": pa.array(SPACE.cut + day * DAY + np.sort(rng.integers(0, DAY, rows)), pa.timestamp("us", "UTC")),
        "user_id": [f"user ü {u}" for u in user] if text else user,
        "item_id": item,
        "x": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * rows)), 3),
        "tag": [f"tag {k}" for k in rng.integers(0, 4 + 2 * day, rows)],
        "click": rng.integers(0, 2, rows).astype(np.int8),
    }
    return ac.read_events(pa.table(columns), SCHEMA).cached()


def glmix(*random: ac.RandomEffect, **declared: Any) -> ac.GLMix:
    return ac.GLMix(fixed=ac.FixedEffect(["x", "tag"]), random=random, **declared)


DENSE = ac.RandomEffect("user", ["x", "tag"])
SPARSE = ac.RandomEffect("user", ["x", "tag"], support="observed")
PAIRS = ac.RandomEffect(("user", "item"), ["x"])
TOP = replace(glmix(DENSE).parameters, fixed=ac.FixedEffect(["x", "item rate", "below"]))
BELOW = {"below": glmix(ac.RandomEffect("item", ["x"])).parameters, "item rate": ac.Rate("item").parameters}

META: dict[str, Any] = {
    "features": ["x", "tag"],
    "blocks": {
        "user": ac.MetaBlock(entity="user", features=["tag"], hidden=[3], size=2, support=3),
        "pair": ac.MetaBlock(entity=["user", "item"], hidden=[], size=2, steps=2, support=40),
    },
    "embedding": 2,
    "hidden": [3],
    "training": ac.Training(epochs=1, batch=16),
}
BELOW_META = replace(TOP, fixed=ac.FixedEffect(["x", "below"])), {"below": ac.MetaRanker(**META).parameters}

LEARNERS = {
    "dense": lambda: glmix(DENSE),
    "float32": lambda: glmix(DENSE, states="float32"),
    "diagonal": lambda: glmix(replace(DENSE, precision="diagonal")),
    "observed": lambda: glmix(SPARSE, ac.RandomEffect("item", ["tag"], support="observed"), states="float32"),
    "pairs": lambda: glmix(DENSE, PAIRS),
    "forgetting": lambda: glmix(replace(DENSE, half_life="2d")),
    "calibrated": lambda: make(CalibratedParameters(glmix(DENSE).parameters)),
    "stack": lambda: ac.Stack(TOP, BELOW),
    "rate": lambda: ac.Rate("user"),
    "meta": lambda: ac.MetaRanker(**META),
    "stack of meta": lambda: ac.Stack(*BELOW_META),
}


def contents(learner: Any) -> tuple[bytes, dict[tuple[str, Any], dict[str, bytes]]]:
    """All that a learner knows."""
    carried, rows = Carried(learner), dict[tuple[str, Any], dict[str, bytes]]()
    for name, ids, columns in carried.everything():
        for i, id in enumerate(ids.tolist()):
            assert (name, id) not in rows
            rows[name, id] = {key: np.asarray(column[i]).tobytes() for key, column in columns.items()}
    return carried.shared(), rows


def filled(store: Any, learner: Any, space: Space = SPACE, partition: int = 0) -> Unit:
    unit = Unit(store, space, partition)
    lease = store.acquire(unit.name, "filler", 60)
    unit.fill(lease, Carried(learner), position="0")
    store.release(lease)
    return unit


def days(store: Any, space: Space, first: int, last: int, *, text: bool) -> Any:
    """A process that learns some days from a store."""
    unit = Unit(store, space, 0)
    lease = store.acquire(unit.name, f"process {first}", 60)
    carried = unit.resumed(Carried.made)
    for day in range(first, last):
        carried.learner.update(log(day, text=text))
        unit.commit(lease, carried, position=str(day), after=str(day - 1))
        assert list(carried.changed()) == []
    store.release(lease)
    return carried.learner


@pytest.mark.parametrize(
    ("kind", "text"), [*((kind, False) for kind in LEARNERS), ("dense", True), ("stack", True), ("meta", True)]
)
def test_it_learns_as_in_memory(opening, kind, text, tmp_path):
    in_memory = LEARNERS[kind]().fit(log(0, text=text))
    in_memory.save(tmp_path / "model")
    filled(opening(), type(in_memory).load(tmp_path / "model"))
    days(opening(), SPACE, 1, 3, text=text)
    learner = days(opening(), SPACE, 3, 5, text=text)
    for day in range(1, 5):
        in_memory.update(log(day, text=text))
    assert contents(learner) == contents(in_memory)
    assert_array_equal(learner.predict(log(5, text=text)), in_memory.predict(log(5, text=text)))
    learner.save(tmp_path / "snapshot")
    loaded = type(learner).load(tmp_path / "snapshot")
    # States that a save fills up to the features of now are rounded once more where they are float32.
    assert_allclose(loaded.predict(log(5, text=text)), in_memory.predict(log(5, text=text)), rtol=1e-9)
    again = learner.update(log(5, text=text))  # a save has not taken it off the store
    assert_array_equal(
        again.predict(log(6, text=text)), in_memory.update(log(5, text=text)).predict(log(6, text=text))
    )


def test_what_is_shown_of_entities_is_the_same():
    in_memory = glmix(DENSE).fit(log(0))
    store = MemoryStore()
    filled(store, copy.deepcopy(in_memory))
    learner = days(store, SPACE, 1, 3, text=False)
    in_memory.update(log(1)).update(log(2))
    learner.update(log(3))  # some of it in memory, above the store
    in_memory.update(log(3))
    for one, other in zip(learner.entity_posterior("user", 3), in_memory.entity_posterior("user", 3), strict=True):
        assert str(one) == str(other)
    shown, expected = (m.coefficients().read_all().sort_by([("id", "ascending"), ("feature", "ascending")])
                       for m in (learner, in_memory))  # fmt: skip
    assert shown.equals(expected)
    assert learner.nbytes > 0


def test_an_update_in_pieces_learns_as_in_memory():
    in_memory = glmix(DENSE).fit(log(0))
    unit = filled(MemoryStore(), copy.deepcopy(in_memory))
    carried = unit.resumed(Carried.made)
    small = replace(log(1), memory_limit=4_000)
    assert carried.learner.update(small).info.pieces > 1
    assert contents(carried.learner) == contents(in_memory.update(small))


def test_the_shared_part_is_written_when_it_changes():
    store, written = MemoryStore(), list[set[str]]()
    filled(store, glmix(DENSE).fit(log(0)))
    unit = Unit(store, SPACE, 0)
    lease, carried = store.acquire(unit.name, "a", 60), unit.resumed(Carried.made)
    commit = store.commit

    def noted(lease: Any, one: Commit) -> None:
        written.append(set(one.writes))
        commit(lease, one)

    store.commit = noted  # type: ignore[method-assign]
    unit.commit(lease, carried, position="1", after="0")
    carried.learner.update(log(1))
    unit.commit(lease, carried, position="2", after="1", more={"seen": [(b"event 7", b"")]})
    assert written[0] == set()
    assert written[1] == {"shared", "layouts", "rows/states-1", "seen"}
    assert store.read(unit.name, "seen", [b"event 7"]) == [b""]


def test_of_the_shared_part_is_written_what_has_changed():
    store = MemoryStore()
    filled(store, glmix(DENSE).fit(log(0)))
    unit = Unit(store, SPACE, 0)
    lease, carried = store.acquire(unit.name, "a", 60), unit.resumed(Carried.made)
    before = dict(store.scan(unit.name, "shared"))
    carried.learner.update(log(1), shared="keep")  # which meets new tags
    unit.commit(lease, carried, position="1", after="0")
    after = dict(store.scan(unit.name, "shared"))
    changed = {key for key in after if after[key] != before.get(key)}
    assert b"learner manifest" in changed
    carried.learner.update(log(0), shared="keep")  # which has none that are new, and is older
    commit, written = store.commit, list[Commit]()
    store.commit = lambda lease, one: [written.append(one), commit(lease, one)]  # type: ignore[method-assign]
    unit.commit(lease, carried, position="2", after="1")
    assert {key for key, _ in written[0].writes.get("shared", ())} <= {b"learner manifest"}


def test_what_is_known_of_entities_goes_when_they_do_not_come_again():
    clock = Clock()
    store, model = MemoryStore(clock), glmix(DENSE).fit(log(0))
    unit = Unit(store, SPACE, 0, life=100.0)
    lease = store.acquire(unit.name, "a", 1000)
    unit.fill(lease, Carried(copy.deepcopy(model)), position="0")
    carried = unit.resumed(Carried.made)
    clock.now += 60.0
    one = log(1)
    some = one.head(5)
    back = set(some["user_id"].to_pylist())
    carried.learner.update(ac.read_events(some, SCHEMA))
    unit.commit(lease, carried, position="1", after="0")
    assert set(carried.learner.states("user").ids.tolist()) > back
    clock.now += 60.0
    assert set(carried.learner.states("user").ids.tolist()) == back
    assert contents(unit.resumed(Carried.made).learner) == contents(carried.learner)
    clock.now += 60.0
    assert not len(carried.learner.states("user").ids)
    # One who comes back begins as one who never was there.
    carried.learner.update(one)
    unit.commit(lease, carried, position="2", after="1")
    assert set(carried.learner.states("user").ids.tolist()) == set(one.table(["user_id"])["user_id"].to_pylist())


def test_of_a_partition_what_its_own_entities_have_alone_may_end():
    clock = Clock()
    store, model = MemoryStore(clock), glmix(DENSE, ac.RandomEffect("item", ["x"])).fit(log(0))
    unit = Unit(store, SPACE, 0, life=100.0, by="user_id")
    unit.fill(store.acquire(unit.name, "a", 1000), Carried(copy.deepcopy(model)), position="0")
    clock.now += 200.0
    learner = unit.resumed(Carried.made).learner
    assert not len(learner.states("user").ids)
    assert len(learner.states("item").ids) == len(model.states("item").ids)


def test_what_was_filled_without_an_end_gets_none_and_that_is_told():
    store, model = MemoryStore(Clock()), glmix(DENSE).fit(log(0))
    unit = filled(store, copy.deepcopy(model))
    ending = Unit(store, SPACE, 0, life=100.0)
    carried = ending.resumed(Carried.made)
    carried.learner.update(log(1))
    lease = store.acquire(unit.name, "a", 60)
    with pytest.raises(ConfigError, match=r"are to end after 100 seconds") as told:
        ending.commit(lease, carried, position="1", after="0")
    assert "forget_after" in told.value.hint
    assert contents(unit.resumed(Carried.made).learner) == contents(model)


def test_rows_of_a_layout_that_another_process_has_just_written_come_once():
    store, model = MemoryStore(), glmix(SPARSE).fit(log(0))
    writer = filled(store, copy.deepcopy(model))
    reader = Unit(store, SPACE, 0)
    assert reader.layouts()
    lease, carried = store.acquire(writer.name, "a", 60), writer.resumed(Carried.made)
    before = set(reader.layouts())
    carried.learner.update(log(3))
    writer.commit(lease, carried, position="1", after="0")
    ids = [id for some, _ in reader.rows("states-1").pieces() for id in some.tolist()]
    assert set(reader.layouts()) > before
    assert sorted(ids) == sorted(writer.rows("states-1").ids().tolist())


def test_a_fill_that_was_cut_off_begins_anew(monkeypatch):
    from acclimate.publish.stores import units

    monkeypatch.setattr(units, "_AT_ONCE", 1)  # a row in each transaction
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    unit = Unit(store, SPACE, 0)
    lease = store.acquire(unit.name, "a", 60)
    commit, left = store.commit, iter(range(5))

    def cut_off(lease: Any, one: Commit) -> None:
        if next(left, None) is None:
            raise OutputError("the disk is full")
        commit(lease, one)

    store.commit = cut_off  # type: ignore[method-assign]
    with pytest.raises(OutputError):
        unit.fill(lease, Carried(copy.deepcopy(model)), position="0")
    store.commit = commit  # type: ignore[method-assign]
    assert store.size(unit.name)["rows/states-1"] == 5
    assert (unit.resumed(Carried.made), unit.position) == (None, None)

    def only_even(name: str, columns: tuple[str, ...], ids: Any) -> Any:
        assert (name, columns) == ("states-1", ("user_id",))
        return ids % 2 == 0

    unit.fill(lease, Carried(copy.deepcopy(model)), position="0", keep=only_even)
    resumed = Unit(store, SPACE, 0).resumed(Carried.made)
    expected = {key: row for key, row in contents(model)[1].items() if key[1] % 2 == 0}
    assert contents(resumed.learner)[1] == expected
    with pytest.raises(FencedError, match="is filled already"):
        unit.fill(lease, Carried(model), position="0")


@pytest.mark.parametrize("is_lost", [False, True], ids=["before the commit", "its answer"])
def test_a_fill_that_is_cut_off_anywhere_is_never_taken_for_complete(monkeypatch, is_lost):
    from acclimate.publish.stores import units

    monkeypatch.setattr(units, "_AT_ONCE", 1_500)  # some rows in each transaction
    model, counts = glmix(DENSE).fit(log(0)), list[int]()
    expected = contents(model)
    for cut in range(100):
        store = MemoryStore()
        unit, commit, left = Unit(store, SPACE, 0), store.commit, iter(range(cut))
        lease = store.acquire(unit.name, "a", 60)

        def cut_off(lease: Any, one: Commit, commit: Any = commit, left: Any = left) -> None:
            is_last = next(left, None) is None
            if is_lost or not is_last:
                commit(lease, one)
            if is_last:
                raise OutputError("the server is gone")

        store.commit = cut_off  # type: ignore[method-assign]
        more = {"progress": [(b"p", b"1")]}
        try:
            unit.fill(lease, Carried(copy.deepcopy(model)), position="7", more=more)
            break
        except OutputError:
            store.commit = commit  # type: ignore[method-assign]
        counts.append(store.size(unit.name).get("rows/states-1", 0))
        for one in (unit, Unit(store, SPACE, 0)):
            if (carried := one.resumed(Carried.made)) is None:  # it is not complete, and begins anew
                assert (one.position, store.read(one.name, "progress", [b"p"])) == (None, [None])
                one.fill(lease, carried := Carried(copy.deepcopy(model)), position="7", more=more)
            assert (one.position, store.read(one.name, "progress", [b"p"])) == ("7", [b"1"])
            assert contents(carried.learner) == expected
    assert cut == len(counts) > 3
    store.commit = commit  # type: ignore[method-assign]
    carried = unit.resumed(Carried.made)
    unit.commit(lease, carried, position="8", after="7")  # the stream goes on from there
    assert unit.position == "8"


def test_a_unit_is_filled_anew_after_an_error_of_the_learner_and_after_a_drop(monkeypatch):
    from acclimate.publish.stores import units

    monkeypatch.setattr(units, "_AT_ONCE", 1)
    store, model, asked = MemoryStore(), glmix(DENSE, PAIRS).fit(log(0)), iter([True])
    unit = Unit(store, SPACE, 0)

    def keep(name: str, _: Any, ids: Any) -> Any:
        if name == "states-2" and next(asked, False):
            raise ValueError("no such partition")
        return np.ones(len(ids), np.bool_)

    lease = store.acquire(unit.name, "a", 60)
    with pytest.raises(ValueError, match="no such partition"):
        unit.fill(lease, Carried(copy.deepcopy(model)), keep=keep)
    unit.fill(lease, Carried(copy.deepcopy(model)), position="1", keep=keep)
    assert contents(Unit(store, SPACE, 0).resumed(Carried.made).learner) == contents(model)
    store.drop(unit.name)
    unit.fill(store.acquire(unit.name, "a", 60), Carried(copy.deepcopy(model)), position="1")
    assert contents(Unit(store, SPACE, 0).resumed(Carried.made).learner) == contents(model)


def test_a_learner_of_another_space_of_that_name_and_number_is_refused():
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    unit, anew = filled(store, copy.deepcopy(model)), replace(SPACE, weights="made anew")
    with pytest.raises(SpaceError, match=rf"the tag {SPACE.tag:016x}, and .* {anew.tag:016x}") as told:
        Unit(store, anew, 0).resumed(Carried.made)
    assert "store.drop('ranker/2/0')" in told.value.hint
    assert unit.resumed(Carried.made) is not None
    lease = store.acquire(unit.name, "a", 60)
    store.commit(lease, Commit({"shared": [(b"space", None)]}, "0", "0"))
    with pytest.raises(SpaceError, match="of a space that it does not name, and not"):
        unit.resumed(Carried.made)


def test_a_commit_that_fails_may_be_repeated():
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    unit = filled(store, copy.deepcopy(model))
    lease, carried = store.acquire(unit.name, "a", 60), unit.resumed(Carried.made)
    carried.learner.update(log(1))
    with pytest.raises(FencedError):
        unit.commit(lease, carried, position="1", after="elsewhere")
    unit.commit(lease, carried, position="1", after="0")
    assert contents(Unit(store, SPACE, 0).resumed(Carried.made).learner) == contents(model.update(log(1)))


# --- values ----------------------------------------------------------------------------------------------------


def raw(store: Any, unit: str) -> Iterator[tuple[bytes, bytes]]:
    return store.scan(unit, "rows/states-1")


def put(store: Any, unit: str, key: bytes, value: bytes) -> None:
    position = store.position(unit)
    lease = store.acquire(unit, "vandal", 60, take_over=True)
    store.commit(lease, Commit({"rows/states-1": [(key, value)]}, position, position))


def test_a_value_of_another_space_is_refused():
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    other = replace(SPACE, number=3)
    filled(store, copy.deepcopy(model))
    unit = filled(store, copy.deepcopy(model), other)
    key, value = next(raw(store, "ranker/3/0"))
    put(store, "ranker/2/0", key, value)
    pinned = Unit(store, SPACE, 0).resumed(Carried.made)
    with pytest.raises(SpaceError, match=rf"{other.tag:016x} and not of ranker/2, whose tag is {SPACE.tag:016x}"):
        pinned.learner.update(log(0))
    assert unit.resumed(Carried.made).learner.update(log(0)).info.rows == 60


def test_each_flipped_bit_of_a_value_is_seen():
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    unit = filled(store, model)
    key, value = next(raw(store, unit.name))
    id = int.from_bytes(key[1:], "big") - 2**63
    for place in [*range(32), *range(32, len(value), 7), len(value) - 1]:
        for bit in (0, 7):
            data = bytearray(value)
            data[place] ^= 1 << bit
            put(store, unit.name, key, bytes(data))
            with pytest.raises(
                FormatError, match=rf"'rows/states-1' of 'ranker/2/0' are not .* such as that of {id}"
            ):
                list(unit.rows("states-1").pieces())
    for data in (b"", value[:-1], value + b"\0", value[:31]):
        put(store, unit.name, key, data)
        with pytest.raises(FormatError, match=rf"such as that of {id}"):
            list(unit.rows("states-1").pieces())
    (_, first), (other, second) = list(raw(store, unit.name))[1:3]
    put(store, unit.name, key, value)
    put(store, unit.name, other, first)  # the value of somebody else
    assert first != second
    with pytest.raises(FormatError):
        list(unit.rows("states-1").pieces())


def test_float16_keeps_three_digits_and_refuses_what_it_cannot_hold():
    store, model = MemoryStore(), glmix(ac.RandomEffect("user", ["x"])).fit(log(0))
    unit = Unit(store, SPACE, 0, payload="float16")
    lease = store.acquire(unit.name, "a", 60)
    before = copy.deepcopy(model)
    unit.fill(lease, Carried(model), position="0")
    widths = {len(value) for _, value in raw(store, unit.name)}
    assert widths == {32 + 16 + 2 * (4 + 10) + 4}  # the head, two times, 14 numbers, filled up to 8 bytes
    carried = unit.resumed(Carried.made)
    ids = np.arange(5)
    means = [m.entities.means("user", ids, m.state.random[0].base) for m in (carried.learner, before)]
    np.testing.assert_allclose(*means, rtol=1e-3, atol=1e-4)
    huge = {f"{name}": np.full_like(column, 1e6) for name, column in next(Carried(before).changed())[2].items()}
    ids = next(Carried(before).changed())[1]
    with pytest.raises(ac.errors.ModelError, match=r"have numbers that float16 cannot hold, such as that of"):
        unit._writes([("states-1", ids, huge)], 0)


# --- the right to be forgotten ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "texts"])
def test_nothing_is_left_of_an_entity_that_is_forgotten(opening, text):
    store = opening()
    model = glmix(DENSE, PAIRS, ac.RandomEffect("item", ["x"])).fit(log(0, text=text))
    filled(store, copy.deepcopy(model))
    filled(store, copy.deepcopy(model), replace(SPACE, number=3))
    filled(store, ac.GlobalRate().fit(log(0, text=text)), Space("rate", 1, "w", "c", 0))
    worker, unit = store.acquire("ranker/2/0", "worker", 60), Unit(store, SPACE, 0)
    carried = unit.resumed(Carried.made)
    carried.learner.update(log(1, text=text))  # it knows the user in memory too
    gone, stays = ("user ü 4", "user ü 44") if text else (4, 44)
    forgotten = forget(store, "user_id", [gone])
    assert (forgotten.units, forgotten.others) == (("ranker/2/0", "ranker/3/0"), ("rate/1/0",))
    rows = {key: row for key, row in contents(model)[1].items() if not _is_of(key, gone)}
    assert forgotten.values == 2 * (len(contents(model)[1]) - len(rows)) > 2
    with pytest.raises(FencedError):
        unit.commit(worker, carried, position="1", after="0")
    for space in (SPACE, replace(SPACE, number=3)):
        assert contents(Unit(store, space, 0).resumed(Carried.made).learner)[1] == rows
    assert any(name == "states-3" and id == 4 for name, id in rows)  # an item with that number
    assert forget(store, "user_id", [gone, stays]).values == 0


def test_units_where_something_may_be_left_are_told(monkeypatch):
    from acclimate.publish.stores import units

    monkeypatch.setattr(units, "_AT_ONCE", 1)
    store, model = MemoryStore(), glmix(DENSE).fit(log(0))
    lease = store.acquire("encoder/1/0", "a", 60)
    columns = b'{"vectors/user": ["user_id"], "vectors/item": ["item_id"]}'
    vectors = {"shared": [(b"rows", columns)], "rows/vectors/user": [(encoded_ids(np.array([4]))[0], b"vector")]}
    store.commit(lease, Commit(vectors, "0", None))
    store.commit(store.acquire("a/1/0", "a", 60), Commit({"seen": [(b"a", b"1")]}, "0", None))  # of no learner
    commit, left = store.commit, iter(range(5))

    def cut_off(lease: Any, one: Commit) -> None:
        if next(left, None) is None:
            raise OutputError("the disk is full")
        commit(lease, one)

    store.commit = cut_off  # type: ignore[method-assign]
    unit = Unit(store, SPACE, 0)
    with pytest.raises(OutputError):
        unit.fill(store.acquire(unit.name, "a", 60), Carried(model), position="0")
    store.commit = commit  # type: ignore[method-assign]
    forgotten = forget(store, "user_id", [4])
    assert (forgotten.values, forgotten.units) == (1, ("encoder/1/0",))
    assert set(forgotten.others) == {"encoder/1/0", "ranker/2/0"}
    assert store.size("encoder/1/0") == {"shared": 1}


def test_an_entity_is_forgotten_though_a_worker_takes_over_meanwhile():
    store = MemoryStore()
    unit = filled(store, glmix(DENSE).fit(log(0)))
    commit, fences = store.commit, iter(range(3))

    def overtaken(lease: Any, one: Commit) -> None:
        if next(fences, None) is not None:
            store.acquire(unit.name, "worker", 60, take_over=True)
        commit(lease, one)

    store.commit = overtaken  # type: ignore[method-assign]
    assert forget(store, "user_id", [4]).values == 1
    fences = iter(range(1_000))
    with pytest.raises(OutputError, match="others take over 'ranker/2/0' all the time; nothing was removed there"):
        forget(store, "user_id", [5])


def _is_of(key: tuple[str, Any], user: Any) -> bool:
    name, id = key
    return name in ("states-1", "states-2") and str(id).split("\x1f")[0] == str(user)
