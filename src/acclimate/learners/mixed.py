"""Mixed-effect regression (logistic, of numbers, of counts) as pure functions: fit, update and predict.

Zhang et al., GLMix (KDD 2016) for the model; Ouyang et al., arXiv 2108.13299 for the sequential Bayesian update.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np

from acclimate.arrays import EntityStates, FloatArray, IdArray, IntArray, Posterior, SparseStates
from acclimate.artifacts import Drift, Entities, Events
from acclimate.config import GLMixParameters
from acclimate.features import Settled
from acclimate.learners.batch import Batch, count_columns, read_in_order
from acclimate.learners.drift import together
from acclimate.learners.effects import FIXED, Effect, new_effects
from acclimate.learners.marginal import raw_marginal, scaled_marginal
from acclimate.learners.noise import faded, refreshed
from acclimate.learners.populations import nested, nests, remembering, repopulated, variances
from acclimate.learners.ridges import learned_ridges
from acclimate.learners.shared import Shared
from acclimate.learners.task import Part, Task, at_population
from acclimate.models.held_scoring import Held, HeldTerm
from acclimate.models.joint import Block, Solution, solve_joint
from acclimate.models.likelihood import Loss
from acclimate.models.noise import gain as noise_gain
from acclimate.models.scoring import Mode, Scored, Term, score
from acclimate.models.separate import SeparateSolution, is_separate, solve_separately

Changed: TypeAlias = Mapping[str, Iterable[EntityStates]]
"""What an update changed, by effect: what :meth:`acclimate.artifacts.Entities.commit` takes."""

_ROUNDS = 30
"""Rounds of fit and population at most; one variance settles in three, a large covariance comes close."""

_SPREADS = 10
"""Rounds of coefficients and variances of the rows at most, where losses are expected ones; three are usual."""

_SPREAD_SETTLED = 0.01
"""Change of the rows' variances, relative to 1 and themselves, at which they are as good as found."""

_LOOSE = 0.03
"""Decrement per square root of an entity at which a round of learning the population is close enough."""

_SETTLED = 0.01
"""Log-likelihood, in nats, that a round of learning the population has to gain for another one to follow."""


@dataclass(frozen=True)
class Info:
    """How a fit or an update went.

    ``rows`` learned from, Newton ``steps``, design ``products``, ``rounds`` of learning the population, the joint
    Newton ``decrement`` (posterior standard deviations left to go), whether that ``converged``, and per effect
    the ids of the entities that did not. ``pieces``: in how many the rows were learned, more than one where they
    do not fit into the memory; ``decrement`` is then the largest. ``drift``: how rows of an update surprised the
    model.
    """

    rows: int
    steps: int
    products: int
    rounds: int
    decrement: float
    converged: bool
    unsettled: dict[str, IdArray]
    pieces: int = 1
    drift: tuple[Drift, ...] = ()

    def joined(self, other: "Info") -> "Info":
        """Of both pieces together."""
        names = dict.fromkeys([*self.unsettled, *other.unsettled])
        return Info(
            self.rows + other.rows,
            self.steps + other.steps,
            self.products + other.products,
            self.rounds + other.rounds,
            max(self.decrement, other.decrement),
            self.converged and other.converged,
            {name: _either(self.unsettled.get(name), other.unsettled.get(name)) for name in names},
            self.pieces + other.pieces,
            together(self.drift, other.drift),
        )


NOTHING_LEARNED = Info(0, 0, 0, 0, 0.0, True, {})


def _either(one: IdArray | None, other: IdArray | None) -> IdArray:
    """The ids of both, each once."""
    there = [ids for ids in (one, other) if ids is not None and len(ids)]
    if not there:
        return np.zeros(0, np.int64)
    return np.array(list(dict.fromkeys(np.concatenate(there).tolist())), there[0].dtype)


