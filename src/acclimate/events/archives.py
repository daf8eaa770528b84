"""Archives from anywhere, unpacked without surprises: none lands elsewhere, and none fills the disk."""

import bz2
import errno
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from acclimate.errors import SourceError

_MOST_MEMBERS = 10_000
_MOST_BYTES = 1 << 40
_RATIO = 250  # of unpacked to packed bytes; logs as text are at 3 to 20
_LONGEST_NAME = 1_024
_DEEPEST = 32  # folders within folders
_ANY_RATIO = 64 << 20  # bytes that may come out of any archive, however small
_LONGEST_HEADER = 4 << 20  # bytes that a tar may have read at once; those of its files are read in small pieces
_EMPTY_READS = 8  # after the end of a tar, before its reader is taken to be going in circles
_CHUNK = 1 << 20

_DECOMPRESSORS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00": lzma.open,
}
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, ValueError, RuntimeError, OverflowError),  # of headers that make no sense
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, compressed or not, into a folder.

    What the archive says of itself is checked before anything is written, and what comes out while it is. What was
    unpacked before an error stays: give a folder that goes when this fails.

    Raises:
        SourceError: it is no archive, is damaged or encrypted, unpacks to more than is allowed or than there is
            room for, or has a member that would land elsewhere or is neither a file nor a folder.
        OSError: the folder cannot be written.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    try:
        if start.startswith(b"PK"):
            _unzip(archive, folder)
        else:
            _untar(archive, folder, start)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the folder; those of gzip and bz2 carry no number, and EINVAL is of a seek before the start
        raise SourceError(f"{archive}: cannot be unpacked: {error}", hint="fetch it again") from error


class _Account:
    """What was taken out of an archive so far, against what may be."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive = archive
        place = next(place for place in (folder, *folder.resolve().parents) if place.exists())
        self._most, self._why = min(
            (_MOST_BYTES, "which no data set needs"),
            (max(_ANY_RATIO, _RATIO * archive.stat().st_size), "for an archive of its size"),
            (shutil.disk_usage(place).free, "which are free on the disk"),
        )
        self._bytes = self._members = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, size: int, *, is_folder: bool) -> None:
        """Raises SourceError if this member is one too many, or too large, or may not have this name."""
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise self._refused(f"it has more than {_MOST_MEMBERS:,} members")
        self._bytes += max(size, 0)
        self.check_bytes(self._bytes)
        self._check_name(name, is_folder=is_folder)

    def check_bytes(self, count: int) -> None:
        """Raises SourceError if so many are too many."""
        if count > self._most:
            raise self._refused(f"it unpacks to {count:,} bytes or more; the most is {self._most:,}, {self._why}")

    def _check_name(self, name: str, *, is_folder: bool) -> None:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
            raise self._refused(f"{name!r} lies outside the archive")
        if len(name) > _LONGEST_NAME or len(path.parts) > _DEEPEST:
            raise self._refused(f"{name[:40]!r}... is too long a name, or lies too deep")
        if not path.parts and not is_folder:
            raise self._refused("a file in it has no name")
        key = str(path).casefold()  # some disks take README and readme for one
        parents = {str(parent).casefold() for parent in path.parents}
        if key in self._files or parents & self._files or (not is_folder and key in self._folders):
            raise self._refused(f"{name!r} is in it twice")
        self._folders |= parents | ({key} if is_folder else set())
        if not is_folder:
            self._files.add(key)

    def _refused(self, what: str) -> SourceError:
        return SourceError(
            f"{self._archive}: cannot be unpacked: {what}", hint="unpack it yourself if you trust it"
        )


def _unzip(archive: Path, folder: Path) -> None:
    account = _Account(archive, folder)
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            account.add(member.filename, member.file_size, is_folder=member.is_dir())
            if member.flag_bits & 1:
                raise zipfile.BadZipFile(f"{member.filename!r} is encrypted")
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise zipfile.BadZipFile(f"{member.filename!r} is neither a file nor a folder")
        zipped.extractall(folder)  # reads of each member what it declares, and no more


def _untar(archive: Path, folder: Path, start: bytes) -> None:
    """A tar says what is in it piece by piece: each member is checked before it is written."""
    account = _Account(archive, folder)
    decompress = (opener for magic, opener in _DECOMPRESSORS.items() if start.startswith(magic))
    with next(decompress, _plain)(archive) as file:
        stream: Any = _Bounded(file, account)
        try:
            tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - it holds nothing that is to be closed
        except tarfile.ReadError as error:
            raise tarfile.ReadError(f"neither a zip nor a tar archive, or damaged: {error}") from error
        for member in tar:
            account.add(member.name, member.size, is_folder=member.isdir())
            if not (member.isreg() or member.isdir()):
                raise tarfile.ReadError(f"{member.name!r} is neither a file nor a folder")
            tar.extract(member, folder, filter="data")
        if not stream.latest or stream.latest.strip(b"\0"):  # the reader takes a damaged header for the end
            raise tarfile.ReadError("it is cut off, or a header in it is damaged")
        # The checksum of a compressed file comes after its last member, and is compared when read.
        while stream.read(_CHUNK):
            pass


def _plain(archive: Path) -> IO[bytes]:
    return archive.open("rb")


class _Bounded:
    """The bytes of a tar, which end in an error where they are more than is allowed."""

    def __init__(self, file: IO[bytes], account: _Account) -> None:
        self._file, self._account, self._empty_reads = file, account, 0
        self.latest = b""
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.latest = content = self._file.read(size)
        self._empty_reads += not content
        if self._empty_reads > _EMPTY_READS:
            raise tarfile.ReadError("it ends within a header")
        self._account.check_bytes(self._file.tell())
        return content

    def seek(self, position: int) -> int:
        self._account.check_bytes(position)
        return self._file.seek(position)
