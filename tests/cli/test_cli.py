"""The command line: what goes to which stream, exit codes by the error tree, and help that reads well."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from acclimate import errors, pipeline
from acclimate.cli.commands import app
from acclimate.errors import AcclimateError

COMMANDS = [
    *(
        ["demo"],
        ["fit"],
        ["update"],
        ["vectors"],
        ["reconcile"],
        ["replay"],
        ["tune"],
        ["publish"],
        ["stream"],
        ["refused"],
        ["forget"],
        ["check"],
        ["data"],
    ),
    *(["data", "kuairand"], ["data", "movielens"], ["data", "world"]),
    *(["spaces"], ["spaces", "list"], ["spaces", "log"], ["spaces", "show"], ["spaces", "promote"]),
    *(["spaces", "rollback"], ["spaces", "retire"], ["spaces", "prune"], ["spaces", "pin"], ["spaces", "unpin"]),
    *(["spaces", "diff"], ["spaces", "verify"]),
]
TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, AcclimateError)]


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "world"
    made = run("data", "world", "--out", out, "--users", 20, "--days", 5)
    assert (made.exit_code, made.stderr) == (0, "")
    assert (
        made.stdout == f"project: {out}/acclimate.yaml\nnext: acclimate replay {out}/acclimate.yaml --out report\n"
    )
    return out / "acclimate.yaml"


# --- every verb ----------------------------------------------------------------------------------------------


def test_demo(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "out", "--users", 20, "--days", 12)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "incremental" in done.stdout
    assert f"report: {tmp_path}/out/report.html   figures: {tmp_path}/out/metrics.json" in done.stdout
    assert files(tmp_path / "out") == {"manifest.json", "metrics.json", "report.html"}


def test_fit_then_update(project: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    fitted = run("fit", project, "--out", model, "--until", "2024-01-04")
    assert (fitted.exit_code, fitted.stderr) == (0, "")
    assert fitted.stdout.startswith("learned 120 rows up to 2024-01-03T")
    assert f"model: {model} (" in fitted.stdout
    updated = run("update", project, "--model", model, "--until", "2024-01-05")
    assert updated.stdout.startswith("learned 40 rows up to 2024-01-04T")
    day = ("update", project, "--model", model, "--since", "2024-01-05", "--until", "2024-01-06")
    assert run(*day).stdout.startswith("learned 40 rows up to 2024-01-05T")
    fails(5, "events up to 2024-01-05T", *day)
    same = run("update", project, "--model", model, "--until", "2024-01-06")
    assert same.exit_code == 0
    assert same.stderr.startswith(
        "note: nothing was learned: there is no event with a known label from 2024-01-05T"
    )


RATE = ("--set", "learners={items: {kind: rate, entity: item}}")
GLOBAL_RATE = ("--set", "learners={all: {kind: global-rate, label: like}}")


@pytest.mark.parametrize("learner", [RATE, GLOBAL_RATE], ids=["rate", "global-rate"])
def test_fit_then_update_of_rates(project: Path, tmp_path: Path, learner: tuple[str, str]) -> None:
    model = tmp_path / "model"
    fitted = run("fit", project, "--out", model, "--until", "2024-01-04", *learner)
    assert (fitted.exit_code, fitted.stderr) == (0, "")
    first, second = fitted.stdout.splitlines()
    assert first.startswith("learned 120 rows up to 2024-01-03T")
    assert second == f"model: {model} (0.0 MB of state)"
    updated = run("update", project, "--model", model, "--until", "2024-01-05", *learner)
    assert (updated.exit_code, updated.stderr) == (0, "")
    assert updated.stdout.startswith("learned 40 rows up to 2024-01-04T")
    nothing = run("update", project, "--model", model, "--since", "2024-02-01", *learner)
    assert nothing.stdout.startswith("learned 0 rows up to 2024-01-04T")
    fails(5, f"{model} was made with other settings", "update", project, "--model", model)


def test_fit_by_name_among_learners_of_several_kinds(project: Path, tmp_path: Path) -> None:
    several = ("--set", "learners.items={kind: rate, entity: item}", "--set", "learners.all.kind=global-rate")
    for name, kind in (("ranker", "glmix"), ("items", "rate"), ("all", "global-rate")):
        done = run("fit", project, "--out", tmp_path / name, "--learner", name, *several)
        assert (done.exit_code, done.stderr) == (0, "")
        assert json.loads((tmp_path / name / "manifest.json").read_text())["kind"] == kind
        assert run("update", project, "--model", tmp_path / name, "--learner", name, *several).exit_code == 0
    fails(3, "which of the learners ranker, items, all?", "fit", project, "--out", tmp_path / "m", *several)


def test_replay(project: Path, tmp_path: Path) -> None:
    options = ("--set", "replay.arms=[stale, item-rate]")
    done = run("replay", project, "--out", tmp_path / "out", *options)
    assert (done.exit_code, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics["arms"]) == ["stale", "item-rate"]
    assert metrics["comparisons"][0]["arm"] == "stale"
    assert all(name in done.stdout for name in ("stale", "item-rate", "AUC"))
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


def test_check(project: Path) -> None:
    done = run("check", project)
    assert (done.exit_code, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first == "simulated-world: 200 events from 2024-01-01 to 2024-01-05"
    assert {line.split(":")[0].strip() for line in rest} == {
        *("user_id", "item_id", "click", "like", "long_view"),
        *("ranker.fixed", "ranker.user", "ranker.item"),
    }
    assert all(line.endswith(" columns") for line in rest[-3:])  # whatever the learner


def test_check_of_a_rate(project: Path) -> None:
    done = run("check", project, *RATE, "--set", "replay.arms=[stale, incremental, item-rate]")
    assert (done.exit_code, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first == "simulated-world: 200 events from 2024-01-01 to 2024-01-05"
    assert [line.split(":")[0].strip() for line in rest] == ["user_id", "item_id", "click", "like", "long_view"]


def test_replay_of_a_rate(project: Path, tmp_path: Path) -> None:
    arms = ("--set", "replay.arms=[stale, incremental, item-rate]")
    done = run("replay", project, "--out", tmp_path / "out", *RATE, *arms)
    assert (done.exit_code, done.stderr) == (0, "")
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())["arms"]
    assert (
        measured["incremental"]["log_loss"] == measured["item-rate"]["log_loss"] != measured["stale"]["log_loss"]
    )


def test_the_project_is_looked_for_here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    assert run("check").exit_code == 0


def test_data_kuairand(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in (
        "log_standard_4_08_to_4_21",
        "log_standard_4_22_to_5_08",
        "user_features",
        "video_features_basic",
    ):
        (data / f"{name}_pure.csv").write_text("user_id,video_id\n1,1\n")
    done = run("data", "kuairand", data, "--out", tmp_path / "made [1]")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"project: {tmp_path}/made [1]/acclimate.yaml\n" in done.stdout


def test_data_movielens(tmp_path: Path) -> None:
    data = tmp_path / "ml"
    data.mkdir()
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,1600000000\n")
    (data / "movies.csv").write_text("movieId,title,genres\n1,Film (1999),War\n")
    done = run("data", "movielens", data, "--out", tmp_path / "made")
    assert (done.exit_code, done.stderr) == (0, "")
    assert files(tmp_path / "made") == {"acclimate.yaml", "manifest.json", "movies.parquet", "ratings.parquet"}


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", TREE)
def test_exit_codes_follow_the_tree(error: type[AcclimateError], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error("what [red] is wrong", hint="what to do")

    monkeypatch.setattr(pipeline, "demo", failing)
    done = run("demo")
    assert done.exit_code == error.exit_code
    assert (done.stdout, done.stderr) == ("", "error: what [red] is wrong\nhint:  what to do\n")
    assert isinstance(run("demo", "--debug").exception, error)


def test_the_whole_tree_was_tried() -> None:
    assert len(TREE) == 18
    assert {error.exit_code for error in TREE} == {1, 3, 4, 5, 6, 7}


def fails(code: int, message: str, *arguments: Any) -> None:
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) <= 2


def test_mistakes_in_the_project(project: Path, tmp_path: Path) -> None:
    fails(3, f"{tmp_path}/none.yaml: No such file", "check", tmp_path / "none.yaml")
    fails(3, f"{project}: --set: replay.evry: unknown key", "check", project, "--set", "replay.evry=1d")
    fails(3, "'nothing' is no override", "check", project, "--set", "nothing")
    fails(3, "'soon' is no time", "fit", project, "--out", tmp_path / "m", "--until", "soon")
    fails(3, "no learner 'rankr'", "fit", project, "--out", tmp_path / "m", "--learner", "rankr")
    kind = f"{project}: --set: learners.ranker.kind: no kind 'glmax' of learner (did you mean 'glmix'?)"
    fails(3, kind, "check", project, "--set", "learners.ranker.kind=glmax")
    for verb in (["check"], ["replay", "--out", tmp_path / "r"]):
        arms = ("--set", "replay.arms=[fixed]")
        fails(3, "the arm 'fixed' is a learner's shared part alone", *verb, project, *RATE, *arms)
    assert files(tmp_path) == set()


def test_mistakes_in_the_data(project: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time,user_id\n")
    path = ("--set", f"events.path={tmp_path}/log.csv")
    fails(4, str(tmp_path / "none"), "check", project, "--set", f"events.path={tmp_path}/none")
    fails(4, str(tmp_path / "log.csv"), "fit", project, "--out", tmp_path / "m", *path)
    fails(4, str(tmp_path / "log.csv"), "replay", project, "--out", tmp_path / "r", *path)
    fails(4, f"{tmp_path}: no KuaiRand log", "data", "kuairand", tmp_path, "--out", tmp_path / "made")
    fails(4, f"{tmp_path}: no MovieLens", "data", "movielens", tmp_path, "--out", tmp_path / "made")
    assert files(tmp_path) == {"log.csv"}


def test_mistakes_with_models(project: Path, tmp_path: Path) -> None:
    fails(5, f"{tmp_path}/none is absent", "update", project, "--model", tmp_path / "none")
    assert run("fit", project, "--out", tmp_path / "model").exit_code == 0
    other = ("--set", "features.position.kind=numeric")
    fails(5, "events of another schema", "update", project, "--model", tmp_path / "model", *other)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    (tmp_path / "model" / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    fails(5, f"{tmp_path}/model has format 1", "update", project, "--model", tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text("{")
    fails(5, f"{tmp_path}/model is damaged", "update", project, "--model", tmp_path / "model")


def test_places_that_are_taken(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    taken = f"{tmp_path} exists already"
    absent = ("--set", "events.path=absent")  # would be an error if anything were read
    fails(6, taken, "fit", project, "--out", tmp_path, *absent)
    fails(6, taken, "replay", project, "--out", tmp_path, *absent)
    fails(6, taken, "demo", "--out", tmp_path)
    fails(6, taken, "data", "world", "--out", tmp_path)
    fails(6, taken, "data", "kuairand", tmp_path / "absent", "--out", tmp_path)
    fails(6, taken, "data", "movielens", tmp_path / "absent", "--out", tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_overwrite(project: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("precious")
    foreign = f"{tmp_path}/out holds something else"
    fails(6, foreign, "fit", project, "--out", tmp_path / "out", "--overwrite")
    assert files(tmp_path / "out") == {"old"}
    for name in ("metrics.json", "acclimate.yaml", "manifest.json"):  # as in a folder of ours, and yet none
        (tmp_path / "out" / name).write_text("{}")
        fails(6, f"{tmp_path}/out ", "fit", project, "--out", tmp_path / "out", "--overwrite")
        assert (tmp_path / "out" / "old").read_text() == "precious"


def test_each_kind_of_result_replaces_its_own_alone(project: Path, tmp_path: Path) -> None:
    small = ("--set", "replay.arms=[global-rate]")
    makers = {
        "model": ("fit", project, "--learner", "ranker"),
        "report": ("replay", project, *small),
        "project": ("data", "world", "--days", 2),
    }
    for kind, make in makers.items():
        assert run(*make, "--out", tmp_path / kind).exit_code == 0
        assert run(*make, "--out", tmp_path / kind, "--overwrite").exit_code == 0
    for kind, make in makers.items():
        for other in set(makers) - {kind}:
            message = f"{tmp_path}/{other} holds a {other}, which a {kind} does not replace; nothing was touched"
            fails(6, message, *make, "--out", tmp_path / other, "--overwrite")


def test_a_replay_that_fails_keeps_what_was_there(project: Path, tmp_path: Path) -> None:
    small = ("--set", "replay.arms=[global-rate]")
    replay = ("replay", project, "--out", tmp_path / "out", "--overwrite")
    assert run(*replay, *small).exit_code == 0
    before = (tmp_path / "out" / "metrics.json").read_text()
    fails(4, str(project.parent), *replay, "--set", "events.path=absent")
    assert (tmp_path / "out" / "metrics.json").read_text() == before
    assert files(tmp_path) == {"out"}


def test_an_interrupt_ends_quietly(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("acclimate.evaluate.report.render_page", interrupted)
    monkeypatch.setattr("acclimate.learners.base.write_artifact", interrupted)
    small = ("--set", "replay.arms=[global-rate]")
    assert run("replay", project, "--out", tmp_path / "out", *small).exit_code == 130
    assert run("fit", project, "--out", tmp_path / "model").exit_code == 130
    assert run("fit", project, "--out", tmp_path / "model", *RATE).exit_code == 130
    assert files(tmp_path) == set()


# --- as a process --------------------------------------------------------------------------------------------


def process(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from acclimate.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_process_says_one_line_and_its_code(tmp_path: Path) -> None:
    done = process("check", tmp_path / "none.yaml")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/none.yaml: No such file or directory",
        "hint:  give its path, or make one with 'acclimate data'",
    ]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for arguments in (["--debug", "check"], ["check", "--debug"]):
        done = process(*arguments, tmp_path / "none.yaml")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert "acclimate.errors.ConfigError" in done.stderr


def test_progress_goes_to_standard_error(project: Path, tmp_path: Path) -> None:
    small = ("--set", "replay.arms=[global-rate]")
    done = process("replay", project, "--out", tmp_path / "out", *small)
    assert done.returncode == 0
    assert "global-rate" in done.stdout
    assert "fitting" not in done.stdout
    assert not any(mark in done.stdout for mark in ("\x1b", "\r"))


# --- help ----------------------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    listed = run("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == [
        command[0] for command in COMMANDS if len(command) == 1
    ]
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_reads_well(command: list[str]) -> None:
    done = run(*command, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not any(mark in done.stdout for mark in ("[[", "TEXT", "<int")), done.stdout
    assert "..." not in done.stdout.replace("[ARGS]...", "")
    options = [line for line in done.stdout.splitlines() if line.startswith("  --")]
    assert options
    assert all(len(line.split("  ")) > 2 for line in options)


def test_help_shows_defaults() -> None:
    text = " ".join(run("demo", "--help").stdout.split())
    assert all(f"[default: {value}" in text for value in ("demo", "2000", "40", "0"))
    assert "[default: acclimate.yaml]" in run("check", "--help").stdout


def test_the_version() -> None:
    from acclimate import __version__

    assert run("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["fit"], ["demo", "--days", "3"], ["nonsense"], ["data", "world"]])
def test_usage_errors_have_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# --- what is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        *(["check", ""], ["fit", "--out", ""], ["fit", "", "--out", "m"], ["update", "--model", ""]),
        *(["replay", "--out", ""], ["demo", "--out", ""], ["data", "world", "--out", ""]),
        *(["data", "kuairand", "", "--out", "p"], ["data", "movielens", "x", "--out", ""], ["publish", ""]),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].endswith("it is empty.")
    assert len(done.stderr.splitlines()) == 2
    assert files(tmp_path) == set()


@pytest.mark.parametrize("verb", ["check", "fit", "replay"])
@pytest.mark.parametrize("size", ["", "1X", "much", "-1GB", "10B", "1e9GB", "9" * 5_000 + "GB", "1GB\n"])
def test_a_memory_limit_that_is_no_size(project: Path, tmp_path: Path, verb: str, size: str) -> None:
    out = () if verb == "check" else ("--out", tmp_path / "out")
    fails(3, f"'{size[:1]}", verb, project, *out, "--memory-limit", size)


def test_the_memory_limit_of_the_command_goes_before_that_of_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[str] = []
    real = pipeline.read_events

    def noted(*values: Any, memory_limit: str) -> Any:
        limits.append(memory_limit)
        return real(*values, memory_limit=memory_limit)

    monkeypatch.setattr(pipeline, "read_events", noted)
    file = ("--set", "memory_limit=256MB")
    for options in ((), file, (*file, "--memory-limit", "2GB")):
        assert run("check", project, *options).exit_code == 0
    assert limits == ["1GB", "256MB", "2GB"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--users", "1000000000000"], "'users' is 1,000,000,000,000: too large a world"),
        (["demo", "--days", "1000000000000"], "'days' is 1,000,000,000,000: too large a world"),
        (["data", "world", "--users", "10000000"], "40 days with 20,000,000 impressions each"),
        (["data", "world", "--users", "9" * 4_000], "'users' is 9,999"),
    ],
    ids=["users", "days", "both", "digits"],
)
def test_a_world_that_is_too_large_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    fails(3, message, *arguments, "--out", tmp_path / "out")
    assert files(tmp_path) == set()


def test_check_names_a_column_that_knows_the_labels(tmp_path: Path) -> None:
    project = tmp_path / "world" / "acclimate.yaml"
    assert run("data", "world", "--out", project.parent, "--users", 200, "--days", 10).exit_code == 0
    assert run("check", project).stderr == ""
    rows = pq.read_table(project.parent / "events").to_pandas()
    rates = rows.groupby("user_id")["click"].mean().rename("rate").reset_index()
    rates.to_parquet(tmp_path / "users.parquet")
    table = f"events.tables={{user: {{source: '{tmp_path}/users.parquet', key: user_id}}}}"
    done = run("check", project, "--set", table)
    assert done.exit_code == 0
    assert "note: column 'user.rate' may know the future: over " in done.stderr
