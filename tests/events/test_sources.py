"""Reading events: every kind of source, the types and the order of rows, joins, and what is not read."""

import datetime as dt
import decimal
import gc
import os
import threading
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import acclimate as ac
from acclimate.artifacts import Events, Fingerprint, Summary
from acclimate.config import TimeUnit
from acclimate.errors import ConfigError
from acclimate.events.files import Database

START = 1_650_816_000_000  # 2022-04-25 00:00 in Asia/Shanghai, milliseconds
SCHEMA = ac.Schema(
    time=ac.TimeColumn("time_ms", unit="ms", zone="Asia/Shanghai"),
    entities={"user": "user_id", "video": "video_id"},
    labels="click",
)


def log(rows: int = 60, seed: int = 0) -> pa.Table:
    """Events of four hours in no order, with several at one instant."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "time_ms": START + 60_000 * rng.integers(0, 240, rows),
            "user_id": rng.integers(0, 5, rows),
            "video_id": pa.array([f"v{v}" for v in rng.integers(0, 4, rows)]),
            "click": pa.array(rng.integers(0, 2, rows), mask=rng.random(rows) < 0.1),
            "price": np.round(rng.normal(size=rows), 3),
            "row": np.arange(rows),
        }
    )


def expected(table: pa.Table) -> list[dict[str, Any]]:
    """The rows by time, entities and place, as plain Python sorts them."""
    rows = sorted(table.to_pylist(), key=lambda r: (r["time_ms"], r["user_id"], r["video_id"]))
    return [{**r, "time_ms": dt.datetime.fromtimestamp(r["time_ms"] / 1000, dt.UTC)} for r in rows]


def read(source: Any, schema: ac.Schema = SCHEMA, **kwargs: Any) -> Events:
    return ac.read_events(source, schema, **kwargs)


def column_of(column: Any, name: str = "x", **kwargs: Any) -> Any:
    """What becomes of one column of a frame."""
    table = log(len(column))
    if name in table.column_names:
        table = table.drop(name)
    return read(table.append_column(name, column), **kwargs).table([name])[name].combine_chunks()


# --- kinds of source -----------------------------------------------------------------------------------------


def stored(folder: Path, kind: str) -> Any:
    table = log()
    if kind in ("parquet", "folder", "glob", "list"):
        pq.write_table(table.slice(0, 25), folder / "1.parquet")
        pq.write_table(table.slice(25), folder / "2.parquet")
        (folder / "README.md").write_text("not data")
        (folder / "_SUCCESS").write_text("")
    if kind in ("csv", "csv.gz", "csv semicolon"):
        path = folder / f"log.{kind.split()[0]}"
        table.to_pandas(integer_object_nulls=True).to_csv(path, index=False, sep=";" if "semi" in kind else ",")
        return path
    if kind == "mixed list":
        pq.write_table(table.slice(0, 10), folder / "a.parquet")
        table.slice(10, 20).to_pandas(integer_object_nulls=True).to_csv(folder / "b.csv", index=False)
        pq.write_table(table.slice(30, 20), folder / "c.parquet")
        return [str(folder / "a.parquet"), folder / "b.csv", folder / "c.parquet", table.slice(50)]
    return {
        "parquet": lambda: [folder / "1.parquet", folder / "2.parquet"],
        "folder": lambda: folder,
        "glob": lambda: str(folder / "*"),
        "list": lambda: [str(folder / "1.parquet"), str(folder / "*.parquet")],
        "pyarrow": lambda: table,
        "batches": lambda: table.to_reader(7),
        "pandas": lambda: table.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": lambda: pl.from_arrow(table),
        "duckdb": lambda: duckdb.connect().from_arrow(table),
        "frames": lambda: [table.slice(0, 30), pl.from_arrow(table.slice(30))],
    }[kind]()


KINDS = ["parquet", "folder", "glob", "list", "csv", "csv.gz", "csv semicolon", "mixed list"]
FRAMES = ["pyarrow", "batches", "pandas", "polars", "duckdb", "frames"]


@pytest.mark.parametrize("kind", KINDS + FRAMES)
def test_every_kind_of_source_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    events = read(stored(tmp_path, kind))
    assert events.table().to_pylist() == expected(log())
    window = events.between("2022-04-25T01:00", "2022-04-25T03:00")
    hours = [r for r in expected(log()) if 1 <= r["time_ms"].astimezone(ZoneInfo("Asia/Shanghai")).hour < 3]
    assert 0 < len(hours) < 60
    assert window.table().to_pylist() == hours


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    for day in ("day=1", "day=2"):
        (tmp_path / day).mkdir()
        pq.write_table(log(5), tmp_path / day / "part.parquet")
    pd.DataFrame(log(5).to_pydict()).to_csv(tmp_path / "day=2" / "part.csv", index=False)
    assert read(tmp_path).describe().rows == 15
    assert read(str(tmp_path / "day=*")).describe().rows == 15
    assert read(str(tmp_path / "**")).describe().rows == 15
    assert read(tmp_path).source.columns().names == log().column_names


def test_names_that_look_like_globs_or_sql_are_names(tmp_path: Path) -> None:
    table = log(5).append_column('it\'s "odd"', pa.array(range(5)))
    folder = tmp_path / "it's [1]"
    folder.mkdir()
    pq.write_table(table, folder / "a*.parquet")
    pd.DataFrame(table.to_pydict()).to_csv(folder / "b[0].csv", index=False)
    for name in ("a*.parquet", "b[0].csv"):
        assert read(folder / name).table(['it\'s "odd"']).num_rows == 5


def test_a_pandas_index_is_read_if_it_has_a_name() -> None:
    frame = log().to_pandas(types_mapper=pd.ArrowDtype).sample(frac=1, random_state=0)
    assert read(frame).source.columns().names == log().column_names
    named = frame.set_index("row")
    assert set(read(named).source.columns().names) == set(log().column_names)


# --- types ---------------------------------------------------------------------------------------------------

MOMENTS = [dt.datetime(2022, 4, 25, 8, 30, 0, 250_000), dt.datetime(2022, 4, 26, 23, 59, 59)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 6)])
def test_numbers_become_times_by_their_unit(unit: TimeUnit, kind: Any) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    seconds = [decimal.Decimal(1_650_816_000), decimal.Decimal("1650816000.25")]
    numbers = [s * factor for s in seconds]
    wanted = [1_650_816_000_000_000, 1_650_816_000_250_000]
    if pa.types.is_floating(kind):
        numbers = [float(x) for x in numbers]
    if pa.types.is_integer(kind):
        numbers = [int(x) for x in numbers]
        wanted[1] -= 250_000 if unit == "s" else 0
    schema = ac.Schema(time=ac.TimeColumn("x", unit=unit), entities=["user_id"], labels="click")
    column = column_of(pa.array(numbers, kind), schema=schema)
    assert column.type == pa.timestamp("us", "UTC")
    assert sorted(column.cast(pa.int64()).to_pylist()) == sorted(wanted)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
@pytest.mark.parametrize(
    "column",
    [
        *(pa.array(MOMENTS, pa.timestamp(unit)) for unit in ("ms", "us", "ns")),
        pa.array([m.isoformat() for m in MOMENTS]),
        pa.array([str(m) for m in MOMENTS]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_times_without_a_zone_are_in_that_of_the_schema(zone: str, column: Any) -> None:
    schema = ac.Schema(time=ac.TimeColumn("x", zone=zone), entities=["user_id"], labels="click")
    events = read(log(2).append_column("x", column), schema)
    wanted = [m.replace(tzinfo=ZoneInfo(zone)) for m in MOMENTS]
    assert events.table(["x"])["x"].to_pylist() == wanted
    assert events.between(wanted[0], wanted[1]).table(["x"])["x"].to_pylist() == wanted[:1]
    assert events.after(MOMENTS[1]).table(["x"])["x"].to_pylist() == wanted[1:]


@pytest.mark.parametrize(
    "column",
    [
        *(pa.array(MOMENTS, pa.timestamp(unit, "Asia/Tokyo")) for unit in ("ms", "us", "ns")),
        pa.array([f"{m.isoformat()}Z" for m in MOMENTS]),
        pa.array([f"{m + dt.timedelta(hours=8)}+08:00" for m in MOMENTS]),
        pa.array([f"{m - dt.timedelta(hours=3.5)}-0330" for m in MOMENTS]),
    ],
    ids=lambda column: str(column[0]),
)
def test_times_with_a_zone_keep_it(column: Any) -> None:
    schema = ac.Schema(time=ac.TimeColumn("x", zone="America/New_York"), entities=["user_id"], labels="click")
    wanted = [m.replace(tzinfo=dt.UTC) for m in MOMENTS]
    assert column_of(column, schema=schema).to_pylist() == wanted


def test_dates_are_midnights_of_the_zone() -> None:
    schema = ac.Schema(time=ac.TimeColumn("x", zone="Asia/Shanghai"), entities=["user_id"], labels="click")
    for column in (pa.array([dt.date(2022, 4, 25)]), pa.array(["2022-04-25"])):
        assert column_of(column, schema=schema).cast(pa.int64()).to_pylist() == [START * 1000]


def test_days_of_changing_clocks_are_read_right() -> None:
    """Europe/Berlin, 2022-03-27: at 2 o'clock it is 3."""
    local = [dt.datetime(2022, 3, 27, 1, 59), dt.datetime(2022, 3, 27, 3, 0), dt.datetime(2022, 3, 28, 0, 0)]
    schema = ac.Schema(time=ac.TimeColumn("x", zone="Europe/Berlin"), entities=["user_id"], labels="click")
    events = read(log(3).append_column("x", pa.array(local, pa.timestamp("us"))), schema)
    times = events.table(["x"])["x"].cast(pa.int64()).to_numpy() // 60_000_000
    assert np.diff(times).tolist() == [1, 21 * 60]
    assert [w.describe().rows for w in events.windows("1d")] == [2, 1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.uint8()),
        pa.array([1, 0, None], pa.int64()),
        pa.array([1.0, 0.0, float("nan")]),
        pa.array([1.0, 0.0, None], pa.float32()),
        pa.array([1, 0, None], pa.decimal128(3, 1)),
    ],
    ids=lambda column: str(column.type),
)
def test_labels_are_small_integers_or_null(tmp_path: Path, column: Any) -> None:
    table = log(3).set_column(3, "click", column)
    pq.write_table(table, tmp_path / "log.parquet")
    for source in (table, tmp_path / "log.parquet"):
        rows = read(source).table(["row", "click"]).sort_by("row")
        assert rows["click"].type == pa.int8()
        assert rows["click"].to_pylist() == [1, 0, None]


