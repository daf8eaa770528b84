"""Small encoders and logs for them."""

from typing import Any

import numpy as np
from sample_events import DAY, HOUR, START, events_of

import acclimate as ac
from acclimate.learners.user_encoder import UserEncoder

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "video": "video_id"},
    labels=["click", "like"],
    features={"tags": ac.Feature(kind="multi")},
)


def log(rows: int, seed: int = 0, *, users: int = 9, videos: int = 12, days: float = 12.0) -> dict[str, Any]:
    """Events on the hour, many at one instant; not in the order of time."""
    rng = np.random.default_rng([seed, rows])
    user, video = rng.integers(0, users, rows), rng.integers(0, videos, rows)
    return {
        "time": (START + HOUR * rng.integers(0, int(24 * days), rows)).tolist(),
        "user_id": user.tolist(),
        "video_id": video.tolist(),
        "tags": [[f"tag {t}" for t in range(4) if (v >> t) & 1] for v in video.tolist()],
        "length": (10.0 + video % 5).tolist(),
        "country": [("de", "fr", "it")[u % 3] for u in user.tolist()],
        "age": (20.0 + 3.0 * user).tolist(),
        "click": [None if r < 0.1 else int(r < 0.5) for r in rng.random(rows).tolist()],
        "like": (rng.random(rows) < 0.1).astype(int).tolist(),
    }


def events(columns: dict[str, Any]) -> ac.Events:
    return events_of(SCHEMA, columns)


def rows_of(columns: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: [values[int(i)] for i in rows] for name, values in columns.items()}


def encoder(**changes: Any) -> UserEncoder:
    """An encoder of all kinds of groups, trained a little."""
    declared: dict[str, Any] = {
        "entity": "user",
        "item": "video",
        "items": {
            "content": ac.ItemVectors(["tags", "length"], size=3),
            "together": ac.ItemVectors(behaviour="click", size=2),
        },
        "windows": ["1d", "3d", "9d"],
        "columns": {"profile": ["country", "age"]},
        "size": 4,
        "code": 5,
        "hidden": 8,
        "training": ac.Training(epochs=2, batch=16),
    }
    return UserEncoder(**{**declared, **changes})


__all__ = ["DAY", "HOUR", "SCHEMA", "START", "encoder", "events", "log", "rows_of"]
