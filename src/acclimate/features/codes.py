"""Values as numbers: which of the distinct values each row has, and ids as NumPy holds them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import ArrowArray, BoolArray, IdArray, IntArray
from acclimate.errors import MismatchError

_NO_ID: dict[str, Any] = {"int64": -(2**63), "string": "\x1e"}
"""What stands for the id of a row that has none, so that stores never know it."""


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
    whole = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return "int64" if whole else "string"


def ids_as(ids: ArrowArray, kind: str, of: str, *, missing: bool = False) -> IdArray:
    """Ids of ``of``, say ``'user'``, as they are kept: in the type that :func:`id_type` gave.

    Whole numbers may come as floats: that is what many tools make of integers among which one is missing. Where
    ids may be ``missing``, these come as the one that :func:`has_id` tells from all others.

    Raises:
        MismatchError: they cannot be of that type, or some are missing and must not be.
    """
    kept = kept_as(ids, kind, of)
    if pc.any(pc.equal(kept, _NO_ID[kind])).as_py():
        raise MismatchError(
            f"{_NO_ID[kind]!r}, an id of {of}, stands for a missing one", hint="give it another id"
        )
    if kept.null_count and not missing:
        raise MismatchError(f"{kept.null_count} ids of {of} are missing", hint="every entity needs an id")
    values = kept.fill_null(_NO_ID[kind])
    return values.to_numpy() if kind == "int64" else np.array(values.to_pylist(), np.dtypes.StringDType())


def kept_as(ids: ArrowArray, kind: str, of: str) -> Any:
    """The ids as an Arrow array of that type, null where missing.

    Raises:
        MismatchError: they cannot be of that type.
    """
    try:
        return _numbers_known(ids).cast(_arrow_type(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise MismatchError(
            f"ids of {of} are {ids.type}, those learned before are {kind}",
            hint="bring them to one type, or fit anew",
        ) from error


def has_id(ids: IdArray) -> BoolArray:
    """Which of the ids are not missing ``(n,)``."""
    return ids != _NO_ID["int64" if ids.dtype.kind == "i" else "string"]


def _numbers_known(ids: ArrowArray) -> Any:
    """The same, null where a number is NaN."""
    if not pa.types.is_floating(ids.type):
        return ids
    is_nan: Any = pc.is_nan
    return pc.if_else(is_nan(ids), pa.scalar(None, ids.type), ids)


def ids_as_arrow(ids: IdArray, kind: str) -> ArrowArray:
    """Ids as they are kept, as an Arrow array of that type."""
    return pa.array(ids.tolist(), _arrow_type(kind))


def _arrow_type(kind: str) -> Any:
    return pa.int64() if kind == "int64" else pa.string()
