"""The verb ``stream``, on top of the pipeline: events as they come, each learned once; it names no learner."""

import os
import signal
import socket
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager

from acclimate.events.streams import open_stream
from acclimate.project import Project
from acclimate.publish.stores import open_store
from acclimate.publishing import spaces_of
from acclimate.streaming.aside import forget, refused, send_again
from acclimate.streaming.making import make_worker, section_of, store_of
from acclimate.streaming.metrics import Metrics, served
from acclimate.streaming.stopping import Stop


def stream(
    project: Project, *, until_drained: bool = False, worker: str | None = None, metrics_port: int | None = None
) -> None:
    """Learn the events of the project's stream as they come, in every space that someone reads.

    States and the position of the stream are written in one transaction: whatever is killed, no event is lost and
    none learned twice. SIGTERM and SIGINT end it after the batch that is being learned.

    Args:
        project: says where the stream, the spaces and the store are.
        until_drained: end when nothing is left to read.
        worker: the name of this one among those of the stream; machine and process without.
        metrics_port: where Prometheus finds metrics; without, nowhere.

    Raises:
        ConfigError: the project has no stream, or a learner cannot learn from one as is asked.
        SpaceError: none of its learners has a live or pinned space.
    """
    section, store_url = section_of(project), store_of(project)
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_stream(section.source, partitions=section.partitions)))
        store = stack.enter_context(closing(open_store(store_url)))
        metrics = Metrics()
        if metrics_port is not None:
            stack.enter_context(served(metrics, metrics_port))
        name = worker or f"{socket.gethostname()}-{os.getpid()}"
        running = make_worker(
            name,
            project,
            section,
            stream=source,
            store=store,
            spaces=spaces_of(project),
            metrics=metrics,
        )
        stack.enter_context(_ending(running.stop))
        running.run(until_drained=until_drained)


@contextmanager
def _ending(stop: Stop) -> Generator[None]:
    """Let the first signal that ends the process end the loop instead, when its batch is written."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(*_: object) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)  # a second one does not wait

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["forget", "refused", "send_again", "stream"]
