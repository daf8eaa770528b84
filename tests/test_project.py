"""The project file: every key arrives, every mistake is one line that names its place."""

import copy
import dataclasses
import datetime as dt
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from acclimate.config import (
    LEARNERS,
    CalibratedParameters,
    Choices,
    EntityTable,
    Feature,
    FixedEffect,
    Gates,
    GLMixParameters,
    GlobalRateParameters,
    ItemVectors,
    MetaBlock,
    MetaRankerParameters,
    RandomEffect,
    Range,
    RateParameters,
    Schema,
    SequentialLaplaceParameters,
    StackParameters,
    TimeColumn,
    Training,
    UserEncoderParameters,
    record_of,
)
from acclimate.errors import ConfigError
from acclimate.project import (
    ArmSection,
    EventsSection,
    Project,
    PublishSection,
    ReplaySection,
    StreamSection,
    load_project,
    parse_project,
)

EXAMPLE = Path(__file__).parents[1] / "examples" / "kuairand" / "acclimate.yaml"

SMALL: dict[str, Any] = {
    "name": "small",
    "events": {"path": "log.csv", "time": "t", "entities": ["user_id", "item_id"], "labels": "y"},
    "learners": {"ranker": {"kind": "glmix", "fixed": ["a"], "random": {"user_id": None}}},
    "replay": {"start": "2024-01-05"},
}

