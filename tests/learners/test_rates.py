import copy
import dataclasses
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate.artifacts import Events, TableSource
from acclimate.config import GlobalRateParameters, RateParameters, Schema
from acclimate.errors import ConfigError, FormatError, MismatchError, NotFittedError, OutputExistsError
from acclimate.learners.rates import GlobalRate, Rate

SCHEMA = Schema(time="time", entities={"user": "user_id", "video": "video_id"}, labels=("y", "z"))
WEIGHTED = dataclasses.replace(SCHEMA, weight="w")


def as_events(users, y, *, z=None, w=None, schema=SCHEMA, batch=1000) -> Events:
    rows = len(y)
    columns = {
        "time": pa.array(np.arange(rows)).cast(pa.timestamp("us", "UTC")),
        "user_id": pa.array(np.asarray(users)),
        "video_id": pa.array(np.zeros(rows, np.int64)),
        "y": pa.array(y, pa.int8()),
        "z": pa.array([0] * rows if z is None else z, pa.int8()),
    }
    if w is not None:
        columns["w"] = pa.array(w, pa.float64())
    table = pa.table(columns)
    table = pa.Table.from_batches(table.to_batches(max_chunksize=batch), table.schema)
    return Events(schema, TableSource(schema, table))


USERS, Y, W = [7, 7, 3, 7, 3], [1, 1, 0, None, 1], [2.0, 1.0, 0.5, 9.0, 0.0]


@pytest.fixture(params=[GlobalRate, lambda: Rate("user", prior_rows=3.0)], ids=["global", "entity"])
def learner(request):
    return request.param()


def test_the_global_rate_counts_half_a_row_of_each_label_more():
    events = as_events(USERS, Y)
    assert_allclose(GlobalRate().fit(events).predict(events), np.full(5, 3.5 / 5), rtol=1e-15)
    weighted = as_events(USERS, Y, w=W, schema=WEIGHTED)
    assert_allclose(GlobalRate().fit(weighted).predict(weighted), np.full(5, 3.5 / 4.5), rtol=1e-15)


def test_an_entity_starts_with_prior_rows_at_the_global_rate():
    events, rate = as_events(USERS, Y), 3.5 / 5
    seven, three = (2 + 3 * rate) / 5, (1 + 3 * rate) / 5
    asked = as_events([3, 99, 7], [None, None, None])
    assert_allclose(Rate("user", prior_rows=3).fit(events).predict(asked), [three, rate, seven], rtol=1e-15)
    events, rate = as_events(USERS, Y, w=W, schema=WEIGHTED), 3.5 / 4.5
    asked = as_events([3, 7], [0, 0], w=[1, 1], schema=WEIGHTED)
    known = Rate("user_id", prior_rows=3).fit(events).predict(asked)
    assert_allclose(known, [(0 + 3 * rate) / 3.5, (3 + 3 * rate) / 6], rtol=1e-15)


def test_each_label_has_its_own_rate():
    events = as_events([1, 1, 2], [1, 1, 1], z=[0, 0, None])
    assert GlobalRate("z").fit(events).predict(events)[0] == pytest.approx(0.5 / 3)
    assert GlobalRate().fit(events).predict(events)[0] == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("y", [[0] * 50, [1] * 50, [None] * 50, []])
def test_probabilities_are_never_certain(learner, y):
    asked = as_events([0, 1, 10], [None] * 3)
    p = learner.fit(as_events(np.arange(len(y)) % 2, y)).predict(asked)
    assert ((p > 0) & (p < 1)).all()
    assert p.shape == (3,)


