"""The verbs over project files, and what they share: models on disk, arms, worlds."""

import datetime as dt
import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate import evaluate, learners, pipeline
from acclimate.artifacts import Events
from acclimate.config import (
    LEARNERS,
    GLMixParameters,
    GlobalRateParameters,
    RateParameters,
    StackParameters,
    arms_beside,
    predicts,
)
from acclimate.errors import (
    ConfigError,
    DataError,
    FormatError,
    MismatchError,
    ModelError,
    NotFittedError,
    OutputExistsError,
)
from acclimate.evaluate import Arm
from acclimate.events.kuairand import kuairand
from acclimate.events.movielens import movielens
from acclimate.learners.calibrated import Calibrated
from acclimate.learners.glmix import GLMix
from acclimate.learners.meta_ranker import MetaRanker
from acclimate.learners.rates import GlobalRate, Rate
from acclimate.learners.sequential_laplace import SequentialLaplace
from acclimate.learners.stack import Stack
from acclimate.learners.user_encoder import UserEncoder
from acclimate.project import Project, ReplaySection, load_project
from acclimate.storage import read_kind
from sealing import sealed_anew

ARMS = """
import dataclasses

import numpy as np


@dataclasses.dataclass
class Half:
    chance: "float" = 0.5

    def fit(self, events):
        return self

    update = fit

    def predict(self, events):
        return np.full(events.table([]).num_rows, self.chance)


most = Half(0.9)


class Mute:
    def fit(self, events): ...
"""

BESIDE = arms_beside(GLMixParameters())
"""Those that go with a GLMix."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of eight days as a project, with arms of its own beside it."""
    out = tmp_path_factory.mktemp("worlds") / "world"
    pipeline.make_world(out, users=30, days=8, seed=1)
    (out / "arms.py").write_text(ARMS)
    (out / "broken.py").write_text("import no_such_module\n")
    (out / "wrong.py").write_text("def\n")
    return out


def project_of(folder: Path, *overrides: str) -> Project:
    return load_project(folder / "acclimate.yaml", overrides)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- fit and update ------------------------------------------------------------------------------------------


