"""Columns to design matrices: every kind of feature, its names, and an index that grows without renumbering."""

import collections
import copy
import datetime as dt
import decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import acclimate as ac
from acclimate.errors import ColumnError, ConfigError
from acclimate.features import INTERCEPT, FeatureIndex, Settled, design, encode, names_of
from acclimate.features import cells as cells_of_features

Rows = list[dict[str, float]]


class Known(NamedTuple):
    """What is known of features after some batches."""

    index: FeatureIndex = FeatureIndex()
    settled: Settled = Settled()

    @property
    def names(self) -> tuple[str, ...]:
        return self.index.names


def schema_of(zone: str = "UTC", **features: ac.Feature) -> ac.Schema:
    return ac.Schema(
        time=ac.TimeColumn("time", zone=zone), entities=["user_id"], labels="click", features=features
    )


def cells(
    column: Any,
    feature: ac.Feature | None = None,
    *,
    known: Known | None = None,
    grow: bool = True,
) -> tuple[Rows, Known]:
    """Each row of one feature ``f`` as names and values, without the intercept, and what is known then."""
    schema = schema_of(**({"f": feature} if feature else {}))
    return encoded(["f"], {"f": column}, schema, known=known, grow=grow)


def encoded(
    features: list[str],
    columns: dict[str, Any],
    schema: ac.Schema,
    *,
    known: Known | None = None,
    grow: bool = True,
) -> tuple[Rows, Known]:
    known, table = known or Known(), pa.table(columns)
    parts, settled = encode(features, table, schema, known.settled)
    X, index = design(features, parts, table.num_rows, known.index, grow=grow)
    assert X.shape == (table.num_rows, len(index))
    assert index.names[0] == INTERCEPT
    rows: Rows = []
    for row in range(X.shape[0]):
        one = X[row : row + 1].tocoo()
        assert len(set(one.col)) == len(one.col)
        values = {index.names[c]: v for c, v in zip(one.col.tolist(), one.data.tolist(), strict=True)}
        assert values.pop(INTERCEPT) == 1.0
        rows.append(values)
    return rows, Known(index, settled)


# --- numeric ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1.5, -2.0]), [1.5, -2.0]),
        (pa.array([1, -2], pa.int16()), [1.0, -2.0]),
        (pa.array([True, False]), [1.0, 0.0]),
        (pa.array([2**60 + 1, 0]), [2.0**60, 0.0]),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal(3)]), [1.25, 3.0]),
        (pa.array([0.5, 2.0], pa.float32()), [0.5, 2.0]),
    ],
    ids=["float", "integer", "boolean", "large integer", "decimal", "small float"],
)
def test_a_number_is_its_value(column, values):
    rows, known = cells(column, ac.Feature(kind="numeric"))
    assert rows == [{"f": value} for value in values]
    assert known.names == (INTERCEPT, "f")


def test_a_missing_number_is_the_mean_and_says_so():
    rows, known = cells([1.0, None, 4.0, float("nan")])
    assert rows == [{"f": 1.0}, {"f": 2.5, "f is missing": 1.0}, {"f": 4.0}, {"f": 2.5, "f is missing": 1.0}]
    assert known.settled.fill == {"f": 2.5}


def test_what_stands_in_for_a_missing_number_never_changes():
    _, known = cells([1.0, 3.0])
    assert known.names == (INTERCEPT, "f")
    for batch in ([100.0, None], [None], [7.0, 8.0]):
        rows, known = cells(pa.array(batch, pa.float64()), known=known)
        assert known.settled.fill == {"f": 2.0}
        assert rows[-1]["f"] == (2.0 if batch[-1] is None else 8.0)
    assert known.names == (INTERCEPT, "f", "f is missing")


def test_rows_that_are_not_there_say_nothing_about_the_mean():
    _, known = cells(pa.array([], pa.float64()))
    assert known.settled.fill == {}
    rows, known = cells([4.0, None], known=known)
    assert rows[1]["f"] == 4.0


