"""The verbs of the flow on one page: open, fit, update, replay, and the demonstration of all of them."""

import datetime as dt
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from acclimate.artifacts import Events, Instant, Learner, Report, Summary
from acclimate.config import FixedEffect, RandomEffect
from acclimate.errors import ConfigError, DataError, MismatchError, MissingExtraError, nearest
from acclimate.evaluate import Arm, Progress
from acclimate.evaluate import replay as measure
from acclimate.evaluate.report import write_report
from acclimate.events import read_events, simulate
from acclimate.events.datasets import Dataset, write_world
from acclimate.learners import GLMix, GlobalRate, Rate
from acclimate.project import ArmSection, GLMixSection, Project
from acclimate.storage import check_free

OnProgress = Callable[[Progress], None]


def open_events(project: Project) -> Events:
    """The events of a project, checked as far as that goes without reading them all."""
    return read_events(list(project.events.path), project.events.schema)


def make_learner(section: GLMixSection) -> GLMix:
    """The learner that a section of the project file describes."""
    return GLMix(
        fixed=section.fixed,
        random=list(section.random.values()),
        label=section.label,
        learn_population=section.learn_population,
    )


def fit(
    project: Project,
    out: str | Path,
    *,
    learner: str | None = None,
    until: Instant | None = None,
    overwrite: bool = False,
) -> GLMix:
    """Fit a learner of the project on the events before ``until`` (all of them without) and save it at ``out``."""
    check_free(out, overwrite=overwrite)
    events = open_events(project)
    model = make_learner(project.learner(learner)).fit(events if until is None else events.before(until))
    model.save(out, overwrite=overwrite)
    return model


def update(
    project: Project,
    model_path: str | Path,
    *,
    learner: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
) -> GLMix:
    """Bring a saved model up to date, in place: learn the events after the last one that it learned.

    Rows that arrive late, with times at or before that one, are learned only with ``since``, which starts
    elsewhere: what is learned twice counts twice.

    Raises:
        MismatchError: the model was made with other settings than the project's learner has now.
    """
    model = GLMix.load(model_path)
    _check_settings(model, make_learner(project.learner(learner)), model_path)
    check_free(model_path, overwrite=True)
    cut = model.cut + 1 if since is None else since
    events = open_events(project).after(cut)
    model.update(events if until is None else events.before(until))
    model.save(model_path, overwrite=True)
    return model


def _check_settings(saved: GLMix, now: GLMix, path: str | Path) -> None:
    was, wanted = _settings(saved), _settings(now)
    if different := [
        f"{name} was {was[name]} and is {wanted[name]}"
        for name in was
        if name in wanted and was[name] != wanted[name]
    ]:
        raise MismatchError(
            f"{path} was made with other settings than the project's learner has: {'; '.join(different)}",
            hint="name the learner it was made from, or fit anew",
        )


def _settings(model: GLMix) -> dict[str, Any]:
    """What a project file says of a learner, by name; an effect that only one model has shows in ``random``."""
    parameters = model.parameters
    return {
        "label": parameters.label,
        "learn_population": parameters.learn_population,
        "random": sorted(effect.entity for effect in parameters.random),
    } | {
        f"{name}.{key}": value
        for name, effect in zip(parameters.names, parameters.effects, strict=True)
        for key, value in asdict(effect).items()
    }


def check(project: Project) -> tuple[Summary, dict[str, int]]:
    """Read everything that the project's learners read and learn nothing: what is there, and how wide it is.

    Returns the summary of the events, and the number of coefficients of each ``learner.effect``.
    """
    events = open_events(project)
    wide = {name: make_learner(section).columns(events) for name, section in project.learners.items()}
    arms_of(project)
    return events.describe(), {
        f"{name}.{effect}": n for name, effects in wide.items() for effect, n in effects.items()
    }


