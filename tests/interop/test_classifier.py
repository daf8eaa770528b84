"""The classifier: scikit-learn's own checks, its logistic regression, and the GLMix that it is."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import acclimate as ac
from acclimate.errors import ColumnError, ConfigError, MismatchError
from acclimate.interop import GLMixClassifier
from learners.sample_events import events_of


@parametrize_with_checks(
    [
        GLMixClassifier(),
        GLMixClassifier(mode="integrated", forgetting=0.9, ridge=0.1),
        GLMixClassifier(precision="diagonal", learn_population=False),
    ]
)
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_all_of_its_checks_are_run():
    assert len(list(estimator_checks_generator(GLMixClassifier()))) > 55


def rows(n=600, seed=0, users=12):
    rng = np.random.default_rng(seed)
    user, x = rng.integers(0, users, n), rng.normal([1.0, -3.0], [2.0, 0.5], (n, 2))
    level = np.random.default_rng(99).normal(size=users)
    z = 0.4 * (x[:, 0] - 1.0) + level[user] * (1.0 + 0.5 * x[:, 0])
    return user, x, np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-z)), "yes", "no")


# --- known answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_without_entities_it_is_a_logistic_regression(ridge):
    """Of as many rows of either class, whose log-odds are 0, where the ridge holds the intercept too."""
    _, x, y = rows(2000)
    few = min(np.sum(y == "yes"), np.sum(y == "no"))
    keep = np.concatenate([np.flatnonzero(y == label)[:few] for label in ("yes", "no")])
    x, y = x[keep], y[keep]
    Z = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
    expected = LogisticRegression(C=1.0 / ridge, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(Z, y)
    ours = GLMixClassifier(ridge=ridge, tol=1e-10).fit(x, y)
    assert_allclose(ours.coef_, expected.coef_[:, 1:] / x.std(0), rtol=1e-6)
    assert_allclose(ours.decision_function(x), expected.decision_function(Z), rtol=1e-5, atol=1e-7)
    assert_array_equal(ours.predict(x), expected.predict(Z))
    assert_array_equal(ours.classes_, expected.classes_)


def test_a_free_intercept_differs_by_as_much_as_one_row_of_many():
    _, x, y = rows(5000, seed=3)
    y = np.where((y == "yes") & (x[:, 0] > 1.0), "yes", "no")
    Z = StandardScaler().fit_transform(x)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(Z, y)
    ours = GLMixClassifier(tol=1e-10).fit(Z, y)
    assert 0.2 < np.mean(y == "yes") < 0.3
    assert_allclose(ours.coef_, expected.coef_, rtol=5e-3)
    assert_allclose(ours.intercept_, expected.intercept_, rtol=5e-3)


@pytest.mark.parametrize("slopes", [False, True])
def test_with_entities_it_is_the_glmix(slopes):
    user, x, y = rows()
    X = np.column_stack([x[:, 0], user, x[:, 1]])
    ours = GLMixClassifier(entities={1: [0]} if slopes else [1], tol=1e-8).fit(X, y)
    schema = ac.Schema("time", ["user"], "click")
    columns = {"a": x[:, 0], "b": x[:, 1], "user": user, "click": (y == "yes").astype(int)}
    events = events_of(schema, columns)
    effect = ac.RandomEffect("user", ["a"] if slopes else [])
    model = ac.GLMix(fixed=["a", "b"], random=[effect], tolerance=1e-8).fit(events)
    assert_allclose(ours.predict_proba(X)[:, 1], model.predict(events), rtol=1e-7)
    assert_allclose(ours.coef_[0], [mean for _, mean, _ in model.weights()[1:]], rtol=1e-6)
    named = ours.model_.coefficients("x1").read_all()
    assert named["feature"].to_pylist()[:2] == (["(intercept)", "x0"] if slopes else ["(intercept)"] * 2)
    assert_allclose(
        ours.decision_function(X), np.log(model.predict(events) / (1 - model.predict(events))), rtol=1e-5
    )


def test_partial_fit_is_the_update():
    user, x, y = rows()
    X, half = np.column_stack([user, x]), slice(0, 300)
    later = slice(300, 600)
    ours = GLMixClassifier(entities=[0], tol=1e-8, forgetting=0.8).partial_fit(X[half], y[half], ["no", "yes"])
    first = ours.predict_proba(X)
    assert_allclose(first, clone(ours).fit(X[half], y[half]).predict_proba(X), rtol=1e-12)
    ours.partial_fit(X[later], y[later])
    schema = ac.Schema("time", ["user"], "click")
    columns = {"a": x[:, 0], "b": x[:, 1], "user": user, "click": (y == "yes").astype(int)}
    parts = [events_of(schema, {name: c[part] for name, c in columns.items()}) for part in (half, later)]
    fixed, random = ac.FixedEffect(["a", "b"], forgetting=0.8), [ac.RandomEffect("user", forgetting=0.8)]
    model = ac.GLMix(fixed=fixed, random=random, tolerance=1e-8).fit(parts[0]).update(parts[1])
    assert_allclose(ours.predict_proba(X)[:, 1], model.predict(events_of(schema, columns)), rtol=1e-6)
    assert np.abs(ours.predict_proba(X) - first).max() > 0.05


@given(st.permutations(range(40)), st.integers(0, 3))
def test_neither_order_nor_repetition_shows(order, seed):
    user, x, y = rows(40, seed=seed, users=4)
    X, times = np.column_stack([user, x]), np.random.default_rng(seed).integers(1, 4, 40)
    one = GLMixClassifier(entities=[0], tol=1e-9, learn_population=False).fit(X, y, sample_weight=times)
    other = clone(one).fit(np.repeat(X[order], times[order], 0), np.repeat(y[order], times[order]))
    assert_allclose(other.predict_proba(X), one.predict_proba(X), rtol=1e-6)


# --- X of every kind ------------------------------------------------------------------------------------------


def frames():
    user, x, y = rows(200)
    columns = {"user": [f"u{i}" for i in user], "a": x[:, 0], "hour": np.round(x[:, 1])}
    frame = pd.DataFrame(columns)
    kinds = [frame, frame.astype({"user": "category"}), pl.DataFrame(columns), pa.table(columns)]
    return kinds, y


@pytest.mark.parametrize("kind", range(4))
def test_any_frame_will_do(kind):
    kinds, y = frames()
    X = kinds[kind]
    ours = GLMixClassifier(entities={"user": ["a"]}).fit(X, y)
    assert ours.feature_names_in_.tolist() == ["user", "a", "hour"]
    assert ours.n_features_in_ == 3
    assert ours.coef_.shape == (1, 2)
    assert [name for name, *_ in ours.model_.weights()] == ["(intercept)", "a", "hour"]
    cells = np.array(kinds[0], object)
    by_place = GLMixClassifier(entities={0: [1]}).fit(cells, y)
    assert_allclose(by_place.predict_proba(cells.tolist()), ours.predict_proba(X), rtol=1e-9)
    assert ours.model_.entity_posterior("user", "u3")[2] > 0
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        ours.predict(cells)


def test_rows_without_an_id_and_ids_never_seen_are_at_the_population():
    user, x, y = rows()
    X = pd.DataFrame({"user": user, "x": x[:, 0]})
    ours = GLMixClassifier(entities=["user"]).fit(X, y)
    ask = pd.DataFrame({"user": pd.array([None, 99, 3], "Int64"), "x": [0.5, 0.5, 0.5]})
    p = ours.predict_proba(ask)[:, 1]
    assert p[0] == p[1] != p[2]
    floats = ask.assign(user=[np.nan, 99.0, 3.0])
    assert_array_equal(ours.predict_proba(floats)[:, 1], p)
    texts = np.array([[f"u{one}", x] for one, x in X.to_numpy()], object)
    ours = GLMixClassifier(entities=[0]).fit(texts, y)
    gaps = np.array([[np.nan, 0.5], [None, 0.5], ["u99", 0.5], ["u3.0", 0.5]], object)
    p = ours.predict_proba(gaps)[:, 1]
    assert p[0] == p[1] == p[2] != p[3]


def test_intercepts_alone():
    user, _, y = rows()
    ours = GLMixClassifier(entities=np.array([0])).fit(user[:, None], y)
    assert ours.coef_.shape == (1, 0)
    rates = [np.mean(y[user == one] == "yes") for one in range(12)]
    assert_allclose(ours.predict_proba(np.arange(12)[:, None])[:, 1], rates, atol=0.06)


# --- among scikit-learn's own --------------------------------------------------------------------------------


def test_a_pipeline_in_a_grid_search():
    user, x, y = rows()
    X = pd.DataFrame({"user": user, "a": x[:, 0], "b": x[:, 1], "tab": np.where(user % 3, "home", "feed")})
    steps = make_column_transformer(
        (StandardScaler(), ["a", "b"]),
        (OneHotEncoder(sparse_output=False), ["tab"]),
        ("passthrough", ["user"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    search = GridSearchCV(
        make_pipeline(steps, GLMixClassifier(entities=["user"])),
        {"glmixclassifier__ridge": [1e-2, 1.0, 1e4], "glmixclassifier__entities": [[], ["user"], {"user": ["a"]}]},
        scoring="neg_log_loss",
        cv=3,
    ).fit(X, y)
    assert search.best_params_["glmixclassifier__entities"] == {"user": ["a"]}
    assert search.best_estimator_.score(X, y) > 0.7


def test_it_comes_back_from_a_pickle_and_goes_on():
    user, x, y = rows()
    X = np.column_stack([user, x])
    ours = GLMixClassifier(entities=[0]).fit(X[:300], y[:300])
    copy = pickle.loads(pickle.dumps(ours))
    assert_array_equal(copy.predict_proba(X), ours.predict_proba(X))
    assert_array_equal(
        copy.partial_fit(X[300:], y[300:]).predict_proba(X), ours.partial_fit(X[300:], y[300:]).predict_proba(X)
    )


def test_a_failed_fit_leaves_what_was():
    _, x, y = rows()
    ours = GLMixClassifier().fit(x, y)
    before = ours.predict_proba(x)
    with pytest.raises(ValueError, match="there is one class"):
        ours.fit(x, np.zeros(len(x)))
    assert_array_equal(ours.predict_proba(x), before)
    assert ours.classes_.tolist() == ["no", "yes"]


def test_one_that_has_not_arrived_says_so():
    _, x, y = rows()
    with pytest.warns(ConvergenceWarning, match="not converged: .* posterior sd left after 1 Newton steps"):
        GLMixClassifier(max_iter=1).fit(x, y)


# --- what is not allowed -------------------------------------------------------------------------------------


def test_what_cannot_be_learned():
    user, x, y = rows()
    X = np.column_stack([user, x])
    with pytest.raises(ValueError, match=r"Only binary classification is supported.*multiclass"):
        GLMixClassifier().fit(x, user)
    with pytest.raises(ValueError, match="there is one class"):
        GLMixClassifier().partial_fit(x, y, ["yes"])
    with pytest.raises(ValueError, match="needs all classes"):
        GLMixClassifier().partial_fit(x, y)
    with pytest.raises(ValueError, match=r"y has the classes \['no'\], which are none of \['maybe' 'yes'\]"):
        GLMixClassifier().partial_fit(x, y, ["yes", "maybe"])
    ours = GLMixClassifier().partial_fit(x, y, ["yes", "no"])
    with pytest.raises(ValueError, match="are not those of the first call"):
        ours.partial_fit(x, y, ["yes", "maybe"])
    with pytest.raises(ValueError, match=r"sample_weight is of shape \(3,\), and y has 600 rows"):
        GLMixClassifier().fit(x, y, sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="Negative"):
        GLMixClassifier().fit(x, y, sample_weight=-np.ones(600))
    with pytest.raises(NotFittedError):
        GLMixClassifier(entities=[0]).predict(X)
    with pytest.raises(ValueError, match="contains NaN"):
        GLMixClassifier(entities=[0]).fit(np.where(X[5, 1] == X, np.nan, X), y)


def test_entities_that_are_none():
    user, x, y = rows()
    X = pd.DataFrame({"user": user, "a": x[:, 0]})
    with pytest.raises(ConfigError, match=r"X has no column 'usr'.*did you mean 'user'"):
        GLMixClassifier(entities=["usr"]).fit(X, y)
    with pytest.raises(ConfigError, match=r"X has no column 7 \(there are 2, from 0\)"):
        GLMixClassifier(entities=[7]).fit(X, y)
    with pytest.raises(ConfigError, match=r"write \['user'\]"):
        GLMixClassifier(entities="user").fit(X, y)
    with pytest.raises(ConfigError, match="'user' is to have coefficients for each 'user', and holds ids"):
        GLMixClassifier(entities={"user": ["user"]}).fit(X, y)
    with pytest.raises(MismatchError, match="ids of 'a' are double"):
        GLMixClassifier(entities=["a"]).fit(X, y)
    mixed = np.array([[1 if i % 2 else "one", 0.5] for i in range(600)], object)
    with pytest.raises(ColumnError, match="column 'x0' has values of several types"):
        GLMixClassifier(entities=[0]).fit(mixed, y)
    with pytest.raises(ColumnError, match="column 'X' has values of several types"):
        GLMixClassifier(entities=["user"]).fit(X.assign(user=pd.Series(mixed[:, 0])), y)
    with pytest.raises(ValueError, match="X is a csr_array, and has no rows and columns"):
        GLMixClassifier(entities=[0]).fit(csr_array(X.to_numpy()), y)
    with pytest.raises(ConfigError, match="no mode 'thomson'"):
        GLMixClassifier(mode="thomson").fit(X, y).predict(X)
