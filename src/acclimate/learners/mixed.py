"""Mixed-effect logistic regression as pure functions: fit, update and predict.

Zhang et al., GLMix (KDD 2016) for the model; Ouyang et al., arXiv 2108.13299 for the sequential Bayesian update.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from acclimate.arrays import BoolArray, EntityStates, FloatArray, IdArray, IntArray, Posterior
from acclimate.artifacts import Entities, Events
from acclimate.config import GLMixParameters, RandomEffect
from acclimate.features import Settled
from acclimate.learners.batch import Batch, Seen, count_columns, read_batch, sample_rows
from acclimate.learners.effects import FIXED, Effect, new_effects
from acclimate.learners.shared import Shared, unknown
from acclimate.models.blocks import Design
from acclimate.models.hashing import hashed
from acclimate.models.joint import Block, Solution, solve_joint
from acclimate.models.population import learn_population
from acclimate.models.scoring import Mode, Term, margins, score
from acclimate.models.separate import SeparateSolution, is_separate, solve_separately

Changed: TypeAlias = Mapping[str, Iterable[EntityStates]]
"""What an update changed, by effect: what :meth:`acclimate.artifacts.Entities.commit` takes."""

_ROUNDS = 5
"""Rounds of fit and population at most; one variance settles in three, a large covariance comes close."""

_LOOSE = 0.03
"""Decrement per square root of an entity at which a round of learning the population is close enough."""

_SETTLED = 1.0
"""Log-likelihood, in nats, that a round of learning the population has to gain for another one to follow."""

_POPULATION_CELLS = 1 << 22
"""Cells of the entities' information (matrices, or diagonals) that a population is learned from at most: beyond,
some entities stand for all. Sixteen coefficients are learned from 16,384 entities, to about a hundredth of a
variance; what that costs in the posteriors is of second order."""

_REPRESENTATIVES = 4096
"""Entities that a population is learned from at least, where there are so many."""


@dataclass(frozen=True)
class Info:
    """How a fit or an update went.

    ``rows`` learned from, Newton ``steps``, design ``products``, ``rounds`` of learning the population, the joint
    Newton ``decrement`` (posterior standard deviations left to go), whether that ``converged``, and per effect
    the ids of the entities that did not.
    """

    rows: int
    steps: int
    products: int
    rounds: int
    decrement: float
    converged: bool
    unsettled: dict[str, IdArray]


NOTHING_LEARNED = Info(0, 0, 0, 0, 0.0, True, {})


@dataclass(frozen=True)
class Part:
    """One effect in a batch that is learned.

    ``effect``: with the columns of the batch. ``states``: of the batch's distinct entities ``(t,)``, as they are
    before it. ``codes``: which of these each row is of, ``(n,)``. ``latest`` and ``rows`` ``(t,)``: the time of
    their last event here, and how many they have. ``learns`` ``(t,)``: whether an entity learns from the batch, or
    is only known: the effect is locked, or its rows are too few.
    """

    effect: Effect
    states: EntityStates
    codes: IntArray
    latest: IntArray
    rows: IntArray
    learns: BoolArray

    @property
    def learners(self) -> IntArray:
        """The entities that learn, as places among the batch's."""
        return np.flatnonzero(self.learns)

    def entity(self) -> IntArray:
        """Of each row ``(n,)``: which of the entities that learn it is of, -1 for none."""
        return np.where(self.learns, np.cumsum(self.learns) - 1, -1)[self.codes]

    def design(self, X: Any, weight: FloatArray) -> Design:
        """The rows ``(n, d)`` of the entities that learn; ``weight`` is ``(n,)``."""
        return Design.of(X, self.entity(), len(self.learners), weight=weight, centre=self.effect.form == "full")

    def prior(self) -> Posterior:
        """Of the entities that learn; one for all where none of the batch's is known."""
        if not self.states.rows.any():
            return self.effect.population.at(None)
        return self.effect.prior(states_at(self.states, self.learners), self.latest[self.learners])

    def at_population(self, population: Posterior) -> "Part":
        """The same with all entities at a new population."""
        effect = replace(self.effect, population=population)
        return replace(self, effect=effect, states=unknown(effect, self.states.ids))

    def changed(self, members: IntArray, posterior: Posterior) -> EntityStates:
        """The states after the batch of some of the entities that learn, counted among these."""
        places = self.learners[members]
        return EntityStates(
            self.states.ids[places],
            posterior,
            np.maximum(self.states.touched, self.latest)[places],
            self.states.rows[places] + self.rows[places],
        )


def states_at(states: EntityStates, places: IntArray) -> EntityStates:
    """The states at these places."""
    return EntityStates(
        states.ids[places], states.posterior.at(places), states.touched[places], states.rows[places]
    )


