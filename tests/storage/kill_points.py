"""Run one write again and again, each time killed before another one of its system calls.

``python kill_points.py SCENARIO TEMPLATE OUT``: makes ``OUT/1``, ``OUT/2``, ... as copies of the folder
``TEMPLATE``, and writes ``out`` in each by a forked process that dies, as by ``kill -9``, before the n-th call.
Stops when one lives. Nothing but forks happens in this process, so that no thread is lost by them.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import safetensors.numpy
from sample_artifacts import read, write

from acclimate.storage import replacing_folder

__all__ = ["pyarrow", "safetensors"]  # imported before the forks

KILLED = 137


def model(place: Path) -> None:
    kept = read(place).segments["things"] if (place / "manifest.json").exists() else ()
    write(place, note="new", seed=1, segments=kept, overwrite=True)


def report(place: Path) -> None:
    with replacing_folder(place, "report", overwrite=True) as folder:
        (folder / "metrics.json").write_text("new")
        (folder / "report.html").write_text("new")


def dying(write_it: Any, place: Path, count: int) -> None:
    left, around = count, str(place.parent)

    def hook(_: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if arguments and str(arguments[0]).startswith(around):  # a call on the place, or on what is beside it
            left -= 1
            if left == 0:
                os._exit(KILLED)

    sys.addaudithook(hook)
    write_it(place)
    os._exit(0)


def main() -> None:
    write_it, template, out = {"model": model, "report": report}[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    count, status = 0, KILLED
    while status == KILLED:
        count += 1
        shutil.copytree(template, out / str(count))
        child = os.fork()
        if child == 0:
            dying(write_it, out / str(count) / "out", count)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status)


if __name__ == "__main__":
    main()
