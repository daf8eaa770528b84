"""Kafka: a topic, whose broker shares its partitions among those who read."""

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import confluent_kafka as kafka
import numpy as np

from acclimate.artifacts import Records
from acclimate.errors import ConfigError, OutputError, SourceError

_REACH = 30.0  # seconds in which a broker must answer


class Topic:
    """A topic of Kafka; a position is the offset of a record.

    Reading starts after the position that is asked for, whatever was committed to the broker; what :meth:`noted`
    commits is for those who watch. A reader with a group joins it when it asks what is :meth:`assigned` to it, and
    has to ask again at least every five minutes (``max.poll.interval.ms``) to stay.

    Args:
        brokers: ``host:port``, with commas between.
        topic: its name.
        partitions: how many it must have; it is not made here.
        group: the consumer group of readers; without one, they share the partitions among themselves.
        settings: further ones of librdkafka, such as ``security.protocol``.

    Raises:
        ConfigError: a setting is not understood, or the topic has another number of partitions.
        SourceError: the brokers cannot be reached, or there is no such topic.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        partitions: int | None = None,
        group: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._topic, self._group, self._name = topic, group, f"topic '{topic}' at {brokers}"
        self._settings = {"bootstrap.servers": brokers, "log_level": 2, **(settings or {})}
        self._producer: Any = None
        self._readers: dict[int, _Reader] = {}
        self._member: _Member | None = None
        self._lock = threading.Lock()
        self._watcher: Any = self._consumer({})
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self.partitions = self._laid_out(partitions)
            on_failure.pop_all()

    def append(self, partition: int, values: Sequence[bytes]) -> None:
        """See :class:`acclimate.artifacts.Stream`: all replicas in sync have it when this returns.

        Raises:
            OutputError: the brokers do not take it, or are gone; some of it may have been appended.
        """
        self._check(partition)
        failures: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failures.append(error)

        with self._lock:
            if self._producer is None:
                self._producer = kafka.Producer({"acks": "all", "enable.idempotence": True, **self._settings})
        for value in values:
            while True:
                try:
                    self._producer.produce(self._topic, value, partition=partition, on_delivery=delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        left = self._producer.flush(_REACH)
        if left or failures:
            what = failures[0].str() if failures else f"no answer in {_REACH:.0f} seconds"
            raise OutputError(
                f"{self._name} did not take {max(left, len(failures)):,} of {len(values):,} records: {what}"
            )

    def read(self, partition: int, after: str | None, most: int, wait: float = 0.0) -> Records:
        """See :class:`acclimate.artifacts.Stream`."""
        self._check(partition)
        start = None if after is None else _offset(after) + 1
        with self._lock:
            reader = self._readers.get(partition)
            if reader is None:
                reader = self._readers[partition] = _Reader(self._consumer({}), self._topic, partition)
        with self._telling():
            messages = reader.read(start, most, wait)
        if messages is None:
            raise self._missing(partition, start or 0)
        return Records(
            [message.value() or b"" for message in messages],
            [str(message.offset()) for message in messages],
            np.array([1000 * message.timestamp()[1] for message in messages], np.int64),
        )

    def seek(self, partition: int, time: int) -> str | None:
        """See :class:`acclimate.artifacts.Stream`.

        When records came that retention took is not known: where the first one that is left came at or after that
        time, they count as missing. Of a partition that has none left, nothing is known, and the end is given.

        Raises:
            SourceError: records that were appended at or after that time may have been removed.
        """
        self._check(partition)
        place = kafka.TopicPartition(self._topic, partition, -(-time // 1000))
        with self._telling():
            low, high = self._watcher.get_watermark_offsets(place, timeout=_REACH)
            offset = self._watcher.offsets_for_times([place], timeout=_REACH)[0].offset
        first = high if offset < 0 else offset
        if 0 < low == first < high:
            raise SourceError(
                f"{self._name}: partition {partition} may no longer hold all that was appended since "
                f"{np.datetime64(time, 'us')}Z: its first {low:,} records are gone",
                hint="its retention ended; fit anew on what happened since, or keep records for longer",
            )
        return str(first - 1) if first > 0 else None

    def lag(self, partition: int, after: str | None) -> int:
        """See :class:`acclimate.artifacts.Stream`."""
        self._check(partition)
        low, high = self._ends(partition)
        return max(high - max(low, 0 if after is None else _offset(after) + 1), 0)

    def assigned(self) -> frozenset[int] | None:
        """See :class:`acclimate.artifacts.Stream`."""
        member = self._joined()
        if member is None:
            return None
        with self._telling():
            return member.assigned()

    def noted(self, partition: int, position: str) -> None:
        """See :class:`acclimate.artifacts.Stream`."""
        self._check(partition)
        if member := self._joined():
            with self._telling():
                member.noted(partition, _offset(position) + 1)

    def close(self) -> None:
        """Leave the group, and let go of the connections."""
        for reader in self._readers.values():
            reader.consumer.close()
        if self._member:
            self._member.consumer.close()
        if self._producer is not None:
            self._producer.flush(_REACH)
        self._watcher.close()

    def _consumer(self, settings: dict[str, Any]) -> Any:
        ours = {
            "group.id": self._group or "acclimate",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 16_384,
        }
        try:
            return kafka.Consumer({**ours, **self._settings, **settings})
        except kafka.KafkaException as error:
            raise ConfigError(f"{self._name}: {error.args[0].str()}") from error

    def _laid_out(self, wanted: int | None) -> int:
        with self._telling():
            there = len(self._watcher.list_topics(self._topic, timeout=_REACH).topics[self._topic].partitions)
        if not there:
            raise SourceError(
                f"{self._name}: there is no such topic",
                hint="create it with the partitions, the replicas and the retention that it is to have",
            )
        if wanted not in (None, there):
            raise ConfigError(
                f"{self._name} has {there} partitions, not {wanted}",
                hint="an entity would change its partition: append to a new topic of that many",
            )
        return there

    def _joined(self) -> "_Member | None":
        with self._lock:
            if self._member is None and self._group is not None:
                self._member = _Member(self._consumer({}), self._topic)
            return self._member

    def _check(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise ConfigError(
                f"{self._name}: no partition {partition}", hint=f"there are {self.partitions}, from 0"
            )

    def _ends(self, partition: int) -> tuple[int, int]:
        """The first offset that there is, and the one after the last."""
        with self._telling():
            return self._watcher.get_watermark_offsets(
                kafka.TopicPartition(self._topic, partition), timeout=_REACH
            )

    def _missing(self, partition: int, start: int) -> SourceError:
        low, high = self._ends(partition)
        if start < low:
            return SourceError(
                f"{self._name}: partition {partition} no longer holds {low - start:,} records "
                f"after position {start - 1}",
                hint=f"its retention ended; go on after position {low - 1} if they may be missed",
            )
        return SourceError(
            f"{self._name}: partition {partition} ends at {high - 1}, before position {start - 1}",
            hint="the position is of another topic, or this one was made anew",
        )

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except kafka.KafkaException as error:
            raise SourceError(
                f"{self._name} cannot be read: {error.args[0].str()}", hint="are the brokers there?"
            ) from error


class _Reader:
    """Reads one partition; what it was sent beyond what was asked for waits in its queue."""

    def __init__(self, consumer: Any, topic: str, partition: int) -> None:
        self.consumer = consumer
        self._place = (topic, partition)
        self._is_placed, self._next = (
            False,
            None,
        )  # whether it is anywhere, and before which offset (None: the first)
        self._at_end = False
        self._lock = threading.Lock()

    def read(self, start: int | None, most: int, wait: float) -> list[Any] | None:
        """Records from an offset on; ``None`` where the topic has no such offset."""
        with self._lock:
            if not self._is_placed or start != self._next:
                offset = kafka.OFFSET_BEGINNING if start is None else start
                self.consumer.assign([kafka.TopicPartition(*self._place, offset)])
                self._is_placed, self._next, self._at_end = True, start, False
            messages: list[Any] = []
            now = time.monotonic()
            until, reached = now + wait, now + max(wait, _REACH)
            while not messages:
                # What is on its way is waited for: until the broker has said that there is no more.
                left = (until if self._at_end else reached) - time.monotonic()
                message = self.consumer.poll(max(left, 0))
                if message is None and not self._at_end:
                    raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError._TIMED_OUT))
                if message is None:
                    break
                if message.error() and message.error().code() == kafka.KafkaError._AUTO_OFFSET_RESET:
                    self._is_placed = False
                    return None
                if self._is_record(message):
                    more = self.consumer.consume(most - 1, 0) if most > 1 else []
                    messages = [message, *filter(self._is_record, more)]
            if messages:
                self._next = messages[-1].offset() + 1
            return messages

    def _is_record(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            self._at_end = False
            return True
        if error.code() == kafka.KafkaError._PARTITION_EOF:
            self._at_end = True
            return False
        self._is_placed = False
        raise kafka.KafkaException(error)


class _Member:
    """A member of the group, which fetches nothing: it learns which partitions are its, and commits."""

    def __init__(self, consumer: Any, topic: str) -> None:
        self.consumer, self._topic = consumer, topic
        self._partitions: frozenset[int] = frozenset()
        consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def assigned(self) -> frozenset[int]:
        while message := self.consumer.poll(0):  # serves the callbacks
            if message.error() is not None and message.error().fatal():
                raise kafka.KafkaException(message.error())
        return self._partitions

    def noted(self, partition: int, offset: int) -> None:
        # Where the partition has just gone to another member, the broker refuses, and that one will tell it.
        self.consumer.commit(offsets=[kafka.TopicPartition(self._topic, partition, offset)], asynchronous=True)

    def _assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._partitions = frozenset(place.partition for place in partitions)
        consumer.assign(partitions)
        consumer.pause(partitions)

    def _revoke(self, consumer: Any, _: list[Any]) -> None:
        self._partitions = frozenset()
        consumer.unassign()


def _offset(position: str) -> int:
    try:
        return int(position)
    except ValueError as error:
        raise ConfigError(f"'{position}' is no position of a topic", hint="positions are offsets") from error