@dataclass(frozen=True)
class Task:
    """A batch made ready to be learned: designs in standardised form instead of the rows as they were read.

    ``designs``: of the effects that learn, by place among ``parts``. ``outside``: the rows that effects are known
    for but do not learn from: the effect's place, which rows, and these. ``label``, ``offset`` and ``weight`` are
    ``(n,)``.
    """

    parts: list[Part]
    designs: dict[int, Design]
    outside: list[tuple[int, IntArray, Seen]]
    label: FloatArray
    offset: FloatArray
    weight: FloatArray

    def margins(self, parts: Sequence[Part]) -> FloatArray:
        """What is known of each row's margin ``(n,)``: its offset, locked effects, entities with too few rows."""
        z = self.offset.astype(np.float64)
        for k, rows, seen in self.outside:
            term = Term(seen.X, seen.codes, seen.ids, parts[k].states.posterior.mean)
            z[rows] += margins([term], np.zeros(len(rows)))
        return z

    def blocks(self, parts: Sequence[Part]) -> list[Block]:
        """The effects that learn, at their priors of now."""
        return [Block(design, parts[k].prior(), parts[k].effect.form) for k, design in self.designs.items()]


def prepared(
    batch: Batch, taken: Mapping[str, EntityStates], shared: Shared, *, locked: Collection[str] = ()
) -> Task:
    """A batch made ready; it is not needed any more then, and large ones should not stand in memory twice.

    Args:
        batch: from :func:`acclimate.learners.shared.begun` or :func:`acclimate.learners.shared.grown`.
        taken: of each random effect the states of the batch's entities, in the order in which it has them.
        shared: from there too.
        locked: effects that stay as they are and count as offsets.
    """
    states = {FIXED: shared.fixed_states, **taken}
    parts = [
        _part(seen, states[seen.effect.name], batch, locked=seen.effect.name in locked) for seen in batch.seen
    ]
    rows, parts = _by_entity(*_capped(batch, parts))
    designs = {
        k: part.design(seen.X, rows.weight)
        for k, (part, seen) in enumerate(zip(parts, rows.seen, strict=True))
        if part.learns.any()
    }
    return Task(parts, designs, _outside(parts, rows), rows.label, rows.offset, rows.weight)


def learn(
    parameters: GLMixParameters,
    shared: Shared,
    task: Task,
    *,
    start: Mapping[str, FloatArray] | None = None,
    population: bool = False,
) -> tuple[Shared, Changed, Info]:
    """The joint posterior of all effects after a batch; what came before enters through posteriors alone.

    Args:
        parameters: what a GLMix is.
        shared: as it was prepared with.
        task: the batch.
        start: means ``(t, d)`` of the batch's entities, by effect, to begin the search at.
        population: learn the populations of the random effects first, from these rows.

    Returns:
        What is shared now, the states that have changed (computed piece by piece, as they are asked for), and how
        it went.
    """
    parts, free = task.parts, list(task.designs)
    if not free:
        return shared, {}, NOTHING_LEARNED
    means = None if start is None else [start[parts[k].effect.name][parts[k].learners] for k in free]
    jointly = partial(solve_joint, y=task.label, weight=task.weight, max_steps=parameters.max_steps)
    steps = products = rounds = 0
    curvature = None
    if population and any(k > 0 for k in free):
        loose = _LOOSE * np.sqrt(sum(len(parts[k].learners) for k in free))
        gain = np.inf
        while gain > _SETTLED and rounds < _ROUNDS:
            offset = task.margins(parts)
            solution = jointly(
                task.blocks(parts), offset=offset, start=means, curvature=curvature, tolerance=loose
            )
            steps, products = steps + solution.steps, products + solution.products
            parts, gain = _repopulated(parts, free, solution)
            means, curvature = [solution.means(i) for i in range(len(free))], solution.curvature
            rounds += 1
    blocks, offset = task.blocks(parts), task.margins(parts)
    if means is None and is_separate(blocks):
        solved: Solution | SeparateSolution = solve_separately(
            blocks[0],
            task.label,
            offset,
            task.weight,
            tolerance=parameters.tolerance,
            max_steps=parameters.max_steps,
        )
    else:
        solved = jointly(blocks, offset=offset, start=means, curvature=curvature, tolerance=parameters.tolerance)
    learned = {parts[k].effect.name: (i, parts[k]) for i, k in enumerate(free)}
    unsettled = {
        name: _unsettled(part, solved.decrements[i], parameters.tolerance) for name, (i, part) in learned.items()
    }
    steps, products = steps + solved.steps, products + solved.products
    info = Info(len(task.label), steps, products, rounds, solved.decrement, solved.converged, unsettled)
    pieces = {name: _pieces(part, solved, i) for name, (i, part) in learned.items()}
    fixed_states = next(iter(pieces.pop(FIXED))) if FIXED in pieces else shared.fixed_states
    effects = [part.effect for part in parts]
    return replace(shared, fixed=effects[0], random=tuple(effects[1:]), fixed_states=fixed_states), pieces, info


