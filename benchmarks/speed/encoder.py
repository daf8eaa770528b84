"""What an encoder costs: vectors in bulk against the floor of their matrix products, and one event at a time.

python -m benchmarks.speed.encoder [USERS]
"""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

import acclimate as ac
from acclimate.learners.encoder.histories import Log
from acclimate.learners.user_encoder import UserEncoder
from acclimate.models.encoding import EncoderWeights, encode

RUNS, ROWS, EVENTS, SINGLE = 7, 16_384, 50, 20_000
DAY = 86_400_000_000


def best(function: Callable[[], object]) -> float:
    """The least seconds of several runs."""
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def products(weights: EncoderWeights, rows: int) -> Callable[[], None]:
    """The matrix products of an encoder alone, in pieces of the same size, on inputs that stay in cache."""
    chunk = 1024
    x = np.ones((chunk, weights.edges[-1][1]), np.float32)
    codes = np.empty((chunk, len(weights.code_bias)), np.float32)
    hidden = np.empty((chunk, len(weights.fusion_bias)), np.float32)
    vectors = np.empty((chunk, weights.size), np.float32)
    width = weights.codes[0].shape[1]

    def run() -> None:
        for _ in range(rows // chunk):
            for g, ((first, last), matrix) in enumerate(zip(weights.edges, weights.codes, strict=True)):
                np.matmul(x[:, first:last], matrix, out=codes[:, g * width : (g + 1) * width])
            np.matmul(codes, weights.fusion, out=hidden)
            np.matmul(hidden, weights.vector, out=vectors)

    return run


def crowd(encoder: UserEncoder, users: int, seed: int) -> UserEncoder:
    """The encoder with so many users more, each with some fifty events of the last hundred days."""
    state, rng = encoder._fitted(), np.random.default_rng(seed)
    ids = np.arange(1_000_000_000, 1_000_000_000 + users)
    numbers = state.users.admit(ids)
    state.histories.grow(len(state.users))
    state.last_seen.grow(len(state.users))
    state.last_seen.learn(
        numbers, np.full(users, state.cut), np.ones((users, state.last_seen.values.shape[1]), np.float32)
    )
    for part in np.array_split(np.arange(users), max(1, users // 100_000)):
        count = rng.poisson(EVENTS, len(part))
        entity = np.repeat(np.arange(len(part)), count)
        age = rng.integers(1, 100 * DAY, len(entity))
        item = rng.integers(0, state.table.items, len(entity))
        flags = 1 + 2 * (rng.random(len(entity)) < 0.4)
        state.histories.learn(numbers[part], Log.ordered(len(part), entity, state.cut - age, item, flags))
    return encoder


def main() -> None:
    """Print seconds and ratios, on one core."""
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    world = ac.simulate(users=5_000, items=5_000, events_per_day=10_000, days=10, seed=0).cached()
    encoder = UserEncoder(
        entity="user",
        item="item",
        items={"content": ac.ItemVectors(["topics", "duration"]), "together": ac.ItemVectors()},
        columns={"context": ["surface"]},
        training=ac.Training(epochs=1),
    ).fit(world)
    state = encoder._fitted()
    with threadpool_limits(1):
        x = encoder.inputs_of(np.resize(encoder.ids, ROWS))
        flops = 2 * sum(W.size for W in (*state.weights.codes, state.weights.fusion, state.weights.vector))
        whole, floor = best(lambda: encode(state.weights, x)), best(products(state.weights, ROWS))
        print(f"{x.shape[1]} columns in {len(state.weights.edges)} groups, {flops:,} operations a vector")
        print(f"products alone: {floor / ROWS * 1e6:.2f} us a vector, {flops * ROWS / floor / 1e9:.1f} GFLOP/s")
        print(f"encoding: {whole / ROWS * 1e6:.2f} us a vector, {floor / whole:.0%} of the floor")
        gathering = best(lambda: encoder.inputs_of(np.resize(encoder.ids, ROWS)))
        print(f"grouped inputs: {gathering / ROWS * 1e6:.2f} us a vector")

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        crowd(encoder, users, 1)
        began, count = time.perf_counter(), 0
        for _, vectors in encoder.batches():
            count += len(vectors)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{count:,} users encoded in {seconds:.1f} s, {encoder.nbytes / count:.0f} bytes kept of each")
        print(f"peak memory {peak / 1e6:.2f} GB, of which {before / 1e6:.2f} GB before the users came")

        rng = np.random.default_rng(2)
        ids, items = rng.choice(encoder.ids, SINGLE).tolist(), rng.integers(0, 5_000, SINGLE).tolist()
        taken, cut = np.empty(SINGLE), encoder.cut
        for i in range(SINGLE):
            began = time.perf_counter()
            encoder.observe(ids[i], items[i], cut + 1000 * i, ("click",) if i % 3 == 0 else ())
            taken[i] = time.perf_counter() - began
        low, middle, high = (np.quantile(taken, q) * 1e6 for q in (0.05, 0.5, 0.99))
        print(f"one event to its vector: median {middle:.0f} us, 5 % below {low:.0f}, 1 % above {high:.0f}")


if __name__ == "__main__":
    main()
