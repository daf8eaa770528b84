"""Inner steps of a meta block of dense layers below a ranker of dense layers, one entity at a time in cache."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from acclimate.arrays import IntArray

_SUMS_MAY_BE_REORDERED = {"reassoc", "contract", "nsz"}

Floats = NDArray[np.float32]


class Block(NamedTuple):
    """A meta block: its layers lie one after another in flat arrays, row by row.

    ``rate`` and ``bias_rate`` are inner rates, one for each layer ``(L,)``, or for ``each`` weight. ``widths``
    ``(L + 1,)`` are those of features, hidden layers and embedding.
    """

    weight: Floats
    bias: Floats
    rate: Floats
    bias_rate: Floats
    each: bool
    widths: IntArray


class Above(NamedTuple):
    """A ranker of dense layers, which embeddings ``e`` ``(s,)`` enter linearly, the first one and the logit.

    ``relu(first + of_e e)`` is its first hidden layer, ``base + straight . e + head . h`` the logit, with ``h``
    the last one. ``weight`` and ``bias`` are of the layers between, flat; ``widths`` of all hidden layers.
    """

    of_e: Floats
    straight: Floats
    weight: Floats
    bias: Floats
    widths: IntArray
    head: Floats


class Rows(NamedTuple):
    """Support rows: those of entity ``t`` are ``starts[t]:starts[t + 1]``.

    ``first`` ``(n, h)`` is what the ranker's first layer makes of a row without the embedding, ``base`` ``(n,)``
    what passes all hidden layers by. ``share`` ``(n,)`` is what a row counts in the loss of its entity.
    """

    starts: IntArray
    first: Floats
    base: Floats
    label: Floats
    share: Floats


@njit(cache=True, nogil=True, inline="always", fastmath=_SUMS_MAY_BE_REORDERED)  # type: ignore[misc]
def _forward(block: Block, steps: int, deltas: Floats, reads: Floats, read: Floats) -> None:
    """What each layer reads, ``read`` ``(L + 1, w)``, from its row 0, after the first ``steps`` that were taken.

    ``W a - sum_k delta_k * (R (a_k * a) + r)``, see :mod:`acclimate.models.meta_network`.
    """
    weight, bias, rate, bias_rate, each, widths = block
    at = bias_at = 0
    layers = len(widths) - 1
    for layer in range(layers):
        n, m = widths[layer], widths[layer + 1]
        for i in range(m):
            total = bias[bias_at + i]
            for j in range(n):
                total += weight[at + i * n + j] * read[layer, j]
            read[layer + 1, i] = total
        for k in range(steps):
            if each:
                for i in range(m):
                    moved = bias_rate[bias_at + i]
                    for j in range(n):
                        moved += rate[at + i * n + j] * (reads[k, layer, j] * read[layer, j])
                    read[layer + 1, i] -= deltas[k, layer, i] * moved
            else:
                alike = np.float32(0.0)
                for j in range(n):
                    alike += reads[k, layer, j] * read[layer, j]
                moved = rate[layer] * alike + bias_rate[layer]
                for i in range(m):
                    read[layer + 1, i] -= deltas[k, layer, i] * moved
        if layer < layers - 1:
            for i in range(m):
                read[layer + 1, i] = max(read[layer + 1, i], np.float32(0.0))
        at += n * m
        bias_at += m


@njit(cache=True, nogil=True, inline="always", fastmath=_SUMS_MAY_BE_REORDERED)  # type: ignore[misc]
def _backward(block: Block, step: int, deltas: Floats, reads: Floats, read: Floats) -> None:
    """Step number ``step``: its ``deltas`` below the last layer's, which are there, and its ``reads``.

    ``W'd - sum_k a_k * (R' (delta_k * d))``.
    """
    weight, _, rate, _, each, widths = block
    layers = len(widths) - 1
    at = len(weight)
    for layer in range(layers - 1, -1, -1):
        n, m = widths[layer], widths[layer + 1]
        at -= n * m
        for j in range(n):
            reads[step, layer, j] = read[layer, j]
        if layer == 0:
            break
        back = deltas[step, layer - 1]
        for j in range(n):
            back[j] = 0.0
        for i in range(m):
            delta = deltas[step, layer, i]
            for j in range(n):
                back[j] += weight[at + i * n + j] * delta
        for k in range(step):
            if each:
                for i in range(m):
                    both = deltas[k, layer, i] * deltas[step, layer, i]
                    for j in range(n):
                        back[j] -= rate[at + i * n + j] * both * reads[k, layer, j]
            else:
                alike = np.float32(0.0)
                for i in range(m):
                    alike += deltas[k, layer, i] * deltas[step, layer, i]
                for j in range(n):
                    back[j] -= rate[layer] * alike * reads[k, layer, j]
        for j in range(n):
            if read[layer, j] <= 0.0:
                back[j] = 0.0


@njit(cache=True, nogil=True, inline="always", fastmath=_SUMS_MAY_BE_REORDERED)  # type: ignore[misc]
def _support_gradient(  # noqa: PLR0917 - what is last is room to work
    e: Floats, rows: Rows, t: int, above: Above, gradient: Floats, hidden: Floats, back: Floats
) -> None:
    """The ``gradient`` ``(s,)`` of the loss of the rows of entity ``t`` at ``e``."""
    of_e, straight, weight, bias, widths, head = above
    starts, first, base, label, share = rows
    size, layers = len(e), len(widths)
    top = widths[layers - 1]
    shifted, total = hidden[layers], back[layers]
    linear = np.float32(0.0)
    for c in range(size):
        linear += straight[c] * e[c]
    for h in range(widths[0]):
        moved = np.float32(0.0)
        for c in range(size):
            moved += of_e[h, c] * e[c]
        shifted[h], total[h] = moved, 0.0
    errors = np.float32(0.0)
    for row in range(starts[t], starts[t + 1]):
        for h in range(widths[0]):
            hidden[0, h] = max(first[row, h] + shifted[h], np.float32(0.0))
        at = bias_at = 0
        for layer in range(1, layers):
            n, m = widths[layer - 1], widths[layer]
            for i in range(m):
                z = bias[bias_at + i]
                for j in range(n):
                    z += weight[at + i * n + j] * hidden[layer - 1, j]
                hidden[layer, i] = max(z, np.float32(0.0))
            at += n * m
            bias_at += m
        logit = base[row] + linear
        for h in range(top):
            logit += head[h] * hidden[layers - 1, h]
        error = share[row] * (np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)) - label[row])
        errors += error
        if layers == 1:
            for h in range(top):
                total[h] += error * head[h] if hidden[0, h] > 0.0 else np.float32(0.0)
            continue
        for h in range(top):
            back[layers - 1, h] = error * head[h] if hidden[layers - 1, h] > 0.0 else np.float32(0.0)
        for layer in range(layers - 1, 0, -1):
            n, m = widths[layer - 1], widths[layer]
            at -= n * m
            for j in range(n):
                back[layer - 1, j] = 0.0
            for i in range(m):
                delta = back[layer, i]
                if delta != 0.0:
                    for j in range(n):
                        back[layer - 1, j] += weight[at + i * n + j] * delta
            for j in range(n):
                if hidden[layer - 1, j] <= 0.0:
                    back[layer - 1, j] = 0.0
        for h in range(widths[0]):
            total[h] += back[0, h]
    for c in range(size):
        gradient[c] = errors * straight[c]
    for h in range(widths[0]):
        for c in range(size):
            gradient[c] += total[h] * of_e[h, c]


@njit(cache=True, nogil=True)  # type: ignore[misc]
def adapt(  # noqa: PLR0917 - a compiled loop takes arrays
    u: Floats, steps: int, block: Block, rows: Rows, above: Above, out: Floats
) -> None:
    """Meta embeddings ``out`` ``(T, s)`` of entities with features ``u`` ``(T, r)`` after inner ``steps``."""
    layers, widest, above_widest = len(block.widths) - 1, block.widths.max(), above.widths.max()
    deltas = np.empty((steps, layers, widest), np.float32)
    reads = np.empty((steps, layers, widest), np.float32)
    read = np.empty((layers + 1, widest), np.float32)
    hidden = np.empty((len(above.widths) + 1, above_widest), np.float32)
    back = np.empty((len(above.widths) + 1, above_widest), np.float32)
    size = block.widths[layers]
    for t in range(len(u)):
        for j in range(block.widths[0]):
            read[0, j] = u[t, j]
        _forward(block, 0, deltas, reads, read)
        for step in range(steps if rows.starts[t + 1] > rows.starts[t] else 0):
            gradient = deltas[step, layers - 1, :size]
            _support_gradient(read[layers, :size], rows, t, above, gradient, hidden, back)
            _backward(block, step, deltas, reads, read)
            _forward(block, step + 1, deltas, reads, read)
        for c in range(size):
            out[t, c] = read[layers, c]
