"""How a loop is told to end, from a signal as from another thread."""

from queue import Empty, SimpleQueue


class Stop:
    """Like an event of :mod:`threading`, but that a signal may set it while the same thread waits for it.

    The lock of an event could be held then by the very wait that the signal interrupts.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._bell = SimpleQueue[None]()

    def set(self) -> None:
        """End."""
        self._is_set = True
        self._bell.put(None)

    def is_set(self) -> bool:
        """Whether it is to end."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until it is to end; returns whether it is."""
        if not self._is_set and seconds > 0:
            try:
                self._bell.get(timeout=seconds)
            except Empty:
                return self._is_set
        return self._is_set
