"""How sure a GLMix is, how sure it may be, and what integrating over that gains.

``python -m benchmarks.quality.intervals [--seeds 20] [--worlds ...] [--approximation variational]``. Ten days of
rows are fitted, ten more are learned by updates. Of both it says how the standard deviations of coefficients and
of new rows' margins compare with those of the joint posterior of all effects on all rows (written out, at its mode
and the population that was learned), their z-scores and how often intervals of 95 % hold the truth; and the regret
(1e-4 nats a row) of predictions at the means and integrated.
"""

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

import acclimate as ac
from acclimate.arrays import Posterior
from benchmarks.quality.effects_world import events_of, interval, regret

FIRST, DAYS, TESTED = 10, 20, 2000
"""Days of the fit and in all; rows that are predicted, of users that are known and of new ones."""

BETA = np.array([-0.5, 0.7, -0.4])
"""Of the level, ``x`` and ``g``."""

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class World:
    """``rows`` a user and day on average; ``sd`` of users' level and taste for ``x``; items of levels, if any.

    ``profile``: ``g``, which the fixed effect alone has, is a user's own number rather than a row's.
    """

    users: int = 150
    rows: float = 0.5
    sd: tuple[float, float] = (1.0, 0.5)
    items: int = 0
    item_sd: float = 0.7
    profile: bool = False

    def model(self, approximation: str) -> ac.GLMix:
        """Not fitted yet."""
        user = ac.RandomEffect("user", ["x"])
        random = [user, "item"] if self.items else [user]
        return ac.GLMix(fixed=["x", "g"], random=random, approximation=approximation)


WORLDS = {
    "few rows": World(),
    "many rows": World(rows=3.0),
    "users alike": World(sd=(0.3, 0.3)),
    "users far apart": World(sd=(2.0, 1.0)),
    "40 users": World(users=40, rows=3.0),
    "a profile": World(profile=True),
    "crossed with 30 items": World(rows=1.0, items=30),
}


class Truth:
    """The coefficients of a world, and rows drawn from it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.users = np.array(world.sd) * self.rng.standard_normal((2 * world.users, 2))  # the second half is new
        self.items = world.item_sd * self.rng.standard_normal((world.items, 1))
        self.own = self.rng.standard_normal(2 * world.users)

    def rows(self, user: np.ndarray, day: np.ndarray) -> Columns:
        """Columns of events, features and labels drawn."""
        g = self.own[user] if self.world.profile else self.rng.standard_normal(len(user))
        columns = {"day": day, "user": user, "x": self.rng.standard_normal(len(user)), "g": g}
        if self.world.items:
            columns["item"] = self.rng.integers(0, self.world.items, len(user))
        columns["click"] = (self.rng.random(len(user)) < expit(self.margin(columns))).astype(int)
        return columns

    def margin(self, columns: Columns) -> np.ndarray:
        """The true margins, ``(n,)``."""
        F, Z = fixed_rows(columns), user_rows(columns)
        z = F @ BETA + np.vecdot(Z, self.users[columns["user"]])
        return z + self.items[columns["item"], 0] if self.world.items else z

    def days(self, first: int, last: int) -> Columns:
        """Rows of the users that are known, by day."""
        count = self.world.users * (last - first)
        day, user = (
            np.repeat(np.arange(first, last), self.world.users),
            np.tile(np.arange(self.world.users), last - first),
        )
        each = self.rng.poisson(self.world.rows, count)
        return self.rows(np.repeat(user, each), np.repeat(day, each))


def fixed_rows(columns: Columns) -> np.ndarray:
    return np.column_stack([np.ones(len(columns["x"])), columns["x"], columns["g"]])


def user_rows(columns: Columns) -> np.ndarray:
    return fixed_rows(columns)[:, :2]


class Joint:
    """The posterior of all coefficients together, written out: fixed effect, users, items."""

    def __init__(self, world: World, model: ac.GLMix, columns: Columns) -> None:
        state = model.state
        assert state is not None
        self.users, self.items = world.users, world.items
        base, populations = state.fixed.population, [effect.population for effect in state.random]
        counts = [world.users, world.items][: len(populations)]
        P = [
            base.P.full().array,
            *(q.P.full().array for q, n in zip(populations, counts, strict=True) for _ in range(n)),
        ]
        m = np.concatenate([base.mean, *(np.tile(q.mean, n) for q, n in zip(populations, counts, strict=True))])
        self.H = np.zeros((len(m), len(m)))
        first = 0
        for block in P:
            self.H[first : first + len(block), first : first + len(block)] = block
            first += len(block)
        X, y, prior = self.design(columns), columns["click"], self.H.copy()
        self.mean = m.copy()
        for _ in range(30):
            p = expit(X @ self.mean)
            self.H = prior + (X * (p * (1.0 - p))[:, None]).T @ X
            self.mean -= np.linalg.solve(self.H, X.T @ (p - y) + prior @ (self.mean - m))
        self.S = np.linalg.inv(self.H)
        self.population = populations[0]

    def design(self, columns: Columns) -> np.ndarray:
        """Rows ``(n, d)`` over all coefficients; of users that are not known the fixed effect and items alone."""
        n = len(columns["x"])
        X = np.zeros((n, 3 + 2 * self.users + self.items))
        X[:, :3] = fixed_rows(columns)
        known = np.flatnonzero(columns["user"] < self.users)
        for j in range(2):
            X[known, 3 + 2 * columns["user"][known] + j] = user_rows(columns)[known, j]
        if self.items:
            X[np.arange(n), 3 + 2 * self.users + columns["item"]] = 1.0
        return X

    def margin(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each row's margin."""
        X, new = self.design(columns), columns["user"] >= self.users
        Z = np.where(new[:, None], user_rows(columns), 0.0)
        mean = X @ self.mean + Z @ self.population.mean
        return mean, np.vecdot(X @ self.S, X) + np.vecdot(Z @ self.population.covariance(), Z)


