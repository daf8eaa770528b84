"""Streams: events appended and read a second, and what it takes to make rows of them.

An event has 2 ids, a label and 16 numbers. Redis is a server of its own that writes each append to its disk, Kafka
the mock cluster of its client, which is no broker: it shows what the client takes. Seconds are those of the wall,
CPU is that of this process alone, servers left out.
"""

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

import acclimate as ac
from acclimate.artifacts import Stream
from acclimate.events.streams import Validator, encode, open_stream

EVENTS, BATCH, ROUNDS = 10_000, 1_000, 5
NUMBERS = [f"x{j}" for j in range(16)]
NUMERIC = {name: ac.Feature(kind="numeric") for name in NUMBERS}
SCHEMA = ac.Schema(ac.TimeColumn("time", unit="ms"), ["user", "item"], "click", features=NUMERIC)


def main() -> None:
    records = encode(events(EVENTS), SCHEMA)
    print(f"{EVENTS:,} events of {np.mean([len(record) for record in records]):.0f} bytes, {BATCH:,} at once")
    print(f"{'':>12}{'appends/s':>12}{'reads/s':>12}{'CPU us/append':>15}{'CPU us/read':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for name, opened in STREAMS.items():
            with opened(Path(folder)) as url:
                if url is None:
                    print(f"{name:>12}  not installed")
                    continue
                stream = open_stream(url)
                (wrote, cpu_wrote), (read, cpu_read) = appended(stream, records), all_read(stream)
                stream.close()
                costs = f"{1e6 * cpu_wrote / EVENTS:>15.2f}{1e6 * cpu_read / EVENTS:>13.2f}"
                print(f"{name:>12}{EVENTS / wrote:>12,.0f}{EVENTS / read:>12,.0f}{costs}")
    print(f"\n{'validation':>12}{'CPU us/event':>14}{'CPU ms':>9}")
    for rows in (100, EVENTS):
        cpu = validated(records[:rows])
        print(f"{rows:>12,}{1e6 * cpu / rows:>14.2f}{1e3 * cpu:>9.2f}")
    broken = [*records]
    broken[EVENTS // 2] = b"{"
    cpu = validated(broken)
    print(f"{'1 of them bad':>12}{1e6 * cpu / EVENTS:>13.2f}{1e3 * cpu:>9.2f}")


def events(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = {"user": rng.integers(0, 10**6, rows), "item": rng.integers(0, 10**5, rows)}
    numbers = {name: rng.normal(size=rows).round(4) for name in NUMBERS}
    times = 1_650_000_000_000 + np.arange(rows)
    return pa.table({"time": times, **ids, "click": rng.integers(0, 2, rows), **numbers})


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the wall and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def appended(stream: Stream, records: list[bytes]) -> tuple[float, float]:
    stream.append(0, [b"{}"])  # connects
    batches = [records[first : first + BATCH] for first in range(0, EVENTS, BATCH)]
    return timed(lambda: [stream.append(0, batch) for batch in batches] and None)


def all_read(stream: Stream) -> tuple[float, float]:
    after = stream.read(0, None, 1, 30.0).positions[-1]

    def read() -> None:
        position, left = after, EVENTS
        while left:
            part = stream.read(0, position, BATCH, 30.0)
            position, left = part.positions[-1], left - len(part)

    return timed(read)


def validated(records: list[bytes]) -> float:
    """CPU seconds of a batch, the best of some."""
    validate = Validator(SCHEMA)
    validate(records)
    repeats = max(1, 1_000 // len(records))
    return (
        min(timed(lambda: [validate(records) for _ in range(repeats)] and None)[1] for _ in range(ROUNDS))
        / repeats
    )


@contextmanager
def log(folder: Path) -> Generator[str | None]:
    yield f"log://{folder / 'log'}"


@contextmanager
def redis(folder: Path) -> Generator[str | None]:
    program = shutil.which("redis-server")
    if program is None or not importlib.util.find_spec("redis"):
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program,
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]
    with subprocess.Popen([*command, "--save", ""], stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout or ():
                if "Ready to accept connections" in line:
                    break
            yield f"redis://127.0.0.1:{port}?stream=events"
        finally:
            server.kill()


@contextmanager
def kafka(_: Path) -> Generator[str | None]:
    if not importlib.util.find_spec("confluent_kafka"):
        yield None
        return
    import confluent_kafka

    home = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 2})
    brokers = ",".join(f"{b.host}:{b.port}" for b in home.list_topics("events", timeout=30).brokers.values())
    yield f"kafka://{brokers}/events"
    home.flush(0)


STREAMS = {"log": log, "redis": redis, "kafka (mock)": kafka}

if __name__ == "__main__":
    main()
