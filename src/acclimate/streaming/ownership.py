"""Who refreshes which partition: leases in the store, shared fairly among the workers that are alive."""

from collections.abc import Collection, Sequence

from acclimate.artifacts import Held, Lease, Store
from acclimate.errors import FencedError

_WORKERS, _PARTITIONS = "workers", "partitions"
"""Units that hold nothing: their leases say who is alive, and whose a partition is."""


class Ownership:
    """The partitions of a stream that a worker has, each by a lease.

    A lease that is not renewed is free after ``seconds``; then another worker takes the partition over, and one of
    the same name at once, as it is the same one started again. That the one before writes nothing any more is left
    to the leases of the units themselves, which are taken over too. ``stream`` tells partitions of several streams
    apart that have one store.
    """

    def __init__(self, store: Store, worker: str, stream: str, partitions: int, seconds: float) -> None:
        self.store, self.worker, self.partitions, self.seconds = store, worker, partitions, seconds
        self._workers, self._partitions = f"{_WORKERS}/{stream}/", f"{_PARTITIONS}/{stream}/"
        self.held = dict[int, Lease]()
        self._alive: Lease | None = None

    def settle(self, assigned: Collection[int] | None = None) -> None:
        """Renew what we have, give back what is too much, and take what is free.

        Args:
            assigned: the partitions that the broker gives to this worker, who then takes them from whoever has
                them; without, each worker has its share.
        """
        self._alive = self._kept(self._alive) or self._acquired(self._workers + self.worker, take_over=True)
        kept = {number: self._kept(lease) for number, lease in self.held.items()}
        self.held = {number: lease for number, lease in kept.items() if lease is not None}
        wanted = range(self.partitions) if assigned is None else sorted(assigned)
        leases = self.store.leases()
        most = self._share(leases) if assigned is None else len(wanted)
        ours = {one.lease.unit for one in leases if one.lease.owner == self.worker}
        for number in [n for n in sorted(self.held) if n not in wanted] + sorted(self.held)[most:]:
            self.give_back(number)
        for number in wanted:
            if number not in self.held and len(self.held) < most:
                unit = f"{self._partitions}{number}"
                lease = self._acquired(unit, take_over=assigned is not None or unit in ours)
                if lease is not None:
                    self.held[number] = lease

    def is_ours(self, number: int) -> bool:
        """Whether a partition is still ours, as of now; it is given up where it is not.

        Raises:
            OutputError: the store cannot be reached.
        """
        if number in self.held and self._kept(self.held[number]) is None:
            del self.held[number]
        return number in self.held

    def leases(self) -> list[Lease]:
        """All that are to be renewed."""
        return [*([self._alive] if self._alive else []), *self.held.values()]

    def give_back(self, number: int) -> None:
        """Let another worker have a partition."""
        lease = self.held.pop(number, None)
        if lease is not None:
            self.store.release(lease)

    def close(self) -> None:
        """Let others have all of them."""
        for number in list(self.held):
            self.give_back(number)
        if self._alive is not None:
            self.store.release(self._alive)

    def _share(self, leases: Sequence[Held]) -> int:
        """How many partitions each worker has at most."""
        alive = sum(one.lease.unit.startswith(self._workers) and not one.is_expired for one in leases)
        return -(-self.partitions // max(alive, 1))

    def _acquired(self, unit: str, *, take_over: bool) -> Lease | None:
        return self.store.acquire(unit, self.worker, self.seconds, take_over=take_over)

    def _kept(self, lease: Lease | None) -> Lease | None:
        """A lease that is renewed; none where another has it now."""
        if lease is None:
            return None
        try:
            self.store.renew(lease, self.seconds)
        except FencedError:
            return None
        return lease