def learn(
    parameters: GLMixParameters,
    shared: Shared,
    task: Task,
    *,
    start: Mapping[str, FloatArray | SparseStates] | None = None,
    population: Literal["keep", "learn", "refresh"] = "keep",
    begin: Mapping[str, Posterior] | None = None,
    noise: Literal["keep", "learn"] = "learn",
) -> tuple[Shared, Changed, Info]:
    """The joint posterior of all effects after a batch; what came before enters through posteriors alone.

    Args:
        parameters: what a GLMix is.
        shared: as it was prepared with.
        task: the batch; it is used up.
        start: means ``(t, d)`` of the batch's entities, by effect, to begin the search at; or their states, where
            they hold some coefficients only.
        population: ``learn`` those of the random effects first, from these rows; or ``refresh`` what is known of
            them by what is new.
        begin: populations, by effect, to begin learning them at; what is usual without.
        noise: whether that of numbers or counts is learned, where it is not given.

    Returns:
        What is shared now, the states that have changed (computed piece by piece, as they are asked for), and how
        it went.
    """
    search = _Search(parameters, shared, noise=noise)
    parts, free = task.parts, list(task.designs)
    means = None if start is None else [parts[k].means_at(start[parts[k].effect.name]) for k in free]
    curvature = None
    # Rows of no weight teach nothing.
    if not any(k > 0 for k in free) or (population == "refresh" and not task.weight.any()):
        population = "keep"
    if population != "keep" or search.learns_noise(task) or search.learns_ridges(task):
        parts, means, curvature = search.priors(task, means, begin or {}, population)
        task.parts[:] = parts
    if search.learns_ridges(task):
        shared = replace(shared, fixed_states=parts[0].states, marginal=parts[0].states.posterior.precision)
    found: list[_Found] = []
    margin = task.margins(parts)
    if free:
        found, margin = search.together(task, parts, margin, means, curvature)
    if any(part.waits.any() for part in parts):
        for one in task.waiting(parts, margin):
            columns = task.label[one.rows], one.offset, task.weight[one.rows]
            found.append(_Found(one.part, one.places, search.solution([one.block], *columns), 0))
    if not found:
        return shared, {}, NOTHING_LEARNED
    pieces: dict[str, Iterator[EntityStates]] = {}
    for one in found:
        pieces[one.name] = chain(pieces.get(one.name, ()), one.pieces())
    if FIXED in pieces:
        joint = (one.solution for one in found if one.name == FIXED and isinstance(one.solution, Solution))
        marginal = raw_marginal(task, parts, shared.fixed_posterior, next(joint))
        shared = replace(shared, fixed_states=next(pieces.pop(FIXED)), marginal=marginal)
    fixed, *random = {part.effect.name: part.effect for part in parts}.values()
    shared = replace(
        shared,
        fixed=fixed,
        random=tuple(random),
        noise=search.noise,
        ridges=search.ridges,
        nested=search.nested,
    )
    return shared, pieces, search.info(len(task.label), found)


@dataclass(frozen=True)
class _Found:
    """What was found of some entities of one effect, ``places`` among the batch's: a block of a solution."""

    part: Part
    places: IntArray
    solution: Solution | SeparateSolution
    block: int

    @property
    def name(self) -> str:
        return self.part.effect.name

    def pieces(self) -> Iterator[EntityStates]:
        for members in self.solution.pieces(self.block):
            yield self.part.changed(self.places[members], self.solution.posterior(self.block, members))

    def unsettled(self, tolerance: float) -> IdArray:
        return self.part.states.ids[self.places[~(self.solution.decrements[self.block] <= tolerance)]]


