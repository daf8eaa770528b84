"""An entity is in one partition, everywhere and for good."""

import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from acclimate.events.streams import partition_of


def test_known_partitions():
    assert partition_of(["a", "b", "c", "a"], 4).tolist() == [0, 0, 3, 0]
    assert partition_of([1, 2, 3, -1], 4).tolist() == [1, 2, 0, 3]


@given(st.lists(st.text()), st.integers(1, 100))
def test_texts_go_by_their_blake2b(texts, partitions):
    wanted = [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little") for t in texts]
    column = pa.array(texts, pa.string())
    assert partition_of(column, partitions).tolist() == [number % partitions for number in wanted]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 100))
def test_a_number_is_where_it_is_alone(numbers, partitions):
    together = partition_of(pa.chunked_array([numbers, numbers]), partitions).tolist()
    assert together == 2 * [int(partition_of([number], partitions)[0]) for number in numbers]


def test_partitions_are_about_equal():
    for ids in (range(60_000), [f"user {i}" for i in range(60_000)]):
        counts = np.bincount(partition_of(ids, 6), minlength=6)
        assert abs(counts - 10_000).max() < 400
