"""An encoder on disk or in a store: its shared model, and a row for each item and each entity.

::

    items   number, vectors (S,), known (K,)
    users   number, length, time (room,), item (room,), flags (room,), seen (P,), seen.time

In a history an item is its number; the room is 8, 16, 32, ... events, and rows of one room are of one layout.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from acclimate.arrays import IdArray, IntArray
from acclimate.config import UserEncoderParameters
from acclimate.features import Layout
from acclimate.learners.base import Layered, Packed
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.inputs import Plan
from acclimate.learners.encoder.items import Content, ItemTable
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.encoder.state import EncoderState, LastSeen
from acclimate.learners.held import HeldRows, check_columns, joined
from acclimate.models.encoding import EncoderWeights
from acclimate.storage import Below, Columns, InSegments, Stored


def packed(state: EncoderState) -> Packed:
    """A state as it goes to disk, but for its rows."""
    arrays: dict[str, NDArray[Any]] = {
        "blank": state.blank,
        "centre": state.centre,
        "scale": state.scale,
        **{f"weights.{name}": array for name, array in state.weights.arrays().items()},
        **{f"map.{space}": array for space, array in state.maps.items()},
    }
    tables = dict[str, pa.Table]()
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


def rows_of(
    parameters: UserEncoderParameters, now: Callable[[], EncoderState], become: Callable[[EncoderState], None]
) -> dict[str, Layered]:
    """The rows of a learner, whose state is ``now`` one and may ``become`` another; items come first."""
    state = now()
    entities = state.contract["entities"]
    item, entity = ((entities.get(one, one),) for one in (parameters.item, parameters.entity))

    def replace_items(below: Below) -> Numbered:
        become(with_items(now(), below))
        return now().items

    def replace_users(below: Below) -> Numbered:
        become(with_users(now(), below))
        return now().users

    read_items, read_users = partial(_item_rows, state), partial(_user_rows, state)
    return {
        "items": HeldRows("items", item, state.items, read_items, replace_items, is_described=True),
        "users": HeldRows("users", entity, state.users, read_users, replace_users),
    }


def _item_rows(state: EncoderState, places: IntArray) -> Iterator[tuple[IntArray, Columns]]:
    table = state.table
    columns = {"number": state.items.kept_as(places)}
    yield places, columns | {"vectors": table.table[places], "known": table.known[places].astype(np.int32)}


def _user_rows(state: EncoderState, places: IntArray) -> Iterator[tuple[IntArray, Columns]]:
    rooms, seen = state.histories.rooms(places), state.last_seen
    for room in np.unique(rooms).tolist():
        some = places[rooms == room]
        log = state.histories.log(some)
        log = replace(log, item=state.items.kept_as(log.item.astype(np.int64)).astype(np.int32))
        columns = {"number": state.users.kept_as(some), **log.padded_to(room)}
        yield some, columns | {"seen": seen.values[some], "seen.time": seen.time[some]}


def with_items(state: EncoderState, below: Below) -> EncoderState:
    """The state with all items that lie there, in place of its own.

    Raises:
        ValueError: they are not of this encoder.
    """
    table, pieces = state.table.emptied(), list(below.pieces())
    for _, columns in pieces:
        shapes = {"vectors": (table.table.shape[1:], "f4"), "known": (table.known.shape[1:], "i4")}
        check_columns("items", columns, {"number": ((), "i8"), **shapes})
    ids, number = joined([(ids, columns["number"]) for ids, columns in pieces])
    items, places = Numbered.restored(state.items.what, state.items.kind, ids, number)
    table.grow(len(items))
    first = 0
    for _, columns in pieces:
        some = places[first : first + len(columns["number"])]
        table.table[some], table.known[some] = columns["vectors"], columns["known"]
        first += len(some)
    return replace(state, items=items, table=table)


def with_users(state: EncoderState, below: Below) -> EncoderState:
    """The state with all entities that lie there, in place of its own.

    Of their histories what items have is left out that were forgotten.

    Raises:
        ValueError: they are not of this encoder.
    """
    pieces = list[_Users]()
    for ids, columns in below.pieces():
        room = columns["flags"].shape[-1]
        histories = {
            "length": ((), "i4"),
            "time": ((room,), "i8"),
            "item": ((room,), "i4"),
            "flags": ((room,), "u1"),
        }
        seen = {"seen": (state.last_seen.values.shape[1:], "f4"), "seen.time": ((), "i8")}
        check_columns("users", columns, {"number": ((), "i8"), **histories, **seen})
        length = columns["length"]
        if np.any((length < 0) | (length > min(room, state.histories.most))):
            raise ValueError(f"histories of users are of other lengths than 0 to {state.histories.most}")
        log = Log.unpadded(columns)
        state.items.keep_from(int(log.item.max(initial=-1)) + 1)
        item = state.items.places(log.item.astype(np.int64)).astype(np.int32)
        log = replace(log, item=item).only(item >= 0)
        pieces.append(_Users(ids, columns["number"], log, columns["seen"], columns["seen.time"]))
    ids, number = joined([(one.ids, one.number) for one in pieces])
    users, places = Numbered.restored(state.users.what, state.users.kind, ids, number)
    histories, last_seen, first = Histories(state.histories.most), state.last_seen.emptied(), 0
    histories.grow(len(users))
    last_seen.grow(len(users))
    for one in pieces:
        some = places[first : first + len(one.ids)]
        histories.put(some, one.log)
        last_seen.values[some], last_seen.time[some] = one.seen, one.seen_time
        first += len(some)
    return replace(state, users=users, histories=histories, last_seen=last_seen)


@dataclass(frozen=True)
class _Users:
    """Some entities as they were read, ``(n, ...)``."""

    ids: IdArray
    number: IntArray
    log: Log
    seen: NDArray[np.float32]
    seen_time: IntArray


def unpacked(stored: Stored, parameters: UserEncoderParameters, known: dict[str, Any]) -> EncoderState:
    """The state.

    Raises:
        ValueError: parts do not belong together.
    """
    told, arrays = stored.manifest, stored.arrays
    behaviours: dict[str, str | None] = told["behaviours"]
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
    edges = tuple((group.begin, group.end) for group in plan.groups)
    named = ("code_bias", "fusion", "fusion_bias", "vector", "vector_bias")
    layers: Any = (arrays[f"weights.{name}"] for name in named)
    weights = EncoderWeights(
        edges,
        [arrays[f"weights.codes.{g}"] for g in range(len(edges))],
        *layers,
        normalised=parameters.normalised,
    )
    _check(stored, parameters, plan, content_layouts)
    maps = {space: arrays[f"map.{space}"] for space in told["spaces"]}
    state = EncoderState(
        **known,
        behaviours=behaviours,
        users=Numbered(parameters.entity, told["kinds"]["users"]),
        items=Numbered(parameters.item, told["kinds"]["items"]),
        table=ItemTable(sizes),
        contents=contents,
        layouts=layouts,
        plan=plan,
        blank=arrays["blank"],
        centre=arrays["centre"],
        scale=arrays["scale"],
        weights=weights,
        histories=Histories(parameters.most_events),
        last_seen=LastSeen(plan.width - plan.from_rows),
        maps=maps,
    )
    items, users = (InSegments(stored.segments[name]) for name in ("items", "users"))
    return with_users(with_items(state, items), users)


def _check(
    stored: Stored,
    parameters: UserEncoderParameters,
    plan: Plan,
    content_layouts: Mapping[str, Layout],
) -> None:
    """Raises ValueError where an array is of another shape than the rest says."""
    p, groups, arrays = parameters, len(plan.groups), stored.arrays
    columns = plan.width - plan.from_rows
    shapes = {
        "blank": (plan.width,),
        "centre": (columns,),
        "scale": (columns,),
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
