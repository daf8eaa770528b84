"""Published, judged and promoted: by the verbs and by the command line, on a small world."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from acclimate import GLMix, TaskHead, learners, pipeline, publishing
from acclimate.artifacts import Space
from acclimate.cli.commands import app
from acclimate.errors import (
    ConfigError,
    FormatError,
    GateError,
    MismatchError,
    ModelError,
    SourceError,
    SpaceError,
)
from acclimate.learners.carried import Carried
from acclimate.project import Project, load_project
from acclimate.publish import Spaces


def flip(path: Path) -> None:
    """One bit of the last byte."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of eight days, models of its first five and of its first seven days, and one of all."""
    out = tmp_path_factory.mktemp("publishing") / "world"
    assert run("data", "world", "--out", out, "--users", 30, "--days", 8).exit_code == 0
    project = out / "acclimate.yaml"
    for name, until in (("early", "2024-01-06"), ("late", "2024-01-08"), ("all", "2025-01-01")):
        assert run("fit", project, "--out", out / name, "--until", until).exit_code == 0
    return project


@pytest.fixture
def project(world: Path, tmp_path: Path) -> Path:
    content = yaml.safe_load(world.read_text())
    content["publish"] = {"spaces": str(tmp_path / "spaces")}
    path = world.with_name("with-spaces.yaml")
    path.write_text(yaml.safe_dump(content))
    return path


def loaded(project: Path, **gates: Any) -> Project:
    return load_project(project, [f"publish.gates={json.dumps(gates)}"] if gates else [])


def published(project: Path, *names: str) -> None:
    for name in names:
        publishing.publish(loaded(project), project.with_name(name))


def test_a_snapshot_is_the_model_and_stays_so(project, tmp_path):
    space = publishing.publish(loaded(project), project.with_name("early"), reason="first", who="ann")
    assert str(space) == "ranker/1"
    model = learners.load(project.with_name("early"))
    assert (space.weights, space.contract) == learners.identity_of(model)
    assert space.cut == model.cut
    spaces = publishing.spaces_of(loaded(project))
    assert learners.identity_of(learners.load(spaces.open(space))) == (space.weights, space.contract)
    assert next(spaces.entries()).who == "ann"
    shutil.copytree(project.with_name("early"), tmp_path / "model")
    day = ("update", project, "--model", tmp_path / "spaces" / "ranker" / "1", "--until", "2024-01-07")
    assert run(*day).exit_code == 0  # whoever does so is found out
    with pytest.raises(SpaceError, match="is another snapshot than was published"):
        spaces.open(space)


def test_what_cannot_be_published(project, world, tmp_path):
    with pytest.raises(ConfigError, match="the project file has no section 'publish'"):
        publishing.publish(load_project(world), world.with_name("early"))
    other = load_project(project, ["learners.ranker.tolerance=0.5"])
    with pytest.raises(MismatchError, match="was made with other settings"):
        publishing.publish(other, project.with_name("early"))
    assert not (tmp_path / "spaces").exists()


def test_the_first_promotion_has_nothing_to_compare_with(project):
    published(project, "late")
    verdicts = publishing.promote(loaded(project, drift=0.0, quality=0.0), "ranker/1")
    assert [verdict.gate for verdict in verdicts] == ["finite", "parity"]
    assert publishing.spaces_of(loaded(project)).live("ranker").number == 1


def test_a_space_that_fails_stays_as_it_is_and_says_who_is_to_blame(project):
    published(project, "early", "late")
    publishing.promote(loaded(project), "ranker/1")
    strict = loaded(project, coverage={"item": 1.0}, drift=1e-6, quality=-10.0)
    with pytest.raises(
        GateError, match=r"ranker/2 does not pass 3 of 5 gates: coverage: \d+ of \d+ 'item'.*worst:"
    ):
        publishing.promote(strict, "ranker/2")
    spaces = publishing.spaces_of(strict)
    assert spaces.live("ranker").number == 1
    with pytest.raises(ConfigError, match="a promotion is forced without a reason"):
        publishing.promote(strict, "ranker/2", force=True)
    verdicts = publishing.promote(strict, "ranker/2", force=True, reason="a fire", who="bob")
    assert [verdict.gate for verdict in verdicts if not verdict.passed] == ["coverage", "drift", "quality"]
    *_, last = spaces.entries()
    assert (last.who, last.reason) == ("bob", "forced past coverage, drift, quality: a fire")
    assert spaces.live("ranker").number == 2


