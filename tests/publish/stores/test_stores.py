"""What every store does: the same checks in memory, in LMDB and in a Redis server."""

import json
import shutil
import threading
from math import inf

import pytest
from clocks import Clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from acclimate.artifacts import Commit, Lease, Store
from acclimate.errors import ConfigError, FencedError, FormatError, OutputExistsError
from acclimate.publish.stores import open_store

UNIT, TABLE = "ranker/2/0", "rows/states-1"
LONG = b"t" + b"long" * 1_000
KEYS = [b"i" + bytes(8), b"t", b"\0\xff" * 9, LONG, LONG + b"er", b"x" * 480, b"x" * 481]


def written(store: Store, items: dict[bytes, bytes | None], table: str = TABLE, **more: object) -> Lease:
    """Write these as a new owner."""
    lease = store.acquire(UNIT, "writer", 10, take_over=True)
    assert lease is not None
    position = store.position(UNIT)
    store.commit(lease, Commit({table: items.items()}, position, position, **more))
    return lease


def all_of(store: Store, unit: str = UNIT, table: str = TABLE) -> dict[bytes, bytes]:
    pairs = list(store.scan(unit, table))
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def test_what_nobody_wrote_is_not_there(store):
    assert store.read(UNIT, TABLE, [b"a", b"b"]) == [None, None]
    assert store.read(UNIT, TABLE, []) == []
    assert (list(store.scan(UNIT, TABLE)), store.position(UNIT), store.units(), store.size(UNIT)) == (
        [],
        None,
        [],
        {},
    )
    assert store.leases() == []
    store.drop(UNIT)


def test_what_was_written_is_there_for_all(opening):
    first, values = opening(), {key: bytes([i]) * (100 * i) for i, key in enumerate(KEYS)}
    written(first, values)
    for store in (first, opening()):
        assert store.read(UNIT, TABLE, [*KEYS[::-1], b"none", KEYS[0]]) == [
            *list(values.values())[::-1],
            None,
            b"",
        ]
        assert all_of(store) == values
        assert (store.units(), store.size(UNIT)) == ([UNIT], {TABLE: len(KEYS)})
        assert store.read("ranker/2/1", TABLE, KEYS[:1]) == store.read(UNIT, "rows/states-2", KEYS[:1]) == [None]


def test_values_are_replaced_and_go(store):
    written(store, dict.fromkeys(KEYS, b"1"))
    written(store, {KEYS[0]: None, LONG: None, LONG + b"er": b"2", b"never": None})
    assert all_of(store) == {key: b"1" for key in KEYS[1:] if key not in (LONG, LONG + b"er")} | {
        LONG + b"er": b"2"
    }
    assert store.size(UNIT) == {TABLE: len(KEYS) - 2}


def test_many_values_are_scanned(store):
    values = {b"i" + i.to_bytes(8, "big"): str(i).encode() for i in range(10_000)}
    written(store, values)
    written(store, {b"other": b"1"}, table="rows/states-2")
    assert all_of(store) == values
    assert store.size(UNIT) == {TABLE: 10_000, "rows/states-2": 1}


def test_a_commit_moves_the_unit_from_position_to_position_once(store):
    lease = store.acquire(UNIT, "a", 10)
    commit = Commit({TABLE: [(b"a", b"1")], "shared": [(b"b", b"2")]}, "10", None)
    store.commit(lease, commit)
    assert store.position(UNIT) == "10"
    for position, after in (("10", None), ("20", "5"), (None, None)):
        with pytest.raises(FencedError, match=r"is at position 10, not at"):
            store.commit(lease, Commit({TABLE: [(b"a", b"3")], "more": [(b"c", b"3")]}, position, after))
    assert store.read(UNIT, TABLE, [b"a"]) == [b"1"]
    assert store.size(UNIT) == {TABLE: 1, "shared": 1}
    store.commit(lease, Commit({}, "20", "10"))
    assert store.position(UNIT) == "20"
    store.commit(lease, Commit({TABLE: [(b"a", b"4")]}, "20", "20"))
    assert store.read(UNIT, TABLE, [b"a"]) == [b"4"]


