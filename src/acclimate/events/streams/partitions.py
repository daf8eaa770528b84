"""Which partition an entity's events are in: the same in every process, on every machine, for good."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.arrays import IntArray
from acclimate.features.codes import codes_of
from acclimate.models.hashing import hashed


def partition_of(ids: Any, partitions: int) -> IntArray:
    """The partition of each id, ``(n,)``, from 0 to ``partitions - 1``.

    The ids are whole numbers or texts, as an Arrow column or a list. Numbers are spread by splitmix64, texts by
    the first eight bytes, lowest first, of their BLAKE2b.
    """
    column = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids)
    codes, distinct = codes_of(column)
    if pa.types.is_integer(distinct.type):
        keys = hashed(distinct.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64))
    else:
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in distinct.to_pylist())
        keys = np.frombuffer(b"".join(digests), "<u8")
    return (keys % np.uint64(partitions)).astype(np.int64)[codes]
