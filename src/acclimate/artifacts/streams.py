"""Logs of events that never end: partitions of records, each with a position to go on from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from acclimate.arrays import IntArray


@dataclass(frozen=True)
class Records:
    """Some records of one partition, in its order.

    ``values``: what was appended, an event each, as JSON; ``positions``: where each is, as text that its stream
    understands; ``arrived``: when each was appended, microseconds UTC, ``(n,)``.
    """

    values: Sequence[bytes]
    positions: Sequence[str]
    arrived: IntArray

    def __len__(self) -> int:
        return len(self.values)


class Stream(Protocol):
    """A log of records in ``partitions``, numbered from 0; records of one entity are all in one of them.

    Who reads keeps the position of the last record that was used, and asks for those after it: nothing is lost or
    read twice, whatever the stream believes was read.
    """

    partitions: int

    def append(self, partition: int, values: Sequence[bytes]) -> None:
        """Add records at the end; they are there to stay when this returns."""
        ...

    def read(self, partition: int, after: str | None, most: int, wait: float = 0.0) -> Records:
        """The records after a position (``None``: from the first one), at most so many.

        Where there is none it waits for up to ``wait`` seconds, and gives those that came.

        Raises:
            SourceError: the stream cannot be reached, or no longer holds what comes after that position.
        """
        ...

    def seek(self, partition: int, time: int) -> str | None:
        """The position to read after for all that was appended at or after a time, microseconds UTC."""
        ...

    def lag(self, partition: int, after: str | None) -> int:
        """How many records there are after a position."""
        ...

    def assigned(self) -> frozenset[int] | None:
        """The partitions that the broker gives to this reader; ``None`` where it leaves that to the readers."""
        ...

    def noted(self, partition: int, position: str) -> None:
        """Tell the broker that records up to this position were used, for those who watch it."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...
