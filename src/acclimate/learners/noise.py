"""The noise of a GLMix of numbers or counts: learned at a fit with all else, followed in updates."""

import numpy as np

from acclimate.arrays import Diagonal, FloatArray
from acclimate.learners.task import Part, Task
from acclimate.models.blocks import Block
from acclimate.models.joint import Solution
from acclimate.models.noise import Noise, learned_noise, used_rows


def faded(noise: Noise, fixed: Part) -> Noise:
    """What is remembered of the noise in a batch: it is forgotten as the fixed effect is."""
    if not (fixed.states.rows.any() and fixed.learns.any()):  # a locked one has not moved its time
        return noise
    effect = fixed.effect
    kept = effect.kept(fixed.latest - fixed.states.touched) * effect.declared.forgetting
    return noise.faded(float(kept[0]))


def refreshed(past: Noise, task: Task, solution: Solution, variances: list[FloatArray], *, usual: float) -> Noise:
    """The noise by what a solution leaves of the labels; ``variances`` are those that random effects give margins.

    Rows of entities that wait do not count: what these are is still in their residuals.
    """
    problem, settled = solution.problem, task.settled
    weight = problem.count * settled
    # (y - E[y])^2 / V by slope and curvature, which are (s / v) (E[y] - y) and (s / v) V.
    told = (weight > 0.0) & (solution.curvature > 0.0)
    squares = (
        np.divide(solution.slope**2, solution.curvature, out=np.zeros_like(weight), where=told) * problem.noise
    )
    used = used_rows(solution.curvature * settled, weight, variances)
    if 0 in task.designs:
        used += _used_by(problem.blocks[0], solution.curvature * settled)
    return learned_noise(past, squares, weight, used=used, usual=usual)


def _used_by(fixed: Block, curvature: FloatArray) -> float:
    """How many rows the coefficients of the fixed effect have used up: ``tr((P + F)^-1 F)``, all others known."""
    F = fixed.design.information(fixed.counted(curvature), full=fixed.full)
    H = fixed.scaled.P.plus(F)
    if isinstance(F, Diagonal):
        return float(np.sum(F.array / H.diagonal()))
    return float(np.trace(np.linalg.solve(H.full().array[0], F.array[0])))
