"""What could not be reached is tried again, later each time; the others do not wait for it."""

import time
from typing import Any

from acclimate.errors import AcclimateError
from acclimate.streaming.metrics import Metrics

_FIRST, _LONGEST = 0.05, 5.0
"""Seconds between two attempts."""


class Pauses:
    """Who has to wait, for how long, and for what: told in metrics and logs."""

    def __init__(self, metrics: Metrics, log: Any) -> None:
        self._metrics, self._log = metrics, log
        self._waiting = dict[Any, tuple[str, float, float]]()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def is_due(self, key: Any) -> bool:
        """Whether something may be tried, at all or again."""
        return key not in self._waiting or time.monotonic() >= self._waiting[key][2]

    def failed(self, key: Any, where: str, error: AcclimateError) -> None:
        """Something failed: it waits, twice as long as before."""
        pause = min(2 * self._waiting[key][1], _LONGEST) if key in self._waiting else _FIRST
        self._waiting[key] = where, pause, time.monotonic() + pause
        self._metrics.failures.labels(where).inc()
        self._metrics.stalled.labels(where).set(1)
        self._log.warning("tried again", where=where, seconds=pause, reason=str(error))

    def succeeded(self, key: Any) -> None:
        """Something went well: it waits for nothing."""
        waited = self._waiting.pop(key, None)
        if waited is not None and all(where != waited[0] for where, *_ in self._waiting.values()):
            self._metrics.stalled.labels(waited[0]).set(0)

    def only(self, keys: Any) -> None:
        """Forget all others."""
        for key in [key for key in self._waiting if key not in keys]:
            self.succeeded(key)
