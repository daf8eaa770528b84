"""The learners below another one: they learn together, and what they say of rows becomes columns of these."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from acclimate.arrays import FloatArray, IntArray
from acclimate.artifacts import Events, SharedPart, update_options
from acclimate.config import Feature, Schema, loss_of
from acclimate.errors import ConfigError, NotFittedError
from acclimate.learners.joined import JoinedSource, as_column, times_of
from acclimate.models.scoring import LINKS


class Members:
    """Learners by name; some of them are ``features``, and one may be the ``offset``.

    ``unconverged`` tells how far from their optimum those stopped that did not reach it, in all they have learned
    since they were made or :meth:`updated`.
    """

    def __init__(self, learners: Mapping[str, Any], features: Sequence[str], offset: str | None) -> None:
        self.learners, self.features, self.offset = dict(learners), list(features), offset
        self.unconverged: dict[str, str] = {}
        self._waiting = list[Callable[[], None]]()

    @property
    def refusals(self) -> dict[str, str]:
        """Why members have undone the last update, by name."""
        said = {name: refusal_of(learner) for name, learner in self.learners.items()}
        return {name: why for name, why in said.items() if why}

    @property
    def offset_column(self) -> str | None:
        """What the column of the offset is called."""
        return None if self.offset is None else f"{self.offset} as offset"

    def fit(self, events: Events) -> Self:
        """Let all learn from these events alone."""
        return self._taught("fit", events)

    def update(self, events: Events, shared: SharedPart = "learn") -> Self:
        """Let all learn from new events, and what is shared with them or not.

        Raises:
            ConfigError: what is shared is to be kept, and one of them cannot.
        """
        options = {name: update_options(learner, shared) for name, learner in self.learners.items()}
        return self._taught("update", events, options)

    def updated(self, events: Events, shared: SharedPart = "learn") -> "Members":
        """Members that have learned new events, these being as they were; otherwise as :meth:`update`.

        One that can be ``prepared``, so that it needs no copy, is the same in both and learns with :meth:`commit`.
        """
        ready = {name: one for name, one in self.learners.items() if hasattr(one, "prepared")}
        others = {name: one for name, one in self.learners.items() if name not in ready}
        learned = Members(copy.deepcopy(others), self.features, self.offset).update(events, shared)
        learned._waiting = [one.prepared(events) for one in ready.values()]
        learned.learners = {name: ready.get(name) or learned.learners[name] for name in self.learners}
        return learned

    def commit(self) -> Self:
        """Let those learn that have waited."""
        while self._waiting:
            self._waiting.pop(0)()
        return self

    def emptied(self) -> "Members":
        """The same encoders with no histories."""
        return Members({name: one.emptied() for name, one in self.learners.items()}, self.features, self.offset)

    def schema(self, events: Events) -> Schema:
        """The schema of these events with the columns that are added to them.

        Raises:
            ConfigError: the events have a column or a feature of such a name.
        """
        schema, column = events.schema, self.offset_column
        there = {*events.source.columns().names, *schema.features}
        if taken := [name for name in (*self.features, column) if name in there]:
            raise ConfigError(
                f"the member '{taken[0]}' is called as a column or a feature of the events",
                hint="give the member another name",
            )
        kinds = {
            name: Feature(kind="embedding" if self.has_vectors(name) else "numeric") for name in self.features
        }
        return replace(schema, features={**schema.features, **kinds}, offset=column or schema.offset)

    def noted(self, events: Events) -> Events:
        """These events with what the members say of them now."""
        return self._joined(events, times_of(events), self._said(events))

    def rolled(self, events: Events, every: str) -> Events:
        """These events with what the members said of each window before they learned it; they learn all."""
        times, said = times_of(events), list[dict[str, FloatArray]]()
        for window in events.windows(every, events.start, int(times[-1]) + 1):
            first, last = np.searchsorted(times, [window.start or 0, window.end or 0])
            if first < last:
                rows = window.cached()
                said.append(self._said(rows))
                self.update(rows)
        return self._joined(events, times, {name: np.concatenate([one[name] for one in said]) for name in said[0]})

    def silent(self, events: Events) -> Events:
        """These events with zeros where members, that need not be fitted, would say something."""
        times = times_of(events)
        sizes = {name: (_size(self.learners[name]),) for name in self.features if self.has_vectors(name)}
        names = (*self.features, *([self.offset_column] if self.offset_column else []))
        return self._joined(events, times, {name: np.zeros((len(times), *sizes.get(name, ()))) for name in names})

    def has_vectors(self, name: str) -> bool:
        """Whether a member has vectors."""
        return has_vectors(self.learners[name])

    def _taught(self, verb: str, events: Events, options: Mapping[str, Mapping[str, Any]] | None = None) -> Self:
        for name, learner in self.learners.items():
            getattr(learner, verb)(events, **(options or {}).get(name, {}))
            if left := learner.shortfall():
                self.unconverged[name] = left
        return self

    def _said(self, events: Events) -> dict[str, FloatArray]:
        """What members say of these rows, by column: vectors ``(n, s)``, margins (logits) and offsets ``(n,)``."""
        logits = {
            name: LINKS[loss_of(learner.parameters)].margin(learner.predict(events))
            for name, learner in self.learners.items()
            if name == self.offset or not self.has_vectors(name)
        }
        said = {
            name: self.learners[name].vectors(events) if self.has_vectors(name) else logits[name]
            for name in self.features
        }
        if self.offset and self.offset_column:
            said[self.offset_column] = logits[self.offset]  # which has the schema's offset in it already
        return said

    def _joined(self, events: Events, times: IntArray, said: Mapping[str, FloatArray]) -> Events:
        """These events, at ``times`` ``(n,)``, with columns of ``(n,)`` or ``(n, s)``."""
        columns = {name: as_column(values) for name, values in said.items()}
        source = JoinedSource(events.source, events.schema.time.column, times, columns)
        return replace(events, schema=self.schema(events), source=source)


def has_vectors(learner: Any) -> bool:
    """Whether it has vectors: a method of that name, and nothing that says that it is of no use."""
    return getattr(learner, "has_vectors", hasattr(learner, "vectors"))


def refusal_of(learner: Any) -> str:
    """Why it has undone the last update; empty where it has not, or cannot."""
    return learner.refusal() if hasattr(learner, "refusal") else ""


def _size(learner: Any) -> int:
    """Length of a learner's vectors; of one that is not fitted, and may not know it, that it has some."""
    try:
        return learner.size
    except NotFittedError:
        return 1
