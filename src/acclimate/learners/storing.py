"""A GLMix on disk: per effect a table of names, and per random one the states of its entities, in segments."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import EntityStates, Posterior
from acclimate.config import GLMixParameters
from acclimate.features import FeatureIndex, Settled
from acclimate.learners.base import Packed
from acclimate.learners.effects import FIXED, Declared, Effect
from acclimate.learners.layers import LayeredEntities
from acclimate.learners.shared import Shared
from acclimate.models.noise import Noise
from acclimate.models.population import Past
from acclimate.storage import InSegments, Stored


def packed(state: Shared, entities: LayeredEntities) -> Packed:
    """A model as it goes to disk."""
    fixed = state.fixed_states
    arrays: dict[str, NDArray[Any]] = {
        "fixed.mean": fixed.posterior.mean,
        "fixed.precision": fixed.posterior.precision,
        "fixed.marginal": state.marginal,
        "fixed.touched": fixed.touched,
        "fixed.rows": fixed.rows,
    }
    tables: dict[str, pa.Table] = {}
    for i, effect in enumerate(state.effects):
        for name, prior in (("ridge", effect.ridge), ("population", effect.population)):
            arrays |= {f"{i}.{name}.mean": prior.mean, f"{i}.{name}.precision": prior.precision}
        tables[f"names-{i}"] = pa.table({"name": list(effect.index.names)})
    for i, effect in enumerate(state.random, start=1):
        for name, prior in (("base", effect.base), ("past", effect.past.population)):
            arrays |= {f"{i}.{name}.mean": prior.mean, f"{i}.{name}.precision": prior.precision}
        arrays[f"{i}.past.information"] = effect.past.information
    effects = [
        {"columns": effect.columns, "ids": effect.ids, "learned": effect.learned, "count": effect.past.count}
        for effect in state.effects
    ]
    manifest: dict[str, Any] = {
        "effects": effects,
        "settled": asdict(state.settled),
        "position": entities.position,
    }
    manifest |= {"noise": asdict(state.noise), "unit": state.unit, "ridges": dict(state.ridges)}
    manifest["nested"] = state.nested
    states = {
        f"states-{i}": entities.stored(effect.name, effect.columns, effect.base)
        for i, effect in enumerate(state.random, 1)
    }
    return Packed(manifest, arrays, tables, states)


def unpacked(
    stored: Stored, parameters: GLMixParameters, known: dict[str, Any], entities: LayeredEntities
) -> Shared:
    """The state; ``entities`` rest on what is on disk.

    Raises:
        ValueError: parts do not belong together.
    """
    declared = [(FIXED, parameters.fixed), *((effect.called, effect) for effect in parameters.random)]
    records = stored.manifest["effects"]
    if len(records) != len(declared):
        raise ValueError(f"{len(records)} effects where the parameters have {len(declared)}")
    effects = [
        _effect(stored, i, name, effect, record)
        for i, ((name, effect), record) in enumerate(zip(declared, records, strict=True))
    ]
    for i, effect in enumerate(effects[1:], start=1):
        entities.rest_on(effect.name, InSegments(stored.segments[f"states-{i}"]))
    settled, nested = stored.manifest["settled"], stored.manifest["nested"]
    entities.position = stored.manifest["position"]
    arrays = _under(stored, "fixed.")
    fixed = EntityStates(
        np.array([FIXED], np.dtypes.StringDType()),
        Posterior(arrays["mean"], arrays["precision"]),
        arrays["touched"],
        arrays["rows"],
    )
    width = len(effects[0].index)
    shapes = {"mean": (1, width), "marginal": arrays["precision"].shape, "touched": (1,), "rows": (1,)}
    _check_shapes("fixed", arrays, shapes)
    return Shared(
        effects[0],
        tuple(effects[1:]),
        fixed,
        arrays["marginal"],
        Settled(settled["fill"], settled["kinds"], settled["sizes"]),
        **known,
        noise=Noise(**stored.manifest["noise"]),
        unit=stored.manifest["unit"],
        ridges=stored.manifest["ridges"],
        nested=None if nested is None else tuple(map(tuple, nested)),
    )


def _effect(stored: Stored, i: int, name: str, declared: Declared, record: dict[str, Any]) -> Effect:
    names = tuple(map(str, stored.tables[f"names-{i}"]["name"].to_pylist()))

    def prior(kind: str) -> Posterior:
        arrays = _under(stored, f"{i}.{kind}.")
        _check_shapes(f"{i}.{kind}", arrays, {"mean": (len(names),)})
        return Posterior(arrays["mean"], arrays["precision"])

    index, population = FeatureIndex(names), prior("population")
    place = (name, declared, tuple(record["columns"]), record["ids"], index)
    if not record["columns"]:
        return Effect(*place, prior("ridge"), population, population, Past.nothing(population))
    was, information = prior("past"), stored.arrays[f"{i}.past.information"]
    _check_shapes(f"{i}.past", {"information": information}, {"information": was.precision.shape})
    past = Past(record["count"], information, was)
    return Effect(*place, prior("ridge"), population, prior("base"), past, record["learned"])


def _under(stored: Stored, prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in stored.arrays.items() if name.startswith(prefix)}


def _check_shapes(place: str, arrays: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError where an array is of another shape."""
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{place}.{name} is of shape {arrays[name].shape}, not {shape}")
