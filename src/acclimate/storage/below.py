"""Rows by id that lie below those in memory: in segments on disk, or wherever else they are kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import IdArray, IntArray
from acclimate.storage.segments import Segment, keys_of, texts_of, visible

Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""Of rows, by name, ``(n, ...)`` each."""


class Below(Protocol):
    """Rows by id that do not change while they are read."""

    def read(self, ids: IdArray) -> Iterator[tuple[IntArray, Columns]]:
        """Of those of different ``ids`` that are there, some at a time: their places ``(m,)`` and columns.

        Raises:
            FormatError: a row is not what was written.
        """
        ...

    def ids(self) -> IdArray:
        """All ids that are there."""
        ...

    def pieces(self) -> Iterator[tuple[IdArray, Columns]]:
        """All rows, some of one layout at a time."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        ...


@dataclass(frozen=True)
class InSegments:
    """Rows in files, of which later ones hide those of the same ids in earlier ones."""

    segments: Sequence[Segment] = ()

    def read(self, ids: IdArray) -> Iterator[tuple[IntArray, Columns]]:
        """See :meth:`Below.read`."""
        if not self.segments:
            return
        asked = np.argsort(keys_of(ids))
        key, text = keys_of(ids[asked]), texts_of(ids[asked])
        for segment in reversed(self.segments):
            row = segment.find(key, text)
            there = np.flatnonzero(row >= 0)
            for first in range(0, len(there), segment.some):
                some = there[first : first + segment.some]
                yield asked[some], segment.at(row[some]).columns
            left = np.flatnonzero(row < 0)
            if not len(left):
                return
            asked, key, text = asked[left], key[left], None if text is None else text.take(left)

    def ids(self) -> IdArray:
        """See :meth:`Below.ids`."""
        shown = [segment.ids[rows] for segment, rows in zip(self.segments, visible(self.segments), strict=True)]
        return np.concatenate(shown) if shown else np.zeros(0, np.int64)

    def pieces(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`Below.pieces`."""
        for segment, rows in zip(self.segments, visible(self.segments), strict=True):
            for first in range(0, len(rows), segment.some):
                some = segment.at(rows[first : first + segment.some])
                yield some.ids, some.columns

    @property
    def nbytes(self) -> int:
        """See :attr:`Below.nbytes`."""
        return sum(len(segment) * segment.row_bytes for segment in self.segments)
