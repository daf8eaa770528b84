"""5. How good the scores are: metrics, comparisons, and the replay of a log as if it happened again."""

from acclimate.evaluate.arms import Arm
from acclimate.evaluate.replay import Losses, Progress, replay

__all__ = ["Arm", "Losses", "Progress", "replay"]