def said(model: ac.GLMix, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row's margin as the model has them."""
    state = model.state
    assert state is not None
    mean, variance = quadratic(state.fixed_posterior, fixed_rows(columns), np.zeros(len(columns["x"]), int))
    for effect, Z in zip(state.random, [user_rows(columns), np.ones((len(mean), 1))], strict=False):
        ids = columns[effect.name]
        states = effect.now(model.entities.take(effect.name, ids, effect.base))
        more = quadratic(states.posterior, Z, np.arange(len(ids)))
        mean, variance = mean + more[0], variance + more[1]
    return mean, variance


def quadratic(posterior: Posterior, X: np.ndarray, entity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    S = Posterior(posterior.mean, posterior.P.full().array).covariance()[entity]
    return np.vecdot(X, posterior.mean[entity]), np.vecdot(np.matvec(S, X), X)


def figures(world: World, model: ac.GLMix, truth: Truth, learned: Columns, tests: list[Columns]) -> list[float]:
    """In the order of ``HEADS``; z-scores are root mean squares."""
    state = model.state
    assert state is not None
    joint, fixed = Joint(world, model, learned), state.fixed_posterior.at(0)
    sd, moved = fixed.standard_deviation(), np.append(state.random[0].population.mean, 0.0)
    if world.items:
        moved[0] += state.random[1].population.mean[0]
    z = (fixed.mean + moved - BETA) / sd
    ratio = sd / np.sqrt(np.diag(joint.S)[:3])
    users = model.states("user")
    z_user = (users.posterior.mean - truth.users[users.ids]) / users.posterior.standard_deviation()
    found = [
        *ratio,
        *(np.abs(z) < 1.96).astype(float),
        float(np.mean(z**2)),
        float(np.mean(np.abs(z_user) < 1.96)),
    ]
    for rows in tests:
        mean, variance = said(model, rows)
        true = truth.margin(rows)
        found += [
            float(np.mean(np.sqrt(variance / joint.margin(rows)[1]))),
            float(np.mean(np.abs(mean - true) < norm.ppf(0.975) * np.sqrt(variance))),
        ]
        events, p = events_of(rows), expit(true)
        found += [regret(model.predict(events), p), regret(model.predict(events, mode="integrated"), p)]
    return found


HEADS = [
    *(f"sd ratio {name}" for name in ("level", "x", "g")),
    *(f"coverage {name}" for name in ("level", "x", "g")),
    "z^2",
    "coverage users",
    *(
        f"{who} {what}"
        for who in ("warm", "cold")
        for what in ("margin sd ratio", "margin coverage", "regret point", "regret integrated")
    ),
    "seconds",
]


def run(world: World, approximation: str, seed: int) -> tuple[list[float], list[float]]:
    """The figures after a fit, and after ten updates more."""
    truth = Truth(world, seed)
    days = [truth.days(first, last) for first, last in [(0, FIRST), *((d, d + 1) for d in range(FIRST, DAYS))]]
    last = np.full(TESTED, DAYS)
    tests = [truth.rows(truth.rng.integers(0, world.users, TESTED) + new, last) for new in (0, world.users)]
    start = time.process_time()
    model = world.model(approximation).fit(events_of(days[0]))
    seconds = time.process_time() - start
    fitted = [*figures(world, model, truth, days[0], tests), seconds]
    seconds = 0.0
    for day in days[1:]:
        events = events_of(day)
        start = time.process_time()
        model.update(events)
        seconds += time.process_time() - start
    columns = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
    return fitted, [*figures(world, model, truth, columns, tests), seconds / (DAYS - FIRST)]


def main() -> None:
    """Print a table a world: means over seeds with 95 % intervals, after the fit and after the updates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--approximation", choices=["laplace", "variational"], default="laplace")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in asked.worlds:
        found = np.array([run(WORLDS[name], asked.approximation, seed) for seed in range(asked.seeds)])
        print(f"\n{name}\n\n| figure | fit | updates |\n| --- | --- | --- |")
        for k, head in enumerate(HEADS):
            digits = 0 if "regret" in head else 3 if head == "seconds" else 2
            print(
                f"| {head} | {interval(found[:, 0, k], digits)} | {interval(found[:, 1, k], digits)} |", flush=True
            )
        for mode, k in (("warm", 10), ("cold", 14)):
            change = found[:, :, k + 1] - found[:, :, k]
            cells = " | ".join(interval(column, 1) for column in change.T)
            print(f"| {mode} regret, integrated less point | {cells} |", flush=True)


if __name__ == "__main__":
    main()
