"""Points in time and spans of it, in microseconds UTC everywhere inside."""

import datetime as dt
from zoneinfo import ZoneInfo

from acclimate.errors import ConfigError, shortened

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNIT_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_LONGEST = 3_652_500 * _UNIT_US["d"]


# A day from the ends of what a datetime can hold, so that it can in every zone.
_FIRST, _LAST = -62_135_510_400_000_000, 253_402_257_600_000_000


def instant_us(time: dt.datetime) -> int:
    """Microseconds since 1970 of a datetime with a zone."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def utc(microseconds: int) -> dt.datetime:
    """The datetime, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def duration_us(text: str) -> int:
    """Microseconds of a duration such as ``"90s"``, ``"30m"``, ``"6h"``, ``"1d"`` or ``"2w"``.

    Raises:
        ConfigError: the text is no positive number with one of these units, or more than ten thousand years.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :]
    try:
        microseconds = round(float(number) * _UNIT_US[unit])
    except (ValueError, KeyError, OverflowError):
        microseconds = 0
    if not 0 < microseconds <= _LONGEST:
        what = "is no duration" if microseconds <= 0 else "is longer than ten thousand years"
        raise ConfigError(f"'{shortened(text)}' {what}", hint="write 90s, 30m, 6h, 1d or 2w")
    return microseconds


def instant(time: str | dt.date | dt.datetime | int, zone: str) -> int:
    """Microseconds since 1970 of a point in time: such a number, a day, or a time, in the zone without its own.

    Raises:
        ConfigError: a text is not ISO 8601, or the time is outside the years 1 to 9999.
    """
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(time)
        except ValueError as error:
            hint = "write 2022-04-25 or 2022-04-25T18:00"
            raise ConfigError(f"'{shortened(time)}' is no time", hint=hint) from error
    if not isinstance(time, int):
        if not isinstance(time, dt.datetime):
            time = dt.datetime.combine(time, dt.time())
        time = instant_us(time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone)))
    if not _FIRST <= time <= _LAST:
        raise ConfigError(f"{shortened(str(time))} microseconds since 1970 is no time of the years 1 to 9999")
    return time


def check_span(
    since: str | dt.date | dt.datetime | int | None, until: str | dt.date | dt.datetime | int | None, zone: str
) -> None:
    """Refuse a span that ends where it starts, or before; ``None`` is no limit.

    Raises:
        ConfigError: ``until`` is not after ``since``, or one of them is no time.
    """
    ends = [None if time is None else instant(time, zone) for time in (since, until)]
    if ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]:
        raise ConfigError(
            f"the span from {since} to {until} is empty: its end is not after its start", hint="exchange the two"
        )
