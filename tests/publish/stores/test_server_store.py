"""A store in a Redis server: users, TLS, answers that are lost, and servers that are slow, gone or killed."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from store_servers import free_port, needs, redis_server

from acclimate.artifacts import Commit, Store
from acclimate.errors import ConfigError, FencedError, OutputError
from acclimate.publish.stores import open_store
from acclimate.publish.stores.server import ServerStore

UNIT, TABLE = "ranker/2/0", "rows/states-1"


@contextmanager
def opened(url: str) -> Generator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def written(store: Store, position: str, after: str | None, value: bytes = b"1") -> None:
    lease = store.acquire(UNIT, "writer", 60, take_over=True)
    store.commit(lease, Commit({TABLE: [(b"a", value)], "other": [(b"b", value)]}, position, after))


def test_a_user_with_a_password_and_the_keys_of_acclimate_alone_will_do(tmp_path):
    acl = tmp_path / "users.acl"
    acl.write_text("user default off\nuser worker on >pä:ss ~acclimate:* +@all -@dangerous\n")
    with redis_server(tmp_path, "--aclfile", str(acl), username="worker", password="pä:ss") as port:
        with opened(f"redis://worker:p%C3%A4%3Ass@127.0.0.1:{port}/0") as store:
            written(store, "1", None)
            store.backup(tmp_path / "backup")
            store.restore(tmp_path / "backup")
            store.drop(UNIT)
            assert store.leases() == []
        for wrong in ("", "worker:wrong@"):
            with pytest.raises(ConfigError, match="refuses this user") as told:
                open_store(f"redis://{wrong}127.0.0.1:{port}/0")
            assert "wrong@" not in str(told.value)


def test_a_server_speaks_by_tls(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [needs("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    options += [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
    ]
    with redis_server(tmp_path, *options, port=port, ssl=True, ssl_ca_certs=str(certificate), host="localhost"):
        with opened(f"rediss://localhost:{port}?ssl_ca_certs={certificate}") as store:
            written(store, "1", None)
            assert store.read(UNIT, TABLE, [b"a"]) == [b"1"]
        with pytest.raises(OutputError, match="cannot be reached"):  # whom it does not trust it does not talk to
            open_store(f"rediss://localhost:{port}")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("redis://127.0.0.1:1", OutputError, "127.0.0.1:1 cannot be reached"),
        ("redis://127.0.0.1:1?no_option=1", ConfigError, "no_option"),
        ("redis://127.0.0.1:1?socket_timeout=soon", ConfigError, "socket_timeout"),
        ("http://host", ConfigError, "'http' is no store"),
        ("lmdb://", ConfigError, "no folder in"),
        ("lmdb://x?mapsize=5", ConfigError, "'mapsize' in"),
        ("lmdb://x?map_size=large", ConfigError, "is no number"),
    ],
)
def test_what_is_no_store(url, error, message):
    with pytest.raises(error, match=message):
        open_store(url)


@contextmanager
def between(port: int) -> Generator[tuple[int, list[str]]]:
    """A wire to a server, cut once for each entry: before a commit reaches it, or before its answer returns."""
    cuts, listener = list[str](), socket.create_server(("127.0.0.1", 0))

    def carry(near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            while question := near.recv(1 << 20):
                commits = question.endswith(b"EXEC\r\n")
                cut = cuts.pop() if commits and cuts else ""
                if cut == "question":
                    return
                far.sendall(question)
                if question.endswith(b"\r\n") or commits:
                    answer = far.recv(1 << 20)
                    if cut == "answer":
                        return
                    near.sendall(answer)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            carry(near)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], cuts
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("cut", ["question", "answer"])
def test_a_commit_whose_answer_is_lost_is_made_once(redis_port, cut):
    with between(redis_port) as (port, cuts), opened(f"redis://127.0.0.1:{port}") as store:
        store.drop(UNIT)
        lease = store.acquire(UNIT, "writer", 60)
        cuts.append(cut)
        store.commit(lease, Commit({TABLE: [(b"a", b"1")]}, "1", None))
        assert cuts == []
        assert (store.position(UNIT), store.read(UNIT, TABLE, [b"a"])) == ("1", [b"1"])
        cuts.append(cut)
        store.commit(lease, Commit({TABLE: [(b"a", b"2")]}, "1", "1"))  # of the same position
        assert store.read(UNIT, TABLE, [b"a"]) == [b"2"]
        cuts.append(cut)
        again = store.acquire(UNIT, "writer", 60, take_over=True)
        assert again.token == lease.token + 1
        store.release(again)


def test_a_server_that_hangs_is_told_and_nothing_is_half_there(tmp_path):
    with redis_server(tmp_path) as port, opened(f"redis://127.0.0.1:{port}?socket_timeout=0.1") as store:
        written(store, "1", None)
        lease = store.acquire(UNIT, "writer", 60, take_over=True)
        with redis.Redis(port=port) as client:
            process = client.info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        commit = Commit({TABLE: [(b"a", b"2")], "other": [(b"b", b"2")]}, "2", "1")
        try:
            with pytest.raises(OutputError, match="cannot be reached"):
                store.commit(lease, commit)
            with pytest.raises(OutputError, match="cannot be reached"):
                store.read(UNIT, TABLE, [b"a"])
        finally:
            os.kill(process, signal.SIGCONT)
        try:
            store.commit(lease, commit)
        except FencedError:
            assert store.position(UNIT) == "2"  # it had been made
        assert store.read(UNIT, TABLE, [b"a"]) == store.read(UNIT, "other", [b"b"]) == [b"2"]


def test_a_server_that_is_killed_comes_back_with_all_that_was_committed(tmp_path):
    port = free_port()
    with opened_when(tmp_path, port) as store:
        written(store, "1", None)
    with opened_when(tmp_path, port) as store:
        assert (store.position(UNIT), store.read(UNIT, TABLE, [b"a"])) == ("1", [b"1"])
        written(store, "2", "1", b"2")
        assert store.read(UNIT, TABLE, [b"a"]) == [b"2"]


@contextmanager
def opened_when(folder: Path, port: int) -> Generator[Store]:
    with redis_server(folder, "--appendfsync", "always", port=port), opened(f"redis://127.0.0.1:{port}") as store:
        yield store


def test_a_full_server_refuses_a_commit_whole(tmp_path):
    with redis_server(tmp_path) as port, opened(f"redis://127.0.0.1:{port}") as store:
        written(store, "1", None)
        lease = store.acquire(UNIT, "writer", 60, take_over=True)
        with redis.Redis(port=port) as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
            with pytest.raises(OutputError, match=r"refuses: .*maxmemory.* nothing was written"):
                store.commit(lease, Commit({TABLE: [(b"a", b"2" * 99)], "new": [(b"c", b"2")]}, "2", "1"))
            client.config_set("maxmemory", 0)
        assert (store.position(UNIT), store.size(UNIT)) == ("1", {TABLE: 1, "other": 1})
        assert store.read(UNIT, TABLE, [b"a"]) == [b"1"]


def test_all_keys_of_a_unit_are_in_one_slot_of_a_cluster(redis_port, tmp_path):
    with redis.Redis(port=redis_port) as client, opened(f"redis://127.0.0.1:{redis_port}") as store:
        client.flushall()
        lease = store.acquire(UNIT, "writer", 60)
        store.commit(lease, Commit({TABLE: [(b"a", b"1")], "{x}": [(b"a", b"1")]}, "1", None, {"{x}": 60.0}))
        store.backup(tmp_path / "backup")
        keys = sorted(client.keys())
        assert len(keys) == 5
        assert len({key_slot(key) for key in keys if key != b"acclimate:units"}) == 1
    with pytest.raises(ConfigError, match="leave out the character"):
        ServerStore(f"redis://127.0.0.1:{redis_port}").acquire("a}b", "writer", 60)


def test_time_is_the_servers_unless_told_otherwise(redis_port):
    with opened(f"redis://127.0.0.1:{redis_port}") as store:
        store.drop(UNIT)
        lease = store.acquire(UNIT, "a", 0.05)
        assert store.acquire(UNIT, "b", 60) is None or lease.token
        while (other := store.acquire(UNIT, "b", 60)) is None:
            pass  # until its time is up
        assert other.token > lease.token


def test_nothing_is_left_in_a_file_that_was_written_anew(tmp_path):
    with redis_server(tmp_path) as port, opened(f"redis://127.0.0.1:{port}") as store:
        lease = store.acquire(UNIT, "writer", 60)
        secret = b"t the id of somebody"
        store.commit(lease, Commit({TABLE: [(secret, b"what is known"), (b"b", b"others")]}, "1", None))
        store.commit(lease, Commit({TABLE: [(secret, None)]}, "2", "1"))
        assert secret in _files(tmp_path)  # an append-only file keeps what was done
        with redis.Redis(port=port) as client:
            client.bgrewriteaof()
            while client.info("persistence")["aof_rewrite_in_progress"] or secret in _files(tmp_path):
                pass
        assert b"what is known" not in _files(tmp_path)
        assert b"others" in _files(tmp_path)


def _files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (folder / "appendonlydir").iterdir())


def test_a_server_that_removes_what_it_was_given_is_refused(tmp_path):
    with (
        redis_server(tmp_path, "--maxmemory-policy", "allkeys-lru") as port,
        pytest.raises(ConfigError, match=r"removes keys when its memory is full: .* allkeys-lru"),
    ):
        open_store(f"redis://127.0.0.1:{port}")


def test_a_value_that_the_server_does_not_take_is_told_and_not_tried_again(tmp_path):
    with (
        redis_server(tmp_path, "--proto-max-bulk-len", "1mb") as port,
        opened(f"redis://127.0.0.1:{port}") as store,
    ):
        written(store, "1", None)
        with pytest.raises(ConfigError, match=r"of 1,048,577 bytes in 'rows/states-1' of 'ranker/2/0' is more"):
            written(store, "2", "1", b"x" * ((1 << 20) + 1))
        assert (store.position(UNIT), store.read(UNIT, TABLE, [b"a"])) == ("1", [b"1"])
        other = open_store(f"memory://{tmp_path}")
        written(other, "1", None, b"x" * (1 << 21))
        other.backup(tmp_path / "backup")
        with pytest.raises(ConfigError, match=r"a value of 2,097,152 bytes"):
            store.restore(tmp_path / "backup")
        assert store.read(UNIT, TABLE, [b"a"]) == [b"1"]


@pytest.mark.parametrize("cut", ["question", "answer"])
def test_a_restore_whose_answer_is_lost_is_made_once(redis_port, cut, tmp_path):
    with between(redis_port) as (port, cuts), opened(f"redis://127.0.0.1:{port}") as store:
        store.drop(UNIT)
        written(store, "1", None)
        store.backup(tmp_path / "backup")
        written(store, "2", "1", b"2")
        change = store._change

        def cutting(*args: object, **more: object) -> object:
            cuts.append(cut)
            return change(*args, **more)

        store._change = cutting
        store.restore(tmp_path / "backup")
        assert cuts == []
        assert (store.position(UNIT), store.size(UNIT)) == ("1", {TABLE: 1, "other": 1})
        assert store.read(UNIT, TABLE, [b"a"]) == [b"1"]


def test_what_goes_while_it_is_restored_leaves_the_unit_as_it_was(redis_port, tmp_path):
    with redis.Redis(port=redis_port) as client, opened(f"redis://127.0.0.1:{redis_port}") as store:
        client.flushall()
        written(store, "1", None)
        store.backup(tmp_path / "backup")
        written(store, "2", "1", b"2")
        change = store._change

        def late(*args: object, **more: object) -> object:
            (copy,) = client.keys("acclimate:*:of-*:other")
            client.delete(copy)  # as if its time were up
            return change(*args, **more)

        store._change = late
        with pytest.raises(OutputError, match=r"values of 'other' of 'ranker/2/0' were gone .* is as it was"):
            store.restore(tmp_path / "backup")
        assert (store.position(UNIT), store.read(UNIT, TABLE, [b"a"])) == ("2", [b"2"])


def test_copies_are_kept_as_long_as_a_backup_or_restore_goes_on(redis_port, tmp_path, monkeypatch):
    from acclimate.publish.stores import server

    monkeypatch.setattr(server, "_AT_ONCE", 100)
    with redis.Redis(port=redis_port) as client, opened(f"redis://127.0.0.1:{redis_port}") as store:
        client.flushall()
        lease = store.acquire(UNIT, "writer", 60)
        items = [(b"%d" % i, b"x" * 100) for i in range(1_000)]
        store.commit(lease, Commit({TABLE: items, "other": items}, "1", None))
        left, pairs, filled = list[int](), store._pairs, store._filled

        def soon_over() -> None:
            """Of all copies the time is nearly up, which each piece begins anew."""
            for key in client.keys("acclimate:*:of-*"):
                left.append(client.ttl(key))
                client.expire(key, 60)

        def slow_pairs(key: str) -> Iterator[list[tuple[bytes, bytes]]]:
            for some in pairs(key):
                soon_over()
                yield some

        def slow_filled(*args: object) -> None:
            filled(*args)
            soon_over()

        store._pairs, store._filled = slow_pairs, slow_filled
        store.backup(tmp_path / "backup")
        backed_up = len(left)
        store.restore(tmp_path / "backup")
        assert backed_up > 20
        assert len(left) - backed_up > 20
        assert min(left) > 3_000
        assert client.keys("acclimate:*:of-*") == []
        assert store.size(UNIT) == {TABLE: 1_000, "other": 1_000}

        def cut(key: str) -> Iterator[list[tuple[bytes, bytes]]]:
            for some in pairs(key):
                yield some
                for copy in client.keys("acclimate:*:of-*"):
                    client.delete(copy)

        store._pairs = cut
        with pytest.raises(OutputError, match=r"values of 'ranker/2/0' were gone from .* before the backup had"):
            store.backup(tmp_path / "cut")
        assert not (tmp_path / "cut").exists()
