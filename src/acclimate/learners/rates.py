"""Plain baselines: the rate of positive rows, over all or of each entity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.artifacts import Events, FloatArray
from acclimate.errors import ConfigError, MismatchError, NotFittedError, nearest
from acclimate.features import positions
from acclimate.storage import read_artifact, unpacking, write_artifact


@dataclass(frozen=True)
class RateState:
    """What was counted: ``ids (n,)``; ``rows`` and ``positives (n,)``, by weight."""

    ids: "pa.Array[Any]"
    rows: FloatArray
    positives: FloatArray

    def rate(self) -> float:
        """The rate over all rows, with half a row of each label added (Jeffreys): 1/2 without any."""
        return float((self.positives.sum() + 0.5) / (self.rows.sum() + 1.0))

    def updated(self, ids: "pa.Array[Any]", y: FloatArray, weight: FloatArray) -> "RateState":
        """The counts with more rows, all ``(n,)``; ids unseen before are appended."""
        encoded = ids.dictionary_encode()
        new = encoded.dictionary.filter(pa.array(positions(encoded.dictionary, self.ids) < 0))
        known = pa.concat_arrays([self.ids, new])
        place = positions(encoded.dictionary, known)[encoded.indices.to_numpy()]
        grow = (0, len(new))
        return RateState(
            known,
            np.pad(self.rows, grow) + np.bincount(place, weight, len(known)),
            np.pad(self.positives, grow) + np.bincount(place, weight * y, len(known)),
        )


class _Counting:
    """What the two learners share: counting rows by entity, or all as one where ``entity`` is None."""

    kind: ClassVar[str]

    def __init__(self, label: str | None, entity: str | None) -> None:
        self.label = label
        self._entity = entity
        self._state: RateState | None = None
        self._fingerprint = ""

    def fit(self, events: Events) -> Self:
        """Count these events alone.

        Raises:
            ConfigError: the schema has no such label or entity.
        """
        self._state, self._fingerprint = self._counted(None, events), events.schema.fingerprint()
        return self

    def update(self, events: Events) -> Self:
        """Count these events too.

        Raises:
            NotFittedError: ``fit`` comes first.
            MismatchError: the events are of another schema than those it was fitted on.
        """
        self._state = self._counted(self._fitted(events), events)
        return self

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the counts to a folder.

        Raises:
            NotFittedError: there is nothing to save.
            OutputError: the folder exists, or cannot be written.
        """
        state = self._fitted()
        write_artifact(
            path,
            kind=self.kind,
            manifest={"parameters": self._parameters(), "schema": self._fingerprint},
            arrays={"rows": state.rows, "positives": state.positives},
            tables={"ids": pa.table({"id": state.ids})},
            overwrite=overwrite,
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FormatError: there is nothing, it is damaged, or another format version wrote it.
            MismatchError: it is another kind of learner.
        """
        stored = read_artifact(path, kind=cls.kind)
        with unpacking(path):
            learner = cls(**stored.manifest["parameters"])
            ids = stored.tables["ids"]["id"].combine_chunks()
            rows, positives = stored.arrays["rows"], stored.arrays["positives"]
            if not rows.shape == positives.shape == (len(ids),):
                raise ValueError(f"{len(ids)} ids, rows {rows.shape} and positives {positives.shape}")
            learner._state = RateState(ids, rows, positives)
            learner._fingerprint = stored.manifest["schema"]
        return learner

    @property
    def nbytes(self) -> int:
        """Bytes of the counts."""
        state = self._state
        return 0 if state is None else int(state.ids.nbytes) + state.rows.nbytes + state.positives.nbytes

    def _parameters(self) -> dict[str, Any]:
        return {"label": self.label}

    def _fitted(self, events: Events | None = None) -> RateState:
        if self._state is None:
            raise NotFittedError(f"{type(self).__name__} has counted nothing yet", hint="call fit or load first")
        if events is not None and events.schema.fingerprint() != self._fingerprint:
            raise MismatchError(
                f"{type(self).__name__} was fitted on events of another schema",
                hint="use the schema it was fitted with, or fit anew",
            )
        return self._state

    def _counted(self, state: RateState | None, events: Events) -> RateState:
        schema = events.schema
        if self.label is not None and self.label not in schema.labels:
            raise ConfigError(f"no label '{self.label}' in the schema", hint=nearest(self.label, schema.labels))
        label = self.label or schema.labels[0]
        entity = None if self._entity is None else schema.entity_column(self._entity)
        reader = events.reader([c for c in (label, entity, schema.weight) if c is not None])
        if state is None:
            kind = pa.int64() if entity is None else reader.schema.field(entity).type
            state = RateState(pa.array([], kind), np.zeros(0), np.zeros(0))
        for batch in reader:
            rows = batch.filter(pc.is_valid(batch[label]))
            y = rows[label].to_numpy().astype(np.float64)
            weight = np.ones(len(y)) if schema.weight is None else rows[schema.weight].to_numpy()
            state = state.updated(_ids(rows, entity, state.ids.type), y, weight)
        return state


def _ids(rows: pa.RecordBatch, column: str | None, kind: pa.DataType) -> "pa.Array[Any]":
    """The ids in the type they are known in; one and the same for all rows without a column."""
    if column is None:
        return pa.array(np.zeros(rows.num_rows, np.int64))
    try:
        return rows[column].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise MismatchError(
            f"ids in column '{column}' are {rows[column].type}, those learned before are {kind}",
            hint="bring the column to one type, or fit anew",
        ) from error


class GlobalRate(_Counting):
    """The rate of positive rows, said of every row.

    Args:
        label: of the schema; its first one by default.
    """

    kind: ClassVar[str] = "global-rate"

    def __init__(self, label: str | None = None) -> None:
        super().__init__(label, None)

    def predict(self, events: Events) -> FloatArray:
        """The rate, once per row ``(n,)``; raises as :meth:`update`."""
        rate = self._fitted(events).rate()
        return np.full(sum(batch.num_rows for batch in events.reader([events.schema.time.column])), rate)


class Rate(_Counting):
    """The rate of positive rows of each entity, smoothed towards the rate of all.

    ``(positives + prior_rows * rate) / (rows + prior_rows)``; an entity never seen has the rate of all.

    Args:
        entity: role or column of an entity of the schema.
        label: of the schema; its first one by default.
        prior_rows: how many rows at the rate of all an entity starts with.

    Raises:
        ConfigError: ``prior_rows`` is not positive.
    """

    kind: ClassVar[str] = "rate"

    def __init__(self, entity: str, label: str | None = None, prior_rows: float = 20.0) -> None:
        if not 0 < prior_rows < np.inf:
            raise ConfigError(f"prior_rows is {prior_rows}", hint="give a positive number of rows")
        super().__init__(label, entity)
        self.entity = entity
        self.prior_rows = prior_rows

    def predict(self, events: Events) -> FloatArray:
        """The rate of each row's entity ``(n,)``; raises as :meth:`update`."""
        state = self._fitted(events)
        column = events.schema.entity_column(self.entity)
        rate = state.rate()
        known = (state.positives + self.prior_rows * rate) / (state.rows + self.prior_rows)
        # Position -1, an entity never seen, is the last place.
        of_place = np.append(known, rate)
        ids = (_ids(batch, column, state.ids.type) for batch in events.reader([column]))
        return np.concatenate([np.zeros(0), *(of_place[positions(i, state.ids)] for i in ids)])

    def _parameters(self) -> dict[str, Any]:
        return {"entity": self.entity, "label": self.label, "prior_rows": self.prior_rows}
