"""What every learner must do, whatever it is: checks that are written for none of them.

An :class:`Example` is a small configuration of a learner. Where a check cannot hold for it, it says which and why;
such a check is run all the same, and has to fail.
"""

import copy
import dataclasses
import inspect
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file
from sample_events import DAY, START, events_of

import acclimate as ac
from acclimate import learners
from acclimate.artifacts import Space
from acclimate.config import LEARNERS, class_of, predicts, record_of
from acclimate.errors import (
    ConfigError,
    FormatError,
    MismatchError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    RowError,
)
from acclimate.learners.carried import Carried
from acclimate.project import parse_project
from acclimate.publish.stores.memory import MemoryStore
from acclimate.publish.stores.parity import compared
from acclimate.publish.stores.units import Unit
from acclimate.storage import FORMAT
from sealing import sealed_anew

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "video": "video_id"}, labels="click", weight="weight")


@dataclass(frozen=True)
class Example:
    """A learner to check.

    ``tolerance``: how far probabilities may be apart that are equal in theory. ``exceptions``: checks that cannot
    hold, by name, and the reason.
    """

    name: str
    make: Callable[[], Any]
    tolerance: float = 1e-9
    exceptions: Mapping[str, str] = field(default_factory=dict)


# --- the log that they learn --------------------------------------------------------------------------------


