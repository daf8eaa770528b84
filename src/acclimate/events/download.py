"""Archives from the network: resumed where they broke off, checked, and unpacked without surprises."""

import hashlib
import http.client
import lzma
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from acclimate.errors import ConfigError, OutputError, SourceError

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, where the server tells them."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds of silence


class _BrokeOff(Exception):  # noqa: N818 - an event to react to, that never leaves this module
    """The server stopped before the end."""


def is_url(source: str | Path) -> bool:
    """Whether this is an address rather than a path."""
    return "://" in str(source)


def download(
    url: str,
    folder: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Fetch a file into a folder, under the last part of its address.

    What has come lies in ``<name>.part``; a download that broke off goes on from there, at once as long as that
    brings it further, else at the next call. The final name is given to a complete and checked file only, and
    such a file is not fetched again.

    Args:
        url: ``http``, ``https`` or ``file``.
        folder: made if need be.
        sha256: what the file's checksum must be, in hexadecimal.
        md5: the same by MD5.
        on_progress: see :data:`Progress`.

    Raises:
        ConfigError: the address is of another kind, or names no file.
        SourceError: the server refuses or breaks off, or a checksum differs.
        OutputError: the folder cannot be written.
    """
    path = Path(folder) / _name(url)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            verify(path, sha256=sha256, md5=md5)
            return path
        _fill(part, url, on_progress)
        _verify_or_drop(part, sha256=sha256, md5=md5)
        part.rename(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def verify(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Compare a file's checksums with those that it should have.

    Raises:
        SourceError: one differs.
    """
    if sha256 and (digest := checksum(path, "sha256")) != sha256.lower():
        raise SourceError(f"{path}: its sha256 is {digest}, not {sha256}", hint="delete it and fetch it again")
    if md5 and (digest := checksum(path, "md5")) != md5.lower():
        raise SourceError(f"{path}: its md5 is {digest}, not {md5}", hint="delete it and fetch it again")


def checksum(path: Path, kind: Literal["sha256", "md5"]) -> str:
    """A file's checksum in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, compressed or not, into a folder.

    What was unpacked before an error stays: give a folder that goes when this fails.

    Raises:
        SourceError: it is no archive, is damaged or encrypted, or has a member that would land elsewhere.
        OSError: the folder cannot be written.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _untar(archive, folder)
        else:
            raise SourceError(f"{archive}: neither a zip nor a tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the folder; those of gzip and bz2 carry no number
        raise SourceError(f"{archive}: cannot be unpacked: {error}", hint="fetch it again") from error


# --- one download --------------------------------------------------------------------------------------------


def _name(url: str) -> str:
    parts = urlsplit(url)
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https", "file"):
        raise ConfigError(f"'{url}' cannot be downloaded", hint="give an http, https or file address")
    if not name:
        raise ConfigError(f"'{url}' names no file")
    return name


def _fill(part: Path, url: str, on_progress: Progress | None) -> None:
    """Fetch until the file is complete, as long as every attempt gets further than those before."""
    reached = 0
    while True:
        try:
            return _fetch(part, url, on_progress)
        except _BrokeOff as error:
            size = _size(part)
            if size <= reached:
                raise SourceError(
                    f"{url}: broke off after {size:,} bytes: {error}", hint="run it again, it goes on from there"
                ) from error
            reached = size


def _fetch(part: Path, url: str, on_progress: Progress | None) -> None:
    """One request for what is missing; a server that knows no ranges sends, and gets written, everything."""
    offset = _size(part)
    response = _open(url, offset)
    if response is None:
        return
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = offset if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done, total)
    if total is not None and done < total:
        raise _BrokeOff(f"{total:,} were announced")


def _open(url: str, offset: int) -> Any:
    """The response from ``offset`` on, or ``None`` if the server says that nothing is missing there."""
    headers = {"User-Agent": "acclimate"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not offset:
                raise SourceError(f"{url}: the server answers {error.code} {error.reason}") from error
            is_complete = error.headers.get("Content-Range") == f"bytes */{offset}"
        return None if is_complete else _open(url, 0)
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(
            f"{url}: no answer: {getattr(error, 'reason', error)}", hint="check the address and the network"
        ) from error


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _BrokeOff(str(error) or type(error).__name__) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verify_or_drop(part: Path, *, sha256: str | None, md5: str | None) -> None:
    try:
        verify(part, sha256=sha256, md5=md5)
    except SourceError:
        part.unlink()
        raise


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"'{member.filename}' lies outside the archive")
            if member.flag_bits & 1:
                raise zipfile.BadZipFile(f"'{member.filename}' is encrypted")
        zipped.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        # The checksum of a compressed file comes after its last member, and is compared when read.
        while tar.fileobj and tar.fileobj.read(_CHUNK):
            pass