ON_TOP = "{kind: glmix, fixed: [topics, popular], random: user}"
BELOW = "{popular: {kind: rate, entity: item}}"
KINDS: dict[str, tuple[str, type[Any]]] = {
    # overrides of the world's learners by the kind of the one that is left, and its class
    "glmix": ("name=world", GLMix),
    "rate": ("learners={items: {kind: rate, entity: item, prior_rows: 5}}", Rate),
    "global-rate": ("learners={all: {kind: global-rate, label: like}}", GlobalRate),
    "sequential-laplace": (
        "learners={net: {kind: sequential-laplace, features: [surface, topics, duration], hidden: [8]}}",
        SequentialLaplace,
    ),
    "meta-ranker": (
        "learners={meta: {kind: meta-ranker, features: [surface, topics, duration], hidden: [8], embedding: 4, "
        "blocks: {user: {entity: user, size: 3, hidden: [4]}}, training: {epochs: 1, batch: 512}}}",
        MetaRanker,
    ),
    "user-encoder": (
        "learners={vector: {kind: user-encoder, entity: user, item: item, items: {alike: {size: 3}}, size: 4, "
        "windows: [1d, 4d], training: {epochs: 1}}}",
        UserEncoder,
    ),
    "stack": (f"learners={{mine: {{kind: stack, learner: {ON_TOP}, members: {BELOW}}}}}", Stack),
    "calibrated": ("learners={mine: {kind: glmix, random: user, calibrate: platt}}", Calibrated),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def test_every_kind_is_taken_through_the_verbs() -> None:
    assert {learner.kind for _, learner in KINDS.values()} == set(KINDS)
    assert {f"{learner.__module__}:{learner.__name__}" for _, learner in KINDS.values()} == set(LEARNERS.values())


@kinds
def test_fit_and_update_over_disk_equal_one_model_in_memory(folder: Path, tmp_path: Path, kind: str) -> None:
    override, learner_class = KINDS[kind]
    project = project_of(folder, override)
    events = pipeline.open_events(project)
    one = learners.make(project.learner()).fit(events.before("2024-01-05"))
    one.update(events.between("2024-01-05", "2024-01-07")).update(events.after("2024-01-07"))

    fitted = pipeline.fit(project, tmp_path / "model", until="2024-01-05")
    middle = pipeline.update(project, tmp_path / "model", until="2024-01-07")
    two = pipeline.update(project, tmp_path / "model")

    assert fitted.cut < middle.cut < two.cut == one.cut
    assert {type(model) for model in (one, fitted, middle, two)} == {learner_class}
    predicted = said(one, events)
    assert (predicted != said(fitted, events)).any()
    np.testing.assert_array_equal(said(two, events), predicted)
    for loaded in (learner_class.load(tmp_path / "model"), learners.load(tmp_path / "model")):
        assert type(loaded) is learner_class
        assert loaded.parameters == project.learner()
        assert loaded.cut == one.cut
        # Rows that no entity needs any more are not saved.
        assert loaded.nbytes < one.nbytes if kind == "meta-ranker" else loaded.nbytes == one.nbytes
        np.testing.assert_array_equal(said(loaded, events), predicted)


def said(model: Any, events: Events) -> Any:
    """Probabilities, or of an encoder vectors."""
    return model.predict(events) if predicts(model.parameters) else model.vectors(events)


def learned(model: Any) -> int:
    assert model.info is not None
    return model.info.rows


def rows(events: Events) -> int:
    return events.table(["time"]).num_rows


@kinds
def test_an_update_learns_what_is_new_and_nothing_twice(folder: Path, tmp_path: Path, kind: str) -> None:
    project = project_of(folder, KINDS[kind][0])
    events = pipeline.open_events(project)
    fitted = pipeline.fit(project, tmp_path / "model", until="2024-01-05")
    assert learned(fitted) == rows(events.before("2024-01-05")) > 0
    updated = pipeline.update(project, tmp_path / "model")
    assert learned(updated) == rows(events.after(fitted.cut + 1)) == rows(events) - learned(fitted)
    before = said(updated, events)
    again = pipeline.update(project, tmp_path / "model")
    np.testing.assert_array_equal(said(again, events), before)
    assert again.cut == updated.cut
    assert learned(again) == 0


ENCODED = (
    "learners={vector: {kind: user-encoder, entity: user, item: item, items: {alike: {size: 3}}, size: 4, "
    "training: {epochs: 1}}, ranker: {kind: glmix, fixed: [surface, vector]}}"
)


def test_vectors_are_written_and_reconciled_with_the_log(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder, ENCODED)
    pipeline.fit(project, tmp_path / "model", learner="vector", until="2024-01-05")
    model: Any = pipeline.update(project, tmp_path / "model", learner="vector")
    assert pipeline.write_vectors(tmp_path / "model", tmp_path / "out") == len(model.ids)
    table = pq.read_table(tmp_path / "out" / "vectors.parquet")
    assert table["id"].to_pylist() == model.ids.tolist()
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), model.vectors_of(model.ids))
    assert table.schema.metadata[b"space"].decode() == model.space
    checked = pipeline.reconcile(project, tmp_path / "model")
    assert checked == (len(model.ids), checked.largest)
    assert checked.largest <= 1e-5
    world = pq.read_table(project.events.path[0])
    pq.write_table(world.slice(0, world.num_rows // 2), tmp_path / "half.parquet")
    short = project_of(folder, ENCODED, f"events.path={tmp_path}/half.parquet")
    with pytest.raises(ModelError, match=r"vectors in .*model differ from those of the log"):
        pipeline.reconcile(short, tmp_path / "model")


def test_an_encoder_is_replayed_below_a_learner_that_predicts(folder: Path, tmp_path: Path) -> None:
    replayed = ("replay={start: 2024-01-06, arms: [incremental]}", "memory_limit=1GB")
    report = pipeline.replay_project(project_of(folder, ENCODED, *replayed), tmp_path / "report")
    assert list(report.arms) == ["incremental"]
    alone = project_of(folder, ENCODED, "replay={start: 2024-01-06, learner: vector}")
    with pytest.raises(ConfigError, match="'vector' is an encoder and predicts nothing"):
        pipeline.replay_project(alone, tmp_path / "none")
    offset = ENCODED.replace("fixed: [surface, vector]", "offset: vector")
    with pytest.raises(ConfigError, match="the offset 'vector' is an encoder and has no logit"):
        pipeline.fit(project_of(folder, offset), tmp_path / "none", learner="ranker")
    pipeline.fit(project_of(folder, "name=world"), tmp_path / "ranker")
    with pytest.raises(ConfigError, match="no encoder"):
        pipeline.write_vectors(tmp_path / "ranker", tmp_path / "none")


def test_a_checkpoint_is_kept_by_networks_alone(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    project = project_of(folder, KINDS["sequential-laplace"][0])
    pipeline.fit(project, tmp_path / "model", checkpoint=kept)
    assert not kept.exists()  # it goes with the end of the fit
    with pytest.raises(ConfigError, match="kind 'glmix' keeps no checkpoints"):
        pipeline.fit(project_of(folder), tmp_path / "other", checkpoint=kept)


def test_fit_takes_everything_and_the_learner_named(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder, "learners.other={kind: glmix, label: like}")
    model = pipeline.fit(project, tmp_path / "model", learner="other")
    assert model.parameters.label == "like"
    assert model.parameters.random == ()
    assert learned(model) == rows(pipeline.open_events(project))


@kinds
def test_a_learner_says_how_it_went(folder: Path, tmp_path: Path, kind: str) -> None:
    project = project_of(folder, KINDS[kind][0])
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        learners.make(project.learner()).summary()
    first, *_ = pipeline.fit(project, tmp_path / "model", until="2024-01-05").summary()
    assert first.startswith("learned 240 rows up to 2024-01-04T")
    (line,) = learners.load(tmp_path / "model").summary()
    assert line.startswith("knows events up to 2024-01-04T")


def test_a_model_that_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        pipeline.fit(project_of(folder, "events.path=absent"), tmp_path)
    assert files(tmp_path) == {"mine"}


def test_an_update_needs_a_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="absent"):
        pipeline.update(project_of(folder), tmp_path / "none")


TOPICS = "{features: [topics], half_life: 20d}"
RANDOM = "learners.ranker.random"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learners.ranker.label=like", r"model was made with other .*: label was click and is like"),
        ("learners.ranker.learn_population=false", r": learn_population was True and is False"),
        (
            "learners.ranker.random={user: {}}",
            r"random was \['user', 'item'\] and is \['user'\]; .*random.user.features was",
        ),
        ("learners.ranker.random={}", r"has: random was \['user', 'item'\] and is \[\] \("),
        ("learners.ranker.random=", r"has: random was \['user', 'item'\] and is \[\] \("),
        (
            f"learners.ranker.random={{item: {{half_life: 20d}}, user: {TOPICS}, page: {{entity: item_id}}}}",
            r"has: random was \['user', 'item'\] and is \['item', 'user', 'page'\] \(",
        ),
        (
            "learners.ranker.random.user.ridge=7",
            r"has: random.user.ridge was 1.0 and is 7.0 \(name the learner .* fit anew",
        ),
        ("learners.ranker.random.item.half_life=", r"has: random.item.half_life was 20d and is None \("),
        (
            "learners.ranker.random.user.features=[surface]",
            r"has: random.user.features was \('topics',\) and is \('surface',\) \(",
        ),
        ("learners.ranker.fixed={ridge: 2}", r": fixed.features was .*; fixed.ridge was 1.0 and is 2.0"),
        ("learners.ranker.tolerance=0.5", r"has: tolerance was 0.01 and is 0.5 \("),
        ("learners.ranker.max_steps=7", r"has: max_steps was 50 and is 7 \("),
        ("learners.ranker.states=float32", r"has: states was float64 and is float32 \("),
        (
            "learners.ranker={kind: rate, entity: user}",
            "has: kind was glmix and is rate [(]name the learner",
        ),
    ],
)
def test_an_update_with_other_settings_is_refused(
    folder: Path, tmp_path: Path, override: str, message: str
) -> None:
    fitted = pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    with pytest.raises(MismatchError, match=message):
        pipeline.update(project_of(folder, override), tmp_path / "model")
    assert GLMix.load(tmp_path / "model").cut == fitted.cut
    assert pipeline.update(project_of(folder), tmp_path / "model").cut > fitted.cut


