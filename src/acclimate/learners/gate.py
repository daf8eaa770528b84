"""What may enter a learner and what may leave it: numbers that arithmetic on them can hold.

Products of features, weights and precisions have to stay below 1e308, the largest double. What is beyond the
limits is named by column and rows before it is learned; what then is not finite never replaces what was.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from acclimate.arrays import BoolArray, FloatArray, Full, IdArray, IntArray, Posterior, Support
from acclimate.errors import ModelError, RowError
from acclimate.features import shown
from acclimate.models.limits import LARGEST, LARGEST_COEFFICIENT, LARGEST_FEATURE, SMALLEST_FEATURE
from acclimate.times import utc


def check_size(column: str, values: FloatArray, time: IntArray) -> None:
    """That weights or offsets, ``(n,)``, are none beyond :data:`LARGEST`; ``time`` is that of the rows.

    Raises:
        RowError: some are.
    """
    if values.max(initial=0.0) <= LARGEST and values.min(initial=0.0) >= -LARGEST:
        return
    rows = np.flatnonzero(~(np.abs(values) <= LARGEST))
    raise RowError(
        f"the {column} is beyond {LARGEST:g} in {_places(rows, values[rows], time)}",
        hint="leave these rows out, or divide the column",
    )


def check_cells(effect: str, names: Sequence[str], X: "sparse.csr_array[Any]", time: IntArray) -> None:
    """That no cell ``(n, d)`` is beyond :data:`LARGEST_FEATURE`; ``time`` is that of the rows.

    Raises:
        RowError: some are.
    """
    if X.data.max(initial=0.0) <= LARGEST_FEATURE and X.data.min(initial=0.0) >= -LARGEST_FEATURE:
        return
    cells = np.flatnonzero(~(np.abs(X.data) <= LARGEST_FEATURE))
    column = int(X.indices[cells[0]])
    cells = cells[X.indices[cells] == column]
    rows = np.searchsorted(X.indptr, cells, side="right") - 1
    raise RowError(
        f"feature '{names[column]}' of effect '{effect}' is beyond {LARGEST_FEATURE:g} in "
        f"{_places(rows, X.data[cells], time)}",
        hint="divide the feature, or take its logarithm",
    )


def check_numbers(names: Sequence[str], dense: FloatArray, time: IntArray) -> None:
    """That all features of numbers ``(n, k)``, read for a network, are finite in float32; ``time`` is of the rows.

    Raises:
        RowError: some are not.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        dense = dense.astype(np.float32, copy=False)
        if np.isfinite(dense.sum()):
            return
    bad = ~np.isfinite(dense)
    if bad.any():
        column = int(np.argmax(bad.any(axis=0)))
        row = int(np.argmax(bad[:, column]))
        raise RowError(
            f"feature '{names[column]}' is beyond 3e38 in {int(bad[:, column].sum()):,} rows, first at "
            f"{utc(int(time[row])).isoformat(timespec='seconds')}",
            hint="divide the feature, or take its logarithm",
        )


def check_new_columns(effect: str, names: Sequence[str], X: "sparse.csr_array[Any]") -> None:
    """That no column holds nothing but numbers below :data:`SMALLEST_FEATURE`: of these no prior has the unit.

    Raises:
        RowError: some do.
    """
    tiny = (np.abs(X.data) < SMALLEST_FEATURE) & (X.data != 0.0)
    if not tiny.any():
        return
    there = X.data != 0.0
    bad = np.bincount(X.indices[tiny], minlength=X.shape[1])
    bad[bad < np.bincount(X.indices[there], minlength=X.shape[1])] = 0
    if bad.any():
        column = int(np.argmax(bad > 0))
        raise RowError(
            f"feature '{names[column]}' of effect '{effect}' is below {SMALLEST_FEATURE:g} in all {bad[column]:,} "
            f"rows in which it is not 0, such as {X.data[(X.indices == column) & there][0]:g}",
            hint="multiply the feature, or leave it out",
        )


def _places(rows: IntArray, values: FloatArray, time: IntArray) -> str:
    """How many rows, and where the first of them is."""
    count, at = len(np.unique(rows)), int(rows[0])
    moment = utc(int(time[at])).isoformat(timespec="seconds")
    return f"{count:,} of {len(time):,} rows, such as {values[0]:g} in row {at} (at {moment})"


def check_posterior(
    place: str,
    names: Sequence[str],
    posterior: Posterior,
    *,
    ids: IdArray | None = None,
    kept: str = "float64",
    support: Support | None = None,
) -> None:
    """That a posterior of one block, or of the entities ``ids``, is one, in the digits that it is ``kept`` in.

    ``names`` are those of its coefficients, or of all, of which entities hold those of a ``support``.

    Raises:
        ModelError: a mean or precision is not finite, or a precision not positive definite.
    """
    rounded = posterior if kept == "float64" else Posterior(*map(_rounded, (posterior.mean, posterior.precision)))
    reached = np.abs(rounded.mean) <= LARGEST_COEFFICIENT
    sound = np.asarray(reached.all(axis=-1) & _positive(rounded))
    if sound.all():
        return
    finite = reached & np.isfinite(rounded.precision.sum(axis=-1) if rounded.is_full else rounded.precision)
    entity, lost = np.nonzero(~np.atleast_2d(finite) & ~np.atleast_1d(sound)[:, None])
    lost = lost if support is None else support[entity, lost]
    columns = _some([names[column] for column in np.unique(lost).tolist()])
    kind, what = ("posterior", f"finite in {columns}") if columns else ("precision", "positive definite")
    if ids is not None:
        bad = ids[~sound].tolist()
        kind, place = (
            f"{kind}s",
            f"{len(bad):,} of {len(ids):,} entities of '{place}' ({_some(list(map(shown, bad)))})",
        )
    digits, way_out = ("", "") if kept == "float64" else (f", rounded to {kept}", "use states: float64; ")
    raise ModelError(
        f"the {kind} of {place} would not be {what}{digits}: nothing was changed",
        hint=f"{way_out}look for extreme weights, offsets or ridges; bring features to means and spreads around 1",
    )


def _positive(posterior: Posterior) -> BoolArray:
    """Whether precisions are positive definite in the digits that they have, ``(...)``."""
    if not posterior.is_full or posterior.precision.ndim == 2:
        return posterior.P.positive()
    from acclimate.kernels.states import positive

    positives = positive(np.require(posterior.precision, requirements=["C", "W"]))
    failed = np.flatnonzero(~positives)
    if len(failed):
        positives[failed] = Full(posterior.precision[failed]).positive()
    return positives


def _rounded(values: FloatArray) -> FloatArray:
    return values.astype(np.float32).astype(np.float64)


def _some(values: Sequence[Any]) -> str:
    """The first three."""
    return ", ".join(map(str, values[:3])) + (" ..." if len(values) > 3 else "")


def check_arrays(learner: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """That all numbers are finite: the last look before a learner is saved, whatever it is.

    Raises:
        ModelError: some are not.
    """
    for name, array in arrays.items():
        # The sum of finite numbers may overflow, but one that is finite has none that is not: one pass, no copy.
        with np.errstate(over="ignore", invalid="ignore"):
            surely = array.dtype.kind != "f" or np.isfinite(array.sum())
        if not surely and not np.isfinite(array).all():
            count = array.size - int(np.isfinite(array).sum())
            raise ModelError(
                f"{count:,} of {array.size:,} numbers in '{name}' of a {learner} are not finite: it is not saved",
                hint="fit anew from events without extreme weights, offsets or features",
            )
