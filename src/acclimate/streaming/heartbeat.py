"""Leases that are kept while their worker is busy."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from threading import Event, Thread

from acclimate.artifacts import Lease, Store
from acclimate.errors import FencedError, OutputError


@contextmanager
def beating(store: Store, leases: Callable[[], Iterable[Lease]], seconds: float) -> Generator[None]:
    """Renew leases for so many seconds, again and again, in a thread of its own.

    One that is lost is left to its worker, who learns of it when he writes.
    """
    over = Event()

    def beat() -> None:
        while not over.wait(seconds / 3):
            for lease in list(leases()):
                try:
                    store.renew(lease, seconds)
                except (FencedError, OutputError):
                    continue

    thread = Thread(target=beat, name="acclimate leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
