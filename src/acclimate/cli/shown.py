"""What a person sees of spaces, a line each, and what a machine reads: JSON with the same words."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from acclimate.artifacts import Space
from acclimate.cli.terminal import say_line
from acclimate.publish import Entry, Known, State
from acclimate.publish.gates import Verdict
from acclimate.publishing import Difference, Pruned
from acclimate.storage.manifest import Manifest
from acclimate.times import utc

_PREFIX = 10


def show_published(space: Space, *, as_json: bool) -> None:
    """What was published, and what to do with it."""
    if as_json:
        _say_json({**asdict(space), "space": str(space)})
        return
    say_line(f"{space} is ready: weights {space.weights[:_PREFIX]}, trained until {space.trained_until}")
    say_line(f"next: acclimate spaces promote {space}")


def show_spaces(state: State, *, as_json: bool) -> None:
    """All spaces, those of one name together, the newest first."""
    known = sorted(state.known, key=lambda one: (one.space.name, -one.space.number))
    if as_json:
        _say_json([_told(one, state) for one in known])
        return
    rows = [
        (
            str(one.space),
            one.life,
            utc(one.space.cut).strftime("%Y-%m-%d %H:%M"),
            one.space.weights[:_PREFIX],
            _age(one.since),
            ", ".join(f"{pin.owner} ({_age(pin.since)})" for pin in state.pins_of(one.space)),
        )
        for one in known
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not rows:
        say_line("there are no spaces; acclimate publish makes one of a saved model")


def show_log(entries: Sequence[Entry], *, as_json: bool) -> None:
    """The journal, the newest entry first."""
    if as_json:
        names = ("number", "time", "who", "action", "space", "reason", "seal")
        _say_json([{name: getattr(entry, name) for name in names} for entry in entries])
        return
    for entry in reversed(entries):
        when, why = utc(entry.time).strftime("%Y-%m-%d %H:%M:%S"), f"  {entry.reason}" if entry.reason else ""
        say_line(f"{entry.seal[:_PREFIX]}  {when}  {entry.who}  {entry.action} {entry.space}{why}")


def show_space(state: State, name: str, *, as_json: bool) -> None:
    """One space in full."""
    one = state.at(name)
    told = _told(one, state)
    if as_json:
        _say_json(told)
        return
    pins = [f"{pin.owner} since {_iso(pin.since)}" for pin in state.pins_of(one.space)]
    said = {**told, "since": _iso(one.since), "cut": one.space.trained_until, "pins": ", ".join(pins) or "none"}
    said["parents"] = ", ".join(one.space.parents) or "none"
    for key, value in said.items():
        say_line(f"{key}: {value}")


def show_promoted(space: str, verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """What the gates said, and that the space is live."""
    if as_json:
        _say_json({"live": space, "gates": [asdict(verdict) for verdict in verdicts]})
        return
    for verdict in verdicts:
        say_line(f"{'passed' if verdict.passed else 'FAILED'}  {verdict}")
    say_line(f"{space} is live")


def show_pruned(pruned: Pruned) -> None:
    """What was removed."""
    units = f"{len(pruned.units):,} of the units in the store: {', '.join(pruned.units)}" if pruned.units else ""
    told = [part for part in (", ".join(pruned.spaces), units) if part]
    say_line(f"removed: {'; '.join(told)}" if told else "there was nothing to remove")


def show_difference(difference: Difference, *, as_json: bool) -> None:
    """How two spaces differ."""
    if as_json:
        _say_json(asdict(difference))
        return
    say_line(f"{difference.one} and {difference.other}")
    for part, same in difference.identity.items():
        say_line(f"  {part}: {'the same' if same else 'differ'}")
    for title, lines in (("settings", difference.settings), ("schema", difference.schema)):
        for line in lines:
            say_line(f"  {title}: {line}")
    say_line(f"  bytes: {difference.sizes[0]:,} and {difference.sizes[1]:,}")
    for name, apart in difference.shared.items():
        if apart != 0.0:
            say_line(f"  {name}: " + ("of another shape" if apart is None else f"{100 * apart:.3g} % apart"))


def show_verified(space: str, manifest: Manifest, *, as_json: bool) -> None:
    """That a snapshot is whole."""
    if as_json:
        _say_json({"space": space, "files": {name: part.sha256 for name, part in manifest.files.items()}})
        return
    say_line(f"{space}: {len(manifest.files)} files are what was published")


def _told(one: Known, state: State) -> dict[str, Any]:
    pins = [{"owner": pin.owner, "since": pin.since} for pin in state.pins_of(one.space)]
    rest = {"life": one.life, "since": one.since, "nbytes": one.nbytes, "seal": one.seal, "pins": pins}
    return {"space": str(one.space), **asdict(one.space), **rest}


def _age(since: int) -> str:
    """How long ago, as people say it."""
    seconds = max(time.time_ns() // 1_000 - since, 0) // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _iso(time_us: int) -> str:
    return utc(time_us).isoformat(timespec="seconds")


def _told_in_json(value: Any) -> Any:
    """The same with ``None`` for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _told_in_json(part) for key, part in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_told_in_json(part) for part in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say_json(value: Any) -> None:
    say_line(json.dumps(_told_in_json(value), default=str, allow_nan=False))
