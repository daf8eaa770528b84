"""The memory that reading may take, and the private folder for what exceeds it."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sample_logs import SCHEMA, frame, told

import acclimate as ac
from acclimate.errors import ConfigError
from acclimate.events import database

BAD = [
    "1kB",
    "1MB",
    "15MB",
    "0GB",
    "-1GB",
    "lots",
    "1e999GB",
    "",
    "1",
    "GB",
    "nanGB",
    "1 G B",
    "99999999TB",
    "٣GB",
    None,
    5,
]


@pytest.mark.parametrize("size", BAD, ids=repr)
def test_a_memory_limit_that_is_refused(size: str) -> None:
    message = told(lambda: ac.read_events(frame(), SCHEMA, memory_limit=size), ConfigError)
    assert message.startswith(f"memory_limit '{size}' is ")


@pytest.mark.parametrize(("size", "number"), [("16MB", 16 * 10**6), ("1.5 GiB", 3 * 2**29), ("2gb", 2 * 10**9)])
def test_events_know_their_memory_limit(size: str, number: int) -> None:
    events = ac.read_events(frame(), SCHEMA, memory_limit=size)
    assert events.table().num_rows == 3
    parts = [events, events.cached(), events.before("2023-01-01"), events.after("2022-01-01")]
    assert {part.memory_limit for part in (*parts, *events.windows("1d"))} == {number}


def test_the_next_log_has_the_engine_of_one_that_is_gone_but_no_two_share_one() -> None:
    def engine(events: ac.Events) -> int:
        return id(events.source.log.database._root)

    events, another = (ac.read_events(frame(), SCHEMA, memory_limit="18MB") for _ in range(2))
    before = {engine(events), engine(another)}
    assert len(before) == 2
    del events, another
    gc.collect()
    events, another, third = (ac.read_events(frame(), SCHEMA, memory_limit="18MB") for _ in range(3))
    assert {engine(events), engine(another)} == before
    assert engine(third) not in before
    assert events.table().equals(third.table())


def test_an_engine_that_has_failed_for_good_serves_no_other_log() -> None:
    events = ac.read_events(frame(), SCHEMA, memory_limit="19MB")
    failed = events.source.log.database._root
    failed.close()
    del events
    gc.collect()
    events = ac.read_events(frame(), SCHEMA, memory_limit="19MB")
    assert events.source.log.database._root is not failed
    assert events.table().num_rows == 3


def test_a_fork_that_ends_is_left_no_engine_of_its_parent() -> None:
    work = (
        "import gc, os, sys\nfrom acclimate.events.database import Database\n"
        "one = Database('64MB')\nassert one.query('SELECT 7').fetchall() == [(7,)]\ndel one\ngc.collect()\n"
        "child = os.fork()\nif not child:\n    sys.exit(0)\nassert os.waitpid(child, 0)[1] == 0\n"
        "assert Database('64MB').query('SELECT 8').fetchall() == [(8,)]\n"
    )
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_few_engines_are_kept_whatever_limits_there_are() -> None:
    for size in range(20, 26):
        assert ac.read_events(frame(), SCHEMA, memory_limit=f"{size}MB").table().num_rows == 3
        gc.collect()
    assert len(database._idle) == 2


def test_a_full_disk_is_told() -> None:
    rows = 300_000
    table = pa.table(
        {"at": np.arange(rows)[::-1] + 1650880800, "user_id": np.arange(rows), "click": np.zeros(rows)}
    )
    schema = ac.Schema(ac.TimeColumn("at", unit="s"), {"user": "user_id"}, "click")
    events = ac.read_events(table.append_column("text", pa.array(["x" * 200] * rows)), schema, memory_limit="17MB")
    events.source.log.database.connection().execute("SET GLOBAL max_temp_directory_size = '1MB'")
    assert "and the disk for what exceeds it is full (make room there" in told(events.table, ConfigError)


HELD = """
import os, sys, acclimate as ac, pyarrow as pa
frame = pa.table({"at": ["2022-04-25"], "u": [1], "c": [1]})
events = ac.read_events(frame, ac.Schema(ac.TimeColumn("at"), ["u"], "c"))
print("open", flush=True)
sys.stdin.read()
"""


def process(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "TMPDIR": str(folder)}
    started = subprocess.Popen(
        [sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert started.stdout
    assert started.stdout.readline() == b"open\n"
    return started


def test_the_folder_is_private_and_goes_with_the_process_or_with_the_next(tmp_path: Path) -> None:
    killed = process(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(killed.pid) not in folder.name
    living = process(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    last = process(tmp_path)
    assert folder not in list(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2
    for left in (living, last):
        left.communicate()
    assert not list(tmp_path.iterdir())
