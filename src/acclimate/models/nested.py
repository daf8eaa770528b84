"""Effects whose entities lie within one another, as videos within their authors: what rows say of each.

Notation: levels ``0, 1, ..`` from the finest on. The entities that a row is of, one a level, are its *cell*. The
rows of cell ``c`` say ``exp(l_c'w - w'N_c w/2)`` of its coefficients ``w = (w_0, w_1, ..)`` of all levels, and an
entity of a level has the prior ``N(m_0, P_0^-1)``. The finest level is integrated out, with ``r`` for the others::

    H = P_0 + N_00        J = H^-1 N_0r        N_rr - N_r0 J        l_r - J'(l_0 + P_0 m_0)

and what is left is added up over the cells that are one to the others, level by level. On the way back, with the
covariance ``S_r`` and the means ``w_r`` of the others, and ``Q = N_0r S_r N_r0``::

    w_0 = H^-1 (l_0 + P_0 m_0) - J w_r        S_00 = H^-1 + J S_r J'        S_0r = -J S_r
    A_0 = S_00^-1 - P_0 = N_00 - Q (H + Q)^-1 H

This is the elimination of a tree, exact where each entity lies within one of the next level. One that lies in two
counts as two in what it leaves open to the others, and what its cells say of it is added up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from acclimate.arrays import FloatArray, Full, IntArray, Precision
from acclimate.models.blocks import Block, Design, inverted
from acclimate.models.scaling import Scaling

Prior: TypeAlias = tuple[FloatArray, Precision]
"""Linear term ``P m`` and precision ``P`` of entities, or one that all have."""

_NEARLY = 1.25
"""Entities of the next level that those of one lie within, on average, up to which it counts as one."""

_CROWD = 64
"""Entities within one of the next level, on average, beyond which that one is as good as known to each of them."""

_PIECE_CELLS = 2_000_000
"""Numbers in the matrices of the cells that are worked on at once: 16 MB."""


def chains(blocks: Sequence[Block], known: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """The places of effects, together those that lie within one another, from the finest on.

    An effect that works with diagonals stays alone. ``known``: those at the fit; the few rows of an update would
    have any two effects lie within one another, as the items of one user do.
    """
    if known is not None:
        return [part for chain in known for part in _parts(blocks, chain)]
    left = sorted(range(len(blocks)), key=lambda k: (-blocks[k].design.count, -blocks[k].design.width))
    found = list[list[int]]()
    while left:
        chain = [left.pop(0)]
        for k in left.copy():
            if _lies_within(blocks[chain[-1]], blocks[k]):
                chain.append(k)
                left.remove(k)
        found.append(chain)
    return found


def _parts(blocks: Sequence[Block], chain: Sequence[int]) -> list[list[int]]:
    """A chain, cut where the entities of one level do not lie within the next."""
    parts = [[chain[0]]]
    for k in chain[1:]:
        if _lies_within(blocks[parts[-1][-1]], blocks[k]):
            parts[-1].append(k)
        else:
            parts.append([k])
    return parts


def _lies_within(fine: Block, coarse: Block) -> bool:
    if any(block.form == "diagonal" and block.design.width > 1 for block in (fine, coarse)):
        return False
    inner, outer = fine.design, coarse.design
    if inner.count > _CROWD * outer.count:
        return False
    both = np.flatnonzero((inner.entity >= 0) & (outer.entity >= 0))
    places = inner.entity[both], outer.entity[both]
    met = sparse.coo_array((np.ones(len(both), np.int8), places), shape=(inner.count, outer.count)).tocsr()
    located = np.count_nonzero(np.diff(met.indptr))  # that of a few says nothing of the others
    return bool(2 * located > inner.count and met.nnz <= _NEARLY * located)


@dataclass(frozen=True)
class Cells:
    """The rows of effects that lie within one another, by cell.

    ``blocks``: the effects over the same ``n`` rows, the finest first. ``rows``: all of their columns side by
    side, ``(n, D)``; ``counted``: the same times the root of how much each row counts in an effect. ``entity``:
    ``(levels, c)``, which of each level a cell is of, -1 for none.
    """

    blocks: list[Block]
    rows: Design
    counted: Design
    entity: IntArray

    @staticmethod
    def of(blocks: Sequence[Block]) -> "Cells":
        """The cells of effects, the finest first."""
        codes = np.stack([block.design.entity for block in blocks])
        cell, first = _distinct(codes)
        present = [(block.design.entity >= 0).astype(np.float64) for block in blocks]
        roots = [
            here if b.active is None else here * np.sqrt(b.active) for here, b in zip(present, blocks, strict=True)
        ]
        rows, counted = (_columns(blocks, factors, cell, len(first)) for factors in (present, roots))
        return Cells(list(blocks), rows, counted, codes[:, first])

    @cached_property
    def roots(self) -> IntArray:
        """The coarsest entity of each cell ``(c,)``, numbered from 1 on through all levels; 0 for none."""
        root, before = np.zeros(self.entity.shape[1], np.int64), 1
        for entity, block in zip(self.entity, self.blocks, strict=True):
            root = np.where(entity >= 0, entity + before, root)
            before += block.design.count
        return root

    def pieces(self) -> Iterator[IntArray]:
        """All cells, those of one root together, in pieces whose matrices are small enough to be worked on."""
        order = np.argsort(self.roots, kind="stable")
        begins = np.flatnonzero(np.diff(self.roots[order], prepend=-1))
        step = max(1, _PIECE_CELLS // self.rows.width**2)
        cuts = begins[np.searchsorted(begins, np.arange(step, len(order), step), side="right") - 1]
        yield from np.split(order, np.unique(cuts[cuts > 0]))

    def gathered(self, slope: FloatArray) -> FloatArray:
        """The slopes of rows ``(n,)`` gathered in the coefficients of their cells, ``(c, D)``."""
        parts, first = list[FloatArray](), 0
        for block in self.blocks:
            last = first + block.design.width
            parts.append(self.rows.pullback(block.counted(slope))[:, first:last])
            first = last
        return np.hstack(parts)

    def said(
        self, means: Sequence[FloatArray], gradient: FloatArray, curvature: FloatArray, cells: IntArray
    ) -> "Said":
        """What the rows of some cells say, of a root all or none.

        Args:
            means: of the entities of each level, ``(e, d)``.
            gradient: gathered from the rows at these means, ``(c, D)``.
            curvature: of the rows there, ``(n,)``.
            cells: those that are asked for.
        """
        N = self.counted.information(curvature, full=True, members=cells).full().array
        at = self.entity[:, cells]
        w = _of_cells(means, at)
        return Said(np.matvec(N, w) - gradient[cells], N, at, [block.design.width for block in self.blocks])

    def variances(self, covariance: FloatArray, cells: IntArray, variances: FloatArray) -> None:
        """Write ``x'S x`` of the rows of some cells of covariances ``(c, D, D)`` to those of all rows ``(n,)``."""
        self.rows.write_forms(covariance, cells, variances)


