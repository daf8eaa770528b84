"""The search among settings, on a loss that is known: what it finds, what it stops, and how it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.artifacts import Trial
from acclimate.config import Choices, Range, Setting
from acclimate.errors import ConfigError, DataError, FormatError, ModelError
from acclimate.evaluate import Losses
from acclimate.evaluate.tune import search

RIDGE = Setting(("ridge",), Range(0.01, 100.0, log=True), 100.0)
LEARN = Setting(("learn",), Choices((True, False)), True)
DEPTH = Setting(("depth",), Range(1, 9, whole=True), 2, only_if=(("learn",), False))
SETTINGS = (RIDGE, LEARN, DEPTH)
WINDOWS = 5


def loss(values: Mapping[str, Any]) -> float:
    """Least, 0.5, at a ridge of 1 and no learning, at a depth of 3."""
    ridge = abs(np.log10(values.get("ridge", 100.0)))
    return 0.5 + 0.1 * ridge + (0.2 if values.get("learn", True) else 0.01 * abs(values["depth"] - 3))


class World:
    """Replays in which windows differ in how hard they are; counts what it was asked."""

    def __init__(self, raising: Callable[[int], None] = lambda _: None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.windows: list[int] = []
        self.raising = raising

    def __call__(self, number: int, values: Mapping[str, Any], watch: Callable[[Losses], None]) -> None:
        self.asked.append(dict(values))
        self.windows.append(0)
        self.raising(number)
        for window in range(1, WINDOWS + 1):
            rows = 10.0 * window
            self.windows[-1] += 1
            watch(Losses(window, {"trial": rows * (loss(values) + 0.3 * window)}, rows))


def found(folder: Path, world: World, *, trials: int = 20, seed: int = 0, **asked: Any) -> list[Trial]:
    options: dict[str, Any] = {"question": {"days": 5}, **asked}
    return search(
        options.pop("settings", SETTINGS), world, trials=trials, seed=seed, journal=folder / "log", **options
    )


def told(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


def test_it_finds_what_is_better(tmp_path: Path) -> None:
    trials = found(tmp_path, World(), trials=40)
    assert [trial.number for trial in trials] == list(range(41))
    declared, *others = trials
    assert (declared.values, declared.state, declared.differences) == ({}, "complete", [0.0] * WINDOWS)
    rows = np.arange(1, WINDOWS + 1) * 10.0
    hardness = 0.3 * float(rows @ np.arange(1, WINDOWS + 1)) / rows.sum()
    assert declared.loss == pytest.approx(0.9 + hardness)
    best = min((t for t in others if t.state == "complete"), key=lambda t: t.loss or 0)
    assert best.loss == pytest.approx(loss(best.values) + hardness)
    assert loss(best.values) < 0.58
    assert best.values["learn"] is False
    assert best.differences == pytest.approx([loss(best.values) - 0.9] * WINDOWS)


def test_what_means_nothing_is_not_drawn(tmp_path: Path) -> None:
    trials = found(tmp_path, World())[1:]
    assert {"depth" in t.values for t in trials if t.values["learn"]} == {False}
    depths = {t.values["depth"] for t in trials if not t.values["learn"]}
    assert depths <= set(range(1, 10))
    assert all(isinstance(depth, int) for depth in depths)


def test_the_same_seed_is_the_same_search(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for folder in (one, same, other):
        folder.mkdir()
    assert told(found(one, World())) == told(found(same, World()))
    assert told(found(other, World(), seed=1)) != told(found(one, World()))


@pytest.mark.parametrize("killed", [0, 1, 9, 14])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not(tmp_path: Path, killed: int) -> None:
    def interrupted(number: int) -> None:
        if number == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(tmp_path, World(interrupted))
    (tmp_path / "whole").mkdir()
    rest = World()
    assert told(found(tmp_path, rest)) == told(found(tmp_path / "whole", World()))
    assert 0 < len(rest.asked) <= 21 - killed


def test_more_trials_go_on_from_fewer(tmp_path: Path) -> None:
    few = found(tmp_path, World(), trials=6)
    again = World()
    assert found(tmp_path, again, trials=6) == few
    assert again.asked == []
    assert found(tmp_path, World(), trials=12)[:7] == few
    assert found(tmp_path, World(), trials=3) == few[:4]


def test_bad_trials_are_stopped_and_good_ones_are_not(tmp_path: Path) -> None:
    world = World()
    trials = found(tmp_path, world, trials=40)
    stopped = [t for t in trials if t.state == "stopped"]
    best = min(loss(t.values) for t in trials[1:])
    assert stopped
    assert min(loss(t.values) for t in stopped) > best
    assert {len(t.differences) for t in stopped} == {2}
    assert all(t.loss is None for t in stopped)
    assert sum(world.windows) < WINDOWS * len(world.asked)


def test_equal_settings_are_measured_once(tmp_path: Path) -> None:
    world = World()
    settings = [Setting(("learn",), Choices((True, False)), True), DEPTH]
    trials = found(tmp_path, world, settings=settings, trials=30)
    asked = [tuple(sorted(values.items())) for values in world.asked[1:]]
    assert len(set(asked)) == len(asked) <= 9
    assert len(trials) == 31
    declared = [t for t in trials[1:] if t.values == {"learn": True}]
    assert declared
    assert {t.loss for t in declared} == {trials[0].loss}


def test_a_declared_value_that_is_no_candidate_is_measured_all_the_same(tmp_path: Path) -> None:
    settings = [Setting(("ridge",), Range(0.1, 10.0, log=True), 1e6), LEARN, DEPTH]
    world = World()
    assert found(tmp_path, world, settings=settings, trials=3)[0].loss is not None
    assert world.asked[0] == {}


def test_settings_that_are_not_allowed_fail_and_are_told(tmp_path: Path) -> None:
    def refused(number: int) -> None:
        if number == 2:
            raise ConfigError("no such ridge")
        if number == 3:
            raise ModelError("it does not fit")

    trials = found(tmp_path, World(refused), trials=5)
    assert [t.state for t in trials][2:4] == ["failed", "failed"]
    assert [t.error for t in trials] == ["", "", "no such ridge", "it does not fit", "", ""]
    with pytest.raises(ConfigError, match="no such ridge"):  # not that of the declared settings
        search(SETTINGS, World(lambda _: refused(2)), trials=1, seed=0, journal=tmp_path / "other", question={})


def test_other_failures_end_the_search(tmp_path: Path) -> None:
    def absent(number: int) -> None:
        if number == 2:
            raise DataError("the file is absent")

    with pytest.raises(DataError, match="the file is absent"):
        found(tmp_path, World(absent))


def test_days_without_labels(tmp_path: Path) -> None:
    def nothing(_: int, __: Mapping[str, Any], watch: Callable[[Losses], None]) -> None:
        watch(Losses(1, {"trial": 0.0}, 0.0))

    with pytest.raises(DataError, match="no row of the days to validate on has a label"):
        search(SETTINGS, nothing, trials=1, seed=0, journal=tmp_path / "log", question={})


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    found(tmp_path, World(), trials=1)
    with pytest.raises(ConfigError, match="has trials of another search: different are days"):
        found(tmp_path, World(), trials=1, question={"days": 6})


def test_a_line_that_was_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    few = found(tmp_path, World(), trials=4)
    with (tmp_path / "log").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    (tmp_path / "whole").mkdir()
    assert told(found(tmp_path, World(), trials=8)) == told(found(tmp_path / "whole", World(), trials=8))
    assert found(tmp_path, World(), trials=4) == few


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("trial 1: good\ntrial 2: better\n")
    with pytest.raises(FormatError, match="is no journal of trials"):
        found(tmp_path, World())
