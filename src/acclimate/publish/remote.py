"""A registry behind a URL: any file system of fsspec that refuses a second file under one name."""

import re
import secrets
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec import available_protocols
from fsspec.core import url_to_fs

from acclimate.errors import ConfigError, MissingExtraError, OutputError, SourceError
from acclimate.storage.manifest import MANIFEST

_CONDITIONAL = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
"""Protocols of object stores that refuse a put under a name that is taken, where they are asked to."""

_MEMORY = "memory"
_CHECK = "check the address, the network and the credentials"
_SECRETS = (
    re.compile(r"://([^\s/@:]*:)(\S*)(@)"),
    re.compile(r"[?&]([^=&\s]*(?:password|secret|token|key|sig)[^=&\s]*=)([^&\s]+)()", re.IGNORECASE),
)
"""What is not shown of a URL: each the second of three groups."""


def shelf_behind(url: str, protocol: str) -> "RemoteShelf":
    """The place at a URL.

    Raises:
        ConfigError: it names no file system, or one that cannot tell which of two writers was first.
        MissingExtraError: its file system is not installed.
        SourceError: it cannot be reached.
    """
    shown = without_secrets(url, url)
    if unknown := set(protocol.split("::")) - set(available_protocols()):
        raise ConfigError(
            f"'{shown}' names no file system: {', '.join(unknown)}", hint="such as s3://bucket/spaces"
        )
    if protocol not in (*_CONDITIONAL, _MEMORY):
        raise ConfigError(
            f"'{shown}': {protocol}:// cannot tell which of two writers was first",
            hint="keep spaces in a local folder, or in an object store with conditional puts, such as s3://",
        )
    try:
        system, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingExtraError(f"'{shown}': {error}", hint="pip install 'acclimate[remote]' brings S3") from error
    except ValueError as error:
        what = without_secrets(str(error), url)
        raise ConfigError(f"'{shown}' names no place: {what}", hint="such as s3://bucket/spaces") from error
    except _failures() as error:
        what = without_secrets(str(error), url)
        raise SourceError(f"'{shown}' cannot be reached: {what}", hint=_CHECK) from error
    return RemoteShelf(url, protocol, system, root.rstrip("/"))


def without_secrets(text: str, url: str) -> str:
    """A text in which passwords and keys that a URL has are not shown."""
    for secret in (match for pattern in _SECRETS for match in pattern.finditer(url)):
        text = text.replace("".join(secret.groups()), f"{secret[1]}***{secret[3]}")
    return text


class RemoteShelf:
    """A file system of fsspec."""

    folder = None
    _in_memory = threading.Lock()

    def __init__(self, url: str, protocol: str, system: Any, root: str) -> None:
        self.url = without_secrets(url, url).rstrip("/")
        self._named, self._protocol, self._system, self._root = url, protocol, system, root
        self._is_proved = protocol == _MEMORY

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        with self._reached():
            try:
                self._system.invalidate_cache()
                found = self._system.ls(self._at(folder), detail=False)
            except FileNotFoundError as error:
                if _has_no_bucket(error):
                    raise SourceError(
                        f"{self.url} cannot be read: there is no such bucket", hint=_CHECK
                    ) from error
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
                self._system.invalidate_cache()
                left = self._system.find(self._at(folder))
            except FileNotFoundError:
                return
        if left:  # some stores keep silent about what they do not remove
            raise OutputError(
                f"{self.url}/{folder} cannot be removed: {len(left):,} files are still there", hint=_CHECK
            )

    def tidy(self, folder: str) -> None:
        """Nothing: what is uploaded is whole or not there."""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _prove(self) -> None:
        """See, before the first entry is made, that a name that is taken is refused.

        Raises:
            ConfigError: it is not.
        """
        if self._is_proved:
            return
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
                if self._protocol == _MEMORY:  # whose own check and write are two steps
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
            what = without_secrets(str(error), self._named)
            raise SourceError(f"{self.url} cannot be read: {what}", hint=_CHECK) from error

    @contextmanager
    def _written(self) -> Generator[None]:
        try:
            yield
        except _failures() as error:
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> OutputError:
        what = without_secrets(str(error), self._named)
        return OutputError(f"{self.url} cannot be written: {what}", hint=_CHECK)


def _has_no_bucket(error: BaseException | None) -> bool:
    """Whether it is not a folder that is absent, but all that it would be in."""
    while error is not None:
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket":
            return True
        error = error.__cause__ or error.__context__
    return False


def _failures() -> tuple[type[BaseException], ...]:
    """What a file system raises when it cannot be reached: S3 has errors of its own."""
    botocore: Any = sys.modules.get("botocore.exceptions")
    return (OSError,) if botocore is None else (OSError, botocore.BotoCoreError, botocore.ClientError)