@pytest.mark.parametrize(
    ("kind", "override", "message"),
    [
        ("rate", "learners.items.entity=user", "has: entity was item and is user ("),
        ("rate", "learners.items.prior_rows=7", "has: prior_rows was 5.0 and is 7.0 ("),
        ("rate", "learners.items.label=like", "has: label was None and is like ("),
        ("global-rate", "learners.all.label=click", "has: label was like and is click ("),
        ("global-rate", "learners.all.label=", "has: label was like and is None ("),
        (
            "global-rate",
            "learners.all={kind: rate, entity: user}",
            "has: kind was global-rate and is rate (name the learner",
        ),
    ],
)
def test_an_update_of_a_rate_with_other_settings_is_refused(
    folder: Path, tmp_path: Path, kind: str, override: str, message: str
) -> None:
    fitted = pipeline.fit(project_of(folder, KINDS[kind][0]), tmp_path / "model", until="2024-01-05")
    with pytest.raises(MismatchError) as caught:
        pipeline.update(project_of(folder, KINDS[kind][0], override), tmp_path / "model")
    assert message in str(caught.value)
    assert learners.load(tmp_path / "model").cut == fitted.cut


@pytest.mark.parametrize(
    "override",
    [
        "name=another",
        "replay=",
        "learners.ranker.tolerance=1e-2",
        f"learners.ranker.random={{item: {{half_life: 20d}}, user: {TOPICS}}}",
        RANDOM + "=[{entity: user, features: topics, half_life: 20d}, {entity: item, half_life: 20d}]",
        RANDOM + "={user: {entity: user, features: topics, half_life: 20d}, item: {half_life: 20d}}",
    ],
)
def test_an_update_with_the_same_settings_written_otherwise(folder: Path, tmp_path: Path, override: str) -> None:
    fitted = pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    updated = pipeline.update(project_of(folder, override), tmp_path / "model")
    assert updated.cut > fitted.cut
    expected = learners.make(project_of(folder).learner())
    events = pipeline.open_events(project_of(folder))
    expected.fit(events.before("2024-01-05")).update(events.after("2024-01-05"))
    np.testing.assert_array_equal(updated.predict(events), expected.predict(events))


