"""A learner on top of others: what they say of a row is a feature of it, or its offset."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from acclimate.arrays import FloatArray
from acclimate.artifacts import Events, SharedPart, update_options
from acclimate.config import LABEL_KINDS, StackParameters, lacking_offset, loss_of, predicts
from acclimate.errors import ConfigError, DataError, nearest
from acclimate.learners import make
from acclimate.learners.around import Around
from acclimate.learners.base import declared_by
from acclimate.learners.joined import times_of
from acclimate.learners.members import Members, has_vectors, refusal_of
from acclimate.storage import Stored
from acclimate.times import utc


@dataclass(frozen=True)
class StackState:
    """The label, the content of the schema, and the last event that the learner on top or a member has learned."""

    label: str
    contract: dict[str, Any]
    cut: int


@dataclass(frozen=True)
class StackInfo:
    """How the last fit or update went.

    The ``rows`` learned, how far from their optimum members stopped, by name, and why an update was ``refused``.
    """

    rows: int
    unconverged: Mapping[str, str]
    refused: str = ""


class Stack(Around[StackState]):
    """A learner on top of others, its members: each is a feature of it by its name, and one may be its offset.

    A member with a method ``vectors(events)``, which gives ``(n, s)`` as known before each row, and an attribute
    ``size`` is a feature of kind ``embedding``; any other, or one that says that it ``has_vectors`` not, is a
    numeric feature, its logit. The logit of the member that is the ``offset`` of the learner on top takes the
    place of the schema's own offset, which that member has learned with.

    What a row gets is what the members knew before it. A fit lets them learn the first part of its events
    (``warm_up``) and rolls them forward over the rest, a window (``every``) at a time: what they say of it is
    noted, then they learn it. From the noted rows the learner on top learns. An update is one such window.

    Where all members are encoders there is no warm-up. They know no label but as something that an entity did, so
    their shared model may be of all the events; their histories are emptied, and filled again window by window.

    Members are fitted with the learner on top and never without it. So what it has learned of their vectors is of
    these members: vectors of two fits, which mean different things, never meet.

    The record of the learner on top says which features it uses by a method ``feature_names``, and may have a
    field ``offset``.

    Its arguments are the fields of :class:`acclimate.config.StackParameters`. ``top`` is the learner on top,
    ``members`` has the others by name; all are up to date.

    Raises:
        ConfigError: there are no members, or the offset is none of them.
    """

    kind: ClassVar[str] = "stack"

    @declared_by(StackParameters)
    def __init__(self, parameters: StackParameters) -> None:
        _check_members(parameters)
        self.parameters: StackParameters = parameters
        self.state: StackState | None = None
        self.info: StackInfo | None = None
        self.top, self._below = _made(parameters)

    @property
    def members(self) -> Mapping[str, Any]:
        """The learners below the one on top, by name."""
        return self._below.learners

    def fit(self, events: Events) -> Self:
        """Learn from these events alone; the learner on top from those after the warm-up.

        Raises:
            DataError: there are no events, or no label is known in the warm-up, or none after it.
            ConfigError: the events have a column that is called as a member.
        """
        self._below.schema(events)  # a name that is taken is told before the work begins
        begin = self._begin(events)
        top, below = _made(self.parameters)
        if begin is None:
            below = below.fit(events).emptied()
            top.fit(below.rolled(events, self.parameters.every))
        else:
            top.fit(below.fit(events.before(begin)).rolled(events.after(begin), self.parameters.every))
        return self._now(top, below, events)

    def update(self, events: Events, *, shared: SharedPart = "learn") -> Self:
        """Learn from new events; what the members know now is what all of these rows get.

        All learn, or none: where one refuses the events, or undoes its update, all are as they were.

        Args:
            events: the new rows.
            shared: ``keep`` leaves all that entities share as it is, in the learner on top and in all members.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
            ConfigError: what is shared is to be kept, and one of the learners cannot.
        """
        self._fitted(events.schema)
        options = update_options(self.top, shared)
        noted = self._below.noted(events)
        below = self._below.updated(events, shared)
        refused = "; ".join(f"member '{name}': {why}" for name, why in below.refusals.items())
        if not refused:
            self.top.update(noted, **options)
            refused = refusal_of(self.top)
        if refused:
            self.info = StackInfo(0, {}, refused)
            return self
        return self._now(self.top, below.commit(), events)

    def predict(self, events: Events, **options: Any) -> FloatArray:
        """Probabilities of the label, ``(n,)``, in the order of ``events.table()``; nothing is changed.

        ``options`` are for the learner on top, such as ``mode`` and ``seed`` of a GLMix.
        """
        self._fitted(events.schema)
        return self.top.predict(self._below.noted(events), **options)

    def vectors(self, events: Events) -> FloatArray:
        """The vectors of the learner on top, ``(n, s)``, where it has some."""
        self._fitted(events.schema)
        return self.top.vectors(self._below.noted(events))

    @property
    def size(self) -> int:
        """Length of a vector of the learner on top, where it has some."""
        return self.top.size

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would, and count the columns of all that can count them.

        Raises:
            ConfigError: a label, an entity or a feature is not in the schema.
        """
        counts = {name: m.columns(events) for name, m in self.members.items() if hasattr(m, "columns")}
        widths = {f"{name}.{part}": width for name, parts in counts.items() for part, width in parts.items()}
        return (self.top.columns(self._below.silent(events)) if hasattr(self.top, "columns") else {}) | widths

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal: of all, the one on top, and members."""
        lines = super().summary()
        learners = {"on top": self.top, **self.members} if self.info and not self.refusal() else {}
        return lines + [f"  {name}: {line}" for name, learner in learners.items() for line in learner.summary()]

    def shortfall(self) -> str:
        """How far from their optimum the learner on top and members stopped, or why nothing was learned."""
        if refused := self.refusal():
            return refused
        unconverged = self.info.unconverged if self.info else {}
        parts = [self.top.shortfall(), *(f"member '{name}': {left}" for name, left in unconverged.items())]
        return "; ".join(part for part in parts if part)

    def refusal(self) -> str:
        """Why the last update was undone, of all of the stack; empty where it was not."""
        return self.info.refused if self.info else ""

    @property
    def has_vectors(self) -> bool:
        """Whether the learner on top has vectors."""
        return has_vectors(self.top)

    @property
    def _learners(self) -> list[Any]:
        return [self.top, *self.members.values()]

    def _now(self, top: Any, below: Members, events: Events) -> Self:
        label = events.schema.label(self.parameters.label, kinds=LABEL_KINDS)
        self.top, self._below = top, below
        self.info = StackInfo(events.count(known=label), below.unconverged)
        self.state = StackState(label, events.schema.content(), max(one.cut for one in self._learners))
        return self

    def _begin(self, events: Events) -> int | None:
        """Where the warm-up ends, microseconds UTC; encoders alone need none.

        Raises:
            DataError: there are no events, or on one side of it no label is known.
        """
        times, declared = times_of(events), self.parameters
        if not len(times):
            raise DataError("there are no events to fit on")
        if not any(map(predicts, declared.members.values())):
            return None
        begin = int(times[0]) + int(declared.warm_up * (times[-1] - times[0]))
        for name, member in declared.members.items():
            if not predicts(member):
                continue
            _check_labels(events.before(begin), member.label, f"in the warm-up of '{name}', before {_iso(begin)}")
        _check_labels(events.after(begin), declared.label, f"after the warm-up, from {_iso(begin)} on")
        return begin

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self._unpack_learners(stored)
        self.state = StackState(**known)


def _check_members(parameters: StackParameters) -> None:
    if not parameters.members:
        raise ConfigError("a Stack without members", hint="give the learners that the one on top uses, by name")
    if (offset := lacking_offset(parameters)) is not None:
        raise ConfigError(f"the offset '{offset}' is no member", hint=nearest(offset, parameters.members))
    offset = getattr(parameters.learner, "offset", None)
    if offset is not None and not predicts(parameters.members[offset]):
        raise ConfigError(
            f"the offset '{offset}' is an encoder and has no logit", hint="name it among the features instead"
        )
    if offset is not None and loss_of(parameters.members[offset]) != loss_of(parameters.learner):
        raise ConfigError(
            f"the offset '{offset}' has loss '{loss_of(parameters.members[offset])}' and the learner on top "
            f"'{loss_of(parameters.learner)}'",
            hint="name it among the features instead, or give both one loss",
        )


def _made(parameters: StackParameters) -> tuple[Any, Members]:
    """The learner on top, which finds its offset in the schema, and those below it."""
    top, members = parameters.learner, {name: make(member) for name, member in parameters.members.items()}
    features, offset = top.feature_names(), getattr(top, "offset", None)
    below = Members(members, [name for name in members if name in features], offset)
    return make(top if offset is None else replace(top, offset=None)), below


def _check_labels(events: Events, label: str | None, place: str) -> None:
    label = events.schema.label(label, kinds=LABEL_KINDS)
    if not events.count(known=label):
        raise DataError(
            f"no event has a known label '{label}' {place}", hint="set another warm_up, or fit on more events"
        )


def _iso(time: int) -> str:
    return utc(time).isoformat(timespec="seconds")
