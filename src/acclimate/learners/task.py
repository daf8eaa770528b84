"""A batch made ready to be learned: who learns from it, from which rows, and how much each of these counts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from acclimate.arrays import BoolArray, EntityStates, FloatArray, Form, IntArray, Posterior, SparseStates
from acclimate.config import RandomEffect
from acclimate.features import has_id
from acclimate.learners.batch import Batch, Seen, sampled
from acclimate.learners.effects import FIXED, Effect, at_support
from acclimate.learners.local import means_at, pieces
from acclimate.learners.shared import Shared
from acclimate.models.blocks import Design
from acclimate.models.joint import Block
from acclimate.models.scaling import Scaling
from acclimate.models.scoring import Term, margins


@dataclass(frozen=True)
class Part:
    """One effect in a batch that is learned, or, where entities hold some coefficients only, some of its entities.

    ``effect``: with the columns of the batch. ``states``: of the batch's distinct entities ``(t,)``, as they are
    before it. ``codes``: which of these each row is of, ``(n,)``, -1 for none. ``latest`` and ``rows`` ``(t,)``:
    the time of their last event here, and how many they have. ``learns`` and ``waits`` ``(t,)``: whether an entity
    learns from the batch with all others, or on its own and unseen by them, since it has too few rows yet; neither
    where the effect is locked, nor what stands for rows without an entity, which stays at the population.
    ``active``: how much each row counts here by its age ``(n,)``; ``sample``: the same by ``max_rows``, 0 for rows
    that others stand for; none where all count whole. ``groups``: the columns of each feature whose ridge is
    learned. ``keep`` ``(t,)``: of an adaptive effect, by how much less of an entity's past counts than declared.
    """

    effect: Effect
    states: EntityStates
    codes: IntArray
    latest: IntArray
    rows: IntArray
    learns: BoolArray
    waits: BoolArray
    active: FloatArray | None = None
    sample: FloatArray | None = None
    groups: dict[str, IntArray] = field(default_factory=dict[str, IntArray])
    keep: FloatArray | None = None

    @property
    def form(self) -> Form:
        """What is kept of its entities' precisions."""
        return self.effect.form_at(self.states.posterior.mean.shape[1])

    @property
    def learners(self) -> IntArray:
        """The entities that learn, as places among the batch's."""
        return np.flatnonzero(self.learns)

    def design(self, X: Any, weight: FloatArray) -> Design:
        """The rows ``(n, d)`` of the entities that learn; ``weight`` is ``(n,)``."""
        return _design(self, X, self.codes, self.learns, weight)

    def prior(self, places: IntArray) -> Posterior:
        """Of some entities, in their order; one for all where none of the batch's is known."""
        if not self.states.rows.any():
            population = self.effect.population
            return population.at(None) if self.states.support is None else self.states.posterior.at(places)
        if len(places) == len(self.states):
            return self.effect.prior(self.states, self.latest, self.keep)
        keep = None if self.keep is None else self.keep[places]
        return self.effect.prior(self.states.at(places), self.latest[places], keep)

    def known(self) -> FloatArray:
        """The means ``(t, d)`` of all entities as others see them: at the population while they wait."""
        return self.effect.shown(self.states).posterior.mean

    def means_at(self, known: FloatArray | SparseStates) -> FloatArray:
        """The means of the entities that learn, ``(e, d)``, by what is known of all of the batch's."""
        if isinstance(known, SparseStates):
            return means_at(self.states, self.effect, known)[self.learners]
        return known[self.learners]

    def at_population(self, population: Posterior, *, fresh: bool) -> "Part":
        """The same with all entities at a new population, which ``fresh`` states are to rest on."""
        if fresh:
            effect = self.effect.at_population(population)
            posterior = at_support(population, self.states)
            if self.states.support is None:
                posterior = posterior.repeated(len(self.states))
            nothing = np.zeros(len(self.states), np.int64)
            return replace(
                self,
                effect=effect,
                states=replace(self.states, posterior=posterior, touched=nothing, rows=nothing),
            )
        effect = replace(self.effect, population=population)
        return replace(self, effect=effect, states=effect.moved_from(self.effect.population, self.states))

    def changed(self, places: IntArray, posterior: Posterior) -> EntityStates:
        """The states after the batch of some entities."""
        return EntityStates(
            self.states.ids[places],
            posterior,
            self.effect.last(self.states, self.latest)[places],
            self.states.rows[places] + self.rows[places],
            None if self.states.support is None else self.states.support[places],
        )


