"""The one loop that trains networks: batches, Adam, early stopping, checkpoints, several processes.

A learner brings a :class:`Problem`; the loop knows nothing of what it learns. Plain torch, since an update of a
few batches must cost no more than these, and a run that was killed goes on from its last step, not its last epoch.
"""

import math
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from acclimate import progress
from acclimate.config import Training
from acclimate.errors import ConfigError, ModelError
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.together import processes

_SPIKE = 10.0
"""A loss, averaged over the last batches, of so many times that of the first one, and a nat more, has run away."""

_RECENT = 0.05
"""Weight of a batch in that average: one of a few heavy rows is no reason to stop."""


class Problem(Protocol):
    """What is minimised: a sum over ``rows`` rows, plus what is of none, by leaf tensors ``weights``."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def weights(self) -> Mapping[str, Tensor]: ...  # noqa: D102

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        """What ``rows``, part of a batch of so many, say of the whole loss, per row: their sum over parts does."""
        ...

    def judged(self) -> float | None:
        """The loss of rows that are not learned from; ``None`` without."""
        ...


@dataclass(frozen=True)
class Trained:
    """How a training went: ``steps`` taken, and what the rows held out said after each epoch."""

    steps: int = 0
    judgements: tuple[float, ...] = ()

    @property
    def best(self) -> int:
        """How many epochs it took to the best judgement; 0 without any."""
        return 1 + min(range(len(self.judgements)), key=self.judgements.__getitem__, default=-1)

    def stale(self, patience: int) -> bool:
        """Whether the last epochs, so many, were no better than one before."""
        return len(self.judgements) - self.best >= patience


def train(
    problem: Problem,
    settings: Training,
    *,
    epochs: int,
    rate: float,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Minimise, in place; where rows are held out, the weights of the best epoch are those that stay.

    Args:
        problem: what is minimised.
        settings: how.
        epochs: passes over the rows, at most.
        rate: of Adam, at first.
        seed: of the order of rows and of dropout.
        checkpoint: where the training is kept, and goes on from.

    Raises:
        ModelError: a loss or a gradient is not finite, or the loss has run away; the weights are useless.
    """
    with seeded(seed, device_of(settings)):
        loop = _Loop(problem, settings, epochs, rate, seed)
        if checkpoint is not None:
            loop.resume(checkpoint)
        while loop.goes_on():
            for batch in loop.batches():
                loop.take_step(batch)
                progress.tell(loop.done.steps, loop.most)
                if loop.done.steps % loop.per_epoch == 0:
                    loop.judge()
                if checkpoint is not None and (loop.done.steps % checkpoint.every == 0 or not loop.goes_on()):
                    loop.keep(checkpoint)
        loop.finish()
        return loop.done


