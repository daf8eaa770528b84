"""Effects whose entities hold what they have met: the same as all coefficients at a diagonal population."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sample_events import DAY, START, events_of

import acclimate as ac
import acclimate.interop
from acclimate.errors import ConfigError
from acclimate.learners import mixed, populations
from acclimate.models.population import usual_variance

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
    for place, name, value in ((mixed, "_LOOSE", 1e-10), (mixed, "_SETTLED", 1e-8), (mixed, "_ROUNDS", 100)):
        monkeypatch.setattr(place, name, value)
    for name in ("learn_population", "learn_diagonal_population"):
        monkeypatch.setattr(populations, name, partial(getattr(populations, name), tolerance=1e-10))
    more = [ac.RandomEffect("item", ["x"])]
    effect = {"precision": precision, "half_life": "3d", "min_rows": 6}
    dense, held = pair(effect, fixed=["tags"], more=more, approximation=approximation)
    for model in (dense, held):
        model.fit(batch(0))
    assert_same(dense, held, 1e-3)
    for day in (1, 2):
        events = batch(day, users=9 + day, tags=25 + 5 * day, rows=60, day=day)
        assert_same_predictions(dense, held, events, 1e-3)
        for model in (dense, held):
            model.update(events)
        assert_same(dense, held, 1e-3)


def test_a_population_of_matrices_is_the_likeliest_diagonal_one(monkeypatch):
    """By the marginal likelihood, which is known of numbers: no variance a tenth larger or smaller is better."""
    monkeypatch.setattr(mixed, "_SETTLED", 1e-6)
    held = pair({"precision": "full"}, loss="squared", noise=0.25)[1]
    data = log(0, rows=400)
    held.fit(events_of(SCHEMA, data))
    effect, fixed = held.state.random[0], held.weights()[0][1]
    number = {name: place for place, name in enumerate(effect.index.names)}
    X = np.zeros((400, len(number)))
    X[:, 0] = 1.0
    for row, tags in enumerate(data["tags"]):
        X[row, [number[f"tags={tag}"] for tag in tags]] = 1.0

    def likelihood(C: np.ndarray) -> float:
        total = 0.0
        for user in np.unique(data["user_id"]):
            mine = data["user_id"] == user
            V = (X[mine] * C) @ X[mine].T + np.diag(0.25 / data["weight"][mine])
            away = data["rating"][mine] - fixed - X[mine] @ effect.population.mean
            total -= 0.5 * (np.linalg.slogdet(V)[1] + away @ np.linalg.solve(V, away))
        U = 1.0 / effect.unit.precision
        B, d = 1.0 / C, len(C)
        # The prior of a diagonal population, k = 2 and h = 2.
        t = usual_variance(2.0 * d, 2.0 * float(np.sum(B * U)))
        total -= np.sum(np.log(C / (t * U)) + t * B * U) - 0.5 * np.log(t) + np.log1p(t)
        return total - float(np.sum(B * (effect.population.mean - effect.unit.mean) ** 2))

    C = 1.0 / effect.population.precision
    best = likelihood(C)
    for j in range(len(C)):
        for factor in (0.9, 1.1):
            assert likelihood(np.where(np.arange(len(C)) == j, factor * C, C)) < best


@pytest.mark.parametrize("precision", ["full", "marginal"])
def test_rows_that_are_predicted_over_the_posterior_are_at_the_mean_of_all(precision):
    dense, held = pair({"precision": precision}, learn_population=False)
    for model in (dense, held):
        model.fit(batch(0))
    assert_same_predictions(dense, held, batch(8, users=12, tags=40))


# --- what is stored -----------------------------------------------------------------------------------------


def fitted(*batches: ac.Events, **told: Any) -> ac.GLMix:
    model = pair({}, fixed=["tags"], **told)[1].fit(batches[0])
    for events in batches[1:]:
        model.update(events)
    return model


def held_bytes(model: ac.GLMix, ids: list[int]) -> list[bytes]:
    taken = model.entities.take_sparse("user", np.array(ids))
    return [
        array.tobytes()
        for _, states in taken.pieces
        for array in (states.posterior.mean, states.posterior.precision, states.support)
    ]


def test_an_index_that_grows_touches_nobody_else():
    model = fitted(batch(0))
    others = [user for user in model.entities.ids("user").tolist() if user != 3]
    before, size = held_bytes(model, others), len(model.state.random[0].index)
    data = log(5, rows=20, tags=60, day=2)
    model.update(events_of(SCHEMA, data | {"user_id": np.full(20, 3)}))
    assert len(model.state.random[0].index) > size
    assert held_bytes(model, others) == before


def test_it_does_not_matter_in_what_order_tags_come():
    """Names that come the other way round have other columns, and entities other supports."""
    data = log(0)
    turned = data | {"tags": [tags[::-1] for tags in data["tags"]]}
    order = np.random.default_rng(1).permutation(150)
    shuffled = {
        name: [column[i] for i in order] if name == "tags" else column[order] for name, column in turned.items()
    }
    one, other = (
        fitted(events_of(SCHEMA, columns), batch(1, day=1), learn_population=False) for columns in (data, shuffled)
    )
    for user in range(9):
        (names, posterior, rows), (turned_names, again, count) = (
            model.entity_posterior("user", user) for model in (one, other)
        )
        assert sorted(names) == sorted(turned_names)
        assert rows == count
        at = [turned_names.index(name) for name in names]
        assert_allclose(again.mean[at], posterior.mean, 1e-7, 1e-9)
        assert_allclose(again.precision[np.ix_(at, at)], posterior.precision, 1e-7, 1e-9)


@pytest.mark.parametrize("states", ["float64", "float32"])
def test_what_is_saved_goes_on_as_what_was_not(tmp_path, states):
    model = fitted(batch(0), batch(1, day=1), states=states)
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model")
    assert loaded.nbytes == model.nbytes
    for one in (model, loaded):
        one.update(batch(2, day=2, tags=40))
    for mode in ("point", "integrated", "thompson"):
        events = batch(3, day=3, users=12, tags=50)
        assert (model.predict(events, mode=mode) == loaded.predict(events, mode=mode)).all()


def test_a_warm_start_and_locked_effects():
    model = fitted(batch(0), batch(1, day=1))
    log_of_both = batch(4, day=2, tags=40)
    cold = fitted(log_of_both, learn_population=False)
    warm = fitted(batch(0), learn_population=False).fit(log_of_both, warm_start=True)
    assert_same_users(cold, warm)
    before = held_bytes(model, list(range(9)))
    model.update(batch(2, day=3), locked=["user"])
    assert held_bytes(model, list(range(9))) == before


def assert_same_users(one: ac.GLMix, other: ac.GLMix) -> None:
    for user in one.entities.ids("user").tolist():
        names, posterior, _ = one.entity_posterior("user", user)
        other_names, again, _ = other.entity_posterior("user", user)
        at = [other_names.index(name) for name in names]
        assert_allclose(again.mean[at], posterior.mean, 1e-6, 1e-7)


def test_coefficients_and_states_are_of_what_is_held():
    model = fitted(batch(0), batch(1, day=1))
    table = model.coefficients("user").read_all().to_pylist()
    states, names = model.states("user"), model.state.random[0].index.names
    assert states.ids.tolist() == model.entities.ids("user").tolist()
    for place, user in enumerate(states.ids.tolist()):
        mine = [row for row in table if row["id"] == user]
        held, posterior, rows = model.entity_posterior("user", user)
        assert [row["feature"] for row in mine] == list(held)
        assert_allclose([row["mean"] for row in mine], posterior.mean)
        assert_allclose([row["sd"] for row in mine], posterior.standard_deviation())
        assert [names[column] for column in states.support[place] if column >= 0] == list(held)
        assert_allclose(states.posterior.mean[place][: len(held)], posterior.mean)
        assert states.rows[place] == rows == mine[0]["rows"]
    unseen = model.coefficients("user", [777]).read_all().to_pylist()
    assert [(row["feature"], row["rows"]) for row in unseen] == [("(intercept)", 0)]


def test_who_has_met_very_many_keeps_the_diagonal():
    """70 coefficients of one user, among others of few."""
    data = log(0)
    data["user_id"] = np.where(np.arange(150) < 60, 0, data["user_id"])
    many = [[f"t{(3 * row + k) % 90}" for k in range(3)] for row in range(60)]
    data["tags"] = many + data["tags"][60:]
    model = fitted(events_of(SCHEMA, data), batch(1, day=1))
    assert not model.entity_posterior("user", 0)[1].is_full
    assert model.entity_posterior("user", 1)[1].is_full
    assert model.info.converged
    assert np.isfinite(model.predict(batch(2), mode="integrated")).all()


def test_photon_ml_gets_what_is_held_and_is_read_into_all(tmp_path):
    pytest.importorskip("fastavro")
    model = fitted(batch(0))
    count = ac.interop.write_photon(model, tmp_path / "photon")
    assert count == 1 + 9
    again = ac.interop.read_photon(tmp_path / "photon", pair({}, fixed=["tags"])[0], SCHEMA, until="2022-04-26")
    for user in range(9):
        names, posterior, _ = model.entity_posterior("user", user)
        all_names, whole, _ = again.entity_posterior("user", user)
        assert_allclose(whole.mean[[all_names.index(name) for name in names]], posterior.mean)
    with pytest.raises(ConfigError, match="support 'observed'"):
        ac.interop.read_photon(tmp_path / "photon", model, SCHEMA, until="2022-04-26")
