"""Where a registry lies: a local folder, or a file system behind a URL; entries come into being once, whole.

Two who create one name at the same time are told apart by the system that holds it: a hard link is refused where
the name is taken, and so is a conditional put of an object store. Where neither can be had nothing is written.
"""

import fcntl
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from acclimate import extras
from acclimate.errors import ConfigError, OutputError, SourceError
from acclimate.storage.locks import locked_if_free, sync
from acclimate.storage.manifest import MANIFEST
from acclimate.storage.places import telling

_CONDITIONAL = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
"""Protocols of object stores that refuse a put under a name that is taken, where they are asked to."""


class Shelf(Protocol):
    """Files by name, ``/`` between its parts."""

    @property
    def url(self) -> str:
        """As it was named."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where the files are on this machine; ``None`` where they are not."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is in a folder, by its last part, sorted; nothing where there is no such folder."""
        ...

    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def create(self, name: str, data: bytes) -> None:
        """Make a new file, whole and to stay.

        Raises:
            FileExistsError: another has made it.
            ConfigError: this place cannot tell who was first.
        """
        ...

    def put(self, folder: Path, name: str) -> None:
        """Copy a local folder here, its manifest last."""
        ...

    def get(self, name: str, path: Path) -> None:
        """Copy a file to a local place.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        ...

    def tidy(self, folder: str) -> None:
        """Remove from a folder what killed processes left in it."""
        ...


def shelf_at(url: str) -> Shelf:
    """The place that a path or a URL names.

    Raises:
        ConfigError: it is empty, or there is no such protocol.
        MissingExtraError: its file system is not installed.
    """
    if not url:
        raise ConfigError("the place of the spaces is empty", hint="name a folder, or a URL such as s3://bucket/x")
    protocol, separator, path = url.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalShelf(Path(path if separator else url))
    return _remote(url, protocol)


class LocalShelf:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, str(folder)

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        try:
            return sorted(name for name in os.listdir(self.folder / folder) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> bytes:
        """What a file holds."""
        return (self.folder / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """Make a new file: written aside, then linked, which is refused where the name is taken."""
        final = self.folder / name
        with telling(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            while (is_new := _linked(final, data)) is None:
                pass  # taken for a leftover before it was locked
            if is_new:
                sync(final.parent)
        if not is_new:
            raise FileExistsError(final)

    def put(self, folder: Path, name: str) -> None:
        """Copy a folder here."""
        shutil.copytree(folder, self.folder / name)

    def get(self, name: str, path: Path) -> None:
        """Copy a file from here."""
        shutil.copyfile(self.folder / name, path)

    def remove(self, folder: str) -> None:
        """Remove a folder."""
        with telling(self.folder / folder):
            if (self.folder / folder).exists():
                shutil.rmtree(self.folder / folder)

    def tidy(self, folder: str) -> None:
        """Remove what was written aside by processes that are gone."""
        for path in (self.folder / folder).glob(".*.partial"):
            try:
                with locked_if_free(path) as free:
                    if free and path.is_dir():
                        shutil.rmtree(path)
                    elif free:
                        path.unlink()
            except FileNotFoundError:
                continue  # its writer was alive, and is done


def _linked(final: Path, data: bytes) -> bool | None:
    """Whether data have got a name, or it was taken; ``None`` if they were cleared away before."""
    aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
    with aside.open("xb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.link(aside, final)
        except FileNotFoundError:
            return None
        except FileExistsError:
            return False
        except PermissionError as error:
            raise ConfigError(
                f"{final.parent} has no hard links, so that two writers could not be told apart",
                hint="put the spaces on another file system",
            ) from error
        finally:
            aside.unlink(missing_ok=True)
    return True


# --- behind a URL --------------------------------------------------------------------------------------------


def _remote(url: str, protocol: str) -> "RemoteShelf":
    fsspec: Any = extras.import_module("fsspec.core")
    try:
        system, root = fsspec.url_to_fs(url, use_listings_cache=False)
    except ValueError as error:
        raise ConfigError(f"'{url}' names no file system: {error}", hint="such as s3://bucket/spaces") from error
    except ImportError as error:
        raise ConfigError(f"'{url}': {error}", hint="pip install 'acclimate[remote]' brings S3") from error
    return RemoteShelf(url.rstrip("/"), protocol, system, root.rstrip("/"))


class RemoteShelf:
    """A file system of fsspec."""

    folder = None
    _in_memory = threading.Lock()

    def __init__(self, url: str, protocol: str, system: Any, root: str) -> None:
        self.url, self._protocol, self._system, self._root = url, protocol, system, root
        self._is_proved = protocol == "memory"

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        with self._reached():
            try:
                self._system.invalidate_cache()
                found = self._system.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        names = {name.rstrip("/").rpartition("/")[2] for name in found}
        return sorted(name for name in names - {folder.rpartition("/")[2]} if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """What a file holds."""
        with self._reached():
            return self._system.cat_file(self._at(name))

    def create(self, name: str, data: bytes) -> None:
        """Make a new file by a put that is refused where the name is taken."""
        self._prove()
        if not self._put_new(name, data):
            raise FileExistsError(name)

    def put(self, folder: Path, name: str) -> None:
        """Upload a folder, its manifest last."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in sorted(paths, key=lambda path: path == folder / MANIFEST):
            with self._written():
                self._system.put_file(str(path), self._at(f"{name}/{path.relative_to(folder).as_posix()}"))

    def get(self, name: str, path: Path) -> None:
        """Download a file."""
        with self._reached():
            self._system.get_file(self._at(name), str(path))

    def remove(self, folder: str) -> None:
        """Remove what is below a name."""
        with self._written():
            try:
                self._system.invalidate_cache()
                self._system.rm(self._at(folder), recursive=True)
            except FileNotFoundError:
                return

    def tidy(self, folder: str) -> None:
        """Nothing: what is uploaded is whole or not there."""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _prove(self) -> None:
        """See, before the first entry is made, that a name that is taken is refused.

        Raises:
            ConfigError: it is not, or nobody promises that two at the same time cannot both be first.
        """
        if self._is_proved:
            return
        if self._protocol not in _CONDITIONAL:
            raise ConfigError(
                f"{self.url}: {self._protocol}:// cannot tell which of two writers was first, so that nothing is "
                "written there",
                hint="keep spaces in a local folder, or in an object store with conditional puts, such as s3://",
            )
        name = f"journal/.probe-{secrets.token_hex(8)}"
        with self._written():
            self._system.pipe_file(self._at(name), b"1", mode="create")
        was_refused = not self._put_new(name, b"2")
        with self._written():
            self._system.rm_file(self._at(name))
        if not was_refused:
            raise ConfigError(
                f"{self.url}: this store takes a second file under a name that is taken, although it is asked "
                "not to; nothing is written there",
                hint="use a store with conditional puts (If-None-Match), or a local folder",
            )
        self._is_proved = True

    def _put_new(self, name: str, data: bytes) -> bool:
        """Whether the data are there now: by us, and not by another.

        A put that failed may have come through all the same: what is there tells, and no two writers put the same.
        """
        with self._reached():
            try:
                if self._protocol == "memory":  # whose own check and write are two steps
                    with self._in_memory:
                        self._system.pipe_file(self._at(name), data, mode="create")
                else:
                    self._system.pipe_file(self._at(name), data, mode="create")
            except _failures() as error:
                try:
                    return self._system.cat_file(self._at(name)) == data
                except FileNotFoundError:
                    raise self._refused(error) from error
        return True

    @contextmanager
    def _reached(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except _failures() as error:
            raise SourceError(
                f"{self.url} cannot be read: {error}", hint="check the address, the network and the credentials"
            ) from error

    @contextmanager
    def _written(self) -> Generator[None]:
        try:
            yield
        except _failures() as error:
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> OutputError:
        return OutputError(
            f"{self.url} cannot be written: {error}", hint="check the address, the network and the credentials"
        )


def _failures() -> tuple[type[BaseException], ...]:
    """What a file system raises when it cannot be reached: S3 has errors of its own."""
    botocore: Any = sys.modules.get("botocore.exceptions")
    return (OSError,) if botocore is None else (OSError, botocore.BotoCoreError, botocore.ClientError)
