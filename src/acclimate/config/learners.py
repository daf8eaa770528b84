"""The learners that a user may declare: one frozen record of each kind, and the table that makes them known.

The same record is a section of the project file, the arguments of the constructor and the parameters of the model.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Duration, Names, in_our_words, in_place
from acclimate.config.schema import Schema
from acclimate.errors import ConfigError, nearest

PrecisionKind = Literal["auto", "full", "diagonal", "marginal"]


def _in_reach(ridge: float) -> float:
    if not 1e-100 <= ridge <= 1e100:
        raise ValueError(f"{ridge:g} is out of reach: a ridge lies between 1e-100 and 1e100")
    return ridge


Ridge = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_reach)]


@in_our_words
@dataclass(frozen=True, config=STRICT)
class FixedEffect:
    """Coefficients that all rows share; an intercept is always among them.

    Args:
        features: names of features of the schema.
        ridge: prior precision of a standardised coefficient before any data, from 1e-100 to 1e100.
        forgetting: weight of the past at each update, in (0, 1]; what is forgotten returns to the prior.
        half_life: the same by elapsed time, such as ``"7d"``: a row counts half after that long, at ``fit`` too.
        precision: what is kept of the posterior precision ``H``: ``full``, its ``diagonal`` (the field's
            SIMPLE variance ``1/diag(H)``), or the ``marginal`` precisions ``1/diag(H^-1)`` (FULL variance).
            ``auto`` is ``full`` up to 512 features (32 in a random effect), else ``diagonal``.
    """

    features: Names = ()
    ridge: Ridge = 1.0
    forgetting: Annotated[float, Field(gt=0, le=1)] = 1.0
    half_life: Duration | None = None
    precision: PrecisionKind = "auto"

    def __post_init__(self) -> None:
        _check_effect(self.features, self.forgetting, self.half_life)


@in_our_words
@dataclass(frozen=True, config=STRICT)
class RandomEffect:
    """Coefficients of each entity's own, shrunk to a population that is learned from all entities.

    Args:
        entity: role or column of an entity of the schema.
        features: names of features; an intercept is always among the coefficients.
        min_rows: what an entity has learned counts once it has had this many rows, over fit and updates.
        max_rows: of an entity with more rows in a batch, a deterministic sample of this many stands for all in
            this effect; other effects learn from all of them.
        ridge: as in :class:`FixedEffect`; where the population starts before it is learned.
        forgetting: as in :class:`FixedEffect`.
        half_life: as in :class:`FixedEffect`, per entity, up to its last event.
        precision: as in :class:`FixedEffect`.
    """

    entity: str
    features: Names = ()
    min_rows: Annotated[int, Field(ge=1, lt=2**63)] = 1
    max_rows: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    ridge: Ridge = 1.0
    forgetting: Annotated[float, Field(gt=0, le=1)] = 1.0
    half_life: Duration | None = None
    precision: PrecisionKind = "auto"

    def __post_init__(self) -> None:
        _check_effect(self.features, self.forgetting, self.half_life)


def _check_effect(features: Sequence[str], forgetting: float, half_life: str | None) -> None:
    if len(set(features)) < len(features):
        raise ValueError(f"a feature is named twice in {', '.join(features)}")
    if half_life is not None and forgetting != 1.0:
        raise ValueError("'forgetting' is per update and 'half_life' by elapsed time: set one of them")


def _as_fixed(value: Any) -> Any:
    """A fixed effect may be told by its features alone."""
    return value if isinstance(value, Mapping | FixedEffect) else {"features": value or ()}


def _as_random(value: Any) -> Any:
    """Random effects may be a mapping from entities to their keys, or to their features, or a list of entities."""
    if value is None or isinstance(value, str):
        value = () if value is None else (value,)
    if not isinstance(value, Mapping):
        if not isinstance(value, Sequence):
            return value
        return tuple({"entity": one} if isinstance(one, str) else one for one in value)
    return tuple(
        effect if isinstance(effect, RandomEffect) else {"entity": entity, **_as_fixed(effect)}
        for entity, effect in value.items()
    )


def _one_of_each_entity(effects: Sequence[RandomEffect]) -> Sequence[RandomEffect]:
    entities = [effect.entity for effect in effects]
    if len(set(entities)) < len(entities):
        raise ValueError(f"two random effects of one entity in {entities}; put their features together")
    return tuple(effects)


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class GLMixParameters:
    """A :class:`acclimate.GLMix`: a fixed effect and any number of random effects, one joint model.

    Args:
        fixed: the coefficients that all rows share: a :class:`FixedEffect`, or just its features.
        random: coefficients per entity, one effect for each entity column; in a project file a mapping from
            entities to the keys of a :class:`RandomEffect`, or to its features.
        label: the label to predict; the schema's first without.
        learn_population: learn each random effect's population from all entities at ``fit`` (empirical Bayes);
            without, it stays at the ridge.
        tolerance: stop when the joint Newton decrement is this many posterior standard deviations.
        max_steps: Newton steps at most.
        states: what the states of entities are kept in; ``float32`` takes half the memory and rounds means and
            precisions to seven digits. Of these a raw feature costs twice as many as its mean has more than its
            spread: with a mean of a hundred spreads three are left, and where none is, learning is refused.
    """

    kind: Literal["glmix"] = "glmix"
    fixed: Annotated[FixedEffect, BeforeValidator(_as_fixed), WrapValidator(in_place)] = Field(
        default_factory=FixedEffect
    )
    random: Annotated[
        Sequence[Annotated[RandomEffect, WrapValidator(in_place)]],
        BeforeValidator(_as_random),
        AfterValidator(_one_of_each_entity),
    ] = ()
    label: str | None = None
    learn_population: bool = True
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    max_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 50
    states: Literal["float64", "float32"] = "float64"

    def shared_part(self) -> "GLMixParameters":
        """The same without what is of single entities."""
        return replace(self, random=())


@in_our_words
@dataclass(frozen=True, config=STRICT)
class GlobalRateParameters:
    """A :class:`acclimate.GlobalRate`: the rate of positive rows, said of every row.

    Args:
        label: of the schema; its first one by default.
    """

    label: str | None = None
    kind: Literal["global-rate"] = "global-rate"


@in_our_words
@dataclass(frozen=True, config=STRICT)
class RateParameters:
    """A :class:`acclimate.Rate`: the rate of positive rows of each entity, smoothed towards the rate of all.

    Args:
        entity: role or column of an entity of the schema.
        label: of the schema; its first one by default.
        prior_rows: how many rows at the rate of all an entity starts with.
    """

    entity: str
    label: str | None = None
    prior_rows: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    kind: Literal["rate"] = "rate"


# --- what makes them known ----------------------------------------------------------------------------------


class LearnerParameters(Protocol):
    """What every such record says."""

    @property
    def kind(self) -> str:
        """What project files and manifests call it."""
        ...

    @property
    def label(self) -> str | None:
        """The label to predict."""
        ...


LEARNERS: dict[type[Any], str] = {
    GLMixParameters: "acclimate.learners.glmix:GLMix",
    GlobalRateParameters: "acclimate.learners.rates:GlobalRate",
    RateParameters: "acclimate.learners.rates:Rate",
}
"""Every learner: the record that declares it, and the class that learns by it, imported when it is asked for."""


def record_of(kind: str) -> type[Any]:
    """The record of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds: dict[str, type[Any]] = {record.kind: record for record in LEARNERS}
    if kind not in kinds:
        raise ConfigError(f"no kind '{kind}' of learner", hint=nearest(kind, kinds))
    return kinds[kind]


