"""Fitting a GLMix: the joint optimum, the population, locks, warm starts, bounds on rows."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, events_of
from scipy import optimize
from scipy.special import expit, logit

import acclimate as ac
from acclimate.errors import ConfigError, DataError, NotFittedError
from acclimate.features import FeatureIndex
from acclimate.learners import batch as batches
from acclimate.learners.batch import Batch, Layout, read_batch, sample_rows

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "video": "video_id"},
    labels=["click", "like"],
    weight="w",
    offset="o",
)
PLAIN = dataclasses.replace(SCHEMA, weight=None, offset=None)


def log(*, rows: int = 300, seed: int = 0, users: int = 9, videos: int = 6) -> dict[str, Any]:
    """Events in which users differ in level and in their taste for ``x``; all columns are known."""
    rng = np.random.default_rng(seed)
    user, video = rng.integers(0, users, rows), rng.integers(0, videos, rows)
    x = rng.normal(5.0, 2.0, rows)
    z = -0.5 + np.sin(user) + 0.4 * (x - 5.0) * np.cos(user) + 0.5 * np.cos(2.0 * video)
    return {
        "user_id": user,
        "video_id": video,
        "x": x,
        "genre": np.array(["drama", "news", "sport"])[rng.integers(0, 3, rows)],
        "click": (rng.random(rows) < expit(z)).astype(int),
        "like": rng.integers(0, 2, rows),
        "w": rng.uniform(0.5, 2.0, rows),
        "o": rng.normal(0.0, 0.5, rows),
    }


def fitted(events: ac.Events, *, tolerance: float = 1e-9, **kwargs: Any) -> ac.GLMix:
    model = ac.GLMix(
        fixed=ac.FixedEffect(["x", "genre"], ridge=2.0),
        random=[ac.RandomEffect("user", ["x"], ridge=1.5), ac.RandomEffect("video", ["genre"])],
        learn_population=kwargs.pop("learn_population", False),
        tolerance=tolerance,
    )
    return model.fit(events, **kwargs)


def population(model: ac.GLMix, effect: int = 1) -> ac.Posterior:
    assert model.state is not None
    return model.state.effects[effect].base


# --- the joint optimum --------------------------------------------------------------------------------------


def minimum(objective: Any, size: int) -> np.ndarray:
    """Where a smooth convex function ``w -> (value, gradient, hessian)`` has its minimum."""
    w = np.zeros(size)
    found = optimize.minimize(
        lambda v: objective(v)[0],
        w,
        jac=lambda v: objective(v)[1],
        hess=lambda v: objective(v)[2],
        method="trust-exact",
        options={"gtol": 1e-11},
    )
    assert np.abs(objective(found.x)[1]).max() < 1e-7
    return found.x


def test_fit_finds_the_joint_optimum():
    """The reference is one dense problem: standardised columns, a ridge on each coefficient, solved by scipy."""
    data = log()
    n, w, y = len(data["x"]), data["w"], data["click"]
    centre = np.average(data["x"], weights=w)
    scale = np.sqrt(np.average((data["x"] - centre) ** 2, weights=w))
    x = (data["x"] - centre) / scale
    one = np.ones((n, 1))
    genre = (data["genre"][:, None] == np.unique(data["genre"])).astype(float)
    user, video = (data[c][:, None] == np.arange(data[c].max() + 1) for c in ("user_id", "video_id"))
    fixed = np.hstack([one, x[:, None], genre])
    of_user = np.hstack([user, user * x[:, None]])
    of_video = np.hstack([video * column[:, None] for column in np.hstack([one, genre]).T])
    X = np.hstack([fixed, of_user, of_video])
    ridge = np.repeat([2.0, 1.5, 1.0], [fixed.shape[1], of_user.shape[1], of_video.shape[1]])
    rate = (w @ y + 0.5) / (w.sum() + 1.0)
    centre_of_prior = np.zeros(X.shape[1])
    centre_of_prior[0] = logit(rate)

    def objective(v):
        z, away = X @ v + data["o"], v - centre_of_prior
        p = expit(z)
        value = w @ (np.logaddexp(0.0, z) - y * z) + 0.5 * ridge @ away**2
        return value, X.T @ (w * (p - y)) + ridge * away, (X.T * (w * p * (1.0 - p))) @ X + np.diag(ridge)

    v = minimum(objective, X.shape[1])
    events = events_of(SCHEMA, data)
    model = fitted(events)
    assert model.info.converged
    assert_allclose(model.predict(events), expit(X @ v + data["o"]), rtol=0, atol=1e-8)

    # The posterior precision is that of the block alone; both are told in raw units, w = B v.
    p = expit(X @ v + data["o"])
    B = np.eye(5)
    B[1, 1] = 1.0 / scale
    B[0, 1] = -centre / scale
    covariance = B @ np.linalg.inv((fixed.T * (w * p * (1 - p))) @ fixed + 2.0 * np.eye(5)) @ B.T
    weights = {name: (mean, sd) for name, mean, sd in model.weights()}
    names = ("(intercept)", "x", "genre=drama", "genre=news", "genre=sport")
    assert_allclose([weights[name][0] for name in names], B @ v[:5], rtol=0, atol=1e-7)
    assert_allclose([weights[name][1] for name in names], np.sqrt(np.diag(covariance)), rtol=1e-7)


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
def test_the_unit_of_a_column_does_not_matter(precision):
    def model(scale: float, shift: float) -> np.ndarray:
        data = log()
        events = events_of(PLAIN, {**data, "x": data["x"] * scale + shift})
        of = {"precision": precision}
        learner = ac.GLMix(
            fixed=ac.FixedEffect("x", **of), random=[ac.RandomEffect("user", "x", **of)], tolerance=1e-9
        )
        return learner.fit(events).update(events).predict(events)

    assert_allclose(model(1000.0, 0.0), model(1.0, 0.0), rtol=0, atol=1e-8)
    if precision == "full":  # a diagonal cannot carry the covariance with the intercept that a shift brings
        assert_allclose(model(1000.0, -300.0), model(1.0, 0.0), rtol=0, atol=1e-7)


def test_the_ridge_shrinks():
    events = events_of(PLAIN, log())

    def spread(ridge: float) -> float:
        effect = ac.RandomEffect("user", ridge=ridge)
        model = ac.GLMix(random=[effect], learn_population=False, tolerance=1e-9).fit(events)
        return float(np.ptp([model.entity_posterior("user", u)[1].mean[0] for u in range(9)]))

    assert spread(0.1) > 1.5 * spread(10.0) > 3.0 * spread(1000.0) > 0.0


def test_the_prior_of_the_intercept_is_the_base_rate():
    """A heavy ridge pulls to the log-odds of the label, not to one half."""
    data = {**log(), "click": [1] * 30 + [0] * 270}
    events = events_of(PLAIN, data)
    model = ac.GLMix(fixed=ac.FixedEffect("x", ridge=1e6)).fit(events)
    assert_allclose(model.predict(events), 30.5 / 301, rtol=1e-3)


def test_each_label_has_its_own_model():
    events = events_of(PLAIN, log())
    first, second = ac.GLMix().fit(events), ac.GLMix(label="like").fit(events)
    table = events.table()
    for model, label in ((first, "click"), (second, "like")):
        rate = table[label].to_numpy().mean()
        assert_allclose(model.predict(events), rate, atol=1e-3)
    assert abs(first.predict(events)[0] - second.predict(events)[0]) > 0.01


def test_an_offset_is_part_of_the_margin():
    """One offset of all rows moves the intercept alone, and the margin of rows that have another."""
    data, schema = log(), dataclasses.replace(PLAIN, offset="o")
    free = ac.GLMix(fixed=ac.FixedEffect(["x", "genre"], ridge=1e-9), tolerance=1e-10)
    expected = free.fit(events_of(PLAIN, data)).predict(events_of(PLAIN, data))
    moved = free.fit(events_of(schema, {**data, "o": np.full(300, 0.7)}))
    for offset in (0.7, 3.0):
        p = moved.predict(events_of(schema, {**data, "o": np.full(300, offset)}))
        assert_allclose(logit(p), logit(expected) + offset - 0.7, rtol=0, atol=1e-5)


def test_margins_of_any_size_stay_finite():
    schema = dataclasses.replace(PLAIN, offset="o")
    events = events_of(schema, {**log(), "o": np.resize([1e4, -1e4, 0.0], 300)})
    model = fitted(events)
    p = model.predict(events, mode="integrated")
    assert np.all((p >= 0.0) & (p <= 1.0))
    assert np.all(np.isfinite([mean for _, mean, _ in model.weights()]))


def test_entities_of_one_class_shrink_to_the_population():
    data = log(users=3)
    data["click"] = np.where(data["user_id"] == 0, 1, np.where(data["user_id"] == 1, 0, data["click"]))
    events = events_of(PLAIN, data)
    model = fitted(events)
    assert model.info.converged
    assert all(len(ids) == 0 for ids in model.info.unsettled.values())
    always, never = (model.entity_posterior("user", user)[1] for user in (0, 1))
    p = {user: model.predict(events)[events.table()["user_id"].to_numpy() == user].mean() for user in (0, 1)}
    assert 0.8 < p[0] < 1.0
    assert 0.0 < p[1] < 0.2
    for posterior in (always, never):
        assert np.all(np.isfinite(posterior.mean))
        assert np.abs(posterior.mean).max() < 10.0
        assert np.linalg.eigvalsh(posterior.precision).min() > 0.0


def test_each_entity_says_whether_it_converged():
    events = events_of(PLAIN, log())
    model = ac.GLMix(random=[ac.RandomEffect("user")], learn_population=False, max_steps=0).fit(events)
    assert not model.info.converged
    assert model.info.decrement > 1.0
    assert set(model.info.unsettled["user"].to_pylist()) <= set(range(9))
    assert len(model.info.unsettled["user"]) > 4
    assert all(len(ids) == 0 for ids in fitted(events).info.unsettled.values())


# --- pieces, warm starts, locks -----------------------------------------------------------------------------


def test_reading_piece_by_piece_changes_nothing(monkeypatch):
    events = events_of(SCHEMA, log()).cached()
    whole = fitted(events)
    monkeypatch.setattr(batches, "_PIECE_ROWS", 7)
    cut = ac.Events(SCHEMA, _Pieces(events.source, rows=3))
    pieces = fitted(cut)
    assert set(pieces.state.effects[0].index.names) == set(whole.state.effects[0].index.names)
    assert_allclose(pieces.predict(cut), whole.predict(events), rtol=0, atol=1e-9)
    assert pieces.info.rows == whole.info.rows == 300


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """A source that hands its rows out a few at a time."""

    source: Any
    rows: int

    def columns(self) -> pa.Schema:
        return self.source.columns()

    def scan(self, columns: Any, start: int | None, end: int | None) -> pa.RecordBatchReader:
        table = self.source.scan(columns, start, end).read_all()
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=self.rows))

    def describe(self, start: int | None, end: int | None) -> Any:
        return self.source.describe(start, end)


def test_a_warm_start_reaches_the_same_optimum_sooner():
    events, more = events_of(SCHEMA, log(rows=250)), events_of(SCHEMA, log(rows=300))
    cold = fitted(more)
    model = fitted(events)
    model.fit(more, warm_start=True)
    assert_allclose(model.predict(more), cold.predict(more), rtol=0, atol=1e-8)
    assert_allclose([w[1:] for w in sorted(model.weights())], [w[1:] for w in sorted(cold.weights())], rtol=1e-6)
    model.fit(more, warm_start=True)
    assert model.info.steps == 0 < cold.info.steps


def test_a_warm_start_learns_about_the_same_population():
    events = events_of(PLAIN, log(rows=2000, users=80))
    cold = fitted(events, learn_population=True)
    variances = population(cold).covariance().diagonal()
    cold.fit(events, warm_start=True)
    assert_allclose(population(cold).covariance().diagonal(), variances, rtol=0.1)


def test_locked_effects_stay_as_they_are_and_act_as_offsets_in_a_fit():
    first, second = log(seed=1), log(seed=2)
    model = fitted(events_of(SCHEMA, first))
    users = model.state.effects[1]
    model.fit(events_of(SCHEMA, second), locked=["user"])
    assert model.state.effects[1] is users

    # The same with the locked effect's margin written into the offset.
    data = dict(second)
    rows = [users.posteriors_of(pa.array([u])).mean[0] for u in second["user_id"].tolist()]
    assert users.index.names == ("(intercept)", "x")
    data["o"] = second["o"] + [m[0] + m[1] * x for m, x in zip(rows, second["x"], strict=True)]
    other = ac.GLMix(
        fixed=ac.FixedEffect(["x", "genre"], ridge=2.0),
        random=[ac.RandomEffect("video", ["genre"])],
        learn_population=False,
        tolerance=1e-9,
    ).fit(events_of(SCHEMA, data))
    assert {name for name, *_ in model.weights()} == {name for name, *_ in other.weights()}
    assert_allclose(
        [w[1:] for w in sorted(model.weights())], [w[1:] for w in sorted(other.weights())], rtol=0, atol=1e-7
    )


def test_a_locked_fixed_effect_is_not_learned():
    model = fitted(events_of(SCHEMA, log(seed=1)))
    fixed = model.weights()
    model.fit(events_of(SCHEMA, log(seed=2)), locked=["fixed"])
    assert model.weights() == fixed


def test_a_lock_or_a_warm_start_needs_a_fit_before():
    events = events_of(PLAIN, log(rows=20))
    for wish in ({"warm_start": True}, {"locked": ["user"]}):
        with pytest.raises(NotFittedError):
            fitted(events, **wish)


def test_nothing_changes_where_nothing_is_left_to_learn():
    """The fixed effect is locked, and no user has rows enough."""
    model = ac.GLMix(fixed=ac.FixedEffect("x"), random=[ac.RandomEffect("user", min_rows=50)])
    events = events_of(PLAIN, log(users=2))
    model.fit(events)
    p, few = model.predict(events), events_of(PLAIN, log(rows=20, users=20))
    model.update(few, locked=["fixed"])
    assert_array_equal(model.predict(events), p)
    assert model.info.converged
    assert model.info.rows == 0


# --- the population -----------------------------------------------------------------------------------------


def simulated(sd: float, slope: float, slope_sd: float, *, users: int = 500, rows: int = 40) -> ac.Events:
    """Each user's own level ``N(0, sd^2)`` and taste for ``x`` ``N(slope, slope_sd^2)``."""
    rng = np.random.default_rng(4)
    level, taste = sd * rng.standard_normal(users), slope + slope_sd * rng.standard_normal(users)
    user, x = np.repeat(np.arange(users), rows), rng.normal(2.0, 1.0, users * rows)
    label = (rng.random(users * rows) < expit(0.3 + level[user] + taste[user] * (x - 2.0))).astype(int)
    data = {"time": START + HOUR + np.arange(users * rows), "user_id": user, "x": x - 2.0, "click": label}
    return events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)


