"""What a person sees: progress on standard error, tables on standard output."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from rich.table import Table
from rich.text import Text

from acclimate import progress
from acclimate.artifacts import Learner, Report, Tuning
from acclimate.errors import one_line
from acclimate.evaluate import Progress as Step
from acclimate.evaluate.summary import summary_table
from acclimate.evaluate.tune_page import changes_text, short_names
from acclimate.events.datasets import Dataset
from acclimate.pipeline import Checked, Reconciled
from acclimate.project import Project
from acclimate.publish.stores.forgetting import Forgotten
from acclimate.together import processes

_ERR = Console(stderr=True)
_OUT = Console(markup=False, emoji=False)  # paths may hold what looks like markup


@contextmanager
def working(what: str) -> Generator[None]:
    """A spinner, and a bar once it is told how far the work is; none where nobody looks."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_ERR, transient=True, disable=not _ERR.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        with progress.watched(lambda done, total: bars.update(task, completed=done, total=total)):
            yield


def note(text: str) -> None:
    """Something a person should know of a command that goes on."""
    _ERR.print(f"note: {one_line(text)}", soft_wrap=True, markup=False, highlight=False)


def _bars() -> Progress:
    """A bar with what is being done, how much of it there is and how long it takes, while a terminal looks on."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=_ERR, transient=True, disable=not _ERR.is_terminal)


@contextmanager
def replay_progress() -> Generator[Callable[[Step], None]]:
    """A bar over the windows of a replay, with what is being done; the function takes each step as it begins."""
    with _bars() as bars:
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
def tune_progress() -> Generator[Callable[[int, int, Step], None]]:
    """A bar over the trials of a search, with the window that one is at."""
    with _bars() as bars:
        task = bars.add_task("reading", total=None)

        def show(trial: int, trials: int, step: Step) -> None:
            what = "declared settings" if trial == 0 else f"trial {trial}" if trial <= trials else "the best again"
            window = f", window {step.window} of {step.windows}" if step.window else ""
            bars.update(task, description=what + window, completed=max(trial - 1, 0), total=trials)

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
    say_line(f"project: {made.project}")
    if made.sha256:
        say_line(f"sha256 of its archive: {made.sha256}")
    say_line(f"next: acclimate replay {made.project} --out report")


def show_report(report: Report, out: Path) -> None:
    """The table that a replay ends with, or a list where the terminal is too narrow, and where the rest is."""
    table = summary_table(report)
    if _OUT.measure(table, options=_OUT.options.update(max_width=10_000)).minimum <= _OUT.width:
        _OUT.print(table)
    else:
        for line in _listed(table):
            say_line(line)
    say_line(f"report: {out / 'report.html'}   figures: {out / 'metrics.json'}")


def show_tuning(tuning: Tuning, project: Path, out: Path) -> None:
    """The best trials beside the declared settings, the verdict, and what to do with it."""
    names = short_names([candidates.name for candidates in tuning.candidates])
    states = [trial.state for trial in tuning.trials[1:]]
    counts = {state: states.count(state) for state in ("complete", "stopped", "failed")}
    say_line(f"{len(states)} trials: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    label = tuning.judge.label
    say_line(f"declared: {label} {tuning.declared_loss:.5f}")
    for finalist in tuning.finalists:
        say_line(f"{finalist.name}: {label} {finalist.loss:.5f}, {finalist.difference_text}")
        say_line(f"  {changes_text(finalist, names)}")
    say_line(tuning.verdict)
    if tuning.chosen is not None:
        say_line(f"try it: acclimate replay {project} --out report {tuning.chosen.options}")
        say_line(f"project: {out / 'result' / 'acclimate.yaml'}")
    say_line(f"page: {out / 'result' / 'tuning.html'}   report: {out / 'replay' / 'report.html'}")


def show_learner(learner: Learner, path: Path) -> None:
    """How a fit or an update went, and where the learner is; of several processes the first one says it."""
    if processes()[0] > 0:
        return
    for line in learner.summary():
        say_line(line)
    say_line(f"model: {path} ({learner.nbytes / 1e6:.1f} MB of state)")


def show_vectors(count: int, path: Path) -> None:
    """How many vectors were written, and where they are."""
    say_line(f"{count:,} vectors: {path / 'vectors.parquet'}")


def show_reconciled(reconciled: Reconciled) -> None:
    """What a reconciliation compared."""
    largest = f"the largest difference is {reconciled.largest:.2g}"
    say_line(f"{reconciled.entities:,} vectors equal those of the log; {largest}")


def show_check(project: Project, checked: Checked) -> None:
    """What a check found: the events, how many columns each part of a learner reads, and what looks wrong."""
    summary = checked.summary
    say_line(f"{project.name}: {summary.rows:,} events from {summary.first:%Y-%m-%d} to {summary.last:%Y-%m-%d}")
    for column, count in summary.entities.items():
        say_line(f"  {column}: {count:,} distinct")
    for label, rate in summary.rates.items():
        say_line(f"  {label}: " + ("never known" if rate is None else f"{rate:.4f}"))
    for part, size in checked.widths.items():
        say_line(f"  {part}: {size:,} columns")
    for leak in checked.leaks:
        note(f"{leak}")


def show_refused(counts: dict[str, int]) -> None:
    """How many records were refused, by reason."""
    for reason, count in counts.items():
        say_line(f"{count:>12,}  {reason}")
    if not counts:
        say_line("nothing was refused")


def show_replayed(count: int) -> None:
    """How many records were appended again."""
    say_line(f"{count:,} records were appended to the stream again")


def show_forgotten(forgotten: Forgotten) -> None:
    """How many values have gone, and where more may be known."""
    say_line(f"{forgotten.values:,} values have gone from {len(forgotten.units)} units")
    if forgotten.others:
        note(f"something may be left in {', '.join(forgotten.others)}: fit anew without these events")


def say_line(line: str) -> None:
    """One line on standard output, however long and whatever its paths and names hold."""
    _OUT.print(one_line(line), soft_wrap=True)


def _listed(table: Table) -> Iterator[str]:
    """A table as lines: each row by its first cell, and below it the others by their titles."""
    titles = [_plain(column.header).replace("\n", " ") for column in table.columns]
    for first, *cells in zip(*(column.cells for column in table.columns), strict=True):
        yield _plain(first)
        yield from (f"  {title}: {_plain(cell)}" for title, cell in zip(titles[1:], cells, strict=True))
    yield _plain(table.caption).removesuffix("; bold is best")


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
