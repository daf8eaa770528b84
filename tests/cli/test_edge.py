"""The command as a process: pipes, full devices, terminals, signals, bugs, and arms that raise."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acclimate import pipeline
from acclimate.cli.commands import app

COMMAND = [sys.executable, "-c", "from acclimate.cli import main; main()"]
SMALL = ("--set", "replay.arms=[stale, item-rate]")

ARMS = """
import os

import numpy as np


class Half:
    def fit(self, events):
        return self

    update = fit

    def predict(self, events):
        return np.full(events.table([]).num_rows, 0.5)


def blocked():
    with open(os.environ["READY"], "w") as ready:
        ready.write("ready")
    with open(os.environ["NEVER"]) as never:  # nobody writes
        never.read()


class WaitsInFit(Half):
    def fit(self, events):
        blocked()


class WaitsInPredict(Half):
    def predict(self, events):
        blocked()


class WaitsInQuery(Half):
    def fit(self, events):
        import duckdb

        with open(os.environ["READY"], "w") as ready:
            ready.write("ready")
        duckdb.sql("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b").fetchall()
"""


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([*COMMAND, *map(str, arguments)], text=True, check=False, **streams)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edge") / "world"
    pipeline.make_world(out, users=20, days=5)
    (out / "arms.py").write_text(ARMS)
    return out / "acclimate.yaml"


# --- pipes and devices ---------------------------------------------------------------------------------------


VERBS = [["--help"], ["--version"], ["check"], ["fit"], ["replay"]]
verbs = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])


def line(verb: list[str], project: Path, out: Path) -> list[Any]:
    if verb[0].startswith("--"):
        return verb
    return [*verb, project, *SMALL, *(("--out", out) if verb[0] != "check" else ())]


@verbs
def test_a_reader_that_has_gone_is_no_failure(project: Path, tmp_path: Path, verb: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(*line(verb, project, tmp_path / "out"), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").exists() == (verb[0] in ("fit", "replay"))


@verbs
def test_a_full_device_is_told(project: Path, tmp_path: Path, verb: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = run(*line(verb, project, tmp_path / "out"), stdout=full)
    assert done.returncode == 6
    assert done.stderr.startswith("error: standard output cannot be written: No space left on device\nhint:  ")
    assert len(done.stderr.splitlines()) == 2
    assert (tmp_path / "out").exists() == (verb[0] in ("fit", "replay"))


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("settings", "code"), [((), 0), (("--set", "nonsense"), 3)], ids=["works", "fails"])
def test_streams_that_are_not_there(project: Path, closing: str, settings: tuple[str], code: int) -> None:
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *COMMAND, "check", str(project), *settings]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def on_terminal(**environment: str) -> str:
    """What a terminal gets of an error."""
    here, there = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env = kept | {"TERM": "xterm"} | environment
    assert run("check", "none.yaml", stderr=there, env=env).returncode == 3
    os.close(there)
    shown = os.read(here, 10_000).decode()
    os.close(here)
    return shown


def test_errors_are_red_unless_no_colour_is_wanted() -> None:
    assert "\x1b[31merror: " in on_terminal()
    assert not re.search("\x1b\\[[0-9;]*m", on_terminal(NO_COLOR="1"))


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
def test_no_width_loses_anything(project: Path, tmp_path: Path, columns: int) -> None:
    done = run("replay", project, "--out", tmp_path / "r", *SMALL, env=os.environ | {"COLUMNS": str(columns)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "…" not in done.stdout
    titles = ("AUC", "GAUC", "Log-loss", "Calib.", "Regret", "Rows per", "item-rate")
    text = done.stdout if columns > 10 else "".join(done.stdout.split())
    assert [title for title in titles if (title if columns > 10 else title.replace(" ", "")) not in text] == []
    assert f"report: {tmp_path / 'r'}/report.html" in done.stdout


@pytest.mark.parametrize("group", [(), ("data",)])
def test_no_width_cuts_the_list_of_commands(group: tuple[str, ...]) -> None:
    narrow, wide = (run(*group, "--help", env=os.environ | {"COLUMNS": n}).stdout.split() for n in ("40", "200"))
    assert narrow == wide
    assert not any(word.endswith("...") and word != "[ARGS]..." for word in narrow)


# --- signals -------------------------------------------------------------------------------------------------


@pytest.fixture
def fifos(tmp_path: Path) -> Generator[dict[str, str]]:
    """Two FIFOs by the variables that name them to the arm, and a place of its own for temporary files.

    Commands heed a hangup, also where the tests run under ``nohup``.
    """
    (tmp_path / "temporary").mkdir()
    for name in ("ready", "never"):
        os.mkfifo(tmp_path / name)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield {
        "READY": str(tmp_path / "ready"),
        "NEVER": str(tmp_path / "never"),
        "TMPDIR": str(tmp_path / "temporary"),
    }
    signal.signal(signal.SIGHUP, before)


SIGNALS = [
    (signal.SIGINT, "interrupted"),
    (signal.SIGTERM, "ended by SIGTERM"),
    (signal.SIGHUP, "ended by SIGHUP"),
]
WAITING = ["WaitsInFit", "WaitsInPredict", "WaitsInQuery"]
ENDED = [  # each signal in each arm, and each of both with --debug and without
    pytest.param(number, word, arm, ("--debug",) * ((i + j) % 2), id=f"{arm}-{number.name}")
    for i, (number, word) in enumerate(SIGNALS)
    for j, arm in enumerate(WAITING)
]


@pytest.mark.parametrize(("number", "word", "arm", "debug"), ENDED)
def test_a_signal_ends_it_in_one_line(
    project: Path,
    tmp_path: Path,
    fifos: dict[str, str],
    *,
    number: int,
    word: str,
    arm: str,
    debug: tuple[str, ...],
) -> None:
    arms = ("--set", f"replay.arms=[{{name: slow, python: 'arms.py:{arm}'}}]")
    arguments = ["replay", str(project), "--out", str(tmp_path / "out" / "report"), *arms, *debug]
    begun: Any = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | fifos
    )
    with begun, open(fifos["READY"]) as ready:
        assert ready.read() == "ready"
        begun.send_signal(number)
        out, error = begun.communicate()
    assert (begun.returncode, out, error) == (128 + number, "", f"{word}\n")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under ``nohup``."""
    code = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from acclimate.cli import edge
