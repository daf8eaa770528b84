"""Works that are measured in turns, so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from acclimate.arrays import FloatArray

_LEAST = 0.03
"""Seconds of a measurement at least; what is shorter is done several times in it."""

_LONG = 2.0
"""Seconds beyond which compiling no longer matters."""


def in_turns(
    works: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, FloatArray]:
    """Seconds of each work in each round, ``(rounds,)``, after one that is not counted."""
    times = {name: _times(work, clock) for name, work in works.items()}
    seconds = {name: np.empty(rounds) for name in works}
    for r in range(rounds):
        for name, work in works.items():
            begun = clock()
            for _ in range(times[name]):
                work()
            seconds[name][r] = (clock() - begun) / times[name]
    return seconds


def _times(work: Callable[[], object], clock: Callable[[], float]) -> int:
    taken = np.inf
    for _ in range(2):  # the first time it compiles, and loads
        begun = clock()
        work()
        taken = min(taken, clock() - begun)
        if taken > _LONG:
            return 1
    return max(1, int(np.ceil(_LEAST / max(taken, 1e-9))))


def ratio(ours: FloatArray, theirs: FloatArray) -> tuple[float, float, float]:
    """How many times faster we are: the median over the rounds, and the quarters to both sides of it."""
    median, low, high = np.percentile(theirs / ours, [50, 25, 75])
    return float(median), float(low), float(high)
