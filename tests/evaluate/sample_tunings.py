"""A search among settings as it might have gone."""

from types import SimpleNamespace
from typing import Any

from acclimate.artifacts import Candidates, Comparison, Finalist, Trial, Tuning
from acclimate.evaluate.tuned import finalists


def trial(number: int, loss: float | None, ridge: float = 1.0, **other: Any) -> Trial:
    values = {"learners.r.fixed.ridge": ridge, "learners.r.fixed.features": ["a"]}
    state = "stopped" if loss is None else "complete"
    return Trial(number, values, state, loss, [0.0, -0.1], 1.0, **other)


TRIALS = [
    Trial(0, {}, "complete", 0.6, [0.0, 0.0], 1.0),
    *(trial(1, 0.55, 2.0), trial(2, None), trial(3, 0.5, 3.0), trial(4, 0.5, 3.0), trial(5, 0.55, 4.0)),
    Trial(6, {}, "failed", None, [], 0.1, "not allowed"),
]


def made(low: float, high: float, *, looks: int = 5, turned: bool = False) -> Finalist:
    sign = -1 if turned else 1
    arms, bounds = (("declared", "trial 3"), (-high, -low)) if turned else (("trial 3", "declared"), (low, high))
    report: Any = SimpleNamespace(
        settings={},
        arms={"trial 3": SimpleNamespace(log_loss=0.5, auc=0.7)},
        comparisons=[
            Comparison(*arms, "auc", 9.0, 9.0, 9.0),
            Comparison(*arms, "log_loss", sign * -0.1, *bounds),
        ],
    )
    changes = {"learners.r.fixed.ridge": (1.0, 3.0), "learners.r.fixed.features": (["a", "b"], ["a"])}
    return finalists(report, [TRIALS[3]], looks=looks, changes=lambda _: changes, options=lambda _: "--set x=1")[0]


def tuning(*best: Finalist) -> Tuning:
    candidates = [
        Candidates("learners.r.fixed.ridge", 1.0, None, 0.1, 10.0, True),
        Candidates("learners.r.fixed.features", ["a", "b"], [["a", "b"], ["a"]]),
    ]
    return Tuning("small", {"learner": "r", "start": "2024-01-01T"}, candidates, TRIALS, 0.6, 0.65, list(best))
