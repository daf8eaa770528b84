"""One space of one partition, as a worker refreshes it: its learner, and what is committed with its states."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acclimate.artifacts import Events, Lease, Space
from acclimate.errors import ConfigError
from acclimate.learners.carried import Carried
from acclimate.publish.stores.units import Unit
from acclimate.streaming.intake import Chosen, Decoded
from acclimate.streaming.progress import PROGRESS, Progress
from acclimate.streaming.recent import RECENT, RecentIds

_KEY, _TYPES = PROGRESS.encode(), b"types"


class Refreshed:
    """A unit of a store that learns from a stream.

    Args:
        unit: where its states are.
        lease: the right to write them.
        carried: its learner, which rests on the unit.
        stream: where its records come from.
        window: microseconds for which ids of events are remembered.
        options: of the learner's updates.

    ``position``, ``progress``, the ``recent`` ids and the ``types`` of columns are those of the last commit.

    Raises:
        ConfigError: the unit has learned from another stream.
    """

    def __init__(
        self,
        unit: Unit,
        lease: Lease,
        carried: Carried,
        *,
        stream: str,
        window: int,
        options: Mapping[str, Any],
    ) -> None:
        self.unit, self.lease, self.carried, self.options = unit, lease, carried, options
        self.position = unit.position
        told, self.types = unit.store.read(unit.name, PROGRESS, [_KEY, _TYPES])
        self.progress = Progress.begun(stream, unit.space.cut) if told is None else Progress.read_from(told)
        if self.progress.stream != stream:
            raise ConfigError(
                f"'{unit.name}' has learned from {self.progress.stream}, and is to go on from {stream}",
                hint="name the stream that it has learned from, or publish a model that knows its events",
            )
        self.recent = RecentIds(window)
        self.recent.load(unit.store.scan(unit.name, RECENT))

    @property
    def space(self) -> Space:
        """Of its states."""
        return self.unit.space

    def learn(self, events: Events) -> str:
        """Learn new events, in memory; returns why it was undone, empty where it was not."""
        return self.carried.learn(events, **self.options)

    def commit(self, picked: Chosen, decoded: Decoded, types: bytes) -> None:
        """Write what was learned, how far into the stream it goes, and what ``types`` columns have by then.

        Raises:
            FencedError: another worker writes this unit now; nothing was written.
            OutputError: the store is full or cannot be reached.
        """
        arrived = int(np.median(decoded.records.arrived))  # one wrong clock says nothing of the others
        settled: list[tuple[bytes, bytes | None]] = [] if types == self.types else [(_TYPES, types)]
        more = {
            PROGRESS: [(_KEY, picked.progress.written()), *settled],
            RECENT: self.recent.writes(arrived, picked.hashes),
        }
        self.unit.commit(self.lease, self.carried, position=decoded.position, after=self.position, more=more)
        self.recent.add(arrived, picked.hashes)
        self.progress, self.position, self.types = picked.progress, decoded.position, types

    def sizes(self) -> dict[str, int]:
        """How many values there are by table."""
        return self.unit.store.size(self.unit.name)
