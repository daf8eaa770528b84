"""The command line: ``acclimate <verb>``. Results go to standard output, progress and errors to standard error."""

from acclimate.cli.commands import main

__all__ = ["main"]