def test_labels_that_are_all_unknown() -> None:
    assert column_of(pa.nulls(3), "click").to_pylist() == [None] * 3


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2], pa.uint16()), pa.int64()),
        (pa.array([1, 2], pa.uint64()), pa.int64()),
        (pa.array([1, 2], pa.int32()).dictionary_encode(), pa.int64()),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array(["a", "b"], pa.string_view()), pa.string()),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_ids_are_long_integers_or_text(column: Any, kind: Any) -> None:
    found = column_of(column, "user_id")
    assert found.type == kind
    assert sorted(found.to_pylist()) == column.to_pylist()


@pytest.mark.parametrize("role", ["weight", "offset", "truth"])
def test_weight_offset_and_truth_are_doubles(role: str) -> None:
    schema = ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, **{role: "x"})
    for column in (pa.array([0, 1]), pa.array([0.0, 1.0], pa.float32()), pa.array([False, True])):
        assert column_of(column, schema=schema).type == pa.float64()


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, None], pa.int32()), pa.int32()),
        (pa.array([1.5, float("nan")], pa.float32()), pa.float64()),
        (pa.array([1.5, None], pa.float16()), pa.float64()),
        (pa.array([decimal.Decimal("1.5"), None]), pa.float64()),
        (pa.array(["a", None]).dictionary_encode(), pa.string()),
        (pa.array([["a", "b"], None]), pa.list_(pa.string())),
        (pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))), pa.list_(pa.string())),
        (pa.array([[1.0, float("nan")], None], pa.list_(pa.float32(), 2)), pa.list_(pa.float32(), 2)),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2)), pa.list_(pa.float32(), 2)),
        (pa.array([[1.0], None], pa.list_(pa.float64())), pa.list_(pa.float64())),
        (pa.array([True, None]), pa.bool_()),
        (pa.array([dt.date(2022, 1, 1), None]), pa.date32()),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_features_keep_their_type(tmp_path: Path, column: Any, kind: Any) -> None:
    table = log(2).append_column("x", column)
    pq.write_table(table, tmp_path / "log.parquet")
    for source in (table, tmp_path / "log.parquet"):
        rows = read(source).table(["row", "x"]).sort_by("row")
        assert rows["x"].type == kind
        found = rows["x"].to_pylist()
        assert found[0] == pytest.approx(column[0].as_py(), nan_ok=True)
        assert found[1] != found[1] if kind == pa.float64() and column.null_count == 0 else found[1] is None


