"""What a library has to say to be measured: one small class of these three methods each."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.peers.worlds import Entities, Fitted

ADAPTERS = {
    "acclimate": "acclimate",
    "numpy_newton": "numpy",
    "lambda_learner": "linkedin",
    "scikit_learn": "sklearn",
    "glum": "glum",
    "bayesianbandits": "bayesianbandits",
    "vowpalwabbit": "vowpalwabbit",
    "river": "river",
}
"""Modules of this folder, and what each has to import; the first is the one that is compared."""


class Peer:
    """A way to learn many entities. Only :meth:`fit` is timed."""

    name: str
    at_most: int = 300
    """Entities that it is timed on."""
    error: float = 1e-4
    """What its results are within, in posterior standard deviations; infinite if it does not seek the optimum."""

    def prepared(self, data: Entities) -> Any:
        """The rows in the form that the library takes."""
        return data

    def fit(self, prepared: Any) -> Any:
        """Learn all entities."""
        raise NotImplementedError

    def read(self, result: Any) -> Fitted:
        """What was learned."""
        return result


def installed_peers() -> tuple[list[Peer], list[str]]:
    """Those whose library is there, and a line for each that is not."""
    peers: list[Peer] = []
    absent: list[str] = []
    for module, library in ADAPTERS.items():
        if find_spec(library) is None:
            absent.append(f"{module} is not installed: skipped (python -m pip install '.[bench]')")
        else:
            peers.extend(import_module(f"benchmarks.peers.{module}").PEERS)
    return peers, absent
