"""The loop of a stream: read, learn, and write states and position in one transaction.

What goes wrong outside (a store or a broker that is slow, full or gone) is tried again until it is mended, and
told in metrics and logs meanwhile; a unit that has to wait does not keep the others waiting. What was in memory is
dropped then, and the unit goes on from what is stored, so that it does not matter whether a transaction whose
answer was lost was written.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from acclimate.artifacts import Events, Lease, Records, Space, Stream, TableSource
from acclimate.config import Schema
from acclimate.errors import AcclimateError, FencedError, ModelError, OutputError, RowError, SourceError
from acclimate.streaming.heartbeat import beating
from acclimate.streaming.intake import Chosen, Decoded, chosen
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.ownership import Ownership
from acclimate.streaming.pauses import Pauses
from acclimate.streaming.progress import Progress
from acclimate.streaming.refreshed import Refreshed
from acclimate.streaming.stopping import Stop

_Key = tuple[int, str]
_OUTSIDE = (OutputError, SourceError)
"""What may go well the next time, whatever the events are."""

_OUTCOMES = ("learned", "refused", "late", "duplicates", "known")


class Refuses(Protocol):
    """Where records go that are not learned, to be looked at and mended; each once, however often it is put."""

    def put(
        self, partition: int, decoded: Decoded, refused: Sequence[tuple[int, str]], space: Space | None = None
    ) -> None:
        """Keep these records, by their numbers among the decoded ones, with the reasons.

        ``space``: which has not learned them; none has without.
        """
        ...


class Decodes(Protocol):
    """Makes events of records."""

    def __call__(self, records: Records, after: str | None, partition: int) -> Decoded:
        """The events of records that come after a position."""
        ...

    def types(self, partition: int) -> bytes:
        """The types that the columns of a partition have by now."""
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
        decode: Decodes,
        spaces: Callable[[], Sequence[Space]],
        opened: Callable[[Space, int], Refreshed],
        refuses: Refuses,
        rules: Rules,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self.stream, self.ownership, self.schema, self.rules = stream, ownership, schema, rules
        self.metrics, self.log, self.refuses = metrics, log, refuses
        self.stop = Stop()
        self._decode, self._spaces, self._opened = decode, spaces, opened
        self._pauses = Pauses(metrics, log)
        self._units = dict[_Key, Refreshed]()
        self._current: Sequence[Space] = ()
        self._settled = -np.inf

    def run(self, *, until_drained: bool = False) -> None:
        """Go on until :attr:`stop` is set, or until nothing is left to read; what is begun is finished."""
        self.log.info("started")
        try:
            with beating(self.ownership.store, self._leases, self.ownership.seconds):
                while not self.stop.is_set():
                    began = time.monotonic()
                    read = self.step()
                    if until_drained and not read and self._is_drained():
                        return
                    if read < self.rules.batch:
                        self.stop.wait(began + self.rules.wait - time.monotonic())
        finally:
            self._close()

    def step(self) -> int:
        """One round over the partitions; returns how many records were read."""
        if time.monotonic() >= self._settled + self.rules.look and self._pauses.is_due("settle"):
            self._settle()
        read = 0
        for partition in list(self.ownership.held):
            for after, spaces in self._positions(partition).items():
                if not self.stop.is_set():
                    read += self._advance(partition, after, spaces)
        return read

    def _settle(self) -> None:
        """See which partitions are ours, and which spaces are to be refreshed."""
        try:
            self.ownership.settle(self.stream.assigned())
            self._current = self._spaces()
            for key, unit in list(self._units.items()):
                if not self._is_wanted(key):
                    self._forget(key)
                    continue
                for table, count in unit.sizes().items():
                    self.metrics.values.labels(key[1], key[0], table).set(count)
        except _OUTSIDE as error:
            self._pauses.failed("settle", "store", error)
            return
        self.metrics.partitions.set(len(self.ownership.held))
        self._pauses.only({"settle", *((number, str(s)) for number in self.ownership.held for s in self._current)})
        self._pauses.succeeded("settle")
        self._settled = time.monotonic()

    def _positions(self, partition: int) -> dict[str | None, list[Space]]:
        """The spaces of a partition that can go on, by the position that they are at."""
        positions = dict[str | None, list[Space]]()
        for space in self._current:
            unit = self._unit((partition, str(space)), space)
            if unit is not None:
                positions.setdefault(unit.position, []).append(space)
        return positions

    def _advance(self, partition: int, after: str | None, spaces: Sequence[Space]) -> int:
        """Let spaces that are at one position learn what comes next; returns how many records were read."""
        keys = [(partition, str(space)) for space in spaces]
        try:
            records = self.stream.read(partition, after, self.rules.batch)
        except _OUTSIDE as error:
            for key in keys:
                self._pauses.failed(key, "stream", error)
            return 0
        if not records:
            for key in keys:
                self._pauses.succeeded(key)
                self.metrics.lag.labels(key[1], partition).set(0)
            return 0
        decoded = self._decode(records, after, partition)
        try:
            self.refuses.put(partition, decoded, decoded.refused)
        except OutputError as error:
            for key in keys:
                self._pauses.failed(key, "refused", error)
            return 0
        for key in keys:
            self._learn(key, decoded)
        self._told(partition, keys, decoded)
        return len(records)

    def _learn(self, key: _Key, decoded: Decoded) -> None:
        """Let a unit learn some records, and write it, if it is where they begin."""
        unit = self._units.get(key)
        if unit is None or unit.position != decoded.after or self.stop.is_set():
            return
        try:
            self._learned(key[0], unit, decoded)
        except FencedError as error:
            self._fenced(key, error)
        except _OUTSIDE as error:
            self._units.pop(key)  # what is in memory may be half learned, and may be written or not
            self._pauses.failed(key, "store", error)
        except ModelError as error:
            if type(error) is not ModelError:
                raise  # it is not for the events
            self._isolated(key, unit.space, decoded, error)
        except RowError as error:
            self._isolated(key, unit.space, decoded, error)
        else:
            self._pauses.succeeded(key)

    def _learned(self, partition: int, unit: Refreshed, decoded: Decoded) -> None:
        began, picked = time.perf_counter(), chosen(decoded, unit.progress, unit.recent, self.rules.lateness)
        refused = [(number, "happened later than the stream allows") for number in picked.late.tolist()]
        refused += [(number, "happened after it arrived") for number in picked.early.tolist()]
        if len(picked.rows):
            rows = decoded.rows if len(picked.rows) == decoded.rows.num_rows else decoded.rows.take(picked.rows)
            undone = unit.learn(Events(self.schema, TableSource(self.schema, rows)))
            if undone:
                self.log.warning("an update was undone", space=str(unit.space), reason=undone)
                refused += [(number, undone) for number in decoded.index[picked.rows].tolist()]
                picked = picked.refused(unit.progress)
        learned = time.perf_counter()
        self.refuses.put(partition, decoded, refused, unit.space)
        self._committed(partition, unit, decoded, picked)
        labels = (str(unit.space), partition)
        self.metrics.update.labels(*labels).observe(learned - began)
        self.metrics.commit.labels(*labels).observe(time.perf_counter() - learned)
        now = time.time()
        arrived = decoded.records.arrived[decoded.index[picked.rows]]
        for since, times in (("arrival", arrived), ("event", decoded.time[picked.rows])):
            self.metrics.freshness.observe(str(unit.space), since, now - times / 1e6)

    def _committed(self, partition: int, unit: Refreshed, decoded: Decoded, picked: Chosen) -> None:
        before: Progress = unit.progress
        unit.commit(picked, decoded, self._decode.types(partition))
        labels = (str(unit.space), partition)
        self.metrics.batch.labels(*labels).observe(len(decoded))
        self.metrics.commits.labels(*labels).inc()
        for outcome in _OUTCOMES:
            more = getattr(unit.progress, outcome) - getattr(before, outcome)
            self.metrics.events.labels(*labels, outcome).inc(more)
        self.metrics.watermark.labels(*labels).set(unit.progress.newest / 1e6)

    def _isolated(self, key: _Key, space: Space, decoded: Decoded, error: AcclimateError) -> None:
        """Learn all of some records but for the one that the learner cannot take, which is refused."""
        self._units.pop(key)  # what is in memory may be half learned
        if len(decoded) > 1:
            for half in decoded.halves():
                if self._unit(key, space) is not None:
                    self._learn(key, half)
            return
        unit = self._unit(key, space)
        if unit is None or unit.position != decoded.after:
            return
        self.log.warning("an event that cannot be learned", space=str(space), reason=str(error))
        try:
            self.refuses.put(key[0], decoded, [(0, str(error))], space)
            self._committed(key[0], unit, decoded, Chosen.none(unit.progress.counted(refused=1)))
        except FencedError as fenced:
            self._fenced(key, fenced)
        except _OUTSIDE as outside:
            self._units.pop(key)
            self._pauses.failed(key, "store", outside)

    def _unit(self, key: _Key, space: Space) -> Refreshed | None:
        """A unit, opened if it is not; none where it has to wait, or its partition is not ours any more."""
        if not self._pauses.is_due(key) or key[0] not in self.ownership.held:
            return None
        if key not in self._units:
            try:
                if not self.ownership.is_ours(key[0]):
                    return None
                self._units[key] = self._opened(space, key[0])
            except FencedError as error:
                self._fenced(key, error)
            except _OUTSIDE as error:
                self._pauses.failed(key, "store", error)
        return self._units.get(key)

    def _fenced(self, key: _Key, error: FencedError) -> None:
        """Another has taken a unit over, or dropped it: see whose its partition is, and who is refreshed."""
        self.metrics.fenced.labels(key[1], key[0]).inc()
        self.log.warning("not ours any more", space=key[1], partition=key[0], reason=error.message)
        self._units.pop(key, None)
        self._settled = -np.inf

    def _forget(self, key: _Key) -> None:
        """A unit that is not ours to refresh any more: another one tells how far it is now."""
        self._units.pop(key)
        for gauge in (self.metrics.lag, self.metrics.watermark):
            gauge.labels(key[1], key[0])  # that it is there
            gauge.remove(key[1], key[0])

    def _is_wanted(self, key: _Key) -> bool:
        return key[0] in self.ownership.held and any(str(space) == key[1] for space in self._current)

    def _told(self, partition: int, keys: Sequence[_Key], decoded: Decoded) -> None:
        """Tell who watches how far a partition is; that this fails is no harm."""
        units = [(key, unit) for key in keys if (unit := self._units.get(key)) is not None]
        try:
            for key, unit in units:
                self.metrics.lag.labels(key[1], partition).set(self.stream.lag(partition, unit.position))
            if len(units) == len(self._current) and all(unit.position == decoded.position for _, unit in units):
                self.stream.noted(partition, decoded.position)
        except _OUTSIDE as error:
            self.log.warning("not told", partition=partition, reason=str(error))

    def _is_drained(self) -> bool:
        """Whether nothing is left to read, in partitions of others too."""
        store, spaces = self.ownership.store, [str(space) for space in self._current]
        try:
            positions = {
                (partition, space): unit.position
                if (unit := self._units.get((partition, space)))
                else store.position(f"{space}/{partition}")
                for partition in range(self.stream.partitions)
                for space in spaces
            }
            return not self._pauses and all(
                self.stream.lag(partition, position) == 0 for (partition, _), position in positions.items()
            )
        except _OUTSIDE:
            return False

    def _leases(self) -> list[Lease]:
        return [*self.ownership.leases(), *(unit.lease for unit in list(self._units.values()))]

    def _close(self) -> None:
        try:
            self.ownership.close()
        except OutputError as error:  # they end by themselves
            self.log.warning("leases were not given back", reason=str(error))
        self._settled = -np.inf
        self.log.info("stopped")
