"""Fixed and random effects as one problem: joint MAP by Newton's method with conjugate gradients.

Coordinate descent over the blocks converges slowly where they overlap (an intercept and the mean of all users'
intercepts, say). Here the coefficients of all entities of all blocks are one vector over one sparse design, and
each Newton system is solved by conjugate gradients, preconditioned by every entity's own Hessian.

Where effects weigh the rows differently (some are passive for one, or fade faster), no common objective is left,
but one equation an effect: ``X_k'[a_k s l'(z)] + P_k (w_k - m_k) = 0``. Newton's system is then nonsymmetric; the
rest is the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from acclimate.arrays import FloatArray, IntArray, Posterior, Precision
from acclimate.models.blocks import Block, Hessians
from acclimate.models.conjugate import conjugate_gradients
from acclimate.models.likelihood import (
    CUT_SHORT,
    Line,
    Loss,
    bounding_curvature,
    evident_curvature,
    expected_derivatives,
    has_bound,
    left_open,
    loss_derivatives,
    loss_values,
    without_variance,
)
from acclimate.models.part import Part

_FORCING = 0.05
"""Each Newton system is solved to this fraction of its right-hand side; the next step mends the rest."""

_PATIENCE = 30
"""Products that a Newton system may take before the next one gets a preconditioner of its own curvature."""


_CLOSE = 0.3
"""Part of the tolerance that a direction may miss: the step leaves less than the tolerance all the same."""

_Linear: TypeAlias = Callable[[FloatArray], FloatArray]

_SAFE_CHANGE = 1.5
"""Change of a margin up to which Newton's whole step descends."""

_SAFE_RISE = float(np.expm1(_SAFE_CHANGE) - _SAFE_CHANGE) / _SAFE_CHANGE**2
"""``(e^c - c - 1) / c^2`` there, which grows with ``c``."""

_LARGE_CHANGE = 10.0
"""Change of a margin from which only a look at the losses tells."""

_ENOUGH = 0.99
"""Of the decrement's square what a step may rise by beyond its slope."""

_MANY = 1 << 14
"""Rows from which a compiled loop over them pays."""

_SHORTEST = 2.0**-30
"""Length of a step below which none is taken."""


@dataclass(frozen=True)
class Solution:
    """The joint optimum, and how it was reached.

    ``steps`` and ``products``: Newton steps and design products taken. ``decrement``: the joint Newton decrement,
    in posterior standard deviations left to go; ``converged``: whether it is within the tolerance;
    ``decrements``: each entity's part of it, per block. ``curvature``: ``(n,)``, the weighted second derivative of
    each row's loss; ``evident``: the same, but where it vanishes under a slope that of a bound.
    ``hessians``: by block a lone entity's own there; none of many, which are as large as their states. What else
    is large is computed when it is asked for, entity by entity.
    """

    problem: "Problem"
    scaled_means: list[FloatArray]
    slope: FloatArray
    curvature: FloatArray
    evident: FloatArray
    steps: int
    products: int
    decrement: float
    converged: bool
    decrements: list[FloatArray]
    hessians: list[Hessians | None]

    def means(self, block: int) -> FloatArray:
        """The means ``(e, d)`` of one block, raw."""
        return self.problem.blocks[block].design.scaling.mean_out(self.scaled_means[block])

    def pieces(self, block: int) -> Iterator[IntArray]:
        """The entities of one block in pieces whose posteriors are small enough to be worked on at once."""
        return self.problem.blocks[block].design.pieces(full=self.problem.blocks[block].full)

    def posterior(self, block: int, members: IntArray | None = None) -> Posterior:
        """The posteriors of some entities of one block, or of all: the own Hessian, in the form of the block."""
        design, form = self.problem.blocks[block].design, self.problem.blocks[block].form
        prior, own = self.problem.blocks[block].scaled, self.hessians[block]
        information = None if own is None else own.information
        if information is None:
            information = self._information(block, members, self.curvature)
        elif members is not None:
            information = type(information)(information.array[members])
        shared = len(prior.mean) == 1
        hessian = (prior.P if shared or members is None else prior.at(members).P).plus(information)
        mean = self.scaled_means[block]
        raw = design.scaling.precision_out(hessian.kept(form)).array
        if form == "full" and raw.ndim == 2:  # a lone intercept was worked with as a diagonal
            raw = raw[..., None]
        return Posterior(design.scaling.mean_out(mean if members is None else mean[members]), raw)

    def evidence(
        self,
        block: int,
        members: IntArray | None = None,
        *,
        raw: bool = True,
        others: FloatArray | None = None,
        alone: bool = False,
    ) -> tuple[FloatArray, Precision]:
        """What the rows alone say of some entities of one block, or of all: ``exp(linear'w - w'information w/2)``.

        The quadratic approximation of the likelihood at the solution: ``linear`` is ``(e, d)``. It comes from
        the rows' own gradient, so it is right whether or not the optimum was reached exactly. ``others`` (n,) is
        the variance that the other effects give each row's margin, which leaves less to be known from it.
        ``alone``: of each coefficient, the others of its entity at their means, as diagonal populations need it.
        """
        design, mean = self.problem.blocks[block].design, self.scaled_means[block]
        evident = self.evident if others is None else left_open(self.evident, self.problem.count, others)
        information = self._information(block, members, evident)
        # A diagonal population is learned coefficient by coefficient.
        if alone or self.problem.blocks[block].form != "full":
            information = information.kept("diagonal")
        gradient = design.pullback(self.problem.blocks[block].counted(self.slope))
        if members is not None:
            mean, gradient = mean[members], gradient[members]
        linear = information.times(mean) - gradient
        if not raw:
            return linear, information
        return design.scaling.slope_out(linear), design.scaling.precision_out(information)

    def _information(self, block: int, members: IntArray | None, curvature: FloatArray) -> Precision:
        solved = self.problem.blocks[block]
        return solved.design.information(solved.counted(curvature), full=solved.full, members=members)

    @property
    def margin(self) -> FloatArray:
        """The part of each row's margin that was learned, ``(n,)``."""
        return _total(self.margin_of(k) for k in range(len(self.scaled_means)))

    def margin_of(self, block: int) -> FloatArray:
        """The part of it that is one block's."""
        return self.problem.blocks[block].design.margin(self.scaled_means[block])