def test_a_feature_of_hours_may_be_text_and_becomes_times() -> None:
    schema = ac.Schema(
        SCHEMA.time, SCHEMA.entities, SCHEMA.labels, features={"made": ac.Feature("x", kind="hour")}
    )
    column = column_of(pa.array(["2022-04-25 09:30", None, "2022-04-25T09:30:00Z"]), schema=schema)
    hours = [None if t is None else t.hour for t in column.to_pylist()]
    assert sorted(hours, key=str) == [1, 9, None]


def test_the_hour_of_the_event_itself_may_be_declared() -> None:
    features = {"hour": ac.Feature("time_ms", kind="hour"), "price": ac.Feature(transform="log1p")}
    events = read(log(), ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, features=features))
    assert events.table().equals(read(log()).table())


def test_the_types_are_known_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(log(), tmp_path / "log.parquet")
    events = read(tmp_path)
    assert events.source.columns().names == log().column_names
    assert events.source.columns() == events.table().schema


# --- files that differ ---------------------------------------------------------------------------------------


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    table = log(20)
    pq.write_table(table.slice(0, 10).drop("price"), tmp_path / "1.parquet")
    pq.write_table(table.slice(10).select(table.column_names[::-1]), tmp_path / "2.parquet")
    wanted = [{**r, "price": None} if r["row"] < 10 else r for r in expected(table)]
    assert read(tmp_path).table(table.column_names).to_pylist() == wanted


