"""A GLMix of numbers and counts: exact posteriors, the noise, expected labels, and ridges that are learned."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import DAY, START, events_of
from scipy import optimize

import acclimate as ac
from acclimate.errors import ConfigError, ModelError, RowError

LOSSES = {"squared": "number", "poisson": "count"}


def schema_of(kind: str, **more: Any) -> ac.Schema:
    kinds: Any = {} if kind == "binary" else {"y": kind}
    entities = {"user": "user_id", "item": "item_id"}
    features = {"g": ac.Feature(kind="categorical")}
    return ac.Schema(time="time", entities=entities, labels="y", label_kinds=kinds, features=features, **more)


def rows_of(loss: str, *, users: int = 60, rows: int = 8, seed: int = 0, day: int = 0) -> dict[str, Any]:
    """Users of level ``N(0, .5)``, items of ``N(0, .3)``, a slope of .4; noise of variance .25 around numbers."""
    rng, items = np.random.default_rng([seed, day]), 20
    world = np.random.default_rng(99)
    level, quality = 0.5**0.5 * world.normal(size=users), 0.3**0.5 * world.normal(size=items)
    user = np.repeat(np.arange(users), rows)
    item, x = rng.integers(0, items, len(user)), rng.normal(size=len(user))
    z = 0.5 + 0.4 * x + level[user] + quality[item]
    y = z + 0.5 * rng.normal(size=len(z)) if loss == "squared" else rng.poisson(np.exp(z)).astype(float)
    time = START + day * DAY + np.arange(len(user))
    return {"time": time, "user_id": user, "item_id": item, "x": x, "y": y, "g": item % 3}


def events(loss: str, columns: dict[str, Any], **more: Any) -> ac.Events:
    return events_of(schema_of(LOSSES[loss], **more), columns)


def model_of(loss: str, **more: Any) -> ac.GLMix:
    return ac.GLMix(**({"fixed": ["x"], "random": ["user", "item"], "loss": loss} | more))


# --- exact where losses are squared ------------------------------------------------------------------------


def linear(parts: list[dict[str, Any]], **more: Any) -> ac.GLMix:
    model = ac.GLMix(fixed=["x"], loss="squared", noise=0.3, tolerance=1e-12, **more)
    for k, part in enumerate(parts):
        model = model.update(events("squared", part)) if k else model.fit(events("squared", part))
    return model


def test_a_fixed_effect_alone_is_bayesian_linear_regression():
    """``H = P + X'X/v`` and ``H m = P m0 + X'y/v``, the ridge in units of the labels' variance."""
    data = rows_of("squared")
    model, y, x = linear([data]), data["y"], data["x"]
    c, s = x.mean(), x.std()
    # Standardised, (x - c)/s, a ridge of 1/var(y) around the labels' mean.
    T = np.array([[1.0, -c / s], [0.0, 1.0 / s]])
    X = np.column_stack([np.ones_like(x), x])
    P = np.linalg.inv(T @ T.T * y.var())
    H = P + X.T @ X / 0.3
    mean = np.linalg.solve(H, P @ [y.mean(), 0.0] + X.T @ y / 0.3)
    posterior = model.state.fixed_posterior.at(0)
    assert_allclose(posterior.mean, mean, atol=1e-10)
    assert_allclose(posterior.precision, H, rtol=1e-10)
    assert model.noise == 0.3
    for mode in ("point", "integrated"):
        assert_allclose(model.predict(events("squared", data), mode=mode), X @ mean, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 3), min_size=60, max_size=60), order=st.randoms(use_true_random=False))
def test_updates_of_numbers_are_one_fit_however_they_are_cut(cuts, order):
    first, rest = rows_of("squared", users=10, rows=6), rows_of("squared", users=10, rows=6, day=1)
    cut = np.array(cuts)
    parts = [{name: column[cut == c] for name, column in rest.items()} for c in np.unique(cut)]
    order.shuffle(parts)
    pieces = linear([first, *parts])
    shuffled = np.array(order.sample(range(60), 60))
    whole = linear([first, {name: column[shuffled] for name, column in rest.items()}])
    assert_allclose(pieces.state.fixed_posterior.mean, whole.state.fixed_posterior.mean, atol=1e-9)
    assert_allclose(pieces.state.fixed_posterior.precision, whole.state.fixed_posterior.precision, rtol=1e-9)


