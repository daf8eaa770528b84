"""Points in time and spans of it, in microseconds UTC everywhere inside."""

import datetime as dt

from acclimate.errors import ConfigError

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


def instant_us(time: dt.datetime) -> int:
    """Microseconds since 1970 of a datetime with a zone."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def utc(microseconds: int) -> dt.datetime:
    """The datetime, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def duration_us(text: str) -> int:
    """Microseconds of a duration such as ``"90s"``, ``"30m"``, ``"6h"``, ``"1d"`` or ``"2w"``.

    Raises:
        ConfigError: the text is no positive number with one of these units.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :]
    try:
        microseconds = round(float(number) * _UNIT_US[unit])
    except (ValueError, KeyError, OverflowError):
        microseconds = 0
    if microseconds <= 0:
        raise ConfigError(f"'{text}' is no duration", hint="write 90s, 30m, 6h, 1d or 2w")
    return microseconds
