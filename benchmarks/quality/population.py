"""How well a GLMix learns the population that its entities come from, and what a wrong one costs.

``python -m benchmarks.quality.population [--seeds 20]``: variances learned over those that were drawn, by rows per
entity, form of the effects, starting ridge, with crossed effects; few entities of many features against a plain
ridge.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.special import expit

import acclimate as ac
from benchmarks.quality.effects_world import events_of, interval, regret


def drawn(rng: np.random.Generator, size: int, *, heavy: bool) -> np.ndarray:
    """Effects of unit variance: normal, or Student's t with 5 degrees of freedom."""
    return rng.standard_t(5, size) / np.sqrt(5 / 3) if heavy else rng.standard_normal(size)


def variance_ratio(
    variance: float, rows: int, *, heavy: bool = False, ridge: float = 1.0, seed: int, users: int = 600
) -> float:
    """The variance of users' levels as it is learned, over that of the levels that were drawn."""
    rng = np.random.default_rng(seed)
    level = np.sqrt(variance) * drawn(rng, users, heavy=heavy)
    user = np.repeat(np.arange(users), rows)
    click = (rng.random(len(user)) < expit(-0.5 + level[user])).astype(int)
    events = events_of({"day": np.zeros(len(user), np.int64), "user": user, "click": click})
    model = ac.GLMix(random=[ac.RandomEffect("user", ridge=ridge)]).fit(events)
    return learned(model, 0) / float(np.mean((level - level.mean()) ** 2))


def crossed_ratios(rows: int, *, seed: int, users: int = 600) -> list[float]:
    """The same of users and items that meet at random, users of variance 1 and items of .5, as many rows each."""
    rng = np.random.default_rng(seed)
    levels = np.sqrt([[1.0], [0.5]]) * rng.standard_normal((2, users))
    user = np.repeat(np.arange(users), rows)
    item = rng.permutation(user)
    click = (rng.random(len(user)) < expit(-0.5 + levels[0, user] + levels[1, item])).astype(int)
    events = events_of({"day": np.zeros(len(user), np.int64), "user": user, "item": item, "click": click})
    model = ac.GLMix(random=["user", "item"]).fit(events)
    return [learned(model, k) / float(np.var(levels[k])) for k in range(2)]


def slope_ratios(rows: int, *, seed: int, users: int = 600) -> list[float]:
    """The variances of level and two correlated slopes (1, .5 and .25) over the truth."""
    rng = np.random.default_rng(seed)
    C = np.diag([1.0, 0.5, 0.25]) + np.array([[0, 0.3, 0], [0.3, 0, 0.1], [0, 0.1, 0]])
    w = rng.multivariate_normal(np.zeros(3), C, users)
    user = np.repeat(np.arange(users), rows)
    X = rng.standard_normal((len(user), 2))
    z = -0.5 + w[user, 0] + np.vecdot(X, w[user, 1:])
    click = (rng.random(len(user)) < expit(z)).astype(int)
    columns = {"day": np.zeros(len(user), np.int64), "user": user, "click": click, "x0": X[:, 0], "x1": X[:, 1]}
    names = ["x0", "x1"]
    model = ac.GLMix(fixed=names, random=[ac.RandomEffect("user", names)]).fit(events_of(columns))
    assert model.state is not None
    return list(np.diag(model.state.random[0].population.covariance()) / np.diag(C))


def learned(model: ac.GLMix, effect: int) -> float:
    assert model.state is not None
    return float(model.state.random[effect].population.covariance()[0, 0])


def few_entities(users: int, features: int, *, learn: bool, seed: int, rows: int = 50) -> float:
    """Regret on new rows of the same users, whose coefficients have variance 1 in all (plus that of a level)."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((users, features + 1)) * np.sqrt([0.5, *[1.0 / features] * features])
    names = [f"x{j}" for j in range(features)]

    def world(each: int) -> tuple[ac.Events, np.ndarray]:
        user = np.repeat(np.arange(users), each)
        X = rng.standard_normal((len(user), features))
        p = expit(-0.5 + w[user, 0] + np.vecdot(X, w[user, 1:]))
        click = (rng.random(len(p)) < p).astype(int)
        return events_of(
            {
                "day": np.zeros(len(user), np.int64),
                "user": user,
                "click": click,
                **dict(zip(names, X.T, strict=True)),
            }
        ), p

    model = ac.GLMix(fixed=names, random=[ac.RandomEffect("user", names)], learn_population=learn)
    model.fit(world(rows)[0])
    events, truth = world(400)
    return regret(np.clip(model.predict(events), 1e-12, 1 - 1e-12), truth)


def line(name: str, seeds: int, one: Callable[[int], float | list[float]], digits: int = 2) -> None:
    start = time.process_time()
    values = np.array([np.atleast_1d(one(seed)) for seed in range(seeds)])
    cells = " | ".join(interval(column, digits) for column in values.T)
    print(f"| {name} | {cells} | {(time.process_time() - start) / seeds:.2f} |", flush=True)


def main() -> None:
    """Print a line a setting: mean over seeds with 95 % intervals, and CPU seconds of one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore")
    print("variance of 600 users' levels, learned over true\n")
    for variance in (0.25, 1.0, 4.0):
        for rows in (3, 5, 10, 50):
            line(
                f"normal {variance}, {rows} rows",
                seeds,
                lambda s, v=variance, r=rows: variance_ratio(v, r, seed=s),
            )
    for rows in (3, 5, 10, 50):
        line(f"t5 1.0, {rows} rows", seeds, lambda s, r=rows: variance_ratio(1.0, r, heavy=True, seed=s))
    for rows in (3, 10):
        for ridge in (0.1, 1.0, 100.0):
            line(
                f"normal 0.25, {rows} rows, ridge {ridge:g}",
                seeds,
                lambda s, r=rows, q=ridge: variance_ratio(0.25, r, ridge=q, users=200, seed=s),
            )
    for rows in (3, 5, 10, 50):
        line(f"crossed users 1, items .5, {rows} rows each", seeds, lambda s, r=rows: crossed_ratios(r, seed=s))
    for rows in (5, 10, 50):
        line(f"level 1, slopes .5 and .25, {rows} rows", seeds, lambda s, r=rows: slope_ratios(r, seed=s))
    print("\nregret in 1e-4 nats of few entities, 50 rows each: population learned, plain ridge\n")
    for users in (3, 10, 30, 100):
        for features in (2, 20):
            line(
                f"{users} entities x {features} features",
                seeds,
                lambda s, u=users, f=features: [few_entities(u, f, learn=on, seed=s) for on in (True, False)],
                0,
            )


if __name__ == "__main__":
    main()
