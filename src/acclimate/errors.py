"""Every error that acclimate raises on purpose, as one tree.

::

    AcclimateError                exit  http
    ├── ConfigError                  3   400   the project file, a schema or an argument is wrong
    │   └── MissingExtraError        3   501   an optional dependency is not installed
    ├── DataError                    4   422   the events cannot be learned from as they are
    │   ├── SourceError              4   422   a file is absent, empty, truncated or malformed
    │   ├── ColumnError              4   422   a column is absent or of the wrong type
    │   └── RowError                 4   422   values in some rows are not allowed
    ├── ModelError                   5   409   the model does not fit what is asked of it
    │   ├── NotFittedError           5   409   fit or load comes first
    │   ├── MismatchError            5   409   a saved model of another schema or kind
    │   ├── AlreadyLearnedError      5   409   the model has learned these events
    │   ├── FormatError              5   409   a saved model of another format version, or damaged
    │   ├── SpaceError               5   409   a value, a snapshot or a pin of another space than is asked for
    │   ├── FencedError              5   409   another writer has taken over what this one would write
    │   ├── GateError                5   409   a space that does not pass the gates before its promotion
    │   └── NotConvergedError        7   409   a fit that stopped before its optimum, where that is asked for
    └── OutputError                  6   507   a result cannot be written
        └── OutputExistsError        6   409   the place is taken

A message says what is wrong, where, and how often; ``hint`` says what to do next. Exit codes 0, 1 and 2
are left to success, to bugs and to the command line's own usage errors.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class AcclimateError(Exception):
    """Base of the tree; catch it to catch everything that acclimate raises on purpose."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = one_line(message)
        self.hint = one_line(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(AcclimateError):
    """The project file, a schema or an argument is wrong."""

    exit_code = 3
    http_status = 400


class MissingExtraError(ConfigError):
    """An optional dependency is not installed."""

    http_status = 501


class DataError(AcclimateError):
    """The events cannot be learned from as they are."""

    exit_code = 4
    http_status = 422


class SourceError(DataError):
    """A file is absent, empty, truncated or malformed."""


class ColumnError(DataError):
    """A column is absent or of the wrong type."""


class RowError(DataError):
    """Values in some rows are not allowed; nothing was learned from any of them."""


class ModelError(AcclimateError):
    """The model does not fit what is asked of it."""

    exit_code = 5
    http_status = 409


class NotFittedError(ModelError):
    """The learner has no state yet."""


class MismatchError(ModelError):
    """A saved model belongs to another schema, learner or parameters."""


class AlreadyLearnedError(ModelError):
    """The model has learned these events; they would count twice."""


class FormatError(ModelError):
    """A saved model has another format version, or is damaged."""


class SpaceError(ModelError):
    """A value, a snapshot or a pin belongs to another space than is asked for."""


class FencedError(ModelError):
    """Another writer has taken over; nothing of this one was written."""


class GateError(ModelError):
    """A space does not pass the gates before its promotion."""


class NotConvergedError(ModelError):
    """A fit or an update stopped before its optimum; learners raise it on request only."""

    exit_code = 7


class OutputError(AcclimateError):
    """A result cannot be written; nothing was left under its final name."""

    exit_code = 6
    http_status = 507


class OutputExistsError(OutputError):
    """The place for the result is taken."""

    http_status = 409


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the name that was probably meant, or, unless they are many, the names there are."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there are: {', '.join(known)}" if 0 < len(known) <= 20 else ""


def one_line(text: str) -> str:
    """The text with whatever breaks a line, moves a terminal or cannot be written escaped, as Python does it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str, most: int = 100) -> str:
    """The text, cut in its middle where it has more characters than a message can take."""
    return text if len(text) <= most else f"{text[: most - 20]} … {text[-17:]}"
