"""Gates before a promotion: numbers in, a verdict out, with the entities that are to blame and by how much."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import BoolArray, FloatArray, IdArray, IntArray
from acclimate.artifacts import Space
from acclimate.errors import GateError

_SHOWN = 5


@dataclass(frozen=True)
class Verdict:
    """What one gate says: its ``value`` beside the ``bound``, in words, and the ``worst`` entities by how much."""

    gate: str
    passed: bool
    value: float
    bound: float
    said: str
    worst: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        worst = ", ".join(f"{who} ({much:.4g})" for who, much in self.worst)
        return f"{self.gate}: {self.said}" + (f"; worst: {worst}" if worst and not self.passed else "")


def coverage(entity: str, ids: Sequence[str], known: BoolArray, rows: IntArray, least: float) -> Verdict:
    """Whether enough of the entities are known.

    Args:
        entity: what they are called.
        ids: each once, ``t`` of them.
        known: which are, ``(t,)``.
        rows: how many events each has, ``(t,)``.
        least: the share.
    """
    share = float(known.mean()) if len(ids) else 1.0
    unknown = np.flatnonzero(~known)
    order = unknown[np.argsort(-rows[unknown], kind="stable")][:_SHOWN].tolist()
    worst = tuple((str(ids[i]), float(rows[i])) for i in order)
    said = f"{len(ids) - len(unknown):,} of {len(ids):,} '{entity}' are known, {share:.4g} for {least:g} at least"
    return Verdict("coverage", share >= least, share, least, said, worst)


def finite(values: NDArray[Any], ids: Sequence[str]) -> Verdict:
    """Whether all that is said of rows is finite.

    Args:
        values: ``(n,)`` or ``(n, s)``.
        ids: whose row each is, ``n`` of them.
    """
    wrong: BoolArray = np.any(~np.isfinite(_by_row(values)), axis=1)
    count = int(wrong.sum())
    said = (
        f"what is said of {count:,} of {len(wrong):,} rows is not finite" if count else "all that is kept or said"
    )
    return Verdict("finite", not count, float(count), 0.0, said, _worst(ids, wrong.astype(np.float64), np.sum))


def finite_rows(
    kept: Iterable[tuple[str, IdArray, Mapping[str, NDArray[Any]]]], arrays: Mapping[str, NDArray[Any]]
) -> Verdict:
    """Whether all that is stored is finite.

    Args:
        kept: what is kept by id, piece by piece: what the ids are of, ``(t,)`` ids, and columns ``(t, ...)``.
        arrays: by name what is shared.
    """
    wrong = {name: _not_finite(array[None]) for name, array in arrays.items()}
    counts = {name: int(count[0]) for name, count in wrong.items() if count[0]}
    for name, ids, columns in kept:
        by_id = np.sum([np.zeros(len(ids), np.int64), *map(_not_finite, columns.values())], axis=0)
        for place in np.flatnonzero(by_id).tolist():
            whose = f"{name} {ids[place]}"
            counts[whose] = counts.get(whose, 0) + int(by_id[place])
    total, whose = sum(counts.values()), sorted(counts, key=lambda name: -counts[name])
    said = f"{total:,} numbers of {len(counts):,} entities or shared arrays are not finite"
    worst = tuple((name, float(counts[name])) for name in whose[:_SHOWN])
    return Verdict("finite", not total, float(total), 0.0, said if total else "all that is kept", worst)


def drift(ids: Sequence[str], new: FloatArray, live: FloatArray, most: float) -> Verdict:
    """Whether what is said of rows is near enough to what the live space says of them.

    Args:
        ids: whose row each is, ``n`` of them.
        new: predictions ``(n,)`` or vectors ``(n, s)``.
        live: those of the live space.
        most: the root mean square of their distance.
    """
    squared = np.square(_by_row(new - live)).sum(axis=1)
    value = float(np.sqrt(squared.mean())) if len(squared) else 0.0
    said = f"{value:.4g} from the live space as a root mean square over {len(new):,} rows, for {most:g} at most"
    worst = tuple((who, much**0.5) for who, much in _worst(ids, squared, np.mean))
    return Verdict("drift", value <= most, value, most, said, worst)


def quality(
    ids: Sequence[str],
    new: FloatArray,
    live: FloatArray,
    *,
    weight: FloatArray,
    most: float,
    interval: tuple[float, float] | None = None,
) -> Verdict:
    """Whether the loss is not worse than the live space's by more than a bound.

    Args:
        ids: whose row each is, ``n`` of them.
        new: losses of rows, ``(n,)``.
        live: those of the live space.
        weight: of rows, ``(n,)``.
        most: the difference of the means.
        interval: 95 % of that difference, where it is known.
    """
    total = float(weight.sum())
    value = float(weight @ (new - live)) / total if total else np.nan
    sure = f" (95 %: {interval[0]:+.4g} to {interval[1]:+.4g})" if interval else ""
    said = f"loss {value:+.4g} against the live space{sure} on {len(ids):,} rows, for {most:+g} at most"
    if not total:
        said = "no row of the last window is newer than what both have learned: fit with --until"
    worst = _worst(ids, weight * (new - live), np.sum)
    return Verdict("quality", bool(value <= most), value, most, said, worst)


def parity(ids: Sequence[str], stored: NDArray[Any], again: NDArray[Any], most: float) -> Verdict:
    """Whether what is said before a save is what is said after a load.

    Args:
        ids: whose value each is, ``n`` of them.
        stored: ``(n,)`` or ``(n, s)``.
        again: the same, made anew.
        most: the largest difference.
    """
    same = (stored == again) | (np.isnan(stored) & np.isnan(again))
    apart = np.subtract(stored, again, out=np.zeros(stored.shape), where=~same)
    apart = np.abs(_by_row(apart)).max(axis=1, initial=0.0)
    apart = np.where(np.isnan(apart), np.inf, apart)
    value, count = float(apart.max(initial=0.0)), int((apart > most).sum())
    said = f"{count:,} of {len(ids):,} values differ by up to {value:.4g}, for {most:g} at most"
    return Verdict("parity", not count, value, most, said, _worst(ids, apart, np.max))


def stored_parity(whose: Sequence[str], apart: FloatArray, most: float, *, units: int, rows: int) -> Verdict:
    """Whether vectors in a store are those that are made anew of the states beside them.

    Args:
        whose: kind of entity and id of each, ``n`` of them.
        apart: the largest difference of a number of each, ``(n,)``.
        most: how large it may be.
        units: how many were looked at.
        rows: how many others of them were proved by their checks.
    """
    apart = np.where(np.isnan(apart), np.inf, apart)
    wrong, value = apart > most, float(apart.max(initial=0.0))
    differ = f"{int(wrong.sum()):,} of {len(whose):,} vectors differ by up to {value:.4g} from those made anew"
    said = f"{differ}, for {most:.4g} at most" if whose else "no vectors are made of these states"
    said = f"{said}; {rows:,} rows in {units:,} units are what was written"
    return Verdict("stored parity", not wrong.any(), value, most, said, _worst(whose, apart * wrong, np.max))


def incomparable(gate: str, why: str, bound: float) -> Verdict:
    """A gate that could not be asked, and so is not passed."""
    return Verdict(gate, False, np.nan, bound, why)


def unasked(gate: str, why: str) -> Verdict:
    """A gate that there is nothing to ask of, and so does not stand in the way."""
    return Verdict(gate, True, np.nan, np.nan, f"not asked: {why}")


def refused(space: Space, verdicts: Sequence[Verdict]) -> GateError:
    """The error that names what was not passed, which entities are to blame, and by how much."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return GateError(
        f"{space} does not pass {len(failed)} of {len(verdicts)} gates: {'; '.join(map(str, failed))}",
        hint="fit it anew, move the bound in publish.gates, or promote it with --force and a --reason",
    )


def _by_row(values: NDArray[Any]) -> NDArray[Any]:
    """Values ``(n,)`` or ``(n, s)`` as a table of ``n`` rows."""
    return values if values.ndim == 2 else values[:, None]


def _not_finite(values: NDArray[Any]) -> IntArray:
    """How many numbers of each row of ``(n, ...)`` are not finite, ``(n,)``."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), np.int64)
    return (~np.isfinite(values)).sum(axis=tuple(range(1, values.ndim)))


def _worst(ids: Sequence[str], values: FloatArray, together: Any) -> tuple[tuple[str, float], ...]:
    """The entities with the largest values above 0, each by all of its rows together."""
    if not len(ids):
        return ()
    who, row = np.unique(np.array(ids, np.dtypes.StringDType()), return_inverse=True)
    order = np.argsort(row, kind="stable")
    starts = np.searchsorted(row[order], np.arange(len(who)))
    sums = np.array([together(part) for part in np.split(values[order], starts[1:])])
    largest = [i for i in np.argsort(-sums, kind="stable")[:_SHOWN].tolist() if sums[i] > 0]
    return tuple((str(who[i]), float(sums[i])) for i in largest)
