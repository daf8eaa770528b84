"""Events that keep coming: logs in partitions, what is let in from them, and what is not."""

from acclimate.events.streams.dead_letters import DeadLetter, DeadLetters
from acclimate.events.streams.log import Log
from acclimate.events.streams.parse import Refused
from acclimate.events.streams.partitions import partition_of
from acclimate.events.streams.urls import open_stream, without_password
from acclimate.events.streams.validate import Validated, Validator, restored
from acclimate.events.streams.wire import append_events, encode

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "Log",
    "Refused",
    "Validated",
    "Validator",
    "append_events",
    "encode",
    "open_stream",
    "partition_of",
    "restored",
    "without_password",
]
