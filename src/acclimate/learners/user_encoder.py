"""One vector of all that is known of an entity, which many learners share and each event refreshes.

Fazelnia et al., arXiv 2403.00584 and RecSys 2025: an autoencoder over groups of inputs. The shared model is
trained rarely; what each entity did lately is kept as it happens.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from acclimate import progress
from acclimate.arrays import BoolArray, FloatArray, IdArray, IntArray
from acclimate.artifacts import Events, Exported
from acclimate.config import Schema, UserEncoderParameters
from acclimate.errors import ConfigError, MismatchError, nearest
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.batch import ids_in
from acclimate.learners.encoder.histories import Histories
from acclimate.learners.encoder.inputs import Plan
from acclimate.learners.encoder.learning import EncoderInfo, fitted, reader_of
from acclimate.learners.encoder.logs import differences, inputs_along
from acclimate.learners.encoder.rows import Numbered, Piece, Reader
from acclimate.learners.encoder.state import EncoderState, learn_histories, learn_items
from acclimate.learners.encoder.storing import packed, rows_of, unpacked
from acclimate.models.alignment import procrustes
from acclimate.models.encoding import encode
from acclimate.storage import Stored
from acclimate.times import instant

_AT_A_TIME = 16_384
"""Entities that are encoded together where all are."""


class UserEncoder(Fitted[EncoderState]):
    """An encoder of entities: it predicts nothing, its vectors are features of learners that do.

    A fit trains the shared model and with it defines a space. An update adds events to the histories of the
    entities in them and touches nothing else; a vector is computed when it is asked for, from the history as it is
    then. So the same arithmetic serves training, everyone at once, and one entity after each event.

    Its arguments are the fields of :class:`acclimate.config.UserEncoderParameters`.
    """

    kind: ClassVar[str] = "user-encoder"
    keeps_shared: ClassVar[bool] = True
    """No update changes what is shared: see :func:`acclimate.artifacts.keeps_shared`."""
    facts: ClassVar[tuple[str, ...]] = ("contract", "cut", "space")

    @declared_by(UserEncoderParameters)
    def __init__(self, parameters: UserEncoderParameters) -> None:
        self.parameters: UserEncoderParameters = parameters
        self.state: EncoderState | None = None
        self.info: EncoderInfo | None = None

    # --- what an encoder is -----------------------------------------------------------------------------------

    @property
    def entity(self) -> str:
        """The role or column of the entity that has the vector."""
        return self.parameters.entity

    @property
    def size(self) -> int:
        """Length of a vector."""
        return self.parameters.size

    @property
    def space(self) -> str:
        """The identity of the shared model: vectors of two spaces are never mixed.

        Raises:
            NotFittedError: there is none yet.
        """
        return self._fitted().space

    @property
    def nbytes(self) -> int:
        """Bytes of the shared model and of what is kept of entities and items."""
        state = self._fitted()
        shared = sum(array.nbytes for array in state.weights.arrays().values())
        seen = state.last_seen.entities * (state.last_seen.values.shape[1] * 4 + 8)
        ids = 8 * (len(state.users) + len(state.items))
        return shared + state.histories.nbytes + seen + ids + state.table.items * state.table.table.shape[1] * 4

    def summary(self) -> list[str]:
        """How the last fit or update went, in lines for the terminal."""
        lines, state, info = super().summary(), self._fitted(), self.info
        lines[0] += f"; {len(state.users):,} of '{self.entity}', vectors of {self.size} in space {state.space}"
        if info is not None and info.losses:
            lines.append(f"loss of the newest moments {' -> '.join(f'{loss:.4f}' for loss in info.losses)}")
        return lines

    # --- learning -----------------------------------------------------------------------------------------------

    def fit(self, events: Events, *, checkpoint: str | Path | None = None) -> Self:
        """Train the shared model on these events alone, and know their entities' histories.

        Args:
            events: the rows, whatever is known of their labels.
            checkpoint: a file that the training is kept in while it lasts: after a kill the same call goes on.

        Raises:
            DataError: there are no events, or rows are not allowed.
            ModelError: the training ran away; what was known stays.
            ConfigError: the schema lacks what is declared.
            MissingExtraError: torch is not installed.
        """
        self.state, self.info = fitted(self.parameters, events, None if checkpoint is None else Path(checkpoint))
        return self

    def update(self, events: Events) -> Self:
        """Add new events, late ones too, to the histories of their entities; the space stays the same.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        self.prepared(events)()
        return self

    def prepared(self, events: Events) -> Callable[[], None]:
        """Read and check new events, all of them, and learn nothing yet: that is done by what is returned.

        So who learns together with others, all or none, need not copy what is known of everyone.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        pieces = list(self._reader(events.schema).pieces(events))
        return lambda: self._learn(pieces)

    def emptied(self) -> "UserEncoder":
        """An encoder with the same shared model that knows nothing of any entity: of the same space."""
        state, other = self._fitted(), copy.copy(self)
        other.state = replace(
            state,
            cut=0,
            users=Numbered(self.entity, kind=state.users.kind),
            items=state.items.copied(),
            table=state.table.copied(),
            histories=Histories(self.parameters.most_events),
            last_seen=state.last_seen.emptied(),
        )
        return other

    def observe(self, id: Any, item: Any, time: int, shown: Iterable[str] = ()) -> FloatArray:
        """Learn one event and give the vector ``(s,)`` of its entity right after it: the online path.

        What the columns of a row say of an entity, and the features of a new item, come with :meth:`update`.

        Args:
            id: of the entity, known or not.
            item: the id of what it touched; one never seen has no vector, but counts.
            time: microseconds UTC.
            shown: names of behaviours that the event shows, beside those without a label, which all show.

        Raises:
            NotFittedError: there was no fit.
            ConfigError: there is no such behaviour, or no such time; nothing was learned.
            MismatchError: an id is of another type than those so far; nothing was learned.
        """
        state, flags, time = self._fitted(), self._flags(shown), _microseconds(time)
        both = state.users.kept(id), state.items.kept(item)  # whatever may be wrong is told before one is learned
        user, number = (ids.admit_one(kept) for ids, kept in zip((state.users, state.items), both, strict=True))
        state.users.touch_one(both[0], user)
        if number >= state.table.items:
            state.table.grow(number + 1)
        if user >= state.histories.entities:
            state.histories.grow(user + 1)
            state.last_seen.grow(user + 1)
        state.histories.append(user, time, number, flags)
        if time > state.cut:
            self.state = state = replace(state, cut=time)
        return encode(state.weights, state.inputs_of_one(user, time + 1))[0]

    def columns(self, events: Events) -> dict[str, int]:
        """Read and check these events as :meth:`fit` would, and count the columns of each group of inputs.

        Raises:
            ConfigError: the schema lacks what is declared, or a group has too many names.
            MismatchError: ids are missing.
        """
        behaviours = self.parameters.behaviours_of(events.schema.binary_labels)
        reader = reader_of(self.parameters, events.schema, behaviours)
        reader.grow = True
        for _ in reader.pieces(events):
            pass
        sizes = {kind: one.size for kind, one in self.parameters.items.items()}
        plan = Plan.of_parameters(self.parameters, behaviours, sizes, reader.layouts)
        return {group.name: group.end - group.begin for group in plan.groups}

    # --- vectors ------------------------------------------------------------------------------------------------

    def vectors(self, events: Events) -> FloatArray:
        """The vector of each row's entity as it was known before these events ``(n, s)``; nothing is changed.

        The columns that a row itself has, such as a profile, are what is known of its entity when it happens.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        state = self._fitted(events.schema)
        return self._stacked(encode(state.weights, x) for x in self._inputs(events))

    def vectors_along(self, events: Events) -> FloatArray:
        """The same ``(n, s)`` for a service that learns each event as it comes: rows see all that is earlier.

        What is at the same instant is not earlier. Nothing is changed.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema, or ids of another type.
        """
        state, reader = self._fitted(events.schema), self._reader(events.schema)
        return self._stacked(encode(state.weights, x) for x in inputs_along(state, reader, events))

    def vectors_of(self, ids: IdArray | list[Any], at: int | None = None) -> FloatArray:
        """The vectors of these entities ``(len(ids), s)`` at a time, by default after the last event learned.

        One that is not known has the vector of someone of whom nothing is. At an earlier time later events do not
        count; the columns of rows, such as a profile, are the last ones that the entity had.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: ids are missing, or of another type than those so far.
            ConfigError: there is no such time.
        """
        return encode(self._fitted().weights, self.inputs_of(ids, at))

    def inputs_of(self, ids: IdArray | list[Any], at: int | None = None) -> NDArray[np.float32]:
        """The grouped inputs ``(len(ids), D)`` that :meth:`vectors_of` encodes; see :attr:`input_names`.

        Numbers in rows are standardised, as float32 would keep too few digits of some; all else is as it is.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: ids are missing, or of another type than those so far.
            ConfigError: there is no such time.
        """
        state = self._fitted()
        numbers = state.users.numbers(ids)
        return state.inputs(numbers, np.full(len(numbers), self._moment(at)))

    @property
    def input_names(self) -> list[str]:
        """What each column of the inputs is, ``D`` of them: its group, and its place in it."""
        return self._fitted().plan.names()

    @property
    def ids(self) -> IdArray:
        """All entities that are known, in the order in which they came."""
        return self._fitted().users.index.ids()

    def batches(self, at: int | None = None) -> Iterator[tuple[IdArray, FloatArray]]:
        """Ids ``(n,)`` and vectors ``(n, s)`` of all that are known, some at a time; told to who watches.

        Raises:
            NotFittedError: there was no fit.
            ConfigError: there is no such time.
        """
        state, ids, moment = self._fitted(), self.ids, self._moment(at)
        for begin in range(0, len(ids), _AT_A_TIME):
            numbers = np.arange(begin, min(begin + _AT_A_TIME, len(ids)))
            x = state.inputs(numbers, np.full(len(numbers), moment))
            progress.tell(int(numbers[-1]) + 1, len(ids))
            yield ids[numbers], encode(state.weights, x)

    def item_vectors(self, kind: str) -> tuple[IdArray, NDArray[np.float32], str]:
        """Ids, vectors ``(I, s)`` and the space of one kind of item vectors; zeros of items that have none.

        Raises:
            NotFittedError: there was no fit.
            ConfigError: there is no such kind.
        """
        state = self._fitted()
        if kind not in state.table.kinds:
            raise ConfigError(f"no item vectors '{kind}'", hint=nearest(kind, state.table.kinds))
        return state.items.index.ids(), state.table.vectors(kind), state.table.space(kind)

    # --- spaces -------------------------------------------------------------------------------------------------

    def aligned_with(self, earlier: "UserEncoder") -> Self:
        """Keep the orthogonal map that turns vectors into those of an earlier space, by entities that both know.

        It is saved with the encoder; :meth:`in_space` uses it.

        Raises:
            MismatchError: the two are of another size, or have no entity in common.
        """
        state, ids = self._fitted(), self.ids
        there = earlier._fitted().users.index.numbers(ids) >= 0
        if earlier.size != self.size or not there.any():
            raise MismatchError(
                f"vectors of {earlier.size} and {self.size}, {int(there.sum()):,} entities in common: no map",
                hint="align encoders of one size, fitted on logs that overlap",
            )
        common = ids[there]
        mapped = procrustes(self.vectors_of(common), earlier.vectors_of(common)).astype(np.float32)
        self.state = replace(state, maps={**state.maps, earlier.space: mapped})
        return self

    def in_space(self, vectors: FloatArray, space: str) -> FloatArray:
        """Vectors ``(n, s)`` of this encoder in a space: its own, or one that it is aligned with.

        Raises:
            MismatchError: it is none of these.
        """
        state = self._fitted()
        if space == state.space:
            return vectors
        if space not in state.maps:
            known = ", ".join(state.maps) or "none"
            raise MismatchError(
                f"vectors of space {state.space} are asked for in {space}; it is aligned with {known}",
                hint="align the encoder with the earlier one (aligned_with), or fit the consumer anew",
            )
        return vectors @ state.maps[space]

    def reconciled(self, events: Events) -> FloatArray:
        """How far each entity's vector is from one made anew of these events, which are all that were learned.

        The largest difference of a component, ``(entities,)``: of those that are known, then of those that only
        the events know. It checks what is kept as events come: the histories, not the columns of rows.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the events have another schema.
        """
        state = self._fitted(events.schema)
        pieces = self._reader(events.schema).pieces(events.before(state.cut + 1))
        return differences(state, pieces, _AT_A_TIME)

    # --- how it works -------------------------------------------------------------------------------------------

    def _reader(self, schema: Schema) -> Reader:
        state = self._fitted(schema)
        reader = reader_of(self.parameters, schema, state.behaviours)
        reader.users, reader.items = state.users, state.items
        reader.layouts = state.layouts
        reader.content_layouts = {kind: content.layout for kind, content in state.contents.items()}
        return reader

    def _learn(self, pieces: Sequence[Piece]) -> None:
        state, changed = self._fitted(), 0
        for piece in pieces:
            users, items = state.users.admit(piece.users), state.items.admit(piece.items)
            described = learn_items(state.table, state.contents, piece, items)
            state.items.touch(piece.items[described], items[described])
            state.users.touch(piece.users, users)
            changed += learn_histories(state.histories, piece, users, items)
            state.last_seen.grow(len(state.users))
            columns = state.columns(piece.columns, len(piece.last))
            state.last_seen.learn(users[piece.user[piece.last]], piece.time[piece.last], columns)
            state = replace(state, cut=max(state.cut, int(piece.time[-1])))
        self.state, self.info = state, EncoderInfo(sum(len(piece.time) for piece in pieces), changed)

    def _moment(self, at: int | None) -> int:
        """The time that is asked about: by default right after the last event."""
        return self._fitted().cut + 1 if at is None else _microseconds(at)

    def _inputs(self, events: Events) -> Iterator[NDArray[np.float32]]:
        state = self._fitted()
        for users, time, read in self._reader(events.schema).asked(events):
            yield state.inputs(users, time, state.columns(read, len(time)))

    def _stacked(self, parts: Iterable[FloatArray]) -> FloatArray:
        return np.concatenate([np.zeros((0, self.size), np.float32), *parts])

    def _flags(self, shown: Iterable[str]) -> int:
        behaviours, shown = self._fitted().behaviours, {shown} if isinstance(shown, str) else set(shown)
        if unknown := shown - behaviours.keys():
            name = next(iter(unknown))
            raise ConfigError(f"no behaviour '{name}'", hint=nearest(name, behaviours))
        return sum(1 << b for b, (name, label) in enumerate(behaviours.items()) if label is None or name in shown)

    def known(self, events: Events) -> dict[str, tuple[IdArray, BoolArray]]:
        """See :meth:`acclimate.learners.base.Fitted.known`."""
        state = self._fitted()
        column = events.schema.entity_column(self.entity)
        ids = ids_in(events, [column], state.users.kind, f"'{self.entity}'")
        return {self.entity: (ids, state.users.index.numbers(ids) >= 0)}

    def exported(self) -> dict[str, Exported]:
        """See :meth:`acclimate.learners.base.Fitted.exported`."""
        column = self._fitted().contract["entities"].get(self.entity, self.entity)

        def vectors(ids: IdArray, after: IntArray | None) -> FloatArray:
            state = self._fitted()
            at = np.full(len(ids), state.cut) if after is None else after
            return encode(state.weights, state.inputs(state.users.numbers(ids), at + 1))

        return {self.entity: Exported((column,), lambda: self.ids, vectors)}

    def shared(self) -> Packed:
        """The weights, and the space that they define; see :meth:`acclimate.learners.base.Fitted.shared`."""
        state = self._fitted()
        return Packed({"space": state.space}, dict(state.weights.arrays()))

    def _packed(self, state: EncoderState) -> Packed:
        def become(state: EncoderState) -> None:
            self.state = state

        return replace(packed(state), rows=rows_of(self.parameters, self._fitted, become))

    def _unpack(self, stored: Stored, known: dict[str, Any]) -> None:
        self.state = unpacked(stored, self.parameters, known)


def _microseconds(time: Any) -> int:
    """A time in microseconds UTC.

    Raises:
        ConfigError: it is no whole number, or outside the years 1 to 9999.
    """
    if not isinstance(time, int | np.integer):
        raise ConfigError(f"{time!r} is no time", hint="give microseconds since 1970, a whole number")
    return instant(int(time), "UTC")
