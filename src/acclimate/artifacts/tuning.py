"""What a search among settings finds out."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Judge(NamedTuple):
    """What settings are compared by: a field of a report's arms, its name in words, and its unit."""

    key: Literal["log_loss", "rmse", "deviance"]
    label: str
    unit: str


JUDGES = {
    "binary": Judge("log_loss", "log-loss", "nats per row"),
    "number": Judge("rmse", "RMSE", ""),
    "count": Judge("deviance", "deviance", "nats per row"),
}
"""By the kind of label."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried; number 0 is the declared ones.

    ``values``: by name, without those that mean nothing beside the others. ``loss``: log-loss over all windows, or
    what else settings are judged by, of a complete one. ``differences``: that up to each window minus that of the
    declared settings.
    """

    number: int
    values: dict[str, Any]
    state: Literal["complete", "stopped", "failed"]
    loss: float | None
    differences: list[float | None]
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Finalist:
    """One of the best trials, replayed beside the declared settings.

    ``changes``: by name, the declared value and its own, where they differ. ``loss``: its log-loss, or what else
    settings are judged by; ``difference``: that minus the loss of the declared settings, ``None`` where there is
    no interval; ``low`` and ``high`` hold it with 95 % confidence although it was the best of several.
    ``options``: what declares it, for a command line.
    """

    number: int
    changes: dict[str, tuple[Any, Any]]
    loss: float | None
    auc: float | None
    difference: float | None
    low: float | None
    high: float | None
    options: str

    @property
    def name(self) -> str:
        """What the arm is called."""
        return f"trial {self.number}"

    @property
    def is_better(self) -> bool:
        """Whether the interval is below 0."""
        return self.high is not None and self.high < 0

    @property
    def difference_text(self) -> str:
        """Such as ``−0.00212 [−0.00301, −0.00117]``."""
        if self.difference is None or self.low is None or self.high is None:
            return "–"
        values = (self.low, self.difference, self.high)
        low, middle, high = (f"{value:+.5f}".replace("-", "−") for value in values)
        return f"{middle} [{low}, {high}]"


@dataclass(frozen=True)
class Candidates:
    """A setting that was tuned: what was declared, and the ``values`` that were tried, or all from low to high."""

    name: str
    declared: Any
    values: list[Any] | None
    low: Any = None
    high: Any = None
    log: bool = False


@dataclass(frozen=True)
class Tuning:
    """All that a search found; ``chosen`` is the number of the best finalist that is better than the declared one.

    ``settings``: learner, label, start, end, every, trials, seed; label_kind where labels are numbers or counts.
    """

    name: str
    settings: dict[str, Any]
    candidates: list[Candidates]
    trials: list[Trial]
    declared_loss: float | None
    declared_auc: float | None
    finalists: list[Finalist]

    @property
    def judge(self) -> Judge:
        """What settings are compared by."""
        return JUDGES[self.settings.get("label_kind", "binary")]

    @property
    def chosen(self) -> Finalist | None:
        """The finalist of least loss among those that are better than the declared settings."""
        better = [one for one in self.finalists if one.is_better]
        return min(better, key=lambda one: (one.loss, one.number)) if better else None

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        looks = len(self.trials) - 1
        if self.chosen is not None:
            return (
                f"{self.chosen.name} is better than the declared settings: {self.judge.label} "
                f"{self._told(self.chosen)}."
            )
        if not self.finalists:
            return f"No setting is better than the declared one: none of {looks} trials was completed."
        if all(one.low is None for one in self.finalists):
            return "No setting can be said to be better than the declared one: there are no intervals to tell by."
        return (
            f"No setting is better than the declared one beyond chance: the best of {looks} differs by "
            f"{self._told(self.finalists[0])}."
        )

    def _told(self, finalist: Finalist) -> str:
        return f"{finalist.difference_text} {self.judge.unit}".strip()
