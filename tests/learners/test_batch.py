"""Reading a batch: each feature once, however many effects use it; columns for those that may grow alone."""

import collections
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_events import events_of, in_pieces

import acclimate as ac
from acclimate.errors import MismatchError
from acclimate.features import INTERCEPT, FeatureIndex, Settled, cells
from acclimate.learners import batch as batches
from acclimate.learners.batch import Batch, count_columns, read_batches
from acclimate.learners.effects import Effect, new_effects

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "video": "video_id"},
    labels="click",
    features={"taste": ac.Feature(kind="cross", of=["genre", "x"])},
)
MIXTURE = ac.GLMix(fixed=["x", "genre"], random={"user": ["genre", "taste"], "video": ["x"]})


def log(*, rows: int = 12, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "user_id": rng.integers(0, 4, rows),
        "video_id": rng.integers(0, 3, rows),
        "x": rng.normal(size=rows),
        "genre": np.array(["drama", "news"])[rng.integers(0, 2, rows)],
        "click": rng.integers(0, 2, rows),
    }


def effects(model: ac.GLMix = MIXTURE) -> list[Effect]:
    return new_effects(model.parameters, SCHEMA)


def read(data: dict[str, Any], *, settled: Settled | None = None, label: Any = "click", **how: Any) -> Batch:
    return next(read_batches(events_of(SCHEMA, data), effects(), settled or Settled(), label=label, **how))


@pytest.fixture
def encodings(monkeypatch) -> collections.Counter[str]:
    """How often the column of each feature is encoded."""
    counted, encode = collections.Counter[str](), cells._encode_column

    def counting(name: str, *rest: Any) -> Any:
        counted[name] += 1
        return encode(name, *rest)

    monkeypatch.setattr(cells, "_encode_column", counting)
    return counted


def test_a_feature_of_several_effects_and_of_a_cross_is_encoded_once(encodings):
    read(log())
    assert encodings == {"x": 1, "genre": 1}
    count_columns(events_of(SCHEMA, log()), effects(), Settled(), "click")
    assert encodings == {"x": 2, "genre": 2}


def test_a_model_encodes_each_feature_once_a_batch(encodings):
    events = events_of(SCHEMA, log(rows=60))
    model = ac.GLMix(fixed=["x", "genre"], random={"user": ["genre", "taste"], "video": ["x"]})
    for count, verb in enumerate((model.columns, model.fit, model.update, model.predict), start=1):
        verb(events)
        assert encodings == {"x": count, "genre": count}


def test_each_effect_sees_its_own_columns():
    data = {**log(), "x": np.arange(12.0), "genre": ["news"] * 5 + ["drama"] * 7}
    batch = read(data)
    fixed, user, video = batch.seen
    assert fixed.index.names == (INTERCEPT, "x", "genre=news", "genre=drama")
    assert user.index.names == (INTERCEPT, "genre=news", "genre=drama", "genre=news x x", "genre=drama x x")
    assert video.index.names == (INTERCEPT, "x")
    news = np.repeat([1.0, 0.0], [5, 7])
    drama, one, x = 1.0 - news, np.ones(12), np.arange(12.0)
    assert_array_equal(fixed.X.toarray(), np.column_stack([one, x, news, drama]))
    assert_array_equal(user.X.toarray(), np.column_stack([one, news, drama, news * x, drama * x]))
    assert_array_equal(video.X.toarray(), np.column_stack([one, x]))
    assert [seen.effect.ids for seen in batch.seen] == [None, "int64", "int64"]
    assert_array_equal(user.ids[user.codes], data["user_id"])
    assert_array_equal(video.ids[video.codes], data["video_id"])
    assert fixed.ids.tolist() == ["fixed"]
    assert_array_equal(fixed.codes, np.zeros(12))
    assert_array_equal(batch.label, data["click"])
    assert_array_equal(batch.weight, one)
    assert_array_equal(batch.offset, np.zeros(12))


