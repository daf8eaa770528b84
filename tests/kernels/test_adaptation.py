"""The compiled pass over support rows against plain NumPy, a row at a time in float64."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate.kernels.adaptation import Rows, sum_errors


def twin(rows: Rows, moved: Any, passing: Any, head: Any) -> tuple[Any, Any]:
    errors, summed = np.zeros(len(moved)), np.zeros(moved.shape)
    for t in range(len(moved)):
        for row in range(rows.starts[t], rows.starts[t + 1]):
            z = rows.first[row].astype(float) + moved[t]
            logit = rows.base[row] + passing[t] + head @ np.maximum(z, 0.0)
            q = rows.share[row] * (1.0 / (1.0 + np.exp(-logit)) - rows.label[row])
            errors[t] += q
            summed[t] += q * (z > 0)
    return errors, summed


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    units=st.integers(1, 40),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=6),
)
def test_the_pass_is_that_of_a_row_at_a_time(seed: int, units: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    starts, n, count = np.concatenate([[0], np.cumsum(sizes)]), sum(sizes), len(sizes)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    label, share = rng.integers(0, 2, n).astype(np.float32), rng.random(n).astype(np.float32)
    rows = Rows(starts, draw(n, units), draw(n), label, share)
    moved, passing, head = draw(count, units), draw(count), draw(units)
    errors, summed = np.full(count, np.nan, np.float32), np.full((count, units), np.nan, np.float32)
    sum_errors(rows, moved, passing, head, errors, summed)
    for actual, expected in zip((errors, summed), twin(rows, moved, passing, head), strict=True):
        assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert (np.abs(summed).max(1)[np.array(sizes) == 0] == 0.0).all()


def test_logits_beyond_all_bounds_are_certain() -> None:
    base = np.array([-1e4, 1e4, -1e4, 1e4], np.float32)
    label, share = np.array([0, 1, 1, 0], np.float32), np.ones(4, np.float32)
    rows = Rows(np.arange(5), np.zeros((4, 1), np.float32), base, label, share)
    errors, summed = np.empty(4, np.float32), np.empty((4, 1), np.float32)
    zero = np.zeros((4, 1), np.float32)
    sum_errors(rows, zero, zero[:, 0], np.ones(1, np.float32), errors, summed)
    assert errors.tolist() == [0.0, 0.0, -1.0, 1.0]
