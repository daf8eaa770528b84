"""What a stream logs: one JSON object a line on standard error, for machines that collect them."""

import sys
from typing import Any

import structlog


def logger(**facts: Any) -> Any:
    """A logger whose lines all carry these facts."""
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ]
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=processors).bind(**facts)