def test_no_rows_have_no_predictions(learner):
    assert learner.fit(as_events(USERS, Y)).predict(as_events(np.zeros(0, np.int64), [])).shape == (0,)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "dd"]), st.sampled_from([0, 1, None])), max_size=30),
    cut=st.integers(0, 30),
    batch=st.integers(1, 7),
)
def test_batches_and_order_do_not_matter(rows, cut, batch):
    users, y = np.array([r[0] for r in rows], "U2"), [r[1] for r in rows]
    whole = as_events(users, y)
    asked = as_events(["a", "b", "c", "dd", "new"], [None] * 5)
    for make in (GlobalRate, lambda: Rate("user")):
        expected = make().fit(whole).predict(asked)
        stepwise = make().fit(whole.before(cut)).update(whole.after(cut)).predict(asked)
        in_batches = make().fit(as_events(users, y, batch=batch)).predict(asked)
        turned = make().fit(as_events(users[::-1], y[::-1])).predict(asked)
        for rates in (stepwise, in_batches, turned):
            assert_allclose(rates, expected, rtol=1e-15)


def test_fit_forgets_and_predict_changes_nothing(learner):
    first, second = as_events(USERS, Y), as_events([1, 2, 2, 1], [0, 0, 0, 1])
    expected = learner.fit(second).predict(first)
    learner.fit(first).update(first)
    assert_allclose(learner.fit(second).predict(first), expected, rtol=0)
    assert_allclose(learner.predict(first), expected, rtol=0)


def test_saved_it_goes_on_as_if_nothing_happened(learner, tmp_path):
    first, second = as_events(["x", "y"], [0, 1]), as_events(["z", "x", "x"], [1, 1, 0])
    learner.fit(first).save(tmp_path / "rate")
    loaded = type(learner).load(tmp_path / "rate")
    assert_allclose(loaded.predict(second), learner.predict(second), rtol=0)
    assert_allclose(loaded.update(second).predict(second), learner.update(second).predict(second), rtol=0)
    assert loaded.nbytes == learner.nbytes > 0
    assert vars(loaded).keys() - {"history"} == vars(learner).keys() - {"history"}
    with pytest.raises(OutputExistsError):
        learner.save(tmp_path / "rate")
    learner.save(tmp_path / "rate", overwrite=True)
    assert_allclose(type(learner).load(tmp_path / "rate").predict(first), learner.predict(first), rtol=0)


def test_parameters_are_saved_too(tmp_path):
    Rate("user", "z", prior_rows=5).fit(as_events(USERS, Y)).save(tmp_path / "rate")
    loaded = Rate.load(tmp_path / "rate").parameters
    assert (loaded.entity, loaded.label, loaded.prior_rows) == ("user", "z", 5)


def test_another_kind_or_nothing_is_not_loaded(tmp_path):
    GlobalRate().fit(as_events(USERS, Y)).save(tmp_path / "rate")
    with pytest.raises(MismatchError, match="'global-rate', not a 'rate'"):
        Rate.load(tmp_path / "rate")
    with pytest.raises(FormatError):
        Rate.load(tmp_path / "nothing")


def test_fit_or_load_comes_first(learner, tmp_path):
    events = as_events(USERS, Y)
    for verb in (learner.update, learner.predict):
        with pytest.raises(NotFittedError, match=r"has learned nothing yet .*fit it, or load a saved one"):
            verb(events)
    for ask in (lambda: learner.save(tmp_path / "rate"), lambda: learner.nbytes, lambda: learner.cut):
        with pytest.raises(NotFittedError, match="fit it, or load a saved one"):
            ask()
    assert not (tmp_path / "rate").exists()


def test_events_of_another_schema_are_refused(learner):
    learner.fit(as_events(USERS, Y))
    other = as_events(USERS, Y, w=W, schema=WEIGHTED)
    for verb in (learner.update, learner.predict):
        with pytest.raises(MismatchError, match="another schema"):
            verb(other)


def test_ids_of_another_type_are_refused_and_learn_nothing():
    learner = Rate("user").fit(as_events(USERS, Y))
    expected = learner.predict(as_events([7], [1]))
    for verb in (learner.update, learner.predict):
        with pytest.raises(MismatchError, match="'user_id' are string, those learned before are int64"):
            verb(as_events(["ann"], [1]))
    narrow = as_events(pa.array([7], pa.int32()), [1])
    assert_allclose(learner.predict(narrow), expected, rtol=0)


NAMES = ["ä", "a\u0308", "用户 7", "🙂", "a", "x" * 40, "Ж" * 20]


