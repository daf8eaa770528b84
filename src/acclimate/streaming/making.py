"""A worker of what a project says: its stream, its spaces, its store."""

import hashlib
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate import learners
from acclimate.arrays import BoolArray, IdArray
from acclimate.artifacts import Records, Space, Store, Stream, update_options
from acclimate.config import Schema
from acclimate.errors import ConfigError, FencedError, OutputError, SpaceError, nearest
from acclimate.events.streams import (
    DeadLetter,
    DeadLetters,
    Validator,
    partition_of,
    restored,
    without_password,
)
from acclimate.features import id_type, ids_as
from acclimate.learners.carried import Carried
from acclimate.pipeline import open_events
from acclimate.project import Project, StreamSection
from acclimate.publish.spaces import Spaces
from acclimate.publish.stores.units import Keep, Unit
from acclimate.streaming.intake import Decoded
from acclimate.streaming.logs import logger
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.ownership import Ownership
from acclimate.streaming.refreshed import Refreshed
from acclimate.streaming.worker import Rules, Worker
from acclimate.times import duration_us


def make_worker(
    name: str,
    project: Project,
    section: StreamSection,
    *,
    stream: Stream,
    store: Store,
    spaces: Spaces,
    metrics: Metrics,
) -> Worker:
    """The worker of that name of a project.

    Raises:
        ConfigError: a learner that is named is not there, or ``by`` is no entity.
        SpaceError: no space is live or pinned.
    """
    schema, source = project.events.schema, without_password(section.source)
    place = f"{source} of {stream.partitions}"
    lease = duration_us(section.lease) / 1e6
    life = None if section.forget_after is None else duration_us(section.forget_after) / 1e6
    names = _named(project, section)

    def wanted() -> list[Space]:
        return [space for one in names for space in spaces.refreshed(one)]

    if not wanted():
        raise SpaceError(
            f"no space of {', '.join(names)} is live or pinned",
            hint="publish a fitted model and promote it: acclimate publish, acclimate spaces promote",
        )
    by = None if section.by is None else entity_column(schema, section.by)
    decoder = _Decoder(project, section, by, stream.partitions)

    def opened(space: Space, partition: int) -> Refreshed:
        unit = Unit(store, space, partition, life=life, by=by if stream.partitions > 1 else None)
        held = store.acquire(unit.name, name, lease, take_over=True)
        if held is None:
            raise OutputError(f"the right to write '{unit.name}' was not given", hint="it is asked for again")
        carried = unit.resumed(Carried.made)
        if carried is None:
            if space not in wanted():
                raise FencedError(f"{space} is refreshed no more", hint="its unit may have been pruned")
            carried = Carried(learners.load(spaces.open(space)))
            keep = None if by is None else _keep(by, partition, stream.partitions)
            unit.fill(held, carried, position=stream.seek(partition, space.cut + 1), keep=keep)
        window, options = duration_us(section.duplicates), _options(carried, section, by)
        refreshed = Refreshed(unit, held, carried, stream=place, window=window, options=options)
        decoder.begin(partition, refreshed.types)
        return refreshed

    told = "\n".join([project.name, source, *names]).encode()
    return Worker(
        stream,
        Ownership(store, name, hashlib.blake2b(told, digest_size=6).hexdigest(), stream.partitions, lease),
        schema=schema,
        decode=decoder,
        spaces=wanted,
        opened=opened,
        refuses=_Refused(DeadLetters(section.refused), source),
        rules=Rules(section.batch, duration_us(section.wait) / 1e6, duration_us(section.lateness), lease / 3),
        metrics=metrics,
        log=logger(worker=name, stream=source),
    )


def section_of(project: Project) -> StreamSection:
    """What a project says of its stream.

    Raises:
        ConfigError: it says nothing.
    """
    if project.stream is None:
        raise ConfigError(
            "the project file has no section 'stream'", hint="say where events come from: stream.source"
        )
    return project.stream


def store_of(project: Project) -> str:
    """The URL of a project's store.

    Raises:
        ConfigError: it names none.
    """
    if project.publish is None or project.publish.store is None:
        raise ConfigError(
            "the project file does not say where states are kept", hint="name publish.spaces and publish.store"
        )
    return project.publish.store


