"""The rows of one effect, and each of its entities' own Hessian: what a joint solver works with."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve

from acclimate.arrays import Diagonal, FloatArray, Form, Full, IntArray, Posterior, Precision
from acclimate.models.grouping import Group, Grouping
from acclimate.models.scaling import Scaling

if TYPE_CHECKING:
    from acclimate.kernels.rows import Cells

_STRIP_CELLS = 2_000_000
"""Cells of the dense strips that a Gram matrix is summed over, or of a piece of posteriors: 16 MB."""

_NARROW = 32
"""Coefficients below which an inverse is as quick as a root, and quicker to use."""

_PAIR = 40.0
"""What the product of a pair of sparse cells costs, in products of a dense matrix product."""


@dataclass(frozen=True)
class Design:
    """One effect's rows in standardised coordinates, and which of its ``count`` entities each is of.

    ``X``: ``(n, d)``; ``entity``: ``(n,)``, from 0, or -1 for rows that the effect has no part in. Coefficients
    are ``(e, d)``. ``unit``: ``(d,)``, what the columns of ``X`` are still to be multiplied by, so that a lone
    entity's need no copy; none where by nothing.
    """

    X: "sparse.csr_array[Any]"
    entity: IntArray
    count: int
    scaling: Scaling
    unit: FloatArray | None = None

    @staticmethod
    def of(
        X: "sparse.csr_array[Any]", entity: IntArray | None, count: int, *, weight: FloatArray, centre: bool
    ) -> "Design":
        """Raw rows of some weight ``(n,)``; without ``entity`` all are the one entity's.

        ``centre=False`` is for diagonal precisions, which cannot carry it.
        """
        entity = np.broadcast_to(np.int64(0), X.shape[0]) if entity is None else entity
        scaling = Scaling.of(X, centre=centre, weight=weight)
        if _lone(entity, count) and scaling.ordinary and not scaling.trivial:
            return Design(X, entity, count, scaling, 1.0 / scaling.scale)
        return Design(scaling.rows(X), entity, count, scaling)

    @property
    def width(self) -> int:
        """Coefficients of one entity."""
        return int(self.X.shape[1])

    @cached_property
    def wide(self) -> "sparse.csr_array[Any]":
        """The rows over the coefficients of all entities, ``(n, e * d)``."""
        rows = self.X
        if self.lone:
            return rows if self.unit is None else self.scaling.rows(rows)
        if bool((self.entity < 0).any()):
            rows = sparse.csr_array(sparse.diags_array((self.entity >= 0).astype(np.float64)) @ rows)
            rows.eliminate_zeros()
        cells = self.count * self.width
        index = np.int32 if cells < np.iinfo(np.int32).max else np.int64
        columns = rows.indices.astype(index)
        columns += np.repeat((self.entity * self.width).astype(index), np.diff(rows.indptr))
        return sparse.csr_array((rows.data, columns, rows.indptr), shape=(len(self.entity), cells))

    @cached_property
    def lone(self) -> bool:
        """Whether all rows are of the one entity that there is."""
        return _lone(self.entity, self.count)

    def at(self, rows: IntArray) -> "Design":
        """Some of the rows, in the same coordinates."""
        return replace(self, X=self.X[rows], entity=self.entity[rows])

    @cached_property
    def _cells(self) -> "Cells":
        from acclimate.kernels.rows import Cells

        return Cells.of(self.X)

    def _in_unit(self, vector: FloatArray) -> FloatArray:
        return vector if self.unit is None else vector * self.unit

    @cached_property
    def grouping(self) -> Grouping:
        """The rows of each entity."""
        return Grouping.of(self.entity, self.count)

    @property
    def sizes(self) -> IntArray:
        """How many rows each entity has, ``(e,)``."""
        return self.grouping.sizes

    def margin(self, coefficients: FloatArray) -> FloatArray:
        """``x . w[entity]`` of each row, ``(n,)``."""
        if self.lone:
            from acclimate.kernels.rows import margins

            return margins(self._cells, self._in_unit(coefficients.ravel()))
        return self.wide @ coefficients.ravel()

    def pullback(self, rows: FloatArray) -> FloatArray:
        """The transpose: numbers of the rows ``(n,)`` gathered in the coefficients ``(e, d)``."""
        if self.lone:
            from acclimate.kernels.rows import gathered

            return self._in_unit(gathered(self._cells, rows, self.width))[None]
        return (self.wide.T @ rows).reshape(self.count, self.width)

    def curved(self, curvature: FloatArray, coefficients: FloatArray) -> FloatArray:
        """``X'(c * (X w))``, ``(e, d)``: the rows' part of a product with the Hessian; ``curvature`` (n,)."""
        if self.lone:
            from acclimate.kernels.rows import curved

            return self._in_unit(curved(self._cells, curvature, self._in_unit(coefficients.ravel())))[None]
        return self.pullback(curvature * self.margin(coefficients))

    def groups(self, members: IntArray | None = None) -> Iterator[Group]:
        """Entities side by side."""
        return self.grouping.groups(self.width, members)

    def weighted(self, group: Group, root: FloatArray) -> FloatArray:
        """The rows of a group, each times a number of its own ``(n,)``: ``(m, r, d)``."""
        return self.dense(group) * group.gathered(root)[..., None]

    def dense(self, group: Group) -> FloatArray:
        """The rows of a group, ``(m, r, d)``."""
        rows: Any = self.X if self.unit is None else self.wide
        if self._is_dense:
            return rows.data.reshape(-1, self.width)[group.rows]
        return rows[group.rows.ravel()].toarray().reshape(*group.rows.shape, self.width)

    @cached_property
    def _is_dense(self) -> bool:
        """Whether every cell of ``X`` is there, so that the cells alone are the matrix."""
        return self.X.nnz == self.X.shape[0] * self.X.shape[1] and bool(self.X.has_canonical_format)

    def pieces(self, *, full: bool) -> Iterator[IntArray]:
        """All entities, in pieces whose precisions are small enough to be worked on at once."""
        # Diagonals are no larger than the means, which are there in one piece.
        step = max(1, _STRIP_CELLS // self.width**2) if full else max(1, self.count)
        for first in range(0, self.count, step):
            yield np.arange(first, min(first + step, self.count))

    def information(self, curvature: FloatArray, *, full: bool, members: IntArray | None = None) -> Precision:
        """``X'diag(curvature)X`` of some entities, or of all: the likelihood's part of their precisions."""
        if not full:
            gram = self._gathered_squares(curvature)
            return Diagonal(gram if members is None else gram[members])
        if self.count == 1:
            gram = self._gram(curvature)[None]
            return Full(gram if members is None else gram[members])
        members = np.arange(self.count) if members is None else members
        grams, root = np.zeros((len(members), self.width, self.width)), np.sqrt(curvature)
        place = np.empty(self.count, np.int64)
        place[members] = np.arange(len(members))
        for group in self.groups(members):
            grams[place[group.members]] = _squared(self.weighted(group, root))
        return Full(grams)

    def variances(self, prior: Precision, curvature: FloatArray, *, full: bool) -> FloatArray:
        """``x'(P + X'diag(curvature)X)^-1 x`` of each row by its own entity's, ``(n,)``; 0 of rows of none."""
        if not full:
            hessian = prior.plus(self.information(curvature, full=False))
            return self._squares() @ hessian.inverse().diagonal().ravel()
        variances, root = np.zeros(len(self.entity)), np.sqrt(curvature)
        if self.count == 1:
            S = prior.plus(self.information(curvature, full=True)).inverse().full().array[0]
            strip = max(1, _STRIP_CELLS // self.width)
            for first in range(0, len(variances), strip):
                rows = self.wide[first : first + strip]
                variances[first : first + strip] = rows.multiply(rows @ S).sum(axis=1)
            return variances
        for group in self.groups():
            inverse = _at(prior, group.members).plus(Full(_squared(self.weighted(group, root)))).inverse()
            X = self.dense(group)
            group.scatter(np.vecdot(X @ inverse.full().array, X), variances)
        return variances

    def _gram(self, curvature: FloatArray) -> FloatArray:
        """``X'diag(curvature)X`` of a lone entity, ``(d, d)``."""
        if self.unit is None:
            return _gram(self.wide, curvature)
        gram = _gram(self.X, curvature)
        gram *= self.unit
        gram *= self.unit[:, None]
        return gram

    def _gathered_squares(self, curvature: FloatArray) -> FloatArray:
        """The diagonals of ``X'diag(curvature)X``, ``(e, d)``."""
        if self.lone:
            from acclimate.kernels.rows import gathered_squares

            unit = np.ones(self.width) if self.unit is None else self.unit
            return gathered_squares(self._cells, curvature, unit)[None]
        return (self._squares().T @ curvature).reshape(self.count, self.width)

    def _squares(self) -> Any:
        """The squared cells over the coefficients of all entities, ``(n, e * d)``."""
        wide = self.wide
        return sparse.csr_array((wide.data**2, wide.indices, wide.indptr), wide.shape)


@dataclass(frozen=True)
class Block:
    """One effect: its rows, its prior in raw units, and the form in which a posterior is kept.

    ``prior``: mean ``(e, d)``, precision ``(e, d, d)`` or ``(e, d)``; or ``(1, d)`` and so on where all entities
    have the same. ``active``: the effect's own factor of each row's weight ``(n,)``, or none where it is 1: a row
    of 0 is passive, and only carries what the effect says of it to the others.
    """

    design: Design
    prior: Posterior
    form: Form
    active: FloatArray | None = None

    def counted(self, rows: FloatArray) -> FloatArray:
        """Numbers of the rows ``(n,)``, as much of each as counts in this effect."""
        return rows if self.active is None else rows * self.active

    @property
    def full(self) -> bool:
        """Whether each entity's whole Hessian is worked with, be it only to invert it."""
        return self.form != "diagonal" and self.design.width > 1

    @cached_property
    def scaled(self) -> Posterior:
        """The prior in scaled coordinates; that of a lone coefficient as a diagonal, the same and quicker."""
        prior = self.prior
        if prior.is_full and not self.full:
            prior = Posterior(prior.mean, prior.P.kept("diagonal").array)
        return self.design.scaling.prior_in(prior)

    def variances(self, curvature: FloatArray) -> FloatArray:
        """``x'H^-1 x`` of each row ``(n,)``: the variance of the effect's part of its margin.

        ``H`` is the own Hessian of the row's entity, at rows of some curvature ``(n,)``.
        """
        return self.design.variances(self.scaled.P, self.counted(curvature), full=self.full)


@dataclass(frozen=True)
class Hessians:
    """Each entity's own Hessian ``P + X'WX``, to be solved with: a preconditioner, and a measure of distance.

    ``inverses`` are those of some entities each; ``few_rows`` does for all others. ``information`` is ``X'WX`` of
    a lone entity, where it is at hand.
    """

    inverses: "list[tuple[IntArray | slice, Precision | _Root]]"
    few_rows: "_FewRows | None" = None
    information: Precision | None = None

    @staticmethod
    def of(design: Design, prior: Precision, curvature: FloatArray, *, full: bool) -> "Hessians":
        """Of rows of some curvature ``(n,)``; ``prior`` is of every entity, or one that all have."""
        if not full or design.count == 1:
            information = design.information(curvature, full=full)
            return Hessians([(slice(None), _Root.of(prior.plus(information)))], information=information)
        root, groups = np.sqrt(curvature), list(design.groups())
        few = [g for g in groups if len(prior.array) == 1 and g.rows.shape[1] < design.width]
        inverses: list[tuple[IntArray | slice, Precision | _Root]] = []
        for group in groups[len(few) :]:  # they come in the order of their sizes
            A = design.weighted(group, root)
            inverses.append((group.members, _at(prior, group.members).plus(Full(_squared(A))).inverse()))
        if few:
            return Hessians(inverses, _FewRows.of(design, few, prior.full(), root))
        idle = np.flatnonzero(design.sizes == 0)
        return Hessians([*inverses, (idle, _at(prior, idle).inverse())])

    def solve(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v`` of every entity, ``(e, d)``."""
        solved = np.empty_like(vector) if self.few_rows is None else self.few_rows.solve(vector)
        for members, inverse in self.inverses:
            solved[members] = inverse.times(vector[members])
        return solved


@dataclass(frozen=True)
class _Root:
    """``L`` with ``L L' = H``, ``(d, d)``, of one entity: a third of the work of an inverse."""

    lower: FloatArray

    @staticmethod
    def of(hessian: Precision) -> "Precision | _Root":
        """What ``H^-1 v`` comes from: an inverse of many, or of what has no root, or next to no width."""
        H = hessian.array
        if not isinstance(hessian, Full) or len(H) > 1 or H.shape[-1] < _NARROW:
            return hessian.inverse()
        try:
            return _Root(np.linalg.cholesky(H[0]))
        except np.linalg.LinAlgError:
            return hessian.inverse()

    def times(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v``, ``(1, d)``."""
        return cho_solve((self.lower, True), vector[0], check_finite=False)[None]


@dataclass(frozen=True)
class _FewRows:
    """Hessians of entities with fewer rows than coefficients and one common prior, in the rows' own space.

    With ``C = P^-1`` and ``A = W^(1/2) X`` of ``r < d`` rows, the identity of Woodbury::

        (P + A'A)^-1 = C - C A' K^-1 A C      K = I + A C A'

    so that ``K^-1``, ``(m, r, r)`` of a group, is all that is kept: neither Hessians nor their inverses are ever
    there. ``root`` is ``(n,)``, the square root of ``W``.
    """

    design: Design
    covariance: FloatArray
    root: FloatArray
    groups: list[tuple[Group, FloatArray]]

    @staticmethod
    def of(design: Design, groups: list[Group], prior: Full, root: FloatArray) -> "_FewRows":
        """``prior`` is that of all entities."""
        C = prior.inverse().array[0]
        inner: list[tuple[Group, FloatArray]] = []
        for group in groups:
            A = design.weighted(group, root)
            K = (A @ C) @ np.swapaxes(A, -1, -2) + np.eye(A.shape[1])
            inner.append((group, Full(K).inverse().array))
        return _FewRows(design, C, root, inner)

    def solve(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v``, ``(e, d)``; of entities in no group, ``P^-1 v``."""
        moved = np.matvec(self.covariance, vector)  # a product of matrices would wake all threads for little
        rows = self.root * self.design.margin(moved)
        solved = np.zeros_like(rows)
        for group, inverse in self.groups:
            group.scatter(np.matvec(inverse, group.gathered(rows)), solved)
        moved -= np.matvec(self.covariance, self.design.pullback(self.root * solved))
        return moved


def _lone(entity: IntArray, count: int) -> bool:
    return count == 1 and not bool((entity < 0).any())


def _squared(A: FloatArray) -> FloatArray:
    """``A'A`` of each, ``(m, d, d)``."""
    return np.swapaxes(A, -1, -2) @ A


def _at(prior: Precision, members: IntArray) -> Precision:
    return prior if len(prior.array) == 1 else type(prior)(prior.array[members])


def _gram(X: "sparse.csr_array[Any]", curvature: FloatArray) -> FloatArray:
    """``X'diag(curvature)X``: pairs of cells where those are few, or else a strip of dense rows at a time."""
    rows, d = X.shape
    pairs = float((np.diff(X.indptr).astype(np.float64) ** 2).sum()) / 2.0
    if _PAIR * pairs < rows * d * d:
        from acclimate.kernels.gram import weighted_gram

        return weighted_gram(_canonical(X), curvature)
    total = np.zeros((d, d))
    strip = max(1, _STRIP_CELLS // d)
    for first in range(0, rows, strip):
        part = X[first : first + strip].toarray()
        total += part.T @ (part * curvature[first : first + strip, None])
    return total


def _canonical(X: "sparse.csr_array[Any]") -> "sparse.csr_array[Any]":
    """One cell a place, in the order of the columns."""
    if X.has_canonical_format:
        return X
    rows = X.copy()
    rows.sum_duplicates()
    return rows
