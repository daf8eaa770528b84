"""The registry of spaces: which there are, which one is live, who has pinned what, and how that came about."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from acclimate.artifacts import Space
from acclimate.errors import ConfigError, SpaceError, nearest
from acclimate.publish.journal import FOLDER, Entry, Journal
from acclimate.publish.shelves import shelf_at
from acclimate.publish.snapshots import Snapshots
from acclimate.storage.manifest import Manifest

Life: TypeAlias = Literal["building", "ready", "live", "retired"]
_NAME = re.compile(r"\w[\w .-]*")


@dataclass(frozen=True)
class Known:
    """A space that the registry knows: where it is in its life, since when (microseconds UTC), and its snapshot.

    ``seal`` is that of the snapshot's manifest, ``nbytes`` its size; both are empty until it is ready.
    """

    space: Space
    life: Life
    since: int
    seal: str = ""
    nbytes: int = 0


@dataclass(frozen=True)
class Pin:
    """That ``owner`` reads the space ``number`` of a name, and since when (microseconds UTC)."""

    owner: str
    name: str
    number: int
    since: int


@dataclass(frozen=True)
class State:
    """All spaces at one moment.

    ``last`` has by name the number of the newest space that there ever was, ``lived`` the spaces that were live
    before the present one, the newest last.
    """

    known: Sequence[Known] = ()
    pins: Sequence[Pin] = ()
    last: Mapping[str, int] = field(default_factory=dict[str, int])
    lived: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])

    def at(self, space: str) -> Known:
        """The space of such a text, as ``ranker/3``.

        Raises:
            SpaceError: there is none.
        """
        named = {str(one.space): one for one in self.known}
        if space not in named:
            name, _, number = space.rpartition("/")
            gone = number.isdecimal() and 1 <= int(number) <= self.last.get(name, 0)
            what = "was removed" if gone else "is not known"
            raise SpaceError(f"the space {space} {what}", hint=nearest(space, named) or "publish one first")
        return named[space]

    def live(self, name: str) -> Known | None:
        """The live space of a name, if there is one."""
        return next((one for one in self.known if one.space.name == name and one.life == "live"), None)

    def pinned(self, owner: str, name: str) -> Known | None:
        """The space of a name that someone has pinned, if he has."""
        pin = next((pin for pin in self.pins if (pin.owner, pin.name) == (owner, name)), None)
        return None if pin is None else self.at(f"{pin.name}/{pin.number}")

    def pins_of(self, space: Space) -> list[Pin]:
        """Who has pinned a space."""
        return [pin for pin in self.pins if (pin.name, pin.number) == (space.name, space.number)]

    def refreshed(self, name: str) -> list[Known]:
        """The spaces of a name that someone reads: the live one, those that are pinned, and parents of such."""
        return [one for one in self._read() if one.space.name == name]

    def children(self, space: Space) -> list[Known]:
        """The spaces that someone reads, and that are given vectors of this one."""
        return [one for one in self._read() if str(space) in one.space.parents]

    def _read(self) -> list[Known]:
        """What is live or pinned, and the spaces of all vectors that these are given."""
        read = {str(one.space) for one in self.known if one.life == "live" or self.pins_of(one.space)}
        for one in reversed(self.known):  # parents come before
            if str(one.space) in read:
                read.update(one.space.parents)
        return [one for one in self.known if str(one.space) in read]


class Spaces:
    """A registry in a folder, or at a URL of any file system that can tell who was first.

    ::

        spaces/
            journal/00000001.json   what happened, entry by entry; the newest one says what is
            ranker/1/               a snapshot: a saved learner, never changed

    Args:
        url: a folder, or such as ``s3://bucket/spaces``.
        who: changes it, for the journal; user and machine without.
        cache: where snapshots that are not on this machine are kept.
    """

    def __init__(self, url: str | Path, *, who: str | None = None, cache: Path | None = None) -> None:
        self._shelf = shelf_at(str(url))
        self.url = self._shelf.url
        self._journal, self._snapshots = Journal(self._shelf, who), Snapshots(self._shelf, cache)

    # --- what is there ------------------------------------------------------------------------------------------

    def state(self) -> State:
        """All spaces as of now.

        Raises:
            FormatError: the journal is damaged.
            SourceError: the place cannot be reached.
        """
        head = self._journal.head()
        return _state(head.state) if head else State()

    def entries(self) -> Iterator[Entry]:
        """All that happened, from the first entry on.

        Raises:
            FormatError: an entry is absent, or not what was written.
        """
        return self._journal.entries()

    def gone(self) -> list[Space]:
        """The spaces that are retired or were removed, as all of the journal tells.

        Raises:
            FormatError: an entry is absent, or not what was written.
        """
        ever = dict.fromkeys(one.space for entry in self.entries() for one in _state(entry.state).known)
        kept = {one.space for one in self.state().known if one.life != "retired"}
        return [space for space in ever if space not in kept]

    def live(self, name: str) -> Space:
        """The live space of a name.

        Raises:
            SpaceError: there is none.
        """
        found = self.state().live(name)
        if found is None:
            raise SpaceError(f"no space of '{name}' is live", hint="publish one and promote it")
        return found.space

    def pinned(self, owner: str, name: str) -> Space:
        """The space of a name that someone has pinned.

        Raises:
            SpaceError: he has pinned none.
        """
        found = self.state().pinned(owner, name)
        if found is None:
            raise SpaceError(f"'{owner}' has pinned no space of '{name}'", hint="pin one first")
        return found.space

    def refreshed(self, name: str) -> list[Space]:
        """The spaces of a name that are kept up to date, since someone reads them: live or pinned."""
        return [one.space for one in self.state().refreshed(name)]

    def open(self, space: Space | str) -> Path:
        """A local folder with the snapshot of a space, to be loaded; every byte of it is proved.

        Raises:
            SpaceError: there is no such space, it is not ready, or another snapshot lies in its place.
            FormatError: files, which it names, are not what was published.
        """
        known = self._with_snapshot(space)
        return self._snapshots.open(str(known.space), known.seal)

    def verify(self, space: Space | str) -> Manifest:
        """Compare every file of a snapshot with its SHA-256; raises as :meth:`open`."""
        known = self._with_snapshot(space)
        return self._snapshots.verify(str(known.space), known.seal)

    def manifest(self, space: Space | str) -> Manifest:
        """What a snapshot says of itself: settings, schema, and each file; raises as :meth:`open`."""
        known = self._with_snapshot(space)
        return self._snapshots.manifest(str(known.space), known.seal)

    # --- what changes -------------------------------------------------------------------------------------------

    def publish(self, begin: Callable[[int], Space], save: Callable[[Path], None], *, reason: str = "") -> Space:
        """Make the next space of a name: note that it is being built, keep its snapshot, note that it is ready.

        A publisher that is killed leaves a space that is ``building``; the next one takes the number after it.

        Args:
            begin: the space with this number.
            save: writes the learner to a folder that is not there.
            reason: why, for the journal.

        Raises:
            ConfigError: the name is none for a folder, or the place cannot tell who was first.
            SpaceError: a parent of it is neither ready nor live, or it took so long that others gave it up.
            OutputError: it cannot be written.
        """
        space = self.begin(begin, reason=reason)
        self.ready(space, self._snapshots.write(str(space), save), reason=reason)
        return space

    def begin(self, made: Callable[[int], Space], *, reason: str = "") -> Space:
        """Note that the next space of a name is being built; see :meth:`publish`."""
        name = made(1).name
        if not _NAME.fullmatch(name) or name == FOLDER:
            raise ConfigError(
                f"'{name}' cannot name a space, which is a folder too",
                hint=f"use letters, digits, _, - and ., and not '{FOLDER}'",
            )
        space = made(1)

        def begun(state: State, now: int) -> tuple[str, State]:
            nonlocal space
            space = made(state.last.get(name, 0) + 1)
            _check_parents(state, space)
            known = [*state.known, Known(space, "building", now)]
            return str(space), replace(state, known=known, last={**state.last, name: space.number})

        self._change("begin", reason, begun)
        return space

    def ready(self, space: Space, manifest: Manifest, *, reason: str = "") -> None:
        """Note that the snapshot of a space that was being built is whole.

        Raises:
            SpaceError: others gave it up meanwhile.
        """
        nbytes = sum(part.size for part in manifest.files.values())

        def is_ready(state: State, now: int) -> tuple[str, State]:
            check_life(state, space, ["building"], "made ready")
            new = Known(space, "ready", now, manifest.seal, nbytes)
            return str(space), _with(state, new)

        self._change("ready", reason, is_ready)

    def promote(self, space: Space | str, *, instead_of: Space | None, reason: str = "") -> None:
        """Make a space that is ready the live one; the one before is ready again.

        Args:
            space: which.
            instead_of: the live space that the decision was based on, if there was one.
            reason: why, for the journal.

        Raises:
            SpaceError: it is not ready, a parent of it is retired, or another one has become live meanwhile.
        """

        def promoted(state: State, now: int) -> tuple[str, State]:
            new = check_life(state, space, ["ready"], "promoted")
            _check_parents(state, new.space)
            before = _check_live(state, new.space.name, instead_of)
            if before is None:
                return str(space), _with(state, replace(new, life="live", since=now))
            lived = [*state.lived.get(new.space.name, ()), before.space.number]
            state = replace(state, lived={**state.lived, new.space.name: lived})
            state = _with(state, replace(before, life="ready", since=now))
            return str(space), _with(state, replace(new, life="live", since=now))

        self._change("promote", reason, promoted)

    def roll_back(self, name: str, *, instead_of: Space, reason: str = "") -> Space:
        """Make the space live again that was it before; the one that is live is ready then.

        Args:
            name: of the spaces.
            instead_of: the live space that is to go.
            reason: why, for the journal.

        Raises:
            SpaceError: none was live before, a parent of it is retired, or another one has become live meanwhile.
        """
        back = instead_of

        def rolled(state: State, now: int) -> tuple[str, State]:
            nonlocal back
            now_live = _check_live(state, name, instead_of)
            ready = {
                one.space.number: one for one in state.known if one.space.name == name and one.life == "ready"
            }
            lived = state.lived.get(name, ())
            places = [place for place, number in enumerate(lived) if number in ready]
            if now_live is None or not places:
                raise SpaceError(
                    f"no space of '{name}' was live before {instead_of}, or none that is kept",
                    hint="promote another one",
                )
            before = ready[lived[places[-1]]]
            back = before.space
            _check_parents(state, back)
            state = replace(state, lived={**state.lived, name: lived[: places[-1]]})
            state = _with(state, replace(now_live, life="ready", since=now))
            return str(back), _with(state, replace(before, life="live", since=now))

        self._change("rollback", reason, rolled)
        return back

    def retire(self, space: Space | str, *, reason: str = "") -> None:
        """Note that a space is used no more; its snapshot goes with the next :meth:`prune`.

        Raises:
            SpaceError: it is live, pinned, or not ready, or one that is live or pinned is given its vectors.
        """

        def retired(state: State, now: int) -> tuple[str, State]:
            known = check_life(state, space, ["ready"], "retired")
            if pins := state.pins_of(known.space):
                owners = ", ".join(f"{pin.owner} ({_ago(now - pin.since)})" for pin in pins)
                raise SpaceError(
                    f"{space} is pinned by {owners} and cannot be retired",
                    hint="they unpin it, or pin another one",
                )
            if children := ", ".join(str(one.space) for one in state.children(known.space)):
                raise SpaceError(
                    f"{space} cannot be retired, since {children} read its vectors",
                    hint="make others live in their place, or unpin them",
                )
            return str(space), _with(state, replace(known, life="retired", since=now))

        self._change("retire", reason, retired)

    def pin(self, owner: str, space: Space | str, *, reason: str = "") -> None:
        """Note that someone reads a space, so that it is kept up to date; one of its name that he had he leaves.

        Raises:
            SpaceError: it is neither ready nor live, or a parent of it is retired.
        """
        if not owner.strip():
            raise ConfigError("the owner of a pin is empty", hint="name who reads the space")

        def pinned(state: State, now: int) -> tuple[str, State]:
            one = check_life(state, space, ["ready", "live"], "pinned").space
            _check_parents(state, one)
            others = [pin for pin in state.pins if (pin.owner, pin.name) != (owner, one.name)]
            return str(space), replace(state, pins=[*others, Pin(owner, one.name, one.number, now)])

        self._change("pin", f"{owner}: {reason}".removesuffix(": "), pinned)

    def unpin(self, owner: str, name: str, *, reason: str = "") -> None:
        """Note that someone reads no space of this name any more.

        Raises:
            SpaceError: he has pinned none.
        """

        def unpinned(state: State, _: int) -> tuple[str, State]:
            known = state.pinned(owner, name)
            if known is None:
                hint = nearest(owner, {pin.owner for pin in state.pins if pin.name == name})
                raise SpaceError(f"'{owner}' has pinned no space of '{name}'", hint=hint)
            others = [pin for pin in state.pins if (pin.owner, pin.name) != (owner, name)]
            return str(known.space), replace(state, pins=others)

        self._change("unpin", f"{owner}: {reason}".removesuffix(": "), unpinned)

    def prune(self, *, abandoned_after: int = 3_600_000_000, reason: str = "") -> list[str]:
        """Remove the snapshots of retired spaces, and what publishers left that were killed; what was removed.

        Args:
            abandoned_after: microseconds after which a space that is being built is given up.
            reason: why, for the journal.
        """
        gone = list[str]()

        def pruned(state: State, now: int) -> tuple[str, State] | None:
            gone[:] = _outlived(state, now - abandoned_after)
            if not gone:
                return None
            return ", ".join(gone), replace(
                state, known=[one for one in state.known if str(one.space) not in gone]
            )

        self._change("prune", reason, pruned)
        state = self.state()
        kept = {str(one.space) for one in state.known}
        for name in state.last:
            folders = (f"{name}/{number}" for number in self._shelf.names(name) if number.isdecimal())
            for folder in folders:
                if folder not in kept and int(folder.rpartition("/")[2]) <= state.last[name]:
                    self._snapshots.remove(folder)
            self._shelf.tidy(name)
        self._journal.tidy()
        return gone

    # --- how it works -------------------------------------------------------------------------------------------

    def _with_snapshot(self, space: Space | str) -> Known:
        return check_life(self.state(), space, ["ready", "live", "retired"], "read")

    def _change(self, action: str, reason: str, decided: Callable[[State, int], tuple[str, State] | None]) -> None:
        def change(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
            new = decided(_state(content), _now())
            return None if new is None else (new[0], asdict(new[1]))

        self._journal.change(action, reason, change)


def _state(content: Mapping[str, Any]) -> State:
    """What an entry says that there is."""
    if not content:
        return State()

    def known(told: dict[str, Any]) -> Known:
        space: dict[str, Any] = {**told["space"], "parents": tuple(told["space"]["parents"])}
        rest: dict[str, Any] = {**told, "space": Space(**space)}
        return Known(**rest)

    pins = [Pin(**pin) for pin in content["pins"]]
    return State([known(told) for told in content["known"]], pins, content["last"], content["lived"])


def _with(state: State, new: Known) -> State:
    """The same with what is new of one space."""
    return replace(state, known=[new if one.space == new.space else one for one in state.known])


def check_life(state: State, space: Space | str, lives: Sequence[Life], asked: str) -> Known:
    """The space, which must be in one of these parts of its life, and not one of another registry.

    Raises:
        SpaceError: there is none, or it is not.
    """
    known = state.at(str(space))
    if isinstance(space, Space) and known.space != space:
        raise SpaceError(
            f"{space} is another space here: of weights {known.space.weights[:12]}, not {space.weights[:12]}",
            hint="is this the registry that it was published to?",
        )
    if known.life not in lives:
        raise SpaceError(
            f"{space} is {known.life} and cannot be {asked}", hint=f"only what is {' or '.join(lives)}"
        )
    return known


def _check_parents(state: State, space: Space) -> None:
    """Raises SpaceError where vectors that a space is given are of a space that is not kept."""
    for parent in space.parents:
        check_life(state, parent, ["ready", "live"], f"read by {space}")


def _check_live(state: State, name: str, expected: Space | None) -> Known | None:
    """The live space of a name, which must be the expected one."""
    live = state.live(name)
    if (live.space if live else None) != expected:
        raise SpaceError(
            f"{live.space if live else 'no space'} of '{name}' is live, and not {expected or 'none'}: it changed "
            "meanwhile",
            hint="look at what is live now, and decide again",
        )
    return live


def _outlived(state: State, began: int) -> list[str]:
    """What is retired, and what has been built since before this time."""
    return [
        str(one.space)
        for one in state.known
        if one.life == "retired" or (one.life == "building" and one.since <= began)
    ]


def _now() -> int:
    return time.time_ns() // 1_000


def _ago(span: int) -> str:
    """A span of time, microseconds, as people say it."""
    for size, unit in ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m")):
        if span >= size:
            return f"for {span // size}{unit}"
    return f"for {max(span, 0) // 1_000_000}s"
