"""Problems of several effects for the tests of the joint fit, and the same written out as one dense block."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from model_oracles import Rows, information, minimiser, random_precision, sigmoid
from scipy import sparse

from acclimate.arrays import Form, Posterior
from acclimate.models.blocks import Design
from acclimate.models.joint import Block, Solution, solve_joint
from acclimate.models.scaling import Scaling

KINDS: tuple[Form, ...] = ("full", "diagonal", "marginal")


@dataclasses.dataclass(frozen=True)
class Effect:
    """A block in raw units; ``count`` is needed where all entities have one prior, ``(1, d)``."""

    X: "sparse.csr_array"
    entity: np.ndarray
    prior: Posterior
    form: Form
    count: int | None = None

    @property
    def entities(self) -> int:
        return len(self.prior.mean) if self.count is None else self.count

    def design(self, weight: np.ndarray) -> Design:
        return Design.of(self.X, self.entity, self.entities, weight=weight, centre=self.form == "full")

    def block(self, weight: np.ndarray) -> Block:
        return Block(self.design(weight), self.prior, self.form)

    def unscaled(self) -> Block:
        """The block whose coordinates are the raw ones."""
        d = self.X.shape[1]
        trivial = Scaling(np.zeros(d), np.ones(d))
        return Block(Design(self.X, self.entity, self.entities, trivial), self.prior, self.form)

    def priors(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every entity: means ``(e, d)``, precisions ``(e, d, d)``."""
        count, d = self.entities, self.X.shape[1]
        full = self.prior.precision if self.prior.is_full else [np.diag(P) for P in self.prior.precision]
        return np.broadcast_to(self.prior.mean, (count, d)), np.broadcast_to(full, (count, d, d))

    def taken(self, rows: np.ndarray) -> "Effect":
        return dataclasses.replace(self, X=self.X[rows], entity=self.entity[rows])

    def mapped(self, change) -> "Effect":
        """With other cells, given and returned as a dense matrix."""
        return dataclasses.replace(self, X=sparse.csr_array(change(self.X.toarray())))


@dataclasses.dataclass(frozen=True)
class World:
    """Effects over the same rows; ``rows.X`` stays empty."""

    effects: Sequence[Effect]
    rows: Rows

    def with_shared_priors(self) -> "World":
        """All entities of an effect at the prior of its first."""
        effects = [
            dataclasses.replace(effect, prior=effect.prior.at(slice(0, 1)), count=effect.entities)
            for effect in self.effects
        ]
        return World(effects, self.rows)

    @property
    def blocks(self) -> list[Block]:
        return [effect.block(self.rows.weight) for effect in self.effects]

    def solved(self, **options) -> Solution:
        return solve_joint(self.blocks, self.rows.y, self.rows.offset, self.rows.weight, **options)

    def stacked(self) -> tuple[np.ndarray, np.ndarray, Rows]:
        """The same problem as one dense block: prior mean ``(D,)``, precision ``(D, D)``, rows."""
        size = sum(effect.entities * effect.X.shape[1] for effect in self.effects)
        means, precision, columns, first = [], np.zeros((size, size)), [], 0
        for effect in self.effects:
            mean, precisions = effect.priors()
            count, d = mean.shape
            X, dense = np.zeros((len(effect.entity), count, d)), effect.X.toarray()
            for i, e in enumerate(effect.entity):
                if e >= 0:
                    X[i, e] = dense[i]
            columns.append(X.reshape(len(X), -1))
            means.append(mean.ravel())
            for P in precisions:
                precision[first : first + d, first : first + d] = P
                first += d
        return np.concatenate(means), precision, dataclasses.replace(self.rows, X=np.hstack(columns))


def world(seed: int, *, n: int = 300, kind: Form = "full", others: Form | None = None, weak: float = 1.0) -> World:
    """A fixed effect of 4 coefficients, 12 users of 3 and 7 videos of 2; some rows have no video."""
    rng = np.random.default_rng(seed)
    user, video = rng.integers(0, 12, n), rng.integers(-1, 7, n)
    designs = [rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.7) for d in (4, 3, 2)]
    for X in designs:
        X[:, 0] = 1.0
    entities, kinds = (np.zeros(n, np.int64), user, video), (kind, others or kind, others or kind)
    effects = []
    for X, entity, count, form in zip(designs, entities, (1, 12, 7), kinds, strict=True):
        d = X.shape[1]
        precision = np.array([random_precision(seed + e, d, weak) for e in range(count)])
        kept = precision if form == "full" else np.diagonal(precision, axis1=1, axis2=2).copy()
        prior = Posterior(0.3 * rng.normal(size=(count, d)), kept)
        effects.append(Effect(sparse.csr_array(X), entity, prior, form))
    z = designs[0] @ rng.normal(size=4) + rng.normal(size=12)[user] + rng.normal(size=8)[video]
    y = (rng.random(n) < sigmoid(z)).astype(np.float64)
    return World(effects, Rows(np.empty((n, 0)), y, 0.5 * rng.normal(size=n), rng.uniform(0.2, 2.0, n)))


def optimum(made: World) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's means for the stacked problem, and the Hessian there."""
    m, P, rows = made.stacked()
    w = minimiser(m, P, rows)
    return w, P + information(w, rows)


def joined(solution: Solution) -> np.ndarray:
    """The raw means of all blocks as one vector."""
    return np.concatenate([solution.means(k).ravel() for k in range(len(solution.problem.blocks))])


def posteriors(solution: Solution) -> list[Posterior]:
    return [solution.posterior(k) for k in range(len(solution.problem.blocks))]


def kept_precisions(H: np.ndarray, effect: Effect, first: int, kind: Form) -> np.ndarray:
    """What a block keeps of the Hessian of all: each entity's part of it, in the block's form."""
    count, d = effect.entities, effect.X.shape[1]
    parts = [H[i : i + d, i : i + d] for i in range(first, first + count * d, d)]
    keep = {"full": lambda h: h, "diagonal": np.diag, "marginal": lambda h: 1.0 / np.diag(np.linalg.inv(h))}
    return np.array([keep[kind](h) for h in parts])
