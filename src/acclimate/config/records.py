"""What all records that a user declares have in common: frozen, strict, with errors in one line."""

import functools
import inspect
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from acclimate.errors import ConfigError, nearest
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


Names = Annotated[Sequence[str], BeforeValidator(_as_tuple)]
Duration = Annotated[str, AfterValidator(_check_duration), WrapValidator(in_place)]


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
