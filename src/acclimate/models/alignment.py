"""Two trainings of one encoder: the rotation between their spaces, and how alike their neighbourhoods are."""

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.errors import ConfigError
from acclimate.models.nearest import Seen, top


def procrustes(source: FloatArray, target: FloatArray) -> FloatArray:
    """The orthogonal map ``R`` ``(s, s)`` that brings ``source @ R`` closest to ``target``, both ``(n, s)``.

    Schoenemann, Psychometrika 31 (1966): ``R = U V'`` of ``source' target = U S V'`` minimises
    ``||source R - target||`` over ``R'R = I``, reflections among them.

    Raises:
        ConfigError: the two have other shapes.
        LinAlgError: a number is not finite.
    """
    if source.ndim != 2 or source.shape != target.shape:
        raise ConfigError(f"vectors {source.shape} cannot be mapped to {target.shape}", hint="give two of (n, s)")
    U, _, Vt = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64))
    return U @ Vt


def neighbourhood_overlap(
    first: FloatArray, second: FloatArray, k: int = 10, *, rows: IntArray | None = None
) -> float:
    """The mean share of the ``k`` nearest by cosine that a vector has in common in two spaces.

    It compares what an orthogonal map cannot change, so spaces need no alignment: 1 where only that differs,
    about ``k / (n - 1)`` where they have nothing to do with each other.

    Args:
        first: vectors ``(n, s)``.
        second: those of the same entities, ``(n, r)``.
        k: how many neighbours, less than ``n``.
        rows: positions whose neighbourhoods count, by default all; their neighbours are searched among all.

    Raises:
        ConfigError: shapes do not fit, there are not so many neighbours, or no such rows.
        RowError: a number is not finite.
    """
    if rows is not None and not (len(rows) and rows.min() >= 0 and rows.max() < len(first)):
        raise ConfigError(f"{len(rows):,} rows of {len(first):,} vectors", hint="give one or more, from 0 on")
    if len(first) != len(second) or not 1 <= k < len(first):
        raise ConfigError(
            f"no {k} neighbours to compare among {len(first):,} and {len(second):,} vectors",
            hint="give the vectors of the same entities, more of them than k",
        )
    whose = np.arange(len(first)) if rows is None else rows
    itself = Seen(np.arange(len(whose) + 1), whose)
    one, other = (top(vectors[whose], vectors, k, seen=itself).positions for vectors in (first, second))
    together = np.sort(np.concatenate([one, other], axis=1), axis=1)
    return float(np.count_nonzero(together[:, 1:] == together[:, :-1]) / one.size)
