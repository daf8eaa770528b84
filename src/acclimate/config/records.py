"""What all records that a user declares have in common: frozen, strict, with errors in one line."""

import functools
import inspect
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

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

from acclimate.errors import ConfigError, nearest, one_line, shortened
from acclimate.times import duration_us

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def in_place(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Our own errors as pydantic's kind, which knows where in a record or a file they are."""
    try:
        return check(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _check_duration(text: str) -> str:
    duration_us(text)
    return text


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([KMGT]?)(i?)B", re.IGNORECASE | re.ASCII)
_LEAST_SIZE, _LARGEST_SIZE = 16 * 10**6, 2**60


def size_bytes(text: str) -> int:
    """Bytes of a size such as ``"512MB"``, ``"4GB"`` or ``"1.5 GiB"``.

    Raises:
        ConfigError: the text is no number with such a unit, or reading events cannot do with so few bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"'{shortened(text)}' is no size", hint="write 512MB or 4GB")
    number, unit, binary = match.groups()
    size = float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " ")
    if size < _LEAST_SIZE:
        raise ConfigError(f"'{shortened(text)}' is too small", hint="16MB is the least, and 1GB a good start")
    if size > _LARGEST_SIZE:
        raise ConfigError(f"'{shortened(text)}' is too large", hint="write 512MB or 4GB")
    return int(size)


def _check_size(value: Any) -> str:
    size_bytes(str(value))
    return value


def _check_name(text: str) -> str:
    if not text.strip():
        raise ValueError("a name is empty")
    if one_line(text) != text:
        raise ValueError("a name has a line break or another control character")
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a name has {len(text):,} characters, more than {_LONGEST_NAME}")
    return text


_LONGEST_NAME = 200

Name = Annotated[str, AfterValidator(_check_name)]
"""What the user calls something, as reports and messages show it."""
Size = Annotated[str, BeforeValidator(_check_size), WrapValidator(in_place)]
NdcgAt = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Names = Annotated[Sequence[str], BeforeValidator(_as_tuple)]
Key = Annotated[Names, Field(min_length=1, max_length=4)]
"""An entity by role or column, or several: one entity for each combination of them."""
Duration = Annotated[str, AfterValidator(_check_duration), WrapValidator(in_place)]


def checked(name: str, kind: Any, value: Any) -> Any:
    """An argument as such a type has it.

    Raises:
        ConfigError: it is of another kind, or out of bounds.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        what = error.errors()[0]["msg"].replace("Input should", "should")
        if error.errors()[0]["type"] == "int_parsing_size":
            what = "is too large a number"
        raise ConfigError(f"{name} {shortened(repr(value))} {what}") from error


def in_our_words(record: type[T]) -> type[T]:
    """Let a record built in code raise :class:`ConfigError`.

    Records within records, or within a project, are not built by ``__init__``: their errors keep their place.
    """
    build = record.__init__
    parameters = inspect.signature(record).parameters.values()
    most = sum(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)

    @functools.wraps(build)
    def init(self: T, *values: Any, **named: Any) -> None:
        if len(values) > most:
            title = record.__name__.removesuffix("Parameters")
            raise TypeError(f"{title} takes {most} positional arguments but {len(values)} were given")
        try:
            build(self, *values, **named)
        except ValidationError as error:
            raise _told(record, error) from error

    record.__init__ = init
    return record


def _told(record: type, error: ValidationError) -> ConfigError:
    """The first of the errors, in one line: which record, where in it, what."""
    title = record.__name__.removesuffix("Parameters")  # as the user calls what it declares
    first = min(error.errors(), key=lambda details: details["type"] != "unexpected_keyword_argument")
    names = list(inspect.signature(record).parameters)
    place = [str(part) for part in first["loc"]]
    if place and place[0].isdigit() and int(place[0]) < len(names):  # given by position
        place[0] = names[int(place[0])]
    if first["type"] == "unexpected_keyword_argument" and len(place) == 1:
        return ConfigError(f"{title}: no argument '{place[0]}'", hint=nearest(place[0], names))
    what = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    where = f"{title}: {'.'.join(place)}: " if place else f"{title}: "
    return ConfigError(where + what.replace("Input should", "should"))
