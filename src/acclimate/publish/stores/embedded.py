"""A store in one LMDB file: for all processes of one machine, durable when a commit returns.

What is known of a unit is one record in ``units``, its number among it. Values lie in ``values`` under the numbers
of unit and table and the key, so that a table lies together; ``due`` has those that end, by the time that they do.
"""

import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

import lmdb

from acclimate.artifacts import Commit, Held, Lease
from acclimate.errors import FormatError, OutputError, OutputExistsError
from acclimate.publish.stores.dumps import Dump, Pairs, read_dump, write_dump
from acclimate.publish.stores.records import Items, Record, ending, items_of, living, until_of
from acclimate.storage.locks import sync
from acclimate.storage.places import telling

R = TypeVar("R")
Txn: TypeAlias = "lmdb.Transaction[bytes]"

_TABLE = struct.Struct(">IH")
"""What the keys of a table begin with: the numbers of unit and table."""

_DUE = struct.Struct(">Id")
"""What the keys of values that end begin with: the number of the unit and the time; positive ones sort by it."""

_LONGEST = 480
"""Bytes of a key that is written as it is: LMDB takes 511, with all that stands before it."""

_HASHED = _TABLE.size + _LONGEST + 8
"""Bytes of the key of a longer one, which no other key has: its hash, and the key itself before the value."""

_AT_ONCE = 4096
"""Values that are scanned, or removed, in one transaction."""

_SWEPT = 20_000
"""Values whose time is up that a commit removes at most."""


