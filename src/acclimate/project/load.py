"""From the text of a project file to its records: read, overridden, expanded, checked."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from acclimate.errors import ConfigError, shortened
from acclimate.project.places import Origins, first_error, wrong
from acclimate.project.sections import Project
from acclimate.project.text import MOST_LEVELS, Content, read_file, read_text
from acclimate.times import check_span

_OVERRIDE = "--set"


def load_project(path: str | Path, overrides: Sequence[str] = ()) -> Project:
    """Read, override, expand and check a project file.

    Args:
        path: the file.
        overrides: ``key=value`` texts; a key is a dotted path, a value is read as YAML.

    Raises:
        ConfigError: the file is absent or no YAML, a variable is not set, or a key or value is not allowed.
    """
    return project_of(read_content(Path(path), overrides), Path(path))


def read_content(path: Path, overrides: Sequence[str]) -> Content:
    """What a project file holds with its overrides, neither expanded nor checked.

    Raises:
        ConfigError: the file is absent or no YAML, or an override is none.
    """
    content = read_file(path)
    if not isinstance(content.value, dict):
        raise ConfigError(f"{path} holds no sections", hint="see the project file in the guide")
    for override in overrides:
        _override(content, override)
    return content


def project_of(content: Content, path: Path) -> Project:
    """The project of a file's content.

    Raises:
        ConfigError: a variable is not set, or a key or value is not allowed.
    """
    try:
        return parse_project(expanded(content.value, content.origins), path.parent, content.origins)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def parse_project(content: Mapping[str, Any], folder: Path, origins: Origins | None = None) -> Project:
    """The project of a file's content, which lies in ``folder``; errors name the origins of what is wrong.

    Raises:
        ConfigError: a key or value is not allowed.
    """
    origins = origins or {}
    assembled = _assembled(content, folder, origins)
    try:
        project = TypeAdapter(Project).validate_python(assembled)
    except ValidationError as error:
        raise first_error(error, assembled, origins) from error
    if project.replay is not None:
        try:
            check_span(project.replay.start, project.replay.end, project.events.schema.time.zone)
        except ConfigError as error:
            raise wrong(("replay", "end"), error.message, origins, error.hint) from error
    return project


def _override(content: Content, override: str) -> None:
    key, equals, value = override.partition("=")
    shown = shortened(override)
    if not (key and equals):
        raise ConfigError(f"'{shown}' is no override", hint="write key=value, such as replay.every=6h")
    place = tuple(key.split("."))
    if len(place) > MOST_LEVELS:
        raise ConfigError(f"'{shown}': the key is {len(place):,} levels deep", hint="a project file is not")
    try:
        new = read_text(value, _OVERRIDE, len(place))
    except ConfigError as error:
        raise ConfigError(f"'{shown}': {error.message}", hint=error.hint) from error
    content.put(place, new)


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expanded(value: Any, origins: Origins, *place: str) -> Any:
    """The value, found at that place, with the variables in all of its texts expanded."""
    if isinstance(value, dict):
        return {key: expanded(item, origins, *place, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, origins, *place, str(i)) for i, item in enumerate(value)]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, place, origins), value)
    return value


def _variable(match: re.Match[str], place: Sequence[str], origins: Origins) -> str:
    """As in a shell: the default also stands for an empty value."""
    name: str = match[1]
    default: str | None = match[2]
    value = os.environ.get(name) or default
    if value is None:
        state = "empty" if name in os.environ else "not set"
        raise wrong(place, f"the environment variable {name} is {state}", origins, f"export {name}=...")
    return value


def _assembled(content: Mapping[str, Any], folder: Path, origins: Origins) -> dict[str, Any]:
    """The file's sections in the form of :class:`Project`: features belong to the schema, paths to the folder."""
    content = dict(content)
    features = content.pop("features", None) or {}
    events = content.get("events")
    if isinstance(content.get("learners"), dict):
        content["learners"] = _with_rankers(content["learners"], folder)
    if isinstance(content.get("publish"), dict):
        content["publish"] = _with_places(content["publish"], folder)
    if "folder" in content:
        raise wrong(("folder",), "unknown key", origins, "it is where the project file lies")
    if isinstance(events, dict):
        if "features" in events:
            raise wrong(("events", "features"), "unknown key", origins, "'features' is a section of its own")
        schema: dict[str, Any] = {key: value for key, value in events.items() if key != "path"}
        schema["features"] = features
        if isinstance(schema.get("tables"), dict):
            schema["tables"] = {name: _located(table, folder) for name, table in schema["tables"].items()}
        content["events"] = {"schema": schema}
        if "path" in events:
            content["events"]["path"] = _under(folder, events["path"])
    if isinstance(stream := content.get("stream"), dict):
        content["stream"] = {**stream, "refused": _in_folder(folder, stream.get("refused", "refused"))}
        if isinstance(stream.get("source"), str):
            content["stream"]["source"] = _address(folder, stream["source"])
    return {**content, "folder": folder}


def _with_places(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Where spaces and values are, from the project's folder where that is a path."""
    places = {"spaces": _under, "store": _address}
    found = {
        key: place(folder, section[key]) for key, place in places.items() if isinstance(section.get(key), str)
    }
    return {**section, **found}


def _located(table: Any, folder: Path) -> Any:
    if isinstance(table, dict) and "source" in table:
        return {**table, "source": _under(folder, table["source"])}
    return table


def _with_rankers(section: Any, folder: Path) -> Any:
    """The section, with the rankers in it that are ``file.py:Name`` found from the project's folder, for good."""
    if not isinstance(section, dict):
        return section
    found = {key: _with_rankers(value, folder) for key, value in section.items()}
    ranker = found.get("ranker")
    file, _, name = ranker.rpartition(":") if isinstance(ranker, str) else ("", "", "")
    return {**found, "ranker": f"{(folder / file).resolve()}:{name}"} if file.endswith(".py") else found


def _under(folder: Path, path: Any) -> Any:
    """A path or a list of them from the project's folder; else, or an address, it is left to the checks."""
    if isinstance(path, list):
        return [_under(folder, part) for part in path]
    return str(folder / path) if path and isinstance(path, str) and "://" not in path else path


def _in_folder(folder: Path, path: Any) -> Any:
    """A path from the project's folder; one that is empty is none, and what is no text is left to the checks."""
    return (str(folder / path) if path else None) if isinstance(path, str) else path


_ON_THIS_MACHINE = ("log", "lmdb")
"""Schemes of addresses whose rest is a path."""


def _address(folder: Path, address: str) -> str:
    """An address, whose path on this machine is one from the project's folder, wherever that is named from."""
    scheme, mark, path = address.partition("://")
    return f"{scheme}://{(folder / path).resolve()}" if mark and scheme in _ON_THIS_MACHINE else address
