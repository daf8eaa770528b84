"""The table that a command ends with."""

from dataclasses import replace

import pytest
from rich.console import Console
from sample_reports import sample_report, without_measures

from acclimate.artifacts import Report
from acclimate.evaluate.summary import COST, QUALITY, columns, summary_table


def rendered(report: Report) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(summary_table(report))
    return capture.get()


def test_columns_hold_quality_over_all_and_cost_per_window() -> None:
    report = sample_report(windows=4)
    found = {c.measure.key: c.values for c in columns(report)}
    assert list(found)[:3] == ["auc", "within tab", "gauc"]
    assert found["auc"] == {name: arm.auc for name, arm in report.arms.items()}
    assert found["within tab"]["stale"] == report.arms["stale"].within["tab"]
    assert found["seconds"]["retrain"] == report.arms["retrain"].seconds / 4
    assert found["rows_read"]["retrain"] == report.arms["retrain"].rows_read / 4
    assert found["state_bytes"]["lightgbm"] is None


def test_columns_that_no_arm_has_are_left_out() -> None:
    report = without_measures(sample_report(windows=2))
    assert [c.measure.key for c in columns(report)] == [
        "log_loss",
        "calibration_error",
        "seconds",
        "rows_read",
        "state_bytes",
    ]


def test_the_best_is_what_reads_as_the_best() -> None:
    report = sample_report(arms=3, windows=2)
    stale, incremental, retrain = report.arms.values()
    arms = {
        "a": replace(stale, auc=0.70001, log_loss=0.5, ndcg=None),
        "b": replace(incremental, auc=0.70002, log_loss=0.6, ndcg=None),
        "c": replace(retrain, auc=0.6, log_loss=0.7, ndcg=0.3),
    }
    best = {c.measure.key: c.best() for c in columns(replace(report, arms=arms, windows=[]))}
    assert best["auc"] == {"a", "b"}
    assert best["log_loss"] == {"a"}
    assert best["ndcg"] == set()  # nothing to tell apart
    assert best["state_bytes"] == set()  # a cost


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("4", 0.73119, "0.7312"),
        ("5", 0.5443, "0.54430"),
        ("seconds", 0.02134, "0.0213"),
        ("seconds", 61.44, "61.4"),
        ("seconds", 99.96, "100"),
        ("seconds", 1234.5, "1,234"),
        ("rows", 1_130_000.0, "1,130,000"),
        ("bytes", 0, "0 B"),
        ("bytes", 16, "16 B"),
        ("bytes", 43_500_000, "43.5 MB"),
        ("bytes", 5e15, "5,000 TB"),
        ("bytes", None, "–"),
    ],
)
def test_values_read_well(form: str, value: float | None, text: str) -> None:
    measure = next(m for m in (*QUALITY, *COST) if m.form == form)
    assert measure.text(value) == text


def test_the_table_fits_a_terminal_with_every_figure_whole() -> None:
    report = sample_report()
    text = rendered(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for column in columns(report):
        if column.measure.key not in ("ndcg", "state_bytes", "normalized_entropy"):
            assert all(column.measure.text(value) in text for value in column.values.values())
    assert "179,399 rows in 11 windows" in text


def test_long_names_and_many_columns_within_still_fit() -> None:
    report = sample_report(windows=2)
    within = {"tab": 0.6, "hour of the day": 0.61, "tag": 0.62, "author": 0.63}
    arms = {f"a very long name for an arm {n}": replace(a, within=within) for n, a in report.arms.items()}
    text = rendered(
        replace(
            report,
            arms=arms,
            windows=[replace(w, arm=f"a very long name for an arm {w.arm}") for w in report.windows],
        )
    )
    assert max(map(len, text.splitlines())) <= 100
    assert "0.6100" in text
    assert "0.6200" not in text


def test_the_best_is_bold_and_names_are_no_markup() -> None:
    report = sample_report(arms=2, windows=2)
    arms = {"[red]a": report.arms["stale"], "b": report.arms["incremental"]}
    windows = [replace(w, arm="[red]a" if w.arm == "stale" else "b") for w in report.windows]
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(summary_table(replace(report, arms=arms, windows=windows)))
    assert "[red]a" in capture.get()
    assert "\x1b[1m0.7311\x1b[0m" in capture.get()
