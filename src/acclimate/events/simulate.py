"""A drifting world whose true probabilities are known.

Users have tastes over topics, items one to three topics and a quality. Tastes and qualities wander from day to
day, items are born and die, users keep arriving, and on one day a share of the users jumps to fresh tastes.
The logit of a click is a sum of what a mixed model can say::

    base + surface + hour + position + duration + topics + quality[item] + readiness[user] + taste[user]·topics

so that a learner loses against the truth only what it does not know yet, or no longer rightly believes.
"""

import datetime as dt
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Events, TableSource
from acclimate.config import Feature, Schema, Seed, TimeColumn, checked
from acclimate.errors import ConfigError, shortened
from acclimate.times import duration_us

_TOPICS: Any = pa.array(
    ["animals", "art", "cars", "comedy", "fashion", "food", "games", "music", "news", "science", "sport", "travel"]
)
_READY, _NONE = len(_TOPICS), len(_TOPICS) + 1
"""Beside the topics, a user's state has a column for the readiness to click at all, and one that is always 0."""

# A world is made in memory: up to 130 bytes for each impression, and 500 for each user and item.
_MOST = {"users": 10_000_000, "items": 10_000_000, "days": 36_525, "events_per_day": 50_000_000}

_SURFACES: Any = pa.array(["feed", "related", "search"])
_SLATE = 10
_DAY = duration_us("1d")

# Effects on the logit of a click. With these a quarter of the impressions is clicked and the true probabilities
# have an AUC of .78; without the users' own part it would be .66.
_BASE = -1.2
_SURFACE = np.array([0.0, -0.4, 0.8])
_HOUR = 0.25 * np.cos(2 * np.pi * (np.arange(24) - 21) / 24)
_POSITION = -0.35 * np.log(np.arange(1, _SLATE + 1))
_DURATION = -0.25
_TOPIC = np.append(np.linspace(-0.4, 0.4, len(_TOPICS)), (0.0, 0.0))
_TASTE = np.append(np.full(len(_TOPICS), 0.7), (0.5, 0.0))  # standard deviations over users
_QUALITY = 0.4  # standard deviation over items

_SURFACE_SHARE = np.array([0.6, 0.25, 0.15])
_HOUR_SHARE = (1 + 0.8 * np.cos(2 * np.pi * (np.arange(24) - 19) / 24)) / 24
_TOPICS_SHARE = np.array([0.5, 0.35, 0.15])  # of items with one, two and three topics
_GO_ON = 0.8  # chance that a slate shows one more item
_LIFETIME = 20.0  # mean days that an item lives
_FADING = 10.0  # days in which an item's popularity halves
_MEDIAN_DURATION = 30.0  # seconds

_ITEM = np.dtype(
    [
        ("id", np.int64),
        ("age", np.int64),
        ("topics", np.int64, 3),
        ("duration", np.float64),
        ("appeal", np.float64),
        ("quality", np.float64),
    ]
)
_Items = NDArray[np.void]

_SCHEMA = Schema(
    time=TimeColumn("time"),
    entities={"user": "user_id", "item": "item_id"},
    labels=("click", "like", "long_view"),
    truth="click_probability",
    features={
        "position": Feature(kind="categorical"),
        "topics": Feature(kind="multi"),
        "duration": Feature(kind="numeric", transform="log1p"),
    },
)


