"""What a saved model has read: no event is learned twice, and those that came late are counted.

Each fit and update adds a line to the model's history (:class:`acclimate.artifacts.Learned`). An update goes on
where the last one ended; what lies before that is refused, but for rows that came late, which are learned from a
log of their own.
"""

from dataclasses import replace

from acclimate.artifacts import Events, Instant, Learned, Learner
from acclimate.errors import AlreadyLearnedError
from acclimate.times import check_span, utc

_MOST = 1_000
"""Lines that are kept; beyond, the oldest become one, of which the number of rows alone is known."""

_RECENT, _SHOWN = 48, 3
"""The last lines are those that are looked through for late rows; of spans with some the first ones are named."""


def new_events(log: Events, model: Learner, since: Instant | None, until: Instant | None) -> Events:
    """The events after the last one that was learned, or from ``since``, which is later.

    Raises:
        AlreadyLearnedError: some were learned.
        ConfigError: ``since`` is not before ``until``.
    """
    asked = _span(log, since, until)
    known = _time(model.cut)
    if asked.start is not None and asked.start <= model.cut:
        raise AlreadyLearnedError(
            f"events up to {known} were learned already: those from {_time(asked.start)} on would count twice",
            hint="leave --since out to go on after the last one; for rows that came late use --late",
        )
    if asked.end is not None and asked.end <= model.cut + 1:
        raise AlreadyLearnedError(
            f"events up to {known} were learned already, and none before {_time(asked.end)} is new",
            hint="ask for a later --until, or leave it out",
        )
    return asked.after(model.cut + 1)


def late_events(log: Events, model: Learner, since: Instant | None, until: Instant | None) -> Events:
    """The events of a log of late rows alone, up to the last one that was learned.

    Raises:
        AlreadyLearnedError: they, or others of that log, were learned.
        ConfigError: ``since`` is not before ``until``.
    """
    asked = _span(log, since, until).before(model.cut + 1)
    span = asked.describe()
    if span.first is None or span.last is None:
        return asked
    for line in model.history:
        if span.last < utc(_begin(line)) or span.first >= utc(line.end):
            continue
        same = asked if line.late else log.between(_begin(line), line.end)
        if same.fingerprint().overlaps(line.sample):
            raise AlreadyLearnedError(
                f"this log holds events from {_time(_begin(line))} to {_time(line.end)} that were learned already",
                hint="give a log of the late rows alone: --set events.path=late.parquet",
            )
    return asked


def skipped_rows(log: Events, model: Learner, events: Events) -> str:
    """What an update leaves out since it was asked to start later than it could; empty where there is nothing."""
    if events.start is None or events.start <= model.cut + 1:
        return ""
    count = log.between(model.cut + 1, events.start).count()
    return (
        f"{count:,} new events before {_time(events.start)} are skipped, and are not learned later"
        if count
        else ""
    )


def with_line(
    history: tuple[Learned, ...], events: Events, cut: int, *, late: bool = False
) -> tuple[Learned, ...]:
    """The history with a line for these events, as far as they were learned: up to ``cut``."""
    read = events.before(cut + 1).fingerprint()
    return _shortened((*history, Learned(events.start, cut + 1, read.rows, read.total, read.sample, late)))


def late_rows(log: Events, model: Learner) -> str:
    """What an update leaves out: events of the log that came after those of their time were learned.

    Empty where there are none, or where the log no longer holds what was learned.
    """
    lines = [line for line in model.history if not line.late]
    learned_late = sum(line.rows for line in model.history if line.late)
    more = [(line, log.between(_begin(line), line.end).count() - line.rows) for line in lines[-_RECENT:]]
    named = [(line, count) for line, count in more if count > 0]
    extra = sum(count for _, count in named)
    if not extra:
        return ""
    known = f" (of which {learned_late:,} may have been learned by --late)" if learned_late else ""
    spans = [f"{count:,} from {_time(_begin(line))} to {_time(line.end)}" for line, count in named[:_SHOWN]]
    return (
        f"{extra:,} events came after others of their time were learned, and are left out{known}: "
        f"{', '.join(spans)}{', ...' * (len(named) > _SHOWN)}; "
        "to learn them, give a log of them alone and use --late"
    )


def _span(log: Events, since: Instant | None, until: Instant | None) -> Events:
    check_span(since, until, log.schema.time.zone)
    asked = log if since is None else log.after(since)
    return asked if until is None else asked.before(until)


def _shortened(history: tuple[Learned, ...]) -> tuple[Learned, ...]:
    """The oldest two as one where there are too many."""
    if len(history) <= _MOST:
        return history
    first, second, *rest = history
    end = max(first.end, second.end)
    return (replace(first, end=end, rows=first.rows + second.rows, fingerprint="", sample="", late=False), *rest)


def _begin(line: Learned) -> int:
    return 0 if line.start is None else line.start


def _time(microseconds: int | None) -> str:
    return "the first one" if not microseconds else utc(microseconds).isoformat(timespec="seconds")
