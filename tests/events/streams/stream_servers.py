"""Servers that tests start themselves: Redis on a free port, and the mock cluster inside the client of Kafka."""

import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0) -> Generator[int]:
    """A server of its own, on that port or a free one, which it yields."""
    redis = pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port or free.getsockname()[1]
    settings = ["--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        [program, *settings, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ready to accept connections" not in said:
            line = process.stdout.readline()
            assert line, f"redis-server ended: {said}"
            said += line
        with redis.Redis(port=port) as client:
            client.ping()
        yield port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def kafka_brokers() -> Generator[str]:
    """The mock cluster of librdkafka; yields ``host:port``."""
    kafka = pytest.importorskip("confluent_kafka")
    home = kafka.Producer({"test.mock.num.brokers": 1, "log_level": 2})
    brokers = home.list_topics(timeout=30).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    home.flush(0)


def make_topic(brokers: str, name: str) -> None:
    """A topic of 4 partitions, as the mock cluster makes for whoever asks to write to one."""
    import confluent_kafka

    producer = confluent_kafka.Producer({"bootstrap.servers": brokers, "log_level": 2})
    assert len(producer.list_topics(name, timeout=30).topics[name].partitions) == 4
    producer.flush(0)
