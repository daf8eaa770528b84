"""Events that keep coming: logs in partitions, what is let in from them, and what is not."""

from acclimate.events.streams.log import Log
from acclimate.events.streams.partitions import partition_of

__all__ = ["Log", "partition_of"]
