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
        return self.after if members is None else self.after.at(members)


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
    design, grouping = block.design, block.design.grouping
    prior = design.scaling.prior_in(block.prior)
    prior = prior.at(0).repeated(design.count) if len(prior.mean) == 1 else prior
    if block.form == "full":  # the form of what is found is that of the prior, which may be a diagonal at first
        prior = matrices_of(prior)
    order = grouping.order
    after, info = update_posteriors(
        prior,
        design.X[order].toarray(),
        y[order],
        grouping.indptr,
        offset=offset[order],
        weight=block.counted(weight)[order],
        diagonal="marginal" if block.form == "marginal" else "diagonal",
        loss=loss,
        tolerance=tolerance / np.sqrt(design.count),
        max_steps=max_steps,
    )
    raw = Posterior(design.scaling.mean_out(after.mean), design.scaling.precision_out(after.P).array)
    decrement = float(np.linalg.norm(info.decrement))
    return SeparateSolution(block, raw, info, decrement, decrement <= tolerance)
