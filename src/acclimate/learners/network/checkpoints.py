"""What a training is kept in while it lasts, so that one that was killed goes on where it was."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from acclimate.errors import OutputError, OutputExistsError


@dataclass(frozen=True)
class Checkpoint:
    """One file, replaced every so many steps; it belongs to the training that the ``key`` names alone."""

    path: Path
    key: str
    every: int = 200

    def save(self, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what is there, at once.

        Raises:
            OutputError: the place cannot be written.
        """
        aside = self.path.with_name(f".{self.path.name}.partial")
        metadata = {"key": self.key, "facts": json.dumps(facts)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, aside, metadata)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(self.path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                aside.unlink()
            raise OutputError(f"{self.path}: the checkpoint cannot be written: {error}") from error

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What was saved; nothing where there is none, or that of another training.

        Raises:
            OutputExistsError: what is there is no checkpoint.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                if metadata["key"] != self.key:
                    return None
                return json.loads(metadata["facts"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise OutputExistsError(
                f"{self.path} is no checkpoint, or a damaged one", hint="remove it, or name another place"
            ) from error

    def clear(self) -> None:
        """Remove it: the training has ended."""
        self.path.unlink(missing_ok=True)
