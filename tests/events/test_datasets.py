"""Data sets and simulated worlds as projects: official folders go in, a project that runs comes out."""

import datetime as dt
import functools
import hashlib
import http.server
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import Events
from acclimate.errors import AcclimateError, DataError, OutputError, OutputExistsError, SourceError
from acclimate.events.datasets import Dataset, write_world
from acclimate.events.kuairand import kuairand
from acclimate.events.movielens import movielens
from acclimate.project import Project, load_project


def opened(made: Dataset) -> tuple[Project, Events]:
    project = load_project(made.project)
    return project, pipeline.open_events(project)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- a simulated world ---------------------------------------------------------------------------------------


def test_a_world_comes_back_as_it_was(tmp_path: Path) -> None:
    world = ac.simulate(users=30, items=10, days=4, events_per_day=100)
    made = write_world(world, tmp_path / "world")
    assert made == Dataset(tmp_path / "world" / "acclimate.yaml")
    assert files(tmp_path / "world") == {"acclimate.yaml", *(f"events/2024-01-0{d}.parquet" for d in range(1, 5))}
    project, events = opened(made)
    assert events.table().equals(world.table())
    assert project.events.schema == world.schema
    assert project.replay is not None
    assert project.replay.start == "2024-01-02"


def test_a_world_can_be_replayed(tmp_path: Path) -> None:
    made = write_world(ac.simulate(users=30, items=10, days=3, events_per_day=200), tmp_path / "world")
    report = pipeline.replay_project(load_project(made.project), tmp_path / "report")
    assert set(report.arms) == {
        *("stale", "incremental", "retrain", "fixed", "global-rate", "item-rate", "user-rate")
    }
    assert all((arm.rows, arm.regret is not None) == (400, True) for arm in report.arms.values())


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    world = ac.simulate(users=3, items=2, days=2, events_per_day=5)
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        write_world(world, tmp_path)
    assert files(tmp_path) == {"mine"}
    write_world(world, tmp_path, overwrite=True)
    assert "mine" not in files(tmp_path)


def test_no_events_make_no_world(tmp_path: Path) -> None:
    world = ac.simulate(users=3, items=2, days=2, events_per_day=5)
    with pytest.raises(DataError, match="no events"):
        write_world(world.before("2023-01-01"), tmp_path / "world")
    assert list(tmp_path.iterdir()) == []


# --- KuaiRand ------------------------------------------------------------------------------------------------


def millis(day: int, hour: int = 12) -> int:
    """Of a day of April 2022, in Beijing."""
    return int((dt.datetime(2022, 4, 1, hour - 8, tzinfo=dt.UTC) + dt.timedelta(days=day - 1)).timestamp()) * 1000


def impressions(days: list[int], **columns: list[Any]) -> pa.Table:
    n = len(days)
    return pa.table(
        {
            "user_id": [i % 3 for i in range(n)],
            "video_id": [i % 2 for i in range(n)],
            "time_ms": [millis(day) for day in days],
            "long_view": [i % 2 for i in range(n)],
            "is_like": [0] * n,
            **columns,
        }
    )


def full(days: list[int]) -> pa.Table:
    return impressions(days, is_click=[1] * len(days), tab=[i % 2 for i in range(len(days))])


USERS = pa.table({"user_id": [0, 1, 2], "user_active_degree": ["full_active", "high_active", "UNKNOWN"]})
VIDEOS = pa.table({"video_id": [0, 1], "tag": ["3", "12,65"], "video_duration": [9_233.0, 218_066.0]})
OFFICIAL = {
    "log_standard_4_08_to_4_21": full([8, 9, 20]),
    "log_standard_4_22_to_5_08": full([22, 27, 28, 29]),
    "log_random_4_22_to_5_08": full([28] * 50),
    "user_features": USERS,
    "video_features_basic": VIDEOS,
    "video_features_statistic": pa.table({"video_id": [0, 1], "show_cnt": [1.0, 2.0]}),
}
REBUILT = {
    "log_history_4_08_to_4_24": impressions([8, 9, 20]),
    "log_standard_4_25_to_5_08": full([25, 27, 28, 29]),
    "user_features": USERS,
    "video_features_basic": VIDEOS,
}


