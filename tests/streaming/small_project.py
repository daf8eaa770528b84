"""A small project whose model is fitted, published and live, and a stream of events that it has not learned."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from acclimate import learners, pipeline, publishing
from acclimate.events.streams import append_events, encode, open_stream
from acclimate.learners.carried import Carried
from acclimate.project import parse_project
from acclimate.publish.spaces import Spaces
from acclimate.publish.stores import open_store
from acclimate.publish.stores.units import Unit
from acclimate.streaming.making import make_worker
from acclimate.streaming.metrics import Metrics
from acclimate.streaming.progress import PROGRESS, Progress

START = 1_700_000_000_000_000
DAY = 86_400_000_000
HISTORY, EVENTS = 400, 600


def rows(first, count, users=30):
    """Events with the numbers ``first`` and on, the same whenever they are asked for; a minute apart."""
    number = np.arange(first, first + count)
    rng = [np.random.default_rng([7, one]) for one in number]
    user = np.array([one.integers(users) for one in rng])
    x = np.array([one.normal() for one in rng])
    z = np.sin(user) + 0.8 * np.cos(3 * user) * x
    click = [int(one.random() < 1 / (1 + np.exp(-value))) for one, value in zip(rng, z, strict=True)]
    return pa.table(
        {
            "time": pa.array(START + number * 60_000_000, pa.timestamp("us", "UTC")),
            "number": number,
            "user": user,
            "x": x,
            "click": pa.array(click, pa.int8()),
        }
    )


def content(name="state", **stream):
    """The project file, for a store of that name."""
    return {
        "name": "small",
        "events": {
            "path": "history.parquet",
            "time": {"column": "time"},
            "entities": {"user": "user"},
            "labels": ["click"],
        },
        "features": {"x": {"kind": "numeric"}},
        "learners": {"ranker": {"kind": "glmix", "fixed": ["x"], "random": {"user": {"features": ["x"]}}}},
        "publish": {"spaces": "spaces", "store": f"lmdb://{name}"},
        "stream": {"source": "log://events", "batch": 50, "learns": "all", **stream},
    }


@dataclass
class Small:
    """The project, its places, and what tests do with them."""

    folder: Path

    def project(self, name="state", **stream):
        return parse_project(content(name, **stream), self.folder)

    def publish(self, until=HISTORY):
        """A new space of a model that has learned so many events; not live yet."""
        project, number = self.project(), len(list(self.folder.glob("model*")))
        end = START + until * 60_000_000
        pipeline.fit(project, self.folder / f"model{number}", until=end, allow_unconverged=True)
        return publishing.publish(project, self.folder / f"model{number}")

    @property
    def spaces(self):
        return Spaces(self.folder / "spaces")

    def append(self, table, partitions=1):
        with contextlib.closing(open_stream(f"log://{self.folder / 'events'}", partitions=partitions)) as source:
            append_events(source, table, self.project().events.schema)

    def append_raw(self, values):
        with contextlib.closing(open_stream(f"log://{self.folder / 'events'}")) as source:
            source.append(0, values)

    def records(self, table):
        return encode(table, self.project().events.schema)

    @contextlib.contextmanager
    def worker(self, name="one", store=None, **options):
        """A worker of the project; ``store`` stands in for the store that it would open."""
        project = self.project(**options)
        with (
            contextlib.closing(open_stream(project.stream.source, partitions=project.stream.partitions)) as source,
            contextlib.closing(open_store(project.publish.store)) as opened,
        ):
            yield make_worker(
                name,
                project,
                project.stream,
                stream=source,
                store=store(opened) if store else opened,
                spaces=self.spaces,
                metrics=Metrics(),
            )

    def drain(self, **options):
        with self.worker(**options) as worker:
            worker.run(until_drained=True)
            return worker

    def unit(self, space, name="state", partition=0):
        """What a store holds of a space: the learner, and how far it is."""
        with contextlib.closing(open_store(f"lmdb://{self.folder / name}")) as store:
            unit = Unit(store, space, partition)
            carried = unit.resumed(Carried.made)
            (told,) = store.read(unit.name, PROGRESS, [PROGRESS.encode()])
            return states(carried.learner), Progress.read_from(told)

    def everything(self, name="state"):
        """All that a store holds."""
        with contextlib.closing(open_store(f"lmdb://{self.folder / name}")) as store:
            return {
                (unit, table, key): value
                for unit in store.units()
                for table in store.size(unit)
                for key, value in store.scan(unit, table)
            } | {unit: store.position(unit) for unit in store.units()}

    def updated(self, space, tables):
        """The same learned as batches, from the snapshot, in memory."""
        model = learners.load(self.spaces.open(space))
        schema = self.project().events.schema
        for table in tables:
            model.update(pipeline.read_events(table, schema))
        return states(model)


def states(model):
    """All that a model knows of entities, and what they share, as arrays."""
    one = model.states("user")
    order = np.argsort(one.ids)
    fixed = model.state.fixed_states.posterior
    return {
        "ids": one.ids[order],
        "mean": one.posterior.mean[order],
        "precision": one.posterior.precision[order],
        "rows": one.rows[order],
        "touched": one.touched[order],
        "fixed": fixed.mean,
        "fixed precision": fixed.precision,
    }