class _Search:
    """Solves, and counts what it takes."""

    def __init__(
        self, parameters: GLMixParameters, shared: Shared, *, noise: Literal["keep", "learn"] = "learn"
    ) -> None:
        self.parameters, self.asked_noise = parameters, noise == "learn" and parameters.noise is None
        self.loss: Loss = parameters.loss
        self.noise, self.unit, self.ridges = shared.noise, shared.unit, shared.ridges
        self.nested = shared.nested
        self.steps = self.products = self.rounds = 0

    def solution(
        self,
        blocks: list[Block],
        y: FloatArray,
        offset: FloatArray,
        weight: FloatArray,
        *,
        start: Sequence[FloatArray] | None = None,
        curvature: FloatArray | None = None,
    ) -> Solution | SeparateSolution:
        if start is None and is_separate(blocks):
            found = solve_separately(
                blocks[0],
                y,
                offset,
                weight / self.noise.variance,
                loss=self.loss,
                tolerance=self.parameters.tolerance,
                max_steps=self.parameters.max_steps,
            )
            self.steps, self.products = self.steps + found.steps, self.products + found.products
            return found
        tolerance = self.parameters.tolerance
        return self.joint(blocks, y, offset, weight, start=start, curvature=curvature, tolerance=tolerance)

    def joint(
        self,
        blocks: list[Block],
        y: FloatArray,
        offset: FloatArray,
        weight: FloatArray,
        *,
        start: Sequence[FloatArray] | None,
        curvature: FloatArray | None,
        tolerance: float,
        variance: FloatArray | None = None,
    ) -> Solution:
        found = solve_joint(
            blocks,
            y,
            offset,
            weight,
            loss=self.loss,
            start=start,
            curvature=curvature,
            variance=variance,
            noise=self.noise.variance,
            tolerance=tolerance,
            max_steps=self.parameters.max_steps,
        )
        self.steps, self.products = self.steps + found.steps, self.products + found.products
        return found

    def approximated(
        self,
        task: Task,
        parts: list[Part],
        free: list[int],
        margin: FloatArray,
        *,
        weight: FloatArray,
        start: Sequence[FloatArray] | None,
        curvature: FloatArray | None,
    ) -> Solution | SeparateSolution:
        """The solution that posteriors lie around: at the mode, or where the expected loss is least.

        The latter is under the variance that random effects leave each row's margin (Opper and Archambeau, 2009).
        """
        blocks, y = task.blocks(parts, free), task.label
        if self.parameters.approximation == "laplace" or self.loss == "squared":  # whose posterior is Gaussian
            return self.solution(blocks, y, margin, weight, start=start, curvature=curvature)
        together, spread, variance, rounds = None, None, None, 0
        while True:
            found = self.joint(
                blocks,
                y,
                margin,
                weight,
                start=start,
                curvature=curvature,
                variance=variance,
                tolerance=self.parameters.tolerance,
            )
            start, curvature = [found.means(i) for i in range(len(blocks))], found.curvature
            together = together or nests(found, parts, free, self.nested)
            spread, before = variances(found, together, spread), variance
            variance, rounds = np.sum(spread, axis=0), rounds + 1
            settled = before is not None and np.all(np.abs(variance - before) <= _SPREAD_SETTLED * (1.0 + before))
            if settled or rounds == _SPREADS:
                return found

    def together(
        self,
        task: Task,
        parts: list[Part],
        margin: FloatArray,
        means: list[FloatArray] | None,
        curvature: FloatArray | None,
    ) -> tuple[list[_Found], FloatArray]:
        """What the effects that learn find, and the margins ``(n,)`` there.

        Effects with a cap learn first, one after another, each with all that are left from the rows that stand for
        its own, the largest sample before the smaller; then the others do from all rows. What was learned is an
        offset for those that follow. As equations of one system all would say what the common level is, and differ
        in it by the noise of the samples.
        """
        free = list(task.designs)
        rest, found = free.copy(), list[_Found]()
        samples = {parts[k].effect.name: sample for k in free if (sample := parts[k].sample) is not None}
        for name in sorted(samples, key=lambda name: -np.count_nonzero(samples[name])):
            start = None if means is None else [means[free.index(j)] for j in rest]
            weight = task.weight * samples[name]
            solution = self.approximated(task, parts, rest, margin, weight=weight, start=start, curvature=None)
            for i, k in enumerate(rest):
                if parts[k].effect.name == name:
                    found.append(_Found(parts[k], parts[k].learners, solution, i))
                    margin = margin + solution.margin_of(i)
            rest = [k for k in rest if parts[k].effect.name != name]
        if not rest:
            return found, margin
        start = None if means is None else [means[free.index(k)] for k in rest]
        solution = self.approximated(
            task, parts, rest, margin, weight=task.weight, start=start, curvature=curvature
        )
        found += [_Found(parts[k], parts[k].learners, solution, i) for i, k in enumerate(rest)]
        return found, margin + solution.margin

    def learns_noise(self, task: Task) -> bool:
        """Whether rows say something of the noise."""
        asked = self.loss != "logistic" and self.asked_noise
        return asked and bool(task.designs) and bool((task.weight * task.settled).any())

    def learns_ridges(self, task: Task) -> bool:
        """Whether the fixed effect's are learned: at the first rows that it has, if that is asked for."""
        asked = self.parameters.fixed.ridge == "learned" and 0 in task.designs
        return asked and not task.parts[0].states.rows.any() and bool(task.weight.any())

    def priors(
        self,
        task: Task,
        means: list[FloatArray] | None,
        begin: Mapping[str, Posterior],
        population: Literal["keep", "learn", "refresh"],
    ) -> tuple[list[Part], list[FloatArray], FloatArray]:
        """The effects at populations learned from the rows, and means and curvature to go on from.

        The noise is learned with them, from what the rows say beside what was known before.
        """
        parts, free, fresh = list(task.parts), list(task.designs), population == "learn"
        past, noisy, ridged = faded(self.noise, task.parts[0]), self.learns_noise(task), self.learns_ridges(task)
        if fresh:
            for effect in {parts[k].effect.name: parts[k].effect for k in free if k > 0}.values():
                parts = at_population(parts, effect.name, begin.get(effect.name, effect.unit), fresh=True)
        loose = _LOOSE * np.sqrt(sum(len(parts[k].learners) for k in free))
        if ridged:  # which are learned from the means, wherever these stop
            loose = min(loose, self.parameters.tolerance)
        curvature, spread, together = None, None, None
        while True:
            solution = self.joint(
                task.blocks(parts),
                task.label,
                task.margins(parts),
                task.weight,
                start=means,
                curvature=curvature,
                variance=None if spread is None else np.sum(spread, axis=0),
                tolerance=loose,
            )
            known = spread is not None
            if fresh and self.nested is None:
                self.nested = nested(nests(solution, parts, free), parts, free)
            together = together or nests(solution, parts, free, self.nested)
            spread = variances(solution, together, spread, fixed=ridged)
            asked, gain = parts, 0.0
            if population != "keep":
                at_mode = self.parameters.approximation == "laplace" and self.loss == "logistic"
                parts, gain = repopulated(
                    parts,
                    free,
                    solution,
                    together=together,
                    variances=spread,
                    fresh=fresh,
                    margin=task.margins(parts) if at_mode else None,
                )
                task.parts[:] = parts  # states as they were before are not needed any more, and are large
            if noisy:
                before = self.noise.variance
                random = [own for nest, own in zip(together, spread, strict=True) if not nest.known]
                self.noise = refreshed(past, task, solution, random, usual=self.unit)
                gain += noise_gain(before, self.noise)
            if ridged:
                marginal = scaled_marginal(task, asked, asked[0].effect.population.at(None), solution)
                parts[0], self.ridges, more = learned_ridges(parts[0], solution, marginal)
                gain += more
            means, curvature = [solution.means(i) for i in range(len(free))], solution.curvature
            self.rounds += 1
            if (known and not gain > _SETTLED) or self.rounds == _ROUNDS:
                if population != "keep":
                    parts = remembering(asked, parts, free, solution, together=together, variances=spread)
                return parts, means, curvature
            del solution  # its priors are as large as those of the next round

    def info(self, rows: int, found: Sequence[_Found]) -> Info:
        unsettled: dict[str, IdArray] = {}
        for one in found:
            ids = one.unsettled(self.parameters.tolerance)
            unsettled[one.name] = np.concatenate([unsettled[one.name], ids]) if one.name in unsettled else ids
        solutions = list({id(one.solution): one.solution for one in found}.values())
        decrement = float(np.linalg.norm([one.decrement for one in solutions]))
        converged = all(one.converged for one in solutions)
        return Info(rows, self.steps, self.products, self.rounds, decrement, converged, unsettled)


