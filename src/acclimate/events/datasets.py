"""What a data set or a simulated world needs to become a project: a folder that is ready to run."""

import datetime as dt
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter

from acclimate.artifacts import Events
from acclimate.config import GLMixParameters, Schema, arms_beside
from acclimate.errors import ConfigError, DataError, OutputExistsError, SourceError
from acclimate.events.archives import unpack
from acclimate.events.download import Progress, check_digests, checksum, download, is_url, shown, verify
from acclimate.storage import check_free, replacing_folder

PROJECT = "acclimate.yaml"


@dataclass(frozen=True)
class Dataset:
    """A project ready to run: its file, and the SHA-256 of the archive that it was made from, if any."""

    project: Path
    sha256: str | None = None


@dataclass(frozen=True)
class Making:
    """A data set on its way: the folder of its files, the folder to fill, and its origin as a comment."""

    data: Path
    folder: Path
    origin: str
    sha256: str | None


@contextmanager
def making(
    source: str | Path,
    out: str | Path,
    *,
    sha256: str | None,
    md5: str | None,
    overwrite: bool,
    on_progress: Progress | None,
) -> Generator[Making]:
    """Yield a folder that becomes ``out`` when the block ends well, and the files of ``source``.

    ``source`` is a folder, a zip or tar archive, or the address of an archive. An archive is unpacked to ``data``
    in the folder; one from the network waits in ``<out>.download``, where an interrupted download goes on.

    Raises:
        SourceError: there is no such source, it cannot be fetched or unpacked, or a checksum differs.
        ConfigError: an address is malformed, or a checksum is; or one is given for a folder.
        OutputExistsError: ``out`` is taken, or holds the source.
        OutputError: it cannot be written.
    """
    check_digests(sha256=sha256, md5=md5)
    check_free(out, "project", overwrite=overwrite)
    downloads = Path(f"{out}.download")
    if is_url(source):
        local = download(str(source), downloads, sha256=sha256, md5=md5, on_progress=on_progress)
    else:
        local = _local(Path(source), Path(out), sha256=sha256, md5=md5)
    with replacing_folder(out, "project", overwrite=overwrite) as folder:
        if local.is_dir():
            made = Making(local.resolve(), folder, f"Made from {local.resolve()}", None)
        else:
            digest = checksum(local, "sha256")
            origin = shown(str(source)) if is_url(source) else source
            made = Making(folder / "data", folder, f"Made from {origin}\nsha256 {digest}", digest)
            _unpack(local, made.data, keep=not is_url(source))
        yield made
    if is_url(source):
        shutil.rmtree(downloads, ignore_errors=True)


def _local(source: Path, out: Path, *, sha256: str | None, md5: str | None) -> Path:
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    if source.resolve().is_relative_to(out.resolve()):
        raise OutputExistsError(f"{out} holds the data themselves", hint="choose another place for the project")
    if not source.is_file() and not source.is_dir():
        raise SourceError(f"{source} is neither a folder nor a file that ends")
    if source.is_file():
        verify(source, sha256=sha256, md5=md5)
    elif sha256 or md5:
        raise ConfigError(f"{source} is a folder; a checksum is of an archive")
    return source


def _unpack(archive: Path, folder: Path, *, keep: bool) -> None:
    """Unpack; a damaged archive that is not to be kept goes, so that the next call fetches it anew."""
    try:
        unpack(archive, folder)
    except SourceError:
        if not keep:
            archive.unlink()
        raise


def folder_of(root: Path, pattern: str) -> Path | None:
    """The folder at most two levels down, the nearest first, that has a file of this pattern."""
    matches = (match for level in ("", "*/", "*/*/") for match in sorted(root.glob(level + pattern)))
    return next((match.parent for match in matches), None)


def is_there(path: Path) -> bool:
    """Whether there is such a file, or a folder of its parts.

    Raises:
        SourceError: there is something that never ends.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SourceError(f"{path} is neither a file nor a folder", hint="pipes and devices are not read")
    return path.exists()


def write_project(folder: Path, project: Mapping[str, Any], comments: Mapping[str, str]) -> None:
    """Write ``acclimate.yaml``, with comments above the sections that they are of."""
    text = yaml.safe_dump(dict(project), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)

    def introduced(section: re.Match[str]) -> str:
        comment = "".join(f"# {line}\n" for line in comments.get(section[1], "").splitlines())
        return f"\n{comment}{section[0]}"

    text = re.sub(r"^(\w+):", introduced, text, flags=re.MULTILINE).lstrip()
    (folder / PROJECT).write_text(text, encoding="utf-8")


def write_world(events: Events, out: str | Path, *, overwrite: bool = False) -> Dataset:
    """Write what :func:`acclimate.simulate` returned as a project: one Parquet file a day, and ``acclimate.yaml``.

    Its learner has the form of the true logit of a click; its replay starts after a quarter of the days.

    Raises:
        DataError: there are no events.
        OutputExistsError: ``out`` is taken.
        OutputError: it cannot be written.
    """
    import pyarrow.parquet as pq

    project = world_project(events)
    with replacing_folder(out, "project", overwrite=overwrite) as folder:
        (folder / "events").mkdir()
        for window in events.windows("1d"):
            day = np.datetime_as_string(np.datetime64(window.start, "us"), unit="D")
            pq.write_table(window.table(), folder / "events" / f"{day}.parquet", compression="zstd")
        write_project(folder, project, {"name": "A simulated world: click_probability is the truth."})
    return Dataset(Path(out) / PROJECT)


def world_project(events: Events, fit_days: int | None = None) -> dict[str, Any]:
    """What :func:`acclimate.simulate` returned as the content of a project file.

    Its learner has the form of the true logit of a click; its replay starts after ``fit_days``, by default a
    quarter of the days.

    Raises:
        DataError: there are no events.
    """
    log = events.describe()
    if log.first is None or log.last is None:
        raise DataError("there are no events in this world", hint="give it more users")
    quarter = max((log.last.date() - log.first.date()).days // 4, 1)
    schema = TypeAdapter(Schema).dump_python(events.schema, mode="json", exclude_defaults=True)
    features = schema.pop("features")
    return {
        "name": "simulated-world",
        "events": {"path": "events", **schema},
        "features": features,
        "learners": {
            "ranker": {
                "kind": "glmix",
                "label": "click",
                "fixed": ["surface", "hour", "position", "topics", "duration"],
                "random": {"user": {"features": ["topics"], "half_life": "20d"}, "item": {"half_life": "20d"}},
            }
        },
        "replay": {
            "start": log.first.date() + dt.timedelta(days=quarter if fit_days is None else fit_days),
            "every": "1d",
            "arms": list(arms_beside(GLMixParameters())),
            "within": ["surface"],
        },
    }
