"""The weight of the past of effects that are declared ``adaptive``, by what a batch says before it is learned."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from acclimate.arrays import FloatArray
from acclimate.config import GLMixParameters
from acclimate.learners.drift import beliefs_of
from acclimate.learners.shared import Shared
from acclimate.learners.task import Part, Task
from acclimate.models.adaptive import WEIGHTS, evidence, weights_of_the_past
from acclimate.models.blocks import Block, Design
from acclimate.models.joint import solve_joint
from acclimate.models.likelihood import left_open, loss_derivatives
from acclimate.models.scoring import margins, variances
from acclimate.models.separate import is_separate, solve_separately


def adapted(parameters: GLMixParameters, shared: Shared, task: Task) -> Task:
    """The same batch, of which entities of adaptive effects keep less of their past where it surprises them.

    Each effect is asked with the others at what is believed of them; where these are not sure a row says less.
    """
    asked = [k for k in task.designs if task.parts[k].effect.declared.adaptive and task.parts[k].states.rows.any()]
    weight = task.weight * task.settled / shared.noise.variance
    if not asked or not weight.any():
        return task
    beliefs = beliefs_of(parameters, task)
    terms = {k: belief.term() for k, belief in zip(task.designs, beliefs, strict=True)}
    known, parts = task.margins(task.parts), list(task.parts)
    for k in asked:
        others = [term for j, term in terms.items() if j != k]
        offset = margins(others, known)
        unsure = variances(others) if others else np.zeros_like(offset)
        _, curvature = loss_derivatives(parameters.loss, task.label, margins([terms[k]], offset))
        heard = left_open(weight * curvature, weight, unsure)
        weights = np.divide(heard, curvature, out=np.zeros_like(heard), where=curvature > 0.0)
        part = parts[k]
        if k == 0:  # as sure as it is with the others not known
            part = replace(part, states=replace(part.states, posterior=shared.fixed_posterior))
        gain = _gain(parameters, part, task.designs[k], _Rows(task.label, offset, weights))
        keep = np.ones(len(part.states))
        keep[part.learners] = weights_of_the_past(gain)
        parts[k] = replace(parts[k], keep=keep)
    return replace(task, parts=parts)


class _Rows(NamedTuple):
    """Labels, the rest of the margins, and weights of rows, ``(n,)`` each."""

    y: FloatArray
    offset: FloatArray
    weight: FloatArray


def _gain(parameters: GLMixParameters, part: Part, design: Design, rows: _Rows) -> FloatArray:
    """How much more likely the rows of each entity are with a weight of the past than with all, ``(e, g)``."""
    loss, tolerance, max_steps = parameters.loss, parameters.tolerance, parameters.max_steps
    found: list[FloatArray] = []
    for d in WEIGHTS:
        prior = replace(part, keep=np.full(len(part.states), d)).prior(part.learners)
        block = Block(design, prior, part.form, part.active)
        if is_separate([block]):
            apart = solve_separately(block, *rows, loss=loss, tolerance=tolerance, max_steps=max_steps)
            mean = design.scaling.mean_in(apart.after.mean)
        else:
            mean = solve_joint([block], *rows, loss=loss, tolerance=tolerance, max_steps=max_steps).scaled_means[0]
        found.append(evidence(block, mean, *rows, loss=loss))
    return np.transpose(np.array(found) - found[0])
