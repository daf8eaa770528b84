"""Data sets and simulated worlds as projects: official folders go in, a project that runs comes out."""

import csv
import datetime as dt
import functools
import hashlib
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import Events
from acclimate.errors import ConfigError, DataError, OutputError, OutputExistsError, SourceError
from acclimate.events.datasets import Dataset, world_project, write_world
from acclimate.events.kuairand import kuairand
from acclimate.events.movielens import _LAYOUTS, _convert, movielens
from acclimate.project import Project, load_project, parse_project


def opened(made: Dataset) -> tuple[Project, Events]:
    project = load_project(made.project)
    return project, pipeline.open_events(project)


def files(folder: Path) -> set[str]:
    """All files but the manifests, which are tested with the places that they protect."""
    every = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)) for path in every}


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


def test_a_world_is_the_same_project_in_memory_and_on_disk(tmp_path: Path) -> None:
    world = ac.simulate(users=30, items=10, days=9, events_per_day=50)
    made = write_world(world, tmp_path / "world")
    assert parse_project(world_project(world), made.project.parent) == load_project(made.project)
    starts = [str(world_project(world, days)["replay"]["start"]) for days in (None, 1, 5)]
    assert starts == ["2024-01-03", "2024-01-02", "2024-01-06"]


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    world = ac.simulate(users=3, items=2, days=2, events_per_day=5)
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        write_world(world, tmp_path)
    with pytest.raises(OutputExistsError, match="holds something else"):
        write_world(world, tmp_path, overwrite=True)
    assert files(tmp_path) == {"mine"}


def test_a_project_gives_way_to_a_project_that_is_asked_for(tmp_path: Path) -> None:
    made = write_world(ac.simulate(users=3, items=2, days=3, events_per_day=5), tmp_path / "world").project.parent
    write_world(ac.simulate(users=3, items=2, days=2, events_per_day=5), made, overwrite=True)
    assert files(made) == {"acclimate.yaml", "events/2024-01-01.parquet", "events/2024-01-02.parquet"}


@pytest.mark.parametrize(("name", "message"), [("mine", "did not write: mine"), ("acclimate.yaml", "was changed")])
def test_a_project_with_the_work_of_others_is_left_alone(name: str, message: str, tmp_path: Path) -> None:
    world = ac.simulate(users=3, items=2, days=2, events_per_day=5)
    made = write_world(world, tmp_path / "world").project.parent
    (made / name).write_text("precious")
    with pytest.raises(OutputExistsError, match=message):
        write_world(world, made, overwrite=True)
    assert (made / name).read_text() == "precious"


def test_no_events_make_no_world(tmp_path: Path) -> None:
    world = ac.simulate(users=3, items=2, days=2, events_per_day=5)
    with pytest.raises(DataError, match="no events"):
        world_project(world.before("2023-01-01"))
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
    summary, width, _ = pipeline.check(project)
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
    with pytest.raises(SourceError, match=r"missing log_standard_4_22_to_5_08_27k_part2\.csv"):
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
    for out in (data, tmp_path / "set"):
        (out / "acclimate.yaml").write_text("")
    before = files(tmp_path)
    for out in (data, tmp_path / "set"):
        with pytest.raises(OutputExistsError):
            kuairand(data, out)
        with pytest.raises(OutputExistsError, match="holds something else than a project"):
            kuairand(data, out, overwrite=True)
    assert files(tmp_path) == before


def test_a_project_does_not_replace_the_one_that_holds_its_data(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "data", OFFICIAL, "pure")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "tar", tmp_path / "raw"))
    kuairand(archive, tmp_path / "project")
    before = files(tmp_path)
    with pytest.raises(OutputExistsError, match="holds the data"):
        kuairand(tmp_path / "project" / "data", tmp_path / "project", overwrite=True)
    assert files(tmp_path) == before


def test_the_real_kuairand(tmp_path: Path) -> None:
    beside = Path(__file__).parents[3] / "shared" / "data" / "kuairand_pure"
    folder = Path(os.environ.get("KUAIRAND_DIR", beside))
    if not folder.exists():
        assert os.environ.get("CI") != "true", f"{folder} is not there, and CI needs it"
        pytest.skip(f"no KuaiRand at {folder}: set KUAIRAND_DIR to the folder that has it")
    project, events = opened(kuairand(folder, tmp_path / "project"))
    assert project.name == "kuairand-pure"
    summary = events.describe()
    assert summary.rows == 817_187 + 228_329
    assert summary.rates["is_click"] == pytest.approx(0.442, abs=5e-4)
    day = events.between("2022-04-28", "2022-04-29").table(["tab", "video.tag", "user.user_active_degree"])
    assert 13_000 < day.num_rows < 22_000
    assert day["tab"].null_count == day["user.user_active_degree"].null_count == 0


