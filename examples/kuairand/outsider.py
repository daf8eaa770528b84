"""The strong outsider: gradient-boosted trees on strictly-past statistics, trained anew every day.

What many teams run: smoothed rates and counts of the user, the video, its author, its tags and the user's with
these tags, as they were before each row, beside the context of the row. It needs ``lightgbm``, of the extra
``bench``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import acclimate as ac

LABEL = "long_view"
COLUMNS = ["user_id", "video_id", "tab", "time_ms", "video.author_id", "video.video_duration", "video.tag"]
PRIOR_ROWS = 20.0
"""A rate is that of this many rows more, at the global rate so far."""

TRAIN_ROWS = 300_000
"""The trees see the latest rows; the statistics see all."""

PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 2,
    "seed": 0,
    "deterministic": True,
    "verbosity": -1,
}
TREES = 200


@dataclass(frozen=True)
class Totals:
    """Rows and positives by key, ``keys`` sorted."""

    keys: NDArray[np.int64]
    rows: NDArray[np.float64]
    positives: NDArray[np.float64]

    @staticmethod
    def of(keys: NDArray[np.int64], label: NDArray[np.float64]) -> "Totals":
        """Count ``label`` by key; both ``(n,)``."""
        distinct, code = np.unique(keys, return_inverse=True)
        return Totals(distinct, np.bincount(code).astype(float), np.bincount(code, label))

    def at(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and positives of each key, 0 for unknown ones."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[place] == keys
        return np.where(known, self.rows[place], 0.0), np.where(known, self.positives[place], 0.0)


def before(
    keys: NDArray[np.int64], label: NDArray[np.float64], time: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and positives of the same key at an earlier time than each row's; rows are in the order of time.

    Earlier, not above: of rows logged twice neither may know the label of the other.
    """
    order = np.argsort(keys, kind="stable")
    place = np.arange(len(keys))
    new_key = np.diff(keys[order], prepend=0) != 0
    new_time = new_key | (np.diff(time[order], prepend=0) != 0)
    start = np.maximum.accumulate(np.where(new_key, place, 0))
    now = np.maximum.accumulate(np.where(new_time, place, 0))
    running = np.cumsum(label[order]) - label[order]
    rows, positives = np.empty(len(keys)), np.empty(len(keys))
    rows[order] = now - start
    positives[order] = running[now] - running[start]
    return rows, positives


@dataclass(frozen=True)
class Frame:
    """The columns of a batch as numbers; ``tagged`` and ``tag`` are the rows and tags of all (row, tag) pairs."""

    context: NDArray[np.float64]
    keys: dict[str, NDArray[np.int64]]
    tagged: NDArray[np.int64]
    tag: NDArray[np.int64]

    @staticmethod
    def of(table: pa.Table) -> "Frame":
        """The numbers of a table with :data:`COLUMNS`."""
        hour = pc.hour(table["time_ms"].cast(pa.timestamp("us", "Asia/Shanghai")))
        numbers = [table["tab"], table["video.video_duration"], hour]
        tags = pc.split_pattern(pc.fill_null(table["video.tag"], "-1"), ",").combine_chunks()
        return Frame(
            np.column_stack([n.cast(pa.float64()).to_numpy() for n in numbers]),
            {name: _keys(table[name]) for name in ("user_id", "video_id", "video.author_id")},
            pc.list_parent_indices(tags).to_numpy().astype(np.int64),
            _keys(tags.flatten()),
        )

    def statistics(self) -> Iterator[tuple[str, NDArray[np.int64] | None, NDArray[np.int64]]]:
        """Name, the row of each key (None: one key a row), and the keys, of every statistic."""
        for name, keys in self.keys.items():
            yield name, None, keys
        yield "tag", self.tagged, self.tag
        yield "user x tag", self.tagged, self.keys["user_id"][self.tagged] * 100_003 + self.tag


def smoothed(
    row: NDArray[np.int64] | None,
    rows: NDArray[np.float64],
    positives: NDArray[np.float64],
    rate: NDArray[np.float64],
) -> list[NDArray[np.float64]]:
    """Smoothed rate and logarithm of the count, averaged over a row's keys where it has several.

    ``rate`` is the global one, of each row of the batch.
    """
    prior = rate if row is None else rate[row]
    columns = [(positives + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS), np.log1p(rows)]
    if row is None:
        return columns
    keys = np.maximum(np.bincount(row, minlength=len(rate)), 1)
    return [np.bincount(row, column, len(rate)) / keys for column in columns]


def training_design(frame: Frame, label: NDArray[np.float64], time: NDArray[np.int64]) -> NDArray[np.float64]:
    """What was known before each row, ``(n, features)``; rows are in the order of time."""
    rows, positives = before(np.zeros(len(label), np.int64), label, time)
    rate = (positives + 0.5) / (rows + 1)
    past: list[NDArray[np.float64]] = []
    for _, row, keys in frame.statistics():
        of_keys = before(keys, label, time) if row is None else before(keys, label[row], time[row])
        past += smoothed(row, *of_keys, rate)
    return np.column_stack([frame.context, *past])


class LightGBMOnRates:
    """Trees on what was known before each row; ``fit`` on everything so far is its only way to learn.

    ``vectors`` names a column of vectors that the trees read as well.
    """

    def __init__(self, vectors: str | None = None) -> None:
        self.vectors = vectors
        self.totals: dict[str, Totals] = {}
        self.rate = 0.5
        self.trees: Any = None

    def fit(self, events: ac.Events) -> "LightGBMOnRates":
        """Statistics of all rows, trees on the latest."""
        table = events.table([*self.columns, LABEL])
        table = table.filter(pc.is_valid(table[LABEL]))
        label = table[LABEL].cast(pa.float64()).to_numpy()
        frame = Frame.of(table)
        self.rate = float(label.mean())
        self.totals = {
            name: Totals.of(keys, label if row is None else label[row]) for name, row, keys in frame.statistics()
        }
        past = training_design(frame, label, _keys(table["time_ms"]))[-TRAIN_ROWS:]
        design = np.column_stack([past, self.beside(table.slice(max(0, len(label) - TRAIN_ROWS)))])
        self.trees = lgb.train(
            PARAMETERS, lgb.Dataset(design, label[-TRAIN_ROWS:], categorical_feature=[0]), TREES
        )
        return self

    def update(self, events: ac.Events) -> "LightGBMOnRates":
        """Not a thing that these trees can do."""
        raise NotImplementedError("trees are trained anew: use the regime 'retrain'")

    def predict(self, events: ac.Events) -> NDArray[np.float64]:
        """Probabilities ``(n,)``, from the statistics of the last fit."""
        table = events.table(self.columns)
        frame = Frame.of(table)
        rate = np.full(table.num_rows, self.rate)
        past = [
            column
            for name, row, keys in frame.statistics()
            for column in smoothed(row, *self.totals[name].at(keys), rate)
        ]
        return self.trees.predict(np.column_stack([frame.context, *past, self.beside(table)]))

    @property
    def columns(self) -> list[str]:
        """What is read of a row."""
        return COLUMNS if self.vectors is None else [*COLUMNS, self.vectors]

    def beside(self, table: pa.Table) -> NDArray[np.float64]:
        """The vectors of the rows ``(n, s)``; without any, ``(n, 0)``."""
        if self.vectors is None:
            return np.zeros((table.num_rows, 0))
        flat: Any = table[self.vectors].combine_chunks()
        return flat.flatten().to_numpy().reshape(table.num_rows, -1).astype(float)


def _keys(column: Any) -> NDArray[np.int64]:
    """Integers of an id column; missing ones are -1."""
    return pc.fill_null(column.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
