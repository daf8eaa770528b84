"""One effect of a GLMix: what was declared of it, and what all of its entities share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from acclimate.arrays import BoolArray, EntityStates, FloatArray, Form, Full, IntArray, Posterior, SparseStates
from acclimate.config import FixedEffect, GLMixParameters, RandomEffect, Schema
from acclimate.errors import ConfigError
from acclimate.features import FeatureIndex, columns_of_vector
from acclimate.learners.gate import check_new_columns
from acclimate.models.gaussian import MATRIX_AT_MOST, decay, forget, rebased, widened
from acclimate.models.population import Past
from acclimate.models.scaling import Scaling
from acclimate.models.support import gathered, matrices_of
from acclimate.times import duration_us

FIXED = "fixed"
"""Name of the fixed effect, and id of its one entity."""

_FULL_AT_MOST = {True: 512, False: 32}
"""Up to how many coefficients ``auto`` keeps a full precision: of the fixed effect, of each entity."""

_OBSERVED_AT_MOST = {"auto": 64, "full": 512, "marginal": 512, "diagonal": 0}
"""Up to how many coefficients an entity that holds some only has more than the diagonal, by what is asked."""

Declared: TypeAlias = FixedEffect | RandomEffect


@dataclass(frozen=True)
class Effect:
    """What all entities of one effect share.

    ``name``: ``fixed``, or what it is called; ``columns``: those of its ids, none of the fixed effect, whose one
    entity has the id ``fixed``; ``ids``: the type in which ids are kept, once one was seen. ``ridge``:
    the population before any data; ``population``: as learned; both of mean ``(d,)``, for the ``d`` columns of
    ``index``. ``base``: the population that stored states rest on, that of the last fit; ``past``: what the
    population was learned from, as of ``learned``, in microseconds UTC.
    """

    name: str
    declared: Declared
    columns: tuple[str, ...]
    ids: str | None
    index: FeatureIndex
    ridge: Posterior
    population: Posterior
    base: Posterior
    past: Past
    learned: int = 0

    @property
    def form(self) -> Form:
        """What is kept of precisions of so many coefficients; of populations where entities hold some only.

        Raises:
            ConfigError: it would take a matrix too large.
        """
        if self.is_sparse:
            return "diagonal"
        width, asked = len(self.index), self.declared.precision
        most = _FULL_AT_MOST[isinstance(self.declared, FixedEffect)]
        form = asked if asked != "auto" else "full" if width <= most else "diagonal"
        if form != "diagonal" and width > MATRIX_AT_MOST:
            raise ConfigError(
                f"effect '{self.name}' has {width:,} coefficients: a matrix of them, which precision '{form}' "
                f"needs, takes {8e-9 * width**2:,.0f} GB",
                hint="declare precision: diagonal, or auto",
            )
        return form

    @property
    def is_sparse(self) -> bool:
        """Whether entities hold only the coefficients of what they have met."""
        return isinstance(self.declared, RandomEffect) and self.declared.support == "observed"

    def form_at(self, width: int) -> Form:
        """What is kept of an entity that holds so many coefficients."""
        if not self.is_sparse:
            return self.form
        asked = self.declared.precision
        if width > _OBSERVED_AT_MOST[asked]:
            return "diagonal"
        return "full" if asked == "auto" else asked

    @property
    def unit(self) -> Posterior:
        """Around 0 in the units of the ridge, whatever its strength: a standardised coefficient of variance 1.

        Of a feature with a ridge of its own, of variance ``ridge / ridges[feature]``.
        """
        return Posterior(self.ridge.mean, self.ridge.precision / start_ridge(self.declared))

    def grown(
        self,
        index: FeatureIndex,
        X: "sparse.csr_array[Any]",
        weight: FloatArray,
        sizes: Mapping[str, int],
        *,
        strength: FloatArray,
    ) -> "Effect":
        """The same knowledge over the columns of ``X`` (n, d), with weights ``(n,)``; ``sizes`` are of embeddings.

        New coefficients are at the ridge, of ``strength`` (d,), independent of the old ones.
        """
        if index is self.index:
            return self
        grown = replace(self, index=index)
        ridge = ridge_prior(grown, X, weight, sizes, strength=strength)
        population = widened(self.population, self._like_siblings(ridge, index))
        nothing = Posterior(ridge.mean, np.zeros_like(ridge.precision))
        information = widened(Posterior(self.past.population.mean, self.past.information), nothing).precision
        return replace(
            grown,
            ridge=widened(self.ridge, ridge),
            population=population,
            base=widened(self.base, population),
            past=Past(self.past.count, information, widened(self.past.population, population)),
        )

    def _like_siblings(self, ridge: Posterior, index: FeatureIndex) -> Posterior:
        """The ridge, but for new levels of a feature whose others were learned: with their mean and variance."""
        if not self.past.count and self.declared.ridge != "learned":
            return ridge
        old = len(self.index)
        features = np.array([name.split("=")[0] for name in index.names])
        variance, mean, precision = (
            self.population.P.inverse().diagonal(),
            ridge.mean.copy(),
            ridge.precision.copy(),
        )
        for feature in np.unique(features[old:]):
            siblings = np.flatnonzero(features[:old] == feature)
            if not len(siblings):
                continue
            centre, usual = self.population.mean[siblings].mean(), 1.0 / variance[siblings].mean()
            for j in (old + np.flatnonzero(features[old:] == feature)).tolist():
                if "=" not in index.names[j]:
                    continue
                mean[j] = centre
                if ridge.is_full:
                    precision[j], precision[:, j] = 0.0, 0.0
                precision[(j, j) if ridge.is_full else j] = usual
        return Posterior(mean, precision)

    def at_population(self, population: Posterior) -> "Effect":
        """The same at another population, on which states rest from now on."""
        return replace(self, population=population, base=population, past=Past.nothing(population))

    @property
    def moved(self) -> bool:
        """Whether the population is no longer the one that stored states rest on."""
        same = np.array_equal(self.base.precision, self.population.precision)
        return not (same and np.array_equal(self.base.mean, self.population.mean))

    def now(self, states: EntityStates) -> EntityStates:
        """Stored states at the population of now."""
        return _rebased(states, self.base, self.population) if self.moved else states

    def moved_from(self, population: Posterior, states: EntityStates) -> EntityStates:
        """States at another population at that of now."""
        return _rebased(states, population, self.population)

    def now_sparse(self, states: SparseStates) -> SparseStates:
        """The same of states of some coefficients."""
        return replace(states, pieces=[(places, self.now(piece)) for places, piece in states.pieces])

    def stored(self, states: EntityStates) -> EntityStates:
        """The reverse: states of now as they are stored."""
        return _rebased(states, self.population, self.base) if self.moved else states

    def prior(self, states: EntityStates, times: IntArray, keep: FloatArray | None = None) -> Posterior:
        """The prior of entities for a batch whose last events of theirs are at ``times`` (n,).

        ``keep`` (n,): by how much less of their past counts than was declared.
        """
        more = 1.0 if keep is None else keep
        if self.declared.half_life is None:
            base = at_support(self.population, states)
            return forget(states.posterior, base, self.declared.forgetting * more)
        elapsed = np.where(states.rows > 0, times - states.touched, 0)
        return forget(states.posterior, at_support(self.population, states), self.kept(elapsed) * more)

    def kept(self, elapsed: IntArray) -> FloatArray:
        """The weight of what lies so far back (microseconds)."""
        if self.declared.half_life is None:
            return np.ones(len(elapsed))
        return decay(elapsed.astype(np.float64), duration_us(self.declared.half_life))

    def last(self, states: EntityStates, times: IntArray) -> IntArray:
        """The last event of entities after a batch whose last events of theirs are at ``times`` (n,)."""
        return np.where(states.rows > 0, np.maximum(states.touched, times), times)

    @property
    def least_rows(self) -> int:
        """Rows that an entity has to have had until what it has learned counts."""
        return self.declared.min_rows if isinstance(self.declared, RandomEffect) else 1

    def shown(self, states: EntityStates) -> EntityStates:
        """The states as others see them: of entities that wait the population, and no rows."""
        waiting = (states.rows > 0) & (states.rows < self.least_rows)
        if not waiting.any():
            return states
        posterior = Posterior(states.posterior.mean.copy(), states.posterior.precision.copy())
        _put_at(posterior, self.population, states, waiting)
        touched, rows = (np.where(waiting, 0, column) for column in (states.touched, states.rows))
        return replace(states, posterior=posterior, touched=touched, rows=rows)


def at_support(population: Posterior, states: EntityStates) -> Posterior:
    """A population as states have it: that of the coefficients that entities hold, where these are not all."""
    return population if states.support is None else gathered(population, states.support)


def _put_at(posterior: Posterior, population: Posterior, states: EntityStates, entities: BoolArray) -> None:
    """Some entities of states, of which it is the posterior, at the population."""
    at = at_support(population, states.at(np.flatnonzero(entities)))
    at = matrices_of(at) if posterior.is_full else at
    posterior.mean[entities], posterior.precision[entities] = at.mean, at.precision


def _rebased(states: EntityStates, old: Posterior, new: Posterior) -> EntityStates:
    posterior = rebased(states.posterior, at_support(old, states), at_support(new, states))
    unknown = states.rows == 0
    if unknown.any():  # exactly at the population
        _put_at(posterior, new, states, unknown)
    return replace(states, posterior=posterior)


def new_effects(parameters: GLMixParameters, schema: Schema) -> list[Effect]:
    """The effects as declared, the fixed one first: an intercept each, at a ridge of its own unit.

    Raises:
        ConfigError: an entity is not in the schema, two effects without names are of one, or the offset is of
            another learner.
    """
    if parameters.offset is not None:
        raise ConfigError(
            f"the offset '{parameters.offset}' is to come from another learner, and a GLMix alone has none",
            hint="put it on top of that one with a Stack; a column that is an offset is named in the schema",
        )
    effects = [_new_effect(FIXED, parameters.fixed, ())]
    nameless = set[tuple[str, ...]]()
    for declared in parameters.random:
        columns = tuple(schema.entity_column(name) for name in declared.entity)
        if declared.name is None and columns in nameless:
            raise ConfigError(
                f"two random effects of entity '{' x '.join(columns)}'",
                hint="put their features together, or give one of them a name",
            )
        nameless |= {columns} if declared.name is None else set()
        effects.append(_new_effect(declared.called, declared, columns))
    return effects


def named(effects: Sequence[Effect], asked: str | Sequence[str], roles: Mapping[str, str]) -> list[Effect]:
    """The effect that is called so, or else all of the entity whose ``roles`` or columns these are."""
    parts = (asked,) if isinstance(asked, str) else asked
    columns = tuple(roles.get(part, part) for part in parts)
    called = [effect for effect in effects if effect.name == " x ".join(parts)]
    return called or [effect for effect in effects if effect.columns == columns]


def start_ridge(declared: Declared) -> float:
    """The ridge as declared, or before it is learned."""
    return 1.0 if declared.ridge == "learned" else declared.ridge


def _new_effect(name: str, declared: Declared, columns: tuple[str, ...]) -> Effect:
    strength = start_ridge(declared)
    ridge = Posterior(np.zeros(1), np.full((1, 1), strength))
    effect = Effect(name, declared, columns, None, FeatureIndex(), ridge, ridge, ridge, Past.nothing(ridge))
    if effect.form == "full":
        return effect
    ridge = Posterior(np.zeros(1), np.full(1, strength))
    return replace(effect, ridge=ridge).at_population(ridge)


def ridge_prior(
    effect: Effect,
    X: "sparse.csr_array[Any]",
    weight: FloatArray,
    sizes: Mapping[str, int],
    *,
    strength: FloatArray,
) -> Posterior:
    """Precisions ``strength`` (d,) around 0 in the standardised space of ``X`` (n, d), in raw units.

    Rows have the weights ``(n,)``.

    The numbers of an embedding, whose lengths are ``sizes``, have one unit: which way the axes of a vector lie
    says nothing, and what hardly varies, such as a hidden unit that few rows wake, would have a scale so small
    that nothing holds its coefficient once more rows do.

    Raises:
        RowError: a column's numbers are too small to have a prior.
    """
    check_new_columns(effect.name, effect.index.names, X)
    d = X.shape[1]
    vectors = [effect.index.numbers(columns_of_vector(name, size)) for name, size in sizes.items()]
    scaling = Scaling.of(X, centre=True, weight=weight).with_one_unit(
        [numbers[numbers >= 0] for numbers in vectors]
    )
    if effect.form == "full":
        return Posterior(np.zeros(d), scaling.precision_out(Full(np.diag(strength))).array)
    # The raw intercept varies with every centred coefficient; a diagonal keeps the marginal precisions.
    precision = strength * scaling.scale**2
    precision[0] = 1.0 / (1.0 / strength[0] + np.sum((scaling.centre / scaling.scale) ** 2 / strength))
    return Posterior(np.zeros(d), precision)
