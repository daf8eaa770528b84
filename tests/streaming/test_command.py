"""The command ``acclimate stream``: it drains, it ends when it is asked to, and it says what is wrong."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
import yaml
from small_project import EVENTS, HISTORY, content, rows
from typer.testing import CliRunner

from acclimate.cli.commands import app


@pytest.fixture
def file(small):
    """The project in a file."""
    path = small.folder / "acclimate.yaml"
    path.write_text(yaml.safe_dump(content()))
    return path


def command(*arguments):
    return [sys.executable, "-m", "acclimate", *map(str, arguments)]


def run(*arguments):
    """What the command prints, in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_ends_when_nothing_is_left(small, file):
    subprocess.run(command("stream", file, "--until-drained"), check=True)
    assert small.unit(small.spaces.live("ranker"))[1].learned == EVENTS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_batch_and_the_next_one_goes_on(small, file, number):
    with subprocess.Popen(command("stream", file), stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stderr.readline())["event"] == "started"
        process.send_signal(number)
        *_, last = process.stderr.read().splitlines()
    assert json.loads(last)["event"] == "stopped"
    assert process.returncode == 0
    small.append(rows(HISTORY + EVENTS, 50))
    run("stream", file, "--until-drained")
    learned, progress = small.unit(small.spaces.live("ranker"))
    assert progress.learned == EVENTS + 50
    batches = [rows(first, 50) for first in range(HISTORY, HISTORY + EVENTS + 50, 50)]
    expected = small.updated(small.spaces.live("ranker"), batches)
    assert all((learned[name] == expected[name]).all() for name in expected)


def test_metrics_are_there_for_prometheus(file, free_port):
    process = subprocess.Popen(
        command("stream", file, "--metrics-port", free_port), stderr=subprocess.PIPE, text=True
    )
    with process:
        assert json.loads(process.stderr.readline())["event"] == "started"
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics") as answer:
            told = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert "acclimate_stream_events_total" in told
    assert "acclimate_stream_stalled" in told


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stream.by=item"], "'item' is no entity"),
        (["stream.learners=nobody"], "no learner 'nobody'"),
        (["stream.source=ftp://events"], "is no stream"),
        (["publish.store=ftp://state"], "is no store"),
        (["publish={spaces: elsewhere, store: 'lmdb://state'}"], "no space of ranker is live"),
        (["publish={spaces: spaces}"], "where states are kept"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_hint(file, overrides, said):
    options = [part for override in overrides for part in ("--set", override)]
    done = CliRunner().invoke(app, ["stream", str(file), *options])
    assert done.exit_code in (3, 5)
    assert said in done.stderr
    assert "hint:" in done.stderr


def test_what_is_refused_is_counted_and_sent_again_and_what_is_known_is_forgotten(small, file):
    small.append_raw([b"{"])
    run("stream", file, "--until-drained")
    assert run("refused", file).split() == ["1", "the", "record", "is", "no", "JSON"]
    assert run("refused", file, "--replay").startswith("1 records")
    space = small.spaces.live("ranker")
    gone = int(small.unit(space)[0]["ids"][0])
    assert run("forget", "user", gone, "--project", file).startswith("1 values have gone")
    assert gone not in small.unit(space)[0]["ids"]
