"""The ridges of a fixed effect, learned: one a feature, by empirical Bayes.

The coefficients of a feature are like the entities of a random effect: of one variance around 0, which is learned
from them (:mod:`acclimate.models.population`) under the same weak prior. What rows say of coefficient ``j`` alone,
all others integrated out, is what its posterior has more than its prior: for a marginal variance ``S`` and a prior
precision ``B`` the information ``1/S - B`` and the linear term ``m/S``. So at the end (MacKay, 1992)::

    sum_j m_j^2 = variance * sum_j (1 - B S_j)        but for the prior
"""

import numpy as np

from acclimate.arrays import BoolArray, Diagonal, Full, Posterior, Precision
from acclimate.learners.task import Part
from acclimate.models.joint import Solution
from acclimate.models.population import learn_population

_HELD: BoolArray = np.zeros(1, np.bool_)


def learned_ridges(fixed: Part, solution: Solution, marginal: Precision) -> tuple[Part, dict[str, float], float]:
    """A fixed effect at ridges that are learned from a solution, in which it is the first block.

    Args:
        fixed: at the ridges of the solution.
        solution: of all effects.
        marginal: the precision of the fixed effect with the others integrated out, in scaled coordinates.

    Returns:
        The effect, its ridges by feature, and the log-likelihood that they gain, in nats.
    """
    block, effect = solution.problem.blocks[0], fixed.effect
    scaling = block.design.scaling
    m, S, B = solution.scaled_means[0][0], marginal.inverse().diagonal()[0], block.scaled.P.diagonal()[0]
    unit = scaling.precision_in(effect.unit.P).diagonal()
    precision, ridges, gained = B.copy(), dict[str, float](), 0.0
    for feature, columns in fixed.groups.items():
        if not len(columns):
            continue
        usual = unit[columns]
        told, now = np.maximum(1.0 / S[columns] - B[columns], 0.0), float(np.mean(B[columns] / usual))
        one, base = np.zeros(1), Posterior(np.zeros(1), np.ones(1))
        # In units in which a standard deviation of 1 is usual.
        linear, information = m[columns] / S[columns] / np.sqrt(usual), Diagonal((told / usual)[:, None])
        found, gain = learn_population(
            linear[:, None], information, Posterior(one, np.full(1, now)), base, free_mean=_HELD
        )
        ridges[feature], gained = float(found.precision[0]), gained + gain
        precision[columns] = ridges[feature] * usual
    prior = Full(np.diag(precision)) if effect.population.is_full else Diagonal(precision)
    population = Posterior(effect.population.mean, scaling.precision_out(prior).array)
    return fixed.at_population(population, fresh=True), ridges, gained
