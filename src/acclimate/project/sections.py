"""The sections of a project file as records; the schema and the learners are those of ``config``."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from acclimate.config import (
    BUILT_IN_ARMS,
    MOST_STACKED,
    AskedMode,
    Duration,
    Gates,
    LearnerParameters,
    Name,
    Names,
    NdcgAt,
    Regime,
    Schema,
    Size,
    SomeLearner,
    Tuned,
    lacking_offset,
    located,
    names_used,
    offset_keys,
    predicts,
    stacked,
)
from acclimate.errors import ConfigError, nearest

_STRICT = ConfigDict(extra="forbid")


def _on_top(learners: dict[str, LearnerParameters]) -> dict[str, LearnerParameters]:
    """Each learner on top of those of the others that it names."""
    return {name: _with_members(name, learners, ()) for name in learners}


def _with_members(name: str, learners: Mapping[str, LearnerParameters], above: Sequence[str]) -> LearnerParameters:
    record, path = learners[name], (*above, name)
    if name in above or len(above) == MOST_STACKED:
        what = "a learner is made of itself" if name in above else f"more than {MOST_STACKED} on top of each other"
        raise located(path[:1], f"{what}: {' -> '.join(path)}", record)
    offset = lacking_offset(record)
    if offset is not None and offset not in learners:
        unknown = ConfigError(f"no learner '{offset}' in the project", hint=nearest(offset, learners))
        raise located((name, *offset_keys(record)), str(unknown), record)
    others = {other: _with_members(other, learners, path) for other in names_used(record) if other in learners}
    try:
        return stacked(record, others)
    except ConfigError as error:
        raise located([name], str(error), record) from error


def _as_arm(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_time(value: Any) -> Any:
    """YAML reads some times as dates; the rest must be ISO 8601."""
    text = value.isoformat() if isinstance(value, dt.date) else value
    try:
        year = dt.datetime.fromisoformat(text).year
    except (TypeError, ValueError):
        raise ValueError(f"'{value}' is no time; write 2022-04-25 or 2022-04-25T18:00") from None
    if not 1900 <= year <= 2200:  # what lies far outside of it cannot be counted from in every zone
        raise ValueError(f"'{text}' is outside the years 1900 to 2200")
    return text


def _none_empty(paths: Sequence[str]) -> Sequence[str]:
    if "" in paths:
        raise ValueError("is empty: give a path, a folder or a glob")
    return paths


_Time = Annotated[str, BeforeValidator(_as_time)]
_Id = Annotated[int, Field(ge=-(2**63), lt=2**64)]


@dataclass(frozen=True, config=_STRICT)
class EventsSection:
    """Where the events lie (a path, a glob, a folder, or several), and what they mean."""

    path: Annotated[Names, Field(min_length=1), AfterValidator(_none_empty)]
    schema: Schema


@dataclass(frozen=True, config=_STRICT)
class ArmSection:
    """One arm of the replay: a built-in one by its name alone, or one of your own.

    ``python`` is ``file.py:Name``, an object (or a class that makes one without arguments) with ``fit``,
    ``update`` and ``predict``; ``learner`` one of the project's. ``regime`` says when it learns, ``window`` on how
    much of the past a retrained one, ``mode`` how it is asked.
    """

    name: Name
    regime: Regime | None = None
    window: Duration | None = None
    python: str | None = None
    learner: str | None = None
    mode: AskedMode | None = None

    def __post_init__(self) -> None:
        if self.python and self.learner:
            raise ValueError("an arm is made of 'python' or of a 'learner', not of both")
        if not (self.python or self.learner) and self.name not in BUILT_IN_ARMS:
            hint = nearest(self.name, BUILT_IN_ARMS)
            raise ValueError(
                f"no built-in arm '{self.name}' ({hint}); one of your own needs 'python' or 'learner'"
            )
        built_in = not (self.python or self.learner)
        if built_in and self.name in get_args(Regime) and self.regime not in (None, self.name):
            raise ValueError(f"the built-in arm '{self.name}' cannot be {self.regime}: give it a 'learner' too")


@dataclass(frozen=True, config=_STRICT)
class ReplaySection:
    """What :func:`acclimate.replay` is asked for; ``learner`` is the one behind the built-in arms.

    Without ``arms`` there are all built-in ones that go with that learner.
    """

    start: _Time
    every: Duration = "1d"
    end: _Time | None = None
    arms: list[Annotated[ArmSection, BeforeValidator(_as_arm)]] | None = None
    learner: str | None = None
    label_delay: Duration | None = None
    mode: AskedMode | None = None
    ndcg_at: NdcgAt = 10
    within: Names = ()
    follow: str | _Id | None = None


@dataclass(frozen=True, config=_STRICT)
class StreamSection:
    """Where events come from as they happen, and how they are learned.

    ``source`` is the URL of a stream of so many ``partitions``, told apart by the entity ``by``; ``learners`` are
    those that learn from it (all without); of these only what is known of single ``entities``, or ``all``.
    At most ``batch`` events are learned at a time, and smaller batches no sooner than ``wait`` after the one
    before. An event that happened more than ``lateness`` before the newest one is refused, and one whose
    ``event_id`` came within ``duplicates`` is left out; what is refused goes to the folder ``refused``. A worker
    that is not heard of for the time of its ``lease`` is replaced. What is known of an entity goes where no event
    of it was learned for ``forget_after``.
    """

    source: str
    partitions: Annotated[int, Field(ge=1, le=4_096)] = 1
    by: str | None = None
    learners: Names | None = None
    learns: Literal["entities", "all"] = "entities"
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    wait: Duration = "20ms"
    lateness: Duration = "7d"
    event_id: str | None = None
    duplicates: Duration = "1d"
    refused: str = "refused"
    lease: Duration = "30s"
    forget_after: Duration | None = None

    def __post_init__(self) -> None:
        if self.partitions > 1 and self.by is None:
            raise ValueError("several partitions are told apart by an entity: name it as 'by'")
        if self.partitions > 1 and self.learns == "all":
            raise ValueError("what is shared cannot be learned in several partitions: learns: entities")


@dataclass(frozen=True, config=_STRICT)
class PublishSection:
    """Where spaces go (a folder, or a URL such as ``s3://bucket/spaces``), and what they pass to become live.

    ``store``: where the values of entities live that streams refresh and services read.
    """

    spaces: Annotated[str, Field(min_length=1)]
    store: str | None = None
    gates: Gates = Field(default_factory=Gates)


@dataclass(frozen=True, config=_STRICT)
class Project:
    """A whole project file; ``folder`` is where it lies.

    ``memory_limit`` is of sorting and joining the events, and of the rows that are held at once: what exceeds it
    goes to disk, or is learned in pieces.
    """

    name: Name
    folder: Path
    events: EventsSection
    learners: Annotated[dict[Name, SomeLearner], Field(min_length=1), AfterValidator(_on_top)]
    replay: ReplaySection | None = None
    tune: Tuned | None = None
    stream: StreamSection | None = None
    publish: PublishSection | None = None
    memory_limit: Size = "1GB"

    def predictor(self, name: str | None = None) -> tuple[str, LearnerParameters]:
        """Name and record of a learner that predicts; of the only one that does without a name.

        Raises:
            ConfigError: there is none of that name, or it is an encoder, or there are several and no name.
        """
        predictors = [name for name, record in self.learners.items() if predicts(record)]
        if not predictors:
            raise ConfigError(
                "none of the learners predicts", hint="declare one that names the encoder among its features"
            )
        if name is None and len(predictors) > 1:
            raise ConfigError(f"which of the learners {', '.join(predictors)}?", hint="name one")
        record = self.learner(name := name or predictors[0])
        if name not in predictors:
            raise ConfigError(
                f"'{name}' is an encoder and predicts nothing", hint=f"name {' or '.join(predictors)} instead"
            )
        return name, record

    def learner(self, name: str | None = None) -> LearnerParameters:
        """What declares a learner, by name; that of the only one without a name.

        Raises:
            ConfigError: there is none of that name, or several and no name.
        """
        if name is None and len(self.learners) == 1:
            return next(iter(self.learners.values()))
        if name is None:
            raise ConfigError(f"which of the learners {', '.join(self.learners)}?", hint="name one")
        if name not in self.learners:
            raise ConfigError(f"no learner '{name}' in the project", hint=nearest(name, self.learners))
        return self.learners[name]
