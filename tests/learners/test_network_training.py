"""The loop on problems whose answers are known: where it ends, when it stops, and that a killed one goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_networks import day, net
from torch import Tensor

from acclimate import progress
from acclimate.config import Training
from acclimate.errors import ConfigError, ModelError, OutputError, OutputExistsError
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.learners.network.training import Trained, device_of, train


@dataclass
class Regression:
    """``sum_i (x_i . w - y_i)^2``, with dropout if asked, judged by what the test says."""

    x: Tensor
    y: Tensor
    verdicts: list[float] = field(default_factory=list[float])
    dropout: float = 0.0
    w: Tensor = field(default_factory=lambda: torch.zeros(3, requires_grad=True))
    seen: list[int] = field(default_factory=list[int])

    @property
    def rows(self) -> int:
        return len(self.x)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return {"w": self.w}

    def loss(self, rows: Tensor, batch: int) -> Tensor:
        self.seen += rows.tolist()
        x = torch.nn.functional.dropout(self.x[rows], self.dropout)
        return (x @ self.w - self.y[rows]).square().sum() / batch

    def judged(self) -> float | None:
        return self.verdicts.pop(0) if self.verdicts else None


def regression(**settings: Any) -> Regression:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=chance)
    return Regression(x, x @ torch.tensor([1.0, -2.0, 0.5]), **settings)


def run(problem: Any, *, epochs: int = 60, rate: float = 0.1, seed: int = 1, **kept: Any) -> Trained:
    return train(problem, Training(batch=16, patience=2), epochs=epochs, rate=rate, seed=seed, **kept)


def test_it_arrives() -> None:
    problem = regression()
    done = run(problem)
    assert done == Trained(steps=60 * 4, judgements=())
    torch.testing.assert_close(problem.w.detach(), torch.tensor([1.0, -2.0, 0.5]), atol=1e-3, rtol=0)


def test_each_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    problem = regression()
    run(problem, epochs=3)
    epochs = [problem.seen[i : i + 50] for i in range(0, 150, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_it_stops_where_it_no_longer_improves_and_keeps_the_best() -> None:
    problem = regression(verdicts=[5.0, 3.0, 4.0, 3.5, 1.0])
    done = run(problem)
    assert done.judgements == (5.0, 3.0, 4.0, 3.5)  # two without gain
    two = regression(verdicts=[5.0, 3.0, 4.0, 3.5])
    whole = train(two, Training(batch=16, patience=2), epochs=60, rate=0.1, seed=1)
    assert whole == done
    assert torch.equal(problem.w, two.w)
    best = regression()
    # The best was after the second epoch: eight steps of the same run, whose rates fall over sixty epochs.
    with pytest.raises(KilledError), progress.watched(stop_after(8)):
        run(best)
    assert torch.equal(best.w, problem.w)


class KilledError(Exception):
    """Stands for a kill."""


def stop_after(steps: int) -> progress.Watcher:
    def watch(done: int, _: int) -> None:
        if done == steps:
            raise KilledError

    return watch


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 7, 8, 11, 12])
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(tmp_path: Path, steps: int) -> None:
    verdicts = [3.0, 2.0, 2.5]
    uninterrupted = regression(dropout=0.3, verdicts=verdicts.copy())
    done = run(uninterrupted, epochs=3)
    place = Checkpoint(tmp_path / "kept", "mine", every=2)
    with pytest.raises(KilledError), progress.watched(stop_after(steps)):
        run(regression(dropout=0.3, verdicts=verdicts.copy()), epochs=3, checkpoint=place)
    kept = (
        steps // 2 * 2 if steps % 2 or steps not in (2, 4, 8, 12) else steps - 2
    )  # the step itself is not kept yet
    left = verdicts[kept // 4 :]
    resumed = regression(dropout=0.3, verdicts=left)
    assert run(resumed, epochs=3, checkpoint=place) == done
    assert torch.equal(resumed.w, uninterrupted.w)
    assert len(resumed.seen) == 3 * 50 - sum([16, 16, 16, 2][i % 4] for i in range(kept))


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_no_start(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    run(regression(), epochs=2, checkpoint=Checkpoint(place, "mine", every=1))
    assert Checkpoint(place, "mine").load() is not None
    assert Checkpoint(place, "theirs").load() is None
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(OutputExistsError, match="is no checkpoint, or a damaged one"):
        Checkpoint(place, "mine").load()
    place.write_text("precious")
    with pytest.raises(OutputExistsError, match="is no checkpoint"):
        run(regression(), checkpoint=Checkpoint(place, "mine"))
    assert place.read_text() == "precious"
    Checkpoint(place, "mine").clear()
    assert Checkpoint(place, "mine").load() is None
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the checkpoint cannot be written"):
        run(regression(), checkpoint=Checkpoint(tmp_path / "file" / "kept", "mine", every=1))


def test_other_devices_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.manual_seed`` would seed all of CUDA, and nothing would set it back."""
    seeded: list[object] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    net(dropout=0.2).fit(day(0)).update(day(1)).predict(day(2), mode="thompson")
    assert seeded == []


def test_chance_elsewhere_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run(regression(dropout=0.5), epochs=2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("x", "what"), [(float("nan"), "loss is nan"), (1e30, "loss is (inf|1e\\+60)")])
def test_a_loss_that_is_not_finite_stops_it(x: float, what: str) -> None:
    problem = regression()
    problem.x[20] = x
    problem.y[20] = x
    problem.w.data += 1.0
    with pytest.raises(ModelError, match=rf"training stopped at step \d: the {what}") as caught:
        run(problem)
    assert "rate" in caught.value.hint


def test_a_loss_that_runs_away_stops_it() -> None:
    problem = regression()
    with pytest.raises(ModelError, match=r"training stopped at step \d+: the loss is .* \(at first "):
        run(problem, rate=50.0)


def test_how_far_it_is_is_told() -> None:
    told: list[tuple[int, int]] = []
    with progress.watched(lambda done, most: told.append((done, most))):
        run(regression(), epochs=2)
    run(regression(), epochs=2)
    assert told == [(step, 8) for step in range(1, 9)]


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Training()).type == device_of(Training(device="cpu")).type == "cpu"
    with pytest.raises(ConfigError, match="no CUDA device"):
        device_of(Training(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of(Training()) == torch.device("cuda", 3)
    assert device_of(Training(device="cpu")).type == "cpu"
