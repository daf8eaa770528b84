"""The rows of one effect, and each of its entities' own Hessian: what a joint solver works with."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve

from acclimate.arrays import Diagonal, FloatArray, Form, Full, IntArray, Posterior, Precision
from acclimate.models.grouping import Grouping
from acclimate.models.scaling import Scaling

if TYPE_CHECKING:
    from acclimate.kernels.entities import Rows
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
    def _absent(self) -> bool:
        return bool((self.entity < 0).any())

    @property
    def standardised(self) -> "sparse.csr_array[Any]":
        """The rows ``(n, d)``, written out where ``X`` is in raw units."""
        return self.X if self.unit is None else self.scaling.rows(self.X)

    @property
    def wide(self) -> "sparse.csr_array[Any]":
        """The rows over the coefficients of all entities, ``(n, e * d)``, made anew each time."""
        rows = self.standardised
        if self.lone:
            return rows
        if self._absent:
            rows = sparse.csr_array(sparse.diags_array((self.entity >= 0).astype(np.float64)) @ rows)
            rows.eliminate_zeros()
        cells = self.count * self.width
        index = np.int32 if cells < np.iinfo(np.int32).max else np.int64
        columns = rows.indices.astype(index)
        columns += np.repeat((self.entity * self.width).astype(index), np.diff(rows.indptr))
        return sparse.csr_array((rows.data, columns, rows.indptr), shape=(len(self.entity), cells))

    @cached_property
    def lone(self) -> bool:
        """Whether all rows are of one entity, so that their columns are all the coefficients there are."""
        return _lone(self.entity, self.count)

    def at(self, rows: IntArray) -> "Design":
        """Some of the rows, in the same coordinates."""
        return replace(self, X=self.X[rows], entity=self.entity[rows])

    def narrowed(self, rows: IntArray) -> tuple["Design", IntArray]:
        """Some of the rows, with their entities alone, and which of all these are: one at least."""
        entity = self.entity[rows]
        met = np.unique(entity[entity >= 0])
        met = met if len(met) else np.zeros(1, np.int64)
        number = np.full(self.count + 1, -1)
        number[met] = np.arange(len(met))
        return replace(self, X=self.X[rows], entity=number[entity], count=len(met)), met

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
        return loops().margin(self.rows, coefficients)

    def pullback(self, rows: FloatArray) -> FloatArray:
        """The transpose: numbers of the rows ``(n,)`` gathered in the coefficients ``(e, d)``."""
        if self.lone:
            from acclimate.kernels.rows import gathered

            return self._in_unit(gathered(self._cells, rows, self.width))[None]
        return loops().pullback(self.rows, rows, self.count, self.width)

    def curved(self, curvature: FloatArray, coefficients: FloatArray) -> FloatArray:
        """``X'(c * (X w))``, ``(e, d)``: the rows' part of a product with the Hessian; ``curvature`` (n,)."""
        if self.lone:
            from acclimate.kernels.rows import curved

            return self._in_unit(curved(self._cells, curvature, self._in_unit(coefficients.ravel())))[None]
        return self.pullback(curvature * self.margin(coefficients))

    @cached_property
    def rows(self) -> "Rows":
        """The rows as compiled loops take them."""
        X, grouping = _canonical(self.X), self.grouping
        parts = X.data, X.indices, X.indptr, self.entity, grouping.order, grouping.indptr
        return loops().Rows(*map(loops().writable, parts))

    def pieces(self, *, full: bool) -> Iterator[IntArray]:
        """All entities, in pieces whose precisions are small enough to be worked on at once."""
        # Diagonals are no larger than the means, which are there in one piece.
        step = max(1, _STRIP_CELLS // self.width**2) if full else max(1, self.count)
        for first in range(0, self.count, step):
            yield np.arange(first, min(first + step, self.count))

    def information(self, curvature: FloatArray, *, full: bool, members: IntArray | None = None) -> Precision:
        """``X'diag(curvature)X`` of some entities, or of all: the likelihood's part of their precisions."""
        if not full:
            gram = self._pulled_squares(curvature)
            return Diagonal(gram if members is None else gram[members])
        if self.lone:
            gram = self._gram(curvature)[None]
            return Full(gram if members is None else gram[members])
        members = np.arange(self.count) if members is None else members
        grams = np.zeros((len(members), self.width, self.width))
        loops().add_grams(self.rows, members, curvature, grams)
        return Full(grams)

    def variances(self, prior: Precision, curvature: FloatArray, *, full: bool) -> FloatArray:
        """``x'(P + X'diag(curvature)X)^-1 x`` of each row by its own entity's, ``(n,)``; 0 of rows of none."""
        if not full:
            hessian = prior.plus(self.information(curvature, full=False))
            return self._margin_squares(hessian.inverse().diagonal())
        if self.lone:
            return self._variances_of_one(
                prior.plus(self.information(curvature, full=True)).inverse().full().array[0]
            )
        variances = np.zeros(len(self.entity))
        failed = loops().variances(self.rows, prior.array, curvature, self.width, variances)
        if len(failed):
            hessian = _at(prior, failed).plus(self.information(curvature, full=True, members=failed))
            self.write_forms(hessian.inverse().full().array, failed, variances)
        return variances

    def write_forms(self, matrices: FloatArray, members: IntArray, values: FloatArray) -> None:
        """Write ``x'S x`` of the rows of some entities, by their ``S`` (m, d, d), to those of all rows (n,)."""
        loops().forms(self.rows, members, matrices, values)

    def _variances_of_one(self, S: FloatArray) -> FloatArray:
        """``x'S x`` of all rows, a strip at a time."""
        wide, variances, strip = self.wide, np.empty(len(self.entity)), max(1, _STRIP_CELLS // self.width)
        for first in range(0, len(variances), strip):
            rows = wide[first : first + strip]
            variances[first : first + strip] = rows.multiply(rows @ S).sum(axis=1)
        return variances

    def _pulled_squares(self, rows: FloatArray) -> FloatArray:
        """As :meth:`pullback`, of the squares of all cells."""
        if self.lone:
            from acclimate.kernels.rows import gathered_squares

            unit = np.ones(self.width) if self.unit is None else self.unit
            return gathered_squares(self._cells, rows, unit)[None]
        return loops().pullback(self.rows, rows, self.count, self.width, squared=True)

    def _margin_squares(self, coefficients: FloatArray) -> FloatArray:
        """As :meth:`margin`, of the squares of all cells."""
        if self.lone:
            wide = self.wide
            squares: Any = sparse.csr_array((wide.data**2, wide.indices, wide.indptr), wide.shape)
            return squares @ coefficients.ravel()
        return loops().margin(self.rows, coefficients, squared=True)

    def _gram(self, curvature: FloatArray) -> FloatArray:
        """``X'diag(curvature)X`` of a lone entity, ``(d, d)``."""
        gram = _gram(self.X, curvature)
        if self.unit is not None:
            gram *= self.unit
            gram *= self.unit[:, None]
        return gram


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

    ``inverse`` is that of some entities ``members``, or of all; ``few_rows`` does for the others. ``information``
    is ``X'WX`` of a lone entity, where it is at hand.
    """

    inverse: "Precision | _Root"
    members: IntArray | None = None
    few_rows: "_FewRows | None" = None
    information: Precision | None = None

    @staticmethod
    def of(design: Design, prior: Precision, curvature: FloatArray, *, full: bool) -> "Hessians":
        """Of rows of some curvature ``(n,)``; ``prior`` is of every entity, or one that all have."""
        if not full or design.lone:
            information = design.information(curvature, full=full)
            return Hessians(_Root.of(prior.plus(information)), information=information)
        few = np.flatnonzero(design.sizes < design.width) if len(prior.array) == 1 else np.empty(0, np.int64)
        if not len(few):
            return Hessians(_inverses(design, prior, curvature, np.arange(design.count)))
        members = np.setdiff1d(np.arange(design.count), few, assume_unique=True)
        few_rows = _FewRows.of(design, few, prior, np.sqrt(curvature))
        return Hessians(_inverses(design, prior, curvature, members), members, few_rows)

    def solve(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v`` of every entity, ``(e, d)``."""
        if not isinstance(self.inverse, Full) or (self.members is None and len(vector) == 1):
            return self.inverse.times(vector)
        members = np.arange(len(vector)) if self.members is None else self.members
        solved = np.empty(vector.shape)
        if self.few_rows is not None:
            self.few_rows.solve(vector, solved)
        loops().times(self.inverse.array, members, vector, solved)
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

    so that ``K^-1``, ``(r, r)``, is all that is kept, one behind another: neither Hessians nor their inverses are
    ever there. ``covariance`` is ``(d, d)``, or its diagonal; ``root`` (n,) the square root of ``W``; ``places``
    where each matrix begins, ``(m + 1,)``.
    """

    design: Design
    members: IntArray
    covariance: FloatArray
    root: FloatArray
    inner: FloatArray
    places: IntArray

    @staticmethod
    def of(design: Design, members: IntArray, prior: Precision, root: FloatArray) -> "_FewRows":
        """``prior`` is that of all entities."""
        covariance = prior.inverse().array[0]
        inner, places, failed = loops().inner_inverses(design.rows, members, covariance, root)
        for m in failed:
            r = int(design.sizes[members[m]])
            K = inner[places[m] : places[m + 1]].reshape(r, r)
            K[:] = Full(K[None]).inverse().array[0]
        return _FewRows(design, members, covariance, root, inner, places)

    def solve(self, vector: FloatArray, solved: FloatArray) -> None:
        """Write ``H^-1 v`` of the members to ``solved``, both ``(e, d)``; of those without rows ``P^-1 v``."""
        inner = self.inner, self.places
        loops().solve_inner(self.design.rows, self.members, self.covariance, self.root, inner, vector, solved)


def _inverses(design: Design, prior: Precision, curvature: FloatArray, members: IntArray) -> Full:
    """``H^-1`` of some entities, ``(m, d, d)``."""
    H, P = np.zeros((len(members), design.width, design.width)), _at(prior, members)
    if isinstance(P, Full):
        np.copyto(H, P.array)
    else:
        np.einsum("mdd->md", H)[:] = P.array
    loops().add_grams(design.rows, members, curvature, H)
    return Full(inverted(H))


def inverted(H: FloatArray) -> FloatArray:
    """``H^-1`` of symmetric matrices ``(m, d, d)``, in their place."""
    if H.shape[-1] == 1:
        return np.divide(1.0, H, out=H)
    failed = loops().invert(H)
    if len(failed):
        H[failed] = Full(H[failed]).inverse().array
    return H


def loops():
    """The compiled loops, loaded when they are first needed: whoever only predicts does without."""
    from acclimate.kernels import entities

    return entities


def _lone(entity: IntArray, count: int) -> bool:
    return count == 1 and not bool((entity < 0).any())


def _at(prior: Precision, members: IntArray) -> Precision:
    """Of some entities in their order; not copied where all are asked for."""
    return prior if len(prior.array) in (1, len(members)) else type(prior)(prior.array[members])


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
