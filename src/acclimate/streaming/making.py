"""A worker of what a project says: its stream, its spaces, its store."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate import learners
from acclimate.arrays import BoolArray, IdArray
from acclimate.artifacts import Records, Space, Store, Stream, update_options
from acclimate.config import Schema
from acclimate.errors import ConfigError, OutputError, SpaceError, nearest
from acclimate.events.streams import DeadLetter, DeadLetters, Validator, partition_of, without_password
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
    lease = duration_us(section.lease) / 1e6
    names = _named(project, section)
    refreshed = [space for one in names for space in spaces.refreshed(one)]
    if not refreshed:
        raise SpaceError(
            f"no space of {', '.join(names)} is live or pinned",
            hint="publish a fitted model and promote it: acclimate publish, acclimate spaces promote",
        )
    by = None if section.by is None else _entity(schema, section.by)

    def opened(space: Space, partition: int) -> Refreshed:
        unit = Unit(store, space, partition)
        held = store.acquire(unit.name, name, lease, take_over=True)
        if held is None:
            raise OutputError(f"the right to write '{unit.name}' was not given", hint="it is asked for again")
        carried = unit.resumed(Carried.made)
        if carried is None:
            carried = Carried(learners.load(spaces.open(space)))
            unit.fill(held, carried, keep=None if by is None else _keep(by, partition, stream.partitions))
        return Refreshed(
            unit,
            held,
            carried,
            start=stream.seek(partition, space.cut + 1),
            window=duration_us(section.duplicates),
            options=_options(carried, section, by),
        )

    return Worker(
        stream,
        Ownership(store, name, stream.partitions, lease),
        schema=schema,
        decode=_decoder(project, section),
        spaces=lambda: [space for one in names for space in spaces.refreshed(one)],
        opened=opened,
        refuses=_Refused(DeadLetters(section.refused), source),
        rules=Rules(section.batch, duration_us(section.wait) / 1e6, duration_us(section.lateness), lease / 3),
        metrics=metrics,
        log=logger(worker=name, stream=source),
    )


class _Refused:
    """The seam :class:`acclimate.streaming.worker.Refuses` in a log of dead letters."""

    def __init__(self, letters: DeadLetters, stream: str) -> None:
        self.letters, self.stream = letters, stream

    def put(self, partition: int, decoded: Decoded, refused: Sequence[tuple[int, str]]) -> None:
        """See :meth:`acclimate.streaming.worker.Refuses.put`."""
        records = decoded.records
        self.letters.add(
            DeadLetter(self.stream, partition, records.positions[number], why, records.values[number])
            for number, why in refused
        )


def _named(project: Project, section: StreamSection) -> list[str]:
    names = list(project.learners if section.learners is None else section.learners)
    if unknown := [name for name in names if name not in project.learners]:
        raise ConfigError(f"no learner '{unknown[0]}' in the project", hint=nearest(unknown[0], project.learners))
    return names


def _entity(schema: Schema, by: str) -> str:
    """The column of an entity that is named by role or column."""
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


def _decoder(project: Project, section: StreamSection) -> Callable[[Records, str | None], Decoded]:
    """Reads records as events of the project."""
    schema = project.events.schema
    columns = open_events(project).source.columns()
    of_tables = {name for name in columns.names if name.partition(".")[0] in schema.tables}
    parts = {schema.time.column, *schema.entities.values(), *schema.labels}
    parts |= {column for column in (schema.weight, schema.offset, schema.truth) if column}
    # What learners use beyond the features that are declared: any column of the log.
    features = [name for name in columns.names if name not in parts | of_tables]
    validate = Validator(schema, features=features, types=columns, event_id=section.event_id)

    def decode(records: Records, after: str | None) -> Decoded:
        good = validate(records.values)
        time = good.rows[schema.time.column].cast(pa.int64()).to_numpy()
        refused = [(one.index, one.reason) for one in good.refused]
        ids = None if good.event_ids is None else ids_as(good.event_ids, id_type(good.event_ids.type), "events")
        return Decoded(records, after, good.rows, good.index, time, ids, refused)

    return decode
