"""The verbs over project files, and what they share: models on disk, arms, worlds."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import Events
from acclimate.config import BUILT_IN_ARMS
from acclimate.errors import ConfigError, DataError, FormatError, MismatchError, OutputExistsError
from acclimate.evaluate import Arm
from acclimate.events.kuairand import kuairand
from acclimate.events.movielens import movielens
from acclimate.learners import GLMix, GlobalRate, Rate
from acclimate.project import Project, load_project

ARMS = """
import dataclasses

import numpy as np


@dataclasses.dataclass
class Half:
    chance: "float" = 0.5

    def fit(self, events):
        return self

    update = fit

    def predict(self, events):
        return np.full(events.table([]).num_rows, self.chance)


most = Half(0.9)


class Mute:
    def fit(self, events): ...
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of eight days as a project, with arms of its own beside it."""
    out = tmp_path_factory.mktemp("worlds") / "world"
    pipeline.make_world(out, users=30, days=8, seed=1)
    (out / "arms.py").write_text(ARMS)
    (out / "broken.py").write_text("import no_such_module\n")
    (out / "wrong.py").write_text("def\n")
    return out


def project_of(folder: Path, *overrides: str) -> Project:
    return load_project(folder / "acclimate.yaml", overrides)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- fit and update ------------------------------------------------------------------------------------------


def test_fit_and_update_over_disk_equal_one_model_in_memory(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder)
    events = pipeline.open_events(project)
    one = pipeline.make_learner(project.learner()).fit(events.before("2024-01-05"))
    one.update(events.between("2024-01-05", "2024-01-07")).update(events.after("2024-01-07"))

    pipeline.fit(project, tmp_path / "model", until="2024-01-05")
    pipeline.update(project, tmp_path / "model", until="2024-01-07")
    two = pipeline.update(project, tmp_path / "model")

    assert two.cut == one.cut
    np.testing.assert_array_equal(two.predict(events), one.predict(events))
    np.testing.assert_array_equal(GLMix.load(tmp_path / "model").predict(events), one.predict(events))


def learned(model: GLMix) -> int:
    assert model.info is not None
    return model.info.rows


def rows(events: Events) -> int:
    return events.table(["time"]).num_rows


def test_an_update_learns_what_is_new_and_nothing_twice(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder)
    events = pipeline.open_events(project)
    fitted = pipeline.fit(project, tmp_path / "model", until="2024-01-05")
    assert learned(fitted) == rows(events.before("2024-01-05")) > 0
    updated = pipeline.update(project, tmp_path / "model")
    assert learned(updated) == rows(events.after(fitted.cut + 1)) == rows(events) - learned(fitted)
    before = updated.predict(events)
    again = pipeline.update(project, tmp_path / "model")
    np.testing.assert_array_equal(again.predict(events), before)
    assert again.cut == updated.cut


def test_since_starts_elsewhere(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder)
    events = pipeline.open_events(project)
    pipeline.fit(project, tmp_path / "model", until="2024-01-05")
    updated = pipeline.update(project, tmp_path / "model", since="2024-01-04", until="2024-01-06")
    assert learned(updated) == rows(events.between("2024-01-04", "2024-01-06"))


def test_fit_takes_everything_and_the_learner_named(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder, "learners.other={kind: glmix, label: like}")
    model = pipeline.fit(project, tmp_path / "model", learner="other")
    assert model.parameters.label == "like"
    assert model.parameters.random == ()
    assert learned(model) == rows(pipeline.open_events(project))


def test_a_model_that_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        pipeline.fit(project_of(folder, "events.path=absent"), tmp_path)
    assert files(tmp_path) == {"mine"}


def test_an_update_needs_a_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="absent"):
        pipeline.update(project_of(folder), tmp_path / "none")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learners.ranker.label=like", r"model was made with other .*: label was click and is like"),
        ("learners.ranker.learn_population=false", r": learn_population was True and is False"),
        ("learners.ranker.random={user: {}}", r"random was \['item', 'user'\] and is \['user'\]; .*user.features"),
        ("learners.ranker.random.user.ridge=7", r": user.ridge was 1.0 and is 7.0 \(name the learner .* fit anew"),
        ("learners.ranker.fixed={ridge: 2}", r": fixed.features was .*; fixed.ridge was 1.0 and is 2.0"),
    ],
)
def test_an_update_with_other_settings_is_refused(
    folder: Path, tmp_path: Path, override: str, message: str
) -> None:
    fitted = pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    with pytest.raises(MismatchError, match=message):
        pipeline.update(project_of(folder, override), tmp_path / "model")
    assert GLMix.load(tmp_path / "model").cut == fitted.cut
    assert pipeline.update(project_of(folder), tmp_path / "model").cut > fitted.cut


def test_an_update_of_the_learner_named(folder: Path, tmp_path: Path) -> None:
    project = project_of(folder, "learners.other={kind: glmix, label: like}")
    fitted = pipeline.fit(project, tmp_path / "model", learner="other", until="2024-01-05")
    with pytest.raises(MismatchError, match="label was like and is click"):
        pipeline.update(project, tmp_path / "model", learner="ranker")
    with pytest.raises(ConfigError, match="no learner 'othr'"):
        pipeline.update(project, tmp_path / "model", learner="othr")
    assert pipeline.update(project, tmp_path / "model", learner="other").cut > fitted.cut


def test_a_model_without_one_of_its_effects_is_damaged(folder: Path, tmp_path: Path) -> None:
    pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    file = tmp_path / "model" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "effects": manifest["effects"][:-1]}))
    with pytest.raises(FormatError, match="damaged: 2 effects where the parameters have 3"):
        pipeline.update(project_of(folder), tmp_path / "model")


def test_an_update_of_wrong_rows_leaves_the_model(folder: Path, tmp_path: Path) -> None:
    events = pipeline.open_events(project_of(folder))
    pipeline.fit(project_of(folder), tmp_path / "model", until="2024-01-05")
    before = GLMix.load(tmp_path / "model").predict(events)
    wrong = events.after("2024-01-06").table()
    place = wrong.column_names.index("click")
    pq.write_table(wrong.set_column(place, "click", [np.full(len(wrong), 7)]), tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="click"):
        pipeline.update(project_of(folder, f"events.path={tmp_path / 'wrong.parquet'}"), tmp_path / "model")
    np.testing.assert_array_equal(GLMix.load(tmp_path / "model").predict(events), before)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "wrong.parquet"}


def test_check_tells_what_is_there(folder: Path) -> None:
    summary, widths = pipeline.check(project_of(folder))
    users = pipeline.open_events(project_of(folder)).table(["user_id"])["user_id"]
    assert (summary.rows, summary.entities["user_id"]) == (8 * 60, len(users.unique()))
    assert widths["ranker.user"] == 13  # an intercept and twelve topics
    assert set(widths) == {"ranker.fixed", "ranker.user", "ranker.item"}


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("learners.ranker.fixed=[surfce]", "did you mean 'surface'"),
        ("learners.ranker.label=clik", "did you mean 'click'"),
        ("learners.ranker.random={usr: {}}", "did you mean 'user'"),
        ("replay.arms=[{name: x, python: 'arms.py:Hlf'}]", "did you mean 'Half'"),
    ],
)
def test_check_finds_what_does_not_fit(folder: Path, override: str, error: str) -> None:
    with pytest.raises((ConfigError, DataError), match=error):
        pipeline.check(project_of(folder, override))


# --- replay --------------------------------------------------------------------------------------------------


def test_a_replay_starts_half_way_at_midnight_and_takes_days() -> None:
    events = ac.simulate(users=20, items=10, days=7, events_per_day=40, jump_day=None)
    report = ac.replay([Rate("user"), GlobalRate()], events, resamples=0)
    assert list(report.arms) == ["rate-1", "globalrate-2"]
    assert report.settings["every"] == "1d"
    assert [window.start for window in report.windows if window.arm == "rate-1"] == [
        f"2024-01-0{day}T00:00:00+00:00" for day in (4, 5, 6, 7)
    ]


def test_one_learner_and_learners_by_name() -> None:
    events = ac.simulate(users=20, items=10, days=3, events_per_day=40, jump_day=None)
    assert list(ac.replay([GlobalRate()], events, resamples=0).arms) == ["incremental"]
    assert list(ac.replay({"mine": GlobalRate()}, events, resamples=0).arms) == ["mine"]


def test_no_events_cannot_be_replayed() -> None:
    events = ac.simulate(users=20, items=10, days=3, events_per_day=40)
    with pytest.raises(DataError, match="no events"):
        ac.replay([GlobalRate()], events.before("2023-01-01"))


def test_a_replay_is_refused_before_it_begins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        pipeline.replay_project(project_of(folder, "events.path=absent"), tmp_path)
    steps: list[Any] = []
    with pytest.raises(OutputExistsError):
        pipeline.demo(tmp_path, users=10, days=12, on_progress=steps.append)
    with pytest.raises(OutputExistsError):
        pipeline.make_world(tmp_path, users=10, days=3)
    assert steps == []
    assert files(tmp_path) == {"mine"}


def test_a_project_without_replay(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no section 'replay'"):
        pipeline.replay_project(project_of(folder, "replay="), tmp_path / "out")
    assert pipeline.arms_of(project_of(folder, "replay=")) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_an_interrupted_replay_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def interrupted(self: Path, *_: Any, **__: Any) -> int:
        assert self.parent.name.startswith(".out.")
        raise failure

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(failure):
        pipeline.replay_project(
            project_of(folder, "replay.arms=[global-rate]", "replay.resamples=0"), tmp_path / "out"
        )
    assert files(tmp_path) == set()


# --- arms ----------------------------------------------------------------------------------------------------


def test_built_in_arms(folder: Path) -> None:
    arms = {arm.name: arm for arm in pipeline.arms_of(project_of(folder))}
    assert tuple(arms) == BUILT_IN_ARMS
    assert {name: arm.regime for name, arm in arms.items() if arm.regime != "incremental"} == {
        "stale": "stale",
        "retrain": "retrain",
    }
    shared = arms["incremental"].learner
    assert arms["stale"].learner is shared
    assert arms["retrain"].learner is shared
    fixed = arms["fixed"].learner
    assert isinstance(shared, GLMix)
    assert isinstance(fixed, GLMix)
    assert (len(shared.parameters.random), len(fixed.parameters.random)) == (2, 0)
    assert fixed.parameters.fixed == shared.parameters.fixed
    assert fixed.parameters.label == "click"
    rates = [arms[name].learner for name in ("item-rate", "user-rate")]
    assert [rate.entity for rate in rates if isinstance(rate, Rate)] == ["item", "user"]


def test_arms_of_one_learner_share_it_whatever_they_are_called(folder: Path) -> None:
    arms = "[stale, {name: short, learner: ranker, regime: retrain, window: 3d}, {name: other, learner: second}]"
    stale, short, other = pipeline.arms_of(
        project_of(folder, "learners.second={kind: glmix}", "replay.learner=ranker", f"replay.arms={arms}")
    )
    assert stale.learner is short.learner is not other.learner
    assert (short.regime, short.window) == ("retrain", "3d")


def test_a_built_in_baseline_can_be_retrained(folder: Path) -> None:
    (arm,) = pipeline.arms_of(project_of(folder, "replay.arms=[{name: fixed, regime: retrain, window: 3d}]"))
    assert (arm.regime, arm.window) == ("retrain", "3d")


def own_arm(folder: Path, python: str) -> Arm:
    (arm,) = pipeline.arms_of(project_of(folder, f"replay.arms=[{{name: x, python: '{python}'}}]"))
    return arm


def test_an_arm_of_your_own_is_a_class_or_an_object(folder: Path) -> None:
    assert [getattr(own_arm(folder, f"arms.py:{name}").learner, "chance", 0) for name in ("Half", "most")] == [
        0.5,
        0.9,
    ]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("none.py:Half", "'none.py:Half' names no object in a file"),
        ("arms.py", "'arms.py' names no object in a file"),
        ("arms.py:", "'arms.py:' names no object in a file"),
        (":Half", "':Half' names no object in a file"),
        ("acclimate.yaml:Half", "names no object in a file"),
        ("arms.py:Hal", "arms.py has no 'Hal' .*did you mean 'Half'"),
        ("broken.py:Half", "broken.py cannot be imported: No module named 'no_such_module'"),
        ("wrong.py:Half", "wrong.py cannot be imported: .*line 1"),
        ("arms.py:Mute", r"'arms.py:Mute' has no update\(\)"),
    ],
)
def test_what_is_no_arm(folder: Path, python: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own_arm(folder, python)


def test_an_unknown_learner_of_an_arm(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no learner 'rankr' .*did you mean 'ranker'"):
        pipeline.arms_of(project_of(folder, "replay.arms=[{name: x, learner: rankr}]"))
    with pytest.raises(ConfigError, match="no learner 'rankr'"):
        pipeline.arms_of(project_of(folder, "replay.learner=rankr"))


def test_all_kinds_of_arms_in_one_replay(folder: Path, tmp_path: Path) -> None:
    arms = "[stale, incremental, fixed, {name: half, python: 'arms.py:Half'}]"
    report = pipeline.replay_project(
        project_of(folder, f"replay.arms={arms}", "replay.start=2024-01-06", "replay.resamples=5"),
        tmp_path / "out",
    )
    assert list(report.arms) == ["stale", "incremental", "fixed", "half"]
    assert report.name == "simulated-world"
    assert (report.settings["label"], report.settings["resamples"]) == ("click", 5)
    assert report.arms["half"].log_loss == pytest.approx(np.log(2))
    assert report.arms["stale"].rows_read == 0
    assert report.arms["incremental"].rows_read == 3 * 60
    assert files(tmp_path / "out") == {"metrics.json", "report.html"}


# --- data sets, end to end -----------------------------------------------------------------------------------


def millis(day: int, second: int) -> int:
    beijing = dt.timezone(dt.timedelta(hours=8))
    return int(dt.datetime(2022, 4, 1, 12, tzinfo=beijing).timestamp() * 1000) + 86_400_000 * (day - 1) + second


def impressions(days: range, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = ["user_id,video_id,time_ms,is_click,is_like,long_view,tab"]
    lines += [
        f"{rng.integers(8)},{rng.integers(4)},{millis(day, i)},{rng.integers(2)},0,{i % 2},{rng.integers(2)}"
        for day in days
        for i in range(20)
    ]
    return "\n".join(lines) + "\n"


def test_kuairand_files_become_a_report(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "log_standard_4_08_to_4_21_pure.csv").write_text(impressions(range(18, 22), 0))
    (data / "log_standard_4_22_to_5_08_pure.csv").write_text(impressions(range(26, 31), 1))
    users = "".join(f"{user},{'full_active' if user % 2 else 'UNKNOWN'}\n" for user in range(8))
    (data / "user_features_pure.csv").write_text("user_id,user_active_degree\n" + users)
    videos = "".join(f'{video},"{video},7",{9000 + video}\n' for video in range(4))
    (data / "video_features_basic_pure.csv").write_text("video_id,tag,video_duration\n" + videos)
    made = kuairand(data, tmp_path / "project")
    report = pipeline.replay_project(load_project(made.project, ["replay.resamples=5"]), tmp_path / "out")
    assert tuple(report.arms) == BUILT_IN_ARMS
    assert {arm.rows for arm in report.arms.values()} == {3 * 20}  # 28, 29 and 30 April
    assert report.arms["incremental"].within.keys() == {"tab"}


def test_movielens_files_become_a_report(tmp_path: Path) -> None:
    data = tmp_path / "ml-latest-small"
    data.mkdir()
    rng = np.random.default_rng(0)
    ratings = (
        f"{rng.integers(1, 9)},{rng.integers(1, 6)},{rng.integers(1, 11) / 2},{1_600_000_000 + 3_600 * hour}\n"
        for hour in range(400)
    )
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(ratings))
    movies = "".join(f"{movie},Film {movie} (199{movie}),Drama|War\n" for movie in range(1, 6))
    (data / "movies.csv").write_text("movieId,title,genres\n" + movies)
    made = movielens(data, tmp_path / "project")
    project = load_project(made.project, ["replay.resamples=5"])
    report = pipeline.replay_project(project, tmp_path / "out")
    assert tuple(report.arms) == BUILT_IN_ARMS
    assert project.replay is not None
    late = pipeline.open_events(project).after(project.replay.start)
    assert {arm.rows for arm in report.arms.values()} == {rows(late)}
    assert rows(late) >= 80


# --- the demonstration ---------------------------------------------------------------------------------------


def test_the_demo_shows_regret_of_every_arm(tmp_path: Path) -> None:
    report = pipeline.demo(tmp_path / "out", users=40, days=12)
    assert tuple(report.arms) == BUILT_IN_ARMS
    assert all(arm.regret is not None and arm.regret > 0 for arm in report.arms.values())
    assert {window.start[:10] for window in report.windows} == {"2024-01-11", "2024-01-12"}
    assert files(tmp_path / "out") == {"metrics.json", "report.html"}


def test_a_world_is_the_same_by_its_seed(tmp_path: Path) -> None:
    one, two, other = (
        pipeline.open_events(
            load_project(pipeline.make_world(tmp_path / name, users=10, days=2, seed=seed).project)
        ).table()
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.equals(two)
    assert not one.equals(other)
