"""A decision layer of each user's own, for a meta block without features: as in MeLU (Lee et al. 2019)."""

from dataclasses import replace

from torch import Tensor

from acclimate.models.rankers import Inputs, Sizes, WideAndDeep


class DecisionLayer(WideAndDeep):
    """Wide-and-deep with more weights of its last layer: ``h'(w + e)``, with ``e`` what is adapted.

    The embedding ``e`` is as long as the last layer is wide, and is the last of the numbers of a row.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.width = sizes.hidden[-1]
        super().__init__(replace(sizes, dense=sizes.dense - self.width))

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``(n,)``."""
        rest = inputs._replace(dense=inputs.dense[:, : -self.width])
        hidden = self.hidden(rest)
        weights = inputs.dense[:, -self.width :]
        return self.head(hidden).squeeze(1) + (hidden * weights).sum(1) + self.shallow(rest)
