"""What rows say of a shared effect when the entities' coefficients are not known: a Schur complement.

Notation: the shared effect ``f`` has rows ``X`` and prior precision ``P_f``; entity ``e`` of another effect has
rows ``Z_e`` and prior ``P_e``; rows have curvatures ``W``. With ``F = X'WX``, ``N_e = Z_e'W_e Z_e``,
``H_e = P_e + N_e`` and ``G_e = Z_e'W_e X_e`` integrating the entities out leaves::

    S = F - sum_e G_e'H_e^-1 G_e = sum_e X_e'(W_e^-1 + Z_e P_e^-1 Z_e')^-1 X_e

An entity that has learned before depends on ``f`` by what it has learned: where ``f`` turns out to be greater
by ``v``, its own coefficients turn out to be less by ``J_e v``. Then its rows are ``X_e - Z_e J_e`` to ``f``, and
with ``K_e = P_e J_e`` and ``T_e = G_e + K_e``::

    S = F + sum_e (K_e'P_e^-1 K_e - T_e'H_e^-1 T_e)

which is positive semidefinite whatever ``J_e`` is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from acclimate.arrays import Diagonal, FloatArray, Full, IntArray, Posterior, Precision
from acclimate.models.blocks import Block, Design
from acclimate.models.scaling import Scaling

_WIDEST = 512
"""Coefficients of a shared effect up to which entities are integrated out by their matrices."""

_PIECE_CELLS = 2_000_000
"""Cells of the matrices ``T_e`` that are worked on at once: 16 MB."""

_TINY = 1e-10
"""Information, in units of the prior's, that is as good as none."""

_LEAST = 1e-12
"""Part of the information that is left at least; a difference says nothing of less."""


@dataclass(frozen=True)
class Other:
    """Entities of an effect that are integrated out.

    ``block``: over the same rows. ``population``: that of its entities, mean ``(d,)``, raw; what an entity knows
    beyond it is from rows before. ``shared``: of each of its coefficients the place of the same one in the shared
    effect, -1 for none, ``(d,)``. Where entities have coefficients of their own both are ``(e, d)``.
    """

    block: Block
    population: Posterior
    shared: IntArray


def marginal_precision(block: Block, curvature: FloatArray, others: Sequence[Sequence[Other]]) -> Precision:
    """The precision of a shared effect with the entities of others integrated out, in scaled coordinates.

    Of several effects each is integrated out with the rest known, and what that adds to the covariance that the
    rows leave is added up::

        M^-1 = F^-1 + sum_k (S_k^-1 - F^-1)        precision = P_f + M

    This is exact for one effect, and for several wherever they take directions of the rows that are the same or
    orthogonal (a balanced table). ``S_k`` counts as ``F`` in directions in which it is the larger, which it can be
    where entities have learned before. ``M`` is never negative, so that the precision is at least ``P_f``.

    Args:
        block: the shared effect; one entity.
        curvature: of each row, weighted, ``(n,)``.
        others: those that are integrated out, by effect; no row is of two entities of an effect.
    """
    counted, prior = block.counted(curvature), block.scaled.P
    F = block.design.information(counted, full=block.full)
    if not others:
        return prior.plus(F)
    left = [F.array[0] - sum(_absorbed(block, other, counted) for other in effect) for effect in others]
    if isinstance(F, Diagonal):
        return prior.plus(Diagonal(_joined_diagonals(F.array[0], left, prior.diagonal()[0])[None]))
    return prior.plus(Full(_joined(F.array[0], left, prior.full().array[0])[None]))


def _joined(F: FloatArray, parts: Sequence[FloatArray], P: FloatArray) -> FloatArray:
    """``M`` of matrices ``(d, d)``, positive semidefinite whatever rounding makes of them.

    In coordinates in which a matrix that they are small beside is the identity, eigenvalues that are out of bounds
    are moved back. What is not finite stays so, and is told by whoever keeps it.
    """
    if not np.isfinite(parts).all():
        return np.full_like(F, np.nan)
    root = Full(P if len(parts) == 1 else F + _TINY * P).root()
    if len(parts) == 1:
        values, vectors = _inside(root, parts[0])
        half = root @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return half @ half.T
    rest = np.eye(len(F))
    for S in parts:
        values, vectors = _inside(root, S + _TINY * P)
        rest += (vectors * (1.0 / np.clip(values, _LEAST, 1.0) - 1.0)) @ vectors.T
    half = np.linalg.solve(np.linalg.cholesky(rest), root.T)  # rest >= I
    return half.T @ half


