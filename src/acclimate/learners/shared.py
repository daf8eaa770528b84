"""What all entities of a GLMix share, and how it meets a batch before anything is learned from it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from acclimate.arrays import EntityStates, FloatArray, IdArray, Posterior, SparseStates
from acclimate.artifacts import Events
from acclimate.config import GLMixParameters, Schema
from acclimate.errors import ConfigError, DataError, nearest
from acclimate.features import Settled
from acclimate.learners.batch import Batch, Seen, read_batches
from acclimate.learners.effects import FIXED, Effect, named, new_effects, ridge_prior
from acclimate.models.gaussian import widened
from acclimate.models.likelihood import Loss
from acclimate.models.noise import Noise


@dataclass(frozen=True)
class Shared:
    """What all entities of a GLMix share, carried from batch to batch.

    ``fixed`` and ``random``: the effects; ``fixed_states``: the
    posterior of the fixed one given the others, as the state of its only entity, which holds it in an update;
    ``marginal``: its precision with theirs integrated out, ``(1, d, d)`` or ``(1, d)``: how sure it is;
    ``noise``: that of numbers or counts; ``unit``: the variance of numbers at the fit, in which ridges are, 1 of
    other losses; ``ridges``: those of the fixed effect that were learned, by feature; ``nested``: the places of
    effects that lie within one another, from the finest on, as rows of the fit have it, where populations were
    learned;
    ``settled``: what is settled about features; ``contract``: the content of the schema; ``cut``: the time of the
    last event learned, microseconds UTC.
    """

    fixed: Effect
    random: tuple[Effect, ...]
    fixed_states: EntityStates
    marginal: FloatArray
    settled: Settled
    label: str
    contract: dict[str, Any]
    cut: int
    noise: Noise = field(default_factory=Noise)
    unit: float = 1.0
    ridges: Mapping[str, float] = field(default_factory=dict[str, float])
    nested: tuple[tuple[int, ...], ...] | None = None

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects, the fixed one first."""
        return (self.fixed, *self.random)

    @property
    def fixed_posterior(self) -> Posterior:
        """Of the fixed effect, as the one block of many, with what random effects leave open."""
        return Posterior(self.fixed_states.posterior.mean, self.marginal)


def unknown(effect: Effect, ids: IdArray) -> EntityStates:
    """The states of entities of which nothing is known: at the population, in the memory of one."""
    nothing = np.zeros(len(ids), np.int64)
    return EntityStates(ids, effect.population.repeated(len(ids)), nothing, nothing)


def nobody(effect: Effect, ids: IdArray) -> EntityStates | SparseStates:
    """The same as entities of the effect are taken: of those that hold some coefficients only none is there."""
    if effect.is_sparse:
        nothing = np.zeros(len(ids), np.int64)
        return SparseStates(ids, nothing, nothing, [])
    return unknown(effect, ids)


def read(
    parameters: GLMixParameters, events: Events, before: Shared | None, *, locked: Collection[str] = ()
) -> Iterator[Batch]:
    """The rows of known label, with the columns that they bring to effects that are not locked.

    One batch, or several where they do not fit into the memory: :func:`acclimate.learners.batch.read_batches`.
    """
    effects = new_effects(parameters, events.schema) if before is None else before.effects
    settled = Settled() if before is None else before.settled
    label = events.schema.label(parameters.label, kinds=parameters.label_kinds)
    return read_batches(events, effects, settled, label=label, locked=locked)


def begun(
    parameters: GLMixParameters, schema: Schema, batch: Batch, before: Shared | None, *, locked: Collection[str]
) -> tuple[Shared, Batch]:
    """What is known before a fit, also to the batch: effects at the ridge of its rows, but for locked ones.

    Raises:
        DataError: no row has a label.
    """
    label = schema.label(parameters.label, kinds=parameters.label_kinds)
    if len(batch) == 0:
        raise DataError(f"no event has a known label '{label}'", hint="look at events.describe()")
    unit = before.unit if before is not None and locked else _label_variance(parameters.loss, batch)
    noise = Noise(parameters.noise or unit)
    fixed, *random = (seen if seen.effect.name in locked else _at_ridge(seen, batch, unit) for seen in batch.seen)
    if before is not None and FIXED in locked:
        fixed_states, marginal = before.fixed_states, before.marginal
    else:
        fixed = _centred(fixed, batch, parameters.loss)
        fixed_states = unknown(fixed.effect, fixed.ids)
        marginal = fixed_states.posterior.precision
    effects = (fixed.effect, tuple(seen.effect for seen in random))
    known = (batch.settled, label, schema.content(), int(batch.time.max()))
    ridges = before.ridges if before is not None and FIXED in locked else {}
    shared = Shared(*effects, fixed_states, marginal, *known, noise=noise, unit=unit, ridges=ridges)
    return shared, replace(batch, seen=[fixed, *random])


