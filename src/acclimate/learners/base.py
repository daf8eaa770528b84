"""What the learners of this package do alike: be declared by a record, know their schema, go to disk and back."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, IdArray
from acclimate.artifacts import Events, Exported, Learned
from acclimate.config import Schema
from acclimate.errors import MismatchError, NotConvergedError, NotFittedError
from acclimate.learners.gate import check_arrays
from acclimate.storage import (
    Below,
    Columns,
    Segment,
    Stored,
    Unwritten,
    read_artifact,
    read_segments,
    unpacking,
    write_artifact,
)
from acclimate.times import utc
from acclimate.together import first_of_all

P = ParamSpec("P")
R = TypeVar("R")


class Known(Protocol):
    """What every state says: the content of the schema, and the last event learned (microseconds UTC)."""

    @property
    def contract(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def cut(self) -> int: ...  # noqa: D102


S = TypeVar("S", bound=Known)


class Layered(Protocol):
    """Rows by id that lie in segments on disk, or in a store, but for those that have changed since."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the events that have the ids."""
        ...

    @property
    def is_described(self) -> bool:
        """Whether rows hold what events tell of their id itself, so that any of its events will do."""
        ...

    def layers(self) -> Sequence[Segment | Unwritten]:
        """The segments that hold all rows: those that are there, and those to be written."""
        ...

    def written(self, segments: Sequence[Segment]) -> None:
        """Go on with these, which hold all rows that there were when they were asked for."""
        ...

    def changed(self) -> Iterator[tuple[IdArray, Columns]]:
        """Ids and columns of what has changed, rows of one layout at a time."""
        ...

    def unchanged(self) -> Iterator[tuple[IdArray, Columns]]:
        """The same of all other rows, read piece by piece."""
        ...

    def rest_on(self, below: Below) -> None:
        """Go on with these, which hold all rows; what has changed in memory is let go."""
        ...

    def settle(self) -> None:
        """Let go of what has changed: it was written to where the others are."""
        ...


@dataclass(frozen=True)
class Packed:
    """A state as it goes to disk; ``manifest`` is what JSON can hold of it."""

    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    tables: Mapping[str, pa.Table] = field(default_factory=dict[str, pa.Table])
    rows: Mapping[str, Layered] = field(default_factory=dict[str, Layered])


def declared_by(
    record: Callable[P, R],
) -> Callable[[Callable[[Any, R], None]], Callable[Concatenate[Any, P], None]]:
    """A constructor that takes the fields of a record, so that they are written once, and is given the record."""

    def decorated(init: Callable[[Any, R], None]) -> Callable[Concatenate[Any, P], None]:
        def constructor(self: Any, *values: P.args, **fields: P.kwargs) -> None:
            init(self, record(*values, **fields))

        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(record)
        constructor.__signature__ = signature.replace(parameters=[this, *signature.parameters.values()])  # type: ignore[attr-defined]
        constructor.__doc__ = init.__doc__
        return constructor

    return decorated


