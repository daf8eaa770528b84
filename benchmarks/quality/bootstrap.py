"""How often a 95 % interval of a difference holds the truth where users and items both vary.

python -m benchmarks.quality.bootstrap

Two arms predict the logits of a world with users, items and noise of single rows, each off by errors of its own:
of users (standard deviation ``u``), of items (``i``) and of rows (``e``). In each simulation users, items, what
they meet and what they do are drawn anew; the truth is the mean difference over a great many of these. Told are
the share of simulations whose interval holds it, with its own 95 % interval (Wilson), and the mean width of
intervals over one that would be just right: 3.92 standard deviations of the difference over simulations.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest

from acclimate.evaluate.bootstrap import compare

SIMULATIONS, MORE, RESAMPLES = 300, 2000, 200
USERS, ITEMS, ROWS = 300, 60, 3000
WORLDS = {
    "users vary": (0.6, 0.0, 0.0),
    "both vary": (0.5, 0.5, 0.0),
    "both and rows": (0.3, 0.3, 0.6),
    "rows alone": (0.0, 0.0, 0.8),
}
METRICS = ("auc", "gauc", "log_loss")


class Log(NamedTuple):
    """Labels ``(n,)``, what two arms predict ``(n, 2)``, users and items ``(n,)``."""

    y: np.ndarray
    p: np.ndarray
    user: np.ndarray
    item: np.ndarray


def drawn(rng: np.random.Generator, u: float, i: float, e: float) -> Log:
    """One world: few users and items are in many of the rows, most in few."""
    popular = 1.0 / np.arange(1, ITEMS + 1) ** 0.7
    user, item = rng.integers(0, USERS, ROWS), rng.choice(ITEMS, ROWS, p=popular / popular.sum())
    z = -0.5 + rng.normal(0, 0.8, USERS)[user] + rng.normal(0, 0.8, ITEMS)[item]
    off = [
        size * rng.normal(0, 1, USERS)[user] + scale * rng.normal(0, 1, ITEMS)[item] + e * rng.normal(0, 1, ROWS)
        for size, scale in ((u, i), (0.5 * u, 0.5 * i))
    ]
    y = (rng.random(ROWS) < expit(z)).astype(float)
    return Log(y, expit(z[:, None] + np.stack(off, axis=1)), user, item)


def worlds(seed: int, count: int, sizes: tuple[float, float, float]) -> Iterator[Log]:
    """So many of them."""
    rng = np.random.default_rng(seed)
    return (drawn(rng, *sizes) for _ in range(count))


def differences(
    log: Log, resamples: int, *, crossed: bool, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Of each metric the difference and its interval."""
    found = compare(
        ("one", "other"),
        log.y,
        log.p,
        log.user,
        window=np.zeros(len(log.y), np.int64),
        crossed=[log.item] if crossed else [],
        resamples=resamples,
        seed=seed,
    )
    return {c.metric: (c.difference, c.low, c.high) for c in found if c.metric in METRICS}


def main() -> None:
    """One line for each world, metric and way to draw."""
    for world, sizes in WORLDS.items():
        plain = [differences(log, 1, crossed=False) for log in worlds(1, MORE, sizes)]
        truth = {m: np.mean([d[m][0] for d in plain]) for m in METRICS}
        sd = {m: np.std([d[m][0] for d in plain]) for m in METRICS}
        logs = list(worlds(2, SIMULATIONS, sizes))
        for crossed in (False, True):
            told = [differences(log, RESAMPLES, crossed=crossed, seed=s) for s, log in enumerate(logs)]
            for m in (m for m in METRICS if sd[m] > 0):  # errors of users leave GAUC as it is
                low, high = np.array([d[m][1:] for d in told]).T
                inside = int(np.sum((low <= truth[m]) & (truth[m] <= high)))
                share = binomtest(inside, SIMULATIONS).proportion_ci(method="wilson")
                width = (high - low).mean() / (3.92 * sd[m])
                way = "users x items" if crossed else "users alone"
                print(
                    f"{world:14} {m:9} {way:14} holds the truth {inside / SIMULATIONS:.3f} "
                    f"[{share.low:.3f}, {share.high:.3f}], width {width:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
