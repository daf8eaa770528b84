"""The standard rankers against their formulas, written out."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.errors import ConfigError
from acclimate.models.rankers import (
    DCN,
    RANKERS,
    DeepFM,
    Inputs,
    Logistic,
    Ranker,
    Sizes,
    WideAndDeep,
    make_ranker,
)
from own_ranker import Own

SIZES = Sizes(dense=3, fields=4, embedding=5, hidden=(7, 6))


def inputs(rows: int = 9, seed: int = 0) -> Inputs:
    chance = torch.Generator().manual_seed(seed)
    shapes = ((rows, 3), (rows, 4), (rows, 4, 5))
    return Inputs(*(torch.randn(shape, generator=chance) for shape in shapes))


@pytest.mark.parametrize("name", RANKERS)
def test_a_ranker_gives_a_logit_per_row_of_that_row_alone(name: str) -> None:
    ranker, x = make_ranker(name, SIZES, 0), inputs()
    z = ranker(x)
    assert z.shape == (9,)
    alone = torch.cat([ranker(Inputs(*(part[i : i + 1] for part in x))) for i in range(9)])
    torch.testing.assert_close(alone, z, atol=1e-5, rtol=0)
    assert isinstance(ranker, Ranker)
    torch.testing.assert_close(ranker.head(ranker.hidden(x)).squeeze(1) + ranker.shallow(x), z)
    assert ranker.head.in_features == ranker.hidden(x).shape[1]


@pytest.mark.parametrize("name", RANKERS)
def test_every_weight_has_a_part_in_the_logit(name: str) -> None:
    ranker = make_ranker(name, SIZES, 0)
    for weight in ranker.parameters():
        weight.data.add_(0.1)
    ranker(inputs()).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in ranker.parameters())


def test_logistic_regression() -> None:
    ranker, x = Logistic(SIZES), inputs()
    torch.testing.assert_close(ranker(x), x.wide.sum(1) + ranker.head.bias)
    ranker.head.weight.data = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(
        ranker(x), x.wide.sum(1) + x.dense @ torch.tensor([1.0, 2.0, 3.0]) + ranker.head.bias
    )


def test_a_factorisation_machine_is_all_pairs() -> None:
    ranker, x = make_ranker("deepfm", SIZES, 1), inputs()
    assert isinstance(ranker, DeepFM)
    # The numbers have one vector together, which is paired with the others but not with itself.
    vectors = [*x.embedded.unbind(1)]
    dense = ranker.embed(x.dense)
    pairs = sum((a * b).sum(1) for a, b in itertools.combinations([*vectors, dense], 2))
    extra = ranker.shallow(x) - WideAndDeep.shallow(ranker, x)
    torch.testing.assert_close(extra, torch.as_tensor(pairs), atol=1e-5, rtol=1e-5)


def test_cross_layers() -> None:
    ranker, x = make_ranker("dcn-v2", Sizes(3, 4, 5, hidden=(), crosses=2), 2), inputs()
    assert isinstance(ranker, DCN)
    first = np.hstack([x.embedded.flatten(1).numpy(), x.dense.numpy()])
    last = first
    for cross in ranker.crosses:
        assert isinstance(cross, nn.Linear)
        last = first * (last @ cross.weight.detach().numpy().T + cross.bias.detach().numpy()) + last
    np.testing.assert_allclose(ranker.hidden(x).detach().numpy(), last, rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_the_seed_and_leave_other_chance_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, same, other = (make_ranker("mlp", SIZES, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [torch.cat([w.flatten() for w in ranker.parameters()]) for ranker in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_ranker_by_its_path() -> None:
    assert isinstance(make_ranker("own_ranker:Own", SIZES, 0), Own)


class Normed(nn.Module):
    """Has statistics that no gradient learns."""

    def __init__(self, _: Sizes) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)


class Texts:
    """Is no module."""

    def __init__(self, _: Sizes) -> None:
        pass


class Column(nn.Module):
    """Gives a column."""

    def __init__(self, _: Sizes) -> None:
        super().__init__()

    def forward(self, x: Inputs) -> torch.Tensor:
        return x.wide.sum(1, keepdim=True)


def test_a_ranker_that_cannot_be_learned_is_told() -> None:
    for name, message in (
        (f"{__name__}:Normed", r"has buffers \(norm\.running_mean\)"),
        (f"{__name__}:Column", r"gives logits of shape \(2, 1\)"),
        ("math:sqrt", "is no class"),
        (f"{__name__}:Texts", "makes a Texts, not a torch.nn.Module"),
        (":Net", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_ranker(name, SIZES, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deep-fm", "no ranker 'deep-fm' .did you mean 'deepfm'"),
        ("nowhere:Net", "ranker 'nowhere:Net' cannot be imported: No module named 'nowhere'"),
        (f"{__name__}:Absent", "cannot be imported: .*Absent"),
    ],
)
def test_a_ranker_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_ranker(name, SIZES, 0)
