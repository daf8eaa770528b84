"""One function per verb; each reads its arguments, calls the pipeline, and shows what came out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate import __version__
from acclimate.cli.arguments import DEFAULT_PROJECT, ProjectFile, Set, given, path_of
from acclimate.cli.edge import Edge, Listing, process
from acclimate.cli.spaces import AsJson, Reason, Who, spaces

if TYPE_CHECKING:
    from acclimate.events.datasets import Dataset
    from acclimate.project import Project


app = typer.Typer(
    cls=Edge,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Recommenders that stay personal and fresh.",
)
data = typer.Typer(cls=Listing, no_args_is_help=True, help="Make a project of a data set, ready to run.")
app.add_typer(data, name="data")
app.add_typer(spaces, name="spaces")

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
LearnerName = Annotated[
    str | None, typer.Option("--learner", metavar="NAME", help="Which learner, where there are several.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only events before this, as in 2022-04-25.")]
AllowUnconverged = Annotated[
    bool, typer.Option("--allow-unconverged", help="Save a model that has not reached its optimum, too.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option("--memory-limit", metavar="SIZE", help="Of sorting events and of the rows held, as in 4GB."),
]
DataPath = Annotated[
    str, typer.Argument(parser=given, metavar="PATH", help="The official folder, or a URL of its archive.")
]
ProjectFolder = Annotated[
    Path, typer.Option("--out", parser=path_of, metavar="DIR", help="Folder for the project.")
]
Sha256 = Annotated[str | None, typer.Option("--sha256", metavar="HEX", help="What the archive's SHA-256 must be.")]
Md5 = Annotated[str | None, typer.Option("--md5", metavar="HEX", help="What the archive's MD5 must be.")]
Users = Annotated[int, typer.Option(min=10, metavar="N", help="Users of the world, two events a day each.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Another seed is another world.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Recommenders that stay personal and fresh."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(parser=path_of, metavar="DIR", help="Folder for the report.")] = Path(
        "demo"
    ),
    users: Users = 2_000,
    days: Annotated[
        int, typer.Option(min=12, metavar="N", help="Days of the world; the first ten are the first fit.")
    ] = 40,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Replay a simulated world, day by day.

    The world drifts and its true probabilities are known: the whole system at once, with no data of yours.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import replay_progress, show_report

    with replay_progress() as on_progress:
        report = pipeline.demo(
            out, users=users, days=days, seed=seed, overwrite=overwrite, on_progress=on_progress
        )
    show_report(report, out)


@app.command()
def fit(
    out: Annotated[Path, typer.Option(parser=path_of, metavar="DIR", help="Where to save the model.")],
    project: ProjectFile = DEFAULT_PROJECT,
    learner: LearnerName = None,
    until: Until = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="FILE",
            help="Keep the training of a network here while it lasts: after a kill the same command goes on.",
        ),
    ] = None,
    allow_unconverged: AllowUnconverged = False,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Fit a learner from scratch and save it."""
    from acclimate import pipeline
    from acclimate.cli.terminal import show_learner, working

    with working("fitting"):
        described = _project(project, set_, memory_limit)
        model = pipeline.fit(
            described,
            out,
            learner=learner,
            until=until,
            checkpoint=checkpoint,
            allow_unconverged=allow_unconverged,
            overwrite=overwrite,
        )
    show_learner(model, out)


@app.command()
def update(
    model: Annotated[
        Path,
        typer.Option(parser=path_of, metavar="DIR", help="The saved model; it is brought up to date in place."),
    ],
    project: ProjectFile = DEFAULT_PROJECT,
    learner: LearnerName = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave out what is new but earlier than this.")
    ] = None,
    until: Until = None,
    late: Annotated[
        bool, typer.Option("--late", help="The log holds late rows alone, of times that were learned: learn them.")
    ] = False,
    allow_unconverged: AllowUnconverged = False,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
) -> None:
    """Bring a saved model up to date.

    It learns the events after the last one that it learned, and nothing twice. Rows that came after others of
    their time were learned are counted and left out: give them as a log of their own, with --late.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import note, show_learner, working

    with working("updating"):
        described = _project(project, set_, memory_limit)
        learned = pipeline.update(
            described,
            model,
            learner=learner,
            since=since,
            until=until,
            late=late,
            allow_unconverged=allow_unconverged,
            tell=note,
        )
    show_learner(learned, model)


@app.command()
def vectors(
    model: Annotated[Path, typer.Option(parser=path_of, metavar="DIR", help="The saved encoder.")],
    out: Annotated[Path, typer.Option(parser=path_of, metavar="DIR", help="Folder for vectors.parquet.")],
    overwrite: Overwrite = False,
) -> None:
    """Write the vector of everyone that a saved encoder knows."""
    from acclimate import pipeline
    from acclimate.cli.terminal import show_vectors, working

    with working("encoding"):
        count = pipeline.write_vectors(model, out, overwrite=overwrite)
    show_vectors(count, out)


@app.command()
def reconcile(
    model: Annotated[Path, typer.Option(parser=path_of, metavar="DIR", help="The saved encoder.")],
    project: ProjectFile = DEFAULT_PROJECT,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
) -> None:
    """Prove that a saved encoder knows what its log says.

    The vectors it has after however many updates are compared with those made anew of the whole log.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import show_reconciled, working

    with working("reconciling"):
        reconciled = pipeline.reconcile(_project(project, set_, memory_limit), model)
    show_reconciled(reconciled)


