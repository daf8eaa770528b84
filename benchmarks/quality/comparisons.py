"""How often a 95 % interval of a difference holds the truth where users and items both vary.

``python -m benchmarks.quality.comparisons [--simulations 400] [--alternatives]``

Two arms predict the logits of a world with users, items and noise of single rows, each off by errors of its own:
of users (standard deviation ``u``), of items (``i``) and of rows (``e``). In each simulation users, items, what
they meet and what they do are drawn anew; the truth is the mean difference over a great many of these. Told are
the share of simulations whose interval holds it, with its own 95 % interval (Wilson), and the mean width of
intervals over one that would be just right: 3.92 standard deviations of the difference over simulations. Items are
popular by a power of their rank, and so are users where it says so. With ``--alternatives`` the same of the AUC by
bootstraps, in the first three worlds: users alone; users x items, each drawn by itself and multiplied (the
pigeonhole bootstrap of Owen 2007); and the variance over users, and over items, less that over pairs of both.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest

from acclimate.evaluate import metrics
from acclimate.evaluate.comparisons import compare

MORE, RESAMPLES = 2000, 200
METRICS = ("log_loss", "auc", "gauc", "calibration_error")


@dataclass(frozen=True)
class World:
    """Errors of users, items and rows; how many there are; powers of popularity; the level; days of a log."""

    errors: tuple[float, float, float]
    users: int = 300
    items: int = 60
    rows: int = 3000
    popular: tuple[float, float] = (0.0, 0.7)
    level: float = -0.5
    days: int = 1


USERS, ITEMS, BOTH, MIXED, ROWS = (
    (0.6, 0.0, 0.2),
    (0.0, 0.6, 0.2),
    (0.5, 0.5, 0.0),
    (0.3, 0.3, 0.6),
    (0.0, 0.0, 0.8),
)
NAMED = {"users": USERS, "items": ITEMS, "both": BOTH, "both and rows": MIXED, "rows": ROWS}
WORLDS = {
    **{f"{name}; 300 x 60": World(errors) for name, errors in NAMED.items()},
    **{
        f"{name}; 1000 x 300, an item of 1,100 rows": World(errors, 1000, 300, 6000, (0.7, 1.1))
        for name, errors in NAMED.items()
    },
    **{
        f"{name}; 1500 x 1000, one in nine positive, 4 days": World(
            errors, 1500, 1000, 12_000, (0.5, 0.7), -2.2, 4
        )
        for name, errors in NAMED.items()
    },
}


@dataclass(frozen=True)
class Log:
    """Labels ``(n,)``, what two arms predict ``(n, 2)``, users, items and days ``(n,)``."""

    y: np.ndarray
    p: np.ndarray
    user: np.ndarray
    item: np.ndarray
    day: np.ndarray


def drawn(rng: np.random.Generator, world: World) -> Log:
    """One log of the world."""
    user, item = (
        rng.choice(count, world.rows, p=popular / popular.sum())
        for count, power in zip((world.users, world.items), world.popular, strict=True)
        for popular in [1.0 / np.arange(1, count + 1) ** power]
    )
    z = world.level + rng.normal(0, 0.8, world.users)[user] + rng.normal(0, 0.8, world.items)[item]
    u, i, e = world.errors
    off = [
        part * (u * rng.normal(0, 1, world.users)[user] + i * rng.normal(0, 1, world.items)[item])
        + part * e * rng.normal(0, 1, world.rows)
        for part in (1.0, 0.5)
    ]
    y = (rng.random(world.rows) < expit(z)).astype(float)
    return Log(y, expit(z[:, None] + np.stack(off, axis=1)), user, item, rng.integers(0, world.days, world.rows))


def logs(seed: int, count: int, world: World) -> Iterator[Log]:
    """So many of them."""
    rng = np.random.default_rng(seed)
    return (drawn(rng, world) for _ in range(count))


def differences(log: Log, *, crossed: bool) -> dict[str, tuple[float, float, float]]:
    """Of each metric the difference and its interval."""
    found = compare(
        ("one", "other"), log.y, log.p, log.user, window=log.day, crossed=log.item if crossed else None
    )
    return {c.metric: (c.difference, c.low, c.high) for c in found}


def bootstraps(log: Log, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Intervals of the difference of AUC by three ways to draw."""

    def difference(weight: np.ndarray | None = None) -> float:
        one, other = (metrics.auc(log.y, p, weight) or np.nan for p in log.p.T)
        return one - other

    entities = [
        np.unique(codes, return_inverse=True)[1] for codes in (log.user, log.item, log.user * 10_000 + log.item)
    ]
    found: dict[str, list[float]] = {"users": [], "items": [], "pairs": [], "users x items": []}
    for _ in range(RESAMPLES):
        user, item, pair = (
            np.bincount(rng.integers(0, count, count), minlength=count)[codes].astype(float)
            for codes in entities
            for count in [int(codes.max()) + 1]
        )
        for name, weight in zip(found, (user, item, pair, user * item), strict=True):
            found[name].append(difference(weight))
    variances = {name: float(np.nanvar(values, ddof=1)) for name, values in found.items()}
    half = 1.96 * np.sqrt(variances["users"] + max(variances["items"] - variances["pairs"], 0.0))
    middle = difference()
    percentiles = {name: tuple(np.nanpercentile(found[name], [2.5, 97.5])) for name in ("users", "users x items")}
    return percentiles | {"users + items - pairs": (middle - half, middle + half)}


def told(intervals: list[tuple[float, float]], truth: float, sd: float) -> str:
    """Coverage with its interval, and relative width."""
    low, high = np.array(intervals).T
    inside = int(np.sum((low <= truth) & (truth <= high)))
    share = binomtest(inside, len(low)).proportion_ci(method="wilson")
    width = (high - low).mean() / (3.92 * sd)
    return f"{inside / len(low):.3f} [{share.low:.3f}, {share.high:.3f}], width {width:.2f}"


def main() -> None:
    """One line for each world, metric and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--alternatives", action="store_true")
    asked = parser.parse_args()
    for name, world in list(WORLDS.items())[: 3 if asked.alternatives else None]:
        plain = [differences(log, crossed=False) for log in logs(1, MORE, world)]
        values = {m: [d[m][0] for d in plain] for m in METRICS}
        truth, sd = ({m: f(values[m]) for m in METRICS} for f in (np.mean, np.std))
        drawn_logs = list(logs(2, asked.simulations, world))
        if asked.alternatives:
            rng = np.random.default_rng(3)
            found = [bootstraps(log, rng) for log in drawn_logs]
            for way in found[0]:
                line = told([one[way] for one in found], truth["auc"], sd["auc"])
                print(f"{name} | auc, bootstrap over {way} | {line}", flush=True)
            continue
        for crossed in (False, True):
            said = [differences(log, crossed=crossed) for log in drawn_logs]
            for m in METRICS:
                line = told([d[m][1:] for d in said], truth[m], sd[m])
                print(f"{name} | {m}, {'users and items' if crossed else 'users alone'} | {line}", flush=True)


if __name__ == "__main__":
    main()