def test_text_of_any_script_is_an_id_and_survives_saving(tmp_path):
    """An umlaut in both of its spellings is two ids; text is compared as it is."""
    rng = np.random.default_rng(0)
    users, y = rng.choice(NAMES, 200), rng.integers(0, 2, 200)
    first, second = as_events(users[:120], y[:120]), as_events([*users[120:], "new ü"], [*y[120:], 1])
    asked = as_events([*NAMES, "new ü", "nobody é"], [None] * 9)
    uninterrupted = Rate("user").fit(first)
    uninterrupted.save(tmp_path / "rate")
    loaded = Rate.load(tmp_path / "rate")
    assert_allclose(loaded.predict(asked), uninterrupted.predict(asked), rtol=0)
    for learner in (uninterrupted, loaded):
        learner.update(second)
    rate = (y.sum() + 1 + 0.5) / 202
    seen = [(np.sum(y[users == name]), np.sum(users == name)) for name in NAMES] + [(1, 1), (0, 0)]
    expected = [(positives + 20 * rate) / (rows + 20) for positives, rows in seen]
    assert len({round(p, 6) for p in expected}) > 5
    for learner in (uninterrupted, loaded):
        assert_allclose(learner.predict(asked), expected, rtol=1e-14)
    loaded.save(tmp_path / "again")
    assert Rate.load(tmp_path / "again").counts.index.ids().tolist() == loaded.counts.index.ids().tolist()
    assert loaded.nbytes == 16 + 24 * 8


def test_counts_cost_what_is_touched():
    """An array of a number of each entity that is stored would take more than is allowed."""
    stored = np.arange(200_000)
    learner = Rate("user").fit(as_events(stored, stored % 2, batch=300_000))
    few = as_events([3, 199_999, 5, -1], [1, 0, 1, 1])
    learner.update(as_events([-1], [1]))  # may make room for twice as many
    for verb in (learner.update, learner.predict):
        tracemalloc.start()
        try:
            verb(few)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
    rows, positives = learner.counts.take(np.array([3, 199_999, 4, -1, 200_000]))
    assert rows.tolist() == [2, 2, 1, 2, 0]
    assert positives.tolist() == [2, 1, 0, 2, 0]
    assert learner.state.rows == 200_005
    assert learner.nbytes == 16 + 24 * 200_001


def test_late_events_do_not_turn_back_the_clock(learner):
    events = as_events(np.arange(10), [0, 1] * 5, batch=3)
    late, new = events.before(4), events.after(4)
    assert learner.fit(new).cut == 9
    assert learner.update(late).cut == 9
    assert learner.fit(late).cut == 3
    assert learner.update(new).cut == 9
    assert learner.fit(as_events([1, 2, 3], [1, 0, None])).cut == 1  # the last one is not learned


def test_a_copy_counts_for_itself():
    learner = Rate("user").fit(as_events(USERS, Y))
    other, p = copy.deepcopy(learner), learner.predict(as_events([7, 3, 9], [0] * 3))
    other.update(as_events([7, 9, 9], [0, 1, 1]))
    assert_allclose(learner.predict(as_events([7, 3, 9], [0] * 3)), p, rtol=0)
    assert other.nbytes == learner.nbytes + 24


def test_parameters_are_a_record_of_the_fields():
    assert Rate("user").parameters == RateParameters("user", label=None, prior_rows=20.0)
    assert GlobalRate("z").parameters == GlobalRateParameters(label="z")
    with pytest.raises(ConfigError, match=r"Rate: no argument 'prior_row' .*did you mean 'prior_rows'"):
        Rate("user", prior_row=3.0)
    with pytest.raises(ConfigError, match="Rate: entity: is missing"):
        Rate()


def test_names_and_numbers_that_do_not_fit():
    events = as_events(USERS, Y)
    with pytest.raises(ConfigError, match=r"no label 'yy' .*did you mean 'y'"):
        GlobalRate("yy").fit(events)
    with pytest.raises(ConfigError, match=r"no entity 'usr' .*did you mean 'user'"):
        Rate("usr").fit(events)
    for prior_rows in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="Rate: prior_rows: should be"):
            Rate("user", prior_rows=prior_rows)