def log(*, rows: int = 240, day: int = 0, seed: int = 0) -> dict[str, Any]:
    """Events of one day, many at one instant; users differ in what they click. Lists of ``rows`` values."""
    rng = np.random.default_rng([seed, day])
    user, video = rng.integers(0, 12, rows), rng.integers(0, 8, rows)
    price = rng.normal(10.0, 3.0, rows)
    z = 0.8 * np.sin(user) + 0.5 * np.cos(video) + 0.2 * (price - 10.0) * np.cos(user)
    label = rng.random(rows) < 1.0 / (1.0 + np.exp(-z))
    return {
        "time": (START + day * DAY + DAY // 12 * rng.integers(0, 12, rows)).tolist(),
        "user_id": user.tolist(),
        "video_id": video.tolist(),
        "genre": [("drama", "news", "sport", None)[v % 4] for v in video],
        "tags": [[("new", "short", "loud")[t] for t in range(3) if (v >> t) & 1] for v in video],
        "price": [None if r < 0.1 else p for r, p in zip(rng.random(rows), price.tolist(), strict=True)],
        "click": [None if r < 0.1 else int(y) for r, y in zip(rng.random(rows), label, strict=True)],
        "weight": [1.0] * rows,
    }


def rows_of(columns: Mapping[str, list[Any]], rows: Any) -> dict[str, list[Any]]:
    return {name: [values[i] for i in rows] for name, values in columns.items()}


def both(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [*one[name], *other[name]] for name in one}


def known(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return rows_of(columns, [i for i, y in enumerate(columns["click"]) if y is not None])


ASKED = log(day=5, rows=100)
FIRST, SECOND, THIRD = log(day=0), log(day=1, rows=150), log(day=3, rows=150)
READ: dict[int, ac.Events] = {id(columns): events_of(SCHEMA, columns) for columns in (ASKED, FIRST, SECOND, THIRD)}


def events(columns: Mapping[str, Any], schema: ac.Schema = SCHEMA) -> ac.Events:
    """The events of a log; those above, which most checks learn from, are opened once."""
    return READ[id(columns)] if id(columns) in READ and schema is SCHEMA else events_of(schema, columns)


LEARNED: dict[tuple[Any, ...], Any] = {}
"""What :func:`learned` has made, by how it is made and from which of the logs above."""


def learned_anew(make: Callable[[], Any], *batches: Mapping[str, Any]) -> Any:
    """A learner fitted on the first batch and updated with the others."""
    learner = make().fit(events(batches[0]))
    for batch in batches[1:]:
        learner.update(events(batch))
    return learner


def learned(make: Callable[[], Any], *batches: Mapping[str, Any]) -> Any:
    """The same, once for all checks where it learns from the logs above: each check has a copy of it."""
    if not all(id(batch) in READ for batch in batches):
        return learned_anew(make, *batches)
    key = (make, *map(id, batches))
    if key not in LEARNED:
        LEARNED[key] = learned_anew(make, *batches)
    return copy.deepcopy(LEARNED[key])


def predicted(learner: Any, columns: Mapping[str, Any] = ASKED) -> np.ndarray:
    """What the learner says of rows: probabilities, or of an encoder vectors."""
    return said(learner, events(columns))


def said(learner: Any, asked: ac.Events) -> np.ndarray:
    return learner.predict(asked) if predicts(learner.parameters) else learner.vectors(asked)


def state(learner: Any, folder: Path) -> dict[str, bytes]:
    """All that the learner knows, byte by byte, as it is saved."""
    shutil.rmtree(folder / "state", ignore_errors=True)
    learner.save(folder / "state")
    return content(folder / "state")


def content(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# --- the checks ---------------------------------------------------------------------------------------------

CHECKS: list[Callable[..., None]] = []


PREDICTING: set[str] = set()
"""Checks of what predicts a label; encoders do not."""

ENCODING: set[str] = set()
"""Checks of encoders alone."""


def check(function: Callable[..., None]) -> Callable[..., None]:
    CHECKS.append(function)
    return function


def check_of_predictions(function: Callable[..., None]) -> Callable[..., None]:
    PREDICTING.add(function.__name__)
    return check(function)


def check_of_encoders(function: Callable[..., None]) -> Callable[..., None]:
    ENCODING.add(function.__name__)
    return check(function)


def checks_of(example: Example) -> list[Callable[..., None]]:
    """Those that are for such a learner."""
    others = ENCODING if predicts(example.make().parameters) else PREDICTING
    return [function for function in CHECKS if function.__name__ not in others]


@check
def fit_and_update_return_the_learner(make):
    learner = make()
    assert learner.fit(events(FIRST)) is learner
    assert learner.update(events(SECOND)) is learner


@check
def it_says_what_it_is_and_what_it_knows(make):
    learner = make()
    assert isinstance(learner, class_of(record_of(learner.kind)))
    assert isinstance(learner.parameters, record_of(learner.kind))
    assert learners.make(learner.parameters).parameters == learner.parameters
    for told in (lambda: learner.cut, lambda: learner.nbytes, learner.summary):
        with pytest.raises(NotFittedError):
            told()
    learner.fit(events(FIRST)).update(events(SECOND))
    rows = known(SECOND) if predicts(learner.parameters) else SECOND
    assert learner.cut == max(rows["time"])
    assert learner.nbytes > 0
    assert f"learned {len(rows['time'])} rows up to 2022-04-26T" in "\n".join(learner.summary())


@check
def the_time_of_the_last_event_does_not_turn_back(make):
    learner = learned(make, THIRD)
    cut = learner.cut
    assert learner.update(events(FIRST)).cut == cut


@check
def it_is_loaded_without_being_named(make, folder):
    learner = learned(make, FIRST)
    learner.save(folder / "model")
    loaded = learners.load(folder / "model")
    assert type(loaded) is type(learner)
    assert loaded.parameters == learner.parameters
    assert loaded.cut == learner.cut
    assert len(loaded.summary()) > 0
    assert_allclose(predicted(loaded), predicted(learner), rtol=0, atol=0)


@check
def parameters_are_frozen(make):
    parameters = make().parameters
    for part in dataclasses.fields(parameters):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(parameters, part.name, None)


@check
def a_key_that_it_does_not_have_is_refused_in_a_project(make):
    parameters = make().parameters
    section = TypeAdapter(type(parameters)).dump_python(parameters, mode="json")
    content = {"name": "x", "events": {"path": "x", "time": "time", "entities": ["user"], "labels": ["click"]}}
    assert parse_project({**content, "learners": {"it": section}}, Path()).learner() == parameters
    with pytest.raises(ConfigError, match=r"learners\.it\.unheard_of: unknown key"):
        parse_project({**content, "learners": {"it": {**section, "unheard_of": 1}}}, Path())


@check_of_predictions
def predictions_are_probabilities_one_per_row(make):
    p = predicted(learned(make, FIRST, SECOND))
    assert p.shape == (100,)
    assert p.dtype == np.float64
    assert np.all((p > 0.0) & (p < 1.0))


@check_of_predictions
def predictions_are_better_than_a_coin(make):
    asked = events(known(log(day=2, rows=2000)))
    p, y = learned(make, log(rows=2000), SECOND).predict(asked), asked.table()["click"].to_numpy()
    assert -np.mean(np.log(np.where(y == 1, p, 1.0 - p))) < np.log(2.0)


@check
def predict_changes_nothing(make, folder):
    learner = learned(make, FIRST, SECOND)
    before, p = state(learner, folder), predicted(learner)
    predicted(learner, log(day=9, seed=3))
    assert_allclose(predicted(learner), p, rtol=0, atol=0)
    assert state(learner, folder) == before


@check
def the_same_twice_gives_the_same(make, folder):
    one, other = learned(make, FIRST, SECOND), learned_anew(make, FIRST, SECOND)
    assert state(one, folder) == state(other, folder)
    assert_allclose(predicted(one), predicted(other), rtol=0, atol=0)


@check
def fit_forgets_what_was_before(make, folder):
    anew = learned_anew(make, THIRD, SECOND).fit(events(FIRST))
    assert state(anew, folder) == state(learned(make, FIRST), folder)


@check_of_predictions
def update_learns(make, folder):
    learner = learned(make, FIRST)
    before, old = state(learner, folder), predicted(learner, SECOND)
    learner.update(events({**SECOND, "click": [1] * 150}))
    assert state(learner, folder) != before
    assert predicted(learner, SECOND).mean() > old.mean()


@check
def a_copy_has_a_life_of_its_own(make, folder):
    learner = learned_anew(make, FIRST)
    before, copied = state(learner, folder), copy.deepcopy(learner)
    copied.update(events(SECOND))
    assert state(learner, folder) == before
    assert state(copied, folder) == state(learned(make, FIRST, SECOND), folder)


@check
def saved_loaded_and_continued_equals_uninterrupted(make, folder):
    uninterrupted = learned(make, FIRST, SECOND, THIRD)
    learner = make().fit(events(FIRST))
    for number, batch in enumerate((SECOND, THIRD)):
        learner.save(folder / f"model {number}")
        learner = type(learner).load(folder / f"model {number}").update(events(batch))
    assert state(learner, folder) == state(uninterrupted, folder)
    assert_allclose(predicted(learner), predicted(uninterrupted), rtol=0, atol=0)


@check
def a_space_is_known_by_what_was_learned_for_all(make, folder):
    """Two fits on the same rows are of one identity, wherever they are from; other rows or settings are not."""
    learner = learned(make, FIRST)
    learner.save(folder / "m")
    identity = learners.identity_of(learner)
    assert learners.identity_of(learners.load(folder / "m")) == identity
    assert learners.identity_of(learned_anew(make, FIRST)) == identity
    assert all(len(part) == 64 for part in identity)
    other = learned(make, SECOND)
    weights, contract = learners.identity_of(other)
    assert weights != identity[0]
    assert contract == identity[1]
    assert set(learners.distances(learner, learner).values()) <= {0.0, None}
    assert (
        any(apart != 0.0 for apart in learners.distances(learner, other).values()) or not learner.shared().arrays
    )


@check
def it_says_which_entities_it_knows(make, folder):
    """Of all that are asked about exactly those whose rows it has learned, in memory as on disk."""
    learner = learned(make, FIRST)
    learner.save(folder / "m")
    asked = both(ASKED, {**rows_of(ASKED, [0]), "user_id": [777], "video_id": [888]})
    found = learner.known(events(asked))
    met = {name: set(known(FIRST)[name]) for name in ("user_id", "video_id")}
    for name, (ids, flags) in found.items():
        column = SCHEMA.entities.get(name, name)
        assert len(set(ids.tolist())) == len(ids)
        if column in met and ids.dtype == np.int64:
            assert set(ids.tolist()) == set(asked[column])
            assert set(ids[flags].tolist()) == met[column] & set(asked[column])
    again = learners.load(folder / "m").known(events(asked))
    assert {name: flags.tolist() for name, (_, flags) in again.items()} == {
        name: flags.tolist() for name, (_, flags) in found.items()
    }


@check
def learned_on_a_store_equals_learned_in_memory(make):
    in_memory, store = learned(make, FIRST), MemoryStore()
    space = Space("learner", 1, "weights", "contract", in_memory.cut)
    lease = store.acquire("learner/1/0", "test", 60.0)
    assert lease is not None
    Unit(store, space, 0).fill(lease, Carried(copy.deepcopy(in_memory)), position="0")
    for number, batch in enumerate((SECOND, THIRD)):
        unit = Unit(store, space, 0)  # as a process that has begun anew
        carried = unit.resumed(Carried.made)
        assert carried is not None
        carried.learn(events(batch))
        in_memory.update(events(batch))
        unit.commit(lease, carried, position=str(number + 1), after=str(number))
    carried = unit.resumed(Carried.made)
    assert carried.shared() == Carried(in_memory).shared()
    assert_allclose(predicted(carried.learner), predicted(in_memory), rtol=0, atol=0)
    found, exported = compared(store, space, Carried.made, 100), in_memory.exported()
    assert len(found.whose) == sum(min(len(one.ids()), 100) for one in exported.values())
    assert not (found.apart > found.rounding).any()


@check
def loading_gives_what_was_saved(make, folder):
    learner = learned_anew(make, FIRST, SECOND)
    learner.save(folder / "model")
    loaded = type(learner).load(folder / "model")
    assert state(loaded, folder) == content(folder / "model")
    assert loaded.nbytes == learner.nbytes > 0
    assert type(learner).load(str(folder / "model")).nbytes == learner.nbytes


@check
def the_order_of_rows_does_not_matter(make, tolerance):
    rng = np.random.default_rng(1)
    mixed_up = [rows_of(batch, rng.permutation(len(batch["time"]))) for batch in (FIRST, SECOND)]
    assert mixed_up[0] != FIRST
    assert_allclose(
        predicted(learned(make, *mixed_up)), predicted(learned(make, FIRST, SECOND)), rtol=0, atol=tolerance
    )


@check
def the_names_of_entities_do_not_matter(make, tolerance):
    name = np.random.default_rng(2).permutation(1000)

    def renamed(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, **{c: [int(name[i]) for i in columns[c]] for c in ("user_id", "video_id")}}

    # An order of time alone, so that both come row by row in the same order.
    logs = (ASKED, FIRST, SECOND)
    asked, first, second = ({**c, "time": [START + i for i in range(len(c["time"]))]} for c in logs)
    other = learned(make, renamed(first), renamed(second))
    assert_allclose(
        predicted(other, renamed(asked)), predicted(learned(make, first, second), asked), rtol=0, atol=tolerance
    )


@check
def ids_may_be_text(make, folder, tolerance):
    def as_text(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, **{c: [f"id-{i:03}" for i in columns[c]] for c in ("user_id", "video_id")}}

    learner = learned(make, as_text(FIRST))
    learner.save(folder / "model")
    learner = type(learner).load(folder / "model").update(events(as_text(SECOND)))
    expected = predicted(learned(make, FIRST, SECOND))
    assert_allclose(predicted(learner, as_text(ASKED)), expected, rtol=0, atol=tolerance)


@check
def each_prediction_is_of_its_row_alone(make, tolerance):
    learner = learned(make, FIRST, SECOND)
    # One instant each, so that rows come in the order in which they are here.
    rows = {**ASKED, "time": [START + DAY * 5 + i for i in range(100)]}
    parts = [predicted(learner, rows_of(rows, range(i, i + 10))) for i in range(0, 100, 10)]
    assert_allclose(np.concatenate(parts), predicted(learner, rows), rtol=0, atol=tolerance)


@check
def predictions_do_not_look_at_the_label(make):
    learner = learned(make, FIRST)
    for label in (0, 1, None):
        p = predicted(learner, {**ASKED, "click": [label] * 100})
        assert_allclose(p, predicted(learner), rtol=0, atol=0)


@check
def no_rows_have_no_predictions(make):
    assert len(said(learned(make, FIRST), events(ASKED).before(START))) == 0


@check
def an_update_without_events_changes_nothing(make, folder):
    learner = learned(make, FIRST, SECOND)
    before = state(learner, folder)
    learner.update(events(THIRD).before(START))
    assert state(learner, folder) == before


@check_of_predictions
def an_update_without_known_labels_changes_nothing(make, folder):
    learner = learned(make, FIRST, SECOND)
    before = state(learner, folder)
    learner.update(events({**THIRD, "click": [None] * 150}))
    assert state(learner, folder) == before


@check_of_predictions
def rows_of_unknown_label_are_ignored(make, folder):
    unknown = {**log(day=0, rows=50, seed=7), "click": [None] * 50}
    unknown["user_id"] = [100 + i for i in unknown["user_id"]]
    unknown["genre"] = ["opera"] * 50
    learner = learned(make, both(FIRST, unknown), both(SECOND, unknown))
    assert state(learner, folder) == state(learned(make, FIRST, SECOND), folder)


@check_of_predictions
def new_entities_and_new_levels_are_predicted_and_learned(make):
    stranger = {**log(day=2, rows=60), "user_id": [77] * 60, "video_id": [88] * 60, "genre": ["opera"] * 60}
    stranger["tags"], stranger["click"] = [["unheard", "new"]] * 60, [1] * 60
    learner = learned(make, FIRST)
    before = predicted(learner, stranger)
    assert np.all((before > 0.0) & (before < 1.0))
    after = predicted(learner.update(events(stranger)), stranger)
    assert np.all((after > before) & (after < 1.0))


@check_of_predictions
def a_row_of_weight_two_is_the_row_twice(make, tolerance):
    # Nothing is missing here: what stands in for a missing number is a mean over rows, whatever they weigh.
    def priced(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, "price": [p or 10.0 for p in columns["price"]]}

    plain = [priced(FIRST), priced(SECOND)]
    times = [
        np.random.default_rng(number).integers(1, 4, len(batch["time"])) for number, batch in enumerate(plain)
    ]
    weighted = [{**b, "weight": t.astype(float).tolist()} for b, t in zip(plain, times, strict=True)]
    repeated = [rows_of(b, np.repeat(np.arange(len(t)), t)) for b, t in zip(plain, times, strict=True)]
    p, twice, once = (predicted(learned(make, *batches), priced(ASKED)) for batches in (weighted, repeated, plain))
    assert_allclose(p, twice, rtol=0, atol=tolerance)
    assert np.abs(p - once).max() > 1e-3


@check_of_predictions
def labels_of_one_class_are_ordinary(make):
    for label in (0, 1):
        learner = learned(make, {**FIRST, "click": [label] * 240}, {**SECOND, "click": [label] * 150})
        p = predicted(learner)
        assert np.all((p > 0.0) & (p < 1.0))
        assert np.all(np.abs(p - label) < 0.1)


@check_of_predictions
def one_row_is_enough(make):
    learner = learned(make, rows_of(known(FIRST), [0]), rows_of(known(SECOND), [0]))
    p = predicted(learner)
    assert np.all((p > 0.0) & (p < 1.0))


@check
def fit_or_load_comes_first(make, folder):
    for verb in (
        lambda: make().update(events(FIRST)),
        lambda: said(make(), events(FIRST)),
        lambda: make().save(folder / "model"),
    ):
        with pytest.raises(NotFittedError):
            verb()
    assert os.listdir(folder) == []


@check
def events_of_another_schema_are_refused(make, folder):
    learner = learned(make, FIRST)
    before = state(learner, folder)
    genre = {"genre": ac.Feature(kind="categorical", buckets=4)}
    for other in (replace(SCHEMA, weight=None), replace(SCHEMA, features=genre)):
        with pytest.raises(MismatchError, match="another schema"):
            learner.update(events(SECOND, other))
        with pytest.raises(MismatchError, match="another schema"):
            said(learner, events(SECOND, other))
    assert state(learner, folder) == before
    with pytest.raises(MismatchError, match="another schema"):
        said(type(learner).load(folder / "state"), events(SECOND, replace(SCHEMA, weight=None)))


@check
def bad_rows_leave_the_learner_as_it_was(make, folder):
    learner = learned(make, FIRST)
    before = state(learner, folder)
    weights = [{**SECOND, "weight": [-1.0] * 150}] if predicts(learner.parameters) else []
    for bad in ({**SECOND, "click": [2] * 150}, *weights):
        with pytest.raises(ac.AcclimateError):
            learner.update(events(bad))
        with pytest.raises(ac.AcclimateError):
            learner.fit(events(bad))
    assert state(learner, folder) == before


@check_of_predictions
def weights_beyond_all_leave_the_learner_as_it_was(make, folder):
    learner = learned(make, FIRST)
    before = state(learner, folder)
    for weights in ([1e300] * 150, [1.0] * 149 + [1e300]):
        for learn in (learner.update, learner.fit):
            with pytest.raises(RowError, match=r"weight is beyond 1e\+100"):
                learn(events({**SECOND, "weight": weights}))
    assert state(learner, folder) == before


@check
def it_has_converged_or_says_how_far_it_is(make):
    learner = learned(make, FIRST)
    assert learner.shortfall() == ""
    learner.check_converged()
    learner.update(events(SECOND)).check_converged()


@check
def a_learner_of_another_kind_is_refused(make, folder):
    learned(make, FIRST).save(folder / "model")
    others = [other for other in map(class_of, LEARNERS) if other is not type(make())]
    assert others
    for other in others:
        with pytest.raises(MismatchError, match="not a"):
            other.load(folder / "model")


@check
def another_format_is_refused(make, folder):
    manifest = saved_manifest(make, folder)
    for number in (FORMAT + 1, None):
        rewrite(folder, {**manifest, "format": number})
        with pytest.raises(FormatError, match=f"format {number}"):
            type(make()).load(folder / "model")


@check
def a_truncated_file_is_damaged(make, folder):
    learned(make, FIRST).save(folder / "model")
    for name, data in content(folder / "model").items():
        for size in (0, len(data) // 2, len(data) - 1):
            (folder / "model" / name).write_bytes(data[:size])
            with pytest.raises(FormatError):
                type(make()).load(folder / "model")
        (folder / "model" / name).unlink()
        with pytest.raises(FormatError, match=name):
            type(make()).load(folder / "model")
        (folder / "model" / name).write_bytes(data)
    type(make()).load(folder / "model")


@check
def arrays_that_do_not_belong_together_are_damaged(make, folder):
    learner = learned(make, FIRST)
    learner.save(folder / "model")
    file = folder / "model" / "generation-1" / "arrays.safetensors"
    arrays = load_file(file)
    for name, array in arrays.items():
        for wrong in (array[:-1] if len(array) else np.zeros(1, array.dtype), array[None]):
            save_file({**arrays, name: np.ascontiguousarray(wrong)}, file)
            sealed_anew(folder / "model")
            with pytest.raises(FormatError, match=r"model is damaged: (?!.*written)"):
                type(learner).load(folder / "model")
    save_file(arrays, file)
    for table in (folder / "model" / "generation-1").glob("*.parquet"):
        rows = pq.read_table(table)
        pq.write_table(rows.slice(1), table)
        sealed_anew(folder / "model")
        with pytest.raises(FormatError, match=r"model is damaged: (?!.*written)"):
            type(learner).load(folder / "model")
        pq.write_table(rows, table)
    sealed_anew(folder / "model")
    assert type(learner).load(folder / "model").nbytes == learner.nbytes


@check
def a_manifest_without_its_parts_is_damaged(make, folder):
    manifest = saved_manifest(make, folder)
    for key in manifest:
        rewrite(folder, {k: v for k, v in manifest.items() if k != key})
        with pytest.raises((FormatError, MismatchError)):
            type(make()).load(folder / "model")


@check
def nothing_is_loaded_from_nowhere(make, folder):
    with pytest.raises(FormatError):
        type(make()).load(folder / "nowhere")


@check
def a_taken_place_is_left_alone(make, folder):
    learner = learned(make, FIRST)
    learner.save(folder / "model")
    before = content(folder / "model")
    learner.update(events(SECOND))
    with pytest.raises(OutputExistsError):
        learner.save(folder / "model")
    assert content(folder / "model") == before
    learner.save(folder / "model", overwrite=True)
    assert content(folder / "model") != before


@check
def a_failed_save_leaves_nothing_half_written(make, folder, no_file_beyond):
    learner = learned(make, FIRST)
    with no_file_beyond(64), pytest.raises(OutputError):
        learner.save(folder / "model")
    assert os.listdir(folder) == []
    learner.save(folder / "model")
    before = content(folder / "model")
    learner.update(events(SECOND))
    with no_file_beyond(64), pytest.raises(OutputError):
        learner.save(folder / "model", overwrite=True)
    assert content(folder / "model") == before
    assert os.listdir(folder) == ["model"]
    (folder / "file").write_text("")
    with pytest.raises(OutputError):
        learner.save(folder / "file" / "model")


@check
def nothing_is_pickled(make, folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    learner = learned_anew(make, FIRST)
    learner.save(folder / "model")
    type(learner).load(folder / "model")
    assert {Path(name).suffix for name in content(folder / "model")} <= {".json", ".safetensors", ".parquet"}


# --- encoders alone -----------------------------------------------------------------------------------------


@check_of_encoders
def everyone_has_a_finite_vector_of_its_size(make):
    encoder = learned(make, FIRST)
    stranger = rows_of({**ASKED, "user_id": [77] * 100, "genre": ["opera"] * 100}, range(10))
    for vectors in (predicted(encoder), predicted(encoder, stranger), encoder.vectors_of([1, 2, 77])):
        assert vectors.shape[1] == encoder.size
        assert np.isfinite(vectors).all()
    assert len(np.unique(predicted(encoder), axis=0)) > 10


@check_of_encoders
def a_space_is_of_one_fit(make, folder):
    encoder = learned(make, FIRST)
    space = encoder.space
    encoder.save(folder / "model")
    assert encoder.update(events(SECOND)).space == space
    assert type(encoder).load(folder / "model").space == space
    assert learned_anew(make, FIRST).space == space
    assert learned(make, SECOND).space != space


@check_of_encoders
def another_seed_is_another_space(make):
    declared = make().parameters
    other = learners.make(replace(declared, training=replace(declared.training, seed=declared.training.seed + 1)))
    assert other.fit(events(FIRST)).space != learned(make, FIRST).space


@check_of_encoders
def vectors_that_are_normalised_have_length_one(make):
    for normalised in (False, True):
        encoder = learners.make(replace(make().parameters, normalised=normalised)).fit(events(FIRST))
        one = encoder.observe(3, 5, encoder.cut + 1)[None]
        for vectors in (
            predicted(encoder),
            encoder.vectors_along(events(ASKED)),
            encoder.vectors_of([1, 77]),
            one,
        ):
            lengths = np.linalg.norm(vectors, axis=1)
            assert np.allclose(lengths, 1.0, atol=1e-5) == normalised


@check_of_encoders
def a_label_counts_once_it_is_learned(make):
    encoder, other = learned(make, FIRST), learned(make, FIRST)
    asked = {**ASKED, "click": [None] * 100}
    assert_allclose(predicted(encoder), predicted(encoder, asked), rtol=0, atol=0)
    encoder.update(events({**SECOND, "click": [1] * 150}))
    other.update(events({**SECOND, "click": [0] * 150}))
    assert np.abs(encoder.vectors_of(encoder.ids) - other.vectors_of(other.ids)).max() > 1e-3


@check_of_encoders
def all_at_once_is_as_it_came(make):
    encoder = learned(make, FIRST, SECOND)
    vectors = dict(zip(encoder.ids.tolist(), encoder.vectors_of(encoder.ids), strict=True))
    some = [(ids, batch) for ids, batch in encoder.batches()]
    assert_allclose(np.concatenate([batch for _, batch in some]), np.array(list(vectors.values())), atol=1e-6)
    assert encoder.reconciled(events(both(FIRST, SECOND))).max() <= 1e-5


def saved_manifest(make: Callable[[], Any], folder: Path) -> dict[str, Any]:
    learned(make, FIRST).save(folder / "model")
    return json.loads((folder / "model" / "manifest.json").read_text())


def rewrite(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "model" / "manifest.json").write_text(json.dumps(manifest))


# --- running them -------------------------------------------------------------------------------------------


def run(example: Example, function: Callable[..., None], request: pytest.FixtureRequest) -> None:
    """One check on one example; one that is excepted has to fail."""
    known = {"make": example.make, "tolerance": example.tolerance, "folder": request.getfixturevalue("tmp_path")}
    arguments = {
        name: known[name] if name in known else request.getfixturevalue(name)
        for name in inspect.signature(function).parameters
    }
    if function.__name__ not in example.exceptions:
        function(**arguments)
        return
    with pytest.raises((AssertionError, ac.AcclimateError)):
        function(**arguments)