def test_a_writer_who_was_replaced_is_refused(opening, clock):
    store, other = opening(), opening()
    stale = store.acquire(UNIT, "a", 10)
    assert other.acquire(UNIT, "b", 10) is None
    assert other.acquire("ranker/2/1", "b", 10) is not None
    clock.now += 10
    store.commit(stale, Commit({TABLE: [(b"a", b"1")]}, "1", None))  # late, but nobody came
    fresh = other.acquire(UNIT, "b", 10)
    assert fresh.token > stale.token
    with pytest.raises(FencedError, match=r"'a' may not write 'ranker/2/0' any more: it was taken by 'b'"):
        store.commit(stale, Commit({TABLE: [(b"a", b"2")]}, "2", "1"))
    with pytest.raises(FencedError, match="taken by 'b'"):
        store.renew(stale, 10)
    store.release(stale)  # of no effect
    other.commit(fresh, Commit({TABLE: [(b"a", b"3")]}, "2", "1"))
    assert store.read(UNIT, TABLE, [b"a"]) == [b"3"]
    taken = store.acquire(UNIT, "b", 10, take_over=True)  # the same owner, begun anew
    with pytest.raises(FencedError):
        other.commit(fresh, Commit({}, "3", "2"))
    store.commit(taken, Commit({}, "3", "2"))


def test_a_lease_lasts_as_long_as_it_is_renewed(store, clock):
    lease = store.acquire(UNIT, "a", 10)
    clock.now += 9
    store.renew(lease, 10)
    clock.now += 9
    assert store.acquire(UNIT, "b", 10) is None
    (held,) = store.leases()
    assert (held.lease, held.is_expired) == (lease, False)
    clock.now += 1
    (held,) = store.leases()
    assert (held.lease, held.is_expired) == (lease, True)
    store.renew(lease, 5)  # nobody came
    assert store.acquire(UNIT, "b", 10) is None
    store.release(lease)
    assert store.leases() == []
    with pytest.raises(FencedError, match="given back"):
        store.commit(lease, Commit({}, "1", None))
    assert store.acquire(UNIT, "b", 10).token > lease.token


def test_a_unit_that_holds_nothing_is_known_for_a_day_after_its_lease(opening, clock):
    store, other = opening(), opening()
    stale = store.acquire("workers/a", "a", 10)
    store.release(store.acquire("workers/b", "b", 10))
    full = written(store, {b"a": b"1"})
    clock.now += 86_409
    assert [held.lease for held in other.leases()] == [full, stale]
    clock.now += 1
    for one in (store, other):
        assert [held.lease for held in one.leases()] == [full]
    with pytest.raises(FencedError):
        store.renew(stale, 10)
    again = store.acquire("workers/a", "a", 10)
    assert again.token > stale.token  # as if it had never gone
    with pytest.raises(FencedError):
        store.commit(stale, Commit({}, "1", None))
    assert [held.lease for held in other.leases()] == [full, again]
    assert store.acquire(UNIT, "b", 10).token == full.token + 1


def test_values_with_a_life_go_and_others_stay(store, clock):
    written(store, {b"a": b"1", b"b": b"1", LONG: b"1"}, lives={TABLE: 60.0})
    written(store, {b"a": b"2"}, "others")
    clock.now += 30
    written(store, {b"b": b"2"}, lives={TABLE: 60.0})
    written(store, {b"c": b"2"})  # into the same table, to stay
    clock.now += 30
    assert store.read(UNIT, TABLE, [b"a", b"b", b"c", LONG]) == [None, b"2", b"2", None]
    assert all_of(store) == {b"b": b"2", b"c": b"2"}
    written(store, {})
    assert store.size(UNIT) == {TABLE: 2, "others": 1}  # they are gone, not hidden
    clock.now += 60
    assert all_of(store) == {b"c": b"2"}
    written(store, {b"c": b"3"}, lives={TABLE: 1.0})
    assert all_of(store) == {b"c": b"3"}
    clock.now += 1
    assert all_of(store) == {}
    assert all_of(store, table="others") == {b"a": b"2"}


def test_a_value_that_is_written_again_to_stay_does_not_end(store, clock):
    written(store, {b"a": b"1"}, lives={TABLE: 60.0})
    written(store, {b"a": b"2"})
    clock.now += 100
    written(store, {})
    assert all_of(store) == {b"a": b"2"}


def test_a_life_is_refused_where_values_stay(store):
    written(store, {b"a": b"1"})
    with pytest.raises(ConfigError, match=r"values of 'rows/states-1' are to end after 60 seconds"):
        written(store, {b"b": b"1"}, lives={TABLE: 60.0})
    assert all_of(store) == {b"a": b"1"}


