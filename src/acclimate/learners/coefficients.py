"""The coefficients of a GLMix as rows of a table, with names and intervals: piece by piece, however many."""

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from acclimate.arrays import EntityStates, IdArray
from acclimate.features import ids_as_arrow
from acclimate.learners.effects import FIXED, Effect
from acclimate.learners.layers import LayeredEntities
from acclimate.learners.shared import Shared
from acclimate.models.support import gathered

_ENTITIES = 1 << 14
"""Entities that are taken from the store at a time where they hold some coefficients only."""

_CELLS = 1 << 20
"""Numbers of posteriors, means and precisions, that are taken from the store at a time: 8 MB."""


def coefficients(
    shared: Shared,
    entities: LayeredEntities,
    asked: Sequence[tuple[Effect, IdArray | None]],
    *,
    level: float,
) -> pa.RecordBatchReader:
    """One row per coefficient: see :meth:`acclimate.GLMix.coefficients`.

    ``asked``: effects, and which of their entities; ``None`` for all that have learned from enough rows.
    """
    numbers = len(asked) == 1 and asked[0][0].ids == "int64"
    id_type = pa.int64() if numbers else pa.string()
    floats = ((name, pa.float64()) for name in ("mean", "sd", "lower", "upper"))
    names = [("effect", pa.string()), ("id", id_type), ("feature", pa.string())]
    schema = pa.schema([*names, *floats, ("rows", pa.int64())])
    deviations = NormalDist().inv_cdf(0.5 + 0.5 * level)
    batches = (
        _batch(effect, states, deviations, schema)
        for effect, ids in asked
        for states in shown_states(shared, entities, effect, ids)
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def shown_states(
    shared: Shared, entities: LayeredEntities, effect: Effect, ids: IdArray | None = None
) -> Iterator[EntityStates]:
    """The states of an effect as others see them, some entities at a time.

    Of these ``ids``, or of all entities that have learned from enough rows.
    """
    if effect.name == FIXED:
        states = shared.fixed_states
        yield EntityStates(states.ids, shared.fixed_posterior, states.touched, states.rows)
        return
    some = entities.ids(effect.name) if ids is None else ids
    if effect.is_sparse:
        for first in range(0, len(some), _ENTITIES):
            yield from held_states(entities, effect, some[first : first + _ENTITIES], known=ids is None)
        return
    width = len(effect.index)
    step = max(1, _CELLS // (width + width * (width if effect.base.is_full else 1)))
    for first in range(0, len(some), step):
        states = effect.now(entities.take(effect.name, some[first : first + step], effect.base))
        if ids is None:
            states = states.at(np.flatnonzero(states.rows >= effect.least_rows))
        yield effect.shown(states)


def held_states(
    entities: LayeredEntities, effect: Effect, ids: IdArray, *, known: bool = False
) -> Iterator[EntityStates]:
    """The same of entities that hold some coefficients only, by how many: of one never seen the intercept alone.

    ``known``: leave out those that have not learned from enough rows.
    """
    taken = effect.now_sparse(entities.take_sparse(effect.name, ids))
    for _, states in taken.pieces:
        yield effect.shown(states.at(np.flatnonzero(states.rows >= effect.least_rows)) if known else states)
    unseen = np.flatnonzero(taken.rows == 0)
    if len(unseen) and not known:
        support, nothing = np.zeros((len(unseen), 1), np.int32), np.zeros(len(unseen), np.int64)
        yield EntityStates(ids[unseen], gathered(effect.population, support), nothing, nothing, support)


def _batch(effect: Effect, states: EntityStates, deviations: float, schema: pa.Schema) -> pa.RecordBatch:
    """One row per coefficient of each of the states; an interval ends so many standard deviations off its mean."""
    count, support = len(states), states.support
    held = np.ones_like(states.posterior.mean, np.bool_) if support is None else support >= 0
    entity, column = np.nonzero(held)
    mean, sd = states.posterior.mean[held], states.posterior.standard_deviation()[held]
    column = column if support is None else support[held]
    id_type = schema.field("id").type
    ids = ids_as_arrow(states.ids, effect.ids).cast(id_type) if effect.ids else pa.nulls(count, id_type)
    columns = [
        pa.array([effect.name]).take(np.zeros_like(entity)),
        ids.take(entity),
        pa.array(effect.index.names, pa.string()).take(column),
        *(pa.array(values) for values in (mean, sd, mean - deviations * sd, mean + deviations * sd)),
        pa.array(states.rows[entity]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
