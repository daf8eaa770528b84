"""Which files are read: each once, none that is hidden or no file, and none left out in silence."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from sample_logs import csv, error_of, parquet, rows_of

from acclimate.errors import SourceError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    "folder", ["_temporary", ".trash", "_temporary/0/task", ".ipynb_checkpoints", "day=2022-04-25/_temporary"]
)
@pytest.mark.parametrize("source", ["log", "log/**/*.parquet", "log/**"])
def test_hidden_folders_hold_no_events(folder: str, source: str) -> None:
    parquet(Path("log/1.parquet"))
    parquet(Path("log") / folder / "1.parquet")
    assert rows_of(source) == 3


@pytest.mark.parametrize("source", ["_log", "_log/*.parquet", "_l*/1.parquet", "_log/1.parquet", "./_log"])
def test_a_hidden_folder_that_is_named_is_read(source: str) -> None:
    parquet(Path("_log/1.parquet"))
    assert rows_of(source) == 3


def test_folders_that_name_days_are_read() -> None:
    for day in (25, 26):
        parquet(Path(f"log/day=2022-04-{day}/1.parquet"))
    assert rows_of("log") == rows_of("log/day=*") == rows_of("log/*/*.parquet") == 6


def test_a_loop_of_links_ends() -> None:
    parquet(Path("log/sub/1.parquet"))
    Path("log/sub/up").symlink_to(Path("log").resolve())
    Path("log/itself").symlink_to(Path("log").resolve())
    assert rows_of("log") == rows_of("log/**/*.parquet") == 3


def test_a_link_that_leads_out_above_reads_nothing_more() -> None:
    parquet(Path("log/1.parquet"))
    parquet(Path("other/2.parquet"))
    Path("log/up").symlink_to(Path().resolve())
    assert rows_of("log") == 3


def test_linked_folders_are_read() -> None:
    parquet(Path("log/1.parquet"))
    parquet(Path("elsewhere/2.parquet"))
    Path("log/more").symlink_to(Path("elsewhere").resolve())
    Path("log/again").symlink_to(Path("elsewhere").resolve())
    assert rows_of("log") == 6


SAME: list[Any] = [
    ["1.parquet", "1.parquet"],
    ["1.parquet", "./1.parquet"],
    ["1.parquet", "../here/1.parquet"],
    ["1.parquet", "linked.parquet"],
    ["1.parquet", "hard.parquet"],
    ["1.parquet", Path("1.parquet").absolute],
    ["folder", "linked.parquet"],
    "*.parquet",
    [".", "folder"],
]


@pytest.mark.parametrize("source", SAME, ids=str)
def test_a_file_by_two_paths_is_read_once(source: Any) -> None:
    path = parquet(Path("1.parquet"))
    Path("linked.parquet").symlink_to(path)
    os.link(path, "hard.parquet")
    Path("folder").mkdir()
    os.link(path, "folder/3.parquet")
    source = [part() if callable(part) else part for part in source] if isinstance(source, list) else source
    assert rows_of(source) == 3


@pytest.mark.parametrize("name", ["broken.csv", "2022-04-26", "itself.parquet"])
@pytest.mark.parametrize("source", ["log", "log/{}"])
def test_a_link_that_leads_nowhere_is_named(name: str, source: str) -> None:
    parquet(Path("log/1.parquet"))
    Path("log", name).symlink_to(name if name.startswith("itself") else "gone")
    message = error_of(source.format(name), kind=SourceError)
    assert message.startswith(f"log/{name}: a link that leads nowhere: ")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "device.parquet"])
@pytest.mark.parametrize("source", ["log", "log/{}", "log/*"])
def test_what_has_no_end_is_refused_before_it_is_read(kind: str, source: str) -> None:
    parquet(Path("log/1.parquet"))
    name = kind if "." in kind else f"{kind}.csv"
    if kind == "pipe":
        os.mkfifo(f"log/{name}")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"log/{name}")
    else:
        Path("log", name).symlink_to("/dev/zero")
    message = error_of(source.format(name), kind=SourceError)
    assert message.startswith(f"log/{name}: no regular file, but a pipe, a socket or a device (write")


@pytest.mark.parametrize("source", [b"log", b"log/\xff\xfe.csv"])
def test_a_name_that_is_not_utf_8_is_named(source: bytes) -> None:
    parquet(Path("log/1.parquet"))
    csv(Path(os.fsdecode(b"log/\xff\xfe.csv")))
    message = error_of(os.fsdecode(source), kind=SourceError)
    assert message == r"log/\udcff\udcfe.csv: the name is not UTF-8 (rename it)"


@pytest.mark.parametrize(
    "name", ["a\nb.csv", "a\x1b]0;b.csv", "a\rb.parquet", "a\u202eb.csv", "a\0b.csv", "a\0*.csv"]
)
def test_what_a_terminal_obeys_is_escaped_in_names(name: str) -> None:
    assert "no such file" in error_of(name, kind=SourceError)
    if "\0" not in name:
        Path(name).touch()
        assert "the file is empty" in error_of(name, kind=SourceError)
