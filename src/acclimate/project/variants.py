"""A project file with other values in it: tried, told as ``--set`` lines, and written as a file of its own."""

import copy
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acclimate.project.load import expanded, project_of, read_content
from acclimate.project.sections import Project
from acclimate.project.text import Content, Place


@dataclass(frozen=True)
class ProjectFile:
    """A project file as it was read, overrides included."""

    path: Path
    content: Content

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> "ProjectFile":
        """Read it; what is in it is checked by :meth:`project`.

        Raises:
            ConfigError: the file is absent or no YAML, or an override is none.
        """
        return cls(Path(path), read_content(Path(path), overrides))

    def project(self) -> Project:
        """Expanded and checked.

        Raises:
            ConfigError: a variable is not set, or a key or value is not allowed.
        """
        return project_of(self.content, self.path)

    def with_values(self, values: Mapping[Place, Any], origin: str) -> "ProjectFile":
        """The same with other values at some places; errors say that these are from ``origin``.

        Raises:
            ConfigError: a value is in the way of a place.
        """
        content = copy.deepcopy(self.content)
        for place, value in values.items():
            content.put(place, Content(copy.deepcopy(value), {(): origin}))
        return ProjectFile(self.path, content)

    def place(self, path: str) -> Place:
        """The keys of a dotted path; where a key has dots itself, the longest one that is there counts."""
        place: list[str] = []
        keys, section = path.split("."), self.content.value
        while keys:
            known = section if isinstance(section, Mapping) else {}
            count = next((n for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in known), 1)
            place.append(".".join(keys[:count]))
            section, keys = known.get(place[-1]), keys[count:]
        return tuple(place)

    def at(self, place: Place) -> Any:
        """What stands at a place, ``None`` where nothing does."""
        value = self.content.value
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def overrides(self, other: "ProjectFile", *, spelled: "ProjectFile") -> dict[Place, Any]:
        """What must be set in this file for what another one has; of ``spelled`` it differs in what was chosen.

        A section that is here in a short form, or whose keys have dots, is set as a whole.
        """
        return dict(_differences(self.content.value, spelled.content.value, other.content.value, ()))

    def moved(self, folder: Path) -> str:
        """The text of a file in another folder that says the same: relative paths lead where they led."""
        content: Any = copy.deepcopy(self.content.value)
        home = self.path.parent.resolve()
        if home != folder.resolve():
            _move(content, home)
        return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def set_options(overrides: Mapping[Place, Any]) -> str:
    """Overrides as ``--set`` options of a command line, quoted for a shell."""
    texts = (f"{'.'.join(place)}={_flow(value)}" for place, value in overrides.items())
    return " ".join(f"--set {shlex.quote(text)}" for text in texts)


def _flow(value: Any) -> str:
    """YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 30)
    return text.removesuffix("\n").removesuffix("\n...")


def _differences(before: Any, spelled: Any, after: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if after == spelled:
        return
    if _can_go_on(before, spelled, after):
        for key, value in after.items():
            yield from _differences(before.get(key), spelled.get(key), value, (*place, key))
    else:
        yield place, after


def _can_go_on(before: Any, spelled: Any, after: Any) -> bool:
    """Whether what differs can be set key by key."""
    if not all(isinstance(section, dict) for section in (before, spelled, after)):
        return False
    changed = (key for key in after if after[key] != spelled.get(key))
    return before.keys() <= after.keys() and all(isinstance(key, str) and _is_plain(key) for key in changed)


def _is_plain(key: str) -> bool:
    """Whether a dotted path can have it."""
    return "." not in key and "=" not in key


# --- paths of a file that moves -----------------------------------------------------------------------------


def _move(content: dict[str, Any], home: Path) -> None:
    """Make the relative paths of a project file absolute, in place."""
    events = content.get("events")
    if isinstance(events, dict):
        if "path" in events:
            events["path"] = _under(events["path"], home)
        tables = events.get("tables")
        for table in tables.values() if isinstance(tables, dict) else ():
            if isinstance(table, dict) and "source" in table:
                table["source"] = _under(table["source"], home)
    _move_python(content, home)


def _move_python(value: Any, home: Path) -> None:
    """The same of ``file.py:Name``, wherever an arm is made of one or a network."""
    if isinstance(value, list):
        for inner in value:
            _move_python(inner, home)
    elif isinstance(value, dict):
        for key, inner in value.items():
            is_code = isinstance(inner, str) and inner.rpartition(":")[0].endswith(".py")
            if key in ("python", "ranker") and is_code:
                value[key] = _under(inner, home)
            _move_python(inner, home)


def _under(path: Any, home: Path) -> Any:
    """A path or a list of them, from the folder of the file; variables stay as they are."""
    if isinstance(path, list):
        return [_under(part, home) for part in path]
    is_relative = isinstance(path, str) and "://" not in path and not Path(expanded(path, {})).is_absolute()
    return f"{home}/{path}" if is_relative and path else path
