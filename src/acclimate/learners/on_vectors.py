"""What the users of frozen vectors do alike: belong to one space, and go to disk and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from acclimate.arrays import IdArray, IntArray
from acclimate.errors import ConfigError, MismatchError, RowError
from acclimate.features import id_type, ids_as, ids_as_arrow
from acclimate.learners.base import Packed
from acclimate.learners.gate import check_arrays
from acclimate.storage import Stored, read_artifact, unpacking, write_artifact

_LARGEST = 1e15
"""Of a number in a vector: sums of products of two are still within float32."""


class OnVectors(ABC):
    """A model of vectors of one space, which takes no others: those of a retrained encoder are another feature."""

    kind_on_disk: ClassVar[str]
    _saved: tuple[Path, str] | None = None
    """Where it was last saved or loaded from, and the seal of what is there."""

    @property
    @abstractmethod
    def space(self) -> str:
        """The identity of the encoder whose vectors it takes."""

    @abstractmethod
    def _packed(self) -> Packed:
        """What it is, but for its space, as it goes to disk."""

    @classmethod
    @abstractmethod
    def _unpacked(cls, stored: Stored) -> Self:
        """The same taken back."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as a folder (JSON, safetensors, Parquet), whole or not at all.

        Raises:
            NotFittedError: there is nothing to save.
            ModelError: something in it is not finite.
            OutputExistsError: the place is taken, or another has saved there since this one was loaded.
            OutputError: the place cannot be written.
        """
        packed, place = self._packed(), Path(path).absolute()
        check_arrays(type(self).__name__, packed.arrays)
        seal = write_artifact(
            path,
            kind=self.kind_on_disk,
            manifest={"space": self.space, **packed.manifest},
            arrays=packed.arrays,
            tables=packed.tables,
            overwrite=overwrite,
            expected=self._saved[1] if self._saved and self._saved[0] == place else None,
        )
        self._saved = (place, seal)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FormatError: there is none, it is damaged or of another version.
            MismatchError: it is of another kind.
        """
        stored = read_artifact(path, kind=cls.kind_on_disk)
        with unpacking(path):
            loaded = cls._unpacked(stored)
        loaded._saved = (Path(path).absolute(), stored.manifest["seal"])
        return loaded

    def shared(self) -> Packed:
        """All that it is, as it goes to disk, but for its space."""
        return self._packed()

    def _check_space(self, space: str) -> None:
        """Raises MismatchError where vectors are of another space."""
        if space != self.space:
            raise MismatchError(
                f"vectors of space '{space}' for this {type(self).__name__} of space '{self.space}'",
                hint="map them (UserEncoder.in_space), or fit it anew on the new vectors",
            )

    def _taken(self, vectors: ArrayLike, size: int) -> NDArray[Any]:
        """Vectors ``(n, size)``; raises MismatchError where they are of another size, else as vectors_as."""
        taken = vectors_as(vectors)
        if taken.shape[1] != size:
            raise MismatchError(f"vectors {taken.shape} for this {type(self).__name__} of vectors of {size}")
        return taken


def vectors_as(vectors: ArrayLike) -> NDArray[Any]:
    """Vectors ``(n, s)`` in the type that they have, or as float64 where that is of whole numbers.

    Raises:
        ConfigError: they are no table of numbers.
        RowError: a number is not finite, or beyond 1e15.
    """
    taken = np.asarray(vectors)
    if taken.dtype.kind not in "fiub":
        raise ConfigError(f"vectors of {taken.dtype}", hint="give a table (n, s) of numbers")
    taken = taken if taken.dtype.kind == "f" else taken.astype(np.float64)
    if taken.ndim != 2 or not taken.shape[1]:
        raise ConfigError(f"vectors of shape {taken.shape}", hint="give a table (n, s)")
    within = np.abs(taken) <= _LARGEST
    if not within.all():
        rows = np.flatnonzero(~within.all(axis=1))
        raise RowError(
            f"vectors are not finite, or beyond {_LARGEST:g}, in {len(rows):,} of {len(taken):,} rows, "
            f"first in rows {rows[:5].tolist()}"
        )
    return taken


def column_of(ids: ArrayLike, what: str, kind: str | None = None) -> tuple[IdArray, str]:
    """Ids ``(n,)`` as they are kept, in the type asked for or their own, ``int64`` or ``string``, and that type.

    Raises:
        MismatchError: they are of several types, of another one, neither whole numbers nor text, or missing.
    """
    given: Sequence[Any] = list(ids) if isinstance(ids, list | tuple) else np.asarray(ids).tolist()
    try:
        column: Any = pa.array(given)
    except OverflowError as error:
        raise MismatchError(f"ids of {what} are neither whole numbers of 64 bits nor text") from error
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise MismatchError(f"ids of {what} are of several types", hint="bring them to one type") from error
    if not any(is_such(column.type) for is_such in (pa.types.is_integer, pa.types.is_string, pa.types.is_null)):
        raise MismatchError(f"ids of {what} are {column.type}", hint="give whole numbers or text")
    kind = kind or id_type(column.type)
    return ids_as(column, kind, what), kind


def row_numbers(rows: ArrayLike) -> IntArray:
    """Which rows are meant, ``(n,)``.

    Raises:
        ConfigError: they are no whole numbers.
    """
    taken = np.asarray(rows)
    if taken.size and taken.dtype.kind not in "iu":
        raise ConfigError(f"rows of {taken.dtype}", hint="give whole numbers, from 0 on")
    return taken.astype(np.int64)


def table_of(ids: IdArray, kind: str) -> pa.Table:
    """Ids as they go to disk."""
    return pa.table({"id": ids_as_arrow(ids, kind)})


def ids_in(stored: Stored) -> IdArray:
    """Ids that :func:`table_of` gave."""
    column: Any = stored.tables["ids"]["id"].combine_chunks()
    return ids_as(column, stored.manifest["ids"], "the table of ids")
