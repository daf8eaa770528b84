"""Events go out as records and come back as they were, each in the partition of its entity."""

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import acclimate as ac
from acclimate.errors import ColumnError, RowError
from acclimate.events.streams import Log, Validator, append_events, encode, partition_of

SCHEMA = ac.Schema("at", entities={"user": "id", "item": "sku"}, labels="click")
AT = dt.datetime(2022, 4, 25, 18, 0, 0, 250_000, dt.UTC)


def frame(**columns: Any) -> pa.Table:
    return pa.table({"at": [AT], "id": [7], "sku": ["ü"], "click": [1]} | columns)


def test_a_record_is_an_object_of_what_is_known():
    columns = {
        "x": pa.array([float("nan")]), "y": pa.nulls(1), "z": [[1.5, None]], "d": [dt.date(2022, 1, 1)],
        "m": [decimal.Decimal("1.5")], "w": pa.array(["a"]).dictionary_encode(),
    }  # fmt: skip
    (record,) = encode(frame(**columns), SCHEMA)
    assert record.decode() == (
        '{"at":"2022-04-25T18:00:00.250000Z","id":7,"sku":"ü","click":1,'
        '"z":[1.5,null],"d":"2022-01-01","m":1.5,"w":"a"}'
    )


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", 1650909600.25), ("ms", 1650909600250), ("us", 1650909600250000), ("ns", 1650909600250000000)],
)
def test_times_are_numbers_where_the_schema_has_a_unit(unit: Any, number: float):
    schema = ac.Schema(ac.TimeColumn("at", unit=unit), ["id"], "click")
    (record,) = encode(frame(), schema)
    assert json.loads(record)["at"] == number
    local = ac.Schema(ac.TimeColumn("at", unit=unit, zone="Asia/Shanghai"), ["id"], "click")
    naive = pa.array([AT.replace(tzinfo=None) + dt.timedelta(hours=8)], pa.timestamp("ns"))
    assert json.loads(encode(frame(at=naive), local)[0])["at"] == number
    assert json.loads(encode(frame(at=[number]), schema)[0])["at"] == number


def test_infinite_numbers_do_not_go_out():
    for x in (pa.array([float("inf")]), pa.array([[float("-inf")]])):
        with pytest.raises(RowError, match="column 'x' holds an infinite number"):
            encode(frame(x=x), SCHEMA)


@pytest.mark.parametrize("by", [None, "user", "item_id"])
def test_events_are_appended_to_the_partitions_of_their_entities(tmp_path: Path, by: str | None):
    world = ac.simulate(users=40, items=20, days=2, seed=0)
    schema = world.schema
    entity = by if by == "item_id" else "user_id"
    log = Log(tmp_path / "log", 3)
    table = world.table()
    assert append_events(log, world, schema, by) == table.num_rows
    for partition in range(3):
        records = log.read(partition, None, 10**6)
        result = Validator(schema, types=table.schema)(records.values)
        assert result.refused == ()
        wanted = table.filter(pa.array(partition_of(table[entity], 3) == partition))
        assert result.rows.num_rows == wanted.num_rows > 0
        names = result.rows.column_names
        assert result.rows.select(names).to_pylist() == wanted.select(names).to_pylist()
    log.close()


def test_events_without_their_entity_are_not_appended(tmp_path: Path):
    log = Log(tmp_path / "log")
    with pytest.raises(RowError, match="column 'id' is empty in 1 of 1 events"):
        append_events(log, frame(id=pa.nulls(1, pa.int64())), SCHEMA)
    with pytest.raises(ColumnError, match="no column 'id' to share the events by"):
        append_events(log, frame().drop("id"), SCHEMA)
    assert log.lag(0, None) == 0
    log.close()
