"""Gradients of rows against a plain loop over the rows."""

import pytest
import torch
from test_rankers import inputs
from torch import nn

from acclimate.models.curvature import _per_row, row_gradients, rows_at_a_time
from acclimate.models.rankers import RANKERS, Inputs, Sizes, make_ranker
from own_ranker import Own

SIZES = Sizes(dense=3, fields=4, embedding=5, hidden=(7, 6))
NAMES = [*RANKERS, "own_ranker:Own"]


def module_and_rows(name: str) -> tuple[nn.Module, Inputs]:
    module = make_ranker(name, SIZES, 0).double()
    for number, weight in enumerate(module.parameters()):  # some start at nothing, which would hide a mistake
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    return module, Inputs(*(part.double() for part in inputs(rows=30)))


def by_a_loop(module: nn.Module, x: Inputs) -> list[tuple[dict[str, torch.Tensor], Inputs]]:
    """Of each row, the gradients of its logit with respect to all parameters and to what is read."""
    rows = []
    for i in range(len(x.dense)):
        row = Inputs(*(part[i : i + 1].clone().requires_grad_() for part in x))
        wanted = [*module.parameters(), *row]
        grads = torch.autograd.grad(module(row).sum(), wanted, materialize_grads=True)
        names = [name for name, _ in module.named_parameters()]
        rows.append((dict(zip(names, grads, strict=False)), Inputs(*(g[0] for g in grads[len(names) :]))))
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_squares_and_quadratics_of_all_rows_are_those_of_a_loop(name: str) -> None:
    module, x = module_and_rows(name)
    gradients, rows = row_gradients(module, x), by_a_loop(module, x)
    scale = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    squares = gradients.squares(scale)
    variance = {
        n: torch.rand(p.shape, generator=torch.Generator().manual_seed(2)).double() for n, p in squares.items()
    }
    torch.testing.assert_close(gradients.logit, module(x).detach())
    assert squares.keys() == dict(module.named_parameters()).keys()
    for parameter, square in squares.items():
        expected = sum(c * row[parameter].square() for c, (row, _) in zip(scale, rows, strict=True))
        torch.testing.assert_close(square, torch.as_tensor(expected), rtol=1e-9, atol=1e-12)
    quadratics = torch.stack([sum((variance[n] * g.square()).sum() for n, g in row.items()) for row, _ in rows])  # type: ignore[arg-type]
    torch.testing.assert_close(gradients.quadratics(variance), quadratics, rtol=1e-9, atol=1e-12)
    change = {n: v - 0.5 for n, v in variance.items()}
    products = torch.stack([sum((change[n] * g).sum() for n, g in row.items()) for row, _ in rows])  # type: ignore[arg-type]
    torch.testing.assert_close(gradients.products(change), products, rtol=1e-9, atol=1e-12)
    for part, of_rows in zip(gradients.inputs, zip(*(read for _, read in rows), strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(of_rows), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RANKERS)
def test_layers_and_gradients_of_single_rows_agree(name: str) -> None:
    module, x = module_and_rows(name)
    scale = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    fast, slow = row_gradients(module, x).squares(scale), _per_row(module, x).squares(scale)
    assert type(row_gradients(module, x)) is not type(_per_row(module, x))
    for parameter in fast:
        torch.testing.assert_close(fast[parameter], slow[parameter], rtol=1e-9, atol=1e-12)


def test_rows_at_a_time_are_fewer_where_each_has_its_own_gradient() -> None:
    wide = Own(Sizes(dense=0, fields=200_000, embedding=4))
    assert rows_at_a_time(wide) < 100
    assert rows_at_a_time(make_ranker("mlp", SIZES, 0)) > 1000
