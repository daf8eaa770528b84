"""What tests of streams share: a project whose model is live, and a stream of events that it has not learned."""

import socket

import pyarrow.parquet as pq
import pytest
from small_project import EVENTS, HISTORY, Small, rows


@pytest.fixture
def small(tmp_path):
    pq.write_table(rows(0, HISTORY), tmp_path / "history.parquet")
    made = Small(tmp_path)
    made.spaces.promote(made.publish(), instead_of=None)
    made.append(rows(HISTORY, EVENTS))
    return made


@pytest.fixture
def free_port():
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
