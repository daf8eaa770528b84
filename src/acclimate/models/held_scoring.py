"""What an effect adds to scores whose entities hold some coefficients only: all others are the population's.

They are as independent draws of it for each entity, in the same units as if all were held: a coefficient has its
draw by its entity and column, wherever it stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IdArray, IntArray, Posterior, SparseRows, Support
from acclimate.models.scoring import Term, normal, streams
from acclimate.models.support import gathered


@dataclass(frozen=True)
class Held:
    """What some entities hold: ``places`` among the term's, supports and means ``(m, s)``, precisions or none."""

    places: IntArray
    support: Support
    mean: FloatArray
    precision: FloatArray | None = None


@dataclass(frozen=True)
class HeldTerm:
    """One effect's part of the score, as :class:`acclimate.models.scoring.Term`.

    ``X``: ``(n, d)`` over all columns. ``entity``: ``(n,)``, each row's place in ``ids`` (e,). ``held``: what they
    hold; of an entity that is in none all is at the ``population`` (d,), which is diagonal. ``at_mode``: whether
    means are modes of a logistic posterior.
    """

    X: SparseRows
    entity: IntArray
    ids: IdArray
    held: Sequence[Held]
    population: Posterior
    at_mode: bool = False

    def margin(self) -> FloatArray:
        """At the means, ``(n,)``."""
        return self._rest(self.population.mean) + self._of_pieces(lambda piece, _: piece.term.margin())

    def variance(self) -> FloatArray:
        """Of the margin, ``(n,)``."""
        rest = self._rest(1.0 / self.population.precision, square=True)
        return rest + self._of_pieces(lambda piece, _: piece.term.variance())

    def beyond_mode(self, margin: FloatArray, own: FloatArray) -> FloatArray:
        """How far the mean margin of all effects lies beyond its mode by this one, of the variance ``own``."""
        others = margin - self._rest(self.population.mean)
        return self._of_pieces(lambda piece, rows: piece.term.beyond_mode(others[rows], own[rows]))

    def drawn(self, seed: Sequence[int]) -> FloatArray:
        """At one draw of every coefficient, ``(n,)``."""
        cells, start = self._cells, streams(self.ids, seed)
        left = ~cells.met
        row, column = cells.row[left], cells.column[left]
        value = self.population.mean[column] + normal(start[self.entity[row]], column) / np.sqrt(
            self.population.precision[column]
        )
        z = np.bincount(row, cells.value[left] * value, len(self.entity)).astype(np.float64)
        for piece in self._pieces:
            posterior, columns = piece.term.posterior, np.maximum(piece.held.support, 0)
            noise = normal(start[piece.held.places][:, None], columns)
            z[piece.rows] += piece.term.products(posterior.mean + posterior.P.spread(noise))
        return z

    def _rest(self, numbers: FloatArray, *, square: bool = False) -> FloatArray:
        """What cells add that entities do not hold: times a number of each column ``(d,)``."""
        cells = self._cells
        left = ~cells.met
        value = cells.value[left] ** 2 if square else cells.value[left]
        added = np.bincount(cells.row[left], value * numbers[cells.column[left]], len(self.entity))
        return added.astype(np.float64)

    def _of_pieces(self, value: "Callable[[_Piece, IntArray], FloatArray]") -> FloatArray:
        found = np.zeros(len(self.entity))
        for piece in self._pieces:
            found[piece.rows] = value(piece, piece.rows)
        return found

    @cached_property
    def _split(self) -> "tuple[_Cells, list[_Piece]]":
        X, d = self.X, self.X.shape[1]
        sizes = np.diff(X.indptr)
        row = np.repeat(np.arange(len(self.entity)), sizes)
        met, pieces = np.zeros(len(row), np.bool_), list[_Piece]()
        for held in self.held:
            place = np.full(len(self.ids), -1)
            place[held.places] = np.arange(len(held.places))
            of_row = place[self.entity]
            rows = np.flatnonzero(of_row >= 0)
            if not len(rows):
                continue
            cells = np.flatnonzero(of_row[row] >= 0)
            there = held.support >= 0
            keys = (np.arange(len(there))[:, None] * d + held.support)[there]
            local = np.broadcast_to(np.arange(there.shape[1]), there.shape)[there]
            asked = of_row[row[cells]] * d + X.indices[cells]
            at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            hit = keys[at] == asked
            cells = cells[hit]
            met[cells] = True
            indptr = np.concatenate([[0], np.cumsum(np.bincount(row[cells], minlength=len(sizes))[rows])])
            inside: SparseRows = _Inside(X.data[cells], local[at[hit]], indptr, (len(rows), there.shape[1]))
            population = gathered(self.population, held.support) if self.at_mode else None
            ids = self.ids[held.places]
            term = Term(inside, of_row[rows], ids, held.mean, held.precision, population)
            pieces.append(_Piece(rows, held, term))
        return _Cells(row, X.indices, X.data, met), pieces

    @property
    def _cells(self) -> "_Cells":
        return self._split[0]

    @property
    def _pieces(self) -> "list[_Piece]":
        return self._split[1]


@dataclass(frozen=True)
class _Cells:
    """All cells ``(nnz,)``, and whether their entities hold them."""

    row: IntArray
    column: NDArray[Any]
    value: FloatArray
    met: BoolArray


@dataclass(frozen=True)
class _Piece:
    """Entities that hold about as many columns, and their ``rows`` over these."""

    rows: IntArray
    held: Held
    term: Term


@dataclass
class _Inside:
    """Rows over what their entities hold."""

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, ...]
