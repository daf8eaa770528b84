"""Read and write states by stores, beside the bare library on the same bytes in the same run.

States have 16 coefficients with full precisions. ``rows`` is what the layers of a learner get, proved and decoded;
``take`` is what it learns from: posteriors of ``float64`` with whole matrices.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import redis

from acclimate.arrays import EntityStates, Posterior
from acclimate.artifacts import Commit, Space
from acclimate.learners.layers import LayeredEntities
from acclimate.publish.stores import open_store
from acclimate.publish.stores.codec import encoded_ids
from acclimate.publish.stores.units import Unit

USERS, COEFFICIENTS, COUNTS, ROUNDS = 100_000, 16, (100, 10_000), 15
SPACE = Space("bench", 1, "weights", "contract", 0)
TABLE = "rows/user"


def main() -> None:
    heads = ("bare read", "store.read", "rows", "take", "memory take", "bare write", "commit")
    print(f"{'':>26}", *(f"{head:>12}" for head in heads), "   (CPU ms; % of the bare library's speed)")
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float64"):
            _measure(
                f"lmdb://{folder}/{dtype}",
                dtype,
                lambda values, at=folder, d=dtype: BareLMDB(f"{at}/b{d}", values),
            )
            with server(Path(folder)) as port:
                _measure(f"redis://127.0.0.1:{port}", dtype, lambda values, at=port: BareRedis(at, values))


def _measure(url: str, dtype: Any, bare_of: Callable[[dict[bytes, bytes]], Any]) -> None:
    store = open_store(url)
    unit = Unit(store, SPACE, 0)
    lease = store.acquire(unit.name, "bench", 1e6)
    assert lease is not None
    for first in range(0, USERS, 20_000):
        store.commit(lease, Commit(_writes(unit, dtype, np.arange(first, first + 20_000)), None, None))
    bare, rng = bare_of(dict(store.scan(unit.name, TABLE))), np.random.default_rng(0)
    entities, population = LayeredEntities(dtype), Posterior(np.zeros(COEFFICIENTS), np.eye(COEFFICIENTS))
    entities.rest_on("user", unit.rows("user"))
    in_memory = LayeredEntities(dtype)
    in_memory.fill("user", (_states(np.arange(first, first + 20_000)) for first in range(0, USERS, 20_000)))
    for count in COUNTS:
        asked = [np.sort(rng.choice(USERS, count, replace=False)) for _ in range(ROUNDS)]
        writes = [_writes(unit, dtype, ids) for ids in asked[:5]]
        keys = [encoded_ids(ids) for ids in asked]
        reads = [
            _cpu(bare.read, keys),
            _cpu(lambda some: store.read(unit.name, TABLE, some), keys),
            _cpu(lambda ids: list(unit.rows("user").read(ids)), asked),
            _cpu(lambda ids: entities.take("user", ids, population), asked),
            _cpu(lambda ids: in_memory.take("user", ids, population), asked),
        ]
        written = [
            _cpu(bare.write, [some[TABLE] for some in writes]),
            _cpu(lambda some: store.commit(lease, Commit(some, None, None)), writes),
        ]
        cells = [_cell(figure, group[0]) for group in (reads, written) for figure in group]
        print(f"{url.partition(':')[0]:>6} {dtype:>8} {count:>10,}", *(f"{cell:>12}" for cell in cells))
    bare.close()
    store.close()


def _cell(figure: float, base: float) -> str:
    return f"{figure:.2f}" if figure == base else f"{figure:.2f} {100 * base / figure:.0f} %"


def _cpu(work: Callable[[Any], object], inputs: list[Any]) -> float:
    """CPU milliseconds of this process, median of all."""
    seconds = list[float]()
    for one in inputs:
        begun = time.process_time()
        work(one)
        seconds.append(time.process_time() - begun)
    return 1e3 * float(np.median(seconds))


def _states(ids: Any) -> EntityStates:
    rng, ones, d = np.random.default_rng(len(ids)), np.ones(len(ids), np.int64), COEFFICIENTS
    root = rng.normal(size=(len(ids), d, d))
    posterior = Posterior(rng.normal(size=(len(ids), d)), root @ np.swapaxes(root, 1, 2) + d * np.eye(d))
    return EntityStates(ids, posterior, ones, ones)


def _writes(unit: Unit, dtype: Any, ids: Any) -> dict[str, Any]:
    entities = LayeredEntities(dtype)
    entities.commit({"user": [_states(ids)]})
    return unit._writes((("user", *part) for part in entities.changed("user")), 0)


class BareLMDB:
    """The library alone: one database, ``getmulti`` and ``putmulti``, sync at each commit."""

    def __init__(self, path: str, values: dict[bytes, bytes]) -> None:
        self.environment = lmdb.open(path, map_size=1 << 30)
        self.write(sorted(values.items()))

    def read(self, keys: list[bytes]) -> list[bytes]:
        with self.environment.begin() as txn, txn.cursor() as cursor:
            return [value for _, value in cursor.getmulti(keys)]

    def write(self, items: list[tuple[bytes, bytes]]) -> None:
        with self.environment.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(items)

    def close(self) -> None:
        self.environment.close()


class BareRedis:
    """The library alone: ``MGET`` and ``MSET``."""

    def __init__(self, port: int, values: dict[bytes, bytes]) -> None:
        self.client = redis.Redis(port=port)
        items = list(values.items())
        for first in range(0, len(items), 10_000):
            self.write(items[first : first + 10_000])

    def read(self, keys: list[bytes]) -> Any:
        return self.client.mget(keys)

    def write(self, items: list[tuple[bytes, bytes]]) -> None:
        self.client.mset(dict(items))

    def close(self) -> None:
        self.client.close()


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A Redis server that keeps an append-only file."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    place = Path(tempfile.mkdtemp(dir=folder))
    options = ["--port", str(port), "--dir", str(place), "--appendonly", "yes", "--save", ""]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            if process.poll() is not None:
                raise
    client.close()
    try:
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
