"""Rows in immutable files, sorted by key: who asks for some of them reads those, and no others.

A segment is a safetensors file of columns ``(n, ...)``, memory-mapped. Its head, which is the header, the keys and
where the texts of ids begin, is proved when it is opened; a row when it is read, by a number kept beside it::

    check = a_0 + sum_i a_i word_i  (mod 2^64)      over the words of 32 bits of all that is in the row

with odd ``a_i``, so that no change of a word goes unseen, and no row of zeros passes. The header has a hash of
these, so that no other segment passes for this one.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from acclimate.arrays import ArrowArray, BoolArray, IdArray, IntArray
from acclimate.models.hashing import hashed
from acclimate.storage.manifest import Differs, Part, check_regular, reading

_TYPES = {"<f8": "F64", "<f4": "F32", "<i8": "I64", "<i4": "I32", "<u8": "U64", "|u1": "U8"}
"""Types of columns, and what safetensors calls them."""

_HEADER = 4096
"""Bytes of the header, filled up by spaces: it is written last, where the first bytes are."""

_STRIP_BYTES = 1 << 24
"""Bytes of the rows that are read or written at a time."""

_KEY, _CHECK, _TEXT, _BOUNDS = "key", "check", "text", "text.bounds"


@dataclass(frozen=True)
class Rows:
    """Rows with different ids in the order of their keys.

    ``key``: ``(n,)``, ascending: the id, or a hash of it where it is ``text``; ``columns``: ``(n, ...)``, by name.
    """

    key: IntArray
    columns: Mapping[str, NDArray[Any]]
    text: ArrowArray | None = None

    @staticmethod
    def of(ids: IdArray, columns: Mapping[str, NDArray[Any]]) -> "Rows":
        """Rows of different ``ids`` ``(n,)`` in any order."""
        key = keys_of(ids)
        order = np.argsort(key, kind="stable")
        return Rows(key, columns, texts_of(ids)).at(order)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def ids(self) -> IdArray:
        """The ids, in the order of their keys."""
        return self.key if self.text is None else np.array(self.text.to_pylist(), np.dtypes.StringDType())

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, but for the text of its id."""
        return 8 + sum(column.dtype.itemsize * int(np.prod(column.shape[1:])) for column in self.columns.values())

    @property
    def some(self) -> int:
        """How many rows are better read at a time."""
        return max(1, _STRIP_BYTES // self.row_bytes)

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of what each column has in a row."""
        return {name: (column.dtype.str, column.shape[1:]) for name, column in self.columns.items()}

    def at(self, rows: IntArray) -> "Rows":
        """Copies of these rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Rows(self.key[rows], columns, None if self.text is None else self.text.take(pa.array(rows)))

    def find(self, key: IntArray, text: ArrowArray | None = None) -> IntArray:
        """The row of each key and text ``(m,)``, -1 where there is none; in ascending order it is quickest.

        Raises:
            Differs: a text that is there is not the one that was written.
        """
        place = np.searchsorted(self.key, key)
        found = np.where(self._has(place, key), place, -1)
        if text is None or self.text is None:
            return found
        open_ends = np.flatnonzero(found >= 0)
        while len(open_ends):  # texts of one hash lie beside each other
            there = self.text.take(pa.array(found[open_ends]))
            same = pc.equal(there, text.take(pa.array(open_ends))).to_numpy(zero_copy_only=False)
            open_ends, others = open_ends[~same], there.filter(pa.array(~same))
            if np.any(keys_of(np.array(others.to_pylist(), np.dtypes.StringDType())) != key[open_ends]):
                raise Differs("ids are not what was written")
            found[open_ends] += 1
            more = self._has(found[open_ends], key[open_ends])
            found[open_ends[~more]] = -1
            open_ends = open_ends[more]
        return found

    def _has(self, place: IntArray, key: IntArray) -> BoolArray:
        if not len(self.key):
            return np.zeros(len(key), np.bool_)
        return (place < len(self.key)) & (self.key[np.minimum(place, len(self.key) - 1)] == key)


@dataclass(frozen=True)
class Segment(Rows):
    """Rows in a file: what is read of them is proved.

    ``path`` and ``part``: of the file, and its ``inode``; ``mapped``: what is in it; ``check``: ``(n,)``;
    ``head``: bytes of its head, and their SHA-256.
    """

    path: Path = field(kw_only=True)
    part: Part = field(kw_only=True)
    mapped: mmap.mmap = field(kw_only=True)
    check: NDArray[np.uint64] = field(kw_only=True)
    head: "Head" = field(kw_only=True)
    inode: tuple[int, int] = field(kw_only=True)

    def __reduce__(self) -> Any:
        return open_segment, (
            self.path,
            self.part,
            self.head,
        )  # another process opens the file, which is to be there

    def is_at(self, path: Path) -> bool:
        """Whether this very file has that name: as long as it is mapped, no other has its inode."""
        try:
            return inode_of(path.stat()) == self.inode
        except OSError:
            return False

    def __deepcopy__(self, _: dict[int, Any]) -> "Segment":
        return self  # it never changes

    def at(self, rows: IntArray) -> Rows:
        """Copies of these rows: better of ``some`` at a time.

        Raises:
            FormatError: one is not what was written.
        """
        found = super().at(rows)
        with reading(self.path):
            if np.any(_checks(found) != self.check[rows]):
                raise Differs("rows of it are not what was written")
        self._release()
        return found

    def find(self, key: IntArray, text: ArrowArray | None = None) -> IntArray:
        """See :meth:`Rows.find`.

        Raises:
            FormatError: an id is not what was written.
        """
        with reading(self.path):
            return super().find(key, text)

    def _release(self) -> None:
        """Let the pages that were read go: they stay in the system's cache, and are no memory of this process."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


Head: TypeAlias = tuple[int, str]


def inode_of(status: os.stat_result) -> tuple[int, int]:
    """Device and inode of a file."""
    return status.st_dev, status.st_ino


def keys_of(ids: IdArray) -> IntArray:
    """The key of each id ``(n,)``: itself, or the first eight bytes of a text's BLAKE2b."""
    if ids.dtype == np.int64:
        return ids
    digests = (hashlib.blake2b(id.encode(), digest_size=8).digest() for id in ids.tolist())
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def texts_of(ids: IdArray) -> ArrowArray | None:
    """Ids ``(n,)`` as texts, if they are."""
    return None if ids.dtype == np.int64 else pa.array(ids.tolist(), pa.large_string())


def visible(layers: Sequence[Rows]) -> list[IntArray]:
    """Of each layer the rows ``(m,)`` whose ids no later one has."""
    shown = [np.ones(len(layer), np.bool_) for layer in layers]
    for older, layer in enumerate(layers):
        for newer in layers[older + 1 :]:
            hidden = layer.find(newer.key, newer.text)
            shown[older][hidden[hidden >= 0]] = False
    return [np.flatnonzero(one) for one in shown]


def write_segment(path: Path, parts: Sequence[tuple[Rows, IntArray]], like: Callable[[Rows], Rows]) -> None:
    """Write rows of different ids as a new file.

    Args:
        path: where nothing is.
        parts: layers, and which of their rows.
        like: makes columns, of whatever layer, what those of the file are to be.

    Raises:
        OSError: the disk refuses.
        FormatError: a row that is read is not what was written.
    """
    number = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    order = np.argsort(np.concatenate([layer.key[rows] for layer, rows in parts]), kind="stable")
    number, row = number[order], np.concatenate([rows for _, rows in parts])[order]
    layers = [layer for layer, _ in parts]
    with path.open("xb") as file:
        places = _Places(file, len(row), like(layers[0].at(np.arange(0))))
        some = min(layer.some for layer in layers)
        for first in range(0, len(row), some):
            strip = slice(first, first + some)
            places.write(first, _gathered(layers, number[strip], row[strip], like))
        places.close()


def open_segment(path: Path, part: Part, head: Head) -> Segment:
    """A segment that was written, known by its ``part`` of a manifest.

    Raises:
        Differs: it has another size or head.
        FileNotFoundError: it is not there.
    """
    check_regular(path, path.name, part.size)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        inode = inode_of(os.fstat(file.fileno()))
    if len(mapped) != part.size or _head(mapped, head[0]) != head:
        raise Differs(f"{path.name} is not what was written")
    columns = _columns(mapped)
    key, check = columns.pop(_KEY), columns.pop(_CHECK)
    text, bounds = columns.pop(_TEXT, None), columns.pop(_BOUNDS, None)
    texts = None
    if text is not None and bounds is not None:
        texts = pa.LargeStringArray.from_buffers(len(key), pa.py_buffer(bounds.data), pa.py_buffer(text.data))
    return Segment(key, columns, texts, path=path, part=part, mapped=mapped, check=check, head=head, inode=inode)


def head_of(path: Path) -> Head:
    """The size of a file's head, and its hash."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return _head(data, 8 + length + header.get(_BOUNDS, header[_KEY])["data_offsets"][1])


def _head(data: mmap.mmap, size: int) -> Head:
    with memoryview(data) as view, view[:size] as part:
        return size, hashlib.sha256(part).hexdigest()


def _checks(rows: Rows) -> NDArray[np.uint64]:
    """What proves each row ``(n,)``."""
    parts = [rows.key, *(rows.columns[name] for name in sorted(rows.columns))]
    flat = (part.reshape(len(rows), int(np.prod(part.shape[1:]))) for part in parts)
    words = [np.ascontiguousarray(part).view(np.uint32) for part in flat]
    factors = hashed(np.arange(1, 2 + sum(part.shape[1] for part in words), dtype=np.uint64)) | np.uint64(1)
    total, first = np.full(len(rows), factors[0]), 1
    for part in words:
        last = first + part.shape[1]
        total += part.astype(np.uint64) @ factors[first:last]
        first = last
    return total


# --- writing -------------------------------------------------------------------------------------------------


class _Places:
    """A file that is filled strip by strip, each column in a region of its own; texts, of any length, are last."""

    def __init__(self, file: BinaryIO, count: int, sample: Rows) -> None:
        self.file, self.count = file, count
        layout = {_KEY: ("<i8", ()), **sample.layout, _CHECK: ("<u8", ())}
        wide = sorted(layout, key=lambda name: -np.dtype(layout[name][0]).itemsize)  # so that all are aligned
        self.start, self.header, place = dict[str, int](), dict[str, Any](), 0
        self.size = {name: np.dtype(kind).itemsize * int(np.prod(shape)) for name, (kind, shape) in layout.items()}
        for name in sorted(wide, key=lambda name: name != _KEY):
            kind, shape = layout[name]
            place = self._region(name, kind, (count, *shape), place)
            if name == _KEY and sample.text is not None:  # of eight bytes too
                place = self._region(_BOUNDS, "<i8", (count + 1,), place)
        self.text = place if sample.text is not None else None
        self.texts, self.checks = 0, hashlib.sha256()

    def _region(self, name: str, kind: str, shape: tuple[int, ...], place: int) -> int:
        size = np.dtype(kind).itemsize * int(np.prod(shape))
        self.start[name] = place
        self.header[name] = {"dtype": _TYPES[kind], "shape": shape, "data_offsets": [place, place + size]}
        return place + size

    def write(self, first: int, rows: Rows) -> None:
        columns = {**rows.columns, _KEY: rows.key, _CHECK: _checks(rows)}
        self.checks.update(columns[_CHECK].data)
        for name, column in columns.items():
            self._put(self.start[name] + first * self.size[name], column)
        if self.text is None or rows.text is None:
            return
        lengths = pc.binary_length(rows.text).to_numpy()
        bounds = self.texts + np.concatenate([[0], np.cumsum(lengths)])
        self._put(self.start[_BOUNDS] + 8 * first, bounds.astype(np.int64))
        self._put(self.text + self.texts, np.frombuffer("".join(rows.text.to_pylist()).encode(), np.uint8))
        self.texts = int(bounds[-1])

    def close(self) -> None:
        if self.text is not None:
            if not self.count:
                self._put(self.start[_BOUNDS], np.zeros(1, np.int64))
            self._region(_TEXT, "|u1", (self.texts,), self.text)
        told = {"__metadata__": {"checks": self.checks.hexdigest()}, **self.header}
        header = json.dumps(told).encode()
        self.file.seek(0)
        self.file.write((_HEADER - 8).to_bytes(8, "little") + header.ljust(_HEADER - 8))

    def _put(self, place: int, array: NDArray[Any]) -> None:
        self.file.seek(_HEADER + place)
        self.file.write(np.ascontiguousarray(array).data)


def _gathered(layers: Sequence[Rows], number: IntArray, row: IntArray, like: Callable[[Rows], Rows]) -> Rows:
    """Some rows of several layers, in this order."""
    stacked = _stacked([like(layers[k].at(row[number == k])) for k in np.unique(number).tolist()])
    return stacked.at(np.argsort(np.argsort(number, kind="stable")))  # they were read layer by layer


def _stacked(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    texts = [part.text for part in parts if part.text is not None]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    text = pa.concat_arrays(texts) if texts else None
    return Rows(np.concatenate([part.key for part in parts]), columns, text)


# --- reading -------------------------------------------------------------------------------------------------


def _columns(data: mmap.mmap) -> dict[str, NDArray[Any]]:
    """The columns of a safetensors file as views of its bytes."""
    types = {told: kind for kind, told in _TYPES.items()}
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    found: dict[str, NDArray[Any]] = {}
    for name, told in header.items():
        first, last = told["data_offsets"]
        kind = np.dtype(types[told["dtype"]])
        count = (last - first) // kind.itemsize
        found[name] = np.frombuffer(data, kind, count, 8 + length + first).reshape(told["shape"])
    return found