def test_a_column_without_values_in_one_csv_does_not_turn_numbers_into_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(log(20).to_pydict())
    frame.assign(price=None).to_csv(tmp_path / "1.csv", index=False)
    frame.drop(columns="click").to_csv(tmp_path / "2.csv", index=False)
    types = read(tmp_path).source.columns()
    assert types.field("price").type == pa.float64()
    assert types.field("click").type == pa.int8()


def test_a_late_word_in_a_csv_makes_the_whole_column_text(tmp_path: Path) -> None:
    lines = [f"{START + i},1,a,0,{i % 9}" for i in range(30_000)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["time_ms,user_id,video_id,click,tab", *lines, f"{START},1,a,1,home"]))
    tabs = read(path).table(["tab"])["tab"]
    assert tabs.type == pa.string()
    assert set(tabs.to_pylist()) == {*"012345678", "home"}


def test_csv_quotes_byte_order_marks_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    text = (
        f'time_ms,user_id,video_id,click,x\r\n{START},1,"a,b",1,"say ""hi"""\r\n{START},2,#c,,"two\r\nlines"\r\n'
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = read(path).table().to_pylist()
    assert [r["video_id"] for r in rows] == ["a,b", "#c"]
    assert [r["x"] for r in rows] == ['say "hi"', "two\r\nlines"]
    assert [r["click"] for r in rows] == [1, None]


# --- order ---------------------------------------------------------------------------------------------------


def test_scans_with_different_columns_line_up_row_by_row(tmp_path: Path) -> None:
    rows = 5_000
    rng = np.random.default_rng(1)
    table = log(rows, seed=1).set_column(0, "time_ms", pa.array(START + rng.integers(0, 3, rows)))
    pq.write_table(table.slice(0, 2_000), tmp_path / "1.parquet", row_group_size=300)
    pq.write_table(table.slice(2_000), tmp_path / "2.parquet", row_group_size=700)
    events = read(tmp_path)
    assert events.table().to_pylist() == expected(table)
    for name in table.column_names:
        assert events.table([name])[name].equals(events.table()[name])


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_order_and_the_files_that_rows_come_in_do_not_matter(data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=40))
    table = pa.table(
        {
            "time_ms": [START + 3_600_000 * t for t in times],
            "user_id": data.draw(st.lists(st.integers(0, 3), min_size=len(times), max_size=len(times))),
            "video_id": [str(t % 2) for t in times],
            "click": [t % 2 for t in times],
            "row": range(len(times)),
        }
    )
    order = data.draw(st.permutations(range(len(times))))
    cut = data.draw(st.integers(1, len(times)))
    parts = [table.take(part) for part in (order[:cut], order[cut:]) if part]
    keys = ["time_ms", "user_id", "video_id", "click"]
    for straight, shuffled in zip(read(table).windows("1d"), read(parts).windows("1d"), strict=True):
        assert straight.table(keys).equals(shuffled.table(keys))
        rows = straight.table(["row"])["row"].to_pylist()
        assert sorted(rows) == sorted(shuffled.table(["row"])["row"].to_pylist())