def test_every_field_is_compared() -> None:
    """Each field of each record is changed in turn, and the difference names it."""
    other: dict[str, Any] = {
        "fixed": ["tab"],
        "random": {"item": ["tab"]},
        "label": "like",
        "loss": "poisson",
        "noise": 0.5,
        "learn_population": False,
        "approximation": "variational",
        "tolerance": 0.5,
        "max_steps": 3,
        "states": "float32",
        "entity": "item",
        "name": "tastes",
        "ridges": {"x": 2.0},
        "prior_rows": 3.0,
        "features": ["x"],
        "min_rows": 2,
        "max_rows": 9,
        "support": "observed",
        "ridge": 2.0,
        "forgetting": 0.5,
        "half_life": "9d",
        "adaptive": True,
        "precision": "full",
        "offset": "popular",
        "learner": GLMixParameters(fixed=["popular"], offset="popular"),
        "members": {"popular": RateParameters("item")},
        "warm_up": 0.25,
        "every": "9d",
    }
    user, rate = ac.RandomEffect("user", ["tab", "x"]), RateParameters("user")
    stack = StackParameters(GLMixParameters(fixed=["popular"]), {"popular": rate})
    records = (
        GLMixParameters(loss="squared"),
        GlobalRateParameters(),
        rate,
        stack,
        ac.FixedEffect(["tab", "x"]),
        user,
    )
    for record in records:
        assert list(pipeline._differences(record, record, "")) == []
        names = [field.name for field in fields(record) if field.name != "kind"]
        for name in names:
            changed = replace(record, **{name: other[name]})
            (difference,) = pipeline._differences(record, changed, "place")
            assert difference.startswith(f"place.{name}")
            (difference,) = pipeline._differences(record, changed, "")
            assert difference.startswith(name)


def test_an_update_of_the_learner_named(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder, "learners.other={kind: glmix, label: like}")
    fitted = pipeline.fit(project, tmp_path / "model", learner="other", until="2024-01-05")
    with pytest.raises(MismatchError, match="label was like and is click"):
        pipeline.update(project, tmp_path / "model", learner="ranker")
    with pytest.raises(ConfigError, match="no learner 'othr'"):
        pipeline.update(project, tmp_path / "model", learner="othr")
    assert pipeline.update(project, tmp_path / "model", learner="other").cut > fitted.cut


@kinds
def test_a_model_of_a_kind_that_is_not_known(folder: Path, tmp_path: Path, kind: str) -> None:
    pipeline.fit(project_of(folder, KINDS[kind][0]), tmp_path / "model")
    assert read_kind(tmp_path / "model") == kind
    sealed_anew(tmp_path / "model", kind="glmax")
    for attempt in (
        lambda: learners.load(tmp_path / "model"),
        lambda: pipeline.update(project_of(folder, KINDS[kind][0]), tmp_path / "model"),
    ):
        with pytest.raises(FormatError, match=r"model: no kind 'glmax' of learner"):
            attempt()


def test_a_model_of_another_kind_than_its_content_is_damaged(folder: Path, tmp_path: Path) -> None:
    pipeline.fit(project_of(folder), tmp_path / "model")
    sealed_anew(tmp_path / "model", kind="rate")
    with pytest.raises(FormatError, match="model is damaged: Rate: no argument 'fixed'"):
        learners.load(tmp_path / "model")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "kind": "glmix"}'])
def test_what_is_no_model_cannot_be_loaded(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError, match="absent or incomplete"):
        learners.load(tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"model (is damaged|has format [12])"):
        learners.load(tmp_path / "model")


def test_a_model_without_one_of_its_effects_is_damaged(folder: Path, tmp_path: Path) -> None:
    pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    sealed_anew(tmp_path / "model", effects=[{"columns": [], "ids": None}] * 2)
    with pytest.raises(FormatError, match="damaged: 2 effects where the parameters have 3"):
        pipeline.update(project_of(folder), tmp_path / "model")


def test_an_update_of_wrong_rows_leaves_the_model(folder: Path, tmp_path: Path) -> None:
    events = pipeline.open_events(project_of(folder))
    pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    before = GLMix.load(tmp_path / "model").predict(events)
    wrong = events.after("2024-01-06").table()
    place = wrong.column_names.index("click")
    pq.write_table(wrong.set_column(place, "click", [np.full(len(wrong), 7)]), tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="click"):
        pipeline.update(project_of(folder, f"events.path={tmp_path / 'wrong.parquet'}"), tmp_path / "model")
    np.testing.assert_array_equal(GLMix.load(tmp_path / "model").predict(events), before)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "wrong.parquet"}


