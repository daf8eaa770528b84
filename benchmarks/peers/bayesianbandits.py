"""bayesianbandits' generalised linear model, one entity after another, with its whole precision."""

import numpy as np
from bayesianbandits import BayesianGLM, LaplaceApproximator

from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import RIDGE, Entities, Fitted


class BayesianBandits(Peer):
    """By iteratively reweighted least squares to the end."""

    name = "bayesianbandits"

    def fit(self, prepared: Entities) -> list[BayesianGLM]:
        approximator = LaplaceApproximator(n_iter=50, tol=1e-4)
        fresh = (BayesianGLM(alpha=RIDGE, approximator=approximator) for _ in range(prepared.count))
        return [model.fit(*prepared.rows(e)) for e, model in enumerate(fresh)]

    def read(self, result: list[BayesianGLM]) -> Fitted:
        """Of a precision the upper triangle is there."""
        upper = [np.triu(model.cov_inv_) for model in result]
        return Fitted(np.array([model.coef_ for model in result]), np.array([U + np.triu(U, 1).T for U in upper]))


PEERS = [BayesianBandits()]