def _inside(root: FloatArray, S: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues and vectors of ``L^-1 S L^-T`` for a root ``L``."""
    inside = np.linalg.solve(root, np.linalg.solve(root, S).T)
    values, vectors = np.linalg.eigh(0.5 * (inside + inside.T))
    return values, vectors


def _joined_diagonals(F: FloatArray, parts: Sequence[FloatArray], P: FloatArray) -> FloatArray:
    """The same of diagonals ``(d,)``."""
    if len(parts) == 1:
        return np.maximum(parts[0], 0.0)
    floor = _TINY * P
    taken = [1.0 / np.clip((S + floor) / (F + floor), _LEAST, 1.0) - 1.0 for S in parts]
    return (F + floor) / (1.0 + np.sum(taken, axis=0))


def _absorbed(block: Block, other: Other, curvature: FloatArray) -> FloatArray:
    """What entities take of the information in rows of some curvature: ``F - S``, or its diagonal."""
    exact = block.full and block.design.width <= _WIDEST and other.block.full
    return (_by_matrices if exact else _by_bound)(block, other, curvature)


def _by_matrices(block: Block, other: Other, curvature: FloatArray) -> FloatArray:
    design, prior, width = other.block.design, other.block.scaled.P, block.design.width
    dependence = _Dependence.of(block.design, other)
    absorbed = np.zeros((width, width))
    for members in _pieces(design, width):
        P = prior if len(prior.array) == 1 else Full(prior.full().array[members])
        H = P.plus(design.information(curvature, full=True, members=members))
        cross = _cross_matrices(block.design, design, curvature, members)
        if dependence is not None:
            K = dependence.matrices(P, members)
            absorbed -= _squared(np.linalg.solve(P.full().root(), K))
            cross = cross + K
        absorbed += _squared(np.linalg.solve(H.full().root(), cross))
    return absorbed


def _by_bound(block: Block, other: Other, curvature: FloatArray) -> FloatArray:
    """The same but for a diagonal in the place of ``N_e``, which takes less: ``x x' <= diag(|x|_j sum |x|)``."""
    design, prior = other.block.design, other.block.scaled.P
    G, size = _cross(block.design, design, curvature), abs(design.wide)
    P = np.broadcast_to(prior.marginal(), (design.count, design.width)).ravel()
    H = P + size.T @ (curvature * size.sum(axis=1))
    dependence = _Dependence.of(block.design, other)
    if dependence is None:
        return _weighted(G, 1.0 / H, full=block.full)
    K = dependence.diagonals(P)
    taken, before = ((_weighted(rows, 1.0 / D, full=block.full)) for rows, D in ((G + K, H), (K, P)))
    return taken - before


def _cross(shared: Design, design: Design, curvature: FloatArray) -> "sparse.csr_array[Any]":
    """``G_e`` of all entities below one another, ``(e * d, d_f)``."""
    return sparse.csr_array((sparse.diags_array(curvature) @ design.wide).T @ shared.wide)


def _cross_matrices(shared: Design, design: Design, curvature: FloatArray, members: IntArray) -> FloatArray:
    """``G_e`` of some entities that follow one another, ``(m, d, d_f)``: all would be larger than their states."""
    ends, width = design.grouping.indptr[[members[0], members[-1] + 1]], design.width
    rows = design.grouping.order[ends[0] : ends[1]]
    weighted = sparse.csr_array(sparse.diags_array(curvature[rows]) @ design.at(rows).standardised)
    columns = weighted.indices + np.repeat((design.entity[rows] - members[0]) * width, np.diff(weighted.indptr))
    wide = sparse.csr_array((weighted.data, columns, weighted.indptr), (len(rows), len(members) * width))
    cross: Any = wide.T @ shared.at(rows).standardised
    return cross.toarray().reshape(len(members), width, shared.width)


@dataclass(frozen=True)
class _Dependence:
    """How what entities know depends on the shared effect, as far as that can be told from their own posteriors.

    Of a coefficient that both have a row says but the sum. So what an entity ``P_e`` knows beyond its population
    ``B`` is known of the sum, ``K_e = (P_e - B) E``, where ``E`` (d, d_f) is which coefficients are the same. That
    is exact if they are all that the shared effect has; of the others, rows before are taken to be at their mean.
    """

    B: Precision
    E: "sparse.csr_array[Any]"

    @staticmethod
    def of(shared: Design, other: Other) -> "_Dependence | None":
        """``None`` where no entity has learned before."""
        block, population = other.block, other.population
        known = block.prior.precision
        if block.prior.is_full == population.is_full and np.array_equal(
            known, np.broadcast_to(population.precision, known.shape)
        ):
            return None
        scaling = block.design.scaling
        B = scaling.precision_in(population.P if block.full else Diagonal(population.P.diagonal()))
        if other.shared.ndim == 1:
            return _Dependence(B, sparse.csr_array(sharing(shared.scaling, scaling, other.shared)))
        return _Dependence(B, _moving(shared.scaling, other.shared))

    def matrices(self, P: Precision, members: IntArray) -> FloatArray:
        """``K_e`` of some entities, ``(m, d, d_f)``."""
        d = self.B.array.shape[-1]
        if self.E.shape[0] == d:  # the same for all
            return (P.full().array - self.B.full().array) @ self.E.toarray()
        E = self.E[(members[:, None] * d + np.arange(d)).ravel()].toarray().reshape(len(members), d, -1)
        return (P.full().array - type(self.B)(self.B.array[members]).full().array) @ E

    def diagonals(self, P: FloatArray) -> "sparse.csr_array[Any]":
        """The same of precisions ``(e * d,)``, below one another."""
        E, d = self.E, self.B.array.shape[-1]
        known = P.reshape(-1, d) - self.B.marginal()
        count = len(known) if E.shape[0] == d else 1
        cells = np.tile(np.diff(E.indptr), count)
        data = np.repeat(known.ravel(), cells) * np.tile(E.data, count)
        indptr = np.concatenate([[0], np.cumsum(cells)])
        return sparse.csr_array((data, np.tile(E.indices, count), indptr), (len(cells), E.shape[1]))


def sharing(shared: Scaling, inside: Scaling, places: IntArray) -> FloatArray:
    """By how much each scaled coefficient of one effect moves those of another that are the same, ``(d, d_f)``.

    ``places`` (d,) are these in the first effect, -1 for none.
    """
    return inside.mean_in(_moving(shared, places[None]).toarray().T).T


def _moving(shared: Scaling, places: IntArray) -> "sparse.csr_array[Any]":
    """By how much each scaled coefficient of an effect moves raw ones, of which it has those at ``places`` (e, d).

    Rows of ``T = diag(1/s) - e0 (c/s)'``, below one another as ``(e * d, d_f)``, without what an entity lacks. Its
    intercept is first.
    """
    row, (e, j) = np.arange(places.size).reshape(places.shape), np.nonzero(places >= 0)
    at = places[e, j]
    centred = (at > 0) & (places[e, 0] == 0) & (shared.centre[at] != 0.0)
    rows, columns = np.concatenate([row[e, j], row[e[centred], 0]]), np.concatenate([at, at[centred]])
    slope = shared.centre[at[centred]] / shared.scale[at[centred]]
    values = np.concatenate([1.0 / shared.scale[at], -slope])
    return sparse.csr_array(sparse.coo_array((values, (rows, columns)), shape=(places.size, len(shared.scale))))


def _pieces(design: Design, width: int) -> Iterator[IntArray]:
    step = max(1, _PIECE_CELLS // (design.width * max(design.width, width)))
    for first in range(0, design.count, step):
        yield np.arange(first, min(first + step, design.count))


def _squared(rows: FloatArray) -> FloatArray:
    """``sum_e Y_e'Y_e`` of ``(e, d, d_f)``."""
    flat = rows.reshape(-1, rows.shape[-1])
    return flat.T @ flat


def _weighted(rows: "sparse.csr_array[Any]", weight: FloatArray, *, full: bool) -> FloatArray:
    """``Y'diag(weight)Y``, or its diagonal."""
    weighted: Any = sparse.diags_array(weight) @ rows
    product: Any = rows.T @ weighted if full else rows.multiply(weighted)
    return product.toarray() if full else np.asarray(product.sum(axis=0), np.float64)
