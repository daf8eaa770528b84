"""Personalised regression: a fixed effect and per-entity random effects, updated from new data alone.

Logistic for labels of 0 and 1, of numbers by squared loss, of counts by Poisson loss.

Zhang et al., GLMix (KDD 2016) for the model; Ouyang et al., arXiv 2108.13299 for the sequential Bayesian update.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import pyarrow as pa

from acclimate.arrays import BoolArray, EntityStates, FloatArray, IdArray, Posterior, SparseStates, unwarned
from acclimate.artifacts import Drift, Events, SharedPart
from acclimate.config import GLMixParameters
from acclimate.errors import ConfigError, MismatchError, nearest
from acclimate.features import combined, id_type, ids_as
from acclimate.learners import mixed
from acclimate.learners.adaptive import adapted
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.batch import Batch, Seen, ids_in
from acclimate.learners.coefficients import coefficients, held_states, shown_states
from acclimate.learners.drift import drift_of, is_surprise, told
from acclimate.learners.effects import FIXED, Effect, at_support, named
from acclimate.learners.gate import check_posterior
from acclimate.learners.layers import LayeredEntities
from acclimate.learners.mixed import Info
from acclimate.learners.pending import Pending
from acclimate.learners.shared import (
    Shared,
    as_declared,
    begun,
    grown,
    locked_effects,
    nobody,
    read,
    without_forgetting,
)
from acclimate.learners.storing import packed, unpacked
from acclimate.learners.task import prepared
from acclimate.models.gaussian import forget, widened
from acclimate.models.scoring import Mode
from acclimate.models.support import joined, resized
from acclimate.storage import Stored

Store: TypeAlias = LayeredEntities | Pending
"""Where entities are while they learn."""

_JOINED_AT_MOST = 1 << 28
"""Numbers of the precisions of entities that are put together at most: 2 GB."""


class GLMix(Fitted[Shared]):
    """A fixed effect and any number of random effects, one joint model.

    Its arguments are the fields of :class:`acclimate.config.GLMixParameters`. ``state`` is what all entities
    share, ``entities`` holds what is of each; ``info`` is that of the last fit or update.
    """

    kind: ClassVar[str] = "glmix"

    @declared_by(GLMixParameters)
    def __init__(self, parameters: GLMixParameters) -> None:
        self.parameters: GLMixParameters = parameters
        self.state: Shared | None = None
        self.info: Info | None = None
        self.entities = LayeredEntities(parameters.states)

    @unwarned
    def fit(self, events: Events, *, warm_start: bool = False, locked: Collection[str] = ()) -> Self:
        """Learn from these events alone.

        Args:
            events: the rows; those whose label is not known are left out.
            warm_start: begin the search at the coefficients and populations of now; the optimum is the same.
            locked: effects (``"fixed"`` or an entity, by role or column) that stay as they are and count as
                offsets.

        Raises:
            DataError: no row has a label, or rows are not allowed.
            NotFittedError: a warm start or a lock without a fit before.
            MismatchError: the events have another schema, or ids of another type, than that fit.
        """
        before = self._fitted(events.schema) if warm_start or locked else None
        locks = locked_effects(self.parameters, events.schema, locked)
        batches = read(self.parameters, events, before, locked=locks)
        shared, entities, info = self._begun(next(batches), events, before, locks, warm_start=warm_start)
        shared, info = self._rest(batches, (shared, entities, info), locks)
        info = replace(info, drift=())  # there was nothing before that rows could surprise
        self.state, self.entities, self.info = shared, entities, info
        return self

    def _begun(
        self, batch: Batch, events: Events, before: Shared | None, locks: Collection[str], *, warm_start: bool
    ) -> tuple[Shared, LayeredEntities, Info]:
        """What is learned of the first rows of a fit, and mostly of all of them."""
        shared, batch = begun(self.parameters, events.schema, batch, before, locked=locks)
        taken = {
            seen.effect.name: self._take(seen) if seen.effect.name in locks else nobody(seen.effect, seen.ids)
            for seen in batch.seen[1:]
        }
        start = self._means(before, batch) if before and warm_start else None
        begin = _populations(before, shared) if before and warm_start else None
        task = prepared(batch, taken, shared, locked=locks)
        del batch  # large, and not needed any more
        learns = self.parameters.learn_population
        shared, changed, info = mixed.learn(
            self.parameters, shared, task, start=start, population="learn" if learns else "keep", begin=begin
        )
        entities = self.entities.only(locks)
        for effect, pieces in self._checked(shared, changed).items():
            entities.fill(effect, pieces, room=len(taken[effect]))
        return shared, entities, info

    @unwarned
    def update(self, events: Events, *, locked: Collection[str] = (), shared: SharedPart = "learn") -> Self:
        """Learn from new events; the past enters through the posteriors alone.

        Args:
            events: the new rows; without any whose label is known nothing changes.
            locked: effects that stay as they are and count as offsets.
            shared: ``keep`` leaves all that entities share as it is (the fixed effect, populations, ridges and
                noise), so that random effects alone learn: an update of a few microseconds an event, for
                micro-batches. How rows surprise the model is then measured on a sample of large batches.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
            ConfigError: there is no such effect, or none is left to learn.
        """
        before = self._fitted(events.schema)
        keep = shared == "keep"
        locks = locked_effects(self.parameters, events.schema, [*locked, FIXED] if keep else locked)
        batches = read(self.parameters, events, before, locked=locks)
        learned = self._more(batches, before, None, locks, keep=keep)
        if learned is None:
            self.info = mixed.NOTHING_LEARNED
            return self
        state, entities, info = learned
        state, info = self._rest(batches, (state, entities, info), locks, keep=keep)
        if isinstance(entities, Pending):
            entities.settle()
        self.state, self.info = state, info
        return self

    def _more(
        self,
        batches: Iterator[Batch],
        before: Shared,
        entities: Store | None,
        locks: Collection[str],
        *,
        keep: bool = False,
    ) -> tuple[Shared, Store, Info] | None:
        """What is learned of the next batch beside all that was learned before; nothing where none has rows.

        ``entities``: those that learn; without, this learner's, which change with the last of several batches.
        ``keep``: whether all that they share stays as it is.
        """
        batch = next(batches, None)
        if batch is None or not len(batch):
            return None
        entities = entities or (Pending(self.entities, before, locks) if batch.partial else self.entities)
        shared, batch = grown(before, batch)
        taken = {seen.effect.name: self._take(seen, entities) for seen in batch.seen[1:]}
        task = prepared(batch, taken, shared, locked=locks)
        del batch, taken
        surprise = drift_of(self.parameters, shared, task, sampled=keep)
        task = adapted(self.parameters, shared, task)
        refreshes = self.parameters.learn_population and not keep
        shared, changed, info = mixed.learn(
            self.parameters,
            shared,
            task,
            population="refresh" if refreshes else "keep",
            noise="keep" if keep else "learn",
        )
        entities.commit(self._checked(shared, changed))
        return shared, entities, replace(info, drift=surprise)

    def _rest(
        self,
        batches: Iterator[Batch],
        learned: tuple[Shared, Store, Info],
        locks: Collection[str],
        *,
        keep: bool = False,
    ) -> tuple[Shared, Info]:
        """The same after the other batches of rows that do not fit into the memory together."""
        declared, entities, info = learned
        if (batch := next(batches, None)) is None:
            return declared, info
        batches, shared = chain([batch], batches), without_forgetting(declared)
        del batch
        while (more := self._more(batches, shared, entities, locks, keep=keep)) is not None:
            shared, _, this = more
            info = info.joined(this)
        return as_declared(shared, declared), info

    @unwarned
    def predict(self, events: Events, *, mode: Mode = "point", seed: int = 0) -> FloatArray:
        """Expected labels, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        They are probabilities, numbers with squared loss, and means of counts with Poisson loss.

        Args:
            events: the rows; entities and features never seen are at the population.
            mode: ``point`` at the posterior means, ``integrated`` over the posterior, ``thompson`` at one draw of
                every coefficient: rows of one entity share theirs, as a slate that is ranked together needs.
            seed: of the draw.
        """
        state, parameters = self._fitted(events.schema), self.parameters
        at_mode = parameters.approximation == "laplace"
        return mixed.predict(
            state, self.entities, events, loss=parameters.loss, at_mode=at_mode, mode=mode, seed=seed
        )

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would, and count the coefficients of each effect.

        Raises:
            DataError: rows are not allowed.
            ConfigError: the label, an entity or a feature is not in the schema.
        """
        return mixed.columns(self.parameters, events)

    def weights(self) -> list[tuple[str, float, float]]:
        """Name, mean and standard deviation of every coefficient of the fixed effect, in raw feature units.

        The deviations count that random effects are not known exactly either.
        """
        state = self._fitted()
        posterior = state.fixed_posterior.at(0)
        columns = (state.fixed.index.names, posterior.mean.tolist(), posterior.standard_deviation().tolist())
        return list(zip(*columns, strict=True))

    @property
    def noise(self) -> float:
        """The variance of the noise around numbers, or of counts over their mean, as it is learned or given."""
        return self._fitted().noise.variance

    @property
    def ridges(self) -> dict[str, float]:
        """The ridges of the fixed effect that were learned, by feature: of standardised coefficients."""
        return dict(self._fitted().ridges)

    def drift(self) -> tuple[Drift, ...]:
        """How the events of the last update surprised the model before it learned them; nothing after a fit.

        Of its loss, of the labels, and of what each effect does for the loss: what was observed beside what the
        model itself expected. The first two are worse, or more, than expected where ``z`` is large, and an effect
        helps less. A ``z`` beyond 4 is no chance.
        """
        return self.info.drift if self.info else ()

    def entity_posterior(
        self, entity: str | Sequence[str], id: str | int | Sequence[str | int]
    ) -> tuple[tuple[str, ...], Posterior, int]:
        """Names of the coefficients, their posterior ``(d,)`` and the rows learned so far, of one entity.

        Of an effect of ``support: observed`` these are the coefficients that the entity holds.

        ``entity`` is its role or its column, or what the effect is called; of a combination a tuple, as its ``id``
        is. An id never seen, or with fewer rows than ``min_rows``, is at the population, with no rows.

        Raises:
            ConfigError: there is no such random effect, or several.
            MismatchError: the id cannot be one of those learned.
        """
        effect = self._effect(entity)
        ids = self._ids(effect, [id])
        if effect.is_sparse:
            states = next(held_states(self.entities, effect, ids))
            states = resized(states, int((np.asarray(states.support) >= 0).sum()))
            names = tuple(effect.index.names[column] for column in np.asarray(states.support)[0].tolist())
            return names, states.posterior.at(0), int(states.rows[0])
        states = effect.shown(effect.now(self.entities.take(effect.name, ids, effect.base)))
        return effect.index.names, states.posterior.at(0), int(states.rows[0])

    def states(self, entity: str | Sequence[str]) -> EntityStates:
        """All entities that have learned from ``min_rows`` rows or more, in an order that a save may change.

        ``entity`` is as in :meth:`entity_posterior`; ids of a combination are texts, their parts with the
        character 31 (unit separator) between them. Of an effect of ``support: observed`` all are filled up to the
        entity that holds most, and have matrices where one of them has.

        Raises:
            ConfigError: there is no such random effect, or several; or all together are too large.
        """
        effect = self._effect(entity)
        if effect.is_sparse:
            return self._joined(effect)
        states = effect.now(self.entities.take(effect.name, self.entities.ids(effect.name), effect.base))
        enough = states.rows >= effect.least_rows
        return states if enough.all() else states.at(np.flatnonzero(enough))

    def coefficients(
        self,
        entity: str | Sequence[str] | None = None,
        ids: Sequence[Any] | None = None,
        *,
        level: float = 0.95,
    ) -> pa.RecordBatchReader:
        """All coefficients as rows of a table, made batch by batch as they are read, whatever their number.

        ``read_all()`` makes one Arrow table of them, and every frame that speaks Arrow takes the reader itself.

        Columns: ``effect``; ``id`` of the entity, null in the fixed effect, as text where all effects are asked
        for; ``feature``; ``mean`` and ``sd`` of the posterior, in raw feature units; ``lower`` and ``upper``, the
        ends of the interval ``mean ± z sd``; ``rows`` that the entity has learned from.

        Args:
            entity: ``"fixed"``, or an effect as in :meth:`entity_posterior`; all effects without.
            ids: some of its entities, one never seen being at the population; without, all that have learned from
                ``min_rows`` rows or more. Ids of a combination are given as tuples, and come as in :meth:`states`.
            level: of the interval, in (0, 1).

        Raises:
            ConfigError: there is no such effect, ``ids`` come without one, or the level is none.
            MismatchError: an id cannot be one of those learned.
        """
        state = self._fitted()
        if not 0.0 < level < 1.0:
            raise ConfigError(f"the level {level} of an interval", hint="it lies between 0 and 1, such as .95")
        if ids is not None and entity in (None, FIXED):
            raise ConfigError("ids of no random effect", hint="name the entity whose ids they are")
        if entity is None:
            asked = [(effect, None) for effect in state.effects]
        else:
            effect = state.fixed if entity == FIXED else self._effect(entity)
            asked = [(effect, None if ids is None else self._ids(effect, ids))]
        return coefficients(state, self.entities, asked, level=level)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        state = self._fitted()
        fixed = state.fixed_states.posterior
        return fixed.mean.nbytes + fixed.precision.nbytes + state.marginal.nbytes + self.entities.nbytes

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        (line,), info = super().summary(), self.info
        if info is None:
            return [line]
        how = "converged" if info.converged else f"not converged ({info.decrement:.2g} posterior sd left)"
        left = [
            f"  {name}: {len(ids):,} entities not converged" for name, ids in info.unsettled.items() if len(ids)
        ]
        parts = f"{info.pieces} pieces and " if info.pieces > 1 else ""
        surprised = [f"  {told(one)}" for one in info.drift if is_surprise(one)]
        line = f"{line} in {parts}{info.steps} Newton steps: {how}"
        return [line, *left, *surprised, *self._learned()]

    def _learned(self) -> list[str]:
        """What was learned of noise and ridges, in lines for the terminal."""
        state, lines = self._fitted(), list[str]()
        if self.parameters.loss != "logistic":
            size, rows = state.noise.variance, state.noise.rows
            what = (
                f"standard deviation {size**0.5:.4g}"
                if self.parameters.loss == "squared"
                else f"{size:.4g} x mean"
            )
            lines.append(f"  noise: {what}" + (f" from {rows:,.0f} rows" if rows else ""))
        if state.ridges:
            told = ", ".join(f"{feature} {ridge:.3g}" for feature, ridge in state.ridges.items())
            lines.append(f"  ridges of the fixed effect: {told}")
        return lines

    def shortfall(self) -> str:
        """Steps taken and posterior standard deviations left to go, and how many entities have not arrived."""
        info = self.info
        if info is None or info.converged:
            return ""
        steps = f"{info.decrement:.2g} posterior sd left after {info.steps} Newton steps"
        open_ends = {name: len(ids) for name, ids in info.unsettled.items() if name != FIXED and len(ids)}
        return ", ".join(
            [steps, *(f"{count:,} entities of '{name}' unsettled" for name, count in open_ends.items())]
        )

    def _effect(self, entity: str | Sequence[str]) -> Effect:
        state = self._fitted()
        told = entity if isinstance(entity, str) else " x ".join(entity)
        found = named(state.random, entity, state.contract["entities"])
        if not found:
            names = [effect.name for effect in state.random]
            raise ConfigError(f"no random effect of '{told}'", hint=nearest(told, names))
        if len(found) > 1:
            names = ", ".join(effect.name for effect in found)
            raise ConfigError(f"{len(found)} random effects of '{told}'", hint=f"name one of them: {names}")
        return found[0]

    def _joined(self, effect: Effect) -> EntityStates:
        """All entities that hold some coefficients only, in the order in which they came.

        Raises:
            ConfigError: they take too much, filled up to the one that holds most.
        """
        ids = self.entities.ids(effect.name)
        pieces = list(shown_states(self._fitted(), self.entities, effect))
        if not pieces:
            return next(held_states(self.entities, effect, ids[:0]))
        widest = max(piece.posterior.mean.shape[1] for piece in pieces)
        full = any(piece.posterior.is_full for piece in pieces)
        if (cells := len(ids) * widest * (widest if full else 1)) > _JOINED_AT_MOST:
            raise ConfigError(
                f"{len(ids):,} entities of '{effect.name}' with up to {widest:,} coefficients of their own take "
                f"{8e-9 * cells:,.0f} GB, each filled up to the widest",
                hint="coefficients() gives them one by one",
            )
        states, number = joined(pieces), {id: place for place, id in enumerate(ids.tolist())}
        return states.at(np.argsort([number[id] for id in states.ids.tolist()]))

    def _ids(self, effect: Effect, ids: Sequence[Any]) -> IdArray:
        """Ids as they are kept.

        Raises:
            MismatchError: one cannot be one of those learned.
        """
        asked: Any = combined(effect.name, effect.columns, ids)
        try:
            given: Any = pa.array(asked)
        except (pa.ArrowInvalid, OverflowError) as error:
            told = ids[0] if len(ids) == 1 else list(ids[:3])
            raise MismatchError(
                f"{told!r} is no id of '{effect.name}'", hint="give a whole number or a text"
            ) from error
        return ids_as(given, effect.ids or id_type(given.type), f"'{effect.name}'")

    def _take(self, seen: Seen, entities: Store | None = None) -> EntityStates | SparseStates:
        effect, store = seen.effect, entities or self.entities
        if not isinstance(store, Pending) or effect.name in store.locked:
            if effect.is_sparse:
                return effect.now_sparse(store.take_sparse(effect.name, seen.ids))
            return effect.now(store.take(effect.name, seen.ids, effect.base))
        # The later batches of an update forget nothing, so that nothing is forgotten twice: but for entities that
        # were in none before.
        unmet = store.unmet(effect.name, seen.ids)
        keep = np.where(unmet, store.forgetting[effect.name] / effect.declared.forgetting, 1.0)
        if not effect.is_sparse:
            states = effect.now(store.take(effect.name, seen.ids, effect.base))
            return replace(states, posterior=forget(states.posterior, effect.population, keep))
        known = effect.now_sparse(store.take_sparse(effect.name, seen.ids))
        pieces = [
            (
                places,
                replace(one, posterior=forget(one.posterior, at_support(effect.population, one), keep[places])),
            )
            for places, one in known.pieces
        ]
        return replace(known, pieces=pieces)

    def _checked(self, shared: Shared, changed: mixed.Changed) -> dict[str, Iterator[EntityStates]]:
        """What has changed, checked piece by piece as it is computed; what is shared at once.

        Raises:
            ModelError: something is not finite, or a precision not positive definite.
        """
        for posterior in (shared.fixed_states.posterior, shared.fixed_posterior):
            check_posterior("the fixed effect", shared.fixed.index.names, posterior.at(0))
        for effect in shared.effects:
            check_posterior(f"the population of '{effect.name}'", effect.index.names, effect.population)
        effects = {effect.name: effect for effect in shared.random}
        return {name: self._sound(effects[name], pieces) for name, pieces in changed.items()}

    def _sound(self, effect: Effect, pieces: Iterable[EntityStates]) -> Iterator[EntityStates]:
        """What has changed, as it is stored, once it is checked."""
        for states in pieces:
            ids, kept = states.ids, self.parameters.states
            names, support = effect.index.names, states.support
            check_posterior(effect.name, names, states.posterior, ids=ids, kept=kept, support=support)
            yield effect.stored(states)

    def _means(self, before: Shared, batch: Batch) -> dict[str, FloatArray | SparseStates]:
        """The means of a batch's entities as they were, over the columns that there are now.

        Or their states, where they hold some coefficients only.
        """
        fixed, *random = batch.seen
        known = {effect.name: effect for effect in before.random}
        means: dict[str, FloatArray | SparseStates] = {
            FIXED: widened(before.fixed_states.posterior, fixed.effect.population).mean
        }
        for seen in random:
            name = seen.effect.name
            states = self._take(replace(seen, effect=known[name]))
            is_sparse = isinstance(states, SparseStates)
            means[name] = states if is_sparse else widened(states.posterior, seen.effect.population).mean
        return means

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:
        """See :meth:`acclimate.learners.base.Fitted.known`."""
        found = dict[str, tuple[IdArray, BoolArray]]()
        for effect in self._fitted().random:
            ids = ids_in(events, effect.columns, effect.ids, f"'{effect.name}'")
            found[effect.name] = ids, self.entities.knows(effect.name, ids)
        return found

    def _packed(self, state: Shared) -> Packed:
        return packed(state, self.entities)

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self.state = unpacked(stored, self.parameters, known, self.entities)


def _populations(before: Shared, shared: Shared) -> dict[str, Posterior]:
    """The populations as they were, over the columns that there are now."""
    pairs = zip(before.random, shared.random, strict=True)
    return {now.name: widened(was.population, now.unit) for was, now in pairs}
