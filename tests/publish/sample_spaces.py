"""Spaces of small saved models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from acclimate.artifacts import Space
from acclimate.publish import Spaces
from acclimate.storage import write_artifact


def made(name: str = "ranker", *, weights: str = "w", parents: tuple[str, ...] = ()) -> Callable[[int], Space]:
    """Spaces of this name by their number."""
    return lambda number: Space(name, number, weights * 32, "c" * 64, 1_650_844_800_000_000 + number, parents)


def saved(seed: int = 0, cells: int = 1_000) -> Callable[[Path], None]:
    """Writes a model to a place."""
    arrays = {"x": np.random.default_rng(seed).normal(size=cells)}
    return lambda path: write_artifact(path, kind="thing", manifest={}, arrays=arrays, tables={}) and None


def publish(spaces: Spaces, name: str = "ranker", seed: int = 0, parents: tuple[str, ...] = ()) -> Space:
    return spaces.publish(made(name, parents=parents), saved(seed))


def promote(spaces: Spaces, space: Space) -> None:
    """Whatever is live."""
    live = spaces.state().live(space.name)
    spaces.promote(space, instead_of=live and live.space)


def flip(path: Path) -> None:
    """One bit of the last byte."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
