"""The populations of random effects: learned from all entities at a fit, refreshed in an update."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, Form, IntArray, Posterior, Precision
from acclimate.learners.effects import at_support
from acclimate.learners.task import Part, at_population
from acclimate.models.blocks import Block
from acclimate.models.hashing import hashed
from acclimate.models.held_population import HeldEvidence, learn_diagonal_population
from acclimate.models.joint import Solution
from acclimate.models.likelihood import left_open
from acclimate.models.marginal import sharing
from acclimate.models.nested import Cells, Prior, Said, chains
from acclimate.models.population import Past, learn_population
from acclimate.models.skewness import is_told, pull
from acclimate.models.support import matrices_of, sizes_of

_POPULATION_CELLS = 1 << 22
"""Cells of the entities' information (matrices, or diagonals) that a population is learned from at most: beyond,
some entities stand for all. Sixteen coefficients are learned from 16,384 entities, to about a hundredth of a
variance; what that costs in the posteriors is of second order."""

_REMEMBERED = 10_000.0
"""Entities of the past that a population is held by at most when it is refreshed. Those in an update are counted
anew, so that this says nothing of fewer entities; of more, those of the last updates count for more."""

_TINY = 1e-12
"""Of a row's weight, that counts beside its curvature."""

_REPRESENTATIVES = 4096
"""Entities that a population is learned from at least, where there are so many."""

_ROUNDS = 100
"""Of effects that lie within one another at most, each of a step of all of their populations."""

_SETTLED = 0.01
"""Log-likelihood, in nats, that a round has to gain for another one to follow."""

Evidence: TypeAlias = list[tuple[FloatArray, Precision]]
"""What is known but from their population of the entities that one is learned from, by effect."""


@dataclass(frozen=True)
class Nest:
    """Effects of a solution that lie within one another: their ``places`` among its blocks, from the finest on.

    ``cells``: those of their rows, where there are several. ``known``: whether it is the fixed effect.
    ``pieced``: whether it is one effect, in pieces, whose entities hold some coefficients only.
    """

    places: list[int]
    cells: Cells | None
    known: bool = False
    pieced: bool = False


def nests(
    solution: Solution, parts: Sequence[Part], free: list[int], known: Sequence[Sequence[int]] | None = None
) -> list[Nest]:
    """The effects of a solution, those together whose entities lie within one another.

    ``free``: which of the parts its blocks are. ``known``: those that did at the fit, by their places among all
    effects, where that is past. Effects whose entities hold some coefficients only stay alone.
    """
    blocks, numbers = solution.problem.blocks, _numbers(parts)
    found = [Nest([i], None, known=True) for i, k in enumerate(free) if k == 0]
    pieced = dict[str, list[int]]()
    for i, k in enumerate(free):
        if parts[k].effect.is_sparse:
            pieced.setdefault(parts[k].effect.name, []).append(i)
    found += [Nest(inside, None, pieced=True) for inside in pieced.values()]
    places = [i for i, k in enumerate(free) if k > 0 and not parts[k].effect.is_sparse]
    if not places:
        return found
    if known is not None:  # effects by place among all, as places among those that learn
        spots = {numbers[free[i]]: j for j, i in enumerate(places)}
        known = [[spots.pop(k) for k in chain if k in spots] for chain in known]
        known = [chain for chain in known if chain] + [[j] for j in spots.values()]
    for chain in chains([blocks[i] for i in places], known):
        inside = [places[j] for j in chain]
        found.append(Nest(inside, Cells.of([blocks[i] for i in inside]) if len(inside) > 1 else None))
    return found


def nested(found: Sequence[Nest], parts: Sequence[Part], free: list[int]) -> tuple[tuple[int, ...], ...]:
    """Those that lie within one another, by their places among all effects: as :func:`nests` takes them."""
    numbers = _numbers(parts)
    return tuple(tuple(numbers[free[i]] for i in nest.places) for nest in found if not nest.known | nest.pieced)


def _numbers(parts: Sequence[Part]) -> list[int]:
    """Of each part the place of its effect."""
    names = list(dict.fromkeys(part.effect.name for part in parts))
    return [names.index(part.effect.name) for part in parts]


