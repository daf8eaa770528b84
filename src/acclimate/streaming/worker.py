"""The loop of a stream: read, learn, and write states and position in one transaction.

What goes wrong outside (a store or a broker that is slow, full or gone) is tried again until it is mended, and
told in metrics and logs meanwhile: nothing is read that could not be kept. What was in memory is dropped then, and
the unit goes on from what is stored, so that it does not matter whether a transaction whose answer was lost was
written.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

import numpy as np

from acclimate.artifacts import Events, Records, Space, Stream, TableSource
from acclimate.config import Schema
from acclimate.errors import AcclimateError, DataError, FencedError, ModelError, OutputError, RowError, SourceError
from acclimate.streaming.intake import Chosen, Decoded, chosen
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.ownership import Ownership
from acclimate.streaming.refreshed import Refreshed

_LONGEST_PAUSE = 5.0
"""Seconds between two attempts at most."""


class Refuses(Protocol):
    """Where records go that are not learned, to be looked at and mended; each once, however often it is put."""

    def put(self, partition: int, decoded: Decoded, refused: Sequence[tuple[int, str]]) -> None:
        """Keep these records, by their numbers among the decoded ones, with the reasons."""
        ...


@dataclass(frozen=True)
class Rules:
    """How a stream is read: ``batch`` records at most at once; ``wait`` seconds at least between smaller batches.

    ``lateness`` in microseconds; ``look`` is how often, in seconds, partitions and spaces are settled.
    """

    batch: int
    wait: float
    lateness: int
    look: float


class Worker:
    """Refreshes the spaces of a project from the partitions of a stream that it has.

    Each space and partition is a unit, with a position of its own: those that are at one position learn the same
    batch; one that was published later catches up alone.
    """

    def __init__(
        self,
        stream: Stream,
        ownership: Ownership,
        *,
        schema: Schema,
        decode: Callable[[Any, str | None], Decoded],
        spaces: Callable[[], Sequence[Space]],
        opened: Callable[[Space, int], Refreshed],
        refuses: Refuses,
        rules: Rules,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self.stream, self.ownership, self.schema, self.rules = stream, ownership, schema, rules
        self.metrics, self.log, self.refuses = metrics, log, refuses
        self.stop = Event()
        self._decode, self._spaces, self._opened = decode, spaces, opened
        self._units = dict[tuple[int, str], Refreshed]()
        self._current: Sequence[Space] = ()
        self._settled = -np.inf

    def run(self, *, until_drained: bool = False) -> None:
        """Go on until :attr:`stop` is set, or until nothing is left to read; what is begun is finished."""
        self.log.info("started")
        try:
            while not self.stop.is_set():
                began = time.monotonic()
                read = self.step()
                if until_drained and not read and self._insist("stream", self._is_drained):
                    return
                if read < self.rules.batch:
                    self.stop.wait(max(0.0, began + self.rules.wait - time.monotonic()))
        finally:
            self.ownership.close()
            self.log.info("stopped")

    def step(self) -> int:
        """One round over the partitions; returns how many records were read."""
        if time.monotonic() >= self._settled + self.rules.look:
            self._insist("store", self._settle)
        return sum(self._advance(partition) for partition in list(self.ownership.held))

    def _is_drained(self) -> bool:
        """Whether nothing is left to read, in partitions of others too."""
        return all(
            self.stream.lag(partition, self.ownership.store.position(f"{space}/{partition}")) == 0
            for partition in range(self.stream.partitions)
            for space in self._current
        )

    def _settle(self) -> None:
        """See which partitions are ours, and which spaces are to be refreshed."""
        self.ownership.settle(self.stream.assigned())
        self._current = self._spaces()
        wanted = {(number, str(space)) for number in self.ownership.held for space in self._current}
        self._units = {key: unit for key, unit in self._units.items() if key in wanted}
        self.metrics.partitions.set(len(self.ownership.held))
        for (partition, space), unit in list(self._units.items()):
            try:
                unit.renew(self.ownership.seconds)
            except FencedError:
                del self._units[partition, space]  # it is opened anew, from what is stored
                continue
            for table, count in unit.sizes().items():
                self.metrics.values.labels(space, partition, table).set(count)
        self._settled = time.monotonic()

    def _advance(self, partition: int) -> int:
        """Let all spaces of a partition learn what comes next; returns how many records were read."""
        positions = dict[str | None, list[Space]]()
        for space in self._current:
            unit = self._insist("store", lambda space=space: self._unit(partition, space))
            if unit is not None:
                positions.setdefault(unit.position, []).append(space)
        read = 0
        for after, spaces in positions.items():
            records = self._insist(
                "stream", lambda after=after: self.stream.read(partition, after, self.rules.batch)
            )
            if not records:
                continue
            read += len(records)
            decoded = self._decode(records, after)
            self.refuses.put(partition, decoded, decoded.refused)
            for space in spaces:
                self._learn(partition, space, decoded)
            self._told(partition, spaces, decoded)
        return read

    def _read(self, partition: int, after: str | None) -> Records:
        return self.stream.read(partition, after, self.rules.batch)

    def _learn(self, partition: int, space: Space, decoded: Decoded) -> None:
        """Let a unit learn some records, and write it; once, whatever fails on the way."""

        def attempt() -> bool:
            unit = self._unit(partition, space)
            if unit is None or unit.position != decoded.after:
                return True  # another has it, or it was written and the answer was lost
            picked = chosen(decoded, unit.progress, unit.recent, self.rules.lateness)
            try:
                self._learned(partition, unit, decoded, picked)
            except FencedError:
                self.metrics.fenced.labels(str(space), partition).inc()
                self.log.warning("another took over", space=str(space), partition=partition)
                del self._units[partition, str(space)]
                self._settled = -np.inf  # see whose the partition is now
            except (OutputError, DataError, ModelError) as error:
                self._units.pop((partition, str(space)), None)  # what is in memory may be half learned
                if not (isinstance(error, RowError) or type(error) is ModelError):
                    raise  # it is not for the events
                return self._isolated(partition, space, decoded, error)
            return True

        self._insist("store", attempt)

    def _learned(self, partition: int, unit: Refreshed, decoded: Decoded, picked: Chosen) -> None:
        began = time.perf_counter()
        if len(picked.rows):
            rows = decoded.rows if len(picked.rows) == decoded.rows.num_rows else decoded.rows.take(picked.rows)
            undone = unit.learn(Events(self.schema, TableSource(self.schema, rows)))
            if undone:
                self.log.warning("an update was undone", space=str(unit.space), reason=undone)
                refused = [(number, undone) for number in decoded.index[picked.rows].tolist()]
                self.refuses.put(partition, decoded, refused)
                picked = picked.refused()
        learned = time.perf_counter()
        late = [(number, "is later than the stream allows") for number in picked.late.tolist()]
        self.refuses.put(partition, decoded, late)
        before = unit.progress
        unit.commit(picked, decoded)
        labels = (str(unit.space), partition)
        self.metrics.update.labels(*labels).observe(learned - began)
        self.metrics.commit.labels(*labels).observe(time.perf_counter() - learned)
        self.metrics.batch.labels(*labels).observe(len(decoded))
        self.metrics.commits.labels(*labels).inc()
        for outcome in ("learned", "refused", "late", "duplicates", "known"):
            more = getattr(unit.progress, outcome) - getattr(before, outcome)
            self.metrics.events.labels(*labels, outcome).inc(more)
        self.metrics.watermark.labels(*labels).set(unit.progress.newest / 1e6)
        now = time.time()
        arrived = decoded.records.arrived[decoded.index[picked.rows]]
        for since, times in (("arrival", arrived), ("event", decoded.time[picked.rows])):
            self.metrics.freshness.observe(str(unit.space), since, now - times / 1e6)

    def _isolated(self, partition: int, space: Space, decoded: Decoded, error: AcclimateError) -> bool:
        """Learn all of some records but for the one that the learner cannot take, which is refused."""
        if len(decoded) > 1:
            for half in decoded.halves():
                self._learn(partition, space, half)
            return True
        unit = self._unit(partition, space)
        if unit is not None and unit.position == decoded.after:
            self.log.warning("an event that cannot be learned", space=str(space), reason=str(error))
            self.refuses.put(partition, decoded, [(0, str(error))])
            unit.skip(decoded)
        return True

    def _unit(self, partition: int, space: Space) -> Refreshed | None:
        """A unit, opened if it is not; none where the partition is not ours any more."""
        if partition not in self.ownership.held:
            return None
        key = (partition, str(space))
        if key not in self._units:
            self._units[key] = self._opened(space, partition)
        return self._units[key]

    def _told(self, partition: int, spaces: Sequence[Space], decoded: Decoded) -> None:
        """Tell who watches how far a partition is."""
        self._insist("stream", lambda: self.stream.noted(partition, decoded.position))
        for space in spaces:
            left = self._insist("stream", lambda: self.stream.lag(partition, decoded.position))
            self.metrics.lag.labels(str(space), partition).set(left or 0)

    def _insist(self, where: str, action: Callable[[], Any]) -> Any:
        """Do something until it is done, however long the store or the stream cannot be reached.

        Returns what it gives; nothing where the worker is stopped before.
        """
        pause, stalled = 0.05, self.metrics.stalled.labels(where)
        while True:
            try:
                result = action()
            except (OutputError, SourceError) as error:
                stalled.set(1)
                self.metrics.failures.labels(where).inc()
                self.log.warning("tried again", where=where, seconds=pause, reason=str(error))
                if self.stop.wait(pause):
                    return None
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                stalled.set(0)
                return result