@dataclass(frozen=True)
class Said:
    """What the rows of cells say of them: ``linear`` (c, D) and ``information`` (c, D, D).

    ``entity``: ``(levels, c)``, -1 for none; ``widths``: coefficients of each level, from the finest on.
    """

    linear: FloatArray
    information: FloatArray
    entity: IntArray
    widths: list[int]

    def with_known(
        self, means: Sequence[FloatArray], slope: FloatArray, information: FloatArray, shared: FloatArray
    ) -> "Said":
        """The same and what rows before have said of the entities of the finest level.

        Args:
            means: of the entities of each level, ``(e, d)``, where rows before had ..
            slope: .. this slope in each entity of the finest level, ``(e, d)``, and
            information: this information ``(e, d, d)``.
            shared: how the coefficients of a cell move those of its finest level, ``(d, D)``: of a coefficient
                that levels share rows say but the sum.
        """
        finest, there = self.entity[0], np.repeat(self.entity >= 0, self.widths, axis=0).T
        # Of an entity of several cells each has an equal part; a cell without one has none.
        cells = np.bincount(finest[finest >= 0], minlength=len(information))
        part = np.where(finest >= 0, 1.0 / np.maximum(cells[finest], 1), 0.0)
        moved = shared * there[:, None]
        backwards = np.swapaxes(moved, 1, 2)
        information, slope = part[:, None, None] * information[finest], part[:, None] * slope[finest]
        said = np.matvec(information, np.matvec(moved, _of_cells(means, self.entity))) - slope
        return replace(
            self,
            linear=self.linear + np.matvec(backwards, said),
            information=self.information + backwards @ information @ moved,
        )

    @cached_property
    def members(self) -> list[IntArray]:
        """The entities of each level that there are, in order."""
        return [np.unique(entity[entity >= 0]) for entity in self.entity]

    def evidence(self, priors: Sequence[Prior]) -> tuple[list[tuple[FloatArray, Full]], FloatArray]:
        """What the rows say of each entity, all others integrated out, and the covariances of the cells.

        Args:
            priors: of each level ``P m`` and ``P``, of all of its entities or one that all have.

        Returns:
            Linear terms and information of the members of each level, and ``(c, D, D)``.
        """
        found = list[tuple[FloatArray, Full]]()
        covariance, _ = self._eliminated(0, self.linear, self.information, priors, found)
        return found[::-1], covariance

    def _eliminated(
        self,
        level: int,
        linear: FloatArray,
        N: FloatArray,
        priors: Sequence[Prior],
        found: list[tuple[FloatArray, Full]],
    ) -> tuple[FloatArray, FloatArray]:
        """Covariances and means of the cells of a level and all coarser ones, and evidence, the coarsest first."""
        tree, d = self._tree[level], self.widths[level]
        pull, P = priors[level][0], priors[level][1].full().array
        # Of a cell without an entity the rows have zeros here, and whichever prior it gets changes nothing.
        H = N[:, :d, :d] + (P if len(P) == 1 else P[tree.entity])
        said, cross = linear[:, :d] + (pull if len(P) == 1 else pull[tree.entity]), N[:, :d, d:]
        inverse = inverted(H.copy())
        alone = np.matvec(inverse, said)
        if level == len(self.widths) - 1:
            found.append((_summed(tree.members, linear), Full(_summed(tree.members, N))))
            return inverse, alone

        # 1. Integrated out, and what is left added up to the cells of the next level.
        J, backwards = inverse @ cross, np.swapaxes(cross, 1, 2)
        rest = linear[:, d:] - np.matvec(backwards, alone), N[:, d:, d:] - backwards @ J
        l_r, N_r = (_summed(tree.next, part) for part in rest)
        S_r, w_r = (above[tree.up] for above in self._eliminated(level + 1, l_r, N_r, priors, found))

        # 2. On the way back: the means, what is known of this level with the others open, and the covariance.
        w = alone - np.matvec(J, w_r)
        crossed = J @ S_r
        Q = cross @ S_r @ backwards
        taken = Q @ inverted(H + Q) @ H
        A = N[:, :d, :d] - 0.5 * (taken + np.swapaxes(taken, 1, 2))
        gradient = np.matvec(N[:, :d, :d], w) + np.matvec(cross, w_r) - linear[:, :d]
        linear = np.matvec(A, w) - gradient
        found.append((_summed(tree.members, linear), Full(_summed(tree.members, A))))
        S = np.empty_like(N)
        S[:, :d, :d], S[:, d:, d:] = inverse + crossed @ np.swapaxes(J, 1, 2), S_r
        S[:, :d, d:], S[:, d:, :d] = -crossed, -np.swapaxes(crossed, 1, 2)
        return S, np.hstack([w, w_r])

    @cached_property
    def _tree(self) -> list["_Level"]:
        found, codes = list[_Level](), self.entity
        for members in self.members:
            place = np.where(codes[0] >= 0, np.searchsorted(members, codes[0]), -1)
            up, first = _distinct(codes[1:])
            found.append(_Level(codes[0], up, _adding(place, len(members)), _adding(up, len(first))))
            codes = codes[1:, first]
        return found


