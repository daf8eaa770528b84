"""A learner of whatever kind, learners on top of each other, and a learner whose probabilities are calibrated."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from acclimate.config.encoder import ENCODERS, predicts
from acclimate.config.learners import ALONE, LearnerParameters, LossKind, Ridge
from acclimate.config.meta import MetaRankerParameters
from acclimate.config.records import STRICT, Duration, Name, in_our_words
from acclimate.errors import ConfigError, nearest
from acclimate.extras import import_module


def located(place: Sequence[str], what: str, section: Any) -> ValidationError:
    """The error that something is wrong at a place of a section."""
    # Braces in a message would be read as a template.
    error = PydanticCustomError("learner", "{what}", {"what": what})
    return ValidationError.from_exception_data("learner", [{"type": error, "loc": tuple(place), "input": section}])


def _as_learner(section: Any) -> Any:
    """The record of the section's kind; errors inside keep their place."""
    for value in (section, getattr(section, "parameters", None)):
        if type(value) in LEARNERS:
            return value
    if not isinstance(section, Mapping):
        raise PydanticCustomError("learner", "should be a section of keys")
    if "calibrate" in section:
        return _as_calibrated(section)
    try:
        record: Any = record_of(str(section["kind"]))
    except KeyError:
        raise located(["kind"], "is missing", section) from None
    except ConfigError as error:
        raise located(["kind"], str(error), section) from error
    known = {field.name for field in fields(record)}
    if unknown := [str(key) for key in section if key not in known]:
        errors: Any = [{"type": "unexpected_keyword_argument", "loc": (key,), "input": section} for key in unknown]
        raise ValidationError.from_exception_data("learner", errors)
    return TypeAdapter(record).validate_python(section)


_CALIBRATION = ("mode", "ridge", "half_life")
"""What may be said of a calibration: keys of :class:`CalibratedParameters`."""


def _as_calibrated(section: Mapping[str, Any]) -> Any:
    """What the other keys declare, calibrated as the key ``calibrate`` says: not, ``platt``, or by a section."""
    learner = _as_learner({key: value for key, value in section.items() if key != "calibrate"})
    how = {} if section["calibrate"] == "platt" else section["calibrate"]
    if how is None or how is False:
        return learner
    if not isinstance(how, Mapping):
        raise located(["calibrate"], f"no calibration '{how}': write platt, or a section of keys", section)
    if unknown := [str(key) for key in how if key not in _CALIBRATION]:
        what = f"unknown key ({nearest(unknown[0], _CALIBRATION)})"
        raise located(["calibrate", unknown[0]], what, section)
    try:
        return TypeAdapter(CalibratedParameters).validate_python({"learner": learner, **how})
    except ValidationError as error:
        first = error.errors()[0]
        raise located(["calibrate", *map(str, first["loc"])], first["msg"], section) from error


SomeLearner = Annotated[Any, PlainValidator(_as_learner)]
"""A record of whatever kind: itself, the learner that it declares, or a section of keys."""

MOST_STACKED = 16
"""Learners of one stack, those within its members counted."""


@in_our_words
@dataclass(frozen=True, config=STRICT)
class StackParameters:
    """A :class:`acclimate.Stack`: a learner that has other learners for features, or one for its offset.

    Args:
        learner: the one on top, which names members among its features or as its ``offset``.
        members: those below it, by name. All may be given as records or as learners that are not fitted.
        warm_up: the part of the time that a fit spans that members are fitted on; then they are rolled forward.
        every: length of the windows in which they are: a row gets what they knew before its window.
    """

    learner: SomeLearner
    members: dict[Name, SomeLearner] = Field(default_factory=dict)
    warm_up: Annotated[float, Field(gt=0, lt=1)] = 0.5
    every: Duration = "1d"
    kind: Literal["stack"] = "stack"

    def __post_init__(self) -> None:
        if isinstance(self.learner, CalibratedParameters):
            raise ValueError("calibrate the stack, and not the learner on top of it")
        if unused := [name for name in self.members if name not in names_used(self.learner)]:
            raise ValueError(
                f"the learner on top does not use '{unused[0]}': name it in its features, or as offset"
            )
        if self.count > MOST_STACKED:
            raise ValueError(f"there are {self.count} learners on top of each other, more than {MOST_STACKED}")

    @property
    def label(self) -> str | None:
        """The label to predict: that of the learner on top."""
        return self.learner.label

    @property
    def count(self) -> int:
        """Learners that it is made of."""
        return 1 + sum(getattr(member, "count", 1) for member in self.members.values())

    def shared_part(self) -> LearnerParameters:
        """The same without what the learner on top has of single entities."""
        shared = self.learner.shared_part()
        members = {name: member for name, member in self.members.items() if name in names_used(shared)}
        return replace(self, learner=shared, members=members) if members else shared


