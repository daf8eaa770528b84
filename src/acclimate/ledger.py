"""What a saved model has read: no event is learned twice, and those that came late are counted.

Each fit and update adds a line to the model's history (:class:`acclimate.artifacts.Learned`), one that was undone
too, with the reason. An update goes on
where the last one ended; what lies before that is refused, but for rows that came late, which are learned from a
log of their own.
"""

from acclimate.artifacts import Events, Fingerprint, Instant, Kept, Learned
from acclimate.config import LABEL_KINDS, predicts
from acclimate.errors import AlreadyLearnedError
from acclimate.times import check_span, instant_us, utc

_MOST = 1_000
"""Lines that are kept; beyond, the oldest two become one."""

_RECENT, _SHOWN = 48, 3
"""The last lines are those that are looked through for late rows; of spans with some the first ones are named."""


def new_events(log: Events, model: Kept, since: Instant | None, until: Instant | None) -> Events:
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


def late_events(log: Events, model: Kept, since: Instant | None, until: Instant | None) -> Events:
    """The events of a log of late rows alone, up to the last one that was learned; those after it are not late.

    Raises:
        AlreadyLearnedError: they, or others of that log, were learned.
        ConfigError: ``since`` is not before ``until``.
    """
    asked = _span(log, since, until).before(model.cut + 1)
    span = asked.describe()
    if span.first is None or span.last is None:
        return asked
    for line in _learned(model):
        if span.last < utc(_begin(line)) or span.first >= utc(line.end):
            continue
        same = asked if line.late else log.between(_begin(line), line.end)
        if same.fingerprint(known=_label(log, model)).overlaps(line.sample):
            raise AlreadyLearnedError(
                f"this log holds events from {_time(_begin(line))} to {_time(line.end)} that were learned already",
                hint="give a log of the late rows alone: --set events.path=late.parquet",
            )
    return asked


def left_out(log: Events, model: Kept, events: Events, *, late: bool) -> list[str]:
    """What an update of these events leaves out of the log, in words."""
    said = [_not_late(log, model)] if late else [_late_rows(log, model), _skipped_rows(log, model, events)]
    return [words for words in said if words]


def with_line(
    history: tuple[Learned, ...], model: Kept, events: Events, *, late: bool = False
) -> tuple[Learned, ...]:
    """The history with a line for these events, as far as the model has learned them now."""
    label, start, end = _label(events, model), events.start, model.cut + 1
    read = events.before(end).fingerprint(known=label)
    if late:
        span = events.describe()
        start, end = (end if time is None else instant_us(time) for time in (span.first, span.last))
        end += 1
    return _shortened((*history, Learned(start, end, read.rows, read.total, read.sample, late)))


def with_refusal(
    history: tuple[Learned, ...], model: Kept, events: Events, *, late: bool = False
) -> tuple[Learned, ...]:
    """The history with a line that says why these events were not learned."""
    span, label = events.describe(), _label(events, model)
    start, last = (model.cut if time is None else instant_us(time) for time in (span.first, span.last))
    read = events.fingerprint(known=label)
    line = Learned(start, last + 1, read.rows, read.total, read.sample, late, model.refusal())
    return _shortened((*history, line))


def learnable(events: Events, model: Kept) -> int:
    """How many of these events an update learns from: those whose label is known."""
    return events.count(known=_label(events, model))


def nothing(events: Events) -> str:
    """That none is, in words."""
    since = f" from {_time(events.start)} on" if events.start is not None else ""
    until = f" before {_time(events.end)}" if events.end is not None else ""
    return f"there is no event with a known label{since}{until}"


def _not_late(log: Events, model: Kept) -> str:
    """What an update of late rows leaves out since it comes after the last one learned."""
    count = log.after(model.cut + 1).count()
    return (
        f"{count:,} events after {_time(model.cut)} are not late: update without --late learns them"
        if count
        else ""
    )


def _skipped_rows(log: Events, model: Kept, events: Events) -> str:
    """What an update leaves out since it was asked to start later than it could."""
    if events.start is None or events.start <= model.cut + 1:
        return ""
    count = log.between(model.cut + 1, events.start).count()
    return (
        f"{count:,} new events before {_time(events.start)} are skipped, and are not learned later"
        if count
        else ""
    )


def _late_rows(log: Events, model: Kept) -> str:
    """What an update leaves out: rows that came, or whose label did, after those of their time were learned.

    Empty where there are none, or where the log no longer holds what was learned.
    """
    lines, label = [line for line in _learned(model) if not line.late], _label(log, model)
    learned_late = sum(line.rows for line in _learned(model) if line.late)
    more = [
        (line, log.between(_begin(line), line.end).count(known=label) - line.rows) for line in lines[-_RECENT:]
    ]
    named = [(line, count) for line, count in more if count > 0]
    extra = sum(count for _, count in named)
    if not extra:
        return ""
    known = f" (of which {learned_late:,} may have been learned by --late)" if learned_late else ""
    spans = [f"{count:,} from {_time(_begin(line))} to {_time(line.end)}" for line, count in named[:_SHOWN]]
    return (
        f"{extra:,} events or their labels came after others of their time were learned, and are left out{known}: "
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
    if first.refused or second.refused:  # nothing was learned: the oldest such line goes
        return (*history[:1], *rest) if second.refused and not first.refused else history[1:]
    start = None if first.start is None or second.start is None else min(first.start, second.start)
    read = _fingerprint(first).joined(_fingerprint(second))
    end = max(first.end, second.end)
    return (Learned(start, end, read.rows, read.total, read.sample, late=first.late and second.late), *rest)


def _fingerprint(line: Learned) -> Fingerprint:
    return Fingerprint(line.rows, line.fingerprint, line.sample)


def _learned(model: Kept) -> list[Learned]:
    """The lines of what was read and learned."""
    return [line for line in model.history if not line.refused]


def _label(log: Events, model: Kept) -> str | None:
    """What the model learns: rows on which it is not known were not learned; an encoder learns from all."""
    return log.schema.label(model.parameters.label, kinds=LABEL_KINDS) if predicts(model.parameters) else None


def _begin(line: Learned) -> int:
    return 0 if line.start is None else line.start


def _time(microseconds: int | None) -> str:
    return "the first one" if not microseconds else utc(microseconds).isoformat(timespec="seconds")
