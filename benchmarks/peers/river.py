"""river's logistic regression: gradients of one row after another, a model for each entity. Not the optimum."""

from typing import Any

import numpy as np
from river.linear_model import LogisticRegression

from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import Entities, Fitted


class River(Peer):
    """Rows are dictionaries, as it takes them."""

    name, error = "river, one pass", np.inf

    def prepared(self, data: Entities) -> list[list[tuple[dict[int, float], bool]]]:
        return [
            [(dict(enumerate(x)), bool(label)) for x, label in zip(X.tolist(), y, strict=True)]
            for X, y in (data.rows(e) for e in range(data.count))
        ]

    def fit(self, prepared: list[list[tuple[dict[int, float], bool]]]) -> list[LogisticRegression]:
        models = [LogisticRegression(intercept_lr=0.0) for _ in prepared]
        for model, rows in zip(models, prepared, strict=True):
            for x, y in rows:
                model.learn_one(x, y)
        return models

    def read(self, result: list[Any]) -> Fitted:
        return Fitted(np.array([list(dict(sorted(model.weights.items())).values()) for model in result]))


PEERS = [River()]