@pytest.mark.parametrize("nothing", [pa.nulls(2, pa.float64()), [float("nan")] * 2], ids=["null", "NaN"])
def test_a_mean_of_nothing_is_zero_until_a_value_is_known(nothing):
    rows, known = cells(nothing)
    assert rows == [{"f": 0.0, "f is missing": 1.0}] * 2
    assert known.settled == Settled()
    rows, known = cells([8.0, None], known=known)
    assert rows == [{"f": 8.0}, {"f": 8.0, "f is missing": 1.0}]
    assert cells([5.0, None], known=known)[0][1]["f"] == 8.0


def test_the_mean_does_not_depend_on_the_order_of_rows():
    values = np.random.default_rng(0).normal(size=501)
    shuffled = [np.random.default_rng(seed).permutation(values) for seed in range(6)]
    assert len({float(np.mean(one)) for one in shuffled}) > 1  # by the rounding of a plain sum
    assert len({cells(one)[1].settled.fill["f"] for one in shuffled}) == 1


def test_a_prediction_learns_no_mean():
    _, known = cells([5.0, None], grow=False)
    assert known.index == FeatureIndex()
    settled = Settled()
    assert encode(["f"], pa.table({"f": [5.0, None]}), schema_of(), settled)[1].fill == {"f": 5.0}
    assert settled == Settled()  # what a prediction settles goes with it


@pytest.mark.parametrize("column", [[0.0, 3.0, None], pa.array([0, 3, None])])
def test_a_transform_makes_a_feature_numeric(column):
    rows, _ = cells(column, ac.Feature(transform="log1p"))
    assert_allclose([row["f"] for row in rows], [0.0, np.log(4.0), np.log(4.0) / 2], rtol=1e-15)
    assert "f is missing" in rows[2]


def test_log1p_of_what_has_none():
    with pytest.raises(ColumnError, match=r"'f' cannot take log1p of 2 values at or below -1, such as -3\.0"):
        cells([1.0, -1.0, -3.0, None], ac.Feature(transform="log1p"))


# --- categorical --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (pa.array([7, 3, 7]), ["7", "3", "7"]),
        (pa.array(["a", "b c", "a"]), ["a", "b c", "a"]),
        (pa.array(["a", "b", "a"], pa.large_string()), ["a", "b", "a"]),
        (pa.array([True, False, True]), ["True", "False", "True"]),
        (pa.array([dt.date(2022, 4, 25), dt.date(2022, 5, 1)]), ["2022-04-25", "2022-05-01"]),
    ],
    ids=["integers", "text", "large text", "booleans", "dates"],
)
def test_a_category_is_a_column_of_its_own(column, levels):
    rows, known = cells(column)
    assert rows == [{f"f={level}": 1.0} for level in levels]
    assert known.names == (INTERCEPT, *dict.fromkeys(f"f={level}" for level in levels))
    assert known.settled.fill == {}


def test_codes_that_were_read_as_floats_keep_their_names():
    """Integers with gaps come as floats from many readers."""
    column = pa.array([1.0, None, 2.5, float("nan"), 3.0])
    rows, _ = cells(column, ac.Feature(kind="categorical"))
    assert rows == [{name: 1.0} for name in ("f=1", "f is missing", "f=2.5", "f is missing", "f=3")]
    integers, _ = cells(pa.array([1, None, 3]))
    assert integers == [rows[0], rows[1], rows[4]]


def test_no_text_is_a_level_and_null_is_not():
    assert cells(["", None, " "])[0] == [{"f=": 1.0}, {"f is missing": 1.0}, {"f= ": 1.0}]


def test_buckets_hash_levels_into_so_many_columns():
    words = [f"word {i}" for i in range(200)]
    rows, known = cells([*words, None], ac.Feature(buckets=8))
    names = [next(iter(row)) for row in rows]
    assert set(names) == {*(f"f#{b}" for b in range(8)), "f is missing"}
    assert names[-1] == "f is missing"
    assert all(list(row.values()) == [1.0] for row in rows)
    # The bucket of a level is a matter of the level alone.
    again, _ = cells(words[::-1], ac.Feature(buckets=8), known=known, grow=False)
    assert again[::-1] == rows[:-1]
    counts = np.unique(names[:-1], return_counts=True)[1]
    assert counts.min() > 10


