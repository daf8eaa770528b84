"""Mixed-effect logistic regression as pure functions: fit, update and predict over an immutable state.

Zhang et al., GLMix (KDD 2016) for the model; Ouyang et al., arXiv 2108.13299 for the sequential Bayesian update.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from scipy.special import expit

from acclimate.artifacts import ArrowArray, Events, FloatArray, IntArray, Posterior
from acclimate.config import FixedEffect, RandomEffect, Schema
from acclimate.errors import ConfigError, DataError, nearest
from acclimate.features import FeatureIndex, positions
from acclimate.learners.batch import FIXED, Batch, Layout, read_batch, sample_rows
from acclimate.learners.draws import draws
from acclimate.learners.effects import Effect, EffectState, new_effect
from acclimate.models.gaussian import in_form
from acclimate.models.joint import Block, Solution, solve_joint
from acclimate.models.population import learn_population
from acclimate.models.scoring import Term, expected_probability, margins, variances

Mode: TypeAlias = Literal["point", "integrated", "thompson"]

_ROUNDS = 5
"""Rounds of fit and population at most; one variance settles in three, a large covariance comes close."""

_LOOSE = 0.03
"""Decrement per square root of an entity at which a round of learning the population is close enough."""

_SETTLED = 1.0
"""Log-likelihood, in nats, that a round of learning the population has to gain for another one to follow."""


@dataclass(frozen=True)
class Parameters:
    """What a GLMix is; see :class:`GLMix`."""

    fixed: FixedEffect = field(default_factory=FixedEffect)
    random: tuple[RandomEffect, ...] = ()
    label: str | None = None
    learn_population: bool = True
    tolerance: float = 1e-2
    max_steps: int = 50

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects, the fixed one first."""
        return (self.fixed, *self.random)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the effects: ``fixed``, and the entities as they were given."""
        return (FIXED, *(effect.entity for effect in self.random))


@dataclass(frozen=True)
class State:
    """What a GLMix carries: its effects, the fixed one first, and what they were learned from.

    ``contract`` is the content of the schema; ``cut`` the time of the last event learned, microseconds UTC.
    """

    effects: tuple[EffectState, ...]
    label: str
    contract: dict[str, Any]
    cut: int


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
    unsettled: dict[str, ArrowArray]


@dataclass(frozen=True)
class _Share:
    """The part of a batch that an effect learns from.

    ``entity`` (n,): which of the touched entities a row belongs to, -1 for none. ``touched`` (t,): their positions
    in the state; ``times`` and ``rows`` (t,): the time of their last event here, and how many they have.
    """

    entity: IntArray
    touched: IntArray
    times: IntArray
    rows: IntArray


def fit(
    parameters: Parameters,
    events: Events,
    before: State | None = None,
    *,
    warm_start: bool = False,
    locked: Collection[str] = (),
) -> tuple[State, Info]:
    """The state that these events alone lead to; ``before`` serves warm starts and locked effects.

    Raises:
        DataError: no row has a label, or rows are not allowed.
        MismatchError: ids cannot be of the type of those in ``before``.
    """
    locks = _locks(parameters, events.schema, locked)
    indexes = [FeatureIndex() for _ in locks] if before is None else [e.index for e in before.effects]
    batch, indexes, label = _read(parameters, events, indexes, locks)
    if len(batch) == 0:
        raise DataError(f"no event has a known label '{label}'", hint="look at events.describe()")
    if before is not None:
        batch = _recognised(parameters, before.effects, batch)
    parts = zip(parameters.effects, indexes, batch.designs, batch.ids, strict=True)
    effects = [new_effect(*of, batch.weight) for of in parts]
    effects[0] = _centred(effects[0], batch)
    start = None
    if before is not None:
        effects = [old if lock else new for old, new, lock in zip(before.effects, effects, locks, strict=True)]
    effects, shares = _admit(parameters, effects, batch, locks)
    if before is not None and warm_start:
        start = [_means_before(*of) for of in zip(before.effects, effects, shares, strict=True)]
    effects, info = _learn(parameters, effects, batch, shares, start, population=parameters.learn_population)
    return State(tuple(effects), label, events.schema.content(), int(batch.time.max())), info


def update(
    parameters: Parameters, state: State, events: Events, *, locked: Collection[str] = ()
) -> tuple[State, Info]:
    """The state after new events; what came before enters through the posteriors alone."""
    locks = _locks(parameters, events.schema, locked)
    batch, indexes, _ = _read(parameters, events, [e.index for e in state.effects], locks)
    if len(batch) == 0:
        return state, Info(0, 0, 0, 0, 0.0, True, {})
    batch = _recognised(parameters, state.effects, batch)
    parts = zip(parameters.effects, state.effects, indexes, batch.designs, strict=True)
    effects = [effect.grown(of, index, X, batch.weight) for of, effect, index, X in parts]
    effects, shares = _admit(parameters, effects, batch, locks)
    effects, info = _learn(parameters, effects, batch, shares, None, population=False)
    return replace(state, effects=tuple(effects), cut=max(state.cut, int(batch.time.max()))), info


def predict(
    parameters: Parameters, state: State, events: Events, *, mode: Mode = "point", seed: int = 0
) -> FloatArray:
    """Probabilities of the label, ``(n,)``; see :meth:`acclimate.GLMix.predict`."""
    modes = {"point": _at_means, "thompson": _at_draws, "integrated": _with_covariances}
    if mode not in modes:
        raise ConfigError(f"no mode '{mode}' of prediction", hint=nearest(mode, modes))
    layouts = _layouts(parameters, events.schema)
    batch, _ = read_batch(
        events, layouts, [e.index for e in state.effects], label=None, grow=[False] * len(layouts)
    )
    batch = _recognised(parameters, state.effects, batch)
    parts = zip(state.effects, batch.designs, batch.ids, strict=True)
    terms = [modes[mode](effect, X, ids, [seed, i]) for i, (effect, X, ids) in enumerate(parts)]
    z = margins(terms, batch.offset)
    return expected_probability(z, variances(terms)) if mode == "integrated" else expit(z)


def columns(parameters: Parameters, events: Events) -> dict[str, int]:
    """How many coefficients each effect would have on these events; all of them are read and checked."""
    unlocked = [False] * len(parameters.effects)
    _, indexes, _ = _read(parameters, events, [FeatureIndex() for _ in unlocked], unlocked)
    return {name: len(index) for name, index in zip(parameters.names, indexes, strict=True)}


def _learn(
    parameters: Parameters,
    effects: list[EffectState],
    batch: Batch,
    shares: list[_Share],
    start: list[FloatArray] | None,
    *,
    population: bool,
) -> tuple[list[EffectState], Info]:
    """The joint posterior of all effects with a share; with ``population``, that of the population first."""
    free = [i for i, share in enumerate(shares) if len(share.touched)]
    if not free:
        return effects, Info(0, 0, 0, 0, 0.0, True, {})
    entities = sum(len(shares[i].touched) for i in free)
    counts = {name: share.rows for name, share in zip(parameters.names, shares, strict=True)}
    batch, shares = _capped(parameters, effects, batch, shares)
    learning = population and any(i > 0 for i in free)
    means, information = None if start is None else [start[i] for i in free], None
    rounds = steps = products = 0
    while True:
        solution = solve_joint(
            [_block(parameters.effects[i], effects[i], batch.designs[i], shares[i]) for i in free],
            batch.label,
            batch.offset + _outside(effects, batch, shares),
            batch.weight,
            start=means,
            information=information,
            tolerance=_LOOSE * np.sqrt(entities) if learning else parameters.tolerance,
            max_steps=parameters.max_steps,
        )
        steps, products = steps + solution.steps, products + solution.products
        if not learning:
            break
        effects, gain = _repopulated(effects, free, solution)
        means, information = [posterior.mean for posterior in solution.posteriors], solution.information
        rounds += 1
        learning = gain > _SETTLED and rounds < _ROUNDS
    unsettled: dict[str, ArrowArray] = {}
    for i, posterior, settled in zip(free, solution.posteriors, solution.settled, strict=True):
        share, name = shares[i], parameters.names[i]
        effects[i] = effects[i].learned(share.touched, posterior, share.times, counts[name])
        unsettled[name] = effects[i].states.ids.take(pa.array(share.touched[~settled]))
    info = Info(len(batch), steps, products, rounds, solution.decrement, solution.converged, unsettled)
    return effects, info


def _read(
    parameters: Parameters, events: Events, indexes: Sequence[FeatureIndex], locks: list[bool]
) -> tuple[Batch, list[FeatureIndex], str]:
    schema = events.schema
    label = parameters.label or schema.labels[0]
    if label not in schema.labels:
        raise ConfigError(f"no label '{label}' in the schema", hint=nearest(label, schema.labels))
    layouts = _layouts(parameters, schema)
    batch, indexes = read_batch(events, layouts, indexes, label=label, grow=[not lock for lock in locks])
    return batch, indexes, label


def _layouts(parameters: Parameters, schema: Schema) -> list[Layout]:
    columns = [schema.entity_column(effect.entity) for effect in parameters.random]
    if len(set(columns)) < len(columns):
        raise ConfigError(f"two random effects of one entity in {columns}", hint="put their features together")
    random = [Layout(column, of.features) for column, of in zip(columns, parameters.random, strict=True)]
    return [Layout(None, parameters.fixed.features), *random]


def _locks(parameters: Parameters, schema: Schema, locked: Collection[str]) -> list[bool]:
    """Which effects are locked; an entity goes by its role or its column."""
    columns = [FIXED, *(schema.entity_column(effect.entity) for effect in parameters.random)]
    asked = {schema.entities.get(name, name): name for name in locked}
    for column, name in asked.items():
        if column not in columns:
            raise ConfigError(f"no effect '{name}' to lock", hint=nearest(name, parameters.names))
    if set(columns) <= asked.keys():
        raise ConfigError("every effect is locked", hint="leave one to be learned")
    return [column in asked for column in columns]


def _recognised(parameters: Parameters, effects: Sequence[EffectState], batch: Batch) -> Batch:
    """The batch with its ids in the types of the known ones."""
    parts = zip(effects, batch.ids, parameters.names, strict=True)
    return replace(batch, ids=[effect.cast_ids(ids, name) for effect, ids, name in parts])


def _centred(effect: EffectState, batch: Batch) -> EffectState:
    """A fixed effect with the label's log-odds as prior intercept, lest the ridge pull to one half."""
    positive, total = batch.weight @ batch.label + 0.5, batch.weight.sum() + 1.0
    mean = effect.ridge.mean.copy()
    mean[0] = np.log(positive / (total - positive))
    ridge = Posterior(mean, effect.ridge.precision)
    return replace(effect, ridge=ridge, base=ridge)


