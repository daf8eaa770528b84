"""Streams by their URLs."""

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from acclimate.artifacts import Stream
from acclimate.errors import ConfigError, nearest
from acclimate.events.streams.log import Log
from acclimate.extras import import_module

_SCHEME = re.compile(r"[^/@:]*[:;]?/+")
_SECRET = re.compile(r"([?&;][^=&#]*(?:pass|secret|token|key|credential|jaas|%)[^=&#]*=)[^&#]*", re.IGNORECASE)
_HINT = "write log://folder, redis://host:6379/0?stream=events or kafka://host:9092/events?group=name"


def open_stream(url: str, *, partitions: int | None = None, group: str | None = None) -> Stream:
    """The stream at a URL; what is not said in it may be said beside it.

    - ``log://folder``: the embedded log, made if it is not there.
    - ``redis://user:password@host:6379/0?stream=events``, ``rediss://`` with TLS: Redis Streams. Further
      options are those of redis-py, such as ``ssl_ca_certs``.
    - ``kafka://host:9092,host2:9092/events?group=name``: a topic of Kafka. Further options are those of
      librdkafka, such as ``security.protocol``; a user and a password are for SASL.

    Args:
        url: see there.
        partitions: how many a new stream gets, and one that is there must have. Topics of Kafka are not made here.
        group: of the readers, for those who watch the broker, and with Kafka for the shares that it gives them.

    Raises:
        ConfigError: the URL is not understood, or the stream has another number of partitions.
        MissingExtraError: a client of that broker is not installed.
        SourceError: the stream cannot be reached.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"'{without_password(url)}' is no stream: {error}", hint=_HINT) from error
    if parts.scheme not in _OPENERS:
        hint = nearest(parts.scheme, _OPENERS) if parts.scheme else ""
        raise ConfigError(f"'{without_password(url)}' is no stream", hint=hint or _HINT)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    group = options.pop("group", group)
    if "partitions" in options:
        partitions = _number(options.pop("partitions"))
    return _OPENERS[parts.scheme](parts, options, partitions, group)


def without_password(url: str) -> str:
    """The URL as a message may show it, whether it is one or not: rather too little of it than a secret."""
    before, at, after = url.rpartition("@")
    scheme = _SCHEME.match(before)
    start = scheme.end() if scheme else 0
    user, colon, _ = before[start:].partition(":")
    shown = f"{before[:start]}{user}:***@{after}" if at and colon else url
    shown = _SECRET.sub(r"\1***", shown)
    return re.sub(r"#.*", "#***", shown, flags=re.DOTALL)


def _log(parts: SplitResult, options: dict[str, str], partitions: int | None, _: str | None) -> Stream:
    if options or not parts.netloc + parts.path:
        raise ConfigError(f"'{without_password(parts.geturl())}' is no folder of a log", hint="write log://folder")
    return Log(unquote(parts.netloc + parts.path), partitions)


def _redis(parts: SplitResult, options: dict[str, str], partitions: int | None, group: str | None) -> Stream:
    name = options.pop("stream", "")
    if not name:
        raise ConfigError(f"'{without_password(parts.geturl())}' names no stream", hint="add ?stream=events to it")
    server = parts._replace(query=urlencode(options)).geturl()
    module = import_module("acclimate.events.streams.redis_streams")
    return module.RedisStreams(server, name, partitions=partitions, group=group or "acclimate")


def _kafka(parts: SplitResult, options: dict[str, str], partitions: int | None, group: str | None) -> Stream:
    user, _, brokers = parts.netloc.rpartition("@")
    topic = parts.path.strip("/")
    if not brokers or not topic:
        raise ConfigError(
            f"'{without_password(parts.geturl())}' names no broker or no topic",
            hint="write kafka://host:9092/events",
        )
    if user:
        name, _, password = user.partition(":")
        options = {"sasl.username": unquote(name), "sasl.password": unquote(password)} | options
    module = import_module("acclimate.events.streams.kafka")
    return module.Topic(brokers, topic, partitions=partitions, group=group, settings=options)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"partitions={text} is no number") from error


_OPENERS = {"log": _log, "redis": _redis, "rediss": _redis, "kafka": _kafka}
