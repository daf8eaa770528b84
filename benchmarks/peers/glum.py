"""glum's generalised linear model, one entity after another: means alone."""

import numpy as np
from glum import GeneralizedLinearRegressor

from acclimate.arrays import FloatArray
from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import RIDGE, Entities, Fitted


class Glum(Peer):
    """Its loss is a mean over the rows, so that the ridge is shared among them."""

    name, at_most, error = "glum", 100, 1e-2

    def fit(self, prepared: Entities) -> FloatArray:
        return np.array([self._coefficients(*prepared.rows(e)) for e in range(prepared.count)])

    def _coefficients(self, X: FloatArray, y: FloatArray) -> FloatArray:
        model = GeneralizedLinearRegressor(
            family="binomial", alpha=RIDGE / len(y), fit_intercept=False, gradient_tol=1e-6
        )
        return model.fit(X, y).coef_

    def read(self, result: FloatArray) -> Fitted:
        return Fitted(result)


PEERS = [Glum()]
