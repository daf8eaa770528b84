"""Rows in files: found by id, the newest of each, and no flipped byte is read."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from acclimate.arrays import IdArray
from acclimate.errors import FormatError
from acclimate.storage import segments
from acclimate.storage.manifest import Differs, part_of
from acclimate.storage.segments import Rows, Segment, head_of, keys_of, open_segment, texts_of, visible

COLUMNS = {"rows": ("<i8", ()), "values": ("<f4", (3,)), "parts": ("<i4", (2, 2))}


def ids_of(numbers: Any, *, text: bool) -> IdArray:
    if text:
        return np.array([f"ü{number}" * (number % 4) + str(number) for number in numbers], np.dtypes.StringDType())
    return np.array(numbers, np.int64)


def rows_of(ids: IdArray, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    columns = {
        name: rng.integers(-99, 99, (len(ids), *shape)).astype(kind) for name, (kind, shape) in COLUMNS.items()
    }
    return Rows.of(ids, columns)


def stored(path: Path, *layers: Rows) -> Segment:
    segments.write_segment(path, list(zip(layers, visible(layers), strict=True)), lambda rows: rows)
    return open_segment(path, part_of(path), head_of(path))


def entries(rows: Rows) -> dict[Any, list[Any]]:
    columns = [rows.columns[name].tolist() for name in COLUMNS]
    return dict(zip(rows.ids.tolist(), zip(*columns, strict=True), strict=True))


numbers = st.lists(st.integers(-40, 40), unique=True, max_size=30)


@given(st.lists(numbers, min_size=1, max_size=4), st.booleans(), st.sampled_from([150, 1 << 24]))
@settings(max_examples=100, deadline=None)
def test_the_newest_row_of_each_id_is_kept(tmp_path_factory, batches, text, strip):
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    layers = [rows_of(ids_of(batch, text=text), seed) for seed, batch in enumerate(batches)]
    expected = {id: entry for layer in layers for id, entry in entries(layer).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_STRIP_BYTES", strip)
        segment = stored(path, *layers)
        assert entries(segment.at(np.arange(len(segment)))) == expected
    asked = ids_of(range(-45, 45), text=text)
    order = np.argsort(keys_of(asked))
    place = segment.find(keys_of(asked)[order], texts_of(asked[order]))
    known = np.array([id in expected for id in asked[order].tolist()])
    assert_array_equal(place >= 0, known)
    assert segment.at(place[known]).ids.tolist() == asked[order][known].tolist()
    assert segment.layout == {name: COLUMNS[name] for name in COLUMNS}


def test_texts_of_one_hash_are_told_from_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "keys_of", lambda ids: np.array([len(id) for id in ids.tolist()], np.int64))
    ids = np.array(["aa", "bb", "c", "dd", "eee"], np.dtypes.StringDType())
    older, newer = rows_of(ids), rows_of(ids[[3, 1]], seed=1)
    segment = stored(tmp_path / "rows.safetensors", older, newer)
    assert entries(segment.at(np.arange(5))) == {**entries(older), **entries(newer)}
    asked = np.array(["zz", "dd", "aa", "e", "bb", "eee", "ffff"], np.dtypes.StringDType())
    place = segment.find(np.array([len(id) for id in asked.tolist()]), texts_of(asked))
    assert segment.ids[place[place >= 0]].tolist() == ["dd", "aa", "bb", "eee"]


def test_it_is_a_safetensors_file_with_aligned_columns(tmp_path):
    segment = stored(tmp_path / "rows.safetensors", rows_of(ids_of(range(7), text=True)))
    columns = load_file(tmp_path / "rows.safetensors")
    for name in COLUMNS:
        assert_array_equal(columns[name], segment.columns[name])
        assert segment.columns[name].flags.aligned
    assert bytes(columns["text"]).decode() == "".join(segment.ids.tolist())


@pytest.mark.parametrize("text", [False, True])
def test_no_flipped_byte_is_read(tmp_path, text):
    ids, path = ids_of(range(60), text=text), tmp_path / "rows.safetensors"
    whole = entries(stored(path, rows_of(ids)).at(np.arange(60)))
    part, head, data = part_of(path), head_of(path), path.read_bytes()
    order = np.argsort(keys_of(ids))
    key, texts = keys_of(ids)[order], texts_of(ids[order])
    rng, refused = np.random.default_rng(0), 0
    for _ in range(1_000):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            segment = open_segment(path, part, head)
            segment.at(segment.find(key, texts))
        except (Differs, FormatError):
            refused += 1
    assert refused == 1_000
    path.write_bytes(data)
    assert entries(open_segment(path, part, head).at(np.arange(60))) == whole


def test_a_hole_of_zeros_is_no_row(tmp_path):
    path = tmp_path / "rows.safetensors"
    stored(path, Rows.of(np.array([0]), {"rows": np.array([1])}))
    part, head = part_of(path), head_of(path)
    path.write_bytes(path.read_bytes()[: head[0]] + bytes(part.size - head[0]))
    with pytest.raises(FormatError, match="rows of it are not what was written"):
        open_segment(path, part, head).at(np.array([0]))


@pytest.mark.parametrize("text", [False, True])
def test_no_rows_are_a_segment_too(tmp_path, text):
    segment = stored(tmp_path / "rows.safetensors", rows_of(ids_of([], text=text)))
    assert len(segment) == len(segment.ids) == 0
    asked = ids_of([1, 2], text=text)
    assert segment.find(keys_of(asked), texts_of(asked)).tolist() == [-1, -1]


def test_what_was_read_goes_on_when_the_file_has_gone_and_is_not_copied(tmp_path):
    segment = stored(tmp_path / "rows.safetensors", rows_of(ids_of(range(5), text=False)))
    (tmp_path / "rows.safetensors").unlink()
    assert copy.deepcopy(segment) is segment
    assert segment.at(np.array([3])).ids.tolist() == [3]


def test_another_size_is_damage(tmp_path):
    path = tmp_path / "rows.safetensors"
    stored(path, rows_of(ids_of(range(5), text=False)))
    part, head = part_of(path), head_of(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Differs):
        open_segment(path, part, head)
