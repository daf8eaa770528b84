"""Who adapts on which rows: an entity at a moment is a task, and its support are its newest rows before that."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, IntArray
from acclimate.learners.encoder.histories import ranges


@dataclass(frozen=True)
class Tasks:
    """``T`` tasks of a block: support rows ``(n,)``, the ``task`` of each, and the row of features ``(T,)``."""

    rows: IntArray
    task: IntArray
    features: IntArray

    def __len__(self) -> int:
        return len(self.features)

    def renumbered(self, numbers: IntArray) -> "Tasks":
        """The same by other numbers of the rows."""
        return Tasks(numbers[self.rows], self.task, numbers[self.features])

    @staticmethod
    def of_ends(order: IntArray, ends: IntArray, sizes: IntArray, otherwise: IntArray) -> "Tasks":
        """Support rows are ``order[end - size:end]`` of each task; without any, features are of ``otherwise``."""
        rows = order[ranges(ends - sizes, sizes)]
        features = np.where(sizes > 0, order[np.maximum(ends - 1, 0)] if len(order) else otherwise, otherwise)
        return Tasks(rows, np.repeat(np.arange(len(sizes)), sizes), features)


class Timeline:
    """Rows by entity and time: ``code`` ``(n,)`` says whose each is, ``time`` when it was.

    Rows that are not ``known`` ``(n,)`` have tasks, and are in nobody's support: ``order`` has the others.
    """

    def __init__(self, code: IntArray, time: IntArray, known: BoolArray | None = None) -> None:
        self.code = code
        order = np.lexsort((time, code))
        keep = np.ones(len(code), np.bool_) if known is None else known[order]
        self.order, count = order[keep], np.concatenate([[0], np.cumsum(keep)])
        self.starts = count[np.concatenate([[0], np.cumsum(np.bincount(code))])]
        # How many rows of the same entity, strictly older, come before each: rows of one instant see none of it.
        first = np.ones(len(code), np.bool_)
        sorted_code, sorted_time = code[order], time[order]
        first[1:] = (sorted_code[1:] != sorted_code[:-1]) | (sorted_time[1:] != sorted_time[:-1])
        instant = np.maximum.accumulate(np.where(first, np.arange(len(code)), 0))
        self.before = np.empty(len(code), np.int64)
        self.before[order] = count[instant] - self.starts[sorted_code]

    def at_once(self, rows: range, most: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """The tasks of consecutive rows of a log in the order of time, at the moment of the first of these.

        Their ends in ``order`` ``(T,)``, support sizes, first rows, and which each of the rows has.
        """
        codes, first, task = np.unique(self.code[rows.start : rows.stop], return_index=True, return_inverse=True)
        first += rows.start
        return self.starts[codes] + self.before[first], np.minimum(self.before[first], most), first, task

    def each(self, asked: IntArray, most: int) -> Tasks:
        """A task for each of some rows, at its own moment."""
        ends = self.starts[self.code[asked]] + self.before[asked]
        return Tasks.of_ends(self.order, ends, np.minimum(self.before[asked], most), asked)


def chunks(time: NDArray[np.int64], first: int, last: int, size: int) -> list[range]:
    """Consecutive rows ``first:last`` cut into about so many; those of one instant stay together."""
    cuts = (
        np.unique(np.searchsorted(time, time[np.arange(first, last, size)])) if last > first else np.zeros(0, int)
    )
    edges = [first, *(int(cut) for cut in cuts if cut > first), last]
    return [range(a, b) for a, b in pairwise(edges) if b > a]


def newest(code: IntArray, most: int) -> NDArray[np.bool_]:
    """Which rows, in the order of time, are among the last ones of their entity ``(n,)``, at most so many."""
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(np.bincount(code))
    mask = np.empty(len(code), np.bool_)
    mask[order] = np.arange(len(code)) >= ends[code[order]] - most
    return mask


def thinned(sizes: IntArray, share: float, chance: NDArray[np.float64]) -> IntArray:
    """Smaller supports for a share of the tasks: as many rows that the logarithm of one more is uniform.

    ``chance`` ``(2, T)`` are uniform numbers.
    """
    drawn = np.floor((sizes + 1.0) ** chance[1]).astype(np.int64) - 1
    return np.where(chance[0] < share, np.minimum(drawn, sizes), sizes)