with edge.process():
    print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{signal.SIG_IGN} False\n{signal.SIG_IGN} True\n"


# --- bugs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("a\nb"), "ValueError: a\\nb"),
        (KeyError("x"), "KeyError: 'x'"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (RecursionError(), "RecursionError"),
        (ZeroDivisionError("x" * 10_000), "ZeroDivisionError: xxx"),
        (NotImplementedError("\x1b[31mred"), "NotImplementedError: \\x1b[31mred"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_a_bug_is_one_line(error: Exception, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "demo", failing)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {shown}")
    assert first.endswith("; this is a bug")
    assert len(first) < 700
    assert second == "hint:  run it again with --debug, and report what it shows"
    assert CliRunner().invoke(app, ["demo", "--debug"]).exception is error


# --- arms that raise -----------------------------------------------------------------------------------------

ARM = """
import numpy as np


class Mine:
    def __init__(self): {make}
    def fit(self, events): {fit}
    def update(self, events): {update}
    def predict(self, events): {predict}; return np.full(events.table([]).num_rows, 0.5)


{end}
"""
RAISING = {  # what is in the places of an arm's file, the exit code, and the line
    "import": ({"end": "1 / 0"}, 3, 12),
    "exit": ({"end": "raise SystemExit(0)"}, 3, 12),
    "make": ({"make": "1 / 0"}, 3, 6),
    "fit": ({"fit": "1 / 0"}, 5, 7),
    "update": ({"update": "1 / 0"}, 5, 8),
    "predict": ({"predict": "1 / 0"}, 5, 9),
}


def written(path: Path, **parts: str) -> Path:
    nothing = dict.fromkeys(("make", "fit", "update", "predict"), "...") | {"end": ""}
    path.write_text(ARM.format_map(nothing | parts))
    return path


def arms(*arms: str) -> tuple[str, ...]:
    return ("--set", f"replay.arms=[{', '.join(arms)}]")


@pytest.mark.parametrize("where", RAISING)
def test_an_arm_that_raises_is_named_with_its_line(project: Path, tmp_path: Path, where: str) -> None:
    parts, code, number = RAISING[where]
    file = written(project.parent / f"{where}_raises.py", **parts)
    chosen = arms("stale", f"{{name: outsider, python: '{file.name}:Mine'}}")
    arguments = ["replay", str(project), "--out", str(tmp_path / "r"), *chosen]
    done = CliRunner().invoke(app, arguments)
    first, hint = done.stderr.splitlines()
    what = "SystemExit: 0" if where == "exit" else "ZeroDivisionError: division by zero"
    assert (done.exit_code, done.stdout) == (code, "")
    assert first.endswith(f"{file}, line {number}: {what}")
    assert ("arm 'outsider': " in first) == (code == 5)
    assert hint == "hint:  mend it; its traceback is shown with --debug"
    debug = run(*arguments, "--debug")
    assert debug.returncode == 1
    assert f'{file}", line {number}' in debug.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("def fit(self): ...", 3, "fit() cannot be called with the events alone"),
        ("def predict(self, events, more): ...", 3, "predict() cannot be called with the events alone"),
        (
            "def fit(self, events): self.lock = __import__('threading').Lock()",
            5,
            "arm 'outsider' cannot be copied",
        ),
        ("def predict(self, events): return [0.5]", 5, "predictions have shape (1,)"),
        ("def predict(self, events): return 'half'", 5, "predictions are no array of numbers"),
        (
            "def predict(self, events): return np.full(events.table([]).num_rows, np.nan)",
            5,
            "predictions are not within [0, 1]",
        ),
        ("def predict(self, events): return (p for p in events)", 5, "line 14: TypeError"),
        ("def predict(self, events): return None", 5, "predictions"),
        ("nbytes = property(lambda self: 1 / 0)", 5, "line 14: ZeroDivisionError"),
        ("def weights(self): return [1 / 0]", 5, "line 14: ZeroDivisionError"),
    ],
)
def test_an_arm_that_is_wrong_is_told(project: Path, tmp_path: Path, body: str, code: int, message: str) -> None:
    with written(tmp_path / "wrong.py").open("a") as file:
        file.write(f"class Wrong(Mine):\n    {body}\n")
    chosen = arms(f"{{name: outsider, python: '{file.name}:Wrong'}}")
    done = CliRunner().invoke(app, ["replay", str(project), "--out", str(tmp_path / "r"), *chosen])
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert message in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2