@pytest.mark.parametrize(
    ("column", "names"), [([1.0, 2.0], 1), (pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)), 2)]
)
def test_buckets_make_levels_of_numbers(column, names):
    rows, _ = cells(column, ac.Feature(buckets=1000))
    assert all(name.startswith("f#") for row in rows for name in row)
    assert {len(row) for row in rows} == {names}


# --- multi-valued -------------------------------------------------------------------------------------------

LISTS = [["a", "b"], [], None, ["b", None, "b"], ["c"]]
AS_CELLS = [
    {"f=a": 1.0, "f=b": 1.0},
    {},
    {"f is missing": 1.0},
    {"f=b": 1.0, "f is missing": 1.0},
    {"f=c": 1.0},
]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())], ids=str)
def test_a_list_is_the_set_of_its_levels(kind):
    column = pa.array(LISTS, kind)
    assert cells(column)[0] == AS_CELLS
    assert cells(column, ac.Feature(kind="multi"))[0] == AS_CELLS
    assert set(cells(column)[1].names) == {INTERCEPT, "f=a", "f=b", "f=c", "f is missing"}


def test_lists_that_are_a_part_of_a_larger_column():
    column = pa.array(LISTS)
    assert cells(column.slice(1, 3))[0] == AS_CELLS[1:4]
    assert cells(pa.chunked_array([column, column.slice(3)]).slice(2))[0] == [*AS_CELLS[2:], *AS_CELLS[3:]]


def test_what_a_missing_list_hides_stays_hidden():
    offsets, mask = pa.array([0, 1, 3, 4]), pa.array([False, True, False])
    column = pa.ListArray.from_arrays(offsets, pa.array(["a", "hidden", "hidden", "b"]), mask=mask)
    assert column.to_pylist() == [["a"], None, ["b"]]
    assert cells(column)[0] == [{"f=a": 1.0}, {"f is missing": 1.0}, {"f=b": 1.0}]


def test_lists_of_numbers_and_of_one_size():
    column = pa.array([[1, 2], None, [2, 2]], pa.list_(pa.int64(), 2))
    rows, _ = cells(column, ac.Feature(kind="multi"))
    assert rows == [{"f=1": 1.0, "f=2": 1.0}, {"f is missing": 1.0}, {"f=2": 1.0}]
    assert cells(pa.array([[1, 2], [3]]))[0] == [{"f=1": 1.0, "f=2": 1.0}, {"f=3": 1.0}]


@pytest.mark.parametrize("feature", [ac.Feature(kind="multi", separator="|"), ac.Feature(separator="|")])
def test_text_is_cut_at_the_separator(feature):
    column = ["a|b", " a |b c| a ", "", "||", None, "b c", " "]
    rows, known = cells(column, feature)
    both = {"f=a": 1.0, "f=b c": 1.0}
    assert rows == [{"f=a": 1.0, "f=b": 1.0}, both, {}, {}, {"f is missing": 1.0}, {"f=b c": 1.0}, {}]
    assert known.names == (INTERCEPT, "f=a", "f=b", "f=b c", "f is missing")


def test_numbers_are_cut_as_the_text_they_are():
    assert cells(pa.array([12, None]), ac.Feature(separator=","))[0] == [{"f=12": 1.0}, {"f is missing": 1.0}]


def test_buckets_of_lists():
    """Two levels of a row that fall into one bucket are one."""
    rows, _ = cells([["a", "b", "c"], ["a"]], ac.Feature(buckets=2))
    assert set(rows[0]) <= {"f#0", "f#1"}
    assert set(rows[0].values()) == {1.0}
    assert set(rows[1]) <= set(rows[0])


# --- embeddings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "feature"),
    [
        (pa.list_(pa.float64(), 2), None),
        (pa.list_(pa.float32(), 2), None),
        (pa.list_(pa.float64()), ac.Feature(kind="embedding")),
        (pa.list_(pa.int64(), 2), None),
    ],
    ids=str,
)
def test_an_embedding_has_a_column_for_each_position(kind, feature):
    column = pa.array([[1, 2], None, [0, 4]], kind)
    rows, known = cells(column, feature)
    assert rows == [{"f[0]": 1.0, "f[1]": 2.0}, {"f is missing": 1.0}, {"f[0]": 0.0, "f[1]": 4.0}]
    assert known.names == (INTERCEPT, "f[0]", "f[1]", "f is missing")
    assert cells(column.slice(2), feature)[0] == rows[2:]
    assert cells(column.slice(1, 1), feature)[0] == rows[1:2]


