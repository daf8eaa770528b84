"""How a user encoder is declared: what it reads of an entity, and how that becomes one vector."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Duration, Name, Names, in_our_words, in_place
from acclimate.config.training import Training
from acclimate.times import duration_us

MOST_BEHAVIOURS = 8
"""One bit each in a byte of an event."""


@in_our_words
@dataclass(frozen=True, config=STRICT)
class ItemVectors:
    """One kind of vectors of items: from what they are made of, or from what is touched together.

    Args:
        features: names of features of an item; vectors are the leading singular vectors of them (content).
        behaviour: without features: items that entities touch one after another by this behaviour (any, without)
            are alike; vectors are the leading singular vectors of their shifted positive mutual information.
        size: length of a vector.
        shift: without features: how many times more often than by chance items must go together to count at all.
    """

    features: Names = ()
    behaviour: str | None = None
    size: Annotated[int, Field(ge=1, le=1024)] = 32
    shift: Annotated[float, Field(ge=1, le=1e6)] = 1.0

    def __post_init__(self) -> None:
        if self.features and self.behaviour is not None:
            raise ValueError("'features' are of content and 'behaviour' of what is touched together: set one")


def _as_behaviours(value: Any) -> Any:
    """A list of labels: each of them, called as it is, and that an event happened."""
    if value is None or isinstance(value, Mapping | str):
        return value
    return {"event": None, **{name: name for name in value}}


_Behaviours = Annotated[dict[Name, str | None], Field(min_length=1, max_length=MOST_BEHAVIOURS)]


def _ascending(windows: Sequence[str]) -> tuple[str, ...]:
    spans = [duration_us(window) for window in windows]
    if sorted(set(spans)) != spans:
        raise ValueError(f"windows grow and none is there twice, unlike {', '.join(windows)}")
    return tuple(windows)


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class UserEncoderParameters:
    """A :class:`acclimate.UserEncoder`: all that is known of an entity as one vector, which other learners use.

    Its inputs are groups of columns. Each kind of item vectors and each behaviour make one: the averages over the
    windows. ``activity`` is another: how much was done in each window, at what rates, how long ago. Each of
    ``columns`` is one more: features of the row itself.

    Args:
        entity: role or column of the entity that has the vector.
        item: role or column of what it touches.
        items: kinds of item vectors by name.
        behaviours: what an event may show, by name: a label that is 1, or, without a label, that it happened. A
            list of labels is short for these and ``event``, which all show.
        windows: lengths of time, ascending.
        decay: whether an event counts whole until it is older than the window (``exact``) or half as much after
            each length of it (``exponential``).
        columns: features of rows by the name of their group: a profile, choices when someone joined, a context.
        most_events: an entity's newest events that count.
        size: length of the vector.
        code: width of what each group is encoded to.
        hidden: width of the layer between codes and vector, and of each decoder.
        noise: standard deviation of what is added to standardised numbers in training.
        masked: share of the columns that are hidden in training.
        group_dropout: share of the groups that are hidden in training.
        normalised: divide vectors by their length.
        snapshots: of each entity, moments of its past that it is trained on.
        training: how the network is trained.
    """

    kind: Literal["user-encoder"] = "user-encoder"
    entity: str
    item: str
    items: Annotated[
        dict[Name, Annotated[ItemVectors, WrapValidator(in_place)]], Field(min_length=1, max_length=16)
    ]
    behaviours: Annotated[_Behaviours | None, BeforeValidator(_as_behaviours)] = None
    windows: Annotated[Sequence[Duration], Field(min_length=1, max_length=16), AfterValidator(_ascending)] = (
        "7d",
        "30d",
        "180d",
    )
    decay: Literal["exact", "exponential"] = "exact"
    columns: dict[Name, Names] = Field(default_factory=dict)
    most_events: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    size: Annotated[int, Field(ge=1, le=4096)] = 64
    code: Annotated[int, Field(ge=1, le=4096)] = 32
    hidden: Annotated[int, Field(ge=1, le=65_536)] = 128
    noise: Annotated[float, Field(ge=0, le=10)] = 0.1
    masked: Annotated[float, Field(ge=0, lt=1)] = 0.1
    group_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    normalised: bool = False
    snapshots: Annotated[int, Field(ge=1, le=1000)] = 4
    training: Annotated[Training, WrapValidator(in_place)] = Field(
        default_factory=lambda: Training(epochs=30, patience=5)
    )

    def behaviours_of(self, labels: Sequence[str]) -> dict[str, str | None]:
        """The behaviours by name, each with its label; by default that an event happened, and every label."""
        return {"event": None, **{name: name for name in labels}} if self.behaviours is None else self.behaviours


ENCODERS: dict[type[Any], str] = {UserEncoderParameters: "acclimate.learners.user_encoder:UserEncoder"}
"""Encoders: the record that declares each, and its class."""


def predicts(record: Any) -> bool:
    """Whether what a record declares predicts labels; an encoder does not."""
    return type(record) not in ENCODERS
