"""The project file: one YAML file describes a recommender, every command reads it.

Environment variables (``${NAME}``, ``${NAME:-default}``) expand in every text, relative paths start at the file's
folder, and ``key=value`` overrides go on top.
"""

import datetime as dt
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from acclimate.config import (
    BUILT_IN_ARMS,
    EntityTable,
    Feature,
    FixedEffect,
    Names,
    RandomEffect,
    Schema,
    TimeColumn,
    duration_us,
)
from acclimate.errors import ConfigError, nearest

_STRICT = ConfigDict(extra="forbid")


def _as_fixed(value: Any) -> Any:
    return value if isinstance(value, Mapping | FixedEffect) else {"features": value or ()}


def _as_random(value: Any) -> Any:
    if isinstance(value, str | None | list):
        value = dict.fromkeys([value] if isinstance(value, str) else value or ())
    if not isinstance(value, Mapping):
        return value
    return {
        entity: effect if isinstance(effect, RandomEffect) else {"entity": entity, **_as_fixed(effect)}
        for entity, effect in value.items()
    }


def _as_arm(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _placed(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Our own errors as pydantic's kind, which knows the place."""
    try:
        return check(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _check_duration(text: str) -> str:
    duration_us(text)
    return text


def _as_time(value: Any) -> Any:
    """YAML reads some times as dates; the rest must be ISO 8601."""
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"'{value}' is no time; write 2022-04-25 or 2022-04-25T18:00") from None
    return value


_Duration = Annotated[str, AfterValidator(_check_duration), WrapValidator(_placed)]
_Time = Annotated[str, BeforeValidator(_as_time)]


@dataclass(frozen=True, config=_STRICT)
class EventsSection:
    """Where the events lie (a path, a glob, a folder, or several), and what they mean."""

    path: Annotated[Names, Field(min_length=1)]
    schema: Schema


@dataclass(frozen=True, config=_STRICT)
class GLMixSection:
    """A :class:`acclimate.GLMix`.

    ``fixed`` is a :class:`FixedEffect`, or just its features; ``random`` maps entities to a :class:`RandomEffect`,
    or just its features, or lists entities that have an intercept alone.
    """

    kind: Literal["glmix"]
    fixed: Annotated[FixedEffect, BeforeValidator(_as_fixed), WrapValidator(_placed)] = Field(
        default_factory=FixedEffect
    )
    random: Annotated[dict[str, Annotated[RandomEffect, WrapValidator(_placed)]], BeforeValidator(_as_random)] = (
        Field(default_factory=dict[str, RandomEffect])
    )
    label: str | None = None
    learn_population: bool = True


@dataclass(frozen=True, config=_STRICT)
class ArmSection:
    """One arm of the replay: a built-in one by its name alone, or one of your own.

    ``python`` is ``file.py:Name``, an object (or a class that makes one without arguments) with ``fit``,
    ``update`` and ``predict``; ``learner`` one of the project's. ``regime`` says when it learns, ``window`` on how
    much of the past a retrained one.
    """

    name: str
    regime: Literal["incremental", "stale", "retrain"] | None = None
    window: _Duration | None = None
    python: str | None = None
    learner: str | None = None

    def __post_init__(self) -> None:
        if self.python and self.learner:
            raise ValueError("an arm is made of 'python' or of a 'learner', not of both")
        if not (self.python or self.learner) and self.name not in BUILT_IN_ARMS:
            hint = nearest(self.name, BUILT_IN_ARMS)
            raise ValueError(
                f"no built-in arm '{self.name}' ({hint}); one of your own needs 'python' or 'learner'"
            )
        regimes = ("incremental", "stale", "retrain")
        if not (self.python or self.learner) and self.name in regimes and self.regime not in (None, self.name):
            raise ValueError(f"the built-in arm '{self.name}' cannot be {self.regime}: give it a 'learner' too")


@dataclass(frozen=True, config=_STRICT)
class ReplaySection:
    """What :func:`acclimate.replay` is asked for; ``learner`` is the one behind the built-in arms."""

    start: _Time
    every: _Duration = "1d"
    end: _Time | None = None
    arms: list[Annotated[ArmSection, BeforeValidator(_as_arm)]] = Field(
        default_factory=lambda: [ArmSection(name) for name in BUILT_IN_ARMS]
    )
    learner: str | None = None
    label_delay: _Duration | None = None
    ndcg_at: Annotated[int, Field(ge=1)] = 10
    within: Names = ()
    follow: str | int | None = None
    resamples: Annotated[int, Field(ge=0)] = 200
    seed: int = 0


@dataclass(frozen=True, config=_STRICT)
class Project:
    """A whole project file; ``folder`` is where it lies."""

    name: str
    folder: Path
    events: EventsSection
    learners: Annotated[dict[str, GLMixSection], Field(min_length=1)]
    replay: ReplaySection | None = None

    def learner(self, name: str | None = None) -> GLMixSection:
        """A learner by name; the only one without a name.

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


def load_project(path: str | Path, overrides: Sequence[str] = ()) -> Project:
    """Read, expand, override and check a project file.

    Args:
        path: the file.
        overrides: ``key=value`` texts; a key is a dotted path, a value is read as YAML.

    Raises:
        ConfigError: the file is absent or no YAML, a variable is not set, or a key or value is not allowed.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "give its path, or make one with 'acclimate data'"
        raise ConfigError(f"{path}: {error.strerror}", hint=hint) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no sections", hint="see the project file in the guide")
    for override in overrides:
        _override(content, override)
    try:
        return TypeAdapter(Project).validate_python(_assembled(_expanded(content), path.parent))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_error(error)}", hint=_hint(error)) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not (key and equals):
        raise ConfigError(f"'{override}' is no override", hint="write key=value, such as replay.every=6h")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            hint = "override the whole of it"
            raise ConfigError(f"'{parent}' in '{key}' is a value, not a section", hint=hint)
    try:
        section[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{override}': the value is no YAML: {_one_line(error)}") from error


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _expanded(value: Any, *place: str) -> Any:
    """The value, found at that place, with the variables in all of its texts expanded."""
    if isinstance(value, dict):
        return {key: _expanded(item, *place, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, *place, str(i)) for i, item in enumerate(value)]
    return _VARIABLE.sub(lambda match: _variable(match, place), value) if isinstance(value, str) else value


def _variable(match: re.Match[str], place: Sequence[str]) -> str:
    """As in a shell: the default also stands for an empty value."""
    name: str = match[1]
    default: str | None = match[2]
    value = os.environ.get(name) or default
    if value is None:
        state = "empty" if name in os.environ else "not set"
        raise ConfigError(
            f"{'.'.join(place)}: the environment variable {name} is {state}", hint=f"export {name}=..."
        )
    return value


def _assembled(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The file's sections in the form of :class:`Project`: features belong to the schema, paths to the folder."""
    content = dict(content)
    features = content.pop("features", None) or {}
    events = content.get("events")
    if "folder" in content:
        raise ConfigError("folder: unknown key", hint="it is where the project file lies")
    if isinstance(events, dict):
        if "features" in events:
            raise ConfigError("events.features: unknown key", hint="'features' is a section of its own")
        schema: dict[str, Any] = {key: value for key, value in events.items() if key != "path"}
        schema["features"] = features
        if isinstance(schema.get("tables"), dict):
            schema["tables"] = {name: _located(table, folder) for name, table in schema["tables"].items()}
        content["events"] = {"schema": schema}
        if "path" in events:
            content["events"]["path"] = _under(folder, events["path"])
    return {**content, "folder": folder}


def _located(table: Any, folder: Path) -> Any:
    if isinstance(table, dict) and "source" in table:
        return {**table, "source": _under(folder, table["source"])}
    return table


def _under(folder: Path, path: Any) -> Any:
    """A path or a list of them from the project's folder; what is neither is left to the check."""
    if isinstance(path, list):
        return [_under(folder, part) for part in path]
    return str(folder / path) if isinstance(path, str) else path


def _first(error: ValidationError) -> ErrorDetails:
    """The first error, but an unknown key before a missing one: it is often that one misspelt."""
    return min(error.errors(), key=lambda found: found["type"] != "unexpected_keyword_argument")


def _first_error(error: ValidationError) -> str:
    first = _first(error)
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    what = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{_place(first['loc'])}: {what.replace('Input should', 'should')}{more}"


def _hint(error: ValidationError) -> str:
    first = _first(error)
    if first["type"] != "unexpected_keyword_argument":
        return ""
    section, _, key = _place(first["loc"]).rpartition(".")
    return nearest(key, next(keys for pattern, keys in _KEYS.items() if re.fullmatch(pattern, section)))


def _place(loc: Sequence[int | str]) -> str:
    """Where in the file: the schema's keys are those of ``events``, but for the features."""
    if tuple(loc[:2]) == ("events", "schema"):
        loc = loc[2:] if tuple(loc[2:3]) == ("features",) else ("events", *loc[2:])
    return ".".join(map(str, loc))


_WORDS = {
    "unexpected_keyword_argument": "unknown key",
    "missing": "is missing",
    "dataclass_type": "should be a section of keys",
    "dict_type": "should be a section of keys",
    "mapping_type": "should be a section of keys",
    "list_type": "should be a list",
    "is_instance_of": "should be a name or a list of names",
    "too_short": "is empty",
}


def _names(record: Any, *others: str, without: str = "") -> Iterable[str]:
    return {*record.__dataclass_fields__, *others} - {without}


_KEYS = {
    "": _names(Project, "features", without="folder"),
    r"events(\.tables\..+)?\.time": _names(TimeColumn),
    r"events\.tables\..+": _names(EntityTable),
    "events": _names(Schema, "path", without="features"),
    r"features\..+": _names(Feature),
    r"learners\..+\.fixed": _names(FixedEffect),
    r"learners\..+\.random\..+": _names(RandomEffect),
    r"learners\..+": _names(GLMixSection),
    r"replay\.arms\..+": _names(ArmSection),
    "replay": _names(ReplaySection),
}
"""The keys of each section, by a pattern of its place."""
