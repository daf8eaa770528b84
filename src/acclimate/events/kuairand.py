"""KuaiRand as a project: impressions of a short-video app (Gao et al., CIKM 2022, https://kuairand.com)."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

from acclimate.config import GLMixParameters, arms_beside
from acclimate.errors import SourceError
from acclimate.events.datasets import PROJECT, Dataset, Making, folder_of, is_there, making, write_project
from acclimate.events.download import Progress

_LOGS = (
    ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08"),
    ("log_history_4_08_to_4_24", "log_standard_4_25_to_5_08"),  # per-user sequences, then the full log
)
_TABLES = {"user": "user_features", "video": "video_features_basic"}
_VERSIONED = re.compile(r"log_(?:standard|history)_.*_(pure|1k|27k)(?:_part\d)?\.(?:csv|parquet)")

_EVENTS_COMMENT = """\
The random-exposure log (log_random_4_22_to_5_08) is left out: its videos were drawn at random, not by the
policies that are learned from here. So are the video statistics (video_features_statistic): they count the whole
period, the days of the replay included."""


def kuairand(
    source: str | Path,
    out: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Dataset:
    """Make a project of KuaiRand-Pure, -1K or -27K, as CSV or Parquet.

    The data stay where they are; only those of an archive are unpacked, into the project.

    Args:
        source: the official folder, its ``data`` folder, or an archive or the address of one.
        out: the project's folder.
        sha256: what the archive's checksum must be.
        md5: the same by MD5.
        overwrite: replace what is at ``out``.
        on_progress: of the download.

    Raises:
        SourceError: files are missing, or cannot be fetched or unpacked.
        OutputExistsError: ``out`` is taken.
        OutputError: it cannot be written.
    """
    with making(source, out, sha256=sha256, md5=md5, overwrite=overwrite, on_progress=on_progress) as made:
        write_project(made.folder, _project(made), {"name": made.origin, "events": _EVENTS_COMMENT})
    return Dataset(Path(out) / PROJECT, made.sha256)


def _project(made: Making) -> dict[str, Any]:
    folder = folder_of(made.data, "log_standard_*")
    if folder is None:
        raise SourceError(f"{made.data}: no KuaiRand log there", hint="it has files such as log_standard_*.csv")
    version = _version(folder)
    logs, tables = _files(folder, version)
    return {
        "name": f"kuairand-{version}",
        "events": {
            "path": [_reference(path, made.folder) for path in logs],
            "time": {"column": "time_ms", "unit": "ms", "zone": "Asia/Shanghai"},
            "entities": {"user": "user_id", "video": "video_id"},
            "labels": ["long_view", "is_click", "is_like"],
            "duplicates": "keep",
            "tables": {
                name: {"source": _reference(path, made.folder), "key": f"{name}_id"}
                for name, path in tables.items()
            },
        },
        "features": {
            "tab": {"kind": "categorical"},
            "tags": {"column": "video.tag", "kind": "multi", "separator": ","},
            "duration": {"column": "video.video_duration", "kind": "numeric", "transform": "log1p"},
        },
        "learners": {
            "ranker": {
                "kind": "glmix",
                "label": "long_view",
                "fixed": ["tab", "hour", "weekday", "tags", "duration", "user.user_active_degree"],
                "random": {"user": {}, "video": {"half_life": "30d"}},
            }
        },
        "replay": {
            "start": dt.date(2022, 4, 28),
            "every": "1d",
            "arms": list(arms_beside(GLMixParameters())),
            "within": ["tab"],
        },
    }


def _version(folder: Path) -> str:
    versions = {match[1] for path in folder.iterdir() if (match := _VERSIONED.fullmatch(path.name))}
    if len(versions) != 1:
        what = "no" if not versions else "more than one"
        raise SourceError(
            f"{folder}: {what} version of KuaiRand there: {', '.join(sorted(versions))}",
            hint="give a folder with the files of one version: pure, 1k or 27k",
        )
    return versions.pop()


def _files(folder: Path, version: str) -> tuple[list[Path], dict[str, Path]]:
    """The logs, and the tables by entity.

    Raises:
        SourceError: some are missing; those of the layout that has more of its logs.
    """
    layouts = [[name for stem in logs for name in _names(stem, version)] for logs in _LOGS]
    logs = max(layouts, key=lambda names: sum(_existing(folder, name) is not None for name in names))
    tables = {name: f"{stem}_{version}" for name, stem in _TABLES.items()}
    existing = {name: _existing(folder, name) for name in (*logs, *tables.values())}
    missing = [f"{name}.csv" for name, path in existing.items() if path is None]
    if missing:
        raise SourceError(f"{folder}: missing {', '.join(missing)}", hint="CSV or Parquet, under these names")
    paths = {name: path for name, path in existing.items() if path}
    return [paths[name] for name in logs], {name: paths[file] for name, file in tables.items()}


def _names(log: str, version: str) -> list[str]:
    """The files of a log: of 27K it is in two parts."""
    return [f"{log}_{version}{part}" for part in (("_part1", "_part2") if version == "27k" else ("",))]


def _existing(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.parquet", folder / f"{name}.csv")
    return next((path for path in paths if is_there(path)), None)


def _reference(path: Path, project: Path) -> str:
    """How the project file names a file: relative to it if it lies inside, else absolute."""
    return str(path.relative_to(project) if path.is_relative_to(project) else path)
