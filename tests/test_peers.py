"""Whatever is measured beside acclimate finds what it is measured for."""

from importlib import import_module
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks.peers.peer import ADAPTERS, Peer
from benchmarks.peers.worlds import Entities, discrepancy, distance, exact, world, zipf
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit


def peers_of(module: str) -> list[Peer]:
    pytest.importorskip(ADAPTERS[module], reason=f"{ADAPTERS[module]} is not installed (extra 'bench')")
    return import_module(f"benchmarks.peers.{module}").PEERS


def small_world() -> Entities:
    return world(np.concatenate([np.full(10, 50), [1, 2, 3], zipf(10, seed=3)]), 7, seed=5)


@pytest.mark.parametrize("module", ADAPTERS)
def test_an_adapter_finds_the_optimum_of_every_entity(module):
    data = small_world()
    truth = exact(data)
    for peer in peers_of(module):
        fitted = peer.read(peer.fit(peer.prepared(data)))
        assert fitted.mean.shape == truth.mean.shape
        if np.isfinite(peer.error):
            assert distance(fitted, truth) <= peer.error, peer.name
        else:  # one pass is on the way there
            many = np.diff(data.indptr) >= 50
            assert np.corrcoef(fitted.mean[many].ravel(), truth.mean[many].ravel())[0, 1] > 0.5, peer.name
        if fitted.precision is not None:
            assert discrepancy(fitted, truth) <= 1e-2, peer.name


def test_the_exact_posterior_is_that_of_an_independent_search():
    data = small_world()
    truth = exact(data)
    for e in range(data.count):
        X, y = data.rows(e)

        def objective(w, X=X, y=y):
            return np.logaddexp(0.0, X @ w).sum() - y @ (X @ w) + w @ w / 2

        def gradient(w, X=X, y=y):
            return X.T @ (expit(X @ w) - y) + w

        found = minimize(objective, np.zeros(data.width), method="BFGS", options={"gtol": 1e-7})
        assert_allclose(truth.mean[e], found.x, atol=1e-5)
        assert_allclose(truth.precision[e], approx_fprime(truth.mean[e], gradient), atol=1e-4)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 3))
def test_batches_of_the_bar_do_not_change_what_it_finds(sizes, width, seed):
    fit = import_module("benchmarks.peers.numpy_newton").fit
    data = world(np.array(sizes), width, seed=seed)
    together, alone = fit(data), fit(data, cells=1)
    assert_allclose(together.mean, alone.mean, atol=2e-6)
    assert_allclose(together.precision, alone.precision, atol=2e-5)


def test_a_drawing_has_a_point_for_every_figure():
    cost = import_module("benchmarks.peers.cost")
    lines = {name: cost.Line([1.0, 10.0, 100.0], [0.1, 1.0, 10.0]) for name in cost.COLOURS}
    drawing = ElementTree.fromstring(cost.drawn(dict.fromkeys(cost.SWEEPS, lines)))
    circles = [e for e in drawing.iter() if e.tag.endswith("circle")]
    assert len(circles) == len(cost.SWEEPS) * len(cost.COLOURS) * 3
    assert all(0 < float(e.get("cx")) < 780 and 0 < float(e.get("cy")) < 180 for e in circles)
    assert_allclose(lines["acclimate"].slope(), 1.0)


def test_works_in_turns_are_each_done_as_often():
    done: list[str] = []
    works = {"one": lambda: done.append("one"), "two": lambda: done.append("two")}
    ticks = iter(range(10_000))
    seconds = import_module("benchmarks.peers.turns").in_turns(works, 3, clock=lambda: 3.0 * next(ticks))
    assert {name: taken.tolist() for name, taken in seconds.items()} == {"one": [3.0] * 3, "two": [3.0] * 3}
    assert done[-6:] == ["one", "two"] * 3


def test_a_library_that_is_not_there_is_named_and_skipped(monkeypatch):
    peer = import_module("benchmarks.peers.peer")
    monkeypatch.setattr(peer, "ADAPTERS", {"numpy_newton": "numpy", "nobody": "no_such_library"})
    peers, absent = peer.installed_peers()
    assert [p.name for p in peers] == ["NumPy, batched Newton"]
    assert absent == ["nobody is not installed: skipped (python -m pip install '.[bench]')"]
