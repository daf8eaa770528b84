"""The populations of random effects: learned from all entities at a fit, refreshed in an update."""

from dataclasses import replace

import numpy as np

from acclimate.arrays import FloatArray, IntArray, Posterior, Precision
from acclimate.learners.task import Part
from acclimate.models.hashing import hashed
from acclimate.models.joint import Solution
from acclimate.models.likelihood import left_open
from acclimate.models.population import Past, learn_population

_POPULATION_CELLS = 1 << 22
"""Cells of the entities' information (matrices, or diagonals) that a population is learned from at most: beyond,
some entities stand for all. Sixteen coefficients are learned from 16,384 entities, to about a hundredth of a
variance; what that costs in the posteriors is of second order."""

_REMEMBERED = 10_000.0
"""Entities of the past that a population is held by at most when it is refreshed. Those in an update are counted
anew, so that this says nothing of fewer entities; of more, those of the last updates count for more."""

_REPRESENTATIVES = 4096
"""Entities that a population is learned from at least, where there are so many."""


def variances(
    solution: Solution, free: list[int], before: list[FloatArray] | None, *, fixed: bool = False
) -> list[FloatArray]:
    """The variance of each row's margin ``(n,)`` by effect, the ``fixed`` one taken as known if not asked for.

    A row says of one effect only what the others leave open (:func:`acclimate.models.likelihood.left_open`).
    """
    blocks = solution.problem.blocks
    nothing = np.zeros_like(solution.curvature)
    before = before or [nothing] * len(blocks)
    total = np.sum(before, axis=0)
    return [
        nothing
        if k == 0 and not fixed
        else block.variances(left_open(solution.curvature, solution.problem.count, total - own))
        for k, block, own in zip(free, blocks, before, strict=True)
    ]


def repopulated(
    parts: list[Part], free: list[int], solution: Solution, variances: list[FloatArray], *, fresh: bool
) -> tuple[list[Part], float]:
    """The random effects at populations learned from the solution, and the log-likelihood that it gains."""
    changed, gained = list(parts), 0.0
    fixed_names = set(parts[0].effect.index.names)
    total = np.sum(variances, axis=0)
    for i, k in enumerate(free):
        if k == 0:
            continue
        effect = parts[k].effect
        linear, information = _evidence(parts[k], i, solution, total - variances[i])
        # A coefficient that the fixed effect has too would share its mean with it: only their sum is known. In an
        # update that effect is held by all of its past, and what has moved of it for newcomers moves here.
        alone = np.array([name not in fixed_names or not fresh for name in effect.index.names])
        base, gain = learn_population(
            linear,
            information,
            effect.population,
            effect.unit,
            free_mean=alone,
            past=_past(parts[k]),
            scaling=solution.problem.blocks[i].design.scaling,
        )
        # Rows 1e150 spreads from those before leave no digits to compare with them: the population stays.
        if fresh or _is_usable(base):
            changed[k], gained = parts[k].at_population(base, fresh=fresh), gained + gain
    return changed, gained


def _evidence(part: Part, i: int, solution: Solution, others: FloatArray) -> tuple[FloatArray, Precision]:
    """What is known of the entities that learn but from their population: from these rows, and from those before.

    The latter is what a prior ``N(m, P)`` has more than the population: ``P - B``, and ``Pm - Bb``.
    """
    members, block = _representatives(part), solution.problem.blocks[i]
    linear, information = solution.evidence(i, members, raw=False, others=others)
    if not part.states.rows.any():  # there was nothing before
        return linear, information
    prior = block.scaled
    prior = prior if members is None else prior.at(members)
    scaling, population = block.design.scaling, part.effect.population
    if population.is_full and not prior.is_full:  # a lone coefficient
        population = Posterior(population.mean, population.P.diagonal())
    population = scaling.prior_in(population)
    linear = linear + prior.P.times(prior.mean) - population.P.times(population.mean)
    return linear, information.plus(type(prior.P)(prior.precision - population.precision))


def _past(part: Part) -> Past:
    """The entities that a population was learned from and that are not here, as much as is remembered of them.

    What is forgotten makes room for those that are here, and no more: a population does not fade on its own.
    """
    effect, past = part.effect, part.effect.past
    if not past.count:
        return Past.nothing(past.population)
    here, before = len(part.learners), part.states.rows[part.learners]
    known = np.count_nonzero(before >= effect.least_rows)  # those that waited were not in it
    elapsed = np.array([part.latest.max() - effect.learned])
    kept = float(effect.kept(elapsed)[0]) * effect.declared.forgetting
    count = max(kept * past.count - known, past.count - here, 0.0)
    count = min(count, _REMEMBERED)
    return replace(past, count=count, share=count / past.count)


def remembering(
    asked: list[Part], parts: list[Part], free: list[int], solution: Solution, variances: list[FloatArray]
) -> list[Part]:
    """The effects with what their populations were learned from: a solution at those that were ``asked``."""
    changed, total = list(parts), np.sum(variances, axis=0)
    for i, k in enumerate(free):
        if k == 0:
            continue
        effect, scaling = parts[k].effect, solution.problem.blocks[i].design.scaling
        _, information = _evidence(asked[k], i, solution, total - variances[i])
        past = _past(asked[k]).with_entities(information, len(parts[k].learners), effect.population, scaling)
        if np.isfinite(past.information).all():
            changed[k] = replace(parts[k], effect=replace(effect, past=past, learned=int(parts[k].latest.max())))
    return changed


def _is_usable(population: Posterior) -> bool:
    finite = np.isfinite(population.mean).all() and np.isfinite(population.precision).all()
    return bool(finite and population.P.positive())


def _representatives(part: Part) -> IntArray | None:
    """The entities that a population is learned from, counted among those that learn; ``None`` for all of them.

    Where they are too many, a lot decides that is drawn from an entity's rows and times: neither the order of rows
    nor the names of entities show.
    """
    learners, width = part.learners, len(part.effect.index)
    most = max(_REPRESENTATIVES, _POPULATION_CELLS // (width**2 if part.effect.form == "full" else width))
    if len(learners) <= most:
        return None
    lots = hashed(part.latest[learners].view(np.uint64) ^ hashed(part.rows[learners].view(np.uint64)))
    return np.sort(np.argsort(lots, kind="stable")[:most])
