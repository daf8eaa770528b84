"""What an anchored update of a network costs over plain fine-tuning on the same rows, and what of it.

python -m benchmarks.speed.networks
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

import acclimate as ac
from acclimate.learners.network import laplace, learning

RUNS = 7
PARTS: dict[str, tuple[type, str]] = {
    "steps": (learning, "train"),
    "curvature": (laplace.Objective, "curvature"),
    "judging": (laplace.Objective, "mean_loss"),
    "temperature": (learning.Learning, "_temperature"),
}


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """The seconds that each part takes meanwhile."""
    originals = {name: getattr(home, attribute) for name, (home, attribute) in PARTS.items()}

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*values: object, **named: object) -> object:
            began = time.perf_counter()
            result = function(*values, **named)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
            return result

        return run

    for name, (home, attribute) in PARTS.items():
        setattr(home, attribute, counted(name, originals[name]))
    try:
        yield
    finally:
        for name, (home, attribute) in PARTS.items():
            setattr(home, attribute, originals[name])


def spent(model: ac.SequentialLaplace, verb: str, events: ac.Events) -> tuple[float, dict[str, float]]:
    """Seconds of a verb on a copy of the model, and of its parts."""
    learner, parts = copy.deepcopy(model), dict[str, float]()
    began = time.perf_counter()
    with timed(parts):
        getattr(learner, verb)(events)
    return time.perf_counter() - began, parts


def main() -> None:
    """Print seconds, and each part as a share of fine-tuning."""
    world = ac.simulate(users=20_000, items=2_000, events_per_day=50_000, days=6, seed=0).cached()
    last = world.describe().last
    assert last is not None
    past, window = world.before(last.date().isoformat()), world.after(last.date().isoformat()).cached()
    for ranker in ("wide-and-deep", "dcn-v2"):
        model = ac.SequentialLaplace(
            features=["user_id", "item_id", "surface", "position", "topics", "duration"], ranker=ranker
        ).fit(past)
        plain, anchored = [], []
        for _ in range(RUNS):  # in pairs: whatever else the machine does, it does to both
            plain.append(spent(model, "fine_tune", window))
            anchored.append(spent(model, "update", window))
        base = float(np.median([seconds for seconds, _ in plain]))
        ratio = float(np.median([a / b for (a, _), (b, _) in zip(anchored, plain, strict=True)]))
        print(f"{ranker}: {window.count():,} rows, fine-tuning {base:.3f} s, an update {ratio:.2f} of it")
        for name in PARTS:
            share = np.median([parts.get(name, 0.0) for _, parts in anchored]) / base
            same = np.median([parts.get(name, 0.0) for _, parts in plain]) / base
            print(f"  {name:12} {share:.2f}  (of fine-tuning {same:.2f})")


if __name__ == "__main__":
    main()