def test_late_rows_land_in_the_window_they_belong_to(tmp_path: Path) -> None:
    day = 86_400_000
    table = log(30)
    late = table.set_column(0, "time_ms", pa.array([START + day + i for i in range(30)]))
    pq.write_table(late, tmp_path / "1.parquet")
    pq.write_table(table, tmp_path / "2.parquet")
    first, second = read(tmp_path).windows("1d")
    assert first.table().to_pylist() == expected(table)
    assert second.table().to_pylist() == expected(late)


def test_exact_duplicates_are_kept_or_dropped_as_told(tmp_path: Path) -> None:
    table = log(20)
    near = table.slice(0, 1).set_column(4, "price", pa.array([99.0]))
    pq.write_table(pa.concat_tables([table, table.slice(3, 5), near]), tmp_path / "1.parquet")
    pq.write_table(table.slice(0, 2), tmp_path / "2.parquet")
    keep = read(tmp_path)
    drop = read(tmp_path, ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, duplicates="drop"))
    assert keep.describe().rows == 28
    assert drop.describe().rows == 21
    assert drop.table().to_pylist() == expected(pa.concat_tables([table, near]))
    assert drop.table(["user_id"]).num_rows == 21, "equal is said of all columns, not of those asked for"


# --- entity tables -------------------------------------------------------------------------------------------


def joined(**tables: ac.EntityTable) -> Events:
    return read(log(), ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, tables=tables))


def test_a_table_is_joined_by_its_key(tmp_path: Path) -> None:
    users = pa.table({"id": [0, 1, 2, 9], "age": [10, 11, 12, 19], "video_id": ["x"] * 4})
    pq.write_table(users, tmp_path / "users.parquet")
    for source in (users, tmp_path / "users.parquet", pl.from_arrow(users)):
        table = joined(user=ac.EntityTable(source, key="id")).table(["row", "user_id", "user.age"])
        assert table.select(["row", "user_id"]).equals(read(log()).table(["row", "user_id"]))
        ages = {user: {0: 10, 1: 11, 2: 12}.get(user) for user in range(5)}
        assert table["user.age"].to_pylist() == [ages[user] for user in table["user_id"].to_pylist()]


def test_a_table_that_is_no_entity_is_joined_by_the_column_of_its_name() -> None:
    prices = log().select(["row"]).append_column("shop", pa.array([f"s{i}" for i in range(60)]))
    events = joined(shops=ac.EntityTable(prices, key="row"))
    rows = events.table(["row", "shops.shop"]).to_pylist()
    assert all(r["shops.shop"] == f"s{r['row']}" for r in rows)