def test_check_tells_what_is_there(folder: Path) -> None:
    summary, widths, _ = pipeline.check(project_of(folder))
    users = pipeline.open_events(project_of(folder)).table(["user_id"])["user_id"]
    assert (summary.rows, summary.entities["user_id"]) == (8 * 60, len(users.unique()))
    assert widths["ranker.user"] == 13  # an intercept and twelve topics
    assert set(widths) == {"ranker.fixed", "ranker.user", "ranker.item"}


def test_check_of_learners_without_coefficients(folder: Path) -> None:
    rates = ("learners.items={kind: rate, entity: item}", "learners.all.kind=global-rate", "replay.learner=ranker")
    summary, widths, _ = pipeline.check(project_of(folder, *rates))
    assert summary.rows == 8 * 60
    assert set(widths) == {"ranker.fixed", "ranker.user", "ranker.item"}
    alone = project_of(folder, KINDS["rate"][0], "replay=")
    assert pipeline.check(alone) == (summary, {}, [])


def test_check_reads_what_rates_read(folder: Path, tmp_path: Path) -> None:
    events = pipeline.open_events(project_of(folder)).table()
    place = events.column_names.index("like")
    wrong = events.set_column(place, "like", [np.full(len(events), 7)])
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    project = project_of(folder, KINDS["global-rate"][0], f"events.path={tmp_path / 'wrong.parquet'}", "replay=")
    with pytest.raises(DataError, match="like"):
        pipeline.check(project)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("learners.ranker.fixed=[surfce]", "did you mean 'surface'"),
        ("learners.ranker.label=clik", "did you mean 'click'"),
        ("learners.ranker.random={usr: {}}", "did you mean 'user'"),
        ("learners.items={kind: rate, entity: itm}", "did you mean 'item'"),
        ("learners.items={kind: rate, entity: item, label: clik}", "did you mean 'click'"),
        ("learners.all={kind: global-rate, label: clik}", "did you mean 'click'"),
        ("replay.arms=[{name: x, python: 'arms.py:Hlf'}]", "did you mean 'Half'"),
    ],
)
def test_check_finds_what_does_not_fit(folder: Path, override: str, error: str) -> None:
    with pytest.raises((ConfigError, DataError), match=error):
        pipeline.check(project_of(folder, override))


# --- replay --------------------------------------------------------------------------------------------------


def test_a_replay_starts_half_way_at_midnight_and_takes_days() -> None:
    events = ac.simulate(users=20, items=10, days=7, events_per_day=40, jump_day=None)
    report = ac.replay([Rate("user"), GlobalRate()], events)
    assert list(report.arms) == ["rate-1", "globalrate-2"]
    assert report.settings["every"] == "1d"
    assert [window.start for window in report.windows if window.arm == "rate-1"] == [
        f"2024-01-0{day}T00:00:00+00:00" for day in (4, 5, 6, 7)
    ]


def test_one_learner_and_learners_by_name() -> None:
    events = ac.simulate(users=20, items=10, days=3, events_per_day=40, jump_day=None)
    assert list(ac.replay([GlobalRate()], events).arms) == ["incremental"]
    assert list(ac.replay({"mine": GlobalRate()}, events).arms) == ["mine"]


def test_a_replay_has_every_option_of_the_evaluation() -> None:
    inner = dict(inspect.signature(evaluate.replay).parameters)
    outer = inspect.signature(ac.replay).parameters
    assert set(outer) - set(inner) == {"out", "overwrite"}
    del inner["on_window"]  # for a search that ends replays which come to nothing
    assert set(inner) <= set(outer)
    for name, option in inner.items():
        assert outer[name].kind == option.kind, name
        if name not in ("arms", "start"):
            assert outer[name].default == option.default, name
    assert (inner["start"].default, outer["start"].default) == (inspect.Parameter.empty, None)


