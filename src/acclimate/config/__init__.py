"""What a user declares: the schema of the events, the features, the learners.

One frozen record per section of the project file. The same records are the Python surface: a schema built in
code and one read from ``acclimate.yaml`` are equal.
"""

from acclimate.config.learners import (
    BASELINES,
    BUILT_IN_ARMS,
    LEARNERS,
    FixedEffect,
    GLMixParameters,
    GlobalRateParameters,
    LearnerParameters,
    PrecisionKind,
    RandomEffect,
    RateParameters,
    Regime,
    arms_beside,
    class_of,
    record_of,
)
from acclimate.config.records import Duration, Name, Names, NdcgAt, Resamples, Seed, Size, checked, size_bytes
from acclimate.config.schema import EntityTable, Feature, Kind, Schema, TimeColumn, TimeUnit

__all__ = [
    "BASELINES",
    "BUILT_IN_ARMS",
    "LEARNERS",
    "Duration",
    "EntityTable",
    "Feature",
    "FixedEffect",
    "GLMixParameters",
    "GlobalRateParameters",
    "Kind",
    "LearnerParameters",
    "Name",
    "Names",
    "NdcgAt",
    "PrecisionKind",
    "RandomEffect",
    "RateParameters",
    "Regime",
    "Resamples",
    "Schema",
    "Seed",
    "Size",
    "TimeColumn",
    "TimeUnit",
    "arms_beside",
    "checked",
    "class_of",
    "record_of",
    "size_bytes",
]
