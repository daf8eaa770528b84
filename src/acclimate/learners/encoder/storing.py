"""An encoder on disk: its shared model, and the histories of its entities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.config import UserEncoderParameters
from acclimate.features import Layout, ids_as
from acclimate.learners.base import Packed
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.inputs import Plan
from acclimate.learners.encoder.items import Content, ItemTable
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.encoder.state import EncoderState, LastSeen
from acclimate.models.encoding import EncoderWeights
from acclimate.storage import Stored


def packed(state: EncoderState) -> Packed:
    """A state as it goes to disk."""
    log, seen = state.histories.log(np.arange(len(state.users))), state.last_seen
    arrays: dict[str, NDArray[Any]] = {
        "blank": state.blank,
        "centre": state.centre,
        "scale": state.scale,
        "items": state.table.table[: state.table.items],
        "items.known": state.table.known[: state.table.items],
        "seen": seen.values[: seen.entities],
        "seen.time": seen.time[: seen.entities],
        **{f"history.{name}": getattr(log, name) for name in ("time", "item", "flags", "starts")},
        **{f"weights.{name}": array for name, array in state.weights.arrays().items()},
        **{f"map.{space}": array for space, array in state.maps.items()},
    }
    tables = {"users": state.users.arrow(), "items": state.items.arrow()}
    layouts = dict[str, Any]()
    for part, by_name in (
        ("columns", state.layouts),
        ("contents", {kind: content.layout for kind, content in state.contents.items()}),
    ):
        layouts[part] = {}
        for number, (name, layout) in enumerate(by_name.items()):
            layouts[part][name], tables[f"{part}-{number}"] = layout.described()
    for number, content in enumerate(state.contents.values()):
        arrays |= {f"content.{number}.{name}": getattr(content, name) for name in _OF_CONTENT}
    manifest = {
        "behaviours": state.behaviours,
        "layouts": layouts,
        "kinds": {"users": state.users.kind, "items": state.items.kind},
        "spaces": list(state.maps),
    }
    return Packed(manifest, arrays, tables)


_OF_CONTENT = ("centre", "scale", "projection")


def unpacked(stored: Stored, parameters: UserEncoderParameters, known: dict[str, Any]) -> EncoderState:
    """The state.

    Raises:
        ValueError: parts do not belong together.
    """
    told, arrays = stored.manifest, stored.arrays
    behaviours: dict[str, str | None] = told["behaviours"]
    users, items = (_numbered(stored, part) for part in ("users", "items"))
    layouts, content_layouts = (
        {
            name: Layout.restored(layout, stored.tables[f"{part}-{number}"])
            for number, (name, layout) in enumerate(told["layouts"][part].items())
        }
        for part in ("columns", "contents")
    )
    contents = {
        kind: Content(layout, *(arrays[f"content.{number}.{name}"] for name in _OF_CONTENT))
        for number, (kind, layout) in enumerate(content_layouts.items())
    }
    sizes = {kind: one.size for kind, one in parameters.items.items()}
    plan = Plan.of_parameters(parameters, behaviours, sizes, layouts)
    table, seen = ItemTable(sizes), LastSeen(plan.width - plan.from_rows)
    table.items = len(items)
    table.table, table.known = arrays["items"].copy(), arrays["items.known"].copy()
    seen.entities = len(users)
    seen.values, seen.time = arrays["seen"].copy(), arrays["seen.time"].copy()
    time, item, flags, starts = (arrays[f"history.{name}"] for name in ("time", "item", "flags", "starts"))
    edges = tuple((group.begin, group.end) for group in plan.groups)
    named = ("code_bias", "fusion", "fusion_bias", "vector", "vector_bias")
    layers: Any = (arrays[f"weights.{name}"] for name in named)
    weights = EncoderWeights(
        edges,
        [arrays[f"weights.codes.{g}"] for g in range(len(edges))],
        *layers,
        normalised=parameters.normalised,
    )
    _check(stored, parameters, plan, content_layouts, (len(users), len(items)))
    histories = Histories(parameters.most_events)
    histories.grow(len(users))
    histories.put(np.arange(len(users)), Log(time, item, flags, starts))
    maps = {space: arrays[f"map.{space}"] for space in told["spaces"]}
    return EncoderState(
        **known,
        behaviours=behaviours,
        users=users,
        items=items,
        table=table,
        contents=contents,
        layouts=layouts,
        plan=plan,
        blank=arrays["blank"],
        centre=arrays["centre"],
        scale=arrays["scale"],
        weights=weights,
        histories=histories,
        last_seen=seen,
        maps=maps,
    )


def _numbered(stored: Stored, part: str) -> Numbered:
    ids: Any = stored.tables[part]["id"].combine_chunks()
    kind = stored.manifest["kinds"][part]
    numbered = Numbered(part, ids_as(ids, kind or "int64", f"the table of {part}"), kind)
    if len(numbered) != len(ids):
        raise ValueError(f"{len(ids) - len(numbered)} ids of {part} are there twice")
    return numbered


def _check(
    stored: Stored,
    parameters: UserEncoderParameters,
    plan: Plan,
    content_layouts: Mapping[str, Layout],
    counts: tuple[int, int],
) -> None:
    """Raises ValueError where an array is of another shape than the rest says, or points outside."""
    p, groups, arrays, (users, items) = parameters, len(plan.groups), stored.arrays, counts
    columns = plan.width - plan.from_rows
    shapes = {
        "blank": (plan.width,),
        "centre": (columns,),
        "scale": (columns,),
        "items": (items, sum(one.size for one in p.items.values())),
        "items.known": (items, len(p.items)),
        "seen": (users, columns),
        "seen.time": (users,),
        "history.starts": (users + 1,),
        "weights.code_bias": (groups * p.code,),
        "weights.fusion": (groups * p.code, p.hidden),
        "weights.fusion_bias": (p.hidden,),
        "weights.vector": (p.hidden, p.size),
        "weights.vector_bias": (p.size,),
        **{f"map.{space}": (p.size, p.size) for space in stored.manifest["spaces"]},
        **{f"weights.codes.{g}": (group.end - group.begin, p.code) for g, group in enumerate(plan.groups)},
    }
    for number, (kind, layout) in enumerate(content_layouts.items()):
        width = len(layout.dense) + len(layout.index)
        shapes |= {f"content.{number}.{name}": (width,) for name in ("centre", "scale")}
        shapes[f"content.{number}.projection"] = (width, p.items[kind].size)
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is of shape {arrays[name].shape}, not {shape}")
    starts, item = arrays["history.starts"], arrays["history.item"]
    count = int(starts[-1])
    sound = starts[0] == 0 and bool(np.all(np.diff(starts) >= 0)) and np.all(np.diff(starts) <= p.most_events)
    sizes = {len(arrays[f"history.{name}"]) for name in ("time", "item", "flags")}
    if not sound or sizes != {count} or item.min(initial=0) < 0 or item.max(initial=-1) >= items:
        raise ValueError("the histories do not belong to these users and items")
