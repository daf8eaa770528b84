"""What the network reads of an entity at a time: groups of columns, the same in training, in bulk and by event."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.config import UserEncoderParameters
from acclimate.errors import ConfigError
from acclimate.features import Layout
from acclimate.kernels.windows import window_inputs
from acclimate.learners.encoder.histories import Flat, Histories, Log
from acclimate.learners.encoder.items import ItemTable
from acclimate.times import duration_us

ACTIVITY = "activity"
_PRIOR_EVENTS = 5.0
"""How many events at no rate at all a rate starts with."""

_MOST_NAMES = 4096
_EARLIEST = np.iinfo(np.int64).min
_HOUR = 3.6e9


@dataclass(frozen=True)
class Block:
    """Columns ``begin:end`` that are there or not together: where column ``presence`` is 1.

    Numbers have a squared loss; ``names``, the shares of the names of one feature, a cross-entropy.
    """

    begin: int
    end: int
    presence: int
    names: bool = False


@dataclass(frozen=True)
class Group:
    """Columns ``begin:end`` with an encoder of their own, and the blocks in it; flags of presence come last."""

    name: str
    begin: int
    end: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Plan:
    """Where everything lies among the ``width`` columns ``D``.

    ``places`` ``(K, B)``: where the averages of a kind of items and a behaviour begin. ``activity``: where the
    counts do. ``columns``: where each group of columns of rows begins, and the order of its names.
    """

    groups: tuple[Group, ...]
    spans: IntArray
    decays: bool
    most: int
    places: IntArray
    behaviours: int
    base: int | None
    activity: int
    columns: dict[str, int]
    orders: dict[str, IntArray]

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.groups[-1].end

    @property
    def from_rows(self) -> int:
        """Where the columns that come from rows begin: they are the last."""
        return min(self.columns.values(), default=self.width)

    @staticmethod
    def of_parameters(
        parameters: UserEncoderParameters,
        behaviours: Mapping[str, str | None],
        sizes: Mapping[str, int],
        layouts: Mapping[str, Layout],
    ) -> "Plan":
        """The groups that are declared, one after another.

        Raises:
            ConfigError: a group of columns has too many names, or two groups have the same.
        """
        windows, groups, places = len(parameters.windows), list[Group](), list[list[int]]()
        end = 0
        for kind, size in sizes.items():
            places.append([])
            for behaviour in behaviours:
                begin, flags = end, end + windows * size
                end = flags + windows
                places[-1].append(begin)
                blocks = tuple(Block(begin + w * size, begin + (w + 1) * size, flags + w) for w in range(windows))
                groups.append(Group(f"{kind} {behaviour}", begin, end, blocks))
        labels = list(behaviours.values())
        base = labels.index(None) if None in labels else None
        rates = 0 if base is None else len(labels) - 1
        activity, end = end, end + windows * (len(labels) + rates) + 2
        groups.append(Group(ACTIVITY, activity, end, (Block(activity, end - 1, end - 1),)))
        columns, orders = dict[str, int](), dict[str, IntArray]()
        for name, layout in layouts.items():
            columns[name], orders[name] = end, np.argsort(layout.home, kind="stable")
            group = _columns_group(name, layout, end)
            groups.append(group)
            end = group.end
        if twice := [name for name, count in Counter(group.name for group in groups).items() if count > 1]:
            raise ConfigError(f"two groups of inputs are called '{twice[0]}'", hint="give one another name")
        return Plan(
            tuple(groups),
            np.array([duration_us(window) for window in parameters.windows]),
            parameters.decay == "exponential",
            parameters.most_events,
            np.array(places),
            len(labels),
            base,
            activity,
            columns,
            orders,
        )

    def names(self) -> list[str]:
        """What each column is, ``D`` of them."""
        return [
            f"{group.name} {column - group.begin}"
            for group in self.groups
            for column in range(group.begin, group.end)
        ]


def _columns_group(name: str, layout: Layout, begin: int) -> Group:
    if len(layout.index) > _MOST_NAMES:
        raise ConfigError(
            f"the columns '{name}' have {len(layout.index):,} names, more than {_MOST_NAMES:,}",
            hint="give the features of many names 'buckets', or take them out",
        )
    numbers = begin + len(layout.dense)
    presence = numbers + len(layout.index)
    sizes = np.bincount(layout.home, minlength=len(layout.fields))
    ends = numbers + np.cumsum(sizes)
    blocks = [Block(begin, numbers, presence)] if layout.dense else []
    blocks += [
        Block(int(end - size), int(end), presence, names=True) for size, end in zip(sizes, ends, strict=True)
    ]
    return Group(name, begin, presence + 1, tuple(blocks))


@dataclass(frozen=True)
class Queries:
    """Who is asked about, and when: ``q`` entities, each at a time in microseconds.

    ``first:last`` are the events of a query's entity in the ``flat`` times, items and flags.
    """

    flat: Flat
    first: IntArray
    last: IntArray
    at: IntArray


def in_log(log: Log, entity: IntArray, at: IntArray) -> Queries:
    """Queries ``(q,)`` about entities of a log."""
    return Queries((log.time, log.item, log.flags), log.starts[entity], log.starts[entity + 1], at)


def in_log_after(before: Log, log: Log, entity: IntArray, at: IntArray, most: int) -> Queries:
    """The same of a log that goes on from what was kept ``before``, at most ``most`` events of an entity.

    A query that comes late finds less room: what is kept already, and later than it, counts too.
    """
    queries = in_log(log, entity, at)
    for q in np.flatnonzero(at <= before.time.max(initial=_EARLIEST)):
        kept = before.time[before.starts[entity[q]] : before.starts[entity[q] + 1]]
        room = most - (len(kept) - np.searchsorted(kept, at[q]))
        earlier = np.searchsorted(log.time[queries.first[q] : queries.last[q]], at[q])
        queries.first[q] += max(0, earlier - room)
    return queries


def in_histories(histories: Histories, entities: IntArray, at: IntArray) -> Iterator[tuple[IntArray, Queries]]:
    """Queries ``(q,)`` about entities as they are kept, and which of them; those without events are left out."""
    known = np.flatnonzero(entities >= 0)
    for part in histories.stretches(entities[known]):
        which = known[part.which]
        yield which, Queries(part.flat, part.first, part.last, at[which])


def fill(plan: Plan, items: ItemTable, queries: Queries, x: NDArray[np.float32]) -> None:
    """What the queries ``(q,)`` see of their entities' histories, into ``x`` ``(q, D)``.

    ``x`` holds what stands for the absent; only what is there is written.
    """
    counts = np.empty((len(x), plan.behaviours, len(plan.spans)))
    age = np.empty(len(x), np.int64)
    window_inputs(
        *queries.flat,
        queries.first,
        queries.last,
        queries.at,
        plan.most,
        plan.spans,
        plan.decays,
        items.table,
        items.known,
        items.edges,
        plan.places,
        x,
        counts,
        age,
    )
    seen = age >= 0
    if seen.all():
        x[:, plan.activity : plan.activity + _activity_width(plan)] = _activity(plan, counts, age)
    elif seen.any():
        x[seen, plan.activity : plan.activity + _activity_width(plan)] = _activity(plan, counts[seen], age[seen])


def _activity_width(plan: Plan) -> int:
    rates = 0 if plan.base is None else plan.behaviours - 1
    return len(plan.spans) * (plan.behaviours + rates) + 2


def _activity(plan: Plan, counts: FloatArray, age: IntArray) -> FloatArray:
    """Logarithms of counts, rates of the behaviours with a label, of the hours since the last event; presence."""
    q = len(counts)
    parts = [np.log1p(counts).reshape(q, -1)]
    if plan.base is not None:
        others = [b for b in range(plan.behaviours) if b != plan.base]
        parts.append((counts[:, others] / (counts[:, [plan.base]] + _PRIOR_EVENTS)).reshape(q, -1))
    return np.concatenate([*parts, np.log1p(age / _HOUR)[:, None], np.ones((q, 1))], axis=1)


def flags_of(labels: Sequence[FloatArray | None], rows: int) -> NDArray[np.uint8]:
    """The behaviours that events ``(n,)`` show as bits; a label that is not known shows none."""
    flags = np.zeros(rows, np.uint8)
    for b, label in enumerate(labels):
        flags |= (np.ones(rows, np.bool_) if label is None else label == 1).astype(np.uint8) << np.uint8(b)
    return flags
