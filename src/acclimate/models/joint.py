"""Fixed and random effects as one problem: joint MAP by Newton's method with conjugate gradients.

Coordinate descent over the blocks converges slowly where they overlap (an intercept and the mean of all users'
intercepts, say). Here the coefficients of all entities of all blocks are one vector over one sparse design, and
each Newton system is solved by conjugate gradients, preconditioned by every entity's own Hessian.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from acclimate.artifacts import FloatArray, IntArray, Posterior
from acclimate.models.gaussian import Diagonal, embedded, in_form, inverse, reduced
from acclimate.models.likelihood import Line, Loss, loss_derivatives
from acclimate.models.scaling import Scaling

_FORCING = 0.05
"""Each Newton system is solved to this fraction of its right-hand side; the next step mends the rest."""

_PATIENCE = 30
"""Products that a Newton system may take before the next one gets a preconditioner of its own curvature."""

_GRAM_CELLS = 2_000_000
"""Cells of the dense strips that a Gram matrix is summed over: 16 MB."""


@dataclass(frozen=True)
class Block:
    """One effect: its rows, whose they are, and its prior.

    ``X``: ``(n, d)``; ``entity``: ``(n,)``, from 0, or -1 for rows that the effect has no part in (a fixed effect
    has one entity). ``prior``: mean ``(e, d)``, precision ``(e, d, d)`` or ``(e, d)``.
    ``diagonal``: what a diagonal posterior keeps.
    """

    X: "sparse.csr_array[Any]"
    entity: IntArray
    prior: Posterior
    diagonal: Diagonal = "diagonal"

    @cached_property
    def design(self) -> "sparse.csr_array[Any]":
        """The rows over the coefficients of all entities, ``(n, e * d)``."""
        rows = self.X
        absent = bool((self.entity < 0).any())
        if len(self.prior.mean) == 1 and not absent:
            return rows
        if absent:
            rows = sparse.csr_array(sparse.diags_array((self.entity >= 0).astype(np.float64)) @ rows)
            rows.eliminate_zeros()
        width = self.prior.mean.size
        index = np.int32 if width < np.iinfo(np.int32).max else np.int64
        shift = np.repeat(self.entity.astype(index) * index(rows.shape[1]), np.diff(rows.indptr))
        columns = rows.indices.astype(index) + shift
        return sparse.csr_array((rows.data, columns, rows.indptr), shape=(len(self.entity), width))

    @property
    def full(self) -> bool:
        """Whether each entity's whole Hessian is worked with, be it only to invert it."""
        return self.prior.is_full or self.diagonal == "marginal"

    def information(self, curvature: FloatArray) -> FloatArray:
        """``X'diag(curvature)X`` of each entity: ``(e, d, d)``, or its diagonal ``(e, d)``."""
        count, d = self.prior.mean.shape
        Z = self.design
        if not self.full:
            return np.asarray(Z.multiply(Z).T @ curvature).reshape(count, d)
        if count == 1:
            return _gram(Z, curvature)[None]
        weighted = sparse.csr_array(
            (Z.data * np.repeat(curvature, np.diff(Z.indptr)), Z.indices, Z.indptr), Z.shape
        )
        cells = (sparse.csr_array(Z.T) @ weighted).tocoo()
        grams = np.zeros((count, d, d))
        grams[cells.row // d, cells.row % d, cells.col % d] = cells.data
        return grams


@dataclass(frozen=True)
class Solution:
    """The joint optimum, and how it was reached.

    ``posteriors``: one per block, mean ``(e, d)``, precision in the form of its prior. ``information``: per block,
    the likelihood's part of the precision; ``evidence``: ``(e, d)``, the linear term of the likelihood's quadratic
    approximation there, whether or not the optimum was reached exactly. ``steps`` and ``products``: Newton steps
    and design products taken. ``decrement``: the joint Newton decrement, in posterior standard deviations left to
    go; ``converged``: whether it is within the tolerance; ``settled``: per block, whether each entity's own part
    of it is.
    """

    posteriors: list[Posterior]
    information: list[FloatArray]
    evidence: list[FloatArray]
    steps: int
    products: int
    decrement: float
    converged: bool
    settled: list[NDArray[np.bool_]]


def solve_joint(
    blocks: Sequence[Block],
    y: FloatArray,
    offset: FloatArray,
    weight: FloatArray,
    *,
    loss: Loss = "logistic",
    start: Sequence[FloatArray] | None = None,
    information: Sequence[FloatArray] | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 50,
) -> Solution:
    """Minimise ``sum_i s_i loss(y_i, z_i) + sum_k sum_e (w - m)'P(w - m)/2`` over all blocks together.

    Args:
        blocks: the effects, over the same ``n`` rows.
        y: labels ``(n,)``.
        offset: known part of the margin, ``(n,)``.
        weight: row weights ``(n,)``.
        loss: ``logistic`` or ``squared``.
        start: means ``(e, d)`` per block to begin at; the prior means without.
        information: per block as in :class:`Solution`, to precondition with at first; computed without.
        tolerance: joint Newton decrement at which to stop.
        max_steps: Newton steps at most.
    """
    scalings = [Scaling.of(block.X, centre=block.prior.is_full, weight=weight) for block in blocks]
    problem = _Problem([_scaled(s, b) for s, b in zip(scalings, blocks, strict=True)], y, weight, loss)
    means = [b.prior.mean for b in blocks] if start is None else start
    w = problem.joined([s.mean_in(m) for s, m in zip(scalings, means, strict=True)])
    z = problem.margin(w) + offset
    if information is None:
        own = problem.own(problem.information(problem.derivatives(w, z)[1]))
    else:
        own = problem.own([s.precision_in(i) for s, i in zip(scalings, information, strict=True)])
    steps = products = taken = 0
    while True:
        gradient, curvature = problem.derivatives(w, z)
        if taken > _PATIENCE:
            own = problem.own(problem.information(curvature))
        direction, taken = problem.newton_direction(gradient, curvature, own)
        products += taken
        decrement = float(np.sqrt(np.abs(gradient @ direction)))
        if decrement <= tolerance or steps == max_steps:
            # The step was preconditioned by an earlier curvature: the present one has to agree. Alone it would
            # not do, since where effects overlap the entities' own decrements are many times too small.
            own = problem.own(problem.information(curvature))
            decrement = max(decrement, _norm(own.decrements(gradient)))
            if decrement <= tolerance or steps == max_steps:
                break
        change = problem.margin(direction)
        length = problem.step_length(w, z, direction, change, gradient)
        w, z = w + length * direction, z + length * change
        steps += 1
    means = _split(w, problem.shapes)
    slope = weight * loss_derivatives(loss, y, z)[0]
    evidence = [
        _apply(in_form(i, full=block.prior.is_full), m) - (block.design.T @ slope).reshape(m.shape)
        for block, i, m in zip(problem.blocks, own.information, means, strict=True)
    ]
    return Solution(
        posteriors=[
            Posterior(s.mean_out(m), s.precision_out(_kept(b, H)))
            for s, b, m, H in zip(scalings, problem.blocks, means, own.hessians, strict=True)
        ],
        information=[s.precision_out(i) for s, i in zip(scalings, own.information, strict=True)],
        evidence=[s.slope_out(e) for s, e in zip(scalings, evidence, strict=True)],
        steps=steps,
        products=products,
        decrement=decrement,
        converged=decrement <= tolerance,
        settled=[part <= tolerance for part in own.decrements(gradient)],
    )


@dataclass(frozen=True)
class _Own:
    """Each entity's own Hessian, per block: the preconditioner, and in the end the posterior precision."""

    information: Sequence[FloatArray]
    hessians: Sequence[FloatArray]
    inverses: Sequence[FloatArray]
    shapes: list[tuple[int, int]]

    def solve(self, vector: FloatArray) -> FloatArray:
        parts = _split(vector, self.shapes)
        return np.concatenate([_apply(i, v).ravel() for i, v in zip(self.inverses, parts, strict=True)])

    def decrements(self, gradient: FloatArray) -> list[FloatArray]:
        """Per block ``(e,)``: how far each entity would move on its own, in posterior standard deviations."""
        parts = _split(gradient, self.shapes)
        return [np.sqrt(np.abs(np.vecdot(g, _apply(inv, g)))) for inv, g in zip(self.inverses, parts, strict=True)]


@dataclass(frozen=True)
class _Problem:
    """The joint objective over one vector of all coefficients, in scaled coordinates."""

    blocks: list[Block]
    y: FloatArray
    weight: FloatArray
    loss: Loss

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [block.prior.mean.shape for block in self.blocks]

    def joined(self, parts: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate([part.ravel() for part in parts])

    def margin(self, w: FloatArray) -> FloatArray:
        parts = _split(w, self.shapes)
        return np.sum([b.design @ v.ravel() for b, v in zip(self.blocks, parts, strict=True)], axis=0)

    def pullback(self, rows: FloatArray) -> FloatArray:
        return np.concatenate([block.design.T @ rows for block in self.blocks])

    def pull(self, vector: FloatArray) -> FloatArray:
        parts = _split(vector, self.shapes)
        return self.joined([_apply(b.prior.precision, v) for b, v in zip(self.blocks, parts, strict=True)])

    def away(self, w: FloatArray) -> FloatArray:
        return w - self.joined([block.prior.mean for block in self.blocks])

    def derivatives(self, w: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The gradient, and the weighted curvature of each row."""
        slope, curvature = loss_derivatives(self.loss, self.y, z)
        return self.pullback(self.weight * slope) + self.pull(self.away(w)), self.weight * curvature

    def information(self, curvature: FloatArray) -> list[FloatArray]:
        return [block.information(curvature) for block in self.blocks]

    def own(self, information: Sequence[FloatArray]) -> _Own:
        priors = [embedded(b.prior) if b.full else b.prior.precision for b in self.blocks]
        hessians = [P + i for P, i in zip(priors, information, strict=True)]
        inverses = [inverse(H) if b.full else 1.0 / H for b, H in zip(self.blocks, hessians, strict=True)]
        return _Own(information, hessians, inverses, self.shapes)

    def newton_direction(self, gradient: FloatArray, curvature: FloatArray, own: _Own) -> tuple[FloatArray, int]:
        """The Newton step by preconditioned conjugate gradients, and the design products that it took."""
        products = 0

        def hessian(v: FloatArray) -> FloatArray:
            nonlocal products
            products += 1
            return self.pullback(curvature * self.margin(v)) + self.pull(v)

        shape = (len(gradient), len(gradient))
        direction, _ = cg(
            LinearOperator(shape, matvec=hessian, dtype=np.float64),
            -gradient,
            rtol=_FORCING,
            maxiter=200,
            M=LinearOperator(shape, matvec=own.solve, dtype=np.float64),
        )
        return direction, products

    def step_length(
        self, w: FloatArray, z: FloatArray, direction: FloatArray, change: FloatArray, gradient: FloatArray
    ) -> float:
        pull = self.pull(direction)
        line = Line(
            self.loss,
            self.y[None],
            self.weight[None],
            z[None],
            change[None],
            slope=np.array([pull @ self.away(w)]),
            curvature=np.array([pull @ direction]),
        )
        decrement = np.sqrt(np.maximum(-gradient @ direction, 0.0))
        return float(line.backtrack(np.array([decrement]))[0])


def _scaled(scaling: Scaling, block: Block) -> Block:
    return Block(scaling.rows(block.X), block.entity, scaling.prior_in(block.prior), block.diagonal)


def _kept(block: Block, hessian: FloatArray) -> FloatArray:
    """The precision in the form of the block's prior."""
    return reduced(hessian, block.diagonal) if block.full and not block.prior.is_full else hessian


def _split(vector: FloatArray, shapes: Sequence[tuple[int, int]]) -> list[FloatArray]:
    """One vector of all coefficients as one ``(e, d)`` a block."""
    ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends), shapes, strict=True)]


def _apply(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Matrices ``(e, d, d)``, or their diagonals ``(e, d)``, times ``(e, d)``."""
    return np.matvec(matrix, vector) if matrix.ndim == 3 else matrix * vector


def _norm(parts: Sequence[FloatArray]) -> float:
    return float(np.sqrt(sum(float(part @ part) for part in parts)))


def _gram(X: "sparse.csr_array[Any]", curvature: FloatArray) -> FloatArray:
    """``X'diag(curvature)X``, a strip of rows at a time, each cell times its dense row.

    For ``d`` columns and ``c`` cells a row that is ``c d`` products a row: fewer than a dense product's ``d^2``,
    more than a sparse one's ``c^2``, but without the latter's look-ups.
    """
    rows, d = X.shape
    total = np.zeros((d, d))
    strip = max(1, _GRAM_CELLS // d)
    for first in range(0, rows, strip):
        part = X[first : first + strip]
        total += part.T @ (part.toarray() * curvature[first : first + strip, None])
    return total
