"""What tests of streams share: a project whose model is live, and a stream of events that it has not learned."""

import shutil
import socket

import pyarrow.parquet as pq
import pytest
from small_project import EVENTS, HISTORY, Small, rows


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The folder of the project, of which each test has a copy."""
    folder = tmp_path_factory.mktemp("small")
    pq.write_table(rows(0, HISTORY), folder / "history.parquet")
    small = Small(folder)
    small.spaces.promote(small.publish(), instead_of=None)
    small.append(rows(HISTORY, EVENTS))
    return folder


@pytest.fixture
def small(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Small(tmp_path)


@pytest.fixture
def free_port():
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def dead_port():
    """A port that nobody answers at, and nobody else gets meanwhile."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]