FULL = """
name: full
memory_limit: 2.5GB
events:
  path: [logs, "more/*.csv"]
  time: {column: at, unit: ms, zone: Asia/Shanghai}
  entities: {user: user_id, item: item_id}
  labels: [click, like, stars]
  label_kinds: {stars: number}
  weight: w
  offset: o
  truth: p
  duplicates: drop
  tables:
    item: {source: items.parquet, key: item_id, time: {column: since, unit: s, zone: Europe/Berlin}}
features:
  tags: {column: item.tags, kind: multi, separator: "|", buckets: 64}
  length: {column: item.length, kind: numeric, transform: log1p}
  both: {kind: cross, of: [tags, length]}
learners:
  ranker:
    kind: glmix
    label: like
    loss: squared
    noise: 0.5
    learn_population: false
    approximation: variational
    tolerance: 0.1
    max_steps: 7
    states: float32
    fixed: {features: [tags, length], ridge: 2, half_life: 30d, adaptive: true, precision: diagonal}
    random:
      user:
        {features: [tags], min_rows: 2, max_rows: 50, ridge: 3, ridges: {tags: 9}, forgetting: 0.9,
         precision: full, support: observed}
      items: {entity: item, half_life: 7d, adaptive: true}
  other: {kind: glmix}
  popular: {kind: rate, entity: item, label: like, prior_rows: 5}
  everybody: {kind: global-rate, label: like}
  deep:
    kind: sequential-laplace
    label: like
    features: [tags, length]
    ranker: dcn-v2
    embedding: 4
    hidden: [32, 8]
    crosses: 3
    dropout: 0.1
    ridge: 2
    embedding_ridge: 20
    forgetting: 0.9
    cold_weight: 0.1
    curvature: fisher
    last_layer: full
    variance: linearised
    temperature: false
    refuse_above: 0.1
    training:
      {epochs: 4, update_epochs: 3, batch: 64, rate: 0.01, update_rate: 0.02, holdout: 0.2, patience: 2, seed: 5,
       device: cpu, mixed_precision: true}
  meta:
    kind: meta-ranker
    label: like
    features: [tags, length]
    offset:
    blocks:
      user: {entity: user, features: [length], hidden: [8], size: 4, adaptation: amortised, steps: 2, support: 9}
    ranker: mlp
    order: first
    rates: fixed
    rate: 0.2
    prior_rows: 3
    thinned: 0.4
    weighting: entities
    training: {epochs: 2}
  vector:
    kind: user-encoder
    entity: user
    item: item
    items: {content: {features: [tags, length], size: 16}, together: {behaviour: liked, shift: 2}}
    behaviours: {seen: null, liked: like}
    windows: [1d, 7d]
    decay: exponential
    columns: {profile: [length]}
    most_events: 100
    size: 32
    code: 16
    hidden: 64
    noise: 0.2
    masked: 0.2
    group_dropout: 0.1
    normalised: true
    snapshots: 2
    training: {epochs: 3}
  both:
    kind: stack
    learner: {kind: glmix, fixed: [tags, popular], offset: trend}
    members: {trend: {kind: global-rate}}
    warm_up: 0.25
    every: 12h
  right: {kind: glmix, fixed: [tags], calibrate: {mode: integrated, ridge: 3.0, half_life: 2d}}
replay:
  start: 2024-01-05
  every: 6h
  end: 2024-01-06 12:00:00
  learner: ranker
  label_delay: 1h
  mode: integrated
  ndcg_at: 5
  within: surface
  follow: 17
  arms:
    - stale
    - {name: recent, learner: other, regime: retrain, window: 14d, mode: point}
    - {name: trees, python: "arms.py:Trees"}
tune:
  learners.ranker.fixed.ridge: {low: 0.1, high: 10, log: true}
  learners.popular.prior_rows: [5, 50]
  learners.ranker.random.items.half_life: {low: 1d, high: 60d}
publish:
  spaces: all/spaces
  store: lmdb://state
  gates: {window: 6h, coverage: {user: 0.9}, drift: 0.1, quality: 0.01, parity: 0.001, sample: 50}
stream:
  source: log://events
  partitions: 4
  by: user
  learners: ranker
  learns: entities
  batch: 500
  wait: 50ms
  lateness: 2d
  event_id: event
  duplicates: 6h
  refused: aside
  lease: 10s
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acclimate.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def failure(file: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_project(file, overrides)
    assert "\n" not in str(caught.value)
    return caught.value


# --- what arrives --------------------------------------------------------------------------------------------


def test_every_key_arrives(tmp_path: Path) -> None:
    path = tmp_path / "acclimate.yaml"
    path.write_text(FULL)
    project = load_project(path)
    assert {field.name: getattr(project, field.name) for field in fields(project)} == {
        "name": "full",
        "folder": tmp_path,
        "memory_limit": "2.5GB",
        "events": EventsSection(
            path=[str(tmp_path / "logs"), str(tmp_path / "more/*.csv")],
            schema=Schema(
                time=TimeColumn("at", "ms", "Asia/Shanghai"),
                entities={"user": "user_id", "item": "item_id"},
                labels=("click", "like", "stars"),
                label_kinds={"stars": "number"},
                weight="w",
                offset="o",
                truth="p",
                duplicates="drop",
                features={
                    "tags": Feature("item.tags", "multi", separator="|", buckets=64),
                    "length": Feature("item.length", "numeric", "log1p"),
                    "both": Feature(kind="cross", of=("tags", "length")),
                },
                tables={
                    "item": EntityTable(
                        str(tmp_path / "items.parquet"), "item_id", TimeColumn("since", "s", "Europe/Berlin")
                    )
                },
            ),
        ),
        "learners": {
            "ranker": GLMixParameters(
                label="like",
                loss="squared",
                noise=0.5,
                learn_population=False,
                approximation="variational",
                tolerance=0.1,
                max_steps=7,
                states="float32",
                fixed=FixedEffect(
                    ("tags", "length"), ridge=2.0, half_life="30d", adaptive=True, precision="diagonal"
                ),
                random=(
                    RandomEffect(
                        "user",
                        ("tags",),
                        min_rows=2,
                        max_rows=50,
                        ridge=3.0,
                        forgetting=0.9,
                        precision="full",
                        ridges={"tags": 9.0},
                        support="observed",
                    ),
                    RandomEffect("item", half_life="7d", adaptive=True, name="items"),
                ),
            ),
            "other": GLMixParameters(),
            "popular": RateParameters("item", "like", 5.0),
            "everybody": GlobalRateParameters("like"),
            "deep": SequentialLaplaceParameters(
                label="like",
                features=("tags", "length"),
                ranker="dcn-v2",
                embedding=4,
                hidden=(32, 8),
                crosses=3,
                dropout=0.1,
                ridge=2.0,
                embedding_ridge=20.0,
                forgetting=0.9,
                cold_weight=0.1,
                curvature="fisher",
                last_layer="full",
                variance="linearised",
                temperature=False,
                refuse_above=0.1,
                training=Training(
                    epochs=4,
                    update_epochs=3,
                    batch=64,
                    rate=0.01,
                    update_rate=0.02,
                    holdout=0.2,
                    patience=2,
                    seed=5,
                    device="cpu",
                    mixed_precision=True,
                ),
            ),
            "meta": MetaRankerParameters(
                label="like",
                features=("tags", "length"),
                blocks={
                    "user": MetaBlock(
                        entity="user",
                        features=("length",),
                        hidden=(8,),
                        size=4,
                        adaptation="amortised",
                        steps=2,
                        support=9,
                    )
                },
                ranker="mlp",
                order="first",
                rates="fixed",
                rate=0.2,
                prior_rows=3.0,
                thinned=0.4,
                weighting="entities",
                training=Training(epochs=2),
            ),
            "vector": UserEncoderParameters(
                entity="user",
                item="item",
                items={
                    "content": ItemVectors(("tags", "length"), size=16),
                    "together": ItemVectors(behaviour="liked", shift=2.0),
                },
                behaviours={"seen": None, "liked": "like"},
                windows=("1d", "7d"),
                decay="exponential",
                columns={"profile": ("length",)},
                most_events=100,
                size=32,
                code=16,
                hidden=64,
                noise=0.2,
                masked=0.2,
                group_dropout=0.1,
                normalised=True,
                snapshots=2,
                training=Training(epochs=3),
            ),
            "both": StackParameters(
                GLMixParameters(fixed=("tags", "popular"), offset="trend"),
                {"trend": GlobalRateParameters(), "popular": RateParameters("item", "like", 5.0)},
                warm_up=0.25,
                every="12h",
            ),
            "right": CalibratedParameters(
                GLMixParameters(fixed=("tags",)), mode="integrated", ridge=3.0, half_life="2d"
            ),
        },
        "replay": ReplaySection(
            start="2024-01-05",
            every="6h",
            end="2024-01-06T12:00:00",
            learner="ranker",
            label_delay="1h",
            mode="integrated",
            ndcg_at=5,
            within=("surface",),
            follow=17,
            arms=[
                ArmSection("stale"),
                ArmSection("recent", "retrain", "14d", learner="other", mode="point"),
                ArmSection("trees", python="arms.py:Trees"),
            ],
        ),
        "tune": {
            "learners.ranker.fixed.ridge": Range(0.1, 10, log=True),
            "learners.popular.prior_rows": Choices((5, 50)),
            "learners.ranker.random.items.half_life": Range(1.0, 60.0, log=True, days=True),
        },
        "publish": PublishSection(
            spaces=str(tmp_path / "all/spaces"),
            store=f"lmdb://{tmp_path}/state",
            gates=Gates("6h", {"user": 0.9}, drift=0.1, quality=0.01, parity=0.001, sample=50),
        ),
        "stream": StreamSection(
            f"log://{tmp_path}/events",
            partitions=4,
            by="user",
            learners=("ranker",),
            batch=500,
            wait="50ms",
            lateness="2d",
            event_id="event",
            duplicates="6h",
            refused=str(tmp_path / "aside"),
            lease="10s",
        ),
    }


def test_addresses_are_the_same_wherever_the_project_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acclimate.yaml").write_text(FULL)
    there = load_project(tmp_path / "acclimate.yaml")
    monkeypatch.chdir(tmp_path)
    here = load_project("acclimate.yaml")
    assert there.stream is not None
    assert here.stream is not None
    assert here.stream.source == there.stream.source == f"log://{tmp_path}/events"
    assert here.publish is not None
    assert here.publish.store == f"lmdb://{tmp_path}/state"


def test_the_full_file_sets_every_key_that_there_is() -> None:
    content = yaml.safe_load(FULL)
    written = {str(key) for section in walk(content) for key in section}
    records = (
        Schema,
        TimeColumn,
        EntityTable,
        Feature,
        *LEARNERS,
        FixedEffect,
        RandomEffect,
        Training,
        ItemVectors,
        MetaBlock,
    )
    known = {f.name for record in (*records, ReplaySection, ArmSection, EventsSection) for f in fields(record)}
    assert known - {"schema"} - written == set()
    assert {type(declared) for declared in parse_project(content, Path()).learners.values()} == set(LEARNERS)


def walk(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(part for item in value.values() for part in walk(item))]
    return [part for item in value for part in walk(item)] if isinstance(value, list) else []


def test_what_is_left_out_has_its_default(file: Path) -> None:
    project = load_project(file)
    assert project.replay is not None
    assert project.replay.arms is None
    assert (project.replay.every, project.replay.ndcg_at) == ("1d", 10)
    assert project.events.schema.entities == {"user_id": "user_id", "item_id": "item_id"}
    assert project.events.schema.labels == ("y",)


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("learners={3: {kind: global-rate}}", "learners.3"),
        ("features={3: {kind: numeric}}", "features.3"),
        ("events.entities={3: u}", "events.entities.3"),
        ("events.tables={3: {source: x, key: u}}", "events.tables.3"),
    ],
)
def test_a_key_that_is_a_number_is_named(file: Path, override: str, place: str) -> None:
    assert f"{file}: --set: {place}" in failure(file, override).message


def test_a_project_is_made_of_records_too(file: Path) -> None:
    project = load_project(file)
    assert dataclasses.replace(project, name="other").learners == project.learners


def test_without_a_replay_there_is_none(file: Path) -> None:
    assert load_project(file, ["replay="]).replay is None


def test_the_example_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUAIRAND_DIR", "/data/kuairand")
    project = load_project(EXAMPLE)
    assert list(project.events.path) == [
        "/data/kuairand/log_history_*.parquet",
        "/data/kuairand/log_standard_*.parquet",
    ]
    assert project.events.schema.tables["video"].source == "/data/kuairand/video_features_basic_pure.parquet"
    assert project.replay is not None
    assert len(project.replay.arms) == 10


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("[a, b]", FixedEffect(("a", "b"))),
        ("a", FixedEffect(("a",))),
        ("", FixedEffect()),
        ("{features: a, ridge: 2}", FixedEffect(("a",), ridge=2.0)),
    ],
)
def test_short_forms_of_a_fixed_effect(file: Path, text: str, effect: FixedEffect) -> None:
    assert load_project(file, [f"learners.ranker.fixed={text}"]).learner().fixed == effect


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("", []),
        ("user_id", [RandomEffect("user_id")]),
        ("[user_id, item_id]", [RandomEffect("user_id"), RandomEffect("item_id")]),
        ("{user_id: , item_id: {}}", [RandomEffect("user_id"), RandomEffect("item_id")]),
        ("{user_id: [a, b]}", [RandomEffect("user_id", ("a", "b"))]),
        ("{user_id: a}", [RandomEffect("user_id", ("a",))]),
        ("{u: {entity: user_id, min_rows: 3}}", [RandomEffect("user_id", min_rows=3, name="u")]),
        ("[item_id, {entity: user_id, min_rows: 3}]", [RandomEffect("item_id"), RandomEffect("user_id", (), 3)]),
    ],
)
def test_short_forms_of_random_effects(file: Path, text: str, effects: list[RandomEffect]) -> None:
    project = load_project(file, [f"learners.ranker.random={text}"])
    assert project.learner() == GLMixParameters(fixed=FixedEffect(("a",)), random=effects)


KINDS = {
    "glmix": ("", GLMixParameters()),
    "global-rate": ("", GlobalRateParameters()),
    "rate": ("entity: item_id", RateParameters("item_id")),
    "sequential-laplace": ("features: a", SequentialLaplaceParameters(features="a")),
    "meta-ranker": (
        "features: a, blocks: {user: {entity: user_id, steps: 2}, both: {entity: [user_id, item_id]}}",
        MetaRankerParameters(
            features="a",
            blocks={
                "user": MetaBlock(entity="user_id", steps=2),
                "both": MetaBlock(entity=("user_id", "item_id")),
            },
        ),
    ),
    "user-encoder": (
        "entity: user_id, item: item_id, items: {like: {behaviour: y}}, behaviours: [y]",
        UserEncoderParameters(
            entity="user_id",
            item="item_id",
            items={"like": ItemVectors(behaviour="y")},
            behaviours={"event": None, "y": "y"},
        ),
    ),
    "stack": (
        "learner: {kind: glmix, fixed: a}, members: {a: {kind: global-rate}}",
        StackParameters(GLMixParameters(fixed="a"), {"a": GlobalRateParameters()}),
    ),
    "calibrated": (
        "learner: {kind: global-rate}, half_life: 2d",
        CalibratedParameters(GlobalRateParameters(), half_life="2d"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_learner_can_be_written(file: Path, kind: str) -> None:
    keys, record = KINDS[kind]
    assert load_project(file, [f"learners={{mine: {{kind: {kind}, {keys}}}}}"]).learners == {"mine": record}
    assert record_of(kind) is type(record)


def test_all_kinds_were_written() -> None:
    assert {type(record) for _, record in KINDS.values()} == set(LEARNERS)


def test_content_that_is_a_mapping_already(file: Path) -> None:
    content = copy.deepcopy(SMALL)
    assert parse_project(content, file.parent) == load_project(file)
    assert content == SMALL
    with pytest.raises(ConfigError) as caught:
        parse_project(SMALL | {"replay": {"strat": "2024-01-05"}}, file.parent)
    assert caught.value.message == "replay.strat: unknown key, and 1 more"
    assert caught.value.hint == "did you mean 'start'?"


def test_paths_start_at_the_folder_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert list(load_project(file).events.path) == [str(file.parent / "log.csv")]
    assert list(load_project(file, ["events.path=/log.csv"]).events.path) == ["/log.csv"]


# --- variables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${SET}", "here"),
        ("a-${SET}/${SET}", "a-here/here"),
        ("${SET:-other}", "here"),
        ("${UNSET:-other}", "other"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("$SET ${ SET } {SET}", "$SET ${ SET } {SET}"),
    ],
)
def test_variables_expand(file: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: str) -> None:
    monkeypatch.setenv("SET", "here")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    file.write_text(yaml.safe_dump({**SMALL, "replay": {"start": "2024-01-05", "follow": text}}))
    replay = load_project(file).replay
    assert replay is not None
    assert replay.follow == value


def test_variables_expand_in_lists_and_overrides(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "/here")
    project = load_project(file, ["events.path=['${SET}/a', '${SET}/b']"])
    assert list(project.events.path) == ["/here/a", "/here/b"]


@pytest.mark.parametrize(("text", "state"), [("${UNSET}/log", "not set"), ("${EMPTY}/log", "empty")])
def test_a_variable_that_is_not_there(file: Path, monkeypatch: pytest.MonkeyPatch, text: str, state: str) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    error = failure(file, f"events.path=[log.csv, '{text}']")
    name = text[2 : text.index("}")]
    assert error.message == f"{file}: --set: events.path.1: the environment variable {name} is {state}"
    assert error.hint == f"export {name}=..."


# --- overrides -----------------------------------------------------------------------------------------------


def test_overrides_go_on_top_in_their_order(file: Path) -> None:
    project = load_project(
        file,
        [
            "replay.every=6h",
            "replay.every=12h",
            "replay.arms=[stale, {name: mine, learner: ranker}]",
            "learners.ranker.random.user_id.half_life=3d",
            "learners.second.kind=glmix",
            "features.hours.kind=hour",
            "name=a=b",
        ],
    )
    assert project.replay is not None
    assert project.replay.every == "12h"
    assert project.replay.arms == [ArmSection("stale"), ArmSection("mine", learner="ranker")]
    ranker = project.learners["ranker"]
    assert isinstance(ranker, GLMixParameters)
    assert list(ranker.random) == [RandomEffect("user_id", half_life="3d")]
    assert list(project.learners) == ["ranker", "second"]
    assert project.events.schema.features["hours"].kind == "hour"
    assert project.name == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("replay.every", "'replay.every' is no override (write key=value"),
        ("=3", "'=3' is no override"),
        ("name.x=3", "'name' in 'name.x' is a value, not a section"),
        ("learners.ranker.fixed.0=b", "'fixed' in 'learners.ranker.fixed.0' is a value, not a section"),
        ("name=[", "'name=[': is no YAML"),
    ],
)
def test_a_wrong_override(file: Path, override: str, message: str) -> None:
    assert message in str(failure(file, override))


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "place", "nearest"),
    [
        ("nam=x", "nam", "name"),
        ("events.tiem=t", "events.tiem", "time"),
        ("events.time={colum: t}", "events.time.colum", "column"),
        ("events.tables={u: {sorce: a, key: b}}", "events.tables.u.sorce", "source"),
        (
            "events.tables={u: {source: a, key: b, time: {column: c, zon: d}}}",
            "events.tables.u.time.zon",
            "zone",
        ),
        ("features.x={knd: numeric}", "features.x.knd", "kind"),
        ("learners.ranker.fxied=[a]", "learners.ranker.fxied", "fixed"),
        ("learners.ranker.fixed={rigde: 3}", "learners.ranker.fixed.rigde", "ridge"),
        (
            "learners.ranker.random={user_id: {featurs: [a]}}",
            "learners.ranker.random.user_id.featurs",
            "features",
        ),
        (
            "learners.ranker.random={user_id: {}, likes: {entity: item_id, min_row: 2}}",
            "learners.ranker.random.likes.min_row",
            "min_rows",
        ),
        ("learners.ranker.random=[user_id, {entiti: item_id}]", "learners.ranker.random.1.entiti", "entity"),
        ("learners.ranker.state=float32", "learners.ranker.state", "states"),
        ("learners.all={kind: global-rate, lable: y}", "learners.all.lable", "label"),
        ("learners.items={kind: rate, entity: item_id, prior_row: 2}", "learners.items.prior_row", "prior_rows"),
        ("learners.items={kind: rate, entiti: item_id}", "learners.items.entiti", "entity"),
        ("replay.strat=x", "replay.strat", "start"),
        ("replay.arms=[stale, {nme: x}]", "replay.arms.1.nme", "name"),
    ],
)
def test_an_unknown_key_and_what_was_meant(file: Path, override: str, place: str, nearest: str) -> None:
    error = failure(file, override)
    assert error.message.startswith(f"{file}: --set: {place}: unknown key")
    assert error.hint == f"did you mean '{nearest}'?"


SECTIONS: dict[str, tuple[type, set[str]]] = {
    # the place of a section, its record, and by which keys the file differs from the record
    "": (Project, {"folder", "features"}),
    "events": (Schema, {"features", "path"}),
    "events.time": (TimeColumn, set()),
    "events.tables.u": (EntityTable, set()),
    "events.tables.u.time": (TimeColumn, set()),
    "features.x": (Feature, set()),
    "learners.ranker": (GLMixParameters, set()),
    "learners.ranker.fixed": (FixedEffect, set()),
    "learners.ranker.random.user_id": (RandomEffect, set()),
    "learners.ranker.random.likes": (RandomEffect, set()),
    "learners.all": (GlobalRateParameters, set()),
    "learners.items": (RateParameters, set()),
    "learners.net": (SequentialLaplaceParameters, set()),
    "learners.net.training": (Training, set()),
    "learners.meta": (MetaRankerParameters, set()),
    "learners.meta.blocks.user": (MetaBlock, set()),
    "learners.vector": (UserEncoderParameters, set()),
    "learners.vector.items.like": (ItemVectors, set()),
    "learners.vector.training": (Training, set()),
    "learners.both": (StackParameters, set()),
    "learners.both.learner": (GLMixParameters, set()),
    "learners.both.members.a": (RateParameters, set()),
    "learners.right": (CalibratedParameters, set()),
    "replay": (ReplaySection, set()),
}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section or "top")
def test_the_names_there_are_are_told_for_every_section(file: Path, section: str) -> None:
    record, differing = SECTIONS[section]
    place = f"{section}.qqq".removeprefix(".")
    error = failure(
        file,
        "events.time={column: t}",
        "events.tables={u: {source: a, key: b, time: {column: c}}}",
        "learners.ranker.fixed={features: [a]}",
        "learners.ranker.random={user_id: , likes: {entity: item_id}}",
        "learners.all.kind=global-rate",
        "learners.items={kind: rate, entity: item_id}",
        "learners.net={kind: sequential-laplace, features: a, training: {seed: 1}}",
        "learners.meta={kind: meta-ranker, features: a, blocks: {user: {entity: user_id}}}",
        "learners.vector={kind: user-encoder, entity: user_id, item: item_id, training: {seed: 1}}",
        "learners.vector.items={like: {size: 4}}",
        "learners.both={kind: stack, learner: {kind: glmix, fixed: a}}",
        "learners.both.members={a: {kind: rate, entity: item_id}}",
        "learners.right={kind: calibrated, learner: {kind: global-rate}}",
        f"{place}=3",
    )
    assert error.message == f"{file}: --set: {place}: unknown key"
    keys = {field.name for field in fields(record)} ^ differing
    assert error.hint == f"there are: {', '.join(sorted(keys))}"


def test_the_names_there_are_are_told_for_an_arm(file: Path) -> None:
    error = failure(file, "replay.arms=[stale, {name: retrain, qqq: 3}]")
    assert error.message == f"{file}: --set: replay.arms.1.qqq: unknown key"
    assert error.hint == f"there are: {', '.join(sorted(field.name for field in fields(ArmSection)))}"


def test_all_records_that_a_file_holds_were_tried() -> None:
    tried = {record for record, _ in SECTIONS.values()} | {ArmSection}
    assert set(LEARNERS) <= tried
    assert len(tried) == 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=", "name: should be a valid string"),
        ("events=3", "events: should be a section of keys"),
        ("events.path=3", "events.path: should be a name or a list of names"),
        ("events.path=", "events.path: should be a name or a list of names"),
        ("events.path=[]", "events.path: is empty"),
        ("events.time=", "events.time: should be a section of keys"),
        ("events.time={column: t, unit: m}", "events.time.unit: should be 's', 'ms', 'us' or 'ns'"),
        ("events.entities=3", "events.entities: should be a section of keys"),
        ("events.entities=[]", "events.entities: is empty"),
        ("events.labels=[]", "events.labels: is empty"),
        ("events.tables={u: {source: a}}", "events.tables.u.key: is missing"),
        ("events.features={}", "events.features: unknown key ('features' is a section of its own)"),
        ("folder=/tmp", "folder: unknown key"),
        ("features=3", "features: should be a section of keys"),
        ("features.x=numeric", "features.x: should be a section of keys"),
        ("features.x={kind: numerc}", "features.x.kind: should be 'numeric', 'categorical'"),
        ("features.x={kind: cross}", "features.x: 'of' names the two or more"),
        ("learners={}", "learners: is empty"),
        ("learners.ranker=3", "learners.ranker: should be a section of keys"),
        ("learners.ranker=[glmix]", "learners.ranker: should be a section of keys"),
        ("learners.ranker=", "learners.ranker: should be a section of keys"),
        (
            "learners.ranker.kind=glmxi",
            "learners.ranker.kind: no kind 'glmxi' of learner (did you mean 'glmix'?)",
        ),
        (
            "learners.ranker.kind=global_rate",
            "learners.ranker.kind: no kind 'global_rate' of learner (did you mean 'global-rate'?)",
        ),
        (
            "learners.ranker.kind=tree",
            "learners.ranker.kind: no kind 'tree' of learner (there are: calibrated, glmix, global-rate, "
            "meta-ranker, rate, sequential-laplace, stack, user-encoder)",
        ),
        ("learners.ranker.kind={a}", "learners.ranker.kind: no kind '{'a': None}' of learner"),
        ("learners.second.fixed=[a]", "learners.second.kind: is missing"),
        ("learners.items.kind=rate", "learners.items.entity: is missing"),
        ("learners.items={kind: rate, entity: 3}", "learners.items.entity: should be a valid string"),
        (
            "learners.items={kind: rate, entity: item_id, prior_rows: 0}",
            "learners.items.prior_rows: should be greater than 0",
        ),
        ("learners.all={kind: global-rate, label: [y]}", "learners.all.label: should be a valid string"),
        ("learners.ranker.states=float16", "learners.ranker.states: should be 'float64' or 'float32'"),
        ("learners.ranker.tolerance=-1", "learners.ranker.tolerance: should be greater than or equal to 0"),
        ("learners.ranker.max_steps=-1", "learners.ranker.max_steps: should be greater than or equal to 0"),
        ("learners.ranker.fixed=3", "learners.ranker.fixed.features: should be a name or a list"),
        ("learners.ranker.fixed={ridge: -1}", "learners.ranker.fixed.ridge: should be greater than 0"),
        (
            "learners.ranker.fixed={half_life: 7x}",
            "learners.ranker.fixed.half_life: '7x' is no duration (write 90s",
        ),
        ("learners.ranker.fixed=[a, a]", "learners.ranker.fixed: a feature is named twice in a, a"),
        ("learners.ranker.random={user_id: 3}", "learners.ranker.random.user_id.features: should be a name"),
        (
            "learners.ranker.random={user_id: {half_life: x}}",
            "learners.ranker.random.user_id.half_life: 'x' is no duration",
        ),
        (
            "learners.ranker.random={user_id: {}, likes: {entity: item_id, ridge: 0}}",
            "learners.ranker.random.likes.ridge: should be greater than 0",
        ),
        (
            "learners.ranker.random=[user_id, {entity: item_id, ridge: 0}]",
            "learners.ranker.random.1.ridge: should",
        ),
        ("learners.ranker.random=3", "learners.ranker.random: should be a name or a list of names"),
        ("learners.ranker.random=[3]", "learners.ranker.random.0: should be a section of keys"),
        (
            "learners.ranker.random={mine: {entity: user_id}, theirs: {entity: user_id, name: mine}}",
            "learners.ranker.random: two effects are called 'mine'; put",
        ),
        ("learners.ranker.random=[user_id, user_id]", "learners.ranker.random: two effects are called 'user_id'"),
        ("replay.start=", "replay.start: 'None' is no time"),
        ("replay.start=soon", "replay.start: 'soon' is no time; write 2022-04-25"),
        ("replay.end=1650000000", "replay.end: '1650000000' is no time"),
        ("replay.every=1x", "replay.every: '1x' is no duration"),
        ("replay.label_delay=5", "replay.label_delay: should be a valid string"),
        ("replay.ndcg_at=0", "replay.ndcg_at: should be greater than or equal to 1"),
        ("replay.arms=stale", "replay.arms: should be a list"),
        ("replay.arms=[3]", "replay.arms.0: should be a section of keys"),
        ("replay.arms=[stael]", "replay.arms.0: no built-in arm 'stael' (did you mean 'stale'?); one of your own"),
        ("replay.arms=[{name: x, python: a.py:B, learner: ranker}]", "replay.arms.0: an arm is made of"),
        ("replay.arms=[{name: x, learner: ranker, window: 3q}]", "replay.arms.0.window: '3q' is no duration"),
        (
            "replay.arms=[{name: stale, regime: retrain}]",
            "replay.arms.0: the built-in arm 'stale' cannot be retrain: give it a 'learner' too",
        ),
        (
            "replay.arms=[{name: x, learner: ranker, regime: new}]",
            "replay.arms.0.regime: should be 'stale', 'fine-tune', 'incremental'",
        ),
    ],
)
def test_a_wrong_value_and_its_place(file: Path, override: str, message: str) -> None:
    assert str(failure(file, override)).startswith(f"{file}: --set: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learners.ranker={kind: glmix, fixed: ranker}",
            "learners.ranker: a learner is made of itself: ranker -> ranker",
        ),
        (
            "learners.ranker={kind: glmix, random: {user_id: other}}",
            "learners.ranker: a learner is made of itself: ranker -> other -> ranker",
        ),
        (
            "learners.ranker={kind: glmix, offset: othr}",
            "learners.ranker.offset: no learner 'othr' in the project (did you mean 'other'?)",
        ),
        (
            "learners.ranker={kind: stack, learner: {kind: glmix, offset: othr}}",
            "learners.ranker.learner.offset: no learner 'othr' in the project (did you mean 'other'?)",
        ),
        (
            "learners.ranker={kind: glmix, offset: othr, calibrate: platt}",
            "learners.ranker.offset: no learner 'othr' in the project (did you mean 'other'?)",
        ),
        (
            "learners.ranker={kind: stack, learner: {kind: glmix, fixed: a}}",
            "learners.ranker: the learner on top uses no other learner (name one in its features, or",
        ),
        (
            "learners.ranker={kind: stack, learner: {kind: glmix}, members: {a: {kind: glmix}}}",
            "learners.ranker: the learner on top does not use 'a': name it in its features, or as offset",
        ),
        (
            "learners.ranker={kind: stack, learner: {kind: glmix, fixed: a}, members: {a: {kind: glmxi}}}",
            "learners.ranker.members.a.kind: no kind 'glmxi' of learner (did you mean 'glmix'?)",
        ),
        ("learners.ranker={kind: stack, learner: [a]}", "learners.ranker.learner: should be a section of keys"),
        (
            "learners.ranker={kind: stack, learner: {kind: glmix}, warm_up: 1}",
            "learners.ranker.warm_up: should be",
        ),
    ],
)
def test_a_wrong_stack_and_its_place(file: Path, override: str, message: str) -> None:
    error = failure(file, "learners.other={kind: glmix, fixed: ranker}", override)
    assert str(error).startswith(f"{file}: --set: {message}")


def test_too_many_learners_on_top_of_each_other(file: Path) -> None:
    chain = [f"learners.l{i}={{kind: glmix, fixed: l{i + 1}}}" for i in range(16)]
    assert failure(file, *chain, "learners.l16.kind=global-rate").message == (
        f"{file}: --set: learners.l0: more than 16 on top of each other: {' -> '.join(f'l{i}' for i in range(17))}"
    )
    wide = ", ".join(f"l{i}" for i in range(16))
    below = [f"learners.l{i}.kind=global-rate" for i in range(16)]
    assert failure(file, f"learners.ranker.fixed=[{wide}]", *below).message == (
        f"{file}: line 9: learners.ranker: Stack: there are 17 learners on top of each other, more than 16"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "{kind: glmix, calibrate: isotonic}",
            ".calibrate: no calibration 'isotonic': write platt, or a section of keys",
        ),
        (
            "{kind: glmix, calibrate: {halflife: 3d}}",
            ".calibrate.halflife: unknown key (did you mean 'half_life'?)",
        ),
        ("{kind: glmix, calibrate: {half_life: 3}}", ".calibrate.half_life: should be a valid string"),
        ("{kind: glmix, calibrate: {mode: draw}}", ".calibrate.mode: should be 'point' or 'integrated'"),
        ("{kind: glmix, calibrate: {ridge: 0}}", ".calibrate.ridge: should be greater than 0"),
        ("{kind: glmix, fixd: a, calibrate: platt}", ".fixd: unknown key"),
        (
            "{kind: user-encoder, entity: user_id, item: item_id, items: {l: {behaviour: y}}, calibrate: platt}",
            ".calibrate: an encoder gives no probabilities that could be calibrated",
        ),
        (
            "{kind: calibrated, learner: {kind: global-rate}, calibrate: platt}",
            ".calibrate: the learner is calibrated already",
        ),
        (
            "{kind: stack, learner: {kind: glmix, fixed: a, calibrate: platt}, members: {a: {kind: global-rate}}}",
            ": calibrate the stack, and not the learner on top of it",
        ),
    ],
)
def test_a_wrong_calibration_and_its_place(file: Path, override: str, message: str) -> None:
    error = failure(file, f"learners.ranker={override}")
    assert str(error).startswith(f"{file}: --set: learners.ranker{message}")


def test_any_learner_that_predicts_can_be_calibrated(file: Path) -> None:
    """A learner on top of others as a whole; and each of those by itself."""
    learners = load_project(
        file,
        [
            "learners.plain={kind: global-rate, calibrate: null}",
            "learners.rate={kind: global-rate, calibrate: platt}",
            "learners.ranker={kind: glmix, fixed: [rate], offset: plain, calibrate: {half_life: 3d}}",
        ],
    ).learners
    assert learners["plain"] == GlobalRateParameters()
    assert learners["rate"] == CalibratedParameters(GlobalRateParameters())
    stack = StackParameters(
        GLMixParameters(fixed=("rate",), offset="plain"), {n: learners[n] for n in ("rate", "plain")}
    )
    assert learners["ranker"] == CalibratedParameters(stack, half_life="3d")
    fixed = CalibratedParameters(GLMixParameters(fixed=("b",), random={"user_id": {}}), ridge=2.0).shared_part()
    assert fixed == CalibratedParameters(GLMixParameters(fixed=("b",)), ridge=2.0)


def test_a_learner_that_names_others_is_a_stack_of_them(file: Path) -> None:
    """Also of stacks; as a feature of an effect or as the offset; each is still a learner of the project."""
    project = load_project(
        file,
        [
            "learners.popular={kind: rate, entity: item_id}",
            "learners.taste={kind: glmix, fixed: [b, popular]}",
            "learners.ranker={kind: glmix, fixed: [a], random: {user_id: {features: [taste]}}, offset: popular}",
        ],
    )
    popular = RateParameters("item_id")
    taste = StackParameters(GLMixParameters(fixed=("b", "popular")), {"popular": popular})
    ranker = StackParameters(
        GLMixParameters(fixed=("a",), random={"user_id": ("taste",)}, offset="popular"),
        {"taste": taste, "popular": popular},
    )
    assert project.learners == {"ranker": ranker, "popular": popular, "taste": taste}
    assert ranker.count == 4
    assert dataclasses.replace(project, name="other").learners == project.learners


@pytest.mark.parametrize("section", ["name", "events", "learners"])
def test_a_missing_section(file: Path, section: str) -> None:
    file.write_text(yaml.safe_dump({key: value for key, value in SMALL.items() if key != section}))
    assert failure(file).message == f"{file}: {section}: is missing"


def test_further_mistakes_are_counted(file: Path) -> None:
    file.write_text("name: x\n")
    assert failure(file).message == f"{file}: events: is missing, and 1 more"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", ": line 1: is no YAML: while parsing a flow node, expected the node content"),
        (b"x: 1\na: b: c", ": line 2: is no YAML: mapping values are not allowed here"),
        (b"\n\n\xff\xfe\x00", ": line 3: is no YAML: 'utf-8' codec can't decode"),
        (b"", " holds no sections"),
        (b"- a", " holds no sections"),
    ],
)
def test_what_is_no_project(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    assert failure(file).message.startswith(f"{file}{message}")


def test_an_absent_file(tmp_path: Path) -> None:
    error = failure(tmp_path / "none.yaml")
    assert error.message == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert "acclimate data" in error.hint


def test_which_learner(file: Path) -> None:
    project = load_project(file, ["learners.other.kind=glmix"])
    assert project.learner("other") == GLMixParameters()
    with pytest.raises(ConfigError, match="which of the learners ranker, other"):
        project.learner()
    with pytest.raises(ConfigError, match=r"no learner 'othr' .*did you mean 'other'"):
        project.learner("othr")


def test_dates_of_yaml_are_times(file: Path) -> None:
    file.write_text(yaml.safe_dump({**SMALL, "replay": {"start": dt.date(2024, 1, 5)}}))
    replay = load_project(file).replay
    assert replay is not None
    assert replay.start == "2024-01-05"


@pytest.mark.parametrize("key", ["publish.spaces", "stream.refused"])
@pytest.mark.parametrize("value", ["", "''", "[a, b]", "{a: b}", "7"])
def test_a_place_that_is_no_text_is_no_path(file: Path, key: str, value: str) -> None:
    error = failure(file, "publish.spaces=x", "stream.source=log://x", f"{key}={value}")
    assert f"{key}: " in error.message
    assert "string" in error.message or "at least 1 character" in error.message
