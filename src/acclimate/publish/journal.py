"""What happened to spaces, entry by entry: numbered, sealed, chained, and never changed.

Each entry holds the whole state after it, so that the newest one is all that has to be read. A change is made by
creating the next number, which only one can do: who was slower reads again and decides anew.
"""

import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from acclimate.errors import FormatError, OutputError
from acclimate.publish.shelves import Shelf

_State: TypeAlias = Mapping[str, Any]
FOLDER = "journal"
_FORMAT = 1
_NAME = re.compile(r"(\d{8,})\.json")
_ATTEMPTS = 200
"""How often others may be faster: whoever loses, another one has won, so that a hundred at once still all pass."""


@dataclass(frozen=True)
class Entry:
    """One change: its ``number`` from 1, its ``time`` (us UTC), who, what, of which space, why, what is then."""

    number: int
    time: int
    who: str
    action: str
    space: str
    reason: str
    state: Mapping[str, Any]
    before: str
    seal: str


class Journal:
    """The entries below a shelf."""

    def __init__(self, shelf: Shelf, who: str | None = None) -> None:
        self._shelf, self._who = shelf, who or _this_user()

    def head(self) -> Entry | None:
        """The newest entry; none before the first one.

        Raises:
            FormatError: it is damaged.
        """
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def entries(self) -> Iterator[Entry]:
        """All entries from the first one on, each proved to be what followed the one before.

        Raises:
            FormatError: one is absent, damaged, or of another chain.
        """
        before = ""
        for place, number in enumerate(self._numbers(), start=1):
            if number != place:
                raise self._damaged(place, "it is absent")
            entry = self._read(number)
            if entry.before != before:
                raise self._damaged(number, "it does not follow the entry before it")
            before = entry.seal
            yield entry

    def change(
        self, action: str, reason: str, decided: Callable[[_State], tuple[str, _State] | None]
    ) -> Entry | None:
        """Append an entry, unless nothing is to be changed.

        Args:
            action: in a word.
            reason: why, for people.
            decided: from the state that is, the space that is meant and the state that is to be; ``None`` to leave
                it so. It is asked again where another has changed the state meanwhile.

        Raises:
            OutputError: others were faster each time, or it cannot be written.
        """
        for _ in range(_ATTEMPTS):
            head = self.head()
            new = decided(head.state if head else {})
            if new is None:
                return None
            space, state = new
            content = {
                "format": _FORMAT,
                "number": head.number + 1 if head else 1,
                "before": head.seal if head else "",
                "time": time.time_ns() // 1_000,
                "who": self._who,
                "action": action,
                "space": space,
                "reason": reason,
                "state": state,
                "nonce": secrets.token_hex(8),  # so that no two writers write the same
            }
            content = json.loads(json.dumps(content))
            data = json.dumps({"seal": _seal_of(content), **content}, indent=1).encode()
            try:
                self._shelf.create(_name(content["number"]), data)
            except FileExistsError:
                continue
            return _entry(content, _seal_of(content))
        raise OutputError(
            f"{self._shelf.url}: others changed the spaces {_ATTEMPTS} times meanwhile", hint="try it again"
        )

    def tidy(self) -> None:
        """Remove what killed writers left."""
        self._shelf.tidy(FOLDER)

    def _numbers(self) -> list[int]:
        found = (_NAME.fullmatch(name) for name in self._shelf.names(FOLDER))
        return sorted(int(match[1]) for match in found if match)

    def _read(self, number: int) -> Entry:
        try:
            content = json.loads(self._shelf.read(_name(number)))
            seal = content.pop("seal")
            if content.get("format") != _FORMAT:
                raise FormatError(
                    f"{self._shelf.url}/{_name(number)} has format {str(content.get('format'))[:20]}; this "
                    f"version of acclimate reads format {_FORMAT}",
                    hint="use the version that wrote it",
                )
            if seal != _seal_of(content) or content["number"] != number:
                raise self._damaged(number, "it is not what was written")
            return _entry(content, seal)
        except FileNotFoundError as error:
            raise self._damaged(number, "it is absent") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(number, str(error).splitlines()[0]) from error

    def _damaged(self, number: int, what: str) -> FormatError:
        return FormatError(
            f"{self._shelf.url}/{_name(number)} is damaged: {what}", hint="restore this file from a copy"
        )


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _entry(content: Mapping[str, Any], seal: str) -> Entry:
    names = ("number", "time", "who", "action", "space", "reason", "state", "before")
    return Entry(**{name: content[name] for name in names}, seal=seal)


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _this_user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container in which nobody has a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
