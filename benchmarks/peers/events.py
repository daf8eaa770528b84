"""One event at a time: each finds its entity among those stored and moves its posterior by one row."""

from collections.abc import Callable

import numpy as np

from acclimate.arrays import Posterior
from acclimate.kernels.newton import Rows, room_for, solve
from benchmarks.peers.table import Table
from benchmarks.peers.turns import in_turns

WIDTH, EVENTS = 16, 100_000
LOGISTIC, FULL, DIAGONAL = 0, 0, 1  # numbers of the compiled loop


def measure(stored: int, *, rounds: int) -> Table:
    """Whole and diagonal precisions."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(10**9, stored, replace=False))
    who = ids[rng.integers(0, stored, EVENTS)]
    rows = Rows(
        X=rng.normal(size=(EVENTS, WIDTH)),
        y=rng.integers(0, 2, EVENTS).astype(np.float64),
        offset=np.zeros(EVENTS),
        weight=np.ones(EVENTS),
        order=np.arange(EVENTS),
        indptr=np.arange(EVENTS + 1),
    )
    shape = stored, WIDTH
    whole = Posterior(np.zeros(shape), np.tile(np.eye(WIDTH), (stored, 1, 1)))
    diagonal = Posterior(np.zeros(shape), np.ones(shape))
    source = np.ones(32_000_000)
    target = np.empty_like(source)
    works: dict[str, Callable[[], object]] = {
        "full": lambda: _learn(whole, FULL, rows, ids, who),
        "diagonal": lambda: _learn(diagonal, DIAGONAL, rows, ids, who),
        "look-up": lambda: np.searchsorted(ids, who),
        "copy": lambda: np.copyto(target, source),
    }
    seconds = {name: float(np.median(taken)) for name, taken in in_turns(works, rounds).items()}
    bandwidth = 2 * source.nbytes / seconds["copy"]
    table = Table(
        "Events one at a time",
        f"{EVENTS:,} events of {WIDTH} features, to the same tolerance, {stored:,} entities stored, one thread, "
        f"median of {rounds} rounds: CPU seconds, the look-up of each event's entity included (binary search). "
        f"Bytes are those of the state, read and written; a copy of {source.nbytes / 1e6:.0f} MB moves "
        f"{bandwidth / 1e9:.1f} GB/s, so that `most` is the rate if nothing but memory took time.",
        {
            "precision": "",
            "events a second": ",.0f",
            "without look-up": ",.0f",
            "bytes an event": ",",
            "GB/s": ".1f",
            "most": ",.0f",
        },
    )
    for name, numbers in (("full", WIDTH + WIDTH**2), ("diagonal", 2 * WIDTH)):
        rate, moved = EVENTS / seconds[name], 2 * 8 * numbers
        table.add(
            **{
                "precision": name,
                "events a second": rate,
                "without look-up": EVENTS / (seconds[name] - seconds["look-up"]),
                "bytes an event": moved,
                "GB/s": rate * moved / 1e9,
                "most": bandwidth / moved,
            }
        )
    return table


def _learn(posterior: Posterior, kept: int, rows: Rows, ids: np.ndarray, who: np.ndarray) -> None:
    """The events in their order; an entity that comes again learns again."""
    steps, decrement = np.zeros(EVENTS, np.int64), np.empty(EVENTS)
    state = posterior.mean, posterior.precision, np.searchsorted(ids, who), 0, EVENTS
    solve(rows, *state, LOGISTIC, kept, 1e-6, 50, steps, decrement, room_for(WIDTH, 1))
    if not (decrement <= 1e-6).all():
        raise RuntimeError("an event was not learned")
