"""A writer killed at any point leaves the old or the new, and the next one a clean place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sample_artifacts import content, read, write

from acclimate.storage import check_free, replacing_folder


def killed_everywhere(tmp_path: Path, scenario: str) -> list[Path]:
    """The folders that writes left that were killed before their first call, their second, ..., and never."""
    script = Path(__file__).with_name("kill_points.py")
    command = [sys.executable, script, scenario, tmp_path / "template", tmp_path / "killed"]
    subprocess.run(command, check=True)
    folders = sorted((tmp_path / "killed").iterdir(), key=lambda folder: int(folder.name))
    assert len(folders) > 20
    return folders


@pytest.mark.parametrize("old", ["a model", "nothing", "an empty folder", "a model beside a killed save"])
def test_a_save_killed_at_any_point_leaves_the_old_or_the_new(tmp_path, old):
    (tmp_path / "template").mkdir()
    place = tmp_path / "template" / "out"
    if old.startswith("a model"):
        write(place, note="old")
    if old == "an empty folder":
        place.mkdir()
    if "killed" in old:
        (place / "generation-2").mkdir()
        (place / "generation-2" / "arrays.safetensors").write_text("half")
        (place / ".manifest.json.partial").write_text("half")
    *killed, done = killed_everywhere(tmp_path, "model")
    notes = []
    for folder in killed:
        complete = (folder / "out" / "manifest.json").exists()
        assert complete or not old.startswith("a model")
        notes.append(read(folder / "out").manifest["note"] if complete else "")
        check_free(folder / "out", "model", overwrite=True)
        write(folder / "out", note="next", overwrite=True)
        assert read(folder / "out").manifest["note"] == "next"
        assert os.listdir(folder) == ["out"]
        generations = [name for name in os.listdir(folder / "out") if name not in ("manifest.json", "rows")]
        assert len(generations) == 1
    assert set(notes) == {"old" if old.startswith("a model") else "", "new"}
    assert notes == sorted(notes, key=lambda note: note == "new")  # old up to one point, new from there on
    assert read(done / "out").manifest["note"] == "new"
    assert os.listdir(done) == ["out"]


@pytest.mark.parametrize("old", [False, True])
def test_a_report_killed_at_any_point_is_old_or_new_for_the_next_run(tmp_path, old):
    (tmp_path / "template").mkdir()
    if old:
        with replacing_folder(tmp_path / "template" / "out", "report") as folder:
            (folder / "metrics.json").write_text("old")
    *killed, done = killed_everywhere(tmp_path, "report")
    before = content(tmp_path / "template")
    after = {f"out/{name}": data for name, data in content(done / "out").items()}
    away = 0
    for folder in killed:
        away += old and not (folder / "out").exists()
        check_free(folder / "out", "report", overwrite=True)
        assert content(folder) in (before, after)
        assert os.listdir(folder) == (["out"] if content(folder) else [])
    assert away == (1 if old else 0)  # between two renames, and it came back
