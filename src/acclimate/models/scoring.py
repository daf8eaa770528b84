"""The score of a row: arrays in, arrays out, one function for the online path and the replay.

``z = offset + sum_k x_k . w_k[entity_k]`` over the fixed effect (one entity) and the random effects. NumPy alone:
a service that scores loads neither a solver, nor Arrow, nor a learner.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IdArray, IntArray, Posterior, SparseRows
from acclimate.errors import ConfigError, ModelError, nearest
from acclimate.models.hashing import hashed
from acclimate.models.likelihood import Loss
from acclimate.models.skewness import factors, is_told, skewness

Mode: TypeAlias = Literal["point", "integrated", "thompson"]

# The trapezoidal rule: sigmoid's poles, pi / spread away, slow Gauss-Hermite down (81 nodes for the same 2e-5).
_NODES = np.arange(-16, 17) / 3.0
_WEIGHTS = np.exp(-0.5 * _NODES**2)
_STRIP_CELLS = 1 << 21
"""Cells of dense rows, or of the rows' covariances, that variances are computed from at a time: 16 MB."""
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Term:
    """One effect's part of the score.

    ``X``: ``(n, d)``. ``entity``: ``(n,)``, each row's place in ``ids``. ``ids``: ``(e,)``. ``mean``: ``(e, d)``.
    ``precision``: ``(e, d, d)`` or ``(e, d)``; only a score at the means does without. ``population``: what the
    entities come from, mean ``(d,)`` or ``(e, d)``; given where ``mean`` is the mode of a logistic posterior: a
    score over the posterior takes its mean instead (:mod:`acclimate.models.skewness`).
    """

    X: SparseRows
    entity: IntArray
    ids: IdArray
    mean: FloatArray
    precision: FloatArray | None = None
    population: Posterior | None = None

    @property
    def posterior(self) -> Posterior:
        """Of the ``e`` entities.

        Raises:
            ConfigError: there is no precision.
        """
        if self.precision is None:
            raise ConfigError("a term without precisions has means alone", hint="score at the means: mode 'point'")
        return Posterior(self.mean, self.precision)

    def margin(self) -> FloatArray:
        """At the means, ``(n,)``."""
        return self.products(self.mean)

    def variance(self) -> FloatArray:
        """Of the margin, ``(n,)``."""
        return _quadratics(self)

    def beyond_mode(self, margin: FloatArray, own: FloatArray) -> FloatArray:
        """How far the mean margin of all effects lies beyond its mode by this one, of the variance ``own``."""
        return _beyond_mode(self, margin, own)

    def drawn(self, seed: Sequence[int]) -> FloatArray:
        """At one draw of every coefficient, ``(n,)``."""
        return self.products(draws(self.posterior, self.ids, seed))

    def products(self, coefficients: FloatArray) -> FloatArray:
        """``x . w[entity]`` of each row ``(n,)``, for coefficients ``(e, d)``."""
        return _products(self.X, self.entity, coefficients)


class Scored(Protocol):
    """One effect's part of the score: a :class:`Term`, or one whose entities hold some coefficients only."""

    def margin(self) -> FloatArray:
        """At the means, ``(n,)``."""
        ...

    def variance(self) -> FloatArray:
        """Of the margin, ``(n,)``."""
        ...

    def beyond_mode(self, margin: FloatArray, own: FloatArray) -> FloatArray:
        """How far the mean margin of all effects lies beyond its mode by this one, of the variance ``own``."""
        ...

    def drawn(self, seed: Sequence[int]) -> FloatArray:
        """At one draw of every coefficient, ``(n,)``."""
        ...


def score(
    terms: Sequence[Scored], offset: FloatArray, mode: Mode = "point", seed: int = 0, *, loss: Loss = "logistic"
) -> FloatArray:
    """The expected label of each row, ``(n,)``: a probability, a number or the mean of a count.

    Args:
        terms: the effects, in an order that is always the same: a draw goes by their place.
        offset: known part of the margin, ``(n,)``.
        mode: ``point`` at the means, ``integrated`` over the posteriors, ``thompson`` at one draw of every
            coefficient: rows of one entity share theirs, as a slate that is ranked together needs.
        seed: of the draw.
        loss: ``logistic``, ``squared`` or ``poisson``.

    Raises:
        ConfigError: there is no such mode.
        ModelError: margins of some rows are sums of infinities, or counts beyond all numbers.
    """
    if mode not in _MODES:
        raise ConfigError(f"no mode '{mode}' of prediction", hint=nearest(mode, get_args(Mode)))
    p = _MODES[mode](terms, offset, seed, LINKS[loss])
    if lost := len(p) - int(np.isfinite(p).sum()):
        raise ModelError(
            f"no {LINKS[loss].name} of {lost:,} of {len(p):,} rows, "
            f"first of row {int(np.argmin(np.isfinite(p)))}: "
            "what their coefficients and features add up to is infinite",
            hint="look for extreme features in these rows",
        )
    return p


