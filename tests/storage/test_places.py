"""Where a result may go: nothing of the user's is ever replaced, and nothing half-written has a final name."""

import errno
import os
from pathlib import Path

import pytest
from sample_artifacts import content, read, write

from acclimate.errors import ConfigError, FormatError, OutputError, OutputExistsError
from acclimate.storage import check_free, replacing_folder, verify_file

ARTIFACTS = ("model", "report", "project")


def put(path: Path, artifact: str, *, overwrite: bool = False, text: str = "text") -> None:
    """Write something of that kind."""
    if artifact == "model":
        write(path, note=text, overwrite=overwrite)
        return
    with replacing_folder(path, artifact, overwrite=overwrite) as folder:  # type: ignore[arg-type]
        (folder / "data").mkdir()
        (folder / "data" / "file.txt").write_text(text)


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("taken", ["file", "folder", "hidden", "link", "old report", "old project", "fake"])
def test_what_is_not_ours_is_left_alone(tmp_path, taken, artifact):
    place = tmp_path / "out"
    if taken == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        name = {
            "folder": "note.txt",
            "hidden": ".note",
            "old report": "metrics.json",
            "old project": "acclimate.yaml",
        }
        if taken == "link":
            (place / "link").symlink_to(tmp_path)
        else:
            (place / name.get(taken, "manifest.json")).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(OutputExistsError, match="out exists already"):
        put(place, artifact)
    for attempt in (
        lambda: check_free(place, artifact, overwrite=True),
        lambda: put(place, artifact, overwrite=True),
    ):
        with pytest.raises(OutputExistsError, match=r"out (holds something else|may be no) .*nothing was touched"):
            attempt()
    assert content(tmp_path) == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("there", ARTIFACTS)
@pytest.mark.parametrize("asked", ARTIFACTS)
def test_each_kind_replaces_its_own_alone(tmp_path, there, asked):
    put(tmp_path / "out", there)
    before = content(tmp_path)
    if there == asked:
        check_free(tmp_path / "out", asked, overwrite=True)
        put(tmp_path / "out", asked, overwrite=True, text="new")
        assert content(tmp_path) != before
        assert len(content(tmp_path)) == len(before)
    else:
        for attempt in (check_free, put):
            with pytest.raises(OutputExistsError, match=f"holds a {there}, which a {asked} does not replace"):
                attempt(tmp_path / "out", asked, overwrite=True)
        assert content(tmp_path) == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize(
    "added", ["note.txt", ".hidden", "data/more.txt", "generation-1/note.txt", "deep/er/file"]
)
def test_a_file_that_was_added_is_named(tmp_path, artifact, added):
    put(tmp_path / "out", artifact)
    (tmp_path / "out" / added).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / added).write_text("mine")
    before = content(tmp_path)
    for attempt in (check_free, put):
        with pytest.raises(OutputExistsError, match=f"has 1 file that acclimate did not write: {added}"):
            attempt(tmp_path / "out", artifact, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["generation-9/my.parquet", "generation-1/notes.txt", "generation-0.parquet"])
def test_a_name_like_a_generations_makes_no_file_ours(tmp_path, name):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            put(tmp_path / "out", "model", overwrite=overwrite)
    put(tmp_path / "model", "model")
    (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=f"did not write: {name}"):
        put(tmp_path / "model", "model", overwrite=True)
    assert [data for data in content(tmp_path).values() if data == b"mine"] == [b"mine"] * 2


@pytest.mark.parametrize("artifact", ["report", "project"])
def test_a_file_that_was_changed_is_named(tmp_path, artifact):
    put(tmp_path / "out", artifact)
    (tmp_path / "out" / "data" / "file.txt").write_text("texT")
    for attempt in (check_free, put):
        with pytest.raises(OutputExistsError, match=r"was changed since: data/file.txt is not what was written"):
            attempt(tmp_path / "out", artifact, overwrite=True)
    assert (tmp_path / "out" / "data" / "file.txt").read_text() == "texT"
    (tmp_path / "out" / "data" / "file.txt").unlink()  # what its owner removed is no obstacle
    put(tmp_path / "out", artifact, overwrite=True)


