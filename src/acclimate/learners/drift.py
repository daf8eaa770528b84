"""How a batch surprises a GLMix before it is learned, as a whole and by effect."""

from dataclasses import replace

import numpy as np

from acclimate.arrays import IntArray, Posterior
from acclimate.artifacts import SURPRISED, Drift, Statistic
from acclimate.config import GLMixParameters
from acclimate.learners.effects import at_support
from acclimate.learners.shared import Shared
from acclimate.learners.task import Part, Task
from acclimate.models.blocks import Block
from acclimate.models.surprise import Belief, Surprise, surprises

_SAMPLE, _ONE_OF = 256, 8
"""Rows of a sample at least, and of how many rows one is in it, where so many are left."""


def drift_of(
    parameters: GLMixParameters, shared: Shared, task: Task, *, sampled: bool = False
) -> tuple[Drift, ...]:
    """What a batch says of a model that has not learned it: of the model, of the labels, and of each effect.

    With ``sampled`` rows of a large batch, each as likely as the others, stand for it: statistics of these rows,
    which say so, and no more.

    Beliefs are those that the update begins at: what was to be forgotten is. Effects that are locked count as
    known, and rows of entities that wait are left out. The fixed effect is believed as it is
    given the others: they are less sure of what it might take from them, and both at once would be counted twice.
    """
    weight = task.weight * task.settled
    if not task.designs or not weight.any():
        return ()
    columns = (task.label, task.margins(task.parts), weight)
    if sampled and (step := min(_ONE_OF, len(weight) // _SAMPLE)) > 1:
        rows = _one_of(step, len(weight))
        beliefs, columns = beliefs_of(parameters, task, rows), tuple(column[rows] for column in columns)
    else:
        beliefs = beliefs_of(parameters, task)
    places: dict[str, list[int]] = {}
    for place, k in enumerate(task.designs):
        places.setdefault(task.parts[k].effect.name, []).append(place)
    effects = list(places.values())
    found = surprises(beliefs, *columns, loss=parameters.loss, noise=shared.noise.variance, effects=effects)
    each = [_record("effect", name, one) for name, one in zip(places, found.effects, strict=True)]
    return (_record("loss", "", found.loss), _record("labels", "", found.labels), *each)


def _one_of(step: int, count: int) -> IntArray:
    """One row of each ``step`` next to one another, which one is left to chance, lest it be always the same.

    Of those left over at the end one more, where a number below ``step`` falls among them: so all are as likely.
    """
    places = np.random.default_rng(0).integers(step, size=-(-count // step))
    rows = step * np.arange(len(places)) + places
    return rows[rows < count]


def together(one: tuple[Drift, ...], other: tuple[Drift, ...]) -> tuple[Drift, ...]:
    """Of two batches that an update learned one after the other.

    Rows are independent given what was believed before each: means weigh by rows, and their variances add up.
    """
    found = {(drift.statistic, drift.effect): drift for drift in one}
    for drift in other:
        key = drift.statistic, drift.effect
        found[key] = _sum(found[key], drift) if key in found else drift
    return tuple(found.values())


def _sum(one: Drift, other: Drift) -> Drift:
    if not one.rows or not other.rows:
        return one if one.rows else other
    rows = one.rows + other.rows
    observed, expected = (
        (one.rows * getattr(one, name) + other.rows * getattr(other, name)) / rows
        for name in ("observed", "expected")
    )
    deviation = float(np.hypot(one.rows * one.standard_deviation, other.rows * other.standard_deviation)) / rows
    z = (observed - expected) / deviation if deviation > 0.0 else None
    return Drift(one.statistic, one.effect, rows, observed, expected, deviation, z)


def is_surprise(drift: Drift) -> bool:
    """Whether what was observed is more than chance allows; fewer labels than expected are as much as more."""
    z = drift.z or 0.0
    return (abs(z) if drift.statistic == "labels" else z) > SURPRISED


def told(drift: Drift) -> str:
    """A surprise in a line."""
    z, unit = f"z = {drift.z:.1f}", "nats a row"
    if drift.statistic == "labels":
        return f"labels: a mean of {drift.observed:.4g}, and {drift.expected:.4g} was expected ({z})"
    if drift.statistic == "loss":
        return f"surprised: a loss of {drift.observed:.4g} {unit}, and {drift.expected:.4g} was expected ({z})"
    return (
        f"{drift.effect}: surprised, changes the loss by {drift.observed:+.4f} {unit}, "
        f"and {drift.expected:+.4f} was expected ({z})"
    )


def _record(statistic: Statistic, effect: str, found: Surprise) -> Drift:
    z = found.excess / found.standard_deviation if found.standard_deviation > 0.0 else None
    return Drift(statistic, effect, found.rows, found.observed, found.expected, found.standard_deviation, z)


def beliefs_of(parameters: GLMixParameters, task: Task, rows: IntArray | None = None) -> list[Belief]:
    """Of the effects that learn, in the coordinates of their rows, over all of these or over some."""
    at_mode = parameters.approximation == "laplace" and parameters.loss == "logistic"
    beliefs: list[Belief] = []
    for k, design in task.designs.items():
        part, learners = task.parts[k], task.parts[k].learners
        if rows is not None:
            design, met = design.narrowed(rows)
            learners = learners[met]
        block = Block(design, part.prior(learners), part.form, part.active)
        prior = (
            block.scaled if len(block.scaled.mean) == len(learners) else block.scaled.at(0).repeated(len(learners))
        )
        population = _population(part, block, learners) if at_mode and k > 0 else None
        beliefs.append(Belief(design, prior, population))
    return beliefs


def _population(part: Part, block: Block, learners: IntArray) -> Posterior:
    """Of all entities, or of each of some that hold some coefficients only."""
    if part.states.support is not None:
        return at_support(part.effect.population, part.states.at(learners))
    return replace(block, prior=part.effect.population.at(None)).scaled.at(0)
