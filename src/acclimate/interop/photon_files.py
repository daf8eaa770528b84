"""The files of a Photon-ML model: coordinates, and their coefficients as ``BayesianLinearModelAvro`` records.

Facts are those of the public schemas and of what its driver reads and writes::

    model-metadata.json                             {"modelType": "LOGISTIC_REGRESSION", ...}
    fixed-effect/<coordinate>/id-info               feature shard
    fixed-effect/<coordinate>/coefficients/*.avro   one record
    random-effect/<coordinate>/id-info              column of the ids, feature shard
    random-effect/<coordinate>/coefficients/*.avro  one record per id

Name and term tell coefficients apart: ``("tag", "news")`` is ``tag=news`` here, ``("price", "")`` is ``price``.
"""

import itertools
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fastavro
from fastavro.schema import SchemaParseException

from acclimate.errors import SourceError
from acclimate.features import INTERCEPT

FIXED, RANDOM = "fixed-effect", "random-effect"

_COEFFICIENTS, _ID_INFO, _METADATA, _TASK = "coefficients", "id-info", "model-metadata.json", "LOGISTIC_REGRESSION"
_CLASS = "com.linkedin.photon.ml.supervised.classification.LogisticRegressionModel"
_INTERCEPT = ("(INTERCEPT)", "")
_RECORD = "BayesianLinearModelAvro"
_VALUES: dict[str, Any] = {
    "type": "record",
    "name": "NameTermValueAvro",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "term", "type": "string"},
        {"name": "value", "type": "double"},
    ],
}
_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": _RECORD,
    "namespace": "com.linkedin.photon.avro.generated",
    "fields": [
        {"name": "modelId", "type": "string"},
        {"name": "modelClass", "type": ["null", "string"], "default": None},
        {"name": "means", "type": {"type": "array", "items": _VALUES}},
        {
            "name": "variances",
            "type": ["null", {"type": "array", "items": "NameTermValueAvro"}],
            "default": None,
        },
        {"name": "lossFunction", "type": ["null", "string"], "default": None},
    ],
}
_DAMAGED = (ValueError, EOFError, StopIteration, LookupError, zlib.error, SchemaParseException)
"""What reading a damaged Avro file raises: in its header, its schema, or a compressed block."""

_LEFT_OUT = 1e-4
"""Photon-ML writes no mean and no variance that is smaller than this."""


@dataclass(frozen=True)
class Coordinate:
    """One effect on disk: its ``name``, the column of its ids (empty of a fixed effect), and where it is."""

    name: str
    ids: str
    folder: Path


@dataclass(frozen=True)
class Record:
    """The coefficients of one id: names ``(k,)``, means, and variances, NaN where none is known."""

    id: str
    names: Sequence[str]
    means: Sequence[float]
    variances: Sequence[float]


def write_metadata(folder: Path) -> None:
    """Say that the model of this folder is a logistic regression."""
    told = {"modelType": _TASK, "optimizationConfigurations": {"values": []}}
    (folder / _METADATA).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def write_coordinate(folder: Path, name: str, ids: str, records: Iterable[Record]) -> int:
    """Write one effect, record by record, a fixed one if it has no ids; returns how many there are.

    Its name is that of its feature shard too.
    """
    place = folder / (RANDOM if ids else FIXED) / quote(name, safe=" ")
    (place / _COEFFICIENTS).mkdir(parents=True)
    lines = [ids, name] if ids else [name]
    (place / _ID_INFO).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    count = itertools.count()
    counted = (_as_avro(record) for record, _ in zip(records, count, strict=False))
    with open(place / _COEFFICIENTS / "part-00000.avro", "wb") as file:
        fastavro.writer(file, _SCHEMA, counted, codec="deflate")
    return next(count)


def coordinates(folder: Path, kind: str) -> list[Coordinate]:
    """The effects of one kind, by name.

    Raises:
        SourceError: there is no model, it is no logistic regression, or ids of a random effect are not named.
    """
    _check_task(folder)
    found: list[Coordinate] = []
    for place in sorted((folder / kind).glob("*/")):
        info = place / _ID_INFO
        lines = info.read_text(encoding="utf-8").split("\n") if info.is_file() else [""]
        if kind == RANDOM and not lines[0]:
            raise SourceError(f"{info}: does not name the column of the ids", hint="it is the first of its lines")
        found.append(Coordinate(unquote(place.name), lines[0] if kind == RANDOM else "", place / _COEFFICIENTS))
    return found


