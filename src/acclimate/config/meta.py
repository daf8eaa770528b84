"""How a meta ranker is declared: a network that all share, and small ones that each entity adapts for itself."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, WrapValidator
from pydantic.dataclasses import dataclass

from acclimate.config.learners import NetworkRidge, Widths
from acclimate.config.records import STRICT, Key, Name, Names, in_our_words, in_place
from acclimate.config.training import Training


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class MetaBlock:
    """A meta block: what turns the features of an entity into its meta embedding, adapted on the entity's events.

    Args:
        entity: role or column of the entity; a list of several is one entity for each combination of them.
        features: names of features that belong to the entity; numbers are standardised, names have embeddings.
        hidden: widths of the layers before the embedding.
        size: length of the meta embedding.
        adaptation: ``gradient`` takes steps down the loss of the support rows (MAML); ``amortised`` reads them by
            a network, a sum over rows, in place of steps; ``attention`` weighs them by what they are and how many
            newer ones there are; ``none`` leaves the block as it is.
        steps: gradient steps.
        support: newest events of an entity that it is adapted on.
    """

    entity: Key
    features: Names = ()
    hidden: Widths = (32,)
    size: Annotated[int, Field(ge=1, le=4096)] = 16
    adaptation: Literal["gradient", "amortised", "attention", "none"] = "gradient"
    steps: Annotated[int, Field(ge=0, le=100)] = 1
    support: Annotated[int, Field(ge=1, le=100_000)] = 20


@in_our_words
@dataclass(frozen=True, config=STRICT, kw_only=True)
class MetaRankerParameters:
    """A :class:`acclimate.MetaRanker`: a deep ranker that is personal by meta embeddings.

    Args:
        features: names of features that the global block reads beside the meta embeddings.
        blocks: the meta blocks, by name.
        ranker: the global block: as in :class:`acclimate.SequentialLaplace`.
        embedding: length of the vector of a name.
        hidden: widths of the layers of the global block.
        crosses: cross layers of ``dcn-v2``.
        dropout: share of hidden units that are left out of each step.
        label: the label to predict; the schema's first without.
        offset: name of a learner whose logit is a known part of this one's, as in :class:`acclimate.GLMix`.
        order: gradients of the outer step: ``second`` sees through the inner steps, ``first`` takes them as given.
        rates: inner rates: ``fixed``, ``learned`` for each layer, or ``per-parameter`` (Meta-SGD).
        rate: the inner rate, where it is learned at first.
        prior_rows: an inner gradient is the sum over support rows, divided by their number and so many more.
        thinned: share of the tasks of a training that see only the newest of their support rows; how many, and
            that may be none, is drawn so that its logarithm is uniform: one model serves any number of events.
        weighting: whether all ``rows`` count the same in a batch of the training, or all ``entities`` of the
            first block in it.
        ridge: prior precision of weights.
        embedding_ridge: prior precision of the vectors of names.
        training: how the network is trained; a batch is of consecutive rows.
    """

    kind: Literal["meta-ranker"] = "meta-ranker"
    features: Annotated[Names, Field(min_length=1)]
    blocks: Annotated[dict[Name, Annotated[MetaBlock, WrapValidator(in_place)]], Field(min_length=1, max_length=8)]
    ranker: str = "wide-and-deep"
    embedding: Annotated[int, Field(ge=1, le=4096)] = 16
    hidden: Widths = (128, 64)
    crosses: Annotated[int, Field(ge=0, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    label: str | None = None
    offset: str | None = None
    order: Literal["first", "second"] = "second"
    rates: Literal["fixed", "learned", "per-parameter"] = "learned"
    rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    prior_rows: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 5.0
    thinned: Annotated[float, Field(ge=0, le=1)] = 0.5
    weighting: Literal["rows", "entities"] = "rows"
    ridge: NetworkRidge = 1.0
    embedding_ridge: NetworkRidge = 30.0
    training: Annotated[Training, WrapValidator(in_place)] = Field(
        default_factory=lambda: Training(epochs=5, batch=4096, patience=2)
    )

    def __post_init__(self) -> None:
        for names in (self.features, *(block.features for block in self.blocks.values())):
            if len(set(names)) < len(names):
                raise ValueError(f"a feature is named twice in {', '.join(names)}")

    def feature_names(self) -> tuple[str, ...]:
        """The features of all blocks, each once."""
        parts: Sequence[Names] = (self.features, *(block.features for block in self.blocks.values()))
        return tuple(dict.fromkeys(name for names in parts for name in names))
