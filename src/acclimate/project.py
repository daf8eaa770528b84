"""The project file: one YAML file describes a recommender, every command reads it.

Environment variables (``${NAME}``, ``${NAME:-default}``) expand in every text, relative paths start at the file's
folder, and ``key=value`` overrides go on top.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from acclimate.config import EntityTable, Feature, FixedEffect, Names, RandomEffect, Schema, TimeColumn
from acclimate.errors import ConfigError, nearest

_STRICT = ConfigDict(extra="forbid")

BUILT_IN_ARMS = ("stale", "incremental", "retrain", "fixed", "global-rate", "item-rate", "user-rate")


def _as_fixed(value: Any) -> Any:
    return value if isinstance(value, Mapping | FixedEffect) else {"features": value or ()}


def _as_random(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {entity: {"entity": entity, **(effect or {})} for entity, effect in value.items()}


def _as_arm(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True, config=_STRICT)
class EventsSection:
    """Where the events lie (a path, a glob, a folder, or several), and what they mean."""

    path: Names
    schema: Schema


@dataclass(frozen=True, config=_STRICT)
class GLMixSection:
    """A :class:`acclimate.GLMix`: ``fixed`` is a list of features or a FixedEffect, ``random`` maps entities."""

    kind: Literal["glmix"]
    fixed: Annotated[FixedEffect, BeforeValidator(_as_fixed)] = Field(default_factory=FixedEffect)
    random: Annotated[dict[str, RandomEffect], BeforeValidator(_as_random)] = Field(
        default_factory=dict[str, RandomEffect]
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
    regime: Literal["incremental", "stale", "retrain"] = "incremental"
    window: str | None = None
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


@dataclass(frozen=True, config=_STRICT)
class ReplaySection:
    """What :func:`acclimate.replay` is asked for; ``learner`` is the one behind the built-in arms."""

    start: Annotated[str, BeforeValidator(str)]
    every: str = "1d"
    end: Annotated[str, BeforeValidator(str)] | None = None
    arms: list[Annotated[ArmSection, BeforeValidator(_as_arm)]] = Field(
        default_factory=lambda: [ArmSection(name) for name in BUILT_IN_ARMS]
    )
    learner: str | None = None
    label_delay: str | None = None
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
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        hint = "give its path, or make one with 'acclimate data'"
        raise ConfigError(f"{path}: {error.strerror}", hint=hint) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no sections", hint="see the project file in the guide")
    for override in overrides:
        _override(content, override)
    try:
        return TypeAdapter(Project).validate_python(_assembled(_expanded(content), path.parent))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_error(error)}", hint=_hint(error)) from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not (key and equals):
        raise ConfigError(f"'{override}' is no override", hint="write key=value, such as replay.every=6h")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"'{parent}' in '{key}' is a value, not a section")
    section[last] = yaml.safe_load(value)


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _expanded(value: Any) -> Any:
    """The value with the variables in all of its texts expanded."""
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    default: str | None = match[2]
    value = os.environ.get(match[1], default)
    if value is None:
        raise ConfigError(f"the environment variable {match[1]} is not set", hint=f"export {match[1]}=...")
    return value


def _assembled(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The file's sections in the form of :class:`Project`: features belong to the schema, paths to the folder."""
    content = dict(content)
    features = content.pop("features", None) or {}
    events = content.get("events")
    if isinstance(events, dict):
        schema: dict[str, Any] = {key: value for key, value in events.items() if key != "path"}
        schema["features"] = features
        if isinstance(schema.get("tables"), dict):
            schema["tables"] = {name: _located(table, folder) for name, table in schema["tables"].items()}
        paths = events.get("path", ())
        paths = [paths] if isinstance(paths, str) else paths
        content["events"] = {"path": [_under(folder, path) for path in paths], "schema": schema}
    return {**content, "folder": folder}


def _located(table: Any, folder: Path) -> Any:
    if isinstance(table, dict) and "source" in table:
        return {**table, "source": _under(folder, table["source"])}
    return table


def _under(folder: Path, path: Any) -> Any:
    return str(folder / path) if isinstance(path, str) else path


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "schema").replace("events.features", "features")
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    what = (
        "is not known"
        if first["type"] == "unexpected_keyword_argument"
        else first["msg"].removeprefix("Value error, ")
    )
    return f"'{where}' {what}{more}" if what.startswith("is ") else f"'{where}': {what}{more}"


def _hint(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] != "unexpected_keyword_argument":
        return ""
    return nearest(str(first["loc"][-1]), _known_keys())


_RECORDS = (
    *(Project, EventsSection, Schema, TimeColumn, EntityTable, Feature),
    *(GLMixSection, FixedEffect, RandomEffect, ReplaySection, ArmSection),
)


def _known_keys() -> Iterator[str]:
    for record in _RECORDS:
        yield from record.__dataclass_fields__
