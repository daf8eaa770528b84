"""What a store knows of a unit, and who may write it: the same rules wherever values are kept."""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

from acclimate.artifacts import Commit, Held, Lease
from acclimate.errors import ConfigError, FencedError

_UNTIL = struct.Struct("<d")

_REMEMBERED = 86_400.0
"""Seconds for which a unit that holds nothing is known after its last lease has ended."""

Items: TypeAlias = list[tuple[bytes, bytes | None]]
"""Keys and values of a table, each key once, ``None`` where one is to go."""


@dataclass(frozen=True)
class Table:
    """A table of a unit: its number there, how many values it has, and whether these have an end."""

    number: int
    count: int = 0
    is_mortal: bool = False


@dataclass(frozen=True)
class Record:
    """A unit, but for its values; ``until`` is when the right of the ``owner`` ends, seconds since 1970.

    ``last`` tells the last commit from all others: who lost the answer to his own finds it here.
    """

    number: int = 0
    position: str | None = None
    token: int = 0
    owner: str | None = None
    until: float = 0.0
    last: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])

    def __bool__(self) -> bool:
        """Whether the unit holds something."""
        return self.position is not None or any(table.count for table in self.tables.values())

    def written(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def read(text: bytes | None) -> "Record":
        """The reverse; of a unit that was never heard of nothing."""
        if text is None:
            return Record()
        told: dict[str, Any] = json.loads(text)
        tables = {name: Table(**table) for name, table in told.pop("tables").items()}
        return Record(**told, tables=tables)

    def held(self, unit: str, now: float) -> Held | None:
        """Who has the right to write."""
        return None if self.owner is None else Held(Lease(unit, self.owner, self.token), self.until <= now)

    def taken(self, owner: str, until: float, now: float, *, take_over: bool) -> "Record | None":
        """With the right in other hands; nothing while somebody has it."""
        if self.owner is not None and self.until > now and not take_over:
            return None
        # A unit that was forgotten begins with a token beyond all that it ever gave: nobody acquires once per
        # microsecond.
        token = self.token + 1 if self.token else int(now * 1e6)
        return replace(self, owner=owner, token=token, until=until)

    def check(self, lease: Lease) -> None:
        """Raises FencedError where the right is another's."""
        if (self.owner, self.token) == (lease.owner, lease.token):
            return
        by = f"by '{self.owner}'" if self.owner is not None and self.token > lease.token else "or given back"
        raise FencedError(
            f"'{lease.owner}' may not write '{lease.unit}' any more: it was taken {by}; nothing was written",
            hint="acquire it anew and go on from the position that the unit has then",
        )

    def after(self, lease: Lease, commit: Commit) -> "Record":
        """With the position of a commit, where it may be made.

        Raises:
            FencedError: it may not.
        """
        self.check(lease)
        if self.position != commit.after:
            raise FencedError(
                f"'{lease.unit}' is at position {self.position}, not at {commit.after}; nothing was written",
                hint="a commit that was made already is not made twice: go on from the position that it has now",
            )
        return replace(self, position=commit.position)

    def released(self, lease: Lease) -> "Record":
        """Without the right, if it is still this one."""
        return replace(self, owner=None) if (self.owner, self.token) == (lease.owner, lease.token) else self

    def emptied(self) -> "Record":
        """Of a unit that is gone, but for the count of its tokens: who wrote it is known as stale."""
        return Record(token=self.token + 1, until=self.until)

    def is_over(self, now: float) -> bool:
        """Whether the unit holds nothing, and its last lease, or what is known of that, ended long ago."""
        return self.position is None and not self.tables and self.until + _REMEMBERED <= now

    def replaced(self, by: "Record") -> "Record":
        """What another one says of position and tables, with the writers of both known as stale."""
        return replace(by, number=self.number, token=max(self.token, by.token) + 1, owner=None, last="")

    def with_tables(self, commit: Commit, names: Iterable[str]) -> "Record":
        """With all tables that are written.

        Raises:
            ConfigError: values are to end in a table whose values stay.
        """
        tables = dict(self.tables)
        for name in names:
            mortal = name in commit.lives
            table = tables.get(name)
            if table is None:
                tables[name] = Table(len(tables), 0, mortal)
            elif mortal and not table.is_mortal:
                raise ConfigError(
                    f"values of '{name}' are to end after {commit.lives[name]:g} seconds, and those there stay",
                    hint="leave forget_after out, or drop the unit: it begins anew from its snapshot",
                )
        return replace(self, tables=tables)

    def counted(self, name: str, count: int) -> "Record":
        """With so many values in a table."""
        tables = dict(self.tables)
        tables[name] = replace(tables[name], count=count)
        return replace(self, tables=tables)


def items_of(commit: Commit) -> dict[str, Items]:
    """What is to be written, by table: of a key that comes twice the last value."""
    return {name: list(dict(items).items()) for name, items in commit.writes.items()}


def ending(items: Items, until: float) -> Items:
    """Items whose values say when they end."""
    end = _UNTIL.pack(until)
    return [(key, None if value is None else end + value) for key, value in items]


def until_of(value: bytes) -> float:
    """When a value that says so ends."""
    return _UNTIL.unpack_from(value)[0]


def living(values: Sequence[bytes | None], now: float) -> list[bytes | None]:
    """Values that say when they end, without that; ``None`` where they have ended."""
    return [None if value is None or until_of(value) <= now else value[_UNTIL.size :] for value in values]
