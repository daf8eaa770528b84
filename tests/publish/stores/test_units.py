"""Learners in units of a store learn as in memory."""

import numpy as np
import pyarrow as pa

import acclimate as ac
from acclimate.artifacts import Space
from acclimate.learners.carried import Carried
from acclimate.publish.stores import open_store
from acclimate.publish.stores.units import Unit

SCHEMA = ac.Schema(time="time", entities=["user"], labels="click")


def rows(seed, users=50, n=400):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return ac.read_events(
        pa.table(
            {
                "time": pa.array(1_700_000_000_000_000 + seed * 10**9 + np.arange(n), pa.timestamp("us", "UTC")),
                "user": rng.integers(0, users, n),
                "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4),
                "click": rng.integers(0, 2, n).astype(np.int8),
            }
        ),
        SCHEMA,
    ).cached()


def test_x(tmp_path):
    for url in ("memory://a", f"lmdb://{tmp_path}/s"):
        store = open_store(url)
        model = ac.GLMix(fixed=ac.FixedEffect(["x"]), random=[ac.RandomEffect("user", ["x"])])
        model.fit(rows(0))
        other = ac.GLMix(fixed=ac.FixedEffect(["x"]), random=[ac.RandomEffect("user", ["x"])]).fit(rows(0))
        space = Space("ranker", 1, "w", "c", model.cut)
        unit = Unit(store, space, 0)
        lease = store.acquire(unit.name, "me", 10)
        assert unit.resumed(Carried.made) is None
        unit.fill(lease, Carried(model), position="0")
        for k in range(1, 4):
            carried = Unit(store, space, 0).resumed(Carried.made)
            unit = Unit(store, space, 0)
            carried = unit.resumed(Carried.made)
            carried.learner.update(rows(k, 50 + 10 * k))
            other.update(rows(k, 50 + 10 * k))
            unit.commit(lease, carried, position=str(k), after=str(k - 1))
        carried = unit.resumed(Carried.made)
        assert np.array_equal(carried.learner.predict(rows(9, 90)), other.predict(rows(9, 90)))
        a, b = (m.states("user") for m in (carried.learner, other))
        o = np.argsort(a.ids)
        p = np.argsort(b.ids)
        assert np.array_equal(a.posterior.precision[o], b.posterior.precision[p])
        assert store.units() == [unit.name]
        store.close()
