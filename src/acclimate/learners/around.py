"""What learners that are made of others do alike: show what is inside, and keep it in one artifact."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from acclimate.arrays import BoolArray, IdArray, Posterior
from acclimate.artifacts import Drift, Events, keeps_shared, modes_of
from acclimate.errors import ConfigError
from acclimate.learners.base import Fitted, Packed, S
from acclimate.storage import Stored


class Around(Fitted[S]):
    """A learner that is made of others."""

    @property
    @abstractmethod
    def _learners(self) -> Sequence[Any]:
        """All of them; what is shown of coefficients is of the first one."""

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that predictions have: those of the first one."""
        return modes_of(self._learners[0])

    @property
    def keeps_shared(self) -> bool:
        """Whether updates can leave all that entities share as it is: where all of them can."""
        return all(map(keeps_shared, self._learners))

    def weights(self) -> list[tuple[str, float, float]]:
        """Name, mean and standard deviation of the shared coefficients, of a learner that can tell them."""
        first = self._learners[0]
        return first.weights() if hasattr(first, "weights") else []

    def drift(self) -> tuple[Drift, ...]:
        """How the events of the last update surprised it before it learned them, of a learner that can tell."""
        first = self._learners[0]
        return first.drift() if hasattr(first, "drift") else ()

    def entity_posterior(self, entity: str, id: Any) -> tuple[tuple[str, ...], Posterior, int]:
        """What is known of one entity.

        Names of the coefficients, their posterior ``(d,)`` and the rows learned so far.

        Raises:
            ConfigError: nothing is kept of such entities.
        """
        first = self._learners[0]
        if not hasattr(first, "entity_posterior"):
            raise ConfigError(f"a {type(first).__name__} keeps no posterior of '{entity}'")
        return first.entity_posterior(entity, id)

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        self._fitted()
        return sum(learner.nbytes for learner in self._learners)

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:
        """What the first says that knows such entities; see :meth:`acclimate.learners.base.Fitted.known`."""
        found = [learner.known(events) for learner in self._learners]
        return {name: told for one in reversed(found) for name, told in one.items()}

    def check_kept(self) -> None:
        """See :meth:`acclimate.learners.base.Fitted.check_kept`: all of them are asked."""
        for learner in self._learners:
            learner.check_kept()

    def _packed(self, state: S) -> Packed:
        return self._with_own(state, _side_by_side([learner._contents() for learner in self._learners]))

    def shared(self) -> Packed:
        """What is shared in all of them, and beside them; see :meth:`acclimate.learners.base.Fitted.shared`."""
        state = self._fitted()
        return self._with_own(state, _side_by_side([learner.shared() for learner in self._learners]))

    def _with_own(self, state: S, packed: Packed) -> Packed:  # noqa: ARG002
        """The same with what is of none of the others."""
        return packed

    def _unpack_learners(self, stored: Stored) -> None:
        """Let all take their states back."""
        for i, (learner, manifest) in enumerate(zip(self._learners, stored.manifest["learners"], strict=True)):
            parts = (_under(f"{i}.", parts) for parts in (stored.arrays, stored.tables, stored.segments))
            learner._restore(Stored(manifest, *parts))


def _side_by_side(parts: Sequence[Packed]) -> Packed:
    return Packed(  # numbered: names of learners may be none of files
        {"learners": [part.manifest for part in parts]},
        {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.arrays.items()},
        {f"{i}.{name}": table for i, part in enumerate(parts) for name, table in part.tables.items()},
        {f"{i}.{name}": rows for i, part in enumerate(parts) for name, rows in part.rows.items()},
    )


def _under(prefix: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
