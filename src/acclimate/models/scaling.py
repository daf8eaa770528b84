"""Standardised coordinates for one run; models themselves live in raw feature units.

The prior is mapped in, the posterior back out, so the statistics of a run may differ from those of the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from acclimate.arrays import Diagonal, FloatArray, Full, IntArray, Posterior, Precision, unwarned
from acclimate.models.limits import SMALLEST_FEATURE

_SQUARES_FROM = 1e-200
"""Sums of squares below this, or above its inverse, are taken again in a unit of the column's own size."""


@dataclass(frozen=True)
class Scaling:
    """Coordinates ``v`` with ``w = T v``, so that rows become ``X T``: ``T`` scales, and centres by the intercept.

    ``centre`` ``c`` and ``scale`` ``s`` are ``(d,)``. Columns without a zero are centred (where column 0 is an
    intercept, whose own c is 0 and s is 1) and divided by their standard deviation; the others stay sparse and are
    divided by the root mean square of what they hold, which leaves indicators as they are. So::

        T = diag(1/s) - e0 (c/s)'      T^-1 = diag(s) + e0 c'

    and no product with either needs it written out as a matrix.
    """

    centre: FloatArray
    scale: FloatArray

    @staticmethod
    @unwarned
    def of(X: "sparse.csr_array[Any]", *, centre: bool, weight: FloatArray | None = None) -> "Scaling":
        """The scaling of rows ``(n, d)`` of some weight ``(n,)``, without it all of 1.

        ``centre=False`` is for diagonal precisions, which cannot carry it.
        """
        from acclimate.kernels.rows import Cells, moments, spreads

        times = np.ones(X.shape[0]) if weight is None else _around_one(weight)
        cells = Cells.of(X)
        held, count, total, power = moments(cells, times, X.shape[1]).T
        extreme = np.asarray((held > 0.0) & ~((power > _SQUARES_FROM) & (power < 1.0 / _SQUARES_FROM)))
        if extreme.any() and (units := _units(X, times, extreme)).any():
            inside = Scaling.of(_divided(X, units), centre=centre, weight=times)
            mean, scale = np.ldexp(inside.centre, units), np.ldexp(inside.scale, units)
            # So small that its square is nothing: no prior is of that unit, and such numbers say nothing.
            usable = scale >= SMALLEST_FEATURE
            return Scaling(np.where(usable, mean, 0.0), np.where(usable, scale, 1.0))
        some = np.where(count > 0.0, count, 1.0)
        mean = total / some
        counted = np.count_nonzero(times)
        dense = (held == counted) & (counted > 1)
        intercept = bool(dense[:1].all()) and len(dense) > 0 and bool(power[0] == count[0] == total[0])
        # In two passes: power minus the squared mean is rounding alone where the mean dwarfs the spread.
        away = spreads(cells, times, mean) if dense.any() else np.zeros(len(mean))
        spread = np.sqrt(away / some)
        # A column whose spread drowns in the rounding of its mean is a constant.
        varies = dense & (spread > 1e-9 * np.abs(mean))
        size = np.sqrt(power / some)
        scale = np.where(varies, spread, np.where(size > 0.0, size, 1.0))
        return Scaling(np.where(varies & (intercept and centre), mean, 0.0), scale)

    def with_one_unit(self, groups: Sequence[IntArray]) -> "Scaling":
        """With one scale for the columns of each group: the root mean square of theirs."""
        scale = self.scale.copy()
        for columns in groups:
            if len(columns):
                largest = scale[columns].max()  # whose square may be beyond all numbers
                scale[columns] = largest * np.sqrt(np.mean((scale[columns] / largest) ** 2))
        return Scaling(self.centre, scale)

    @property
    def trivial(self) -> bool:
        """Whether nothing changes."""
        return not self.centre.any() and bool(np.all(self.scale == 1.0))

    @property
    def ordinary(self) -> bool:
        """Whether nothing is centred, and squares of all scales are far from overflow: ``T`` is a diagonal."""
        return not self.centre.any() and bool(np.all((self.scale > 1e-60) & (self.scale < 1e60)))

    def rows(self, X: "sparse.csr_array[Any]") -> "sparse.csr_array[Any]":
        """``X T``."""
        if self.trivial:
            return X
        from acclimate.kernels.rows import Cells, standardised

        data = standardised(Cells.of(X), self.centre, self.scale)
        return sparse.csr_array((data, X.indices, X.indptr), shape=X.shape)

    def mean_in(self, mean: FloatArray) -> FloatArray:
        """``T^-1 w`` of raw means ``(..., d)``."""
        if self.trivial:
            return mean
        inside = mean * self.scale
        inside[..., 0] += mean @ self.centre
        return inside

    def mean_out(self, mean: FloatArray) -> FloatArray:
        """``T v``: raw means ``(..., d)``."""
        if self.trivial:
            return mean
        raw = mean / self.scale
        raw[..., 0] -= raw @ self.centre
        return raw

    def prior_in(self, prior: Posterior) -> Posterior:
        """A raw prior of ``e`` entities in these coordinates."""
        if self.trivial:
            return prior
        return Posterior(self.mean_in(prior.mean), self.precision_in(prior.P).array)

    def precision_in(self, precision: Precision) -> Precision:
        """``T'PT`` of raw precisions."""
        if self.trivial:
            return precision
        if isinstance(precision, Diagonal):
            return Diagonal(precision.array / self.scale**2)
        return Full(_transformed(precision.array, 1.0 / self.scale, self.centre / self.scale))

    def precision_out(self, precision: Precision) -> Precision:
        """Raw precisions ``T^-T H T^-1``."""
        if self.trivial:
            return precision
        if isinstance(precision, Diagonal):
            return Diagonal(precision.array * self.scale**2)
        return Full(_transformed(precision.array, self.scale, -self.centre))

    def slope_out(self, slope: FloatArray) -> FloatArray:
        """``T^-T g``: raw linear terms ``(..., d)``."""
        return slope if self.trivial else slope * self.scale + slope[..., :1] * self.centre


def _transformed(matrices: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """``T'PT`` of matrices ``(..., d, d)``, with ``T = diag(a) - e0 b'``."""
    from acclimate.kernels.states import transformed

    # Arrays that cannot be written to are of another type to a compiler, which would start anew.
    each, a, b = (np.require(one, np.float64, ["C", "W"]) for one in (matrices, a, b))
    return transformed(each.reshape(-1, *matrices.shape[-2:]), a, b).reshape(matrices.shape)


def _around_one(weight: FloatArray) -> FloatArray:
    """The same weights but for a power of two, with the largest near 1: exact, and their products are in range."""
    return np.ldexp(weight, -int(np.frexp(weight.max(initial=0.0))[1]))


def _units(X: "sparse.csr_array[Any]", weight: FloatArray, columns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of some columns the power of two next to their largest number, 0 of the others, ``(d,)``."""
    largest = np.zeros(X.shape[1])
    counted = columns[X.indices] & np.repeat(weight > 0.0, np.diff(X.indptr))
    np.maximum.at(largest, X.indices[counted], np.abs(X.data[counted]))
    return np.frexp(largest)[1].astype(np.int64)


def _divided(X: "sparse.csr_array[Any]", units: NDArray[np.int64]) -> "sparse.csr_array[Any]":
    return sparse.csr_array((np.ldexp(X.data, -units[X.indices]), X.indices, X.indptr), shape=X.shape)