@pytest.mark.parametrize("precision", ["full", "diagonal", "marginal"])
@pytest.mark.parametrize(("sd", "slope", "slope_sd"), [(0.8, 1.0, 0.5), (0.4, -0.5, 1.0)])
def test_the_population_of_entities_is_recovered(precision, sd, slope, slope_sd):
    model = ac.GLMix(random=[ac.RandomEffect("user", "x", precision=precision)])
    model.fit(simulated(sd, slope, slope_sd))
    base = population(model)
    assert base.is_full == (precision == "full")
    # Laplace's approximation shrinks variances a little at 40 rows an entity.
    assert_allclose(base.standard_deviation(), [sd, slope_sd], rtol=0.12)
    assert base.mean[0] == 0.0  # the fixed effect has an intercept too, and carries the mean of both
    assert_allclose(base.mean[1], slope, atol=0.1)
    assert_allclose(model.weights()[0][1], 0.3, atol=0.15)
    assert 1 < model.info.rounds <= 8


def test_the_mean_is_learned_only_where_the_fixed_effect_has_none():
    events = simulated(0.8, 1.0, 0.5, users=200)
    shared = ac.GLMix(fixed=ac.FixedEffect("x"), random=[ac.RandomEffect("user", "x")]).fit(events)
    assert_array_equal(population(shared).mean, [0.0, 0.0])
    assert_allclose({name: mean for name, mean, _ in shared.weights()}["x"], 1.0, atol=0.15)