def simulate(
    *,
    users: int = 2_000,
    items: int = 400,
    days: int = 30,
    events_per_day: int = 10_000,
    seed: int = 0,
    start: str | dt.date = "2024-01-01",
    jump_day: int | None = 15,
    jump_share: float = 0.5,
    half_life: str = "60d",
) -> Events:
    """Impressions of a drifting world, with the probability that each had of being clicked.

    Worlds of one seed that differ in ``jump_day`` or ``jump_share`` show the same users the same items, and are
    equal up to the jump.

    Args:
        users: users in all; half of them arrive on the first day, the others evenly over the days.
        items: items on offer at any time; one that dies is replaced by a new one.
        days: length of the log, in days of UTC.
        events_per_day: impressions a day.
        seed: of everything random.
        start: the first day.
        jump_day: the day, counted from 0, on which some users change their tastes; ``None``: never.
        jump_share: the share of the users who do.
        half_life: the time in which the autocorrelation of tastes and qualities halves.

    Returns:
        Events in memory: ``time``, ``user_id``, ``item_id``, ``surface``, ``position`` (1 to 10), ``topics``,
        ``duration`` (seconds), the labels ``click``, ``like`` and ``long_view`` (the latter two only where
        clicked), and of each label its true probability before the impression, ``<label>_probability``.

    Raises:
        ConfigError: an argument is out of range.
    """
    _check_size(users=users, items=items, days=days, events_per_day=events_per_day)
    seed = checked("seed", Seed, seed)
    if not 0 <= jump_share <= 1:
        raise ConfigError(f"'jump_share' is {jump_share}", hint="a share lies between 0 and 1")
    if jump_day is not None and jump_day < 0:
        raise ConfigError(f"'jump_day' is {jump_day}", hint="days count from 0; None is never")
    first = _midnight(start)
    keep = 2.0 ** (-duration_us("1d") / duration_us(half_life))
    user_rng, item_rng, jump_rng, log_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(4))
    activity = user_rng.lognormal(sigma=1.0, size=users)
    tastes = _TASTE * user_rng.standard_normal((users, len(_TASTE)))
    offer = _first_offer(items, item_rng)
    batches: list[pa.RecordBatch] = []
    for day in range(days):
        if day > 0:
            tastes = _drifted(tastes, _TASTE, keep, user_rng)
            offer = _next_offer(offer, keep, item_rng)
        if day == jump_day:
            tastes = _jumped(tastes, jump_share, jump_rng)
        there = users - users // 2 * (days - 1 - day) // days
        shown = _shown(activity[:there], offer, events_per_day, log_rng)
        batches.append(_rows(shown, tastes, offer, first + day * _DAY, log_rng))
    return Events(_SCHEMA, TableSource(_SCHEMA, pa.Table.from_batches(batches)))


def _check_size(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"'{name}' is {value}", hint="a world needs at least 1")
        if value > _MOST[name]:
            asked = shortened(f"{value:,}")
            raise ConfigError(f"'{name}' is {asked}: too large a world", hint=f"at most {_MOST[name]:,} fit")
    days, a_day, most = sizes["days"], sizes["events_per_day"], _MOST["events_per_day"]
    if days * a_day > most:
        raise ConfigError(
            f"{days:,} days with {a_day:,} impressions each are too large a world",
            hint=f"{most:,} fit in all: {most // days:,} on each of the days",
        )


def _midnight(day: str | dt.date) -> int:
    """Microseconds since 1970 at which the day begins, in UTC."""
    try:
        date = dt.date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError as error:
        raise ConfigError(f"'start' is '{day}', and that is no day", hint="write 2024-01-01") from error
    return (date.toordinal() - dt.date(1970, 1, 1).toordinal()) * _DAY


# --- how the world moves ------------------------------------------------------------------------------------


def _drifted(state: FloatArray, spread: FloatArray | float, keep: float, rng: Generator) -> FloatArray:
    """One day of a stationary AR(1): mean 0 and standard deviation ``spread`` stay what they are."""
    return keep * state + np.sqrt(1 - keep**2) * spread * rng.standard_normal(state.shape)


def _jumped(tastes: FloatArray, share: float, rng: Generator) -> FloatArray:
    """Fresh tastes for a share of the users; their readiness stays."""
    changed = rng.random((len(tastes), 1)) < share
    is_taste = np.arange(len(_TASTE)) < _READY
    return np.where(changed & is_taste, _TASTE * rng.standard_normal(tastes.shape), tastes)


def _first_offer(count: int, rng: Generator) -> _Items:
    offer = _born(count, 0, rng)
    offer["age"] = rng.geometric(1 / _LIFETIME, count) - 1
    return offer


def _next_offer(offer: _Items, keep: float, rng: Generator) -> _Items:
    """The items of the next day: older, some of them replaced."""
    following = offer.copy()
    following["age"] += 1
    following["quality"] = _drifted(offer["quality"], _QUALITY, keep, rng)
    dead = rng.random(len(offer)) < 1 / _LIFETIME
    following[dead] = _born(int(dead.sum()), int(offer["id"].max()) + 1, rng)
    return following


