"""The compiled inner steps against plain NumPy, which gives every entity weights of its own and moves them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate.kernels.adaptation import Above, Block, Rows, adapt


def layers_of(rng: Any, widths: list[int]) -> list[tuple[Any, Any]]:
    return [(rng.normal(size=(m, n)) / np.sqrt(max(n, 1)), rng.normal(size=m)) for n, m in pairwise(widths)]


def of_layers(layers: list[tuple[Any, Any]]) -> list[Any]:
    """Of weights, or rates, and of biases: all of them side by side."""
    return [
        np.concatenate([np.zeros(0), *(np.ravel(layer[part]) for layer in layers)]).astype(np.float32)
        for part in (0, 1)
    ]


def twin(u: Any, steps: int, block: Any, rates: Any, rows: Any, above: Any) -> Any:
    """One entity: weights of its own, moved by gradients of the loss of its rows, in float64."""
    own = [[W.copy(), b.copy()] for W, b in block]
    layers, of_e, straight, head = above

    def forward() -> list[Any]:
        read = [u]
        for number, (W, b) in enumerate(own):
            z = W @ read[-1] + b
            read.append(z if number == len(own) - 1 else np.maximum(z, 0.0))
        return read

    first, base, label, share = rows
    for _ in range(steps if len(label) else 0):
        read = forward()
        e, gradient = read[-1], np.zeros(len(straight))
        for x, z0, y, s in zip(first, base, label, share, strict=True):
            hidden = [np.maximum(x + of_e @ e, 0.0)]
            for W, b in layers:
                hidden.append(np.maximum(W @ hidden[-1] + b, 0.0))
            error = s * (1.0 / (1.0 + np.exp(-(z0 + straight @ e + head @ hidden[-1]))) - y)
            back = error * head * (hidden[-1] > 0)
            for (W, _b), h in zip(layers[::-1], hidden[-2::-1], strict=True):
                back = (W.T @ back) * (h > 0)
            gradient += of_e.T @ back + error * straight
        delta, moves = gradient, []
        for number in range(len(own) - 1, -1, -1):
            moves.append((number, np.outer(delta, read[number]), delta))
            delta = (own[number][0].T @ delta) * (read[number] > 0)
        for number, of_weight, of_bias in moves:
            own[number][0] -= rates[number][0] * of_weight
            own[number][1] -= rates[number][1] * of_bias
    return forward()[-1]


@pytest.mark.parametrize("each", [False, True], ids=["a rate a layer", "a rate a weight"])
@settings(max_examples=60)
@given(data=st.data())
def test_steps_are_those_of_weights_of_its_own(each: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    widths = [draw(0, 5), *data.draw(st.lists(st.integers(1, 6), max_size=2)), draw(1, 4)]
    above_widths = [draw(1, 7), *data.draw(st.lists(st.integers(1, 5), max_size=2))]
    steps, sizes = draw(0, 3), np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5)))
    n, size = int(sizes.sum()), widths[-1]
    block, above = layers_of(rng, widths), layers_of(rng, above_widths)
    rates = [
        (rng.uniform(-0.2, 1.0, W.shape if each else ()), rng.uniform(0, 1.0, b.shape if each else ()))
        for W, b in block
    ]
    u = rng.normal(size=(len(sizes), widths[0]))
    first, base = rng.normal(size=(n, above_widths[0])), rng.normal(size=n)
    label, share = rng.integers(0, 2, n).astype(float), rng.uniform(0, 1, n)
    of_e, straight = rng.normal(size=(above_widths[0], size)), rng.normal(size=size)
    head = rng.normal(size=above_widths[-1])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    out = np.empty((len(sizes), size), np.float32)
    single = [np.ascontiguousarray(part, np.float32) for part in (first, base, label, share, of_e, straight, head)]
    first32, base32, label32, share32, of_e32, straight32, head32 = single
    adapt(
        u.astype(np.float32),
        steps,
        Block(*of_layers(block), *of_layers(rates), each, np.array(widths)),
        Rows(starts, first32, base32, label32, share32),
        Above(of_e32, straight32, *of_layers(above), np.array(above_widths), head32),
        out,
    )
    for t, (begin, end) in enumerate(pairwise(starts)):
        rows = tuple(part[begin:end] for part in (first, base, label, share))
        expected = twin(u[t], steps, block, rates, rows, (above, of_e, straight, head))
        assert_allclose(out[t], expected, rtol=2e-4, atol=2e-4)