def test_a_new_entity_starts_at_the_population():
    events = simulated(0.8, 1.0, 0.5, users=200)
    model = ac.GLMix(random=[ac.RandomEffect("user", "x")]).fit(events)
    names, posterior, rows = model.entity_posterior("user", 10_000)
    assert names == ("(intercept)", "x")
    assert rows == 0
    assert_array_equal(posterior.mean, population(model).mean)
    assert_array_equal(posterior.precision, population(model).precision)
    stranger = {"user_id": [10_000, 10_000], "x": [0.0, 1.0], "click": [0, 0]}
    p = model.predict(events_of(events.schema, stranger))
    assert_allclose(logit(p), model.weights()[0][1] + posterior.mean @ [[1, 1], [0, 1]], rtol=1e-12)


def test_without_learning_the_population_stays_at_the_ridge():
    model = ac.GLMix(random=[ac.RandomEffect("user", ridge=3.0)], learn_population=False)
    model.fit(simulated(0.8, 1.0, 0.5, users=50))
    assert_array_equal(population(model).precision, [[3.0]])
    assert model.info.rounds == 0


# --- bounds on the rows of an entity ------------------------------------------------------------------------


def test_entities_of_few_rows_are_left_to_the_population():
    data = {**log(rows=60), "user_id": [0] * 50 + [1] * 10}
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=11)]).fit(events_of(PLAIN, data))
    assert model.entity_posterior("user", 0)[2] == 50
    assert model.entity_posterior("user", 1)[2] == 0
    assert model.nbytes < ac.GLMix(random=[ac.RandomEffect("user")]).fit(events_of(PLAIN, data)).nbytes
    # They still take part in the fixed effect.
    assert model.info.rows == 60
    before = model.entity_posterior("user", 0)[1]
    model.update(events_of(PLAIN, {**log(rows=10), "user_id": [0] * 10}))
    assert_array_equal(model.entity_posterior("user", 0)[1].mean, before.mean)


