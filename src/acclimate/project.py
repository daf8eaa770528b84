"""The project file: one YAML file describes a recommender, every command reads it.

Environment variables (``${NAME}``, ``${NAME:-default}``) expand in every text, relative paths start at the file's
folder, and ``key=value`` overrides go on top.
"""

import datetime as dt
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from acclimate.config import (
    BUILT_IN_ARMS,
    LEARNERS,
    Duration,
    LearnerParameters,
    Names,
    Regime,
    Schema,
    record_of,
)
from acclimate.errors import ConfigError, nearest

_STRICT = ConfigDict(extra="forbid")


def _as_learner(section: Any) -> LearnerParameters:
    """The record of the section's kind; errors inside keep their place."""
    if type(section) in LEARNERS:
        return section
    if not isinstance(section, Mapping):
        raise PydanticCustomError("learner", "should be a section of keys")
    try:
        record: Any = record_of(str(section["kind"]))
    except KeyError:
        raise _at_key("kind", "is missing", section) from None
    except ConfigError as error:
        raise _at_key("kind", str(error), section) from error
    known = {field.name for field in fields(record)}
    if unknown := [str(key) for key in section if key not in known]:
        errors: Any = [{"type": "unexpected_keyword_argument", "loc": (key,), "input": section} for key in unknown]
        raise ValidationError.from_exception_data("learner", errors)
    return TypeAdapter(record).validate_python(section)


def _at_key(key: str, what: str, section: Any) -> ValidationError:
    # Braces in a message would be read as a template.
    error = PydanticCustomError("learner", "{what}", {"what": what})
    return ValidationError.from_exception_data("learner", [{"type": error, "loc": (key,), "input": section}])


def _as_arm(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_time(value: Any) -> Any:
    """YAML reads some times as dates; the rest must be ISO 8601."""
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"'{value}' is no time; write 2022-04-25 or 2022-04-25T18:00") from None
    return value


_Time = Annotated[str, BeforeValidator(_as_time)]
_Learner = Annotated[Any, PlainValidator(_as_learner)]


@dataclass(frozen=True, config=_STRICT)
class EventsSection:
    """Where the events lie (a path, a glob, a folder, or several), and what they mean."""

    path: Annotated[Names, Field(min_length=1)]
    schema: Schema


@dataclass(frozen=True, config=_STRICT)
class ArmSection:
    """One arm of the replay: a built-in one by its name alone, or one of your own.

    ``python`` is ``file.py:Name``, an object (or a class that makes one without arguments) with ``fit``,
    ``update`` and ``predict``; ``learner`` one of the project's. ``regime`` says when it learns, ``window`` on how
    much of the past a retrained one.
    """

    name: str
    regime: Regime | None = None
    window: Duration | None = None
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
    learners: Annotated[dict[str, _Learner], Field(min_length=1)]
    replay: ReplaySection | None = None

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
        return parse_project(_expanded(content), path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def parse_project(content: Mapping[str, Any], folder: Path) -> Project:
    """The project of a file's content, which lies in ``folder``.

    Raises:
        ConfigError: a key or value is not allowed.
    """
    assembled = _assembled(content, folder)
    try:
        return TypeAdapter(Project).validate_python(assembled)
    except ValidationError as error:
        raise ConfigError(_first_error(error, assembled), hint=_hint(error, assembled)) from error


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


def _assembled(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
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


# --- errors and their place in the file -----------------------------------------------------------------------


def _first(error: ValidationError) -> ErrorDetails:
    """The first error, but an unknown key before a missing one: it is often that one misspelt."""
    return min(error.errors(), key=lambda details: details["type"] != "unexpected_keyword_argument")


def _first_error(error: ValidationError, content: Any) -> str:
    first = _first(error)
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    what = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{_place(first['loc'], content)}: {what.replace('Input should', 'should')}{more}"


def _hint(error: ValidationError, content: Any) -> str:
    """For a key that is not known, the nearest one of its section."""
    first = _first(error)
    if first["type"] != "unexpected_keyword_argument":
        return ""
    *section, key = first["loc"]
    return nearest(str(key), _keys(_record_at(section, content)))


def _place(loc: Sequence[int | str], content: Any) -> str:
    """Where in the file: the schema's keys are those of ``events``, but for the features."""
    names: list[str] = []
    for part in loc:
        # What may be a mapping in the file is a sequence in a record, and its places are numbers there.
        if isinstance(part, int) and isinstance(content, Mapping) and part not in content:
            part = list(content)[part]
        names.append(str(part))
        content = _under_key(content, part)
    if names[:2] == ["events", "schema"]:
        names = names[2:] if names[2:3] == ["features"] else ["events", *names[2:]]
    return ".".join(names)


def _under_key(content: Any, key: int | str) -> Any:
    if isinstance(content, Mapping):
        return content.get(key) if key in content else None
    return content[key] if isinstance(content, list) and isinstance(key, int) and key < len(content) else None


def _record_at(loc: Sequence[int | str], content: Any) -> Any:
    """The record that declares the section at this place."""
    kind: Any = Project
    for part in loc:
        content = _under_key(content, part)
        # Of a record the type of the field, of a mapping that of its values, of a sequence that of its items.
        hints = get_type_hints(kind, include_extras=True) if is_dataclass(kind) else {}
        kind = _plain(hints.get(str(part)) or get_args(kind)[-1], content)
    return kind


def _plain(annotation: Any, content: Any) -> Any:
    """A type without what is said about it, optional or not; of a learner the record of its kind."""
    if annotation is _Learner:
        return record_of(content["kind"])
    alternatives = get_args(annotation)
    if get_origin(annotation) is Annotated or type(None) in alternatives:
        return _plain(alternatives[0], content)
    return annotation


def _keys(record: Any) -> Iterable[str]:
    """The keys of a section; the file has features beside the events, and knows where it lies itself."""
    names = {field.name for field in fields(record)}
    if record is Project:
        return names - {"folder"} | {"features"}
    return names - {"features"} | {"path"} if record is Schema else names


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