def at_population(parts: Sequence[Part], effect: str, population: Posterior, *, fresh: bool) -> list[Part]:
    """All parts, with those of one effect at a new population."""
    return [part.at_population(population, fresh=fresh) if part.effect.name == effect else part for part in parts]


@dataclass(frozen=True)
class Outside:
    """The rows ``(m,)`` that one effect, by its place, is known for but does not learn from with all others."""

    part: int
    rows: IntArray
    seen: Seen


@dataclass(frozen=True)
class Task:
    """A batch made ready: designs in standardised form instead of the rows as they were read.

    ``designs``: of the effects that learn, by place among ``parts``. ``label``, ``offset`` and ``weight`` are
    ``(n,)``.
    """

    parts: list[Part]
    designs: dict[int, Design]
    outside: list[Outside]
    label: FloatArray
    offset: FloatArray
    weight: FloatArray

    @property
    def settled(self) -> BoolArray:
        """Which rows are of no entity that waits, ``(n,)``."""
        return ~np.any([_of_rows(part.waits, part.codes) for part in self.parts], axis=0)

    def margins(self, parts: Sequence[Part]) -> FloatArray:
        """What is known of each row's margin ``(n,)``: its offset, locked effects, entities that wait."""
        z = self.offset.astype(np.float64)
        for one in self.outside:
            z[one.rows] += _margin(parts[one.part], one.seen)
        return z

    def blocks(self, parts: Sequence[Part], places: Sequence[int] | None = None) -> list[Block]:
        """Effects that learn, all or at some places, at their priors of now."""
        return [
            Block(self.designs[k], parts[k].prior(parts[k].learners), parts[k].form, parts[k].active)
            for k in (self.designs if places is None else places)
        ]

    def waiting(self, parts: Sequence[Part], margin: FloatArray) -> "list[Waiting]":
        """The entities that wait, given the margins ``(n,)`` of all rows at what was learned."""
        return [self._waiting(parts[one.part], one, margin) for one in self.outside if parts[one.part].waits.any()]

    def _waiting(self, part: Part, outside: Outside, margin: FloatArray) -> "Waiting":
        rows, seen, places = outside.rows, outside.seen, np.flatnonzero(part.waits)
        design = _design(part, seen.X, seen.codes, part.waits, self.weight[rows])
        active = None if part.active is None else part.active[rows]
        block = Block(design, part.prior(places), part.form, active)
        return Waiting(part, places, block, rows, margin[rows] - _margin(part, seen))


@dataclass(frozen=True)
class Waiting:
    """The entities of one effect that wait, and their rows: nobody else learns from what they learn.

    ``places``: theirs among the batch's; ``block``: over their ``rows``, whose other margin is ``offset``.
    """

    part: Part
    places: IntArray
    block: Block
    rows: IntArray
    offset: FloatArray


def prepared(
    batch: Batch,
    taken: Mapping[str, EntityStates | SparseStates],
    shared: Shared,
    *,
    locked: Collection[str] = (),
) -> Task:
    """A batch made ready; it is used up, lest a large one stands in memory twice.

    Args:
        batch: from :func:`acclimate.learners.shared.begun` or :func:`acclimate.learners.shared.grown`.
        taken: of each random effect the states of the batch's entities, in the order in which it has them.
        shared: from there too.
        locked: effects that stay as they are and count as offsets.
    """
    known = {FIXED: shared.fixed_states, **taken}
    parts = [_part(seen, known[seen.effect.name], batch, locked=seen.effect.name in locked) for seen in batch.seen]
    largest = max(parts, key=lambda part: len(part.states) * len(part.effect.index))
    # In the order of the entities of the largest effect: what is worked on together lies together.
    batch, parts = _at(batch, parts, np.argsort(largest.codes, kind="stable"))
    parts = [replace(part, active=_active(part, batch), sample=_sample(part, batch)) for part in parts]
    batch, parts = _without_idle(batch, parts)
    batch, parts = _cut(batch, parts, known)
    designs, outside = dict[int, Design](), list[Outside]()
    for k, part in enumerate(parts):
        seen = batch.seen.pop(0)
        rows = np.flatnonzero((part.codes >= 0) & ~_of_rows(part.learns, part.codes))
        if len(rows):
            outside.append(Outside(k, rows, seen.at(rows)))
        if part.learns.any():
            designs[k] = part.design(seen.X, batch.weight)
    return Task(parts, designs, outside, batch.label, batch.offset, batch.weight)


