"""The learners that a user may declare, but for those on top of others: one frozen record of each kind.

The same record is a section of the project file, the arguments of the constructor and the parameters of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    WrapValidator,
)
from pydantic.dataclasses import dataclass

from acclimate.config.records import STRICT, Duration, Key, Name, Names, in_our_words, in_place
from acclimate.config.schema import LABEL_KINDS, LabelKind
from acclimate.config.training import Training

PrecisionKind = Literal["auto", "full", "diagonal", "marginal"]
SupportKind = Literal["all", "observed"]
LossKind = Literal["logistic", "squared", "poisson"]


def _in_reach(ridge: float) -> float:
    if not 1e-100 <= ridge <= 1e100:
        raise ValueError(f"{ridge:g} is out of reach: a ridge lies between 1e-100 and 1e100")
    return ridge


Ridge = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_reach)]


def _as_learnable(value: Any) -> Any:
    """One error of a wrong number, in the words of a ridge, and not one of each kind that it could be."""
    return value if value == "learned" else TypeAdapter(Ridge).validate_python(value)


LearnableRidge = Annotated[float | Literal["learned"], PlainValidator(_as_learnable)]
NetworkRidge = Annotated[float, Field(ge=1e-12, le=1e12)]  # of single precision


@in_our_words
@dataclass(frozen=True, config=STRICT)
class FixedEffect:
    """Coefficients that all rows share; an intercept is always among them.

    Args:
        features: names of features of the schema.
        ridge: prior precision of a standardised coefficient before any data, from 1e-100 to 1e100; with squared
            loss in units of the variance of the labels of the fit. ``learned``: one for each feature (all of its
            levels, or of an embedding's numbers, together) is learned at ``fit`` by empirical Bayes, and kept.
        forgetting: weight of the past at each update, in (0, 1]; what is forgotten returns to the prior.
        half_life: the same by elapsed time, such as ``"7d"``: a row counts half after that long, at ``fit`` too.
        adaptive: keep less of the past at an update whose rows are more likely then, beyond what chance makes of
            them; times what ``forgetting`` or ``half_life`` keep.
        precision: what is kept of the posterior precision ``H``: ``full``, its ``diagonal`` (the field's
            SIMPLE variance ``1/diag(H)``), or the ``marginal`` precisions ``1/diag(H^-1)`` (FULL variance).
            ``auto`` is ``full`` up to 512 features (32 in a random effect), else ``diagonal``.
        ridges: the ridge of single features, by name, where it is another one. Beside those that are learned they
            are their usual size, relative to 1.
    """

    features: Names = ()
    ridge: LearnableRidge = 1.0
    forgetting: Annotated[float, Field(gt=0, le=1)] = 1.0
    half_life: Duration | None = None
    adaptive: bool = False
    precision: PrecisionKind = "auto"
    ridges: dict[str, Ridge] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_effect(self.features, self.forgetting, self.half_life, self.ridges)


@in_our_words
@dataclass(frozen=True, config=STRICT)
class RandomEffect:
    """Coefficients of each entity's own, shrunk to a population that is learned from all entities.

    Args:
        entity: role or column of an entity of the schema, or a column of an entity table, such as
            ``video.author_id``, whose value as of the event is the id; a list of several, such as
            ``["user", "tab"]``, is one entity for each combination of them. Rows without an id are predicted like
            those of an entity never seen, and teach the other effects alone.
        features: names of features; an intercept is always among the coefficients.
        min_rows: what an entity has learned counts once it has had this many rows, over fit and updates.
        max_rows: of an entity with more rows in a batch, a deterministic sample of this many stands for all in
            this effect; other effects learn from all of them.
        ridge: as in :class:`FixedEffect`; what entities are shrunk to where no population is learned, and where
            features start that come with an update.
        forgetting: as in :class:`FixedEffect`.
        half_life: as in :class:`FixedEffect`, per entity, up to its last event.
        adaptive: as in :class:`FixedEffect`, per entity: how many there are that change is learned from all.
        precision: as in :class:`FixedEffect`.
        ridges: as in :class:`FixedEffect`; of a population that is learned their ratios to ``ridge`` shape the
            prior.
        support: which coefficients an entity has: ``all`` that there are, or those of features ``observed`` in its
            own rows, for features of very many levels. The population and the ridge are then diagonal, and say the
            rest: predictions are the same as with all and such a population. ``auto`` is then ``full`` up to 64
            features of an entity; ``full`` and ``marginal`` hold up to 512, beyond which it is its ``diagonal``.
        name: what the effect is called; its key in a project file, the entity (``user x tab``) without.
    """

    entity: Key
    features: Names = ()
    min_rows: Annotated[int, Field(ge=1, lt=2**63)] = 1
    max_rows: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    ridge: Ridge = 1.0
    forgetting: Annotated[float, Field(gt=0, le=1)] = 1.0
    half_life: Duration | None = None
    adaptive: bool = False
    precision: PrecisionKind = "auto"
    ridges: dict[str, Ridge] = Field(default_factory=dict)
    support: SupportKind = "all"
    name: Name | None = None

    def __post_init__(self) -> None:
        _check_effect(self.features, self.forgetting, self.half_life, self.ridges)
        if self.adaptive and self.support == "observed":
            raise ValueError("'adaptive' is of entities that hold all coefficients: it goes with 'support: all'")

    @property
    def called(self) -> str:
        """Its name, or its entity."""
        return self.name or " x ".join(self.entity)


def _check_effect(
    features: Sequence[str], forgetting: float, half_life: str | None, ridges: Mapping[str, float]
) -> None:
    if len(set(features)) < len(features):
        raise ValueError(f"a feature is named twice in {', '.join(features)}")
    if half_life is not None and forgetting != 1.0:
        raise ValueError("'forgetting' is per update and 'half_life' by elapsed time: set one of them")
    if unknown := [name for name in ridges if name not in features]:
        raise ValueError(f"'ridges' has '{unknown[0]}', which is none of its features")


def _as_fixed(value: Any) -> Any:
    """A fixed effect may be told by its features alone."""
    return value if isinstance(value, Mapping | FixedEffect) else {"features": value or ()}


def _as_random(value: Any) -> Any:
    """Random effects may be a mapping from names or entities to keys, or to features, or a list of entities."""
    if value is None or isinstance(value, str):
        value = () if value is None else (value,)
    if not isinstance(value, Mapping):
        if not isinstance(value, Sequence):
            return value
        return tuple({"entity": one} if isinstance(one, str | list | tuple) else one for one in value)
    return tuple(_as_named(name, effect) for name, effect in value.items())


def _as_named(name: str, effect: Any) -> Any:
    """A random effect by its name, which is that of its entity where it does not say more."""
    if isinstance(effect, RandomEffect):
        return effect if name == effect.called else replace(effect, name=name)
    keys = _as_fixed(effect)
    return {"entity": name, **keys} if keys.get("entity", name) == name else {"name": name, **keys}


def _of_different_names(effects: Sequence[RandomEffect]) -> Sequence[RandomEffect]:
    names = ["fixed", *(effect.called for effect in effects)]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(
            f"two effects are called '{twice[0]}'; put their features together, or give one of them a 'name'"
        )
    return tuple(effects)


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class GLMixParameters:
    """A :class:`acclimate.GLMix`: a fixed effect and any number of random effects, one joint model.

    Args:
        fixed: the coefficients that all rows share: a :class:`FixedEffect`, or just its features.
        random: coefficients per entity, in one effect or in several; in a project file a mapping from entities or
            names to the keys of a :class:`RandomEffect`, or to its features.
        label: the label to predict; the schema's first without.
        loss: what the label is to the margin ``z``: ``logistic`` for 0 and 1, whose probability is ``sigmoid(z)``;
            ``squared`` for numbers such as ratings, ``z`` and normal noise; ``poisson`` for counts of the mean
            ``exp(z)``.
        noise: the variance of the noise around numbers; of counts their variance over their mean, 1 by a Poisson
            law. Learned from the rows without, in fits and updates.
        offset: name of a learner whose logit (prediction of a squared, its logarithm of a Poisson loss) is a known
            part of this one's: a member of its :class:`acclimate.Stack`, or another learner of the project.
        learn_population: learn each random effect's population from all entities at ``fit`` (empirical Bayes) and
            refresh it in ``update``; without, it stays at the ridge.
        approximation: the Gaussian that stands for a posterior: ``laplace`` lies at the mode; ``variational`` is
            nearest to it all (Gaussian variational approximation), nearer its mean where entities have few rows,
            for predictions that are integrated and for many small updates.
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
        AfterValidator(_of_different_names),
    ] = ()
    label: str | None = None
    loss: LossKind = "logistic"
    noise: Annotated[float, Field(ge=1e-100, le=1e100)] | None = None
    offset: str | None = None
    learn_population: bool = True
    approximation: Literal["laplace", "variational"] = "laplace"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    max_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 50
    states: Literal["float64", "float32"] = "float64"

    def __post_init__(self) -> None:
        if self.noise is not None and self.loss == "logistic":
            raise ValueError("'noise' is of numbers and counts, and the loss is 'logistic'")

    @property
    def label_kinds(self) -> tuple[LabelKind, ...]:
        """The kinds of labels that the loss goes with."""
        kinds: dict[LossKind, tuple[LabelKind, ...]] = {
            "logistic": ("binary",),
            "poisson": ("binary", "count"),
            "squared": LABEL_KINDS,
        }
        return kinds[self.loss]

    def shared_part(self) -> "GLMixParameters":
        """The same without what is of single entities."""
        return replace(self, random=())

    def feature_names(self) -> tuple[str, ...]:
        """The features of all effects, each once."""
        effects = (self.fixed, *self.random)
        return tuple(dict.fromkeys(name for effect in effects for name in effect.features))


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
        entity: role or column of an entity of the schema, or a column of an entity table; rows without an id count
            for the rate of all alone, and are predicted at it.
        label: of the schema; its first one by default.
        prior_rows: how many rows at the rate of all an entity starts with.
    """

    entity: str
    label: str | None = None
    prior_rows: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    kind: Literal["rate"] = "rate"


def _as_widths(value: Any) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{value} is no list of widths: write [{value}]")
    return value


Widths = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=65_536)]], BeforeValidator(_as_widths), AfterValidator(tuple)
]


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class SequentialLaplaceParameters:
    """A :class:`acclimate.SequentialLaplace`: a network that learns from new rows alone, anchored to what it knew.

    Args:
        features: names of features of the schema; numbers are standardised, names have embeddings.
        ranker: ``logistic``, ``mlp``, ``wide-and-deep``, ``deepfm``, ``dcn-v2``, or ``package.module:Name`` of
            what makes a ``torch.nn.Module`` of :class:`acclimate.models.rankers.Sizes`, whose ``forward`` takes
            :class:`acclimate.models.rankers.Inputs` and gives logits; ``file.py:Name`` too, which a project file
            finds beside it.
        embedding: length of the vector of a name.
        hidden: widths of the layers.
        crosses: cross layers of ``dcn-v2``.
        dropout: share of hidden units that are left out of each step.
        label: the label to predict; the schema's first without.
        ridge: prior precision of the network's weights and of a name's own weight.
        embedding_ridge: prior precision of the vectors of names.
        forgetting: weight of the past at each update, in (0, 1]; what is forgotten returns to the prior.
        cold_weight: share of the fit in the past, in [0, 1]: what ties the chain of updates to its beginning.
        curvature: ``ggn`` (generalised Gauss-Newton) or ``fisher`` (empirical Fisher).
        last_layer: what is kept of the last layer's precision: its ``diagonal``, or all of it (``full``).
        variance: what is uncertain in predictions: the ``last-layer`` alone, or all weights, to first order
            (``linearised``).
        temperature: divide logits by what the rows of each update, before they are learned, say they should be.
        refuse_above: an update that raises the mean loss of its newest rows, which are learned last, by more than
            this is undone and told; ``None`` undoes none.
        training: how the network is trained.
    """

    can_fine_tune: ClassVar[bool] = True
    kind: Literal["sequential-laplace"] = "sequential-laplace"
    features: Annotated[Names, Field(min_length=1)]
    ranker: str = "wide-and-deep"
    embedding: Annotated[int, Field(ge=1, le=4096)] = 16
    hidden: Widths = (128, 64)
    crosses: Annotated[int, Field(ge=0, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    label: str | None = None
    ridge: NetworkRidge = 1.0
    embedding_ridge: NetworkRidge = 30.0
    forgetting: Annotated[float, Field(gt=0, le=1)] = 1.0
    cold_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    curvature: Literal["ggn", "fisher"] = "ggn"
    last_layer: Literal["diagonal", "full"] = "diagonal"
    variance: Literal["last-layer", "linearised"] = "last-layer"
    temperature: bool = True
    refuse_above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.05
    training: Annotated[Training, WrapValidator(in_place)] = Field(default_factory=Training)

    def __post_init__(self) -> None:
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"a feature is named twice in {', '.join(self.features)}")

    def feature_names(self) -> tuple[str, ...]:
        """The features that it uses."""
        return tuple(self.features)


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


ALONE: dict[type[Any], str] = {
    GLMixParameters: "acclimate.learners.glmix:GLMix",
    GlobalRateParameters: "acclimate.learners.rates:GlobalRate",
    RateParameters: "acclimate.learners.rates:Rate",
    SequentialLaplaceParameters: "acclimate.learners.sequential_laplace:SequentialLaplace",
}
"""Learners that may stand alone: the record of each, and the class that learns by it, imported when asked for."""