def test_ragged_vectors_are_no_embedding():
    column = pa.array([[1.0, 2.0], [1.0], None, [1.0, 2.0, 3.0]])
    with pytest.raises(ColumnError, match=r"embedding 'f' has vectors of 3 lengths: \[1, 2, 3\]"):
        cells(column, ac.Feature(kind="embedding"))


def test_a_vector_with_gaps_is_no_embedding():
    column = pa.array([[1.0, None], [float("nan"), 2.0], None], pa.list_(pa.float64(), 2))
    with pytest.raises(ColumnError, match="embedding 'f' has 2 missing values inside vectors"):
        cells(column)


# --- time of day, day of week -------------------------------------------------------------------------------


def moments(*texts: str) -> pa.Array:
    return pa.array([dt.datetime.fromisoformat(text) for text in texts], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize(
    ("zone", "hours", "days"),
    [
        ("UTC", [0, 1, 17], ["Sunday", "Sunday", "Sunday"]),
        ("Asia/Shanghai", [8, 9, 1], ["Sunday", "Sunday", "Monday"]),
        ("America/New_York", [20, 21, 13], ["Saturday", "Saturday", "Sunday"]),
        ("Europe/Berlin", [1, 3, 19], ["Sunday", "Sunday", "Sunday"]),  # the clock goes from 2 to 3
        ("Asia/Kolkata", [6, 7, 23], ["Sunday", "Sunday", "Sunday"]),  # 5:30 ahead, and 30 minutes past
    ],
)
def test_hours_and_weekdays_are_those_of_the_zone(zone, hours, days):
    time = moments("2022-03-27T00:30Z", "2022-03-27T01:30Z", "2022-03-27T17:30Z")
    rows, _ = encoded(["hour", "weekday"], {"time": time}, schema_of(zone))
    assert rows == [{f"hour={h}": 1.0, f"weekday={d}": 1.0} for h, d in zip(hours, days, strict=True)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai"])
def test_hours_across_a_change_of_clocks_are_those_that_clocks_show(zone):
    """Every half hour of the two weeks in which clocks change, against the standard library."""
    start = dt.datetime(2022, 3, 25, tzinfo=dt.UTC), dt.datetime(2022, 10, 28, tzinfo=dt.UTC)
    times = [day + dt.timedelta(minutes=30 * i) for day in start for i in range(2 * 24 * 14)]
    rows, _ = encoded(["hour", "weekday"], {"time": pa.array(times, pa.timestamp("us", "UTC"))}, schema_of(zone))
    local = [time.astimezone(ZoneInfo(zone)) for time in times]
    assert rows == [{f"hour={t.hour}": 1.0, f"weekday={t:%A}": 1.0} for t in local]


def test_hours_of_another_column():
    schema = schema_of("Asia/Shanghai", start=ac.Feature(kind="hour", column="began"))
    began = pa.array([dt.datetime(2022, 3, 27, 20, 5, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC"))
    rows, _ = encoded(["start"], {"began": began}, schema)
    assert rows == [{"start=4": 1.0}, {"start is missing": 1.0}]
    naive = pa.array([dt.datetime(2022, 3, 27, 20, 5)], pa.timestamp("us"))
    assert encoded(["start"], {"began": naive}, schema)[0] == [{"start=20": 1.0}]


# --- crosses ------------------------------------------------------------------------------------------------


def test_a_cross_of_categories():
    schema = schema_of(both=ac.Feature(kind="cross", of=["tab", "genre"]))
    columns = {"tab": [1, 2, 1, None], "genre": ["a", "a", "b", "b"]}
    rows, known = encoded(["both"], columns, schema)
    names = ["tab=1 x genre=a", "tab=2 x genre=a", "tab=1 x genre=b", "tab is missing x genre=b"]
    assert rows == [{name: 1.0} for name in names]
    assert set(known.names) == {INTERCEPT, *names}  # pairs that were never seen have no column


def test_a_cross_of_levels_and_a_number():
    schema = schema_of(both=ac.Feature(kind="cross", of=["tags", "price"]))
    columns = {"tags": [["a", "b"], ["b"], [], None], "price": [2.0, None, 3.0, 4.0]}
    rows, known = encoded(["both", "price"], columns, schema)
    assert rows == [
        {"tags=a x price": 2.0, "tags=b x price": 2.0, "price": 2.0},
        {"tags=b x price": 3.0, "tags=b x price is missing": 1.0, "price": 3.0, "price is missing": 1.0},
        {"price": 3.0},
        {"tags is missing x price": 4.0, "price": 4.0},
    ]
    assert known.settled.fill == {"price": 3.0}


def test_a_cross_of_three_and_of_a_cross():
    three = ac.Feature(kind="cross", of=["a", "b", "c"])
    nested = ac.Feature(kind="cross", of=["ab", "c"])
    schema = schema_of(three=three, ab=ac.Feature(kind="cross", of=["a", "b"]), nested=nested)
    columns = {"a": [1, 2], "b": [[3, 4], [3]], "c": [0.5, 2.0]}
    rows, _ = encoded(["three"], columns, schema)
    assert rows == [{"a=1 x b=3 x c": 0.5, "a=1 x b=4 x c": 0.5}, {"a=2 x b=3 x c": 2.0}]
    assert encoded(["nested"], columns, schema)[0] == rows


def test_a_cross_of_embeddings_is_their_outer_product():
    vectors = pa.list_(pa.float64(), 2)
    schema = schema_of(both=ac.Feature(kind="cross", of=["v", "w"]))
    columns = {"v": pa.array([[1.0, 2.0]], vectors), "w": pa.array([[3.0, 5.0]], vectors)}
    rows, _ = encoded(["both"], columns, schema)
    assert rows == [{"v[0] x w[0]": 3.0, "v[0] x w[1]": 5.0, "v[1] x w[0]": 6.0, "v[1] x w[1]": 10.0}]


# --- once for all effects -----------------------------------------------------------------------------------


def test_a_feature_is_encoded_once_however_many_use_it(monkeypatch):
    """Alone, twice in a cross of its own, and in a cross of crosses."""
    counted, encode_column = collections.Counter[str](), cells_of_features._encode_column

    def counting(feature: str, *rest: Any) -> Any:
        counted[feature] += 1
        return encode_column(feature, *rest)

    monkeypatch.setattr(cells_of_features, "_encode_column", counting)
    pair = ac.Feature(kind="cross", of=["a", "b"])
    schema = schema_of(pair=pair, nested=ac.Feature(kind="cross", of=["pair", "c"]))
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]})
    parts, settled = encode(["a", "nested", "pair", "a", "c"], table, schema, Settled())
    assert counted == {"a": 1, "b": 1, "c": 1}
    assert parts.keys() == {"a", "b", "c", "pair", "nested"}
    assert settled == Settled({"c": 0.5}, {"a": "categorical", "b": "categorical", "c": "numeric"})


def test_one_encoding_serves_several_designs():
    """Each is what an encoding for it alone gives, and leaves the cells as they are."""
    schema = schema_of(both=ac.Feature(kind="cross", of=["tags", "price"]))
    columns = {"tags": [["a", "b"], ["b"], None], "price": [2.0, None, 4.0]}
    table = pa.table(columns)
    parts, settled = encode(["price", "both", "tags"], table, schema, Settled())
    before = copy.deepcopy(parts)
    for features in (["price"], ["both"], ["tags", "price"], ["price", "tags"], [], ["both", "price", "tags"]):
        X, index = design(features, parts, 3, FeatureIndex(), grow=True)
        alone, _ = encode(features, table, schema, Settled())
        expected, names = design(features, alone, 3, FeatureIndex(), grow=True)
        assert index == names
        assert_array_equal(X.toarray(), expected.toarray())
        assert set(index.names) == {INTERCEPT, *names_of(parts[name] for name in features)}
    assert settled.fill == {"price": 3.0}
    for name, part in parts.items():
        assert part.names == before[name].names
        for field in ("row", "level", "value"):
            assert_array_equal(getattr(part, field), getattr(before[name], field))


def test_two_indexes_of_one_encoding_grow_by_themselves():
    parts, _ = encode(["f", "g"], pa.table({"f": ["a", "b"], "g": ["u", "u"]}), schema_of(), Settled())
    known = FeatureIndex().grown(["f=b"])
    X, grown = design(["f"], parts, 2, known, grow=True)
    assert grown.names == (INTERCEPT, "f=b", "f=a")
    assert_array_equal(X.toarray(), [[1, 0, 1], [1, 1, 0]])
    X, same = design(["f", "g"], parts, 2, known, grow=False)
    assert same is known
    assert_array_equal(X.toarray(), [[1, 0], [1, 1]])


def test_what_was_settled_is_not_changed_in_place():
    settled = Settled({"f": 2.0}, {"f": "numeric"}, {})
    table = pa.table({"f": [None, 7.0], "g": [1.0, 3.0], "v": pa.array([[1.0]] * 2, pa.list_(pa.float64(), 1))})
    _, after = encode(["f", "g", "v"], table, schema_of(), settled)
    assert settled == Settled({"f": 2.0}, {"f": "numeric"}, {})
    assert after.fill == {"f": 2.0, "g": 2.0}
    assert after.kinds == {"f": "numeric", "g": "numeric", "v": "embedding"}
    assert after.sizes == {"v": 1}


# --- no rows, no values, no such type -----------------------------------------------------------------------

ALL = {
    "number": ac.Feature(kind="numeric"),
    "level": ac.Feature(kind="categorical"),
    "tags": ac.Feature(kind="multi"),
    "text": ac.Feature(kind="multi", separator=","),
    "vector": ac.Feature(kind="embedding"),
    "hour": ac.Feature(kind="hour"),
    "both": ac.Feature(kind="cross", of=["level", "tags"]),
    "scaled": ac.Feature(kind="cross", of=["tags", "number"]),
}
TYPES = {
    "time": pa.timestamp("us", "UTC"),
    "number": pa.float64(),
    "level": pa.string(),
    "tags": pa.list_(pa.string()),
    "text": pa.string(),
    "vector": pa.list_(pa.float64(), 3),
}


def test_a_table_without_rows_has_no_cells():
    rows, known = encoded(list(ALL), {n: pa.array([], t) for n, t in TYPES.items()}, schema_of(**ALL))
    assert rows == []
    assert known == Known()


def test_no_features_leave_the_intercept():
    rows, known = encoded([], {"time": moments("2022-03-27T00:30Z")}, schema_of())
    assert rows == [{}]
    assert len(known.index) == 1


@pytest.mark.parametrize("name", ["number", "level", "tags", "text", "vector"])
def test_a_column_of_nothing_but_nulls_is_missing(name):
    """Without a type, as a frame of objects that are all None is read."""
    rows, _ = encoded([name], {name: pa.nulls(2)}, schema_of(**ALL))
    assert rows == [{f"{name} is missing": 1.0} | ({"number": 0.0} if name == "number" else {})] * 2


@pytest.mark.parametrize(
    ("column", "feature", "message"),
    [
        (["a"], ac.Feature(kind="numeric"), "'f' is numeric, but column 'f' holds string"),
        ([[1.0]], ac.Feature(kind="numeric"), "'f' is numeric, but column 'f' holds list<"),
        (["a"], ac.Feature(kind="multi"), "'f' is multi, but column 'f' holds string .*a separator"),
        ([[["a"]]], ac.Feature(kind="multi"), "'f' is multi, but column 'f' holds list<"),
        ([1.0], ac.Feature(kind="embedding"), "'f' is embedding, but column 'f' holds double"),
        ([["a"]], ac.Feature(kind="embedding"), "'f' is embedding, but column 'f' holds list<"),
        ([["a"]], ac.Feature(kind="categorical"), "'f' is categorical, but column 'f' holds list<"),
        ([{"a": 1}], None, "'f' is categorical, but column 'f' holds struct<"),
        ([3], ac.Feature(kind="hour", column="f"), "'f' is hour, but column 'f' holds int64 .*time"),
        (["x"], ac.Feature(kind="weekday", column="f"), "'f' is weekday, but column 'f' holds string"),
    ],
)
def test_a_wrong_type_is_named(column, feature, message):
    with pytest.raises(ColumnError, match=message):
        cells(column, feature)


# --- what the first values settle ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [[3.0, 1.0, float("nan")], pa.array([3.0, 1.0, None], pa.float32()), [decimal.Decimal("3.0"), 1, None]],
    ids=["NaN", "small float", "decimal"],
)
def test_categories_that_come_as_floats_keep_their_columns(column):
    """As a frame turns integers into floats where one is missing."""
    _, known = cells([1, 3])
    rows, known = cells(column, known=known)
    assert rows == [{"f=3": 1.0}, {"f=1": 1.0}, {"f is missing": 1.0}]
    assert known.names == (INTERCEPT, "f=1", "f=3", "f is missing")
    assert cells([10**15], known=known)[0] == cells([1e15], known=known)[0] == [{f"f={10**15}": 1.0}]


def test_numbers_that_come_as_integers_stay_numbers():
    _, known = cells([1.5, 2.5])
    assert cells([3, None], known=known)[0] == [{"f": 3.0}, {"f": 2.0, "f is missing": 1.0}]


@pytest.mark.parametrize("first", [[1, 3], [1.5], [["a"]], ["a"]], ids=str)
def test_a_column_of_nothing_is_missing_whatever_the_kind(first):
    _, known = cells(first)
    for nothing in (pa.nulls(1), pa.nulls(1, pa.float64()), [float("nan")], pa.nulls(1, pa.string())):
        rows, same = cells(nothing, known=known)
        assert rows[0]["f is missing"] == 1.0
        assert same.settled == known.settled


def test_a_column_of_nothing_settles_no_kind():
    _, known = cells([float("nan")])
    assert cells([4], known=known)[0] == [{"f=4": 1.0}]


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ([1, 3], [1.5], "'f' was categorical, but its column now holds double that are not whole"),
        (["a"], [["a"]], "'f' was categorical, but column 'f' holds list<"),
        ([1.5], ["a"], "'f' was numeric, but column 'f' holds string"),
        ([["a"]], ["a"], "'f' was multi, but column 'f' holds string"),
        (pa.array([[1.0]], pa.list_(pa.float64(), 1)), [1.0], "'f' was embedding, but column 'f' holds double"),
        (
            pa.array([[1.0]], pa.list_(pa.float64(), 1)),
            [[1.0, 2.0]],
            "'f' had vectors of length 1, and now has them of length 2",
        ),
    ],
)
def test_a_feature_that_changes_its_kind_is_an_error(first, then, message):
    _, known = cells(first)
    for grow in (True, False):
        with pytest.raises(ColumnError, match=message):
            cells(then, known=known, grow=grow)


