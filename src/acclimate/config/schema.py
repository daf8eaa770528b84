"""What the columns of an event log mean, and how they become features."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, WrapValidator
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Names, in_our_words, in_place
from acclimate.errors import ConfigError, nearest, shortened

Kind = Literal["numeric", "categorical", "multi", "embedding", "cross", "hour", "weekday"]
LabelKind = Literal["binary", "number", "count"]
TimeUnit = Literal["s", "ms", "us", "ns"]

LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
_KINDS_IN_WORDS: dict[LabelKind, str] = {"binary": "0 and 1", "count": "counts", "number": "numbers"}
_HINTS: dict[LabelKind, str] = {
    "binary": "take it out of its label_kinds",
    "number": "a glmix with loss: squared learns numbers; of what counts something say label_kinds: count",
    "count": "a glmix with loss: poisson or squared learns counts",
}
_MOST_CROSSED = 8


def _as_mapping(value: Any) -> Any:
    """``["user_id"]`` is short for ``{"user_id": "user_id"}``."""
    if isinstance(value, str):
        return {value: value}
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return value
    names = list(value)
    return {name: name for name in names} if all(isinstance(name, Hashable) for name in names) else names


def _check_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # a folder of zones, such as Europe, is no zone
        hint = nearest(zone, available_timezones())
        raise ConfigError(
            f"no time zone '{shortened(zone)}'", hint=hint or "write UTC or Europe/Berlin"
        ) from error
    return zone


@in_our_words
@dataclass(frozen=True, config=STRICT)
class TimeColumn:
    """The column that says when an event happened.

    ``unit`` is that of a number since 1970-01-01 UTC; without it the column must hold timestamps, dates or
    ISO 8601 text. ``zone`` is where days begin: windows, hours of the day and days of the week follow it, and
    times without a zone are read in it.
    """

    column: str
    unit: TimeUnit | None = None
    zone: Annotated[str, AfterValidator(_check_zone), WrapValidator(in_place)] = "UTC"


@in_our_words
@dataclass(frozen=True, config=STRICT)
class Feature:
    """How one or several columns become numbers.

    ``column`` defaults to the feature's name, ``kind`` to what the column's type suggests: floats are
    numeric, lists of text multi-valued, fixed-size lists of floats embeddings, all else categorical (integers
    too: in event logs they are codes more often than quantities).

    - ``numeric``: the value, after ``transform``.
    - ``categorical``: one column per level.
    - ``multi``: one column per level of a list, or of text cut at ``separator``.
    - ``embedding``: one column per position of a fixed-size list.
    - ``cross``: products of the columns of the features named in ``of``.
    - ``hour``, ``weekday``: of a time column, in the schema's zone; the event's own unless ``column`` is set.

    A missing value has a column of its own, ``<name> is missing``. ``buckets`` hashes the levels into that
    many columns; without it every level keeps its own name and number.
    """

    column: str | None = None
    kind: Kind | None = None
    transform: Literal["log1p"] | None = None
    separator: str | None = None
    of: Names = ()
    buckets: Annotated[int, Field(ge=2, le=2**24)] | None = None

    def __post_init__(self) -> None:
        if (self.kind == "cross") != bool(self.of) or (self.of and len(self.of) < 2):
            raise ValueError("'of' names the two or more features of a 'cross', and of nothing else")
        if self.transform and self.kind not in (None, "numeric"):
            raise ValueError(f"'transform' is for numeric features, not for {self.kind}")
        if self.separator is not None and self.kind not in (None, "multi"):
            raise ValueError(f"'separator' is for multi-valued features, not for {self.kind}")
        if self.separator == "":
            raise ValueError("'separator' is empty")
        if self.buckets and self.kind in ("numeric", "embedding", "cross", "hour", "weekday"):
            raise ValueError(f"'buckets' is for categorical and multi-valued features, not for {self.kind}")


@in_our_words
@dataclass(frozen=True, config=STRICT)
class EntityTable:
    """What is known of an entity: one row per ``key``, or one per ``key`` and ``time``.

    ``source`` is a path, a glob, a folder or an Arrow-speaking frame. With ``time`` the row in force at the
    event is joined (the last one at or before it); without, the one row there is.
    Its columns are named ``<table>.<column>``.
    """

    source: Any
    key: str
    time: TimeColumn | None = None


@in_our_words
@dataclass(frozen=True, config=STRICT)
class Schema:
    """What the columns of an event log mean.

    ``entities`` names the things that events are about (role to column; a list gives both one name), most
    important first: per-entity metrics and cohorts go by the first, comparisons by the first two. Labels
    are 0, 1 or null (not known), but for those of another kind in ``label_kinds``: a ``number`` such as a rating,
    or a ``count`` (0, 1, 2, ...). ``weight`` counts a row several times, ``offset`` is a known part of the margin
    (logit, number, logarithm of an expected count), and ``truth`` is a true probability or expected label, where a
    simulator knows one.
    """

    time: Annotated[TimeColumn, BeforeValidator(lambda v: TimeColumn(v) if isinstance(v, str) else v)]
    entities: Annotated[dict[str, str], BeforeValidator(_as_mapping), Field(min_length=1)]
    labels: Annotated[Names, Field(min_length=1)]
    weight: str | None = None
    offset: str | None = None
    truth: str | None = None
    features: dict[str, Feature] = Field(default_factory=dict)
    tables: dict[str, EntityTable] = Field(default_factory=dict)
    duplicates: Literal["keep", "drop"] = "keep"
    label_kinds: dict[str, LabelKind] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.label_kinds if name not in self.labels]:
            raise ValueError(f"'label_kinds' has '{unknown[0]}', which is none of the labels")
        self._check_parts()
        for name in self.features:
            self._crossed(name, ())
            self.feature_columns(name)

    def entity_column(self, name: str) -> str:
        """The column of an entity given by role, by column (of a table ``<table>.<column>``), or by feature.

        A feature is one if it is declared ``categorical``.

        Raises:
            ConfigError: there is no such entity.
        """
        if name in self.entities:
            return self.entities[name]
        if name in self.entities.values() or any(name.startswith(f"{table}.") for table in self.tables):
            return name
        if name in self.features and self.features[name].kind == "categorical":
            return self.features[name].column or name
        raise ConfigError(f"no entity '{name}' in the schema", hint=nearest(name, self.entities))

    def label(self, name: str | None = None, *, kinds: Sequence[LabelKind] = ("binary",)) -> str:
        """The label of that name, the first one without a name; one of these kinds.

        Raises:
            ConfigError: there is no such label, or it is of another kind.
        """
        if name is not None and name not in self.labels:
            raise ConfigError(f"no label '{name}' in the schema", hint=nearest(name, self.labels))
        name = name or self.labels[0]
        if (kind := self.label_kind(name)) not in kinds:
            raise ConfigError(
                f"label '{name}' is a {kind}, and what is to learn or use it takes {_KINDS_IN_WORDS[kinds[-1]]}",
                hint=_HINTS[kind],
            )
        return name

    def label_kind(self, name: str) -> LabelKind:
        """What a label is: ``binary``, a ``number`` or a ``count``."""
        return self.label_kinds.get(name, "binary")

    @property
    def binary_labels(self) -> tuple[str, ...]:
        """Those of 0 and 1."""
        return tuple(name for name in self.labels if self.label_kind(name) == "binary")

    def feature(self, name: str) -> Feature:
        """The feature of that name: declared, built in (``hour``, ``weekday``), or the column of that name."""
        if name in self.features:
            return self.features[name]
        return Feature(kind=name) if name in ("hour", "weekday") else Feature()

    def _crossed(self, name: str, within: tuple[str, ...]) -> int:
        """How many features are multiplied in the end: crosses of crosses would grow without bound."""
        if name in within:
            raise ValueError(f"the cross '{name}' is made of itself")
        count = 0
        for part in self.feature(name).of:
            count += self._crossed(part, (*within, name)) if len(within) < _MOST_CROSSED else _MOST_CROSSED
            if count > _MOST_CROSSED:
                raise ValueError(
                    f"the cross '{(*within, name)[0]}' multiplies more than {_MOST_CROSSED} features,"
                    " those of the crosses in it counted: take some out"
                )
        return max(count, 1)

    def _check_parts(self) -> None:
        """A column plays one part; only entities may share theirs."""
        parts = [("the time", self.time.column)]
        parts += [("an entity", column) for column in dict.fromkeys(self.entities.values())]
        parts += [("a label", column) for column in self.labels]
        others = {"the weight": self.weight, "the offset": self.offset, "the truth": self.truth}
        parts += [(part, column) for part, column in others.items() if column is not None]
        seen: dict[str, str] = {}
        for part, column in parts:
            if column in seen:
                both = f"{part} twice" if part == seen[column] else f"both {seen[column]} and {part}"
                raise ConfigError(f"schema: column '{column}' is {both}", hint="name it once")
            seen[column] = part

    def feature_columns(self, name: str) -> tuple[str, ...]:
        """The event columns that the feature is made of.

        Raises:
            ConfigError: one of them is a label, the weight or the truth.
        """
        columns = self._columns_of(name)
        for part, named in (
            ("a label", self.labels),
            ("the weight", (self.weight,)),
            ("the truth", (self.truth,)),
        ):
            if leaked := [column for column in columns if column in named]:
                raise ConfigError(
                    f"feature '{name}' is made of column '{leaked[0]}', {part} of the schema",
                    hint="it is not known when a prediction is asked for: take the feature out",
                )
        return columns

    def _columns_of(self, name: str) -> tuple[str, ...]:
        feature = self.feature(name)
        if feature.kind == "cross":
            return tuple(dict.fromkeys(c for part in feature.of for c in self._columns_of(part)))
        if feature.kind in ("hour", "weekday"):
            return (feature.column or self.time.column,)
        return (feature.column or name,)

    def content(self) -> dict[str, Any]:
        """All that decides how events are encoded, as JSON holds it; where they lie is left out."""
        content = TypeAdapter(Schema).dump_python(self, exclude={"tables": {"__all__": {"source"}}}, mode="json")
        if not self.label_kinds:  # as it was before there were any
            del content["label_kinds"]
        return content

    def fingerprint(self) -> str:
        """A hash of :meth:`content`."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:16]
