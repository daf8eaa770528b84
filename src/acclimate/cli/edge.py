"""The outermost edge of the command: every way out is at most two lines on standard error, and an exit code."""

import io
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from acclimate.errors import AcclimateError, OutputError, one_line, shortened

# Typer has it from click or, in newer versions, from a copy of its own.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_BUG = 1
_INTERRUPTED = 128 + signal.SIGINT


class Listing(TyperGroup):
    """Commands whose list is never cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list, in full at any width."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1_000)) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Edge(Listing):
    """Commands whose failures are one line with a hint, and their exit code that of the error tree.

    ``--debug`` may stand anywhere: it is what one appends to the line that failed.
    """

    debug = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` from wherever it is."""
        self.debug = "--debug" in args
        return super().parse_args(ctx, ["--debug"] * self.debug + [arg for arg in args if arg != "--debug"])

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line, and exit."""
        self.debug = False
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except Exception as error:  # the one place where a bug, whatever it is, becomes a line and a code
            if _signals.received is None:
                if self.debug and not isinstance(error, _UsageError):
                    raise
                sys.exit(_told(error))
            code = _INTERRUPTED  # what a signal makes of a query depends on who runs it
        if code == _INTERRUPTED:
            code = _signals.told()
        sys.exit(code)


def _told(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(error, AcclimateError):
        say(f"error: {error.message}", error.hint)
        return error.exit_code
    if isinstance(error, _UsageError):
        return _told_usage(error)
    what = ": ".join(part for part in (type(error).__name__, shortened(str(error), 500)) if part)
    say(f"error: {what}; this is a bug", "run it again with --debug, and report what it shows")
    return _BUG


def _told_usage(error: Any) -> int:
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = context.command_path if context else "acclimate"
        say(f"error: {shortened(error.format_message(), 500)}", f"see '{command} --help'")
    return error.exit_code


def say(line: str, hint: str = "") -> None:
    """A line on standard error, in red on a terminal unless ``NO_COLOR`` is set, and a hint below."""
    color = False if os.environ.get("NO_COLOR") else None
    typer.secho(one_line(line), fg="red", err=True, color=color)
    if hint:
        typer.echo(f"hint:  {one_line(hint)}", err=True)


class _Signals:
    """Signals that end the command as Ctrl-C does, so that what it has made aside is cleared."""

    received: int | None = None

    @contextmanager
    def heard(self) -> Generator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as nohup has it
        try:
            for number in heard:
                signal.signal(number, self._stop)
            yield
        finally:
            self.received = None
            for number in heard:
                signal.signal(number, before[number])

    def _stop(self, number: int, _: Any) -> None:
        self.received = number
        raise KeyboardInterrupt

    def told(self) -> int:
        number = self.received or signal.SIGINT
        say("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
        return 128 + number


_signals = _Signals()


class _Stream(io.TextIOWrapper):
    """A standard stream; that its reader has gone is no failure."""

    is_result = True
    """Whether any other failure is an error: what is told beside the results may be lost."""

    def write(self, s: str, /) -> int:
        """Write.

        Raises:
            OutputError: the device is full.
        """
        with self._failing():
            return super().write(s)
        return len(s)

    def flush(self) -> None:
        """Flush.

        Raises:
            OutputError: the device is full.
        """
        with self._failing():
            super().flush()

    @contextmanager
    def _failing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # what is left goes nowhere, in silence
            if self.is_result and not isinstance(error, BrokenPipeError):
                raise OutputError(
                    f"standard output cannot be written: {error.strerror}",
                    hint="free some space or write elsewhere; what was to be saved is saved",
                ) from error


@contextmanager
def process() -> Generator[None]:
    """What a process of the command has: its signals, and standard streams that fail in words or not at all."""
    with _signals.heard(), _replaced("stdout"), _replaced("stderr"):
        yield


@contextmanager
def _replaced(name: str) -> Generator[None]:
    before: Any = getattr(sys, name)
    if before is None:  # the shell has closed it
        yield
        return
    stream = _Stream(before.buffer, before.encoding, "backslashreplace", line_buffering=before.line_buffering)
    stream.is_result = name == "stdout"
    setattr(sys, name, stream)
    try:
        yield
    finally:
        stream.detach()  # or it would close what it shares
        setattr(sys, name, before)
