"""Who appends may be killed at any moment: what was acknowledged is there, and nothing is torn."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from acclimate.errors import ConfigError, OutputError, SourceError
from acclimate.events.streams import Log

KILLER = """
import os, random, signal, sys
from acclimate.events.streams import Log

folder, batch = sys.argv[1], int(sys.argv[2])
moments = random.Random(batch)
for _ in range(int(sys.argv[3])):
    acknowledgements, acknowledge = os.pipe()
    child = os.fork()
    if not child:
        log = Log(folder, 2)
        first = log.lag(0, None)
        while True:
            log.append(0, [b"%d " % number + b"x" * (number * 37 % 900) for number in range(first, first + batch)])
            first += batch
            os.write(acknowledge, first.to_bytes(8, "little"))
    os.close(acknowledge)
    said, wanted = b"", 8 * moments.randrange(20)
    while len(said) < wanted:
        said += os.read(acknowledgements, 8)
    for _ in range(moments.randrange(100_000)):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(acknowledgements, 4096):
        said += more
    with Log(folder, 2) as log:
        print(int.from_bytes(said[-8:], "little"), log.lag(0, None))
"""


@pytest.mark.parametrize("batch", [1, 50])
def test_an_appender_that_is_killed_leaves_whole_batches(tmp_path: Path, batch: int):
    kills, folder = 30, tmp_path / "log"
    command = [sys.executable, "-c", KILLER, str(folder), str(batch), str(kills)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    ends = [tuple(map(int, line.split())) for line in lines]
    assert len(ends) == kills
    before = 0
    for acknowledged, there in ends:
        assert max(acknowledged, before) <= there <= max(acknowledged, before) + batch
        assert there % batch == 0
        before = there
    with Log(folder) as log:
        records = log.read(0, None, 10**6)
    wanted = [b"%d " % number + b"x" * (number * 37 % 900) for number in range(before)]
    assert list(records.values) == wanted
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_two_processes_append_to_one_partition(tmp_path: Path):
    script = """
import sys
from acclimate.events.streams import Log
with Log(sys.argv[1], 1) as log:
    for number in range(60):
        log.append(0, [b"%s %d" % (sys.argv[2].encode(), 2 * number + k) for k in range(2)])
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    with Log(tmp_path) as log:
        read = [value.split() for value in log.read(0, None, 1000).values]
    for name in (b"a", b"b"):
        assert [int(number) for writer, number in read if writer == name] == list(range(120))
    assert [writer for writer, _ in read[::2]] == [writer for writer, _ in read[1::2]]


def test_a_full_disk_takes_nothing_of_a_batch(tmp_path: Path, no_file_beyond):
    with Log(tmp_path / "log") as log:
        log.append(0, [b"a"])
        with no_file_beyond(100_000), pytest.raises(OutputError, match="does not take records"):
            log.append(0, [b"b" * 300_000])
        assert log.lag(0, None) == 1
        log.append(0, [b"c"])
        assert list(log.read(0, None, 5).values) == [b"a", b"c"]


def test_what_is_no_log(tmp_path: Path):
    (tmp_path / "records.sqlite").write_bytes(b"something else " * 100)
    with pytest.raises(SourceError, match="the log cannot be opened: file is not a database"):
        Log(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the log cannot be made"):
        Log(tmp_path / "file")
    with pytest.raises(ConfigError, match="1 partition or more, not 0"):
        Log(tmp_path / "new", 0)


def test_a_new_log_has_one_partition(tmp_path: Path):
    with Log(tmp_path / "new") as log:
        assert log.partitions == 1
