"""A denoising autoencoder over groups of columns that may be absent (Fazelnia et al., arXiv 2403.00584)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Columns(NamedTuple):
    """Columns ``begin:end`` that are there where column ``presence`` is 1; ``names`` are shares of names."""

    begin: int
    end: int
    presence: int
    names: bool


class Corruption(NamedTuple):
    """What training does to its inputs: noise on numbers, shares of columns and of groups that are hidden."""

    noise: float
    masked: float
    group_dropout: float


class Autoencoder(nn.Module):
    """An encoder per group, their fusion to one vector, and a decoder per group; inputs are standardised.

    ``edges``: the columns of each of ``G`` groups; ``code`` ``c``: width of what a group is encoded to; ``hidden``
    ``h``: between the codes and the vector of ``size`` ``s``.
    """

    presence: Tensor
    weight: Tensor
    flags: Tensor

    def __init__(
        self,
        edges: Sequence[tuple[int, int]],
        blocks: Sequence[Columns],
        code: int,
        hidden: int,
        size: int,
        *,
        normalised: bool,
    ) -> None:
        super().__init__()
        self.edges, self.blocks, self.normalised = list(edges), list(blocks), normalised
        widths = [last - first for first, last in edges]
        self.codes = nn.ModuleList(nn.Linear(width, code) for width in widths)
        self.fusion = nn.Linear(code * len(widths), hidden)
        self.vector = nn.Linear(hidden, size)
        self.inner = nn.ModuleList(nn.Linear(size, code) for _ in widths)
        self.outer = nn.ModuleList(nn.Linear(code, width) for width in widths)
        presence, weight = torch.zeros(edges[-1][1], dtype=torch.long), torch.zeros(edges[-1][1])
        for block in blocks:
            presence[block.begin : block.end] = block.presence
            if not block.names:
                weight[block.begin : block.end] = 1.0 / (block.end - block.begin)
        self.register_buffer("presence", presence)
        self.register_buffer("weight", weight)
        self.register_buffer("flags", torch.tensor(sorted({block.presence for block in blocks})))

    def encode(self, z: Tensor) -> Tensor:
        """The vectors ``(n, s)`` of standardised inputs ``(n, D)``."""
        codes = [code(z[:, first:last]) for code, (first, last) in zip(self.codes, self.edges, strict=True)]
        vectors = self.vector(self.fusion(torch.cat(codes, 1).relu()).relu())
        return functional.normalize(vectors) if self.normalised else vectors

    def decode(self, vectors: Tensor) -> Tensor:
        """What the vectors say of the inputs ``(n, D)``: numbers, and logits of names."""
        parts = [outer(inner(vectors).relu()) for inner, outer in zip(self.inner, self.outer, strict=True)]
        return torch.cat(parts, 1)

    def corrupted(self, z: Tensor, how: Corruption) -> Tensor:
        """Inputs with noise, and with columns and whole groups hidden: 0, the mean, and not present."""
        numbers = (self.weight > 0).to(z.dtype)
        noise = how.noise * torch.randn_like(z) * numbers * z[:, self.presence]
        columns = (torch.rand_like(z) >= how.masked).to(z.dtype)
        columns[:, self.flags] = 1.0
        groups = (torch.rand(len(z), len(self.edges), device=z.device) >= how.group_dropout).to(z.dtype)
        widths = torch.tensor([last - first for first, last in self.edges], device=z.device)
        return (z + noise) * columns * groups.repeat_interleave(widths, 1)

    def loss(self, z: Tensor, seen: Tensor) -> Tensor:
        """How far what is decoded from the inputs ``seen`` is from ``z``, of each row ``(n,)``.

        The sum over blocks that are there of the mean squared error of numbers, or the cross-entropy of names.
        """
        said = self.decode(self.encode(seen))
        there = z[:, self.presence]
        total = ((said - z).square() * there * self.weight).sum(1)
        for block in self.blocks:
            if block.names:
                shares = z[:, block.begin : block.end]
                crossed = -(shares * said[:, block.begin : block.end].log_softmax(1)).sum(1)
                total = total + crossed * z[:, block.presence]
        return total