def _part(seen: Seen, known: EntityStates | SparseStates, batch: Batch, *, locked: bool) -> Part:
    states = _head(known) if isinstance(known, SparseStates) else known
    count = len(seen.ids)
    latest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(latest, seen.codes, batch.time)
    rows = np.bincount(seen.codes, minlength=count)
    enough = states.rows + rows >= seen.effect.least_rows
    free = has_id(seen.ids) & (not locked)
    learns, waits = enough & free, ~enough & free
    return Part(seen.effect, states, seen.codes, latest, rows, learns, waits, groups=seen.groups)


def _head(known: SparseStates) -> EntityStates:
    """States without coefficients, until it is known which these are."""
    nothing = np.zeros((len(known), 0))
    return EntityStates(known.ids, Posterior(nothing, nothing), known.touched, known.rows)


def _cut(
    batch: Batch, parts: list[Part], known: Mapping[str, EntityStates | SparseStates]
) -> tuple[Batch, list[Part]]:
    """Entities that hold some coefficients only by how many these are."""
    seens, cut = list[Seen](), list[Part]()
    for part, seen in zip(parts, batch.seen, strict=True):
        states = known[part.effect.name]
        if not isinstance(states, SparseStates):
            seens.append(seen)
            cut.append(part)
            continue
        for piece in pieces(seen, part.effect, states):
            some = piece.members
            flags = {name: getattr(part, name)[some] for name in ("latest", "rows", "learns", "waits")}
            seens.append(piece.seen)
            cut.append(replace(part, states=piece.states, codes=piece.seen.codes, **flags))
    return replace(batch, seen=seens), cut


def _of_rows(flags: BoolArray, codes: IntArray) -> BoolArray:
    """Flags of entities ``(t,)`` as those of rows ``(n,)``; false where a row is of none."""
    return np.append(flags, False)[codes]


def _sample(part: Part, batch: Batch) -> FloatArray | None:
    """How much each row counts for an effect where a sample stands for very many."""
    declared = part.effect.declared
    most = declared.max_rows if isinstance(declared, RandomEffect) else None
    if most is None or not part.learns.any() or part.rows.max() <= most:
        return None
    return sampled(batch, part.codes, most)


def _active(part: Part, batch: Batch) -> FloatArray | None:
    """How much each row counts for an effect: old rows fade."""
    if part.effect.declared.half_life is None or not (part.learns | part.waits).any():
        return None
    return part.effect.kept(part.effect.last(part.states, part.latest)[part.codes] - batch.time)


def _without_idle(batch: Batch, parts: list[Part]) -> tuple[Batch, list[Part]]:
    """Without the rows that count for no effect that learns."""
    free = [part for part in parts if (part.learns | part.waits).any()]
    counts = np.zeros(len(batch), np.bool_)
    for part in free:
        if part.sample is None:
            return batch, parts
        counts |= part.sample > 0.0
    return (batch, parts) if not free or counts.all() else _at(batch, parts, np.flatnonzero(counts))


def _at(batch: Batch, parts: list[Part], rows: IntArray) -> tuple[Batch, list[Part]]:
    """Only these rows, in this order; the batch as it was is used up."""
    batch = batch.at(rows)
    taken = [
        replace(
            part,
            codes=seen.codes,
            active=None if part.active is None else part.active[rows],
            sample=None if part.sample is None else part.sample[rows],
        )
        for part, seen in zip(parts, batch.seen, strict=True)
    ]
    return batch, taken


def _design(part: Part, X: Any, codes: IntArray, chosen: BoolArray, weight: FloatArray) -> Design:
    """The rows of some entities: of each row which of these it is of, -1 for none."""
    entity = np.append(np.where(chosen, np.cumsum(chosen) - 1, -1), -1)[codes]
    if part.states.support is not None:  # each entity has columns of its own, which have no common scale
        width = X.shape[1]
        return Design(X, entity, int(chosen.sum()), Scaling(np.zeros(width), np.ones(width)))
    return Design.of(X, entity, int(chosen.sum()), weight=weight, centre=part.form == "full")


def _margin(part: Part, seen: Seen) -> FloatArray:
    """What an effect adds to the margins of some rows, as far as it is known."""
    return margins([Term(seen.X, seen.codes, seen.ids, part.known())], np.zeros(len(seen.codes)))
