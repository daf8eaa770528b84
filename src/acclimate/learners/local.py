"""A batch in the columns that each entity holds: those it has met before, and those it meets here.

Entities are cut into pieces by how many these are, so that nobody is filled up to the one that has met most, and
nothing is as large as entities times columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from acclimate.arrays import EntityStates, FloatArray, IntArray, SparseStates, Support
from acclimate.learners.batch import Seen
from acclimate.learners.effects import Effect
from acclimate.models.support import block_widths, gathered, matrices_of, placed, sizes_of


@dataclass(frozen=True)
class Local:
    """The columns that the entities of a batch hold, side by side.

    ``keys``: entity times columns plus column, rising, ``(k,)``; ``starts``: where those of each entity begin,
    ``(t + 1,)``; ``width``: how many columns there are. ``cells``: of each cell of the batch its place among those
    of its entity, ``(nnz,)``.
    """

    keys: IntArray
    starts: IntArray
    width: int
    cells: IntArray

    @staticmethod
    def of(seen: Seen, known: SparseStates) -> "Local":
        """Those that entities have met before, and those that they meet here."""
        width, X = len(seen.index), seen.X
        entity = np.repeat(seen.codes, np.diff(X.indptr))
        met = entity * width + X.indices
        before = [
            (places[:, None] * width + states.support)[states.support >= 0]
            for places, states in known.pieces
            if states.support is not None
        ]
        keys = np.unique(np.concatenate([met, *before]))
        starts = np.searchsorted(keys, np.arange(len(seen.ids) + 1) * width)
        return Local(keys, starts, width, np.searchsorted(keys, met) - starts[entity])

    @property
    def sizes(self) -> IntArray:
        """How many columns each entity holds."""
        return np.diff(self.starts)

    def support(self, members: IntArray, width: int) -> Support:
        """The columns of some entities, filled up to so many."""
        place = np.arange(width)
        there = place < self.sizes[members][:, None]
        at = np.where(there, self.starts[members][:, None] + place, 0)
        return np.where(there, self.keys[at] % self.width, -1).astype(np.int32)

    def places(self, members: IntArray, support: Support) -> IntArray:
        """Where columns of some entities, ``(m, s)``, are among those that these hold; -1 where they fill up."""
        asked = np.where(support >= 0, members[:, None] * self.width + support, 0)
        return np.where(support >= 0, np.searchsorted(self.keys, asked) - self.starts[members][:, None], -1)


@dataclass(frozen=True)
class Piece:
    """Entities of a batch that hold about as many columns.

    ``members``: ``(m,)``, among the batch's; ``states``: theirs over these columns; ``seen``: their rows in them,
    of all ``n`` rows, with no cell and -1 for an entity in the others.
    """

    members: IntArray
    states: EntityStates
    seen: Seen


def pieces(seen: Seen, effect: Effect, known: SparseStates) -> Iterator[Piece]:
    """A batch, of whose entities something may be known, by how many columns its entities hold."""
    local = Local.of(seen, known)
    widths = block_widths(local.sizes)
    entity = np.repeat(seen.codes, np.diff(seen.X.indptr))
    for width in np.unique(widths).tolist():
        members = np.flatnonzero(widths == width)
        support = local.support(members, width)
        states = _states(effect, members, support, local, known)
        place = np.full(len(seen.ids), -1)
        place[members] = np.arange(len(members))
        X = _rows(seen.X, local.cells, place[entity] >= 0, width)
        yield Piece(members, states, replace(seen, X=X, codes=place[seen.codes], ids=seen.ids[members]))


def means_at(states: EntityStates, effect: Effect, known: SparseStates) -> FloatArray:
    """The means of other states of some of the same entities, at the columns of these ``(m, w)``.

    Where nothing is known of a coefficient it is the population's.
    """
    support: Any = states.support
    means, width = gathered(effect.population, support).mean, len(effect.index)
    number = {id: place for place, id in enumerate(states.ids.tolist())}
    keys = (np.arange(len(states))[:, None] * width + support)[support >= 0]
    starts = np.cumsum([0, *sizes_of(support)])
    for _, piece in known.pieces:
        place = np.array([number.get(id, -1) for id in piece.ids.tolist()])
        columns: Any = piece.support
        held = (place[:, None] >= 0) & (columns >= 0)
        row, column = np.nonzero(held)
        asked = place[row] * width + columns[row, column]
        at = np.searchsorted(keys, asked)
        there = keys[np.minimum(at, len(keys) - 1)] == asked
        row, column, at = row[there], column[there], at[there]
        means[place[row], at - starts[place[row]]] = piece.posterior.mean[row, column]
    return means


def _states(
    effect: Effect, members: IntArray, support: Support, local: Local, known: SparseStates
) -> EntityStates:
    """The states of some entities over their columns: those that are new are at the population."""
    posterior = gathered(effect.population, support)
    touched, rows = known.touched[members], known.rows[members]
    if rows.any():
        if effect.form_at(support.shape[1]) == "full":
            posterior = matrices_of(posterior)
        place = np.full(len(known), -1)
        place[members] = np.arange(len(members))
        for at, states in known.pieces:
            here = np.flatnonzero(place[at] >= 0)
            if len(here) and states.support is not None:
                places = local.places(at[here], states.support[here])
                placed(states.posterior.at(here), places, posterior, place[at[here]])
    return EntityStates(known.ids[members], posterior, touched, rows, support)


def _rows(X: "sparse.csr_array[Any]", columns: IntArray, kept: Any, width: int) -> "sparse.csr_array[Any]":
    """Some cells in columns of their own."""
    counts = np.concatenate([[0], np.cumsum(kept)])
    cells = X.data[kept], columns[kept].astype(np.int32), counts[X.indptr].astype(X.indptr.dtype)
    return sparse.csr_array(cells, shape=(X.shape[0], width))