def replay(
    arms: Sequence[Learner | Arm] | Mapping[str, Learner],
    events: Events,
    *,
    start: Instant | None = None,
    every: str = "1d",
    out: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Play a log back as if it happened again: in each window every arm predicts first and learns afterwards.

    Args:
        arms: learners, named or not, or :class:`acclimate.Arm` where one is not to be updated with every window.
        events: the log; what lies before ``start`` is the first fit.
        start: where the first window begins; by default half way through the log, at midnight.
        every: length of a window.
        out: folder for ``metrics.json`` and ``report.html``; without, nothing is written.
        overwrite: replace what is at ``out``.
        options: those of :func:`acclimate.evaluate.replay`: ``end``, ``label``, ``label_delay``, ``ndcg_at``,
            ``within``, ``follow``, ``resamples``, ``seed``, ``name``, ``on_progress``.

    Raises:
        ConfigError: an option does not fit the events.
        DataError: there is nothing to fit on, or nothing to predict.
        OutputError: ``out`` is taken, or cannot be written.
    """
    if out is not None:
        check_free(out, overwrite=overwrite)
    report = measure(
        _named(arms), events, start=_middle(events) if start is None else start, every=every, **options
    )
    if out is not None:
        write_report(report, out, overwrite=overwrite)
    return report


def replay_project(
    project: Project, out: str | Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
) -> Report:
    """The replay that the project file asks for, written to ``out``."""
    section = project.replay
    if section is None:
        raise ConfigError(
            "the project file has no section 'replay'", hint="say at least when it starts: replay.start"
        )
    check_free(out, overwrite=overwrite)
    events = open_events(project)
    options = {
        name: getattr(section, name)
        for name in ("start", "every", "end", "label_delay", "ndcg_at", "within", "follow", "resamples", "seed")
    }
    options |= {"name": project.name, "label": project.learner(section.learner).label, "on_progress": on_progress}
    return replay(arms_of(project), events, out=out, overwrite=overwrite, **options)


def arms_of(project: Project) -> list[Arm]:
    """The arms of the project's replay; those of one learner hold the same object, and so share its first fit."""
    section = project.replay
    if section is None:
        return []
    learners = {name: make_learner(learner) for name, learner in project.learners.items()}
    main = section.learner or next(iter(learners))
    project.learner(section.learner)
    return [_arm(arm, project, learners, main) for arm in section.arms]


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
    check_free(out, overwrite=overwrite)
    events = _world(users, days, (10 + days) // 2, seed)
    context = ["surface", "hour", "position", "topics", "duration"]
    glmix = GLMix(
        fixed=FixedEffect(context),
        random=[RandomEffect("user_id", ["topics"], half_life="20d"), RandomEffect("item_id", half_life="20d")],
    )
    fixed = GLMix(fixed=FixedEffect(context))
    arms = [
        Arm("stale", glmix, "stale"),
        Arm("incremental", glmix),
        Arm("retrain", glmix, "retrain"),
        Arm("fixed", fixed),
        Arm("global-rate", GlobalRate()),
        Arm("item-rate", Rate("item_id")),
        Arm("user-rate", Rate("user_id")),
    ]
    first = events.describe().first
    if first is None:
        raise DataError("the simulated world is empty", hint="give it more users")
    start = first.date() + dt.timedelta(days=10)
    return replay(
        arms, events, start=start, out=out, overwrite=overwrite, name="a drifting world", on_progress=on_progress
    )


def make_world(
    out: str | Path, *, users: int = 2_000, days: int = 40, seed: int = 0, overwrite: bool = False
) -> Dataset:
    """Write a simulated world, with a jump in tastes half way, as a project at ``out``."""
    check_free(out, overwrite=overwrite)
    return write_world(_world(users, days, days // 2, seed), out, overwrite=overwrite)


def _world(users: int, days: int, jump_day: int, seed: int) -> Events:
    return simulate(users=users, items=300, events_per_day=2 * users, days=days, jump_day=jump_day, seed=seed)


def _named(arms: Sequence[Learner | Arm] | Mapping[str, Learner]) -> list[Arm]:
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


def _arm(section: ArmSection, project: Project, learners: dict[str, GLMix], main: str) -> Arm:
    name, label = section.name, project.learners[main].label
    regime = section.regime or "incremental"
    if section.python:
        return Arm(name, _from_python(section.python, project.folder), regime, section.window)
    if section.learner:
        project.learner(section.learner)
        return Arm(name, learners[section.learner], regime, section.window)
    user, item = _user_and_item(project)
    match name:
        case "stale" | "incremental" | "retrain":
            return Arm(name, learners[main], name, section.window)
        case "fixed":
            learner = make_learner(changed(project.learners[main], random={}))
        case "global-rate":
            learner = GlobalRate(label)
        case "item-rate":
            learner = Rate(item, label)
        case _:
            learner = Rate(user, label)
    return Arm(name, learner, regime, section.window)


def _user_and_item(project: Project) -> tuple[str, str]:
    """The schema's first entity, and its second (the first again where there is only one)."""
    entities = list(project.events.schema.entities)
    return entities[0], entities[min(1, len(entities) - 1)]


def _from_python(reference: str, folder: Path) -> Learner:
    """The object that ``file.py:Name`` makes."""
    file, _, name = reference.rpartition(":")
    path = folder / file
    spec = importlib.util.spec_from_file_location(str(path), path)
    if not name or spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"'{reference}' names no object in a file", hint=f"write file.py:Name, under {folder}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path} cannot be imported: {error}", hint=f"pip install {error.name}") from error
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"{path} cannot be imported: {error}", hint="install what it needs, or mend it"
        ) from error
    made: Any = getattr(module, name, None)
    if made is None:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{path} has no '{name}'", hint=nearest(name, public))
    learner = made() if isinstance(made, type) else made
    if absent := [verb for verb in ("fit", "update", "predict") if not callable(getattr(learner, verb, None))]:
        raise ConfigError(f"'{reference}' has no {absent[0]}()", hint="an arm has fit, update and predict")
    return learner
