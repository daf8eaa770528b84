"""How sure a GLMix's fixed effect is: its precision with all that learn beside it integrated out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from acclimate.arrays import FloatArray, Posterior, Precision
from acclimate.learners.effects import at_support
from acclimate.learners.task import Part, Task
from acclimate.models.joint import Solution
from acclimate.models.marginal import Other, marginal_precision


def scaled_marginal(task: Task, parts: Sequence[Part], known: Posterior, solution: Solution) -> Precision:
    """In scaled coordinates, at a solution whose first block it is.

    ``known`` is what was known of the effect before, in the same way. Effects that are locked, and entities that
    wait, count as known.
    """
    blocks = list(solution.problem.blocks)  # with their priors in scaled coordinates, which are large
    if len(blocks) < len(task.designs):  # some have learned before the others
        blocks = task.blocks(parts)
        if solution.problem.blocks[0].active is None:  # all count rows alike: it is in the curvature already
            blocks = [replace(block, active=None) for block in blocks]
    fixed, *blocks = blocks
    part, index = parts[0], parts[0].effect.index
    block = replace(fixed, prior=part.effect.prior(replace(part.states, posterior=known), part.latest, part.keep))
    others = dict[str, list[Other]]()
    for k, random in zip((k for k in task.designs if k > 0), blocks, strict=True):
        effect, states, population = parts[k].effect, parts[k].states, parts[k].effect.population
        shared = index.numbers(effect.index.names)
        if states.support is not None:
            learners = parts[k].learners
            support, population = states.support[learners], at_support(population, states.at(learners))
            shared = np.where(support >= 0, shared[support], -1)
        others.setdefault(effect.name, []).append(Other(random, population, shared))
    return marginal_precision(block, solution.curvature, list(others.values()))


def raw_marginal(task: Task, parts: Sequence[Part], known: Posterior, solution: Solution) -> FloatArray:
    """The same in raw units and in the form of the effect, for :class:`acclimate.learners.shared.Shared`."""
    form, found = parts[0].effect.form, scaled_marginal(task, parts, known, solution)
    precision = task.designs[0].scaling.precision_out(found.kept(form)).array
    return precision[..., None] if form == "full" and precision.ndim == 2 else precision  # a lone intercept