def test_entities_of_numbers_are_the_joint_posterior_of_all():
    """Fixed and random effects against the linear system written out; posteriors are those of the noise."""
    data = rows_of("squared", users=5, rows=6)
    model = model_of("squared", noise=0.4, learn_population=False, tolerance=1e-12).fit(events("squared", data))
    y, n = data["y"], len(data["y"])
    c, s = data["x"].mean(), data["x"].std()
    X = np.zeros((n, 2 + 5 + 20))
    X[:, 0], X[:, 1] = 1.0, (data["x"] - c) / s
    X[np.arange(n), 2 + data["user_id"]] = 1.0
    X[np.arange(n), 7 + data["item_id"]] = 1.0
    P, m0 = np.eye(27) / y.var(), np.zeros(27)
    m0[0] = y.mean()
    H = P + X.T @ X / 0.4
    mean = np.linalg.solve(H, P @ m0 + X.T @ y / 0.4)
    assert_allclose(model.predict(events("squared", data)), X @ mean, atol=1e-9)
    states = model.states("user")
    assert_allclose(states.posterior.mean[:, 0], mean[2:7][states.ids], atol=1e-9)
    assert_allclose(states.posterior.precision[:, 0, 0], 6 / 0.4 + 1 / y.var(), rtol=1e-10)


# --- the noise ---------------------------------------------------------------------------------------------


def likeliest(data: dict[str, Any]) -> tuple[float, float]:
    """Noise and variance of users' levels by restricted maximum likelihood, the marginal density maximised."""
    y = data["y"]
    Z = (data["user_id"][:, None] == np.unique(data["user_id"])).astype(float)
    X = np.column_stack([np.ones(len(y)), data["x"]])

    def loss(log_variances: np.ndarray) -> float:
        noise, level = np.exp(log_variances)
        V = noise * np.eye(len(y)) + level * Z @ Z.T
        W = np.linalg.inv(V)
        XWX = X.T @ W @ X
        r = y - X @ np.linalg.solve(XWX, X.T @ W @ y)
        return np.linalg.slogdet(V)[1] + np.linalg.slogdet(XWX)[1] + r @ W @ r

    found = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    noise, level = np.exp(found.x)
    return float(noise), float(level)


@pytest.mark.parametrize(("users", "rows"), [(60, 3), (30, 10), (12, 40)])
def test_noise_and_variance_are_those_of_restricted_maximum_likelihood(users, rows):
    """But for the weak prior of a population, and two coefficients of the fixed effect that users share."""
    data = rows_of("squared", users=users, rows=rows, seed=3)
    noise, level = likeliest(data)
    model = ac.GLMix(fixed=["x"], random=["user"], loss="squared").fit(events("squared", data))
    assert_allclose(model.noise, noise, rtol=2.5 / (users * rows - users))
    learned = model.state.random[0].population.covariance()[0, 0]
    assert_allclose(learned, level, rtol=4.0 / users)


def test_the_noise_of_a_fixed_effect_alone_is_the_residuals_over_the_rows_left():
    data = rows_of("squared", users=10)
    model = ac.GLMix(fixed=ac.FixedEffect(["x"], ridge=1e-9), loss="squared", tolerance=1e-10)
    model.fit(events("squared", data))
    X = np.column_stack([np.ones(80), data["x"]])
    residual = data["y"] - X @ np.linalg.lstsq(X, data["y"])[0]
    assert_allclose(model.noise, residual @ residual / 78, rtol=1e-6)
    assert_allclose(model.state.noise.rows, 78, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1000.0])
def test_labels_in_other_units_are_learned_alike(scale):
    data = rows_of("squared")
    other = data | {"y": scale * data["y"] + 7.0 * scale}
    options = {"fixed": ac.FixedEffect(["x"], ridge="learned"), "tolerance": 1e-8}
    one, two = (model_of("squared", **options).fit(events("squared", d)) for d in (data, other))
    assert_allclose(two.noise, scale**2 * one.noise, rtol=1e-7)
    assert_allclose(two.ridges["x"], one.ridges["x"], rtol=1e-6)
    predicted = [model.predict(events("squared", data)) for model in (one, two)]
    assert_allclose(predicted[1], scale * predicted[0] + 7.0 * scale, rtol=1e-6, atol=1e-8 * scale)


