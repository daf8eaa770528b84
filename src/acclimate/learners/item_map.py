"""From the vector of a user to items: a learned map on frozen vectors."""

import math
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acclimate.arrays import FloatArray, IdArray, IntArray
from acclimate.errors import ConfigError, NotFittedError
from acclimate.learners.base import Packed
from acclimate.learners.on_vectors import OnVectors, column_of, ids_in, row_numbers, table_of, vectors_as
from acclimate.models.nearest import Seen, top
from acclimate.storage import Stored

_CELLS = 2**23
"""Numbers of matrices ``(s, s)`` that are solved together: 64 MB."""


class ItemMap(OnVectors):
    """Vectors of items such that their products with users' vectors tell who takes what.

    With user vectors ``u`` held fixed, each item's ``q`` minimises ``sum_u c_u (q'u - y_u)^2 + ridge |q|^2``
    over all users, ``y`` being 1 and ``c = 1 + confidence`` for those who took it, 0 and 1 for all others: half a
    step of implicit matrix factorisation (Hu, Koren and Volinsky 2008), and its optimum::

        q = (U'U + confidence sum_taken u u' + ridge I)^-1 (1 + confidence) sum_taken u

    Args:
        confidence: how much more a user who took an item counts than one who did not.
        ridge: of an item's vector.

    Raises:
        ConfigError: ``confidence`` is below 0, or ``ridge`` not above it, or one is not finite.
    """

    kind_on_disk: ClassVar[str] = "item-map"

    def __init__(self, *, confidence: float = 10.0, ridge: float = 10.0) -> None:
        if not 0.0 <= confidence < math.inf or not 0.0 < ridge < math.inf:
            raise ConfigError(f"confidence {confidence} and ridge {ridge}", hint="0 or more, and more than 0")
        self.confidence, self.ridge = float(confidence), float(ridge)
        self._space: str | None = None
        self._id_type = "int64"
        self.ids: IdArray = np.zeros(0, np.int64)
        self.item_vectors: NDArray[np.float32] = np.zeros((0, 0), np.float32)

    @property
    def space(self) -> str:
        """The space of the users' vectors.

        Raises:
            NotFittedError: there was no fit.
        """
        if self._space is None:
            raise NotFittedError("this ItemMap has learned nothing yet", hint="fit it, or load a saved one")
        return self._space

    def fit(self, vectors: ArrayLike, users: ArrayLike, items: ArrayLike, *, space: str) -> Self:
        """Learn the vectors of all items that somebody took.

        Args:
            vectors: of all users ``(n, s)``.
            users: which of them took something, ``(p,)`` rows of ``vectors``.
            items: the ids of what they took, ``(p,)``; a pair that is there twice counts once.
            space: of the vectors.

        Raises:
            ConfigError: shapes do not go together, or nobody took anything.
            MismatchError: ids are of several types.
            RowError: a number is not finite.
        """
        U, who = vectors_as(vectors).astype(np.float64), row_numbers(users)
        taken, kind = column_of(items, "an ItemMap")
        if who.shape != taken.shape or who.min(initial=0) < 0 or who.max(initial=-1) >= len(U):
            raise ConfigError(
                f"vectors {U.shape}, users {who.shape} and items {taken.shape} do not go together",
                hint="give for each item that somebody took whose it is, by row of the vectors",
            )
        if not len(who):
            raise ConfigError("nobody took anything: there is nothing to learn from")
        ids, item = np.unique(taken, return_inverse=True)
        pairs = np.unique(np.stack([item, who], axis=1), axis=0)
        starts = np.searchsorted(pairs[:, 0], np.arange(len(ids) + 1))
        self.item_vectors = self._solved(U, pairs[:, 1], starts).astype(np.float32)
        self.ids, self._space, self._id_type = ids, space, kind
        return self

    def top(
        self, vectors: ArrayLike, k: int, *, space: str, seen: tuple[ArrayLike, ArrayLike] | None = None
    ) -> tuple[IdArray, FloatArray]:
        """The ``k`` items of the largest scores for users' vectors ``(q, s)``: ids and scores ``(q, k)``.

        Args:
            vectors: of those who ask.
            k: how many.
            space: of the vectors.
            seen: which of those who ask have seen what, by row and item id, both ``(p,)``: they do not get it.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the vectors are of another space or size.
            ConfigError: somebody has fewer than ``k`` items left, or ``seen`` names no row of the vectors.
        """
        self._check_space(space)
        asked = self._taken(vectors, self.item_vectors.shape[1])
        left_out = None if seen is None else self._places(len(asked), *seen)
        positions, scores = top(asked, self.item_vectors, k, metric="dot", seen=left_out)
        if short := int((positions < 0).any(axis=1).sum()):
            raise ConfigError(
                f"{short:,} of {len(asked):,} have fewer than {k:,} items left", hint="ask for fewer"
            )
        return self.ids[positions], scores

    def _solved(self, U: FloatArray, who: IntArray, starts: IntArray) -> FloatArray:
        """The vectors of items ``(i, s)``; ``who[starts[i]:starts[i + 1]]`` took item ``i``."""
        items, size = len(starts) - 1, U.shape[1]
        shared = U.T @ U + self.ridge * np.eye(size)
        solved, some = np.empty((items, size)), max(1, _CELLS // size**2)
        for begin in range(0, items, some):
            end = min(begin + some, items)
            takers = [U[who[starts[i] : starts[i + 1]]] for i in range(begin, end)]
            H = np.stack([shared + self.confidence * (T.T @ T) for T in takers])
            g = np.stack([(1.0 + self.confidence) * T.sum(axis=0) for T in takers])
            solved[begin:end] = np.linalg.solve(H, g[..., None])[..., 0]
        return solved

    def _places(self, rows: int, row: ArrayLike, items: ArrayLike) -> Seen:
        """Positions of items by row; those that are not known are no answer anyway."""
        asked = row_numbers(row)
        wanted, _ = column_of(items, "an ItemMap", self._id_type)
        if asked.shape != wanted.shape or asked.min(initial=0) < 0 or asked.max(initial=-1) >= rows:
            raise ConfigError(
                f"seen: rows {asked.shape} and items {wanted.shape} do not go with {rows:,} vectors",
                hint="give for each item that somebody has seen who that is, by row of the vectors",
            )
        position = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        known = self.ids[position] == wanted
        order = np.argsort(asked[known], kind="stable")
        counts = np.bincount(asked[known], minlength=rows)
        return Seen(np.concatenate([[0], np.cumsum(counts)]), position[known][order])

    def _packed(self) -> Packed:
        manifest = {"confidence": self.confidence, "ridge": self.ridge, "space": self.space, "ids": self._id_type}
        tables = {"ids": table_of(self.ids, self._id_type)}
        return Packed(manifest, {"item_vectors": self.item_vectors}, tables)

    @classmethod
    def _unpacked(cls, stored: Stored) -> Self:
        told = stored.manifest
        learned = cls(confidence=told["confidence"], ridge=told["ridge"])
        learned.ids, learned._id_type, learned._space = ids_in(stored), told["ids"], told["space"]
        learned.item_vectors = stored.arrays["item_vectors"]
        if learned.item_vectors.ndim != 2 or len(learned.item_vectors) != len(learned.ids):
            raise ValueError(f"{len(learned.ids)} ids and vectors {learned.item_vectors.shape}")
        return learned