def test_bounds_that_are_wide_enough_let_it_pass(project):
    published(project, "early", "late")
    wide = loaded(project, coverage=0.1, drift=1.0, quality=5.0)
    publishing.promote(wide, "ranker/1")
    verdicts = publishing.promote(wide, "ranker/2")
    assert [verdict.gate for verdict in verdicts] == ["finite", "parity", *["coverage"] * 2, "drift", "quality"]
    assert all(verdict.passed for verdict in verdicts)
    assert 0.0 < verdicts[4].value < 1.0
    assert "(95 %: " in verdicts[5].said


def test_quality_is_asked_of_rows_that_neither_has_learned(project):
    published(project, "early", "all")
    publishing.promote(loaded(project), "ranker/1")
    with pytest.raises(GateError, match="quality: no row of the last window is newer than what both have learned"):
        publishing.promote(loaded(project, quality=5.0), "ranker/2")


def test_a_kind_of_entity_that_is_not_known_is_no_pass(project):
    published(project, "early")
    with pytest.raises(GateError, match="coverage: no 'shop' is known by such a learner"):
        publishing.promote(loaded(project, coverage={"shop": 0.5}), "ranker/1")


def test_a_live_space_that_cannot_read_the_events_is_no_pass(project):
    published(project, "early", "late")
    publishing.promote(loaded(project), "ranker/1")
    spaces = publishing.spaces_of(loaded(project))
    changed = load_project(project, ["features.own={column: item_id}", 'publish.gates={drift: 0.5, window: "2d"}'])
    model = project.with_name("changed")
    shutil.rmtree(model, ignore_errors=True)
    model_of_changed = learners.make(changed.learner("ranker"))
    model_of_changed.fit(pipeline.open_events(changed).before("2024-01-06")).save(model)
    publishing.publish(changed, model)
    with pytest.raises(GateError, match="drift: the live space cannot be compared: events of another schema"):
        publishing.promote(changed, "ranker/3")
    difference = publishing.diff(spaces, "ranker/1", "ranker/3")
    assert difference.identity["contract"] is False
    assert any(line.startswith("features.own was None and is ") for line in difference.schema)


def test_the_difference_of_two_spaces(project):
    published(project, "early", "early", "late")
    spaces = publishing.spaces_of(loaded(project))
    same = publishing.diff(spaces, "ranker/1", "ranker/2")
    assert all(same.identity.values())
    assert set(same.shared.values()) == {0.0}
    other = publishing.diff(spaces, "ranker/1", "ranker/3")
    assert other.identity == {"weights": False, "contract": True, "cut": False, "parents": True}
    assert (other.settings, other.schema) == ([], [])
    assert other.shared["coefficients"] > 0.01


def test_an_encoder_is_judged_by_its_vectors(project):
    encoder = {
        "kind": "user-encoder", "entity": "user", "item": "item",
        "items": {"together": {"behaviour": "click", "size": 2}}, "windows": ["2d"],
        "size": 3, "code": 3, "hidden": 4, "training": {"epochs": 1, "batch": 32},
    }  # fmt: skip
    declared = f"learners.taste={json.dumps(encoder)}"
    bounds = "publish.gates={drift: 1e-9, quality: 0.0}"
    described = load_project(project, [declared, bounds, "replay.learner=ranker"])
    for number, until in enumerate(("2024-01-06", "2024-01-08")):
        model = project.with_name(f"taste-{number}")
        shutil.rmtree(model, ignore_errors=True)
        pipeline.fit(described, model, learner="taste", until=until)
        publishing.publish(described, model, learner="taste")
    publishing.promote(described, "taste/1")
    with pytest.raises(GateError, match=r"taste/2 does not pass 1 of 4 gates: drift: .* from the live space"):
        publishing.promote(described, "taste/2")
    *_, quality = publishing.promote(described, "taste/2", force=True, reason="a test")
    assert (quality.passed, quality.said) == (True, "not asked: an encoder predicts no label, and has no loss")


