"""The state of one effect of a GLMix: names of its coefficients, its population, a posterior per entity."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy import sparse

from acclimate.artifacts import ArrowArray, EntityStates, FloatArray, IntArray, Posterior
from acclimate.config import FixedEffect, RandomEffect, duration_us
from acclimate.errors import MismatchError
from acclimate.features import FeatureIndex, positions
from acclimate.models.gaussian import decay, embedded, forget, reduced
from acclimate.models.scaling import Scaling

_FULL_AT_MOST = {True: 512, False: 32}
"""Up to how many coefficients ``auto`` keeps a full precision: of the fixed effect, of each entity."""

Effect = FixedEffect | RandomEffect
Form = Literal["full", "diagonal", "marginal"]


@dataclass(frozen=True)
class EffectState:
    """What one effect has learned.

    ``ridge``: the population before any data; ``base``: as learned; both of mean ``(d,)``, full or diagonal as
    the entities' posteriors are. ``form``: what is kept of precisions.
    """

    index: FeatureIndex
    form: Form
    ridge: Posterior
    base: Posterior
    states: EntityStates

    def grown(
        self, effect: Effect, index: FeatureIndex, X: "sparse.csr_array[Any]", weight: FloatArray
    ) -> "EffectState":
        """The same knowledge over the columns of ``X`` (n, d), diagonal where ``auto`` has outgrown full matrices.

        ``weight`` is ``(n,)``.
        """
        if len(index) == len(self.index):
            return replace(self, index=index)
        form = _form(effect, len(index))
        # Thinned before it is widened: the wide matrices are never there.
        state = self._diagonal() if self.form == "full" and form == "diagonal" else self
        return state._widened(index, ridge_prior(effect, state.form, X, weight))

    def _diagonal(self) -> "EffectState":
        states = replace(self.states, posterior=_thinned(self.states.posterior))
        return replace(self, form="diagonal", ridge=_thinned(self.ridge), base=_thinned(self.base), states=states)

    def _widened(self, index: FeatureIndex, ridge: Posterior) -> "EffectState":
        """The same knowledge over more coefficients; the new ones are at ``ridge``, independent of the old."""
        old = len(self.index)
        new = Posterior(ridge.mean[old:], ridge.precision[old:, old:] if ridge.is_full else ridge.precision[old:])
        posterior = self.states.posterior
        return replace(
            self,
            index=index,
            ridge=_appended(self.ridge, new),
            base=_appended(self.base, new),
            states=replace(self.states, posterior=_appended(posterior, new)),
        )

    def with_entities(self, ids: ArrowArray) -> "EffectState":
        """The same knowledge with these new ids at the end, each at the population."""
        if len(ids) == 0:
            return self
        states = self.states
        posterior, base, count = states.posterior, self.base, len(ids)
        grown = EntityStates(
            pa.concat_arrays([states.ids, ids]),
            Posterior(
                np.concatenate([posterior.mean, np.tile(base.mean, (count, 1))]),
                np.concatenate(
                    [posterior.precision, np.broadcast_to(base.precision, (count, *base.precision.shape))]
                ),
            ),
            np.concatenate([states.touched, np.zeros(count, np.int64)]),
            np.concatenate([states.rows, np.zeros(count, np.int64)]),
        )
        return replace(self, states=grown)

    def cast_ids(self, ids: ArrowArray, entity: str) -> ArrowArray:
        """Ids of an entity in the type of the known ones.

        Raises:
            MismatchError: they cannot be of that type.
        """
        try:
            return ids.cast(self.states.ids.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise MismatchError(
                f"ids of '{entity}' are {ids.type}, those learned before are {self.states.ids.type}",
                hint="bring them to one type, or fit anew",
            ) from error

    def prior(self, touched: IntArray, times: IntArray, effect: Effect) -> Posterior:
        """The prior of some entities for a batch whose last events of theirs are at ``times``; both ``(t,)``."""
        posterior = at(self.states.posterior, touched)
        if effect.half_life is None:
            return forget(posterior, self.base, effect.forgetting)
        seen = self.states.touched[touched]
        elapsed = np.where(self.states.rows[touched] > 0, times - seen, 0).astype(np.float64)
        return forget(posterior, self.base, decay(elapsed, duration_us(effect.half_life)))

    def learned(self, touched: IntArray, posterior: Posterior, times: IntArray, rows: IntArray) -> "EffectState":
        """The state with the posteriors of some entities replaced, all others as they were."""
        states = self.states
        mean, precision = states.posterior.mean.copy(), states.posterior.precision.copy()
        latest, seen = states.touched.copy(), states.rows.copy()
        mean[touched], precision[touched] = posterior.mean, posterior.precision
        latest[touched] = np.maximum(latest[touched], times)
        seen[touched] += rows
        return replace(self, states=EntityStates(states.ids, Posterior(mean, precision), latest, seen))

    def means_of(self, ids: ArrowArray) -> FloatArray:
        """The means ``(u, d)`` of these ids, the population's for unknown ones."""
        return self._known(ids, self.base.mean, self.states.posterior.mean)

    def posteriors_of(self, ids: ArrowArray) -> Posterior:
        """The posteriors of these ids, the population's for unknown ones."""
        precision = self._known(ids, self.base.precision, self.states.posterior.precision)
        return Posterior(self.means_of(ids), precision)

    def _known(self, ids: ArrowArray, otherwise: FloatArray, values: FloatArray) -> FloatArray:
        position = positions(ids, self.states.ids)
        found = np.tile(otherwise, (len(ids), *(1,) * otherwise.ndim))
        found[position >= 0] = values[position[position >= 0]]
        return found

    def at_population(self, base: Posterior) -> "EffectState":
        """The same entities, all of them at a new population."""
        states = self.states
        count = len(states.rows)
        mean = np.tile(base.mean, (count, 1))
        precision = np.broadcast_to(base.precision, (count, *base.precision.shape))
        return replace(self, base=base, states=replace(states, posterior=Posterior(mean, precision)))


