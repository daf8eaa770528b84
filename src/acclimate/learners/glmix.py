"""Personalised logistic regression: a fixed effect and per-entity random effects, updated from new data alone.

Zhang et al., GLMix (KDD 2016) for the model; Ouyang et al., arXiv 2108.13299 for the sequential Bayesian update.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from acclimate.artifacts import Events, FloatArray, Posterior
from acclimate.config import FixedEffect, RandomEffect, Schema
from acclimate.errors import ConfigError, MismatchError, NotFittedError, nearest
from acclimate.features import positions
from acclimate.learners.mixed import Info, Mode, Parameters, State, columns, fit, predict, update


class GLMix:
    """A fixed effect and any number of random effects, one joint model.

    Args:
        fixed: the coefficients that all rows share.
        random: coefficients per entity, one effect for each entity column.
        label: the label to predict; the schema's first without.
        learn_population: learn each random effect's population from all entities at ``fit`` (empirical Bayes);
            without, it stays at the ridge.
        tolerance: stop when the joint Newton decrement is this many posterior standard deviations.
        max_steps: Newton steps at most.

    ``state`` and ``info`` are those of the last fit or update.
    """

    kind = "glmix"

    def __init__(
        self,
        *,
        fixed: FixedEffect | None = None,
        random: Sequence[RandomEffect] = (),
        label: str | None = None,
        learn_population: bool = True,
        tolerance: float = 1e-2,
        max_steps: int = 50,
    ) -> None:
        if not 0.0 <= tolerance < math.inf:
            raise ConfigError(f"a tolerance of {tolerance}", hint="a finite number, 0 or more")
        if max_steps < 0:
            raise ConfigError(f"{max_steps} Newton steps at most", hint="a whole number, 0 or more")
        entities = [effect.entity for effect in random]
        if len(set(entities)) < len(entities):
            raise ConfigError(
                f"two random effects of one entity in {entities}", hint="put their features together"
            )
        self.parameters = Parameters(
            fixed or FixedEffect(), tuple(random), label, learn_population, tolerance, max_steps
        )
        self.state: State | None = None
        self.info: Info | None = None

    def fit(self, events: Events, *, warm_start: bool = False, locked: Collection[str] = ()) -> Self:
        """Learn from these events alone.

        Args:
            events: the rows; those whose label is not known are left out.
            warm_start: begin the search at the coefficients of now; the optimum is the same.
            locked: effects (``"fixed"`` or an entity, by role or column) that stay as they are and count as
                offsets.

        Raises:
            DataError: no row has a label, or rows are not allowed.
            NotFittedError: a warm start or a lock without a fit before.
            MismatchError: the events have another schema, or ids of another type, than that fit.
        """
        before = self._fitted(events.schema) if warm_start or locked else None
        self.state, self.info = fit(self.parameters, events, before, warm_start=warm_start, locked=locked)
        return self

    def update(self, events: Events, *, locked: Collection[str] = ()) -> Self:
        """Learn from new events; the past enters through the posteriors alone.

        Args:
            events: the new rows; without any whose label is known nothing changes.
            locked: effects that stay as they are and count as offsets.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
        """
        self.state, self.info = update(self.parameters, self._fitted(events.schema), events, locked=locked)
        return self

    def predict(self, events: Events, *, mode: Mode = "point", seed: int = 0) -> FloatArray:
        """Probabilities of the label, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        Args:
            events: the rows; entities and features never seen are at the population.
            mode: ``point`` at the posterior means, ``integrated`` over the posterior, ``thompson`` at one draw of
                every coefficient: rows of one entity share theirs, as a slate that is ranked together needs.
            seed: of the draw.
        """
        return predict(self.parameters, self._fitted(events.schema), events, mode=mode, seed=seed)

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would, and count the coefficients of each effect.

        Raises:
            DataError: rows are not allowed.
            ConfigError: the label, an entity or a feature is not in the schema.
        """
        return columns(self.parameters, events)

    def weights(self) -> list[tuple[str, float, float]]:
        """Name, mean and standard deviation of every coefficient of the fixed effect, in raw feature units."""
        effect = self._fitted().effects[0]
        posterior = effect.states.posterior
        return list(
            zip(
                effect.index.names,
                posterior.mean[0].tolist(),
                posterior.standard_deviation()[0].tolist(),
                strict=True,
            )
        )

    def entity_posterior(self, entity: str, id: str | int) -> tuple[tuple[str, ...], Posterior, int]:
        """Names of the coefficients, their posterior ``(d,)`` and the rows learned so far, of one entity.

        ``entity`` is its role or its column. An id never seen is at the population, with no rows.

        Raises:
            ConfigError: there is no such random effect.
            MismatchError: the id cannot be one of those learned.
        """
        state = self._fitted()
        columns: dict[str, str] = state.contract["entities"]
        names = [columns.get(of.entity, of.entity) for of in self.parameters.random]
        column = columns.get(entity, entity)
        if column not in names:
            raise ConfigError(f"no random effect of '{entity}'", hint=nearest(column, names))
        effect = state.effects[1 + names.index(column)]
        one: Any = [id]
        ids: Any = effect.cast_ids(pa.array(one), entity)
        posterior = effect.posteriors_of(ids)
        position = int(positions(ids, effect.states.ids)[0])
        rows = int(effect.states.rows[position]) if position >= 0 else 0
        return effect.index.names, Posterior(posterior.mean[0], posterior.precision[0]), rows

    @property
    def cut(self) -> int:
        """Time of the last event learned, microseconds UTC."""
        return self._fitted().cut

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(effect.states.nbytes for effect in self._fitted().effects)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model as a folder (JSON, safetensors, Parquet), aside first and then renamed.

        Raises:
            OutputError: the place is taken, or cannot be written.
        """
        from acclimate.learners.storing import save_glmix

        save_glmix(path, self.parameters, self._fitted(), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that :meth:`save` wrote.

        Raises:
            FormatError: there is none, it is damaged or of another version.
            MismatchError: it is of another kind.
        """
        from acclimate.learners.storing import load_glmix

        model = cls()
        model.parameters, model.state = load_glmix(path)
        return model

    def _fitted(self, schema: Schema | None = None) -> State:
        if self.state is None:
            raise NotFittedError("this GLMix has learned nothing yet", hint="fit it, or load a saved one")
        if schema is not None and schema.content() != self.state.contract:
            raise MismatchError(
                f"events of another schema than the model's: {_difference(self.state.contract, schema.content())}",
                hint="read them with the schema that the model was fitted with, or fit anew",
            )
        return self.state


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two contents of a schema, in words."""
    return "; ".join(
        f"{key} was {saved.get(key)} and is {now.get(key)}"
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    )