def variances(
    solution: Solution, together: list[Nest], before: list[FloatArray] | None, *, fixed: bool = False
) -> list[FloatArray]:
    """The variance of each row's margin ``(n,)`` by nest, the ``fixed`` one taken as known if not asked for.

    A row says of one nest only what the others leave open (:func:`acclimate.models.likelihood.left_open`).
    """
    nothing = np.zeros_like(solution.curvature)
    before = before or [nothing] * len(together)
    total = np.sum(before, axis=0)
    return [
        nothing
        if nest.known and not fixed
        else _variance(solution, nest, left_open(solution.curvature, solution.problem.count, total - own))
        for nest, own in zip(together, before, strict=True)
    ]


def _variance(solution: Solution, nest: Nest, curvature: FloatArray) -> FloatArray:
    blocks, cells = [solution.problem.blocks[i] for i in nest.places], nest.cells
    if cells is None:
        return np.sum([block.variances(curvature) for block in blocks], axis=0)
    means = [solution.scaled_means[i] for i in nest.places]
    priors = [(block.scaled.P.times(block.scaled.mean), block.scaled.P) for block in blocks]
    found, gradient = np.zeros_like(curvature), cells.gathered(solution.slope)
    for piece in cells.pieces():
        _, covariance = cells.said(means, gradient, curvature, piece).evidence(priors)
        cells.variances(covariance, piece, found)
    return found


def repopulated(
    parts: list[Part],
    free: list[int],
    solution: Solution,
    *,
    together: list[Nest],
    variances: list[FloatArray],
    fresh: bool,
    margin: FloatArray | None = None,
) -> tuple[list[Part], float]:
    """The random effects at populations learned from the solution, and the log-likelihood that it gains.

    ``margin``: what the rows' margins have besides the solution's, ``(n,)``; given where means that are stored
    are modes.
    """
    changed, gained = list(parts), 0.0
    total = np.sum(variances, axis=0)
    for nest, own in zip(together, variances, strict=True):
        if nest.known:
            continue
        inside = [parts[free[i]] for i in nest.places]
        others = total - own
        # A coefficient that the fixed effect has too would share its mean with it: only their sum is known. In an
        # update that effect is held by all of its past, and what has moved of it for newcomers moves here.
        elsewhere = set(parts[0].effect.index.names) if fresh else set[str]()
        if nest.pieced:
            held = _held_evidence(inside, nest, solution, others, margin)
            base, gain = _learned_pieces(inside, held, elsewhere, fresh=fresh)
            if fresh or _is_usable(base):
                gained += gain
                changed = at_population(changed, inside[0].effect.name, base, fresh=fresh)
            continue
        blocks = [solution.problem.blocks[i] for i in nest.places]
        evidence = _evidence(inside, nest, solution, others, margin)
        bases, gain = _learned(inside, blocks, evidence, elsewhere, fresh=fresh)
        # Rows 1e150 spreads from those before leave no digits to compare with them: the populations stay.
        if fresh or all(_is_usable(base) for base in bases):
            gained += gain
            for i, base in zip(nest.places, bases, strict=True):
                changed[free[i]] = parts[free[i]].at_population(base, fresh=fresh)
    return changed, gained


def _learned(
    parts: list[Part],
    blocks: list[Block],
    evidence: Callable[[list[Posterior]], Evidence],
    elsewhere: set[str],
    *,
    fresh: bool,
) -> tuple[list[Posterior], float]:
    """Populations of effects that lie within one another, and the log-likelihood that they gain.

    What rows say of one depends on the populations of the others: all take a step, and then it is asked again.
    That ends where each is the likeliest, as it does for an effect on its own. Means that are ``elsewhere`` stay
    where they are, and so does that of a coefficient that a finer level has too.
    """
    bases, total = [part.effect.population for part in parts], 0.0
    rounds = 1 if len(parts) == 1 else _ROUNDS
    for _ in range(rounds):
        gained, names = 0.0, set(elsewhere)
        for k, (linear, information) in enumerate(evidence(bases)):
            effect = parts[k].effect
            free_mean = np.array([name not in names for name in effect.index.names])
            unit = effect.unit
            if not fresh:  # what is held stays where it is: states of entities rest on it
                unit = Posterior(np.where(free_mean, unit.mean, bases[k].mean), unit.precision)
            bases[k], gain = learn_population(
                linear,
                information,
                bases[k],
                unit,
                free_mean=free_mean,
                past=_past([parts[k]]),
                scaling=blocks[k].design.scaling,
                max_rounds=_ROUNDS if len(parts) == 1 else 1,
            )
            gained, names = gained + gain, names.union(effect.index.names)
        total += gained
        if not gained > _SETTLED:
            break
    return bases, total


