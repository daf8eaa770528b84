"""Names to column numbers: an index that grows and never renumbers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from acclimate.arrays import IntArray
from acclimate.config import Kind

INTERCEPT = "(intercept)"


@dataclass(frozen=True)
class Settled:
    """What the first values of features settled for good, so that a row is encoded the same way tomorrow.

    ``fill``: per numeric feature, the mean that stands in for missing values; ``kinds``: the kind that a feature
    which declares none was taken for; ``sizes``: per embedding, the length of its vectors.
    """

    fill: dict[str, float] = field(default_factory=dict[str, float])
    kinds: dict[str, Kind] = field(default_factory=dict[str, Kind])
    sizes: dict[str, int] = field(default_factory=dict[str, int])

    def copied(self) -> "Settled":
        """The same in dictionaries of its own."""
        return Settled(dict(self.fill), dict(self.kinds), dict(self.sizes))


@dataclass(frozen=True)
class FeatureIndex:
    """The columns of one effect by name, in the order in which they were first seen; column 0 is the intercept."""

    names: tuple[str, ...] = (INTERCEPT,)
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {name: number for number, name in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, names: Iterable[str]) -> IntArray:
        """The column of each name, -1 for unknown ones."""
        return np.array([self._numbers.get(name, -1) for name in names], dtype=np.int64)

    def grown(self, names: Iterable[str]) -> "FeatureIndex":
        """The index with unknown names appended; itself where there is none."""
        new = [name for name in dict.fromkeys(names) if name not in self._numbers]
        return FeatureIndex((*self.names, *new)) if new else self
