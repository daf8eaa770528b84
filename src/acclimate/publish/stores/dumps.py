"""Units of a store as files: what any store can write, and any store can read.

::

    backup/
        manifest.json       each file with its size and SHA-256
        units.json          the units, and what is known of each
        unit-0.values       per value: lengths of key and value (4 bytes each), number of the table (4), key, value
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from acclimate.errors import FormatError
from acclimate.publish.stores.records import Record
from acclimate.storage.manifest import Part, check_artifact, read_manifest
from acclimate.storage.places import replacing_folder

_LENGTHS = struct.Struct("<III")
_UNITS = "units.json"
_AT_ONCE = 1 << 22
"""Bytes of values that are read at a time."""

Pairs: TypeAlias = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Dump:
    """A unit as of one moment: ``values`` gives per table its keys and values, as they are stored."""

    unit: str
    record: Record
    values: Callable[[], Iterator[tuple[str, Pairs]]]


def write_dump(path: Path, dumps: Iterable[Dump]) -> None:
    """Write units to a new folder, whole or not at all.

    Raises:
        OutputExistsError: something is there.
        OutputError: the disk refuses.
    """
    with replacing_folder(path, "backup") as folder:
        units = list[dict[str, Any]]()
        for number, dump in enumerate(dumps):
            name = f"unit-{number}.values"
            with (folder / name).open("xb") as file:
                tables = {
                    table: replace(dump.record.tables[table], number=k, count=_write(file, k, pairs))
                    for k, (table, pairs) in enumerate(dump.values())
                }
            record = asdict(replace(dump.record, tables=tables, number=0, owner=None))
            units.append({"unit": dump.unit, "record": record, "file": name})
        (folder / _UNITS).write_text(json.dumps(units))


def read_dump(path: Path) -> list[Dump]:
    """The units in a folder that :func:`write_dump` wrote, once all files are proved.

    Raises:
        FormatError: there is none, or it is damaged.
        MismatchError: it is something else.
    """
    manifest = read_manifest(path)
    check_artifact(manifest, path, "backup")
    for name, part in manifest.files.items():
        _check(path / name, part)
    return [_dump(path, told) for told in json.loads((path / _UNITS).read_text())]


def _dump(path: Path, told: dict[str, Any]) -> Dump:
    record = Record.read(json.dumps(told["record"]).encode())
    return Dump(told["unit"], record, lambda: _read(path / told["file"], record))


def _check(path: Path, part: Part) -> None:
    """Raises FormatError where a file is not what was written."""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == part.sha256
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}", hint="restore another backup") from error
    if not same:
        raise FormatError(f"{path} is not what was written", hint="restore another backup")


def _write(file: BinaryIO, table: int, pairs: Pairs) -> int:
    count = 0
    for key, value in pairs:
        file.write(_LENGTHS.pack(len(key), len(value), table) + key + value)
        count += 1
    return count


def _read(path: Path, record: Record) -> Iterator[tuple[str, Pairs]]:
    """Values by table, some at a time: a table may come in several pieces."""
    names = {table.number: name for name, table in record.tables.items()}
    with path.open("rb", buffering=1 << 20) as file:
        pairs, held, size = list[tuple[bytes, bytes]](), -1, 0
        while lengths := file.read(_LENGTHS.size):
            of_key, of_value, table = _LENGTHS.unpack(lengths)
            if pairs and (table != held or size > _AT_ONCE):
                yield names[held], pairs
                pairs, size = [], 0
            pairs.append((file.read(of_key), file.read(of_value)))
            held, size = table, size + of_key + of_value
        if pairs:
            yield names[held], pairs