def test_updates_follow_the_noise_and_are_near_one_fit():
    parts = [rows_of("squared", users=40, rows=4, seed=5, day=day) for day in range(6)]
    model = model_of("squared").fit(events("squared", parts[0]))
    for part in parts[1:]:
        model.update(events("squared", part))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    anew = model_of("squared").fit(events("squared", whole))
    assert_allclose(model.noise, anew.noise, rtol=0.05)
    assert_allclose(model.state.noise.rows, anew.state.noise.rows, rtol=0.1)
    assert_allclose(anew.noise, 0.25, rtol=0.15)


def test_what_is_forgotten_of_the_noise_makes_room_for_what_is_new():
    def noisy(day: int, sd: float) -> ac.Events:
        y = np.random.default_rng(day).normal(size=480)
        return events("squared", rows_of("squared", seed=6, day=day) | {"y": sd * (y - y.mean()) / y.std()})

    found = []
    for forgetting in (1.0, 0.2):
        model = ac.GLMix(fixed=ac.FixedEffect(["x"], forgetting=forgetting), loss="squared").fit(noisy(0, 1.0))
        found.append(model.update(noisy(1, 3.0)).noise)
    assert_allclose(found, [(1 + 9) / 2, (0.2 + 9) / 1.2], rtol=0.02)


def test_weights_are_rows_in_the_noise_too():
    data = rows_of("squared", users=20)
    times = 1 + np.arange(160) % 3
    heavy = events("squared", data | {"w": times.astype(float)}, weight="w")
    many = events("squared", {name: np.repeat(column, times) for name, column in data.items()})
    one, other = (model_of("squared", tolerance=1e-8).fit(log) for log in (heavy, many))
    assert_allclose(one.noise, other.noise, rtol=0.01)
    assert_allclose(one.state.noise.rows, other.state.noise.rows, rtol=0.01)


@pytest.mark.parametrize("value", [0.0, 3.5, -1e6])
def test_labels_that_are_all_the_same_leave_no_noise_and_break_nothing(value):
    data = rows_of("squared", users=10)
    log = events("squared", data | {"y": np.full(80, value)})
    model = model_of("squared").fit(log).update(events("squared", rows_of("squared", users=10, day=1)))
    assert 0.0 < model.noise < np.inf
    assert np.isfinite(model.predict(log)).all()


def test_counts_that_scatter_more_than_a_poisson_law_are_trusted_less():
    """Each row counts over its size of noise, in the posteriors and in what is learned of the populations."""
    data = rows_of("poisson", users=200, rows=10)
    rng, plain = np.random.default_rng(3), model_of("poisson").fit(events("poisson", data))
    assert_allclose(plain.noise, 1.0, atol=0.08)
    mean = plain.predict(events("poisson", data))
    four = data | {"y": 4.0 * rng.poisson(mean / 4.0)}  # of the same mean and four times its variance
    learned, fixed = (model_of("poisson", **more).fit(events("poisson", four)) for more in ({}, {"noise": 1.0}))
    assert_allclose(learned.noise, 4.0, rtol=0.15)
    lost = [
        np.mean((np.log(one.predict(events("poisson", four))) - np.log(mean)) ** 2) for one in (learned, fixed)
    ]
    assert lost[0] < 0.9 * lost[1]
    assert "noise: " in learned.summary()[-1]
    assert fixed.noise == 1.0


def test_the_noise_of_counts_is_pearsons_statistic_over_the_rows_left():
    data = rows_of("poisson", users=10)
    model = ac.GLMix(fixed=ac.FixedEffect(["x"], ridge=1e-9), loss="poisson", tolerance=1e-10)
    p = model.fit(events("poisson", data)).predict(events("poisson", data))
    assert_allclose(model.noise, np.sum((data["y"] - p) ** 2 / p) / 78, rtol=0.01)


# --- expected labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("approximation", ["laplace", "variational"])
def test_counts_and_their_populations_are_recovered(approximation):
    data = rows_of("poisson", users=400, rows=6)
    model = model_of("poisson", approximation=approximation).fit(events("poisson", data))
    assert model.info.converged
    world = np.random.default_rng(99)
    level = 0.5**0.5 * world.normal(size=400)
    assert_allclose(model.state.random[0].population.covariance()[0, 0], level.var(), rtol=0.2)
    assert_allclose(model.weights()[1][1], 0.4, atol=0.05)
    expected = model.predict(events("poisson", data), mode="integrated")
    assert_allclose(expected.sum() / data["y"].sum(), 1.0, atol=0.07 if approximation == "laplace" else 0.02)


