"""Errors of a project's records, in one line: which line of the file, which key, what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from acclimate.config import Schema, SomeLearner, record_of
from acclimate.errors import ConfigError, nearest, shortened
from acclimate.project.sections import Project
from acclimate.project.text import Place

Origins = Mapping[Place, str]


def wrong(place: Sequence[str], what: str, origins: Origins, hint: str = "") -> ConfigError:
    """The error that something is wrong at a place, or at the last one on the way there that has an origin."""
    keys = tuple(place)
    known = next((origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins), "")
    parts = [*([known] if known else []), shortened(".".join(keys)), shortened(what, 500)]
    return ConfigError(": ".join(parts), hint=hint)


def first_error(error: ValidationError, content: Any, origins: Origins) -> ConfigError:
    """The first of the errors, and how many more there are."""
    first = _first(error)
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    what = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    what = shortened(what.replace("Input should", "should"), 500) + more
    return wrong(_place(first["loc"], content), what, origins, _hint(error, content))


def _first(error: ValidationError) -> ErrorDetails:
    """The first error, but an unknown key before a missing one: it is often that one misspelt."""
    return min(error.errors(), key=lambda details: details["type"] != "unexpected_keyword_argument")


def _hint(error: ValidationError, content: Any) -> str:
    """For a key that is not known, the nearest one of its section."""
    first = _first(error)
    if first["type"] != "unexpected_keyword_argument":
        return ""
    *section, key = first["loc"]
    return nearest(str(key), _keys(_record_at(section, content)))


def _place(loc: Sequence[int | str], content: Any) -> list[str]:
    """Where in the file: the schema's keys are those of ``events``, but for the features."""
    names: list[str] = []
    for part in loc:
        if part == "[key]":  # the key itself is wrong, not its value
            continue
        # What may be a mapping in the file is a sequence in a record, and its places are numbers there.
        if isinstance(part, int) and isinstance(content, Mapping) and part not in content:
            part = list(content)[part]
        names.append(str(part))
        content = _under_key(content, part)
    if names[:2] == ["events", "schema"]:
        names = names[2:] if names[2:3] == ["features"] else ["events", *names[2:]]
    return names


def _under_key(content: Any, key: int | str) -> Any:
    if isinstance(content, Mapping):
        return content.get(key)
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
    if annotation is SomeLearner:
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
    "int_parsing_size": "is too large a number",
}