def test_a_head_keeps_the_space_of_its_vectors(project, tmp_path):
    encoder = {
        "kind": "user-encoder", "entity": "user", "item": "item",
        "items": {"together": {"behaviour": "click", "size": 2}}, "windows": ["2d"],
        "size": 3, "code": 3, "hidden": 4, "training": {"epochs": 1, "batch": 32},
    }  # fmt: skip
    described = load_project(project, [f"learners.taste={json.dumps(encoder)}", "replay.learner=ranker"])
    model = pipeline.fit(described, tmp_path / "taste", learner="taste", until="2024-01-06")
    vectors = model.vectors_of(model.ids)
    head = TaskHead("ridge").fit(vectors, model.ids.astype(float), space=model.space)
    predicted = head.predict(vectors, space=model.space)
    with pytest.raises(SpaceError, match="no space that is ready or live has the vectors of 'age', those"):
        publishing.publish_on_vectors(described, head, "age")
    with pytest.raises(ConfigError, match="'taste' is a learner of the project"):
        publishing.publish_on_vectors(described, head, "taste")
    taste = publishing.publish(described, tmp_path / "taste", learner="taste")
    space = publishing.publish_on_vectors(described, head, "age", reason="first")
    assert (space.parents, space.cut, taste.parents) == (("taste/1",), taste.cut, ())
    head.update(vectors, vectors[:, 0], space=model.space)
    other = publishing.publish_on_vectors(described, head, "age")
    assert (other.contract, other.weights == space.weights) == (space.contract, False)
    assert [str(one) for one in publishing.promote(described, "age/1")] == [
        "finite: not asked: a model of vectors keeps finite numbers alone, and reads no events"
    ]
    spaces = publishing.spaces_of(described)
    assert np.array_equal(TaskHead.load(spaces.open(space)).predict(vectors, space=model.space), predicted)
    assert spaces.refreshed("taste") == [taste]
    told = run("spaces", "retire", "taste/1", project)
    assert told.exit_code == 5
    assert told.stderr.startswith("error: taste/1 cannot be retired, since age/1 read its vectors")
    assert "parents: taste/1\n" in run("spaces", "show", "age/1", project).stdout


def test_a_space_that_is_still_being_built_is_not_promoted_past_its_gates(project, monkeypatch):
    spaces = publishing.spaces_of(loaded(project))
    early = project.with_name("early")
    space = spaces.begin(lambda number: Space("ranker", number, "w" * 64, "c" * 64, 1))
    seen = spaces.state()
    spaces.ready(space, spaces._snapshots.write(str(space), lambda folder: learners.load(early).save(folder)))
    with monkeypatch.context() as at_that_moment:
        at_that_moment.setattr(Spaces, "state", lambda _: seen)
        with pytest.raises(SpaceError, match="ranker/1 is building and cannot be promoted"):
            publishing.promote(loaded(project), "ranker/1")
    assert spaces.state().live("ranker") is None


def test_states_that_are_not_finite_are_found_wherever_they_are(project):
    model = learners.load(project.with_name("early"))
    window = publishing._last_window(pipeline.open_events(loaded(project)), "1h")
    (ids,) = (ids for name, ids, _ in Carried(model).everything() if name == "states-2")
    item = next(id for id in ids.tolist() if id not in window.table(["item_id"])["item_id"].to_pylist())
    states = model.entities.take("item", np.array([item]), model.state.effects[2].population)
    states.posterior.mean[:] = np.nan
    model.entities.commit({"item": [states]})
    broken = project.with_name("broken")
    shutil.rmtree(broken, ignore_errors=True)
    model.save(broken)
    publishing.publish(loaded(project), broken)
    what = rf"ranker/1 does not pass 2 of 2 gates: finite: 1 numbers of 1 .*; worst: item_id {item} \(1\)"
    with pytest.raises(GateError, match=what):
        publishing.promote(loaded(project, window="1h", drift=1.0), "ranker/1")


