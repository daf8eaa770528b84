"""The verb ``tune``: choose settings of a learner on days before those it is tested on; it names no learner."""

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from acclimate import learners
from acclimate.artifacts import JUDGES, Candidates, Report, Trial, Tuning, modes_of
from acclimate.config import (
    Choices,
    LabelKind,
    Setting,
    declared_record,
    declared_value,
    default_settings,
    spelled_out,
)
from acclimate.config.tuning import Place, as_written
from acclimate.errors import ConfigError
from acclimate.evaluate import Arm, Losses, Progress
from acclimate.evaluate import replay as measure
from acclimate.evaluate.report import write_report
from acclimate.evaluate.tuned import DECLARED, best_trials, finalists, write_tuning
from acclimate.extras import import_module
from acclimate.pipeline import open_events
from acclimate.project import Project, ProjectFile, set_options
from acclimate.storage import check_free
from acclimate.storage.locks import locked
from acclimate.storage.places import telling
from acclimate.times import instant, utc

OnProgress = Callable[[int, int, Progress], None]
"""Called as each step of a replay begins, with the number of the trial and how many there are; the replay of the
best ones comes after the last trial."""

JOURNAL, RESULT, REPLAY = "trials.log", "result", "replay"


def tune(
    file: ProjectFile,
    out: str | Path,
    *,
    learner: str | None = None,
    until: str | None = None,
    days: int = 7,
    trials: int = 30,
    seed: int = 0,
    best: int = 3,
    allow_test_days: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Tuning:
    """Search for better settings of one learner, by its loss when it predicts, then learns, window by window.

    It is the log-loss of labels 0 and 1, the RMSE of numbers, the deviance of counts.

    What lies before the days is the first fit. The trials are kept in a journal at ``out``, from which the same
    call goes on. The best ones are replayed beside the declared settings: ``out/replay`` is their report, and
    ``out/result`` what the search found, with a project file of the best settings if they are better.

    Args:
        file: the project file; its section ``tune`` says what is tried, or else the kind of the learner does.
        out: folder for all results.
        learner: which one of the project's; that of the replay, or the only one, without.
        until: where the last window ends; without, where the replay of the project starts.
        days: how many days before that are predicted.
        trials: how many settings are tried beside the declared ones.
        seed: of the search.
        best: how many of the best are replayed beside the declared settings.
        allow_test_days: choose settings on days of the project's replay too.
        overwrite: forget what is at ``out``.
        on_progress: called as each step begins.

    Raises:
        ConfigError: the days are those of the replay, a candidate is not allowed, there is nothing to tune, or the
            trials at ``out`` are of another search.
        MissingExtraError: optuna is not installed.
        OutputExistsError: ``out`` holds something else.
    """
    search: Any = import_module("acclimate.evaluate.tune").search
    task = _Task.made(file, learner, _Span(until, days, allow_test_days), seed)
    folder = Path(out)
    with _held(folder, overwrite=overwrite):
        return _tuned(task, search, folder, trials=trials, best=best, on_progress=on_progress)


def _tuned(
    task: "_Task",
    search: Callable[..., list[Trial]],
    folder: Path,
    *,
    trials: int,
    best: int,
    on_progress: OnProgress | None,
) -> Tuning:
    """Search, compare the best, and write what was found."""

    def tell(number: int, step: Progress) -> None:
        if on_progress is not None:
            on_progress(number, trials, step)

    def one(number: int, values: Mapping[str, Any], watch: Callable[[Losses], None]) -> None:
        task.replay({"trial": values}, on_progress=partial(tell, number), on_window=watch)

    tried = search(
        task.settings,
        one,
        trials=trials,
        seed=task.seed,
        journal=folder / JOURNAL,
        question=task.question(),
        root=task.kind == "number",
    )
    chosen = best_trials(tried, best)
    arms = {DECLARED: {}, **{f"trial {trial.number}": trial.values for trial in chosen}}
    report = task.replay(arms, on_progress=partial(tell, trials + 1))
    write_report(report, folder / REPLAY, overwrite=True)
    tuning = Tuning(
        name=task.project.name,
        settings={"learner": task.learner, **report.settings, "trials": trials, "seed": task.seed},
        candidates=[_described(setting) for setting in task.settings],
        trials=tried,
        declared_loss=getattr(report.arms[DECLARED], JUDGES[task.kind].key),
        declared_auc=report.arms[DECLARED].auc,
        finalists=finalists(report, chosen, looks=trials, changes=task.changes, options=task.options),
    )
    patched = None if tuning.chosen is None else task.patched(tried[tuning.chosen.number], folder / RESULT)
    write_tuning(tuning, folder / RESULT, patched=patched)
    return tuning


@dataclass(frozen=True)
class _Span:
    """The days that were asked for: ``days`` before ``until``, by default before the replay of the project."""

    until: str | None
    days: int
    allow_test_days: bool

    def between(self, project: Project) -> tuple[int, int]:
        """Start and end, in microseconds.

        Raises:
            ConfigError: they are not said, or reach into the replay.
        """
        zone, section = project.events.schema.time.zone, project.replay
        if self.until is None and section is None:
            raise ConfigError(
                "the project file has no section 'replay', before which settings could be chosen",
                hint="say with --until which days are to be predicted",
            )
        if section is None or self.until is not None:
            end = instant(str(self.until), zone)
        else:
            end = instant(section.start, zone)
        if section is not None and end > instant(section.start, zone) and not self.allow_test_days:
            raise ConfigError(
                f"{self.until} is after the start of the replay, {section.start}: settings chosen on its days "
                "would look better there than they are",
                hint="choose days before, or say --allow-test-days",
            )
        local = utc(end).astimezone(ZoneInfo(zone)).replace(tzinfo=None) - dt.timedelta(days=self.days)
        return instant(local, zone), end


@dataclass(frozen=True)
class _Task:
    """What is searched: ``settings`` of a ``learner``, in a project ``file`` and in one with all keys spelled out.

    ``start`` and ``end`` of the windows are in microseconds.
    """

    file: ProjectFile
    spelled: ProjectFile
    project: Project
    learner: str
    settings: list[Setting]
    start: int
    end: int
    seed: int

    @classmethod
    def made(cls, file: ProjectFile, learner: str | None, span: _Span, seed: int) -> "_Task":
        project = file.project()
        section = project.replay
        name, _ = project.predictor(learner or (section.learner if section else None))
        start, end = span.between(project)
        spelled = _spelled(file, project)
        checked = [_checked(spelled, setting) for setting in _settings(spelled, project, name)]
        settings = [setting for setting in checked if _concerns(spelled, setting, name)]
        if not settings:
            where = "by default" if project.tune is None else "in the section 'tune'"
            raise ConfigError(f"there is nothing to tune of '{name}' {where}", hint="say in 'tune' what to try")
        return cls(file, spelled, project, name, settings, start, end, seed)

    @property
    def kind(self) -> LabelKind:
        """Of the label."""
        schema, label = self.project.events.schema, self.project.predictor(self.learner)[1].label
        return schema.label_kind(label or schema.labels[0])

    def question(self) -> dict[str, Any]:
        """All that the outcome of a trial depends on, but for the events."""
        content = self.spelled.content.value
        parts = {key: content.get(key) for key in ("events", "features", "learners")}
        return {
            "learner": self.learner,
            "start": self.start,
            "end": self.end,
            "seed": self.seed,
            "candidates": {setting.name: repr(setting.candidates) for setting in self.settings},
            "replay": [self._of_replay("every", "1d"), self._of_replay("label_delay"), self._of_replay("mode")],
            "project": hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest(),
        }

    def _of_replay(self, key: str, default: Any = None) -> Any:
        return getattr(self.project.replay, key, default)

    def changes(self, trial: Trial) -> dict[str, tuple[Any, Any]]:
        """By name, what was declared and what the trial has, where they differ."""
        return {
            setting.name: (setting.declared, trial.values[setting.name])
            for setting in self.settings
            if setting.name in trial.values and trial.values[setting.name] != setting.declared
        }

    def variant(self, values: Mapping[str, Any]) -> ProjectFile:
        """The project file with the values of some settings, by name."""
        changed = {
            setting.place: values[setting.name]
            for setting in self.settings
            if setting.name in values and values[setting.name] != setting.declared
        }
        return self.spelled.with_values(changed, "tune")

    def overrides(self, trial: Trial) -> dict[Place, Any]:
        """What makes of the project file as it is one with the settings of a trial."""
        return self.file.overrides(self.variant(trial.values), spelled=self.spelled)

    def options(self, trial: Trial) -> str:
        """The same as options of a command line."""
        return set_options(self.overrides(trial))

    def patched(self, trial: Trial, folder: Path) -> str:
        """A project file for a folder, with the settings of a trial."""
        text = self.file.with_values(self.overrides(trial), "tune").moved(folder)
        return f"# {self.file.path.name} with what 'acclimate tune' chose in trial {trial.number}.\n{text}"

    def replay(
        self,
        arms: Mapping[str, Mapping[str, Any]],
        *,
        on_progress: Callable[[Progress], None],
        on_window: Callable[[Losses], None] | None = None,
    ) -> Report:
        """Replay the learner with several settings, by the names of their arms."""
        projects = {name: self.variant(values).project() for name, values in arms.items()}
        first = next(iter(projects.values()))
        return measure(
            [self._arm(name, project) for name, project in projects.items()],
            open_events(first).before(self.end),
            start=self.start,
            end=self.end,
            every=self._of_replay("every", "1d"),
            label=first.predictor(self.learner)[1].label,
            label_delay=self._of_replay("label_delay"),
            name=f"{self.project.name}: {self.learner}",
            on_progress=on_progress,
            on_window=on_window,
        )

    def _arm(self, name: str, project: Project) -> Arm:
        learner = learners.make(project.predictor(self.learner)[1])
        return Arm(name, learner, mode=self._of_replay("mode") if modes_of(learner) else None)


# --- what is tried ------------------------------------------------------------------------------------------


def _spelled(file: ProjectFile, project: Project) -> ProjectFile:
    """The file in which all keys of learners have a place."""
    sections = {name: file.at(("learners", name)) for name in project.learners}
    return file.with_values(
        {("learners", name): spelled_out(section, declared_record(section)) for name, section in sections.items()},
        "the project file",
    )


def _settings(spelled: ProjectFile, project: Project, learner: str) -> Iterator[Setting]:
    """Those of the section ``tune``, or else of the learner by default."""
    if project.tune is None:
        place = ("learners", learner)
        by_default = default_settings(declared_record(spelled.at(place)), place)
        yield from (found for setting in by_default if (found := _allowed(spelled, setting)) is not None)
        return
    for path, candidates in project.tune.items():
        place = spelled.place(path)
        declared = None
        if place[0] == "learners" and place[1] in project.learners:
            declared = as_written(declared_value(declared_record(spelled.at(place[:2])), place[2:]))
        declared = spelled.at(place) if declared is None else declared
        yield Setting(place, candidates, declared)


def _allowed(spelled: ProjectFile, setting: Setting) -> Setting | None:
    """A default setting without candidates that this learner cannot have; none where there is no choice left."""
    candidates = setting.candidates
    if isinstance(candidates, Choices):
        allowed = tuple(value for value in candidates.values if _is_allowed(spelled, setting, value))
        return replace(setting, candidates=Choices(allowed)) if len(allowed) > 1 else None
    ends = (candidates.value(candidates.low), candidates.value(candidates.high))
    return setting if all(_is_allowed(spelled, setting, end) for end in ends) else None


def _is_allowed(spelled: ProjectFile, setting: Setting, value: Any) -> bool:
    try:
        _with(spelled, setting, value)
    except ConfigError:
        return False
    return True


def _checked(spelled: ProjectFile, setting: Setting) -> Setting:
    """The setting, each of whose candidates is allowed by itself; of whole numbers where no others are.

    Raises:
        ConfigError: one is not allowed.
    """
    candidates = setting.candidates
    if isinstance(candidates, Choices):
        for value in candidates.values:
            _with(spelled, setting, value)
        return setting
    if float(candidates.low).is_integer() and float(candidates.high).is_integer() and not candidates.days:
        try:
            _with(spelled, setting, candidates.high - 0.5)
        except ConfigError:
            candidates = replace(candidates, whole=True)
    for end in (candidates.low, candidates.high):
        _with(spelled, setting, candidates.value(end))
    return replace(setting, candidates=candidates)


def _concerns(spelled: ProjectFile, setting: Setting, learner: str) -> bool:
    """Whether a setting, checked, is one of the learner's, or of what it is made of."""
    candidates = setting.candidates
    ends = () if isinstance(candidates, Choices) else map(candidates.value, (candidates.low, candidates.high))
    values = candidates.values if isinstance(candidates, Choices) else ends
    projects = [_with(spelled, setting, value) for value in values]
    kinds = [(one.learners[learner], one.events.schema) for one in projects]
    return any(kind != kinds[0] for kind in kinds)


def _with(spelled: ProjectFile, setting: Setting, value: Any) -> Project:
    return spelled.with_values({setting.place: value}, "tune").project()


def _described(setting: Setting) -> Candidates:
    candidates = setting.candidates
    if isinstance(candidates, Choices):
        return Candidates(setting.name, setting.declared, list(candidates.values))
    low, high = candidates.value(candidates.low), candidates.value(candidates.high)
    return Candidates(setting.name, setting.declared, None, low, high, candidates.log)


# --- where it goes ------------------------------------------------------------------------------------------


@contextmanager
def _held(out: Path, *, overwrite: bool) -> Generator[None]:
    """Hold the folder of a search: a new one, or one with trials, which ``overwrite`` forgets.

    Raises:
        OutputExistsError: something else is there, or what is there was changed.
        OutputError: it cannot be written.
    """
    if not (out / JOURNAL).is_file():
        check_free(out, "tuning")
    with telling(out):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            check_free(out / RESULT, "tuning", overwrite=True)
            check_free(out / REPLAY, "report", overwrite=True)
            if overwrite:
                (out / JOURNAL).unlink(missing_ok=True)
                for part in (RESULT, REPLAY):
                    shutil.rmtree(out / part, ignore_errors=True)
            yield