def read(data: dict[str, Any]) -> tuple[Batch, list[Any]]:
    layouts = [Layout(None, ["x", "genre"]), Layout("user_id", ["x"])]
    batch, indexes = read_batch(
        events_of(SCHEMA, data), layouts, [FeatureIndex()] * 2, label="click", grow=[True, True]
    )
    return batch, [index.names for index in indexes]


def test_a_sample_of_rows_stands_for_all_of_an_entitys():
    data = {**log(rows=300, users=5), "w": np.full(300, 1.0)}
    batch, names = read(data)
    entity = np.where(batch.ids[1].to_numpy() == 0, -1, batch.ids[1].to_numpy())
    rows, weight = sample_rows(batch, names, entity, 20)
    for user in (-1, 1, 2, 3, 4):
        have, kept = np.sum(entity == user), np.sum(entity[rows] == user)
        assert kept == (have if user == -1 else min(have, 20))
        assert_allclose(weight[entity[rows] == user].sum(), have, rtol=1e-12)
    assert np.all(np.diff(rows) > 0)
    assert_allclose(data["click"].mean(), np.average(batch.label[rows], weights=weight), atol=0.1)


def test_a_sample_of_rows_is_the_same_in_any_order():
    """Many rows at one instant, so that reading them puts them in the order in which they come."""
    data = {**log(), "time": np.full(300, START), "user_id": np.zeros(300, int), "video_id": np.zeros(300, int)}
    shuffled = np.random.default_rng(3).permutation(300)
    chosen = []
    for order in (np.arange(300), shuffled):
        batch, names = read({name: np.asarray(values)[order] for name, values in data.items()})
        rows, weight = sample_rows(batch, names, np.zeros(300, np.int64), 40)
        chosen.append(sorted(zip(order[rows].tolist(), weight.tolist(), strict=True)))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 40


