"""``acclimate tune`` on a small world: what it finds, what it writes, what it refuses, and how it goes on."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from acclimate import pipeline, tuning
from acclimate.cli.commands import app
from acclimate.errors import ConfigError, MissingExtraError, OutputExistsError
from acclimate.evaluate.report import read_report
from acclimate.project import ProjectFile, load_project

BAD = [
    "learners.ranker.fixed.ridge=1e6",
    "replay.start=2024-01-09",
    "replay.arms=[incremental]",
    "tune={learners.ranker.fixed.ridge: {low: 0.1, high: 1e6, log: true}}",
]
SHORT = {"kind": "glmix", "label": "click", "fixed": ["surface", "hour"], "random": ["item"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "world"
    pipeline.make_world(out, users=400, days=10, seed=1)
    path = out / "acclimate.yaml"
    content = yaml.safe_load(path.read_text())
    content["learners"]["ranker"] = {
        **SHORT,
        "fixed": {"features": ["surface", "hour", "topics"]},
        "random": {"user": {"half_life": "20d"}},
    }
    content["learners"]["short"] = SHORT
    content["replay"]["learner"] = "ranker"
    path.write_text(yaml.safe_dump(content))
    return path


def tuned(world: Path, out: Path, *overrides: str, **options: Any) -> Any:
    asked = {"days": 3, "trials": 4, **options}
    return tuning.tune(ProjectFile.read(world, [*BAD, *overrides]), out, **asked)


@pytest.fixture(scope="module")
def found(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("found") / "out"
    return tuned(world, out, trials=6), out


def test_what_is_better_than_a_bad_setting_is_found(found: tuple[Any, Path]) -> None:
    result, out = found
    assert result.chosen is not None
    assert result.chosen.high < 0
    assert [set(one.changes) for one in result.finalists] == [{"learners.ranker.fixed.ridge"}] * 3
    assert result.chosen.changes["learners.ranker.fixed.ridge"][1] < 1e4
    assert result.settings["start"].startswith("2024-01-06")
    assert result.settings["end"].startswith("2024-01-09")
    report = read_report(out / "replay")
    names = ["declared", *(one.name for one in result.finalists)]
    assert list(report.arms) == names
    for trial in result.trials:
        if f"trial {trial.number}" in report.arms:
            assert report.arms[f"trial {trial.number}"].log_loss == pytest.approx(trial.loss, rel=1e-12)
    assert report.arms["declared"].log_loss == pytest.approx(result.trials[0].loss, rel=1e-12)


def test_the_options_and_the_patched_file_declare_what_was_chosen(
    found: tuple[Any, Path], world: Path, tmp_path: Path
) -> None:
    result, out = found
    options = shlex.split(result.chosen.options)
    by_options = load_project(world, [*BAD, *options[1::2]])
    by_file = load_project(out / "result" / "acclimate.yaml")
    assert by_file.learners == by_options.learners
    ridge = result.chosen.changes["learners.ranker.fixed.ridge"][1]
    assert by_file.learners["ranker"].fixed.ridge == ridge  # type: ignore[attr-defined]
    report = pipeline.replay_project(by_file, tmp_path / "report")
    assert report.arms["incremental"].rows == 1_600


def test_settings_of_the_declared_are_no_gain(world: Path, tmp_path: Path) -> None:
    """The declared ridge among others that differ by almost nothing: whichever is least, it is chance."""
    same = "tune={learners.ranker.fixed.ridge: {low: 0.99, high: 1.01}}"
    result = tuned(world, tmp_path / "out", "learners.ranker.fixed.ridge=1", same)
    assert result.chosen is None
    assert result.verdict.startswith("No setting is better than the declared one beyond chance")
    assert not (tmp_path / "out" / "result" / "acclimate.yaml").exists()


def test_it_goes_on_where_it_was_killed(world: Path, tmp_path: Path) -> None:
    def killed(trial: int, _: int, step: Any) -> None:
        if (trial, step.window) == (3, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(world, tmp_path / "out", on_progress=killed)
    asked: list[int] = []
    resumed = tuned(world, tmp_path / "out", on_progress=lambda trial, *_: asked.append(trial))
    whole = tuned(world, tmp_path / "whole")
    assert min(asked) == 3
    assert [(t.values, t.state, t.loss) for t in resumed.trials] == [
        (t.values, t.state, t.loss) for t in whole.trials
    ]
    assert resumed.finalists == whole.finalists


def test_another_search_is_not_mixed_in(world: Path, tmp_path: Path) -> None:
    tuned(world, tmp_path / "out", trials=1)
    for changed in ({"seed": 1}, {"days": 2}, {"learner": "short"}):
        with pytest.raises(ConfigError, match=r"has trials of another search|nothing to tune"):
            tuned(world, tmp_path / "out", trials=1, **changed)
    with pytest.raises(ConfigError, match="different are project"):
        tuned(world, tmp_path / "out", "learners.ranker.max_steps=40", trials=1)
    again = tuned(world, tmp_path / "out", trials=1, seed=1, overwrite=True)
    assert len(again.trials) == 2


def test_a_place_that_is_taken(world: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        tuned(world, tmp_path)
    tuned(world, tmp_path / "out", trials=1)
    (tmp_path / "out" / "result" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"1 file that acclimate did not write: notes.txt"):
        tuned(world, tmp_path / "out", trials=1, overwrite=True)


def test_the_days_of_the_replay_are_not_for_choosing(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2024-01-10 is after the start of the replay, 2024-01-09") as caught:
        tuned(world, tmp_path / "out", until="2024-01-10")
    assert "--allow-test-days" in caught.value.hint
    assert not (tmp_path / "out").exists()
    result = tuned(world, tmp_path / "out", until="2024-01-10", days=1, trials=1, allow_test_days=True)
    assert result.settings["start"].startswith("2024-01-09")
    with pytest.raises(ConfigError, match="no section 'replay', before which settings could be chosen"):
        tuned(world, tmp_path / "none", "replay=", learner="ranker")
    result = tuned(world, tmp_path / "free", "replay=", learner="ranker", until="2024-01-05", days=1, trials=1)
    assert result.settings["end"].startswith("2024-01-05")


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("tune={learners.ranker.fixed.rdge: [1, 2]}", "tune: learners.ranker.fixed.rdge: unknown key"),
        ("tune={learners.ranker.fixed.ridge: [1, -2]}", "tune: learners.ranker.fixed.ridge: should be greater"),
        ("tune={learners.ranker.fixed.ridge: {low: -1, high: 2}}", "tune: learners.ranker.fixed.ridge: should"),
        ("tune={learners.nobody.ridge: [1, 2]}", "learners.nobody.kind: is missing"),
        ("tune={learners.short.fixed.ridge: [1, 2]}", "nothing to tune of 'ranker' in the section 'tune'"),
        ("tune={learners.ranker.fixed.ridge: [2]}", "nothing to tune of 'ranker' in the section 'tune'"),
    ],
)
def test_candidates_are_checked_before_anything_runs(
    world: Path, tmp_path: Path, override: str, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tuned(world, tmp_path / "out", override)
    assert what in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_whole_numbers_where_no_others_are_allowed(world: Path, tmp_path: Path) -> None:
    tune = "tune={learners.ranker.random.user.max_rows: {low: 1, high: 20, log: true}}"
    result = tuned(world, tmp_path / "out", tune, days=1, trials=3)
    values = [trial.values["learners.ranker.random.user.max_rows"] for trial in result.trials[1:]]
    assert all(isinstance(value, int) for value in values)


def test_a_learner_in_short_form_by_default(world: Path, tmp_path: Path) -> None:
    result = tuned(world, tmp_path / "out", "tune=", learner="short", days=1, trials=3)
    assert {one.name for one in result.candidates} >= {
        "learners.short.learn_population",
        "learners.short.random.item.half_life",
        "learners.short.fixed.features",
    }
    for finalist in result.finalists:
        options = shlex.split(finalist.options)[1::2]
        record = load_project(world, [*BAD, "tune=", *options]).learners["short"]
        assert record.kind == "glmix"


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of numbers and of counts: users' levels, and how much each likes more of a thing."""
    folder, rng = tmp_path_factory.mktemp("ratings"), np.random.default_rng(0)
    rows, users = 3_000, 100
    user, x = rng.integers(0, users, rows), rng.normal(size=rows)
    z = 0.5 * rng.normal(size=users)[user] + 0.3 * x
    log = {
        "time": pa.array(1_704_067_200_000_000 + np.arange(rows) * 288_000_000, pa.timestamp("us", "UTC")),
        "user_id": user,
        "x": x,
        "rating": 3.0 + z + 0.5 * rng.normal(size=rows),
        "views": rng.poisson(np.exp(z)),
    }
    pq.write_table(pa.table(log), folder / "log.parquet")
    effects = {"fixed": {"features": ["x"]}, "random": {"user": {}}}
    content = {
        "name": "ratings",
        "events": {
            "path": "log.parquet",
            "time": "time",
            "entities": {"user": "user_id"},
            "labels": ["rating", "views"],
            "label_kinds": {"rating": "number", "views": "count"},
        },
        "learners": {
            "rating": {"kind": "glmix", "label": "rating", "loss": "squared", **effects},
            "views": {"kind": "glmix", "label": "views", "loss": "poisson", **effects},
        },
        "replay": {"start": "2024-01-09", "learner": "rating"},
    }
    (folder / "acclimate.yaml").write_text(yaml.safe_dump(content))
    return folder / "acclimate.yaml"


