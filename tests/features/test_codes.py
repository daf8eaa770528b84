"""Values as numbers, and ids as NumPy holds them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from acclimate.errors import MismatchError
from acclimate.features import codes_of, flat, id_type, ids_as, ids_as_arrow, positions

TEXT = np.dtypes.StringDType()


@pytest.mark.parametrize("missing", [[], [None]], ids=["all known", "some missing"])
def test_codes_number_the_distinct_values_as_they_come(missing):
    codes, values = codes_of(pa.array(["b", "a", *missing, "b", *missing, "c"]))
    assert values.to_pylist() == ["b", "a", *missing, "c"]
    assert codes.dtype == np.int64
    assert [values.to_pylist()[code] for code in codes] == ["b", "a", *missing, "b", *missing, "c"]


def test_codes_of_columns_in_chunks():
    column = pa.chunked_array([pa.array([3, 3]), pa.array([], pa.int64()), pa.array([1, 3])])
    codes, values = codes_of(column)
    assert codes.tolist() == [0, 0, 1, 0]
    assert values.to_pylist() == [3, 1]
    codes, values = codes_of(pa.chunked_array([], pa.string()))
    assert codes.shape == (0,)
    assert len(values) == 0


@given(values=st.lists(st.text(max_size=3) | st.none(), max_size=20), cut=st.integers(0, 20))
def test_codes_lead_back_to_the_values(values, cut):
    parts = [pa.array(part, pa.string()) for part in (values[:cut], values[cut:])]
    codes, distinct = codes_of(pa.chunked_array(parts))
    assert [distinct.to_pylist()[code] for code in codes] == values
    assert distinct.to_pylist() == list(dict.fromkeys(values))


def test_flat_is_one_array():
    parts = pa.chunked_array([pa.array([1, 2]), pa.array([3])])
    for column in (parts, pa.chunked_array([], pa.int64()), pa.array([1, 2])):
        assert isinstance(flat(column), pa.Array)
        assert flat(column).to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (pa.int64(), "int64"),
        (pa.int16(), "int64"),
        (pa.uint32(), "int64"),
        (pa.null(), "int64"),
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
    ],
    ids=str,
)
def test_ids_are_kept_as_whole_numbers_or_as_text(kind, kept):
    assert id_type(kind) == kept


@pytest.mark.parametrize(
    ("ids", "kind", "expected"),
    [
        (pa.array([7, -1], pa.int32()), "int64", np.array([7, -1])),
        (pa.array([7, 2**63 - 1]), "int64", np.array([7, 2**63 - 1])),
        (pa.array(["7", "-1"]), "int64", np.array([7, -1])),
        (pa.array([], pa.null()), "int64", np.array([], np.int64)),
        (pa.array(["a", "用户", ""], pa.large_string()), "string", np.array(["a", "用户", ""], TEXT)),
        (pa.array(["a", "b"]).dictionary_encode(), "string", np.array(["a", "b"], TEXT)),
        (pa.array([7, 8], pa.int16()), "string", np.array(["7", "8"], TEXT)),
        (pa.array([], pa.string()), "string", np.array([], TEXT)),
    ],
    ids=str,
)
def test_ids_as_they_are_kept(ids, kind, expected):
    kept = ids_as(ids, kind, "'user'")
    assert kept.dtype == expected.dtype
    assert kept.tolist() == expected.tolist()
    assert ids_as_arrow(kept, kind).to_pylist() == expected.tolist()
    assert ids_as_arrow(kept, kind).type == (pa.int64() if kind == "int64" else pa.string())


@pytest.mark.parametrize(
    ("ids", "kind"), [(pa.array(["anna", "7"]), "string"), (pa.array([2**63], pa.uint64()), "uint64")], ids=str
)
def test_ids_that_cannot_be_numbers_are_refused(ids, kind):
    with pytest.raises(MismatchError, match=f"ids of 'user' are {kind}, those learned before are int64"):
        ids_as(ids, "int64", "'user'")


def test_positions_of_ids():
    known = pa.array(["b", "a"])
    assert_array_equal(positions(pa.array(["a", "c", "b", "a"]), known), [1, -1, 0, 1])
    assert_array_equal(positions(pa.array([], pa.string()), known), [])
    assert_array_equal(positions(pa.array([5]), pa.array([], pa.int64())), [-1])
