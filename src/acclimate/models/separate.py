"""One block alone: its entities are independent problems, and no conjugate gradients are needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from acclimate.arrays import FloatArray, IntArray, Posterior
from acclimate.models.joint import Block
from acclimate.models.likelihood import Loss
from acclimate.models.posterior import DENSE_WIDTH, UpdateInfo, update_posteriors
from acclimate.models.support import matrices_of

_PIECE = 1 << 17
"""Numbers of matrices that are learned at a time by each thread: 1 MB, which stays in the cache."""


@dataclass(frozen=True)
class SeparateSolution:
    """As :class:`acclimate.models.joint.Solution`, of the one block; ``after`` is in raw units."""

    block: Block
    after: Posterior
    info: UpdateInfo
    decrement: float
    converged: bool
    products: Literal[0] = 0

    @property
    def steps(self) -> int:
        """Newton steps of the entity that took most."""
        return int(self.info.steps.max(initial=0))

    @property
    def decrements(self) -> list[FloatArray]:
        """Of each entity, in posterior standard deviations left to go."""
        return [self.info.decrement]

    @property
    def margin(self) -> FloatArray:
        """The part of each row's margin that was learned, ``(n,)``."""
        return self.block.design.margin(self.block.design.scaling.mean_in(self.after.mean))

    def margin_of(self, _: int) -> FloatArray:
        """The same: there is but one block."""
        return self.margin

    def pieces(self, _: int) -> Iterator[IntArray]:
        """All entities: they are there already."""
        yield np.arange(self.block.design.count)

    def posterior(self, _: int, members: IntArray | None = None) -> Posterior:
        """The posteriors of some entities, or of all."""
        return self.after if members is None or len(members) == len(self.after.mean) else self.after.at(members)


def is_separate(blocks: list[Block]) -> bool:
    """Whether there is but one block, of many entities, whose rows are narrow enough to be written out."""
    design = blocks[0].design
    return len(blocks) == 1 and design.count > 1 and design.width <= DENSE_WIDTH


def solve_separately(
    block: Block,
    y: FloatArray,
    offset: FloatArray,
    weight: FloatArray,
    *,
    tolerance: float,
    max_steps: int,
    loss: Loss = "logistic",
) -> SeparateSolution:
    """The same optimum as :func:`acclimate.models.joint.solve_joint` finds for this block alone.

    ``tolerance`` is that of all entities together.
    """
    from acclimate.kernels.threads import threads

    design, grouping, full = block.design, block.design.grouping, block.form == "full"
    order, scaling, (count, d) = grouping.order, design.scaling, (design.count, design.width)
    rows = [design.X[order].toarray(), y[order], offset[order], block.counted(weight)[order]]
    matrices = full or block.prior.is_full
    raw = Posterior(np.empty((count, d)), np.empty((count, d, d) if matrices else (count, d)))
    steps, decrements = np.empty(count, np.int64), np.empty(count)
    piece = max(1, _PIECE // d**2) * threads()
    for first in range(0, count, piece):
        last = min(first + piece, count)
        begin, end = grouping.indptr[first], grouping.indptr[last]
        prior = block.prior.at(slice(first, last)) if len(block.prior.mean) > 1 else block.prior
        prior = scaling.prior_in(prior)
        prior = prior.at(0).repeated(last - first) if len(prior.mean) == 1 else prior
        X, labels, offsets, weights = (column[begin:end] for column in rows)
        after, info = update_posteriors(
            # The form of what is found is that of the prior, which may be a diagonal at first.
            matrices_of(prior) if full else prior,
            X,
            labels,
            grouping.indptr[first : last + 1] - begin,
            offset=offsets,
            weight=weights,
            diagonal="marginal" if block.form == "marginal" else "diagonal",
            loss=loss,
            tolerance=tolerance / np.sqrt(count),
            max_steps=max_steps,
        )
        raw.mean[first:last] = scaling.mean_out(after.mean)
        raw.precision[first:last] = scaling.precision_out(after.P).array
        steps[first:last], decrements[first:last] = info.steps, info.decrement
    decrement = float(np.linalg.norm(decrements))
    info = UpdateInfo(steps, decrements, decrements <= tolerance / np.sqrt(count))
    return SeparateSolution(block, raw, info, decrement, decrement <= tolerance)
