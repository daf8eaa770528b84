"""A GLMix in the words of other libraries: a scikit-learn classifier, and Photon-ML's models on disk.

What each of them needs is an extra, and imported with the name that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.interop.classifier import GLMixClassifier
    from acclimate.interop.photon import read_photon, write_photon

_HOME = {
    "GLMixClassifier": "acclimate.interop.classifier",
    "read_photon": "acclimate.interop.photon",
    "write_photon": "acclimate.interop.photon",
}

__all__ = ["GLMixClassifier", "read_photon", "write_photon"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'acclimate.interop' has no attribute '{name}'")
    from acclimate.extras import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