def test_rows_that_differ_in_the_label_alone_are_sampled_without_favour():
    """As where times are dates: neither the first ones nor those of one label are preferred, in whatever order."""
    same = {name: np.full(400, values[0]) for name, values in log().items()} | {"time": np.full(400, START)}
    sampled = set()
    for label in (np.repeat([0, 1], 200), np.repeat([1, 0], 200), np.resize([0, 1], 400)):
        batch, names = read({**same, "click": label})
        rows, _ = sample_rows(batch, names, np.zeros(400, np.int64), 100)
        sampled.add(int(batch.label[rows].sum()))
    (positive,) = sampled
    assert 35 <= positive <= 65


def test_an_entity_of_very_many_rows_learns_from_a_sample():
    data = {**log(rows=600), "user_id": [0] * 500 + [1] * 100}
    events = events_of(PLAIN, data)
    capped = ac.GLMix(random=[ac.RandomEffect("user", "x", max_rows=150)], learn_population=False).fit(events)
    whole = ac.GLMix(random=[ac.RandomEffect("user", "x")], learn_population=False).fit(events)
    assert capped.info.rows == 250
    assert capped.entity_posterior("user", 0)[2] == 500  # all of them are counted
    assert 0.0 < np.abs(capped.predict(events) - whole.predict(events)).mean() < 0.05
    ratio = capped.entity_posterior("user", 0)[1].precision / whole.entity_posterior("user", 0)[1].precision
    assert_allclose(ratio, 1.0, atol=0.15)  # as sure as of all its rows


# --- precisions ---------------------------------------------------------------------------------------------


