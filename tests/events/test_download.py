"""Downloads from a real server on this machine, which breaks off, ignores ranges or refuses as told."""

import hashlib
import os
import re
import shutil
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.errors import ConfigError, OutputError, SourceError
from acclimate.events import download as module
from acclimate.events.download import download, verify

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
HALF = 1_500_000


@dataclass
class Site:
    """What the server serves and how: ``breaks`` are the bytes after which it closes, request by request."""

    url: str = ""
    content: bytes = CONTENT
    knows_ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    announces_length: bool = True
    requests: list[str | None] = field(default_factory=list)  # their Range headers
    logins: list[str | None] = field(default_factory=list)  # their Authorization headers
    odd: bytes | None = None  # a whole answer, sent as it is
    redirects: dict[str, str] = field(default_factory=dict)

    def at(self, path: str, login: str = "") -> str:
        """An address of this server."""
        return re.sub(r"//(.*?)/.*", rf"//{login}\1/", self.url) + path


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> Any:
            asked = self.headers["Range"]
            served.requests.append(asked)
            served.logins.append(self.headers["Authorization"])
            if served.odd is not None:
                self.close_connection = True
                return self.wfile.write(served.odd)
            if target := served.redirects.get(self.path.partition("?")[0]):
                self.send_response(302)
                self.send_header("Location", target)
                return self.end_headers()
            if "absent" in self.path:
                return self.send_error(404)
            body, size = served.content, len(served.content)
            if asked and served.knows_ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                body = body[start:]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            else:
                self.send_response(200)
            if served.announces_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)
            return None

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/sets/data%20set.bin?download=1"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_has_its_final_name_and_tells_its_progress(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = download(site.url, tmp_path / "new" / "place", sha256=SHA256, on_progress=lambda *now: told.append(now))
    assert path == tmp_path / "new" / "place" / "data set.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["data set.bin"]
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert site.requests == [None]


def test_a_file_that_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    first = download(site.url, tmp_path)
    assert download(site.url, tmp_path, sha256=SHA256, md5=MD5) == first
    assert len(site.requests) == 1


def test_what_broke_off_goes_on_from_there(site: Site, tmp_path: Path) -> None:
    site.breaks = [HALF, 1]
    told: list[int] = []
    path = download(site.url, tmp_path, md5=MD5.upper(), on_progress=lambda done, _: told.append(done))
    assert path.read_bytes() == CONTENT
    assert site.requests == [None, f"bytes={HALF}-", f"bytes={HALF + 1}-"]
    assert told == sorted(told)