def test_several_tables_at_once_do_not_change_the_rows() -> None:
    events = joined(
        user=ac.EntityTable(pa.table({"key": [0, 1], "x": [1.5, 2.5]}), key="key"),
        video=ac.EntityTable(pa.table({"key": ["v0", "v3"], "x": ["a", "b"]}), key="key"),
    )
    assert {"user.x", "video.x", "user.key"} < set(events.source.columns().names)
    table = events.table()
    assert table.select(log().column_names).to_pylist() == expected(log())
    assert set(table["user.x"].to_pylist()) == {1.5, 2.5, None}
    assert events.describe().rows == 60


def as_of(history: list[tuple[int, int, str]], event: tuple[int, int]) -> str | None:
    """The last row at or before the event, the slow way."""
    user, time = event
    known = [(since, value) for who, since, value in history if who == user and since <= time]
    return max(known)[1] if known else None


@settings(max_examples=12, deadline=None)
@given(
    history=st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 10)), st.text("ab", max_size=2)),
    events=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10)), min_size=1, max_size=15),
)
def test_a_table_with_times_is_joined_as_of_the_event(
    history: dict[tuple[int, int], str], events: list[tuple[int, int]]
) -> None:
    rows = [(user, since, value) for (user, since), value in history.items()] or [(7, 0, "none")]
    table = pa.table(
        {
            "id": [user for user, _, _ in rows],
            "since": pa.array([START // 1000 + since for _, since, _ in rows]),
            "value": [value for _, _, value in rows],
        }
    )
    frame = pa.table(
        {
            "time_ms": [START + 1000 * time for _, time in events],
            "user_id": [user for user, _ in events],
            "video_id": ["v"] * len(events),
            "click": [0] * len(events),
            "row": range(len(events)),
        }
    )
    user = ac.EntityTable(table, key="id", time=ac.TimeColumn("since", unit="s"))
    schema = ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, tables={"user": user})
    found = read(frame, schema).table(["row", "user.value"]).to_pylist()
    assert {r["row"]: r["user.value"] for r in found} == {i: as_of(rows, e) for i, e in enumerate(events)}


# --- what is not read ----------------------------------------------------------------------------------------


def spoil(path: Path, column: str, group: int) -> None:
    """Overwrite one column of one row group; the footer stays whole."""
    with pq.ParquetFile(path) as file:
        chunks = [file.metadata.row_group(group).column(i) for i in range(file.metadata.num_columns)]
    chunk = next(c for c in chunks if c.path_in_schema.split(".")[0] == column)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
def test_row_groups_outside_the_time_range_are_not_read(tmp_path: Path, duplicates: Any) -> None:
    table = log(100).set_column(0, "time_ms", pa.array([START + 3_600_000 * i for i in range(100)]))
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=25)
    spoil(tmp_path / "log.parquet", "price", group=2)
    events = read(tmp_path, ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, duplicates=duplicates))
    assert events.before("2022-04-27T02:00").table()["row"].to_pylist() == list(range(50))
    assert events.after("2022-04-28T03:00").table()["row"].to_pylist() == list(range(75, 100))


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.date32(), pa.float64()], ids=str
)
def test_times_of_any_type_skip_row_groups(tmp_path: Path, kind: Any) -> None:
    days = [dt.datetime(2022, 4, 1) + dt.timedelta(days=i) for i in range(100)]
    times = pa.array([d.timestamp() for d in days] if kind == pa.float64() else days, kind)
    pq.write_table(log(100).append_column("time", times), tmp_path / "log.parquet", row_group_size=25)
    spoil(tmp_path / "log.parquet", "price", group=1)
    time = ac.TimeColumn("time", unit="s" if kind == pa.float64() else None)
    events = read(tmp_path, ac.Schema(time, SCHEMA.entities, SCHEMA.labels))
    assert events.after("2022-06-01").table()["row"].to_pylist() == list(range(61, 100))


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    pq.write_table(log(), tmp_path / "log.parquet")
    pq.write_table(pa.table({"id": [1, 2], "a": [1, 2], "b": [3, 4]}), tmp_path / "user.parquet")
    spoil(tmp_path / "log.parquet", "price", group=0)
    spoil(tmp_path / "user.parquet", "b", group=0)
    tables = {"user": ac.EntityTable(tmp_path / "user.parquet", key="id")}
    events = read(tmp_path / "log.parquet", ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, tables=tables))
    assert events.table(["row", "user.a"]).num_rows == 60
    assert events.describe().rows == 60


