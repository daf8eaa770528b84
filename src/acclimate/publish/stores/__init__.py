"""Stores of values by key that outlive the process, opened by their URLs.

::

    memory://tests                              in this process, gone with it
    lmdb://state  lmdb:///var/lib/state         an LMDB file in a folder, for all processes of one machine
    redis://user:password@host:6379/0           a Redis server; rediss:// with TLS
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from acclimate.artifacts import Store
from acclimate.errors import ConfigError
from acclimate.extras import import_module
from acclimate.publish.stores.memory import MemoryStore

_IN_MEMORY: dict[str, MemoryStore] = {}


def open_store(url: str, *, clock: Callable[[], float] | None = None) -> Store:
    """The store at a URL.

    Args:
        url: see :mod:`acclimate.publish.stores`.
        clock: gives seconds since 1970; without, this machine's, and with Redis its server's.

    Raises:
        ConfigError: it is no URL of a store.
        MissingExtraError: what it needs is not installed.
        OutputError: it cannot be opened, or the server cannot be reached.
    """
    timed: dict[str, Any] = {} if clock is None else {"clock": clock}
    kind, _, rest = url.partition("://")
    if kind == "memory":
        return _IN_MEMORY.setdefault(rest, MemoryStore(**timed))
    if kind == "lmdb":
        place, _, query = rest.partition("?")
        if not place:
            raise ConfigError(f"no folder in '{url}'", hint="such as lmdb://state")
        return import_module(f"{__name__}.embedded").EmbeddedStore(place, **_options(url, query), **timed)
    if kind in ("redis", "rediss"):
        return import_module(f"{__name__}.server").ServerStore(url, **timed)
    told = urlsplit(url).scheme or url
    raise ConfigError(f"'{told}' is no store", hint="there are memory://, lmdb://, redis:// and rediss://")


def _options(url: str, query: str) -> dict[str, int]:
    """The options of an LMDB file.

    Raises:
        ConfigError: there is no such option, or it is no number.
    """
    options = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := [name for name in options if name != "map_size"]:
        raise ConfigError(f"'{unknown[0]}' in '{url}' is no option", hint="there is map_size, in bytes")
    try:
        return {name: int(value) for name, value in options.items()}
    except ValueError as error:
        raise ConfigError(f"map_size in '{url}' is no number", hint="give bytes, such as 1000000000") from error


__all__ = ["open_store"]
