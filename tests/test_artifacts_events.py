"""Time ranges, windows and small questions of Events, over a table in memory."""

import datetime as dt
import itertools
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import acclimate as ac
from acclimate.artifacts import Events, Summary, TableSource
from acclimate.errors import ColumnError, ConfigError

HOUR = 3_600_000_000


def micros(text: str, zone: str = "UTC") -> int:
    time = dt.datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))
    return round(time.timestamp()) * 1_000_000


def events_at(times: list[int], zone: str = "UTC") -> Events:
    schema = ac.Schema(time=ac.TimeColumn("time", zone=zone), entities=["user"], labels="click")
    times = sorted(times)
    table = pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "user": pa.array([t % 3 for t in range(len(times))], pa.int64()),
            "click": pa.array([[0, 1, None][t % 3] for t in range(len(times))], pa.int8()),
            "row": pa.array(range(len(times)), pa.int64()),
        }
    )
    return Events(schema, TableSource(schema, table))


def rows_of(events: Events) -> list[int]:
    return events.table(["row"])["row"].to_pylist()


def spans(events: Events, every: str, **kwargs: object) -> list[tuple[int | None, int | None]]:
    return [(w.start, w.end) for w in events.windows(every, **kwargs)]


def test_before_is_exclusive_and_after_inclusive() -> None:
    events = events_at([10, 20, 30])
    assert rows_of(events.before(20)) == [0]
    assert rows_of(events.after(20)) == [1, 2]
    assert rows_of(events.between(10, 30)) == [0, 1]
    assert rows_of(events.between(30, 10)) == []


def test_ranges_only_ever_narrow() -> None:
    events = events_at([10, 20, 30, 40]).between(15, 35)
    assert rows_of(events.after(0)) == [1, 2]
    assert rows_of(events.before(99)) == [1, 2]
    assert rows_of(events.after(25).before(35)) == [2]


@pytest.mark.parametrize(
    "instant",
    [
        "2022-04-25",
        "2022-04-25T00:00",
        "2022-04-24T16:00:00+00:00",
        "2022-04-24T16:00:00Z",
        dt.date(2022, 4, 25),
        dt.datetime(2022, 4, 25),
        dt.datetime(2022, 4, 24, 16, tzinfo=dt.UTC),
        1_650_816_000_000_000,
    ],
)
def test_an_instant_without_a_zone_is_in_that_of_the_schema(instant: object) -> None:
    assert events_at([0], "Asia/Shanghai").after(instant).start == 1_650_816_000_000_000


def test_what_is_no_time_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'yesterday' is no time .*write 2022-04-25"):
        events_at([0]).after("yesterday")


def test_daily_windows_begin_at_midnight_of_the_zone_and_include_empty_ones() -> None:
    zone = "Asia/Shanghai"
    times = [
        micros("2022-04-25T01:00", zone),
        micros("2022-04-25T23:59:59", zone),
        micros("2022-04-28T00:00", zone),
    ]
    windows = list(events_at(times, zone).windows("1d"))
    days = [micros(f"2022-04-{day}", zone) for day in (25, 26, 27, 28, 29)]
    assert [(w.start, w.end) for w in windows] == list(itertools.pairwise(days))
    assert [rows_of(w) for w in windows] == [[0, 1], [], [], [2]]


def test_windows_start_and_end_where_told() -> None:
    events = events_at([0, 5 * HOUR])
    assert spans(events, "2h", start=HOUR) == [(HOUR, 3 * HOUR), (3 * HOUR, 5 * HOUR), (5 * HOUR, 7 * HOUR)]
    assert spans(events, "2h", start=0, end=3 * HOUR) == [(0, 2 * HOUR), (2 * HOUR, 3 * HOUR)]
    assert spans(events, "2h", end=HOUR) == [(0, HOUR)]
    assert spans(events, "2h", start=6 * HOUR) == []


def test_windows_of_a_range_stay_inside_it() -> None:
    events = events_at([HOUR, 30 * HOUR, 60 * HOUR]).between(HOUR, 40 * HOUR)
    assert [(w.start, w.end) for w in events.windows("1d")] == [(HOUR, 24 * HOUR), (24 * HOUR, 40 * HOUR)]


