"""Coefficients that an entity holds, of the many that there are: the columns it has met.

All others are at the population, which is diagonal: independent of what is held and of each other. So nothing of
them has to be written down, and a posterior is over the ``s`` columns of an entity's support alone.
"""

from typing import Any

import numpy as np

from acclimate.arrays import EntityStates, FloatArray, IntArray, Posterior, Support


def gathered(population: Posterior, support: Support) -> Posterior:
    """A diagonal population ``(d,)`` at supports ``(n, s)``: what fills up has mean 0, precision 1."""
    there = support >= 0
    return Posterior(
        np.where(there, population.mean[support], 0.0), np.where(there, population.precision[support], 1.0)
    )


def matrices_of(posterior: Posterior) -> Posterior:
    """The same with precisions written out."""
    return posterior if posterior.is_full else Posterior(posterior.mean, posterior.P.full().array)


def diagonals_of(posterior: Posterior) -> Posterior:
    """The same with the diagonals of precisions."""
    return Posterior(posterior.mean, posterior.P.kept("diagonal").array) if posterior.is_full else posterior


def resized(states: EntityStates, width: int) -> EntityStates:
    """States of other supports ``(n, width)``: what fills up is cut off, or put on."""
    if states.support is None or states.support.shape[1] == width:
        return states
    posterior, support = states.posterior, states.support[:, :width]
    more = max(0, width - support.shape[1])
    mean = np.pad(posterior.mean[:, :width], ((0, 0), (0, more)))
    if posterior.is_full:
        precision = np.pad(posterior.precision[:, :width, :width], ((0, 0), (0, more), (0, more)))
        precision[:, range(width - more, width), range(width - more, width)] = 1.0
    else:
        precision = np.pad(posterior.precision[:, :width], ((0, 0), (0, more)), constant_values=1.0)
    support = np.pad(support, ((0, 0), (0, more)), constant_values=-1)
    return EntityStates(states.ids, Posterior(mean, precision), states.touched, states.rows, support)


def joined(pieces: "list[EntityStates]") -> EntityStates:
    """States of several widths and forms as one, of the widest; full where one of them is."""
    width = max(states.posterior.mean.shape[1] for states in pieces)
    pieces = [resized(states, width) for states in pieces]
    posteriors = [states.posterior for states in pieces]
    if any(posterior.is_full for posterior in posteriors):
        posteriors = [matrices_of(posterior) for posterior in posteriors]
    mean, precision = (
        np.concatenate([getattr(posterior, name) for posterior in posteriors]) for name in ("mean", "precision")
    )
    columns: Any = ([getattr(states, name) for states in pieces] for name in ("ids", "touched", "rows", "support"))
    ids, touched, rows, support = (np.concatenate(column) for column in columns)
    return EntityStates(ids, Posterior(mean, precision), touched, rows, support)


def shelf_widths(sizes: IntArray) -> IntArray:
    """To how many coefficients supports of these sizes ``(n,)`` are filled up where they are stored.

    To multiples of 4, and of a sixteenth of the next power of 2: by an eighth at most where they are above 32.
    """
    step = np.maximum(4, _next_power(sizes) // 16)
    return -(-np.maximum(sizes, 1) // step) * step


def block_widths(sizes: IntArray) -> IntArray:
    """To how many they are filled up where they are learned: 4, 8, 12, 16, 24, 32, 48, 64, .., few that differ.

    Each of these is one of :func:`shelf_widths`.
    """
    step = np.maximum(4, _next_power(sizes) // 4)
    return -(-np.maximum(sizes, 1) // step) * step


def sizes_of(support: Support) -> IntArray:
    """How many coefficients each entity holds, ``(n,)``."""
    return np.count_nonzero(support >= 0, axis=1)


def _next_power(sizes: IntArray) -> IntArray:
    """The least power of 2 that is no less."""
    return np.left_shift(1, np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64))


def placed(posterior: Posterior, place: IntArray, into: Posterior, members: IntArray) -> None:
    """Write posteriors ``(m, s)`` to members of ``into`` (n, w), at their places ``(m, s)``; -1 is left out.

    A full one becomes its diagonal where ``into`` is diagonal. What is written is independent of the rest.
    """
    row, column = np.nonzero(place >= 0)
    at = place[row, column]
    into.mean[members[row], at] = posterior.mean[row, column]
    if not into.is_full:
        into.precision[members[row], at] = diagonals_of(posterior).precision[row, column]
    elif not posterior.is_full:
        into.precision[members[row], at, at] = posterior.precision[row, column]
    else:
        row, i, j = np.nonzero((place[:, :, None] >= 0) & (place[:, None, :] >= 0))
        into.precision[members[row], place[row, i], place[row, j]] = posterior.precision[row, i, j]


def held(X: FloatArray, support: Support) -> FloatArray:
    """Numbers of all columns ``(d,)`` or ``(n, d)`` at supports ``(n, s)``, 0 where these fill up."""
    numbers = X[support] if X.ndim == 1 else np.take_along_axis(X, support, axis=1)
    return np.where(support >= 0, numbers, 0.0)
