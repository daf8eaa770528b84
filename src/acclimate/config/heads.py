"""How a task is declared that stands on frozen vectors."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WrapValidator
from pydantic.dataclasses import dataclass

from acclimate.config.learners import Ridge
from acclimate.config.records import STRICT, in_our_words, in_place
from acclimate.config.training import Training


@in_our_words
@dataclass(frozen=True, config=STRICT)
class TaskHeadParameters:
    """A :class:`acclimate.TaskHead`: one task on vectors that others have made.

    Args:
        kind: ``logistic`` of labels or classes, ``ridge`` of numbers, ``mlp`` of labels or classes.
        ridge: prior precision of a coefficient of a standardised column; of ``mlp`` none is needed.
        hidden: widths of the layers of ``mlp``.
        training: how ``mlp`` is trained.
    """

    kind: Literal["logistic", "ridge", "mlp"] = "logistic"
    ridge: Ridge = 1.0
    hidden: Annotated[Sequence[Annotated[int, Field(ge=1, le=65_536)]], AfterValidator(tuple)] = (64,)
    training: Annotated[Training, WrapValidator(in_place)] = Field(
        default_factory=lambda: Training(epochs=20, patience=3)
    )