def test_pieces_are_put_together(monkeypatch):
    """Names, ids and what is settled grow from one to the next, and the rows of each are as wide in the end."""
    data = {**log(rows=40), "user_id": np.arange(40) // 7, "genre": [f"g{i // 9}" for i in range(40)]}
    data["x"] = [None if i < 15 else float(i) for i in range(40)]
    whole = read(data)
    monkeypatch.setattr(batches, "_PIECE_ROWS", 6)
    source = in_pieces(events_of(SCHEMA, data), rows=6)
    pieces = next(read_batches(source, effects(), Settled(), label="click"))
    # The first piece that has any has 15, 16 and 17.
    assert whole.settled.fill["x"] != pieces.settled.fill["x"] == 16.0
    for one, other in zip(pieces.seen, whole.seen, strict=True):
        assert set(one.index.names) == set(other.index.names)
        assert_array_equal(one.ids[one.codes], other.ids[other.codes])
        assert one.X.shape == other.X.shape
    genre = [name for name in whole.seen[0].index.names if name.startswith("genre")]
    assert len(genre) == 5
    columns = [batch.seen[0].X[:, batch.seen[0].index.numbers(genre)].toarray() for batch in (pieces, whole)]
    assert_array_equal(columns[0], columns[1])


def test_what_is_locked_gets_no_columns_and_the_others_do():
    first = read(log())
    known = [seen.effect.grown(seen.index, seen.X, first.weight, {}, strength=seen.ridge) for seen in first.seen]
    data = {**log(seed=1), "genre": ["opera"] * 12}
    batch = next(read_batches(events_of(SCHEMA, data), known, first.settled, label="click", locked={"user"}))
    fixed, user, video = batch.seen
    assert fixed.index.names == (*first.seen[0].index.names, "genre=opera")
    assert user.index is known[1].index
    assert user.X.shape == (12, len(first.seen[1].index))
    assert_array_equal(user.X.toarray()[:, 1:], np.zeros((12, len(first.seen[1].index) - 1)))
    assert video.index is known[2].index  # it has no use for the new name


def test_what_a_feature_settles_is_settled_for_all_effects():
    """In a cross too; what was given is left alone."""
    settled = Settled()
    batch = read({**log(), "x": [1.0, 3.0] * 5 + [None] * 2}, settled=settled)
    assert batch.settled.fill == {"x": 2.0}
    assert batch.settled.kinds == {"x": "numeric", "genre": "categorical"}
    assert settled == Settled()
    later = read({**log(seed=1), "x": [100.0] * 11 + [None]}, settled=batch.settled)
    assert later.settled == batch.settled
    for seen in later.seen[::2]:
        assert seen.X.toarray()[-1, 1] == 2.0
    crossed = later.seen[1].X.toarray()[-1]
    assert crossed[[name.endswith(" x x") for name in later.seen[1].index.names]].sum() == 2.0


def test_a_prediction_settles_nothing():
    data = {**log(rows=60), "x": [None] * 60}
    model = ac.GLMix(fixed=["x"], random={"user": ["genre"]}).fit(events_of(SCHEMA, data))
    state = model.state
    assert state.settled.fill == {}
    asked = events_of(SCHEMA, {**log(seed=1), "x": [5.0] * 11 + [None]})
    p = model.predict(asked)
    assert model.state is state
    assert state.settled.fill == {}
    assert_array_equal(model.predict(asked), p)
    model.update(asked)
    assert model.state.settled.fill == {"x": 5.0}
    assert state.settled.fill == {}


def test_without_a_label_all_rows_are_read():
    data = {**log(), "genre": ["news", "news", "drama", "drama"] * 3, "click": [None, 1] * 6}
    assert len(read(data)) == 6
    assert len(read(data, label=None)) == 12
    assert_array_equal(read(data).seen[1].X.toarray(), read(data, label=None).seen[1].X.toarray()[1::2])


def test_columns_are_counted_as_they_are_read():
    batch = read(log(rows=30))
    assert count_columns(events_of(SCHEMA, log(rows=30)), effects(), Settled(), "click") == [
        seen.index for seen in batch.seen
    ]
    assert effects()[0].index == FeatureIndex()


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [(np.arange(12), ["anna"] * 12, "string"), (np.arange(12) + 0.0, [f"u{i}" for i in range(12)], "string")],
    ids=["text after numbers", "text after whole floats"],
)
def test_ids_of_another_type_are_named(first, then, kind):
    known = [seen.effect for seen in read({**log(), "user_id": first}).seen]
    with pytest.raises(MismatchError, match=f"ids of 'user' are {kind}, those learned before are int64"):
        next(read_batches(events_of(SCHEMA, {**log(), "user_id": then}), known, Settled(), label="click"))


def test_numbers_after_text_are_the_text_that_they_are():
    known = [seen.effect for seen in read({**log(), "user_id": ["7", "x"] * 6}).seen]
    batch = next(
        read_batches(events_of(SCHEMA, {**log(), "user_id": [7, 8] * 6}), known, Settled(), label="click")
    )
    assert batch.seen[1].ids.tolist() == ["7", "8"]
    assert batch.seen[1].effect.ids == "string"