def point(terms: Sequence[Scored], offset: FloatArray, link: "Link") -> FloatArray:
    """The label expected at the means: ``sigmoid(z)``, ``z`` or ``exp(z)``."""
    return link.mean(margins(terms, offset))


def integrated(terms: Sequence[Scored], offset: FloatArray, link: "Link") -> FloatArray:
    """The label expected over the posteriors."""
    return predictive(terms, offset, link).expected


class Predictive(NamedTuple):
    """The label expected over the posteriors, and the margin at the means with its variance, ``(n,)`` each."""

    expected: FloatArray
    margin: FloatArray
    variance: FloatArray


def predictive(terms: Sequence[Scored], offset: FloatArray, link: "Link") -> Predictive:
    """What is expected over the posteriors, and how sure that is."""
    if not terms:
        return Predictive(link.mean(offset), offset, np.zeros_like(offset))
    each = [term.variance() for term in terms]
    margin, variance = margins(terms, offset), np.sum(each, axis=0)
    moved = [term.beyond_mode(margin, own) for term, own in zip(terms, each, strict=True)]
    return Predictive(link.expected(np.sum([margin, *moved], axis=0), variance), margin, variance)


def thompson(terms: Sequence[Scored], offset: FloatArray, seed: int, link: "Link") -> FloatArray:
    """The label expected at one draw of every coefficient."""
    z = offset.astype(np.float64)
    for place, term in enumerate(terms):
        z += term.drawn([seed, place])
    return link.mean(z)


def sigmoid(z: FloatArray) -> FloatArray:
    """``1 / (1 + exp(-z))``, to full relative precision at both ends."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0, e) / (1.0 + e)


LEAST = 2.0**-53
"""A logit knows probabilities at least this far from 0 and 1, and lies within 36.74: no double is closer to 1."""


def logit(p: FloatArray, least: float = LEAST) -> FloatArray:
    """``log(p / (1 - p))``; what is below ``least``, or closer to 1 than a double can be, is taken as that."""
    p = np.clip(p.astype(np.float64), least, 1.0 - LEAST)
    return np.log(p) - np.log1p(-p)


def margins(terms: Sequence[Scored], offset: FloatArray) -> FloatArray:
    """The margin ``z`` of each row at the means, ``(n,)``."""
    return np.sum([offset.astype(np.float64), *(term.margin() for term in terms)], axis=0)


def variances(terms: Sequence[Scored]) -> FloatArray:
    """The variance of each row's margin under independent Gaussian effects, ``(n,)``."""
    return np.sum([term.variance() for term in terms], axis=0)


def expected_probability(margin: FloatArray, variance: FloatArray) -> FloatArray:
    """``E[sigmoid(z)]`` for ``z ~ N(margin, variance)``, ``(n,)``; to 1e-7 at variances up to 9, 2e-5 up to 25."""
    spread = np.sqrt(np.clip(variance, 0.0, 1e300))  # rounding may make it negative, a far row infinite
    total = np.zeros_like(margin)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total += weight * sigmoid(margin + node * spread)
    return np.minimum(total / _WEIGHTS.sum(), 1.0)


def draws(posterior: Posterior, ids: IdArray, seed: Sequence[int]) -> FloatArray:
    """One draw ``(e, d)`` of ``N(m, H^-1)`` for each entity, by seed and id alone, whoever else is asked about."""
    return posterior.mean + posterior.P.spread(noise(ids, seed, posterior.mean.shape[-1]))


@dataclass(frozen=True)
class Link:
    """What margins are to expected labels: ``margin`` undoes ``mean``, ``expected`` is over the margins' variance.

    All take and give ``(n,)``; ``name`` is what a label is expected as.
    """

    name: str
    mean: Callable[[FloatArray], FloatArray]
    expected: Callable[[FloatArray, FloatArray], FloatArray]
    margin: Callable[[FloatArray], FloatArray]


_LEAST_COUNT = 1e-300

