"""A store in an LMDB file: it grows, a full disk and kills leave it whole, and what is forgotten is cleared."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.artifacts import Commit
from acclimate.errors import FormatError, OutputError, OutputExistsError
from acclimate.publish.stores import open_store
from acclimate.publish.stores.embedded import EmbeddedStore

UNIT, TABLE = "ranker/2/0", "rows/states-1"

WRITER = """
import sys
from acclimate.artifacts import Commit
from acclimate.publish.stores import open_store

store = open_store(sys.argv[1])
lease, position = store.acquire("ranker/2/0", "child", 60, take_over=True), store.position("ranker/2/0")
for number in range(int(position or 0) + 1, int(sys.argv[2])):
    value = str(number).encode() * int(sys.argv[3])
    writes = {table: [(b"%d" % key, value) for key in range(100)] for table in ("rows/states-1", "second")}
    store.commit(lease, Commit(writes, str(number), position))
    position = str(number)
    print(number, flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


def writer(place: Path, last: int, size: int = 1) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, f"lmdb://{place}?map_size=1000000", str(last), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_it_grows_as_it_has_to(place):
    store = open_store(f"lmdb://{place}?map_size=100000")
    lease = store.acquire(UNIT, "a", 60)
    big = [(b"%d" % i, b"x" * 1_000) for i in range(3_000)]
    store.commit(lease, Commit({TABLE: iter(big)}, "1", None))  # what is read once is written whole all the same
    assert (store.size(UNIT), store.read(UNIT, TABLE, [b"2999"])) == ({TABLE: 3_000}, [b"x" * 1_000])
    store.close()


def test_one_process_sees_what_another_has_made_larger(place):
    store = open_store(f"lmdb://{place}?map_size=1000000")
    assert store.units() == []
    child = writer(place, 30, size=2_000)
    out, _ = child.communicate()
    assert child.returncode == 0
    assert out.split()[-1] == store.position(UNIT) == "29"
    lease = store.acquire(UNIT, "a", 60, take_over=True)
    store.commit(lease, Commit({TABLE: [(b"0", b"mine")]}, "30", "29"))
    assert store.read(UNIT, TABLE, [b"0", b"1"]) == [b"mine", b"29" * 2_000]
    store.close()


def test_a_full_disk_leaves_what_was(place, no_file_beyond):
    store = open_store(f"lmdb://{place}")
    lease = store.acquire(UNIT, "a", 60)
    store.commit(lease, Commit({TABLE: [(b"a", b"1")]}, "1", None))
    size = (place / "data.mdb").stat().st_size
    big = [(b"%d" % i, b"x" * 1_000) for i in range(3_000)]
    with no_file_beyond(size + 4096), pytest.raises(OutputError, match="nothing was written"):
        store.commit(lease, Commit({TABLE: big}, "2", "1"))
    assert (store.position(UNIT), store.size(UNIT)) == ("1", {TABLE: 1})
    store.commit(lease, Commit({TABLE: big}, "2", "1"))
    assert store.size(UNIT) == {TABLE: 3_001}
    store.close()


def test_kills_leave_whole_commits(place):
    store = open_store(f"lmdb://{place}?map_size=1000000")
    for kill in range(8):
        child = writer(place, 1_000_000)
        assert child.stdout is not None
        for _ in range(1 + 3 * kill):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        position = store.position(UNIT)
        assert position is not None
        assert not rest or int(position) >= int(rest[-1])  # what was told to be committed is there
        for table in (TABLE, "second"):
            assert {value for _, value in store.scan(UNIT, table)} == {position.encode()}
    store.close()


def test_a_process_opens_a_file_once_and_closes_it_with_the_last(place):
    first, second = open_store(f"lmdb://{place}"), EmbeddedStore(str(place) + "/../store")
    lease = first.acquire(UNIT, "a", 60)
    first.close()
    second.commit(lease, Commit({TABLE: [(b"a", b"1")]}, "1", None))
    second.close()
    third = EmbeddedStore(place)
    assert third.position(UNIT) == "1"
    third.close()


def test_what_is_no_store_is_told(place):
    place.mkdir()
    (place / "data.mdb").write_bytes(b"something else" * 1_000)
    with pytest.raises(FormatError, match=r"store is damaged"):
        open_store(f"lmdb://{place}")


def test_nothing_is_left_in_a_compact_copy(place, tmp_path):
    store = EmbeddedStore(place)
    lease = store.acquire(UNIT, "a", 60)
    secret, known = b"t the id of somebody", b"what is known of somebody" * 10
    for values in (known, None):
        items = [(secret, values), (b"t" + secret * 40, values), *((b"%d" % i, b"others") for i in range(500))]
        store.commit(lease, Commit({TABLE: items, "ends": items}, None, None, {"ends": 60.0}))
    assert [key for key, _ in store.scan(UNIT, TABLE) if secret in key] == []
    store.compact(tmp_path / "copy")
    store.close()
    raw = (tmp_path / "copy" / "data.mdb").read_bytes()
    assert (b"others" in raw, secret in raw, known[:25] in raw) == (True, False, False)
    copy = EmbeddedStore(tmp_path / "copy")
    assert copy.size(UNIT) == {TABLE: 500, "ends": 500}
    with pytest.raises(OutputExistsError):
        copy.compact(tmp_path / "copy")
    copy.close()


def test_what_was_dropped_is_removed_in_pieces_even_after_a_kill(place, monkeypatch):
    from acclimate.publish.stores import embedded

    monkeypatch.setattr(embedded, "_AT_ONCE", 10)
    store = EmbeddedStore(place)
    lease = store.acquire(UNIT, "a", 60)
    store.commit(lease, Commit({TABLE: [(b"%d" % i, b"x") for i in range(95)]}, "1", None))
    clear = store._clear
    monkeypatch.setattr(store, "_clear", lambda: None)
    store.drop(UNIT)  # killed here, it would be
    assert (store.units(), values_in(store)) == ([], 95)
    monkeypatch.setattr(store, "_clear", clear)
    store.drop("another/1/0")
    assert values_in(store) == 0
    store.close()


def values_in(store: EmbeddedStore) -> int:
    with store._file.reading() as txn:
        return txn.stat(store._file.values)["entries"]


def test_a_backup_says_what_is_in_it(place, tmp_path):
    store = EmbeddedStore(place)
    lease = store.acquire(UNIT, "a", 60)
    store.commit(lease, Commit({TABLE: [(b"a", b"1")]}, "7", None))
    store.backup(tmp_path / "backup")
    (told,) = json.loads((tmp_path / "backup" / "units.json").read_text())
    assert (told["unit"], told["record"]["position"]) == (UNIT, "7")
    assert told["record"]["tables"][TABLE]["count"] == 1
    store.close()


def test_a_scan_that_is_left_alone_holds_nobody_up(place):
    store = open_store(f"lmdb://{place}?map_size=100000")
    lease = store.acquire(UNIT, "a", 60)
    store.commit(lease, Commit({TABLE: [(b"%d" % i, b"1") for i in range(10)]}, "1", None))
    scan: Iterator[tuple[bytes, bytes]] = store.scan(UNIT, TABLE)
    next(scan)
    store.commit(lease, Commit({TABLE: [(b"%d" % i, b"x" * 1_000) for i in range(3_000)]}, "2", "1"))
    assert store.position(UNIT) == "2"
    store.close()


READER = """
import sys
from acclimate.publish.stores import open_store

store = open_store(sys.argv[1])
with store._file.reading() as txn:
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_a_reader_that_was_killed_holds_nothing_up(place):
    store = open_store(f"lmdb://{place}")
    lease, position = store.acquire(UNIT, "a", 60), None

    def rewritten(number: int) -> int:
        nonlocal position
        items = [(b"%d" % i, str(number).encode() * 100) for i in range(1_000)]
        store.commit(lease, Commit({TABLE: items}, str(number), position))
        position = str(number)
        return (place / "data.mdb").stat().st_size

    for number in range(10, 20):
        size = rewritten(number)
    command = [sys.executable, "-c", READER, f"lmdb://{place}"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "reading\n"
    child.kill()
    child.wait()
    child.stdout.close()
    child.stdin.close()
    held = rewritten(20)  # of what it was reading, a copy
    store.leases()
    assert max(rewritten(number) for number in range(21, 60)) <= held + size // 2
    store.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_is_gone_is_told(place, is_replaced):
    store = open_store(f"lmdb://{place}")
    lease = store.acquire(UNIT, "a", 60)
    store.commit(lease, Commit({TABLE: [(b"a", b"1")]}, "1", None))
    place.rename(place.with_name("elsewhere"))
    if is_replaced:
        place.mkdir()
        (place / "data.mdb").write_bytes(b"another")
    for action in (store.leases, lambda: store.commit(lease, Commit({}, "2", "1"))):
        with pytest.raises(OutputError, match="was replaced while" if is_replaced else "was removed while"):
            action()
    place.rename(place.with_name("other")) if is_replaced else None
    place.with_name("elsewhere").rename(place)
    store.commit(lease, Commit({}, "2", "1"))
    store.close()
