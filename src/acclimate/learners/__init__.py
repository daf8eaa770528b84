"""The learners, each known by the record that declares it, and imported when it is asked for."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from acclimate.artifacts import Encoder, Learner
from acclimate.config import LearnerParameters, class_of, record_of
from acclimate.errors import ConfigError, FormatError
from acclimate.storage import read_kind


def make(parameters: LearnerParameters) -> Learner:
    """The learner, or the encoder, that a record declares."""
    declared: Any = parameters
    return class_of(type(declared))(**{f.name: getattr(declared, f.name) for f in fields(declared)})


def load(path: str | Path) -> Learner:
    """The learner saved at ``path``, of whatever kind.

    Raises:
        FormatError: there is none, it is damaged, of another version, or of a kind that is not known.
    """
    kind = read_kind(path)
    try:
        found = class_of_kind(kind)
    except ConfigError as error:
        raise FormatError(f"{path}: {error.message}", hint="load it with the version that wrote it") from error
    return found.load(path)


def class_of_kind(kind: str) -> Any:
    """The class of the learners of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    return class_of(record_of(kind))


def write_vectors(encoder: Encoder, path: str | Path, *, overwrite: bool = False) -> int:
    """See :func:`acclimate.learners.export.write_vectors`."""
    from acclimate.learners.export import write_vectors as write

    return write(encoder, path, overwrite=overwrite)


def identity_of(learner: Any) -> tuple[str, str]:
    """See :func:`acclimate.learners.identity.identity_of`."""
    from acclimate.learners.identity import identity_of as tell

    return tell(learner)


def identity_on_vectors(model: Any) -> tuple[str, str]:
    """See :func:`acclimate.learners.identity.identity_on_vectors`."""
    from acclimate.learners.identity import identity_on_vectors as tell

    return tell(model)


def distances(one: Any, other: Any) -> dict[str, float | None]:
    """See :func:`acclimate.learners.identity.distances`."""
    from acclimate.learners.identity import distances as tell

    return tell(one, other)


__all__ = ["distances", "identity_of", "identity_on_vectors", "load", "make", "write_vectors"]