def test_a_unit_that_is_dropped_is_gone_and_its_writer_fenced(store):
    lease = written(store, dict.fromkeys(KEYS, b"1"), lives={TABLE: inf})
    store.commit(lease, Commit({"shared": [(b"a", b"1")]}, "1", None))
    other = store.acquire("ranker/3/0", "a", 10)
    store.commit(other, Commit({TABLE: [(b"a", b"1")]}, "1", None))
    store.drop(UNIT)
    assert (store.units(), store.size(UNIT), store.position(UNIT)) == (["ranker/3/0"], {}, None)
    assert store.read(UNIT, TABLE, KEYS) == [None] * len(KEYS)
    with pytest.raises(FencedError):
        store.commit(lease, Commit({TABLE: [(b"a", b"2")]}, "1", None))
    written(store, {b"b": b"2"})
    assert all_of(store) == {b"b": b"2"}
    assert all_of(store, "ranker/3/0") == {b"a": b"1"}


def test_a_backup_brings_all_back(opening, tmp_path, clock):
    store = opening()
    lease = written(store, dict.fromkeys(KEYS, b"1"))
    store.commit(lease, Commit({"ends": [(b"a", b"1")]}, "1", None, {"ends": 60.0}))
    store.backup(tmp_path / "backup")
    with pytest.raises(OutputExistsError):
        store.backup(tmp_path / "backup")
    store.commit(lease, Commit({TABLE: [(KEYS[0], b"2"), (b"new", b"2")], "new": [(b"a", b"2")]}, "2", "1"))
    later = store.acquire("ranker/3/0", "a", 10)
    store.commit(later, Commit({TABLE: [(b"a", b"1")]}, "1", None))
    store.restore(tmp_path / "backup")
    for one in (store, opening()):
        assert (all_of(one), one.position(UNIT)) == (dict.fromkeys(KEYS, b"1"), "1")
        assert one.size(UNIT) == {TABLE: len(KEYS), "ends": 1}
    assert all_of(store, "ranker/3/0") == {b"a": b"1"}  # it was not in the backup, and stays
    with pytest.raises(FencedError):
        store.commit(lease, Commit({}, "2", "1"))
    clock.now += 60
    assert all_of(store, table="ends") == {}
    written(store, {})
    assert store.size(UNIT) == {TABLE: len(KEYS)}


def test_a_backup_is_of_any_store(store, tmp_path):
    written(store, dict.fromkeys(KEYS, b"1"))
    store.backup(tmp_path / "backup")
    other = open_store(f"lmdb://{tmp_path}/other")
    other.restore(tmp_path / "backup")
    assert all_of(other) == dict.fromkeys(KEYS, b"1")
    other.close()


def test_a_backup_with_a_flipped_byte_is_refused(store, tmp_path):
    written(store, {b"a": b"1" * 99})
    store.backup(tmp_path / "backup")
    (file,) = (tmp_path / "backup").glob("unit-*")
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    with pytest.raises(FormatError, match=r"unit-0.values is not what was written"):
        store.restore(tmp_path / "backup")
    assert all_of(store) == {b"a": b"1" * 99}


def test_a_backup_while_a_writer_goes_on_is_of_one_moment(opening, tmp_path):
    """Each commit writes the same number everywhere, so that what is of two moments shows."""
    store, reader = opening(), opening()
    lease = store.acquire(UNIT, "a", 1000)
    keys, backed_up, wrong = [b"%d" % i for i in range(500)], threading.Event(), list[str]()

    def write() -> None:
        number, before = 0, None
        while not backed_up.is_set() or number < 5:
            value = str(number)
            items = [(key, value.encode()) for key in keys]
            store.commit(lease, Commit({TABLE: items, "second": items}, value, before))
            number, before = number + 1, value

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(5):
            reader.backup(tmp_path / f"backup-{i}")
    finally:
        backed_up.set()
        writer.join()
    for i in range(5):
        target = open_store(f"memory://while-{tmp_path}-{i}")
        target.restore(tmp_path / f"backup-{i}")
        position = target.position(UNIT)
        values = {*all_of(target).values(), *all_of(target, table="second").values()}
        wrong += [] if values == ({position.encode()} if position else set()) else [f"{position}: {values}"]
    assert wrong == []


def test_readers_see_a_commit_whole_or_not_at_all(opening):
    store, reader = opening(), opening()
    lease = store.acquire(UNIT, "a", 1000)
    keys, done, seen = [b"%d" % i for i in range(200)], threading.Event(), set[int]()

    def write() -> None:
        for number in range(50):
            before = None if not number else str(number - 1)
            items = [(key, str(number).encode()) for key in keys]
            store.commit(lease, Commit({TABLE: items}, str(number), before))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        seen.add(len(set(reader.read(UNIT, TABLE, keys))))
    writer.join()
    assert seen <= {1}
    assert reader.read(UNIT, TABLE, keys[:1]) == [b"49"]


