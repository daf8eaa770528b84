"""What is made of a search: its best trials, intervals that allow for their number, words, and the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sample_tunings import TRIALS, made, tuning
from scipy.stats import norm

from acclimate.evaluate.tune_page import changes_text, render_tuning, short_names
from acclimate.evaluate.tuned import best_trials, write_tuning


def test_the_best_are_distinct_and_in_order() -> None:
    assert [t.number for t in best_trials(TRIALS, 3)] == [3, 1, 5]
    assert [t.number for t in best_trials(TRIALS, 1)] == [3]
    assert best_trials(TRIALS[:1], 3) == []


def test_an_interval_allows_for_the_number_of_trials() -> None:
    one, many = made(-0.12, -0.07, looks=1), made(-0.12, -0.07, looks=40)
    assert (one.low, one.difference, one.high) == pytest.approx((-0.12, -0.1, -0.07))
    wider = norm.ppf(1 - 0.05 / 80) / norm.ppf(0.975)
    assert (many.low, many.high) == pytest.approx((-0.1 - wider * 0.02, -0.1 + wider * 0.03))
    assert one.is_better
    assert made(-0.2, -0.03, looks=1).is_better
    assert not made(-0.2, -0.03, looks=40).is_better


def test_it_does_not_matter_which_way_round_it_was_compared() -> None:
    there, back = made(-0.12, -0.07), made(-0.12, -0.07, turned=True)
    assert (there.low, there.difference, there.high) == pytest.approx((back.low, back.difference, back.high))


def test_the_verdict_sells_no_noise() -> None:
    clear, unclear = made(-0.12, -0.07), replace(made(-0.3, 0.05), number=1)
    assert tuning(clear).verdict.startswith(
        "trial 3 is better than the declared settings: log-loss −0.10000 [−0.1"
    )
    found = tuning(unclear)
    assert found.chosen is None
    assert found.verdict.startswith(
        "No setting is better than the declared one beyond chance: the best of 6 differs"
    )
    assert tuning(unclear, clear).chosen == clear
    assert tuning().verdict == "No setting is better than the declared one: none of 6 trials was completed."
    unknown = replace(clear, difference=None, low=None, high=None)
    assert "there are no intervals to tell by" in tuning(unknown).verdict
    assert unknown.difference_text == "–"


def test_changes_in_words() -> None:
    names = short_names(["learners.r.fixed.ridge", "learners.r.fixed.features"])
    assert names == {"learners.r.fixed.ridge": "fixed.ridge", "learners.r.fixed.features": "fixed.features"}
    assert changes_text(made(-1, 1), names) == "fixed.ridge 3.0 (was 1.0), fixed.features without b"
    assert changes_text(replace(made(-1, 1), changes={}), names) == "nothing else than declared"
    mixed = short_names(["learners.r.ridge", "features.tags.buckets"])
    assert list(mixed.values()) == ["learners.r.ridge", "features.tags.buckets"]


def test_it_is_written_whole(tmp_path: Path) -> None:
    write_tuning(tuning(made(-0.12, -0.07)), tmp_path / "out", patched="name: x\n")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("manifest.json", "tuning.json", "tuning.html", "acclimate.yaml")
    }
    content = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert (content["format"], content["chosen"], len(content["trials"])) == (1, 3, 7)
    write_tuning(tuning(), tmp_path / "out", patched=None)
    assert not (tmp_path / "out" / "acclimate.yaml").exists()


def test_text_of_a_user_stays_text() -> None:
    hostile = "<script>window.hacked=1</script></script><b>&amp;"
    plain = render_tuning(tuning(made(-0.12, -0.07)))
    named = replace(tuning(replace(made(-0.12, -0.07), options=hostile)), name=hostile)
    named.candidates[1].values[1][0] = hostile  # type: ignore[index]
    assert render_tuning(named).count("<script") == plain.count("<script")
    assert hostile not in render_tuning(named)
