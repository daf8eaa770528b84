"""The gradient of support losses by a compiled pass over the rows, below a ranker of one dense layer."""

import numpy as np
from torch import Tensor

from acclimate.kernels.adaptation import Rows, sum_errors
from acclimate.models.meta_network import Gradient
from acclimate.models.support_loss import SupportLoss


def has_kernel(loss: SupportLoss) -> bool:
    """Whether there is a compiled pass: where one layer is between embeddings and logit, on the CPU."""
    return not loss.layers.between and loss.first.device.type == "cpu"


def fused_gradient(loss: SupportLoss, tasks: int) -> Gradient:
    """:meth:`SupportLoss.gradient` for tasks whose rows lie side by side, in the order of the tasks."""
    if not has_kernel(loss):
        return loss.gradient
    layers = loss.layers
    starts = np.searchsorted(loss.task.numpy(), np.arange(tasks + 1))
    rows = Rows(starts, *(part.numpy() for part in (loss.first, loss.base, loss.label, loss.share)))
    head, back = layers.head.numpy(), layers.head[:, None] * layers.entering

    def gradient(e: Tensor) -> Tensor:
        errors, summed = e.new_empty(tasks), e.new_empty(tasks, len(head))
        moved, passing = e @ layers.entering.T, e @ layers.passing
        sum_errors(rows, moved.numpy(), passing.numpy(), head, errors.numpy(), summed.numpy())
        return summed @ back + errors[:, None] * layers.passing

    return gradient
