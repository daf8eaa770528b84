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
    infinite = pa.array([float("inf")])
    for x in (infinite, infinite.dictionary_encode(), pa.array([[float("-inf")]])):
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


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([7.0, 2.0**53, -1.0]), pa.int64()),
        (pa.array([7, 8, 9], pa.uint64()), pa.int64()),
        (pa.array([7, 8, 7]).dictionary_encode(), pa.int64()),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string()),
        (pa.array(["a", "b", "c"], pa.large_string()), pa.string()),
    ],
    ids=str,
)
def test_ids_go_where_their_plain_form_goes(tmp_path: Path, ids: Any, kind: Any):
    schema = ac.Schema("at", ["id"], "click")
    events = pa.table({"at": pa.array([AT] * 3), "id": ids, "click": [1, 0, 1]})
    plain = (ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids).cast(kind)
    with Log(tmp_path / "log", 3) as log:
        append_events(log, events, schema)
        for partition in range(3):
            result = Validator(schema, types=pa.schema([("id", kind)]))(log.read(partition, None, 9).values)
            wanted = plain.filter(pa.array(partition_of(plain, 3) == partition))
            assert sorted(result.rows["id"].to_pylist()) == sorted(wanted.to_pylist())


def test_ids_that_are_none(tmp_path: Path):
    with Log(tmp_path / "log") as log:
        for ids, message in [
            (pa.array([7.5]), "column 'id' is no whole number in 1 of 1 events"),
            (pa.array([float("nan")]), "column 'id' is empty in 1 of 1 events"),
            (pa.array([2**63], pa.uint64()), "column 'id' is beyond"),
        ]:
            with pytest.raises(RowError, match=message):
                append_events(log, frame(id=ids), SCHEMA)
        with pytest.raises(ColumnError, match="column 'id' is bool, but ids are whole numbers or text"):
            append_events(log, frame(id=[True]), SCHEMA)
        assert log.lag(0, None) == 0


@pytest.mark.parametrize(
    "x", [b"a", dt.time(1), dt.timedelta(1), [AT], [b"a"], {"a": 1}], ids=lambda x: type(x).__name__
)
def test_what_json_has_no_word_for(x: Any):
    with pytest.raises(ColumnError, match=r"column 'x' is .*, for which JSON has no word"):
        encode(frame(x=pa.array([x])), SCHEMA)


def test_lists_of_decimals_are_lists_of_numbers():
    (record,) = encode(frame(x=pa.array([[decimal.Decimal("1.5"), None]])), SCHEMA)
    assert json.loads(record)["x"] == [1.5, None]
