"""Archives that are whole, damaged, or made to do harm."""

import contextlib
import gzip
import io
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from acclimate.errors import SourceError
from acclimate.events.archives import unpack

CONTENT = np.random.default_rng(0).bytes(3_000_000)


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


# --- archives that would do harm -----------------------------------------------------------------------------

ZEROS = 1 << 20


def refused(archive: Path, message: str) -> None:
    """Nothing lands anywhere but in the folder, where it is little."""
    with pytest.raises(SourceError, match=message) as caught:
        unpack(archive, archive.parent / "out")
    assert str(caught.value).isprintable()
    left = [path for path in archive.parent.rglob("*") if path.is_file() and path != archive]
    assert all(path.is_relative_to(archive.parent / "out") for path in left)
    assert sum(path.stat().st_size for path in left) <= 64 << 20


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **more: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.pax_headers = size, kind, more
    return info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "'a' is in it twice"),
        (["README", "readme"], "'readme' is in it twice"),
        (["d/a", "./d//a"], "is in it twice"),
        (["a", "a/b"], "'a/b' is in it twice"),
        (["a/b", "a"], "'a' is in it twice"),
        (["C:evil"], "outside"),
        (["c:\\evil"], "outside"),
        (["\\\\server\\evil"], "outside"),
        (["d\\..\\..\\evil"], "outside"),
        (["/evil"], "outside"),
        (["a/" * 40 + "b"], "too deep"),
        (["a/" * 20_000], "too long"),
        (["a" * 2_000], "too long"),
        (["new\nline/../../evil"], "outside"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_refused(form: str, names: list[str], message: str, tmp_path: Path) -> None:
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "a", "w") as file:
            for name in names:
                file.writestr(name, name)
    else:
        (tmp_path / "a").write_bytes(b"".join(header(name) for name in names) + bytes(1024))
    refused(tmp_path / "a", message)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_a_tar_has_files_and_folders_alone(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "a"
    (tmp_path / "a").write_bytes(header("a") + info.tobuf() + bytes(1024))
    refused(tmp_path / "a", "'odd' is neither a file nor a folder")


def test_a_zip_has_files_and_folders_alone(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr(link, "/etc/passwd")
    refused(tmp_path / "a", "'link' is neither a file nor a folder")


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_members_are_counted(form: str, tmp_path: Path) -> None:
    count = 10_001
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "a", "w") as file:
            for i in range(count):
                file.writestr(f"{i}/", b"")
    else:
        (tmp_path / "a").write_bytes(header("d/", kind=tarfile.DIRTYPE) * count + bytes(1024))
        if form == "tar.gz":
            tar_gz(tmp_path / "a")
    refused(tmp_path / "a", "more than 10,000 members")


def tar_gz(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_what_swells_is_stopped(mode: str, tmp_path: Path) -> None:
    zeros = bytes(8 * ZEROS)
    if mode == "zip":
        zipped(tmp_path / "a", {str(i): zeros for i in range(9)})
    else:
        tarred(tmp_path / "a", {str(i): zeros for i in range(9)}, mode=mode)
    refused(tmp_path / "a", r"unpacks to [\d,]+ bytes or more; the most is 67,108,864, for an archive of its size")


@pytest.mark.parametrize("before", [b"", header("a")], ids=["at once", "later"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE])
def test_terabytes_that_are_declared(kind: bytes, before: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(before + header("huge", 1 << 42, kind) + bytes(1024))
    refused(tmp_path / "a", "unpacks to 4,398,0")


def test_a_sparse_file_counts_with_its_holes(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "holes"}
    sparse |= {"GNU.sparse.size": str(1 << 42), "GNU.sparse.map": "0,0"}
    (tmp_path / "a").write_bytes(header("x", 0, **sparse) + bytes(1024))
    refused(tmp_path / "a", "unpacks to 4,398,0")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(header("x", 1 << 32, kind) + bytes(4096))
    refused(tmp_path / "a", "a header of 4,294,967,296 bytes")


def test_what_follows_the_last_member_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(header("a") + bytes(70 * ZEROS))
    tar_gz(tmp_path / "a")
    refused(tmp_path / "a", "unpacks to")


@pytest.mark.parametrize("harm", ["header", "cut", "no end"])
def test_no_member_of_a_plain_tar_is_lost(harm: str, tmp_path: Path) -> None:
    first, second = header("a", 512) + bytes(512), header("b", 512) + bytes(512)
    bent = b"x" + second[1:]
    content = {"header": first + bent + bytes(1024), "cut": first, "no end": first + second}[harm]
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", "cut off, or a header in it is damaged")


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_random_damage_is_one_line_or_harmless(form: str, tmp_path: Path) -> None:
    members = {"set/README": b"hello" * 50, f"set/{'n' * 120}.csv": b"a,b\n" * 500, "sét": b"x"}
    archive = tmp_path / "a"
    zipped(archive, members) if form == "zip" else tarred(archive, members, mode=f"w:{form[4:]}")
    whole, rng = archive.read_bytes(), random.Random(0)
    for _ in range(150):
        bent = bytearray(whole)
        bent[rng.randrange(len(bent))] = rng.randrange(256)
        archive.write_bytes(bent)
        with contextlib.suppress(SourceError):
            unpack(archive, tmp_path / "out")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_an_honest_log_is_far_from_the_limits(tmp_path: Path) -> None:
    rows = b"".join(b"%d,%d,%d\n" % (i % 997, i % 1009, i) for i in range(400_000))
    unpack(zipped(tmp_path / "a.zip", {"log.csv": rows}), tmp_path / "out")
    assert (tmp_path / "out" / "log.csv").read_bytes() == rows