def test_a_count_integrated_is_that_at_half_a_variance_more():
    data = rows_of("poisson")
    model, log = model_of("poisson").fit(events("poisson", data)), events("poisson", data)
    point, integrated = model.predict(log), model.predict(log, mode="integrated")
    sd = {name: model.states(name).posterior.standard_deviation()[:, 0] for name in ("user", "item")}
    X = np.column_stack([np.ones(len(point)), data["x"]])
    fixed = np.vecdot(X @ model.state.fixed_posterior.at(0).covariance(), X)
    order = {name: np.argsort(model.states(name).ids) for name in sd}
    variance = fixed + sum(sd[name][order[name]][data[f"{name}_id"]] ** 2 for name in sd)
    assert_allclose(integrated, point * np.exp(0.5 * variance), rtol=1e-9)
    draws = [model.predict(log, mode="thompson", seed=seed) for seed in range(400)]
    assert_allclose(np.mean(draws, axis=0), integrated, rtol=0.25)


def test_the_offset_of_a_count_is_the_logarithm_of_its_exposure():
    data = rows_of("poisson")
    exposure = np.random.default_rng(1).uniform(0.1, 10.0, len(data["y"]))
    y = np.random.default_rng(2).poisson(2.0 * exposure).astype(float)
    log = events("poisson", data | {"y": y, "o": np.log(exposure)}, offset="o")
    model = ac.GLMix(fixed=ac.FixedEffect(ridge=1e-9), loss="poisson", tolerance=1e-9).fit(log)
    assert_allclose(np.exp(model.weights()[0][1]), y.sum() / exposure.sum(), rtol=1e-6)
    assert_allclose(model.predict(log), exposure * y.sum() / exposure.sum(), rtol=1e-6)
    with pytest.raises(ModelError, match="no count of 480 of 480 rows"):
        model.predict(events("poisson", data | {"y": y, "o": np.full(480, 1e4)}, offset="o"))


