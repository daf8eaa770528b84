"""Stores to test: each kind, opened anew as another process would."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from clocks import Clock
from store_servers import redis_server

from acclimate.artifacts import Store
from acclimate.publish.stores import open_store
from acclimate.publish.stores.memory import MemoryStore

KINDS = ("memory", "lmdb", "redis")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(params=KINDS)
def opening(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Generator[Callable[[], Store]]:
    """Opens one and the same store, once more with each call."""
    opened: list[Store] = []
    in_memory = MemoryStore(clock)
    if request.param == "redis":
        import redis

        port = request.getfixturevalue("redis_port")
        with redis.Redis(port=port) as client:
            client.flushall()

    def again() -> Store:
        if request.param == "memory":
            return in_memory
        url = f"lmdb://{tmp_path}/store" if request.param == "lmdb" else f"redis://127.0.0.1:{port}"
        opened.append(open_store(url, clock=clock))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def store(opening: Callable[[], Store]) -> Store:
    return opening()
