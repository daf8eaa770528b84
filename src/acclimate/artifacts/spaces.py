"""What one trained shared model defines: the identity that every value made by it carries."""

import hashlib
from dataclasses import dataclass

from acclimate.times import utc


@dataclass(frozen=True)
class Space:
    """The identity of a space: values of two of them are never mixed.

    ``name`` is that of the learner in its project, ``number`` counts its spaces from 1; ``weights`` and
    ``contract`` are SHA-256 of the shared part as it was fitted and of what it reads (schema and settings);
    ``cut`` is the last event of the fit, microseconds UTC; ``parents`` are the spaces, as text, of the vectors
    that it is given: a model of vectors, such as a task head, has that of its encoder, and a learner that carries
    all that it reads within it, as those of a project file do, has none.
    """

    name: str
    number: int
    weights: str
    contract: str
    cut: int
    parents: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def tag(self) -> int:
        """The identity in 64 bits, as each stored value carries it."""
        told = "\n".join([self.name, str(self.number), self.weights, self.contract, str(self.cut), *self.parents])
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "little")

    @property
    def trained_until(self) -> str:
        """The cut as people read it."""
        return utc(self.cut).isoformat(timespec="seconds")