def measured_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the evaluation is given from here on; instead of measuring it stops."""
    given: dict[str, Any] = {}

    def measure(arms: Any, events: Any, **options: Any) -> None:
        given.update(options, arms=arms, events=events)
        raise DataError("measured")

    monkeypatch.setattr(pipeline, "measure", measure)
    return given


def test_a_replay_hands_every_option_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = measured_with(monkeypatch)
    events = ac.simulate(users=20, items=10, days=3, events_per_day=40)
    names = set(inspect.signature(evaluate.replay).parameters) - {"arms", "events", "on_window"}
    asked: dict[str, Any] = {name: object() for name in names}
    with pytest.raises(DataError, match="measured"):
        ac.replay([Arm("mine", GlobalRate())], events, **asked)
    assert {name: given[name] for name in names} == asked
    assert given.keys() == {*names, "arms", "events"}
    assert given["events"] is events


def test_a_project_hands_every_option_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = measured_with(monkeypatch)
    asked: dict[str, Any] = {
        "start": "2024-01-03",
        "every": "6h",
        "end": "2024-01-05",
        "label_delay": "1h",
        "ndcg_at": 3,
        "within": ("tab",),
        "follow": 7,
    }
    assert asked.keys() == {field.name for field in fields(ReplaySection)} - {"arms", "learner", "mode"}
    written = {**asked, "within": "tab"}
    overrides = [f"replay.{name}={value}" for name, value in written.items()]
    with pytest.raises(DataError, match="measured"):
        pipeline.replay_project(project_of(folder, *overrides), tmp_path / "out", on_progress=print)
    assert {name: given[name] for name in asked} == asked
    assert (given["name"], given["label"], given["on_progress"]) == ("simulated-world", "click", print)
    assert [arm.name for arm in given["arms"]] == list(BESIDE)


def test_no_events_cannot_be_replayed() -> None:
    events = ac.simulate(users=20, items=10, days=3, events_per_day=40)
    with pytest.raises(DataError, match="no events"):
        ac.replay([GlobalRate()], events.before("2023-01-01"))


def test_a_replay_is_refused_before_it_begins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        pipeline.replay_project(project_of(folder, "events.path=absent"), tmp_path)
    steps: list[Any] = []
    with pytest.raises(OutputExistsError):
        pipeline.demo(tmp_path, users=10, days=12, on_progress=steps.append)
    with pytest.raises(OutputExistsError):
        pipeline.make_world(tmp_path, users=10, days=3)
    assert steps == []
    assert files(tmp_path) == {"mine"}


def test_a_project_without_replay(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no section 'replay'"):
        pipeline.replay_project(project_of(folder, "replay="), tmp_path / "out")
    assert pipeline.arms_of(project_of(folder, "replay=")) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_an_interrupted_replay_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def interrupted(self: Path, *_: Any, **__: Any) -> int:
        assert self.parent.parent.name.startswith(".out.")
        raise failure

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(failure):
        pipeline.replay_project(project_of(folder, "replay.arms=[global-rate]"), tmp_path / "out")
    assert files(tmp_path) == set()


# --- arms ----------------------------------------------------------------------------------------------------


def test_built_in_arms(folder: Path) -> None:
    arms = {arm.name: arm for arm in pipeline.arms_of(project_of(folder))}
    assert tuple(arms) == BESIDE
    assert {name: arm.regime for name, arm in arms.items() if arm.regime != "incremental"} == {
        "stale": "stale",
        "retrain": "retrain",
    }
    shared = arms["incremental"].learner
    assert arms["stale"].learner is shared
    assert arms["retrain"].learner is shared
    fixed = arms["fixed"].learner
    assert isinstance(shared, GLMix)
    assert isinstance(fixed, GLMix)
    assert (len(shared.parameters.random), len(fixed.parameters.random)) == (2, 0)
    assert fixed.parameters.fixed == shared.parameters.fixed
    assert fixed.parameters.label == "click"
    rates = [arms[name].learner for name in ("item-rate", "user-rate")]
    assert [rate.parameters.entity for rate in rates if isinstance(rate, Rate)] == ["item", "user"]
    assert {rate.parameters.label for rate in rates if isinstance(rate, Rate)} == {"click"}
    overall = arms["global-rate"].learner
    assert isinstance(overall, GlobalRate)
    assert overall.parameters.label == "click"


def test_arms_of_one_learner_share_it_whatever_they_are_called(folder: Path) -> None:
    arms = "[stale, {name: short, learner: ranker, regime: retrain, window: 3d}, {name: other, learner: second}]"
    stale, short, other = pipeline.arms_of(
        project_of(folder, "learners.second={kind: glmix}", "replay.learner=ranker", f"replay.arms={arms}")
    )
    assert stale.learner is short.learner is not other.learner
    assert (short.regime, short.window) == ("retrain", "3d")


@pytest.mark.parametrize("kind", ["rate", "global-rate"])
def test_the_shared_part_of_a_learner_that_has_none(folder: Path, tmp_path: Path, kind: str) -> None:
    project = project_of(folder, KINDS[kind][0], "replay.arms=[incremental, fixed]")
    for attempt in (
        lambda: pipeline.arms_of(project),
        lambda: pipeline.check(project),
        lambda: pipeline.replay_project(project, tmp_path / "out"),
    ):
        with pytest.raises(ConfigError, match=f"the arm 'fixed' .* one of kind '{kind}' has none") as caught:
            attempt()
        assert caught.value.hint
    assert files(tmp_path) == set()


@pytest.mark.parametrize("kind", ["rate", "global-rate"])
def test_the_arms_of_a_learner_without_a_shared_part_are_the_others(folder: Path, kind: str) -> None:
    arms = pipeline.arms_of(project_of(folder, KINDS[kind][0], "replay={start: 2024-01-05}"))
    assert [arm.name for arm in arms] == [name for name in BESIDE if name != "fixed"]


def test_baselines_beside_another_learner_than_the_first(folder: Path) -> None:
    """It is the learner behind the built-in arms that has to have a shared part."""
    rate = "learners.items={kind: rate, entity: item, label: like}"
    arms = pipeline.arms_of(project_of(folder, rate, "replay.learner=ranker"))
    assert tuple(arm.name for arm in arms) == BESIDE
    names = "[stale, retrain, global-rate, item-rate, user-rate]"
    arms = pipeline.arms_of(project_of(folder, rate, "replay.learner=items", f"replay.arms={names}"))
    assert arms[0].learner is arms[1].learner
    declared = [arm.learner.parameters for arm in arms[1:] if isinstance(arm.learner, Rate | GlobalRate)]
    assert declared == [
        RateParameters("item", "like"),
        GlobalRateParameters("like"),
        RateParameters("item", "like"),
        RateParameters("user", "like"),
    ]


def test_a_built_in_baseline_can_be_retrained(folder: Path) -> None:
    (arm,) = pipeline.arms_of(project_of(folder, "replay.arms=[{name: fixed, regime: retrain, window: 3d}]"))
    assert (arm.regime, arm.window) == ("retrain", "3d")


def own_arm(folder: Path, python: str) -> Arm:
    (arm,) = pipeline.arms_of(project_of(folder, f"replay.arms=[{{name: x, python: '{python}'}}]"))
    return arm


def test_an_arm_of_your_own_is_a_class_or_an_object(folder: Path) -> None:
    assert [getattr(own_arm(folder, f"arms.py:{name}").learner, "chance", 0) for name in ("Half", "most")] == [
        0.5,
        0.9,
    ]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("none.py:Half", "'none.py:Half' names no object in a file"),
        ("arms.py", "'arms.py' names no object in a file"),
        ("arms.py:", "'arms.py:' names no object in a file"),
        (":Half", "':Half' names no object in a file"),
        ("acclimate.yaml:Half", "names no object in a file"),
        ("arms.py:Hal", "arms.py has no 'Hal' .*did you mean 'Half'"),
        ("broken.py:Half", "broken.py cannot be imported: No module named 'no_such_module'"),
        ("wrong.py:Half", "wrong.py cannot be imported: .*line 1"),
        ("arms.py:Mute", r"'arms.py:Mute' has no update\(\)"),
    ],
)
def test_what_is_no_arm(folder: Path, python: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own_arm(folder, python)


def test_an_unknown_learner_of_an_arm(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no learner 'rankr' .*did you mean 'ranker'"):
        pipeline.arms_of(project_of(folder, "replay.arms=[{name: x, learner: rankr}]"))
    with pytest.raises(ConfigError, match="no learner 'rankr'"):
        pipeline.arms_of(project_of(folder, "replay.learner=rankr"))


@pytest.mark.parametrize("kind", ["rate", "global-rate"])
def test_a_replay_of_rates(folder: Path, tmp_path: Path, kind: str) -> None:
    arms = "replay.arms=[stale, incremental, retrain, global-rate, item-rate, user-rate]"
    overrides = (arms, "replay.start=2024-01-06")
    project = project_of(folder, KINDS[kind][0], *overrides)
    report = pipeline.replay_project(project, tmp_path / "out")
    assert list(report.arms) == ["stale", "incremental", "retrain", "global-rate", "item-rate", "user-rate"]
    assert report.settings["label"] == ("click" if kind == "rate" else "like")
    assert files(tmp_path / "out") == {"manifest.json", "metrics.json", "report.html"}
    one, anew = report.arms["incremental"], report.arms["retrain"]
    assert (one.log_loss, one.auc) == (anew.log_loss, anew.auc)  # counting on is counting anew
    assert one.log_loss != report.arms["stale"].log_loss
    assert (report.arms["stale"].rows_read, one.rows_read) == (0, 3 * 60)
    if kind == "global-rate":
        assert one.log_loss == report.arms["global-rate"].log_loss

    model = learners.make(project.learner()).fit(pipeline.open_events(project).before("2024-01-06"))
    losses = []
    for window in pipeline.open_events(project).windows("1d", start="2024-01-06"):
        label = window.table()[report.settings["label"]].to_numpy()
        p = model.predict(window)
        losses.append(-np.log(np.where(label == 1, p, 1 - p)))
        model.update(window)
    assert one.log_loss == pytest.approx(np.concatenate(losses).mean(), abs=1e-12)


def test_learners_of_all_kinds_side_by_side(folder: Path, tmp_path: Path) -> None:
    project = project_of(
        folder,
        "learners.items={kind: rate, entity: item}",
        "learners.all={kind: global-rate}",
        "replay.learner=ranker",
        "replay.arms=[incremental, item-rate, {name: mine, learner: items}, {name: overall, learner: all}]",
        "replay.start=2024-01-06",
    )
    report = pipeline.replay_project(project, tmp_path / "out")
    assert list(report.arms) == ["incremental", "item-rate", "mine", "overall"]
    assert report.arms["mine"].log_loss == report.arms["item-rate"].log_loss != report.arms["overall"].log_loss


def test_all_kinds_of_arms_in_one_replay(folder: Path, tmp_path: Path) -> None:
    arms = "[stale, incremental, fixed, {name: half, python: 'arms.py:Half'}]"
    report = pipeline.replay_project(
        project_of(folder, f"replay.arms={arms}", "replay.start=2024-01-06"),
        tmp_path / "out",
    )
    assert list(report.arms) == ["stale", "incremental", "fixed", "half"]
    assert report.name == "simulated-world"
    assert report.settings["label"] == "click"
    assert report.arms["half"].log_loss == pytest.approx(np.log(2))
    assert report.arms["stale"].rows_read == 0
    assert report.arms["incremental"].rows_read == 3 * 60
    assert files(tmp_path / "out") == {"manifest.json", "metrics.json", "report.html"}


# --- data sets, end to end -----------------------------------------------------------------------------------


def millis(day: int, second: int) -> int:
    beijing = dt.timezone(dt.timedelta(hours=8))
    return int(dt.datetime(2022, 4, 1, 12, tzinfo=beijing).timestamp() * 1000) + 86_400_000 * (day - 1) + second


def impressions(days: range, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = ["user_id,video_id,time_ms,is_click,is_like,long_view,tab"]
    lines += [
        f"{rng.integers(8)},{rng.integers(4)},{millis(day, i)},{rng.integers(2)},0,{i % 2},{rng.integers(2)}"
        for day in days
        for i in range(20)
    ]
    return "\n".join(lines) + "\n"


def test_kuairand_files_become_a_report(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "log_standard_4_08_to_4_21_pure.csv").write_text(impressions(range(18, 22), 0))
    (data / "log_standard_4_22_to_5_08_pure.csv").write_text(impressions(range(26, 31), 1))
    users = "".join(f"{user},{'full_active' if user % 2 else 'UNKNOWN'}\n" for user in range(8))
    (data / "user_features_pure.csv").write_text("user_id,user_active_degree\n" + users)
    videos = "".join(f'{video},"{video},7",{9000 + video}\n' for video in range(4))
    (data / "video_features_basic_pure.csv").write_text("video_id,tag,video_duration\n" + videos)
    made = kuairand(data, tmp_path / "project")
    report = pipeline.replay_project(load_project(made.project), tmp_path / "out")
    assert tuple(report.arms) == BESIDE
    assert {arm.rows for arm in report.arms.values()} == {3 * 20}  # 28, 29 and 30 April
    assert report.arms["incremental"].within.keys() == {"tab"}


def test_movielens_files_become_a_report(tmp_path: Path) -> None:
    data = tmp_path / "ml-latest-small"
    data.mkdir()
    rng = np.random.default_rng(0)
    ratings = (
        f"{rng.integers(1, 9)},{rng.integers(1, 6)},{rng.integers(1, 11) / 2},{1_600_000_000 + 3_600 * hour}\n"
        for hour in range(400)
    )
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(ratings))
    movies = "".join(f"{movie},Film {movie} (199{movie}),Drama|War\n" for movie in range(1, 6))
    (data / "movies.csv").write_text("movieId,title,genres\n" + movies)
    made = movielens(data, tmp_path / "project")
    project = load_project(made.project)
    report = pipeline.replay_project(project, tmp_path / "out")
    assert tuple(report.arms) == BESIDE
    assert project.replay is not None
    late = pipeline.open_events(project).after(project.replay.start)
    assert {arm.rows for arm in report.arms.values()} == {rows(late)}
    assert rows(late) >= 80


# --- the demonstration ---------------------------------------------------------------------------------------


def test_the_demo_shows_regret_of_every_arm(tmp_path: Path) -> None:
    report = pipeline.demo(tmp_path / "out", users=40, days=12)
    assert tuple(report.arms) == BESIDE
    assert all(arm.regret is not None and arm.regret > 0 for arm in report.arms.values())
    assert {window.start[:10] for window in report.windows} == {"2024-01-11", "2024-01-12"}
    assert report.name == "a drifting world"
    assert (report.settings["label"], report.settings["every"]) == ("click", "1d")
    assert {tuple(arm.within) for arm in report.arms.values()} == {()}
    assert files(tmp_path / "out") == {"manifest.json", "metrics.json", "report.html"}


def test_a_world_is_the_same_by_its_seed(tmp_path: Path) -> None:
    one, two, other = (
        pipeline.open_events(
            load_project(pipeline.make_world(tmp_path / name, users=10, days=2, seed=seed).project)
        ).table()
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.equals(two)
    assert not one.equals(other)