class EmbeddedStore:
    """See :class:`acclimate.artifacts.Store`.

    Args:
        path: of a folder, which is made where it is not there.
        map_size: bytes that the file may have; where it is full it is allowed twice as many.
        clock: seconds since 1970; all processes of one store must agree on it.

    Raises:
        OutputError: the folder cannot be opened.
        FormatError: what is there is no store.
    """

    def __init__(
        self, path: str | Path, *, map_size: int = 1 << 28, clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self._clock = Path(path).resolve(), clock
        self._file = _File.opened(self.path, map_size)

    def __deepcopy__(self, _: dict[int, object]) -> "EmbeddedStore":
        return self  # it is one file, however many speak of it

    def read(self, unit: str, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`acclimate.artifacts.Store.read`."""
        with self._file.reading() as txn:
            record = self._record(txn, unit)
            if table not in record.tables:
                return [None] * len(keys)
            start = _TABLE.pack(record.number, record.tables[table].number)
            values = self._values(txn, _physical(start, keys), keys)
        return living(values, self._clock()) if record.tables[table].is_mortal else values

    def scan(self, unit: str, table: str) -> Iterator[tuple[bytes, bytes]]:
        """See :meth:`acclimate.artifacts.Store.scan`; some at a time are of one moment."""
        after = b""
        while True:
            with self._file.reading() as txn:
                record = self._record(txn, unit)
                known = record.tables.get(table)
                if known is None:
                    return
                start = _TABLE.pack(record.number, known.number)
                some = list(self._from(txn, start, after or start, _AT_ONCE))
            if not some:
                return
            after = some[-1][0] + b"\0"
            logical = [_logical(key, value) for key, value in some]
            if known.is_mortal:
                values = living([value for _, value in logical], self._clock())
                yield from ((key, v) for (key, _), v in zip(logical, values, strict=True) if v is not None)
            else:
                yield from logical

    def position(self, unit: str) -> str | None:
        """See :meth:`acclimate.artifacts.Store.position`."""
        with self._file.reading() as txn:
            return self._record(txn, unit).position

    def acquire(self, unit: str, owner: str, seconds: float, *, take_over: bool = False) -> Lease | None:
        """See :meth:`acclimate.artifacts.Store.acquire`."""

        def work(txn: Txn) -> Lease | None:
            now = self._clock()
            record = self._record(txn, unit).taken(owner, now + seconds, now, take_over=take_over)
            if record is None:
                return None
            self._put(txn, unit, record)
            return Lease(unit, owner, record.token)

        return self._file.write(work)

    def renew(self, lease: Lease, seconds: float) -> None:
        """See :meth:`acclimate.artifacts.Store.renew`."""

        def work(txn: Txn) -> None:
            record = self._record(txn, lease.unit)
            record.check(lease)
            self._put(txn, lease.unit, replace(record, until=self._clock() + seconds))

        self._file.write(work)

    def release(self, lease: Lease) -> None:
        """See :meth:`acclimate.artifacts.Store.release`."""
        self._file.write(lambda txn: self._put(txn, lease.unit, self._record(txn, lease.unit).released(lease)))

    def leases(self) -> list[Held]:
        """See :meth:`acclimate.artifacts.Store.leases`."""
        self._file.look()
        now = self._clock()
        with self._file.reading() as txn:
            records = self._records(txn)
        if any(record.is_over(now) for _, record in records):
            self._file.write(lambda txn: self._drop_over(txn, now))
        all_of_them = (record.held(unit, now) for unit, record in records if not record.is_over(now))
        return [held for held in all_of_them if held is not None]

    def commit(self, lease: Lease, commit: Commit) -> None:
        """See :meth:`acclimate.artifacts.Store.commit`."""
        writes = {name: sorted(items) for name, items in items_of(commit).items()}

        def work(txn: Txn) -> None:
            now = self._clock()
            record = self._record(txn, lease.unit).after(lease, commit).with_tables(commit, writes)
            record = self._swept(txn, self._numbered(txn, record), now)
            for name, items in writes.items():
                table = record.tables[name]
                start, until = _TABLE.pack(record.number, table.number), now + commit.lives.get(name, inf)
                if table.is_mortal:
                    items = ending(items, until)
                    self._forget_ends(txn, start, [key for key, _ in items])
                    self._note_ends(txn, start, items, until)
                record = record.counted(name, table.count + self._written(txn, start, items))
            self._put(txn, lease.unit, record)

        self._file.write(work)

    def units(self) -> list[str]:
        """See :meth:`acclimate.artifacts.Store.units`."""
        with self._file.reading() as txn:
            return [unit for unit, record in self._records(txn) if record]

    def drop(self, unit: str) -> None:
        """See :meth:`acclimate.artifacts.Store.drop`; what it held goes in several transactions."""

        def first(txn: Txn) -> int:
            record = self._record(txn, unit)
            self._put(txn, unit, record.emptied())
            self._abandon(txn, record.number)
            return record.number

        self._file.write(first)
        self._clear()

    def size(self, unit: str) -> dict[str, int]:
        """See :meth:`acclimate.artifacts.Store.size`; what has ended counts until a commit comes after it."""
        with self._file.reading() as txn:
            tables = self._record(txn, unit).tables
            return {name: table.count for name, table in tables.items() if table.count}

    def backup(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.backup`; all units are of one moment."""
        with self._file.reading() as txn:
            records = [(unit, record) for unit, record in self._records(txn) if record]
            write_dump(path, (Dump(unit, record, self._tables(txn, record)) for unit, record in records))

    def restore(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.restore`; a unit is replaced in one transaction."""
        for dump in read_dump(path):
            self._file.write(lambda txn, dump=dump: self._restored(txn, dump))
        self._clear()

    def compact(self, path: Path) -> None:
        """Write all values to a new folder, a store as well, while writers go on; writers there begin anew.

        What was removed may lie in free pages of a file, and in gaps of others, until these are used again. In the
        copy there is nothing but what is there, and it is as small as it can be.

        Raises:
            OutputExistsError: something is there.
            OutputError: the disk refuses.
        """
        if path.exists():
            raise OutputExistsError(f"{path} is taken", hint="choose another place")
        partial = path.with_name(f".{path.name}.partial")
        with telling(path):
            shutil.rmtree(partial, ignore_errors=True)
            copy = EmbeddedStore(partial)
            try:
                with self._file.reading() as txn:
                    for unit, record in self._records(txn):
                        dump = Dump(unit, record, self._tables(txn, record))
                        copy._file.write(lambda there, dump=dump: copy._restored(there, dump))
            finally:
                copy.close()
            partial.rename(path)
            sync(path.parent)

    def close(self) -> None:
        """See :meth:`acclimate.artifacts.Store.close`."""
        self._file.release()

    # --- what is in the file ---------------------------------------------------------------------------------

    def _record(self, txn: Txn, unit: str) -> Record:
        return Record.read(txn.get(unit.encode(), db=self._file.units))

    def _records(self, txn: Txn) -> list[tuple[str, Record]]:
        with txn.cursor(self._file.units) as cursor:
            return [(key.decode(), Record.read(value)) for key, value in cursor if not key.startswith(b"\0")]

    def _put(self, txn: Txn, unit: str, record: Record) -> None:
        txn.put(unit.encode(), record.written(), db=self._file.units)

    def _drop_over(self, txn: Txn, now: float) -> None:
        for unit, record in self._records(txn):
            if record.is_over(now):
                txn.delete(unit.encode(), db=self._file.units)

    def _numbered(self, txn: Txn, record: Record) -> Record:
        """With a number, from 1 on, that no unit ever had."""
        if record.number:
            return record
        number = int.from_bytes(txn.get(b"\0last", b"", db=self._file.units), "big") + 1
        txn.put(b"\0last", number.to_bytes(4, "big"), db=self._file.units)
        return replace(record, number=number)

    def _values(self, txn: Txn, physical: Sequence[bytes], keys: Sequence[bytes]) -> list[bytes | None]:
        with txn.cursor(self._file.values) as cursor:
            pairs = cursor.getmulti(physical)
        if len(pairs) == len(physical):
            values: list[bytes | None] = [value for _, value in pairs]
        else:
            values = list(map(dict(pairs).get, physical))
        if max(map(len, keys), default=0) <= _LONGEST:
            return values
        return [
            _without_key(value, key) if value is not None and len(key) > _LONGEST else value
            for key, value in zip(keys, values, strict=True)
        ]

    def _written(self, txn: Txn, start: bytes, items: Items) -> int:
        """Write these, and how many values there are more than before."""
        before = txn.stat(self._file.values)["entries"]
        physical = _physical(start, [key for key, _ in items])
        there = [
            (place, value if len(place) < _HASHED else _with_key(key, value))
            for place, (key, value) in zip(physical, items, strict=True)
            if value is not None
        ]
        with txn.cursor(self._file.values) as cursor:
            cursor.putmulti(there)
        if len(there) < len(items):
            for place, (_, value) in zip(physical, items, strict=True):
                if value is None:
                    txn.delete(place, db=self._file.values)
        return txn.stat(self._file.values)["entries"] - before

    def _forget_ends(self, txn: Txn, start: bytes, keys: Sequence[bytes]) -> None:
        physical, number = _physical(start, keys), _TABLE.unpack(start)[0]
        for place, value in zip(physical, self._values(txn, physical, keys), strict=True):
            if value is not None:
                txn.delete(_DUE.pack(number, until_of(value)) + place[4:], db=self._file.due)

    def _note_ends(self, txn: Txn, start: bytes, items: Items, until: float) -> None:
        if until == inf:
            return
        due = _DUE.pack(_TABLE.unpack(start)[0], until)
        physical = _physical(start, [key for key, value in items if value is not None])
        with txn.cursor(self._file.due) as cursor:
            cursor.putmulti([(due + place[4:], b"") for place in physical])

    def _swept(self, txn: Txn, record: Record, now: float) -> Record:
        """Remove values of a unit whose time is up, of many some."""
        if not any(table.is_mortal for table in record.tables.values()):
            return record
        number, names = _TABLE.pack(record.number, 0)[:4], {t.number: n for n, t in record.tables.items()}
        with txn.cursor(self._file.due) as cursor:  # which has of each value that ends its last end alone
            ended = cursor.set_range(number)
            for _ in range(_SWEPT):
                key = cursor.key() if ended else b""
                if not key.startswith(number) or _DUE.unpack_from(key)[1] > now:
                    break
                place = number + key[_DUE.size :]
                if txn.delete(place, db=self._file.values):
                    name = names[_TABLE.unpack_from(place)[1]]
                    record = record.counted(name, record.tables[name].count - 1)
                ended = cursor.delete()
        return record

    def _from(self, txn: Txn, start: bytes, first: bytes, most: int) -> Pairs:
        """Keys that begin so, from one of them on, as they are written."""
        with txn.cursor(self._file.values) as cursor:
            if not cursor.set_range(first):
                return
            for count, (key, value) in enumerate(cursor):
                if count == most or not key.startswith(start):
                    return
                yield key, value

    def _tables(self, txn: Txn, record: Record) -> Callable[[], Iterator[tuple[str, Pairs]]]:
        def pairs(number: int) -> Pairs:
            start = _TABLE.pack(record.number, number)
            return (_logical(key, value) for key, value in self._from(txn, start, start, -1))

        return lambda: ((name, pairs(table.number)) for name, table in record.tables.items())

    def _restored(self, txn: Txn, dump: Dump) -> None:
        before = self._record(txn, dump.unit)
        self._abandon(txn, before.number)
        record = self._numbered(txn, replace(before.replaced(dump.record), number=0))
        for name, pairs in dump.values():
            start = _TABLE.pack(record.number, record.tables[name].number)
            self._written(txn, start, list(pairs))
            if record.tables[name].is_mortal:
                for key, value in pairs:
                    self._note_ends(txn, start, [(key, value)], until_of(value))
        self._put(txn, dump.unit, record)

    def _abandon(self, txn: Txn, number: int) -> None:
        """Note that a number is no unit's any more, so that what is left of it goes even after a kill."""
        if number:
            txn.put(b"\0gone" + _TABLE.pack(number, 0)[:4], b"", db=self._file.units)

    def _clear(self) -> None:
        """Remove what is of no unit any more, some in each transaction."""

        def some(txn: Txn) -> bool:
            with txn.cursor(self._file.units) as cursor:
                if not cursor.set_range(b"\0gone") or not cursor.key().startswith(b"\0gone"):
                    return False
                gone = cursor.key()
                left = sum(self._removed(txn, db, gone[5:]) for db in (self._file.values, self._file.due))
                return bool(left or cursor.delete())

        while self._file.write(some):
            pass

    def _removed(self, txn: Txn, db: "lmdb._Database", start: bytes) -> int:
        with txn.cursor(db) as cursor:
            there, count = cursor.set_range(start), 0
            while there and count < _AT_ONCE and cursor.key().startswith(start):
                there, count = cursor.delete(), count + 1
        return count


class _File:
    """An environment of LMDB, which a process must not open twice; ``units``, ``values`` and ``due`` are in it.

    Who makes it larger waits until nobody in this process is in a transaction.
    """

    _open: ClassVar[dict[tuple[int, Path], "_File"]] = {}
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, map_size: int) -> None:
        self.path, self.users = path, 0
        self._active, self._idle = 0, threading.Condition()
        path.mkdir(parents=True, exist_ok=True)
        self.environment = lmdb.open(str(path), map_size=map_size, max_dbs=3, max_readers=1024)
        self.units, self.values, self.due = (
            self.environment.open_db(name) for name in (b"units", b"values", b"due")
        )
        self.environment.reader_check()
        self._identity = self._is_now()

    @staticmethod
    def opened(path: Path, map_size: int) -> "_File":
        with _File._opening:
            file = _File._open.get((os.getpid(), path))
            if file is None:
                with telling(path), _telling(path):
                    file = _File._open[os.getpid(), path] = _File(path, map_size)
            file.users += 1
            return file

    def release(self) -> None:
        with _File._opening:
            self.users -= 1
            if not self.users:
                del _File._open[os.getpid(), self.path]
                self.environment.close()

    def look(self) -> None:
        """See whether the file is still there, and let go of what processes that were killed were reading.

        A reader that nobody lets go of keeps every page that he could have seen from being used again.

        Raises:
            OutputError: the file was removed, or another one is in its place.
        """
        self._check_place()
        with _telling(self.path):
            self.environment.reader_check()

    def _is_now(self) -> tuple[int, int] | None:
        try:
            there = (self.path / "data.mdb").stat()
        except OSError:
            return None
        return there.st_dev, there.st_ino

    def _check_place(self) -> None:
        """Raises OutputError where nobody would find what is written."""
        if (now := self._is_now()) != self._identity:
            raise OutputError(
                f"the store {self.path} was {'removed' if now is None else 'replaced'} while it was open; "
                "nothing was written",
                hint="start this process again, to use what is there now",
            )

    def telling(self) -> AbstractContextManager[None]:
        """What LMDB refuses in the block is an error of the tree."""
        return _telling(self.path)

    @contextmanager
    def using(self) -> Generator[lmdb.Environment]:
        """The environment, which keeps its size as long."""
        with self._idle:
            self._active += 1
        try:
            yield self.environment
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    @contextmanager
    def reading(self) -> Generator[Txn]:
        """A transaction that reads, of one moment.

        Raises:
            OutputError: LMDB refuses.
        """
        with _telling(self.path), ExitStack() as stack:
            environment = stack.enter_context(self.using())
            try:
                txn = environment.begin()
            except lmdb.ReadersFullError:
                environment.reader_check()
                txn = environment.begin()
            except lmdb.MapResizedError:  # by another process
                stack.close()
                self._resize(0)
                txn = stack.enter_context(self.using()).begin()
            yield stack.enter_context(txn)

    def write(self, work: Callable[[Txn], R]) -> R:
        """What work gives in a transaction that writes, all of it or, where it raises, nothing.

        Raises:
            OutputError: the disk is full, the file was removed, or LMDB refuses; nothing was written.
        """
        self._check_place()
        with _telling(self.path):
            while True:
                try:
                    with self.using() as environment, environment.begin(write=True) as txn:
                        return work(txn)
                except lmdb.MapFullError:
                    self._resize(2 * self.environment.info()["map_size"])
                except lmdb.MapResizedError:
                    self._resize(0)

    def _resize(self, size: int) -> None:
        with self._idle:
            self._idle.wait_for(lambda: not self._active)
            self.environment.set_mapsize(size)


@contextmanager
def _telling(path: Path) -> Generator[None]:
    """What LMDB refuses in the block is an error of the tree."""
    try:
        yield
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PageNotFoundError) as error:
        raise FormatError(f"the store {path} is damaged: {error}", hint="restore a backup") from error
    except lmdb.Error as error:
        raise OutputError(
            f"the store {path} cannot be read or written: {error}; nothing was written",
            hint="see to the space on its disk, and try again",
        ) from error


def _physical(start: bytes, keys: Sequence[bytes]) -> list[bytes]:
    if max(map(len, keys), default=0) <= _LONGEST:
        return [start + key for key in keys]
    return [start + key if len(key) <= _LONGEST else start + _hash(key) for key in keys]


def _hash(key: bytes) -> bytes:
    return blake2b(key, digest_size=32).digest().ljust(_HASHED - _TABLE.size, b"\0")


def _with_key(key: bytes, value: bytes) -> bytes:
    return len(key).to_bytes(4, "little") + key + value


def _without_key(value: bytes, key: bytes) -> bytes | None:
    there = value[4 : 4 + int.from_bytes(value[:4], "little")]
    return value[4 + len(key) :] if there == key else None


def _logical(physical: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Key and value as they were given."""
    if len(physical) < _HASHED:
        return physical[_TABLE.size :], value
    length = int.from_bytes(value[:4], "little")
    return value[4 : 4 + length], value[4 + length :]