def test_two_who_acquire_at_once_do_not_both_get_it(opening):
    stores, tokens, got = [opening() for _ in range(4)], list[int](), list[str]()

    def acquire(k: int) -> None:
        if stores[k].acquire(UNIT, f"first {k}", 10):
            got.append(f"first {k}")
        for _ in range(10):
            tokens.append(stores[k].acquire(UNIT, f"owner {k}", 10, take_over=True).token)

    threads = [threading.Thread(target=acquire, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tokens)) == len(tokens) == 40
    assert len(got) <= 1


class AgainstADictionary(RuleBasedStateMachine):
    """A dictionary of dictionaries does the same."""

    opening, folder, count = None, None, 0

    def __init__(self) -> None:
        super().__init__()
        self.store, self.clock = type(self).opening()
        for unit in ("a/1/0", "b/1/0"):
            self.store.drop(unit)
        self.known: dict[str, dict[str, dict[bytes, tuple[bytes, float]]]] = {"a/1/0": {}, "b/1/0": {}}
        self.position: dict[str, str | None] = {"a/1/0": None, "b/1/0": None}
        self.leases: dict[str, Lease] = {}
        self.backups: list = []

    units = st.sampled_from(["a/1/0", "b/1/0"])
    items = st.dictionaries(
        st.sampled_from([b"a", b"b", b"c", LONG, LONG + b"er"]), st.none() | st.binary(max_size=3), max_size=4
    )

    @rule(unit=units, table=st.sampled_from(["one", "two"]), items=items, ends=items)
    def commit(self, unit: str, table: str, items: dict, ends: dict) -> None:
        lease = self.leases.get(unit) or self.store.acquire(unit, "a", 1e9, take_over=True)
        self.leases[unit] = lease
        position = str(int(self.position[unit] or 0) + 1)
        writes = {table: items.items(), "ends": ends.items()}
        self.store.commit(lease, Commit(writes, position, self.position[unit], {"ends": 10.0}))
        self.position[unit] = position
        for name, those, until in ((table, items, inf), ("ends", ends, self.clock.now + 10.0)):
            held = self.known[unit].setdefault(name, {})
            for key, value in those.items():
                held.pop(key, None)
                if value is not None:
                    held[key] = value, until

    @rule(unit=units)
    def commit_of_a_stale_one(self, unit: str) -> None:
        if unit in self.leases:
            stale, self.leases[unit] = self.leases[unit], self.store.acquire(unit, "a", 1e9, take_over=True)
            with pytest.raises(FencedError):
                self.store.commit(stale, Commit({"one": [(b"a", b"stale")]}, "9", self.position[unit]))

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(unit=units)
    def drop(self, unit: str) -> None:
        self.store.drop(unit)
        self.known[unit], self.position[unit] = {}, None
        self.leases.pop(unit, None)

    @rule()
    def backup(self) -> None:
        AgainstADictionary.count += 1
        path = type(self).folder / str(AgainstADictionary.count)
        self.store.backup(path)
        copied = {u: {t: dict(v) for t, v in tables.items()} for u, tables in self.known.items()}
        self.backups.append((path, copied, dict(self.position)))

    @precondition(lambda self: self.backups)
    @rule()
    def restore(self) -> None:
        path, known, position = self.backups.pop()
        for unit in json.loads((path / "units.json").read_text()):
            name = unit["unit"]
            self.known[name] = known[name]
            self.position[name] = position[name]
            self.leases.pop(name, None)
        self.store.restore(path)
        shutil.rmtree(path)

    @invariant()
    def all_is_as_in_the_dictionary(self) -> None:
        keys = [b"a", b"b", b"c", LONG, LONG + b"er"]
        for unit, tables in self.known.items():
            assert self.store.position(unit) == self.position[unit]
            for table in ("one", "two", "ends"):
                there = {k: v for k, (v, until) in tables.get(table, {}).items() if until > self.clock.now}
                assert self.store.read(unit, table, keys) == [there.get(key) for key in keys]
                assert all_of(self.store, unit, table) == there


def test_against_a_dictionary(opening, clock: Clock, tmp_path):
    class Machine(AgainstADictionary):
        pass

    Machine.opening, Machine.folder = staticmethod(lambda: (opening(), clock)), tmp_path
    Machine.TestCase.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
    Machine.TestCase("runTest").runTest()
