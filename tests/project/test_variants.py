"""A project file with other values: what must be set for it, how a command line says it, where its paths lead."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from acclimate.config import declared_record, spelled_out
from acclimate.errors import ConfigError
from acclimate.project import ProjectFile, load_project, set_options

TEXT = """
name: small
events:
  path: [logs/*.parquet, "${MORE:-/far/logs}/x.csv", "${NEAR:-near}/y.csv"]
  time: {column: at, unit: ms}
  entities: {user: user_id, item: item_id}
  labels: [like]
  tables: {item: {source: items.parquet, key: item_id}}
learners:
  ranker:
    kind: glmix
    fixed: [a, b]
    random: [user, item.author, [user, tab], {entity: item, name: mood, ridge: 2}]
    calibrate: platt
  long: {kind: glmix, fixed: {features: a}, random: {user: [a], item: {ridge: 3}, item.author: }}
  deep: {kind: sequential-laplace, features: [a], ranker: "nets.py:Tower"}
replay:
  start: 2024-01-05
  learner: ranker
  arms: [{name: own, python: "arms.py:Trees"}]
"""


@pytest.fixture
def file(tmp_path: Path) -> ProjectFile:
    path = tmp_path / "home" / "acclimate.yaml"
    path.parent.mkdir()
    path.write_text(TEXT)
    return ProjectFile.read(path)


def spelled(file: ProjectFile) -> ProjectFile:
    sections = {("learners", name): file.at(("learners", name)) for name in ("ranker", "long")}
    return file.with_values({p: spelled_out(s, declared_record(s)) for p, s in sections.items()}, "test")


def overrides(file: ProjectFile, changes: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    full = spelled(file)
    return file.overrides(full.with_values(changes, "test"), spelled=full)


def test_effects_spelled_out_are_the_same_ones(file: ProjectFile) -> None:
    short, full = file.project().learners, spelled(file).project().learners
    assert full["long"] == short["long"]
    for effect, other in zip(short["ranker"].learner.random, full["ranker"].learner.random, strict=True):
        assert (effect.called, effect.entity, effect.ridge) == (other.called, other.entity, other.ridge)
    assert full["ranker"].learner.fixed == short["ranker"].learner.fixed


def test_a_key_with_dots_has_a_place(file: ProjectFile) -> None:
    full = spelled(file)
    names = ("learners", "ranker", "random", "item.author", "ridge")
    assert full.place("learners.ranker.random.item.author.ridge") == names
    assert full.place("learners.ranker.random.user x tab.ridge") == (*names[:3], "user x tab", "ridge")
    assert full.place("learners.long.fixed.ridge") == ("learners", "long", "fixed", "ridge")


def test_what_has_a_path_is_set_by_it_and_the_rest_as_a_whole(file: ProjectFile) -> None:
    long = ("learners", "long")
    assert overrides(file, {}) == {}
    assert overrides(file, {(*long, "fixed", "ridge"): 0.5, (*long, "random", "item", "ridge"): 9}) == {
        (*long, "fixed", "ridge"): 0.5,
        (*long, "random", "item", "ridge"): 9,
    }
    assert overrides(file, {(*long, "random", "user", "ridge"): 9}) == {
        (*long, "random", "user"): {"features": ["a"], "ridge": 9}
    }
    dotted = overrides(file, {(*long, "random", "item.author", "ridge"): 9})
    assert dotted == {
        (*long, "random"): {"user": {"features": ["a"]}, "item": {"ridge": 3}, "item.author": {"ridge": 9}}
    }
    assert list(overrides(file, {("learners", "ranker", "random", "mood", "ridge"): 9})) == [
        ("learners", "ranker", "random")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {("learners", "ranker", "fixed", "ridge"): 1e-5},
        {("learners", "ranker", "random", "user x tab", "half_life"): "7d"},
        {("learners", "long", "fixed", "features"): [], ("learners", "long", "random", "user", "half_life"): None},
        {("learners", "long", "random", "item.author", "precision"): "full"},
    ],
)
def test_a_shell_that_reads_the_options_makes_the_same_project(
    file: ProjectFile, changes: dict[tuple[str, ...], Any]
) -> None:
    wanted = spelled(file).with_values(changes, "test").project()
    options = shlex.split(set_options(overrides(file, changes)))
    assert options[::2] == ["--set"] * (len(options) // 2)
    made = load_project(file.path, options[1::2])
    assert made.learners["long"] == wanted.learners["long"]
    assert made.learners["ranker"].learner.fixed == wanted.learners["ranker"].learner.fixed
    assert [e.half_life for e in made.learners["ranker"].learner.random] == [
        e.half_life for e in wanted.learners["ranker"].learner.random
    ]


def test_a_file_that_moves_leads_where_it_led(file: ProjectFile, tmp_path: Path) -> None:
    other = tmp_path / "else" / "acclimate.yaml"
    other.parent.mkdir()
    other.write_text(file.moved(other.parent))
    there, here = load_project(other), load_project(file.path)
    home = file.path.parent
    assert list(there.events.path) == [str(home / "logs/*.parquet"), "/far/logs/x.csv", str(home / "near/y.csv")]
    assert there.events == here.events
    assert there.learners == here.learners
    assert there.replay is not None
    assert there.replay.arms is not None
    assert there.replay.arms[0].python == f"{home}/arms.py:Trees"
    assert yaml.safe_load(file.moved(home)) == yaml.safe_load(TEXT)


def test_a_wrong_value_is_told_with_its_origin(file: ProjectFile) -> None:
    with pytest.raises(ConfigError, match=r"acclimate.yaml: tune: learners.long.fixed.ridge: should be greater"):
        spelled(file).with_values({("learners", "long", "fixed", "ridge"): -1}, "tune").project()
