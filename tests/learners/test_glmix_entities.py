"""Entities that lie in the columns of entity tables: as if they stood in the log, and rows that have none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import HOUR, START, assert_same_states, events_of, in_pieces
from scipy.optimize import minimize
from scipy.special import expit

import acclimate as ac
from acclimate.errors import ColumnError, ConfigError, MismatchError
from acclimate.features import has_id, ids_as

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "video": "video_id"}, labels="click")
AUTHORS = {"video_id": np.arange(12), "author_id": np.arange(12) % 4}


def log(rows: int = 300, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    video, user = rng.integers(0, 12, rows), rng.integers(0, 8, rows)
    z = np.array([-2.0, -0.5, 0.5, 2.0])[video % 4] + 0.5 * (user % 2)
    click = (rng.random(rows) < expit(z)).astype(int)
    return {"user_id": user, "video_id": video, "tab": user % 3, "x": rng.standard_normal(rows), "click": click}


def with_authors(columns: Any = AUTHORS, *, time: bool = False) -> ac.Schema:
    """The schema with a table of videos, of which some are without an author, or not in it at all."""
    table = ac.EntityTable(pa.table(columns), key="video_id", time=ac.TimeColumn("since") if time else None)
    return replace(SCHEMA, tables={"video": table})


def of_authors(entity: str = "video.author_id", **options: Any) -> ac.GLMix:
    return ac.GLMix(fixed=["x"], random=[ac.RandomEffect(entity, ["x"], **options)])


def learned(model: ac.GLMix, schema: ac.Schema, columns: Any = None) -> ac.GLMix:
    """A fit on a log, and an update with another one."""
    first, second = log(), log(seed=1)
    for one in (first, second):
        one |= {} if columns is None else columns(one)
    return model.fit(events_of(schema, first)).update(events_of(schema, second))


def test_a_column_of_a_table_is_as_good_as_one_of_the_log():
    joined = replace(SCHEMA, entities={**SCHEMA.entities, "author": "author_id"})
    expected = learned(of_authors("author"), joined, lambda rows: {"author_id": rows["video_id"] % 4})
    model = learned(of_authors(), with_authors())
    assert sorted(model.states("video.author_id").ids.tolist()) == [0, 1, 2, 3]
    for author in range(4):
        actual, right = (
            model.entity_posterior("video.author_id", author),
            expected.entity_posterior("author", author),
        )
        assert actual[0] == right[0]
        assert actual[2] == right[2] > 0
        assert_allclose(actual[1].mean, right[1].mean, rtol=1e-9, atol=1e-12)
        assert_allclose(actual[1].precision, right[1].precision, rtol=1e-9)


def test_the_entity_is_the_one_as_of_the_event():
    """Videos change their author at the hundredth hour."""
    change = START + 100 * HOUR
    since = np.repeat([START - HOUR, change], 12)
    table = {
        "video_id": np.tile(np.arange(12), 2),
        "author_id": np.concatenate([np.arange(12) % 4, np.arange(12) % 4 + 10]),
        "since": pa.array(since, pa.timestamp("us", "UTC")),
    }
    model = of_authors().fit(events_of(with_authors(table, time=True), log()))
    video = log()["video_id"]
    for author in (0, 3, 10, 13):
        now = np.arange(len(video)) >= 100 if author >= 10 else np.arange(len(video)) < 100
        assert model.entity_posterior("video.author_id", author)[2] == np.sum(now & (video % 4 == author % 10))


@pytest.mark.parametrize("form", ["absent row", "null", "not a number"])
def test_rows_without_an_entity_teach_all_others_alone(form):
    """The joint optimum of an intercept and of authors, of whom the videos 8 to 11 have none."""
    columns = {
        "absent row": {"video_id": np.arange(8), "author_id": np.arange(8) % 4},
        "null": {"video_id": np.arange(12), "author_id": pa.array([*(np.arange(8) % 4).tolist(), *[None] * 4])},
        "not a number": {"video_id": np.arange(12), "author_id": np.array([*(np.arange(8) % 4), *[np.nan] * 4])},
    }[form]
    model = ac.GLMix(
        random=[ac.RandomEffect("video.author_id", ridge=2.0)], learn_population=False, tolerance=1e-9
    )
    rows = log()
    model.fit(events_of(with_authors(columns), rows))
    author = np.where(rows["video_id"] < 8, rows["video_id"] % 4, 4)
    y, sign = rows["click"], 2.0 * rows["click"] - 1.0
    centre = np.log(y.sum() + 0.5) - np.log((1 - y).sum() + 0.5)

    def loss(w: np.ndarray) -> float:
        z = w[0] + np.append(w[1:], 0.0)[author]
        return float(np.sum(np.log1p(np.exp(-sign * z))) + (w[0] - centre) ** 2 / 2 + w[1:] @ w[1:])

    w = minimize(loss, np.zeros(5), tol=1e-12, method="BFGS", options={"gtol": 1e-7}).x
    assert_allclose(model.weights()[0][1], w[0], atol=1e-5)
    assert_allclose(
        model.states("video.author_id").posterior.mean[:, 0], w[1:][model.states("video.author_id").ids], atol=1e-5
    )
    assert_array_equal(
        model.states("video.author_id").rows, np.bincount(author)[model.states("video.author_id").ids]
    )


SOME = {"video_id": np.arange(8), "author_id": [f"author {k % 3}" for k in range(8)]}
"""Videos 8 to 11 are in no table."""


@pytest.mark.parametrize("options", [{}, {"min_rows": 40}, {"max_rows": 30}, {"half_life": "3d"}])
def test_rows_without_an_entity_are_predicted_like_those_of_a_new_one(options, tmp_path):
    schema = with_authors(SOME)
    model = learned(of_authors(**options), schema)
    model.save(tmp_path / "model")
    model = ac.GLMix.load(tmp_path / "model")
    assert set(model.states("video.author_id").ids.tolist()) <= {"author 0", "author 1", "author 2"}
    other = replace(schema, tables={"video": replace(schema.tables["video"], source=pa.table({
        "video_id": np.arange(8, 12), "author_id": ["new"] * 4}))})  # fmt: skip
    absent = log(seed=2)
    absent["video_id"] = absent["video_id"] % 4 + 8
    for mode in ("point", "integrated"):
        expected = model.predict(events_of(other, absent), mode=mode)
        assert_array_equal(model.predict(events_of(schema, absent), mode=mode), expected)


def test_pieces_make_no_difference():
    schema, rows = with_authors(SOME), log()
    whole = of_authors().fit(events_of(schema, rows))
    pieces = of_authors().fit(in_pieces(events_of(schema, rows), 17))
    assert_same_states(pieces.states("video.author_id"), whole.states("video.author_id"))
    assert pieces.weights() == whole.weights()


def test_nobody_has_an_entity():
    """Then the model is the fixed effect alone."""
    schema = with_authors({"video_id": [100], "author_id": [1]})
    model, alone = learned(of_authors(), schema), learned(ac.GLMix(fixed=["x"]), schema)
    assert_allclose([w[1:] for w in model.weights()], [w[1:] for w in alone.weights()], rtol=1e-6)
    assert len(model.states("video.author_id")) == 0


def test_a_rate_by_a_column_of_a_table():
    schema, rows = with_authors(SOME), log()
    events = events_of(schema, rows)
    model = ac.Rate("video.author_id", prior_rows=10).fit(events)
    p, video, y = model.predict(events), rows["video_id"], rows["click"]
    rate = (y.sum() + 0.5) / (len(y) + 1.0)
    for author in range(3):
        its = (video < 8) & (video % 3 == author)
        assert_allclose(p[its], (y[its].sum() + 10 * rate) / (its.sum() + 10))
    assert_allclose(p[video >= 8], rate)


def test_columns_that_no_table_has_and_entities_that_are_no_columns():
    events = events_of(with_authors(), log())
    with pytest.raises(ColumnError, match=r"did you mean 'video.author_id'"):
        of_authors("video.autor_id").fit(events)
    with pytest.raises(ConfigError, match="no entity 'author_id' in the schema"):
        of_authors("author_id").fit(events)


def test_ids_that_stand_for_missing_ones_and_numbers_that_are_not_whole():
    assert has_id(ids_as(pa.array([1.0, None, np.nan]), "int64", "'user'", missing=True)).tolist() == [
        True,
        False,
        False,
    ]
    assert has_id(ids_as(pa.array(["a", None]), "string", "'user'", missing=True)).tolist() == [True, False]
    for ids, kind in ((pa.array([-(2**63)]), "int64"), (pa.array(["\x1e"]), "string")):
        with pytest.raises(MismatchError, match="stands for a missing one"):
            ids_as(ids, kind, "'user'", missing=True)
    with pytest.raises(MismatchError, match="ids of 'user' are double"):
        ids_as(pa.array([1.5]), "int64", "'user'")
    with pytest.raises(MismatchError, match="1 ids of 'user' are missing"):
        ids_as(pa.array([1.0, np.nan]), "int64", "'user'")


def habits(**options: Any) -> ac.GLMix:
    return ac.GLMix(random=["user", ac.RandomEffect(("user", "tab"), ["x"], **options)])


def with_tabs(schema: ac.Schema = SCHEMA) -> ac.Schema:
    return replace(schema, entities={**schema.entities, "tab": "tab"})


def test_a_combination_is_as_good_as_a_column_of_its_own(tmp_path):
    """Numbers beside text; ids of the column are in the same order."""

    def tabs(rows: Any) -> dict[str, Any]:
        tab = [f"tab {k % 3}" for k in range(len(rows["click"]))]
        return {"tab": tab, "pair": [f"{user}\x1f{t}" for user, t in zip(rows["user_id"], tab, strict=True)]}

    joined = replace(SCHEMA, entities={**SCHEMA.entities, "both": "pair"})
    expected = ac.GLMix(random=["user", ac.RandomEffect("both", ["x"])])
    expected = learned(expected, joined, tabs)
    model = learned(habits(), with_tabs(), tabs)
    model.save(tmp_path / "model")
    for kept in (model, ac.GLMix.load(tmp_path / "model")):
        assert sorted(kept.states("user x tab").ids.tolist()) == sorted(expected.states("both").ids.tolist())
        names, posterior, rows = kept.entity_posterior(("user", "tab"), (3, "tab 1"))
        right = expected.entity_posterior("both", "3\x1ftab 1")
        assert (names, rows) == (right[0], right[2])
        assert rows > 0
        assert_allclose(posterior.mean, right[1].mean, rtol=1e-9, atol=1e-12)
        assert_allclose(posterior.precision, right[1].precision, rtol=1e-9)
        assert_array_equal(kept.entity_posterior(("user_id", "tab"), [3, "tab 1"])[1].mean, posterior.mean)
        assert_array_equal(kept.entity_posterior("user x tab", (3, "tab 1"))[1].mean, posterior.mean)
        assert kept.entity_posterior(("user", "tab"), (3, "tab 9"))[2] == 0


def test_a_categorical_feature_is_part_of_a_combination():
    """As the tab of an impression, which older logs do not have: no column that the schema calls an entity."""
    features = {"screen": ac.Feature(column="tab", kind="categorical")}
    model = ac.GLMix(random=[["user", "screen"]]).fit(events_of(replace(SCHEMA, features=features), log()))
    entities = {**SCHEMA.entities, "screen": "tab"}
    expected = ac.GLMix(random=[["user", "screen"]]).fit(events_of(replace(SCHEMA, entities=entities), log()))
    assert_same_states(model.states(("user", "screen")), expected.states(("user", "screen")))
    with pytest.raises(ConfigError, match="no entity 'tab' in the schema"):
        ac.GLMix(random=[["user", "tab"]]).fit(events_of(replace(SCHEMA, features=features), log()))


def test_a_combination_without_one_of_its_parts_is_none():
    schema = with_authors(SOME)
    model = learned(ac.GLMix(random=[ac.RandomEffect(["user", "video.author_id"])]), schema)
    pairs = {
        (user, video % 3)
        for seed in (0, 1)
        for user, video in zip(log(seed=seed)["user_id"], log(seed=seed)["video_id"], strict=True)
        if video < 8
    }
    assert set(model.states(("user", "video.author_id")).ids.tolist()) == {f"{u}\x1fauthor {a}" for u, a in pairs}


def test_numbers_that_came_as_floats_are_combined_as_whole_ones():
    floats = {"video_id": np.arange(12), "author_id": np.array([*(np.arange(8) % 4), *[np.nan] * 4])}
    model = learned(ac.GLMix(random=[ac.RandomEffect(["user", "video.author_id"])]), with_authors(floats))
    assert model.entity_posterior(("user", "video.author_id"), (3, 2))[2] > 0


@pytest.mark.parametrize("id", [3, "3", (3,), (3, 1, 2)])
def test_an_id_of_a_combination_has_all_of_its_parts(id):
    model = habits().fit(events_of(with_tabs(), log()))
    with pytest.raises(MismatchError, match=r"an id of 'user x tab' is of 2 parts"):
        model.entity_posterior(("user", "tab"), id)
    with pytest.raises(ConfigError, match=r"no random effect of 'tab x user' \(there are: user, user x tab\)"):
        model.entity_posterior(("tab", "user"), (1, 3))


def test_a_combination_is_locked_by_what_it_is_called():
    schema = with_tabs()
    model = habits().fit(events_of(schema, log()))
    before, users = model.states("user x tab"), model.states("user")
    model.update(events_of(schema, log(seed=1)), locked=["user x tab"])
    assert_same_states(model.states("user x tab"), before)
    assert model.states("user").posterior.mean.tolist() != users.posterior.mean.tolist()


def test_two_levels_of_one_entity_are_one_whose_variances_add_up():
    """Their sum is all that rows say of them: levels of precisions 2 and 3 are one of 1 / (1/2 + 1/3)."""
    options = {"learn_population": False, "tolerance": 1e-9}
    effects = [ac.RandomEffect("user", ridge=2.0), ac.RandomEffect("user", ridge=3.0, name="more")]
    two, one = (
        ac.GLMix(random=effects, **options),
        ac.GLMix(random=[ac.RandomEffect("user", ridge=1.2)], **options),
    )
    asked = events_of(SCHEMA, log(seed=2))
    first, second = (events_of(SCHEMA, log(seed=seed)) for seed in (0, 1))
    assert_allclose(two.fit(first).predict(asked), one.fit(first).predict(asked), rtol=1e-7)
    shares = [two.entity_posterior(name, 3)[1].mean[0] for name in ("user", "more")]
    assert_allclose(shares[0] / shares[1], 1.5, rtol=1e-6)
    assert_allclose(sum(shares), one.entity_posterior("user", 3)[1].mean[0], rtol=1e-6)
    assert_allclose(two.update(second).predict(asked), one.update(second).predict(asked), atol=0.02)


def test_effects_of_one_entity_by_their_names(tmp_path):
    effects = {"user": {"half_life": "30d"}, "tastes": {"entity": "user", "features": "x", "min_rows": 3}}
    model = learned(ac.GLMix(random=effects), SCHEMA)
    model.save(tmp_path / "model")
    model = ac.GLMix.load(tmp_path / "model")
    assert [model.entity_posterior(name, 3)[0] for name in effects] == [("(intercept)",), ("(intercept)", "x")]
    assert len(model.entity_posterior("user", 3)[1].mean) == 1  # what is called so comes before whose they are
    with pytest.raises(ConfigError, match=r"2 random effects of 'user_id' \(name one of them: user, tastes\)"):
        model.entity_posterior("user_id", 3)
    users, tastes, later = model.states("user"), model.states("tastes"), events_of(SCHEMA, log(seed=2))
    model.update(later, locked=["tastes"])
    assert_same_states(model.states("tastes"), tastes)
    assert model.states("user").rows.sum() == users.rows.sum() + 300
    users = model.states("user")
    model.update(later, locked=["user_id"])
    for name, states in (("user", users), ("tastes", tastes)):
        assert_same_states(model.states(name), states)


def test_an_effect_that_forgets_beside_one_that_does_not():
    """The level of all time is what the fast one returns to."""
    effects = {"user": {}, "mood": {"entity": "user", "half_life": "1h"}}
    model = ac.GLMix(random=effects, learn_population=False).fit(events_of(SCHEMA, log()))
    rows = log(seed=1)
    days = START + 24 * HOUR * np.arange(100, 400)
    model.update(events_of(SCHEMA, {**rows, "time": days}))
    mood, level = model.states("mood").posterior, model.states("user").posterior
    assert np.abs(mood.mean).max() < np.abs(level.mean).max()
    assert mood.precision.max() < level.precision.min()
