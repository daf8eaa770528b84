"""A small model as storage sees it, and all that lies in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from acclimate.storage import Stored, read_artifact, write_artifact

FILES = ("manifest.json", "generation-1/arrays.safetensors", "generation-1/things.parquet")


def write(
    path: Path | str, *, cells: int = 4, rows: int = 3, note: str = "", seed: int = 0, **options: Any
) -> str:
    rng = np.random.default_rng(seed)
    return write_artifact(
        path,
        kind="thing",
        manifest={"note": note, "numbers": [0.1, 2]},
        arrays={"x": rng.normal(size=cells), "turned": np.arange(6).reshape(2, 3).T},
        tables={"things": pa.table({"id": rng.integers(0, 2**62, rows), "text": ["é"] * rows})},
        **options,
    )


def read(path: Path | str) -> Stored:
    return read_artifact(path, kind="thing")


def content(folder: Path) -> dict[str, bytes]:
    """All files, by their paths from the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
