"""Effects whose entities hold what they have met: the same as all coefficients at a diagonal population."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sample_events import DAY, START, events_of

import acclimate as ac
from acclimate.learners import mixed

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "item": "item_id"},
    features={"tags": {"kind": "multi"}, "x": {"kind": "numeric"}},
    labels=["click", "rating", "count"],
    label_kinds={"rating": "number", "count": "count"},
    weight="weight",
)
LABELS = {"logistic": "click", "squared": "rating", "poisson": "count"}
TIGHT = {"tolerance": 1e-10, "max_steps": 200}


def log(seed: int = 0, *, rows: int = 150, users: int = 9, tags: int = 25, day: int = 0) -> dict[str, Any]:
    """Rows of a few tags, many of which most users never meet."""
    rng = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, tags + 1)
    drawn = [
        sorted(rng.choice(tags, rng.integers(0, 4), replace=False, p=chance / chance.sum())) for _ in range(rows)
    ]
    user = rng.integers(0, users, rows)
    taste = np.random.default_rng(1234).normal(0.0, 0.7, (40, 60))
    z = 0.2 + np.array([taste[u, t].sum() for u, t in zip(user, drawn, strict=True)])
    return {
        "time": START + day * DAY + np.sort(rng.integers(0, DAY, rows)),
        "user_id": user,
        "item_id": rng.integers(0, 5, rows),
        "tags": [[f"t{t}" for t in some] for some in drawn],
        "x": rng.normal(3.0, 2.0, rows),
        "click": (rng.random(rows) < 1.0 / (1.0 + np.exp(-z))).astype(np.int64),
        "rating": z + rng.normal(0.0, 0.5, rows),
        "count": rng.poisson(np.exp(np.clip(0.3 * z, -2.0, 1.5))),
        "weight": rng.uniform(0.5, 2.0, rows),
    }


def batch(seed: int, **told: Any) -> ac.Events:
    return events_of(SCHEMA, log(seed, **told))


def pair(
    effect: dict[str, Any], *, loss: Any = "logistic", fixed: Any = (), more: Any = (), **told: Any
) -> tuple[ac.GLMix, ac.GLMix]:
    """The model with all coefficients of a user, and with those that are observed."""
    models = [
        ac.GLMix(
            fixed=fixed,
            random=[ac.RandomEffect("user", ["tags"], **{"support": support, **effect}), *more],
            label=LABELS[loss],
            loss=loss,
            **{**TIGHT, **told},
        )
        for support in ("all", "observed")
    ]
    return models[0], models[1]


def assert_same(dense: ac.GLMix, held: ac.GLMix, rtol: float = 1e-9) -> None:
    """Means and precisions of the fixed effect, of populations and, over what they hold, of all users."""
    atol = rtol
    for one, other in zip(dense.state.effects, held.state.effects, strict=True):
        assert one.index.names == other.index.names
        assert_allclose(other.population.mean, one.population.mean, rtol, atol)
        precision = one.population.precision
        if precision.ndim > other.population.precision.ndim:
            precision = np.diagonal(precision)
        assert_allclose(other.population.precision, precision, rtol, atol)
    for name in ("mean", "precision"):
        of_fixed = (getattr(model.state.fixed_posterior, name) for model in (held, dense))
        assert_allclose(*of_fixed, rtol, atol)
    known = dense.entities.ids("user").tolist()
    assert sorted(held.entities.ids("user").tolist()) == sorted(known)
    for id in [*known, 9999]:
        names, whole, rows = dense.entity_posterior("user", id)
        observed, part, count = held.entity_posterior("user", id)
        at = [names.index(name) for name in observed]
        assert at == sorted(at)
        assert count == rows
        assert_allclose(part.mean, whole.mean[at], rtol, atol)
        precision = whole.precision[np.ix_(at, at)] if part.is_full else whole.P.diagonal()[at]
        assert_allclose(part.precision, precision, rtol, atol)
        rest = np.setdiff1d(np.arange(len(names)), at)  # of which the entity knows what the population says
        assert_allclose(held.state.random[0].population.mean[rest], whole.mean[rest], rtol, atol)
        assert_allclose(held.state.random[0].population.precision[rest], whole.P.diagonal()[rest], rtol, atol)


def assert_same_predictions(dense: ac.GLMix, held: ac.GLMix, events: ac.Events, rtol: float = 1e-9) -> None:
    for mode in ("point", "integrated", "thompson"):
        expected, actual = (model.predict(events, mode=mode, seed=3) for model in (dense, held))
        assert_allclose(actual, expected, rtol, 1e-10, err_msg=mode)


EFFECTS: dict[str, dict[str, Any]] = {
    "full": {"precision": "full"},
    "marginal": {"precision": "marginal"},
    "diagonal": {"precision": "diagonal"},
    "half-life": {"precision": "full", "half_life": "2d"},
    "forgetting": {"precision": "full", "forgetting": 0.8},
    "min_rows": {"precision": "full", "min_rows": 25},
    "max_rows": {"precision": "full", "max_rows": 8},
    "ridges": {"precision": "full", "ridge": 3.0, "ridges": {"tags": 0.7}},
}


@pytest.mark.parametrize("loss", LABELS)
@pytest.mark.parametrize("effect", EFFECTS)
def test_the_same_as_all_coefficients_at_a_diagonal_ridge(effect, loss):
    """Over a fit and updates, in which users and tags come that were not there."""
    dense, held = pair(EFFECTS[effect], loss=loss, fixed=["tags", "x"], learn_population=False, noise=None)
    for model in (dense, held):
        model.fit(batch(0))
    assert_same(dense, held)
    for day in (1, 2, 3):
        events = batch(day, users=9 + day, tags=25 + 5 * day, rows=60, day=day)
        assert_same_predictions(dense, held, events)
        for model in (dense, held):
            model.update(events)
            assert model.info.converged
        assert_same(dense, held, 1e-7)


@pytest.mark.parametrize("approximation", ["laplace", "variational"])
@pytest.mark.parametrize("precision", ["marginal", "diagonal"])
def test_the_same_population_is_learned_and_refreshed(precision, approximation, monkeypatch):
    """Rounds have to end at the optimum, since coefficients without rows are on their way there too."""
    monkeypatch.setattr(mixed, "_LOOSE", 1e-10)
    more = [ac.RandomEffect("item", ["x"])]
    effect = {"precision": precision, "half_life": "3d", "min_rows": 6}
    dense, held = pair(effect, fixed=["tags"], more=more, approximation=approximation)
    for model in (dense, held):
        model.fit(batch(0))
    assert_same(dense, held, 1e-6)
    for day in (1, 2):
        events = batch(day, users=9 + day, tags=25 + 5 * day, rows=60, day=day)
        assert_same_predictions(dense, held, events, 1e-6)
        for model in (dense, held):
            model.update(events)
        assert_same(dense, held, 1e-6)


@pytest.mark.parametrize("precision", ["full", "marginal"])
def test_rows_that_are_predicted_over_the_posterior_are_at_the_mean_of_all(precision):
    dense, held = pair({"precision": precision}, learn_population=False)
    for model in (dense, held):
        model.fit(batch(0))
    assert_same_predictions(dense, held, batch(8, users=12, tags=40))