def test_a_table_whose_columns_nobody_asks_for_is_not_read_again(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "a": [1, 2]}), tmp_path / "user.parquet")
    events = joined(user=ac.EntityTable(tmp_path / "user.parquet", key="id"))
    (tmp_path / "user.parquet").unlink()
    assert events.table(["row"]).num_rows == 60


# --- resources -----------------------------------------------------------------------------------------------


def test_a_log_larger_than_memory_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = 600_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "time_ms": START + rng.integers(0, 10**9, rows),
            "user_id": rng.integers(0, 1000, rows),
            "video_id": rng.integers(0, 1000, rows),
            "click": np.zeros(rows, np.int8),
            "text": pa.array(rng.integers(10**17, 10**18, rows)).cast(pa.string()),
        }
    )
    events = read(table, memory_limit="64MB")
    reader = events.reader()
    last, seen = 0, 0
    for batch in reader:
        times = batch["time_ms"].cast(pa.int64()).to_numpy()
        assert times[0] >= last
        assert np.all(np.diff(times) >= 0)
        last, seen = times[-1], seen + len(times)
    assert seen == rows
    assert list(tmp_path.iterdir()), "the sort fits into memory, so this test says nothing"
    del events, reader, batch
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_readers_side_by_side_do_not_disturb_each_other() -> None:
    rows = 400_000
    table = pa.table(
        {
            "time_ms": START + np.arange(rows)[::-1],
            "user_id": np.arange(rows),
            "video_id": np.arange(rows),
            "click": np.zeros(rows, np.int8),
        }
    )
    events = read(table)
    first = events.reader(["user_id"])
    head = next(first)
    second = events.reader(["video_id"])
    next(second)
    assert events.describe().rows == rows
    del events
    gc.collect()
    rest = pa.concat_arrays([head["user_id"], *(b["user_id"] for b in first)])
    assert np.array_equal(rest.to_numpy(), np.arange(rows)[::-1])
    assert 0 < sum(b.num_rows for b in second) < rows