def solve_joint(
    blocks: Sequence[Block],
    y: FloatArray,
    offset: FloatArray,
    weight: FloatArray,
    *,
    loss: Loss = "logistic",
    start: Sequence[FloatArray] | None = None,
    curvature: FloatArray | None = None,
    variance: FloatArray | None = None,
    noise: float = 1.0,
    tolerance: float = 1e-3,
    max_steps: int = 50,
) -> Solution:
    """Minimise ``sum_i s_i loss(y_i, z_i) + sum_k sum_e (w - m)'P(w - m)/2`` over all blocks together.

    Blocks that weigh the rows differently each minimise this with weights of their own, given the others.

    Args:
        blocks: the effects, over the same ``n`` rows.
        y: labels ``(n,)``.
        offset: known part of the margin, ``(n,)``.
        weight: row weights ``(n,)``.
        loss: ``logistic``, ``squared`` or ``poisson``.
        start: raw means ``(e, d)`` per block to begin at; the prior means without.
        curvature: that of an earlier solution of the same rows, to precondition with at first; computed without.
        variance: of each row's margin ``(n,)``, held as it is: the loss is then the expected one.
        noise: the variance of a squared loss's noise, which a row of weight 1 has; weights are divided by it.
        tolerance: joint Newton decrement at which to stop.
        max_steps: Newton steps at most.
    """
    if variance is not None:
        offset, variance = without_variance(loss, offset, variance)
    part = None
    if start is None and curvature is None and variance is None:
        part = Part.of(blocks, y, offset, weight)
    preconditioner, trusted = None, False
    if part is not None:
        rough = solve_joint(
            [part.block], part.y, part.offset, part.weight, loss=loss, noise=noise, tolerance=part.tolerance
        )
        start = [rough.means(0)]
        preconditioner, trusted = part.hessians(rough.curvature, rough.hessians[0])
    problem = replace(posed(blocks, y, weight / noise, loss, variance), noise=noise)
    blocks, weight = problem.blocks, problem.weight
    w = problem.start(start)
    z = problem.margin(w)
    z += offset
    if curvature is not None:
        preconditioner = problem.hessians(curvature)
    steps = products = taken = 0
    length, lost = 1.0, False
    while True:
        # 1. Gradient and curvature at the present coefficients; after a step that had to be cut short that of a
        #    bound on the loss, since the loss's own has misled: its whole step descends, and is taken unseen.
        gradient, curvature = problem.derivatives(w, z)
        bounded = (
            problem.bounds and variance is None and has_bound(loss) and length < CUT_SHORT and steps < max_steps
        )
        steepness = weight * bounding_curvature(loss, z) if bounded else curvature

        # 2. A preconditioner of the present curvature, where there is none or the last one has served too long.
        if bounded or taken > _PATIENCE:
            preconditioner, trusted = None, False  # it is as large as what comes in its place
        if preconditioner is None:
            preconditioner = problem.hessians(steepness)

        # 3. The Newton direction, and from it how far there is to go.
        close, within = (_CLOSE * tolerance, tolerance) if trusted else (0.0, 0.0)
        direction, taken, missing = problem.newton_direction(gradient, steepness, preconditioner, close, within)
        products += taken
        decrement = problem.distance(gradient, direction, steepness)

        # 4. Stop, if a look with the present curvature agrees: the direction was found with an earlier one. That
        #    look alone would not do: where effects overlap the entities' own decrements are many times too small.
        # What is not a number gets no better.
        if not bounded and (not decrement > tolerance or steps == max_steps or lost):
            del preconditioner
            preconditioner, trusted = problem.hessians(curvature), False
            decrements = problem.decrements(preconditioner, gradient)
            if len(blocks) == 1:  # its entities are independent, so each one's part of the step is its own
                part = -np.vecdot(problem.split(gradient)[0], problem.split(direction)[0])
                decrements = [np.maximum(decrements[0], np.sqrt(np.maximum(part, 0.0)))]
            decrement = float(np.maximum(decrement, np.linalg.norm(np.concatenate(decrements))))
            if not decrement > tolerance or steps == max_steps or lost:
                break

        # 5. The longest of 1, 1/2, 1/4, ... of the step that descends enough.
        change = problem.margin(direction)
        if (
            steps
            and not bounded
            and _largest(change) > _SAFE_CHANGE
            and problem.is_rounding(decrement, z, problem.decrements(preconditioner, gradient), tolerance)
        ):
            lost = True  # margins are to change by much for nothing: the direction is of rounding
            continue
        if variance is not None:
            length = _safe_length(change)
        else:
            slope = -float(gradient @ direction)
            whole = bounded or problem.descends(direction, change, steepness, np.sqrt(max(slope, 0.0)))
            length = 1.0 if whole else problem.step_length(w, z, direction, change, gradient)
        w = w + length * direction
        z += change if length == 1.0 else length * change
        steps, taken = steps + 1, _PATIENCE + 1 if bounded else taken

        # 6. Stop without a look where the step has left less than the tolerance, as the preconditioner tells.
        is_known = trusted and length == 1.0 and taken <= _PATIENCE
        if is_known and (left := _left(steepness, change, missing)) <= tolerance:
            curvature, decrement, decrements = weight * problem.of_rows(z)[1], left, [np.array([left])]
            preconditioner = problem.hessians(curvature)
            break
    slope = weight * problem.of_rows(z)[0]
    return Solution(
        problem=problem,
        scaled_means=problem.split(w),
        slope=slope,
        curvature=curvature,
        evident=_evident(problem, z, slope, curvature),
        steps=steps,
        products=products,
        decrement=decrement,
        converged=decrement <= tolerance or problem.is_rounding(decrement, z, decrements, tolerance),
        decrements=decrements,
        hessians=[one if block.design.lone else None for one, block in zip(preconditioner, blocks, strict=True)],
    )