def test_a_model_that_cannot_predict_fails_finite_and_can_be_forced(project, monkeypatch):
    published(project, "early")

    def infinite(*_):
        raise ModelError("no probability of 3 rows")

    monkeypatch.setattr(GLMix, "predict", infinite)
    with pytest.raises(
        GateError, match=r"2 of 2 gates: finite: no probability of 3 rows; parity: not all numbers"
    ):
        publishing.promote(loaded(project), "ranker/1")
    publishing.promote(loaded(project), "ranker/1", force=True, reason="a fire")
    assert publishing.spaces_of(loaded(project)).live("ranker").number == 1


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"label": "like"}, "it is of label 'click' with loss logistic, and the new one of label 'like'"),
        ({"loss": "squared"}, "with loss logistic, and the new one of label 'click' with loss squared"),
    ],
)
def test_spaces_of_other_aims_are_not_compared(project, other, what):
    changes = [f"learners.ranker.{key}={value}" for key, value in other.items()]
    wide = "publish.gates={drift: 100.0, quality: 100.0}"
    published(project, "early")
    publishing.promote(loaded(project), "ranker/1")
    changed, model = load_project(project, [*changes, wide]), project.with_name("-".join(other))
    shutil.rmtree(model, ignore_errors=True)
    learner = learners.make(changed.learner("ranker"))
    learner.fit(pipeline.open_events(changed).before("2024-01-06")).save(model)
    publishing.publish(changed, model)
    with pytest.raises(GateError, match=r"2 of 4 gates: drift: .*; quality: ") as error:
        publishing.promote(changed, "ranker/2")
    assert error.value.message.count(what) == 2


def test_force_goes_past_a_live_space_and_a_log_that_cannot_be_read(project, tmp_path):
    published(project, "early", "late", "late")
    publishing.promote(loaded(project), "ranker/1")
    bounds = {"drift": 100.0, "quality": 100.0, "coverage": 0.1}
    flip(tmp_path / "spaces" / "ranker" / "1" / "generation-1" / "arrays.safetensors")
    with pytest.raises(GateError, match=r"drift: the live space cannot be compared: .*ranker/1 is damaged"):
        publishing.promote(loaded(project, **bounds), "ranker/2")
    publishing.promote(loaded(project, **bounds), "ranker/2", force=True, reason="it is broken")
    *_, last = publishing.spaces_of(loaded(project)).entries()
    assert (last.space, last.reason) == ("ranker/2", "forced past drift, quality: it is broken")
    bounds = f"publish.gates={json.dumps(bounds)}"
    lost = load_project(project, ["events.path=nowhere.parquet", bounds])
    with pytest.raises(SourceError, match="nowhere"):
        publishing.promote(lost, "ranker/3")
    verdicts = publishing.promote(lost, "ranker/3", force=True, reason="no log")
    assert not any(verdict.passed for verdict in verdicts)
    *_, last = publishing.spaces_of(loaded(project)).entries()
    assert last.reason == "forced past finite, parity, coverage, drift, quality: no log"
    flip(tmp_path / "spaces" / "ranker" / "2" / "generation-1" / "arrays.safetensors")
    with pytest.raises(FormatError, match="ranker/2 is damaged"):
        publishing.promote(loaded(project), "ranker/2", force=True, reason="a fire")


def test_a_bound_that_says_nothing_of_a_learner_is_said_not_to_be_asked(project):
    rate = load_project(
        project, ["learners.rate={kind: global-rate}", "publish.gates={coverage: 1.0}", "replay.learner=ranker"]
    )
    model = project.with_name("rate")
    shutil.rmtree(model, ignore_errors=True)
    pipeline.fit(rate, model, learner="rate", until="2024-01-06")
    publishing.publish(rate, model, learner="rate")
    *_, coverage = publishing.promote(rate, "rate/1")
    assert str(coverage) == "coverage: not asked: this learner keeps nothing of entities"
    assert coverage.passed
    declared = ("--set", "learners.rate={kind: global-rate}", "--set", "replay.learner=ranker")
    publishing.publish(rate, model, learner="rate")
    bounds = ("--set", "publish.gates={coverage: 1.0}")
    told = run("spaces", "promote", "rate/2", project, *declared, *bounds, "--json").stdout
    assert "NaN" not in told
    assert json.loads(told)["gates"][-1]["value"] is None


