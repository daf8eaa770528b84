"""The arms of a replay that need no more than their name."""

from collections.abc import Callable
from typing import Any, Literal, get_args

from acclimate.config.learners import GlobalRateParameters, LearnerParameters, RateParameters
from acclimate.config.schema import Schema
from acclimate.errors import ConfigError

Regime = Literal["stale", "fine-tune", "incremental", "retrain"]
"""When an arm learns: never after its first fit, from each window (with what it knew as a start alone, or as an
anchor), or anew from all of the past."""

AskedMode = Literal["point", "integrated"]
"""How an arm is asked: at what is most likely, or over all that is."""


def _has_shared_part(main: Any) -> bool:
    return hasattr(main, "shared_part") and (not hasattr(main, "learner") or _has_shared_part(main.learner))


def _shared_part(main: Any, _: Schema) -> Any:
    if not _has_shared_part(main):
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
    lacking = {"fixed": not _has_shared_part(main), "fine-tune": not hasattr(main, "can_fine_tune")}
    return tuple(name for name in BUILT_IN_ARMS if not lacking.get(name))
