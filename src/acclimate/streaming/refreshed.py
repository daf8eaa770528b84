"""One space of one partition, as a worker refreshes it: its learner, and what is committed with its states."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acclimate.artifacts import Events, Lease, Space
from acclimate.learners.carried import Carried
from acclimate.publish.stores.units import Unit
from acclimate.streaming.intake import Chosen, Decoded
from acclimate.streaming.progress import PROGRESS, Progress
from acclimate.streaming.recent import RECENT, RecentIds

_KEY = PROGRESS.encode()


class Refreshed:
    """A unit of a store that learns from a stream.

    Args:
        unit: where its states are.
        lease: the right to write them.
        carried: its learner, which rests on the unit.
        start: the position of the stream to read after, where nothing was committed yet.
        window: microseconds for which ids of events are remembered.
        options: of the learner's updates.
    """

    def __init__(
        self,
        unit: Unit,
        lease: Lease,
        carried: Carried,
        *,
        start: str | None,
        window: int,
        options: Mapping[str, Any],
    ) -> None:
        self.unit, self.lease, self.carried, self.options = unit, lease, carried, options
        self._committed = unit.position
        self.position = start if self._committed is None else self._committed
        (told,) = unit.store.read(unit.name, PROGRESS, [_KEY])
        self.progress = Progress.begun(unit.space.cut) if told is None else Progress.read_from(told)
        self.recent = RecentIds(window)
        self.recent.load(unit.store.scan(unit.name, RECENT))

    @property
    def space(self) -> Space:
        """Of its states."""
        return self.unit.space

    def learn(self, events: Events) -> str:
        """Learn new events, in memory; returns why it was undone, empty where it was not."""
        return self.carried.learn(events, **self.options)

    def commit(self, picked: Chosen, decoded: Decoded) -> None:
        """Write what was learned, and how far into the stream it goes.

        Raises:
            FencedError: another worker writes this unit now; nothing was written.
            OutputError: the store is full or cannot be reached.
        """
        arrived = int(decoded.records.arrived[-1])
        more = {
            PROGRESS: [(_KEY, picked.progress.written())],
            RECENT: self.recent.writes(arrived, picked.hashes),
        }
        self.unit.commit(self.lease, self.carried, position=decoded.position, after=self._committed, more=more)
        self.recent.add(arrived, picked.hashes)
        self.progress, self.position, self._committed = picked.progress, decoded.position, decoded.position

    def skip(self, decoded: Decoded) -> None:
        """Leave out the only record of a batch, which cannot be learned; raises as :meth:`commit`."""
        none = np.zeros(0, np.int64)
        self.commit(Chosen(none, none, none, self.progress.counted(refused=1)), decoded)

    def renew(self, seconds: float) -> None:
        """Keep the right to write.

        Raises:
            FencedError: another worker has it.
        """
        self.unit.store.renew(self.lease, seconds)

    def sizes(self) -> dict[str, int]:
        """How many values there are by table."""
        return self.unit.store.size(self.unit.name)
