"""A store in memory, for tests: by the rules of all others, and gone with the process."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from acclimate.artifacts import Commit, Held, Lease
from acclimate.publish.stores.dumps import Dump, read_dump, write_dump
from acclimate.publish.stores.records import Items, Record, ending, items_of, living, until_of


@dataclass
class _Unit:
    record: Record = field(default_factory=Record)
    tables: dict[str, dict[bytes, bytes]] = field(default_factory=dict[str, dict[bytes, bytes]])


class MemoryStore:
    """See :class:`acclimate.artifacts.Store`; ``clock`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.RLock()
        self._units: dict[str, _Unit] = {}

    def __deepcopy__(self, _: dict[int, object]) -> "MemoryStore":
        return self  # as others, it is one place however many speak of it

    def read(self, unit: str, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`acclimate.artifacts.Store.read`."""
        with self._lock:
            known, record = self._known(unit), self._known(unit).record
            held = known.tables.get(table, {})
            values = [held.get(key) for key in keys]
            is_mortal = table in record.tables and record.tables[table].is_mortal
            return living(values, self._clock()) if is_mortal else values

    def scan(self, unit: str, table: str) -> Iterator[tuple[bytes, bytes]]:
        """See :meth:`acclimate.artifacts.Store.scan`."""
        with self._lock:
            keys = list(self._known(unit).tables.get(table, {}))
            values = self.read(unit, table, keys)
        yield from ((key, value) for key, value in zip(keys, values, strict=True) if value is not None)

    def position(self, unit: str) -> str | None:
        """See :meth:`acclimate.artifacts.Store.position`."""
        with self._lock:
            return self._known(unit).record.position

    def acquire(self, unit: str, owner: str, seconds: float, *, take_over: bool = False) -> Lease | None:
        """See :meth:`acclimate.artifacts.Store.acquire`."""
        with self._lock:
            now = self._clock()
            held = self._units.setdefault(unit, _Unit())
            record = held.record.taken(owner, now + seconds, now, take_over=take_over)
            if record is None:
                return None
            held.record = record
            return Lease(unit, owner, record.token)

    def renew(self, lease: Lease, seconds: float) -> None:
        """See :meth:`acclimate.artifacts.Store.renew`."""
        with self._lock:
            record = self._known(lease.unit).record
            record.check(lease)
            self._units[lease.unit].record = replace(record, until=self._clock() + seconds)

    def release(self, lease: Lease) -> None:
        """See :meth:`acclimate.artifacts.Store.release`."""
        with self._lock:
            if lease.unit in self._units:
                self._units[lease.unit].record = self._units[lease.unit].record.released(lease)

    def leases(self) -> list[Held]:
        """See :meth:`acclimate.artifacts.Store.leases`."""
        with self._lock:
            now = self._clock()
            self._units = {name: one for name, one in self._units.items() if not one.record.is_over(now)}
            all_of_them = (one.record.held(name, now) for name, one in sorted(self._units.items()))
            return [held for held in all_of_them if held is not None]

    def commit(self, lease: Lease, commit: Commit) -> None:
        """See :meth:`acclimate.artifacts.Store.commit`."""
        writes = items_of(commit)
        with self._lock:
            record = self._known(lease.unit).record.after(lease, commit).with_tables(commit, writes)
            held, now = self._units[lease.unit], self._clock()
            for name, items in writes.items():
                if record.tables[name].is_mortal:
                    items = ending(items, now + commit.lives.get(name, inf))
                record = record.counted(name, _written(held.tables.setdefault(name, {}), items))
            for name, table in record.tables.items():
                if table.is_mortal:
                    held.tables[name] = {k: v for k, v in held.tables[name].items() if until_of(v) > now}
                    record = record.counted(name, len(held.tables[name]))
            held.record = record

    def units(self) -> list[str]:
        """See :meth:`acclimate.artifacts.Store.units`."""
        with self._lock:
            return sorted(name for name, held in self._units.items() if held.record)

    def drop(self, unit: str) -> None:
        """See :meth:`acclimate.artifacts.Store.drop`."""
        with self._lock:
            self._units[unit] = _Unit(self._known(unit).record.emptied())

    def size(self, unit: str) -> dict[str, int]:
        """See :meth:`acclimate.artifacts.Store.size`."""
        with self._lock:
            return {name: table.count for name, table in self._known(unit).record.tables.items() if table.count}

    def backup(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.backup`."""
        with self._lock:
            write_dump(path, [self._dump(name, self._units[name]) for name in self.units()])

    def restore(self, path: Path) -> None:
        """See :meth:`acclimate.artifacts.Store.restore`."""
        for dump in read_dump(path):
            tables: dict[str, dict[bytes, bytes]] = {}
            for name, pairs in dump.values():
                tables.setdefault(name, {}).update(pairs)
            with self._lock:
                record = self._known(dump.unit).record.replaced(dump.record)
                self._units[dump.unit] = _Unit(record, tables)

    def close(self) -> None:
        """See :meth:`acclimate.artifacts.Store.close`; others who have it by its name go on."""

    def _known(self, unit: str) -> _Unit:
        return self._units.get(unit) or _Unit()

    def _dump(self, name: str, unit: _Unit) -> Dump:
        return Dump(name, unit.record, lambda: ((table, values.items()) for table, values in unit.tables.items()))


def _written(values: dict[bytes, bytes], items: Items) -> int:
    """Write these, and how many there are then."""
    for key, value in items:
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    return len(values)
