"""Modules that need an optional dependency: imported on demand, and told in one line where it is absent."""

import importlib
from types import ModuleType

from acclimate.errors import MissingExtraError

_EXTRAS = {
    "torch": "torch",
    "usearch": "ann",
    "sklearn": "sklearn",
    "fastavro": "avro",
    "optuna": "tune",
    "fsspec": "remote",
}
"""By the name of a dependency, the extra that brings it."""


def import_module(name: str) -> ModuleType:
    """A module of this package.

    Raises:
        MissingExtraError: what it needs is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise MissingExtraError(
            f"{missing} is not installed, and {name.rpartition('.')[2].replace('_', '-')} needs it",
            hint=f"pip install 'acclimate[{_EXTRAS[missing]}]'",
        ) from error
