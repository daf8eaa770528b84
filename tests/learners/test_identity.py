"""How far what learners share is apart."""

from dataclasses import dataclass

import numpy as np
import pytest

from acclimate.learners import distances
from acclimate.learners.base import Packed


@dataclass
class Sharing:
    """What shares these arrays."""

    arrays: dict[str, np.ndarray]

    def shared(self) -> Packed:
        return Packed(arrays=self.arrays)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0),
        ([3.0, 4.0], [6.0, 8.0], 1.0),
        ([0.0, 0.0], [3.0, 4.0], 1.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([3.0, 4.0], [3.0, 4.0, 5.0], None),
    ],
)
def test_the_distance_is_relative_to_the_first_that_is_not_zero(one, other, apart):
    found = distances(Sharing({"x": np.array(one)}), Sharing({"x": np.array(other)}))
    assert found == {"x": apart}


def test_what_only_one_has_is_nowhere():
    assert distances(Sharing({"x": np.ones(2)}), Sharing({})) == {"x": None}
