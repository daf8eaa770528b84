"""A GLMix on disk: a manifest, arrays, and a table of names and one of ids for each effect."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from acclimate.artifacts import EntityStates, Posterior
from acclimate.features import FeatureIndex, Settled
from acclimate.learners.effects import EffectState
from acclimate.learners.mixed import Parameters, State
from acclimate.storage import Stored, read_artifact, unpacking, write_artifact

KIND = "glmix"


def save_glmix(path: str | Path, parameters: Parameters, state: State, *, overwrite: bool) -> None:
    """Write a model; see :func:`acclimate.storage.write_artifact` for the errors."""
    arrays: dict[str, Any] = {}
    tables: dict[str, pa.Table] = {}
    for i, effect in enumerate(state.effects):
        states = effect.states
        arrays |= {
            f"{i}.mean": states.posterior.mean,
            f"{i}.precision": states.posterior.precision,
            f"{i}.touched": states.touched,
            f"{i}.rows": states.rows,
            f"{i}.base.mean": effect.base.mean,
            f"{i}.base.precision": effect.base.precision,
            f"{i}.ridge.mean": effect.ridge.mean,
            f"{i}.ridge.precision": effect.ridge.precision,
        }
        tables[f"names-{i}"] = pa.table({"name": list(effect.index.names)})
        tables[f"entities-{i}"] = pa.table({"id": states.ids})
    manifest = {
        "parameters": asdict(parameters),
        "label": state.label,
        "schema": state.contract,
        "cut": state.cut,
        "effects": [{"form": effect.form, **asdict(effect.index.settled)} for effect in state.effects],
    }
    write_artifact(path, kind=KIND, manifest=manifest, arrays=arrays, tables=tables, overwrite=overwrite)


def load_glmix(path: str | Path) -> tuple[Parameters, State]:
    """Read a model back.

    Raises:
        FormatError: there is none, it is damaged or of another version.
        MismatchError: it is of another kind.
    """
    stored = read_artifact(path, kind=KIND)
    manifest = stored.manifest
    with unpacking(path):
        parameters = TypeAdapter(Parameters).validate_python(manifest["parameters"])
        effects = tuple(_effect(stored, i, record) for i, record in enumerate(manifest["effects"]))
        if len(effects) != len(parameters.effects):
            raise ValueError(f"{len(effects)} effects where the parameters have {len(parameters.effects)}")
        return parameters, State(effects, manifest["label"], manifest["schema"], manifest["cut"])


def _effect(stored: Stored, i: int, record: dict[str, Any]) -> EffectState:
    arrays = {
        name.removeprefix(f"{i}."): array for name, array in stored.arrays.items() if name.startswith(f"{i}.")
    }
    settled = Settled(record["fill"], record["kinds"], record["sizes"])
    ids: Any = stored.tables[f"entities-{i}"]["id"].combine_chunks()
    names = tuple(map(str, stored.tables[f"names-{i}"]["name"].to_pylist()))
    _check_shapes(i, arrays, n=len(ids), d=len(names))
    return EffectState(
        FeatureIndex(names, settled),
        record["form"],
        Posterior(arrays["ridge.mean"], arrays["ridge.precision"]),
        Posterior(arrays["base.mean"], arrays["base.precision"]),
        EntityStates(ids, Posterior(arrays["mean"], arrays["precision"]), arrays["touched"], arrays["rows"]),
    )


def _check_shapes(i: int, arrays: dict[str, Any], *, n: int, d: int) -> None:
    """Raises ValueError where the arrays of an effect are not of ``n`` entities and ``d`` coefficients."""
    one = (d, d) if arrays["precision"].ndim == 3 else (d,)
    shapes = {"touched": (n,), "rows": (n,), "mean": (n, d), "precision": (n, *one)}
    for prior in ("base", "ridge"):
        shapes |= {f"{prior}.mean": (d,), f"{prior}.precision": one}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{i}.{name} is of shape {arrays[name].shape}, not {shape}")