def _admit(
    parameters: Parameters, effects: list[EffectState], batch: Batch, locks: list[bool]
) -> tuple[list[EffectState], list[_Share]]:
    """Give every entity with rows enough a state, and say which rows each effect learns from."""
    admitted = list(effects)
    shares: list[_Share] = []
    for i, (effect, ids) in enumerate(zip(effects, batch.ids, strict=True)):
        codes, distinct = _distinct(ids)
        rows = np.bincount(codes, minlength=len(distinct))
        of = parameters.effects[i]
        least = of.min_rows if isinstance(of, RandomEffect) else 1
        enough = (rows >= least) & (not locks[i])
        new = enough & (positions(distinct, effect.states.ids) < 0)
        admitted[i] = effect.with_entities(distinct.filter(pa.array(new)))
        times = np.full(len(distinct), np.iinfo(np.int64).min)
        np.maximum.at(times, codes, batch.time)
        local = np.where(enough, np.cumsum(enough) - 1, -1)
        touched = positions(distinct, admitted[i].states.ids)[enough]
        shares.append(_Share(local[codes], touched, times[enough], rows[enough]))
    return admitted, shares


def _capped(
    parameters: Parameters, effects: list[EffectState], batch: Batch, shares: list[_Share]
) -> tuple[Batch, list[_Share]]:
    """The rows left by each random effect's ``max_rows``."""
    names = [effect.index.names for effect in effects]
    for i, effect in enumerate(parameters.random, start=1):
        if effect.max_rows is not None:
            rows, weight = sample_rows(batch, names, shares[i].entity, effect.max_rows)
            batch = batch.taken(rows, weight)
            shares = [replace(share, entity=share.entity[rows]) for share in shares]
    return batch, shares