def crossed(rho: float) -> ac.Events:
    """Two columns of mean 0 and a label that neither explains, so that every row's curvature is 1/4."""
    ones = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]).repeat([9, 1, 1, 9] if rho else 5, axis=0)
    X = np.tile(ones, (2, 1)).astype(float)
    data = {"user_id": np.zeros(40, int), "a": X[:, 0], "b": X[:, 1], "click": np.repeat([0, 1], 20)}
    return events_of(ac.Schema(time="time", entities={"user": "user_id"}, labels="click"), data)


def test_all_forms_of_precision_agree_on_orthogonal_columns():
    sd = [
        [s for *_, s in ac.GLMix(fixed=ac.FixedEffect(["a", "b"], precision=form)).fit(crossed(0.0)).weights()]
        for form in ("full", "diagonal", "marginal")
    ]
    assert_allclose(sd, np.full((3, 3), 1.0 / np.sqrt(40 / 4 + 1.0)), rtol=1e-9)


def test_diagonal_and_marginal_differ_on_correlated_columns():
    H = np.array([[10.0, 8.0], [8.0, 10.0]]) + np.eye(2)  # correlation .8, curvature 1/4 of 40 rows, ridge 1
    sd = {
        form: [
            s for *_, s in ac.GLMix(fixed=ac.FixedEffect(["a", "b"], precision=form)).fit(crossed(0.8)).weights()
        ]
        for form in ("full", "diagonal", "marginal")
    }
    assert_allclose(sd["full"][1:], np.sqrt(np.diag(np.linalg.inv(H))), rtol=1e-9)
    assert_allclose(sd["marginal"], sd["full"], rtol=1e-9)
    assert_allclose(sd["diagonal"][1:], 1.0 / np.sqrt(np.diag(H)), rtol=1e-9)


@pytest.mark.parametrize("form", ["diagonal", "marginal"])
def test_a_diagonal_prior_keeps_the_marginal_variances_of_the_full_one(form):
    """The raw intercept varies with every centred column."""

    def prior(precision: str) -> ac.Posterior:
        effect = ac.FixedEffect(["x", "genre"], ridge=2.0, precision=precision)
        return population(ac.GLMix(fixed=effect).fit(events_of(PLAIN, log())), 0)

    assert not prior(form).is_full
    assert_allclose(prior(form).standard_deviation(), prior("full").standard_deviation(), rtol=1e-9)


@pytest.mark.parametrize(
    ("precision", "columns", "full"),
    [("full", 40, True), ("auto", 31, True), ("auto", 32, False), ("diagonal", 5, False), ("marginal", 5, False)],
)
def test_the_form_of_an_entitys_precision(precision, columns, full):
    data = {**log(), "genre": [f"g{i % columns}" for i in range(300)]}
    model = ac.GLMix(random=[ac.RandomEffect("user", "genre", precision=precision)], learn_population=False)
    model.fit(events_of(PLAIN, data))
    d = columns + 1
    posterior = model.entity_posterior("user", 3)[1]
    assert posterior.mean.shape == (d,)
    assert posterior.precision.shape == ((d, d) if full else (d,))
    floats = d + (d * d if full else d)
    assert model.state.effects[1].states.nbytes == 9 * 8 * (floats + 3)  # 9 users, each with id, time and rows
    assert model.nbytes == sum(effect.states.nbytes for effect in model.state.effects)


# --- what is not allowed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ac.GLMix(label="clik"), "did you mean 'click'"),
        (lambda: ac.GLMix(random=[ac.RandomEffect("usr")]), "did you mean 'user'"),
    ],
)
def test_names_that_the_schema_lacks(make, message):
    with pytest.raises(ConfigError, match=message):
        make().fit(events_of(PLAIN, log(rows=20)))


def test_two_effects_of_one_entity_are_one():
    with pytest.raises(ConfigError, match="put their features together"):
        ac.GLMix(random=[ac.RandomEffect("user"), ac.RandomEffect("user", "x")])


def test_locks_of_no_effect_or_of_all():
    model = fitted(events_of(PLAIN, log()))
    with pytest.raises(ConfigError, match="did you mean 'video'"):
        model.update(events_of(PLAIN, log()), locked=["vidio"])
    with pytest.raises(ConfigError, match="every effect is locked"):
        model.update(events_of(PLAIN, log()), locked=["fixed", "user", "video"])


def test_events_without_a_known_label():
    with pytest.raises(DataError, match="no event has a known label 'click'"):
        ac.GLMix().fit(events_of(PLAIN, {**log(rows=5), "click": [None] * 5}))