@pytest.mark.parametrize(
    ("name", "judge", "label"), [("rating", "rmse", "RMSE"), ("views", "deviance", "deviance")]
)
def test_numbers_and_counts_are_judged_by_errors_of_their_own(
    ratings: Path, tmp_path: Path, name: str, judge: str, label: str
) -> None:
    ridge = f"learners.{name}.fixed.ridge"
    bad = [f"{ridge}=1e7", f"tune={{{ridge}: {{low: 0.1, high: 1e7, log: true}}}}"]
    found = tuning.tune(ProjectFile.read(ratings, bad), tmp_path / "out", learner=name, days=3, trials=5)
    report = read_report(tmp_path / "out" / "replay")
    assert found.declared_loss == getattr(report.arms["declared"], judge)
    assert found.trials[0].loss == pytest.approx(found.declared_loss, rel=1e-12)
    assert found.chosen is not None
    assert found.chosen.loss == getattr(report.arms[found.chosen.name], judge)
    assert found.chosen.loss == pytest.approx(found.trials[found.chosen.number].loss, rel=1e-12)
    last = found.trials[found.chosen.number].differences[-1]
    assert found.chosen.difference == pytest.approx(found.chosen.loss - found.declared_loss)
    assert last == pytest.approx(found.chosen.difference)
    assert f"than the declared settings: {label} −" in found.verdict
    page = (tmp_path / "out" / "result" / "tuning.html").read_text(encoding="utf-8")
    assert f"Difference in {label}" in page
    assert "og-loss" not in page.split("<script")[0]