# --- the command line ----------------------------------------------------------------------------------------


def test_the_life_of_a_space_by_commands(project):
    assert run("spaces", "list", project).stdout.startswith("there are no spaces")
    done = run("publish", project.with_name("early"), project)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("ranker/1 is ready: weights ")
    assert json.loads(run("publish", project.with_name("late"), project, "--json").stdout)["space"] == "ranker/2"
    assert run("spaces", "promote", "ranker/1", project).stdout.splitlines()[-1] == "ranker/1 is live"
    assert run("spaces", "pin", "ranker/1", project, "--owner", "feed").stdout == "feed has pinned ranker/1\n"
    told = json.loads(run("spaces", "promote", "ranker/2", project, "--json").stdout)
    assert (told["live"], [gate["passed"] for gate in told["gates"]]) == ("ranker/2", [True, True])
    first, second = run("spaces", "list", project).stdout.splitlines()
    assert first.split()[:2] == ["ranker/2", "live"]
    assert second.split()[:2] == ["ranker/1", "ready"]
    assert second.rpartition("  ")[2].startswith("feed (")
    told = json.loads(run("spaces", "list", project, "--json").stdout)
    assert [(one["space"], one["life"], len(one["pins"])) for one in told] == [
        ("ranker/2", "live", 0),
        ("ranker/1", "ready", 1),
    ]
    refused = run("spaces", "retire", "ranker/1", project)
    assert (refused.exit_code, refused.stdout) == (5, "")
    assert refused.stderr.startswith("error: ranker/1 is pinned by feed (for ")
    assert run("spaces", "rollback", "ranker", project).stdout == "ranker/1 is live, ranker/2 is ready\n"
    assert run("spaces", "retire", "ranker/2", project, "--reason", "worse").exit_code == 0
    assert "pins: feed since " in run("spaces", "show", "ranker/1", project).stdout
    assert json.loads(run("spaces", "show", "ranker/1", project, "--json").stdout)["life"] == "live"
    assert run("spaces", "verify", "ranker/1", project).stdout.endswith(" files are what was published\n")
    assert "coefficients: " in run("spaces", "diff", "ranker/1", "ranker/2", project).stdout
    assert json.loads(run("spaces", "diff", "ranker/1", "ranker/2", project, "--json").stdout)["settings"] == []
    assert run("spaces", "prune", project).stdout == "removed: ranker/2\n"
    assert run("spaces", "prune", project).stdout == "there was nothing to remove\n"
    assert run("spaces", "unpin", "ranker", project, "--owner", "feed").exit_code == 0
    lines = run("spaces", "log", project).stdout.splitlines()
    assert lines[0].endswith("unpin ranker/1  feed")
    assert any(line.endswith("retire ranker/2  worse") for line in lines)
    assert len(json.loads(run("spaces", "log", project, "--json").stdout)) == len(lines) == 11
    assert json.loads(run("spaces", "verify", "ranker/1", project, "--json").stdout)["space"] == "ranker/1"


def test_without_a_command_it_is_the_list_of_the_project_here(project, monkeypatch, tmp_path):
    shutil.copy(project, tmp_path / "acclimate.yaml")
    monkeypatch.chdir(tmp_path)
    assert run("spaces").stdout.startswith("there are no spaces")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("spaces", "show", "ranker/7"), 5, "error: the space ranker/7 is not known"),
        (("spaces", "rollback", "ranker"), 5, "error: no space of 'ranker' is live"),
        (("spaces", "promote", "ranker/7", "--force"), 3, "error: a promotion is forced without a reason"),
        (("spaces", "pin", "ranker/7", "--owner", ""), 2, "error: Invalid value for '--owner'"),
    ],
)
def test_mistakes_by_command(project, arguments, code, what):
    words = [*arguments[:3], project, *arguments[3:]]
    done = run(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(what)
