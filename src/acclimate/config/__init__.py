"""What a user declares: the schema of the events, the features, the learners.

One frozen record per section of the project file. The same records are the Python surface: a schema built in
code and one read from ``acclimate.yaml`` are equal.
"""

from acclimate.config.arms import BASELINES, BUILT_IN_ARMS, AskedMode, Regime, arms_beside
from acclimate.config.encoder import MOST_BEHAVIOURS, ItemVectors, UserEncoderParameters, predicts
from acclimate.config.gates import Gates
from acclimate.config.heads import TaskHeadParameters
from acclimate.config.learners import (
    FixedEffect,
    GLMixParameters,
    GlobalRateParameters,
    LearnerParameters,
    LossKind,
    PrecisionKind,
    RandomEffect,
    RateParameters,
    SequentialLaplaceParameters,
)
from acclimate.config.meta import MetaBlock, MetaRankerParameters
from acclimate.config.records import Duration, Name, Names, NdcgAt, Seed, Size, checked, size_bytes
from acclimate.config.schema import (
    LABEL_KINDS,
    EntityTable,
    Feature,
    Kind,
    LabelKind,
    Schema,
    TimeColumn,
    TimeUnit,
)
from acclimate.config.stacks import (
    LEARNERS,
    MOST_STACKED,
    CalibratedParameters,
    SomeLearner,
    StackParameters,
    class_of,
    lacking_offset,
    located,
    loss_of,
    names_used,
    offset_keys,
    record_of,
    stacked,
)
from acclimate.config.training import Training
from acclimate.config.tuning import (
    Choices,
    Range,
    Setting,
    Tuned,
    declared_record,
    declared_value,
    default_settings,
    spelled_out,
)

__all__ = [
    "BASELINES",
    "BUILT_IN_ARMS",
    "LABEL_KINDS",
    "LEARNERS",
    "MOST_BEHAVIOURS",
    "MOST_STACKED",
    "AskedMode",
    "CalibratedParameters",
    "Choices",
    "Duration",
    "EntityTable",
    "Feature",
    "FixedEffect",
    "GLMixParameters",
    "Gates",
    "GlobalRateParameters",
    "ItemVectors",
    "Kind",
    "LabelKind",
    "LearnerParameters",
    "LossKind",
    "MetaBlock",
    "MetaRankerParameters",
    "Name",
    "Names",
    "NdcgAt",
    "PrecisionKind",
    "RandomEffect",
    "Range",
    "RateParameters",
    "Regime",
    "Schema",
    "Seed",
    "SequentialLaplaceParameters",
    "Setting",
    "Size",
    "SomeLearner",
    "StackParameters",
    "TaskHeadParameters",
    "TimeColumn",
    "TimeUnit",
    "Training",
    "Tuned",
    "UserEncoderParameters",
    "arms_beside",
    "checked",
    "class_of",
    "declared_record",
    "declared_value",
    "default_settings",
    "lacking_offset",
    "located",
    "loss_of",
    "names_used",
    "offset_keys",
    "predicts",
    "record_of",
    "size_bytes",
    "spelled_out",
    "stacked",
]
