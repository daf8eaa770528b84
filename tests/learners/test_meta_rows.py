"""A meta ranker whose entities are rows of a store: what is written, resumed and forgotten."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_meta import BLOCKS, DAY, emptied, events, log, ranker, rows_of
from stored_units import SPACE, as_rows, filled, resumed
from test_meta_ranker import FITTED, shifted

import acclimate as ac
from acclimate.errors import FormatError
from acclimate.learners import held
from acclimate.learners.carried import Carried
from acclimate.learners.meta import buffer, learning
from acclimate.learners.meta_ranker import MetaRanker
from acclimate.publish.stores.forgetting import forget
from acclimate.publish.stores.memory import MemoryStore
from acclimate.publish.stores.units import ROWS, SHARED, Unit
from acclimate.storage import InSegments

NAMES = {"user": "block-0", "item": "block-1", "both": "block-2"}
MODEL = FITTED["capped"]


def ids_of(columns: dict[str, Any]) -> dict[str, set[Any]]:
    """Of each block who is in rows of a known label."""
    rows = [i for i, y in enumerate(columns["click"]) if y is not None]
    some = rows_of(columns, rows)
    both = {f"{u}\x1f{c}" for u, c in zip(some["user_id"], some["country"], strict=True)}
    return {"user": set(some["user_id"]), "item": set(some["item_id"]), "both": both}


def test_a_batch_writes_the_rows_of_whom_it_touches_and_what_is_shared_does_not_grow() -> None:
    store, lease, carried = filled(MODEL)
    before = {NAMES[block]: dict(store.scan("learner/1/0", ROWS + NAMES[block])) for block in NAMES}
    shared = dict(store.scan("learner/1/0", SHARED))
    assert list(carried.changed()) == []
    new = shifted(log(3, seed=11, users=40, items=30), 9 * DAY)
    carried.learn(events(new))
    expected = {name: ids_of(new)[block] for block, name in NAMES.items()}
    changed = dict[str, set[Any]]()
    for name, ids, columns in carried.changed():
        changed.setdefault(name, set()).update(ids.tolist())
        assert "number" in columns or name.startswith("vectors/")
    assert {name: changed[name] for name in expected} == expected
    for block in NAMES:  # vectors are those of all who are in the events, if they are known
        number = list(NAMES).index(block)
        assert expected[NAMES[block]] <= changed[f"vectors/{block}"]
        assert changed[f"vectors/{block}"] <= set(carried.learner.state.ids[number].index.ids().tolist())
    Unit(store, SPACE, 0).commit(lease, carried, position="1", after="0")
    for name, ids in expected.items():
        rows = dict(store.scan("learner/1/0", ROWS + name))
        assert sum(rows[key] != before[name].get(key) for key in rows) == len(ids)
    after = dict(store.scan("learner/1/0", SHARED))
    assert after.keys() == shared.keys()
    assert abs(sum(map(len, after.values())) - sum(map(len, shared.values()))) < 8  # the digits of a time
    assert set(carried.packed().arrays) == {"scale", *(f"weights.{name}" for name in MODEL.state.weights)}
    assert {name: carried.columns()[NAMES[name]] for name in NAMES} == {
        "user": ("user_id",),
        "item": ("item_id",),
        "both": ("user_id", "country"),
    }


def test_an_event_older_than_all_that_are_kept_writes_the_new_ones_alone() -> None:
    _, _, carried = filled(MODEL)
    old = {**shifted(log(1, seed=5), -DAY), "click": [1], "country": ["xx"]}
    carried.learn(events(old))
    changed = {name: ids.tolist() for name, ids, _ in carried.changed() if name in NAMES.values()}
    assert changed == {"block-2": [f"{old['user_id'][0]}\x1fxx"]}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), min_size=1, max_size=4),
    st.sampled_from(["capped", "all", "nobody"]),
    st.booleans(),
)
def test_resumed_at_each_batch_it_is_as_if_it_had_never_stopped(
    batches: list[tuple[int, int]], case: str, clears: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer, "_SPARE", 5 if clears else 10_000)
        in_memory = emptied(MODEL) if case == "nobody" else copy.deepcopy(FITTED[case])
        store, lease, other = filled(in_memory)
        for number, (seed, rows) in enumerate(batches):
            new = events(shifted(log(rows, seed=seed, users=9, items=8), (seed - 5) * DAY))  # late ones too
            unit, carried = resumed(store)
            carried.learn(new)
            other.learn(new)
            in_memory.update(new)
            unit.commit(lease, carried, position=str(number + 1), after=str(number))
        _, carried = resumed(store)
        assert as_rows(carried) == as_rows(Carried(in_memory)) == as_rows(other)
        assert carried.shared() == Carried(in_memory).shared()
        asked = events(log(20, seed=77, users=10))
        for method in ("predict", "predict_along"):
            assert (getattr(carried.learner, method)(asked) == getattr(in_memory, method)(asked)).all()
        learning.check_parity(carried.learner.parameters, carried.learner.state)


def test_numbers_of_rows_stay_when_others_are_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "_SPARE", 0)
    model = emptied(MODEL)
    supports, seen = model.state.supports, dict[int, int]()
    for part in range(30):
        model.update(events(shifted(log(20, seed=part), part * DAY)))
        for block in range(3):
            kept = supports.kept(block, np.arange(supports.histories[block].entities))
            for number, time in zip(kept.number.tolist(), kept.rows.time.tolist(), strict=True):
                assert seen.setdefault(number, time) == time
    assert np.all(np.diff(supports.buffer.number) > 0)
    assert supports.buffer.number[-1] == max(seen) > 3 * supports.buffer.count


def test_a_row_of_a_user_and_an_item_is_one_again() -> None:
    store, _, _ = filled(MODEL)
    supports, again = MODEL.state.supports, resumed(store)[1].learner.state.supports
    kept = [supports.kept(block, np.arange(one.entities)) for block, one in enumerate(supports.histories)]
    assert again.buffer.count == len(np.unique(np.concatenate([one.number for one in kept])))
    assert again.buffer.count < sum(len(one.number) for one in kept)
    for block, one in enumerate(kept):
        other = again.kept(block, np.arange(len(one.length)))
        assert (other.number == one.number).all()
        for mine, theirs in zip(other.rows.columns, one.rows.columns, strict=True):
            assert (mine == theirs).all()


def test_a_batch_makes_no_meta_embedding_again_to_look_at_it_and_a_save_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, lease, carried = filled(MODEL)
    looked, check = list[Any](), learning.check_parity
    monkeypatch.setattr(
        "acclimate.learners.meta_ranker.check_parity", lambda *values: looked.append(values) or check(*values)
    )
    carried.learn(events(shifted(log(9, seed=3), 9 * DAY)))
    Unit(store, SPACE, 0).commit(lease, carried, position="1", after="0")
    assert not looked
    carried.learner.save(tmp_path / "m")
    assert len(looked) == 1
    top = ac.GLMix(fixed=["price", "below"])
    stack = ac.Stack(learner=top.parameters, members={"below": MODEL.parameters}).fit(events(log(150, seed=1)))
    stack.save(tmp_path / "stack")
    assert len(looked) == 2
    stack.members["below"].state.embeddings[0].values[2] += 1.0
    with pytest.raises(ac.errors.ModelError, match="are not those of their supports"):
        stack.save(tmp_path / "stack", overwrite=True)


def test_a_save_of_some_entities_at_a_time_is_that_of_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, many in (("whole", 1 << 14), ("pieces", 2)):
        monkeypatch.setattr(held, "_AT_ONCE", many)
        copy.deepcopy(FITTED["all"]).save(tmp_path / name)
    whole, pieces = (
        {file.name: file.read_bytes() for file in (tmp_path / n / "rows").iterdir()} for n in ("whole", "pieces")
    )
    assert whole == pieces
    assert as_rows(Carried(MetaRanker.load(tmp_path / "pieces"))) == as_rows(Carried(FITTED["all"]))


def test_an_entity_that_is_forgotten_is_gone_and_the_others_go_on() -> None:
    store, _, _ = filled(MODEL)
    asked = events(log(40, seed=8))
    gone = forget(store, "user_id", [4])
    pairs = [id for id in MODEL.state.ids[2].index.ids().tolist() if id.startswith("4\x1f")]
    assert gone.values == 2 * (1 + len(pairs))  # rows and vectors, of the combinations too
    assert (gone.units, gone.others) == (("learner/1/0",), ())
    unit, carried = resumed(store)
    others = [id for id in MODEL.state.ids[0].index.ids().tolist() if id != 4]
    assert carried.learner.state.ids[0].index.ids().tolist() == others
    assert (carried.learner.vectors_of("user", others) == MODEL.vectors_of("user", others)).all()
    assert np.isnan(carried.learner.vectors_of("user", [4])).all()
    lease = store.acquire("learner/1/0", "test", 600.0, take_over=True)
    assert lease is not None
    for number in range(2):  # who comes anew comes after those that are there
        carried.learn(events(shifted(log(30, seed=number, users=9), 9 * DAY)))
        unit.commit(lease, carried, position=str(number + 1), after=str(number))
    again = resumed(store)[1].learner
    assert again.state.ids[0].index.ids().tolist()[: len(others)] == others
    assert 4 in again.state.ids[0].index.ids().tolist()
    assert (again.predict(asked) == carried.learner.predict(asked)).all()


def test_without_anyone_it_is_saved_kept_and_goes_on(tmp_path: Path) -> None:
    store, _, carried = filled(emptied(MODEL))
    assert list(carried.changed()) == list(carried.everything()) == []
    carried.learner.save(tmp_path / "m")
    new, asked = events(log(30, seed=2)), events(log(10, seed=3))
    expected = emptied(MODEL).update(new)
    for learner in (resumed(store)[1].learner, MetaRanker.load(tmp_path / "m"), carried.learner):
        assert np.isfinite(learner.predict_along(asked)).all()
        assert (learner.update(new).predict(asked) == expected.predict(asked)).all()


def test_a_partition_has_its_entities_and_those_of_other_columns() -> None:
    store, carried = MemoryStore(), Carried(copy.deepcopy(MODEL))
    lease = store.acquire("learner/1/0", "test", 600.0)
    assert lease is not None
    unit = Unit(store, SPACE, 0)
    unit.fill(lease, carried, keep=lambda _, columns, ids: (columns != ("user_id",)) | (ids != 3))
    users, items = (carried.learner.state.ids[n].index.ids().tolist() for n in (0, 1))
    assert users == [id for id in MODEL.state.ids[0].index.ids().tolist() if id != 3]
    assert items == MODEL.state.ids[1].index.ids().tolist()
    assert (carried.learner.vectors_of("item", items) == MODEL.vectors_of("item", items)).all()
    learning.check_parity(carried.learner.parameters, carried.learner.state)


def test_numbers_alone_and_names_alone_are_kept() -> None:
    for features in (["price"], ["country"]):
        blocks = {"user": replace(BLOCKS["user"], features=features)}
        model = ranker(features=features, blocks=blocks).fit(events(log(80)))
        store, _, _ = filled(model)
        assert as_rows(resumed(store)[1]) == as_rows(Carried(model))


def test_rows_of_another_ranker_are_refused() -> None:
    small = {name: replace(block, support=2) for name, block in BLOCKS.items()}
    wide = {**BLOCKS, "user": replace(BLOCKS["user"], size=4)}
    bare = {name: replace(block, features=[]) for name, block in BLOCKS.items()}
    for changes in ({"blocks": small}, {"blocks": wide}, {"blocks": bare, "features": ["price"]}):
        carried = Carried(ranker(**changes).fit(events(log(150, seed=1))))
        store, _, _ = filled(MODEL)
        with pytest.raises(FormatError, match=r"what is stored of '(user|both|item)' is damaged"):
            carried.rest_on(Unit(store, SPACE, 0).rows)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("row", 1, "a row is there twice"),
        ("cell", 10_000, "names beyond"),
        ("bags", 1_000, "other cells"),
        ("bags", -1, "other cells"),
        ("length", 4, "other lengths than 0 to 3"),
        ("number", 1, "there twice"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(column: str, value: int, told: str) -> None:
    class Changed(InSegments):
        def pieces(self) -> Any:
            for name, ids, columns in Carried(copy.deepcopy(MODEL)).everything():
                if name == "block-0":
                    changed = {key: values.copy() for key, values in columns.items()}
                    changed[column][:, ...] = value
                    yield ids, changed

    with pytest.raises(FormatError, match=told):
        Carried(copy.deepcopy(MODEL)).rest_on(lambda _: Changed())