def test_a_second_call_goes_on_where_the_first_was_left(site: Site, tmp_path: Path) -> None:
    site.breaks = [HALF, 0]
    with pytest.raises(SourceError, match=r"broke off after 1,500,000 bytes.*run it again"):
        download(site.url, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["data set.bin.part"]
    assert download(site.url, tmp_path).read_bytes() == CONTENT
    assert site.requests == [None, *[f"bytes={HALF}-"] * 2]


def test_what_was_interrupted_leaves_its_part_alone_and_goes_on(site: Site, tmp_path: Path) -> None:
    def interrupted(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.url, tmp_path, on_progress=interrupted)
    (part,) = tmp_path.iterdir()
    assert part.name == "data set.bin.part"
    assert CONTENT.startswith(part.read_bytes())
    assert download(site.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert site.requests == [None, f"bytes={1 << 20}-"]


def test_a_server_that_knows_no_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.knows_ranges = False
    site.breaks = [HALF]
    assert download(site.url, tmp_path).read_bytes() == CONTENT
    assert site.requests == [None, f"bytes={HALF}-"]


def test_a_server_that_always_breaks_off_is_given_up(site: Site, tmp_path: Path) -> None:
    site.knows_ranges = False
    site.breaks = [HALF] * 9
    with pytest.raises(SourceError, match="broke off"):
        download(site.url, tmp_path)
    assert len(site.requests) == 2


def test_a_part_that_is_complete_is_only_renamed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data set.bin.part").write_bytes(CONTENT)
    assert download(site.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert site.requests == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_something_longer_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data set.bin.part").write_bytes(CONTENT + b"more")
    assert download(site.url, tmp_path).read_bytes() == CONTENT


def test_a_length_that_is_not_announced_and_an_empty_file(site: Site, tmp_path: Path) -> None:
    site.announces_length = False
    assert download(site.url, tmp_path / "a").read_bytes() == CONTENT
    site.content = b""
    assert download(site.url, tmp_path / "b").read_bytes() == b""


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing_behind(site: Site, tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceError, match=rf"its {kind} is {SHA256 if kind == 'sha256' else MD5}, not 00"):
        download(site.url, tmp_path, **{kind: "0" * (64 if kind == "sha256" else 32)})
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_that_was_there_before_is_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data set.bin").write_bytes(b"mine")
    with pytest.raises(SourceError, match="delete it"):
        download(site.url, tmp_path, sha256=SHA256)
    assert (tmp_path / "data set.bin").read_bytes() == b"mine"
    assert site.requests == []


def test_refusals(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="404 Not Found"):
        download(site.url.replace("sets", "absent"), tmp_path)
    with pytest.raises(SourceError, match="no answer"):
        download("http://127.0.0.1:1/file", tmp_path)
    with pytest.raises(SourceError, match="no answer"):
        download((tmp_path / "nothing").as_uri(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


HOST = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/file", "http://host", "http://host/", "file.zip", "", "http:file", "data:text/plain,x"),
        *(
            "http://",
            "http:///file",
            "http://[",
            "http://[::1/file",
            "http://host:99999/file",
            "http://host:-1/file",
        ),
        *(
            "http://host:port/file",
            "http://ho st/file",
            "http://host\n/file",
            "http://host/a file",
            "http://host/\0",
        ),
        *(f"http://{'h' * 70}.example/file", "http://a..b/file", "http://ho\u2100st/file", "http://h<o>st/file"),
        *("http://host/\udcff", "http://host/\x1b[2Jfile"),
        *(f"{HOST}/..", f"{HOST}/sets/..", f"{HOST}/.", f"{HOST}/%2e%2e", f"{HOST}/%2E.", f"{HOST}/a/../"),
        *(
            f"{HOST}/..%2Ffile",
            f"{HOST}/%2Fetc%2Fpasswd",
            f"{HOST}/..%5Cfile",
            f"{HOST}/..\\file",
            f"{HOST}/a%00b",
        ),
        *(
            f"{HOST}?name=file.zip",
            f"{HOST}/?file",
            f"{HOST}/#file",
            f"{HOST}/C%3Afile",
            f"{HOST}/a%0Ab",
            "file:///",
        ),
    ],
)
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        download(url, tmp_path / "deep" / "place")
    one_line(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "name"), [("s%C3%A9t.zip", "sét.zip"), ("sét.zip", "sét.zip"), ("...", "...")])
def test_names_beyond_ascii(path: str, name: str, site: Site, tmp_path: Path) -> None:
    assert download(site.at(path), tmp_path).name == name


@pytest.mark.parametrize("kind", ["sha256", "md5"])
@pytest.mark.parametrize(
    "value", ["", " ", "0", "0" * 63, "0" * 31, "0" * 65, "g" * 64, "g" * 32, "0" * 63 + "\n", "٣" * 64]
)
def test_a_checksum_that_is_none(kind: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    for refused in (
        lambda: download(f"{HOST}/file", tmp_path, **{kind: value}),
        lambda: verify(tmp_path / "file", **{kind: value}),
    ):
        with pytest.raises(ConfigError, match=f"is no {kind}"):
            refused()


# --- redirects -----------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_the_first_name_kept(site: Site, tmp_path: Path) -> None:
    site.redirects = {"/first.zip": "/a%20b?x=1", "/a%20b": site.at("third place")}
    path = download(site.at("first.zip"), tmp_path, sha256=SHA256)
    assert path.name == "first.zip"
    assert len(site.requests) == 3


@pytest.mark.parametrize(
    "target",
    [
        *(
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "data:text/plain,x",
            "http://[",
            "//h:99999/x",
            "",
            "gopher:x",
        ),
        *("http://ho\tst/x", "FILE:///etc/passwd", "file:/etc/passwd"),
    ],
)
def test_a_redirect_elsewhere_is_refused(target: str, site: Site, tmp_path: Path) -> None:
    site.odd = f"HTTP/1.0 302 Found\r\nLocation: {target}\r\n\r\n".encode()
    with pytest.raises(SourceError, match="redirects to"):
        download(site.at("x"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_redirects_end(site: Site, tmp_path: Path) -> None:
    site.redirects = {f"/{i}": f"/{i + 1}" for i in range(11)}
    with pytest.raises(SourceError, match="redirects more than 10 times") as caught:
        download(site.at("0"), tmp_path)
    one_line(caught.value)
    assert download(site.at("1"), tmp_path).read_bytes() == CONTENT
    site.redirects = {"/loop": "/loop"}
    with pytest.raises(SourceError, match="redirects more than 10 times") as caught:
        download(site.at("loop"), tmp_path)
    one_line(caught.value)


def test_no_redirect_leaves_what_is_encrypted() -> None:
    safe = module._address("https://host/file")
    assert module._redirected(safe, "https://other/file").url == "https://other/file"
    with pytest.raises(SourceError, match="from https to http"):
        module._redirected(safe, "http://host/file")


# --- passwords -----------------------------------------------------------------------------------------------


def chain(error: BaseException | None) -> str:
    """All that a traceback of it says, and the chain behind."""
    parts = []
    while error:
        parts += [*traceback.format_exception(error), str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "".join(line for line in parts if "download(" not in line)


def test_a_login_goes_to_its_own_server_alone(site: Site, tmp_path: Path) -> None:
    site.redirects = {"/a": "/b", "/b": site.at("c").replace("127.0.0.1", "localhost")}
    download(site.at("a", "ann:s%20ecret@"), tmp_path)
    assert site.logins == ["Basic YW5uOnMgZWNyZXQ=", "Basic YW5uOnMgZWNyZXQ=", None]


ANSWERS = {
    "404": b"HTTP/1.0 404 no pa55 here\r\n\r\n",
    "416": b"HTTP/1.0 416 x\r\n\r\n",
    "nowhere": b"HTTP/1.0 302 x\r\n\r\n",
    "file": b"HTTP/1.0 302 x\r\nLocation: file:///x\r\n\r\n",
    "silence": b"",
    "noise": b"pa55\r\npa55\r\n",
    "length": b"HTTP/1.0 200 OK\r\nContent-Length: x\r\n\r\n",
    "cut": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
    "large": b"HTTP/1.0 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n",
    "none": b"HTTP/1.0 204 OK\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nothing_secret_is_told_when_a_download_fails(answer: bytes, site: Site, tmp_path: Path) -> None:
    site.odd = answer.replace(b"pa55", b"")
    with pytest.raises((SourceError, OutputError)) as caught:
        download(site.at("x.zip?token=pa55#pa55", "ann:pa55@"), tmp_path)
    assert "pa55" not in chain(caught.value)
    assert site.at("x.zip") in str(caught.value) or "x.zip.part" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://ann:pa55@host:port/x",
            "http://ann:pa55@[/x",
            "http://ann:pa55@/x",
            "ftp://ann:pa55@host/x",
        ),
        *("http://ann:pa55@host/?pa55", "http://ann:pa55@ho st/x", "http://ann:pa55@127.0.0.1:1/x?pa55"),
        *(
            "http://ann:pa55@h\u2100st/x",
            "http://ann:pa/55@host/x",
            "http://ann:pa55@x\n/",
            "http://a:pa55@a..b/x",
        ),
    ],
)
def test_nothing_secret_is_told_of_an_address(url: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, SourceError)) as caught:
        download(url, tmp_path)
    assert not re.search("pa55|pa/55", chain(caught.value))


# --- what servers announce -----------------------------------------------------------------------------------


def answer(*headers: str, status: str = "200 OK", body: bytes = b"12345") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode() + body


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (answer("Content-Length: -1"), "a length that is none"),
        (answer("Content-Length: five"), "a length that is none"),
        (answer("Content-Length: 5, 5"), "a length that is none"),
        (answer("Content-Length:"), "a length that is none"),
        (answer("Content-Length: 1e3"), "a length that is none"),
        (answer(f"Content-Length: {'9' * 5000}"), "a length that is none"),
        (answer("Content-Length: 5", "Content-Length: 4"), "a length that is none"),
        (answer("Content-Length: 6"), "broke off after 5 bytes"),
        (answer("Transfer-Encoding: chunked", body=b"zz\r\n"), "broke off"),
        (answer("Transfer-Encoding: chunked", body=b"5\r\n123"), "broke off"),
        (answer("Content-Range: bytes 7-9/10", status="206 Partial"), "another part than was asked for"),
        (answer("Content-Range: none", status="206 Partial"), "another part than was asked for"),
        (answer(status="206 Partial"), "another part than was asked for"),
        (answer("Content-Range: bytes 0-4/3", status="206 Partial"), "more comes than the 3 bytes"),
        (answer(status="204 No Content", body=b""), "answers 204"),
        (answer(status="500 a\x1b[2Jb"), "answers 500 Internal Server Error"),
        (answer(status="799 what"), "answers 799"),
        (answer(*(f"X-{i}: x" for i in range(200))), "no answer"),
        (answer("X: " + "x" * 70_000), "no answer"),
        (b"\x1b[2J\r\n\r\n", "no answer"),
        (b"", "no answer"),
    ],
)
def test_odd_answers(odd: bytes, message: str, site: Site, tmp_path: Path) -> None:
    site.odd = odd
    with pytest.raises(SourceError, match=message) as caught:
        download(site.url, tmp_path)
    assert one_line(caught.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {"data set.bin.part"}


def test_nothing_is_read_beyond_what_was_announced(site: Site, tmp_path: Path) -> None:
    site.odd = answer("Content-Length: 5", "Content-Length: 5", body=b"12345678")
    assert download(site.url, tmp_path).read_bytes() == b"12345"


def test_a_part_is_not_continued_with_another_part(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data set.bin.part").write_bytes(b"123")
    site.odd = answer("Content-Range: bytes 2-6/7", status="206 Partial")
    with pytest.raises(SourceError, match="another part"):
        download(site.url, tmp_path)
    assert (tmp_path / "data set.bin.part").read_bytes() == b"123"
    site.odd = answer("Content-Range: bytes 3-7/*", "Content-Length: 5", status="206 Partial")
    assert download(site.url, tmp_path).read_bytes() == b"12312345"


def test_room_is_looked_for_before_anything_is_written(site: Site, tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).total + 1
    site.odd = answer(f"Content-Length: {size}")
    with pytest.raises(OutputError, match=rf"{size:,} bytes are to come, and [\d,]+ are free"):
        download(site.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_files_of_this_machine_that_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(SourceError, match="no answer"):
            download(path.as_uri(), tmp_path / "there")


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        download(site.url, tmp_path / "taken")


def test_a_file_address(tmp_path: Path) -> None:
    (tmp_path / "here.bin").write_bytes(CONTENT)
    path = download((tmp_path / "here.bin").as_uri(), tmp_path / "there", sha256=SHA256)
    assert path.read_bytes() == CONTENT
