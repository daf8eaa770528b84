"""The population that random effects come from, learned from all entities by empirical Bayes.

Notation: entities ``e = 1..n`` have coefficients ``w_e ~ N(b, C)`` with ``C = B^-1``, and their rows say of them
``exp(l_e'w - w'A_e w/2)``. So the posterior of an entity has covariance ``S_e = (A_e + B)^-1`` and mean
``m_e = S_e (l_e + B b)``. What is expected before, in units ``U`` in which a standard deviation of 1 is usual::

    log p(C, t) = -k/2 (log|C / t U| + t tr(B U)) + log(t)/2 - log(1 + t)        k = c + 1
    log p(b | C) = -1/2 (b - r)' h B (b - r)                                      h = 2

The first term is an inverse Wishart: ``k`` more entities of ``c`` coefficients each, all of variance ``t``, shrink
a covariance to one variance by how few entities there are. The rest is the half-Cauchy density of ``sqrt(t)``,
in terms of ``log t``: worth one coefficient of one entity at most, however many there are (Gelman, 2006; Huang
and Wand, 2013). ``h`` entities at ``r`` keep the mean.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import Diagonal, FloatArray, Full, Posterior, Precision
from acclimate.models.scaling import Scaling

T = TypeVar("T", bound=np.generic)

MEAN_ENTITIES = 2.0
"""How many entities the prior of the mean counts as, ``h``."""


def learn_population(
    linear: FloatArray,
    information: Precision,
    prior: Posterior,
    unit: Posterior,
    *,
    free_mean: NDArray[np.bool_],
    past: "Past | None" = None,
    scaling: Scaling | None = None,
    tolerance: float = 1e-2,
    max_rounds: int = 100,
) -> tuple[Posterior, float]:
    """Maximise the marginal likelihood of the entities' evidence over the population's mean and precision.

    Every entity's likelihood is replaced by its Gaussian approximation ``exp(linear'w - w'information w/2)``. From
    an expected loss (:func:`acclimate.models.joint.solve_joint` with ``variance``) that has the posteriors of the
    Gaussian variational approximation, so what is found, once neither moves, is a stationary point of its bound on
    the likelihood (Opper and Archambeau, 2009; Ormerod and Wand, 2012). What is said of a direction of no
    information has to be nothing, so both come from the rows themselves rather than from a posterior solved to a
    tolerance.

    Args:
        linear: ``(e, d)``.
        information: of ``e`` entities; diagonal where ``prior`` is diagonal.
        prior: the population to begin at, mean ``(d,)``; raw, as are those below and what is returned.
        unit: what is usual before any data: ``N(r, U)``.
        free_mean: ``(d,)``; where false the mean stays at ``unit.mean``, since another effect carries it.
        past: entities that are not here.
        scaling: the coordinates of ``linear`` and ``information``, and to compute in; without, these are raw too.
            In raw ones the algebra below fails where features lie 1e4 of their spreads from 0.
        tolerance: log-likelihood gained by a round at which to stop, in nats.
        max_rounds: rounds at most.

    Returns:
        The population, in the form of ``prior``, and the log-likelihood gained over ``prior`` (to first order). A
        gain below one nat is less than what chance decides.
    """
    full, d = prior.is_full, len(prior.mean)
    if scaling is None:
        scaling = Scaling(np.zeros(d), np.ones(d))
    prior, unit, free = scaling.prior_in(prior), scaling.prior_in(unit), _directions(free_mean, scaling)
    past = past or Past.nothing(prior)
    there = scaling.prior_in(past.population)
    evidence = _Evidence(
        _split_vectors(linear, full=full),
        _split_matrices(information.full().array if full else information.diagonal(), full=full),
        _split_vectors(unit.mean, full=full),
        _split_matrices(unit.covariance(), full=full),
        free[None] if full else _split_matrices(np.diagonal(free), full=False),
        past.count,
        past.share,
        _split_matrices(scaling.precision_in(past.P).array, full=full),
        _split_vectors(there.mean, full=full),
        _split_matrices(there.covariance(), full=full),
    )
    mean, precision = _split_vectors(prior.mean, full=full), _split_matrices(prior.precision, full=full)
    total = 0.0
    for _ in range(max_rounds):
        mean, precision, gain = _refined(evidence, mean, precision)
        total += gain
        if not gain > tolerance:
            break
    found = Full(precision[0]) if full else Diagonal(precision.reshape(d))
    return Posterior(scaling.mean_out(mean.reshape(d)), scaling.precision_out(found).array), total


@dataclass(frozen=True)
class Past:
    """What is remembered of entities that a population was learned from: they are all like one of them.

    ``count`` entities of the information ``information`` (d, d) or (d,) each, in the form of ``population``, which
    they were of: what their rows say of a coefficient has the distribution ``l ~ N(A b, A + A C A)``. In the place
    of their log-likelihood stands its expectation. ``share``: how many of those that the population was learned
    from these are; as much of what was expected before has been counted, and pulls to ``population`` from now on.
    """

    count: float
    information: FloatArray
    population: Posterior
    share: float = 1.0

    @staticmethod
    def nothing(population: Posterior) -> "Past":
        """No entity at all."""
        return Past(0.0, np.zeros_like(population.precision), population, 0.0)

    @property
    def P(self) -> Precision:  # noqa: N802
        """The information with its algebra."""
        return Full(self.information) if self.population.is_full else Diagonal(self.information)

    def with_entities(
        self, information: Precision, entities: float, population: Posterior, scaling: Scaling
    ) -> "Past":
        """These and others, which ``information`` stands for, as of a population that was learned from all.

        The one that all are like has their mean posterior covariance, ``(A + B)^-1 = mean_e (A_e + B)^-1``: so
        that they give the population's mean the precision that they gave it.
        """
        if not entities:
            return replace(self, population=population, share=1.0)
        B = scaling.precision_in(population.P)
        here = information if isinstance(B, Diagonal) else information.full()
        mean = np.mean(here.plus(B).inverse().array, axis=0)
        before = scaling.precision_in(self.P).plus(B).inverse().array
        count = self.count + entities
        S = type(B)((self.count * before + entities * mean) / count)
        A = type(B)(S.inverse().array - B.array)
        return Past(count, scaling.precision_out(A).array, population)


@dataclass(frozen=True)
class _Evidence:
    """What a population is learned from, as ``g`` independent problems of ``c`` coefficients each.

    A full population is one problem of all coefficients (g = 1, c = d), a diagonal one as many as it has (g = d,
    c = 1), so that the algebra below is written once. ``linear`` (g, n, c) holds ``l``, ``information``
    (g, n, c, c) holds ``A``; ``r`` (g, c) and ``U`` (g, c, c) are what is usual; ``free``
    (g, c, c) are the directions in which the mean may go, zero columns for those that are held. Of ``count`` more
    entities, a ``share`` of those that were, ``past`` (g, c, c) holds ``A``; ``b0`` (g, c) and ``C0`` (g, c, c)
    are what they were of.
    """

    linear: FloatArray
    information: FloatArray
    r: FloatArray
    U: FloatArray
    free: FloatArray
    count: float
    share: float
    past: FloatArray
    b0: FloatArray
    C0: FloatArray


def _directions(free_mean: NDArray[np.bool_], scaling: Scaling) -> FloatArray:
    """Where a mean may go in scaled coordinates, ``(d, d)``: column ``j`` is what raw coefficient ``j`` moves.

    By ``T^-1 = diag(s) + e0 c'`` that is ``e_j + c_j/s_j e_0``; the second part matters only where the intercept
    is held, and goes along.
    """
    free = np.diag(free_mean.astype(np.float64))
    if not free_mean[0]:
        free[0] += np.where(free_mean, scaling.centre / scaling.scale, 0.0)
    return free


def _split_vectors(vectors: NDArray[T], *, full: bool) -> NDArray[T]:
    """``(..., d)`` as ``(1, ..., d)``, or coefficient by coefficient as ``(d, ..., 1)``."""
    return vectors[None] if full else np.moveaxis(vectors, -1, 0)[..., None]


def _split_matrices(matrices: FloatArray, *, full: bool) -> FloatArray:
    """``(..., d, d)`` as ``(1, ..., d, d)``, or diagonals ``(..., d)`` as ``(d, ..., 1, 1)``."""
    return matrices[None] if full else np.moveaxis(matrices, -1, 0)[..., None, None]


def _refined(evidence: _Evidence, b: FloatArray, B: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """One round: a Newton step of the mean, then the covariance that fits the entities' means as they are.

    Returns ``b`` (g, c) and ``B`` (g, c, c) anew, and the log-likelihood that they gain to first order.
    """
    h, k, n, f = MEAN_ENTITIES, b.shape[-1] + 1.0, evidence.linear.shape[1], evidence.share
    usual = (1.0 - f) * evidence.r + f * evidence.b0
    C = Full(B).inverse().array

    # 1. The entities' posteriors: S_e = (A_e + B)^-1, summed up, and m_e = S_e (l_e + B b); and the
    #    variance t of the others.
    m, S = _posteriors(evidence, b, B)
    past = Full(evidence.past + B).inverse().array
    K = past @ evidence.past  # of one that is past: m = b + K (b0 - b) in the mean
    t = usual_variance(k * b.size, k * float(np.sum(B * np.swapaxes(evidence.U, 1, 2))))

    # 2. The precision that they give b: G = sum_e (B - B S_e B), the negative second derivative of the
    #    log-likelihood in b. S_e integrates w_e out: where the rows say nothing, S_e is C, and e gives nothing.
    G = (n + evidence.count) * B - B @ (S + evidence.count * past) @ B

    # 3. A Newton step of the free means: the slope is B (sum_e (m_e - b) + h (r - b)), and those that are held lie
    #    at r. In the free directions F it is F (F'(G + hB)F)^-1 F'slope, with an identity for those that are held.
    F = evidence.free
    FT = np.swapaxes(F, 1, 2)
    drawn = (m - b[:, None]).sum(axis=1) + evidence.count * np.matvec(K, evidence.b0 - b)
    slope = np.matvec(B, drawn + h * (usual - b))
    curvature = FT @ (G + h * B) @ F + np.eye(b.shape[-1]) * (np.diagonal(F, axis1=1, axis2=2) == 0.0)[:, None]
    centre = evidence.r + np.matvec(F, b - evidence.r + Full(curvature).solve(np.matvec(FT, slope)))

    # 4. The spread around it that is to be explained: Q = sum_e (m_e - b)(m_e - b)' + k t U + h (r - b)(r - b)'.
    #    The slope in C is (B Q B - W)/2, where W = G + k B. Those that are past have m of variance
    #    K C0 K' + S A S, which is C - S where C is C0.
    away = m - centre[:, None]
    past_away = b + np.matvec(K, evidence.b0 - b) - centre
    if b.shape[-1] == 1:
        # Posteriors follow the mean, by S_e B (centre - b), where that costs next to nothing: else entities that
        # say nothing of a coefficient would count as far away as its mean has moved.
        follow = B[:, 0] * (centre - b)
        away += follow[:, None] / (evidence.information[..., 0] + B)
        past_away += past[..., 0] * follow
    past_spread = K @ evidence.C0 @ np.swapaxes(K, 1, 2) + K @ past + _outer(past_away)
    expected = (1.0 - f) * (k * t * evidence.U + h * _outer(evidence.r - centre))
    expected += f * (k * evidence.C0 + h * _outer(evidence.b0 - centre))
    Q = np.swapaxes(away, 1, 2) @ away + evidence.count * past_spread + expected
    W = G + k * B
    slope_C = B @ Q @ B - W

    # 5. At the optimum C W C = Q. Solving that for C with W and Q held is the MM algorithm of Zhou, Hu, Qiao and
    #    Lange (2019), which unlike EM does not stall where entities say little about a coefficient. Its error
    #    shrinks by a factor between 1/2 and 1 each round; twice its step, C_mm B C_mm in place of C_mm, takes half
    #    as many rounds.
    C_mm = _balanced(W, Q)
    new_C = C_mm @ B @ C_mm
    half = Full(C_mm).inverse().array
    new_B = half @ C @ half
    gain = np.vecdot(slope, centre - b).sum() + 0.5 * np.sum(slope_C * (new_C - C))
    return centre, new_B, float(gain)


def _posteriors(evidence: _Evidence, b: FloatArray, B: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means ``(g, n, c)`` of the entities' posteriors, and the sum of their covariances, ``(g, c, c)``."""
    linear, A = evidence.linear + np.matvec(B, b)[:, None], evidence.information
    if B.shape[-1] == 1:
        variances = 1.0 / (A + B[:, None])
        return variances[..., 0] * linear, variances.sum(axis=1)
    from acclimate.kernels import entities

    means, sums = np.empty(linear.shape), np.empty(B.shape)
    for g in range(len(B)):
        means[g], sums[g], failed = entities.posteriors(A[g], linear[g], B[g])
        if len(failed):
            S = Full(A[g, failed] + B[g]).inverse().array
            means[g, failed] = np.matvec(S, linear[g, failed])
            sums[g] += S.sum(axis=0)
    return means, sums


