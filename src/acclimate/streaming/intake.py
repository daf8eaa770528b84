"""From the records of a partition to the events that one unit learns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from acclimate.arrays import BoolArray, IdArray, IntArray
from acclimate.artifacts import Records
from acclimate.streaming.progress import Progress
from acclimate.streaming.recent import RecentIds, hashes_of

_AHEAD = 86_400_000_000
"""Microseconds by which the clock of who made an event may be ahead of that of the stream."""


@dataclass(frozen=True)
class Decoded:
    """Records of one partition as events, the same for all units that read them.

    ``rows``: the events in the order of time, ``index`` ``(n,)`` the record that each was and ``time`` ``(n,)``
    when it happened, microseconds UTC; ``ids`` ``(n,)`` of events, where the stream names a column of them.
    ``refused``: records that are no events, and why. All come after the position ``after``.
    """

    records: Records
    after: str | None
    rows: pa.Table
    index: IntArray
    time: IntArray
    ids: IdArray | None
    refused: Sequence[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def position(self) -> str:
        """Where the last record is."""
        return self.records.positions[-1]

    def halves(self) -> tuple["Decoded", "Decoded"]:
        """The records of the first half, and those of the second."""
        middle = len(self) // 2
        return self._part(0, middle, self.after), self._part(middle, len(self), self.records.positions[middle - 1])

    def _part(self, first: int, last: int, after: str | None) -> "Decoded":
        here = np.flatnonzero((self.index >= first) & (self.index < last))
        records = Records(
            self.records.values[first:last], self.records.positions[first:last], self.records.arrived[first:last]
        )
        return Decoded(
            records,
            after,
            self.rows.take(here),
            self.index[here] - first,
            self.time[here],
            None if self.ids is None else self.ids[here],
            [(number - first, why) for number, why in self.refused if first <= number < last],
        )


@dataclass(frozen=True)
class Chosen:
    """What one unit learns of some records.

    ``rows`` ``(n,)`` of these; ``late`` are the records that came too late, and ``early`` those from the future;
    ``hashes`` ``(m,)`` are of the ids that are to be remembered; ``progress`` is what the unit's is then.
    """

    rows: IntArray
    late: IntArray
    early: IntArray
    hashes: IntArray
    progress: Progress

    @staticmethod
    def none(progress: Progress) -> "Chosen":
        """Nothing is learned."""
        nothing = np.zeros(0, np.int64)
        return Chosen(nothing, nothing, nothing, nothing, progress)

    def refused(self, before: Progress) -> "Chosen":
        """The same where the learner has undone what it learned of these rows: they leave no trace."""
        count = len(self.rows)
        progress = replace(self.progress.counted(learned=-count, refused=count), newest=before.newest)
        return replace(self, rows=self.rows[:0], hashes=self.hashes[:0], progress=progress)


def chosen(decoded: Decoded, progress: Progress, recent: RecentIds, lateness: int) -> Chosen:
    """The events that a unit learns: new ones, in time, and each once.

    An event that happened up to the cut of the fit is one that the fit has learned. One that happened more than
    ``lateness`` microseconds before the newest event of earlier batches is late. One that happened more than a day
    after it was appended has a wrong clock, and would make all others late. Of events with one id the first that
    arrived counts.
    """
    known = decoded.time <= progress.cut
    late = ~known & (decoded.time < progress.newest - lateness)
    early = decoded.time > decoded.records.arrived[decoded.index] + _AHEAD
    candidates = ~(known | late | early)
    fresh, hashes = _fresh(decoded, candidates, recent)
    rows = np.flatnonzero(candidates & fresh)
    counted = progress.counted(
        newest=int(decoded.time[rows].max(initial=progress.newest)),
        learned=len(rows),
        refused=len(decoded.refused) + int(early.sum()),
        late=int(late.sum()),
        duplicates=int((candidates & ~fresh).sum()),
        known=int(known.sum()),
    )
    return Chosen(rows, decoded.index[late], decoded.index[early], hashes, counted)


def _fresh(decoded: Decoded, candidates: BoolArray, recent: RecentIds) -> tuple[BoolArray, IntArray]:
    """Which of the candidates ``(n,)`` have ids that did not come before, and the hashes of these."""
    fresh = np.ones(len(candidates), np.bool_)
    if decoded.ids is None:
        return fresh, np.zeros(0, np.int64)
    places = np.flatnonzero(candidates)
    places = places[np.argsort(decoded.index[places], kind="stable")]
    hashes = hashes_of(decoded.ids[places])
    new = recent.fresh(hashes)
    fresh[places] = new
    return fresh, hashes[new]
