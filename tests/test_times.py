"""Points in time and spans of it: whole microseconds, there and back."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.errors import ConfigError
from acclimate.times import check_span, duration_us, instant, instant_us, utc

FIRST = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
LAST = dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (1_650_499_200_000_001, "2022-04-21T00:00:00.000001+00:00"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999+00:00"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00+00:00"),
    ],
)
def test_known_instants(microseconds: int, text: str) -> None:
    assert utc(microseconds) == dt.datetime.fromisoformat(text)
    assert instant_us(dt.datetime.fromisoformat(text)) == microseconds
    assert utc(microseconds).tzinfo is dt.UTC


@given(st.integers(instant_us(FIRST), instant_us(LAST)))
def test_no_microsecond_is_lost(microseconds: int) -> None:
    assert instant_us(utc(microseconds)) == microseconds


@given(
    st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
    st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kolkata"]),
    st.sampled_from([0, 1]),
)
def test_an_instant_is_the_same_in_every_zone(local: dt.datetime, zone: str, fold: int) -> None:
    time = local.replace(tzinfo=ZoneInfo(zone), fold=fold)
    assert utc(instant_us(time)) == time.astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1us", 1),
        ("1ms", 1_000),
        ("90s", 90_000_000),
        ("30m", 1_800_000_000),
        ("6h", 21_600_000_000),
        ("1d", 86_400_000_000),
        ("2w", 1_209_600_000_000),
        ("0.5d", 43_200_000_000),
    ],
)
def test_durations(text: str, microseconds: int) -> None:
    assert duration_us(text) == microseconds


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7x", "-1d", "0s", "0.1us", "infd", "nand", "1D", "one day", "1d2h"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        duration_us(text)
    assert str(caught.value) == f"'{text}' is no duration (write 90s, 30m, 6h, 1d or 2w)"


@pytest.mark.parametrize(
    ("since", "until"),
    [("2024-01-02", "2024-01-01"), ("2024-01-02", "2024-01-02"), ("2024-01-01T12:00", "2024-01-01T11:00+00:00")],
)
def test_a_span_that_is_empty_is_refused(since: str, until: str) -> None:
    with pytest.raises(ConfigError, match="is empty: its end is not after its start"):
        check_span(since, until, "UTC")


def test_a_span_may_be_open_and_follows_the_zone() -> None:
    for since, until in ((None, None), ("2024-01-01", None), (None, "2024-01-01"), (0, 1)):
        check_span(since, until, "UTC")
    check_span("2024-01-01", "2024-01-01T00:00+00:00", "Asia/Shanghai")
    with pytest.raises(ConfigError):
        check_span("2024-01-01", "2024-01-01T00:00+00:00", "America/New_York")


@pytest.mark.parametrize("time", [10**30, -(10**30)])
def test_a_time_beyond_the_calendar_is_refused(time: int) -> None:
    with pytest.raises(ConfigError, match="no time of the years 1 to 9999"):
        instant(time, "UTC")
