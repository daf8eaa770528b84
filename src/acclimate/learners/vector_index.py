"""Who is near whom: the nearest of a set of vectors, exactly or by a graph."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acclimate.arrays import FloatArray, IdArray
from acclimate.errors import ConfigError
from acclimate.errors import nearest as meant
from acclimate.extras import import_module
from acclimate.learners.base import Packed
from acclimate.learners.on_vectors import OnVectors, column_of, ids_in, table_of, vectors_as
from acclimate.models.nearest import Metric, top
from acclimate.storage import Stored

Method: TypeAlias = Literal["auto", "exact", "hnsw"]

_MOST_EXACT = 1_000_000
"""Vectors up to which ``auto`` is exact."""

_LEAST_TO_WALK = 10
"""Unequal vectors, times what is asked for, below which a graph is no faster and may not reach so many."""


class VectorIndex(OnVectors):
    """Vectors of ids in one space, to be asked for the nearest.

    Args:
        ids: ``(n,)`` integers or text, each once.
        vectors: ``(n, s)``; kept as float32.
        space: of the vectors; queries of another one are an error.
        metric: ``cosine`` or ``dot``.
        method: ``exact`` compares with all, ``hnsw`` walks a graph (Malkov and Yashunin 2018; extra ``ann``) and
            may miss some; ``auto`` is exact up to a million vectors.

    Raises:
        ConfigError: shapes do not go together, an id is there twice, or there is no such method or metric.
        MismatchError: ids are of several types.
        RowError: a number is not finite.
        MissingExtraError: a graph is asked for, and usearch is not installed.
    """

    kind_on_disk: ClassVar[str] = "vector-index"

    def __init__(
        self,
        ids: ArrayLike,
        vectors: ArrayLike,
        *,
        space: str,
        metric: Metric = "cosine",
        method: Method = "auto",
    ) -> None:
        self.ids, self._id_type = column_of(ids, "a VectorIndex")
        self.vectors: NDArray[np.float32] = vectors_as(vectors).astype(np.float32)
        for value, allowed in ((metric, get_args(Metric)), (method, get_args(Method))):
            if value not in allowed:
                raise ConfigError(f"no '{value}' among {', '.join(allowed)}", hint=meant(value, allowed))
        if len(self.ids) != len(self.vectors):
            raise ConfigError(f"{len(self.ids)} ids do not go with vectors {self.vectors.shape}")
        if twice := len(self.ids) - len(set(self.ids.tolist())):
            raise ConfigError(f"{twice} ids are there twice", hint="give each vector once")
        self._space = space
        self.metric: Metric = metric
        self.method: Method = method
        self._graph: Any = self._built()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def space(self) -> str:
        """The space of the vectors."""
        return self._space

    def nearest(self, queries: ArrayLike, k: int, *, space: str) -> tuple[IdArray, FloatArray]:
        """Ids ``(q, k)`` and scores ``(q, k)`` of the nearest to queries ``(q, s)``, best first.

        Where it is exact, those of equal score come in the order of the ids.

        Raises:
            MismatchError: the queries are of another space, or of another length.
            ConfigError: there are fewer than ``k`` vectors.
            RowError: a number is not finite.
        """
        self._check_space(space)
        asked = self._taken(queries, self.vectors.shape[1])
        if not 1 <= k <= len(self):
            raise ConfigError(f"the {k:,} nearest of {len(self):,}", hint="ask for one or more, at most for all")
        if self._graph is not None and k * _LEAST_TO_WALK <= len(self._graph):
            positions, scores = self._graph.nearest(asked, k)
        else:
            positions, scores = top(asked, self.vectors, k, metric=self.metric)
        return self.ids[positions], scores

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote, and make its graph again, if it has one.

        Raises:
            FormatError: there is none, it is damaged or of another version.
            MismatchError: it is of another kind.
            MissingExtraError: it has a graph, and usearch is not installed.
        """
        loaded = super().load(path)
        loaded._graph = loaded._built()  # not while it is taken apart: what is missing then is no damage
        return loaded

    def _built(self) -> Any:
        """The graph, where there is to be one."""
        by_graph = self.method == "hnsw" or (self.method == "auto" and len(self) > _MOST_EXACT)
        if not by_graph or not len(self):
            return None
        return import_module("acclimate.learners.vector_graph").Graph(self.vectors, self.metric)

    def _packed(self) -> Packed:
        # Not the graph, which can be made again: what is on disk depends on no library's version, and native code
        # is given no memory that was read from a file.
        manifest = {"metric": self.metric, "method": self.method, "ids": self._id_type}
        return Packed(manifest, {"vectors": self.vectors}, {"ids": table_of(self.ids, self._id_type)})

    @classmethod
    def _unpacked(cls, stored: Stored) -> Self:
        told = stored.manifest
        index = cls(
            ids_in(stored), stored.arrays["vectors"], space=told["space"], metric=told["metric"], method="exact"
        )
        if told["method"] not in get_args(Method):
            raise ValueError(f"no method '{told['method']}'")
        index.method = told["method"]
        return index
