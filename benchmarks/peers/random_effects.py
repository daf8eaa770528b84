"""Many entities: each learns rows of its own, every peer the same ones, and every result is checked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from acclimate import update_posteriors
from acclimate.arrays import IntArray
from acclimate.kernels import newton
from benchmarks.peers.peer import Peer
from benchmarks.peers.table import Table
from benchmarks.peers.turns import in_turns, ratio
from benchmarks.peers.worlds import Entities, discrepancy, distance, exact, world, zipf

CHECKED = 300
"""Entities that are compared with their exact posteriors."""


@dataclass(frozen=True)
class World:
    """Sizes ``(n,)`` of entities of so many features."""

    name: str
    sizes: Callable[[int], IntArray]
    width: int

    def entities(self, count: int) -> Entities:
        """So many of them, always the same."""
        return world(self.sizes(count), self.width, seed=0)


WORLDS = [
    World("50 rows x 10", lambda n: np.full(n, 50), 10),
    World("50 rows x 32", lambda n: np.full(n, 50), 32),
    World("zipf rows x 10", lambda n: zipf(n, seed=1), 10),
]


@dataclass(frozen=True)
class Rates:
    """What the core does in a second at best: floating-point operations, and exponentials."""

    flops: float
    exponentials: float

    @staticmethod
    def measured(rounds: int) -> "Rates":
        """By a product of matrices, and by the faster of NumPy's exponential and that of the kernel."""
        A, lines = np.random.default_rng(0).normal(size=(512, 512)), np.zeros((8, 256))
        lines[3] = np.linspace(-8.0, 8.0, 256)
        z, bits = lines[3].copy(), lines.view(np.int64)
        works: dict[str, Callable[[], object]] = {
            "product": lambda: A @ A,
            "numpy": lambda: np.exp(z),
            "kernel": lambda: newton._exponentiate(lines, bits, 256),
        }
        best = {name: seconds.min() for name, seconds in in_turns(works, rounds).items()}
        return Rates(2 * 512**3 / best["product"], 256 / min(best["numpy"], best["kernel"]))

    def floor(self, data: Entities, steps: IntArray) -> float:
        """Entities a second if nothing but arithmetic took time.

        ``steps + 1`` times of each entity of ``n`` rows: ``d(d + 1) n`` operations of a Gram matrix, ``4 d n`` of
        margins and gradient, ``d^3/3 + 2 d^2`` of a root and two solutions, and ``n`` exponentials.
        """
        n, d = np.diff(data.indptr), data.width
        evaluations = steps + 1
        flops = evaluations * (n * (d * (d + 1) + 4 * d) + d**3 / 3 + 2 * d**2)
        return data.count / (flops.sum() / self.flops + (evaluations * n).sum() / self.exponentials)


def compare(peers: list[Peer], *, counts: list[int], rounds: int) -> Table:
    """One row for each world, number of entities and peer."""
    rates = Rates.measured(rounds)
    table = Table(
        "Random effects",
        f"Entities a CPU second, median of {rounds} rounds in turns, one thread. `times` is how many times faster "
        "acclimate is, median and quartiles over the rounds; `error` the worst distance from the exact optimum in "
        "posterior standard deviations, `precision` the largest relative difference from the exact one, where one "
        f"is returned. This core: {rates.flops / 1e9:.0f} GFLOP/s, {rates.exponentials / 1e6:.0f} million "
        "exponentials a second; the floor is `steps + 1` times `n(d(d+1) + 4d) + d³/3 + 2d²` operations and `n` "
        "exponentials an entity, `steps` those that acclimate takes.",
        {
            "world": "",
            "entities": ",",
            "method": "",
            "entities a second": ",.0f",
            "times": ".2f",
            "from": ".2f",
            "to": ".2f",
            "error": ".0e",
            "precision": ".0e",
        },
    )
    for w in WORLDS:
        for count in counts:
            some = [peer for peer in peers if _takes_part(peer, count)]
            _compare(table, w.name, w.entities(count), some, rounds=rounds, rates=rates)
    return table


def _takes_part(peer: Peer, count: int) -> bool:
    """Those of one entity after another cost each the same, so that few do."""
    return count <= 300 or peer.at_most >= count


def _compare(table: Table, name: str, data: Entities, peers: list[Peer], *, rounds: int, rates: Rates) -> None:
    truth = exact(data.first(CHECKED))
    parts = {peer.name: data.first(peer.at_most) for peer in peers}
    rows = {peer.name: peer.prepared(parts[peer.name]) for peer in peers}
    # Libraries are loaded by now, so that all of their threads are held.
    with threadpool_limits(1):
        works = {peer.name: (lambda peer=peer: peer.fit(rows[peer.name])) for peer in peers}
        seconds = {key: taken / parts[key].count for key, taken in in_turns(works, rounds).items()}
        ours = seconds[peers[0].name]
        for peer in peers:
            some = parts[peer.name].first(CHECKED)
            fitted = peer.read(peer.fit(peer.prepared(some)))
            part = truth.first(some.count)
            times, low, high = ratio(ours, seconds[peer.name])
            table.add(
                **{
                    "world": name,
                    "entities": data.count,
                    "method": peer.name,
                    "entities a second": float(1.0 / np.median(seconds[peer.name])),
                    "times": times,
                    "from": low,
                    "to": high,
                    "error": distance(fitted, part),
                    "precision": discrepancy(fitted, part),
                }
            )
    steps = update_posteriors(data.prior(), data.X, data.y, data.indptr, tolerance=1e-6)[1].steps
    floor = rates.floor(data, steps)
    cells = {"world": name, "entities": data.count, "method": "arithmetic floor", "entities a second": floor}
    table.add(**cells, times=1.0 / (floor * float(np.median(ours))))