class _Refused:
    """The seam :class:`acclimate.streaming.worker.Refuses` in a log of dead letters."""

    def __init__(self, letters: DeadLetters, stream: str) -> None:
        self.letters, self.stream = letters, stream

    def put(
        self, partition: int, decoded: Decoded, refused: Sequence[tuple[int, str]], space: Space | None = None
    ) -> None:
        """See :meth:`acclimate.streaming.worker.Refuses.put`."""
        records, whose = decoded.records, str(space or "")
        self.letters.add(
            DeadLetter(self.stream, partition, records.positions[number], why, records.values[number], space=whose)
            for number, why in refused
        )


def _named(project: Project, section: StreamSection) -> list[str]:
    names = list(project.learners if section.learners is None else section.learners)
    if unknown := [name for name in names if name not in project.learners]:
        raise ConfigError(f"no learner '{unknown[0]}' in the project", hint=nearest(unknown[0], project.learners))
    return names


def entity_column(schema: Schema, by: str) -> str:
    """The column of an entity that is named by role or column.

    Raises:
        ConfigError: there is no such entity.
    """
    columns = schema.entities
    if by in columns or by in columns.values():
        return columns.get(by, by)
    raise ConfigError(f"'{by}' is no entity of the events", hint=nearest(by, columns))


def _keep(by: str, partition: int, partitions: int) -> Keep:
    """The rows of a partition: those of its entities, and all of others, which it knows and does not learn."""

    def keep(_: str, columns: tuple[str, ...], ids: IdArray) -> BoolArray:
        if columns != (by,):
            return np.ones(len(ids), np.bool_)
        return partition_of(pa.array(ids.tolist()), partitions) == partition

    return keep


def _options(carried: Carried, section: StreamSection, by: str | None) -> dict[str, Any]:
    """What updates are called with.

    Raises:
        ConfigError: the learner cannot learn so.
    """
    learner = carried.learner
    options = update_options(learner, "keep" if section.learns == "entities" else "learn")
    others = sorted({column for columns in carried.learned_columns() if by not in columns for column in columns})
    if section.partitions == 1 or not others:
        return options
    if "locked" not in inspect.signature(learner.update).parameters:
        raise ConfigError(
            f"by '{by}' in several partitions a {type(learner).__name__} learns of {', '.join(others)} in each",
            hint="stream it from one partition, or use a GLMix, which learns of the one entity alone",
        )
    return {**options, "locked": others}


class _Decoder:
    """Reads records as events of the project; see :class:`acclimate.streaming.worker.Decodes`.

    Each partition settles types by its own records, so that they do not depend on how partitions take turns.
    """

    def __init__(self, project: Project, section: StreamSection, by: str | None, partitions: int) -> None:
        self._schema, self._by, self._partitions = project.events.schema, by, partitions
        self._columns, schema = open_events(project).source.columns(), self._schema
        parts = {schema.time.column, *schema.entities.values(), *schema.labels}
        parts |= {column for column in (schema.weight, schema.offset, schema.truth) if column}
        # What learners use beyond the features that are declared: any column of the log that can be one.
        features = [
            field.name
            for field in self._columns
            if field.name not in parts
            and field.name.partition(".")[0] not in schema.tables
            and not pa.types.is_temporal(field.type)
        ]
        self._validator = partial(Validator, schema, features=features, event_id=section.event_id)
        self._validators = dict[int, Validator]()

    def types(self, partition: int) -> bytes:
        """See :meth:`acclimate.streaming.worker.Decodes.types`."""
        return self._validators[partition].types.serialize().to_pybytes()

    def begin(self, partition: int, types: bytes | None) -> None:
        """Go on with the types that a unit has stored, unless records of its partition were read already."""
        if partition not in self._validators:
            self._validators[partition] = self._validator(types=restored(types, self._columns))

    def __call__(self, records: Records, after: str | None, partition: int) -> Decoded:
        """See :class:`acclimate.streaming.worker.Decodes`."""
        good = self._validators[partition](records.values)
        refused = [(one.index, one.reason) for one in good.refused]
        ids = None if good.event_ids is None else ids_as(good.event_ids, id_type(good.event_ids.type), "events")
        rows, index = good.rows, good.index
        if self._by is not None and self._partitions > 1:
            strange = np.flatnonzero(partition_of(rows[self._by], self._partitions) != partition)
            if len(strange):
                refused += [
                    (number, f"is not in the partition of its '{self._by}'") for number in index[strange].tolist()
                ]
                ours = np.setdiff1d(np.arange(len(index)), strange)
                rows, index, ids = rows.take(ours), index[ours], None if ids is None else ids[ours]
        time = rows[self._schema.time.column].cast(pa.int64()).to_numpy()
        return Decoded(records, after, rows, index, time, ids, sorted(refused))