# --- the index ----------------------------------------------------------------------------------------------


def test_an_unseen_level_leaves_no_cell():
    _, known = cells(["a", "b"])
    rows, same = cells(["a", "new", None], known=known, grow=False)
    assert rows == [{"f=a": 1.0}, {}, {}]
    assert same.index is known.index
    assert same.settled == known.settled


def test_an_index_that_learns_nothing_is_itself():
    _, known = cells(["a", "b"])
    same = cells(["b", "a"], known=known)[1]
    assert same.index is known.index
    assert same.settled == known.settled


def test_numbers_of_names():
    index = FeatureIndex().grown(["b", "a", "b", INTERCEPT])
    assert index.names == (INTERCEPT, "b", "a")
    assert_array_equal(index.numbers(["a", "nobody", "b", INTERCEPT]), [2, -1, 1, 0])
    assert index.grown(["a"]) is index
    assert index.grown([]) is index
    assert index.grown(["c", "a"]).names == (INTERCEPT, "b", "a", "c")
    assert len(index) == 3


letter = st.sampled_from("abcde") | st.none()
row = st.fixed_dictionaries(
    {
        "number": st.floats(-5, 5).map(lambda x: round(x, 2)) | st.none(),
        "level": letter,
        "tags": st.lists(letter, max_size=3) | st.none(),
        "text": st.lists(st.sampled_from(["a", " b", "c ", ""]), max_size=3).map(",".join) | st.none(),
        "vector": st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=3, max_size=3) | st.none(),
        "time": st.datetimes(dt.datetime(2022, 3, 1), dt.datetime(2022, 4, 1)),
    }
)


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}


