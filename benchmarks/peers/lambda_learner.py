"""lambda-learner: L-BFGS and the whole Hessian of one entity after another, stopped where its defaults stop."""

import warnings
from typing import Any

import numpy as np
from linkedin.learner.ds.indexed_dataset import IndexedDataset
from linkedin.learner.ds.indexed_model import IndexedModel
from linkedin.learner.prediction.hessian_type import HessianType
from linkedin.learner.prediction.trainer_sequential_bayesian_logistic_loss_with_l2 import (
    TrainerSequentialBayesianLogisticLossWithL2,
)
from scipy import sparse

from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import RIDGE, Entities, Fitted


class LambdaLearner(Peer):
    """Nothing is forgotten."""

    name, error = "lambda-learner", 1e-2

    def prepared(self, data: Entities) -> list[IndexedDataset]:
        rows = (data.rows(e) for e in range(data.count))
        return [
            IndexedDataset(sparse.csr_matrix(X), 2.0 * y - 1.0, np.ones(len(y)), np.zeros(len(y))) for X, y in rows
        ]

    def fit(self, prepared: list[IndexedDataset]) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # an option of SciPy's that no longer does anything
            return [self._updated(rows) for rows in prepared]

    def _updated(self, rows: IndexedDataset) -> Any:
        d = rows.num_features
        prior = IndexedModel(np.zeros(d), sparse.diags([np.full(d, RIDGE)], [0]).tocsc())
        trainer = TrainerSequentialBayesianLogisticLossWithL2(
            training_data=rows, initial_model=prior, hessian_type=HessianType.FULL, delta=1.0
        )
        return trainer.train()[0]

    def read(self, result: list[Any]) -> Fitted:
        means = np.array([model.theta for model in result])
        return Fitted(means, np.array([model.hessian.toarray() for model in result]))


PEERS = [LambdaLearner()]