class _Loop:
    def __init__(self, problem: Problem, settings: Training, epochs: int, rate: float, seed: int) -> None:
        self.problem, self.settings, self.rate, self.seed = problem, settings, rate, seed
        self.per_epoch = math.ceil(problem.rows / settings.batch)
        self.most = epochs * self.per_epoch
        self.done = Trained()
        self.first_loss = self.recent_loss = math.nan
        self.best: dict[str, Tensor] = {}
        self.rank, self.world = processes()
        self.device = device_of(settings)
        self.adam = torch.optim.Adam(list(problem.weights.values()), lr=rate, fused=True)

    # --- the steps --------------------------------------------------------------------------------------------

    def goes_on(self) -> bool:
        return self.done.steps < self.most and not self.done.stale(self.settings.patience)

    def batches(self) -> Iterator[Tensor]:
        """Those that are left of the epoch."""
        epoch, taken = divmod(self.done.steps, self.per_epoch)
        chance = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(self.problem.rows, generator=chance)
        yield from order.split(self.settings.batch)[taken:]

    def take_step(self, batch: Tensor) -> None:
        for group in self.adam.param_groups:  # half a cosine, from the rate to nothing
            group["lr"] = self.rate * 0.5 * (1.0 + math.cos(math.pi * self.done.steps / self.most))
        self.adam.zero_grad()
        with autocast(self.settings):
            loss = self.problem.loss(batch[self.rank :: self.world], len(batch))
        loss.backward()
        self._check(self._added_up(loss.detach()))
        self.adam.step()
        self.done = replace(self.done, steps=self.done.steps + 1)

    def _added_up(self, loss: Tensor) -> float:
        """The loss of the whole batch; gradients are added up over processes too."""
        if self.world > 1:
            distributed.all_reduce(loss)
            for weight in self.problem.weights.values():
                distributed.all_reduce(weight.grad)
        return float(loss)

    def _check(self, loss: float) -> None:
        """Raises ModelError where the loss or a gradient is out of hand."""
        norms = [w.grad.norm() for w in self.problem.weights.values() if w.grad is not None]
        norm = float(torch.stack(norms).norm())
        if math.isnan(self.first_loss):
            self.first_loss = self.recent_loss = loss
        self.recent_loss += _RECENT * (loss - self.recent_loss)
        if math.isfinite(loss) and math.isfinite(norm) and self.recent_loss < _SPIKE * abs(self.first_loss) + 1.0:
            return
        raise ModelError(
            f"training stopped at step {self.done.steps + 1}: the loss is {loss:g} (at first "
            f"{self.first_loss:g}), the gradient's norm {norm:g}; nothing was changed",
            hint="lower the rate, or look for extreme features, weights and offsets",
        )

    def judge(self) -> None:
        judged = self.problem.judged()
        if judged is None:
            return
        if judged < min(self.done.judgements, default=math.inf):
            self.best = {name: weight.detach().clone() for name, weight in self.problem.weights.items()}
        self.done = replace(self.done, judgements=(*self.done.judgements, judged))

    def finish(self) -> None:
        with torch.no_grad():
            for name, weight in self.best.items():
                self.problem.weights[name].copy_(weight)

    # --- killed, and gone on with -----------------------------------------------------------------------------

    def keep(self, checkpoint: Checkpoint) -> None:
        if self.rank > 0:
            return
        tensors = {f"weight/{name}": weight.detach() for name, weight in self.problem.weights.items()}
        tensors |= {f"best/{name}": weight for name, weight in self.best.items()}
        for number, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value for name, value in state.items()}
        tensors |= {f"random/{name}": state for name, state in self._chance().items()}
        facts = {
            "losses": [self.first_loss, self.recent_loss],
            "steps": self.done.steps,
            "judgements": self.done.judgements,
        }
        checkpoint.save(facts, tensors)

    def _chance(self) -> dict[str, Tensor]:
        """The states of all generators that dropout may draw from."""
        states = {"cpu": torch.random.get_rng_state()}
        return states | ({"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})

    def resume(self, checkpoint: Checkpoint) -> None:
        kept = checkpoint.load()
        if kept is None:
            return
        facts, tensors = kept
        with torch.no_grad():
            for name, weight in self.problem.weights.items():
                weight.copy_(tensors[f"weight/{name}"])
        self.best = {name.removeprefix("best/"): t for name, t in tensors.items() if name.startswith("best/")}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam/"):
                _, number, key = name.split("/")
                state.setdefault(int(number), {})[key] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})
        torch.random.set_rng_state(tensors["random/cpu"])
        if self.device.type == "cuda" and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
        self.first_loss, self.recent_loss = facts["losses"]
        self.done = Trained(facts["steps"], tuple(facts["judgements"]))


# --- where -------------------------------------------------------------------------------------------------------


def device_of(settings: Training) -> torch.device:
    """Where to compute.

    Raises:
        ConfigError: a CUDA device is asked for, and there is none.
    """
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise ConfigError("device cuda: there is no CUDA device", hint="use device: auto")
    if settings.device == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Chance by a seed, on the CPU and this device; what was drawn from before goes on where it was.

    ``torch.manual_seed`` would seed all CUDA devices, whoever draws from them.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def autocast(settings: Training) -> AbstractContextManager[Any]:
    """Mixed precision, where it is asked for and computed."""
    if settings.mixed_precision and device_of(settings).type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
