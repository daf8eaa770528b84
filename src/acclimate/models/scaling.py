"""Standardised coordinates for one run; models themselves live in raw feature units.

The prior is mapped in, the posterior back out, so the statistics of a run may differ from those of the last.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from acclimate.artifacts import FloatArray, Posterior


@dataclass(frozen=True)
class Scaling:
    """Coordinates ``v`` with ``w = T v``, so that rows become ``X T``: ``T`` scales, and centres by the intercept.

    ``centre`` and ``scale`` are ``(d,)``. Columns without a zero are centred (where column 0 is an intercept) and
    divided by their standard deviation; the others stay sparse and are divided by the root mean square of what
    they hold, which leaves indicators as they are.
    """

    centre: FloatArray
    scale: FloatArray

    @staticmethod
    def of(X: "sparse.csr_array[Any]", *, centre: bool, weight: FloatArray | None = None) -> "Scaling":
        """The scaling of rows ``(n, d)`` of some weight ``(n,)``, without it all of 1.

        ``centre=False`` is for diagonal precisions, which cannot carry it.
        """
        rows, d = X.shape
        times = np.ones(rows) if weight is None else weight
        of_cell = np.repeat(times, np.diff(X.indptr))
        held = np.bincount(X.indices, weights=of_cell > 0.0, minlength=d)
        count, total, power = (
            np.bincount(X.indices, weights=of_cell * moment, minlength=d) for moment in (1.0, X.data, X.data**2)
        )
        some = np.where(count > 0.0, count, 1.0)
        mean = total / some
        counted = np.count_nonzero(times)
        dense = (held == counted) & (counted > 1)
        intercept = bool(dense[:1].all()) and d > 0 and bool(power[0] == count[0] == total[0])
        # In two passes: power minus the squared mean is rounding alone where the mean dwarfs the spread.
        away = of_cell * (X.data - mean[X.indices]) ** 2
        spread = np.sqrt(np.bincount(X.indices, weights=away, minlength=d) / some)
        # A column whose spread drowns in the rounding of its mean is a constant.
        varies = dense & (spread > 1e-9 * np.abs(mean))
        size = np.sqrt(power / some)
        scale = np.where(varies, spread, np.where(size > 0.0, size, 1.0))
        return Scaling(np.where(varies & (intercept and centre), mean, 0.0), scale)

    @property
    def trivial(self) -> bool:
        """Whether nothing changes."""
        return not self.centre.any() and bool(np.all(self.scale == 1.0))

    def rows(self, X: "sparse.csr_array[Any]") -> "sparse.csr_array[Any]":
        """``X T``."""
        if self.trivial:
            return X
        data = (X.data - self.centre[X.indices]) / self.scale[X.indices]
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
        return Posterior(self.mean_in(prior.mean), self.precision_in(prior.precision))

    def precision_in(self, precision: FloatArray) -> FloatArray:
        """``T'PT`` of raw precisions: ``(e, d, d)``, or their diagonals ``(e, d)``."""
        if self.trivial:
            return precision
        T = self._basis()
        return T.T @ precision @ T if precision.ndim == 3 else precision / self.scale**2

    def precision_out(self, precision: FloatArray) -> FloatArray:
        """Raw precisions ``T^-T H T^-1``: ``(e, d, d)``, or their diagonals ``(e, d)``."""
        if self.trivial:
            return precision
        inverse = np.linalg.inv(self._basis())
        return inverse.T @ precision @ inverse if precision.ndim == 3 else precision * self.scale**2

    def slope_out(self, slope: FloatArray) -> FloatArray:
        """``T^-T g``: raw linear terms ``(e, d)``."""
        return slope if self.trivial else slope @ np.linalg.inv(self._basis())

    def _basis(self) -> FloatArray:
        T = np.diag(1.0 / self.scale)
        T[0] -= self.centre / self.scale
        return T