@in_our_words
@dataclass(frozen=True, config=STRICT)
class CalibratedParameters:
    """A :class:`acclimate.Calibrated`: a learner whose probabilities a line in the logit puts right.

    Args:
        learner: the one whose probabilities they are, a record or a learner that is not fitted.
        mode: the mode of its predictions that the line is learned from, and puts right.
        ridge: prior precision of the line's intercept and slope, around 0 and 1.
        half_life: a row counts half after that long; without, all rows since the fit count the same.
    """

    learner: SomeLearner
    mode: Literal["point", "integrated"] = "point"
    ridge: Ridge = 10.0
    half_life: Duration | None = None
    kind: Literal["calibrated"] = "calibrated"

    def __post_init__(self) -> None:
        if isinstance(self.learner, CalibratedParameters):
            raise ValueError("the learner is calibrated already")
        if not predicts(self.learner):
            raise ValueError("an encoder gives no probabilities that could be calibrated")
        if (loss := loss_of(self.learner)) != "logistic":
            raise ValueError(f"a learner of loss '{loss}' gives no probabilities that could be calibrated")

    @property
    def label(self) -> str | None:
        """The label to predict: that of the learner."""
        return self.learner.label

    @property
    def count(self) -> int:
        """Learners on top of each other within it."""
        return getattr(self.learner, "count", 1)

    def shared_part(self) -> LearnerParameters:
        """The same without what the learner has of single entities."""
        return replace(self, learner=self.learner.shared_part())


def names_used(record: Any) -> tuple[str, ...]:
    """What may be the names of other learners in a record: features and the offset, but for its members."""
    if isinstance(record, CalibratedParameters):
        return names_used(record.learner)
    if isinstance(record, StackParameters):
        return tuple(name for name in names_used(record.learner) if name not in record.members)
    features = record.feature_names() if hasattr(record, "feature_names") else ()
    offset = getattr(record, "offset", None)
    return (*features, *([offset] if offset is not None and offset not in features else ()))


def loss_of(record: Any) -> LossKind:
    """What a learner's label is to its margin; of a learner on top of others that of its own."""
    if isinstance(record, CalibratedParameters | StackParameters):
        return loss_of(record.learner)
    return getattr(record, "loss", "logistic")


def lacking_offset(record: Any) -> str | None:
    """The learner that a record names as its offset, where that is not below it."""
    if isinstance(record, CalibratedParameters):
        return lacking_offset(record.learner)
    members = record.members if isinstance(record, StackParameters) else {}
    offset = getattr(getattr(record, "learner", record), "offset", None)
    return None if offset in members else offset


def offset_keys(record: Any) -> tuple[str, ...]:
    """Where the offset stands in a section; that of a calibrated learner is a key beside its others."""
    record = record.learner if isinstance(record, CalibratedParameters) else record
    return ("learner", "offset") if hasattr(record, "learner") else ("offset",)


def stacked(record: Any, others: Mapping[str, Any]) -> Any:
    """The record on top of those of the others that it uses; as it is where it uses none.

    Raises:
        ConfigError: it is a stack without members, or of too many.
    """
    if isinstance(record, CalibratedParameters):
        return replace(record, learner=stacked(record.learner, others))
    used = {name: others[name] for name in names_used(record) if name in others}
    if isinstance(record, StackParameters):
        if not (used or record.members):
            raise ConfigError(
                "the learner on top uses no other learner", hint="name one in its features, or as its offset"
            )
        return replace(record, members={**record.members, **used})
    return StackParameters(record, used) if used else record


LEARNERS: dict[type[Any], str] = {
    **ALONE,
    MetaRankerParameters: "acclimate.learners.meta_ranker:MetaRanker",
    **ENCODERS,
    StackParameters: "acclimate.learners.stack:Stack",
    CalibratedParameters: "acclimate.learners.calibrated:Calibrated",
}
"""Every learner: the record that declares it, and the class that learns by it, imported when it is asked for."""


def record_of(kind: str) -> type[Any]:
    """The record of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds: dict[str, type[Any]] = {record.kind: record for record in LEARNERS}
    if kind not in kinds:
        raise ConfigError(f"no kind '{kind}' of learner", hint=nearest(kind, kinds))
    return kinds[kind]


def class_of(record: type[Any]) -> Any:
    """The class that learns by such a record."""
    module, _, name = LEARNERS[record].partition(":")
    return getattr(import_module(module), name)