def _block(parameter: Effect, effect: EffectState, X: Any, share: _Share) -> Block:
    prior = effect.prior(share.touched, share.times, parameter)
    return Block(X, share.entity, prior, "marginal" if effect.form == "marginal" else "diagonal")


def _outside(effects: list[EffectState], batch: Batch, shares: list[_Share]) -> FloatArray:
    """The margin ``(n,)`` of what is known but not learned here: locked effects, entities with too few rows."""
    z = np.zeros(len(batch))
    for effect, X, ids, share in zip(effects, batch.designs, batch.ids, shares, strict=True):
        rows = np.flatnonzero(share.entity < 0)
        if len(rows):
            z[rows] += margins([_at_means(effect, X[rows], ids.take(pa.array(rows)))], np.zeros(len(rows)))
    return z


def _repopulated(
    effects: list[EffectState], free: list[int], solution: Solution
) -> tuple[list[EffectState], float]:
    """The random effects at populations learned from the solution, and the log-likelihood that it gains."""
    changed, gained = list(effects), 0.0
    fixed_names = set(effects[0].index.names)
    for i, linear, information in zip(free, solution.evidence, solution.information, strict=True):
        if i == 0:
            continue
        effect = effects[i]
        # A coefficient that the fixed effect has too would share its mean with it: only their sum is known.
        own = np.array([name not in fixed_names for name in effect.index.names])
        seen = in_form(information, full=effect.base.is_full)
        base, gain = learn_population(linear, seen, effect.base, effect.ridge, free_mean=own)
        changed[i], gained = effect.at_population(base), gained + gain
    return changed, gained


