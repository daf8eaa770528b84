"""The verbs of the flow on one page: open, fit, update, replay, and the demonstration of all of them."""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from acclimate import learners, ledger
from acclimate.artifacts import Encoder, Events, Instant, Learner, Replayable, Report, Summary, modes_of
from acclimate.config import BASELINES, arms_beside
from acclimate.errors import ConfigError, DataError, MismatchError, ModelError
from acclimate.evaluate import Arm, Progress
from acclimate.evaluate import replay as measure
from acclimate.evaluate.python_arms import arm_from, blaming, file_of
from acclimate.evaluate.report import write_report
from acclimate.events import read_events, simulate
from acclimate.events.datasets import Dataset, world_project, write_world
from acclimate.events.leaks import Leak, find_leaks
from acclimate.project import ArmSection, Project, parse_project
from acclimate.storage import check_free, only_writer
from acclimate.together import processes, wait_for_all

OnProgress = Callable[[Progress], None]


@runtime_checkable
class CountsColumns(Protocol):
    """A learner that can read and check events as ``fit`` would, and say how wide its parts are."""

    def columns(self, events: Events) -> dict[str, int]:
        """How many columns each part reads."""
        ...


def open_events(project: Project) -> Events:
    """The events of a project, checked as far as that goes without reading them all."""
    return read_events(list(project.events.path), project.events.schema, memory_limit=project.memory_limit)


def fit(
    project: Project,
    out: str | Path,
    *,
    learner: str | None = None,
    until: Instant | None = None,
    checkpoint: str | Path | None = None,
    allow_unconverged: bool = False,
    overwrite: bool = False,
) -> Learner:
    """Fit a learner of the project on the events before ``until`` (all of them without) and save it at ``out``.

    With ``checkpoint`` the training is kept in that file while it lasts, and goes on from there after a kill.

    Raises:
        ConfigError: the learner keeps no checkpoints.
        NotConvergedError: it has not reached its optimum, and ``allow_unconverged`` was not asked for; nothing is
            saved.
    """
    check_free(out, "model", overwrite=overwrite)
    wait_for_all()  # lest the first of several processes has saved before another one looks
    log = open_events(project)
    events = log if until is None else log.before(until)
    model = learners.make(project.learner(learner))
    model.fit(events, **_kept(model, checkpoint))
    if not allow_unconverged:
        model.check_converged()
    model.history = ledger.with_line((), model, events)
    model.save(out, overwrite=overwrite)
    return model


