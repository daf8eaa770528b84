"""What a space has to pass before it is promoted."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Duration, Name, in_our_words

_Share = Annotated[float, Field(ge=0, le=1)]
_Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@in_our_words
@dataclass(frozen=True, config=STRICT)
class Gates:
    """The bounds of the gates before a promotion; those without a bound are not asked.

    That all values are finite, and that a learner says the same once it is saved and loaded, is always asked; and
    that vectors in the project's store are those of the states there, where a stream has refreshed the space.

    Args:
        window: the length of the newest part of the log that gates look at.
        coverage: the least share of the entities in it that the space knows: of each kind, or by kind.
        drift: how far, as a root mean square, predictions on it may be from those of the live space; vectors of
            encoders are turned to each other first, and are relative to the size of the live ones.
        quality: by how much the loss on it may be worse than the live space's, on rows that neither has learned;
            below 0 by how much it must be better.
        parity: how far a value may be from the same one after a save and a load, and a stored vector from one made
            anew, for which the rounding of float32 is allowed too.
        sample: on how many rows, and vectors of each kind and partition, that is looked at.
    """

    window: Duration = "1d"
    coverage: _Share | dict[Name, _Share] | None = None
    drift: _Bound | None = None
    quality: Annotated[float, Field(allow_inf_nan=False)] | None = None
    parity: _Bound = 1e-9
    sample: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
