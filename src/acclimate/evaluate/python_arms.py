"""Arms of a user's own: made from a Python file, and what goes wrong in that file is said to be of it."""

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acclimate.artifacts import Replayable
from acclimate.errors import AcclimateError, ConfigError, MissingExtraError, ModelError, nearest, shortened

_VERBS = ("fit", "update", "predict")


def file_of(reference: str, folder: Path) -> Path:
    """The file of ``file.py:Name``."""
    return folder / reference.rpartition(":")[0]


def arm_from(reference: str, folder: Path) -> Replayable:
    """The object that ``file.py:Name`` makes.

    Raises:
        ConfigError: there is no such object, it cannot be made, or it is no arm.
    """
    path, name = file_of(reference, folder), reference.rpartition(":")[2]
    spec = importlib.util.spec_from_file_location(str(path), path)
    if not name or spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"'{reference}' names no object in a file", hint=f"write file.py:Name, under {folder}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    with _importing(path):
        spec.loader.exec_module(module)
    made: Any = getattr(module, name, None)
    if made is None:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{path} has no '{name}'", hint=nearest(name, public))
    with _importing(path):
        learner = made() if isinstance(made, type) else made
    _check_verbs(learner, reference)
    return learner


@contextmanager
def blaming(arms: Mapping[Path, str]) -> Generator[None]:
    """What is raised in the file of an arm of one's own, by names, is an error that names both.

    Raises:
        ModelError: an exception has passed through one of the files; what has not is raised as it is.
    """
    try:
        yield
    except AcclimateError:
        raise
    except (Exception, SystemExit) as error:
        place = _place(error, arms)
        if place is None:
            raise
        raise ModelError(f"arm '{arms[place[0]]}': {_described(error, *place)}", hint=_MEND) from error


_MEND = "mend it; its traceback is shown with --debug"


@contextmanager
def _importing(path: Path) -> Generator[None]:
    """Whatever a file of the user's raises as it is run or its object is made."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path} cannot be imported: {error}", hint=f"pip install {error.name}") from error
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"{path} cannot be imported: {error}", hint="install what it needs, or mend it"
        ) from error
    except (Exception, SystemExit) as error:
        place = _place(error, [path]) or (path, None)
        raise ConfigError(_described(error, *place), hint=_MEND) from error


def _place(error: BaseException, files: Iterable[Path]) -> tuple[Path, int | None] | None:
    """The innermost line of one of the files that the exception has passed through."""
    known = {os.path.abspath(path): path for path in files}
    frames = traceback.extract_tb(error.__traceback__)
    passed = [(os.path.abspath(frame.filename), frame.lineno) for frame in frames]
    return next(((known[file], line) for file, line in reversed(passed) if file in known), None)


def _described(error: BaseException, path: Path, line: int | None) -> str:
    where = f"{path}, line {line}" if line else str(path)
    text = shortened(str(error), 500)
    return f"{where}: {type(error).__name__}" + (f": {text}" if text else "")


def _check_verbs(learner: Any, reference: str) -> None:
    for verb in _VERBS:
        method = getattr(learner, verb, None)
        if not callable(method):
            raise ConfigError(f"'{reference}' has no {verb}()", hint="an arm has fit, update and predict")
        try:
            inspect.signature(method).bind(None)
        except TypeError as error:
            what = f"'{reference}': {verb}() cannot be called with the events alone: {error}"
            raise ConfigError(what, hint=f"write {verb}(self, events)") from error
        except ValueError:  # what is not written in Python may have no signature
            continue
