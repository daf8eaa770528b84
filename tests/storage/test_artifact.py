"""Models on disk: what is written is what is read, and every byte of it is proved."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from sample_artifacts import FILES, content, read, write

from acclimate.errors import ConfigError, FormatError, MismatchError, OutputError, OutputExistsError
from acclimate.storage import FORMAT, read_artifact, read_kind, write_artifact

READINGS = (read_kind, read)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "new" / "deep" / "model", cells=10, rows=5, note="a note")
    stored = read(tmp_path / "new" / "deep" / "model")
    rng = np.random.default_rng(0)
    assert stored.manifest["note"] == "a note"
    assert stored.manifest["numbers"] == [0.1, 2]
    assert set(stored.arrays) == {"x", "turned"}
    np.testing.assert_array_equal(stored.arrays["x"], rng.normal(size=10))
    np.testing.assert_array_equal(stored.arrays["turned"], [[0, 3], [1, 4], [2, 5]])
    assert stored.tables["things"].to_pydict() == {"id": rng.integers(0, 2**62, 5).tolist(), "text": ["é"] * 5}
    assert sorted(content(tmp_path / "new" / "deep" / "model")) == sorted(FILES)


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path):
    write(tmp_path / "day=3" / "model")
    assert read(tmp_path / "day=3" / "model").tables["things"].column_names == ["id", "text"]


def test_text_paths_and_relative_paths_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("model")
    assert read("model").manifest["format"] == FORMAT


def test_the_next_generation_takes_the_place_of_the_last_one(tmp_path):
    write(tmp_path / "model", note="first")
    identity = (tmp_path / "model").stat().st_ino
    for number in (2, 3):
        write(tmp_path / "model", note=f"note {number}", overwrite=True)
        assert sorted(os.listdir(tmp_path / "model")) == [f"generation-{number}", "manifest.json", "rows"]
        assert os.listdir(tmp_path / "model" / "rows") == [f"things-{number}-0.safetensors"]
        assert read(tmp_path / "model").manifest["note"] == f"note {number}"
    assert (tmp_path / "model").stat().st_ino == identity
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_a_free_place_the_current_one_too(tmp_path, monkeypatch, overwrite):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    write(".", overwrite=overwrite)
    assert read(".").manifest["kind"] == "thing"
    write(".", note="next", overwrite=True)
    assert read(tmp_path / "model").manifest["note"] == "next"
    assert os.listdir(tmp_path) == ["model"]


def test_a_link_to_a_model_stays_one(tmp_path):
    write(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", note="by the link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "real").manifest["note"] == "by the link"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask_the_same_for_all(tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "model")
        write(tmp_path / "model", overwrite=True)
    finally:
        os.umask(before)
    for place, folders, names in os.walk(tmp_path / "model"):
        assert {Path(place, name).stat().st_mode & 0o777 for name in names} == {0o666 & ~umask}
        assert {Path(place, name).stat().st_mode & 0o777 for name in folders} <= {0o777 & ~umask}
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~umask


def test_what_was_expected_is_replaced_and_nothing_else(tmp_path):
    first = write(tmp_path / "model", note="first")
    second = write(tmp_path / "model", note="second", overwrite=True, expected=first)
    before = content(tmp_path / "model")
    for seal in (first, "0" * 64):
        with pytest.raises(OutputExistsError, match=r"saved by another since .* nothing was touched"):
            write(tmp_path / "model", note="third", overwrite=True, expected=seal)
    assert content(tmp_path / "model") == before
    write(tmp_path / "model", overwrite=True, expected=second)


TOO_LARGE = {
    "arrays.safetensors": {"cells": 10_000},
    "things.parquet": {"rows": 10_000},
    "things-1-0.safetensors": {"entities": 10_000},
    "manifest.json": {"note": "x" * 50_000},
}


@pytest.mark.parametrize("part", TOO_LARGE)
@pytest.mark.parametrize("old", [False, True], ids=["new", "over an old one"])
def test_a_disk_that_refuses_leaves_all_as_it_was(tmp_path, no_file_beyond, part, old):
    if old:
        write(tmp_path / "model", note="old")
    before = content(tmp_path) if old else {}
    with no_file_beyond(20_000), pytest.raises(OutputError, match=os.strerror(errno.EFBIG)) as caught:
        write(tmp_path / "model", **TOO_LARGE[part], overwrite=old)
    assert str(tmp_path / "model") in str(caught.value)
    assert content(tmp_path) == before
    # The limit bites on that part alone: without it the same is written.
    write(tmp_path / "model", **TOO_LARGE[part], overwrite=old)
    large = [name for name, data in content(tmp_path / "model").items() if len(data) > 20_000]
    assert [name.rpartition("/")[2].replace("-2-", "-1-") for name in large] == [part]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_as_the_manifest_is_replaced_leaves_the_old_or_the_new(tmp_path, monkeypatch, moment):
    """A signal may come between the replacing and the next line."""
    write(tmp_path / "model", note="old")
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if moment == "after":
            replace(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "model", note="new", overwrite=True)
    monkeypatch.undo()
    assert read(tmp_path / "model").manifest["note"] == ("new" if moment == "after" else "old")
    assert len(content(tmp_path / "model")) == len(FILES)


def test_segments_go_on_and_what_is_no_longer_listed_goes(tmp_path):
    write(tmp_path / "model", seed=1)
    (first,) = read(tmp_path / "model").segments["things"]
    write(tmp_path / "model", seed=2, segments=[first], overwrite=True)
    kept, second = read(tmp_path / "model").segments["things"]
    assert kept.path == first.path
    assert kept.path.stat().st_ino == first.path.stat().st_ino
    write(tmp_path / "copy", segments=[kept, second])  # under names of its own, whatever becomes of the first ones
    write(tmp_path / "model", overwrite=True)
    assert os.listdir(tmp_path / "model" / "rows") == ["things-3-0.safetensors"]
    numbers = [segment.columns["number"].tolist() for segment in read(tmp_path / "copy").segments["things"]]
    assert numbers == [[1, 2, 3], [2, 3, 4], [0, 1, 2]]


def test_segments_are_copied_where_no_file_can_have_two_names(tmp_path, monkeypatch):
    write(tmp_path / "model")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write(tmp_path / "copy", segments=read(tmp_path / "model").segments["things"], seed=1)
    shutil.rmtree(tmp_path / "model")
    numbers = [segment.columns["number"].tolist() for segment in read(tmp_path / "copy").segments["things"]]
    assert numbers == [[0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize("what", ["gone", "another's"])
def test_segments_whose_names_have_gone_are_written_from_what_was_read(tmp_path, what):
    write(tmp_path / "model", seed=1)
    segments = read(tmp_path / "model").segments["things"]
    shutil.rmtree(tmp_path / "model")
    if what == "another's":
        write(tmp_path / "model", seed=7)
    for place in ("elsewhere", "model"):
        write(tmp_path / place, segments=segments, seed=2, overwrite=True)
        numbers = [segment.columns["number"].tolist() for segment in read(tmp_path / place).segments["things"]]
        assert numbers == [[1, 2, 3], [2, 3, 4]]


def test_segments_that_others_may_not_read_are_copied_for_those_who_may(tmp_path):
    before = os.umask(0o077)
    try:
        write(tmp_path / "mine")
        os.umask(0o022)
        write(tmp_path / "ours", segments=read(tmp_path / "mine").segments["things"])
    finally:
        os.umask(before)
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "ours" / "rows").iterdir()}
    assert modes == {0o644}


def test_segments_go_to_other_processes_by_name(tmp_path):
    write(tmp_path / "model")
    (segment,) = read(tmp_path / "model").segments["things"]
    other = pickle.loads(pickle.dumps(segment))
    assert other.at(np.arange(3)).columns["number"].tolist() == [0, 1, 2]


def test_what_json_cannot_hold_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_artifact(tmp_path / "out", kind="thing", manifest={"bad": float("nan")}, arrays={}, tables={})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["", "a\0b", "a\udcffb"])
def test_a_place_without_a_name_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the place for the result"):
        write(path)
    assert os.listdir(tmp_path) == []


# --- every byte is proved ------------------------------------------------------------------------------------


def test_no_flipped_byte_is_read(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "model", cells=200, rows=50, note="a note")
    before = content(tmp_path / "model")
    accepted, refused = 0, list[str]()
    for _ in range(2_000):
        name = FILES[rng.integers(len(FILES))]
        data = bytearray(before[name])
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        (tmp_path / "model" / name).write_bytes(data)
        try:
            stored = read(tmp_path / "model")
        except FormatError as error:
            refused.append(str(error))
        else:  # white space between two keys of the manifest
            accepted += 1
            assert name == "manifest.json"
            assert json.loads(data) == json.loads(before[name]) == stored.manifest
        (tmp_path / "model" / name).write_bytes(before[name])
    assert accepted < 100
    assert len(refused) + accepted == 2_000
    assert not any("\n" in message for message in refused)
    read(tmp_path / "model")


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("keep", [0, 2, 0.5, 0.9], ids=["empty", "two bytes", "half", "most"])
def test_a_truncated_artefact_is_damaged(tmp_path, part, keep):
    write(tmp_path / "model", cells=500, rows=500)
    file = tmp_path / "model" / part
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(FormatError, match="model is damaged"):
        read(tmp_path / "model")


@pytest.mark.parametrize("part", FILES)
def test_a_file_of_another_model_is_damage(tmp_path, part):
    write(tmp_path / "model", note="one")
    write(tmp_path / "other", note="two", seed=1)
    (tmp_path / "model" / part).write_bytes((tmp_path / "other" / part).read_bytes())
    with pytest.raises(FormatError, match="model is damaged"):
        read(tmp_path / "model")


@pytest.mark.parametrize("part", FILES)
def test_an_absent_part_is_named(tmp_path, part):
    write(tmp_path / "model")
    (tmp_path / "model" / part).unlink()
    with pytest.raises(FormatError, match=rf"absent or incomplete: .*{part}"):
        read(tmp_path / "model")


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("what", ["folder", "fifo", "zero", "loop"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, part, what):
    write(tmp_path / "model")
    path = tmp_path / "model" / part
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "zero" else path.name)
    with pytest.raises(FormatError):
        read(tmp_path / "model")


MANIFESTS = {
    "empty": b"",
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "no seal": f'{{"format": {FORMAT}, "kind": "thing"}}'.encode(),
    "latin": b"\xff",
    "deep": b"[" * 100_000,
    "long number": b'{"format": ' + b"9" * 5_000 + b"}",
    "nul": b"\0" * 10,
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_none_is_damaged(tmp_path, text):
    write(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_bytes(text)
    for reading in READINGS:
        with pytest.raises(FormatError, match=r"model is damaged|model has format") as caught:
            reading(tmp_path / "model")
        assert caught.value.hint
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("key", ["kind", "note", "numbers", "files", "generation", "tables", "artifact"])
def test_an_edited_manifest_is_damaged(tmp_path, key):
    write(tmp_path / "model")
    file = tmp_path / "model" / "manifest.json"
    manifest = json.loads(file.read_text())
    for edited in ({**manifest, key: "other"}, {k: v for k, v in manifest.items() if k != key}):
        file.write_text(json.dumps(edited))
        for reading in READINGS:
            with pytest.raises(FormatError, match="was changed after it was written"):
                reading(tmp_path / "model")


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/../../b", "a//b", "", ".", "c:\\x", "a\0b"])
def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path, name):
    from acclimate.storage.manifest import Part, write_manifest

    write_manifest(tmp_path, {"kind": "thing", "generation": 1, "tables": []}, "model", {name: Part(1, "0")})
    with pytest.raises(FormatError, match="no path inside"):
        read(tmp_path)


def test_the_kind_is_read_without_the_rest(tmp_path):
    write(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "generation-1")
    assert read_kind(tmp_path / "model") == read_kind(str(tmp_path / "model")) == "thing"
    with pytest.raises(FormatError, match="absent or incomplete"):
        read(tmp_path / "model")


def test_another_format_or_kind_is_refused(tmp_path):
    write(tmp_path / "model")
    with pytest.raises(MismatchError, match="holds a 'thing', not a 'glmix'"):
        read_artifact(tmp_path / "model", kind="glmix")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    for other in (FORMAT + 1, FORMAT - 1, None, str(FORMAT)):
        (tmp_path / "model" / "manifest.json").write_text(json.dumps({**manifest, "format": other}))
        for reading in READINGS:
            with pytest.raises(
                FormatError, match=f"format {other}; this version of acclimate reads format {FORMAT}"
            ):
                reading(tmp_path / "model")


def test_no_artefact_at_all(tmp_path):
    (tmp_path / "file").write_text("text")
    for reading in READINGS:
        with pytest.raises(FormatError, match="absent or incomplete"):
            reading(tmp_path / "nowhere")
        with pytest.raises(FormatError, match="file is damaged"):
            reading(tmp_path / "file")
