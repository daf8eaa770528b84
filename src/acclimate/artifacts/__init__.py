"""The nouns of the flow: what one step hands to the next.

``Events`` go in, a ``Learner`` or an ``Encoder`` learns from them, a ``Report`` says how well.
"""

from acclimate.artifacts.contracts import (
    Encoder,
    Entities,
    Exported,
    Kept,
    Learned,
    Learner,
    Replayable,
    SharedPart,
    keeps_shared,
    modes_of,
    update_options,
)
from acclimate.artifacts.events import Events, Fingerprint, Instant, Source, SourceAround, Summary, TableSource
from acclimate.artifacts.report import (
    SURPRISED,
    ArmResult,
    CalibrationBin,
    CohortResult,
    Comparison,
    Cost,
    Drift,
    Quality,
    Report,
    Statistic,
    TracePoint,
    Weight,
    WindowDrift,
    WindowResult,
)
from acclimate.artifacts.spaces import Space
from acclimate.artifacts.stores import VECTORS, Commit, Held, Lease, Store, Writes
from acclimate.artifacts.streams import Records, Stream
from acclimate.artifacts.tuning import JUDGES, Candidates, Finalist, Trial, Tuning

__all__ = [
    "JUDGES",
    "SURPRISED",
    "VECTORS",
    "ArmResult",
    "CalibrationBin",
    "Candidates",
    "CohortResult",
    "Commit",
    "Comparison",
    "Cost",
    "Drift",
    "Encoder",
    "Entities",
    "Events",
    "Exported",
    "Finalist",
    "Fingerprint",
    "Held",
    "Instant",
    "Kept",
    "Learned",
    "Learner",
    "Lease",
    "Quality",
    "Records",
    "Replayable",
    "Report",
    "SharedPart",
    "Source",
    "SourceAround",
    "Space",
    "Statistic",
    "Store",
    "Stream",
    "Summary",
    "TableSource",
    "TracePoint",
    "Trial",
    "Tuning",
    "Weight",
    "WindowDrift",
    "WindowResult",
    "Writes",
    "keeps_shared",
    "modes_of",
    "update_options",
]
