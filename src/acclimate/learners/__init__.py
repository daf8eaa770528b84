"""The contract of :class:`acclimate.artifacts.Learner`, and the learners that keep it."""

from acclimate.learners.glmix import GLMix
from acclimate.learners.rates import GlobalRate, Rate

LEARNERS = (GLMix, GlobalRate, Rate)
"""All of them; the conformance suite is made from this list."""

__all__ = ["LEARNERS", "GLMix", "GlobalRate", "Rate"]
