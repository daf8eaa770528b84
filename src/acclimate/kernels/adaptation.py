"""What support rows say of an embedding below a ranker of one dense layer: one pass over them, in cache."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import IntArray

_SUMS_MAY_BE_REORDERED = {"reassoc", "contract", "nsz"}

Floats = NDArray[np.float32]


class Rows(NamedTuple):
    """Support rows: those of entity ``t`` are ``starts[t]:starts[t + 1]``.

    ``first`` ``(n, h)`` is what the ranker's layer makes of a row without the embedding, ``base`` ``(n,)`` what is
    added to its logit. ``share`` ``(n,)`` is what a row counts in the loss of its entity.
    """

    starts: IntArray
    first: Floats
    base: Floats
    label: Floats
    share: Floats


@njit(cache=True, nogil=True, fastmath=_SUMS_MAY_BE_REORDERED)  # type: ignore[misc]
def sum_errors(  # noqa: PLR0917 - a compiled loop takes arrays
    rows: Rows, moved: Floats, passing: Floats, head: Floats, errors: Floats, summed: Floats
) -> None:
    """The errors of each entity's rows ``(T,)``, and their sums over the rows where a unit is above 0, ``(T, h)``.

    Embeddings add ``moved`` ``(T, h)`` to what units read, and ``passing`` ``(T,)`` to logits. A unit counts
    ``head`` ``(h,)``. The sums are ``sum q`` and ``sum m q`` in :mod:`acclimate.models.support_loss`.
    """
    starts, first, base, label, share = rows
    for t in range(len(moved)):
        total, of_units = np.float32(0.0), summed[t]
        of_units[:] = 0.0
        for row in range(starts[t], starts[t + 1]):
            logit = base[row] + passing[t]
            for unit in range(len(head)):
                logit += head[unit] * max(first[row, unit] + moved[t, unit], np.float32(0.0))
            error = share[row] * (np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)) - label[row])
            total += error
            for unit in range(len(head)):
                of_units[unit] += error if first[row, unit] + moved[t, unit] > 0.0 else np.float32(0.0)
        errors[t] = total