def at(posterior: Posterior, position: IntArray) -> Posterior:
    """The posteriors of some entities, copied."""
    return Posterior(posterior.mean[position], posterior.precision[position])


def new_effect(
    effect: Effect, index: FeatureIndex, X: "sparse.csr_array[Any]", ids: ArrowArray, weight: FloatArray
) -> EffectState:
    """An effect without entities; its population is the ridge in the standardised space of ``X`` (n, d).

    ``ids`` gives the type of the ids to come; ``weight`` is ``(n,)``.
    """
    form = _form(effect, len(index))
    ridge = ridge_prior(effect, form, X, weight)
    d = len(index)
    nobody = Posterior(np.empty((0, d)), np.empty((0, *ridge.precision.shape)))
    states = EntityStates(ids.slice(0, 0), nobody, np.empty(0, np.int64), np.empty(0, np.int64))
    return EffectState(index, form, ridge, ridge, states)


def ridge_prior(effect: Effect, form: Form, X: "sparse.csr_array[Any]", weight: FloatArray) -> Posterior:
    """``lambda I`` around 0 in the standardised space of ``X`` (n, d) with weights (n,), in raw units."""
    scaling = Scaling.of(X, centre=True, weight=weight)
    d = X.shape[1]
    mean = np.zeros(d)
    if form == "full":
        return Posterior(mean, scaling.precision_out(effect.ridge * np.eye(d)[None])[0])
    # The raw intercept varies with every centred coefficient; a diagonal keeps the marginal precisions.
    precision = effect.ridge * scaling.scale**2
    precision[0] = effect.ridge / (1.0 + np.sum((scaling.centre / scaling.scale) ** 2))
    return Posterior(mean, precision)


def _form(effect: Effect, count: int) -> Form:
    """What is kept of precisions of so many coefficients."""
    if effect.precision != "auto":
        return effect.precision
    return "full" if count <= _FULL_AT_MOST[isinstance(effect, FixedEffect)] else "diagonal"


def _thinned(posterior: Posterior) -> Posterior:
    return Posterior(posterior.mean, reduced(posterior.precision, "diagonal"))


def _appended(posterior: Posterior, new: Posterior) -> Posterior:
    """Independent coefficients added at the end of one block, or of each entity's."""
    lead, old, count = posterior.mean.shape[:-1], posterior.mean.shape[-1], new.mean.shape[-1]
    mean = np.concatenate([posterior.mean, np.broadcast_to(new.mean, (*lead, count))], axis=-1)
    if not posterior.is_full:
        added = np.broadcast_to(new.precision, (*lead, count))
        return Posterior(mean, np.concatenate([posterior.precision, added], axis=-1))
    precision = np.zeros((*lead, old + count, old + count))
    precision[..., :old, :old] = posterior.precision
    precision[..., old:, old:] = embedded(new)
    return Posterior(mean, precision)
