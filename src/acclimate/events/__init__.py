"""1. What happened: events from files and frames, and a simulated world."""

from acclimate.events.simulate import simulate
from acclimate.events.sources import read_events

__all__ = ["read_events", "simulate"]
