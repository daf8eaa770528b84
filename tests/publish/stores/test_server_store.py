"""A store in a Redis server: users, TLS, answers that are lost, and servers that are slow, gone or killed."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Generator
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
