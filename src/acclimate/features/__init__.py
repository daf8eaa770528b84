"""Columns to design matrices: one encoding for learners, server and replay."""

from acclimate.features.encode import encode, positions
from acclimate.features.index import INTERCEPT, FeatureIndex, Settled

__all__ = ["INTERCEPT", "FeatureIndex", "Settled", "encode", "positions"]