def _born(count: int, first_id: int, rng: Generator) -> _Items:
    """New items. Pareto appeals make the popularity within a catalogue zipf-like, with an exponent of .8."""
    items = np.zeros(count, _ITEM)
    items["id"] = first_id + np.arange(count)
    topics = rng.random((count, len(_TOPICS))).argsort(axis=1)[:, :3]
    how_many = 1 + rng.choice(3, count, p=_TOPICS_SHARE)
    items["topics"] = np.where(np.arange(3) < how_many[:, None], topics, _NONE)
    items["duration"] = np.round(rng.lognormal(np.log(_MEDIAN_DURATION), 0.8, count), 1)
    items["appeal"] = (1 - rng.random(count)) ** -0.8
    items["quality"] = _QUALITY * rng.standard_normal(count)
    return items


# --- what is shown, and what comes of it --------------------------------------------------------------------


class _Shown(NamedTuple):
    """The impressions of a day, ``(n,)`` each, in their order: ``time`` in milliseconds, the rest as indices."""

    time: IntArray
    user: IntArray
    item: IntArray
    surface: IntArray
    hour: IntArray
    position: IntArray


def _shown(activity: FloatArray, offer: _Items, count: int, rng: Generator) -> _Shown:
    """Slates of one to ten items, one below the other at intervals of 10 to 30 seconds, within one hour."""
    index = np.arange(count)
    begins = rng.random(count) > _GO_ON
    begins[0] = True
    position = (index - np.maximum.accumulate(np.where(begins, index, 0))) % _SLATE
    slate = np.cumsum(position == 0) - 1
    slates = int(slate[-1]) + 1
    hour = rng.choice(24, slates, p=_HOUR_SHARE)
    opened = hour * 3_600_000 + rng.integers(3_390_000, size=slates)
    time = opened[slate] + position * 20_000 + rng.integers(10_000, size=count)
    user = rng.choice(len(activity), slates, p=activity / activity.sum())[slate]
    popularity = offer["appeal"] * 2 ** (-offer["age"] / _FADING)
    item = rng.choice(len(offer), count, p=popularity / popularity.sum())
    surface = rng.choice(len(_SURFACES), slates, p=_SURFACE_SHARE)[slate]
    order = np.lexsort((offer["id"][item], user, time))
    return _Shown(*(column[order] for column in (time, user, item, surface, hour[slate], position)))


def _rows(shown: _Shown, tastes: FloatArray, offer: _Items, midnight: int, rng: Generator) -> pa.RecordBatch:
    """The day's impressions with their probabilities and labels."""
    user, item = shown.user, shown.item
    length = np.log1p(offer["duration"]) - np.log1p(_MEDIAN_DURATION)
    worth = offer["quality"] + _DURATION * length + _TOPIC[offer["topics"]].sum(axis=1)
    affinity = tastes[user, _READY] + tastes[user[:, None], offer["topics"][item]].sum(axis=1)
    context = _SURFACE[shown.surface] + _HOUR[shown.hour] + _POSITION[shown.position]
    click = _sigmoid(_BASE + context + worth[item] + affinity)
    like_if = _sigmoid(-2.2 + 0.8 * affinity + offer["quality"][item])
    long_view_if = _sigmoid(0.3 + 0.5 * affinity - 0.6 * length[item])
    chance = rng.random((3, len(user)))
    clicked = chance[0] < click
    columns: dict[str, Any] = {
        "time": pa.array(midnight + 1_000 * shown.time, pa.timestamp("us", "UTC")),
        "user_id": user,
        "item_id": offer["id"][item],
        "surface": _SURFACES.take(shown.surface),
        "position": (shown.position + 1).astype(np.int32),
        "topics": _topic_lists(offer).take(item),
        "duration": offer["duration"][item],
        "click": clicked.astype(np.int8),
        "like": (clicked & (chance[1] < like_if)).astype(np.int8),
        "long_view": (clicked & (chance[2] < long_view_if)).astype(np.int8),
        "click_probability": click,
        "like_probability": click * like_if,
        "long_view_probability": click * long_view_if,
    }
    return pa.RecordBatch.from_pydict(columns)


def _topic_lists(offer: _Items) -> Any:
    """Arrow lists of the items' topics, ``(items,)``."""
    present = offer["topics"] != _NONE
    edges = np.append(0, np.cumsum(present.sum(axis=1))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), _TOPICS.take(offer["topics"][present]))


def _sigmoid(z: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-z))
