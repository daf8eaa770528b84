"""Rows of simulated users whose probabilities are known, and what is said of figures over seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

import acclimate as ac

FEATURES = 20
SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "item": "item_id"},
    labels="click",
    features={"genre": ac.Feature(kind="categorical")},
)
START, DAY = 1_704_067_200_000_000, 86_400_000_000


def events_of(columns: Mapping[str, Any], schema: ac.Schema = SCHEMA) -> ac.Events:
    """Rows in the order of their ``day``; ``user`` and ``item`` are ids, the rest goes as it is called."""
    day = np.asarray(columns["day"])
    time = pa.array(START + day * DAY + np.arange(len(day)), pa.timestamp("us", "UTC"))
    ids = {"user_id": columns["user"], "item_id": columns.get("item", np.zeros(len(day), np.int64))}
    rest = {name: column for name, column in columns.items() if name not in ("day", "user", "item")}
    return ac.read_events(pa.table({"time": time, **ids, "genre": ["none"] * len(day), **rest}), schema)


def regret(p: np.ndarray, truth: np.ndarray) -> float:
    """Expected log-loss above the oracle's, in 1e-4 nats a row."""
    loss = truth * np.log(truth / p) + (1.0 - truth) * np.log((1.0 - truth) / (1.0 - p))
    return 1e4 * float(np.mean(loss))


def interval(values: Any, digits: int = 2) -> str:
    """Mean over seeds with its 95 % interval by the normal approximation."""
    column = np.asarray(values, np.float64)
    half = 1.96 * column.std(ddof=1) / np.sqrt(len(column))
    return f"{column.mean():.{digits}f} ± {half:.{digits}f}"
