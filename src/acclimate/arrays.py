"""What arrays mean here: their aliases, precisions, posteriors, states of entities.

All that the online path needs to hold, so it loads NumPy alone.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import ConfigError, nearest

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
IdArray: TypeAlias = NDArray[Any]
"""Ids of entities ``(n,)``: ``int64``, or text as ``numpy.dtypes.StringDType``."""
Support: TypeAlias = NDArray[np.int32]
"""Columns of the coefficients that entities hold, ``(n, s)``: rising, and -1 at the end."""
ArrowArray: TypeAlias = Any
"""An Arrow array of whatever type a column has."""

unwarned = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Decorates what may compute something not finite and says so by an error of its own: no warning comes first."""

Form: TypeAlias = Literal["full", "diagonal", "marginal"]
"""What is kept of a precision ``H``: all of it, ``diag(H)``, or ``1/diag(H^-1)``."""


class SparseRows(Protocol):
    """Rows of a design matrix in CSR form, as ``scipy.sparse.csr_array`` has them."""

    data: Any
    indices: Any
    indptr: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        ...


@dataclass(frozen=True)
class Full:
    """Precision matrices ``(..., d, d)`` of one block or of many; vectors are ``(..., d)``."""

    array: FloatArray

    def times(self, vector: FloatArray) -> FloatArray:
        """``H v``."""
        return np.matvec(self.array, vector)

    def solve(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v``."""
        if self.array.shape[-1] == 1:  # an intercept alone is common, and LAPACK slow at it
            return vector / self.array[..., 0]
        try:
            return np.linalg.solve(self.array, vector[..., None])[..., 0]
        except np.linalg.LinAlgError:
            return np.matvec(_floored(self.array)[1], vector)

    def descent(self, gradient: FloatArray) -> FloatArray:
        """``-H^-1 g``, which goes downhill however close to singular a matrix is, ``(n, d)``."""
        step = self.solve(-gradient)
        lost = ~(np.vecdot(gradient, step) <= 0.0)
        if lost.any():
            step[lost] = -np.matvec(_floored(self.array[lost])[1], gradient[lost])
        return step

    def plus(self, other: "Precision") -> "Precision":
        """The sum; of a matrix and a diagonal it is a matrix."""
        return Full(self.array + other.full().array)

    def scaled(self, factor: FloatArray) -> "Full":
        """Each block times a number of its own, ``(...)``."""
        return Full(self.array * factor[..., None, None])

    def inverse(self) -> "Full":
        """``H^-1``: the covariance."""
        if self.array.shape[-1] == 1:
            return Full(1.0 / self.array)
        try:
            return Full(np.linalg.inv(self.array))
        except np.linalg.LinAlgError:
            return Full(_floored(self.array)[1])

    def root(self) -> FloatArray:
        """A ``L`` with ``H = L L'``."""
        try:
            return np.linalg.cholesky(self.array)
        except np.linalg.LinAlgError:
            return _floored(self.array)[0]

    def positive(self) -> BoolArray:
        """Whether each is positive definite in the digits that it has, ``(...)``."""
        try:
            return np.asarray(np.isfinite(np.linalg.cholesky(self.array)).all(axis=(-2, -1)))
        except np.linalg.LinAlgError:
            return _unit_eigen(self.array)[1][..., 0] > 0.0

    def diagonal(self) -> FloatArray:
        """``diag(H)``, ``(..., d)``."""
        return np.diagonal(self.array, axis1=-2, axis2=-1)

    def marginal(self) -> FloatArray:
        """``1/diag(H^-1)``, ``(..., d)``: the precisions of the coefficients one by one."""
        return 1.0 / self.inverse().diagonal()

    def full(self) -> "Full":
        """The same as matrices."""
        return self

    def kept(self, form: Form) -> "Precision":
        """What a posterior of that form keeps.

        Photon-ML calls the variances that follow from ``diagonal`` SIMPLE, and those from ``marginal`` FULL.

        Raises:
            ConfigError: there is no such form.
        """
        match form:
            case "full":
                return self
            case "diagonal":
                return Diagonal(self.diagonal().copy())
            case "marginal":
                return Diagonal(self.marginal())
            case _:
                raise ConfigError(f"no form '{form}' of a precision", hint=nearest(form, get_args(Form)))

    def spread(self, noise: FloatArray) -> FloatArray:
        """White noise ``e`` as noise of covariance ``H^-1``: ``L^-T e`` for ``H = L L'``."""
        return np.linalg.solve(np.swapaxes(self.root(), -1, -2), noise[..., None])[..., 0]


@dataclass(frozen=True)
class Diagonal:
    """The same of diagonal matrices, held as their diagonals ``(..., d)``; none is written out but on demand."""

    array: FloatArray

    def times(self, vector: FloatArray) -> FloatArray:
        """``H v``."""
        return self.array * vector

    def solve(self, vector: FloatArray) -> FloatArray:
        """``H^-1 v``."""
        return vector / self.array

    def plus(self, other: "Precision") -> "Precision":
        """The sum; of a matrix and a diagonal it is a matrix."""
        return Diagonal(self.array + other.array) if isinstance(other, Diagonal) else other.plus(self)

    def scaled(self, factor: FloatArray) -> "Diagonal":
        """Each block times a number of its own, ``(...)``."""
        return Diagonal(self.array * factor[..., None])

    def inverse(self) -> "Diagonal":
        """``H^-1``: the variances."""
        return Diagonal(1.0 / self.array)

    def diagonal(self) -> FloatArray:
        """``diag(H)``, ``(..., d)``."""
        return self.array

    def marginal(self) -> FloatArray:
        """``1/diag(H^-1)``, here the same as ``diag(H)``."""
        return self.array

    def full(self) -> Full:
        """The same as matrices."""
        return Full(self.array[..., None] * np.eye(self.array.shape[-1]))

    def kept(self, form: Form) -> "Precision":  # noqa: ARG002
        """What a posterior of any form keeps: there is no more than the diagonal."""
        return self

    def positive(self) -> BoolArray:
        """Whether each is positive definite, ``(...)``."""
        return np.asarray(((self.array >= np.finfo(np.float64).tiny) & np.isfinite(self.array)).all(axis=-1))

    def spread(self, noise: FloatArray) -> FloatArray:
        """White noise as noise of covariance ``H^-1``."""
        return noise / np.sqrt(self.array)


Precision: TypeAlias = Full | Diagonal


def _unit_eigen(H: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``s, values, vectors`` with ``H = S V diag(values) V' S``, ``S = diag(s)``: eigenvalues units apart.

    Not a number where a matrix is not finite, or negative in a direction by more than rounding could make it.
    """
    size = np.sqrt(np.maximum(np.diagonal(H, axis1=-2, axis2=-1), 0.0))
    usable = np.asarray(np.isfinite(H).all(axis=(-2, -1)) & (size > 0.0).all(axis=-1))
    size = np.where(usable[..., None], size, 1.0)
    unit = np.where(usable[..., None, None], H / size[..., :, None] / size[..., None, :], np.eye(H.shape[-1]))
    values, vectors = np.linalg.eigh(unit)
    usable &= values[..., 0] > -(np.finfo(np.float64).eps ** 0.5)
    return size, np.where(usable[..., None], values, np.nan), vectors


def _floored(H: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``L`` with ``L L' = H``, and ``H^-1``, of matrices that are singular in the digits there are.

    Eigenvalues below the rounding of the matrix are as likely negative as positive: they are raised to it.
    """
    size, values, vectors = _unit_eigen(H)
    width = H.shape[-1]
    root = np.sqrt(np.maximum(values, width * np.finfo(np.float64).eps))[..., None, :]
    inverse_root = vectors / root / size[..., None]
    return size[..., None] * vectors * root, inverse_root @ np.swapaxes(inverse_root, -1, -2)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the coefficients of one block, or of many entities' blocks of one shape.

    ``mean`` is ``(d,)`` with ``precision`` ``(d, d)`` (full) or ``(d,)`` (diagonal); for ``n`` entities
    ``(n, d)`` with ``(n, d, d)`` or ``(n, d)``. Precision is the inverse of the covariance, in raw feature units.

    Raises:
        ConfigError: the shapes do not go together.
    """

    mean: FloatArray
    precision: FloatArray

    def __post_init__(self) -> None:
        mean, precision = np.asarray(self.mean, np.float64), np.asarray(self.precision, np.float64)
        if mean.ndim not in (1, 2) or precision.shape not in (mean.shape, (*mean.shape, mean.shape[-1])):
            raise ConfigError(
                f"a posterior of mean {mean.shape} cannot have a precision of shape {precision.shape}",
                hint="mean (d,) goes with precision (d, d) or (d,); mean (n, d) with (n, d, d) or (n, d)",
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)

    @property
    def is_full(self) -> bool:
        """Whether the precision is a matrix per block rather than its diagonal."""
        return self.precision.ndim > self.mean.ndim

    @property
    def P(self) -> Precision:  # noqa: N802
        """The precision with its algebra."""
        return Full(self.precision) if self.is_full else Diagonal(self.precision)

    def at(self, blocks: IntArray | BoolArray | slice | int | None) -> "Posterior":
        """Some of the blocks of many; ``None`` puts a single one in front as ``(1, d)``."""
        return Posterior(self.mean[blocks], self.precision[blocks])

    def repeated(self, count: int) -> "Posterior":
        """One block as ``count`` equal ones, in the memory of one."""
        return Posterior(
            np.broadcast_to(self.mean, (count, *self.mean.shape)),
            np.broadcast_to(self.precision, (count, *self.precision.shape)),
        )

    def covariance(self) -> FloatArray:
        """The covariance: ``(..., d, d)``, or the variances ``(..., d)`` of a diagonal posterior."""
        return self.P.inverse().array

    def standard_deviation(self) -> FloatArray:
        """Marginal standard deviations of the coefficients, shaped as ``mean``."""
        return np.sqrt(self.P.inverse().diagonal())


@dataclass(frozen=True)
class EntityStates:
    """The small states: one posterior per entity, with what forgetting by time needs.

    ``ids``: ``(n,)``; ``posterior``: of ``n`` entities; ``touched``: ``(n,)``, microseconds UTC of the last event
    learned; ``rows``: ``(n,)``, the events learned so far, 0 for an entity that is not known. ``support``: of
    entities that hold some coefficients only, which these are, ``(n, s)``: the columns in rising order, and -1 at
    the end, where an entity has fewer than others. ``posterior`` is then over these ``s``; a coefficient that only
    fills up has mean 0, precision 1 and no link to another.
    """

    ids: IdArray
    posterior: Posterior
    touched: IntArray
    rows: IntArray
    support: Support | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, places: IntArray) -> "EntityStates":
        """The states at these places."""
        return EntityStates(
            self.ids[places],
            self.posterior.at(places),
            self.touched[places],
            self.rows[places],
            None if self.support is None else self.support[places],
        )


@dataclass(frozen=True)
class SparseStates:
    """States of entities that hold some coefficients only, in pieces of different widths and forms.

    ``ids``, ``touched`` and ``rows`` are ``(n,)``, as in :class:`EntityStates`; ``pieces``: states, and their
    places among the ``n``. An entity that is in none is not known.
    """

    ids: IdArray
    touched: IntArray
    rows: IntArray
    pieces: list[tuple[IntArray, EntityStates]]

    def __len__(self) -> int:
        return len(self.ids)
