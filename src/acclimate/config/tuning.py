"""What ``acclimate tune`` tries: candidates for keys of the project file, as declared there or by default.

The defaults go by the names of fields, which mean the same wherever they stand, so that a new learner is tuned
without a word about it here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, PlainValidator, TypeAdapter, WrapValidator

from acclimate.config.records import Name, in_place
from acclimate.config.stacks import SomeLearner
from acclimate.times import duration_us

Place: TypeAlias = tuple[str, ...]
"""The keys that lead to a value of the project file, from the top."""

_DAY = 86_400_000_000
_RANGE = ("low", "high", "log")
_TUNED = ("learners", "features")


@dataclass(frozen=True)
class Range:
    """All between two numbers, or between two durations, which are tried on a logarithmic scale.

    ``whole``: whole numbers alone.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    days: bool = False

    def value(self, number: float) -> float | int | str:
        """What stands in the project file, to three significant digits."""
        if self.whole:
            return int(number)
        rounded = float(f"{min(max(float(f'{number:.3g}'), self.low), self.high):.12g}")
        return f"{rounded:g}d" if self.days else rounded

    def number(self, value: Any) -> float | None:
        """The number behind such a value; none if it is not in the range."""
        if self.days:
            number = duration_us(value) / _DAY if isinstance(value, str) else math.nan
        else:
            number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        return number if self.low <= number <= self.high else None


@dataclass(frozen=True)
class Choices:
    """The values themselves."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Setting:
    """A key that is tuned.

    ``declared``: its value as it is now; ``only_if``: the value of another one, without which it means nothing.
    """

    place: Place
    candidates: Range | Choices
    declared: Any = None
    only_if: tuple[Place, Any] | None = None

    @property
    def name(self) -> str:
        """Its path, as ``--set`` has it."""
        return ".".join(self.place)


def _as_candidates(value: Any) -> Range | Choices:
    """A list of values, or the keys of a range."""
    if isinstance(value, Range | Choices):
        return value
    if isinstance(value, list | tuple) and value:
        return Choices(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys() <= {*_RANGE}:
        raise ValueError("should be a list of values, or a range: {low: 0.1, high: 10, log: true}")
    return _range(value["low"], value["high"], value.get("log", False))


def _number(end: Any) -> Any:
    """YAML has it that 1e6, without a point, is text."""
    try:
        return float(end) if isinstance(end, str) else end
    except ValueError:
        return end


def _range(low: Any, high: Any, log: Any) -> Range:
    low, high = _number(low), _number(high)
    days = isinstance(low, str) and isinstance(high, str)
    numbers: list[Any] = [duration_us(end) / _DAY if days else end for end in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in numbers):
        raise ValueError(f"the ends of a range are two numbers or two durations, not {low} and {high}")
    if not isinstance(log, bool):
        raise ValueError(f"'log' is true or false, not {log}")
    if not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise ValueError(f"a range goes from a lower to a higher number, not from {low} to {high}")
    if log and numbers[0] <= 0:
        raise ValueError(f"a range on a logarithmic scale begins above 0, not at {low}")
    return Range(*numbers, log=log or days, days=days)


def _tuned(section: dict[str, Any]) -> dict[str, Any]:
    for path in section:
        if path.partition(".")[0] not in _TUNED or "." not in path:
            raise ValueError(f"'{path}' is no path to a key of a learner or a feature, as in learners.NAME.ridge")
    return section


Tuned = Annotated[
    dict[Name, Annotated[Any, PlainValidator(_as_candidates), WrapValidator(in_place)]],
    AfterValidator(_tuned),
]
"""The section ``tune``: by path, as ``--set`` has it, the candidates of a key."""


# --- by default ---------------------------------------------------------------------------------------------


def default_settings(
    record: Any, place: Place = (), only_if: tuple[Place, Any] | None = None
) -> Iterator[Setting]:
    """What is tuned of a learner by default, at places below that of its section.

    Ridges (those of random effects where no population is learned), rates and prior rows by a factor, half-lives
    or forgetting, the form of precision, whether populations are learned, and the features of each effect with one
    of them left out.
    """
    population = (*place, "learn_population")
    if hasattr(record, "learn_population"):
        yield Setting(population, Choices((True, False)), record.learn_population)
    for field in fields(record):
        value, here = getattr(record, field.name), (*place, field.name)
        below = (population, False) if field.name == "random" and hasattr(record, "learn_population") else only_if
        for inner, one in _records_in(value, here):
            yield from default_settings(one, inner, below)
        candidates = _usual(record, field.name, value)
        if candidates is not None:
            yield Setting(here, candidates, as_written(value), only_if if field.name == "ridge" else None)


def _records_in(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """The records that a value is, or holds by name."""
    if is_dataclass(value):
        yield place, value
    elif isinstance(value, Mapping):
        yield from (((*place, str(key)), one) for key, one in value.items() if is_dataclass(one))
    elif isinstance(value, tuple):
        yield from (((*place, one.called), one) for one in value if hasattr(one, "called"))


_FACTORS = {"ridge": 100.0, "embedding_ridge": 100.0, "prior_rows": 100.0, "rate": 10.0, "update_rate": 10.0}
_HALF_LIVES = (None, "3d", "7d", "14d", "30d", "90d")
_PRECISIONS = ("auto", "diagonal", "marginal")


def _usual(record: Any, name: str, value: Any) -> Range | Choices | None:
    """The candidates of a field, by its name."""
    if name in _FACTORS and isinstance(value, int | float):
        return Range(value / _FACTORS[name], value * _FACTORS[name], log=True)
    if name == "precision":
        return _choices(value, *_PRECISIONS)
    if name == "half_life" and getattr(record, "forgetting", 1.0) == 1.0:
        return _choices(value, *_HALF_LIVES)
    if name == "forgetting" and (value < 1.0 or not hasattr(record, "half_life")):
        return Range(min(0.8, value / 2), 1.0)
    if name == "features" and value and hasattr(record, "precision"):
        return _choices(tuple(value), *(tuple(n for n in value if n != left_out) for left_out in value))
    return None


def _choices(*values: Any) -> Choices:
    """Each once; lists as a project file has them."""
    return Choices(tuple(as_written(value) for value in dict.fromkeys(values)))


def as_written(value: Any) -> Any:
    """A value of a record as a project file has it: a sequence is a list."""
    return list(value) if isinstance(value, tuple) else value


# --- the places of keys in a section ------------------------------------------------------------------------


def declared_record(section: Mapping[str, Any]) -> Any:
    """The record of a learner's section, without the calibration beside its other keys."""
    plain = {key: value for key, value in section.items() if key != "calibrate"}
    return TypeAdapter(SomeLearner).validate_python(plain)


