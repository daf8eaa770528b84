"""How networks are trained: one record that all torch learners share."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Seed, in_our_words


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class Training:
    """How a network is trained.

    Args:
        epochs: passes over the rows of a fit, at most.
        update_epochs: passes over those of an update.
        batch: rows of a step.
        rate: step size of Adam at its largest; it falls to nothing by half a cosine.
        update_rate: the same in updates.
        holdout: share of the rows, the newest, that a fit or an update is judged by before it learns them too.
        patience: stop a fit after so many epochs without a better judgement; the best one counts.
        seed: of initial weights, order of rows and dropout.
        device: where to compute; ``auto`` is a CUDA device if there is one.
        mixed_precision: compute in bfloat16 where the device is CUDA.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 3
    update_epochs: Annotated[int, Field(ge=1, le=100_000)] = 2
    batch: Annotated[int, Field(ge=1, le=2**24)] = 512
    rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 5e-3
    update_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 5e-3
    holdout: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.1
    patience: Annotated[int, Field(ge=1)] = 1
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: bool = False
