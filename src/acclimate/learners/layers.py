"""The states of entities in layers: in memory those that have changed, below them segments on disk, or a store.

A state is read where it is newest. A save writes what has changed as one more segment, so that an update reads and
writes what it touches, whatever is stored. Layers that are no larger than all above them are written together with
these: of ``n`` entities there are at most about ``log2 n`` segments, and a state is written again as often.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from acclimate.arrays import (
    BoolArray,
    EntityStates,
    FloatArray,
    IdArray,
    IntArray,
    Posterior,
    SparseStates,
    Support,
)
from acclimate.learners.entities import Float, IdIndex, MemoryEntities, named_values, posterior_in
from acclimate.models.gaussian import widened
from acclimate.storage import Below, Columns, InSegments, Rows, Segment, Unwritten, visible, write_segment

_ABOUT = ("touched", "rows", "support")
"""Columns of a row beside the values of its state."""

_SMALL = 4096
"""States that are written again rather than kept in a file of their own, where files are of many widths."""


class LayeredEntities:
    """The seam :class:`acclimate.artifacts.Entities` in memory and on disk.

    ``dtype`` is what values are kept in; they are taken and committed as ``float64``. ``commits`` counts what was
    put in.
    """

    def __init__(self, dtype: Float = "float64") -> None:
        self.dtype: Float = dtype
        self.position: str | None = None
        self._changes = MemoryEntities(dtype)
        self._below: dict[str, Below] = {}
        self.commits = 0

    def take(self, effect: str, ids: IdArray, population: Posterior) -> EntityStates:
        """See :meth:`acclimate.artifacts.Entities.take`; the states are copies.

        Raises:
            FormatError: a state on disk is not what was written.
        """
        states = self._changes.take(effect, ids, population)
        mean, precision = states.posterior.mean, states.posterior.precision
        for asked, rows in self._unchanged(effect, ids):
            posterior = widened(_posterior(rows), population)
            mean[asked], precision[asked] = posterior.mean, posterior.precision
            states.touched[asked], states.rows[asked] = rows["touched"], rows["rows"]
        return states

    def take_sparse(self, effect: str, ids: IdArray) -> SparseStates:
        """See :meth:`acclimate.artifacts.Entities.take_sparse`; the states are copies.

        Raises:
            FormatError: a state on disk is not what was written.
        """
        states = self._changes.take_sparse(effect, ids)
        for asked, rows in self._unchanged(effect, ids):
            states.touched[asked], states.rows[asked] = rows["touched"], rows["rows"]
            times = states.touched[asked], states.rows[asked]
            piece = EntityStates(ids[asked], _posterior(rows), *times, rows.get("support"))
            states.pieces.append((asked, piece))
        return states

    def sparse_means(self, effect: str, ids: IdArray) -> Iterator[tuple[IntArray, Support, FloatArray]]:
        """See :meth:`acclimate.artifacts.Entities.sparse_means`.

        Raises:
            FormatError: a state on disk is not what was written.
        """
        yield from self._changes.sparse_means(effect, ids)
        for asked, rows in self._unchanged(effect, ids):
            if "support" in rows:
                yield asked, rows["support"], _posterior(rows).mean

    def means(self, effect: str, ids: IdArray, population: Posterior) -> FloatArray:
        """See :meth:`acclimate.artifacts.Entities.means`.

        Raises:
            FormatError: a state on disk is not what was written.
        """
        mean = self._changes.means(effect, ids, population)
        for asked, rows in self._unchanged(effect, ids):
            known = _posterior(rows).mean
            mean[asked, : known.shape[1]] = known
        return mean

    def commit(self, changed: Mapping[str, Iterable[EntityStates]], position: str | None = None) -> None:
        """See :meth:`acclimate.artifacts.Entities.commit`; all is computed before any of it is stored."""
        self._changes.commit(changed)
        self.commits += 1
        self.position = self.position if position is None else position

    def fill(self, effect: str, pieces: Iterable[EntityStates], *, room: int = 0) -> None:
        """Put states in piece by piece, as they are computed, with room made at once for so many.

        For a store that nobody uses yet: should a piece fail, those before it are in.
        """
        self._changes.fill(effect, pieces, room=room)
        self.commits += 1

    def knows(self, effect: str, ids: IdArray) -> BoolArray:
        """Which of these entities have a state, ``(n,)``."""
        found = self._changes.knows(effect, ids)
        for asked, _ in self._unchanged(effect, ids):
            found[asked] = True
        return found

    def ids(self, effect: str) -> IdArray:
        """All ids of an effect that are known: those on disk, then those in memory as they came."""
        changed, below = self._changes.ids(effect), self._below.get(effect)
        if below is None:
            return changed
        ids = below.ids()
        if not len(changed):
            return ids
        return np.concatenate([ids[~self._changes.knows(effect, ids)], changed]) if len(ids) else changed

    def only(self, effects: Iterable[str]) -> "LayeredEntities":
        """These effects alone, not copied."""
        kept, names = LayeredEntities(self.dtype), list(effects)
        kept._changes = self._changes.only(names)
        kept._below = {name: self._below[name] for name in names if name in self._below}
        return kept

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return self._changes.nbytes + sum(below.nbytes for below in self._below.values())

    def stored(self, effect: str, columns: tuple[str, ...], base: Posterior) -> "StoredEffect":
        """One effect, to go out of this process; ``base`` is what its states rest on, ``columns`` have its ids."""
        return StoredEffect(self, effect, columns, base, self.commits)

    def rest_on(self, effect: str, below: Below) -> None:
        """Go on with these, which hold all states of an effect."""
        self._below[effect] = below
        self._changes.forget(effect)

    def below(self, effect: str) -> Below:
        """What the changed states of an effect lie on."""
        return self._below.get(effect, InSegments())

    def changed(self, effect: str) -> Iterator[tuple[IdArray, Columns]]:
        """Ids and columns of the states of an effect that have changed, those of one layout at a time."""
        return self._changes.tables(effect)

    def changed_ids(self, effect: str) -> IdArray:
        """Ids of the states of an effect that have changed."""
        return self._changes.ids(effect)

    def forget(self, effect: str) -> None:
        """Let go of what has changed of an effect."""
        self._changes.forget(effect)

    def _unchanged(self, effect: str, ids: IdArray) -> Iterator[tuple[IntArray, Columns]]:
        """Which of these entities have their newest states below, and these, some at a time."""
        # Before they are read: a save puts segments in place first, and lets go of what has changed after that.
        asked = np.flatnonzero(~self._changes.knows(effect, ids))
        if (below := self._below.get(effect)) is not None and len(asked):
            for places, rows in below.read(ids[asked]):
                yield asked[places], rows


@dataclass(frozen=True)
class StoredEffect:
    """The states of one effect as they go out; those of fewer coefficients are filled up from ``base``.

    ``columns``: of the events, that have the ids; ``commits``: how many there had been by then.
    """

    entities: LayeredEntities
    name: str
    columns: tuple[str, ...]
    base: Posterior
    commits: int
    is_described: bool = False

    def layers(self) -> list[Segment | Unwritten]:
        """The segments that hold all states: those that stay, and one of what has changed and of small ones."""
        below = self.entities.below(self.name)
        segments = list(below.segments) if isinstance(below, InSegments) else []
        changed = [Rows.of(*part) for part in self.entities.changed(self.name)]
        if not isinstance(below, InSegments):
            changed = [*(Rows.of(*piece) for piece in below.pieces()), *changed]
        if not changed:
            return list(segments)
        layers = [*segments, *changed]
        shown = visible(layers)
        kept, new = list[int](), list[Unwritten]()
        for group in _groups(layers):
            sizes, new_ones = [len(layers[k]) for k in group], sum(k >= len(segments) for k in group)
            small = _SMALL if "support" in layers[group[0]].columns else 0  # of which there are many widths
            first = _first_together(sizes, new_ones, small)
            hidden = [k for k in group[:first] if 2 * len(shown[k]) < len(layers[k])]  # for the most part
            kept += [k for k in group[:first] if k not in hidden]
            if parts := [(layers[k], shown[k]) for k in [*hidden, *group[first:]] if len(shown[k])]:
                new.append(partial(write_segment, parts=parts, like=self._like([layer for layer, _ in parts])))
        # Of rows that are written none is hidden, so that they may come last, whatever stays.
        return [*(segments[k] for k in sorted(kept)), *new]

    def written(self, segments: Sequence[Segment]) -> None:
        """Go on with these, unless more was learned meanwhile, which they do not have; or a store has them all."""
        in_segments = isinstance(self.entities.below(self.name), InSegments)
        if in_segments and self.entities.commits == self.commits:
            self.entities.rest_on(self.name, InSegments(segments))

    def changed(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`acclimate.learners.base.Layered.changed`."""
        return self.entities.changed(self.name)

    def unchanged(self) -> Iterator[tuple[IdArray, Columns]]:
        """See :meth:`acclimate.learners.base.Layered.unchanged`."""
        hidden = IdIndex(self.entities.changed_ids(self.name))
        for ids, columns in self.entities.below(self.name).pieces():
            shown = np.flatnonzero(hidden.numbers(ids) < 0)
            yield ids[shown], {name: column[shown] for name, column in columns.items()}

    def rest_on(self, below: Below) -> None:
        """See :meth:`acclimate.learners.base.Layered.rest_on`."""
        self.entities.rest_on(self.name, below)

    def settle(self) -> None:
        """See :meth:`acclimate.learners.base.Layered.settle`."""
        self.entities.forget(self.name)

    def _like(self, layers: Sequence[Rows]) -> Callable[[Rows], Rows]:
        """Makes states of all layers of one width and form."""
        if all(layer.layout == layers[0].layout for layer in layers):
            return lambda rows: rows
        return self._wide

    def _wide(self, rows: Rows) -> Rows:
        columns = {name: column for name, column in rows.columns.items() if name in _ABOUT}
        name, values = named_values(widened(_posterior(rows.columns), self.base), self.entities.dtype)
        return replace(rows, columns={**columns, name: values})


def _groups(layers: Sequence[Rows]) -> list[list[int]]:
    """The places of layers that can be written together: of all coefficients, or of so many of them."""
    groups: dict[str, list[int]] = {}
    for k, layer in enumerate(layers):
        groups.setdefault(str(sorted(layer.layout)) if "support" in layer.columns else "", []).append(k)
    return list(groups.values())


def _first_together(sizes: Sequence[int], new: int, small: int) -> int:
    """The first of some layers that is written together with all after it, the last of which are ``new``."""
    first = len(sizes) - new
    while new and first and sizes[first - 1] <= max(sum(sizes[first:]), small):
        first -= 1
    return first


def _posterior(rows: Columns) -> Posterior:
    """What the states of some rows are."""
    ((name, values),) = ((name, column) for name, column in rows.items() if name not in _ABOUT)
    return posterior_in(name, values)
