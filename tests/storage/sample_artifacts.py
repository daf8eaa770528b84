"""A small model as storage sees it, and all that lies in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.storage import Rows, Segment, Stored, read_artifact, write_artifact, write_segment

FILES = (
    "manifest.json",
    "generation-1/arrays.safetensors",
    "generation-1/things.parquet",
    "rows/things-1-0.safetensors",
)


def write(
    path: Path | str,
    *,
    cells: int = 4,
    rows: int = 3,
    entities: int = 3,
    note: str = "",
    seed: int = 0,
    segments: Sequence[Segment] = (),
    **options: Any,
) -> str:
    """One segment of rows is new, beside those that are there already."""
    new = Rows.of(np.arange(entities), {"number": np.arange(entities) + seed})

    def write_rows(place: Path) -> None:
        write_segment(place, [(new, np.arange(entities))], lambda some: some)

    rng = np.random.default_rng(seed)
    return write_artifact(
        path,
        kind="thing",
        manifest={"note": note, "numbers": [0.1, 2]},
        arrays={"x": rng.normal(size=cells), "turned": np.arange(6).reshape(2, 3).T},
        tables={"things": pa.table({"id": rng.integers(0, 2**62, rows), "text": ["é"] * rows})},
        segments={"things": [*segments, write_rows]},
        **options,
    )


def read(path: Path | str) -> Stored:
    """All of it, also the rows, which are proved when they are read."""
    stored = read_artifact(path, kind="thing")
    for segment in stored.segments["things"]:
        segment.at(np.arange(len(segment)))
    return stored


def content(folder: Path) -> dict[str, bytes]:
    """All files, by their paths from the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
