"""What holds of every stream: the embedded log, Redis Streams and Kafka."""

import re
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from stream_servers import kafka_brokers, make_topic, redis_server

from acclimate.artifacts import Records, Stream
from acclimate.errors import ConfigError, MissingExtraError, SourceError
from acclimate.events.streams import open_stream, without_password

WAIT = 30.0  # seconds, of which none passes where there is something to read
Opener = Callable[..., Stream]


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(scope="module")
def brokers() -> Generator[str]:
    with kafka_brokers() as brokers:
        yield brokers


@pytest.fixture(params=["log", "redis", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = re.sub(r"\W+", "-", request.node.name)
    if request.param == "log":
        return f"log://{tmp_path / name}"
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}/0?stream={name}"
    brokers = request.getfixturevalue("brokers")
    make_topic(brokers, name)
    return f"kafka://{brokers}/{name}"


@pytest.fixture
def opened(url: str) -> Generator[Opener]:
    """Opens the stream of this test, with 4 partitions, as often as need be."""
    streams: list[Stream] = []

    def open_it(**options: str) -> Stream:
        streams.append(open_stream(url, partitions=4, **options))
        return streams[-1]

    yield open_it
    for stream in streams:
        stream.close()


def values_of(records: Records) -> list[bytes]:
    return [bytes(value) for value in records.values]


def read_all(stream: Stream, partition: int, after: str | None, count: int, most: int = 7) -> list[Records]:
    """So many records, in parts."""
    parts: list[Records] = []
    while sum(map(len, parts)) < count:
        parts.append(stream.read(partition, after, most, WAIT))
        assert 0 < len(parts[-1]) <= most
        after = parts[-1].positions[-1]
    return parts


def numbered(first: int, end: int) -> list[bytes]:
    return [b'{"n": %d}' % number for number in range(first, end)]


def test_records_come_in_their_order_with_positions_to_go_on_from(opened: Opener):
    stream = opened()
    assert stream.partitions == 4
    stream.append(1, numbered(0, 30))
    stream.append(1, numbered(30, 50))
    parts = read_all(stream, 1, None, 50)
    assert [value for part in parts for value in values_of(part)] == numbered(0, 50)
    positions = [position for part in parts for position in part.positions]
    arrived = np.concatenate([part.arrived for part in parts])
    assert np.all(np.diff(arrived) >= 0)
    assert arrived.dtype == np.int64
    for place in (0, 17, 48):
        for reader in (stream, opened()):
            (*_, last) = parts = read_all(reader, 1, positions[place], 49 - place)
            assert [value for part in parts for value in values_of(part)] == numbered(place + 1, 50)
            assert last.positions[-1] == positions[-1]
            assert len(reader.read(1, positions[-1], 10)) == 0
    stream.append(1, numbered(50, 51))
    assert values_of(stream.read(1, positions[-1], 10, WAIT)) == numbered(50, 51)


def test_partitions_are_apart(opened: Opener):
    stream = opened()
    for partition in (2, 0):
        stream.append(partition, numbered(partition, partition + 3))
    for partition in (0, 2, 0):
        assert values_of(stream.read(partition, None, 10, WAIT)) == numbered(partition, partition + 3)
    assert len(stream.read(1, None, 10)) == 0
    for partition in (-1, 4):
        with pytest.raises(ConfigError, match=f"no partition {partition}"):
            stream.read(partition, None, 1)


def test_what_is_there_is_read_without_a_wait(opened: Opener):
    opened().append(3, numbered(0, 5))
    assert values_of(opened().read(3, None, 3)) == numbered(0, 3)


def test_an_empty_append_appends_nothing(opened: Opener):
    stream = opened()
    stream.append(0, [])
    assert stream.lag(0, None) == 0


def test_any_bytes_are_kept(opened: Opener):
    stream = opened()
    values = [b"", b"\x00\xff", b"x" * 100_000]
    stream.append(0, values)
    assert [value for part in read_all(stream, 0, None, 3) for value in values_of(part)] == values


def test_lag_is_what_is_left_to_read(opened: Opener):
    stream = opened()
    assert stream.lag(2, None) == 0
    stream.append(2, numbered(0, 20))
    assert stream.lag(2, None) == 20
    records = stream.read(2, None, 8, WAIT)
    assert stream.lag(2, records.positions[4]) == 15
    assert stream.lag(2, records.positions[-1]) == 12
    records = stream.read(2, records.positions[-1], 8, WAIT)
    assert stream.lag(2, records.positions[-1]) == 20 - 8 - len(records)
    stream.append(2, numbered(20, 25))
    assert stream.lag(2, records.positions[-1]) == 25 - 8 - len(records)
    assert opened().lag(2, records.positions[-1]) == 25 - 8 - len(records)
    assert stream.lag(1, None) == 0


def test_a_reader_wakes_when_something_comes(opened: Opener):
    stream, writer = opened(), opened()
    writer.append(0, numbered(0, 1))
    position = stream.read(0, None, 1, WAIT).positions[0]
    read: list[Records] = []
    reader = threading.Thread(target=lambda: read.append(stream.read(0, position, 5, WAIT)))
    reader.start()
    writer.append(0, numbered(1, 2))
    reader.join()
    assert values_of(read[0]) == numbered(1, 2)


def test_a_wait_for_nothing_ends(opened: Opener):
    stream = opened()
    assert len(stream.read(0, None, 5, 0.01)) == 0
    stream.append(0, numbered(0, 1))
    position = stream.read(0, None, 1, WAIT).positions[0]
    assert len(stream.read(0, position, 5, 0.01)) == 0


def test_many_append_while_others_read(opened: Opener):
    writers, per_writer, together = 3, 40, 5
    stream = opened()

    def write(writer: int) -> None:
        own = opened()
        for first in range(0, per_writer, together):
            own.append(1, [b"%d %d" % (writer, number) for number in range(first, first + together)])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    parts = read_all(stream, 1, None, writers * per_writer)
    for thread in threads:
        thread.join()
    read = [tuple(map(int, value.split())) for part in parts for value in values_of(part)]
    for writer in range(writers):
        assert [number for w, number in read if w == writer] == list(range(per_writer))
    again = read_all(opened(), 1, None, writers * per_writer, most=1000)
    assert [value for part in again for value in values_of(part)] == [b"%d %d" % pair for pair in read]


def test_the_number_of_partitions_is_that_of_the_first(opened: Opener, url: str):
    opened()
    again = open_stream(url)
    assert again.partitions == 4
    again.close()
    with pytest.raises(ConfigError, match=r"4 partitions, not 3 \(an entity would change its partition"):
        open_stream(url, partitions=3)


def test_positions_that_are_not_of_this_stream(opened: Opener):
    stream = opened()
    stream.append(0, numbered(0, 3))
    last = stream.read(0, None, 5, WAIT).positions[-1]
    number, dash, rest = last.partition("-")
    with pytest.raises(SourceError, match=f"partition 0 ends at {last}, before position"):
        stream.read(0, f"{int(number) + 1000}{dash}{rest}", 5)
    for call in (stream.read, stream.lag):
        with pytest.raises(ConfigError, match="'yesterday' is no position"):
            call(0, "yesterday", *([5] if call == stream.read else []))
    assert values_of(stream.read(0, None, 5, WAIT)) == numbered(0, 3)


def test_a_seek_beyond_the_end_gives_what_comes_next(opened: Opener):
    stream = opened()
    assert stream.seek(0, 4 * 10**15) is None
    stream.append(0, numbered(0, 3))
    position = stream.read(0, None, 5, WAIT).positions[-1]
    assert stream.seek(0, 4 * 10**15) == position
    stream.append(0, numbered(3, 4))
    assert values_of(stream.read(0, position, 5, WAIT)) == numbered(3, 4)


@pytest.mark.parametrize("url", ["log", "redis"], indirect=True)  # the mock cluster has no look-up by time
def test_a_seek_by_time_gives_all_that_came_since(opened: Opener):
    stream = opened()
    for number in range(5):
        stream.append(0, numbered(3 * number, 3 * number + 3))
    parts = read_all(stream, 0, None, 15, most=15)
    arrived = np.concatenate([part.arrived for part in parts])
    for time in np.unique(arrived):
        first = int(np.searchsorted(arrived, time))
        records = stream.read(0, stream.seek(0, int(time)), 20)
        assert values_of(records) == numbered(first, 15)
    assert stream.seek(0, int(arrived[0])) is None
    assert stream.seek(0, 0) is None


@pytest.mark.parametrize("url", ["log", "redis"], indirect=True)  # the retention of a topic is its broker's
def test_what_was_trimmed_is_told(opened: Opener, url: str):
    stream = opened()
    stream.append(0, numbered(0, 30))
    positions = [position for part in read_all(stream, 0, None, 30) for position in part.positions]
    assert stream.trim(0, through=positions[9]) == 10
    assert stream.trim(0, through=positions[4]) == 0
    many = "5 records" if url.startswith("log") else "up to 10 records"
    for reader in (stream, opened()):
        with pytest.raises(SourceError, match=f"no longer holds {many} after position {positions[4]} "):
            reader.read(0, positions[4], 5)
        assert values_of(reader.read(0, positions[9], 2)) == numbered(10, 12)
        assert values_of(reader.read(0, positions[15], 2)) == numbered(16, 18)
        assert values_of(reader.read(0, None, 2)) == numbered(10, 12)
        assert reader.lag(0, positions[14]) == 15
        assert reader.lag(0, None) == 20
    assert stream.trim(0, through=positions[-1]) == 20
    assert len(stream.read(0, positions[-1], 5)) == 0
    assert stream.lag(0, positions[-1]) == 0
    with pytest.raises(SourceError, match="after position"):
        stream.read(0, positions[15], 5)
    stream.append(0, numbered(30, 32))
    assert values_of(stream.read(0, positions[-1], 5)) == numbered(30, 32)
    assert stream.trim(0, before=4 * 10**15) == 2
    assert stream.trim(1, before=4 * 10**15) == 0


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("url", ["log", "redis"], indirect=True)
def test_a_seek_for_what_was_trimmed_is_told(opened: Opener):
    stream = opened()
    stream.append(0, numbered(0, 10))
    stream.append(0, numbered(10, 20))
    records = stream.read(0, None, 20)
    positions, first, last = records.positions, int(records.arrived[0]), int(records.arrived[-1])
    stream.trim(0, through=positions[4])
    for reader in (stream, opened()):
        with pytest.raises(
            SourceError, match=r"partition 0 no longer holds up to 5 records .* since 20.*fit anew"
        ):
            reader.seek(0, first)
    stream.append(0, numbered(20, 21))
    assert stream.seek(0, 4 * 10**15) == stream.read(0, positions[-1], 1).positions[0]
    stream.trim(0, before=last + 10**9)
    with pytest.raises(SourceError, match="no longer holds up to 21 records"):
        stream.seek(0, first)
    # Nothing came later: nothing is missing, and what comes next is read.
    position = stream.seek(0, 4 * 10**15)
    stream.append(0, numbered(21, 22))
    assert values_of(stream.read(0, position, 5)) == numbered(21, 22)
    assert stream.trim(0, before=1) == 0


def test_servers_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    import acclimate.events.streams.kafka as kafka

    monkeypatch.setattr(kafka, "_REACH", 1.0)
    for url in ("redis://127.0.0.1:1/0?stream=s", "kafka://127.0.0.1:1/s"):
        with pytest.raises(SourceError, match=r"'s' at 127\.0\.0\.1:1 cannot be read: .* there\?\)"):
            open_stream(url)


@pytest.mark.parametrize(
    ("client", "module", "url", "extra"),
    [
        ("redis", "redis_streams", "redis://h/0?stream=s", "redis"),
        ("confluent_kafka", "kafka", "kafka://h:9092/t", "kafka"),
    ],
)
def test_a_client_that_is_not_installed(client: str, module: str, url: str, extra: str, monkeypatch):
    monkeypatch.setitem(sys.modules, client, None)
    monkeypatch.delitem(sys.modules, f"acclimate.events.streams.{module}", raising=False)
    with pytest.raises(
        MissingExtraError, match=rf"{client} is not installed, .*pip install 'acclimate\[{extra}\]'"
    ):
        open_stream(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("events", "'events' is no stream (write log://folder"),
        ("rdis://h?stream=s", "'rdis://h?stream=s' is no stream (did you mean 'redis'?)"),
        ("amqp://u:secret@h/q", "'amqp://u:***@h/q' is no stream (there are: kafka, log, redis, rediss)"),
        ("log://", "'log:' is no folder of a log"),
        ("redis://u:secret@[bad", "'redis://u:***@[bad' is no stream: "),
        ("log://a?colour=blue", "'log://a?colour=blue' is no folder of a log"),
        ("redis://h?stream=s&partitions=many", "partitions=many is no number"),
    ],
)
def test_urls_that_are_not_understood(url: str, message: str):
    with pytest.raises(ConfigError) as caught:
        open_stream(url)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("log:///x/y", "log:///x/y"),
        ("redis://host:6379/0?stream=s", "redis://host:6379/0?stream=s"),
        ("redis://u:hidden@h/0?stream=s", "redis://u:***@h/0?stream=s"),
        ("redis://:hidden@h", "redis://:***@h"),
        ("redis://u:hid/d?e#n@h/0", "redis://u:***@h/0"),
        ("redis:/u:hidden@h", "redis:/u:***@h"),
        ("redis:u:hidden@h", "redis:***@h"),
        ("redis;//u:hidden@h", "redis;//u:***@h"),
        ("kafka://h/t?sasl.password=hidden&group=g", "kafka://h/t?sasl.password=***&group=g"),
        ("redis://h/0?TOKEN=hidden;a=1", "redis://h/0?TOKEN=***"),
        ("redis://h/0?pass%77ord=hidden&api_key=hidden", "redis://h/0?pass%77ord=***&api_key=***"),
        ("redis://h/0?stream=s#hidden", "redis://h/0?stream=s#***"),
    ],
)
def test_no_secret_shows(url: str, shown: str):
    assert without_password(url) == shown