def _outer(vectors: FloatArray) -> FloatArray:
    return vectors[:, :, None] * vectors[:, None, :]


def usual_variance(count: float, trace: float) -> float:
    """The likeliest ``t`` given ``B``, of ``count = k d`` and ``trace = k tr(B U)``: the root of a quadratic.

    The slope in ``log t`` is ``(count - trace t)/2 + 1/2 - t/(1 + t)``; times ``2 (1 + t)`` that is
    ``-trace t^2 - (trace + 1 - count) t + count + 1``.
    """
    q = trace + 1.0 - count
    root = np.sqrt(q * q + 4.0 * trace * (count + 1.0))
    return float(2.0 * (count + 1.0) / (q + root) if q > 0.0 else (root - q) / (2.0 * trace))


def _balanced(W: FloatArray, Q: FloatArray) -> FloatArray:
    """The covariance ``C`` with ``C W C = Q``, all ``(g, c, c)`` and positive definite.

    With ``W = L L'``: ``C = L^-T (L' Q L)^(1/2) L^-1``, since then ``C W C = L^-T (L' Q L) L^-1 = Q``.
    """
    L = Full(W).root()
    LT = np.swapaxes(L, -1, -2)
    product = LT @ Q @ L
    if not np.isfinite(product).all():
        return np.full_like(W, np.nan)
    values, vectors = np.linalg.eigh(product)
    half = np.linalg.solve(LT, vectors) * np.maximum(values, 0.0)[:, None, :] ** 0.25
    return half @ np.swapaxes(half, -1, -2)
