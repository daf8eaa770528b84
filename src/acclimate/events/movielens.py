"""MovieLens as a project: ratings of movies (Harper and Konstan 2015, https://grouplens.org/datasets/movielens)."""

import datetime as dt
import glob
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.config import GLMixParameters, arms_beside
from acclimate.errors import OutputError, SourceError
from acclimate.events.datasets import PROJECT, Dataset, folder_of, is_there, making, write_project
from acclimate.events.download import Progress
from acclimate.events.files import Database, literal, reason

_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
_FLAGS = {f"flag{i}": name for i, name in enumerate(_GENRES)}  # of ml-100k, in the order of its columns
_FLAGGED = ", ".join(f"CASE {flag} WHEN 1 THEN {literal(name)} END" for flag, name in _FLAGS.items())

_RATINGS = "SELECT *, CAST(rating >= 4 AS TINYINT) AS liked FROM {rows} ORDER BY time, user_id, movie_id"
_MOVIES = r"""
    SELECT movie_id, title,
        TRY_CAST(regexp_extract(title, '\((\d\d\d\d)[^()]*\)\s*$', 1) AS BIGINT) AS year,
        CASE WHEN genres IN ('', '(no genres listed)') THEN [] ELSE string_split(genres, '|') END AS genres
    FROM {rows} ORDER BY movie_id
"""
_MOVIES_FLAGGED = _MOVIES.replace("{rows}", f"(SELECT *, concat_ws('|', {_FLAGGED}) AS genres FROM {{rows}})")
_USERS = "SELECT * FROM {rows} ORDER BY user_id"

_RATING = {"user_id": "BIGINT", "movie_id": "BIGINT", "rating": "DOUBLE", "time": "BIGINT"}
_MOVIE = {"movie_id": "BIGINT", "title": "VARCHAR", "genres": "VARCHAR"}
_MOVIE_FLAGGED = {
    "movie_id": "BIGINT",
    **dict.fromkeys(("title", "released", "released_on_video", "url"), "VARCHAR"),
    **dict.fromkeys(_FLAGS, "BIGINT"),
}
_USER = {"user_id": "BIGINT", "age": "BIGINT", "gender": "VARCHAR", "occupation": "VARCHAR", "zip": "VARCHAR"}
_GENDER_FIRST = ("user_id", "gender", "age", "occupation", "zip")


@dataclass(frozen=True)
class _File:
    """A text file: its columns by DuckDB type, and what to select of its ``{rows}``.

    ``header`` is its first line as it must read; without one, the first line is data.
    """

    name: str
    delimiter: str
    columns: dict[str, str]
    sql: str
    header: str = ""


_LAYOUTS = (
    {  # ml-100k
        "ratings": _File("u.data", "\t", _RATING, _RATINGS),
        "movies": _File("u.item", "|", _MOVIE_FLAGGED, _MOVIES_FLAGGED),
        "users": _File("u.user", "|", _USER, _USERS),
    },
    {  # ml-1m; ml-10m, without users
        "ratings": _File("ratings.dat", "::", _RATING, _RATINGS),
        "movies": _File("movies.dat", "::", _MOVIE, _MOVIES),
        "users": _File("users.dat", "::", {name: _USER[name] for name in _GENDER_FIRST}, _USERS),
    },
    {  # ml-20m, ml-25m, ml-32m, ml-latest
        "ratings": _File("ratings.csv", ",", _RATING, _RATINGS, "userId,movieId,rating,timestamp"),
        "movies": _File("movies.csv", ",", _MOVIE, _MOVIES, "movieId,title,genres"),
    },
)
_WINDOWS = 20
_LONGEST = 300  # of a line that is told


