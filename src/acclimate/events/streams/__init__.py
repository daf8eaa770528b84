"""Events that keep coming: logs in partitions, what is let in from them, and what is not."""

from acclimate.events.streams.log import Log
from acclimate.events.streams.parse import Refused
from acclimate.events.streams.partitions import partition_of
from acclimate.events.streams.validate import Validated, Validator

__all__ = ["Log", "Refused", "Validated", "Validator", "partition_of"]
