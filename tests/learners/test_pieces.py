"""Rows that do not fit into the memory are learned in pieces, those of an entity together."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, assert_same_states, events_of, in_pieces

import acclimate as ac
from acclimate import ledger, pipeline
from acclimate.errors import ConfigError, RowError
from acclimate.learners import batch as batches
from acclimate.learners import scratch
from acclimate.project import Project, parse_project

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "video": "video_id"},
    labels=["click", "seconds"],
    label_kinds={"seconds": "number"},
)
BOTH = {"fixed": ["x"], "random": {"user": ["x"], "video": []}}


@pytest.fixture(autouse=True)
def _few_rows_at_once(monkeypatch) -> None:
    monkeypatch.setattr(batches, "_PIECE_ROWS", 16)


def log(*, rows: int = 400, seed: int = 0, start: int = 0, users: int = 30) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user, video = rng.integers(0, users, rows), rng.integers(0, 8, rows)
    x = np.where(rng.random(rows) < 0.5, -1.0, 1.0)
    z = 0.3 + np.sin(user) + 0.4 * np.cos(user) * x + 0.5 * np.cos(video)
    return {
        "user_id": user,
        "video_id": video,
        "x": x,
        "click": (rng.random(rows) < 1.0 / (1.0 + np.exp(-z))).astype(int),
        "seconds": z + rng.normal(size=rows),
        "time": START + HOUR * (start + np.arange(rows)),
    }


def whole(**how: Any) -> ac.Events:
    return events_of(SCHEMA, log(**how))


def small(events: ac.Events, limit: int = 7_000) -> ac.Events:
    return replace(events, memory_limit=limit)


def model(declared: dict[str, Any], **how: Any) -> ac.GLMix:
    return ac.GLMix(**{"label": "click", **declared, **how})


def assert_alike(actual: ac.GLMix, expected: ac.GLMix, tolerance: float = 1e-7) -> None:
    """The same posteriors, whatever the order in which entities came."""
    assert_allclose(
        [row[1:] for row in actual.weights()],
        [row[1:] for row in expected.weights()],
        rtol=tolerance,
        atol=tolerance,
    )
    for effect in expected.parameters.random:
        one, other = (m.states(effect.called) for m in (actual, expected))
        a, b = np.argsort(one.ids), np.argsort(other.ids)
        assert_array_equal(one.ids[a], other.ids[b])
        assert_array_equal(one.rows[a], other.rows[b])
        assert_array_equal(one.touched[a], other.touched[b])
        for part in ("mean", "precision"):
            assert_allclose(
                getattr(one.posterior, part)[a], getattr(other.posterior, part)[b], rtol=tolerance, atol=tolerance
            )


HELD = {"label": "seconds", "loss": "squared", "noise": 1.0, "learn_population": False, "tolerance": 1e-10}


def test_squared_loss_in_pieces_is_the_fit_on_all_rows():
    declared = {"fixed": ac.FixedEffect(["x"], ridge=1e-9)}
    pieces = model(declared, **HELD).fit(small(whole(), 3_000))
    at_once = model(declared, **HELD).fit(whole())
    assert pieces.info.pieces > 3
    assert at_once.info.pieces == 1
    assert pieces.info.rows == 400
    assert_alike(pieces, at_once)


@pytest.mark.parametrize("limit", [2_500, 7_000], ids=["users cut once more", "users whole"])
@pytest.mark.parametrize("how", [{}, {"forgetting": 0.7}, {"half_life": "3d"}], ids=str)
@pytest.mark.parametrize("effect", ["fixed", "user"])
def test_an_update_in_pieces_forgets_once(effect, how, limit):
    declared: dict[str, Any] = {
        "fixed": ac.FixedEffect(["x"], **how),
        "random": [ac.RandomEffect("user", ["x"], **how), ac.RandomEffect("video")],
    }
    others = {"fixed", "user", "video"} - {effect}
    updated = [model(declared, **HELD).fit(whole()) for _ in range(2)]
    more = whole(seed=1, start=400, users=40)
    updated[0].update(small(more, limit), locked=others)
    updated[1].update(more, locked=others)
    assert updated[0].info.pieces > 2
    assert_alike(*updated)


def test_entities_by_themselves_learn_the_same_in_pieces():
    """Logistic loss too: all rows of a user are in one piece."""
    declared = {"random": [ac.RandomEffect("user", ["x"], forgetting=0.9, min_rows=4)]}
    how = {"learn_population": False, "tolerance": 1e-10}
    updated = [model(declared, **how).fit(whole(users=200)) for _ in range(2)]
    more = whole(seed=1, start=400, users=300)
    updated[0].update(small(more, 9_000), locked=["fixed"])
    updated[1].update(more, locked=["fixed"])
    assert updated[0].info.pieces > 2
    assert_alike(*updated)


def test_a_fit_in_pieces_is_near_the_fit_on_all_rows():
    events = whole(rows=4_000)
    pieces, at_once = (model(BOTH).fit(one) for one in (small(events, 100_000), events))
    assert pieces.info.pieces > 2
    p, expected = pieces.predict(events), at_once.predict(events)
    assert np.abs(p - expected).max() < 0.05
    assert np.sqrt(np.mean((p - expected) ** 2)) < 0.01
    assert pieces.cut == at_once.cut
    assert ledger.with_line((), pieces, events) == ledger.with_line((), at_once, events)
    assert f"in {pieces.info.pieces} pieces and" in pieces.summary()[0]
    assert "pieces" not in at_once.summary()[0]


def assert_equal(one: ac.GLMix, other: ac.GLMix) -> None:
    assert one.weights() == other.weights()
    for effect in one.parameters.random:
        assert_same_states(one.states(effect.called), other.states(effect.called))


class Counted:
    """A source that says how many rows there are, for one that does not."""

    def __init__(self, events: ac.Events, rows: int) -> None:
        self.inner, self.cached = in_pieces(events, rows).source, events.cached().source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner if name in ("scan", "columns") else self.cached, name)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 400), limit=st.integers(3_000, 9_000))
def test_pieces_do_not_depend_on_how_rows_are_handed_out(rows, limit):
    events = whole()
    expected = model(BOTH, max_steps=3).fit(small(events, limit))
    other = ac.Events(SCHEMA, Counted(events, rows), memory_limit=limit)
    assert_equal(model(BOTH, max_steps=3).fit(other), expected)


def test_pieces_do_not_depend_on_files_and_row_groups(tmp_path: Path):
    columns = log()
    table = pa.table({**columns, "time": pa.array(columns["time"], pa.timestamp("us", "UTC"))})
    shuffled = table.take(np.random.default_rng(0).permutation(400))
    pq.write_table(shuffled.slice(0, 150), tmp_path / "b.parquet", row_group_size=7)
    pq.write_table(shuffled.slice(150), tmp_path / "a.parquet", row_group_size=100)
    read = ac.read_events(tmp_path, SCHEMA)
    fitted = [model(BOTH).fit(small(events)) for events in (whole(), read)]
    assert fitted[0].info.pieces > 2
    assert_equal(*fitted)


@pytest.mark.parametrize("mode", ["point", "integrated", "thompson"])
def test_predictions_in_pieces_are_those_of_all_rows(mode):
    fitted, asked = model(BOTH).fit(whole()), whole(seed=2, users=50)
    expected = fitted.predict(asked, mode=mode, seed=3)
    assert_allclose(fitted.predict(small(asked), mode=mode, seed=3), expected, rtol=1e-12)


def test_columns_that_come_with_a_later_piece():
    columns = log() | {"genre": [f"g{user % 13}" for user in log()["user_id"]]}
    declared = {"fixed": ["genre"], "random": {"video": ["genre"]}}
    events = events_of(SCHEMA, columns)
    pieces, at_once = (model(declared).fit(one) for one in (small(events, 5_000), events))
    assert pieces.info.pieces > 2
    assert {name for name, *_ in pieces.weights()} == {name for name, *_ in at_once.weights()}
    assert pieces.entity_posterior("video", 3)[0] == pieces.state.random[0].index.names
    assert np.isfinite(pieces.predict(events)).all()


@pytest.mark.parametrize("verb", ["fit", "update"])
def test_nothing_is_learned_where_a_later_piece_cannot_be(verb):
    columns = log(seed=1, start=400)
    fitted, untouched = (model(BOTH).fit(whole()) for _ in range(2))
    partial = ac.Events(SCHEMA, events_of(SCHEMA, columns).source, memory_limit=7_000)
    by = batches.read_batches(partial, fitted.state.effects, fitted.state.settled, label="click")
    last = [batch.seen[1].ids for batch in by][-1]
    columns["x"][np.flatnonzero(np.isin(columns["user_id"], last))[-1]] = 1e300
    with pytest.raises(RowError, match="x"):
        getattr(fitted, verb)(small(events_of(SCHEMA, columns)))
    assert_equal(fitted, untouched)
    assert fitted.info.rows == 400
    assert fitted.cut == untouched.cut


def test_a_limit_that_holds_hardly_any_rows_is_told():
    with pytest.raises(ConfigError, match=r"not even 16 rows, which take 1MB, fit into a memory_limit of 1MB"):
        model(BOTH).fit(small(whole(), 1_000))


def test_rows_without_a_label_are_in_no_piece():
    columns = log()
    columns["click"] = [
        None if user < 20 else click
        for user, click in zip(columns["user_id"], columns["click"].tolist(), strict=True)
    ]
    events = events_of(SCHEMA, columns)
    fitted = model(BOTH).fit(small(events, 3_000))
    assert fitted.info.pieces > 1
    assert fitted.info.rows == events.count(known="click") < 400
    assert fitted.states("user").ids.min() == 20


# --- scratch files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        np.arange(200) % 23,
        [f"u{i % 23}" for i in range(200)],
        [None if i % 23 == 0 else i % 23 for i in range(200)],
    ],
    ids=["numbers", "texts", "missing"],
)
def test_rows_of_an_entity_are_in_one_file_in_their_order(ids):
    table = pa.table({"id": ids, "row": np.arange(200)})
    pieces = [table.slice(first, 30) for first in range(0, 200, 30)]
    with scratch.scattered(pieces, "id", 5) as files:
        found = [file.read_all() for file in files]
    assert 2 <= len(found) <= 5
    assert sorted(row for file in found for row in file["row"].to_pylist()) == list(range(200))
    owners = [set(file["id"].to_pylist()) for file in found]
    assert sum(map(len, owners)) == 23
    for file in found:
        assert_array_equal(file["row"], np.sort(file["row"]))


def test_a_full_disk_is_told(monkeypatch):
    def full() -> io.BufferedRandom:
        return open("/dev/full", "w+b", buffering=0)  # type: ignore[return-value]

    monkeypatch.setattr(scratch, "scratch_file", full)
    with (
        pytest.raises(ConfigError, match=r"the disk at .* is full"),
        scratch.scattered([pa.table({"id": np.arange(10)})], "id", 2),
    ):
        pass


# --- from a project to its model and its replay ------------------------------------------------------------------


def written(folder: Path, rows: int) -> Project:
    columns = log(rows=rows, users=3_000)
    columns |= {"time": pa.array(START + 60_000_000 * np.arange(rows), pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    events = {"path": "log.parquet", "time": "time", "entities": {"user": "user_id", "video": "video_id"}}
    declared = {"ranker": {"kind": "glmix", "label": "click", "learn_population": False, **BOTH}}
    content = {"name": "log", "events": events | {"labels": ["click"]}, "learners": declared}
    return parse_project(content, folder)


def test_a_model_of_many_pieces_has_the_history_of_one_fit(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(batches, "_PIECE_ROWS", 1 << 12)
    project, until = written(tmp_path, 300_000), START + 60_000_000 * 150_000
    models: list[ac.GLMix] = []
    for limit in ("16MB", "1GB"):
        sized = replace(project, memory_limit=limit)
        fitted = pipeline.fit(sized, tmp_path / limit, until=until)
        assert (fitted.info.pieces > 1) == (limit == "16MB")
        updated = pipeline.update(sized, tmp_path / limit)
        assert (updated.info.pieces > 1) == (limit == "16MB")
        models.append(ac.GLMix.load(tmp_path / limit))
    one, other = models
    assert one.history == other.history
    assert len(one.history) == 2
    assert one.cut == other.cut
    asked = pipeline.open_events(project)
    assert np.sqrt(np.mean((one.predict(asked) - other.predict(asked)) ** 2)) < 0.02


def test_a_replay_within_little_memory():
    events = ac.simulate(users=60, items=20, days=8, events_per_day=300, seed=1)
    arms = {
        "ranker": ac.GLMix(label="click", fixed=["surface"], random=["user", "item"]),
        "rate": ac.Rate("user", label="click"),
    }
    limited, without = (
        ac.replay(arms, one, start="2024-01-05", label="click") for one in (small(events, 20_000), events)
    )
    assert limited.arms["rate"].log_loss == without.arms["rate"].log_loss
    assert limited.arms["ranker"].rows == without.arms["ranker"].rows
    assert limited.arms["ranker"].log_loss == pytest.approx(without.arms["ranker"].log_loss, abs=0.005)
    assert limited.arms["ranker"].log_loss != without.arms["ranker"].log_loss


def test_pieces_are_no_surprise_to_effects_that_adapt():
    """They are of other people, which is no change: a fit in pieces forgets nothing, however its effects are."""
    fitted = [
        ac.GLMix(
            fixed=ac.FixedEffect(["x"], adaptive=adaptive),
            random=[
                ac.RandomEffect("user", ["x"], adaptive=adaptive),
                ac.RandomEffect("video", adaptive=adaptive),
            ],
        ).fit(small(whole()))
        for adaptive in (False, True)
    ]
    assert fitted[0].info.pieces > 1
    assert fitted[0].weights() == fitted[1].weights()
    assert_same_states(fitted[0].states("user"), fitted[1].states("user"))
    assert fitted[1].info.drift == ()
