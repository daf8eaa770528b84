"""Records become what a table of them is read as; those that are no events are named, and change nothing else."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import acclimate as ac
from acclimate.errors import ColumnError, RowError
from acclimate.events.streams import Log, Validator, append_events, restored

START = 1_650_816_000_000_000
SCHEMA = ac.Schema(
    time="at",
    entities={"user": "user_id", "video": "video_id"},
    labels=["click", "seconds", "likes"],
    label_kinds={"seconds": "number", "likes": "count"},
    weight="weight",
    offset="offset",
    features={
        "price": ac.Feature(kind="numeric"),
        "age": ac.Feature(transform="log1p"),
        "tab": ac.Feature(kind="categorical"),
        "tags": ac.Feature(kind="multi"),
        "vector": ac.Feature(kind="embedding"),
    },
)
TYPES = {
    "at": pa.timestamp("us", "UTC"),
    "user_id": pa.int64(),
    "video_id": pa.string(),
    "click": pa.int8(),
    "seconds": pa.float64(),
    "likes": pa.int64(),
    "weight": pa.float64(),
    "offset": pa.float64(),
    "price": pa.float64(),
    "age": pa.float64(),
    "tab": pa.int64(),
    "tags": pa.list_(pa.string()),
    "vector": pa.list_(pa.float64(), 2),
}


def event(**changed: Any) -> dict[str, Any]:
    """A good one, with some columns changed."""
    good = {
        "at": "2022-04-25T18:00:00Z", "user_id": 7, "video_id": "v1", "click": 1, "seconds": 2.5, "likes": 3,
        "weight": 1, "offset": 0, "price": 0.5, "age": 31, "tab": 4, "tags": ["a", "b"], "vector": [0.5, 1.5],
    }  # fmt: skip
    return good | changed


def lines(*events: Any) -> list[bytes]:
    return [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]


# --- what is let in ------------------------------------------------------------------------------------------


def test_a_good_event():
    result = Validator(SCHEMA)(lines(event()))
    assert result.refused == ()
    assert result.index.tolist() == [0]
    assert {field.name: field.type for field in result.rows.schema} == TYPES
    at = dt.datetime(2022, 4, 25, 18, tzinfo=dt.UTC)
    assert result.rows.to_pylist() == [event(at=at)]


def rows_of() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of which several fall on one moment and one user, in no order."""
    number = st.floats(allow_nan=False, allow_infinity=False)
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    row = st.fixed_dictionaries(
        {
            "at": st.integers(0, 4).map(lambda k: dt.datetime(2022, 4, 25, 0, 0, k, k, dt.UTC)),
            "user_id": st.integers(-3, 3) | st.just(2**63 - 1),
            "video_id": st.sampled_from(["a", "b", "ü\U0001f600", "B", '"\\', "\x00x"]),
            "click": st.none() | st.integers(0, 1),
            "seconds": st.none() | number,
            "likes": st.none() | st.integers(0, 2**53),
            "weight": st.floats(0, 1e300),
            "offset": number,
            "price": st.none() | number,
            "age": st.none() | st.floats(-0.5, 1e9),
            "tab": st.none() | st.integers(-(2**63), 2**63 - 1),
            "tags": st.none() | st.lists(st.none() | text, max_size=3),
            "vector": st.none() | st.tuples(number, number).map(list),
        }
    )
    return st.lists(row, min_size=1, max_size=12)


def wire(row: dict[str, Any]) -> bytes:
    return json.dumps(row | {"at": row["at"].isoformat(), "ignored": [1, {"a": "b"}]}).encode()


