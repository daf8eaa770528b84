"""The simulated world: its probabilities are the truth, and it moves as it says."""

import datetime as dt
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import acclimate as ac
from acclimate.artifacts import Events
from acclimate.errors import ConfigError

LABELS = ("click", "like", "long_view")


def column(events: Events, name: str) -> Any:
    return events.table([name])[name].to_numpy()


def days(events: Events) -> Any:
    return column(events, "time").astype("M8[D]").astype(int)


def logit(p: Any) -> Any:
    return np.log(p / (1 - p))


@pytest.fixture(scope="module")
def world() -> Events:
    return ac.simulate(seed=1)


# --- the truth -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("by", ["all", "surface", "position", "hour", "day", "probability", "topic"])
def test_rates_are_the_true_probabilities(world: Events, label: str, by: str) -> None:
    y, p = column(world, label), column(world, f"{label}_probability")
    groups = {
        "all": lambda: np.zeros(len(y), int),
        "surface": lambda: np.unique(column(world, "surface").astype(str), return_inverse=True)[1],
        "position": lambda: column(world, "position"),
        "hour": lambda: column(world, "time").astype("M8[h]").astype(int) % 24,
        "day": lambda: days(world) - days(world).min(),
        "probability": lambda: np.argsort(np.argsort(p)) * 20 // len(p),
        "topic": lambda: np.unique([t[0] for t in column(world, "topics")], return_inverse=True)[1],
    }[by]()
    expected, observed = np.bincount(groups, p), np.bincount(groups, y)
    spread = np.sqrt(np.bincount(groups, p * (1 - p)))
    seen = spread > 0
    assert seen.any()
    assert np.abs((observed - expected)[seen] / spread[seen]).max() < 4.5


def test_the_logit_of_a_click_is_the_sum_that_a_mixed_model_can_say() -> None:
    rows = ac.simulate(users=6, items=8, days=1, events_per_day=4_000).table().to_pylist()
    terms = [
        {"one", f"surface {r['surface']}", f"hour {r['time'].hour}", f"position {r['position']}"}
        | {f"item {r['item_id']}", f"user {r['user_id']}"}
        | {f"user {r['user_id']} x {topic}" for topic in r["topics"]}
        for r in rows
    ]
    names = {name: i for i, name in enumerate(sorted(set().union(*terms)))}
    X = np.zeros((len(rows), len(names)))
    for i, present in enumerate(terms):
        X[i, [names[name] for name in present]] = 1
    z = logit(np.array([r["click_probability"] for r in rows]))
    residual = z - X @ np.linalg.lstsq(X, z, rcond=None)[0]
    assert np.abs(residual).max() < 1e-9 < z.std()


def test_longer_items_are_clicked_less() -> None:
    """Of one user, items of one topic differ by context, topic, duration, and a quality that averages out."""
    rows = ac.simulate(users=1, items=4_000, days=1, events_per_day=20_000).table().to_pandas()
    rows = rows[rows["topics"].map(len) == 1].drop_duplicates("item_id")
    known = rows.assign(topics=rows["topics"].map("".join), hour=rows["time"].dt.hour)
    dummies = pd.get_dummies(known[["surface", "hour", "position", "topics"]].astype(str)).to_numpy(float)
    X = np.column_stack([np.log1p(rows["duration"]), dummies])
    slope = np.linalg.lstsq(X, logit(rows["click_probability"].to_numpy()), rcond=None)[0][0]
    assert len(rows) > 1_000
    assert abs(slope + 0.25) < 0.05


