"""Small logs that a small network learns something from."""

from typing import Any

import numpy as np
from sample_events import DAY, START, events_of

import acclimate as ac

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "item": "item_id"},
    labels="click",
    weight="weight",
    features={"user": ac.Feature(column="user_id"), "item": ac.Feature(column="item_id")},
)
DAY_ROWS = 400


def day(
    number: int,
    *,
    rows: int = DAY_ROWS,
    users: tuple[int, ...] = tuple(range(20)),
    turn: float = 1.0,
    data: dict[str, list[Any]] | None = None,
) -> ac.Events:
    """Events of one day: clicks by user, item and a number, whose effect has the sign of ``turn``."""
    if data is None:
        rng = np.random.default_rng([7, number])
        user, item, x = rng.choice(users, rows), rng.integers(0, 10, rows), rng.normal(0.0, 1.0, rows)
        z = turn * (1.5 * np.sin(user) + 0.8 * np.cos(3 * item) + x)
        data = {
            "time": (START + number * DAY + np.sort(rng.integers(0, DAY, rows))).tolist(),
            "user_id": user.tolist(),
            "item_id": item.tolist(),
            "x": x.tolist(),
            "click": (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(int).tolist(),
            "weight": rng.integers(1, 3, rows).astype(float).tolist(),
        }
    return events_of(SCHEMA, data)


def net(**parameters: Any) -> ac.SequentialLaplace:
    """A network of a few weights."""
    settings = {"epochs": 5, "update_epochs": 2, "batch": 64, "rate": 0.02, "update_rate": 0.02, "patience": 5}
    training = ac.Training(**{**settings, **parameters.pop("training", {})})
    small = {"features": ["user", "item", "x"], "embedding": 3, "hidden": [6], "embedding_ridge": 3.0}
    return ac.SequentialLaplace(**{**small, **parameters}, training=training)
