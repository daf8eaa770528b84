"""Snapshots: immutable folders of saved learners, each file known by its SHA-256, as local folders when opened."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from acclimate.errors import ConfigError, FormatError, MismatchError, SpaceError
from acclimate.publish.shelves import Shelf
from acclimate.storage.locks import locked
from acclimate.storage.manifest import MANIFEST, Differs, Manifest, check_artifact, check_parts, read_manifest
from acclimate.storage.places import workshop

_SHOWN = 5


class Snapshots:
    """Folders by name below a shelf; those that are not on this machine are downloaded to ``cache``.

    The cache holds each by the seal of its manifest, so that it is right whatever registry it is from.
    """

    def __init__(self, shelf: Shelf, cache: Path | None = None) -> None:
        self._shelf, self._cache = shelf, cache

    def write(self, name: str, save: Callable[[Path], None]) -> Manifest:
        """Keep what ``save`` writes to a folder that is not there yet; its manifest."""
        if self._shelf.folder is not None:
            save(self._shelf.folder / name)
            return read_manifest(self._shelf.folder / name)
        with tempfile.TemporaryDirectory(prefix="acclimate-") as room:
            save(Path(room) / "new")
            self._shelf.put(Path(room) / "new", name)
            return read_manifest(Path(room) / "new")

    def manifest(self, name: str, seal: str) -> Manifest:
        """What a snapshot says of itself.

        Raises:
            FormatError: it is absent, damaged, or another one than was published.
        """
        if self._shelf.folder is not None:
            return self._checked(name, self._shelf.folder / name, seal)
        with tempfile.TemporaryDirectory(prefix="acclimate-") as room:
            self._get(name, MANIFEST, Path(room))
            return self._checked(name, Path(room), seal)

    def open(self, name: str, seal: str) -> Path:
        """A local folder with a snapshot, every byte of it proved.

        Raises:
            FormatError: files are absent, or not what was published.
        """
        if self._shelf.folder is not None:
            self.verify(name, seal)
            return self._shelf.folder / name
        cache = self._cache or _usual_cache()
        kept = cache / seal
        if _is_whole(kept, seal):
            return kept
        with workshop(kept) as room:
            new = room / "new"
            new.mkdir()
            self._get(name, MANIFEST, new)
            manifest = self._checked(name, new, seal)
            for file in manifest.files:
                self._get(name, file, new)
            self._check_files(name, new, manifest)
            with locked(cache):
                if _is_whole(kept, seal):  # another was faster
                    return kept
                if kept.exists():
                    kept.rename(room / "damaged")
                new.rename(kept)
        return kept

    def verify(self, name: str, seal: str) -> Manifest:
        """Compare every file with what was published, one at a time.

        Raises:
            FormatError: files, which it names, are absent or not what was published.
        """
        manifest = self.manifest(name, seal)
        if self._shelf.folder is not None:
            self._check_files(name, self._shelf.folder / name, manifest)
            return manifest
        wrong = list[str]()
        for file, part in manifest.files.items():
            with tempfile.TemporaryDirectory(prefix="acclimate-") as room:
                try:
                    self._get(name, file, Path(room))
                    check_parts(Path(room), [(file, part)])
                except (Differs, FormatError):
                    wrong.append(file)
        self._tell(name, wrong, len(manifest.files))
        return manifest

    def remove(self, name: str) -> None:
        """Remove a snapshot, whole or half written."""
        self._shelf.remove(name)

    def _get(self, name: str, file: str, folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._shelf.get(f"{name}/{file}", folder / file)
        except FileNotFoundError as error:
            raise FormatError(
                f"{self._shelf.url}/{name} is incomplete: {file} is absent", hint="restore it, or publish anew"
            ) from error

    def _checked(self, name: str, folder: Path, seal: str) -> Manifest:
        try:
            manifest = read_manifest(folder)
            check_artifact(manifest, folder, "model")
        except (FormatError, MismatchError) as error:
            if self._shelf.folder is not None:
                raise
            place = f"{self._shelf.url}/{name}/{MANIFEST}"  # and not where it was copied to
            raise type(error)(error.message.replace(str(folder), place), hint=error.hint) from error
        if manifest.seal != seal:
            raise SpaceError(
                f"{self._shelf.url}/{name} is another snapshot than was published under this name",
                hint="restore it from a copy, or publish anew",
            )
        return manifest

    def _check_files(self, name: str, folder: Path, manifest: Manifest) -> None:
        self._tell(name, _wrong(folder, manifest), len(manifest.files))

    def _tell(self, name: str, wrong: list[str], count: int) -> None:
        if wrong:
            shown = ", ".join(wrong[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
            raise FormatError(
                f"{self._shelf.url}/{name} is damaged: {len(wrong)} of {count} files are not what was published: "
                f"{shown}",
                hint="restore them from a copy, or publish anew",
            )


def _is_whole(folder: Path, seal: str) -> bool:
    """Whether the snapshot with this seal is in a folder, every byte of it."""
    try:
        manifest = read_manifest(folder)
    except FormatError:
        return False
    return manifest.seal == seal and not _wrong(folder, manifest)


def _wrong(folder: Path, manifest: Manifest) -> list[str]:
    """The files that are not what the manifest says."""
    wrong = list[str]()
    for name, part in manifest.files.items():
        try:
            check_parts(folder, [(name, part)])
        except (Differs, FileNotFoundError):
            wrong.append(name)
    return wrong


def _usual_cache() -> Path:
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a container in which nobody has a home
        raise ConfigError(f"there is no place for snapshots: {error}", hint="set XDG_CACHE_HOME") from error
    return Path(home) / "acclimate" / "spaces"
