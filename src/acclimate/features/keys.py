"""Keys of several columns: an entity for each combination of their values, kept as one text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acclimate.arrays import ArrowArray, IdArray
from acclimate.errors import MismatchError
from acclimate.features.codes import id_type, kept_as

BETWEEN = "\x1f"
"""Stands between the ids of a combination."""


def key_column(table: pa.Table, columns: Sequence[str]) -> ArrowArray:
    """The ids of rows ``(n,)``: a column, or several side by side as text; missing where one of them is.

    Raises:
        MismatchError: a column of several is of a type that no ids are of.
    """
    if len(columns) == 1:
        return table[columns[0]]
    kept = [kept_as(table[name], id_type(table[name].type), f"column '{name}'") for name in columns]
    joined: Any = pc.binary_join_element_wise
    return joined(*(ids.cast(pa.string()) for ids in kept), BETWEEN)


def combined(name: str, parts: Sequence[str], ids: IdArray | Sequence[Any]) -> IdArray | Sequence[Any]:
    """Ids of ``name`` as they are kept: those of a combination, one id of each of its ``parts``, as text.

    Raises:
        MismatchError: an id of a combination has not as many parts.
    """
    if len(parts) == 1:
        return ids
    for id in ids:
        if not isinstance(id, Sequence | np.ndarray) or isinstance(id, str) or len(id) != len(parts):
            raise MismatchError(
                f"an id of '{name}' is of {len(parts)} parts: {', '.join(parts)}; got {id!r}",
                hint=f"give tuples ({', '.join(parts)})",
            )
    return [BETWEEN.join(map(str, id)) for id in ids]


def shown(id: Any) -> str:
    """An id as it is told; of a combination its parts."""
    return ", ".join(str(id).split(BETWEEN))
