"""Bad input: the error names file, column, count and first rows, and says what to do; nothing is read wrongly."""

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate.errors import AcclimateError, ColumnError, ConfigError, DataError, RowError, SourceError

ROWS = 1_000
START = 1_650_816_000_000  # 2022-04-25 00:00 in Asia/Shanghai, milliseconds
TIME = ac.TimeColumn("time_ms", unit="ms", zone="Asia/Shanghai")
SCHEMA = ac.Schema(
    time=TIME,
    entities={"user": "user_id", "video": "video_id"},
    labels="click",
    weight="weight",
    offset="offset",
    truth="truth",
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def columns(**changed: Any) -> dict[str, Any]:
    """A thousand good events, a minute apart, with some columns changed."""
    good = {
        "time_ms": [START + 60_000 * i for i in range(ROWS)],
        "user_id": [i % 7 for i in range(ROWS)],
        "video_id": [f"v{i % 5}" for i in range(ROWS)],
        "click": [i % 2 for i in range(ROWS)],
        "weight": [1.0] * ROWS,
        "offset": [0.0] * ROWS,
        "truth": [0.5] * ROWS,
        "price": [i / 8 for i in range(ROWS)],
    }
    return good | changed


def spoiled(column: str, *rows: int, value: Any) -> dict[str, Any]:
    """The good events with one value in some rows, counted from 1."""
    values = list(columns()[column])
    for row in rows:
        values[row - 1] = value
    return columns(**{column: values})


def parquet(data: dict[str, Any], path: str = "log.parquet") -> str:
    pq.write_table(pa.table(data), path, row_group_size=400)
    return path


def csv(lines: list[str], path: str = "log.csv") -> str:
    Path(path).write_text("\n".join(lines) + "\n")
    return path


def csv_lines(data: dict[str, Any]) -> list[str]:
    return pd.DataFrame(data).to_csv(index=False).splitlines()


def told(kind: type[AcclimateError], action: Callable[[], Any]) -> str:
    """The message, which is one line."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def error_of(source: Any, schema: ac.Schema = SCHEMA, kind: type[AcclimateError] = DataError) -> str:
    return told(kind, lambda: ac.read_events(source, schema).table())


# --- values --------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")

VALUES = [
    ("user_id", None, "is empty", "drop these rows or give them an id"),
    ("video_id", None, "is empty", "drop these rows or give them an id"),
    ("video_id", "", "is empty", "drop these rows or give them an id"),
    ("video_id", "  ", "is empty", "drop these rows or give them an id"),
    ("click", 2, "is neither 0 nor 1", "correct these rows"),
    ("click", -1, "is neither 0 nor 1", "correct these rows"),
    ("click", 0.5, "is neither 0 nor 1", "correct these rows"),
    ("click", INF, "is neither 0 nor 1", "correct these rows"),
    ("weight", -1.0, "is negative, missing or not finite", "correct these rows"),
    ("weight", NAN, "is negative, missing or not finite", "correct these rows"),
    ("weight", INF, "is negative, missing or not finite", "correct these rows"),
    ("weight", None, "is negative, missing or not finite", "correct these rows"),
    ("offset", NAN, "is missing or not finite", "correct these rows"),
    ("offset", -INF, "is missing or not finite", "correct these rows"),
    ("offset", None, "is missing or not finite", "correct these rows"),
    ("truth", 1.5, "is no probability", "correct these rows"),
    ("truth", -0.5, "is no probability", "correct these rows"),
    ("truth", NAN, "is no probability", "correct these rows"),
    ("price", INF, "is infinite", "correct these rows"),
    ("price", -INF, "is infinite", "correct these rows"),
    ("time_ms", None, "is empty", "every event needs a time"),
    ("time_ms", 0, "is outside the years 1990 to 2100", "the unit looks wrong"),
]


# An empty field of a CSV file is null, and so is a NaN that pandas writes there.
CASES = [
    (storage, column, value, what, hint)
    for column, value, what, hint in VALUES
    for storage in ("parquet", "csv", "frame")
    if storage != "csv" or (value != "" and not (column == "truth" and value != value))
]


def test_every_kind_of_bad_value_is_tried() -> None:
    assert len(CASES) == 3 * len(VALUES) - 2


@pytest.mark.parametrize(("storage", "column", "value", "what", "hint"), CASES)
def test_values_that_are_not_allowed(storage: str, column: str, value: Any, what: str, hint: str) -> None:
    data = spoiled(column, 17, 90, 512, 600, value=value)
    source = {
        "parquet": lambda: parquet(data),
        "csv": lambda: csv(csv_lines(data)),
        "frame": lambda: pa.table(data),
    }[storage]()
    name = "frame" if storage == "frame" else source
    message = error_of(source, kind=RowError)
    assert message.startswith(f"{name}: column '{column}' {what} in 4 of 1,000 rows, first in rows 17")
    rows = re.findall(r"\d+(?= \(|,|$)", message.partition("first in rows ")[2].partition(f" ({hint}")[0])
    assert rows == ["17", "90", "512"]
    assert hint in message


def test_a_message_in_full() -> None:
    source = parquet(spoiled("user_id", 17, 90, 512, value=None))
    assert error_of(source) == (
        "log.parquet: column 'user_id' is empty in 3 of 1,000 rows, first in rows 17, 90, 512 "
        "(drop these rows or give them an id)"
    )
    source = parquet(spoiled("click", 3, value=7))
    assert error_of(source) == (
        "log.parquet: column 'click' is neither 0 nor 1 in 1 of 1,000 rows, row 3 (7) "
        "(correct these rows or take them out; if they are numbers or counts, say so in label_kinds)"
    )


def test_the_file_is_named_and_rows_are_counted_in_it() -> None:
    Path("log").mkdir()
    parquet(columns(), "log/1.parquet")
    parquet(spoiled("user_id", 5, 6, value=None), "log/2.parquet")
    parquet(spoiled("user_id", 1, value=None), "log/3.parquet")
    header, first, *rest = csv_lines(columns())
    csv([header, first.replace(",0,v0,", ",,v0,"), *rest], "log/4.csv")
    message = error_of("log")
    assert message.startswith("log/2.parquet: column 'user_id' is empty in 2 of 1,000 rows, first in rows 5, 6,")
    assert "and in 2 more files" in message


def test_of_many_files_a_csv_counts_its_own_rows() -> None:
    csv(csv_lines(columns()), "1.csv")
    csv(csv_lines(spoiled("click", 12, value=3)), "2.csv")
    assert "2.csv: column 'click' is neither 0 nor 1 in 1 of 1,000 rows, row 12 (3)" in error_of(
        ["1.csv", "2.csv"]
    )


def test_infinity_inside_vectors_is_found_and_nan_is_not_held_against_them() -> None:
    vectors = [[0.0, 1.0], [NAN, 2.0], None, [NAN, INF]] + [[1.0, 1.0]] * (ROWS - 4)
    for kind in (pa.list_(pa.float32(), 2), pa.list_(pa.float64())):
        source = parquet(columns(vector=pa.array(vectors, kind)))
        message = error_of(source, kind=RowError)
        assert "column 'vector' holds an infinite number in 1 of 1,000 rows, row 4 ([nan, inf])" in message
        vectors_without = pa.array([*vectors[:3], None, *vectors[4:]], kind)
        assert ac.read_events(parquet(columns(vector=vectors_without)), SCHEMA).table().num_rows == ROWS


def test_what_is_bad_elsewhere_in_time_or_in_columns_not_read_is_let_be() -> None:
    data = spoiled("click", 900, value=5) | {"price": spoiled("price", 1, value=INF)["price"]}
    events = ac.read_events(parquet(data), SCHEMA)
    early = events.before(1000 * (START + 60_000 * 800))
    assert early.table(["user_id", "click"]).num_rows == 800
    assert early.describe().rows == 800
    with pytest.raises(RowError, match="'price' is infinite in 1 of 800 rows, row 1 "):
        early.table()
    with pytest.raises(RowError, match=r"'click' is neither 0 nor 1 in 1 of 1,000 rows, row 900 \(5\)"):
        events.describe()
    with pytest.raises(RowError, match=r"'click' is neither 0 nor 1 in 1 of 200 rows, row 900 \(5\)"):
        events.after(1000 * (START + 60_000 * 800)).table(["click"])


def test_no_row_is_handed_out_before_all_are_checked() -> None:
    events = ac.read_events(parquet(spoiled("click", ROWS, value=5)), SCHEMA)
    with pytest.raises(RowError):
        events.reader(["click"])


def test_ids_that_are_floats_must_be_whole() -> None:
    whole = [float(u) for u in columns()["user_id"]]
    assert ac.read_events(parquet(columns(user_id=whole)), SCHEMA).table(["user_id"])["user_id"].type == pa.int64()
    for value, what in ((0.5, "is no whole number"), (2.0**60, "is no whole number"), (NAN, "is empty")):
        message = error_of(parquet(columns(user_id=[*whole[:8], value, *whole[9:]])), kind=RowError)
        assert f"column 'user_id' {what} in 1 of 1,000 rows, row 9" in message


def test_ids_too_large() -> None:
    large = columns(user_id=pa.array([2**63 + i for i in range(ROWS)], pa.uint64()))
    message = error_of(parquet(large), kind=RowError)
    assert "column 'user_id' is beyond 2^63 - 1 in 1,000 of 1,000 rows" in message
    assert "keep such ids as text" in message


# --- times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "actual", "name"),
    [
        ("ms", "s", "seconds"),
        ("s", "ms", "milliseconds"),
        ("ms", "us", "microseconds"),
        ("s", "ns", "nanoseconds"),
    ],
)
def test_times_in_another_unit(declared: Any, actual: str, name: str) -> None:
    factor = {"s": 1e-3, "ms": 1, "us": 1e3, "ns": 1e6}[actual]
    data = columns(time_ms=[int(t * factor) for t in columns()["time_ms"]])
    schema = ac.Schema(ac.TimeColumn("time_ms", unit=declared), SCHEMA.entities, SCHEMA.labels)
    for source in (
        parquet(data),
        csv(csv_lines(data)),
        parquet(columns(time_ms=[float(t) for t in data["time_ms"]])),
    ):
        message = told(RowError, lambda source=source: ac.read_events(source, schema))
        assert "'time_ms' is outside the years 1990 to 2100 in 1,000 of 1,000 rows" in message
        assert f"the unit looks wrong: the values look like {name}, unit: {actual}" in message


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("day", ["1990-01-01", "1997-09-20", "2100-12-31"])
def test_old_and_late_times_of_the_right_unit(day: str, unit: str) -> None:
    at = (
        np.datetime64(day).astype("datetime64[s]").astype(np.int64)
        * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    )
    schema = ac.Schema(ac.TimeColumn("time_ms", unit=unit), SCHEMA.entities, SCHEMA.labels)
    found = ac.read_events(parquet(columns(time_ms=[int(at)] * ROWS)), schema).table()["time_ms"]
    assert {str(time.date()) for time in found.to_pylist()} == {day}


def test_timestamps_made_with_the_wrong_unit() -> None:
    for year in ("1970-01-20", "1989-12-31", "50000-01-01"):
        times = pa.array(np.full(ROWS, np.datetime64(year, "us")))
        schema = ac.Schema(ac.TimeColumn("time_ms"), SCHEMA.entities, SCHEMA.labels)
        message = error_of(parquet(columns(time_ms=times)), schema, RowError)
        assert "outside the years 1990 to 2100" in message
        assert "the unit looks wrong" in message


def test_numbers_without_a_unit() -> None:
    schema = ac.Schema(ac.TimeColumn("time_ms"), SCHEMA.entities, SCHEMA.labels)
    message = error_of(parquet(columns()), schema, ColumnError)
    assert "column 'time_ms' holds numbers, and the schema names no unit" in message
    assert "the values look like milliseconds, unit: ms" in message


def test_text_that_is_no_time() -> None:
    texts = ["2022-04-25T18:00:00Z"] * ROWS
    texts[4] = "yesterday"
    schema = ac.Schema(ac.TimeColumn("time_ms"), SCHEMA.entities, SCHEMA.labels)
    message = error_of(parquet(columns(time_ms=texts)), schema, RowError)
    assert "column 'time_ms' is no time in 1 of 1,000 rows, row 5 (yesterday)" in message
    texts[4] = None
    assert "column 'time_ms' is empty in 1 of" in error_of(parquet(columns(time_ms=texts)), schema, RowError)


def test_a_nan_among_times_that_are_floats() -> None:
    times = [t / 1000 for t in columns()["time_ms"]]
    times[6] = NAN
    schema = ac.Schema(ac.TimeColumn("time_ms", unit="s"), SCHEMA.entities, SCHEMA.labels)
    message = told(RowError, lambda: ac.read_events(parquet(columns(time_ms=times)), schema))
    assert "column 'time_ms' is empty in 1 of 1,000 rows, row 7 (nan)" in message


@pytest.mark.parametrize("zone", ["Asia/Shangai", "Asia", "", "../zones", "\0"])
def test_a_zone_that_there_is_not(zone: str) -> None:
    with pytest.raises(ConfigError, match="TimeColumn: zone: no time zone"):
        ac.TimeColumn("time_ms", unit="ms", zone=zone)


def test_the_zone_that_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'Asia/Shanghai'"):
        ac.TimeColumn("time_ms", unit="ms", zone="Asia/Shangai")


# --- columns -------------------------------------------------------------------------------------------------


def changed(**changes: Any) -> ac.Schema:
    parts: dict[str, Any] = {"time": TIME, "entities": SCHEMA.entities, "labels": SCHEMA.labels}
    return ac.Schema(**(parts | changes))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            changed(time=ac.TimeColumn("time", unit="ms")),
            "no column 'time' for the time (did you mean 'time_ms'?)",
        ),
        (changed(entities={"user": "usr_id"}), "no column 'usr_id' for entity 'user' (did you mean 'user_id'?)"),
        (changed(labels=["click", "klick"]), "no column 'klick' for label 'klick' (did you mean 'click'?)"),
        (changed(weight="wait"), "no column 'wait' for the weight (did you mean 'weight'?)"),
        (changed(offset="ofset"), "no column 'ofset' for the offset (did you mean 'offset'?)"),
        (changed(truth="thruth"), "no column 'thruth' for the true probability (did you mean 'truth'?)"),
        (
            changed(features={"cost": ac.Feature("prize")}),
            "no column 'prize' for feature 'cost' (did you mean 'price'?)",
        ),
        (
            changed(features={"both": ac.Feature(kind="cross", of=("price", "usr_id"))}),
            "no column 'usr_id' for feature 'both' (did you mean 'user_id'?)",
        ),
        (
            changed(
                features={"age": ac.Feature("user.aeg")},
                tables={"user": ac.EntityTable(pa.table({"id": [1], "age": [30]}), key="id")},
            ),
            "no column 'user.aeg' for feature 'age' (did you mean 'user.age'?)",
        ),
        (
            changed(tables={"user": ac.EntityTable(pa.table({"id": [1]}), key="user_id")}),
            "table 'user': no column 'user_id' for the key of table 'user' (there are: id)",
        ),
        (
            changed(tables={"shop": ac.EntityTable(pa.table({"shop_id": [1]}), key="shop_id")}),
            "log.parquet: no column 'shop_id' for the key of table 'shop'",
        ),
    ],
)
def test_columns_that_are_not_there(schema: ac.Schema, message: str) -> None:
    source = parquet(columns())
    assert message in told(ColumnError, lambda: ac.read_events(source, schema))


@pytest.mark.parametrize(
    ("change", "schema", "message"),
    [
        ({"click": ["yes"] * ROWS}, SCHEMA, "'click' is text, but label 'click' must be a number"),
        ({"weight": ["1"] * ROWS}, SCHEMA, "'weight' is text, but the weight must be a number"),
        ({"offset": ["1"] * ROWS}, SCHEMA, "'offset' is text, but the offset must be a number"),
        (
            {"user_id": [True] * ROWS},
            SCHEMA,
            "'user_id' is bool, but entity 'user' must be a whole number or text",
        ),
        ({"time_ms": [True] * ROWS}, SCHEMA, "'time_ms' is bool, but the time must be a number with a unit"),
        (
            {},
            changed(features={"cost": ac.Feature("video_id", kind="numeric")}),
            "'video_id' is text, but feature 'cost' must be a number",
        ),
        (
            {},
            changed(features={"cost": ac.Feature("video_id", transform="log1p")}),
            "'video_id' is text, but feature 'cost' must be a number",
        ),
        (
            {},
            changed(features={"vector": ac.Feature("price", kind="embedding")}),
            "'price' is double, but feature 'vector' must be a list of numbers",
        ),
        (
            {},
            changed(features={"at": ac.Feature("price", kind="hour")}),
            "'price' holds numbers, and the schema names no unit",
        ),
    ],
)
def test_columns_of_the_wrong_type(change: dict[str, Any], schema: ac.Schema, message: str) -> None:
    source = parquet(columns(**change))
    told_of = told(ColumnError, lambda: ac.read_events(source, schema))
    assert told_of.startswith("log.parquet: column ")
    assert message in told_of


def test_a_column_asked_for_that_is_not_there() -> None:
    events = ac.read_events(parquet(columns()), SCHEMA)
    assert "no column 'prise' (did you mean 'price'?)" in told(ColumnError, lambda: events.table(["prise"]))
    told(ConfigError, lambda: events.table([]))


def test_files_whose_types_do_not_go_together() -> None:
    parquet(columns(), "1.parquet")
    parquet(columns(price=["cheap"] * ROWS, time_ms=np.full(ROWS, np.datetime64("2022-04-25", "us"))), "2.parquet")
    message = error_of(["1.parquet", "2.parquet"], kind=ColumnError)
    assert message.startswith(
        "2.parquet: column 'time_ms' is a timestamp without a zone, but a number in 1.parquet"
    )


def test_a_frame_that_does_not_fit_into_arrow() -> None:
    frame = pd.DataFrame(columns()).astype({"price": object})
    frame.loc[3, "price"] = "cheap"
    assert "Conversion failed for column price" in error_of(frame, kind=ColumnError)


def test_a_column_type_that_duckdb_does_not_read() -> None:
    frame = pa.table(columns(exact=pa.nulls(ROWS, pa.decimal256(60, 2))))
    assert error_of(frame, kind=ColumnError).startswith("frame: columns cannot be read: ")


def test_column_names_that_would_hide_where_a_row_is() -> None:
    assert "rename the column" in error_of(parquet(columns(file_row_number=[0] * ROWS)), kind=ColumnError)


# --- tables --------------------------------------------------------------------------------------------------


def with_users(**data: Any) -> ac.Schema:
    table = ac.EntityTable(parquet(data, "users.parquet"), key="id")
    return ac.Schema(TIME, SCHEMA.entities, SCHEMA.labels, tables={"user": table})


def test_a_key_that_is_not_unique() -> None:
    schema = with_users(id=[3, 1, 2, 1, 3, 3])
    message = told(RowError, lambda: ac.read_events(parquet(columns()), schema))
    assert message.startswith("users.parquet: key 'id' is not unique for 2 values: 3 (3 rows), 1 (2 rows)")
    assert "name the time each row is from" in message


def test_two_rows_of_a_key_at_one_time() -> None:
    source = pa.table({"id": [1, 1, 1], "since": [START, START + 1, START]})
    user = ac.EntityTable(source, key="id", time=ac.TimeColumn("since", unit="ms"))
    schema = ac.Schema(TIME, SCHEMA.entities, SCHEMA.labels, tables={"user": user})
    message = told(RowError, lambda: ac.read_events(parquet(columns()), schema))
    assert "table 'user': key 'id' is not unique at one time for 1 values: 1 (2 rows)" in message


def test_a_key_that_is_empty() -> None:
    schema = with_users(id=[1, None])
    assert "users.parquet: column 'id' is empty in 1 of 2 rows, row 2" in error_of(parquet(columns()), schema)


def test_a_key_of_the_events_may_be_empty_but_not_broken() -> None:
    shops = ac.EntityTable(pa.table({"shop": [1, 2], "size": [10, 20]}), key="shop")
    schema = changed(tables={"shops": shops})
    shop = [1.0, None, NAN, 2.0] + [9.0] * (ROWS - 4)
    sizes = ac.read_events(parquet(columns(shop=shop)), schema).table(["shops.size"])["shops.size"]
    assert sizes.to_pylist()[:5] == [10, None, None, 20, None]
    events = ac.read_events(parquet(columns(shop=[1.5, *shop[1:]])), schema)
    assert "'shop' is no whole number in 1 of 1,000 rows, row 1 (1.5)" in told(
        RowError, lambda: events.table(["shops.size"])
    )


def test_a_key_of_another_type() -> None:
    message = error_of(parquet(columns()), with_users(id=["1", "2"]), ColumnError)
    assert "the key of table 'user', 'id', is string, but 'user_id' of the events is int64" in message


def test_a_bad_value_in_a_table_is_told_with_its_own_file() -> None:
    events = ac.read_events(parquet(columns()), with_users(id=[1, 99], age=[30.0, INF]))
    assert events.table(["click"]).num_rows == ROWS
    message = told(RowError, lambda: events.table(["user.age"]))
    assert message.startswith("users.parquet: column 'age' is infinite in 1 of 2 rows, row 2 (inf)")


def test_a_column_with_the_name_of_one_of_a_table() -> None:
    source = parquet(columns() | {"user.age": [1] * ROWS})
    assert "has the name of one of table 'user'" in error_of(source, with_users(id=[1], age=[2]), ColumnError)


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("lgo.parquet", "lgo.parquet: no such file or folder (did you mean 'log.parquet'?)"),
        ("nowhere/log.parquet", "nowhere/log.parquet: no such file or folder"),
        ("nowhere/", "nowhere/: no such file or folder"),
        ("l*.csv", "l*.csv: no Parquet or CSV file there"),
        ("empty", "empty: no Parquet or CSV file there"),
        ("log.json", "log.json: neither Parquet nor CSV"),
        ("zero.parquet", "zero.parquet: the file is empty (0 bytes)"),
        ("zero.csv", "zero.csv: the file is empty (0 bytes)"),
        ("none.parquet", "none.parquet: no rows"),
        ("none.csv", "none.csv: no rows"),
        ("short.parquet", "short.parquet: the file is damaged or not what its name says"),
        ("text.parquet", "text.parquet: the file is damaged or not what its name says"),
        ("text.csv.gz", "text.csv.gz: the file is damaged or not what its name says"),
        (["log.parquet", "short.parquet"], "short.parquet: the file is damaged or not what its name says"),
        ([], "the list of sources is empty"),
        ("https://ann:secret@host/log.parquet?token=1", "an address is no path: events are read from files"),
    ],
)
def test_files_that_cannot_be_read(source: Any, message: str) -> None:
    content = Path(parquet(columns())).read_bytes()
    Path("empty").mkdir()
    Path("log.json").write_text("{}")
    Path("zero.parquet").touch()
    Path("zero.csv").touch()
    Path("short.parquet").write_bytes(content[:-100])
    Path("text.parquet").write_text("time_ms,user_id\n" * 100)
    Path("text.csv.gz").write_text("time_ms,user_id\n" * 100)
    pq.write_table(pa.table(columns()).slice(0, 0), "none.parquet")
    folder = Path("none")
    folder.mkdir()
    csv(csv_lines(columns())[:1], "none/none.csv")
    source = "none/none.csv" if source == "none.csv" else source
    assert message in told(SourceError, lambda: ac.read_events(source, SCHEMA))


def test_a_file_damaged_in_the_middle_is_named_when_it_is_read() -> None:
    parquet(columns(), "1.parquet")
    path = Path(parquet(columns(), "2.parquet"))
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(file.schema_arrow.names.index("price"))
    content = bytearray(path.read_bytes())
    begin = chunk.dictionary_page_offset
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    events = ac.read_events(["1.parquet", "2.parquet"], SCHEMA)
    assert events.table(["click"]).num_rows == 2 * ROWS
    assert told(SourceError, events.table).startswith("2.parquet: the file is damaged")


def test_a_file_that_goes_away() -> None:
    events = ac.read_events(parquet(columns()), SCHEMA)
    Path("log.parquet").unlink()
    assert "log.parquet" in told(SourceError, events.table)


def test_a_gzip_file_cut_short() -> None:
    text = "\n".join(csv_lines(columns())).encode()
    Path("log.csv.gz").write_bytes(gzip.compress(text)[:-1000])
    assert told(SourceError, lambda: ac.read_events("log.csv.gz", SCHEMA)).startswith("log.csv.gz: ")


def test_a_frame_without_rows() -> None:
    assert error_of(pa.table(columns()).slice(0, 0), kind=SourceError) == "frame: no rows"
    frames = [pa.table(columns()), pa.table(columns()).slice(0, 0)]
    assert error_of(frames, kind=SourceError) == "frame 2: no rows"


@pytest.mark.parametrize("source", [{"time_ms": [1]}, 3, None, pl.LazyFrame({"time_ms": [1]})])
def test_what_is_neither_path_nor_frame(source: Any) -> None:
    assert "give a path, a folder, a glob" in error_of(source, kind=ConfigError)


def test_more_events_than_the_memory_limit_can_sort() -> None:
    rng = np.random.default_rng(0)
    rows = 4_000
    frame = pa.table(
        {
            "time_ms": START + rng.integers(0, 10**9, rows),
            "user_id": rng.integers(0, 1000, rows),
            "video_id": rng.integers(0, 1000, rows),
            "click": np.zeros(rows),
            "page": [f"{number:010}" * 1_000 for number in range(rows)],
        }
    )
    schema = ac.Schema(TIME, SCHEMA.entities, SCHEMA.labels)
    message = told(ConfigError, lambda: ac.read_events(frame, schema, memory_limit="16MB").table())
    assert message.startswith(
        "the events do not fit into a memory_limit of 16MB (raise memory_limit, or read fewer"
    )


# --- CSV -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [3, 700])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_ragged_row(line: int, suffix: str) -> None:
    lines = csv_lines(columns())
    for text, found in (("1,2,3", 3), (lines[5] + ",9", 9)):
        path = f"log.{suffix}"
        content = "\n".join([*lines[: line - 1], text, *lines[line:]]).encode()
        Path(path).write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
        message = told(SourceError, lambda path=path: ac.read_events(path, SCHEMA))
        assert message.startswith(f"{path}: line {line}: {found} columns where the header has 8")


def test_many_ragged_rows_are_counted() -> None:
    lines = csv_lines(columns())
    message = told(
        SourceError, lambda: ac.read_events(csv([line + ",9" for line in lines[:1]] + lines[1:]), SCHEMA)
    )
    assert "log.csv: line 2: 8 columns where the header has 9, and 999 more such lines" in message


def test_words_among_the_numbers_of_a_csv() -> None:
    for column, row, word in (("click", 91, "maybe"), ("weight", 17, "heavy"), ("truth", 400, "n/a")):
        data = columns(**{column: [str(v) for v in columns()[column]]})
        data[column][row - 1] = word
        message = told(RowError, lambda data=data: ac.read_events(csv(csv_lines(data)), SCHEMA))
        assert f"log.csv: column '{column}' is no number in 1 of 1,000 rows, row {row} ({word})" in message


def test_a_csv_column_of_words_only() -> None:
    data = columns(click=[["up", "down"][i % 2] for i in range(ROWS)])
    assert "'click' is text, but label 'click' must be a number" in error_of(
        csv(csv_lines(data)), kind=ColumnError
    )


def test_words_that_are_truth_values_are_labels_in_a_csv() -> None:
    data = columns(click=[i % 2 == 0 for i in range(ROWS)])
    clicks = ac.read_events(csv(csv_lines(data)), SCHEMA).table(["click"])["click"]
    assert clicks.to_pylist() == [1, 0] * (ROWS // 2)


def test_an_open_quote_and_another_encoding() -> None:
    lines = csv_lines(columns())
    source = csv([*lines[:500], '"' + lines[500], *lines[501:]])
    assert told(SourceError, lambda: ac.read_events(source, SCHEMA)).startswith("log.csv: line 501: ")
    row = ",".join([str(START), "1", "Zürich", "1", "1.0", "0.0", "0.5", "1.0"])
    Path("log.csv").write_bytes("\n".join([*lines, row]).encode("latin-1"))
    message = told(SourceError, lambda: ac.read_events("log.csv", SCHEMA))
    assert "log.csv: line 1002: " in message
    assert "not utf-8" in message


# --- around --------------------------------------------------------------------------------------------------


def test_bad_input_changes_no_file() -> None:
    source = Path(parquet(spoiled("click", 3, value=7)))
    before = source.read_bytes()
    error_of(str(source))
    assert source.read_bytes() == before
    assert os.listdir() == ["log.parquet"]


def test_reading_is_imported_without_duckdb() -> None:
    code = "import sys, acclimate; acclimate.read_events; assert 'duckdb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