def write(folder: Path, tables: dict[str, pa.Table], version: str, suffix: str = "csv") -> Path:
    folder.mkdir(parents=True)
    for name, table in tables.items():
        parts = {f"{name}_{version}": table}
        if version == "27k" and name.startswith("log_standard"):
            parts = {f"{name}_27k_part1": table.slice(0, 2), f"{name}_27k_part2": table.slice(2)}
        for file, rows in parts.items():
            if suffix == "csv":
                pyarrow.csv.write_csv(rows, folder / f"{file}.csv")
            else:
                pq.write_table(rows, folder / f"{file}.parquet")
    return folder


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("version", ["pure", "1k", "27k"])
def test_the_official_folders_become_projects(version: str, suffix: str, tmp_path: Path) -> None:
    data = write(tmp_path / "KuaiRand" / "data", OFFICIAL, version, suffix)
    before = files(tmp_path)
    project, events = opened(kuairand(tmp_path / "KuaiRand", tmp_path / "project"))
    assert files(tmp_path) == before | {"project/acclimate.yaml"}
    assert project.name == f"kuairand-{version}"
    table = events.table()
    assert table["time_ms"].to_pylist() == [
        dt.datetime(2022, 4, day, 4, tzinfo=dt.UTC) for day in (8, 9, 20, 22, 27, 28, 29)
    ]
    assert table["video.tag"].to_pylist() == ["3", "12,65", "3", "3", "12,65", "3", "12,65"]
    assert table["tab"].null_count == 0
    summary, width = pipeline.check(project)
    assert summary.rows == 7
    assert width["ranker.fixed"] > 10
    assert all(str(data) in path for path in project.events.path)


def test_the_rebuilt_history_has_no_tab(tmp_path: Path) -> None:
    write(tmp_path / "data", REBUILT, "pure", "parquet")
    project, events = opened(kuairand(tmp_path / "data", tmp_path / "project"))
    assert events.table(["tab"])["tab"].null_count == 3
    assert events.describe().rates["is_click"] == 1.0
    assert pipeline.check(project)[0].rows == 7


@pytest.mark.parametrize(
    "absent",
    [
        "log_standard_4_08_to_4_21_pure.csv",
        "log_standard_4_22_to_5_08_pure.csv",
        "user_features_pure.csv",
        "video_features_basic_pure.csv",
    ],
)
def test_missing_files_are_named(absent: str, tmp_path: Path) -> None:
    data = write(tmp_path / "data", OFFICIAL, "pure")
    (data / absent).unlink()
    with pytest.raises(SourceError, match=rf"missing {absent} \("):
        kuairand(data, tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_missing_part_of_27k_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "data", OFFICIAL, "27k")
    (data / "log_standard_4_22_to_5_08_27k_part2.csv").unlink()
    with pytest.raises(SourceError, match="missing log_standard_4_22_to_5_08_27k_part2.csv"):
        kuairand(data, tmp_path / "project")


def test_folders_that_are_not_kuairand(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        kuairand(tmp_path / "nowhere", tmp_path / "project")
    with pytest.raises(SourceError, match="no KuaiRand log there"):
        kuairand(tmp_path, tmp_path / "project")
    data = write(tmp_path / "data", OFFICIAL, "pure")
    shutil.copy(data / "log_standard_4_08_to_4_21_pure.csv", data / "log_standard_4_08_to_4_21_1k.csv")
    with pytest.raises(SourceError, match="more than one version of KuaiRand there: 1k, pure"):
        kuairand(data, tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_project_does_not_replace_its_data(tmp_path: Path) -> None:
    data = write(tmp_path / "set" / "data", OFFICIAL, "pure")
    before = files(tmp_path)
    for out in (data, tmp_path / "set"):
        with pytest.raises(OutputExistsError):
            kuairand(data, out)
        with pytest.raises(OutputExistsError, match="holds the data"):
            kuairand(data, out, overwrite=True)
    assert files(tmp_path) == before


def test_the_real_kuairand() -> None:
    folder = Path(os.environ.get("KUAIRAND_DIR", "../shared/data/kuairand_pure"))
    ...


# --- MovieLens -----------------------------------------------------------------------------------------------

DAY = 86_400
RATINGS = [(u, m, r, 978_300_000 + DAY * i) for i, (u, m, r) in enumerate([(1, 1, 5.0), (2, 1, 3.0), (1, 2, 4.0), (2, 3, 0.5), (1, 3, 4.0)] * 8)]
TITLES = {1: "Léon: The Professional (1994)", 2: 'The "Show" (2007-2011)', 3: "Untitled"}
GENRES = {1: ["Action", "Crime"], 2: ["Children's"], 3: []}
