"""Records that were refused: kept with the reason, counted, and sent again when the cause is mended."""

import base64
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acclimate.artifacts import Stream
from acclimate.errors import OutputError, SourceError
from acclimate.storage.locks import locked, sync

_NAME = re.compile(r"(\d{8})\.jsonl")
_REPLAYED = "replayed.jsonl"


@dataclass(frozen=True)
class DeadLetter:
    """A record that was refused: where it was, when that was seen (microseconds UTC), why, and what it holds.

    ``space`` is the one that refused it where others may have learned it; empty where none has.
    """

    stream: str
    partition: int
    position: str
    reason: str
    value: bytes
    time: int = 0
    space: str = ""

    @property
    def place(self) -> tuple[str, int, str, str, str]:
        """What tells it from all others, even of a log made anew: where, for whom, and a hash of what."""
        digest = hashlib.blake2b(self.value, digest_size=8).hexdigest()
        return self.stream, self.partition, self.position, self.space, digest


class DeadLetters:
    """A folder of refused records, one line of JSON each, in files of a bounded size that are only appended to.

    A record is kept once for each space that refuses it, however often it is read again. Several processes may
    write to one folder. Each that does holds 8 bytes of hash for every letter there is, about 80 bytes of memory.

    Args:
        path: made if it is not there.
        rotate: bytes from which on the next file begins.

    Raises:
        SourceError: a file there is damaged otherwise than by the kill of one who wrote.
        OutputError: the folder cannot be made.
    """

    def __init__(self, path: str | Path, *, rotate: int = 64 << 20) -> None:
        self._folder, self._rotate = Path(path), rotate
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be made: {error.strerror}", hint="choose another place") from error
        self._places: set[int] = set()
        self._read: dict[str, int] = {}  # how far each file has been read, in bytes
        self._counts: Counter[str] = Counter()
        self._refresh()

    def add(self, letters: Iterable[DeadLetter]) -> int:
        """Keep those that are not there yet; they are on the disk when this returns. Returns how many were new.

        Raises:
            OutputError: the disk is full, or does not take them.
        """
        wanted = {_key(letter.place): letter for letter in letters}
        if wanted.keys() <= self._places:
            return 0
        with locked(self._folder):
            self._refresh()
            now = time.time_ns() // 1000
            new = [
                replace(letter, time=letter.time or now)
                for key, letter in wanted.items()
                if key not in self._places
            ]
            self._append(self._current(), [_line(letter) for letter in new])
            self._refresh()
        return len(new)

    def counts(self) -> dict[str, int]:
        """How many there are, by reason, the most frequent first."""
        self._refresh()
        return dict(self._counts.most_common())

    def letters(self, *, replayed: bool = False) -> Iterator[DeadLetter]:
        """Those that wait, in the order in which they came; or those that were sent again."""
        done = self._replayed()
        for name in self._files():
            for line in (self._folder / name).read_bytes().splitlines():
                letter = _letter(line)
                if letter is not None and (_key(letter.place) in done) == replayed:
                    yield letter

    def replay(self, stream: Stream, *, reason: str | None = None, space: str = "", most: int = 10_000) -> int:
        """Append those that wait to a stream again, in their partitions, all or those of one reason.

        What is appended is read by all spaces. So those that one ``space`` alone refused are sent only where it
        is named: the others that have learned them do so once more, unless events have ids.

        They are marked as such after each ``most`` of a partition: if this is killed between an append and its
        mark, the next one sends those once more, which ids of events tell.

        Returns how many were sent.

        Raises:
            SourceError: the stream has fewer partitions than they came from. Nothing was sent.
            OutputError: the stream does not take them.
        """
        with locked(self._folder):
            waiting: dict[int, list[DeadLetter]] = {}
            for letter in self.letters():
                if letter.space == space and reason in (None, letter.reason):
                    waiting.setdefault(letter.partition, []).append(letter)
            if waiting and max(waiting) >= stream.partitions:
                raise SourceError(
                    f"a refused record is of partition {max(waiting)}, and the stream has {stream.partitions}",
                    hint="send them to a stream of as many partitions as they came from",
                )
            for partition, letters in waiting.items():
                for first in range(0, len(letters), most):
                    part = letters[first : first + most]
                    stream.append(partition, [letter.value for letter in part])
                    self._append(self._folder / _REPLAYED, [json.dumps(letter.place) for letter in part])
        return sum(map(len, waiting.values()))

    def _files(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _current(self) -> Path:
        """The file to append to: the last one, or the next where that is full."""
        files = self._files()
        if files and (self._folder / files[-1]).stat().st_size < self._rotate:
            return self._folder / files[-1]
        return self._folder / f"{int(files[-1][:8]) + 1 if files else 1:08d}.jsonl"

    def _append(self, path: Path, lines: list[str]) -> None:
        """Add lines; half a line that a kill has left behind is closed first, and stays as nobody's."""
        if not lines:
            return
        try:
            is_new = not path.exists()
            with path.open("ab") as file:
                text = "".join(f"{line}\n" for line in lines).encode()
                file.write(text if is_new or _ends_line(path) else b"\n" + text)
            sync(path)
            if is_new:
                sync(self._folder)
        except OSError as error:
            raise OutputError(
                f"{path} does not take the refused records: {error.strerror}", hint="make room on its disk"
            ) from error

    def _refresh(self) -> None:
        """Take in what others have added."""
        for name in self._files():
            with (self._folder / name).open("rb") as file:
                file.seek(self._read.get(name, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[name] = self._read.get(name, 0) + len(whole)
            for line in whole.splitlines():
                letter = _letter(line)
                if letter is not None and (key := _key(letter.place)) not in self._places:
                    self._places.add(key)
                    self._counts[letter.reason] += 1

    def _replayed(self) -> set[int]:
        path = self._folder / _REPLAYED
        lines = path.read_bytes().splitlines() if path.exists() else []
        places = (_parsed(line) for line in lines)
        return {_key(place) for place in places if isinstance(place, list)}


def _key(place: Sequence[Any]) -> int:
    """A place in 8 bytes: of a hundred million, two are taken for one with a chance of 1 in 3,000."""
    return int.from_bytes(hashlib.blake2b(json.dumps(place).encode(), digest_size=8).digest())


def _line(letter: DeadLetter) -> str:
    head: dict[str, Any] = {
        "time": letter.time,
        "stream": letter.stream,
        "partition": letter.partition,
        "position": letter.position,
        "reason": letter.reason,
        "space": letter.space,
    }
    try:
        return json.dumps(head | {"value": letter.value.decode()})
    except UnicodeDecodeError:
        return json.dumps(head | {"base64": base64.b64encode(letter.value).decode()})


def _letter(line: bytes) -> DeadLetter | None:
    """What a line says; nothing where a kill has cut it."""
    told = _parsed(line)
    if not isinstance(told, dict):
        return None
    value = base64.b64decode(told["base64"]) if "base64" in told else told["value"].encode()
    head = {name: told[name] for name in ("stream", "partition", "position", "reason", "time", "space")}
    return DeadLetter(value=value, **head)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read() == b"\n"
