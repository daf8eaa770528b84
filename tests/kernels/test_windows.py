"""The compiled windows against loops in plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate.kernels.windows import window_inputs

SPANS = np.array([10, 30, 100])
EDGES, BEHAVIOURS = np.array([0, 2, 5]), 2
SIZES = np.diff(EDGES)
PLACES = np.array([[0, 9], [18, 30]])  # three windows of 2 and three flags, twice; then of 3
WIDTH = 42


def twin(log, first, last, at, most, decays, table, known):
    """What :func:`window_inputs` fills, one event at a time."""
    time, item, flags = log
    x, counts = np.full((len(first), WIDTH), -7.0), np.zeros((len(first), BEHAVIOURS, len(SPANS)))
    age = np.full(len(first), -1)
    for q in range(len(first)):
        seen = [i for i in range(first[q], last[q]) if time[i] < at[q]][-most:]
        if seen:
            age[q] = at[q] - time[seen[-1]]
        for w, span in enumerate(SPANS):
            for b in range(BEHAVIOURS):
                shown = [i for i in seen if flags[i] >> b & 1]
                weight = {
                    i: 2.0 ** (-(at[q] - time[i]) / span) if decays else float(at[q] - time[i] <= span)
                    for i in shown
                }
                counts[q, b, w] = sum(weight.values())
                for k, size in enumerate(SIZES):
                    there = [i for i in shown if known[item[i], k] and weight[i] > 0.0]
                    if there:
                        share = np.array([weight[i] for i in there])
                        vectors = table[item[there], EDGES[k] : EDGES[k + 1]]
                        place = PLACES[k, b] + w * size
                        x[q, place : place + size] = share @ vectors / share.sum()
                        x[q, PLACES[k, b] + len(SPANS) * size + w] = 1.0
    return x, counts, age


@pytest.mark.parametrize("decays", [False, True])
@settings(max_examples=60)
@given(data=st.data())
def test_windows_are_those_of_loops(decays: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    entity = np.repeat(np.arange(len(sizes)), sizes)
    time = rng.integers(0, 12, len(entity)) * 10  # many ties, and ages that are a span exactly
    time = time[np.lexsort((time, entity))]
    item = rng.integers(0, 6, len(entity)).astype(np.int32)
    flags = rng.integers(0, 4, len(entity)).astype(np.uint8)
    table = rng.normal(size=(6, 5)).astype(np.float32)
    known = rng.random((6, 2)) < 0.7
    starts = np.concatenate([[0], np.cumsum(sizes)])
    asked = rng.integers(0, len(sizes), 20)
    first, last, at = starts[asked], starts[asked + 1], rng.integers(0, 14, 20) * 10
    most = data.draw(st.integers(1, 15))
    x = np.full((20, WIDTH), -7.0, np.float32)
    counts, age = np.empty((20, BEHAVIOURS, 3)), np.empty(20, np.int64)
    window_inputs(
        time, item, flags, first, last, at, most, SPANS, decays, table, known, EDGES, PLACES, x, counts, age
    )
    expected = twin((time, item, flags), first, last, at, most, decays, table, known)
    assert_allclose(x, expected[0], rtol=0, atol=1e-5)
    assert_allclose(counts, expected[1], rtol=1e-12, atol=1e-12)
    assert (age == expected[2]).all()


def test_an_average_of_what_has_long_faded_is_still_one() -> None:
    time, item, flags = np.array([0]), np.zeros(1, np.int32), np.ones(1, np.uint8)
    table, known = np.full((1, 5), 3.0, np.float32), np.ones((1, 2), bool)
    x, counts, age = np.zeros((1, WIDTH), np.float32), np.empty((1, BEHAVIOURS, 3)), np.empty(1, np.int64)
    bounds = np.array([0]), np.array([1]), np.array([10**7])
    window_inputs(time, item, flags, *bounds, 9, SPANS, True, table, known, EDGES, PLACES, x, counts, age)
    assert (x[0, :6] == 3.0).all()  # a million spans later
    assert counts.max() < 1e-300


def test_an_average_does_not_fade_with_what_is_not_in_it() -> None:
    """The newest event shows another behaviour, and its item has no vector of the first kind."""
    time, item, flags = np.array([0, 5, 10**7]), np.array([0, 1, 2], np.int32), np.array([3, 3, 1], np.uint8)
    table = np.array([[1.0] * 5, [4.0] * 5, [9.0] * 5], np.float32)
    known = np.array([[True, True], [True, True], [False, True]])
    x, counts, age = np.zeros((1, WIDTH), np.float32), np.empty((1, BEHAVIOURS, 3)), np.empty(1, np.int64)
    bounds = np.array([0]), np.array([3]), np.array([10**7 + 1])
    window_inputs(time, item, flags, *bounds, 9, SPANS, True, table, known, EDGES, PLACES, x, counts, age)
    faded = 2.0 ** (-5 / SPANS)
    average = (faded + 4.0) / (faded + 1.0)  # of the two that are long ago
    for place, size in ((PLACES[0, 0], 2), (PLACES[0, 1], 2), (PLACES[1, 1], 3)):
        assert_allclose(x[0, place : place + 3 * size], np.repeat(average, size), rtol=1e-6)
        assert (x[0, place + 3 * size : place + 3 * size + 3] == 1.0).all()
    assert_allclose(x[0, PLACES[1, 0] : PLACES[1, 0] + 9], 9.0, rtol=1e-6)
