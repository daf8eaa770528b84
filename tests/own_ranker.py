"""A ranker of a user's, with a weight that belongs to no linear layer."""

import torch
from torch import nn

from acclimate.models.rankers import Inputs, Sizes


class Own(nn.Module):
    """Sums embeddings, each scaled by its field, through one bend."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((sizes.fields,), 0.5))
        self.out = nn.Linear(sizes.embedding + sizes.dense, 1)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        bent = torch.tanh((inputs.embedded * self.scale[:, None]).sum(1))
        return self.out(torch.cat([bent, inputs.dense], 1)).squeeze(1)
