"""scikit-learn's logistic regression, one entity after another: means alone."""

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

from acclimate.arrays import FloatArray
from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import RIDGE, Entities, Fitted


class ScikitLearn(Peer):
    """By one of its solvers."""

    error = 1e-2

    def __init__(self, solver: str) -> None:
        self.name, self.solver = f"scikit-learn, {solver}", solver

    def prepared(self, data: Entities) -> list[tuple[FloatArray, FloatArray]]:
        return [_of_two_classes(*data.rows(e)) for e in range(data.count)]

    def fit(self, prepared: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
        model = LogisticRegression(C=1.0 / RIDGE, fit_intercept=False, solver=self.solver, tol=1e-4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # liblinear is to leave
            return np.array([model.fit(X, y).coef_[0] for X, y in prepared])

    def read(self, result: FloatArray) -> Fitted:
        return Fitted(result)


def _of_two_classes(X: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Labels of one class alone are refused: a row of zeros of the other one says nothing of any coefficient."""
    if len(np.unique(y)) > 1:
        return X, y
    return np.vstack([X, np.zeros(X.shape[1])]), np.append(y, 1.0 - y[0])


PEERS = [ScikitLearn(solver) for solver in ("lbfgs", "newton-cholesky", "liblinear")]