def declared_value(record: Any, place: Place) -> Any:
    """The value of a learner's key, defaults included; ``None`` where the record has no such key."""
    if not place:
        return record
    value = getattr(record, place[0], None)
    below = dict(_records_in(value, ()))
    if () in below:
        return declared_value(value, place[1:])
    if place[1:2] in below:
        return declared_value(below[place[1:2]], place[2:])
    if isinstance(value, Mapping) and len(place) == 2:
        return value.get(place[1])
    return value if len(place) == 1 else None


def spelled_out(section: Mapping[str, Any], record: Any) -> dict[str, Any]:
    """A learner's section in which each effect is a section of keys by its name, whatever short form it has."""
    spelled = dict(section)
    if isinstance(section.get("learner"), Mapping):
        spelled["learner"] = spelled_out(section["learner"], record.learner)
    if hasattr(record, "random") and "fixed" in section:
        spelled["fixed"] = _effect(section["fixed"])
    if hasattr(record, "random") and "random" in section:
        names = [effect.called for effect in record.random]
        spelled["random"] = dict(zip(names, _effects(section["random"], names), strict=True))
    return spelled


def _effect(told: Any) -> dict[str, Any]:
    return {k: v for k, v in told.items() if k != "name"} if isinstance(told, Mapping) else _features(told)


def _features(told: Any) -> dict[str, Any]:
    return {"features": [told] if isinstance(told, str) else list(told)} if told else {}


def _effects(told: Any, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The keys of each random effect; its name is that of its entity, or says whose it is."""
    if isinstance(told, Mapping):
        yield from map(_effect, told.values())
        return
    for name, one in zip(names, [told] if isinstance(told, str) else told or (), strict=True):
        yield _effect(one) if isinstance(one, Mapping) else {} if one == name else {"entity": one}
