"""Rows larger than the memory, in scratch files: those of one entity in the same file (Grace's way to join).

Which file an entity is in depends on its id alone, so neither the order of rows nor the batches in which a source
hands them out show.
"""

import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import ArrowArray
from acclimate.features import codes_of, flat
from acclimate.models.hashing import hashed
from acclimate.storage.scratch import scratch_file, told_if_full

_MOST = 256
"""Files at most, each with a descriptor. Rows of one that do not fit into the memory are cut once more."""


@contextmanager
def scattered(tables: Iterable[pa.Table], column: str, files: int) -> Generator[Iterator[pa.RecordBatchReader]]:
    """Write the rows to about so many files, and read one file after another; they are gone with the last one.

    Args:
        tables: all of one schema; within a file their rows keep their order.
        column: whose values are kept together.
        files: how many are asked for.

    Raises:
        ConfigError: the disk is full.
    """
    count = min(files, _MOST)
    with ExitStack() as stack:
        opened = [stack.enter_context(scratch_file()) for _ in range(count)]
        with told_if_full():
            _write(tables, column, opened)
        yield (reader for file in opened if (reader := _reader(file)) is not None)


def _write(tables: Iterable[pa.Table], column: str, files: list[Any]) -> None:
    with ExitStack() as stack:
        writers: dict[int, Any] = {}
        for table in tables:
            place = (lots(table[column]) % np.uint64(len(files))).astype(np.int64)
            rows = table.take(np.argsort(place, kind="stable"))
            ends = np.cumsum(np.bincount(place, minlength=len(files)))
            for number, (first, last) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
                if first == last:
                    continue
                if number not in writers:
                    writers[number] = stack.enter_context(pa.ipc.new_stream(files[number], table.schema))
                writers[number].write_table(rows.slice(first, last - first))


def _reader(file: Any) -> pa.RecordBatchReader | None:
    """What was written to a file, from its beginning on; none where that is nothing."""
    if not file.tell():
        return None
    file.seek(0)
    return pa.ipc.open_stream(file)


def lots(column: ArrowArray) -> NDArray[np.uint64]:
    """A 64-bit hash of each value, the same wherever and among whatever others it stands."""
    ids: Any = flat(column)
    if pa.types.is_integer(ids.type):
        return hashed(ids.fill_null(0).cast(pa.int64(), safe=False).to_numpy().view(np.uint64))
    codes, distinct = codes_of(ids)
    texts = distinct.cast(pa.string()).to_pylist()
    return hashed(np.array([zlib.crc32((text or "").encode()) for text in texts], np.uint64))[codes]
