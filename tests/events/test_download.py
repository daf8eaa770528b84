"""Downloads from a real server on this machine, which breaks off, ignores ranges or refuses as told."""

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from acclimate.errors import ConfigError, OutputError, SourceError
from acclimate.events.download import download, unpack

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


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            served.requests.append(asked)
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
        download(site.url, tmp_path, **{kind: "00"})
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


@pytest.mark.parametrize("url", ["ftp://host/file", "http://host", "http://host/", "file.zip"])
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        download(url, tmp_path)


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        download(site.url, tmp_path / "taken")


def test_a_file_address(tmp_path: Path) -> None:
    (tmp_path / "here.bin").write_bytes(CONTENT)
    path = download((tmp_path / "here.bin").as_uri(), tmp_path / "there", sha256=SHA256)
    assert path.read_bytes() == CONTENT


# --- archives ------------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes], *, mode: str = "w:gz", link: str = "") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            file.addfile(info)
    return path


MEMBERS = {"set/README": b"hello", "set/data/log.csv": CONTENT[:100_000]}


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_archives_are_known_by_their_content(form: str, tmp_path: Path) -> None:
    path = tmp_path / "content"
    archive = zipped(path, MEMBERS) if form == "zip" else tarred(path, MEMBERS, mode=f"w:{form[4:]}")
    folder = tmp_path / "out"
    unpack(archive, folder)
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == MEMBERS


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/evil", "..\\evil"])
def test_no_member_of_a_zip_lands_elsewhere(name: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(SourceError, match="outside"):
        unpack(archive, tmp_path / "out" / "deep")
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


@pytest.mark.parametrize(("name", "link"), [("../evil", ""), ("fine", "../../evil"), ("fine", "/etc/passwd")])
def test_no_member_of_a_tar_lands_or_points_elsewhere(name: str, link: str, tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", {name: b"x"}, link=link)
    with pytest.raises(SourceError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("evil"))
    assert not list(tmp_path.rglob("link"))


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
@pytest.mark.parametrize("harm", ["cut", "bent"])
def test_damaged_archives(form: str, harm: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    members = {"log.csv": CONTENT[: 2_000_000 if form == "tar.bz2" else 100_000]}  # a block of bzip2 is 900 kB
    archive = zipped(path, members) if form == "zip" else tarred(path, members, mode=f"w:{form[4:]}")
    whole = archive.read_bytes()
    half = len(whole) // 2
    archive.write_bytes(whole[:half] if harm == "cut" else whole[:half] + b"\0" * 64 + whole[half + 64 :])
    with pytest.raises(SourceError):
        unpack(archive, tmp_path / "out")


def test_encrypted_and_other_files(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"secret": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag of encryption, APPNOTE.TXT 4.4.4
    archive.write_bytes(content)
    with pytest.raises(SourceError, match="'secret' is encrypted"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "text").write_text("neither")
    with pytest.raises(SourceError, match="neither a zip nor a tar"):
        unpack(tmp_path / "text", tmp_path / "out")