OPTIONS: dict[str, dict[str, Any]] = {
    "caps": {"random": [ac.RandomEffect("user", "x", max_rows=4), ac.RandomEffect("item", max_rows=9)]},
    "waits": {"random": [ac.RandomEffect("user", min_rows=9), "item"]},
    "fades": {"random": [ac.RandomEffect("user", half_life="1d"), "item"]},
    "forgets": {"random": [ac.RandomEffect("user", "x", forgetting=0.8, precision="diagonal")]},
    "wide": {"fixed": ac.FixedEffect(["x", "g"], precision="diagonal", ridge="learned")},
    "marginal": {"fixed": ac.FixedEffect(["x", "g"], precision="marginal", ridge="learned")},
    "locked": {},
    "float32": {"states": "float32"},
    "separate": {"fixed": [], "random": ["user"]},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_option_goes_with_every_loss(loss, option, tmp_path):
    """What is learned beats the mean, the order of rows says nothing, and it is saved and goes on as it was."""
    data, later = rows_of(loss), rows_of(loss, day=1)
    locked = ["fixed"] if option in ("locked", "separate") else []
    model = model_of(loss, **OPTIONS[option]).fit(events(loss, data))
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model").update(events(loss, later), locked=locked)
    order = np.random.default_rng(0).permutation(len(later["y"]))
    shuffled = {name: column[order] for name, column in later.items()}
    model.update(events(loss, shuffled), locked=locked)
    assert model.info.converged
    new = rows_of(loss, day=2)
    p = model.predict(events(loss, new))
    assert_allclose(loaded.predict(events(loss, new)), p, rtol=1e-4)
    assert np.mean((p - new["y"]) ** 2) < 0.8 * np.var(new["y"])
    assert loaded.ridges == model.ridges
    assert_allclose(loaded.noise, model.noise, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_loss_is_an_offset_of_another_learner_of_the_same(loss):
    data = events(loss, rows_of(loss) | {"time": START + np.arange(480) * DAY // 100})
    top = ac.GLMix(random=["item"], loss=loss, offset="below").parameters
    below = ac.GLMix(fixed=["x"], random=["user"], loss=loss)
    stack = ac.Stack(top, {"below": below}).fit(data)
    z = {"squared": lambda p: p, "poisson": np.log}[loss]
    levels = z(stack.predict(data)) - z(stack.members["below"].predict(data))
    by_item = {item: levels[rows_of(loss)["item_id"] == item] for item in range(20)}
    assert all(np.ptp(one) < 1e-9 for one in by_item.values())
    with pytest.raises(ConfigError, match="has loss 'logistic' and the learner on top"):
        ac.Stack(top, {"below": ac.GLMix(fixed=["x"])})
    with pytest.raises(ConfigError, match=f"a learner of loss '{loss}' gives no probabilities"):
        ac.Calibrated(below)


# --- ridges that are learned -------------------------------------------------------------------------------


def test_a_learned_ridge_is_the_likeliest_one():
    """Of a fixed effect alone, whose marginal likelihood is known: but for the weak prior of the variance."""
    rng, levels = np.random.default_rng(0), 40
    w, g = 0.6 * rng.normal(size=levels), rng.integers(0, 40, 600)
    data = {"time": START + np.arange(600), "user_id": g, "item_id": g, "g": g, "y": w[g] + rng.normal(size=600)}
    Z = (g[:, None] == np.arange(levels)).astype(float)

    def loss(log_variance: float) -> float:
        V = np.eye(600) + np.exp(log_variance) * Z @ Z.T + data["y"].var() * np.ones((600, 600))
        r = data["y"] - data["y"].mean()
        return np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)

    best = np.exp(-optimize.minimize_scalar(loss, bounds=(-6, 3), method="bounded").x) * data["y"].var()
    model = ac.GLMix(fixed=ac.FixedEffect(["g"], ridge="learned"), loss="squared", noise=1.0, tolerance=1e-6)
    model.fit(events("squared", data))
    assert_allclose(model.ridges["g"], best, rtol=0.05)
    prior = model.state.fixed.population.precision
    assert_allclose(np.diag(prior)[1:] * data["y"].var(), model.ridges["g"], rtol=1e-9)
    assert_allclose(prior[0, 0] * data["y"].var(), 1.0, rtol=1e-9)  # that of the intercept is not learned


def wide_world(seed: int, n: int) -> tuple[dict[str, Any], np.ndarray]:
    rng, world = np.random.default_rng(seed), np.random.default_rng(7)
    strong, weak = world.normal(0.0, 1.0, 100), world.normal(0.0, 0.05, 100)
    a, b, x = rng.integers(0, 100, n), rng.integers(0, 100, n), rng.normal(size=n)
    p = 1 / (1 + np.exp(0.5 - strong[a] - weak[b] - 0.3 * x))
    columns = {"time": START + np.arange(n), "user_id": a % 7, "item_id": b % 5, "g": a, "h": b, "x": x}
    return columns | {"y": (rng.random(n) < p).astype(int)}, p


def test_each_feature_has_a_ridge_of_its_own_and_no_single_one_is_as_good(tmp_path):
    schema = ac.Schema(
        time="time",
        entities={"user": "user_id", "item": "item_id"},
        labels="y",
        features={name: ac.Feature(kind="categorical") for name in "gh"},
    )
    (train, _), (test, p) = wide_world(0, 2000), wide_world(1, 4000)
    losses = {}
    for ridge in (0.3, 1.0, 3.0, 10.0, "learned"):
        model = ac.GLMix(fixed=ac.FixedEffect(["g", "h", "x"], ridge=ridge), random=["user"])
        q = model.fit(events_of(schema, train)).predict(events_of(schema, test))
        losses[ridge] = -np.mean(p * np.log(q) + (1 - p) * np.log(1 - q))
    assert losses["learned"] < min(loss for ridge, loss in losses.items() if ridge != "learned")
    ridges = model.ridges
    assert list(ridges) == ["g", "h", "x"]
    drawn = np.random.default_rng(7).normal(0.0, 1.0, 100)
    assert_allclose(ridges["g"], 1.0 / np.mean(drawn**2), rtol=0.4)
    assert ridges["h"] > 20.0
    assert any("ridges of the fixed effect: g " in line for line in model.summary())
    # An update keeps them, for levels that it brings too, and so does a saved model.
    model.save(tmp_path / "model")
    later = {**train, "g": train["g"] + 50, "time": train["time"] + DAY}
    model.update(events_of(schema, later))
    assert model.ridges == ridges
    prior = dict(zip(model.state.fixed.index.names, np.diag(model.state.fixed.population.precision), strict=True))
    assert_allclose(prior["g=120"], ridges["g"], rtol=1e-6)
    loaded = ac.GLMix.load(tmp_path / "model")
    assert loaded.ridges == ridges
    assert_array_equal(
        loaded.update(events_of(schema, later)).predict(events_of(schema, test)),
        model.predict(events_of(schema, test)),
    )


def test_few_coefficients_do_not_run_away():
    data = rows_of("squared")
    for y in (1000.0 * data["x"], np.sign(data["x"]), 0.0 * data["x"] + np.arange(480) % 2):
        log = events("squared", data | {"y": y})
        model = ac.GLMix(fixed=ac.FixedEffect(["x"], ridge="learned"), loss="squared").fit(log)
        assert 0.05 < model.ridges["x"] < 1e4


# --- what is refused ---------------------------------------------------------------------------------------


def test_labels_and_losses_have_to_go_together():
    numbers, counts = (events(loss, rows_of(loss)) for loss in LOSSES)
    with pytest.raises(ConfigError, match=r"label 'y' is a number, .* takes 0 and 1") as told:
        ac.GLMix().fit(numbers)
    assert "loss: squared" in str(told.value.hint)
    with pytest.raises(ConfigError, match=r"label 'y' is a count, .* takes 0 and 1") as told:
        ac.GLMix().fit(counts)
    assert "loss: poisson" in str(told.value.hint)
    with pytest.raises(ConfigError, match="takes counts"):
        ac.GLMix(loss="poisson").fit(numbers)
    ac.GLMix(loss="squared").fit(counts)
    with pytest.raises(ConfigError, match="'noise' is of numbers and counts, and the loss is 'logistic'"):
        ac.GLMix(noise=1.0)
    with pytest.raises(ConfigError, match="should be 'logistic', 'squared' or 'poisson'"):
        ac.GLMix(loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'label_kinds' has 'z', which is none of the labels"):
        ac.Schema(time="time", entities="user_id", labels="y", label_kinds={"z": "number"})


@pytest.mark.parametrize(("kind", "value", "what"), [("count", 1.5, "no count"), ("number", np.inf, "not finite")])
def test_labels_that_are_none_of_their_kind_are_told(kind, value, what):
    data = rows_of("poisson", users=2)
    data["y"][3] = value
    with pytest.raises(RowError, match=f"column 'y' is {what}"):
        events_of(schema_of(kind), data).table()
    data["y"][3] = -1.0
    if kind == "count":
        with pytest.raises(RowError, match="no count"):
            events_of(schema_of(kind), data).table()
    data["y"][3] = np.nan  # not known
    assert events_of(schema_of(kind), data).count(known="y") == 15


@pytest.mark.parametrize(
    "learner",
    [
        ac.SequentialLaplace(features=["x"]),
        ac.MetaRanker(features=["x"], blocks={"user": {"entity": "user", "features": ["x"]}}),
        ac.Calibrated(ac.GLMix()),
        ac.GLMix(),
    ],
    ids=lambda learner: learner.kind,
)
def test_learners_for_labels_of_0_and_1_refuse_numbers_before_they_learn(learner):
    with pytest.raises(ConfigError, match=r"label 'y' is a number, .* takes 0 and 1"):
        learner.fit(events("squared", rows_of("squared")))


def test_rates_are_mean_labels():
    data = rows_of("squared")
    log = events("squared", data)
    assert_allclose(ac.GlobalRate().fit(log).predict(log), data["y"].mean())
    rate, own = ac.Rate("user", prior_rows=5.0).fit(log).predict(log), data["user_id"] == 3
    assert_allclose(rate[own], (data["y"][own].sum() + 5.0 * data["y"].mean()) / (own.sum() + 5.0))
    none = ac.GlobalRate().fit(events("squared", data | {"y": np.full(480, np.nan)}))
    assert_array_equal(none.predict(log), 0.0)
