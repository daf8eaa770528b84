"""A small log, and what is said of one that is not good."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate.errors import AcclimateError

TIMES = ["2022-04-25T18:00", "2022-04-25T19:00", "2022-04-26T00:30"]
SCHEMA = ac.Schema(ac.TimeColumn("at", zone="Asia/Shanghai"), entities={"user": "user_id"}, labels="click")
CSV_LINES = ["at,user_id,click,price", *(f"{time},{7 + i},{i % 2},{i}.5" for i, time in enumerate(TIMES))]


def frame(**changed: Any) -> pa.Table:
    """Three events, with some columns changed; those that are ``None`` are left out."""
    good = {"at": TIMES, "user_id": [7, 8, 9], "click": [0, 1, 0], "price": [0.5, 1.5, 2.5]}
    return pa.table({name: values for name, values in (good | changed).items() if values is not None})


def parquet(path: Path, **changed: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(frame(**changed), path)
    return path


def csv(path: Path, lines: list[str] = CSV_LINES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def told(action: Callable[[], Any], kind: type[AcclimateError] = AcclimateError) -> str:
    """The message, which is one line that any terminal can write."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable()
    assert message.encode()
    return message


def error_of(source: Any, schema: ac.Schema = SCHEMA, kind: type[AcclimateError] = AcclimateError) -> str:
    return told(lambda: ac.read_events(source, schema).table(), kind)


def rows_of(source: Any, schema: ac.Schema = SCHEMA) -> int:
    return ac.read_events(source, schema).table().num_rows