def class_of(record: type[Any]) -> Any:
    """The class that learns by such a record."""
    module, _, name = LEARNERS[record].partition(":")
    return getattr(importlib.import_module(module), name)


# --- the arms that need no more than their name ---------------------------------------------------------------

Regime = Literal["stale", "incremental", "retrain"]
"""When an arm learns: never after its first fit, from each window, or anew from all of the past."""


def _shared_part(main: Any, _: Schema) -> Any:
    if not hasattr(main, "shared_part"):
        raise ConfigError(
            f"the arm 'fixed' is a learner's shared part alone, and one of kind '{main.kind}' has none",
            hint="leave the arm out",
        )
    return main.shared_part()


def _second_entity(schema: Schema) -> str:
    """The first one again where there is only one."""
    entities = list(schema.entities)
    return entities[min(1, len(entities) - 1)]


BASELINES: dict[str, Callable[[Any, Schema], LearnerParameters]] = {
    "fixed": _shared_part,
    "global-rate": lambda main, _: GlobalRateParameters(main.label),
    "item-rate": lambda main, schema: RateParameters(_second_entity(schema), main.label),
    "user-rate": lambda main, schema: RateParameters(next(iter(schema.entities)), main.label),
}
"""Arms that stand beside a learner: what declares each, given the learner's own record and the schema."""

BUILT_IN_ARMS = (*get_args(Regime), *BASELINES)
"""A learner in each regime, and the baselines."""


def arms_beside(main: LearnerParameters) -> tuple[str, ...]:
    """The built-in arms that go with a learner."""
    return tuple(name for name in BUILT_IN_ARMS if name != "fixed" or hasattr(main, "shared_part"))