@settings(max_examples=50)
@given(batches=st.lists(st.lists(row, max_size=5), min_size=1, max_size=4))
def test_an_index_grows_and_never_renumbers(batches):
    """After any batches: old columns keep their numbers, and every row seen before has the cells it had."""
    schema, known = schema_of(**ALL), Known()
    seen: list[tuple[dict[str, Any], Rows]] = []
    for batch in batches:
        old = known
        rows, known = encoded(list(ALL), columns_of(batch), schema, known=old)
        assert known.names[: len(old.names)] == old.names
        assert len(set(known.names)) == len(known.names)
        assert old.settled.fill.items() <= known.settled.fill.items()
        if "number" in known.settled.fill:  # until then nothing stands in for a missing one
            seen.append((columns_of(batch), rows))
        for columns, before in seen:
            assert encoded(list(ALL), columns, schema, known=known, grow=False)[0] == before
            again = encoded(list(ALL), columns, schema, known=known)[1]
            assert again.index is known.index
            assert again.settled == known.settled


@settings(max_examples=50)
@given(rows=st.lists(row, min_size=1, max_size=6), seed=st.integers(0, 100))
def test_rows_are_encoded_one_by_one(rows, seed):
    """With an index that knows them, a row's cells depend on that row alone, wherever it stands."""
    schema = schema_of(**ALL)
    together, known = encoded(list(ALL), columns_of(rows), schema)
    order = np.random.default_rng(seed).permutation(len(rows))
    moved, _ = encoded(list(ALL), columns_of([rows[i] for i in order]), schema, known=known, grow=False)
    assert moved == [together[i] for i in order]
    alone = [encoded(list(ALL), columns_of([r]), schema, known=known, grow=False)[0][0] for r in rows]
    assert alone == together


