"""What the arms of a replay said, beside what came true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import CalibrationBin, CohortResult, Comparison, Events, Quality
from acclimate.config import LabelKind, Schema
from acclimate.evaluate import metrics, regression
from acclimate.evaluate.comparisons import compare
from acclimate.features import codes_of, positions

COHORTS = ("0", "1-4", "5-19", "20+")
_COHORT_STARTS = (1, 5, 20)


@dataclass(frozen=True)
class Outcome:
    """The ``n`` labelled rows of all windows, in order, and what ``a`` arms predicted.

    ``y (n,)``; ``p (n, a)``; ``entity (n,)``, ``crossed (n,)`` (the schema's second entity, if it has one),
    ``window (n,)`` and each of ``within`` ``(n,)`` are numbered from 0; ``past (n,)`` counts the entity's events
    before the window; ``weight`` and ``truth`` ``(n,)`` if there are any; ``kind`` is that of the label.
    """

    arms: tuple[str, ...]
    y: FloatArray
    p: FloatArray
    entity: IntArray
    crossed: IntArray | None
    window: IntArray
    past: IntArray
    within: dict[str, IntArray]
    weight: FloatArray | None
    truth: FloatArray | None
    ndcg_at: int
    kind: LabelKind = "binary"

    def quality(self, arm: int, chosen: IntArray | slice = slice(None)) -> Quality:
        """One arm on the chosen rows."""
        if self.kind != "binary":
            weight, truth = (None if one is None else one[chosen] for one in (self.weight, self.truth))
            return regression.quality(self.y[chosen], self.p[chosen, arm], self.kind, weight=weight, truth=truth)
        return metrics.quality(
            self.y[chosen],
            self.p[chosen, arm],
            # One number for each entity and window.
            (self.entity * (self.window.max(initial=0) + 1) + self.window)[chosen],
            weight=None if self.weight is None else self.weight[chosen],
            truth=None if self.truth is None else self.truth[chosen],
            k=self.ndcg_at,
        )

    def base_rate(self) -> float | None:
        """The share of positive rows, or the mean label."""
        return metrics.mean(self.y, self.weight)

    def auc_within(self, arm: int) -> dict[str, float | None]:
        """AUC within each value of each column asked for, weighted by rows."""
        return {
            name: metrics.gauc(self.y, self.p[:, arm], codes, self.weight) for name, codes in self.within.items()
        }

    def windows(self, number: int) -> list[list[Quality]]:
        """Of each window, the quality of each arm."""
        rows = [np.flatnonzero(self.window == w) for w in range(number)]
        return [[self.quality(a, chosen) for a in range(len(self.arms))] for chosen in rows]

    def cohorts(self) -> list[CohortResult]:
        """Each arm by how many events the row's entity had before."""
        cohort = np.searchsorted(_COHORT_STARTS, self.past, side="right")
        rows = [np.flatnonzero(cohort == c) for c in range(len(COHORTS))]
        return [
            CohortResult(**vars(self.quality(a, chosen)), arm=arm, cohort=name)
            for a, arm in enumerate(self.arms)
            for name, chosen in zip(COHORTS, rows, strict=True)
        ]

    def calibration(self) -> list[CalibrationBin]:
        """The calibration bins of each arm, ascending."""
        bins = [metrics.calibration_bins(self.y, p, self.weight) for p in self.p.T]
        return [
            CalibrationBin(arm, int(rows), float(predicted), float(observed))
            for arm, binned in zip(self.arms, bins, strict=True)
            for rows, predicted, observed in zip(binned.rows, binned.predicted, binned.observed, strict=True)
        ]

    def comparisons(self) -> list[Comparison]:
        """Every two arms, with intervals over the schema's first two entities."""
        return compare(
            self.arms,
            self.y,
            self.p,
            self.entity,
            window=self.window,
            crossed=self.crossed,
            weight=self.weight,
            truth=self.truth,
            kind=self.kind,
        )


def outcome(
    events: Events,
    windows: Sequence[pa.Table],
    predictions: Mapping[str, Sequence[FloatArray]],
    *,
    label: str,
    within: Sequence[str],
    ndcg_at: int,
) -> Outcome:
    """Put the windows together.

    Args:
        events: those before the first window; entities' past events are counted in them.
        windows: the rows of each window, with the columns of :func:`columns_kept`.
        predictions: of each arm, one array per window.
        label: what was predicted; rows where it is null count as past events, and for nothing else.
        within: columns to report AUC within.
        ndcg_at: where nDCG is cut.
    """
    schema, rows = events.schema, pa.concat_tables(windows)
    column, *crossed = list(schema.entities.values())[:2]
    window = np.repeat(np.arange(len(windows)), [w.num_rows for w in windows])
    entity, ids = codes_of(rows[column])
    past = _past_rows(entity, window, _rows_of(ids, events.reader([column])))
    y = rows[label].cast(pa.float64()).to_numpy()
    known = np.isfinite(y)
    return Outcome(
        arms=tuple(predictions),
        y=y[known],
        p=np.column_stack([np.concatenate(p)[known] for p in predictions.values()]),
        entity=entity[known],
        crossed=codes_of(rows[crossed[0]])[0][known] if crossed else None,
        window=window[known],
        past=past[known],
        within={name: codes_of(rows[name])[0][known] for name in within},
        weight=rows[schema.weight].to_numpy()[known] if schema.weight else None,
        truth=rows[schema.truth].to_numpy()[known] if schema.truth else None,
        ndcg_at=ndcg_at,
        kind=schema.label_kind(label),
    )


def columns_kept(schema: Schema, label: str, within: Sequence[str]) -> list[str]:
    """The columns of a window that :func:`outcome` needs."""
    optional = [c for c in (schema.weight, schema.truth) if c]
    return list(dict.fromkeys([*list(schema.entities.values())[:2], label, *optional, *within]))


def _rows_of(ids: "pa.Array[Any]", batches: pa.RecordBatchReader) -> IntArray:
    """How many rows each of the ids has in the one column that is read, ``(len(ids),)``."""
    rows = np.zeros(len(ids), np.int64)
    for batch in batches:
        place = positions(batch.column(0), ids)
        rows += np.bincount(place[place >= 0], minlength=len(ids))
    return rows


def _past_rows(entity: IntArray, window: IntArray, before: IntArray) -> IntArray:
    """Of each row, its entity's rows ``before`` all windows ``(entities,)`` and in the earlier ones."""
    windows = int(window.max(initial=0)) + 1
    pairs, row, rows = np.unique(entity * windows + window, return_inverse=True, return_counts=True)
    owner = pairs // windows
    upto = np.cumsum(rows) - rows
    return (before[owner] + upto - upto[np.searchsorted(owner, owner)])[row]
