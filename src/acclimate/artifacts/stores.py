"""Where values by key outlive the process: units that change in transactions, each with one writer at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

Writes: TypeAlias = Mapping[str, Iterable[tuple[bytes, bytes | None]]]
"""By table: keys and values, ``None`` where a key is to go."""

VECTORS = "vectors/"
"""How the names of rows begin that are vectors for others, by kind of entity."""


@dataclass(frozen=True)
class Lease:
    """The right to write a unit: of ``owner``, until another one takes it.

    ``token`` grows with each lease of a unit, so that a writer who was replaced is known by his.
    """

    unit: str
    owner: str
    token: int


@dataclass(frozen=True)
class Held:
    """Who has the right to write a unit, and whether his time is up."""

    lease: Lease
    is_expired: bool


@dataclass(frozen=True)
class Commit:
    """What one transaction writes, all of it or nothing.

    ``after`` is the position that the unit has before it and ``position`` the one it has then: a commit that was
    made already, or that others overtook, is refused.
    """

    writes: Writes
    position: str | None
    after: str | None
    lives: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds after which what is written into a table goes by itself, by table; none: it stays."""


class Store(Protocol):
    """Values by unit, table and key, all bytes.

    A unit is what changes together, such as the states of one space and partition: its values and the position of
    the stream that they go up to are of one moment, whenever they are read and whatever process was killed.
    """

    def read(self, unit: str, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in this order."""
        ...

    def scan(self, unit: str, table: str) -> Iterator[tuple[bytes, bytes]]:
        """All keys of a table and their values, in any order."""
        ...

    def position(self, unit: str) -> str | None:
        """The position of the last commit; ``None`` before the first one."""
        ...

    def acquire(self, unit: str, owner: str, seconds: float, *, take_over: bool = False) -> Lease | None:
        """The right to write a unit for some seconds; ``None`` while another has it, unless it is taken over."""
        ...

    def renew(self, lease: Lease, seconds: float) -> None:
        """Keep the right for so many seconds more.

        Raises:
            FencedError: another has it now.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Give the right back, if it is still ours."""
        ...

    def leases(self) -> list[Held]:
        """Who has the right to write which unit, expired ones included."""
        ...

    def commit(self, lease: Lease, commit: Commit) -> None:
        """Write it all in one transaction, to stay.

        Raises:
            FencedError: another has the right to write now, or the unit is no longer where it was; nothing was
                written.
            OutputError: the store is full or cannot be reached; either nothing was written or all.
        """
        ...

    def units(self) -> list[str]:
        """All units that hold something."""
        ...

    def drop(self, unit: str) -> None:
        """Remove a unit with all that it holds."""
        ...

    def size(self, unit: str) -> dict[str, int]:
        """How many values each table of a unit holds."""
        ...

    def backup(self, path: Path) -> None:
        """Write all units to a new folder as of one moment each, while writers go on."""
        ...

    def restore(self, path: Path) -> None:
        """Put back what :meth:`backup` wrote; units that are there are replaced, and their writers fenced."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...
