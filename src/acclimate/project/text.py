"""YAML of bounded size and depth, as plain values; each knows the line it is from.

A project file needs little of YAML. What could make it endless, ambiguous or a program is refused: recursion, an
explosion of aliases, a key that is there twice, tags.
"""

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from acclimate.errors import ConfigError, shortened

_MOST_BYTES = 500_000
_MOST_VALUES = 50_000
MOST_LEVELS = 50
_LONGEST_NUMBER = 100
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")

Place = tuple[str, ...]
"""The keys that lead to a value, from the top; the positions in a list are among them."""


@dataclass
class Content:
    """What a text holds, and where the value of each place is from, such as ``line 3``."""

    value: Any
    origins: dict[Place, str] = field(default_factory=dict[Place, str])

    def put(self, place: Place, other: "Content") -> None:
        """Let other content stand at a place below the top, in new sections where there are none.

        Raises:
            ConfigError: a value is in the way.
        """
        section = self.value
        for depth, key in enumerate(place[:-1], 1):
            if section.get(key) is None:
                section[key] = {}
                self.origins[place[:depth]] = other.origins[()]
            section = section[key]
            if not isinstance(section, dict):
                raise ConfigError(
                    f"'{key}' in '{'.'.join(place)}' is a value, not a section", hint="override the whole of it"
                )
        section[place[-1]] = other.value
        below = [at for at in self.origins if at[: len(place)] == place]
        for at in below:
            del self.origins[at]
        self.origins |= {(*place, *at): origin for at, origin in other.origins.items()}


def read_file(path: Path) -> Content:
    """The content of a YAML file.

    Raises:
        ConfigError: there is no such file, or it is not YAML as a project file has it.
    """
    data = _bytes(path)
    try:
        return read_text(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: is no YAML: {error}", hint="save it as UTF-8") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def read_text(text: str, origin: str = "", level: int = 0) -> Content:
    """The content of a text; all of it is from ``origin``, or else from its lines.

    Args:
        text: YAML.
        origin: what errors call the place of its values.
        level: how deep in a file it stands.

    Raises:
        ConfigError: it is no YAML, or not as a project file has it.
    """
    try:
        loader = _Loader(text)
        try:
            walk = _Walk(loader, origin)
            node: Any = loader.get_single_node()
            value = walk.value(node, (), level) if node else None
            return Content(value, {(): origin, **walk.origins})
        finally:
            loader.dispose()
    except _Refused as error:
        raise _placed(error.node.start_mark.line, error.what, origin, error.hint) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _placed(mark.line if mark else 0, f"is no YAML: {_reasons(error)}", origin) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise _placed(line, "is no YAML: a control character", origin, "take it out") from error


def _placed(line: int, what: str, origin: str, hint: str = "") -> ConfigError:
    """Counted from 0, as YAML does; a text that is not of a file has an origin, and no lines."""
    return ConfigError(what if origin else f"line {line + 1}: {what}", hint=hint)


def _bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "is a folder" if stat.S_ISDIR(mode) else "is no file that ends, but a pipe or a device"
            raise ConfigError(f"{path}: {what}", hint="give the path of a project file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: {what}", hint="give its path, or make one with 'acclimate data'") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"{path} has more than {_MOST_BYTES:,} bytes and is no project file",
            hint="the events themselves belong into files of their own",
        )
    return data


def _reasons(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)


class _Refused(Exception):  # noqa: N818  never leaves this module
    """YAML, but not as a project file has it."""

    def __init__(self, node: Any, what: str, hint: str) -> None:
        super().__init__(what)
        self.node, self.what, self.hint = node, what, hint


class _Loader(yaml.SafeLoader):
    """Its recursion is bounded."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.level += 1
        if self.level > MOST_LEVELS + 1:
            raise _Refused(self.peek_event(), *_TOO_DEEP)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


_TOO_DEEP = (f"more than {MOST_LEVELS} levels deep, or within itself", "a project file has six levels at most")


@dataclass
class _Walk:
    """From composed nodes to plain values; aliases are written out, and counted as often as they are used."""

    loader: _Loader
    origin: str
    origins: dict[Place, str] = field(default_factory=dict[Place, str])
    values: int = 0

    def value(self, node: yaml.Node, place: Place, level: int) -> Any:
        self.values += 1
        if self.values > _MOST_VALUES:
            what = f"more than {_MOST_VALUES:,} values, those of aliases counted where they are used"
            raise _Refused(node, what, "use fewer aliases")
        if level > MOST_LEVELS:
            raise _Refused(node, *_TOO_DEEP)
        self.origins.setdefault(place, self._origin(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place, level)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, (True, False))
            return [self.value(item, (*place, str(i)), level + 1) for i, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, place: Place, level: int) -> dict[Any, Any]:
        self._check_tag(node, (True, False))
        lines: dict[Any, int] = {}
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, place, level + 1), **merged}
                continue
            key = self._key(key_node)
            if key in lines:
                what = f"the key '{shortened(str(key))}' is there twice, first in line {lines[key]}"
                raise _Refused(key_node, what, "take one of them out")
            lines[key] = key_node.start_mark.line + 1
            self.origins[*place, str(key)] = self._origin(key_node)
            own[key] = self.value(value_node, (*place, str(key)), level + 1)
        return {**merged, **own}

    def scalar(self, node: Any) -> Any:
        quoted = bool(node.style)
        self._check_tag(node, (not quoted, quoted))
        text = self._checked(node)
        if node.tag != _TEXT and len(text) > _LONGEST_NUMBER:
            raise _Refused(node, f"a number of {len(text):,} characters", "write it shorter, or as text in quotes")
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            what = f"'{text}' is no number and no time: {error}"
            raise _Refused(node, what, "correct it, or put text into quotes") from error

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise _Refused(node, "a key that is a list or a section", "a key is a word")
        return self.scalar(node)

    def _merged(self, node: yaml.Node, place: Place, level: int) -> dict[Any, Any]:
        """What ``<<`` takes over from an alias or a list of them; the first one counts."""
        merged: dict[Any, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(part, yaml.MappingNode):
                raise _Refused(part, "'<<' takes over what is no section", "give it an alias of a section")
            merged = {**self.value(part, place, level), **merged}
        return merged

    def _checked(self, node: yaml.Node) -> str:
        if _FORBIDDEN.search(node.value):
            raise _Refused(node, "a text with a NUL or half a surrogate pair", "take it out")
        return node.value

    def _check_tag(self, node: yaml.Node, implicit: tuple[bool, bool]) -> None:
        if node.tag != self.loader.resolve(type(node), node.value, implicit):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise _Refused(node, f"the tag '{shortened(tag)}'", "a project file has no tags: put text into quotes")

    def _origin(self, node: yaml.Node) -> str:
        return self.origin or f"line {node.start_mark.line + 1}"
