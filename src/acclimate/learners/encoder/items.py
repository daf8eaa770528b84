"""Vectors of items: from what they are made of, or from what is touched together; trained with one call."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from acclimate.arrays import FloatArray, IntArray
from acclimate.features import FieldRows, Layout
from acclimate.learners.encoder.histories import Log
from acclimate.learners.entities import with_room

_REACH = 10
"""Items of one entity go together when they are at most so many events apart."""

_SMOOTHING = 0.75
"""Power of the counts of company (Levy, Goldberg and Dagan, TACL 2015), lest rare items be too strong in it."""


_FLAT, _WEAK = 1e-12, 1e-6
"""A spread that is so small against the mean, and a direction that is against the first, is rounding."""

_FAR = 1e6
"""Spreads from the mean that a number is at most taken for: no product of it is beyond float32."""


@dataclass(frozen=True)
class Content:
    """How the vectors of one kind come from the features of items, those of items that are new included.

    ``centre`` ``(F,)`` and ``scale`` ``(F,)`` standardise, ``projection`` is ``(F, s)``; ``F`` counts numbers of
    ``layout``, then its names.
    """

    layout: Layout
    centre: FloatArray
    scale: FloatArray
    projection: FloatArray

    @staticmethod
    def fitted(rows: FieldRows, layout: Layout, size: int) -> "Content":
        """From the features of all items: numbers standardised, names by the logarithm of their rarity."""
        centre, scale = standards(rows.dense)
        names = _names(rows, layout)
        holders = np.maximum(np.bincount(names.indices, minlength=names.shape[1]), 1)
        rarity = np.log1p(len(rows)) - np.log(holders)
        rarity[: len(layout.fields)] = 0.0  # a name that is not known says nothing
        centre, scale = np.concatenate([centre, np.zeros(len(rarity))]), np.concatenate([scale, rarity])
        blank = Content(layout, centre, scale, np.zeros((len(scale), size)))
        _, values, right = _leading(blank._standardised(rows), size)
        there = values > _WEAK * values[0]
        projection = right / np.sqrt(np.where(there, values, 1.0))
        return Content(layout, centre, scale, np.where(there, projection, 0.0))

    def vectors(self, rows: FieldRows) -> NDArray[np.float32]:
        """Of these items ``(n, s)``."""
        return np.asarray(self._standardised(rows) @ self.projection, np.float32)

    def _standardised(self, rows: FieldRows) -> Any:
        k = len(self.layout.dense)
        numbers = standardised(rows.dense, self.centre[:k], self.scale[:k])
        names = _names(rows, self.layout) * self.scale[k:]
        return sparse.csr_array(sparse.hstack([sparse.csr_array(numbers), names]))


def standards(numbers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean and one over the spread of each column of ``(n, k)``; 1 where all are alike."""
    centre, spread = numbers.mean(axis=0), numbers.std(axis=0)
    return centre, 1.0 / np.where(spread > _FLAT * np.abs(centre), spread, 1.0)