def _part(seen: Seen, states: EntityStates, batch: Batch, *, locked: bool) -> Part:
    declared, count = seen.effect.declared, len(seen.ids)
    latest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(latest, seen.codes, batch.time)
    rows = np.bincount(seen.codes, minlength=count)
    least = declared.min_rows if isinstance(declared, RandomEffect) else 1
    learns = np.zeros(count, np.bool_) if locked else rows >= least
    return Part(seen.effect, states, seen.codes, latest, rows, learns)


def _capped(batch: Batch, parts: list[Part]) -> tuple[Batch, list[Part]]:
    """The rows left by each random effect's ``max_rows``; how many an entity had is not forgotten."""
    for k in range(len(parts)):
        part = parts[k]
        declared = part.effect.declared
        if isinstance(declared, RandomEffect) and declared.max_rows is not None:
            batch = batch.at(*sample_rows(batch, part.entity(), declared.max_rows))
            parts = _with_rows_of(batch, parts)
    return batch, parts


def _by_entity(batch: Batch, parts: list[Part]) -> tuple[Batch, list[Part]]:
    """The rows in the order of the entities of the largest effect: what is worked on together lies together."""
    largest = max(parts, key=lambda part: len(part.states) * len(part.effect.index))
    order = np.argsort(largest.codes, kind="stable")
    batch = batch.at(order, batch.weight[order])
    return batch, _with_rows_of(batch, parts)


def _with_rows_of(batch: Batch, parts: list[Part]) -> list[Part]:
    return [replace(part, codes=seen.codes) for part, seen in zip(parts, batch.seen, strict=True)]


def _outside(parts: Sequence[Part], batch: Batch) -> list[tuple[int, IntArray, Seen]]:
    """See :class:`Task`."""
    rows = [np.flatnonzero(~part.learns[part.codes]) for part in parts]
    return [(k, rows[k], seen.at(rows[k])) for k, seen in enumerate(batch.seen) if len(rows[k])]


def _repopulated(parts: list[Part], free: list[int], solution: Solution) -> tuple[list[Part], float]:
    """The random effects at populations learned from the solution, and the log-likelihood that it gains."""
    changed, gained = list(parts), 0.0
    fixed_names = set(parts[0].effect.index.names)
    for i, k in enumerate(free):
        if k == 0:
            continue
        effect = parts[k].effect
        linear, information = solution.evidence(i, _representatives(parts[k]))
        # A coefficient that the fixed effect has too would share its mean with it: only their sum is known.
        alone = np.array([name not in fixed_names for name in effect.index.names])
        base, gain = learn_population(linear, information, effect.population, effect.ridge, free_mean=alone)
        changed[k], gained = parts[k].at_population(base), gained + gain
    return changed, gained


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


def _unsettled(part: Part, decrements: FloatArray, tolerance: float) -> IdArray:
    return part.states.ids[part.learners[decrements > tolerance]]


def _pieces(part: Part, solved: Solution | SeparateSolution, block: int) -> Iterator[EntityStates]:
    for members in solved.pieces(block):
        yield part.changed(members, solved.posterior(block, members))


# --- prediction and checks ----------------------------------------------------------------------------------


def predict(
    shared: Shared, entities: Entities, events: Events, *, mode: Mode = "point", seed: int = 0
) -> FloatArray:
    """Probabilities of the label, ``(n,)``; see :meth:`acclimate.GLMix.predict`."""
    names = {effect.name for effect in shared.effects}
    batch = read_batch(events, shared.effects, shared.settled, label=None, locked=names)
    fixed, *random = batch.seen
    posterior = shared.fixed_states.posterior
    terms = [Term(fixed.X, fixed.codes, fixed.ids, posterior.mean, posterior.precision)]
    for seen in random:
        name, population = seen.effect.name, seen.effect.population
        if mode == "point":
            terms.append(Term(seen.X, seen.codes, seen.ids, entities.means(name, seen.ids, population)))
            continue
        posterior = entities.take(name, seen.ids, population).posterior
        terms.append(Term(seen.X, seen.codes, seen.ids, posterior.mean, posterior.precision))
    return score(terms, batch.offset, mode, seed)


def columns(parameters: GLMixParameters, events: Events) -> dict[str, int]:
    """How many coefficients each effect would have on these events; all of them are read and checked."""
    effects = new_effects(parameters, events.schema)
    indexes = count_columns(events, effects, Settled(), events.schema.label(parameters.label))
    return {effect.name: len(index) for effect, index in zip(effects, indexes, strict=True)}
