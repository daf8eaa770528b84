"""What an encoder says by a log in place of what it keeps: along its rows, and of histories made anew."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Events
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.inputs import fill, in_log_after
from acclimate.learners.encoder.rows import Piece, Reader
from acclimate.learners.encoder.state import EncoderState, learn_items
from acclimate.models.encoding import encode


def inputs_along(state: EncoderState, reader: Reader, events: Events) -> Iterator[NDArray[np.float32]]:
    """Raw inputs ``(n, D)`` of the rows of a log, piece by piece: each sees what is kept and all earlier rows."""
    pieces = list(reader.pieces(events))
    if not pieces:
        return
    known = replace(state, users=state.users.copied(), items=state.items.copied(), table=state.table.copied())
    entity, item = list[IntArray](), list[IntArray]()
    for piece in pieces:
        items = known.items.admit(piece.items)
        learn_items(known.table, known.contents, piece, items)
        entity.append(known.users.admit(piece.users)[piece.user])
        item.append(items[piece.item])
    time, flags = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("time", "flags"))
    numbers, code = np.unique(np.concatenate(entity), return_inverse=True)
    rows = Log.ordered(len(numbers), code, time, np.concatenate(item), flags)
    before = state.histories.log(numbers[numbers < len(state.users)]).padded(len(numbers))
    log, begin = before.joined(rows), 0
    for _, at, read in reader.asked(events):
        x = np.tile(state.blank, (len(at), 1))
        x[:, state.plan.from_rows :] = state.columns(read, len(at))
        queries = in_log_after(before, log, code[begin : begin + len(at)], at, state.plan.most)
        fill(state.plan, known.table, queries, x)
        begin += len(at)
        yield x


def differences(state: EncoderState, pieces: Iterable[Piece], at_a_time: int) -> FloatArray:
    """How far the vector of each entity is from that of a history made of these pieces alone, ``(entities,)``.

    The largest difference of a component: of entities that are known, then of those that only the pieces know;
    so many at a time are encoded.
    """
    users, items, most = state.users.copied(), state.items.copied(), state.plan.most
    parts = [(np.zeros(0, np.int64),) * 4]
    for piece in pieces:
        user, item = users.admit(piece.users)[piece.user], items.admit(piece.items)[piece.item]
        parts.append((user, piece.time, item, piece.flags.astype(np.int64)))
    whole = Log.ordered(len(users), *map(np.concatenate, zip(*parts, strict=True))).newest(most)
    anew = replace(state, table=state.table.copied(), histories=Histories(most))
    anew.table.grow(len(items))  # an item that only the events know has no vector, but counts
    anew.histories.grow(len(users))
    anew.histories.put(np.arange(len(users)), whole)
    largest = np.zeros(len(users))
    for begin in range(0, len(users), at_a_time):
        numbers = np.arange(begin, min(begin + at_a_time, len(users)))
        at = np.full(len(numbers), state.cut + 1)
        x = state.inputs(np.where(numbers < len(state.users), numbers, -1), at)
        other = anew.inputs(numbers, at, x[:, state.plan.from_rows :])
        difference = encode(state.weights, x) - encode(state.weights, other)
        largest[numbers] = np.abs(difference).max(axis=1)
    return largest