def test_effects_are_of_a_realistic_size(world: Events) -> None:
    y, p = column(world, "click"), column(world, "click_probability")
    rank = np.empty(len(p))
    rank[np.argsort(p)] = np.arange(1, len(p) + 1)
    positives = int(y.sum())
    auc = (rank[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    assert 0.2 < y.mean() < 0.3
    assert 0.75 < auc < 0.8
    position = column(world, "position")
    means = np.array([p[position == at].mean() for at in range(1, 11)])
    assert (np.diff(means) < 0).all()


def test_likes_and_long_views_follow_clicks_and_are_rarer(world: Events) -> None:
    click, like, long_view = (column(world, label) for label in LABELS)
    assert not like[click == 0].any()
    assert not long_view[click == 0].any()
    assert 0 < like.mean() < long_view.mean() < click.mean()


# --- how it moves --------------------------------------------------------------------------------------------


def test_a_jump_changes_the_tastes_of_its_share_of_users_and_nothing_before_or_else() -> None:
    arguments: dict[str, Any] = {"users": 600, "days": 6, "events_per_day": 5_000, "seed": 3}
    calm = ac.simulate(**arguments, jump_day=None)
    jumped = ac.simulate(**arguments, jump_day=3, jump_share=0.4)
    before = "2024-01-04"
    assert jumped.before(before).table().equals(calm.before(before).table())
    shown = ["time", "user_id", "item_id", "surface", "position", "topics", "duration"]
    assert jumped.table(shown).equals(calm.table(shown))

    jumped, calm = jumped.after(before), calm.after(before)
    user, p, stale = (
        column(jumped, "user_id"),
        column(jumped, "click_probability"),
        column(calm, "click_probability"),
    )
    changed = np.unique(user[p != stale])
    share = len(changed) / len(np.unique(user))
    assert abs(share - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 600)
    assert (p == stale)[~np.isin(user, changed)].all()
    lost = (p * np.log(p / stale) + (1 - p) * np.log((1 - p) / (1 - stale))).mean()
    assert lost > 0.02


def test_a_jump_of_nobody_is_no_jump() -> None:
    calm = ac.simulate(days=4, events_per_day=500, jump_day=None).table()
    assert ac.simulate(days=4, events_per_day=500, jump_day=2, jump_share=0.0).table().equals(calm)
    assert ac.simulate(days=4, events_per_day=500, jump_day=4).table().equals(calm)


def test_half_life_sets_the_pace_of_the_drift() -> None:
    def moves(half_life: str) -> float:
        """Mean distance of the logits of the same user and item on the first and on the third day."""
        world = ac.simulate(users=40, items=10, days=3, events_per_day=40_000, jump_day=None, half_life=half_life)
        rows = world.table().to_pandas()
        rows["z"] = logit(rows["click_probability"])
        alike = ["user_id", "item_id", "surface", "position", rows["time"].dt.hour]
        first, _, third = (part.groupby(alike)["z"].first() for _, part in rows.groupby(rows["time"].dt.date))
        return float((first - third).abs().mean())

    assert moves("1000000d") < 0.01
    assert 0.1 < moves("30d") < moves("1d")


def test_the_drift_is_stationary() -> None:
    world = ac.simulate(users=3_000, days=20, jump_day=None, half_life="2d")
    z, day = logit(column(world, "click_probability")), days(world)
    spreads = [z[day == d].std() for d in np.unique(day)]
    assert max(spreads) / min(spreads) < 1.15


def test_items_are_born_and_die(world: Events) -> None:
    item, day = column(world, "item_id"), days(world)
    seen = [set(item[day == d]) for d in np.unique(day)]
    assert all(len(items) <= 400 for items in seen)
    newest = [max(items) for items in seen]
    assert all(earlier < later for earlier, later in itertools.pairwise(newest))
    assert max(seen[0]) < 400
    survivors = len(seen[0] & seen[-1]) / len(seen[0])
    assert 0.05 < survivors < 0.4
    first = {i: d for d in range(29, -1, -1) for i in seen[d]}
    born_later = [first[i] for i in sorted(first) if i >= 400]
    assert np.corrcoef(born_later, np.arange(len(born_later)))[0, 1] > 0.95


def test_few_items_get_most_of_the_impressions(world: Events) -> None:
    counts = np.sort(np.bincount(column(world.before("2024-01-02"), "item_id"), minlength=400))[::-1]
    assert 0.3 < counts[:40].sum() / counts.sum() < 0.9
    assert (counts > 0).sum() > 200


def test_new_users_keep_arriving_and_every_cohort_has_rows(world: Events) -> None:
    user, day = column(world, "user_id"), days(world)
    newest = [user[day == d].max() for d in np.unique(day)]
    assert newest[0] < 1_100 < 1_900 < newest[-1] < 2_000
    today = day == np.unique(day)[15]
    past = np.bincount(user[day < np.unique(day)[15]], minlength=2_000)[user[today]]
    cohorts = np.histogram(past, bins=[0, 1, 5, 20, np.inf])[0]
    assert (cohorts > 30).all()


def test_slates_show_items_one_below_the_other() -> None:
    """So few slates that no user sees two at once."""
    rows = ac.simulate(users=5_000, days=20, events_per_day=100, jump_day=None).table().to_pandas()
    by_user = rows.sort_values(["user_id", "time"])
    before = by_user.groupby("user_id").shift()
    follows = by_user["position"] == before["position"] + 1
    assert (follows | (by_user["position"] == 1)).all()
    gap = (by_user["time"] - before["time"])[follows].dt.total_seconds()
    assert follows.sum() > 1_000
    assert gap.between(10, 30).all()
    assert (by_user["surface"] == before["surface"])[follows].all()


# --- its form ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes() -> None:
    arguments: dict[str, Any] = {"users": 50, "items": 20, "days": 3, "events_per_day": 200}
    table = ac.simulate(**arguments, seed=7).table()
    assert table.equals(ac.simulate(**arguments, seed=7).table())
    assert not table.equals(ac.simulate(**arguments, seed=8).table())


def test_columns_and_schema(world: Events) -> None:
    types = {
        "time": pa.timestamp("us", "UTC"),
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "surface": pa.string(),
        "position": pa.int32(),
        "topics": pa.list_(pa.string()),
        "duration": pa.float64(),
        **dict.fromkeys(LABELS, pa.int8()),
        **{f"{label}_probability": pa.float64() for label in LABELS},
    }
    table = world.table()
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == types
    assert not any(c.null_count for c in table.columns)
    assert world.schema.truth == "click_probability"
    assert world.schema.entities == {"user": "user_id", "item": "item_id"}
    assert world.schema.labels == LABELS
    assert world.schema.feature("topics").kind == "multi"
    assert world.describe().rows == 300_000


def test_the_world_begins_on_the_day_it_is_told_to() -> None:
    for start in ("2020-02-28", dt.date(2020, 2, 28)):
        log = ac.simulate(users=10, items=5, days=3, events_per_day=50, start=start).describe()
        assert log.first is not None
        assert log.last is not None
        assert (log.first.date(), log.last.date()) == (dt.date(2020, 2, 28), dt.date(2020, 3, 1))


@settings(max_examples=60, deadline=None)
@given(
    users=st.integers(1, 4),
    items=st.integers(1, 4),
    length=st.integers(1, 4),
    events=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    jump=st.none() | st.integers(0, 5),
)
def test_small_worlds(users: int, items: int, length: int, events: int, seed: int, jump: int | None) -> None:
    world = ac.simulate(users=users, items=items, days=length, events_per_day=events, seed=seed, jump_day=jump)
    rows = world.table().to_pylist()
    keys = [(r["time"], r["user_id"], r["item_id"]) for r in rows]
    assert keys == sorted(keys)
    assert [(r["time"].date() - dt.date(2024, 1, 1)).days for r in rows] == [
        day for day in range(length) for _ in range(events)
    ]
    for r in rows:
        assert 0 <= r["user_id"] < users
        assert 0 <= r["item_id"] < items * length
        assert 1 <= r["position"] <= 10
        assert 1 <= len(set(r["topics"])) == len(r["topics"]) <= 3
        assert r["duration"] > 0
        assert 0 < r["like_probability"] < r["click_probability"] < 1
        assert 0 < r["long_view_probability"] < r["click_probability"]
        assert {r[label] for label in LABELS} <= {0, 1}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("users", 0),
        ("items", -1),
        ("days", 0),
        ("events_per_day", 0),
        ("jump_share", 1.5),
        ("jump_share", float("nan")),
        ("jump_day", -1),
        ("start", "yesterday"),
        ("half_life", "soon"),
    ],
)
def test_arguments_out_of_range(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=argument if argument != "half_life" else "soon"):
        ac.simulate(**{argument: value})
