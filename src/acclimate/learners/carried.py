"""A learner as bytes and rows, for whoever keeps it elsewhere than in a folder: its shared part is a few blobs.

::

    manifest        JSON: small, and new with each update, as it says how far the learner is
    arrays          safetensors
    table <name>    each an Arrow stream
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.arrays import IdArray
from acclimate.artifacts import VECTORS, Events
from acclimate.learners import class_of_kind
from acclimate.learners.base import Packed
from acclimate.learners.gate import check_arrays
from acclimate.storage import Below, Columns, Stored, arrays_in, unpacking

FORMAT = 2

_TABLE = "table "

_VECTORS_AT_ONCE = 1 << 14


class Carried:
    """A fitted ``learner`` whose rows by id, such as the states of entities, are kept by name elsewhere.

    Beside its own rows go the vectors that it makes for others, of those that it has learned of.
    """

    def __init__(self, learner: Any) -> None:
        self.learner = learner

    def learn(self, events: Events, **options: Any) -> str:
        """Let the learner learn new events, in memory; returns why it has undone that, empty where it has not.

        Raises as its ``update``.
        """
        self.learner.update(events, **options)
        return self.learner.refusal()

    @staticmethod
    def made(shared: Mapping[str, bytes]) -> "Carried":
        """A learner of its shared part, with no rows yet: see :meth:`rest_on`.

        Raises:
            FormatError: it is not what :meth:`shared` gave, or of another version.
        """
        with unpacking("the shared part of a learner"):
            stored = _stored(shared)
            return Carried(class_of_kind(stored.manifest["kind"])._made(stored))

    @property
    def cut(self) -> int:
        """The last event learned, microseconds UTC."""
        return self.learner.cut

    def packed(self) -> Packed:
        """All of it as it is now: the methods below take it, so that it is made once where several are called."""
        return self.learner._whole()

    def shared(self, packed: Packed | None = None) -> dict[str, bytes]:
        """All but the rows, in parts by name; of what has not changed the same bytes.

        Raises:
            ModelError: something in it is not finite.
        """
        packed = packed or self.packed()
        check_arrays(type(self.learner).__name__, packed.arrays)
        return _written(self.learner.kind, packed)

    def columns(self, packed: Packed | None = None) -> dict[str, tuple[str, ...]]:
        """By the name of rows the columns of the events that have their ids."""
        exported = {VECTORS + name: one.columns for name, one in self.learner.exported().items()}
        return {name: rows.columns for name, rows in (packed or self.packed()).rows.items()} | exported

    def described(self, packed: Packed | None = None) -> set[str]:
        """The names of those rows that tell of the id itself, and not of all events that have it."""
        return {name for name, rows in (packed or self.packed()).rows.items() if rows.is_described}

    def learned_columns(self) -> set[tuple[str, ...]]:
        """The columns of events that have the ids of all other rows."""
        packed = self.packed()
        described = self.described(packed)
        return {one for name, one in self.columns(packed).items() if name not in described}

    def changed(self, packed: Packed | None = None) -> Iterator[tuple[str, IdArray, Columns]]:
        """The rows that have changed since the learner was settled: name, ids and columns of one layout.

        Vectors are those of entities whose rows have changed.
        """
        packed = packed or self.packed()
        described, touched = self.described(packed), dict[tuple[str, ...], list[IdArray]]()
        for name, ids, columns in self._changed_rows(packed):
            yield name, ids, columns
            if name not in described:
                touched.setdefault(packed.rows[name].columns, []).append(ids)
        for name, one in self.learner.exported().items():
            if one.columns in touched:
                yield from self._vectors(name, np.unique(np.concatenate(touched[one.columns])))

    def everything(self) -> Iterator[tuple[str, IdArray, Columns]]:
        """All rows, read piece by piece."""
        packed = self.packed()
        for name, rows in packed.rows.items():
            for ids, columns in rows.unchanged():
                yield name, ids, columns
        yield from self._changed_rows(packed)
        for name, one in self.learner.exported().items():
            yield from self._vectors(name, one.ids())

    def rest_on(self, below: Callable[[str], Below]) -> None:
        """Read rows from there by name, and let go of what has changed in memory."""
        for name, rows in self.packed().rows.items():
            rows.rest_on(below(name))

    def settle(self, packed: Packed | None = None) -> None:
        """Let go of what has changed: it is where rows are read from."""
        for rows in (packed or self.packed()).rows.values():
            rows.settle()

    def _changed_rows(self, packed: Packed) -> Iterator[tuple[str, IdArray, Columns]]:
        for name, rows in packed.rows.items():
            for ids, columns in rows.changed():
                yield name, ids, columns

    def _vectors(self, name: str, ids: IdArray) -> Iterator[tuple[str, IdArray, Columns]]:
        """The vectors of one kind of entity, some at a time."""
        vectors = self.learner.exported()[name].vectors
        for first in range(0, len(ids), _VECTORS_AT_ONCE):
            some = ids[first : first + _VECTORS_AT_ONCE]
            yield VECTORS + name, some, {"vector": vectors(some, None).astype(np.float32)}


def _written(kind: str, packed: Packed) -> dict[str, bytes]:
    from safetensors.numpy import save

    told = {"format": FORMAT, "kind": kind, "tables": list(packed.tables), "rows": list(packed.rows)}
    return {
        "manifest": json.dumps({**told, "learner": packed.manifest}, allow_nan=False).encode(),
        "arrays": save({name: np.ascontiguousarray(array) for name, array in packed.arrays.items()}),
        **{_TABLE + name: _stream(table) for name, table in packed.tables.items()},
    }


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _stored(shared: Mapping[str, bytes]) -> Stored:
    """The parts, as :func:`acclimate.storage.read_artifact` would give them.

    Raises:
        ValueError: they are of another version.
        KeyError: one is absent.
    """
    told: Mapping[str, Any] = json.loads(shared["manifest"])
    if told.get("format") != FORMAT:
        raise ValueError(
            f"it has format {told.get('format')}, and this version of acclimate reads format {FORMAT}"
        )
    return Stored(
        {**told["learner"], "kind": told["kind"]},
        arrays_in(np.frombuffer(bytearray(shared["arrays"]), np.uint8)),  # copied: aligned, and to be written in
        {name: pa.ipc.open_stream(pa.py_buffer(shared[_TABLE + name])).read_all() for name in told["tables"]},
        {name: [] for name in told["rows"]},
    )
