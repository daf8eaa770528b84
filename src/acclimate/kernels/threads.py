"""Pieces of work on all cores: threads that leave the interpreter while they are in a compiled loop.

As many as numba has (``NUMBA_NUM_THREADS``, :func:`numba.set_num_threads`). A piece is the same work whoever does
it, so that results do not depend on how many there are.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_LEAST = 20_000
"""Units of a piece of work at least: rows and coefficients, of some 20 ns each. A thread starts in .1 ms."""

_PIECES = 4
"""For each thread, so that none is idle while another finishes."""


def threads() -> int:
    """How many there are."""
    return int(numba.get_num_threads())


def side_by_side(work: Callable[[int, int], None], cost: NDArray[np.integer[Any]], *, least: int = _LEAST) -> None:
    """Call ``work(first, last)`` on consecutive ranges of items of about equal cost, ``(n + 1,)``, summed up.

    ``least``: what a range costs at least.
    """
    n, total = len(cost) - 1, int(cost[-1] - cost[0])
    pieces = min(_PIECES * threads(), total // least)
    if threads() == 1 or pieces < 2:
        work(0, n)
        return
    bounds = np.searchsorted(cost, cost[0] + total * np.arange(pieces + 1) // pieces)
    bounds[-1] = n
    bounds = np.unique(bounds)
    with ThreadPoolExecutor(threads()) as pool:
        for done in [pool.submit(work, int(first), int(last)) for first, last in pairwise(bounds)]:
            done.result()
