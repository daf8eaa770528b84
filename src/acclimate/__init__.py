"""Recommenders that stay personal and fresh.

Names in the order of the flow: describe and read events, learn, replay.
Imported on first use, so that ``import acclimate`` costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.arrays import EntityStates, Posterior
    from acclimate.artifacts import Events, Report
    from acclimate.config import (
        EntityTable,
        Feature,
        FixedEffect,
        ItemVectors,
        MetaBlock,
        RandomEffect,
        Schema,
        TimeColumn,
        Training,
    )
    from acclimate.errors import AcclimateError
    from acclimate.evaluate import Arm
    from acclimate.events import read_events, simulate
    from acclimate.learners.calibrated import Calibrated
    from acclimate.learners.glmix import GLMix
    from acclimate.learners.item_map import ItemMap
    from acclimate.learners.meta_ranker import MetaRanker
    from acclimate.learners.rates import GlobalRate, Rate
    from acclimate.learners.sequential_laplace import SequentialLaplace
    from acclimate.learners.stack import Stack
    from acclimate.learners.task_head import TaskHead
    from acclimate.learners.user_encoder import UserEncoder
    from acclimate.learners.vector_index import VectorIndex
    from acclimate.models.posterior import update_posterior, update_posteriors
    from acclimate.pipeline import replay

_HOMES = {
    "acclimate.config": (
        "TimeColumn",
        "Feature",
        "EntityTable",
        "Schema",
        "FixedEffect",
        "RandomEffect",
        "Training",
        "ItemVectors",
        "MetaBlock",
    ),
    "acclimate.arrays": ("Posterior", "EntityStates"),
    "acclimate.artifacts": ("Events", "Report"),
    "acclimate.events": ("read_events", "simulate"),
    "acclimate.learners.glmix": ("GLMix",),
    "acclimate.learners.rates": ("GlobalRate", "Rate"),
    "acclimate.learners.sequential_laplace": ("SequentialLaplace",),
    "acclimate.learners.user_encoder": ("UserEncoder",),
    "acclimate.learners.meta_ranker": ("MetaRanker",),
    "acclimate.learners.task_head": ("TaskHead",),
    "acclimate.learners.vector_index": ("VectorIndex",),
    "acclimate.learners.item_map": ("ItemMap",),
    "acclimate.learners.stack": ("Stack",),
    "acclimate.learners.calibrated": ("Calibrated",),
    "acclimate.models.posterior": ("update_posterior", "update_posteriors"),
    "acclimate.evaluate": ("Arm",),
    "acclimate.pipeline": ("replay",),
    "acclimate.errors": ("AcclimateError",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "TimeColumn",
    "Feature",
    "EntityTable",
    "Schema",
    "read_events",
    "simulate",
    "Events",
    "FixedEffect",
    "RandomEffect",
    "Training",
    "ItemVectors",
    "MetaBlock",
    "GLMix",
    "SequentialLaplace",
    "UserEncoder",
    "MetaRanker",
    "TaskHead",
    "VectorIndex",
    "ItemMap",
    "GlobalRate",
    "Rate",
    "Stack",
    "Calibrated",
    "Posterior",
    "EntityStates",
    "update_posterior",
    "update_posteriors",
    "Arm",
    "replay",
    "Report",
    "AcclimateError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'acclimate' has no attribute '{name}'")
    from acclimate.extras import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