def test_without_optuna(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "acclimate.evaluate.tune", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        tuned(world, tmp_path / "out")
    assert str(caught.value) == "optuna is not installed, and tune needs it (pip install 'acclimate[tune]')"
    assert not (tmp_path / "out").exists()


KINDS = {
    "calibrated": {**SHORT, "calibrate": {"half_life": "3d"}},
    "rate": {"kind": "rate", "entity": "item", "label": "click"},
    "stack": {"kind": "stack", "learner": {**SHORT, "fixed": ["surface", "popular"]}},
    "stacked": {**SHORT, "offset": "short"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_learner_is_tuned_by_default(world: Path, tmp_path: Path, kind: str) -> None:
    """Whatever short form it is in: its options make the project of the trial."""
    sections = {"it": KINDS[kind], "popular": {"kind": "rate", "entity": "item", "label": "click"}}
    sets = [f"learners.{name}={json.dumps(section)}" for name, section in sections.items()]
    result = tuned(world, tmp_path / "out", "tune=", *sets, learner="it", days=1, trials=2)
    names = {one.name for one in result.candidates}
    expected = {"rate": "prior_rows", "stack": "learner.fixed.ridge"}.get(kind, "fixed.ridge")
    assert f"learners.it.{expected}" in names
    assert all(name.startswith("learners.it.") for name in names)
    assert not any("calibrate" in name for name in names)
    for finalist in result.finalists:
        options = shlex.split(finalist.options)[1::2]
        declared = load_project(world, [*BAD, "tune=", *sets, *options]).learners["it"]
        assert declared != load_project(world, [*BAD, "tune=", *sets]).learners["it"]
        assert type(declared) is type(load_project(world, [*BAD, "tune=", *sets]).learners["it"])
    assert [trial.state for trial in result.trials] == ["complete"] * 3


def test_a_feature_is_tuned_too(world: Path, tmp_path: Path) -> None:
    tune = "tune={features.duration.transform: [null, log1p], learners.ranker.fixed.ridge: [1, 10]}"
    used = "learners.ranker.fixed.features=[surface, duration]"
    result = tuned(world, tmp_path / "out", tune, used, days=1, trials=4)
    assert {one.name for one in result.candidates} == {
        "features.duration.transform",
        "learners.ranker.fixed.ridge",
    }
    losses = {json.dumps(t.values): t.loss for t in result.trials[1:] if t.state == "complete"}
    assert len(set(losses.values())) == len(losses) > 1


# --- the command ---------------------------------------------------------------------------------------------


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_says_what_it_found(world: Path, tmp_path: Path) -> None:
    sets = [part for override in BAD for part in ("--set", override)]
    done = run("tune", world, "--out", tmp_path / "out", "--days", 3, "--trials", 6, *sets)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("6 trials: ")
    assert lines[1].startswith("declared: log-loss 0.")
    assert lines[-4].startswith("trial ")
    assert "is better than the declared settings: log-loss −0." in lines[-4]
    assert lines[-3].startswith(
        f"try it: acclimate replay {world} --out report --set learners.ranker.fixed.ridge="
    )
    assert lines[-2] == f"project: {tmp_path}/out/result/acclimate.yaml"
    assert lines[-1] == f"page: {tmp_path}/out/result/tuning.html   report: {tmp_path}/out/replay/report.html"
    content = json.loads((tmp_path / "out" / "result" / "tuning.json").read_text())
    assert [trial["number"] for trial in content["trials"]] == list(range(7))


def test_the_command_refuses_days_of_the_replay(world: Path, tmp_path: Path) -> None:
    done = run("tune", world, "--out", tmp_path / "out", "--until", "2024-01-09")
    assert done.exit_code == 3
    assert "is after the start of the replay" in done.stderr
    assert len(done.stderr.splitlines()) == 2
