"""Arguments that many commands have, and how they are read."""

from pathlib import Path
from typing import Annotated

import typer


def given(text: str) -> str:
    """A text that says something."""
    if not text:
        raise typer.BadParameter("it is empty.")
    return text


def path_of(text: str | Path) -> Path:
    """A path; before it is one, for which nothing is the current folder."""
    return Path(given(str(text)))


ProjectFile = Annotated[Path, typer.Argument(parser=path_of, metavar="PROJECT", help="The project file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in replay.every=6h.")
]
DEFAULT_PROJECT = Path("acclimate.yaml")
