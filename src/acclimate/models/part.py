"""A part of the rows, whose optimum is near that of all: where to begin, and what to precondition with.

Of ``n`` rows a sixteenth leaves the optimum uncertain by four times the posterior's standard deviations, which one
Newton step on all rows mends; finding it takes a sixteenth of the time. Its Hessian is that of all rows but for
sampling, ``|M^-1/2 H M^-1/2 - I| ~ 2 sqrt(d/m)`` of ``m`` rows, so that conjugate gradients take a product or two.
(Sub-sampled Newton methods: Byrd, Chin, Neveitt and Nocedal, 2011; Erdogdu and Montanari, 2015.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acclimate.arrays import FloatArray
from acclimate.models.blocks import Block, Hessians
from acclimate.models.conjugate import conjugate_gradients

_ONE_OF = 16
"""Rows, of which one is in the part."""

_ROWS = 1 << 15
"""Rows from which it pays."""

_FEWEST = 4
"""Rows of the part for each coefficient, below which its Hessian is no preconditioner."""

_ROOT = 100
"""Of the ``d^3`` of a Cholesky root what takes as long as to pass over a cell twice."""

_ROUGH = 0.3
"""How close the part's optimum is sought, in the distance that it has from that of all rows."""


_PRODUCTS, _SOLVED = 4, 0.01
"""A system that so many products solve but for so much is well enough conditioned by its diagonal."""


@dataclass(frozen=True)
class Part:
    """A lone block over a part of the rows, which stand for all of them; ``y``, ``offset``, ``weight`` (m,)."""

    block: Block
    y: FloatArray
    offset: FloatArray
    weight: FloatArray

    @staticmethod
    def of(blocks: Sequence[Block], y: FloatArray, offset: FloatArray, weight: FloatArray) -> "Part | None":
        """``None`` where there are too few rows, or more than one entity.

        One row of each sixteen next to one another, in whatever order they are; which one is left to chance, lest
        it be always the same of a pattern.
        """
        block, count = blocks[0], len(y) // _ONE_OF
        enough = len(y) >= _ROWS and count >= _FEWEST * block.design.width
        if len(blocks) > 1 or not block.design.lone or not enough:
            return None
        if block.full and not _worthwhile(block.design.width, block.design.X.nnz):
            return None
        rows = _ONE_OF * np.arange(count) + np.random.default_rng(0).integers(_ONE_OF, size=count)
        active = None if block.active is None else block.active[rows]
        part = replace(block, design=block.design.at(rows), active=active)
        return Part(part, y[rows], offset[rows], _ONE_OF * weight[rows])

    @property
    def tolerance(self) -> float:
        """Decrement to stop at: a third of how far the part's optimum is from that of all, ``sqrt(15 d)``."""
        return _ROUGH * float(np.sqrt((_ONE_OF - 1) * self.block.design.width))

    def hessians(self, curvature: FloatArray, own: Hessians | None) -> tuple[list[Hessians] | None, bool]:
        """Of all rows, as far as the part tells, and whether lengths by them are near the truth.

        None where the diagonal of all rows does, or is all there is. ``curvature`` (m,) is that of the part's
        rows, with how much each counts, at which its ``own`` is.
        """
        if self.block.full and own is not None:
            return [own], True
        if not _worthwhile(self.block.design.width, _ONE_OF * self.block.design.X.nnz):
            return None, False
        if self._nearly_diagonal(curvature):
            return None, True
        return [Hessians.of(self.block.design, self.block.scaled.P, curvature, full=True)], True

    def _nearly_diagonal(self, curvature: FloatArray) -> bool:
        """Whether conjugate gradients need next to no products for a system of which nothing is known.

        What a gradient hides, as that fields sum to one, a vector of noise shows.
        """
        design, P = self.block.design, self.block.scaled.P
        D = P.plus(design.information(curvature, full=False)).array[0]
        b = np.sqrt(D) * np.random.default_rng(0).normal(size=len(D))

        def product(v: FloatArray) -> FloatArray:
            return (design.curved(curvature, v) + P.times(v[None]))[0]

        x, _ = conjugate_gradients(product, lambda r: r / D, b, forcing=0.0, close=0.0, most=_PRODUCTS)
        return bool(np.linalg.norm(product(x) - b) <= _SOLVED * np.linalg.norm(b))


def _worthwhile(width: int, cells: int) -> bool:
    """Whether a Cholesky root takes no more than two passes over so many cells."""
    return width**3 <= _ROOT * cells
