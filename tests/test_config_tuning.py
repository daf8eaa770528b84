"""What is tuned: by default of each kind of learner, and as the section ``tune`` declares it."""

from pathlib import Path
from typing import Any

import pytest

import acclimate as ac
from acclimate.config import (
    Choices,
    GLMixParameters,
    GlobalRateParameters,
    Range,
    RateParameters,
    SequentialLaplaceParameters,
    declared_record,
    declared_value,
    default_settings,
)
from acclimate.errors import ConfigError
from acclimate.project import parse_project

CONTENT: dict[str, Any] = {
    "name": "small",
    "events": {"path": "x", "time": {"column": "at", "unit": "s"}, "entities": {"user": "u"}, "labels": "y"},
    "learners": {"ranker": {"kind": "glmix"}},
}


def by_name(record: Any) -> dict[str, Any]:
    return {setting.name: setting for setting in default_settings(record)}


def test_of_a_glmix() -> None:
    record = GLMixParameters(
        fixed=ac.FixedEffect(("a", "b"), ridge=2.0),
        random=[ac.RandomEffect("user", half_life="5d"), ac.RandomEffect("item", ("a",), forgetting=0.9)],
    )
    found = by_name(record)
    assert list(found) == [
        "learn_population",
        *("fixed.features", "fixed.ridge", "fixed.half_life", "fixed.precision"),
        *("random.user.ridge", "random.user.half_life", "random.user.precision"),
        *("random.item.features", "random.item.ridge", "random.item.forgetting", "random.item.precision"),
    ]
    assert found["fixed.ridge"].candidates == Range(0.02, 200.0, log=True)
    assert found["fixed.features"].candidates == Choices((["a", "b"], ["b"], ["a"]))
    assert found["fixed.features"].declared == ["a", "b"]
    assert found["random.user.half_life"].candidates.values[:3] == ("5d", None, "3d")
    assert found["fixed.precision"].candidates == Choices(("auto", "diagonal", "marginal"))
    assert found["random.item.forgetting"].candidates == Range(0.45, 1.0)
    conditions = {name: setting.only_if for name, setting in found.items() if setting.only_if}
    assert conditions == {f"random.{name}.ridge": (("learn_population",), False) for name in ("user", "item")}


def test_of_others() -> None:
    assert {name: s.candidates for name, s in by_name(RateParameters("user")).items()} == {
        "prior_rows": Range(0.2, 2000.0, log=True)
    }
    assert by_name(GlobalRateParameters()) == {}
    network = by_name(SequentialLaplaceParameters(features="a"))
    assert list(network) == ["ridge", "embedding_ridge", "forgetting", "training.rate", "training.update_rate"]


def test_settings_of_one_learner_within_another() -> None:
    section = {"kind": "stack", "learner": {"kind": "glmix", "offset": "t"}, "members": {"t": {"kind": "glmix"}}}
    names = set(by_name(declared_record(section)))
    assert {"learner.fixed.ridge", "members.t.fixed.ridge", "members.t.learn_population"} <= names


def test_the_declared_value_of_a_key() -> None:
    record = declared_record({"kind": "glmix", "fixed": {"features": "a", "ridges": {"a": 3}}, "random": ["user"]})
    places = ("learn_population",), ("fixed", "ridge"), ("fixed", "ridges", "a"), ("random", "user", "half_life")
    assert [declared_value(record, place) for place in places] == [True, 1.0, 3.0, None]
    for absent in (
        ("nothing",),
        ("fixed", "nothing"),
        ("random", "nobody", "ridge"),
        ("fixed", "ridge", "deeper"),
    ):
        assert declared_value(record, absent) is None


def test_numbers_as_yaml_reads_them() -> None:
    tune = {"learners.ranker.fixed.ridge": {"low": "1e-3", "high": "1e6", "log": True}}
    project = parse_project(CONTENT | {"tune": tune}, Path())
    assert project.tune == {"learners.ranker.fixed.ridge": Range(1e-3, 1e6, log=True)}


def test_numbers_are_short_and_inside() -> None:
    assert Range(0.1, 10.0).value(1.23456) == 1.23
    assert Range(0.1, 1.2345).value(1.23449) == 1.23
    assert Range(0.1, 1.226).value(1.2259) == 1.226  # rounded it would be outside
    assert Range(1, 9, whole=True).value(7) == 7
    days = Range(1.0, 60.0, days=True)
    assert (days.value(7.123), days.number("36h"), days.number("90d"), days.number(None)) == (
        "7.12d",
        1.5,
        None,
        None,
    )
    assert [Range(0, 1).number(value) for value in (0.5, 2, "1", True, None)] == [0.5, None, None, None, None]


@pytest.mark.parametrize(
    ("candidates", "what"),
    [
        (5, "should be a list of values, or a range: {low: 0.1, high: 10, log: true}"),
        ([], "should be a list of values"),
        ({"low": 1}, "should be a list of values"),
        ({"low": 1, "high": 2, "lag": True}, "should be a list of values"),
        ({"low": 2, "high": 1}, "a range goes from a lower to a higher number, not from 2 to 1"),
        ({"low": float("nan"), "high": 1}, "a range goes from a lower to a higher number"),
        ({"low": 0, "high": 1, "log": True}, "a range on a logarithmic scale begins above 0, not at 0"),
        ({"low": "1d", "high": 2}, "the ends of a range are two numbers or two durations, not 1d and 2"),
        ({"low": True, "high": 2}, "the ends of a range are two numbers or two durations, not True and 2"),
        ({"low": "1d", "high": "much"}, "'much' is no duration"),
        ({"low": 1, "high": 2, "log": 3}, "'log' is true or false, not 3"),
    ],
)
def test_candidates_that_are_none(candidates: Any, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_project(CONTENT | {"tune": {"learners.ranker.fixed.ridge": candidates}}, Path())
    assert str(caught.value).startswith(f"tune.learners.ranker.fixed.ridge: {what}")


@pytest.mark.parametrize("path", ["replay.every", "learners", "name", "events.path"])
def test_what_is_not_tuned(path: str) -> None:
    with pytest.raises(ConfigError, match=f"tune: '{path}' is no path to a key of a learner or a feature"):
        parse_project(CONTENT | {"tune": {path: [1, 2]}}, Path())
