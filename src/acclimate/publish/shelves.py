"""Where a registry lies: a local folder, or a file system behind a URL; entries come into being once, whole.

Two who create one name at the same time are told apart by the system that holds it: a hard link is refused where
the name is taken, and so is a conditional put of an object store. Where neither can be had nothing is written.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from acclimate.errors import ConfigError, SourceError
from acclimate.extras import import_module
from acclimate.storage.locks import locked_if_free, sync
from acclimate.storage.places import telling


class Shelf(Protocol):
    """Files by name, ``/`` between its parts."""

    @property
    def url(self) -> str:
        """As it was named, without what is secret in it."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where the files are on this machine; ``None`` where they are not."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is in a folder, by its last part, sorted; nothing where there is no such folder.

        Raises:
            SourceError: it cannot be read.
        """
        ...

    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises:
            FileNotFoundError: there is none.
            SourceError: it cannot be read.
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
        ConfigError: it is empty, there is no such protocol, or it cannot tell which of two writers was first.
        MissingExtraError: its file system is not installed.
    """
    if not url:
        raise ConfigError("the place of the spaces is empty", hint="name a folder, or a URL such as s3://bucket/x")
    protocol, separator, path = url.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalShelf(Path(path if separator else url))
    return import_module("acclimate.publish.remote").shelf_behind(url, protocol)


class LocalShelf:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, str(folder)

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        try:
            with _reached(self.folder / folder):
                return sorted(name for name in os.listdir(self.folder / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """What a file holds."""
        with _reached(self.folder / name):
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


@contextmanager
def _reached(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check publish.spaces, and who may read there",
        ) from error


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
