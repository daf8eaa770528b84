"""All entities by one thread and by all of them, in seconds of the wall clock."""

import time

import numba
import numpy as np

from acclimate import update_posteriors
from benchmarks.peers.random_effects import WORLDS
from benchmarks.peers.table import Table
from benchmarks.peers.turns import in_turns, ratio


def compare(threads: int, *, count: int, rounds: int) -> Table:
    """One row for each world."""
    table = Table(
        "Threads",
        f"Wall-clock seconds to update {count:,} entities by one thread and by {threads}, medians of {rounds} "
        "rounds in turns; median and quartiles of how many times faster all are. `CPU`: the CPU seconds of all "
        "over those of one, 1 if nothing is lost where each thread has an idle core. `same`: to the last digit.",
        {
            "world": "",
            "one": ".3f",
            "all": ".3f",
            "times": ".2f",
            "from": ".2f",
            "to": ".2f",
            "CPU": ".2f",
            "same": "",
        },
    )
    for w in WORLDS:
        data = w.entities(count)
        prior = data.prior()

        def update(n: int, data=data, prior=prior):
            numba.set_num_threads(n)
            return update_posteriors(prior, data.X, data.y, data.indptr, tolerance=1e-6)[0]

        works = {"one": lambda update=update: update(1), "all": lambda update=update: update(threads)}
        seconds, spent = in_turns(works, rounds, time.perf_counter), in_turns(works, rounds)
        alone, together = update(1), update(threads)
        same = np.array_equal(alone.mean, together.mean) and np.array_equal(alone.precision, together.precision)
        times, low, high = ratio(seconds["all"], seconds["one"])
        medians = {key: float(np.median(taken)) for key, taken in seconds.items()}
        cpu = 1.0 / ratio(spent["all"], spent["one"])[0]
        table.add(
            world=w.name,
            **medians,
            times=times,
            **{"from": low, "to": high},
            CPU=cpu,
            same="yes" if same else "no",
        )
    numba.set_num_threads(1)
    return table