# --- prediction and checks ----------------------------------------------------------------------------------


def predict(
    shared: Shared,
    entities: Entities,
    events: Events,
    *,
    loss: Loss,
    at_mode: bool = True,
    mode: Mode = "point",
    seed: int = 0,
) -> FloatArray:
    """Expected labels, ``(n,)``; see :meth:`acclimate.GLMix.predict`.

    ``at_mode``: whether the means of entities are modes.
    """
    batches = read_in_order(events, shared.effects, shared.settled)
    said = [
        _predicted(shared, entities, batch, loss=loss, at_mode=at_mode, mode=mode, seed=seed) for batch in batches
    ]
    return said[0] if len(said) == 1 else np.concatenate(said)


def _predicted(
    shared: Shared, entities: Entities, batch: Batch, *, loss: Loss, at_mode: bool, mode: Mode, seed: int
) -> FloatArray:
    fixed, *random = batch.seen
    posterior = shared.fixed_posterior
    terms: list[Scored] = [Term(fixed.X, fixed.codes, fixed.ids, posterior.mean, posterior.precision)]
    for seen in random:
        effect, name = seen.effect, seen.effect.name
        skewed = at_mode and loss == "logistic"
        if effect.is_sparse:
            held = list(_held(effect, entities, seen.ids, means=mode == "point"))
            terms.append(HeldTerm(seen.X, seen.codes, seen.ids, held, effect.population, at_mode=skewed))
            continue
        if mode == "point" and effect.least_rows == 1 and not effect.moved:  # no precision has to be read
            terms.append(Term(seen.X, seen.codes, seen.ids, entities.means(name, seen.ids, effect.base)))
            continue
        posterior = effect.shown(effect.now(entities.take(name, seen.ids, effect.base))).posterior
        population = effect.population if skewed else None
        terms.append(Term(seen.X, seen.codes, seen.ids, posterior.mean, posterior.precision, population))
    return score(terms, batch.offset, mode, seed, loss=loss)


def _held(effect: Effect, entities: Entities, ids: IdArray, *, means: bool) -> Iterator[Held]:
    """What entities hold as others see it; the ``means`` alone if that can be."""
    if means and effect.least_rows == 1 and not effect.moved:
        yield from (Held(*piece) for piece in entities.sparse_means(effect.name, ids))
        return
    for places, piece in effect.now_sparse(entities.take_sparse(effect.name, ids)).pieces:
        posterior = effect.shown(piece).posterior
        if piece.support is not None:
            yield Held(places, piece.support, posterior.mean, posterior.precision)


def columns(parameters: GLMixParameters, events: Events) -> dict[str, int]:
    """How many coefficients each effect would have on these events; all of them are read and checked."""
    effects = new_effects(parameters, events.schema)
    label = events.schema.label(parameters.label, kinds=parameters.label_kinds)
    indexes = count_columns(events, effects, Settled(), label)
    return {effect.name: len(index) for effect, index in zip(effects, indexes, strict=True)}
