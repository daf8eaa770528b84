"""What was refused is kept once, counted, and sent again once."""

import os
import threading
from pathlib import Path

import pytest

from acclimate.errors import OutputError, SourceError
from acclimate.events.streams import DeadLetter, DeadLetters, Log


def letter(
    number: int, *, reason: str = "no JSON", value: bytes = b"{", partition: int = 0, space: str = ""
) -> DeadLetter:
    return DeadLetter("log://events", partition, str(number), reason, value, space=space)


def test_letters_are_kept_once_in_their_order(tmp_path: Path):
    letters = DeadLetters(tmp_path / "dead")
    assert letters.add([letter(2), letter(1, reason="no time"), letter(2)]) == 2
    assert letters.add([letter(1), letter(3, value=b"\xff\n\x00")]) == 1
    again = DeadLetters(tmp_path / "dead")
    assert again.add([letter(3, value=b"\xff\n\x00"), letter(2)]) == 0
    for one in (letters, again):
        kept = list(one.letters())
        assert [(part.position, part.reason, part.value) for part in kept] == [
            ("2", "no JSON", b"{"),
            ("1", "no time", b"{"),
            ("3", "no JSON", b"\xff\n\x00"),
        ]
        assert all(part.time > 1_700_000_000_000_000 for part in kept)
        assert one.counts() == {"no JSON": 2, "no time": 1}


def test_places_of_two_streams_or_partitions_are_not_one(tmp_path: Path):
    others = [DeadLetter("log://other", 0, "1", "r", b""), letter(1, partition=1)]
    assert DeadLetters(tmp_path).add([letter(1), *others]) == 3


def test_another_record_at_a_place_is_another_letter(tmp_path: Path):
    letters = DeadLetters(tmp_path)
    letters.add([letter(1, value=b"of the old log")])
    assert letters.add([letter(1, value=b"of the new log"), letter(1, value=b"of the old log")]) == 1
    assert [part.value for part in DeadLetters(tmp_path).letters()] == [b"of the old log", b"of the new log"]


def test_what_one_space_has_refused_is_sent_only_if_it_is_named(tmp_path: Path):
    letters, log = DeadLetters(tmp_path / "dead"), Log(tmp_path / "log")
    spaces = ["", "a", "b"]
    assert letters.add([letter(1, value=b"%d" % n, space=space) for n, space in enumerate(spaces)]) == 3
    assert letters.add([letter(1, value=b"1", space=space) for space in spaces]) == 2
    again = DeadLetters(tmp_path / "dead")
    assert again.add([letter(1, value=b"1", space="a")]) == 0
    assert [(part.value, part.space) for part in again.letters()] == [
        (b"0", ""), (b"1", "a"), (b"2", "b"), (b"1", ""), (b"1", "b"),
    ]  # fmt: skip
    assert again.replay(log) == 2
    assert list(log.read(0, None, 9).values) == [b"0", b"1"]
    assert again.replay(log, space="b") == 2
    assert list(log.read(0, "2", 9).values) == [b"2", b"1"]
    assert again.replay(log) == again.replay(log, space="b") == 0
    assert [(part.value, part.space) for part in letters.letters()] == [(b"1", "a")]
    log.close()


def test_files_are_rotated(tmp_path: Path):
    letters = DeadLetters(tmp_path, rotate=1000)
    for number in range(40):
        letters.add([letter(number)])
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"{n + 1:08d}.jsonl" for n in range(len(files))]
    assert len(files) > 3
    assert all(1000 <= path.stat().st_size < 1300 for path in files[:-1])
    assert [part.position for part in DeadLetters(tmp_path).letters()] == [str(n) for n in range(40)]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_a_kill_has_cut_is_written_again(tmp_path: Path, cut: int):
    DeadLetters(tmp_path).add([letter(1), letter(2)])
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - cut)
    letters = DeadLetters(tmp_path)
    assert letters.add([letter(1), letter(2), letter(3)]) == 2
    assert [part.position for part in letters.letters()] == ["1", "2", "3"] if cut > 1 else ["1", "2", "2", "3"]
    assert letters.counts() == {"no JSON": 3}


def test_two_who_write_keep_each_record_once(tmp_path: Path):
    writers = [DeadLetters(tmp_path, rotate=2000) for _ in range(3)]

    def write(letters: DeadLetters) -> None:
        for number in range(30):
            letters.add([letter(number), letter(number + 1)])

    threads = [threading.Thread(target=write, args=(letters,)) for letters in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(part.position) for part in DeadLetters(tmp_path).letters()) == list(range(31))
    assert writers[0].counts() == {"no JSON": 31}


def test_letters_are_sent_again_once_and_marked(tmp_path: Path):
    letters, log = DeadLetters(tmp_path / "dead"), Log(tmp_path / "log", 2)
    letters.add([letter(n, value=b"%d" % n, partition=n % 2, reason=f"reason {n % 3}") for n in range(10)])
    assert letters.replay(log, reason="reason 1") == 3
    assert list(log.read(0, None, 20).values) == [b"4"]
    assert list(log.read(1, None, 20).values) == [b"1", b"7"]
    assert [part.position for part in letters.letters(replayed=True)] == ["1", "4", "7"]
    assert DeadLetters(tmp_path / "dead").replay(log, most=2) == 7
    assert list(log.read(0, None, 20).values) == [b"4", b"0", b"2", b"6", b"8"]
    assert list(log.read(1, None, 20).values) == [b"1", b"7", b"3", b"5", b"9"]
    assert letters.replay(log) == 0
    assert list(letters.letters()) == []
    assert letters.add([letter(4, value=b"4")]) == 0
    assert letters.counts() == {"reason 0": 4, "reason 1": 3, "reason 2": 3}
    log.close()


def test_letters_of_more_partitions_than_there_are_stay(tmp_path: Path):
    letters, log = DeadLetters(tmp_path / "dead"), Log(tmp_path / "log", 1)
    letters.add([letter(1), letter(2, partition=1)])
    with pytest.raises(SourceError, match="of partition 1, and the stream has 1"):
        letters.replay(log)
    assert log.lag(0, None) == 0
    log.close()


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, no_file_beyond):
    letters = DeadLetters(tmp_path)
    letters.add([letter(1)])
    with no_file_beyond(2000), pytest.raises(OutputError, match="does not take the refused records"):
        letters.add([letter(2, value=b"x" * 5000)])
    assert letters.add([letter(2)]) == 1
    assert [part.position for part in DeadLetters(tmp_path).letters()] == ["1", "2"]
