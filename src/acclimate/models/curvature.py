"""The gradient of each row's logit, exactly: what diagonal curvatures and linearised variances are made of.

Both curvatures in use are sums over rows of the squared gradient of the logit ``z``: the generalised Gauss-Newton
``sum_i s_i p_i (1 - p_i) (dz_i/dw)^2`` and the empirical Fisher ``sum_i s_i (p_i - y_i)^2 (dz_i/dw)^2``. The
variance of a logit under independent weights of variance ``V`` is ``sum_w V_w (dz_i/dw)^2``, to first order.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from acclimate.models.rankers import RANKERS, Inputs

ByParameter: TypeAlias = dict[str, Tensor]
"""By name of a parameter, a tensor of its shape."""

_ROWS, _CELLS = 2048, 1 << 24
"""Rows at a time, and numbers of gradients that stand in memory at a time where each row has its own."""


class RowGradients(Protocol):
    """Of ``n`` rows: the ``logit`` ``(n,)``, and its gradients with respect to what is read and the parameters."""

    @property
    def logit(self) -> Tensor: ...  # noqa: D102
    @property
    def inputs(self) -> Inputs: ...  # noqa: D102

    def squares(self, scale: Tensor) -> ByParameter:
        """``sum_i scale_i (dz_i/dw)^2``; ``scale`` is ``(n,)``."""
        ...

    def quadratics(self, variance: Mapping[str, Tensor]) -> Tensor:
        """``sum_w variance_w (dz_i/dw)^2``, ``(n,)``."""
        ...

    def products(self, change: Mapping[str, Tensor]) -> Tensor:
        """``sum_w change_w dz_i/dw``, ``(n,)``."""
        ...


def row_gradients(module: nn.Module, inputs: Inputs) -> RowGradients:
    """Of rows, at most :func:`rows_at_a_time`.

    A linear layer that sees each row once has an outer product for a row's gradient, so that no gradient of a row
    is ever formed where all layers are such, as those of the standard rankers. Any other module takes them by
    :mod:`torch.func`.
    """
    return _layered(module, inputs) if _is_layered(module) else _per_row(module, inputs)


def rows_at_a_time(module: nn.Module) -> int:
    """How many rows' gradients fit into memory."""
    count = sum(p.numel() for p in module.parameters())
    return _ROWS if _is_layered(module) else max(1, min(_ROWS, _CELLS // max(count, 1)))


def _is_layered(module: nn.Module) -> bool:
    return type(module) in RANKERS.values()


# --- linear layers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layered:
    """``layers``: of each its name, what it reads ``a`` ``(n, i)`` and what comes back to it ``d`` ``(n, o)``.

    The gradient of its weight in row ``i`` is ``d_i a_i'``, that of its bias ``d_i``.
    """

    logit: Tensor
    inputs: Inputs
    layers: list[tuple[str, nn.Linear, Tensor, Tensor]]

    def squares(self, scale: Tensor) -> ByParameter:
        total: ByParameter = {}
        for name, layer, a, d in self.layers:
            scaled = (scale[:, None] * d.square()).T
            total[f"{name}.weight"] = scaled @ a.square()  # sum_i c_i (d_i a_i')^2 = (c d^2)' (a^2)
            if _has_bias(layer):
                total[f"{name}.bias"] = scaled.sum(1)
        return total

    def quadratics(self, variance: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros_like(self.logit)
        for name, layer, a, d in self.layers:
            total += ((d.square() @ variance[f"{name}.weight"]) * a.square()).sum(1)
            if _has_bias(layer):
                total += d.square() @ variance[f"{name}.bias"]
        return total

    def products(self, change: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros_like(self.logit)
        for name, layer, a, d in self.layers:
            total += ((d @ change[f"{name}.weight"]) * a).sum(1)
            if _has_bias(layer):
                total += d @ change[f"{name}.bias"]
        return total


def _has_bias(layer: nn.Linear) -> bool:
    return "bias" in dict(layer.named_parameters())


def _layered(module: nn.Module, inputs: Inputs) -> _Layered:
    reads = Inputs(*(part.detach().requires_grad_() for part in inputs))
    with torch.enable_grad(), _noted(module) as noted:
        logit = module(reads)
        # A row's logit depends on that row alone: the gradient of their sum holds those of all of them.
        wanted = [*reads, *(out for *_, out in noted)]
        grads = torch.autograd.grad(logit.sum(), wanted, materialize_grads=True)
    backs = grads[len(reads) :]
    layers = [(name, layer, a, d) for (name, layer, a, _), d in zip(noted, backs, strict=True)]
    return _Layered(logit.detach(), Inputs(*grads[: len(reads)]), layers)


@contextmanager
def _noted(module: nn.Module) -> Generator[list[tuple[str, nn.Linear, Tensor, Tensor]]]:
    """What each linear layer reads and gives, as long as this lasts."""
    noted: list[tuple[str, nn.Linear, Tensor, Tensor]] = []

    def note(name: str, layer: nn.Linear) -> Any:
        def hook(_: nn.Module, read: Any, out: Any) -> None:
            noted.append((name, layer, read[0].detach(), out))

        return layer.register_forward_hook(hook)

    handles = [note(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


# --- any module -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PerRow:
    """``gradients``: of each parameter those of all rows, ``(n, ...)``."""

    logit: Tensor
    inputs: Inputs
    gradients: ByParameter

    def squares(self, scale: Tensor) -> ByParameter:
        return {name: torch.tensordot(scale, g.square(), 1) for name, g in self.gradients.items()}

    def quadratics(self, variance: Mapping[str, Tensor]) -> Tensor:
        parts = ((g.square() * variance[name]).flatten(1).sum(1) for name, g in self.gradients.items())
        return sum(parts, torch.zeros_like(self.logit))

    def products(self, change: Mapping[str, Tensor]) -> Tensor:
        parts = ((g * change[name]).flatten(1).sum(1) for name, g in self.gradients.items())
        return sum(parts, torch.zeros_like(self.logit))


def _per_row(module: nn.Module, inputs: Inputs) -> _PerRow:
    def logit(parameters: ByParameter, row: Inputs) -> tuple[Tensor, Tensor]:
        z = functional_call(module, parameters, (Inputs(*(part[None] for part in row)),)).squeeze(0)
        return z, z

    parameters = {name: p.detach() for name, p in module.named_parameters()}
    gradients: Any = vmap(grad(logit, argnums=(0, 1), has_aux=True), in_dims=(None, 0))
    (by_parameter, by_input), z = gradients(parameters, inputs)
    return _PerRow(z, by_input, by_parameter)
