"""Small logs for the tests of learners."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

import acclimate as ac

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_650_844_800_000_000  # 2022-04-25, microseconds UTC


def events_of(schema: ac.Schema, columns: Mapping[str, Any]) -> ac.Events:
    """Events of these columns; one an hour from ``START`` on unless they have a ``time``, in microseconds UTC."""
    rows = len(next(iter(columns.values())))
    time = pa.array(columns.get("time", START + HOUR * np.arange(rows)), pa.timestamp("us", "UTC"))
    return ac.read_events(pa.table({**columns, "time": time}), schema)
