"""Names to column numbers: an index that grows and never renumbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from acclimate.artifacts import IntArray

INTERCEPT = "(intercept)"


@dataclass(frozen=True)
class FeatureIndex:
    """The columns of one effect by name, in the order in which they were first seen; column 0 is the intercept.

    ``fill`` holds, per numeric feature, the mean when it was first seen: it stands in for missing values for good,
    so that a row is encoded the same way tomorrow.
    """

    names: tuple[str, ...] = (INTERCEPT,)
    fill: dict[str, float] = field(default_factory=dict[str, float])
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {name: number for number, name in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, names: Iterable[str]) -> IntArray:
        """The column of each name, -1 for unknown ones."""
        return np.array([self._numbers.get(name, -1) for name in names], dtype=np.int64)

    def grown(self, names: Sequence[str], fill: dict[str, float]) -> "FeatureIndex":
        """The same index with unknown names appended; itself where there is nothing new."""
        new = [name for name in dict.fromkeys(names) if name not in self._numbers]
        if not new and fill.keys() <= self.fill.keys():
            return self
        return FeatureIndex((*self.names, *new), {**fill, **self.fill})