def movielens(
    source: str | Path,
    out: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Dataset:
    """Make a project of a MovieLens data set: 100K, 1M, 10M, 20M, 25M, 32M or latest.

    Ratings, movies and, where there are some, users become Parquet files in the project. A movie is ``liked`` with
    a rating of 4 or more.

    Args:
        source: the official folder, or an archive or the address of one.
        out: the project's folder.
        sha256: what the archive's checksum must be.
        md5: the same by MD5.
        overwrite: replace what is at ``out``.
        on_progress: of the download.

    Raises:
        SourceError: files are missing or malformed, or cannot be fetched or unpacked.
        OutputExistsError: ``out`` is taken.
        OutputError: it cannot be written.
    """
    with making(source, out, sha256=sha256, md5=md5, overwrite=overwrite, on_progress=on_progress) as made:
        folder, files = _found(made.data)
        for name, file in files.items():
            _convert(folder / file.name, file, made.folder / f"{name}.parquet")
        project = _project(folder.name.lower(), made.folder / "ratings.parquet", has_users="users" in files)
        write_project(made.folder, project, {"name": made.origin})
        if made.data.is_relative_to(made.folder):
            shutil.rmtree(made.data)
    return Dataset(Path(out) / PROJECT, made.sha256)


def _found(root: Path) -> tuple[Path, dict[str, _File]]:
    """The folder of the data set, and those of its files that are there.

    Raises:
        SourceError: there are no ratings, or no movies beside them.
    """
    for layout in _LAYOUTS:
        if folder := folder_of(root, layout["ratings"].name):
            files = {name: file for name, file in layout.items() if is_there(folder / file.name)}
            if "movies" not in files:
                raise SourceError(f"{folder}: missing {layout['movies'].name}")
            return folder, files
    names = ", ".join(layout["ratings"].name for layout in _LAYOUTS)
    raise SourceError(f"{root}: no MovieLens data set there", hint=f"its ratings are in {names}")


def _convert(source: Path, file: _File, target: Path) -> None:
    """Write what is selected of a text file as Parquet.

    Raises:
        SourceError: the file is empty, or has another header or a malformed line.
        OutputError: the target cannot be written.
    """
    import duckdb

    try:
        first, encoding = _first_line(source), _encoding(source)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error
    if not first or (file.header and first != file.header):
        wanted = f"the official file begins with '{file.header}'" if file.header else "the file is empty"
        raise SourceError(f"{source}: the first line is {first!r}", hint=wanted)
    try:
        database = Database("1GB")  # which has to be there until all is written
        rows = database.query(file.sql.format(rows=_scan(source, file, encoding)))
        rows.write_parquet(str(target), compression="zstd")
    except duckdb.IOException as error:
        raise OutputError(f"{target} cannot be written: {reason(error)}") from error
    except duckdb.Error as error:
        what = "; ".join(line for line in str(error).splitlines()[:3] if line)[:_LONGEST]
        raise SourceError(f"{source}: {what}", hint="take the official file") from error


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(_LONGEST).decode("latin-1").strip()


def _scan(path: Path, file: _File, encoding: str) -> str:
    """SQL that reads the file; in those without a header, quotes are part of the text."""
    columns = ", ".join(f"{name}: {literal(kind)}" for name, kind in file.columns.items())
    quote = literal('"' if file.header else "")
    return (
        f"read_csv({literal(glob.escape(str(path)))}, auto_detect = false, delim = {literal(file.delimiter)}, "
        f"header = {bool(file.header)}, quote = {quote}, escape = {quote}, encoding = {literal(encoding)}, "
        f"columns = {{{columns}}})"
    )


def _encoding(path: Path) -> str:
    """Latin-1 if it is not UTF-8: the older data sets are."""
    try:
        with path.open(encoding="utf-8") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _project(name: str, ratings: Path, *, has_users: bool) -> dict[str, Any]:
    start, every = _schedule(ratings)
    tables = {"movie": {"source": "movies.parquet", "key": "movie_id"}}
    features: dict[str, Any] = {
        "genres": {"column": "movie.genres", "kind": "multi"},
        "year": {"column": "movie.year", "kind": "numeric"},
    }
    fixed = ["genres", "year"]
    if has_users:
        tables["user"] = {"source": "users.parquet", "key": "user_id"}
        features["age"] = {"column": "user.age", "kind": "numeric"}
        fixed += ["age", "user.gender", "user.occupation"]
    return {
        "name": name,
        "events": {
            "path": "ratings.parquet",
            "time": {"column": "time", "unit": "s"},
            "entities": {"user": "user_id", "movie": "movie_id"},
            "labels": ["liked"],
            "tables": tables,
        },
        "features": features,
        "learners": {
            "ranker": {
                "kind": "glmix",
                "label": "liked",
                "fixed": fixed,
                "random": {"user": {"features": ["genres"]}, "movie": {}},
            }
        },
        "replay": {"start": start, "every": every, "arms": list(arms_beside(GLMixParameters()))},
    }


def _schedule(ratings: Path) -> tuple[dt.date, str]:
    """When to start so that the last fifth of the ratings is replayed, and windows that make it about twenty."""
    rows = f"read_parquet({literal(glob.escape(str(ratings)))})"
    query = f"SELECT quantile_disc(time, 0.8), max(time) FROM {rows}"
    database = Database("1GB")
    start, last = database.query(query).fetchall()[0]
    if last is None:
        raise SourceError("the data set has no ratings")
    days = max(1, round((last - start) / 86_400 / _WINDOWS))
    try:
        return dt.datetime.fromtimestamp(start, dt.UTC).date(), f"{days}d"
    except (OverflowError, OSError, ValueError) as error:
        raise SourceError(f"a rating has the time {start:,}", hint="they are seconds since 1970") from error