@app.command()
def replay(
    out: Annotated[
        Path, typer.Option(parser=path_of, metavar="DIR", help="Folder for metrics.json and report.html.")
    ],
    project: ProjectFile = DEFAULT_PROJECT,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Play the log back and compare the arms.

    Window by window, every arm predicts first and learns afterwards; the report says how well, and at what cost.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import replay_progress, show_report

    with replay_progress() as on_progress:
        report = pipeline.replay_project(
            _project(project, set_, memory_limit), out, overwrite=overwrite, on_progress=on_progress
        )
    show_report(report, out)


@app.command()
def tune(
    out: Annotated[
        Path,
        typer.Option(
            parser=path_of, metavar="DIR", help="Folder for the trials, which the same command goes on from."
        ),
    ],
    project: ProjectFile = DEFAULT_PROJECT,
    learner: LearnerName = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="End of the days; the start of the replay without.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, metavar="N", help="How many days before it are predicted.")] = 7,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Settings that are tried beside the declared ones.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the search.")] = 0,
    best: Annotated[int, typer.Option(min=1, max=7, metavar="N", help="How many of the best are compared.")] = 3,
    allow_test_days: Annotated[
        bool, typer.Option("--allow-test-days", help="Choose settings on days of the replay, too.")
    ] = False,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget the trials that are there.")] = False,
) -> None:
    """Choose settings of a learner on days before the replay.

    Each trial predicts, then learns, window by window; the best are compared with the declared settings.
    """
    from acclimate import tuning
    from acclimate.cli.terminal import show_tuning, tune_progress
    from acclimate.project import ProjectFile

    limit = _memory_override(memory_limit)
    with tune_progress() as on_progress:
        found = tuning.tune(
            ProjectFile.read(project, [*(set_ or ()), *limit]),
            out,
            learner=learner,
            until=until,
            days=days,
            trials=trials,
            seed=seed,
            best=best,
            allow_test_days=allow_test_days,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    show_tuning(found, project, out)


@app.command()
def publish(
    model: Annotated[Path, typer.Argument(parser=path_of, metavar="MODEL", help="The saved model.")],
    project: ProjectFile = DEFAULT_PROJECT,
    learner: LearnerName = None,
    reason: Reason = "",
    who: Who = None,
    as_json: AsJson = False,
    set_: Set = None,
) -> None:
    """Make a saved model the next space of its learner.

    It is kept as a snapshot that never changes, ready to be promoted: see acclimate spaces.
    """
    from acclimate import publishing
    from acclimate.cli.shown import show_published
    from acclimate.cli.terminal import working

    with working("publishing"):
        space = publishing.publish(_project(project, set_, None), model, learner=learner, reason=reason, who=who)
    show_published(space, as_json=as_json)


@app.command()
def stream(
    project: ProjectFile = DEFAULT_PROJECT,
    until_drained: Annotated[
        bool, typer.Option("--until-drained", help="End when nothing is left to read.")
    ] = False,
    worker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of this one among several; after a kill the same name goes on at once."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, metavar="PORT", help="Where Prometheus finds metrics.")
    ] = None,
    memory_limit: MemoryLimit = None,
    set_: Set = None,
) -> None:
    """Learn events as they come, each once.

    States and the position of the stream are written in one transaction; SIGTERM ends it after the present batch.
    """
    from acclimate.extras import import_module

    import_module("acclimate.streaming").stream(
        _project(project, set_, memory_limit),
        until_drained=until_drained,
        worker=worker,
        metrics_port=metrics_port,
    )