def read_records(coordinate: Coordinate) -> Iterator[Record]:
    """The records of all its files, one after the other.

    Raises:
        SourceError: there is no file, one is no Avro file of this schema or ends early, or a record's numbers are
            not finite, a variance not positive, or the model another than a logistic regression.
    """
    files = sorted(coordinate.folder.glob("*.avro"))
    if not files:
        raise SourceError(f"{coordinate.folder}: no .avro file")
    for file in files:
        with open(file, "rb") as opened:
            try:
                reader = fastavro.reader(opened)
                schema: Any = reader.writer_schema
                name, fields = schema.get("name", "no record"), {one["name"] for one in schema.get("fields", ())}
                if name.rpartition(".")[2] != _RECORD or not {"modelId", "means"} <= fields:
                    raise SourceError(f"{file}: holds {name}, not {_RECORD}")
                for record in reader:
                    yield _from_avro(file, record)
            except _DAMAGED as error:
                raise SourceError(f"{file}: is no Avro file, or ends early: {error}") from error


def _check_task(folder: Path) -> None:
    if not (folder / FIXED).is_dir() and not (folder / RANDOM).is_dir():
        raise SourceError(f"{folder}: holds neither {FIXED} nor {RANDOM}", hint="give the folder of a GAME model")
    metadata = folder / _METADATA
    if not metadata.is_file():  # of models of old
        return
    try:
        task = json.loads(metadata.read_text(encoding="utf-8"))["modelType"]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{metadata}: does not say the modelType") from error
    if task not in (_TASK, "NONE"):
        raise SourceError(f"{metadata}: a model of {task}, and a GLMix is one of {_TASK}")


def _as_avro(record: Record) -> dict[str, Any]:
    pairs = [_split(name) for name in record.names]
    means, variances = (
        [{"name": name, "term": term, "value": value} for (name, term), value in zip(pairs, values, strict=True)]
        for values in (record.means, record.variances)
    )
    return {"modelId": record.id, "modelClass": _CLASS, "means": means, "variances": variances, "lossFunction": ""}


def _from_avro(file: Path, record: Any) -> Record:
    kind, id = record.get("modelClass") or _CLASS, record["modelId"]
    if kind.rpartition(".")[2] != _CLASS.rpartition(".")[2]:
        raise SourceError(f"{file}: model '{id}' is a {kind}, and a GLMix is a {_CLASS}")
    means = _by_name(file, record, "means")
    if record.get("variances") is None:
        return Record(id, list(means), list(means.values()), [math.nan] * len(means))
    variances = _by_name(file, record, "variances")
    names = list(dict.fromkeys([*means, *variances]))
    if wrong := [name for name, variance in variances.items() if not variance > 0.0]:
        name = wrong[0]
        raise SourceError(f"{file}: the variance of '{name}' in model '{id}' is {variances[name]:g}, not positive")
    get, known = means.get, variances.get
    return Record(id, names, [get(name, 0.0) for name in names], [known(name, _LEFT_OUT) for name in names])


def _by_name(file: Path, record: Any, part: str) -> dict[str, float]:
    values = {_joined(one["name"], one["term"]): one["value"] for one in record[part]}
    if len(values) < len(record[part]) or not all(map(math.isfinite, values.values())):
        raise SourceError(
            f"{file}: the {part} of model '{record['modelId']}' name a coefficient twice, or are not finite"
        )
    return values


def _split(name: str) -> tuple[str, str]:
    """Name and term of a coefficient; :func:`_joined` puts any name together again as it was."""
    if name == INTERCEPT:
        return _INTERCEPT
    feature, _, level = name.partition("=")
    return (feature, level) if feature and level else (name, "")


def _joined(name: str, term: str | None) -> str:
    if (name, term or "") == _INTERCEPT:
        return INTERCEPT
    return f"{name}={term}" if term else name
