"""Times that are text, and files whose times are not of one kind: read rightly, or refused."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_logs import SCHEMA, error_of, frame, parquet

import acclimate as ac
from acclimate.errors import ColumnError, ConfigError, RowError

BAD = [
    "2022-04-25T18:00:00 EST", "2022-04-25 18:00:00 GMT", "2022-04-25T18:00:00 Europe/Berlin",
    "2022-04-25T18:00:00Z ", "2022-04-25T18:00:00+08:00 ", " 2022-04-25T18:00:00Z", "2022-04-25T18:00:00+08:00\t",
    "2022-04-25T18:00:00Z\n", "2022-04-25T18:00:00 +08:00", "2022-04-25T18:00:00z", "2022-04-25T18:00:00 Z",
    "2022-02-30", "2022-02-30T18:00:00Z", "2022-02-30 18:00", "2023-02-29T00:00:00+01:00", "2022-13-01",
    "2022-04-25T25:00:00", "2022-04-25T18:61:00", "2022-04-25T18:00:61Z", "2022-04-25T24:00:00",
    "2022-04-25T18", "2022-04-25T18+08:00", "2022-04-25+08:00", "2022-04-25Z", "2022-4-25", "25.04.2022",
    "2022/04/25", "04/25/2022 18:00", "20220425", "2022-W17-1", "2022-115", "today", "now", "epoch", "infinity",
    "-infinity", "1650880800", "2022-04-25T18:00:00,5", "2022-04-25T18:00:00+8", "2022-04-25T18:00:00+99:00",
    "2022-04-25T18:00:00+08:60", "2022-04-25T18:00:00+08:00:00", "2022-04-25T18:00:00UTC+8",
    "2022-04-25T18:00:00UTC",
    "2022-04-25T18:00:00[Europe/Berlin]", "2022-04-25T18:00:00+08:00[Asia/Shanghai]", "2022-04-25 06:00 PM",
    "2022-04-25T18:00:00-PST", "2022-04-25 18:00:00.123 Asia/Tokyo", "2022-04-25 (BC)", "２０２２-04-25",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_what_is_not_written_as_iso_8601_says_is_no_time(text: str) -> None:
    message = error_of(frame(at=["2022-04-25T18:00", text, "2022-04-25"]), kind=RowError)
    assert message.startswith("frame: column 'at' is no time in 1 of 3 rows, row 2 (")


@pytest.mark.parametrize("text", BAD[:3], ids=repr)
def test_times_of_tables_are_held_to_the_same(text: str) -> None:
    ages = pa.table({"id": [7, 8], "since": ["2022-01-01", text], "age": [1, 2]})
    table = ac.EntityTable(ages, key="id", time=ac.TimeColumn("since"))
    schema = ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, tables={"user": table})
    assert "table 'user': column 'since' is no time in 1 of 2 rows, row 2 (" in error_of(frame(), schema, RowError)


ZONES = {
    "": 8 * 60,
    "Z": 0,
    " UTC": 0,
    "+08": 480,
    "-0330": -210,
    "+05:45": 345,
    "-00:30": -30,
    "+14:00": 840,
}


@given(
    st.datetimes(dt.datetime(1991, 1, 1), dt.datetime(2099, 1, 1)),
    st.sampled_from(sorted(ZONES)),
    st.sampled_from(["T", " "]),
    st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_as_iso_8601_says_is_read_so(local: dt.datetime, zone: str, sep: str, spec: str) -> None:
    text = local.isoformat(sep, spec)
    wanted = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) - dt.timedelta(minutes=ZONES[zone])
    schema = ac.Schema(ac.TimeColumn("at", zone="Etc/GMT-8"), SCHEMA.entities, SCHEMA.labels)
    events = ac.read_events(frame(at=[f"{text}{zone}"] * 3), schema)
    assert events.table(["at"])["at"].to_pylist() == [wanted] * 3


def test_text_with_and_without_a_zone_in_one_column_is_read_each_in_its_own() -> None:
    at = ["2022-04-25T18:00", "2022-04-25T11:00Z", "2022-04-25T20:00+08:00"]
    hours = [time.hour for time in ac.read_events(frame(at=at), SCHEMA).table(["at"])["at"].to_pylist()]
    assert hours == [10, 11, 12]


MOMENTS = np.array(["2022-04-25T18:00", "2022-04-25T19:00", "2022-04-26T00:30"], "datetime64[us]")
NAIVE, ZONED = pa.array(MOMENTS), pa.array(MOMENTS, pa.timestamp("us", "UTC"))
TEXT = [str(moment) for moment in MOMENTS]
KINDS = {
    "a number": [1650880800000000] * 3,
    "text": TEXT,
    "a timestamp without a zone": NAIVE,
    "a timestamp with a zone": ZONED,
}
PAIRS = [(a, b) for a in KINDS for b in KINDS if a != b]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_files_with_times_of_two_kinds(one: str, other: str, tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", at=KINDS[one])
    parquet(tmp_path / "2.parquet", at=KINDS[other])
    message = error_of(tmp_path, kind=ColumnError)
    assert f"2.parquet: column 'at' is {other}, but {one} in {tmp_path}/1.parquet (write it alike" in message


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_tables_with_times_of_two_kinds(one: str, other: str) -> None:
    ages = [pa.table({"id": [7 + i, 70 + i], "since": KINDS[kind][:2]}) for i, kind in enumerate((one, other))]
    table = ac.EntityTable(ages, key="id", time=ac.TimeColumn("since", unit="us"))
    schema = ac.Schema(SCHEMA.time, SCHEMA.entities, SCHEMA.labels, tables={"user": table})
    message = error_of(frame(), schema, ColumnError)
    assert f"table 'user' 2: column 'since' is {other}, but {one} in table 'user' 1" in message


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_timestamps_of_two_units_are_one_kind(unit: str, zone: str | None) -> None:
    other = pa.array(MOMENTS, pa.timestamp("us")).cast(pa.timestamp(unit))
    plain = pa.array(MOMENTS, pa.timestamp("us"))
    if zone:
        other, plain = other.cast(pa.timestamp(unit, zone)), plain.cast(pa.timestamp("us", "UTC"))
    times = ac.read_events([frame(at=plain), frame(at=other)], SCHEMA).table(["at"])["at"].to_pylist()
    assert times[::2] == times[1::2]
    assert times[0].hour == (18 if zone else 10)


def test_dates_and_timestamps_without_a_zone_are_one_kind() -> None:
    dates = pa.array(MOMENTS.astype("datetime64[D]"))
    times = ac.read_events([frame(at=NAIVE), frame(at=dates)], SCHEMA).table(["at"])["at"].to_pylist()
    assert [(time.day, time.hour) for time in times] == [
        (24, 16),
        (24, 16),
        (25, 10),
        (25, 11),
        (25, 16),
        (25, 16),
    ]


@pytest.mark.parametrize(
    "zone", ["Europe", "America/Argentina", "../UTC", "/etc/passwd", "UTC\n", "", "a" * 300, "."]
)
def test_a_zone_that_is_none(zone: Any) -> None:
    with pytest.raises(ConfigError, match="no time zone '"):
        ac.TimeColumn("at", zone=zone)