def test_threads_may_share_events() -> None:
    events = read(log(2_000))
    wanted = events.table()
    results: list[bool] = []

    def work() -> None:
        results.extend(events.table().equals(wanted) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_describe_counts_in_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    events = read(log())
    table = log().to_pandas()
    queries: list[str] = []
    query = Database.query
    monkeypatch.setattr(Database, "query", lambda self, sql: queries.append(sql) or query(self, sql))
    summary = events.describe()
    assert len(queries) == 1
    assert summary == Summary(
        rows=60,
        first=dt.datetime.fromtimestamp(table.time_ms.min() / 1000, dt.UTC),
        last=dt.datetime.fromtimestamp(table.time_ms.max() / 1000, dt.UTC),
        entities={"user_id": table.user_id.nunique(), "video_id": table.video_id.nunique()},
        rates={"click": pytest.approx(table.click.mean())},
    )


def test_described_alike_on_disk_and_in_memory() -> None:
    events = read(log())
    assert events.cached().describe() == events.describe()
    assert events.after("2030-01-01").describe() == Summary(
        0, None, None, {"user_id": 0, "video_id": 0}, {"click": None}
    )


def test_head_of_files(tmp_path: Path) -> None:
    pq.write_table(log(), tmp_path / "log.parquet")
    assert read(tmp_path).head(3).to_pylist() == expected(log())[:3]


def test_a_memory_limit_that_is_no_size() -> None:
    with pytest.raises(ConfigError, match="memory_limit 'much' is no size"):
        read(log(), memory_limit="much")


def test_the_kuairand_log() -> None:
    folder = Path(os.environ.get("KUAIRAND_DIR", "../shared/data/kuairand_pure"))
    if not folder.is_dir():
        assert os.environ.get("CI") != "true", f"{folder} must be there in CI"
        pytest.skip(f"no KuaiRand data in {folder}; set KUAIRAND_DIR")
    tables = {
        "user": ac.EntityTable(folder / "user_features_pure.parquet", key="user_id"),
        "video": ac.EntityTable(folder / "video_features_basic_pure.parquet", key="video_id"),
    }
    schema = ac.Schema(SCHEMA.time, SCHEMA.entities, ["long_view", "is_click"], tables=tables)
    events = read(str(folder / "log_*_pure.parquet"), schema)
    summary = events.describe()
    assert summary.rows == 817_187 + 228_329
    assert summary.rates["is_click"] == pytest.approx(0.442, abs=5e-4)
    columns = ["user_id", "long_view", "tab", "user.user_active_degree", "video.tag"]
    windows = list(events.windows("1d", start="2022-04-25"))
    days = [window.table(columns) for window in windows]
    assert len(days) == 14
    assert sum(day.num_rows for day in days) == events.after("2022-04-25").describe().rows
    assert all(day["user.user_active_degree"].null_count == 0 for day in days)
    assert days[3]["tab"].null_count < days[3].num_rows


# --- fingerprints --------------------------------------------------------------------------------------------


def test_equal_rows_have_one_fingerprint_in_any_files_and_order(tmp_path: Path) -> None:
    table = log()
    narrow = table.set_column(1, "user_id", table["user_id"].cast(pa.int16()))
    pq.write_table(narrow.take(np.random.default_rng(3).permutation(60)), tmp_path / "all.parquet")
    (tmp_path / "parts").mkdir()
    for number, start in enumerate((40, 0, 20)):
        part = table.slice(start, 20).select(table.column_names[::-1])
        pq.write_table(part, tmp_path / "parts" / f"{number}.parquet", row_group_size=7)
    expected = read(table).fingerprint()
    assert expected.rows == 60
    assert len(expected.total) == 16
    assert read(tmp_path / "all.parquet").fingerprint() == expected
    assert read(tmp_path / "parts").fingerprint() == expected
    assert read([table.slice(0, 30), table.slice(30)]).fingerprint() == expected


def test_rows_without_a_label_can_be_left_out_of_count_and_fingerprint() -> None:
    table = log()
    known = [y if i % 4 else None for i, y in enumerate(table["click"].to_pylist())]
    table = table.set_column(table.column_names.index("click"), "click", pa.array(known, pa.int8()))
    with_label = read(table.filter(pc.is_valid(table["click"]))).fingerprint()
    for events in (read(table), read(table).cached()):
        assert (events.count(), events.count(known="click")) == (60, with_label.rows)
        assert events.fingerprint(known="click") == with_label != events.fingerprint()


@pytest.mark.parametrize("column", ["user_id", "video_id", "click"])
def test_one_changed_value_changes_the_fingerprint(column: str) -> None:
    table = log()
    values = table[column].to_pylist()
    values[7] = next(v for v in values[8:] if v is not None and v != values[7])
    changed = table.set_column(table.column_names.index(column), column, pa.array(values))
    assert read(changed).fingerprint() != read(table).fingerprint()


def test_a_fingerprint_counts_duplicates_and_keeps_to_the_range() -> None:
    table = log()
    events, twice = read(table), read([table, table.slice(0, 1), table.slice(0, 1)])
    assert twice.fingerprint().rows == 62
    assert twice.fingerprint().total != events.fingerprint().total
    middle = 1000 * (START + 60_000 * 120)
    early, late = events.before(middle).fingerprint(), events.after(middle).fingerprint()
    assert early.rows + late.rows == 60
    assert (int(early.total, 16) + int(late.total, 16)) % 2**64 == int(events.fingerprint().total, 16)
    assert events.before(0).fingerprint() == Fingerprint(0, "0" * 16, "")
