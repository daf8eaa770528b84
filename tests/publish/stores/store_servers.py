"""Redis servers for tests: each on a free port in a folder of its own, stopped at the end."""

import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis


def needs(program: str) -> str:
    """The path of a program, without which a test is skipped, or fails in CI."""
    path = shutil.which(program)
    if path is None:
        text = f"{program} is not installed: apt-get install {'redis-server' if 'redis' in program else program}"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    return path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0, **connection: object) -> Generator[int]:
    """A server that keeps an append-only file in a folder; yields its port."""
    port = port or free_port()
    command = [needs("redis-server"), "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    plain = [] if "--port" in options else ["--port", str(port)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, *plain, *options], stdout=log, stderr=log)
    try:
        client = redis.Redis(port=port, **connection)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if process.poll() is not None:
                    raise
        client.close()
        yield port
    finally:
        process.kill()
        process.wait()