def grown(shared: Shared, batch: Batch) -> tuple[Shared, Batch]:
    """What is known before an update, also to the batch: each effect over the columns that its rows bring."""
    known = zip(batch.seen, shared.effects, strict=True)
    current = [replace(seen, effect=replace(effect, ids=seen.effect.ids)) for seen, effect in known]
    fixed, *random = (replace(seen, effect=_grown(seen, batch, shared.unit)) for seen in current)
    posterior, marginal = (
        widened(known, fixed.effect.population)
        for known in (shared.fixed_states.posterior, shared.fixed_posterior)
    )
    shared = replace(
        shared,
        fixed=fixed.effect,
        random=tuple(seen.effect for seen in random),
        fixed_states=replace(shared.fixed_states, posterior=posterior),
        marginal=marginal.precision,
        settled=batch.settled,
        cut=max(shared.cut, int(batch.time.max())),
    )
    return shared, replace(batch, seen=[fixed, *random])


def without_forgetting(shared: Shared) -> Shared:
    """The same, but that what was learned is not forgotten with a batch: that is an update's, not of its parts."""
    fixed, *random = (
        replace(effect, declared=replace(effect.declared, forgetting=1.0, adaptive=False))
        for effect in shared.effects
    )
    return replace(shared, fixed=fixed, random=tuple(random))


def as_declared(shared: Shared, before: Shared) -> Shared:
    """The same with effects declared as they were before."""
    pairs = zip(shared.effects, before.effects, strict=True)
    fixed, *random = (replace(effect, declared=was.declared) for effect, was in pairs)
    return replace(shared, fixed=fixed, random=tuple(random))


def locked_effects(parameters: GLMixParameters, schema: Schema, locked: Collection[str]) -> set[str]:
    """The names of the effects to lock; an entity, by its role or its column, is all of its effects.

    Raises:
        ConfigError: there is no such effect, or none is left.
    """
    effects = new_effects(parameters, schema)
    names = {effect.name for name in locked for effect in named(effects, name, schema.entities)}
    for name in locked:
        if not named(effects, name, schema.entities):
            hint = nearest(name, [effect.name for effect in effects])
            raise ConfigError(f"no effect '{name}' to lock", hint=hint)
    if len(names) == len(effects):
        raise ConfigError("every effect is locked", hint="leave one to be learned")
    return names


def _grown(seen: Seen, batch: Batch, unit: float) -> Effect:
    return seen.effect.grown(seen.index, seen.X, batch.weight, batch.settled.sizes, strength=seen.ridge / unit)


def _at_ridge(seen: Seen, batch: Batch, unit: float) -> Seen:
    effect = replace(seen.effect, index=seen.index)
    ridge = ridge_prior(effect, seen.X, batch.weight, batch.settled.sizes, strength=seen.ridge / unit)
    return replace(seen, effect=replace(effect, ridge=ridge).at_population(ridge))


def _label_variance(loss: Loss, batch: Batch) -> float:
    """That of numbers, less their offsets: the unit of ridges, so that a label in other units is learned alike."""
    if loss != "squared" or not batch.weight.any():
        return 1.0
    y = batch.label - batch.offset
    variance = float(np.average((y - np.average(y, weights=batch.weight)) ** 2, weights=batch.weight))
    return variance if 0.0 < variance < np.inf else 1.0


def _centred(seen: Seen, batch: Batch, loss: Loss) -> Seen:
    """A fixed effect with the label's level as prior intercept, lest the ridge pull to one half, or to nothing."""
    mean = seen.effect.ridge.mean.copy()
    mean[0] = _level(batch, loss)
    ridge = Posterior(mean, seen.effect.ridge.precision)
    return replace(seen, effect=replace(seen.effect, ridge=ridge).at_population(ridge))


def _level(batch: Batch, loss: Loss) -> float:
    """The margin of all rows together: log-odds of the labels, the mean of numbers, the logarithm of a count's."""
    y, weight = batch.label, batch.weight
    if loss == "logistic":
        positive, negative = (weight @ of_label + 0.5 for of_label in (y, 1.0 - y))
        return float(np.log(positive) - np.log(negative))
    if not weight.any():
        return 0.0
    if loss == "squared":
        return float(np.average(y - batch.offset, weights=weight))
    highest = batch.offset.max()  # sum s exp(o) = exp(highest) sum s exp(o - highest)
    exposure = float(weight @ np.exp(batch.offset - highest))
    return float(np.log(weight @ y + 0.5) - np.log(exposure) - highest)