def _learned_pieces(
    parts: list[Part], evidence: HeldEvidence, elsewhere: set[str], *, fresh: bool
) -> tuple[Posterior, float]:
    """The population of an effect whose entities hold some coefficients only, and the log-likelihood gained."""
    effect = parts[0].effect
    free_mean = np.array([name not in elsewhere for name in effect.index.names])
    mean = effect.unit.mean if fresh else np.where(free_mean, effect.unit.mean, effect.population.mean)
    return learn_diagonal_population(
        evidence,
        effect.population,
        Posterior(mean, effect.unit.precision),
        free_mean=free_mean,
        past=_past(parts),
        max_rounds=_ROUNDS,
    )


def _held_evidence(
    parts: list[Part], nest: Nest, solution: Solution, others: FloatArray, margin: FloatArray | None
) -> HeldEvidence:
    """What is known of each coefficient that entities hold, of some of them."""
    linear, information, columns, entities = list[FloatArray](), list[FloatArray](), list[IntArray](), 0
    besides = None if margin is None else _besides(nest, solution, margin)
    for part, i, members in zip(parts, nest.places, _held_representatives(parts), strict=True):
        if not len(members):
            continue
        said, told = _held_by(part, i, solution, others, besides, members=members)
        support = np.asarray(part.states.support)[part.learners[members]]
        there = support >= 0
        linear.append(said[there])
        information.append(told[there])
        columns.append(support[there].astype(np.int64))
        entities += len(members)
    nothing = np.zeros(0)
    return HeldEvidence(
        np.concatenate([nothing, *linear]),
        np.concatenate([nothing, *information]),
        np.concatenate([np.zeros(0, np.int64), *columns]),
        entities,
    )


def _besides(nest: Nest, solution: Solution, margin: FloatArray) -> FloatArray:
    """What rows' margins ``(n,)`` have from all but an effect, of which a nest has one block or several."""
    return margin + solution.margin - np.sum([solution.margin_of(i) for i in nest.places], axis=0)