@app.command()
def refused(
    project: ProjectFile = DEFAULT_PROJECT,
    replay: Annotated[
        bool, typer.Option("--replay", help="Append them to the stream again, once the cause is mended.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="WHY", help="Of those that are replayed: only these.")
    ] = None,
    space: Annotated[
        str, typer.Option(metavar="SPACE", help="Replay what this one alone refused: ranker/3.")
    ] = "",
    set_: Set = None,
) -> None:
    """Count the records that a stream has refused.

    By reason, the most frequent first.
    """
    from acclimate.cli.terminal import show_refused, show_replayed
    from acclimate.extras import import_module

    streaming, described = import_module("acclimate.streaming"), _project(project, set_, None)
    if replay:
        show_replayed(streaming.send_again(described, reason=reason, space=space))
    else:
        show_refused(streaming.refused(described))


@app.command()
def forget(
    entity: Annotated[str, typer.Argument(parser=given, metavar="ENTITY", help="Its role or column, as in user.")],
    id: Annotated[str, typer.Argument(parser=given, metavar="ID", help="Whose data go.")],
    project: Annotated[Path, typer.Option(parser=path_of, metavar="PROJECT", help="The project file.")] = (
        DEFAULT_PROJECT
    ),
    set_: Set = None,
) -> None:
    """Remove what the store holds of one entity.

    In all spaces and partitions, while a stream goes on.
    """
    from acclimate.cli.terminal import show_forgotten
    from acclimate.extras import import_module

    show_forgotten(import_module("acclimate.streaming").forget(_project(project, set_, None), entity, [id]))


@app.command()
def check(project: ProjectFile = DEFAULT_PROJECT, memory_limit: MemoryLimit = None, set_: Set = None) -> None:
    """Check the project and all of its events.

    Everything that the learners read is read and checked, nothing is learned; says what is there.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import show_check, working

    with working("checking"):
        described = _project(project, set_, memory_limit)
        checked = pipeline.check(described)
    show_check(described, checked)


@data.command()
def kuairand(
    path: DataPath, out: ProjectFolder, sha256: Sha256 = None, md5: Md5 = None, overwrite: Overwrite = False
) -> None:
    """KuaiRand: a short-video app.

    Impressions with users and videos: KuaiRand-Pure, -1K or -27K. The data stay where they are.
    """
    from acclimate.events.kuairand import kuairand as make

    _make(make, path, out, sha256=sha256, md5=md5, overwrite=overwrite)


@data.command()
def movielens(
    path: DataPath, out: ProjectFolder, sha256: Sha256 = None, md5: Md5 = None, overwrite: Overwrite = False
) -> None:
    """MovieLens: ratings of films.

    Of any size from 100K to 32M, converted to Parquet.
    """
    from acclimate.events.movielens import movielens as make

    _make(make, path, out, sha256=sha256, md5=md5, overwrite=overwrite)


@data.command()
def world(
    out: ProjectFolder,
    users: Users = 2_000,
    days: Annotated[int, typer.Option(min=2, metavar="N", help="Days of the world.")] = 40,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """A simulated world.

    Users whose tastes drift, and jump half way; the true probability of every click is known.
    """
    from acclimate import pipeline
    from acclimate.cli.terminal import show_dataset, working

    with working("simulating"):
        made = pipeline.make_world(out, users=users, days=days, seed=seed, overwrite=overwrite)
    show_dataset(made)


def _make(make: Callable[..., "Dataset"], path: str, out: Path, **options: Any) -> None:
    from acclimate.cli.terminal import download_progress, show_dataset

    with download_progress() as on_progress:
        made = make(path, out, on_progress=on_progress, **options)
    show_dataset(made)


def _project(path: Path, overrides: list[str] | None, memory_limit: str | None) -> "Project":
    from acclimate.config import size_bytes
    from acclimate.project import load_project

    if memory_limit is not None:
        size_bytes(memory_limit)
    project = load_project(path, overrides or ())
    return project if memory_limit is None else replace(project, memory_limit=memory_limit)


def _memory_override(memory_limit: str | None) -> list[str]:
    from acclimate.config import size_bytes

    if memory_limit is None:
        return []
    size_bytes(memory_limit)
    return [f"memory_limit={memory_limit}"]


def main() -> None:
    """The entry point of the ``acclimate`` command."""
    with process():
        app()
