"""What is written is what was found, whole or not at all."""

import errno
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sample_reports import sample_report, without_measures

from acclimate.artifacts import Report
from acclimate.errors import FormatError, OutputError, OutputExistsError
from acclimate.evaluate.report import metrics_schema, read_report, write_report

SCHEMA = Path(__file__).parents[2] / "docs/reference/metrics.schema.json"
REGENERATE = """\
.venv/bin/python - <<'END'
import json, pathlib
from acclimate.evaluate.report import metrics_schema
text = json.dumps(metrics_schema(), indent=2, ensure_ascii=False)
pathlib.Path("docs/reference/metrics.schema.json").write_text(text + "\\n", encoding="utf-8")
END"""


@pytest.fixture(scope="module")
def report() -> Report:
    return sample_report(windows=3)


def test_metrics_json_holds_the_report_field_by_field(report: Report, tmp_path: Path) -> None:
    out = write_report(report, tmp_path / "out")
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert content == {"format": 1, **asdict(report)}
    assert content["arms"]["incremental"]["auc"] == report.arms["incremental"].auc
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "metrics.json", "report.html"]


@pytest.mark.parametrize("truth", [True, False])
def test_a_written_report_reads_back_equal(truth: bool, tmp_path: Path) -> None:
    report = sample_report(windows=2, truth=truth)
    out = write_report(report, tmp_path / "out")
    assert read_report(out) == report
    assert read_report(out / "metrics.json") == report


def test_what_is_not_defined_is_null(report: Report, tmp_path: Path) -> None:
    undefined = without_measures(report)
    out = write_report(undefined, tmp_path / "out")
    assert json.loads((out / "metrics.json").read_text())["arms"]["stale"]["auc"] is None
    assert read_report(out) == undefined


def test_metrics_json_is_valid_and_holds_nothing_else(report: Report, tmp_path: Path) -> None:
    content = json.loads((write_report(report, tmp_path / "out") / "metrics.json").read_text())
    assert content.pop("format") == 1
    assert TypeAdapter(Report).validate_json(json.dumps(content), strict=True, extra="forbid") == report


def test_the_stored_schema_is_the_one_of_the_records() -> None:
    stored = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert stored == metrics_schema(), f"the records changed; from the repository's root run\n{REGENERATE}"


def test_the_schema_names_every_field_and_says_what_it_means(report: Report) -> None:
    schema = metrics_schema()
    # Older files have no drift.
    assert list(schema["properties"]) == ["format", *asdict(report)] == [*schema["required"], "drift"]
    arm = schema["$defs"]["ArmResult"]
    assert set(arm["properties"]) == set(asdict(report.arms["stale"]))
    later = {"rmse", "mae", "r2", "deviance", "ratio"}  # than the first reports, which have no such fields
    assert set(arm["required"]) == set(asdict(report.arms["stale"])) - later
    assert "the mean AUC within each entity and window" in arm["description"]
    assert "bytes it keeps" in arm["description"]


def test_a_value_that_json_does_not_know_is_refused(report: Report, tmp_path: Path) -> None:
    broken = replace(report, weights=[replace(report.weights[0], mean=math.nan)])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(broken, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_taken_place_is_left_alone_unless_told(report: Report, tmp_path: Path) -> None:
    out = write_report(report, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_report(replace(report, name="second"), out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"did not write: notes.txt"):
        write_report(replace(report, name="second"), out, overwrite=True)
    (out / "notes.txt").unlink()
    assert read_report(out).name == report.name
    write_report(replace(report, name="second"), out, overwrite=True)
    assert read_report(out).name == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_figure_that_was_edited_is_told_as_long_as_the_manifest_is_there(report: Report, tmp_path: Path) -> None:
    out = write_report(report, tmp_path / "out")
    text = (out / "metrics.json").read_text(encoding="utf-8")
    (out / "metrics.json").write_text(text.replace("0.", "1.", 1), encoding="utf-8")
    for path in (out, out / "metrics.json"):
        with pytest.raises(FormatError, match="is not what was written"):
            read_report(path)
    (out / "manifest.json").unlink()
    read_report(out)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_nothing_new(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        write_report(report, tmp_path / "out")

    def full(self: Path, text: str, **_: Any) -> int:
        with self.open("w") as file:
            file.write(text[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        write_report(replace(report, name="second"), tmp_path / "out", overwrite=overwrite)
    assert "free some space" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if overwrite else [])
    assert not overwrite or read_report(tmp_path / "out").name == report.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is absent"),
        ('{"format": 1, "arms"', "is no report"),
        ("[]", "is no report"),
        ('{"format": 1, "name": "x"}', "is no report"),
        ('{"format": 2}', "has format 2"),
    ],
)
def test_what_is_no_report_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_report(tmp_path)