@given(rows=st.lists(row, min_size=1, max_size=6))
def test_all_kinds_at_once_equal_a_plain_reading_of_the_rows(rows):
    """The reference reads the rows with ordinary Python."""
    numbers = [r["number"] for r in rows if r["number"] is not None]
    mean = sum(map(decimal.Decimal, numbers)) / max(len(numbers), 1)
    read, _ = encoded(list(ALL), columns_of(rows), schema_of(**ALL))
    for r, actual in zip(rows, read, strict=True):
        number = {"number": float(mean) if r["number"] is None else r["number"]}
        number |= {"number is missing": 1.0} if r["number"] is None else {}
        level = {name("level", r["level"]): 1.0}
        tags = {name("tags", tag): 1.0 for tag in ([None] if r["tags"] is None else r["tags"])}
        parts = [None] if r["text"] is None else [p.strip() for p in r["text"].split(",") if p.strip()]
        vector = {"vector is missing": 1.0} if r["vector"] is None else {}
        vector |= {f"vector[{i}]": v for i, v in enumerate(r["vector"] or [])}
        expected = number | level | tags | vector | {name("text", part): 1.0 for part in parts}
        expected |= {f"hour={r['time'].hour}": 1.0}
        expected |= {f"{a} x {b}": 1.0 for a in level for b in tags}
        expected |= {f"{a} x {b}": v for a in tags for b, v in number.items()}
        assert actual == pytest.approx(expected, rel=1e-12)


def name(feature: str, level: str | None) -> str:
    return f"{feature} is missing" if level is None else f"{feature}={level}"


def test_crosses_of_themselves_and_features_named_twice_are_errors() -> None:
    parts = {"time": "time", "entities": ["user"], "labels": ["click"]}
    with pytest.raises(ConfigError, match="the cross 'both' is made of itself"):
        ac.Schema(**parts, features={"both": ac.Feature(kind="cross", of=["both", "tab"])})
    with pytest.raises(ConfigError, match="named twice in tab, hour, tab"):
        ac.FixedEffect(["tab", "hour", "tab"])