# --- MovieLens -----------------------------------------------------------------------------------------------

DAY = 86_400
START = 875_664_000  # 1997-10-01, about when the first of them begins
VOTES = [(1, 1, 5.0), (2, 1, 3.0), (1, 2, 4.0), (2, 3, 0.5), (1, 3, 3.5)]
RATINGS = [(*vote, START + DAY * i) for i, vote in enumerate(VOTES * 20)]
TITLES = {1: "Léon: The Professional (1994)", 2: 'The "Show", again (2007-2011)', 3: "Untitled"}
GENRES = {1: ["Action", "Crime"], 2: ["Children's"], 3: []}
YEARS = {1: 1994, 2: 2007, 3: None}
FLAGS = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


def lines(rows: list[tuple[Any, ...]], separator: str) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def ml_100k(folder: Path) -> None:
    movies = [
        (m, title, "01-Jan-1995", "", f"http://x/{m}", *(int(flag in GENRES[m]) for flag in FLAGS))
        for m, title in TITLES.items()
    ]
    (folder / "u.data").write_text(lines(RATINGS, "\t"))
    (folder / "u.item").write_text(lines(movies, "|"), encoding="latin-1")
    (folder / "u.user").write_text("1|24|M|writer|85711\n2|53|F|other|T8H1N\n")


def ml_1m(folder: Path) -> None:
    ml_10m(folder, encoding="latin-1")
    (folder / "users.dat").write_text("1::M::24::writer::85711\n2::F::53::other::T8H1N\n")


def ml_10m(folder: Path, encoding: str = "utf-8") -> None:
    movies = [(m, title, "|".join(GENRES[m]) or "(no genres listed)") for m, title in TITLES.items()]
    (folder / "ratings.dat").write_text(lines(RATINGS, "::"))
    (folder / "movies.dat").write_text(lines(movies, "::"), encoding=encoding)


def ml_latest(folder: Path) -> None:
    with (folder / "movies.csv").open("w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        writer.writerows((m, t, "|".join(GENRES[m]) or "(no genres listed)") for m, t in TITLES.items())
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines(RATINGS, ","))


FOLDERS = {"ml-100k": ml_100k, "ml-1m": ml_1m, "ml-10M100K": ml_10m, "ml-latest-small": ml_latest}


