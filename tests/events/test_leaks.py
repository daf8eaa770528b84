"""Columns that know the future: found where they do, and no false alarm where they do not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import rankdata

import acclimate as ac
from acclimate.artifacts import Events
from acclimate.events.leaks import _ranks, find_leaks

DAY = 86_400
START = 1_650_000_000
ITEMS = 400


def flips(seed: int, spread: float = 0.0, events: int = 6_000) -> dict[str, np.ndarray]:
    """Unequal numbers of events per item; the log-odds of the items vary by ``spread``, 0 is flips of one coin."""
    rng = np.random.default_rng(seed)
    appeal = rng.lognormal(0, 1, ITEMS)
    truth = 1 / (1 + np.exp(0.5 - spread * rng.standard_normal(ITEMS)))
    item = rng.choice(ITEMS, events, p=appeal / appeal.sum())
    click = (rng.random(events) < truth[item]).astype(int)
    return {
        "time": START + np.sort(rng.integers(0, 20 * DAY, events)),
        "item_id": item,
        "click": click,
        "truth": truth,
    }


def rates(log: dict[str, np.ndarray], rows: slice) -> np.ndarray:
    """Each item's rate in these rows, drawn to the mean where they are few."""
    item, click = log["item_id"][rows], log["click"][rows]
    return (np.bincount(item, click, ITEMS) + 1) / (np.bincount(item, minlength=ITEMS) + 3)


def opened(log: dict[str, np.ndarray], columns: dict[str, Any], **more: Any) -> Events:
    table = pa.table({"item_id": np.arange(ITEMS), **columns})
    schema = ac.Schema(
        time=ac.TimeColumn("time", unit="s"),
        entities={"item": "item_id"},
        labels="click",
        tables={"item": ac.EntityTable(table, key="item_id", **more)},
        duplicates="keep",
    )
    return ac.read_events(pa.table({name: log[name] for name in ("time", "item_id", "click")}), schema)


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_a_table_of_rates_over_the_log_is_found(seed: int, spread: float) -> None:
    log = flips(seed, spread)
    rng = np.random.default_rng(seed)
    (leak,) = find_leaks(opened(log, {"rate": rates(log, slice(None)), "noise": rng.random(ITEMS)}))
    assert (leak.column, leak.label) == ("item.rate", "click")
    assert leak.explained > leak.explainable + 0.2
    assert "'item.rate' may know the future" in str(leak)


@pytest.mark.parametrize("seed", range(4))
def test_a_table_of_future_rates_is_found(seed: int) -> None:
    log = flips(seed, events=12_000)
    assert [leak.column for leak in find_leaks(opened(log, {"x": rates(log, slice(6_000, None))}))] == ["item.x"]


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.5, 1.5])
def test_columns_that_were_known_before_raise_no_alarm(spread: float) -> None:
    """The truth itself among them, and rates of an earlier log of the same items."""
    for seed in range(25):
        log, rng = flips(seed, spread), np.random.default_rng(seed)
        events = np.bincount(log["item_id"], minlength=ITEMS)
        honest = {
            "truth": log["truth"],
            "earlier": rng.binomial(20, log["truth"]),
            "good": log["truth"] > np.median(log["truth"]),
            "popularity": events,
            "heavy": np.exp(3 * rng.standard_normal(ITEMS)),
            "missing": np.where(rng.random(ITEMS) < 0.3, np.nan, log["truth"]),
        }
        assert find_leaks(opened(log, honest)) == []


def test_a_simulated_world_raises_no_alarm() -> None:
    """Its events are not independent: tastes drift and jump, items fade, slates have positions."""
    for seed in range(5):
        rows = ac.simulate(users=300, items=60, days=8, events_per_day=1_500, jump_day=4, seed=seed).table()
        first = rows.group_by("item_id").aggregate(
            [("duration", "max"), ("click_probability", "mean"), ("item_id", "count")]
        )
        users = rows.group_by("user_id").aggregate([("click_probability", "mean"), ("user_id", "count")])
        schema = ac.Schema(
            time="time",
            entities={"user": "user_id", "item": "item_id"},
            labels=("click", "like", "long_view"),
            tables={"item": ac.EntityTable(first, key="item_id"), "user": ac.EntityTable(users, key="user_id")},
        )
        log = rows.select(["time", "user_id", "item_id", "click", "like", "long_view"])
        assert find_leaks(ac.read_events(log, schema)) == []


def test_slates_with_exactly_one_click_raise_no_alarm() -> None:
    """Rates vary less than those of coins, so that less than nothing could be explained."""
    rng = np.random.default_rng(0)
    item = np.tile(np.arange(ITEMS), 10)
    click = (np.arange(10)[:, None] == rng.integers(10, size=ITEMS)).astype(int).ravel()
    log = {"time": START + np.arange(len(item)), "item_id": item, "click": click}
    assert find_leaks(opened(log, {"x": rng.random(ITEMS), "y": np.arange(ITEMS)})) == []


def test_what_cannot_be_told_is_not_told() -> None:
    log = flips(0)
    rate = rates(log, slice(None))
    assert find_leaks(opened(log, {"constant": np.ones(ITEMS), "text": ["x"] * ITEMS})) == []
    assert find_leaks(opened(log, {"rate": np.where(np.arange(ITEMS) < 40, rate, np.nan)})) == []  # 40 entities
    assert find_leaks(opened(log, {"rate": rate}).before("2001-01-01")) == []
    timed = opened(log, {"rate": rate, "since": np.full(ITEMS, START)}, time=ac.TimeColumn("since", unit="s"))
    assert find_leaks(timed) == []


def test_the_order_and_repetition_of_rows_change_nothing_or_hide() -> None:
    log = flips(1)
    (leak,) = find_leaks(opened(log, {"rate": rates(log, slice(None))}))
    order = np.random.default_rng(0).permutation(len(log["time"]))
    mixed = {name: log[name][order] for name in ("time", "item_id", "click")}
    (again,) = find_leaks(opened(mixed, {"rate": rates(log, slice(None))}))
    assert again.deviations == pytest.approx(leak.deviations)
    doubled = {name: np.repeat(log[name], 2) for name in ("time", "item_id", "click")}
    assert all(
        twin.deviations < leak.deviations
        for twin in find_leaks(opened(doubled, {"rate": rates(log, slice(None))}))
    )


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 1.0, 2.0, -0.0, 0.0, 2.0], [5.0, 5.0], [1.0, 3.0, 2.0]])
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    assert _ranks(np.array(values)).tolist() == rankdata(values).tolist()