@dataclass(frozen=True)
class Problem:
    """The joint objective over one vector of all coefficients, in scaled coordinates."""

    blocks: Sequence[Block]
    y: FloatArray
    weight: FloatArray
    loss: Loss
    variance: FloatArray | None = None
    noise: float = 1.0

    bounds: ClassVar[bool] = True
    """Whether the step of a bound on the loss descends whole."""

    @property
    def count(self) -> FloatArray:
        """How many rows each row counts as, ``(n,)``."""
        return self.weight * self.noise

    def start(self, means: Sequence[FloatArray] | None) -> FloatArray:
        """Raw means per block, or without them the priors', as one vector."""
        vector = np.empty(sum(block.design.count * block.design.width for block in self.blocks))
        if means is None:
            return self._by_block(lambda k, _: self.blocks[k].scaled.mean, vector)
        return self._by_block(lambda k, _: self.blocks[k].design.scaling.mean_in(means[k]), vector)

    def split(self, vector: FloatArray) -> list[FloatArray]:
        """One vector of all coefficients as one ``(e, d)`` a block."""
        parts: list[FloatArray] = []
        first = 0
        for block in self.blocks:
            last = first + block.design.count * block.design.width
            parts.append(vector[first:last].reshape(block.design.count, block.design.width))
            first = last
        return parts

    def _by_block(self, change: Callable[[int, FloatArray], FloatArray], vector: FloatArray) -> FloatArray:
        """What becomes of each block's part of a vector, as one vector again."""
        changed = np.empty_like(vector)
        parts = zip(self.split(changed), self.split(vector), strict=True)
        for k, (result, part) in enumerate(parts):
            result[:] = change(k, part)
        return changed

    def margin(self, w: FloatArray) -> FloatArray:
        """The part of each row's margin that is learned, ``(n,)``."""
        return _total(b.design.margin(v) for b, v in zip(self.blocks, self.split(w), strict=True))

    def pull(self, vector: FloatArray) -> FloatArray:
        """The priors' precision times a vector."""
        return self._by_block(lambda k, v: self.blocks[k].scaled.P.times(v), vector)

    def gathered(self, rows: FloatArray, vector: FloatArray) -> FloatArray:
        """Numbers of the rows ``(n,)`` gathered in the coefficients, and the priors' precision times a vector."""
        return self._by_block(
            lambda k, v: (
                self.blocks[k].design.pullback(self.blocks[k].counted(rows)) + self.blocks[k].scaled.P.times(v)
            ),
            vector,
        )

    def curved(self, curvature: FloatArray, vector: FloatArray) -> FloatArray:
        """The product of the Hessian and a vector, of rows of some curvature ``(n,)``."""
        if len(self.blocks) > 1:
            return self.gathered(curvature * self.margin(vector), vector)
        design, prior = self.blocks[0].design, self.blocks[0].scaled.P
        return self._by_block(
            lambda _, v: design.curved(self.blocks[0].counted(curvature), v) + prior.times(v), vector
        )

    def away(self, w: FloatArray) -> FloatArray:
        """How far coefficients are from the priors' means."""
        return self._by_block(lambda k, v: v - self.blocks[k].scaled.mean, w)

    def derivatives(self, w: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The gradient, and the weighted curvature of each row."""
        slope, curvature = self.of_rows(z)
        slope *= self.weight
        curvature *= self.weight
        return self.gathered(slope, self.away(w)), curvature

    def of_rows(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """First and second derivative of each row's loss, or expected loss, but for its weight."""
        if self.variance is not None:
            return expected_derivatives(self.loss, self.y, z, self.variance)
        if len(z) <= _MANY:
            return loss_derivatives(self.loss, self.y, z)
        from acclimate.kernels.newton import derivatives

        return derivatives(self.loss, self.y, z)

    def hessians(self, curvature: FloatArray) -> list[Hessians]:
        """Each entity's own Hessian, per block, ready to be solved with."""
        return [
            Hessians.of(block.design, block.scaled.P, block.counted(curvature), full=block.full)
            for block in self.blocks
        ]

    def decrements(self, preconditioner: Sequence[Hessians], gradient: FloatArray) -> list[FloatArray]:
        """Per block ``(e,)``: how far each entity would move on its own, in posterior standard deviations."""
        parts = zip(preconditioner, self.split(gradient), strict=True)
        return [np.sqrt(np.abs(np.vecdot(g, hessians.solve(g)))) for hessians, g in parts]

    def distance(self, gradient: FloatArray, direction: FloatArray, curvature: FloatArray) -> float:  # noqa: ARG002
        """The Newton decrement: how far a Newton step goes, in posterior standard deviations."""
        return float(np.sqrt(np.abs(gradient @ direction)))

    def newton_direction(
        self,
        gradient: FloatArray,
        curvature: FloatArray,
        preconditioner: Sequence[Hessians],
        close: float = 0.0,
        within: float = 0.0,
    ) -> tuple[FloatArray, int, float]:
        """The Newton step by a preconditioned Krylov method, the design products that it took, and what it misses.

        In posterior standard deviations, of longer steps ``close`` may be missing; of those that are ``within`` a
        length no more is wanted than to know it.
        """
        products = 0

        def hessian(v: FloatArray) -> FloatArray:
            nonlocal products
            products += 1
            return self.curved(curvature, v)

        def precondition(v: FloatArray) -> FloatArray:
            return self._by_block(lambda k, g: preconditioner[k].solve(g), v)

        direction, missing = self.solved(hessian, precondition, -gradient, close, within)
        return direction, products, missing

    def solved(
        self, product: _Linear, precondition: _Linear, b: FloatArray, close: float, within: float
    ) -> tuple[FloatArray, float]:
        """Newton's system solved, all but a part, and the length of that."""
        return conjugate_gradients(product, precondition, b, forcing=_FORCING, close=close, within=within)

    def is_rounding(
        self, decrement: float, z: FloatArray, decrements: Sequence[FloatArray], tolerance: float
    ) -> bool:
        """Whether the digits of the losses tell no more: half a decrement's square is what could be gained.

        Of each entity by its own ``decrements`` and the loss of its rows, lest a row of great loss drowns others,
        and of all together. At weights of 1e15 what effects share is known to the rounding of sums that should
        cancel.
        """
        if not np.isfinite(decrement):
            return False
        digits, losses = np.finfo(np.float64).eps, self.weight * np.abs(loss_values(self.loss, self.y, z))
        for block, own in zip(self.blocks, decrements, strict=True):
            entity = block.design.entity
            lost = np.bincount(entity[entity >= 0], losses[entity >= 0], block.design.count)
            if np.any(0.5 * own**2 > 0.5 * tolerance**2 + digits * lost):
                return False
        return bool(0.5 * decrement**2 <= digits * losses.sum())

    def descends(self, direction: FloatArray, change: FloatArray, curvature: FloatArray, decrement: float) -> bool:
        """Whether a whole Newton step descends for certain; ``change`` is that of the rows' margins.

        As ``|l'''| <= l''`` of every loss, a row of curvature ``k`` whose margin changes by ``c`` rises by
        ``k (e^|c| - |c| - 1)`` at most beyond its slope, up to ``|c| = 1.5`` by ``.88 k c^2``; the slopes of all
        are ``-decrement^2``, which is the sum of ``k c^2`` and of the prior's. Few rows change by more.
        """
        largest = _largest(change)
        if largest <= _SAFE_CHANGE:
            return True
        if not largest <= _LARGE_CHANGE:
            return False
        far = np.flatnonzero(np.abs(change) > _SAFE_CHANGE)
        c = np.abs(change[far])
        rise = _SAFE_RISE * np.vecdot(curvature * change, change) + 0.5 * (direction @ self.pull(direction))
        rise += curvature[far] @ (np.expm1(c) - c - _SAFE_RISE * c**2)
        return bool(rise <= _ENOUGH * decrement**2)

    def step_length(
        self, w: FloatArray, z: FloatArray, direction: FloatArray, change: FloatArray, gradient: FloatArray
    ) -> float:
        """How much of a Newton step to take; ``change`` is that of the rows' margins."""
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


@dataclass(frozen=True)
class Unequal(Problem):
    """Effects that weigh the rows differently: an equation each, and no common objective."""

    bounds: ClassVar[bool] = False

    def solved(
        self,
        product: _Linear,
        precondition: _Linear,
        b: FloatArray,
        close: float,  # noqa: ARG002
        within: float,  # noqa: ARG002
    ) -> tuple[FloatArray, float]:
        """Newton's system solved, nonsymmetric as it is; what that misses is not known."""
        shape = (len(b), len(b))
        system, M = (LinearOperator(shape, matvec=f, dtype=np.float64) for f in (product, precondition))
        return gmres(system, b, M=M, rtol=1e-3, restart=20, maxiter=10)[0], np.inf

    def distance(self, gradient: FloatArray, direction: FloatArray, curvature: FloatArray) -> float:  # noqa: ARG002
        """How far a Newton step goes, in the standard deviations of each entity's own posterior."""
        squares = 0.0
        for block, part in zip(self.blocks, self.split(direction), strict=True):
            change = block.design.margin(part)
            squares += block.counted(curvature) @ change**2 + np.vdot(part, block.scaled.P.times(part))
        return float(np.sqrt(squares))

    def descends(
        self,
        direction: FloatArray,  # noqa: ARG002
        change: FloatArray,  # noqa: ARG002
        curvature: FloatArray,  # noqa: ARG002
        decrement: float,  # noqa: ARG002
    ) -> bool:
        """Nothing certain: there is no objective."""
        return False

    def step_length(
        self, w: FloatArray, z: FloatArray, direction: FloatArray, change: FloatArray, gradient: FloatArray
    ) -> float:
        """How much of a Newton step to take: the longest of 1, 1/2, ... that leaves less of the equations.

        Less in the standard deviations of the posteriors at the beginning of the step, in which Newton's whole
        direction descends.
        """
        metric = self.hessians(self.derivatives(w, z)[1])

        def left(gradient: FloatArray) -> float:
            return float(np.linalg.norm(np.concatenate(self.decrements(metric, gradient))))

        before, length = left(gradient), 1.0
        while length > _SHORTEST:
            after = left(self.derivatives(w + length * direction, z + length * change)[0])
            if after <= (1.0 - 1e-4 * length) * before:
                return length
            length *= 0.5
        return 0.0


def posed(
    blocks: Sequence[Block], y: FloatArray, weight: FloatArray, loss: Loss, variance: FloatArray | None = None
) -> Problem:
    """The problem of these blocks; weights that are the same for all count as the rows' own."""
    first = blocks[0].active
    if all(same(block.active, first) for block in blocks[1:]):
        alike = [replace(block, active=None) for block in blocks] if first is not None else blocks
        return Problem(alike, y, blocks[0].counted(weight), loss, variance)
    return Unequal(blocks, y, weight, loss, variance)


def _total(margins: Iterator[FloatArray]) -> FloatArray:
    """Their sum, in the memory of the first: they are arrays of their own."""
    total = next(margins)
    for margin in margins:
        total += margin
    return total


def _evident(problem: Problem, z: FloatArray, slope: FloatArray, curvature: FloatArray) -> FloatArray:
    """Weighted curvatures ``(n,)``, but where they vanish under a slope those of a bound.

    A label that is contradicted by a margin beyond 23 is a straight line to its second derivative: any coefficient
    would do better the further it goes. The bound's quadratic ends where the label is met.
    """
    straight = np.flatnonzero(curvature < 1e-10 * np.abs(slope))
    evident = curvature.copy() if len(straight) else curvature
    evident[straight] = problem.weight[straight] * evident_curvature(
        problem.loss, problem.y[straight], z[straight]
    )
    return evident


def _largest(change: FloatArray) -> float:
    return float(max(change.max(initial=0.0), -change.min(initial=0.0)))


def _left(curvature: FloatArray, change: FloatArray, missing: float) -> float:
    """How far there is to go at most after a whole Newton step that changed margins by ``c`` (n,).

    The gradient is then ``int_0^1 (H(t) - H(0)) dw dt``, and what the direction missed. As ``|l'''| <= l''`` of
    every loss, the first is ``X'u`` with ``|u_i| <= k_i (e^|c_i| - 1 - |c_i|)``, and
    ``X'KX <= H(0) <= e^max|c| H(1)``::

        e^(max|c|/2) (sqrt(sum_i k_i (e^|c_i| - 1 - |c_i|)^2) + missing)
    """
    largest = _largest(change)
    if not largest < 1.0:
        return np.inf
    size = np.abs(change)
    grown = np.expm1(size) - size
    return float(np.exp(0.5 * largest) * (np.sqrt(np.vecdot(curvature * grown, grown)) + missing))


def _safe_length(change: FloatArray) -> float:
    """A length at which Newton's step descends, without a look: ``log(1 + c)/c`` for the largest change ``c``.

    The third derivative of a logistic loss, expected or not, is no larger than its second: it is generalised
    self-concordant (Sun and Tran-Dinh, 2019, equation 12).
    """
    largest = float(np.abs(change).max(initial=0.0))
    return np.log1p(largest) / largest if largest > 0.0 else 1.0


def same(one: FloatArray | None, other: FloatArray | None) -> bool:
    """Whether two effects weigh the rows alike."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))
