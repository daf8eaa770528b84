"""The third step: what was learned leaves the process as spaces, with a life, pins and gates before promotion."""

from acclimate.publish.journal import Entry
from acclimate.publish.spaces import Known, Life, Pin, Spaces, State

__all__ = ["Entry", "Known", "Life", "Pin", "Spaces", "State"]
