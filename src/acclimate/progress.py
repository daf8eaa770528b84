"""How far work is that takes long: told by who works, shown by who watches."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Watcher: TypeAlias = Callable[[int, int], None]
"""Called with what is done, and what there is to do at most."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def tell(done: int, total: int) -> None:
    """Tell whoever watches."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(done, total)


@contextmanager
def watched(by: Watcher) -> Generator[None]:
    """Let someone watch what is worked on meanwhile, in this thread."""
    token = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(token)
