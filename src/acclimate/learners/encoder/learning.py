"""A fit of an encoder: events become histories, items get vectors, and a network is trained on moments past."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Events
from acclimate.config import MOST_BEHAVIOURS, Schema, UserEncoderParameters
from acclimate.errors import ConfigError, DataError, nearest
from acclimate.extras import import_module
from acclimate.features import FieldRows, Layout
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.inputs import Plan, fill, in_log
from acclimate.learners.encoder.items import Content, ItemTable, standardised, standards, together
from acclimate.learners.encoder.rows import Numbered, Reader, stacked_rows
from acclimate.learners.encoder.state import EncoderState, LastSeen, dense_columns, learn_histories
from acclimate.models.encoding import EncoderWeights

_AT_A_TIME = 16_384
"""Rows of names that are made dense together."""

_SCALED_BY = 20_000
"""Snapshots that say what the columns' means and spreads are."""


@dataclass(frozen=True)
class EncoderInfo:
    """How the last fit or update went: ``rows`` learned, entities ``changed``, and of a fit the mean ``losses``.

    These are of the newest snapshots after each epoch; the best epoch counts.
    """

    rows: int
    changed: int = 0
    losses: tuple[float, ...] = ()


def reader_of(parameters: UserEncoderParameters, schema: Schema, behaviours: Mapping[str, str | None]) -> Reader:
    """What reads the events of such an encoder; it knows no id and no name yet.

    Raises:
        ConfigError: the schema lacks an entity, a label or a feature, or has too many labels for all to count.
    """
    if len(behaviours) > MOST_BEHAVIOURS:
        raise ConfigError(
            f"{len(behaviours)} behaviours, more than {MOST_BEHAVIOURS}: an event, and each label of the schema",
            hint="name those that matter as its 'behaviours'",
        )
    for label in behaviours.values():
        schema.label(label)
    for kind, one in parameters.items.items():
        if one.behaviour is not None and one.behaviour not in behaviours:
            raise ConfigError(
                f"items '{kind}': no behaviour '{one.behaviour}'", hint=nearest(one.behaviour, behaviours)
            )
    return Reader(
        schema,
        Numbered(parameters.entity),
        Numbered(parameters.item),
        schema.entity_column(parameters.entity),
        schema.entity_column(parameters.item),
        behaviours,
        parameters.columns,
        {kind: one.features for kind, one in parameters.items.items() if one.features},
    )


def fitted(
    parameters: UserEncoderParameters, events: Events, checkpoint: Path | None
) -> tuple[EncoderState, EncoderInfo]:
    """An encoder of these events alone.

    Raises:
        DataError: there are no events.
        ConfigError: the schema lacks what is declared.
        ModelError: the training ran away.
        MissingExtraError: torch is not installed.
    """
    network = import_module("acclimate.learners.encoder.network")
    behaviours = parameters.behaviours_of(events.schema.binary_labels)
    reader = reader_of(parameters, events.schema, behaviours)
    reader.grow = True
    histories, features, latest = Histories(parameters.most_events), _Features(reader), _LastRows()
    rows, cut = 0, 0
    for piece in reader.pieces(events):
        users, items = reader.users.admit(piece.users), reader.items.admit(piece.items)
        learn_histories(histories, piece, users, items)
        features.add(piece.contents, items)
        latest.add(_Rows(users[piece.user[piece.last]], piece.time[piece.last], piece.columns))
        rows, cut = rows + len(piece.time), int(piece.time[-1])
    if not rows:
        raise DataError("there are no events to fit on", hint="look at events.describe()")
    log = histories.log(np.arange(len(reader.users)))
    table, contents = _item_vectors(parameters, behaviours, features, log, len(reader.items))
    sizes = {kind: one.size for kind, one in parameters.items.items()}
    plan = Plan.of_parameters(parameters, behaviours, sizes, reader.layouts)
    last_seen, centre, scale = _last_seen(latest.all(), plan, reader.layouts)
    snapshots = _Snapshots(parameters, plan, table, log, last_seen)
    standard = network.Scale.fitted(plan, snapshots.inputs(snapshots.sample()))
    snapshots.blank = standard.centre
    moments = network.Moments(snapshots.inputs, len(snapshots), standard)
    weights, done = network.trained(parameters, plan, moments, checkpoint, snapshots.key(parameters))
    state = EncoderState(
        events.schema.content(),
        cut,
        behaviours,
        reader.users,
        reader.items,
        table,
        contents,
        reader.layouts,
        plan,
        standard.centre,
        centre,
        scale,
        weights,
        _space(parameters, events.schema, weights, table, (centre, scale)),
        histories,
        last_seen,
    )
    return state, EncoderInfo(rows, len(reader.users), done.judgements)


@dataclass(frozen=True)
class _Rows:
    """What events ``(m,)`` of users said, by group of columns."""

    users: IntArray
    time: IntArray
    columns: Mapping[str, FieldRows]

    def at(self, rows: IntArray) -> "_Rows":
        """Some of them."""
        return _Rows(
            self.users[rows], self.time[rows], {name: read.at(rows) for name, read in self.columns.items()}
        )


class _LastRows:
    """What the last events of each user said; while a log is read, no more than about twice that is held."""

    def __init__(self) -> None:
        self.parts, self.held, self.kept = list[_Rows](), 0, 0

    def add(self, rows: _Rows) -> None:
        """Those of one more piece."""
        self.parts.append(rows)
        self.held += len(rows.users)
        if self.held > 2 * self.kept:
            self.parts = [self.all()]
            self.held = self.kept = len(self.parts[0].users)

    def all(self) -> _Rows:
        """Of each user the last event, or all that lie on its instant."""
        users, time = (np.concatenate([getattr(part, name) for part in self.parts]) for name in ("users", "time"))
        latest = np.full(users.max() + 1, time.min())
        np.maximum.at(latest, users, time)
        columns = {
            name: stacked_rows([part.columns[name] for part in self.parts]) for name in self.parts[0].columns
        }
        return _Rows(users, time, columns).at(np.flatnonzero(time == latest[users]))


