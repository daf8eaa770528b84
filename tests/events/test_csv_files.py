"""CSV files: ids stay as they are written, and what is no CSV is told for what it is."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_logs import CSV_LINES, SCHEMA, csv, error_of, frame, parquet

import acclimate as ac
from acclimate.errors import AcclimateError, ColumnError, RowError, SourceError


def ids_of(*sources: Any) -> list[Any]:
    return ac.read_events(list(sources), SCHEMA).table(["user_id"])["user_id"].to_pylist()


def log_of(path: Path, *ids: str) -> Path:
    lines = [f"2022-04-25T18:0{i},{name},{i % 2}" for i, name in enumerate(ids)]
    return csv(path, ["at,user_id,click", *lines])


@pytest.mark.parametrize(
    "ids",
    [
        ("1e1", "10e0"), ("007", "7"), ("1.0", "1"), ("-0", "0"), ("+7", "7"), ("9223372036854775808", "7"),
        ("0x10", "16"), ("1_000", "1000"), ("7", "a7"), ("true", "1"),
        ("18446744073709551615", "9223372036854775807"),
        ("7 ", "7"), (" 7", "7"), ("1e400", "1"), ("nan", "1"), ("inf", "1"),
    ],
)  # fmt: skip
def test_ids_that_are_not_written_as_integers_are_text(ids: tuple[str, str], tmp_path: Path) -> None:
    assert ids_of(log_of(tmp_path / "log.csv", *ids)) == list(ids)
    one, other = (log_of(tmp_path / f"{i}.csv", name) for i, name in enumerate(ids))
    assert sorted(ids_of(one, other)) == sorted(ids)


def test_ids_that_are_written_as_integers_are_integers(tmp_path: Path) -> None:
    ids = ["0", "7", "-7", "9223372036854775807", "-9223372036854775808"]
    assert ids_of(log_of(tmp_path / "log.csv", *ids)) == [int(name) for name in ids]


def test_ids_of_csv_follow_text_and_never_turn_numbers_into_it(tmp_path: Path) -> None:
    numbers = log_of(tmp_path / "log.csv", "7", "8")
    assert sorted(ids_of(numbers, frame(user_id=["7", "8", "x"]))) == ["7", "7", "8", "8", "x"]
    odd = log_of(tmp_path / "odd.csv", "7", "008")
    assert f"odd.csv: column 'user_id' is text, but a number in {tmp_path}/log.parquet" in error_of(
        [parquet(tmp_path / "log.parquet"), odd], kind=ColumnError
    )


def test_the_key_of_a_csv_table_follows_the_events(tmp_path: Path) -> None:
    users = csv(tmp_path / "users.csv", ["id,age", "7,30", "8,40"])
    schema = ac.Schema(
        SCHEMA.time, SCHEMA.entities, "click", tables={"user": ac.EntityTable(str(users), key="id")}
    )
    for ids in ([7, 8, 9], ["7", "8", "x"]):
        assert ac.read_events(frame(user_id=ids), schema).table(["user.age"])["user.age"].to_pylist() == [
            30,
            40,
            None,
        ]


@pytest.mark.parametrize("other", ["csv", "parquet"])
def test_a_file_that_would_turn_a_number_into_text(other: str, tmp_path: Path) -> None:
    first = csv(tmp_path / "1.csv") if other == "csv" else parquet(tmp_path / "1.parquet")
    words = csv(tmp_path / "2.csv", [*CSV_LINES[:2], CSV_LINES[2].replace("1.5", "cheap")])
    message = error_of([first, words], kind=ColumnError)
    assert f"{words}: column 'price' is text, but a number in {first}" in message


@pytest.mark.parametrize("name", ["price", "PRICE", "user_id", "at"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "frame", "pandas"])
def test_two_columns_of_one_name(name: str, kind: str, tmp_path: Path) -> None:
    names = [*frame().column_names, name]
    table = pa.Table.from_arrays([*frame().columns, frame()["price"]], names=names)
    source: Any = table
    if kind == "csv":
        source = csv(tmp_path / "log.csv", [f"{CSV_LINES[0]},{name}", *(f"{line},1" for line in CSV_LINES[1:])])
    elif kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, source := tmp_path / "log.parquet")
    elif kind == "pandas":
        source = pd.DataFrame({i: np.arange(3) for i in range(len(names))}).set_axis(names, axis=1)
    message = error_of(source, kind=ColumnError)
    assert "two columns are named" in message or "Duplicate column names" in message


@pytest.mark.parametrize("blank", ["\t", " \t ", "\u00a0", "\u3000", "\u2003", "\n", "\u200b", "\x1f"])
def test_ids_of_white_space_are_empty(blank: str) -> None:
    assert "column 'user_id' is empty in 1 of 3 rows" in error_of(frame(user_id=["a", blank, "b"]), kind=RowError)


def zipped() -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        archive.writestr("log.csv", "\n".join(CSV_LINES))
    return made.getvalue()


GOOD = ("\n".join(CSV_LINES) + "\n").encode()
NOT_CSV = {
    "old Mac": (GOOD.replace(b"\n", b"\r"), "old Macs"),
    "zip": (zipped(), "this is a zip archive, not CSV"),
    "gzip": (gzip.compress(GOOD), "this is a gzip file, not CSV"),
    "parquet": (b"PAR1" + GOOD, "this is a Parquet file, not CSV"),
    "utf-16": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "utf-16-le": (GOOD.decode().encode("utf-16-le"), "UTF-16"),
    "utf-16-be": (GOOD.decode().encode("utf-16-be"), "UTF-16"),
    "nul": (GOOD.replace(b"18:00", b"18\x0000"), "bytes of value 0"),
    "latin header": (GOOD.replace(b"price", "größe".encode("latin-1")), "the header is not UTF-8: byte 0xf6"),
    "blank": (b"\n" + GOOD, "line 1 is blank"),
    "blank of spaces": (b"  \t\r\n" + GOOD, "line 1 is blank"),
    "open quote": (b'"' + GOOD, "line 1 is no header"),
    "wide cell": (b"x" * 140_000 + b"," + GOOD, "line 1 is no header: field larger than field limit"),
    "endless header": (b"x," * 600_000, "line 1 has more than 1,048,576 bytes"),
    "columns": (
        b",".join(b"c%d" % i for i in range(100_000)) + b"\n",
        "100,000 columns, and a CSV file may have 10,000",
    ),
}


@pytest.mark.parametrize("case", NOT_CSV)
def test_what_is_called_csv_and_is_none(case: str, tmp_path: Path) -> None:
    content, what = NOT_CSV[case]
    (tmp_path / "log.csv").write_bytes(content)
    assert what in error_of(tmp_path / "log.csv", kind=SourceError)


def test_what_a_terminal_obeys_is_escaped_in_values_and_columns() -> None:
    assert r"row 2 (\x1b]0;\n)" in error_of(frame(at=["2022-04-25", "\x1b]0;\n", "2022-04-25"]), kind=RowError)
    table = frame().append_column("a\nb", pa.array([1.0, float("inf"), 1.0]))
    assert r"column 'a\nb' is infinite" in error_of(table, kind=RowError)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_read_or_told(data: st.DataObject, tmp_path: Path) -> None:
    parts = [GOOD, parquet(tmp_path / "good.parquet").read_bytes()]
    content = bytearray(data.draw(st.sampled_from(parts)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    content += data.draw(st.sampled_from([b"", *parts]))
    path = tmp_path / f"log.{data.draw(st.sampled_from(['csv', 'parquet', 'csv.gz', 'tsv']))}"
    path.write_bytes(content)
    message = ""
    try:
        ac.read_events(path, SCHEMA).table()
    except AcclimateError as error:
        message = str(error)
    assert not message or message.isprintable()
