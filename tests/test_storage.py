"""Artefacts on disk: what is written is what is read, and nothing half-written ever has a final name."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from acclimate.errors import FormatError, MismatchError, OutputError, OutputExistsError
from acclimate.storage import FORMAT, check_free, read_artifact, read_kind, replacing_folder, write_artifact

PARTS = ("arrays.safetensors", "manifest.json", "things.parquet")


def write(path: Path | str, *, cells: int = 4, rows: int = 3, note: str = "", overwrite: bool = False) -> None:
    rng = np.random.default_rng(0)
    write_artifact(
        path,
        kind="thing",
        manifest={"note": note, "numbers": [0.1, 2]},
        arrays={"x": rng.normal(size=cells), "turned": np.arange(6).reshape(2, 3).T},
        tables={"things": pa.table({"id": rng.integers(0, 2**62, rows), "text": ["é"] * rows})},
        overwrite=overwrite,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "new" / "deep" / "model", cells=10, rows=5, note="a note")
    stored = read_artifact(tmp_path / "new" / "deep" / "model", kind="thing")
    rng = np.random.default_rng(0)
    assert stored.manifest["note"] == "a note"
    assert stored.manifest["numbers"] == [0.1, 2]
    assert set(stored.arrays) == {"x", "turned"}
    np.testing.assert_array_equal(stored.arrays["x"], rng.normal(size=10))
    np.testing.assert_array_equal(stored.arrays["turned"], [[0, 3], [1, 4], [2, 5]])
    assert stored.tables["things"].to_pydict() == {"id": rng.integers(0, 2**62, 5).tolist(), "text": ["é"] * 5}
    assert sorted(content(tmp_path / "new" / "deep" / "model")) == sorted(PARTS)


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path):
    write(tmp_path / "day=3" / "model")
    assert read_artifact(tmp_path / "day=3" / "model", kind="thing").tables["things"].column_names == [
        "id",
        "text",
    ]


def test_text_paths_and_relative_paths_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("model")
    assert read_artifact("model", kind="thing").manifest["format"] == FORMAT


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_taken_place_is_left_alone_unless_told_otherwise(tmp_path, taken):
    place = tmp_path / "model"
    if taken == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "note.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"model exists already"):
        write(place)
    with pytest.raises(OutputExistsError):
        check_free(place)
    assert (place if taken == "file" else place / "note.txt").read_text() == "mine"
    for attempt in (check_free, write):
        with pytest.raises(OutputExistsError, match=r"holds something else .* nothing was touched"):
            attempt(place, overwrite=True)
    assert (place if taken == "file" else place / "note.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("marker", ["manifest.json", "metrics.json", "acclimate.yaml"])
def test_what_acclimate_wrote_is_overwritten_when_asked(tmp_path, marker):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / marker).write_text("old")
    (tmp_path / "out" / "note.txt").write_text("old")
    with pytest.raises(OutputExistsError, match="exists already"):
        write(tmp_path / "out")
    check_free(tmp_path / "out", overwrite=True)
    write(tmp_path / "out", overwrite=True)
    assert sorted(content(tmp_path / "out")) == sorted(PARTS)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_current_folder_is_filled_if_it_is_empty(tmp_path, monkeypatch, overwrite):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    write(".", overwrite=overwrite)
    assert os.listdir(tmp_path) == ["model"]
    assert read_artifact(".", kind="thing").manifest["kind"] == "thing"
    assert sorted(os.listdir()) == sorted(PARTS)
    for place in (".", ".."):
        with pytest.raises(OutputExistsError):
            check_free(place)
    (tmp_path / "manifest.json").write_text("")
    for place in (".", ".."):
        with pytest.raises(OutputExistsError, match="current folder"):
            write(place, overwrite=True)
    assert sorted(os.listdir()) == sorted(PARTS)


def test_the_current_folder_stays_empty_if_it_cannot_be_filled(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == tmp_path / "model" / "manifest.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match=os.strerror(errno.EIO)):
        write(".")
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir() == []


def test_what_appears_meanwhile_is_left_alone(tmp_path):
    def meanwhile() -> None:
        with replacing_folder(tmp_path / "out"):
            (tmp_path / "out").write_text("mine")

    with pytest.raises(OutputExistsError, match="exists already"):
        meanwhile()
    assert (tmp_path / "out").read_text() == "mine"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["file/model", "file/below/model"])
def test_a_place_below_a_file_is_found_early(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"model cannot be written: .*file is a file"):
        check_free(tmp_path / place)
    with pytest.raises(OutputError, match="cannot be written"):
        check_free(tmp_path / ("x" * 300))


def test_a_place_without_permission_is_found_early(tmp_path, monkeypatch):
    asked = []

    def access(place: Path, mode: int) -> bool:
        asked.append((place, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(OutputError, match="nothing can be written in") as caught:
        check_free(tmp_path / "new" / "deep" / "model")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert caught.value.hint == "check the permissions"
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_a_free_place(tmp_path):
    (tmp_path / "model").mkdir()
    write(tmp_path / "model")
    assert read_artifact(tmp_path / "model", kind="thing").manifest["kind"] == "thing"
    assert os.listdir(tmp_path) == ["model"]


TOO_LARGE = {
    "arrays.safetensors": {"cells": 10_000},
    "things.parquet": {"rows": 10_000},
    "manifest.json": {"note": "x" * 50_000},
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("old", [False, True], ids=["new", "over an old one"])
def test_a_disk_that_refuses_leaves_all_as_it_was(tmp_path, no_file_beyond, part, old):
    if old:
        write(tmp_path / "model", note="old")
    before = content(tmp_path / "model") if old else None
    with no_file_beyond(20_000), pytest.raises(OutputError, match=os.strerror(errno.EFBIG)) as caught:
        write(tmp_path / "model", **TOO_LARGE[part], overwrite=old)
    assert str(tmp_path / "model") in str(caught.value)
    assert os.listdir(tmp_path) == (["model"] if old else [])
    if old:
        assert content(tmp_path / "model") == before
    # The limit bites on that part alone: without it the same is written.
    write(tmp_path / "model", **TOO_LARGE[part], overwrite=old)
    sizes = {name: len(text) for name, text in content(tmp_path / "model").items()}
    assert [name for name, size in sizes.items() if size > 20_000] == [part]


@pytest.mark.parametrize("place", ["file/model", "file/below/model", "x" * 300])
def test_a_place_that_cannot_be_is_an_error_of_the_tree(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / place)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_the_hint_fits_the_cause(tmp_path, number):
    with pytest.raises(OutputError) as caught, replacing_folder(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint != "nothing was left behind"
    assert os.listdir(tmp_path) == []


def test_an_error_of_any_kind_leaves_nothing(tmp_path):
    def fail() -> None:
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_artifact(tmp_path / "out", kind="thing", manifest={"bad": float("nan")}, arrays={}, tables={})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("refusing", ["new", "old"])
def test_what_was_there_comes_back_if_the_new_cannot_take_its_name(tmp_path, monkeypatch, refusing):
    write(tmp_path / "model", note="old")
    before, rename = content(tmp_path / "model"), Path.rename

    def refused(self: Path, target: Path) -> Path:
        if (self.suffix == ".partial") == (refusing == "new"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match=os.strerror(errno.EIO)):
        write(tmp_path / "model", note="new", overwrite=True)
    assert content(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_the_final_name_appears_only_at_the_end(tmp_path):
    with replacing_folder(tmp_path / "out") as folder:
        (folder / "part").write_text("done")
        assert not (tmp_path / "out").exists()
        assert folder.parent == tmp_path
    assert content(tmp_path / "out") == {"part": b"done"}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("keep", [0, 2, 0.5, 0.9], ids=["empty", "two bytes", "half", "most"])
def test_a_truncated_artefact_is_damaged(tmp_path, part, keep):
    write(tmp_path / "model", cells=500, rows=500)
    file = tmp_path / "model" / part
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(FormatError, match="model is damaged"):
        read_artifact(tmp_path / "model", kind="thing")


@pytest.mark.parametrize("part", PARTS)
def test_an_absent_part_is_named(tmp_path, part):
    write(tmp_path / "model")
    (tmp_path / "model" / part).unlink()
    with pytest.raises(FormatError, match=rf"absent or incomplete: .*{part}"):
        read_artifact(tmp_path / "model", kind="thing")


@pytest.mark.parametrize("text", ["[]", "3", "null", f'{{"format": {FORMAT}, "kind": "thing"}}', "\xff"])
def test_a_manifest_that_is_none_is_damaged(tmp_path, text):
    write(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match="model is damaged"):
        read_artifact(tmp_path / "model", kind="thing")


@pytest.mark.parametrize("text", ["", "[]", "3", "null", f'{{"format": {FORMAT}}}', "\xff"])
def test_a_manifest_without_a_kind_is_damaged(tmp_path, text):
    write(tmp_path / "model")
    assert read_kind(tmp_path / "model") == read_kind(str(tmp_path / "model")) == "thing"
    (tmp_path / "model" / "manifest.json").write_bytes(text.encode("latin-1"))
    for reading in (read_kind, lambda path: read_artifact(path, kind="thing")):
        with pytest.raises(FormatError, match="model is damaged") as caught:
            reading(tmp_path / "model")
        assert caught.value.hint


def test_the_kind_is_read_without_the_rest(tmp_path):
    write(tmp_path / "model")
    for part in set(PARTS) - {"manifest.json"}:
        (tmp_path / "model" / part).unlink()
    assert read_kind(tmp_path / "model") == "thing"
    with pytest.raises(FormatError, match="absent or incomplete"):
        read_artifact(tmp_path / "model", kind="thing")


def test_another_format_or_kind_is_refused(tmp_path):
    write(tmp_path / "model")
    with pytest.raises(MismatchError, match="holds a 'thing', not a 'glmix'"):
        read_artifact(tmp_path / "model", kind="glmix")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    for other in (FORMAT + 1, FORMAT - 1, None, str(FORMAT)):
        (tmp_path / "model" / "manifest.json").write_text(json.dumps({**manifest, "format": other}))
        for reading in (read_kind, lambda path: read_artifact(path, kind="thing")):
            with pytest.raises(
                FormatError, match=f"format {other}; this version of acclimate reads format {FORMAT}"
            ):
                reading(tmp_path / "model")


def test_no_artefact_at_all(tmp_path):
    (tmp_path / "file").write_text("text")
    for reading in (read_kind, lambda path: read_artifact(path, kind="thing")):
        with pytest.raises(FormatError, match="absent or incomplete"):
            reading(tmp_path / "nowhere")
        with pytest.raises(FormatError, match="file is damaged"):
            reading(tmp_path / "file")