BAD: list[tuple[bytes, str]] = [
    (b"", "the record is no JSON"),
    (b"{", "the record is no JSON"),
    (b'{"at": 1}}', "the record is no JSON"),
    (b"{}{}", "the record is no JSON"),
    (b"\xff", "the record is no UTF-8"),
    (b"[1]", "the record is no JSON object"),
    (b"null", "the record is no JSON object"),
    (b'"a"', "the record is no JSON object"),
    *(
        (lines(event(**changed))[0], f"column '{next(iter(changed))}' {what}")
        for changed, what in [
            ({"at": None}, "is empty"),
            ({"at": "yesterday"}, "is no time"),
            ({"at": "2022-02-30"}, "is no time"),
            ({"at": "1989-12-31T23:59:59Z"}, "is outside the years 1990 to 2100"),
            ({"at": 1650816000}, "is a number, but text before"),
            ({"user_id": None}, "is empty"),
            ({"user_id": 7.5}, "is no whole number"),
            ({"user_id": 2**63}, "is beyond 2^63 - 1"),
            ({"user_id": "u"}, "is text, but a number before"),
            ({"user_id": True}, "is true or false, but a number before"),
            ({"video_id": None}, "is empty"),
            ({"video_id": " \u200b"}, "is empty"),
            ({"video_id": 5}, "is a number, but text before"),
            ({"video_id": "\ud800"}, "is no text of whole characters"),
            ({"click": 2}, "is neither 0 nor 1"),
            ({"click": 0.5}, "is neither 0 nor 1"),
            ({"click": "yes"}, "is no number"),
            ({"click": float("inf")}, "is neither 0 nor 1"),
            ({"seconds": float("-inf")}, "is not finite"),
            ({"likes": -1}, "is no count (0, 1, 2, ... to 2^53)"),
            ({"likes": 1.5}, "is no count (0, 1, 2, ... to 2^53)"),
            ({"likes": 10**400}, "is no count (0, 1, 2, ... to 2^53)"),
            ({"weight": -1}, "is negative, missing or not finite"),
            ({"weight": None}, "is negative, missing or not finite"),
            ({"weight": float("nan")}, "is negative, missing or not finite"),
            ({"offset": None}, "is missing or not finite"),
            ({"price": float("inf")}, "is infinite"),
            ({"price": "cheap"}, "is no number"),
            ({"price": {"euro": 5}}, "is no number"),
            ({"age": -1}, "is -1 or less, which has no log1p"),
            ({"tab": "home"}, "is text, but a number before"),
            ({"tags": "a"}, "is text, and must be a list"),
            ({"tags": ["a", 1]}, "is a number, but text before"),
            ({"vector": [1, 2, 3]}, "is no vector of 2 numbers, as others are"),
            ({"vector": [1, None]}, "lacks a number inside its vector"),
            ({"vector": [1, float("inf")]}, "holds an infinite number"),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_is_refused_and_why(record: bytes, reason: str):
    validate = Validator(SCHEMA)
    validate(lines(event()))
    result = validate([*lines(event(user_id=1)), record, *lines(event(user_id=2))])
    assert [(refused.index, refused.reason) for refused in result.refused] == [(1, reason)]
    assert result.rows["user_id"].to_pylist() == [1, 2]
    assert result.index.tolist() == [0, 2]
    alone = validate([record])
    assert [(refused.index, refused.reason) for refused in alone.refused] == [(0, reason)]
    assert alone.rows.schema == result.rows.schema


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", None), ("at", "2022-02-30"), ("at", "1989-12-31T23:59:59Z"), ("user_id", None), ("video_id", " "),
        ("click", 2), ("seconds", float("inf")), ("likes", 1.5), ("weight", -1.0), ("offset", None),
        ("price", float("inf")), ("vector", [0.5, float("inf")]),
    ],
)  # fmt: skip
def test_the_words_are_those_that_files_are_refused_with(column: str, value: Any):
    table = pa.Table.from_pylist([event(), event(**{column: value})])
    with pytest.raises(RowError) as caught:
        ac.read_events(table, SCHEMA).table()
    (refused,) = Validator(SCHEMA)(lines(event(), event(**{column: value}))).refused
    assert refused.reason in str(caught.value)


@settings(max_examples=60)
@given(rows_of(), st.data())
def test_records_are_read_as_a_table_of_them_is(rows: list[dict[str, Any]], data: st.DataObject):
    raw = [field if field.name != "click" else pa.field("click", pa.int64()) for field in pa.schema(TYPES.items())]
    table = pa.Table.from_pylist(rows, pa.schema(raw)).append_column("acclimate.place", pa.array(range(len(rows))))
    wanted = ac.read_events(table, SCHEMA).table()
    validate = Validator(SCHEMA, types=pa.schema(TYPES.items()))
    result = validate([wire(row) for row in rows])
    assert result.refused == ()
    assert result.rows.equals(wanted.drop("acclimate.place"))
    assert result.index.tolist() == wanted["acclimate.place"].to_pylist()
    # With bad ones among them, wherever these are, the others are the same.
    mixed, place, bad = list[bytes](), list[int](), dict[int, str]()
    for row in rows:
        for record, reason in data.draw(st.lists(st.sampled_from(BAD), max_size=3)):
            bad[len(mixed)] = reason
            mixed.append(record)
        place.append(len(mixed))
        mixed.append(wire(row))
    sorted_out = validate(mixed)
    assert sorted_out.rows.equals(result.rows)
    assert sorted_out.index.tolist() == [place[row] for row in result.index]
    assert {refused.index: refused.reason for refused in sorted_out.refused} == bad
    assert len(sorted_out.refused) == len(bad)


def test_bad_ones_among_many():
    rng = np.random.default_rng(0)
    bad = {int(row): BAD[row % len(BAD)] for row in rng.integers(0, 3000, 40)}
    records = [bad[row][0] if row in bad else lines(event(user_id=row))[0] for row in range(3000)]
    result = Validator(SCHEMA, types=pa.schema(TYPES.items()))(records)
    assert [(r.index, r.reason) for r in result.refused] == [(row, bad[row][1]) for row in sorted(bad)]
    assert result.rows["user_id"].to_pylist() == result.index.tolist() == sorted(set(range(3000)) - set(bad))


def test_two_records_in_one_and_none_in_another_are_not_taken_for_each_other():
    one, two = lines(event(user_id=1), event(user_id=2))
    for joined in (one + two, one + b"\n" + two, one + b" " + two):
        result = Validator(SCHEMA)([joined, b" ", *lines(event(user_id=3))])
        assert [r.index for r in result.refused] == [0, 1]
        assert result.rows["user_id"].to_pylist() == [3]
    halves = [b'{"a": [{}', b'{"b": 1}', b"{}]}"]
    assert [r.index for r in Validator(SCHEMA)([*halves, one]).refused] == [0, 1, 2]


def test_numbers_that_json_does_not_know():
    texts = ["NaN", "Infinity", "-Infinity", "Inf", "-Inf", "1e999", "-1e999"]
    records = [b'{"at": "2022-04-25T18:00Z", "id": %d, "x": %s}' % (n, t.encode()) for n, t in enumerate(texts)]
    validate = Validator(OPEN, features=["x"], types=pa.schema([("x", pa.float64())]))
    for result in (validate(records), validate([*records, b"{"])):
        infinite = [r.index for r in result.refused if r.reason == "column 'x' is infinite"]
        assert infinite == [1, 2, 3, 4, 5, 6]
        assert result.index.tolist() == [0]
    ignored = Validator(OPEN)
    assert ignored(records).rows.num_rows == ignored([*records, b"{"]).rows.num_rows == 7


def test_no_records_are_no_rows():
    result = Validator(SCHEMA)([])
    assert result.rows.num_rows == len(result.index) == len(result.refused) == 0


def test_white_space_around_a_record_is_none_of_it():
    pretty = json.dumps(event(), indent=2).encode()
    result = Validator(SCHEMA)([b" " + lines(event())[0] + b"\r\n", pretty])
    assert result.refused == ()
    assert result.rows.num_rows == 2


# --- types ---------------------------------------------------------------------------------------------------

OPEN = ac.Schema(time="at", entities=["id"], labels="click")


def made(x: Any, **others: Any) -> bytes:
    return json.dumps({"at": "2022-04-25T18:00:00Z", "id": 1, "x": x} | others).encode()


@pytest.mark.parametrize(
    ("values", "kind", "then", "ends"),
    [
        ([1, None], pa.int64(), 2.0, 2),
        ([1.0, 1], pa.float64(), 2, 2.0),
        (["a", "b", 3], pa.string(), "c", "c"),
        ([True], pa.bool_(), False, False),
        ([[], ["a"]], pa.list_(pa.string()), [], []),
        ([[], [None], [1, 2]], pa.list_(pa.int64()), [3], [3]),
        ([[1, 2.5]], pa.list_(pa.float64()), [3], [3.0]),
    ],
    ids=str,
)
def test_a_column_is_what_it_was_first(values: list[Any], kind: Any, then: Any, ends: Any):
    validate = Validator(OPEN, features=["x"])
    assert validate([made(None)]).rows["x"].type == pa.null()
    assert validate([made(value) for value in values]).rows["x"].type == kind
    for validator in (validate, Validator(OPEN, features=["x"], types=validate.types)):
        rows = validator([made(then), made(None)]).rows
        assert rows["x"].type == kind
        assert rows["x"].to_pylist() == [ends, None]


def test_a_record_that_is_refused_settles_no_type():
    for bad in (made("a", click=2), made("a", at="noon"), b'{"x": "a", "at": 5, "id": 7', made(["a", 5])):
        validate = Validator(OPEN, features=["x"])
        assert len(validate([bad]).refused) == 1
        assert pa.types.is_null(validate.types.field("x").type)
        assert validate([bad, made(1)]).rows["x"].to_pylist() == [1]
    (refused,) = Validator(OPEN)([made(0, click=2)]).refused
    assert refused.reason == "column 'click' is neither 0 nor 1"


RESTARTED = ac.Schema(
    ac.TimeColumn("at", unit="ms"), ["id"], "click",
    features={"v": ac.Feature(kind="embedding"), "tags": ac.Feature(kind="multi")},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(
        st.fixed_dictionaries(
            {"at": st.sampled_from([START // 1000, "2022-04-25T18:00Z", "noon"])},
            optional={
                "id": st.sampled_from([1, 2.0, "a", None]),
                "event": st.sampled_from([5, "e", 6]),
                "click": st.sampled_from([0, 1, 2]),
                "x": st.sampled_from([1, 1.5, "b", True, [], [1], ["c"], {}, None]),
                "v": st.sampled_from([[1, 2], [1.5, 2], [1], [], [None], "a"]),
                "tags": st.sampled_from([[], ["a"], [1], "a", [[1]]]),
            },
        ),
        min_size=1,
        max_size=8,
    ),
    cuts=st.sets(st.integers(0, 8)),
    is_new=st.booleans(),
)
def test_a_restart_anywhere_changes_nothing(events: list[dict[str, Any]], cuts: set[int], is_new: bool):
    records, asked = lines(*events), {"features": ["x"], "event_id": "event"}

    def read(cuts: list[int]) -> tuple[dict[int, Any], list[tuple[int, str]], pa.Schema]:
        validate, rows, refused, first = (
            Validator(RESTARTED, **asked),
            dict[int, Any](),
            list[tuple[int, str]](),
            0,
        )
        for cut in cuts:
            result = validate(records[first:cut])
            rows |= dict(zip((result.index + first).tolist(), result.rows.to_pylist(), strict=True))
            refused += [(r.index + first, r.reason) for r in result.refused]
            first = cut
            if is_new:
                kept = validate.types.serialize().to_pybytes()
                again = Validator(RESTARTED, types=restored(kept, pa.schema([])), **asked)
                assert again.types == validate.types
                validate = again
        return rows, refused, validate.types

    assert read([*sorted({c for c in cuts if c < len(records)}), len(records)]) == read([len(records)])


def test_what_was_settled_goes_before_what_the_fit_knew():
    fitted = pa.schema([("x", pa.int64()), ("y", pa.string())])
    assert restored(None, fitted) == fitted
    kept = pa.schema([("x", pa.string()), ("y", pa.null()), ("e", pa.int64())]).serialize().to_pybytes()
    assert restored(kept, fitted) == pa.schema([("x", pa.string()), ("y", pa.string()), ("e", pa.int64())])


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32(), pa.list_(pa.timestamp("s"))], ids=str)
def test_times_that_became_categories(kind: Any):
    with pytest.raises(ColumnError, match=r"column 'x' was of .*, and records would .* \(declare it as hour"):
        Validator(OPEN, features=["x"], types=pa.schema([("x", kind)]))
    hours = ac.Schema("at", ["id"], "click", features={"h": ac.Feature("x", kind="hour")})
    assert Validator(hours, types=pa.schema([("x", kind)])).types.field("x").type == pa.string()


@pytest.mark.parametrize(
    "record", [b'"y": ' + b"[" * 5000 + b"]" * 5000, b'"y": ' + b"1" * 5000], ids=["deep", "long"]
)
def test_a_record_is_judged_alike_whoever_its_neighbours_are(record: bytes):
    record = made(1)[:-1] + b", " + record + b"}"
    for neighbours in ([], [b"{"], [b"\xff"], [made(1, id=2.0)]):
        result = Validator(OPEN, types=pa.schema([("id", pa.int64())]))([record, *neighbours])
        assert 0 in result.index


def test_types_that_a_model_was_fitted_on_hold():
    kinds = {"x": pa.list_(pa.float32(), 2), "y": pa.int32(), "z": pa.dictionary(pa.int8(), pa.string())}
    validate = Validator(OPEN, features=["x", "y", "z"], types=pa.schema(kinds.items()))
    rows = validate([made([1, 2.5], y=5, z="a")]).rows
    assert rows.select(["x", "y", "z"]).to_pylist() == [{"x": [1.0, 2.5], "y": 5, "z": "a"}]
    assert [rows[name].type for name in "xyz"] == [pa.list_(pa.float32(), 2), pa.int64(), pa.string()]
    assert [r.reason for r in validate([made("a")]).refused] == ["column 'x' is text, and must be a list"]


def test_ids_may_be_text_or_numbers_whatever_comes_first():
    for ids, kind in (([7, 8.0, "x"], pa.int64()), (["7", "x", 8], pa.string())):
        result = Validator(OPEN)([made(0, id=i) for i in ids])
        assert result.rows["id"].type == kind
        assert [r.index for r in result.refused] == [2]


def test_only_the_columns_that_are_asked_for():
    crossed = ac.Schema("at", ["id"], "click", features={"c": ac.Feature(kind="cross", of=("x", "hour"))})
    assert Validator(OPEN)([made(1)]).rows.column_names == ["at", "id", "click"]
    assert Validator(OPEN, features=["hour", "x"])([made(1)]).rows.column_names == ["at", "id", "click", "x"]
    assert Validator(crossed, features=["c"])([made(1)]).rows.column_names == ["at", "id", "click", "x"]


def test_unknown_labels_are_unknown():
    rows = Validator(OPEN)([made(1), made(1, click=True), made(1, click=0.0), made(1, click=None)]).rows
    assert rows["click"].to_pylist() == [None, 1, 0, None]


# --- times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "value", "micros"),
    [
        ("s", 1650816000, START), ("s", 1650816000.25, START + 250_000), ("ms", START // 1000, START),
        ("us", START + 1, START + 1), ("ns", START * 1000 + 1999, START + 1), ("s", "2022-04-24T16:00:00Z", START),
    ],
)  # fmt: skip
def test_times_are_numbers_with_the_schemas_unit_or_text(unit: Any, value: Any, micros: int):
    schema = ac.Schema(ac.TimeColumn("at", unit=unit), ["id"], "click")
    rows = Validator(schema)([made(0, at=value)]).rows
    assert rows["at"].cast(pa.int64()).to_pylist() == [micros]


@pytest.mark.parametrize("value", [5, 5e300, -1e300])
def test_numbers_of_another_unit_are_far_off(value: float):
    for unit in ("s", "ms", "us", "ns"):
        schema = ac.Schema(ac.TimeColumn("at", unit=unit), ["id"], "click")
        good = made(0, at={"s": START // 10**6, "ms": START // 1000, "us": START, "ns": START * 1000}[unit])
        (refused,) = Validator(schema)([good, made(0, at=value)]).refused
        assert refused.index == 1
        assert refused.reason.endswith(("is outside the years 1990 to 2100", "is no whole number"))


def test_numbers_without_a_unit_are_no_times():
    (refused,) = Validator(OPEN)([made(0, at=1650816000)]).refused
    assert refused.reason == "column 'at' is a number, but text before"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", None])
@pytest.mark.parametrize("is_text", [False, True])
def test_events_that_were_read_come_back_from_a_stream(tmp_path: Path, unit: Any, is_text: bool):
    schema = ac.Schema(ac.TimeColumn("at", unit=unit), ["id"], "click")
    numbers = {"s": 10**6, "ms": 10**3, "us": 1}.get(unit, 1)
    micros = [START, START + 10**6 + 5 * numbers]
    at = pa.array([pa.scalar(us, pa.timestamp("us", "UTC")).as_py().isoformat() for us in micros])
    if unit is not None and not is_text:
        at = pa.array([us * 1000 if unit == "ns" else us // numbers for us in micros])
    events = ac.read_events(pa.table({"at": at, "id": [1, 2], "click": [0, 1]}), schema)
    with Log(tmp_path / "log") as log:
        assert append_events(log, events, schema) == 2
        records = list(log.read(0, None, 5).values)
    validate = Validator(schema, types=events.source.columns())
    result = validate(records)
    assert result.refused == ()
    assert result.rows.equals(events.table())
    text = made(0, at="2022-04-24T16:00:00Z", id=0)
    both = validate([text, *records, b"{"])
    assert both.rows["id"].to_pylist() == [0, 1, 2]
    assert both.index.tolist() == [0, 1, 2]
    assert validate([text]).rows["at"].cast(pa.int64()).to_pylist() == [START]


def test_nanoseconds_stay_beside_a_record_without_a_time():
    schema = ac.Schema(ac.TimeColumn("at", unit="ns"), ["id"], "click")
    good = made(0, at=START * 1000 + 123_456_999)
    result = Validator(schema)([good, made(0, at=None)])
    assert result.rows["at"].cast(pa.int64()).to_pylist() == [START + 123_456]
    assert [r.reason for r in result.refused] == ["column 'at' is empty"]


def test_only_odd_times_take_the_long_way(monkeypatch: pytest.MonkeyPatch):
    from acclimate.events.streams import values

    asked: list[str] = []
    long_way = values._read_by_database
    monkeypatch.setattr(
        values,
        "_read_by_database",
        lambda column, time: asked.extend(column.to_pylist()) or long_way(column, time),
    )
    odd = [
        "2022-04-25T18:00:00.1234567890Z",
        "2022-04-25T18:00:00+05",
        "2022-02-30T00:00:00Z",
        "2022-03-27T02:30",
        "2023-02-29T00:00Z",
    ]
    fine = [
        "2022-04-25T18:00:00.1234567Z",
        "2022-04-25T18:00:00Z",
        "2022-04-25 18:00",
        "2024-02-29T00:00:00.123456+05:30",
        "noon",
        "2000-02-29T01:00Z",
    ]
    schema = ac.Schema(ac.TimeColumn("at", zone="Europe/Berlin"), ["id"], "click")
    result = Validator(schema)([made(0, at=text) for text in odd + fine])
    assert asked[-4:] == odd[1:]
    assert not set(asked) & set(fine)
    assert [(odd + fine)[r.index] for r in result.refused] == [odd[0], odd[2], odd[4], "noon"]


TIMES = [
    "2022-04-25T18:00", "2022-04-25", "2022-03-27T02:30", "2022-10-30 02:30:00", "2022-04-25T18:00:00.123456789Z",
    "2022-04-25 18:00 UTC", "2022-04-25T18:00:00+0530", "2022-04-25T18:00:00-03", "2022-02-30T00:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Shanghai"])
@given(texts=st.lists(st.sampled_from(TIMES), min_size=1, max_size=3))
@settings(max_examples=20)
def test_texts_are_read_as_files_are(zone: str, texts: list[str]):
    schema = ac.Schema(ac.TimeColumn("at", zone=zone), ["id"], "click")
    good = [text for text in texts if "02-30T00" not in text]
    result = Validator(schema)([made(0, at=text, id=row) for row, text in enumerate(texts)])
    assert [texts[r.index] for r in result.refused] == [text for text in texts if text not in good]
    if good:
        table = pa.table({"at": good, "id": range(len(good)), "click": [None] * len(good)})
        wanted = ac.read_events(table, schema).table(["at"])["at"]
        assert result.rows["at"].to_pylist() == wanted.to_pylist()


def test_hours_of_another_time():
    schema = ac.Schema("at", ["id"], "click", features={"made": ac.Feature("x", kind="hour")})
    result = Validator(schema)([made("2022-04-25T09:30"), made(None), made("noon")])
    assert result.rows["x"].to_pylist() == [dt.datetime(2022, 4, 25, 9, 30, tzinfo=dt.UTC), None]
    assert [r.reason for r in result.refused] == ["column 'x' is no time"]


# --- tables, duplicates, event ids -----------------------------------------------------------------------------


def test_entity_tables_are_joined():
    ages = pa.table({"id": [1, 2], "age": [31, 32]})
    schema = ac.Schema("at", ["id"], "click", tables={"user": ac.EntityTable(ages, key="id")})
    late, early = "2022-04-25T18:00:00Z", "2022-04-25T17:00:00Z"
    validate = Validator(schema)
    result = validate([made(0, id=1, at=late), made(0, id=2, at=early), made(0, id=3, at=late), b"x"])
    assert result.rows["user.age"].to_pylist() == [32, 31, None]
    assert result.index.tolist() == [1, 0, 2]
    assert [r.index for r in result.refused] == [3]
    assert validate([b"x"]).rows.schema == result.rows.schema


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=str)
@pytest.mark.parametrize("timed", [False, True])
@given(data=st.data())
@settings(max_examples=12)
def test_tables_are_joined_as_read_events_joins_them(kind: Any, timed: bool, data: st.DataObject):
    day = st.integers(0, 6).map(lambda n: f"2022-04-{20 + n}T00:00:00Z")
    ids = st.integers(-3, 6)
    key = st.tuples(ids, day if timed else st.just(""))
    rows = data.draw(st.lists(key, min_size=1, max_size=15, unique=True))
    table = {"key": pa.array([str(k) if pa.types.is_string(kind) else k for k, _ in rows], kind)}
    table |= {
        "x": pa.array([n / 2 if n % 4 else None for n in range(len(rows))]),
        "word": [f"w{n}" for n in range(len(rows))],
    }
    table |= {"since": [since for _, since in rows]} if timed else {}
    joined = ac.EntityTable(pa.table(table), "key", ac.TimeColumn("since") if timed else None)
    features = {"u.x": ac.Feature(kind="numeric"), "v": ac.Feature("u.word", kind="categorical")}
    schema = ac.Schema("at", {"u": "id"}, "click", features=features, tables={"u": joined})
    drawn = data.draw(st.lists(st.tuples(ids, day), min_size=1, max_size=10))
    events = [{"at": at, "id": str(k) if pa.types.is_string(kind) else k, "click": None} for k, at in drawn]
    wanted = ac.read_events(
        pa.Table.from_pylist(events, pa.schema([("at", pa.string()), ("id", kind), ("click", pa.int8())])), schema
    )
    result = Validator(schema)(lines(*events))
    assert result.refused == ()
    assert result.rows.select(wanted.source.columns().names).equals(wanted.table())


def test_tables_of_an_entity_that_an_event_may_lack():
    shops = pa.table({"shop": ["a", "b"], "size": [1, 2]})
    schema = ac.Schema("at", ["id"], "click", tables={"shop": ac.EntityTable(shops, key="shop")})
    result = Validator(schema)([made(0, shop="b"), made(0), made(0, shop=5)])
    assert result.rows["shop.size"].to_pylist() == [2, None]
    assert [r.reason for r in result.refused] == ["column 'shop' is a number, but text before"]


def test_a_key_of_another_type_than_the_events_had():
    schema = ac.Schema("at", ["id"], "click", tables={"user": ac.EntityTable(pa.table({"id": ["1"]}), key="id")})
    with pytest.raises(ColumnError, match="the key of a table is string, but 'id' of the events is int64"):
        Validator(schema, types=pa.schema([("id", pa.int64())]))


def test_a_table_that_read_events_refuses_is_refused_at_once():
    twice = ac.Schema("at", ["id"], "click", tables={"user": ac.EntityTable(pa.table({"id": [1, 1]}), key="id")})
    with pytest.raises(RowError, match="table 'user': key 'id' is not unique"):
        Validator(twice)


def test_equal_events_once_if_so_asked():
    schema = ac.Schema("at", ["id"], "click", duplicates="drop", features={"x": ac.Feature(kind="numeric")})
    result = Validator(schema)([made(1), made(2), made(1), made(1.0)])
    assert result.index.tolist() == [0, 1]


def test_event_ids_come_beside_the_rows():
    validate = Validator(OPEN, event_id="event")
    result = validate([made(0, event="b", at="2022-04-25T19:00:00Z"), made(0, event="a"), made(0)])
    assert result.event_ids.to_pylist() == ["a", "b"]
    assert [r.reason for r in result.refused] == ["column 'event' is empty"]