def test_no_events_no_windows_unless_told_from_when_to_when() -> None:
    assert spans(events_at([]), "1d") == []
    assert spans(events_at([]), "1d", start="2022-04-25") == []
    assert len(spans(events_at([]), "1d", start="2022-04-25", end="2022-04-28")) == 3


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("Europe/Berlin", "2022-03-26", [24, 23, 24]),  # clocks go forward on the 27th
        ("Europe/Berlin", "2022-10-29", [24, 25, 24]),  # and back on the 30th
        ("America/Sao_Paulo", "2018-11-03", [24, 23, 24]),  # there is no midnight on the 4th
        ("Asia/Shanghai", "2022-03-26", [24, 24, 24]),
    ],
)
def test_a_day_of_changing_clocks_is_one_window(zone: str, first: str, hours: list[int]) -> None:
    begin = micros(first, zone)
    windows = spans(events_at([begin, begin + 71 * HOUR], zone), "1d", start=first)[:3]
    assert [(end - start) // HOUR for start, end in windows] == hours
    local = [dt.datetime.fromtimestamp(end / 1e6, ZoneInfo(zone)).hour for _, end in windows]
    assert local[1:] == [0, 0], "a missing midnight must not move the days after it"


def test_windows_of_hours_do_not_follow_the_calendar() -> None:
    begin = micros("2022-03-27", "Europe/Berlin")
    windows = spans(events_at([begin, begin + 22 * HOUR], "Europe/Berlin"), "12h")
    assert [end - start for start, end in windows] == [12 * HOUR, 12 * HOUR]


@given(
    times=st.lists(st.integers(0, 20 * 24 * HOUR), max_size=30),
    every=st.sampled_from(["5h", "1d", "3d", "1w", "90m"]),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]),
)
def test_every_event_is_in_exactly_one_window(times: list[int], every: str, zone: str) -> None:
    origin = micros("2022-03-05")
    events = events_at([origin + t for t in times], zone)
    assert [row for window in events.windows(every) for row in rows_of(window)] == list(range(len(times)))


def test_head_gives_the_first_rows_even_among_equals() -> None:
    events = events_at([10, 20, 20, 20, 30])
    assert events.head(2)["row"].to_pylist() == [0, 1]
    assert events.head(0).num_rows == 0
    assert events.head().equals(events.table())
    assert events.after(15).head(1)["row"].to_pylist() == [1]
    empty = events_at([]).head()
    assert empty.num_rows == 0
    assert empty.column_names == ["time", "user", "click", "row"]


def test_describe() -> None:
    begin = micros("2022-04-25")
    summary = events_at([begin + t for t in range(6)]).describe()
    first = dt.datetime(2022, 4, 25, tzinfo=dt.UTC)
    last = first + dt.timedelta(microseconds=5)
    assert summary == Summary(6, first, last, {"user": 3}, {"click": 0.5})


def test_describe_nothing() -> None:
    assert events_at([10]).before(5).describe() == Summary(0, None, None, {"user": 0}, {"click": None})


def test_cached_events_are_the_same_events() -> None:
    events = events_at(list(range(0, 100, 7))).between(10, 60)
    cached = events.cached()
    assert cached.table().equals(events.table())
    assert cached.describe() == events.describe()
    assert rows_of(cached.after(30)) == rows_of(events.after(30))


def test_rows_come_in_batches_too() -> None:
    events = events_at(list(range(10)))
    assert sum(batch.num_rows for batch in events.reader(["row"])) == 10
    assert events.reader(["row", "click"]).schema.names == ["row", "click"]


def test_an_unknown_column_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ColumnError, match=r"no column 'clik' \(did you mean 'click'\?\)"):
        events_at([0]).table(["clik"])


def test_the_table_source_slices_without_a_copy() -> None:
    source = events_at(list(range(1000))).source
    assert isinstance(source, TableSource)
    part = source.scan(["row"], 100, 200).read_all()["row"]
    assert np.array_equal(part.to_numpy(), np.arange(100, 200))
    assert part.chunk(0).buffers()[1].address == source.rows["row"].chunk(0).buffers()[1].address


@pytest.mark.parametrize("limit", [None, 1, 10**9])
def test_cached_events_are_the_same_wherever_they_lie(limit):
    events = replace(ac.simulate(users=20, items=5, days=3, events_per_day=50), memory_limit=limit)
    cached = events.cached()
    assert cached.table().equals(events.table())
    assert cached.memory_limit == limit
    assert cached.between("2024-01-02", "2024-01-03").count() == 50
    assert replace(events, end=0).cached().table().num_rows == 0
