"""Records built in code: what is refused, and in which words."""

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

import acclimate as ac
from acclimate import learners
from acclimate.config import (
    BASELINES,
    BUILT_IN_ARMS,
    LEARNERS,
    CalibratedParameters,
    FixedEffect,
    GLMixParameters,
    GlobalRateParameters,
    ItemVectors,
    MetaBlock,
    MetaRankerParameters,
    RandomEffect,
    RateParameters,
    Regime,
    SequentialLaplaceParameters,
    StackParameters,
    UserEncoderParameters,
    class_of,
    record_of,
)
from acclimate.errors import ConfigError, nearest

PARTS: dict[str, Any] = {
    "time": "at",
    "entities": {"user": "user_id", "item": "item_id"},
    "labels": ["click", "like"],
}


@pytest.mark.parametrize(
    ("record", "arguments", "message"),
    [
        (ac.TimeColumn, {"column": "at", "unit": "min"}, "TimeColumn: unit: should be 's', 'ms', 'us' or 'ns'"),
        (ac.TimeColumn, {"column": "at", "zon": "UTC"}, "TimeColumn: no argument 'zon' (did you mean 'zone'?)"),
        (ac.Feature, {"buckets": 1}, "Feature: buckets: should be greater than or equal to 2"),
        (ac.Feature, {"separator": ""}, "Feature: 'separator' is empty"),
        (ac.EntityTable, {"source": "users.parquet"}, "EntityTable: key: is missing"),
        (ac.Training, {"rate": float("nan")}, "Training: rate: should be a finite number"),
        (
            SequentialLaplaceParameters,
            {"features": ["a"], "hidden": 64},
            "SequentialLaplace: hidden: 64 is no list of widths: write [64]",
        ),
        (ac.Schema, PARTS | {"label": "y"}, "Schema: no argument 'label' (did you mean 'labels'?)"),
        (ac.Schema, PARTS | {"labels": 3}, "Schema: labels: should be an instance of Sequence"),
        (
            ac.Schema,
            PARTS | {"features": {"tab": {"bucket": 3}}},
            "Schema: features.tab.bucket: Unexpected keyword argument",
        ),
        (ac.FixedEffect, {"ridge": -1.0}, "FixedEffect: ridge: should be greater than 0"),
        (ac.FixedEffect, {"features": ["tab", "tab"]}, "FixedEffect: a feature is named twice in tab, tab"),
        # An unknown argument is often the missing one misspelt.
        (ac.RandomEffect, {"entiti": "user"}, "RandomEffect: no argument 'entiti' (did you mean 'entity'?)"),
        (ac.GLMix, {"fxied": ["tab"]}, "GLMix: no argument 'fxied' (did you mean 'fixed'?)"),
        (ac.GLMix, {"kind": "rate"}, "GLMix: kind: should be 'glmix'"),
        (ac.GLMix, {"tolerance": -1.0}, "GLMix: tolerance: should be greater than or equal to 0"),
        (ac.GLMix, {"tolerance": float("inf")}, "GLMix: tolerance: should be a finite number"),
        (ac.GLMix, {"max_steps": -1}, "GLMix: max_steps: should be greater than or equal to 0"),
        (ac.GLMix, {"states": "float16"}, "GLMix: states: should be 'float64' or 'float32'"),
        (ac.GLMix, {"fixed": {"ridge": 0}}, "GLMix: fixed.ridge: should be greater than 0"),
        (ac.GLMix, {"fixed": ["tab", "tab"]}, "GLMix: fixed: a feature is named twice in tab, tab"),
        (ac.GLMix, {"random": {"user": {"ridge": 0}}}, "GLMix: random.0.ridge: should be greater than 0"),
        (ac.GLMix, {"random": 3}, "GLMix: random: should be an instance of Sequence"),
        (
            ac.GLMix,
            {"random": {"user": {"half_life": "soon"}}},
            "GLMix: random.0.half_life: 'soon' is no duration (write 90s, 30m, 6h, 1d or 2w)",
        ),
        (ac.Rate, {}, "Rate: entity: is missing"),
        (
            ac.Rate,
            {"entity": "user", "prior_row": 3},
            "Rate: no argument 'prior_row' (did you mean 'prior_rows'?)",
        ),
        (ac.Rate, {"entity": "user", "prior_rows": 0}, "Rate: prior_rows: should be greater than 0"),
        (ac.GlobalRate, {"lable": "y"}, "GlobalRate: no argument 'lable' (did you mean 'label'?)"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(record: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        record(**arguments)
    assert str(caught.value) == message


def test_positions_are_told_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^TimeColumn: unit: should be"):
        ac.TimeColumn("at", "min")  # pyright: ignore[reportArgumentType]


def test_within_another_record_errors_keep_their_place() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(ac.Schema).validate_python(PARTS | {"features": {"tab": {"separator": ""}}})
    assert [error["loc"] for error in caught.value.errors()] == [("features", "tab")]


def test_records_are_copied_and_changed_as_before() -> None:
    schema = ac.Schema(**PARTS)
    assert copy.deepcopy(schema) == schema == dataclasses.replace(schema)
    with pytest.raises(ConfigError, match="both an entity and the weight"):
        dataclasses.replace(schema, weight="user_id")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": ["click", "click"]}, "column 'click' is a label twice"),
        ({"labels": ["at"]}, "column 'at' is both the time and a label"),
        ({"labels": ["item_id"]}, "column 'item_id' is both an entity and a label"),
        *(
            ({part: "like"}, f"column 'like' is both a label and the {part}")
            for part in ("weight", "offset", "truth")
        ),
        *(
            ({part: "at"}, f"column 'at' is both the time and the {part}")
            for part in ("weight", "offset", "truth")
        ),
        *(
            ({p: "user_id"}, f"column 'user_id' is both an entity and the {p}")
            for p in ("weight", "offset", "truth")
        ),
        ({"features": {"liked": ac.Feature("like")}}, "feature 'liked' is made of column 'like', a label"),
        ({"weight": "w", "features": {"w": ac.Feature()}}, "feature 'w' is made of column 'w', the weight"),
        (
            {"truth": "p", "features": {"x": ac.Feature(kind="cross", of=["tab", "p"])}},
            "feature 'x' is made of column 'p', the truth",
        ),
    ],
)
def test_a_column_plays_one_part(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ac.Schema(**(PARTS | changed))
    assert message in caught.value.message
    assert caught.value.hint


def test_parts_that_may_be_features() -> None:
    schema = ac.Schema(**PARTS, weight="w", offset="o", truth="p")
    for name in ("o", "user_id", "at", "tab"):
        assert schema.feature_columns(name) == (name,)


@pytest.mark.parametrize("name", ["like", "w", "p"])
def test_a_learner_cannot_use_what_is_to_be_predicted(name: str) -> None:
    """A column that no feature declares is one too: the check is where the learner asks for its columns."""
    events = ac.simulate(users=5, items=5, days=1, events_per_day=20)
    schema = ac.Schema(**PARTS, weight="w", truth="p")
    with pytest.raises(ConfigError, match=f"feature '{name}' is made of column '{name}'"):
        ac.GLMix(fixed=ac.FixedEffect([name])).fit(dataclasses.replace(events, schema=schema))


def test_names_are_listed_unless_they_are_many() -> None:
    names = [f"name{i}" for i in range(20)]
    assert nearest("name3x", names) == "did you mean 'name3'?"
    assert nearest("zone", names) == f"there are: {', '.join(sorted(names))}"
    assert nearest("zone", [*names, "name20"]) == ""
    assert nearest("zone", []) == ""


# --- learners ------------------------------------------------------------------------------------------------

WRITTEN_OUT = GLMixParameters(fixed=FixedEffect(("tab",)), random=(RandomEffect("user", ("topics", "tab")),))


@pytest.mark.parametrize(
    ("fixed", "random"),
    [
        (["tab"], {"user": ["topics", "tab"]}),
        ("tab", {"user": ("topics", "tab")}),
        ({"features": "tab"}, {"user": {"features": ["topics", "tab"]}}),
        (FixedEffect(["tab"]), [RandomEffect("user", ["topics", "tab"])]),
        (FixedEffect("tab"), {"user": RandomEffect("user", ["topics", "tab"])}),
        (("tab",), {"user": {"entity": "user", "features": ["topics", "tab"]}}),
        (("tab",), [{"entity": "user", "features": ["topics", "tab"]}]),
    ],
)
def test_short_forms_equal_the_records_written_out(fixed: Any, random: Any) -> None:
    assert ac.GLMix(fixed=fixed, random=random).parameters == WRITTEN_OUT
    assert GLMixParameters(fixed=fixed, random=random) == WRITTEN_OUT


@pytest.mark.parametrize(
    ("random", "entities"),
    [
        (None, ()),
        ((), ()),
        ({}, ()),
        ("user", ("user",)),
        (["user", "item"], ("user", "item")),
        (("item", RandomEffect("user")), ("item", "user")),
        ({"user": None, "item": {}, "page": []}, ("user", "item", "page")),
        ([{"entity": "user"}, "item"], ("user", "item")),
    ],
)
def test_entities_alone_have_an_intercept_alone(random: Any, entities: Sequence[str]) -> None:
    expected = GLMixParameters(random=tuple(RandomEffect(entity) for entity in entities))
    assert ac.GLMix(random=random).parameters == expected
    assert ac.GLMix(fixed=None, random=random).parameters.fixed == FixedEffect()


@pytest.mark.parametrize(
    "random",
    [
        ["user", "user"],
        [RandomEffect("user"), RandomEffect("user", ["topics"])],
        [RandomEffect("user"), RandomEffect("video", name="user")],
    ],
)
def test_two_effects_of_one_name(random: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ac.GLMix(random=random)
    assert str(caught.value) == (
        "GLMix: random: two effects are called 'user'; put their features together, or give one of them a 'name'"
    )


def test_names_of_effects() -> None:
    """A name is the key of a mapping, where the entity is said besides."""
    expected = (
        RandomEffect("user"),
        RandomEffect(("user", "tab")),
        RandomEffect("user", ["topics"], name="tastes"),
        RandomEffect(("user", "tab"), name="habits"),
    )
    listed = ["user", ["user", "tab"], {"entity": "user", "features": "topics", "name": "tastes"}, expected[3]]
    assert tuple(ac.GLMix(random=listed).parameters.random) == expected
    mapping = {
        "user": {},
        "user x tab": expected[1],
        "tastes": {"entity": "user", "features": "topics"},
        "habits": RandomEffect(("user", "tab")),
    }
    assert tuple(ac.GLMix(random=mapping).parameters.random) == expected
    assert [effect.called for effect in expected] == ["user", "user x tab", "tastes", "habits"]
    with pytest.raises(ConfigError, match="two effects are called 'fixed'"):
        ac.GLMix(random={"fixed": RandomEffect("user")})


def test_two_effects_of_one_entity_by_role_and_by_column() -> None:
    """Only the schema tells that they are one."""
    events = ac.simulate(users=5, items=5, days=1, events_per_day=20)
    model = ac.GLMix(random=["user", "user_id"])
    for verb in (model.fit, model.columns):
        with pytest.raises(ConfigError, match=r"two random effects of entity 'user_id' .*put their features"):
            verb(events)


ARGUMENTS: dict[type[Any], Mapping[str, Any]] = {
    RateParameters: {"entity": "user"},
    SequentialLaplaceParameters: {"features": ("user",)},
    MetaRankerParameters: {"features": ("price",), "blocks": {"user": MetaBlock(entity="user")}},
    UserEncoderParameters: {"entity": "user", "item": "video", "items": {"content": ItemVectors(("tags",))}},
    StackParameters: {"learner": GLMixParameters(fixed=["likes"]), "members": {"likes": RateParameters("user")}},
    CalibratedParameters: {"learner": RateParameters("user"), "half_life": "3d"},
}


@pytest.mark.parametrize("record", LEARNERS)
def test_a_record_its_kind_and_its_class_know_each_other(record: type[Any]) -> None:
    arguments = ARGUMENTS.get(record, {})
    declared = record(**arguments)
    learner = learners.make(declared)
    assert record_of(declared.kind) is record
    assert class_of(record) is type(learner)
    assert type(learner).kind == declared.kind
    assert learner.parameters == declared
    assert type(learner)(**arguments).parameters == declared
    assert inspect.signature(type(learner)).parameters == inspect.signature(record).parameters
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.label = "like"


def test_a_learner_is_made_of_every_field() -> None:
    declared = GLMixParameters(
        fixed=["tab"],
        random={"user": {"features": ["topics"], "ridge": 2.0}},
        label="like",
        loss="squared",
        noise=0.5,
        learn_population=False,
        approximation="variational",
        tolerance=0.5,
        max_steps=3,
        states="float32",
    )
    assert learners.make(declared).parameters == declared
    assert learners.make(RateParameters("item", "like", 3.0)).parameters == RateParameters("item", "like", 3.0)


def test_kinds_are_distinct_and_others_are_refused() -> None:
    assert [class_of(record).kind for record in LEARNERS] == [
        "glmix",
        "global-rate",
        "rate",
        "sequential-laplace",
        "meta-ranker",
        "user-encoder",
        "stack",
        "calibrated",
    ]
    with pytest.raises(ConfigError) as caught:
        record_of("glmxi")
    assert str(caught.value) == "no kind 'glmxi' of learner (did you mean 'glmix'?)"


def test_the_shared_part_is_the_same_without_random_effects() -> None:
    whole = dataclasses.replace(WRITTEN_OUT, label="like", tolerance=0.5, states="float32")
    assert whole.shared_part() == GLMixParameters(fixed=["tab"], label="like", tolerance=0.5, states="float32")


def test_built_in_arms_are_regimes_and_baselines() -> None:
    assert get_args(Regime) == ("stale", "fine-tune", "incremental", "retrain")
    assert list(BASELINES) == ["fixed", "global-rate", "item-rate", "user-rate"]
    assert (*get_args(Regime), *BASELINES) == BUILT_IN_ARMS


@pytest.mark.parametrize("label", [None, "like"])
def test_baselines_predict_what_the_learner_predicts(label: str | None) -> None:
    schema = ac.Schema(**PARTS)
    main = dataclasses.replace(WRITTEN_OUT, label=label)
    assert {name: declare(main, schema) for name, declare in BASELINES.items()} == {
        "fixed": GLMixParameters(fixed=["tab"], label=label),
        "global-rate": GlobalRateParameters(label),
        "item-rate": RateParameters("item", label),
        "user-rate": RateParameters("user", label),
    }
    alone = ac.Schema(**PARTS | {"entities": "user_id"})
    assert BASELINES["item-rate"](main, alone) == BASELINES["user-rate"](main, alone)


@pytest.mark.parametrize("main", [GlobalRateParameters("like"), RateParameters("item", "like")])
def test_baselines_beside_a_learner_without_a_shared_part(main: Any) -> None:
    schema = ac.Schema(**PARTS)
    assert BASELINES["user-rate"](main, schema) == RateParameters("user", "like")
    with pytest.raises(ConfigError, match=f"the arm 'fixed' .* one of kind '{main.kind}' has none") as caught:
        BASELINES["fixed"](main, schema)
    assert caught.value.hint


def test_the_label_of_that_name_or_the_first() -> None:
    schema = ac.Schema(**PARTS)
    assert (schema.label(), schema.label(None), schema.label("like")) == ("click", "click", "like")
    for name in ("lik", ""):
        with pytest.raises(ConfigError, match=f"no label '{name}' in the schema"):
            schema.label(name)
    with pytest.raises(ConfigError, match=r"\(did you mean 'like'\?\)"):
        schema.label("lik")


@pytest.mark.parametrize(
    "learner", [ac.GLMix(label="clik"), ac.GlobalRate("clik"), ac.Rate("user", "clik")], ids=lambda one: one.kind
)
def test_all_learners_tell_of_an_unknown_label_alike(learner: Any) -> None:
    events = ac.simulate(users=5, items=5, days=1, events_per_day=20)
    for verb in (learner.fit, learner.columns):
        with pytest.raises(ConfigError, match=r"^no label 'clik' in the schema \(did you mean 'click'\?\)$"):
            verb(events)