def _held_by(
    part: Part, i: int, solution: Solution, others: FloatArray, besides: FloatArray | None, *, members: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Linear term and information ``(m, w)`` of each coefficient of some entities.

    Where matrices are kept, with the others of the entity integrated out: for ``H = A + B`` and the covariance
    ``S = H^-1`` of all, with mean ``m``, that is ``1/S_jj - B_j`` and ``m_j/S_jj - B_j b_j``. So it is exact where
    learning ends. Otherwise with the others at their means, as diagonal populations are learned elsewhere.
    """
    full = part.form == "full"
    said, told = solution.evidence(i, members, raw=False, others=others, alone=not full)
    if part.states.rows.any():
        drawn, known = _beyond(part, solution.problem.blocks[i])
        drawn, known = drawn[members], type(known)(known.array[members])
        if not full:  # what the others say of each is at their means
            means = solution.scaled_means[i][members]
            drawn, known = drawn - known.times(means) + known.diagonal() * means, known.kept("diagonal")
        said, told = said + drawn, told.plus(known)
    if besides is not None:
        said = said + _pull(part, i, solution, besides, members)
    if not full:
        return said, told.diagonal()
    base = at_support(part.effect.population, part.states.at(part.learners[members]))
    S = told.plus(base.P).inverse()
    m, variance = S.times(said + base.precision * base.mean), S.diagonal()
    alone = np.maximum(1.0 / variance - base.precision, 0.0)
    return m * (alone + base.precision) - base.precision * base.mean, alone


def _held_representatives(parts: Sequence[Part]) -> list[IntArray]:
    """The entities that a population is learned from, by piece: as many as have so many coefficients in all.

    Those that keep the diagonal where others keep matrices, for how many they hold, say nothing: with the others
    at their means each would take what is theirs too, and many coefficients of few rows never settle.
    """
    asked = parts[0].effect.form_at(1)
    counts = np.array([len(part.learners) for part in parts])
    says = np.concatenate([np.full(len(part.learners), part.form == asked) for part in parts])
    sizes = np.concatenate([sizes_of(np.asarray(part.states.support)[part.learners]) for part in parts])
    order = np.argsort(np.concatenate([_lots(part) for part in parts]), kind="stable")
    fits = np.cumsum(sizes[order]) <= _POPULATION_CELLS
    fits[:_REPRESENTATIVES] = True
    kept = np.zeros(len(order), np.bool_)
    kept[order[fits]] = True
    kept &= says
    return [np.flatnonzero(some) for some in np.split(kept, np.cumsum(counts)[:-1])]


def _evidence(
    parts: list[Part], nest: Nest, solution: Solution, others: FloatArray, margin: FloatArray | None
) -> Callable[[list[Posterior]], Evidence]:
    """What is known of entities but from their populations, given those of all effects of a nest."""
    blocks = [solution.problem.blocks[i] for i in nest.places]
    if nest.cells is None:
        linear, information = _evidence_alone(parts[0], nest.places[0], solution, others)
        if margin is not None:
            besides = _besides(nest, solution, margin)
            linear = linear + _pull(parts[0], nest.places[0], solution, besides, _representatives(parts[0]))
        return lambda _: [(linear, information)]
    means = [solution.scaled_means[i] for i in nest.places]
    curvature = left_open(solution.evident, solution.problem.count, others)
    said = nest.cells.said(
        means, nest.cells.gathered(solution.slope), curvature, _representative_cells(parts, nest.cells)
    )
    if parts[0].states.rows.any():
        said = _with_known(said, parts, blocks)

    def evidence(populations: list[Posterior]) -> Evidence:
        bases = [_scaled(one, block).at(None) for one, block in zip(populations, blocks, strict=True)]
        found, _ = said.evidence([(base.P.times(base.mean), base.P) for base in bases])
        forms: list[Form] = ["full" if block.form == "full" else "diagonal" for block in blocks]
        return [(linear, A.kept(form)) for (linear, A), form in zip(found, forms, strict=True)]

    return evidence


def _with_known(said: Said, parts: list[Part], blocks: list[Block]) -> Said:
    """What rows say of nested effects, those here and those before of the entities of the finest level here.

    What is stored of an entity takes all others as known: it is the information of its own rows, which say of what
    levels share but the sum. So of an author that is here his videos here speak, as if there had been no others.
    """
    finest, block = parts[0], blocks[0]
    scaling, names = block.design.scaling, finest.effect.index.names
    shared = [
        sharing(other.design.scaling, scaling, part.effect.index.numbers(names))
        for part, other in zip(parts[1:], blocks[1:], strict=True)
    ]
    linear, known = _beyond(finest, block)
    means = [np.broadcast_to(b.scaled.mean, (b.design.count, b.design.width)) for b in blocks]
    together = np.hstack([np.eye(len(names)), *shared])
    return said.with_known(means, known.times(means[0]) - linear, known.full().array, together)


def _evidence_alone(part: Part, i: int, solution: Solution, others: FloatArray) -> tuple[FloatArray, Precision]:
    """What is known of the entities of an effect on its own: from these rows, and from those before."""
    members, block = _representatives(part), solution.problem.blocks[i]
    linear, information = solution.evidence(i, members, raw=False, others=others)
    if not part.states.rows.any():  # there was nothing before
        return linear, information
    drawn, beyond = _beyond(part, block, members)
    return linear + drawn, information.plus(beyond)


def _beyond(part: Part, block: Block, members: IntArray | None = None) -> Prior:
    """What a prior ``N(m, P)`` of entities has more than their population: ``Pm - Bb`` and ``P - B``.

    Of some, or of all that learn.
    """
    population, prior = part.effect.population, block.scaled
    if members is not None and len(prior.mean) > 1:
        prior = prior.at(members)
    if part.states.support is not None:
        learners = part.learners if members is None else part.learners[members]
        population = at_support(population, part.states.at(learners))
    base = _scaled(population, block)
    if prior.is_full and not base.is_full:
        base = matrices_of(base)
    return prior.P.times(prior.mean) - base.P.times(base.mean), type(prior.P)(prior.precision - base.precision)


def _scaled(population: Posterior, block: Block) -> Posterior:
    """A population in scaled coordinates, in the form that the block works with."""
    if population.is_full and not block.full:  # a lone coefficient
        population = Posterior(population.mean, population.P.diagonal())
    return block.design.scaling.prior_in(population)


def _pull(part: Part, i: int, solution: Solution, besides: FloatArray, members: IntArray | None) -> FloatArray:
    """What to add to the linear terms of the evidence, since that of rows before is from modes, ``(e, d)``.

    Modes lie nearer the population than means: variances learned from them came out the smaller with each update.
    What other effects gave the rows before is taken to be the mean of what they give these, ``besides`` (n,).
    """
    block = solution.problem.blocks[i]
    if not part.states.rows.any() or not is_told(block.scaled):  # there was nothing before, or it cannot be told
        return np.zeros(block.design.width)
    prior = block.scaled if members is None else block.scaled.at(members)
    # Rows whose curvature vanishes count where there are no others.
    counted = solution.curvature + _TINY * solution.problem.weight
    others = np.average(besides, weights=counted)
    population = at_support(part.effect.population, part.states.at(part.learners))
    if members is not None and part.states.support is not None:
        population = population.at(members)
    return pull(prior, block.design.scaling.prior_in(population), np.full(len(prior.mean), others))


def _past(parts: Sequence[Part]) -> Past:
    """The entities that a population was learned from and that are not here, as much as is remembered of them.

    ``parts``: an effect, or the pieces of one.

    What is forgotten makes room for those that are here, and no more: a population does not fade on its own.
    """
    effect, past = parts[0].effect, parts[0].effect.past
    if not past.count:
        return Past.nothing(past.population)
    here = sum(len(part.learners) for part in parts)
    known = sum(  # those that waited were not in it
        np.count_nonzero(part.states.rows[part.learners] >= effect.least_rows) for part in parts
    )
    elapsed = np.array([max(part.latest.max() for part in parts) - effect.learned])
    kept = float(effect.kept(elapsed)[0]) * effect.declared.forgetting
    count = max(kept * past.count - known, past.count - here, 0.0)
    count = min(count, _REMEMBERED)
    return replace(past, count=count, share=count / past.count)


def remembering(
    asked: list[Part],
    parts: list[Part],
    free: list[int],
    solution: Solution,
    *,
    together: list[Nest],
    variances: list[FloatArray],
) -> list[Part]:
    """The effects with what their populations were learned from: a solution at those that were ``asked``."""
    changed, total = list(parts), np.sum(variances, axis=0)
    for nest, own in zip(together, variances, strict=True):
        if nest.known:
            continue
        before = [asked[free[i]] for i in nest.places]
        if nest.pieced:
            name = before[0].effect.name
            effect = next(part.effect for part in changed if part.effect.name == name)
            held = _held_evidence(before, nest, solution, total - own, None)
            count = sum(len(part.learners) for part in before)
            past = held.remembered(_past(before), count, effect.population)
            if np.isfinite(past.information).all():
                learned = int(max(part.latest.max() for part in before))
                effect = replace(effect, past=past, learned=learned)
                changed = [replace(part, effect=effect) if part.effect.name == name else part for part in changed]
            continue
        populations = [parts[free[i]].effect.population for i in nest.places]
        evidence = _evidence(before, nest, solution, total - own, None)(populations)
        for i, part, (_, information) in zip(nest.places, before, evidence, strict=True):
            k = free[i]
            effect, scaling = parts[k].effect, solution.problem.blocks[i].design.scaling
            past = _past([part]).with_entities(information, len(part.learners), effect.population, scaling)
            if np.isfinite(past.information).all():
                changed[k] = replace(
                    parts[k], effect=replace(effect, past=past, learned=int(parts[k].latest.max()))
                )
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
    return np.sort(np.argsort(_lots(part), kind="stable")[:most])


def _representative_cells(parts: Sequence[Part], cells: Cells) -> IntArray:
    """The same of cells: those of a root together, by its lot."""
    most, roots = max(_REPRESENTATIVES, _POPULATION_CELLS // cells.rows.width**2), cells.roots
    if len(roots) <= most:
        return np.arange(len(roots))
    lots = np.concatenate([np.zeros(1, np.uint64), *(_lots(part) for part in parts)])
    order = np.lexsort((roots, lots[roots]))
    return np.flatnonzero(np.isin(roots, roots[order[:most]]))


def _lots(part: Part) -> NDArray[np.uint64]:
    """A lot of each entity that learns, by its rows and times."""
    latest, rows = (column[part.learners].view(np.uint64) for column in (part.latest, part.rows))
    return hashed(latest ^ hashed(rows))
