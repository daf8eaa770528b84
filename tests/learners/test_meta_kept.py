"""What a meta ranker keeps: its buffer, its files, the gate before them, and a training that was killed."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_meta import DAY, distinct_times, embeddings_of, emptied, events, log, ranker, rows_of
from test_meta_ranker import FIRST, FITTED, assert_same, shifted

import acclimate as ac
from acclimate import progress
from acclimate.errors import ModelError
from acclimate.learners.meta import buffer, network
from acclimate.learners.network.checkpoints import Checkpoint

# --- the buffer -------------------------------------------------------------------------------------------------

SPARE = 10


@pytest.mark.parametrize("clears", [True, False], ids=["cleared", "not cleared"])
def test_rows_that_nobody_needs_are_cleared_and_change_nothing(
    clears: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = distinct_times(log(400, seed=9, days=8, users=7))
    monkeypatch.setattr(buffer, "_SPARE", SPARE if clears else 10_000)
    model = emptied(FITTED["capped"])
    counts, room = list[int](), list[int]()
    for part in np.array_split(np.argsort(new["time"], kind="stable"), 80):
        model.update(events(rows_of(new, part)))
        counts.append(model.state.supports.buffer.count)
        room.append(max(len(array) for array in model.state.supports.buffer._arrays.values()))
    assert_same(model, emptied(FITTED["capped"]).update(events(new)))
    entities = [len(known) for known in model.state.ids]
    needed = sum(block.support * n for block, n in zip(model.parameters.blocks.values(), entities, strict=True))
    if not clears:
        assert counts[-1] == sum(y is not None for y in new["click"])
        return
    assert max(counts) <= 2 * needed + SPARE + 5
    assert max(counts[60:]) <= max(counts[:60])  # once all entities are full it grows no more
    assert max(room[60:]) <= max(room[:60])
    assert min(np.diff(counts)) < 0


def test_a_buffer_cleared_has_the_rows_that_were_in_it() -> None:
    model = copy.deepcopy(FITTED["capped"])
    supports = model.state.supports

    def seen() -> list[Any]:
        tasks = [supports.tasks(n, np.arange(len(ids))) for n, ids in enumerate(model.state.ids)]
        rows = [supports.rows_at(one.rows) for one in tasks]
        return [(r.time.tolist(), r.label.tolist(), r.read.dense.tolist(), r.read.cell.tolist()) for r in rows]

    model.update(events(shifted(log(80, seed=2), 5 * DAY)))
    before, count, nbytes = seen(), supports.buffer.count, model.nbytes
    supports._clear()
    assert seen() == before
    assert supports.buffer.count < count
    assert model.nbytes < nbytes


# --- files, and the gate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["user", "item", "both"])
def test_a_meta_embedding_that_is_not_that_of_its_support_is_not_saved(block: str, tmp_path: Path) -> None:
    model = copy.deepcopy(FITTED["capped"])
    number = list(model.parameters.blocks).index(block)
    id = str(model.state.ids[number].index.ids()[3]).replace("\x1f", ", ")
    model.state.embeddings[number].values[3, 1] += 0.01
    with pytest.raises(
        ModelError, match=f"of '{block}' are not those of their supports: 1 of .*, {id} by"
    ) as caught:
        model.save(tmp_path / "model")
    assert "adapt them anew" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    model.state.embeddings[number].values[3, 1] = np.nan
    with pytest.raises(ModelError, match=f"'embedding' of a row of '{block}' are not finite"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_changed_are_not_saved_with_embeddings_of_others(tmp_path: Path) -> None:
    model = copy.deepcopy(FITTED["capped"])
    weights = {name: w + np.float32(0.1) for name, w in model.state.weights.items()}
    model.state = replace(model.state, weights=weights)
    with pytest.raises(ModelError, match="are not those of their supports"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize("case", list(FITTED))
def test_loaded_and_continued(case: str, tmp_path: Path) -> None:
    new, asked = log(60, seed=4, users=9, items=8), events(log(30, seed=5, users=10))
    FITTED[case].save(tmp_path / "model")
    loaded = ac.MetaRanker.load(tmp_path / "model")
    assert loaded.space == FITTED[case].space
    assert_same(loaded, FITTED[case], atol=0)
    uninterrupted = copy.deepcopy(FITTED[case])
    for part in np.array_split(np.arange(60), 3):
        loaded.update(events(rows_of(new, part)))
        uninterrupted.update(events(rows_of(new, part)))
        loaded.save(tmp_path / f"{part[0]}")
        loaded = ac.MetaRanker.load(tmp_path / f"{part[0]}")
    assert_same(loaded, uninterrupted, atol=0)
    assert np.array_equal(loaded.predict(asked), uninterrupted.predict(asked))
    assert np.array_equal(loaded.predict_along(asked), uninterrupted.predict_along(asked))


# --- what adapts and scores, made once ----------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that are made from here on."""
    made, original = list[Any](), network.network_of
    monkeypatch.setattr(network, "network_of", lambda *values: made.append(values) or original(*values))
    return made


