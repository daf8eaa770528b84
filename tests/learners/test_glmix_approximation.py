"""What a GLMix says of entities of few rows: posteriors at the mode, or nearest to all of the posterior."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sample_events import START, events_of
from scipy.special import expit

import acclimate as ac

SCHEMA = ac.Schema(time="time", entities={"user": "user_id"}, labels="click")
CLICKS = [[1], [1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 1, 1] * 10]
"""Of each user."""


def posteriors(approximation: str, *, halves: bool) -> tuple[float, list[ac.Posterior]]:
    """The level of all, which is held, and the posterior of each user's own; learned at once or in two halves."""
    user, click = np.repeat(np.arange(4), [len(c) for c in CLICKS]), np.concatenate(CLICKS)
    data = {"time": START + np.arange(len(user)), "user_id": user, "click": click}
    parts = np.arange(len(user)) % 2 if halves else np.zeros(len(user), int)
    logs = [
        events_of(SCHEMA, {name: column[parts == part] for name, column in data.items()})
        for part in range(1 + halves)
    ]
    model = ac.GLMix(
        fixed=ac.FixedEffect([], ridge=1e9),
        random=[ac.RandomEffect("user", ridge=0.5)],
        learn_population=False,
        approximation=approximation,
        tolerance=1e-9,
    ).fit(logs[0])
    if halves:
        model.update(logs[1])
    return model.weights()[0][1], [model.entity_posterior("user", u)[1] for u in range(4)]


def exact(level: float, clicks: list[int]) -> tuple[float, float]:
    """Mean and variance of the posterior itself."""
    w = np.linspace(-15.0, 15.0, 20_001)
    log_density = -0.25 * w**2 + sum(np.log(expit((2 * y - 1) * (level + w))) for y in clicks)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    return float(w @ density), float((w - w @ density) ** 2 @ density)


@pytest.mark.parametrize("user", range(4))
def test_a_variational_posterior_is_stationary_and_nearer_the_mean(user):
    level, found = posteriors("variational", halves=False)
    mean, variance = found[user].mean.item(), found[user].covariance().item()
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    p = expit(level + mean + np.sqrt(variance) * node)
    weight = weight / weight.sum()
    # E l'(z) summed over rows, and the prior's pull; the precision is the prior's and that of E l''(z).
    slope = sum(weight @ p - y for y in CLICKS[user]) + 0.5 * mean
    assert abs(slope) < 0.01
    assert_allclose(1.0 / variance, 0.5 + len(CLICKS[user]) * (weight @ (p * (1 - p))), rtol=0.01)
    truth, spread = exact(level, CLICKS[user])
    mode = posteriors("laplace", halves=False)[1][user]
    assert abs(mean - truth) < 0.3 * abs(mode.mean.item() - truth)
    assert abs(variance - spread) < abs(mode.covariance().item() - spread) + 0.02 * spread


def test_two_halves_are_nearer_the_whole():
    errors = {}
    for approximation in ("laplace", "variational"):
        level, halves = posteriors(approximation, halves=True)
        errors[approximation] = np.abs(
            [h.mean.item() - exact(level, c)[0] for h, c in zip(halves, CLICKS, strict=True)]
        )
    assert errors["variational"].max() < 0.5 * errors["laplace"].max()


def test_integrated_predictions_are_nearly_exact_whichever_the_approximation():
    """At the mode they are moved to the mean first; around the mean they are not moved again."""
    asked = events_of(SCHEMA, {"time": START + np.arange(4), "user_id": np.arange(4), "click": np.zeros(4)})
    errors = {}
    for approximation in ("laplace", "variational"):
        user, click = np.repeat(np.arange(4), [len(c) for c in CLICKS]), np.concatenate(CLICKS)
        model = ac.GLMix(
            fixed=ac.FixedEffect([], ridge=1e9),
            random=[ac.RandomEffect("user", ridge=0.5)],
            learn_population=False,
            approximation=approximation,
        ).fit(events_of(SCHEMA, {"time": START + np.arange(len(user)), "user_id": user, "click": click}))
        level = model.weights()[0][1]
        z = np.linspace(-15.0, 15.0, 20_001)
        truth = []
        for clicks in CLICKS:
            log_density = -0.25 * z**2 + sum(np.log(expit((2 * y - 1) * (level + z))) for y in clicks)
            density = np.exp(log_density - log_density.max())
            truth.append(expit(level + z) @ density / density.sum())
        errors[approximation] = np.abs(model.predict(asked, mode="integrated") - truth)
        at_means = np.abs(model.predict(asked) - truth)
        assert np.all(errors[approximation][:3] < 0.4 * at_means[:3])  # the last user is known well
        assert errors[approximation].max() < 0.02
