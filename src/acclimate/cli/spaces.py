"""The commands of spaces: what there is, what happened, and what changes it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.cli.arguments import DEFAULT_PROJECT, ProjectFile, Set, given
from acclimate.cli.edge import Listing

if TYPE_CHECKING:
    from acclimate.project import Project
    from acclimate.publish import Spaces

spaces = typer.Typer(cls=Listing, help="Which spaces there are, which is live, and who reads them.")

SpaceName = Annotated[str, typer.Argument(parser=given, metavar="SPACE", help="Its name and number: ranker/3.")]
Name = Annotated[str, typer.Argument(parser=given, metavar="NAME", help="Of the spaces, as in ranker.")]
Owner = Annotated[str, typer.Option(parser=given, metavar="NAME", help="Who reads the space.")]
Reason = Annotated[str, typer.Option(metavar="WHY", help="For the journal.")]
Who = Annotated[str | None, typer.Option(metavar="NAME", help="Who changes it; user and machine without.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]


@spaces.callback(invoke_without_command=True)
def common(context: typer.Context) -> None:
    """Which spaces there are, which is live, and who reads them."""
    if context.invoked_subcommand is None:
        list_()


@spaces.command("list")
def list_(project: ProjectFile = DEFAULT_PROJECT, as_json: AsJson = False, set_: Set = None) -> None:
    """All spaces, the newest first.

    A line each: name and number, life, what it was trained until, its weights, how long it is so, who has pinned
    it.
    """
    from acclimate.cli.shown import show_spaces

    show_spaces(_registry(project, set_, None).state(), as_json=as_json)


@spaces.command()
def log(project: ProjectFile = DEFAULT_PROJECT, as_json: AsJson = False, set_: Set = None) -> None:
    """All that happened, the newest first.

    The whole journal is read, and each entry proved to follow the one before.
    """
    from acclimate.cli.shown import show_log

    show_log(list(_registry(project, set_, None).entries()), as_json=as_json)


@spaces.command()
def show(
    space: SpaceName, project: ProjectFile = DEFAULT_PROJECT, as_json: AsJson = False, set_: Set = None
) -> None:
    """All that is known of one space."""
    from acclimate.cli.shown import show_space

    show_space(_registry(project, set_, None).state(), space, as_json=as_json)


@spaces.command()
def promote(
    space: SpaceName,
    project: ProjectFile = DEFAULT_PROJECT,
    force: Annotated[bool, typer.Option("--force", help="Even if it fails its gates; needs a --reason.")] = False,
    reason: Reason = "",
    who: Who = None,
    as_json: AsJson = False,
    set_: Set = None,
) -> None:
    """Make a space the live one, if it passes the gates.

    The live one before is ready again, and can come back by a rollback.
    """
    from acclimate import publishing
    from acclimate.cli.shown import show_promoted
    from acclimate.cli.terminal import working

    with working("asking the gates"):
        verdicts = publishing.promote(_project(project, set_), space, force=force, reason=reason, who=who)
    show_promoted(space, verdicts, as_json=as_json)


@spaces.command()
def rollback(
    name: Name, project: ProjectFile = DEFAULT_PROJECT, reason: Reason = "", who: Who = None, set_: Set = None
) -> None:
    """Make the space live again that was it before."""
    registry = _registry(project, set_, who)
    live = registry.live(name)
    back = registry.roll_back(name, instead_of=live, reason=reason)
    typer.echo(f"{back} is live, {live} is ready")


@spaces.command()
def retire(
    space: SpaceName,
    project: ProjectFile = DEFAULT_PROJECT,
    reason: Reason = "",
    who: Who = None,
    set_: Set = None,
) -> None:
    """Say that a space is used no more."""
    _registry(project, set_, who).retire(space, reason=reason)
    typer.echo(f"{space} is retired; its snapshot goes with the next prune")


@spaces.command()
def prune(
    project: ProjectFile = DEFAULT_PROJECT,
    abandoned_after: Annotated[
        str, typer.Option(metavar="TIME", help="Give up what has been built for longer than this.")
    ] = "1h",
    reason: Reason = "",
    who: Who = None,
    set_: Set = None,
) -> None:
    """Remove what is retired, what killed publishers left, and what the store holds of spaces that are gone."""
    from acclimate import publishing
    from acclimate.cli.shown import show_pruned
    from acclimate.times import duration_us

    after = duration_us(abandoned_after)
    show_pruned(publishing.prune(_project(project, set_), abandoned_after=after, reason=reason, who=who))


@spaces.command()
def pin(
    space: SpaceName,
    owner: Owner,
    project: ProjectFile = DEFAULT_PROJECT,
    reason: Reason = "",
    who: Who = None,
    set_: Set = None,
) -> None:
    """Say that someone reads a space: it is kept up to date."""
    _registry(project, set_, who).pin(owner, space, reason=reason)
    typer.echo(f"{owner} has pinned {space}")


@spaces.command()
def unpin(
    name: Name,
    owner: Owner,
    project: ProjectFile = DEFAULT_PROJECT,
    reason: Reason = "",
    who: Who = None,
    set_: Set = None,
) -> None:
    """Say that someone reads no space of a name any more."""
    _registry(project, set_, who).unpin(owner, name, reason=reason)
    typer.echo(f"{owner} has pinned no space of {name}")


@spaces.command()
def diff(
    space: SpaceName,
    other: Annotated[str, typer.Argument(parser=given, metavar="OTHER", help="The space to compare with.")],
    project: ProjectFile = DEFAULT_PROJECT,
    as_json: AsJson = False,
    set_: Set = None,
) -> None:
    """How two spaces differ: settings, schema, sizes, what is shared."""
    from acclimate import publishing
    from acclimate.cli.shown import show_difference
    from acclimate.cli.terminal import working

    with working("comparing"):
        difference = publishing.diff(_registry(project, set_, None), space, other)
    show_difference(difference, as_json=as_json)


@spaces.command()
def verify(
    space: SpaceName, project: ProjectFile = DEFAULT_PROJECT, as_json: AsJson = False, set_: Set = None
) -> None:
    """Compare every file of a snapshot with its SHA-256."""
    from acclimate.cli.shown import show_verified
    from acclimate.cli.terminal import working

    with working("reading"):
        manifest = _registry(project, set_, None).verify(space)
    show_verified(space, manifest, as_json=as_json)


def _project(path: Path, overrides: list[str] | None) -> "Project":
    from acclimate.project import load_project

    return load_project(path, overrides or ())


def _registry(path: Path, overrides: list[str] | None, who: str | None) -> "Spaces":
    from acclimate import publishing

    return publishing.spaces_of(_project(path, overrides), who=who)
