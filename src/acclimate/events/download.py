"""Files from the network: resumed where they broke off, bounded by what was announced, and checked."""

import base64
import hashlib
import http.client
import re
import shutil
import string
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import (
    FileHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    url2pathname,
)

from acclimate.errors import ConfigError, OutputError, SourceError, one_line

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, where the server tells them."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds of silence
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_DIGITS = {"sha256": 64, "md5": 32}


class _BrokeOff(Exception):  # noqa: N818 - an event to react to, that never leaves this module
    """The server stopped before the end."""


@dataclass(frozen=True)
class _Address:
    """What an address says: ``url`` is what a server is asked for, ``shown`` has nothing that may be secret."""

    url: str
    shown: str
    scheme: str
    path: str
    login: str | None


def is_url(source: str | Path) -> bool:
    """Whether this is an address rather than a path."""
    return "://" in str(source)


def shown(url: str) -> str:
    """An address as it may be shown and kept: without user, password, query and fragment.

    Raises:
        ConfigError: it is of another kind than http, https and file, or malformed.
    """
    return _address(url).shown


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
    such a file is not fetched again. Redirects are followed from http to http and https, and from https to https.

    Args:
        url: ``http``, ``https`` or ``file``; a user and password in it are sent to its server alone.
        folder: made if need be.
        sha256: what the file's checksum must be, in hexadecimal.
        md5: the same by MD5.
        on_progress: see :data:`Progress`.

    Raises:
        ConfigError: the address is of another kind, malformed, or names no file; or a checksum is none.
        SourceError: the server refuses, breaks off or contradicts itself, or a checksum differs.
        OutputError: the folder cannot be written, or has no room for the file.
    """
    check_digests(sha256=sha256, md5=md5)
    address = _address(url)
    path = Path(folder) / _name(address)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            verify(path, sha256=sha256, md5=md5)
            return path
        _fill(part, address, on_progress)
        _verify_or_drop(part, sha256=sha256, md5=md5)
        part.rename(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def check_digests(*, sha256: str | None, md5: str | None) -> None:
    """Raises ConfigError if what is given as a checksum cannot be one."""
    for kind, value in (("sha256", sha256), ("md5", md5)):
        digits = _DIGITS[kind]
        if value is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value):
            raise ConfigError(f"{value[:80]!r} is no {kind}", hint=f"it has {digits} hexadecimal digits")


def verify(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Compare a file's checksums with those that it should have.

    Raises:
        ConfigError: what is given is no checksum.
        SourceError: one differs.
    """
    check_digests(sha256=sha256, md5=md5)
    if sha256 and (digest := checksum(path, "sha256")) != sha256.lower():
        raise SourceError(f"{path}: its sha256 is {digest}, not {sha256}", hint="delete it and fetch it again")
    if md5 and (digest := checksum(path, "md5")) != md5.lower():
        raise SourceError(f"{path}: its md5 is {digest}, not {md5}", hint="delete it and fetch it again")


