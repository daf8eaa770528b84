"""Work in a process of its own, so that its CPU seconds and its peak memory are its alone."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss``."""


@dataclass(frozen=True)
class Measured:
    """What a process cost as a whole, and what it said last, as JSON."""

    cpu_seconds: float
    peak_bytes: int
    said: dict[str, Any]


def run(module: str, *arguments: object) -> Measured:
    """``python -m module arguments``, which prints one line of JSON.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said}")
    return Measured(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _UNIT, json.loads(said.splitlines()[-1]))


def peak_bytes() -> int:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def tell(**facts: Any) -> None:
    """Say facts to the process that asked."""
    print(json.dumps(facts))