def laid_out(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    FOLDERS[name](folder / name)
    return folder / name


@pytest.mark.parametrize("name", FOLDERS)
def test_movielens_becomes_a_project(name: str, tmp_path: Path) -> None:
    made = movielens(laid_out(tmp_path, name), tmp_path / "project")
    has_users = name in ("ml-100k", "ml-1m")
    tables = {"acclimate.yaml", "ratings.parquet", "movies.parquet"} | ({"users.parquet"} if has_users else set())
    assert files(tmp_path / "project") == tables
    project, events = opened(made)
    assert project.name == name.lower()
    rows = events.table().to_pylist()
    assert [(r["user_id"], r["movie_id"], r["rating"], r["time"].timestamp()) for r in rows] == RATINGS
    for r in rows:
        assert r["liked"] == (r["rating"] >= 4)
        assert r["movie.title"] == TITLES[r["movie_id"]]
        assert r["movie.genres"] == GENRES[r["movie_id"]]
        assert r["movie.year"] == YEARS[r["movie_id"]]
        if has_users:
            person = (r["user.age"], r["user.gender"], r["user.occupation"], r["user.zip"])
            assert person == {1: (24, "M", "writer", "85711"), 2: (53, "F", "other", "T8H1N")}[r["user_id"]]
    summary, width, _ = pipeline.check(project)
    assert summary.rows == 100
    assert width["ranker.fixed"] >= 4


def test_movielens_is_replayed_over_its_last_fifth(tmp_path: Path) -> None:
    made = movielens(laid_out(tmp_path, "ml-1m"), tmp_path / "project")
    project = load_project(made.project)
    assert project.replay is not None
    assert (project.replay.start, project.replay.every) == ("1997-12-19", "1d")
    project = load_project(made.project, ["replay.every=7d", "replay.arms=[incremental]"])
    report = pipeline.replay_project(project, tmp_path / "report")
    assert report.arms["incremental"].rows == 21


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("ml-latest-small", "ratings.csv", "user,movie,rating,time\n1,1,5,1\n", "first line is 'user,movie"),
        ("ml-latest-small", "ratings.csv", "userId,movieId,rating,timestamp\n1,1,5\n", "Line: 2"),
        ("ml-latest-small", "ratings.csv", "userId,movieId,rating,timestamp\n", "no ratings"),
        ("ml-1m", "ratings.dat", "1::1::5::1\n1::one::5::2\n", 'Could not convert string "one"'),
        ("ml-1m", "movies.dat", "", "first line is ''.*the file is empty"),
        ("ml-100k", "u.item", "1|A (1990)|||\n", "Line: 1"),
        ("ml-1m", "ratings.dat", "1::1::5::999999999999999999\n", "time 999,999,999,999,999,999"),
        ("ml-1m", "ratings.dat", "1::1::5::-999999999999999999\n", "time -999"),
        ("ml-1m", "ratings.dat", "\x1b[2J\x1b::\x00::\n", r"ratings\.dat"),
        ("ml-1m", "ratings.dat", "1::1::\n\r\x0b" * 9, r"ratings\.dat"),
        ("ml-1m", "ratings.dat", "1" * 5_000, r"ratings\.dat"),
        ("ml-1m", "ratings.dat", "1" * 3_000_000, r"ratings\.dat"),
        ("ml-1m", "ratings.dat", "1::1::5::1::7\n", r"ratings\.dat"),
        ("ml-1m", "users.dat", "PK\3\4" + "\0" * 300, r"users\.dat"),
        ("ml-latest-small", "ratings.csv", "x" * 3_000_000, "first line is 'xxx"),
        ("ml-latest-small", "ratings.csv", "\0\x1b[2J\n", r"first line is '\\x00\\x1b"),
        ("ml-latest-small", "movies.csv", 'movieId,title,genres\n1,"never closed,x\n', r"movies\.csv"),
        ("ml-100k", "u.data", "\n" * 10, "first line is ''"),
    ],
)
def test_malformed_files(name: str, file: str, content: str, message: str, tmp_path: Path) -> None:
    folder = laid_out(tmp_path, name)
    (folder / file).write_text(content)
    with pytest.raises(SourceError, match=message) as caught:
        movielens(folder, tmp_path / "project")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user"])
