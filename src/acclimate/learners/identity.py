"""What a learner is known by once it is published: hashes of what it has learned for all, and of what it reads."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from acclimate.learners.base import Packed
from acclimate.learners.on_vectors import OnVectors


def identity_of(learner: Any) -> tuple[str, str]:
    """SHA-256 of the shared part as it is now, and of what the learner reads: the schema and its settings.

    Raises:
        NotFittedError: there is nothing to identify.
    """
    contract = {"schema": learner._fitted().contract, "parameters": asdict(learner.parameters)}
    return _hash_of(learner.shared()), hashlib.sha256(_json(contract)).hexdigest()


def identity_on_vectors(model: OnVectors) -> tuple[str, str]:
    """The same of a model of vectors: of all that it is, and of what it reads, the space of the vectors.

    Raises:
        NotFittedError: there is nothing to identify.
    """
    contract = {"kind": model.kind_on_disk, "space": model.space}
    return _hash_of(model.shared()), hashlib.sha256(_json(contract)).hexdigest()


def _hash_of(shared: Packed) -> str:
    whole = hashlib.sha256(_json(shared.manifest))
    for name, array in sorted(shared.arrays.items()):
        whole.update(_json([name, array.dtype.str, array.shape]))
        whole.update(np.ascontiguousarray(array).data)
    for name, table in sorted(shared.tables.items()):
        whole.update(_json([name, table.to_pydict()]))
    return whole.hexdigest()


def distances(one: Any, other: Any) -> dict[str, float | None]:
    """How far the shared parts of two learners are apart, by name: ``|a - b| / |a|``.

    Where ``a`` is 0 it is relative to ``|b|``: 1. ``None`` where one is of another shape, or there is none.
    Coefficients that have names are compared by them.
    """
    first, second = one.shared().arrays, other.shared().arrays
    found = {name: _distance(first.get(name), second.get(name)) for name in sorted({*first, *second})}
    if hasattr(one, "weights") and hasattr(other, "weights"):
        before, after = ({name: mean for name, mean, _ in which.weights()} for which in (one, other))
        names = sorted({*before, *after})
        values = [np.array([known.get(name, 0.0) for name in names]) for known in (before, after)]
        found = {"coefficients": _distance(*values), **found}
    return found


def _distance(a: Any, b: Any) -> float | None:
    if a is None or b is None or a.shape != b.shape or a.dtype.kind not in "fiu":
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = float(np.linalg.norm(a)) or float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size else 0.0


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
