"""What a network reads of a table: known answers, growth, and that pieces are the whole."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import acclimate as ac
from acclimate.features import FieldRows, Layout

SCHEMA = ac.Schema(
    time="time",
    entities={"user": "user"},
    labels="click",
    features={
        "x": ac.Feature(kind="numeric"),
        "v": ac.Feature(kind="embedding"),
        "both": ac.Feature(kind="cross", of=["genre", "x"]),
    },
)
FEATURES = ("genre", "x", "tags", "v", "both")


def table(genre: list[Any], x: list[Any], tags: list[Any], v: list[Any]) -> pa.Table:
    lists = pa.array(tags, pa.list_(pa.string()))
    return pa.table({"genre": pa.array(genre, pa.string()), "x": pa.array(x, pa.float64()), "tags": lists, "v": v})


FIRST = table(["a", "b", "a"], [1.0, None, 3.0], [["p", "q"], [], ["q"]], [[1.0, 2.0], None, [3.0, 4.0]])


def bag(rows: FieldRows, layout: Layout, row: int, field: str) -> dict[str, float]:
    """Names and values of one bag."""
    b = row * len(layout.fields) + layout.fields.index(field)
    cells = slice(rows.starts[b], rows.starts[b + 1])
    return dict(zip([layout.index.names[c] for c in rows.cell[cells]], rows.value[cells].tolist(), strict=True))


def test_numbers_are_columns_and_names_are_cells() -> None:
    rows, layout = Layout.first(FEATURES, FIRST, SCHEMA).read(FIRST, SCHEMA, grow=True)
    assert layout.dense == ("x", "x is missing", "v[0]", "v[1]", "v is missing")
    assert layout.fields == ("genre", "tags", "both")
    assert_allclose(rows.dense, [[1, 0, 1, 2, 0], [2, 1, 0, 0, 1], [3, 0, 3, 4, 0]])
    assert bag(rows, layout, 0, "genre") == {"genre=a": 1.0}
    assert bag(rows, layout, 0, "tags") == {"tags=p": 0.5, "tags=q": 0.5}
    assert bag(rows, layout, 1, "tags") == {}
    assert bag(rows, layout, 2, "both") == {"genre=a x x": 3.0}
    assert layout.index.names[:3] == ("genre is unknown", "tags is unknown", "both is unknown")
    assert [layout.fields[f] for f in layout.home[3:]] == [
        name.split("=")[0] for name in layout.index.names[3:7]
    ] + ["both"] * (len(layout.index) - 7)


def test_names_that_are_new_come_behind_or_are_unknown() -> None:
    _, layout = Layout.first(FEATURES, FIRST, SCHEMA).read(FIRST, SCHEMA, grow=True)
    more = table(["c", "a"], [5.0, 6.0], [["r"], ["p"]], [[0.0, 0.0], None])
    rows, grown = layout.read(more, SCHEMA, grow=True)
    assert grown.index.names[: len(layout.index)] == layout.index.names
    assert {"genre=c", "tags=r"} <= set(grown.index.names[len(layout.index) :])
    assert_array_equal(grown.home[: len(layout.index)], layout.home)
    assert bag(rows, grown, 0, "genre") == {"genre=c": 1.0}
    rows, same = layout.read(more, SCHEMA, grow=False)
    assert same.index.names == layout.index.names
    assert bag(rows, layout, 0, "genre") == {"genre is unknown": 1.0}
    assert bag(rows, layout, 1, "tags") == {"tags=p": 1.0}


LISTS = st.lists(st.sampled_from("pqrs"), max_size=3, unique=True)
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-9, 9), LISTS), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.randoms(use_true_random=False))
def test_rows_taken_are_the_rows_that_were_read(drawn: list[Any], chance: Any) -> None:
    genre, x, tags = (list(part) for part in zip(*drawn, strict=True))
    whole = table(genre, x, tags, [[0.0, 0.0]] * len(genre))
    rows, layout = Layout.first(FEATURES, whole, SCHEMA).read(whole, SCHEMA, grow=True)
    order = list(range(len(genre)))
    chance.shuffle(order)
    read, _ = layout.read(whole.take(pa.array(order, pa.int64())), SCHEMA, grow=False)
    taken = rows.at(np.array(order))
    for name in ("dense", "starts"):
        assert_array_equal(getattr(read, name), getattr(taken, name))
    for b in range(len(order) * len(layout.fields)):
        one, other = (
            sorted(zip(r.cell[r.starts[b] : r.starts[b + 1]], r.value[r.starts[b] : r.starts[b + 1]], strict=True))
            for r in (read, taken)
        )
        assert one == other
    assert len(read) == len(taken) == len(order)
