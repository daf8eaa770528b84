"""What is special about Kafka: who gets which partition, what is committed, and what its retention takes."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from stream_servers import kafka_brokers, make_topic

from acclimate.errors import ConfigError, SourceError
from acclimate.events.streams import open_stream

kafka = pytest.importorskip("confluent_kafka")


@pytest.fixture(scope="module")
def brokers() -> Generator[str]:
    with kafka_brokers() as brokers:
        yield brokers


def until(holds: Callable[[], bool]) -> None:
    """Asks until it is so; a test that never gets there fails at the limit of its run."""
    while not holds():
        pass


def test_the_broker_shares_the_partitions_among_a_group(brokers: str):
    make_topic(brokers, "shared")
    url = f"kafka://{brokers}/shared?group=g&session.timeout.ms=6000&heartbeat.interval.ms=500"
    one, two = open_stream(url), open_stream(url)
    everything = frozenset(range(4))
    until(lambda: one.assigned() == everything)

    def both() -> bool:
        mine, others = one.assigned(), two.assigned()
        return bool(mine and others and mine | others == everything and not mine & others)

    until(both)
    one.close()
    until(lambda: two.assigned() == everything)
    two.close()
    alone = open_stream(f"kafka://{brokers}/shared")
    assert alone.assigned() is None
    alone.noted(0, "5")
    alone.close()


def test_what_was_used_is_committed_and_read_from_where_we_say(brokers: str):
    make_topic(brokers, "watched")
    stream = open_stream(f"kafka://{brokers}/watched?group=watchers")
    stream.append(2, [b"%d" % number for number in range(10)])
    until(lambda: stream.assigned() == frozenset(range(4)))
    positions = stream.read(2, None, 10, 30.0).positions
    stream.noted(2, positions[6])
    watcher = kafka.Consumer({"bootstrap.servers": brokers, "group.id": "watchers"})
    place = kafka.TopicPartition("watched", 2)
    until(lambda: watcher.committed([place], timeout=30)[0].offset == 7)
    watcher.close()
    assert stream.read(2, positions[1], 1, 30.0).values == [b"2"]
    stream.close()


def test_what_retention_took_is_told(brokers: str):
    make_topic(brokers, "short")
    stream: Any = open_stream(f"kafka://{brokers}/short")
    stream.append(0, [b"x" * 900_000 for _ in range(12)])  # of which the mock cluster keeps 5 MB
    first = int(stream.read(0, None, 1, 30.0).positions[0])
    assert first > 1
    with pytest.raises(SourceError, match=f"no longer holds {first - 1} records after position 0"):
        stream.read(0, "0", 5)
    assert stream.lag(0, "0") == stream.lag(0, None) == 12 - first
    assert stream.read(0, str(first - 1), 1, 30.0).positions == [str(first)]
    stream.close()


def test_a_seek_behind_what_retention_took(brokers: str, monkeypatch: pytest.MonkeyPatch):
    make_topic(brokers, "old")
    stream: Any = open_stream(f"kafka://{brokers}/old")
    stream.append(0, [b"x" * 900_000 for _ in range(12)])
    first = int(stream.read(0, None, 1, 30.0).positions[0])

    class Watcher:  # the mock cluster has no look-up by time
        def __init__(self, offset: int) -> None:
            self.offset, self.get_watermark_offsets = offset, watcher.get_watermark_offsets

        def offsets_for_times(self, places: list[Any], **_: Any) -> list[Any]:
            return [kafka.TopicPartition(places[0].topic, places[0].partition, self.offset)]

    watcher = stream._watcher
    for offset, position in ((first + 1, str(first)), (-1, "11")):
        monkeypatch.setattr(stream, "_watcher", Watcher(offset))
        assert stream.seek(0, 10**15) == position
    monkeypatch.setattr(stream, "_watcher", Watcher(first))
    with pytest.raises(
        SourceError, match=f"may no longer hold .* since 2001.*: its first {first} records are gone"
    ):
        stream.seek(0, 10**15)
    monkeypatch.undo()
    stream.close()


def test_what_is_not_understood(brokers: str):
    with pytest.raises(ConfigError, match='No such configuration property: "colour"'):
        open_stream(f"kafka://{brokers}/t?colour=blue")
    with pytest.raises(ConfigError, match=r"'kafka://u:\*\*\*@h:1/' names no broker or no topic"):
        open_stream("kafka://u:secret@h:1/")
    with pytest.raises(SourceError, match=r"there is no such topic \(create it with the partitions"):
        open_stream(f"kafka://{brokers}/absent")