LINKS: dict[Loss, Link] = {
    "logistic": Link("probability", sigmoid, expected_probability, logit),
    "squared": Link("number", lambda z: z, lambda z, _: z, lambda p: p.astype(np.float64)),
    "poisson": Link(
        "count",
        np.exp,
        lambda z, variance: np.exp(z + 0.5 * variance),
        lambda p: np.log(np.maximum(p, _LEAST_COUNT)),
    ),
}
"""By loss; of a Poisson loss ``E[exp(z)] = exp(z + v/2)``."""

_MODES: dict[str, Callable[[Sequence[Scored], FloatArray, int, Link], FloatArray]] = {
    "point": lambda terms, offset, _, link: point(terms, offset, link),
    "integrated": lambda terms, offset, _, link: integrated(terms, offset, link),
    "thompson": thompson,
}


def _products(X: SparseRows, entity: IntArray, coefficients: FloatArray) -> FloatArray:
    """``x . w[entity]`` per row."""
    rows = len(entity)
    row = np.repeat(np.arange(rows), np.diff(X.indptr))
    cells = X.data * coefficients[entity[row], X.indices]
    return np.bincount(row, cells, rows).astype(np.float64)


def _quadratics(term: Term) -> FloatArray:
    """``x' S x`` per row, for the covariances ``S``."""
    X, S = term.X, term.posterior.covariance()
    if S.ndim == 2:
        return _products(_Squared(X), term.entity, S)
    result = np.empty(len(term.entity))
    strip = max(1, _STRIP_CELLS // X.shape[1] ** (1 if len(S) == 1 else 2))
    for first in range(0, len(result), strip):
        rows = slice(first, first + strip)
        x = _dense(X, rows)
        result[rows] = np.vecdot(x @ S[0] if len(S) == 1 else np.matvec(S[term.entity[rows]], x), x)
    return result


def _beyond_mode(term: Term, margin: FloatArray, own: FloatArray) -> FloatArray:
    """How far each row's mean margin lies beyond its mode by one effect, of which it has the variance ``own``.

    The entity's other rows are taken to be like this one to all other effects, and what these do not know is left
    out: effects that share their rows would each be moved for all. It moves by one standard deviation at most.
    """
    posterior = term.posterior
    if term.population is None or not is_told(posterior):
        return np.zeros_like(margin)
    entity, found = term.entity, skewness(posterior, term.population)
    others = margin - _products(term.X, entity, term.mean)
    weights = factors(others + found.margin[entity], found.variance[entity])
    moved = np.zeros_like(margin)
    for weight, part in zip(weights, found.parts, strict=True):
        moved += weight * _products(term.X, entity, posterior.P.solve(part))
    most = np.sqrt(np.maximum(own, 0.0))
    return np.clip(moved, -most, most)


class _Squared:
    """The same rows with every cell squared."""

    def __init__(self, X: SparseRows) -> None:
        self.data, self.indices, self.indptr, self.shape = X.data**2, X.indices, X.indptr, X.shape


def _dense(X: SparseRows, rows: slice) -> FloatArray:
    """Some rows written out, ``(rows, d)``."""
    bounds = X.indptr[rows.start : rows.stop + 1]
    cells = slice(bounds[0], bounds[-1])
    dense = np.zeros((len(bounds) - 1, X.shape[1]))
    dense[np.repeat(np.arange(len(dense)), np.diff(bounds)), X.indices[cells]] = X.data[cells]
    return dense


def noise(ids: IdArray, seed: Sequence[int], width: int) -> FloatArray:
    """White noise ``(e, width)``: a stream of splitmix64 per entity, begun at a hash of seed and id."""
    return normal(streams(ids, seed)[:, None], np.arange(width))


def streams(ids: IdArray, seed: Sequence[int]) -> NDArray[np.uint64]:
    """Where the stream of each entity begins, ``(e,)``."""
    seeded = hashlib.blake2b("/".join(map(str, [*seed, ""])).encode(), digest_size=8)
    digests: list[bytes] = []
    for entity in ids.tolist():
        one = seeded.copy()
        one.update(str(entity).encode())
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def normal(start: NDArray[np.uint64], column: NDArray[np.integer[Any]]) -> FloatArray:
    """White noise: of streams, each at columns of its own, by the shape that these have together."""
    # Box and Muller (1958): two uniform numbers make a normal one, with NumPy alone.
    # Two neighbours each, so that a coefficient keeps its draw when others join behind it.
    place = 2 * column.astype(np.uint64)
    first, second = (_uniform(start + _GAMMA * (place + np.uint64(one))) for one in (1, 2))
    return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)


def _uniform(state: NDArray[np.uint64]) -> FloatArray:
    # 52 bits and a half: never 0, which has no logarithm.
    return ((hashed(state) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
