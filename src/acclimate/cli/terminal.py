"""What a person sees: progress on standard error, tables on standard output."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from acclimate.artifacts import Learner, Report, Summary
from acclimate.evaluate import Progress as Step
from acclimate.evaluate.summary import summary_table
from acclimate.events.datasets import Dataset
from acclimate.project import Project

_ERR = Console(stderr=True)
_OUT = Console(markup=False, emoji=False)  # paths may hold what looks like markup


@contextmanager
def working(what: str) -> Generator[None]:
    """A spinner while something of unknown length is done."""
    with _ERR.status(what):
        yield


@contextmanager
def replay_progress() -> Generator[Callable[[Step], None]]:
    """A bar over the windows of a replay, with what is being done; the function takes each step as it begins."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_ERR, transient=True, disable=not _ERR.is_terminal) as bars:
        task = bars.add_task("reading", total=None)

        def show(step: Step) -> None:
            verb = {"fit": "fitting", "predict": "predicting", "learn": "learning", "compare": "comparing"}[
                step.phase
            ]
            bars.update(
                task,
                description=f"{verb} {step.arm}".strip(),
                completed=max(step.window - 1, 0),
                total=step.windows,
            )

        yield show


@contextmanager
def download_progress() -> Generator[Callable[[int, int | None], None]]:
    """A bar of bytes, for as long as something is fetched; none where nothing is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_ERR, transient=True, disable=not _ERR.is_terminal) as bars:
        task = bars.add_task("downloading", visible=False)

        def show(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        yield show


def show_dataset(made: Dataset) -> None:
    """Where the project is, and what to do with it."""
    _OUT.print(f"project: {made.project}", soft_wrap=True)
    if made.sha256:
        _OUT.print(f"sha256 of its archive: {made.sha256}", soft_wrap=True)
    _OUT.print(f"next: acclimate replay {made.project} --out report", soft_wrap=True)


def show_report(report: Report, out: Path) -> None:
    """The table that a replay ends with, and where the rest is."""
    _OUT.print(summary_table(report))
    _OUT.print(f"report: {out / 'report.html'}   figures: {out / 'metrics.json'}", soft_wrap=True)


def show_learner(learner: Learner, path: Path) -> None:
    """How a fit or an update went, and where the learner is."""
    for line in learner.summary():
        _OUT.print(line, soft_wrap=True)
    _OUT.print(f"model: {path} ({learner.nbytes / 1e6:.1f} MB of state)", soft_wrap=True)


def show_check(project: Project, summary: Summary, sizes: dict[str, int]) -> None:
    """What a check found: the events, and how many coefficients each effect has."""
    _OUT.print(f"{project.name}: {summary.rows:,} events from {summary.first:%Y-%m-%d} to {summary.last:%Y-%m-%d}")
    for column, count in summary.entities.items():
        _OUT.print(f"  {column}: {count:,} distinct")
    for label, rate in summary.rates.items():
        _OUT.print(f"  {label}: " + ("never known" if rate is None else f"{rate:.4f}"))
    for effect, size in sizes.items():
        _OUT.print(f"  {effect}: {size:,} coefficients")
