"""The contracts of the flow: what learns, what encodes, what holds the states of entities."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

from acclimate.arrays import EntityStates, FloatArray, IdArray, IntArray, Posterior, SparseStates, Support
from acclimate.artifacts.events import Events
from acclimate.errors import ConfigError

SharedPart: TypeAlias = Literal["learn", "keep"]
"""What an update does with all that entities share: learn it too, or keep it, so that entities alone learn."""


class Replayable(Protocol):
    """What a replay asks of an arm; nothing is inherited.

    ``fit`` learns from scratch and forgets what was; ``update`` learns from new events alone; ``predict`` changes
    nothing and returns one probability per row, or the expected label of other kinds, ``(n,)``, in the order of
    ``events.table()``.
    """

    def fit(self, events: Events) -> Any:
        """Learn from these events alone."""
        ...

    def update(self, events: Events) -> Any:
        """Learn from these events what is new in them."""
        ...

    def predict(self, events: Events) -> FloatArray:
        """Probabilities of the label, ``(n,)``."""
        ...


@dataclass(frozen=True)
class Learned:
    """What one fit or update read: ``rows`` events in ``[start, end)``, microseconds UTC, known by a fingerprint.

    ``start`` is ``None`` where it began with the first event; ``late`` says that they came after others of their
    time had been learned. Where an update was undone, ``refused`` says why: then they were read and not learned.
    """

    start: int | None
    end: int
    rows: int
    fingerprint: str
    sample: str
    late: bool = False
    refused: str = ""


class Kept(Protocol):
    """What a learner and an encoder have in common: they are declared, saved, loaded and brought up to date.

    ``kind`` names them in project files and manifests; ``parameters`` is the frozen record of
    :mod:`acclimate.config` that declares them; ``history`` is what was read so far, kept and saved for those who
    bring a model up to date.
    """

    kind: ClassVar[str]
    parameters: Any
    history: tuple[Learned, ...]

    def fit(self, events: Events) -> Self:
        """Learn from these events alone."""
        ...

    def update(self, events: Events) -> Self:
        """Learn from these events what is new in them."""
        ...

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write all that is known to a folder."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; it goes on as if it had never stopped."""
        ...

    @property
    def cut(self) -> int:
        """Time of the last event learned, microseconds UTC."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        ...

    def summary(self) -> list[str]:
        """How the last fit or update went and what is known now, in lines for the terminal."""
        ...

    def check_converged(self) -> None:
        """Raise :class:`acclimate.errors.NotConvergedError` where the last fit or update stopped or was undone."""
        ...

    def refusal(self) -> str:
        """Why the last update was undone, so that nothing was learned; empty where it was not."""
        ...


def modes_of(learner: Any) -> tuple[str, ...]:
    """The modes that a learner's predictions have; none where its ``predict`` takes no ``mode``.

    One that is made of others says so itself, by an attribute ``modes``.
    """
    if hasattr(learner, "modes"):
        return learner.modes
    return ("point", "integrated", "thompson") if "mode" in inspect.signature(learner.predict).parameters else ()


def keeps_shared(learner: Any) -> bool:
    """Whether updates of a learner can leave all that its entities share as it is.

    Its ``update`` takes ``shared``, or it says so by an attribute ``keeps_shared``: where no update changes what
    is shared, or where it is made of others that have a say.
    """
    return learner.keeps_shared if hasattr(learner, "keeps_shared") else _takes_shared(learner)


def update_options(learner: Any, shared: SharedPart) -> dict[str, Any]:
    """What ``update`` of a learner is called with beside the events, for ``shared`` to be as asked.

    Raises:
        ConfigError: it is to be kept, and this learner cannot.
    """
    if shared == "learn":
        return {}
    if not keeps_shared(learner):
        raise ConfigError(
            f"an update of a {type(learner).__name__} changes what its entities share, and it is to be kept",
            hint="update it with shared='learn', or use a GLMix, a MetaRanker or encoders",
        )
    return {"shared": shared} if _takes_shared(learner) else {}


def _takes_shared(learner: Any) -> bool:
    return "shared" in inspect.signature(learner.update).parameters


class Learner(Kept, Replayable, Protocol):
    """The contract of everything that can be replayed, published, streamed and served."""

    # Stated again, since both sides of the inheritance have them.
    def fit(self, events: Events) -> Self:
        """Learn from these events alone."""
        ...

    def update(self, events: Events) -> Self:
        """Learn from these events what is new in them."""
        ...


@runtime_checkable
class Encoder(Kept, Protocol):
    """What turns all that is known of an entity into one vector that other learners use as a feature.

    ``entity`` is a role of the schema, ``size`` the length ``s`` of a vector, ``space`` the identity of the shared
    model: vectors of two spaces are never mixed.
    """

    entity: str
    size: int
    space: str

    def vectors(self, events: Events) -> FloatArray:
        """The vector of each row's entity as it was known before the row, ``(n, s)``."""
        ...

    def vectors_of(self, ids: IdArray, at: int | None = None) -> FloatArray:
        """The vectors of these entities at a time or as of now, ``(len(ids), s)``."""
        ...

    def batches(self) -> Iterator[tuple[IdArray, FloatArray]]:
        """Ids and vectors of all entities as of now, some at a time."""
        ...

    def reconciled(self, events: Events) -> FloatArray:
        """How far each entity's vector, ``(entities,)``, is from one made anew of all the events learned."""
        ...


@dataclass(frozen=True)
class Exported:
    """Vectors by id that a learner makes for others, to be looked up where they are served.

    ``columns``: of the events, which have the ids; ``ids`` gives all that are known, ``vectors`` those of some
    ``(n, s)``, each right after a time of its own ``(n,)``, microseconds UTC, or without after the last event.
    """

    columns: tuple[str, ...]
    ids: Callable[[], IdArray]
    vectors: Callable[[IdArray, IntArray | None], FloatArray]


class Entities(Protocol):
    """Where the states of a learner's entities live, by effect; whoever holds them, learning is the same.

    Learning takes what a batch touches and commits what it changed, so cost follows the new rows and never the
    states that are stored. ``position`` is how far into a stream the states go, as it was last committed.
    """

    position: str | None

    def take(self, effect: str, ids: IdArray, population: Posterior) -> EntityStates:
        """The states of these ids, in the width and form of ``population`` (one block of ``d`` coefficients).

        An id that is not known is at the population; coefficients that a state lacks are at the population's.
        """
        ...

    def means(self, effect: str, ids: IdArray, population: Posterior) -> FloatArray:
        """The means alone, ``(len(ids), d)``: all that a score at the means needs."""
        ...

    def take_sparse(self, effect: str, ids: IdArray) -> SparseStates:
        """The states of those of these ids that are known, where entities hold some coefficients only."""
        ...

    def sparse_means(self, effect: str, ids: IdArray) -> Iterator[tuple[IntArray, Support, FloatArray]]:
        """The same without precisions: of some at a time their places ``(m,)``, supports and means ``(m, s)``."""
        ...

    def commit(self, changed: Mapping[str, Iterable[EntityStates]], position: str | None = None) -> None:
        """Store changed states, effect by effect, a piece at a time, and the position of the stream they go up to.

        All or nothing: states and position are of one moment.
        """
        ...
