"""Events as a meta ranker reads them: what a network reads, and the entities whose meta embeddings a row has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.arrays import IdArray, IntArray
from acclimate.artifacts import Events
from acclimate.config import MetaBlock, Schema
from acclimate.errors import DataError
from acclimate.features import Layout, key_column
from acclimate.learners.batch import columns_of, read_tables
from acclimate.learners.encoder.rows import Numbered
from acclimate.learners.network.rows import NetworkRows, RowStore, check_rows, columns_read


@dataclass(frozen=True)
class Keys:
    """Which of the distinct ``ids`` of a block each row has, ``code`` ``(n,)``."""

    code: IntArray
    ids: IdArray


@dataclass(frozen=True)
class MetaPiece:
    """Some rows, and by block whose they are."""

    rows: NetworkRows
    keys: list[Keys]


@dataclass(frozen=True)
class MetaReader:
    """How events are read: ``entities`` has the columns of each block's key, ``known`` the ids so far."""

    features: tuple[str, ...]
    entities: Sequence[tuple[str, ...]]
    known: Sequence[Numbered]

    @staticmethod
    def declared(
        features: tuple[str, ...], blocks: Mapping[str, MetaBlock], schema: Schema, known: Sequence[Numbered]
    ) -> "MetaReader":
        """A reader of the blocks' entities.

        Raises:
            ConfigError: the schema has no such entity.
        """
        entities = [tuple(schema.entity_column(name) for name in block.entity) for block in blocks.values()]
        return MetaReader(features, entities, known)

    def pieces(
        self,
        events: Events,
        layout: Layout | None,
        label: str | None,
        *,
        grow: bool = False,
        unknown: bool = False,
    ) -> Iterator[tuple[MetaPiece, Layout]]:
        """Rows in the order of time; the layout grows if asked.

        With a ``label`` those whose label is known, or all of them, NaN where it is ``unknown``.

        Raises:
            ColumnError: a column's type does not go with a feature's kind.
            MismatchError: ids are missing, or of another type than those so far.
            RowError: a weight, an offset or a feature is beyond what can be computed with.
        """
        columns = [*columns_read(events, self.features, label), *(c for key in self.entities for c in key)]
        for table in read_tables(events, list(dict.fromkeys(columns)), None if unknown else label):
            layout = layout or Layout.first(self.features, table, events.schema)
            read, layout = layout.read(table, events.schema, grow=grow)
            rows = NetworkRows(read, *columns_of(table, events.schema, label))
            check_rows(rows, layout)
            keys = [
                Keys(*known.distinct(key_column(table, columns)))
                for known, columns in zip(self.known, self.entities, strict=True)
            ]
            yield MetaPiece(rows, keys), layout

    def everything(self, events: Events, label: str) -> tuple[NetworkRows, list[IntArray], Layout]:
        """All rows of a known label, by block whose each is ``(n,)``, and the layout that knows their names.

        Raises:
            DataError: there are none; and as :meth:`pieces`.
        """
        store, codes, layout = RowStore(events.memory_limit), list[list[IntArray]](), None
        for piece, grown in self.pieces(events, None, label, grow=True):
            store.add(piece.rows)
            layout = grown
            codes.append(self.admitted(piece))
        if layout is None or not any(len(part) for part, *_ in codes):
            raise DataError(f"no event has a known label '{label}'", hint="look at events.describe()")
        return store.rows(), [np.concatenate(parts) for parts in zip(*codes, strict=True)], layout

    def admitted(self, piece: MetaPiece) -> list[IntArray]:
        """The numbers of each row's entities ``(n,)``, a block each; unknown ones get the next."""
        return [known.admit(key.ids)[key.code] for known, key in zip(self.known, piece.keys, strict=True)]

    def numbers(self, piece: MetaPiece) -> list[IntArray]:
        """The same, -1 where an entity is not known."""
        return [known.index.numbers(key.ids)[key.code] for known, key in zip(self.known, piece.keys, strict=True)]
