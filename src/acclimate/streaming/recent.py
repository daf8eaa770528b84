"""The ids of events that came lately: one that comes again within the window is not learned again."""

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, IdArray, IntArray
from acclimate.models.hashing import hashed
from acclimate.storage import keys_of

RECENT = "recent"
"""The table of a unit that holds them: a block for each commit."""


def hashes_of(ids: IdArray) -> IntArray:
    """64 bits of each id ``(n,)``: two different ids of a million have the same with probability 3e-8."""
    keys = keys_of(ids)
    return hashed(keys.view(np.uint64)).view(np.int64) if ids.dtype == np.int64 else keys


class RecentIds:
    """The hashes of the ids of the events of the last ``window`` microseconds, by when they arrived.

    They lie in blocks, one a commit: when the newest event of a block arrived, and the hashes.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._blocks = deque[tuple[int, list[int]]]()
        self._known = set[int]()
        self._first = 0
        """The number of the first block; those before it have gone."""

    def __len__(self) -> int:
        return len(self._known)

    def fresh(self, hashes: IntArray) -> BoolArray:
        """Which events ``(n,)``, in the order in which they came, have ids that did not come before."""
        new, seen = np.ones(len(hashes), np.bool_), set[int]()
        for place, one in enumerate(hashes.tolist()):
            if one in self._known or one in seen:
                new[place] = False
            seen.add(one)
        return new

    def writes(self, arrived: int, hashes: IntArray) -> list[tuple[bytes, bytes | None]]:
        """What :meth:`add` changes, as it is to be stored."""
        gone: list[tuple[bytes, bytes | None]] = [(_key(number), None) for number in self._outdated(arrived)]
        if not len(hashes):
            return gone
        block = np.concatenate([[arrived], hashes]).astype("<i8").tobytes()
        return [*gone, (_key(self._first + len(self._blocks)), block)]

    def add(self, arrived: int, hashes: IntArray) -> None:
        """Add the ids of events, of which the newest arrived at that time; forget those that are too old."""
        for _ in self._outdated(arrived):
            self._known.difference_update(self._blocks.popleft()[1])
            self._first += 1
        if len(hashes):
            self._blocks.append((arrived, hashes.tolist()))
            self._known.update(self._blocks[-1][1])

    def load(self, stored: Iterable[tuple[bytes, bytes]]) -> None:
        """Go on with what was stored."""
        blocks = sorted((int.from_bytes(key), value) for key, value in stored)
        self._first = blocks[0][0] if blocks else 0
        for _, value in blocks:
            block: NDArray[np.int64] = np.frombuffer(value, "<i8")
            self._blocks.append((int(block[0]), block[1:].tolist()))
            self._known.update(self._blocks[-1][1])

    def _outdated(self, arrived: int) -> range:
        """The numbers of the blocks that are too old by then."""
        count = 0
        for newest, _ in self._blocks:
            if newest >= arrived - self.window:
                break
            count += 1
        return range(self._first, self._first + count)


def _key(number: int) -> bytes:
    return number.to_bytes(8)
