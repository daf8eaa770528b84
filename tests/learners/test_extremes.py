"""Numbers of any size: what can be used is, what cannot is named, and nothing that is not finite is ever kept."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import assert_same_states, events_of

import acclimate as ac
from acclimate.errors import ConfigError, ModelError, NotConvergedError, RowError

SCHEMA = ac.Schema(time="time", entities={"user": "user_id"}, labels="click", weight="weight", offset="offset")
FORMS = ("full", "diagonal", "marginal")


def log(*, rows: int = 60, users: int = 5, seed: int = 0, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    columns = {
        "user_id": np.arange(rows) % users,
        "x": rng.normal(size=rows),
        "click": rng.integers(0, 2, rows),
        "weight": np.ones(rows),
        "offset": np.zeros(rows),
    }
    return {**columns, **changed}


def events(**changed: Any) -> ac.Events:
    return events_of(SCHEMA, log(**changed))


def in_one_row(value: float, *, other: float = 0.0, rows: int = 60, at: int = 7) -> np.ndarray:
    values = np.full(rows, other)
    values[at] = value
    return values


def mixed(precision: str = "full", *, ridge: float = 1.0, **options: Any) -> ac.GLMix:
    kept: dict[str, Any] = {"ridge": ridge, "precision": precision}
    return ac.GLMix(fixed=ac.FixedEffect("x", **kept), random=[ac.RandomEffect("user", "x", **kept)], **options)


def assert_usable(model: ac.GLMix, asked: ac.Events) -> None:
    posterior = model.states("user").posterior
    assert np.isfinite(posterior.mean).all()
    assert np.isfinite(posterior.precision).all()
    for mode in ("point", "integrated", "thompson"):
        p = model.predict(asked, mode=mode)
        assert np.all((p >= 0.0) & (p <= 1.0))


# --- known answers ------------------------------------------------------------------------------------------


def bisected(offset: np.ndarray, weight: np.ndarray, y: np.ndarray, m: float, ridge: float) -> tuple[float, float]:
    """The optimum of one coefficient of a column of ones, and the precision there, in extended precision."""
    o, s, m, r = (np.asarray(v, np.longdouble) for v in (offset, weight, m, ridge))

    def p(w: np.longdouble) -> np.ndarray:
        e = np.exp(-np.abs(w + o))
        return np.where(w + o >= 0, 1 / (1 + e), e / (1 + e))

    def slope(w: np.longdouble) -> np.longdouble:
        e = np.exp(-np.abs(w + o))
        smaller = e / (1 + e)
        of_rows = np.where(w + o >= 0, (1 - y) - smaller, smaller - y)
        return np.sum(s * of_rows) + r * (w - m)

    low, high = m - s.sum() / r, m + s.sum() / r
    for _ in range(400):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    e = np.exp(-np.abs(low + o))
    return float(low), float(r + np.sum(s * e / (1 + e) ** 2))


MARGINS = {
    "all offsets 300": {"offset": np.full(60, 300.0)},
    "all offsets -300": {"offset": np.full(60, -300.0)},
    "offsets 800": {"offset": np.full(60, 800.0)},
    "offsets of both signs": {"offset": 1000.0 * np.cos(np.arange(60))},
    "one offset of 1e5": {"offset": in_one_row(1e5)},
    "one offset of 1e15": {"offset": in_one_row(1e15)},
    "one offset of 1e100": {"offset": in_one_row(1e100)},
    "one weight of 1e15": {"weight": in_one_row(1e15, other=1.0)},
    "one weight of 1e6": {"weight": in_one_row(1e6, other=1.0)},
    "all weights 1e15": {"weight": np.full(60, 1e15)},
    "all weights 1e-300": {"weight": np.full(60, 1e-300)},
    "clicks alone, of weight 1e15": {"weight": np.full(60, 1e15), "click": np.ones(60, np.int64)},
}


@pytest.mark.parametrize("columns", MARGINS.values(), ids=MARGINS)
def test_an_intercept_is_where_bisection_finds_it(columns):
    data = log(**columns)
    s, y = data["weight"], data["click"]
    start = float(np.log(s @ y + 0.5) - np.log(s @ (1 - y) + 0.5))
    expected, precision = bisected(data["offset"], s, y, start, 1.0)
    model = ac.GLMix(tolerance=1e-7, max_steps=100).fit(events_of(SCHEMA, data))
    assert model.info.converged
    ((_, mean, deviation),) = model.weights()
    assert_allclose(mean, expected, rtol=1e-9, atol=1e-6 / np.sqrt(precision))
    assert_allclose(deviation, precision**-0.5, rtol=1e-6)


@pytest.mark.parametrize("columns", MARGINS.values(), ids=MARGINS)
@pytest.mark.parametrize("precision", FORMS)
def test_margins_of_any_size_hold_through_the_learner(precision, columns):
    asked = events(**columns)
    model = mixed(precision).fit(events()).update(asked)
    assert model.info.converged
    assert_usable(model, asked)
    assert_usable(mixed(precision).fit(asked), asked)


@pytest.mark.parametrize("offset", [300.0, -300.0, 800.0, 1e5])
@pytest.mark.parametrize("precision", FORMS)
def test_a_population_goes_as_far_as_the_labels_say_and_no_further(precision, offset):
    """Entities whose labels are at odds with all their offsets end at the rates that they have."""
    asked = events(offset=np.full(60, offset))
    model = mixed(precision, max_steps=100).fit(asked)
    assert model.info.converged
    assert_usable(model, asked)
    assert model.predict(asked).mean() == pytest.approx(log()["click"].mean(), abs=0.05)


# --- invariances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [-450, -330, 100, 330, 498])
@pytest.mark.parametrize("precision", FORMS)
def test_the_unit_of_a_feature_does_not_matter(precision, unit):
    """Up to 1e150 and down to 1e-135: a power of two is exact, and so is what it changes."""

    def learned(unit: int) -> tuple[ac.GLMix, np.ndarray]:
        first, second = (events(seed=seed, x=np.ldexp(log(seed=seed)["x"], unit)) for seed in (0, 1))
        model = mixed(precision, tolerance=1e-6).fit(first).update(second)
        assert model.info.converged
        return model, model.predict(first)

    (model, p), (plain, q) = learned(unit), learned(0)
    assert_allclose(p, q, rtol=0, atol=1e-9)
    scaled = np.ldexp(model.states("user").posterior.mean, [[0, unit]])
    assert_allclose(scaled, plain.states("user").posterior.mean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shift", [1e2, 1e3, 1e4, 1e5, 1e6])
def test_a_mean_that_dwarfs_the_spread_does_not_matter(shift):
    """The population is learned where features are centred; raw, its algebra fails from 1e4 spreads on."""
    far, near = events(x=log()["x"] + shift), events()
    model, plain = mixed(tolerance=1e-6).fit(far), mixed(tolerance=1e-6).fit(near)
    assert model.info.converged
    assert_allclose(model.predict(far), plain.predict(near), rtol=0, atol=1e-4)


@pytest.mark.parametrize("ridge", [1e-100, 1e-10, 1e10, 1e100])
@pytest.mark.parametrize("precision", FORMS)
def test_labels_that_a_feature_separates_have_an_optimum_at_any_ridge(precision, ridge):
    asked = events(click=(log()["x"] > 0.0).astype(int))
    model = mixed(precision, ridge=ridge, max_steps=200).fit(asked)
    assert_usable(model, asked)
    assert np.all((model.predict(asked) >= 0.5) == (log()["x"] > 0.0)) or ridge > 1.0


@pytest.mark.parametrize("value", [0.0, 1e-300, 5e-324, 1e-139, 1e5, 1e15, 1e150])
@pytest.mark.parametrize("precision", FORMS)
def test_constants_and_denormals_are_ordinary_in_an_update(precision, value):
    asked = events(x=np.full(60, value))
    model = mixed(precision).fit(events()).update(asked)
    assert_usable(model, asked)


# --- the gate -----------------------------------------------------------------------------------------------

BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "a weight": (
        {"weight": in_one_row(1e300, other=1.0)},
        r"weight is beyond 1e\+100 in 1 of .* 1e\+300 in row 7",
    ),
    "weights": ({"weight": np.full(60, 1e308)}, r"weight is beyond 1e\+100 in 60 of 60 rows"),
    "an offset": ({"offset": in_one_row(-1e300)}, r"offset is beyond 1e\+100 in 1 of 60 rows.* -1e\+300 in row 7"),
    "a feature": ({"x": in_one_row(1e300, other=1.0)}, r"'x' .* beyond 1e\+152 in 1 of 60 .* 1e\+300 in row 7"),
    "a sum": ({"x": np.full(60, 1.7e308)}, r"'x' .* beyond 1e\+152 in 60 of 60 rows"),
}


@pytest.mark.parametrize("precision", FORMS)
@pytest.mark.parametrize(("columns", "message"), BEYOND.values(), ids=BEYOND)
def test_what_cannot_be_used_is_named_and_changes_nothing(columns, message, precision):
    model = mixed(precision).fit(events())
    state, states, info = model.state, model.states("user"), model.info
    for learn in (model.update, model.fit):
        with pytest.raises(RowError, match=message) as caught:
            learn(events(**columns))
        assert "\n" not in str(caught.value)
        assert caught.value.hint
        assert model.state is state
        assert model.info is info
        assert_same_states(model.states("user"), states)


@pytest.mark.parametrize("precision", FORMS)
def test_a_product_of_numbers_within_the_limits_may_be_beyond_all(precision):
    model = mixed(precision).fit(events())
    state, states = model.state, model.states("user")
    with pytest.raises(ModelError, match=r"the posterior of the fixed effect would not be finite in .*x"):
        model.fit(events(x=1e150 * log()["x"], weight=np.full(60, 1e99)))
    assert model.state is state
    assert_same_states(model.states("user"), states)


def test_a_column_too_small_to_have_a_unit_is_named():
    with pytest.raises(RowError, match=r"'x' .* below 1e-140 in all 60 rows .* 1e-300 \(multiply"):
        mixed().fit(events(x=np.full(60, 1e-300)))


@pytest.mark.parametrize("ridge", [1e-320, 1e-101, 1e101, 1e308])
def test_a_ridge_out_of_reach_is_refused_when_it_is_declared(ridge):
    with pytest.raises(ConfigError, match=r"ridge: .* between 1e-100 and 1e100"):
        ac.RandomEffect("user", ridge=ridge)


def test_a_posterior_that_float32_cannot_hold_is_named():
    model = mixed("diagonal", states="float32").fit(events())
    before = model.states("user")
    whose = (
        r"posteriors of 5 of 5 entities of 'user' \(0, 1, 2 \.\.\.\) would not be finite in x, rounded to float32"
    )
    with pytest.raises(ModelError, match=whose):
        model.fit(events(x=1e30 * log()["x"]))
    assert_same_states(model.states("user"), before)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    """The last look, at whatever a learner is: here one whose state was spoilt behind its back."""
    model = mixed().fit(events())
    model.save(tmp_path / "model")
    good = {file: file.read_bytes() for file in (tmp_path / "model").rglob("*.*")}
    spoilt = replace(model.state.fixed_states.posterior, mean=np.array([[np.nan, 1.0]]))
    model.state = replace(model.state, fixed_states=replace(model.state.fixed_states, posterior=spoilt))
    with pytest.raises(ModelError, match=r"1 of 2 numbers in 'fixed.mean' of a GLMix are not finite"):
        model.save(tmp_path / "model", overwrite=True)
    assert {file: file.read_bytes() for file in (tmp_path / "model").rglob("*.*")} == good


def test_features_at_opposite_limits_have_a_probability():
    """Learned at the small end, asked at the large one: margins of 1e291."""
    model = mixed("diagonal", ridge=1e-20, learn_population=False).fit(events(x=np.full(60, 1e-139)))
    p = model.predict(events(x=np.full(60, 1e150)))
    assert np.all((p >= 0.0) & (p <= 1.0))


# --- convergence --------------------------------------------------------------------------------------------


def test_a_fit_that_did_not_converge_says_so_on_request_and_how_far():
    model = mixed(max_steps=1, tolerance=1e-9).fit(events())
    assert not model.info.converged
    how_far = r"\d posterior sd left after \d+ Newton steps, 5 entities of 'user' unsettled"
    with pytest.raises(NotConvergedError, match=how_far) as caught:
        model.check_converged()
    assert caught.value.exit_code == 7
    assert "--allow-unconverged" in caught.value.hint
    assert_usable(model, events())


def test_one_that_did_or_was_loaded_says_nothing(tmp_path):
    model = mixed().fit(events())
    model.check_converged()
    mixed(max_steps=1, tolerance=1e-9).fit(events()).save(tmp_path / "model")
    ac.GLMix.load(tmp_path / "model").check_converged()
    model.update(events(click=[None] * 60))
    model.check_converged()


# --- everything at once -------------------------------------------------------------------------------------

MAGNITUDES = st.one_of(
    st.sampled_from([0.0, 5e-324, 1e-300, 1e-150, 1.0, 300.0, 1e15, 1e100, 1e150, 1e300, 1.7e308]),
    st.floats(-300.0, 300.0).map(lambda exponent: 10.0**exponent),
)


@st.composite
def columns_of_any_size(draw: Callable[..., Any]) -> dict[str, Any]:
    """Some columns times a number of any size, in all rows or in one."""
    data = log(rows=24, users=4, seed=draw(st.integers(0, 3)))
    for name in draw(st.sets(st.sampled_from(["x", "weight", "offset"]), min_size=1)):
        size, rows = draw(MAGNITUDES), draw(st.sampled_from([slice(None), slice(3, 4)]))
        direction = data["x"] if name != "weight" else np.ones(24)
        values = data[name].astype(np.float64)
        values[rows] = np.clip(direction, -1.0, 1.0)[rows] * size
        data[name] = values
    if draw(st.booleans()):
        data["click"] = (log(rows=24)["x"] > 0.0).astype(int)
    return data


@given(
    first=columns_of_any_size(),
    second=columns_of_any_size(),
    precision=st.sampled_from(FORMS),
    ridge=st.sampled_from([1e-100, 1e-10, 1.0, 1e10, 1e100]),
    options=st.fixed_dictionaries(
        {"learn_population": st.booleans(), "states": st.sampled_from(["float64", "float32"])}
    ),
    sane=st.booleans(),
)
@settings(max_examples=60)
def test_it_works_or_says_why_not(first, second, precision, ridge, options, sane):
    """Never a warning, never a number that is none, never another error, and after one nothing has changed."""
    model = mixed(precision, ridge=ridge, **options)
    asked = events_of(SCHEMA, log(rows=24, users=4) if sane else first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if refused(lambda: model.fit(asked)):
            assert model.state is None
            return
        before, states = model.state, model.states("user")
        assert_sound(model, asked)
        if refused(lambda: model.update(events_of(SCHEMA, second))):
            assert model.state is before
            assert_same_states(model.states("user"), states)
        assert_sound(model, asked)


def refused(action: Callable[[], Any]) -> bool:
    """Whether it ends in an error of the tree, of one line."""
    try:
        action()
    except ac.AcclimateError as error:
        told = str(error)
    else:
        return False
    assert "\n" not in told
    return True


def assert_sound(model: ac.GLMix, asked: ac.Events) -> None:
    """All that is known is finite, and predictions are probabilities or say why they cannot be."""
    posterior = model.states("user").posterior
    assert np.isfinite(posterior.mean).all()
    assert np.isfinite(posterior.precision).all()
    for mode in ("point", "integrated", "thompson"):
        answers: list[np.ndarray] = []
        if not refused(lambda mode=mode, answers=answers: answers.append(model.predict(asked, mode=mode))):
            assert np.all((answers[0] >= 0.0) & (answers[0] <= 1.0))


@pytest.mark.parametrize("make", [ac.GlobalRate, lambda: ac.Rate("user")], ids=["global", "by user"])
@pytest.mark.parametrize("weight", [1e300, 1.7e308])
def test_rates_refuse_weights_beyond_the_limit_and_stay_as_they_were(make, weight):
    learner = make().fit(events())
    before, p = learner.state, learner.predict(events())
    for learn in (learner.update, learner.fit):
        with pytest.raises(RowError, match=r"weight is beyond 1e\+100 in 60 of 60 rows"):
            learn(events(weight=np.full(60, weight)))
        assert learner.state == before
        assert_array_equal(learner.predict(events()), p)
    learner.check_converged()