def test_a_file_of_a_report_is_proved(tmp_path):
    put(tmp_path / "out", "report")
    verify_file(tmp_path / "out", "data/file.txt")
    (tmp_path / "out" / "data" / "file.txt").write_text("texT")
    with pytest.raises(FormatError, match="is not what was written"):
        verify_file(tmp_path / "out", "data/file.txt")
    with pytest.raises(FormatError, match="no part 'other'"):
        verify_file(tmp_path / "out", "other")


@pytest.mark.parametrize("artifact", ["report", "project"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_current_folder_is_filled_if_it_is_empty(tmp_path, monkeypatch, artifact, overwrite):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    put(Path("."), artifact, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir()) == ["data", "manifest.json"]
    for place in (".", ".."):
        with pytest.raises(OutputExistsError):
            check_free(place, artifact)
    with pytest.raises(OutputExistsError, match="current folder"):
        put(Path("."), artifact, overwrite=True)


def test_the_current_folder_stays_empty_if_it_cannot_be_filled(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == tmp_path / "out" / "data":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match=os.strerror(errno.EIO)):
        put(Path("."), "report")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir() == []


@pytest.mark.parametrize("appears", ["file", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_is_left_alone(tmp_path, appears, overwrite):
    def meanwhile() -> None:
        with replacing_folder(tmp_path / "out", "report", overwrite=overwrite):
            if appears == "folder":
                (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine" if appears == "folder" else tmp_path / "out").write_text("mine")

    with pytest.raises(OutputExistsError, match="holds something else" if overwrite else "exists already"):
        meanwhile()
    assert list(content(tmp_path).values()) == [b"mine"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["file/model", "file/below/model", "x" * 300, "loop", "loop/model"])
@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_a_place_that_cannot_be_is_an_error_of_the_tree(tmp_path, place, artifact):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    for attempt in (check_free, put):
        with pytest.raises(OutputError, match="cannot be written"):
            attempt(tmp_path / place, artifact)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


@pytest.mark.parametrize("path", ["", "a\0b", "a\udcffb"])
def test_a_place_without_a_name_is_refused(path):
    with pytest.raises(ConfigError, match="the place for the result"):
        check_free(path, "report")
    with pytest.raises(ConfigError, match="the place for the result"), replacing_folder(path, "report"):
        pass


def test_a_place_without_permission_is_found_early(tmp_path, monkeypatch):
    asked = []

    def access(place: Path, mode: int) -> bool:
        asked.append((place, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(OutputError, match="nothing can be written in") as caught:
        check_free(tmp_path / "new" / "deep" / "model", "model")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert caught.value.hint == "check the permissions"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_the_hint_fits_the_cause(tmp_path, number):
    with pytest.raises(OutputError) as caught, replacing_folder(tmp_path / "out", "report"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint != "nothing was left behind"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_an_error_of_any_kind_leaves_nothing(tmp_path, error):
    def fail() -> None:
        with replacing_folder(tmp_path / "out", "report") as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("refusing", ["new", "old"])
def test_what_was_there_comes_back_if_the_new_cannot_take_its_name(tmp_path, monkeypatch, refusing):
    put(tmp_path / "out", "report", text="old")
    before, rename = content(tmp_path), Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == "new" or (refusing == "old" and target.name == "old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match=os.strerror(errno.EIO)):
        put(tmp_path / "out", "report", text="new", overwrite=True)
    assert content(tmp_path) == before
    assert os.listdir(tmp_path) == ["out"]


def test_the_final_name_appears_only_at_the_end(tmp_path):
    with replacing_folder(tmp_path / "out", "report") as folder:
        (folder / "part").write_text("done")
        assert not (tmp_path / "out").exists()
        assert folder.is_relative_to(tmp_path)
    assert (tmp_path / "out" / "part").read_text() == "done"


def test_a_model_under_way_is_no_leftover(tmp_path):
    """What a living process makes aside stays, whoever else writes to the same place."""
    with replacing_folder(tmp_path / "out", "report") as folder:
        (folder / "part").write_text("mine")
        put(tmp_path / "other", "report")
        check_free(tmp_path / "out", "report")
        assert (folder / "part").read_text() == "mine"


def test_what_a_model_reads_is_not_what_a_report_is(tmp_path):
    put(tmp_path / "out", "report")
    with pytest.raises(Exception, match="holds a report, not a model"):
        read(tmp_path / "out")
