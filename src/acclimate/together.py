"""Several processes that run the same command together, as torchrun starts them: all learn, the first one writes.

Nothing here loads torch unless there is more than one of them, which only torch can have started.
"""

import atexit
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from acclimate.extras import import_module


def processes() -> tuple[int, int]:
    """The number of this process and how many there are: those of torchrun, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return 0, 1
    torch: Any = import_module("torch")
    group: Any = import_module("torch.distributed")
    if not group.is_initialized():
        group.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return group.get_rank(), group.get_world_size()


def wait_for_all() -> None:
    """Go on when all have come as far."""
    if processes()[1] > 1:
        group: Any = import_module("torch.distributed")
        group.barrier()


@contextmanager
def first_of_all() -> Generator[bool]:
    """Whether this is the first process: it begins when all are here, and the others go on when it is done."""
    wait_for_all()
    try:
        yield processes()[0] == 0
    finally:
        wait_for_all()


def _leave() -> None:
    group: Any = import_module("torch.distributed")
    if group.is_initialized():
        group.destroy_process_group()
