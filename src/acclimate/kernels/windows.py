"""Averages of the vectors of what an entity has touched, over several windows of time, per behaviour."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IntArray


@njit(cache=True, nogil=True)  # type: ignore[misc]
def window_inputs(  # noqa: PLR0917 - a compiled loop takes arrays
    time: IntArray,
    item: NDArray[np.int32],
    flags: NDArray[np.uint8],
    first: IntArray,
    last: IntArray,
    at: IntArray,
    most: int,
    spans: IntArray,
    decays: bool,
    table: NDArray[np.float32],
    known: BoolArray,
    edges: IntArray,
    places: IntArray,
    x: NDArray[np.float32],
    counts: FloatArray,
    age: IntArray,
) -> None:
    """Fill the columns of the item vectors in ``x``, and ``counts`` and ``age``, for ``q`` queries.

    A query is an entity at a time: of the events ``first:last`` of a log, in which each entity's are in the order
    of time, it sees those before that time, the newest ``most`` of them. With ``V_i`` the vector of event ``i``'s
    item, ``u_iw`` its weight in window ``w``, and sums over the events that show behaviour ``b``::

        x[.., kind k, behaviour b, window w] = sum_i u_iw V_i / sum_i u_iw   over items with a vector of kind k
        counts[b, w]                         = sum_i u_iw                    over all items

    Exact windows weigh ``u = 1`` while an event is no older than the span. Those that decay weigh it
    ``2^(-age / span)``; each average takes the age from the newest event that is in it, which leaves the quotient
    as it is and never lets it underflow.

    Args:
        time: ``(N,)`` microseconds.
        item: ``(N,)`` rows of ``table``.
        flags: ``(N,)`` bit ``b`` says that the event shows behaviour ``b``.
        first: ``(q,)`` where the events of a query's entity begin.
        last: ``(q,)`` where they end.
        at: ``(q,)`` microseconds.
        most: events that a query sees.
        spans: ``(W,)`` microseconds, ascending.
        decays: whether events fade, or count whole until they are too old.
        table: ``(I, S)`` the vectors of all kinds side by side.
        known: ``(I, K)`` which kinds an item has a vector of.
        edges: ``(K + 1,)`` where the columns of a kind begin in ``table``.
        places: ``(K, B)`` where a kind and behaviour begin in ``x``: ``W`` vectors, then ``W`` flags of presence.
        x: ``(q, D)`` changed in place; columns of what is absent are left as they are.
        counts: ``(q, B, W)`` changed in place.
        age: ``(q,)`` changed in place: microseconds since the newest event seen, -1 without one.
    """
    kinds, behaviours, windows, width = known.shape[1], places.shape[1], len(spans), table.shape[1]
    sums = np.zeros((behaviours, windows, width), np.float32)
    weights = np.zeros((kinds, behaviours, windows))
    latest = np.zeros((kinds, behaviours), np.int64)
    for q in range(len(first)):
        sums[:] = 0.0
        weights[:] = 0.0
        counts[q] = 0.0
        end = first[q] + np.searchsorted(time[first[q] : last[q]], at[q])
        start = max(first[q], end - most)
        newest = time[end - 1] if end > start else at[q] + 1
        age[q] = at[q] - newest
        for i in range(end - 1, start - 1, -1):
            row, begin = table[item[i]], 0
            while begin < windows and not decays and at[q] - time[i] > spans[begin]:
                begin += 1
            # An exact window holds all narrower ones: an event is added to the narrowest, sums run up later.
            for w in range(begin, windows if decays else min(begin + 1, windows)):
                u = 2.0 ** (-(newest - time[i]) / spans[w]) if decays else 1.0
                for b in range(behaviours):
                    if flags[i] >> b & 1:
                        counts[q, b, w] += u
                        for k in range(kinds):
                            if known[item[i], k]:
                                if weights[k, b, w] == 0.0:
                                    latest[k, b] = time[i]
                                v = u
                                if decays and latest[k, b] < newest:
                                    v = 2.0 ** (-(latest[k, b] - time[i]) / spans[w])
                                weights[k, b, w] += v
                                v32 = np.float32(v)
                                for j in range(edges[k], edges[k + 1]):
                                    sums[b, w, j] += v32 * row[j]
        for b in range(behaviours):
            for w in range(windows):
                if decays:
                    counts[q, b, w] *= 2.0 ** (-(at[q] - newest) / spans[w])
                elif w:
                    counts[q, b, w] += counts[q, b, w - 1]
                    sums[b, w] += sums[b, w - 1]
                    weights[:, b, w] += weights[:, b, w - 1]
                for k in range(kinds):
                    if weights[k, b, w] > 0.0:
                        size, place = edges[k + 1] - edges[k], places[k, b]
                        share = np.float32(1.0 / weights[k, b, w])
                        for j in range(size):
                            x[q, place + w * size + j] = sums[b, w, edges[k] + j] * share
                        x[q, place + windows * size + w] = 1.0
