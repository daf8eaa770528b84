"""A search among settings, trial by trial: tree-structured Parzen estimators, and a median that stops bad trials.

Each setting is drawn where the better trials are dense against the others (Bergstra et al. 2011, Algorithms for
Hyper-Parameter Optimization, section 4). What a trial is judged by while it runs is its mean loss so far minus
that of the declared settings on the same rows, so that an easy day is no merit; it is stopped where the best of
these is above the median of what others had by then.

A trial is drawn by a seed of its own from the finished ones before it, which a journal keeps: a search that goes
on after a kill tries what it would have tried.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from acclimate.artifacts import Trial
from acclimate.config import Choices, Setting
from acclimate.errors import ConfigError, DataError, FormatError, ModelError
from acclimate.evaluate.replay import Losses

Watch: TypeAlias = Callable[[Losses], None]
Measure: TypeAlias = Callable[[int, Mapping[str, Any], Watch], None]
"""Replay one arm with the values of settings, by name, and let each window be watched; told the trial's number."""

_RANDOM = 8
"""Trials drawn at random before any is drawn from others: TPE needs some to tell good from bad."""
_UNSTOPPED, _WARM_UP = 4, 2
"""Trials, and windows of each, before one is stopped."""
_STUDY = "acclimate"


def search(
    settings: Sequence[Setting],
    measure: Measure,
    *,
    trials: int,
    seed: int,
    journal: Path,
    question: Mapping[str, Any],
    root: bool = False,
) -> list[Trial]:
    """Measure the declared settings, then others, until so many were tried; those in the journal count.

    Args:
        settings: what is tuned; where one depends on another, that one comes first.
        measure: replays one arm; a ``ConfigError`` or ``ModelError`` of it is a trial that failed.
        trials: how many, beside the declared settings.
        seed: of all draws.
        journal: file of the trials so far.
        question: what they are an answer to, as JSON holds it.
        root: trials are judged by the root of their mean loss.

    Raises:
        ConfigError: the journal answers another question.
        DataError: no row has a label.
        FormatError: the file is no such journal.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _opened(journal, question)
    if not _finished(study):
        study.add_trial(_declared(settings, measure, root=root))
    base = _levels(_finished(study)[0], root=root)
    while (count := len(finished := _finished(study))) <= trials:
        chosen_by = int(np.random.SeedSequence([seed, count]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=chosen_by, n_startup_trials=_RANDOM)
        _try(study, settings, measure, finished, watched=partial(_Watched, base, root=root))
    return [_told(number, trial, settings) for number, trial in enumerate(_finished(study)[: trials + 1])]


# --- the journal --------------------------------------------------------------------------------------------


def _opened(journal: Path, question: Mapping[str, Any]) -> optuna.Study:
    """The study in a journal, or a new one; what a killed process had begun is given up."""
    asked = json.loads(json.dumps(question))
    _cut_torn_line(journal)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNSTOPPED, n_warmup_steps=_WARM_UP)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(study_name=_STUDY, storage=storage, pruner=pruner, load_if_exists=True)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{journal} is no journal of trials: {error}", hint="start anew elsewhere") from error
    known = study.user_attrs.get("question", asked)
    if different := [key for key in {**asked, **known} if asked.get(key) != known.get(key)]:
        raise ConfigError(
            f"{journal} has trials of another search: different are {', '.join(different)}",
            hint="choose another place, or start anew with --overwrite",
        )
    study.set_user_attr("question", asked)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _cut_torn_line(journal: Path) -> None:
    """Leave out what a kill has left of the last line: the next one would be written behind it."""
    content = journal.read_bytes() if journal.exists() else b""
    if content.startswith(b'{"op_code"') and not content.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """All but those that a killed process had begun, in the order of their beginning."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.get_trials(deepcopy=False) if t.state in done or "error" in t.user_attrs]


def _told(number: int, trial: FrozenTrial, settings: Sequence[Setting]) -> Trial:
    states: dict[TrialState, Any] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}
    return Trial(
        number,
        {s.name: _value(s, trial.params[s.name]) for s in settings if number and s.name in trial.params},
        states.get(trial.state, "failed"),
        trial.value if trial.state == TrialState.COMPLETE else None,
        list(trial.user_attrs.get("differences", [])),
        float(trial.user_attrs["seconds"]),
        str(trial.user_attrs.get("error", "")),
    )


# --- one trial ----------------------------------------------------------------------------------------------


class _Stopped(Exception):  # noqa: N818 - never leaves this module
    """A trial that is not worth going on."""


@dataclass
class _Watched:
    """The windows of a replay so far: summed losses and weights, and how far the mean is from another one."""

    base: Sequence[float | None]
    stop: Callable[[int, float], bool]
    root: bool
    sums: list[float] = field(default_factory=list[float])
    weights: list[float] = field(default_factory=list[float])
    differences: list[float | None] = field(default_factory=list[float | None])

    def __call__(self, losses: Losses) -> None:
        """Note a window.

        Raises:
            _Stopped: so it is decided, before the last one.
        """
        self.sums.append(sum(losses.sums.values()))
        self.weights.append(losses.weight)
        level, base = self.level, self.base[losses.window - 1] if self.base else self.level
        difference = None if level is None or base is None else level - base
        self.differences.append(difference)
        if difference is not None and self.stop(losses.window, difference) and losses.window < len(self.base):
            raise _Stopped

    @property
    def level(self) -> float | None:
        """The mean loss so far, or its root."""
        return _level(sum(self.sums), sum(self.weights), root=self.root)