@dataclass(frozen=True)
class _Level:
    """The cells that are distinct to a level and all coarser ones: ``entity`` and, of the next level, cell ``up``.

    ``members`` and ``next`` add up over the cells of each entity, and of each cell of the next level.
    """

    entity: IntArray
    up: IntArray
    members: "sparse.csr_array[Any]"
    next: "sparse.csr_array[Any]"


def _distinct(codes: IntArray) -> tuple[IntArray, IntArray]:
    """Which of the distinct columns of ``(k, n)`` each is, and where each of these comes first."""
    which = np.zeros(codes.shape[1], np.int64)
    for row in codes:
        _, which = np.unique(which * (row.max(initial=0) + 2) + row + 1, return_inverse=True)
    _, first = np.unique(which, return_index=True)
    return which, first


def _of_cells(means: Sequence[FloatArray], entity: IntArray) -> FloatArray:
    """The means ``(c, D)`` of all levels of each cell, 0 where it is of none."""
    return np.hstack([mean[e] * (e >= 0)[:, None] for mean, e in zip(means, entity, strict=True)])


def _columns(blocks: Sequence[Block], factors: Sequence[FloatArray], cell: IntArray, count: int) -> Design:
    """The columns of all blocks, each times a number of its rows ``(n,)``, by cell; zeros stay written out."""
    parts = list[Any]()
    for block, factor in zip(blocks, factors, strict=True):
        X: Any = block.design.standardised
        data = X.data * np.repeat(factor, np.diff(X.indptr))
        parts.append(sparse.csr_array((data, X.indices, X.indptr), X.shape))
    together = sparse.csr_array(sparse.hstack(parts, format="csr"))
    width = together.shape[1]
    return Design(together, cell, count, Scaling(np.zeros(width), np.ones(width)))


def _adding(place: IntArray, count: int) -> "sparse.csr_array[Any]":
    """The matrix that adds up what has the same of so many places; -1 is left out."""
    kept = np.flatnonzero(place >= 0)
    return sparse.csr_array((np.ones(len(kept)), (place[kept], kept)), shape=(count, len(place)))


def _summed(adding: "sparse.csr_array[Any]", values: FloatArray) -> FloatArray:
    return (adding @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
