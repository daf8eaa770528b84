"""Vowpal Wabbit: one pass of online gradients over the rows, entities crossed with features. Not the optimum."""

from typing import Any

import numpy as np
from vowpalwabbit import Workspace

from benchmarks.peers.peer import Peer
from benchmarks.peers.worlds import Entities, Fitted


class VowpalWabbit(Peer):
    """Rows are text, as it reads them; reading that is timed, writing it is not."""

    name, error = "Vowpal Wabbit, one pass", np.inf

    def prepared(self, data: Entities) -> tuple[list[str], int, int]:
        entity = np.repeat(np.arange(data.count), np.diff(data.indptr))
        rows = [
            f"{1 if y else -1} |u {e} |x " + " ".join(f"{j}:{x:.6g}" for j, x in enumerate(features))
            for e, y, features in zip(entity, data.y, data.X, strict=True)
        ]
        return rows, data.count, data.width

    def fit(self, prepared: tuple[list[str], int, int]) -> tuple[Workspace, int, int]:
        rows, count, width = prepared
        arguments = "--quiet --loss_function logistic --noconstant -q ux --ignore_linear u --ignore_linear x -b 22"
        model = Workspace(arguments)
        for row in rows:
            model.learn(row)
        return model, count, width

    def read(self, result: Any) -> Fitted:
        """A coefficient is the margin of a row that has its feature alone."""
        model, count, width = result
        means = [[model.predict(f"|u {e} |x {j}:1") for j in range(width)] for e in range(count)]
        return Fitted(np.array(means))


PEERS = [VowpalWabbit()]