def checksum(path: Path, kind: Literal["sha256", "md5"]) -> str:
    """A file's checksum in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


# --- addresses -----------------------------------------------------------------------------------------------


def _address(url: str) -> _Address:
    """Take an address to pieces; messages quote no part of one that cannot be, since a password may be in it."""
    if not url.isprintable() or " " in url:
        raise ConfigError(
            "the address has a blank or a character that cannot be seen", hint="write a blank as %20"
        )
    if (split := _split(url)) is None:  # and not in an exception's context, whose text quotes the address
        raise ConfigError("the address is malformed", hint="it looks like https://host/folder/file.zip")
    parts, host, port = split
    scheme, path = parts.scheme, quote(parts.path, safe=string.punctuation)
    if scheme not in ("http", "https", "file"):
        raise ConfigError(
            f"an address that begins with '{scheme}:' is not fetched", hint="give http, https or file"
        )
    if not host and scheme != "file":
        raise ConfigError("the address names no host", hint="it looks like https://host/folder/file.zip")
    base = f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"
    query = f"?{quote(parts.query, safe=string.punctuation)}" if parts.query else ""
    login = unquote(parts.netloc.rpartition("@")[0]) if "@" in parts.netloc else None
    return _Address(base + query, base, scheme, path, login)


def _split(url: str) -> tuple[SplitResult, str, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts, _host(parts), parts.port
    except ValueError:
        return None


def _host(parts: SplitResult) -> str:
    """The host in ASCII; raises ValueError if it cannot be one."""
    host = parts.hostname or ""
    if ":" in host:
        return f"[{host}]"
    name = host.encode("idna").decode("ascii") if host else ""
    if not re.fullmatch(r"[\w.-]*", name):
        raise ValueError
    return name


def _name(address: _Address) -> str:
    """The file that the last part of an address names."""
    name = unquote(address.path.rpartition("/")[2])
    if name in ("", ".", "..") or re.search(r"[/\\:]", name) or not name.isprintable():
        raise ConfigError(f"{address.shown} names no file", hint="its last part would be the file's name")
    return name


def _redirected(address: _Address, location: str | None) -> _Address:
    """Where a server sends us.

    Raises:
        SourceError: nowhere, or from the network to a file, or from https to http.
    """
    if not location:
        raise SourceError(f"{address.shown}: the server redirects to nowhere")
    try:
        # A server's header comes as Latin-1, and with blanks in it.
        target = _address(urljoin(address.url, quote(location, safe=string.punctuation, encoding="latin-1")))
    except (ConfigError, ValueError):
        raise SourceError(f"{address.shown}: the server redirects to what is no http address") from None
    if target.scheme == "file":
        raise SourceError(f"{address.shown}: the server redirects to a file of this machine")
    if (address.scheme, target.scheme) == ("https", "http"):
        raise SourceError(f"{address.shown}: the server redirects from https to http", hint="give another address")
    same_origin = urlsplit(address.url)[:2] == urlsplit(target.url)[:2]
    return replace(target, login=address.login) if same_origin else target


# --- one download --------------------------------------------------------------------------------------------


def _fill(part: Path, address: _Address, on_progress: Progress | None) -> None:
    """Fetch until the file is complete, as long as every attempt gets further than those before."""
    reached = 0
    while True:
        try:
            return _fetch(part, address, on_progress)
        except _BrokeOff as error:
            size = _size(part)
            if size <= reached:
                raise SourceError(
                    f"{address.shown}: broke off after {size:,} bytes: {error}",
                    hint="run it again, it goes on from there",
                ) from error
            reached = size


def _fetch(part: Path, address: _Address, on_progress: Progress | None) -> None:
    """One request for what is missing; a server that knows no ranges sends, and gets written, everything."""
    offset = _size(part)
    response = _open(address, offset)
    if response is None:
        return
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = offset if resumed else 0
        total = _total(response, done, address)
        _check_room(part, 0 if total is None else total - done)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(response):
                done += len(chunk)
                if total is not None and done > total:
                    raise SourceError(f"{address.shown}: more comes than the {total:,} bytes that were announced")
                file.write(chunk)
                if on_progress:
                    on_progress(done, total)
    if total is not None and done < total:
        raise _BrokeOff(f"{total:,} were announced")


def _total(response: Any, done: int, address: _Address) -> int | None:
    """The bytes of the whole file as the server announces them, ``done`` of which it does not send."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(rf"bytes {done}-\d{{1,18}}/(\d{{1,18}}|\*)", content_range, re.ASCII)
        if not match:
            raise SourceError(f"{address.shown}: the server sends another part than was asked for")
        if match[1] != "*":
            return int(match[1])
    lengths: list[str] = response.headers.get_all("Content-Length", [])
    if not lengths or response.headers.get("Transfer-Encoding"):
        return None
    if len(set(lengths)) > 1 or not re.fullmatch(r"\d{1,18}", lengths[0], re.ASCII):
        raise SourceError(f"{address.shown}: the server announces a length that is none")
    return done + int(lengths[0])


def _check_room(part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise OutputError(
            f"{part} cannot be written: {missing:,} bytes are to come, and {free:,} are free on the disk",
            hint="free some space or write elsewhere",
        )


def _open(address: _Address, offset: int) -> Any:
    """The response from ``offset`` on, or ``None`` if the server says that nothing is missing there."""
    place = address
    for _ in range(1 + _MOST_REDIRECTS):
        try:
            return _ask(place, offset)
        except urllib.error.HTTPError as error:
            with error:
                code, headers = error.code, error.headers
        if code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return None if headers.get("Content-Range") == f"bytes */{offset}" else _open(address, 0)
        if code not in _REDIRECTS:
            raise SourceError(f"{place.shown}: the server answers {code} {http.client.responses.get(code, '')}")
        place = _redirected(place, headers.get("Location"))
    raise SourceError(f"{address.shown}: the server redirects more than {_MOST_REDIRECTS} times")


def _ask(address: _Address, offset: int) -> Any:
    """One request. Raises HTTPError for all but 200, 206 and a file of this machine."""
    if address.scheme == "file" and not Path(url2pathname(address.path)).is_file():
        raise SourceError(f"{address.shown}: no answer: no such file, or none that ends", hint="check the address")
    request = Request(address.url, headers={"User-Agent": "acclimate"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    if address.login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(address.login.encode()).decode('ascii')}")
    try:
        response = _opener().open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise SourceError(
            f"{address.shown}: no answer: {_text(getattr(error, 'reason', error))}",
            hint="check the address and the network",
        ) from error
    if response.status not in (None, http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
        response.close()
        raise SourceError(f"{address.shown}: the server answers {response.status}, without a file")
    return response


def _opener() -> OpenerDirector:
    """What opens http, https and file addresses, and follows no redirect by itself."""
    opener = OpenerDirector()
    handlers = (ProxyHandler, HTTPHandler, HTTPSHandler, FileHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor)
    for handler in handlers:
        opener.add_handler(handler())
    return opener


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _BrokeOff(_text(error) or type(error).__name__) from error


def _text(reason: object) -> str:
    """What an error says, some of it in the words of a server, in one line."""
    return one_line(str(reason)[:200])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verify_or_drop(part: Path, *, sha256: str | None, md5: str | None) -> None:
    try:
        verify(part, sha256=sha256, md5=md5)
    except SourceError:
        part.unlink()
        raise
