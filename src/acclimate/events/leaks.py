"""Columns of entity tables that know the labels of the log, as no column that was known before them can.

An entity's rate of a label is its truth ``q`` plus the noise of its few events. A column that was known before
them is independent of that noise, so it explains no more of the rates than the truth does (Cauchy and Schwarz)::

    cov(x, rate)² / var(x)  ≤  var(q)  =  cov of two different events of one entity

A column that exceeds it, by more than chance allows, was made of the labels themselves, as is a table of rates
over the whole log. The right side is a mean over pairs of events, for which an entity's count of events and of
ones is all that is needed. What makes an entity's events alike raises it: leaks are hidden rather than invented.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtri

from acclimate.arrays import FloatArray
from acclimate.artifacts import Events

_FEWEST = 50  # entities with two events or more
_HEAVIEST = 10.0  # how many times the weight of an entity of two events is the most
_ALARM = 0.001  # the chance of a false one, in all tests together
_PIECE = 1 << 20  # rows of partial counts that wait to be added up


@dataclass(frozen=True)
class Leak:
    """A column that seems to know the labels: it explains ``explained`` of their rates, the truth ``explainable``.

    Both are shares of the variance over ``entities``; ``deviations`` says how sure it is.
    """

    column: str
    label: str
    entities: int
    explained: float
    explainable: float
    deviations: float

    def __str__(self) -> str:
        return (
            f"column '{self.column}' may know the future: over {self.entities:,} entities it explains "
            f"{self.explained:.0%} of the variance of their rates of '{self.label}', and what was known before "
            f"the events explains {self.explainable:.0%} at most; leave it out, or give its table a time"
        )


def find_leaks(events: Events) -> list[Leak]:
    """The numeric columns of entity tables without a time that know more of the labels than they could.

    The surest first. Each column is tested by its ranks, for each label of 0 and 1, over the entities of two known
    labels or more. Events are read once per table, a piece at a time; what is kept is of the size of the table.

    Raises:
        DataError: the events cannot be read.
    """
    schema = events.schema
    types = events.source.columns()
    numeric = {
        name: [c for c in types.names if c.startswith(f"{name}.") and _is_numeric(types.field(c).type)]
        for name, table in schema.tables.items()
        if table.time is None
    }
    tests = len(schema.binary_labels) * sum(map(len, numeric.values()))
    leaks = [
        leak
        for name, columns in numeric.items()
        if columns and tests
        for leak in _leaks(events, name, columns, tests)
    ]
    return sorted(leaks, key=lambda leak: -leak.deviations)


def _is_numeric(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return is_number or pa.types.is_boolean(kind)


def _leaks(events: Events, table: str, columns: Sequence[str], tests: int) -> Iterator[Leak]:
    labels = events.schema.binary_labels
    counts = _counts(events, events.schema.entity_column(table), columns)
    bound = -float(ndtri(_ALARM / tests))
    for i, label in enumerate(labels):
        rows, ones = (counts[f"{part}{i}"].to_numpy().astype(float) for part in ("rows", "ones"))
        for j, column in enumerate(columns):
            values = counts[f"value{j}"].to_numpy()
            usable = (rows >= 2) & np.isfinite(values)
            leak = _tested(values[usable], rows[usable], ones[usable], (column, label))
            if leak and leak.deviations > bound:
                yield leak


def _counts(events: Events, key: str, columns: Sequence[str]) -> pa.Table:
    """Of each entity: its known labels ``rows<i>``, those that are 1 ``ones<i>``, and its ``value<j>``."""
    labels = events.schema.binary_labels
    sums = [f"{part}{i}" for i in range(len(labels)) for part in ("rows", "ones")]
    values = [f"value{j}" for j in range(len(columns))]
    pieces: list[pa.Table] = []
    with events.reader([key, *labels, *columns]) as reader:
        for batch in reader:
            known = [batch[label] for label in labels]
            counts = [a for y in known for a in (pc.cast(pc.is_valid(y), pa.int64()), pc.cast(y, pa.int64()))]
            numbers = [pc.cast(batch[column], pa.float64()) for column in columns]
            ids: Any = batch[key]
            ids = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
            piece = pa.table([ids, *counts, *numbers], names=["key", *sums, *values])
            pieces.append(_added(piece, sums, values))
            if sum(piece.num_rows for piece in pieces[1:]) > _PIECE:
                pieces = [_added(pa.concat_tables(pieces), sums, values)]
    if not pieces:
        return pa.table({name: pa.array([], pa.float64()) for name in (*sums, *values)})
    return _added(pa.concat_tables(pieces), sums, values)


def _added(counts: pa.Table, sums: Sequence[str], values: Sequence[str]) -> pa.Table:
    """One row per entity; its values are the same in each of its rows."""
    wanted: list[Any] = [*((name, "sum") for name in sums), *((name, "max") for name in values)]
    grouped = counts.group_by("key").aggregate(wanted)
    return grouped.select(["key", *("_".join(pair) for pair in wanted)]).rename_columns(["key", *sums, *values])


def _tested(values: FloatArray, rows: FloatArray, ones: FloatArray, names: tuple[str, str]) -> Leak | None:
    """How much more of the rates is explained than can be; deviations by the infinitesimal jackknife."""
    rates = ones / np.maximum(rows, 1)
    if len(values) < _FEWEST or np.ptp(values) == 0 or np.ptp(rates) == 0:
        return None
    weights = np.minimum(rows - 1, _HEAVIEST)  # what is known of a pair's likeness grows so, if there is none
    weights = weights / weights.mean()
    x, y = _centred(_ranks(values), weights), _centred(rates, weights)
    x = x / np.sqrt((weights * x**2).mean())
    mean = float((weights * rates).mean())
    # Over all pairs of an entity's events, with z = label - mean: the sum of z z' is (Σz)² - Σz².
    squares = ones * (1 - mean) ** 2 + (rows - ones) * mean**2
    alike = ((rows * y) ** 2 - squares) / (rows * (rows - 1))
    covariance, likeness = float((weights * x * y).mean()), float((weights * alike).mean())
    truth = max(likeness, 0.0)
    influence = 2 * covariance * (x * y - covariance) - covariance**2 * (x**2 - 1) - (alike - likeness)
    deviation = float(np.sqrt(((weights * influence) ** 2).mean() / len(x)))
    if deviation == 0:
        return None
    variance = float((weights * y**2).mean())
    return Leak(*names, len(x), covariance**2 / variance, truth / variance, (covariance**2 - truth) / deviation)


def _ranks(values: FloatArray) -> FloatArray:
    """From 1 on; of values that are equal the mean. ``scipy.stats`` has it too, and takes a second to import."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _centred(values: FloatArray, weights: FloatArray) -> FloatArray:
    return values - (weights * values).mean()
