"""acclimate itself, as its users call it."""

from dataclasses import dataclass

from acclimate import update_posteriors
from acclimate.arrays import Posterior
from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import Entities, Fitted


@dataclass(frozen=True)
class _Prior:
    data: Entities
    prior: Posterior


class Acclimate(Peer):
    """All entities in one call."""

    name, at_most, error = "acclimate", 20_000, 1e-6

    def prepared(self, data: Entities) -> _Prior:
        return _Prior(data, data.prior())

    def fit(self, prepared: _Prior) -> Posterior:
        data = prepared.data
        return update_posteriors(prepared.prior, data.X, data.y, data.indptr, tolerance=1e-6)[0]

    def read(self, result: Posterior) -> Fitted:
        return Fitted(result.mean, result.precision)


PEERS = [Acclimate()]
