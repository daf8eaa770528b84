"""How far a unit is in its stream, beside its position: written in the same transaction as its states."""

import json
from dataclasses import asdict, dataclass, replace

PROGRESS = "progress"
"""The table and the key of it in a unit."""


@dataclass(frozen=True)
class Progress:
    """What became of the records of one partition that were read for one space.

    ``learned`` events, and those that were not: ``refused`` (no events of the schema, or none that the learner
    takes), ``late`` (older than the watermark allows), ``duplicates`` (their id came before) and ``known`` (up to
    ``cut``, the last event of the fit, which has learned them). ``newest`` is the time of the newest event so far,
    microseconds UTC. ``stream`` is where the records came from: positions of another one mean something else.
    """

    stream: str
    cut: int
    newest: int
    learned: int = 0
    refused: int = 0
    late: int = 0
    duplicates: int = 0
    known: int = 0

    @staticmethod
    def begun(stream: str, cut: int) -> "Progress":
        """Nothing was read since the fit."""
        return Progress(stream, cut, cut)

    @property
    def read(self) -> int:
        """All records that were read."""
        return self.learned + self.refused + self.late + self.duplicates + self.known

    def counted(self, *, newest: int | None = None, **more: int) -> "Progress":
        """With so many more of each outcome, and perhaps a newer event."""
        counts = {name: getattr(self, name) + count for name, count in more.items()}
        return replace(self, newest=self.newest if newest is None else max(self.newest, newest), **counts)

    def written(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def read_from(value: bytes) -> "Progress":
        """What :meth:`written` gave."""
        return Progress(**json.loads(value))