@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_are_one_line(name: str, seed: int, tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "ml-100k")
    (folder / name).write_bytes(np.random.default_rng(seed).bytes(10_000))
    with pytest.raises(SourceError, match=re.escape(name)) as caught:
        movielens(folder, tmp_path / "project")
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (movielens, "ml-100k/u.data"),
        (movielens, "ml-100k/u.item"),
        (movielens, "ml-100k/u.user"),
        (kuairand, "data/log_standard_4_08_to_4_21_pure.csv"),
        (kuairand, "data/user_features_pure.csv"),
        (kuairand, ""),
        (movielens, ""),
    ],
)
def test_what_never_ends_is_not_read(make: Any, name: str, tmp_path: Path) -> None:
    laid_out(tmp_path / "set", "ml-100k")
    write(tmp_path / "set" / "data", OFFICIAL, "pure")
    if name:
        (tmp_path / "set" / name).unlink()
    else:
        shutil.rmtree(tmp_path / "set")
    os.mkfifo(tmp_path / "set" / name)
    with pytest.raises(SourceError, match="is neither a f"):
        make(tmp_path / "set", tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_folder_with_the_name_of_a_file(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "ml-1m")
    (folder / "movies.dat").unlink()
    (folder / "movies.dat").mkdir()
    with pytest.raises(SourceError, match="cannot be read: Is a directory"):
        movielens(folder, tmp_path / "project")


@pytest.mark.parametrize("kind", ["sha256", "md5"])
@pytest.mark.parametrize("value", ["", "00", " " * 64, "x" * 64, "x" * 32])
def test_a_checksum_that_is_none_is_noticed_first(kind: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"is no {kind}"):
        movielens(tmp_path / "nowhere", tmp_path / "project", **{kind: value})


def test_the_project_does_not_tell_a_password(site: str, tmp_path: Path) -> None:
    laid_out(tmp_path / "raw", "ml-100k")
    shutil.make_archive(str(tmp_path / "site" / "ml"), "zip", tmp_path / "raw")
    address = site.replace("//", "//ann:pa55@") + "/ml.zip?token=pa55#pa55"
    made = movielens(address, tmp_path / "project")
    text = "".join(path.read_text("latin-1") for path in made.project.parent.iterdir())
    assert "pa55" not in text
    assert f"# Made from {site}/ml.zip\n# sha256 " in made.project.read_text()


def test_folders_that_are_not_movielens(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no MovieLens data set there.*u\.data, ratings\.dat, ratings\.csv"):
        movielens(tmp_path, tmp_path / "project")
    (laid_out(tmp_path, "ml-1m") / "movies.dat").unlink()
    with pytest.raises(SourceError, match=r"missing movies\.dat"):
        movielens(tmp_path, tmp_path / "project")
    assert [path.name for path in tmp_path.iterdir()] == ["ml-1m"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, a disk without space, is a thing of Linux")
def test_no_space_for_the_conversion(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "ml-1m")
    with pytest.raises(OutputError, match=r"/dev/full cannot be written: .*No space left"):
        _convert(folder / "ratings.dat", _LAYOUTS[1]["ratings"], Path("/dev/full"))


# --- archives and addresses ----------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "site").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

    handler = functools.partial(Handler, directory=tmp_path / "site")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_kuairand_from_an_archive_lies_in_the_project(form: str, site: str, tmp_path: Path) -> None:
    write(tmp_path / "raw" / "KuaiRand-Pure" / "data", OFFICIAL, "pure")
    archive = Path(shutil.make_archive(str(tmp_path / "site" / "KuaiRand"), form, tmp_path / "raw"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    told: list[int] = []
    made = kuairand(
        f"{site}/{archive.name}",
        tmp_path / "project",
        sha256=digest,
        on_progress=lambda done, _: told.append(done),
    )
    assert made.sha256 == digest
    assert digest in made.project.read_text()
    assert told[-1] == archive.stat().st_size
    (tmp_path / "project").rename(tmp_path / "moved")
    project, events = opened(Dataset(tmp_path / "moved" / "acclimate.yaml"))
    assert events.describe().rows == 7
    assert files(tmp_path / "moved") == {
        "acclimate.yaml",
        *(f"data/KuaiRand-Pure/data/{name}_pure.csv" for name in OFFICIAL),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "site", "moved"}
    assert project.name == "kuairand-pure"


def test_movielens_from_an_archive_keeps_no_text(tmp_path: Path) -> None:
    laid_out(tmp_path / "raw", "ml-100k")
    archive = Path(shutil.make_archive(str(tmp_path / "ml"), "zip", tmp_path / "raw"))
    for number, source in enumerate((archive, archive.as_uri())):
        made = movielens(source, tmp_path / f"project{number}")
        assert made.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
        assert len(files(made.project.parent)) == 4
    assert archive.exists()


def test_a_wrong_checksum_makes_no_project(site: str, tmp_path: Path) -> None:
    laid_out(tmp_path / "raw", "ml-100k")
    archive = Path(shutil.make_archive(str(tmp_path / "site" / "ml"), "zip", tmp_path / "raw"))
    for source in (archive, f"{site}/ml.zip"):
        with pytest.raises(SourceError, match="its md5 is"):
            movielens(source, tmp_path / "project", md5="0" * 32)
    assert not (tmp_path / "project").exists()


def test_a_damaged_archive_is_not_kept(site: str, tmp_path: Path) -> None:
    laid_out(tmp_path / "raw", "ml-100k")
    archive = Path(shutil.make_archive(str(tmp_path / "site" / "ml"), "zip", tmp_path / "raw"))
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100])
    with pytest.raises(SourceError):
        movielens(f"{site}/ml.zip", tmp_path / "project")
    with pytest.raises(SourceError):
        movielens(archive, tmp_path / "project")
    archive.write_bytes(whole)
    assert movielens(f"{site}/ml.zip", tmp_path / "project").project.exists()


def test_a_folder_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        movielens(laid_out(tmp_path, "ml-1m"), tmp_path / "project", sha256="0" * 64)


def test_a_taken_place_is_noticed_before_the_download(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine").write_text("precious")
    with pytest.raises(OutputExistsError):
        movielens("http://127.0.0.1:1/ml.zip", tmp_path / "project")
    assert files(tmp_path) == {"project/mine"}
