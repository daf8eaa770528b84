"""Small meta rankers and logs for them."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from sample_events import DAY, HOUR, START, events_of

import acclimate as ac
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.meta.buffer import Supports
from acclimate.learners.meta.state import Embeddings

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user_id", "item": "item_id", "place": "country"},
    labels="click",
    weight="weight",
    offset="offset",
    features={"tags": ac.Feature(kind="multi")},
)
BLOCKS = {
    "user": ac.MetaBlock(entity="user", features=["age", "country"], hidden=[4], size=3, steps=2, support=3),
    "item": ac.MetaBlock(entity="item", features=["tags"], hidden=[], size=2, support=4),
    "both": ac.MetaBlock(entity=["user", "place"], size=2, adaptation="amortised", support=2),
}
LARGE = {name: replace(block, support=500) for name, block in BLOCKS.items()}


def log(rows: int, seed: int = 0, *, users: int = 6, items: int = 5, days: float = 4.0) -> dict[str, Any]:
    """Events on the hour, many at one instant; not in the order of time, and some of unknown label."""
    rng = np.random.default_rng([seed, rows])
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    z = 1.5 * np.sin(2.0 * user) + np.cos(item)
    return {
        "time": (START + HOUR * rng.integers(0, int(24 * days), rows)).tolist(),
        "user_id": user.tolist(),
        "item_id": item.tolist(),
        "country": [("de", "fr", "it")[c] for c in rng.integers(0, 3, rows)],
        "age": rng.normal(30.0 + user, 2.0).tolist(),  # of an entity, and yet not always the same
        "tags": [[f"tag {t}" for t in range(3) if (v >> t) & 1] for v in item.tolist()],
        "price": rng.normal(0.0, 1.0, rows).tolist(),
        "click": [
            None if r < 0.15 else int(y)
            for r, y in zip(rng.random(rows), rng.random(rows) < 1 / (1 + np.exp(-z)), strict=True)
        ],
        "weight": rng.integers(1, 3, rows).astype(float).tolist(),
        "offset": rng.normal(0.0, 0.3, rows).tolist(),
    }


def distinct_times(columns: dict[str, Any]) -> dict[str, Any]:
    """The same, a microsecond apart where they were at one instant."""
    return {**columns, "time": [time + number for number, time in enumerate(columns["time"])]}


def events(columns: dict[str, Any]) -> ac.Events:
    return events_of(SCHEMA, columns)


def rows_of(columns: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: [values[int(i)] for i in rows] for name, values in columns.items()}


def ranker(**changes: Any) -> ac.MetaRanker:
    """A ranker with blocks of all kinds, trained a little, whose embeddings move a good deal."""
    declared: dict[str, Any] = {
        "features": ["price", "tags", "country"],
        "blocks": BLOCKS,
        "embedding": 2,
        "hidden": [5],
        "prior_rows": 1.0,
        "ridge": 0.1,
        "embedding_ridge": 0.3,
        "training": ac.Training(epochs=3, batch=32, rate=0.02, update_rate=0.02),
    }
    return ac.MetaRanker(**{**declared, **changes})


def emptied(model: ac.MetaRanker) -> ac.MetaRanker:
    """The same shared weights, and nothing known of anyone."""
    blank, blocks = copy.deepcopy(model), model.parameters.blocks
    assert blank.state is not None
    blank.state = replace(
        blank.state,
        ids=tuple(Numbered(name) for name in blocks),
        embeddings=tuple(Embeddings(block.size) for block in blocks.values()),
        supports=Supports(len(blank.state.layout.fields), [block.support for block in blocks.values()]),
    )
    return blank


def embeddings_of(model: ac.MetaRanker) -> dict[str, dict[Any, Any]]:
    """Of each block the meta embedding of each entity."""
    state = model.state
    assert state is not None
    return {
        name: dict(zip(ids.index.ids().tolist(), stored.values.copy(), strict=True))
        for name, ids, stored in zip(model.parameters.blocks, state.ids, state.embeddings, strict=True)
    }


__all__ = ["DAY", "HOUR", "START"]
