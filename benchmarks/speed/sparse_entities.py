"""A user effect over 100,000 tags of which each user has met 30: bytes a user, a fit, an update beside many users.

Each is measured in a process of its own: CPU seconds, and the peak of its memory. Forty users of the fit have met
2,500 tags each, so that all tags are there. The users that are stored beside those of an update are made up, 31
coefficients each. The last lines are of states in float32 against those in float64, after the same updates.
"""

import itertools
import sys
import time
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import acclimate as ac
from acclimate.evaluate.metrics import log_loss
from benchmarks.speed import _children

TAGS, MET, OF_ROW, SEED = 100_000, 30, 5, 1
FITTED, STORED, EVENTS, TOUCHED, UPDATES = 10_000, 1_000_000, 100_000, 50_000, 50
States = Literal["float64", "float32"]
_HERE = "benchmarks.speed.sparse_entities"
"""Also where this is run by name."""
SCHEMA = ac.Schema(time="time", entities=["user"], labels="click", features={"tags": {"kind": "multi"}})


def main() -> None:
    heads = ("rows", 9), ("users", 9), ("CPU s", 7), ("peak GB", 8), ("states GB", 10), ("bytes a user", 13)
    print(f"{'':>16}", *(f"{head:>{width}}" for head, width in heads))
    for what, states in itertools.product(("fit", "update"), ("float64", "float32")):
        cost = _children.run(_HERE, what, states)
        rows, users, seconds, size = (cost.said[name] for name in ("rows", "users", "seconds", "bytes"))
        print(
            f"{f'{what}, {states}':>16} {rows:>9,.0f} {users:>9,.0f} {seconds:>7.1f} "
            f"{cost.peak_bytes / 1e9:>8.2f} {size / 1e9:>10.3f} {size / users:>13,.0f}",
            flush=True,
        )
    said = _children.run(_HERE, "compare", "both").said
    print(f"\nfloat32 against float64 after {UPDATES} updates of {said['rows']:,.0f} events:")
    print(f"posterior standard deviations: median {said['median']:.1e}, largest {said['largest']:.1e}")
    print(f"log-loss of {said['rows']:,.0f} later events: {said['log_loss']:.5f}, by {said['worse']:+.1e} more")


def met_by(users: NDArray[np.int64], tags: int) -> NDArray[np.int64]:
    """The tags that each user ever meets, ``(n, MET)``: by Zipf's law, the same in every batch."""
    found = np.empty((len(users), MET), np.int64)
    ends = np.cumsum(1.0 / np.arange(1, tags + 1))
    for place, user in enumerate(users.tolist()):
        rng, some = np.random.default_rng([SEED, user]), np.zeros(0, np.int64)
        while len(some) < MET:
            drawn = np.searchsorted(ends, rng.random(4 * MET) * ends[-1])
            some = np.unique(np.concatenate([some, drawn]))
        found[place] = np.sort(rng.permutation(some)[:MET])
    return found


def rows(users: NDArray[np.int64], *, seed: int, tags: int = TAGS, every: bool = False) -> ac.Events:
    """One row for each of these users, who may come often; with ``every``, others who meet all tags."""
    rng = np.random.default_rng([SEED, 2, seed])
    distinct, place = np.unique(users, return_inverse=True)
    met = met_by(distinct, tags)
    drawn = met[place[:, None], np.argsort(rng.random((len(users), MET)), axis=1)[:, :OF_ROW]]
    if every:
        drawn = np.concatenate([drawn, np.arange(tags).reshape(-1, OF_ROW)])
        users = np.concatenate([users, -1 - np.arange(tags // OF_ROW) // (2_500 // OF_ROW)])
    z = 0.5 * np.sin(7.0 * drawn + users[:, None]).sum(axis=1)
    names = pa.array([f"t{tag}" for tag in range(tags)])
    columns: dict[str, Any] = {
        "time": pa.array(1_700_000_000_000_000 + seed * 10**9 + np.arange(len(users)), pa.timestamp("us", "UTC")),
        "user": users,
        "tags": pa.FixedSizeListArray.from_arrays(names.take(drawn.ravel()), OF_ROW).cast(pa.list_(pa.string())),
        "click": (rng.random(len(users)) < 1.0 / (1.0 + np.exp(-z))).astype(np.int8),
    }
    return ac.read_events(pa.table(columns), SCHEMA).cached()


def model_of(states: States) -> ac.GLMix:
    """A fixed intercept, and what users like of tags."""
    return ac.GLMix(random=[ac.RandomEffect("user", ["tags"], support="observed")], states=states)


def fit(states: States) -> None:
    """On a part of the users, 30 rows each."""
    model, log = model_of(states), rows(np.repeat(np.arange(FITTED), 30), seed=0, every=True)
    begun = time.process_time()
    model.fit(log)
    told = {"seconds": time.process_time() - begun, "bytes": model.entities.nbytes}
    _children.tell(rows=log.count(), users=FITTED + 40, **told)


def update(states: States) -> None:
    """Of some of many users that are stored."""
    model = model_of(states).fit(rows(np.repeat(np.arange(200), 30), seed=0, every=True))
    rng, d = np.random.default_rng([SEED, 3]), MET + 1
    number = {name: place for place, name in enumerate(model.state.random[0].index.names)}
    columns = np.array([number[f"tags=t{tag}"] for tag in range(TAGS)])
    for first in range(0, STORED, 20_000):
        ids = np.arange(first, min(first + 20_000, STORED))
        n = len(ids)
        support = np.concatenate([np.zeros((n, 1), int), np.sort(columns[met_by(ids, TAGS)], axis=1)], axis=1)
        root = 0.2 * rng.normal(size=(n, d, d)).astype(np.float32)
        precision = root @ np.swapaxes(root, 1, 2) + 2.0 * np.eye(d)
        posterior = ac.Posterior(0.5 * rng.normal(size=(n, d)), precision)
        some = np.full(n, 20)
        held = ac.EntityStates(ids, posterior, np.full(n, model.cut), some, support.astype(np.int32))
        model.entities.commit({"user": (held,)})
    log = rows(np.repeat(rng.permutation(STORED)[:TOUCHED], EVENTS // TOUCHED), seed=1)
    begun = time.process_time()
    model.update(log)
    told = {"seconds": time.process_time() - begun, "bytes": model.entities.nbytes}
    _children.tell(rows=log.count(), users=STORED, **told)


def compare(_: str) -> None:
    """The same updates in both."""
    models = [model_of("float64"), model_of("float32")]
    users, rng = np.arange(500), np.random.default_rng([SEED, 4])
    for model in models:
        model.fit(rows(np.repeat(users, 5), seed=0, tags=300))
    for day in range(1, UPDATES + 1):
        log = rows(rng.integers(0, 500, 1_000), seed=day, tags=300)
        for model in models:
            model.update(log)
    exact, short = (model.states("user") for model in models)
    away = np.abs(exact.posterior.mean - short.posterior.mean) / exact.posterior.standard_deviation()
    away = away[exact.support >= 0]
    log = rows(rng.integers(0, 500, 1_000), seed=UPDATES + 1, tags=300)
    y = log.table(["click"])["click"].to_numpy()
    losses = [log_loss(y, model.predict(log)) for model in models]
    _children.tell(
        rows=1_000,
        median=float(np.median(away)),
        largest=float(away.max()),
        log_loss=losses[0],
        worse=losses[1] - losses[0],
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        {"fit": fit, "update": update, "compare": compare}[sys.argv[1]](sys.argv[2])
    else:
        main()