def _level(total: float, weight: float, *, root: bool) -> float | None:
    mean = total / weight if weight else None
    return math.sqrt(mean) if root and mean is not None else mean


def _declared(settings: Sequence[Setting], measure: Measure, *, root: bool) -> FrozenTrial:
    """The declared settings, measured; others are drawn from them as far as they are among the candidates."""
    watched, began = _Watched([], _never, root=root), time.perf_counter()
    measure(0, {}, watched)
    if watched.level is None:
        raise DataError("no row of the days to validate on has a label", hint="choose other days")
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for setting in settings:
        if _counts(setting, values):
            values[setting.name] = setting.declared
            if (param := _param(setting)) is not None:
                params[setting.name] = param
    return create_trial(
        value=watched.level,
        params=params,
        distributions={s.name: _distribution(s) for s in settings if s.name in params},
        intermediate_values=dict.fromkeys(range(1, len(watched.sums) + 1), 0.0),
        user_attrs={
            "sums": watched.sums,
            "weights": watched.weights,
            "differences": watched.differences,
            "seconds": time.perf_counter() - began,
        },
    )


def _never(_window: int, _difference: float) -> bool:
    return False


def _levels(declared: FrozenTrial, *, root: bool) -> list[float | None]:
    """Its mean loss up to each window, or the root of that."""
    sums, weights = (accumulate(declared.user_attrs[key]) for key in ("sums", "weights"))
    return [_level(total, weight, root=root) for total, weight in zip(sums, weights, strict=True)]


def _try(
    study: optuna.Study,
    settings: Sequence[Setting],
    measure: Measure,
    finished: Sequence[FrozenTrial],
    *,
    watched: Callable[[Callable[[int, float], bool]], "_Watched"],
) -> None:
    """Draw settings and measure them; what was drawn before is not measured again."""
    trial, began = study.ask(), time.perf_counter()
    values: dict[str, Any] = {}
    for setting in settings:
        if _counts(setting, values):
            values[setting.name] = _drawn(trial, setting)
    if same := [known for known in finished if known.params == trial.params]:
        _repeat(study, trial, same[0])
        return

    def stop(window: int, difference: float) -> bool:
        trial.report(difference, window)
        return trial.should_prune()

    seen = watched(stop)
    state, error = TrialState.COMPLETE, ""
    try:
        measure(len(finished), values, seen)
    except _Stopped:
        state = TrialState.PRUNED
    except (ConfigError, ModelError) as raised:
        state, error = TrialState.FAIL, str(raised)
    trial.set_user_attr("differences", seen.differences)
    trial.set_user_attr("seconds", time.perf_counter() - began)
    if state == TrialState.FAIL:
        trial.set_user_attr("error", error)
    study.tell(trial, seen.level if state == TrialState.COMPLETE else None, state)


def _repeat(study: optuna.Study, trial: optuna.Trial, known: FrozenTrial) -> None:
    """Tell of a trial what is known of an equal one."""
    for window, difference in known.intermediate_values.items():
        trial.report(difference, window)
    for key, value in {**known.user_attrs, "seconds": 0.0}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, known.value if known.state == TrialState.COMPLETE else None, known.state)


# --- settings as parameters ---------------------------------------------------------------------------------


def _counts(setting: Setting, values: Mapping[str, Any]) -> bool:
    """Whether a setting means something beside these values of earlier ones."""
    if setting.only_if is None:
        return True
    place, value = setting.only_if
    return values[".".join(place)] == value


def _drawn(trial: optuna.Trial, setting: Setting) -> Any:
    candidates, name = setting.candidates, setting.name
    if isinstance(candidates, Choices):
        return _value(setting, trial.suggest_categorical(name, _texts(candidates)))
    low, high = candidates.low, candidates.high
    if candidates.whole:
        return _value(setting, trial.suggest_int(name, int(low), int(high), log=candidates.log))
    return _value(setting, trial.suggest_float(name, low, high, log=candidates.log))


def _distribution(setting: Setting) -> BaseDistribution:
    candidates = setting.candidates
    if isinstance(candidates, Choices):
        return CategoricalDistribution(_texts(candidates))
    if candidates.whole:
        return IntDistribution(int(candidates.low), int(candidates.high), log=candidates.log)
    return FloatDistribution(candidates.low, candidates.high, log=candidates.log)


def _param(setting: Setting) -> Any:
    """The declared value as a parameter; none where it is not among the candidates."""
    candidates, declared = setting.candidates, setting.declared
    if isinstance(candidates, Choices):
        return next((_text(value) for value in candidates.values if value == declared), None)
    number = candidates.number(declared)
    return None if number is None else int(number) if candidates.whole else number


def _value(setting: Setting, param: Any) -> Any:
    """What stands in the project file for a parameter."""
    candidates = setting.candidates
    if isinstance(candidates, Choices):
        return candidates.values[_texts(candidates).index(param)]
    return candidates.value(param)


def _texts(choices: Choices) -> list[str]:
    return [_text(value) for value in choices.values]


def _text(value: Any) -> str:
    return json.dumps(value, default=str)