def test_predictions_share_one_network_which_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, made = events(log(30, seed=5)), counted(monkeypatch)
    model = copy.deepcopy(FITTED["capped"])
    first = model.predict(asked)
    assert np.array_equal(model.predict(asked), first)
    model.predict_along(asked)
    assert len(made) == 1
    other = copy.deepcopy(model)
    assert np.array_equal(other.predict(asked), first)
    assert len(made) == 2
    model.update(events(shifted(log(40, seed=6), DAY)))
    model.predict(asked)
    assert len(made) == 2  # the weights are the same
    model.state = replace(model.state, weights=dict(model.state.weights))
    model.predict(asked)
    assert len(made) == 3


@pytest.mark.parametrize("change", ["fitted anew", "other weights", "in place"])
def test_predictions_are_by_the_weights_that_there_are(change: str) -> None:
    asked = events(log(30, seed=5))
    model = copy.deepcopy(FITTED["capped"])
    before = model.predict(asked)
    if change == "fitted anew":
        model.fit(events(log(150, seed=3)))
    elif change == "in place":
        for weight in model.state.weights.values():
            weight += np.float32(0.1)
    else:
        weights = {name: w + np.float32(0.1) for name, w in model.state.weights.items()}
        model.state = replace(model.state, weights=weights)
    after = model.predict(asked)
    assert np.abs(after - before).max() > 1e-3
    assert np.array_equal(copy.deepcopy(model).predict(asked), after)


# --- a training that was killed ---------------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("steps", [4, 8])
def test_a_fit_that_was_killed_goes_on_to_the_same_model(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "Checkpoint", partial(Checkpoint, every=3))
    place, told = tmp_path / "kept", list[int]()

    def kill(done: int, _: int) -> None:
        if done == steps:
            raise KilledError

    with pytest.raises(KilledError), progress.watched(kill):
        ranker().fit(events(FIRST), checkpoint=place)
    assert place.is_file()
    with progress.watched(lambda done, _: told.append(done)):
        resumed = ranker().fit(events(FIRST), checkpoint=place)
    assert told[0] == steps // 3 * 3 + 1
    assert not place.exists()
    assert resumed.space == FITTED["capped"].space
    assert resumed.info == FITTED["capped"].info
    assert_same(resumed, FITTED["capped"], atol=0)


def test_a_fit_of_other_rows_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "Checkpoint", partial(Checkpoint, every=3))

    def kill(done: int, _: int) -> None:
        if done == 7:
            raise KilledError

    with pytest.raises(KilledError), progress.watched(kill):
        ranker().fit(events(FIRST), checkpoint=tmp_path / "kept")
    other = {**FIRST, "user_id": FIRST["user_id"][::-1]}
    resumed = ranker().fit(events(other), checkpoint=tmp_path / "kept")
    assert resumed.space == ranker().fit(events(other)).space


def test_a_fit_that_runs_away_leaves_what_was_known() -> None:
    model = copy.deepcopy(FITTED["capped"])
    model.parameters = ranker(training=ac.Training(epochs=9, batch=32, rate=10.0)).parameters
    with pytest.raises(ModelError):
        model.fit(events(FIRST))
    assert embeddings_of(model).keys() == embeddings_of(FITTED["capped"]).keys()
    assert model.state.space == FITTED["capped"].state.space
