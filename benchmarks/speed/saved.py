"""Save and load a model of about 1 GB: what checksums and waiting for the disk cost.

Run it with the sources of two versions to compare them. The plain write beside it is the floor.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import acclimate as ac
from benchmarks.speed.stored import model_of

USERS, ROUNDS = 1_350_000, 5


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        model, path = model_of(USERS), Path(folder) / "model"
        model.save(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        data = os.urandom(size)
        print(f"{size / 1e9:.2f} GB, median seconds of {ROUNDS} rounds")
        tell("plain write", lambda: (Path(folder) / "plain").write_bytes(data), before=lambda: None)
        tell("save", lambda: model.save(Path(folder) / "new"), before=lambda: gone(Path(folder) / "new"))
        tell("save over", lambda: model.save(path, overwrite=True), before=lambda: None)
        tell("load", lambda: ac.GLMix.load(path), before=lambda: None)


def gone(path: Path) -> None:
    """Remove what is there."""
    shutil.rmtree(path, ignore_errors=True)


def tell(name: str, timed: Callable[[], object], *, before: Callable[[], None]) -> None:
    """Print how long it takes; what is unwritten yet is waited for before each round, not in it."""
    seconds: list[float] = []
    for _ in range(ROUNDS):
        before()
        os.sync()
        begun = time.perf_counter()
        timed()
        seconds.append(time.perf_counter() - begun)
    print(f"{name:>12} {np.median(seconds):6.2f}  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
