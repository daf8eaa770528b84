"""Records built in code: what is refused, and in which words."""

import copy
import dataclasses
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import acclimate as ac
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
