"""Values as numbers: which of the distinct values each row has, and ids as NumPy holds them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import ArrowArray, IdArray, IntArray
from acclimate.errors import MismatchError


def codes_of(column: ArrowArray) -> tuple[IntArray, ArrowArray]:
    """Which of the distinct values each row has, ``(n,)``, and these; a missing value is one of them."""
    encoded: Any = flat(column).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def flat(column: ArrowArray) -> ArrowArray:
    """The column of a table as one array."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def positions(ids: ArrowArray, known: ArrowArray) -> IntArray:
    """Where each id stands among the known ones, -1 for unknown."""
    places: Any = pc.index_in(ids, value_set=known)
    return places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def id_type(kind: Any) -> str:
    """How ids of an Arrow type are kept: ``int64`` or ``string``."""
    return "int64" if pa.types.is_integer(kind) or pa.types.is_null(kind) else "string"


def ids_as(ids: ArrowArray, kind: str, of: str) -> IdArray:
    """Ids of ``of``, say ``'user'``, as they are kept: in the type that :func:`id_type` gave.

    Raises:
        MismatchError: they cannot be of that type.
    """
    try:
        values: Any = ids.cast(_arrow_type(kind)).drop_null()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise MismatchError(
            f"ids of {of} are {ids.type}, those learned before are {kind}",
            hint="bring them to one type, or fit anew",
        ) from error
    if len(values) < len(ids):
        raise MismatchError(f"{len(ids) - len(values)} ids of {of} are missing", hint="every entity needs an id")
    return values.to_numpy() if kind == "int64" else np.array(values.to_pylist(), np.dtypes.StringDType())


def ids_as_arrow(ids: IdArray, kind: str) -> ArrowArray:
    """Ids as they are kept, as an Arrow array of that type."""
    return pa.array(ids.tolist(), _arrow_type(kind))


def _arrow_type(kind: str) -> Any:
    return pa.int64() if kind == "int64" else pa.string()