def _last_seen(rows: _Rows, plan: Plan, layouts: Mapping[str, Layout]) -> tuple[LastSeen, FloatArray, FloatArray]:
    """What all users' last events said, and the centre and scale ``(P,)`` by which it is standardised."""
    width = plan.width - plan.from_rows
    last_seen, centre, scale = LastSeen(width), np.zeros(width), np.ones(width)
    last_seen.grow(int(rows.users.max()) + 1)
    for name, begin in plan.columns.items():
        numbers = slice(begin - plan.from_rows, begin - plan.from_rows + len(layouts[name].dense))
        centre[numbers], scale[numbers] = standards(rows.columns[name].dense)
    for begin in range(0, len(rows.users), _AT_A_TIME):
        part = rows.at(np.arange(begin, min(begin + _AT_A_TIME, len(rows.users))))
        dense = dense_columns(plan, layouts, part.columns, len(part.users))
        last_seen.learn(part.users, part.time, standardised(dense, centre, scale).astype(np.float32))
    return last_seen, centre, scale


class _Features:
    """The features of each item as it was first met, by kind of vectors."""

    def __init__(self, reader: Reader) -> None:
        self.layouts = reader.content_layouts
        self.items, self.rows = list[IntArray](), list[Mapping[str, FieldRows]]()
        self.known = 0

    def add(self, contents: Mapping[str, FieldRows], items: IntArray) -> None:
        """Those of the items of a piece that are new."""
        new = np.flatnonzero(items >= self.known)
        self.known = max(self.known, int(items.max(initial=-1)) + 1)
        self.items.append(items[new])
        self.rows.append({kind: read.at(new) for kind, read in contents.items()})

    def of_kind(self, kind: str) -> tuple[FieldRows, IntArray]:
        """The features of all items, and whose they are."""
        return stacked_rows([rows[kind] for rows in self.rows]), np.concatenate(self.items)


def _item_vectors(
    parameters: UserEncoderParameters,
    behaviours: Mapping[str, str | None],
    features: _Features,
    log: Log,
    items: int,
) -> tuple[ItemTable, dict[str, Content]]:
    """The vectors of all kinds, and how those from features come about."""
    table, contents = ItemTable({kind: one.size for kind, one in parameters.items.items()}), dict[str, Content]()
    table.grow(items)
    for kind, one in parameters.items.items():
        if one.features:
            rows, whose = features.of_kind(kind)
            contents[kind] = Content.fitted(rows, features.layouts[kind], one.size)
            table.put(kind, whose, contents[kind].vectors(rows))
        else:
            bit = None if one.behaviour is None else list(behaviours).index(one.behaviour)
            touched = log if bit is None else log.only((log.flags >> bit & 1).astype(np.bool_))
            table.put(kind, np.arange(items), together(touched, items, one.size, one.shift))
    return table, contents


class _Snapshots:
    """Entities at moments of their past, oldest first: each as it is now, and as it was after fewer events.

    How many an earlier moment has seen is drawn so that its logarithm is uniform: newcomers count as much as those
    who have been there for long.
    """

    def __init__(
        self, parameters: UserEncoderParameters, plan: Plan, table: ItemTable, log: Log, last_seen: LastSeen
    ) -> None:
        self.plan, self.table, self.log, self.last_seen = plan, table, log, last_seen
        self.blank = np.zeros(plan.width, np.float32)
        self._chance = np.random.default_rng([parameters.training.seed, 1])
        lengths = np.diff(log.starts)
        before = self._chance.random((len(lengths), parameters.snapshots - 1))
        before = np.floor((lengths[:, None] + 1.0) ** before - 1.0).astype(np.int64)
        earlier = log.time[(log.starts[:-1, None] + before)]
        at = np.concatenate([log.time[log.starts[1:] - 1, None] + 1, earlier], axis=1).ravel()
        order = np.argsort(at, kind="stable")
        self.at = at[order]
        self.entity = np.repeat(np.arange(len(lengths)), parameters.snapshots)[order]

    def __len__(self) -> int:
        return len(self.at)

    def sample(self) -> IntArray:
        """The numbers of some of them, or of all."""
        return self._chance.choice(len(self), min(len(self), _SCALED_BY), replace=False)

    def inputs(self, numbers: IntArray) -> NDArray[np.float32]:
        """Raw inputs ``(n, D)``; the columns of an entity are the last ones that it had."""
        entity = self.entity[numbers]
        x = np.tile(self.blank, (len(numbers), 1))
        x[:, self.plan.from_rows :] = self.last_seen.values[entity]
        fill(self.plan, self.table, in_log(self.log, entity, self.at[numbers]), x)
        return x

    def key(self, parameters: UserEncoderParameters) -> str:
        """What a training on them is known by."""
        digest = hashlib.sha256(repr(parameters).encode())
        parts = (self.log.time, self.log.item, self.log.flags, self.at, self.last_seen.values, self.table.table)
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()


def _space(
    parameters: Any, schema: Schema, weights: EncoderWeights, table: ItemTable, standard: Sequence[FloatArray]
) -> str:
    """The identity of a shared model: of its weights, of the vectors of items, of what it is made of."""
    digest = hashlib.sha256(repr((parameters, schema.fingerprint())).encode())
    for array in (*weights.arrays().values(), *(table.vectors(kind) for kind in table.kinds), *standard):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