def update(
    project: Project,
    model_path: str | Path,
    *,
    learner: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    late: bool = False,
    allow_unconverged: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Learner:
    """Bring a saved model up to date, in place: learn the events after the last one that it learned.

    No event is learned twice: the model keeps what it has read, and one update of a model runs at a time.

    Args:
        project: its events are the log.
        model_path: the saved model.
        learner: which one of the project's it was made from.
        since: leave out what is earlier, but for events that were learned.
        until: leave out what is later.
        late: the log holds rows alone that came after others of their time were learned: learn these.
        allow_unconverged: save a model that has not reached its optimum, too.
        tell: is told what a user should know: whom the update waits for, and how many rows it leaves out since
            they came late.

    Raises:
        AlreadyLearnedError: events that are asked for were learned.
        ConfigError: ``since`` is not before ``until``.
        MismatchError: the model was made with other settings than the project's learner has now.
        NotConvergedError: it has not reached its optimum, and what was saved stays as it was; or it has undone the
            update, and the history of what was saved says so.
    """
    tell = tell or _tell_nobody
    waits = f"waiting for another update of {model_path}"
    with _one_writer(model_path, lambda: tell(waits)):
        model = learners.load(model_path)
        check_settings(model.parameters, project.learner(learner), model_path)
        check_free(model_path, "model", overwrite=True)
        log = open_events(project)
        choose = ledger.late_events if late else ledger.new_events
        events = choose(log, model, since, until)
        for warning in ledger.left_out(log, model, events, late=late):
            tell(warning)
        before = model.cut
        model.update(events)
        if refused := model.refusal():
            model.history = ledger.with_refusal(model.history, model, events, late=late)
            model.save(model_path, overwrite=True)
        if not allow_unconverged:
            model.check_converged()
        if refused:
            tell(f"nothing was learned: {refused}")
        elif model.cut > before or (late and ledger.learnable(events, model)):
            model.history = ledger.with_line(model.history, model, events, late=late)
            model.save(model_path, overwrite=True)
        else:
            tell(f"nothing was learned: {ledger.nothing(events)}")
    return model


def write_vectors(model_path: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Write the vectors of everyone that a saved encoder knows to the folder ``out``; how many there are.

    Raises:
        ConfigError: the saved model is no encoder.
        OutputExistsError: the place is taken.
    """
    check_free(out, "vectors", overwrite=overwrite)
    return learners.write_vectors(_encoder(model_path), out, overwrite=overwrite)


class Reconciled(NamedTuple):
    """What a reconciliation compared: ``entities``, and by how much a component differs at most."""

    entities: int
    largest: float


def reconcile(project: Project, model_path: str | Path, *, tolerance: float = 1e-5) -> Reconciled:
    """Compare what a saved encoder knows, from however many updates, with its log read anew and all at once.

    Raises:
        ConfigError: the saved model is no encoder.
        ModelError: vectors differ by more than the tolerance.
    """
    model = _encoder(model_path)
    differences = model.reconciled(open_events(project))
    largest = float(differences.max(initial=0.0))
    if (count := int((differences > tolerance).sum())) > 0:
        raise ModelError(
            f"{count:,} of {len(differences):,} vectors in {model_path} differ from those of the log by up to "
            f"{largest:.2g}",
            hint="is this the whole log that was learned, rows that came late included? if so, fit anew",
        )
    return Reconciled(len(differences), largest)


def _encoder(path: str | Path) -> Encoder:
    model = learners.load(path)
    if not isinstance(model, Encoder):
        raise ConfigError(f"{path} is of kind '{model.kind}', and no encoder", hint="name a saved encoder")
    return model


@contextmanager
def _one_writer(path: str | Path, on_wait: Callable[[], None]) -> Generator[None]:
    """Be the only one who writes this model; of several processes that learn together the first one holds it."""
    with only_writer(path, on_wait) if processes()[0] == 0 else nullcontext():
        wait_for_all()
        yield


def _kept(model: Learner, checkpoint: str | Path | None) -> dict[str, Any]:
    """The arguments by which a fit keeps a checkpoint."""
    if checkpoint is None:
        return {}
    if "checkpoint" not in inspect.signature(model.fit).parameters:
        raise ConfigError(
            f"a learner of kind '{model.kind}' keeps no checkpoints", hint="leave --checkpoint out: networks do"
        )
    return {"checkpoint": checkpoint}


def _tell_nobody(_: str) -> None:
    """For those who did not ask to be told."""


def check_settings(saved: Any, declared: Any, path: str | Path) -> None:
    """Ask that a saved model was made with the settings that the project's learner has.

    Raises:
        MismatchError: it was made with others, which it names.
    """
    if saved.kind != declared.kind:
        different = [f"kind was {saved.kind} and is {declared.kind}"]
    else:
        different = list(_differences(saved, declared, ""))
    if different:
        raise MismatchError(
            f"{path} was made with other settings than the project's learner has: {'; '.join(different)}",
            hint="name the learner it was made from, or fit anew",
        )


def _differences(was: Any, now: Any, place: str) -> Iterator[str]:
    """Where two records differ, in words; those in a sequence go by name or first field, in a mapping by key."""
    if type(was) is type(now) and is_dataclass(was):
        for field in fields(was):
            inner = f"{place}.{field.name}" if place else field.name
            yield from _differences(getattr(was, field.name), getattr(now, field.name), inner)
    elif (before := _by_name(was)) is not None and (after := _by_name(now)) is not None:
        if before.keys() != after.keys():
            yield f"{place} was {list(before)} and is {list(after)}"
        for name in (name for name in before if name in after):
            yield from _differences(before[name], after[name], f"{place}.{name}")
    elif was != now:
        yield f"{place} was {was} and is {now}"


def _by_name(value: Any) -> dict[str, Any] | None:
    """Several records by name, if the value is that."""
    if isinstance(value, tuple) and all(is_dataclass(item) for item in value):
        value = {str(getattr(one, "called", getattr(one, fields(one)[0].name))): one for one in value}
    return value if isinstance(value, dict) and all(map(is_dataclass, value.values())) else None


class Checked(NamedTuple):
    """What is in a project.

    A summary of its events, how many columns each ``learner.part`` reads, and columns that seem to know labels.
    """

    summary: Summary
    widths: dict[str, int]
    leaks: list[Leak]


def check(project: Project) -> Checked:
    """Read what the project's learners read and learn nothing: what is there, and how wide it is.

    Learners that cannot count their columns are made, and the rows described; what they read is checked by a fit.

    Rows are read a piece at a time and none are kept, so that memory is bounded whatever their number.
    """
    events = open_events(project)
    widths: dict[str, int] = {}
    for name, parameters in project.learners.items():
        learner = learners.make(parameters)
        if isinstance(learner, CountsColumns):
            widths |= {f"{name}.{part}": width for part, width in learner.columns(events).items()}
    arms_of(project)
    return Checked(events.describe(), widths, find_leaks(events))


def replay(
    arms: Sequence[Replayable | Arm] | Mapping[str, Replayable],
    events: Events,
    *,
    start: Instant | None = None,
    every: str = "1d",
    end: Instant | None = None,
    label: str | None = None,
    label_delay: str | None = None,
    ndcg_at: int = 10,
    within: Sequence[str] = (),
    follow: str | int | None = None,
    name: str = "replay",
    on_progress: OnProgress | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Play a log back as if it happened again: in each window every arm predicts first and learns afterwards.

    Args:
        arms: learners, named or not, or :class:`acclimate.Arm` where one is not to be updated with every window.
        events: the log; what lies before ``start`` is the first fit.
        start: where the first window begins; by default half way through the log, at midnight.
        every: length of a window.
        end: where the last window ends; by default the window of the last event is the last.
        label: what is predicted; by default the first one of the schema.
        label_delay: how long labels take to arrive: what happened less than this before a window's end is not
            learned at its end but later.
        ndcg_at: nDCG looks at this many rows of an entity and window.
        within: columns; the AUC within each of their values is reported too.
        follow: the entity whose posterior is traced, of the schema's first kind; by default the one that is there
            in most windows.
        name: of the report.
        on_progress: called as each step begins.
        out: folder for ``metrics.json`` and ``report.html``; without, nothing is written.
        overwrite: replace what is at ``out``.

    Raises:
        ConfigError: an option does not fit the events.
        DataError: there is nothing to fit on, or nothing to predict.
        OutputError: ``out`` is taken, or cannot be written.
    """
    if out is not None:
        check_free(out, "report", overwrite=overwrite)
    report = measure(
        _named(arms),
        events,
        start=_middle(events) if start is None else start,
        every=every,
        end=end,
        label=label,
        label_delay=label_delay,
        ndcg_at=ndcg_at,
        within=within,
        follow=follow,
        name=name,
        on_progress=on_progress,
    )
    if out is not None:
        write_report(report, out, overwrite=overwrite)
    return report


def replay_project(
    project: Project, out: str | Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
) -> Report:
    """The replay that the project file asks for, written to ``out``.

    Raises:
        ModelError: an arm of the user's own raised something; it is the cause.
    """
    section = project.replay
    if section is None:
        raise ConfigError(
            "the project file has no section 'replay'", hint="say at least when it starts: replay.start"
        )
    check_free(out, "report", overwrite=overwrite)
    own = {file_of(arm.python, project.folder): arm.name for arm in section.arms or () if arm.python}
    with blaming(own):
        return _replayed(project, open_events(project), out, overwrite=overwrite, on_progress=on_progress)


def _replayed(
    project: Project, events: Events, out: str | Path, *, overwrite: bool, on_progress: OnProgress | None
) -> Report:
    section: Any = project.replay
    asked = {
        f.name: getattr(section, f.name) for f in fields(section) if f.name not in ("arms", "learner", "mode")
    }
    return replay(
        arms_of(project),
        events,
        **asked,
        label=project.predictor(section.learner)[1].label,
        name=project.name,
        out=out,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def arms_of(project: Project) -> list[Arm]:
    """The arms of the project's replay; those of one learner hold the same object, and so share its first fit."""
    section = project.replay
    if section is None:
        return []
    made = {name: learners.make(parameters) for name, parameters in project.learners.items()}
    main, _ = project.predictor(section.learner)
    arms = section.arms
    if arms is None:
        arms = [ArmSection(name) for name in arms_beside(project.learners[main])]
    made_arms = [_arm(arm, project, made, main) for arm in arms]
    return [replace(a, mode=a.mode or section.mode) if modes_of(a.learner) else a for a in made_arms]


def demo(
    out: str | Path,
    *,
    users: int = 2_000,
    days: int = 40,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """A simulated world end to end: ten days to fit, then day by day, with a jump in tastes half way.

    The true probabilities are known, so the report shows regret: what each arm loses against the truth.
    """
    check_free(out, "report", overwrite=overwrite)
    events = _world(users, days, (10 + days) // 2, seed)
    content: dict[str, Any] = world_project(events, fit_days=10) | {"name": "a drifting world"}
    content["replay"]["within"] = []
    return _replayed(parse_project(content, Path()), events, out, overwrite=overwrite, on_progress=on_progress)


def make_world(
    out: str | Path, *, users: int = 2_000, days: int = 40, seed: int = 0, overwrite: bool = False
) -> Dataset:
    """Write a simulated world, with a jump in tastes half way, as a project at ``out``."""
    check_free(out, "project", overwrite=overwrite)
    return write_world(_world(users, days, days // 2, seed), out, overwrite=overwrite)


def _world(users: int, days: int, jump_day: int, seed: int) -> Events:
    return simulate(users=users, items=300, events_per_day=2 * users, days=days, jump_day=jump_day, seed=seed)


def _named(arms: Sequence[Replayable | Arm] | Mapping[str, Replayable]) -> list[Arm]:
    if isinstance(arms, Mapping):
        return [Arm(name, learner) for name, learner in arms.items()]
    return [
        arm
        if isinstance(arm, Arm)
        else Arm(f"{type(arm).__name__.lower()}-{i}" if len(arms) > 1 else "incremental", arm)
        for i, arm in enumerate(arms, start=1)
    ]


def _middle(events: Events) -> Instant:
    summary = events.describe()
    if summary.first is None or summary.last is None:
        raise DataError("there are no events to replay")
    return (summary.first + (summary.last - summary.first) / 2).date()


def _arm(section: ArmSection, project: Project, made: dict[str, Learner], main: str) -> Arm:
    name, regime = section.name, section.regime or "incremental"
    if section.python:
        return Arm(name, arm_from(section.python, project.folder), regime, section.window, section.mode)
    if section.learner:
        project.predictor(section.learner)
        return Arm(name, made[section.learner], regime, section.window, section.mode)
    if name in BASELINES:
        declared = BASELINES[name](project.learners[main], project.events.schema)
        return Arm(name, learners.make(declared), regime, section.window, section.mode)
    built_in: Any = name  # the regimes are the names of the other ones
    return Arm(name, made[main], built_in, section.window, section.mode)