def standardised(numbers: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """Numbers ``(n, k)`` in spreads from the mean."""
    return np.clip((numbers - centre) * scale, -_FAR, _FAR)


def _names(rows: FieldRows, layout: Layout) -> Any:
    """The shares of names in rows, as a matrix ``(n, V)``."""
    width = len(layout.fields)
    lines = np.repeat(np.arange(len(rows) * width) // max(width, 1), np.diff(rows.starts))
    return sparse.csr_array((rows.value, (lines, rows.cell)), shape=(len(rows), len(layout.index)))


def dense_rows(rows: FieldRows, layout: Layout, order: IntArray) -> FloatArray:
    """The rows as ``(n, k + V)``: numbers, then the shares of names in the given order of the table."""
    return np.concatenate([rows.dense, _names(rows, layout).toarray()[:, order]], axis=1)


def together(log: Log, items: int, size: int, shift: float = 1.0) -> NDArray[np.float32]:
    """Vectors ``(items, s)`` of items that entities touch one after another; zeros of those without company.

    The leading singular vectors of the shifted positive pointwise mutual information of item and company,
    ``max(information - log(shift), 0)``, with the roots of their values (Levy and Goldberg, NIPS 2014).
    """
    counts = sparse.csr_array((items, items))
    entity = log.entity
    for gap in range(1, _REACH + 1):
        pairs = np.flatnonzero(entity[gap:] == entity[:-gap])
        one, other = log.item[pairs], log.item[pairs + gap]
        unlike = one != other
        ones = np.ones(int(unlike.sum()))
        counts = counts + sparse.csr_array((ones, (one[unlike], other[unlike])), shape=(items, items))
    if not counts.nnz:
        return np.zeros((items, size), np.float32)
    counts = sparse.coo_array(counts + counts.T)
    rows, beside = np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel() ** _SMOOTHING
    information = (
        np.log(counts.data) - np.log(rows[counts.row]) - np.log(beside[counts.col]) + np.log(beside.sum())
    )
    information -= np.log(shift)
    kept = information > 0.0
    matrix = sparse.csr_array(
        (information[kept], (counts.row[kept], counts.col[kept])), shape=(items, items), dtype=np.float64
    )
    left, values, _ = _leading(matrix, size)
    return (left * np.sqrt(values)).astype(np.float32)


def _leading(matrix: Any, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The leading singular vectors ``(n, s)`` and ``(m, s)`` and values ``(s,)``, largest first; zeros fill up."""
    most = min(size, *matrix.shape)
    left, values, right = (np.zeros((matrix.shape[0], size)), np.zeros(size), np.zeros((matrix.shape[1], size)))
    if not matrix.nnz:
        return left, values, right
    if most < min(matrix.shape):
        parts: Any = svds(matrix, k=most, rng=np.random.default_rng(0))
    else:  # one side is no longer than a vector: svds does not find all
        parts = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-parts[1])
    U, s, V = parts[0][:, order], parts[1][order], parts[2][order].T
    # A vector may be turned round: its largest part is positive.
    sign = np.sign(V[np.abs(V).argmax(axis=0), np.arange(most)])
    left[:, :most], values[:most], right[:, :most] = U * sign, s, V * sign
    return left, values, right


class ItemTable:
    """The vectors of all items by number, with the kinds side by side, and which kinds each has.

    ``table`` is ``(room, S)`` and ``known`` ``(room, K)``, of which ``items`` rows are taken; ``edges``
    ``(K + 1,)`` says where the columns of a kind begin.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.kinds = tuple(sizes)
        self.edges = np.concatenate([[0], np.cumsum(list(sizes.values()))])
        self.items = 0
        self.table = np.zeros((0, int(self.edges[-1])), np.float32)
        self.known = np.zeros((0, len(sizes)), np.bool_)

    def grow(self, items: int) -> None:
        """Know so many items; new ones have no vector."""
        before, self.items = self.items, max(items, self.items)
        self.table, self.known = (with_room(array, self.items) for array in (self.table, self.known))
        self.table[before : self.items], self.known[before : self.items] = 0.0, False

    def copied(self) -> "ItemTable":
        """The same, to grow by itself."""
        return copy.deepcopy(self)

    def emptied(self) -> "ItemTable":
        """One of the same kinds that knows no items."""
        return ItemTable(dict(zip(self.kinds, np.diff(self.edges).tolist(), strict=True)))

    def put(self, kind: str, items: IntArray, vectors: NDArray[np.float32]) -> None:
        """The vectors of some items ``(n, s)``; zeros are none."""
        k = self.kinds.index(kind)
        self.table[items, self.edges[k] : self.edges[k + 1]] = vectors
        self.known[items, k] = np.any(vectors != 0.0, axis=1)

    def vectors(self, kind: str) -> NDArray[np.float32]:
        """Of one kind, ``(items, s)``."""
        k = self.kinds.index(kind)
        return self.table[: self.items, self.edges[k] : self.edges[k + 1]]

    def space(self, kind: str) -> str:
        """The identity of the vectors of one kind."""
        digest = hashlib.sha256(kind.encode())
        digest.update(np.ascontiguousarray(self.vectors(kind)).data)
        return digest.hexdigest()[:16]