def _means_before(before: EffectState, effect: EffectState, share: _Share) -> FloatArray:
    """Means ``(t, d)`` of the touched entities as they were, zero where there were none."""
    means = np.zeros((len(share.touched), len(effect.index)))
    old = before.means_of(effect.states.ids.take(pa.array(share.touched)))
    means[:, : old.shape[1]] = old
    return means


def _distinct(ids: ArrowArray) -> tuple[IntArray, Any]:
    """Codes ``(n,)`` into the distinct ids, and those."""
    encoded: Any = ids.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def _at_means(effect: EffectState, X: Any, ids: ArrowArray, seed: Sequence[int] = ()) -> Term:  # noqa: ARG001
    codes, distinct = _distinct(ids)
    return Term(X, codes, effect.means_of(distinct))


def _with_covariances(effect: EffectState, X: Any, ids: ArrowArray, seed: Sequence[int]) -> Term:  # noqa: ARG001
    codes, distinct = _distinct(ids)
    posterior = effect.posteriors_of(distinct)
    return Term(X, codes, posterior.mean, posterior.covariance())


def _at_draws(effect: EffectState, X: Any, ids: ArrowArray, seed: Sequence[int]) -> Term:
    codes, distinct = _distinct(ids)
    return Term(X, codes, draws(effect.posteriors_of(distinct), distinct, seed))