class Fitted(ABC, Generic[S]):
    """A learner with a state, from its first fit on; ``info`` tells of the last fit or update."""

    kind: ClassVar[str]
    facts: ClassVar[tuple[str, ...]] = ("label", "contract", "cut")
    """Fields of a state that are written down as they are."""

    parameters: Any
    state: S | None
    info: Any
    history: tuple[Learned, ...] = ()
    _saved: tuple[Path, str] | None = None
    """Where it was last saved or loaded from, and the seal of what is there."""

    @abstractmethod
    def _packed(self, state: S) -> Packed:
        """The state as it goes to disk, but for its ``facts``."""

    @abstractmethod
    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        """Take the state back; ``known`` are the fields that are ``facts``."""

    @property
    def cut(self) -> int:
        """Time of the last event learned, microseconds UTC.

        Raises:
            NotFittedError: nothing was learned yet.
        """
        return self._fitted().cut

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        until = utc(self._fitted().cut).isoformat(timespec="seconds")
        return [f"learned {self.info.rows:,} rows up to {until}"] if self.info else [f"knows events up to {until}"]

    def shortfall(self) -> str:
        """How far from its optimum the last fit or update stopped, in words; empty where it arrived.

        As it is for what is counted or computed in one go: a learner that searches says more.
        """
        return ""

    def refusal(self) -> str:
        """Why the last update was undone, so that nothing was learned; empty where it was not.

        As it is for what learns all that it is allowed to read.
        """
        return ""

    def check_converged(self) -> None:
        """Ask that the last fit or update has reached its optimum, and was not undone.

        Raises:
            NotConvergedError: it has not, and the state is that of its last step, finite and usable; or it was,
                and the state is what it was before.
        """
        if refused := self.refusal():
            raise NotConvergedError(
                refused, hint="look at these rows; raise refuse_above or lower update_rate, or fit anew"
            )
        if left := self.shortfall():
            raise NotConvergedError(
                f"the last fit or update of this {type(self).__name__} did not converge: {left}",
                hint="allow it (--allow-unconverged), or raise max_steps, tolerance or the ridge",
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the learner as a folder (JSON, safetensors, Parquet), whole or not at all.

        Of several processes that have learned together the first one writes.

        Raises:
            NotFittedError: there is nothing to save.
            ModelError: something in it is not finite.
            OutputExistsError: the place is taken, or another has saved there since this one was loaded.
            OutputError: the place cannot be written.
        """
        with first_of_all() as is_first:
            if is_first:
                self._write(path, overwrite=overwrite)

    def check_kept(self) -> None:
        """Ask before a save that what is kept of entities is what learning makes of it; updates are not asked.

        As it is for what is right by how it is made.

        Raises:
            ModelError: it is not.
        """

    def _write(self, path: str | Path, *, overwrite: bool) -> None:
        packed = self._whole()
        self.check_kept()
        check_arrays(type(self).__name__, packed.arrays)
        place = Path(path).resolve()
        segments = {name: rows.layers() for name, rows in packed.rows.items()}
        seal = write_artifact(
            path,
            kind=self.kind,
            manifest=packed.manifest,
            arrays=packed.arrays,
            tables=packed.tables,
            segments=segments,
            overwrite=overwrite,
            expected=self._saved[1] if self._saved and self._saved[0] == place else None,
        )
        self._saved = (place, seal)
        known = [one for layers in segments.values() for one in layers if isinstance(one, Segment)]
        for name, written in (read_segments(path, seal, known) or {}).items():
            packed.rows[name].written(written)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a learner that :meth:`save` wrote.

        Raises:
            FormatError: there is none, it is damaged or of another version.
            MismatchError: it is of another kind.
        """
        stored = read_artifact(path, kind=cls.kind)
        with unpacking(path):
            learner = cls._made(stored)
        learner._saved = (Path(path).resolve(), stored.manifest["seal"])
        return learner

    def _whole(self) -> Packed:
        """All that is known, with what it takes to make the learner anew."""
        packed = self._contents()
        history = [asdict(learned) for learned in self.history]
        return replace(
            packed, manifest={"parameters": asdict(self.parameters), "history": history, **packed.manifest}
        )

    @classmethod
    def _made(cls, stored: Stored) -> Self:
        """The learner that :meth:`_whole` told of."""
        learner = cls(**stored.manifest["parameters"])
        learner.history = tuple(Learned(**learned) for learned in stored.manifest["history"])
        learner._restore(stored)
        return learner

    def _contents(self) -> Packed:
        """All that is known, as it goes to disk."""
        state = self._fitted()
        packed = self._packed(state)
        known = {fact: getattr(state, fact) for fact in self.facts}
        return replace(packed, manifest={**known, **packed.manifest})

    def shared(self) -> Packed:
        """What all entities share, by which a space is known: as it goes to disk, without the rows of entities.

        As it is for a learner that keeps these as rows, or has none.
        """
        return replace(self._packed(self._fitted()), rows={})

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:  # noqa: ARG002
        """By kind of entity the distinct ids ``(t,)`` in these events, and which of them were learned before.

        As it is for what keeps nothing of entities.
        """
        return {}

    def exported(self) -> dict[str, Exported]:
        """The vectors that others may look up, by kind of entity as in :meth:`known`; as it is here, none."""
        return {}

    def _restore(self, stored: Stored) -> None:
        """Take back what :meth:`_contents` gave."""
        self._unpack(stored, {fact: stored.manifest[fact] for fact in self.facts})

    def _fitted(self, schema: Schema | None = None) -> S:
        """The state.

        Raises:
            NotFittedError: there is none yet.
            MismatchError: it was learned from events of another schema.
        """
        if self.state is None:
            raise NotFittedError(
                f"this {type(self).__name__} has learned nothing yet", hint="fit it, or load a saved one"
            )
        if schema is not None and schema.content() != self.state.contract:
            raise MismatchError(
                f"events of another schema than the model's: {_difference(self.state.contract, schema.content())}",
                hint="read them with the schema that the model was fitted with, or fit anew",
            )
        return self.state


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two contents of a schema, in words."""
    return "; ".join(
        f"{key} was {saved.get(key)} and is {now.get(key)}"
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    )
