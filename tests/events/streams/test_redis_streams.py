"""What is special about Redis: who watches it, who may, what it does after it was gone, and others who write."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from stream_servers import redis_server

from acclimate.errors import ConfigError, OutputError, SourceError
from acclimate.events.streams import open_stream

redis = pytest.importorskip("redis")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def client(port: int) -> Generator[Any]:
    with redis.Redis(port=port) as client:
        yield client
        client.flushall()


def test_what_was_used_shows_to_those_who_watch(client: Any, port: int):
    stream: Any = open_stream(f"redis://localhost:{port}?stream=s&group=watched", partitions=2)
    stream.append(1, [b"%d" % number for number in range(10)])
    records = stream.read(1, None, 4)
    for used, lag in ((1, 8), (3, 6)):
        assert stream.lag(1, records.positions[used]) == lag
        stream.noted(1, records.positions[used])
        (group,) = client.xinfo_groups("{s:1}")
        assert group["name"] == b"watched"
        assert group["last-delivered-id"].decode() == records.positions[used]
        assert group["lag"] == lag
    assert stream.assigned() is None
    stream.close()


def test_others_may_append_and_trim(client: Any, port: int):
    stream = open_stream(f"redis://localhost:{port}?stream=s")
    first, second, third = (client.xadd("{s:0}", {"event": f'{{"n": {n}}}'}).decode() for n in range(3))
    client.xadd("{s:0}", {"other": "x"})
    assert list(stream.read(0, None, 5).values) == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}', b""]
    client.xdel("{s:0}", second)
    assert list(stream.read(0, second, 5).values) == [b'{"n": 2}', b""]
    client.xtrim("{s:0}", maxlen=1, approximate=False)
    with pytest.raises(SourceError, match=f"no longer holds up to 3 records after position {first} "):
        stream.read(0, first, 5)
    with pytest.raises(SourceError, match="no longer holds"):
        stream.read(0, third.replace("-", "-0"), 5)
    stream.close()


def test_a_seek_behind_what_others_have_trimmed(client: Any, port: int):
    stream = open_stream(f"redis://localhost:{port}?stream=s")
    for milliseconds in (1_000, 2_000, 3_000):
        client.xadd("{s:0}", {"event": "{}"}, id=f"{milliseconds}-0")
    client.xtrim("{s:0}", maxlen=2, approximate=False)
    assert stream.seek(0, 2_500_000) == "2000-0"
    with pytest.raises(SourceError, match="no longer holds up to 1 records that were appended since 1970"):
        stream.seek(0, 1_500_000)
    client.xtrim("{s:0}", maxlen=0, approximate=False)
    with pytest.raises(SourceError, match="no longer holds up to 3 records"):
        stream.seek(0, 3_000_000)
    assert stream.seek(0, 3_000_001) is None
    stream.close()


def test_a_stream_that_the_server_has_lost(client: Any, port: int):
    stream = open_stream(f"redis://localhost:{port}?stream=s")
    stream.append(0, [b"a"])
    position = stream.read(0, None, 1).positions[0]
    client.delete("{s:0}")
    with pytest.raises(SourceError, match="is empty, and has no position"):
        stream.read(0, position, 1)
    assert stream.lag(0, position) == 0
    stream.close()


def test_users_and_passwords(client: Any, port: int):
    client.acl_setuser("writer", enabled=True, passwords=["+p@ss"], keys=["{s:*", "{s}:*"], commands=["+@all"])
    stream = open_stream(f"redis://writer:p%40ss@localhost:{port}/0?stream=s")
    stream.append(0, [b"a"])
    assert len(stream.read(0, None, 1)) == 1
    stream.close()
    for url in (
        f"redis://writer:p%40ss@localhost:{port}/0?stream=t",
        f"redis://writer:no@localhost:{port}?stream=s",
    ):
        with pytest.raises(SourceError) as caught:
            open_stream(url)
        assert "p@ss" not in str(caught.value)


def test_a_server_that_was_gone_and_came_back(tmp_path: Path):
    kept = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(tmp_path, *kept) as port:
        stream = open_stream(f"redis://localhost:{port}?stream=s")
        stream.append(0, [b"a", b"b"])
        first, _ = stream.read(0, None, 5).positions
    with pytest.raises(SourceError, match="cannot be read"):
        stream.read(0, first, 5)
    with pytest.raises(OutputError, match="does not take records"):
        stream.append(0, [b"c"])
    with redis_server(tmp_path, *kept, port=port):
        assert list(stream.read(0, first, 5).values) == [b"b"]
        stream.append(0, [b"c"])
        assert list(stream.read(0, first, 5).values) == [b"b", b"c"]
    stream.close()


def test_urls_that_say_too_little(port: int):
    with pytest.raises(ConfigError, match=r"'redis://u:\*\*\*@h/0' names no stream"):
        open_stream("redis://u:secret@h/0")
    with pytest.raises(ConfigError, match="URL of redis is not understood"):
        open_stream(f"redis://localhost:{port}?stream=s&colour=blue")
